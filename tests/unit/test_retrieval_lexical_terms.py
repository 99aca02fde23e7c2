import pytest

from index.errors import RequestError
from retrieval.lexical.terms import LIKE_TERMS, MAX_TERMS, checked, informative, weighted


def unasked(token: str) -> int:
    raise AssertionError(token)


def test_words_are_counted_in_order_without_asking_for_frequencies() -> None:
    assert weighted(["b", "a", "b"], unasked) == ([("b", 2), ("a", 1)], ())


def test_too_many_words_are_cut_to_the_rarest_first_come_first() -> None:
    tokens = [f"common{number}" for number in range(MAX_TERMS)] + ["rare", "rare", "absent"]
    frequency = {"rare": 1, "absent": 0}
    terms, notes = weighted(tokens, lambda token: frequency.get(token, 9))
    assert terms[0] == ("rare", 2)
    assert terms[1:] == [(f"common{number}", 1) for number in range(MAX_TERMS - 1)]
    assert len(notes) == 1
    assert str(MAX_TERMS + 1) in notes[0]
    assert str(MAX_TERMS) in notes[0]


def test_words_that_no_passage_holds_are_left_out_before_any_note() -> None:
    tokens = [f"absent{number}" for number in range(2 * MAX_TERMS)] + ["here", "here"]
    assert weighted(tokens, lambda word: {"here": 1}.get(word, 0)) == ([("here", 2)], ())


def test_informative_words_are_frequent_in_the_text_and_rare_elsewhere() -> None:
    frequency = {"the": 1000, "cat": 10, "sat": 10, "zygote": 2, "own": 1, "new": 0}
    tokens = ["the"] * 5 + ["cat", "cat", "sat", "zygote", "own", "new"]
    # idf = ln((1000 - n + 1.5) / (n + .5)): the 2 * 4.55, zygote 5.99, cat 4.55, the 5 * -6.5
    terms = informative(tokens, frequency.__getitem__, 1000)
    assert [token for token, _ in terms] == ["cat", "zygote", "sat", "the", "own"]
    assert {weight for _, weight in terms} == {1}


def test_informative_words_are_few_and_deterministic() -> None:
    tokens = [f"w{number}" for number in range(100)]
    terms = informative(tokens, lambda _: 2, 1000)
    assert [token for token, _ in terms] == tokens[:LIKE_TERMS]
    assert informative([], unasked, 10) == []


def test_frequencies_may_exceed_the_total_while_deletions_wait_for_a_merge() -> None:
    assert informative(["a", "b"], {"a": 5, "b": 3}.__getitem__, 2) == [("b", 1), ("a", 1)]


def test_text_and_limit_are_checked() -> None:
    assert checked("naïve 😀", 1) == "naïve 😀"
    with pytest.raises(RequestError, match="character 2"):
        checked("ab\ud83dcd", 1)
    with pytest.raises(RequestError, match="limit = 0"):
        checked("a", 0)
