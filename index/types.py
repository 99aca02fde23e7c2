"""Core array types and the vector index protocol.

Shapes are part of the contract: N rows, D dimensions, Q queries, k results.
"""

from dataclasses import dataclass
from typing import NamedTuple, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

Vectors: TypeAlias = npt.NDArray[np.float32]
"""float32 (N, D), C-contiguous."""

Rows: TypeAlias = npt.NDArray[np.int64]
"""int64; -1 means no result."""

Bitmap: TypeAlias = npt.NDArray[np.uint8]
"""Packed bits, one per row, little-endian within a byte (`np.packbits(..., bitorder="little")`)."""

Mask: TypeAlias = npt.NDArray[np.bool_]
"""Unpacked form of a Bitmap: bool (N,)."""


class Neighbors(NamedTuple):
    """Result of a batched vector search: best first, higher is better.

    scores: float32 (Q, k); rows: int64 (Q, k), padded with -1 where fewer than k rows exist (score -inf there).
    """

    scores: npt.NDArray[np.float32]
    rows: Rows


@dataclass(frozen=True, slots=True)
class Effort:
    """Search effort of one call, never a setting of the shared index; exact indexes ignore it."""

    nprobe: int | None = None
    ef: int | None = None
    refine: int | None = None


class VectorIndex(Protocol):
    """An immutable index of N vectors; rows are positions 0..N-1."""

    @property
    def dim(self) -> int:
        """Vector dimension D."""
        ...

    @property
    def degraded(self) -> str | None:
        """Why answers come from elsewhere than the device asked for, in one line; None as long as all is well."""
        ...

    def __len__(self) -> int: ...

    def search(
        self, queries: Vectors, k: int, allowed: Bitmap | None = None, effort: Effort | None = None
    ) -> Neighbors:
        """Return the k best rows for each query, among the allowed ones.

        queries: float32 (Q, D). allowed: packed bits over the N rows; None allows all.
        Raises ShapeError on shape or dtype, ValueError on k < 1.
        """
        ...

    def vectors(self, rows: Rows) -> Vectors:
        """Return the stored (prepared, see index.metric) vectors of `rows`, float32 (len(rows), D)."""
        ...
