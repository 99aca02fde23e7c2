"""One build or one search measurement in a process of its own: a task as JSON in, a result as JSON out.

    python tests/bench/ann_child.py '{"task": "build", "who": "ours", "kind": "hnsw", ...}'

The parent sets the number of threads in the environment before this process imports anything.
"""

import gc
import json
import shutil
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import ann_rivals as rivals
import numpy as np
from ann_truth import Truth
from speed_rounds import ROUNDS, fitting, interleaved, memory, ratio, say
from speed_vectors import read_blocks

from index.ann import AnnIndex
from index.ann_build import write_index
from index.spec import IndexParams, IndexSpec

BATCH = 1_000
SLOW_BATCH = 100
SLOW_S = 1.0
"""A batch of 100 that takes longer stands for one of 1,000: ten times the queries take a scan ten times as long."""

ENOUGH = 0.998

Effort = dict[str, int]


@contextmanager
def watching() -> Iterator[dict[str, int]]:
    """Sample this process's anonymous memory, which mapped files do not count for, twenty times a second."""
    seen = {"anonymous_bytes": 0}
    stop = threading.Event()

    def watch() -> None:
        while not stop.wait(0.05):
            seen["anonymous_bytes"] = max(seen["anonymous_bytes"], memory()["anonymous_bytes"])

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield seen
    finally:
        stop.set()
        thread.join()


def build(task: dict[str, Any]) -> dict[str, Any]:
    folder, base = Path(task["folder"]), Path(task["base"])
    count, dim = np.load(base, mmap_mode="r").shape
    before, about = memory()["rss_bytes"], None
    with watching() as seen:
        if task["who"] == "ours":
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            spec = IndexSpec(kind=task["kind"], recall=task["recall"], memory_gb=task.get("memory_gb"))
            start = time.perf_counter()
            about = write_index(folder, read_blocks(base), dim, count, spec)
            seconds = time.perf_counter() - start
            files = {path.name: path.stat().st_size for path in sorted(folder.iterdir())}
        else:
            target = Path(task["target"])
            params = IndexParams(**task["params"])
            if task["who"] == "faiss":
                seconds = rivals.build_faiss(base, task["kind"], params, count, dim, target)
            elif task["who"] == "hnswlib":
                seconds = rivals.build_hnswlib(base, params, count, dim, target)
            else:
                seconds = rivals.build_usearch(base, params, dim, target)
            files = {target.name: target.stat().st_size}
    result = {
        "seconds": seconds,
        "files": files,
        "bytes": sum(files.values()),
        "before_bytes": before,
        "peak_rss_bytes": memory()["peak_rss_bytes"],
        "peak_anonymous_bytes": seen["anonymous_bytes"],
    }
    if about is not None:
        defaults = {str(k): rivals.default_effort(about, k) if about.calibrated else {} for k in (10, 100)}
        result["about"] = {**asdict(about), "default": defaults}
    return result


def opened(task: dict[str, Any], threads: int) -> tuple[dict[str, rivals.Rival], dict[str, Any]]:
    """Open what the task names; the memory of opening the first of them is measured."""
    folder = Path(task["folder"])
    before = memory()
    start = time.perf_counter()
    result: dict[str, rivals.Rival] = {}
    if task["who"] == "ours":
        ours = rivals.Ours(folder)
        result["ours"] = ours
    elif task["who"] == "hnswlib":
        result["hnswlib"] = rivals.Hnswlib(Path(task["target"]), task["dim"], threads)
    else:
        result["usearch"] = rivals.Usearch(Path(task["target"]), threads)
    open_s = time.perf_counter() - start
    after = memory()
    figures = {
        "open_s": open_s,
        "open_rss_bytes": after["rss_bytes"] - before["rss_bytes"],
        "open_anonymous_bytes": after["anonymous_bytes"] - before["anonymous_bytes"],
    }
    return result, figures


def add_plain(systems: dict[str, rivals.Rival], task: dict[str, Any]) -> None:
    ours = systems["ours"].index
    if isinstance(ours, AnnIndex):
        systems["bare"] = rivals.Faiss.bare(ours)
        systems["plain"] = rivals.Faiss.in_memory(Path(task["folder"]), ours.about.kind, ours._exchange)
    else:
        systems["plain"] = rivals.Faiss.in_memory(Path(task["folder"]), "flat", None)


def sweep(task: dict[str, Any]) -> dict[str, Any]:
    """Recall of every effort, then times of those worth knowing, rivals interleaved."""
    threads, truth = int(task["threads"]), Truth(Path(task["truth"]))
    systems, figures = opened(task, threads)
    first = next(iter(systems))
    for number in range(min(100, len(truth.queries))):
        systems[first].search(truth.queries[number : number + 1], 10, task["efforts"][0])
    figures["searched_rss_bytes"] = memory()["rss_bytes"]
    if first == "ours":
        add_plain(systems, task)
    gc.collect()
    rows: list[dict[str, Any]] = []
    for effort in task["efforts"]:
        if threads > 1:
            rows.append(batched(systems, truth, effort))
        elif not any(enough(row, effort, f"{first}@10") for row in rows[1:]):
            rows.append(single(systems, truth, effort, task))
    return {**figures, "rows": rows, "queries": len(truth.queries)}


def enough(row: dict[str, Any], effort: Effort, name: str) -> bool:
    """Whether a smaller effort of the same refining already finds everything: more of it would only take longer."""
    return row["recall"][name]["recall"] >= ENOUGH and row["effort"].get("refine") == effort.get("refine")


def quality(
    systems: dict[str, rivals.Rival], truth: Truth, effort: Effort, asked: int, deep: Effort | None = None
) -> dict[str, Any]:
    """Recall@10 and @100, each of a search for as many; @10 of the plain rivals as well, which must agree.

    deep: effort of the search for 100, where it is another one.
    """
    result: dict[str, Any] = {}
    for name, system in systems.items():
        for k in (10, 100) if name in {"ours", "hnswlib", "usearch"} else (10,):
            ids = np.concatenate(
                [
                    system.search(truth.queries[start : start + 100], k, deep if deep and k == 100 else effort)
                    for start in range(0, asked, 100)
                ]
            )
            result[f"{name}@{k}"] = truth.recall(system.rows(ids), k)
    return result


def single(systems: dict[str, rivals.Rival], truth: Truth, effort: Effort, task: dict[str, Any]) -> dict[str, Any]:
    """One query at a time, one thread, k = 10."""
    queries = [truth.queries[number : number + 1] for number in range(len(truth.queries))]
    calls = {
        name: (lambda number, search=system.search: search(queries[number], 10, effort))
        for name, system in systems.items()
    }
    first = next(iter(systems))
    count = fitting(calls[first], len(queries), task["round_s"])
    # As many queries for recall as a minute answers; all of them unless every vector is scanned.
    asked = max(100, min(len(queries), count * 40) // 100 * 100)
    deep = task.get("deep") if effort == task["efforts"][0] else None
    recall = quality(systems, truth, effort, asked, deep)
    row: dict[str, Any] = {"effort": effort, "recall": recall}
    if recall[f"{first}@10"]["recall"] < task["least"]:
        return row
    times = interleaved(calls, count, ROUNDS)
    say(f"{task.get('kind', first)} {effort}: {recall[f'{first}@10']['recall']:.3f}, {times[first]['p50']:.3f} ms")
    hundred = interleaved(
        {first: lambda number: systems[first].search(queries[number], 100, deep or effort)}, max(10, count // 4), 1
    )
    ratios = {name: ratio(times[first], times[name]) for name in times if name != first}
    return {**row, "ms": times, "ms_100": hundred[first], "ratio": ratios}


def batched(systems: dict[str, rivals.Rival], truth: Truth, effort: Effort) -> dict[str, Any]:
    """1,000 queries a call, all threads, k = 10; queries per second."""
    first = next(iter(systems))
    start = time.perf_counter()
    systems[first].search(truth.queries[:SLOW_BATCH], 10, effort)
    size = SLOW_BATCH if time.perf_counter() - start > SLOW_S else min(BATCH, len(truth.queries))
    parts = [truth.queries[at : at + size] for at in range(0, len(truth.queries) - size + 1, size)][:2]
    calls = {
        name: (lambda number, search=system.search: search(parts[number], 10, effort))
        for name, system in systems.items()
    }
    times = interleaved(calls, len(parts), ROUNDS, warm=1)
    rates = {name: 1000 * size / value["p50"] for name, value in times.items()}
    ratios = {name: ratio(times[first], times[name]) for name in times if name != first}
    return {"effort": effort, "batch": size, "ms": times, "per_s": rates, "ratio": ratios}


def duel(task: dict[str, Any]) -> dict[str, Any]:
    """The best of each, opened together and interleaved: who is fastest at the same recall, at the same time."""
    truth = Truth(Path(task["truth"]))
    queries = [truth.queries[number : number + 1] for number in range(len(truth.queries))]
    calls, recall = {}, {}
    for entry in task["entries"]:
        systems, _ = opened(entry, 1)
        system, effort = next(iter(systems.values())), entry["effort"]
        calls[entry["name"]] = lambda number, search=system.search, effort=effort: search(queries[number], 10, effort)
        recall[entry["name"]] = quality(systems, truth, effort, len(queries) // 100 * 100)
    slowest = max(calls.values(), key=lambda call: 1 / fitting(call, len(queries), task["round_s"]))
    times = interleaved(calls, fitting(slowest, len(queries), task["round_s"]), 2 * ROUNDS - 1)
    return {"ms": times, "recall": recall}


def main() -> None:
    task = json.loads(sys.argv[1])
    result = {"build": build, "sweep": sweep, "duel": duel}[task["task"]](task)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
