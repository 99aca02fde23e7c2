import numpy as np
import pytest

from index.bitmap import count, pack, unpack
from index.errors import ShapeError


def test_bits_are_little_endian_within_a_byte_and_trailing_bits_are_zero() -> None:
    mask = np.zeros(11, np.bool_)
    mask[[0, 3, 8, 10]] = True
    assert pack(mask).tolist() == [0b0000_1001, 0b0000_0101]


@pytest.mark.parametrize("n", [0, 1, 7, 8, 9, 64, 1001])
def test_unpack_undoes_pack_and_count_counts(n: int) -> None:
    mask = np.random.default_rng(n).random(n) < 0.5
    bitmap = pack(mask)
    assert bitmap.dtype == np.uint8
    assert len(bitmap) == -(-n // 8)
    assert unpack(bitmap, n).dtype == np.bool_
    assert unpack(bitmap, n).tolist() == mask.tolist()
    assert count(bitmap) == sum(mask.tolist())


def test_a_bitmap_of_another_size_is_refused() -> None:
    with pytest.raises(ShapeError, match="2 bytes, 17 rows need 3"):
        unpack(pack(np.ones(16, np.bool_)), 17)


@pytest.mark.parametrize("mask", [np.ones(8, np.uint8), np.ones((2, 4), np.bool_)])
def test_pack_refuses_other_arrays(mask: np.ndarray) -> None:
    with pytest.raises(ShapeError, match="expected bool"):
        pack(mask)


def test_count_and_unpack_refuse_other_arrays() -> None:
    with pytest.raises(ShapeError, match="expected uint8"):
        count(np.ones(8, np.bool_))
    with pytest.raises(ShapeError, match="expected uint8"):
        unpack(np.ones(8, np.int64), 64)
