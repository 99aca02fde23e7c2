"""The typed Python client of the service, blocking and for asyncio. Importing it loads no model, index or database.

from api.client import Document, Grapnel

with Grapnel("http://127.0.0.1:8080", api_key="gk_...") as client:
    client.create_collection("notes")
    notes = client.collection("notes")
    notes.upsert([Document(id="1", text="Grapnels are small anchors.")])
    for hit in notes.search("anchor", k=5).hits:
        print(hit.id, hit.score, hit.passage.text)
"""

from api.client.asynchronous import AsyncCollectionClient, AsyncGrapnel
from api.client.errors import AnswerTimeoutError, ApiError, Flaw, JobError, UnreachableError
from api.client.results import (
    CollectionSummary,
    Context,
    ContextBlock,
    Continuation,
    Embeddings,
    Health,
    Job,
    LineError,
    Model,
    NgramResult,
    NgramSuffix,
    Page,
    PhraseMatch,
    PhraseResult,
    PhraseSnippet,
    Reranked,
    Reranking,
    SearchHit,
    SearchResult,
    Snapshot,
    UpsertReport,
    Written,
)
from api.client.sync import CollectionClient, Grapnel
from retrieval.types import Document, StoredDocument

__all__ = [
    "AnswerTimeoutError",
    "ApiError",
    "AsyncCollectionClient",
    "AsyncGrapnel",
    "CollectionClient",
    "CollectionSummary",
    "Context",
    "ContextBlock",
    "Continuation",
    "Document",
    "Embeddings",
    "Flaw",
    "Grapnel",
    "Health",
    "Job",
    "JobError",
    "LineError",
    "Model",
    "NgramResult",
    "NgramSuffix",
    "Page",
    "PhraseMatch",
    "PhraseResult",
    "PhraseSnippet",
    "Reranked",
    "Reranking",
    "SearchHit",
    "SearchResult",
    "Snapshot",
    "StoredDocument",
    "UnreachableError",
    "UpsertReport",
    "Written",
]
