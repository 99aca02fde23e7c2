"""The tools of api.mcp: what they take and give, and how they answer."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, NamedTuple
from urllib.parse import quote

from pydantic import BaseModel, ConfigDict, Field

from api.mcp_libraries import Library, Wanted
from index.errors import GrapnelError, NotFoundError, RequestError
from retrieval.types import Json

_RESULTS = 50
_CHARACTERS = 200_000


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class SearchArguments(_Strict):
    """What `search` takes."""

    query: str = Field(min_length=1, description="What to find, as a question or as words.")
    collection: str | None = Field(None, description="One collection, the part of an id before its `/`; else all.")
    filter: dict[str, Any] | None = Field(
        None,
        description='Documents whose metadata match, such as {"type": "eq", "key": "lang", "value": "en"}; types: eq, '
        "ne, gt, gte, lt, lte, in, nin, contains_any, contains_all, exists, and `and`, `or` with `filters`.",
    )
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
        raise RequestError(f"there are {len(names)} collections: name one, such as {', '.join(names[:20])}")
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
}
