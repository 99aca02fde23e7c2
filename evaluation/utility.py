"""What a ranking is worth to a task, per query, by judgements or class labels (others: evaluation.utility_items).

A utility maps rows (Q, k) of a task's documents, best first and padded with -1, to one float64 value a query, and knows
the best value any ranking of the corpus can get. -1 is skipped wherever it stands, so is a document after its first
place, and a query without results is worth 0. Plain means over queries are the measure's
usual figure; the micro-averaged kinds scale each query so that this holds for them, too.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal, Protocol, TypeAlias, get_args

import numpy as np
import numpy.typing as npt

from evaluation.measures import Qrels
from evaluation.recall import first_of_each
from evaluation.statistics import Values
from index.errors import ConfigError, CorpusError, RequestError, ShapeError
from index.types import Mask, Rows
from retrieval.types import Query

Gains: TypeAlias = npt.NDArray[np.float64]
"""float64 (Q, k), what each place of a ranking holds."""


class Utility(Protocol):
    """What a ranking is worth, per query."""

    @property
    def name(self) -> str:
        """The measure with its cut, "nDCG@10" for example."""
        ...

    @property
    def depth(self) -> int | None:
        """How many places are read; None reads all that are given."""
        ...

    @property
    def ceiling(self) -> Values:
        """The best value that any ranking of the corpus gets, by the labels; float64 (Q,)."""
        ...

    def gains(self, rows: Rows) -> Gains:
        """Return what each place holds: 0 for nothing, padding and repetitions; a perfect order is one by this."""
        ...

    def __call__(self, rows: Rows) -> Values:
        """Return each query's value. rows: int64 (Q, k), -1 = none. Raises ShapeError on another shape or row."""
        ...


class JudgedTask(Protocol):
    """The part of a task that judges rankings (see evaluation.task)."""

    @property
    def doc_ids(self) -> Sequence[str]:
        """Document id of each row."""
        ...

    @property
    def queries(self) -> Sequence[Query]:
        """The queries, in the order of all per-query values."""
        ...

    @property
    def qrels(self) -> Qrels:
        """Judgements of those queries."""
        ...


def reordered(utility: Utility, rows: Rows) -> Rows:
    """Return the same rows, each query's in the best order by the labels: what a perfect reranker makes of them."""
    order = np.argsort(-utility.gains(rows), axis=1, kind="stable")
    return np.take_along_axis(rows, order, axis=1)


def negative_flip_rate(before: Values, after: Values, *, correct: float = 1.0) -> float:
    """Return the share of queries that were right (value >= `correct`) before and are wrong after.

    A change that leaves the mean alone may still break what users relied on. Raises RequestError where the two do not
    hold the same queries, or none. Source: Yan et al., Positive-congruent training, CVPR 2021.
    """
    if before.shape != after.shape or not before.size:
        raise RequestError(f"values of {before.shape} and {after.shape} queries: expected the same, at least one")
    return float(np.mean((before >= correct) & (after < correct)))


@dataclass(frozen=True, slots=True, eq=False)
class RankedUtility:
    """A utility made of two functions of checked rows, `places` for gains and `value`. documents: N."""

    name: str
    depth: int | None
    ceiling: Values
    documents: int
    places: Callable[[Rows], Gains] = field(repr=False)
    value: Callable[[Rows], Values] = field(repr=False)

    def gains(self, rows: Rows) -> Gains:
        """Return what each place holds, see Utility."""
        self._check(rows)
        return self.places(rows)

    def __call__(self, rows: Rows) -> Values:
        """Return each query's value, see Utility."""
        self._check(rows)
        fresh = first_of_each(rows)
        order = np.argsort(~fresh, axis=1, kind="stable")  # what holds nothing takes no place
        rows = np.take_along_axis(np.where(fresh, rows, -1), order, axis=1)
        return self.value(rows[:, : self.depth])

    def _check(self, rows: Rows) -> None:
        if rows.ndim != 2 or rows.dtype != np.int64 or len(rows) != len(self.ceiling):
            raise ShapeError(f"rows are {rows.dtype} {rows.shape}, expected int64 ({len(self.ceiling)}, k)")
        if rows.size and not (rows.min() >= -1 and rows.max() < self.documents):
            raise ShapeError(f"rows {rows.min()} to {rows.max()}, expected -1 to {self.documents - 1}")


class PairWeights:
    """Weight of some (query, item) pairs, looked up by binary search. items: int64, 0 <= item < size."""

    def __init__(self, weights: Sequence[Mapping[int, float]], size: int) -> None:
        self._size = size
        lengths = np.array([len(each) for each in weights], dtype=np.int64)
        flat = np.array([item for each in weights for item in each], dtype=np.int64)
        keys = np.repeat(np.arange(len(weights)), lengths) * size + flat
        order = np.argsort(keys)
        self._keys = keys[order]
        self._values = np.array([float(value) for each in weights for value in each.values()])[order]

    def gains(self, items: Rows) -> Gains:
        """Return the weight of each item at its first place, else 0. items: int64 (Q, k), -1 = none."""
        if not len(self._keys):
            return np.zeros(items.shape)
        keys = np.arange(len(items))[:, None] * self._size + items
        places = np.minimum(np.searchsorted(self._keys, keys), len(self._keys) - 1)
        found = (self._keys[places] == keys) & first_of_each(items)
        return np.where(found, self._values[places], 0.0)


_Formula: TypeAlias = Callable[[Gains, Gains], Values]
"""(gains by place, ideal gains (Q, R) in falling order) -> values; both are cut already where the measure cuts."""


def divided(over: Values, under: Values) -> Values:
    """Return the quotient, 0 where the divisor is 0: a query with nothing relevant is worth nothing."""
    return np.divide(over, under, out=np.zeros(len(over)), where=under > 0)


def _dcg(gains: Gains) -> Values:
    result: Values = (gains / np.log2(np.arange(2, gains.shape[1] + 2))).sum(axis=1)
    return result


def _hits(gains: Gains) -> Values:
    return np.asarray((gains > 0).sum(axis=1), dtype=np.float64)


def _average_precision(gains: Gains, ideal: Gains) -> Values:
    hits = gains > 0
    precision = np.cumsum(hits, axis=1) / np.arange(1, gains.shape[1] + 1)
    return divided((precision * hits).sum(axis=1), _hits(ideal))


def _reciprocal_rank(gains: Gains, ideal: Gains) -> Values:  # noqa: ARG001  one shape for all formulas
    hits = gains > 0
    if not hits.shape[1]:
        return np.zeros(len(hits))
    return np.where(hits.any(axis=1), 1 / (1 + hits.argmax(axis=1)), 0.0)


def _r_precision(gains: Gains, ideal: Gains) -> Values:
    relevant = _hits(ideal)
    return divided(_hits(gains * (np.arange(gains.shape[1]) < relevant[:, None])), relevant)


def _formula(name: str, cut: int | None) -> _Formula | None:
    """Return the formula of a measure, None where there is no such measure with, or without, a cut."""
    free: dict[str, _Formula] = {
        "nDCG": lambda gains, ideal: divided(_dcg(gains), _dcg(ideal[:, :cut])),
        "AP": _average_precision,
        "RR": _reciprocal_rank,
    }
    if cut is None:
        return {**free, "Rprec": _r_precision}.get(name)
    bound: dict[str, _Formula] = {
        "R": lambda gains, ideal: divided(_hits(gains), _hits(ideal)),
        "RP": lambda gains, ideal: divided(_hits(gains), np.minimum(_hits(ideal), cut)),
        "P": lambda gains, _: _hits(gains) / cut,
        "Success": lambda gains, _: np.minimum(_hits(gains), 1.0),
    }
    return {**free, **bound, "Hit": bound["Success"]}.get(name)


_MEASURE: Final = re.compile(r"([A-Za-z]+)(?:@([1-9]\d*))?")


def from_qrels(measure: str, task: JudgedTask) -> Utility:
    """Return a measure over a task's judgements: nDCG, AP, RR (with @k or without), R@k, RP@k, P@k, Success@k, Rprec.

    The values are those of evaluation.measures to 1e-12, with one matrix operation for all queries. RP@k is recall
    capped at what k places hold: hits / min(k, relevant). "Hit@k" is another name of Success@k. Relevant: grade > 0.
    A query with nothing relevant is worth 0, and so is its ceiling.
    Raises ConfigError on an unknown measure, CorpusError on judgements of unknown documents or without a positive.
    Cost: one binary search a place.
    """
    match = _MEASURE.fullmatch(measure)
    cut = int(match[2]) if match and match[2] else None
    formula = _formula(match[1], cut) if match else None
    if formula is None:
        raise ConfigError(f"measure {measure!r} is unknown: use nDCG@k, AP@k, RR@k, R@k, RP@k, P@k, Success@k or Rprec")
    grades = _positives(task)
    relevant = max(map(len, grades), default=0)
    if not relevant:
        raise CorpusError(f"no query of {len(task.queries)} has a relevant document: check ids and split of the qrels")
    ideal = np.zeros((len(grades), relevant))
    for line, of_query in zip(ideal, grades, strict=True):
        line[: len(of_query)] = sorted(of_query.values(), reverse=True)
    weights = PairWeights(grades, len(task.doc_ids))
    return RankedUtility(
        measure,
        cut,
        formula(ideal[:, :cut], ideal),
        len(task.doc_ids),
        weights.gains,
        lambda rows: formula(weights.gains(rows), ideal),
    )


def _positives(task: JudgedTask) -> list[dict[int, float]]:
    """Return the positive grades of each query by row."""
    row_of = {doc_id: row for row, doc_id in enumerate(task.doc_ids)}
    result = []
    for query in task.queries:
        grades = {doc_id: grade for doc_id, grade in task.qrels.get(query.id, {}).items() if grade > 0}
        unknown = [doc_id for doc_id in grades if doc_id not in row_of]
        if unknown:
            raise CorpusError(f"query {query.id!r} is judged on unknown documents {unknown[:3]}: add or drop them")
        result.append({row_of[doc_id]: float(grade) for doc_id, grade in grades.items()})
    return result


LabelKind: TypeAlias = Literal["label-precision", "label-recall-micro", "label-recall-macro", "hit", "knn-accuracy"]

_VOTES: Final = 1 << 22
"""Pairs of neighbours compared at once: 4 MiB."""


def from_labels(kind: LabelKind, labels: npt.NDArray[np.int64], query_labels: npt.NDArray[np.int64], k: int) -> Utility:
    """Return a measure of how many of the first k documents have the query's label.

    labels: int64 (N,), of the documents. query_labels: int64 (Q,). hits: documents of the query's label in the top k.
    "label-precision": hits / k. "label-recall-macro": hits / min(k, class size), each query counting the same.
    "label-recall-micro": sum of hits / sum of min(k, class size), Iceberg's label recall; a query's value is its hits
    over the mean of all queries' min(k, class size), so that the mean over queries is the measure.
    "hit": whether there is a hit. "knn-accuracy": whether the label that most of the top k have is the query's; of
    labels with equally many, the one whose first document ranks best.
    Raises ConfigError on another kind, RequestError on k < 1, CorpusError on a label that no document has.
    Source: arXiv 2512.12980 (label recall), checked against its evaluator.
    """
    if kind not in get_args(LabelKind):
        raise ConfigError(f"kind {kind!r} is unknown; allowed: {', '.join(get_args(LabelKind))}")
    check_k(k)
    found = _found_sizes(labels, query_labels)
    most = np.minimum(found, k).astype(np.float64)
    scale: Values = {
        "label-precision": np.full(len(most), float(k)),
        "label-recall-micro": np.full(len(most), most.mean()),
        "label-recall-macro": most,
        "hit": most,  # any hit is all of it, see below
        "knn-accuracy": most,
    }[kind]

    def gains(rows: Rows) -> Gains:
        result: Values = ((labels[rows] == query_labels[:, None]) & first_of_each(rows)).astype(np.float64)
        return result

    def value(rows: Rows) -> Values:
        if kind == "knn-accuracy":
            return _voted(labels[rows], rows >= 0, query_labels)
        hits = _hits(gains(rows))
        return np.minimum(hits, 1.0) if kind == "hit" else hits / scale

    return RankedUtility(f"{kind}@{k}", k, most / scale, len(labels), gains, value)


def check_k(k: int) -> None:
    """Raise RequestError on k < 1."""
    if k < 1:
        raise RequestError(f"k is {k}, expected at least 1")


def _found_sizes(labels: npt.NDArray[np.int64], query_labels: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return how many documents have each query's label, int64 (Q,)."""
    if labels.ndim != 1 or query_labels.ndim != 1 or not len(query_labels):
        raise ShapeError(f"labels are {labels.shape}, of queries {query_labels.shape}: expected (N,) and (Q,), Q > 0")
    known, sizes = np.unique(labels, return_counts=True)
    places = np.minimum(np.searchsorted(known, query_labels), max(0, len(known) - 1))
    missing = np.flatnonzero(known[places] != query_labels) if len(known) else np.arange(len(query_labels))
    if len(missing):
        raise CorpusError(
            f"query {missing[0]} has label {query_labels[missing[0]]}, which no document has: drop such queries"
        )
    return np.asarray(sizes[places], dtype=np.int64)


def _voted(labels: npt.NDArray[np.int64], real: Mask, query_labels: npt.NDArray[np.int64]) -> Values:
    """Return whether each query's most frequent label is its own. labels: int64 (Q, k); real: where there is one."""
    result = np.zeros(len(labels))
    if not labels.shape[1]:
        return result
    step = max(1, _VOTES // labels.shape[1] ** 2)
    for start in range(0, len(labels), step):
        part, counts_at = labels[start : start + step], real[start : start + step]
        same = (part[:, :, None] == part[:, None, :]) & counts_at[:, :, None] & counts_at[:, None, :]
        votes = same.sum(axis=2)
        winner = np.take_along_axis(part, votes.argmax(axis=1)[:, None], axis=1)[:, 0]
        own = query_labels[start : start + step]
        result[start : start + step] = (winner == own) & counts_at.any(axis=1)
    return result
