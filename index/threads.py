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
