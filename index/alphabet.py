"""Tokens and codes: the tokens that occur in a text, numbered from 1 in ascending order; 0 is the separator.

A vocabulary may have 2^31 tokens, a text uses as many as it uses. Codes are as short as the text allows: 16 bits where
at most 65,535 different tokens occur.
"""

from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt

MOST_TOKENS: Final = 1 << 31
"""Tokens are int32: a vocabulary is not larger."""

SEPARATOR: Final = 0

Codes: TypeAlias = npt.NDArray[Any]
"""uint16 or uint32: the codes of a text."""

_TABLE_SIZE = 1 << 20
"""Vocabularies up to this size get a table, 4 MiB at most; in larger ones a token is searched for."""


class Alphabet:
    """The tokens that occur.

    symbols: uint32 (S,), strictly ascending, below vocab_size.
    """

    def __init__(self, symbols: npt.NDArray[np.uint32], vocab_size: int) -> None:
        self.vocab_size = vocab_size
        self._symbols = symbols
        self.tokens: npt.NDArray[np.int32] = np.concatenate([[-1], symbols]).astype(np.int32)
        """int32 (S + 1,): the token of each code; -1 for the separator."""
        self._codes: npt.NDArray[np.int32] | None = None
        if vocab_size <= _TABLE_SIZE:
            self._codes = np.zeros(vocab_size, np.int32)
            self._codes[symbols] = np.arange(1, len(symbols) + 1, dtype=np.int32)

    def __len__(self) -> int:
        return len(self._symbols)

    @property
    def dtype(self) -> np.dtype[Any]:
        """The shortest type that holds every code."""
        return np.dtype(np.uint16 if len(self) < 1 << 16 else np.uint32)

    def decode(self, codes: Codes) -> npt.NDArray[np.int32]:
        """Return the tokens of some codes, int32; -1 for a separator."""
        return self.tokens.take(codes)

    def encode(self, tokens: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
        """Return the codes of `tokens`, integers in [0, vocab_size); 0 for one that does not occur."""
        if self._codes is not None:
            return np.asarray(self._codes[tokens], np.int64)
        if not len(self):
            return np.zeros(len(tokens), np.int64)
        wanted = tokens.astype(np.uint32)
        places = np.searchsorted(self._symbols, wanted)
        places[places == len(self)] = 0
        return np.where(self._symbols[places] == wanted, places + 1, 0)
