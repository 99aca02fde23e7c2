"""The truth of a shard: documents, passages, metadata, the operation log and fresh vectors, in one SQLite file.

Everything else on disk is derived from here. A write is acknowledged when its transaction has committed
(WAL, synchronous=FULL). Rows number passages, grow forever and are never reused, so a set of rows names a set of texts.

Every value that a flipped bit could change unseen carries a checksum that is compared on reading; SQLite itself
only notices damage to its page structure.
"""

from retrieval.store.database import DocumentStore
from retrieval.store.records import (
    DocumentRows,
    Operation,
    Prepared,
    Span,
    content_sum,
    metadata_json,
    passage_key,
    passage_text,
    text_key,
    titled,
)
from retrieval.store.snapshot import StoreSnapshot
from retrieval.store.writer import StoreWriter

__all__ = [
    "DocumentRows",
    "DocumentStore",
    "Operation",
    "Prepared",
    "Span",
    "StoreSnapshot",
    "StoreWriter",
    "content_sum",
    "metadata_json",
    "passage_key",
    "passage_text",
    "text_key",
    "titled",
]
