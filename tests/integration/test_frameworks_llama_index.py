"""The LlamaIndex adapters over a folder and over a server: operators against brute force, modes, nodes, indexes.

LlamaIndex publishes no suite. The reference for filters is what its documentation says of each operator, written out
here; where its own in-memory store says the same, that is asked too.
"""

import itertools
from collections.abc import Callable
from typing import Any

import httpx
import numpy as np
import pytest

pytest.importorskip("llama_index.core", reason="needs the `llamaindex` extra: llama-index-core")

from llama_index.core import StorageContext, VectorStoreIndex
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.embeddings import MockEmbedding
from llama_index.core.schema import (
    BaseNode,
    ImageNode,
    IndexNode,
    Node,
    NodeRelationship,
    NodeWithScore,
    QueryBundle,
    RelatedNodeInfo,
    TextNode,
)
from llama_index.core.schema import Document as LlamaDocument
from llama_index.core.vector_stores.types import (
    FilterCondition,
    FilterOperator,
    MetadataFilter,
    MetadataFilters,
    VectorStoreQuery,
    VectorStoreQueryMode,
)
from llama_index.core.vector_stores.utils import build_metadata_filter_fn

from api.client import Grapnel
from api.frameworks.llama_index import GrapnelEmbedding, GrapnelRerank, GrapnelRetriever, GrapnelVectorStore
from api.frameworks.models import Embedder, ServerReranker
from api.frameworks.store import Store
from index.errors import ConfigError, CorpusError, RequestError
from retrieval.encoders import EncoderConfig, open_encoder
from retrieval.protocols import Candidate, Reranker
from retrieval.rerankers.config import RerankerConfig
from retrieval.rerankers.similarity import SimilarityReranker
from retrieval.types import Document, Query, SearchRequest

pytestmark = pytest.mark.usefixtures("module_memory")
HASHING = EncoderConfig(kind="hashing", dim=64)
DIM = 8
MakeStore = Callable[..., GrapnelVectorStore]


@pytest.fixture
def make_store(stores: Callable[[int | None], Store]) -> MakeStore:
    def make(dim: int | None = None) -> GrapnelVectorStore:
        store = GrapnelVectorStore(stores(dim))
        store.clear()
        return store

    return make


# -- filters ----------------------------------------------------------------------------------------------------------

MISSING = object()
VALUES = [MISSING, None, "", "a", "ab", "b", "10", 0, 1, 2, 2.5, -3, True, [], ["a"], ["a", "b"], [1, 2], [2.5], ["ab"]]
"""What nodes have under the key `v`."""

SCALARS = ["a", "ab", "", "zz", 0, 1, 2.5, -3]
LISTS = [["a"], ["a", "b"], ["zz"], [1, 2], [2.5], ["ab", "10"]]


def same(stored: Any, value: Any) -> bool:
    """Equal and of one type, where a boolean is no number."""
    number = [isinstance(each, int | float) and not isinstance(each, bool) for each in (stored, value)]
    return bool((all(number) or type(stored) is type(value)) and stored == value)


def ordered(stored: Any, value: Any, compare: Callable[[Any, Any], bool]) -> bool:
    both_text = isinstance(stored, str) and isinstance(value, str)
    both_number = all(isinstance(each, int | float) and not isinstance(each, bool) for each in (stored, value))
    return (both_text or both_number) and compare(stored, value)


def elements(stored: Any) -> list[Any]:
    return stored if isinstance(stored, list) else [stored]


def passes(operator: FilterOperator, stored: Any, value: Any) -> bool:
    """LlamaIndex's operators by brute force, with grapnel's rules on types."""
    if operator is FilterOperator.IS_EMPTY:
        return stored is MISSING or stored is None or stored in ("", [])
    if stored is MISSING or stored is None:
        return operator in (FilterOperator.NE, FilterOperator.NIN)
    return {
        FilterOperator.EQ: lambda: same(stored, value),
        FilterOperator.NE: lambda: not same(stored, value),
        FilterOperator.GT: lambda: ordered(stored, value, lambda a, b: a > b),
        FilterOperator.GTE: lambda: ordered(stored, value, lambda a, b: a >= b),
        FilterOperator.LT: lambda: ordered(stored, value, lambda a, b: a < b),
        FilterOperator.LTE: lambda: ordered(stored, value, lambda a, b: a <= b),
        FilterOperator.IN: lambda: any(same(stored, each) for each in value),
        FilterOperator.NIN: lambda: not any(same(stored, each) for each in value),
        FilterOperator.ANY: lambda: any(same(element, each) for each in value for element in elements(stored)),
        FilterOperator.ALL: lambda: all(any(same(element, each) for element in elements(stored)) for each in value),
        FilterOperator.CONTAINS: lambda: any(same(element, value) for element in elements(stored)),
    }[operator]()


ONE = (FilterOperator.EQ, FilterOperator.NE, FilterOperator.CONTAINS)
ORDER = (FilterOperator.GT, FilterOperator.GTE, FilterOperator.LT, FilterOperator.LTE)
SEVERAL = (FilterOperator.IN, FilterOperator.NIN, FilterOperator.ANY, FilterOperator.ALL)
TEXT = (FilterOperator.TEXT_MATCH, FilterOperator.TEXT_MATCH_INSENSITIVE)


def values_for(operator: FilterOperator) -> list[Any]:
    if operator is FilterOperator.IS_EMPTY:
        return [None]
    return LISTS if operator in SEVERAL else SCALARS


def metadata(place: int) -> dict[str, Any]:
    return {"n": place} | ({} if VALUES[place] is MISSING else {"v": VALUES[place]})


@pytest.fixture(scope="module")
def varied(stores: Callable[[int | None], Store]) -> GrapnelVectorStore:
    """One node for each of VALUES."""
    store = GrapnelVectorStore(stores(None))
    store.clear()
    store.add([TextNode(id_=f"{place:02}", text="owl", metadata=metadata(place)) for place in range(len(VALUES))])
    return store


def found(store: GrapnelVectorStore, filters: MetadataFilters) -> set[int]:
    return {int(node.node_id) for node in store.get_nodes(filters=filters)}


def one(operator: FilterOperator, value: Any, key: str = "v") -> MetadataFilter:
    return MetadataFilter(key=key, value=value, operator=operator)


def test_every_operator_there_is_is_tested() -> None:
    assert {*ONE, *ORDER, *SEVERAL, *TEXT, FilterOperator.IS_EMPTY} == set(FilterOperator)
    assert len(FilterOperator) == 14


@pytest.mark.parametrize("operator", [*ONE, *ORDER, *SEVERAL, FilterOperator.IS_EMPTY])
def test_operators_are_what_brute_force_says(varied: GrapnelVectorStore, operator: FilterOperator) -> None:
    distinct = set()
    for value in values_for(operator):
        expected = {place for place, stored in enumerate(VALUES) if passes(operator, stored, value)}
        assert found(varied, MetadataFilters(filters=[one(operator, value)])) == expected, value
        result = varied.query(
            VectorStoreQuery(
                query_str="owl", similarity_top_k=50, filters=MetadataFilters(filters=[one(operator, value)])
            )
        )
        assert {int(node_id) for node_id in result.ids or []} == expected, value
        distinct.add(frozenset(expected))
    assert operator is FilterOperator.IS_EMPTY or len(distinct) > 3


@pytest.mark.parametrize("operator", [*ONE, *ORDER, *SEVERAL, FilterOperator.IS_EMPTY])
def test_llama_index_says_the_same_where_it_compares_at_all(operator: FilterOperator) -> None:
    """The reference above is not this file's invention: LlamaIndex's own store agrees on values of the value's type."""
    compared = 0
    for value, place in itertools.product(values_for(operator), range(len(VALUES))):
        stored, sample = VALUES[place], value[0] if isinstance(value, list) else value
        listed = operator in (FilterOperator.ANY, FilterOperator.ALL, FilterOperator.CONTAINS)
        kinds = {type(each) for each in (elements(stored) if listed and isinstance(stored, list) else [stored])}
        alike = kinds == {type(sample)} and (isinstance(stored, list) or not listed)
        if not (alike or stored in (MISSING, None) or operator is FilterOperator.IS_EMPTY):
            continue
        lookup = build_metadata_filter_fn(
            lambda _, place=place: metadata(place), MetadataFilters(filters=[one(operator, value)])
        )
        assert lookup("id") == passes(operator, stored, value), (stored, value)
        compared += 1
    assert compared > 10


@pytest.mark.parametrize("operator", TEXT)
def test_looking_inside_texts_is_refused_with_what_to_do(varied: GrapnelVectorStore, operator: FilterOperator) -> None:
    with pytest.raises(RequestError, match="mode SPARSE"):
        varied.get_nodes(filters=MetadataFilters(filters=[one(operator, "a")]))


@pytest.mark.parametrize(
    ("operator", "value", "message"),
    [
        (FilterOperator.EQ, None, "is_empty"),
        (FilterOperator.NE, None, "is_empty"),
        (FilterOperator.IN, "ab", "expected a list"),
        (FilterOperator.GT, [1], "expected a single value"),
        (FilterOperator.CONTAINS, ["a"], "expected a single value"),
    ],
)
def test_values_that_an_operator_cannot_take_are_refused(
    varied: GrapnelVectorStore, operator: FilterOperator, value: Any, message: str
) -> None:
    with pytest.raises(RequestError, match=message):
        varied.query(VectorStoreQuery(query_str="owl", filters=MetadataFilters(filters=[one(operator, value)])))


def test_conditions_join_nest_and_negate(varied: GrapnelVectorStore) -> None:
    small, text = one(FilterOperator.LT, 8, "n"), one(FilterOperator.IN, ["a", "ab", "b"])
    places = set(range(len(VALUES)))
    is_small = {place for place in places if place < 8}
    is_text = {place for place in places if VALUES[place] in ("a", "ab", "b")}
    for condition, expected in [
        (FilterCondition.AND, is_small & is_text),
        (None, is_small & is_text),
        (FilterCondition.OR, is_small | is_text),
        (FilterCondition.NOT, places - (is_small | is_text)),
    ]:
        assert found(varied, MetadataFilters(filters=[small, text], condition=condition)) == expected
    inner = MetadataFilters(filters=[small, text], condition=FilterCondition.NOT)
    outer = MetadataFilters(filters=[inner, one(FilterOperator.EQ, 3, "n")], condition=FilterCondition.OR)
    assert found(varied, outer) == places - (is_small | is_text) | {3}
    empty = [MetadataFilters(filters=[], condition=condition) for condition in FilterCondition]
    assert [found(varied, MetadataFilters(filters=[each])) for each in empty] == [places, set(), places]
    assert found(varied, MetadataFilters(filters=[])) == places


def test_a_field_that_no_node_has_is_missing_everywhere(varied: GrapnelVectorStore) -> None:
    places = set(range(len(VALUES)))
    assert found(varied, MetadataFilters(filters=[one(FilterOperator.EQ, 1, "nowhere")])) == set()
    assert found(varied, MetadataFilters(filters=[one(FilterOperator.NE, 1, "nowhere")])) == places
    assert found(varied, MetadataFilters(filters=[one(FilterOperator.IS_EMPTY, None, "nowhere")])) == places


# -- nodes ------------------------------------------------------------------------------------------------------------


def source(doc_id: str) -> dict[NodeRelationship, Any]:
    return {NodeRelationship.SOURCE: RelatedNodeInfo(node_id=doc_id, metadata={"file": doc_id})}


def test_nodes_of_every_kind_come_back_as_they_were(make_store: MakeStore) -> None:
    store = make_store()
    nodes: list[BaseNode] = [
        TextNode(
            id_="text",
            text="An owl.\n",
            metadata={"x": 1, "tags": ["a", {"b": None}], "none": None, "empty": []},
            relationships=source("book"),
            excluded_embed_metadata_keys=["x"],
            start_char_idx=3,
            end_char_idx=11,
        ),
        Node(id_="node", text_resource={"text": "An elk."}),
        ImageNode(id_="image", text="A picture", image_url="http://127.0.0.1/x.png"),
        IndexNode(id_="index", text="A summary", index_id="other"),
        LlamaDocument(id_="document", text="A whole document", metadata={"x": 2}),
    ]
    assert store.add(nodes) == ["text", "node", "image", "index", "document"]
    back = store.get_nodes(["document", "gone", "text", "node", "image", "index"])
    assert [node.node_id for node in back] == ["document", "text", "node", "image", "index"]
    for node in nodes[:-1]:
        (same_id,) = [each for each in back if each.node_id == node.node_id]
        assert same_id.to_dict() == node.to_dict()
    assert back[0].get_content() == "A whole document"
    assert back[0].metadata == {"x": 2}
    assert back[1].ref_doc_id == "book"


def test_documents_of_other_programs_are_plain_nodes(make_store: MakeStore) -> None:
    store = make_store()
    store.client.add([Document("a", "An owl.", "Birds", {"x": 1})])
    (node,) = store.get_nodes(["a"])
    assert (node.node_id, node.get_content(), node.metadata) == ("a", "An owl.", {"title": "Birds", "x": 1})


def test_what_cannot_be_stored_is_refused(make_store: MakeStore) -> None:
    store = make_store()
    with pytest.raises(CorpusError, match="ref_doc_id"):
        store.add([TextNode(text="x", metadata={"ref_doc_id": "mine"})])
    with pytest.raises((CorpusError, RequestError)):
        store.add([TextNode(text="x", metadata={"big": 1 << 80})])
    with pytest.raises(ValueError, match="embedding"):
        make_store(DIM).add([TextNode(text="x")])
    with pytest.raises(RequestError, match="namespace"):
        store.add([TextNode(text="x")], namespace="n")
    assert store.client.count() == 0


async def test_nodes_are_deleted_by_document_id_and_filter(make_store: MakeStore) -> None:
    store = make_store()
    store.delete("of an empty store")
    nodes = [
        TextNode(id_=f"n{n}", text=f"text {n}", metadata={"n": n}, relationships=source(f"doc{n % 2}"))
        for n in range(10)
    ]
    await store.async_add(nodes)

    def left() -> list[int]:
        return [node.metadata["n"] for node in store.get_nodes()]

    await store.adelete("doc1")
    assert left() == [0, 2, 4, 6, 8]
    await store.adelete_nodes(["n0", "n1"])
    assert left() == [2, 4, 6, 8]
    above = MetadataFilters(filters=[one(FilterOperator.GT, 5, "n")])
    store.delete_nodes(["n4", "n6"], above)
    assert left() == [2, 4, 8]
    assert [node.node_id for node in await store.aget_nodes(["n2", "n8"], above)] == ["n8"]
    store.delete_nodes(filters=above)
    assert left() == [2, 4]
    with pytest.raises(RequestError, match="clear"):
        store.delete_nodes()
    assert left() == [2, 4]
    await store.aclear()
    assert left() == []


def test_there_may_be_more_than_a_page_of_everything(make_store: MakeStore) -> None:
    store = make_store()
    count = 1_100  # a folder's page has 1,000 documents, a server's 100, a request 500 ids, a comparison 1,000
    ids = [f"{n:04}" for n in range(count)]
    store.add([TextNode(id_=node_id, text=f"t {node_id}", metadata={"n": n}) for n, node_id in enumerate(ids)])
    assert [node.node_id for node in store.get_nodes()] == ids
    assert [node.node_id for node in store.get_nodes(ids[::-1])] == ids[::-1]
    odd = MetadataFilters(
        filters=[one(FilterOperator.GTE, 0, "n"), one(FilterOperator.NIN, list(range(0, 2000, 2)), "n")]
    )
    assert [node.node_id for node in store.get_nodes(ids, odd)] == ids[1::2]
    assert store.client.count({"type": "gte", "key": "n", "value": 50}) == count - 50
    query = VectorStoreQuery(query_str=f"t {ids[-1]}", node_ids=[*ids[:-1:2], ids[-1]], similarity_top_k=3)
    assert (store.query(query).ids or [])[0] == ids[-1]
    store.delete_nodes(ids[1:])
    assert [node.node_id for node in store.get_nodes()] == ids[:1]


# -- search -----------------------------------------------------------------------------------------------------------

MANY = 60
RNG = np.random.default_rng(11)
VECTORS = RNG.normal(size=(MANY, DIM)).astype(np.float32)
VECTORS /= np.linalg.norm(VECTORS, axis=1, keepdims=True)
WORDS = ["owl", "elk", "eel", "ant"]


@pytest.fixture(scope="module")
def embedded(stores: Callable[[int | None], Store]) -> GrapnelVectorStore:
    store = GrapnelVectorStore(stores(DIM))
    store.clear()
    store.add(
        [
            TextNode(
                id_=f"{n:02}",
                text=f"{WORDS[n % 4]} number {n}",
                metadata={"n": n},
                embedding=VECTORS[n].tolist(),
                relationships=source(f"doc{n % 3}"),
            )
            for n in range(MANY)
        ]
    )
    return store


def ask(store: GrapnelVectorStore, mode: VectorStoreQueryMode, **options: Any) -> list[tuple[int, float]]:
    kwargs = options.pop("kwargs", {})
    query = VectorStoreQuery(
        mode=mode, **{"query_embedding": (VECTORS[7] + 0.1).tolist(), "similarity_top_k": 8, **options}
    )
    result = store.query(query, **kwargs)
    assert result.nodes is not None
    assert [node.node_id for node in result.nodes] == result.ids
    assert result.similarities is not None
    return [(int(node_id), score) for node_id, score in zip(result.ids or [], result.similarities, strict=True)]


def cosines() -> np.ndarray[Any, Any]:
    query = VECTORS[7] + 0.1
    return VECTORS @ (query / np.linalg.norm(query))


def test_default_mode_is_nearest_neighbours(embedded: GrapnelVectorStore) -> None:
    assert embedded.is_embedding_query
    expected = np.argsort(-cosines())[:8]
    result = ask(embedded, VectorStoreQueryMode.DEFAULT)
    assert [n for n, _ in result] == expected.tolist()
    assert [score for _, score in result] == pytest.approx(cosines()[expected].tolist(), abs=1e-6)


def test_queries_are_kept_to_nodes_documents_and_filters(embedded: GrapnelVectorStore) -> None:
    order = np.argsort(-cosines()).tolist()
    for options, allowed in [
        ({"node_ids": ["05", "09", "20", "none"]}, {5, 9, 20}),
        ({"doc_ids": ["doc1"]}, {n for n in range(MANY) if n % 3 == 1}),
        ({"doc_ids": ["doc1"], "node_ids": ["04", "05"]}, {4}),
        ({"filters": MetadataFilters(filters=[one(FilterOperator.LT, 9, "n")]), "doc_ids": ["doc0"]}, {0, 3, 6}),
        ({"node_ids": [], "doc_ids": []}, set(range(MANY))),
    ]:
        result = ask(embedded, VectorStoreQueryMode.DEFAULT, **options)
        assert [n for n, _ in result] == [n for n in order if n in allowed][:8], options


@pytest.mark.parametrize("threshold", [None, 0.0, 0.3, 1.0])
@pytest.mark.parametrize("given", ["query", "argument"])
def test_marginal_relevance_is_that_of_the_formula(
    embedded: GrapnelVectorStore, threshold: float | None, given: str
) -> None:
    weight = 0.5 if threshold is None else threshold
    relevance = (cosines() - cosines().min()) / np.ptp(cosines())
    chosen: list[int] = []
    while len(chosen) < 8:
        rest = [n for n in np.argsort(-relevance).tolist() if n not in chosen]  # of equals, the first one
        near = {n: max((VECTORS[n] @ VECTORS[c] for c in chosen), default=0.0) for n in rest}
        chosen.append(max(rest, key=lambda n: weight * relevance[n] - (1 - weight) * near[n]))
    options = {"mmr_threshold": threshold} if given == "query" else {"kwargs": {"mmr_threshold": threshold}}
    assert [n for n, _ in ask(embedded, VectorStoreQueryMode.MMR, **options)] == chosen


@pytest.mark.parametrize("mode", [VectorStoreQueryMode.SPARSE, VectorStoreQueryMode.TEXT_SEARCH])
def test_words_are_searched_without_an_embedding(embedded: GrapnelVectorStore, mode: VectorStoreQueryMode) -> None:
    result = ask(embedded, mode, query_embedding=None, query_str="owl", similarity_top_k=50)
    assert {n for n, _ in result} == set(range(0, MANY, 4))


def test_hybrid_moves_from_words_to_vectors_with_alpha(embedded: GrapnelVectorStore) -> None:
    def hybrid(**options: Any) -> list[int]:
        return [n for n, _ in ask(embedded, VectorStoreQueryMode.HYBRID, query_str="owl", **options)]

    nearest = [n for n, _ in ask(embedded, VectorStoreQueryMode.DEFAULT)]
    assert hybrid(alpha=1.0) == nearest
    owls_by_nearness = [n for n in np.argsort(-cosines()).tolist() if n % 4 == 0]
    assert hybrid(alpha=0.01) == owls_by_nearness[:8]
    assert set(hybrid(alpha=0.0)) <= set(range(0, MANY, 4))
    assert len(hybrid(hybrid_top_k=3)) == 3
    own = [hit.doc_id for hit in hybrid_of_the_collection(embedded)]
    assert hybrid() == [int(doc_id) for doc_id in own]


def hybrid_of_the_collection(store: GrapnelVectorStore) -> list[Any]:
    vector = (VECTORS[7] + 0.1).astype(np.float32)
    return store.client.search(SearchRequest(Query("q", "owl", vectors={"dense": vector}), 8), mode="hybrid")


@pytest.mark.parametrize(
    "mode",
    [
        VectorStoreQueryMode.SEMANTIC_HYBRID,
        VectorStoreQueryMode.SVM,
        VectorStoreQueryMode.LINEAR_REGRESSION,
        VectorStoreQueryMode.LOGISTIC_REGRESSION,
    ],
)
def test_other_modes_are_refused_by_name(embedded: GrapnelVectorStore, mode: VectorStoreQueryMode) -> None:
    with pytest.raises(RequestError, match=mode.value):
        ask(embedded, mode, query_str="owl")


def test_a_query_lacking_what_its_mode_needs_is_refused(embedded: GrapnelVectorStore) -> None:
    with pytest.raises(RequestError, match="query_embedding"):
        ask(embedded, VectorStoreQueryMode.DEFAULT, query_embedding=None, query_str="owl")
    with pytest.raises(RequestError, match="empty"):
        ask(embedded, VectorStoreQueryMode.SPARSE, query_embedding=None)
    with pytest.raises(RequestError, match="alpha"):
        ask(embedded, VectorStoreQueryMode.DEFAULT, kwargs={"alpha": 1})


async def test_asynchronous_queries_answer_the_same(embedded: GrapnelVectorStore) -> None:
    query = VectorStoreQuery(query_embedding=VECTORS[3].tolist(), similarity_top_k=5)
    assert (await embedded.aquery(query)).ids == embedded.query(query).ids


# -- models, retriever, index -----------------------------------------------------------------------------------------


async def test_the_embedding_is_the_encoders(embedder: Embedder) -> None:
    model = GrapnelEmbedding(embedder, embed_batch_size=7)
    expected = open_encoder(HASHING)
    texts = [f"text {n} of owls" for n in range(30)]
    vectors = expected.encode_texts(texts).vectors
    np.testing.assert_allclose(model.get_text_embedding_batch(texts), vectors, atol=1e-6)
    np.testing.assert_allclose(await model.aget_text_embedding_batch(texts[:9]), vectors[:9], atol=1e-6)
    np.testing.assert_allclose(model.get_text_embedding(texts[0]), vectors[0], atol=1e-6)
    np.testing.assert_allclose(await model.aget_text_embedding(texts[0]), vectors[0], atol=1e-6)
    query = model.get_query_embedding("owls")
    assert await model.aget_query_embedding("owls") == query
    assert len(query) == 64


ANIMALS = ["Owls hunt at night.", "Elks eat grass.", "Eels swim far.", "An owl turns its head at night."]


def test_an_index_over_client_vectors(make_store: MakeStore, embedder: Embedder) -> None:
    store = make_store(64)
    model = GrapnelEmbedding(embedder)
    index = VectorStoreIndex(
        [TextNode(id_=str(n), text=text) for n, text in enumerate(ANIMALS)],
        storage_context=storage(store),
        embed_model=model,
    )
    found = index.as_retriever(similarity_top_k=2).retrieve("owls at night")
    assert {node.node.node_id for node in found} == {"0", "3"}
    again = VectorStoreIndex.from_vector_store(store, embed_model=model)
    assert [node.node.node_id for node in again.as_retriever(similarity_top_k=1).retrieve("eels swim")] == ["2"]
    again.delete_nodes(["2"])
    again.insert_nodes([TextNode(id_="4", text="Ants carry leaves.", relationships=source("ants"))])
    assert [node.node_id for node in store.get_nodes()] == ["0", "1", "3", "4"]
    again.delete_ref_doc("ants")
    assert [node.node_id for node in store.get_nodes()] == ["0", "1", "3"]


def storage(store: GrapnelVectorStore) -> Any:
    return StorageContext.from_defaults(vector_store=store)


async def test_an_index_over_a_collection_that_encodes(make_store: MakeStore) -> None:
    store = make_store()
    assert not store.is_embedding_query
    nodes = [TextNode(id_=str(n), text=text) for n, text in enumerate(ANIMALS)]
    index = VectorStoreIndex(nodes, storage_context=storage(store), embed_model=MockEmbedding(embed_dim=1))
    for mode in ("default", "hybrid", "sparse", "mmr"):
        found = index.as_retriever(similarity_top_k=1, vector_store_query_mode=mode).retrieve("eels swim")
        assert [node.node.node_id for node in found] == ["2"], mode
    retriever = GrapnelRetriever(store.client, similarity_top_k=2)
    assert {node.node.node_id for node in retriever.retrieve("owl at night")} == {"0", "3"}
    assert await retriever.aretrieve("owl at night") == retriever.retrieve("owl at night")


def test_the_retriever_searches_as_it_is_told(embedded: GrapnelVectorStore) -> None:
    class Fixed(MockEmbedding):
        def _get_query_embedding(self, query: str) -> list[float]:
            assert query == "elk"
            return (VECTORS[7] + 0.1).tolist()

    model: BaseEmbedding = Fixed(embed_dim=DIM)
    low = MetadataFilters(filters=[one(FilterOperator.LT, 30, "n")])
    order = [n for n in np.argsort(-cosines()).tolist() if n < 30][:5]
    for filters in (low, {"type": "lt", "key": "n", "value": 30}):
        retriever = GrapnelRetriever(embedded.client, model, similarity_top_k=5, mode="dense", filters=filters)
        assert [int(node.node.node_id) for node in retriever.retrieve("elk")] == order
    bundle = QueryBundle("elk", embedding=(-VECTORS[7]).tolist())
    assert GrapnelRetriever(embedded.client, model, mode="dense").retrieve(bundle)[0].node.node_id == (
        f"{int(np.argmin(VECTORS @ VECTORS[7])):02}"
    )
    words = GrapnelRetriever(embedded.client, model, mode="lexical", min_score=1e6).retrieve("elk")
    assert words == []
    with pytest.raises(TypeError, match="top"):
        GrapnelRetriever(embedded.client, model, top=3)


def test_collection_and_embed_model_must_agree(make_store: MakeStore) -> None:
    with pytest.raises(ConfigError, match="encodes by itself"):
        GrapnelRetriever(make_store().client, MockEmbedding(embed_dim=1))
    with pytest.raises(ConfigError, match="give the embedding model"):
        GrapnelRetriever(make_store(DIM).client)


@pytest.fixture(params=["here", "server"])
def reranker(request: pytest.FixtureRequest) -> Any:
    if request.param == "here":
        yield SimilarityReranker(RerankerConfig(encoder=HASHING), open_encoder(HASHING))
        return
    with Grapnel(request.getfixturevalue("server").url) as client:
        yield ServerReranker(client, "similarity")


async def test_nodes_are_reranked(reranker: Reranker) -> None:
    nodes = [NodeWithScore(node=TextNode(id_=str(n), text=text), score=9.0) for n, text in enumerate(ANIMALS)]
    encoder = open_encoder(HASHING)
    texts = encoder.encode_texts(ANIMALS).vectors
    (query,) = encoder.encode_texts(["Elks eat grass."]).vectors
    expected = texts @ query / np.linalg.norm(texts, axis=1) / np.linalg.norm(query)
    best = GrapnelRerank(reranker, top_n=3).postprocess_nodes(nodes, query_str="Elks eat grass.")
    assert len(best) == 3
    assert best[0].node.node_id == "1"
    for node in best:
        assert node.score == pytest.approx(expected[int(node.node.node_id)], abs=1e-5)
    assert [node.score for node in best] == sorted((node.score for node in best), reverse=True)
    later = await GrapnelRerank(reranker, top_n=10).apostprocess_nodes(nodes, query_str="Elks eat grass.")
    assert len(later) == len(ANIMALS)
    assert later[:1] == best[:1]
    assert GrapnelRerank(reranker).postprocess_nodes([], query_str="x") == []
    with pytest.raises(RequestError, match="query"):
        GrapnelRerank(reranker).postprocess_nodes(nodes)


def test_nothing_is_reranked_to_nothing(reranker: Reranker) -> None:
    nothing = reranker.rerank("owl", [], top_k=3, deadline=None)
    assert (nothing.order, nothing.scores, nothing.notes) == ((), (), ())


def test_what_a_server_degraded_is_noted() -> None:
    value = {"results": [{"index": 0, "relevance_score": 1.0}], "meta": {"warnings": ["rerank_truncated=1"]}}
    with Grapnel(transport=httpx.MockTransport(lambda _: httpx.Response(200, json=value))) as client:
        result = ServerReranker(client, "m").rerank("owl", [Candidate("text", "title")], top_k=1, deadline=None)
    assert (result.order, result.scores, result.notes) == ((0,), (1.0,), ("rerank_truncated=1",))
