"""Selecting and merging the best of many scores, deterministically."""

import numpy as np
import numpy.typing as npt

from index.types import Neighbors, Rows

Scores = npt.NDArray[np.float32]


def top_k(scores: Scores, rows: Rows, k: int) -> tuple[Scores, Rows]:
    """Return the k best of one query's scores, best first, ties by ascending row; fewer if fewer exist.

    scores: float32 (N,); -inf marks rows that must not appear. rows: int64 (N,).
    Cost: one partition, then a sort of k; of scores that tie at the end, one more partition.
    """
    if len(scores) > k:
        kth = np.partition(scores, len(scores) - k)[len(scores) - k]
        chosen = np.flatnonzero(scores > kth)
        tied = np.flatnonzero(scores == kth)
        missing = k - len(chosen)
        if len(tied) > missing:
            tied = tied[np.argpartition(rows[tied], missing - 1)[:missing]]
        chosen = np.concatenate([chosen, tied])
    else:
        chosen = np.arange(len(scores))
    chosen = chosen[scores[chosen] != -np.inf]
    order = chosen[np.lexsort((rows[chosen], -scores[chosen]))]
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


class Best:
    """The k best of each of Q queries, over blocks of rows that come in ascending order."""

    def __init__(self, queries: int, k: int) -> None:
        self._k = k
        self._results = [(np.empty(0, np.float32), np.empty(0, np.int64)) for _ in range(queries)]

    def add(self, scores: Scores, rows: Rows) -> None:
        """Take in one block. scores: float32 (Q, n), -inf marks rows that must not appear. rows: int64 (n,) ascending.

        Cost: per query one partition while there are fewer than k, then one comparison and what is left to sort.
        """
        for query, here in enumerate(scores):
            best = self._results[query]
            if len(best[0]) < self._k:
                self._results[query] = merge([best, top_k(here, rows, self._k)], self._k)
                continue
            # A later row never displaces an equal score.
            better = np.flatnonzero(here > best[0][-1])
            if len(better):
                self._results[query] = merge([best, (here[better], rows[better])], self._k)

    def neighbors(self) -> Neighbors:
        """Return the best so far, float32 and int64 (Q, k)."""
        return padded(self._results, self._k)
