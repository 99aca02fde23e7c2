"""Which words of a text are searched."""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TypeAlias

from index.errors import RequestError

MAX_TERMS = 1024
"""Distinct words of one query that are searched."""

LIKE_TERMS = 25
"""Distinct words that stand for a whole text in "more like this"."""

Terms: TypeAlias = list[tuple[str, int]]
"""Distinct analyzed words with the weight of each."""


def checked(query_text: str, limit: int) -> str:
    """Return the text; raise RequestError when it holds lone surrogates, or when limit < 1."""
    if limit < 1:
        raise RequestError(f"limit = {limit}: expected at least 1")
    try:
        query_text.encode()
    except UnicodeEncodeError as error:
        raise RequestError(
            f"query has a lone surrogate at character {error.start}, which no text encoding can hold: remove it"
        ) from error
    return query_text


def weighted(tokens: Sequence[str], document_frequency: Callable[[str], int]) -> tuple[Terms, tuple[str, ...]]:
    """Count the words; beyond MAX_TERMS keep the rarest, first come first among equals, with a note that says so.

    document_frequency: passages that hold a word; only asked when there are too many words.
    """
    counts = Counter(tokens)
    if len(counts) <= MAX_TERMS:
        return list(counts.items()), ()
    frequencies = {token: document_frequency(token) for token in counts}
    found = [token for token in counts if frequencies[token]]
    if len(found) <= MAX_TERMS:
        return [(token, counts[token]) for token in found], ()
    rarest = sorted(found, key=frequencies.__getitem__)[:MAX_TERMS]
    note = f"query has {len(found)} distinct indexed words: only its {MAX_TERMS} rarest were searched"
    return [(token, counts[token]) for token in rarest], (note,)


def informative(tokens: Sequence[str], document_frequency: Callable[[str], int], total: int) -> Terms:
    """Return the LIKE_TERMS words with the highest count * idf, each of weight 1, first come first among equals.

    total: passages in the index. Words that no passage holds are dropped; those that one passage holds, most often
    the very text that was given, only fill places that are left.
    """
    counts = Counter(tokens)
    frequencies = {token: document_frequency(token) for token in counts}

    def key(token: str) -> tuple[bool, float]:
        frequency = frequencies[token]
        # Deleted passages still count in the frequency, so it can exceed the total.
        idf = math.log1p(max(total - frequency, 0) + 0.5) - math.log(frequency + 0.5)
        return frequency < 2, -counts[token] * idf

    return [(token, 1) for token in sorted((t for t in counts if frequencies[t]), key=key)[:LIKE_TERMS]]
