"""HTTP/1.1 connections with bounds that uvicorn's own lack: on the head of a request, in bytes and in time."""

import asyncio
import uuid
from typing import Any, Final

import orjson
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from api.http.problems import BAD_REQUEST, HEAD_TOO_LARGE, MEDIA_TYPE, TIMEOUT, Kind, problem_value
from api.server_config import Limits

_LINE_BYTES: Final = len(": \r\n")


class BoundedProtocol(HttpToolsProtocol):
    """uvicorn's protocol, which counts bytes and time until the headers of a request are complete.

    limits: `header_bytes` of a head, `body_idle_s` for it to arrive. A connection on which nothing is asked is closed
    after uvicorn's keep-alive time, or after `body_idle_s` where its client sends what is no request: blank lines, the
    rest of a body that nobody read.
    """

    limits = Limits()

    _head_bytes = 0
    _in_head = False
    _in_message = False
    _arrived_bytes = 0
    _ending = False
    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """Begin to wait for the first request."""
        super().connection_made(transport)
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop waiting."""
        self._stop_waiting()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take bytes. A request whose head is longer than allowed is refused, and its connection closed."""
        if self._ending:
            return
        if self._in_head:
            self._head_bytes += len(data)
        self._arrived_bytes = 0 if self._in_message else len(data)
        super().data_received(data)
        if self._in_head and self._head_bytes > self.limits.header_bytes:
            self._end(HEAD_TOO_LARGE)
        elif self._is_idle():  # what came took uvicorn's keep-alive timer away, and may be no request
            self._await_head()

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002  uvicorn's text, which says no more than ours
        """Refuse what is no HTTP."""
        self._end(BAD_REQUEST)

    def on_message_begin(self) -> None:
        """Begin a request."""
        super().on_message_begin()
        self._in_message = self._in_head = True
        # If all that arrived belongs to this head; what follows other things in one piece is counted at its end.
        self._head_bytes, self._arrived_bytes = self._arrived_bytes, 0
        self._await_head()

    def on_headers_complete(self) -> None:
        """Go on to the body, which the application bounds."""
        self._in_head = False
        self._stop_waiting()
        if self._ending:
            return
        head_bytes = len(self.url) + sum(len(name) + len(value) + _LINE_BYTES for name, value in self.headers)
        if head_bytes > self.limits.header_bytes:
            self._end(HEAD_TOO_LARGE)
        else:
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Take a part of a body, unless its request was refused."""
        if not self._ending:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """End a request, unless it was refused."""
        self._in_message = False
        if not self._ending:
            super().on_message_complete()

    def _is_idle(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def _await_head(self) -> None:
        if self._timer is None:
            self._timer = self.loop.call_later(self.limits.body_idle_s, self._late)

    def _late(self) -> None:
        self._timer = None
        self._end(TIMEOUT if self._in_head else None)

    def _stop_waiting(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _end(self, kind: Kind | None) -> None:
        """Take nothing more and close, after an answer of `kind` where none is under way."""
        self._ending = True
        if not self._is_idle() and not self.cycle.more_body:
            self.cycle.keep_alive = False  # what came before is answered first; its answer ends the connection
            return
        if not self.transport.is_closing():
            answering = self.pipeline or (not self._is_idle() and self.cycle.response_started)
            if kind is not None and not answering:
                self.transport.write(_answer(kind))
            self.transport.close()


def _answer(kind: Kind) -> bytes:
    request_id = uuid.uuid4().hex
    body = orjson.dumps(problem_value(kind, "", request_id))
    headers = (
        f"connection: close\r\ncontent-type: {MEDIA_TYPE}\r\ncontent-length: {len(body)}\r\n"
        f"x-request-id: {request_id}\r\n\r\n"
    )
    return STATUS_LINE[kind.status] + headers.encode() + body


def bounded_protocol(limits: Limits) -> type[BoundedProtocol]:
    """Return the protocol with these limits, as uvicorn wants it: a class."""
    return type("BoundedProtocol", (BoundedProtocol,), {"limits": limits})
