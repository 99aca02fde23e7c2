"""Matrix products of large arrays, one at a time in a process.

OpenBLAS shares one pool of threads between all callers, and callers that meet there spin: 32 threads which each
searched 7,233 x 384 vectors reached 20 searches a second together, where a single one reached 1,200 (measured on two
cores). Each product uses every core by itself, so waiting for one's turn costs nothing.
"""

import os
import threading

import numpy as np
import numpy.typing as npt

_turn = threading.Lock()


def product(left: npt.NDArray[np.float32], right: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return `left @ right`, float32."""
    with _turn:
        result: npt.NDArray[np.float32] = left @ right
    return result


def _forget_turn() -> None:
    global _turn  # noqa: PLW0603  a forked child has none of the threads that may have held it
    _turn = threading.Lock()


os.register_at_fork(after_in_child=_forget_turn)
