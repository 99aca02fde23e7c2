from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from index.types import Rows
from retrieval.lexical import Accept
from retrieval.lexical.ranking import Scores, best_accepted


@dataclass
class Engine:
    """Scores by row; equal scores come in an order of the engine's own, another one for every limit."""

    scores: dict[int, float]
    fetched: int = 0

    def fetch(self, limit: int, among: Rows | None) -> tuple[Rows, Scores]:
        self.fetched += 1
        allowed = (
            self.scores if among is None else {row: self.scores[row] for row in among.tolist() if row in self.scores}
        )
        order = sorted(allowed, key=lambda row: (-allowed[row], row * 7919 % (limit + 13)))[:limit]
        return np.array(order, np.int64), np.array([allowed[row] for row in order], np.float32)


scored = st.dictionaries(st.integers(0, 5000), st.sampled_from([0.5, 1.0, 1.5, 2.0, 7.0]), max_size=300)


@given(scored, st.data(), st.integers(1, 60))
def test_the_answer_is_that_of_sorting_everything(
    accept: Callable[[object], Accept], scores: dict[int, float], data: st.DataObject, limit: int
) -> None:
    accepted = data.draw(
        st.none() | st.lists(st.integers(0, 5000) | st.sampled_from(sorted(scores) or [0]), unique=True)
    )
    # A filter may count rows that the index does not hold.
    total = len(scores) + data.draw(st.integers(0, 1000))
    found = best_accepted(Engine(scores).fetch, limit, None if accepted is None else accept(accepted), total)
    wanted = sorted((row for row in scores if accepted is None or row in accepted), key=lambda row: (-scores[row], row))
    assert found.rows.tolist() == wanted[:limit]
    assert found.scores.tolist() == [scores[row] for row in wanted[:limit]]
    assert found.rows.dtype == np.int64
    assert found.scores.dtype == np.float32


@given(st.integers(1, 50), st.integers(1, 5000))
def test_fetches_are_few_however_long_the_tie(limit: int, count: int) -> None:
    engine = Engine(dict.fromkeys(range(count), 1.0))
    assert best_accepted(engine.fetch, limit, None, count).rows.tolist() == list(range(min(limit, count)))
    assert engine.fetched <= 7
