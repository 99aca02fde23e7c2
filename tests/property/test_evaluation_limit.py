"""Any LIMIT dataset: a document lists what a query asks for exactly when it is judged relevant to it."""

from hypothesis import given, settings
from hypothesis import strategies as st

from evaluation.limit import LimitConfig, Pattern, generate, relevant_sets

CONFIGS = st.builds(
    LimitConfig,
    queries=st.integers(5, 60),
    documents=st.integers(180, 200),
    pattern=st.sampled_from(("dense", "random", "cycle", "disjoint")),
    k=st.integers(1, 3),
    attributes=st.integers(60, 70),
    synonyms=st.just(False),
    seed=st.integers(0, 2**32),
)


@given(CONFIGS)
@settings(max_examples=30, deadline=None)
def test_relevant_means_listed(config: LimitConfig) -> None:
    dataset = generate(config)
    assert len({document.id for document in dataset.documents}) == len(dataset.documents) == config.document_count
    for query in dataset.queries:
        attribute = query.text.removeprefix("Who likes ").removesuffix("?")
        holders = {
            d.id
            for d in dataset.documents
            if f" {attribute}," in d.text or f" {attribute}." in d.text or f" {attribute} and " in d.text
        }
        assert holders == dataset.qrels[query.id].keys()
        assert len(holders) == config.k


@given(CONFIGS)
@settings(max_examples=60, deadline=None)
def test_sets_are_different_and_ascending(config: LimitConfig) -> None:
    sets = relevant_sets(config)
    assert len(set(sets)) == len(sets) == config.queries
    for chosen in sets:
        assert list(chosen) == sorted(set(chosen))
        assert len(chosen) == config.k
        assert 0 <= chosen[0] <= chosen[-1] < config.relevant_count


@given(st.integers(2, 60), st.sampled_from(("dense", "cycle", "disjoint")), st.integers(0, 9))
@settings(max_examples=20, deadline=None)
def test_a_small_set_is_part_of_a_larger_one(queries: int, pattern: Pattern, seed: int) -> None:
    small = LimitConfig(queries=queries + 3, pattern=pattern, seed=seed)
    large = LimitConfig(queries=queries + 3, pattern=pattern, seed=seed, documents=small.document_count + 50)
    few, many = generate(small), generate(large)
    assert all(document in many.documents for document in few.documents)
    assert (few.queries, few.qrels) == (many.queries, many.qrels)
