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

_SCAN_COST: Final = 1 / 16
"""Rows that reading a score costs."""

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


def best_extensions(
    index: SubstringIndex, state: State, scores: Float32, *, beams: int, keep: int, threads: int | None = None
) -> Extensions:
    """Return the `keep` best (beam, token) of each query that occur, exactly as if every other score were -inf.

    state: B = Q * beams matches, those of a query together. scores: float32 (B, V), V <= index.vocab_size; -inf where a
    token must not follow. Scores are compared within a query, as given.
    Raises ShapeError on shape or dtype, RequestError on keep < 1, and on NaN among the scores that are looked at.
    Cost: one pass over the scores, two where the best of them do not occur; memory: Q * 8 * keep.
    """
    _check(index, state, scores, beams, keep)
    queries, width = len(state) // beams, scores.shape[1]
    threads = usable_threads(threads)
    best = _Best.of(queries, keep)
    # The best that was tried comes last in the order of the scores: everything behind it is still to be looked at.
    tried_score, tried_place = np.full(queries, np.inf, np.float32), np.full(queries, -1, np.int64)
    counts = index.count(state)
    rare = np.flatnonzero((counts > 0) & (counts <= _RARE))
    _push_continuations(index, state, scores, rare, best, (tried_score, tried_place))
    trying = (counts > _RARE).reshape(queries, beams)
    for factor in _TRIED:
        if not trying.any():
            break
        next_best = _Best.of(queries, min(factor * keep, beams * width))

        def scan(first: int, last: int, found: _Best = next_best) -> None:
            _scan(scores, trying, found, tried_score, tried_place, first, last)

        over_beams(scan, (trying.sum(axis=1) * width * _SCAN_COST).astype(np.int64), threads)
        _refuse_nan(bool((next_best.sizes < 0).any()))
        values, places = _ordered(next_best)
        query, rank = np.nonzero(places >= 0)
        places_tried = places[query, rank]
        longer = index.extend(state[query * beams + places_tried // width], places_tried % width)
        occurs = index.count(longer) > 0
        _push(best, query[occurs], values[query, rank][occurs], places_tried[occurs])
        going_on = trying.any(axis=1)
        tried_score[going_on], tried_place[going_on] = values[going_on, -1], places[going_on, -1]
        worst_score, worst_place = best.scores[:, 0], best.places[:, 0]
        outranked = (worst_score > tried_score) | ((worst_score == tried_score) & (worst_place <= tried_place))
        # Nothing is left, or what is left is no better than what was found.
        trying[(tried_place < 0) | ((best.sizes == keep) & outranked)] = False
    _push_continuations(index, state, scores, np.flatnonzero(trying), best, (tried_score, tried_place))
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
    tried: tuple[Float32, Int64],
) -> None:
    """Take in every token that follows the matches of some rows, but those up to the last that was tried."""
    if not len(rows):
        return
    answer = index.continuations(state[rows])
    owners = np.repeat(rows, np.diff(answer.offsets))
    inside = answer.tokens < scores.shape[1]
    owners, tokens = owners[inside], answer.tokens[inside].astype(np.int64)
    values = scores[owners, tokens]
    _refuse_nan(bool(np.isnan(values).any()))
    beams = len(state) // len(best.sizes)
    queries, places = owners // beams, owners % beams * scores.shape[1] + tokens
    last_score, last_place = tried[0][queries], tried[1][queries]
    behind = (values < last_score) | ((values == last_score) & (places > last_place))
    _push(best, queries[behind], values[behind], places[behind])


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
    """Take in entries; those of -inf are none."""
    for entry in range(len(queries)):
        query = queries[entry]
        if scores[entry] > -np.inf:
            best.sizes[query] = _insert(
                best.scores[query], best.places[query], best.sizes[query], scores[entry], places[entry]
            )


@kernel
def _scan(scores: Any, trying: Any, found: Any, tried_score: Any, tried_place: Any, first: int, last: int) -> None:
    """Find the best tokens of queries [first, last) behind the last that was tried, in the beams marked in `trying`.

    A score that is NaN ends the search; the size of its query is -1 then.
    """
    beams = trying.shape[1]
    width = scores.shape[1]
    for query in range(first, last):
        heap_scores, heap_places, size = found.scores[query], found.places[query], 0
        after_score, after_place = tried_score[query], tried_place[query]
        for beam in range(beams):
            if not trying[query, beam]:
                continue
            row = scores[query * beams + beam]
            for begin in range(0, width, _BLOCK):
                end = min(begin + _BLOCK, width)
                # Of equal scores the first is the better, and places ascend.
                least = heap_scores[0] if size == len(heap_scores) else np.float32(-np.inf)
                better = False
                for token in range(begin, end):
                    better |= not row[token] <= least  # NaN, too
                if not better:
                    continue
                for token in range(begin, end):
                    score, place = row[token], beam * width + token
                    if np.isnan(score):
                        found.sizes[query] = -1
                        return
                    if score > -np.inf and (score < after_score or (score == after_score and place > after_place)):
                        size = _insert(heap_scores, heap_places, size, score, place)
        found.sizes[query] = size
