"""Documents of token ids as one text of codes: a separator before every document, one more at the end.

    text     code  0 t t t 0 t t 0 0 t t t t 0      N tokens of D documents: N + D codes, and the last separator
    place          0       4     7 8         13     starts: uint32 (D + 1,), the separator of each document

The separator is smaller than every token, and a match is never extended by it.
"""

from array import array
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from index.alphabet import SEPARATOR, Alphabet, Codes
from index.array_file import map_array, write_array
from index.errors import CorpusError, IndexFormatError

_FILES: Final = ("symbols", "firsts", "starts")

_BLOCK = 1 << 20
"""Tokens handled at a time, so that passing temporaries stay small."""


class Tables(NamedTuple):
    """What is known of a text without looking at its order.

    firsts: uint32 (S + 2,), firsts[c] = how many codes of the text are below c, so that [firsts[c], firsts[c + 1]) are
    the rows of its sorted suffixes that begin with c. starts: uint32 (D + 1,), see above.
    """

    alphabet: Alphabet
    firsts: npt.NDArray[np.uint32]
    starts: npt.NDArray[np.uint32]

    @property
    def documents(self) -> int:
        """Number of documents D."""
        return len(self.starts) - 1

    @property
    def codes(self) -> int:
        """Number of codes N + D: one separator a document."""
        return int(self.starts[-1])

    def write(self, folder: Path) -> None:
        """Write symbols.npy, firsts.npy and starts.npy."""
        tokens, size = self.alphabet.tokens[1:], self.alphabet.vocab_size
        symbols: npt.NDArray[Any] = tokens.astype(np.uint32)
        if 32 * len(tokens) > size:  # bits are shorter: most vocabularies occur nearly whole
            occurs = np.zeros(size, np.bool_)
            occurs[tokens] = True
            symbols = np.packbits(occurs)
        for name, values in zip(_FILES, (symbols, self.firsts, self.starts), strict=True):
            write_array(folder / f"{name}.npy", values)

    @classmethod
    def open(cls, folder: Path, vocab_size: int) -> "Tables":
        """Map what `write` wrote. Raises IndexFormatError where it does not fit together."""
        symbols, firsts, starts = (map_array(folder / f"{name}.npy", ndim=1) for name in _FILES)
        if symbols.dtype == np.uint8:
            symbols = np.flatnonzero(np.unpackbits(symbols)[:vocab_size]).astype(np.uint32)
        fits = {each.dtype for each in (symbols, firsts, starts)} == {np.dtype(np.uint32)}
        if (
            not fits
            or len(firsts) != len(symbols) + 2
            or not len(starts)
            or (firsts[0], firsts[1], firsts[-1]) != (0, len(starts) - 1, starts[-1])
            or (len(symbols) and symbols[-1] >= vocab_size)
        ):
            raise IndexFormatError(f"{folder}: symbols, firsts and starts do not fit together: rebuild it")
        return cls(Alphabet(symbols, vocab_size), firsts, starts)


class Collector:
    """Takes in documents until a shard is full, then gives its text.

    most: codes of a shard, N + D. Memory: 2 bytes a token where vocab_size <= 65,536, else 4; `finish` takes as much
    again.
    """

    def __init__(self, vocab_size: int, most: int) -> None:
        self._vocab_size = vocab_size
        self._most = most
        self._raw = np.empty(_BLOCK, np.uint16 if vocab_size <= 1 << 16 else np.uint32)
        self._used = 0
        # Not a list: that takes ten times as much a document.
        self._starts = array("I")

    def __len__(self) -> int:
        return len(self._starts)

    @property
    def codes(self) -> int:
        """Codes taken in so far."""
        return self._used

    def fits(self, tokens: npt.NDArray[Any]) -> bool:
        """Whether the shard has room for another document."""
        return self._used + 1 + len(tokens) <= self._most

    def add(self, tokens: npt.NDArray[Any], number: int) -> None:
        """Take in one document. tokens: integers (n,). number: what an error calls it.

        Raises CorpusError on another shape or dtype, a token outside the vocabulary, a document larger than a shard.
        """
        if tokens.ndim != 1 or (len(tokens) and tokens.dtype.kind not in "iu"):
            raise CorpusError(f"document {number} is {tokens.dtype} {tokens.shape}, expected integers (n,)")
        if len(tokens) and not 0 <= int(tokens.min()) <= int(tokens.max()) < self._vocab_size:
            wrong = tokens[(tokens < 0) | (tokens >= self._vocab_size)]
            raise CorpusError(
                f"document {number} holds token {wrong[0]}, expected 0 to {self._vocab_size - 1}: "
                "was it tokenized with another vocabulary?"
            )
        if not self.fits(tokens):
            raise CorpusError(
                f"document {number} has {len(tokens)} tokens, a shard holds {self._most - 1}: split it, or raise "
                "shard_tokens"
            )
        end = self._used + 1 + len(tokens)
        if end > len(self._raw):
            # In place where the allocator can: doubling would hold the text twice.
            self._raw.resize(max(end, min(self._most, len(self._raw) * 3 // 2)), refcheck=False)
        self._starts.append(self._used)
        self._raw[self._used] = 0
        self._raw[self._used + 1 : end] = tokens
        self._used = end

    def finish(self) -> tuple[Codes, Tables]:
        """Return the text, codes (N + D + 1,), and its tables; the collector is used up."""
        raw, self._raw = self._raw[: self._used], np.empty(0, self._raw.dtype)
        starts = np.append(np.frombuffer(self._starts, np.uint32), np.uint32(self._used))
        alphabet = Alphabet(_symbols(raw, starts), self._vocab_size)
        text = np.empty(len(raw) + 1, alphabet.dtype)
        occurrences = np.zeros(len(alphabet) + 1, np.int64)
        for first in range(0, len(raw), _BLOCK):
            text[first : first + _BLOCK][: len(raw) - first] = alphabet.encode(raw[first : first + _BLOCK])
        text[starts] = SEPARATOR
        for first in range(0, len(raw), _BLOCK):
            occurrences += np.bincount(text[first : min(first + _BLOCK, len(raw))], minlength=len(occurrences))
        firsts = np.concatenate([[0], np.cumsum(occurrences)]).astype(np.uint32)
        return text, Tables(alphabet, firsts, starts)


def _symbols(raw: npt.NDArray[Any], starts: npt.NDArray[np.uint32]) -> npt.NDArray[np.uint32]:
    """Return the distinct tokens; separators are overwritten with one that occurs."""
    separators = starts[:-1]
    if len(raw) == len(separators):
        return np.empty(0, np.uint32)
    longest = int(np.argmax(np.diff(starts)))
    raw[separators] = raw[starts[longest] + 1]
    blocks = [np.unique(raw[first : first + _BLOCK]) for first in range(0, len(raw), _BLOCK)]
    return np.unique(np.concatenate(blocks)).astype(np.uint32)
