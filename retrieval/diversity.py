"""Maximal marginal relevance: results that differ from each other."""

import numpy as np
import numpy.typing as npt

from index.types import Vectors


def select_diverse(
    scores: npt.NDArray[np.float64], vectors: Vectors, k: int, diversity: float
) -> npt.NDArray[np.int64]:
    """Choose k of n candidates greedily by (1 - diversity) * relevance - diversity * similarity to those chosen.

    scores: float64 (n,), best first; relevance is their min-max. vectors: float32 (n, D), unit length; similarity is
    the largest cosine. diversity: in [0, 1]; 0 keeps the order. Returns places, int64 (min(k, n),).
    Cost: k x n x D multiplications. Source: Carbonell & Goldstein, SIGIR 1998.
    """
    count = min(k, len(scores))
    if count == 0:
        return np.empty(0, np.int64)
    spread = scores[0] - scores[-1]
    relevance = (scores - scores[-1]) / spread if spread > 0 else np.ones(len(scores))
    nearest = np.zeros(len(scores))
    chosen: list[int] = []
    open_places = np.ones(len(scores), dtype=np.bool_)
    for step in range(count):
        value = (1 - diversity) * relevance - diversity * nearest
        best = int(np.argmax(np.where(open_places, value, -np.inf)))
        chosen.append(best)
        open_places[best] = False
        similarity = vectors @ vectors[best]
        nearest = similarity if step == 0 else np.maximum(nearest, similarity)
    return np.array(chosen, np.int64)
