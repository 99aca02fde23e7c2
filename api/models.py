"""The models of a server: encoders and rerankers of its configuration, by name, and nothing else."""

import threading
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple, TypeAlias, TypeVar

from api.server_config import ServerConfig
from index.errors import NotFoundError
from index.types import Vectors
from retrieval.build import RERANKERS
from retrieval.encoders import EncoderConfig
from retrieval.encoders.batched import WindowedEncoder
from retrieval.encoders.config import EncodedBatch
from retrieval.field_vectors import Encoders
from retrieval.protocols import Candidate, Encoder, Reranker, RerankResult
from retrieval.types import Query

C = TypeVar("C")

Side: TypeAlias = Literal["query", "passage"]

_CHARACTERS_PER_TOKEN = 4
"""Where an encoder has no tokenizer: the usual length of an English token."""


class Embedded(NamedTuple):
    """vectors: float32 (n, D). tokens: of all texts. truncated: texts longer than the encoder's window."""

    vectors: Vectors
    tokens: int
    truncated: int


class Models:
    """Encoders and rerankers by name, shared with the collections. All calls block: run them on a worker thread."""

    def __init__(self, config: ServerConfig, encoders: Encoders) -> None:
        self._encoders = encoders
        self._config = config
        self._rerankers: dict[str, Reranker] = {}
        self._lock = threading.Lock()

    def load(self) -> None:
        """Load every model of the configuration and run it once. Raises ConfigError, MissingDependencyError.

        Collections whose vectors an encoder makes use this one from then on, whatever backend or device they name.
        """
        for config in self._config.encoders.values():
            self._encoders.prefer(config)
            self._encoders.get(config).encode_queries([Query("warm", "warm up")])
        for name in self._config.rerankers:
            self.reranker(name).rerank("warm up", [Candidate("warm up")], top_k=1, deadline=None)

    @property
    def encoder_names(self) -> list[str]:
        """Names of the encoders there are."""
        return list(self._config.encoders)

    @property
    def reranker_names(self) -> list[str]:
        """Names of the rerankers there are."""
        return list(self._config.rerankers)

    def encoder_config(self, name: str) -> EncoderConfig:
        """Return the configuration of an encoder. Raises NotFoundError."""
        return _named(self._config.encoders, name, "encoder")

    def encoder(self, name: str) -> Encoder:
        """Return an encoder. Raises NotFoundError."""
        return self._encoders.get(self.encoder_config(name))

    def reranker(self, name: str) -> Reranker:
        """Return a reranker. Raises NotFoundError."""
        config = _named(self._config.rerankers, name, "reranker")
        with self._lock:
            if name not in self._rerankers:
                self._rerankers[name] = RERANKERS[config.kind](config, self._encoders.get)
            return self._rerankers[name]

    def check_reranker(self, name: str) -> None:
        """Raise NotFoundError where there is no such reranker."""
        _named(self._config.rerankers, name, "reranker")

    def embed(self, name: str, texts: Sequence[str], side: Side) -> Embedded:
        """Encode texts as queries or as passages. Raises NotFoundError, OverloadedError."""
        encoder = self.encoder(name)
        counts = token_counts(encoder, texts)
        window = encoder.window if isinstance(encoder, WindowedEncoder) else None
        truncated = 0 if window is None else sum(count > window for count in counts)
        if side == "query":
            vectors = encoder.encode_queries([Query(str(place), text) for place, text in enumerate(texts)])
        else:
            batch: EncodedBatch = encoder.encode_texts(list(texts))
            vectors = batch.vectors
        return Embedded(vectors, sum(counts), truncated)

    def rerank(
        self, name: str, query: str, candidates: Sequence[Candidate], top_k: int, deadline: float | None
    ) -> RerankResult:
        """Order candidates for a query. Raises NotFoundError, RequestError, RerankerError."""
        return self.reranker(name).rerank(query, candidates, top_k=top_k, deadline=deadline)


def _named(configs: Mapping[str, C], name: str, what: str) -> C:
    if name not in configs:
        raise NotFoundError(f"no {what} {name[:80]!r} on this server; there are: {', '.join(configs) or 'none'}")
    return configs[name]


def token_counts(encoder: Encoder | None, texts: Sequence[str]) -> list[int]:
    """Return the tokens of each text; a quarter of its characters where no encoder has a tokenizer."""
    if isinstance(encoder, WindowedEncoder):
        return encoder.token_count(texts)
    return [-(-len(text) // _CHARACTERS_PER_TOKEN) for text in texts]


def tokenizer_of(encoder: Encoder | None) -> str:
    """Return what `token_counts` counts by."""
    return "the encoder's" if isinstance(encoder, WindowedEncoder) else f"{_CHARACTERS_PER_TOKEN} characters a token"
