"""Crash-safe file operations: what is published survives a kill, and power loss after the fsync.

The order is always: write, fsync the file, rename into place, fsync the folder. `failpoint` names the steps in
between, so that tests can kill the process at each one.
"""

import errno
import json
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from index.errors import StorageError

_FAILPOINT = "GRAPNEL_FAILPOINT"
"""Environment variable: `name` or `name:count`; the process kills itself the count-th time it passes that point."""

_passed = 0


def failpoint(name: str) -> None:
    """Kill this process with SIGKILL if the environment asks for it at `name`; otherwise do nothing."""
    wanted = os.environ.get(_FAILPOINT)
    if wanted is None:
        return
    point, _, count = wanted.partition(":")
    if point != name:
        return
    global _passed  # noqa: PLW0603  a process-wide count is what "the third time" means
    _passed += 1
    if _passed >= int(count or 1):
        os.kill(os.getpid(), signal.SIGKILL)


@contextmanager
def storage_errors(action: str, path: Path) -> Iterator[None]:
    """Turn OSError into StorageError that says what was attempted, where, and what to do."""
    try:
        yield
    except OSError as error:
        remedy = {
            errno.ENOSPC: "free disk space and repeat; what was acknowledged before is intact",
            errno.EDQUOT: "raise the quota and repeat; what was acknowledged before is intact",
            errno.EROFS: "the file system is read-only: write to a copy elsewhere",
            errno.EACCES: "check the folder's owner and permissions",
            errno.EPERM: "check the folder's owner and permissions",
            errno.EIO: "the disk reports an I/O error: check it, then run `grapnel verify`",
        }.get(error.errno or 0, "check the path and the disk")
        raise StorageError(f"cannot {action} {path}: {os.strerror(error.errno or errno.EIO)}; {remedy}") from error


def fsync_folder(folder: Path) -> None:
    """Make renames and new files in `folder` durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_folders(folder: Path) -> None:
    """Create a folder and its missing parents, durably. Raises StorageError."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    with storage_errors("create", folder):
        folder.mkdir(parents=True, exist_ok=True)
        for path in missing:
            fsync_folder(path.parent)


def fsync_file(path: Path) -> None:
    """Make the content of `path` durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def fsync_tree(folder: Path) -> None:
    """Make every file and folder below `folder`, and `folder` itself, durable."""
    for root, _, files in os.walk(folder):
        for name in files:
            fsync_file(Path(root) / name)
        fsync_folder(Path(root))


@contextmanager
def replaced(path: Path, *, point: str) -> Iterator[BinaryIO]:
    """Yield a file to write; once the block has ended, its content takes the place of `path`, durably.

    A reader or a crash sees the old bytes or the new ones, never a mixture. Where the block raises, the old file stays.
    point: prefix of the failpoints passed: `<point>.written`, `<point>.replaced`.
    Raises StorageError when the file system refuses, what the block itself does to other files included.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with storage_errors("write", path):
        try:
            with temporary.open("wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            failpoint(f"{point}.written")
            os.replace(temporary, path)  # noqa: PTH105  the atomic call itself, by its usual name
            failpoint(f"{point}.replaced")
            fsync_folder(path.parent)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


def write_atomic(path: Path, content: bytes, *, point: str) -> None:
    """Replace the content of `path`, all at once or not at all: `replaced` with these bytes."""
    with replaced(path, point=point) as file:
        file.write(content)


def remove_leftovers(folder: Path, pattern: str) -> None:
    """Remove temporary files that `write_atomic` left in `folder` when its process was killed; those in use stay."""
    with storage_errors("clean", folder):
        for path in folder.glob(pattern):
            pid = path.name.split(".")[-2]
            if pid.isdigit() and not Path(f"/proc/{pid}").exists():
                path.unlink(missing_ok=True)


def write_json_atomic(path: Path, value: Any, *, point: str) -> None:
    """`write_atomic` of canonical, human-readable JSON."""
    text = json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False)
    write_atomic(path, (text + "\n").encode(), point=point)


def publish_folder(final: Path, fill: Callable[[Path], None], *, point: str) -> None:
    """Create `final` with the content that `fill(temporary folder)` writes, all at once or not at all.

    point: prefix of the failpoints passed: `<point>.filled`, `<point>.synced`, `<point>.renamed`.
    Raises StorageError when the file system refuses; the temporary folder is removed then.
    """
    import shutil  # noqa: PLC0415  only this function needs it

    temporary = final.with_name(f".{final.name}.{os.getpid()}.tmp")
    with storage_errors("write", final):
        try:
            temporary.mkdir()
            fill(temporary)
            failpoint(f"{point}.filled")
            fsync_tree(temporary)
            failpoint(f"{point}.synced")
            temporary.rename(final)
            failpoint(f"{point}.renamed")
            fsync_folder(final.parent)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
