from hypothesis import given
from hypothesis import strategies as st

from retrieval.snippets import query_forms, snippet, word_form

WORDS = st.sampled_from(
    ["file", "files", "reading", "a", "Zebra", "naïve", "read_text", "检索", "x" * 30, "é\u0301", "\x1b", ""]
)
SPACES = st.sampled_from([" ", "\n", "  ", ". ", "-", "\u00a0", "\u2028", ""])
TEXTS = st.one_of(
    st.text(max_size=300),
    st.lists(st.tuples(WORDS, SPACES), max_size=60).map(lambda parts: "".join(word + space for word, space in parts)),
)
QUERIES = st.one_of(st.text(max_size=40), st.lists(WORDS, max_size=5).map(" ".join))


@given(TEXTS, QUERIES, st.integers(1, 80))
def test_the_window_and_its_marks_lie_within_the_text(text: str, query: str, width: int) -> None:
    forms = query_forms(query)
    found = snippet(text, forms, width)
    assert 0 <= found.start <= found.end <= len(text)
    assert found.end - found.start <= width
    edge = found.start
    for start, end in found.highlights:
        assert edge <= start < end <= found.end
        edge = end
        assert end - start == width or word_form(text[start:end]) in forms


@given(TEXTS, QUERIES, st.integers(1, 80))
def test_white_space_is_trimmed_and_something_is_shown(text: str, query: str, width: int) -> None:
    found = snippet(text, query_forms(query), width)
    piece = text[found.start : found.end]
    assert piece == piece.strip()
    assert bool(piece) == bool(text.strip())


@given(st.lists(st.sampled_from(["cat", "dog", "bird", "other", "words"]), max_size=30), st.integers(1, 60))
def test_no_window_holds_more_distinct_matches(words: list[str], width: int) -> None:
    text = " ".join(words)
    forms = query_forms("cat dog bird")
    found = snippet(text, forms, width)
    mine = {word_form(text[start:end]) for start, end in found.highlights}
    starts = [place for place in range(len(text)) if place == 0 or text[place - 1] == " "]
    counts = [
        len({word_form(word) for word, end in _ends(text[start:]) if end <= width and word_form(word) in forms})
        for start in starts
    ]
    if max(map(len, words), default=0) <= width:  # otherwise a word alone may be cut
        assert len(mine) == max(counts, default=0)


def _ends(text: str) -> list[tuple[str, int]]:
    ends, place = [], 0
    for word in text.split(" "):
        place += len(word)
        ends.append((word, place))
        place += 1
    return ends


@given(st.text(max_size=20))
def test_a_word_matches_itself_in_any_case(word: str) -> None:
    assert word_form(word) == word_form(word.casefold())
