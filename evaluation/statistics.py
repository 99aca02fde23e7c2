"""Statistics of per-query values: intervals, paired tests, margins, and corrections for many claims.

Values are float64 (Q,), one per query and in the same order on both sides. Everything random takes a seed, and gives
the same answer for the same seed. Memory stays below about 100 MiB up to a million queries.

    one claim       paired: the difference with its interval, paired t and sign-flip permutation
    "not worse"     non_inferior; "as good as" equivalent (TOST), both with a margin in units of the measure
    many claims     holm for the few claims of one comparison, benjamini_hochberg for sweeps
"""

import math
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from index.errors import RequestError

Values: TypeAlias = npt.NDArray[np.float64]
"""float64 (Q,): one value per query."""

Seed: TypeAlias = int | np.random.SeedSequence

RESAMPLES = 9_999
"""Of the bootstrap and of the permutation test; the smallest p-value of the latter is 1 / 10,000."""

LEVEL = 0.95
MARGIN = 0.005
"""Difference of a measure in [0, 1] that does not matter to its users."""

EXACT_UP_TO = 14
"""Differences other than 0 up to which all sign patterns are enumerated: 2^14 = 16,384, little more than RESAMPLES."""

_DRAWS_AT_ONCE = 1 << 21
_SAME_SUM = 1e-12
"""Relative to the sum of magnitudes: sums of the same terms in another order differ by less."""


class Interval(NamedTuple):
    """Bounds of a confidence interval."""

    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two systems on the same queries. difference: mean of a - b, with its bootstrap interval [low, high].

    p_t, p_permutation: two-sided, of "no difference", by the paired t test and by sign flips. n: queries.
    """

    difference: float
    low: float
    high: float
    p_t: float
    p_permutation: float
    n: int


@dataclass(frozen=True, slots=True)
class MarginTest:
    """Whether a difference stays within a margin. low, high: one-sided bounds of mean(a - b), each at `alpha`.

    p: of the hypothesis that it does not; holds: p < alpha.
    """

    difference: float
    low: float
    high: float
    margin: float
    alpha: float
    p: float
    holds: bool
    n: int


def bootstrap_interval(values: Values, *, seed: Seed, level: float = LEVEL, resamples: int = RESAMPLES) -> Interval:
    """Return a confidence interval of the mean: percentiles of the means of resamples, widened for few values.

    The percentiles are those at which normal values would give Student's interval (plain percentiles are too narrow by
    sqrt((n - 1) / n) and take the normal for the t distribution), so the interval never leaves the values' range. Below
    about 8 values that range is what it returns, which covers less than `level`.
    Raises RequestError on fewer than 2 values, on NaN or infinity, on a level outside (0, 1).
    Cost: resamples x min(n, 8 x different values) draws.
    Source: Efron 1979; the expanded percentile interval, Hesterberg, The American Statistician 69(4), 2015.
    """
    if not 0 < level < 1:
        raise RequestError(f"confidence level is {level}, expected a number between 0 and 1, such as 0.95")
    given = _checked(values, least=2)
    means = _resampled_means(given, resamples, np.random.default_rng(seed))
    tail = _tail(level, len(given))
    low, high = np.quantile(means, [tail, 1 - tail], method="weibull")
    return Interval(float(low), float(high))


def _tail(level: float, n: int) -> float:
    from scipy import special  # type: ignore[import-untyped]  # noqa: PLC0415  heavy

    quantile = float(special.stdtrit(n - 1, (1 + level) / 2))
    return float(special.ndtr(-quantile * math.sqrt(n / (n - 1))))


def _resampled_means(values: Values, resamples: int, rng: np.random.Generator) -> Values:
    different, counts = np.unique(values, return_counts=True)
    n = len(values)
    # With few different values, draw how often each of them comes: the same distribution for far fewer draws.
    by_count = 8 * len(different) <= n
    step = max(1, _DRAWS_AT_ONCE // (len(different) if by_count else n))
    means = np.empty(resamples)
    for start in range(0, resamples, step):
        size = min(step, resamples - start)
        if by_count:
            sums = rng.multinomial(n, counts / n, size=size) @ different
        else:
            sums = values[rng.integers(n, size=(size, n))].sum(axis=1)
        means[start : start + size] = sums / n
    return means


def paired(a: Values, b: Values, *, seed: Seed) -> Comparison:
    """Compare two systems on the same queries: positive where `a` is better.

    Differences that are all equal have no spread: p_t is then its limit, 0 (or 1 when all are 0); trust p_permutation.
    Raises RequestError on different lengths, on fewer than 2 queries, on NaN or infinity.
    """
    differences = _differences(a, b)
    of_interval, of_permutation = _as_sequence(seed).spawn(2)
    low, high = bootstrap_interval(differences, seed=of_interval)
    return Comparison(
        difference=float(differences.mean()),
        low=low,
        high=high,
        p_t=_p_t(differences),
        p_permutation=sign_flip(differences, seed=of_permutation),
        n=len(differences),
    )


def _as_sequence(seed: Seed) -> np.random.SeedSequence:
    # A sequence counts its children: a copy lets the caller's answer the same again.
    if isinstance(seed, int):
        return np.random.SeedSequence(seed)
    return np.random.SeedSequence(seed.entropy, spawn_key=seed.spawn_key)


def _p_t(differences: Values) -> float:
    from scipy import special  # noqa: PLC0415  heavy

    mean, error = _mean_and_error(differences)
    if error == 0:
        return 1.0 if mean == 0 else 0.0
    return float(2 * special.stdtr(len(differences) - 1, -abs(mean / error)))


def _mean_and_error(differences: Values) -> tuple[float, float]:
    return float(differences.mean()), float(differences.std(ddof=1) / math.sqrt(len(differences)))


def sign_flip(differences: Values, *, seed: Seed, resamples: int = RESAMPLES) -> float:
    """Return the two-sided p-value of "the mean is 0, each difference might as well have had the other sign".

    Up to 14 differences other than 0 all sign patterns are counted and the p-value is exact; beyond that
    p = (1 + b) / (1 + resamples), where b patterns were at least as extreme.
    Raises RequestError on no values, on NaN or infinity, on fewer than 9,999 resamples.
    Source: Fisher's randomisation test; Smucker, Allan and Carterette, CIKM 2007; Phipson and Smyth 2010 for the + 1.
    """
    if resamples < RESAMPLES:
        raise RequestError(f"{resamples} permutations, expected at least {RESAMPLES:,}: fewer give no fine p-value")
    given = _checked(differences, least=1)
    moved = given[given != 0]
    if len(moved) == 0:
        return 1.0
    total = float(moved.sum())
    extreme = abs(total) - _SAME_SUM * float(np.abs(moved).sum())
    if len(moved) <= EXACT_UP_TO:
        patterns = (np.arange(1 << len(moved))[:, None] >> np.arange(len(moved))) & 1
        return float(np.mean(np.abs(2 * (patterns @ moved) - total) >= extreme))
    rng = np.random.default_rng(seed)
    step = max(1, _DRAWS_AT_ONCE // len(moved))
    count = 0
    for start in range(0, resamples, step):
        shape = (min(step, resamples - start), (len(moved) + 7) // 8)
        kept = np.unpackbits(rng.integers(256, size=shape, dtype=np.uint8), axis=1, count=len(moved))
        count += int(np.count_nonzero(np.abs(2 * (kept.astype(np.float64) @ moved) - total) >= extreme))
    return (1 + count) / (1 + resamples)


def non_inferior(a: Values, b: Values, margin: float = MARGIN, *, alpha: float = 0.05) -> MarginTest:
    """Test whether `a` is worse than `b` by less than `margin` on average: one-sided t test of mean(a - b) > -margin.

    Raises RequestError as `paired` does, on a margin that is not positive and on alpha outside (0, 0.5).
    """
    return _margin_test(_differences(a, b), margin, alpha, both=False)


def equivalent(a: Values, b: Values, margin: float = MARGIN, *, alpha: float = 0.05) -> MarginTest:
    """Test whether `a` and `b` differ by less than `margin` on average: two one-sided t tests (TOST).

    It holds exactly when the interval [low, high], of level 1 - 2 alpha, lies within (-margin, margin).
    Raises RequestError as `non_inferior` does. Source: Schuirmann 1987.
    """
    return _margin_test(_differences(a, b), margin, alpha, both=True)


def _margin_test(differences: Values, margin: float, alpha: float, *, both: bool) -> MarginTest:
    from scipy import special  # noqa: PLC0415  heavy

    if not (margin > 0 and math.isfinite(margin)):
        raise RequestError(f"margin is {margin}, expected a positive number in units of the measure, such as {MARGIN}")
    if not 0 < alpha < 0.5:
        raise RequestError(f"alpha is {alpha}, expected a number between 0 and 0.5, such as 0.05")
    freedom = len(differences) - 1
    mean, error = _mean_and_error(differences)

    def p_beyond(distance: float) -> float:
        if error == 0:  # no spread: certain, as far as these queries go
            return 0.0 if distance > 0 else 1.0
        return float(special.stdtr(freedom, -distance / error))

    p = p_beyond(mean + margin)
    if both:
        p = max(p, p_beyond(margin - mean))
    reach = float(special.stdtrit(freedom, 1 - alpha)) * error
    return MarginTest(
        difference=mean,
        low=mean - reach,
        high=mean + reach,
        margin=margin,
        alpha=alpha,
        p=p,
        holds=p < alpha,
        n=len(differences),
    )


def holm(p: Values) -> Values:
    """Return p-values adjusted so that whoever claims those below alpha errs anywhere in the family at most at alpha.

    p: float64 (C,), one per claim; same order and shape out. Raises RequestError on a p-value outside [0, 1] or NaN.
    Source: Holm 1979.
    """
    values, order = _ordered(p)
    raised = np.maximum.accumulate(values[order] * np.arange(len(values), 0, -1))
    return _put_back(raised, order)


def benjamini_hochberg(p: Values) -> Values:
    """Return p-values adjusted so that, of all that fall below alpha, a share of at most alpha is expected to be false.

    For sweeps, whose claims are independent or positively dependent. p: float64 (C,); same order and shape out.
    Raises RequestError on a p-value outside [0, 1] or NaN. Source: Benjamini and Hochberg 1995.
    """
    values, order = _ordered(p)
    scaled = values[order] * (len(values) / np.arange(1, len(values) + 1))
    return _put_back(np.minimum.accumulate(scaled[::-1])[::-1], order)


def _ordered(p: Values) -> tuple[Values, npt.NDArray[np.int64]]:
    values = np.asarray(p, dtype=np.float64)
    if values.ndim != 1 or not ((values >= 0) & (values <= 1)).all():
        raise RequestError(f"p-values of shape {values.shape}: expected one dimension of numbers between 0 and 1")
    return values, np.argsort(values, kind="stable")


def _put_back(adjusted: Values, order: npt.NDArray[np.int64]) -> Values:
    result = np.empty_like(adjusted)
    result[order] = np.minimum(adjusted, 1.0)
    return result


def _differences(a: Values, b: Values) -> Values:
    left, right = _checked(a, least=2), _checked(b, least=2)
    if len(left) != len(right):
        raise RequestError(f"{len(left)} values against {len(right)}: a paired comparison needs the same queries")
    return left - right


def _checked(values: Values, *, least: int) -> Values:
    given = np.asarray(values, dtype=np.float64)
    if given.ndim != 1 or len(given) < least:
        raise RequestError(
            f"values of shape {given.shape}: expected one dimension, one value a query, at least {least}"
        )
    if not np.isfinite(given).all():
        place = int(np.flatnonzero(~np.isfinite(given))[0])
        raise RequestError(f"value {place} is {given[place]}: expected a finite number for every query")
    return given
