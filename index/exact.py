"""Exact scores: of all rows, of given rows, and of the candidates that an approximate search found."""

from collections.abc import Iterator

import numpy as np

from index.metric import Metric, paired_scores, scores
from index.topk import Best, Scores
from index.types import Neighbors, Rows, Vectors
from index.vector_file import VectorFile

_BLOCK_SCORES = 1 << 22
"""Scores computed at once: 16 MiB, however many queries and rows there are."""

_COPIED_VALUES = 1 << 18
"""Vector components copied or widened at once: 1 MiB as float32, so that the product reads them from the cache."""

_BATCH = 32
"""For how many queries at most as many times more are copied at once: 32 MiB."""

_READ = 5
_COPY = 8
"""What reading a vector in place and copying it out cost, in products of one query (measured at 384 dimensions)."""


def exact(vectors: VectorFile, metric: Metric, queries: Vectors, rows: Rows | None, k: int) -> Neighbors:
    """Return the k best of the given rows (None: of all) per query, ties by ascending row.

    queries: prepared float32 (Q, D). rows: int64 (n,), ascending, unique, each below N.
    Cost: Q x n x D multiplications; few rows are copied out in order, many are scored where they lie. Scratch memory
    does not grow with N: 100 MiB, twice as much while most scores are equal.
    """
    best = Best(len(queries), k)
    step = max(1, _BLOCK_SCORES // max(1, len(queries)))
    few = rows is not None and len(rows) * (len(queries) + _READ + _COPY) < len(vectors) * (len(queries) + _READ)
    for where, block_rows in _pieces(rows, len(vectors), step, copied=few):
        block_scores = _scored(vectors, metric, queries, where)
        if len(block_rows) != len(where):
            block_scores = block_scores.take(block_rows - where[0], axis=1)
        best.add(block_scores, block_rows)
    return best.neighbors()


def _pieces(rows: Rows | None, count: int, step: int, *, copied: bool) -> Iterator[tuple[range | Rows, Rows]]:
    """Yield (what to score: a range to read in place, or rows to copy out; the wanted rows in it)."""
    if rows is None or (len(rows) and rows[-1] - rows[0] + 1 == len(rows)):
        first, last = (0, count) if rows is None else (int(rows[0]), int(rows[-1]) + 1)
        for start in range(first, last, step):
            piece = range(start, min(start + step, last))
            yield piece, np.arange(piece.start, piece.stop)
    elif copied:
        for start in range(0, len(rows), step):
            yield rows[start : start + step], rows[start : start + step]
    else:
        start = 0
        while start < len(rows):
            stop = int(np.searchsorted(rows, rows[start] + step))
            yield range(int(rows[start]), int(rows[stop - 1]) + 1), rows[start:stop]
            start = stop


def _scored(vectors: VectorFile, metric: Metric, queries: Vectors, where: range | Rows) -> Scores:
    in_place = isinstance(where, range) and vectors.storage == "float32"
    # The product of a batch outweighs the copy: larger pieces cost it nothing and are worth sharing among threads.
    values = _COPIED_VALUES * max(1, min(len(queries), _BATCH))
    size = len(where) if in_place else max(1, values // max(1, vectors.dim))
    parts = []
    for start in range(0, len(where), size):
        part = where[start : start + size]
        block = vectors.block(part.start, part.stop) if isinstance(part, range) else vectors.rows(part)
        parts.append(scores(queries, block, metric))
    return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)


def rescore(vectors: VectorFile, metric: Metric, queries: Vectors, candidates: Rows, k: int) -> Neighbors:
    """Return each query's k best candidates by exact score, ties by ascending row.

    queries: prepared float32 (Q, D). candidates: int64 (Q, c), each below N and once a query, -1 = none.
    Cost: one random read and D multiplications a candidate, then a sort. Scratch memory is bounded by 4 MiB, or by one
    query's candidates where they need more, besides the result.
    """
    found = np.full(candidates.shape, -np.inf, dtype=np.float32)
    step = max(1, _COPIED_VALUES // max(1, candidates.shape[1] * vectors.dim))
    for start in range(0, len(queries) if len(vectors) else 0, step):
        part = candidates[start : start + step]
        block = vectors.rows(np.maximum(part, 0).ravel()).reshape(*part.shape, vectors.dim)
        found[start : start + step] = paired_scores(queries[start : start + step], block, metric)
    found[candidates < 0] = -np.inf
    order = np.lexsort((candidates, -found))[:, :k]
    result = Neighbors(np.take_along_axis(found, order, 1), np.take_along_axis(candidates, order, 1))
    short = k - order.shape[1]
    if short <= 0:
        return result
    pad = ((0, 0), (0, short))
    return Neighbors(np.pad(result.scores, pad, constant_values=-np.inf), np.pad(result.rows, pad, constant_values=-1))
