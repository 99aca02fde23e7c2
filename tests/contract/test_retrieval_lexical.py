"""One suite over every lexical engine: what LexicalIndex promises."""

import random
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from index.errors import RequestError
from retrieval.lexical import Accept, LexicalConfig, LexicalIndex, Matches
from retrieval.lexical.live import TantivyLive
from retrieval.lexical.lucene import build_lucene, open_lucene
from retrieval.lexical.tantivy import build_tantivy, open_tantivy
from retrieval.lexical.terms import LIKE_TERMS, MAX_TERMS

WORDS = [f"{a}{b}{c}" for a in "bdfgk" for b in "aou" for c in "lmnp"]
ROWS = 600
MakeAccept = Callable[[object], Accept]


def corpus() -> Iterator[tuple[int, str, str]]:
    """Short passages over few words: many equal scores. Rows have gaps; every 50th passage is without text."""
    rng = random.Random(5)
    for number in range(ROWS):
        text = " ".join(rng.choices(WORDS, weights=range(1, len(WORDS) + 1), k=rng.choice([3, 3, 3, 12])))
        yield 3 * number, "", "" if number % 50 == 7 else text


def open_tantivy_index(folder: Path) -> LexicalIndex:
    build_tantivy(folder, LexicalConfig(), corpus())
    return open_tantivy(folder, LexicalConfig())


def open_tantivy_live(folder: Path) -> LexicalIndex:
    passages = list(corpus())
    (folder / "base").mkdir()
    build_tantivy(folder / "base", LexicalConfig(), passages[: ROWS // 2])
    live = TantivyLive(LexicalConfig(), folder / "base", folder / "scratch")
    for start in range(ROWS // 2, ROWS, 100):
        live.apply(passages[start : start + 100])
        live.commit()
    return live.reader()


def open_lucene_index(folder: Path) -> LexicalIndex:
    config = LexicalConfig(engine="lucene")
    build_lucene(folder, config, corpus())
    return open_lucene(folder, config)


ENGINES: dict[str, Callable[[Path], LexicalIndex]] = {
    "tantivy": open_tantivy_index,
    "tantivy-live": open_tantivy_live,
    "lucene": open_lucene_index,
}


@pytest.fixture(
    scope="module",
    params=[pytest.param(name, marks=pytest.mark.lucene if name == "lucene" else ()) for name in ENGINES],
)
def index(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> LexicalIndex:
    if request.param == "lucene":
        request.getfixturevalue("lucene")
    return ENGINES[request.param](tmp_path_factory.mktemp(request.param))


def queries() -> list[str]:
    rng = random.Random(6)
    return [" ".join(rng.choices(WORDS, k=rng.choice([1, 1, 2, 5]))) for _ in range(25)]


def same(found: Matches, expected: Matches) -> None:
    np.testing.assert_array_equal(found.rows, expected.rows)
    np.testing.assert_array_equal(found.scores, expected.scores)


def test_results_are_typed_ordered_and_broken_by_row(index: LexicalIndex) -> None:
    for query in queries():
        found = index.search(query, ROWS)
        assert found.rows.dtype == np.int64
        assert found.scores.dtype == np.float32
        assert len(set(found.rows.tolist())) == len(found.rows) > 0
        np.testing.assert_array_equal(np.lexsort((found.rows, -found.scores)), np.arange(len(found.rows)))
        assert (found.scores > 0).all()


def test_every_passage_that_shares_a_word_is_found_and_no_other(index: LexicalIndex) -> None:
    for query in queries():
        wanted = {row for row, _, text in corpus() if set(text.split()) & set(query.split())}
        assert set(index.search(query, 10 * ROWS).rows.tolist()) == wanted


@pytest.mark.parametrize("limit", [1, 7, 100])
def test_cutting_is_taking_the_head_of_the_whole_ranking(index: LexicalIndex, limit: int) -> None:
    for query in queries():
        whole = index.search(query, 10 * ROWS)
        same(index.search(query, limit), Matches(whole.rows[:limit], whole.scores[:limit]))


@pytest.mark.parametrize("share", [0.5, 0.1, 0.02, 0.0])
@pytest.mark.parametrize("limit", [3, 50])
def test_filtering_is_scoring_everything_then_filtering_then_cutting(
    index: LexicalIndex, accept: MakeAccept, share: float, limit: int
) -> None:
    rng = np.random.default_rng(8)
    for query in queries():
        chosen = 3 * rng.choice(ROWS, int(share * ROWS), replace=False)
        whole = index.search(query, 10 * ROWS)
        keep = np.isin(whole.rows, chosen)
        same(index.search(query, limit, accept(chosen)), Matches(whole.rows[keep][:limit], whole.scores[keep][:limit]))


def test_a_filter_that_accepts_only_the_worst_rows_still_fills_the_answer(
    index: LexicalIndex, accept: MakeAccept
) -> None:
    for query in queries():
        whole = index.search(query, 10 * ROWS)
        worst = whole.rows[-40:]
        same(index.search(query, 40, accept(worst)), Matches(whole.rows[-40:], whole.scores[-40:]))


def test_rows_the_index_does_not_hold_may_be_accepted(index: LexicalIndex, accept: MakeAccept) -> None:
    query = queries()[0]
    accepted = accept(np.concatenate([np.arange(0, 30, 3), [10**9, 1]]))
    whole = index.search(query, 10 * ROWS)
    assert index.search(query, 100, accepted).rows.tolist() == [row for row in whole.rows.tolist() if row < 30]


@pytest.mark.parametrize("query", ["", "   ", "the of and", "?!\n", "zzzz"])
def test_a_query_without_known_words_finds_nothing(index: LexicalIndex, query: str) -> None:
    found = index.search(query, 5)
    assert len(found.rows) == len(found.scores) == 0
    assert found.rows.dtype == np.int64


def test_operators_and_quotes_mean_nothing(index: LexicalIndex) -> None:
    plain = index.search("bal dom gup", 50)
    for query in [
        'bal AND dom NOT gup"',
        "+bal -dom contents: gup",
        "(bal OR dom^9) gup~2 *",
        'bal "dom gup"',
        "bal/dom\\gup",
    ]:
        extra = set(index.explain_terms(query)) - {"bal", "dom", "gup"}
        assert not extra & set(WORDS)
        same(index.search(query, 50), plain)


def test_repeated_words_weigh_by_their_count(index: LexicalIndex) -> None:
    once, thrice = index.search("bal", ROWS), index.search("bal bal bal", ROWS)
    np.testing.assert_allclose(thrice.scores, 3 * once.scores, rtol=1e-6)


@pytest.mark.parametrize("text", ["\ud800", "bal \udfff"])
def test_lone_surrogates_are_refused(index: LexicalIndex, text: str) -> None:
    with pytest.raises(RequestError, match="surrogate"):
        index.search(text, 5)
    with pytest.raises(RequestError, match="surrogate"):
        index.like(text, 5)


@pytest.mark.parametrize("limit", [0, -1])
def test_a_limit_below_one_is_refused(index: LexicalIndex, limit: int) -> None:
    with pytest.raises(RequestError, match="at least 1"):
        index.search("bal", limit)


def test_too_many_words_are_cut_to_the_rarest_with_a_note(index: LexicalIndex) -> None:
    padding = " ".join(f"unknown{number}" for number in range(2 * MAX_TERMS))
    found = index.search(f"bal {padding} dom", 50)
    same(found, index.search("bal dom", 50))
    assert found.notes == ()  # no word that any passage holds was left out


def test_similar_passages_share_the_most_telling_words(index: LexicalIndex, accept: MakeAccept) -> None:
    texts = {row: text for row, _, text in corpus() if text}
    row = next(row for row, text in texts.items() if len(text.split()) == 12)
    assert index.like(texts[row], 1).rows.tolist() == [row]
    assert len(set(texts[row].split())) <= LIKE_TERMS
    best = index.search(" ".join(sorted(set(texts[row].split()))), ROWS)
    found = index.like(texts[row], ROWS)
    assert set(found.rows.tolist()) == set(best.rows.tolist())
    assert row not in index.like(texts[row], 10, accept([r for r in texts if r != row])).rows.tolist()


def test_terms_are_explained_in_order_with_repeats(index: LexicalIndex) -> None:
    assert index.explain_terms("Running, the DOGS running!") == ["run", "dog", "run"]


def test_threads_get_the_answers_of_one(index: LexicalIndex) -> None:
    expected = [index.search(query, 20) for query in queries()]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(3):
            for found, wanted in zip(pool.map(lambda query: index.search(query, 20), queries()), expected, strict=True):
                same(found, wanted)
