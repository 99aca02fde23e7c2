"""Places for tests that write a lot."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

MEMORY = Path("/dev/shm")  # noqa: S108  Linux's shared memory: only a faster place, used where it is there


@pytest.fixture
def memory_path(tmp_path: Path) -> Iterator[Path]:
    """A temporary folder in memory, where hundreds of fsyncs cost nothing; `tmp_path` where there is no such place.

    For faults that do not depend on the disk: a process that is killed loses nothing that was only written.
    """
    if not os.access(MEMORY, os.W_OK):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir=MEMORY, prefix="grapnel-test-") as folder:
        yield Path(folder)
