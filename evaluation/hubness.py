"""Hubness: whether few vectors are among the nearest of very many others, and many among the nearest of none.

S_k is the skewness of N_k, how often each vector is among the k nearest of the queries (Radovanovic et al., JMLR 2010).
About 0 to 2 is usual; a common mean under inner product gives tens, and retrieval fails there.
"""

import numpy as np
import numpy.typing as npt

from index.errors import RequestError, ShapeError
from index.types import Rows

Counts = npt.NDArray[np.int64]


def k_occurrences(rows: Rows, n: int) -> Counts:
    """Return how often each of n vectors occurs in nearest-neighbour lists, int64 (n,).

    rows: int64 (Q, k), -1 = none; where vectors were searched among themselves, without each one's own row.
    Raises ShapeError on a row outside 0..n-1.
    """
    found = rows[rows >= 0]
    if (rows < -1).any() or (found.size and found.max() >= n):
        raise ShapeError(f"rows go from {rows.min()} to {rows.max()}, expected -1 to {n - 1}")
    return np.bincount(found, minlength=n).astype(np.int64)


def k_occurrence_skew(rows: Rows, n: int) -> float:
    """Return S_k = E[(N_k - mean)^3] / std^3 over the n vectors. rows: see `k_occurrences`.

    Raises ShapeError, RequestError where every vector occurs equally often: the skewness is 0 / 0.
    """
    counts = k_occurrences(rows, n)
    deviations = counts - counts.mean() if n else np.empty(0)
    spread = float(np.sqrt(np.mean(deviations**2))) if n else 0.0
    if spread == 0:
        raise RequestError(f"all {n} vectors occur equally often in the neighbour lists: skewness needs a smaller k")
    return float(np.mean(deviations**3) / spread**3)


def gini(counts: npt.NDArray[np.integer] | npt.NDArray[np.floating]) -> float:
    """Return the Gini coefficient: 0 = all equal, (n - 1) / n = one holds everything. counts: (n,), none negative.

    Raises RequestError on negative counts, NaN or a sum of 0. Cost: one sort.
    """
    values = np.sort(counts.astype(np.float64))
    if not values.size or not np.isfinite(values).all() or values[0] < 0 or values.sum() == 0:
        raise RequestError(f"{len(values)} counts: expected none negative or NaN, and a sum above 0")
    n = len(values)
    return float(2 * (np.arange(1, n + 1) @ values) / (n * values.sum()) - (n + 1) / n)


def anti_hub_share(rows: Rows, n: int) -> float:
    """Return the share of the n vectors that occur in no list: they cannot be found. Raises as `k_occurrences`."""
    if n < 1:
        raise RequestError("no vectors: expected at least 1")
    return float((k_occurrences(rows, n) == 0).mean())
