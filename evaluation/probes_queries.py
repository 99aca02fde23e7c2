"""Probes of queries: what lies outside the documents' distribution, and what many or few ask for."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from evaluation.ground_truth import exact_truth
from evaluation.probes import ProbeRow, Search, TaskVectors, Values, probe_row
from evaluation.utility import Utility
from index.errors import RequestError, ShapeError
from index.types import Vectors

_SAMPLE = 1_000
"""Vectors of either side that MMD compares: a million pairs."""

_NEAR = 100
"""Neighbours that a query is not pulled toward."""

_DECILES = 10


def out_of_distribution(
    data: TaskVectors,
    utility: Utility,
    search: Search,
    *,
    seed: int = 0,
    shares: Sequence[float] = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5),
    foreign: Vectors | None = None,
) -> tuple[ProbeRow, ...]:
    """Pull every query toward a random document that is none of its 100 nearest, share by share.

    query' = (1 - share) query + share document, scaled back to the query's length. foreign: float32 (Q, D), the same
    queries from another encoder or modality in the same space, as one more setting "foreign".
    measures: `mahalanobis`, `mmd` of the changed queries against the documents; `recall`, the share of exact
    neighbours of the changed queries that the search finds (by id).
    Raises RequestError on shares outside [0, 1] or fewer than 2 documents beyond the nearest, ShapeError on `foreign`.
    """
    if not shares or not all(0 <= share <= 1 for share in shares):
        raise RequestError(f"shares are {tuple(shares)}, expected numbers from 0 to 1, at least one")
    if foreign is not None and foreign.shape != data.queries.shape:
        raise ShapeError(f"foreign queries have shape {foreign.shape}, expected {data.queries.shape}")
    rng = np.random.default_rng(seed)
    targets = data.documents[_strangers(data, rng)]
    moved: list[tuple[str | float, Vectors]] = [(share, _toward(data.queries, targets, share)) for share in shares]
    if foreign is not None:
        moved.append(("foreign", foreign))
    rows = []
    for share, queries in moved:
        found = search(data.documents, queries, data.k)
        truth = exact_truth(data.documents, queries, data.metric, data.k).rows
        measures = {
            "mahalanobis": float(mahalanobis(queries, data.documents).mean()),
            "mmd": mmd(queries, data.documents, seed=seed),
            "recall": float(((found[:, :, None] == truth[:, None, :]) & (truth[:, None, :] >= 0)).any(axis=1).mean()),
        }
        rows.append(probe_row("out-of-distribution", {"share": share}, utility(found), seed, measures))
    return tuple(rows)


def _strangers(data: TaskVectors, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """Return for each query a random row that is none of its nearest, int64 (Q,)."""
    count = len(data.documents)
    depth = min(_NEAR, count // 2)
    if count < 4:
        raise RequestError(f"{count} documents, expected at least 4 to find one that is no neighbour")
    near = np.sort(exact_truth(data.documents, data.queries, data.metric, depth).rows, axis=1)
    # The i-th row that is not among the sorted near ones: shifted past each near row that stands before it.
    chosen = rng.integers(count - depth, size=len(near))
    shifts = near - np.arange(depth)
    return np.asarray(chosen + (shifts <= chosen[:, None]).sum(axis=1), dtype=np.int64)


def _toward(queries: Vectors, targets: Vectors, share: float) -> Vectors:
    lengths = np.linalg.norm(queries, axis=1, keepdims=True)
    mixed = (1 - share) * queries + share * targets
    norms = np.linalg.norm(mixed, axis=1, keepdims=True)
    scaled: Vectors = (mixed * np.divide(lengths, norms, out=np.zeros_like(norms), where=norms > 0)).astype(np.float32)
    return scaled


def mahalanobis(queries: Vectors, documents: Vectors) -> Values:
    """Return each query's diagonal Mahalanobis distance to the documents over sqrt(dimensions), float64 (Q,).

    sqrt(mean over dimensions of ((query - mean) / standard deviation)^2): about 1 for a document, more for what lies
    outside. Dimensions in which the documents do not vary are left out. Raises RequestError where none varies.
    """
    mean, spread = documents.mean(axis=0, dtype=np.float64), documents.std(axis=0, dtype=np.float64)
    varying = spread > 0
    if not varying.any():
        raise RequestError(f"{len(documents)} documents do not vary in any dimension: distance to them is undefined")
    standard = (queries[:, varying] - mean[varying]) / spread[varying]
    return np.asarray(np.sqrt(np.square(standard).mean(axis=1)), dtype=np.float64)


def mmd(queries: Vectors, documents: Vectors, *, seed: int) -> float:
    """Return the unbiased squared maximum mean discrepancy of queries and documents: about 0 = the same distribution.

    Gaussian kernel whose width is the median distance in the pooled sample (at most 1,000 of each side).
    Raises RequestError on fewer than 2 of either, or where all are equal. Source: Gretton et al., JMLR 2012.
    """
    rng = np.random.default_rng(seed)
    left, right = _sampled(queries, rng), _sampled(documents, rng)
    if len(left) < 2 or len(right) < 2:
        raise RequestError(f"{len(left)} queries, {len(right)} documents: expected at least 2 of each")
    pooled = np.concatenate([left, right])
    lengths = np.square(pooled).sum(axis=1)
    squared = np.maximum(lengths[:, None] + lengths[None, :] - 2 * pooled @ pooled.T, 0)
    width = float(np.median(squared[np.triu_indices(len(pooled), 1)]))
    if width == 0:
        raise RequestError("more than half of all pairs of vectors are equal: the kernel has no width")
    kernel = np.exp(-squared / width)
    np.fill_diagonal(kernel, 0)
    m, n = len(left), len(right)
    within = kernel[:m, :m].sum() / (m * (m - 1)) + kernel[m:, m:].sum() / (n * (n - 1))
    return float(within - 2 * kernel[:m, m:].mean())


def _sampled(vectors: Vectors, rng: np.random.Generator) -> Values:
    if len(vectors) > _SAMPLE:
        vectors = vectors[np.sort(rng.choice(len(vectors), _SAMPLE, replace=False))]
    return vectors.astype(np.float64)


def popularity_deciles(
    data: TaskVectors, utility: Utility, search: Search, wanted: Values, *, seed: int = 0
) -> tuple[ProbeRow, ...]:
    """Split the utility by how popular each query is: ten deciles, "1" the least asked for, and all weighted by it.

    wanted: float64 (Q,), how often each query, or what it asks for, comes; ties are split by place.
    The row "weighted" holds values times popularity over its mean, so that its mean is the popularity-weighted utility.
    Raises RequestError on fewer than 20 queries, negative or infinite popularity or a sum of 0.
    """
    if wanted.shape != (len(data.queries),) or len(wanted) < 2 * _DECILES:
        raise RequestError(f"popularity has shape {wanted.shape}, expected one for each of at least 20 queries")
    if not np.isfinite(wanted).all() or wanted.min() < 0 or wanted.sum() == 0:
        raise RequestError(
            "popularity holds negative or infinite numbers, or is 0 everywhere: expected counts or weights"
        )
    values = utility(search(data.documents, data.queries, data.k))
    order = np.argsort(wanted, kind="stable")
    rows = [
        probe_row(
            "popularity",
            {"decile": float(number)},
            values[part],
            seed,
            {"least": float(wanted[part[0]]), "most": float(wanted[part[-1]])},
        )
        for number, part in enumerate(np.array_split(order, _DECILES), start=1)
    ]
    rows.append(probe_row("popularity", {"decile": "weighted"}, values * wanted / wanted.mean(), seed))
    return tuple(rows)
