"""One shard: its truth, its current base, the live tier on top, and the writer's lock."""

import logging
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from index.durable import fsync_folder, make_folders, storage_errors
from index.errors import GrapnelError, IndexFormatError, NotFoundError
from retrieval.base import Base
from retrieval.collection_config import CollectionConfig, chunking_facts
from retrieval.compaction import Compaction, CompactionReport
from retrieval.field_vectors import Encoders, FieldVectors
from retrieval.generation import (
    CURRENT,
    Generation,
    collect_garbage,
    generation_name,
    generation_numbers,
    open_ref,
    read_current,
    read_generation,
)
from retrieval.live import Live
from retrieval.lock import WriterLock
from retrieval.progress import Progress, silent
from retrieval.store import DocumentStore, StoreSnapshot
from retrieval.view import View

log = logging.getLogger(__name__)

COMPACT_FRESH = 10_000
COMPACT_FRESH_SHARE = 0.10
COMPACT_DEAD = 1_000
COMPACT_DEAD_SHARE = 0.20


class Reading(NamedTuple):
    """What one search reads: an index view and the SQLite snapshot of exactly the same operation."""

    view: View
    snapshot: StoreSnapshot


class Shard:
    """A shard folder, open for reading, and for writing when `writable`.

    Thread-safe. Raises LockedError when another process writes, IndexFormatError on damage, NotFoundError where
    nothing was built.
    """

    def __init__(self, folder: Path, config: CollectionConfig, encoders: Encoders, *, writable: bool) -> None:
        self.folder = folder
        self.config = config
        self._refresh = threading.Lock()
        self._compacting = threading.Lock()
        self._live: Live | None = None
        self._stamp: tuple[int, int] | None = None
        if writable:
            make_folders(folder)
        elif not (folder / "documents.db").exists():
            raise NotFoundError(f"{folder} holds no documents.db: build the collection first")
        self._lock = WriterLock(folder) if writable else None
        try:
            if writable:
                self._check_not_orphaned()
            self.vectors = FieldVectors(folder, config, encoders)
            self.store = DocumentStore(folder / "documents.db", writable=writable, chunking=chunking_facts(config))
            if writable:
                try:
                    self._forget_newer_generations()
                except BaseException:
                    self.store.close()
                    raise
        except BaseException:
            self._release()
            raise

    def _check_not_orphaned(self) -> None:
        """Raise IndexFormatError where an index lost its documents: a new store would make it an empty collection."""
        path = self.folder / "documents.db"
        if not path.exists() and (self.published or generation_numbers(self.folder)):
            raise IndexFormatError(
                f"{path} is missing, but an index of it is there: restore it from a copy or an export, or build the "
                "collection again in a new folder"
            )

    def _forget_newer_generations(self) -> None:
        """Drop an index that covers operations documents.db does not hold: the file was restored from an older copy.

        Done before anything is written, because new operations would get the numbers that the index already covers.
        """
        generation = self._trusted_generation()
        with self.store.snapshot() as snapshot:
            last_op = snapshot.last_op()
        if generation is None or generation.op <= last_op:
            return
        log.warning("documents.db ends at operation %d, its index at %d: it will be rebuilt", last_op, generation.op)
        with storage_errors("remove", self.folder / CURRENT):
            (self.folder / CURRENT).unlink()
            for number in generation_numbers(self.folder):
                (self.folder / generation_name(number)).unlink()
            fsync_folder(self.folder)

    @property
    def published(self) -> bool:
        """Whether a generation was ever published; before that the shard is an unfinished build."""
        return (self.folder / CURRENT).exists()

    @property
    def compacting(self) -> bool:
        """Whether a compaction runs; `close` would wait for it."""
        return self._compacting.locked()

    def close(self) -> None:
        """Stop following, close files, release the writer's lock."""
        with self._compacting, self._refresh:
            self._drop_live()
            self.store.close()
            self._release()

    def _release(self) -> None:
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def _drop_live(self) -> None:
        live, self._live = self._live, None
        if live is not None:
            try:
                live.close()
            finally:
                live.base.close()

    @contextmanager
    def reading(self) -> Iterator[Reading]:
        """Yield a consistent view and snapshot of everything acknowledged so far."""
        with self._refresh:
            reading = self._refreshed()
            reading.view.base.retain()  # it may open more of its files, while a compaction replaces it
        try:
            yield reading
        finally:
            reading.view.base.close()
            self.store.release(reading.snapshot)

    def _refreshed(self) -> Reading:
        for _ in range(3):
            self.store.check_open()
            self._follow_current()
            assert self._live is not None, "_follow_current opened a base"
            snapshot = self.store.open_snapshot()
            try:
                if snapshot.log_start() <= self._live.op + 1:
                    return Reading(self._live.follow(snapshot), snapshot)
            except BaseException:
                try:
                    self._drop_live()  # half-applied operations: replay from the base next time
                finally:
                    self.store.release(snapshot)
                raise
            # A compaction in another process published and pruned between the two looks: look again.
            self.store.release(snapshot)
            self._stamp = None
        raise IndexFormatError(
            f"{self.folder}: the operation log starts after what the current generation covers: "
            "run `grapnel compact`, which rebuilds the generation from the documents"
        )

    def _follow_current(self) -> None:
        try:
            status = (self.folder / CURRENT).stat()
        except FileNotFoundError as error:
            raise NotFoundError(
                f"{self.folder} has documents but no {CURRENT}: its build did not finish; run it again with --resume"
            ) from error
        stamp = (status.st_mtime_ns, status.st_ino)
        if self._live is None or stamp != self._stamp:
            self._adopt(self._open_base())
            self._stamp = stamp

    def _open_base(self) -> Base:
        for attempt in range(3):
            current = read_current(self.folder)
            assert current is not None, "the caller has seen CURRENT"
            try:
                return Base(self.folder, read_generation(self.folder, *current), self.config, self.vectors.fingerprints)
            except (IndexFormatError, FileNotFoundError):
                # The generation may have been replaced and removed while it was being opened.
                if attempt == 2 or read_current(self.folder) == current:
                    raise
        raise AssertionError("unreachable")

    def _adopt(self, base: Base) -> None:
        try:
            self._drop_live()
            self._live = Live(base, self.config, self.vectors)
        except BaseException:
            base.close()
            raise

    def generation(self) -> Generation | None:
        """Return the current generation, or None before the first. Raises IndexFormatError when it is damaged."""
        current = read_current(self.folder)
        return None if current is None else read_generation(self.folder, *current)

    def wants_compaction(self) -> bool:
        """Return whether fresh rows exceed max(10,000, 10 %) of the base, or dead rows max(1,000, 20 %)."""
        generation = self.generation()
        if generation is None:
            return False
        with self.store.snapshot() as snapshot:
            fresh, dead = snapshot.written_since(generation.op)
        count = generation.passages
        return fresh > max(COMPACT_FRESH, COMPACT_FRESH_SHARE * count) or dead > max(
            COMPACT_DEAD, COMPACT_DEAD_SHARE * (count + fresh)
        )

    def compact(self, progress: Progress = silent) -> CompactionReport:
        """Publish a generation that covers everything written so far, while searches and writes go on.

        Damaged or missing components are rebuilt; a damaged CURRENT or generation file is replaced.
        """
        with self._compacting:
            self.store.check_open()  # a compaction that waited for `close` no longer holds the writer's lock
            self.vectors.clean()
            with self.store.snapshot() as snapshot:
                report = Compaction(
                    self.folder, self.config, snapshot, self.vectors, self._trusted_generation(), progress
                ).run()
                moved = {name: snapshot.fresh_keys(self.vectors.fingerprint(name)) for name in report.encoded}
            base = self._open_base()
            with self._refresh:
                self._adopt(base)
                status = (self.folder / CURRENT).stat()
                self._stamp = (status.st_mtime_ns, status.st_ino)
            self._tidy(moved)
            return report

    def _trusted_generation(self) -> Generation | None:
        try:
            return self.generation()
        except IndexFormatError as error:
            log.warning("rebuilding the generation: %s", error)
            return None

    def _tidy(self, moved: dict[str, list[bytes]]) -> None:
        oldest = min(generation.op for generation in collect_garbage(self.folder))
        with self.store.transaction() as writer:
            for name, keys in moved.items():
                writer.drop_vectors(self.vectors.fingerprint(name), keys)
            writer.prune_log(oldest + 1)
            # Under the write lock: no batch may count on a vector while it is being dropped.
            self.vectors.compact(writer.all_rows()[1])

    def encoded_fields(self) -> list[str]:
        """Return the dense fields whose vectors are made here, not brought by clients."""
        return [name for name, field in self.config.dense_fields().items() if field.encoder.kind != "external"]

    def damaged_components(self) -> Sequence[str]:
        """Return what `grapnel verify` reports about the base: one line per problem, empty when clean."""
        problems: list[str] = []
        try:
            generation = self.generation()
            if generation is None:
                return [f"{self.folder} has no {CURRENT}: its build did not finish"]
        except GrapnelError as error:
            return [str(error)]
        for name, ref in generation.components.items():
            try:
                open_ref(self.folder, name, ref)
            except GrapnelError as error:
                problems.append(str(error))
        return problems
