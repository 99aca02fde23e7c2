"""A task holds only what can be measured; what cannot is named, not counted as 0."""

import gzip
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from evaluation.measures import per_query
from evaluation.task import Task, read_task
from index.errors import CorpusError, ShapeError
from retrieval.types import Query

CORPUS = [
    {"_id": "a", "title": "A", "text": "first"},
    {"_id": "b c", "text": "second"},
    {"_id": "blank", "title": "", "text": ""},
    {"_id": "d", "title": "D", "text": ""},
]
QUERIES = [{"_id": name, "text": f"text of {name}"} for name in ("q2", "q1", "barren", "other")]
HEADER = "query-id\tcorpus-id\tscore\n"
DEV = f"{HEADER}q1\ta\t2\nq1\td\t0\nq2\tb c\t1\nbarren\ta\t0\n"


def lines(values: list[dict[str, str]]) -> str:
    return "".join(json.dumps(value) + "\n" for value in values)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "scifact"
    (folder / "qrels").mkdir(parents=True)
    (folder / "corpus.jsonl").write_text(lines(CORPUS), encoding="utf-8")
    (folder / "queries.jsonl").write_text(lines(QUERIES), encoding="utf-8")
    (folder / "qrels" / "dev.tsv").write_text(DEV, encoding="utf-8")
    (folder / "qrels" / "train.tsv").write_text(f"{HEADER}other\tblank\t1\n", encoding="utf-8")
    return folder


def test_a_folder_is_read(folder: Path) -> None:
    task = read_task(folder)
    assert (task.name, task.family) == ("scifact", "biomedical")
    assert task.doc_ids == ("a", "b c", "blank", "d")
    assert task.texts == ("first", "second", "", "")
    assert task.titles == ("A", "", "", "D")
    assert task.queries == (Query("q2", "text of q2"), Query("q1", "text of q1"))
    assert task.qrels == {"q1": {"a": 2, "d": 0}, "q2": {"b c": 1}}
    assert "second" not in repr(task)


def test_a_split_may_be_named(folder: Path) -> None:
    assert [query.id for query in read_task(folder, "train").queries] == ["other"]
    with pytest.raises(CorpusError, match=r"no judgements qrels/test\.tsv; splits there: dev, train"):
        read_task(folder, "test")


def test_the_test_split_comes_first(folder: Path) -> None:
    (folder / "qrels" / "test.tsv").write_text(f"{HEADER}q1\ta\t1\n", encoding="utf-8")
    assert [query.id for query in read_task(folder).queries] == ["q1"]


def test_a_dataset_of_no_known_family_is_its_own(folder: Path, tmp_path: Path) -> None:
    assert read_task(folder.rename(tmp_path / "mine")).family == "mine"


def test_compressed_files_are_read(folder: Path) -> None:
    for name in ("corpus.jsonl", "queries.jsonl"):
        content = (folder / name).read_bytes()
        (folder / name).unlink()
        (folder / f"{name}.gz").write_bytes(gzip.compress(content))
    assert len(read_task(folder).doc_ids) == 4


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("qrels/dev.tsv", f"{HEADER}q1\tzz\t1\nq1\ta\t1\n", "name 1 documents that its corpus does not hold: 'zz'"),
        ("qrels/dev.tsv", f"{HEADER}q1\ta\t1\nq1\tzz\t0\n", "'zz'"),
        ("qrels/dev.tsv", f"{HEADER}q9\ta\t1\n", "judges 1 queries that have no text: 'q9'"),
        ("qrels/dev.tsv", f"{HEADER}q1\ta\t0\nq2\ta\t-1\n", "none of its 2 queries has a relevant document"),
        ("qrels/dev.tsv", f"{HEADER}q1\ta\tyes\n", "line 2: grade 'yes' is not an integer"),
        (
            "qrels/dev.tsv",
            f"{HEADER}q1\ta\t-1000001\nq1\tb c\t1\n",
            "the grade of document 'a' for query 'q1' is -1,000,001",
        ),
        ("corpus.jsonl", lines([CORPUS[0], CORPUS[0]]), "line 2: document id 'a' is used twice"),
        ("corpus.jsonl", "\n", "holds no documents"),
        ("queries.jsonl", "\n", "holds no queries"),
    ],
)
def test_what_cannot_be_measured_is_refused(folder: Path, name: str, text: str, message: str) -> None:
    (folder / name).write_text(text, encoding="utf-8")
    with pytest.raises(CorpusError, match=message):
        read_task(folder)


@pytest.mark.parametrize("name", ["corpus.jsonl", "queries.jsonl"])
def test_a_folder_that_is_not_beirs_is_refused(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(CorpusError, match=f"not a BEIR folder: it has no {name}"):
        read_task(folder)


def test_a_folder_without_judgements_is_refused(folder: Path) -> None:
    for path in (folder / "qrels").iterdir():
        path.unlink()
    with pytest.raises(CorpusError, match="splits there: none"):
        read_task(folder)


def test_rows_and_runs_are_each_others_inverse(folder: Path) -> None:
    task = read_task(folder)
    run = {"q1": ["d", "a"], "q2": ["b c"]}
    rows = task.rows_of({**run, "unjudged": ["a"]})
    assert rows.dtype == np.int64
    assert rows.tolist() == [[1, -1], [3, 0]]
    assert task.run_of(rows) == run
    assert task.rows_of({}).shape == (2, 0)
    assert task.run_of(np.array([[-1, 1, -1], [-1, -1, -1]])) == {"q1": [], "q2": ["b c"]}


def test_a_query_without_rows_scores_nothing(folder: Path) -> None:
    task = read_task(folder)
    rows = np.array([[1, -1], [-1, -1]])
    assert per_query("nDCG@10", task.run_of(rows), task.qrels) == {"q1": 0.0, "q2": 1.0}


def test_runs_that_do_not_fit_are_refused(folder: Path) -> None:
    task = read_task(folder)
    with pytest.raises(CorpusError, match=r"does not hold: 'x', 'y', 'z', \.\.\."):
        task.rows_of({"q1": ["x", "y", "z", "w"]})
    with pytest.raises(CorpusError, match="document 'a' comes twice for query 'q1'"):
        task.rows_of({"q1": ["a", "d", "a"]})


@pytest.mark.parametrize(
    "rows",
    [
        np.zeros((3, 1), dtype=np.int64),
        np.zeros(2, dtype=np.int64),
        np.zeros((2, 1), dtype=np.int32),
        np.full((2, 1), 4),
        np.full((2, 1), -2),
    ],
)
def test_rows_that_do_not_fit_are_refused(folder: Path, rows: np.ndarray) -> None:
    with pytest.raises(ShapeError):
        read_task(folder).run_of(rows)


def test_a_task_cannot_be_made_inconsistent(folder: Path) -> None:
    task = read_task(folder)
    with pytest.raises(CorpusError, match=r"4 document ids \(4 different\), 4 texts, 3 titles"):
        replace(task, titles=task.titles[:3])
    with pytest.raises(CorpusError, match="3 different"):
        replace(task, doc_ids=("a", "b c", "a", "d"))
    with pytest.raises(CorpusError, match="1 of them without a relevant document"):
        replace(task, qrels={"q1": {"a": 1}, "q2": {"a": 0}})
    with pytest.raises(CorpusError, match="judgements of 2"):
        replace(task, queries=task.queries[:1])
    with pytest.raises(CorpusError, match="has 0 queries"):
        replace(task, queries=(), qrels={})
    with pytest.raises(CorpusError, match="has 3 queries"):
        replace(task, queries=(*task.queries, task.queries[0]))


def test_the_real_datasets_are_consistent(dataset) -> None:  # type: ignore[no-untyped-def]  # the fixture's own type
    task = read_task(dataset("cranfield"))
    assert isinstance(task, Task)
    assert (len(task.doc_ids), len(task.queries)) == (1_400, 225)
    # Ids with spaces, and every query has two of 46 documents.
    limit = read_task(dataset("limit-small"))
    assert (len(limit.doc_ids), len(limit.queries)) == (46, 1_000)
    assert all(sum(grade > 0 for grade in grades.values()) == 2 for grades in limit.qrels.values())
