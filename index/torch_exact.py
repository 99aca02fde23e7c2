"""Exact search by torch on a device: every query against every allowed vector.

The device computes scores of limited precision and hands back every row that could be among the k best by them; those
are scored again in float32 on the CPU, so the answer is that of `index.exact` whatever the device rounds.

Why nothing is missed: a row's score on the device differs from its float32 score by at most B (see `_bounds`). The k
rows that the device ranks first all score at least s - B, s being the device's k-th best score; so a row among the true
k best scores at least s - B, and at least s - 2 B on the device. All rows down to s - 2 B are candidates. The device
returns k and a margin; where even the last of them is no worse than s - 2 B (crowds of near-equal vectors), a wider
margin is tried, then the CPU answers that query.
"""

from functools import partial

import numpy as np
import numpy.typing as npt

from index.bitmap import check, unpack
from index.bitmap import count as count_bits
from index.device import canonical, on_device
from index.exact import exact, rescore
from index.held_out import Exchange
from index.metric import Metric, check_vectors, prepare
from index.torch_scores import DeviceVectors
from index.types import Bitmap, Effort, Neighbors, Rows, Vectors
from index.vector_file import VectorFile

_MARGINS = (64, 1_024)
"""Rows asked for beyond k. 2 B is 1e-4 to 4e-4 of a cosine (384 dimensions), which seldom spans ten ranks."""

_MOST_CANDIDATES = 1 << 14
"""Who wants more is served by the CPU: sorting so many costs the device more than scoring."""

_QUERIES = 1_024
"""Queries of one turn on the device."""

_FEW_ROWS = 20_000
"""So few allowed rows are read and scored by the CPU where not all vectors are on the device."""

_FLOAT32_UNIT = 2.0**-23
_HALF_UNIT = 2.0**-22
"""Error of one addition of a dot product: float32's, rounded either way; and tensor cores', which cut digits off."""

_INPUT_ERROR = {"ieee": 0.0, "none": 0.0, "tf32": 2.0**-9, "bf16": 2.0**-7}
"""Error of products where the process lets torch cut float32 to fewer digits (torch.set_float32_matmul_precision)."""

_REACH_MOST = 1e37
"""Squared lengths beyond this may overflow float32 somewhere: nothing is promised then."""


class TorchExact:
    """All of a vector file searched on a device. Any number of threads may search it; they take turns on the device.

    vectors: prepared for `metric`. exchange: from rows to positions in the file, where they differ.
    device: "cuda:0" ..., or "cpu" (for tests). memory_bytes: see DeviceVectors, as for what does not fit: with vectors
    sent for every search it is about as slow as the CPU for one query, faster for many.
    Raises RuntimeError (torch) where the device fails. Cost: reads the file once.
    """

    def __init__(
        self,
        vectors: VectorFile,
        metric: Metric,
        device: str,
        exchange: Exchange | None = None,
        memory_bytes: int | None = None,
    ) -> None:
        self._vectors = vectors
        self._metric = metric
        self._device = canonical(device)
        self._exchange = exchange or Exchange.sample(len(vectors), 0, 0)
        self._there = on_device(device, partial(DeviceVectors, vectors, metric, device, memory_bytes))

    @property
    def dim(self) -> int:
        """Vector dimension D."""
        return self._vectors.dim

    @property
    def degraded(self) -> str | None:
        """None: this one raises where its device fails."""
        return None

    @property
    def resident(self) -> int:
        """How many of the N vectors lie in the device's memory."""
        return self._there.resident

    def __len__(self) -> int:
        return len(self._vectors)

    def vectors(self, rows: Rows) -> Vectors:
        """Return the stored (prepared) vectors of `rows`, float32 (len(rows), D)."""
        return self._vectors.rows(self._exchange.apply(rows))

    def search(
        self,
        queries: Vectors,
        k: int,
        allowed: Bitmap | None = None,
        effort: Effort | None = None,  # noqa: ARG002  exact search has no effort to set
    ) -> Neighbors:
        """Return the k best allowed rows per query with float32 scores, ties by ascending row.

        queries: float32 (Q, D), not yet prepared. allowed: packed bits over the N rows.
        Raises ShapeError on shape or dtype, ValueError on k < 1, RuntimeError (torch) where the device fails.
        Cost: one pass over the vectors in the device's memory per 1,024 queries, and k random reads per query.
        """
        if k < 1:
            raise ValueError(f"k is {k}, expected at least 1")
        prepared = prepare(check_vectors(queries, self.dim), self._metric)
        bitmap, available = None, len(self)
        if allowed is not None:
            check(allowed, len(self))
            bitmap, available = self._exchange.bitmap(allowed), count_bits(allowed)
        few = available <= _FEW_ROWS and self.resident < len(self)
        if few or not available or not len(prepared) or k + _MARGINS[0] > _MOST_CANDIDATES:
            return self._exact(prepared, k, bitmap)
        parts = [self._search(prepared[at : at + _QUERIES], k, bitmap) for at in range(0, len(prepared), _QUERIES)]
        return Neighbors(np.concatenate([part.scores for part in parts]), np.concatenate([part.rows for part in parts]))

    def _search(self, queries: Vectors, k: int, bitmap: Bitmap | None) -> Neighbors:
        result = Neighbors(np.empty((len(queries), k), np.float32), np.empty((len(queries), k), np.int64))
        gaps = 2 * self._bounds(queries)
        rest = np.arange(len(queries))
        for margin in _MARGINS:
            gap, wanted = gaps[rest, None], min(k + margin, len(self))
            scores, candidates = on_device(self._device, partial(self._there.best, queries[rest], wanted, bitmap))
            # -inf: not an allowed row. Where the bound is infinite scores may be anything, and nothing is complete.
            last = scores[:, min(k, wanted) - 1, None]
            with np.errstate(invalid="ignore"):
                near = (scores > -np.inf) & ((last == -np.inf) | (scores >= last - gap))
            complete = np.isfinite(gap[:, 0]) & ((wanted == len(self)) | ~near[:, -1])
            done, needed = rest[complete], max(1, int(near[complete].sum(axis=1).max(initial=0)))
            chosen = np.where(near, candidates, -1)[complete, :needed]
            found = self._ranked(rescore(self._vectors, self._metric, queries[done], chosen, needed), k)
            result.scores[done], result.rows[done] = found
            rest = rest[~complete]
            if not len(rest) or wanted == len(self):
                break
        if len(rest):
            result.scores[rest], result.rows[rest] = self._exact(queries[rest], k, bitmap)
        return result

    def _bounds(self, queries: Vectors) -> npt.NDArray[np.float64]:
        """Return B of each prepared query, float64 (Q,); inf where nothing can be promised.

        How far the device's score may be from the float32 score of the same vectors. A sum of D products, in any order,
        is off by at most D units of |q||v| (Higham, Accuracy and Stability of Numerical Algorithms, 2002, section 3.1);
        for "l2" |q|^2 and |v|^2 are off by as many of theirs.
        """
        import torch  # noqa: PLC0415  loaded with the vectors

        lengths = np.sqrt(np.einsum("qd,qd->q", queries, queries, dtype=np.float64))
        reach = (lengths + self._there.longest) ** 2
        if self._there.half:
            error = (self.dim + 8) * _HALF_UNIT
        else:
            backend = torch.backends.mkldnn if self._device == "cpu" else torch.backends.cuda
            error = (self.dim + 8) * _FLOAT32_UNIT + _INPUT_ERROR[str(backend.matmul.fp32_precision)]
        # The CPU's own sum is off, too. The last term is for products below float32's normal range.
        bound = reach * (error + (self.dim + 8) * _FLOAT32_UNIT) + self.dim * 2.0**-120
        return np.where(reach < _REACH_MOST, bound, np.inf)

    def _exact(self, queries: Vectors, k: int, bitmap: Bitmap | None) -> Neighbors:
        positions = None if bitmap is None else np.flatnonzero(unpack(bitmap, len(self)))
        return self._ranked(exact(self._vectors, self._metric, queries, positions, k), k)

    def _ranked(self, near: Neighbors, k: int) -> Neighbors:
        """Return the k best of some positions as rows, (Q, k)."""
        rows = self._exchange.apply(near.rows)
        order = np.lexsort((rows, -near.scores))[:, :k]
        pad = ((0, 0), (0, k - order.shape[1]))
        return Neighbors(
            np.pad(np.take_along_axis(near.scores, order, 1), pad, constant_values=-np.inf),
            np.pad(np.take_along_axis(rows, order, 1), pad, constant_values=-1),
        )
