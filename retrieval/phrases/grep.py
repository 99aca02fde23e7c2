"""Where a phrase occurs: every place of its tokens, exactly, as characters of titles and texts.

A match is a sequence of tokens equal to the phrase's. So it begins where a token begins: with WordPiece, whose tokens
inside words are others ("##ing"), never inside a word. It may end inside one, where the tokens of the phrase begin that
word: "deploy" is found in "deployer" if that is deploy ##er. What the tokenizer makes equal is equal: case or accents
that it drops, and with WordPiece any white space. Matches may overlap: "a a" occurs twice in "a a a".
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Unpack

import numpy as np

from index.errors import IndexFormatError
from retrieval.collection import Collection
from retrieval.phrases.covered import Covered, PhraseOptions, Places, check_limit, covering
from retrieval.phrases.sequences import PARTS, Part, part_text
from retrieval.phrases.tokenizer import Tokenized, Tokens
from retrieval.shard import Reading

_AROUND = 80
"""Characters shown on either side of a match."""


@dataclass(frozen=True, slots=True)
class Match:
    """Characters [start, end) of one part of a document. snippet: characters [snippet_start, ...) around them."""

    doc_id: str
    title: str
    part: Part
    start: int
    end: int
    snippet: str
    snippet_start: int


@dataclass(frozen=True, slots=True)
class Found:
    """Where a phrase occurs. tokens: as the vocabulary spells them. count: all places, `documents` that many documents.

    matches: the first of them, by document in the order of writing, then title before text, then place.
    notes: what is not covered, and why nothing was found.
    """

    field: str
    tokens: tuple[str, ...]
    count: int
    documents: int
    matches: tuple[Match, ...]
    notes: tuple[str, ...]


def grep(collection: Collection, phrase: str, *, limit: int = 10, **options: Unpack[PhraseOptions]) -> Found:
    """Find a phrase in the documents that the last compaction knew and that are still as they were.

    limit: matches shown, 0 to 100,000; all are counted. options: with a filter, only documents that match are included.
    Raises RequestError on an empty phrase, one that the tokenizer has no tokens for or that has more than most_places,
    a bad filter, a limit out of range, or where there is no such field.
    Cost: below .1 microseconds a place of the whole collection (mode "compact": 4 to 8, less with more threads),
    whatever a filter leaves of them, and tokenizing each document that is shown.
    """
    check_limit(limit)
    with covering(collection, **options) as (reading, covered):
        tokens = covered.phrase(phrase, "phrase")
        places = covered.places(covered.match(tokens))
        return Found(
            field=covered.name,
            tokens=tuple(covered.tokenizer.names(tokens.tolist())),
            count=len(places.places),
            documents=len(np.unique(places.sequences // len(PARTS))),
            matches=tuple(_matches(reading, covered, tokens, Places(*(each[:limit] for each in places)))),
            notes=(*covered.notes(), *_hints(covered, phrase, tokens, count=len(places.places))),
        )


def _matches(reading: Reading, covered: Covered, tokens: Tokens, places: Places) -> Iterator[Match]:
    columns = reading.view.base.columns
    sequences, firsts = np.unique(places.sequences, return_index=True)
    for sequence, here in zip(sequences.tolist(), np.split(places.places, firsts)[1:], strict=True):
        covered.check()
        number, part = sequence // len(PARTS), PARTS[sequence % len(PARTS)]
        doc_id = columns.doc_id(number)
        stored = reading.snapshot.get(doc_id)
        if stored is None:
            raise IndexFormatError(
                f"documents.db does not find document {doc_id!r} of the index: damaged; restore it from an export"
            )
        text = part_text(stored.document, part)
        known = covered.tokenizer.tokenized(text)
        for place in here.tolist():
            start, end = _characters(covered, tokens, known, place)
            begin = max(0, start - _AROUND)
            snippet = text[begin : end + _AROUND]
            yield Match(stored.document.id, stored.document.title, part, start, end, snippet, begin)


def _characters(covered: Covered, tokens: Tokens, known: Tokenized, place: int) -> tuple[int, int]:
    end = place + len(tokens)
    if not np.array_equal(known.tokens[place:end], tokens):
        raise IndexFormatError(
            f"field {covered.name!r} has other tokens than its tokenizer makes now: was the tokenizers library "
            "changed? Remove the field's folder under components and run `grapnel compact`"
        )
    return known.spans[place][0], known.spans[end - 1][1]


def _hints(covered: Covered, phrase: str, tokens: Tokens, *, count: int) -> Iterator[str]:
    """Yield what could be asked instead: a token that never occurs, other case, a space before the phrase."""
    if not count:
        alone = {token: covered.match(np.array([token], np.int32)) for token in tokens.tolist()}
        absent = [token for token, state in alone.items() if not covered.occurs(state)]
        if absent:
            name = covered.tokenizer.names(absent)[0]
            yield f"nothing can match: token {name!r} of the phrase occurs {covered.nowhere}"
        yield from _occurs(covered, tokens, phrase.lower(), "case counts in this field")
    if not phrase[0].isspace():
        why = "this tokenizer tells a word behind a space from one without"
        yield from _occurs(covered, tokens, f" {phrase}", why)


def _occurs(covered: Covered, tokens: Tokens, other: str, why: str) -> Iterator[str]:
    """Yield how often another spelling occurs, where it does, its tokens are others and they can be counted."""
    different = covered.tokenizer.encode([other])[0]
    if np.array_equal(different, tokens) or covered.tokenizer.unknown(other):
        return
    state = covered.match(different)
    if covered.can_count(state) and (times := covered.count(state)):
        yield f"{why}: {other!r} is there, places: {times:,}"
