"""Probes on small fixtures whose answer is known."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pytest

from evaluation.probes import IndexSearch, TaskVectors, exact_search, probe_row
from evaluation.probes_corpus import (
    dimension_truncation,
    hubness,
    imbalance,
    mixed_encoders,
    near_duplicates,
    without_self,
    zipf_sizes,
)
from evaluation.probes_filters import filters
from evaluation.probes_queries import mahalanobis, mmd, out_of_distribution, popularity_deciles
from evaluation.recall import first_of_each
from index.bitmap import unpack
from index.errors import RequestError, ShapeError
from index.spec import IndexSpec
from index.types import Bitmap, Rows, Vectors

CLASSES, EACH, DIM = 10, 30, 16
LABELS = np.repeat(np.arange(CLASSES), EACH)
QUERY_LABELS = np.tile(np.arange(CLASSES), 4)


@dataclass(frozen=True)
class LabelPrecision:
    """Share of the k results that have the query's label, written without numpy's tricks."""

    labels: npt.NDArray[np.int64]
    name: str = "label precision"
    depth: None = None

    @property
    def ceiling(self) -> npt.NDArray[np.float64]:
        return np.ones(len(QUERY_LABELS))

    def gains(self, rows: Rows) -> npt.NDArray[np.float64]:
        result = np.zeros(rows.shape)
        for query, found in enumerate(rows):
            for place, row in enumerate(found):
                fresh = row >= 0 and row not in found[:place]
                result[query, place] = float(fresh and self.labels[row] == QUERY_LABELS[query])
        return result

    def __call__(self, rows: Rows) -> npt.NDArray[np.float64]:
        assert len(rows) == len(QUERY_LABELS)
        return self.gains(rows).mean(axis=1)


UTILITY = LabelPrecision(LABELS)


def made(seed: int, noise: float = 0.25) -> TaskVectors:
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(CLASSES, DIM))
    documents = centres[LABELS] + noise * rng.normal(size=(len(LABELS), DIM))
    queries = centres[QUERY_LABELS] + noise * rng.normal(size=(len(QUERY_LABELS), DIM))
    return TaskVectors(documents.astype(np.float32), queries.astype(np.float32), "cosine", 10)


DATA = made(0)
EXACT = exact_search("cosine")


def test_queries_pulled_away_lose_utility_and_leave_the_distribution() -> None:
    rows = out_of_distribution(DATA, UTILITY, EXACT, shares=(0.0, 0.3, 0.7))
    assert [row.setting["share"] for row in rows] == [0.0, 0.3, 0.7]
    assert rows[0].mean == pytest.approx(UTILITY(EXACT(DATA.documents, DATA.queries, 10)).mean())
    assert rows[0].mean > 0.95
    assert rows[2].mean < 0.4
    assert all(row.measures["recall"] == 1 for row in rows)
    far = DATA.queries + 10
    (_, foreign) = out_of_distribution(DATA, UTILITY, EXACT, shares=(0.0,), foreign=far)
    assert foreign.setting == {"share": "foreign"}
    assert foreign.measures["mahalanobis"] > 5
    assert foreign.measures["mmd"] > rows[0].measures["mmd"] + 0.2


def test_a_query_is_never_pulled_toward_a_near_neighbour() -> None:
    # All of the query but its direction goes: at share 1 it is the document, which then is its nearest.
    data = TaskVectors(DATA.documents, DATA.queries, "l2", 1)
    pulled: list[Rows] = []

    def recording(documents: Vectors, queries: Vectors, k: int, allowed: Bitmap | None = None) -> Rows:
        pulled.append(exact_search("cosine")(documents, queries, k, allowed))
        return pulled[-1]

    out_of_distribution(data, UTILITY, recording, shares=(1.0,), seed=3)
    near = exact_search("l2")(DATA.documents, DATA.queries, 100)
    assert not (pulled[0] == near).any()


def test_mahalanobis_by_hand() -> None:
    documents = np.array([[0, 0, 7], [2, 4, 7]], np.float32)  # mean 1, 2; deviations 1, 2; the third does not vary
    assert mahalanobis(np.array([[2, 2, 0], [1, 6, 7]], np.float32), documents) == pytest.approx([0.5**0.5, 2**0.5])
    with pytest.raises(RequestError, match="do not vary"):
        mahalanobis(documents, documents[:1])


def test_mmd_equals_its_definition_and_is_small_within_a_distribution() -> None:
    rng = np.random.default_rng(0)
    left, right = rng.normal(size=(6, 3)).astype(np.float32), rng.normal(size=(5, 3)).astype(np.float32) + 1
    pooled = np.concatenate([left, right]).astype(np.float64)
    squared = [[float(((a - b) ** 2).sum()) for b in pooled] for a in pooled]
    width = np.median([squared[i][j] for i in range(11) for j in range(i + 1, 11)])
    kernel = [[np.exp(-value / width) for value in line] for line in squared]
    expected = (
        sum(kernel[i][j] for i in range(6) for j in range(6) if i != j) / 30
        + sum(kernel[i][j] for i in range(6, 11) for j in range(6, 11) if i != j) / 20
        - 2 * sum(kernel[i][j] for i in range(6) for j in range(6, 11)) / 30
    )
    assert mmd(left, right, seed=0) == pytest.approx(expected, rel=1e-6)
    same = rng.normal(size=(400, 3)).astype(np.float32)
    assert abs(mmd(same[:200], same[200:], seed=0)) < 0.02
    with pytest.raises(RequestError, match="no width"):
        mmd(np.ones((3, 2), np.float32), np.ones((3, 2), np.float32), seed=0)


def test_popularity_deciles() -> None:
    wanted = np.arange(40.0)
    rows = popularity_deciles(DATA, UTILITY, EXACT, wanted)
    assert [row.setting["decile"] for row in rows] == [*map(float, range(1, 11)), "weighted"]
    assert (rows[0].measures["least"], rows[-2].measures["most"]) == (0, 39)
    values = UTILITY(EXACT(DATA.documents, DATA.queries, 10))
    assert rows[0].values.tolist() == values[:4].tolist()
    assert rows[-1].mean == pytest.approx((values * wanted).sum() / wanted.sum())
    for bad in (wanted[:5], -wanted, 0 * wanted, wanted + np.inf):
        with pytest.raises(RequestError):
            popularity_deciles(DATA, UTILITY, EXACT, bad)


def test_a_common_mean_makes_hubs_under_inner_product_only() -> None:
    # A cone: documents that lie further along the common mean win for every query.
    shifted = TaskVectors(DATA.documents + 20, DATA.queries + 20, "ip", 10)
    product, distance = hubness(shifted, UTILITY, {"ip": exact_search("ip"), "l2": exact_search("l2")})
    assert product.setting == {"metric": "ip"}
    assert product.measures["skew"] > 3 * max(1.0, distance.measures["skew"])
    assert product.measures["gini"] > 0.9
    assert product.measures["anti_hubs"] > 0.5 > distance.measures["anti_hubs"]
    assert product.mean < 0.5 < distance.mean
    with pytest.raises(RequestError, match="k < 5"):
        hubness(TaskVectors(DATA.documents[:5], DATA.queries, "ip", 5), UTILITY, {"ip": EXACT})


def test_without_self() -> None:
    rows = np.array([[7, 1, 2], [1, 7, 2], [1, 2, 3]])
    assert without_self(rows, np.array([7, 7, 7])).tolist() == [[1, 2], [1, 2], [1, 2]]


def test_zipf_sizes_by_hand() -> None:
    # s = 1 over sizes 60, 60, 60: weights 6/11, 3/11, 2/11; the first class allows a sum of 110, equal shares 180.
    equal, zipf = zipf_sizes(np.array([60, 60, 60]), (0.0, 1.0))
    assert zipf.tolist() == [60, 30, 20]
    assert equal.tolist() == [36, 36, 36]
    assert zipf_sizes(np.array([100, 1]), (0.0,))[0].tolist() == [1, 1]


def test_imbalance_keeps_the_number_of_documents() -> None:
    kept: list[Rows] = []

    def utility_of(rows: Rows) -> LabelPrecision:
        kept.append(rows)
        return LabelPrecision(LABELS[rows])

    rows = imbalance(DATA, utility_of, EXACT, labels=LABELS, exponents=(0.0, 1.0))
    sizes = [np.bincount(LABELS[each], minlength=CLASSES) for each in kept]
    assert all((np.diff(each) > 0).all() for each in kept)
    assert sizes[0].min() == sizes[0].max() == rows[0].measures["most"]
    assert sizes[1].max() == EACH
    assert abs(len(kept[0]) - len(kept[1])) <= CLASSES
    assert rows[1].mean < rows[0].mean  # a class of three cannot fill ten places
    with pytest.raises(ShapeError, match="one for each"):
        imbalance(DATA, utility_of, EXACT, labels=LABELS[1:])


def test_dimension_truncation() -> None:
    rows = dimension_truncation(DATA, UTILITY, EXACT, dims=(DIM, 4, 1))
    assert rows[0].mean == pytest.approx(UTILITY(EXACT(DATA.documents, DATA.queries, 10)).mean())
    assert rows[0].measures["energy"] == pytest.approx(1)
    assert rows[0].mean > rows[1].mean > rows[2].mean
    assert [row.setting["dim"] for row in dimension_truncation(DATA, UTILITY, EXACT)] == [16, 8]
    with pytest.raises(RequestError, match="from 1 to 16"):
        dimension_truncation(DATA, UTILITY, EXACT, dims=(17,))


def test_near_duplicates_crowd_others_out() -> None:
    rows = near_duplicates(DATA, UTILITY, EXACT, copies=(0, 3), share=1.0)
    by_setting = {(row.setting["copies"], row.setting["credit"]): row for row in rows}
    before = UTILITY(EXACT(DATA.documents, DATA.queries, 10)).mean()
    assert by_setting[0, "none"].mean == by_setting[0, "original"].mean == pytest.approx(before)
    assert by_setting[0, "none"].measures["crowded"] == 0
    # With every document four times, ten places hold three different ones: four, four and two times.
    assert by_setting[3, "none"].measures["crowded"] == pytest.approx(0.7, abs=0.02)
    assert by_setting[3, "original"].mean == pytest.approx(0.3, abs=0.03)
    assert by_setting[3, "none"].mean <= by_setting[3, "original"].mean


def test_first_of_each() -> None:
    assert first_of_each(np.array([[3, 1, 3, -1, 1]])).tolist() == [[True, True, False, False, False]]


def test_vectors_of_two_encoders_in_one_index() -> None:
    other = made(0)
    rotation = np.linalg.qr(np.random.default_rng(5).normal(size=(DIM, DIM)))[0].astype(np.float32)
    new = TaskVectors(other.documents @ rotation, other.queries @ rotation, "cosine", 10)
    rows = mixed_encoders(DATA, UTILITY, EXACT, new=new, shares=(0.0, 0.5, 1.0))
    means = {(row.setting["share"], row.setting["queries"]): row.mean for row in rows}
    assert means[0.0, "old"] == pytest.approx(means[1.0, "new"])  # a rotation keeps every angle
    assert means[0.0, "new"] < 0.5
    assert means[0.0, "new"] < means[0.5, "new"] <= means[1.0, "new"]
    with pytest.raises(ShapeError, match="one dimension"):
        mixed_encoders(DATA, UTILITY, EXACT, new=TaskVectors(DATA.documents[:, :8].copy(), DATA.queries[:, :8].copy()))


def test_filters_by_exact_search_lose_nothing_and_never_break() -> None:
    rows = filters(DATA, UTILITY, EXACT, selectivities=(0.5, 0.02, 0.0001), queries=12)
    assert len(rows) == 9
    for row in rows:
        assert row.measures["recall"] == row.measures["tied_recall"] == 1
        assert row.measures["loss"] == 0
        assert row.measures["wrong"] == 0
        left = max(1, round(float(row.setting["selectivity"]) * len(LABELS)))
        assert row.measures["padding"] == pytest.approx(1 - min(left, 10) / 10)
        assert len(row.values) == 12
    means = {row.setting["correlation"]: row.mean for row in rows if row.setting["selectivity"] == 0.02}
    assert means["positive"] > means["random"] > means["negative"]


def test_filters_see_a_search_that_ignores_them() -> None:
    def careless(documents: Vectors, queries: Vectors, k: int, allowed: Bitmap | None = None) -> Rows:
        assert allowed is not None
        assert unpack(allowed, len(documents)).any()
        return EXACT(documents, queries, k)

    (row,) = filters(DATA, UTILITY, careless, selectivities=(0.01,), correlations=("negative",), queries=8)
    assert row.measures["wrong"] == 1
    assert row.measures["recall"] == 0
    for options in ({"selectivities": (0.0,)}, {"correlations": ("none",)}, {"queries": 1}):
        with pytest.raises(RequestError):
            filters(DATA, UTILITY, EXACT, **options)  # type: ignore[arg-type]


@pytest.fixture
def index_search() -> Iterator[IndexSearch]:
    with IndexSearch(IndexSpec("flat", "l2")) as search:
        yield search


def test_an_index_is_built_once_for_the_same_documents(index_search: IndexSearch) -> None:
    first = index_search(DATA.documents, DATA.queries, 5)
    assert (first == exact_search("l2")(DATA.documents, DATA.queries, 5)).all()
    index_search(DATA.documents, DATA.queries, 5)
    assert index_search.built == 1
    fewer = DATA.documents[:7]
    assert index_search(fewer, DATA.queries, 9)[:, 7:].max() == -1
    assert index_search.built == 2


def test_rows_and_vectors_are_checked() -> None:
    with pytest.raises(RequestError, match="k = 0"):
        TaskVectors(DATA.documents, DATA.queries, "cosine", 0)
    with pytest.raises(ShapeError, match="expected at least 1 of each"):
        TaskVectors(DATA.documents[:0], DATA.queries)
    with pytest.raises(RequestError):
        probe_row("any", {}, np.array([np.nan, 1]), 0)
    row = probe_row("any", {"share": 0.5}, np.array([0.0, 1.0]), 0, {"mmd": 0.1})
    assert row.to_json()["mean"] == 0.5
