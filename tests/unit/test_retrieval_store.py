"""The truth of a shard: rows, log, checksums, isolation."""

import hashlib
import json
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from index.errors import IndexFormatError, StorageError
from retrieval.store import (
    DocumentRows,
    DocumentStore,
    Operation,
    Prepared,
    Span,
    metadata_json,
    passage_key,
    passage_text,
    text_key,
)
from retrieval.types import Document, Metadata, Passage


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "documents.db"


@pytest.fixture
def store(path: Path) -> Iterator[DocumentStore]:
    store = DocumentStore(path, writable=True)
    yield store
    store.close()


def prepared(document: Document, *cuts: int) -> Prepared:
    """Cut the text at `cuts`, as a chunker would."""
    edges = [0, *cuts, len(document.text)]
    passages = [
        Passage(document.id, place, start, stop, document.text[start:stop], document.title)
        for place, (start, stop) in enumerate(pairwise(edges))
    ]
    spans = tuple(Span(passage.start, passage.end, passage_key(passage)) for passage in passages)
    return Prepared(document, metadata_json(document.metadata), spans)


def write(store: DocumentStore, *items: Prepared, log: bool = True) -> list[str]:
    with store.transaction() as writer:
        return [writer.upsert(item, log=log) for item in items]


def delete(store: DocumentStore, doc_id: str) -> bool:
    with store.transaction() as writer:
        return writer.delete(doc_id)


def first_rows(store: DocumentStore) -> dict[str, int]:
    with store.snapshot() as snapshot:
        return {stored.document.id: stored.first_row for stored in snapshot.documents()}


def operations(store: DocumentStore, after: int = 0) -> list[Operation]:
    with store.snapshot() as snapshot:
        return snapshot.operations(after)


def get(store: DocumentStore, doc_id: str) -> DocumentRows | None:
    with store.snapshot() as snapshot:
        return snapshot.get(doc_id)


def edit(path: Path, statement: str, values: Sequence[object] = ()) -> None:
    """Change the file behind the store's back, as damage would."""
    with closing(sqlite3.connect(path)) as connection, connection:
        assert connection.execute(statement, values).rowcount > 0


A = prepared(Document("a", "one two three", "title", {"n": 1}), 4, 8)
B = prepared(Document("b", "four"))


# -- rows and the log -------------------------------------------------------------------------------------------------


def test_a_new_store_is_empty(store: DocumentStore) -> None:
    with store.snapshot() as snapshot:
        assert (snapshot.document_count(), snapshot.last_op(), snapshot.log_start()) == (0, 0, 1)
        rows, keys = snapshot.all_rows()
        assert rows.shape == (0,)
        assert keys.shape == (0, 2)
        assert list(snapshot.documents()) == []
        assert snapshot.get("a") is None
        assert snapshot.integrity() == "ok"


def test_a_document_owns_consecutive_rows_one_per_passage(store: DocumentStore) -> None:
    assert write(store, A, B) == ["added", "added"]
    with store.snapshot() as snapshot:
        assert snapshot.get("a") == DocumentRows(A.document, 0, 1, A.spans)
        assert snapshot.get("b") == DocumentRows(B.document, 3, 2, B.spans)
        rows, keys = snapshot.all_rows()
        assert rows.tolist() == [0, 1, 2, 3]
        assert rows.dtype == np.int64
        assert keys.astype("<u8").tobytes() == b"".join(span.key for span in (*A.spans, *B.spans))
        assert snapshot.rows_of(["b", "nobody", "a"]).tolist() in ([0, 1, 2, 3], [3, 0, 1, 2])
        assert snapshot.rows_of([]).tolist() == []


def test_rows_are_never_used_again(store: DocumentStore, path: Path) -> None:
    write(store, A, B)
    assert write(store, prepared(Document("a", "new"))) == ["updated"]
    assert first_rows(store) == {"b": 3, "a": 4}
    assert delete(store, "a")
    assert delete(store, "b")
    write(store, A)
    assert first_rows(store) == {"a": 5}
    delete(store, "a")
    store.close()
    with closing(DocumentStore(path, writable=True)) as again:
        write(again, B)
        assert first_rows(again) == {"b": 8}


def test_the_log_says_which_rows_died_and_which_were_born(store: DocumentStore) -> None:
    write(store, A)
    write(store, B, prepared(Document("a", "short")))
    with store.transaction() as writer:
        writer.set_metadata("b", {"x": 1})
        writer.delete("a")
        writer.delete("nobody")
    assert operations(store) == [
        Operation(1, "upsert", "a", 0, 0, 0, 3),
        Operation(2, "upsert", "b", 3, 0, 3, 1),
        Operation(3, "upsert", "a", 0, 3, 4, 1),
        Operation(4, "patch", "b", 3, 1, 3, 1),
        Operation(5, "delete", "a", 4, 1, 4, 0),
    ]
    assert [operation.op for operation in operations(store, after=3)] == [4, 5]
    with store.snapshot() as snapshot:
        assert snapshot.last_op() == 5
        assert snapshot.written_since(0) == (5, 4)
        assert snapshot.written_since(2) == (1, 4)
        assert snapshot.written_since(5) == (0, 0)


def test_a_bulk_build_writes_no_log(store: DocumentStore) -> None:
    write(store, A, B, log=False)
    with store.transaction() as writer:
        writer.set_metadata("b", {"x": 1}, log=False)
    assert operations(store) == []
    with store.snapshot() as snapshot:
        assert snapshot.last_op() == 0
        assert [stored.version for stored in snapshot.documents()] == [0, 0]
        assert snapshot.get("b") == DocumentRows(Document("b", "four", metadata={"x": 1}), 3, 0, B.spans)


def test_the_log_is_pruned_from_its_start(store: DocumentStore) -> None:
    write(store, A, B)
    delete(store, "a")
    with store.transaction() as writer:
        writer.prune_log(3)
    with store.snapshot() as snapshot:
        assert snapshot.log_start() == 3
        assert [operation.op for operation in snapshot.operations(2)] == [3]
    write(store, A)
    assert [operation.op for operation in operations(store, after=2)] == [3, 4]


def test_deleting_what_is_not_there_does_nothing(store: DocumentStore) -> None:
    write(store, B)
    assert not delete(store, "nobody")
    assert not delete(store, "\ud800")
    assert not delete(store, "b\0")
    assert len(operations(store)) == 1


# -- metadata ---------------------------------------------------------------------------------------------------------


def test_patching_leaves_passages_rows_and_vectors(store: DocumentStore) -> None:
    vector = np.array([1, 2], np.float32)
    item = prepared(Document("a", "one two", "t", {"n": 1}, {"mine": vector}), 4)
    write(store, item)
    with store.transaction() as writer:
        writer.set_metadata("a", {"é": ["x", None]})
    found = get(store, "a")
    assert found is not None
    assert (found.first_row, found.spans, found.version) == (0, item.spans, 2)
    assert found.document.metadata == {"é": ["x", None]}
    assert (found.document.text, found.document.title) == ("one two", "t")
    np.testing.assert_array_equal(found.document.vectors["mine"], vector)


def test_metadata_has_one_form() -> None:
    assert metadata_json({"b": [1, 2.5], "a": None, "é": "\0\u2028"}) == '{"a":null,"b":[1,2.5],"é":"\\u0000\u2028"}'
    assert metadata_json({"x": 1, "y": (1,)}) == metadata_json({"y": [1], "x": 1})
    with pytest.raises(ValueError, match="JSON"):
        metadata_json({"x": float("nan")})


# -- checksums --------------------------------------------------------------------------------------------------------


def blake(*parts: str | bytes | int) -> bytes:
    """BLAKE2b-128 over parts, each after its type and its length in bytes: docs/index-format.md."""
    raw = [part if isinstance(part, bytes) else str(part).encode() for part in parts]
    heads = [f"{type(part).__name__} {len(content)} ".encode() for part, content in zip(parts, raw, strict=True)]
    return hashlib.blake2b(
        b"".join(head + content for head, content in zip(heads, raw, strict=True)), digest_size=16
    ).digest()


def test_sums_are_those_of_the_format(store: DocumentStore, path: Path) -> None:
    vector = np.array([1, -2], np.float32)
    write(store, prepared(Document("é", "text", "title", {"n": 1}, {"mine": vector})))
    with closing(sqlite3.connect(path)) as connection:
        content, metadata, rows, key = connection.execute(
            "SELECT content_sum, metadata_sum, row_sum, key FROM documents JOIN passages ON row = first_row"
        ).fetchone()
        operation = connection.execute("SELECT * FROM operations").fetchone()
        meta = dict(connection.execute("SELECT key, checksum FROM meta"))
    assert content == blake("é", "title", "text", "mine", b"\0\0\x80\x3f\0\0\0\xc0")
    assert metadata == blake("é", '{"n":1}')
    assert rows == blake("é", 1, 0, 1)
    assert operation == (1, "upsert", "é", 0, 0, 0, 1, blake(1, "upsert", "é", 0, 0, 0, 1))
    assert meta == {
        "format": blake("format", "1"),
        "chunking": blake("chunking", '{"kind": "none"}'),
        "next_row": blake("next_row", "1"),
        "next_op": blake("next_op", "2"),
        "log_start": blake("log_start", "1"),
    }
    assert key == text_key("title text") == hashlib.blake2b(b"title text", digest_size=16).digest()


def test_encoders_see_the_title_before_the_text() -> None:
    assert passage_text(Passage("a", 0, 0, 4, "text", "title")) == "title text"
    assert passage_text(Passage("a", 0, 0, 4, "text")) == "text"


def test_sums_tell_what_changed(store: DocumentStore) -> None:
    vector = np.array([1, 2], np.float32)
    document = Document("a", "one two", "t", {"n": 1}, {"mine": vector})
    write(store, prepared(document, 4))
    with store.snapshot() as snapshot:
        sums = snapshot.sums(["a", "nobody"])
    assert sums.keys() == {"a"}
    assert sums["a"].spans == ((0, 4), (4, 7))

    def same(item: Prepared) -> tuple[bool, bool]:
        return sums["a"].same_content(item), sums["a"].same_metadata(item)

    assert same(prepared(document, 4)) == (True, True)
    assert same(prepared(Document("a", "one two", "t", {"n": 2}, {"mine": vector}), 4)) == (True, False)
    assert same(prepared(Document("a", "one two", "t", {"n": 1.0}, {"mine": vector}), 4)) == (True, False)
    assert same(prepared(document, 3)) == (False, True)
    assert same(prepared(Document("a", "one twO", "t", {"n": 1}, {"mine": vector}), 4)) == (False, True)
    assert same(prepared(Document("a", "one two", "", {"n": 1}, {"mine": vector}), 4)) == (False, True)
    assert same(prepared(Document("a", "one two", "t", {"n": 1}, {"mine": vector + 1}), 4)) == (False, True)
    assert same(prepared(Document("a", "one two", "t", {"n": 1}), 4)) == (False, True)


def test_text_cannot_move_between_title_and_text_unseen() -> None:
    assert passage_key(Passage("a", 0, 0, 1, "b c", "a")) == passage_key(Passage("a", 0, 0, 1, "c", "a b"))
    one, other = prepared(Document("a", "b c", "a")), prepared(Document("a", "c", "a b"))
    assert one.spans[0].key == other.spans[0].key  # one text to encode, two documents


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE documents SET text = 'one twO three'",
        "UPDATE documents SET title = 'tITle'",
        "UPDATE documents SET metadata = '{\"n\":2}'",
        "UPDATE documents SET doc_id = 'c'",
        "UPDATE documents SET content_sum = x'00'",
        "UPDATE documents SET metadata_sum = x'00'",
        "UPDATE documents SET passages = 2",
        "UPDATE documents SET first_row = 1",
        "UPDATE documents SET version = 7",
        "UPDATE documents SET text = CAST(text AS BLOB)",
        "UPDATE passages SET row = 9 WHERE row = 2",
        "DELETE FROM passages WHERE row = 1",
        "UPDATE client_vectors SET vector = x'0000803f00000000'",
        "DELETE FROM client_vectors",
    ],
)
def test_a_changed_byte_is_found_when_the_document_is_read(store: DocumentStore, path: Path, damage: str) -> None:
    document = Document("a", "one two three", "title", {"n": 1}, {"mine": np.ones(2, np.float32)})
    write(store, prepared(document, 4, 8))
    edit(path, damage)
    doc_id = "c" if "doc_id" in damage else "a"
    with pytest.raises(IndexFormatError, match=f"{path.name}: document '{doc_id}'.*export"):
        get(store, doc_id)
    with store.snapshot() as snapshot, pytest.raises(IndexFormatError, match=path.name):
        list(snapshot.documents())


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE documents SET text = 'oNe two three'",
        "UPDATE documents SET title = 'tITle'",
        "UPDATE documents SET metadata = '{\"n\":2}'",
        "UPDATE passages SET start = 1 WHERE row = 0",
        "UPDATE passages SET key = x'00' WHERE row = 0",
        "UPDATE documents SET title = CAST(title AS BLOB)",
        "UPDATE documents SET metadata = CAST(metadata AS BLOB)",
    ],
)
def test_a_changed_byte_is_found_when_a_passage_is_read(store: DocumentStore, path: Path, damage: str) -> None:
    write(store, A)
    edit(path, damage)
    with store.snapshot() as snapshot, pytest.raises(IndexFormatError, match="document 'a'"):
        snapshot.passages([0])


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE operations SET kind = 'delete' WHERE op = 2",
        "UPDATE operations SET new_count = 2 WHERE op = 2",
        "UPDATE operations SET doc_id = 'c' WHERE op = 2",
        "DELETE FROM operations WHERE op = 1",
        "DELETE FROM operations WHERE op = 2",
        "DELETE FROM operations WHERE op = 3",
        "UPDATE operations SET op = 4 WHERE op = 3",
    ],
)
def test_a_log_that_lost_or_changed_an_entry_is_refused(store: DocumentStore, path: Path, damage: str) -> None:
    write(store, A, B)
    delete(store, "b")
    edit(path, damage)
    with pytest.raises(IndexFormatError, match="log"):
        operations(store)


@pytest.mark.parametrize("key", ["next_row", "next_op", "log_start", "format"])
def test_damaged_bookkeeping_is_refused(store: DocumentStore, path: Path, key: str) -> None:
    write(store, A)
    edit(path, "UPDATE meta SET value = '0' WHERE key = ?", (key,))
    with store.snapshot() as snapshot, pytest.raises(IndexFormatError, match=key):
        snapshot.meta(key)


@pytest.mark.parametrize("key", ["next_row", "next_op"])
def test_nothing_is_written_by_damaged_counters(store: DocumentStore, path: Path, key: str) -> None:
    write(store, A)
    edit(path, "UPDATE meta SET value = '0' WHERE key = ?", (key,))
    with pytest.raises(IndexFormatError, match=key):
        write(store, B)
    assert get(store, "b") is None


# -- passages ---------------------------------------------------------------------------------------------------------


def test_passages_come_with_their_text_and_metadata(store: DocumentStore) -> None:
    write(store, A, B)
    with store.snapshot() as snapshot:
        assert snapshot.passages([2, 3, 0, 99]) == {
            0: (Passage("a", 0, 0, 4, "one ", "title"), {"n": 1}),
            2: (Passage("a", 2, 8, 13, "three", "title"), {"n": 1}),
            3: (Passage("b", 0, 0, 4, "four"), {}),
        }
        assert snapshot.keys_of([1, 99]) == {1: A.spans[1].key}
    write(store, prepared(A.document, 5))
    delete(store, "b")
    with store.snapshot() as snapshot:
        assert snapshot.passages(range(10)).keys() == {4, 5}


@pytest.mark.parametrize(
    ("text", "cut"),
    [("före\0efter", 3), ("\0", 1), ("\0\0x", 2), ("🎉🎉\u2028x\0🎉", 4), ("e\u0301é\r\n\ufeff", 3), ("", 0)],
)
def test_characters_are_counted_as_python_counts_them(store: DocumentStore, text: str, cut: int) -> None:
    document = Document("a", text, "t\0t", {"k\0": "v\0"})
    write(store, prepared(document, cut))
    found = get(store, "a")
    assert found is not None
    assert found.document == document
    with store.snapshot() as snapshot:
        passages = snapshot.passages([0, 1])
    assert [passages[row][0].text for row in (0, 1)] == [text[:cut], text[cut:]]
    assert passages[0][1] == {"k\0": "v\0"}


@pytest.mark.parametrize("doc_id", ["a b", "a/b", "x" * 512, "é", "e\u0301", "日本語🎉", "1", "1.0", "null", "'\"\\%_"])
def test_any_id_is_found_by_every_way(store: DocumentStore, doc_id: str) -> None:
    document = Document(doc_id, "text", vectors={"mine": np.ones(1, np.float32)})
    write(store, prepared(Document("other", "x")), prepared(document))
    with store.snapshot() as snapshot:
        stored = snapshot.get(doc_id)
        assert stored is not None
        assert stored.document.id == doc_id
        assert snapshot.rows_of([doc_id]).tolist() == [1]
        assert snapshot.sums([doc_id]).keys() == {doc_id}
        assert snapshot.client_vectors("mine", [doc_id]).keys() == {doc_id}
    assert delete(store, doc_id)
    assert get(store, doc_id) is None


@pytest.mark.parametrize("doc_id", ["\ud800", "a\0", "a\0b", "\0"])
def test_what_can_be_no_id_is_not_found(store: DocumentStore, doc_id: str) -> None:
    write(store, A)
    with store.snapshot() as snapshot:
        assert snapshot.get(doc_id) is None
        assert snapshot.rows_of([doc_id]).tolist() == []


def test_documents_stream_in_row_order_from_any_row(store: DocumentStore) -> None:
    write(store, A, B, prepared(Document("c", "five six"), 5))
    write(store, A)
    with store.snapshot() as snapshot:
        everything = list(snapshot.documents())
        assert [(stored.document.id, stored.first_row) for stored in everything] == [("b", 3), ("c", 4), ("a", 6)]
        assert everything[1].spans == prepared(Document("c", "five six"), 5).spans


# -- vectors ----------------------------------------------------------------------------------------------------------


def test_client_vectors_come_back_bit_for_bit(store: DocumentStore) -> None:
    values = np.array([0.1, -0.0, 1e-40, 3e38], np.float32)
    write(store, prepared(Document("a", "x", vectors={"one": values, "two": values[:1]})), B)
    with store.snapshot() as snapshot:
        found = snapshot.client_vectors("one", ["a", "b", "nobody"])
        assert found.keys() == {"a"}
        assert found["a"].dtype == np.float32
        assert found["a"].tobytes() == values.tobytes()
        assert snapshot.client_vectors("three", ["a"]) == {}
    write(store, prepared(Document("a", "x", vectors={"two": values[:2]})))
    with store.snapshot() as snapshot:
        assert snapshot.client_vectors("one", ["a"]) == {}
        assert snapshot.client_vectors("two", ["a"])["a"].tobytes() == values[:2].tobytes()


def test_fresh_vectors_are_kept_by_encoder_and_key(store: DocumentStore) -> None:
    one, two = text_key("one"), text_key("two")
    vectors = np.array([[1, 2], [3, 4]], np.float32)
    with store.transaction() as writer:
        writer.add_vectors("e", [one, two], vectors)
        writer.add_vectors("other", [one], vectors[1:])
        writer.add_vectors("e", [one], vectors[1:])  # a text has one vector: what is there stays
    with store.snapshot() as snapshot:
        found = snapshot.fresh_vectors("e", [two, one, text_key("three")], 2)
        assert {key: vector.tolist() for key, vector in found.items()} == {one: [1, 2], two: [3, 4]}
        assert snapshot.fresh_vectors("other", [one], 2)[one].tolist() == [3, 4]
        assert snapshot.fresh_known("e", [one, text_key("three")]) == {one}
        assert snapshot.fresh_keys("e") == sorted([one, two])
        assert snapshot.damaged_vectors() == []
    with store.transaction() as writer:
        writer.drop_vectors("e", [one, text_key("three")])
    with store.snapshot() as snapshot:
        assert snapshot.fresh_keys("e") == [two]
        assert snapshot.fresh_keys("other") == [one]


def test_a_damaged_fresh_vector_is_refused(store: DocumentStore, path: Path) -> None:
    key = text_key("one")
    with store.transaction() as writer:
        writer.add_vectors("e", [key], np.ones((1, 2), np.float32))
    with store.snapshot() as snapshot, pytest.raises(IndexFormatError, match="checksum"):
        snapshot.fresh_vectors("e", [key], 3)
    edit(path, "UPDATE fresh_vectors SET vector = x'0000803f0000803e'")
    with store.snapshot() as snapshot:
        with pytest.raises(IndexFormatError, match="checksum"):
            snapshot.fresh_vectors("e", [key], 2)
        (problem,) = snapshot.damaged_vectors()
        assert key.hex() in problem


# -- isolation and atomicity ------------------------------------------------------------------------------------------


def test_a_snapshot_does_not_see_what_is_written_meanwhile(store: DocumentStore, path: Path) -> None:
    write(store, A)
    reader = DocumentStore(path, writable=False)
    with store.snapshot() as ours, reader.snapshot() as theirs:
        stream = ours.documents()
        write(store, B)
        delete(store, "a")
        with store.transaction() as writer:
            writer.prune_log(3)
        for snapshot in (ours, theirs):
            assert snapshot.document_count() == 1
            assert snapshot.last_op() == 1
            assert snapshot.log_start() == 1
            assert snapshot.get("b") is None
            assert snapshot.passages([0])[0][0].text == "one "
        assert [stored.document.id for stored in stream] == ["a"]
        with store.snapshot() as later, reader.snapshot() as theirs_later:
            assert (
                [s.document.id for s in later.documents()] == [s.document.id for s in theirs_later.documents()] == ["b"]
            )
    reader.close()


def test_a_transaction_that_raises_leaves_nothing(store: DocumentStore) -> None:
    write(store, A)

    def interrupted() -> None:
        with store.transaction() as writer:
            writer.upsert(B, log=True)
            writer.upsert(prepared(Document("a", "changed")), log=True)
            writer.add_vectors("e", [text_key("x")], np.ones((1, 1), np.float32))
            assert writer.get("b") is not None
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    with store.snapshot() as snapshot:
        assert list(snapshot.documents()) == [DocumentRows(A.document, 0, 1, A.spans)]
        assert snapshot.fresh_keys("e") == []
        assert snapshot.last_op() == 1
    write(store, B)
    assert first_rows(store) == {"a": 0, "b": 3}


def test_threads_write_one_after_the_other(store: DocumentStore) -> None:
    def work(name: str) -> None:
        for number in range(20):
            write(store, prepared(Document(f"{name}{number}", "x y"), 1))

    threads = [threading.Thread(target=work, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with store.snapshot() as snapshot:
        rows, _ = snapshot.all_rows()
        assert rows.tolist() == list(range(160))
        log = snapshot.operations(0)
    assert [operation.op for operation in log] == list(range(1, 81))
    assert sorted(operation.new_first for operation in log) == list(range(0, 160, 2))


# -- files ------------------------------------------------------------------------------------------------------------


def test_what_was_committed_is_there_after_reopening(store: DocumentStore, path: Path) -> None:
    write(store, A, B)
    with closing(DocumentStore(path, writable=False)) as reader:
        assert first_rows(reader) == {"a": 0, "b": 3}
    store.close()
    assert not path.with_name("documents.db-wal").exists()
    with closing(DocumentStore(path, writable=False)) as reader:
        assert get(reader, "a") == DocumentRows(A.document, 0, 1, A.spans)


def test_a_closed_store_refuses(store: DocumentStore) -> None:
    write(store, A)
    store.close()
    for use in (store.open_snapshot, lambda: write(store, B), lambda: first_rows(store)):
        with pytest.raises(StorageError, match="closed"):
            use()
    store.close()


def test_a_store_opened_for_reading_refuses_to_write(store: DocumentStore, path: Path) -> None:
    write(store, A)
    with (
        closing(DocumentStore(path, writable=False)) as reader,
        pytest.raises(StorageError, match="read-only"),
    ):
        write(reader, B)


@pytest.mark.parametrize("version", ["0", "2", "x"])
def test_another_format_version_is_refused(store: DocumentStore, path: Path, version: str) -> None:
    store.close()
    edit(path, "UPDATE meta SET value = ?, checksum = ? WHERE key = 'format'", (version, blake("format", version)))
    with pytest.raises(IndexFormatError, match=f"store format {version}, this grapnel reads 1"):
        DocumentStore(path, writable=True)


@pytest.mark.parametrize("writable", [True, False])
def test_a_file_that_is_no_store_is_refused(path: Path, writable: bool) -> None:
    path.write_bytes(b"nothing like a database" * 100)
    with pytest.raises(IndexFormatError, match=path.name):
        DocumentStore(path, writable=writable)
    path.unlink()
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE other (x)")
    with pytest.raises((IndexFormatError, StorageError), match=path.name):
        DocumentStore(path, writable=writable)


def test_a_file_that_is_not_there_cannot_be_read(path: Path) -> None:
    with pytest.raises(StorageError, match=path.name):
        DocumentStore(path, writable=False)
    assert not path.exists()


def test_damage_to_a_page_is_reported(store: DocumentStore, path: Path) -> None:
    write(store, *(prepared(Document(f"d{number}", "word " * 500)) for number in range(50)))
    store.close()
    raw = bytearray(path.read_bytes())
    raw[4096 * 6 : 4096 * 20] = bytes(4096 * 14)
    path.write_bytes(raw)
    with closing(DocumentStore(path, writable=False)) as reader:
        uses: list[Callable[[], object]] = [
            lambda: first_rows(reader),
            lambda: [get(reader, f"d{n}") for n in range(50)],
        ]
        for use in uses:
            with pytest.raises((IndexFormatError, StorageError), match=path.name):
                use()


def test_metadata_of_the_database_is_what_the_format_says(store: DocumentStore, path: Path) -> None:
    write(store, A, B)
    delete(store, "b")
    with closing(sqlite3.connect(path)) as connection:
        meta = dict(connection.execute("SELECT key, value FROM meta"))
        (mode,) = connection.execute("PRAGMA journal_mode").fetchone()
        (raw,) = connection.execute("SELECT metadata FROM documents").fetchone()
    assert meta == {
        "format": "1",
        "chunking": '{"kind": "none"}',
        "next_row": "4",
        "next_op": "4",
        "log_start": "1",
    }
    assert mode == "wal"
    found: Metadata = json.loads(raw)
    assert found == {"n": 1}
