"""Four synthetic sets of labelled vectors, on each of which another metric fails; seeded, of any size.

Classes are Gaussian clouds around Gaussian centres, so labels are known and every exact search has an honest score:

    isotropic     norms vary by 6 %, as they must in 128 dimensions: all metrics work
    jitter        each vector times its own factor (CV 0.2): Euclidean fails, inner product suffers
    cone          a large common mean, angles of 3.4 degrees to it: inner product fails, centring is best
    cone-jitter   both, the factor on the whole vector: only cosine works
"""

from dataclasses import dataclass
from typing import Final, Literal, TypeAlias, get_args

import numpy as np
import numpy.typing as npt

from index.errors import ConfigError, RequestError
from index.types import Vectors

Shape: TypeAlias = Literal["isotropic", "jitter", "cone", "cone-jitter"]

SHAPES: Final[tuple[Shape, ...]] = get_args(Shape)

NOISE: Final = 1.2
"""Standard deviation inside a class; that of the centres is 1: neighbours of a class are mostly, not always, found."""

JITTER: Final = 0.2

ANGLE_DEG: Final = 3.4
"""Mean angle to the common mean, as of EVA02's embeddings of ImageNet."""


@dataclass(frozen=True, slots=True)
class Labelled:
    """documents: float32 (N, D), labels int64 (N,); queries: float32 (Q, D), query_labels int64 (Q,)."""

    documents: Vectors
    labels: npt.NDArray[np.int64]
    queries: Vectors
    query_labels: npt.NDArray[np.int64]


def labelled(
    shape: Shape, *, count: int = 50_000, dim: int = 128, classes: int = 500, queries: int = 500, seed: int = 0
) -> Labelled:
    """Return a set of `count` documents in classes of equal size, and queries drawn like them, each class in turn.

    Raises ConfigError on another shape, RequestError unless classes divide count.
    """
    if shape not in SHAPES:
        raise ConfigError(f"shape {shape!r} is unknown; allowed: {', '.join(SHAPES)}")
    if min(count, dim, classes, queries) < 1 or count % classes:
        raise RequestError(f"{count} documents in {classes} classes, expected a multiple: classes are of equal size")
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(classes, dim))
    labels = np.arange(count + queries) % classes
    vectors = centres[labels] + NOISE * rng.normal(size=(count + queries, dim))
    if shape in {"cone", "cone-jitter"}:
        direction = rng.normal(size=dim)
        direction *= np.sqrt(dim * (1 + NOISE**2)) / np.tan(np.radians(ANGLE_DEG)) / np.linalg.norm(direction)
        vectors += direction
    if shape in {"jitter", "cone-jitter"}:
        vectors *= rng.lognormal(sigma=np.sqrt(np.log1p(JITTER**2)), size=(count + queries, 1))
    stored = vectors.astype(np.float32)
    return Labelled(stored[:count], labels[:count], stored[count:], labels[count:])
