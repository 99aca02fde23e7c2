"""Substring indexes on a device, by torch: the next tokens of all matches as gathers over all their rows at once.

The device holds what rows are followed by; extension, places and documents stay with the memory-mapped form on the CPU.
An extension is some 40 reads that wait for each other: .03 to .1 ms for 300 matches there, hundreds of small steps on a
device. States are those of the CPU's form: the two may take turns.
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
from index.wavelet_matrix import read_levels

if TYPE_CHECKING:
    from torch import Tensor

_ROWS: Final = 1 << 24
"""Rows looked at together, 100 bytes each on the device while they are. Matches of more rows are left to the CPU."""


def on_torch(index: SubstringIndex, device: str) -> SubstringIndex:
    """Return an opened index whose next tokens are found on a device; its answers are the same.

    device: "cuda:0" ..., or "cpu" for tests. Memory on the device: 6 bytes a code of the fast form with 16-bit codes, 2
    of the compact one, and up to 1.7 GB during a call. Raises ConfigError on another device's name, RuntimeError
    (torch) where it fails. Cost: a copy; of the compact form also a pass over all levels.
    """
    if isinstance(index, ShardedSubstring):
        return index.moved(partial(on_torch, device=device))
    if isinstance(index, SuffixArray):
        return TorchSuffixArray(index, device)
    if isinstance(index, FMIndex):
        return TorchFMIndex(index, device)
    raise TypeError(f"index is a {type(index).__name__}, expected what open_substring returns")


class _OnDevice(SubstringShard):
    """What both forms do on a device: entries stay there until they are tokens and counts."""

    _device: str
    _ascending: bool
    """Whether the codes behind the rows of a match ascend."""

    def _move(self, device: str) -> None:
        self._device = canonical(device)
        self._tokens = self._sent(self.tables.alphabet.tokens)

    def _sent(self, values: npt.NDArray[np.integer]) -> "Tensor":
        """Return an array on the device. Torch gathers no unsigned numbers everywhere: the bits are kept."""
        return on_device(self._device, partial(_sent, values.view(f"i{values.itemsize}"), self._device))

    def continuations(self, state: State) -> Continuations:
        """Return which tokens follow each match and how often; see SubstringIndex."""
        ranges = self._ranges(state)
        rows = ranges.highs - ranges.lows
        here = np.flatnonzero((ranges.depths == 0) | (rows > _ROWS))
        rows[here] = 0
        found = np.zeros(len(state), np.int64)
        parts = []
        for beams in _batches(rows):
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

        sizes = ranges.highs - ranges.lows
        rows = int(sizes.sum())
        # From a match's place among all rows to its place among those of the index.
        widths, shifts, depths = _sent(np.stack([sizes, ranges.lows - begins(sizes)[:-1], ranges.depths]), self._device)
        owners = torch.repeat_interleave(torch.arange(len(sizes), device=self._device), widths, output_size=rows)
        at = torch.arange(rows, device=self._device) + shifts[owners]
        keys = owners << 32 | self._behind(at, depths[owners])
        if not self._ascending:
            keys = keys.sort().values
        begun = torch.nonzero(torch.cat([keys.new_ones(1, dtype=torch.bool), keys[1:] != keys[:-1]]))[:, 0]
        counts = torch.diff(begun, append=begun.new_tensor([rows]))
        keys = keys[begun]
        codes = keys & 0xFFFFFFFF
        kept = codes > 0
        found = torch.bincount(keys[kept] >> 32, minlength=len(sizes))
        # What travels is short: a count is at most the codes of a shard.
        tokens, short = self._tokens[codes[kept]].cpu().numpy(), counts[kept].int().cpu().numpy()
        return found.cpu().numpy(), tokens, short.astype(np.int64)

    @abstractmethod
    def _behind(self, rows: "Tensor", depths: "Tensor") -> "Tensor":
        """Return the code behind the match of each row, int64. rows, depths: int64 (R,)."""


class TorchSuffixArray(_OnDevice, SuffixArray):
    """A suffix array on a device: its text and its suffixes."""

    _ascending = True

    def __init__(self, index: SuffixArray, device: str) -> None:
        super().__init__(index.tables, index.array, index.wide, index.rows, index.identity, index.threads)
        self._move(device)
        text = index.array.text
        self._text, self._suffixes = self._sent(text), self._sent(index.places())
        self._mask = (1 << 8 * text.itemsize) - 1

    def _behind(self, rows: "Tensor", depths: "Tensor") -> "Tensor":
        places = (self._suffixes[rows].long() + depths).clamp_(max=len(self._text) - 1)
        return self._text[places].long() & self._mask


class TorchFMIndex(_OnDevice, FMIndex):
    """An FM-index on a device: its Burrows-Wheeler transform, of which the next tokens of a match are a slice."""

    _ascending = False

    def __init__(self, index: FMIndex, device: str) -> None:
        super().__init__(index.tables, index.matrix, index.known, index.entries, index.identity, index.threads)
        self._move(device)
        transform = read_levels(*index.matrix, index.tables.firsts, index.tables.alphabet.dtype)
        self._transform = self._sent(transform)
        self._mask = (1 << 8 * transform.itemsize) - 1

    def _behind(self, rows: "Tensor", depths: "Tensor") -> "Tensor":  # noqa: ARG002  of whatever length the match is
        return self._transform[rows].long() & self._mask


def _sent(values: npt.NDArray[np.integer], device: str) -> "Tensor":
    import torch  # noqa: PLC0415  as above

    # A copy: torch warns of arrays that may not be written to, such as memory maps.
    return torch.from_numpy(values.copy()).to(device)


def _batches(rows: Int64) -> list[Int64]:
    """Return beams in spans of about _ROWS rows together, one beam at least; those without rows left out."""
    beams = np.flatnonzero(rows)
    if not len(beams):
        return []
    number = (np.cumsum(rows[beams]) - rows[beams]) // _ROWS
    return np.split(beams, np.flatnonzero(np.diff(number)) + 1)
