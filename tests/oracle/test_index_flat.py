"""Flat search against the plainest possible computation in float64."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from index.bitmap import pack
from index.errors import ShapeError
from index.flat import FlatIndex, write_flat
from index.metric import METRICS, Metric, prepare


def brute_force(
    queries: npt.NDArray[np.float32], vectors: npt.NDArray[np.float32], metric: Metric
) -> npt.NDArray[np.float64]:
    q, v = queries.astype(np.float64), vectors.astype(np.float64)
    if metric == "ip":
        return np.array([[float(np.dot(a, b)) for b in v] for a in q])
    if metric == "l2":
        return np.array([[-float(((a - b) ** 2).sum()) for b in v] for a in q])
    return np.array([[float(np.dot(a, b) / (np.linalg.norm(a) * np.linalg.norm(b))) for b in v] for a in q])


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("share", [1.0, 0.7, 0.05, 0.0])
def test_search_is_brute_force(tmp_path: Path, metric: Metric, share: float) -> None:
    rng = np.random.default_rng(7)
    vectors = rng.normal(size=(523, 17)).astype(np.float32)
    queries = rng.normal(size=(9, 17)).astype(np.float32)
    write_flat(tmp_path, iter([prepare(vectors[:200], metric), prepare(vectors[200:], metric)]), 17, 523)
    index = FlatIndex.open(tmp_path, metric)
    mask = rng.random(523) < share
    expected = brute_force(queries, vectors, metric)
    expected[:, ~mask] = -np.inf
    found = index.search(queries, 20, None if share == 1.0 else pack(mask))
    for query in range(len(queries)):
        order = np.argsort(-expected[query], kind="stable")[: min(20, int(mask.sum()))]
        n = len(order)
        np.testing.assert_allclose(found.scores[query, :n], expected[query, order], rtol=1e-4, atol=1e-4)
        assert set(found.rows[query, :n].tolist()) <= set(np.flatnonzero(mask).tolist())
        assert found.rows[query, :n].tolist() == order.tolist()
        assert (found.rows[query, n:] == -1).all()
        assert (found.scores[query, n:] == -np.inf).all()


def test_equal_scores_come_in_row_order() -> None:
    vectors = np.tile(np.array([[1, 0], [0, 1]], np.float32), (50, 1))
    found = FlatIndex(vectors, "ip").search(np.array([[1, 0]], np.float32), 5)
    assert found.rows.tolist() == [[0, 2, 4, 6, 8]]


def test_blocks_do_not_change_the_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(1)
    vectors, queries = rng.normal(size=(300, 8)).astype(np.float32), rng.normal(size=(3, 8)).astype(np.float32)
    mask = rng.random(300) < 0.6
    whole = FlatIndex(vectors, "ip").search(queries, 12, pack(mask))
    monkeypatch.setattr("index.flat._BLOCK_SCORES", 3 * 7)
    pieces = FlatIndex(vectors, "ip").search(queries, 12, pack(mask))
    np.testing.assert_array_equal(whole.rows, pieces.rows)


def test_empty_index_and_zero_vectors(tmp_path: Path) -> None:
    write_flat(tmp_path, iter([]), 4, 0)
    found = FlatIndex.open(tmp_path, "cosine").search(np.ones((2, 4), np.float32), 3)
    assert (found.rows == -1).all()
    zero = FlatIndex(prepare(np.zeros((1, 4), np.float32), "cosine"), "cosine")
    assert zero.search(np.ones((1, 4), np.float32), 1).scores.tolist() == [[0.0]]


@pytest.mark.parametrize(
    "bad",
    [
        np.ones((1, 3), np.float32),
        np.ones(4, np.float32),
        np.ones((1, 4), np.int64),
        np.array([[np.nan, 0, 0, 0]], np.float32),
        np.array([[np.inf, 0, 0, 0]], np.float32),
    ],
)
def test_bad_queries_are_refused(bad: npt.NDArray[np.generic]) -> None:
    with pytest.raises(ShapeError):
        FlatIndex(np.ones((2, 4), np.float32), "ip").search(bad, 1)  # type: ignore[arg-type]


def test_k_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match="k is 0"):
        FlatIndex(np.ones((2, 4), np.float32), "ip").search(np.ones((1, 4), np.float32), 0)


def test_a_wrong_number_of_rows_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ShapeError, match="got 2 rows, expected 3"):
        write_flat(tmp_path, iter([np.ones((2, 4), np.float32)]), 4, 3)
    with pytest.raises(ShapeError, match="expected float32"):
        write_flat(tmp_path, iter([np.ones((2, 5), np.float32)]), 4, 2)
