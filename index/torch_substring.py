"""Substring indexes on a device, by torch: the two forms as gathers over all rows, or all nodes, of all beams at once.

Extension and next tokens run on the device; places and documents stay with the memory-mapped form on the CPU, which
they read a few lines of. States are those of the CPU's form: the two may take turns.
"""

from abc import abstractmethod
from functools import partial
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

from index.device import canonical, on_device
from index.fm_index import FMIndex
from index.substring_ranges import Int64, Ranges
from index.substring_shard import SubstringShard, begins
from index.substring_shards import ShardedSubstring
from index.suffix_array import SuffixArray
from index.types import Continuations, State, SubstringIndex
from index.wavelet_kernels import BITS, WORDS

if TYPE_CHECKING:
    from torch import Tensor

_ROWS: Final = 1 << 22
"""Rows looked at together: some .5 GB on the device. Beams of more rows are left to the CPU."""

_NODES: Final = 1 << 20
"""Nodes looked at together: some 1 GB."""

_COUNT_BITS: Final = 0xFFFFFFFF


def on_torch(index: SubstringIndex, device: str) -> SubstringIndex:
    """Return an opened index with its arrays on a device; its answers are the same.

    device: "cuda:0" ..., or "cpu" for tests. Memory on the device: 6 bytes a code of the fast form with 16-bit codes,
    2.1 of the compact one, and 1 GB. Raises ConfigError on another device's name, RuntimeError (torch) where it fails.
    """
    if isinstance(index, ShardedSubstring):
        return index.moved(partial(on_torch, device=device))
    if isinstance(index, SuffixArray):
        return TorchSuffixArray(index, device)
    if isinstance(index, FMIndex):
        return TorchFMIndex(index, device)
    raise TypeError(f"index is a {type(index).__name__}, expected what open_substring returns")


class _Moved(SubstringShard):
    """What both forms do on a device: entries stay there until they are tokens and counts."""

    _device: str
    _tokens: "Tensor"

    def continuations(self, state: State) -> Continuations:
        """Return which tokens follow each match and how often; see SubstringIndex."""
        ranges = self._ranges(state)
        needed, most = self._needed(ranges)
        here = np.flatnonzero((ranges.depths == 0) | (needed > most))
        needed[here] = 0
        found = np.zeros(len(state), np.int64)
        parts = []
        for beams in _batches(needed, most):
            part = Ranges(*(each[beams] for each in ranges))
            found[beams], tokens, counts = on_device(self._device, partial(self._followers, part))
            parts.append((beams, tokens, counts))
        if len(here):
            known = super().continuations(state[here])
            found[here] = np.diff(known.offsets)
            parts.append((here, known.tokens, known.counts))
        offsets = begins(found)
        if len(parts) == 1:
            return Continuations(offsets, *parts[0][1:])
        answer = Continuations(offsets, np.empty(offsets[-1], np.int32), np.empty(offsets[-1], np.int64))
        for beams, tokens, counts in parts:
            into = np.arange(len(tokens)) + np.repeat(offsets[beams] - begins(found[beams])[:-1], found[beams])
            answer.tokens[into], answer.counts[into] = tokens, counts
        return answer

    def _followers(self, ranges: Ranges) -> tuple[Int64, npt.NDArray[np.int32], Int64]:
        """Return how many tokens follow each match, and all of them with their counts."""
        import torch  # noqa: PLC0415  as everywhere: only where it is used

        owners, codes, counts = self._entries(ranges)
        kept = codes > 0
        owners, codes, counts = owners[kept], codes[kept], counts[kept]
        found = torch.bincount(owners, minlength=len(ranges.lows))
        # What travels is short: a count is at most the codes of a shard.
        tokens, short = self._tokens[codes].cpu().numpy(), counts.int().cpu().numpy()
        return found.cpu().numpy(), tokens, short.astype(np.int64)

    @abstractmethod
    def _needed(self, ranges: Ranges) -> tuple[Int64, int]:
        """Return how many rows or nodes each match may need on the device, and how many fit there together."""

    @abstractmethod
    def _entries(self, ranges: Ranges) -> "tuple[Tensor, Tensor, Tensor]":
        """Return beam, code and count of all that follows some matches, int64; by beam, codes ascending."""


class TorchSuffixArray(_Moved, SuffixArray):
    """A suffix array on a device. Cost: some 30 small steps to extend; a gather for each row for the next tokens."""

    def __init__(self, index: SuffixArray, device: str) -> None:
        super().__init__(index.tables, *index.array, index.wide, index.identity, index.threads)
        self._device = canonical(device)
        text, suffixes = index.array
        # Torch gathers no unsigned numbers everywhere: the bits are kept, and the sign is taken off when they are read.
        self._text = on_device(device, partial(_sent, text.view(f"i{text.itemsize}"), self._device))
        self._suffixes = on_device(device, partial(_sent, suffixes.view(np.int32), self._device))
        self._tokens = on_device(device, partial(_sent, index.tables.alphabet.tokens, self._device))
        self._mask = (1 << 8 * text.itemsize) - 1

    def _next(self, rows: "Tensor", depths: "Tensor") -> "Tensor":
        """Return the codes behind the matches of some rows, int64."""
        places = (self._suffixes[rows].long() + depths).clamp_(max=len(self._text) - 1)
        return self._text[places].long() & self._mask

    def _extended(self, ranges: Ranges, codes: Int64) -> tuple[Int64, Int64]:
        firsts = self.tables.firsts
        at_root = (ranges.depths == 0) & (ranges.highs > ranges.lows)
        lows, highs = on_device(self._device, partial(self._narrowed, ranges, codes))
        return (
            np.where(at_root, firsts[codes], lows),
            np.where(at_root, firsts[codes + 1], highs),
        )

    def _narrowed(self, ranges: Ranges, codes: Int64) -> tuple[Int64, Int64]:
        import torch  # noqa: PLC0415  as above

        lows, highs, depths = (_sent(each, self._device) for each in ranges)
        wanted = _sent(codes, self._device)
        # The first row of the code and the first behind it, searched for at the same time.
        wanted, depths = torch.cat([wanted, wanted + 1]), depths.repeat(2)
        low, high = lows.repeat(2), highs.repeat(2)
        for _ in range(int((ranges.highs - ranges.lows).max(initial=0)).bit_length()):
            middle = (low + high) >> 1
            below = (low < high) & (self._next(middle.clamp(max=len(self._suffixes) - 1), depths) < wanted)
            low, high = torch.where(below, middle + 1, low), torch.where(below, high, torch.minimum(high, middle))
        first, behind = low.cpu().numpy().reshape(2, -1)
        return first, behind

    def _needed(self, ranges: Ranges) -> tuple[Int64, int]:
        return ranges.highs - ranges.lows, _ROWS

    def _entries(self, ranges: Ranges) -> "tuple[Tensor, Tensor, Tensor]":
        """Return beam, code and count of every run of next codes."""
        import torch  # noqa: PLC0415  as above

        widths = ranges.highs - ranges.lows
        rows = int(widths.sum())
        depths, sizes = _sent(ranges.depths, self._device), _sent(widths, self._device)
        # From a beam's place among all rows to its place in the suffix array.
        shift = _sent(ranges.lows - begins(widths)[:-1], self._device)
        owners = torch.repeat_interleave(torch.arange(len(sizes), device=self._device), sizes, output_size=rows)
        codes = self._next(torch.arange(rows, device=self._device) + shift[owners], depths[owners])
        keys = owners << 32 | codes
        begun = torch.nonzero(torch.cat([keys.new_ones(1, dtype=torch.bool), keys[1:] != keys[:-1]]))[:, 0]
        counts = torch.diff(begun, append=begun.new_tensor([rows]))
        return owners[begun], codes[begun], counts


class TorchFMIndex(_Moved, FMIndex):
    """An FM-index on a device. Cost: a step a level, of two gathers of a cache line for every node of every beam."""

    def __init__(self, index: FMIndex, device: str) -> None:
        super().__init__(index.tables, index.matrix, index.known, index.entries, index.identity, index.threads)
        self._device = canonical(device)
        words, zeros = index.matrix
        self._zeros = zeros.tolist()
        self._stride = len(words) // len(zeros)
        self._words = on_device(device, partial(_sent, words.view(np.int64), self._device))
        self._tokens = on_device(device, partial(_sent, index.tables.alphabet.tokens, self._device))

    def _ones(self, level: int, rows: "Tensor") -> "Tensor":
        """Return the number of ones of a level before some rows, int64."""
        import torch  # noqa: PLC0415  as above

        blocks = rows // BITS
        places = rows - blocks * BITS + 32
        at = level * self._stride + blocks * WORDS
        inside = torch.arange(WORDS, device=self._device)
        words = self._words[at[:, None] + inside]
        bits = (places[:, None] - 64 * inside).clamp_(0, 64)
        masks = torch.where(bits == 64, -1, (torch.ones_like(bits) << bits.clamp(max=63)) - 1)
        masks[:, 0] &= ~_COUNT_BITS
        return (words[:, 0] & _COUNT_BITS) + _popcount(words & masks).sum(dim=1)

    def _extended(self, ranges: Ranges, codes: Int64) -> tuple[Int64, Int64]:
        return on_device(self._device, partial(self._narrowed, ranges, codes))

    def _narrowed(self, ranges: Ranges, codes: Int64) -> tuple[Int64, Int64]:
        import torch  # noqa: PLC0415  as above

        rows = torch.cat([_sent(ranges.lows, self._device), _sent(ranges.highs, self._device)])
        wanted = _sent(codes, self._device).repeat(2)
        for level, zeros in enumerate(self._zeros):
            ones = self._ones(level, rows)
            is_one = (wanted >> (len(self._zeros) - 1 - level)) & 1 == 1
            rows = torch.where(is_one, zeros + ones, rows - ones)
        lows, highs = rows.cpu().numpy().reshape(2, -1)
        return lows, highs

    def _needed(self, ranges: Ranges) -> tuple[Int64, int]:
        # No more nodes than rows, nor than symbols and separator.
        return np.minimum(ranges.highs - ranges.lows, len(self.tables.alphabet) + 1), _NODES

    def _entries(self, ranges: Ranges) -> "tuple[Tensor, Tensor, Tensor]":
        """Return beam, code and count of every code in some ranges."""
        import torch  # noqa: PLC0415  as above

        lows, highs = _sent(ranges.lows, self._device), _sent(ranges.highs, self._device)
        owners = torch.arange(len(lows), device=self._device)
        codes = torch.zeros_like(owners)
        for level, zeros in enumerate(self._zeros):
            low_ones, high_ones = self._ones(level, torch.cat([lows, highs])).view(2, -1)
            # Both children of a node side by side keep the codes of a beam ascending.
            lows = torch.stack([lows - low_ones, zeros + low_ones], dim=1).view(-1)
            highs = torch.stack([highs - high_ones, zeros + high_ones], dim=1).view(-1)
            codes = torch.stack([codes << 1, codes << 1 | 1], dim=1).view(-1)
            held = torch.nonzero(lows < highs)[:, 0]
            lows, highs, codes, owners = lows[held], highs[held], codes[held], owners[held >> 1]
        return owners, codes, highs - lows


def _sent(values: npt.NDArray[np.integer], device: str) -> "Tensor":
    import torch  # noqa: PLC0415  as above

    # A copy: torch warns of arrays that may not be written to, such as memory maps.
    return torch.from_numpy(values.copy()).to(device)


def _popcount(words: "Tensor") -> "Tensor":
    """Return the number of ones of int64 numbers: torch has no instruction for it."""
    words = words - ((words >> 1) & 0x5555555555555555)
    words = (words & 0x3333333333333333) + ((words >> 2) & 0x3333333333333333)
    words = (words + (words >> 4)) & 0x0F0F0F0F0F0F0F0F
    return (words * 0x0101010101010101) >> 56


def _batches(widths: Int64, most: int) -> list[Int64]:
    """Return beams in spans of about `most` rows together, one beam at least; those without rows left out."""
    beams = np.flatnonzero(widths)
    if not len(beams):
        return []
    number = (np.cumsum(widths[beams]) - widths[beams]) // most
    return np.split(beams, np.flatnonzero(np.diff(number)) + 1)
