"""What the native API takes and gives, as pydantic models: the one place where HTTP's types are checked."""

from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field

from api import jobs
from api.keys import COLLECTION
from api.registry import State

Name: TypeAlias = Annotated[str, Field(pattern=f"^{COLLECTION}$", examples=["python-docs"])]
Filter: TypeAlias = Annotated[
    dict[str, Any],
    Field(
        description="Comparisons (eq, ne, gt, gte, lt, lte, in, nin, contains_any, contains_all, exists) joined by "
        "and, or, not; at most 8 levels deep.",
        examples=[{"type": "eq", "key": "kind", "value": "function"}],
    ),
]
Vector: TypeAlias = Annotated[list[float], Field(min_length=1, max_length=65_536)]
Vectors: TypeAlias = Annotated[
    dict[str, Vector], Field(description="Per dense field, a vector in place of encoding the text.")
]
DocId: TypeAlias = Annotated[str, Field(min_length=1, max_length=512, examples=["json.dumps"])]


MOST = 1_000_000_000
"""No whole number of a request is larger. What a server allows is far less: its [limits]."""


TIMEOUT = "By then a search must have begun (504 otherwise), and its reranker ended; null = what this server allows."

LIMIT = "Documents of a page; null = 50, or as many as this server allows."

StrictFilter: TypeAlias = Annotated[
    bool, Field(description="false: a field that no document has is missing everywhere, in place of an error.")
]


class Strict(BaseModel):
    """What clients send: unknown members are refused, and so is a value of another type that could be converted."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, strict=True)


# -- documents ----------------------------------------------------------------------------------------------------


class DocumentContent(Strict):
    """A document without its id."""

    text: str = Field("", examples=["Serialize obj to a JSON formatted str."])
    title: str = Field("", examples=["json.dumps"])
    metadata: dict[str, Any] = Field(default_factory=dict, examples=[{"kind": "function"}])
    vectors: Vectors = Field(default_factory=dict)


class DocumentIn(DocumentContent):
    """A document to add or replace."""

    id: DocId


class DocumentsIn(Strict):
    """Documents to add or replace, all or none."""

    documents: list[DocumentIn]


class DocumentOut(BaseModel):
    """A stored document. version: of its last write, 0 = a bulk build."""

    id: str
    title: str
    text: str | None = None
    metadata: dict[str, Any]
    vectors: dict[str, list[float]] | None = None
    version: int


class VersionOut(BaseModel):
    """A document to a key that may write and not read."""

    id: str
    version: int


class DocumentsOut(BaseModel):
    """Documents in the order asked for, null where there is none."""

    documents: list[DocumentOut | None]


class PageOut(BaseModel):
    """Documents by id, fewer than asked for where they are large. next: `after` of the next page; null on the last."""

    documents: list[DocumentOut]
    next: str | None


class WrittenOut(BaseModel):
    """What a write did to a document, and its version now."""

    id: str
    version: int
    result: Literal["added", "updated", "patched", "unchanged"]


class AddOut(BaseModel):
    """What a write of several documents did. truncated: passages longer than their encoder's window."""

    added: int
    updated: int
    patched: int
    unchanged: int
    encoded: int
    truncated: int


class LineError(BaseModel):
    """A line of a bulk stream that was left out."""

    line: int
    id: str | None
    message: str


class BulkOut(AddOut):
    """What a bulk stream did. errors: the first hundred of `failed`."""

    lines: int
    failed: int
    errors: list[LineError]


class Ids(Strict):
    """Documents by id."""

    ids: list[str]


class ListIn(Strict):
    """A page of documents. include: what of each document beside id, title, metadata and version."""

    filter: Filter | None = None
    strict_filter: StrictFilter = True
    limit: int | None = Field(None, ge=1, le=MOST, description=LIMIT)
    after: str = ""
    include: list[Literal["text", "vectors"]] = ["text", "vectors"]


class CountIn(Strict):
    """Documents to count: all, or those that match."""

    filter: Filter | None = None
    strict_filter: StrictFilter = True


class CountOut(BaseModel):
    """How many documents there are, of those that the key may see."""

    documents: int


class DeleteIn(Strict):
    """Documents to delete: these ids, and those that match."""

    ids: list[str] = Field(default_factory=list)
    filter: Filter | None = None
    strict_filter: StrictFilter = True


class DeletedOut(BaseModel):
    """How many documents were deleted."""

    deleted: int


class PatchIn(Strict):
    """Metadata to merge; null removes a key."""

    metadata: dict[str, Any] = Field(examples=[{"reviewed": True, "draft": None}])


# -- search -------------------------------------------------------------------------------------------------------


class Effort(Strict):
    """How hard an approximate index tries; what is left out is as calibrated."""

    nprobe: int | None = Field(None, ge=1, le=1_000_000)
    ef: int | None = Field(None, ge=1, le=1_000_000)
    refine: int | None = Field(None, ge=1, le=1_000_000)


class Fusion(Strict):
    """How several fields become one ranking, in place of a mode."""

    parts: list[str] = Field(min_length=1, max_length=16)
    weights: list[float] = Field(min_length=1, max_length=16)
    method: Literal["scores", "rrf"] = "scores"
    rrf_k: float = 60.0


class Rerank(Strict):
    """Put the first `depth` hits in a better order; what is not reached in time stays as it was, with a note."""

    model: str = Field(examples=["similarity"])
    depth: int | None = Field(None, ge=1, le=MOST, description="null = 50, or as many as this server allows.")
    timeout_ms: int | None = Field(None, ge=1, le=MOST, description="null = what is left of the search's own time.")


class SearchIn(Strict):
    """One search."""

    query: str = Field("", examples=["read a file line by line"])
    vectors: Vectors = Field(default_factory=dict)
    like: DocId | None = Field(None, description="Find what is similar to this document, in place of a query.")
    mode: str | None = Field(None, description="null = the collection's default.", examples=["hybrid"])
    k: int = Field(10, ge=1, le=MOST)
    offset: int = Field(0, ge=0, le=MOST)
    filter: Filter | None = None
    strict_filter: StrictFilter = True
    depth: int | None = Field(None, ge=1, le=MOST, description="Candidates that each part contributes.")
    effort: Effort | None = None
    group: Literal["document", "passage"] = "document"
    fusion: Fusion | None = None
    min_score: float | None = Field(None, description="Of the search: what a reranker then says is not looked at.")
    diversity: float = Field(
        0.0,
        ge=0,
        le=1,
        description="Maximal marginal relevance; 0 = relevance alone. It chooses what a reranker then puts in order.",
    )
    exclude: list[str] = Field(default_factory=list)
    rerank: Rerank | None = None
    explain: bool = Field(False, description="Also say the rank and score of each hit in each stage, and timings.")
    snippet_chars: int = Field(240, ge=0, le=10_000)
    include: list[Literal["text", "metadata"]] = ["text", "metadata"]
    timeout_ms: int | None = Field(None, ge=1, le=MOST, description=TIMEOUT)


class CollectionSearchIn(SearchIn):
    """One search of a named collection."""

    collection: Name


class SearchesIn(Strict):
    """Searches of any collections."""

    searches: list[CollectionSearchIn]


class PassageOut(BaseModel):
    """The passage that was found: characters [start, end) of the document's text."""

    ordinal: int
    start: int
    end: int
    text: str | None = None


class SnippetOut(BaseModel):
    """The stretch of the passage that shows best why it was found; offsets into its text."""

    start: int
    end: int
    highlights: list[tuple[int, int]]


class EvidenceOut(BaseModel):
    """A hit's place in one stage; rank null = outside that stage's depth, score null = it orders without scores."""

    stage: str
    rank: int | None
    score: float | None


class HitOut(BaseModel):
    """One result. score: higher is better, comparable within `stage` only."""

    rank: int
    id: str
    score: float | None
    stage: str
    title: str
    passage: PassageOut
    metadata: dict[str, Any] | None = None
    snippet: SnippetOut | None = None
    evidence: list[EvidenceOut] | None = None


class SearchOut(BaseModel):
    """The answer to a search. notes: whatever was degraded or adjusted. timings_ms: of the batch it was answered in."""

    mode: str
    hits: list[HitOut]
    notes: list[str]
    timings_ms: dict[str, float] | None = None
    total_ms: float


class ProblemOut(BaseModel):
    """RFC 9457: what went wrong."""

    type: str = Field(examples=["grapnel:invalid"])
    title: str
    status: int
    request_id: str
    detail: str | None = None
    errors: list[dict[str, str]] | None = None
    retry_after_s: float | None = None
    report: BulkOut | None = Field(None, description="Of a bulk stream that was ended: what became of it until then.")


class ProblemAnswer(BaseModel):
    """In place of an answer."""

    problem: ProblemOut


class SearchesOut(BaseModel):
    """An answer or a problem for each search, in order."""

    results: list[SearchOut | ProblemAnswer]


class ContextIn(Strict):
    """Passages for a language model: found, completed by their neighbours, packed into a token budget."""

    query: str = Field(min_length=1, examples=["how do I read a file line by line?"])
    mode: str | None = None
    filter: Filter | None = None
    k: int | None = Field(
        None, ge=1, le=MOST, description="Passages to choose from; null = 20, or as many as this server allows."
    )
    budget_tokens: int = Field(2_000, ge=1, le=1_000_000)
    neighbours: int = Field(1, ge=0, le=10, description="Passages taken along before and after each one found.")
    min_score: float | None = None
    rerank: Rerank | None = None
    timeout_ms: int | None = Field(None, ge=1, le=MOST, description=TIMEOUT)


class BlockOut(BaseModel):
    """One passage of the context. citation: stable while the document is; start, end: characters of its text."""

    citation: str
    number: int
    id: str
    title: str
    start: int
    end: int
    text: str
    tokens: int
    score: float | None


class ContextOut(BaseModel):
    """The context, ready to be put into a prompt, and its parts. left_out: what the budget had no room for."""

    context: str
    blocks: list[BlockOut]
    tokens: int
    budget_tokens: int
    tokenizer: str
    left_out: int
    notes: list[str]


# -- collections --------------------------------------------------------------------------------------------------


class DenseIn(Strict):
    """A field searched by vectors. encoder: of the server's list; or dim alone, and clients bring the vectors."""

    kind: Literal["dense"] = "dense"
    encoder: str | None = None
    dim: Annotated[int, Field(ge=1, le=65_536)] | None = None
    index: str = "auto"
    metric: str = "cosine"
    storage: str = "float32"
    recall: float = 0.95


class LexicalIn(Strict):
    """A field searched by words (BM25)."""

    kind: Literal["lexical"]
    language: str | None = None


class SubstringIn(Strict):
    """A field in which phrases are found exactly, as tokens of the packaged tokenizer; no mode of search."""

    kind: Literal["substring"]
    mode: Literal["fast", "compact"] = "fast"
    case: Literal["lower", "keep"] = "lower"


class ChunkingIn(Strict):
    """How documents are cut into passages."""

    kind: Literal["none", "tokens"] = "none"
    max_tokens: int | None = Field(None, ge=1, le=MOST)
    overlap: int | None = Field(None, ge=0, le=MOST)
    markdown: bool | None = None


class CollectionIn(Strict):
    """A collection to create; without fields, one dense field with the encoder `default` and one lexical."""

    name: Name
    fields: dict[str, DenseIn | LexicalIn | SubstringIn] | None = Field(
        None, examples=[{"dense": {"kind": "dense", "encoder": "default"}, "lexical": {"kind": "lexical"}}]
    )
    chunking: ChunkingIn | None = None


class CollectionOut(BaseModel):
    """A collection. Counts are missing where the key sees only some documents, or it could not be opened."""

    model_config = ConfigDict(extra="allow")

    name: str
    state: State
    aliases: list[str] = []
    job: str | None = None
    documents: int | None = None
    passages: int | None = None
    generation: int | None = None
    fresh_passages: int | None = None
    replaced_passages: int | None = None
    size_bytes: int | None = None
    default_mode: str | None = None
    modes: list[str] | None = None
    fields: dict[str, dict[str, Any]] | None = None


class CollectionsOut(BaseModel):
    """All collections that the key may read."""

    collections: list[CollectionOut]


class AliasIn(Strict):
    """The collection an alias means."""

    collection: Name


class AliasesOut(BaseModel):
    """Alias -> collection."""

    aliases: dict[str, str]


class ReembedIn(Strict):
    """A new collection with another encoder. alias: made to mean the new one at the end."""

    into: Name
    encoder: str
    alias: Name | None = None


class RestoreIn(Strict):
    """The collection to make of a snapshot."""

    into: Name


class JobOut(BaseModel):
    """Long work. done of total: of `stage`."""

    id: str
    kind: jobs.Kind
    collection: str
    state: jobs.State
    stage: str
    done: int
    total: int | None
    seconds: float
    result: dict[str, Any] | None
    error: str | None


class JobsOut(BaseModel):
    """The jobs of this server since its start, oldest first; long ended ones are forgotten."""

    jobs: list[JobOut]


class SnapshotOut(BaseModel):
    """A file with a whole collection."""

    name: str
    documents: int
    size_bytes: int
    sha256: str
    created: str


class SnapshotsOut(BaseModel):
    """Snapshots, oldest first."""

    snapshots: list[SnapshotOut]


class ModelOut(BaseModel):
    """A model of this server."""

    id: str
    object: Literal["model"] = "model"
    owned_by: str = "grapnel"
    kind: Literal["encoder", "reranker"]


class ModelsOut(BaseModel):
    """The models of this server."""

    object: Literal["list"] = "list"
    data: list[ModelOut]
