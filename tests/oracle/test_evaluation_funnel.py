"""The funnel over real indexes: exact where the pipeline is exact, additive everywhere."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from evaluation.cone import Labelled, labelled
from evaluation.funnel import PLAYERS, Cells, covered, funnel, validation_part
from evaluation.ledger import RERANK
from evaluation.spaces import Space, fit
from evaluation.utility import Utility, from_labels, reordered
from index.ann import AnnIndex
from index.ann_build import write_index
from index.errors import ConfigError, RequestError
from index.faiss_library import load_faiss
from index.spec import IndexParams, IndexSpec, Kind
from index.types import Effort, Rows

COUNT, K = 1_200, 10


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    faiss = load_faiss()
    before = faiss.omp_get_max_threads()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRAPNEL_THREADS", "1")
        patch.setattr("index.calibrate._TIMED", 10)
        yield
    faiss.omp_set_num_threads(before)


@pytest.fixture(scope="module")
def data() -> Labelled:
    return labelled("cone", count=COUNT, dim=16, classes=60, queries=120, seed=2)


@pytest.fixture(scope="module")
def spaces(data: Labelled) -> list[Space]:
    return [fit(arm, data.documents) for arm in ("ip", "l2", "cosine", "centred-cosine")]


@pytest.fixture(scope="module")
def utility(data: Labelled) -> Utility:
    return from_labels("label-precision", data.labels, data.query_labels, K)


VALIDATION = validation_part(120)


@pytest.mark.parametrize("arm", ["ip", "cosine"])
def test_a_flat_index_loses_nothing_to_search_or_codes(
    arm, tmp_path: Path, data: Labelled, spaces: list[Space], utility: Utility
) -> None:
    cells = Cells(tmp_path, IndexSpec("flat"), K)
    result = funnel(spaces, arm, data.queries, utility, cells, validation=VALIDATION)
    changes = result.ledger.changes()
    assert not changes["ann"].any()
    assert not changes["quantisation"].any()
    assert not result.charged["ann"].any()
    assert result.charged["metric"] == pytest.approx(changes["metric"], abs=1e-12)
    assert result.notes == ()
    assert result.ledger.residual() <= 1e-12


def test_a_graph_searched_with_all_its_nodes_loses_next_to_nothing(
    tmp_path: Path, data: Labelled, spaces: list[Space], utility: Utility
) -> None:
    cells = Cells(tmp_path, IndexSpec("hnsw"), K, Effort(ef=COUNT))
    result = funnel(spaces, "l2", data.queries, utility, cells, validation=VALIDATION)
    changes = result.ledger.changes()
    assert abs(changes["ann"].mean()) < 0.001
    assert not changes["quantisation"].any()


@pytest.mark.parametrize(
    ("kind", "effort"),
    [("hnsw-sq8", None), ("ivf-pq", Effort(nprobe=4, refine=K))],
)
def test_terms_and_charges_sum_for_every_query(
    kind: Kind, effort: Effort | None, tmp_path: Path, data: Labelled, spaces: list[Space], utility: Utility
) -> None:
    spec = IndexSpec(kind, params=IndexParams(code_bytes=2))
    cells = Cells(tmp_path, spec, 3 * K, effort)
    result = funnel(
        spaces, "cosine", data.queries, utility, cells, rerank=lambda rows: reordered(utility, rows),
        validation=VALIDATION,
    )  # fmt: skip
    ledger, changes = result.ledger, result.ledger.changes()
    losses = changes["embedding"] + changes["metric"] + changes["ann"] + changes["quantisation"]
    assert np.abs(ledger.ceiling - losses + changes[RERANK] - ledger.final).max() <= 1e-12
    before_rerank = ledger.stages[-2][1]
    total = result.arms[result.best] - before_rerank
    assert np.abs(sum(result.charged[player] for player in PLAYERS) - total).max() <= 1e-12
    # A perfect reranker reaches the ceiling of its candidates, and no more than the corpus's.
    assert ledger.final == pytest.approx(result.reorder_ceiling, abs=1e-12)
    assert (result.reorder_ceiling <= ledger.ceiling + 1e-12).all()
    assert result.best == "centred-cosine"
    assert ((result.coverage >= 0) & (result.coverage <= 1)).all()
    if kind == "ivf-pq":
        # Four lists of seventy, and two bytes a vector: both tell. (A list is like a class, so it may even help.)
        assert changes["ann"].any()
        assert changes["quantisation"].any()
        assert result.coverage.mean() < 0.9


def test_stages_are_what_searches_of_their_own_are_worth(
    tmp_path: Path, data: Labelled, spaces: list[Space], utility: Utility
) -> None:
    # The deployed pipeline as anybody would build it: sq8 codes in a graph, under inner product, with little effort.
    effort = Effort(ef=K, refine=K)
    cells = Cells(tmp_path / "cells", IndexSpec("hnsw-sq8"), K, effort)
    ledger = funnel(spaces, "ip", data.queries, utility, cells, validation=VALIDATION).ledger
    stages, held = dict(ledger.stages), np.setdiff1d(np.arange(120), VALIDATION)
    folder = tmp_path / "own"
    folder.mkdir()
    write_index(folder, iter([data.documents]), 16, COUNT, IndexSpec("hnsw-sq8", "ip"))
    found = AnnIndex.open(folder, "ip").search(data.queries, K, effort=effort).rows
    assert ledger.final.tolist() == utility(found)[held].tolist()
    # Exact search, by definition: best first by inner product, and by cosine of what is left without the mean.
    products = data.queries @ data.documents.T
    assert stages["metric"] == pytest.approx(utility(np.argsort(-products, axis=1)[:, :K])[held], abs=1e-12)
    mean = data.documents.mean(axis=0, dtype=np.float64)
    moved, asked = data.documents - mean, data.queries - mean
    cosines = asked @ (moved / np.linalg.norm(moved, axis=1, keepdims=True)).T
    assert stages["embedding"] == pytest.approx(utility(np.argsort(-cosines, axis=1)[:, :K])[held], abs=1e-12)
    assert ledger.ceiling.tolist() == [1.0] * len(held)  # classes of twenty, ten places


def test_cells_without_approximation_look_at_everything(tmp_path: Path, data: Labelled, spaces: list[Space]) -> None:
    space, queries = spaces[3], data.queries[:20]  # where scores differ by more than their rounding
    exact = space.search(queries, K).rows
    for kind in ("hnsw-sq8", "ivf-pq", "ivf-rabitq"):
        # With every row refined, codes cost nothing either: what is left is exact search.
        cells = Cells(tmp_path / kind, IndexSpec(kind), K, Effort(nprobe=1, ef=K, refine=COUNT))
        assert (cells.rows(space, queries, ann=False, quantised=True) == exact).all(), kind
        assert (cells.rows(space, queries, ann=False, quantised=False) == exact).all(), kind


def test_a_small_corpus_is_searched_exactly_and_says_so(tmp_path: Path) -> None:
    small = labelled("isotropic", count=200, dim=16, classes=20, queries=40)
    spaces = [fit("cosine", small.documents), fit("l2", small.documents)]
    utility = from_labels("hit", small.labels, small.query_labels, 5)
    cells = Cells(tmp_path, IndexSpec("hnsw-sq8"), 5)
    result = funnel(spaces, "l2", small.queries, utility, cells, validation=validation_part(40))
    assert not result.ledger.changes()["ann"].any()
    assert not result.ledger.changes()["quantisation"].any()
    assert any("l2: hnsw-sq8 became flat (200 vectors: exact search" in note for note in result.notes)


def test_equal_metrics_leave_no_metric_loss(tmp_path: Path) -> None:
    small = labelled("isotropic", count=300, dim=16, classes=30, queries=60)
    documents = small.documents / np.linalg.norm(small.documents, axis=1, keepdims=True)
    spaces = [fit(arm, documents) for arm in ("cosine", "ip", "l2")]
    utility = from_labels("label-precision", small.labels, small.query_labels, 5)
    for arm in ("cosine", "ip", "l2"):
        result = funnel(
            spaces, arm, small.queries, utility, Cells(tmp_path, IndexSpec("flat"), 5), validation=validation_part(60)
        )
        # Queries keep their norms, which change no order; the documents have none.
        assert np.abs(result.ledger.changes()["metric"]).sum() == 0
        assert result.best == arm


def test_coverage_by_hand() -> None:
    wanted = np.array([[0, 1, 2], [3, 4, -1], [-1, -1, -1]], dtype=np.int64)
    found = np.array([[2, 0, 9, -1], [5, 6, 7, 8], [-1, -1, -1, -1]], dtype=np.int64)
    assert covered(wanted, found).tolist() == [2 / 3, 0.0, 1.0]


def test_validation_is_a_seeded_part_of_the_queries() -> None:
    part = validation_part(100, seed=4)
    assert len(part) == len(set(part.tolist())) == 30
    assert (part == validation_part(100, seed=4)).all()
    assert (part != validation_part(100, seed=5)).any()
    with pytest.raises(RequestError, match="3 queries"):
        validation_part(3)


def test_impossible_funnels_are_refused(tmp_path: Path, data: Labelled, spaces: list[Space], utility: Utility) -> None:
    cells = Cells(tmp_path, IndexSpec("flat"), K)
    none: Rows = np.empty(0, dtype=np.int64)
    with pytest.raises(RequestError, match="'csls' among them"):
        funnel(spaces, "csls", data.queries, utility, cells, validation=VALIDATION)
    with pytest.raises(RequestError, match="0 of 120 queries validate"):
        funnel(spaces, "l2", data.queries, utility, cells, validation=none)
    with pytest.raises(RequestError, match="reads 10 places, the depth is 5"):
        funnel(spaces, "l2", data.queries, utility, Cells(tmp_path, IndexSpec("flat"), 5), validation=VALIDATION)
    with pytest.raises(RequestError, match="name the kind"):
        Cells(tmp_path, IndexSpec("auto"), K)
    with pytest.raises(ConfigError, match="expected metric 'cosine'"):
        Cells(tmp_path, IndexSpec("binary"), K).rows(spaces[1], data.queries, ann=True, quantised=True)
