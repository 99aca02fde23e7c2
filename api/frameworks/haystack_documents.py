"""Haystack's documents as grapnel stores them, and what there is to say about their metadata.

`meta` is the metadata. What else a Haystack document may have is under the key `_haystack`: `embedding` (whether there
is one; a field of client vectors needs one of every document, so a zero vector stands for none), and, where there is
something to say, `content` (false: None), `score`, `blob` and `sparse_embedding`.
"""

import json
from collections.abc import Iterable
from typing import Any, Final

import numpy as np
from haystack.dataclasses import ByteStream, SparseEmbedding
from haystack.dataclasses import Document as HaystackDocument

from api.frameworks.conditions import Condition
from api.frameworks.store import Layout
from index.errors import ConfigError, CorpusError
from retrieval.types import Document, Json, Metadata, Vector

OWN: Final = "_haystack"

EMBEDDED: Final[Condition] = {"type": "ne", "key": f"{OWN}.embedding", "value": False}
"""A filter for documents that have an embedding, those that other programs stored included."""


def stored(document: HaystackDocument, layout: Layout) -> Document:
    """Return what is stored of a document.

    Raises CorpusError where its metadata has the key `_haystack`, ConfigError where it has an embedding and the
    collection encodes by itself.
    """
    if OWN in document.meta:
        raise CorpusError(f"document {document.id!r} has metadata under {OWN!r}, which this adapter needs: rename it")
    own: dict[str, Json] = {}
    vectors: dict[str, Vector] = {}
    if layout.client_field is not None:
        own["embedding"] = document.embedding is not None
        zeros = np.zeros(layout.external[layout.client_field], np.float32)
        vectors[layout.client_field] = (
            zeros if document.embedding is None else np.asarray(document.embedding, np.float32)
        )
    elif document.embedding is not None:
        raise ConfigError(
            f"document {document.id!r} has an embedding, but this collection encodes by itself: leave the embedder "
            "out, or make a collection that takes embeddings (`embedding_dim`)"
        )
    if document.content is None:
        own["content"] = False
    if document.score is not None:
        own["score"] = document.score
    if document.blob is not None:
        own["blob"] = document.blob.to_dict()
    if document.sparse_embedding is not None:
        own["sparse_embedding"] = document.sparse_embedding.to_dict()
    return Document(document.id, document.content or "", metadata={**document.meta, **_under(own)}, vectors=vectors)


def _under(own: dict[str, Json]) -> dict[str, Json]:
    return {OWN: own} if own else {}


def restored(doc_id: str, text: str, title: str, metadata: Metadata, **found: Any) -> HaystackDocument:
    """Return the document that was stored; a title, which Haystack has no place for, is in its `meta`.

    found: `embedding`, where it is wanted, and `score`, in place of one that was stored.
    """
    own = metadata.get(OWN, {})
    embedding: Vector | None = found.pop("embedding", None)
    return HaystackDocument(
        id=doc_id,
        content=text if own.get("content", True) else None,
        blob=ByteStream.from_dict(own["blob"]) if "blob" in own else None,
        meta={**({"title": title} if title else {}), **meta_of(metadata)},
        embedding=embedding.tolist() if embedding is not None and own.get("embedding", True) else None,
        sparse_embedding=SparseEmbedding.from_dict(own["sparse_embedding"]) if "sparse_embedding" in own else None,
        **{"score": own.get("score"), **found},
    )


def meta_of(metadata: Metadata) -> dict[str, Json]:
    """Return metadata without the adapter's own."""
    return {key: value for key, value in metadata.items() if key != OWN}


# -- what metadata there is -------------------------------------------------------------------------------------------


def meta_key(field: str) -> str:
    """Return the metadata key that a field with or without `meta.` names."""
    return field.removeprefix("meta.")


def distinct(values: Iterable[Json]) -> list[Json]:
    """Return values without repetition and without None, by their text; 1, 1.0, "1" and true are four values."""
    found = {(type(value).__name__, json.dumps(value, sort_keys=True)): value for value in values if value is not None}
    return [found[key] for key in sorted(found, key=lambda key: (str(found[key]), key))]


def extremes(values: Iterable[Json]) -> dict[str, Json]:
    """Return the smallest and the largest number or string; None for both where there is none, or there are both."""
    comparable = [value for value in values if isinstance(value, int | float | str)]
    if not comparable or len({isinstance(value, str) for value in comparable}) > 1:
        return {"min": None, "max": None}
    return {"min": min(comparable), "max": max(comparable)}


def kinds(metas: Iterable[Metadata]) -> dict[str, dict[str, str]]:
    """Return Haystack's name for the type of each field, as its last value that is not None has it."""
    names = {bool: "boolean", int: "int", float: "float"}
    return {
        key: {"type": names.get(type(value), "keyword")}
        for meta in metas
        for key, value in meta.items()
        if value is not None
    }
