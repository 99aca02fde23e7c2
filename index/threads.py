"""How many threads one call may use; the threads of compiled loops; how a server's threads wait and share memory."""

import ctypes
import functools
import os
from concurrent.futures import ThreadPoolExecutor

from index.errors import ConfigError

VARIABLE = "GRAPNEL_THREADS"

_M_ARENA_MAX = -8  # of glibc's malloc.h
_ARENAS = 2


def threads() -> int | None:
    """Return the value of GRAPNEL_THREADS, None where it is not set: the libraries then use every core.

    Raises ConfigError when it is not a whole number of at least 1.
    """
    value = os.environ.get(VARIABLE)
    if not value:
        return None
    if not value.isdecimal() or int(value) < 1:
        raise ConfigError(f"{VARIABLE} is {value!r}, expected a whole number of at least 1")
    return int(value)


@functools.cache
def helpers() -> ThreadPoolExecutor:
    """Return the threads that compiled loops share: to start one costs as much as a small call."""
    return ThreadPoolExecutor(os.cpu_count() or 1, "grapnel-kernels")


# A child has none of its parent's threads.
os.register_at_fork(after_in_child=helpers.cache_clear)


def end_helpers() -> None:
    """Let the threads of `helpers` end as soon as they have nothing to do; a call that comes later starts others."""
    helpers().shutdown(wait=False)
    helpers.cache_clear()


def sleep_between_calls() -> None:
    """Let the threads of BLAS and OpenMP sleep, not spin, while there is nothing for them to do.

    Spinning saves microseconds where a process has the machine to itself; a server's other threads, and its clients on
    the same cores, wait for it (docs/log.md). Must be called before numpy, torch or faiss is loaded; what the
    environment sets already stays.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("OPENBLAS_THREAD_TIMEOUT", "4")


def share_memory_pools() -> None:
    """Let glibc's malloc keep two pools of memory for all threads, not eight for each core.

    Each pool keeps what was once freed in it: with more, a collection that is written to held twice the memory and was
    no faster (docs/log.md). Must be called before threads are started. What the environment sets stays; without glibc
    nothing is done.
    """
    if "MALLOC_ARENA_MAX" not in os.environ and (mallopt := getattr(ctypes.CDLL(None), "mallopt", None)) is not None:
        mallopt(_M_ARENA_MAX, _ARENAS)
