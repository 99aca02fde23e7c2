"""Ledgers add up whatever the values; Shapley charges add up, and say what is obvious of obvious games."""

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from evaluation.ledger import GENERATIVE_STAGES, RERANK, VECTOR_STAGES, Ledger, shapley
from index.errors import RequestError

PLAYERS = ("metric", "ann", "quantisation")


def tables(rows: int) -> st.SearchStrategy[np.ndarray]:
    values = st.floats(0, 1, allow_subnormal=False)
    return st.integers(2, 8).flatmap(lambda n: arrays.arrays(np.float64, (rows, n), elements=values))


@given(tables(6), st.sampled_from([VECTOR_STAGES, GENERATIVE_STAGES]), st.booleans())
def test_terms_sum_to_what_is_final_for_every_query(
    values: np.ndarray, stages: tuple[str, ...], reranked: bool
) -> None:
    names = (*stages, RERANK) if reranked else stages
    ledger = Ledger("R@10", values[0], tuple(zip(names, values[1:], strict=False)))
    changes = ledger.changes()
    losses = sum(change for name, change in changes.items() if name != RERANK)
    gain = changes.get(RERANK, 0)
    assert np.abs(ledger.ceiling - losses + gain - ledger.final).max() <= 1e-12
    assert ledger.residual() <= 1e-12
    assert list(changes) == list(names)


@given(tables(8))
def test_charges_sum_to_the_total_loss(values: np.ndarray) -> None:
    cells = {frozenset(p for bit, p in enumerate(PLAYERS) if cell >> bit & 1): values[cell] for cell in range(8)}
    charged = shapley(PLAYERS, cells.__getitem__)
    total = values[0] - values[7]
    assert np.abs(sum(charged.values()) - total).max() <= 1e-12


@given(tables(8))
def test_a_charge_is_the_mean_over_all_orders(values: np.ndarray) -> None:
    cells = {frozenset(p for bit, p in enumerate(PLAYERS) if cell >> bit & 1): values[cell] for cell in range(8)}
    expected = {player: np.zeros(values.shape[1]) for player in PLAYERS}
    for order in permutations(PLAYERS):
        for place, player in enumerate(order):
            expected[player] += (cells[frozenset(order[:place])] - cells[frozenset(order[: place + 1])]) / 6
    charged = shapley(PLAYERS, cells.__getitem__)
    for player in PLAYERS:
        assert charged[player] == pytest.approx(expected[player], abs=1e-12)


def test_who_changes_nothing_is_charged_nothing_and_equals_share() -> None:
    def worth(players: frozenset[str]) -> np.ndarray:
        return np.array([0.5 if {"metric", "ann"} & players else 1.0])

    charged = {player: float(values[0]) for player, values in shapley(PLAYERS, worth).items()}
    assert charged == {"metric": 0.25, "ann": 0.25, "quantisation": 0.0}


def test_terms_have_intervals_around_their_means() -> None:
    rng = np.random.default_rng(0)
    values = rng.random((3, 200))
    terms = Ledger("R@10", values[0], (("embedding", values[1]), (RERANK, values[2]))).terms(seed=1)
    assert [each.name for each in terms] == ["ceiling", "embedding", RERANK, "final"]
    assert all(each.low < each.mean < each.high for each in terms)
    by_name = {each.name: each.mean for each in terms}
    assert by_name["ceiling"] - by_name["embedding"] + by_name[RERANK] == pytest.approx(by_name["final"], abs=1e-12)


def test_broken_ledgers_are_refused() -> None:
    good, short, broken = np.zeros(3), np.zeros(2), np.array([0.0, np.nan, 1.0])
    for stages in [(), (("metric", good), ("metric", good)), (("metric", short),), (("metric", broken),)]:
        with pytest.raises(RequestError, match="ledger"):
            Ledger("R@10", good, stages)
