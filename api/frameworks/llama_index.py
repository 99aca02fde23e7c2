"""LlamaIndex: a vector store, a retriever, an embedding and a reranking postprocessor.

from api.frameworks.llama_index import GrapnelRetriever, GrapnelVectorStore
from api.frameworks.store import open_folder

mine = GrapnelVectorStore(open_folder("mine", dim=384))                      # takes the vectors of an embed_model
index = VectorStoreIndex.from_vector_store(mine, embed_model=...)

notes = open_folder("notes")                                                 # encodes by itself
GrapnelVectorStore(notes).add([TextNode(text="Grapnels are small anchors.")])
GrapnelRetriever(notes, similarity_top_k=3).retrieve("anchor")

A VectorStoreIndex always runs its embed_model on nodes. Over a collection that encodes by itself these vectors are not
used: give MockEmbedding(embed_dim=1), or add nodes to the vector store and search with GrapnelRetriever.
"""

import asyncio
import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import numpy as np
from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.bridge.pydantic import PrivateAttr
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.schema import BaseNode, MetadataMode, NodeWithScore, QueryBundle, TextNode
from llama_index.core.vector_stores.types import (
    BasePydanticVectorStore,
    MetadataFilters,
    VectorStoreQuery,
    VectorStoreQueryMode,
    VectorStoreQueryResult,
)
from llama_index.core.vector_stores.utils import metadata_dict_to_node, node_to_metadata_dict

from api.frameworks.conditions import EVERYTHING, Condition, all_of, one_of_ids
from api.frameworks.llama_index_filters import EMPTY_LISTS, condition_of
from api.frameworks.models import Embedder
from api.frameworks.store import Store, refuse
from index.errors import CorpusError, RequestError
from retrieval.pipeline_config import HYBRID
from retrieval.protocols import Candidate, Reranker
from retrieval.types import Document, Metadata, Query, SearchRequest, Vector

log = logging.getLogger(__name__)

REF_DOC_ID: Final = "ref_doc_id"
_NODE, _NODE_TYPE = "_node_content", "_node_type"
_KEPT = (REF_DOC_ID, _NODE, _NODE_TYPE, EMPTY_LISTS)
"""Metadata keys of the adapter: the document a node is of, and what of a node is neither text nor metadata."""

_MMR_THRESHOLD = 0.5
"""As LlamaIndex's own store takes it where none is given."""


class GrapnelVectorStore(BasePydanticVectorStore):
    """A collection as a vector store; it stores the nodes, too, so an index needs no other store.

    Modes: default (vectors), mmr (the same, results that differ from each other), sparse and text_search (words),
    hybrid (both; `alpha` is the share of the vectors, None = as the collection fuses). The others raise RequestError.
    A node is searched by its text; with the collection's own encoder, metadata is not part of it.
    Asynchronous methods run the others on threads.
    """

    stores_text: bool = True
    is_embedding_query: bool = False
    _store: Store = PrivateAttr()

    def __init__(self, store: Store) -> None:
        super().__init__(stores_text=True, is_embedding_query=store.layout().client_field is not None)
        self._store = store

    @classmethod
    def class_name(cls) -> str:
        """Return the name that LlamaIndex knows this class by."""
        return "GrapnelVectorStore"

    @property
    def client(self) -> Store:
        """The store under this one."""
        return self._store

    # -- nodes --------------------------------------------------------------------------------------------------

    def add(self, nodes: Sequence[BaseNode], **kwargs: Any) -> list[str]:
        """Add or replace nodes; return their ids.

        Raises CorpusError on metadata that is not JSON, or under a key of the adapter's; ValueError on a node without
        an embedding where the collection takes vectors of clients.
        """
        refuse(kwargs)
        field = self._store.layout().client_field
        self._store.add(_document(node, field) for node in nodes)
        return [node.node_id for node in nodes]

    def delete(self, ref_doc_id: str, **delete_kwargs: Any) -> None:
        """Delete all nodes of a document."""
        refuse(delete_kwargs)
        self._store.delete(filter=one_of_ids([ref_doc_id], REF_DOC_ID))

    def delete_nodes(
        self, node_ids: list[str] | None = None, filters: MetadataFilters | None = None, **delete_kwargs: Any
    ) -> None:
        """Delete nodes by id, those that match, or of those ids those that match. Raises RequestError without both."""
        refuse(delete_kwargs)
        condition = condition_of(filters)
        if node_ids is None and condition is None:
            raise RequestError("nothing to delete: give node ids or filters; `clear` deletes everything")
        if condition is None:
            self._store.delete(node_ids or [])
        else:
            self._store.delete(filter=_among(node_ids, condition))

    def clear(self) -> None:
        """Delete every node."""
        self._store.delete(filter=EVERYTHING)

    def get_nodes(self, node_ids: list[str] | None = None, filters: MetadataFilters | None = None) -> list[BaseNode]:
        """Return nodes by id (in that order, without those that are not there), those that match, or of those ids."""
        condition = condition_of(filters)
        found: Iterable[Document | None]
        if node_ids is not None and condition is None:
            found = self._store.get(node_ids)
        else:
            found = self._store.documents(_among(node_ids, condition))
        return [_node(each.id, each.text, each.title, each.metadata) for each in found if each is not None]

    async def async_add(self, nodes: Sequence[BaseNode], **kwargs: Any) -> list[str]:
        """See `add`."""
        return await asyncio.to_thread(self.add, nodes, **kwargs)

    async def adelete(self, ref_doc_id: str, **delete_kwargs: Any) -> None:
        """See `delete`."""
        await asyncio.to_thread(self.delete, ref_doc_id, **delete_kwargs)

    async def adelete_nodes(
        self, node_ids: list[str] | None = None, filters: MetadataFilters | None = None, **delete_kwargs: Any
    ) -> None:
        """See `delete_nodes`."""
        await asyncio.to_thread(self.delete_nodes, node_ids, filters, **delete_kwargs)

    async def aclear(self) -> None:
        """See `clear`."""
        await asyncio.to_thread(self.clear)

    async def aget_nodes(
        self, node_ids: list[str] | None = None, filters: MetadataFilters | None = None
    ) -> list[BaseNode]:
        """See `get_nodes`."""
        return await asyncio.to_thread(self.get_nodes, node_ids, filters)

    # -- search -------------------------------------------------------------------------------------------------

    def query(self, query: VectorStoreQuery, **kwargs: Any) -> VectorStoreQueryResult:
        """Return the best nodes with their scores: higher is better, comparable within one mode only.

        kwargs: mmr_threshold, in place of the query's own (1 = relevance alone, 0 = diversity alone; relevance is the
        score scaled to [0, 1] over the candidates, not the raw cosine).
        """
        threshold = kwargs.pop("mmr_threshold", query.mmr_threshold)
        refuse(kwargs)
        mode, weights = self._mode(query)
        # An index passes an empty list where it has no nodes of its own to restrict the search to.
        of_documents = one_of_ids(query.doc_ids, REF_DOC_ID) if query.doc_ids else None
        diversity = 1 - (_MMR_THRESHOLD if threshold is None else threshold)
        request = SearchRequest(
            Query("q", query.query_str or "", vectors=self._vectors(query, mode)),
            k=(query.mode == VectorStoreQueryMode.HYBRID and query.hybrid_top_k) or query.similarity_top_k,
            filter=all_of(_among(query.node_ids or None, condition_of(query.filters)), of_documents),
            diversity=diversity if query.mode == VectorStoreQueryMode.MMR else 0.0,
        )
        hits = self._store.search(request, mode=mode, weights=weights)
        return VectorStoreQueryResult(
            nodes=[_node(hit.doc_id, hit.passage.text, hit.passage.title, hit.metadata) for hit in hits],
            similarities=[hit.score or 0.0 for hit in hits],
            ids=[hit.doc_id for hit in hits],
        )

    async def aquery(self, query: VectorStoreQuery, **kwargs: Any) -> VectorStoreQueryResult:
        """See `query`."""
        return await asyncio.to_thread(self.query, query, **kwargs)

    def _mode(self, query: VectorStoreQuery) -> tuple[str | None, Mapping[str, float] | None]:
        """Return the mode of a query, or None and the shares of the fields that it fuses."""
        layout = self._store.layout()
        match query.mode:
            case VectorStoreQueryMode.DEFAULT | VectorStoreQueryMode.MMR:
                return layout.vector_field, None
            case VectorStoreQueryMode.SPARSE | VectorStoreQueryMode.TEXT_SEARCH:
                return layout.word_field, None
            case VectorStoreQueryMode.HYBRID:
                if query.alpha is None:
                    return HYBRID, None
                return None, {layout.vector_field: query.alpha, layout.word_field: 1 - query.alpha}
            case _:
                raise RequestError(
                    f"query mode {query.mode.value!r} is not one of default, mmr, sparse, text_search, hybrid"
                )

    def _vectors(self, query: VectorStoreQuery, mode: str | None) -> dict[str, Vector]:
        """Return the query's vector where it is needed: for vectors of clients, and where there is no text."""
        layout = self._store.layout()
        if mode in layout.lexical or (layout.client_field is None and query.query_str):
            return {}
        if query.query_embedding is None:
            raise RequestError(f"the query has no embedding for field {layout.vector_field!r}: give query_embedding")
        return {layout.vector_field: np.asarray(query.query_embedding, np.float32)}


class GrapnelRetriever(BaseRetriever):
    """Searches a collection as grapnel does.

    embed_model: makes the query's vector, where the collection's come from clients; None where it encodes by itself.
    Raises ConfigError where these do not agree. mode: None = the collection's default. filters: LlamaIndex's, or the
    grammar of retrieval/filters.py. options: the other fields of retrieval.types.SearchRequest (min_score, diversity,
    group ...).
    """

    def __init__(
        self,
        store: Store,
        embed_model: BaseEmbedding | None = None,
        *,
        similarity_top_k: int = 10,
        mode: str | None = None,
        filters: MetadataFilters | Condition | None = None,
        **options: Any,
    ) -> None:
        super().__init__()
        self._store = store
        self._embed_model = embed_model
        self._field = store.layout().field_for(embed_model)
        self._mode = mode
        condition = filters if isinstance(filters, Mapping) else condition_of(filters)
        self._options = {"k": similarity_top_k, "filter": condition, **options}
        SearchRequest(Query("q", ""), **self._options)  # TypeError on an unknown option now, not at the first search

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        vectors: dict[str, Vector] = {}
        if self._field is not None and self._embed_model is not None:
            made = query_bundle.embedding or self._embed_model.get_agg_embedding_from_queries(
                query_bundle.embedding_strs
            )
            vectors = {self._field: np.asarray(made, np.float32)}
        query = Query("q", query_bundle.query_str, vectors=vectors)
        hits = self._store.search(SearchRequest(query, **self._options), mode=self._mode)
        return [
            NodeWithScore(node=_node(hit.doc_id, hit.passage.text, hit.passage.title, hit.metadata), score=hit.score)
            for hit in hits
        ]

    async def _aretrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        return await asyncio.to_thread(self._retrieve, query_bundle)


class GrapnelEmbedding(BaseEmbedding):
    """An encoder of grapnel, of this process or of a server. options: those of BaseEmbedding."""

    _embedder: Embedder = PrivateAttr()

    def __init__(self, embedder: Embedder, model_name: str = "grapnel", **options: Any) -> None:
        super().__init__(model_name=model_name, **options)
        self._embedder = embedder

    @classmethod
    def class_name(cls) -> str:
        """Return the name that LlamaIndex knows this class by."""
        return "GrapnelEmbedding"

    def _get_query_embedding(self, query: str) -> list[float]:
        vector: list[float] = self._embedder.queries([query])[0].tolist()
        return vector

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return await asyncio.to_thread(self._get_query_embedding, query)

    def _get_text_embedding(self, text: str) -> list[float]:
        return self._get_text_embeddings([text])[0]

    async def _aget_text_embedding(self, text: str) -> list[float]:
        return await asyncio.to_thread(self._get_text_embedding, text)

    def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        vectors: list[list[float]] = self._embedder.passages(texts).tolist()
        return vectors

    async def _aget_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        return await asyncio.to_thread(self._get_text_embeddings, texts)


class GrapnelRerank(BaseNodePostprocessor):
    """Puts nodes in the order of a reranker, of this process (retrieval/build.py) or of a server, and keeps `top_n`."""

    top_n: int = 10
    _reranker: Reranker = PrivateAttr()

    def __init__(self, reranker: Reranker, top_n: int = 10) -> None:
        super().__init__(top_n=top_n)  # type: ignore[call-arg]  # pydantic makes the parameter of the field
        self._reranker = reranker

    @classmethod
    def class_name(cls) -> str:
        """Return the name that LlamaIndex knows this class by."""
        return "GrapnelRerank"

    def _postprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        if query_bundle is None:
            raise RequestError("a reranker compares nodes with a query: give query_bundle or query_str")
        if not nodes:
            return []
        candidates = [Candidate(node.node.get_content(MetadataMode.EMBED)) for node in nodes]
        result = self._reranker.rerank(query_bundle.query_str, candidates, top_k=self.top_n, deadline=None)
        for note in result.notes:
            log.info("rerank: %s", note)
        return [
            NodeWithScore(node=nodes[place].node, score=score)
            for place, score in zip(result.order, result.scores, strict=True)
        ]


def _among(node_ids: Sequence[str] | None, condition: Condition | None) -> Condition | None:
    return all_of(None if node_ids is None else one_of_ids(node_ids), condition)


def _document(node: BaseNode, field: str | None) -> Document:
    taken = [key for key in _KEPT if key in node.metadata]
    if taken:
        raise CorpusError(f"node {node.node_id!r} has metadata under {taken[0]!r}, which this adapter needs: rename it")
    bare = node_to_metadata_dict(node.model_copy(update={"metadata": {}}), remove_text=True)
    metadata = {**node.metadata, _NODE: bare[_NODE], _NODE_TYPE: bare[_NODE_TYPE]}
    if node.ref_doc_id is not None:
        metadata[REF_DOC_ID] = node.ref_doc_id
    empty = [key for key, value in node.metadata.items() if value == []]
    if empty:
        metadata[EMPTY_LISTS] = empty
    vectors = {} if field is None else {field: np.asarray(node.get_embedding(), np.float32)}
    return Document(node.node_id, node.get_content(MetadataMode.NONE), metadata=metadata, vectors=vectors)


def _node(doc_id: str, text: str, title: str, stored: Metadata) -> BaseNode:
    """Return the node that a document holds; a plain one of its text, where another program stored the document."""
    own = {key: value for key, value in stored.items() if key not in _KEPT}
    if _NODE not in stored:
        return TextNode(id_=doc_id, text=text, metadata={**({"title": title} if title else {}), **own})
    node = metadata_dict_to_node({_NODE: stored[_NODE], _NODE_TYPE: stored[_NODE_TYPE]}, text=text)
    node.metadata = own
    return node
