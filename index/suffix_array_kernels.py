"""Compiled loops over a suffix array: the runs of next codes in a range of rows, and the search for one code.

Its places are packed: `bits` bits each, from the lowest bit of the first byte on, and 8 bytes behind the last so that a
word may be read at each.
"""

from typing import Any, Final

import numpy as np

from index.kernels import kernel, word_at

_BLOCK: Final = 256
"""Rows read before they are compared: reads that do not wait for each other are an order faster than a search."""


@kernel
def pack(places: Any, bits: Any, packed: Any) -> None:
    """Write places, uint32 (n,), packed. packed: uint8 of at least n * bits / 8, rounded up; n of 8s but at the end."""
    word = np.uint64(0)
    ready = np.uint64(0)
    out = 0
    for row in range(len(places)):
        word |= np.uint64(places[row]) << ready
        ready += np.uint64(bits)
        while ready >= np.uint64(8):
            packed[out] = word & np.uint64(255)
            out += 1
            word >>= np.uint64(8)
            ready -= np.uint64(8)
    if ready > np.uint64(0):
        packed[out] = word & np.uint64(255)


@kernel
def unpack(array: Any, ranges: Any, bounds: Any, places: Any) -> None:
    """Write the places of the first rows of each match of a token from bounds[b] to bounds[b + 1]. places: uint32."""
    for beam in range(len(ranges.lows)):
        if ranges.depths[beam] == 0:
            continue
        row = np.uint64(ranges.lows[beam])
        for entry in range(np.uint64(bounds[beam]), np.uint64(bounds[beam + 1])):
            places[entry] = _place(array.packed, array.bits, row)
            row += np.uint64(1)


@kernel
def _place(packed: Any, bits: Any, row: Any) -> Any:
    # At most 31 bits begin at most 7 bits into a byte: they lie within the word.
    first = np.uint64(row) * np.uint64(bits)
    word = word_at(packed, first >> np.uint64(3)) >> (first & np.uint64(7))
    return np.int64(word & ((np.uint64(1) << np.uint64(bits)) - np.uint64(1)))


@kernel
def _behind(array: Any, row: Any, depth: Any) -> Any:
    """Return the place behind the match of a row; at most the last of the text, whatever a state says."""
    return min(_place(array.packed, array.bits, row) + depth, len(array.text) - 1)


@kernel
def _next(array: Any, row: Any, depth: Any) -> Any:
    """Return the code behind the match of a row."""
    return array.text[np.uint64(_behind(array, row, depth))]


@kernel
def _read(array: Any, row: Any, depth: Any, places: Any, codes: Any) -> None:
    """Write the codes behind the matches of rows from `row` on. places: uint64 (n,), for as many rows; overwritten."""
    for index in range(np.uint64(len(places))):
        places[index] = _behind(array, np.uint64(row) + index, depth)
    # Nothing but reads of the text: the fewer instructions lie between them, the more of them overlap.
    for index in range(np.uint64(len(places))):
        codes[index] = array.text[places[index]]


@kernel
def _lower(array: Any, low: Any, high: Any, depth: Any, code: Any) -> Any:
    """Return the first row in [low, high) whose next code is at least `code`, or high."""
    while low < high:
        middle = (low + high) >> 1
        if _next(array, middle, depth) < code:
            low = middle + 1
        else:
            high = middle
    return low


@kernel
def _run_end(array: Any, low: Any, high: Any, depth: Any, code: Any) -> Any:
    """Return the first row in [low, high) whose next code is above `code`, or high: near ones are found sooner."""
    step = 1
    while low + step < high and _next(array, low + step, depth) <= code:
        low += step
        step *= 2
    return _lower(array, low, min(low + step, high), depth, code + 1)


@kernel
def narrow(array: Any, firsts: Any, ranges: Any, codes: Any, new: Any, first: int, last: int) -> None:
    """Write the rows of beams [first, last) whose next code is codes[b]. Cost: some log2(rows) random reads."""
    new_lows, new_highs = new
    for beam in range(first, last):
        high, depth, code = ranges.highs[beam], ranges.depths[beam], codes[beam]
        if depth == 0 and ranges.lows[beam] < high:
            new_lows[beam], new_highs[beam] = firsts[code], firsts[code + 1]
            continue
        low = _lower(array, ranges.lows[beam], high, depth, code)
        new_lows[beam] = low
        new_highs[beam] = _run_end(array, low, high, depth, code)


@kernel
def successors(array: Any, firsts: Any, wide: Any, ranges: Any, slots: Any, first: int, last: int) -> None:
    """Write the codes that follow beams [first, last) and their counts from places[b] on, and how many to found[b].

    Cost: a random read a row, but long runs are skipped: with d successors of w rows, at most some d (256 + 2 log2(w)).
    """
    codes, counts = slots.codes, slots.counts
    one = np.uint64(1)
    # Places are unsigned, because signed ones are first looked at for counting from the end: three times the time.
    places = np.empty(_BLOCK, np.uint64)
    block = np.empty(_BLOCK + 1, np.uint32)
    for beam in range(first, last):
        row, high, depth = ranges.lows[beam], ranges.highs[beam], ranges.depths[beam]
        if depth == 0 or row == high:
            continue
        begin = place = np.uint64(slots.places[beam])
        # Rows that were not sorted for this depth, of a state made by hand, have more runs than there is room for.
        end = np.uint64(slots.places[beam + 1]) - one
        if depth == 1:
            code = _next(array, row, 0)
            known = _wide_entry(wide.codes, code)
            if known >= 0 and firsts[code] == row and firsts[code + 1] == high:
                for entry in range(wide.offsets[known], wide.offsets[known + 1]):
                    codes[place] = wide.next[entry]
                    counts[place] = wide.counts[entry]
                    place += one
                slots.found[beam] = place - begin
                continue
        # Ends of documents come first: the run of separators, which begins nothing.
        block[0] = 0
        while row < high:
            stop = min(row + _BLOCK, high)
            size = np.uint64(stop - row)
            _read(array, row, depth, places[:size], block[one:])
            before = place
            for index in range(size):
                # Where its run begins is written of every row, and stays of the first: no branch to mispredict.
                code = block[index + one]
                codes[place] = code
                counts[place] = np.uint64(row) + index
                place = min(place + np.uint64(code != block[index]), end)
            block[0] = block[size]
            row = stop
            if place == before and row < high:
                row = _run_end(array, row - 1, high, depth, np.int64(block[0]))
        slots.found[beam] = place - begin
        if place > begin:
            for entry in range(begin, place - one):
                counts[entry] = counts[entry + one] - counts[entry]
            counts[place - one] = high - counts[place - one]


@kernel
def _wide_entry(codes: Any, code: Any) -> Any:
    """Return where `code` stands among the ascending codes, or -1."""
    place = np.searchsorted(codes, code)
    return place if place < len(codes) and codes[place] == code else -1
