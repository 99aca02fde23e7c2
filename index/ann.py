"""Approximate search with exact scores: a faiss index over codes or a graph, and the exact vectors beside it.

    vectors.npy, scales.npy   the exact vectors, memory-mapped (index.vector_file)
    ann.faiss                 the faiss index; a graph over exact vectors holds links only
    index.json                what was built and how well it does (index.ann_format)

Rows are found approximately, scored exactly, and never under-returned: where a filter or a broken graph leaves fewer
than k, the rest of the work is done exactly.
"""

import math
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from index.ann_format import About, read_about
from index.bitmap import check, unpack
from index.bitmap import count as count_bits
from index.errors import IndexFormatError
from index.exact import exact, rescore
from index.faiss_kinds import EXACT_SCORES, FAMILY, parameters
from index.faiss_library import load_faiss
from index.faiss_view import FaissView
from index.held_out import Exchange
from index.metric import Metric, check_vectors, prepare
from index.spec import Kind
from index.types import Bitmap, Effort, Neighbors, Rows, Vectors
from index.vector_file import VectorFile

FAISS_FILE = "ann.faiss"

_EXACT_ROWS = 20_000
"""So few allowed rows are gathered and scored exactly: a millisecond, and nothing is missed."""

_EXACT_SHARE = 0.05
_EXACT_ROWS_MOST = 100_000
"""A larger share of a large index as well, up to this many rows."""

_EFFORTS = 256
"""How many values of k have their effort remembered."""

_LOCAL_ROWS = 256
_LOCAL_EFFORT = 10
"""Rows around a query that tell whether a filter leaves any there, found with the effort of so many."""

_EXACT_CANDIDATES_SHARE = 0.02
_EXACT_CANDIDATES = 4_096
"""Who wants more candidates than both is served by a scan: finding thousands one by one costs more."""


class Finder:
    """A faiss index with what turns its answers into exact scores. Positions, not rows (see index.held_out)."""

    def __init__(self, kind: Kind, metric: Metric, vectors: VectorFile, index: Any) -> None:
        self.kind = kind
        self.family = FAMILY[kind]
        self.metric = metric
        self.vectors = vectors
        self.index = index

    def near(self, queries: Vectors, k: int, effort: Effort, selector: Any | None = None) -> Neighbors:
        """Return up to k near positions of each prepared query with exact scores; (Q, min(k, ntotal)).

        selector: a faiss.IDSelector of the allowed positions.
        """
        load_faiss()  # limits the threads of whichever thread this is
        scored = self.kind in EXACT_SCORES
        wanted = min(k if scored else max(k, effort.refine or 0), self.index.ntotal)
        asked = signs(queries) if self.family == "signs" else queries
        scores, positions = self.index.search(asked, wanted, params=parameters(self.family, effort, wanted, selector))
        if not scored:
            return rescore(self.vectors, self.metric, queries, positions, min(k, wanted))
        if self.metric == "l2":
            scores = -scores
        scores[positions < 0] = -np.inf
        return Neighbors(scores, positions)


def signs(vectors: Vectors) -> npt.NDArray[np.uint8]:
    """Return one bit per component, set where it is positive: uint8 (N, ceil(D / 8))."""
    return np.packbits(vectors > 0, axis=1)


class AnnIndex:
    """An opened approximate index. Any number of threads may search it."""

    def __init__(self, about: About, finder: Finder, exchange: Exchange) -> None:
        self.about = about
        # Microseconds, but so is a search.
        self._usual: Callable[[float], Effort] = lru_cache(_EFFORTS)(about.effort)
        self._finder = finder
        self._exchange = exchange

    @property
    def dim(self) -> int:
        """Vector dimension D."""
        return self._finder.vectors.dim

    @property
    def degraded(self) -> str | None:
        """None: it is searched where it was opened, on the CPU."""
        return None

    def __len__(self) -> int:
        return len(self._finder.vectors)

    def vectors(self, rows: Rows) -> Vectors:
        """Return the stored (prepared) vectors of `rows`, float32 (len(rows), D)."""
        return self._finder.vectors.rows(self._exchange.apply(rows))

    def search(
        self, queries: Vectors, k: int, allowed: Bitmap | None = None, effort: Effort | None = None
    ) -> Neighbors:
        """Return k near allowed rows per query with exact scores, ties by ascending row; fewer only if fewer exist.

        effort: of this call; what it leaves open is as calibrated when the index was built (`about.effort`).
        Under a filter that leaves few rows these are scored exactly. Where it leaves a share of the rows, the k nearest
        of them are about the k / share nearest of all, and the effort is that of finding so many.
        Raises ShapeError on shape or dtype, ValueError on k < 1.
        Cost: sublinear in N without a filter.
        """
        if k < 1:
            raise ValueError(f"k is {k}, expected at least 1")
        prepared = prepare(check_vectors(queries, self.dim), self._finder.metric)
        if allowed is None:
            near = self._search(prepared, k, self._effort(effort, k), None, len(self))
        else:
            near = self._filtered(prepared, k, effort, allowed)
        return _by_row(near.scores, self._exchange.apply(near.rows), k)

    def _effort(self, asked: Effort | None, depth: float) -> Effort:
        usual = self._usual(depth)
        if asked is None:
            return usual
        return Effort(
            usual.nprobe if asked.nprobe is None else asked.nprobe,
            usual.ef if asked.ef is None else asked.ef,
            usual.refine if asked.refine is None else asked.refine,
        )

    def _filtered(self, queries: Vectors, k: int, effort: Effort | None, allowed: Bitmap) -> Neighbors:
        check(allowed, len(self))
        available = count_bits(allowed)
        bitmap = self._exchange.bitmap(allowed)
        if available <= max(_EXACT_ROWS, min(_EXACT_SHARE * len(self), _EXACT_ROWS_MOST)):
            return self._exact(queries, k, bitmap)
        share = available / len(self)
        # How many allowed rows lie within a depth varies by its square root: two deviations more than k.
        depth = (k + 2 * math.sqrt(k)) / share
        near = self._search(queries, k, self._effort(effort, depth), bitmap, available)
        alien = np.flatnonzero(self._local_share(queries, bitmap) < share / 2)
        return self._completed(near, alien, queries, bitmap)

    def _local_share(self, queries: Vectors, bitmap: Bitmap) -> npt.NDArray[np.float64]:
        """Return the share of allowed rows around each query, float64 (Q,).

        A filter that has to do with the query may leave next to nothing near it, and then no effort finds the far rows.
        """
        wanted = min(_LOCAL_ROWS, len(self))
        rows = self._finder.near(queries, wanted, self._usual(_LOCAL_EFFORT)).rows
        inside = (bitmap[rows >> 3] >> (rows & 7).astype(np.uint8)) & 1
        return np.asarray(np.where(rows >= 0, inside, 0).mean(axis=1), dtype=np.float64)

    def _search(self, queries: Vectors, k: int, effort: Effort, bitmap: Bitmap | None, available: int) -> Neighbors:
        candidates = max(k, effort.refine or 0, effort.ef or 0)
        if candidates > max(_EXACT_CANDIDATES, _EXACT_CANDIDATES_SHARE * available):
            return self._exact(queries, k, bitmap)
        selector = None
        if bitmap is not None:
            faiss = load_faiss()
            selector = faiss.IDSelectorBitmap(len(self), faiss.swig_ptr(bitmap))
        near = self._finder.near(queries, min(k, available), effort, selector)
        short = np.flatnonzero(near.rows[:, -1] < 0)  # in order of score, so the last is missing if any is
        return self._completed(near, short, queries, bitmap)

    def _completed(self, near: Neighbors, which: Rows, queries: Vectors, bitmap: Bitmap | None) -> Neighbors:
        """Return `near` with the answers of some queries replaced by those of exact search."""
        if len(which):
            rest = self._exact(queries[which], near.rows.shape[1], bitmap)
            near.scores[which], near.rows[which] = rest.scores, rest.rows
        return near

    def _exact(self, queries: Vectors, k: int, bitmap: Bitmap | None) -> Neighbors:
        rows = None if bitmap is None else np.flatnonzero(unpack(bitmap, len(self))).astype(np.int64)
        return exact(self._finder.vectors, self._finder.metric, queries, rows, k)

    def moved(self, move: Callable[[Finder], Finder]) -> "AnnIndex":
        """Return this index with another finder of the same positions, one on a device say."""
        return AnnIndex(self.about, move(self._finder), self._exchange)

    @classmethod
    def open(cls, folder: Path, metric: Metric) -> Self:
        """Open what `index.ann_build.write_index` wrote, memory-mapped.

        Raises IndexFormatError on another format version, metric or shape. Cost: milliseconds; inverted lists are read.
        """
        about = read_about(folder)
        if about is None or about.kind == "flat":
            raise IndexFormatError(f"index {folder} is no approximate index: rebuild it")
        if about.metric != metric:
            raise IndexFormatError(f"index {folder} was built for metric {about.metric}, expected {metric}: rebuild it")
        vectors = VectorFile.open(folder)
        index = _open_faiss(folder, about, vectors)
        dim = -(-vectors.dim // 8) * 8 if FAMILY[about.kind] == "signs" else vectors.dim  # a whole number of bytes
        if index.ntotal != len(vectors) or index.d != dim:
            raise IndexFormatError(
                f"{folder / FAISS_FILE} holds {index.ntotal} x {index.d}, the vectors beside it are "
                f"{len(vectors)} x {vectors.dim}: rebuild it"
            )
        exchange = Exchange.sample(len(vectors), about.held_out, about.seed)
        return cls(about, Finder(about.kind, metric, vectors, index), exchange)


def _open_faiss(folder: Path, about: About, vectors: VectorFile) -> Any:
    faiss = load_faiss()
    path = str(folder / FAISS_FILE)
    size_bytes = (folder / FAISS_FILE).stat().st_size if (folder / FAISS_FILE).is_file() else 0
    if size_bytes != about.faiss_bytes:  # faiss 1.15 writes outside its memory while it reads some cut files
        raise IndexFormatError(f"{path} has {size_bytes} bytes, expected {about.faiss_bytes}: rebuild it")
    try:
        if FAMILY[about.kind] == "signs":
            return faiss.read_index_binary(path)
        index = faiss.read_index(path, faiss.IO_FLAG_MMAP_IFC)
    except RuntimeError as error:
        raise IndexFormatError(f"{path} cannot be read by faiss {faiss.__version__}: rebuild it") from error
    if about.kind == "hnsw":
        view = FaissView(vectors, l2=about.metric == "l2")
        index.storage = view.index
        index.own_fields = False
        index.referenced_objects = [view]  # kept as long as the index that reads from it
    return index


def _by_row(scores: npt.NDArray[np.float32], rows: Rows, k: int) -> Neighbors:
    """Return (Q, k) neighbours with ties by ascending row, padded with -1 and -inf."""
    tied = scores[:, 1:] == scores[:, :-1]
    for query in np.flatnonzero((tied & (rows[:, 1:] >= 0)).any(axis=1)) if tied.any() else ():
        order = np.lexsort((rows[query], -scores[query]))
        scores[query], rows[query] = scores[query, order], rows[query, order]
    missing = k - rows.shape[1]
    if missing > 0:
        scores = np.pad(scores, ((0, 0), (0, missing)), constant_values=-np.inf)
        rows = np.pad(rows, ((0, 0), (0, missing)), constant_values=-1)
    return Neighbors(scores, rows)
