"""Recall against brute force over Python sets, and a fixture of duplicates where the two recalls differ (fact 1)."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluation.ground_truth import exact_truth
from evaluation.recall import Truth, distance_recall, exact_scores, id_recall, inverse_ratio, slack, tied_recall
from index.errors import CorpusError, RequestError, ShapeError
from index.metric import Metric, prepare
from index.types import Vectors


def truth_of(rows: list[list[int]], scores: list[list[float]]) -> Truth:
    return Truth(np.array(rows), np.array(scores, np.float64), np.full(len(rows), 1e-9))


def score(vector: Vectors, query: Vectors, metric: Metric) -> float:
    vector, query = vector.astype(np.float64), query.astype(np.float64)
    if metric == "cosine":
        norms = np.linalg.norm(vector) * np.linalg.norm(query)
        return float(vector @ query / norms) if norms else 0.0
    return float(vector @ query) if metric == "ip" else -float(((vector - query) ** 2).sum())


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    metric=st.sampled_from(["cosine", "ip", "l2"]),
    k=st.integers(1, 8),
    integral=st.booleans(),
)
def test_recalls_equal_brute_force(seed: int, metric: Metric, k: int, integral: bool) -> None:
    rng = np.random.default_rng(seed)
    # Integers make ties, as duplicates do.
    values = rng.integers(-1, 2, (30, 4)) if integral else rng.normal(size=(30, 4))
    vectors, queries = values.astype(np.float32), values[:6].astype(np.float32)
    found = np.stack([rng.permutation(np.r_[rng.permutation(30)[:6], -1, -1]) for _ in range(6)])
    truth = exact_truth(vectors, queries, metric, 8)
    scores = exact_scores(prepare(vectors, metric), prepare(queries, metric), found, metric)
    by_id, tied = id_recall(found, truth, k), tied_recall(found, scores, truth, k)
    for number, query in enumerate(queries):
        all_scores = [score(vector, query, metric) for vector in vectors]
        best = sorted(all_scores, reverse=True)
        mine = {row for row in found[number, :k].tolist() if row >= 0}
        exact = set(truth.rows[number, :k].tolist())
        assert min(all_scores[row] for row in exact) == pytest.approx(best[k - 1], abs=1e-5)
        assert by_id[number] == pytest.approx(len(mine & exact) / k, abs=1e-9)
        near = [row for row in mine if all_scores[row] >= best[k - 1] - 1e-6]
        assert tied[number] == pytest.approx(len(near) / k, abs=1e-9)
    assert (tied >= by_id).all()


def test_duplicates_separate_the_two_recalls_as_predicted() -> None:
    # Ten vectors, each five times. The exact 3 nearest are the three lowest copies; who returns others of the same five
    # has missed none of the nearest vectors, and by id all that are not among the three lowest.
    rng = np.random.default_rng(0)
    vectors = np.repeat(rng.normal(size=(10, 8)).astype(np.float32), 5, axis=0)
    queries = vectors[::5] + np.float32(0.01) * rng.normal(size=(10, 8)).astype(np.float32)
    truth = exact_truth(vectors, queries, "l2", 3)
    assert truth.rows.tolist() == [[5 * number, 5 * number + 1, 5 * number + 2] for number in range(10)]
    found = truth.rows[:, :1] + np.array([2, 3, 4])
    scores = exact_scores(vectors, queries, found, "l2")
    assert id_recall(found, truth, 3) == pytest.approx(np.full(10, 1 / 3), abs=1e-9)
    assert tied_recall(found, scores, truth, 3) == pytest.approx(np.ones(10), abs=1e-9)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_padding_never_changes_recall(data: st.DataObject) -> None:
    k = 4
    exist = data.draw(st.integers(1, k))
    rows = data.draw(st.permutations(range(9)))[:exist]
    truth = truth_of([[*rows, *[-1] * (6 - exist)]], [[*(9.0 - np.arange(exist)), *[-np.inf] * (6 - exist)]])
    found = data.draw(st.lists(st.integers(0, 8), unique=True, max_size=k))
    value_of = dict(zip(rows, truth.scores[0], strict=False))

    def both(found: list[int]) -> tuple[float, float]:
        array = np.array([found], dtype=np.int64).reshape(1, -1)
        scores = np.array([[value_of.get(row, 0.0) if row >= 0 else -np.inf for row in found]]).reshape(1, -1)
        return float(id_recall(array, truth, k)[0]), float(tied_recall(array, scores, truth, k)[0])

    expected = len(set(found) & set(rows)) / exist
    assert both(found) == pytest.approx((expected, expected), abs=1e-9)
    assert both([*found, *[-1] * (k - len(found))]) == both(found)
    assert both([*found, *[-1] * 20]) == both(found)


def test_a_row_returned_twice_counts_once() -> None:
    truth = truth_of([[1, 2]], [[3.0, 2.0]])
    found, scores = np.array([[1, 1]]), np.array([[3.0, 3.0]])
    assert id_recall(found, truth, 2).tolist() == [0.5]
    assert tied_recall(found, scores, truth, 2).tolist() == [0.5]


def test_distance_form_of_ann_benchmarks() -> None:
    truth = np.array([[1.0, 2.0, 4.0]])
    assert distance_recall(np.array([[1.0, 2.0009, 4.0]]), truth, 2).tolist() == [1.0]
    assert distance_recall(np.array([[1.0, 2.0011, 4.0]]), truth, 2).tolist() == [0.5]
    assert distance_recall(np.array([[1.0, 2.15, np.inf]]), truth, 2, 0.1, relative=True).tolist() == [1.0]
    assert distance_recall(np.array([[1.0, 2.25, np.inf]]), truth, 3, 0.1, relative=True).tolist() == [2 / 3]
    with pytest.raises(RequestError, match="NaN"):
        distance_recall(np.array([[np.nan]]), truth[:, :1], 1)


def test_inverse_ratio_by_hand() -> None:
    # Exact distances 1 and 2; found 2 and 2: the mean ratio is (2 + 1) / 2.
    truth = truth_of([[0, 1]], [[-1.0, -4.0]])
    assert inverse_ratio(np.array([[-4.0, -4.0]]), truth, 2, "l2").tolist() == [pytest.approx(2 / 3)]
    assert inverse_ratio(np.array([[-1.0, -4.0]]), truth, 2, "l2").tolist() == [1.0]
    assert inverse_ratio(np.array([[-1.0, -np.inf]]), truth, 2, "l2").tolist() == [0.0]
    assert inverse_ratio(np.array([[-1.0]]), truth, 2, "l2").tolist() == [0.0]
    # A copy of the query is found, and then it is not.
    copy = truth_of([[0, 1]], [[0.0, -4.0]])
    assert inverse_ratio(np.array([[0.0, -16.0]]), copy, 2, "l2").tolist() == [pytest.approx(2 / 3)]
    assert inverse_ratio(np.array([[-4.0, -4.0]]), copy, 2, "l2").tolist() == [0.0]
    # One neighbour exists: the second place does not count.
    one = truth_of([[0, -1]], [[-1.0, -np.inf]])
    assert inverse_ratio(np.array([[-4.0, -np.inf]]), one, 2, "l2").tolist() == [0.5]
    # Cosine .5 is the distance 1 of unit vectors, cosine -1 is 2.
    cosine = truth_of([[0]], [[0.5]])
    assert inverse_ratio(np.array([[-1.0]]), cosine, 1, "cosine").tolist() == [pytest.approx(0.5)]
    with pytest.raises(RequestError, match="use cosine or l2"):
        inverse_ratio(np.array([[-1.0]]), cosine, 1, "ip")


def test_what_is_undefined_is_refused() -> None:
    none = truth_of([[-1, -1]], [[-np.inf, -np.inf]])
    with pytest.raises(CorpusError, match="query 0 has no exact neighbour"):
        id_recall(np.array([[1]]), none, 2)
    truth = truth_of([[1, 2]], [[3.0, 2.0]])
    with pytest.raises(ShapeError, match="k is 3"):
        id_recall(np.array([[1]]), truth, 3)
    with pytest.raises(ShapeError, match="as many queries"):
        id_recall(np.array([[1], [1]]), truth, 1)
    with pytest.raises(ShapeError, match="expected the same"):
        tied_recall(np.array([[1]]), np.array([[1.0, 2.0]]), truth, 1)
    with pytest.raises(ShapeError, match="each below 3"):
        exact_scores(np.ones((3, 2), np.float32), np.ones((1, 2), np.float32), np.array([[3]]), "ip")


def test_slack_grows_with_lengths_and_scores() -> None:
    queries = np.array([[3, 4], [0, 0]], np.float32)
    assert slack(queries, np.array([[7.0, -np.inf], [-50.0, 2]])) == pytest.approx([25e-5, 50e-5])
