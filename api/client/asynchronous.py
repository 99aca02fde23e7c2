"""The client for asyncio: api/client/sync.py with `await`."""

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Callable, Collection, Coroutine, Iterable
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

import httpx

from api.client import collection_operations, document_operations, search_operations, server_operations
from api.client.exchange import Answer, Operation, Outcome, Pause, Step, no_answer, retrying, timeout
from api.client.options import Filter
from api.client.presenting import client_headers, presented, server_url
from api.client.results import UpsertReport
from retrieval.types import Document, StoredDocument

P = ParamSpec("P")
T = TypeVar("T")


def _of_server(make: Callable[P, Operation[T]]) -> Callable[Concatenate["AsyncGrapnel", P], Coroutine[Any, Any, T]]:
    async def method(self: "AsyncGrapnel", /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await self.perform(make(*args, **kwargs))

    return presented(method, make, given=0)


def _of_collection(
    make: Callable[Concatenate[str, P], Operation[T]],
) -> Callable[Concatenate["AsyncCollectionClient", P], Coroutine[Any, Any, T]]:
    async def method(self: "AsyncCollectionClient", /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await self.client.perform(make(self.name, *args, **kwargs))

    return presented(method, make, given=1)


class AsyncGrapnel:
    """A grapnel server, over HTTP, for asyncio; everything else as with `Grapnel`. Use it in `async with`.

    Tasks of one event loop may share one. A task that is cancelled drops its connection.
    """

    def __init__(
        self,
        url: str = "http://127.0.0.1:8080",
        api_key: str | None = None,
        timeout_s: float = 30.0,
        retries: int = 2,
        *,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self.url = server_url(url)
        self._retries = retries
        self._http = httpx.AsyncClient(
            base_url=self.url, headers=client_headers(api_key), timeout=timeout(timeout_s), transport=transport
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    def collection(self, name: str) -> "AsyncCollectionClient":
        """Return a handle on a collection or alias; nothing is asked yet."""
        return AsyncCollectionClient(self, name)

    collections = _of_server(server_operations.collections)
    create_collection = _of_server(server_operations.create_collection)
    delete_collection = _of_server(server_operations.delete_collection)
    aliases = _of_server(server_operations.aliases)
    set_alias = _of_server(server_operations.set_alias)
    delete_alias = _of_server(server_operations.delete_alias)
    jobs = _of_server(server_operations.jobs)
    job = _of_server(server_operations.job)
    wait = _of_server(server_operations.wait)
    search_many = _of_server(search_operations.search_collections)
    embeddings = _of_server(server_operations.embeddings)
    rerank = _of_server(server_operations.rerank)
    models = _of_server(server_operations.models)
    health = _of_server(server_operations.health)

    async def perform(self, operation: Operation[T]) -> T:
        """Perform an operation, step by step, and return its result."""
        steps = retrying(operation, self._retries)
        outcome: Outcome = None
        while True:
            try:
                step = steps.send(outcome)
            except StopIteration as end:
                result: T = end.value
                return result
            outcome = await self._take(step)

    async def _take(self, step: Step) -> Outcome:
        if isinstance(step, Pause):
            await asyncio.sleep(step.seconds)
            return None
        try:
            response = await self._http.request(**step.arguments())
        except httpx.RequestError as error:
            return no_answer(error, step, self.url)
        return Answer(response.status_code, response.headers, response.content)


class AsyncCollectionClient:
    """One collection of a server, by its name or an alias; made by `AsyncGrapnel.collection`."""

    def __init__(self, client: AsyncGrapnel, name: str) -> None:
        self.client = client
        self.name = name

    describe = _of_collection(collection_operations.describe)
    compact = _of_collection(collection_operations.compact)
    reembed = _of_collection(collection_operations.reembed)
    create_snapshot = _of_collection(collection_operations.create_snapshot)
    snapshots = _of_collection(collection_operations.snapshots)
    restore_snapshot = _of_collection(collection_operations.restore_snapshot)
    delete_snapshot = _of_collection(collection_operations.delete_snapshot)
    put = _of_collection(document_operations.put)
    get = _of_collection(document_operations.get)
    get_many = _of_collection(document_operations.get_many)
    patch = _of_collection(document_operations.patch)
    delete = _of_collection(document_operations.delete)
    delete_many = _of_collection(document_operations.delete_many)
    page = _of_collection(document_operations.page)
    count = _of_collection(document_operations.count)
    search = _of_collection(search_operations.search)
    search_many = _of_collection(search_operations.search_many)
    context = _of_collection(search_operations.context)
    grep = _of_collection(search_operations.grep)
    ngrams = _of_collection(search_operations.ngrams)

    async def upsert(self, documents: Iterable[Document] | AsyncIterable[Document]) -> UpsertReport:
        """Add or replace any number of documents, streamed; see `CollectionClient.upsert`."""
        waited = documents if isinstance(documents, AsyncIterable) else _waited(documents)
        return await self.client.perform(
            document_operations.upsert(self.name, document_operations.lines_of_async(waited))
        )

    async def documents(
        self,
        *,
        filter: Filter | None = None,  # noqa: A002  the field's word
        strict_filter: bool = True,
        include: Collection[document_operations.Part] = ("text", "vectors"),
        page_size: int | None = None,
    ) -> AsyncIterator[StoredDocument]:
        """Yield all documents by id, or those that match a filter; each page as of the moment it is asked for.

        strict_filter: as in a search. page_size: None = 50, or as many as the server allows.
        """
        after = None
        while True:
            page = await self.page(
                after=after, limit=page_size, filter=filter, strict_filter=strict_filter, include=include
            )
            for document in page.documents:
                yield document
            after = page.next
            if after is None:
                return


async def _waited(documents: Iterable[Document]) -> AsyncIterator[Document]:
    for document in documents:
        yield document
