"""Utilities over items with weights (recommendation) and over distances (anomalies); see evaluation.utility."""

from collections.abc import Mapping, Sequence
from typing import Literal, TypeAlias, get_args

import numpy as np
import numpy.typing as npt

from evaluation.recall import first_of_each
from evaluation.statistics import Values
from evaluation.utility import Gains, PairWeights, RankedUtility, Utility, check_k, divided
from index.errors import ConfigError, CorpusError, RequestError, ShapeError
from index.types import Mask, Rows, Vectors

Average: TypeAlias = Literal["micro", "macro"]


def from_weights(
    weights: Sequence[Mapping[int, float]], items: npt.NDArray[np.int64], k: int, average: Average = "micro"
) -> Utility:
    """Return the weighted matching score: weight of the distinct items found in the first k over weight of all wanted.

    weights: of each query, the wanted items' weights. items: int64 (N,) >= 0, the item that each document shows;
    several may show the same, which then counts once (Iceberg's evaluator counts it every time).
    average: "macro" divides by the query's own total; "micro" by the mean of all totals, so that the mean over queries
    is sum over sum. Raises CorpusError on weights that are negative, not finite or all 0, RequestError on k < 1.
    """
    check_k(k)
    if average not in get_args(Average):
        raise ConfigError(f"average is {average!r}; allowed: {', '.join(get_args(Average))}")
    if items.ndim != 1 or (len(items) and items.min() < 0):
        raise ShapeError(f"items are {items.shape}, expected (N,), each at least 0")
    totals = np.array([sum(each.values()) for each in weights], dtype=np.float64)
    lowest = np.array([min(each.values(), default=0.0) for each in weights], dtype=np.float64)
    wrong = np.flatnonzero(~(np.isfinite(totals) & (totals > 0) & (lowest >= 0)))
    if len(wrong) or not len(weights):
        where = f"query {wrong[0]}'s weights" if len(wrong) else "no query's weights"
        raise CorpusError(f"{where} are positive, finite numbers: each query needs at least one wanted item")
    known, numbers = np.unique(items, return_inverse=True)
    number_of = {int(item): number for number, item in enumerate(known)}
    present = [{number_of[item]: weight for item, weight in each.items() if item in number_of} for each in weights]
    table = PairWeights(present, max(1, len(known)))
    scale = totals if average == "macro" else np.full(len(totals), totals.mean())
    best = np.array([sum(sorted(each.values(), reverse=True)[:k]) for each in present])

    def gains(rows: Rows) -> Gains:
        return table.gains(np.where(rows >= 0, numbers[rows], -1))

    def value(rows: Rows) -> Values:
        shares: Values = gains(rows).sum(axis=1) / scale
        return shares

    return RankedUtility(f"matching-{average}@{k}", k, best / scale, len(items), gains, value)


def distances(documents: Vectors, queries: Vectors, rows: Rows) -> Gains:
    """Return the Euclidean distance of each query to each of its rows, float64 (Q, k); NaN for -1. Cost: Q x k x D."""
    result = np.full(rows.shape, np.nan)
    for query, line in enumerate(rows):
        real = line >= 0
        difference = documents[line[real]].astype(np.float64) - queries[query].astype(np.float64)
        result[query, real] = np.sqrt((difference**2).sum(axis=1))
    return result


def from_anomalies(documents: Vectors, queries: Vectors, anomalous: Mask, threshold: float, k: int) -> Utility:
    """Return the anomaly hit rate: an anomaly is found when its mean distance to its first k documents is above.

    documents: float32 (N, D), normal ones. queries: float32 (Q, D). anomalous: bool (Q,); only those count, each by
    Q / anomalies, so that the mean over queries is the share of anomalies found. threshold: Euclidean, a quantile of
    the same figure over normal documents (see `distances`), which fixes the rate of false alarms.
    Raises CorpusError without an anomaly, RequestError on k < 1 or a threshold that is no distance. Ceiling: all found.
    Source: the AG-News task of arXiv 2512.12980.
    """
    check_k(k)
    if not (np.isfinite(threshold) and threshold >= 0):
        raise RequestError(f"threshold is {threshold}, expected a distance: a quantile over normal documents")
    if not anomalous.any():
        raise CorpusError(f"none of {len(anomalous)} queries is an anomaly: the hit rate is undefined")
    worth = np.where(anomalous, len(anomalous) / anomalous.sum(), 0.0)

    def gains(rows: Rows) -> Gains:
        return np.where(first_of_each(rows), np.nan_to_num(distances(documents, queries, rows)), 0.0) * worth[:, None]

    def value(rows: Rows) -> Values:
        real = first_of_each(rows)
        total = np.where(real, np.nan_to_num(distances(documents, queries, rows)), 0.0).sum(axis=1)
        return worth * (divided(total, real.sum(axis=1)) > threshold)

    return RankedUtility(f"anomaly-hit@{k}", k, worth, len(documents), gains, value)
