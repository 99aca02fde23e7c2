"""Where the tools of api.mcp look: the collections of a service in this process, or of a server over HTTP."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any, NamedTuple, Protocol, TypeAlias

from api.client import ApiError, AsyncGrapnel, SearchHit
from api.keys import Principal
from api.phrases import PhraseSpec, counted_value, found_value, sent_options
from api.service import SearchSpec, Service, characters_of
from index.errors import GrapnelError
from retrieval.snippets import query_forms, snippet
from retrieval.types import Document, Hit, Json, Metadata, Query, SearchRequest

SNIPPET = 300
"""Characters that a result shows."""

_SEARCHES = 64
"""What a server takes in one request, unless it is configured otherwise."""


class Wanted(NamedTuple):
    """What to find. filter: see retrieval.filters. limit: results of each collection."""

    query: str
    filter: Mapping[str, Json] | None
    limit: int


class Found(NamedTuple):
    """A document that a search of one collection found."""

    doc_id: str
    title: str
    metadata: Metadata
    text: str


class FoundIn(NamedTuple):
    """What a search of one collection found, best first. notes: whatever was degraded."""

    found: list[Found]
    notes: Sequence[str]


Outcome: TypeAlias = FoundIn | GrapnelError
"""What a search of one collection came to."""


class Library(Protocol):
    """Collections as one principal may see them."""

    @property
    def searches(self) -> int:
        """How many collections one search may cover."""
        ...

    def explain(self, error: GrapnelError) -> str:
        """Return what the caller may read of an error."""
        ...

    async def names(self) -> list[str]:
        """Return the collections that can be searched."""
        ...

    async def search(self, names: Sequence[str], wanted: Wanted) -> list[Outcome]:
        """Search collections; the outcomes are in the order of the names."""
        ...

    async def document(self, name: str, doc_id: str) -> Document:
        """Return a document. Raises NotFoundError."""
        ...

    async def grep(self, name: str, spec: PhraseSpec) -> Mapping[str, Any]:
        """Return where a phrase occurs in a collection, as JSON values."""
        ...

    async def ngrams(self, name: str, spec: PhraseSpec) -> Mapping[str, Any]:
        """Return how often an n-gram occurs in a collection and what follows it, as JSON values."""
        ...


class ServiceLibrary:
    """The collections of a service in this process. explain: see Library; by default, everything."""

    def __init__(self, service: Service, principal: Principal, explain: Callable[[GrapnelError], str] = str) -> None:
        self.explain = explain
        self._service = service
        self._principal = principal
        self.searches = service.limits.searches

    async def names(self) -> list[str]:
        """See Library."""
        self._service.check(self._principal, "read")
        return self._service.readable(self._principal)

    async def search(self, names: Sequence[str], wanted: Wanted) -> list[Outcome]:
        """See Library."""
        return list(await asyncio.gather(*(self._search_one(name, wanted) for name in names)))

    async def _search_one(self, name: str, wanted: Wanted) -> Outcome:
        request = SearchRequest(Query("q", wanted.query), k=wanted.limit, filter=wanted.filter)
        try:
            answer = await self._service.search_one(self._principal, name, SearchSpec(request))
        except GrapnelError as error:
            return error
        forms = query_forms(wanted.query)

        def found() -> FoundIn:
            return FoundIn([_shown(hit, forms) for hit in answer.ranking.hits], answer.ranking.notes)

        return await self._service.made(characters_of(answer), found)

    async def document(self, name: str, doc_id: str) -> Document:
        """See Library."""
        return (await self._service.documents.get_one(self._principal, name, doc_id)).document

    async def grep(self, name: str, spec: PhraseSpec) -> Mapping[str, Any]:
        """See Library."""
        return found_value(spec.text, await self._service.phrases.grep(self._principal, name, spec))

    async def ngrams(self, name: str, spec: PhraseSpec) -> Mapping[str, Any]:
        """See Library."""
        return counted_value(spec.text, await self._service.phrases.ngrams(self._principal, name, spec))


def _shown(hit: Hit, forms: frozenset[str]) -> Found:
    text = hit.passage.text
    shown = snippet(text, forms, SNIPPET)
    return Found(hit.doc_id, hit.passage.title, hit.metadata, text[shown.start : shown.end])


class RemoteLibrary:
    """The collections of a server, over HTTP."""

    def __init__(self, client: AsyncGrapnel) -> None:
        self._client = client
        self.searches = _SEARCHES

    def explain(self, error: GrapnelError) -> str:
        """See Library."""
        return str(error)

    async def names(self) -> list[str]:
        """See Library."""
        return [summary.name for summary in await self._client.collections()]

    async def search(self, names: Sequence[str], wanted: Wanted) -> list[Outcome]:
        """See Library."""
        answers = await self._client.search_many(
            [
                {
                    "collection": name,
                    "query": wanted.query,
                    "k": wanted.limit,
                    "filter": wanted.filter,
                    "snippet_chars": SNIPPET,
                }
                for name in names
            ]
        )
        return [
            answer if isinstance(answer, ApiError) else FoundIn([_found(hit) for hit in answer.hits], answer.notes)
            for answer in answers
        ]

    async def document(self, name: str, doc_id: str) -> Document:
        """See Library."""
        return (await self._client.collection(name).get(doc_id)).document

    async def grep(self, name: str, spec: PhraseSpec) -> Mapping[str, Any]:
        """See Library."""
        return asdict(await self._client.collection(name).grep(spec.text, **sent_options(spec)))

    async def ngrams(self, name: str, spec: PhraseSpec) -> Mapping[str, Any]:
        """See Library."""
        return asdict(await self._client.collection(name).ngrams(spec.text, **sent_options(spec)))


def _found(hit: SearchHit) -> Found:
    text = hit.passage.text
    if hit.snippet is not None:
        text = text[hit.snippet.start : hit.snippet.end]
    return Found(hit.id, hit.title, hit.metadata, text)
