"""Measures by hand: a query without results counts 0, and our order is the ranking."""

import math
import random
from typing import Any

import pytest

from evaluation.measures import check_measures, mean, per_query, per_query_many, run_of
from index.errors import ConfigError, CorpusError
from retrieval.types import Hit, Passage, Ranking


def hit(doc_id: str, score: float | None = 1.0) -> Hit:
    return Hit(doc_id, Passage(doc_id, 0, 0, 0, ""), score, "test")


def test_graded_gain_is_discounted_by_rank() -> None:
    # DCG 1/log2(2) + 0/log2(3) + 3/log2(4) = 2.5; ideal 3/log2(2) + 1/log2(3).
    values = per_query("nDCG@10", {"q": ["b", "x", "a"]}, {"q": {"a": 3, "b": 1, "c": 0}})
    assert values == {"q": pytest.approx(2.5 / (3 + 1 / math.log2(3)))}


def test_a_query_without_results_counts_nothing() -> None:
    qrels = {"found": {"a": 1}, "empty": {"a": 1}, "absent": {"a": 1}}
    values = per_query("nDCG@10", {"found": ["a"], "empty": []}, qrels)
    assert values == {"absent": 0.0, "empty": 0.0, "found": 1.0}
    assert mean(values) == pytest.approx(1 / 3)
    assert per_query("nDCG@10", {}, qrels) == {"absent": 0.0, "empty": 0.0, "found": 0.0}


def test_queries_that_nobody_judged_do_not_count() -> None:
    assert per_query("nDCG@10", {"judged": ["a"], "other": ["a"]}, {"judged": {"a": 1}}) == {"judged": 1.0}


def test_a_query_with_nothing_relevant_counts_nothing() -> None:
    values = per_query("nDCG@10", {"q": ["a", "b"], "r": ["a"]}, {"q": {"a": 0, "b": 0}, "r": {"a": 1}})
    assert values == {"q": 0.0, "r": 1.0}


def test_queries_come_in_order_of_their_ids() -> None:
    qrels = {query: {"a": 1} for query in ("q10", "q2", "é", "A", "q 1")}
    assert list(per_query("RR@10", {query: ["a"] for query in qrels}, qrels)) == sorted(qrels)


@pytest.mark.parametrize(
    ("measure", "expected"),
    [
        ("nDCG@1", 0.0),
        ("nDCG@2", (1 / math.log2(3)) / (2 + 1 / math.log2(3))),
        ("P@2", 1 / 2),
        ("R@2", 1 / 3),
        ("R@100", 2 / 3),
        ("RR@10", 1 / 2),
        ("RR@1", 0.0),
        ("AP@100", (1 / 2 + 2 / 4) / 3),
        ("Success@1", 0.0),
        ("Success@2", 1.0),
    ],
)
def test_measures_by_hand(measure: str, expected: float) -> None:
    # Ranks: x 1, b 2, y 3, a 4; relevant: a (2), b (1), c (1), where c was not found.
    values = per_query(measure, {"q": ["x", "b", "y", "a"]}, {"q": {"a": 2, "b": 1, "c": 1, "x": 0}})
    assert values == {"q": pytest.approx(expected)}


def test_only_the_first_ten_count_at_ten() -> None:
    fillers = [f"x{number}" for number in range(9)]
    qrels = {"q": {"a": 1}}
    assert per_query("nDCG@10", {"q": [*fillers, "a"]}, qrels) == {"q": pytest.approx(1 / math.log2(11))}
    assert per_query("nDCG@10", {"q": [*fillers, "y", "a"]}, qrels) == {"q": 0.0}


def test_the_order_given_is_the_ranking_whatever_the_scores() -> None:
    rankings = [Ranking("q", (hit("z", 1.0), hit("a", 1.0), hit("m", None))), Ranking("r", ())]
    run = run_of(rankings)
    assert run == {"q": ["z", "a", "m"], "r": []}
    # Engines that sort equal scores by id would put a first, or z by a descending order of ids.
    assert per_query("RR@10", run, {"q": {"a": 1}}) == {"q": 0.5}
    assert per_query("RR@10", run, {"q": {"z": 1}}) == {"q": 1.0}
    assert per_query("RR@10", run, {"q": {"m": 1}}) == {"q": pytest.approx(1 / 3)}


def test_long_rankings_keep_their_order() -> None:
    documents = [f"d{number}" for number in range(20_000)]
    random.Random(0).shuffle(documents)
    values = per_query("RR", {"q": documents}, {"q": {documents[17_776]: 1}})
    assert values == {"q": pytest.approx(1 / 17_777)}


def test_random_rankings_agree_with_the_definition() -> None:
    rng = random.Random(3)
    run, qrels, expected = {}, {}, {}
    for number in range(50):
        documents = [f"d{place}" for place in range(30)]
        grades = {doc_id: rng.choice([0, 0, 1, 2, 3]) for doc_id in rng.sample(documents, rng.randrange(1, 20))}
        ranking = rng.sample(documents, rng.randrange(30))
        gains = [grades.get(doc_id, 0) for doc_id in ranking[:10]]
        ideal = sorted(grades.values(), reverse=True)[:10]
        best = sum(gain / math.log2(place + 2) for place, gain in enumerate(ideal))
        found = sum(gain / math.log2(place + 2) for place, gain in enumerate(gains))
        run[f"q{number}"], qrels[f"q{number}"] = ranking, grades
        expected[f"q{number}"] = pytest.approx(found / best if best else 0.0)
    assert per_query("nDCG@10", run, qrels) == expected


@pytest.mark.parametrize(
    "measure",
    [
        "",
        "ndcg_at_10",
        "Quality@10",
        "nDCG@ten",
        "nDCG@",
        "nDCG 10",
        "1",
        "open('x')",
        # trec_eval ends the process at nDCG@0, and others divide by zero or answer something
        "nDCG@0",
        "nDCG@-5",
        "RR@0",
        "Judged@0",
        "P@True",
        "P@2.5",
        "P@1000000000",
        "nDCG@99999999999999999999",
        "P",
        "nDCG(foo=1)@10",
        "AP(rel=0)",
        "AP(rel=True)",
        "nDCG(dcg='exp-log2')@10",
        "nDCG(gains={1:1e308})@10",
        "nDCG(gains={1:1000000000})@10",
        "nDCG(gains='high')@10",
        "ERR@10",
        "RP",
        "RP@0",
        "RP@-1",
        "RP@ten",
        "RP@9999999",
        "RP(rel=2)@10",
    ],
)
def test_unknown_measures_are_refused(measure: str) -> None:
    with pytest.raises(ConfigError, match="measure"):
        per_query(measure, {"q": ["a"]}, {"q": {"a": 1}})
    with pytest.raises(ConfigError, match="measure"):
        check_measures(["AP", measure])


def test_gains_may_be_other_than_grades() -> None:
    qrels = {"q": {"a": 1, "b": 2}}
    second = 1 / math.log2(3)
    assert per_query("nDCG@2", {"q": ["a", "b"]}, qrels)["q"] == pytest.approx((1 + 2 * second) / (2 + second))
    found = per_query("nDCG(gains={1:1,2:8})@2", {"q": ["a", "b"]}, qrels)["q"]
    assert found == pytest.approx((1 + 8 * second) / (8 + second))


def test_a_level_that_no_document_reaches_is_refused() -> None:
    qrels = {"q": {"a": 2}, "r": {"a": 1}}
    assert per_query("R(rel=2)@10", {"q": ["a"], "r": ["a"]}, qrels) == {"q": 1.0, "r": 0.0}
    with pytest.raises(CorpusError, match="no document is judged 3 or higher, the highest is 2"):
        per_query("R(rel=3)@10", {"q": ["a"]}, qrels)


def test_known_measures_are_known_before_anything_is_measured() -> None:
    check_measures(
        ["nDCG@10", "nDCG(gains={1:3})", "nDCG", "RR", "AP(rel=2)", "Rprec", "IPrec@0.1", "Judged@10", "Bpref", "RP@10"]
    )


def test_several_measures_in_one_pass_are_each_alone() -> None:
    run, qrels = {"q": ["x", "b", "y", "a"], "r": []}, {"r": {"a": 1}, "q": {"a": 2, "b": 1, "c": 1, "x": 0}}
    names = ["nDCG@10", "RP@2", "RR@10", "RR", "AP(rel=2)", "Judged@2", "Recall@2", "R@2", "AP", "RP@2"]
    found = per_query_many(names, run, qrels)
    assert list(found) == list(dict.fromkeys(names))
    assert all(list(values) == ["q", "r"] for values in found.values())
    assert found == {name: per_query(name, run, qrels) for name in names}
    assert found["Recall@2"] == found["R@2"] == {"q": pytest.approx(1 / 3), "r": 0.0}
    assert found["AP(rel=2)"] == {"q": 1 / 4, "r": 0.0}
    assert per_query_many([], run, qrels) == {}


@pytest.mark.parametrize(
    ("ranking", "expected"),
    [
        ("abcd", {"RP@1": 1.0, "RP@3": 1.0, "RP@10": 1.0}),
        ("xabc", {"RP@1": 0.0, "RP@3": 2 / 3, "RP@10": 1.0}),  # three are relevant: at most three can be found
        ("xyza", {"RP@1": 0.0, "RP@3": 0.0, "RP@10": 1 / 3}),
        ("aab", {"RP@1": 1.0, "RP@3": 2 / 3, "RP@10": 2 / 3}),  # found twice is found once
        ("", {"RP@1": 0.0, "RP@3": 0.0, "RP@10": 0.0}),
    ],
)
def test_capped_r_precision_by_hand(ranking: str, expected: dict[str, float]) -> None:
    qrels = {"q": {"a": 1, "b": 3, "c": 1, "d": 0, "x": -1}}
    found = per_query_many(list(expected), {"q": list(ranking)}, qrels)
    assert {name: values["q"] for name, values in found.items()} == pytest.approx(expected)
    assert per_query("RP@3", {"q": ["d"]}, {"q": {"d": 0}}) == {"q": 0.0}


def test_a_document_that_comes_twice_counts_where_it_comes_first() -> None:
    for name, expected in (("RR", 1.0), ("P@2", 1.0), ("AP", 1.0), ("RP@2", 1.0)):
        assert per_query(name, {"q": ["a", "a", "b"]}, {"q": {"a": 1, "b": 1}}) == {"q": expected}


@pytest.mark.parametrize("grade", [1_000_001, -1_000_001, 10**9, 10**20])
def test_grades_that_would_silently_break_the_engine_are_refused(grade: int) -> None:
    with pytest.raises(CorpusError, match="grade of document 'a' for query 'q'"):
        per_query("nDCG@10", {"q": ["a"]}, {"q": {"a": grade}})


@pytest.mark.parametrize(
    ("run", "qrels"),
    [
        ({"q": ["a\0b"]}, {"q": {"a": 1}}),  # to trec_eval the same document
        ({"q": ["a"]}, {"q": {"a\0": 1}}),
        ({"q\0": ["a"]}, {"q\0": {"a": 1}}),
    ],
)
def test_ids_that_the_engine_would_cut_off_are_refused(run: dict[str, list[str]], qrels: dict[str, Any]) -> None:
    with pytest.raises(CorpusError, match="holds a NUL character"):
        per_query("nDCG@10", run, qrels)


def test_negative_grades_are_not_relevant() -> None:
    qrels = {"q": {"a": 1, "junk": -2}}
    assert per_query("nDCG@10", {"q": ["junk", "a"]}, qrels) == {"q": pytest.approx(1 / math.log2(3))}
    assert per_query("R@1", {"q": ["junk", "a"]}, qrels) == {"q": 0.0}


def test_nothing_judged_has_no_mean() -> None:
    assert per_query("nDCG@10", {"q": ["a"]}, {}) == {}
    assert mean({}) == 0.0
