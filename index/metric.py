"""The three similarities, all higher-is-better: "cosine", "ip" (inner product) and "l2" (negated squared distance)."""

from typing import Literal, TypeAlias, get_args

import numpy as np
import numpy.typing as npt

from index.blas import product
from index.errors import ShapeError
from index.types import Vectors

Metric: TypeAlias = Literal["cosine", "ip", "l2"]

METRICS: tuple[Metric, ...] = get_args(Metric)


def check_vectors(vectors: npt.NDArray[np.generic], dim: int | None = None) -> Vectors:
    """Return `vectors` as C-contiguous float32 (N, D) after checking shape, dtype and finiteness.

    Raises ShapeError on anything but a two-dimensional float array, on another dimension than `dim`, on NaN or inf.
    Cost: one pass over the values.
    """
    if vectors.ndim != 2 or vectors.dtype.kind != "f":
        raise ShapeError(f"vectors have shape {vectors.shape} and dtype {vectors.dtype}, expected float (N, D)")
    if dim is not None and vectors.shape[1] != dim:
        raise ShapeError(f"vectors have dim {vectors.shape[1]}, expected {dim}")
    with np.errstate(over="ignore"):  # what float32 cannot hold is infinite, and refused below
        result = np.ascontiguousarray(vectors, dtype=np.float32)
    if not np.isfinite(result).all():
        row = int(np.flatnonzero(~np.isfinite(result).all(axis=1))[0])
        raise ShapeError(f"vector {row} holds NaN or infinity (as float32), expected finite values")
    return result


def prepare(vectors: Vectors, metric: Metric) -> Vectors:
    """Return the form in which vectors (and queries) of this metric are stored and compared.

    "cosine" divides by the Euclidean norm (a zero vector stays zero and scores 0 against everything).
    """
    if metric != "cosine":
        return vectors
    # In float64: the squares of large or tiny float32 values leave float32's range.
    norms = np.sqrt(np.einsum("nd,nd->n", vectors, vectors, dtype=np.float64))
    norms[norms == 0] = 1
    result: Vectors = (vectors / norms[:, None]).astype(np.float32)
    return result


def scores(queries: Vectors, vectors: Vectors, metric: Metric) -> npt.NDArray[np.float32]:
    """Return float32 (Q, N) scores of prepared queries against prepared vectors. Cost: one matrix product."""
    products = product(queries, vectors.T)
    if metric != "l2":
        return products
    lengths = np.einsum("nd,nd->n", vectors, vectors)
    query_lengths = np.einsum("qd,qd->q", queries, queries)
    distances: npt.NDArray[np.float32] = lengths[None, :] + query_lengths[:, None] - 2 * products
    return -distances


def paired_scores(queries: Vectors, vectors: npt.NDArray[np.float32], metric: Metric) -> npt.NDArray[np.float32]:
    """Return float32 (Q, c) scores of prepared queries (Q, D), each against its own prepared vectors (Q, c, D)."""
    products = product(vectors, queries[:, :, None])[:, :, 0]
    if metric != "l2":
        return products
    lengths = np.einsum("qcd,qcd->qc", vectors, vectors)
    query_lengths = np.einsum("qd,qd->q", queries, queries)
    distances: npt.NDArray[np.float32] = lengths + query_lengths[:, None] - 2 * products
    return -distances
