"""The service while it is written to: a bulk stream, when a write can be found, and a long run under mixed load.

    python tests/bench/bench_serve_writes.py [--arms=bulk,visible,soak] [--documents=100000] [--soak-s=600]

bulk: wikispeedia passages as one NDJSON stream into an empty collection (hashing encoder and BM25: how fast a model
encodes is measured elsewhere), with the server's memory all the while, and a client that searches.
visible: single documents into the demo collection, each followed by a hybrid search that must find it; 200 times.
soak: hybrid searches at half the capacity while one client replaces and deletes documents, and memory a minute.
Needs the demo collection (`make demo`) and, for the stream, wikispeedia.
"""

import contextlib
import gzip
import itertools
import json
import shutil
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from report import DATA, machine, save
from serve_server import (
    CLIENTS,
    COLLECTION,
    FOLDER,
    Server,
    bodies,
    check_data,
    free_port,
    load,
    options,
    ours,
    root_of,
)
from speed_rounds import say, table

from api.client import Document, Grapnel

WRITES = 200
MIB = 2**20


class Memory:
    """A server's resident memory, looked at all the while: (seconds since the start, bytes)."""

    def __init__(self, server: Server) -> None:
        self.samples: list[tuple[float, int]] = []
        self._server = server
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> "Memory":
        self._thread.start()
        return self

    def __exit__(self, *raised: object) -> None:
        self._end.set()
        self._thread.join()

    def _watch(self) -> None:
        begin = time.monotonic()
        while not self._end.wait(0.25):
            self.samples.append((time.monotonic() - begin, self._server.memory_bytes()))

    def parts(self, count: int) -> list[float]:
        """Peak MiB of each of so many equal stretches of time."""
        return [max(part) / MIB for part in np.array_split([size for _, size in self.samples], count)]


@contextlib.contextmanager
def meanwhile(work: Callable[[], None]) -> Iterator[list[float]]:
    """Call `work` again and again on a thread; yields the list that its milliseconds go to."""
    end, spent = threading.Event(), []

    def run() -> None:
        while not end.is_set():
            begin = time.perf_counter()
            work()
            spent.append(1000 * (time.perf_counter() - begin))

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield spent
    finally:
        end.set()
        thread.join()


def passages(count: int) -> Iterator[Document]:
    with gzip.open(DATA / "wikispeedia/passages.jsonl.gz", "rt", encoding="utf-8") as file:
        for number, line in zip(range(count), file, strict=False):
            value = json.loads(line)
            yield Document(value["_id"], value["text"], value["title"], {"number": number})


def bulk(count: int) -> dict[str, Any]:
    root = FOLDER / "bulk"
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir()
    config = FOLDER / "bulk.toml"
    config.write_text('[encoders.default]\nkind = "hashing"\ndim = 512\n[rerankers]\n')
    port = free_port()
    command = [sys.executable, "-m", "api.cli", "serve", "--data", str(root), "--port", str(port)]
    server = Server("bulk", [*command, "--config", str(config)], port, "/health/ready")
    try:
        with Grapnel(f"http://127.0.0.1:{port}") as client, Grapnel(f"http://127.0.0.1:{port}") as other:
            client.create_collection("bulk")
            target, seen = client.collection("bulk"), other.collection("bulk")
            before = server.memory_bytes()
            with Memory(server) as memory, meanwhile(lambda: seen.search("history of the city", k=10)) as searches:
                begin = time.perf_counter()
                report = target.upsert(passages(count))
                seconds = time.perf_counter() - begin
            assert (report.added, report.failed) == (count, 0), report
            assert target.count() == count
            for document in itertools.islice(passages(count), 0, None, 5_003):
                assert target.get(document.id).document == document
            with Memory(server) as compacting:
                begin = time.perf_counter()
                target.compact()
                compaction = time.perf_counter() - begin
    finally:
        status = server.stop()
        assert status == 0, f"the server ended with status {status}"
    result = {
        "documents": count,
        "seconds": seconds,
        "per_s": count / seconds,
        "before_mib": before / MIB,
        "peak_mib_of_tenths": memory.parts(10),
        "searches_meanwhile": len(searches),
        "search_p50_ms": statistics.median(searches),
        "compaction_s": compaction,
        "compaction_peak_mib": max(compacting.parts(1)),
    }
    print(json.dumps(result, indent=1))
    return result


def visible() -> dict[str, Any]:
    server = ours("visible", "auto")
    spent: dict[str, list[float]] = {"write": [], "write and find": []}
    try:
        with Grapnel(f"http://127.0.0.1:{server.port}") as client:
            target = client.collection(COLLECTION)
            for number in range(WRITES + 10):
                text = f"How to tie the knot that sailors call number{number}x and what it holds"
                begin = time.perf_counter()
                target.put(Document(f"new-{number}", text))
                written = time.perf_counter()
                found = target.search(f"sailors' knot number{number}x", k=1, mode="hybrid")
                end = time.perf_counter()
                assert found.hits[0].id == f"new-{number}", found
                if number >= 10:
                    spent["write"].append(1000 * (written - begin))
                    spent["write and find"].append(1000 * (end - begin))
            target.delete_many([f"new-{number}" for number in range(WRITES + 10)])
    finally:
        server.stop()
    result = {
        name: {f"p{q}": float(np.percentile(values, q)) for q in (25, 50, 75, 99)} for name, values in spent.items()
    }
    rows = [(name, *(f"{value:.1f}" for value in each.values())) for name, each in result.items()]
    print(table(("ms, upsert to visible", "p25", "p50", "p75", "p99"), rows))
    return result


def soak(seconds: float) -> dict[str, Any]:
    shutil.rmtree(root_of("soak", "auto"))
    server = ours("soak", "auto")
    number = 0
    minutes = max(2, round(seconds / 60))
    try:
        with Grapnel(f"http://127.0.0.1:{server.port}") as client:
            target = client.collection(COLLECTION)

            def write() -> None:
                nonlocal number
                number += 1
                target.put(Document(f"soak-{number % 500}", f"A passage about subject {number} and nothing else"))
                if number % 5 == 0:
                    target.delete_many([f"soak-{(number + 250) % 500}"])
                time.sleep(0.1)

            load(server, 5.0, clients=CLIENTS)
            capacity = load(server, 5.0, clients=CLIENTS)["per_s"]
            say(f"soak: {capacity / 2:.0f} searches a second for {seconds:g} s")
            with Memory(server) as memory, meanwhile(write) as writes:
                result = load(server, seconds, clients=512, rate=capacity / 2)
            summary = client.collection(COLLECTION).describe()
    finally:
        status = server.stop()
        assert status == 0, f"the server ended with status {status}"
    shown = {
        "capacity": capacity,
        "searches": result,
        "writes": len(writes),
        "write_p50_ms": statistics.median(writes) - 100,
        "peak_mib_of_minutes": memory.parts(minutes),
        "generation": summary.generation,
        "fresh_passages": summary.fresh_passages,
    }
    print(json.dumps(shown, indent=1))
    return shown


def main() -> None:
    given = options("arms", "documents", "soak-s")
    check_data()
    bodies("hybrid")
    arms: dict[str, Callable[[], dict[str, Any]]] = {
        "bulk": lambda: bulk(int(given.get("documents", 100_000))),
        "visible": visible,
        "soak": lambda: soak(float(given.get("soak-s", 600))),
    }
    for name in given.get("arms", ",".join(arms)).split(","):
        save("serve", name, arms[name]())
    print(machine())


if __name__ == "__main__":
    main()
