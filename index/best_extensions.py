"""Lazy verification: the best scored tokens that may follow some beams, without asking for all that may.

A beam that occurs rarely is asked for its continuations. The tokens of the others are tried best first: few are tried
before enough are found to occur, and where they are not, those beams are asked for their continuations after all.
"""

from typing import Any, Final, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from index.errors import RequestError, ShapeError
from index.kernels import kernel, over_beams, usable_threads
from index.substring_ranges import Int64
from index.types import State, SubstringIndex

_RARE: Final = 4_096
"""Matches of so few occurrences are asked for their continuations at once: reading their scores costs more."""

_BLOCK: Final = 128
"""Scores that are compared at a time."""

_TRIED: Final = (2, 8)
"""How many tokens of a query are tried, in multiples of `keep`, before the rest is asked for."""

_SCORE_COST: Final = 0.25
_ENTRY_COST: Final = 5
"""Nanoseconds to read a score among others, and one of a token by itself."""

Float32: TypeAlias = npt.NDArray[np.float32]


class Extensions(NamedTuple):
    """The best extensions of each of Q queries: best first, ties by beam, then by token.

    beams: int64 (Q, keep), row of the state, or -1 where there are fewer. tokens: int32 (Q, keep), -1 there. scores:
    float32 (Q, keep), as given; -inf there.
    """

    beams: Int64
    tokens: npt.NDArray[np.int32]
    scores: Float32


class _Best(NamedTuple):
    """A heap of the best of each query, its worst at 0.

    scores: float32 (Q, k). places: int64 (Q, k). sizes: int64 (Q,), how many of the k are used. A place is beam of
    the query * V + token; of equal scores the smaller place is the better.
    """

    scores: Float32
    places: Int64
    sizes: Int64

    @classmethod
    def of(cls, queries: int, keep: int) -> "_Best":
        shape = (queries, keep)
        return cls(np.full(shape, -np.inf, np.float32), np.full(shape, -1, np.int64), np.zeros(queries, np.int64))


class _Tried(NamedTuple):
    """The last that was tried of each query: what comes before it in the order of the scores is known.

    scores: float32 (Q,). places: int64 (Q,), as those of _Best, -1 before anything was tried.
    """

    scores: Float32
    places: Int64


def best_extensions(
    index: SubstringIndex, state: State, scores: Float32, *, beams: int, keep: int, threads: int | None = None
) -> Extensions:
    """Return the `keep` best (beam, token) of each query that occur, exactly as if every other score were -inf.

    state: B = Q * beams matches, those of a query together. scores: float32 (B, V), V <= index.vocab_size; -inf where a
    token must not follow. Scores are compared within a query, as given.
    Raises ShapeError on shape or dtype, RequestError on keep < 1, and on NaN among the scores that are looked at.
    Cost: one pass over the scores, two where the best of them do not occur. Memory: 12 bytes for each continuation of
    the rare matches, and for Q * 8 * keep entries.
    """
    _check(index, state, scores, beams, keep)
    queries, width = len(state) // beams, scores.shape[1]
    threads = usable_threads(threads)
    best = _Best.of(queries, keep)
    tried = _Tried(np.full(queries, np.inf, np.float32), np.full(queries, -1, np.int64))
    counts = index.count(state)
    rare = np.flatnonzero((counts > 0) & (counts <= _RARE))
    _push_continuations(index, state, scores, rare, best, tried, threads)
    trying = (counts > _RARE).reshape(queries, beams)
    for factor in _TRIED:
        if not trying.any():
            break
        next_best = _Best.of(queries, min(factor * keep, beams * width))

        def scan(first: int, last: int, found: _Best = next_best) -> None:
            _scan(scores, trying, found, tried, first, last)

        over_beams(scan, (trying.sum(axis=1) * width * _SCORE_COST).astype(np.int64), threads)
        _refuse_nan(bool((next_best.sizes < 0).any()))
        values, places = _ordered(next_best)
        query, rank = np.nonzero(places >= 0)
        places_tried = places[query, rank]
        longer = index.extend(state[query * beams + places_tried // width], places_tried % width)
        occurs = index.count(longer) > 0
        _push(best, query[occurs], values[query, rank][occurs], places_tried[occurs])
        going_on = trying.any(axis=1)
        tried.scores[going_on], tried.places[going_on] = values[going_on, -1], places[going_on, -1]
        worst_score, worst_place = best.scores[:, 0], best.places[:, 0]
        outranked = worst_score > tried.scores
        outranked |= (worst_score == tried.scores) & (worst_place <= tried.places)
        # Nothing is left, or what is left is no better than what was found.
        trying[(tried.places < 0) | ((best.sizes == keep) & outranked)] = False
    _push_continuations(index, state, scores, np.flatnonzero(trying), best, tried, threads)
    values, places = _ordered(best)
    rows = np.arange(queries)[:, None] * beams + places // width
    missing = places < 0
    return Extensions(np.where(missing, -1, rows), np.where(missing, -1, places % width).astype(np.int32), values)


def _check(index: SubstringIndex, state: State, scores: Float32, beams: int, keep: int) -> None:
    if keep < 1 or beams < 1:
        raise RequestError(f"keep is {keep} and beams is {beams}, expected at least 1")
    if len(state) % beams:
        raise ShapeError(f"state has {len(state)} matches, expected a multiple of {beams}, the beams of a query")
    if scores.dtype != np.float32 or scores.ndim != 2 or len(scores) != len(state):
        raise ShapeError(f"scores are {scores.dtype} {scores.shape}, expected float32 ({len(state)}, V)")
    if not 1 <= scores.shape[1] <= index.vocab_size:
        raise ShapeError(
            f"scores have {scores.shape[1]} columns, expected 1 to the {index.vocab_size} of the vocabulary"
        )


def _refuse_nan(found: bool) -> None:
    if found:
        raise RequestError("scores hold NaN, expected numbers or -inf: look at the model's logits")


def _ordered(best: _Best) -> tuple[Float32, Int64]:
    """Return scores and places, best first; where there are fewer, -inf and -1."""
    order = np.lexsort((best.places, -best.scores), axis=-1)
    return np.take_along_axis(best.scores, order, axis=1), np.take_along_axis(best.places, order, axis=1)


def _push_continuations(
    index: SubstringIndex,
    state: State,
    scores: Float32,
    rows: Int64,
    best: _Best,
    tried: _Tried,
    threads: int,
) -> None:
    """Take in every token that follows the matches of some rows, ascending, but those up to the last that was tried."""
    if not len(rows):
        return
    answer = index.continuations(state[rows])
    queries = len(best.sizes)
    bounds = np.searchsorted(rows, np.arange(queries + 1) * (len(state) // queries))

    def push(first: int, last: int) -> None:
        _push_followers(scores, answer, (rows, bounds), best, tried, first, last)

    over_beams(push, np.diff(answer.offsets[bounds]) * _ENTRY_COST, threads)
    _refuse_nan(bool((best.sizes < 0).any()))


@kernel
def _worse(score: Any, place: Any, other_score: Any, other_place: Any) -> Any:
    return score < other_score or (score == other_score and place > other_place)


@kernel
def _insert(scores: Any, places: Any, size: Any, score: Any, place: Any) -> Any:
    """Take one entry into a heap of `size` entries if it is among the best; return the new size."""
    if size < len(scores):
        at = size
        while at > 0 and _worse(score, place, scores[(at - 1) >> 1], places[(at - 1) >> 1]):
            scores[at], places[at] = scores[(at - 1) >> 1], places[(at - 1) >> 1]
            at = (at - 1) >> 1
        scores[at], places[at] = score, place
        return size + 1
    if not _worse(scores[0], places[0], score, place):
        return size
    at = 0
    while True:
        child = 2 * at + 1
        if child >= size:
            break
        if child + 1 < size and _worse(scores[child + 1], places[child + 1], scores[child], places[child]):
            child += 1
        if not _worse(scores[child], places[child], score, place):
            break
        scores[at], places[at] = scores[child], places[child]
        at = child
    scores[at], places[at] = score, place
    return size


@kernel
def _push(best: Any, queries: Any, scores: Any, places: Any) -> None:
    """Take in entries, none of -inf."""
    for entry in range(len(queries)):
        query = queries[entry]
        best.sizes[query] = _insert(
            best.scores[query], best.places[query], best.sizes[query], scores[entry], places[entry]
        )


@kernel
def _push_followers(scores: Any, answer: Any, owners: Any, best: Any, tried: Any, first: int, last: int) -> None:
    """Take in the tokens that follow the matches of queries [first, last), but those up to the last that was tried.

    owners: the row of the state that each match is, and where those of each query begin.
    A score that is NaN ends the search; the size of its query is -1 then.
    """
    rows, bounds = owners
    width = scores.shape[1]
    for query in range(first, last):
        heap_scores, heap_places, size = best.scores[query], best.places[query], best.sizes[query]
        after_score, after_place = tried.scores[query], tried.places[query]
        for row in range(bounds[query], bounds[query + 1]):
            begin = rows[row] % (scores.shape[0] // len(best.sizes)) * width
            for entry in range(answer.offsets[row], answer.offsets[row + 1]):
                token = np.int64(answer.tokens[entry])
                if token >= width:  # tokens ascend
                    break
                score, place = scores[rows[row], token], begin + token
                if size == len(heap_scores) and score < heap_scores[0]:
                    continue
                if np.isnan(score):
                    best.sizes[query] = -1
                    return
                if score > -np.inf and (score < after_score or (score == after_score and place > after_place)):
                    size = _insert(heap_scores, heap_places, size, score, place)
        best.sizes[query] = size


@kernel
def _scan(scores: Any, trying: Any, found: Any, tried: Any, first: int, last: int) -> None:
    """Find the best tokens of queries [first, last) behind the last that was tried, in the beams marked in `trying`.

    A score that is NaN ends the search; the size of its query is -1 then.
    """
    beams = trying.shape[1]
    width = scores.shape[1]
    for query in range(first, last):
        heap_scores, heap_places, size = found.scores[query], found.places[query], 0
        after_score, after_place = tried.scores[query], tried.places[query]
        for beam in range(beams):
            if not trying[query, beam]:
                continue
            row = scores[query * beams + beam]
            for begin in range(0, width, _BLOCK):
                block = row[begin : begin + _BLOCK]
                # Of equal scores the first is the better, and places ascend.
                least = heap_scores[0] if size == len(heap_scores) else np.float32(-np.inf)
                better = np.uint32(0)
                for inside in range(np.uint64(len(block))):
                    better |= np.uint32(not block[inside] <= least)  # NaN, too
                if better == 0:
                    continue
                for inside in range(len(block)):
                    score, place = block[inside], beam * width + begin + inside
                    if size == len(heap_scores) and score <= heap_scores[0]:
                        continue
                    if np.isnan(score):
                        found.sizes[query] = -1
                        return
                    if score > -np.inf and (score < after_score or (score == after_score and place > after_place)):
                        size = _insert(heap_scores, heap_places, size, score, place)
        found.sizes[query] = size
