"""What holds for any values: bounds, order, symmetry."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from evaluation.statistics import benjamini_hochberg, bootstrap_interval, equivalent, holm, non_inferior, sign_flip

P_VALUES = arrays(np.float64, st.integers(0, 20), elements=st.floats(0, 1))
VALUES = arrays(np.float64, st.integers(2, 12), elements=st.floats(0, 1, width=16))


@given(P_VALUES)
def test_corrections_raise_p_values_and_keep_their_order(p: np.ndarray) -> None:
    order = np.argsort(p, kind="stable")
    strict, loose = holm(p), benjamini_hochberg(p)
    rounding = 1 + 1e-12
    for adjusted in (strict, loose):
        assert (adjusted * rounding >= p).all()
        assert (adjusted <= 1).all()
        assert (np.diff(adjusted[order]) >= 0).all()
    assert (loose <= strict * rounding).all()
    if len(p):
        assert (strict * rounding >= np.minimum(p.min() * len(p), 1)).all()  # Bonferroni's for the smallest


@given(P_VALUES, st.randoms(use_true_random=False))
def test_corrections_do_not_depend_on_the_order(p: np.ndarray, random: object) -> None:
    order = np.arange(len(p))
    random.shuffle(order)  # type: ignore[attr-defined]
    for adjust in (holm, benjamini_hochberg):
        assert (adjust(p)[order] == adjust(p[order])).all()


@given(VALUES)
@settings(max_examples=50)
def test_an_interval_lies_among_the_values_and_moves_with_them(values: np.ndarray) -> None:
    low, high = bootstrap_interval(values, seed=0, resamples=199)
    rounding = 1e-12
    assert values.min() - rounding <= low <= high <= values.max() + rounding
    moved = bootstrap_interval(values + 1, seed=0, resamples=199)
    assert abs(moved.low - low - 1) < 1e-9
    assert abs(moved.high - high - 1) < 1e-9


@given(VALUES)
def test_a_p_value_does_not_know_which_side_is_which(differences: np.ndarray) -> None:
    centred = differences - 0.5
    p = sign_flip(centred, seed=0)
    assert p == sign_flip(-centred, seed=0)
    assert 2 ** -len(centred) <= p <= 1


@given(VALUES, st.floats(0.001, 1))
def test_equivalence_is_non_inferiority_both_ways(differences: np.ndarray, margin: float) -> None:
    a, b = differences, np.full(len(differences), 0.5)
    both = equivalent(a, b, margin)
    assert both.p == max(non_inferior(a, b, margin).p, non_inferior(b, a, margin).p)
    assert both.low <= both.difference <= both.high
