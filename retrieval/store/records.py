"""What the store keeps, and the checksums that make damage visible."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from retrieval.types import Document, Metadata, Passage, StoredDocument

KEY_BYTES = 16


class Span(NamedTuple):
    """Characters [start, stop) of a document's text, and the hash of the text that encoders see for it."""

    start: int
    stop: int
    key: bytes


@dataclass(frozen=True, slots=True)
class Prepared:
    """A validated document, cut into passages, ready to be written."""

    document: Document
    metadata_json: str
    spans: tuple[Span, ...]


@dataclass(frozen=True, slots=True)
class Operation:
    """One entry of the log: rows [old_first, +old_count) died, rows [new_first, +new_count) were born."""

    op: int
    kind: Literal["upsert", "delete", "patch"]
    doc_id: str
    old_first: int
    old_count: int
    new_first: int
    new_count: int


class Sums(NamedTuple):
    """Checksums, spans and version of a stored document: enough to tell whether a new one differs."""

    content: bytes
    metadata: bytes
    spans: tuple[tuple[int, int], ...]
    version: int

    def same_content(self, item: Prepared) -> bool:
        """Whether text, title, client vectors and passages are those of `item`."""
        return self.content == content_sum(item.document) and self.spans == tuple(span[:2] for span in item.spans)

    def same_metadata(self, item: Prepared) -> bool:
        """Whether the metadata is that of `item`."""
        return self.metadata == digest(item.document.id, item.metadata_json)


class DocumentRows(NamedTuple):
    """A stored document with the rows of its passages [first_row, first_row + len(spans))."""

    document: Document
    first_row: int
    version: int
    spans: tuple[Span, ...]

    @property
    def stored(self) -> StoredDocument:
        """The document without its rows."""
        return StoredDocument(self.document, self.version, tuple((span.start, span.stop) for span in self.spans))

    def passages(self) -> Iterator[tuple[int, Passage, bytes]]:
        """Yield (row, passage, text key) of each passage."""
        document = self.document
        for ordinal, span in enumerate(self.spans):
            text = document.text[span.start : span.stop]
            passage = Passage(document.id, ordinal, span.start, span.stop, text, document.title)
            yield self.first_row + ordinal, passage, span.key


def metadata_json(metadata: Metadata) -> str:
    """Canonical JSON of metadata: equal metadata, equal text."""
    return json.dumps(dict(metadata), sort_keys=True, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def digest(*parts: str | bytes | int) -> bytes:
    """Return the 16-byte BLAKE2b checksum of parts, each with its type and length.

    The type counts because SQLite's are per value: one flipped bit turns a text into a blob of the same bytes.
    """
    state = hashlib.blake2b(digest_size=16)
    for part in parts:
        raw = part if isinstance(part, bytes) else str(part).encode("utf-8", "surrogatepass")
        state.update(f"{type(part).__name__} {len(raw)} ".encode())
        state.update(raw)
    return state.digest()


def content_sum(document: Document) -> bytes:
    """Checksum over everything of a document that is indexed (metadata apart)."""
    vectors = [part for name in sorted(document.vectors) for part in (name, vector_bytes(document.vectors[name]))]
    return digest(document.id, document.title, document.text, *vectors)


def can_be_id(doc_id: str) -> bool:
    """Return whether a stored document can have this id: SQLite would cut at a NUL, and refuses lone surrogates."""
    try:
        doc_id.encode()
    except UnicodeEncodeError:
        return False
    return "\0" not in doc_id


def vector_bytes(vector: npt.NDArray[np.float32]) -> bytes:
    """Return the little-endian float32 form in which vectors are stored."""
    return np.asarray(vector, dtype="<f4").tobytes()


def titled(title: str, text: str) -> str:
    """Return the text that models read: the title, a space, the text (the BEIR convention)."""
    return f"{title} {text}" if title else text


def passage_text(passage: Passage) -> str:
    """Return the text that encoders see of a passage: see `titled`."""
    return titled(passage.title, passage.text)


def text_key(text: str) -> bytes:
    """Return the 16-byte BLAKE2b hash that names an encoded text."""
    return hashlib.blake2b(text.encode(), digest_size=KEY_BYTES).digest()


def passage_key(passage: Passage) -> bytes:
    """Return the key of a passage's encoded text."""
    return text_key(passage_text(passage))
