"""N prepared vectors on disk in row order, memory-mapped, at one of three precisions.

    vectors.npy   (N, D) C order: float32 | float16 | int8, little-endian; the values begin at byte 128
    scales.npy    int8 only: float32 (N,); vector = int8 row * scale

int8 rows are scaled by their own largest component (max|x| / 127) and rounded to nearest, so an error is at most half
a scale. float16 rounds to nearest even.
"""

from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final, Literal, Self, TypeAlias, get_args

import numpy as np
import numpy.typing as npt

from index.array_file import map_array, write_header
from index.errors import IndexFormatError, ShapeError
from index.types import Rows, Vectors

Storage: TypeAlias = Literal["float32", "float16", "int8"]

STORAGES: tuple[Storage, ...] = get_args(Storage)

VECTORS = "vectors.npy"
SCALES = "scales.npy"

_DESCR: Final[dict[Storage, str]] = {"float32": "<f4", "float16": "<f2", "int8": "|i1"}

_FLOAT16_MAX = 65_504.0

_INT8_STEPS = 127

_SMALLEST_SCALE = np.finfo(np.float32).tiny
"""Scales below float32's normal range have too few digits to divide by."""

_LARGEST_SCALE = np.nextafter(np.finfo(np.float32).max / np.float32(_INT8_STEPS), np.float32(0))
"""A larger scale would widen 127 steps to infinity."""


@dataclass(frozen=True, slots=True)
class VectorFile:
    """Vectors as stored; reading widens them to float32.

    raw: (N, D) little-endian float32, float16 or int8. scales: float32 (N,) for int8, else None.
    Both are plain views of read-only memory maps: what is never read takes no memory, and the kernel may drop the rest.
    """

    path: Path
    storage: Storage
    raw: npt.NDArray[Any]
    scales: npt.NDArray[np.float32] | None = None

    @property
    def dim(self) -> int:
        """Vector dimension D."""
        return int(self.raw.shape[1])

    def __len__(self) -> int:
        return int(self.raw.shape[0])

    def rows(self, rows: Rows) -> Vectors:
        """Return a copy of these rows in this order, float32 (len(rows), D); duplicates allowed.

        Raises IndexError on a row that does not exist. Cost: one random read a row; ascending rows read best.
        """
        raw = self.raw.take(rows, axis=0)
        return raw if self.storage == "float32" else self._widened(raw, rows)

    def block(self, start: int, stop: int) -> Vectors:
        """Return rows [start, stop), cut at N, as float32: a view for float32 storage, else a copy."""
        raw = self.raw[start:stop]
        return raw if self.storage == "float32" else self._widened(raw, slice(start, stop))

    def blocks(self, size: int) -> Iterator[Vectors]:
        """Yield all rows in order as float32, at most `size` at a time."""
        return (self.block(start, start + size) for start in range(0, len(self), size))

    def _widened(self, raw: npt.NDArray[Any], where: Rows | slice) -> Vectors:
        if self.scales is None:
            return _widened_half(raw)
        vectors: Vectors = raw.astype(np.float32)
        vectors *= self.scales[where, None]
        return vectors

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Map what `write_vectors` wrote; the storage is what the file says.

        Raises IndexFormatError on a file that is missing, cut, too long or of another shape or type, StorageError when
        it cannot be read. Cost: two pages read.
        """
        path = folder / VECTORS
        raw = map_array(path, ndim=2)
        storages: dict[np.dtype[Any], Storage] = {np.dtype(descr): storage for storage, descr in _DESCR.items()}
        storage = storages.get(raw.dtype)
        if storage is None:
            raise IndexFormatError(f"{path} holds {raw.dtype}, expected one of {', '.join(STORAGES)}: rebuild it")
        if storage != "int8":
            return cls(path, storage, raw)
        scales = map_array(folder / SCALES, ndim=1)
        if scales.shape != raw.shape[:1] or scales.dtype != np.dtype("<f4"):
            raise IndexFormatError(
                f"{folder / SCALES} holds {scales.dtype} {scales.shape}, expected float32 ({len(raw)},): rebuild it"
            )
        return cls(path, storage, raw, scales)


def _widened_half(raw: npt.NDArray[np.float16]) -> Vectors:
    """Return finite float16 values as float32: what `astype` returns, four times faster."""
    # The ten bits of the mantissa and the five of the exponent move to where float32 has them; the sign, smeared over
    # the upper bits by the widening, is cut back to one bit; then the exponents' biases differ by 127 - 15.
    bits = raw.view(np.int16).astype(np.int32)
    bits <<= 13
    bits &= np.int32(~0x70000000)
    vectors: Vectors = bits.view(np.float32)
    vectors *= np.float32(2.0**112)
    return vectors


def write_vectors(folder: Path, blocks: Iterable[Vectors], dim: int, count: int, storage: Storage = "float32") -> None:
    """Stream prepared vectors into `folder`; memory is one block at a time.

    blocks: float32 (n, dim), finite, `count` rows in all. As int8, a vector without a component of at least 1.5e-36
    becomes zero, with scale 0.
    Raises ShapeError on another shape, dtype or count, on NaN or infinity, and on values beyond float16's range.
    """
    # Plain writes, not a writable memory map: on a full disk a write raises, a mapped page kills the process.
    written = 0
    with ExitStack() as stack:
        file = _create(stack, folder / VECTORS, _DESCR[storage], (count, dim))
        scales_file = _create(stack, folder / SCALES, "<f4", (count,)) if storage == "int8" else None
        for block in blocks:
            _check_block(block, dim, written, storage)
            if scales_file is not None:
                narrow, scales = _quantised(block)
                scales_file.write(scales.data)
            else:
                narrow = np.ascontiguousarray(block, _DESCR[storage])
            file.write(narrow.data)
            written += len(block)
    if written != count:
        raise ShapeError(f"got {written} rows, expected {count}")


def _create(stack: ExitStack, path: Path, descr: str, shape: tuple[int, ...]) -> BinaryIO:
    file = stack.enter_context(path.open("wb"))
    write_header(file, descr, shape)
    return file


def _check_block(block: Vectors, dim: int, before: int, storage: Storage) -> None:
    if block.ndim != 2 or block.shape[1] != dim or block.dtype != np.float32:
        raise ShapeError(f"got a {block.dtype} block of {block.shape}, expected float32 (n, {dim})")
    limit = _FLOAT16_MAX if storage == "float16" else np.inf
    # 65,520 and more would round to infinity; refusing from the largest float16 on is easier to state.
    peaks = np.maximum(block.max(axis=1, initial=0), -block.min(axis=1, initial=0))
    good = peaks <= limit if storage == "float16" else peaks < limit
    if not good.all():
        row = int(np.flatnonzero(~good)[0])
        if np.isfinite(peaks[row]):
            raise ShapeError(
                f"vector {before + row} holds {peaks[row]:g}, float16 reaches {_FLOAT16_MAX:g}: "
                'set storage = "float32" or "int8", or use the cosine metric'
            )
        raise ShapeError(f"vector {before + row} holds NaN or infinity, expected finite values: encode it again")


def _quantised(block: Vectors) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float32]]:
    """Return int8 rows and their float32 scales."""
    scales = np.minimum(np.abs(block).max(axis=1, initial=0) / np.float32(_INT8_STEPS), _LARGEST_SCALE)
    scales[scales < _SMALLEST_SCALE] = 0
    steps = np.divide(block, scales[:, None], out=np.zeros_like(block, order="C"), where=scales[:, None] > 0)
    return np.rint(steps).astype(np.int8), scales
