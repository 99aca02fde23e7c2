"""Our measures against the engines of the field, and their traps shown beside how we avoid them.

Facts 2 to 4 of the acceptance list: equality on rank-exported runs, ties, and queries without results.
"""

import math
import random
from collections.abc import Mapping, Sequence

import ir_measures
import numpy as np
import pytest
import pytrec_eval

from evaluation.measures import mean, per_query, per_query_many

MEASURES = ["nDCG@10", "nDCG", "R@5", "R@100", "AP", "AP@10", "Rprec", "P@5", "RR", "RR@10", "Success@3"]
TREC = {
    "nDCG@10": "ndcg_cut_10",
    "nDCG": "ndcg",
    "R@5": "recall_5",
    "R@100": "recall_100",
    "AP": "map",
    "AP@10": "map_cut_10",
    "Rprec": "Rprec",
    "P@5": "P_5",
    "RR": "recip_rank",
    "Success@3": "success_3",
}

Grades = dict[str, dict[str, int]]


def randomly(seed: int, queries: int = 60) -> tuple[dict[str, list[str]], Grades]:
    """Rankings and grades 0 to 3 over 40 documents; every query is judged and has something relevant, and results."""
    rng = random.Random(seed)
    documents = [f"d{place}" for place in range(40)]
    run, qrels = {}, {}
    for number in range(queries):
        grades = {doc_id: rng.choice([0, 0, 1, 2, 3]) for doc_id in rng.sample(documents, rng.randrange(1, 25))}
        grades[rng.choice(documents)] = 1
        qrels[f"q{number:02}"] = grades
        run[f"q{number:02}"] = rng.sample(documents, rng.randrange(1, 40))
    return run, qrels


def by_rank(run: Mapping[str, Sequence[str]]) -> dict[str, dict[str, float]]:
    return {query: {doc_id: -float(rank) for rank, doc_id in enumerate(ranking)} for query, ranking in run.items()}


def test_rank_exported_runs_score_what_ir_measures_says() -> None:
    run, qrels = randomly(0)
    found = per_query_many(MEASURES, run, qrels)
    assert list(found) == MEASURES
    for name in MEASURES:
        engine = ir_measures.iter_calc([ir_measures.parse_measure(name)], qrels, by_rank(run))
        expected = {metric.query_id: metric.value for metric in engine}
        assert found[name] == pytest.approx(expected, abs=1e-9)
        assert per_query(name, run, qrels) == found[name]


def test_rank_exported_runs_score_what_trec_eval_says() -> None:
    run, qrels = randomly(1)
    engine = pytrec_eval.RelevanceEvaluator(qrels, set(TREC.values())).evaluate(by_rank(run))
    found = per_query_many(list(TREC), run, qrels)
    for name, theirs in TREC.items():
        assert found[name] == pytest.approx({query: values[theirs] for query, values in engine.items()}, abs=1e-9)


def ndcg(ranking: Sequence[str], grades: Mapping[str, int], k: int) -> float:
    def dcg(gains: Sequence[int]) -> float:
        return sum(gain / math.log2(place + 2) for place, gain in enumerate(gains[:k]))

    return dcg([grades.get(doc_id, 0) for doc_id in ranking]) / dcg(sorted(grades.values(), reverse=True))


def average_precision(ranking: Sequence[str], relevant: set[str]) -> float:
    hits = [doc_id in relevant for doc_id in ranking]
    return sum(sum(hits[: place + 1]) / (place + 1) for place, hit in enumerate(hits) if hit) / len(relevant)


def test_rank_exported_runs_score_what_the_definitions_say() -> None:
    run, qrels = randomly(2)
    found = per_query_many(["nDCG@10", "R@5", "AP", "Rprec", "RP@5", "RP@20", "Success@3"], run, qrels)
    for query, ranking in run.items():
        relevant = {doc_id for doc_id, grade in qrels[query].items() if grade > 0}

        def hits(k: int, ranking: Sequence[str] = ranking, relevant: set[str] = relevant) -> int:
            return len(relevant.intersection(ranking[:k]))

        expected = {
            "nDCG@10": ndcg(ranking, qrels[query], 10),
            "R@5": hits(5) / len(relevant),
            "AP": average_precision(ranking, relevant),
            "Rprec": hits(len(relevant)) / len(relevant),
            "RP@5": hits(5) / min(5, len(relevant)),
            "RP@20": hits(20) / min(20, len(relevant)),
            "Success@3": float(hits(3) > 0),  # what others call hit@3
        }
        assert {name: values[query] for name, values in found.items()} == pytest.approx(expected, abs=1e-9)


def test_ties_in_scores_make_engines_disagree_and_ranks_do_not() -> None:
    # Three documents of one score; the relevant one is first by our order, and last by trec_eval's (id, descending).
    qrels, tied = {"q": {"a": 1}}, {"q": {"a": 1.0, "b": 1.0, "c": 1.0}}
    raw = {
        str(metric.measure): metric.value
        for metric in ir_measures.iter_calc([ir_measures.RR, ir_measures.RR @ 10], qrels, tied)
    }
    assert raw == {"RR": pytest.approx(1 / 3), "RR@10": 1.0}
    for ranking, expected in ((["a", "b", "c"], 1.0), (["c", "b", "a"], 1 / 3), (["b", "a", "c"], 1 / 2)):
        found = per_query_many(["RR", "RR@10"], {"q": ranking}, qrels)
        assert found["RR"] == found["RR@10"] == {"q": pytest.approx(expected)}


def test_scores_that_only_float64_tells_apart_are_ties_to_trec_eval_and_ranks_are_not() -> None:
    qrels = {"q": {"a": 1}}
    close = {"q": {"a": 0.1 + 1e-11, "b": 0.1}}
    assert close["q"]["a"] > close["q"]["b"]
    assert np.float32(close["q"]["a"]) == np.float32(close["q"]["b"])
    raw = pytrec_eval.RelevanceEvaluator(qrels, {"recip_rank"}).evaluate(close)
    assert raw == {"q": {"recip_rank": 0.5}}
    assert per_query("RR", {"q": ["a", "b"]}, qrels) == {"q": 1.0}
    # Every -rank down to -2^24, deeper than any ranking, is a float32 of its own.
    ranks = np.array([1, 2, 4_095, 4_096, (1 << 24) - 1, 1 << 24], dtype=np.float64)
    assert len(np.unique((-ranks).astype(np.float32))) == len(ranks)


def test_a_pipeline_that_answers_half_the_queries_scores_half() -> None:
    qrels = {f"q{number}": {"a": 1, "b": 2} for number in range(10)}
    everything = {query: ["b", "a"] for query in qrels}
    names = [*MEASURES[:-1], "Success@3", "RP@5"]
    names = [name for name in names if name != "P@5"]  # whose best value here is 2/5
    for half in (
        {query: everything[query] for query in sorted(qrels)[:5]},
        {**everything, **{f"q{n}": [] for n in range(5)}},
    ):
        for name, values in per_query_many(names, half, qrels).items():
            assert len(values) == 10, name
            assert mean(values) == pytest.approx(0.5), name
            assert mean(per_query(name, everything, qrels)) == pytest.approx(1.0), name
    # The engine alone leaves such queries out, and the mean is of those answered.
    engine = pytrec_eval.RelevanceEvaluator(qrels, {"map"}).evaluate(by_rank({"q0": ["b", "a"]}))
    assert {query: values["map"] for query, values in engine.items()} == {"q0": 1.0}
