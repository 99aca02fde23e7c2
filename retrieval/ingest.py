"""From documents to acknowledged writes: validate, cut, encode what is new, commit."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import numpy as np

from index.durable import failpoint
from index.metric import check_vectors
from index.types import Vectors
from retrieval.chunking import Chunker
from retrieval.collection_config import CollectionConfig
from retrieval.field_vectors import check_client_vectors
from retrieval.shard import Shard
from retrieval.sources.validate import check_document
from retrieval.store import Prepared, Span, StoreWriter, metadata_json, passage_key, titled
from retrieval.types import Document, Guard, Passage

BATCH_DOCUMENTS = 1_000
BATCH_CHARACTERS = 8 << 20


@dataclass(frozen=True, slots=True)
class AddReport:
    """What `add` did to documents. encoded: texts sent through an encoder; truncated: those beyond its window."""

    added: int = 0
    updated: int = 0
    patched: int = 0
    unchanged: int = 0
    encoded: int = 0
    truncated: int = 0

    def __add__(self, other: "AddReport") -> "AddReport":
        """Sum of two reports."""
        names = self.__dataclass_fields__
        return AddReport(**{name: getattr(self, name) + getattr(other, name) for name in names})


class Written(NamedTuple):
    """What a write did to one document, and the version it has now."""

    result: Literal["added", "updated", "patched", "unchanged"]
    version: int


def batches(documents: Iterable[Document]) -> Iterator[list[Document]]:
    """Group documents into batches of at most 1,000 and about 8 million characters; ids are distinct within a batch."""
    batch: dict[str, Document] = {}
    characters = 0
    for document in documents:
        if document.id in batch:
            yield list(batch.values())
            batch, characters = {}, 0
        batch[document.id] = document
        characters += len(document.text)
        if len(batch) == BATCH_DOCUMENTS or characters > BATCH_CHARACTERS:
            yield list(batch.values())  # now, so that a later bad document does not hold it back
            batch, characters = {}, 0
    if batch:
        yield list(batch.values())


class Ingest:
    """Writes documents into one shard."""

    def __init__(self, shard: Shard, config: CollectionConfig, chunker: Chunker) -> None:
        self._shard = shard
        self._config = config
        self._chunker = chunker
        self._encoded_fields = [
            name for name, field in config.dense_fields().items() if field.encoder.kind != "external"
        ]

    def prepare(self, document: Document) -> Prepared:
        """Validate one document and cut it into passages. Raises CorpusError."""
        check_document(document)
        check_client_vectors(self._config, document.id, document.vectors)
        spans = []
        for ordinal, (start, stop) in enumerate(self._chunker.spans(document)):
            text = document.text[start:stop]
            passage = Passage(document.id, ordinal, start, stop, text, document.title)
            spans.append(Span(start, stop, passage_key(passage)))
        return Prepared(document, metadata_json(document.metadata), tuple(spans))

    def load(self, batch: Sequence[Document]) -> AddReport:
        """Store a batch of a bulk build: no vectors, no log; the compaction that ends the build does the rest."""
        prepared = [self.prepare(document) for document in batch]
        with self._shard.store.transaction() as writer:
            return _report(_write(writer, prepared, log=False))

    def add(self, batch: Sequence[Document], guard: Guard | None = None) -> tuple[AddReport, list[Written]]:
        """Encode what is new in a batch and commit it all as one acknowledged transaction.

        guard: sees what each document replaces; where it raises, nothing of the batch is written.
        Raises CorpusError before anything is written when a document is not acceptable.
        """
        prepared = [self.prepare(document) for document in batch]
        texts = {
            span.key: titled(item.document.title, item.document.text[span.start : span.stop])
            for item in prepared
            for span in item.spans
        }
        while True:
            encoded = {name: self._encode(name, texts) for name in self._encoded_fields}
            failpoint("add.encoded")
            with self._shard.store.transaction() as writer:
                for name, new in encoded.items():
                    writer.add_vectors(self._shard.vectors.fingerprint(name), new.keys, new.vectors)
                # A compaction may have dropped a vector that was unused until now: then encode it after all.
                if any(self._shard.vectors.unknown(writer, name, list(texts)) for name in encoded):
                    continue
                if guard is not None:
                    for item in prepared:
                        old = writer.get(item.document.id)
                        guard(item.document.id, None if old is None else old.stored)
                written = _write(writer, prepared, log=True)
            count = sum(len(new.keys) for new in encoded.values())
            truncated = sum(new.truncated for new in encoded.values())
            return replace(_report(written), encoded=count, truncated=truncated), written

    def _encode(self, name: str, texts: Mapping[bytes, str]) -> "_Encoded":
        vectors = self._shard.vectors
        with self._shard.store.snapshot() as snapshot:
            keys = vectors.unknown(snapshot, name, list(texts))
        if not keys:
            return _Encoded([], np.empty((0, 0), np.float32), 0)
        batch = vectors.encoder(name).encode_texts([texts[key] for key in keys])
        return _Encoded(keys, check_vectors(batch.vectors), batch.truncated)


class _Encoded(NamedTuple):
    keys: list[bytes]
    vectors: Vectors
    truncated: int


def _write(writer: StoreWriter, prepared: Sequence[Prepared], *, log: bool) -> list[Written]:
    written = []
    known = writer.sums([item.document.id for item in prepared])
    for item in prepared:
        old = known.get(item.document.id)
        version = writer.next_op if log else 0
        if old is None or not old.same_content(item):
            written.append(Written(writer.upsert(item, log=log), version))
        elif not old.same_metadata(item):
            writer.set_metadata(item.document.id, item.document.metadata, log=log)
            written.append(Written("patched", version))
        else:
            written.append(Written("unchanged", old.version))
    return written


def _report(written: Sequence[Written]) -> AddReport:
    counts: Counter[str] = Counter(item.result for item in written)
    return AddReport(**counts)
