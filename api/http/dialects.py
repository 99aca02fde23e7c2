"""What the dialects of other servers share: members nobody reads, and errors in the shape their clients know."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple, TypeAlias

import orjson
from fastapi import APIRouter
from fastapi.routing import APIRoute
from pydantic import BaseModel, ConfigDict
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.http.answers import JSON
from api.http.deps import problems
from api.http.problems import MEDIA_TYPE

Problem: TypeAlias = Mapping[str, Any]
"""A problem as JSON values, see api.http.problems."""


class Lenient(BaseModel):
    """What clients of another server send.

    Members that mean nothing here are accepted and ignored; the others need their types, as in our own API.
    """

    model_config = ConfigDict(extra="ignore", allow_inf_nan=False, strict=True)


class Dialect(NamedTuple):
    """Routes of another server's API. error: a problem in the shape that its clients read."""

    router: APIRouter
    error: Callable[[Problem], dict[str, Any]]


def said(problem: Problem) -> str:
    """Return a problem as one sentence."""
    return str(problem.get("detail") or problem["title"])


def errors(model: type[BaseModel], *statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return the documentation of a dialect's errors: with the statuses of `problems`, in the shape of `model`."""
    return {status: {"model": model, "description": "Error"} for status in problems(*statuses)}


class Dialects:
    """Rewrites problems on a dialect's addresses, wherever they come from, into that dialect's errors.

    Outermost, so that it sees those of other middleware, too. Status, Retry-After and request id stay. Clients that
    accept problems by name get them as they are: our own knows no dialect.
    """

    def __init__(self, app: ASGIApp, dialects: Sequence[Dialect]) -> None:
        self._app = app
        self._errors: Final = [
            (route.path_regex, dialect.error)
            for dialect in dialects
            for route in dialect.router.routes
            if isinstance(route, APIRoute)
        ]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http" or MEDIA_TYPE in Headers(scope=scope).get("accept", ""):
            await self._app(scope, receive, send)
            return
        error = next((error for regex, error in self._errors if regex.match(scope["path"])), None)
        await self._app(scope, receive, send if error is None else _Translation(send, error))


class _Translation:
    """Sends an answer on; a problem is held until it is complete, and sent in its other shape."""

    def __init__(self, send: Send, error: Callable[[Problem], dict[str, Any]]) -> None:
        self._send = send
        self._error = error
        self._start: Message | None = None
        self._body = bytearray()

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start" and Headers(raw=message["headers"]).get("content-type") == (
            MEDIA_TYPE
        ):
            self._start = message
            return
        if self._start is None:
            await self._send(message)
            return
        self._body += message.get("body", b"")
        if message.get("more_body", False):
            return
        body = orjson.dumps(self._error(orjson.loads(self._body)))
        headers = MutableHeaders(raw=list(self._start["headers"]))
        headers["content-type"] = JSON
        headers["content-length"] = str(len(body))
        await self._send({**self._start, "headers": headers.raw})
        await self._send({"type": "http.response.body", "body": body})
