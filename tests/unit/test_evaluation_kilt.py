"""KILT's measures over provenance sets, counted by hand."""

import json
from pathlib import Path
from typing import Any

import pytest

from evaluation.kilt import Question, per_question, r_precision, read_kilt, read_kilt_run, recall, success
from index.errors import CorpusError, RequestError
from retrieval.types import Query

# Two ways to support the answer: a and b together, or c alone.
TWO = [frozenset("ab"), frozenset("c")]

# The sets and the ranking of the official repository's own retrieval test, whose expected numbers are asserted below.
OFFICIAL = [frozenset({"1", "2"}), frozenset({"5"}), frozenset({"7", "9", "11"})]
OFFICIAL_RANKING = ["2", "5", "7", "33", "1", "9", "44", "88"]


def lines(*values: Any) -> str:
    return "".join(json.dumps(value) + "\n" for value in values)


def output(*pages: Any) -> dict[str, Any]:
    return {"provenance": [{"wikipedia_id": page} for page in pages]}


@pytest.mark.parametrize(
    ("ranking", "expected"),
    [
        ("ab", 1.0),  # {a, b}: both of the first two
        ("ba", 1.0),
        ("c", 1.0),  # {c}: the first one
        ("ac", 0.5),  # {a, b}: one of two; {c}: not first
        ("xab", 0.5),
        ("xxab", 0.5),  # a page named twice is one prediction
        ("xyab", 0.0),
        ("", 0.0),
    ],
)
def test_r_precision_is_the_best_over_the_sets(ranking: str, expected: float) -> None:
    assert r_precision(list(ranking), TWO) == expected


@pytest.mark.parametrize(
    ("ranking", "k", "found"),
    [
        ("ab", 1, 1),  # {a, b} is one item, at its last page, and nothing else is before it: place 1
        ("axb", 1, 0),  # x, {a, b}
        ("axb", 2, 1),
        ("xab", 1, 0),
        ("xab", 2, 1),
        ("axy", 3, 0),  # {a, b} never completes
        ("axc", 2, 0),  # the begun set keeps its place: a, x, c
        ("axc", 3, 1),
        ("cab", 1, 1),
        ("cab", 2, 2),
        ("acb", 1, 1),  # c, {a, b}: what a held is freed when b completes the set
        ("acb", 2, 2),
        ("ccab", 2, 2),
        ("", 5, 0),
    ],
)
def test_a_set_is_one_item_of_the_ranking_at_its_last_page(ranking: str, k: int, found: int) -> None:
    assert recall(list(ranking), TWO, k) == found / 2
    assert success(list(ranking), TWO, k) == float(found > 0)


def test_a_page_of_two_sets_is_an_item_of_each() -> None:
    sets = [frozenset("a"), frozenset("ab")]
    assert recall(["a", "b"], sets, 1) == 0.5
    assert recall(["a", "b"], sets, 2) == 1.0
    assert recall(["a", "x", "b"], sets, 2) == 0.5  # {a}, x, {a, b}


def test_sets_that_are_equal_count_once() -> None:
    assert recall(["c", "x"], [frozenset("c"), frozenset("c"), frozenset("d")], 5) == 0.5


def test_the_official_repositorys_own_numbers() -> None:
    assert r_precision(OFFICIAL_RANKING, OFFICIAL) == 1 / 2
    assert recall(OFFICIAL_RANKING, OFFICIAL, 5) == 2 / 3
    assert success(OFFICIAL_RANKING, OFFICIAL, 1) == success(OFFICIAL_RANKING, OFFICIAL, 5) == 1.0
    assert r_precision(["5"], OFFICIAL) == 1.0
    assert recall(["5"], OFFICIAL, 5) == 1 / 3
    assert success(["5"], OFFICIAL, 5) == 1.0


def test_a_question_without_ranking_counts_nothing() -> None:
    questions = [Question(Query(name, "?"), tuple(TWO)) for name in ("found", "empty", "absent")]
    values = per_question(questions, {"found": ["c"], "empty": []}, ks=(1,))
    expected = {"found": 1.0, "empty": 0.0, "absent": 0.0}
    assert values["Rprec"] == values["success@1"] == expected
    assert values["recall@1"] == {**expected, "found": 0.5}


@pytest.mark.parametrize("sets", [[], [frozenset()], [frozenset("a"), frozenset()]])
def test_what_cannot_be_judged_is_refused(sets: list[frozenset[str]]) -> None:
    with pytest.raises(RequestError, match="at least one provenance set"):
        r_precision(["a"], sets)
    with pytest.raises(RequestError, match="at least one provenance set"):
        recall(["a"], sets, 1)


def test_k_starts_at_one() -> None:
    with pytest.raises(RequestError, match="k is 0"):
        recall(["a"], TWO, 0)
    with pytest.raises(RequestError, match="k is -1"):
        success(["a"], TWO, -1)


def test_gold_and_predictions_are_read(tmp_path: Path) -> None:
    gold, guess = tmp_path / "gold.jsonl", tmp_path / "guess.jsonl"
    text = lines(
        {
            "id": 7,
            "input": "two ways",
            "output": [output("a", "b", "a"), output(" c "), output("b", "a"), {"answer": "x"}],
        },
        {"id": "none", "input": "no evidence", "output": [{"answer": "x"}, {"provenance": []}]},
        {"id": "n", "input": "numbers", "output": [output(5)]},
    )
    gold.write_text(f"{text}\n", encoding="utf-8")
    ranking = {"answer": "x", **output("x", "b", "b", 5)}
    guess.write_text(
        lines({"id": 7, "output": [{"answer": "only"}, ranking]}, {"id": "n", "output": [output()]}), "utf-8"
    )
    assert read_kilt(gold) == [
        Question(Query("7", "two ways"), (frozenset("ab"), frozenset("c"))),
        Question(Query("n", "numbers"), (frozenset({"5"}),)),
    ]
    assert read_kilt_run(guess) == {"7": ["x", "b", "5"], "n": []}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{\n", "line 1: broken JSON"),
        (lines({"input": "q", "output": []}), "line 1: expected 'id'"),
        (lines({"id": "1", "output": []}), "line 1: expected 'input'"),
        (lines({"id": "1", "input": "q"}), "line 1: expected 'output'"),
        (lines({"id": "1", "input": "q", "output": [{"provenance": "p"}]}), "line 1: 'provenance' is no list"),
        (lines(*[{"id": "1", "input": "q", "output": [output("a")]}] * 2), "line 2: question id '1' is used twice"),
        (lines({"id": "1", "input": "q", "output": [{"answer": "x"}]}), "none of its 1 questions has provenance"),
        ("", "none of its 0 questions"),
    ],
)
def test_broken_gold_is_refused_with_its_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "gold.jsonl"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(CorpusError, match=message):
        read_kilt(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (lines({"id": "1", "output": [output("a"), output("b")]}), "line 1: 2 outputs have provenance, expected one"),
        (lines({"id": "1", "output": []}), "line 1: 0 outputs have provenance"),
        (lines(*[{"id": "1", "output": [output("a")]}] * 2), "line 2: question id '1' is used twice"),
        ("\n", "holds no predictions"),
    ],
)
def test_broken_predictions_are_refused_with_their_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "guess.jsonl"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(CorpusError, match=message):
        read_kilt_run(path)
