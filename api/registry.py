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
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, TypeAlias

from api.searching import Searches
from index.durable import fsync_folder, make_folders, remove_leftovers, storage_errors, write_json_atomic
from index.errors import (
    ConflictError,
    GrapnelError,
    IndexFormatError,
    LockedError,
    NotFoundError,
    RequestError,
    StorageError,
)
from retrieval.collection import Collection
from retrieval.collection_config import FILE as COLLECTION_FILE
from retrieval.field_vectors import Encoders
from retrieval.lock import WriterLock

log = logging.getLogger(__name__)

NAME = re.compile(r"[a-z0-9_-]{1,64}")
FORMAT = 1

State: TypeAlias = Literal["ready", "read-only", "failed"]
"""read-only: another process writes, or the file system refuses. failed: it could not be opened."""

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
    """

    def __init__(self, name: str, state: State, collection: Collection | None, queue: int, error: str = "") -> None:
        self.name = name
        self.state: State = state
        self.error = error
        self._collection = collection
        self.searches = None if collection is None else Searches(collection, queue)
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


class Registry:
    """All collections under `root`. queue: searches that may wait for each.

    Raises LockedError when another server serves the same root. On a read-only file system what is there can be
    searched, and changes raise StorageError. Thread-safe.
    """

    def __init__(self, root: Path, encoders: Encoders, *, queue: int) -> None:
        self.root = root
        self.encoders = encoders
        self._queue = queue
        self._own = root / ".grapnel"
        self._scratch = self._own / "scratch"
        self._served: dict[str, Served] = {}
        self._aliases: dict[str, str] = {}
        self._reserved: set[str] = set()
        self._lock = threading.Lock()
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
            served = self._open(name)
            with self._lock:
                self._served[name] = served

    def _open(self, name: str) -> Served:
        folder = self.root / name
        try:
            try:
                collection = Collection.open(folder, writable=True, encoders=self.encoders)
                return Served(name, "ready", collection, self._queue)
            except (LockedError, StorageError) as error:
                log.warning("collection %s can only be searched: %s", name, error)
                collection = Collection.open(folder, encoders=self.encoders)
                return Served(name, "read-only", collection, self._queue, str(error))
        except GrapnelError as error:
            log.error("collection %s cannot be opened: %s", name, error)  # noqa: TRY400  the message says it all
            return Served(name, "failed", None, self._queue, str(error))

    # -- looking up ---------------------------------------------------------------------------------------------

    def resolve(self, name: str) -> str:
        """Return the collection's own name that a name or alias means. Raises NotFoundError."""
        with self._lock:
            own = name if name in self._served else self._aliases.get(name, "")
            if own not in self._served:
                raise NotFoundError(f"no collection {name[:80]!r}")
            return own

    def get(self, name: str) -> Served:
        """Return a collection by name or alias. Raises NotFoundError."""
        own = self.resolve(name)
        with self._lock:
            served = self._served.get(own)
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

        The collection appears whole or not at all. Raises ConflictError where the name is taken.
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
            served = self._open(name)
            with self._lock:
                self._served[name] = served
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
        with self._lock:
            if name in self._aliases:
                raise ConflictError(f"{name!r} is an alias of {self._aliases[name]!r}: delete the alias or that one")
            served = self._served.get(name)
            if served is None:
                raise NotFoundError(f"no collection {name!r}")
            left = {alias: target for alias, target in self._aliases.items() if target != name}
            if left != self._aliases:
                self._write_aliases(left)
            del self._served[name]
        served.close()
        trash = self._scratch / f"{name}-{uuid.uuid4().hex}"
        try:
            with storage_errors("remove", self.root / name):
                (self.root / name).rename(trash)
                fsync_folder(self.root)
        except StorageError:
            if (self.root / name).exists():  # refused: it is served as before
                served = self._open(name)
                with self._lock:
                    self._served[name] = served
            raise
        shutil.rmtree(trash, ignore_errors=True)  # what stays goes when a server starts

    def set_alias(self, alias: str, name: str) -> None:
        """Let `alias` mean the collection `name` from now on. Raises NotFoundError, ConflictError."""
        check_name(alias)
        with self._lock:
            self._check_alias(alias)
            if name not in self._served:
                raise NotFoundError(f"no collection {name[:80]!r}: an alias means a collection's own name")
            self._write_aliases({**self._aliases, alias: name})

    def delete_alias(self, alias: str) -> None:
        """Forget an alias. Raises NotFoundError."""
        with self._lock:
            if alias not in self._aliases:
                raise NotFoundError(f"no alias {alias[:80]!r}")
            self._write_aliases({key: value for key, value in self._aliases.items() if key != alias})

    def _write_aliases(self, aliases: Mapping[str, str]) -> None:
        path = self._own / "aliases.json"
        write_json_atomic(path, {"format": FORMAT, "aliases": dict(aliases)}, point="aliases")
        self._aliases = dict(aliases)

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
        """Close all collections and let go of the root."""
        deadline = time.monotonic() + timeout_s
        for served in self.all():
            served.close(max(0.0, deadline - time.monotonic()))
        self._let_go()


def _tidy_snapshots(folder: Path) -> None:
    """Remove what a killed server was writing: an archive counts once its description is there."""
    with storage_errors("clean", folder):
        for path in [*folder.glob(".*.tmp"), *folder.glob("tmp*")]:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        for path in folder.glob("*.tar"):
            if not path.with_suffix(".json").exists():
                path.unlink()
