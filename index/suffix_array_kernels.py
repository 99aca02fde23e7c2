"""Compiled loops over a suffix array: the runs of next codes in a range of rows, and the search for one code."""

from typing import Any, Final

import numpy as np

from index.kernels import kernel

_BLOCK: Final = 256
"""Rows read before they are compared: reads that do not wait for each other are an order faster than a search."""


@kernel
def _next(text: Any, suffixes: Any, row: Any, depth: Any) -> Any:
    """Return the code behind the match of a row; at most the last of the text, whatever a state says."""
    return text[np.uint64(min(np.int64(suffixes[row]) + depth, len(text) - 1))]


@kernel
def _lower(text: Any, suffixes: Any, low: Any, high: Any, depth: Any, code: Any) -> Any:
    """Return the first row in [low, high) whose next code is at least `code`, or high."""
    while low < high:
        middle = (low + high) >> 1
        if _next(text, suffixes, middle, depth) < code:
            low = middle + 1
        else:
            high = middle
    return low


@kernel
def _run_end(text: Any, suffixes: Any, low: Any, high: Any, depth: Any, code: Any) -> Any:
    """Return the first row in [low, high) whose next code is above `code`, or high: near ones are found sooner."""
    step = 1
    while low + step < high and _next(text, suffixes, low + step, depth) <= code:
        low += step
        step *= 2
    return _lower(text, suffixes, low, min(low + step, high), depth, code + 1)


@kernel
def narrow(array: Any, firsts: Any, ranges: Any, codes: Any, new: Any, first: int, last: int) -> None:
    """Write the rows of beams [first, last) whose next code is codes[b]. Cost: some log2(rows) random reads."""
    text, suffixes = array
    new_lows, new_highs = new
    for beam in range(first, last):
        high, depth, code = ranges.highs[beam], ranges.depths[beam], codes[beam]
        if depth == 0 and ranges.lows[beam] < high:
            new_lows[beam], new_highs[beam] = firsts[code], firsts[code + 1]
            continue
        low = _lower(text, suffixes, ranges.lows[beam], high, depth, code)
        new_lows[beam] = low
        new_highs[beam] = _run_end(text, suffixes, low, high, depth, code)


@kernel
def successors(array: Any, firsts: Any, wide: Any, ranges: Any, slots: Any, first: int, last: int) -> None:
    """Write the codes that follow beams [first, last) and their counts from places[b] on, and how many to found[b].

    Cost: a random read a row, but long runs are skipped: with d successors of w rows, at most some d (256 + 2 log2(w)).
    """
    text, suffixes = array
    codes, counts = slots.codes, slots.counts
    one = np.uint64(1)
    # Places are unsigned, because signed ones are first looked at for counting from the end: three times the time.
    block = np.empty(_BLOCK + 1, np.uint32)
    for beam in range(first, last):
        row, high, depth = ranges.lows[beam], ranges.highs[beam], ranges.depths[beam]
        if depth == 0 or row == high:
            continue
        begin = place = np.uint64(slots.places[beam])
        # Rows that were not sorted for this depth, of a state made by hand, have more runs than there is room for.
        end = np.uint64(slots.places[beam + 1]) - one
        if depth == 1:
            code = _next(text, suffixes, row, 0)
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
            for index in range(size):
                block[index + one] = _next(text, suffixes, np.uint64(row) + index, depth)
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
                row = _run_end(text, suffixes, row - 1, high, depth, np.int64(block[0]))
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
