"""Regression gates: two results of the same measurements, a baseline and a candidate, to verdicts a build can stop on.

    {"exact":     {name: [value per query]}     bit-stable: any difference fails
     "utility":   {name: [value per query]}     approximate search: not inferior, one-sided alpha .05, margin .005
     "distances": {name: number}                distance computations: within 2 %
     "bytes":     {name: number}                index files: within 1 %
     "wall_s":    {name: [seconds per repeat]}} advice, unless the median ratio of paired repeats exceeds 1.15

What the baseline has and the candidate lacks fails; what is new passes with a remark, or nothing could be added.
"""

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np

from evaluation.ann_results import ArmReport
from evaluation.statistics import MARGIN, non_inferior
from index.durable import storage_errors, write_json_atomic
from index.errors import CorpusError

Status: TypeAlias = Literal["pass", "fail", "advice"]
Gate: TypeAlias = Literal["exact", "utility", "distances", "bytes", "wall_s"]

Results: TypeAlias = Mapping[Gate, Mapping[str, Any]]

DISTANCES, BYTES, WALL = 0.02, 0.01, 1.15
ALPHA = 0.05


@dataclass(frozen=True, slots=True)
class Verdict:
    """One measurement against its baseline. status: "advice" never stops a build. detail: what was compared."""

    gate: Gate
    name: str
    status: Status
    detail: str

    def __str__(self) -> str:
        return f"{self.status.upper()} {self.gate} {self.name}: {self.detail}"


def compare(baseline: Results, candidate: Results) -> tuple[Verdict, ...]:
    """Return a verdict for every measurement of either, in order of gate and name.

    Raises CorpusError on an unknown gate, NaN, infinity or what is no number, RequestError on fewer than 2 utilities.
    """
    for which, results in (("baseline", baseline), ("candidate", candidate)):
        _check(results, which)
    return tuple(_verdicts(baseline, candidate))


def failed(verdicts: Sequence[Verdict]) -> bool:
    """Return whether a build stops on these."""
    return any(verdict.status == "fail" for verdict in verdicts)


def read_results(path: str | Path) -> Results:
    """Read results that `write_results` wrote. Raises CorpusError on anything else, StorageError."""
    path = Path(path)
    with storage_errors("read", path):
        content = path.read_bytes()
    try:
        results = json.loads(content)
    except ValueError as error:
        raise CorpusError(f"{path} is no JSON: {error}; measure again") from error
    _check(results, str(path))
    checked: Results = results
    return checked


def write_results(path: str | Path, results: Results) -> None:
    """Write results as JSON, atomically; numbers keep every bit. Raises CorpusError as `compare` does, StorageError."""
    _check(results, "results")
    write_json_atomic(Path(path), results, point="evaluation.gates")


def arm_results(report: ArmReport) -> Results:
    """Return what the gates compare of an ANN arm's report; times are the median latency of each repeat."""
    return {
        "exact": {f"{report.measure} {report.metric}": report.exact.tolist()},
        "utility": {point.name: point.utility.tolist() for point in report.points},
        "distances": {point.name: point.distances for point in report.points if point.distances is not None},
        "bytes": {name: build.size_bytes for name, build in report.builds.items()},
        "wall_s": {point.name: list(point.timing.medians_s) for point in report.points},
    }


def _verdicts(baseline: Results, candidate: Results) -> Iterator[Verdict]:
    for gate, judge in _GATES.items():
        before, after = baseline.get(gate, {}), candidate.get(gate, {})
        for name in sorted(before.keys() | after.keys()):
            if name not in after:
                yield Verdict(gate, name, "fail", "measured in the baseline and not in the candidate: measure it again")
            elif name not in before:
                yield Verdict(gate, name, "pass", "new: the baseline has nothing to compare it with")
            else:
                yield Verdict(gate, name, *judge(before[name], after[name]))


_Judged: TypeAlias = tuple[Status, str]


def _exact(before: list[float], after: list[float]) -> _Judged:
    if len(before) != len(after):
        return "fail", f"{len(after)} values, {len(before)} in the baseline: the queries are others"
    moved = [place for place, (old, new) in enumerate(zip(before, after, strict=True)) if old != new]
    if not moved:
        return "pass", f"{len(before)} values are equal"
    first = moved[0]
    return (
        "fail",
        f"{len(moved)} of {len(before)} values differ, first {first}: {before[first]!r} became {after[first]!r}",
    )


def _utility(before: list[float], after: list[float]) -> _Judged:
    if len(before) != len(after):
        return "fail", f"{len(after)} values, {len(before)} in the baseline: the queries are others"
    test = non_inferior(np.array(after), np.array(before), MARGIN, alpha=ALPHA)
    status: Status = "pass" if test.holds else "fail"
    return status, f"{test.difference:+.4f}, at least {test.low:+.4f} with 95 % confidence, allowed -{MARGIN}"


def _within(tolerance: float) -> Callable[[float, float], _Judged]:
    def judge(before: float, after: float) -> _Judged:
        if before == after:
            return "pass", f"{after:g} as before"
        change = (after - before) / before if before else math.inf
        # Less is a change of behaviour, too: the baseline has to say so before anything else is measured against it.
        status: Status = "pass" if abs(change) <= tolerance else "fail"
        return status, f"{before:g} became {after:g} ({change:+.1%}), allowed {tolerance:.0%}"

    return judge


def _wall(before: list[float], after: list[float]) -> _Judged:
    count = min(len(before), len(after))
    if not count or min(before) <= 0:
        return "fail", f"{len(before)} and {len(after)} times above 0, expected at least one of each: measure again"
    ratio = float(np.median(np.array(after[:count]) / np.array(before[:count])))
    status: Status = "fail" if ratio > WALL else "advice" if ratio > 1 else "pass"
    return status, f"{ratio:.2f} times as long (median of {count} pairs), at most {WALL}"


_GATES: dict[Gate, Callable[[Any, Any], _Judged]] = {
    "exact": _exact,
    "utility": _utility,
    "distances": _within(DISTANCES),
    "bytes": _within(BYTES),
    "wall_s": _wall,
}

_LISTS = frozenset({"exact", "utility", "wall_s"})


def _check(results: Any, where: str) -> None:
    if not isinstance(results, Mapping):
        raise CorpusError(f"{where}: expected an object of gates, {', '.join(_GATES)}, found {type(results).__name__}")
    for gate, named in results.items():
        if gate not in _GATES or not isinstance(named, Mapping):
            raise CorpusError(f"{where}: {gate!r} is no gate with named measurements; gates: {', '.join(_GATES)}")
        for name, value in named.items():
            numbers = value if gate in _LISTS else [value]
            if not isinstance(numbers, list) or not all(_is_number(number) for number in numbers):
                kind = "a list of finite numbers" if gate in _LISTS else "a finite number"
                raise CorpusError(f"{where}: {gate} {name!r} is {str(value)[:60]}, expected {kind}")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
