"""The dialect of Text Embeddings Inference (TEI): one encoder and one reranker, the first of the configuration.

Its POST /rerank is in api/http/cohere.py, whose dialect has the same address.
"""

from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.responses import Response

from api.http.answers import JsonResponse, StrictRoute
from api.http.deps import Reader, service_of, while_connected
from api.http.dialects import Dialect, Lenient, Problem, errors, said
from api.http.model_calls import embed, encoder_of, first_encoder, first_reranker, rerank, unit
from api.http.schemas import MOST
from api.keys import Principal
from api.models import Side
from api.service import Service
from retrieval.encoders.batched import WindowedEncoder
from retrieval.protocols import Candidate

router = APIRouter(route_class=StrictRoute, tags=["TEI"])

_SIDES: Final[dict[str | None, Side]] = {None: "passage", "passage": "passage", "document": "passage", "query": "query"}
_ERROR_TYPES: Final = {429: "overloaded", 503: "unhealthy"}


class ErrorOut(BaseModel):
    """An error as TEI's clients read it."""

    error: str
    error_type: Literal["validation", "overloaded", "unhealthy", "backend"]


def error(problem: Problem) -> dict[str, Any]:
    """Return a problem as TEI's clients read errors."""
    status = problem["status"]
    kind = _ERROR_TYPES.get(status, "backend" if status >= 500 else "validation")
    return {"error": said(problem), "error_type": kind}


DIALECT: Final = Dialect(router, error)
_ERRORS: Final = errors(ErrorOut)


class Truncated(Lenient):
    """What becomes of texts that are longer than the model's window."""

    truncate: bool = Field(False, description="Read the beginning of longer texts; otherwise they are refused (413).")
    truncation_direction: Literal["Right", "right"] = Field("Right", description="The end is what is cut off.")


class EmbedIn(Truncated):
    """Texts to encode."""

    inputs: str | Annotated[list[str], Field(min_length=1)] = Field(examples=[["read a file line by line"]])
    normalize: bool = Field(True, description="Scale to unit length; false: as the encoder gives them.")
    prompt_name: Literal["query", "passage", "document"] | None = Field(
        None, description="`query`: the texts are questions. Otherwise they are what is to be found."
    )
    dimensions: int | None = Field(None, ge=1, le=MOST, description="As at /v1/embeddings.")


@router.post("/embed", response_model=list[list[float]], responses=_ERRORS)
async def embed_texts(request: Request, body: EmbedIn, principal: Reader) -> Response:
    """Encode texts with the first encoder of the configuration. Members that are not listed are ignored."""
    service = service_of(request)
    texts = [body.inputs] if isinstance(body.inputs, str) else body.inputs
    work = embed(service, principal, first_encoder(service), texts, _SIDES[body.prompt_name], body.dimensions)
    found = await while_connected(request, work)
    if found.truncated and not body.truncate:
        raise _too_long(f"{found.truncated} of {len(texts)} inputs are")
    return JsonResponse(list(unit(found.vectors) if body.normalize else found.vectors))


class SimilarityInputs(Lenient):
    """A text, and those to compare with it."""

    source_sentence: str = Field(examples=["read a file line by line"])
    sentences: list[str] = Field(min_length=1, examples=[["open a file", "close a window"]])


class SimilarityParameters(Truncated):
    """How to compare."""

    prompt_name: Literal["query", "passage", "document"] | None = Field(None, description="As at /embed, for all.")


class SimilarityIn(Lenient):
    """Texts to compare."""

    inputs: SimilarityInputs
    parameters: SimilarityParameters | None = None


@router.post("/similarity", response_model=list[float], responses=_ERRORS)
async def similarity(request: Request, body: SimilarityIn, principal: Reader) -> Response:
    """Compare texts by the cosine of their vectors, of the first encoder. Members that are not listed are ignored."""
    service = service_of(request)
    texts = [body.inputs.source_sentence, *body.inputs.sentences]
    options = body.parameters or SimilarityParameters.model_validate({})
    side = _SIDES[options.prompt_name]
    found = await while_connected(request, embed(service, principal, first_encoder(service), texts, side, None))
    if found.truncated and not options.truncate:
        raise _too_long(f"{found.truncated} of {len(texts)} texts are")
    vectors = unit(found.vectors)
    return JsonResponse(vectors[1:] @ vectors[0])


def _too_long(which: str) -> HTTPException:
    return HTTPException(413, f"{which} longer than the model's window: send shorter texts, or set `truncate`")


class InfoOut(BaseModel):
    """The first encoder. max_input_length: its window in tokens; model_sha: names the vectors it makes."""

    model_id: str
    model_sha: str
    model_dtype: Literal["float32"]
    model_type: dict[str, dict[str, str]]
    max_input_length: int | None
    max_client_batch_size: int
    max_concurrent_requests: int
    auto_truncate: bool
    version: str


@router.get("/info", response_model=InfoOut, responses=_ERRORS)
async def info(request: Request, principal: Reader) -> Response:  # noqa: ARG001  the key is what is checked
    """Describe the encoder that /embed uses."""
    service = service_of(request)
    name = first_encoder(service)
    encoder = await encoder_of(service, name)
    return JsonResponse(
        {
            "model_id": name,
            "model_sha": encoder.fingerprint,
            "model_dtype": "float32",
            "model_type": {"embedding": {}},
            "max_input_length": encoder.window if isinstance(encoder, WindowedEncoder) else None,
            "max_client_batch_size": service.limits.texts,
            "max_concurrent_requests": service.limits.queue,
            "auto_truncate": False,
            "version": request.app.version,
        }
    )


@router.get("/health", response_class=Response, responses={503: {"model": ErrorOut, "description": "Not yet"}})
async def health(request: Request) -> Response:
    """Answer 200 once models are loaded and collections open; see also /health/ready."""
    service_of(request).check_ready()
    return Response(status_code=200)


class TextsIn(Truncated):
    """Texts to order for a query, as TEI's clients ask."""

    query: str = Field(min_length=1, examples=["read a file line by line"])
    texts: list[str] = Field(min_length=1, examples=[["open a file", "close a window"]])
    raw_scores: bool = Field(False, description="Accepted; scores are what the reranker gives, either way.")
    return_text: bool = False


class ScoredOut(BaseModel):
    """A text. index: its place in the request."""

    index: int
    score: float
    text: str | None = None


async def rerank_texts(service: Service, principal: Principal, body: TextsIn) -> list[dict[str, Any]]:
    """Order texts with the first reranker of the configuration, best first."""
    candidates = [Candidate(text) for text in body.texts]
    name = first_reranker(service)
    found = await rerank(service, principal, name, body.query, candidates, len(candidates))
    if found.truncated and not body.truncate:
        raise _too_long("query and text together are for some texts")
    values: list[dict[str, Any]] = [{"index": place.number, "score": place.score} for place in found.places]
    if body.return_text:
        for value in values:
            value["text"] = body.texts[value["index"]]
    return values
