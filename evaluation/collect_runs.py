"""Making records of the run database: vectors and a utility in, every index under every metric measured; one process.

Times are of single queries by one thread: limit OMP_NUM_THREADS and OPENBLAS_NUM_THREADS to 1 before numpy is loaded.
"""

import logging
import math
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np

from evaluation.ann_child import Ours, rounds
from evaluation.ann_configurations import configurations
from evaluation.ann_rivals import Settings
from evaluation.features import features
from evaluation.machine import describe_machine
from evaluation.recall import Truth, exact_scores, slack, tied_recall
from evaluation.runs import Key, Record, Setting
from evaluation.statistics import Values, bootstrap_intervals
from evaluation.tree import FEATURE_SAMPLE
from evaluation.utility import Utility
from index import ann_build
from index.ann_build import write_index
from index.errors import ShapeError
from index.metric import METRICS, Metric, check_vectors, prepare
from index.spec import IndexSpec, Kind
from index.types import Rows, Vectors
from retrieval.progress import Progress, silent

KINDS: Final[tuple[Kind, ...]] = ("flat", "hnsw", "ivf-rabitq")
"""What is tried: exact search, a graph, inverted lists; the kinds that "auto" chooses among (index.choose)."""

ONE_LENGTH: Final = 1e-3
"""Lengths whose spread is at most this share of their mean are one length."""

DIGITS: Final = 5
"""Significant digits that are kept: beyond what any of it can be told apart by."""

_REFINE: Final = 4
"""Candidates that kinds with approximate scores have scored exactly, as multiples of k."""

_TIMED, _ROUNDS = 50, 3
_BATCH: Final = 256


@dataclass(frozen=True, slots=True, eq=False)
class Given:
    """What is to be measured. documents float32 (N, D), queries float32 (Q, D), as they were encoded."""

    key: Key
    family: str
    documents: Vectors = field(repr=False)
    queries: Vectors = field(repr=False)
    utility: Utility = field(repr=False)

    def __post_init__(self) -> None:
        check_vectors(self.documents)
        check_vectors(self.queries, self.documents.shape[1])
        if len(self.documents) != self.key.n or len(self.queries) != len(self.utility.ceiling):
            raise ShapeError(
                f"{self.key}: {len(self.documents)} documents, {len(self.queries)} queries, the utility judges "
                f"{len(self.utility.ceiling)}: expected as many as the key and the utility say"
            )


def one_length(vectors: Vectors) -> bool:
    """Return whether all vectors have the same length, so that all metrics order them alike for any query."""
    lengths = np.sqrt(np.einsum("nd,nd->n", vectors, vectors, dtype=np.float64))
    return bool(np.ptp(lengths) <= ONE_LENGTH * lengths.mean())


@dataclass(frozen=True, slots=True, eq=False)
class Candidate:
    """An opened index with one effort. settings: empty = as calibrated. size_bytes: of its files."""

    metric: Metric
    kind: Kind
    settings: Settings
    index: Ours = field(repr=False)
    size_bytes: int

    @property
    def name(self) -> str:
        """Kind and effort, "hnsw ef=64" say."""
        return " ".join([self.kind, *(f"{name}={value:g}" for name, value in self.settings.items())])

    def rows(self, queries: Vectors, k: int) -> Rows:
        """Return int64 (Q, k)."""
        parts = [
            self.index.search(queries[at : at + _BATCH], k, self.settings) for at in range(0, len(queries), _BATCH)
        ]
        return np.concatenate(parts)


def candidates(
    folder: Path, documents: Vectors, spec: IndexSpec, kinds: Sequence[Kind], k: int, progress: Progress = silent
) -> list[Candidate]:
    """Build an index of each kind over documents, float32 (N, D), below `folder`, and return them with their efforts.

    spec: metric, storage and target of calibration; exact search comes first and is always there. Too few documents for
    an approximate index have only that. Raises ConfigError, MissingDependencyError, StorageError. Cost: the builds.
    """
    prepared = prepare(check_vectors(documents), spec.metric)
    wanted: tuple[Kind, ...] = ("flat", *(kind for kind in kinds if kind != "flat"))
    found = []
    planned = configurations(len(prepared), k, spec.metric, wanted)
    for number, each in enumerate(planned, start=1):
        place = folder / f"{spec.metric}-{each.kind}"
        place.mkdir(parents=True)
        built = IndexSpec(each.kind, spec.metric, spec.storage, spec.recall, params=spec.params, seed=spec.seed)
        with _expecting_misses():
            write_index(place, iter([prepared]), prepared.shape[1], len(prepared), built)
        size_bytes = sum(path.stat().st_size for path in place.rglob("*") if path.is_file())
        index = Ours(place, spec.metric)
        usual = [settings for settings in each.settings if settings.get("refine", _REFINE * k) == _REFINE * k]
        found += [Candidate(spec.metric, each.kind, settings, index, size_bytes) for settings in usual]
        progress("build indexes", number, len(planned))
    return found


@contextmanager
def _expecting_misses() -> Iterator[None]:
    """Keep builds from warning that a kind misses its target: that some do is what is being found out."""
    log = logging.getLogger(ann_build.__name__)
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(level)


def latencies_ms(tried: Sequence[Candidate], queries: Vectors, k: int) -> Values:
    """Return the median latency of single queries in milliseconds, float64 (C,): candidates take turns."""
    asked = [queries[place : place + 1] for place in range(min(_TIMED, len(queries)))]
    spent = rounds([_timed(each, asked, k) for each in tried], _ROUNDS)
    return np.asarray(1_000 * np.median(spent.reshape(len(tried), -1), axis=1))


def _timed(candidate: Candidate, asked: Sequence[Vectors], k: int) -> Callable[[], list[float]]:
    """Return a call that searches one query after the other and gives the seconds of each."""

    def once() -> list[float]:
        spent = []
        for query in asked:
            start = time.perf_counter()
            candidate.index.search(query, k, candidate.settings)
            spent.append(time.perf_counter() - start)
        return spent

    return once


def measure(given: Given, *, kinds: Sequence[Kind] = KINDS, k: int = 10) -> Record:
    """Return the record: features, and every kind under every metric at every effort.

    Where all documents' vectors have one length, under cosine alone. Raises as `features` and `candidates` do.
    Cost: (1 or 3) x kinds builds of N vectors, then a few hundred searches a setting; memory of one metric's indexes.
    """
    alike = one_length(given.documents)
    found = features(given.documents, queries=given.queries, sample=FEATURE_SAMPLE, seed=given.key.seed)
    settings: list[Setting] = []
    for metric in ("cosine",) if alike else METRICS:
        with tempfile.TemporaryDirectory(prefix="grapnel-runs-") as folder:
            spec = IndexSpec(metric=metric, seed=given.key.seed)
            tried = candidates(Path(folder), given.documents, spec, kinds, k)
            settings += _settings(given, tried, metric, k)
    return Record(
        dataset=given.key.dataset,
        family=given.family,
        space=given.key.space,
        seed=given.key.seed,
        n=given.key.n,
        d=given.documents.shape[1],
        queries=len(given.queries),
        measure=given.utility.name,
        k=k,
        one_length=alike,
        features={name: rounded(value) for name, value in found.items() if name not in {"n", "d"}},
        settings=tuple(settings),
        machine={name: value for name, value in describe_machine().items() if name in {"cpu", "cores", "commit"}},
    )


def _settings(given: Given, tried: Sequence[Candidate], metric: Metric, k: int) -> Iterator[Setting]:
    rows = [each.rows(given.queries, k) for each in tried]
    worth = np.stack([given.utility(found) for found in rows], axis=1)
    intervals = bootstrap_intervals(worth, seed=given.key.seed)
    documents, queries = prepare(given.documents, metric), prepare(given.queries, metric)
    scores = [exact_scores(documents, queries, found, metric) for found in rows]
    truth = Truth(rows[0], scores[0], slack(queries, scores[0]))  # exact search comes first
    times = latencies_ms(tried, given.queries, k)
    for place, each in enumerate(tried):
        recall = tied_recall(rows[place], scores[place], truth, k)
        compared = each.index.distances(given.queries, k, each.settings)
        mean, low, high = (rounded(value) for value in (float(worth[:, place].mean()), *intervals[place]))
        yield Setting(
            metric=metric,
            kind=each.kind,
            effort={name: int(value) for name, value in each.settings.items()},
            utility=mean,
            low=min(low, mean),
            high=max(high, mean),
            recall=rounded(float(recall.mean())),
            distances=None if compared is None else rounded(compared),
            size_bytes=each.size_bytes,
            p50_ms=rounded(float(times[place])),
        )


def rounded(value: float) -> float:
    """Return a number with five significant digits."""
    return float(f"{value:.{DIGITS}g}") if math.isfinite(value) else value
