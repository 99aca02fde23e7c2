"""Vector files against bytes made by hand, and everything that can be wrong with them."""

import struct
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from evaluation.vector_files import (
    GroundTruth,
    read_ground_truth,
    read_vectors,
    vector_blocks,
    write_ground_truth,
    write_vectors,
)
from evaluation.vector_files_hdf5 import Benchmark, hdf5_blocks, read_hdf5, write_hdf5
from index.errors import CorpusError, MissingDependencyError, RequestError, ShapeError, StorageError

HAND_MADE = {
    "a.fvecs": (struct.pack("<iffiff", 2, 1.5, -2, 2, 0, 4), [[1.5, -2], [0, 4]]),
    "a.ivecs": (struct.pack("<iiiiii", 2, 7, -1, 2, 0, 3), [[7, -1], [0, 3]]),
    "a.bvecs": (struct.pack("<iBBBiBBB", 3, 1, 2, 255, 3, 0, 9, 8), [[1, 2, 255], [0, 9, 8]]),
    "a.fbin": (struct.pack("<IIffff", 2, 2, 1.5, -2, 0, 4), [[1.5, -2], [0, 4]]),
    "a.f16bin": (struct.pack("<IIeeee", 2, 2, 1.5, -2, 0, 4), [[1.5, -2], [0, 4]]),
    "a.ibin": (struct.pack("<IIii", 1, 2, 7, -1), [[7, -1]]),
    "a.i8bin": (struct.pack("<IIbbb", 1, 3, 7, -128, 0), [[7, -128, 0]]),
    "a.u8bin": (struct.pack("<IIBB", 1, 2, 7, 255), [[7, 255]]),
}


@pytest.mark.parametrize("name", HAND_MADE)
def test_bytes_made_by_hand(name: str, tmp_path: Path) -> None:
    content, expected = HAND_MADE[name]
    path = tmp_path / name
    path.write_bytes(content)
    read = read_vectors(path)
    assert read.tolist() == expected
    assert not read.flags.writeable
    assert [block.tolist() for block in vector_blocks(path, 1)] == [[row] for row in expected]
    again = path.with_stem("b")
    assert write_vectors(again, (read[row : row + 1] for row in range(len(read)))) == len(expected)
    assert again.read_bytes() == content


@pytest.mark.parametrize("name", HAND_MADE)
@pytest.mark.parametrize("change", [lambda content: content[:-1], lambda content: content + b"\0", lambda _: b""])
def test_a_cut_or_longer_file_is_refused(name: str, change: Callable[[bytes], bytes], tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(change(HAND_MADE[name][0]))
    with pytest.raises(CorpusError, match=r"fetch it\s+again"):
        read_vectors(path)
    with pytest.raises(CorpusError):
        list(vector_blocks(path))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.fvecs", struct.pack("<if", -1, 0), "dimension -1"),
        ("a.fvecs", struct.pack("<i", 0), "dimension 0"),
        ("a.fvecs", struct.pack("<ifif", 1, 1, 2, 1), "row 1 states dimension 2"),
        ("a.fbin", struct.pack("<iif", -1, 1, 0), "count -1"),
        ("a.fbin", struct.pack("<iif", 1, -4, 0), "dimension -4"),
        ("a.fbin", struct.pack("<II", 1, 0), "dimension 0"),
        ("a.fbin", struct.pack("<II", 1, 1 << 30), "dimension 1073741824"),
        ("a.fbin", b"\1\0", "2 bytes"),
        ("a.npy", b"no array", "no whole .npy"),
    ],
)
def test_impossible_sizes_are_refused(name: str, content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(CorpusError, match=message):
        list(vector_blocks(path, 1))


def test_no_vectors_with_a_known_dimension_are_an_empty_array(tmp_path: Path) -> None:
    path = tmp_path / "a.fbin"
    path.write_bytes(struct.pack("<II", 0, 3))
    assert read_vectors(path).shape == (0, 3)
    assert list(vector_blocks(path)) == []


def test_npy(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    values = np.arange(6, dtype=np.float16).reshape(3, 2)
    assert write_vectors(path, values) == 3
    read = read_vectors(path)
    assert read.dtype == np.float16
    assert (read == values).all()
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(CorpusError, match="no whole"):
        read_vectors(path)
    for bad in (np.arange(3.0), np.array([["a"]]), np.empty((2, 0))):
        np.save(path, bad)
        with pytest.raises(CorpusError, match="expected numbers"):
            read_vectors(path)
    np.save(path, np.array([[{}]], dtype=object), allow_pickle=True)
    with pytest.raises(CorpusError, match="no whole"):
        read_vectors(path)


def test_what_cannot_be_written(tmp_path: Path) -> None:
    path = tmp_path / "a.f16bin"
    path.write_bytes(b"before")
    one, two = np.ones((1, 2), np.float16), np.ones((1, 3), np.float16)
    for blocks, message in (
        ([one, two], "dimension 3, expected 2"),
        ([one.astype(np.float32)], "got float32"),
        ([np.ones(3, np.float16)], "expected numbers"),
        ([], "no vectors"),
        ([one[:0]], "no vectors"),
    ):
        with pytest.raises(ShapeError, match=message):
            write_vectors(path, blocks)
    assert path.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(RequestError, match="unknown suffix"):
        write_vectors(tmp_path / "a.vec", one)
    with pytest.raises(StorageError):
        write_vectors(tmp_path / "absent" / "a.f16bin", one)
    with pytest.raises(StorageError):
        read_vectors(tmp_path / "absent.fbin")
    with pytest.raises(RequestError, match="rows is 0"):
        list(vector_blocks(path, 0))


def test_narrower_values_widen_without_loss(tmp_path: Path) -> None:
    path = tmp_path / "a.fbin"
    write_vectors(path, np.array([[0.5, 2]], np.float16))
    assert read_vectors(path).tolist() == [[0.5, 2]]


def test_ground_truth_by_hand(tmp_path: Path) -> None:
    path = tmp_path / "truth"
    content = struct.pack("<IIiiiiffff", 2, 2, 5, 3, 4, -1, 0.5, 1, 0, 0)
    path.write_bytes(content)
    truth = read_ground_truth(path)
    assert truth.rows.tolist() == [[5, 3], [4, -1]]
    assert truth.rows.dtype == np.int64
    assert truth.distances.tolist() == [[0.5, 1], [0, 0]]
    write_ground_truth(tmp_path / "again", truth)
    assert (tmp_path / "again").read_bytes() == content


@pytest.mark.parametrize(
    ("rows", "distances", "message"),
    [
        ([[1, 2], [3, 4]], [[0, 1], [1, 0]], "neither ascend nor"),
        ([[1, 2]], [[0, np.nan]], "NaN"),
        ([[-1, 2]], [[0, 1]], "after a -1"),
        ([[1, -2]], [[0, 1]], "below -1"),
    ],
)
def test_broken_ground_truth(rows: list[list[int]], distances: list[list[float]], message: str, tmp_path: Path) -> None:
    truth = GroundTruth(np.array(rows), np.array(distances, np.float32))
    with pytest.raises(CorpusError, match=message):
        write_ground_truth(tmp_path / "truth", truth)
    shape = struct.pack("<II", *truth.rows.shape)
    (tmp_path / "truth").write_bytes(shape + truth.rows.astype("<i4").tobytes() + truth.distances.tobytes())
    with pytest.raises(CorpusError, match=message):
        read_ground_truth(tmp_path / "truth")


def test_ground_truth_without_distances_is_refused(tmp_path: Path) -> None:
    (tmp_path / "truth").write_bytes(struct.pack("<IIii", 1, 2, 5, 3))
    with pytest.raises(CorpusError, match="read ids without distances"):
        read_ground_truth(tmp_path / "truth")
    with pytest.raises(ShapeError, match="the same"):
        write_ground_truth(tmp_path / "truth", GroundTruth(np.array([[1]]), np.ones((1, 2), np.float32)))
    with pytest.raises(ShapeError, match="int32"):
        write_ground_truth(tmp_path / "truth", GroundTruth(np.array([[1 << 31]]), np.ones((1, 1), np.float32)))


def test_without_h5py_the_remedy_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(MissingDependencyError, match="pip install h5py"):
        read_hdf5(tmp_path / "a.hdf5")


def test_hdf5_round_trip_and_what_is_broken(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py", reason="the package h5py is not installed")
    path = tmp_path / "a.hdf5"
    train = np.arange(12, dtype=np.float32).reshape(6, 2)
    truth = GroundTruth(np.array([[0, 1]]), np.array([[0, 2]], np.float32))
    write_hdf5(path, Benchmark(train, train[:1], truth, "l2"), {"learn": train[2:]})
    read = read_hdf5(path)
    assert read.train is not None
    assert (read.train == train).all()
    assert read.metric == "l2"
    assert (read.truth.rows == truth.rows).all()
    assert read_hdf5(path, with_train=False).train is None
    assert np.concatenate(list(hdf5_blocks(path, rows=4))).tolist() == train.tolist()
    assert next(hdf5_blocks(path, "learn")).tolist() == train[2:].tolist()
    with pytest.raises(CorpusError, match="no dataset 'other'; there are: distances, learn"):
        next(hdf5_blocks(path, "other"))
    with h5py.File(path, "r+") as file:
        file["neighbors"][0, 0] = 6
    with pytest.raises(CorpusError, match="train has 6"):
        read_hdf5(path)
    with h5py.File(path, "r+") as file:
        file.attrs["distance"] = "jaccard"
    with pytest.raises(CorpusError, match="'jaccard'"):
        read_hdf5(path)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(CorpusError, match="no whole HDF5"):
        read_hdf5(path)
    with pytest.raises(StorageError):
        read_hdf5(tmp_path / "absent.hdf5")
    with pytest.raises(RequestError, match="no train vectors"):
        write_hdf5(path, Benchmark(None, train, truth, "l2"))
