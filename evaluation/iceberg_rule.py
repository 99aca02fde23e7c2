"""Iceberg's published decision rule, for comparison with what is measured or learned here.

Its figure gives a metric node, then a partition-or-graph node on either side; thresholds are hand-set, and no code for
the features is published. Read here: DBI of k-means clusters of the vectors (E) and of their unit vectors (C); CV of
the norms; RA the mean angle to the mean vector; RC = mean distance / mean distance to the nearest neighbour.
On a narrow cone DBI_E and DBI_C nearly agree, so the metric node depends on the clustering's seed.
Source: arXiv 2512.12980, figure of its repository ZJU-DAILY/Iceberg.
"""

from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

import numpy as np

from evaluation.features import CLUSTERS, features, separations
from index.types import Vectors

IcebergMetric: TypeAlias = Literal["ip", "l2"]

MOST_NORM_CV: Final = 0.1
LEAST_ANGLE_DEG: Final = 60.0
LEAST_CONTRAST: Final = 1.5

METHODS: Final = {
    ("ip", "partition"): ("ScaNN", "Fargo"),
    ("ip", "graph"): ("ip-NSW+", "Mobius", "MAG", "NAPG"),
    ("l2", "partition"): ("RaBitQ", "IVFPQ", "DB-LSH"),
    ("l2", "graph"): ("HNSW", "NSG", "Vamana"),
}
"""The methods that the figure names at each leaf."""


@dataclass(frozen=True, slots=True)
class Measured:
    """What the rule looks at."""

    dbi_euclidean: float
    dbi_cosine: float
    norm_cv: float
    angle_deg: float
    contrast: float

    @classmethod
    def of(cls, found: dict[str, float]) -> "Measured":
        """Take what the rule looks at from `evaluation.features.features`."""
        return cls(found["dbi_euclidean"], found["dbi_cosine"], found["norm_cv"], found["ra_mean_deg"], found["rc_1"])


@dataclass(frozen=True, slots=True)
class Choice:
    """A leaf of the rule. methods: those that its authors name there."""

    metric: IcebergMetric
    family: Literal["partition", "graph"]

    @property
    def methods(self) -> tuple[str, ...]:
        """The methods that the figure names at this leaf."""
        return METHODS[self.metric, self.family]


def choose(measured: Measured) -> Choice:
    """Apply the rule: inner product if DBI_E >= DBI_C and CV <= 0.1; partition if RA >= 60 degrees or RC < 1.5."""
    parted = measured.angle_deg >= LEAST_ANGLE_DEG or measured.contrast < LEAST_CONTRAST
    metric = _metric(measured.dbi_euclidean, measured.dbi_cosine, measured.norm_cv)
    return Choice(metric, "partition" if parted else "graph")


def _metric(dbi_euclidean: float, dbi_cosine: float, norm_cv: float) -> IcebergMetric:
    return "ip" if dbi_euclidean >= dbi_cosine and norm_cv <= MOST_NORM_CV else "l2"


def iceberg_rule(documents: Vectors, *, seed: int = 0) -> Choice:
    """Measure a sample of documents, float32 (N, D), and apply the rule. Raises and costs as `features` does."""
    return choose(Measured.of(features(documents, seed=seed)))


def metric_node(documents: Vectors, *, clusters: int = CLUSTERS, seed: int = 0) -> IcebergMetric:
    """Apply the metric node alone, with any number of clusters. Cost: two k-means of all documents."""
    norms = np.sqrt((documents.astype(np.float64) ** 2).sum(axis=1))
    return _metric(*separations(documents, clusters, seed=seed), float(norms.std() / norms.mean()))
