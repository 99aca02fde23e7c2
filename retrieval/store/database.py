"""The SQLite file of a shard: creation, connections, snapshots and transactions."""

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from index.durable import failpoint, fsync_file, fsync_folder, storage_errors
from index.errors import ConfigError, IndexFormatError, StorageError
from retrieval.store.errors import sqlite_errors
from retrieval.store.records import digest
from retrieval.store.snapshot import StoreSnapshot
from retrieval.store.writer import StoreWriter

FORMAT = 1
UNCUT = '{"kind": "none"}'
_BUSY_TIMEOUT_S = 30

_SCHEMA = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL, checksum BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE documents (
  doc INTEGER PRIMARY KEY,
  doc_id TEXT NOT NULL UNIQUE,
  title TEXT NOT NULL,
  text TEXT NOT NULL,
  metadata TEXT NOT NULL,
  version INTEGER NOT NULL,      -- the operation that last changed it; 0 = bulk build
  first_row INTEGER NOT NULL,
  passages INTEGER NOT NULL,
  content_sum BLOB NOT NULL,     -- id, title, text, client vectors
  metadata_sum BLOB NOT NULL,    -- id, metadata
  row_sum BLOB NOT NULL          -- id, version, first_row, passages
);
CREATE INDEX documents_by_row ON documents (first_row);
CREATE TABLE passages (          -- of a document: rows first_row .. first_row + passages - 1, by ordinal
  row INTEGER PRIMARY KEY,
  start INTEGER NOT NULL,
  stop INTEGER NOT NULL,
  key BLOB NOT NULL              -- hash of the text that encoders see
);
CREATE TABLE client_vectors (    -- truth too: of fields whose encoder is "external"
  doc INTEGER NOT NULL, field TEXT NOT NULL, vector BLOB NOT NULL, PRIMARY KEY (doc, field)
) WITHOUT ROWID;
CREATE TABLE fresh_vectors (     -- until compaction moves them into the vector store
  encoder TEXT NOT NULL, key BLOB NOT NULL, vector BLOB NOT NULL, checksum BLOB NOT NULL, PRIMARY KEY (encoder, key)
) WITHOUT ROWID;
CREATE TABLE operations (
  op INTEGER PRIMARY KEY,
  kind TEXT NOT NULL,            -- upsert | delete | patch
  doc_id TEXT NOT NULL,
  old_first INTEGER NOT NULL, old_count INTEGER NOT NULL,
  new_first INTEGER NOT NULL, new_count INTEGER NOT NULL,
  checksum BLOB NOT NULL         -- all of the above
);
"""


class DocumentStore:
    """One SQLite file. Reading is safe from any thread through `snapshot`; writing belongs to one process.

    chunking: what cuts its documents into passages, as text; a store made otherwise is refused (ConfigError).

    Raises StorageError when the file system refuses, IndexFormatError when the file is damaged or of another version.
    """

    def __init__(self, path: Path, *, writable: bool, chunking: str = UNCUT) -> None:
        self._path = path
        self._chunking = chunking
        self._writable = writable
        self._idle: list[sqlite3.Connection] = []
        self._immutable: set[sqlite3.Connection] = set()
        self._lock = threading.Lock()
        self._write_lock = threading.Lock()
        self._closed = False
        if writable and not path.exists():
            with storage_errors("create", path), sqlite_errors(path):
                self._create()
        with self.snapshot() as snapshot:
            found, cut_by = snapshot.meta("format"), snapshot.meta("chunking")
        if found != str(FORMAT):
            self.close()
            raise IndexFormatError(f"{path} has store format {found}, this grapnel reads {FORMAT}")
        if cut_by != chunking:
            self.close()
            raise ConfigError(
                f"{path} was cut into passages by {cut_by}, collection.toml says {chunking}: restore the setting, or "
                "build a new collection"
            )

    def _create(self) -> None:
        # Built aside and renamed, so that a kill in between never leaves half a schema behind.
        temporary = self._path.with_name(f".{self._path.name}.tmp")
        for leftover in self._path.parent.glob(f".{self._path.name}.tmp*"):
            leftover.unlink()
        with closing(sqlite3.connect(temporary)) as connection:
            self._fill(connection)
        fsync_file(temporary)
        temporary.rename(self._path)
        fsync_folder(self._path.parent)

    def _fill(self, connection: sqlite3.Connection) -> None:
        connection.executescript(f"BEGIN; {_SCHEMA} COMMIT;")
        settings = {
            "format": str(FORMAT),
            "next_row": "0",
            "next_op": "1",
            "log_start": "1",
            "chunking": self._chunking,
        }
        with connection:
            connection.executemany(
                "INSERT INTO meta VALUES (?, ?, ?)",
                [(key, value, digest(key, value)) for key, value in settings.items()],
            )
        # Last, so that there is no WAL to fold in: closing would not say that a full disk kept it from that.
        connection.execute("PRAGMA journal_mode=WAL")

    def _connect(self) -> sqlite3.Connection:
        mode = "rw" if self._writable else "ro"
        uri = f"{self._path.absolute().as_uri()}?mode={mode}"
        try:
            connection = self._open(uri)
        except sqlite3.OperationalError:
            # A read-only folder cannot hold the WAL's shared memory; without a WAL the file alone is the whole truth.
            wal = self._path.with_name(self._path.name + "-wal")
            if self._writable or not self._path.exists() or (wal.exists() and wal.stat().st_size):
                raise
            connection = self._open(f"{self._path.absolute().as_uri()}?mode=ro&immutable=1")
            self._immutable.add(connection)
        return connection

    def _open(self, uri: str) -> sqlite3.Connection:
        connection = sqlite3.connect(
            uri, uri=True, timeout=_BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False
        )
        try:
            connection.execute("SELECT count(*) FROM meta").fetchone()
            if self._writable:
                connection.execute("PRAGMA synchronous=FULL")
        except BaseException:
            connection.close()
            raise
        return connection

    @contextmanager
    def snapshot(self) -> Iterator[StoreSnapshot]:
        """Yield one consistent view of the store; it does not see writes that commit meanwhile."""
        snapshot = self.open_snapshot()
        try:
            yield snapshot
        finally:
            self.release(snapshot)

    def open_snapshot(self) -> StoreSnapshot:
        """Begin a snapshot that the caller must `release`."""
        self.check_open()
        with sqlite_errors(self._path):
            with self._lock:
                connection = self._idle.pop() if self._idle else None
            connection = connection or self._connect()
            try:
                connection.execute("BEGIN")
                # SQLite takes its snapshot at the first read, not at BEGIN.
                connection.execute("SELECT value FROM meta WHERE key = 'format'").fetchone()
            except BaseException:
                connection.close()
                raise
        return StoreSnapshot(connection, self._path)

    def release(self, snapshot: StoreSnapshot) -> None:
        """End a snapshot and keep its connection for the next."""
        with sqlite_errors(self._path):
            snapshot.connection.execute("ROLLBACK")
        self._keep(snapshot.connection)

    @contextmanager
    def transaction(self) -> Iterator[StoreWriter]:
        """Yield a writer whose changes commit together when the block ends, or not at all when it raises."""
        with self._write_lock, sqlite_errors(self._path):
            self.check_open()  # here, not before the wait: whoever closes meanwhile gives the writer's lock away
            with self._lock:
                connection = self._idle.pop() if self._idle else None
            connection = connection or self._connect()
            try:
                connection.execute("BEGIN IMMEDIATE")
                writer = StoreWriter(connection, self._path)
                yield writer
                writer.save_counters()
                failpoint("store.before_commit")
                connection.execute("COMMIT")
                failpoint("store.after_commit")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise
            finally:
                self._keep(connection)

    def _keep(self, connection: sqlite3.Connection) -> None:
        with self._lock:
            # An immutable connection ignores what a writer who may write here does later: each snapshot looks anew.
            if self._closed or connection in self._immutable:
                self._immutable.discard(connection)
                connection.close()
            else:
                self._idle.append(connection)

    def check_open(self) -> None:
        """Raise StorageError when the store was closed."""
        if self._closed:
            raise StorageError(f"{self._path} was closed: open the collection again")

    def close(self) -> None:
        """Close the store; the last connection to close folds the WAL into the file. What is in use ends first."""
        with self._write_lock, self._lock:
            self._closed = True
            while self._idle:
                self._idle.pop().close()
