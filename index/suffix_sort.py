"""Sorting the suffixes of a text of codes; a suffix sorts before every longer one that begins with it."""

import importlib.util
import logging
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from index.alphabet import Codes
from index.kernels import kernel

log = logging.getLogger(__name__)

MOST_BYTES: Final = (1 << 31) - 1
"""divsufsort numbers bytes with 32 bits."""

Order = npt.NDArray[Any]
"""uint32 (n,): where each suffix begins, smallest suffix first."""


def code_bytes(largest: int) -> int:
    """Return how many bytes a code up to `largest` takes while it is sorted."""
    return max(1, (largest.bit_length() + 7) // 8)


def suffix_order(text: Codes, largest: int) -> Order:
    """Return where the suffixes of `text` begin, in their order, uint32 (n,).

    largest: no code is larger. A text holds at most MOST_BYTES // code_bytes(largest) codes.
    Cost: some .2 microseconds a code with pydivsufsort, 1 byte and 4 for every byte of a code (10 bytes with 16-bit
    codes) that stay taken as long as the answer is kept; without it `doubled`.
    """
    assert len(text) * code_bytes(largest) <= MOST_BYTES, "shards are cut so that their text can be sorted"
    if importlib.util.find_spec("pydivsufsort") is None:
        log.warning("suffixes are sorted by numpy, slower and with 40 bytes a code: install grapnel[substring]")
        return doubled(text)
    return _sorted_bytes(text, code_bytes(largest))


def _sorted_bytes(text: Codes, width: int) -> Order:
    """Sort the suffixes of the codes' bytes, most significant first, and keep those that begin a code."""
    from pydivsufsort import divsufsort  # noqa: PLC0415  optional: without it numpy sorts

    if not len(text):
        return np.empty(0, np.uint32)
    # Byte by byte: the whole text at four bytes a code would cost more than the sort's input.
    octets = np.empty((len(text), width), np.uint8)
    for place in range(width):
        octets[:, place] = text >> (8 * (width - 1 - place))
    order: npt.NDArray[np.int32] = divsufsort(octets.ravel())
    del octets
    _keep_multiples(order, width)
    return order[: len(text)].view(np.uint32)


@kernel
def _keep_multiples(order: Any, width: Any) -> None:
    kept = 0
    for number in range(len(order)):
        if order[number] % width == 0:
            order[kept] = order[number] // width
            kept += 1


def doubled(text: Codes) -> Order:
    """Return the same as `suffix_order`, with numpy alone: prefix doubling.

    Cost: a sort of n numbers for every doubling of the longest repeat, 40 bytes a code.
    Source: Manber & Myers, SIAM J. Comput. 1993.
    """
    n = len(text)
    ranks = text.astype(np.int64) + 1
    order = np.empty(0, np.int64)
    length = 1
    while n:
        keys = ranks * (int(ranks.max()) + 1)
        keys[: max(0, n - length)] += ranks[length:]  # beyond the end is 0: shorter sorts first
        order = np.argsort(keys, kind="stable")
        ascending = keys[order]
        numbers = np.cumsum(np.concatenate([[1], ascending[1:] != ascending[:-1]]))
        ranks[order] = numbers
        if numbers[-1] == n:
            break
        length *= 2
    return order.astype(np.uint32)
