"""What the machine needs for the reads alone of a substring index's calls: the bounds their times are compared with.

Compiled loops without a branch on what they read, so that the reads overlap as far as the machine lets them.
"""

from collections.abc import Callable
from typing import Any

import numba
import numpy as np
import numpy.typing as npt
from report import times_ms

from index.fm_index import FMIndex
from index.suffix_array import SuffixArray
from index.types import Continuations, State

READS = 1 << 20
LINE_WORDS = 8


@numba.njit(nogil=True)
def _row_reads(text: Any, suffixes: Any, lows: Any, highs: Any, depths: Any) -> Any:
    total = 0
    for beam in range(len(lows)):
        depth = np.uint64(depths[beam])
        for row in range(np.uint64(lows[beam]), np.uint64(highs[beam])):
            total += text[suffixes[row] + depth]
    return total


@numba.njit(nogil=True)
def _line_reads(words: Any, lines: Any) -> Any:
    total = np.uint64(0)
    for index in range(np.uint64(len(lines))):
        total += words[lines[index] * np.uint64(LINE_WORDS)]
    return total


@numba.njit(nogil=True)
def _chain(words: Any, lines: Any, nothing: Any) -> Any:
    """Read lines, each only when the one before it has arrived. nothing: 0, which the compiler does not know."""
    total = np.uint64(0)
    for index in range(np.uint64(len(lines))):
        total = words[(lines[index] + (total & nothing)) * np.uint64(LINE_WORDS)]
    return total


def rows_ms(index: SuffixArray, state: State) -> float:
    """Return the milliseconds to read the code behind every row of some matches, one thread; places in 32 bits each."""
    suffixes = index.places()
    lows, highs, depths = state[:, 0, 0].copy(), state[:, 0, 1].copy(), state[:, 0, 2] & 0xFFFFFFFF
    return _median(lambda: _row_reads(index.array.text, suffixes, lows, highs, depths))


def nodes(index: FMIndex, answer: Continuations) -> int:
    """Return how many nodes lead to an answer: of each level, the distinct beginnings of codes of each beam."""
    codes = index.tables.alphabet.encode(answer.tokens)
    owners = np.repeat(np.arange(len(answer.offsets) - 1), np.diff(answer.offsets)) << 32
    levels = len(index.matrix[1])
    return sum(1 + int(np.count_nonzero(np.diff(owners | codes >> shift))) for shift in range(1, levels + 1))


def line_ns(words: npt.NDArray[np.uint64]) -> dict[str, float]:
    """Return the nanoseconds to read a random cache line of an array: among others, and after another."""
    lines = np.random.default_rng(0).integers(0, len(words) // LINE_WORDS, READS).astype(np.uint64)
    return {
        "overlapping": 1e6 * _median(lambda: _line_reads(words, lines)) / READS,
        "after another": 1e6 * _median(lambda: _chain(words, lines, np.uint64(0))) / READS,
    }


def _median(call: Callable[[], object]) -> float:
    return times_ms(lambda _: call(), 7, warm=2)["p50"]
