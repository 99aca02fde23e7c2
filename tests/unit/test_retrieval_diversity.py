"""Maximal marginal relevance, by hand."""

import numpy as np
import numpy.typing as npt
import pytest

from retrieval.diversity import select_diverse

# Three directions: the first two almost alike (cosine .8), the third at right angles to both.
NEAR = np.array([[1, 0, 0], [0.8, 0.6, 0], [0, 0, 1]], np.float32)


def choose(scores: list[float], vectors: npt.NDArray[np.float32], k: int, diversity: float) -> list[int]:
    return select_diverse(np.array(scores), vectors, k, diversity).tolist()


def test_no_diversity_keeps_the_order() -> None:
    assert choose([3, 2, 1], NEAR, 3, 0.0) == [0, 1, 2]
    assert choose([3, 2, 1], NEAR, 2, 0.0) == [0, 1]


def test_choices_are_those_worked_out_by_hand() -> None:
    # Relevance, min-max of (10, 8, 0): 1, .8, 0. First: the best one. Then with diversity d
    #   place 1: (1 - d) * .8 - d * .8      place 2: (1 - d) * 0 - d * 0 = 0
    # so place 1 comes first while .8 - 1.6 d > 0, that is d < .5.
    assert choose([10, 8, 0], NEAR, 2, 0.49) == [0, 1]
    assert choose([10, 8, 0], NEAR, 2, 0.51) == [0, 2]
    assert choose([10, 8, 0], NEAR, 3, 0.51) == [0, 2, 1]


def test_similarity_is_that_to_the_nearest_choice_not_to_the_last() -> None:
    # Relevance 1, .9, .8, 0; place 2 repeats place 0, and place 1 is unlike both.
    vectors = np.array([[1, 0], [0, 1], [1, 0], [0.6, 0.8]], np.float32)
    # d = .5. Second: place 1 (.45 - 0), against place 2 (.4 - .5) and 3 (0 - .3).
    # Third: place 2: .4 - .5 = -.1 (to place 0; to the last choice it would be .4), place 3: 0 - .5 * .8 = -.4.
    assert choose([10, 9, 8, 0], vectors, 4, 0.5) == [0, 1, 2, 3]
    # d = .9. Third: place 2: .08 - .9 = -.82; place 3: 0 - .9 * .8 = -.72.
    assert choose([10, 9, 8, 0], vectors, 4, 0.9) == [0, 1, 3, 2]


def test_opposite_directions_are_welcome() -> None:
    vectors = np.array([[1, 0], [0, 1], [-1, 0]], np.float32)
    # d = .5, relevance 1, .5, 0. Place 1: .25 - 0; place 2: 0 + .5.
    assert choose([2, 1, 0], vectors, 3, 0.5) == [0, 2, 1]


def test_full_diversity_begins_with_the_best() -> None:
    assert choose([3, 2, 1], NEAR, 3, 1.0) == [0, 2, 1]


def test_equal_scores_count_as_fully_relevant() -> None:
    assert choose([5, 5, 5], NEAR, 3, 0.5) == [0, 2, 1]
    assert choose([5, 5, 5], NEAR, 3, 0.0) == [0, 1, 2]


def test_ties_go_to_the_better_place() -> None:
    same = np.array([[1, 0]] * 4, np.float32)
    assert choose([4, 3, 3, 3], same, 4, 0.5) == [0, 1, 2, 3]


@pytest.mark.parametrize("diversity", [0.0, 0.5, 1.0])
def test_more_choices_begin_with_fewer(diversity: float) -> None:
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(30, 4)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    scores = sorted(rng.normal(size=30).tolist(), reverse=True)
    everything = choose(scores, vectors, 30, diversity)
    assert sorted(everything) == list(range(30))
    for k in (0, 1, 7, 29, 100):
        assert choose(scores, vectors, k, diversity) == everything[:k]


def test_negative_scores_are_only_a_scale() -> None:
    assert choose([-1, -2, -10], NEAR, 3, 0.3) == choose([9, 8, 0], NEAR, 3, 0.3)


def test_nothing_to_choose_from() -> None:
    found = select_diverse(np.empty(0), np.empty((0, 3), np.float32), 5, 0.5)
    assert found.shape == (0,)
    assert found.dtype == np.int64
