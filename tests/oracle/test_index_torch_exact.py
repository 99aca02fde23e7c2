"""torch's exact search, on torch's CPU device, against the CPU's own: the same rows, whatever the device rounds."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch

from index import torch_exact, torch_scores
from index.bitmap import pack
from index.errors import ConfigError, ShapeError
from index.flat import FlatIndex
from index.held_out import Exchange, exchange_rows
from index.metric import METRICS, Metric, prepare
from index.torch_exact import TorchExact
from index.torch_scores import DeviceVectors
from index.types import Neighbors
from index.vector_file import STORAGES, Storage, VectorFile, write_vectors

Array = npt.NDArray[np.float32]

RESIDENT = {"all": None, "some": 128 * 40, "none": 0}
"""Device memory for the vectors: what does not fit is sent for every search."""


@pytest.fixture(autouse=True)
def _small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many pieces, turns and blocks even of a few hundred vectors."""
    monkeypatch.setattr(torch_scores, "_SCORES", 16 * 100)
    monkeypatch.setattr(torch_scores, "_SENT_VALUES", 17 * 50)
    monkeypatch.setattr(torch_exact, "_QUERIES", 7)
    monkeypatch.setattr(torch_exact, "_FEW_ROWS", 0)


@pytest.fixture
def margins(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """What the device is asked for, call by call."""
    asked: list[int] = []
    best = DeviceVectors.best

    def counted(self: DeviceVectors, queries: Array, wanted: int, allowed: npt.NDArray[np.uint8] | None) -> object:
        asked.append(wanted)
        return best(self, queries, wanted, allowed)

    monkeypatch.setattr(DeviceVectors, "best", counted)
    return asked


@pytest.fixture
def _any_precision() -> Iterator[None]:
    yield
    torch.set_float32_matmul_precision("highest")


def stored(folder: Path, vectors: Array, storage: Storage = "float32") -> VectorFile:
    folder.mkdir(exist_ok=True)
    write_vectors(folder, iter([vectors]), vectors.shape[1], len(vectors), storage)
    return VectorFile.open(folder)


def same(found: Neighbors, expected: Neighbors) -> None:
    """Whether two answers are one, but for neighbours whose float32 scores differ in the last bits."""
    assert found.scores.dtype == np.float32
    assert found.rows.dtype == np.int64
    np.testing.assert_allclose(found.scores, expected.scores, rtol=2e-6, atol=2e-5)
    np.testing.assert_array_equal(found.rows == -1, expected.rows == -1)
    for rows, others in zip(found.rows, expected.rows, strict=True):
        assert len(set(rows[rows >= 0])) == (rows >= 0).sum()
        assert (rows != others).sum() <= 0.01 * len(rows)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("resident", list(RESIDENT))
def test_search_is_the_cpus(tmp_path: Path, metric: Metric, storage: Storage, resident: str) -> None:
    rng = np.random.default_rng(7)
    file = stored(tmp_path, prepare(rng.normal(size=(523, 17)).astype(np.float32), metric), storage)
    queries = rng.normal(size=(9, 17)).astype(np.float32)
    flat, index = FlatIndex(file, metric), TorchExact(file, metric, "cpu", memory_bytes=RESIDENT[resident])
    assert (index.dim, len(index), index.degraded) == (17, 523, None)
    assert {"all": index.resident == 523, "some": 0 < index.resident < 523, "none": index.resident == 0}[resident]
    for share in (1.0, 0.97, 0.3, 0.02, 0.0):
        allowed = None if share == 1.0 else pack(rng.random(523) < share)
        for k in (1, 20, 600):
            same(index.search(queries, k, allowed), flat.search(queries, k, allowed))
    np.testing.assert_array_equal(index.vectors(np.array([300, 2])), flat.vectors(np.array([300, 2])))


@pytest.mark.parametrize("storage", STORAGES)
def test_equal_vectors_come_in_row_order(tmp_path: Path, storage: Storage, margins: list[int]) -> None:
    file = stored(tmp_path, np.tile(np.array([[1, 0], [0, 1]], np.float32), (1_000, 1)), storage)
    found = TorchExact(file, "ip", "cpu").search(np.array([[1, 0.5]], np.float32), 5)
    assert found.rows.tolist() == [[0, 2, 4, 6, 8]]
    assert margins == [5 + 64, 5 + 1_024]  # 1,000 candidates: more than the first margin holds, not the second


@pytest.mark.parametrize("metric", METRICS)
def test_crowds_that_no_margin_holds_are_left_to_the_cpu(
    tmp_path: Path, metric: Metric, monkeypatch: pytest.MonkeyPatch, margins: list[int]
) -> None:
    monkeypatch.setattr(torch_exact, "_MARGINS", (2, 8))
    rng = np.random.default_rng(3)
    crowd = np.ones((400, 16), np.float32) + rng.normal(scale=3e-6, size=(400, 16)).astype(np.float32)
    apart = rng.normal(size=(300, 16)).astype(np.float32)
    file = stored(tmp_path, prepare(np.concatenate([apart, crowd]), metric))
    index, flat, amid = TorchExact(file, metric, "cpu"), FlatIndex(file, metric), np.ones((1, 16), np.float32)
    np.testing.assert_array_equal(index.search(amid, 3).rows, flat.search(amid, 3).rows)
    assert margins == [3 + 2, 3 + 8]
    same(index.search(apart[:3] * 2, 3), flat.search(apart[:3] * 2, 3))
    assert margins == [3 + 2, 3 + 8, 3 + 2]  # not their neighbourhood


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("offset", [0.0, 30.0])
def test_device_scores_are_within_the_bounds(tmp_path: Path, metric: Metric, storage: Storage, offset: float) -> None:
    rng = np.random.default_rng(11)
    lengths = rng.lognormal(sigma=2, size=(300, 1))
    vectors = (rng.normal(loc=offset, size=(300, 48)) * lengths).astype(np.float32)
    file = stored(tmp_path, prepare(vectors, metric), storage)
    queries = prepare((rng.normal(loc=offset, size=(7, 48)) * lengths[:7]).astype(np.float32), metric)
    index = TorchExact(file, metric, "cpu")
    scores, rows = DeviceVectors(file, metric, "cpu", None).best(queries, 300, None)
    exact_q, exact_v = queries.astype(np.float64), file.rows(np.arange(300)).astype(np.float64)
    expected = exact_q @ exact_v.T
    if metric == "l2":
        expected = 2 * expected - (exact_v**2).sum(axis=1) - (exact_q**2).sum(axis=1)[:, None]
    error = np.abs(scores - np.take_along_axis(expected, rows, axis=1)).max(axis=1)
    assert (error <= index._bounds(queries)).all()


@pytest.mark.usefixtures("_any_precision")
@pytest.mark.parametrize("precision", ["high", "medium"])
def test_a_process_that_lets_torch_cut_digits_gets_the_same_rows(
    tmp_path: Path, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch_scores, "_SCORES", 1 << 20)  # products large enough to be worth cutting
    rng = np.random.default_rng(5)
    file = stored(tmp_path, prepare(rng.normal(size=(3_000, 64)).astype(np.float32), "cosine"))
    queries = rng.normal(size=(64, 64)).astype(np.float32)
    index = TorchExact(file, "cosine", "cpu")
    usual = index._bounds(queries)
    torch.set_float32_matmul_precision(precision)
    assert (index._bounds(queries) > 2 * usual).all()
    found, expected = index.search(queries, 10), FlatIndex(file, "cosine").search(queries, 10)
    same(found, expected)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("storage", ["float32", "int8"])
@pytest.mark.parametrize("size", [1e-30, 1e-20, 1e-3, 1e12, 1e18, 3e19])
def test_tiny_and_huge_vectors(tmp_path: Path, metric: Metric, storage: Storage, size: float) -> None:
    rng = np.random.default_rng(2)
    vectors = (rng.normal(size=(200, 5)) * size).astype(np.float32)
    vectors[7] = 0
    file = stored(tmp_path, prepare(vectors, metric), storage)
    queries = (rng.normal(size=(4, 5)) * size).astype(np.float32)
    queries[3] = 0
    with np.errstate(over="ignore", invalid="ignore"):  # the CPU's own scores leave float32 here
        found = TorchExact(file, metric, "cpu").search(queries, 3)
        expected = FlatIndex(file, metric).search(queries, 3)
    np.testing.assert_array_equal(found.rows, expected.rows)


def test_float16_reaches_float32_queries(tmp_path: Path) -> None:
    vectors = np.array([[60_000, 1], [59_000, 2], [0.001, 3]], np.float32)
    queries = np.array([[1e30, 1], [1e-30, 2e-30], [-1, 1e4]], np.float32)
    file = stored(tmp_path, vectors, "float16")
    same(TorchExact(file, "ip", "cpu").search(queries, 2), FlatIndex(file, "ip").search(queries, 2))


@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("count", [0, 1])
@pytest.mark.parametrize("dim", [1, 4_096])
def test_no_vector_one_vector_and_dimensions_at_the_ends(
    tmp_path: Path, storage: Storage, count: int, dim: int
) -> None:
    file = stored(tmp_path, np.full((count, dim), 0.5, np.float32), storage)
    queries = np.ones((2, dim), np.float32)
    for memory_bytes in (None, 0):
        index = TorchExact(file, "ip", "cpu", memory_bytes=memory_bytes)
        same(index.search(queries, 3), FlatIndex(file, "ip").search(queries, 3))
    assert index.search(queries[:0], 3).rows.shape == (0, 3)


def test_exchanged_vectors_answer_with_their_rows(tmp_path: Path) -> None:
    rng = np.random.default_rng(9)
    vectors = rng.normal(size=(500, 12)).astype(np.float32)
    vectors[rng.integers(0, 500, 60)] = vectors[3]  # ties, some of them far from their rows in the file
    plain, moved = stored(tmp_path / "plain", vectors), stored(tmp_path / "moved", vectors)
    exchange = Exchange.sample(500, 50, seed=4)
    exchange_rows(moved, exchange)
    queries = np.concatenate([vectors[3:4], rng.normal(size=(5, 12)).astype(np.float32)])
    flat, index = FlatIndex(plain, "l2"), TorchExact(moved, "l2", "cpu", exchange)
    for share in (1.0, 0.4):
        allowed = None if share == 1.0 else pack(rng.random(500) < share)
        same(index.search(queries, 25, allowed), flat.search(queries, 25, allowed))
    rows = np.array([499, 0, 17])
    np.testing.assert_array_equal(index.vectors(rows), flat.vectors(rows))


def test_few_rows_of_vectors_that_do_not_fit_are_read_by_the_cpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, margins: list[int]
) -> None:
    monkeypatch.setattr(torch_exact, "_FEW_ROWS", 40)
    rng = np.random.default_rng(1)
    file = stored(tmp_path, rng.normal(size=(400, 6)).astype(np.float32))
    queries, allowed = rng.normal(size=(3, 6)).astype(np.float32), pack(np.arange(400) % 10 == 0)
    expected = FlatIndex(file, "ip").search(queries, 5, allowed)
    same(TorchExact(file, "ip", "cpu", memory_bytes=0).search(queries, 5, allowed), expected)
    assert not margins
    same(TorchExact(file, "ip", "cpu").search(queries, 5, allowed), expected)
    assert margins


def test_threads_get_their_own_answers(tmp_path: Path) -> None:
    rng = np.random.default_rng(8)
    file = stored(tmp_path, rng.normal(size=(400, 9)).astype(np.float32))
    queries = rng.normal(size=(40, 9)).astype(np.float32)
    index, expected = TorchExact(file, "ip", "cpu"), FlatIndex(file, "ip").search(queries, 4)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda place: index.search(queries[place : place + 1], 4).rows[0], range(40)))
    np.testing.assert_array_equal(np.stack(found), expected.rows)


def test_refusals(tmp_path: Path) -> None:
    file = stored(tmp_path, np.eye(4, dtype=np.float32))
    index = TorchExact(file, "ip", "cpu")
    with pytest.raises(ValueError, match="k is 0"):
        index.search(np.ones((1, 4), np.float32), 0)
    with pytest.raises(ShapeError, match="dim 3"):
        index.search(np.ones((1, 3), np.float32), 1)
    with pytest.raises(ShapeError, match="bytes"):
        index.search(np.ones((1, 4), np.float32), 1, np.zeros(2, np.uint8))
    with pytest.raises(ConfigError, match="tpu"):
        TorchExact(file, "ip", "tpu")
