"""The fast form: the text, and where its suffixes begin in sorted order; both memory-mapped.

    text.npy       uint16 | uint32 (N + D + 1,): codes, see index.substring_text
    suffixes.npy   uint8: places of the text, by the order of the suffixes that begin there; as many bits each as the
                   largest needs, without gaps: see index.suffix_array_kernels
    wide_*.npy     the successors of the most frequent codes, counted when it was built: codes (W,), offsets (W + 1,),
                   next (E,) and counts (E,)

Within the rows of a match the next codes ascend, so that successors are the runs of one pass and a longer match is a
binary search.
"""

from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from index.alphabet import SEPARATOR, Codes
from index.array_file import map_array, write_array, write_header
from index.errors import IndexFormatError
from index.kernels import over_beams
from index.substring_ranges import Int64, Ranges, Slots, Uint32
from index.substring_shard import SubstringShard
from index.substring_spec import ShardAbout
from index.substring_text import Tables
from index.suffix_array_kernels import narrow, pack, successors, unpack
from index.suffix_sort import Order, suffix_order
from index.types import State

_WIDE_ROWS: Final = 4_096
"""Matches of fewer rows are counted when asked for: microseconds."""

_BEHIND: Final = 8
"""Bytes behind the last place, so that a word may be read there."""

_BLOCK: Final = 1 << 20
"""Places packed at a time, a multiple of 8: so each block begins a byte."""

_SEARCH_COST: Final = 100
_ROW_COST: Final = 2
"""Nanoseconds to extend a match, and to look at a row for its successors."""


class Wide(NamedTuple):
    """Successors of the most frequent codes. codes: uint32 (W,), ascending; the others see above."""

    codes: Uint32
    offsets: Uint32
    next: Codes
    counts: Uint32


class Sorted(NamedTuple):
    """A text and the places of its suffixes, sorted. text: codes (N + D + 1,). packed: uint8. bits: of a place."""

    text: Codes
    packed: npt.NDArray[np.uint8]
    bits: int


class SuffixArray(SubstringShard):
    """A SubstringIndex of at most 6 bytes a code with 16-bit codes. Place of a text: one read; a document: a slice.

    array, wide: as above; read-only arrays. rows: how many suffixes there are.
    """

    def __init__(
        self, tables: Tables, array: Sorted, wide: Wide, rows: int, identity: int, threads: int | None = None
    ) -> None:
        super().__init__(tables, rows, identity, threads)
        self.array = array
        self.wide = wide

    def _extended(self, ranges: Ranges, codes: Int64) -> tuple[Int64, Int64]:
        new = (np.empty_like(ranges.lows), np.empty_like(ranges.highs))

        def work(first: int, last: int) -> None:
            narrow(self.array, self.tables.firsts, ranges, codes, new, first, last)

        over_beams(work, np.full(len(codes), _SEARCH_COST), self.threads)
        return new

    def _successors(self, ranges: Ranges, slots: Slots) -> None:
        def work(first: int, last: int) -> None:
            successors(self.array, self.tables.firsts, self.wide, ranges, slots, first, last)

        widths = np.where(ranges.depths == 0, 0, ranges.highs - ranges.lows)
        over_beams(work, widths * _ROW_COST, self.threads)

    def _positions(self, ranges: Ranges, bounds: Int64, positions: Uint32) -> None:
        unpack(self.array, ranges, bounds, positions)

    def places(self) -> Uint32:
        """Return where each suffix begins, in their order, uint32 (rows,)."""
        whole = Ranges(np.zeros(1, np.int64), np.array([self.rows]), np.ones(1, np.int64))
        places = np.empty(self.rows, np.uint32)
        self._positions(whole, np.array([0, self.rows]), places)
        return places

    def _codes(self, document: int) -> npt.NDArray[Any]:
        return self.array.text[int(self.tables.starts[document]) + 1 : int(self.tables.starts[document + 1])]

    def ended(self, state: State) -> State:
        """Return the occurrences of each match at the end of a document. Cost: as `extend`."""
        ranges = self._ranges(state)
        new = state.copy()
        new[:, 0, 0], new[:, 0, 1] = self._extended(ranges, np.full(len(state), SEPARATOR))
        return new

    @classmethod
    def open(
        cls, folder: Path, tables: Tables, about: ShardAbout, threads: int | None = None, rows: int | None = None
    ) -> "SuffixArray":
        """Map what `write_suffix_array` wrote. rows: how many suffixes it wrote; None = all.

        Raises IndexFormatError where the files do not fit together.
        """
        rows = tables.codes if rows is None else rows
        text, packed = (map_array(folder / f"{name}.npy", ndim=1) for name in ("text", "suffixes"))
        array = Sorted(text, packed, _place_bits(tables))
        wide = Wide(*(map_array(folder / f"wide_{name}.npy", ndim=1) for name in Wide._fields))
        fits = text.dtype == wide.next.dtype == tables.alphabet.dtype and {
            each.dtype for each in (wide.codes, wide.offsets, wide.counts)
        } == {np.dtype(np.uint32)}
        if (
            not fits
            or packed.dtype != np.uint8
            or (len(text), len(packed)) != (tables.codes + 1, packed_bytes(rows, array.bits))
            or len(wide.offsets) != len(wide.codes) + 1
            or not wide.offsets[-1] == len(wide.next) == len(wide.counts)
        ):
            raise IndexFormatError(f"{folder}: text and suffixes do not fit together: rebuild it")
        return cls(tables, array, wide, rows, about.identity, threads)


def _place_bits(tables: Tables) -> int:
    return max(1, (tables.codes - 1).bit_length())


def packed_bytes(rows: int, bits: int) -> int:
    """Return the bytes of that many places of `bits` bits each."""
    return -(-rows * bits // 8) + _BEHIND


def write_suffix_array(
    folder: Path, text: Codes, tables: Tables, rows: int | None = None, wide_bytes: int | None = None
) -> None:
    """Write the files above.

    text: codes (N + D + 1,), read-only from now on. rows: how many suffixes, the smallest; None = all. wide_bytes: what
    wide_* may take; None = what packing leaves of 4 bytes a place. Memory, cost: see suffix_order.
    """
    bits = _place_bits(tables)
    rows = tables.codes if rows is None else rows
    if wide_bytes is None:
        wide_bytes = rows * (32 - bits) // 8
    write_array(folder / "text.npy", text)
    packed = folder / "suffixes.npy"
    write_packed(packed, suffix_order(text[:-1], len(tables.alphabet))[:rows], bits)
    text.flags.writeable = False  # as memory maps are: so loops are compiled once
    wide = _widest(Sorted(text, map_array(packed, ndim=1), bits), tables, rows, wide_bytes)
    for name, values in zip(Wide._fields, wide, strict=True):
        write_array(folder / f"wide_{name}.npy", values)


def write_packed(path: Path, order: Order, bits: int) -> None:
    """Write places packed, block by block: beside the order there is no room for them all."""
    with path.open("wb") as file:
        write_header(file, "|u1", (packed_bytes(len(order), bits),))
        block = np.empty(_BLOCK * bits // 8, np.uint8)
        for first in range(0, len(order), _BLOCK):
            places = order[first : first + _BLOCK]
            pack(places, bits, block)
            file.write(block[: -(-len(places) * bits // 8)].data)
        file.write(bytes(_BEHIND))


def _widest(array: Sorted, tables: Tables, rows: int, spare: int) -> Wide:
    """Return the successors of the most frequent codes that fit into `spare` bytes, the widest first."""
    firsts = tables.firsts[tables.firsts <= rows].astype(np.int64)
    widths = np.diff(firsts)
    empty = np.empty(0, np.uint32)
    nothing = Wide(empty, np.zeros(1, np.uint32), np.empty(0, array.text.dtype), empty)
    for each in nothing:
        each.flags.writeable = False  # as above
    chosen: dict[int, tuple[Codes, Uint32]] = {}
    for code in np.argsort(-widths, kind="stable").tolist():
        if widths[code] < _WIDE_ROWS:
            break
        room = min(int(widths[code]), len(tables.alphabet)) + 1
        ranges = Ranges(firsts[code : code + 1], firsts[code + 1 : code + 2], np.ones(1, np.int64))
        slots = Slots(np.array([0, room]), np.empty(room, np.uint32), np.empty(room, np.uint32), np.zeros(1, np.int64))
        successors(array, tables.firsts, nothing, ranges, slots, 0, 1)
        found = int(slots.found[0])
        needed = found * (array.text.itemsize + slots.counts.itemsize) + 2 * slots.counts.itemsize
        if needed > spare:
            continue  # a less frequent one may fit
        spare -= needed
        chosen[code] = (slots.codes[:found].astype(array.text.dtype), slots.counts[:found])
    if not chosen:
        return nothing
    ascending = sorted(chosen)
    return Wide(
        np.array(ascending, np.uint32),
        np.cumsum([0, *(len(chosen[code][0]) for code in ascending)]).astype(np.uint32),
        np.concatenate([chosen[code][0] for code in ascending]),
        np.concatenate([chosen[code][1] for code in ascending]),
    )
