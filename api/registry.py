"""The collections under one folder, by name, and the aliases that stand for them.

ROOT/NAME/                   a collection; its folder's name is its name
ROOT/.grapnel/aliases.json   {"format": 1, "aliases": {ALIAS: NAME}}
ROOT/.grapnel/snapshots/NAME/...
ROOT/.grapnel/scratch/       being made or being removed; emptied when a server starts
ROOT/.grapnel/lock           held by the one server of this root
"""

import json
import logging
import re
import shutil
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias

from api.keys import COLLECTION
from api.searching import Searches
from api.workers import Workers
from index.durable import fsync_folder, make_folders, remove_leftovers, storage_errors, write_json_atomic
from index.errors import (
    ConflictError,
    GrapnelError,
    IndexFormatError,
    LockedError,
    NotFoundError,
    RequestError,
    StorageError,
    UnavailableError,
)
from retrieval.collection import Collection
from retrieval.collection_config import FILE as COLLECTION_FILE
from retrieval.field_vectors import Encoders
from retrieval.lock import WriterLock
from retrieval.types import Query

log = logging.getLogger(__name__)

NAME = re.compile(COLLECTION)
FORMAT = 1

State: TypeAlias = Literal["ready", "read-only", "failed"]
"""read-only: another process writes, or the file system refuses. failed: it could not be opened."""

_WRITE_THREADS = 4
"""Of one collection: they encode side by side, in shared batches, and commit one after the other."""

_CLOSING_S = 30.0
_SETTLE_S = 0.01


def check_name(name: str) -> str:
    """Return `name` if a collection or alias may have it; raise RequestError otherwise."""
    if not NAME.fullmatch(name):
        raise RequestError(f"name {name[:80]!r} is not allowed: a name has 1 to 64 of a-z, 0-9, _ and -")
    return name


class Served:
    """One collection of a server. error: why it could not be opened; then it has no `collection`.

    What uses the collection does so inside `using`, so that it is not closed meanwhile.
    waiting: how many searches and writes may wait. writes: the threads that write to it.
    """

    def __init__(
        self, name: str, state: State, collection: Collection | None, waiting: "Waiting", error: str = ""
    ) -> None:
        self.name = name
        self.state: State = state
        self.error = error
        self._collection = collection
        self.searches = None if collection is None else Searches(collection, waiting.searches)
        self.writes = Workers(f"writes of {name!r}", _WRITE_THREADS, waiting.writes)
        self._users = 0
        self._closed = False
        self._lock = threading.Lock()

    def check_writable(self) -> None:
        """Raise LockedError where it can only be searched, IndexFormatError where it could not be opened at all."""
        if self._collection is None:
            raise self._unopened()
        if self.state == "read-only":
            raise LockedError(f"collection {self.name!r} can only be searched: {self.error}")

    def _unopened(self) -> IndexFormatError:
        return IndexFormatError(f"collection {self.name!r} could not be opened; the server's log says why")

    @property
    def compacting(self) -> bool:
        """Whether it is being compacted, asked for or by itself."""
        return self._collection is not None and self._collection.shard.compacting

    @contextmanager
    def using(self) -> Iterator[Collection]:
        """Yield the collection. Raises IndexFormatError where it could not be opened, NotFoundError once closed."""
        with self._lock:
            if self._closed:
                raise NotFoundError(f"collection {self.name!r} was deleted or replaced")
            if self._collection is None:
                raise self._unopened()
            self._users += 1
        try:
            yield self._collection
        finally:
            with self._lock:
                self._users -= 1

    def close(self, timeout_s: float = _CLOSING_S) -> None:
        """Refuse new uses, wait for those under way, close the collection."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
        deadline = time.monotonic() + timeout_s
        if self.searches is not None:
            self.searches.close(timeout_s)
        while self._users and time.monotonic() < deadline:
            time.sleep(_SETTLE_S)
        if self._users:
            log.warning("collection %s is closed while %d calls still use it", self.name, self._users)
        if self._collection is not None:
            self._collection.close()


class Waiting(NamedTuple):
    """How many searches and writes of one collection may wait."""

    searches: int
    writes: int


class Registry:
    """All collections under `root`.

    Raises LockedError when another server serves the same root. On a read-only file system what is there can be
    searched, and changes raise StorageError. Thread-safe.
    """

    def __init__(self, root: Path, encoders: Encoders, waiting: Waiting) -> None:
        self.root = root
        self.encoders = encoders
        self._waiting = waiting
        self._own = root / ".grapnel"
        self._scratch = self._own / "scratch"
        self._served: dict[str, Served] = {}
        self._aliases: dict[str, str] = {}
        self._reserved: set[str] = set()
        self._closed = False
        self._lock = threading.Lock()  # never held over disk: the event loop waits for it
        self._changing = threading.Lock()  # one change of aliases at a time; taken first
        self._only: WriterLock | None = None
        try:
            self._take()
            self._aliases = self._read_aliases()
        except StorageError as error:
            log.warning("%s can only be searched: %s", root, error)
            self._aliases = self._read_aliases()
        except BaseException:
            self._let_go()
            raise

    def _take(self) -> None:
        make_folders(self._own)
        self._only = WriterLock(self._own)
        shutil.rmtree(self._scratch, ignore_errors=True)  # what a killed server was making or removing
        make_folders(self._scratch)
        remove_leftovers(self._own, ".aliases.json.*.tmp")
        for folder in (self._own / "snapshots").glob("*"):
            _tidy_snapshots(folder)

    def _let_go(self) -> None:
        if self._only is not None:
            self._only.release()
            self._only = None

    def open_all(self) -> None:
        """Open every collection there is; one that cannot be opened is listed as failed and keeps no other from it."""
        with storage_errors("list", self.root):
            names = sorted(path.name for path in self.root.iterdir() if (path / COLLECTION_FILE).is_file())
        for name in names:
            if not NAME.fullmatch(name):
                log.warning("%s is left out: its name may have 1 to 64 of a-z, 0-9, _ and -", self.root / name)
                continue
            if not self._serve(name):
                return

    def _serve(self, name: str) -> Served | None:
        """Open a collection and list it; None where the registry was closed meanwhile."""
        served = self._open(name)
        with self._lock:
            if not self._closed:
                self._served[name] = served
                return served
        served.close()
        return None

    def _open(self, name: str) -> Served:
        folder = self.root / name
        try:
            try:
                collection = Collection.open(folder, writable=True, encoders=self.encoders)
                served = Served(name, "ready", collection, self._waiting)
            except (LockedError, StorageError) as error:
                log.warning("collection %s can only be searched: %s", name, error)
                collection = Collection.open(folder, encoders=self.encoders)
                served = Served(name, "read-only", collection, self._waiting, str(error))
        except GrapnelError as error:
            log.error("collection %s cannot be opened: %s", name, error)  # noqa: TRY400  the message says it all
            return Served(name, "failed", None, self._waiting, str(error))
        _load_encoders(collection)
        return served

    # -- looking up ---------------------------------------------------------------------------------------------

    def get(self, name: str) -> Served:
        """Return a collection by name or alias. Raises NotFoundError."""
        with self._lock:
            served = self._served.get(name) or self._served.get(self._aliases.get(name, ""))
        if served is None:
            raise NotFoundError(f"no collection {name[:80]!r}")
        return served

    def all(self) -> list[Served]:
        """Return all collections, by name."""
        with self._lock:
            return [self._served[name] for name in sorted(self._served)]

    def aliases(self) -> dict[str, str]:
        """Return alias -> collection, by alias."""
        with self._lock:
            return dict(sorted(self._aliases.items()))

    # -- changing -----------------------------------------------------------------------------------------------

    @contextmanager
    def making(self, name: str) -> Iterator[Path]:
        """Reserve `name` and yield a scratch folder; what is there when the block ends becomes the collection `name`.

        The collection appears whole or not at all. Raises ConflictError where the name is taken; once it is there,
        IndexFormatError or LockedError where it cannot be opened to be written to: then it is listed with its state,
        and nothing may count on it.
        """
        check_name(name)
        with self._lock:
            self._check_free(name)
            self._reserved.add(name)
        folder = self._scratch / f"{name}-{uuid.uuid4().hex}"
        try:
            yield folder
            with storage_errors("move", folder):
                folder.rename(self.root / name)
                fsync_folder(self.root)
            served = self._serve(name)
            if served is None:
                raise UnavailableError("the server is stopping; the collection is there when it starts again")
            served.check_writable()
        finally:
            with self._lock:
                self._reserved.discard(name)
            shutil.rmtree(folder, ignore_errors=True)

    def _check_free(self, name: str) -> None:
        if name in self._served or name in self._aliases or name in self._reserved or (self.root / name).exists():
            raise ConflictError(f"name {name!r} is taken: choose another, or delete what has it")

    def _check_alias(self, alias: str) -> None:
        if alias in self._served or alias in self._reserved:
            raise ConflictError(f"{alias!r} is a collection's own name: choose another alias")

    def check_free(self, name: str, alias: str | None = None) -> None:
        """Raise ConflictError where `making` would, or where `alias` could not mean what is made: before long work."""
        with self._lock:
            self._check_free(name)
            if alias is not None:
                self._check_alias(alias)
        if alias == name:
            raise ConflictError(f"{name!r} cannot be both a collection and its alias: choose another alias")

    def delete(self, name: str) -> None:
        """Remove a collection and the aliases that mean it. Raises NotFoundError, ConflictError on an alias."""
        check_name(name)
        with self._changing:
            with self._lock:
                if name in self._aliases:
                    raise ConflictError(
                        f"{name!r} is an alias of {self._aliases[name]!r}: delete the alias or that one"
                    )
                served = self._served.get(name)
                if served is None:
                    raise NotFoundError(f"no collection {name!r}")
                gone = {alias: target for alias, target in self._aliases.items() if target == name}
                left = {alias: target for alias, target in self._aliases.items() if target != name}
            if gone:
                self._write_aliases(left)
            with self._lock:
                del self._served[name]
        served.close()
        trash = self._scratch / f"{name}-{uuid.uuid4().hex}"
        try:
            with storage_errors("remove", self.root / name):
                (self.root / name).rename(trash)
                fsync_folder(self.root)
        except StorageError:
            if (self.root / name).exists():  # refused: it is served as before
                self._serve(name)
                with self._changing:
                    self._write_aliases({**self.aliases(), **gone})
            raise
        shutil.rmtree(trash, ignore_errors=True)  # what stays goes when a server starts

    def set_alias(self, alias: str, name: str) -> None:
        """Let `alias` mean the collection `name` from now on. Raises NotFoundError, ConflictError."""
        check_name(alias)
        with self._changing:
            with self._lock:
                self._check_alias(alias)
                if name not in self._served:
                    raise NotFoundError(f"no collection {name[:80]!r}: an alias means a collection's own name")
                self._reserved.add(alias)  # so that nobody makes a collection of this name meanwhile
                aliases = {**self._aliases, alias: name}
            try:
                self._write_aliases(aliases)
            finally:
                with self._lock:
                    self._reserved.discard(alias)

    def delete_alias(self, alias: str) -> None:
        """Forget an alias. Raises NotFoundError."""
        with self._changing:
            aliases = self.aliases()
            if aliases.pop(alias, None) is None:
                raise NotFoundError(f"no alias {alias[:80]!r}")
            self._write_aliases(aliases)

    def _write_aliases(self, aliases: dict[str, str]) -> None:
        """Put other aliases in the place of those there are; the caller holds `_changing`, and not `_lock`."""
        path = self._own / "aliases.json"
        write_json_atomic(path, {"format": FORMAT, "aliases": aliases}, point="aliases")
        with self._lock:
            self._aliases = aliases

    def _read_aliases(self) -> dict[str, str]:
        path = self._own / "aliases.json"
        if not path.exists():
            return {}
        try:
            value: Any = json.loads(path.read_bytes())
        except ValueError as error:
            raise IndexFormatError(f"{path} is not JSON: repair or remove it") from error
        if not isinstance(value, dict) or value.get("format") != FORMAT or not isinstance(value.get("aliases"), dict):
            raise IndexFormatError(f"{path} is not aliases of format {FORMAT}: repair or remove it")
        return {str(alias): str(name) for alias, name in value["aliases"].items()}

    def snapshots(self, name: str) -> Path:
        """Return the folder of a collection's snapshots, which need not exist."""
        return self._own / "snapshots" / name

    def close(self, timeout_s: float) -> None:
        """Close all collections and let go of the root; one that is being opened is closed by who opens it."""
        deadline = time.monotonic() + timeout_s
        with self._lock:
            self._closed = True
        for served in self.all():
            served.close(max(0.0, deadline - time.monotonic()))
            served.writes.close()
        self._let_go()


def _load_encoders(collection: Collection) -> None:
    """Load a collection's models, so that no search has to; where one cannot be loaded, the other fields still work."""
    vectors = collection.shard.vectors
    for field in collection.shard.encoded_fields():
        try:
            if vectors.load(field):
                vectors.encoder(field).encode_queries([Query("warm", "warm up")])
        except GrapnelError as error:
            log.error("field %s of %s cannot be searched: %s", field, collection.folder, error)  # noqa: TRY400  as above


def _tidy_snapshots(folder: Path) -> None:
    """Remove what a killed server was writing: an archive gets its name last."""
    with storage_errors("clean", folder):
        for path in [*folder.glob(".*.tmp"), *folder.glob("tmp*")]:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        for path in folder.glob("*.json"):
            if not path.with_suffix(".tar").exists():
                path.unlink()
