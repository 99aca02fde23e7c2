"""Operations on documents; see api/client/exchange.py for their form.

An id goes into a path percent-encoded, and only where it must: what can name it in a body does. No path carries "", "."
and "..", which httpx and every proxy resolve, so for these a plain put takes another way, and what has none is refused.
"""

from collections.abc import AsyncIterable, AsyncIterator, Collection, Iterable, Iterator, Mapping
from typing import Literal

from api.client.collection_operations import describe
from api.client.exchange import Operation, Request, call, can_be_segment, collection_path, listed, segment, to_json
from api.client.options import Filter
from api.client.reading import read, read_count, read_document, read_documents, read_page, read_result, read_written
from api.client.results import Page, UpsertReport, Written
from index.errors import CorpusError, NotFoundError, RequestError
from retrieval.types import Document, Json, StoredDocument

NDJSON_TYPE = "application/x-ndjson"

_CHUNK_BYTES = 1 << 16
"""Lines are sent in chunks of about this size: what a stream of documents holds in memory, beside one document."""

_BULK_PATIENCE_S = 600.0
"""The server encodes while it reads, so one wait of a stream may last as long as its slowest batch."""

_COUNTED_AT_ONCE = 1000

Part = Literal["text", "vectors"]


def documents_path(collection: str) -> str:
    """Return the path of a collection's documents."""
    return f"{collection_path(collection)}/documents"


def put(
    collection: str, document: Document, *, if_match: int | None = None, if_none_match: bool = False
) -> Operation[Written]:
    """Add or replace one document; it is durable and can be found when this returns.

    if_match: only over this version. if_none_match: only if there is no document of this id yet. A conditional write
    is sent once. Raises PreconditionError when the condition does not hold, RequestError on a bad document.
    """
    headers = _if_match(if_match) | ({"If-None-Match": "*"} if if_none_match else {})
    if not can_be_segment(document.id) and not headers:
        return _put_without_path(collection, document)
    body = {key: value for key, value in document_json(document).items() if key != "id"}
    path = f"{documents_path(collection)}/{segment(document.id)}"
    return call(Request("PUT", path, json=body, headers=headers, repeatable=not headers), read_written)


def _put_without_path(collection: str, document: Document) -> Operation[Written]:
    body = {"documents": [document_json(document)]}
    result = yield from call(Request("POST", documents_path(collection), json=body), read_result)
    stored = yield from get(collection, document.id)
    return Written(document.id, stored.version, result)


def get(collection: str, doc_id: str) -> Operation[StoredDocument]:
    """Return a document with its version. Raises NotFoundError."""
    (stored,) = yield from get_many(collection, [doc_id])
    if stored is None:
        raise NotFoundError(f"no document {doc_id!r} in {collection!r}")
    return stored


def get_many(collection: str, doc_ids: Iterable[str]) -> Operation[list[StoredDocument | None]]:
    """Return documents with their versions, in the order of the ids; None where there is none."""
    body = {"ids": listed(doc_ids, "doc_ids")}
    return call(Request("POST", f"{documents_path(collection)}/get", json=body), read_documents)


def patch(
    collection: str, doc_id: str, metadata: Mapping[str, Json], *, if_match: int | None = None
) -> Operation[StoredDocument]:
    """Merge `metadata` into that of a document (None removes a key) and return it; nothing is encoded again.

    if_match: only over this version; then it is sent once. Raises NotFoundError, PreconditionError.
    """
    path = f"{documents_path(collection)}/{segment(doc_id)}"
    headers = _if_match(if_match)
    request = Request("PATCH", path, json={"metadata": metadata}, headers=headers, repeatable=not headers)
    return call(request, read_document)


def delete(collection: str, doc_id: str, *, if_match: int | None = None) -> Operation[bool]:
    """Delete a document, if it is there; return whether it was (False, too, when only a repetition was answered).

    if_match: only this version; then it is sent once. Raises PreconditionError.
    """
    if if_match is None:
        return (yield from delete_many(collection, [doc_id])) > 0
    path = f"{documents_path(collection)}/{segment(doc_id)}"
    yield from call(Request("DELETE", path, headers=_if_match(if_match), repeatable=False), lambda value: value)
    return True


def delete_many(
    collection: str,
    doc_ids: Collection[str] = (),
    *,
    filter: Filter | None = None,  # noqa: A002  the field's word
) -> Operation[int]:
    """Delete documents by id, and all that match a filter; return how many were there.

    Raises RequestError on a bad filter, and when neither is given.
    """
    if not doc_ids and filter is None:
        raise RequestError("nothing to delete: give ids or a filter")
    body = {"ids": listed(doc_ids, "doc_ids"), **({} if filter is None else {"filter": filter})}
    return (yield from call(Request("POST", f"{documents_path(collection)}/delete", json=body), read_count("deleted")))


def page(
    collection: str,
    *,
    after: str | None = None,
    limit: int = 50,
    filter: Filter | None = None,  # noqa: A002  as above
    include: Collection[Part] = ("text", "vectors"),
) -> Operation[Page]:
    """Return up to `limit` documents by id, those after the id `after`, those that match a filter."""
    given = {"after": after, "filter": filter}
    body = {"limit": limit, "include": list(include)} | {
        key: value for key, value in given.items() if value is not None
    }
    return call(Request("POST", f"{documents_path(collection)}/list", json=body), read_page)


def count(collection: str, *, filter: Filter | None = None) -> Operation[int]:  # noqa: A002  as above
    """Return how many documents there are, or how many match a filter.

    A key that is bound to some of the documents counts those. Cost: one request; with a filter, or such a key, one for
    every 1,000 documents counted.
    """
    if filter is None:
        known = (yield from describe(collection)).documents
        if known is not None:
            return known
    total, after = 0, None
    while True:
        part = yield from page(collection, after=after, limit=_COUNTED_AT_ONCE, filter=filter, include=())
        total += len(part.documents)
        after = part.next
        if after is None:
            return total


def upsert(collection: str, chunks: Iterable[bytes] | AsyncIterable[bytes]) -> Operation[UpsertReport]:
    """Add or replace a stream of documents, as `lines` or `lines_of_async` makes it. Never repeated.

    A document that the server refuses is in the report, the others are stored.
    """
    headers = {"Content-Type": NDJSON_TYPE}
    path = f"{collection_path(collection)}/bulk"
    request = Request("POST", path, stream=chunks, headers=headers, repeatable=False, patience_s=_BULK_PATIENCE_S)
    return call(request, lambda value: read(UpsertReport, value))


def lines(documents: Iterable[Document]) -> Iterator[bytes]:
    """Yield documents as JSON lines, in chunks. Raises CorpusError on one that JSON cannot hold."""
    chunk = bytearray()
    for document in documents:
        chunk += _line(document)
        if len(chunk) >= _CHUNK_BYTES:
            yield bytes(chunk)
            chunk.clear()
    yield bytes(chunk)


async def lines_of_async(documents: AsyncIterable[Document]) -> AsyncIterator[bytes]:
    """Yield the same from documents that are waited for."""
    chunk = bytearray()
    async for document in documents:
        chunk += _line(document)
        if len(chunk) >= _CHUNK_BYTES:
            yield bytes(chunk)
            chunk.clear()
    yield bytes(chunk)


def _line(document: Document) -> bytes:
    try:
        return to_json(document_json(document)) + b"\n"
    except RequestError as error:
        raise CorpusError(f"document {document.id!r:.80} {error}") from error


def document_json(document: Document) -> dict[str, Json]:
    """Return a document as the service takes it, without what it would take by default."""
    optional = {"title": document.title, "metadata": document.metadata, "vectors": document.vectors}
    return {"id": document.id, "text": document.text} | {key: value for key, value in optional.items() if value}


def _if_match(version: int | None) -> dict[str, str]:
    return {} if version is None else {"If-Match": f'"{version}"'}
