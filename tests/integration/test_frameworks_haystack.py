"""The Haystack adapters: Haystack's own suites over a folder and over a server, and what the suites do not ask."""

import datetime
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

# Before the import, which reads it: pipelines would be reported to PostHog, which the socket guard refuses.
os.environ["HAYSTACK_TELEMETRY_ENABLED"] = "false"

import numpy as np
import pytest

pytest.importorskip("haystack", reason="needs the `haystack` extra: haystack-ai")

from haystack import Pipeline, telemetry
from haystack.components.writers import DocumentWriter
from haystack.core.errors import DeserializationError
from haystack.dataclasses import ByteStream, Document, SparseEmbedding
from haystack.document_stores.errors import DuplicateDocumentError
from haystack.document_stores.types import DuplicatePolicy, FilterPolicy
from haystack.errors import FilterError
from haystack.testing.document_store import (
    CountDocumentsByFilterTest,
    CountUniqueMetadataByFilterTest,
    DocumentStoreBaseExtendedTests,
    GetMetadataFieldMinMaxTest,
    GetMetadataFieldsInfoTest,
    GetMetadataFieldUniqueValuesTest,
)
from haystack.testing.document_store_async import (
    CountDocumentsAsyncTest,
    CountDocumentsByFilterAsyncTest,
    CountUniqueMetadataByFilterAsyncTest,
    DeleteAllAsyncTest,
    DeleteByFilterAsyncTest,
    DeleteDocumentsAsyncTest,
    FilterDocumentsAsyncTest,
    GetMetadataFieldMinMaxAsyncTest,
    GetMetadataFieldsInfoAsyncTest,
    GetMetadataFieldUniqueValuesAsyncTest,
    UpdateByFilterAsyncTest,
    WriteDocumentsAsyncTest,
)
from haystack.utils import Secret
from haystack.utils.filters import document_matches_filter

from api.frameworks.haystack import (
    GrapnelBM25Retriever,
    GrapnelDocumentStore,
    GrapnelEmbeddingRetriever,
    GrapnelHybridRetriever,
)
from index.errors import ConfigError, CorpusError, NotFoundError, RequestError
from retrieval import types

pytestmark = pytest.mark.usefixtures("module_memory")
SUITE_DIM = 768
DIM = 8
MakeStore = Callable[..., GrapnelDocumentStore]


@pytest.fixture(scope="module")
def stores(places: Callable[[int | None], dict[str, str]]) -> Callable[[int | None], GrapnelDocumentStore]:
    """Open each store once for the module. dim: of the documents' embeddings; None = a hashing encoder makes them."""
    return cache(lambda dim: GrapnelDocumentStore(**places(dim), embedding_dim=dim))


@pytest.fixture
def make_store(stores: Callable[[int | None], GrapnelDocumentStore]) -> MakeStore:
    def make(dim: int | None = None) -> GrapnelDocumentStore:
        store = stores(dim)
        store.delete_all_documents()
        return store

    return make


class Suites:
    """Where the suites may be told how a store differs: ours lists by id, and keeps embeddings as float32."""

    @pytest.fixture
    def document_store(self, make_store: MakeStore) -> GrapnelDocumentStore:
        return make_store(SUITE_DIM)

    @staticmethod
    def assert_documents_are_equal(received: list[Document], expected: list[Document]) -> None:
        expected = sorted(expected, key=lambda document: document.id)
        assert [document.id for document in received] == [document.id for document in expected]
        for ours, theirs in zip(received, expected, strict=True):
            if theirs.embedding is not None:
                assert ours.embedding == np.asarray(theirs.embedding, np.float32).tolist()
            assert replace(ours, embedding=None) == replace(theirs, embedding=None)


class TestDocumentStore(
    Suites,
    DocumentStoreBaseExtendedTests,
    CountDocumentsByFilterTest,
    CountUniqueMetadataByFilterTest,
    GetMetadataFieldsInfoTest,
    GetMetadataFieldMinMaxTest,
    GetMetadataFieldUniqueValuesTest,
):
    # The suite has this one raise until it is written: what happens without a policy is for each store to say.
    def test_write_documents(self, document_store: GrapnelDocumentStore) -> None:
        document = Document(content="test doc")
        assert document_store.write_documents([document]) == 1
        with pytest.raises(DuplicateDocumentError):
            document_store.write_documents([document])
        self.assert_documents_are_equal(document_store.filter_documents(), [document])


class TestDocumentStoreAsync(
    Suites,
    CountDocumentsAsyncTest,
    CountDocumentsByFilterAsyncTest,
    CountUniqueMetadataByFilterAsyncTest,
    DeleteAllAsyncTest,
    DeleteByFilterAsyncTest,
    DeleteDocumentsAsyncTest,
    FilterDocumentsAsyncTest,
    GetMetadataFieldMinMaxAsyncTest,
    GetMetadataFieldsInfoAsyncTest,
    GetMetadataFieldUniqueValuesAsyncTest,
    UpdateByFilterAsyncTest,
    WriteDocumentsAsyncTest,
):
    # As above.
    async def test_write_documents_async(self, document_store: GrapnelDocumentStore) -> None:
        document = Document(content="test doc")
        assert await document_store.write_documents_async([document]) == 1
        with pytest.raises(DuplicateDocumentError):
            await document_store.write_documents_async([document])
        self.assert_documents_are_equal(await document_store.filter_documents_async(), [document])


def test_telemetry_is_off() -> None:
    assert telemetry._telemetry.telemetry is None


# -- filters ----------------------------------------------------------------------------------------------------------

VALUES: list[Any] = ["absent", None, "x", "y", "", 0, 1, -2, 2.5, True, ["x"], [1], {"deep": 1}, {"deep": "x"}]
DATES = ["1969-07-21", "1972-12-11T19:54:58", "1972-12-11T19:54:58.500000", "1989-11-09T17:53:00", "2001-01-01"]


@pytest.fixture(scope="module")
def varied(stores: Callable[[int | None], GrapnelDocumentStore]) -> tuple[GrapnelDocumentStore, list[Document]]:
    """One document for each of VALUES under `v`, and for each of DATES under `date`."""
    metas = [{} if value == "absent" else {"v": value} for value in VALUES] + [{"date": date} for date in DATES]
    documents = [Document(id=f"{place:02}", content="owl", meta=meta) for place, meta in enumerate(metas)]
    store = stores(None)
    store.delete_all_documents()
    store.write_documents(documents)
    return store, documents


def comparisons() -> Iterator[dict[str, Any]]:
    for field in ("meta.v", "v", "meta.v.deep", "meta.nowhere"):
        for operator in ("==", "!="):
            for value in ("x", "", 0, 1, 2.5, None, "nothing"):
                yield {"field": field, "operator": operator, "value": value}
        for operator in ("in", "not in"):
            for values in (["x", "y"], [1, 2.5], [None], ["x", None, -2], []):
                yield {"field": field, "operator": operator, "value": values}
    for operator in (">", ">=", "<", "<="):
        yield {"field": "meta.v", "operator": operator, "value": None}
        for date in DATES:
            yield {"field": "meta.date", "operator": operator, "value": date}
    for operator, value in [("==", "03"), ("!=", "03"), ("in", ["03", "zz"]), ("not in", ["03", "04"]), ("==", None)]:
        yield {"field": "id", "operator": operator, "value": value}


def test_comparisons_are_haystacks_own(varied: tuple[GrapnelDocumentStore, list[Document]]) -> None:
    """Against Haystack's evaluator, which takes True for 1: the one document with a boolean is asked about apart."""
    store, documents = varied
    known = [document for document in documents if document.meta.get("v") is not True]
    compared = 0
    for filters in comparisons():
        found = {document.id for document in store.filter_documents(filters)}
        expected = {document.id for document in known if document_matches_filter(filters, document)}
        assert found & {document.id for document in known} == expected, filters
        assert store.count_documents_by_filter(filters) == len(found)
        compared += 0 < len(expected) < len(known)
    assert compared > 40
    for value, holds in [(True, True), (1, False), (False, False)]:
        found = {document.id for document in store.filter_documents({"field": "v", "operator": "==", "value": value})}
        assert (f"{VALUES.index(True, 7):02}" in found) is holds


@pytest.mark.parametrize("operator", [">", ">=", "<", "<="])
def test_numbers_are_ordered_among_numbers(varied: tuple[GrapnelDocumentStore, list[Document]], operator: str) -> None:
    store, documents = varied
    numbers = [d for d in documents if type(d.meta.get("v")) in (int, float)]
    for bound in (-2, 0, 1.5, 2.5):
        filters = {"field": "meta.v", "operator": operator, "value": bound}
        expected = [document for document in numbers if document_matches_filter(filters, document)]
        assert store.filter_documents(filters) == expected


def test_logic_nests_as_haystacks_own(varied: tuple[GrapnelDocumentStore, list[Document]]) -> None:
    store, documents = varied
    x = {"field": "meta.v", "operator": "in", "value": ["x", "y", ""]}
    low = {"field": "id", "operator": "in", "value": [f"{n:02}" for n in range(4)]}
    for inner in ("AND", "OR", "NOT"):
        for outer in ("AND", "OR", "NOT"):
            nested = {"operator": inner, "conditions": [x, low]}
            filters = {"operator": outer, "conditions": [nested, {"field": "v", "operator": "!=", "value": "y"}]}
            expected = [document for document in documents if document_matches_filter(filters, document)]
            assert store.filter_documents(filters) == expected
    for operator in ("AND", "OR", "NOT"):
        filters = {"operator": "AND", "conditions": [low, {"operator": operator, "conditions": []}]}
        expected = [document for document in documents if document_matches_filter(filters, document)]
        assert store.filter_documents(filters) == expected


@pytest.mark.parametrize(
    "filters",
    [
        {"field": "content", "operator": "==", "value": "owl"},
        {"field": "embedding", "operator": "==", "value": None},
        {"field": "meta", "operator": "==", "value": "x"},
        {"field": "meta.v", "operator": "==", "value": ["x"]},
        {"field": "meta.v", "operator": "=", "value": "x"},
        {"field": "meta.v", "operator": ">", "value": "20250203"},
        {"field": "meta.v", "operator": ">", "value": "2025-02-31"},
        {"field": "meta.v", "operator": "in", "value": "xy"},
        {"field": 3, "operator": "==", "value": 1},
        {"field": "id", "operator": ">", "value": "2025-02-03"},
        {"operator": "XOR", "conditions": []},
        {"operator": "AND", "conditions": {"field": "v"}},
        {"operator": "AND", "conditions": ["v"]},
        {"field": "meta.v", "operator": "==", "value": float("nan")},
    ],
)
def test_filters_that_cannot_be_answered_are_refused(
    varied: tuple[GrapnelDocumentStore, list[Document]], filters: dict[str, Any]
) -> None:
    with pytest.raises(FilterError):
        varied[0].filter_documents(filters)


def test_no_filters_delete_or_change_nothing(varied: tuple[GrapnelDocumentStore, list[Document]]) -> None:
    store, documents = varied
    with pytest.raises(FilterError, match="delete_all_documents"):
        store.delete_by_filter({})
    with pytest.raises(FilterError):
        store.update_by_filter({}, {"x": 1})
    with pytest.raises(CorpusError, match="_haystack"):
        store.update_by_filter({"field": "id", "operator": "==", "value": "00"}, {"_haystack": 1})
    assert store.filter_documents() == documents


# -- documents --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dim", [None, 3])
def test_documents_come_back_whole(make_store: MakeStore, dim: int | None) -> None:
    store = make_store(dim)
    documents = [
        Document(id="a", content=" An owl.\n", meta={"tags": ["x", {"y": None}], "none": None}, score=0.5),
        Document(id="b", content="x", blob=ByteStream(b"\x00\xff", meta={"m": 1}, mime_type="image/png")),
        Document(id="c", content="x", sparse_embedding=SparseEmbedding(indices=[1, 7], values=[0.5, 0.25])),
    ]
    if dim is not None:
        documents += [
            Document(id="d", content=None, blob=ByteStream(b"only a blob")),
            Document(id="e", content="", embedding=[0.5, 0.25, 1.0]),
            Document(id="f", content=None, meta={"zero": True}, embedding=[0.0, 0.0, 0.0]),
        ]
    assert store.write_documents(documents) == len(documents)
    assert store.filter_documents() == documents


def test_documents_of_other_programs_are_read(make_store: MakeStore) -> None:
    store = make_store(3)
    vector = np.array([1, 0, 0], np.float32)
    store.store.add([types.Document("a", "An owl.", "Birds", {"x": 1}, {"dense": vector})])
    expected = Document(id="a", content="An owl.", meta={"title": "Birds", "x": 1}, embedding=[1.0, 0.0, 0.0])
    assert store.filter_documents() == [expected]
    (found,) = store.embedding_retrieval([1.0, 0.0, 0.0], return_embedding=True)
    assert replace(found, score=None) == expected


def test_policies_decide_about_ids_that_are_taken(make_store: MakeStore) -> None:
    store = make_store()
    old = [Document(id="a", content="old a"), Document(id="b", content="old b")]
    new = [Document(id="c", content="new c"), Document(id="b", content="new b"), Document(id="c", content="last c")]

    def contents() -> dict[str, str | None]:
        return {document.id: document.content for document in store.filter_documents()}

    store.write_documents(old)
    for policy in (DuplicatePolicy.FAIL, DuplicatePolicy.NONE):
        with pytest.raises(DuplicateDocumentError, match="'b'"):
            store.write_documents(new, policy)
    assert contents() == {"a": "old a", "b": "old b"}
    assert store.write_documents(new, DuplicatePolicy.SKIP) == 1
    assert contents() == {"a": "old a", "b": "old b", "c": "new c"}
    assert store.write_documents(new, DuplicatePolicy.OVERWRITE) == 3
    assert contents() == {"a": "old a", "b": "new b", "c": "last c"}
    assert store.write_documents([]) == 0


def test_what_cannot_be_stored_is_refused(make_store: MakeStore) -> None:
    store = make_store()
    with pytest.raises(ConfigError, match="encodes by itself"):
        store.write_documents([Document(content="x", embedding=[1.0])])
    with pytest.raises(CorpusError, match="_haystack"):
        store.write_documents([Document(content="x", meta={"_haystack": 1})])
    with pytest.raises((CorpusError, RequestError)):
        store.write_documents([Document(content="x", meta={"big": 1 << 80})])
    with pytest.raises((CorpusError, RequestError)):
        store.write_documents([Document(content=None, blob=ByteStream(b"nothing to search"))])
    with pytest.raises((CorpusError, RequestError)):
        make_store(3).write_documents([Document(content="x", embedding=[1.0, 2.0])])
    assert store.count_documents() == 0


def test_a_merge_can_set_none(make_store: MakeStore) -> None:
    store = make_store()
    store.write_documents([Document(id="a", content="x", meta={"v": 1, "w": 2})])
    assert store.update_by_filter({"field": "v", "operator": "==", "value": 1}, {"v": None, "u": [1]}) == 1
    assert store.filter_documents()[0].meta == {"v": None, "w": 2, "u": [1]}


# -- retrieval --------------------------------------------------------------------------------------------------------

MANY = 40
RNG = np.random.default_rng(5)
VECTORS = RNG.normal(size=(MANY, DIM)).astype(np.float32)
VECTORS /= np.linalg.norm(VECTORS, axis=1, keepdims=True)
QUERY = (VECTORS[7] + 0.1).tolist()
WORDS = ["owl", "elk", "eel", "ant"]
EVEN = {"field": "meta.n", "operator": "in", "value": list(range(0, MANY, 2))}


@pytest.fixture(scope="module")
def embedded(stores: Callable[[int | None], GrapnelDocumentStore]) -> GrapnelDocumentStore:
    """Every fifth document has no embedding."""
    store = stores(DIM)
    store.delete_all_documents()
    store.write_documents(
        [
            Document(
                id=f"{n:02}",
                content=f"{WORDS[n % 4]} number {n}",
                meta={"n": n},
                embedding=None if n % 5 == 0 else VECTORS[n].tolist(),
            )
            for n in range(MANY)
        ]
    )
    return store


def nearest(numbers: Any) -> list[int]:
    return sorted(numbers, key=lambda n: -float(VECTORS[n] @ np.asarray(QUERY, np.float32)))


def numbers_of(result: dict[str, list[Document]]) -> list[int]:
    return [document.meta["n"] for document in result["documents"]]


WITH_EMBEDDING = [n for n in range(MANY) if n % 5]


def test_embeddings_are_found_by_cosine(embedded: GrapnelDocumentStore) -> None:
    result = GrapnelEmbeddingRetriever(embedded, top_k=MANY).run(QUERY)
    assert numbers_of(result) == nearest(WITH_EMBEDDING)
    query = np.asarray(QUERY) / np.linalg.norm(QUERY)
    for document in result["documents"]:
        assert document.score == pytest.approx(float(VECTORS[document.meta["n"]] @ query), abs=1e-5)
        assert document.embedding is None
    (best,) = GrapnelEmbeddingRetriever(embedded, top_k=1, return_embedding=True).run(QUERY)["documents"]
    assert best.embedding == VECTORS[best.meta["n"]].tolist()


def test_top_k_and_filters_come_from_either_side(embedded: GrapnelDocumentStore) -> None:
    even = [n for n in nearest(WITH_EMBEDDING) if n % 2 == 0]
    below = {"field": "meta.n", "operator": "<", "value": 20}
    retriever = GrapnelEmbeddingRetriever(embedded, EVEN, 3)
    assert numbers_of(retriever.run(QUERY)) == even[:3]
    assert numbers_of(retriever.run(QUERY, top_k=5)) == even[:5]
    assert numbers_of(retriever.run(QUERY, below)) == [n for n in nearest(WITH_EMBEDDING) if n < 20][:3]
    merging = GrapnelEmbeddingRetriever(embedded, {"operator": "AND", "conditions": [EVEN]}, 3, FilterPolicy.MERGE)
    logic = {"operator": "AND", "conditions": [below]}
    assert numbers_of(merging.run(QUERY, logic)) == [n for n in even if n < 20][:3]
    assert retriever.run(QUERY, top_k=0) == {"documents": []}
    for bad in (lambda: retriever.run(QUERY, top_k=-1), lambda: GrapnelBM25Retriever(embedded, top_k=0)):
        with pytest.raises(ValueError, match="top_k"):
            bad()
    absent = {"field": "meta.nowhere", "operator": "!=", "value": 1}
    assert numbers_of(retriever.run(QUERY, absent)) == nearest(WITH_EMBEDDING)[:3]


def test_words_find_documents_without_embeddings_too(embedded: GrapnelDocumentStore) -> None:
    result = GrapnelBM25Retriever(embedded, top_k=MANY).run("owl")
    assert set(numbers_of(result)) == set(range(0, MANY, 4))
    assert all(document.score for document in result["documents"])
    assert set(numbers_of(GrapnelBM25Retriever(embedded, EVEN, MANY).run("elk"))) == set()


def test_hybrid_moves_from_words_to_vectors(embedded: GrapnelDocumentStore) -> None:
    def hybrid(**options: Any) -> list[int]:
        return numbers_of(GrapnelHybridRetriever(embedded, top_k=6, **options).run("owl", QUERY))

    cosine = VECTORS @ np.asarray(QUERY, np.float32)
    cosine[::5] = 0  # those without an embedding
    order = np.argsort(-cosine, kind="stable").tolist()
    assert hybrid(dense_weight=0.01) == [n for n in order if n % 4 == 0][:6]
    assert hybrid(dense_weight=1.0) == order[:6]
    assert set(hybrid(filters=EVEN)) <= set(range(0, MANY, 2))
    with pytest.raises(RequestError, match="query_embedding"):
        GrapnelHybridRetriever(embedded).run("owl")


async def test_components_run_without_blocking(embedded: GrapnelDocumentStore) -> None:
    by_vector, by_words = GrapnelEmbeddingRetriever(embedded), GrapnelBM25Retriever(embedded)
    both = GrapnelHybridRetriever(embedded)
    assert await by_vector.run_async(QUERY, EVEN, 2) == by_vector.run(QUERY, EVEN, 2)
    assert await by_words.run_async("owl", EVEN, 2) == by_words.run("owl", EVEN, 2)
    assert await both.run_async("owl", QUERY, EVEN, 2) == both.run("owl", QUERY, EVEN, 2)


def test_a_collection_that_encodes_needs_no_embedder(make_store: MakeStore) -> None:
    store = make_store()
    pipeline = Pipeline()
    pipeline.add_component("writer", DocumentWriter(store))
    texts = ["Owls hunt at night.", "Elks eat grass.", "Eels swim far."]
    pipeline.run({"writer": {"documents": [Document(content=text) for text in texts]}})
    for retriever in (
        GrapnelHybridRetriever(store, top_k=1),
        GrapnelHybridRetriever(store, top_k=1, dense_weight=1.0),
        GrapnelBM25Retriever(store, top_k=1),
    ):
        search = Pipeline()
        search.add_component("retriever", retriever)
        (found,) = search.run({"retriever": {"query": "eels swim"}})["retriever"]["documents"]
        assert found.content == "Eels swim far."


# -- stores and components as dictionaries ----------------------------------------------------------------------------


def test_a_store_is_its_place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("GRAPNEL_TEST_KEY", "gk_x")
    for store in (
        GrapnelDocumentStore(str(tmp_path / "never-opened"), embedding_dim=3),
        GrapnelDocumentStore(url="http://127.0.0.1:9", collection="c", api_key=Secret.from_env_var("GRAPNEL_TEST_KEY")),
    ):
        data = store.to_dict()
        assert data["type"] == "api.frameworks.haystack_store.GrapnelDocumentStore"
        assert "gk_x" not in str(data)
        again = GrapnelDocumentStore.from_dict(data)
        assert again.to_dict() == data
    assert not (tmp_path / "never-opened").exists()
    with pytest.raises(ValueError, match="token"):
        GrapnelDocumentStore(url="u", collection="c", api_key=Secret.from_token("gk_x")).to_dict()
    for wrong in ({}, {"folder": "f", "url": "u", "collection": "c"}, {"url": "u"}, {"folder": "f", "collection": "c"}):
        with pytest.raises(ConfigError, match="either"):
            GrapnelDocumentStore(**wrong)


def test_a_missing_collection_is_made_or_asked_for(module_memory: Path, server: Any) -> None:
    folder = str(module_memory / "made")
    first, second = GrapnelDocumentStore(folder, embedding_dim=3), GrapnelDocumentStore(folder)
    first.write_documents([Document(id="a", embedding=[1.0, 0.0, 0.0])])
    assert second.count_documents() == 1
    assert second.store is first.store
    made = GrapnelDocumentStore(url=server.url, collection="made", embedding_dim=3)
    made.write_documents([Document(id="a", embedding=[1.0, 0.0, 0.0])])
    assert GrapnelDocumentStore(url=server.url, collection="made").count_documents() == 1
    with pytest.raises((NotFoundError, RequestError)):
        GrapnelDocumentStore(url=server.url, collection="No Such Name!").count_documents()


def test_pipelines_are_saved_and_loaded(embedded: GrapnelDocumentStore, monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline = Pipeline()
    components: dict[str, Any] = {
        "embedding": GrapnelEmbeddingRetriever(embedded, EVEN, 3, FilterPolicy.MERGE, return_embedding=True),
        "words": GrapnelBM25Retriever(embedded, top_k=4),
        "both": GrapnelHybridRetriever(embedded, dense_weight=0.25),
        "writer": DocumentWriter(embedded, policy=DuplicatePolicy.SKIP),
    }
    for name, component in components.items():
        pipeline.add_component(name, component)
    saved = pipeline.dumps()
    with pytest.raises(DeserializationError):  # Haystack imports nothing that it was not told to trust
        Pipeline.loads(saved)
    monkeypatch.setenv("HAYSTACK_DESERIALIZATION_ALLOWLIST", "api.frameworks.*")
    loaded = Pipeline.loads(saved)
    assert loaded.dumps() == saved
    retriever = loaded.get_component("embedding")
    assert isinstance(retriever, GrapnelEmbeddingRetriever)
    assert (retriever.filter_policy, retriever.return_embedding, retriever.top_k) == (FilterPolicy.MERGE, True, 3)
    assert numbers_of(retriever.run(QUERY)) == numbers_of(components["embedding"].run(QUERY))


# -- what others write meanwhile --------------------------------------------------------------------------------------


class Meddling:
    """A store in which something happens between the look at the documents and the write."""

    def __init__(self, store: Any, act: Callable[[Any], object]) -> None:
        self._store, self._act = store, act

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def documents(self, condition: Any = None) -> Iterator[types.Document]:
        yield from list(self._store.documents(condition))
        self._act(self._store)


def test_a_merge_keeps_what_others_write_meanwhile(make_store: MakeStore) -> None:
    store = make_store()
    store.write_documents([Document(id=each, content=f"old {each}", meta={"v": 1}) for each in "abc"])

    def act(inner: Any) -> None:
        inner.add([types.Document("a", "new a", metadata={"v": 1, "w": 2})])
        inner.delete(["b"])

    between = GrapnelDocumentStore(folder="never-opened")
    between._store = Meddling(store.store, act)
    assert between.update_by_filter({"field": "v", "operator": "==", "value": 1}, {"u": 3}) == 2
    assert {each.id: (each.content, each.meta) for each in store.filter_documents()} == {
        "a": ("new a", {"v": 1, "w": 2, "u": 3}),
        "c": ("old c", {"v": 1, "u": 3}),
    }


def test_dates_in_lists_are_compared_as_they_are_written(make_store: MakeStore) -> None:
    store = make_store()
    days = [datetime.date(2024, 1, day) for day in (1, 2, 3)]
    store.write_documents([Document(id=day.isoformat(), content="x", meta={"day": day.isoformat()}) for day in days])

    def found(operator: str, value: Any) -> list[str]:
        condition = {"field": "meta.day", "operator": operator, "value": value}
        return [each.id for each in store.filter_documents(condition)]

    assert found("in", days[:2]) == found("not in", [days[2], None]) == ["2024-01-01", "2024-01-02"]
    assert found("==", days[0]) == found("in", [days[0]]) == ["2024-01-01"]


def test_a_tenant_of_a_server_has_a_store_too(
    start_server: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    rights = {"scopes": ["read", "write"], "filter": {"type": "eq", "key": "tenant", "value": "a"}}
    server = start_server(keys={"admin": {"scopes": ["admin"]}, "tenant": rights})
    with server.client("admin") as client:
        client.post("/v1/collections", json={"name": "shared"}).raise_for_status()
    monkeypatch.setenv("GRAPNEL_TEST_KEY", server.secrets["tenant"])
    key = Secret.from_env_var("GRAPNEL_TEST_KEY")
    store = GrapnelDocumentStore(url=server.url, collection="shared", api_key=key)
    store.write_documents([Document(id="a", content="An owl.", meta={"tenant": "a"})])
    assert store.count_documents() == 1
    assert [each.id for each in store.filter_documents()] == ["a"]
    assert [each.id for each in store.hybrid_retrieval("owl", dense_weight=0.5)] == ["a"]
