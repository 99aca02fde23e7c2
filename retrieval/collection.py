"""Collections: a folder of documents that can be searched while it is written to.

>>> from retrieval.collection import Collection
>>> collection = Collection.open("demo/python-docs")
>>> for hit in collection.search("how do I read a file line by line?").hits:
...     print(hit.doc_id, hit.score)
"""

import heapq
import logging
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from index.durable import failpoint, make_folders, remove_leftovers, storage_errors, write_atomic
from index.errors import ConfigError, CorpusError, NotFoundError, RequestError
from index.types import Vectors
from retrieval.chunking import Chunker
from retrieval.collection_config import FILE as COLLECTION_FILE
from retrieval.collection_config import CollectionConfig, collection_table, read_collection_config
from retrieval.compaction import CompactionReport
from retrieval.config import read_toml, to_toml
from retrieval.encoders import fingerprint
from retrieval.field_vectors import Encoders
from retrieval.filters import Filter, matches, parse_filter
from retrieval.ingest import AddReport, Ingest, Written, batches
from retrieval.phrases.tokenizer import open_tokenizer
from retrieval.pipeline import Pipeline
from retrieval.pipeline_config import FILE as PIPELINE_FILE
from retrieval.pipeline_config import PipelineConfig, check_pipeline, default_pipeline, read_pipeline, resolve_mode
from retrieval.progress import Progress, silent
from retrieval.retrievers.fusion import Pool
from retrieval.retrievers.stage import Context
from retrieval.shard import Shard
from retrieval.store import DocumentRows, metadata_json
from retrieval.types import Document, Guard, Json, Query, Ranking, SearchRequest, StoredDocument
from retrieval.view import View

log = logging.getLogger(__name__)

SHARD = "shards/0000"
"""The one shard there is today; the folder level exists so that more can come without a new format (ADR 0002)."""

COMPACTION_THREAD = "grapnel-compaction"
"""Name of the threads that compact collections by themselves; `close` waits for them, so these must not call it."""


_BYTES_PER_NUMBER = 12
"""Of a float32 in JSON, about."""


class Collection:
    """A collection, open for reading, and for writing when `writable`. Thread-safe; close it when done.

    Searches see everything that was acknowledged before they began, in this process or another.
    encoders: shared with the other collections of the process, so that each model is loaded once.
    """

    def __init__(
        self,
        folder: Path,
        config: CollectionConfig,
        *,
        writable: bool,
        pipeline: PipelineConfig,
        encoders: Encoders | None = None,
    ) -> None:
        self.folder = folder
        self.config = config
        self.pipeline = pipeline
        self._shard = Shard(folder / SHARD, config, encoders or Encoders(), writable=writable)
        self._writable = writable
        self._compaction: threading.Thread | None = None
        self._compaction_lock = threading.Lock()
        self._compaction_error: Exception | None = None
        self._ingest: Ingest | None = None
        self._ingest_lock = threading.Lock()
        if writable:
            remove_leftovers(folder, ".*.toml.*.tmp")

    # -- life ---------------------------------------------------------------------------------------------------

    @classmethod
    def create(
        cls, folder: str | Path, config: CollectionConfig | None = None, *, encoders: Encoders | None = None
    ) -> Self:
        """Create an empty collection, open for writing; it can be searched at once.

        Raises ConfigError when the folder already holds something.
        """
        collection = cls.begin(folder, config or CollectionConfig(), encoders=encoders)
        try:
            collection.compact()
        except BaseException:
            collection.close()
            raise
        return collection

    @classmethod
    def begin(cls, folder: str | Path, config: CollectionConfig, *, encoders: Encoders | None = None) -> Self:
        """Create a collection without a first generation: `load` documents, then `compact` to make it searchable."""
        folder = Path(folder)
        if folder.exists() and not folder.is_dir():
            raise ConfigError(f"{folder} is a file: choose a new folder")
        leftovers = set(folder.glob(f".{COLLECTION_FILE}.*.tmp"))  # of a create that was killed
        if folder.exists() and set(folder.iterdir()) - leftovers:
            raise ConfigError(f"{folder} is not empty: choose a new folder, or resume its build with --resume")
        for field in config.dense_fields().values():
            fingerprint(field.encoder)  # a model that is not there is refused before anything is written
        for substring in config.substring_fields().values():
            open_tokenizer(substring)
        make_folders(folder)
        with storage_errors("clean", folder):
            for leftover in leftovers:
                leftover.unlink()
        write_atomic(folder / COLLECTION_FILE, to_toml(collection_table(config)).encode(), point="create.config")
        failpoint("create.configured")
        return cls(folder, config, writable=True, pipeline=default_pipeline(config), encoders=encoders)

    @classmethod
    def open(
        cls,
        folder: str | Path,
        *,
        writable: bool = False,
        pipeline: str | Path | None = None,
        encoders: Encoders | None = None,
    ) -> Self:
        """Open an existing collection. pipeline: a pipeline.toml other than the collection's own.

        Raises NotFoundError where there is none, ConfigError on a bad configuration, IndexFormatError on damage or
        another format version, LockedError when `writable` and another process writes.
        """
        folder = Path(folder)
        if not (folder / COLLECTION_FILE).is_file():
            raise NotFoundError(f"{folder} has no {COLLECTION_FILE}: create a collection with `grapnel build`")
        if not {"format", "fields"} <= read_toml(folder / COLLECTION_FILE).keys():
            raise ConfigError(f"{folder / COLLECTION_FILE} is empty or cut off: restore it from an export")
        config = read_collection_config(folder / COLLECTION_FILE)
        path = folder / PIPELINE_FILE if pipeline is None else Path(pipeline)
        use_default = pipeline is None and not path.exists()
        chosen = default_pipeline(config) if use_default else read_pipeline(path, config)
        return cls(folder, config, writable=writable, pipeline=chosen, encoders=encoders)

    def close(self) -> None:
        """Wait for a running compaction and let go of files and locks."""
        with self._compaction_lock:
            compaction = self._compaction
        if compaction is not None:
            compaction.join()
        self._shard.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # -- documents ----------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        with self._shard.store.snapshot() as snapshot:
            return snapshot.document_count()

    def get(self, doc_id: str) -> Document | None:
        """Return a document, or None. Raises IndexFormatError when its stored bytes are damaged."""
        (stored,) = self.stored([doc_id])
        return None if stored is None else stored.document

    def stored(self, doc_ids: Iterable[str]) -> list[StoredDocument | None]:
        """Return documents with their versions and passages, in order and as of one moment; None where there is none.

        Raises IndexFormatError when stored bytes are damaged.
        """
        with self._shard.store.snapshot() as snapshot:
            return [None if found is None else found.stored for found in map(snapshot.get, doc_ids)]

    def page(
        self,
        after: str = "",
        limit: int = 50,
        filter: Mapping[str, Json] | None = None,  # noqa: A002  the field's word
        *,
        strict_filter: bool = True,
        most_bytes: int | None = None,
    ) -> list[StoredDocument]:
        """Return up to `limit` documents with ids greater than `after`, by id; those that match a filter.

        strict_filter: see SearchRequest. most_bytes: the document with which they have this `size_of` is the last.
        Raises RequestError on a bad filter.
        Cost: `limit` documents; with a filter, all matching ids.
        """
        if filter is None:
            with self._shard.store.snapshot() as snapshot:
                return _until_full(map(snapshot.get, snapshot.ids(after, limit)), most_bytes)
        with self._shard.reading() as reading:
            matching = self._matching(reading.view, parse_filter(filter), strict_filter)
            ids = heapq.nsmallest(limit, (doc_id for doc_id in matching if doc_id > after))
            return _until_full(map(reading.snapshot.get, ids), most_bytes)

    def count(
        self,
        filter: Mapping[str, Json] | None = None,  # noqa: A002  as above
        *,
        strict_filter: bool = True,
    ) -> int:
        """Return how many documents there are, or match a filter.

        strict_filter: see SearchRequest. Raises RequestError on a bad filter.
        Cost: that of a search's filter; no document is read.
        """
        if filter is None:
            return len(self)
        with self._shard.reading() as reading:
            return len(self._numbers(reading.view, parse_filter(filter), strict_filter))

    def documents(self) -> Iterator[Document]:
        """Stream all documents, oldest write first, as of one moment."""
        with self._shard.store.snapshot() as snapshot:
            for stored in snapshot.documents():
                yield stored.document

    def add(
        self, documents: Iterable[Document], progress: Progress = silent, *, guard: Guard | None = None
    ) -> AddReport:
        """Add or replace documents by id; what is unchanged costs nothing; batches are acknowledged as they go.

        When this returns, every document is durable and visible to the next search. Raises CorpusError on a document
        that is not acceptable (earlier batches stay), StorageError when the disk refuses, and what `guard` raises.
        """
        ingest = self._writer()
        report, done = AddReport(), 0
        for batch in batches(documents):
            report += ingest.add(batch, guard)[0]
            done += len(batch)
            progress("add", done, None)
            self._maybe_compact()
        return report

    def put(self, document: Document, *, guard: Guard | None = None) -> Written:
        """Add or replace one document; as `add`, and says which version it has now."""
        _, (written,) = self._writer().add([document], guard)
        self._maybe_compact()
        return written

    def load(self, documents: Iterable[Document], progress: Progress = silent, total: int | None = None) -> AddReport:
        """Store documents of a build that is not searchable yet; `compact` then encodes and indexes them.

        Raises ConfigError once the collection is searchable.
        """
        ingest = self._writer()
        if self._shard.published:
            raise ConfigError(f"{self.folder} is already built: use `add`, or `grapnel add`, for more documents")
        report, done = AddReport(), 0
        for batch in batches(documents):
            report += ingest.load(batch)
            done += len(batch)
            progress("read", done, total)
        return report

    def patch(self, doc_id: str, changes: Mapping[str, Json], *, guard: Guard | None = None) -> StoredDocument:
        """Merge `changes` into a document's metadata (None removes a key) and return it; nothing is encoded again.

        Raises NotFoundError when there is no such document, CorpusError when the result is not acceptable, and what
        `guard` raises.
        """
        from retrieval.sources.validate import check_document  # noqa: PLC0415  with the other readers

        self._writer()
        with self._shard.store.transaction() as writer:
            stored = writer.get(doc_id)
            if guard is not None:
                guard(doc_id, None if stored is None else stored.stored)
            if stored is None:
                raise NotFoundError(f"no document {doc_id!r}: add it first")
            metadata = {key: value for key, value in stored.document.metadata.items() if key not in changes}
            metadata |= {key: value for key, value in changes.items() if value is not None}
            document = replace(stored.document, metadata=metadata)
            check_document(document)
            version = stored.version
            if metadata_json(document.metadata) != metadata_json(stored.document.metadata):
                version = writer.next_op
                writer.set_metadata(doc_id, document.metadata)
        self._maybe_compact()
        return stored.stored._replace(document=document, version=version)

    def delete(
        self,
        doc_ids: str | Iterable[str] = (),
        *,
        filter: Mapping[str, Json] | None = None,  # noqa: A002  the field's word
        strict_filter: bool = True,
        guard: Guard | None = None,
    ) -> int:
        """Delete documents by id and those that match a filter; return how many there were.

        strict_filter: see SearchRequest. guard: sees each document named by id first.
        Raises RequestError on a bad filter, and what `guard` raises: then nothing is deleted.
        """
        self._writer()
        chosen = [doc_ids] if isinstance(doc_ids, str) else list(doc_ids)
        condition = None if filter is None else parse_filter(filter)
        matching: list[str] = []
        if condition is not None:
            with self._shard.reading() as reading:
                matching = self._matching(reading.view, condition, strict_filter)
        with self._shard.store.transaction() as writer:
            if guard is not None:
                for doc_id in chosen:
                    found = writer.get(doc_id)
                    guard(doc_id, None if found is None else found.stored)
            count = sum(writer.delete(doc_id) for doc_id in dict.fromkeys(chosen))
            for doc_id in matching:
                stored = writer.get(doc_id)  # another thread may have changed it since it was found
                if condition is not None and stored and matches(condition, stored.document.metadata, doc_id):
                    count += writer.delete(doc_id)
        self._maybe_compact()
        return count

    @classmethod
    def _matching(cls, view: View, condition: Filter, strict: bool) -> list[str]:
        return view.doc_ids(cls._numbers(view, condition, strict))

    @staticmethod
    def _numbers(view: View, condition: Filter, strict: bool) -> npt.NDArray[np.int64]:
        """Return the numbers that the matching documents have in the view."""
        return np.unique(view.documents(view.allowed(condition, strict=strict).rows()))

    def _writer(self) -> Ingest:
        if not self._writable:
            raise ConfigError(f"{self.folder} was opened for reading: open it with writable=True")
        with self._compaction_lock:  # of several writers that come at once, one hears of it
            error, self._compaction_error = self._compaction_error, None
        if error is not None:
            raise error
        with self._ingest_lock:
            if self._ingest is None:
                first = next(iter(self.config.dense_fields().values()), None)
                chunker = Chunker(self.config.chunking, first.encoder if first else None)
                self._ingest = Ingest(self._shard, self.config, chunker)
            return self._ingest

    # -- search -------------------------------------------------------------------------------------------------

    def search(self, query: str | Query = "", *, mode: str | None = None, **options: Any) -> Ranking:
        """Answer one query. options: the other fields of SearchRequest (k, offset, filter, min_score, like ...).

        Raises RequestError when it cannot be answered as asked.
        """
        asked = query if isinstance(query, Query) else Query("q", query)
        return self.search_many([SearchRequest(asked, **options)], mode=mode)[0]

    def search_many(
        self, requests: Sequence[SearchRequest], *, mode: str | None = None, config: PipelineConfig | None = None
    ) -> list[Ranking]:
        """Answer a batch of requests from one consistent state; each keeps its own filter, k and options.

        config: another pipeline than the collection's, checked by `check_pipeline`.
        Raises RequestError when one of them cannot be answered as asked.
        """
        rankings = []
        for answer in self.answers(requests, mode=mode, config=config):
            if isinstance(answer, RequestError):
                raise answer
            rankings.append(answer)
        return rankings

    def answers(
        self, requests: Sequence[SearchRequest], *, mode: str | None = None, config: PipelineConfig | None = None
    ) -> list[Ranking | RequestError]:
        """Answer as `search_many`, with the error of a bad request in its place, which keeps nobody else waiting."""
        config = config or self.pipeline
        pipeline = Pipeline(self.config, config, resolve_mode(config, self.config, mode))
        if not requests:
            return []
        timings_s = self._load_encoders(pipeline, requests)
        with self._shard.reading() as reading:
            context = Context(reading.view, self._encode_queries, timings_s)
            return pipeline.answers(context, reading.snapshot, requests)

    def _load_encoders(self, pipeline: Pipeline, requests: Sequence[SearchRequest]) -> dict[str, float]:
        """Load the models a batch needs, before a snapshot is held; return the seconds that took, if any did."""
        start = time.perf_counter()
        loaded = [
            self._shard.vectors.load(name)
            for name in pipeline.dense_names
            if any(request.like is None and name not in request.query.vectors for request in requests)
        ]
        return {"load model": time.perf_counter() - start} if any(loaded) else {}

    @contextmanager
    def pools(
        self, requests: Sequence[SearchRequest], *, mode: str, config: PipelineConfig | None = None
    ) -> Iterator[tuple[View, list[Pool]]]:
        """Yield the view and the unranked candidates of each request: what tuning and evaluation look at.

        config: another pipeline than the collection's.
        """
        config = config or self.pipeline
        pipeline = Pipeline(self.config, config, resolve_mode(config, self.config, mode))
        with self._shard.reading() as reading:
            yield reading.view, pipeline.pools(Context(reading.view, self._encode_queries), reading.snapshot, requests)

    def retriever(self, mode: str | None = None) -> "CollectionRetriever":
        """Return one mode of this collection as a Retriever."""
        return CollectionRetriever(self, resolve_mode(self.pipeline, self.config, mode))

    def _encode_queries(self, name: str, queries: Sequence[Query]) -> Vectors:
        texts = [query for query in queries if name not in query.vectors]
        encoded = iter(self._shard.vectors.encoder(name).encode_queries(texts) if texts else ())
        return np.stack([query.vectors[name] if name in query.vectors else next(encoded) for query in queries])

    def set_pipeline(self, pipeline: PipelineConfig, comment: str = "") -> None:
        """Search with `pipeline` from now on, and write it as the collection's pipeline.toml, atomically.

        comment: TOML comment lines put first. Needs no writer's lock: nothing on disk depends on it.
        Raises ConfigError where it does not fit the collection.
        """
        check_pipeline(pipeline, self.config, PIPELINE_FILE)
        write_atomic(self.folder / PIPELINE_FILE, (comment + to_toml(pipeline)).encode(), point="pipeline")
        self.pipeline = pipeline

    # -- upkeep -------------------------------------------------------------------------------------------------

    def compact(self, progress: Progress = silent) -> CompactionReport:
        """Fold everything written into a new generation; also ends a build, and rebuilds what is damaged or missing.

        Searches and writes go on meanwhile.
        """
        if not self._writable:
            raise ConfigError(f"{self.folder} was opened for reading: open it with writable=True")
        return self._shard.compact(progress)

    def _maybe_compact(self) -> None:
        with self._compaction_lock:
            if self._compaction is not None and self._compaction.is_alive():
                return
            if self._shard.wants_compaction():
                self._compaction = threading.Thread(target=self._compact_quietly, name=COMPACTION_THREAD)
                self._compaction.start()

    def _compact_quietly(self) -> None:
        try:
            self._shard.compact()
        except Exception as error:  # noqa: BLE001  kept for the next write, which raises it
            log.warning("compaction failed: %s", error)
            with self._compaction_lock:
                self._compaction_error = error

    @property
    def shard(self) -> Shard:
        """The shard, for upkeep: verification, export, status."""
        return self._shard


def size_of(document: Document) -> int:
    """Return about how many bytes a document takes as JSON."""
    numbers = sum(vector.size for vector in document.vectors.values())
    return len(document.text) + len(metadata_json(document.metadata)) + _BYTES_PER_NUMBER * numbers


def _until_full(found: Iterable[DocumentRows | None], most_bytes: int | None) -> list[StoredDocument]:
    documents: list[StoredDocument] = []
    size = 0
    for each in found:
        if each is None:
            continue
        documents.append(each.stored)
        if most_bytes is not None:
            size += size_of(each.document)
            if size >= most_bytes:
                break
    return documents


class CollectionRetriever:
    """One mode of a collection, as a Retriever."""

    def __init__(self, collection: Collection, mode: str) -> None:
        self._collection = collection
        self.mode = mode

    def retrieve(self, requests: Sequence[SearchRequest]) -> list[Ranking]:
        """Answer each request, in order."""
        return self._collection.search_many(requests, mode=self.mode)


def build(
    folder: str | Path,
    documents: Iterable[Document],
    config: CollectionConfig | None = None,
    *,
    resume: bool = False,
    progress: Progress = silent,
    total: int | None = None,
) -> tuple[AddReport, CompactionReport]:
    """Build a collection from a stream of documents; memory does not grow with their number.

    resume: go on with a killed build: documents already stored are skipped, texts already encoded are not encoded
    again. Raises ConfigError when the folder is in use or the configuration differs from the one that was begun.
    """
    folder = Path(folder)
    config = config or CollectionConfig()
    if resume and (folder / COLLECTION_FILE).exists():
        found = read_collection_config(folder / COLLECTION_FILE)
        if collection_table(found) != collection_table(config):
            raise ConfigError(f"{folder} was begun with another configuration: resume with that one")
        collection = Collection.open(folder, writable=True)
    else:
        collection = Collection.begin(folder, config)
    with collection:
        if collection.shard.published:
            raise ConfigError(f"{folder} is already built: use `grapnel add` for more documents")
        added = collection.load(documents, progress, total)
        if len(collection) == 0:
            raise CorpusError("the source holds no documents")
        return added, collection.compact(progress)
