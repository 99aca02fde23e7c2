"""Exact search, over all or a few rows or given candidates, against the plainest possible computation in float64."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from index import exact as exact_module
from index.bitmap import pack
from index.errors import IndexFormatError, ShapeError
from index.exact import exact, rescore
from index.flat import FlatIndex
from index.metric import METRICS, Metric, prepare
from index.vector_file import STORAGES, Storage, VectorFile, write_vectors


def brute_force(
    queries: npt.NDArray[np.float32], vectors: npt.NDArray[np.float32], metric: Metric
) -> npt.NDArray[np.float64]:
    """Scores of raw queries against vectors as stored (prepared, rounded)."""
    q, v = queries.astype(np.float64), vectors.astype(np.float64)
    if metric == "l2":
        return np.array([[-float(((a - b) ** 2).sum()) for b in v] for a in q]).reshape(len(q), len(v))
    lengths = np.linalg.norm(q, axis=1) if metric == "cosine" else np.ones(len(q))
    return np.array([[float(np.dot(a, b)) / n for b in v] for a, n in zip(q, lengths, strict=True)]).reshape(
        len(q), len(v)
    )


def stored(folder: Path, vectors: npt.NDArray[np.float32], storage: Storage = "float32") -> VectorFile:
    write_vectors(folder, iter([vectors]), vectors.shape[1], len(vectors), storage)
    return VectorFile.open(folder)


def check(found, expected: npt.NDArray[np.float64], k: int) -> None:
    """Whether `found` holds the k best of expected (Q, N), -inf excluded, and pads the rest."""
    for query in range(len(expected)):
        order = np.argsort(-expected[query], kind="stable")
        order = order[np.isfinite(expected[query, order])][:k]
        n = len(order)
        np.testing.assert_allclose(found.scores[query, :n], expected[query, order], rtol=1e-4, atol=1e-4)
        assert found.rows[query, :n].tolist() == order.tolist()
        assert (found.rows[query, n:] == -1).all()
        assert (found.scores[query, n:] == -np.inf).all()


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("share", [1.0, 0.97, 0.7, 0.05, 0.0])
def test_search_is_brute_force(tmp_path: Path, metric: Metric, storage: Storage, share: float) -> None:
    rng = np.random.default_rng(7)
    vectors = rng.normal(size=(523, 17)).astype(np.float32)
    queries = rng.normal(size=(9, 17)).astype(np.float32)
    blocks = [prepare(vectors[:200], metric), prepare(vectors[200:], metric)]
    write_vectors(tmp_path, iter(blocks), 17, 523, storage)
    index = FlatIndex.open(tmp_path, metric)
    assert (index.dim, len(index)) == (17, 523)
    mask = rng.random(523) < share
    expected = brute_force(queries, index.vectors(np.arange(523)), metric)
    expected[:, ~mask] = -np.inf
    check(index.search(queries, 20, None if share == 1.0 else pack(mask)), expected, 20)
    tolerance = {"float32": 0, "float16": 1e-2, "int8": 0.1}[storage]
    np.testing.assert_allclose(index.vectors(np.array([300, 2])), prepare(vectors, metric)[[300, 2]], atol=tolerance)


def test_equal_scores_come_in_row_order(tmp_path: Path) -> None:
    vectors = np.tile(np.array([[1, 0], [0, 1]], np.float32), (50, 1))
    index = FlatIndex(stored(tmp_path, vectors), "ip")
    assert index.search(np.array([[1, 0]], np.float32), 5).rows.tolist() == [[0, 2, 4, 6, 8]]
    odd = np.arange(100) % 4 > 1
    assert index.search(np.array([[1, 0]], np.float32), 3, pack(odd)).rows.tolist() == [[2, 6, 10]]


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("storage", STORAGES)
def test_identical_vectors_come_in_row_order(
    tmp_path: Path, metric: Metric, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exact_module, "_BLOCK_SCORES", 2 * 30)
    vectors = prepare(np.full((100, 3), 0.25, np.float32), metric)
    found = FlatIndex(stored(tmp_path, vectors, storage), metric).search(np.ones((2, 3), np.float32), 70)
    assert found.rows.tolist() == [list(range(70))] * 2


@pytest.mark.parametrize("storage", STORAGES)
def test_blocks_do_not_change_the_answer(tmp_path: Path, storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(1)
    queries = rng.normal(size=(3, 8)).astype(np.float32)
    index = FlatIndex(stored(tmp_path, rng.normal(size=(300, 8)).astype(np.float32), storage), "ip")
    masks = [pack(rng.random(300) < share) for share in (0.95, 0.6, 0.2)]
    masks.append(pack((np.arange(300) >= 40) & (np.arange(300) < 250)))
    whole = [index.search(queries, 12, mask) for mask in (None, *masks)]
    monkeypatch.setattr(exact_module, "_BLOCK_SCORES", 3 * 7)
    monkeypatch.setattr(exact_module, "_COPIED_VALUES", 8 * 2)
    for before, mask in zip(whole, (None, *masks), strict=True):
        after = index.search(queries, 12, mask)
        np.testing.assert_array_equal(before.rows, after.rows)
        np.testing.assert_allclose(before.scores, after.scores, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("count", [0, 1])
@pytest.mark.parametrize("dim", [1, 4_096])
def test_no_vector_one_vector_and_dimensions_at_the_ends(
    tmp_path: Path, storage: Storage, count: int, dim: int
) -> None:
    vectors = stored(tmp_path, np.full((count, dim), 0.5, np.float32), storage)
    queries = np.ones((2, dim), np.float32)
    candidates = np.array([[-1, 0], [0, -1]]) if count else np.full((2, 2), -1)
    for found in (
        FlatIndex(vectors, "ip").search(queries, 3),
        FlatIndex(vectors, "ip").search(queries, 3, pack(np.ones(count, np.bool_))),
        rescore(vectors, "ip", queries, candidates, 3),
    ):
        assert found.rows.tolist() == [[0, -1, -1] if count else [-1] * 3] * 2
        np.testing.assert_allclose(found.scores[:, :count], dim / 2, rtol=1e-4)
        assert (found.scores[:, count:] == -np.inf).all()


@pytest.mark.parametrize("storage", STORAGES)
def test_a_zero_vector_scores_zero(tmp_path: Path, storage: Storage) -> None:
    zero = stored(tmp_path, prepare(np.zeros((1, 4), np.float32), "cosine"), storage)
    assert FlatIndex(zero, "cosine").search(np.ones((1, 4), np.float32), 1).scores.tolist() == [[0.0]]


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("step", [1, 1 << 18])
def test_rescore_is_brute_force_over_the_candidates(
    tmp_path: Path, metric: Metric, storage: Storage, step: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exact_module, "_COPIED_VALUES", step)
    rng = np.random.default_rng(3)
    vectors = stored(tmp_path, prepare(rng.normal(size=(90, 7)).astype(np.float32), metric), storage)
    queries = rng.normal(size=(5, 7)).astype(np.float32)
    candidates = np.stack([rng.permutation(90)[:30] for _ in range(5)])
    candidates[rng.random(candidates.shape) < 0.3] = -1
    candidates[4] = -1
    expected = brute_force(queries, vectors.rows(np.arange(90)), metric)
    for query in range(5):
        expected[query, np.setdiff1d(np.arange(90), candidates[query])] = -np.inf
    for k in (1, 10, 30, 40):
        found = rescore(vectors, metric, prepare(queries, metric), candidates, k)
        assert found.scores.shape == found.rows.shape == (5, k)
        assert (found.scores.dtype, found.rows.dtype) == (np.float32, np.int64)
        check(found, expected, k)


def test_rescore_puts_equal_scores_in_row_order(tmp_path: Path) -> None:
    vectors = stored(tmp_path, np.ones((9, 2), np.float32))
    found = rescore(vectors, "l2", np.ones((1, 2), np.float32), np.array([[7, -1, 3, 8, 0]]), 4)
    assert found.rows.tolist() == [[0, 3, 7, 8]]


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_integers_are_searched_without_any_rounding(tmp_path_factory: pytest.TempPathFactory, data) -> None:
    """Small integers have exact products, so every tie is a true tie and every storage must agree on it."""
    count, dim, k = data.draw(st.integers(0, 40)), data.draw(st.integers(1, 3)), data.draw(st.integers(1, 12))
    metric = data.draw(st.sampled_from(("ip", "l2")))
    storage = data.draw(st.sampled_from(("float32", "float16")))
    rng = np.random.default_rng(data.draw(st.integers(0, 1_000)))
    numbers = rng.integers(-2, 3, size=(count, dim)).astype(np.float32)
    queries = rng.integers(-2, 3, size=(data.draw(st.integers(0, 3)), dim)).astype(np.float32)
    rows = np.flatnonzero(rng.random(count) < data.draw(st.sampled_from((0.1, 0.6, 1.0))))
    vectors = stored(tmp_path_factory.mktemp("v"), numbers, storage)
    expected = brute_force(queries, numbers, metric)
    expected[:, np.setdiff1d(np.arange(count), rows)] = -np.inf
    found = exact(vectors, metric, queries, rows, k)
    check(found, expected, k)
    again = rescore(vectors, metric, queries, np.tile(rng.permutation(rows), (len(queries), 1)), k)
    np.testing.assert_array_equal(found.rows, again.rows)
    np.testing.assert_array_equal(found.scores, again.scores)


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
def test_bad_queries_are_refused(tmp_path: Path, bad: npt.NDArray[np.generic]) -> None:
    with pytest.raises(ShapeError):
        FlatIndex(stored(tmp_path, np.ones((2, 4), np.float32)), "ip").search(bad, 1)  # type: ignore[arg-type]


def test_bad_settings_are_refused(tmp_path: Path) -> None:
    index = FlatIndex(stored(tmp_path, np.ones((2, 4), np.float32)), "ip")
    with pytest.raises(ValueError, match="k is 0"):
        index.search(np.ones((1, 4), np.float32), 0)
    with pytest.raises(ShapeError, match="bitmap"):
        index.search(np.ones((1, 4), np.float32), 1, np.zeros(2, np.uint8))


def test_opening_without_vectors_is_refused(tmp_path: Path) -> None:
    with pytest.raises(IndexFormatError, match="missing"):
        FlatIndex.open(tmp_path, "ip")
