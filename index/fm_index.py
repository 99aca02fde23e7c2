"""The compact form: a wavelet matrix over the Burrows-Wheeler transform of the reversed text; memory-mapped.

    levels.npy        uint64 (L, words): see index.wavelet_matrix
    zeros.npy         int64 (L,)
    marks.npy         uint8 (m,): the low bits of the rows whose place is known, block by block of 256 rows
    mark_blocks.npy   uint32 (blocks + 1,): where each block's marks begin
    samples.npy       uint32 (m,): their places in the reversed text, divided by _RATE
    entries.npy       uint32 (D,): the row of the separator before each document

The text is reversed, so that a backward search takes in a match from left to right; its suffixes are sorted by the bits
of their codes read backwards, as the matrix has them. The reversed text ends with the separator of the first document,
which sorts before all others: its row is 0, and `primary` is the row of the suffix that is the whole text, whose code
leads there.

Source: Ferragina & Manzini, "Opportunistic data structures with applications", FOCS 2000.
"""

from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from index.alphabet import Codes
from index.array_file import map_array, write_array
from index.errors import IndexFormatError
from index.kernels import over_beams
from index.substring_ranges import Int64, Ranges, Slots, Uint32
from index.substring_shard import SubstringShard
from index.substring_spec import ShardAbout
from index.substring_text import Tables
from index.suffix_sort import Order, suffix_order
from index.wavelet_kernels import narrow, spell, successors, walk
from index.wavelet_matrix import backwards, level_words, write_levels

_BLOCK_ROWS: Final = 256
"""Rows whose marks lie together: a mark's low bits are one byte."""

_SAMPLE_FILES: Final = ("marks", "mark_blocks", "samples")

_RATE: Final = 48
"""Every so many codes of the text a place is stored: 24 steps to it in the mean, and .12 bytes a code."""

_SEARCH_COST: Final = 350
_SUCCESSOR_COST: Final = 60
_WALK_COST: Final = 7_500
"""Nanoseconds to extend a match, to find a successor, and to find the place of a row."""

_BLOCK: Final = 1 << 20
"""Rows handled at a time, so that passing temporaries stay small."""


class Known(NamedTuple):
    """Places of some rows, see above. marks: uint8 (m,). blocks: uint32 (blocks + 1,). samples: uint32 (m,).

    rate: _RATE. primary: see above. documents: rows below it begin with a separator.
    """

    marks: npt.NDArray[np.uint8]
    blocks: Uint32
    samples: Uint32
    rate: int
    primary: int
    documents: int


class FMIndex(SubstringShard):
    """A SubstringIndex of about 2.4 bytes a code with 16-bit codes.

    A token of a document costs L cache lines, a place as many times _RATE / 2.
    matrix: words and zeros. known, entries: as above. All read-only arrays.
    """

    def __init__(
        self,
        tables: Tables,
        matrix: tuple[npt.NDArray[np.uint64], Int64],
        known: Known,
        entries: Uint32,
        identity: int,
        threads: int | None = None,
    ) -> None:
        super().__init__(tables, tables.codes, identity, threads)
        self.matrix = matrix
        self.known = known
        self.entries = entries

    def _extended(self, ranges: Ranges, codes: Int64) -> tuple[Int64, Int64]:
        new = (np.empty_like(ranges.lows), np.empty_like(ranges.highs))

        def work(first: int, last: int) -> None:
            narrow(self.matrix, ranges, codes, new, first, last)

        over_beams(work, np.full(len(codes), _SEARCH_COST), self.threads)
        return new

    def _successors(self, ranges: Ranges, slots: Slots) -> None:
        def work(first: int, last: int) -> None:
            successors(self.matrix, ranges, slots, first, last)

        over_beams(work, np.diff(slots.places) * _SUCCESSOR_COST, self.threads)

    def _positions(self, ranges: Ranges, bounds: Int64, positions: Uint32) -> None:
        wanted = np.arange(bounds[0], bounds[-1])
        owners = np.searchsorted(bounds, wanted, side="right") - 1
        deep = ranges.depths[owners] > 0
        wanted, owners = wanted[deep], owners[deep]
        # The match begins where the reversed text has it end.
        ends = self._places(ranges.lows[owners] + wanted - bounds[owners]) + ranges.depths[owners]
        positions[wanted] = self.tables.codes - ends

    def _places(self, rows: Int64) -> Int64:
        """Return where in the reversed text the suffixes of some rows begin."""
        places = np.empty_like(rows)

        def work(first: int, last: int) -> None:
            walk(self.matrix, self.known, rows, places, first, last)

        over_beams(work, np.full(len(rows), _WALK_COST), self.threads)
        return places

    def _codes(self, document: int) -> npt.NDArray[Any]:
        length = int(self.tables.starts[document + 1]) - int(self.tables.starts[document]) - 1
        codes = np.empty(length, np.int64)
        spell(self.matrix, int(self.entries[document]), codes)
        return codes

    @classmethod
    def open(cls, folder: Path, tables: Tables, about: ShardAbout, threads: int | None = None) -> "FMIndex":
        """Map what `write_fm_index` wrote. Raises IndexFormatError where it does not fit together."""
        words, zeros, entries = (map_array(folder / f"{name}.npy", ndim=1) for name in ("levels", "zeros", "entries"))
        marks, blocks, samples = (map_array(folder / f"{name}.npy", ndim=1) for name in _SAMPLE_FILES)
        dtypes = [array.dtype for array in (words, zeros, entries, marks, blocks, samples)]
        levels = _levels(tables)
        if (
            dtypes != [np.uint64, np.int64, np.uint32, np.uint8, np.uint32, np.uint32]
            or (len(zeros), len(words)) != (levels, levels * level_words(tables.codes))
            or len(entries) != tables.documents
            or len(blocks) != _blocks(tables.codes) + 1
            or not len(marks) == len(samples) == blocks[-1] == -(-tables.codes // _RATE)
            or not 0 <= about.primary <= tables.codes
            or not ((zeros >= 0) & (zeros <= tables.codes)).all()
        ):
            raise IndexFormatError(f"{folder}: levels, samples and entries do not fit together: rebuild it")
        known = Known(marks, blocks, samples, _RATE, about.primary, tables.documents)
        return cls(tables, (words, zeros), known, entries, about.identity, threads)


def _order(text: Codes, tables: Tables) -> Order:
    """Return the order of the suffixes of a text reversed, with codes sorted as the wavelet matrix sorts them."""
    symbols = np.empty(tables.codes, text.dtype)
    for first in range(0, len(symbols), _BLOCK):
        part = symbols[first : first + _BLOCK]
        part[:] = backwards(text[tables.codes - first - len(part) : tables.codes - first][::-1], _levels(tables))
    return suffix_order(symbols, (1 << _levels(tables)) - 1)


def write_fm_index(folder: Path, text: Codes, tables: Tables) -> int:
    """Write the files above and return the primary row.

    text: codes (N + D + 1,). Memory: 12 bytes a code beside the text with 16-bit codes, 20 with more. Cost: see
    suffix_order, and some 6 nanoseconds for each bit of each code.
    """
    n = tables.codes
    order = _order(text, tables)
    primary = int(np.argmin(order)) if n else 0
    samples: tuple[npt.NDArray[Any], ...] = _samples(order)
    for name, values in zip(_SAMPLE_FILES, samples, strict=True):
        write_array(folder / f"{name}.npy", values)
    entries = np.empty(tables.documents, np.uint32)
    separators = n - 1 - order[: tables.documents].astype(np.int64)
    entries[np.searchsorted(tables.starts, separators.astype(np.uint32))] = np.arange(tables.documents)
    write_array(folder / "entries.npy", entries)
    transform = np.empty(n, text.dtype)
    for first in range(0, n, _BLOCK):
        # The code before a suffix of the reversed text is the one behind it in the text; before the whole of it, the
        # separator that ends the last document.
        transform[first : first + _BLOCK] = text[n - order[first : first + _BLOCK].astype(np.int64)]
    del order  # the largest of all, and there are the levels to come
    words, zeros = write_levels(transform, _levels(tables))
    write_array(folder / "levels.npy", words)
    write_array(folder / "zeros.npy", zeros)
    return primary


def _levels(tables: Tables) -> int:
    return max(1, len(tables.alphabet).bit_length())


def _blocks(codes: int) -> int:
    return codes // _BLOCK_ROWS + 1


def _samples(order: Order) -> tuple[npt.NDArray[np.uint8], Uint32, Uint32]:
    """Return marks, blocks and samples: of the places that are multiples of _RATE, by row."""
    rows = [
        first + np.flatnonzero(order[first : first + _BLOCK] % np.uint32(_RATE) == 0)
        for first in range(0, len(order), _BLOCK)
    ]
    marked = np.concatenate([np.empty(0, np.int64), *rows])
    blocks = np.searchsorted(marked, np.arange(_blocks(len(order)) + 1) * _BLOCK_ROWS)
    samples = order[marked] // np.uint32(_RATE)
    return (marked % _BLOCK_ROWS).astype(np.uint8), blocks.astype(np.uint32), samples
