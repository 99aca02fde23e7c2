"""Hubness against hand-computed values."""

import numpy as np
import pytest

from evaluation.hubness import anti_hub_share, gini, k_occurrence_skew, k_occurrences
from index.errors import RequestError, ShapeError


def test_occurrences_leave_padding_out() -> None:
    rows = np.array([[0, 1], [0, -1], [0, 3]])
    assert k_occurrences(rows, 5).tolist() == [3, 1, 0, 1, 0]
    assert anti_hub_share(rows, 5) == pytest.approx(2 / 5)


def test_skew_by_hand() -> None:
    # N = 3, 0, 0: mean 1, deviations 2, -1, -1: third moment (8 - 1 - 1) / 3 = 2, variance (4 + 1 + 1) / 3 = 2.
    rows = np.array([[0], [0], [0]])
    assert k_occurrence_skew(rows, 3) == pytest.approx(2 / 2**1.5)


def test_gini_by_hand() -> None:
    assert gini(np.array([5, 5, 5])) == pytest.approx(0)
    assert gini(np.array([0, 0, 0, 7])) == pytest.approx(3 / 4)
    # 1, 3: half the mean absolute difference (2 * 2 / 4 = 1) over the mean 2, halved.
    assert gini(np.array([3, 1])) == pytest.approx(0.25)


def test_what_is_undefined_is_refused() -> None:
    with pytest.raises(RequestError, match="equally often"):
        k_occurrence_skew(np.array([[0], [1]]), 2)
    for counts in ([0, 0], [], [-1, 2], [np.nan, 1]):
        with pytest.raises(RequestError, match="expected none negative"):
            gini(np.array(counts, dtype=np.float64))
    with pytest.raises(ShapeError, match="expected -1 to 1"):
        k_occurrences(np.array([[2]]), 2)
    with pytest.raises(RequestError, match="no vectors"):
        anti_hub_share(np.empty((0, 1), np.int64), 0)
