"""Rows that change places with the last ones."""

from pathlib import Path

import numpy as np
import pytest

from index.errors import StorageError
from index.held_out import Exchange, exchange_rows
from index.vector_file import SCALES, Storage, VectorFile, write_vectors


def test_pairs_by_hand() -> None:
    """Rows 1 and 4 of six trade places with 5 and ... 4 is in the tail already, so only 1 moves."""
    exchange = Exchange(np.array([1]), np.array([5]))
    assert exchange.apply(np.array([0, 1, 2, 3, 4, 5, -1])).tolist() == [0, 5, 2, 3, 4, 1, -1]
    assert exchange.bitmap(np.array([0b000010], np.uint8)).tolist() == [0b100000]
    assert exchange.bitmap(np.array([0b100000], np.uint8)).tolist() == [0b000010]
    assert exchange.bitmap(np.array([0b100010], np.uint8)).tolist() == [0b100010]
    assert exchange.bitmap(np.array([0b011101], np.uint8)).tolist() == [0b011101]


def test_any_shape_and_no_rows() -> None:
    exchange = Exchange.sample(100, 10, 0)
    assert exchange.apply(np.full((3, 4), -1)).tolist() == [[-1] * 4] * 3
    assert exchange.apply(np.empty((0, 4), np.int64)).shape == (0, 4)


@pytest.mark.parametrize("storage", ["float32", "float16", "int8"])
def test_the_file_is_exchanged_and_a_map_of_it_sees_that(storage: Storage, tmp_path: Path) -> None:
    vectors = np.random.default_rng(0).normal(size=(50, 7)).astype(np.float32)
    write_vectors(tmp_path, iter([vectors]), 7, 50, storage)
    mapped = VectorFile.open(tmp_path)
    before = mapped.rows(np.arange(50))
    size_bytes = mapped.path.stat().st_size
    exchange = Exchange.sample(50, 9, 3)
    assert len(exchange.low) > 0
    exchange_rows(mapped, exchange)
    for file in (mapped, VectorFile.open(tmp_path)):
        np.testing.assert_array_equal(file.rows(exchange.apply(np.arange(50))), before)
        np.testing.assert_array_equal(file.rows(np.arange(50)), before[exchange.apply(np.arange(50))])
    assert mapped.path.stat().st_size == size_bytes
    exchange_rows(mapped, exchange)
    np.testing.assert_array_equal(VectorFile.open(tmp_path).rows(np.arange(50)), before)


def test_scales_move_with_their_rows(tmp_path: Path) -> None:
    vectors = np.diag(np.arange(1, 5)).astype(np.float32)
    write_vectors(tmp_path, iter([vectors]), 4, 4, "int8")
    exchange_rows(VectorFile.open(tmp_path), Exchange(np.array([0]), np.array([3])))
    moved = VectorFile.open(tmp_path)
    np.testing.assert_allclose(moved.rows(np.arange(4)), vectors[[3, 1, 2, 0]], rtol=1e-6)
    assert (tmp_path / SCALES).is_file()


def test_a_file_that_is_gone_is_a_storage_error(tmp_path: Path) -> None:
    write_vectors(tmp_path, iter([np.ones((4, 2), np.float32)]), 2, 4)
    mapped = VectorFile.open(tmp_path)
    mapped.path.unlink()
    with pytest.raises(StorageError):
        exchange_rows(mapped, Exchange(np.array([0]), np.array([3])))
