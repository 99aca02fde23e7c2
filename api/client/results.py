"""What the service answers, as frozen values. Times in the unit that the name ends with, sizes in bytes."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from index.types import Vectors
from retrieval.snippets import Snippet
from retrieval.types import Evidence, Json, Metadata, Passage, StoredDocument

Result: TypeAlias = Literal["added", "updated", "patched", "unchanged"]
"""What a write does to a document; patched: only its metadata changed."""


@dataclass(frozen=True, slots=True)
class Job:
    """Long work that the server does by itself. done of total: progress of `stage`. result: what a done job made."""

    id: str
    kind: str
    collection: str
    state: Literal["running", "done", "failed"]
    stage: str | None = None
    done: int = 0
    total: int | None = None
    seconds: float = 0.0
    result: Mapping[str, Json] | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class CollectionSummary:
    """A collection as the server sees it.

    state: "ready", "read-only" (another process writes it), or "failed" (it cannot be opened). The counts are missing
    for a failed one, and for a key that may see some of the documents only; of a failed one the fields are, too.
    fresh_passages: written since the last compaction. replaced_passages: dead ones that it will drop.
    modes: what a search may ask for. job: id of the one that runs.
    """

    name: str
    state: str
    documents: int | None = None
    passages: int | None = None
    generation: int | None = None
    fresh_passages: int | None = None
    replaced_passages: int | None = None
    size_bytes: int | None = None
    default_mode: str | None = None
    modes: tuple[str, ...] = ()
    fields: Mapping[str, Json] = field(default_factory=dict)
    aliases: tuple[str, ...] = ()
    job: str | None = None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A verified copy of a collection that the server keeps. created: ISO 8601 time."""

    name: str
    documents: int
    size_bytes: int
    sha256: str
    created: str


@dataclass(frozen=True, slots=True)
class Written:
    """What one write did to a document. version: that of the document now."""

    id: str
    version: int
    result: Result


@dataclass(frozen=True, slots=True)
class LineError:
    """A document that was refused. line: its position in what was sent, from 1."""

    line: int
    id: str | None
    message: str


@dataclass(frozen=True, slots=True)
class UpsertReport:
    """What a stream of documents did. patched: only metadata changed. encoded: texts that had to be encoded.

    truncated: texts beyond the encoder's window. errors: the first of the `failed` ones.
    """

    lines: int
    added: int
    updated: int
    patched: int
    unchanged: int
    encoded: int
    truncated: int
    failed: int
    errors: tuple[LineError, ...] = ()

    @property
    def refusal(self) -> str | None:
        """What to say of the documents that were refused, and why the first one was; None where none was."""
        if not self.failed:
            return None
        said = f"the server refused {self.failed:,} of {self.lines:,} documents"
        for first in self.errors[:1]:
            said += f"; {repr(first.id)[:80] if first.id else f'line {first.line}'}: {first.message}"
        return said


@dataclass(frozen=True, slots=True)
class Page:
    """Documents in the order of their ids. next: id to go on after; None on the last page."""

    documents: tuple[StoredDocument, ...]
    next: str | None


@dataclass(frozen=True, slots=True)
class SearchHit:
    """One result. score: higher is better, comparable within one `stage` only.

    passage: the one that was found; its text is empty where `include` leaves it out. snippet: offsets within that text.
    evidence: rank and score in every stage, with `explain`.
    """

    rank: int
    id: str
    score: float | None
    stage: str
    passage: Passage
    title: str = ""
    metadata: Metadata = field(default_factory=dict)
    snippet: Snippet | None = None
    evidence: tuple[Evidence, ...] = ()


@dataclass(frozen=True, slots=True)
class SearchResult:
    """The answer to one search, best first. notes: anything degraded. timings_ms: by stage, with `explain`."""

    mode: str
    hits: tuple[SearchHit, ...]
    notes: tuple[str, ...] = ()
    total_ms: float = 0.0
    timings_ms: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ContextBlock:
    """A stretch of one document: characters [start, end), cited as `[number]` or by the stable `citation`."""

    citation: str
    number: int
    id: str
    title: str
    start: int
    end: int
    text: str
    tokens: int
    score: float | None


@dataclass(frozen=True, slots=True)
class Context:
    """What a language model reads: `context` holds the blocks, with their numbers, in at most `budget_tokens`.

    left_out: passages found that did not fit.
    """

    context: str
    blocks: tuple[ContextBlock, ...]
    tokens: int
    budget_tokens: int
    tokenizer: str
    left_out: int = 0
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PhraseSnippet:
    """The text around a match. start: where it begins, in characters of the match's part."""

    text: str
    start: int


@dataclass(frozen=True, slots=True)
class PhraseMatch:
    """Characters [start, end) of one part of a document, "title" or "text"."""

    doc_id: str
    title: str
    part: str
    start: int
    end: int
    snippet: PhraseSnippet


@dataclass(frozen=True, slots=True)
class PhraseResult:
    """Where a phrase occurs. tokens: what it was found as. count: all places, in `documents` that many documents.

    matches: the first of them, in the order of writing. notes: what is not covered, and what could be asked instead.
    """

    phrase: str
    field: str
    tokens: tuple[str, ...]
    count: int
    documents: int
    matches: tuple[PhraseMatch, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class NgramSuffix:
    """Tokens, and how often they occur. ends: how often a title or a text ends with them."""

    tokens: tuple[str, ...]
    count: int
    ends: int


@dataclass(frozen=True, slots=True)
class Continuation:
    """A token that follows. count: of n-gram and token together. probability: count / that of what it follows.

    text: both as text, for people.
    """

    token: str
    id: int
    count: int
    probability: float
    text: str


@dataclass(frozen=True, slots=True)
class NgramResult:
    """How often an n-gram occurs, and what follows its longest suffix that does: `used`.

    distinct: how many tokens follow, of which `continuations` are the most frequent. notes: as of a PhraseResult.
    """

    ngram: str
    field: str
    tokens: tuple[str, ...]
    count: int
    used: NgramSuffix
    distinct: int
    continuations: tuple[Continuation, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Embeddings:
    """vectors: float32 (N, D), in the order of the texts. tokens: what they came to together.

    truncated: texts of which the encoder's window held only the beginning.
    """

    vectors: Vectors
    model: str
    tokens: int
    truncated: int = 0


@dataclass(frozen=True, slots=True)
class Reranked:
    """A text of a rerank request, by its position there."""

    index: int
    score: float


@dataclass(frozen=True, slots=True)
class Reranking:
    """The answer to a rerank request, best first. notes: anything degraded."""

    results: tuple[Reranked, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Model:
    """A model that the server offers by this id."""

    id: str
    kind: Literal["encoder", "reranker"]


@dataclass(frozen=True, slots=True)
class Health:
    """Whether the server takes requests now. report: what it said in full."""

    ready: bool
    report: Mapping[str, Json]
