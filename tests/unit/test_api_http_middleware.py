"""What surrounds a request, around small applications that do what no route should."""

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.http.deps import ClientGoneError
from api.http.metrics import Metrics
from api.http.middleware import Access, Bodies, Requests, is_public
from api.http.protocol import bounded_protocol
from api.keys import Keys
from api.logs import TextLines
from api.server_config import Limits, ServerConfig
from api.service import Service
from retrieval.encoders import EncoderConfig

LIMITS = Limits(body_bytes=10, body_idle_s=0.05)


@pytest.fixture
def metrics(tmp_path: Path) -> Iterator[Metrics]:
    config = ServerConfig(encoders={"default": EncoderConfig(kind="hashing", dim=8)}, rerankers={})
    service = Service(tmp_path, config)
    yield Metrics(service)
    service.close(1.0)


async def run(
    app: ASGIApp, *messages: Message, path: str = "/v1/x", headers: dict[str, str] | None = None
) -> list[Message]:
    """Send a request through an application; return what it sends. After `messages` nothing more comes."""
    waiting = list(messages)
    sent: list[Message] = []

    async def receive() -> Message:
        if not waiting:
            await never()
        return waiting.pop(0)

    async def send(message: Message) -> None:
        sent.append(message)

    listed = [(name.encode(), value.encode("latin-1")) for name, value in (headers or {}).items()]
    scope = {"type": "http", "method": "POST", "path": path, "raw_path": path.encode(), "headers": listed}
    await app({**scope, "grapnel.request_id": "r"}, receive, send)
    return sent


async def never() -> None:
    await asyncio.Event().wait()


def body(content: bytes, *, more: bool = False) -> Message:
    return {"type": "http.request", "body": content, "more_body": more}


def raising(error: BaseException, *, started: bool = False) -> ASGIApp:
    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        if started:
            await send({"type": "http.response.start", "status": 200, "headers": []})
        raise error

    return app


# -- identity and last handler ---------------------------------------------------------------------------------------


async def test_a_defect_is_logged_and_answered_without_a_word_of_it(
    metrics: Metrics, caplog: pytest.LogCaptureFixture
) -> None:
    start, content = await run(Requests(raising(KeyError("a secret")), metrics, 500.0))
    assert start["status"] == 500
    assert b"secret" not in content["body"]
    problem = json.loads(content["body"])
    assert problem["type"] == "grapnel:internal"
    assert (b"x-request-id", problem["request_id"].encode()) in start["headers"]
    record = next(record for record in caplog.records if record.message == "internal error")
    assert record.exc_info is not None
    assert record.request_id == problem["request_id"]  # type: ignore[attr-defined]
    assert b'status="500"' in metrics.text()


async def test_a_defect_within_an_answer_sends_no_second_one(
    metrics: Metrics, caplog: pytest.LogCaptureFixture
) -> None:
    sent = await run(Requests(raising(KeyError("late"), started=True), metrics, 500.0))
    assert [message["type"] for message in sent] == ["http.response.start"]
    assert any(record.message == "internal error" for record in caplog.records)


@pytest.mark.parametrize("error", [ClientDisconnect(), ClientGoneError("gone")])
async def test_a_client_that_left_is_no_defect(
    metrics: Metrics, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    assert await run(Requests(raising(error), metrics, 500.0)) == []
    assert not any(record.exc_info for record in caplog.records)
    assert b'status="499"' in metrics.text()


async def test_headers_that_an_answer_has_are_left_as_they_are(metrics: Metrics) -> None:
    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"cache-control", b"no-cache")]})

    (start,) = await run(Requests(app, metrics, 500.0), headers={"x-request-id": "mine"})
    assert [value for name, value in start["headers"] if name == b"cache-control"] == [b"no-cache"]
    assert (b"x-request-id", b"mine") in start["headers"]
    assert (b"x-content-type-options", b"nosniff") in start["headers"]


# -- access -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "public"),
    [
        ("/", True),
        ("/web/app.js", True),
        ("/health/live", True),
        ("/openapi.json", True),
        ("/web/", False),
        ("/web/a/b", False),
        ("/\n", False),
        ("", False),
        ("//", False),
        ("/health/live/", False),
        ("/metrics", False),
        ("/v1/models", False),
        ("/openapi_json", False),
    ],
)
def test_what_is_public_is_listed_and_matched_whole(path: str, public: bool) -> None:
    assert is_public(path) is public


async def reached(_scope: Scope, _receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})


async def status(app: ASGIApp, **options: Any) -> int:
    return int((await run(app, **options))[0]["status"])


@pytest.mark.parametrize(
    ("pattern", "host", "covered"),
    [
        ("localhost", "localhost", True),
        ("localhost", "LocalHost:8080", True),
        ("localhost", "localhost:", False),
        ("localhost", "localhost:port", False),
        ("localhost", "localhost:80:80", False),
        ("[::1]", "[0:0::1]:8080", True),
        ("[::1]", "::1", False),
        ("127.0.0.1", "127.0.0.1", True),
        ("127.0.0.1", "127.1", False),
        ("127.0.0.1", "2130706433", False),
        ("*.example.com", "a.example.com", True),
        ("*.example.com", "example.com", False),
        ("*.example.com", "aexample.com", False),
        ("*", "anything", True),
        ("*", "", True),
    ],
)
async def test_host_names(pattern: str, host: str, covered: bool) -> None:
    app = Access(reached, Keys([]), [pattern])
    assert await status(app, headers={"host": host}) == (200 if covered else 403)


# -- bodies -----------------------------------------------------------------------------------------------------------


def reading(check: Callable[[bytes], None]) -> ASGIApp:
    async def app(_scope: Scope, receive: Receive, send: Send) -> None:
        content, more = b"", True
        while more:
            message = await receive()
            content += message["body"]
            more = message["more_body"]
        check(content)
        await send({"type": "http.response.start", "status": 200, "headers": []})

    return app


async def refusal(call: Awaitable[Any]) -> int:
    with pytest.raises(HTTPException) as refused:
        await call
    assert refused.value.headers == {"Connection": "close"}
    return refused.value.status_code


async def test_a_body_may_be_as_large_as_the_limit_and_no_larger() -> None:
    seen: list[bytes] = []
    app = Bodies(reading(seen.append), LIMITS)
    await run(app, body(b"01234", more=True), body(b"56789"))
    assert seen == [b"0123456789"]
    assert await refusal(run(app, body(b"01234", more=True), body(b"567890"))) == 413
    assert await refusal(run(app, body(b"", more=True), body(b"x" * 11, more=True))) == 413


@pytest.mark.parametrize("declared", ["11", "9" * 30, "99999999999999999999999999999999999999999"])
async def test_a_body_that_says_it_is_larger_is_not_read(declared: str) -> None:
    app = Bodies(raising(AssertionError("it was asked")), LIMITS)
    start, content = await run(app, headers={"content-length": declared})
    assert start["status"] == 413
    assert (b"connection", b"close") in start["headers"]
    assert json.loads(content["body"])["type"] == "grapnel:too-large"


async def test_a_bulk_stream_has_no_limit_as_a_whole_but_on_its_pauses() -> None:
    seen: list[bytes] = []
    app = Bodies(reading(seen.append), LIMITS)
    path = "/v1/collections/c/bulk"
    await run(app, body(b"x" * 100, more=True), body(b"y"), path=path, headers={"content-length": "101"})
    assert len(seen[0]) == 101
    assert await refusal(run(app, body(b"x", more=True), path=path)) == 408


async def test_the_wait_for_a_client_to_leave_is_no_pause_of_its_body() -> None:
    async def app(_scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        assert (await receive())["type"] == "http.disconnect"
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def slow() -> Message:
        if not messages:
            await asyncio.sleep(3 * LIMITS.body_idle_s)
            return {"type": "http.disconnect"}
        return messages.pop()

    messages = [body(b"x")]
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    await Bodies(app, LIMITS)({"type": "http", "path": "/v1/x", "headers": []}, slow, send)
    assert sent[0]["status"] == 200


def test_each_server_has_limits_of_its_own() -> None:
    small, large = bounded_protocol(Limits(header_bytes=1_000)), bounded_protocol(Limits())
    assert small.limits.header_bytes == 1_000
    assert large.limits.header_bytes == Limits().header_bytes


def test_a_line_of_text_is_one_line_that_no_terminal_obeys() -> None:
    record = logging.makeLogRecord({"msg": "request", "levelname": "INFO", "path": "/\x1b]0;x\x07\x9b2J\r\n\u2028é"})
    line = TextLines().format(record)
    assert line.endswith("info request path=/ ]0;x  2J  \u2028é")
