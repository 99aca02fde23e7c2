"""Vectors in a device's memory, and the best of their scores for a batch of queries, by torch.

All methods of DeviceVectors run on the device's thread (index.device.on_device).
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from index.device import canonical, free_bytes
from index.metric import Metric
from index.types import Bitmap, Rows, Vectors
from index.vector_file import VectorFile

if TYPE_CHECKING:
    from torch import Tensor

_SCORES = 1 << 26
"""Scores computed at once on the device: 256 MiB of float32."""

_PRODUCT_VALUES = 1 << 30
"""Vector components of one product: matrix libraries have failed on matrices of more than 2^31."""

_SENT_VALUES = 1 << 24
"""Vector components on their way to the device at once: 64 MiB of float32."""

_FREE_SHARE = 0.9
_SCRATCH_BYTES = 12 * _SCORES
"""Left free: scores, what selects the best of them, one block on its way."""

_LOW_PART = 2.0**11
"""The digits of a query that float16 drops, scaled up to be a float16 of their own."""


class DeviceVectors:
    """Vectors of a file on a device: as float32, or as float16 for the storages float16 and int8 (its whole steps).

    vectors: prepared for `metric`. memory_bytes: device memory they may take, None = 90 % of what is free less 0.8 GB
    of scratch. Those that do not fit are sent block by block for every search.
    resident: how many are on the device. longest: an upper bound of their lengths.
    Raises RuntimeError (torch) where the device fails. Cost: reads the file once.
    """

    def __init__(self, vectors: VectorFile, metric: Metric, device: str, memory_bytes: int | None) -> None:
        import torch  # noqa: PLC0415  heavy

        count, dim = len(vectors), vectors.dim
        self.half = vectors.storage != "float32"
        self._vectors = vectors
        self._metric = metric
        self._device = canonical(device)
        dtype = torch.float16 if self.half else torch.float32
        row_bytes = dim * dtype.itemsize + 8  # 8: squared length and scale
        if memory_bytes is None:
            memory_bytes = int(_FREE_SHARE * free_bytes(device)) - _SCRATCH_BYTES
        fit = max(0, min(count, memory_bytes // row_bytes))
        self.resident = fit if fit == count else fit // 8 * 8  # where packed bits can be cut
        self._resident = torch.empty((self.resident, dim), dtype=dtype, device=self._device)
        self._squares = torch.empty(count, dtype=torch.float32, device=self._device)
        self._scales = None if vectors.scales is None else torch.from_numpy(vectors.scales.copy()).to(self._device)
        step = max(1, _SENT_VALUES // max(1, dim))
        for start in range(0, count, step):
            stop = min(start + step, count)
            block = self._sent(start, stop)
            self._resident[start : min(stop, self.resident)] = block[: max(0, self.resident - start)]
            lengths = torch.linalg.vector_norm(block, dim=1, dtype=torch.float32)
            if self._scales is not None:
                lengths *= self._scales[start:stop]
            self._squares[start:stop] = lengths.square()
        # A little more than computed: that, too, was rounded.
        self.longest = 1.001 * float(self._squares.max().sqrt()) if count else 0.0

    def best(self, queries: Vectors, wanted: int, allowed: Bitmap | None) -> tuple[npt.NDArray[np.float32], Rows]:
        """Return the `wanted` best positions of each prepared query by the device's scores, best first.

        wanted: 1 to N. allowed: packed bits over the N positions; others score -inf. Returns float32 and int64
        (Q, wanted). Equal scores come in any order.
        """
        import torch  # noqa: PLC0415  loaded with the vectors

        with torch.inference_mode():
            asked = self._asked(queries)
            bits = None if allowed is None else torch.from_numpy(allowed.copy()).to(self._device)
            places = torch.arange(8, dtype=torch.uint8, device=self._device)
            best = torch.empty((len(queries), 0), dtype=torch.float32, device=self._device)
            rows = torch.empty((len(queries), 0), dtype=torch.int64, device=self._device)
            for start, stop in self._pieces(len(asked[0])):
                scores = self._scores(asked, start, stop)
                if bits is not None:
                    inside = (bits[start // 8 : (stop + 7) // 8, None] >> places & 1).flatten()[: stop - start]
                    scores.masked_fill_(inside[None, :] == 0, -torch.inf)
                top = scores.topk(min(wanted, stop - start), dim=1)
                del scores
                merged = torch.cat([best, top.values], dim=1)
                best, kept = merged.topk(min(wanted, merged.shape[1]), dim=1)
                rows = torch.cat([rows, top.indices + start], dim=1).gather(1, kept)
            return best.cpu().numpy(), rows.cpu().numpy()

    def _pieces(self, queries: int) -> Iterator[tuple[int, int]]:
        """Yield [start, stop) of all positions, each either on the device or sent whole; starts divide by 8."""
        dim = max(1, self._vectors.dim)
        most = max(8, min(_SCORES // max(1, queries), _PRODUCT_VALUES // dim) // 8 * 8)
        sent = min(most, max(8, _SENT_VALUES // dim // 8 * 8))
        for first, end, step in ((0, self.resident, most), (self.resident, len(self._vectors), sent)):
            for start in range(first, end, step):
                yield start, min(start + step, end)

    def _sent(self, start: int, stop: int) -> "Tensor":
        import torch  # noqa: PLC0415  as above

        block = torch.from_numpy(self._vectors.raw[start:stop].copy()).to(self._device)
        return block.half() if self.half else block

    def _asked(self, queries: Vectors) -> tuple["Tensor", "Tensor", "Tensor"]:
        """Return (what is multiplied, factor of each query, squared length of each query) on the device.

        Against float16 vectors a query is two float16 vectors, (2 Q, D): its leading digits, and the rest times 2^11.
        """
        import torch  # noqa: PLC0415  as above

        whole = torch.from_numpy(queries.copy()).to(self._device)
        squares = whole.square().sum(dim=1)
        if not self.half:
            return whole, torch.ones_like(squares), squares
        factors = whole.abs().amax(dim=1).clamp_min(torch.finfo(torch.float32).tiny)
        whole = whole / factors[:, None]
        leading = whole.half()
        return torch.cat([leading, ((whole - leading.float()) * _LOW_PART).half()]), factors, squares

    def _scores(self, asked: tuple["Tensor", "Tensor", "Tensor"], start: int, stop: int) -> "Tensor":
        """Return float32 (Q, stop - start) scores."""
        parts, factors, squares = asked
        block = self._resident[start:stop] if stop <= self.resident else self._sent(start, stop)
        scores = self._products(parts, block)
        if self.half:
            scores = scores[: len(factors)].add_(scores[len(factors) :], alpha=1 / _LOW_PART).mul_(factors[:, None])
        if self._scales is not None:
            scores.mul_(self._scales[None, start:stop])
        if self._metric == "l2":
            scores.mul_(2).sub_(self._squares[None, start:stop]).sub_(squares[:, None])
        return scores

    def _products(self, parts: "Tensor", block: "Tensor") -> "Tensor":
        import torch  # noqa: PLC0415  as above

        if not self.half:
            return parts @ block.T
        if parts.is_cuda:  # float16 is read, float32 added up and returned; torch has this product for CUDA only
            return torch.mm(parts, block.T, out_dtype=torch.float32)
        return parts.float() @ block.float().T
