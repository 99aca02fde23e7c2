"""Rerankers: a query and the texts of its candidates, put in a better order. Kinds are listed in retrieval/build.py.

Here is what those share that score each candidate by itself. They take candidates a piece at a time in the order these
came, so that a deadline leaves the last ones unscored: the ones that the search before liked least.
"""

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from index.errors import DeadlineError, RequestError, RerankerError
from retrieval.encoders import check_queries
from retrieval.protocols import Candidate, RerankResult
from retrieval.store.records import titled

_PASS_TOKENS = 64
"""What a forward pass costs beside its tokens, in tokens; see model_encoder."""

_CHARACTERS_PER_TOKEN = 16
"""No more characters for each token of a window are read: few tokens are longer."""


class Scored(NamedTuple):
    """Scores of one piece of candidates, float (n,), and what they cost, as in RerankResult."""

    scores: npt.NDArray[np.floating]
    calls: int
    tokens: int


class Texts(NamedTuple):
    """What is read of candidates. distinct: each text once, in order of first appearance. of: which one, int64 (n,).

    Equal texts are scored once: they cost nothing twice, and tie exactly whatever batch they would have been in.
    """

    distinct: list[str]
    of: npt.NDArray[np.int64]


def checked_texts(query: str, candidates: Sequence[Candidate], top_k: int) -> Texts:
    """Return what is read of each candidate: its title and its text, as encoders read passages.

    Raises RequestError on top_k < 1, and where query or candidate is no valid Unicode (lone surrogates).
    """
    if top_k < 1:
        raise RequestError(f"top_k is {top_k}, expected at least 1")
    check_queries([query])
    numbers: dict[str, int] = {}
    of = np.empty(len(candidates), np.int64)
    for place, (text, title) in enumerate(candidates):
        read = titled(title, text)
        try:
            read.encode()
        except UnicodeEncodeError as error:
            raise RequestError(f"candidate {place} holds a lone surrogate: send valid UTF-8 text") from error
        of[place] = numbers.setdefault(read, len(numbers))
    return Texts(list(numbers), of)


def pieces(lengths: Sequence[int], budget: int) -> Iterator[slice]:
    """Cut range(len(lengths)) into consecutive slices whose longest * count stays within the budget, or that hold one.

    A piece ends earlier where the padding that one more candidate brings costs more than another pass.
    """
    start = longest = 0
    for place, length in enumerate(lengths):
        held = place - start
        padded = max(longest, length) * (held + 1)
        if held and (padded > budget or padded > longest * held + length + _PASS_TOKENS):
            yield slice(start, place)
            start, longest = place, 0
        longest = max(longest, length)
    if lengths:
        yield slice(start, len(lengths))


def rerank_pointwise(
    work: Iterable[slice], score: Callable[[slice], Scored], texts: Texts, *, top_k: int, deadline: float | None
) -> RerankResult:
    """Score texts piece by piece until the deadline and order their candidates by (-score, place).

    work: consecutive slices that cover texts.distinct. It and `score` may raise DeadlineError, which ends the work.
    Raises RerankerError on a score that is not finite.
    """
    scores = np.full(len(texts.distinct), np.nan)
    reached = calls = tokens = 0
    with contextlib.suppress(DeadlineError):
        for piece in work:
            check_deadline(deadline)
            scored = score(piece)
            scores[piece] = scored.scores
            reached, calls, tokens = piece.stop, calls + scored.calls, tokens + scored.tokens
    if not np.isfinite(scores[:reached]).all():
        raise RerankerError("the reranker gave a score that is no finite number: check its model's weights")
    late = texts.of >= reached
    of_each = scores[texts.of]
    best = np.lexsort((np.where(late, 0, -of_each), late))  # stable: equal ones stay as they came
    order: list[int] = best[:top_k].tolist()
    unreached = int(late.sum())
    note = f"rerank_unreached={unreached} of {len(late)}: the deadline passed; these keep their order"
    return RerankResult(
        order=tuple(order),
        scores=tuple(None if late[place] else float(of_each[place]) for place in order),
        unreached=int(late[order].sum()),
        calls=calls,
        tokens=tokens,
        notes=(note,) if unreached else (),
    )


def head(text: str, window: int | None) -> str:
    """Return as much of a text as a window of tokens can hold, so that a huge text costs no more than a long one."""
    return text if window is None else text[: _CHARACTERS_PER_TOKEN * window]


def check_deadline(deadline: float | None) -> None:
    """Raise DeadlineError where a deadline has passed."""
    if deadline is not None and time.monotonic() >= deadline:
        raise DeadlineError("the deadline passed before all candidates were scored: allow more time, or fewer")


def truncated_note(truncated: int, window: int | None) -> tuple[str, ...]:
    """Return the note on candidates of which only the beginning was read."""
    if not truncated:
        return ()
    return (f"rerank_truncated={truncated}: the reranker's window of {window} tokens held only their beginning",)
