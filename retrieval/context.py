"""Context for generation: the best passages of a search, with their neighbours, packed into a budget of tokens.

    [1] Title of a document
    its text

    [2] text of a document without a title

Texts stand there as they were stored: whoever prompts a model with them treats them as data, not as instructions.
"""

import re
import unicodedata
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from index.errors import RequestError
from retrieval.types import Document, Hit, Ranking, StoredDocument

TokenCounter: TypeAlias = Callable[[Sequence[str]], Sequence[int]]
"""Texts -> the tokens of each; the special tokens that it adds to every text count."""

_SEPARATOR = "\n\n"

_CHARACTERS_PER_TOKEN = 64
"""A text with more characters for each token of the budget is taken not to fit, uncounted: passages can have 50 MB."""

_INK = re.compile(r"\S")
_EAST_ASIAN = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff"
_WORD = re.compile(rf"[{_EAST_ASIAN}]|[^\s{_EAST_ASIAN}]+")
_SENTENCE = re.compile(r"[。！？]+[”’」』）]*|[.!?…]+[\"'”’)\]»]*(?=\s|\Z)|\S(?=[^\S\n]*\n)")  # noqa: RUF001  other scripts' stops
"""Full stops and what closes after them, and the last character of a line."""

_WHY = {
    "gone": "their documents were deleted or changed since the search",
    "duplicate": "another document has the same text, further up",
    "over_budget": "they did not fit the budget",
    "blank": "they have neither text nor title",
}


@dataclass(frozen=True, slots=True)
class Block:
    """A stretch of one document: text is its characters [start, end).

    number: its place in the context, from 1. citation: "doc_id#start-end", the same in every context that holds the
    stretch. tokens: of the text alone, special tokens apart. score: of its best hit.
    """

    number: int
    citation: str
    doc_id: str
    title: str
    start: int
    end: int
    text: str
    tokens: int
    score: float | None


@dataclass(frozen=True, slots=True)
class Context:
    """context: the text to prompt with. blocks: what it is made of, in order, none overlapping another.

    tokens: of `context`, counted as a whole; 0 when it is empty. left_out: passages of the ranking that it lacks.
    notes: the ranking's, and why passages were left out or shortened.
    """

    context: str
    blocks: tuple[Block, ...]
    tokens: int
    left_out: int
    notes: tuple[str, ...]


@dataclass(slots=True)
class _Piece:
    """A block in the making. hits: how many it holds; rank, score: of the best one. cost: estimated tokens."""

    document: Document
    start: int
    end: int
    rank: int
    score: float | None
    hits: int
    cost: int = 0
    normal: str = ""

    @property
    def text(self) -> str:
        return self.document.text[self.start : self.end]

    def rendered(self, number: int) -> str:
        title, text = " ".join(self.document.title.split()), self.text
        if not _INK.search(text):
            return f"[{number}] {title}"
        return f"[{number}] {title}\n{text}" if title else f"[{number}] {text}"


def pack(
    ranking: Ranking,
    stored: Mapping[str, StoredDocument],
    *,
    count: TokenCounter,
    budget_tokens: int,
    neighbours: int = 0,
) -> Context:
    """Pack the passages of a ranking, best first, into at most `budget_tokens` tokens.

    stored: the documents of the hits, by id; those that are missing, or whose text has changed, are left out.
    neighbours: how many passages before and after each hit come with it, where they fit.
    Passages of one document that overlap or touch (white space between) become one block, which ranks as the best of
    them. Of equal texts in several documents the first is kept (equal up to case, width and white space, whatever the
    titles). What does not fit is tried without neighbours, then left out, and later ones may still fit; the first block
    alone is cut instead, after a sentence, or after a word where that keeps more than twice as much.
    Raises RequestError on a budget below 1 or negative neighbours. The same input always gives the same context.
    Cost: up to two counts per hit, each of the block that the passage joins.
    """
    if budget_tokens < 1 or neighbours < 0:
        raise RequestError(
            f"budget_tokens is {budget_tokens}, expected at least 1, and neighbours {neighbours}, expected at least 0"
        )
    packing = _Packing(stored, count, budget_tokens, neighbours)
    for rank, hit in enumerate(ranking.hits):
        packing.add(rank, hit)
    return packing.finish(ranking.notes)


@dataclass(slots=True)
class _Packing:
    """The pieces so far. left: how many hits were left out, by reason. seen: normal form of a passage -> document."""

    stored: Mapping[str, StoredDocument]
    count: TokenCounter
    budget: int
    neighbours: int
    pieces: list[_Piece] = field(default_factory=list)
    left: Counter[str] = field(default_factory=Counter)
    seen: dict[str, str] = field(default_factory=dict)
    cut: bool = False
    base: int = 0

    def __post_init__(self) -> None:
        """Learn what the counter adds to every text."""
        self.base = self.count([""])[0]

    def add(self, rank: int, hit: Hit) -> None:
        """Give a hit its place, or count why it has none."""
        why = self._refused(rank, hit)
        if why is not None:
            self.left[why] += 1

    def _refused(self, rank: int, hit: Hit) -> str | None:
        """Place a hit, or return why it is left out: a key of _WHY."""
        found, passage = self.stored.get(hit.doc_id), hit.passage
        if found is None or found.document.text[passage.start : passage.end] != passage.text:
            return "gone"
        normal = _normal(found.document, passage.text)
        if not normal:
            return "blank"
        if self.seen.get(normal, hit.doc_id) != hit.doc_id:
            return "duplicate"
        own = (passage.start, passage.end)
        around = self._around(found.spans, passage.ordinal, own)
        for spans in (around, [own]) if len(around) > 1 else ([own],):
            start, end = spans[0][0], max(end for _, end in spans)
            piece, joined = self._joined(_Piece(found.document, start, end, rank, hit.score, 1))
            if self._fits(piece, joined):
                return self._place(piece, joined, spans)
        if not self.pieces:
            piece = _Piece(found.document, *own, rank, hit.score, 1)
            if self._shorten(piece):
                self.cut = True
                return self._place(piece, [], [own])
        return "over_budget"

    def _around(
        self, spans: Sequence[tuple[int, int]], ordinal: int, own: tuple[int, int]
    ) -> Sequence[tuple[int, int]]:
        """Return the spans of a passage and its neighbours; only its own where it is cut otherwise by now."""
        if ordinal >= len(spans) or tuple(spans[ordinal]) != own:
            return [own]
        return spans[max(0, ordinal - self.neighbours) : ordinal + self.neighbours + 1]

    def _joined(self, piece: _Piece) -> tuple[_Piece, list[_Piece]]:
        """Return the piece united with those of its document that it overlaps or touches, and these.

        One pass from left to right finds all of them: pieces that are placed do not touch each other.
        """
        joined = []
        text = piece.document.text
        for other in sorted(self.pieces, key=lambda placed: placed.start):
            if other.document.id != piece.document.id:
                continue
            low, high = max(piece.start, other.start), min(piece.end, other.end)
            if low <= high or not _INK.search(text, high, low):
                joined.append(other)
                piece.start, piece.end = min(piece.start, other.start), max(piece.end, other.end)
        parts = [*joined, piece]
        best = min(parts, key=lambda part: part.rank)
        piece.rank, piece.score, piece.hits = best.rank, best.score, sum(part.hits for part in parts)
        return piece, joined

    def _fits(self, piece: _Piece, joined: list[_Piece]) -> bool:
        """Estimate what a piece costs, and whether it fits in place of those that it joins."""
        rest = [other for other in self.pieces if all(other is not part for part in joined)]
        if piece.end - piece.start > self.budget * _CHARACTERS_PER_TOKEN:
            return False
        rendered = piece.rendered(len(rest) + 1)
        piece.cost = self.count([_SEPARATOR + rendered if rest else rendered])[0] - self.base
        piece.normal = _normal(piece.document, piece.text)
        return self.base + piece.cost + sum(other.cost for other in rest) <= self.budget

    def _place(self, piece: _Piece, joined: list[_Piece], spans: Sequence[tuple[int, int]]) -> str | None:
        """Put a piece in place of those that it joins, unless another document's reads the same."""
        document = piece.document
        if any(other.normal == piece.normal and other.document.id != document.id for other in self.pieces):
            return "duplicate"
        self.pieces = [other for other in self.pieces if all(other is not part for part in joined)] + [piece]
        for start, end in spans:
            self.seen.setdefault(_normal(document, document.text[start:end]), document.id)
        return None

    def _shorten(self, piece: _Piece) -> bool:
        """Cut a piece that stands alone so that it fits; return whether it can be."""
        text, whole = piece.document.text, piece.end
        limit = min(whole, piece.start + self.budget * _CHARACTERS_PER_TOKEN)
        # What ends where looking ends need not be a whole word or sentence.
        words, sentences = (
            [match.end() for match in ends.finditer(text, piece.start, limit) if match.end() < limit or limit == whole]
            for ends in (_WORD, _SENTENCE)
        )

        def too_long(end: int) -> bool:
            piece.end = end
            return not self._fits(piece, [])

        fitting = bisect_right(words, False, key=too_long)
        if not fitting:
            return False
        end = words[fitting - 1]
        ended = bisect_right(sentences, end)
        if (
            ended
            and 2 * (sentences[ended - 1] - piece.start) >= end - piece.start
            and not too_long(sentences[ended - 1])
        ):
            return True
        return not too_long(end)

    def finish(self, notes: tuple[str, ...]) -> Context:
        """Count the whole, for tokens of parts need not add up, and leave out the last ones until it fits."""
        kept = sorted(self.pieces, key=lambda piece: piece.rank)
        while kept:
            context = _SEPARATOR.join(piece.rendered(number) for number, piece in enumerate(kept, start=1))
            tokens = self.count([context])[0]
            if tokens <= self.budget:
                break
            self.left["over_budget"] += kept.pop().hits
        else:
            context, tokens = "", 0
        return Context(context, self._blocks(kept), tokens, self.left.total(), (*notes, *self._notes(kept)))

    def _blocks(self, kept: list[_Piece]) -> tuple[Block, ...]:
        counts = self.count([piece.text for piece in kept]) if kept else []
        return tuple(
            Block(
                number=number,
                citation=f"{piece.document.id}#{piece.start}-{piece.end}",
                doc_id=piece.document.id,
                title=piece.document.title,
                start=piece.start,
                end=piece.end,
                text=piece.text,
                tokens=max(0, counted - self.base),
                score=piece.score,
            )
            for number, (piece, counted) in enumerate(zip(kept, counts, strict=True), start=1)
        )

    def _notes(self, kept: list[_Piece]) -> list[str]:
        notes = [
            f"context_{why}={self.left[why]}: left out, for {because}"
            for why, because in _WHY.items()
            if self.left[why]
        ]
        if self.cut and kept:
            notes.append("context_cut=1: the first passage was shortened to fit the budget")
        if self.left["over_budget"] and not kept:
            notes.append(f"context_empty: the budget of {self.budget} tokens holds no part of any passage")
        return notes


def _normal(document: Document, text: str) -> str:
    """Return what two texts that say the same have in common; of a passage without text, the title's."""
    shown = text if _INK.search(text) else document.title
    return " ".join(unicodedata.normalize("NFKC", shown).casefold().split())
