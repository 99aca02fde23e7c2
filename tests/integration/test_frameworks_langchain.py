"""The LangChain adapters: LangChain's own suites over a folder and over a server, and what the suites do not ask."""

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

# Before the import: traces would go to LangSmith, which the socket guard refuses.
os.environ |= {"LANGSMITH_TRACING": "false", "LANGCHAIN_TRACING_V2": "false"}

import httpx
import numpy as np
import pytest

pytest.importorskip("langchain_tests", reason="needs the `clients` extra: langchain-core and langchain-tests")

from langchain_core.documents import Document
from langchain_core.embeddings import DeterministicFakeEmbedding, Embeddings
from langchain_core.retrievers import BaseRetriever
from langchain_core.vectorstores import VectorStore
from langchain_tests.integration_tests import (
    EmbeddingsIntegrationTests,
    RetrieversIntegrationTests,
    VectorStoreIntegrationTests,
)
from langchain_tests.integration_tests.vectorstores import EMBEDDING_SIZE
from langchain_tests.unit_tests import EmbeddingsUnitTests

from api.client import Grapnel
from api.frameworks.conditions import EVERYTHING
from api.frameworks.langchain import GrapnelEmbeddings, GrapnelRetriever, GrapnelVectorStore
from api.frameworks.models import Embedder, LocalEmbedder, ServerEmbedder
from api.frameworks.store import FolderStore, ServerStore, Store, open_folder, open_server
from index.errors import ConfigError, CorpusError, ForbiddenError, IndexFormatError, RequestError
from retrieval.chunking import ChunkingConfig
from retrieval.collection import COMPACTION_THREAD, Collection
from retrieval.collection_config import CollectionConfig
from retrieval.encoders import EncoderConfig
from retrieval.types import Document as StoredDocument
from retrieval.types import Query, SearchRequest

pytestmark = pytest.mark.usefixtures("module_memory")

MakeStore = Callable[..., Store]
"""dim of the vectors that clients bring, None = a hashing encoder makes them -> an empty store."""


@pytest.fixture
def make_store(stores: Callable[[int | None], Store]) -> MakeStore:
    def make(dim: int | None = None) -> Store:
        store = stores(dim)
        store.delete(filter=EVERYTHING)
        return store

    return make


class TestVectorStoreWithEmbeddings(VectorStoreIntegrationTests):
    @pytest.fixture
    def vectorstore(self, make_store: MakeStore) -> VectorStore:
        return GrapnelVectorStore(make_store(EMBEDDING_SIZE), self.get_embeddings())


class TestVectorStoreThatEncodes(VectorStoreIntegrationTests):
    @pytest.fixture
    def vectorstore(self, make_store: MakeStore) -> VectorStore:
        return GrapnelVectorStore(make_store())


TEXTS = [
    "An anchor holds a ship in place.",
    "A grapnel is a small anchor with several flukes.",
    "A kedge is a light anchor for warping a ship.",
    "Bread rises with yeast.",
]


class TestRetriever(RetrieversIntegrationTests):
    @pytest.fixture(autouse=True)
    def _filled(self, make_store: MakeStore) -> None:
        self.store = make_store()
        GrapnelVectorStore(self.store).add_texts(TEXTS)

    @property
    def retriever_constructor(self) -> type[BaseRetriever]:
        return GrapnelRetriever

    @property
    def retriever_constructor_params(self) -> dict[str, Any]:
        return {"store": self.store}

    @property
    def retriever_query_example(self) -> str:
        return "a small anchor"


class TestEmbeddings(EmbeddingsIntegrationTests):
    @pytest.fixture(autouse=True)
    def _embedder(self, embedder: Embedder) -> None:
        self.embedder = embedder

    @property
    def embeddings_class(self) -> type[Embeddings]:
        return GrapnelEmbeddings

    @property
    def embedding_model_params(self) -> dict[str, Any]:
        return {"embedder": self.embedder}


class TestEmbeddingsOffline(EmbeddingsUnitTests):
    @property
    def embeddings_class(self) -> type[Embeddings]:
        return GrapnelEmbeddings

    @property
    def embedding_model_params(self) -> dict[str, Any]:
        return {"embedder": LocalEmbedder(EncoderConfig(kind="hashing", dim=64))}


# -- what the suites do not ask ---------------------------------------------------------------------------------------

DIM = 8
MANY = 60


class Unit(Embeddings):
    """Unit vectors by the number in a text, drawn once; a query gets that of its number, a little turned."""

    def __init__(self) -> None:
        drawn = np.random.default_rng(7).normal(size=(MANY, DIM))
        self.vectors = (drawn / np.linalg.norm(drawn, axis=1, keepdims=True)).astype(np.float32)

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return [self.vectors[int(text.split()[1])].tolist() for text in texts]

    def embed_query(self, text: str) -> list[float]:
        return (self.vectors[int(text.split()[1])] + 0.2).tolist()


@pytest.fixture
def numbered(make_store: MakeStore) -> tuple[GrapnelVectorStore, Unit]:
    unit = Unit()
    texts = [f"text {number}" for number in range(MANY)]
    metadatas = [{"even": number % 2 == 0, "number": number} for number in range(MANY)]
    ids = [f"n{number:02}" for number in range(MANY)]
    store = GrapnelVectorStore.from_texts(texts, unit, metadatas, ids=ids, store=make_store(DIM), mode="dense")
    return store, unit


def cosines(unit: Unit, number: int) -> np.ndarray[Any, Any]:
    query = np.asarray(unit.embed_query(f"text {number}"))
    return unit.vectors @ (query / np.linalg.norm(query))


def test_scores_are_cosines_of_the_embeddings(numbered: tuple[GrapnelVectorStore, Unit]) -> None:
    store, unit = numbered
    expected = cosines(unit, 5)
    order = np.argsort(-expected)[:10]
    found = store.similarity_search_with_score("text 5", k=10)
    assert [document.metadata["number"] for document, _ in found] == order.tolist()
    assert [score for _, score in found] == pytest.approx(expected[order].tolist(), abs=1e-6)
    by_vector = store.similarity_search_by_vector(unit.embed_query("text 5"), k=10)
    assert by_vector == [document for document, _ in found]
    relevant = store.similarity_search_with_relevance_scores("text 5", k=10, score_threshold=0.7)
    kept = [value for value in (1 + expected[order]) / 2 if value >= 0.7]
    assert [score for _, score in relevant] == pytest.approx(kept, abs=1e-6)
    assert 0 < len(kept) < 10


def test_filters_reach_every_kind_of_search(numbered: tuple[GrapnelVectorStore, Unit]) -> None:
    store, unit = numbered
    even = {"type": "eq", "key": "even", "value": True}
    order = [int(number) for number in np.argsort(-cosines(unit, 5)) if number % 2 == 0][:7]
    assert [each.metadata["number"] for each in store.similarity_search("text 5", k=7, filter=even)] == order
    retriever = store.as_retriever(search_kwargs={"k": 7, "filter": even})
    assert [each.metadata["number"] for each in retriever.invoke("text 5")] == order
    vector = unit.embed_query("text 5")
    assert [each.metadata["number"] for each in store.similarity_search_by_vector(vector, k=7, filter=even)] == order
    diverse = store.max_marginal_relevance_search("text 5", k=7, filter=even)
    assert len(diverse) == 7
    assert all(each.metadata["even"] for each in diverse)


def test_a_field_that_no_document_has_is_missing_everywhere(numbered: tuple[GrapnelVectorStore, Unit]) -> None:
    store, _ = numbered
    assert store.similarity_search("text 5", k=3, filter={"type": "eq", "key": "nowhere", "value": 1}) == []
    absent = {"type": "or", "filters": [{"type": "ne", "key": "nowhere", "value": 1}]}
    assert len(store.similarity_search("text 5", k=3, filter=absent)) == 3
    with pytest.raises(RequestError, match="type"):
        store.similarity_search("text 5", k=3, filter={"even": True})
    store.delete(filter={"type": "exists", "key": "nowhere"})
    assert store.store.count() == MANY


@pytest.mark.parametrize("lambda_mult", [0.0, 0.4, 1.0])
def test_marginal_relevance_is_that_of_the_formula(
    numbered: tuple[GrapnelVectorStore, Unit], lambda_mult: float
) -> None:
    store, unit = numbered
    relevance = cosines(unit, 5)
    pool = np.argsort(-relevance)[:20]
    scaled = (relevance[pool] - relevance[pool].min()) / np.ptp(relevance[pool])
    chosen: list[int] = []
    while len(chosen) < 6:
        values = {
            place: lambda_mult * scaled[place]
            - (1 - lambda_mult) * max((unit.vectors[pool[place]] @ unit.vectors[pool[c]] for c in chosen), default=0.0)
            for place in range(20)
            if place not in chosen
        }
        chosen.append(max(values, key=lambda place: values[place]))
    options: dict[str, Any] = {"k": 6, "fetch_k": 20, "lambda_mult": lambda_mult}
    found = store.max_marginal_relevance_search("text 5", **options)
    assert [each.metadata["number"] for each in found] == pool[chosen].tolist()
    assert store.max_marginal_relevance_search_by_vector(unit.embed_query("text 5"), **options) == found


def test_everything_or_what_matches_can_be_deleted(numbered: tuple[GrapnelVectorStore, Unit]) -> None:
    store, _ = numbered
    store.delete([])
    assert store.store.count() == MANY
    store.delete(filter={"type": "lt", "key": "number", "value": 10})
    assert store.store.count() == MANY - 10
    assert store.store.count({"type": "lt", "key": "number", "value": 15}) == 5
    store.delete()
    assert store.store.count() == 0


async def test_asynchronous_calls_answer_the_same(numbered: tuple[GrapnelVectorStore, Unit]) -> None:
    store, unit = numbered
    assert await store.asimilarity_search("text 9", k=5) == store.similarity_search("text 9", k=5)
    assert await store.asimilarity_search_with_score("text 9", k=5) == store.similarity_search_with_score("text 9", k=5)
    vector = unit.embed_query("text 9")
    assert await store.amax_marginal_relevance_search_by_vector(vector, k=5) == (
        store.max_marginal_relevance_search_by_vector(vector, k=5)
    )
    relevant = await store.asimilarity_search_with_relevance_scores("text 9", k=5, score_threshold=0.7)
    assert relevant == store.similarity_search_with_relevance_scores("text 9", k=5, score_threshold=0.7)
    more = await GrapnelVectorStore.afrom_texts(["text 3"], unit, ids=["more"], store=store.store)
    assert [each.page_content for each in await more.aget_by_ids(["more"])] == ["text 3"]


def test_collection_and_embedding_must_agree(make_store: MakeStore) -> None:
    with pytest.raises(ConfigError, match="encodes by itself"):
        GrapnelVectorStore(make_store(), DeterministicFakeEmbedding(size=DIM))
    with pytest.raises(ConfigError, match="give the embedding model"):
        GrapnelVectorStore(make_store(DIM))
    with pytest.raises(ValueError, match="give the embedding model"):  # pydantic's own error around ours
        GrapnelRetriever(store=make_store(DIM))


def test_words_alone_need_no_vector(make_store: MakeStore) -> None:
    class OnlyDocuments(Unit):
        def embed_query(self, text: str) -> list[float]:
            raise AssertionError(f"{text!r} is embedded, for a search by words")

    store = GrapnelVectorStore.from_texts(["owl 1", "eagle 2"], OnlyDocuments(), store=make_store(DIM), mode="lexical")
    assert [each.page_content for each in store.similarity_search("eagle")] == ["eagle 2"]
    with pytest.raises(AssertionError, match="is embedded"):
        store.similarity_search("eagle", mode="dense")


def test_what_cannot_be_stored_or_means_nothing_is_refused(make_store: MakeStore) -> None:
    store = GrapnelVectorStore(make_store())
    with pytest.raises((CorpusError, RequestError)):
        store.add_documents([Document(page_content="text", metadata={"when": object()})])
    with pytest.raises((CorpusError, RequestError)):
        store.add_texts([""])
    with pytest.raises(RequestError, match="2 ids for 1 documents"):
        store.add_documents([Document(page_content="text")], ids=["a", "b"])
    with pytest.raises(RequestError, match="namespace"):
        store.add_documents([Document(page_content="text")], namespace="n")
    with pytest.raises(TypeError, match="fetch"):
        store.similarity_search("text", fetch=3)
    assert store.store.count() == 0


def test_titles_are_metadata_and_documents_are_whole(make_store: MakeStore) -> None:
    store = make_store()
    store.add(
        [StoredDocument("a", "An owl.", "Birds", {"x": 1}), StoredDocument("b", "An elk.", "T", {"title": "own"})]
    )
    vectors = GrapnelVectorStore(store)
    assert vectors.get_by_ids(["b", "none", "a"]) == [
        Document(id="b", page_content="An elk.", metadata={"title": "own"}),
        Document(id="a", page_content="An owl.", metadata={"title": "Birds", "x": 1}),
    ]
    assert vectors.similarity_search("owl", k=1)[0].metadata == {"title": "Birds", "x": 1}


def test_the_retriever_searches_as_it_is_told(make_store: MakeStore) -> None:
    store = make_store()
    GrapnelVectorStore(store).add_texts(TEXTS, [{"n": n} for n in range(4)])
    first = {"type": "lt", "key": "n", "value": 2}
    found = GrapnelRetriever(store=store, mode="lexical", filter=first, k=4).invoke("anchor ship")
    assert {each.metadata["n"] for each in found} == {0, 1}
    assert GrapnelRetriever(store=store, mode="lexical", min_score=1e6).invoke("anchor") == []


def test_cut_documents_are_found_by_their_passages(module_memory: Path, hashing_config: Any) -> None:
    config: CollectionConfig = hashing_config(chunking=ChunkingConfig("tokens", max_tokens=32, overlap=0))
    text = " ".join(f"Sentence {number} speaks of owls." for number in range(40))
    with Collection.create(module_memory / "cut", config) as collection:
        store = FolderStore(collection)
        vectors = GrapnelVectorStore(store)
        vectors.add_documents([Document(id="long", page_content=text), Document(id="short", page_content="An elk.")])
        found = vectors.similarity_search("owls", k=5, mode="lexical")
        assert [each.id for each in found] == ["long"]
        assert found[0].page_content in text
        assert len(found[0].page_content) < len(text) / 2
        passages = GrapnelRetriever(store=store, k=5, mode="lexical", group="passage").invoke("owls")
        assert [each.id for each in passages] == ["long"] * 5
        assert len({each.page_content for each in passages}) == 5
        assert vectors.get_by_ids(["long"])[0].page_content == text


def test_server_and_process_encode_alike(server: Any) -> None:
    texts = [f"text number {number} about owls" for number in range(300)]
    here = LocalEmbedder(EncoderConfig(kind="hashing", dim=64))
    with Grapnel(server.url) as client:
        there = ServerEmbedder(client)
        np.testing.assert_allclose(there.passages(texts), here.passages(texts), atol=1e-6)
        np.testing.assert_allclose(there.queries(texts[:3]), here.queries(texts[:3]), atol=1e-6)
        assert len(there.passages([])) == 0
        assert GrapnelEmbeddings(there).embed_documents(texts[:2]) == pytest.approx(
            np.asarray(here.passages(texts[:2])), abs=1e-6
        )


def test_one_folder_is_opened_once_in_a_process(module_memory: Path) -> None:
    first = open_folder(module_memory / "shared", 3)
    assert open_folder(module_memory / ".." / module_memory.name / "shared") is first
    first.add([StoredDocument("a", "text", vectors={"dense": np.ones(3, np.float32)})])
    del first
    again = open_folder(module_memory / "shared")
    assert again.count() == 1


def test_a_tenant_of_a_server_sees_its_own(start_server: Callable[..., Any]) -> None:
    rights = {"scopes": ["read", "write"], "filter": {"type": "eq", "key": "tenant", "value": "a"}}
    server = start_server(keys={"admin": {"scopes": ["admin", "read", "write"]}, "tenant": rights})
    everyone = open_server(server.url, "shared", server.secrets["admin"])
    GrapnelVectorStore(everyone).add_texts(["An owl of b.", "An owl of a."], [{"tenant": "b"}, {"tenant": "a"}])
    mine = open_server(server.url, "shared", server.secrets["tenant"])
    assert mine.layout() == everyone.layout()
    own = GrapnelVectorStore(mine)
    assert [each.page_content for each in own.similarity_search("owl")] == ["An owl of a."]
    assert mine.count() == 1
    with pytest.raises((CorpusError, RequestError, ForbiddenError)):
        own.add_texts(["An owl of nobody."])
    own.delete()
    assert [each.metadata for each in GrapnelVectorStore(everyone).similarity_search("owl")] == [{"tenant": "b"}]


def test_texts_and_ids_are_as_many(make_store: MakeStore) -> None:
    store = GrapnelVectorStore(make_store())
    for ids in (["1"], ["1", "2"], ["1", "2", "3", "4"]):
        with pytest.raises(ValueError, match=f"{len(ids)} ids for 3 texts"):
            store.add_texts(iter(["a", "b", "c"]), ids=ids)
        with pytest.raises(ValueError, match="ids for 3 texts"):
            GrapnelVectorStore.from_texts(["a", "b", "c"], None, ids=ids, store=store.store)
    assert store.store.count() == 0
    made = store.add_texts(iter(["a", "b", "c"]), [{"n": n} for n in range(3)], ids=[])
    assert len(set(made)) == 3
    assert [each.metadata["n"] for each in store.get_by_ids(made)] == [0, 1, 2]
    assert store.add_texts(["d"], ids=["own"]) == ["own"]


async def test_the_number_of_results_can_be_given_to_every_call(make_store: MakeStore) -> None:
    store = make_store()
    GrapnelVectorStore(store).add_texts(TEXTS)
    retriever = GrapnelRetriever(store=store, k=3)
    assert len(await retriever.ainvoke("anchor", k=2)) == len(retriever.invoke("anchor", k=2)) == 2
    assert await retriever.ainvoke("anchor") == retriever.invoke("anchor")


class Meanwhile(httpx.HTTPTransport):
    """Does something after each delete that is answered, before whoever asked hears of it."""

    def __init__(self, act: Callable[[], object]) -> None:
        super().__init__()
        self._act = act

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        answer = super().handle_request(request)
        if request.url.path.endswith("/documents/delete"):
            self._act()
        return answer


def test_what_is_written_while_a_lenient_delete_runs_is_matched_as_it_is(server: Any) -> None:
    everyone = open_server(server.url, "kept")
    everyone.add([StoredDocument("old", "text", metadata={"n": 1})])
    keeping = StoredDocument("new", "text", metadata={"keep": True})
    transport = Meanwhile(lambda: everyone.add([keeping]))
    with Grapnel(server.url, transport=transport) as client:
        store = ServerStore(client.collection("kept"))
        assert store.delete(filter={"type": "ne", "key": "keep", "value": True}) == 1
    assert list(everyone.documents()) == [keeping]


def test_a_collection_that_the_server_cannot_open_is_said_to_be_one() -> None:
    failed = {"name": "c", "state": "failed", "aliases": [], "job": None}
    transport = httpx.MockTransport(lambda _: httpx.Response(200, json=failed))
    with Grapnel(transport=transport) as client, pytest.raises(IndexFormatError, match="its log says why"):
        ServerStore(client.collection("c")).layout()


def test_a_task_that_a_server_does_not_know_is_refused(server: Any) -> None:
    store = open_server(server.url, "tasks")
    with pytest.raises(RequestError, match="task is 'cluster'"):
        store.search(SearchRequest(Query("q", "owl", task="cluster")))
    assert store.search(SearchRequest(Query("q", "owl"))) == []


def test_weights_that_make_no_sense_are_the_requests_fault(make_store: MakeStore) -> None:
    store = make_store()
    for weights in ({"dense": -1.0, "lexical": 2.0}, {"dense": 0.0, "lexical": 0.0}, {"nowhere": 1.0}):
        with pytest.raises(RequestError):
            store.search(SearchRequest(Query("q", "owl")), weights=weights)


def test_many_ids_and_pages(make_store: MakeStore) -> None:
    store = make_store()
    documents = [StoredDocument(f"{number:04}", f"text {number}") for number in range(1_100)]
    store.add(documents)
    names = [each.id for each in documents]
    assert list(store.documents()) == documents
    assert store.get([*names[::-1], "none"]) == [*documents[::-1], None]
    assert store.delete([]) == 0
    assert store.delete([*names, "none"]) == 1_100
    assert store.count() == 0


def test_a_merge_changes_metadata_alone_and_brings_nothing_back(make_store: MakeStore) -> None:
    store = make_store()
    store.add([StoredDocument("a", "text", "title", {"keep": 1, "drop": 2})])
    assert store.merge("a", {"drop": None, "new": 3}) is True
    assert store.merge("b", {"new": 3}) is False
    assert list(store.documents()) == [StoredDocument("a", "text", "title", {"keep": 1, "new": 3})]


def test_what_an_embedder_does_not_read_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    answer = {"data": [{"index": 0, "embedding": "AACAPw=="}], "model": "m", "usage": {"total_tokens": 1}}
    for truncated, said in ((0, 0), (2, 1)):
        transport = httpx.MockTransport(
            lambda _, count=truncated: httpx.Response(200, json={**answer, "truncated": count})
        )
        with Grapnel(transport=transport) as client:
            ServerEmbedder(client).passages(["x"])
        assert len([each for each in caplog.messages if "only the beginning of 2 texts" in each]) == said


def test_a_folder_that_is_being_closed_is_opened_after_that(
    module_memory: Path, hashing_config: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    Collection.create(module_memory / "again", hashing_config()).close()
    closing, go, close = threading.Event(), threading.Event(), Collection.close

    def slow(collection: Collection) -> None:
        closing.set()
        assert go.wait(30)
        close(collection)

    monkeypatch.setattr(Collection, "close", slow)
    held = [open_folder(module_memory / "again")]
    with ThreadPoolExecutor(2) as pool:
        dropped = pool.submit(held.clear)  # nobody has it any more; whoever drops it closes it
        assert closing.wait(30)
        opened = pool.submit(open_folder, module_memory / "again")
        with pytest.raises(TimeoutError):
            opened.result(0.2)
        other = open_folder(module_memory / "other", 3)
        go.set()
        assert opened.result(30).count() == 0
        dropped.result(30)
    assert other.count() == 0


def test_the_thread_that_compacts_a_collection_does_not_wait_for_itself_to_close_it(
    module_memory: Path, hashing_config: Any
) -> None:
    folder = module_memory / "cycle"
    Collection.create(folder, hashing_config()).close()
    held = [open_folder(folder)]
    running = threading.Thread(target=held.clear, name=COMPACTION_THREAD)  # as where the garbage collector runs there
    held[0].collection._compaction = running
    running.start()
    running.join()
    assert open_folder(folder).count() == 0
