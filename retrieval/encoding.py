"""Encoding what has no vector yet, resumably: every finished piece is a durable shard of the vector store."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import compress

import numpy as np

from index.types import Mask, Vectors
from retrieval.field_vectors import FieldVectors, Keys, keys_array
from retrieval.progress import Progress
from retrieval.store import StoreSnapshot, passage_text
from retrieval.types import Passage
from retrieval.vector_shard import sort_keys
from retrieval.vector_store import VectorStore

PIECE = 1_024
"""Texts per shard of the vector store: what a kill can cost at most."""

_WINDOW = 16
"""Pieces gathered before sorting by length: similar lengths share batches, so little padding is computed."""

_WINDOW_CHARACTERS = 64 << 20

_KEYS = 1 << 18
"""Sorted keys looked up at a time: 12 MiB, and each shard is walked through once a block."""


@dataclass(frozen=True, slots=True)
class EncodeReport:
    """What encoding a field cost. truncated: texts longer than the encoder's window, encoded by their beginning.

    runs_on: what ran the model, "" where nothing was encoded or there is no model.
    """

    encoded: int = 0
    reused: int = 0
    truncated: int = 0
    runs_on: str = ""


def encode_missing(
    snapshot: StoreSnapshot, keys: Keys, name: str, vectors: FieldVectors, progress: Progress
) -> EncodeReport:
    """See that the vector store of field `name` holds a vector for every key.

    keys: uint64 (N, 2) of all passages of the snapshot in row order, duplicates allowed. Fresh vectors move over from
    SQLite; the rest is encoded in windows of 16,384 texts, sorted by length.
    Memory: 35 bytes a passage while it is found out what is missing, one byte afterwards, and the window.
    """
    store = vectors.store(name, vectors.dim(name))
    _move_fresh(snapshot, name, vectors, store)
    missing, unique = _missing(keys, store)
    total = int(missing.sum())
    if not total:
        return EncodeReport(reused=unique)
    encoder = vectors.encoder(name)
    encoded = truncated = 0
    progress(f"encode {name}", 0, total)
    for window in _windows(snapshot, missing):
        window.sort(key=lambda item: len(item[1].text))
        for start in range(0, len(window), PIECE):
            piece = window[start : start + PIECE]
            batch = encoder.encode_texts([passage_text(passage) for _, passage in piece])
            store.append(keys_array([key for key, _ in piece]), batch.vectors)
            truncated += batch.truncated
            encoded += len(piece)
            progress(f"encode {name}", encoded, total)
    return EncodeReport(encoded, unique - total, truncated, vectors.runs_on(name))


def _move_fresh(snapshot: StoreSnapshot, name: str, vectors: FieldVectors, store: VectorStore) -> None:
    fresh = snapshot.fresh_keys(vectors.fingerprint(name))
    for start in range(0, len(fresh), PIECE):
        block = fresh[start : start + PIECE]
        new = [key for key, known in zip(block, store.contains(keys_array(block)), strict=True) if not known]
        if new:
            found = snapshot.fresh_vectors(vectors.fingerprint(name), new, store.dim)
            store.append(keys_array(new), np.stack([found[key] for key in new]))


def _missing(keys: Keys, store: VectorStore) -> tuple[Mask, int]:
    """Return which passages are the first with a key that has no vector, bool (N,), and how many keys there are."""
    missing = np.zeros(len(keys), dtype=np.bool_)
    unique = sort_keys(keys)
    for start in range(0, len(unique), _KEYS):
        block = unique[start : start + _KEYS]
        missing[block] = ~store.contains(keys[block])
    return missing, len(unique)


def _windows(snapshot: StoreSnapshot, missing: Mask) -> Iterator[list[tuple[bytes, Passage]]]:
    """Yield (key, passage) of the missing passages. missing: bool (N,), in row order as the snapshot streams them."""
    window: list[tuple[bytes, Passage]] = []
    characters = 0
    passages = ((key, passage) for stored in snapshot.documents() for _, passage, key in stored.passages())
    for key, passage in compress(passages, missing):
        window.append((key, passage))
        characters += len(passage.text)
        if len(window) == _WINDOW * PIECE or characters > _WINDOW_CHARACTERS:
            yield window
            window, characters = [], 0
    if window:
        yield window


def stored_blocks(keys: Keys, store: VectorStore, block: int = 8_192) -> Iterator[Vectors]:
    """Yield the raw vectors of all keys in order, a block at a time. Every key must be stored."""
    for start in range(0, len(keys), block):
        mask, vectors = store.get(keys[start : start + block])
        assert mask.all(), "encode_missing ran on the same keys"
        yield vectors


def client_blocks(snapshot: StoreSnapshot, name: str, block: int = 1_024) -> Iterator[Vectors]:
    """Yield the client vectors of all passages in row order, a block of documents at a time."""
    pending: list[Vectors] = []
    for stored in snapshot.documents():
        pending.extend([stored.document.vectors[name]] * len(stored.spans))
        if len(pending) >= block:
            yield np.stack(pending)
            pending = []
    if pending:
        yield np.stack(pending)
