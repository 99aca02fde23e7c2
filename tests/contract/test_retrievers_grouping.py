"""Documents cut into passages: grouping, offsets, and documents found behind one that fills the candidates."""

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import retrieval.live
from retrieval.chunking import Chunker, ChunkingConfig
from retrieval.collection import Collection, build
from retrieval.collection_config import CollectionConfig, DenseField
from retrieval.encoders import EncoderConfig, open_encoder, passage_text
from retrieval.lexical import LexicalConfig
from retrieval.types import Document, Hit, Passage, Query, Ranking, SearchRequest

MODES = ("dense", "lexical", "hybrid")
HASHING = EncoderConfig(kind="hashing", dim=256)
CHUNKING = ChunkingConfig(kind="tokens", max_tokens=32, overlap=8)
CONFIG = CollectionConfig(chunking=CHUNKING, fields={"dense": DenseField(HASHING), "lexical": LexicalConfig()})
SMALL = 40
WORDS = [f"{a}{b}" for a in ("bo", "ka", "ri", "zu", "fle") for b in ("mo", "tan", "vix", "lo", "rup", "gat")]
TOLERANCE = 1e-5


def sentences(rng: random.Random, count: int, word: str) -> str:
    """Sentences of their own words, each with the given word once."""
    return " ".join(f"{word} {' '.join(rng.choices(WORDS, k=rng.randrange(3, 9)))}." for _ in range(count))


def corpus() -> list[Document]:
    """One giant that says "alpha" in each of its hundreds of passages, and small documents that say it once."""
    rng = random.Random(0)
    giant = Document("giant", sentences(rng, 700, "alpha"), metadata={"size": "giant"})
    small = [
        Document(
            f"small {rng.randrange(10**6)}",
            sentences(rng, rng.randrange(1, 12), "beta")
            + (" alpha " if place % 2 else " ")
            + sentences(rng, 3, "gamma"),
            title="a title" if place % 3 == 0 else "",
            metadata={"size": "small", "place": place},
        )
        for place in range(SMALL)
    ]
    return [*small[:20], giant, *small[20:]]


def make_compacted(folder: Path) -> Collection:
    build(folder, corpus(), CONFIG)
    return Collection.open(folder, writable=True)


def make_live(folder: Path) -> Collection:
    wanted = corpus()
    build(folder, wanted[:10], CONFIG)
    collection = Collection.open(folder, writable=True)
    collection.search("open the base")
    collection.add([Document(document.id, sentences(random.Random(1), 30, "alpha")) for document in wanted[5:15]])
    collection.search("follow")
    collection.add(wanted)
    return collection


def make_live_in_small_pieces(folder: Path) -> Collection:
    """As above, but the log is replayed seven passages at a time, so that documents span pieces."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(retrieval.live, "_BATCH", 7)
        collection = make_live(folder)
        collection.search("follow")
        return collection


class World:
    """A collection with every passage it must hold."""

    def __init__(self, collection: Collection) -> None:
        self.collection = collection
        self.documents = {document.id: document for document in collection.documents()}
        chunker = Chunker(CHUNKING)
        self.passages = [
            Passage(document.id, ordinal, start, end, document.text[start:end], document.title)
            for document in self.documents.values()
            for ordinal, (start, end) in enumerate(chunker.spans(document))
        ]
        self.encoder = open_encoder(HASHING)
        self.vectors = self.encoder.encode_texts([passage_text(passage) for passage in self.passages]).vectors

    def scores(self, query: str, mode: str) -> dict[tuple[str, int], float]:
        """Score of every passage that a mode may return, by (document, ordinal)."""
        if mode == "dense":
            values = self.vectors @ self.encoder.encode_queries([Query("q", query)])[0]
            keys = [(passage.doc_id, passage.ordinal) for passage in self.passages]
            return dict(zip(keys, values.tolist(), strict=True))
        found = self(query, mode, k=len(self.passages), group="passage", depth=10_000)
        return {(hit.doc_id, hit.passage.ordinal): hit.score or 0.0 for hit in found.hits}

    def __call__(self, query: str, mode: str, **options: Any) -> Ranking:
        return self.collection.search(query, mode=mode, **options)


@pytest.fixture(scope="module", params=[make_compacted, make_live, make_live_in_small_pieces])
def world(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    make: Callable[[Path], Collection] = request.param
    with make(tmp_path_factory.mktemp("grouping") / "c") as collection:
        yield World(collection)


def keys(hits: tuple[Hit, ...]) -> list[tuple[str, int]]:
    return [(hit.doc_id, hit.passage.ordinal) for hit in hits]


def best_of_each(scores: dict[tuple[str, int], float]) -> dict[str, float]:
    found: dict[str, float] = {}
    for (doc_id, _), score in scores.items():
        found[doc_id] = max(score, found.get(doc_id, -np.inf))
    return found


def check_documents(hits: tuple[Hit, ...], scores: dict[tuple[str, int], float], k: int) -> None:
    best = best_of_each(scores)
    wanted = sorted(best.values(), reverse=True)[:k]
    order = [(-(hit.score or 0.0), hit.doc_id) for hit in hits]
    assert order == sorted(order)
    assert len({hit.doc_id for hit in hits}) == len(hits) == len(wanted)
    np.testing.assert_allclose([hit.score for hit in hits], wanted, atol=TOLERANCE)
    np.testing.assert_allclose([hit.score for hit in hits], [best[hit.doc_id] for hit in hits], atol=TOLERANCE)
    np.testing.assert_allclose([hit.score for hit in hits], [scores[key] for key in keys(hits)], atol=TOLERANCE)


def test_the_giant_has_more_passages_than_a_search_looks_at(world: World) -> None:
    assert sum(passage.doc_id == "giant" for passage in world.passages) > 250


@pytest.mark.parametrize("mode", MODES)
def test_passages_carry_their_place_in_the_document(world: World, mode: str) -> None:
    expected = {(passage.doc_id, passage.ordinal): passage for passage in world.passages}
    found = world("beta gamma", mode, k=len(expected), group="passage")
    assert len(set(keys(found.hits))) == len(found.hits) > SMALL
    for hit in found.hits:
        assert hit.passage == expected[hit.doc_id, hit.passage.ordinal]
        assert hit.passage.text == world.documents[hit.doc_id].text[hit.passage.start : hit.passage.end]
        assert hit.metadata == world.documents[hit.doc_id].metadata
    if mode == "dense":
        assert set(keys(found.hits)) == expected.keys()


@pytest.mark.parametrize("mode", MODES)
def test_passages_are_ordered_by_score_document_and_place(world: World, mode: str) -> None:
    found = world("alpha bomo", mode, k=500, group="passage").hits
    order = [(-(hit.score or 0.0), hit.doc_id, hit.passage.ordinal) for hit in found]
    assert order == sorted(order)


@pytest.mark.parametrize("mode", ["dense", "lexical"])
@pytest.mark.parametrize("query", ["alpha", "alpha katan", "beta gamma rivix", "zulo"])
@pytest.mark.parametrize("k", [1, 5, 15, SMALL + 1])
def test_each_document_comes_once_by_its_best_passage(world: World, mode: str, query: str, k: int) -> None:
    check_documents(world(query, mode, k=k).hits, world.scores(query, mode), k)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("query", ["alpha", "beta katan"])
def test_grouping_keeps_the_first_passage_of_each_document(world: World, mode: str, query: str) -> None:
    # At one depth for both, which holds every passage, so that a fusion scales both alike.
    everything = world(query, mode, k=len(world.passages), depth=2000, group="passage").hits
    first: dict[str, Hit] = {}
    for hit in everything:
        first.setdefault(hit.doc_id, hit)
    assert world(query, mode, k=len(world.passages), depth=2000).hits == tuple(first.values())


@pytest.mark.parametrize("mode", MODES)
def test_documents_behind_one_that_fills_the_candidates_are_found_with_a_note(world: World, mode: str) -> None:
    mentioned = {document.id for document in corpus() if "alpha" in document.text}
    wanted = mentioned if mode == "lexical" else world.documents.keys()
    found = world("alpha", mode, k=len(wanted), depth=10)
    assert {hit.doc_id for hit in found.hits} == wanted
    (note,) = found.notes
    assert note.startswith("depth_raised=")
    assert int(note.split("=")[1].split(":")[0]) > 10
    # With room for every passage nothing has to be raised.
    assert world("alpha", mode, k=len(wanted), depth=len(world.passages)).notes == ()


@pytest.mark.parametrize("mode", MODES)
def test_only_the_request_that_needs_it_looks_deeper(world: World, mode: str) -> None:
    requests = [
        SearchRequest(Query("shallow", "beta"), k=3, depth=15, filter={"type": "eq", "key": "size", "value": "small"}),
        SearchRequest(Query("deep", "alpha"), k=15, depth=15),
    ]
    shallow, deep = world.collection.search_many(requests, mode=mode)
    assert shallow.query_id == "shallow"
    assert shallow.notes == ()
    assert len(deep.hits) == 15
    assert deep.notes
    for request, found in zip(requests, (shallow, deep), strict=True):
        alone = world.collection.search_many([request], mode=mode)[0]
        assert alone.notes == found.notes
        np.testing.assert_allclose([h.score for h in alone.hits], [h.score for h in found.hits], atol=TOLERANCE)


@pytest.mark.parametrize("mode", ["dense", "lexical"])
def test_pages_of_documents_tile_even_where_they_look_deeper(world: World, mode: str) -> None:
    everything = world("alpha", mode, k=20, depth=20).hits
    pages = [world("alpha", mode, k=4, offset=offset, depth=20).hits for offset in range(0, 20, 4)]
    assert [hit.doc_id for page in pages for hit in page] == [hit.doc_id for hit in everything]


@pytest.mark.parametrize("mode", MODES)
def test_filters_and_exclusions_concern_all_passages_of_a_document(world: World, mode: str) -> None:
    small = world("alpha", mode, k=50, filter={"type": "eq", "key": "size", "value": "small"}, group="passage")
    assert "giant" not in {hit.doc_id for hit in small.hits}
    without = world("alpha", mode, k=50, exclude=frozenset({"giant"}), group="passage")
    assert [hit.doc_id for hit in without.hits] == [hit.doc_id for hit in small.hits]
    only = world("alpha", mode, k=1000, filter={"type": "eq", "key": "_id", "value": "giant"}, group="passage")
    count = sum(passage.doc_id == "giant" and "alpha" in passage.text for passage in world.passages)
    assert len(only.hits) >= count
    assert {hit.doc_id for hit in only.hits} == {"giant"}


@pytest.mark.parametrize("mode", MODES)
def test_more_like_a_long_document_returns_none_of_its_passages(world: World, mode: str) -> None:
    found = world("", mode, like="giant", k=30, group="passage")
    assert len(found.hits) == 30
    assert "giant" not in {hit.doc_id for hit in found.hits}


def test_more_like_a_long_document_starts_from_the_mean_of_its_passages(world: World) -> None:
    own = np.array([passage.doc_id == "giant" for passage in world.passages])
    mean = world.vectors[own].mean(axis=0)
    values = world.vectors @ (mean / np.linalg.norm(mean))
    scores = {
        (passage.doc_id, passage.ordinal): float(value)
        for passage, value, mine in zip(world.passages, values, own, strict=True)
        if not mine
    }
    check_documents(world("", "dense", like="giant", k=10).hits, scores, 10)


@pytest.mark.parametrize("mode", MODES)
def test_evidence_ranks_passages(world: World, mode: str) -> None:
    for hit in world("alpha katan", mode, k=12).hits:
        for evidence in hit.evidence:
            ranked = sorted(world.scores("alpha katan", evidence.stage).values(), reverse=True)
            if evidence.rank is not None:
                assert ranked[evidence.rank - 1] == pytest.approx(evidence.score, abs=TOLERANCE)


# -- changes ----------------------------------------------------------------------------------------------------------


def rows(collection: Collection, doc_id: str) -> list[Hit]:
    condition = {"type": "eq", "key": "_id", "value": doc_id}
    found = collection.search("anything", mode="dense", k=1000, group="passage", filter=condition)
    return sorted(found.hits, key=lambda hit: hit.passage.ordinal)


@pytest.mark.parametrize("compacted", [False, True])
def test_an_update_replaces_every_passage(tmp_path: Path, compacted: bool) -> None:
    rng = random.Random(3)
    with Collection.create(tmp_path / "c", CONFIG) as collection, Collection.open(tmp_path / "c") as reader:
        long = sentences(rng, 80, "alpha")
        collection.add([Document("other", "beta"), Document("a", long), Document("last", "beta")])
        if compacted:
            collection.compact()
        assert len(rows(reader, "a")) > 20
        covered = {place for hit in rows(reader, "a") for place in range(hit.passage.start, hit.passage.end)}
        assert all(place in covered for place, character in enumerate(long) if not character.isspace())

        report = collection.add([Document("a", "gamma")])
        assert (report.updated, report.encoded) == (1, 1)
        for one in (collection, reader):
            assert [(hit.passage.start, hit.passage.end, hit.passage.text) for hit in rows(one, "a")] == [
                (0, 5, "gamma")
            ]
            assert one.search("alpha", mode="lexical", k=100, group="passage").hits == ()
            assert [hit.doc_id for hit in one.search("gamma", mode="lexical", group="passage").hits] == ["a"]
            assert len(one.search("beta", mode="dense", k=100, group="passage").hits) == 3

        collection.add([Document("a", long)])
        assert len(rows(reader, "a")) > 20
        collection.delete("a")
        for one in (collection, reader):
            assert rows(one, "a") == []
            assert one.search("alpha gamma", mode="lexical", group="passage").hits == ()


def test_a_passage_that_did_not_change_is_not_encoded_again(tmp_path: Path) -> None:
    rng = random.Random(4)
    paragraphs = [f"{sentences(rng, 4, f'word{place}')}\n\n" for place in range(10)]
    with Collection.create(tmp_path / "c", CONFIG) as collection:
        first = collection.add([Document("a", "".join(paragraphs))])
        assert first.encoded == len(rows(collection, "a")) > 10
        paragraphs[-1] = "another end"
        second = collection.add([Document("a", "".join(paragraphs))])
        assert 0 < second.encoded < first.encoded / 2
        assert second.updated == 1


def test_a_patch_reaches_every_passage_and_encodes_nothing(tmp_path: Path) -> None:
    with Collection.create(tmp_path / "c", CONFIG) as collection:
        collection.add([Document("a", sentences(random.Random(5), 60, "alpha"), metadata={"n": 1})])
        collection.compact()
        collection.patch("a", {"n": 2})
        found = collection.search(
            "alpha", mode="lexical", k=500, group="passage", filter={"type": "eq", "key": "n", "value": 2}
        )
        assert len(found.hits) == len(rows(collection, "a")) > 10
        assert {hit.metadata["n"] for hit in found.hits} == {2}
