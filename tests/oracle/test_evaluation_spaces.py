"""Every metric arm against its definition in float64, over all pairs."""

import numpy as np
import numpy.typing as npt
import pytest

from evaluation.cone import labelled
from evaluation.spaces import ARMS, Arm, Training, fit
from index.errors import ConfigError, CorpusError, ShapeError
from index.types import Vectors

K = 20


def unit(vectors: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    values = vectors.astype(np.float64)
    return values / np.linalg.norm(values, axis=1, keepdims=True)


def truth(arm: Arm, documents: Vectors, queries: Vectors, training: Training) -> npt.NDArray[np.float64]:
    """Score of every pair by the definition; any constant of a query aside."""
    d, q = documents.astype(np.float64), queries.astype(np.float64)
    centre = d.mean(axis=0)
    if arm == "ip":
        return q @ d.T
    if arm == "l2":
        return -((q[:, None] - d[None]) ** 2).sum(axis=2)
    if arm == "cosine":
        return unit(q) @ unit(d).T
    if arm == "centred-cosine":
        return unit(q - centre) @ unit(d - centre).T
    assert arm == "csls"
    density = np.sort(unit(d) @ unit(training.queries).T, axis=1)[:, -10:].mean(axis=1)
    return 2 * unit(q) @ unit(d).T - density


@pytest.fixture(scope="module")
def sets() -> tuple[Vectors, Vectors, Training]:
    data = labelled("cone", count=400, dim=16, classes=20, queries=60, seed=3)
    rng = np.random.default_rng(1)
    pairs = np.array([(t, rng.choice(np.flatnonzero(data.labels == data.query_labels[t]))) for t in range(30)])
    return data.documents, data.queries[30:], Training(data.queries[:30], pairs.astype(np.int64))


@pytest.mark.parametrize("arm", ["ip", "l2", "cosine", "centred-cosine", "csls"])
def test_an_arm_finds_what_its_definition_finds(arm: Arm, sets: tuple[Vectors, Vectors, Training]) -> None:
    documents, queries, training = sets
    expected = truth(arm, documents, queries, training)
    space = fit(arm, documents, training)
    found = space.search(queries, K)
    assert found.rows.shape == (len(queries), K)
    gained = np.take_along_axis(expected, found.rows, axis=1)
    best = -np.sort(-expected, axis=1)[:, :K]
    # Rounding may swap neighbours whose scores agree to float32's digits: of 2 on angles, of squared lengths else.
    rounding = 4e-6 * (1 if arm in {"cosine", "centred-cosine", "csls"} else float(np.abs(documents).max()) ** 2)
    assert np.abs(gained - best).max() <= rounding


def test_l2_keeps_its_digits_on_a_narrow_cone() -> None:
    # A common mean 10,000 times the spread: the expanded square of the vectors themselves has no digit left.
    rng = np.random.default_rng(0)
    spread = rng.normal(size=(320, 8))
    vectors = (1e4 + spread).astype(np.float32)
    documents, queries = vectors[:300], vectors[300:]
    expected = -((queries[:, None].astype(np.float64) - documents[None]) ** 2).sum(axis=2)
    found = fit("l2", documents).search(queries, 10)
    assert np.take_along_axis(expected, found.rows, axis=1) == pytest.approx(
        -np.sort(-expected, axis=1)[:, :10], rel=1e-4
    )


def test_whitening_leaves_components_uncorrelated_and_equal() -> None:
    rng = np.random.default_rng(0)
    documents = (rng.normal(size=(20_000, 6)) @ rng.normal(size=(6, 6)) + 5).astype(np.float32)
    space = fit("whitened", documents)
    mapped = space.transform(documents).astype(np.float64)
    assert np.cov(mapped.T, bias=True) == pytest.approx(np.eye(6), abs=0.02)
    assert mapped.mean(axis=0) == pytest.approx(np.zeros(6), abs=1e-4)


def test_whitening_of_few_documents_is_shrunk() -> None:
    # 20 documents span 19 directions of 64; without shrinkage the others would be blown up without bound.
    documents = np.random.default_rng(0).normal(size=(20, 64)).astype(np.float32)
    queries = np.random.default_rng(1).normal(size=(5, 64)).astype(np.float32)
    mapped = fit("whitened", documents).transform(queries)
    assert np.linalg.norm(mapped, axis=1).max() < 10 * np.linalg.norm(queries, axis=1).max()


def test_csls_without_train_queries_measures_density_among_the_documents() -> None:
    documents = np.random.default_rng(0).normal(size=(50, 8)).astype(np.float32)
    queries = np.random.default_rng(1).normal(size=(7, 8)).astype(np.float32)
    among = unit(documents) @ unit(documents).T
    np.fill_diagonal(among, -np.inf)
    density = np.sort(among, axis=1)[:, -10:].mean(axis=1)
    expected = 2 * unit(queries) @ unit(documents).T - density
    found = fit("csls", documents).search(queries, 50)
    assert np.take_along_axis(expected, found.rows, axis=1) == pytest.approx(found.scores, abs=1e-5)
    assert (np.argsort(-expected, axis=1)[:, :5] == found.rows[:, :5]).all()


def test_a_learned_metric_ignores_directions_in_which_queries_differ_from_their_documents() -> None:
    rng = np.random.default_rng(0)
    signal = rng.normal(size=(300, 8))

    def noisy(count: int) -> npt.NDArray[np.float64]:
        return 4 * rng.normal(size=(count, 8))

    documents = np.hstack([signal, noisy(300)]).astype(np.float32)
    queries = np.hstack([signal + 0.1 * rng.normal(size=signal.shape), noisy(300)]).astype(np.float32)
    training = Training(queries[:200], np.stack([np.arange(200)] * 2, axis=1))
    wanted = np.arange(200, 300)
    hits = {
        arm: float((fit(arm, documents, training).search(queries[200:], 1).rows[:, 0] == wanted).mean())
        for arm in ("cosine", "learned")
    }
    assert hits["learned"] > hits["cosine"] + 0.3


def test_the_learned_metric_never_saw_the_other_queries() -> None:
    data = labelled("isotropic", count=200, dim=12, classes=20, queries=60)
    pairs = np.stack([np.arange(40), data.query_labels[:40]], axis=1)  # row c is of class c
    spaces = [fit("learned", data.documents, Training(data.queries[:40], pairs), seed=5) for _ in range(2)]
    found = [space.search(data.queries[40:], 5) for space in spaces]
    assert (found[0].rows == found[1].rows).all()
    assert (found[0].scores == found[1].scores).all()


@pytest.mark.parametrize("arm", ARMS)
def test_ties_are_broken_by_row_and_short_corpora_padded(arm: Arm) -> None:
    documents = np.array([[0, 1], [1, 0], [0, 1], [1, 0]], dtype=np.float32)
    queries = np.array([[0, 2]], dtype=np.float32)
    training = Training(np.array([[1, 1], [2, 1]], np.float32), np.array([[0, 0], [1, 1]], np.int64))
    rows = fit(arm, documents, training).search(queries, 6).rows
    assert rows.tolist() == [[0, 2, 1, 3, -1, -1]]


def test_what_cannot_be_fitted_is_refused() -> None:
    documents = np.ones((3, 4), dtype=np.float32)
    with pytest.raises(ConfigError, match="arm 'dot' is unknown"):
        fit("dot", documents)  # type: ignore[arg-type]
    with pytest.raises(CorpusError, match="no documents"):
        fit("ip", documents[:0])
    with pytest.raises(CorpusError, match="all 3 documents have the same vector"):
        fit("whitened", documents)
    with pytest.raises(CorpusError, match="0 train queries"):
        fit("learned", documents)
    with pytest.raises(CorpusError, match="no density"):
        fit("csls", documents[:1])
    with pytest.raises(ShapeError, match="training pairs reach"):
        fit("learned", documents, Training(documents, np.array([[0, 3]], np.int64)))
    with pytest.raises(ShapeError, match="dim 4"):
        fit("cosine", documents[:, :3], Training(documents, np.array([[0, 0]], np.int64)))
    with pytest.raises(ShapeError, match="dim 3, expected 4"):
        fit("l2", documents).search(documents[:, :3], 1)
