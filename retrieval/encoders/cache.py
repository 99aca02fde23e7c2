"""What is made once per machine and kept: exported models, measured choices."""

import atexit
import contextlib
import errno
import fcntl
import functools
import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from index.component import Component, open_component, write_component
from index.durable import make_folders, storage_errors
from index.errors import IndexFormatError, StorageError

_log = logging.getLogger(__name__)


def cache_folder() -> Path:
    """Return $GRAPNEL_CACHE, else $XDG_CACHE_HOME/grapnel, else ~/.cache/grapnel; it may not exist yet."""
    own = os.environ.get("GRAPNEL_CACHE")
    if own:
        return Path(own).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "grapnel"


def writable_cache(folder: Path) -> Path:
    """Return `folder`, made if need be, or a temporary folder of this process where it cannot be written."""
    try:
        make_folders(folder)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except StorageError as error:
        return _private_folder(folder, str(error))
    except OSError as error:
        return _private_folder(folder, os.strerror(error.errno or errno.EIO))


@functools.cache
def _private_folder(folder: Path, why: str) -> Path:
    temporary = Path(tempfile.mkdtemp(prefix="grapnel-cache-"))
    atexit.register(shutil.rmtree, temporary, ignore_errors=True)
    _log.warning(
        "the cache folder %s cannot be written (%s): this process works in %s and repeats the work next time; "
        "set GRAPNEL_CACHE to a folder that can be written",
        folder,
        why,
        temporary,
    )
    return temporary


@contextlib.contextmanager
def exclusive(folder: Path, name: str) -> Iterator[None]:
    """Let one thread of one process at a time do what `name` says; the kernel frees it when the process dies."""
    path = folder / f".{name}.lock"
    with storage_errors("lock", path):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        with storage_errors("lock", path):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def cached_component(
    name: str, kind: str, config: Mapping[str, Any], fill: Callable[[Path], Mapping[str, int]]
) -> Component:
    """Return the verified component `name` of the cache, made by `fill` when missing, partial or damaged.

    config: what it must be made from. fill(folder) writes its files and returns counts; it runs in one process at a
    time. Where the cache cannot be written, it is made in a temporary folder. Raises StorageError on a full disk.
    """
    folder = cache_folder()
    with contextlib.suppress(IndexFormatError, StorageError):
        return _opened(folder / name, kind, config)
    folder = writable_cache(folder)
    with exclusive(folder, name):
        try:
            return _opened(folder / name, kind, config)  # another process may have made it meanwhile
        except (IndexFormatError, StorageError) as error:
            if (folder / name).exists():
                _log.warning("made again: %s", error)
        for leftover in (folder / name, *folder.glob(f".{name}.*.tmp")):
            shutil.rmtree(leftover, ignore_errors=True)
        return write_component(folder / name, kind, config, fill)


def _opened(folder: Path, kind: str, config: Mapping[str, Any]) -> Component:
    component = open_component(folder, kind=kind)
    if dict(component.config) != dict(config):
        raise IndexFormatError(f"component {folder} is made from {component.config}, expected {config}")
    return component
