"""Reads of one consistent state of the store."""

import json
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from index.errors import IndexFormatError, RequestError
from retrieval.store.errors import sqlite_errors
from retrieval.store.records import (
    KEY_BYTES,
    DocumentRows,
    Operation,
    Span,
    Sums,
    can_be_id,
    content_sum,
    digest,
    passage_key,
)
from retrieval.types import Document, Metadata, Passage

_DOCUMENT = "doc, doc_id, title, text, metadata, version, first_row, passages, content_sum, metadata_sum, row_sum"


def _are(values: Sequence[Any], *types: type) -> bool:
    """Whether values have the types they were written with: a flipped bit in SQLite's record header changes types."""
    return all(type(value) is wanted for value, wanted in zip(values, types, strict=True))


class StoreSnapshot:
    """Reads within one SQLite transaction. Use from one thread at a time."""

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        self.connection = connection
        self._path = path

    def _rows(self, statement: str, values: Sequence[Any] = ()) -> list[Any]:
        with sqlite_errors(self._path):
            return self.connection.execute(statement, values).fetchall()

    def meta(self, key: str) -> str | None:
        """Return a bookkeeping value: format, next_row, next_op, log_start."""
        rows = self._rows("SELECT value, checksum FROM meta WHERE key = ?", (key,))
        if not rows:
            return None
        value, checksum = rows[0]
        if digest(key, value) != checksum:
            raise self._damaged(f"the entry {key!r} of table meta")
        return str(value)

    def last_op(self) -> int:
        """Return the number of the last operation; 0 if there was none."""
        return int(self.meta("next_op") or 1) - 1

    def log_start(self) -> int:
        """Return the first operation that the log still holds."""
        return int(self.meta("log_start") or 1)

    def document_count(self) -> int:
        """Return how many documents are stored."""
        return int(self._rows("SELECT count(*) FROM documents")[0][0])

    def operations(self, after: int) -> list[Operation]:
        """Return the log entries with op > after, in order."""
        rows = self._rows(
            "SELECT op, kind, doc_id, old_first, old_count, new_first, new_count, checksum"
            " FROM operations WHERE op > ? ORDER BY op",
            (after,),
        )
        for number, row in enumerate(rows, start=after + 1):
            if row[0] != number or digest(*row[:-1]) != row[-1]:
                raise self._damaged(f"operation {number} of the log")
        if len(rows) != self.last_op() - after:
            raise IndexFormatError(
                f"{self._path} ends at operation {self.last_op()}, its index covers {after}: the file is older than "
                "its index, or damaged; `grapnel compact` rebuilds the index"
            )
        return [Operation(*row[:-1]) for row in rows]

    def all_rows(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.uint64]]:
        """Return the rows of all passages, ascending, int64 (N,), and their text keys, uint64 (N, 2)."""
        with sqlite_errors(self._path):
            count = self.connection.execute("SELECT count(*) FROM passages").fetchone()[0]
            rows = np.empty(count, np.int64)
            keys = bytearray()
            for place, (row, key) in enumerate(self.connection.execute("SELECT row, key FROM passages ORDER BY row")):
                if not isinstance(key, bytes) or len(key) != KEY_BYTES:
                    raise self._damaged(f"passage {row}")
                rows[place] = row
                keys += key
        return rows, np.frombuffer(bytes(keys), dtype="<u8").reshape(-1, 2)

    def documents(self) -> Iterator[DocumentRows]:
        """Stream all documents in row order, checked; memory is one document at a time."""
        with sqlite_errors(self._path):
            passages = self.connection.execute("SELECT row, start, stop, key FROM passages ORDER BY row")
            documents = self.connection.execute(
                f"SELECT {_DOCUMENT} FROM documents ORDER BY first_row"  # noqa: S608  a constant
            )
            for row in documents:
                yield self._checked(row, passages.fetchmany(self._checked_range(row)[1]))

    def get(self, doc_id: str) -> DocumentRows | None:
        """Return one document, checked, or None."""
        if not can_be_id(doc_id):
            return None
        rows = self._rows(
            f"SELECT {_DOCUMENT} FROM documents WHERE doc_id = ?",  # noqa: S608  a constant
            (doc_id,),
        )
        if not rows:
            return None
        first, count = self._checked_range(rows[0])
        spans = self._rows(
            "SELECT row, start, stop, key FROM passages WHERE row >= ? AND row < ? ORDER BY row", (first, first + count)
        )
        return self._checked(rows[0], spans)

    def ids(self, after: str, limit: int) -> list[str]:
        """Return up to `limit` document ids greater than `after`, ascending by code point."""
        if not can_be_id(after):
            raise RequestError(f"{after!r} cannot be a document's id: give the last id of the page before")
        return [
            doc_id
            for (doc_id,) in self._rows(
                "SELECT doc_id FROM documents WHERE doc_id > ? ORDER BY doc_id LIMIT ?", (after, limit)
            )
        ]

    def _checked_range(self, row: Any) -> tuple[int, int]:
        """Return (first row, number of rows) of a document, checked before anything is fetched by them."""
        _, doc_id, _, _, _, version, first_row, count, _, _, row_sum = row
        if digest(doc_id, version, first_row, count) != row_sum:
            raise self._damaged(f"document {doc_id!r}")
        return first_row, count

    def _checked(self, row: Any, passages: list[Any]) -> DocumentRows:
        doc, doc_id, title, text, metadata, version, first_row, count, content, metadata_sum, _ = row
        vectors = {
            name: np.frombuffer(raw, dtype="<f4").astype(np.float32, copy=False)
            for name, raw in self._rows("SELECT field, vector FROM client_vectors WHERE doc = ? ORDER BY field", (doc,))
        }
        if digest(doc_id, metadata) != metadata_sum:
            raise self._damaged(f"document {doc_id!r}")
        rows = [passage[0] for passage in passages]
        if rows != list(range(first_row, first_row + count)) or not all(
            _are(p, int, int, int, bytes) for p in passages
        ):
            raise self._damaged(f"document {doc_id!r}")
        document = Document(doc_id, text, title, json.loads(metadata), vectors)
        if content_sum(document) != content:
            raise self._damaged(f"document {doc_id!r}")
        stored = DocumentRows(document, first_row, version, tuple(Span(*passage[1:]) for passage in passages))
        if any(passage_key(passage) != key for _, passage, key in stored.passages()):
            raise self._damaged(f"document {doc_id!r}")
        return stored

    def _damaged(self, what: str) -> IndexFormatError:
        return IndexFormatError(
            f"{self._path}: {what} does not match its checksum: the file is damaged; restore it from an export"
        )

    def sums(self, doc_ids: Sequence[str]) -> dict[str, Sums]:
        """Return sums, spans and version of those documents that exist."""
        found = {}
        for doc_id, content, metadata, version, first, count in self._rows(
            "SELECT doc_id, content_sum, metadata_sum, version, first_row, passages FROM documents"
            " WHERE doc_id IN (SELECT value FROM json_each(?))",
            (json.dumps(doc_ids),),
        ):
            spans = self._rows(
                "SELECT start, stop FROM passages WHERE row >= ? AND row < ? ORDER BY row", (first, first + count)
            )
            found[doc_id] = Sums(content, metadata, tuple(spans), version)
        return found

    def passages(self, rows: Sequence[int]) -> dict[int, tuple[Passage, Metadata]]:
        """Return the passages (with text, checked) and document metadata of `rows`; rows that died are left out.

        Cost: one index look-up per row; only the passage's own characters leave SQLite.
        """
        found: dict[int, tuple[Passage, Metadata]] = {}
        for row, start, stop, key, doc_id, title, text, metadata, metadata_sum, first in self._rows(
            "SELECT p.row, p.start, p.stop, p.key, d.doc_id, d.title,"
            " substr(d.text, p.start + 1, p.stop - p.start), d.metadata, d.metadata_sum, d.first_row"
            " FROM passages p JOIN documents d"
            " ON d.first_row = (SELECT max(first_row) FROM documents WHERE first_row <= p.row)"
            " WHERE p.row IN (SELECT value FROM json_each(?))",
            (json.dumps([int(row) for row in rows]),),
        ):
            whole_types = _are((start, stop, key, title, text, first), int, int, bytes, str, str, int)
            if not whole_types or digest(doc_id, metadata) != metadata_sum:
                raise self._damaged(f"document {doc_id!r}")
            passage = Passage(doc_id, row - first, start, stop, text, title)
            if passage_key(passage) != key:  # SQLite's substr stops at a NUL character: cut the whole text here
                ((whole,),) = self._rows("SELECT text FROM documents WHERE doc_id = ?", (doc_id,))
                passage = replace(passage, text=whole[start:stop])
            if passage_key(passage) != key:
                raise self._damaged(f"document {doc_id!r}")
            found[row] = (passage, json.loads(metadata))
        return found

    def rows_of(self, doc_ids: Iterable[str]) -> npt.NDArray[np.int64]:
        """Return the rows of all passages of those documents that exist, int64 (n,)."""
        ranges = self._rows(
            "SELECT first_row, passages FROM documents WHERE doc_id IN (SELECT value FROM json_each(?))",
            (json.dumps([doc_id for doc_id in doc_ids if can_be_id(doc_id)]),),
        )
        if not all(_are(values, int, int) for values in ranges):
            raise self._damaged("a document")
        return np.concatenate([np.empty(0, np.int64), *(np.arange(first, first + n) for first, n in ranges)])

    def client_vectors(self, field: str, doc_ids: Iterable[str]) -> dict[str, npt.NDArray[np.float32]]:
        """Return the vectors that clients gave for `field`, by document id."""
        rows = self._rows(
            "SELECT d.doc_id, v.vector FROM documents d JOIN client_vectors v ON v.doc = d.doc AND v.field = ?"
            " WHERE d.doc_id IN (SELECT value FROM json_each(?))",
            (field, json.dumps(list(doc_ids))),
        )
        return {doc_id: np.frombuffer(raw, dtype="<f4").astype(np.float32, copy=False) for doc_id, raw in rows}

    def keys_of(self, rows: Sequence[int]) -> dict[int, bytes]:
        """Return the text keys of those rows that exist."""
        return dict(
            self._rows(
                "SELECT row, key FROM passages WHERE row IN (SELECT value FROM json_each(?))",
                (json.dumps([int(row) for row in rows]),),
            )
        )

    def fresh_vectors(self, encoder: str, keys: Iterable[bytes], dim: int) -> dict[bytes, npt.NDArray[np.float32]]:
        """Return the vectors of those keys that are in the store, checked."""
        found: dict[bytes, npt.NDArray[np.float32]] = {}
        for key in keys:
            rows = self._rows(
                "SELECT vector, checksum FROM fresh_vectors WHERE encoder = ? AND key = ?", (encoder, key)
            )
            if not rows:
                continue
            raw, checksum = rows[0]
            if digest(key, raw) != checksum or len(raw) != 4 * dim:
                raise IndexFormatError(
                    f"{self._path}: a fresh vector does not match its checksum: the file is damaged; "
                    "restore it from an export, or delete and add its document again"
                )
            found[key] = np.frombuffer(raw, dtype="<f4").astype(np.float32, copy=False)
        return found

    def fresh_known(self, encoder: str, keys: Iterable[bytes]) -> set[bytes]:
        """Return which keys have a fresh vector."""
        statement = "SELECT 1 FROM fresh_vectors WHERE encoder = ? AND key = ?"
        return {key for key in keys if self._rows(statement, (encoder, key))}

    def written_since(self, op: int) -> tuple[int, int]:
        """Return how many rows were born and how many died after operation `op`."""
        ((born, died),) = self._rows(
            "SELECT coalesce(sum(new_count), 0), coalesce(sum(old_count), 0) FROM operations"
            " WHERE op > ? AND kind != 'patch'",
            (op,),
        )
        return int(born), int(died)

    def fresh_keys(self, encoder: str) -> list[bytes]:
        """Return the keys of all fresh vectors of one encoder, sorted."""
        return [
            row[0] for row in self._rows("SELECT key FROM fresh_vectors WHERE encoder = ? ORDER BY key", (encoder,))
        ]

    def damaged_vectors(self) -> list[str]:
        """Return one line per fresh vector that does not match its checksum."""
        with sqlite_errors(self._path):
            rows = self.connection.execute("SELECT encoder, key, vector, checksum FROM fresh_vectors")
            return [
                f"documents.db: the fresh vector {key.hex()} of encoder {encoder} does not match its checksum"
                for encoder, key, raw, checksum in rows
                if digest(key, raw) != checksum
            ]

    def integrity(self) -> str:
        """Return "ok" or what SQLite's own integrity check finds. Cost: reads the whole file."""
        return str(self._rows("PRAGMA integrity_check(1)")[0][0])
