"""Synthetic recall: how much of what exact search finds an approximate search found, per query.

By id a result counts when it is among the k exact ones. With ties any row counts that is as near as the k-th exact one:
equal vectors have no order, so by id a search can lose recall without being any worse. A row that is returned twice
counts once, and -1 never counts, neither among the results nor among the exact ones.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from index.errors import CorpusError, RequestError, ShapeError
from index.metric import Metric
from index.types import Mask, Rows, Vectors

Values = npt.NDArray[np.float64]

SAME_SCORE = 1e-5
"""Scores of equal vectors computed in two ways differ by less, as a share of squared lengths or of the score."""

_BLOCK_VALUES = 1 << 22


class Truth(NamedTuple):
    """Exact neighbours. rows: int64 (Q, K), best first, -1 where fewer exist. scores: float64 (Q, K), -inf there.

    slack: float64 (Q,), by how much scores of the same similarity may differ (see `slack`).
    """

    rows: Rows
    scores: Values
    slack: Values

    def at(self, k: int) -> "Truth":
        """Return the k best. Raises ShapeError when the truth is not as deep."""
        if not 1 <= k <= self.rows.shape[1]:
            raise ShapeError(f"k is {k}, expected 1 to {self.rows.shape[1]}, the depth of the ground truth")
        return Truth(self.rows[:, :k], self.scores[:, :k], self.slack)


def exact_scores(vectors: Vectors, queries: Vectors, rows: Rows, metric: Metric) -> Values:
    """Return the score of each given row for its query, float64 (Q, c), computed in float64; -inf at -1.

    vectors (N, D), queries (Q, D): prepared for the metric (index.metric.prepare). rows: int64 (Q, c), each below N.
    Raises ShapeError. Cost: D multiplications a row, scratch memory of 32 MiB or one query's rows.
    """
    if rows.ndim != 2 or len(rows) != len(queries) or (rows.size and rows.max() >= len(vectors)):
        raise ShapeError(f"rows have shape {rows.shape}, expected ({len(queries)}, c), each below {len(vectors)}")
    result = np.full(rows.shape, -np.inf)
    step = max(1, _BLOCK_VALUES // max(1, rows.shape[1] * vectors.shape[1]))
    for start in range(0, len(rows), step):
        part = rows[start : start + step]
        found = vectors[np.maximum(part, 0)].astype(np.float64) if len(vectors) else np.empty((*part.shape, 0))
        asked = queries[start : start + step].astype(np.float64)
        if metric == "l2":
            scores = -np.square(found - asked[:, None, :]).sum(axis=2)
        else:
            scores = np.einsum("qcd,qd->qc", found, asked)
        result[start : start + step] = np.where(part >= 0, scores, -np.inf)
    return result


def slack(queries: Vectors, scores: Values) -> Values:
    """Return float64 (Q,): how far apart two computations of one score may be, per query, as index.calibrate takes it.

    scores: (Q, K) of the exact neighbours. Rounding grows with squared lengths, and so do scores.
    """
    lengths = np.einsum("qd,qd->q", queries, queries, dtype=np.float64)
    known = np.where(np.isfinite(scores), np.abs(scores), 0).max(axis=1, initial=0)
    return np.asarray(SAME_SCORE * np.maximum(lengths, known), dtype=np.float64)


def id_recall(found: Rows, truth: Truth, k: int) -> Values:
    """Return recall@k by id, float64 (Q,): |found in the first k and among the k exact| / how many of these exist.

    found: int64 (Q, c), best first; fewer than k columns count as padded with -1.
    Raises ShapeError, CorpusError for a query that has no exact neighbour at all (its recall is undefined).
    """
    best = _best(found, truth, k)
    mine = found[:, :k]
    same = (mine[:, :, None] == best.rows[:, None, :]).any(axis=2)
    hits = (same & first_of_each(mine)).sum(axis=1)
    return np.asarray(hits / (best.rows >= 0).sum(axis=1), dtype=np.float64)


def tied_recall(found: Rows, scores: Values, truth: Truth, k: int) -> Values:
    """Return recall@k where whatever scores like the k-th exact neighbour counts as found, float64 (Q,); at most 1.

    found, scores: (Q, c), the rows found and their `exact_scores`. Raises as `id_recall`.
    """
    if scores.shape != found.shape:
        raise ShapeError(f"scores have shape {scores.shape}, found rows {found.shape}, expected the same")
    best = _best(found, truth, k)
    exist = (best.rows >= 0).sum(axis=1)
    last = best.scores[np.arange(len(found)), exist - 1]
    close = (scores[:, :k] >= (last - best.slack)[:, None]) & first_of_each(found[:, :k])
    return np.asarray(np.minimum(close.sum(axis=1), exist) / exist, dtype=np.float64)


def distance_recall(
    found: npt.NDArray[np.floating],
    truth: npt.NDArray[np.floating],
    k: int,
    epsilon: float = 1e-3,
    *,
    relative: bool = False,
) -> Values:
    """Return recall@k as ann-benchmarks counts it, float64 (Q,): distances up to the k-th exact one plus epsilon, by k.

    found, truth: (Q, >= k) distances, inf where nothing was found. relative: the limit is (1 + epsilon) times the k-th
    exact distance (its "epsilon recall", .01 and .1). Ids do not enter: a row returned twice counts twice.
    Raises ShapeError, RequestError on an epsilon below 0 or NaN distances.
    Source: ann-benchmarks, plotting/metrics.py.
    """
    if found.ndim != 2 or truth.ndim != 2 or len(found) != len(truth) or not 1 <= k <= truth.shape[1]:
        raise ShapeError(f"distances have shapes {found.shape} and {truth.shape}, expected (Q, >= {k}) both")
    if epsilon < 0 or np.isnan(found).any() or np.isnan(truth).any():
        raise RequestError(f"epsilon is {epsilon}, expected at least 0, and no distance may be NaN")
    last = truth[:, k - 1].astype(np.float64)
    limit = last * (1 + epsilon) if relative else last + epsilon
    return np.asarray((found[:, :k] <= limit[:, None]).sum(axis=1) / k, dtype=np.float64)


def inverse_ratio(scores: Values, truth: Truth, k: int, metric: Metric) -> Values:
    """Return 1/Ratio@k, float64 (Q,) in [0, 1]: k / sum of (distance of the i-th found / of the i-th exact neighbour).

    scores: (Q, c) `exact_scores` of the rows found, best first, -inf where there is none: that counts as infinitely
    far, and the query's value is 0. Distances are Euclidean; for "cosine" those of unit vectors. 0 / 0 counts 1: a copy
    was found. Ranks that have no exact neighbour do not count.
    Raises ShapeError, CorpusError as `id_recall`, RequestError on "ip", which has no distances.
    Source: overall ratio of c-approximate neighbour search; its inverse tracks utility better than recall (2606.04522).
    """
    best = _best(scores, truth, k)
    if metric == "ip":
        raise RequestError("1/Ratio needs distances, which inner products do not give: use cosine or l2")
    mine = np.full(best.rows.shape, -np.inf)
    mine[:, : scores.shape[1]] = scores[:, :k]
    # A copy of the query comes out at some 1e-8 instead of 0: unit vectors in float32 are unit up to 1e-7.
    there, limit = best.rows >= 0, best.slack[:, None] / 10
    exact, near = _squared(best.scores, metric, limit), _squared(mine, metric, limit)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = np.where(exact == near, 1.0, np.sqrt(near / exact))
    total = np.where(there, ratios, 0).sum(axis=1)
    return np.asarray(np.minimum(there.sum(axis=1) / total, 1), dtype=np.float64)


def _squared(scores: Values, metric: Metric, limit: Values) -> Values:
    squared = -scores if metric == "l2" else 2 - 2 * scores
    return np.where(squared <= limit, 0.0, squared)


def _best(found: npt.NDArray[np.generic], truth: Truth, k: int) -> Truth:
    best = truth.at(k)
    if found.ndim != 2 or len(found) != len(best.rows):
        raise ShapeError(
            f"results have shape {found.shape}, expected ({len(best.rows)}, c) as many queries as the truth"
        )
    empty = np.flatnonzero((best.rows < 0).all(axis=1))
    if len(empty):
        raise CorpusError(f"query {empty[0]} has no exact neighbour, its recall is undefined: leave such queries out")
    return best


def first_of_each(rows: Rows) -> Mask:
    """Return where each row stands for the first time in its line; False at -1. rows: int64 (Q, c); bool (Q, c)."""
    order = np.argsort(rows, axis=1, kind="stable")
    ordered = np.take_along_axis(rows, order, axis=1)
    fresh = ordered >= 0
    fresh[:, 1:] &= ordered[:, 1:] != ordered[:, :-1]
    result = np.empty_like(fresh)
    np.put_along_axis(result, order, fresh, axis=1)
    return result
