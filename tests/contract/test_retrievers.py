"""One suite over every mode of a collection: what a Retriever promises, checked against brute force.

Two states of the same content are searched: `compacted`, all in the base, and `live`, where a third was written,
updated, patched or deleted after the last compaction. Scores may differ from the oracle's by rounding, so neighbours
closer than TOLERANCE may swap; the order of a ranking by its own scores is exact. RRF turns such a swap into another
score, so its rankings are checked against the ranks that they give as evidence, and those against the parts.
"""

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from index.errors import RequestError, ShapeError
from retrieval.collection import Collection, build
from retrieval.collection_config import CollectionConfig, DenseField
from retrieval.encoders import EncoderConfig, open_encoder, passage_text
from retrieval.lexical import LexicalConfig
from retrieval.protocols import Retriever
from retrieval.types import Document, Hit, Passage, Query, Ranking, SearchRequest

COUNT = 3000
DEPTH = 200
TOLERANCE = 1e-5
HASHING = EncoderConfig(kind="hashing", dim=256)
MINE_DIM = 12

PIPELINE = """
default = "hybrid"
[fusion.hybrid]
parts = ["dense", "lexical"]
weights = [0.4, 0.6]
[fusion.rrf]
parts = ["dense", "lexical"]
weights = [1.0, 1.0]
method = "rrf"
[fusion.three]
parts = ["lexical", "mine", "dense"]
weights = [2.0, 1.0, 1.0]
"""
PARTS = {"hybrid": ("dense", "lexical"), "rrf": ("dense", "lexical"), "three": ("lexical", "mine", "dense")}
WEIGHTS = {"hybrid": (0.4, 0.6), "rrf": (1.0, 1.0), "three": (0.5, 0.25, 0.25)}
MODES = ("dense", "mine", "lexical", "hybrid", "rrf", "three")

VOCABULARY = [f"{a}{b}{c}o" for a in ("b", "d", "k", "pl", "r", "z") for b in "aiou" for c in "mnvxt"]
Table = Mapping[str, float]


def a_text(rng: random.Random, words: int) -> str:
    return " ".join(rng.choices(VOCABULARY, weights=[1 / (rank + 3) for rank in range(len(VOCABULARY))], k=words))


def a_vector(rng: random.Random) -> npt.NDArray[np.float32]:
    return np.array([rng.gauss(0, 1) for _ in range(MINE_DIM)], np.float32)


def corpus(seed: int = 0) -> dict[str, Document]:
    """Documents in an order that is not that of their ids, with fields of 50, 10, 1 and 0.1 % selectivity."""
    rng = random.Random(seed)
    numbers = rng.sample(range(10 * COUNT), COUNT)
    shares = rng.sample(range(COUNT), COUNT)
    return {
        f"doc/{number} é": Document(
            id=f"doc/{number} é",
            text=a_text(rng, rng.randrange(2, 30)),
            title=a_text(rng, 2) if place % 3 == 0 else "",
            metadata={"place": share, "color": ["red", "green"][share % 2], "tags": [share % 10, "t"]},
            vectors={"mine": a_vector(rng)},
        )
        for place, (number, share) in enumerate(zip(numbers, shares, strict=True))
    }


SELECTIVITIES: dict[str, dict[str, Any]] = {
    "50 %": {"type": "eq", "key": "color", "value": "red"},
    "10 %": {"type": "contains_any", "key": "tags", "value": [7]},
    "1 %": {"type": "lt", "key": "place", "value": COUNT // 100},
    "0.1 %": {"type": "in", "key": "place", "value": [3, 1000, 2999]},
    "none": {"type": "lt", "key": "place", "value": 0},
}
MATCHES: dict[str, Callable[[Document], bool]] = {
    "50 %": lambda document: document.metadata["place"] % 2 == 0,
    "10 %": lambda document: document.metadata["place"] % 10 == 7,
    "1 %": lambda document: document.metadata["place"] < COUNT // 100,
    "0.1 %": lambda document: document.metadata["place"] in (3, 1000, 2999),
    "none": lambda _: False,
}


def queries() -> list[Query]:
    rng = random.Random(1)
    texts = [a_text(rng, words) for words in (1, 2, 3, 5, 12)] + [VOCABULARY[-1], f"{VOCABULARY[3]} unheardof"]
    return [Query(f"q{place}", text, vectors={"mine": a_vector(rng)}) for place, text in enumerate(texts)]


def config(engine: str = "tantivy") -> CollectionConfig:
    return CollectionConfig(
        fields={
            "mine": DenseField(EncoderConfig(kind="external", dim=MINE_DIM), metric="l2"),
            "dense": DenseField(HASHING),
            "lexical": LexicalConfig(engine="lucene" if engine == "lucene" else "tantivy"),
        }
    )


def make_compacted(folder: Path, engine: str = "tantivy") -> Collection:
    build(folder, corpus().values(), config(engine))
    (folder / "pipeline.toml").write_text(PIPELINE)
    return Collection.open(folder, writable=True)


def make_live(folder: Path) -> Collection:
    """Reach the same content by another way: other texts first, replaced and patched later, and some deleted."""
    wanted = list(corpus().values())
    other = list(corpus(seed=9).values())
    rng = random.Random(2)
    first = [
        replace(document, text=other[place].text) if place % 9 == 0 else replace(document, metadata={"place": -1})
        if place % 9 == 1 else document
        for place, document in enumerate(wanted[:2000])
    ]  # fmt: skip
    gone = [replace(document, id=f"gone {document.id}") for document in other[:100]]
    build(folder, rng.sample(first + gone, len(first) + len(gone)), config())
    (folder / "pipeline.toml").write_text(PIPELINE)
    collection = Collection.open(folder, writable=True)
    collection.search("warm", mode="dense")
    collection.delete([document.id for document in gone[:60]])
    collection.add(wanted[2000:2600])
    collection.add([replace(document, text="for a moment", metadata={}) for document in wanted[1950:2100]])
    collection.search("warm", mode="dense")
    collection.add(wanted)
    collection.delete([document.id for document in gone])
    generation = collection.shard.generation()
    assert generation is not None
    assert generation.number == 1, "too much was written to stay in the live tier"
    return collection


STATES: dict[str, Callable[[Path], Collection]] = {
    "compacted": make_compacted,
    "live": make_live,
    "lucene": partial(make_compacted, engine="lucene"),
}


class World:
    """One collection, what it holds, and every document's score in each single mode, by brute force where possible."""

    def __init__(self, collection: Collection) -> None:
        self.collection = collection
        self.documents = {document.id: document for document in collection.documents()}
        self.row = {doc_id: row for row, doc_id in enumerate(self.documents)}
        encoder = open_encoder(HASHING)
        passages = [Passage(d.id, 0, 0, len(d.text), d.text, d.title) for d in self.documents.values()]
        self._encoder = encoder
        self.hashed = encoder.encode_texts([passage_text(passage) for passage in passages]).vectors.astype(np.float64)
        self.mine = np.stack([document.vectors["mine"] for document in self.documents.values()]).astype(np.float64)
        self.single = cache(self._single)

    def _single(self, part: str, place: int) -> Table:
        query = queries()[place]
        if part == "lexical":  # which passages match and how they score is the engines' own suite's business
            found = self.collection.search(query, mode="lexical", k=len(self.documents))
            return {hit.doc_id: hit.score or 0.0 for hit in found.hits}
        if part == "mine":
            values = -((self.mine - query.vectors["mine"].astype(np.float64)) ** 2).sum(axis=1)
        else:
            values = self.hashed @ self._encoder.encode_queries([query])[0].astype(np.float64)
        return dict(zip(self.documents, values.tolist(), strict=True))

    def best(self, table: Table, depth: int) -> list[str]:
        """The candidates a stage contributes: by score, ties by row."""
        return sorted(table, key=lambda doc_id: (-table[doc_id], self.row[doc_id]))[:depth]

    def expected(self, mode: str, place: int, allowed: set[str] | None = None, depth: int = DEPTH) -> Table:
        """Every document that may be returned, with its score."""
        parts = PARTS.get(mode, (mode,))
        full = {part: self.single(part, place) for part in parts}
        tables = {
            part: {i: s for i, s in table.items() if allowed is None or i in allowed} for part, table in full.items()
        }
        if mode not in PARTS:
            return tables[mode]
        candidates = {part: self.best(table, depth) for part, table in tables.items()}
        pool = {doc_id for part in parts for doc_id in candidates[part]}
        fused = dict.fromkeys(pool, 0.0)
        for part, weight in zip(parts, WEIGHTS[mode], strict=True):
            term = self._rrf(candidates[part]) if mode == "rrf" else self._scaled(part, tables[part], candidates[part])
            for doc_id in pool:
                fused[doc_id] += weight * term(doc_id)
        return fused

    @staticmethod
    def _rrf(candidates: Sequence[str]) -> Callable[[str], float]:
        ranks = {doc_id: rank for rank, doc_id in enumerate(candidates, 1)}
        return lambda doc_id: 1 / (60 + ranks[doc_id]) if doc_id in ranks else 0.0

    @staticmethod
    def _scaled(part: str, table: Table, candidates: Sequence[str]) -> Callable[[str], float]:
        if not candidates:
            return lambda _: 0.0
        high, low = table[candidates[0]], table[candidates[-1]]
        if part == "lexical":
            inside = set(candidates)
            return lambda doc_id: table[doc_id] / high if doc_id in inside else 0.0
        return lambda doc_id: (table[doc_id] - low) / (high - low) if high > low else 1.0


@dataclass(frozen=True)
class System:
    """One Retriever under test."""

    state: str
    mode: str
    world: World

    @property
    def retriever(self) -> Retriever:
        return self.world.collection.retriever(self.mode)

    def __call__(self, query: Query, **options: Any) -> Ranking:
        return self.retriever.retrieve([SearchRequest(query, **options)])[0]

    def check(self, found: Ranking, place: int, k: int, allowed: set[str] | None = None, *, depth: int = DEPTH) -> None:
        """The answer to queries()[place] is the head of brute force over the allowed documents."""
        expected = self.world.expected(self.mode, place, allowed, depth)
        if self.mode != "rrf":
            check_hits(found.hits, expected, k)
            return
        check_order(found.hits)
        check_ranks(found.hits)
        assert len(found.hits) == min(k, len(expected))
        assert allowed is None or set(identities(found.hits)) <= allowed


def marked(state: str, *rest: str) -> Any:
    value = (state, *rest) if rest else state
    return pytest.param(value, marks=[pytest.mark.lucene] * (state == "lucene"), id="-".join((state, *rest)))


@pytest.fixture(scope="module")
def worlds(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[str], World]]:
    """Return a state's world, built when first asked for."""
    with ExitStack() as stack:

        @cache
        def get(state: str) -> World:
            if state == "lucene":
                request.getfixturevalue("lucene")
            return World(stack.enter_context(STATES[state](tmp_path_factory.mktemp(state) / "c")))

        yield get


@pytest.fixture(params=[marked(state) for state in STATES])
def world(request: pytest.FixtureRequest, worlds: Callable[[str], World]) -> tuple[str, World]:
    return request.param, worlds(request.param)


LUCENE_MODES = ("lexical", "hybrid")
"""The engine changes nothing of the others."""


@pytest.fixture(
    params=[marked(state, mode) for state in STATES for mode in (LUCENE_MODES if state == "lucene" else MODES)]
)
def system(request: pytest.FixtureRequest, worlds: Callable[[str], World]) -> System:
    state, mode = request.param
    return System(state, mode, worlds(state))


def identities(hits: Sequence[Hit]) -> list[str]:
    return [hit.doc_id for hit in hits]


def check_order(hits: Sequence[Hit]) -> None:
    assert all(hit.score is not None for hit in hits)
    keys = [(-(hit.score or 0.0), hit.doc_id) for hit in hits]
    assert keys == sorted(keys)
    assert len(set(identities(hits))) == len(hits)


def check_hits(hits: Sequence[Hit], expected: Table, k: int, offset: int = 0) -> None:
    """Hits are places offset .. offset + k of the table by score, up to swaps of scores that rounding may swap."""
    check_order(hits)
    wanted = sorted(expected.values(), reverse=True)[offset : offset + k]
    assert len(hits) == len(wanted)
    np.testing.assert_allclose([hit.score for hit in hits], wanted, rtol=TOLERANCE, atol=TOLERANCE)
    np.testing.assert_allclose(
        [hit.score for hit in hits], [expected[hit.doc_id] for hit in hits], rtol=TOLERANCE, atol=TOLERANCE
    )


def check_ranks(hits: Sequence[Hit]) -> None:
    """Reciprocal rank fusion: each score follows from the ranks that the hit gives as evidence."""
    for hit in hits:
        terms = (1 / (60 + evidence.rank) for evidence in hit.evidence if evidence.rank is not None)
        assert hit.score == pytest.approx(sum(terms), abs=1e-12)


def check_same(found: Ranking, expected: Ranking) -> None:
    """Two answers to one request, up to swaps of scores that rounding may swap."""
    assert found.query_id == expected.query_id
    assert found.notes == expected.notes
    assert len(found.hits) == len(expected.hits)
    check_order(found.hits)
    if any(hit.stage == "rrf" for hit in expected.hits):
        check_ranks(found.hits)
        return
    known = {hit.doc_id: hit.score or 0.0 for hit in expected.hits}
    last = min(known.values(), default=0.0)
    for hit, other in zip(found.hits, expected.hits, strict=True):
        assert hit.score == pytest.approx(other.score, abs=TOLERANCE)
        assert hit.score == pytest.approx(known.get(hit.doc_id, last), abs=TOLERANCE)


# -- rankings ---------------------------------------------------------------------------------------------------------


def test_the_content_is_what_was_written(world: tuple[str, World]) -> None:
    found = world[1].documents
    assert found.keys() == corpus().keys()
    for doc_id, document in corpus().items():
        assert replace(found[doc_id], vectors={}) == replace(document, vectors={})
        np.testing.assert_array_equal(found[doc_id].vectors["mine"], document.vectors["mine"])


@pytest.mark.parametrize("k", [1, 10, 100])
def test_rankings_are_those_of_brute_force(system: System, k: int) -> None:
    for place, query in enumerate(queries()):
        system.check(system(query, k=k), place, k)


def test_hits_say_what_was_found(system: System) -> None:
    ranking = system(queries()[3], k=20)
    assert ranking.query_id == "q3"
    assert ranking.notes == ()
    assert min(ranking.timings_s.values()) >= 0
    assert len(ranking.hits) == 20
    for hit in ranking.hits:
        document = system.world.documents[hit.doc_id]
        assert hit.passage == Passage(document.id, 0, 0, len(document.text), document.text, document.title)
        assert hit.metadata == document.metadata
        assert hit.stage == system.mode
        assert tuple(evidence.stage for evidence in hit.evidence) == PARTS.get(system.mode, (system.mode,))


def test_fewer_results_are_the_head_of_more(system: System) -> None:
    for query in queries():
        check_order(many := system(query, k=DEPTH).hits)
        for k in (1, 5, 20, DEPTH - 1):
            assert system(query, k=k).hits == many[:k]


def test_pages_tile(system: System) -> None:
    for query in queries():
        many = system(query, k=60).hits
        pages = [system(query, k=7, offset=offset).hits for offset in range(0, 63, 7)]
        assert tuple(hit for page in pages for hit in page)[:60] == many
        assert all(len(page) == 7 for page in pages if system.mode != "lexical")


def test_a_page_after_the_last_is_empty(system: System) -> None:
    assert system(queries()[2], k=10, offset=COUNT).hits == ()


def test_everything_comes_when_more_is_asked_for_than_there_is(system: System) -> None:
    for place, query in enumerate(queries()[:3]):
        found = system(query, k=2 * COUNT)
        check_order(found.hits)
        lexical = system.world.single("lexical", place)
        assert set(identities(found.hits)) == (lexical if system.mode == "lexical" else system.world.documents).keys()
        assert found.notes == ("depth_raised=6000: offset + k needed more candidates than depth 200",)


@pytest.mark.parametrize("k", [DEPTH + 1, 700])
def test_results_beyond_the_depth_raise_it_with_a_note(system: System, k: int) -> None:
    for place, query in enumerate(queries()[:4]):
        found = system(query, k=k)
        system.check(found, place, k, depth=k)
        assert found.notes == (f"depth_raised={k}: offset + k needed more candidates than depth {DEPTH}",)


def test_a_request_may_set_its_depth(system: System) -> None:
    for place, query in enumerate(queries()):
        found = system(query, k=10, depth=25)
        system.check(found, place, 10, depth=25)
        assert found.notes == ()


# -- filters ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("share", SELECTIVITIES)
def test_filtered_rankings_are_those_of_brute_force_over_the_documents_that_match(system: System, share: str) -> None:
    allowed = {doc_id for doc_id, document in system.world.documents.items() if MATCHES[share](document)}
    for place, query in enumerate(queries()):
        for k in (10, 100):
            system.check(system(query, k=k, filter=SELECTIVITIES[share]), place, k, allowed)


def test_never_fewer_than_asked_for_while_more_exist(system: System) -> None:
    allowed = {doc_id for doc_id, document in system.world.documents.items() if MATCHES["10 %"](document)}
    for place, query in enumerate(queries()[:4]):
        reachable = allowed & system.world.single("lexical", place).keys() if system.mode == "lexical" else allowed
        for k in (1, 50, len(reachable) - 1, len(reachable), len(reachable) + 1):
            found = system(query, k=max(k, 1), depth=1, filter=SELECTIVITIES["10 %"]).hits
            assert len(found) == min(max(k, 1), len(reachable))
            assert set(identities(found)) <= reachable


def test_ids_can_be_filtered(system: System) -> None:
    some = list(system.world.documents)[::500]
    found = system(queries()[4], k=100, filter={"type": "in", "key": "_id", "value": [*some, "nobody"]})
    assert set(identities(found.hits)) <= set(some)
    others = system(queries()[4], k=100, filter={"type": "nin", "key": "_id", "value": some})
    assert not set(identities(others.hits)) & set(some)


@pytest.mark.parametrize(
    "condition",
    [
        {"type": "eq", "key": "colour", "value": "red"},
        {"type": "not", "filter": {"type": "exists", "key": "nobody"}},
        {"type": "like", "key": "color", "value": "r%"},
        {"type": "eq", "key": "color"},
        {},
        [],
        "color = red",
    ],
)
def test_filters_that_cannot_be_answered_are_refused(system: System, condition: Any) -> None:
    with pytest.raises(RequestError, match="filter"):
        system(queries()[0], filter=condition)


# -- batches ----------------------------------------------------------------------------------------------------------


def mixed(system: System) -> list[SearchRequest]:
    """Requests that differ in everything, in an order that is not that of their answers' costs."""
    some = tuple(system.world.documents)
    options: list[dict[str, Any]] = [
        {},
        {"k": 3, "filter": SELECTIVITIES["1 %"]},
        {"k": 7, "offset": 5, "filter": SELECTIVITIES["50 %"]},
        {"k": 250},
        {"k": 5, "exclude": frozenset(some[:1500])},
        {"k": 9, "like": some[77]},
        {"k": 9, "like": some[2500], "filter": SELECTIVITIES["10 %"], "exclude": frozenset(some[:10])},
        {"k": 4, "filter": SELECTIVITIES["none"]},
        {"k": 12, "depth": 15},
        {"k": 6, "diversity": 0.5, "depth": 20},
        {"k": 6, "group": "passage", "filter": SELECTIVITIES["0.1 %"]},
        {"k": 30, "min_score": 0.3},
        {"k": 2, "filter": SELECTIVITIES["50 %"]},
    ]
    return [
        SearchRequest(replace(queries()[place % len(queries())], id=f"r{place}"), **option)
        for place, option in enumerate(options)
    ]


def test_a_batch_answers_as_its_requests_would_alone(system: System) -> None:
    requests = mixed(system)
    together = system.retriever.retrieve(requests)
    assert [ranking.query_id for ranking in together] == [request.query.id for request in requests]
    for request, found in zip(requests, together, strict=True):
        if request.diversity:
            continue  # a swap of two near-equal choices changes all later ones; checked on its own below
        check_same(found, system.retriever.retrieve([request])[0])


def test_the_order_of_a_batch_does_not_matter(system: System) -> None:
    requests = [request for request in mixed(system) if not request.diversity]
    forward, backward = system.retriever.retrieve(requests), system.retriever.retrieve(requests[::-1])
    for found, expected in zip(backward[::-1], forward, strict=True):
        check_same(found, expected)


def test_each_request_of_a_batch_keeps_its_own_filter(system: System) -> None:
    names = [*SELECTIVITIES] * 3
    requests = [SearchRequest(queries()[3], k=50, filter=SELECTIVITIES[name]) for name in names]
    for name, ranking in zip(names, system.retriever.retrieve(requests), strict=True):
        assert all(MATCHES[name](system.world.documents[hit.doc_id]) for hit in ranking.hits)
        assert bool(ranking.hits) == (name != "none") or system.mode == "lexical"


def test_an_empty_batch_has_no_answers(system: System) -> None:
    assert system.retriever.retrieve([]) == []


# -- options ----------------------------------------------------------------------------------------------------------


def test_excluded_documents_are_as_if_they_were_not_there(system: System) -> None:
    for place, query in enumerate(queries()):
        without = frozenset(identities(system(query, k=30).hits[::2])) | {"no such document"}
        found = system(query, k=40, exclude=without)
        assert not without & set(identities(found.hits))
        system.check(found, place, 40, system.world.documents.keys() - without)


def test_a_least_score_cuts_the_tail(system: System) -> None:
    for query in queries():
        plain = system(query, k=50).hits
        bound = plain[len(plain) // 3].score
        assert bound is not None
        wanted = tuple(hit for hit in plain if (hit.score or 0.0) >= bound)
        assert system(query, k=50, min_score=bound).hits == wanted
        assert system(query, k=50, min_score=bound, offset=3).hits == wanted[3:]
        assert system(query, k=50, min_score=1e9).hits == ()


def test_more_like_this_never_returns_what_it_started_from(system: System) -> None:
    for doc_id in list(system.world.documents)[::300]:
        found = system(Query("q", ""), like=doc_id, k=30)
        assert doc_id not in identities(found.hits)
        check_order(found.hits)
        assert len(found.hits) == 30
        assert found.query_id == "q"


@pytest.mark.parametrize("mode", ["dense", "mine"])  # lexical engines choose words by rules that their suite checks
def test_more_like_this_compares_with_the_document(world: tuple[str, World], mode: str) -> None:
    system = System(world[0], mode, world[1])
    ids = list(system.world.documents)
    for place in (0, 1234, COUNT - 1):
        if mode == "dense":
            scores = system.world.hashed @ system.world.hashed[place]
        else:
            scores = -((system.world.mine - system.world.mine[place]) ** 2).sum(axis=1)
        expected = {doc_id: score for doc_id, score in zip(ids, scores.tolist(), strict=True) if doc_id != ids[place]}
        check_hits(system(Query("q", ""), like=ids[place], k=20).hits, expected, 20)


def test_more_like_this_needs_a_document(system: System) -> None:
    with pytest.raises(RequestError, match="nobody"):
        system(Query("q", "text"), like="nobody")


def test_no_diversity_is_the_plain_order(system: System) -> None:
    for query in queries():
        assert system(query, k=20, diversity=0.0).hits == system(query, k=20).hits


@pytest.mark.parametrize("diversity", [0.3, 1.0])
def test_diverse_results_are_chosen_greedily(system: System, diversity: float) -> None:
    directions = system.world.mine / np.linalg.norm(system.world.mine, axis=1, keepdims=True)  # the first dense field
    for place, query in enumerate(queries()[:4]):
        chosen = system(query, k=12, depth=40, diversity=diversity).hits
        assert len(set(identities(chosen))) == 12
        scores = system.world.expected(system.mode, place, depth=40)
        if system.mode == "rrf":
            continue
        if system.mode not in PARTS:
            scores = {doc_id: scores[doc_id] for doc_id in system.world.best(scores, 40)}
        ids = list(scores)
        relevance = np.array([scores[doc_id] for doc_id in ids])
        relevance = (relevance - relevance.min()) / (relevance.max() - relevance.min())
        cosine = directions[[system.world.row[doc_id] for doc_id in ids]]
        cosine = cosine @ cosine.T
        taken: list[int] = []
        for hit in chosen:
            nearest = cosine[:, taken].max(axis=1) if taken else np.zeros(len(ids))
            value = (1 - diversity) * relevance - diversity * nearest
            value[taken] = -np.inf
            taken.append(ids.index(hit.doc_id))
            assert value[taken[-1]] >= value.max() - TOLERANCE
            assert hit.score == pytest.approx(scores[hit.doc_id], abs=TOLERANCE)


def test_pages_of_diverse_results_tile(system: System) -> None:
    query = queries()[3]
    many = system(query, k=30, diversity=0.4).hits
    pages = [system(query, k=10, offset=offset, diversity=0.4).hits for offset in (0, 10, 20)]
    assert tuple(hit for page in pages for hit in page) == many
    assert many != system(query, k=30).hits


def test_uncut_documents_are_their_passages(system: System) -> None:
    for query in queries():
        assert system(query, k=25, group="passage").hits == system(query, k=25).hits


# -- evidence ---------------------------------------------------------------------------------------------------------


def test_evidence_is_what_the_parts_say_on_their_own(system: System) -> None:
    for place, query in enumerate(queries()):
        for hit in system(query, k=50).hits:
            for evidence in hit.evidence:
                table = system.world.single(evidence.stage, place)
                descending = sorted(table.values(), reverse=True)
                score = table.get(hit.doc_id, 0.0)
                if evidence.rank is not None:
                    assert evidence.score == pytest.approx(score, abs=TOLERANCE)
                    assert 1 <= evidence.rank <= DEPTH
                    assert descending[evidence.rank - 1] == pytest.approx(score, abs=TOLERANCE)
                else:
                    assert len(descending) <= DEPTH or score <= descending[DEPTH - 1] + TOLERANCE
                    if evidence.stage == "lexical":
                        assert evidence.score == 0
                    elif system.mode != "rrf":  # ranks are all that RRF looks at
                        assert evidence.score == pytest.approx(score, abs=TOLERANCE)


def test_evidence_ranks_are_distinct(system: System) -> None:
    hits = system(queries()[4], k=DEPTH).hits
    for part in range(len(hits[0].evidence)):
        ranks = [hit.evidence[part].rank for hit in hits if hit.evidence[part].rank]
        assert len(set(ranks)) == len(ranks)


# -- bad requests -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["", "   ", "\n\t"])
def test_an_empty_query_is_refused(system: System, text: str) -> None:
    with pytest.raises(RequestError, match="empty"):
        system(Query("q", text))


@pytest.mark.parametrize(
    "option",
    [
        {"k": 0},
        {"k": -1},
        {"k": 100_001},
        {"offset": -1},
        {"offset": 100_001},
        {"depth": 0},
        {"depth": 1_000_001},
        {"diversity": -0.1},
        {"diversity": 1.1},
        {"diversity": float("nan")},
        {"group": "paragraph"},
        {"min_score": float("nan")},
    ],
    ids=str,
)
def test_options_out_of_range_are_refused_by_name(system: System, option: dict[str, Any]) -> None:
    with pytest.raises(RequestError, match=next(iter(option))):
        system(queries()[0], **option)


def test_one_bad_request_is_refused_before_any_is_answered(system: System) -> None:
    with pytest.raises(RequestError, match="k is 0"):
        system.retriever.retrieve([SearchRequest(queries()[0]), SearchRequest(queries()[1], k=0)])


@pytest.mark.parametrize("text", ["\ud800", "fine until \udfff"])
def test_a_query_that_is_no_unicode_is_refused(system: System, text: str) -> None:
    with pytest.raises(RequestError, match="surrogate"):
        system(Query("q", text, vectors=queries()[0].vectors))


def test_words_that_nobody_uses(system: System) -> None:
    found = system(Query("q", "unheardof ?! 123456", vectors=queries()[0].vectors), k=10)
    assert len(found.hits) == (0 if system.mode == "lexical" else 10)
    check_order(found.hits)


def test_unknown_modes_are_refused(world: tuple[str, World]) -> None:
    for call in (
        lambda: world[1].collection.search("x", mode="sparse"),
        lambda: world[1].collection.retriever("sparse"),
        lambda: world[1].collection.search_many([], mode=""),
    ):
        with pytest.raises(RequestError, match=r"hybrid.*dense.*lexical"):
            call()


# -- vectors that clients bring ---------------------------------------------------------------------------------------


def test_a_query_vector_replaces_encoding_the_text(world: tuple[str, World]) -> None:
    wanted = world[1].collection.search(queries()[3], mode="dense", k=20)
    vector = open_encoder(HASHING).encode_queries([queries()[3]])[0]
    found = world[1].collection.search(Query("q3", "other words", vectors={"dense": vector}), mode="dense", k=20)
    check_same(found, wanted)
    check_same(world[1].collection.search(Query("q3", "", vectors={"dense": vector}), mode="dense", k=20), wanted)


@pytest.mark.parametrize("mode", ["mine", "three"])
def test_a_query_without_the_vector_an_external_field_needs_is_refused(world: tuple[str, World], mode: str) -> None:
    with pytest.raises(RequestError, match="vector"):
        world[1].collection.search("some text", mode=mode)


@pytest.mark.parametrize("mode", ["dense", "hybrid", "mine"])
def test_a_query_vector_for_a_field_that_is_not_there_is_refused(world: tuple[str, World], mode: str) -> None:
    with pytest.raises(RequestError, match="typo"):
        world[1].collection.search(Query("q", "text", vectors={"typo": np.ones(256, np.float32)}), mode=mode)


def test_a_query_without_text_needs_a_vector_for_every_dense_part(world: tuple[str, World]) -> None:
    for mode in ("dense", "hybrid", "three"):
        with pytest.raises(RequestError, match="dense"):
            world[1].collection.search(Query("q", "", vectors=queries()[0].vectors), mode=mode)


@pytest.mark.parametrize(
    "vector",
    [np.ones(MINE_DIM - 1, np.float32), np.ones((1, MINE_DIM), np.float32), np.full(MINE_DIM, np.nan, np.float32)],
    ids=["short", "two-dimensional", "nan"],
)
@pytest.mark.parametrize("others", [0, 2])
def test_query_vectors_of_another_shape_are_refused(
    world: tuple[str, World], vector: npt.NDArray[np.float32], others: int
) -> None:
    requests = [SearchRequest(queries()[0])] * others + [SearchRequest(Query("bad", "", vectors={"mine": vector}))]
    with pytest.raises((RequestError, ShapeError), match="bad"):
        world[1].collection.search_many(requests, mode="mine")


# -- fusion -----------------------------------------------------------------------------------------------------------


def spread(table: Table) -> float:
    """Smallest difference between two scores."""
    values = np.sort(list(table.values()))
    return float(np.diff(values).min())


@pytest.fixture(scope="module")
def fusion_corpus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, World]]:
    """Few documents, each of its own length and words, so that no two dense scores are near each other."""
    rng = random.Random(4)
    documents = [
        Document(f"{rng.randrange(10**6)}", a_text(rng, 6 + place), vectors={"mine": a_vector(rng)})
        for place in range(70)
    ]
    folder = tmp_path_factory.mktemp("fusion") / "c"
    build(folder, documents, config())
    with Collection.open(folder) as collection:
        yield folder, World(collection)


@pytest.mark.parametrize("method", ["scores", "rrf"])
@pytest.mark.parametrize("depth", [1, 5, 20, 69, 70, 200])
@pytest.mark.parametrize("weights", [(0.4, 0.6), (1.0, 0.0), (0.0, 3.0), (5.0, 2.0)])
def test_fusion_is_its_definition(
    fusion_corpus: tuple[Path, World], tmp_path: Path, method: str, depth: int, weights: tuple[float, float]
) -> None:
    folder, world = fusion_corpus
    pipeline = tmp_path / "p.toml"
    pipeline.write_text(
        f'default = "f"\ndepth = {depth}\n[fusion.f]\nparts = ["dense", "lexical"]\n'
        f'weights = {list(weights)}\nmethod = "{method}"\n'
    )
    with Collection.open(folder, pipeline=pipeline) as collection:
        for place, query in enumerate(queries()):
            tables = {part: world.single(part, place) for part in ("dense", "lexical")}
            candidates = {part: world.best(table, depth) for part, table in tables.items()}
            if method == "rrf" and spread(tables["dense"]) < 1e-6:
                continue  # the query of one rare word: most documents score 0
            pool = set(candidates["dense"]) | set(candidates["lexical"])
            fused = {}
            for doc_id in pool:
                if method == "scores":
                    values = [tables["dense"][i] for i in candidates["dense"]]
                    low, high = min(values), max(values)
                    dense = (
                        (tables["dense"][doc_id] - low) / (high - low)
                        if high > low
                        else float(tables["dense"][doc_id] >= low - TOLERANCE)
                    )
                    found = tables["lexical"][doc_id] if doc_id in candidates["lexical"] else 0.0
                    lexical = found / max(tables["lexical"].values()) if found else 0.0
                    total = weights[0] + weights[1]
                    fused[doc_id] = (weights[0] * dense + weights[1] * lexical) / total
                else:
                    fused[doc_id] = sum(
                        weight / (60 + 1 + candidates[part].index(doc_id))
                        for part, weight in zip(("dense", "lexical"), weights, strict=True)
                        if doc_id in candidates[part]
                    )
            k = min(depth, 10)
            check_hits(collection.search(query, k=k).hits, fused, k)


def test_equal_dense_candidates_do_not_lift_worse_rows(
    tmp_path: Path, hashing_config: Callable[..., CollectionConfig]
) -> None:
    worse = Document("worse", "pear pear apple banana zebra cherry")
    with Collection.create(tmp_path / "c", hashing_config()) as collection:
        collection.add([*(Document(f"d{place}", "apple") for place in range(4)), worse])
        found = collection.search("apple pear", mode="hybrid", depth=2, k=2)
        scores = {hit.doc_id: hit for hit in found.hits}
        dense = {doc_id: hit.evidence[0].score for doc_id, hit in scores.items()}
        assert dense["worse"] < dense["d0"]
        assert scores["worse"].score == pytest.approx(0.6)  # best of the lexical part, below all of the dense one
