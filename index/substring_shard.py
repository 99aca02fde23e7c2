"""What the two forms of a substring index share: states and their checks, tables, the assembly of answers.

A state is (first row, row behind the last, tag) per beam: the rows of the form's sorted suffixes that begin with the
match, and tag = depth | identity << 32, where depth is the length of the match (a document's beginning counts 1) and
identity tells the index.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from index.alphabet import SEPARATOR
from index.errors import RequestError, ShapeError
from index.kernels import kernel, over_beams, usable_threads
from index.substring_ranges import Int64, Ranges, Slots, Uint32
from index.substring_text import Tables
from index.types import Check, Continuations, Locations, State, go_on

_DEPTH_BITS: Final = 32

_KEPT: Final = 1 << 20
"""Successors for which room is kept between calls, 8 bytes each: the first touch of fresh memory costs microseconds a
page, more than what is written there."""

_BLOCK: Final = 1 << 14
"""Places found at a time: a tenth of a second where one thread does it, and passing temporaries stay small."""


class SubstringShard(ABC):
    """A SubstringIndex over one text of fewer than 2^31 codes; states are (B, 1, 3).

    rows: how many sorted suffixes there are. identity: 31 bits that no other index has. threads: how many a call may
    use; None = see `usable_threads`. Any number of threads may ask it. It keeps up to 8 MiB between calls.
    """

    def __init__(self, tables: Tables, rows: int, identity: int, threads: int | None = None) -> None:
        self.tables = tables
        self.rows = rows
        self.identity = identity
        self.threads = usable_threads(threads)
        self._spare: list[Uint32] = []

    @property
    def vocab_size(self) -> int:
        """Tokens are at least 0 and below it."""
        return self.tables.alphabet.vocab_size

    @property
    def tokens(self) -> int:
        """Number of tokens of all documents together."""
        return self.tables.codes - self.tables.documents

    @property
    def documents(self) -> int:
        """Number of documents."""
        return self.tables.documents

    def root(self, beams: int) -> State:
        """Return `beams` empty matches."""
        return self._state(beams, self.rows, 0)

    def starts(self, beams: int) -> State:
        """Return `beams` matches of the beginning of a document."""
        return self._state(beams, self.documents, 1)

    def _state(self, beams: int, high: int, depth: int) -> State:
        if beams < 0:
            raise RequestError(f"beams is {beams}, expected at least 0")
        state = np.empty((beams, 1, 3), np.int64)
        state[:] = (0, high, depth | self.identity << _DEPTH_BITS)
        return state

    def _ranges(self, state: State) -> Ranges:
        if state.dtype != np.int64 or state.ndim != 3 or state.shape[1:] != (1, 3):
            raise ShapeError(
                f"state is {state.dtype} {state.shape}, expected int64 (B, 1, 3): begin with root or starts"
            )
        lows, highs, tags = (state[:, 0, place].copy() for place in range(3))
        if not (
            np.all(tags >> _DEPTH_BITS == self.identity)
            and np.all((lows >= 0) & (lows <= highs) & (highs <= self.rows))
        ):
            raise RequestError("state belongs to another index: begin with this one's root or starts")
        return Ranges(lows, highs, tags & ((1 << _DEPTH_BITS) - 1))

    def count(self, state: State) -> Int64:
        """Return how often each match occurs, int64 (B,)."""
        ranges = self._ranges(state)
        return np.where(ranges.depths == 0, self.tokens, ranges.highs - ranges.lows)

    def extend(self, state: State, tokens: npt.NDArray[np.integer]) -> State:
        """Append one token to each match; see SubstringIndex. Cost: B times a few microseconds at most."""
        ranges = self._ranges(state)
        beams = len(ranges.lows)
        if tokens.shape != (beams,) or tokens.dtype.kind not in "iu":
            raise ShapeError(f"tokens are {tokens.dtype} {tokens.shape}, expected integers ({beams},)")
        if beams and not 0 <= int(tokens.min()) <= int(tokens.max()) < self.vocab_size:
            wrong = tokens[(tokens < 0) | (tokens >= self.vocab_size)]
            raise RequestError(
                f"token {wrong[0]} is outside the vocabulary, expected 0 to {self.vocab_size - 1}: "
                "tokenize with the tokenizer the index was built with"
            )
        codes = self.tables.alphabet.encode(tokens)
        new = np.empty_like(state)
        new[:, 0, 2] = state[:, 0, 2] + 1
        # A token that does not occur has the separator's code, which follows no match.
        absent = codes == SEPARATOR
        ranges.highs[absent] = ranges.lows[absent]
        new[:, 0, 0], new[:, 0, 1] = self._extended(ranges, codes)
        return new

    @abstractmethod
    def _extended(self, ranges: Ranges, codes: Int64) -> tuple[Int64, Int64]:
        """Return the rows of each match, longer by a code; none where it had none."""

    def continuations(self, state: State) -> Continuations:
        """Return which tokens follow each match and how often; see SubstringIndex."""
        ranges = self._ranges(state)
        is_root = ranges.depths == 0
        symbols = len(self.tables.alphabet)
        # One place more than there can be successors: kernels write before they know whether an entry counts.
        room = np.where(is_root, 0, np.minimum(ranges.highs - ranges.lows, symbols) + 1)
        places = begins(room)
        scratch = self._scratch(int(places[-1]))
        slots = Slots(places, scratch[0], scratch[1], np.where(is_root, symbols, 0))
        self._successors(ranges, slots)
        offsets = begins(slots.found)
        answer = Continuations(offsets, np.empty(offsets[-1], np.int32), np.empty(offsets[-1], np.int64))

        known = (self.tables.firsts, self.tables.alphabet.tokens)

        def assemble(first: int, last: int) -> None:
            _assemble(slots, is_root, known, answer, first, last)

        over_beams(assemble, slots.found, self.threads)  # a nanosecond each
        if scratch.shape[1] <= _KEPT:
            self._spare = [scratch]
        return answer

    def _scratch(self, room: int) -> Uint32:
        """Return uint32 (2, room or more) that no other call writes to."""
        try:
            scratch = self._spare.pop()
        except IndexError:
            return np.empty((2, room), np.uint32)
        return scratch if scratch.shape[1] >= room else np.empty((2, room), np.uint32)

    @abstractmethod
    def _successors(self, ranges: Ranges, slots: Slots) -> None:
        """Write the codes that follow each match but those of no token (depth 0)."""

    def locate(self, state: State, limit: int | None = None, check: Check = go_on) -> Locations:
        """Return where each match occurs; see SubstringIndex. Cost: also that of the places beyond the limit."""
        if limit is not None and limit < 0:
            raise RequestError(f"limit is {limit}, expected at least 0")
        ranges = self._ranges(state)
        counts = self.count(state)
        bounds = begins(counts)
        positions = np.empty(bounds[-1], np.uint32)
        roots = ranges.depths == 0
        if roots.any():
            everything = np.delete(np.arange(self.tables.codes, dtype=np.uint32), self.tables.starts[:-1])
            for beam in np.flatnonzero(roots).tolist():
                positions[bounds[beam] : bounds[beam + 1]] = everything
        for part, part_bounds in _blocks(ranges, bounds):
            check()
            self._positions(part, part_bounds, positions)
        kept = counts if limit is None else np.minimum(counts, limit)
        offsets = begins(kept)
        wanted = np.empty(offsets[-1], np.uint32)
        for beam, most in enumerate(kept.tolist()):
            here = positions[bounds[beam] : bounds[beam + 1]]
            here.sort()
            wanted[offsets[beam] : offsets[beam + 1]] = here[:most]
        documents = np.searchsorted(self.tables.starts, wanted, side="right") - 1
        places = wanted.astype(np.int64) - self.tables.starts[documents] - 1
        # A match of a document's beginning was found at the separator.
        return Locations(offsets, documents.astype(np.int64), np.maximum(places, 0))

    @abstractmethod
    def _positions(self, ranges: Ranges, bounds: Int64, positions: Uint32) -> None:
        """Write where in the text each match of at least one token begins, in any order, from bounds[b] on."""

    def text(self, document: int) -> npt.NDArray[np.int32]:
        """Return the tokens of a document, int32. Raises RequestError on one that does not exist."""
        if not 0 <= document < self.documents:
            raise RequestError(f"document {document} does not exist, expected 0 to {self.documents - 1}")
        return self.tables.alphabet.decode(self._codes(document))

    @abstractmethod
    def _codes(self, document: int) -> npt.NDArray[Any]:
        """Return the codes of a document."""


def begins(counts: Int64) -> Int64:
    """Return where the entries of each beam begin, and where the last end: int64 (B + 1,)."""
    offsets = np.zeros(len(counts) + 1, np.int64)
    np.cumsum(counts, out=offsets[1:])
    return offsets


def _blocks(ranges: Ranges, bounds: Int64) -> Iterator[tuple[Ranges, Int64]]:
    """Cut all rows of some matches into blocks; yield the ranges of each, and where their entries begin and end.

    bounds: int64 (B + 1,), where the entries of each match begin, and where the last end. A match may be in several
    blocks, and then its entries are.
    """
    total = int(bounds[-1])
    for begin in range(0, total, _BLOCK):
        end = min(begin + _BLOCK, total)
        first, last = np.searchsorted(bounds, begin, side="right") - 1, np.searchsorted(bounds, end)
        part = bounds[first : last + 1].clip(begin, end)
        lows = ranges.lows[first:last] + part[:-1] - bounds[first:last]
        yield Ranges(lows, lows + np.diff(part), ranges.depths[first:last]), part


@kernel
def _assemble(slots: Any, is_root: Any, known: Any, answer: Any, first: int, last: int) -> None:
    """Copy each beam's successors to where they belong, as tokens; those of empty matches from the tables."""
    firsts, tokens = known
    for beam in range(first, last):
        out = answer.offsets[beam]
        if is_root[beam]:
            for code in range(1, len(tokens)):
                answer.tokens[out] = tokens[code]
                answer.counts[out] = firsts[code + 1] - firsts[code]
                out += 1
            continue
        place = slots.places[beam]
        for index in range(answer.offsets[beam + 1] - out):
            answer.tokens[out + index] = tokens[slots.codes[place + index]]
            answer.counts[out + index] = slots.counts[place + index]
