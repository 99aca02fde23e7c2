"""Core array types, and the protocols of vector and substring indexes.

Shapes are part of the contract: N rows, D dimensions, Q queries, k results; B beams, M entries of all beams together.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

Vectors: TypeAlias = npt.NDArray[np.float32]
"""float32 (N, D), C-contiguous."""

Rows: TypeAlias = npt.NDArray[np.int64]
"""int64; -1 means no result."""

Bitmap: TypeAlias = npt.NDArray[np.uint8]
"""Packed bits, one per row, little-endian within a byte (`np.packbits(..., bitorder="little")`)."""

Mask: TypeAlias = npt.NDArray[np.bool_]
"""Unpacked form of a Bitmap: bool (N,)."""


class Neighbors(NamedTuple):
    """Result of a batched vector search: best first, higher is better.

    scores: float32 (Q, k); rows: int64 (Q, k), padded with -1 where fewer than k rows exist (score -inf there).
    """

    scores: npt.NDArray[np.float32]
    rows: Rows


@dataclass(frozen=True, slots=True)
class Effort:
    """Search effort of one call, never a setting of the shared index; exact indexes ignore it."""

    nprobe: int | None = None
    ef: int | None = None
    refine: int | None = None


class VectorIndex(Protocol):
    """An immutable index of N vectors; rows are positions 0..N-1."""

    @property
    def dim(self) -> int:
        """Vector dimension D."""
        ...

    @property
    def degraded(self) -> str | None:
        """Why answers come from elsewhere than the device asked for, in one line; None as long as all is well."""
        ...

    def __len__(self) -> int: ...

    def search(
        self, queries: Vectors, k: int, allowed: Bitmap | None = None, effort: Effort | None = None
    ) -> Neighbors:
        """Return the k best rows for each query, among the allowed ones.

        queries: float32 (Q, D). allowed: packed bits over the N rows; None allows all.
        Raises ShapeError on shape or dtype, ValueError on k < 1.
        """
        ...

    def vectors(self, rows: Rows) -> Vectors:
        """Return the stored (prepared, see index.metric) vectors of `rows`, float32 (len(rows), D)."""
        ...


State: TypeAlias = npt.NDArray[np.int64]
"""int64 (B, shards, 3): what B beams have matched so far. Opaque: it means something to the index that made it only."""


Check: TypeAlias = Callable[[], None]
"""Called now and then by a call that may take long; what it raises ends the call."""


def go_on() -> None:
    """Be a Check that ends nothing."""


class Continuations(NamedTuple):
    """The tokens that follow each of B matches, with how often: beam b has entries offsets[b] to offsets[b + 1].

    offsets: int64 (B + 1,). tokens: int32 (M,), ascending within a beam. counts: int64 (M,), at least 1.
    """

    offsets: npt.NDArray[np.int64]
    tokens: npt.NDArray[np.int32]
    counts: npt.NDArray[np.int64]


class Locations(NamedTuple):
    """Where each of B matches begins: beam b has entries offsets[b] to offsets[b + 1], by document, then by place.

    offsets: int64 (B + 1,). documents: int64 (M,), in the order of the build from 0. places: int64 (M,), tokens before
    the match in its document.
    """

    offsets: npt.NDArray[np.int64]
    documents: npt.NDArray[np.int64]
    places: npt.NDArray[np.int64]


class SubstringIndex(Protocol):
    """An immutable index of every n-gram of D documents of token ids; an n-gram never spans two documents.

    A match grows token by token from `root` or `starts`, all beams in one call; no work is repeated for its beginning.
    Raises ShapeError on shapes and dtypes, RequestError on tokens outside the vocabulary and states of another index.
    """

    @property
    def vocab_size(self) -> int:
        """Tokens are at least 0 and below it; at most 2^31."""
        ...

    @property
    def tokens(self) -> int:
        """Number of tokens of all documents together."""
        ...

    @property
    def documents(self) -> int:
        """Number of documents D."""
        ...

    def root(self, beams: int) -> State:
        """Return B empty matches: they occur before every token, `tokens` times."""
        ...

    def starts(self, beams: int) -> State:
        """Return B matches of the beginning of a document: they occur `documents` times, and locate at place 0."""
        ...

    def extend(self, state: State, tokens: npt.NDArray[np.integer]) -> State:
        """Append one token to each match. tokens: integers (B,). A match that does not occur stays so."""
        ...

    def count(self, state: State) -> npt.NDArray[np.int64]:
        """Return how often each match occurs, int64 (B,)."""
        ...

    def continuations(self, state: State) -> Continuations:
        """Return which tokens follow each match and how often.

        The counts of a beam sum to the count of its match less its occurrences at the end of a document.
        """
        ...

    def locate(self, state: State, limit: int | None = None, check: Check = go_on) -> Locations:
        """Return where each match occurs, at most the first `limit` places of each.

        check: called before each 16,384 places or fewer are found; sorting them all, at the end, is not interrupted.
        """
        ...

    def text(self, document: int) -> npt.NDArray[np.int32]:
        """Return the tokens of a document, int32. Raises RequestError on one that does not exist."""
        ...
