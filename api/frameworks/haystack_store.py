"""The Haystack document store; see api/frameworks/haystack.py."""

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, Self

import numpy as np
from haystack import default_from_dict, default_to_dict
from haystack.dataclasses import Document as HaystackDocument
from haystack.document_stores.errors import DuplicateDocumentError
from haystack.document_stores.types import DuplicatePolicy
from haystack.errors import FilterError
from haystack.utils import Secret

from api.frameworks.conditions import EVERYTHING, Condition, all_of
from api.frameworks.haystack_documents import (
    EMBEDDED,
    OWN,
    distinct,
    extremes,
    kinds,
    meta_key,
    meta_of,
    restored,
    stored,
)
from api.frameworks.haystack_filters import condition_of
from api.frameworks.store import Store, open_folder, open_server
from index.errors import ConfigError, CorpusError, RequestError
from retrieval.pipeline_config import HYBRID
from retrieval.types import Document, Metadata, Query, SearchRequest, Vector

Filters = dict[str, Any] | None


class GrapnelDocumentStore:
    """A collection as a document store: that in `folder`, or `collection` of the server at `url`.

    It is opened, and made where there is none, when it is first used. api_key: of the server.
    embedding_dim: of the documents' embeddings, where a collection is made; None = it encodes by itself, and documents
    must not bring any. Embeddings are kept as float32. Documents are listed by id. All stores of a process that name
    one folder are one. Raises ConfigError unless exactly one of folder and url is given.
    """

    def __init__(
        self,
        folder: str | None = None,
        *,
        url: str | None = None,
        collection: str | None = None,
        api_key: Secret | None = None,
        embedding_dim: int | None = None,
    ) -> None:
        if (folder is None) == (url is None) or (url is None) != (collection is None):
            raise ConfigError("give either `folder`, or `url` and `collection`")
        self.folder = folder
        self.url = url
        self.collection = collection
        self.api_key = api_key
        self.embedding_dim = embedding_dim
        self._store: Store | None = None

    @property
    def store(self) -> Store:
        """The store under this one, open."""
        if self._store is None:
            if self.folder is not None:
                self._store = open_folder(self.folder, self.embedding_dim)
            elif self.url is not None and self.collection is not None:
                key = None if self.api_key is None else self.api_key.resolve_value()
                self._store = open_server(self.url, self.collection, key, self.embedding_dim)
            assert self._store is not None, "__init__ checked"
        return self._store

    def to_dict(self) -> dict[str, Any]:
        """Return how to make this store again. Raises ValueError on an `api_key` that is no environment variable."""
        return default_to_dict(
            self,
            folder=self.folder,
            url=self.url,
            collection=self.collection,
            api_key=self.api_key,
            embedding_dim=self.embedding_dim,
        )

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        """Return the store that `to_dict` told of."""
        return default_from_dict(cls, data)

    # -- documents ----------------------------------------------------------------------------------------------

    def count_documents(self) -> int:
        """Return how many documents there are."""
        return self.store.count()

    def filter_documents(self, filters: Filters = None) -> list[HaystackDocument]:
        """Return the documents that match, by id; all without filters. Raises FilterError."""
        field = self.store.layout().client_field
        return [
            restored(each.id, each.text, each.title, each.metadata, embedding=each.vectors.get(field or ""))
            for each in self.store.documents(condition_of(filters))
        ]

    def write_documents(self, documents: list[HaystackDocument], policy: DuplicatePolicy = DuplicatePolicy.NONE) -> int:
        """Store documents; return how many were written.

        policy: NONE is FAIL, which writes nothing where an id is taken or given twice (DuplicateDocumentError). SKIP
        keeps what is there, or came first; OVERWRITE keeps what came last. Another program that writes the same id
        between the look and the write is overwritten.
        Raises ValueError on anything but a list of documents, CorpusError on one that cannot be stored.
        """
        if not isinstance(documents, list) or not all(isinstance(each, HaystackDocument) for each in documents):
            raise ValueError("write_documents takes a list of haystack Documents")
        chosen = documents
        if policy is not DuplicatePolicy.OVERWRITE:
            chosen = self._new(documents, skip=policy is DuplicatePolicy.SKIP)
        layout = self.store.layout()
        self.store.add([stored(each, layout) for each in chosen])
        return len(chosen)

    def _new(self, documents: list[HaystackDocument], *, skip: bool) -> list[HaystackDocument]:
        """Return the documents whose ids are free. Raises DuplicateDocumentError where some are not, unless `skip`."""
        taken = {found.id for found in self.store.get([each.id for each in documents]) if found is not None}
        new = []
        for each in documents:
            if each.id not in taken:
                taken.add(each.id)
                new.append(each)
            elif not skip:
                raise DuplicateDocumentError(f"id {each.id!r} is taken: choose policy OVERWRITE or SKIP")
        return new

    def delete_documents(self, document_ids: list[str]) -> None:
        """Delete documents by id; those that are not there are no error."""
        self.store.delete(document_ids)

    def delete_all_documents(self) -> None:
        """Delete every document."""
        self.store.delete(filter=EVERYTHING)

    def delete_by_filter(self, filters: dict[str, Any]) -> int:
        """Delete the documents that match; return how many. Raises FilterError, on empty filters too."""
        return self.store.delete(filter=_needed(filters))

    def update_by_filter(self, filters: dict[str, Any], meta: Metadata) -> int:
        """Merge into the metadata of the documents that match; return how many. Nothing is encoded again.

        Each is merged by itself, into what it is by then; one that is deleted meanwhile stays so. Only where a value
        is None, which a merge cannot set, are documents written whole: then one that another program changes or deletes
        between the look and the write becomes what it was, and is encoded again if nothing else has its text.
        Raises FilterError, on empty filters too. Cost: on a server, a request for each document; all of them are in
        memory at once.
        """
        if OWN in meta:
            raise CorpusError(f"metadata under {OWN!r} is this adapter's: choose another name")
        matching = list(self.store.documents(_needed(filters)))
        if None not in meta.values():
            return sum(self.store.merge(each.id, meta) for each in matching)
        self.store.add([replace(each, metadata={**each.metadata, **meta}) for each in matching])
        return len(matching)

    # -- metadata -----------------------------------------------------------------------------------------------

    def count_documents_by_filter(self, filters: Filters) -> int:
        """Return how many documents match."""
        return self.store.count(condition_of(filters))

    def count_unique_metadata_by_filter(self, filters: Filters, metadata_fields: list[str]) -> dict[str, int]:
        """Return how many values each field has in the documents that match. Cost: reads them all."""
        metas = list(self._metas(filters))
        return {key: len(distinct(meta.get(key) for meta in metas)) for key in map(meta_key, metadata_fields)}

    def get_metadata_fields_info(self) -> dict[str, dict[str, str]]:
        """Return field -> {"type": "keyword" | "int" | "float" | "boolean"}. Cost: reads all documents."""
        return kinds(self._metas(None))

    def get_metadata_field_min_max(self, metadata_field: str) -> dict[str, Any]:
        """Return {"min": , "max": } of a field of numbers, or of strings. Cost: reads all documents."""
        return extremes(meta.get(meta_key(metadata_field)) for meta in self._metas(None))

    def get_metadata_field_unique_values(
        self,
        metadata_field: str,
        search_term: str | None = None,
        from_: int = 0,
        size: int = 10,
        filters: Filters = None,
    ) -> tuple[list[Any], int]:
        """Return a page of a field's values, by their text, and how many there are. Cost: reads all that match.

        search_term: what the text of a value must hold, in any case.
        """
        values = distinct(meta.get(meta_key(metadata_field)) for meta in self._metas(filters))
        held = [value for value in values if (search_term or "").lower() in str(value).lower()]
        return held[from_ : from_ + size], len(held)

    def _metas(self, filters: Filters) -> Iterable[Metadata]:
        return (meta_of(each.metadata) for each in self.store.documents(condition_of(filters)))

    # -- search -------------------------------------------------------------------------------------------------

    def embedding_retrieval(
        self,
        query_embedding: list[float],
        filters: Filters = None,
        top_k: int = 10,
        *,
        return_embedding: bool = False,
    ) -> list[HaystackDocument]:
        """Return the documents whose embeddings are nearest; those without one are left out."""
        field = self.store.layout().vector_field
        query = Query("q", "", vectors={field: np.asarray(query_embedding, np.float32)})
        condition = condition_of(filters)
        if self.store.layout().client_field is not None:
            condition = all_of(condition, EMBEDDED)
        return self._retrieve(query, condition, top_k, mode=field, return_embedding=return_embedding)

    def bm25_retrieval(self, query: str, filters: Filters = None, top_k: int = 10) -> list[HaystackDocument]:
        """Return the documents that the words of `query` fit best."""
        return self._retrieve(Query("q", query), condition_of(filters), top_k, mode=self.store.layout().word_field)

    def hybrid_retrieval(
        self,
        query: str,
        query_embedding: list[float] | None = None,
        filters: Filters = None,
        top_k: int = 10,
        *,
        dense_weight: float | None = None,
        return_embedding: bool = False,
    ) -> list[HaystackDocument]:
        """Return the best documents by words and vectors together.

        query_embedding: None where the collection encodes by itself; RequestError without it where documents bring
        theirs. dense_weight: share of the vectors, in [0, 1]; None = as the collection fuses. A document without an
        embedding counts as one of cosine 0.
        """
        layout = self.store.layout()
        vectors: dict[str, Vector] = {}
        if query_embedding is not None:
            vectors = {layout.vector_field: np.asarray(query_embedding, np.float32)}
        elif layout.client_field is not None:
            raise RequestError("documents bring their embeddings, so must the query: give query_embedding")
        weights = None
        if dense_weight is not None:
            weights = {layout.vector_field: dense_weight, layout.word_field: 1 - dense_weight}
        return self._retrieve(
            Query("q", query, vectors=vectors),
            condition_of(filters),
            top_k,
            mode=HYBRID if weights is None else None,
            weights=weights,
            return_embedding=return_embedding,
        )

    def _retrieve(
        self,
        query: Query,
        condition: Condition | None,
        top_k: int,
        *,
        mode: str | None,
        weights: Mapping[str, float] | None = None,
        return_embedding: bool = False,
    ) -> list[HaystackDocument]:
        if top_k < 0:
            raise ValueError(f"top_k is {top_k}, expected at least 0")
        if top_k == 0:
            return []
        hits = self.store.search(SearchRequest(query, top_k, filter=condition), mode=mode, weights=weights)
        embeddings: dict[str, Vector] = {}
        field = self.store.layout().client_field
        if return_embedding and field is not None:
            found: list[Document | None] = self.store.get([hit.doc_id for hit in hits])
            embeddings = {each.id: each.vectors[field] for each in found if each is not None}
        return [
            restored(
                hit.doc_id,
                hit.passage.text,
                hit.passage.title,
                hit.metadata,
                embedding=embeddings.get(hit.doc_id),
                score=hit.score,
            )
            for hit in hits
        ]

    # -- the same without blocking ------------------------------------------------------------------------------

    async def count_documents_async(self) -> int:
        """See `count_documents`."""
        return await asyncio.to_thread(self.count_documents)

    async def filter_documents_async(self, filters: Filters = None) -> list[HaystackDocument]:
        """See `filter_documents`."""
        return await asyncio.to_thread(self.filter_documents, filters)

    async def write_documents_async(
        self, documents: list[HaystackDocument], policy: DuplicatePolicy = DuplicatePolicy.NONE
    ) -> int:
        """See `write_documents`."""
        return await asyncio.to_thread(self.write_documents, documents, policy)

    async def delete_documents_async(self, document_ids: list[str]) -> None:
        """See `delete_documents`."""
        await asyncio.to_thread(self.delete_documents, document_ids)

    async def delete_all_documents_async(self) -> None:
        """See `delete_all_documents`."""
        await asyncio.to_thread(self.delete_all_documents)

    async def delete_by_filter_async(self, filters: dict[str, Any]) -> int:
        """See `delete_by_filter`."""
        return await asyncio.to_thread(self.delete_by_filter, filters)

    async def update_by_filter_async(self, filters: dict[str, Any], meta: Metadata) -> int:
        """See `update_by_filter`."""
        return await asyncio.to_thread(self.update_by_filter, filters, meta)

    async def count_documents_by_filter_async(self, filters: Filters) -> int:
        """See `count_documents_by_filter`."""
        return await asyncio.to_thread(self.count_documents_by_filter, filters)

    async def count_unique_metadata_by_filter_async(
        self, filters: Filters, metadata_fields: list[str]
    ) -> dict[str, int]:
        """See `count_unique_metadata_by_filter`."""
        return await asyncio.to_thread(self.count_unique_metadata_by_filter, filters, metadata_fields)

    async def get_metadata_fields_info_async(self) -> dict[str, dict[str, str]]:
        """See `get_metadata_fields_info`."""
        return await asyncio.to_thread(self.get_metadata_fields_info)

    async def get_metadata_field_min_max_async(self, metadata_field: str) -> dict[str, Any]:
        """See `get_metadata_field_min_max`."""
        return await asyncio.to_thread(self.get_metadata_field_min_max, metadata_field)

    async def get_metadata_field_unique_values_async(
        self,
        metadata_field: str,
        search_term: str | None = None,
        from_: int = 0,
        size: int = 10,
        filters: Filters = None,
    ) -> tuple[list[Any], int]:
        """See `get_metadata_field_unique_values`."""
        return await asyncio.to_thread(
            self.get_metadata_field_unique_values, metadata_field, search_term, from_, size, filters
        )


def _needed(filters: Filters) -> Condition:
    condition = condition_of(filters)
    if condition is None:
        raise FilterError("the filters are empty: give some; delete_all_documents deletes everything")
    return condition
