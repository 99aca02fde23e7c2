"""What all probes share: vectors of a task, a way to search them, and rows of results.

A probe changes one thing about a task - its queries, its documents, its filters - in several settings, and says per
setting what is left of the utility, with a confidence interval. Every probe is a function

    probe(data, utility, search, *, seed, ...) -> tuple[ProbeRow, ...]

    evaluation.probes_queries   out-of-distribution queries, popularity
    evaluation.probes_corpus    hubness, imbalance, dimension truncation, near-duplicates, mixed encoders
    evaluation.probes_filters   filter selectivity x correlation
"""

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, Self

import numpy as np
import numpy.typing as npt

from evaluation.ground_truth import exact_index
from evaluation.statistics import Interval, bootstrap_interval
from index.ann import AnnIndex
from index.ann_build import write_index
from index.errors import RequestError, ShapeError
from index.flat import FlatIndex
from index.metric import METRICS, Metric, check_vectors, prepare
from index.spec import IndexSpec
from index.types import Bitmap, Effort, Rows, Vectors

Values = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class TaskVectors:
    """Vectors of a task: documents float32 (N, D), queries float32 (Q, D), not prepared.

    metric: by which neighbours are near. k: results of a search. Raises ShapeError, RequestError on k < 1.
    """

    documents: Vectors
    queries: Vectors
    metric: Metric = "cosine"
    k: int = 10

    def __post_init__(self) -> None:
        """Check shapes and values."""
        if self.metric not in METRICS or self.k < 1:
            raise RequestError(f"metric {self.metric!r}, k = {self.k}: expected one of {METRICS} and k of at least 1")
        check_vectors(self.documents)
        check_vectors(self.queries, self.documents.shape[1])
        if not len(self.documents) or not len(self.queries):
            raise ShapeError(
                f"{len(self.documents)} documents, {len(self.queries)} queries: expected at least 1 of each"
            )


class Search(Protocol):
    """Any way to search vectors: exact, approximate, another library's."""

    def __call__(self, documents: Vectors, queries: Vectors, k: int, allowed: Bitmap | None = None) -> Rows:
        """Return int64 (Q, k), best first, padded with -1. allowed: packed bits over the documents."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class ProbeRow:
    """One setting of a probe. values: utility per query, float64 (Q,); mean and its 95 % interval.

    measures: whatever else tells about the setting, "mmd" or "S_10" for example.
    """

    probe: str
    setting: Mapping[str, str | float]
    values: Values = field(repr=False)
    mean: float
    interval: Interval
    measures: Mapping[str, float] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON, without the values of single queries."""
        return {
            "probe": self.probe,
            "setting": dict(self.setting),
            "mean": self.mean,
            "low": self.interval.low,
            "high": self.interval.high,
            "queries": len(self.values),
            "measures": dict(self.measures),
        }


def probe_row(
    probe: str,
    setting: Mapping[str, str | float],
    values: Values,
    seed: int,
    measures: Mapping[str, float] | None = None,
) -> ProbeRow:
    """Return a row with mean and interval. Raises RequestError on fewer than 2 queries or infinite values."""
    interval = bootstrap_interval(values, seed=seed)
    return ProbeRow(probe, setting, values, float(values.mean()), interval, measures or {})


def exact_search(metric: Metric) -> Search:
    """Return exact search under a metric."""

    def search(documents: Vectors, queries: Vectors, k: int, allowed: Bitmap | None = None) -> Rows:
        return exact_index(documents, metric).search(queries, k, allowed).rows

    return search


class IndexSearch:
    """Search through an index of ours, built anew whenever the documents are other ones than before.

    effort: of every search, None = as calibrated. Close it, or use it in a `with`: indexes stand in a temporary folder.
    built: how many there have been.
    """

    def __init__(self, spec: IndexSpec, effort: Effort | None = None) -> None:
        self._spec = spec
        self._effort = effort
        self._folder = tempfile.TemporaryDirectory()
        self._documents: Vectors | None = None
        self.built = 0

    def __call__(self, documents: Vectors, queries: Vectors, k: int, allowed: Bitmap | None = None) -> Rows:
        """See Search. Documents are told apart by identity, so they must not be changed in place."""
        if documents is not self._documents:
            self._open(documents)
        return self._search(queries, k, allowed, self._effort).rows

    def _open(self, documents: Vectors) -> None:
        folder = Path(self._folder.name) / str(self.built)
        folder.mkdir()
        self.built += 1
        prepared = prepare(check_vectors(documents), self._spec.metric)
        about = write_index(folder, [prepared], prepared.shape[1], len(prepared), self._spec)
        exact = about.kind == "flat"
        self._search = (FlatIndex if exact else AnnIndex).open(folder, self._spec.metric).search
        self._documents = documents

    def close(self) -> None:
        """Remove what was built."""
        self._folder.cleanup()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
