"""The utility knee, the Pareto front and the summary of timings, on points made by hand."""

import json
from collections.abc import Mapping

import numpy as np
import pytest

from evaluation.ann_results import ArmReport, Build, Point, Spread, Timing, pareto, utility_knee
from evaluation.gates import arm_results, compare, failed
from index.errors import ShapeError

EXACT = np.tile([1.0, 0.5, 0.0, 0.5], 50)
BUILD = Build(seconds=1.0, peak_bytes=10, before_bytes=5, size_bytes=100, kind="hnsw", threads=1)


def timing(seconds: float) -> Timing:
    return Timing.of(np.full((7, 4), seconds), np.full(7, 4 * seconds), 4)


def point(name: str, ef: float, loss: float, seconds: float, distances: float | None = None) -> Point:
    rows = np.zeros((len(EXACT), 1), np.int64)
    utility = EXACT.copy()
    utility[0::4] -= 4 * loss
    ones = np.ones(len(EXACT))
    return Point(name, {"ef": ef}, rows, utility, ones, ones, None, timing(seconds), distances)


def report(points: list[Point], builds: Mapping[str, Build]) -> ArmReport:
    return ArmReport("P@1", "cosine", 1, EXACT, builds, tuple(points), "key", {"cpu": "any"})


def test_the_cheapest_setting_within_the_margin_is_the_knee() -> None:
    points = [point("a", ef, loss, ef) for ef, loss in ((16, 0.05), (32, 0.004), (64, 0.0), (128, 0.0))]
    knee = utility_knee(report(points, {"a": BUILD}))
    assert knee is not None
    assert knee.point.name == "a ef=32"
    assert knee.test.difference == pytest.approx(-0.004)
    stricter = utility_knee(report(points, {"a": BUILD}), margin=0.001)
    assert stricter is not None
    assert stricter.point.name == "a ef=64"


def test_testing_stops_at_the_first_failure() -> None:
    # The cheapest is good again, by chance say: it stands below one that failed and is not tested.
    points = [point("a", ef, loss, ef) for ef, loss in ((16, 0.0), (32, 0.05), (64, 0.0))]
    knee = utility_knee(report(points, {"a": BUILD}))
    assert knee is not None
    assert knee.point.name == "a ef=64"
    assert utility_knee(report([point("a", 64, 0.05, 1.0)], {"a": BUILD})) is None


def test_effort_is_ordered_by_distances_where_they_are_counted() -> None:
    # By latency the good one would come second, behind a failure.
    points = [point("a", 16, 0.05, 2.0, 100.0), point("a", 32, 0.0, 1.0, 200.0)]
    knee = utility_knee(report(points, {"a": BUILD}))
    assert knee is not None
    assert knee.point.name == "a ef=32"


def test_the_cheapest_configuration_wins() -> None:
    points = [point("a", 16, 0.0, 2.0), point("b", 16, 0.0, 1.0), point("c", 16, 0.5, 0.5)]
    knee = utility_knee(report(points, dict.fromkeys("abc", BUILD)))
    assert knee is not None
    assert knee.point.configuration == "b"


def test_pareto_front() -> None:
    points = [point("a", 1, 0.1, 1.0), point("a", 2, 0.05, 2.0), point("a", 3, 0.06, 3.0), point("a", 4, 0.0, 4.0)]
    assert [each.settings["ef"] for each in pareto(points)] == [1, 2, 4]
    slower = point("b", 1, 0.1, 1.5)
    assert slower not in pareto([*points, slower])


def test_timing_by_hand() -> None:
    seconds = np.array([[1.0, 2.0, 3.0], [2.0, 4.0, 6.0], [3.0, 6.0, 9.0]])
    found = Timing.of(seconds, np.array([0.5, 1.0, 2.0]), 10)
    assert found.p50_s == Spread(4.0, 3.0, 5.0)
    assert found.medians_s == (2.0, 4.0, 6.0)
    assert found.qps.median == pytest.approx(3 / 12)
    assert found.all_cores == Spread(10.0, 7.5, 15.0)
    assert found.p999_s.median == pytest.approx(np.percentile(seconds[1], 99.9))
    with pytest.raises(ShapeError, match="one per repeat"):
        Spread.of(np.empty(0))


def test_a_report_becomes_json_and_passes_its_own_gates() -> None:
    mine = report([point("a", 16, 0.0, 1.0, 100.0), point("a", 32, 0.0, 2.0)], {"a": BUILD})
    table = json.loads(json.dumps(mine.to_json(), allow_nan=False))
    assert table["points"][0]["timing"]["p50_s"] == {"median": 1.0, "low": 1.0, "high": 1.0}
    assert table["builds"]["a"]["size_bytes"] == 100
    results = arm_results(mine)
    assert results["distances"] == {"a ef=16": 100.0}
    assert not failed(compare(results, results))
