"""Several shards as one index: counts add up, continuations unite, locations follow each other.

A document lies in one shard, whole, and shards follow each other in the order of the documents; so nothing that two
shards answer overlaps. There may be more than 2^31 tokens and documents.
"""

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from index.errors import RequestError, ShapeError
from index.types import Continuations, Locations, State, SubstringIndex


class ShardedSubstring:
    """A SubstringIndex over S >= 1 shards of one vocabulary; states are (B, S, 3). Cost: that of all shards."""

    def __init__(self, shards: Sequence[SubstringIndex]) -> None:
        assert len({shard.vocab_size for shard in shards}) == 1, "shards share a vocabulary"
        self._shards = tuple(shards)
        self._firsts = np.cumsum([0, *(shard.documents for shard in shards)], dtype=np.int64)

    @property
    def vocab_size(self) -> int:
        """Tokens are at least 0 and below it."""
        return self._shards[0].vocab_size

    @property
    def tokens(self) -> int:
        """Number of tokens of all documents together."""
        return sum(shard.tokens for shard in self._shards)

    @property
    def documents(self) -> int:
        """Number of documents."""
        return int(self._firsts[-1])

    def root(self, beams: int) -> State:
        """Return `beams` empty matches."""
        return np.concatenate([shard.root(beams) for shard in self._shards], axis=1)

    def starts(self, beams: int) -> State:
        """Return `beams` matches of the beginning of a document."""
        return np.concatenate([shard.starts(beams) for shard in self._shards], axis=1)

    def moved(self, move: Callable[[SubstringIndex], SubstringIndex]) -> "ShardedSubstring":
        """Return this index with other forms of the same shards, ones on a device say."""
        return ShardedSubstring([move(shard) for shard in self._shards])

    def _parts(self, state: State) -> list[State]:
        if state.dtype != np.int64 or state.ndim != 3 or state.shape[1:] != (len(self._shards), 3):
            raise ShapeError(
                f"state is {state.dtype} {state.shape}, expected int64 (B, {len(self._shards)}, 3): "
                "begin with root or starts"
            )
        return [state[:, place : place + 1] for place in range(len(self._shards))]

    def extend(self, state: State, tokens: npt.NDArray[np.integer]) -> State:
        """Append one token to each match; see SubstringIndex."""
        parts = zip(self._shards, self._parts(state), strict=True)
        return np.concatenate([shard.extend(part, tokens) for shard, part in parts], axis=1)

    def count(self, state: State) -> npt.NDArray[np.int64]:
        """Return how often each match occurs, int64 (B,)."""
        parts = zip(self._shards, self._parts(state), strict=True)
        counts: npt.NDArray[np.int64] = np.sum([shard.count(part) for shard, part in parts], axis=0)
        return counts

    def continuations(self, state: State) -> Continuations:
        """Return which tokens follow each match and how often; see SubstringIndex."""
        parts = zip(self._shards, self._parts(state), strict=True)
        answers = [shard.continuations(part) for shard, part in parts]
        if len(answers) == 1:
            return answers[0]
        # Tokens are below 2^31: beam and token fit one sortable number.
        keys = np.concatenate([_owners(each.offsets) << 32 | each.tokens for each in answers])
        order = np.argsort(keys, kind="stable")
        ascending = keys[order]
        firsts = np.flatnonzero(np.concatenate([[True], ascending[1:] != ascending[:-1]])[: len(keys)])
        counts = np.concatenate([each.counts for each in answers])[order]
        united = ascending[firsts]
        offsets = np.searchsorted(united, np.arange(len(state) + 1) << 32)
        added = np.add.reduceat(counts, firsts) if len(firsts) else counts
        return Continuations(offsets.astype(np.int64), (united & 0xFFFFFFFF).astype(np.int32), added)

    def locate(self, state: State, limit: int | None = None) -> Locations:
        """Return where each match occurs; see SubstringIndex."""
        parts = zip(self._shards, self._parts(state), strict=True)
        answers = [shard.locate(part, limit) for shard, part in parts]
        owners = np.concatenate([_owners(each.offsets) for each in answers])
        # Stable: within a beam, places stay in the order of the shards.
        order = np.argsort(owners, kind="stable")
        documents = np.concatenate(
            [first + each.documents for first, each in zip(self._firsts[:-1], answers, strict=True)]
        )
        places = np.concatenate([each.places for each in answers])
        counts = np.bincount(owners, minlength=len(state))
        if limit is not None:
            begins = np.cumsum(counts) - counts
            order = order[np.arange(len(order)) - np.repeat(begins, counts) < limit]
            counts = np.minimum(counts, limit)
        offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        return Locations(offsets, documents[order], places[order])

    def text(self, document: int) -> npt.NDArray[np.int32]:
        """Return the tokens of a document, int32. Raises RequestError on one that does not exist."""
        if not 0 <= document < self.documents:
            raise RequestError(f"document {document} does not exist, expected 0 to {self.documents - 1}")
        shard = int(np.searchsorted(self._firsts, document, side="right")) - 1
        return self._shards[shard].text(document - int(self._firsts[shard]))


def _owners(offsets: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return the beam of each entry."""
    return np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
