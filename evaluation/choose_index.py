"""Index and effort of a field: every kind that fits is built over a sample, and the cheapest good enough is taken.

Good enough by utility with labels, else by recall on the user's queries, else on passages held out of the index
(evaluation.halving says what good enough is). Cheapest: by latency, of which less than a millisecond costs nothing; so
exact search is taken where it is as quick as that.
"""

import math
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np

from evaluation.advice import Advice, Asked, MetricAdvice, Wishes
from evaluation.collect_runs import KINDS, Candidate, candidates, latencies_ms
from evaluation.collection_sample import FieldSample
from evaluation.halving import LEAST_QUERIES, cheapest
from evaluation.recall import Truth, exact_scores, slack, tied_recall
from evaluation.regret import NOTICED_MS, family_of
from evaluation.statistics import Values
from index.choose import memory_bytes, resolve
from index.metric import prepare
from index.spec import IndexSpec, Kind
from index.types import Rows, Vectors
from retrieval.progress import Progress, silent

MOST_QUERIES: Final = 1_000
"""Queries measured with at most."""

_GIB: Final = 1 << 30
_HELD_OUT_SHARE: Final = 0.1

_VALUE_BYTES: Final[Mapping[str, int]] = {"float32": 4, "float16": 2, "int8": 1}


def choose_index(
    sample: FieldSample,
    asked: Asked | None,
    metric: MetricAdvice,
    spec: IndexSpec,
    wishes: Wishes,
    progress: Progress = silent,
) -> Advice:
    """Return the advice: kind and effort for a sample of at least 2 x LEAST_QUERIES passages under a metric.

    asked: None = passages are held out to be the queries. spec: of the field as it is. Raises as `cheapest`.
    Cost: a build of each kind over the sample, some hundred searches of each effort.
    """
    spec = replace(spec, kind="flat", metric=metric.metric, recall=wishes.recall, seed=wishes.seed)
    fitting, notes = _fitting(spec, sample, wishes)
    indexed, queries = (sample, asked) if asked is not None else _held_out(sample, wishes.seed)
    depth = wishes.k if queries.utility is None else sample.depth(wishes.k)
    with tempfile.TemporaryDirectory(prefix="grapnel-recommend-") as folder:
        tried = candidates(Path(folder), indexed.vectors, spec, fitting, depth, progress)
        judge = _Judge(tried, indexed, queries, depth)
        times = _times_ms(tried, queries.vectors, depth, indexed)
        usable = [place for place, each in enumerate(tried) if each.kind in fitting] or [0]
        quick = [place for place in usable if wishes.latency_ms is None or times[place] <= wishes.latency_ms]
        if not quick:
            quick = [min(usable, key=lambda place: float(times[place]))]
            notes.append(f"nothing answers within {wishes.latency_ms:g} ms: the fastest takes {times[quick[0]]:.3g} ms")
        found = cheapest(
            lambda number, numbers: judge.worth(tried[quick[number]], numbers),
            judge.exact,
            np.maximum(times[quick], NOTICED_MS),
            wishes.recall,
            certain=quick.index(0) if 0 in quick else None,  # exact search comes first
            seed=wishes.seed,
        )
        progress("measure settings", len(quick), len(quick))
        place = quick[found.candidate]
        as_asked = queries.utility is None and found.met
        recall = wishes.recall if as_asked or place == 0 else judge.recall_of(tried[place])
    best, measured = tried[place], f"recall@{wishes.k}" if queries.utility is None else queries.utility.name
    if not found.met:
        notes.append(f"nothing that fits the budgets has {wishes.recall:g} of what exact search has, beyond chance")
    if sample.total > len(sample.vectors):
        notes.append(
            f"measured on {len(indexed.vectors):,} of {sample.total:,} passages: latency and memory are scaled from "
            f"there, {measured} falls somewhat as collections grow; `grapnel build` calibrates again"
        )
    return Advice(
        field=sample.name,
        metric=metric,
        kind=best.kind,
        effort=dict(best.settings),
        measured=measured,
        worth=found.worth,
        interval=found.interval,
        exact=found.exact,
        exact_ms=float(times[0]),
        met=found.met,
        recall=recall,
        memory_bytes=round(_codes(spec, best.kind, sample) + _vectors(spec, sample)),
        p50_ms=float(times[place]),
        passages=sample.total,
        sample=len(indexed.vectors),
        queries=found.queries,
        tried=len(tried),
        notes=(*metric.notes, *notes),
    )


def _held_out(sample: FieldSample, seed: int) -> tuple[FieldSample, Asked]:
    """Return the sample less a tenth of its passages, and these as queries."""
    count = len(sample.vectors)
    size = min(MOST_QUERIES, max(LEAST_QUERIES, round(_HELD_OUT_SHARE * count)))
    held = np.random.default_rng(seed).permutation(count)[:size]
    left = np.delete(np.arange(count), held)
    rest = replace(sample, vectors=sample.vectors[left], document_of=sample.document_of[left])
    return rest, Asked(sample.vectors[held])


class _Judge:
    """What candidates are worth on the queries: utility of documents, or recall of passages."""

    def __init__(self, tried: Sequence[Candidate], sample: FieldSample, asked: Asked, depth: int) -> None:
        metric = tried[0].metric
        self._sample, self._asked, self._depth = sample, asked, depth
        self._documents, self._queries = prepare(sample.vectors, metric), prepare(asked.vectors, metric)
        rows = tried[0].rows(asked.vectors, depth)
        scores = exact_scores(self._documents, self._queries, rows, metric)
        self._truth = Truth(rows, scores, slack(self._queries, scores))
        everything = np.arange(len(rows))
        self.exact = np.ones(len(rows)) if asked.utility is None else self._useful(everything, rows)

    def worth(self, candidate: Candidate, numbers: Rows) -> Values:
        """Return the worth of a candidate on some queries, float64 (q,)."""
        found = candidate.rows(self._asked.vectors[numbers], self._depth)
        return self._recall(candidate, numbers, found) if self._asked.utility is None else self._useful(numbers, found)

    def recall_of(self, candidate: Candidate) -> float:
        """Return the recall of a candidate up to the next hundredth, for a build to calibrate to."""
        everything = np.arange(len(self._queries))
        found = candidate.rows(self._asked.vectors, self._depth)
        enough = float(self._recall(candidate, everything, found).mean())
        return min(0.99, max(0.5, math.ceil(100 * enough) / 100))

    def _recall(self, candidate: Candidate, numbers: Rows, found: Rows) -> Values:
        scores = exact_scores(self._documents, self._queries[numbers], found, candidate.metric)
        truth = Truth(self._truth.rows[numbers], self._truth.scores[numbers], self._truth.slack[numbers])
        return tied_recall(found, scores, truth, min(self._depth, truth.rows.shape[1]))

    def _useful(self, numbers: Rows, found: Rows) -> Values:
        assert self._asked.utility is not None, "only asked with labels"
        rows = np.full((len(self._queries), found.shape[1]), -1, dtype=np.int64)
        rows[numbers] = self._sample.documents(found)
        return self._asked.utility(rows)[numbers]


def _fitting(spec: IndexSpec, sample: FieldSample, wishes: Wishes) -> tuple[tuple[Kind, ...], list[str]]:
    """Return the kinds that fit the memory budget at the collection's full size.

    Where the vectors alone do not, lists as `index.choose` takes them: their codes are in memory, and the few vectors
    that are scored exactly are read from disk.
    """
    kinds = KINDS if spec.storage != "int8" else tuple(kind for kind in KINDS if kind != "hnsw")
    limit = math.inf if wishes.memory_gb is None else wishes.memory_gb * _GIB
    vectors = _vectors(spec, sample)
    fit_in = tuple(kind for kind in kinds if _codes(spec, kind, sample) + vectors <= limit)
    if fit_in:
        return fit_in, []
    codes = _codes(spec, "ivf-rabitq", sample)
    told = (
        f"nothing fits into {wishes.memory_gb:g} GiB: the vectors alone take {vectors / _GIB:.3g} GiB; they are read "
    )
    told += f"from disk, {codes / _GIB:.3g} GiB of codes stay in memory (storage float16 or int8 makes vectors smaller)"
    return ("ivf-rabitq",), [told]


def _vectors(spec: IndexSpec, sample: FieldSample) -> int:
    return sample.total * int(sample.vectors.shape[1]) * _VALUE_BYTES[spec.storage]


def _codes(spec: IndexSpec, kind: Kind, sample: FieldSample) -> float:
    dim = sample.vectors.shape[1]
    definite, _ = resolve(replace(spec, kind=kind), sample.total, dim)
    return 0.0 if definite.kind == "flat" else memory_bytes(definite, sample.total, dim)


def _times_ms(tried: Sequence[Candidate], queries: Vectors, depth: int, indexed: FieldSample) -> Values:
    """Return the median latency of single queries, float64 (C,), scaled to the whole collection."""
    ratio = max(1.0, indexed.total / len(indexed.vectors))
    growth: Values = np.array([_growth(each.kind, ratio, len(indexed.vectors)) for each in tried])
    return latencies_ms(tried, queries, depth) * growth


def _growth(kind: Kind, ratio: float, measured: int) -> float:
    """Return the factor by which a search takes longer among `ratio` times as many vectors as were measured.

    Scans grow with the number, lists with its root (as their number and length do), graphs with its logarithm.
    """
    family = family_of(kind)
    if family == "graph":
        return 1 + math.log(ratio) / math.log(max(3, measured))
    return ratio if family == "exact" else math.sqrt(ratio)
