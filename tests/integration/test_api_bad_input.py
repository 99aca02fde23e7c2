"""What no well-behaved client sends, byte by byte: each is refused as documented, and the server goes on."""

import contextlib
import itertools
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import httpx
import pytest

LIMITS = {
    "k": 10,
    "depth": 50,
    "searches": 3,
    "documents": 4,
    "ids": 5,
    "texts": 3,
    "text_chars": 400,
    "body_bytes": 300_000,
    "line_bytes": 10_000,
    "header_bytes": 8_192,
    "timeout_s": 5.0,
    "body_idle_s": 0.4,
    "drain_s": 5.0,
}
NUMBERS = itertools.count()


class Answer(NamedTuple):
    """What came back. closed: whether the server ended the connection after it."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def problem(self) -> dict[str, Any]:
        assert self.headers["content-type"] == "application/problem+json", self.body
        value: dict[str, Any] = json.loads(self.body)
        assert value["status"] == self.status
        assert value["request_id"] == self.headers["x-request-id"]
        return value


class Wire:
    """A connection on which any bytes can be sent, and answers read one by one."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._left = b""

    def send(self, *parts: bytes) -> None:
        for part in parts:
            # A server that has refused need not read to the end.
            with contextlib.suppress(ConnectionError):
                self._socket.sendall(part)

    def request(self, head: str, body: bytes = b"", *headers: str) -> None:
        lines = [head, "Host: localhost", *headers]
        if body:
            lines += [f"Content-Length: {len(body)}", "Content-Type: application/json"]
        self.send("\r\n".join([*lines, "", ""]).encode("latin-1") + body)

    def answer(self) -> Answer:
        while b"\r\n\r\n" not in self._left:
            self._read()
        head, _, self._left = self._left.partition(b"\r\n\r\n")
        status, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
        size = int(headers.get("content-length", "0"))
        while len(self._left) < size:
            self._read()
        body, self._left = self._left[:size], self._left[size:]
        return Answer(int(status.split()[1]), headers, body)

    def _read(self) -> None:
        received = self._socket.recv(65_536)
        assert received, f"the connection ended within an answer, after {self._left!r}"
        self._left += received

    def ended(self) -> bool:
        """Wait for the server to close the connection; return whether it said nothing more."""
        try:
            return self._left == b"" and self._socket.recv(1) == b""
        except ConnectionResetError:
            return True

    def finish_sending(self) -> None:
        self._socket.shutdown(socket.SHUT_WR)


@pytest.fixture(scope="module")
def server(start_server: Callable[..., Any]) -> Any:
    return start_server({"limits": LIMITS})


@pytest.fixture(scope="module")
def client(server: Any) -> Iterator[httpx.Client]:
    with server.client() as client:
        client.post("/v1/collections", json={"name": "c"}).raise_for_status()
        client.put("/v1/collections/c/documents/a", json={"text": "an otter"}).raise_for_status()
        yield client


@pytest.fixture
def wire(server: Any, client: httpx.Client) -> Iterator[Wire]:
    """A new connection. Afterwards the server must answer others, have met no defect and leak no connection."""
    with server.connect() as connection:
        yield Wire(connection)
    body = {"query": "otter", "k": 1}
    assert client.post("/v1/collections/c/search", json=body).json()["hits"][0]["id"] == "a"
    assert server.defects() == []


SEARCH = "POST /v1/collections/c/search HTTP/1.1"
CHUNKED = (
    b"POST /v1/search HTTP/1.1\r\nHost: localhost\r\n"
    b"Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
)
PUT = "PUT /v1/collections/c/documents/bad HTTP/1.1"
GOOD = b'{"query": "otter"}'


def still_good(wire: Wire) -> None:
    """Check that the connection itself can be used on."""
    wire.request(SEARCH, GOOD)
    assert wire.answer().status == 200


# -- bodies ----------------------------------------------------------------------------------------------------------

BAD_JSON = {
    "nothing": b" ",
    "cut off": b'{"query": "ott',
    "words": b"otter",
    "single quotes": b"{'query': 'otter'}",
    "two values": b'{"query": "otter"} {}',
    "a trailing comma": b'{"query": "otter",}',
    "a comment": b'{"query": "otter"} // yes',
    "NaN": b'{"query": "otter", "min_score": NaN}',
    "Infinity": b'{"query": "otter", "min_score": -Infinity}',
    "5,000 digits": b'{"query": "otter", "k": ' + b"9" * 5_000 + b"}",
    "5,000 digits in a filter": b'{"query": "otter", "filter": {"type": "eq", "key": "a", "value": '
    + b"1" * 5_000
    + b"}}",
    "100,000 lists": b"[" * 100_000,
    "40,000 objects": b'{"a":' * 40_000 + b"1" + b"}" * 40_000,
    "UTF-16": '{"query": "otter"}'.encode("utf-16"),
    "latin-1": '{"query": "l\u00f6we"}'.encode("latin-1"),
    "a byte order mark": b"\xef\xbb\xbf" + GOOD,
    "a raw control character": b'{"query": "ot\nter"}',
    "overlong UTF-8": b'{"query": "\xc0\xaf"}',
    "a surrogate in UTF-8": b'{"query": "\xed\xa0\x80"}',
}


@pytest.mark.parametrize("name", BAD_JSON)
def test_what_is_no_json_is_a_bad_request(wire: Wire, name: str) -> None:
    for head in (SEARCH, PUT, "POST /v1/search HTTP/1.1", "POST /v1/collections HTTP/1.1"):
        wire.request(head, BAD_JSON[name])
        answer = wire.answer()
        assert answer.status == 400, answer
        assert answer.problem["type"] == "grapnel:bad-request"
        assert "otter" not in answer.problem.get("detail", ""), "what was sent is not sent back"
    still_good(wire)


BAD_VALUES = {
    "null": b"null",
    "a list": b"[]",
    "a string": b'"otter"',
    "a number": b"7",
    "a boolean": b"true",
    "a number for a text": b'{"query": 7}',
    "an object for a text": b'{"query": {"$gt": ""}}',
    "a text for a number": b'{"query": "otter", "k": "10"}',
    "a boolean for a number": b'{"query": "otter", "k": true}',
    "a fraction": b'{"query": "otter", "k": 1.5}',
    "an extreme float": b'{"query": "otter", "min_score": 1e999}',
    "400 digits": b'{"query": "otter", "k": ' + b"9" * 400 + b"}",
    "4,300 digits": b'{"query": "otter", "k": 1, "offset": ' + b"9" * 4_300 + b"}",
    "400 digits for a float": b'{"query": "otter", "min_score": ' + b"9" * 400 + b"}",
    "400 digits for a time": b'{"query": "otter", "timeout_ms": 1' + b"0" * 400 + b"}",
    "a negative number": b'{"query": "otter", "k": -1}',
    "an unknown member": b'{"query": "otter", "K": 1}',
    "an unknown surrogate": b'{"query": "otter", "\\ud800": 1}',
    "a lone surrogate": b'{"query": "\\ud800"}',
    "a NUL in a field": b'{"query": "otter", "mode": "den\\u0000se"}',
    "a vector of texts": b'{"vectors": {"dense": ["a"]}}',
    "a vector of nothing": b'{"vectors": {"dense": []}}',
    "a vector of null": b'{"vectors": {"dense": [null]}}',
    "a vector beyond float32": b'{"vectors": {"dense": [1e300]}}',
    "a filter with a Mongo operator": b'{"query": "otter", "filter": {"$where": "sleep(1000)"}}',
    "a filter of many levels": b'{"query": "otter", "filter": '
    + b'{"type": "not", "filter": ' * 200
    + b"{}"
    + b"}" * 201,
}


@pytest.mark.parametrize("name", BAD_VALUES)
def test_values_that_make_no_sense_are_invalid(wire: Wire, name: str) -> None:
    wire.request(SEARCH, BAD_VALUES[name])
    answer = wire.answer()
    assert answer.status == 422, answer
    assert answer.problem["type"] == "grapnel:invalid"
    still_good(wire)


BAD_DOCUMENTS = {
    "nothing to search": b"{}",
    "white space": b'{"text": " \\n\\t"}',
    "a lone surrogate in the text": b'{"text": "\\ud800"}',
    "a lone surrogate in the title": b'{"title": "\\udfff"}',
    "a lone surrogate in the metadata": b'{"text": "x", "metadata": {"a": ["\\ud800"]}}',
    "a lone surrogate in a key": b'{"text": "x", "metadata": {"\\ud800": 1}}',
    "an integer beyond 64 bits": b'{"text": "x", "metadata": {"a": 9223372036854775808}}',
    "infinity": b'{"text": "x", "metadata": {"a": 1e999}}',
    "20 levels": b'{"text": "x", "metadata": ' + b'{"a":' * 20 + b"1" + b"}" * 21,
    "900 levels": b'{"text": "x", "metadata": {"a": ' + b"[" * 900 + b"]" * 900 + b"}}",
    "a list as metadata": b'{"text": "x", "metadata": []}',
    "null as text": b'{"text": null}',
    "a vector of an unknown field": b'{"text": "x", "vectors": {"nothing": [1]}}',
    "a vector of a field that encodes": b'{"text": "x", "vectors": {"dense": [1]}}',
    "a vector of a lone surrogate": b'{"text": "x", "vectors": {"\\ud800": [1]}}',
    "an id beside the path": b'{"id": "other", "text": "x"}',
    "a large title": b'{"title": "' + b"x" * 70_000 + b'"}',
}


@pytest.mark.parametrize("name", BAD_DOCUMENTS)
def test_documents_that_cannot_be_stored_are_invalid(wire: Wire, client: httpx.Client, name: str) -> None:
    wire.request(PUT, BAD_DOCUMENTS[name])
    answer = wire.answer()
    assert answer.status == 422, answer
    assert answer.problem["type"] == "grapnel:invalid"
    assert client.get("/v1/collections/c/documents/bad").status_code == 404
    still_good(wire)


GOOD_TEXTS = {
    "a NUL": "a\0b",
    "emoji": "\U0001f9a6" * 50,
    "right to left": "\u202e\u05d0\u05d1",
    "combining": "e\u0301" * 100,
    "non-characters": "\ufffe\uffff\U0010ffff",
    "controls": "".join(map(chr, range(1, 32))) + "x",
    "a noun": "Zo\u00eb \u0130\u0131 \u1e9e\u00df",
}


@pytest.mark.parametrize("name", GOOD_TEXTS)
def test_every_valid_text_comes_back_as_it_was_and_can_be_searched_for(wire: Wire, name: str) -> None:
    text = GOOD_TEXTS[name]
    path = f"/v1/collections/c/documents/t{next(NUMBERS)}"
    document = {"text": text, "title": text, "metadata": {"k" + text: text}}
    wire.request(f"PUT {path} HTTP/1.1", json.dumps(document).encode())
    assert wire.answer().status == 201
    wire.request(f"GET {path} HTTP/1.1")
    found = json.loads(wire.answer().body)
    assert {key: found[key] for key in document} == document
    condition = {"type": "eq", "key": "k" + text, "value": text}
    wire.request(SEARCH, json.dumps({"query": text, "filter": condition, "mode": "dense"}).encode())
    (hit,) = json.loads(wire.answer().body)["hits"]
    assert hit["passage"]["text"] == text
    wire.request(f"DELETE {path} HTTP/1.1")
    assert wire.answer().status == 204


def test_bodies_of_another_type_are_refused(wire: Wire) -> None:
    for kind in ("text/plain", "application/xml", "application/jsonx", "json", "application/x-ndjson", "\u00ff"):
        head = f"{SEARCH}\r\nHost: localhost\r\nContent-Type: {kind}\r\nContent-Length: {len(GOOD)}\r\n\r\n"
        wire.send(head.encode("latin-1") + GOOD)
        assert wire.answer().problem["type"] == "grapnel:unsupported-media-type"
    for kind in ("application/json; charset=utf-8", "APPLICATION/JSON", "application/vnd.api+json"):
        wire.send(
            f"{SEARCH}\r\nHost: localhost\r\nContent-Type: {kind}\r\nContent-Length: {len(GOOD)}\r\n\r\n".encode()
            + GOOD
        )
        assert wire.answer().status == 200, kind
    wire.request(SEARCH)
    assert wire.answer().status == 415, "no body has no type"
    still_good(wire)


# -- limits ----------------------------------------------------------------------------------------------------------


def limit_cases() -> dict[str, tuple[str, Any]]:
    search = "/v1/collections/c/search"
    documents = "/v1/collections/c/documents"
    many = [{"id": f"d{n}", "text": "x"} for n in range(5)]
    return {
        "k": (search, {"query": "x", "k": 11}),
        "offset": (search, {"query": "x", "k": 10, "offset": 41}),
        "depth": (search, {"query": "x", "depth": 51}),
        "rerank depth": (search, {"query": "x", "rerank": {"model": "similarity", "depth": 11}}),
        "query characters": (search, {"query": "x" * 401}),
        "exclude": (search, {"query": "x", "exclude": ["a"] * 3 + list("bcdef")}),
        "timeout": (search, {"query": "x", "timeout_ms": 5_001}),
        "searches": ("/v1/search", {"searches": [{"collection": "c", "query": "x"}] * 4}),
        "documents": (documents, {"documents": many}),
        "ids to get": (f"{documents}/get", {"ids": list("abcdef")}),
        "ids to delete": (f"{documents}/delete", {"ids": list("abcdef")}),
        "page": (f"{documents}/list", {"limit": 11}),
        "context k": ("/v1/collections/c/context", {"query": "x", "k": 11}),
        "context query": ("/v1/collections/c/context", {"query": "x" * 401}),
        "context budget": ("/v1/collections/c/context", {"query": "x", "budget_tokens": 1_000_001}),
        "filter values": (search, {"query": "x", "filter": {"type": "in", "key": "a", "value": [0] * 1_025}}),
        "filter nodes": (
            search,
            {"query": "x", "filter": {"type": "or", "filters": [{"type": "exists", "key": "a"}] * 256}},
        ),
        "filter key": (search, {"query": "x", "filter": {"type": "exists", "key": "k" * 1_025}}),
        "texts to embed": ("/v1/embeddings", {"model": "default", "input": ["x"] * 4}),
        "text to embed": ("/v1/embeddings", {"model": "default", "input": "x" * 401}),
        "texts to rerank": ("/v1/rerank", {"model": "similarity", "query": "x", "documents": ["x"] * 4}),
        "text to rerank": ("/v1/rerank", {"model": "similarity", "query": "x", "documents": ["x" * 401]}),
    }


@pytest.mark.parametrize("name", limit_cases())
def test_every_limit_holds(wire: Wire, client: httpx.Client, name: str) -> None:
    path, body = limit_cases()[name]
    before = client.get("/v1/collections/c").json()["operation"]
    wire.request(f"POST {path} HTTP/1.1", json.dumps(body).encode())
    answer = wire.answer()
    assert answer.status in {400, 422}, answer
    assert client.get("/v1/collections/c").json()["operation"] == before
    still_good(wire)


def test_the_largest_that_is_allowed_is_answered(wire: Wire) -> None:
    body = {"query": "o" * 400, "k": 10, "offset": 40, "depth": 50, "timeout_ms": 5_000, "snippet_chars": 10_000}
    wire.request(SEARCH, json.dumps(body).encode())
    assert wire.answer().status == 200
    wire.request(SEARCH, json.dumps({"query": "x", "exclude": [str(n) for n in range(5)]}).encode())
    assert wire.answer().status == 200


def test_what_is_left_out_fits_the_limits(wire: Wire) -> None:
    wire.request(SEARCH, b'{"query": "otter", "rerank": {"model": "similarity"}}')
    answer = wire.answer()
    assert (answer.status, json.loads(answer.body)["hits"][0]["stage"]) == (200, "similarity")
    for path, body in (("context", {"query": "otter"}), ("documents/list", {})):
        wire.request(f"POST /v1/collections/c/{path} HTTP/1.1", json.dumps(body).encode())
        assert wire.answer().status == 200


def test_a_body_that_says_it_is_too_large_is_refused_unread(wire: Wire) -> None:
    wire.send(f"{PUT}\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 300001\r\n\r\n".encode())
    answer = wire.answer()
    assert answer.problem["type"] == "grapnel:too-large"
    assert "300,000" in answer.problem["detail"]
    assert answer.headers["connection"] == "close"
    assert wire.ended()


def test_a_body_that_says_it_is_endless_is_refused(wire: Wire) -> None:
    wire.send(
        f"{PUT}\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {'9' * 18}\r\n\r\n".encode()
    )
    assert wire.answer().status == 413
    assert wire.ended()


@pytest.mark.parametrize("head", [SEARCH, PUT, "POST /v1/collections/c/documents HTTP/1.1"])
def test_a_chunked_body_beyond_the_limit_is_refused(wire: Wire, head: str) -> None:
    wire.send(
        f"{head}\r\nHost: localhost\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
    )
    wire.send(b"2710\r\n" + b" " * 10_000 + b"\r\n", *[b"2710\r\n" + b" " * 10_000 + b"\r\n" for _ in range(30)])
    answer = wire.answer()
    assert answer.problem["type"] == "grapnel:too-large"
    assert answer.headers["connection"] == "close"
    assert wire.ended()


BULK = (
    b"POST /v1/collections/c/bulk HTTP/1.1\r\nHost: localhost\r\n"
    b"Content-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n"
)


def chunk(content: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(content), content)


def test_a_bulk_stream_may_be_longer_than_a_body_but_its_lines_may_not(wire: Wire, client: httpx.Client) -> None:
    line = json.dumps({"id": "same", "text": "x" * 5_000}).encode() + b"\n"
    wire.send(BULK, *[chunk(line * 10) for _ in range(8)])
    wire.send(chunk(b'{"id": "after", "text": "y"}\n'), chunk(b" " * 10_001))
    answer = wire.answer()
    assert answer.problem["type"] == "grapnel:too-large"
    assert "line 82" in answer.problem["detail"]
    assert "lines before it are stored" in answer.problem["detail"]
    assert client.get("/v1/collections/c/documents/after").status_code == 200, "as it said"
    assert wire.ended()
    client.post("/v1/collections/c/documents/delete", json={"ids": ["same", "after"]}).raise_for_status()


# -- heads -----------------------------------------------------------------------------------------------------------


def test_a_giant_head_is_refused_however_it_comes(server: Any, wire: Wire) -> None:
    giant = b"X-Large: " + b"x" * 12_000 + b"\r\n"
    many = b"".join(b"x-%d: y\r\n" % number for number in range(1_000))
    address = b"GET /v1/collections?q=" + b"x" * 9_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n"
    start = b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n"
    for content in (start + giant + b"\r\n", start + many + b"\r\n", address, start + giant, b"GET /" + b"x" * 300_000):
        for step in (len(content), 1_000):
            with server.connect() as connection:
                other = Wire(connection)
                other.send(*(content[at : at + step] for at in range(0, len(content), step)))
                answer = other.answer()
                assert answer.status == 431, (content[:40], step)
                assert answer.problem["type"] == "grapnel:too-large"
                assert answer.headers["connection"] == "close"
                assert other.ended()
    wire.send(start + b"X: " + b"y" * 8_000 + b"\r\n\r\n")
    assert wire.answer().status == 200, "just below the limit"


def test_slow_heads_are_ended(server: Any, wire: Wire) -> None:
    wire.send(b"GET /health/live HT")
    answer = wire.answer()
    assert answer.problem["type"] == "grapnel:timeout"
    assert answer.status == 408
    assert wire.ended()
    with server.connect() as connection:
        drip = Wire(connection)
        for byte in b"GET /health/live HTTP/1.1\r\nHost: localhost\r\nX-Slow: yes, very slow":
            drip.send(bytes([byte]))
            time.sleep(0.02)
        assert drip.answer().status == 408
        assert drip.ended()


def test_idle_connections_are_closed_without_a_word(server: Any, wire: Wire) -> None:
    assert wire.ended(), "nothing came at all"
    with server.connect() as connection:
        blank = Wire(connection)
        blank.send(b"\r\n")
        assert blank.ended(), "a blank line is no request"
    with server.connect() as connection:
        used = Wire(connection)
        used.request("GET /health/live HTTP/1.1")
        assert used.answer().status == 200
        used.send(b"\r\n")  # takes uvicorn's keep-alive timer away
        assert used.ended()


@pytest.mark.parametrize("head", [SEARCH, PUT])
def test_a_body_that_stops_coming_is_ended(wire: Wire, head: str) -> None:
    wire.send(
        f"{head}\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 18\r\n\r\n".encode() + GOOD[:5]
    )
    answer = wire.answer()
    assert answer.problem["type"] == "grapnel:timeout"
    assert answer.headers["connection"] == "close"
    assert wire.ended()


def test_a_bulk_stream_that_stops_coming_keeps_its_lines(wire: Wire, client: httpx.Client) -> None:
    wire.send(BULK, chunk(b'{"id": "slow", "text": "kept"}\n{"id": "half'))
    assert wire.answer().problem["type"] == "grapnel:timeout"
    assert wire.ended()
    assert client.get("/v1/collections/c/documents/slow").json()["text"] == "kept"
    client.delete("/v1/collections/c/documents/slow").raise_for_status()


def test_a_body_that_nobody_read_does_not_hold_the_connection(wire: Wire) -> None:
    wire.send(b"POST /nothing HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n\r\n")
    assert wire.answer().status == 404
    wire.send(b"x")
    assert wire.ended()


# -- the protocol ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content",
    [
        b"hello\r\n\r\n",
        b"GET\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # TLS on a plain port
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /\xff\xfe HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost localhost\r\n\r\n",
        b"GET / HTTP/1.1\r\nX: a\x00b\r\n\r\n",
        b"GET / HTTP/1.1\r\n X: folded\r\n\r\n",
        b"POST /v1/search HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"POST /v1/search HTTP/1.1\r\nContent-Length: many\r\n\r\n",
        b"POST /v1/search HTTP/1.1\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        b"POST /v1/search HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST /v1/search HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: gzip, chunked, gzip\r\n\r\n",
        CHUNKED + b"zz\r\n",
        CHUNKED + b"5\r\nhelloworld\r\n",
        b"CONNECT example.org:443 HTTP/1.1\r\nHost: example.org\r\n\r\n",
    ],
)
def test_what_is_no_http_is_refused_and_ended(wire: Wire, content: bytes) -> None:
    wire.send(content)
    wire.finish_sending()
    answer = wire.answer()
    assert answer.status in {400, 403}, answer
    assert answer.problem["type"] in {"grapnel:bad-request", "grapnel:forbidden"}
    assert wire.ended()


def test_http_1_0_is_answered_and_ended(wire: Wire) -> None:
    wire.request("GET /health/live HTTP/1.0")
    answer = wire.answer()
    assert (answer.status, json.loads(answer.body)) == (200, {"status": "live"})
    assert wire.ended()


def test_http_1_0_without_a_host_is_not_trusted(wire: Wire) -> None:
    wire.send(b"GET /v1/collections HTTP/1.0\r\n\r\n")
    assert wire.answer().status == 403
    assert wire.ended()


def test_pipelined_requests_are_answered_in_order(wire: Wire) -> None:
    heads = [SEARCH, "GET /health/live HTTP/1.1", "GET /nothing HTTP/1.1", "GET /v1/collections/c HTTP/1.1"] * 5
    content = b""
    for head in heads:
        body = GOOD if head == SEARCH else b""
        kind = f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n" if body else ""
        content += f"{head}\r\nHost: localhost\r\n{kind}\r\n".encode() + body
    wire.send(content)
    assert [wire.answer().status for _ in heads] == [200, 200, 404, 200] * 5
    still_good(wire)


def test_a_pipelined_request_that_is_bad_does_not_take_the_answer_before_it(wire: Wire) -> None:
    good = (
        f"{SEARCH}\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(GOOD)}\r\n\r\n".encode()
    )
    wire.send(good + GOOD + b"GET / HTTP/1.1\r\nX: " + b"x" * 9_000 + b"\r\n\r\n")
    answer = wire.answer()
    assert answer.status == 200
    assert json.loads(answer.body)["hits"]
    assert wire.ended()


def test_a_client_that_expects_to_continue_is_told_to(wire: Wire) -> None:
    wire.request(SEARCH, b"", "Content-Type: application/json", f"Content-Length: {len(GOOD)}", "Expect: 100-continue")
    assert wire.answer().status == 100
    wire.send(GOOD)
    assert wire.answer().status == 200
    wire.request(PUT, b"", "Content-Type: application/json", "Content-Length: 900000", "Expect: 100-continue")
    assert wire.answer().status == 413, "it need not send what will be refused"


def test_upgrades_are_not_made(wire: Wire) -> None:
    wire.request(
        "GET /health/live HTTP/1.1",
        b"",
        "Connection: Upgrade",
        "Upgrade: websocket",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    )
    assert wire.answer().status == 200


@pytest.mark.parametrize(
    ("target", "status"),
    [
        ("/v1/nothing", 404),
        ("/v1/collections/nothing/search", 405),
        ("/%2e%2e/%2e%2e/etc/passwd", 404),
        ("/web/../../../etc/passwd", 404),
        ("/web/%2e%2e%2fapp.py", 404),
        ("/web/..%5capp.py", 404),
        ("/v1/collections/..%2f..%2fetc", 404),
        ("/v1/collections/C", 422),
        ("/v1/collections/" + "x" * 65, 422),
        ("/v1/collections/a%00b", 400),
        ("/v1/collections/a%0d%0aX-Injected:%20yes", 400),
        ("/v1/collections/c/documents/%ff", 400),
        ("/v1/collections/c/documents/" + "x" * 513, 422),
        ("/v1/collections/c/documents/" + "%C3%A9" * 300, 404),
        ("/v1/collections/c/documents/", 422),
        ("/v1/collections/c/documents?limit=1e3", 422),
        ("/v1/collections/c/documents?limit=" + "9" * 5_000, 422),
        ("/v1/collections/c/documents?limit=-1", 422),
        ("/v1/collections/c/documents?after=%00%ff", 422),
        ("/v1/collections/c/documents?limit=1&limit=x", 422),
        ("/v1/jobs/" + "x" * 81, 422),
        ("http://localhost/health/live", 200),
        ("http://evil.example/health/live", 200),  # the Host header counts
        ("//evil.example/health/live", 404),
    ],
)
def test_odd_addresses(wire: Wire, target: str, status: int) -> None:
    wire.request(f"GET {target} HTTP/1.1")
    answer = wire.answer()
    assert answer.status == status, answer
    assert "x-injected" not in answer.headers
    if status >= 400:
        assert answer.problem["title"]


@pytest.mark.parametrize("value", ["", "x" * 65, "a b", "a\tb", "\u00e9", "<script>", "a,b", "'"])
def test_a_request_id_that_is_not_plain_is_not_used(wire: Wire, value: str) -> None:
    wire.request("GET /nothing HTTP/1.1", b"", f"X-Request-Id: {value}")
    answer = wire.answer()
    assert answer.problem["request_id"] != value
    assert answer.headers["x-request-id"].isalnum()


# -- many at once ----------------------------------------------------------------------------------------------------


def test_connections_that_say_nothing_keep_nobody_out(server: Any, wire: Wire) -> None:
    with contextlib.ExitStack() as stack:
        for number in range(200):
            connection = stack.enter_context(server.connect())
            if number % 2:
                connection.sendall(f"{PUT}\r\nHost: localhost\r\nContent-Length: 9\r\n".encode())
        still_good(wire)


def test_clients_that_leave_are_no_defects(server: Any, wire: Wire) -> None:
    body = json.dumps({"query": "otter " * 60, "k": 20}).encode()
    head = (
        f"{SEARCH}\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    )

    def leave() -> None:
        for cut in (len(head) // 2, len(head), len(head) + 5, len(head) + len(body)):
            with server.connect() as connection:
                connection.sendall((head + body)[:cut])
        with server.connect() as connection:
            connection.sendall(BULK + chunk(b'{"id": "half'))

    threads = [threading.Thread(target=leave) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    still_good(wire)
