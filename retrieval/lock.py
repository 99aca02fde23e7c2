"""One writer per shard: an flock that the kernel drops when the process dies, however it dies."""

import fcntl
import json
import os
import socket
import sys
from datetime import UTC, datetime
from pathlib import Path

from index.durable import storage_errors
from index.errors import LockedError


class WriterLock:
    """Exclusive lock of a shard folder; the file says who holds it.

    Raises LockedError naming the holder when another process has it, StorageError when the folder is read-only.
    """

    def __init__(self, folder: Path) -> None:
        path = folder / "lock"
        with storage_errors("lock", path):
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.read(self._descriptor, 4096).decode("utf-8", "replace").strip() or "unknown"
            os.close(self._descriptor)
            raise LockedError(
                f"{folder} is being written by another process ({holder}): wait for it, or send the writes to it"
            ) from error
        about = {
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "since": datetime.now(UTC).isoformat(timespec="seconds"),
            "command": " ".join(sys.argv)[:200],
        }
        try:
            with storage_errors("lock", path):
                os.ftruncate(self._descriptor, 0)
                os.pwrite(self._descriptor, json.dumps(about).encode(), 0)
        except BaseException:
            os.close(self._descriptor)
            raise

    def release(self) -> None:
        """Let the next writer in."""
        os.close(self._descriptor)  # the note about the holder stays; without the lock it means nothing
