"""What is handed to compiled loops, by name instead of by position."""

from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

Int64: TypeAlias = npt.NDArray[np.int64]
Uint32: TypeAlias = npt.NDArray[np.uint32]


class Ranges(NamedTuple):
    """A state, taken apart. lows, highs: int64 (B,), rows [low, high) of each match. depths: int64 (B,), its length."""

    lows: Int64
    highs: Int64
    depths: Int64


class Slots(NamedTuple):
    """Where a loop writes the successors of each match, as many as it finds.

    places: int64 (B + 1,), where the room of each beam begins. codes, counts: uint32 (places[B],), ascending by code
    within a beam. found: int64 (B,), how many of a beam's places are used.
    """

    places: Int64
    codes: Uint32
    counts: Uint32
    found: Int64
