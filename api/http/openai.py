"""The dialect of OpenAI: embeddings, and searches of vector stores, which are collections here."""

import base64
from collections.abc import Iterable
from typing import Annotated, Any, Final, Literal, TypeAlias

import numpy as np
from fastapi import APIRouter, Request
from pydantic import BaseModel, BeforeValidator, Field
from pydantic_core import PydanticCustomError
from starlette.responses import Response

from api.http.answers import JsonResponse, StrictRoute
from api.http.deps import Collection, Reader, service_of, while_connected
from api.http.dialects import Dialect, Lenient, Problem, errors, said
from api.http.model_calls import embed
from api.http.schemas import MOST, Filter
from api.keys import Principal
from api.service import RerankSpec, SearchSpec, Service
from index.errors import DeadlineError, GrapnelError, RequestError, RerankerError
from index.types import Vectors
from retrieval.types import Hit, Query, SearchRequest

router = APIRouter(route_class=StrictRoute, tags=["OpenAI"])

_RESULTS = 50
"""Most results of one search of a vector store."""

_ANY_RANKER: Final = ("auto", "none", "default-2024-11-15")
"""What OpenAI calls its own rankers: here, the collection's ranking as it is."""

_TYPES: Final = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}


class ErrorDetail(BaseModel):
    """What went wrong. param: the first member of the body that is wrong. code: the type of our own problem."""

    message: str
    type: str
    param: str | None
    code: str


class ErrorOut(BaseModel):
    """An error as OpenAI's clients read it."""

    error: ErrorDetail


def error(problem: Problem) -> dict[str, Any]:
    """Return a problem as OpenAI's clients read errors."""
    status = problem["status"]
    flaws = problem.get("errors", ()) if status == 422 else ()  # of what is no JSON, they name characters
    place = next((flaw["place"] for flaw in flaws), None)
    detail = {
        "message": said(problem),
        "type": _TYPES.get(status, "server_error" if status >= 500 else "invalid_request_error"),
        "param": None if place is None else place.removeprefix("body."),
        "code": problem["type"].removeprefix("grapnel:").replace("-", "_"),
    }
    return {"error": detail}


DIALECT: Final = Dialect(router, error)
_ERRORS: Final = errors(ErrorOut)


# -- embeddings ---------------------------------------------------------------------------------------------------


def _texts_only(value: Any) -> Any:
    if isinstance(value, list) and value and isinstance(value[0], int | list):
        raise PydanticCustomError(
            "token_ids",
            "holds token ids, which only their own tokenizer knows: send texts (LangChain's OpenAIEmbeddings does with "
            "check_embedding_ctx_length=False)",
        )
    return value


class EmbeddingsIn(Lenient):
    """Texts to encode."""

    input: Annotated[str | Annotated[list[str], Field(min_length=1)], BeforeValidator(_texts_only)] = Field(
        description="A text or several; no token ids.", examples=[["read a file line by line"]]
    )
    model: str = Field(description="An encoder of this server, see /v1/models.", examples=["default"])
    encoding_format: Literal["float", "base64"] = Field(
        "float", description="base64: of little-endian float32, a quarter of the size."
    )
    dimensions: int | None = Field(
        None,
        ge=1,
        le=MOST,
        description="What the encoder gives; fewer where the server's configuration gives the encoder a `dim`, which "
        "says that its model is a Matryoshka one: then the first numbers, scaled to unit length.",
    )
    input_type: Literal["query", "passage"] = Field(
        "passage", description="No member of OpenAI's: whether the texts are questions, or what is to be found."
    )


class EmbeddingOut(BaseModel):
    """The vector of one text."""

    object: Literal["embedding"]
    index: int
    embedding: list[float] | str


class UsageOut(BaseModel):
    """Tokens of all texts."""

    prompt_tokens: int
    total_tokens: int


class EmbeddingsOut(BaseModel):
    """Vectors in the order of the texts. truncated: texts of which the encoder's window held only the beginning."""

    object: Literal["list"]
    data: list[EmbeddingOut]
    model: str
    usage: UsageOut
    truncated: int


@router.post("/v1/embeddings", response_model=EmbeddingsOut, responses=_ERRORS)
async def embeddings(request: Request, body: EmbeddingsIn, principal: Reader) -> Response:
    """Encode texts. Members that are not listed are ignored."""
    texts = [body.input] if isinstance(body.input, str) else body.input
    service = service_of(request)
    work = embed(service, principal, body.model, texts, body.input_type, body.dimensions)
    found = await while_connected(request, work)
    rows = _base64(found.vectors) if body.encoding_format == "base64" else found.vectors
    return JsonResponse(
        {
            "object": "list",
            "data": [{"object": "embedding", "index": place, "embedding": row} for place, row in enumerate(rows)],
            "model": body.model,
            "usage": {"prompt_tokens": found.tokens, "total_tokens": found.tokens},
            "truncated": found.truncated,
        }
    )


def _base64(vectors: Vectors) -> list[str]:
    return [base64.b64encode(row.tobytes()).decode() for row in vectors.astype(np.dtype("<f4"), copy=False)]


# -- vector stores ------------------------------------------------------------------------------------------------

_Text: TypeAlias = Annotated[str, Field(min_length=1)]


class RankingOptions(Lenient):
    """How results are ranked, and from which score on they are results."""

    ranker: str = Field(
        "auto",
        description="A reranker of this server, see /v1/models; `auto`, `none` and `default-2024-11-15`: the "
        "collection's own ranking.",
        examples=["similarity"],
    )
    score_threshold: float | None = Field(
        None, description="In the scale of the ranking's scores, which is that of the collection or the reranker."
    )


class VectorStoreSearchIn(Lenient):
    """A search. query: of several, each passage counts with its best score."""

    query: _Text | Annotated[list[_Text], Field(min_length=1)] = Field(examples=["read a file line by line"])
    filters: Filter | None = None
    max_num_results: int = Field(10, ge=1, le=_RESULTS)
    ranking_options: RankingOptions | None = None
    rewrite_query: bool = Field(False, description="Accepted; queries are searched for as they are.")


class ContentOut(BaseModel):
    """The text of a passage."""

    type: Literal["text"]
    text: str


class FoundOut(BaseModel):
    """A passage. file_id: of its document; filename: the document's title, or its id. attributes: its metadata."""

    file_id: str
    filename: str
    score: float | None
    attributes: dict[str, Any]
    content: list[ContentOut]


class VectorStorePage(BaseModel):
    """What was found, best first; there is never a next page."""

    object: Literal["vector_store.search_results.page"]
    search_query: list[str]
    data: list[FoundOut]
    has_more: bool
    next_page: str | None


@router.post("/v1/vector_stores/{collection}/search", response_model=VectorStorePage, responses=errors(ErrorOut, 502))
async def search_vector_store(
    request: Request, collection: Collection, body: VectorStoreSearchIn, principal: Reader
) -> Response:
    """Search a collection for passages. Members that are not listed are ignored."""
    queries = [body.query] if isinstance(body.query, str) else body.query
    hits = await while_connected(request, _search(request, principal, collection, queries, body))
    return JsonResponse(
        {
            "object": "vector_store.search_results.page",
            "search_query": queries,
            "data": [_found(hit) for hit in hits],
            "has_more": False,
            "next_page": None,
        }
    )


async def _search(
    request: Request, principal: Principal, collection: str, queries: list[str], body: VectorStoreSearchIn
) -> list[Hit]:
    service, options = service_of(request), body.ranking_options
    ranker, threshold = ("auto", None) if options is None else (options.ranker, options.score_threshold)
    if len(queries) > service.limits.searches:
        raise RequestError(f"{len(queries)} queries, this server takes {service.limits.searches} in one request")
    rerank = _rerank(service, ranker)
    specs = [
        SearchSpec(
            SearchRequest(Query("q", query), k=body.max_num_results, filter=body.filters, group="passage"),
            rerank=rerank,
        )
        for query in queries
    ]
    answers = await service.search(principal, collection, specs)
    hits: list[Hit] = []
    for answer in answers:
        if isinstance(answer, GrapnelError):
            raise answer
        _check_reranked(answer.ranking.notes)
        hits += answer.ranking.hits
    if len(queries) > 1:
        hits = _best(hits)[: body.max_num_results]
    return hits if threshold is None else [hit for hit in hits if hit.score is not None and hit.score >= threshold]


def _rerank(service: Service, ranker: str) -> RerankSpec | None:
    if ranker in service.models.reranker_names:
        return RerankSpec(ranker)
    if ranker in _ANY_RANKER:
        return None
    known = ", ".join([*_ANY_RANKER, *service.models.reranker_names])
    raise RequestError(f"ranking_options.ranker is {ranker[:80]!r}; there are: {known}")


def _check_reranked(notes: Iterable[str]) -> None:
    """Raise where a reranker failed, or did not come to the end: scores of two scales would be taken for one."""
    for note in notes:
        if note.startswith("rerank_failed"):
            raise RerankerError(note)
        if note.startswith("rerank_unreached="):
            raise DeadlineError("the time was over before all results were reranked: ask for fewer")


def _best(hits: Iterable[Hit]) -> list[Hit]:
    """Return each passage once, with its best score, best first; equal ones in the order they came."""
    best: dict[tuple[str, int], Hit] = {}
    for hit in hits:
        known = best.get((hit.doc_id, hit.passage.ordinal))
        if known is None or _score(hit) > _score(known):
            best[hit.doc_id, hit.passage.ordinal] = hit
    return sorted(best.values(), key=_score, reverse=True)


def _score(hit: Hit) -> float:
    return float("-inf") if hit.score is None else hit.score


def _found(hit: Hit) -> dict[str, Any]:
    return {
        "file_id": hit.doc_id,
        "filename": hit.passage.title or hit.doc_id,
        "score": hit.score,
        "attributes": dict(hit.metadata),
        "content": [{"type": "text", "text": hit.passage.text}],
    }
