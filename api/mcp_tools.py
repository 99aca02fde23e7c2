"""The tools of api.mcp: what they take and give, and how they answer."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Annotated, Any, Final, NamedTuple, TypeAlias
from urllib.parse import quote

from pydantic import BaseModel, ConfigDict, Field

from api.mcp_libraries import Library, Wanted
from api.phrases import PhraseSpec
from index.errors import GrapnelError, NotFoundError, RequestError
from retrieval.types import Json

_RESULTS = 50
_CHARACTERS = 200_000


_Filter: TypeAlias = Annotated[
    dict[str, Any] | None,
    Field(
        description='Documents whose metadata match, such as {"type": "eq", "key": "lang", "value": "en"}; types: eq, '
        "ne, gt, gte, lt, lte, in, nin, contains_any, contains_all, exists, and `and`, `or` with `filters`."
    ),
]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class SearchArguments(_Strict):
    """What `search` takes."""

    query: str = Field(min_length=1, description="What to find, as a question or as words.")
    collection: str | None = Field(None, description="One collection, the part of an id before its `/`; else all.")
    filter: _Filter = None
    limit: int = Field(10, ge=1, le=_RESULTS, description="Results at most.")


class ResultOut(BaseModel):
    """A document that was found. text: the stretch of it that shows best why."""

    id: str
    title: str
    url: str
    text: str


class SearchOut(BaseModel):
    """What `search` gives, best first. notes: whatever was degraded or left out."""

    results: list[ResultOut]
    notes: list[str]


class FetchArguments(_Strict):
    """What `fetch` takes."""

    id: str = Field(min_length=1, description="The id of a result of `search`.")
    start: int = Field(0, ge=0, description="The first character of the text to return.")
    max_chars: int = Field(50_000, ge=1, le=_CHARACTERS, description="How much of the text to return.")


class FetchOut(BaseModel):
    """What `fetch` gives: characters [start, start + max_chars) of the `total_chars` of a document's text."""

    id: str
    title: str
    text: str
    url: str
    metadata: dict[str, Any]
    start: int
    total_chars: int


class _PhraseArguments(_Strict):
    collection: str | None = Field(
        None, description="The collection, the part of an id before its `/`; it must be named where there are several."
    )
    filter: _Filter = None


class GrepArguments(_PhraseArguments):
    """What `grep` takes."""

    phrase: str = Field(min_length=1, description="The words to find, exactly and in this order.")
    limit: int = Field(10, ge=0, le=_RESULTS, description="Places shown at most; all are counted.")

    def spec(self) -> PhraseSpec:
        """Return what is looked for."""
        return PhraseSpec(self.phrase, self.limit, {"filter": self.filter})


class PlaceOut(BaseModel):
    """A place of a phrase: characters [start, end) of a document's title or text. text: what stands around it."""

    id: str
    title: str
    part: str
    start: int
    end: int
    text: str


class GrepOut(BaseModel):
    """What `grep` gives. count: all places; documents: how many have one; places: the first of them."""

    count: int
    documents: int
    places: list[PlaceOut]
    notes: list[str]


class NgramsArguments(_PhraseArguments):
    """What `ngrams` takes."""

    ngram: str = Field(min_length=1, description="The words to count, exactly and in this order.")
    limit: int = Field(10, ge=0, le=_RESULTS, description="Continuations shown at most, the most frequent first.")

    def spec(self) -> PhraseSpec:
        """Return what is looked for."""
        return PhraseSpec(self.ngram, self.limit, {"filter": self.filter})


class FollowingOut(BaseModel):
    """A token that follows, and with the words before it as text. probability: its share of what may follow."""

    token: str
    text: str
    count: int
    probability: float


class NgramsOut(BaseModel):
    """What `ngrams` gives. count: of all words together; used: the longest suffix that occurs, which is continued.

    distinct: how many tokens follow it. ends: how often a title or a text ends with it.
    """

    count: int
    used: list[str]
    used_count: int
    ends: int
    distinct: int
    continuations: list[FollowingOut]
    notes: list[str]


class Tool(NamedTuple):
    """A tool. arguments: what `run` takes after the library. output: what it gives."""

    title: str
    description: str
    arguments: type[BaseModel]
    output: type[BaseModel]
    run: Callable[[Library, Any], Awaitable[BaseModel]]


async def search(library: Library, arguments: SearchArguments) -> SearchOut:
    """Search one collection or all; of all, the first of each come first, then the second: their scores do not compare.

    Raises what keeps every one of them from being searched; one that fails beside others is named in a note.
    """
    names = [arguments.collection] if arguments.collection is not None else await library.names()
    if len(names) > library.searches:
        raise _which(names)
    wanted = Wanted(arguments.query, arguments.filter, arguments.limit)
    outcomes = dict(zip(names, await library.search(names, wanted), strict=True)) if names else {}
    failures = {name: outcome for name, outcome in outcomes.items() if isinstance(outcome, GrapnelError)}
    answers = {name: outcome for name, outcome in outcomes.items() if not isinstance(outcome, GrapnelError)}
    if failures and len(failures) == len(outcomes):
        raise next(iter(failures.values()))
    ranked = [(rank, name, found) for name, answer in answers.items() for rank, found in enumerate(answer.found)]
    ranked.sort(key=lambda item: item[0])
    results = [
        ResultOut(
            id=f"{name}/{found.doc_id}",
            title=found.title or found.doc_id,
            url=url_of(name, found.doc_id, found.metadata),
            text=found.text,
        )
        for _, name, found in ranked[: arguments.limit]
    ]
    notes = [(name, note) for name, answer in answers.items() for note in answer.notes]
    notes += [(name, library.explain(error)) for name, error in failures.items()]
    return SearchOut(results=results, notes=[f"collection {name!r}: {note}" for name, note in notes])


async def fetch(library: Library, arguments: FetchArguments) -> FetchOut:
    """Return a document. Raises NotFoundError."""
    name, _, doc_id = arguments.id.partition("/")
    if not doc_id:
        raise NotFoundError(f"no document {arguments.id[:200]!r}: expected an id that `search` gave")
    document = await library.document(name, doc_id)
    return FetchOut(
        id=arguments.id,
        title=document.title or document.id,
        text=document.text[arguments.start : arguments.start + arguments.max_chars],
        url=url_of(name, doc_id, document.metadata),
        metadata=dict(document.metadata),
        start=arguments.start,
        total_chars=len(document.text),
    )


async def grep(library: Library, arguments: GrepArguments) -> GrepOut:
    """Find a phrase in one collection. Raises RequestError where it is not said which."""
    name = await _one(library, arguments.collection)
    found = await library.grep(name, arguments.spec())
    places = [
        PlaceOut(
            id=f"{name}/{match['doc_id']}",
            title=match["title"] or match["doc_id"],
            part=match["part"],
            start=match["start"],
            end=match["end"],
            text=match["snippet"]["text"],
        )
        for match in found["matches"]
    ]
    return GrepOut(count=found["count"], documents=found["documents"], places=places, notes=found["notes"])


async def ngrams(library: Library, arguments: NgramsArguments) -> NgramsOut:
    """Count an n-gram and what follows it in one collection; otherwise as `grep`."""
    counted = await library.ngrams(await _one(library, arguments.collection), arguments.spec())
    used = counted["used"]
    return NgramsOut(
        count=counted["count"],
        used=used["tokens"],
        used_count=used["count"],
        ends=used["ends"],
        distinct=counted["distinct"],
        continuations=[FollowingOut.model_validate(each) for each in counted["continuations"]],
        notes=counted["notes"],
    )


async def _one(library: Library, name: str | None) -> str:
    """Return the collection that is meant. Raises RequestError where there are several, NotFoundError on none."""
    if name is not None:
        return name
    names = await library.names()
    if not names:
        raise NotFoundError("there is no collection to look in")
    if len(names) > 1:
        raise _which(names)
    return names[0]


def _which(names: Sequence[str]) -> RequestError:
    return RequestError(f"there are {len(names)} collections: name one, such as {', '.join(names[:20])}")


def url_of(name: str, doc_id: str, metadata: Mapping[str, Json]) -> str:
    """Return what to cite a document by: the web address in its metadata, or else a name that stays."""
    url = metadata.get("url")
    if isinstance(url, str) and url.startswith(("http://", "https://")):
        return url
    return f"grapnel://{name}/{quote(doc_id, safe='')}"


TOOLS: Final[Mapping[str, Tool]] = {
    "search": Tool(
        "Search documents",
        "Search the collections for documents, by meaning and by words; best first, each with the passage that was "
        "found. Read a whole document with `fetch`.",
        SearchArguments,
        SearchOut,
        search,
    ),
    "fetch": Tool(
        "Read a document", "Return the text and metadata of a document by its id.", FetchArguments, FetchOut, fetch
    ),
    "grep": Tool(
        "Find an exact phrase",
        "Find every place where words stand in exactly this order, and count places and documents: to quote, to count, "
        "or to make sure that something is written nowhere. For questions use `search`.",
        GrepArguments,
        GrepOut,
        grep,
    ),
    "ngrams": Tool(
        "Count words and what follows them",
        "Count how often words stand in exactly this order, and which tokens follow them how often.",
        NgramsArguments,
        NgramsOut,
        ngrams,
    ),
}
