"""Encoders and rerankers for the adapters: of this process, or of a server."""

import logging
from collections.abc import Sequence
from typing import Literal, Protocol, runtime_checkable

import numpy as np

from api.client import Grapnel
from index.errors import RerankerError
from index.types import Vectors
from retrieval.encoders import EncoderConfig
from retrieval.field_vectors import Encoders
from retrieval.protocols import Candidate, RerankResult
from retrieval.store.records import titled
from retrieval.types import Query

log = logging.getLogger(__name__)

_TEXTS = 256
"""Texts in one request to a server: what it takes unless it is configured otherwise."""


@runtime_checkable
class Embedder(Protocol):
    """Makes vectors of texts. Safe to call from several threads. Both calls return float32 (N, D), in order.

    Of a text beyond the encoder's window only the beginning is read; the log says of how many.
    """

    def queries(self, texts: Sequence[str]) -> Vectors:
        """Encode what is searched for."""
        ...

    def passages(self, texts: Sequence[str]) -> Vectors:
        """Encode what is found."""
        ...


class LocalEmbedder:
    """An encoder of this process, loaded at once. encoders: those already loaded, to share.

    Raises ConfigError where the model cannot be found.
    """

    def __init__(self, config: EncoderConfig | None = None, encoders: Encoders | None = None) -> None:
        self._encoder = (encoders or Encoders()).get(config or EncoderConfig())

    def queries(self, texts: Sequence[str]) -> Vectors:
        """See Embedder."""
        return self._encoder.encode_queries([Query(str(place), text) for place, text in enumerate(texts)])

    def passages(self, texts: Sequence[str]) -> Vectors:
        """See Embedder."""
        batch = self._encoder.encode_texts(list(texts))
        _log_truncated(batch.truncated)
        return batch.vectors


class ServerEmbedder:
    """An encoder of a server, by the name it has there."""

    def __init__(self, client: Grapnel, model: str = "default") -> None:
        self._client = client
        self._model = model

    def queries(self, texts: Sequence[str]) -> Vectors:
        """See Embedder. Cost: one request for every 256 texts."""
        return self._embed(texts, "query")

    def passages(self, texts: Sequence[str]) -> Vectors:
        """See Embedder. Cost: one request for every 256 texts."""
        return self._embed(texts, "passage")

    def _embed(self, texts: Sequence[str], side: Literal["query", "passage"]) -> Vectors:
        if not texts:
            return np.empty((0, 0), np.float32)
        parts = [texts[start : start + _TEXTS] for start in range(0, len(texts), _TEXTS)]
        made = [self._client.embeddings(part, self._model, input_type=side) for part in parts]
        _log_truncated(sum(each.truncated for each in made))
        return np.concatenate([each.vectors for each in made])


def _log_truncated(count: int) -> None:
    """Log what the frameworks have no place for."""
    if count:
        log.info("embedding: the encoder's window held only the beginning of %d texts", count)


class ServerReranker:
    """A reranker of a server, by the name it has there, as retrieval.protocols.Reranker."""

    def __init__(self, client: Grapnel, model: str) -> None:
        self._client = client
        self._model = model

    def rerank(
        self,
        query: str,
        candidates: Sequence[Candidate],
        *,
        top_k: int,
        deadline: float | None,  # noqa: ARG002  the client's timeout decides
    ) -> RerankResult:
        """Order the candidates; the server answers within its own limit of time, or fails."""
        if not candidates:  # a server takes one at least
            return RerankResult(order=(), scores=())
        texts = [titled(title, text) for text, title in candidates]
        found = self._client.rerank(query, texts, self._model, top_n=top_k)
        places = found.results
        if len({place.index for place in places}) != min(top_k, len(texts)):
            raise RerankerError(f"{self._model!r} gave {len(places)} places of {len(texts)} texts, {top_k} were wanted")
        order, scores = tuple(place.index for place in places), tuple(place.score for place in places)
        return RerankResult(order=order, scores=scores, notes=found.notes)
