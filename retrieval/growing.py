"""An array that grows at the end while earlier readers keep what they saw."""

from typing import Generic, TypeVar

import numpy as np
import numpy.typing as npt

S = TypeVar("S", bound=np.generic)


class Growing(Generic[S]):
    """Append-only rows of one shape and dtype; growth doubles the capacity.

    A slice handed out by `view` never changes: later appends write behind it or into a new buffer.
    """

    def __init__(self, shape: tuple[int, ...], dtype: type[S]) -> None:
        self._buffer: npt.NDArray[S] = np.empty((64, *shape), dtype)
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def extend(self, values: npt.NDArray[S]) -> None:
        """Append rows. Amortised cost: one copy each."""
        needed = self._length + len(values)
        if needed > len(self._buffer):
            grown = np.empty((max(needed, 2 * len(self._buffer)), *self._buffer.shape[1:]), self._buffer.dtype)
            grown[: self._length] = self._buffer[: self._length]
            self._buffer = grown
        self._buffer[self._length : needed] = values
        self._length = needed

    def view(self) -> npt.NDArray[S]:
        """Return everything so far."""
        return self._buffer[: self._length]
