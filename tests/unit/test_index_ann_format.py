"""index.json: what is written is read, anything else is refused; effort between and beyond what was measured."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from index.ann_format import FILE, FORMAT, About, Calibrated, Recall, read_about, write_about
from index.errors import IndexFormatError
from index.spec import IndexParams
from index.types import Effort


def about(first: Effort, second: Effort) -> About:
    """An index whose efforts at k = 10 and k = 100 were found to be these."""
    recalls = [Recall(k, 0.95, 0.97, 0.96, 0.955, 1_000) for k in (10, 100)]
    calibrated = tuple(Calibrated(effort, recall) for effort, recall in zip((first, second), recalls, strict=True))
    params = IndexParams(links=32)
    return About("hnsw", "cosine", "auto", "because", params, calibrated, 100, 7, "1.15.1", faiss_bytes=5)


EXAMPLE = about(Effort(ef=20), Effort(ef=180))


def test_what_is_written_is_read(tmp_path: Path) -> None:
    for each in (EXAMPLE, replace(EXAMPLE, kind="flat", calibrated=(), faiss=None, faiss_bytes=0)):
        write_about(tmp_path, each)
        assert read_about(tmp_path) == each


def test_equal_indexes_write_equal_bytes_that_end_in_a_line(tmp_path: Path) -> None:
    write_about(tmp_path, EXAMPLE)
    first = (tmp_path / FILE).read_bytes()
    write_about(tmp_path, about(Effort(ef=20), Effort(ef=180)))
    assert (tmp_path / FILE).read_bytes() == first
    assert first.endswith(b"}\n")
    assert json.loads(first)["format"] == FORMAT == 1


def test_a_folder_without_it_is_exact_search(tmp_path: Path) -> None:
    assert read_about(tmp_path) is None


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "3", '"text"', "{}", '{"kind": "flat"}', "\0\0"])
def test_what_is_no_table_of_ours_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / FILE).write_text(text)
    with pytest.raises(IndexFormatError, match=rf"{FILE} is damaged: rebuild"):
        read_about(tmp_path)


@pytest.mark.parametrize("version", [0, 2, "1", None, 1.5])
def test_another_version_is_named(version: Any, tmp_path: Path) -> None:
    write_about(tmp_path, EXAMPLE)
    table = json.loads((tmp_path / FILE).read_text())
    (tmp_path / FILE).write_text(json.dumps({**table, "format": version}))
    with pytest.raises(IndexFormatError, match=rf"format {version!r}, this grapnel reads 1: rebuild"):
        read_about(tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        {"extra": 1},
        {"params": {"links": 1}},
        {"params": {"unknown": 1}},
        {"params": None},
        {"calibrated": 3},
        {"calibrated": [{}]},
        {"calibrated": [{"effort": {"ef": 1}, "recall": {"k": 10}}]},
    ],
)
def test_a_value_that_makes_no_sense_is_refused(change: dict[str, Any], tmp_path: Path) -> None:
    write_about(tmp_path, EXAMPLE)
    table = json.loads((tmp_path / FILE).read_text())
    (tmp_path / FILE).write_text(json.dumps(table | change))
    with pytest.raises(IndexFormatError, match=r"damaged .*rebuild"):
        read_about(tmp_path)


@pytest.mark.parametrize("name", ["kind", "held_out", "params", "faiss_bytes"])
def test_a_missing_value_is_refused(name: str, tmp_path: Path) -> None:
    write_about(tmp_path, EXAMPLE)
    table = json.loads((tmp_path / FILE).read_text())
    del table[name]
    (tmp_path / FILE).write_text(json.dumps(table))
    with pytest.raises(IndexFormatError, match="damaged"):
        read_about(tmp_path)


@pytest.mark.parametrize(
    ("k", "ef"),
    [
        (1, 20),  # never less than was measured
        (10, 20),
        (31.6227766, 60),  # the geometric middle: sqrt(20 * 180)
        (100, 180),
        (1_000, 1_620),  # nine times more for each factor of ten
    ],
)
def test_effort_is_interpolated_geometrically(k: float, ef: int) -> None:
    assert EXAMPLE.effort(k) == Effort(ef=ef)


def test_every_setting_is_interpolated_and_none_stays_none() -> None:
    both = about(Effort(nprobe=4, refine=20), Effort(nprobe=16, refine=200))
    assert both.effort(10) == Effort(nprobe=4, refine=20)
    assert both.effort(10**1.5) == Effort(nprobe=8, refine=64)  # ceil(63.2)
    assert about(Effort(), Effort()).effort(50) == Effort()


def test_deeper_never_costs_less_and_never_without_limit() -> None:
    fallen = about(Effort(ef=300), Effort(ef=200))
    efforts = [fallen.effort(k).ef or 0 for k in (1, 10, 50, 100, 10_000)]
    assert efforts == [300] * 5
    steep = about(Effort(nprobe=1), Effort(nprobe=4_096))
    efforts = [steep.effort(k).nprobe or 0 for k in (1, 10, 20, 100, 1_000, 10**9)]
    assert efforts == sorted(efforts)
    assert efforts[-1] == 65_536


@pytest.mark.parametrize(("measured", "low", "reached"), [(0.97, 0.95, True), (0.97, 0.9499, False), (0.5, 0.4, False)])
def test_the_lower_bound_decides_whether_a_target_is_reached(measured: float, low: float, reached: bool) -> None:
    assert Recall(10, 0.95, measured, low, measured, 1_000).reached is reached
