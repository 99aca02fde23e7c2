"""Files of vectors as the ANN benchmarks write them: read memory-mapped or in blocks, written as a stream.

    .fvecs .ivecs .bvecs                   each row: int32 d, then d values (float32, int32, uint8)
    .fbin .f16bin .ibin .i8bin .u8bin      uint32 n, uint32 d, then n x d values in row order
    .npy                                   NumPy's own
    (big-ann ground truth)                 uint32 n, uint32 k, int32 ids n x k, float32 distances n x k

All little-endian. HDF5 files of ann-benchmarks: evaluation.vector_files_hdf5.
Sources: corpus-texmex.irisa.fr (vecs), big-ann-benchmarks (bin, ground truth).
"""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from index.durable import storage_errors, write_atomic
from index.errors import CorpusError, RequestError, ShapeError
from index.types import Rows

Array = npt.NDArray[Any]

_MOST_DIM = 1 << 20
"""A greater dimension is taken for a file of another format."""

BLOCK_ROWS = 1 << 14


class _Format(NamedTuple):
    layout: Literal["rows", "whole"]
    dtype: np.dtype[Any]


_FORMATS = {
    ".fvecs": _Format("rows", np.dtype("<f4")),
    ".ivecs": _Format("rows", np.dtype("<i4")),
    ".bvecs": _Format("rows", np.dtype("u1")),
    ".fbin": _Format("whole", np.dtype("<f4")),
    ".f16bin": _Format("whole", np.dtype("<f2")),
    ".ibin": _Format("whole", np.dtype("<i4")),
    ".i8bin": _Format("whole", np.dtype("i1")),
    ".u8bin": _Format("whole", np.dtype("u1")),
}

SUFFIXES = (*_FORMATS, ".npy")


class GroundTruth(NamedTuple):
    """Exact neighbours as published. rows: int64 (Q, k), best first.

    distances: float32 (Q, k): ascending, or similarities, descending.
    """

    rows: Rows
    distances: npt.NDArray[np.float32]


def read_vectors(path: str | Path) -> Array:
    """Return a file's vectors, (n, d) in the file's own dtype, memory-mapped and read-only; the suffix says the format.

    Rows of .fvecs, .ivecs and .bvecs are not contiguous (their lengths stand between them): slice before computing.
    Raises RequestError on another suffix, CorpusError on a file that is cut, too long, of varying dimension, or with a
    size that is zero or negative, StorageError when it cannot be read.
    Cost: one page; of .fvecs and its like, one number of every row.
    """
    path = Path(path)
    form = _format(path)
    with storage_errors("read", path):
        if form is None:
            return _read_npy(path)
        if form.layout == "whole":
            return _read_whole(path, form.dtype)
        array, lengths = _map_rows(path, form.dtype)
        _check_lengths(path, lengths, array.shape[1])
        return array


def vector_blocks(path: str | Path, rows: int = BLOCK_ROWS) -> Iterator[Array]:
    """Yield a file's vectors in order, contiguous copies of at most `rows` rows; memory is one block.

    Raises as `read_vectors`, where a varying dimension is found when its block is reached; RequestError on rows < 1.
    """
    if rows < 1:
        raise RequestError(f"rows is {rows}, expected at least 1 a block")
    path = Path(path)
    form = _format(path)
    if form is None or form.layout == "whole":
        array, lengths = read_vectors(path), None
    else:
        with storage_errors("read", path):
            array, lengths = _map_rows(path, form.dtype)
    for start in range(0, len(array), rows):
        if lengths is not None:
            _check_lengths(path, lengths[start : start + rows], array.shape[1], start)
        yield np.array(array[start : start + rows], order="C")


def write_vectors(path: str | Path, blocks: Array | Iterable[Array]) -> int:
    """Write vectors in the format of the suffix, atomically; return the number of rows.

    blocks: one (n, d) array or a stream of them, of the format's dtype or one that fits into it without loss.
    Raises RequestError on an unknown suffix, ShapeError on another shape or dtype or on no vectors at all,
    StorageError when the file system refuses; what stood there before is intact then. Memory: one block (.npy: all).
    """
    path = Path(path)
    form = _format(path)
    stream = iter([blocks]) if isinstance(blocks, np.ndarray) else iter(blocks)
    with storage_errors("write", path):
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        try:
            count = _write_npy(temporary, stream) if form is None else _write_stream(temporary, form, stream)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    return count


def read_ground_truth(path: str | Path) -> GroundTruth:
    """Read big-ann's nearest-neighbour ground truth.

    Raises CorpusError on a file that is cut or too long, on a zero size, on distances that are not finite or in no
    order where a row exists, StorageError. Cost: the file is read.
    """
    path = Path(path)
    with storage_errors("read", path):
        content = path.read_bytes()
    count, k = _sizes(path, content[:8])
    expected = 8 + 8 * count * k
    if len(content) != expected:
        raise CorpusError(
            f"{path} has {len(content)} bytes, {count} x {k} ids and distances take {expected}: fetch it again, or "
            "read ids without distances as .ibin"
        )
    rows = np.frombuffer(content, "<i4", count * k, 8).reshape(count, k).astype(np.int64)
    distances = np.frombuffer(content, "<f4", count * k, 8 + 4 * count * k).reshape(count, k).astype(np.float32)
    _check_truth(rows, distances, str(path))
    return GroundTruth(rows, distances)


def write_ground_truth(path: str | Path, truth: GroundTruth) -> None:
    """Write big-ann's nearest-neighbour ground truth, atomically. Raises ShapeError, CorpusError, StorageError."""
    path = Path(path)
    rows, distances = truth
    if rows.ndim != 2 or rows.shape != distances.shape or rows.size == 0:
        raise ShapeError(f"rows have shape {rows.shape}, distances {distances.shape}, expected the same (Q, k)")
    _check_truth(rows, distances, "the ground truth")
    if rows.max() > np.iinfo(np.int32).max:
        raise ShapeError(f"row {rows.max()} does not fit into int32, the format's type of ids")
    content = np.array(rows.shape, "<u4").tobytes() + rows.astype("<i4").tobytes() + distances.astype("<f4").tobytes()
    write_atomic(path, content, point="evaluation.truth")


def _check_truth(rows: Rows, distances: npt.NDArray[Any], where: str) -> None:
    there = rows >= 0
    if (rows < -1).any() or (there[:, 1:] & ~there[:, :-1]).any():
        raise CorpusError(
            f"{where} holds ids below -1 or after a -1: expected row numbers, then -1 where there are none"
        )
    if not np.isfinite(distances[there]).all():
        raise CorpusError(f"{where} holds distances that are NaN or infinite: compute the ground truth again")
    steps = np.diff(distances, axis=1)[there[:, 1:]]
    if (steps < 0).any() and (steps > 0).any():
        raise CorpusError(f"{where}: distances neither ascend nor, as similarities do, descend: expected best first")


def _format(path: Path) -> _Format | None:
    if path.suffix != ".npy" and path.suffix not in _FORMATS:
        raise RequestError(f"{path.name}: unknown suffix {path.suffix!r}; known: {', '.join(SUFFIXES)}")
    return _FORMATS.get(path.suffix)


def _sizes(path: Path, header: bytes) -> tuple[int, int]:
    if len(header) < 8:
        raise CorpusError(f"{path} has {len(header)} bytes, its header takes 8: fetch it again")
    count, dim = (int(value) for value in np.frombuffer(header, "<u4"))
    for name, value in (("count", count), ("dimension", dim)):
        if value >= 1 << 31:
            raise CorpusError(f"{path} begins with the {name} {value - (1 << 32)}, expected a positive one")
    if not 1 <= dim <= _MOST_DIM:
        raise CorpusError(f"{path} begins with the dimension {dim}, expected 1 to {_MOST_DIM}: is it another format?")
    return count, dim


def _read_whole(path: Path, dtype: np.dtype[Any]) -> Array:
    with path.open("rb") as file:
        count, dim = _sizes(path, file.read(8))
        size_bytes = os.fstat(file.fileno()).st_size
    expected = 8 + count * dim * dtype.itemsize
    if size_bytes != expected:
        raise CorpusError(
            f"{path} has {size_bytes} bytes, {count} x {dim} {dtype.name} take {expected}: fetch it again, or check "
            "the suffix"
        )
    return _mapped(path, dtype, 8, (count, dim))


def _map_rows(path: Path, dtype: np.dtype[Any]) -> tuple[Array, Array]:
    """Return (vectors (n, d), the dimension each row states (n,)), both mapped."""
    with path.open("rb") as file:
        first = np.frombuffer(file.read(4), "<i4", -1) if os.fstat(file.fileno()).st_size >= 4 else np.empty(0, "<i4")
        size_bytes = os.fstat(file.fileno()).st_size
    if not len(first):
        raise CorpusError(f"{path} has {size_bytes} bytes: without a row its dimension is unknown; fetch it again")
    dim = int(first[0])
    if not 1 <= dim <= _MOST_DIM:
        raise CorpusError(f"{path} begins with the dimension {dim}, expected 1 to {_MOST_DIM}: is it another format?")
    row_bytes = 4 + dim * dtype.itemsize
    count, rest = divmod(size_bytes, row_bytes)
    if rest:
        raise CorpusError(
            f"{path} has {size_bytes} bytes, no multiple of the {row_bytes} that a row of dimension {dim} takes: fetch "
            "it again, or check the suffix"
        )
    raw = _mapped(path, np.dtype("u1"), 0, (count, row_bytes))
    return raw[:, 4:].view(dtype), raw[:, :4].view("<i4")[:, 0]


def _check_lengths(path: Path, lengths: Array, dim: int, before: int = 0) -> None:
    wrong = np.flatnonzero(lengths != dim)
    if len(wrong):
        row = int(wrong[0])
        raise CorpusError(
            f"{path}: row {before + row} states dimension {int(lengths[row])}, expected {dim} as in row 0"
        )


def _mapped(path: Path, dtype: np.dtype[Any], offset: int, shape: tuple[int, int]) -> Array:
    if shape[0] == 0:
        return np.empty(shape, dtype)  # nothing can be mapped
    return np.asarray(np.memmap(path, dtype, mode="r", offset=offset, shape=shape))


def _read_npy(path: Path) -> Array:
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise CorpusError(f"{path} is no whole .npy file of numbers: {error}; fetch it again") from error
    if not isinstance(array, np.ndarray) or array.ndim != 2 or array.dtype.kind not in "fiu" or array.shape[1] == 0:
        found = f"{array.dtype} {array.shape}" if isinstance(array, np.ndarray) else "several arrays"
        raise CorpusError(f"{path} holds {found}, expected numbers (n, d)")
    return np.asarray(array)


def _write_npy(path: Path, stream: Iterator[Array]) -> int:
    blocks = list(_checked(stream, None))
    with path.open("wb") as file:
        np.save(file, blocks[0] if len(blocks) == 1 else np.concatenate(blocks), allow_pickle=False)
        _flush(file)
    return sum(map(len, blocks))


def _write_stream(path: Path, form: _Format, stream: Iterator[Array]) -> int:
    count, dim = 0, 0
    with path.open("wb") as file:
        if form.layout == "whole":
            file.write(bytes(8))  # written last, when the count is known
        for block in _checked(stream, form.dtype):
            count, dim = count + len(block), block.shape[1]
            if form.layout == "rows":
                raw = np.empty((len(block), 4 + dim * form.dtype.itemsize), np.uint8)
                raw[:, :4] = np.frombuffer(np.array(dim, "<i4").tobytes(), np.uint8)
                raw[:, 4:] = np.ascontiguousarray(block, form.dtype).view(np.uint8).reshape(len(block), -1)
                file.write(raw.data)
            else:
                file.write(np.ascontiguousarray(block, form.dtype).data)
        if form.layout == "whole":
            file.seek(0)
            file.write(np.array([count, dim], "<u4").tobytes())
        _flush(file)
    return count


def _checked(stream: Iterator[Array], dtype: np.dtype[Any] | None) -> Iterator[Array]:
    count, dim = 0, None
    for block in stream:
        if block.ndim != 2 or block.shape[1] == 0 or block.dtype.kind not in "fiu":
            raise ShapeError(f"got {block.dtype} {block.shape}, expected numbers (n, d)")
        if dim is not None and block.shape[1] != dim:
            raise ShapeError(f"row {count} has dimension {block.shape[1]}, expected {dim} as before")
        if dtype is not None and not np.can_cast(block.dtype, dtype, "safe"):
            raise ShapeError(
                f"got {block.dtype}, this format holds {dtype.name}: convert it first, knowing what is lost"
            )
        count, dim = count + len(block), block.shape[1]
        if len(block):
            yield block
    if count == 0:
        raise ShapeError("got no vectors, expected at least one: a file without rows cannot be told from a cut one")


def _flush(file: Any) -> None:
    file.flush()
    os.fsync(file.fileno())
