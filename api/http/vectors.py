"""Vectors between JSON's lists and numpy's arrays."""

from collections.abc import Mapping, Sequence

import numpy as np

from index.errors import RequestError
from retrieval.types import Vector


def client_vectors(vectors: Mapping[str, Sequence[float]]) -> dict[str, Vector]:
    """Return vectors as float32 (D,). Raises RequestError on a number that float32 cannot hold."""
    result = {}
    for name, values in vectors.items():
        with np.errstate(over="ignore"):
            vector = np.asarray(values, dtype=np.float32)
        if not np.isfinite(vector).all():
            raise RequestError(f"the vector for {name[:80]!r} holds a number that float32 cannot: expected finite ones")
        result[name] = vector
    return result
