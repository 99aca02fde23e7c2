import errno
import io
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from index import vector_file
from index.array_file import HEADER_BYTES
from index.errors import IndexFormatError, ShapeError, StorageError
from index.vector_file import STORAGES, VectorFile, write_vectors

FINITE = st.floats(width=32, allow_nan=False, allow_infinity=False)
MATRICES = hnp.arrays(np.float32, st.tuples(st.integers(0, 6), st.integers(1, 5)), elements=FINITE)


def _written(folder: Path, vectors: np.ndarray, storage="float32") -> VectorFile:
    half = len(vectors) // 2
    write_vectors(folder, iter([vectors[:half], vectors[half:]]), vectors.shape[1], len(vectors), storage)
    return VectorFile.open(folder)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("vectors")


@given(MATRICES)
@settings(deadline=None)
def test_float32_comes_back_bit_for_bit(folder, vectors):
    file = _written(folder, vectors)
    assert file.storage == "float32"
    assert file.scales is None
    assert (file.raw.view(np.uint32) == vectors.view(np.uint32)).all()
    np.testing.assert_array_equal(file.block(0, len(vectors)), vectors)


@given(
    hnp.arrays(
        np.float32, st.tuples(st.integers(0, 6), st.integers(1, 5)), elements=st.floats(-65_504, 65_504, width=32)
    )
)
@settings(deadline=None)
def test_float16_rounds_as_numpy_does(folder, vectors):
    file = _written(folder, vectors, "float16")
    assert file.raw.dtype == np.dtype("<f2")
    expected = vectors.astype(np.float16).astype(np.float32)
    assert (file.block(0, len(vectors)).view(np.uint32) == expected.view(np.uint32)).all()


def test_every_finite_float16_is_widened_exactly(folder):
    every = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    every = every[np.isfinite(every)].astype(np.float32)
    file = _written(folder, every[:, None], "float16")
    assert (file.block(0, len(every))[:, 0].view(np.uint32) == every.view(np.uint32)).all()


@given(MATRICES)
@settings(deadline=None)
def test_int8_errs_by_at_most_half_a_scale(folder, vectors):
    file = _written(folder, vectors, "int8")
    assert file.raw.dtype == np.int8
    wide = file.block(0, len(vectors)).astype(np.float64)
    assert np.isfinite(wide).all()
    peaks = np.abs(vectors).max(axis=1, initial=0)
    np.testing.assert_allclose(file.scales, np.where(peaks < 1.5e-36, 0, peaks / 127.0), rtol=1e-6)
    limits = np.where(file.scales > 0, 0.5 * file.scales.astype(np.float64), 1.5e-36)
    # Scale and product are float32: each rounds once, up to 127 steps from zero.
    assert (np.abs(wide - vectors) <= limits[:, None] * (1 + 127 * 2.0**-21)).all()


def test_int8_by_hand(tmp_path):
    file = _written(tmp_path, np.array([[127, -63.6, 0.4], [0, 0, 0], [0.5, -0.5, 0.25]], np.float32), "int8")
    assert file.raw.tolist() == [[127, -64, 0], [0, 0, 0], [127, -127, 64]]
    np.testing.assert_array_equal(file.scales, np.array([1, 0, 0.5 / 127], np.float32))


@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize(("count", "dim"), [(0, 3), (1, 1), (1, 4_096), (10, 3)])
def test_rows_and_blocks_agree(tmp_path, storage, count, dim):
    vectors = np.random.default_rng(2).normal(size=(count, dim)).astype(np.float32)
    file = _written(tmp_path, vectors, storage)
    assert (len(file), file.dim, file.storage) == (count, dim, storage)
    assert file.path == tmp_path / "vectors.npy"
    whole = file.block(0, count)
    assert whole.dtype == np.float32
    blocks = list(file.blocks(4))
    assert [len(block) for block in blocks] == [min(4, count - start) for start in range(0, count, 4)]
    np.testing.assert_array_equal(np.concatenate([np.empty((0, dim), np.float32), *blocks]), whole)
    assert len(file.block(count - 1, count + 5)) == min(1, count)
    if count:
        some = np.random.default_rng(3).integers(0, count, 7)
        np.testing.assert_array_equal(file.rows(some), whole[some])
        assert file.rows(some).dtype == np.float32
        file.rows(some)[:] = 0  # a copy: the map is read-only
    with pytest.raises(IndexError):
        file.rows(np.array([count]))


def test_a_float32_block_is_a_view(tmp_path):
    file = _written(tmp_path, np.ones((4, 2), np.float32))
    assert np.shares_memory(file.block(1, 3), file.raw)


@pytest.mark.parametrize("storage", STORAGES)
def test_files_are_what_numpy_reads_and_writes(tmp_path, storage):
    vectors = np.random.default_rng(2).normal(size=(5, 3)).astype(np.float32)
    file = _written(tmp_path, vectors, storage)
    expected = io.BytesIO()
    np.save(expected, np.array(file.raw))
    assert (tmp_path / "vectors.npy").read_bytes() == expected.getvalue()
    assert expected.getvalue()[:HEADER_BYTES].endswith(b"\n")
    assert HEADER_BYTES == 128
    assert (tmp_path / "scales.npy").exists() == (storage == "int8")
    if storage == "int8":
        np.testing.assert_array_equal(np.load(tmp_path / "scales.npy"), file.scales)


@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_refused(tmp_path, storage, bad):
    vectors = np.ones((6, 3), np.float32)
    vectors[4, 1] = bad
    with pytest.raises(ShapeError, match="vector 4 holds NaN or infinity"):
        _written(tmp_path, vectors, storage)


@pytest.mark.parametrize("value", [65_505.0, -1e30])
def test_values_beyond_float16_are_refused(tmp_path, value):
    vectors = np.full((3, 2), 65_504, np.float32)
    assert _written(tmp_path, vectors, "float16").raw.max() == 65_504
    vectors[2, 0] = value
    with pytest.raises(ShapeError, match=r"vector 2 holds .* float16 reaches 65504.*storage"):
        _written(tmp_path, vectors, "float16")
    _written(tmp_path, vectors, "int8")


def test_the_largest_values_stay_finite_as_int8(tmp_path):
    most = np.finfo(np.float32).max
    file = _written(tmp_path, np.array([[most, -most]], np.float32), "int8")
    np.testing.assert_allclose(file.block(0, 1), [[most, -most]], rtol=1e-6)


@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize(
    ("block", "message"),
    [
        (np.ones((2, 5), np.float32), "expected float32"),
        (np.ones((2, 4), np.float64), "expected float32"),
        (np.ones(4, np.float32), "expected float32"),
        (np.ones((2, 4), np.float32), "got 2 rows, expected 3"),
        (np.ones((4, 4), np.float32), "got 4 rows, expected 3"),
    ],
)
def test_wrong_blocks_are_refused(tmp_path, storage, block, message):
    with pytest.raises(ShapeError, match=message):
        write_vectors(tmp_path, iter([block]), 4, 3, storage)


def test_blocks_of_any_memory_order_are_written(tmp_path):
    vectors = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)
    for storage in STORAGES:
        plain = _written(tmp_path, vectors, storage).raw.copy()
        write_vectors(tmp_path, iter([np.asfortranarray(vectors)]), 4, 6, storage)
        np.testing.assert_array_equal(VectorFile.open(tmp_path).raw, plain)
        write_vectors(tmp_path, iter([np.repeat(vectors, 2, axis=0)[::2]]), 4, 6, storage)
        np.testing.assert_array_equal(VectorFile.open(tmp_path).raw, plain)


def _replace(path: Path, old: bytes, new: bytes) -> None:
    content = path.read_bytes()
    assert old in content
    path.write_bytes(content.replace(old, new, 1))


def _header(descr: str, shape: tuple[int, ...], *, fortran_order: bool = False) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": descr, "fortran_order": fortran_order, "shape": shape})
    return file.getvalue()


@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("name", ["vectors.npy", "scales.npy"])
@pytest.mark.parametrize("damage", ["missing", "empty", "header cut", "cut", "longer", "folder"])
def test_damaged_files_are_refused(tmp_path, storage, name, damage):
    _written(tmp_path, np.ones((4, 3), np.float32), storage)
    path = tmp_path / name
    if not path.exists():
        return
    content = path.read_bytes()
    if damage in ("missing", "folder"):
        path.unlink()
    if damage == "folder":
        path.mkdir()
    elif damage != "missing":
        path.write_bytes(
            {"empty": b"", "header cut": content[:100], "cut": content[:-1], "longer": content + b"\0"}[damage]
        )
    with pytest.raises(IndexFormatError, match=f"{name}.*rebuild"):
        VectorFile.open(tmp_path)


@pytest.mark.parametrize(
    "header",
    [
        _header("<f8", (4, 3)),
        _header(">f4", (4, 3)),
        _header("<i8", (4, 3)),
        _header("|O", (4, 3)),
        _header("<f4", (12,)),
        _header("<f4", (4, 3, 1)),
        _header("<f4", (4, 3), fortran_order=True),
        _header("<f4", (4, 2)),
        _header("<f4", (1 << 62, 1 << 62)),
        _header("<f4", (4, 3)).replace(b"\x01\x00v", b"\x02\x00v"),
        _header("<f4", (4, 3)).replace(b"<f4", b"<zz"),
        _header("<f4", (4, 3)).replace(b"(4, 3)", b"(4 ,3)").replace(b"4 ,3", b"4 3,"),
    ],
)
@pytest.mark.parametrize("itemsize", [4, 8])
def test_other_arrays_are_refused(tmp_path, header, itemsize):
    (tmp_path / "vectors.npy").write_bytes(header + bytes(12 * itemsize))
    with pytest.raises(IndexFormatError, match=r"vectors\.npy.*rebuild"):
        VectorFile.open(tmp_path)


def test_scales_of_other_vectors_are_refused(tmp_path):
    _written(tmp_path, np.ones((4, 3), np.float32), "int8")
    for wrong in (np.ones(5, np.float32), np.ones(4, np.float64), np.ones((4, 1), np.float32)):
        np.save(tmp_path / "scales.npy", wrong)
        with pytest.raises(IndexFormatError, match=r"scales\.npy"):
            VectorFile.open(tmp_path)


def test_a_file_that_cannot_be_read_says_so(tmp_path, monkeypatch):
    _written(tmp_path, np.ones((4, 3), np.float32))

    def broken(*_args, **_options):
        raise OSError(errno.EIO, "broken")

    monkeypatch.setattr(vector_file.np, "memmap", broken)
    with pytest.raises(StorageError, match="disk reports"):
        VectorFile.open(tmp_path)


@pytest.mark.parametrize("storage", STORAGES)
def test_writing_holds_a_few_blocks_in_memory(tmp_path, storage):
    block = np.ones((1_000, 64), np.float32)
    write_vectors(tmp_path, iter([block]), 64, 1_000, storage)
    tracemalloc.start()
    write_vectors(tmp_path, (block for _ in range(50)), 64, 50_000, storage)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 6 * block.nbytes
    assert len(VectorFile.open(tmp_path)) == 50_000
