"""What users give, what the pipeline passes around, and what users get back."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from index.types import Effort

Json: TypeAlias = Any
"""A JSON value: None, bool, int, float, str, list or dict."""

Metadata: TypeAlias = Mapping[str, Json]

Vector: TypeAlias = npt.NDArray[np.float32]
"""float32 (D,)."""


@dataclass(frozen=True, slots=True)
class Document:
    """The unit users give, update, delete and get back.

    vectors: one float32 (D,) per field whose encoder is "external"; text may then be empty.
    """

    id: str
    text: str = ""
    title: str = ""
    metadata: Metadata = field(default_factory=dict)
    vectors: Mapping[str, Vector] = field(default_factory=dict)


class StoredDocument(NamedTuple):
    """A document as it is stored. version: the number of the write that made it so, 0 when a bulk build did.

    spans: characters [start, end) of the text in each of its passages, by ordinal.
    """

    document: Document
    version: int
    spans: tuple[tuple[int, int], ...] = ()


Guard: TypeAlias = Callable[[str, StoredDocument | None], None]
"""Sees what is stored under an id before a write changes it, inside the write's transaction; raises to refuse it."""


@dataclass(frozen=True, slots=True)
class Passage:
    """What is indexed: characters [start, end) of a document's text (title kept apart)."""

    doc_id: str
    ordinal: int
    start: int
    end: int
    text: str
    title: str = ""


@dataclass(frozen=True, slots=True)
class Task:
    """What an encoder learned: the prompts it wants before queries and documents."""

    name: str
    query_prompt: str = ""
    document_prompt: str = ""


@dataclass(frozen=True, slots=True)
class Query:
    """One question. vectors: per dense field, float32 (D,) that replaces encoding the text."""

    id: str
    text: str
    task: str = "search"
    vectors: Mapping[str, Vector] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SearchRequest:
    """One query with everything that shapes its answer; a batch may mix them freely.

    k: results wanted, after skipping `offset`. filter: see retrieval.filters.
    depth: candidates each retriever contributes, None = the pipeline's (raised, with a note, when offset + k needs
    more; fused scores depend on it, so set it at least as deep as the last page). Among equal scores at the depth,
    passages written first count.
    group: "document" returns each document once, by its best passage. min_score: drop hits below it.
    diversity: MMR weight of dissimilarity in [0, 1]; 0 = pure relevance. exclude: document ids never returned.
    like: id of a stored document to find similar ones to, in place of a query text.
    strict_filter: refuse a filter on a field that no document has, naming those there are; False takes it as a field
    that is missing everywhere, for who may not know what fields other documents have.
    """

    query: Query
    k: int = 10
    offset: int = 0
    filter: Mapping[str, Json] | None = None
    depth: int | None = None
    effort: Effort = field(default_factory=Effort)
    group: Literal["document", "passage"] = "document"
    min_score: float | None = None
    diversity: float = 0.0
    exclude: frozenset[str] = frozenset()
    like: str | None = None
    strict_filter: bool = True


class Evidence(NamedTuple):
    """Why a hit is where it is: its rank (1-based) and score in one stage.

    rank None = outside that stage's depth. score None = the stage orders without scores.
    """

    stage: str
    rank: int | None
    score: float | None


@dataclass(frozen=True, slots=True)
class Hit:
    """One result. score is higher-is-better and comparable only within one stage."""

    doc_id: str
    passage: Passage
    score: float | None
    stage: str
    evidence: tuple[Evidence, ...] = ()
    metadata: Metadata = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Ranking:
    """Ordered hits of one query, ids unique (document grouping), with notes on anything degraded.

    timings_s: seconds per stage of the batch this query was answered in.
    """

    query_id: str
    hits: tuple[Hit, ...]
    notes: tuple[str, ...] = ()
    timings_s: Mapping[str, float] = field(default_factory=dict)


class Candidates(NamedTuple):
    """Internal ranking of one query: rows int64 (n,) and scores float32 (n,), best first; ties by row."""

    rows: npt.NDArray[np.int64]
    scores: npt.NDArray[np.float32]
