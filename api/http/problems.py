"""Errors as RFC 9457 problems: one shape everywhere, and no exception's text unless it was written for clients."""

import errno
import logging
import sqlite3
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import Match

from api.flaws import flaw_text, message_of, place_of
from api.http.answers import JsonResponse
from index.errors import (
    ConfigError,
    ConflictError,
    CorpusError,
    DeadlineError,
    ForbiddenError,
    GrapnelError,
    IndexFormatError,
    LockedError,
    MissingDependencyError,
    NotFoundError,
    OverloadedError,
    PreconditionError,
    RequestError,
    RerankerError,
    ShapeError,
    StorageError,
    UnavailableError,
)

log = logging.getLogger(__name__)

MEDIA_TYPE: Final = "application/problem+json"

_READ_ONLY_CAUSES = (errno.EROFS, errno.EACCES, errno.EPERM)
_DETAIL_CHARACTERS = 2_000
_ERRORS = 20
_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")


class Kind(NamedTuple):
    """One type of problem. private: its message may name files of the server, so clients get `title` alone."""

    status: int
    type: str
    title: str
    private: bool = False


BAD_REQUEST = Kind(400, "bad-request", "The request cannot be read")
UNAUTHENTICATED = Kind(401, "unauthenticated", "A valid API key is needed")
FORBIDDEN = Kind(403, "forbidden", "This key may not do that")
NOT_FOUND = Kind(404, "not-found", "There is no such thing")
METHOD = Kind(405, "method-not-allowed", "This address does not take this method")
TIMEOUT = Kind(408, "timeout", "The request did not arrive in time")
CONFLICT = Kind(409, "conflict", "What is there already forbids this")
PRECONDITION = Kind(412, "precondition-failed", "What is stored is not what the request expects")
TOO_LARGE = Kind(413, "too-large", "The request is too large")
MEDIA = Kind(415, "unsupported-media-type", "The body is of a type that is not taken here")
INVALID = Kind(422, "invalid", "The request cannot be answered as asked")
OVERLOADED = Kind(429, "overloaded", "More is waiting than can be answered in time")
HEAD_TOO_LARGE = Kind(431, "too-large", "The request line and headers are too large")
INTERNAL = Kind(500, "internal", "The server failed; its log has the details under this request id", private=True)
NOT_INSTALLED = Kind(501, "not-installed", "This server lacks an optional part that this needs", private=True)
RERANKER = Kind(502, "reranker", "The reranker failed", private=True)
UNAVAILABLE = Kind(503, "unavailable", "The server is starting or stopping: try again")
READ_ONLY = Kind(503, "read-only", "Nothing can be written here at the moment; searches go on", private=True)
DAMAGED = Kind(503, "damaged", "Stored data is damaged; the server's log says what to do", private=True)
DEADLINE = Kind(504, "deadline", "The time the request gave was over before it was answered")
STORAGE = Kind(507, "storage", "The disk refused: nothing was written; searches go on", private=True)

_KINDS: Final[Sequence[tuple[type[GrapnelError], Kind]]] = (
    # The first that an error is an instance of.
    (NotFoundError, NOT_FOUND),
    (PreconditionError, PRECONDITION),
    (ConflictError, CONFLICT),
    (ForbiddenError, FORBIDDEN),
    (RequestError, INVALID),
    (CorpusError, INVALID),
    (ConfigError, INVALID),
    (ShapeError, INVALID),
    (OverloadedError, OVERLOADED),
    (UnavailableError, UNAVAILABLE),
    (DeadlineError, DEADLINE),
    (LockedError, READ_ONLY),
    (StorageError, STORAGE),
    (IndexFormatError, DAMAGED),
    (MissingDependencyError, NOT_INSTALLED),
    (RerankerError, RERANKER),
)
_STARTING_S = 1.0
"""When to come back to a server that is starting, or to the one that takes its place."""

_BY_STATUS: Final = {kind.status: kind for kind in (BAD_REQUEST, NOT_FOUND, METHOD, TIMEOUT, TOO_LARGE, MEDIA)}


def kind_of(error: GrapnelError) -> Kind:
    """Return the type of problem that an error is."""
    if isinstance(error, StorageError) and _is_read_only(error.__cause__):
        return READ_ONLY
    return next((kind for cls, kind in _KINDS if isinstance(error, cls)), INTERNAL)


def _is_read_only(cause: BaseException | None) -> bool:
    if isinstance(cause, sqlite3.Error):
        return getattr(cause, "sqlite_errorcode", 0) & 0xFF in {sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM}
    return getattr(cause, "errno", None) in _READ_ONLY_CAUSES


def problem_value(kind: Kind, detail: str, request_id: str, **more: Any) -> dict[str, Any]:
    """Return a problem as JSON values. more: members of this problem alone."""
    value: dict[str, Any] = {"type": f"grapnel:{kind.type}", "title": kind.title, "status": kind.status}
    if detail and not kind.private:
        value["detail"] = detail[:_DETAIL_CHARACTERS]
    if kind == UNAVAILABLE:
        value["retry_after_s"] = _STARTING_S
    return value | {"request_id": request_id} | more


def value_of(error: GrapnelError, request_id: str) -> dict[str, Any]:
    """Return the problem that an error is, as JSON values; what clients may not read goes to the log."""
    kind = kind_of(error)
    if kind.private:
        log.error("%s: %s", type(error).__name__, error, extra={"request_id": request_id})
    more = {"retry_after_s": error.retry_after_s} if isinstance(error, OverloadedError) else {}
    return problem_value(kind, str(error), request_id, **more)


def problem(
    kind: Kind, detail: str, request_id: str, headers: Mapping[str, str] | None = None, **more: Any
) -> Response:
    """Return a problem as a response."""
    return _response(problem_value(kind, detail, request_id, **more), headers or {})


def _response(value: Mapping[str, Any], headers: Mapping[str, str]) -> Response:
    if "retry_after_s" in value:
        headers = {**headers, "Retry-After": str(max(1, round(value["retry_after_s"])))}
    return JsonResponse(value, value["status"], headers, MEDIA_TYPE)


def request_id_of(request: Request) -> str:
    """Return the id that the outermost middleware gave a request."""
    return str(request.scope.get("grapnel.request_id", ""))


def refusal(request: Request, error: GrapnelError | HTTPException, **more: Any) -> Response:
    """Return the response to an error. more: members of this problem alone."""
    if isinstance(error, HTTPException):
        return _http_refusal(request, error, more)
    return _response(value_of(error, request_id_of(request)) | more, {})


async def _grapnel_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, GrapnelError)
    return refusal(request, error)


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return refusal(request, error)


def _http_refusal(request: Request, error: HTTPException, more: Mapping[str, Any]) -> Response:
    kind = _BY_STATUS.get(error.status_code, BAD_REQUEST._replace(status=error.status_code))
    ours = error.status_code in {408, 413, 415}
    headers = {"Allow": _allowed(request)} if error.status_code == 405 else error.headers
    return problem(kind, str(error.detail) if ours else "", request_id_of(request), headers, **more)


def _allowed(request: Request) -> str:
    """Return the methods of an address: of all its routes, where starlette names those of the first."""
    routes = request.app.routes
    found = (m for m in _METHODS if any(r.matches({**request.scope, "method": m})[0] is Match.FULL for r in routes))
    return ", ".join(found)


async def _validation_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    flaws = error.errors()[:_ERRORS]
    errors = [{"place": place_of(flaw), "message": message_of(flaw)} for flaw in flaws]
    kind = BAD_REQUEST if any(flaw["type"] == "json_invalid" for flaw in flaws) else INVALID
    detail = "; ".join(flaw_text(flaw) for flaw in flaws[:3])
    return problem(kind, detail, request_id_of(request), errors=errors)


def install(app: FastAPI) -> None:
    """Let an application answer every error as a problem."""
    app.add_exception_handler(GrapnelError, _grapnel_error)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(RequestValidationError, _validation_error)
