"""The benchmark's vectors, queries and exact neighbours, and recall against them."""

from pathlib import Path

import numpy as np
import numpy.typing as npt

from index.types import Rows, Vectors

SAME_SCORE = 1e-6
"""A row whose exact score is this close to the k-th best counts as found: float32 sums differ by less."""


class Truth:
    """What `speed_vectors.make` wrote. queries: float32 (Q, D). rows: int64 (Q, 100), best first."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.queries: Vectors = np.load(folder / "queries.npy")
        self.rows: Rows = np.load(folder / "truth.npy")
        self.scores: npt.NDArray[np.float32] = np.load(folder / "truth_scores.npy")
        # The plain view: slicing a memmap object is slow.
        self.base: Vectors = np.asarray(np.load(folder / "base.npy", mmap_mode="r"))

    @property
    def count(self) -> int:
        return len(self.base)

    def recall(self, found: Rows, k: int) -> dict[str, float]:
        """Recall@k of rows int64 (n, >= k) for the first n queries: by id, and counting ties with the k-th best."""
        by_id, tied = recalls(self, found, self.rows, self.scores, k)
        return {"by_id": float(by_id.mean()), "recall": float(tied.mean()), "spread": float(tied.std())}


def recalls(
    truth: Truth, found: Rows, rows: Rows, scores: npt.NDArray[np.float32], k: int
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Per query: share of the k best that were found by id, and with ties. A row returned twice counts once."""
    by_id, tied = np.empty(len(found)), np.empty(len(found))
    for query in range(len(found)):
        best, last = rows[query, :k], scores[query, :k]
        best, last = best[best >= 0], last[best >= 0]
        mine = np.unique(found[query, :k])
        mine = mine[mine >= 0]
        by_id[query] = np.isin(mine, best).sum() / max(1, len(best))
        exact = truth.base[mine] @ truth.queries[query]
        close = (exact >= last[-1] - SAME_SCORE).sum() if len(last) else 0
        tied[query] = min(len(best), close) / max(1, len(best)) if len(best) else 1.0
    return by_id, tied
