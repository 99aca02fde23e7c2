"""Documents: one, several, a page, a stream."""

from collections.abc import Iterable
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Header, Path, Query, Request
from starlette.exceptions import HTTPException
from starlette.responses import Response

from api.documents import Expected, Page
from api.http.answers import JsonResponse, StrictRoute, check_media_type
from api.http.bulk import Bulk
from api.http.deps import COMMON, Collection, Reader, Writer, problems, service_of, written
from api.http.problems import refusal
from api.http.schemas import (
    LIMIT,
    MOST,
    AddOut,
    BulkOut,
    CountIn,
    CountOut,
    DeletedOut,
    DeleteIn,
    DocumentContent,
    DocumentOut,
    DocumentsIn,
    DocumentsOut,
    Ids,
    ListIn,
    PageOut,
    PatchIn,
    VersionOut,
    WrittenOut,
)
from api.http.vectors import document_of
from index.errors import GrapnelError, RequestError
from retrieval.types import StoredDocument

router = APIRouter(route_class=StrictRoute, tags=["documents"])

# A control character is refused before routing, and the text of others is no id either.
Id = Annotated[str, Path(pattern=r"^[^\x00-\x1f\x7f-\x9f]{1,512}$", examples=["json.dumps"])]
IfMatch = Annotated[
    str | None,
    Header(
        pattern=r'^(\*|"?[0-9]{1,18}"?)$', description='Only where this version is stored, as `"7"`, or any, as `*`.'
    ),
]
IfNoneMatch = Annotated[str | None, Header(pattern=r"^\*$", description="`*`: only where nothing is stored.")]

_WRITES = problems(409, 412)
_PAGE = 50
_LINES = ("application/x-ndjson", "application/ndjson", "application/jsonl")


@router.get("/v1/collections/{collection}/documents", response_model=PageOut, responses=COMMON)
async def list_documents(
    request: Request,
    collection: Collection,
    principal: Reader,
    limit: Annotated[int | None, Query(ge=1, le=MOST, description=LIMIT)] = None,
    after: str = "",
) -> Response:
    """Return a page of documents, by id."""
    found = await service_of(request).documents.page(principal, collection, after, _page_size(request, limit), None)
    return await _page(request, found, ("text", "vectors"))


@router.post("/v1/collections/{collection}/documents/list", response_model=PageOut, responses=COMMON)
async def filter_documents(request: Request, collection: Collection, body: ListIn, principal: Reader) -> Response:
    """Return a page of the documents that match a filter, by id."""
    found = await service_of(request).documents.page(
        principal, collection, body.after, _page_size(request, body.limit), body.filter, strict=body.strict_filter
    )
    return await _page(request, found, tuple(body.include))


@router.post("/v1/collections/{collection}/documents/count", response_model=CountOut, responses=COMMON)
async def count_documents(request: Request, collection: Collection, body: CountIn, principal: Reader) -> Response:
    """Return how many documents there are, or match a filter."""
    count = await service_of(request).documents.count(principal, collection, body.filter, strict=body.strict_filter)
    return JsonResponse({"documents": count})


def _page_size(request: Request, limit: int | None) -> int:
    return min(_PAGE, service_of(request).limits.k) if limit is None else limit


async def _page(request: Request, page: Page, include: tuple[Literal["text", "vectors"], ...]) -> Response:
    def value() -> dict[str, Any]:
        last = page.documents[-1].document.id if page.more else None
        return {"documents": [document_value(each, include) for each in page.documents], "next": last}

    return await written(request, _characters(page.documents), value)


def _characters(documents: Iterable[StoredDocument | None]) -> int:
    return sum(len(each.document.text) for each in documents if each is not None)


@router.post("/v1/collections/{collection}/documents/get", response_model=DocumentsOut, responses=COMMON)
async def get_documents(request: Request, collection: Collection, body: Ids, principal: Reader) -> Response:
    """Return documents by id."""
    found = await service_of(request).documents.get(principal, collection, body.ids)

    def value() -> dict[str, Any]:
        return {"documents": [None if each is None else document_value(each) for each in found]}

    return await written(request, _characters(found), value)


@router.post("/v1/collections/{collection}/documents/delete", response_model=DeletedOut, responses=_WRITES)
async def delete_documents(request: Request, collection: Collection, body: DeleteIn, principal: Writer) -> Response:
    """Delete documents by id and those that match a filter."""
    if not body.ids and body.filter is None:
        raise RequestError("nothing to delete: give ids or a filter")
    count = await service_of(request).documents.delete(
        principal, collection, body.ids, body.filter, strict=body.strict_filter
    )
    return JsonResponse({"deleted": count})


@router.post("/v1/collections/{collection}/documents", response_model=AddOut, responses=_WRITES)
async def add_documents(request: Request, collection: Collection, body: DocumentsIn, principal: Writer) -> Response:
    """Add or replace documents, all or none; when this answers, they are durable and visible."""
    documents = [document_of(each.id, each) for each in body.documents]
    report = await service_of(request).documents.add(principal, collection, documents)
    return JsonResponse(report)


@router.post(
    "/v1/collections/{collection}/bulk",
    response_model=BulkOut,
    responses=_WRITES,
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {
                "application/x-ndjson": {
                    "schema": {"type": "string", "description": "One document a line, as in `documents`."},
                    "example": '{"id": "a", "text": "first"}\n{"id": "b", "text": "second"}\n',
                }
            },
        }
    },
)
async def bulk(request: Request, collection: Collection, principal: Writer) -> Response:
    """Add or replace a stream of documents in batches; what is not acceptable is left out and reported by line.

    Batches are durable as they go: a stream that breaks off, or that the disk ends, keeps what came before. A problem
    that ends a stream has a `report` of what became of it until then.
    """
    check_media_type(request, _LINES.__contains__, _LINES[0])
    service = service_of(request)
    service.allowed(principal, "write", collection)
    stream = Bulk(service, principal, collection)
    try:
        return JsonResponse(await stream.run(request.stream()))
    except (GrapnelError, HTTPException) as error:
        return refusal(request, error, report=stream.report())


@router.get("/v1/collections/{collection}/documents/{doc_id:path}", response_model=DocumentOut, responses=COMMON)
async def get_document(request: Request, collection: Collection, doc_id: Id, principal: Reader) -> Response:
    """Return a document; its version is the ETag."""
    found = await service_of(request).documents.get_one(principal, collection, doc_id)
    return JsonResponse(document_value(found), headers={"ETag": f'"{found.version}"'})


@router.put(
    "/v1/collections/{collection}/documents/{doc_id:path}",
    response_model=WrittenOut,
    responses={**_WRITES, 201: {"model": WrittenOut, "description": "Added"}},
)
async def put_document(
    request: Request,
    collection: Collection,
    doc_id: Id,
    body: DocumentContent,
    principal: Writer,
    if_match: IfMatch = None,
    if_none_match: IfNoneMatch = None,
) -> Response:
    """Add or replace a document; when this answers, it is durable and visible."""
    expected = _expected(if_match, if_none_match)
    written = await service_of(request).documents.put(principal, collection, document_of(doc_id, body), expected)
    value = {"id": doc_id, "version": written.version, "result": written.result}
    return JsonResponse(value, 201 if written.result == "added" else 200, {"ETag": f'"{written.version}"'})


@router.patch(
    "/v1/collections/{collection}/documents/{doc_id:path}", response_model=DocumentOut | VersionOut, responses=_WRITES
)
async def patch_document(
    request: Request,
    collection: Collection,
    doc_id: Id,
    body: PatchIn,
    principal: Writer,
    if_match: IfMatch = None,
) -> Response:
    """Merge into a document's metadata; nothing is encoded again. A key that may not read gets the version alone."""
    expected = _expected(if_match, None)
    found = await service_of(request).documents.patch(principal, collection, doc_id, body.metadata, expected)
    value = document_value(found) if principal.may("read") else {"id": doc_id, "version": found.version}
    return JsonResponse(value, headers={"ETag": f'"{found.version}"'})


@router.delete(
    "/v1/collections/{collection}/documents/{doc_id:path}", status_code=204, response_class=Response, responses=_WRITES
)
async def delete_document(
    request: Request, collection: Collection, doc_id: Id, principal: Writer, if_match: IfMatch = None
) -> Response:
    """Delete a document; when this answers, no search finds it."""
    await service_of(request).documents.delete_one(principal, collection, doc_id, _expected(if_match, None))
    return Response(status_code=204)


def _expected(if_match: str | None, if_none_match: str | None) -> Expected:
    if if_none_match is not None:
        if if_match is not None:
            raise RequestError("If-None-Match and If-Match are both given: a document cannot be both absent and there")
        return "absent"
    if if_match is None:
        return "any"
    return "present" if if_match == "*" else int(if_match.strip('"'))


def document_value(
    stored: StoredDocument, include: tuple[Literal["text", "vectors"], ...] = ("text", "vectors")
) -> dict[str, Any]:
    """Return a stored document as JSON values."""
    document = stored.document
    value = {
        "id": document.id,
        "title": document.title,
        "metadata": dict(document.metadata),
        "version": stored.version,
    }
    if "text" in include:
        value["text"] = document.text
    if "vectors" in include and document.vectors:
        value["vectors"] = dict(document.vectors)
    return value
