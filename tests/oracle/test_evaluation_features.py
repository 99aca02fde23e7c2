"""Meta-features against brute force on small data, and against values known of simple distributions."""

import numpy as np
import numpy.typing as npt
import pytest

from evaluation.clusters import davies_bouldin, k_means
from evaluation.cone import labelled
from evaluation.features import effective_rank, features, local_dimension, neighbours, purity, query_shift
from index.errors import CorpusError, RequestError, ShapeError


def normal(count: int, dim: int, seed: int = 0) -> npt.NDArray[np.float32]:
    return np.random.default_rng(seed).normal(size=(count, dim)).astype(np.float32)


def test_an_isotropic_gaussian_is_as_known() -> None:
    dim = 64
    found = features(normal(2_000, dim), queries=normal(300, dim, seed=1))
    # Norms are chi distributed: their CV is 1 / sqrt(2 d) to first order. Angles concentrate at 90 degrees.
    assert found["norm_cv"] == pytest.approx(1 / np.sqrt(2 * dim), rel=0.05)
    assert found["mean_ratio"] == pytest.approx(1 / np.sqrt(2_000), rel=0.3)
    assert found["ra_mean_deg"] == pytest.approx(90, abs=2)
    assert found["ra_pair_deg"] == pytest.approx(90, abs=0.5)
    assert found["effective_rank"] == pytest.approx(dim, rel=0.02)
    assert found["query_shift"] == pytest.approx(1, abs=0.02)
    assert found["rc_1"] > found["rc_10"] > found["rc_100"] > 1
    assert found["s10_cosine"] < 5
    assert not any(name.startswith("purity") for name in found)


def test_a_narrow_cone_is_as_made() -> None:
    data = labelled("cone", count=2_000, dim=64, classes=80, queries=100)
    found = features(data.documents, queries=data.queries, labels=data.labels)
    assert found["ra_mean_deg"] == pytest.approx(3.4, abs=0.1)
    assert found["ra_pair_deg"] == pytest.approx(3.4 * np.sqrt(2), abs=0.2)  # two deviations at right angles
    assert found["mean_ratio"] == pytest.approx(np.cos(np.radians(3.4)), abs=1e-3)
    assert found["norm_cv"] == pytest.approx(np.tan(np.radians(3.4)) / np.sqrt(64), rel=0.15)
    assert found["dbi_euclidean"] == pytest.approx(found["dbi_cosine"], rel=0.05)
    assert found["s10_ip"] > 10 > found["s10_l2"]
    assert found["purity10_ip"] < 0.1
    assert found["purity10_centred_cosine"] > 0.5


def test_far_queries_are_shifted() -> None:
    documents = normal(500, 8)
    assert query_shift(documents, normal(200, 8, seed=1) + 5) == pytest.approx(np.sqrt(1 + 25), rel=0.05)
    flat = documents.copy()
    flat[:, 3] = 7  # a component without variance says nothing
    assert query_shift(flat, normal(200, 8, seed=1)) == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize(("dim", "expected"), [(1, 1.0), (3, 3.0)])
def test_the_local_dimension_is_that_of_the_surface_not_of_the_space(dim: int, expected: float) -> None:
    inside = np.random.default_rng(0).uniform(size=(1_500, dim)) @ np.random.default_rng(1).normal(size=(dim, 16))
    found = features(inside.astype(np.float32))
    assert found["lid"] == pytest.approx(expected, rel=0.2)
    assert found["effective_rank"] <= dim + 0.01


def test_the_local_dimension_by_hand() -> None:
    # ln(4 / 1), ln(4 / 2), and the last neighbour itself does not count; a copy is left out.
    assert local_dimension(np.array([[1.0, 2.0, 4.0]])) == pytest.approx(2 / (np.log(4) + np.log(2)))
    assert local_dimension(np.array([[0.0, 2.0, 4.0]])) == pytest.approx(1 / np.log(2))
    assert local_dimension(np.zeros((2, 3))) is None
    assert local_dimension(np.ones((2, 3))) is None


def test_effective_rank_counts_directions_in_use() -> None:
    line = np.outer(np.arange(10), [3.0, 4.0]).astype(np.float32)
    assert effective_rank(line) == pytest.approx(1, abs=1e-3)
    cross = np.array([[1, 0], [-1, 0], [0, 1], [0, -1]], dtype=np.float32)
    assert effective_rank(cross) == pytest.approx(2)
    with pytest.raises(CorpusError, match="all 3 vectors are equal"):
        effective_rank(np.ones((3, 2), dtype=np.float32))


@pytest.mark.parametrize("arm", ["ip", "l2", "cosine", "centred-cosine"])
def test_neighbours_are_those_of_brute_force_without_the_vector_itself(arm) -> None:
    vectors = normal(120, 6, seed=3) + 1
    values = vectors.astype(np.float64)
    moved = values - values.mean(axis=0)
    lengths = np.linalg.norm(values, axis=1)
    scores = {
        "ip": values @ values.T,
        "l2": -((values[:, None] - values[None]) ** 2).sum(axis=2),
        "cosine": values @ values.T / np.outer(lengths, lengths),
        "centred-cosine": moved @ moved.T / np.outer(np.linalg.norm(moved, axis=1), np.linalg.norm(moved, axis=1)),
    }[arm]
    np.fill_diagonal(scores, -np.inf)
    assert (neighbours(vectors, arm, 5) == np.argsort(-scores, axis=1)[:, :5]).all()


def test_purity_by_hand() -> None:
    labels = np.array([0, 0, 0, 1, 1, 2], dtype=np.int64)
    found = np.array([[1, 3], [0, 2], [3, 4], [4, 0], [0, 1], [0, 1]], dtype=np.int64)
    # Label 0 has two others, label 1 one, label 2 none and does not count.
    assert purity(found, labels) == pytest.approx((1 / 2 + 1 + 0 + 1 + 0) / 5)
    assert purity(found, np.arange(6)) is None


def test_few_labels_are_no_purity_and_few_documents_no_hundred_neighbours() -> None:
    labels = np.full(300, -1, dtype=np.int64)
    labels[:199] = 0
    assert not any(name.startswith("purity") for name in features(normal(300, 4), labels=labels))
    labels[:200] = np.arange(200) % 2
    assert features(normal(300, 4), labels=labels)["purity10_l2"] == pytest.approx(0.5, abs=0.1)
    found = features(normal(50, 4))
    assert {"rc_1", "rc_10"} <= found.keys()
    assert "rc_100" not in found


def test_the_same_seed_gives_the_same_features_and_a_sample_nearly_the_same() -> None:
    vectors = normal(1_500, 16) * np.linspace(0.5, 2, 16, dtype=np.float32)
    whole, part = features(vectors), features(vectors, sample=1_000, seed=1)
    assert part == features(vectors, sample=1_000, seed=1)
    for name in ("norm_cv", "ra_pair_deg", "effective_rank", "lid"):
        assert part[name] == pytest.approx(whole[name], rel=0.1), name
    assert part["n"] == 1_500


def test_documents_without_features_are_refused() -> None:
    with pytest.raises(RequestError, match="11 documents, expected at least 12"):
        features(normal(11, 4))
    with pytest.raises(CorpusError, match="the vector 0"):
        features(np.zeros((20, 4), dtype=np.float32))
    with pytest.raises(CorpusError, match="the same vector"):
        features(np.ones((20, 4), dtype=np.float32))
    with pytest.raises(ShapeError, match="labels are"):
        features(normal(20, 4), labels=np.zeros(3, dtype=np.int64))
    with pytest.raises(ShapeError):
        features(normal(20, 4), queries=normal(5, 3))
    with pytest.raises(RequestError, match="no queries"):
        features(normal(20, 4), queries=normal(0, 4))


def brute_davies_bouldin(vectors: npt.NDArray[np.float32], assigned: npt.NDArray[np.int64]) -> float:
    clusters = [vectors[assigned == each].astype(np.float64) for each in np.unique(assigned)]
    means = [cluster.mean(axis=0) for cluster in clusters]
    spread = [np.linalg.norm(cluster - mean, axis=1).mean() for cluster, mean in zip(clusters, means, strict=True)]
    worst = [
        max((spread[i] + spread[j]) / np.linalg.norm(means[i] - means[j]) for j in range(len(means)) if j != i)
        for i in range(len(means))
    ]
    return float(np.mean(worst))


@pytest.mark.parametrize("shift", [0, 3, 1_000])
def test_davies_bouldin_is_its_definition(shift: float) -> None:
    vectors = normal(200, 5) + np.float32(shift)
    assigned = k_means(vectors, 7, seed=0) * 2  # numbers may have gaps
    assert davies_bouldin(vectors, assigned) == pytest.approx(brute_davies_bouldin(vectors, assigned), rel=1e-9)
    with pytest.raises(RequestError, match="1 clusters"):
        davies_bouldin(vectors, np.zeros(200, dtype=np.int64))


def test_k_means_finds_clusters_that_are_plain() -> None:
    centres = np.array([[0, 0], [100, 0], [0, 100]])
    labels = np.arange(90) % 3
    vectors = (centres[labels] + np.random.default_rng(0).normal(size=(90, 2))).astype(np.float32)
    found = [k_means(vectors + 1e4, 3, seed=seed) for seed in range(5)]
    costs = []
    for assigned in found:
        assert assigned.min() >= 0
        assert assigned.max() <= 2
        means = np.stack([vectors[assigned == each].mean(axis=0) for each in range(3)])
        costs.append(float(((vectors - means[assigned]) ** 2).sum()))
    assert min(costs) == pytest.approx(90 * 2, rel=0.3)
    assert (k_means(vectors, 3, seed=1) == k_means(vectors, 3, seed=1)).all()
    with pytest.raises(RequestError, match="91 clusters of 90"):
        k_means(vectors, 91, seed=0)


def test_k_means_of_copies_leaves_clusters_empty_without_harm() -> None:
    vectors = np.repeat(normal(3, 4), 10, axis=0)
    assigned = k_means(vectors, 8, seed=0)
    assert len({tuple(vectors[row]) for row in range(30)}) == 3
    for first in range(0, 30, 10):
        assert len(set(assigned[first : first + 10].tolist())) == 1
