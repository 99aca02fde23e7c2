"""Resampling of per-query values: bootstrap intervals of means, and sign-flip permutation tests of differences.

Everything takes a seed, and gives the same answer for the same seed, whatever is measured beside it. Memory stays below
some 30 MiB up to a million queries and a few columns.
"""

import math
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from index.errors import RequestError

Values: TypeAlias = npt.NDArray[np.float64]
"""float64 (Q,): one value per query."""

Columns: TypeAlias = npt.NDArray[np.float64]
"""float64 (Q, C): one column per measure or system, one row per query."""

Seed: TypeAlias = int | np.random.SeedSequence

RESAMPLES = 9_999
"""Of the bootstrap and of the permutation test; the smallest p-value of the latter is 1 / 10,000."""

LEVEL = 0.95
EXACT_UP_TO = 14
"""Differences other than 0 up to which all sign patterns are enumerated: 2^14 = 16,384, little more than RESAMPLES."""

_DRAWS_AT_ONCE = 1 << 18
_SAME_SUM = 1e-12
"""Relative to the sum of magnitudes: sums of the same terms in another order differ by less."""


class Interval(NamedTuple):
    """Bounds of a confidence interval."""

    low: float
    high: float


def bootstrap_interval(values: Values, *, seed: Seed, level: float = LEVEL, resamples: int = RESAMPLES) -> Interval:
    """Return a confidence interval of the mean: percentiles of the means of resamples, widened for few values.

    The percentiles are those at which normal values would give Student's interval (plain percentiles are too narrow by
    sqrt((n - 1) / n) and take the normal for the t distribution), so the interval never leaves the values' range. Below
    about 8 values that range is what it returns, which covers less than `level`.
    Raises RequestError on fewer than 2 values, on NaN or infinity, on a level outside (0, 1).
    Cost: Q x resamples draws, about 5 ns each.
    Source: Efron 1979; the expanded percentile interval, Hesterberg, The American Statistician 69(4), 2015.
    """
    return bootstrap_intervals(as_column(values), seed=seed, level=level, resamples=resamples)[0]


def bootstrap_intervals(
    columns: Columns, *, seed: Seed, level: float = LEVEL, resamples: int = RESAMPLES
) -> list[Interval]:
    """Return the `bootstrap_interval` of every column, from the same resamples of the queries, drawn once for all."""
    if not 0 < level < 1:
        raise RequestError(f"confidence level is {level}, expected a number between 0 and 1, such as 0.95")
    given = checked_columns(columns, least=2)
    means = _resampled_means(given, resamples, np.random.default_rng(seed))
    tail = _tail(level, len(given))
    low, high = np.quantile(means, [tail, 1 - tail], axis=0, method="weibull")
    return [Interval(*bounds) for bounds in zip(low.tolist(), high.tolist(), strict=True)]


def _tail(level: float, n: int) -> float:
    from scipy import special  # noqa: PLC0415  heavy

    quantile = float(special.stdtrit(n - 1, (1 + level) / 2))
    return float(special.ndtr(-quantile * math.sqrt(n / (n - 1))))


def _resampled_means(columns: Columns, resamples: int, rng: np.random.Generator) -> Columns:
    """Return the mean of every column, (resamples, C), in resamples of the rows."""
    n = len(columns)
    step = max(1, _DRAWS_AT_ONCE // n)
    means = np.empty((resamples, columns.shape[1]))
    for start in range(0, resamples, step):
        size = min(step, resamples - start)
        drawn = rng.integers(n, size=(size, n))
        drawn += n * np.arange(size)[:, None]
        times = np.bincount(drawn.ravel(), minlength=size * n).reshape(size, n)
        means[start : start + size] = times @ columns / n
    return means


def sign_flip(differences: Values, *, seed: Seed, resamples: int = RESAMPLES) -> float:
    """Return the two-sided p-value of "the mean is 0, each difference might as well have had the other sign".

    Up to 14 differences other than 0 all sign patterns are counted and the p-value is exact; beyond that
    p = (1 + b) / (1 + resamples), where b patterns were at least as extreme.
    Raises RequestError on no values, on NaN or infinity, on fewer than 9,999 resamples.
    Source: Fisher's randomisation test; Smucker, Allan and Carterette, CIKM 2007; Phipson and Smyth 2010 for the + 1.
    """
    return float(sign_flips(as_column(differences), seed=seed, resamples=resamples)[0])


def sign_flips(differences: Columns, *, seed: Seed, resamples: int = RESAMPLES) -> Values:
    """Return the `sign_flip` of every column, float64 (C,), from the same flips of the queries, drawn once for all."""
    if resamples < RESAMPLES:
        raise RequestError(f"{resamples} permutations, expected at least {RESAMPLES:,}: fewer give no fine p-value")
    given = checked_columns(differences, least=1)
    exact = np.count_nonzero(given, axis=0) <= EXACT_UP_TO
    p = np.empty(given.shape[1])
    for place in np.flatnonzero(exact):
        moved = given[given[:, place] != 0, place]
        p[place] = float(np.mean(_as_extreme(_patterns(len(moved)), moved[:, None])))
    if not exact.all():
        # Every query has its flip, also where nothing differs: so no column's answer depends on what others there are.
        p[~exact] = _sampled(given[:, ~exact], resamples, np.random.default_rng(seed))
    return p


def _patterns(n: int) -> npt.NDArray[np.int64]:
    """Return all ways to keep (1) or flip (0) n signs, (2^n, n)."""
    return (np.arange(1 << n)[:, None] >> np.arange(n)) & 1


def _sampled(differences: Columns, resamples: int, rng: np.random.Generator) -> Values:
    n = len(differences)
    step = max(1, _DRAWS_AT_ONCE // n)
    extreme = np.zeros(differences.shape[1], dtype=np.int64)
    for start in range(0, resamples, step):
        shape = (min(step, resamples - start), (n + 7) // 8)
        kept = np.unpackbits(rng.integers(256, size=shape, dtype=np.uint8), axis=1, count=n)
        extreme += np.count_nonzero(_as_extreme(kept, differences), axis=0)
    return (1 + extreme) / (1 + resamples)


def _as_extreme(kept: npt.NDArray[np.integer[Any]], differences: Columns) -> npt.NDArray[np.bool_]:
    """Return, (P, C), whether the sum of a column under each sign pattern is as far from 0 as its own sum is."""
    total = differences.sum(axis=0)
    least = np.abs(total) - _SAME_SUM * np.abs(differences).sum(axis=0)
    result: npt.NDArray[np.bool_] = np.abs(2 * (kept.astype(np.float64) @ differences) - total) >= least
    return result


def as_column(values: Values) -> Columns:
    """Return (Q,) values as one column (Q, 1). Raises RequestError on another shape."""
    given = np.asarray(values, dtype=np.float64)
    if given.ndim != 1:
        raise RequestError(f"values of shape {given.shape}: expected one dimension, one value a query")
    return given[:, None]


def checked_columns(columns: Columns, *, least: int) -> Columns:
    """Return columns as float64. Raises RequestError on fewer than `least` rows, no column, NaN or infinity."""
    given = np.asarray(columns, dtype=np.float64)
    if given.ndim != 2 or len(given) < least or given.shape[1] == 0:
        raise RequestError(f"values of shape {given.shape}: expected a row for each of at least {least} queries")
    if not np.isfinite(given).all():
        row = int(np.flatnonzero(~np.isfinite(given).all(axis=1))[0])
        raise RequestError(f"query {row} has the values {given[row].tolist()}: expected finite numbers")
    return given
