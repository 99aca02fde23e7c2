"""A run beside judgements and beside another run: what is counted, what is refused, what is noted."""

import json
from dataclasses import astuple
from pathlib import Path

import numpy as np
import pytest

from evaluation.compare import DEFAULT_MEASURES, Coverage, evaluate, write_values
from evaluation.statistics import holm, paired
from index.errors import ConfigError, CorpusError, RequestError, StorageError

QRELS = {f"q{number:02}": {"a": 1, "b": 0} for number in range(20)}
PERFECT = {query: ["a", "b"] for query in QRELS}
SECOND = {query: ["b", "a"] for query in QRELS}


def test_a_run_alone_has_means_and_intervals() -> None:
    run = {query: ["a"] if number < 15 else ["b", "a"] for number, query in enumerate(QRELS)}
    found = evaluate(run, QRELS, ["RR@10", "R@1"])
    assert found.coverage == Coverage(judged=20, answered=20, unanswered=0, without_relevant=0, unjudged=0)
    assert found.baseline_coverage is None
    assert found.notes == ()
    rr, recall = found.measures
    assert (rr.measure, rr.mean) == ("RR@10", pytest.approx((15 + 5 / 2) / 20))
    assert (recall.measure, recall.mean) == ("R@1", pytest.approx(0.75))
    assert rr.interval is not None
    assert 0.5 < rr.interval.low < rr.mean < rr.interval.high <= 1.0
    assert rr.values["q00"] == 1.0
    assert rr.values["q19"] == 0.5
    assert rr.baseline_mean is rr.baseline_interval is rr.baseline_values is rr.comparison is rr.p_holm is None


def test_the_default_measures_are_those_of_the_command_line() -> None:
    assert [result.measure for result in evaluate(PERFECT, QRELS).measures] == list(DEFAULT_MEASURES)
    assert all(result.mean == 1.0 for result in evaluate(PERFECT, QRELS).measures)


def test_two_runs_are_compared_query_by_query() -> None:
    rng = np.random.default_rng(0)
    run = {query: ["a", "b"] if rng.random() < 0.8 else ["b", "a"] for query in QRELS}
    baseline = {query: ["a", "b"] if rng.random() < 0.3 else ["b", "a"] for query in QRELS}
    found = evaluate(run, QRELS, ["RR", "R@1", "R@2"], baseline=baseline, seed=4)
    assert found.baseline_coverage == found.coverage
    rr, recall, both = found.measures
    mine, theirs = (np.array([1 / (1 + ranked[query].index("a")) for query in QRELS]) for ranked in (run, baseline))
    assert rr.comparison is not None
    assert astuple(rr.comparison) == pytest.approx(astuple(paired(mine, theirs, seed=4)))
    assert rr.baseline_mean == pytest.approx(theirs.mean())
    assert rr.baseline_values == dict(zip(QRELS, theirs, strict=True))
    assert recall.comparison is not None
    assert both.comparison is not None
    assert both.comparison.p_permutation == both.p_holm == 1.0  # both runs find it among two
    p = [result.comparison.p_permutation for result in found.measures if result.comparison is not None]
    assert [result.p_holm for result in found.measures] == holm(np.array(p)).tolist()


def test_the_seed_decides_the_numbers() -> None:
    run = {query: [*map(str, range(number)), "a"] for number, query in enumerate(QRELS)}
    assert evaluate(run, QRELS, baseline=SECOND, seed=1) == evaluate(run, QRELS, baseline=SECOND, seed=1)
    assert evaluate(run, QRELS, seed=1).measures != evaluate(run, QRELS, seed=2).measures


def test_what_is_left_out_or_counts_nothing_is_said() -> None:
    qrels = {**QRELS, "barren": {"a": 0}, "junk": {"a": -1}}
    run = {query: PERFECT[query] for query in sorted(QRELS)[:15]} | {"q19": [], "other": ["a"], "barren": ["a"]}
    baseline = {query: SECOND[query] for query in QRELS}
    found = evaluate(run, qrels, ["RR"], baseline=baseline)
    assert found.coverage == Coverage(judged=20, answered=15, unanswered=5, without_relevant=2, unjudged=1)
    assert found.baseline_coverage == Coverage(judged=20, answered=20, unanswered=0, without_relevant=2, unjudged=0)
    assert found.measures[0].mean == pytest.approx(15 / 20)
    assert found.notes == (
        "5 judged queries are not in the run: they count 0 in every measure",
        "2 judged queries have no relevant document: they are left out",
        "1 queries of the run were judged by nobody: they are left out",
    )


def test_other_document_ids_are_noticed() -> None:
    run = {query: [f"doc-{doc_id}" for doc_id in ranking] for query, ranking in PERFECT.items()}
    found = evaluate(run, QRELS, ["RR"])
    assert found.measures[0].mean == 0.0
    assert found.notes == ("the run holds no relevant document at all: are its document ids those of the judgements?",)
    assert any(note.startswith("the baseline holds no") for note in evaluate(PERFECT, QRELS, baseline=run).notes)


def test_few_queries_are_noticed_and_one_has_no_interval() -> None:
    assert evaluate({"q": ["a"]}, {"q": {"a": 1}, "r": {"a": 1}}, ["RR"]).notes[-1].startswith("2 queries are few")
    found = evaluate({"q": ["b", "a"]}, {"q": {"a": 1}}, ["RR"], baseline={"q": ["a"]})
    assert found.notes == ("one query says nothing of others: there is no interval",)
    result = found.measures[0]
    assert (result.mean, result.baseline_mean) == (0.5, 1.0)
    assert result.interval is result.baseline_interval is result.comparison is result.p_holm is None


def test_what_cannot_be_measured_is_refused() -> None:
    with pytest.raises(CorpusError, match="none of the 2 judged queries has a relevant document"):
        evaluate(PERFECT, {"q": {"a": 0}, "r": {"a": -1}})
    for empty in ({}, {"q00": []}):
        with pytest.raises(CorpusError, match="the run is empty"):
            evaluate(empty, QRELS)
        with pytest.raises(CorpusError, match="the baseline is empty"):
            evaluate(PERFECT, QRELS, baseline=empty)
    with pytest.raises(CorpusError, match=r"the run holds queries such as '00', the judgements such as 'q00'"):
        evaluate({query[1:]: ranking for query, ranking in PERFECT.items()}, QRELS)
    with pytest.raises(RequestError, match="no measure"):
        evaluate(PERFECT, QRELS, [])
    with pytest.raises(RequestError, match="seed is -1"):
        evaluate(PERFECT, QRELS, seed=-1)
    with pytest.raises(ConfigError, match="'Quality' is unknown"):
        evaluate(PERFECT, QRELS, ["RR", "Quality"])


def test_values_are_written_one_query_a_line(tmp_path: Path) -> None:
    qrels, path = {"q 1": {"a": 1}, "é": {"a": 1}}, tmp_path / "values.jsonl"
    run = {"q 1": ["a"], "é": ["b", "a"]}
    write_values(path, evaluate(run, qrels, ["RR", "R@1"]))
    assert [json.loads(line) for line in path.read_text("utf-8").splitlines()] == [
        {"query": "q 1", "run": {"RR": 1.0, "R@1": 1.0}},
        {"query": "é", "run": {"RR": 0.5, "R@1": 0.0}},
    ]
    write_values(path, evaluate(run, qrels, ["RR"], baseline={"é": ["a"]}))
    assert [json.loads(line) for line in path.read_text("utf-8").splitlines()] == [
        {"query": "q 1", "run": {"RR": 1.0}, "baseline": {"RR": 0.0}},
        {"query": "é", "run": {"RR": 0.5}, "baseline": {"RR": 1.0}},
    ]
    with pytest.raises(StorageError):
        write_values(tmp_path / "nowhere" / "values.jsonl", evaluate(run, qrels, ["RR"]))
