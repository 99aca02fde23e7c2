"""Statistics of per-query values: paired comparisons, margins, and corrections for many claims.

Values are float64 (Q,), one per query and in the same order on both sides.

    one number      bootstrap_interval (evaluation.resampling)
    one claim       paired: the difference with its interval, paired t and sign-flip permutation
    "not worse"     non_inferior; "as good as" equivalent (TOST), both with a margin in units of the measure
    many claims     holm for the few claims of one comparison, benjamini_hochberg for sweeps
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from evaluation.resampling import (
    LEVEL,
    Columns,
    Interval,
    Seed,
    Values,
    as_column,
    bootstrap_interval,
    bootstrap_intervals,
    checked_columns,
    sign_flip,
    sign_flips,
)
from index.errors import RequestError

__all__ = [
    "LEVEL",
    "MARGIN",
    "Columns",
    "Comparison",
    "Interval",
    "MarginTest",
    "Values",
    "benjamini_hochberg",
    "bootstrap_interval",
    "bootstrap_intervals",
    "equivalent",
    "holm",
    "non_inferior",
    "paired",
    "paired_columns",
    "sign_flip",
    "sign_flips",
]

MARGIN = 0.005
"""Difference of a measure in [0, 1] that does not matter to its users."""


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


def paired(a: Values, b: Values, *, seed: Seed) -> Comparison:
    """Compare two systems on the same queries: positive where `a` is better.

    Differences that are all equal have no spread: p_t is then its limit, 0 (or 1 when all are 0); trust p_permutation.
    Raises RequestError on different lengths, on fewer than 2 queries, on NaN or infinity.
    """
    return paired_columns(as_column(a), as_column(b), seed=seed)[0]


def paired_columns(a: Columns, b: Columns, *, seed: Seed) -> list[Comparison]:
    """Compare as `paired` does, column by column, with resamples and sign flips drawn once for all."""
    differences = _differences(a, b)
    of_interval, of_permutation = _as_sequence(seed).spawn(2)
    intervals = bootstrap_intervals(differences, seed=of_interval)
    p_permutation = sign_flips(differences, seed=of_permutation)
    return [
        Comparison(
            difference=float(differences[:, place].mean()),
            low=interval.low,
            high=interval.high,
            p_t=_p_t(differences[:, place]),
            p_permutation=float(p_permutation[place]),
            n=len(differences),
        )
        for place, interval in enumerate(intervals)
    ]


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


def non_inferior(a: Values, b: Values, margin: float = MARGIN, *, alpha: float = 0.05) -> MarginTest:
    """Test whether `a` is worse than `b` by less than `margin` on average: one-sided t test of mean(a - b) > -margin.

    Raises RequestError as `paired` does, on a margin that is not positive and on alpha outside (0, 0.5).
    """
    return _margin_test(_differences(as_column(a), as_column(b))[:, 0], margin, alpha, both=False)


def equivalent(a: Values, b: Values, margin: float = MARGIN, *, alpha: float = 0.05) -> MarginTest:
    """Test whether `a` and `b` differ by less than `margin` on average: two one-sided t tests (TOST).

    It holds exactly when the interval [low, high], of level 1 - 2 alpha, lies within (-margin, margin).
    Raises RequestError as `non_inferior` does. Source: Schuirmann 1987.
    """
    return _margin_test(_differences(as_column(a), as_column(b))[:, 0], margin, alpha, both=True)


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


def _differences(a: Columns, b: Columns) -> Columns:
    left, right = checked_columns(a, least=2), checked_columns(b, least=2)
    if left.shape != right.shape:
        raise RequestError(
            f"values of shapes {left.shape} and {right.shape}: a paired comparison needs the same queries"
        )
    return left - right
