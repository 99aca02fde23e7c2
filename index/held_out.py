"""Rows that a build keeps back to measure recall on, and adds last.

An approximate index measured with vectors that it contains flatters itself: a graph was linked from them. So a seeded
sample of rows changes places with the last rows; everything before is built and measured, then the sample is added.
Inside the index vectors stand in this order ("positions"); rows are what callers know. Exchanging is its own inverse.
"""

import os
from pathlib import Path

import numpy as np
import numpy.typing as npt

from index.array_file import HEADER_BYTES
from index.durable import storage_errors
from index.types import Bitmap, Rows
from index.vector_file import SCALES, VectorFile


class Exchange:
    """Pairs of rows that changed places. low, high: int64 (P,), low ascending, all 2 P rows distinct."""

    def __init__(self, low: Rows, high: Rows) -> None:
        keys = np.concatenate([low, high])
        order = np.argsort(keys)
        self.low, self.high = low, high
        self._keys = keys[order]
        self._partners = np.concatenate([high, low])[order]

    @classmethod
    def sample(cls, count: int, size: int, seed: int) -> "Exchange":
        """Return the exchange that brings a random sample of `size` of `count` rows to the end."""
        chosen = np.sort(np.random.default_rng(seed).choice(count, size, replace=False)).astype(np.int64)
        tail = np.arange(count - size, count, dtype=np.int64)
        low = chosen[chosen < count - size]
        return cls(low, np.setdiff1d(tail, chosen)[: len(low)])

    def apply(self, values: Rows) -> Rows:
        """Return the position of each row, or the row at each position; -1 stays. Any shape, int64."""
        if not len(self._keys):
            return values
        places = np.searchsorted(self._keys, values)
        places[places == len(self._keys)] = 0
        return np.where(self._keys[places] == values, self._partners[places], values)

    def bitmap(self, allowed: Bitmap) -> Bitmap:
        """Return packed bits over rows as packed bits over positions. Cost: one copy."""
        if not len(self._keys):
            return allowed
        bits: npt.NDArray[np.uint8] = (allowed[self._partners >> 3] >> (self._partners & 7).astype(np.uint8)) & 1
        shift = (self._keys & 7).astype(np.uint8)
        result = allowed.copy()
        np.bitwise_and.at(result, self._keys >> 3, ~(np.uint8(1) << shift))
        np.bitwise_or.at(result, self._keys >> 3, bits << shift)
        return result


def exchange_rows(vectors: VectorFile, exchange: Exchange) -> None:
    """Exchange rows in the files of `vectors`; maps of them see it. Cost: two reads and writes a pair."""
    _exchange(vectors.path, vectors.raw.itemsize * vectors.dim, exchange)
    if vectors.scales is not None:
        _exchange(vectors.path.with_name(SCALES), vectors.scales.itemsize, exchange)


def _exchange(path: Path, row_bytes: int, exchange: Exchange) -> None:
    with storage_errors("write", path), path.open("r+b") as file:
        for pair in zip(exchange.low.tolist(), exchange.high.tolist(), strict=True):
            places = [HEADER_BYTES + row * row_bytes for row in pair]
            contents = [os.pread(file.fileno(), row_bytes, place) for place in places]
            for place, content in zip(places, reversed(contents), strict=True):
                os.pwrite(file.fileno(), content, place)
