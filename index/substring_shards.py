"""Several shards as one index: counts add up, continuations unite, locations follow each other.

A document lies in one shard, whole, and shards follow each other in the order of the documents; so nothing that two
shards answer overlaps. There may be more than 2^31 tokens and documents.
"""

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from index.errors import RequestError, ShapeError
from index.kernels import kernel, over_beams, usable_threads
from index.substring_shard import begins
from index.types import Check, Continuations, Locations, State, SubstringIndex, go_on

_ENTRY_COST: Final = 2
"""Nanoseconds to unite an entry of one shard with those of another."""


class ShardedSubstring:
    """A SubstringIndex over S >= 1 shards of one vocabulary; states are (B, S, 3). Cost: that of all shards.

    threads: how many may unite what the shards answer; None = see `usable_threads`. Shards answer one after another,
    each with threads of its own.
    """

    def __init__(self, shards: Sequence[SubstringIndex], threads: int | None = None) -> None:
        assert len({shard.vocab_size for shard in shards}) == 1, "shards share a vocabulary"
        self._shards = tuple(shards)
        self._threads = usable_threads(threads)
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
        return ShardedSubstring([move(shard) for shard in self._shards], self._threads)

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
        """Return which tokens follow each match and how often; see SubstringIndex.

        Cost: that of all shards, and some 2 log2(S) nanoseconds for each entry of their answers. Memory: that of their
        answers, and of the one answer.
        """
        parts = zip(self._shards, self._parts(state), strict=True)
        answers = deque(shard.continuations(part) for shard, part in parts)
        # Two at a time, as in a tournament: each entry is passed on log2(S) times, and what was united is let go.
        while len(answers) > 1:
            answers.append(_united(answers.popleft(), answers.popleft(), self._threads))
        return answers.pop()

    def locate(self, state: State, limit: int | None = None, check: Check = go_on) -> Locations:
        """Return where each match occurs; see SubstringIndex."""
        parts = zip(self._shards, self._parts(state), strict=True)
        answers = [shard.locate(part, limit, check) for shard, part in parts]
        owners = np.concatenate([_owners(each.offsets) for each in answers])
        # Stable: within a beam, places stay in the order of the shards.
        order = np.argsort(owners, kind="stable")
        documents = np.concatenate(
            [first + each.documents for first, each in zip(self._firsts[:-1], answers, strict=True)]
        )
        places = np.concatenate([each.places for each in answers])
        counts = np.bincount(owners, minlength=len(state))
        if limit is not None:
            firsts = begins(counts)[:-1]
            order = order[np.arange(len(order)) - np.repeat(firsts, counts) < limit]
            counts = np.minimum(counts, limit)
        return Locations(begins(counts), documents[order], places[order])

    def text(self, document: int) -> npt.NDArray[np.int32]:
        """Return the tokens of a document, int32. Raises RequestError on one that does not exist."""
        if not 0 <= document < self.documents:
            raise RequestError(f"document {document} does not exist, expected 0 to {self.documents - 1}")
        shard = int(np.searchsorted(self._firsts, document, side="right")) - 1
        return self._shards[shard].text(document - int(self._firsts[shard]))


def _owners(offsets: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return the beam of each entry."""
    return np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))


def _united(one: Continuations, other: Continuations, threads: int) -> Continuations:
    """Return the tokens of both, each once: where both have a token, its counts are added."""
    places = one.offsets + other.offsets
    tokens, counts = np.empty(places[-1], np.int32), np.empty(places[-1], np.int64)
    found = np.empty(len(places) - 1, np.int64)
    spans: list[tuple[int, int]] = []

    def work(first: int, last: int) -> None:
        _unite(one, other, (tokens, counts, found), first, last)
        spans.append((first, last))

    over_beams(work, np.diff(places) * _ENTRY_COST, threads)
    offsets = begins(found)
    # There was room for all entries: what both have leaves a gap behind each span, which was never written to.
    for first, last in sorted(spans):
        size = offsets[last] - offsets[first]
        for array in (tokens, counts):
            array[offsets[first] : offsets[last]] = array[places[first] : places[first] + size]
    for array in (tokens, counts):
        array.resize(offsets[-1], refcheck=False)
    return Continuations(offsets, tokens, counts)


@kernel
def _unite(one: Any, other: Any, united: Any, first: int, last: int) -> None:
    """Write the entries of beams [first, last) from where theirs begin in both on, without gaps, and how many of each.

    united: tokens, counts, and found int64 (B,).
    """
    tokens, counts, found = united
    unit = np.uint64(1)
    # Place 0 stays 0, 1 and 2 are the counts at hand: a sum of those that are taken, without a branch to mispredict.
    addends = np.zeros(3, np.int64)
    out = np.uint64(one.offsets[first] + other.offsets[first])
    for beam in range(first, last):
        begin = out
        here, here_end = np.uint64(one.offsets[beam]), np.uint64(one.offsets[beam + 1])
        there, there_end = np.uint64(other.offsets[beam]), np.uint64(other.offsets[beam + 1])
        while here < here_end and there < there_end:
            token, other_token = one.tokens[here], other.tokens[there]
            taken, other_taken = np.uint64(token <= other_token), np.uint64(other_token <= token)
            addends[1], addends[2] = one.counts[here], other.counts[there]
            tokens[out] = min(token, other_token)
            counts[out] = addends[taken] + addends[other_taken << unit]
            here += taken
            there += other_taken
            out += unit
        for place in range(here, here_end):
            tokens[out], counts[out] = one.tokens[place], one.counts[place]
            out += unit
        for place in range(there, there_end):
            tokens[out], counts[out] = other.tokens[place], other.counts[place]
            out += unit
        found[beam] = out - begin
