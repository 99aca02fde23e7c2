import numpy as np
import pytest

from evaluation.halving import Worth, cheapest, lower_bound
from evaluation.statistics import Values
from index.errors import RequestError
from index.types import Rows


class Known:
    """Candidates whose worth per query is known; counts what is asked."""

    def __init__(self, worth: Values) -> None:
        self.worth = worth
        self.asked = 0

    def __call__(self, candidate: int, numbers: Rows) -> Values:
        self.asked += len(numbers)
        return self.worth[candidate, numbers]


def recalls(means: list[float], queries: int, seed: int = 0) -> Values:
    rng = np.random.default_rng(seed)
    return rng.binomial(10, np.array(means)[:, None], size=(len(means), queries)) / 10


def test_the_cheapest_that_meets_the_target_is_chosen() -> None:
    means = [0.5, 0.7, 0.85, 0.93, 0.99, 1.0]
    worth: Worth = Known(recalls(means, 400))
    found = cheapest(worth, np.ones(400), np.arange(6.0), 0.95)
    assert (found.candidate, found.met, found.queries) == (4, True, 200)
    assert found.worth == pytest.approx(0.99, abs=0.01)
    assert found.interval.low <= found.worth <= found.interval.high
    assert found.exact == 1


def test_the_number_reported_is_of_queries_that_did_not_choose() -> None:
    worth = recalls([0.97] * 40, 300, seed=3)
    found = cheapest(Known(worth), np.ones(300), np.arange(40.0), 0.9, seed=5)
    confirming = np.random.default_rng(5).permutation(300)[150:]
    assert found.worth == pytest.approx(worth[found.candidate, confirming].mean())
    assert found.queries == 150


def test_halving_spends_far_fewer_searches_than_trying_everything() -> None:
    worth = Known(recalls(np.linspace(0.3, 1, 64).tolist(), 1_000))
    found = cheapest(worth, np.ones(1_000), np.arange(64.0), 0.9)
    assert found.searches == worth.asked < 64 * 500 / 3
    assert found.met
    assert 0.9 <= np.linspace(0.3, 1, 64)[found.candidate] < 0.95


def test_a_hopeless_target_says_so_and_names_the_best() -> None:
    found = cheapest(Known(recalls([0.2, 0.6, 0.4], 200)), np.ones(200), np.array([1.0, 2, 3]), 0.9)
    assert (found.candidate, found.met) == (1, False)
    with_exact = cheapest(
        Known(recalls([0.2, 0.6, 0.4, 1.0], 200)), np.ones(200), np.array([1.0, 2, 3, 9]), 0.9, certain=3
    )
    assert (with_exact.candidate, with_exact.met, with_exact.worth) == (3, True, 1.0)


def test_utility_counts_against_that_of_exact_search() -> None:
    rng = np.random.default_rng(0)
    exact = rng.uniform(0.2, 0.6, 300)
    worth = np.stack([0.8 * exact, 0.96 * exact, exact])
    found = cheapest(Known(worth), exact, np.array([1.0, 2.0, 3.0]), 0.95)
    assert (found.candidate, found.met) == (1, True)


def test_a_setting_below_the_target_is_seldom_called_good_enough() -> None:
    wrong = 0
    for seed in range(200):
        worth = recalls([0.9] * 20, 120, seed=seed)  # all of them exactly at the target: none should be confirmed
        wrong += cheapest(Known(worth), np.ones(120), np.arange(20.0), 0.9, seed=seed).met
    assert wrong / 200 <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / 200)


def test_lower_bound_is_students() -> None:
    values = np.array([0.1, 0.4, 0.3, 0.9])
    # t(3) at 95 % is 2.353363 (tables)
    assert lower_bound(values, 0.05) == pytest.approx(values.mean() - 2.353363 * values.std(ddof=1) / 2, abs=1e-6)


@pytest.mark.parametrize(("queries", "count", "target"), [(19, 3, 0.9), (30, 0, 0.9), (30, 3, 0.0), (30, 3, 1.5)])
def test_what_cannot_be_chosen_from(queries: int, count: int, target: float) -> None:
    with pytest.raises(RequestError, match="expected"):
        cheapest(Known(np.ones((count, queries))), np.ones(queries), np.ones(count), target)
