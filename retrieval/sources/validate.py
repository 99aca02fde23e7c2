"""What a document must be: one set of rules for every way in, and one check for ids used twice.

    id        1 to 512 bytes of UTF-8, not only white space, no control characters
    title     at most 64 KiB of UTF-8
    text      at most 64 MiB of UTF-8
    metadata  a JSON object with finite numbers, integers within 64 bits, at most 16 levels deep, at most 1 MiB as JSON
    vectors   name -> float32 (D,), D >= 1, finite
    together  a title, a text or a vector must be there

All strings must be encodable: a lone surrogate is refused. A NUL character is legal in titles, texts and metadata
(JSON and SQLite carry it whole), but not in ids, where every control character is refused.
"""

import json
import math
import re
import sqlite3
from collections.abc import Mapping
from typing import Any

import numpy as np

from index.errors import CorpusError, StorageError
from retrieval.types import Document

ID_BYTES = 512
TITLE_BYTES = 64 << 10
TEXT_BYTES = 64 << 20
METADATA_BYTES = 1 << 20
METADATA_LEVELS = 16
_CACHE_BYTES = 64 << 20
_SHOWN = 80
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


def check_document(document: Document) -> None:
    """Return if `document` may be stored; otherwise raise CorpusError naming the id, what is wrong and the remedy.

    Cost: one pass over the text and one JSON serialisation of the metadata.
    """
    _check_id(document.id)
    where = f"document {_shown(document.id)}"
    _check_text(document.title, f"{where}: title", TITLE_BYTES, "put long text into `text`")
    _check_text(document.text, f"{where}: text", TEXT_BYTES, "split it into several documents")
    _check_metadata(document.metadata, where)
    _check_vectors(document.vectors, where)
    if is_empty(document):
        raise CorpusError(f"{where} is empty: it needs a text, a title or a vector")


def is_empty(document: Document) -> bool:
    """Return whether there is nothing to search: title and text only white space, and no vector."""
    return not (document.vectors or document.text.strip() or document.title.strip())


class DuplicateIds:
    """The ids seen so far in one source, each with its place; exact, in bounded memory.

    They live in a private temporary SQLite database: up to 64 MiB in memory, the rest in an unlinked temporary file,
    about 50 bytes an id beyond the id itself. Cost: a few microseconds an id. Close it, or use it as a context.
    """

    def __init__(self) -> None:
        # "" is SQLite's name for a private temporary database. A source may be read in another thread than opened.
        self._database = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        self._database.execute("PRAGMA journal_mode = OFF")
        self._database.execute("PRAGMA synchronous = OFF")
        self._database.execute(f"PRAGMA cache_size = {-(_CACHE_BYTES >> 10)}")
        self._database.execute("CREATE TABLE seen (id BLOB PRIMARY KEY, place TEXT NOT NULL) WITHOUT ROWID")
        self._database.execute("BEGIN")

    def add(self, document_id: str, place: str) -> None:
        """Remember that `document_id` is used at `place`.

        Raises CorpusError naming both places if it was used before, StorageError if temporary space runs out.
        """
        key = document_id.encode("utf-8", "surrogatepass")
        try:
            added = self._database.execute("INSERT OR IGNORE INTO seen VALUES (?, ?)", (key, place)).rowcount
        except sqlite3.OperationalError as error:
            raise StorageError(
                f"cannot keep the list of ids in temporary space: {error}; free space or set SQLITE_TMPDIR"
            ) from error
        if not added:
            (first,) = self._database.execute("SELECT place FROM seen WHERE id = ?", (key,)).fetchone()
            raise CorpusError(
                f"{place}: id {_shown(document_id)} was used before, at {first}: give each document its own id"
            )

    def close(self) -> None:
        """Free the memory and the temporary file."""
        self._database.close()

    def __enter__(self) -> "DuplicateIds":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _shown(value: object) -> str:
    """Return `value` for a message: quoted, printable, short."""
    text = ascii(value) if isinstance(value, str) and not value.isprintable() else repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def _check_id(document_id: object) -> None:
    if not isinstance(document_id, str):
        raise CorpusError(f"id {_shown(document_id)} is of type {type(document_id).__name__}, expected a string")
    if not document_id.strip():
        raise CorpusError(f"id {_shown(document_id)} is empty: give each document an id")
    size_bytes = _utf8_bytes(document_id, f"id {_shown(document_id)}")
    if size_bytes > ID_BYTES:
        raise CorpusError(f"id {_shown(document_id)} has {size_bytes} bytes, at most {ID_BYTES} are allowed")
    if _CONTROL.search(document_id):
        raise CorpusError(
            f"id {_shown(document_id)} holds a control character (such as tab, newline or NUL): remove it"
        )


def _check_text(text: object, what: str, limit_bytes: int, remedy: str) -> None:
    if not isinstance(text, str):
        raise CorpusError(f"{what} is of type {type(text).__name__}, expected a string")
    size_bytes = _utf8_bytes(text, what)
    if size_bytes > limit_bytes:
        raise CorpusError(f"{what} has {size_bytes:,} bytes, at most {limit_bytes:,} are allowed: {remedy}")


def _utf8_bytes(text: str, what: str) -> int:
    if text.isascii():
        return len(text)
    try:
        return len(text.encode())
    except UnicodeEncodeError as error:
        raise CorpusError(
            f"{what} has a lone surrogate U+{ord(text[error.start]):04X} at character {error.start}: "
            "half of a character; repair the text where it was made"
        ) from error


def _check_metadata(metadata: object, where: str) -> None:
    if not isinstance(metadata, Mapping):
        raise CorpusError(f"{where}: metadata is of type {type(metadata).__name__}, expected an object")
    plain = dict(metadata)
    _check_value(plain, f"{where}: metadata", 1)
    size_bytes = len(json.dumps(plain, ensure_ascii=False, separators=(",", ":")).encode())
    if size_bytes > METADATA_BYTES:
        raise CorpusError(
            f"{where}: metadata has {size_bytes:,} bytes as JSON, at most {METADATA_BYTES:,} are allowed: "
            "put long text into `text`"
        )


def _check_value(value: Any, what: str, level: int) -> None:
    """Check a JSON value; `level` counts the objects and lists around it, itself included."""
    if not isinstance(value, dict | list | tuple):
        _check_scalar(value, what)
        return
    if level > METADATA_LEVELS:
        raise CorpusError(f"{what} is nested deeper than {METADATA_LEVELS} levels: flatten it")
    if not isinstance(value, dict):
        for item in value:
            _check_value(item, what, level + 1)
        return
    for key, item in value.items():
        if not isinstance(key, str):
            raise CorpusError(f"{what} has the key {_shown(key)} of type {type(key).__name__}, expected a string")
        _utf8_bytes(key, f"{what}: key {_shown(key)}")
        _check_value(item, f"{what} {_shown(key)}", level + 1)


def _check_scalar(value: object, what: str) -> None:
    if isinstance(value, str):
        _utf8_bytes(value, what)
    elif isinstance(value, int):
        if not -(1 << 63) <= value < 1 << 63:
            raise CorpusError(f"{what} is {_shown(value)}, beyond 64 bits: store it as a string")
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise CorpusError(f"{what} is {value}, which JSON cannot hold: use null or leave it out")
    elif value is not None:
        kind = type(value)
        raise CorpusError(f"{what} is of type {kind.__module__}.{kind.__qualname__}, expected a JSON value")


def _check_vectors(vectors: object, where: str) -> None:
    if not isinstance(vectors, Mapping):
        raise CorpusError(f"{where}: vectors is of type {type(vectors).__name__}, expected name -> float32 array")
    for name, vector in vectors.items():
        what = f"{where}: vector {_shown(name)}"
        if not isinstance(name, str) or not name:
            raise CorpusError(f"{what} has no name: use the name of the field it belongs to")
        _utf8_bytes(name, what)
        if not isinstance(vector, np.ndarray) or vector.dtype != np.float32 or vector.ndim != 1 or not vector.size:
            found = (
                f"{vector.dtype} {vector.shape}"
                if isinstance(vector, np.ndarray)
                else f"of type {type(vector).__name__}"
            )
            raise CorpusError(f"{what} is {found}, expected a float32 array (D,) with D >= 1")
        if not np.isfinite(vector).all():
            raise CorpusError(f"{what} holds NaN or infinity: encode the document again")
