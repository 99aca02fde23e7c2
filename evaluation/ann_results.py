"""What the ANN arm measured, per configuration and setting, and the utility knee: the cheapest setting good enough."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from evaluation.statistics import MARGIN, MarginTest, non_inferior
from index.errors import ShapeError
from index.metric import Metric
from index.types import Rows

Values = npt.NDArray[np.float64]


class Spread(NamedTuple):
    """Median over repeats, with the quartiles below and above."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: npt.NDArray[np.floating]) -> "Spread":
        """Return the spread of one value per repeat. Raises ShapeError without any."""
        if values.ndim != 1 or not len(values):
            raise ShapeError(f"values have shape {values.shape}, expected one per repeat")
        low, median, high = np.percentile(values, [25, 50, 75])
        return cls(float(median), float(low), float(high))


@dataclass(frozen=True, slots=True)
class Timing:
    """Single queries by one thread. Latencies in seconds: each a percentile of a repeat's calls, spread over repeats.

    calls: per repeat; a percentile that so few calls cannot resolve lies between their slowest.
    medians_s: p50 of each repeat, in order.
    qps: queries per second by one thread; all_cores: by every core, all queries in one call.
    """

    p50_s: Spread
    p95_s: Spread
    p99_s: Spread
    p999_s: Spread
    qps: Spread
    all_cores: Spread
    calls: int
    medians_s: tuple[float, ...]

    @classmethod
    def of(cls, seconds: Values, batch_s: Values, queries: int) -> "Timing":
        """Return the figures of one setting. seconds: (repeats, calls); batch_s: (repeats,) for `queries` at once."""
        p50_s, p95_s, p99_s, p999_s = (
            Spread.of(np.percentile(seconds, percent, axis=1)) for percent in (50, 95, 99, 99.9)
        )
        return cls(
            p50_s,
            p95_s,
            p99_s,
            p999_s,
            qps=Spread.of(seconds.shape[1] / seconds.sum(axis=1)),
            all_cores=Spread.of(queries / batch_s),
            calls=seconds.shape[1],
            medians_s=tuple(np.median(seconds, axis=1).tolist()),
        )


@dataclass(frozen=True, slots=True)
class Build:
    """What building an index took, in a process of its own.

    seconds: with writing it and, for ours, calibrating it. peak_bytes: the process's greatest resident memory with its
    libraries; before_bytes: what of it was there before building. size_bytes: of all files. kind: what it became (few
    vectors are searched exactly whatever was asked). threads: that built.
    """

    seconds: float
    peak_bytes: int
    before_bytes: int
    size_bytes: int
    kind: str
    threads: int


@dataclass(frozen=True, slots=True, eq=False)
class Point:
    """One setting of one configuration. rows: int64 (Q, k). settings: empty = as the index was calibrated.

    utility, recall, tied_recall, inverse_ratio: per query, float64 (Q,); recall by id; inverse_ratio is 1/Ratio@k, None
    for "ip". distances: vectors compared per query where faiss counts them.
    """

    configuration: str
    settings: Mapping[str, float]
    rows: Rows = field(repr=False)
    utility: Values = field(repr=False)
    recall: Values = field(repr=False)
    tied_recall: Values = field(repr=False)
    inverse_ratio: Values | None = field(repr=False)
    timing: Timing
    distances: float | None

    @property
    def name(self) -> str:
        """The configuration and its settings, "hnsw ef=64" say."""
        return " ".join([self.configuration, *(f"{name}={value:g}" for name, value in self.settings.items())])


@dataclass(frozen=True, slots=True, eq=False)
class ArmReport:
    """Everything measured on one task. exact: utility of exact search, float64 (Q,); truth: key of the ground truth.

    points: in order of configuration and effort, as given. builds: per configuration. machine: see evaluation.machine.
    """

    measure: str
    metric: Metric
    k: int
    exact: Values = field(repr=False)
    builds: Mapping[str, Build]
    points: tuple[Point, ...]
    truth: str
    machine: Mapping[str, str]

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON: means, per-query utilities and recalls, timings; no rows."""
        return {
            "measure": self.measure,
            "metric": self.metric,
            "k": self.k,
            "exact": {"mean": float(self.exact.mean()), "values": self.exact.tolist()},
            "builds": {name: _plain(build) for name, build in self.builds.items()},
            "points": [
                {
                    "configuration": point.configuration,
                    "name": point.name,
                    "settings": dict(point.settings),
                    "utility": {"mean": float(point.utility.mean()), "values": point.utility.tolist()},
                    "recall": float(point.recall.mean()),
                    "tied_recall": float(point.tied_recall.mean()),
                    "inverse_ratio": None if point.inverse_ratio is None else float(point.inverse_ratio.mean()),
                    "timing": {
                        name: value._asdict() if isinstance(value, Spread) else value
                        for name, value in _plain(point.timing).items()
                    },
                    "distances": point.distances,
                }
                for point in self.points
            ],
            "truth": self.truth,
            "machine": dict(self.machine),
        }


def _plain(value: Build | Timing) -> dict[str, Any]:
    return {name: getattr(value, name) for name in value.__slots__}


@dataclass(frozen=True, slots=True)
class Knee:
    """The cheapest setting that is not worse than exact search by the margin. test: utility of it minus exact."""

    point: Point
    test: MarginTest


def utility_knee(report: ArmReport, margin: float = MARGIN, *, alpha: float = 0.05) -> Knee | None:
    """Return the setting with the least median latency whose utility is non-inferior to exact search; None if none is.

    Per configuration the settings are tested from the most expensive one down, and testing stops at the first that
    fails: so the chance to call an inferior setting of a configuration good stays below alpha without a correction
    (fixed-sequence testing, Maurer, Hothorn & Lehmacher 1995). Effort is ordered by the distance computations or, where
    nobody counted, by latency. Raises RequestError on fewer than 2 queries or a margin that is not positive.
    """
    best: Knee | None = None
    for name in report.builds:
        for knee in _good(_by_effort(report.points, name), report.exact, margin, alpha):
            if best is None or knee.point.timing.p50_s.median < best.point.timing.p50_s.median:
                best = knee
    return best


def _by_effort(points: Sequence[Point], configuration: str) -> list[Point]:
    mine = [point for point in points if point.configuration == configuration]
    counted = all(point.distances is not None for point in mine)
    return sorted(mine, key=lambda point: (point.distances or 0.0) if counted else point.timing.p50_s.median)


def _good(points: Sequence[Point], exact: Values, margin: float, alpha: float) -> list[Knee]:
    found: list[Knee] = []
    for point in reversed(points):
        test = non_inferior(point.utility, exact, margin, alpha=alpha)
        if not test.holds:
            break
        found.append(Knee(point, test))
    return found


def pareto(points: Sequence[Point]) -> tuple[Point, ...]:
    """Return the points that none beats in both mean utility and single-thread QPS, from fast to good."""
    ordered = sorted(points, key=lambda point: (-point.timing.qps.median, -float(point.utility.mean())))
    front: list[Point] = []
    for point in ordered:
        if not front or point.utility.mean() > front[-1].utility.mean():
            front.append(point)
    return tuple(front)
