"""The words of generated LIMIT datasets: enough of them, and none that stands for two attributes once stemmed."""

from collections.abc import Iterable, Iterator

import pytest

from evaluation.limit_words import NAMES, attributes, name, synonyms
from retrieval.lexical import LexicalConfig
from retrieval.lexical.tantivy import make_analyzer


@pytest.fixture(scope="module")
def stems() -> dict[str, set[str]]:
    """Text -> stems of its words, by the analyzer of our lexical fields."""
    analyzer = make_analyzer(LexicalConfig())
    texts = [*attributes(), *synonyms().values(), "Who likes", *(name(number) for number in range(0, NAMES, 97))]
    return {text: set(analyzer.analyze(text)) for text in texts}


def test_there_are_enough() -> None:
    assert len(set(attributes())) == len(attributes()) >= 1_848
    assert NAMES >= 50_000
    assert len({name(number) for number in range(0, NAMES, 11)}) == len(range(0, NAMES, 11))
    with pytest.raises(IndexError):
        name(NAMES)


def shared(items: Iterable[set[str]]) -> Iterator[str]:
    seen: set[str] = set()
    for words in items:
        yield from words & seen
        seen |= words


def test_every_attribute_has_a_word_of_its_own(stems: dict[str, set[str]]) -> None:
    heads = set(shared(stems[attribute] for attribute in attributes()))
    assert len(heads) < 12  # tree, music, danc ...
    for attribute in attributes():
        assert stems[attribute] - heads, attribute


def test_a_synonym_shares_no_word_with_any_attribute_or_other_synonym(stems: dict[str, set[str]]) -> None:
    known = {stem for attribute in attributes() for stem in stems[attribute]}
    others = [stems[other] for other in synonyms().values()]
    assert all(words and words.isdisjoint(known) for words in others)
    assert not list(shared(others))


def test_names_and_the_sentence_are_no_attributes(stems: dict[str, set[str]]) -> None:
    known = {stem for text in (*attributes(), *synonyms().values()) for stem in stems[text]}
    assert stems["Who likes"].isdisjoint(known)
    for number in range(0, NAMES, 97):
        assert stems[name(number)].isdisjoint(known), name(number)


def test_attributes_can_be_told_apart_in_a_list() -> None:
    for text in (*attributes(), *synonyms().values()):
        assert text.strip() == text
        assert not {","} & set(text)
        assert " and " not in text
