"""The dialect of Cohere, which Jina and vLLM speak, too: /rerank on three paths.

TEI has the same first path: a body with `texts` is in its dialect, and an error there has the members of both.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Request
from pydantic import BaseModel, Discriminator, Field, Tag
from starlette.responses import Response

from api.http import tei
from api.http.answers import JsonResponse, StrictRoute
from api.http.deps import Reader, service_of, while_connected
from api.http.dialects import Dialect, Lenient, Problem, errors, said
from api.http.model_calls import first_reranker, rerank
from api.http.problems import request_id_of
from api.http.schemas import MOST
from api.keys import Principal
from index.errors import RequestError
from retrieval.protocols import Candidate

router = APIRouter(route_class=StrictRoute, tags=["Cohere"])
shared = APIRouter(route_class=StrictRoute, tags=["Cohere", "TEI"])


class ErrorOut(BaseModel):
    """An error as Cohere's clients read it."""

    id: str
    message: str


class SharedErrorOut(ErrorOut, tei.ErrorOut):
    """An error as clients of either dialect read it."""


def error(problem: Problem) -> dict[str, Any]:
    """Return a problem as Cohere's clients read errors."""
    return {"id": problem["request_id"], "message": said(problem)}


def _shared_error(problem: Problem) -> dict[str, Any]:
    return error(problem) | tei.error(problem)


DIALECT: Final = Dialect(router, error)
SHARED: Final = Dialect(shared, _shared_error)


class RerankIn(Lenient):
    """Documents to order for a query."""

    model: str | None = Field(
        None, description="A reranker of this server, see /v1/models; its first where none is named."
    )
    query: str = Field(min_length=1, examples=["read a file line by line"])
    documents: list[str | dict[str, Any]] = Field(
        min_length=1,
        description="Texts, or objects with a `text` (or what `rank_fields` names).",
        examples=[["open a file", {"text": "close a window"}]],
    )
    top_n: int | None = Field(None, ge=1, le=MOST, description="The best ones only; otherwise all.")
    rank_fields: Annotated[list[str], Field(min_length=1)] | None = Field(
        None, description="The members of objects that are read, in this order."
    )
    return_documents: bool = False


class ResultOut(BaseModel):
    """A document. index: its place in the request. relevance_score: higher is better, in the reranker's own scale."""

    index: int
    relevance_score: float
    document: dict[str, Any] | None = None


class MetaOut(BaseModel):
    """About the answer. warnings: whatever was degraded."""

    api_version: dict[str, str]
    tokens: dict[str, int]
    warnings: list[str] | None = None


class UsageOut(BaseModel):
    """Tokens that the reranker read; Jina's and vLLM's clients look for them here."""

    total_tokens: int


class RerankOut(BaseModel):
    """Documents, best first."""

    id: str
    model: str
    results: list[ResultOut]
    meta: MetaOut
    usage: UsageOut


@router.post("/v1/rerank", response_model=RerankOut, responses=errors(ErrorOut, 502))
async def rerank_v1(request: Request, body: RerankIn, principal: Reader) -> Response:
    """Order documents for a query. Members that are not listed are ignored."""
    return JsonResponse(await while_connected(request, _reranked(request, principal, body, "1")))


@router.post("/v2/rerank", response_model=RerankOut, responses=errors(ErrorOut, 502))
async def rerank_v2(request: Request, body: RerankIn, principal: Reader) -> Response:
    """Order documents for a query. Members that are not listed are ignored."""
    return JsonResponse(await while_connected(request, _reranked(request, principal, body, "2")))


def _which(value: Any) -> Literal["texts", "documents"]:
    given = value if isinstance(value, Mapping) else vars(value) if isinstance(value, BaseModel) else {}
    return "texts" if "texts" in given else "documents"


_Either = Annotated[Annotated[RerankIn, Tag("documents")] | Annotated[tei.TextsIn, Tag("texts")], Discriminator(_which)]


@shared.post("/rerank", response_model=RerankOut | list[tei.ScoredOut], responses=errors(SharedErrorOut, 502))
async def rerank_either(request: Request, body: _Either, principal: Reader) -> Response:
    """Order `documents` (Cohere, Jina, vLLM) or `texts` (TEI) for a query. Members that are not listed are ignored."""
    if isinstance(body, tei.TextsIn):
        work = tei.rerank_texts(service_of(request), principal, body)
        return JsonResponse(await while_connected(request, work))
    return JsonResponse(await while_connected(request, _reranked(request, principal, body, "1")))


async def _reranked(request: Request, principal: Principal, body: RerankIn, version: str) -> dict[str, Any]:
    service = service_of(request)
    candidates = [_candidate(place, document, body.rank_fields) for place, document in enumerate(body.documents)]
    model = body.model or first_reranker(service)
    found = await rerank(
        service, principal, model, body.query, candidates, min(body.top_n or len(candidates), len(candidates))
    )
    results = []
    for index, score in found.places:
        result: dict[str, Any] = {"index": index, "relevance_score": score}
        if body.return_documents:
            document = body.documents[index]
            result["document"] = {"text": document} if isinstance(document, str) else document
        results.append(result)
    meta: dict[str, Any] = {"api_version": {"version": version}, "tokens": {"input_tokens": found.tokens}}
    if found.notes:
        meta["warnings"] = list(found.notes)
    usage = {"total_tokens": found.tokens}
    return {"id": request_id_of(request), "model": model, "results": results, "meta": meta, "usage": usage}


def _candidate(place: int, document: str | dict[str, Any], fields: list[str] | None) -> Candidate:
    if isinstance(document, str):
        return Candidate(document)
    wanted = fields or ["text"]
    values = [document[field] for field in wanted if field in document]
    if not values or not all(isinstance(value, str | int | float) for value in values):
        raise RequestError(f"documents.{place}: expected {' or '.join(map(repr, wanted))} with text or numbers")
    return Candidate("\n".join(str(value) for value in values))
