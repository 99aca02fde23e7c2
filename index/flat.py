"""Exact search: every query against every allowed vector."""

from collections.abc import Iterable
from pathlib import Path
from typing import Self

import numpy as np

from index.bitmap import unpack
from index.errors import IndexFormatError, ShapeError
from index.metric import Metric, check_vectors, prepare, scores
from index.topk import merge, padded, top_k
from index.types import Bitmap, Effort, Neighbors, Rows, Vectors

_FILE = "vectors.npy"
_BLOCK_SCORES = 1 << 22
"""Scores computed at once: bounds scratch memory to 16 MiB however many queries and rows there are."""

_GATHER_BELOW = 0.5
"""Share of allowed rows under which copying them out beats scoring all: the copy costs about as much as the product
of one query saves."""


class FlatIndex:
    """Vectors in row order, scored exhaustively; the reference that approximate kinds are measured against.

    vectors: float32 (N, D), already prepared for `metric` (see index.metric.prepare); may be memory-mapped.
    """

    def __init__(self, vectors: Vectors, metric: Metric) -> None:
        self._vectors = vectors
        self._metric = metric

    @property
    def dim(self) -> int:
        """Vector dimension D."""
        return int(self._vectors.shape[1])

    def __len__(self) -> int:
        return int(self._vectors.shape[0])

    def vectors(self, rows: Rows) -> Vectors:
        """Return the stored (prepared) vectors of `rows`, float32 (len(rows), D)."""
        return np.ascontiguousarray(self._vectors[rows])

    def search(
        self,
        queries: Vectors,
        k: int,
        allowed: Bitmap | None = None,
        effort: Effort | None = None,  # noqa: ARG002  exact search has no effort to set
    ) -> Neighbors:
        """Return the k best allowed rows per query, ties by ascending row.

        queries: float32 (Q, D), not yet prepared. allowed: packed bits over the N rows.
        Raises ShapeError on shape or dtype, ValueError on k < 1.
        Cost: Q x N x D multiplications, scratch memory bounded by 16 MiB plus the gathered rows.
        """
        if k < 1:
            raise ValueError(f"k is {k}, expected at least 1")
        prepared = prepare(check_vectors(queries, self.dim), self._metric)
        rows = np.arange(len(self), dtype=np.int64)
        gather = False
        if allowed is not None:
            mask = unpack(allowed, len(self))
            rows = np.flatnonzero(mask).astype(np.int64)
            gather = len(rows) < _GATHER_BELOW * len(self)
        step = max(1, _BLOCK_SCORES // max(1, len(prepared)))
        results = [top_k(np.empty(0, np.float32), np.empty(0, np.int64), k) for _ in prepared]
        for block in _blocks(rows, step, contiguous=not gather):
            vectors = self._vectors[block] if gather else self._vectors[block[0] : block[-1] + 1]
            block_scores = scores(prepared, vectors, self._metric)
            if not gather and len(block) != len(vectors):
                block_scores = block_scores[:, block - block[0]]
            for query in range(len(prepared)):
                results[query] = merge([results[query], top_k(block_scores[query], block, k)], k)
        return padded(results, k)

    @classmethod
    def open(cls, folder: Path, metric: Metric) -> Self:
        """Open what `write_flat` wrote, memory-mapped. Raises IndexFormatError when the file is not float32 (N, D)."""
        vectors = np.load(folder / _FILE, mmap_mode="r", allow_pickle=False)
        if vectors.ndim != 2 or vectors.dtype != np.float32:
            raise IndexFormatError(
                f"{folder / _FILE} holds {vectors.dtype} {vectors.shape}, expected float32 (N, D): rebuild it"
            )
        return cls(np.asarray(vectors), metric)  # the plain view: slicing a memmap object is slow


def _blocks(rows: Rows, step: int, *, contiguous: bool) -> Iterable[Rows]:
    """Cut ascending rows into blocks; with `contiguous`, no block spans more than `step` rows of the index."""
    if not contiguous:
        for start in range(0, len(rows), step):
            yield rows[start : start + step]
        return
    start = 0
    while start < len(rows):
        stop = int(np.searchsorted(rows, rows[start] + step))
        yield rows[start:stop]
        start = stop


def write_flat(folder: Path, blocks: Iterable[Vectors], dim: int, count: int) -> None:
    """Stream prepared vectors into `folder`; memory is one block at a time.

    blocks: float32 (n, dim) arrays, `count` rows in all. Raises ShapeError when they add up to another shape.
    """
    # Plain writes, not a writable memory map: on a full disk a write raises, a mapped page kills the process.
    header = {"descr": "<f4", "fortran_order": False, "shape": (count, dim)}
    written = 0
    with (folder / _FILE).open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        for block in blocks:
            if block.ndim != 2 or block.shape[1] != dim or block.dtype != np.float32:
                raise ShapeError(f"got a {block.dtype} block of {block.shape}, expected float32 (n, {dim})")
            file.write(np.ascontiguousarray(block).data)
            written += len(block)
    if written != count:
        raise ShapeError(f"got {written} rows, expected {count}")
