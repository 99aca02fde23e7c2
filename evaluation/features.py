"""What vectors look like before any search: the meta-features that a recommendation is made from.

All of a seeded sample (20,000 documents by default: about half a minute on two cores at 384 dimensions), so that they
cost the same for any corpus.
Features that the data cannot define (100 neighbours among 46 documents, a shift without queries) are absent.
"""

from typing import Final

import numpy as np
import numpy.typing as npt

from evaluation.clusters import davies_bouldin, k_means
from evaluation.hubness import gini, k_occurrence_skew, k_occurrences
from evaluation.spaces import Arm, fit
from evaluation.utility_items import distances
from index.errors import CorpusError, RequestError, ShapeError
from index.metric import check_vectors, prepare
from index.types import Rows, Vectors

SAMPLE: Final = 20_000

HUB_K: Final = 10

HUB_ARMS: Final[tuple[Arm, ...]] = ("ip", "l2", "cosine", "centred-cosine")
"""Geometries whose hubs and label purity are measured."""

CONTRASTS: Final = (1, 10, 100)
"""Neighbours whose relative contrast is measured; the last also tells the local dimension."""

CLUSTERS: Final = 100

LABELLED: Final = 200
"""Labelled documents from which on label purity is measured."""

_PAIRS: Final = 100_000
_PROBES: Final = 2_000
"""Random pairs, and vectors whose farther neighbours are looked for: errors of the means are well below 1 %."""

Values64 = npt.NDArray[np.float64]


def features(
    documents: Vectors,
    *,
    queries: Vectors | None = None,
    labels: npt.NDArray[np.int64] | None = None,
    sample: int = SAMPLE,
    seed: int = 0,
) -> dict[str, float]:
    """Return the meta-features of some documents' embeddings, by name.

    documents: float32 (N, D), as they were encoded. queries: float32 (Q, D). labels: int64 (N,), -1 = none.
    n, d                   documents, dimension
    norm_cv                standard deviation of the norms over their mean
    mean_ratio             norm of the mean vector over the mean norm: 0 = around the origin, 1 = all the same
    ra_mean_deg            mean angle to the mean vector (90 where that is 0), degrees: small = a narrow cone
    ra_pair_deg            mean angle of random pairs, degrees
    dbi_euclidean, _cosine Davies-Bouldin index of a k-means clustering of the vectors and of their unit vectors
    rc_1, rc_10, rc_100    relative contrast: mean distance of pairs over mean distance to the k-th neighbour
    lid                    local intrinsic dimension, maximum likelihood over 100 neighbours
    effective_rank         exp of the entropy of the centred vectors' singular values
    s10_<arm>              skewness of the 10-occurrences in each geometry (evaluation.hubness): hubs
    gini10_<arm>           their Gini coefficient
    query_shift            root mean square of the queries' components less the documents' mean, in the documents'
                           standard deviations; about 1 for queries like documents
    purity10_<arm>         share of the nearest 10 labelled documents with the same label, of those there can be; where
                           at least 200 documents of the sample have labels
    Raises ShapeError, RequestError on fewer than 12 documents, CorpusError on documents that are all equal or 0.
    Cost: four exact searches of the sample among itself, a clustering, one singular value decomposition.
    Sources: relative contrast, He et al., ICML 2012; local dimension, Levina and Bickel, NIPS 2004, averaged as MacKay
    and Ghahramani propose; effective rank, Roy and Vetterli, EUSIPCO 2007; hubs, Radovanovic et al., JMLR 11, 2010.
    """
    given = check_vectors(documents)
    if len(given) < HUB_K + 2:
        raise RequestError(f"{len(given)} documents, expected at least {HUB_K + 2} to look at 10 neighbours of each")
    if labels is not None and labels.shape != (len(given),):
        raise ShapeError(f"labels are {labels.shape}, expected ({len(given)},), one a document")
    rng = np.random.default_rng(seed)
    chosen = rng.permutation(len(given))[:sample]
    vectors = given[chosen]
    result = {"n": float(len(given)), "d": float(given.shape[1])}
    result |= _norms_and_angles(vectors, rng)
    clusters = max(2, min(CLUSTERS, len(vectors) // 10))
    result["dbi_euclidean"], result["dbi_cosine"] = separations(vectors, clusters, seed=seed)
    result |= _contrasts(vectors, rng)
    result["effective_rank"] = effective_rank(vectors)
    labelled = None if labels is None else labels[chosen]
    for arm in HUB_ARMS:
        result |= _neighbourhood(vectors, arm, labelled)
    if queries is not None:
        result["query_shift"] = query_shift(vectors, check_vectors(queries, given.shape[1]))
    return result


def separations(vectors: Vectors, clusters: int, *, seed: int) -> tuple[float, float]:
    """Return the Davies-Bouldin index under Euclidean and under cosine geometry, each of its own clustering.

    Cosine geometry is the Euclidean one of the unit vectors. vectors: float32 (N, D). Cost: two k-means.
    """
    unit = prepare(vectors, "cosine")
    first, second = (davies_bouldin(each, k_means(each, clusters, seed=seed)) for each in (vectors, unit))
    return first, second


def _norms_and_angles(vectors: Vectors, rng: np.random.Generator) -> dict[str, float]:
    values = vectors.astype(np.float64)
    norms = np.sqrt((values**2).sum(axis=1))
    if not norms.any():
        raise CorpusError(f"all {len(vectors)} documents have the vector 0: check the encoder")
    if (vectors == vectors[0]).all():
        raise CorpusError(f"all {len(vectors)} documents have the same vector: check the encoder")
    mean = values.mean(axis=0)
    size = float(np.sqrt((mean**2).sum()))
    unit = values[norms > 0] / norms[norms > 0, None]
    cosines = unit @ (mean / size) if size > 0 else np.zeros(len(unit))
    first, second = _pairs(len(unit), rng)
    return {
        "norm_cv": float(norms.std() / norms.mean()),
        "mean_ratio": size / float(norms.mean()),
        "ra_mean_deg": _mean_angle(cosines),
        "ra_pair_deg": _mean_angle(np.einsum("pd,pd->p", unit[first], unit[second])),
    }


def _mean_angle(cosines: Values64) -> float:
    return float(np.degrees(np.arccos(np.clip(cosines, -1, 1))).mean())


def _pairs(count: int, rng: np.random.Generator) -> tuple[Rows, Rows]:
    """Return random pairs of different numbers below `count`."""
    first = rng.integers(count, size=_PAIRS)
    second = (first + rng.integers(1, max(2, count), size=_PAIRS)) % count
    return first, second


def _contrasts(vectors: Vectors, rng: np.random.Generator) -> dict[str, float]:
    first, second = _pairs(len(vectors), rng)
    apart = vectors[first].astype(np.float64) - vectors[second]
    mean = float(np.sqrt((apart**2).sum(axis=1)).mean())
    probes = np.arange(min(_PROBES, len(vectors)))  # the sample is in random order already
    deepest = min(max(CONTRASTS), len(vectors) - 1)
    near = distances(vectors, vectors[probes], neighbours(vectors, "l2", deepest, probes))
    result = {}
    for k in CONTRASTS:
        kth = float(near[:, k - 1].mean()) if k <= deepest else 0.0
        if kth > 0:  # 0: so many copies that the contrast has no bound
            result[f"rc_{k}"] = mean / kth
    dimension = local_dimension(near)
    return result if dimension is None else {**result, "lid": dimension}


def neighbours(vectors: Vectors, arm: Arm, k: int, probes: Rows | None = None) -> Rows:
    """Return the k nearest other vectors of each probe (None: of each vector) in a geometry, int64 (P, k).

    Raises ShapeError, RequestError where there are no k others. Cost: one exact search.
    """
    if not 1 <= k < len(vectors):
        raise RequestError(f"{k} neighbours among {len(vectors)} vectors, expected 1 to {len(vectors) - 1}")
    own = np.arange(len(vectors)) if probes is None else probes
    found = fit(arm, vectors).search(vectors[own], k + 1).rows
    # Under inner product a vector need not be its own nearest; then the last goes.
    order = np.argsort(found == own[:, None], axis=1, kind="stable")[:, :k]
    return np.take_along_axis(found, order, axis=1)


def local_dimension(near: Values64) -> float | None:
    """Return the local intrinsic dimension from ascending neighbour distances (P, k), None where all are 0 or equal.

    The inverse of the mean over points of the mean of ln(r_k / r_i), i < k. Distances of 0, copies, are left out.
    """
    farthest = near[:, -1:]
    logs = np.zeros(near.shape)
    real = (near > 0) & (np.arange(near.shape[1]) < near.shape[1] - 1)
    np.log(np.divide(farthest, near, out=np.ones(near.shape), where=real), out=logs)
    counts = real.sum(axis=1)
    inverse = logs.sum(axis=1)[counts > 0] / counts[counts > 0]
    mean = float(inverse.mean()) if len(inverse) else 0.0
    return 1 / mean if mean > 0 else None


def effective_rank(vectors: Vectors) -> float:
    """Return exp of the entropy of the centred vectors' normalised singular values: between 1 and D.

    Raises CorpusError where all vectors are equal.
    """
    moved = vectors - vectors.mean(axis=0, dtype=np.float64)
    singular = np.sqrt(np.maximum(np.linalg.eigvalsh(moved.T @ moved), 0))
    if singular.sum() == 0:
        raise CorpusError(f"all {len(vectors)} vectors are equal: they have no rank")
    shares = singular / singular.sum()
    shares = shares[shares > 0]
    return float(np.exp(-(shares * np.log(shares)).sum()))


def _neighbourhood(vectors: Vectors, arm: Arm, labels: npt.NDArray[np.int64] | None) -> dict[str, float]:
    name = arm.replace("-", "_")
    found = neighbours(vectors, arm, HUB_K)
    result = {
        f"s10_{name}": k_occurrence_skew(found, len(vectors)),
        f"gini10_{name}": gini(k_occurrences(found, len(vectors))),
    }
    labelled = np.flatnonzero(labels >= 0) if labels is not None else np.empty(0, dtype=np.int64)
    if labels is not None and len(labelled) >= LABELLED:
        found = found if len(labelled) == len(vectors) else neighbours(vectors[labelled], arm, HUB_K)
        share = purity(found, labels[labelled])
        if share is not None:
            result[f"purity10_{name}"] = share
    return result


def purity(found: Rows, labels: npt.NDArray[np.int64]) -> float | None:
    """Return the mean share of neighbours with the vector's own label, of those there can be.

    found: int64 (N, k), neighbours without the vector itself. labels: int64 (N,). Vectors that are alone with their
    label do not count; None where all are.
    """
    _, numbers, sizes = np.unique(labels, return_inverse=True, return_counts=True)
    others = sizes[numbers] - 1
    hits = (labels[found] == labels[:, None]).sum(axis=1)
    counted = others > 0
    if not counted.any():
        return None
    return float((hits[counted] / np.minimum(others[counted], found.shape[1])).mean())


def query_shift(documents: Vectors, queries: Vectors) -> float:
    """Return how far queries lie from documents: mean over queries of the diagonal Mahalanobis distance / sqrt(D).

    Components in which no document differs are left out. Raises RequestError without queries, CorpusError where
    documents differ in none.
    """
    if not len(queries):
        raise RequestError("no queries: their shift is undefined")
    mean = documents.mean(axis=0, dtype=np.float64)
    variance = documents.var(axis=0, dtype=np.float64)
    used = variance > 0
    if not used.any():
        raise CorpusError(f"all {len(documents)} documents have the same vector: no query can be told from them")
    squares = (queries[:, used] - mean[used]) ** 2 / variance[used]
    return float(np.sqrt(squares.mean(axis=1)).mean())
