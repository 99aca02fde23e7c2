"""LangChain: a vector store, a retriever and embeddings.

from api.frameworks.langchain import GrapnelRetriever, GrapnelVectorStore
from api.frameworks.store import open_folder

notes = open_folder("notes")                                 # encodes by itself
GrapnelVectorStore(notes).add_texts(["Grapnels are small anchors."])
GrapnelRetriever(store=notes, k=3).invoke("anchor")

mine = open_folder("mine", dim=1536)                         # takes the vectors of an Embeddings object
GrapnelVectorStore(mine, OpenAIEmbeddings())
"""

import uuid
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, Self

import numpy as np
from langchain_core.callbacks import AsyncCallbackManagerForRetrieverRun, CallbackManagerForRetrieverRun
from langchain_core.documents import Document as LangChainDocument
from langchain_core.embeddings import Embeddings
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import run_in_executor
from langchain_core.vectorstores import VectorStore
from pydantic import PrivateAttr

from api.frameworks.conditions import EVERYTHING, Condition
from api.frameworks.models import Embedder
from api.frameworks.store import Store, refuse
from index.errors import ConfigError, RequestError
from retrieval.types import Document, Hit, Query, SearchRequest, Vector

_COSINE = "cosine"


class GrapnelEmbeddings(Embeddings):
    """An encoder of grapnel, of this process or of a server, for other stores and for whatever takes Embeddings."""

    def __init__(self, embedder: Embedder) -> None:
        self.embedder = embedder

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """Return the vectors of texts that are to be found."""
        vectors: list[list[float]] = self.embedder.passages(texts).tolist()
        return vectors

    def embed_query(self, text: str) -> list[float]:
        """Return the vector of a text to search for."""
        (vector,) = self.embedder.queries([text]).tolist()
        found: list[float] = vector
        return found


class GrapnelVectorStore(VectorStore):
    """A collection as a vector store.

    embedding: makes the vectors, where the collection's come from clients; None where it encodes by itself. Raises
    ConfigError where these do not agree. mode: what texts are searched by; None = the collection's default, usually
    words and vectors together.

    Searches take beyond LangChain's own arguments: filter (the grammar of retrieval/filters.py), mode, min_score.
    A document's title, which LangChain has no place for, is in its metadata.
    """

    def __init__(self, store: Store, embedding: Embeddings | None = None, *, mode: str | None = None) -> None:
        self.store = store
        self.mode = mode
        self._embedding = embedding
        self._field = store.layout().field_for(embedding)

    @property
    def embeddings(self) -> Embeddings | None:
        """What makes the vectors; None where grapnel does."""
        return self._embedding

    @classmethod
    def from_texts(
        cls,
        texts: list[str],
        embedding: Embeddings | None,
        metadatas: list[dict[str, Any]] | None = None,
        *,
        ids: list[str] | None = None,
        **kwargs: Any,
    ) -> Self:
        """Add texts to a collection and return the vector store.

        embedding: None where the collection encodes by itself. kwargs: `store`, and `mode` of this class.
        """
        made = cls(embedding=embedding, **kwargs)
        made.add_texts(texts, metadatas, ids=ids)
        return made

    # -- documents ----------------------------------------------------------------------------------------------

    def add_texts(
        self,
        texts: Iterable[str],
        metadatas: list[dict[str, Any]] | None = None,
        *,
        ids: list[str] | None = None,
        **kwargs: Any,
    ) -> list[str]:
        """Add or replace texts; return their ids. Without ids (none, or an empty list) each gets a new UUID.

        Raises RequestError, which is a ValueError, unless there are as many ids as texts; else as `add_documents`.
        """
        given = list(texts)
        if ids and len(ids) != len(given):  # LangChain's own leaves out the texts that have no id
            raise RequestError(f"{len(ids)} ids for {len(given)} texts: give one for each, or none")
        return super().add_texts(given, metadatas, ids=ids or None, **kwargs)

    def add_documents(
        self, documents: list[LangChainDocument], *, ids: Sequence[str | None] | None = None, **kwargs: Any
    ) -> list[str]:
        """Add or replace documents; return their ids. ids: before the documents' own; one of both missing = a new UUID.

        Raises CorpusError on metadata that is not JSON, or a text that cannot be stored.
        """
        refuse(kwargs)
        given = [document.id for document in documents] if ids is None else list(ids)
        if len(given) != len(documents):
            raise RequestError(f"{len(given)} ids for {len(documents)} documents: give one for each")
        own_ids = [doc_id or str(uuid.uuid4()) for doc_id in given]
        vectors: list[dict[str, Vector]] = [{} for _ in documents]
        if self._field is not None and self._embedding is not None and documents:
            made = self._embedding.embed_documents([document.page_content for document in documents])
            vectors = [{self._field: np.asarray(vector, np.float32)} for vector in made]
        self.store.add(
            Document(doc_id, document.page_content, metadata=document.metadata, vectors=own)
            for doc_id, document, own in zip(own_ids, documents, vectors, strict=True)
        )
        return own_ids

    def delete(
        self,
        ids: list[str] | None = None,
        *,
        filter: Condition | None = None,  # noqa: A002  LangChain's word, and ours
        **kwargs: Any,
    ) -> bool:
        """Delete documents by id and those that match a filter; everything where neither is given. Returns True."""
        refuse(kwargs)
        if ids is None and filter is None:
            filter = EVERYTHING  # noqa: A001  as above
        self.store.delete(ids or [], filter=filter)
        return True

    def get_by_ids(self, ids: Sequence[str], /) -> list[LangChainDocument]:
        """Return whole documents, in the order of the ids, without those that are not there."""
        return [
            _document(found.id, found.text, found.title, found.metadata)
            for found in self.store.get(ids)
            if found is not None
        ]

    # -- search -------------------------------------------------------------------------------------------------

    def similarity_search(self, query: str, k: int = 4, **kwargs: Any) -> list[LangChainDocument]:
        """Return the best documents for a text. kwargs: filter, mode, min_score."""
        return [document for document, _ in self.similarity_search_with_score(query, k, **kwargs)]

    def similarity_search_with_score(
        self, query: str, k: int = 4, **kwargs: Any
    ) -> list[tuple[LangChainDocument, float]]:
        """Return the best documents for a text with their scores: higher is better, comparable within one mode only."""
        return [_scored(hit) for hit in self._search_text(query, k, kwargs)]

    def similarity_search_by_vector(self, embedding: list[float], k: int = 4, **kwargs: Any) -> list[LangChainDocument]:
        """Return the documents nearest to a vector."""
        return [_scored(hit)[0] for hit in self._search_vector(embedding, k, kwargs)]

    def max_marginal_relevance_search(
        self, query: str, k: int = 4, fetch_k: int = 20, lambda_mult: float = 0.5, **kwargs: Any
    ) -> list[LangChainDocument]:
        """Return documents for a text that differ from each other.

        fetch_k: candidates of each field that are chosen from. lambda_mult: 1 = relevance alone, 0 = diversity alone.
        Relevance is the score scaled to [0, 1] over the candidates (retrieval/diversity.py), not the raw cosine.
        """
        return [_scored(hit)[0] for hit in self._search_text(query, k, kwargs | _diverse(k, fetch_k, lambda_mult))]

    def max_marginal_relevance_search_by_vector(
        self, embedding: list[float], k: int = 4, fetch_k: int = 20, lambda_mult: float = 0.5, **kwargs: Any
    ) -> list[LangChainDocument]:
        """Return documents near a vector that differ from each other; see `max_marginal_relevance_search`."""
        hits = self._search_vector(embedding, k, kwargs | _diverse(k, fetch_k, lambda_mult))
        return [_scored(hit)[0] for hit in hits]

    def _similarity_search_with_relevance_scores(
        self, query: str, k: int = 4, **kwargs: Any
    ) -> list[tuple[LangChainDocument, float]]:
        """Return documents with relevance in [0, 1]: (1 + cosine) / 2, so this searches by vectors, whatever the mode.

        Raises ConfigError where vectors are not compared by cosine: other scores have no such scale.
        """
        layout = self.store.layout()
        field = layout.vector_field
        if layout.dense[field] != _COSINE:
            raise ConfigError(
                f"field {field!r} has metric {layout.dense[field]!r}, whose scores have no scale: use "
                "similarity_search_with_score, and min_score in place of score_threshold"
            )
        found = self._search_text(query, k, {**kwargs, "mode": field})
        # Rounding may put a cosine a hair outside [-1, 1], which LangChain warns of.
        return [(document, min(1.0, max(0.0, (1 + score) / 2))) for document, score in map(_scored, found)]

    async def _asimilarity_search_with_relevance_scores(
        self, query: str, k: int = 4, **kwargs: Any
    ) -> list[tuple[LangChainDocument, float]]:
        return await run_in_executor(None, self._similarity_search_with_relevance_scores, query, k, **kwargs)

    def _search_text(self, text: str, k: int, options: Mapping[str, Any]) -> list[Hit]:
        mode = options.get("mode") or self.mode
        vectors: dict[str, Vector] = {}
        if self._field is not None and self._embedding is not None and mode not in self.store.layout().lexical:
            vectors = {self._field: np.asarray(self._embedding.embed_query(text), np.float32)}
        return self._search(Query("q", text, vectors=vectors), k, **{**options, "mode": mode})

    def _search_vector(self, vector: Sequence[float], k: int, options: Mapping[str, Any]) -> list[Hit]:
        field = self.store.layout().vector_field
        query = Query("q", "", vectors={field: np.asarray(vector, np.float32)})
        return self._search(query, k, **{**options, "mode": field})

    def _search(self, query: Query, k: int, *, mode: str | None, **options: Any) -> list[Hit]:
        return self.store.search(SearchRequest(query, k, **options), mode=mode)  # TypeError on an unknown option


def _diverse(k: int, fetch_k: int, lambda_mult: float) -> dict[str, Any]:
    return {"diversity": 1 - lambda_mult, "depth": max(k, fetch_k)}


class GrapnelRetriever(BaseRetriever):
    """Searches a collection as grapnel does. The number of results can be given to `invoke` too, as `k`.

    embedding, mode: as in GrapnelVectorStore; where collection and embedding do not agree, pydantic's ValidationError
    (a ValueError) says why. filter: the grammar of retrieval/filters.py. diversity: in [0, 1].
    group: "passage" returns every passage on its own, where the collection cuts documents.
    """

    store: Store
    embedding: Embeddings | None = None
    k: int = 4
    mode: str | None = None
    filter: Condition | None = None
    min_score: float | None = None
    diversity: float = 0.0
    group: Literal["document", "passage"] = "document"
    _vectors: GrapnelVectorStore = PrivateAttr()

    def model_post_init(self, context: Any, /) -> None:
        """Check that collection and embedding agree."""
        super().model_post_init(context)
        self._vectors = GrapnelVectorStore(self.store, self.embedding, mode=self.mode)

    def _get_relevant_documents(
        self,
        query: str,
        *,
        run_manager: CallbackManagerForRetrieverRun,  # noqa: ARG002  LangChain's signature
        k: int | None = None,
    ) -> list[LangChainDocument]:
        found = self._vectors.similarity_search_with_score(
            query,
            self.k if k is None else k,
            filter=self.filter,
            min_score=self.min_score,
            diversity=self.diversity,
            group=self.group,
        )
        return [document for document, _ in found]

    async def _aget_relevant_documents(
        self, query: str, *, run_manager: AsyncCallbackManagerForRetrieverRun, k: int | None = None
    ) -> list[LangChainDocument]:
        blocking = run_manager.get_sync()
        return await run_in_executor(None, self._get_relevant_documents, query, run_manager=blocking, k=k)


def _scored(hit: Hit) -> tuple[LangChainDocument, float]:
    assert hit.score is not None, "only rerankers give hits without a score"
    passage = hit.passage
    return _document(hit.doc_id, passage.text, passage.title, hit.metadata), hit.score


def _document(doc_id: str, text: str, title: str, metadata: Any) -> LangChainDocument:
    titled = {"title": title} if title else {}
    return LangChainDocument(page_content=text, metadata={**titled, **metadata}, id=doc_id)
