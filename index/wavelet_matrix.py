"""A wavelet matrix of codes, most significant bit first: how often each code occurs before a row.

A level keeps one bit of every code and passes the codes on, those with a zero before those with a one, else in order.
After the last level they are sorted, as by a radix sort, by their bits read backwards. So is the text that it is
made for (see `backwards`): code c, the i-th of its kind, arrives at the row where the i-th suffix that begins with c
stands, which is where a backward search and the next step through the text go on. No table of the levels' nodes is
needed, and codes are still told apart by their highest bit first: the frequent tokens of a vocabulary, its low ones,
stay together, so that fewer nodes are visited.

A level is an array of 64-byte blocks, one cache line each: 32 bits that count the ones of the level before the block,
then 480 bits of the level. Rows: int64. levels: uint64 (L, blocks, 8), flattened.

Source: Claude, Navarro & Ordonez, "The wavelet matrix", Information Systems 2015; the order of the bits is ours.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from index.alphabet import Codes
from index.wavelet_kernels import BITS, WORDS, fill_level, read_level


def level_words(codes: int) -> int:
    """Return how many words a level of so many codes takes: also the row behind the last has a block."""
    return (codes // BITS + 1) * WORDS


def backwards(codes: Codes, levels: int) -> Codes:
    """Return codes with their lowest `levels` bits in backward order, the dtype kept."""
    values: npt.NDArray[np.uint32] = codes.astype(np.uint32)
    for shift, mask in ((1, 0x55555555), (2, 0x33333333), (4, 0x0F0F0F0F), (8, 0x00FF00FF), (16, 0x0000FFFF)):
        values = (values >> np.uint32(shift) & np.uint32(mask)) | (values & np.uint32(mask)) << np.uint32(shift)
    return (values >> np.uint32(32 - levels)).astype(codes.dtype)


def write_levels(codes: Codes, levels: int) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.int64]]:
    """Return the levels, uint64 (L * words,), and the number of zeros of each, int64 (L,). codes is used up.

    Memory: the levels, and the codes twice.
    """
    size = level_words(len(codes))
    words = np.zeros(levels * size, np.uint64)
    zeros = np.zeros(levels, np.int64)
    passed = np.empty_like(codes)
    for level in range(levels):
        zeros[level] = fill_level(codes, levels - 1 - level, words[level * size : (level + 1) * size], passed)
        codes, passed = passed, codes
    return words, zeros


def read_levels(
    words: npt.NDArray[np.uint64], zeros: npt.NDArray[np.int64], firsts: npt.NDArray[np.uint32], dtype: np.dtype[Any]
) -> Codes:
    """Return the codes that `write_levels` wrote, of `dtype`.

    firsts: uint32 (S + 2,), how many codes are below each. Memory: the codes twice.
    """
    levels = len(zeros)
    size = len(words) // levels
    counts = np.diff(firsts)
    # Behind the last level they are sorted by their bits read backwards.
    order = np.argsort(backwards(np.arange(len(counts), dtype=np.uint32), levels))
    codes = np.repeat(order.astype(dtype), counts[order])
    for level in reversed(range(levels)):
        before = np.empty_like(codes)
        read_level(words[level * size : (level + 1) * size], zeros[level], codes, before)
        codes = before
    return codes
