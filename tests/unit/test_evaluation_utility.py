"""Utilities by hand: labels, weights, anomalies, ceilings and what is refused."""

import numpy as np
import numpy.typing as npt
import pytest

from evaluation.utility import LabelKind, from_labels, from_qrels, negative_flip_rate, reordered
from evaluation.utility_items import distances, from_anomalies, from_weights
from index.errors import ConfigError, CorpusError, RequestError, ShapeError
from retrieval.types import Query


class Judged:
    """Judgements without texts."""

    def __init__(self, doc_ids: str, qrels: dict[str, dict[str, int]]) -> None:
        self.doc_ids = tuple(doc_ids)
        self.queries = tuple(Query(query, query) for query in qrels)
        self.qrels = qrels


def rows(*lines: list[int]) -> npt.NDArray[np.int64]:
    return np.array(lines, dtype=np.int64)


LABELS = np.array([0, 0, 0, 1, 1, 2], dtype=np.int64)
QUERY_LABELS = np.array([0, 2], dtype=np.int64)


def test_capped_recall_divides_by_what_the_places_can_hold() -> None:
    task = Judged("abcde", {"many": {"a": 1, "b": 1, "c": 2}, "one": {"e": 1}})
    capped, plain = from_qrels("RP@2", task), from_qrels("R@2", task)
    found = rows([0, 3], [3, 4])
    assert capped(found).tolist() == [1 / 2, 1.0]
    assert plain(found).tolist() == [1 / 3, 1.0]
    assert capped.ceiling.tolist() == [1.0, 1.0]
    assert plain.ceiling.tolist() == [2 / 3, 1.0]


def test_padding_and_repetitions_hold_nothing() -> None:
    task = Judged("abc", {"q": {"a": 1, "b": 1}})
    recall = from_qrels("R@3", task)
    assert recall.gains(rows([0, 0, -1])).tolist() == [[1.0, 0.0, 0.0]]
    assert recall(rows([0, 0, 0])).tolist() == [0.5]
    assert from_qrels("R@2", task)(rows([0, 0, -1, 1])).tolist() == [1.0]
    assert recall(rows([-1, -1, -1])).tolist() == [0.0]
    assert recall(np.empty((1, 0), np.int64)).tolist() == [0.0]


@pytest.mark.parametrize("measure", ["nDCG@3", "R@3", "RP@3", "AP", "RR", "Rprec", "Success@3", "Hit@3"])
def test_answers_to_half_of_the_queries_are_worth_half(measure: str) -> None:
    task = Judged("ab", {name: {"a": 1, "b": 1} for name in "wxyz"})
    utility = from_qrels(measure, task)
    nothing = [-1, -1]
    assert utility(rows([0, 1], nothing, [1, 0], nothing)).tolist() == [1.0, 0.0, 1.0, 0.0]
    assert utility(np.empty((4, 0), np.int64)).tolist() == [0.0] * 4


def test_a_measure_reads_no_further_than_its_cut() -> None:
    task = Judged("abc", {"q": {"c": 1}})
    found = rows([0, 1, 2])
    assert from_qrels("Hit@2", task)(found).tolist() == [0.0]
    assert from_qrels("Hit@3", task)(found).tolist() == [1.0]
    assert (from_qrels("Hit@2", task).depth, from_qrels("AP", task).depth) == (2, None)


def test_a_perfect_order_puts_the_highest_gain_first_and_keeps_the_rest_in_order() -> None:
    task = Judged("abcde", {"q": {"c": 1, "d": 3}})
    utility = from_qrels("nDCG@5", task)
    assert reordered(utility, rows([0, 2, 1, 3, -1])).tolist() == [[3, 2, 0, 1, -1]]
    assert utility(reordered(utility, rows([0, 2, 1, 3, -1]))).tolist() == [1.0]


@pytest.mark.parametrize("measure", ["nDCG@0", "R", "RP", "P", "Hit", "Rprec@5", "ndcg@10", "nDCG@10 R@5", "", "F@1"])
def test_unknown_measures_are_refused(measure: str) -> None:
    with pytest.raises(ConfigError, match="is unknown: use"):
        from_qrels(measure, Judged("a", {"q": {"a": 1}}))


def test_judgements_that_make_a_measure_undefined_are_refused() -> None:
    with pytest.raises(CorpusError, match="'q' is judged on unknown documents \\['x'\\]"):
        from_qrels("R@1", Judged("a", {"q": {"x": 1}}))
    with pytest.raises(CorpusError, match="no query of 1 has a relevant document"):
        from_qrels("R@1", Judged("a", {"q": {"a": 0}}))


@pytest.mark.parametrize(
    "wrong", [rows([0, 6]), rows([-2]), rows([0], [0], [0]), np.array([[0.0], [1.0]]), np.array([0, 1])]
)
def test_rows_of_another_shape_or_corpus_are_refused(wrong: npt.NDArray[np.int64]) -> None:
    with pytest.raises(ShapeError):
        from_labels("hit", LABELS, QUERY_LABELS, 2)(wrong)


@pytest.mark.parametrize(
    ("kind", "values", "ceiling"),
    [
        # Top 4 of query 0: labels 0 1 0 1, a tie that the best-ranked label wins; of query 1: 1 2 and padding.
        ("label-precision", [2 / 4, 1 / 4], [3 / 4, 1 / 4]),
        ("label-recall-macro", [2 / 3, 1.0], [1.0, 1.0]),
        ("label-recall-micro", [2 / 2, 1 / 2], [3 / 2, 1 / 2]),
        ("hit", [1.0, 1.0], [1.0, 1.0]),
        ("knn-accuracy", [1.0, 0.0], [1.0, 1.0]),
    ],
)
def test_label_kinds(kind: LabelKind, values: list[float], ceiling: list[float]) -> None:
    utility = from_labels(kind, LABELS, QUERY_LABELS, 4)
    assert utility(rows([0, 3, 1, 4, 2], [3, 5, -1, -1, -1])).tolist() == values
    assert utility.ceiling.tolist() == ceiling
    assert utility.name == f"{kind}@4"


def test_micro_recall_is_hits_over_what_could_be_hit() -> None:
    # Iceberg's figure: (2 + 1) hits of min(4, 3) + min(4, 1) possible.
    assert from_labels("label-recall-micro", LABELS, QUERY_LABELS, 4)(
        rows([0, 3, 1, 4], [3, 5, -1, -1])
    ).mean() == pytest.approx(3 / 4)


def test_a_vote_counts_a_repeated_document_once_and_padding_never() -> None:
    accuracy = from_labels("knn-accuracy", LABELS, np.array([1, 1], np.int64), 5)
    assert accuracy(rows([0, 0, 0, 3, 4], [3, -1, -1, -1, -1])).tolist() == [1.0, 1.0]
    assert accuracy(rows([0, 1, 3, -1, -1], [-1, -1, -1, -1, -1])).tolist() == [0.0, 0.0]


def test_labels_that_make_a_measure_undefined_are_refused() -> None:
    with pytest.raises(CorpusError, match="query 1 has label 7"):
        from_labels("hit", LABELS, np.array([0, 7], np.int64), 3)
    with pytest.raises(CorpusError, match="query 0 has label 0"):
        from_labels("hit", LABELS[:0], QUERY_LABELS, 3)
    with pytest.raises(RequestError, match="k is 0"):
        from_labels("hit", LABELS, QUERY_LABELS, 0)
    with pytest.raises(ConfigError, match="'precision' is unknown"):
        from_labels("precision", LABELS, QUERY_LABELS, 3)  # type: ignore[arg-type]


def test_matching_counts_a_repeated_item_once() -> None:
    items = np.array([10, 10, 20, 30], dtype=np.int64)  # two documents show item 10
    weights = [{10: 4.0, 20: 1.0, 99: 5.0}, {30: 2.0}]
    found = rows([0, 1], [0, 3])
    micro, macro = from_weights(weights, items, 2), from_weights(weights, items, 2, "macro")
    assert macro(found).tolist() == [4 / 10, 1.0]
    assert micro(found).mean() == pytest.approx((4 + 2) / 12)
    assert macro.ceiling.tolist() == [5 / 10, 1.0]  # item 99 is wanted, but not there
    assert from_weights(weights, items, 1, "macro").ceiling.tolist() == [4 / 10, 1.0]


@pytest.mark.parametrize("weights", [[{}], [{10: 0.0}], [{10: -1.0, 20: 3.0}], [{10: float("nan")}], []])
def test_weights_that_make_the_score_undefined_are_refused(weights: list[dict[int, float]]) -> None:
    with pytest.raises(CorpusError, match="weights"):
        from_weights(weights, np.array([10, 20], np.int64), 2)


def test_anomalies_are_found_by_their_distance() -> None:
    documents = np.array([[0, 0], [1, 0], [0, 1]], dtype=np.float32)
    queries = np.array([[0, 0], [3, 4], [0, 2]], dtype=np.float32)
    anomalous = np.array([False, True, True])
    utility = from_anomalies(documents, queries, anomalous, threshold=2.0, k=2)
    found = rows([0, 1], [0, 1], [2, -1])
    assert distances(documents, queries, found)[1, 0] == 5.0
    assert utility(found).tolist() == [0.0, 1.5, 0.0]  # the share of anomalies found is the mean: 1 of 2
    assert utility(found).mean() == 1 / 2
    assert utility.ceiling.mean() == 1.0
    assert utility(rows([-1, -1], [-1, -1], [-1, -1])).tolist() == [0.0, 0.0, 0.0]
    with pytest.raises(CorpusError, match="none of 3 queries is an anomaly"):
        from_anomalies(documents, queries, np.zeros(3, np.bool_), 2.0, 2)
    with pytest.raises(RequestError, match="threshold is nan"):
        from_anomalies(documents, queries, anomalous, float("nan"), 2)


def test_negative_flips_are_queries_that_were_right_and_are_wrong() -> None:
    before, after = np.array([1.0, 1.0, 0.0, 0.5]), np.array([1.0, 0.0, 1.0, 0.0])
    assert negative_flip_rate(before, after) == 1 / 4
    assert negative_flip_rate(before, after, correct=0.5) == 2 / 4
    with pytest.raises(RequestError, match="expected the same"):
        negative_flip_rate(before, after[:2])
