"""Writes within one transaction of the store."""

import sqlite3
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

from index.types import Vectors
from retrieval.store.records import Prepared, can_be_id, content_sum, digest, metadata_json, vector_bytes
from retrieval.store.snapshot import StoreSnapshot
from retrieval.types import Metadata


class StoreWriter(StoreSnapshot):
    """Writes within one transaction of the store."""

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        super().__init__(connection, path)
        self._next_row = int(self.meta("next_row") or 0)
        self._next_op = int(self.meta("next_op") or 1)

    @property
    def next_op(self) -> int:
        """The number of the operation that the next logged write makes: the version of its document."""
        return self._next_op

    def save_counters(self) -> None:
        """Store the row and operation counters; called once, before the commit."""
        self._set_meta("next_row", self._next_row)
        self._set_meta("next_op", self._next_op)

    def _set_meta(self, key: str, value: int) -> None:
        text = str(value)
        self.connection.execute("UPDATE meta SET value = ?, checksum = ? WHERE key = ?", (text, digest(key, text), key))

    def upsert(self, prepared: Prepared, *, log: bool) -> Literal["added", "updated"]:
        """Write one document, replacing all passages of an older one with its id.

        log: record an operation for followers; a bulk build, which nobody follows yet, does without.
        """
        document = prepared.document
        old = self._rows("SELECT doc, first_row, passages FROM documents WHERE doc_id = ?", (document.id,))
        first, count = self._next_row, len(prepared.spans)
        self._next_row += count
        op = self._next_op if log else 0
        values = (
            document.title,
            document.text,
            prepared.metadata_json,
            op,
            first,
            count,
            content_sum(document),
            digest(document.id, prepared.metadata_json),
            digest(document.id, op, first, count),
        )
        execute = self.connection.execute
        if old:
            doc, old_first, old_count = old[0]
            self._delete_rows(old_first, old_count)
            execute("DELETE FROM client_vectors WHERE doc = ?", (doc,))
            execute(
                "UPDATE documents SET title = ?, text = ?, metadata = ?, version = ?, first_row = ?, passages = ?,"
                " content_sum = ?, metadata_sum = ?, row_sum = ? WHERE doc = ?",
                (*values, doc),
            )
        else:
            old_first, old_count = first, 0
            doc = execute(
                "INSERT INTO documents (title, text, metadata, version, first_row, passages, content_sum, metadata_sum,"
                " row_sum, doc_id) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (*values, document.id),
            ).lastrowid
        self.connection.executemany(
            "INSERT INTO passages VALUES (?, ?, ?, ?)",
            [(first + place, *span) for place, span in enumerate(prepared.spans)],
        )
        self.connection.executemany(
            "INSERT INTO client_vectors VALUES (?, ?, ?)",
            [(doc, name, vector_bytes(vector)) for name, vector in sorted(document.vectors.items())],
        )
        if log:
            self._log("upsert", document.id, (old_first, old_count), (first, count))
        return "updated" if old else "added"

    def _delete_rows(self, first: int, count: int) -> None:
        self.connection.execute("DELETE FROM passages WHERE row >= ? AND row < ?", (first, first + count))

    def _log(self, kind: str, doc_id: str, old: tuple[int, int], new: tuple[int, int]) -> None:
        entry = (self._next_op, kind, doc_id, *old, *new)
        self.connection.execute("INSERT INTO operations VALUES (?, ?, ?, ?, ?, ?, ?, ?)", (*entry, digest(*entry)))
        self._next_op += 1

    def delete(self, doc_id: str) -> bool:
        """Remove a document; return whether it existed."""
        if not can_be_id(doc_id):
            return False
        old = self._rows("SELECT doc, first_row, passages FROM documents WHERE doc_id = ?", (doc_id,))
        if not old:
            return False
        doc, first, count = old[0]
        self._delete_rows(first, count)
        self.connection.execute("DELETE FROM client_vectors WHERE doc = ?", (doc,))
        self.connection.execute("DELETE FROM documents WHERE doc = ?", (doc,))
        self._log("delete", doc_id, (first, count), (first, 0))
        return True

    def set_metadata(self, doc_id: str, metadata: Metadata, *, log: bool = True) -> None:
        """Replace an existing document's metadata; its passages and vectors stay. log: as for `upsert`."""
        text = metadata_json(metadata)
        op = self._next_op if log else 0
        ((first, count),) = self._rows("SELECT first_row, passages FROM documents WHERE doc_id = ?", (doc_id,))
        self.connection.execute(
            "UPDATE documents SET metadata = ?, version = ?, metadata_sum = ?, row_sum = ? WHERE doc_id = ?",
            (text, op, digest(doc_id, text), digest(doc_id, op, first, count), doc_id),
        )
        if log:
            self._log("patch", doc_id, (first, count), (first, count))

    def add_vectors(self, encoder: str, keys: Sequence[bytes], vectors: Vectors) -> None:
        """Keep vectors of fresh texts until compaction; a key that is there already stays."""
        rows = []
        for key, vector in zip(keys, vectors, strict=True):
            raw = vector_bytes(vector)
            rows.append((encoder, key, raw, digest(key, raw)))
        self.connection.executemany("INSERT OR IGNORE INTO fresh_vectors VALUES (?, ?, ?, ?)", rows)

    def drop_vectors(self, encoder: str, keys: Iterable[bytes]) -> None:
        """Forget fresh vectors that the vector store now holds."""
        statement = "DELETE FROM fresh_vectors WHERE encoder = ? AND key = ?"
        self.connection.executemany(statement, ((encoder, key) for key in keys))

    def prune_log(self, before: int) -> None:
        """Forget log entries with op < before, which no kept generation needs."""
        self.connection.execute("DELETE FROM operations WHERE op < ?", (before,))
        self._set_meta("log_start", before)
