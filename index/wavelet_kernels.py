"""Compiled loops over a wavelet matrix; see index.wavelet_matrix for what it is."""

from typing import Any, Final

import numpy as np

from index.kernels import kernel, popcount

BITS: Final = 480
"""Bits of a level in a block."""

WORDS: Final = 8
"""Words of a block: a cache line."""

_ABREAST: Final = 64
"""Rows that are located together: their reads overlap."""


@kernel
def fill_level(codes: Any, level: Any, words: Any, passed: Any) -> Any:
    """Write bit `level` of the codes as one level, and the codes as they are passed on; return the number of zeros.

    codes, passed: unsigned (n,). words: uint64 (n // BITS * WORDS + WORDS,), zero. Cost: some 3 nanoseconds a code.
    """
    ones = 0
    for row in range(len(codes)):
        block = row // BITS
        if row == block * BITS:
            words[block * WORDS] = np.uint64(ones)
        bit = (codes[row] >> level) & 1
        place = row - block * BITS + 32
        words[block * WORDS + (place >> 6)] |= np.uint64(bit) << np.uint64(place & 63)
        ones += bit
    if len(codes) % BITS == 0:
        words[len(codes) // BITS * WORDS] = np.uint64(ones)
    zero, one = 0, len(codes) - ones
    for row in range(len(codes)):
        code = codes[row]
        bit = (code >> level) & 1
        passed[one if bit else zero] = code
        one += bit
        zero += 1 - bit
    return zero


@kernel
def _before(words: Any, base: Any, row: Any) -> Any:
    """Return the number of ones of a level before a row. base: where the level begins. Cost: one cache line."""
    block = row // BITS
    place = row - block * BITS + 32
    at = base + block * WORDS
    counted = np.int64(words[at] & np.uint64(0xFFFFFFFF))
    last = place >> 6
    # Bits of the count itself are shifted out of its word.
    inside = (words[at + last] & ((np.uint64(1) << np.uint64(place & 63)) - np.uint64(1))) >> np.uint64(
        0 if last else 32
    )
    counted += np.int64(popcount(inside))
    if last:
        counted += np.int64(popcount(words[at] >> np.uint64(32)))
        for word in range(at + 1, at + last):
            counted += np.int64(popcount(words[word]))
    return counted


@kernel
def _bit(words: Any, base: Any, row: Any) -> Any:
    """Return one bit of a level, 0 or 1."""
    block = row // BITS
    place = row - block * BITS + 32
    return np.int64((words[base + block * WORDS + (place >> 6)] >> np.uint64(place & 63)) & np.uint64(1))


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
            low_ones, high_ones = _before(words, base, low), _before(words, base, high)
            if (code >> level) & 1:
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
    low_one, high_one, begun_one = np.empty(room, np.int32), np.empty(room, np.int32), np.empty(room, np.int32)
    for beam in range(first, last):
        if ranges.depths[beam] == 0 or ranges.lows[beam] == ranges.highs[beam]:
            continue
        low[0], high[0], begun[0] = ranges.lows[beam], ranges.highs[beam], 0
        nodes = 1
        for level in range(len(zeros)):
            base, shift = level * stride, zeros[level]
            zero, one = 0, 0
            for node in range(nodes):
                here, end, bits = low[node], high[node], begun[node]
                here_ones, end_ones = _before(words, base, here), _before(words, base, end)
                # Both written, and kept where they hold rows: no branch to mispredict.
                low[zero], high[zero], begun[zero] = here - here_ones, end - end_ones, bits
                zero += (end - end_ones) > (here - here_ones)
                low_one[one], high_one[one] = shift + here_ones, shift + end_ones
                begun_one[one] = bits | (1 << level)
                one += end_ones > here_ones
            # The bit of this level outweighs those before: behind the zeros, the order stays ascending.
            low[zero : zero + one] = low_one[:one]
            high[zero : zero + one] = high_one[:one]
            begun[zero : zero + one] = begun_one[:one]
            nodes = zero + one
        skipped = 1 if begun[0] == 0 else 0
        for node in range(skipped, nodes):
            slots.codes[places[beam] + node - skipped] = begun[node]
            slots.counts[places[beam] + node - skipped] = high[node] - low[node]
        slots.found[beam] = nodes - skipped


@kernel
def _step(words: Any, zeros: Any, rows: Any, arrived: Any, count: Any) -> None:
    """Write where the codes of `count` rows arrive, the next rows of the text; they do not wait for each other."""
    stride = len(words) // len(zeros)
    arrived[:count] = rows[:count]
    for level in range(len(zeros)):
        base = level * stride
        for index in range(count):
            row = arrived[index]
            ones = _before(words, base, row)
            arrived[index] = zeros[level] + ones if _bit(words, base, row) else row - ones


@kernel
def walk(matrix: Any, known: Any, rows: Any, places: Any, first: int, last: int) -> None:
    """Write the places of rows [first, last) in the reversed text: step back to one that is known, and count.

    known: see index.fm_index.Known.
    Cost: rate / 2 steps a row in the mean, rate - 1 at most, of a cache line a level.
    """
    words, zeros = matrix
    current, arrived = np.empty(_ABREAST, np.int64), np.empty(_ABREAST, np.int64)
    wanted = np.empty(_ABREAST, np.int64)
    for begin in range(first, last, _ABREAST):
        count = min(_ABREAST, last - begin)
        for index in range(count):
            current[index], wanted[index] = rows[begin + index], begin + index
        steps = 0
        while count:
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
            _step(words, zeros, current, arrived, count)
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
            base = level * stride
            ones = _before(words, base, row)
            if _bit(words, base, row):
                row = zeros[level] + ones
                code |= 1 << level
            else:
                row -= ones
        codes[index] = code
