"""LIMIT datasets: the published shape of the dense pattern, the controls, and what cannot be generated."""

import json
import math
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

from evaluation.limit import LimitConfig, LimitDataset, generate, relevant_sets, write
from evaluation.limit_words import attributes, synonyms
from evaluation.trec import read_qrels, read_queries
from index.errors import RequestError
from retrieval.sources import open_source
from retrieval.types import Document

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def small() -> LimitDataset:
    return generate(LimitConfig())


@pytest.fixture(scope="module")
def large() -> LimitDataset:
    return generate(LimitConfig(documents=50_000))


def likes(document: Document) -> list[str]:
    who, listed = document.text.removesuffix(".").split(" likes ")
    assert who == document.id
    *most, last = listed.split(", ")
    return [*most, *last.split(" and ")]


def by_id(documents: Iterable[Document]) -> dict[str, Document]:
    return {document.id: document for document in documents}


def asked(text: str) -> str:
    return text.removeprefix("Who likes ").removesuffix("?")


def sets_of(qrels: Any, queries: Any, numbers: dict[str, int]) -> list[tuple[int, ...]]:
    return [tuple(sorted(numbers[doc_id] for doc_id in qrels[query.id])) for query in queries]


def in_order_of_queries(dataset: LimitDataset) -> dict[str, int]:
    """Number the relevant documents as the queries first name them, which for the dense pattern is their order."""
    ids = dict.fromkeys(doc_id for query in dataset.queries for doc_id in dataset.qrels[query.id])
    return {doc_id: number for number, doc_id in enumerate(ids)}


def test_the_small_set_has_the_published_shape(small: LimitDataset) -> None:
    assert (len(small.documents), len(small.queries), sum(map(len, small.qrels.values()))) == (46, 1_000, 2_000)
    pairs = sets_of(small.qrels, small.queries, in_order_of_queries(small))
    every = list(combinations(range(46), 2))
    assert len(every) == 1_035
    assert len(set(pairs)) == 1_000
    assert set(every) - set(pairs) == set(every[-35:])
    degrees = Counter(doc_id for grades in small.qrels.values() for doc_id in grades)
    assert Counter(degrees.values()) == {45: 37, 37: 7, 38: 2}
    assert {len(likes(document)) for document in small.documents} == {45}


def test_the_large_set_has_the_same_46_relevant_documents(small: LimitDataset, large: LimitDataset) -> None:
    assert len({document.id for document in large.documents}) == 50_000
    assert (large.queries, large.qrels) == (small.queries, small.qrels)
    relevant = {doc_id for grades in large.qrels.values() for doc_id in grades}
    assert len(relevant) == 46
    assert by_id(d for d in large.documents if d.id in relevant) == by_id(small.documents)


def test_no_other_document_holds_what_a_query_asks_for(large: LimitDataset) -> None:
    queries = {asked(query.text): query.id for query in large.queries}
    assert len(queries) == 1_000
    for document in large.documents:
        listed = likes(document)
        assert len(set(listed)) == len(listed) == 45
        for attribute in set(listed) & queries.keys():
            assert document.id in large.qrels[queries[attribute]]


def test_relevant_documents_are_spread_over_the_corpus(large: LimitDataset) -> None:
    relevant = {doc_id for grades in large.qrels.values() for doc_id in grades}
    places = [place for place, document in enumerate(large.documents) if document.id in relevant]
    # The mean of 46 places drawn from 50,000 is 25,000 +- 2,100: six standard errors.
    assert abs(sum(places) / 46 - 25_000) < 6 * 50_000 / math.sqrt(12 * 46)


def test_the_real_small_set_is_the_dense_pattern(dataset: Callable[[str], Path]) -> None:
    folder = dataset("limit-small")
    lines = (folder / "corpus.jsonl").read_text(encoding="utf-8").splitlines()
    documents = [Document(value["_id"], value["text"]) for value in map(json.loads, lines)]
    numbers = {document.id: number for number, document in enumerate(documents)}
    queries, qrels = read_queries(folder / "queries.jsonl"), read_qrels(folder / "qrels" / "test.tsv")
    assert sets_of(qrels, queries, numbers) == relevant_sets(LimitConfig())


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (LimitConfig(queries=4), [(0, 1), (0, 2), (0, 3), (1, 2)]),
        (LimitConfig(queries=4, k=3), [(0, 1, 2), (0, 1, 3), (0, 2, 3), (1, 2, 3)]),
        (LimitConfig(queries=3, k=1), [(0,), (1,), (2,)]),
        (LimitConfig(queries=4, pattern="cycle"), [(0, 1), (1, 2), (2, 3), (0, 3)]),
        (LimitConfig(queries=4, pattern="cycle", k=3), [(0, 1, 2), (1, 2, 3), (0, 2, 3), (0, 1, 3)]),
        (LimitConfig(queries=3, pattern="disjoint"), [(0, 1), (2, 3), (4, 5)]),
    ],
)
def test_patterns(config: LimitConfig, expected: list[tuple[int, ...]]) -> None:
    assert relevant_sets(config) == expected


def test_random_sets_are_different_and_reach_all_documents() -> None:
    sets = relevant_sets(LimitConfig(queries=1_000, documents=500, pattern="random"))
    assert len(set(sets)) == 1_000
    # 2,000 places for 500 documents: 9 are missed on average, and 30 with a probability below 1e-8.
    assert 470 < len({document for chosen in sets for document in chosen}) <= 500
    exhausted = relevant_sets(LimitConfig(queries=10, documents=5, pattern="random"))
    assert set(exhausted) == set(combinations(range(5), 2))


def test_controls_are_less_crowded() -> None:
    for pattern, most in (("random", 12), ("cycle", 2), ("disjoint", 1)):
        dataset = generate(LimitConfig(documents=2_000, pattern=pattern))  # type: ignore[arg-type]
        degrees = Counter(doc_id for grades in dataset.qrels.values() for doc_id in grades)
        assert max(degrees.values()) <= most
        assert len(dataset.documents) == 2_000


def test_the_seed_decides_everything(small: LimitDataset) -> None:
    assert generate(LimitConfig()) == small
    other = generate(LimitConfig(seed=1))
    assert {d.id for d in other.documents}.isdisjoint(d.id for d in small.documents)
    assert other.queries != small.queries


def test_files_are_the_same_bytes_in_another_process(small: LimitDataset, tmp_path: Path) -> None:
    write(tmp_path / "here", small)
    code = "import sys; from evaluation.limit import *; write(sys.argv[1], generate(LimitConfig()))"
    environment = {**os.environ, "PYTHONHASHSEED": "7", "LC_ALL": "C"}
    subprocess.run([sys.executable, "-c", code, tmp_path / "there"], cwd=ROOT, env=environment, check=True)
    names = {"corpus.jsonl", "queries.jsonl", "qrels/test.tsv"}
    files = {str(path.relative_to(tmp_path / "here")) for path in (tmp_path / "here").rglob("*") if path.is_file()}
    assert files == names
    for name in names:
        assert (tmp_path / "here" / name).read_bytes() == (tmp_path / "there" / name).read_bytes()


def test_our_readers_read_what_is_written(small: LimitDataset, tmp_path: Path) -> None:
    write(tmp_path, small)
    assert tuple(open_source(str(tmp_path)).documents()) == small.documents
    assert tuple(read_queries(tmp_path / "queries.jsonl")) == small.queries
    assert read_qrels(tmp_path / "qrels" / "test.tsv") == small.qrels
    with pytest.raises(RequestError, match="not an empty folder"):
        write(tmp_path, small)


def test_synonyms_change_nothing_but_the_queries() -> None:
    config = LimitConfig(queries=200)
    same, other = generate(config), generate(replace(config, synonyms=True))
    assert (other.documents, other.qrels) == (same.documents, same.qrels)
    for plain, renamed in zip(same.queries, other.queries, strict=True):
        assert renamed == replace(plain, text=f"Who likes {synonyms()[asked(plain.text)]}?")


def test_few_attributes_make_short_documents() -> None:
    one = generate(LimitConfig(queries=3, pattern="disjoint", k=1, attributes=1))
    assert {d.text for d in one.documents} == {
        f"{doc_id} likes {asked(query.text)}." for query in one.queries for doc_id in one.qrels[query.id]
    }


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"pattern": "star"}, "'star'; allowed: dense, random, cycle, disjoint"),
        ({"queries": 0}, "queries is 0, expected at least 1"),
        ({"k": 0}, "k is 0, expected at least 1"),
        ({"attributes": 0}, "attributes is 0, expected at least 1"),
        ({"documents": 45}, "documents is 45, expected 46 "),
        ({"documents": 10**9}, "documents is 1,000,000,000, expected 46 "),
        ({"queries": len(attributes())}, f"expected at most {len(attributes()) - 45:,}"),
        ({"synonyms": True}, f"expected at most {len(synonyms())}"),
        ({"attributes": 10_000}, "queries is 1,000, expected at most -"),
        ({"pattern": "cycle", "queries": 2}, "a cycle needs more than k = 2"),
        ({"pattern": "random", "documents": 4}, "fewer than 1,000 different sets of 2"),
        ({"pattern": "random", "documents": -1}, "documents is -1, expected at least 1"),
    ],
)
def test_what_cannot_be_generated_is_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        LimitConfig(**wrong)


def test_a_document_relevant_to_more_queries_than_it_has_attributes_is_refused() -> None:
    with pytest.raises(RequestError, match="a document is relevant to 63: expected at least 63"):
        generate(LimitConfig(queries=2_000))
    assert len(generate(LimitConfig(queries=2_000, attributes=63)).documents) == 64
