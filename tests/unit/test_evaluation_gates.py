"""Regression gates: what passes, what fails, what is only advice, and what cannot be compared."""

from pathlib import Path
from typing import Any

import pytest

from evaluation.gates import compare, failed, read_results, write_results
from index.errors import CorpusError, StorageError

BASE: dict[str, dict[str, Any]] = {
    "exact": {"nDCG@10": [0.1, 0.2, 1 / 3]},
    "utility": {"hnsw ef=64": [0.5, 0.7, 0.9, 0.4]},
    "distances": {"hnsw ef=64": 1000.0},
    "bytes": {"hnsw": 50_000},
    "wall_s": {"hnsw ef=64": [1.0, 1.1, 0.9]},
}


def changed(gate: str, value: Any) -> dict[str, dict[str, Any]]:
    name = next(iter(BASE[gate]))
    return {**BASE, gate: {name: value}}


def status(gate: str, value: Any) -> str:
    (verdict,) = (verdict for verdict in compare(BASE, changed(gate, value)) if verdict.gate == gate)  # type: ignore[arg-type]
    return verdict.status


def test_the_same_results_pass() -> None:
    verdicts = compare(BASE, BASE)  # type: ignore[arg-type]
    assert [verdict.status for verdict in verdicts] == ["pass"] * 5
    assert not failed(verdicts)


@pytest.mark.parametrize(
    ("gate", "value", "expected"),
    [
        ("exact", [0.1, 0.2, 0.33333333333333326], "fail"),  # the last bit
        ("exact", [0.1, 0.2], "fail"),
        ("utility", [0.496, 0.696, 0.896, 0.396], "pass"),  # .004 less everywhere
        ("utility", [0.494, 0.694, 0.894, 0.394], "fail"),
        ("utility", [0.9, 0.3, 0.9, 0.4], "fail"),  # as good on average, too uncertain
        ("utility", [0.6, 0.8, 0.99, 0.49], "pass"),
        ("distances", 1019.0, "pass"),
        ("distances", 1021.0, "fail"),
        ("distances", 979.0, "fail"),
        ("bytes", 50_499, "pass"),
        ("bytes", 50_501, "fail"),
        ("wall_s", [0.5, 0.6, 0.4], "pass"),
        ("wall_s", [1.14, 1.2, 1.0], "advice"),
        ("wall_s", [1.2, 1.32, 1.08], "fail"),
        ("wall_s", [], "fail"),
    ],
)
def test_each_gate(gate: str, value: Any, expected: str) -> None:
    assert status(gate, value) == expected


def test_what_is_missing_fails_and_what_is_new_passes() -> None:
    verdicts = compare({"bytes": {"a": 1}}, {"bytes": {"b": 1}})
    assert [(verdict.name, verdict.status) for verdict in verdicts] == [("a", "fail"), ("b", "pass")]
    assert failed(verdicts)
    assert str(verdicts[0]).startswith("FAIL bytes a: measured in the baseline")


@pytest.mark.parametrize(
    ("results", "message"),
    [
        ({"exact": {"a": [float("nan")]}}, "finite numbers"),
        ({"exact": {"a": 1.0}}, "finite numbers"),
        ({"bytes": {"a": True}}, "finite number"),
        ({"bytes": {"a": "1"}}, "finite number"),
        ({"speed": {}}, "no gate"),
        ({"bytes": [1]}, "no gate"),
        ([], "expected an object"),
    ],
)
def test_what_cannot_be_compared(results: Any, message: str) -> None:
    with pytest.raises(CorpusError, match=message):
        compare({}, results)


def test_results_keep_every_bit_in_a_file(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    write_results(path, BASE)  # type: ignore[arg-type]
    assert read_results(path) == BASE
    path.write_text("{")
    with pytest.raises(CorpusError, match="no JSON"):
        read_results(path)
    with pytest.raises(StorageError):
        read_results(tmp_path / "absent.json")
