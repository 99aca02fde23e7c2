"""Free embeddings against what geometry says: sets cut from points on a sphere by half-spaces.

On the circle only neighbours can be cut off together, so with k = 2 every pair of 3 points can, and of 4 cannot. On the
sphere in 3 dimensions the pairs are edges of a convex polyhedron, at most 3n - 6: every pair of 4 points, not of 5.
With k = 1 every point of a circle can be cut off by itself.
"""

import pytest

from evaluation.limit_free import PUBLISHED, critical_n, published_fit, solve
from index.errors import RequestError


@pytest.mark.parametrize(("dim", "most"), [(2, 3), (3, 4)])
def test_pairs_that_geometry_allows(dim: int, most: int) -> None:
    assert solve(most, dim).solved
    assert not solve(most + 1, dim).solved


def test_the_search_finds_the_largest_number() -> None:
    seen: list[int] = []
    found = critical_n(3, progress=lambda _, done, __: seen.append(done))
    assert (found.dim, found.k, found.documents) == (3, 2, 4)
    assert [number for number, attempt in found.tried.items() if attempt.solved] == [3, 4]
    assert list(found.tried) == [3, 4, 5, 6, 7, 8, 9]
    assert seen == list(range(1, 8))
    assert found.fit == published_fit(3)


def test_one_relevant_document_is_easy() -> None:
    assert solve(12, 2, k=1).solved
    assert not solve(3, 1, k=1).solved  # a line has two ends


def test_nine_documents_fit_into_four_dimensions() -> None:
    assert solve(9, 4).solved


def test_the_same_seeds_take_the_same_steps() -> None:
    assert solve(6, 4) == solve(6, 4)


@pytest.mark.parametrize("dim", [6, 8])
def test_published_critical_numbers(dim: int) -> None:
    assert abs(critical_n(dim, seeds=(0,)).documents - PUBLISHED[dim]) <= 2


def test_the_published_polynomial() -> None:
    assert published_fit(4) == pytest.approx(6.6602, abs=1e-9)  # by hand
    for dim, documents in PUBLISHED.items():
        if dim >= 16:
            assert abs(published_fit(dim) - documents) < 0.05 * documents


@pytest.mark.parametrize(
    ("documents", "dim", "k", "seeds", "message"),
    [
        (5, 4, 5, (0,), "k is 5, expected 1 to 4"),
        (5, 4, 0, (0,), "k is 0"),
        (5, 0, 2, (0,), "dim is 0"),
        (5, 4, 2, (), "with 0 seeds"),
    ],
)
def test_what_cannot_be_tried_is_refused(
    documents: int, dim: int, k: int, seeds: tuple[int, ...], message: str
) -> None:
    with pytest.raises(RequestError, match=message):
        solve(documents, dim, k=k, seeds=seeds)
