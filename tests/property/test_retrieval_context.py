"""What holds for every packed context, whatever the documents, the hits and the way tokens are counted."""

import re
import unicodedata
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from index.errors import RequestError
from retrieval.context import Context, pack
from retrieval.types import Document, Hit, Passage, Ranking, StoredDocument

Count = Callable[[Sequence[str]], list[int]]


def words(texts: Sequence[str]) -> list[int]:
    return [len(text.split()) for text in texts]


def characters(texts: Sequence[str]) -> list[int]:
    return [len(text) for text in texts]


def pieces_and_specials(texts: Sequence[str]) -> list[int]:
    """As word-piece tokenizers count: words, marks and two special tokens."""
    return [2 + len(re.findall(r"\w{1,4}|[^\w\s]", text)) for text in texts]


def bytes_in_fours(texts: Sequence[str]) -> list[int]:
    """Not additive: parts are rounded up."""
    return [-(-len(text.encode()) // 4) for text in texts]


def costlier_together(texts: Sequence[str]) -> list[int]:
    """Worse than any tokenizer: the whole costs far more than its parts."""
    return [len(text) ** 2 // 20 for text in texts]


COUNTS = st.sampled_from([words, characters, pieces_and_specials, bytes_in_fours, costlier_together])
WORDS = st.sampled_from(
    ["red", "Red", "stone", "river.", "naïve", "e\u0301", "检索。", "x" * 9, "!", "[1]", "👩‍🚒", "\ufb01n"]
)
SPACES = st.sampled_from([" ", "\n", "\n\n", "  ", "\u00a0", ""])
TEXTS = st.lists(st.tuples(WORDS, SPACES), max_size=14).map(lambda parts: "".join(w + s for w, s in parts))
TITLES = st.sampled_from(["", "", "A title", "Two\nlines", "标题", " "])


@st.composite
def spans_of(draw: st.DrawFn, text: str) -> tuple[tuple[int, int], ...]:
    """Passages as chunkers make them: starts increase, they may overlap, gaps are white space."""
    if not text or draw(st.booleans()):
        return ((0, len(text)),)
    spans, start = [], 0
    while start < len(text):
        end = min(len(text), start + draw(st.integers(1, 25)))
        spans.append((start, end))
        if end == len(text):
            break
        start = max(start + 1, end - draw(st.integers(0, 6)))
        while start == end < len(text) and text[start].isspace():
            start = end = start + 1
    return tuple(spans)


@st.composite
def searches(draw: st.DrawFn) -> tuple[Ranking, dict[str, StoredDocument]]:
    """Documents, some with equal texts; hits in any order, some of documents deleted or rewritten meanwhile."""
    texts = draw(st.lists(TEXTS, min_size=1, max_size=4))
    stored, hits = {}, []
    for number in range(draw(st.integers(1, 5))):
        text = draw(st.sampled_from(texts))
        document = Document(id=f"d#{number}", text=text, title=draw(TITLES))
        spans = draw(spans_of(text))
        now = draw(st.sampled_from(["there", "there", "there", "there", "deleted", "rewritten"]))
        if now == "there":
            stored[document.id] = StoredDocument(document, 3, draw(st.sampled_from([spans, spans, spans, ()])))
        elif now == "rewritten":
            stored[document.id] = StoredDocument(Document(document.id, "Other." + text), 4, spans)
        for ordinal in draw(st.lists(st.integers(0, len(spans) - 1), unique=True, max_size=4)):
            start, end = spans[ordinal]
            passage = Passage(document.id, ordinal, start, end, text[start:end], document.title)
            hits.append(Hit(document.id, passage, None, "dense"))
    ranked = draw(st.permutations(hits))
    scored = [Hit(hit.doc_id, hit.passage, float(-place), "dense") for place, hit in enumerate(ranked)]
    return Ranking("q", tuple(scored), ("a note",)), stored


def normal(text: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def apart(text: str) -> str:
    """As normal, but with accents apart: a passage may end before one."""
    return unicodedata.normalize("NFKD", normal(text))


def numbered(context: Context) -> str:
    parts = []
    for block in context.blocks:
        title = " ".join(block.title.split())
        body = [line for line in (title, block.text if block.text.strip() else "") if line]
        parts.append(f"[{block.number}] " + "\n".join(body))
    return "\n\n".join(parts)


@given(searches(), COUNTS, st.integers(1, 80), st.integers(0, 2))
def test_every_context_is_within_budget_and_true_to_its_documents(
    search: tuple[Ranking, dict[str, StoredDocument]], count: Count, budget: int, neighbours: int
) -> None:
    ranking, stored = search
    context = pack(ranking, stored, count=count, budget_tokens=budget, neighbours=neighbours)
    assert context == pack(ranking, stored, count=count, budget_tokens=budget, neighbours=neighbours)
    assert context.context == numbered(context)
    assert context.tokens == (count([context.context])[0] if context.blocks else 0) <= budget
    assert context.notes[0] == "a note"
    assert [block.number for block in context.blocks] == list(range(1, len(context.blocks) + 1))
    for block in context.blocks:
        document = stored[block.doc_id].document
        assert block.text == document.text[block.start : block.end]
        assert block.title == document.title
        assert block.citation == f"{block.doc_id}#{block.start}-{block.end}"
        assert block.text.strip() or block.title.strip()
        assert block.tokens == max(0, count([block.text])[0] - count([""])[0])
    texts = [(normal(block.text), block.doc_id) for block in context.blocks if block.text.strip()]
    assert len({text for text, _ in texts}) == len({*texts}), "two documents say the same"
    for block in context.blocks:
        for other in context.blocks:
            if block is not other and block.doc_id == other.doc_id:
                assert block.end <= other.start or other.end <= block.start
                gap = stored[block.doc_id].document.text[min(block.end, other.end) : max(block.start, other.start)]
                assert gap.strip(), "blocks that touch are one"


@given(searches(), COUNTS, st.integers(1, 80), st.integers(0, 2))
def test_blocks_rank_by_their_best_hit_and_every_other_hit_is_counted(
    search: tuple[Ranking, dict[str, StoredDocument]], count: Count, budget: int, neighbours: int
) -> None:
    ranking, stored = search
    context = pack(ranking, stored, count=count, budget_tokens=budget, neighbours=neighbours)
    scores = [block.score for block in context.blocks]
    assert scores == sorted(scores, reverse=True)
    placed = 0
    for hit in ranking.hits:
        start, end = hit.passage.start, hit.passage.end
        found = stored.get(hit.doc_id)
        if found is not None and found.document.text[start:end] == hit.passage.text:
            placed += any(
                block.doc_id == hit.doc_id and block.start <= start and end <= block.end for block in context.blocks
            )
    for block in context.blocks:
        assert any(
            hit.score == block.score and hit.doc_id == block.doc_id and block.start <= hit.passage.start <= block.end
            for hit in ranking.hits
        )
    # A hit may be counted as left out and yet stand there: as a neighbour, or between two that were placed.
    cut = any(note.startswith("context_cut") for note in context.notes)
    assert len(ranking.hits) - placed - cut <= context.left_out <= len(ranking.hits) - len(context.blocks)
    if ranking.hits and not context.blocks:
        assert context.context == ""
        assert len(context.notes) > 1


@given(searches(), st.integers(0, 2))
def test_with_room_for_all_nothing_is_left_out_but_what_is_gone_blank_or_said_before(
    search: tuple[Ranking, dict[str, StoredDocument]], neighbours: int
) -> None:
    ranking, stored = search
    context = pack(ranking, stored, count=characters, budget_tokens=100_000, neighbours=neighbours)
    assert not any("over_budget" in note or "cut" in note for note in context.notes)
    shown = [apart(shown) for block in context.blocks for shown in (block.text, block.title)]
    for hit in ranking.hits:
        text, found = hit.passage.text, stored.get(hit.doc_id)
        if found is None or found.document.text[hit.passage.start : hit.passage.end] != text or not text.strip():
            continue
        there = any(block.doc_id == hit.doc_id and text in block.text for block in context.blocks)
        assert there or any(apart(text) in said for said in shown)


@given(searches(), st.integers(1, 60))
def test_one_more_token_of_budget_never_empties_a_context(
    search: tuple[Ranking, dict[str, StoredDocument]], budget: int
) -> None:
    ranking, stored = search
    less = pack(ranking, stored, count=characters, budget_tokens=budget)
    more = pack(ranking, stored, count=characters, budget_tokens=budget + 1)
    assert bool(more.blocks) >= bool(less.blocks)


@pytest.mark.parametrize(("budget", "neighbours"), [(0, 0), (-1, 0), (10, -1)])
def test_impossible_options_are_refused(budget: int, neighbours: int) -> None:
    with pytest.raises(RequestError, match="budget_tokens"):
        pack(Ranking("q", ()), {}, count=words, budget_tokens=budget, neighbours=neighbours)
