from pathlib import Path

import pytest

from evaluation.trec import RunSize, escape_id, read_qrels, read_queries, read_run, write_run
from index.errors import CorpusError, RequestError, StorageError
from retrieval.types import Hit, Passage, Query, Ranking


def ranking(query_id: str, *doc_ids: str) -> Ranking:
    return Ranking(query_id, tuple(Hit(doc_id, Passage(doc_id, 0, 0, 1, "x"), 0.5, "s") for doc_id in doc_ids))


def written(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_a_run_has_six_columns_and_minus_the_rank_as_score(tmp_path: Path) -> None:
    path = tmp_path / "run.trec"
    size = write_run(path, [ranking("q 1", "Geneva Durben", "50%"), ranking("q2"), ranking("q3", "é/x:y")], "tag")
    assert path.read_text(encoding="utf-8").splitlines() == [
        "q%201 Q0 Geneva%20Durben 1 -1 tag",
        "q%201 Q0 50%25 2 -2 tag",
        "q3 Q0 é/x:y 1 -1 tag",
    ]
    assert size == RunSize(answered=2, unanswered=1, hits=3)
    assert read_run(path) == {"q 1": ["Geneva Durben", "50%"], "q3": ["é/x:y"]}


def test_a_document_found_by_several_passages_stands_once(tmp_path: Path) -> None:
    path = tmp_path / "run.trec"
    write_run(path, [ranking("q", "a", "b", "a", "c")], "tag")
    assert read_run(path) == {"q": ["a", "b", "c"]}


def test_a_run_that_fails_half_way_leaves_the_old_one(tmp_path: Path) -> None:
    path = written(tmp_path / "run.trec", "old\n")

    def failing():  # type: ignore[no-untyped-def]  # a generator of rankings
        yield ranking("q", "a")
        raise RequestError("no more")

    with pytest.raises(RequestError):
        write_run(path, failing(), "tag")
    assert path.read_text(encoding="utf-8") == "old\n"
    assert list(tmp_path.iterdir()) == [path]


def test_a_run_into_a_missing_folder_is_a_storage_error(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="nowhere"):
        write_run(tmp_path / "nowhere" / "run.trec", [], "tag")


@pytest.mark.parametrize("tag", ["", "two words", "50%"])
def test_a_tag_must_be_one_word(tmp_path: Path, tag: str) -> None:
    with pytest.raises(RequestError, match="one word"):
        write_run(tmp_path / "run.trec", [], tag)


def test_another_tools_run_is_ordered_as_trec_eval_orders_it(tmp_path: Path) -> None:
    path = written(tmp_path / "run", "q Q0 low 1 0.5 t\nq Q0 a 2 2.5 t\nq\tQ0\tb\t9\t2.5\tt\nq Q0 top 4 1e3 t\n")
    assert read_run(path) == {"q": ["top", "b", "a", "low"]}


def test_scores_may_be_written_in_any_usual_way(tmp_path: Path) -> None:
    scores = ["inf", "+2.5E3", "1e-3", "5.", ".5", "-0", "-1.25", "-Infinity"]
    lines = [f"q Q0 {score} {rank} {score} t\n" for rank, score in enumerate(scores, start=1)]
    expected = ["inf", "+2.5E3", "5.", ".5", "1e-3", "-0", "-1.25", "-Infinity"]
    assert read_run(written(tmp_path / "run", "".join(lines))) == {"q": expected}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("q Q0 a 1 0.5\n", "line 1: found 5 columns, expected 6"),
        ("q Q0 a 1 0.5 t\nq Q0 a 2 0.4 t\n", "line 2: document 'a' is ranked twice"),
        ("q Q0 a 1 0.5 t\nr Q0 b 1 1 t\nq Q0 b 1 0.4 t\n", "line 3: rank 1 of query 'q' is given to 'a' and to 'b'"),
        ("q Q0 a 1 high t\n", "line 1: score 'high' is not a number"),
        ("q Q0 a 1 1_0 t\n", "line 1: score '1_0' is not a number"),
        ("q Q0 a 1 0x1 t\n", "line 1: score '0x1' is not a number"),
        ("q Q0 a 1 -NaN t\n", "line 1: score is NaN"),
        ("q Q0 a 1 nan t\n", "line 1: score is NaN"),
        ("q Q0 a 1 2 t\nq Q0 b 2 -1e309 t\n", "line 2: score '-1e309' is more than a float64 holds"),
    ],
)
def test_a_broken_run_is_refused_with_its_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(CorpusError, match=message):
        read_run(written(tmp_path / "run", text))


def test_queries_are_read_from_json_lines_and_from_tsv(tmp_path: Path) -> None:
    expected = [Query("1", "first question"), Query("b c", "second\tone")]
    lines = '{"_id": 1, "text": "first question", "metadata": {}}\n\n{"id": "b c", "text": "second\\tone"}\n'
    assert read_queries(written(tmp_path / "queries.jsonl", lines)) == expected
    assert read_queries(written(tmp_path / "queries.tsv", "1\tfirst question\nb c\tsecond\tone\n")) == expected


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("q.tsv", "1\tone\n2 two\n", "line 2: no tab"),
        ("q.tsv", "1\tone\n1\ttwo\n", "line 2: query id '1' is used twice"),
        ("q.tsv", "1\t \n", "line 1: the query's text is empty"),
        ("q.tsv", "\tone\n", "line 1: the query's id is empty"),
        ("q.tsv", "\n", "holds no queries"),
        ("q.jsonl", '{"_id": "1"}\n', "line 1: expected '_id'"),
        ("q.jsonl", '{"_id": "1", "text": "\\ud800"}\n', "line 1: the query holds a lone surrogate"),
        ("q.jsonl", "{\n", "line 1: broken JSON"),
    ],
)
def test_broken_queries_are_refused_with_their_line(tmp_path: Path, name: str, text: str, message: str) -> None:
    with pytest.raises(CorpusError, match=message):
        read_queries(written(tmp_path / name, text))


def test_judgements_are_read_from_beir_and_from_trec(tmp_path: Path) -> None:
    expected = {"q 1": {"Geneva Durben": 2, "b": 0}, "q2": {"b": -1}}
    beir = "q 1\tGeneva Durben\t2\nq 1\tb\t0\nq2\tb\t-1\n"
    assert read_qrels(written(tmp_path / "test.tsv", f"query-id\tcorpus-id\tscore\n{beir}")) == expected
    assert read_qrels(written(tmp_path / "bare.tsv", beir)) == expected
    trec = "q%201 0 Geneva%20Durben 2\nq%201\t0\tb\t0\nq2 0 b -1\n"
    assert read_qrels(written(tmp_path / "qrels.txt", trec)) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("q\ta\t1\nq\ta\t2\n", "line 2: 'a' is judged 1 and 2"),
        ("q\ta\t1_0\n", "line 1: grade '1_0' is not an integer"),
        ("q\ta\t1.0\n", "line 1: grade '1.0' is not an integer"),
        ("q\ta\t\n", "line 1: grade '' is not an integer"),
        ("q\ta\thigh\n", "line 1: grade 'high' is not an integer"),
        ("q a 1\n", "line 1: expected 3 columns"),
        ("q\ta\t1\n\ta\t1\n", "line 2: the query's id is empty"),
        ("q\t \t1\n", "line 1: the document's id is empty"),
        ("query-id\tcorpus-id\tscore\n", "holds no judgements"),
    ],
)
def test_broken_judgements_are_refused_with_their_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(CorpusError, match=message):
        read_qrels(written(tmp_path / "qrels", text))


def test_columns_that_are_no_escapes_of_ours_stand_for_themselves(tmp_path: Path) -> None:
    # Read as UTF-8, the first two would be the same id: one character that stands for what is broken.
    run = read_run(written(tmp_path / "run", "q Q0 %ff 1 4 t\nq Q0 %fe 2 3 t\nq Q0 100% 3 2 t\nq Q0 %zz 4 1 t\n"))
    assert run == {"q": ["%ff", "%fe", "100%", "%zz"]}


def test_infinite_scores_have_a_place(tmp_path: Path) -> None:
    assert read_run(written(tmp_path / "run", "q Q0 a 1 -inf t\nq Q0 b 2 Infinity t\n")) == {"q": ["b", "a"]}


def test_only_what_separates_columns_is_escaped() -> None:
    assert escape_id("a\u00a0b\tc%d/e") == "a%C2%A0b%09c%25d/e"
