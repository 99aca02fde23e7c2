"""Packing passages into a budget, worked out by hand. A word counts as one token, so does a block's number."""

from collections.abc import Sequence

import pytest

from retrieval.context import Block, pack
from retrieval.types import Document, Hit, Passage, Ranking, StoredDocument

Spans = tuple[tuple[int, int], ...]


def words(texts: Sequence[str]) -> list[int]:
    return [len(text.split()) for text in texts]


def document(doc_id: str, text: str, title: str = "") -> Document:
    return Document(id=doc_id, text=text, title=title)


def by_sentence(text: str) -> Spans:
    """Spans of the stretches between bars; each bar stands for a blank."""
    spans, start = [], 0
    for part in text.split("|"):
        spans.append((start, start + len(part)))
        start += len(part) + 1
    return tuple(spans)


def store(*texts: tuple[str, str, str]) -> dict[str, StoredDocument]:
    return {
        doc_id: StoredDocument(document(doc_id, text.replace("|", " "), title), 1, by_sentence(text))
        for doc_id, title, text in texts
    }


def ranking(stored: dict[str, StoredDocument], *places: tuple[str, int]) -> Ranking:
    hits = []
    for rank, (doc_id, ordinal) in enumerate(places):
        found, _, spans = stored[doc_id]
        start, end = spans[ordinal]
        passage = Passage(doc_id, ordinal, start, end, found.text[start:end], found.title)
        hits.append(Hit(doc_id, passage, 1.0 - rank / 10, "hybrid"))
    return Ranking("q", tuple(hits), ("from the search",))


NUMBERS = store(("a", "Alpha", "one two|three four|five six|seven eight"), ("b", "", "nine ten|eleven"))


def test_the_rendered_context_and_its_blocks() -> None:
    context = pack(ranking(NUMBERS, ("b", 1), ("a", 1)), NUMBERS, count=words, budget_tokens=100)
    assert context.context == "[1] eleven\n\n[2] Alpha\nthree four"
    assert context.blocks == (
        Block(1, "b#9-15", "b", "", 9, 15, "eleven", 1, 1.0),
        Block(2, "a#8-18", "a", "Alpha", 8, 18, "three four", 2, 0.9),
    )
    assert (context.tokens, context.left_out, context.notes) == (6, 0, ("from the search",))


def test_passages_that_touch_become_one_block_that_ranks_as_its_best() -> None:
    context = pack(ranking(NUMBERS, ("a", 2), ("b", 0), ("a", 1)), NUMBERS, count=words, budget_tokens=100)
    assert context.context == "[1] Alpha\nthree four five six\n\n[2] nine ten"
    assert [block.score for block in context.blocks] == [1.0, 0.9]


def test_a_hit_between_two_blocks_joins_them() -> None:
    context = pack(ranking(NUMBERS, ("a", 3), ("b", 0), ("a", 1), ("a", 2)), NUMBERS, count=words, budget_tokens=100)
    assert [block.text for block in context.blocks] == ["three four five six seven eight", "nine ten"]
    assert context.left_out == 0


def test_overlapping_passages_repeat_nothing() -> None:
    stored = {"a": StoredDocument(document("a", "one two three four five"), 1, ((0, 13), (8, 18), (14, 23)))}
    context = pack(ranking(stored, ("a", 1), ("a", 0)), stored, count=words, budget_tokens=100)
    assert [(block.start, block.text) for block in context.blocks] == [(0, "one two three four")]
    context = pack(ranking(stored, ("a", 1), ("a", 0), ("a", 2)), stored, count=words, budget_tokens=6)
    assert [block.text for block in context.blocks] == ["one two three four five"]


@pytest.mark.parametrize(
    ("ordinal", "neighbours", "text"),
    [(0, 1, "one two three four"), (1, 1, "one two three four five six"), (3, 2, "three four five six seven eight")],
)
def test_neighbours_come_with_a_hit(ordinal: int, neighbours: int, text: str) -> None:
    hits = ranking(NUMBERS, ("a", ordinal))
    context = pack(hits, NUMBERS, count=words, budget_tokens=100, neighbours=neighbours)
    assert [block.text for block in context.blocks] == [text]


def test_neighbours_are_given_up_before_the_passage_is() -> None:
    whole = pack(ranking(NUMBERS, ("a", 1)), NUMBERS, count=words, budget_tokens=8, neighbours=1)
    assert (whole.blocks[0].text, whole.tokens) == ("one two three four five six", 8)
    alone = pack(ranking(NUMBERS, ("a", 1)), NUMBERS, count=words, budget_tokens=7, neighbours=1)
    assert (alone.blocks[0].text, alone.tokens, alone.left_out) == ("three four", 4, 0)


def test_what_does_not_fit_is_left_out_and_a_later_one_may_fit() -> None:
    stored = store(("a", "", "one two three"), ("b", "", "four five six seven"), ("c", "", "eight"))
    hits = ranking(stored, ("a", 0), ("b", 0), ("c", 0))
    context = pack(hits, stored, count=words, budget_tokens=6)
    assert context.context == "[1] one two three\n\n[2] eight"
    assert (context.tokens, context.left_out) == (6, 1)
    assert context.notes == ("from the search", "context_over_budget=1: left out, for they did not fit the budget")


def test_the_title_and_the_number_count() -> None:
    stored = store(("a", "A long title here", "one two"))
    assert pack(ranking(stored, ("a", 0)), stored, count=words, budget_tokens=7).tokens == 7
    assert pack(ranking(stored, ("a", 0)), stored, count=words, budget_tokens=6).blocks[0].text == "one"


CUT = [
    # more than half of what fits is kept by the end of a sentence
    ("One two three. Four five six seven eight.", 6, "One two three."),
    # less: the words
    ("One. Two three four five six seven eight.", 6, "One. Two three four five"),
    ("One two (three four). Five six", 6, "One two (three four)."),
    ("No stop in this heading\nthen a line", 7, "No stop in this heading"),
    ("Version 1.5 is newer than the others were", 6, "Version 1.5 is newer than"),
]


@pytest.mark.parametrize(("text", "budget", "kept"), CUT)
def test_the_first_block_is_cut_after_a_sentence_or_a_word(text: str, budget: int, kept: str) -> None:
    stored = store(("a", "", text))
    context = pack(ranking(stored, ("a", 0)), stored, count=words, budget_tokens=budget)
    assert context.blocks[0].text == kept
    assert context.blocks[0].citation == f"a#0-{len(kept)}"
    assert context.notes[1:] == ("context_cut=1: the first passage was shortened to fit the budget",)
    assert context.left_out == 0


def test_text_without_blanks_is_cut_after_its_sentences_too() -> None:
    def characters(texts: Sequence[str]) -> list[int]:
        return [len(text) for text in texts]

    stored = store(("a", "", "检索系统很快。它也很准确,但是"))
    hits = ranking(stored, ("a", 0))
    assert pack(hits, stored, count=characters, budget_tokens=13).blocks[0].text == "检索系统很快。"
    assert pack(hits, stored, count=characters, budget_tokens=8).blocks[0].text == "检索系统"


def test_where_the_first_cannot_be_cut_the_next_may_stand() -> None:
    stored = store(("a", "A title of seven words, far too", "long"), ("b", "", "short"))
    context = pack(ranking(stored, ("a", 0), ("b", 0)), stored, count=words, budget_tokens=2)
    assert (context.context, context.left_out) == ("[1] short", 1)


def test_a_budget_for_nothing_gives_an_empty_context_and_says_so() -> None:
    context = pack(ranking(NUMBERS, ("a", 0), ("b", 0)), NUMBERS, count=words, budget_tokens=1)
    assert (context.context, context.blocks, context.tokens, context.left_out) == ("", (), 0, 2)
    assert "context_empty: the budget of 1 tokens holds no part of any passage" in context.notes


def test_no_hits_no_context() -> None:
    context = pack(Ranking("q", ()), {}, count=words, budget_tokens=10)
    assert (context.context, context.tokens, context.left_out, context.notes) == ("", 0, 0, ())


def test_the_same_text_in_another_document_is_left_out() -> None:
    stored = store(("a", "First", "Same words|and more"), ("b", "Copy", "same  WORDS|others"), ("c", "", "ﬁn"))
    context = pack(ranking(stored, ("a", 0), ("b", 0), ("b", 1), ("c", 0)), stored, count=words, budget_tokens=100)
    assert [block.text for block in context.blocks] == ["Same words", "others", "ﬁn"]
    assert context.left_out == 1
    assert context.notes[1:] == ("context_duplicate=1: left out, for another document has the same text, further up",)


def test_copies_of_a_document_do_not_fill_the_context_by_their_neighbours() -> None:
    stored = store(("a", "", "one two|three four"), ("b", "", "one two|three four"))
    context = pack(ranking(stored, ("a", 0), ("b", 1)), stored, count=words, budget_tokens=100, neighbours=1)
    assert [block.doc_id for block in context.blocks] == ["a"]
    assert context.left_out == 1


def test_a_passage_said_before_is_left_out_though_its_neighbours_differ() -> None:
    stored = store(("a", "", "All rights reserved|one two"), ("b", "", "All rights reserved|three four"))
    context = pack(ranking(stored, ("a", 0), ("b", 0)), stored, count=words, budget_tokens=100, neighbours=1)
    assert [block.text for block in context.blocks] == ["All rights reserved one two"]
    assert context.left_out == 1


def test_documents_deleted_or_changed_since_the_search_are_left_out() -> None:
    now = {
        "a": StoredDocument(document("a", "rewritten wholly, not what was found"), 2, ((0, 36),)),
        "c": StoredDocument(document("c", "one two"), 1, ((0, 7),)),
    }
    found = NUMBERS | {"c": now["c"]}
    context = pack(ranking(found, ("a", 0), ("b", 0), ("c", 0)), now, count=words, budget_tokens=100)
    assert context.context == "[1] one two"
    assert context.left_out == 2
    assert context.notes[1:] == (
        "context_gone=2: left out, for their documents were deleted or changed since the search",
    )


def test_a_document_cut_otherwise_by_now_gives_the_passage_without_neighbours() -> None:
    now = {"a": StoredDocument(NUMBERS["a"].document, 2, ((0, 10), (11, 37)))}
    context = pack(ranking(NUMBERS, ("a", 1)), now, count=words, budget_tokens=100, neighbours=1)
    assert [block.text for block in context.blocks] == ["three four"]


def test_documents_of_a_title_alone_and_of_nothing() -> None:
    stored = store(("a", "Only\n a title", ""), ("b", "", ""), ("c", "only a TITLE", " "))
    context = pack(ranking(stored, ("a", 0), ("b", 0), ("c", 0)), stored, count=words, budget_tokens=100)
    assert context.context == "[1] Only a title"
    assert context.blocks == (Block(1, "a#0-0", "a", "Only\n a title", 0, 0, "", 0, 1.0),)
    assert context.left_out == 2


def test_a_huge_passage_is_never_counted_whole() -> None:
    longest = 0

    def count(texts: Sequence[str]) -> list[int]:
        nonlocal longest
        longest = max(longest, *map(len, texts))
        return words(texts)

    stored = {"a": StoredDocument(document("a", "word " * 400_000), 1, ((0, 2_000_000),))}
    context = pack(ranking(stored, ("a", 0)), stored, count=count, budget_tokens=50)
    assert context.blocks[0].text == ("word " * 49).strip()
    assert longest < 10_000


def test_no_word_is_cut_where_looking_ends() -> None:
    stored = store(("a", "", "x" * 100 + " tail"))
    context = pack(
        ranking(stored, ("a", 0)), stored, count=lambda texts: [len(text) // 50 for text in texts], budget_tokens=1
    )
    assert (context.blocks, context.left_out) == ((), 1)


def test_a_whole_that_costs_more_than_its_parts_loses_its_last_blocks() -> None:
    def square(texts: Sequence[str]) -> list[int]:
        return [len(text) ** 2 for text in texts]

    stored = store(("a", "", "one"), ("b", "", "two"), ("c", "", "six"))
    hits = ranking(stored, ("a", 0), ("b", 0), ("c", 0))
    # Alone they cost 49, 81 and 81; two of them together 256, all three 625.
    context = pack(hits, stored, count=square, budget_tokens=300)
    assert (context.context, context.tokens, context.left_out) == ("[1] one\n\n[2] two", 256, 1)
    assert pack(hits, stored, count=square, budget_tokens=255).context == "[1] one"


def test_special_tokens_count_once_in_the_whole_and_not_in_a_block() -> None:
    context = pack(
        ranking(NUMBERS, ("a", 0), ("b", 0)),
        NUMBERS,
        count=lambda texts: [2 + len(text.split()) for text in texts],
        budget_tokens=9,
    )
    assert (context.tokens, [block.tokens for block in context.blocks]) == (9, [2, 2])


def test_the_packaged_tokenizer_agrees_with_the_estimates() -> None:
    from retrieval.encoders import EncoderConfig  # noqa: PLC0415  the model's files are looked for only here
    from retrieval.encoders.model_files import find_model  # noqa: PLC0415

    tokenizer = find_model(EncoderConfig()).tokenizer()
    assert tokenizer is not None
    text = "|".join(f"Passage {number} says something unremarkable about naïve café №{number}." for number in range(30))
    stored = store(("a", "A page about cafés", text), ("b", "", text.replace("Passage", "Page")))
    context = pack(
        ranking(stored, *((name, ordinal) for ordinal in range(0, 30, 3) for name in "ab")),
        stored,
        count=lambda texts: [len(encoding.ids) for encoding in tokenizer.encode_batch(list(texts))],
        budget_tokens=300,
    )
    assert context.tokens == len(tokenizer.encode(context.context).ids) <= 300
    assert context.tokens > 280, "the next passage has fewer than 20 tokens"
