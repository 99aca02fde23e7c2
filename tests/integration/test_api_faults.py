"""A server in trouble: a disk that is full or read-only, an end that is asked for, clients that leave or are too many.

What is refused says so with the documented status, what goes on goes on, and nothing acknowledged is lost.
"""

import itertools
import json
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
from command_line import grapnel

from retrieval.collection import Collection
from retrieval.types import Document

HERE = Path(__file__).parent
CHILD = HERE / "serving_child.py"
MODES = ("dense", "lexical", "hybrid")
C = "/v1/collections/c"
NDJSON = {"Content-Type": "application/x-ndjson"}
AT_MOST_S = 30.0
Until = Callable[[Callable[[], object], str], None]


def body_of(number: int, version: int = 0) -> dict[str, Any]:
    words = f"anchor w{number % 40} w{number % 7} version{version}"
    return {"text": words, "title": f"number {number}", "metadata": {"group": number % 5}}


def documents(start: int, stop: int, version: int = 0) -> list[dict[str, Any]]:
    return [{"id": f"d{number}", **body_of(number, version)} for number in range(start, stop)]


def lines(values: list[dict[str, Any]]) -> bytes:
    return b"".join(json.dumps(value).encode() + b"\n" for value in values)


def bulk(client: httpx.Client, values: list[dict[str, Any]]) -> httpx.Response:
    return client.post(f"{C}/bulk", content=lines(values), headers=NDJSON)


def refused(response: httpx.Response, status: int, kind: str) -> None:
    """Check that a response is a problem that names no file of the server."""
    assert (response.status_code, response.json()["type"]) == (status, f"grapnel:{kind}"), response.text
    assert "/data" not in response.text


def stored(client: httpx.Client, collection: str = C) -> dict[str, str]:
    """Return id -> text of everything that is stored."""
    found: dict[str, str] = {}
    after = ""
    while True:
        page = client.get(f"{collection}/documents", params={"limit": 500, "after": after}).raise_for_status().json()
        found |= {each["id"]: each["text"] for each in page["documents"]}
        if page["next"] is None:
            return found
        after = page["next"]


def search(client: httpx.Client, mode: str, **more: Any) -> httpx.Response:
    return client.post(f"{C}/search", json={"query": "anchor w3", "mode": mode, "k": 1000, "depth": 2000, **more})


def answers(client: httpx.Client) -> dict[str, list[tuple[str, float]]]:
    """Return every mode's hits; each must be answered."""
    found = {mode: search(client, mode).raise_for_status().json()["hits"] for mode in MODES}
    return {mode: [(hit["id"], hit["score"]) for hit in hits] for mode, hits in found.items()}


# -- a server whose disk and pace a test decides ------------------------------------------------------------------


class Control:
    """The other end of serving_child.py."""

    def __init__(self, path: Path, until: Until) -> None:
        self._path = path
        self._until = until

    def __call__(self, do: str, **more: Any) -> Any:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(self._path))
            connection.sendall(json.dumps({"do": do, **more}).encode() + b"\n")
            return json.loads(connection.makefile().readline())

    def await_held(self, count: int) -> None:
        self._until(lambda: self("held")["held"] == count, f"{count} calls that wait")


Controlled = Callable[..., tuple[Any, Control]]


@pytest.fixture
def controlled(start_server: Callable[..., Any], until: Until) -> Iterator[Controlled]:
    """Start servers with a collection `c` that listen to a Control. Takes limits, and more of the environment."""
    numbers = itertools.count()
    with tempfile.TemporaryDirectory(prefix="gr-") as folder:  # a socket's path may have 107 bytes

        def start(limits: Mapping[str, Any] | None = None, **environment: str) -> tuple[Any, Control]:
            path = Path(folder) / str(next(numbers))
            server = start_server(
                {"limits": limits or {}},
                command=[sys.executable, CHILD],
                environment={"GRAPNEL_TEST_CONTROL": str(path), "PYTHONPATH": str(HERE.parents[1]), **environment},
            )
            with server.client() as client:
                client.post("/v1/collections", json={"name": "c"}).raise_for_status()
            return server, Control(path, until)

        yield start


# -- the disk -----------------------------------------------------------------------------------------------------


def test_a_full_disk_refuses_writes_while_searches_go_on(controlled: Controlled, failing_disk: Path) -> None:
    server, control = controlled(LD_PRELOAD=str(failing_disk))
    with server.client() as client:
        client.post(f"{C}/documents", json={"documents": documents(0, 40)}).raise_for_status()
        client.post("/v1/collections", json={"name": "other"}).raise_for_status()
        before, found = stored(client), answers(client)
        writes: dict[str, Callable[[], httpx.Response]] = {
            "put": lambda: client.put(f"{C}/documents/new", json=body_of(1)),
            "replace": lambda: client.put(f"{C}/documents/d3", json=body_of(3, version=1)),
            "add": lambda: client.post(f"{C}/documents", json={"documents": documents(40, 60)}),
            "bulk": lambda: bulk(client, documents(60, 80)),
            "patch": lambda: client.patch(f"{C}/documents/d5", json={"metadata": {"group": 9}}),
            "delete": lambda: client.delete(f"{C}/documents/d7"),
            "delete many": lambda: client.post(f"{C}/documents/delete", json={"ids": ["d8", "d9"]}),
            "create": lambda: client.post("/v1/collections", json={"name": "more"}),
            "alias": lambda: client.put("/v1/aliases/also", json={"collection": "c"}),
        }
        control("arm", folder=str(server.data), kind="full", count=0)
        for _ in range(2):
            for name, write in writes.items():
                response = write()
                assert response.status_code == 507, f"{name}: {response.text}"
                refused(response, 507, "storage")
            assert (stored(client), answers(client)) == (before, found)
        assert client.get("/health/ready").status_code == 200
        for job in (f"{C}/compact", f"{C}/snapshots"):
            assert server.ended(client, client.post(job))["state"] == "failed"
        assert (stored(client), answers(client)) == (before, found)
        assert control("disarm")["spent"] > 0
        for name, write in writes.items():
            assert write().is_success, name
        after = stored(client)
        assert after.keys() == {*(f"d{number}" for number in range(80)), "new"} - {"d7", "d8", "d9"}
        for job in (f"{C}/compact", f"{C}/snapshots"):
            assert server.ended(client, client.post(job))["state"] == "done"
        assert {hit for hit, _ in answers(client)["hybrid"]} == after.keys()
        assert client.get("/v1/aliases").json()["aliases"] == {"also": "c"}
        assert_whole_batches(client, control, server.data)


def assert_whole_batches(client: httpx.Client, control: Control, data: Path) -> None:
    """Let the disk fill up within a stream: what came before is kept, in whole batches."""
    path = "/v1/collections/other"
    body = lines(documents(0, 4_000))
    control("arm", folder=str(data), kind="full", count=1_200_000)
    refused(client.post(f"{path}/bulk", content=body, headers=NDJSON), 507, "storage")
    kept = stored(client, path)
    assert 0 < len(kept) < 4_000
    assert kept.keys() == {f"d{number}" for number in range(len(kept))}
    control("disarm")
    report = client.post(f"{path}/bulk", content=body, headers=NDJSON).json()
    assert (report["added"], report["unchanged"]) == (4_000 - len(kept), len(kept))


def assert_only_read(client: httpx.Client) -> None:
    """Everything is answered that only reads; every write is refused as such."""
    assert client.get(C).json()["state"] == "read-only"
    assert len(stored(client)) == 40
    assert all(len(hits) == 40 for hits in answers(client).values())
    refused(client.put(f"{C}/documents/d3", json=body_of(3, version=1)), 503, "read-only")
    refused(client.post(f"{C}/documents", json={"documents": documents(40, 60)}), 503, "read-only")
    refused(bulk(client, documents(60, 80)), 503, "read-only")
    refused(client.patch(f"{C}/documents/d5", json={"metadata": {"group": 9}}), 503, "read-only")
    refused(client.delete(f"{C}/documents/d7"), 503, "read-only")
    refused(client.post(f"{C}/documents/delete", json={"filter": {"type": "exists", "key": "group"}}), 503, "read-only")
    assert len(stored(client)) == 40


def test_what_cannot_be_written_is_searched(start_server: Callable[..., Any]) -> None:
    """A collection that another process writes, then a disk that is mounted for reading alone."""
    server = start_server()
    with server.client() as client:
        client.post("/v1/collections", json={"name": "c"}).raise_for_status()
        client.post(f"{C}/documents", json={"documents": documents(0, 40)}).raise_for_status()
    assert server.stop() == 0
    with Collection.open(server.data / "c", writable=True) as writer:
        server.start()
        with server.client() as client:
            assert_only_read(client)
            writer.delete("d3")
            assert len(stored(client)) == 39
            assert all(len(hits) == 39 for hits in answers(client).values())
            client.post("/v1/collections", json={"name": "more"}).raise_for_status()
            client.put("/v1/collections/more/documents/x", json=body_of(1)).raise_for_status()
            writer.add([Document("d3", "anchor again")])
    assert server.stop() == 0
    data = str(server.data)
    for options in (["--bind", data, data], ["-o", "remount,ro,bind", data]):
        mounted = subprocess.run(["mount", *options], capture_output=True, text=True, check=False)
        if mounted.returncode:
            subprocess.run(["umount", data], capture_output=True, check=False)
            pytest.skip(f"the second half needs a mount: {mounted.stderr.strip()}")
    try:
        server.start()
        with server.client() as client:
            assert_only_read(client)
            refused(client.post("/v1/collections", json={"name": "even-more"}), 503, "read-only")
            refused(client.put("/v1/aliases/also", json={"collection": "c"}), 503, "read-only")
        assert server.stop() == 0
    finally:
        server.kill()
        subprocess.run(["umount", "-l", data], check=True)


# -- the end ------------------------------------------------------------------------------------------------------


def await_closed(server: Any, until: Until) -> None:
    """Wait until nobody can connect."""

    def closed() -> bool:
        try:
            server.connect().close()
        except ConnectionRefusedError:
            return True
        return False

    until(closed, "a closed port")


def test_sigterm_lets_requests_under_way_end(controlled: Controlled, until: Until) -> None:
    server, control = controlled()
    values = documents(0, 700)
    closed = threading.Event()

    def in_two_parts() -> Iterator[bytes]:
        yield lines(values[:350])
        assert closed.wait(AT_MOST_S)
        yield lines(values[350:])

    with ThreadPoolExecutor(2) as pool, server.client() as one, server.client() as two, server.client() as idle:
        idle.get("/health/live").raise_for_status()  # a connection that stays open
        control("hold", point="add.encoded")
        put = pool.submit(one.put, f"{C}/documents/held", json=body_of(1))
        control.await_held(1)
        stream = pool.submit(two.post, f"{C}/bulk", content=in_two_parts(), headers=NDJSON)
        until(lambda: 'grapnel_pending_calls{kind="write"} 1' in idle.get("/metrics").text, "a write under way")
        server.process.send_signal(signal.SIGTERM)
        await_closed(server, until)
        assert not put.done()
        control("release")
        closed.set()
        assert put.result().status_code == 201
        assert stream.result().json()["added"] == 700
    assert server.process.wait(AT_MOST_S) == 0
    server.start()
    with server.client() as client:
        assert stored(client).keys() == {"held", *(f"d{number}" for number in range(700))}


def test_a_server_that_cannot_start_ends_with_a_status(tmp_path: Path) -> None:
    """What restarts or watches servers would not know otherwise."""
    config = tmp_path / "server.toml"
    config.write_text(f'[encoders.default]\npath = "{tmp_path / "nowhere"}"\n', encoding="utf-8")
    ended = grapnel("serve", "--data", tmp_path, "--config", config, "--port", "0")
    assert ended.returncode == 2
    assert str(tmp_path / "nowhere") in ended.stderr.splitlines()[-1]


def test_what_takes_too_long_does_not_keep_a_server_from_ending(controlled: Controlled) -> None:
    """Two compactions, one asked for and one that began by itself, and a write, all of which stand still for ever."""
    server, control = controlled({"drain_s": 1.0})
    written = {each["id"]: each["text"] for each in documents(0, 1_100, version=1)}
    with server.client() as client, ThreadPoolExecutor(1) as pool:
        bulk(client, documents(0, 1_100)).raise_for_status()
        client.post("/v1/collections", json={"name": "asked"}).raise_for_status()
        control("hold", point="compact.before_publish")
        client.post("/v1/collections/asked/compact").raise_for_status()
        bulk(client, documents(0, 1_100, version=1)).raise_for_status()  # as many dead passages as living ones
        control("hold", point="add.encoded")
        put = pool.submit(client.put, f"{C}/documents/held", json=body_of(1))
        control.await_held(3)
        assert server.stop() == 0
        refused(put.result(), 503, "unavailable")
    server.start()
    with server.client() as client:
        assert stored(client) == written
        assert stored(client, "/v1/collections/asked") == {}
        assert server.ended(client, client.post(f"{C}/compact"))["state"] == "done"
        assert all(len(hits) == 1_000 for hits in answers(client).values())


# -- more than can be done ----------------------------------------------------------------------------------------


def metric(client: httpx.Client, name: str) -> float:
    """Return the value of a metric, summed over its labels other than `collection`, of collection c."""
    text = client.get("/metrics").raise_for_status().text
    return sum(float(value) for value in re.findall(rf'^{name}{{.*collection="c".*}} (\S+)$', text, re.MULTILINE))


def searches(count: int, **more: Any) -> dict[str, Any]:
    """Return a request of several searches; each asks for much, so that a batch of them takes a while."""
    one = {"collection": "c", "query": "anchor w1 w2", "k": 300, **more}
    return {"searches": [one] * count}


@pytest.fixture(scope="module")
def busy(start_server: Callable[..., Any]) -> Any:
    """A server with 1,000 documents and a short queue."""
    server = start_server({"limits": {"queue": 192}})
    with server.client() as client:
        client.post("/v1/collections", json={"name": "c"}).raise_for_status()
        bulk(client, documents(0, 1_000)).raise_for_status()
        server.ended(client, client.post(f"{C}/compact"))
    return server


def test_nothing_is_computed_for_clients_that_left(busy: Any, until: Until) -> None:
    """Two batches are ahead of theirs; when they have left, their searches are never run."""
    body = json.dumps(searches(4, k=3)).encode()
    head = (
        "POST /v1/search HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    with busy.client() as watching, ThreadPoolExecutor(2) as pool:
        done = metric(watching, "grapnel_searches_total")
        ahead = [pool.submit(ask_for_many, busy) for _ in range(2)]
        until(lambda: metric(watching, "grapnel_queued_searches") >= 64, "a batch that waits")
        with ExitStack() as leaving:
            for _ in range(20):
                leaving.enter_context(busy.connect()).sendall(head.encode() + body)
            until(lambda: metric(watching, "grapnel_queued_searches") >= 64 + 80, "80 searches behind it")
        assert all(each.result().status_code == 200 for each in ahead)
        until(lambda: metric(watching, "grapnel_queued_searches") == 0, "an empty queue")
        assert search(watching, "hybrid", k=3).status_code == 200
        assert metric(watching, "grapnel_searches_total") == done + 128 + 1


def ask_for_many(server: Any) -> httpx.Response:
    """Ask for a batch that takes a while."""
    with server.client() as client:
        return client.post("/v1/search", json=searches(64))


def test_a_burst_of_searches_is_refused_in_part_and_leaves_nothing_behind(busy: Any, until: Until) -> None:
    """Far more than may wait: what is not answered is refused at once, with a time to come back."""
    with busy.client() as client, ThreadPoolExecutor(48) as pool:
        statuses: Counter[int] = Counter()
        problems: list[dict[str, Any]] = []
        for _ in range(10):  # the machine may be so slow to send that all finds room
            before = pool.submit(ask_for_many, busy)
            burst = list(pool.map(lambda _: client.post("/v1/search", json=searches(8, k=3)), range(80)))
            results = [
                result for each in [before.result(), *burst] for result in each.raise_for_status().json()["results"]
            ]
            problems = [result["problem"] for result in results if "problem" in result]
            statuses.update(result.get("problem", {"status": 200})["status"] for result in results)
            if problems:
                break
        assert statuses.keys() == {200, 429}
        assert all(problem["retry_after_s"] > 0 for problem in problems)
        until(lambda: metric(client, "grapnel_queued_searches") == 0, "an empty queue")
        assert all(search(client, mode, k=3).status_code == 200 for mode in MODES * 5)


def test_a_burst_of_writes_is_refused_in_part_and_none_is_lost(controlled: Controlled, until: Until) -> None:
    """Four are at work, four may wait; the others are told to come back, and do."""
    server, control = controlled({"writes": 4})
    with server.client() as client, ThreadPoolExecutor(40) as pool:

        def put(number: int) -> httpx.Response:
            return client.put(f"{C}/documents/d{number}", json=body_of(number))

        control("hold", point="add.encoded")
        accepted = [pool.submit(put, number) for number in range(8)]
        until(lambda: 'grapnel_pending_calls{kind="write"} 8' in client.get("/metrics").text, "eight writes")
        responses = list(pool.map(put, range(8, 40)))
        for response in responses:
            refused(response, 429, "overloaded")
            assert int(response.headers["Retry-After"]) >= 1
        assert search(client, "hybrid").status_code == 200
        control("release")
        assert [each.result().status_code for each in accepted] == [201] * 8
        assert [put(number).status_code for number in range(8, 40)] == [201] * 32
        assert len(stored(client)) == 40


# -- time ---------------------------------------------------------------------------------------------------------


def memory_bytes(server: Any) -> int:
    """Return what the process holds in memory of its own, without files it has mapped."""
    text = Path(f"/proc/{server.process.pid}/status").read_text(encoding="ascii")
    found = re.search(r"^RssAnon:\s+(\d+) kB$", text, re.MULTILINE)
    assert found is not None
    return int(found[1]) << 10


class Soak:
    """Every kind of request, again and again, over documents that stay equally many."""

    def __init__(self, server: Any) -> None:
        self._server = server
        self._number = 0

    def rounds(self, count: int) -> int:
        """Do `count` rounds of about 25 requests from several threads, compact; return the memory held then."""
        with self._server.client() as client, ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda number: self._round(client, number), range(self._number, self._number + count)))
            self._number += count
            assert self._server.ended(client, client.post(f"{C}/compact"))["state"] == "done"
        return memory_bytes(self._server)

    @staticmethod
    def _round(client: httpx.Client, number: int) -> None:
        start = 37 * number % 900
        bulk(client, documents(start, start + 20, version=number)).raise_for_status()
        client.put(f"{C}/documents/d{start}", json=body_of(start, number)).raise_for_status()
        client.patch(f"{C}/documents/d{start + 1}", json={"metadata": {"group": number % 5}}).raise_for_status()
        client.delete(f"{C}/documents/d{start + 2}").raise_for_status()
        client.put(f"{C}/documents/d{start + 2}", json=body_of(start + 2, number)).raise_for_status()
        condition = {"type": "eq", "key": "group", "value": number % 5}
        for mode in MODES:
            search(client, mode, query=f"anchor w{number % 40} n{number}", k=10).raise_for_status()
            search(client, mode, k=10, filter=condition, explain=True).raise_for_status()
        client.post("/v1/search", json=searches(8, k=10)).raise_for_status()
        client.post(f"{C}/context", json={"query": "anchor w5"}).raise_for_status()
        client.get(f"{C}/documents", params={"limit": 100}).raise_for_status()
        assert client.get(f"{C}/documents/nobody-{number}").status_code == 404
        assert client.post(f"{C}/search", json={"query": "x", "k": 0}).status_code == 422
        client.get("/metrics").raise_for_status()


@pytest.fixture
def soak(start_server: Callable[..., Any]) -> Callable[..., Soak]:
    def begin(**environment: str) -> Soak:
        server = start_server(environment=environment)
        with server.client() as client:
            client.post("/v1/collections", json={"name": "c"}).raise_for_status()
            bulk(client, documents(0, 1_000)).raise_for_status()
        return Soak(server)

    return begin


def test_memory_does_not_grow(soak: Callable[..., Soak]) -> None:
    """In 600 requests: what batches, views or connections leave behind would show.

    With one arena, for malloc keeps much for each thread; 15 MiB that tantivy writes through come and go.
    """
    soaked = soak(MALLOC_ARENA_MAX="1")
    before = soaked.rounds(10)
    soaked.rounds(20)
    assert min(soaked.rounds(2) for _ in range(3)) - before < 24 << 20


@pytest.mark.slow
def test_memory_does_not_grow_in_ten_minutes(soak: Callable[..., Soak]) -> None:
    """As malloc is by default: what it keeps for each thread levels off within some thousand requests."""
    soaked = soak()
    soaked.rounds(400)
    held = []
    end = time.monotonic() + 600
    while time.monotonic() < end:
        held.append(soaked.rounds(50))
    half = len(held) // 2
    assert min(held[half:]) - min(held[:half]) < 12 << 20, [f"{each >> 20} MiB" for each in held]
