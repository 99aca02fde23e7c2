"""Statistics against values worked out by hand, and what has no answer is refused."""

import math
import tracemalloc
from collections.abc import Callable
from dataclasses import astuple
from typing import Any

import numpy as np
import pytest

from evaluation.statistics import (
    Interval,
    benjamini_hochberg,
    bootstrap_interval,
    bootstrap_intervals,
    equivalent,
    holm,
    non_inferior,
    paired,
    paired_columns,
    sign_flip,
    sign_flips,
)
from index.errors import RequestError

ONE = np.array([1.0])
TWO = np.array([0.0, 1.0])


def array(*values: float) -> np.ndarray:
    return np.array(values, dtype=np.float64)


# -- many claims ------------------------------------------------------------------------------------------------------


def test_holm_by_hand() -> None:
    # Sorted: .01 x 4 = .04, .02 x 3 = .06, .03 x 2 = .06, .9 x 1 = .9.
    assert holm(array(0.03, 0.01, 0.9, 0.02)) == pytest.approx([0.06, 0.04, 0.9, 0.06])
    # A later product may be smaller, and still the claim cannot be surer than one before it: .04 x 2 = .08, .05 -> .08.
    assert holm(array(0.04, 0.05)) == pytest.approx([0.08, 0.08])
    assert holm(array(0.6, 0.7, 1.0)).tolist() == [1.0, 1.0, 1.0]
    assert holm(array(0.01, 0.01)).tolist() == [0.02, 0.02]
    assert holm(array(0.2)).tolist() == [0.2]
    assert holm(array()).tolist() == []


def test_benjamini_hochberg_by_hand() -> None:
    # Sorted: .01 x 4/1 = .04, .02 x 4/2 = .04, .04 x 4/3 = .0533, .05 x 4/4 = .05 -> the third is .05, too.
    assert benjamini_hochberg(array(0.05, 0.01, 0.04, 0.02)) == pytest.approx([0.05, 0.04, 0.05, 0.04])
    assert benjamini_hochberg(array(0.5, 1.0)).tolist() == [1.0, 1.0]
    assert benjamini_hochberg(array()).tolist() == []


@pytest.mark.parametrize("adjust", [holm, benjamini_hochberg])
@pytest.mark.parametrize("p", [array(0.5, math.nan), array(-0.1), array(1.1), np.full((2, 2), 0.5), np.array(0.5)])
def test_what_is_no_p_value_is_refused(adjust: Callable[[Any], Any], p: np.ndarray) -> None:
    with pytest.raises(RequestError, match="between 0 and 1"):
        adjust(p)


# -- one claim --------------------------------------------------------------------------------------------------------


def test_sign_flips_are_counted_exactly_where_they_are_few() -> None:
    # Of the four sums 3, 1, -1, -3 two are as extreme as 3; of 2, 0, 0, -2 all are as extreme as 0.
    assert sign_flip(array(1, 2), seed=0) == 0.5
    assert sign_flip(array(1, -1), seed=0) == 1.0
    # All of one sign: only that pattern and its opposite, 2 of 2^n.
    for n in range(1, 15):
        assert sign_flip(np.full(n, 0.1), seed=0) == 2 / 2**n
    # Queries without a difference say nothing.
    assert sign_flip(array(0, 1, 0, 2, 0), seed=0) == 0.5
    assert sign_flip(np.zeros(100), seed=0) == 1.0


def test_rounding_does_not_tell_equal_sums_apart() -> None:
    # .1 + .2 is not .3 in floating point: of the eight patterns, both of sum .6 and -.6 are as extreme, no other;
    # and of (.1, .2, -.3), whose sum is 0, all are.
    assert sign_flip(array(0.1, 0.2, 0.3), seed=0) == 0.25
    assert sign_flip(array(0.1, 0.2, -0.3), seed=0) == 1.0


def test_a_sampled_p_value_is_never_0() -> None:
    assert sign_flip(np.full(200, 0.3), seed=0) == 1 / 10_000
    assert sign_flip(np.full(200, 0.3), seed=0, resamples=19_999) == 1 / 20_000


def test_a_comparison_is_positive_where_the_first_is_better() -> None:
    rng = np.random.default_rng(1)
    b = rng.random(50)
    found = paired(b + 0.1 + 0.01 * rng.standard_normal(50), b, seed=3)
    assert found.n == 50
    assert 0 < found.low < found.difference < found.high
    assert found.difference == pytest.approx(0.1, abs=0.01)
    assert found.p_t < 1e-20
    assert found.p_permutation == 1 / 10_000


def test_a_system_against_itself_differs_by_nothing() -> None:
    values = np.random.default_rng(0).random(30)
    found = paired(values, values, seed=0)
    assert (found.difference, found.low, found.high, found.p_t, found.p_permutation) == (0.0, 0.0, 0.0, 1.0, 1.0)


def test_differences_without_spread_are_sure_only_for_the_t_test() -> None:
    found = paired(array(0.75, 0.5), array(0.5, 0.25), seed=0)
    assert (found.difference, found.low, found.high) == (0.25, 0.25, 0.25)
    assert (found.p_t, found.p_permutation) == (0.0, 0.5)


def test_the_same_seed_gives_the_same_numbers() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.random(40), rng.random(40)
    assert paired(a, b, seed=5) == paired(a, b, seed=5)
    assert paired(a, b, seed=5) != paired(a, b, seed=6)
    sequence = np.random.SeedSequence(5)
    assert paired(a, b, seed=sequence) == paired(a, b, seed=sequence) == paired(a, b, seed=5)
    assert bootstrap_interval(a, seed=1) == bootstrap_interval(a, seed=1)


def test_an_interval_stays_among_the_values() -> None:
    assert bootstrap_interval(np.full(9, 0.5), seed=0) == Interval(0.5, 0.5)
    assert bootstrap_interval(TWO, seed=0) == Interval(0.0, 1.0)  # two values support no more than their range
    low, high = bootstrap_interval(np.array([0.0] * 30 + [1.0]), seed=0)
    assert 0 <= low < 1 / 31 < high < 0.2
    narrow, wide = (bootstrap_interval(np.arange(20.0), seed=0, level=level) for level in (0.5, 0.99))
    assert wide.low < narrow.low < 9.5 < narrow.high < wide.high


def test_columns_are_each_measured_as_if_alone() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.random((40, 4)), rng.random((40, 4))
    a[10:, 1] = b[10:, 1]  # ten differences: exact
    a[:, 2] = b[:, 2]  # none
    found = paired_columns(a, b, seed=7)
    alone = [paired(a[:, place], b[:, place], seed=7) for place in range(4)]
    assert [astuple(one) for one in found] == [pytest.approx(astuple(one)) for one in alone]
    assert sign_flips(a - b, seed=1).tolist() == [sign_flip((a - b)[:, place], seed=1) for place in range(4)]
    assert found[1].p_permutation * 2**10 == pytest.approx(round(found[1].p_permutation * 2**10))
    assert found[2].p_permutation == 1.0
    intervals = bootstrap_intervals(a, seed=1)
    assert intervals == [pytest.approx(bootstrap_interval(a[:, place], seed=1)) for place in range(4)]
    with pytest.raises(RequestError, match="same queries"):
        paired_columns(a, b[:, :3], seed=0)
    with pytest.raises(RequestError, match=r"shape \(40, 0\)"):
        bootstrap_intervals(a[:, :0], seed=0)


def test_memory_does_not_grow_with_queries_times_resamples() -> None:
    rng = np.random.default_rng(0)
    tracemalloc.start()
    try:
        bootstrap_interval(rng.random(20_000), seed=0, resamples=1_000)  # at once: 160 MB
        sign_flip(rng.standard_normal(5_000), seed=0)  # at once: 400 MB
        assert tracemalloc.get_traced_memory()[1] < 100 << 20
    finally:
        tracemalloc.stop()


# -- margins ----------------------------------------------------------------------------------------------------------


def test_margins_by_hand() -> None:
    # Differences -1, 0, 1: mean 0, standard error 1 / sqrt(3). Student's distribution function for 2 degrees of freedom
    # is 1/2 + t / (2 sqrt(2 + t^2)); at t = margin sqrt(3).
    # Its 95th percentile solves .45 = t / (2 sqrt(2 + t^2)), so t = .9 sqrt(2 / .19).
    a, b = array(0, 1, 2), array(1, 1, 1)
    bound = 0.9 * math.sqrt(2 / 0.19) / math.sqrt(3)
    for margin in (0.5, 2.0, 10.0):
        t = margin * math.sqrt(3)
        p = 0.5 - t / (2 * math.sqrt(2 + t * t))
        for test in (non_inferior, equivalent):
            found = test(a, b, margin)
            assert found.p == pytest.approx(p)
            assert found.holds == (p < 0.05)
            assert (found.low, found.high) == pytest.approx((-bound, bound))
            assert (found.difference, found.margin, found.alpha, found.n) == (0, margin, 0.05, 3)


def test_better_is_not_inferior_and_not_equivalent() -> None:
    rng = np.random.default_rng(0)
    b = rng.random(100)
    a = b + 0.1 + 0.01 * rng.standard_normal(100)
    assert non_inferior(a, b).holds
    assert not non_inferior(b, a).holds
    assert not equivalent(a, b).holds
    assert equivalent(a, b, 0.2).holds


def test_margins_without_spread() -> None:
    b = array(0.5, 0.5, 0.5)
    assert non_inferior(b, b).holds
    assert equivalent(b, b).holds
    assert non_inferior(b - 0.25, b, 0.5).holds
    assert not non_inferior(b - 0.25, b, 0.25).holds  # at the margin is not within it
    assert not equivalent(b + 0.25, b, 0.25).holds
    assert non_inferior(b + 0.25, b, 0.25).holds


@pytest.mark.parametrize(
    "asked",
    [
        lambda: bootstrap_interval(ONE, seed=0),
        lambda: bootstrap_interval(array(), seed=0),
        lambda: bootstrap_interval(array(1, math.nan), seed=0),
        lambda: bootstrap_interval(array(1, math.inf), seed=0),
        lambda: bootstrap_interval(np.zeros((2, 2)), seed=0),
        lambda: bootstrap_interval(TWO, seed=0, level=1.0),
        lambda: bootstrap_interval(TWO, seed=0, level=math.nan),
        lambda: paired(TWO, array(1, 2, 3), seed=0),
        lambda: paired(ONE, ONE, seed=0),
        lambda: paired(TWO, array(0, math.nan), seed=0),
        lambda: sign_flip(array(), seed=0),
        lambda: sign_flip(TWO, seed=0, resamples=999),
        lambda: non_inferior(TWO, TWO, 0.0),
        lambda: non_inferior(TWO, TWO, math.nan),
        lambda: equivalent(TWO, TWO, alpha=0.5),
        lambda: equivalent(ONE, ONE),
    ],
)
def test_what_has_no_answer_is_refused(asked: Callable[[], Any]) -> None:
    with pytest.raises(RequestError, match=r"expected|needs"):
        asked()
