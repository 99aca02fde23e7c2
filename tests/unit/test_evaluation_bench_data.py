import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from evaluation.bench_data import BenchTask, Limits, read_bench_task
from evaluation.bench_vectors import Embeddings
from evaluation.task import Task
from index.errors import CorpusError
from retrieval.encoders import EncoderConfig, open_encoder
from retrieval.types import Query

ALL = Limits(queries=1_000, documents=1_000, train_queries=1_000)
HASHING = EncoderConfig(kind="hashing", dim=32)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """40 documents, 12 test queries and 6 train queries, of which one wants nothing; document 7 is blank."""
    root = tmp_path / "set"
    (root / "qrels").mkdir(parents=True)
    documents = [{"_id": f"d{n}", "title": f"title {n}", "text": f"text of {n}"} for n in range(40)]
    documents[7] = {"_id": "d7", "title": "", "text": " "}
    queries = [{"_id": f"q{n}", "text": f"what is {n}"} for n in range(18)]
    for name, rows in (("corpus", documents), ("queries", queries)):
        (root / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    test = [f"q{n}\td{n}\t1" for n in range(12)]
    train = [f"q{n}\td{n + 20}\t2\nq{n}\td{n}\t1" for n in range(12, 17)] + ["q17\td1\t0"]
    for name, lines in (("test", test), ("train", train)):
        (root / "qrels" / f"{name}.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return root


def test_the_train_split_comes_as_pairs_of_rows(folder: Path) -> None:
    data = read_bench_task(folder, None, ALL, 0)
    assert (data.split, data.notes) == ("test", ())
    assert [query.id for query in data.train] == ["q12", "q13", "q14", "q15", "q16"]
    assert data.pairs.dtype == np.int64
    assert sorted(map(tuple, data.pairs.tolist())) == sorted(
        (place, row) for place in range(5) for row in (place + 12, place + 32)
    )
    assert len(data.documents()) == 39  # but the blank one


def test_the_split_that_is_measured_trains_nothing(folder: Path) -> None:
    data = read_bench_task(folder, "train", ALL, 0)
    assert (data.split, len(data.task.queries), len(data.train), len(data.pairs)) == ("train", 5, 0, 0)
    with pytest.raises(CorpusError, match=r"dev\.tsv"):
        read_bench_task(folder, "dev", ALL, 0)


def test_a_sample_keeps_what_is_judged(folder: Path) -> None:
    data = read_bench_task(folder, None, Limits(queries=5, documents=9, train_queries=2), 3)
    task = data.task
    assert (len(task.queries), len(task.doc_ids), len(data.train) <= 2) == (5, 9, True)
    judged = {doc_id for grades in task.qrels.values() for doc_id in grades}
    assert len(judged) == 5
    assert judged < set(task.doc_ids)
    assert task.doc_ids == tuple(sorted(task.doc_ids, key=lambda doc_id: int(doc_id[1:])))
    assert dict(zip(task.doc_ids, task.titles, strict=True))[min(judged)] == f"title {min(judged)[1:]}"
    assert data.notes == (
        "5 of 12 queries, a seeded sample",
        "9 of 40 documents, all that are judged among them",
    )
    assert data.pairs.size == 0 or data.pairs[:, 1].max() < 9
    again = read_bench_task(folder, None, Limits(queries=5, documents=9, train_queries=2), 3)
    assert again.digest == data.digest
    assert read_bench_task(folder, None, Limits(queries=5, documents=9, train_queries=2), 4).digest != data.digest


def test_the_digest_is_of_everything_that_is_measured_on() -> None:
    def data(text: str = "a", query: str = "b", grade: int = 1, train: tuple[Query, ...] = ()) -> BenchTask:
        task = Task("t", "t", ("1", "2"), (text, "x"), ("", ""), (Query("q", query),), {"q": {"1": grade}})
        return BenchTask(task, "test", train, np.empty((0, 2), np.int64))

    digests = {
        data().digest,
        data("c").digest,
        data("a", "c").digest,
        data(grade=2).digest,
        data(train=(Query("r", "r"),)).digest,
    }
    assert len(digests) == 5
    assert data().digest == data().digest


def test_vectors_are_encoded_once_and_kept(folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    data, kept = read_bench_task(folder, None, ALL, 0), tmp_path / "vectors"
    reported: list[tuple[str, int]] = []

    def vectors() -> Embeddings:
        reported.clear()
        return Embeddings(data, kept, 0, lambda stage, done, _: reported.append((stage, done)))

    first = vectors().of(HASHING)
    expected = open_encoder(HASHING)
    assert len(first.train) == 5
    assert (first.documents == expected.encode_texts(first.texts()).vectors).all()
    assert (first.queries == expected.encode_queries(data.task.queries)).all()
    assert first.texts()[0] == "title 0 text of 0"
    assert sorted(reported) == [("encode documents", 40), ("encode queries", 5), ("encode queries", 12)]
    second = vectors().of(HASHING)
    assert (second.documents == first.documents).all()
    assert reported == []
    (path,) = kept.glob("*-documents-*")
    path.write_bytes(path.read_bytes()[:100])
    third = vectors().of(HASHING)
    assert (third.documents == first.documents).all()
    assert (third.queries == first.queries).all()
    assert reported == [("encode documents", 40)]
    assert "is damaged" in caplog.text
    assert first.unit
    assert {"learned", "csls", "whitened"} <= first.spaces.keys()
    assert first.unfitted == {}
    both = vectors()
    assert both.of(HASHING) is both.of(HASHING)


def test_other_queries_of_the_same_documents_encode_only_themselves(folder: Path, tmp_path: Path) -> None:
    kept = tmp_path / "vectors"
    first = Embeddings(read_bench_task(folder, None, ALL, 0), kept, 0).of(HASHING)
    assert (len(first.documents), len(first.train)) == (40, 5)
    reported: list[str] = []
    other = read_bench_task(folder, "train", ALL, 0)
    second = Embeddings(other, kept, 0, lambda stage, *_: reported.append(stage)).of(HASHING)
    assert (second.documents == first.documents).all()
    assert (second.queries == first.train).all()
    assert reported == []  # what trained is asked now
    three = Embeddings(
        read_bench_task(folder, None, replace(ALL, queries=3), 0), kept, 0, lambda *said: reported.append(said[0])
    )
    assert len(three.of(HASHING).documents) == 40
    assert len(three.of(HASHING).queries) == 3
    assert reported == ["encode queries"]


def test_collections_get_the_vectors_that_are_there(folder: Path, tmp_path: Path) -> None:
    data = read_bench_task(folder, None, ALL, 0)
    vectors = Embeddings(data, tmp_path, 0).of(HASHING)
    encoder = vectors.encoders().get(HASHING)
    assert encoder.fingerprint == vectors.fingerprint
    assert encoder.dim == 32
    assert (encoder.encode_texts(vectors.texts()[3:5]).vectors == vectors.documents[3:5]).all()
    assert (encoder.encode_queries(data.task.queries[2:4]) == vectors.queries[2:4]).all()
    own = open_encoder(HASHING)
    unknown = ["title 0 text of 0", "never seen"]
    assert (encoder.encode_texts(unknown).vectors == own.encode_texts(unknown).vectors).all()
    queries = [Query("x", "another question")]
    assert (encoder.encode_queries(queries) == own.encode_queries(queries)).all()
