"""Selecting and merging the best of many scores, deterministically."""

import numpy as np
import numpy.typing as npt

from index.types import Neighbors, Rows

Scores = npt.NDArray[np.float32]


def top_k(scores: Scores, rows: Rows, k: int) -> tuple[Scores, Rows]:
    """Return the k best of one query's scores, best first, ties by ascending row; fewer if fewer exist.

    scores: float32 (N,); -inf marks rows that must not appear. rows: int64 (N,).
    Cost: one partition, then a sort of k.
    """
    if len(scores) > k:
        kth = np.partition(scores, len(scores) - k)[len(scores) - k]
        chosen = np.flatnonzero(scores >= kth)
    else:
        chosen = np.arange(len(scores))
    chosen = chosen[scores[chosen] != -np.inf]
    order = chosen[np.lexsort((rows[chosen], -scores[chosen]))][:k]
    return scores[order], rows[order]


def merge(parts: list[tuple[Scores, Rows]], k: int) -> tuple[Scores, Rows]:
    """Return the k best of several results of one query."""
    return top_k(np.concatenate([part[0] for part in parts]), np.concatenate([part[1] for part in parts]), k)


def padded(results: list[tuple[Scores, Rows]], k: int) -> Neighbors:
    """Stack per-query results into (Q, k) arrays, padding with score -inf and row -1."""
    scores = np.full((len(results), k), -np.inf, dtype=np.float32)
    rows = np.full((len(results), k), -1, dtype=np.int64)
    for query, (found_scores, found_rows) in enumerate(results):
        scores[query, : len(found_rows)] = found_scores
        rows[query, : len(found_rows)] = found_rows
    return Neighbors(scores, rows)
