import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evaluation.collect_runs import Given, measure, one_length
from evaluation.cone import labelled
from evaluation.run_sources import (
    GRID,
    HASHING,
    byte_histograms,
    cones,
    digits,
    passages,
    quadrant_histograms,
    texts,
    varied,
)
from evaluation.runs import FAMILIES, Key, Record, Setting, append_run, read_runs
from evaluation.task import FAMILIES as TASK_FAMILIES
from evaluation.utility import from_labels
from index.errors import CorpusError, ShapeError

FLAT = Setting("cosine", "flat", {}, 0.5, 0.4, 0.6, 1.0, 100.0, 4_000, 0.5)
GRAPH = Setting("cosine", "hnsw", {"ef": 64}, 0.49, 0.39, 0.59, 0.98, None, 5_000, 0.1)


def record(**changes: Any) -> Record:
    values: dict[str, Any] = {
        "dataset": "a",
        "family": "abstracts",
        "space": "hashing-64",
        "seed": 0,
        "n": 100,
        "d": 64,
        "queries": 20,
        "measure": "nDCG@10",
        "k": 10,
        "one_length": True,
        "features": {"norm_cv": 0.0, "lid": 12.5},
        "settings": (FLAT, GRAPH),
        "machine": {"cpu": "x"},
    }
    return Record(**{**values, **changes})


def test_records_come_back_as_they_were_written(tmp_path: Path) -> None:
    path = tmp_path / "data" / "runs.jsonl"
    written = [record(), record(space="minilm"), record(n=50), record(seed=1)]
    for each in written:
        append_run(path, each)
    assert read_runs(path) == written
    assert len(path.read_text().splitlines()) == 4


def test_what_is_measured_once_is_not_measured_again(tmp_path: Path) -> None:
    path = tmp_path / "runs.jsonl"
    append_run(path, record())
    before = path.read_bytes()
    with pytest.raises(CorpusError, match="has a / hashing-64 / 100 documents / seed 0 already"):
        append_run(path, record(measure="R@10"))
    assert path.read_bytes() == before
    path.write_bytes(before + before)
    with pytest.raises(CorpusError, match=r"line 2: .* measured twice"):
        read_runs(path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"family": "weather"}, "family 'weather' is none of Wikipedia questions, "),
        ({"n": 0}, "expected whole numbers above 0"),
        ({"dataset": ""}, "and names"),
        ({"features": {"lid": math.nan}}, r"features \['lid'\]"),
        ({"features": {}}, "features absent"),
        ({"settings": ()}, "expected each once"),
        ({"settings": (FLAT, FLAT)}, "2 settings, 1 different"),
    ],
)
def test_a_bad_record_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(CorpusError, match=message):
        record(**changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"metric": "dot"},
        {"kind": "auto"},
        {"effort": {"beam": 3}},
        {"utility": math.nan},
        {"utility": 0.7},
        {"recall": 1.2},
        {"recall": True},
        {"distances": -1.0},
        {"size_bytes": 0},
        {"p50_ms": 0.0},
        {"p50_ms": math.inf},
    ],
)
def test_a_bad_setting_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(CorpusError, match=r"expected|efforts are"):
        replace(FLAT, **changes)


@pytest.mark.parametrize(
    "line",
    [
        "nonsense",
        "[1]",
        "{}",
        '{"format": 2}',
        json.dumps({**record().to_json(), "settings": [["cosine", "flat"]]}),
        json.dumps({**record().to_json(), "colour": 1}),
        json.dumps({**record().to_json(), "features": {"lid": "high"}}),
        json.dumps({**record().to_json(), "n": None}),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "runs.jsonl"
    append_run(path, record())
    with path.open("a") as file:
        file.write(line + "\n")
    with pytest.raises(CorpusError, match=r"^runs.jsonl line 2"):
        read_runs(path)


def test_every_family_of_a_dataset_is_a_family_of_runs() -> None:
    assert set(TASK_FAMILIES.values()) | {"images/histograms", "synthetic cones"} == set(FAMILIES)


def test_few_vectors_give_a_record_of_exact_search_under_every_metric() -> None:
    data = varied(labelled("isotropic", count=200, dim=16, classes=10, queries=30), 3.4, 0.3)
    utility = from_labels("label-precision", data.labels, data.query_labels, 10)
    given = Given(Key("cone", "gaussian", 200, 0), "synthetic cones", data.documents, data.queries, utility)
    found = measure(given)
    assert {(each.metric, each.kind, each.recall) for each in found.settings} == {
        (metric, "flat", 1.0) for metric in ("cosine", "ip", "l2")
    }
    assert not found.one_length
    for each in found.settings:
        scores = _scores(data.queries, data.documents, each.metric)
        best = np.argsort(-scores, axis=1, kind="stable")[:, :10]
        assert each.utility == pytest.approx((data.labels[best] == data.query_labels[:, None]).mean(), rel=1e-4)
        assert each.distances == 200
    assert Record(**{name: getattr(found, name) for name in Record.__slots__}) == found


def _scores(queries: np.ndarray, documents: np.ndarray, metric: str) -> np.ndarray:
    if metric == "l2":
        return -((queries[:, None].astype(np.float64) - documents[None]) ** 2).sum(axis=2)
    products = queries.astype(np.float64) @ documents.T.astype(np.float64)
    return products / np.linalg.norm(documents, axis=1) if metric == "cosine" else products


def test_approximate_kinds_are_measured_where_there_are_enough_vectors() -> None:
    data = labelled("isotropic", count=1_200, dim=16, classes=40, queries=40)
    unit = (data.documents / np.linalg.norm(data.documents, axis=1, keepdims=True)).astype(np.float32)
    utility = from_labels("label-precision", data.labels, data.query_labels, 10)
    given = Given(Key("unit", "gaussian", 1_200, 0), "synthetic cones", unit, data.queries, utility)
    found = measure(given, kinds=("flat", "hnsw"))
    assert found.one_length
    assert {each.metric for each in found.settings} == {"cosine"}
    graph = [each for each in found.settings if each.kind == "hnsw" and each.effort]
    assert [each.effort["ef"] for each in graph] == [16, 32, 64, 128, 256, 512]
    assert graph[-1].recall > 0.99
    assert graph[0].distances is not None
    assert graph[-1].distances is not None
    assert graph[0].distances < graph[-1].distances


def test_a_given_must_fit_its_key() -> None:
    data = labelled("isotropic", count=20, dim=4, classes=2, queries=4)
    utility = from_labels("hit", data.labels, data.query_labels, 3)
    with pytest.raises(ShapeError, match="expected as many as the key"):
        Given(Key("a", "b", 21, 0), "synthetic cones", data.documents, data.queries, utility)


def test_lengths_are_one_length_up_to_rounding() -> None:
    vectors = np.eye(3, dtype=np.float32)
    assert one_length(vectors)
    assert one_length(vectors * np.float32(7))
    assert not one_length(vectors * np.array([[1], [1], [1.01]], dtype=np.float32))


def test_histograms_count() -> None:
    assert byte_histograms(["aab", "é"])[:, [97, 98, 0xC3, 0xA9]].tolist() == [[2, 1, 0, 0], [0, 0, 1, 1]]
    image = np.zeros((1, 64), dtype=np.float32)
    image[0, 0] = 16  # the first pixel of the first quarter
    found = quadrant_histograms(image).reshape(4, 17)
    assert found[:, 0].tolist() == [15, 16, 16, 16]
    assert found[0, 16] == 1
    assert found.sum() == 64


def test_sources_leave_out_what_is_known() -> None:
    every = [given.key for given in digits(set())]
    assert {key.space for key in every} == {"pixels", "pixels-unit", "quadrants"}
    assert [given.key for given in digits(set(every[:2]))] == every[2:]
    first = next(cones(set()))
    assert next(cones({first.key})).key != first.key
    assert len(set(GRID)) == len(GRID) == 22


def test_passages_are_found_by_their_article(tmp_path: Path) -> None:
    words = np.random.default_rng(0).integers(97, 123, size=(40, 2))  # each article is written in two letters
    lines = [
        {"_id": f"a{article}#{number}", "title": "", "text": " ".join(map(chr, words[article])) * (number + 3)}
        for article in range(40)
        for number in range(20)
    ]
    (tmp_path / "passages.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    [found] = passages(tmp_path / "passages.jsonl", [400], set())
    assert found.key == Key(tmp_path.name, "bytes", 400, 0)
    assert found.documents.shape == (400, 256)
    assert found.queries.shape == (300, 256)
    exact = {each.metric: each.utility for each in measure(found, kinds=("flat",)).settings}
    assert exact["cosine"] > 0.8  # some articles share their letters
    assert exact["cosine"] > exact["l2"]  # lengths of texts differ
    assert list(passages(tmp_path / "passages.jsonl", [400], {found.key})) == []


def test_texts_come_in_every_space_and_size(tmp_path: Path, dataset: Callable[[str], Path]) -> None:
    folder = dataset("cranfield")
    found = list(texts(folder, tmp_path, HASHING, [300, 5_000], set()))
    sizes = sorted({given.key.n for given in found})
    assert [given.key.space for given in found] == ["hashing-256"] * len(sizes) + ["hashing-256-words"] * len(sizes)
    assert sizes[-1] == 1_400
    own, words = (given.documents for given in found if given.key.n == 1_400)
    lengths = np.linalg.norm(words, axis=1)
    kept = lengths > 0
    directions = words[kept] / lengths[kept, None]
    assert directions == pytest.approx(own[kept] / np.linalg.norm(own[kept], axis=1, keepdims=True), abs=1e-5)
    assert lengths.std() > 1
    assert not list(texts(folder, tmp_path, HASHING, [300, 5_000], {given.key for given in found}))


def test_synthetic_sets_have_the_angle_and_jitter_asked_for() -> None:
    data = varied(labelled("isotropic", count=2_000, dim=64, classes=40), 15, 0.4)
    lengths = np.linalg.norm(data.documents, axis=1)
    mean = data.documents.mean(axis=0, dtype=np.float64)
    angles = np.degrees(np.arccos(data.documents @ mean / lengths / np.linalg.norm(mean)))
    assert angles.mean() == pytest.approx(15, abs=1)
    assert lengths.std() / lengths.mean() == pytest.approx(0.4, abs=0.05)
