import pytest

from retrieval.snippets import LOOKED_AT, Snippet, query_forms, snippet, word_form


def shown(text: str, query: str, width: int = 240) -> tuple[str, list[str]]:
    found = snippet(text, query_forms(query), width)
    return text[found.start : found.end], [text[start:end] for start, end in found.highlights]


@pytest.mark.parametrize(
    "words",
    [
        ("file", "files", "Files", "filing", "filed"),
        ("run", "runs", "running"),
        ("query", "queries"),
        ("try", "tries", "tried"),
        ("class", "classes"),
        ("cache", "caches", "caching"),
        ("box", "boxes"),
        ("bus", "buses"),
        ("STRASSE", "straße"),
    ],
)
def test_forms_of_one_word_match(words: tuple[str, ...]) -> None:
    assert len({word_form(word) for word in words}) == 1


@pytest.mark.parametrize(
    ("one", "other"), [("string", "str"), ("king", "k"), ("class", "clad"), ("status", "stat"), ("need", "ne")]
)
def test_other_words_do_not_match(one: str, other: str) -> None:
    assert word_form(one) != word_form(other)


def test_function_words_count_only_where_there_is_nothing_else() -> None:
    assert query_forms("How do I read the file?") == {word_form("read"), word_form("file")}
    assert query_forms("who is it") == {"who", "is", "it"}
    assert query_forms("?!") == frozenset()


def test_the_window_holds_the_most_distinct_words() -> None:
    text = "cats cats cats. " + "filler words " * 40 + "cats chase dogs. " + "more filler " * 40
    piece, marked = shown(text, "dogs and cats", 40)
    assert "cats chase dogs" in piece
    assert marked == ["cats", "dogs"]


def test_of_equal_windows_the_first_is_chosen() -> None:
    text = "cat one. " + "filler " * 50 + "cat two. " + "filler " * 50
    assert shown(text, "cat", 30)[0].startswith("cat one")


def test_context_on_both_sides_is_cut_between_words() -> None:
    text = "alpha beta gamma delta target epsilon zeta eta theta iota"
    piece, marked = shown(text, "target", 30)
    assert marked == ["target"]
    assert len(piece) <= 30
    assert set(piece.split()) <= set(text.split())
    assert piece.split()[0] != "target"


def test_at_the_end_of_the_text_the_room_goes_to_what_stands_before() -> None:
    text = "alpha beta gamma delta epsilon target"
    assert shown(text, "target", 20)[0] == "delta epsilon target"


def test_without_a_match_the_beginning_is_shown() -> None:
    assert snippet("  one two three", query_forms("zebra"), 9) == Snippet(2, 9)


def test_a_word_wider_than_the_window_is_cut() -> None:
    assert snippet("x" * 50, frozenset({word_form("x" * 50)}), 10) == Snippet(0, 10, ((0, 10),))
    assert snippet("y" * 50, frozenset(), 10) == Snippet(0, 10)


def test_underscores_and_east_asian_characters_separate_words() -> None:
    assert shown("call read_text now", "read")[1] == ["read"]
    assert shown("我喜欢信息检索系统", "检索")[1] == ["检", "索"]


def test_empty_text_has_an_empty_snippet() -> None:
    assert snippet("", query_forms("a word")) == Snippet(0, 0)


def test_a_match_far_into_a_huge_text_is_not_looked_for() -> None:
    text = "word " * (LOOKED_AT // 5) + "needle"
    assert snippet(text, query_forms("needle")).highlights == ()


def test_a_window_without_room_is_refused() -> None:
    with pytest.raises(ValueError, match="width is 0"):
        snippet("text", frozenset(), 0)
