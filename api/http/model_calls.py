"""What several dialects ask of models: vectors of a wanted length, texts in a better order."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from api.keys import Principal
from api.models import Embedded, Side
from api.service import Service
from index.errors import DeadlineError, NotFoundError, RequestError
from index.types import Vectors
from retrieval.protocols import Candidate, Encoder


class Place(NamedTuple):
    """A candidate's place in the new order. number: its place before. score: higher is better."""

    number: int
    score: float


class Reordered(NamedTuple):
    """places: best first. tokens: what the model read. notes: whatever was degraded.

    truncated: whether some text was longer than the reranker's window, so that only its beginning was read.
    """

    places: list[Place]
    tokens: int
    notes: tuple[str, ...]
    truncated: bool


def first_encoder(service: Service) -> str:
    """Return the encoder for requests that can name none: the first of the configuration. Raises NotFoundError."""
    return _first(service.models.encoder_names, "encoder")


def first_reranker(service: Service) -> str:
    """Return the reranker for requests that name none: the first of the configuration. Raises NotFoundError."""
    return _first(service.models.reranker_names, "reranker")


def _first(names: Sequence[str], what: str) -> str:
    if not names:
        raise NotFoundError(f"this server has no {what}")
    return names[0]


async def encoder_of(service: Service, model: str) -> Encoder:
    """Return an encoder. Raises NotFoundError, UnavailableError until models are loaded."""
    service.check_ready()
    return await service.model_calls.run(lambda: service.models.encoder(model))


async def embed(
    service: Service, principal: Principal, model: str, texts: Sequence[str], side: Side, dimensions: int | None
) -> Embedded:
    """Encode texts, to vectors of `dimensions` numbers where given.

    Fewer than the encoder gives are the first ones, scaled to unit length. That needs a model trained for it
    (Matryoshka), which no file of a model says, so its operator does: by a `dim` in its configuration.
    Raises NotFoundError on an unknown model, RequestError on other dimensions, beyond the limits, OverloadedError.
    """
    if dimensions is not None:
        config = service.models.encoder_config(model)
        encoder = await encoder_of(service, model)
        may_cut = config.kind == "sentence-transformers" and config.dim is not None
        if dimensions > encoder.dim or (dimensions < encoder.dim and not may_cut):
            rule = f"1 to {encoder.dim:,}" if may_cut else f"{encoder.dim:,}"
            remedy = (
                "" if may_cut else " (shorter ones need a Matryoshka model with `dim` in the server's configuration)"
            )
            raise RequestError(f"dimensions is {dimensions:,}, expected {rule} from encoder {model!r}{remedy}")
    found = await service.embed(principal, model, texts, side)
    if dimensions is None or dimensions == found.vectors.shape[1]:
        return found
    return found._replace(vectors=unit(found.vectors[:, :dimensions]))


def unit(vectors: Vectors) -> Vectors:
    """Return vectors float32 (n, D) scaled to unit length; zero stays zero."""
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.ascontiguousarray(vectors / np.maximum(norms, np.finfo(np.float32).tiny), dtype=np.float32)


async def rerank(
    service: Service, principal: Principal, model: str, query: str, candidates: Sequence[Candidate], top_k: int
) -> Reordered:
    """Order candidates. Where a reranker gives an order without scores, they are 1, 1/2, 1/3 and so on.

    Raises NotFoundError on an unknown model, RequestError beyond the limits, OverloadedError, RerankerError, and
    DeadlineError where the server's time for a request was over before all candidates were read: clients of these
    dialects could not tell such an answer from a complete one.
    """
    result = await service.rerank(principal, model, query, candidates, top_k)
    if result.unreached or _noted("rerank_unreached=", result.notes):  # the notes also know of those beyond top_k
        raise DeadlineError("the time was over before all texts were read: send fewer, or shorter ones")
    places = [
        Place(number, 1 / rank if score is None else score)
        for rank, (number, score) in enumerate(zip(result.order, result.scores, strict=True), start=1)
    ]
    return Reordered(places, result.tokens, result.notes, _noted("rerank_truncated=", result.notes))


def _noted(what: str, notes: Sequence[str]) -> bool:
    return any(note.startswith(what) for note in notes)
