"""The interfaces that pieces of the pipeline meet at."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from index.types import Vectors
from retrieval.types import Passage, Query, Ranking, SearchRequest

if TYPE_CHECKING:
    from retrieval.encoders.config import EncodedBatch


class Encoder(Protocol):
    """Text to unit-length or raw float32 vectors.

    fingerprint: short hex string over everything that decides the vectors (weights, pooling, prompts, window,
    dimension, text template); equal fingerprints mean interchangeable vectors.
    """

    @property
    def dim(self) -> int:
        """Vector dimension D."""
        ...

    @property
    def fingerprint(self) -> str:
        """Hex digest that names the vectors this encoder makes."""
        ...

    def encode_queries(self, queries: Sequence[Query]) -> Vectors:
        """Return float32 (len(queries), D)."""
        ...

    def encode_passages(self, passages: Sequence[Passage]) -> Vectors:
        """Return float32 (len(passages), D), in the order given."""
        ...

    def encode_texts(self, texts: Sequence[str]) -> "EncodedBatch":
        """Encode document texts as they are (see `passage_text`), and count those beyond the window."""
        ...


class Retriever(Protocol):
    """Everything from query to ranking: one stage, a fusion of stages, or the whole pipeline."""

    def retrieve(self, requests: Sequence[SearchRequest]) -> list[Ranking]:
        """Answer each request on its own terms (its filter, k and depth), in the order given."""
        ...
