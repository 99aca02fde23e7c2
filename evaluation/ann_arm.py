"""The ANN arm: what approximate search costs a task in utility, and saves in time, memory and bytes.

    report = run_arm(ArmTask(documents, queries, "cosine", utility), configurations(len(documents), k=10), folder)
    utility_knee(report)

Every build runs in a process of its own; all searches of one thread count share a process, and take turns in rounds.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from evaluation.ann_child import OURS
from evaluation.ann_configurations import Configuration
from evaluation.ann_results import ArmReport, Build, Point, Timing
from evaluation.ann_rivals import require
from evaluation.ground_truth import kept_truth, truth_key
from evaluation.machine import describe_machine
from evaluation.recall import exact_scores, id_recall, inverse_ratio, tied_recall
from evaluation.utility import Utility
from evaluation.vector_files import write_vectors
from index.choose import resolve
from index.durable import make_folders
from index.errors import ConfigError, GrapnelError, RequestError, ShapeError
from index.metric import METRICS, Metric, check_vectors, prepare
from index.spec import IndexSpec
from index.threads import VARIABLE
from index.types import Rows, Vectors

LEAST_REPEATS = 7

_BASE, _QUERIES = "base.npy", "queries.npy"

_THREAD_VARIABLES = (VARIABLE, "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")

_ENOUGH = 2_000
"""So many vectors are indexed whatever their kind: fewer have no parameters."""


@dataclass(frozen=True, slots=True, eq=False)
class ArmTask:
    """What is searched and what rankings are worth. documents float32 (N, D), queries float32 (Q, D), not prepared."""

    documents: Vectors
    queries: Vectors
    metric: Metric
    utility: Utility
    k: int = 10

    def __post_init__(self) -> None:
        if self.metric not in METRICS:
            raise ConfigError(f"metric is {self.metric!r}; allowed: {', '.join(METRICS)}")
        check_vectors(self.documents)
        check_vectors(self.queries, self.documents.shape[1])
        if len(self.queries) != len(self.utility.ceiling):
            raise ShapeError(f"{len(self.queries)} query vectors, the utility judges {len(self.utility.ceiling)}")
        if self.k < 1 or not len(self.documents):
            raise RequestError(f"k is {self.k} of {len(self.documents)} documents, expected at least 1 of each")


@dataclass(frozen=True, slots=True)
class Protocol:
    """How to measure. repeats: rounds after one that does not count. timed: queries per round, one by one.

    build_threads: cores of builds, None = all there are.
    """

    repeats: int = LEAST_REPEATS
    timed: int = 1_000
    build_threads: int | None = None

    def __post_init__(self) -> None:
        if self.repeats < LEAST_REPEATS or self.timed < 1:
            raise RequestError(
                f"{self.repeats} repeats of {self.timed} queries, expected at least {LEAST_REPEATS} of at least 1"
            )


def run_arm(
    task: ArmTask, configurations: Sequence[Configuration], folder: Path, protocol: Protocol | None = None
) -> ArmReport:
    """Build, search and time every configuration; `folder` receives vectors, ground truth, indexes and raw times.

    Utility and recall are those of the single-threaded process. Raises RequestError on no configurations, equal names
    or a folder that holds one of them already, MissingDependencyError where a library is not installed, GrapnelError
    with its last line where a process fails, StorageError.
    Cost: the builds, then (repeats + 1) x timed single searches a setting, and as many of all queries at once.
    """
    protocol = protocol or Protocol()
    _check(configurations, folder)
    make_folders(folder)
    truth = kept_truth(folder, task.documents, task.queries, task.metric, task.k)
    prepared, asked = prepare(task.documents, task.metric), prepare(task.queries, task.metric)
    write_vectors(folder / _BASE, prepared)
    write_vectors(folder / _QUERIES, asked)
    cores = len(os.sched_getaffinity(0))
    builders = min(cores, protocol.build_threads or cores)
    builds = {each.name: _build(task, each, folder, builders) for each in configurations}
    alone = _search(task, configurations, folder / "single", protocol.repeats, protocol.timed)
    together = _search(task, configurations, folder / "all-cores", protocol.repeats, 0)
    points = []
    places = ((each.name, settings) for each in configurations for settings in each.settings)
    for place, (name, settings) in enumerate(places):
        rows: Rows = alone.rows[place]
        scores = exact_scores(prepared, asked, rows, task.metric)
        points.append(
            Point(
                configuration=name,
                settings=settings,
                rows=rows,
                utility=task.utility(rows),
                recall=id_recall(rows, truth, task.k),
                tied_recall=tied_recall(rows, scores, truth, task.k),
                inverse_ratio=None if task.metric == "ip" else inverse_ratio(scores, truth, task.k, task.metric),
                timing=Timing.of(alone.seconds[place], together.seconds[place, :, 0], len(asked)),
                distances=alone.distances[place],
            )
        )
    return ArmReport(
        measure=task.utility.name,
        metric=task.metric,
        k=task.k,
        exact=task.utility(truth.rows),
        builds=builds,
        points=tuple(points),
        truth=truth_key(task.documents, task.queries, task.metric, task.k),
        machine=describe_machine(),
    )


def _check(configurations: Sequence[Configuration], folder: Path) -> None:
    names = [configuration.name for configuration in configurations]
    if not names or len(set(names)) < len(names):
        raise RequestError(f"configurations {names}: expected at least one, each with a name of its own")
    for each in configurations:
        if (folder / each.name).exists():
            raise RequestError(f"{folder / each.name} is there already: choose a new folder, or remove it")
        if each.library != OURS:
            require(each.library)


def _build(task: ArmTask, configuration: Configuration, folder: Path, threads: int) -> Build:
    spec = IndexSpec(
        configuration.kind, task.metric, configuration.storage, configuration.recall, params=configuration.params
    )
    if configuration.library != OURS:
        # What ours would take is everybody's, as far as they know it.
        spec, _ = resolve(replace(spec, kind="ivf-sq8"), max(len(task.documents), _ENOUGH), task.documents.shape[1])
    out = folder / configuration.name
    make_folders(out)
    _run(
        {
            "task": "build",
            "library": configuration.library,
            "kind": configuration.kind,
            "metric": task.metric,
            "storage": configuration.storage,
            "recall": configuration.recall,
            "params": asdict(spec.params),
            "base": str(folder / _BASE),
            "folder": str(out / "index"),
            "threads": threads,
        },
        out,
    )
    result = json.loads((out / "result.json").read_text(encoding="utf-8"))
    about = result.pop("about")
    return Build(**result, kind=configuration.library if about is None else about["kind"], threads=threads)


class _Searched(NamedTuple):
    """What one process measured of S settings: int64 (S, Q, k), float64 (S, repeats, calls), S distance computations.

    Of all queries in one call there are only times.
    """

    rows: Rows
    seconds: npt.NDArray[np.float64]
    distances: Sequence[float | None]


def _search(task: ArmTask, configurations: Sequence[Configuration], out: Path, repeats: int, timed: int) -> _Searched:
    """Measure every setting in one process: `timed` queries one by one by one core; 0 = all at once by all cores."""
    folder = out.parent
    shutil.rmtree(out, ignore_errors=True)  # of a run that failed before
    make_folders(out)
    entries = [
        {
            "library": each.library,
            "metric": task.metric,
            "folder": str(folder / each.name / "index"),
            "settings": [dict(settings) for settings in each.settings],
        }
        for each in configurations
    ]
    _run(
        {
            "task": "search",
            "entries": entries,
            "base": str(folder / _BASE),
            "queries": str(folder / _QUERIES),
            "k": task.k,
            "repeats": repeats,
            "timed": timed,
            "threads": 1 if timed else len(os.sched_getaffinity(0)),
        },
        out,
    )
    seconds = np.load(out / "seconds.npy")
    if not timed:
        return _Searched(np.empty((0, 0, 0), np.int64), seconds, ())
    distances = json.loads((out / "result.json").read_text(encoding="utf-8"))["distances"]
    return _Searched(np.load(out / "rows.npy"), seconds, distances)


def _run(task: Mapping[str, Any], out: Path) -> None:
    path = out / "task.json"
    path.write_text(json.dumps(task, indent=1), encoding="utf-8")
    limits = dict.fromkeys(_THREAD_VARIABLES, str(task["threads"]))
    found = os.pathsep.join(filter(None, [str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH")]))
    done = subprocess.run(  # noqa: S603  this interpreter, our module, a path of ours
        [sys.executable, "-P", "-m", "evaluation.ann_child", str(path)],
        env={**os.environ, **limits, "PYTHONPATH": found},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        last = next(reversed(done.stderr.strip().splitlines()), "it said nothing")
        raise GrapnelError(f"the process of {path} failed with status {done.returncode}: {last}")
