"""Snippets: the stretch of a passage that shows best why it was found, and where the query's words stand in it.

Two words match when their forms are equal. The form of a word is its casefolded spelling without short English
endings: a plural s, then -ed or -ing where at least two letters with a vowel stay, then a final e and the second of a
doubled last letter; a final y counts as i. So file = files = filing, run = running, query = queries, and string is not
str. It is a rule for display: what an index matches is its analyzer's business.
"""

import re
from collections import Counter
from collections.abc import Iterator, Set
from typing import NamedTuple

WIDTH = 240
LOOKED_AT = 200_000
"""Characters of a text that are looked at: a snippet of a 50 MB passage must not cost seconds."""

_BEFORE = 3
"""One part in three of the space around the matches goes before them."""

_EAST_ASIAN = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff"
_WORD = re.compile(rf"[{_EAST_ASIAN}]|[^\W_{_EAST_ASIAN}]+")
"""A run of letters and digits, underscore apart (read_text holds `read`); East Asian characters stand alone."""

_VOWEL = re.compile("[aeiouy]")

_FUNCTION_WORDS = (
    "a about all am an and any are as at be been but by can could did do does for from had has have he her him his how "
    "i if in into is it its me my no not of on or our she should so some than that the their them then there these "
    "they this those to us was we were what when where which who whom whose why will with would you your"
)
_IGNORED = frozenset(_FUNCTION_WORDS.split())


class Snippet(NamedTuple):
    """Characters [start, end) of the text it was taken from; highlights: [start, end) of matched words, same origin."""

    start: int
    end: int
    highlights: tuple[tuple[int, int], ...] = ()


def word_form(word: str) -> str:
    """Return the form that decides whether two words match; see the module."""
    form = word.casefold()
    if len(form) > 3 and form.endswith("s") and not form.endswith(("ss", "us", "is")):
        form = form[:-1]
    stem = form.removesuffix("ing") if form.endswith("ing") else form.removesuffix("ed")
    if len(stem) > 1 and not stem.endswith("e") and _VOWEL.search(stem):
        form = stem
    if len(form) > 2 and form.endswith("e"):
        form = form[:-1]
    if len(form) > 2 and form[-1] == form[-2]:
        form = form[:-1]
    return f"{form[:-1]}i" if len(form) > 2 and form.endswith("y") else form


def query_forms(query: str) -> frozenset[str]:
    """Return the forms of a query's words without English function words, unless it has no others."""
    words = [match[0].casefold() for match in _WORD.finditer(query)]
    telling = [word for word in words if word not in _IGNORED]
    return frozenset(word_form(word) for word in telling or words)


def snippet(text: str, forms: Set[str], width: int = WIDTH) -> Snippet:
    """Choose the window of at most `width` characters with the most distinct matches, then the most, then the first.

    forms: what `query_forms` returns. The window is cut between words, inside one only where that word alone is wider
    than the window, and neither begins nor ends with white space. Without a match it is the beginning of the text.
    Only the first 200,000 characters are looked at. Raises ValueError on width < 1.
    """
    if width < 1:
        raise ValueError(f"width is {width}, expected at least 1")
    limit = min(len(text), LOOKED_AT)
    matches = list(_matches(text, forms, limit))
    first, last = _best_run(matches, width)
    if first == last:
        start, _ = _trimmed(text, 0, limit)
        end = min(start + width, limit)
        cut = _cut_left(text, start, end)
        return Snippet(*_trimmed(text, start, cut if cut > start else end))
    left, right = matches[first][0], matches[last - 1][1]
    if right - left > width:  # a single word wider than the window
        return Snippet(left, left + width, ((left, left + width),))
    space = width - (right - left)
    start = _cut_right(text, max(0, left - space // _BEFORE), left)
    end = _cut_left(text, right, min(limit, start + width))
    start = _cut_right(text, max(0, end - width), start)  # what the end of the text left over
    start, end = _trimmed(text, start, end)
    return Snippet(start, end, tuple((a, b) for a, b, _ in matches if start <= a and b <= end))


def _matches(text: str, forms: Set[str], limit: int) -> Iterator[tuple[int, int, str]]:
    known: dict[str, str | None] = {}
    for word in _WORD.finditer(text, 0, limit):
        spelling = word[0]
        if spelling not in known:
            form = word_form(spelling)
            known[spelling] = form if form in forms else None
        matched = known[spelling]
        if matched is not None:
            yield word.start(), word.end(), matched


def _best_run(matches: list[tuple[int, int, str]], width: int) -> tuple[int, int]:
    """Return the range of matches that fit into one window and are worth most; (0, 0) when there are none."""
    best, chosen = (0, 0), (0, 0)
    inside: Counter[str] = Counter()
    first = 0
    for last, (_, end, form) in enumerate(matches, start=1):
        inside[form] += 1
        while end - matches[first][0] > width and first < last - 1:
            left = matches[first][2]
            inside[left] -= 1
            if not inside[left]:
                del inside[left]
            first += 1
        worth = (len(inside), last - first)
        if worth > best:
            best, chosen = worth, (first, last)
    return chosen


def _inside_word(text: str, place: int) -> bool:
    """Whether cutting between text[place - 1] and text[place] divides a word."""
    around = _WORD.match(text, place - 1, place + 1) if place else None
    return around is not None and around.end() > place


def _cut_right(text: str, low: int, high: int) -> int:
    """Return the first place in [low, high] that divides no word, or `high`."""
    return next((place for place in range(low, high) if not _inside_word(text, place)), high)


def _cut_left(text: str, low: int, high: int) -> int:
    """Return the last place in [low, high] that divides no word, or `low`."""
    return next((place for place in range(high, low, -1) if not _inside_word(text, place)), low)


def _trimmed(text: str, start: int, end: int) -> tuple[int, int]:
    """Return [start, end) without the white space at both ends."""
    piece = text[start:end]
    start += len(piece) - len(piece.lstrip())
    return start, start + len(piece.strip())
