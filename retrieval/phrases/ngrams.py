"""How often an n-gram of tokens occurs, and what follows it: counts and conditional probabilities, as infini-gram's.

Source: Liu, Min, Zettlemoyer, Choi & Hajishirzi, "Infini-gram: Scaling Unbounded n-gram Language Models to a Trillion
Tokens", COLM 2024: where an n-gram does not occur, its longest suffix that does answers.
"""

from bisect import bisect_left
from dataclasses import dataclass
from typing import Unpack

import numpy as np

from retrieval.collection import Collection
from retrieval.phrases.covered import Covered, PhraseOptions, check_limit, covering
from retrieval.phrases.tokenizer import Tokens


@dataclass(frozen=True, slots=True)
class Continuation:
    """A token that follows. count: of n-gram and token together. probability: count / that of the n-gram.

    token: as the vocabulary spells it. text: n-gram and token as text, for people.
    """

    token: str
    id: int
    count: int
    probability: float
    text: str


@dataclass(frozen=True, slots=True)
class Counted:
    """How often an n-gram occurs. tokens: as the vocabulary spells them. count: of all of them together.

    used, used_count: the longest suffix that occurs, of which continuations are; the n-gram itself where it does, and
    nothing where not even its last token does. ends: how often a title or a text ends with it: with the counts of all
    continuations this gives used_count. distinct: how many tokens follow, of which the most frequent are listed.
    """

    field: str
    tokens: tuple[str, ...]
    count: int
    used: tuple[str, ...]
    used_count: int
    ends: int
    distinct: int
    continuations: tuple[Continuation, ...]
    notes: tuple[str, ...]


def ngrams(collection: Collection, ngram: str, *, limit: int = 10, **options: Unpack[PhraseOptions]) -> Counted:
    """Count an n-gram and its continuations in the documents that the last compaction knew and that are as they were.

    limit: continuations listed, 0 to 100,000, by count and then by token. Otherwise, and errors, as `grep`.
    Cost: microseconds a token. Where a filter leaves documents out, or some were replaced or deleted since, that of
    `grep` for each suffix that is tried, of which there are as many as the number of tokens has binary digits, and a
    few times that for what follows.
    """
    check_limit(limit)
    with covering(collection, **options) as (_, covered):
        tokens = covered.phrase(ngram, "n-gram")
        # A suffix occurs at least as often as a longer one.
        start = bisect_left(range(len(tokens)), True, key=lambda at: covered.occurs(covered.match(tokens[at:])))
        return _counted(covered, tokens, start, limit)


def _counted(covered: Covered, tokens: Tokens, start: int, limit: int) -> Counted:
    used = tokens[start:]
    names = covered.tokenizer.names
    state = covered.match(used)
    count = covered.count(state) if len(used) else 0
    following, counts = covered.following(state) if count else (np.zeros(0, np.int64), np.zeros(0, np.int64))
    order = np.lexsort((following, -counts))[:limit]
    notes = covered.notes()
    if start and count:
        suffix = " ".join(names(used.tolist()))
        notes.append(f"backed_off={start}: the n-gram does not occur; what follows is of its longest suffix {suffix!r}")
    elif not count:
        notes.append(
            f"nothing follows: token {names(tokens[-1:].tolist())[0]!r}, the last one, occurs {covered.nowhere}"
        )
    return Counted(
        field=covered.name,
        tokens=tuple(names(tokens.tolist())),
        count=0 if start else count,
        used=tuple(names(used.tolist())),
        used_count=count,
        ends=count - int(counts.sum()),
        distinct=len(following),
        continuations=tuple(
            Continuation(names([token])[0], token, each, each / count, covered.tokenizer.text([*used.tolist(), token]))
            for token, each in zip(following[order].tolist(), counts[order].tolist(), strict=True)
        ),
        notes=tuple(notes),
    )
