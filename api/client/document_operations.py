"""Operations on documents; see api/client/exchange.py for their form.

An id goes into a path percent-encoded, and only where it must: what can name it in a body does. No path carries "", "."
and "..", which httpx and every proxy resolve, so for these a plain put takes another way, and what has none is refused.
"""

from collections.abc import AsyncIterable, AsyncIterator, Collection, Iterable, Iterator, Mapping
from typing import Literal

from api.client.exchange import Operation, Request, call, can_be_segment, collection_path, listed, segment, to_json
from api.client.options import Filter
from api.client.reading import read, read_count, read_documents, read_page, read_patched, read_result, read_written
from api.client.results import Page, UpsertReport, Written
from index.errors import CorpusError, NotFoundError, RequestError
from retrieval.types import Document, Json, StoredDocument

NDJSON_TYPE = "application/x-ndjson"

_CHUNK_BYTES = 1 << 16
"""Lines are sent in chunks of about this size: what a stream of documents holds in memory, beside one document."""

_BULK_PATIENCE_S = 600.0
"""For what is long work of the server's: encoding a batch of a stream, deleting everything that matches a filter."""

_IDS_AT_ONCE = 1_000
"""What a server takes in one request unless it is configured otherwise."""

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
    yield from get_many(collection, [document.id])  # a key that may not read is refused before anything is written
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
    """Return documents with their versions, in the order of the ids; None where there is none.

    Cost: one request for every 1,000 ids; what each finds is as of the moment it is asked.
    """
    found: list[StoredDocument | None] = []
    for part in _parts(listed(doc_ids, "doc_ids")):
        request = Request("POST", f"{documents_path(collection)}/get", json={"ids": part})
        found += yield from call(request, read_documents)
    return found


def _parts(doc_ids: list[str]) -> list[list[str]]:
    return [doc_ids[start : start + _IDS_AT_ONCE] for start in range(0, len(doc_ids), _IDS_AT_ONCE)]


def patch(
    collection: str, doc_id: str, metadata: Mapping[str, Json], *, if_match: int | None = None
) -> Operation[StoredDocument | Written]:
    """Merge `metadata` into that of a document (None removes a key) and return it; nothing is encoded again.

    A key that may not read is told id and version alone, as `Written`.
    if_match: only over this version; then it is sent once. Raises NotFoundError, PreconditionError.
    """
    path = f"{documents_path(collection)}/{segment(doc_id)}"
    headers = _if_match(if_match)
    request = Request("PATCH", path, json={"metadata": metadata}, headers=headers, repeatable=not headers)
    return call(request, read_patched)


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
    strict_filter: bool = True,
) -> Operation[int]:
    """Delete documents by id, and all that match a filter; return how many were there.

    A request that was repeated tells only what its repetition found. strict_filter: as in a search.
    Raises RequestError on a bad filter, and when neither is given; then nothing is deleted.
    Cost: one request for every 1,000 ids, the filter with the first; each deletes all or nothing of what it names.
    """
    if not doc_ids and filter is None:
        raise RequestError("nothing to delete: give ids or a filter")
    bodies: list[dict[str, Json]] = [{"ids": part} for part in _parts(listed(doc_ids, "doc_ids"))] or [{"ids": []}]
    bodies[0] |= _filtered(filter, strict=strict_filter)
    total = 0
    for body in bodies:
        patience_s = _BULK_PATIENCE_S if "filter" in body else None
        request = Request("POST", f"{documents_path(collection)}/delete", json=body, patience_s=patience_s)
        total += yield from call(request, read_count("deleted"))
    return total


def _filtered(condition: Filter | None, *, strict: bool) -> dict[str, Json]:
    """Return what a body says of a filter, without what the server takes by default."""
    if condition is None:
        return {}
    return {"filter": condition} if strict else {"filter": condition, "strict_filter": False}


def page(
    collection: str,
    *,
    after: str | None = None,
    limit: int | None = None,
    filter: Filter | None = None,  # noqa: A002  as above
    strict_filter: bool = True,
    include: Collection[Part] = ("text", "vectors"),
) -> Operation[Page]:
    """Return up to `limit` documents by id, those after the id `after`, those that match a filter.

    limit: None = 50, or as many as the server allows. strict_filter: as in a search.
    """
    given = {"after": after, "limit": limit}
    body: dict[str, Json] = {key: value for key, value in given.items() if value is not None}
    body |= {"include": list(include), **_filtered(filter, strict=strict_filter)}
    return call(Request("POST", f"{documents_path(collection)}/list", json=body), read_page)


def count(
    collection: str,
    *,
    filter: Filter | None = None,  # noqa: A002  as above
    strict_filter: bool = True,
) -> Operation[int]:
    """Return how many documents there are, or how many match a filter.

    A key that is bound to some of the documents counts those. strict_filter: as in a search.
    """
    body = _filtered(filter, strict=strict_filter)
    return call(Request("POST", f"{documents_path(collection)}/count", json=body), read_count("documents"))


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
