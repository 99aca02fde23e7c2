"""What may be asked for, as typed dictionaries: only keys that are given are sent, the server has the defaults."""

from collections.abc import Collection, Mapping, Sequence
from typing import Literal, Required, TypeAlias, TypedDict

from retrieval.types import Json, Vector

Filter: TypeAlias = Mapping[str, Json]
"""See retrieval/filters.py for the grammar."""

VectorLike: TypeAlias = Sequence[float] | Vector


class DenseField(TypedDict, total=False):
    """A field of vectors. encoder: a name that the server offers, None where clients bring vectors of `dim` numbers."""

    kind: Required[Literal["dense"]]
    encoder: str | None
    dim: int | None
    index: str
    metric: str
    storage: str
    recall: float


class LexicalField(TypedDict, total=False):
    """A field of words."""

    kind: Required[Literal["lexical"]]
    language: str | None


class SubstringField(TypedDict, total=False):
    """A field of exact phrases, no mode of search; new documents are in it after a compaction."""

    kind: Required[Literal["substring"]]
    mode: Literal["fast", "compact"]
    case: Literal["lower", "keep"]


class Chunking(TypedDict, total=False):
    """How documents are cut into passages."""

    kind: Required[Literal["none", "tokens"]]
    max_tokens: int
    overlap: int
    markdown: bool


class Effort(TypedDict, total=False):
    """Search effort of one call; exact indexes ignore it."""

    nprobe: int
    ef: int
    refine: int


class Fusion(TypedDict, total=False):
    """How several fields become one ranking in this search."""

    parts: Required[Sequence[str]]
    weights: Required[Sequence[float]]
    method: Literal["scores", "rrf"]
    rrf_k: float


class Rerank(TypedDict, total=False):
    """A second look at the best `depth` hits; after `timeout_ms` the first order stands, with a note."""

    model: Required[str]
    depth: int
    timeout_ms: int | None


class SearchOptions(TypedDict, total=False):
    """Everything about a search but its query text. See retrieval.types.SearchRequest for the words.

    vectors: by field, in place of encoding the text. like: id of a document to find similar ones to.
    strict_filter: False takes a field that no document has as missing everywhere, in place of an error.
    timeout_ms: how long the server may take. include: parts of a hit to send; snippet_chars: 0 for none.
    """

    vectors: Mapping[str, VectorLike]
    like: str
    mode: str | None
    k: int
    offset: int
    filter: Filter | None
    strict_filter: bool
    depth: int | None
    effort: Effort
    group: Literal["document", "passage"]
    fusion: Fusion | None
    min_score: float | None
    diversity: float
    exclude: Collection[str]
    rerank: Rerank | None
    explain: bool
    snippet_chars: int
    include: Collection[Literal["text", "metadata"]]
    timeout_ms: int | None


class Search(SearchOptions, total=False):
    """One of several searches of a collection."""

    query: str


class CollectionSearch(Search, total=False):
    """One of several searches of any collections."""

    collection: Required[str]


class ContextOptions(TypedDict, total=False):
    """Everything about a context but its query text. k: passages looked at; neighbours: taken in around each."""

    mode: str | None
    filter: Filter | None
    k: int
    budget_tokens: int
    neighbours: int
    min_score: float | None
    rerank: Rerank | None
    timeout_ms: int | None


class PhraseOptions(TypedDict, total=False):
    """Everything about a phrase or n-gram but its text.

    field: one of kind "substring", None = the first. limit: matches or continuations to show. filter: only documents
    that match are looked at; strict_filter: as in a search. timeout_ms: how long the server may take.
    """

    field: str | None
    limit: int
    filter: Filter | None
    strict_filter: bool
    timeout_ms: int | None
