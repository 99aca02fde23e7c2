"""What surrounds every request, outermost first: identity and last handler, access, size and pace of its body."""

import asyncio
import ipaddress
import logging
import re
import time
import uuid
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from typing import Any, Final
from urllib.parse import unquote_to_bytes

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.http import problems
from api.http.deps import ClientGoneError
from api.http.metrics import Metrics
from api.keys import COLLECTION, LOCAL, Keys, Principal
from api.server_config import Limits
from api.service import Answer, SearchSpec
from index.errors import OverloadedError

log = logging.getLogger("api.requests")

_REQUEST_ID = re.compile(r"[A-Za-z0-9_.:-]{1,64}")
_PUBLIC: Final = re.compile(r"/|/web/[^/]+|/health/(live|ready)|/openapi\.json|/health")
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")
_STREAMED: Final = re.compile(r"/v1/collections/[^/]+/bulk")
_SEARCH: Final = re.compile(rf"(/v1/(?:collections|vector_stores)/)({COLLECTION})(/search|/context)")
_SAFE = ("GET", "HEAD", "OPTIONS")
_QUIET = ("/health", "/metrics")
_READING = (
    "/search",
    "/context",
    "/grep",
    "/ngrams",
    "/get",
    "/list",
    "/count",
    "/embeddings",
    "/rerank",
    "/embed",
    "/similarity",
    "/mcp",
)
"""How the routes end whose POST changes nothing."""

_slowest: "ContextVar[list[tuple[str, SearchSpec, Answer]]]" = ContextVar("slowest")
"""Of the request under way: the slowest of its searches, if it has any."""

_HEADERS: Final = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-store"),
)


def is_public(path: str) -> bool:
    """Return whether a path is answered without a key: the page, health, the description of the API."""
    return _PUBLIC.fullmatch(path) is not None


def note_search(collection: str, spec: SearchSpec, answer: Answer) -> None:
    """Keep what a search was, for the line in the log if its request is slow."""
    slowest = _slowest.get([])
    if not slowest or answer.total_s > slowest[0][2].total_s:
        slowest[:] = [(collection, spec, answer)]


class Requests:
    """Gives every request an id and a place in metrics and log, and answers what nothing else caught."""

    def __init__(self, app: ASGIApp, metrics: Metrics, slow_ms: float) -> None:
        self._app = app
        self._metrics = metrics
        self._slow_s = slow_ms / 1000

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = Headers(scope=scope).get("x-request-id", "")
        request_id = given if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex
        scope["grapnel.request_id"] = request_id
        _slowest.set([])
        start = time.perf_counter()
        status = 0

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = [*message["headers"], (b"x-request-id", request_id.encode())]
                present = {name for name, _ in headers}
                headers += [(name, value) for name, value in _HEADERS if name not in present]
                message = {**message, "headers": headers}
            await send(message)

        try:
            await self._app(scope, receive, sending)
        except (ClientDisconnect, ClientGoneError):
            pass  # nobody is there to be answered; it counts as status 499
        except asyncio.CancelledError:
            # uvicorn cancels what the time to drain was too short for; what runs on a thread goes on, or never begins.
            if not status:
                detail = "the server is ending; what this request asked for may have been done, or not"
                await problems.problem(problems.UNAVAILABLE, detail, request_id)(scope, receive, sending)
        except Exception:
            # The one broad handler: a defect is logged with its traceback, and answered without it.
            log.exception("internal error", extra={"request_id": request_id})
            if not status:
                await problems.problem(problems.INTERNAL, "", request_id)(scope, receive, sending)
        finally:
            self._record(scope, status or 499, time.perf_counter() - start)

    def _record(self, scope: Scope, status: int, seconds: float) -> None:
        route = scope.get("route")
        path = str(scope.get("grapnel.route") or getattr(route, "path", "(none)"))
        method = "(none)" if path == "(none)" else scope["method"]
        self._metrics.request(method, path, status, seconds)
        slow, failed = seconds > self._slow_s, status >= 500
        changes = method not in _SAFE and not (method == "POST" and path.endswith(_READING))
        if path.startswith(_QUIET) or not (slow or failed or changes):
            return
        principal: Principal | None = scope.get("grapnel.principal")
        about: dict[str, Any] = {
            "request_id": scope["grapnel.request_id"],
            "method": scope["method"],
            "path": scope["path"],
            "status": status,
            "ms": round(1000 * seconds, 1),
            "key": principal.name if principal else None,
        }
        for collection, spec, answer in _slowest.get():
            timings = answer.ranking.timings_s
            about |= {
                "search": collection,
                "mode": answer.mode,
                "k": spec.request.k,
                "stages_ms": {stage: round(1000 * stage_s, 1) for stage, stage_s in timings.items()},
            }
        level = logging.WARNING if slow or failed else logging.INFO
        log.log(level, "slow request" if slow else "request", extra=about)


class Access:
    """Lets in whom the server knows: host names it answers to, no foreign web pages, a valid key where keys exist."""

    def __init__(self, app: ASGIApp, keys: Keys, trusted_hosts: Sequence[str]) -> None:
        self._app = app
        self._keys = keys
        self._hosts = trusted_hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        refusal = self._refusal(scope, Headers(scope=scope))
        await (refusal or self._app)(scope, receive, send)

    def _refusal(self, scope: Scope, headers: Headers) -> ASGIApp | None:
        request_id = scope["grapnel.request_id"]
        named = headers.get("host", "")
        host = _without_port(named)
        if not any(_covers(pattern, host) for pattern in self._hosts):
            return problems.problem(problems.FORBIDDEN, "this server does not answer to this host name", request_id)
        origin = headers.get("origin")
        if origin is not None and not _is_own(origin, named):
            return problems.problem(problems.FORBIDDEN, "requests of other web pages are not answered", request_id)
        flaw = _flaw_of(scope)
        if flaw:
            return problems.problem(problems.BAD_REQUEST, flaw, request_id)
        if is_public(scope["path"]):
            return None
        principal = self._principal(headers)
        if principal is None:
            detail = "send a key of this server as `Authorization: Bearer KEY`"
            return problems.problem(
                problems.UNAUTHENTICATED, detail, request_id, {"WWW-Authenticate": 'Bearer realm="grapnel"'}
            )
        scope["grapnel.principal"] = principal
        return None

    def _principal(self, headers: Headers) -> Principal | None:
        if not len(self._keys):
            return LOCAL
        scheme, _, secret = headers.get("authorization", "").partition(" ")
        presented = secret.strip() if scheme.lower() == "bearer" else headers.get("x-api-key", "")
        return self._keys.find(presented)


def _without_port(host: str) -> str:
    name, colon, port = host.rpartition(":")
    return (name if colon and port.isdecimal() else host).lower()


def _is_own(origin: str, host: str) -> bool:
    """Say whether a web page's origin is what the Host header names; a proxy may have left the port out of that."""
    page, host = origin.partition("://")[2].lower(), host.lower()
    return page != "" and (page == host or (_without_port(host) == host == _without_port(page)))


def _flaw_of(scope: Scope) -> str:
    """Say why a path cannot mean what it seems to, empty where it can."""
    if _CONTROL.search(scope["path"]):
        return "the path holds a control character"  # routing would drop a final line feed: another id
    if "\ufffd" in scope["path"]:  # what every byte becomes that is none of UTF-8, unless it was sent itself
        try:
            unquote_to_bytes(scope.get("raw_path", b"")).decode()
        except UnicodeDecodeError:
            return "the path is not UTF-8"
    return ""


def _covers(pattern: str, host: str) -> bool:
    if pattern == "*":
        return True
    if pattern.startswith("*."):
        return host.endswith(pattern[1:].lower())
    return host == pattern.lower() or _same_address(pattern, host)


def _same_address(pattern: str, host: str) -> bool:
    try:
        return ipaddress.ip_address(pattern.strip("[]")) == ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return False


class Bodies:
    """Bounds the size of bodies (bulk streams are bounded by the line), and how long one may pause."""

    def __init__(self, app: ASGIApp, limits: Limits) -> None:
        self._app = app
        self._limits = limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        most = None if _STREAMED.fullmatch(scope["path"]) else self._limits.body_bytes
        declared = Headers(scope=scope).get("content-length", "")
        if most is not None and declared.isdecimal() and int(declared[:20]) > most:
            refusal = problems.problem(
                problems.TOO_LARGE, _too_large(most), scope["grapnel.request_id"], {"Connection": "close"}
            )
            await refusal(scope, receive, send)
            return
        await self._app(scope, self._reader(receive, most), send)

    def _reader(self, receive: Receive, most: int | None) -> Receive:
        size_bytes, complete = 0, False

        async def reading() -> Message:
            nonlocal size_bytes, complete
            if complete:
                return await receive()  # waits for the client to leave
            try:
                async with asyncio.timeout(self._limits.body_idle_s):
                    message = await receive()
            except TimeoutError as error:
                detail = f"no byte of the body came for {self._limits.body_idle_s:g} s"
                raise HTTPException(408, detail, {"Connection": "close"}) from error
            size_bytes += len(message.get("body", b""))
            if most is not None and size_bytes > most:
                raise HTTPException(413, _too_large(most), {"Connection": "close"})
            complete = not message.get("more_body", False)
            return message

        return reading


class Admission:
    """Refuses a search of a collection for which too many wait, before it is routed or anything of its body is read.

    Under overload most requests are refused: what a refusal costs is taken from those that are answered.
    """

    def __init__(self, app: ASGIApp, admit: Callable[[Principal, str], None]) -> None:
        self._app = app
        self._admit = admit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        search = _SEARCH.fullmatch(scope["path"]) if scope["type"] == "http" and scope["method"] == "POST" else None
        if search is not None:
            try:
                self._admit(scope["grapnel.principal"], search[2])
            except OverloadedError as error:
                scope["grapnel.route"] = f"{search[1]}{{collection}}{search[3]}"
                refusal = problems.problem(
                    problems.OVERLOADED,
                    str(error),
                    scope["grapnel.request_id"],
                    retry_after_s=error.retry_after_s,
                )
                await refusal(scope, receive, send)
                return
        await self._app(scope, receive, send)


def _too_large(most: int) -> str:
    return f"a body may have {most:,} bytes: send less at once, or use the bulk stream"
