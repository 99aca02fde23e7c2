"""Exact search: every query against every allowed vector."""

from pathlib import Path
from typing import Self

import numpy as np

from index.bitmap import unpack
from index.exact import exact
from index.metric import Metric, check_vectors, prepare
from index.types import Bitmap, Effort, Neighbors, Rows, Vectors
from index.vector_file import VectorFile


class FlatIndex:
    """Vectors in row order, scored exhaustively; the reference that approximate kinds are measured against.

    vectors: already prepared for `metric` (see index.metric.prepare), at any precision: scores are those of the
    vectors as stored.
    """

    def __init__(self, vectors: VectorFile, metric: Metric) -> None:
        self._vectors = vectors
        self._metric = metric

    @property
    def dim(self) -> int:
        """Vector dimension D."""
        return self._vectors.dim

    @property
    def degraded(self) -> str | None:
        """None: it is searched where it was opened, on the CPU."""
        return None

    def __len__(self) -> int:
        return len(self._vectors)

    def vectors(self, rows: Rows) -> Vectors:
        """Return the stored (prepared) vectors of `rows`, float32 (len(rows), D)."""
        return self._vectors.rows(rows)

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
        Cost: see index.exact.exact, and 9 bytes of memory an allowed row.
        """
        if k < 1:
            raise ValueError(f"k is {k}, expected at least 1")
        prepared = prepare(check_vectors(queries, self.dim), self._metric)
        rows = None if allowed is None else np.flatnonzero(unpack(allowed, len(self)))
        return exact(self._vectors, self._metric, prepared, rows, k)

    @classmethod
    def open(cls, folder: Path, metric: Metric) -> Self:
        """Open what `index.vector_file.write_vectors` wrote, memory-mapped. Raises IndexFormatError."""
        return cls(VectorFile.open(folder), metric)
