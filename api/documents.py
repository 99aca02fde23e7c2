"""Documents of a collection, as one principal may see and change them."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias

from api.keys import Principal
from index.errors import ConflictError, NotFoundError, PreconditionError, RequestError
from retrieval.collection import Collection, size_of
from retrieval.ingest import AddReport, Written
from retrieval.types import Document, Guard, Json, StoredDocument

if TYPE_CHECKING:
    from api.service import Service

Expected: TypeAlias = int | Literal["absent", "present", "any"]
"""What a write depends on: the version that is stored, that nothing is, that something is, or nothing in particular."""


class Page(NamedTuple):
    """Documents by id. more: whether there may be others behind the last of them."""

    documents: list[StoredDocument]
    more: bool


class Documents:
    """Reads and writes of documents. A principal with a filter sees only what matches it, and can store nothing else.

    Every call raises NotFoundError on an unknown collection and ForbiddenError without the scope.
    """

    def __init__(self, service: "Service") -> None:
        self._service = service

    async def get(self, principal: Principal, name: str, doc_ids: Sequence[str]) -> list[StoredDocument | None]:
        """Return documents by id, in order; None where there is none that this principal may see."""
        self._check_count("ids", len(doc_ids), self._service.limits.ids)
        found = await self._service.reading(principal, name, lambda collection: collection.stored(doc_ids))
        return [None if each is None or not principal.owns(each.document) else each for each in found]

    async def get_one(self, principal: Principal, name: str, doc_id: str) -> StoredDocument:
        """Return one document. Raises NotFoundError."""
        (found,) = await self.get(principal, name, [doc_id])
        if found is None:
            raise _absent(doc_id)
        return found

    async def page(
        self,
        principal: Principal,
        name: str,
        after: str,
        limit: int,
        condition: Mapping[str, Json] | None,
        *,
        strict: bool = True,
    ) -> Page:
        """Return up to `limit` documents with ids greater than `after`, by id; those that match a filter.

        Fewer where they are large: about as many bytes as a request may have, and one document at least.
        strict: see SearchRequest.strict_filter; a principal with a filter is never told which fields there are.
        """
        self._check_count("documents", limit, self._service.limits.k)
        own, told = principal.restricted(condition), strict and principal.filter is None
        most = self._service.limits.body_bytes

        def work(collection: Collection) -> Page:
            found = collection.page(after, limit, own, strict_filter=told, most_bytes=most)
            return Page(found, len(found) == limit or sum(size_of(each.document) for each in found) >= most)

        return await self._service.reading(principal, name, work)

    async def count(
        self, principal: Principal, name: str, condition: Mapping[str, Json] | None, *, strict: bool = True
    ) -> int:
        """Return how many documents of this principal's there are, or match a filter. strict: as in `page`."""
        own, told = principal.restricted(condition), strict and principal.filter is None
        return await self._service.reading(
            principal, name, lambda collection: collection.count(own, strict_filter=told)
        )

    async def put(self, principal: Principal, name: str, document: Document, expected: Expected = "any") -> Written:
        """Add or replace one document. Raises PreconditionError where what is stored is not `expected`."""
        principal.check_write(document.metadata, document.id)
        guard = _guard(principal, expected)

        def work(collection: Collection) -> Written:
            _look(collection, [document], guard)
            return collection.put(document, guard=guard)

        return await self._service.writing(principal, name, work)

    async def add(self, principal: Principal, name: str, documents: Sequence[Document]) -> AddReport:
        """Add or replace documents, all or none. Raises CorpusError on one that is not acceptable."""
        self._check_count("documents", len(documents), self._service.limits.documents)
        twice = [doc_id for doc_id, count in Counter(document.id for document in documents).items() if count > 1]
        if twice:
            raise RequestError(f"id {twice[0][:200]!r} is given twice: send each document once")
        return await self.add_stream(principal, name, documents)

    async def add_stream(self, principal: Principal, name: str, documents: Sequence[Document]) -> AddReport:
        """Add or replace a batch of a longer stream; of several with one id the last stays."""
        for document in documents:
            principal.check_write(document.metadata, document.id)
        guard = _guard(principal, "any")

        def work(collection: Collection) -> AddReport:
            _look(collection, documents, guard)
            return collection.add(documents, guard=guard)

        return await self._service.writing(principal, name, work)

    async def patch(
        self, principal: Principal, name: str, doc_id: str, changes: Mapping[str, Json], expected: Expected = "any"
    ) -> StoredDocument:
        """Merge into a document's metadata, None removes a key; return the document. Raises NotFoundError."""

        def guard(doc_id: str, stored: StoredDocument | None) -> None:
            if stored is None or not principal.owns(stored.document):
                raise _absent(doc_id)
            _check_expected(doc_id, stored, expected)
            merged = {**stored.document.metadata, **changes}
            principal.check_write({key: value for key, value in merged.items() if value is not None}, doc_id)

        return await self._service.writing(
            principal, name, lambda collection: collection.patch(doc_id, changes, guard=guard)
        )

    async def delete_one(self, principal: Principal, name: str, doc_id: str, expected: Expected = "any") -> None:
        """Delete a document. Raises PreconditionError where what is stored is not `expected`, else NotFoundError."""

        def guard(doc_id: str, stored: StoredDocument | None) -> None:
            own = stored if stored is not None and principal.owns(stored.document) else None
            _check_expected(doc_id, own, expected)
            if own is None:
                raise _absent(doc_id)

        await self._service.writing(principal, name, lambda collection: collection.delete(doc_id, guard=guard))

    async def delete(
        self,
        principal: Principal,
        name: str,
        doc_ids: Sequence[str],
        condition: Mapping[str, Json] | None,
        *,
        strict: bool = True,
    ) -> int:
        """Delete documents by id and those that match a filter; return how many of this principal's there were.

        strict: as in `page`.
        """
        self._check_count("ids", len(doc_ids), self._service.limits.ids)
        restricted = None if condition is None else principal.restricted(condition)
        told = strict and principal.filter is None

        def work(collection: Collection) -> int:
            own = doc_ids
            if principal.filter is not None:
                found = collection.stored(doc_ids)
                own = [each.document.id for each in found if each is not None and principal.owns(each.document)]
            return collection.delete(own, filter=restricted, strict_filter=told, guard=_owned(principal))

        return await self._service.writing(principal, name, work)

    def _check_count(self, what: str, count: int, most: int) -> None:
        if count > most:
            raise RequestError(f"{count:,} {what}, this server takes {most:,} in one request")


def _absent(doc_id: str) -> NotFoundError:
    return NotFoundError(f"no document {doc_id[:200]!r}")


def _check_expected(doc_id: str, stored: StoredDocument | None, expected: Expected) -> None:
    if expected == "any" or (stored is None and expected == "absent"):
        return
    if stored is None:
        wanted = "a document" if expected == "present" else f"version {expected}"
        raise PreconditionError(f"document {doc_id[:200]!r} does not exist, {wanted} was expected")
    if expected not in {"present", stored.version}:
        wanted = "no document" if expected == "absent" else f"version {expected}"
        raise PreconditionError(f"document {doc_id[:200]!r} has version {stored.version}, {wanted} was expected")


def _look(collection: Collection, documents: Sequence[Document], guard: Guard | None) -> None:
    """Raise what `guard` would of documents to be stored: before they are encoded, which is the costly part.

    The look that counts is inside the transaction, later.
    """
    if guard is not None:
        for document, stored in zip(documents, collection.stored([each.id for each in documents]), strict=True):
            guard(document.id, stored)


def _guard(principal: Principal, expected: Expected) -> Guard | None:
    """Return what looks at what a write replaces: it must be this principal's, and what the write expects.

    None where there is nothing to look at.
    """
    if principal.filter is None and expected == "any":
        return None

    def guard(doc_id: str, stored: StoredDocument | None) -> None:
        if stored is not None and not principal.owns(stored.document):
            raise ConflictError(f"id {doc_id[:200]!r} is taken by a document that this key may not change")
        _check_expected(doc_id, stored, expected)

    return guard


def _owned(principal: Principal) -> Guard | None:
    """Return what looks once more, inside the transaction, that what is deleted by id is this principal's."""
    if principal.filter is None:
        return None

    def guard(doc_id: str, stored: StoredDocument | None) -> None:
        if stored is not None and not principal.owns(stored.document):
            raise ConflictError(f"document {doc_id[:200]!r} was replaced meanwhile: try again")

    return guard
