"""The interfaces that pieces of the pipeline meet at."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol

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


class Candidate(NamedTuple):
    """What a reranker reads of a hit; the text may be empty."""

    text: str
    title: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RerankResult:
    """A new order of n candidates, best first, as far as it was asked for.

    order: places of the candidates in the order they came, a permutation of range(n) cut after min(top_k, n).
    scores: one for each of `order`, higher is better; None where there is no number, for a reranker need not score.
    unreached: how many places at the end of `order` the deadline left as they came, after all that were reached.
    calls, tokens: what it cost: model calls, and the tokens these read, padding apart (0: no model, or none that says).
    notes: everything that was degraded: a deadline, a fallback, texts that did not fit.
    """

    order: tuple[int, ...]
    scores: tuple[float | None, ...]
    unreached: int = 0
    calls: int = 0
    tokens: int = 0
    notes: tuple[str, ...] = ()


class Reranker(Protocol):
    """Puts candidates in a better order for a query by reading their texts. Safe to call from several threads."""

    def rerank(
        self, query: str, candidates: Sequence[Candidate], *, top_k: int, deadline: float | None
    ) -> RerankResult:
        """Order the candidates, or as many as the deadline allows; equal ones stay as they came.

        top_k: how many places of the new order are wanted, at least 1; every candidate competes for them.
        deadline: a `time.monotonic()` reading; a model call that began before it is waited for.
        Raises RequestError on a query or candidate that cannot be read, RerankerError where the reranker fails.
        """
        ...
