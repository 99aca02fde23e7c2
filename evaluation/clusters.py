"""k-means and the Davies-Bouldin index: how clustered vectors are."""

from typing import Final

import numpy as np
import numpy.typing as npt

from index.blas import product
from index.errors import RequestError
from index.types import Rows, Vectors

_ROUNDS: Final = 25
"""Lloyd's rounds at most; what is measured here no longer changes by then."""


def k_means(vectors: Vectors, clusters: int, *, seed: int) -> Rows:
    """Return each vector's cluster, int64 (N,), 0 <= cluster < clusters, by Lloyd's algorithm from a random start.

    vectors: float32 (N, D). A cluster that runs empty starts again at the vector farthest from its centre.
    Raises RequestError unless 1 <= clusters <= N. Cost: N x clusters x D multiplications a round, at most 25.
    """
    if not 1 <= clusters <= len(vectors):
        raise RequestError(f"{clusters} clusters of {len(vectors)} vectors, expected 1 to {len(vectors)}")
    # Less their mean: distances stay, and float32 keeps the digits that tell clusters of a narrow cone apart.
    moved = np.ascontiguousarray(vectors - vectors.mean(axis=0, dtype=np.float64), dtype=np.float32)
    lengths = np.einsum("nd,nd->n", moved, moved)
    centres = moved[np.random.default_rng(seed).choice(len(moved), clusters, replace=False)]
    assigned = np.full(len(moved), -1, dtype=np.int64)
    for _ in range(_ROUNDS):
        nearness = product(moved, centres.T) - np.einsum("cd,cd->c", centres, centres) / 2
        nearest = nearness.argmax(axis=1)
        if (nearest == assigned).all():
            break
        assigned = nearest
        distances = lengths - 2 * nearness[np.arange(len(moved)), assigned]
        sums, sizes = _sums(moved, assigned, clusters)
        empty = np.flatnonzero(sizes == 0)
        centres = (sums / np.maximum(sizes, 1)[:, None]).astype(np.float32)
        centres[empty] = moved[np.argsort(-distances, kind="stable")[: len(empty)]]
    return assigned


def _sums(
    vectors: npt.NDArray[np.floating], assigned: Rows, clusters: int
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    """Return the sum of each cluster's vectors, float64 (clusters, D), and its size."""
    order = np.argsort(assigned, kind="stable")
    sizes = np.bincount(assigned, minlength=clusters)
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    sums = np.zeros((clusters, vectors.shape[1]))
    filled = sizes > 0
    sums[filled] = np.add.reduceat(vectors[order], starts[filled], axis=0, dtype=np.float64)
    return sums, sizes.astype(np.int64)


def davies_bouldin(vectors: Vectors, assigned: Rows) -> float:
    """Return the Davies-Bouldin index of a clustering: low = compact clusters far apart.

    (1 / c) sum_i max_j (s_i + s_j) / d_ij, where s is the mean Euclidean distance of a cluster's vectors to their mean
    and d that of two means. Empty clusters do not count, nor do pairs of clusters with the same mean.
    vectors: float32 (N, D). assigned: int64 (N,) >= 0. Raises RequestError on fewer than two clusters that differ.
    Source: Davies and Bouldin, IEEE TPAMI 1(2), 1979.
    """
    used, numbers = np.unique(assigned, return_inverse=True)
    values = vectors - vectors.mean(axis=0, dtype=np.float64)  # so that the expanded square below keeps its digits
    sums, sizes = _sums(values, numbers, len(used))
    means = sums / sizes[:, None]
    spread = np.bincount(numbers, weights=np.sqrt(((values - means[numbers]) ** 2).sum(axis=1))) / sizes
    lengths = (means**2).sum(axis=1)
    between = np.sqrt(np.maximum(lengths[:, None] + lengths[None, :] - 2 * means @ means.T, 0))
    np.fill_diagonal(between, 0)
    ratios = np.full(between.shape, -np.inf)
    np.divide(spread[:, None] + spread[None, :], between, out=ratios, where=between > 0)
    worst = ratios.max(axis=1)
    if not np.isfinite(worst).all():
        raise RequestError(f"{len(used)} clusters, some without another at a distance: use fewer, or other vectors")
    return float(worst.mean())
