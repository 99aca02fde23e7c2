"""Runbooks over a living collection: utility as of a rebuilt one, and no deleted id ever returned (fact 11)."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest

from evaluation.runbook import RunbookTask, Step, churn, run_runbook
from index.errors import RequestError
from index.types import Rows
from retrieval.collection import Collection
from retrieval.collection_config import CollectionConfig, DenseField
from retrieval.encoders import EncoderConfig
from retrieval.types import Document, Query

DIM = 8
K = 5

pytestmark = pytest.mark.usefixtures("in_memory")


class FirstHit:
    """1 where the query's own document stands first."""

    name = "P@1"
    depth = 1

    def __init__(self, own: Rows) -> None:
        self._own = own

    @property
    def ceiling(self) -> npt.NDArray[np.float64]:
        return np.ones(len(self._own))

    def gains(self, rows: Rows) -> npt.NDArray[np.float64]:
        return (rows == self._own[:, None]).astype(np.float64)

    def __call__(self, rows: Rows) -> npt.NDArray[np.float64]:
        assert rows.shape == (len(self._own), K)
        return self.gains(rows)[:, 0]


def made(count: int, config: CollectionConfig | None = None) -> RunbookTask:
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(count, DIM)).astype(np.float32)
    documents = [Document(f"d{row}", vectors={"dense": vector}) for row, vector in enumerate(vectors)]
    queries = [Query(f"q{row}", "", vectors={"dense": vector}) for row, vector in enumerate(vectors)]
    field = DenseField(EncoderConfig(kind="external", dim=DIM))
    config = config or CollectionConfig(fields={"dense": field})
    return RunbookTask(documents, queries, FirstHit(np.arange(count)), config, k=K)


def test_every_step_equals_a_rebuild_and_no_deleted_id_comes_back() -> None:
    task = made(80)
    steps = churn(80, 3, seed=1)
    gone = next(step for step in steps if step.operation == "delete")
    changed = next(step for step in steps if step.operation == "replace")
    # What was deleted comes back, and what was replaced goes.
    steps += [Step("insert", gone.start, gone.stop), Step("delete", changed.start, changed.stop)]
    content: dict[int, int] = {}
    for step, result in zip(steps, run_runbook(task, steps, seed=0), strict=True):
        for place, row in enumerate(range(step.start, step.stop)):
            if step.operation == "delete":
                del content[row]
            else:
                content[row] = row if step.source is None else step.source + place
        assert result.ghosts == ()
        assert result.documents == len(content)
        assert result.recall.tolist() == [1.0] * 80
        assert result.difference == 0
        # Exactly the queries whose document's content is there find it.
        assert result.utility.tolist() == [float(row in content.values()) for row in range(80)]


def test_deleting_everything_leaves_nothing_to_return() -> None:
    task = made(6)
    steps = [Step("insert", 0, 6), Step("delete", 0, 6), Step("compact"), Step("insert", 2, 4)]
    results = list(run_runbook(task, steps, seed=0))
    assert [result.documents for result in results] == [6, 0, 0, 2]
    assert [result.utility.sum() for result in results] == [6, 0, 0, 2]
    assert all(result.ghosts == () for result in results)


def test_a_collection_that_returns_deleted_documents_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    # A store that forgets deletions, as stale tombstones would make it.
    monkeypatch.setattr(Collection, "delete", lambda *_, **__: 0)
    *_, last = run_runbook(made(6), [Step("insert", 0, 6), Step("delete", 0, 1)], seed=0)
    assert last.ghosts == ("d0",)
    assert last.utility[0] == 0


def test_approximate_indexes_are_compared_with_exact_search(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("index.calibrate._TIMED", 5)
    field = DenseField(EncoderConfig(kind="external", dim=DIM), index="ivf-flat", recall=0.5)
    task = made(1_300, CollectionConfig(fields={"dense": field}))
    task = replace(task, queries=task.queries[:40], utility=FirstHit(np.arange(40)))
    steps = [Step("insert", 0, 1_200), Step("compact"), Step("delete", 0, 30), Step("insert", 1_200, 1_300)]
    results = list(run_runbook(task, steps, seed=0))
    assert results[0].recall.mean() == 1  # not yet indexed
    assert all(0.3 < result.recall.mean() <= 1 for result in results)
    assert results[2].utility[:30].sum() == 0
    assert results[2].utility[30:].mean() > 0.5
    assert not any(result.ghosts for result in results)


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        ([("insert", 0, 3), ("insert", 2, 4)], "row 2 is there already"),
        ([("insert", 0, 3), ("delete", 2, 4)], "row 3 is not there"),
        ([("insert", 0, 3), ("replace", 0, 1, 2)], "content of row 2 is there"),
        ([("insert", 0, 99)], "the pool has 6"),
        ([("insert", 0, 3), ("replace", 0, 3, 5)], "the pool has 6"),
    ],
)
def test_steps_that_cannot_be_done(steps: list[tuple[object, ...]], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        list(run_runbook(made(6), [Step(*step) for step in steps], seed=0))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "make",
    [
        lambda: Step("search", 0, 3),
        lambda: Step("insert", 3, 3),
        lambda: Step("insert", 4, 3),
        lambda: Step("replace", 0, 3),
        lambda: Step("insert", 0, 3, 4),
        lambda: churn(7, 1, 0),
        lambda: churn(100, 0, 0),
        lambda: replace(made(6), k=0),
        lambda: replace(made(6), documents=[Document("same"), Document("same")]),
    ],
)
def test_what_makes_no_sense(make: Callable[[], object]) -> None:
    with pytest.raises(RequestError):
        make()


def test_churn_is_reproducible_and_always_possible() -> None:
    assert churn(100, 4, seed=7) == churn(100, 4, seed=7)
    for count, rounds in ((8, 1), (16, 1), (50, 5), (1_000, 3)):
        steps = churn(count, rounds, seed=count)
        assert max(step.stop for step in steps) <= count
