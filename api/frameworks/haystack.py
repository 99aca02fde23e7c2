"""Haystack: a document store and its retrievers.

from api.frameworks.haystack import GrapnelDocumentStore, GrapnelEmbeddingRetriever, GrapnelHybridRetriever

store = GrapnelDocumentStore("notes")                            # encodes by itself: no embedder in the pipelines
store.write_documents([Document(content="Grapnels are small anchors.")])
GrapnelHybridRetriever(store).run("anchor")["documents"]

mine = GrapnelDocumentStore("mine", embedding_dim=384)           # takes the embeddings of an embedder
GrapnelEmbeddingRetriever(mine).run(query_embedding=[...])

Haystack loads pipelines from YAML only with classes that it is told to trust: put "api.frameworks.*" into the variable
HAYSTACK_DESERIALIZATION_ALLOWLIST of the environment, or give it to allow_deserialization_module (of
haystack.core.serialization). A store whose api_key is Secret.from_env_var("NAME") can be saved.
"""

import asyncio
from typing import Any, Self

from haystack import component, default_from_dict, default_to_dict
from haystack.dataclasses import Document
from haystack.document_stores.types import FilterPolicy, apply_filter_policy

from api.frameworks.haystack_store import Filters, GrapnelDocumentStore

__all__ = ["GrapnelBM25Retriever", "GrapnelDocumentStore", "GrapnelEmbeddingRetriever", "GrapnelHybridRetriever"]


class _Retriever:
    """What the retrievers share.

    filters: for every search; filter_policy: whether those of a search take their place or are added.
    Raises ValueError on top_k below 1. Those with arguments of their own call it by name: `component` makes a class
    anew, which a bare super() does not survive.
    """

    def __init__(
        self,
        document_store: GrapnelDocumentStore,
        filters: Filters = None,
        top_k: int = 10,
        filter_policy: FilterPolicy = FilterPolicy.REPLACE,
    ) -> None:
        if top_k < 1:
            raise ValueError(f"top_k is {top_k}, expected at least 1")
        self.document_store = document_store
        self.filters = filters
        self.top_k = top_k
        self.filter_policy = filter_policy

    def to_dict(self) -> dict[str, Any]:
        """Return how to make this component again."""
        return default_to_dict(
            self,
            document_store=self.document_store,
            filters=self.filters,
            top_k=self.top_k,
            filter_policy=self.filter_policy.value,
            **self._options(),
        )

    def _options(self) -> dict[str, Any]:
        """Return the arguments of __init__ that the other retrievers do not have."""
        return {}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        """Return the component that `to_dict` told of."""
        given = dict(data["init_parameters"])
        given["document_store"] = GrapnelDocumentStore.from_dict(given["document_store"])
        if "filter_policy" in given:
            given["filter_policy"] = FilterPolicy.from_str(given["filter_policy"])
        return default_from_dict(cls, {**data, "init_parameters": given})

    def _asked(self, filters: Filters, top_k: int | None) -> tuple[Filters, int]:
        return apply_filter_policy(self.filter_policy, self.filters, filters), self.top_k if top_k is None else top_k


@component
class GrapnelEmbeddingRetriever(_Retriever):
    """Finds the documents whose embeddings are nearest to that of a query."""

    def __init__(
        self,
        document_store: GrapnelDocumentStore,
        filters: Filters = None,
        top_k: int = 10,
        filter_policy: FilterPolicy = FilterPolicy.REPLACE,
        *,
        return_embedding: bool = False,
    ) -> None:
        _Retriever.__init__(self, document_store, filters, top_k, filter_policy)  # see `_Retriever`
        self.return_embedding = return_embedding

    def _options(self) -> dict[str, Any]:
        return {"return_embedding": self.return_embedding}

    @component.output_types(documents=list[Document])
    def run(
        self, query_embedding: list[float], filters: Filters = None, top_k: int | None = None
    ) -> dict[str, list[Document]]:
        """Return {"documents": best first}."""
        filters, top_k = self._asked(filters, top_k)
        found = self.document_store.embedding_retrieval(
            query_embedding, filters, top_k, return_embedding=self.return_embedding
        )
        return {"documents": found}

    @component.output_types(documents=list[Document])
    async def run_async(
        self, query_embedding: list[float], filters: Filters = None, top_k: int | None = None
    ) -> dict[str, list[Document]]:
        """See `run`."""
        return await asyncio.to_thread(self.run, query_embedding, filters, top_k)


@component
class GrapnelBM25Retriever(_Retriever):
    """Finds the documents that the words of a query fit best."""

    @component.output_types(documents=list[Document])
    def run(self, query: str, filters: Filters = None, top_k: int | None = None) -> dict[str, list[Document]]:
        """Return {"documents": best first}."""
        return {"documents": self.document_store.bm25_retrieval(query, *self._asked(filters, top_k))}

    @component.output_types(documents=list[Document])
    async def run_async(
        self, query: str, filters: Filters = None, top_k: int | None = None
    ) -> dict[str, list[Document]]:
        """See `run`."""
        return await asyncio.to_thread(self.run, query, filters, top_k)


@component
class GrapnelHybridRetriever(_Retriever):
    """Finds the best documents by words and vectors together.

    dense_weight: share of the vectors, in [0, 1]; 1 = vectors alone, None = as the collection fuses.
    """

    def __init__(
        self,
        document_store: GrapnelDocumentStore,
        filters: Filters = None,
        top_k: int = 10,
        filter_policy: FilterPolicy = FilterPolicy.REPLACE,
        *,
        dense_weight: float | None = None,
        return_embedding: bool = False,
    ) -> None:
        _Retriever.__init__(self, document_store, filters, top_k, filter_policy)  # see `_Retriever`
        self.dense_weight = dense_weight
        self.return_embedding = return_embedding

    def _options(self) -> dict[str, Any]:
        return {"dense_weight": self.dense_weight, "return_embedding": self.return_embedding}

    @component.output_types(documents=list[Document])
    def run(
        self,
        query: str,
        query_embedding: list[float] | None = None,
        filters: Filters = None,
        top_k: int | None = None,
    ) -> dict[str, list[Document]]:
        """Return {"documents": best first}. query_embedding: None where the collection encodes by itself."""
        filters, top_k = self._asked(filters, top_k)
        found = self.document_store.hybrid_retrieval(
            query,
            query_embedding,
            filters,
            top_k,
            dense_weight=self.dense_weight,
            return_embedding=self.return_embedding,
        )
        return {"documents": found}

    @component.output_types(documents=list[Document])
    async def run_async(
        self,
        query: str,
        query_embedding: list[float] | None = None,
        filters: Filters = None,
        top_k: int | None = None,
    ) -> dict[str, list[Document]]:
        """See `run`."""
        return await asyncio.to_thread(self.run, query, query_embedding, filters, top_k)
