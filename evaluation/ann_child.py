"""One build, or one series of searches, in a process of its own: `python -m evaluation.ann_child TASK.json`.

The parent (evaluation.ann_arm) sets the number of threads in the environment, so that every library finds it before it
is loaded. Results go to files beside the task:

    build     {"task": "build", "library", "kind", "metric", "storage", "params", "recall", "base", "folder", "threads"}
              -> result.json
    search    {"task": "search", "entries": [{"library", "metric", "folder", "settings": [...]}], "base", "queries",
               "k", "repeats", "timed", "threads"}
              -> S settings of all entries in order; timed > 0, so many queries one by one: rows.npy int64 (S, Q, k),
                 seconds.npy float64 (S, repeats, timed), result.json {"distances": [per query or null]};
                 timed = 0, all queries in one call: seconds.npy float64 (S, repeats, 1)
"""

import gc
import json
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from evaluation.ann_rivals import Settings, open_rival
from evaluation.vector_files import read_vectors, vector_blocks
from index.ann import AnnIndex
from index.ann_build import write_index
from index.ann_format import read_about
from index.errors import ConfigError
from index.faiss_library import load_faiss
from index.flat import FlatIndex
from index.metric import Metric
from index.spec import IndexParams, IndexSpec
from index.types import Effort, Rows, Vectors

OURS = "grapnel"

_BATCH = 256


class System(Protocol):
    """What is searched: ours or a rival."""

    def search(self, queries: Vectors, k: int, settings: Settings) -> Rows:
        """Return int64 (Q, k), padded with -1."""
        ...


class Ours:
    """An index that `write_index` wrote, exact or approximate."""

    def __init__(self, folder: Path, metric: Metric) -> None:
        about = read_about(folder)
        exact = about is None or about.kind == "flat"
        self._index = FlatIndex.open(folder, metric) if exact else AnnIndex.open(folder, metric)

    def search(self, queries: Vectors, k: int, settings: Settings) -> Rows:
        """See System. settings: nprobe, ef, refine; what is absent is as calibrated when the index was built."""
        effort = Effort(**{name: int(value) for name, value in settings.items()}) if settings else None
        return self._index.search(queries, k, effort=effort).rows

    def distances(self, queries: Vectors, k: int, settings: Settings) -> float | None:
        """Return how many vectors are compared with a query on average, None where faiss does not count them.

        Candidates that are scored again exactly come on top. Only meaningful while nothing else searches.
        """
        if isinstance(self._index, FlatIndex):
            return float(len(self._index))
        statistics = [load_faiss().cvar.hnsw_stats, load_faiss().cvar.indexIVF_stats]
        for each in statistics:
            each.reset()
        self.search(queries, k, settings)
        compared = sum(int(each.ndis) for each in statistics)
        return compared / len(queries) if compared else None


def peak_bytes() -> int:
    """Return the most memory this process has had resident since it was started."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmHWM:"):
            return 1024 * int(line.split()[1])
    raise ConfigError("/proc/self/status has no VmHWM: peak memory is measured on Linux only")


def build(task: Mapping[str, Any], out: Path) -> None:
    """Build an index and say what that took. Calibration of ours is part of it."""
    base, folder = Path(task["base"]), Path(task["folder"])
    vectors: Vectors = read_vectors(base)
    params = IndexParams(**task["params"])
    folder.mkdir(parents=True)
    about: dict[str, Any] | None = None
    if task["library"] == OURS:
        spec = IndexSpec(task["kind"], task["metric"], task["storage"], task["recall"], params=params)
        before_bytes, start = peak_bytes(), time.perf_counter()
        about = asdict(write_index(folder, vector_blocks(base), vectors.shape[1], len(vectors), spec))
        seconds = time.perf_counter() - start
    else:
        rival = open_rival(task["library"])
        before_bytes, start = peak_bytes(), time.perf_counter()
        rival.build(vectors, task["metric"], params, task["threads"])
        rival.save(folder)
        seconds = time.perf_counter() - start
    size_bytes = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    result = {
        "seconds": seconds,
        "peak_bytes": peak_bytes(),
        "before_bytes": before_bytes,
        "size_bytes": size_bytes,
        "about": about,
    }
    (out / "result.json").write_text(json.dumps(result), encoding="utf-8")


def search(task: Mapping[str, Any], out: Path) -> None:
    """Search with every setting of every index: rows once, times in interleaved rounds."""
    queries: Vectors = np.array(read_vectors(task["queries"]))
    k, timed = int(task["k"]), int(task["timed"])
    shape: tuple[int, int] = read_vectors(task["base"]).shape
    runs = [
        (system, settings)
        for entry in task["entries"]
        for system in [_opened(entry, shape, task["threads"])]
        for settings in entry["settings"]
    ]
    if timed:
        np.save(out / "rows.npy", np.stack([_batched(system, queries, k, settings) for system, settings in runs]))
        counted = [system.distances(queries, k, each) if isinstance(system, Ours) else None for system, each in runs]
        (out / "result.json").write_text(json.dumps({"distances": counted}), encoding="utf-8")
    gc.collect()
    gc.disable()  # a collection in the middle of a search would be its 99.9th percentile
    asked = [queries[number : number + 1] for number in range(min(timed, len(queries)))] if timed else [queries]
    calls = [_timed(system, asked, k, settings) for system, settings in runs]
    np.save(out / "seconds.npy", rounds(calls, int(task["repeats"])))


def rounds(calls: Sequence[Callable[[], list[float]]], repeats: int) -> npt.NDArray[np.float64]:
    """Return what each call gives in each of `repeats` rounds, (calls, repeats, values), after one round unrecorded.

    Each round begins with another call, so that drift of a shared machine hits all alike.
    """
    for call in calls:
        call()
    spent: list[list[list[float]]] = [[] for _ in calls]
    for turn in range(repeats):
        for place in range(len(calls)):
            number = (place + turn) % len(calls)
            spent[number].append(calls[number]())
    return np.array(spent)


def _opened(entry: Mapping[str, Any], shape: tuple[int, int], threads: int) -> System:
    if entry["library"] == OURS:
        return Ours(Path(entry["folder"]), entry["metric"])
    rival = open_rival(entry["library"])
    rival.open(Path(entry["folder"]), entry["metric"], shape, threads)
    return rival


def _batched(system: System, queries: Vectors, k: int, settings: Settings) -> Rows:
    return np.concatenate(
        [system.search(queries[start : start + _BATCH], k, settings) for start in range(0, len(queries), _BATCH)]
    )


def _timed(system: System, asked: Sequence[Vectors], k: int, settings: Settings) -> Callable[[], list[float]]:
    """Return a call that searches each batch of queries in turn and gives the seconds of each."""

    def once() -> list[float]:
        spent = []
        for queries in asked:
            start = time.perf_counter()
            system.search(queries, k, settings)
            spent.append(time.perf_counter() - start)
        return spent

    return once


def main() -> None:
    """Do what the task file says."""
    path = Path(sys.argv[1])
    task = json.loads(path.read_text(encoding="utf-8"))
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, cores[: task["threads"]])
    {"build": build, "search": search}[task["task"]](task, path.parent)


if __name__ == "__main__":
    main()
