"""What a recommendation is asked for and what it says: plain values, see evaluation.recommend."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from evaluation.statistics import Interval
from evaluation.utility import Utility
from index.errors import RequestError
from index.metric import Metric
from index.spec import Kind
from index.types import Vectors

SAMPLE: Final = 20_000
"""Passages that indexes are built over; a larger collection is sampled."""


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the user wants. recall: share of what exact search is worth, of recall or of utility.

    memory_gb, latency_ms: budgets of the opened index with its vectors and of a query's median, None = none.
    k: results. measure: the utility where there are labels. sample: passages at most. Raises RequestError.
    """

    recall: float = 0.95
    memory_gb: float | None = None
    latency_ms: float | None = None
    k: int = 10
    measure: str = "nDCG@10"
    sample: int = SAMPLE
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.recall < 1:
            raise RequestError(f"recall is {self.recall}, expected more than 0 and less than 1, such as 0.95")
        for name in ("memory_gb", "latency_ms"):
            value: float | None = getattr(self, name)
            if value is not None and not (value > 0 and math.isfinite(value)):
                raise RequestError(f"{name} is {value}, expected a number above 0")
        if self.k < 1 or self.sample < 1:
            raise RequestError(f"k is {self.k}, sample {self.sample}, expected at least 1")


@dataclass(frozen=True, slots=True, eq=False)
class Asked:
    """Queries of a sample. vectors: float32 (Q, D). utility: of documents, None = judged by recall."""

    vectors: Vectors = field(repr=False)
    utility: Utility | None = field(repr=False, default=None)


@dataclass(frozen=True, slots=True)
class MetricAdvice:
    """The metric, and what speaks for it. measured: utility of exact search under each, mean and interval.

    path: conditions of the tree that led there. abstained: the tree did not know such vectors.
    """

    metric: Metric
    why: str
    path: tuple[str, ...] = ()
    measured: Mapping[str, tuple[float, Interval]] = field(default_factory=dict)
    abstained: bool = False
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Advice:
    """Advice for one dense field.

    effort: what was measured; empty = as `grapnel build` calibrates it. measured: "nDCG@10" or "recall@10", of which
    worth is the mean with its interval, on `queries` that did not choose. exact, exact_ms: worth and median latency of
    exact search. met: the target, beyond chance. recall: what to ask of the build. memory_bytes, p50_ms: of the whole
    collection; `passages` in it, `sample` of them indexed to measure, `tried` settings.
    """

    field: str
    metric: MetricAdvice
    kind: Kind
    effort: Mapping[str, float]
    measured: str
    worth: float
    interval: Interval
    exact: float
    exact_ms: float
    met: bool
    recall: float
    memory_bytes: int
    p50_ms: float
    passages: int
    sample: int
    queries: int
    tried: int
    notes: tuple[str, ...] = ()

    @property
    def toml(self) -> str:
        """The lines for collection.toml; the effort is calibrated to `recall` when the index is built."""
        lines = [f"[fields.{self.field}]", 'kind = "dense"']
        lines += [f'metric = "{self.metric.metric}"', f'index = "{self.kind}"']
        return "\n".join(lines if self.kind == "flat" else [*lines, f"recall = {self.recall:g}"])
