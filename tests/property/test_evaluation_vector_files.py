"""Whatever is written is read back, whole or in blocks."""

import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from evaluation.vector_files import (
    GroundTruth,
    read_ground_truth,
    read_vectors,
    vector_blocks,
    write_ground_truth,
    write_vectors,
)

DTYPES = {
    ".fvecs": np.float32,
    ".ivecs": np.int32,
    ".bvecs": np.uint8,
    ".fbin": np.float32,
    ".f16bin": np.float16,
    ".ibin": np.int32,
    ".i8bin": np.int8,
    ".u8bin": np.uint8,
    ".npy": np.float64,
}
SHAPES = array_shapes(min_dims=2, max_dims=2, max_side=9)


@pytest.mark.parametrize("suffix", DTYPES)
@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_round_trip(suffix: str, data: st.DataObject) -> None:
    vectors = data.draw(arrays(DTYPES[suffix], SHAPES))
    written, read = data.draw(st.integers(1, 10)), data.draw(st.integers(1, 10))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"a{suffix}"
        write_vectors(path, (vectors[start : start + written] for start in range(0, len(vectors), written)))
        whole = read_vectors(path)
        assert whole.dtype == vectors.dtype
        np.testing.assert_array_equal(whole, vectors)  # NaN equals NaN
        blocks = list(vector_blocks(path, read))
        assert all(len(block) <= read and block.flags.c_contiguous for block in blocks)
        np.testing.assert_array_equal(np.concatenate(blocks), vectors)
        del whole


@settings(max_examples=30, deadline=None)
@given(rows=arrays(np.int64, SHAPES, elements=st.integers(0, 2**31 - 1)), data=st.data())
def test_ground_truth_round_trip(rows: np.ndarray, data: st.DataObject) -> None:
    distances = data.draw(arrays(np.float32, rows.shape, elements=st.floats(0, 100, width=32)))
    with tempfile.TemporaryDirectory() as folder:
        write_ground_truth(Path(folder) / "t", GroundTruth(rows, np.sort(distances, axis=1)))
        read = read_ground_truth(Path(folder) / "t")
    assert (read.rows == rows).all()
    assert (read.distances == np.sort(distances, axis=1)).all()
