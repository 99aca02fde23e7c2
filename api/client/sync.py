"""The blocking client. What its methods do is written in the *_operations modules; here it is only performed."""

import time
from collections.abc import Callable, Collection, Iterable, Iterator
from types import TracebackType
from typing import Concatenate, ParamSpec, Self, TypeVar

import httpx

from api.client import collection_operations, document_operations, search_operations, server_operations
from api.client.exchange import Answer, Operation, Outcome, Pause, Step, no_answer, retrying, timeout
from api.client.options import Filter
from api.client.presenting import client_headers, presented, server_url
from api.client.results import UpsertReport
from retrieval.types import Document, StoredDocument

P = ParamSpec("P")
T = TypeVar("T")


def _of_server(make: Callable[P, Operation[T]]) -> Callable[Concatenate["Grapnel", P], T]:
    def method(self: "Grapnel", /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self.perform(make(*args, **kwargs))

    return presented(method, make, given=0)


def _of_collection(
    make: Callable[Concatenate[str, P], Operation[T]],
) -> Callable[Concatenate["CollectionClient", P], T]:
    def method(self: "CollectionClient", /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self.client.perform(make(self.name, *args, **kwargs))

    return presented(method, make, given=1)


class Grapnel:
    """A grapnel server, over HTTP. Threads may share one; close it, or use it in `with`.

    url: where the server is, with any path a proxy puts it under. timeout_s: the longest wait for the server at any one
    moment. retries: how often a request that can be repeated safely is sent again after a lost connection or a refusal
    for now (429, 503). transport: what carries requests in place of TCP (httpx has several).
    Every method raises the errors drawn in api/client/errors.py. Raises ConfigError on a bad url.
    """

    def __init__(
        self,
        url: str = "http://127.0.0.1:8080",
        api_key: str | None = None,
        timeout_s: float = 30.0,
        retries: int = 2,
        *,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self.url = server_url(url)
        self._retries = retries
        self._http = httpx.Client(
            base_url=self.url, headers=client_headers(api_key), timeout=timeout(timeout_s), transport=transport
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def collection(self, name: str) -> "CollectionClient":
        """Return a handle on a collection or alias; nothing is asked yet."""
        return CollectionClient(self, name)

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

    def perform(self, operation: Operation[T]) -> T:
        """Perform an operation, step by step, and return its result."""
        steps = retrying(operation, self._retries)
        outcome: Outcome = None
        while True:
            try:
                step = steps.send(outcome)
            except StopIteration as end:
                result: T = end.value
                return result
            outcome = self._take(step)

    def _take(self, step: Step) -> Outcome:
        if isinstance(step, Pause):
            time.sleep(step.seconds)
            return None
        try:
            response = self._http.request(**step.arguments())
        except httpx.RequestError as error:
            return no_answer(error, step, self.url)
        return Answer(response.status_code, response.headers, response.content)


class CollectionClient:
    """One collection of a server, by its name or an alias; made by `Grapnel.collection`."""

    def __init__(self, client: Grapnel, name: str) -> None:
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

    def upsert(self, documents: Iterable[Document]) -> UpsertReport:
        """Add or replace any number of documents, streamed: only about 64 KiB of them are in memory at once.

        A document that the server refuses is in the report, the others are stored. Never repeated. An error on the way,
        one of `documents` itself too, leaves the documents before it stored or not; sending all again is harmless.
        """
        return self.client.perform(document_operations.upsert(self.name, document_operations.lines(documents)))

    def documents(
        self,
        *,
        filter: Filter | None = None,  # noqa: A002  the field's word
        strict_filter: bool = True,
        include: Collection[document_operations.Part] = ("text", "vectors"),
        page_size: int | None = None,
    ) -> Iterator[StoredDocument]:
        """Yield all documents by id, or those that match a filter; each page as of the moment it is asked for.

        strict_filter: as in a search. page_size: None = 50, or as many as the server allows.
        """
        after = None
        while True:
            page = self.page(after=after, limit=page_size, filter=filter, strict_filter=strict_filter, include=include)
            yield from page.documents
            after = page.next
            if after is None:
                return
