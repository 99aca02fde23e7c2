"""The metric arms of the loss funnel: what the same embeddings find under another geometry, searched exactly.

Each arm becomes transformed documents and queries and one of the index's own metrics, so exact search is one blocked
matrix product and any index kind can be built over it:

    ip               inner product, as the vectors are
    l2               Euclidean; less the documents' mean, which changes no distance and keeps float32's digits
    cosine           of the vectors
    centred-cosine   of the vectors less the documents' mean
    whitened         cosine of the centred vectors with uncorrelated components of equal variance
    csls             cosine less half the density around the document: hubs lose what they gain everywhere
    learned          Euclidean after a linear map of the unit vectors, fitted to the train split (Mahalanobis distance)

Nothing here sees test queries: what is fitted is fitted to documents and the train split.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal, TypeAlias, get_args

import numpy as np
import numpy.typing as npt

from index.errors import ConfigError, CorpusError, ShapeError
from index.flat import FlatIndex
from index.metric import Metric, check_vectors, prepare
from index.types import Neighbors, Rows, Vectors
from index.vector_file import VectorFile

Arm: TypeAlias = Literal["ip", "l2", "cosine", "centred-cosine", "whitened", "csls", "learned"]

ARMS: Final[tuple[Arm, ...]] = get_args(Arm)

CSLS_NEIGHBOURS: Final = 10
"""As in the paper."""

_ANCHORS: Final = 16_384
"""Vectors that tell densities at most: a seeded sample of more."""

_QUERIES_AT_ONCE: Final = 256
"""One block of scores then spans 16,384 documents: little is spent on merging."""

_RIDGES: Final = (0.01, 0.03, 0.1, 0.3, 0.6, 1.0)
"""Shares of the identity in the learned map's covariance, of which the train split chooses; 1 is plain cosine."""

_HELD_OUT: Final = 5
"""One train query in so many chooses the ridge."""

_HELD_OUT_QUERIES: Final = 500

Matrix: TypeAlias = npt.NDArray[np.float64]

Transform: TypeAlias = Callable[[Vectors], Vectors]


@dataclass(frozen=True, slots=True)
class Training:
    """The train split as vectors. queries: float32 (T, D). pairs: int64 (P, 2), (train query, relevant row)."""

    queries: Vectors
    pairs: Rows


@dataclass(frozen=True, slots=True)
class Space:
    """A fitted arm. documents: float32 (N, D'), transformed and prepared for `metric`, as an index wants them.

    dim: D, of the vectors as they were encoded.
    """

    name: Arm
    metric: Metric
    dim: int
    documents: Vectors = field(repr=False)
    transform: Transform = field(repr=False)

    def queries(self, queries: Vectors) -> Vectors:
        """Return queries float32 (Q, D) as this space compares them, prepared float32 (Q, D')."""
        return prepare(self.transform(check_vectors(queries, self.dim)), self.metric)

    def search(self, queries: Vectors, k: int) -> Neighbors:
        """Return the k best rows of each query exactly, ties by ascending row, padded with -1.

        queries: float32 (Q, D), as they were encoded. Scores are the space's own: of CSLS without the query's part,
        which changes no order. Raises ShapeError. Cost: Q x N x D' multiplications, 100 MiB.
        """
        return exact_search(self.documents, self.metric, self.queries(queries), k)


def exact_search(documents: Vectors, metric: Metric, queries: Vectors, k: int) -> Neighbors:
    """Return the k best of prepared documents for each prepared query, batch by batch. k: at least 1."""
    index = FlatIndex(VectorFile(Path("memory"), "float32", documents), metric)
    parts = [
        index.search(queries[start : start + _QUERIES_AT_ONCE], k)
        for start in range(0, max(1, len(queries)), _QUERIES_AT_ONCE)
    ]
    return Neighbors(np.concatenate([part.scores for part in parts]), np.concatenate([part.rows for part in parts]))


def fit(arm: Arm, documents: Vectors, training: Training | None = None, *, seed: int = 0) -> Space:
    """Fit an arm to documents, and where it learns from queries to the train split.

    documents: float32 (N, D), as they were encoded. "csls" takes the density around a document from the train queries,
    or, without any, from the other documents; "learned" needs a train split with at least two queries.
    Raises ConfigError on another arm, ShapeError, CorpusError on what cannot be fitted.
    Cost: "whitened" and "learned" one eigendecomposition, D^3; "csls" N x min(T, 16,384) x D.
    """
    if arm not in ARMS:
        raise ConfigError(f"arm {arm!r} is unknown; allowed: {', '.join(ARMS)}")
    given = check_vectors(documents)
    if not len(given):
        raise CorpusError("no documents: a space is fitted to at least one")
    if training is not None:
        _check_training(training, given)
    if arm in {"ip", "cosine"}:
        return _space(arm, "ip" if arm == "ip" else "cosine", given, lambda vectors: vectors)
    if arm == "csls":
        return _csls(given, training, seed)
    if arm == "learned":
        return _learned(given, training, seed)
    centre = _mean(given)
    if arm == "whitened":
        root = _inverse_root(_covariance(given, centre))
        return _space(arm, "cosine", given, lambda vectors: _mapped(vectors, centre, root))
    return _space(arm, "l2" if arm == "l2" else "cosine", given, lambda vectors: _mapped(vectors, centre))


def _space(arm: Arm, metric: Metric, documents: Vectors, transform: Transform) -> Space:
    return Space(arm, metric, documents.shape[1], prepare(transform(documents), metric), transform)


def _check_training(training: Training, documents: Vectors) -> None:
    check_vectors(training.queries, documents.shape[1])
    pairs = training.pairs
    if pairs.ndim != 2 or pairs.shape[1] != 2 or pairs.dtype != np.int64:
        raise ShapeError(f"training pairs are {pairs.dtype} {pairs.shape}, expected int64 (P, 2)")
    limits = (len(training.queries), len(documents))
    if pairs.size and (pairs.min() < 0 or (pairs.max(axis=0) >= limits).any()):
        raise ShapeError(f"training pairs reach {pairs.max(axis=0).tolist()}, expected below {list(limits)}")


def _mean(vectors: Vectors) -> Matrix:
    return np.asarray(vectors.mean(axis=0, dtype=np.float64))


def _mapped(vectors: Vectors, centre: Matrix, linear: Matrix | None = None) -> Vectors:
    """Return (vectors - centre) @ linear as float32; in float64, as the difference may be all that matters."""
    moved = vectors - centre
    return np.ascontiguousarray(moved if linear is None else moved @ linear, dtype=np.float32)


def _covariance(vectors: Vectors, centre: Matrix) -> Matrix:
    """Return the covariance shrunk towards a multiple of the identity, float64 (D, D).

    Source: Ledoit and Wolf, Journal of Multivariate Analysis 88(2), 2004.
    """
    moved = vectors - centre
    count, dim = moved.shape
    sample: Matrix = moved.T @ moved / count
    scale = float(np.trace(sample)) / dim
    if scale == 0:
        raise CorpusError(f"all {count} documents have the same vector: there is nothing to whiten")
    spread = float(((sample - scale * np.eye(dim)) ** 2).sum())
    fourth = float(((moved**2).sum(axis=1) ** 2).sum()) / count
    error = (fourth - float((sample**2).sum())) / count
    share = 1.0 if spread == 0 else min(1.0, max(0.0, error / spread))
    return np.asarray((1 - share) * sample + share * scale * np.eye(dim))


def _inverse_root(matrix: Matrix) -> Matrix:
    """Return the symmetric inverse square root of a positive matrix, its smallest eigenvalues raised to 1e-9 of all."""
    values, directions = np.linalg.eigh(matrix)
    floor = 1e-9 * float(values.max())
    result: Matrix = (directions / np.sqrt(np.maximum(values, floor))) @ directions.T
    return result


def _csls(documents: Vectors, training: Training | None, seed: int) -> Space:
    """2 cos(q, d) - r(d) as an inner product: (2 q, -1) . (d, r(d)), padded to a dimension that codes divide.

    r(d): mean cosine of a document to its 10 nearest queries. The query's own r(q) is the same for all its documents.
    Source: Conneau et al., Word translation without parallel data, ICLR 2018.
    """
    unit = prepare(documents, "cosine")
    own = training is None or not len(training.queries)
    anchors = unit if own or training is None else prepare(training.queries, "cosine")
    if len(anchors) - own < 1:
        raise CorpusError("one document and no train query: there is no density to compare")
    density = _density(unit, anchors, own=own, seed=seed)
    dim = documents.shape[1]
    width = -(-(dim + 1) // 8) * 8
    stored = np.zeros((len(unit), width), dtype=np.float32)
    stored[:, :dim], stored[:, dim] = unit, density

    def transform(vectors: Vectors) -> Vectors:
        result = np.zeros((len(vectors), width), dtype=np.float32)
        result[:, :dim], result[:, dim] = 2 * prepare(vectors, "cosine"), -1
        return result

    return Space("csls", "ip", dim, stored, transform)


def _density(unit: Vectors, anchors: Vectors, *, own: bool, seed: int) -> Matrix:
    """Return each document's mean cosine to its nearest anchors, float64 (N,); own: the anchors are the documents."""
    chosen = np.arange(len(anchors))
    if len(anchors) > _ANCHORS:
        chosen = np.sort(np.random.default_rng(seed).choice(len(anchors), _ANCHORS, replace=False))
    k = min(CSLS_NEIGHBOURS, len(anchors) - own)
    found = exact_search(np.ascontiguousarray(anchors[chosen]), "cosine", unit, min(k + own, len(chosen)))
    scores = found.scores.astype(np.float64)
    real = found.rows >= 0
    if own:
        real &= chosen[found.rows] != np.arange(len(unit))[:, None]
        real &= np.cumsum(real, axis=1) <= k  # a document that is not among the anchors has one neighbour more
    return np.asarray(np.where(real, scores, 0).sum(axis=1) / real.sum(axis=1))


def _learned(documents: Vectors, training: Training | None, seed: int) -> Space:
    """Whiten the differences between train queries and their relevant documents: directions that differ count less.

    The ridge, a share of the identity, is what finds most on held-out train queries; at 1 the arm is plain cosine.
    Source: relevant component analysis, Bar-Hillel et al., JMLR 6, 2005.
    """
    queries = 0 if training is None else len(np.unique(training.pairs[:, 0]))
    if training is None or queries < 2:
        raise CorpusError(f"{queries} train queries have a relevant document, expected at least 2 to learn a metric")
    judged = np.random.default_rng(seed).permutation(np.unique(training.pairs[:, 0]))
    held = judged[: max(1, len(judged) // _HELD_OUT)][:_HELD_OUT_QUERIES]
    unit, units = prepare(documents, "cosine"), prepare(training.queries, "cosine")
    centre = _mean(unit)
    kept = training.pairs[~np.isin(training.pairs[:, 0], held)]
    wanted = training.pairs[np.isin(training.pairs[:, 0], held)]
    partial = _difference_moment(unit, units, kept)

    def found(ridge: float) -> float:
        root = _inverse_root(_with_ridge(partial, ridge))
        rows = exact_search(_mapped(unit, centre, root), "l2", _mapped(units[held], centre, root), 10).rows
        return _reciprocal_rank(rows, held, wanted)

    # Of equal ridges the larger: closer to what needs no learning.
    ridge = max(_RIDGES, key=lambda value: (found(value), value))
    root = _inverse_root(_with_ridge(_difference_moment(unit, units, training.pairs), ridge))
    return Space(
        "learned",
        "l2",
        documents.shape[1],
        _mapped(unit, centre, root),
        lambda vectors: _mapped(prepare(vectors, "cosine"), centre, root),
    )


def _difference_moment(unit: Vectors, units: Vectors, pairs: Rows) -> Matrix:
    """Return the mean outer product of query less document over pairs, each query counting the same."""
    _, numbers, counts = np.unique(pairs[:, 0], return_inverse=True, return_counts=True)
    weights = 1 / counts[numbers]
    difference = units[pairs[:, 0]].astype(np.float64) - unit[pairs[:, 1]]
    result: Matrix = (difference * weights[:, None]).T @ difference / len(counts)
    return result


def _with_ridge(moment: Matrix, ridge: float) -> Matrix:
    dim = len(moment)
    scale = float(np.trace(moment)) / dim or 1.0  # queries equal to their documents: nothing to learn
    return (1 - ridge) * moment + ridge * scale * np.eye(dim)


def _reciprocal_rank(rows: Rows, held: Rows, wanted: Rows) -> float:
    """Return the mean reciprocal rank of the first wanted row of each held-out query. wanted: (P, 2) pairs."""
    total = 0.0
    for query, line in zip(held, rows, strict=True):
        hits = np.flatnonzero(np.isin(line, wanted[wanted[:, 0] == query, 1]))
        total += 1 / (1 + int(hits[0])) if len(hits) else 0.0
    return total / len(held)
