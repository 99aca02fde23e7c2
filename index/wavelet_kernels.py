"""Compiled loops over a wavelet matrix; see index.wavelet_matrix for what it is."""

from typing import Any, Final

import numpy as np

from index.kernels import kernel, popcount

BITS: Final = 480
"""Bits of a level in a block."""

WORDS: Final = 8
"""Words of a block: a cache line."""

_MASKS: Final = np.array([(1 << 64) - 1] * (WORDS - 1) + [0] * (WORDS - 1), np.uint64)
"""WORDS - 1 of them, from place WORDS - 1 - w on, keep the words of a block before word w."""

_ABREAST: Final = 64
"""Rows that are located together, nodes that are looked at together: their reads overlap."""


@kernel
def fill_level(codes: Any, place: Any, words: Any, passed: Any) -> Any:
    """Write bit `place` of the codes, 0 the lowest, as one level, and the codes as passed on; return the zeros.

    codes, passed: unsigned (n,). words: uint64 (n // BITS * WORDS + WORDS,), zero. Cost: some 3 nanoseconds a code.
    """
    ones = 0
    for row in range(len(codes)):
        block = row // BITS
        if row == block * BITS:
            words[block * WORDS] = np.uint64(ones)
        bit = (codes[row] >> place) & 1
        inside = row - block * BITS + 32
        words[block * WORDS + (inside >> 6)] |= np.uint64(bit) << np.uint64(inside & 63)
        ones += bit
    if len(codes) % BITS == 0:
        words[len(codes) // BITS * WORDS] = np.uint64(ones)
    zero, one = 0, len(codes) - ones
    for row in range(len(codes)):
        code = codes[row]
        bit = (code >> place) & 1
        passed[one if bit else zero] = code
        one += bit
        zero += 1 - bit
    return zero


@kernel
def read_level(words: Any, zeros: Any, passed: Any, codes: Any) -> None:
    """Write the codes of a level in the order they came in.

    zeros: of the level. passed: the codes in the order in which the level passed them on.
    """
    zero, one = np.int64(0), np.int64(zeros)
    for row in range(len(codes)):
        block = row // BITS
        inside = row - block * BITS + 32
        bit = np.int64((words[block * WORDS + (inside >> 6)] >> np.uint64(inside & 63)) & np.uint64(1))
        codes[row] = passed[one if bit else zero]
        one += bit
        zero += 1 - bit


@kernel
def _place(base: Any, row: Any) -> Any:
    """Return the first word of a row's block, and the row's bit in the block. base: where the level begins."""
    # Unsigned, because signed indexes are first looked at for counting from the end.
    block = np.uint64(row) // np.uint64(BITS)
    return np.uint64(base) + block * np.uint64(WORDS), np.int64(row) - np.int64(block) * BITS + 32


@kernel
def _ones(words: Any, at: Any, place: Any, first: Any) -> Any:
    """Return the number of ones of a level before a bit of a block. first: the block's first word."""
    last = np.uint64(place) >> np.uint64(6)
    before = first & np.uint64(0xFFFFFFFF)
    inside = words[at + last] & ((np.uint64(1) << np.uint64(place & 63)) - np.uint64(1))
    # The count that the block begins with is a number, not ones.
    ones = before - popcount(before) + popcount(inside)
    # All words are counted and those from the last on masked: no branch to mispredict, and one instruction for several.
    for word in range(np.uint64(WORDS - 1)):
        ones += popcount(words[at + word] & _MASKS[np.uint64(WORDS - 1) - last + word])
    return np.int64(ones)


@kernel
def _between(words: Any, base: Any, low: Any, high: Any, low_first: Any, high_first: Any) -> Any:
    """Return the number of ones of a level before a row, and before one that is not earlier.

    low_first, high_first: the first words of their blocks.
    """
    at, place = _place(base, low)
    ones = _ones(words, at, place, low_first)
    if (place & 63) + high - low < 64:  # the same word, as rows of rare codes are
        word = words[at + np.uint64(place >> 6)] >> np.uint64(place & 63)
        return ones, ones + np.int64(popcount(word & ((np.uint64(1) << np.uint64(high - low)) - np.uint64(1))))
    at, place = _place(base, high)
    return ones, _ones(words, at, place, high_first)


@kernel
def _next_row(words: Any, base: Any, zeros: Any, row: Any, first: Any) -> Any:
    """Return the bit of a row, 0 or 1, and the row to which the level passes it.

    zeros: of the level. first: the first word of the row's block.
    """
    at, place = _place(base, row)
    ones = _ones(words, at, place, first)
    bit = np.int64((words[at + np.uint64(place >> 6)] >> np.uint64(place & 63)) & np.uint64(1))
    return bit, zeros + ones if bit else row - ones


@kernel
def narrow(matrix: Any, ranges: Any, codes: Any, new: Any, first: int, last: int) -> None:
    """Write for beams [first, last) where the occurrences of codes[b] in the beam's rows arrive.

    matrix: words, and zeros int64 (L,) of each level. Cost: two cache lines a level.
    """
    words, zeros = matrix
    new_lows, new_highs = new
    stride = len(words) // len(zeros)
    for beam in range(first, last):
        low, high, code = ranges.lows[beam], ranges.highs[beam], codes[beam]
        for level in range(len(zeros)):
            base = level * stride
            low_first, high_first = words[_place(base, low)[0]], words[_place(base, high)[0]]
            low_ones, high_ones = _between(words, base, low, high, low_first, high_first)
            if (code >> (len(zeros) - 1 - level)) & 1:
                low, high = zeros[level] + low_ones, zeros[level] + high_ones
            else:
                low, high = low - low_ones, high - high_ones
        new_lows[beam] = low
        new_highs[beam] = high


@kernel
def successors(matrix: Any, ranges: Any, slots: Any, first: int, last: int) -> None:
    """Write the distinct codes but 0 in the rows of beams [first, last), and their counts.

    Beams of depth 0 are left out. Cost: two cache lines for each distinct beginning of a code's bits;
    those of one level do not wait for each other.
    """
    words, zeros = matrix
    places = slots.places
    stride = len(words) // len(zeros)
    room = 0
    for beam in range(first, last):
        room = max(room, places[beam + 1] - places[beam] + 1)
    low, high, begun = np.empty(room, np.int32), np.empty(room, np.int32), np.empty(room, np.int32)
    next_low, next_high, next_begun = np.empty(room, np.int32), np.empty(room, np.int32), np.empty(room, np.int32)
    low_first, high_first = np.empty(_ABREAST, np.uint64), np.empty(_ABREAST, np.uint64)
    for beam in range(first, last):
        if ranges.depths[beam] == 0 or ranges.lows[beam] == ranges.highs[beam]:
            continue
        low[0], high[0], begun[0] = ranges.lows[beam], ranges.highs[beam], 0
        nodes = np.uint64(1)
        for level in range(len(zeros)):
            base, shift = level * stride, zeros[level]
            child = np.uint64(0)
            for node in range(nodes):
                ahead = node % np.uint64(_ABREAST)
                if ahead == 0:
                    # The first word of each block is read for many nodes at once: their cache lines arrive together.
                    for other in range(min(np.uint64(_ABREAST), nodes - node)):
                        low_first[other] = words[_place(base, low[node + other])[0]]
                        high_first[other] = words[_place(base, high[node + other])[0]]
                here, end, bits = low[node], high[node], begun[node] << 1
                here_ones, end_ones = _between(words, base, here, end, low_first[ahead], high_first[ahead])
                # Both are written, and stay where they hold rows: no branch to mispredict.
                next_low[child], next_high[child], next_begun[child] = here - here_ones, end - end_ones, bits
                child += np.uint64(end - here > end_ones - here_ones)
                next_low[child], next_high[child], next_begun[child] = shift + here_ones, shift + end_ones, bits | 1
                child += np.uint64(end_ones > here_ones)
            nodes = child
            low, next_low = next_low, low
            high, next_high = next_high, high
            begun, next_begun = next_begun, begun
        skipped = 1 if begun[0] == 0 else 0
        for node in range(skipped, np.int64(nodes)):
            slots.codes[places[beam] + node - skipped] = begun[node]
            slots.counts[places[beam] + node - skipped] = high[node] - low[node]
        slots.found[beam] = np.int64(nodes) - skipped


@kernel
def _step(words: Any, zeros: Any, rows: Any, arrived: Any, firsts: Any, count: Any) -> None:
    """Write where the codes of `count` rows arrive, the next rows of the text; they do not wait for each other.

    firsts: uint64 (_ABREAST,), scratch.
    """
    stride = len(words) // len(zeros)
    arrived[:count] = rows[:count]
    for level in range(len(zeros)):
        base = level * stride
        for index in range(count):
            firsts[index] = words[_place(base, arrived[index])[0]]
        for index in range(count):
            _, arrived[index] = _next_row(words, base, zeros[level], arrived[index], firsts[index])


@kernel
def walk(matrix: Any, known: Any, rows: Any, places: Any, first: int, last: int) -> None:
    """Write the places of rows [first, last) in the reversed text: step back to one that is known, and count.

    known: see index.fm_index.Known.
    Cost: rate / 2 steps a row in the mean, rate - 1 at most, of a cache line a level.
    """
    words, zeros = matrix
    current, arrived = np.empty(_ABREAST, np.int64), np.empty(_ABREAST, np.int64)
    wanted, firsts = np.empty(_ABREAST, np.int64), np.empty(_ABREAST, np.uint64)
    for begin in range(first, last, _ABREAST):
        count = min(_ABREAST, last - begin)
        for index in range(count):
            current[index], wanted[index] = rows[begin + index], begin + index
        steps = 0
        while count and steps < known.rate:  # more are needed where files are damaged, without end
            left = 0
            for index in range(count):
                row = current[index]
                found = -1
                for mark in range(np.int64(known.blocks[row >> 8]), np.int64(known.blocks[(row >> 8) + 1])):
                    if known.marks[mark] == row & 255:
                        found = mark
                if found >= 0:
                    places[wanted[index]] = np.int64(known.samples[found]) * known.rate + steps
                else:
                    current[left], wanted[left] = row, wanted[index]
                    left += 1
            count = left
            _step(words, zeros, current, arrived, firsts, count)
            for index in range(count):
                # Row 0 belongs to the primary row, which never steps: separators before it make room.
                makes_room = arrived[index] < known.documents and current[index] < known.primary
                current[index] = arrived[index] + (1 if makes_room else 0)
            steps += 1


@kernel
def spell(matrix: Any, row: Any, codes: Any) -> None:
    """Write the codes found from a row on, step by step."""
    words, zeros = matrix
    stride = len(words) // len(zeros)
    for index in range(len(codes)):
        code = 0
        for level in range(len(zeros)):
            first = words[_place(level * stride, row)[0]]
            bit, row = _next_row(words, level * stride, zeros[level], row, first)
            code = code << 1 | bit
        codes[index] = code
