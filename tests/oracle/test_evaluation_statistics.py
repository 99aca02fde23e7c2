"""Our statistics against scipy's, and their promises by simulation."""

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from evaluation.statistics import (
    benjamini_hochberg,
    bootstrap_interval,
    equivalent,
    non_inferior,
    paired,
    sign_flip,
)

GAINS = np.array([0.0, 0.0, 0.0, 0.387, 0.431, 0.5, 0.631, 1.0, 1.0])
"""Values as nDCG@10 with one relevant document has them: many zeros, many ones, ties."""


def two(seed: int, n: int, shift: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    b = rng.random(n)
    return b + shift + 0.2 * rng.standard_normal(n), b


@pytest.mark.parametrize("n", [2, 3, 10, 200])
@pytest.mark.parametrize("shift", [0.0, 0.05, 0.5])
def test_the_paired_t_test_is_scipys(n: int, shift: float) -> None:
    a, b = two(n, n, shift)
    assert paired(a, b, seed=0).p_t == pytest.approx(stats.ttest_rel(a, b).pvalue, rel=1e-9)


@pytest.mark.parametrize("margin", [0.01, 0.1, 0.5])
def test_margins_are_scipys_one_sided_t_tests(margin: float) -> None:
    a, b = two(4, 25, -0.05)
    worse = stats.ttest_1samp(a - b, -margin, alternative="greater").pvalue
    better = stats.ttest_1samp(a - b, margin, alternative="less").pvalue
    assert non_inferior(a, b, margin).p == pytest.approx(worse, rel=1e-9)
    assert equivalent(a, b, margin).p == pytest.approx(max(worse, better), rel=1e-9)
    interval = stats.ttest_1samp(a - b, 0.0).confidence_interval(0.9)
    found = equivalent(a, b, margin)
    assert (found.low, found.high) == pytest.approx(tuple(interval), rel=1e-9)
    assert found.holds == (-margin < found.low and found.high < margin)


def difference(a: np.ndarray, b: np.ndarray, axis: int) -> np.ndarray:
    return np.mean(a - b, axis=axis)


@pytest.mark.parametrize("n", [2, 7, 12])
def test_few_sign_flips_are_scipys_exact_permutations(n: int) -> None:
    rng = np.random.default_rng(n)
    for a, b in (two(n, n, 0.1), (rng.choice(GAINS, n), rng.choice(GAINS, n))):
        expected = stats.permutation_test(
            (a, b), difference, permutation_type="samples", n_resamples=math.inf, vectorized=True
        )
        assert sign_flip(a - b, seed=0) == pytest.approx(expected.pvalue, abs=1e-12)


def test_many_sign_flips_come_near_scipys_permutations() -> None:
    a, b = two(0, 60, 0.03)
    expected = stats.permutation_test(
        (a, b), difference, permutation_type="samples", n_resamples=9_999, vectorized=True, rng=1
    ).pvalue
    assert 0.01 < expected < 0.9
    # Both are shares of 9,999 draws.
    assert sign_flip(a - b, seed=0) == pytest.approx(expected, abs=5 * math.sqrt(2 * expected * (1 - expected) / 9_999))


def test_benjamini_hochberg_is_scipys() -> None:
    rng = np.random.default_rng(0)
    for n in (1, 2, 5, 100):
        p = rng.random(n) ** 2
        assert benjamini_hochberg(p) == pytest.approx(stats.false_discovery_control(p), rel=1e-12)
    assert benjamini_hochberg(np.array([0.2, 0.2, 0.2])) == pytest.approx([0.2, 0.2, 0.2])


def test_the_interval_of_normal_values_is_students() -> None:
    for n in (10, 40, 400):
        values = stats.norm.ppf((np.arange(n) + 0.5) / n)
        low, high = bootstrap_interval(values, seed=0, resamples=39_999)
        expected = stats.ttest_1samp(values, 0.0).confidence_interval(0.95)
        width = expected.high - expected.low
        assert (low, high) == pytest.approx((expected.low, expected.high), abs=0.03 * width)


def test_the_interval_comes_near_that_of_all_resamples() -> None:
    # Five values have 5^5 resamples: the exact distribution that 9,999 draws stand for.
    values = np.array([0.0, 0.1, 0.35, 0.4, 1.0])
    means = values[np.array(list(itertools.product(range(5), repeat=5)))].mean(axis=1)
    for level in (0.5, 0.8):
        tail = stats.norm.cdf(stats.t.ppf((1 - level) / 2, 4) * math.sqrt(5 / 4))
        low, high = bootstrap_interval(values, seed=0, level=level)
        # Each bound is the tail's quantile: the mass below it is at most the tail, that up to it at least. Allowed are
        # four standard errors of 9,999 draws, and the rounding of sums.
        slack, rounding = 4 * math.sqrt(tail * (1 - tail) / 9_999), 1e-9
        assert np.mean(means < low - rounding) - slack <= tail <= np.mean(means <= low + rounding) + slack
        assert np.mean(means > high + rounding) - slack <= tail <= np.mean(means >= high - rounding) + slack


def test_null_comparisons_reject_no_more_often_than_they_say() -> None:
    rng = np.random.default_rng(0)
    simulations, level = 1_000, 0.05
    allowed = level + 2 * math.sqrt(level * (1 - level) / simulations)
    found = [paired(rng.choice(GAINS, 30), rng.choice(GAINS, 30), seed=number) for number in range(simulations)]
    assert np.mean([one.p_t <= level for one in found]) <= allowed
    assert np.mean([one.p_permutation <= level for one in found]) <= allowed
    # The interval answers the same question: 0 is outside about as often.
    assert np.mean([not one.low <= 0 <= one.high for one in found]) <= allowed


@pytest.mark.parametrize("n", [20, 80])
def test_intervals_cover_the_true_mean_as_often_as_they_say(n: int) -> None:
    rng = np.random.default_rng(n)
    simulations = 500
    covered = 0
    for number in range(simulations):
        low, high = bootstrap_interval(rng.choice(GAINS, n), seed=number, resamples=1_999)
        covered += low <= GAINS.mean() <= high
    assert covered / simulations == pytest.approx(0.95, abs=3 * math.sqrt(0.95 * 0.05 / simulations))
