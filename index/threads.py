"""How many threads one call of a model or an index may use: one setting for the process, read from the environment."""

import os

from index.errors import ConfigError

VARIABLE = "GRAPNEL_THREADS"


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


def sleep_between_calls() -> None:
    """Let the threads of BLAS and OpenMP sleep, not spin, while there is nothing for them to do.

    Spinning saves microseconds where a process has the machine to itself; a server's other threads, and its clients on
    the same cores, wait for it (docs/log.md). Must be called before numpy, torch or faiss is loaded; what the
    environment sets already stays.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("OPENBLAS_THREAD_TIMEOUT", "4")
