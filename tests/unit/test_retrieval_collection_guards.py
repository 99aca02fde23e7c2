"""Writes that depend on what they replace: guards, versions, and the reads they are made of."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from index.errors import ConflictError, CorpusError, NotFoundError, RequestError
from retrieval.chunking import ChunkingConfig
from retrieval.collection import Collection
from retrieval.collection_config import CollectionConfig, DenseField
from retrieval.encoders import EncoderConfig
from retrieval.types import Document, Guard, StoredDocument


@pytest.fixture
def collection(tmp_path: Path, hashing_config: Callable[..., CollectionConfig]) -> Iterator[Collection]:
    with Collection.create(tmp_path / "c", hashing_config()) as collection:
        yield collection


class Seen:
    """A guard that remembers what it was shown, and refuses some ids."""

    def __init__(self, *refused: str) -> None:
        self.shown: list[tuple[str, str | None, int | None]] = []
        self._refused = refused

    def __call__(self, doc_id: str, stored: StoredDocument | None) -> None:
        text, version = (None, None) if stored is None else (stored.document.text, stored.version)
        self.shown.append((doc_id, text, version))
        if doc_id in self._refused:
            raise ConflictError(f"not {doc_id}")


def state(collection: Collection) -> dict[str, tuple[str, Any, int]]:
    """Return everything stored: text, metadata and version by id."""
    page = collection.page(limit=100)
    return {each.document.id: (each.document.text, dict(each.document.metadata), each.version) for each in page}


def found(collection: Collection, query: str) -> list[str]:
    return sorted(hit.doc_id for hit in collection.search(query, mode="lexical", k=50).hits)


# -- put and add ----------------------------------------------------------------------------------------------------


def test_a_put_says_what_it_did_and_which_version_there_is(collection: Collection) -> None:
    assert collection.put(Document("a", "one")) == ("added", 1)
    assert collection.put(Document("a", "one")) == ("unchanged", 1)
    assert collection.put(Document("a", "one", metadata={"k": 1})) == ("patched", 2)
    assert collection.put(Document("b", "other")) == ("added", 3)
    assert collection.put(Document("a", "two", metadata={"k": 1})) == ("updated", 4)
    collection.delete("a")
    assert collection.put(Document("a", "two")) == ("added", 6), "a deletion is an operation, too"
    assert state(collection) == {"a": ("two", {}, 6), "b": ("other", {}, 3)}


def test_versions_survive_compaction_and_reopening(tmp_path: Path, collection: Collection) -> None:
    collection.add([Document("a", "one"), Document("b", "two")])
    collection.patch("a", {"k": 1})
    before = state(collection)
    collection.compact()
    assert state(collection) == before == {"a": ("one", {"k": 1}, 3), "b": ("two", {}, 2)}
    collection.close()
    with Collection.open(tmp_path / "c", writable=True) as again:
        assert state(again) == before
        assert again.put(Document("c", "three")).version == 4


def test_a_guard_sees_what_a_write_replaces_and_can_refuse_all_of_it(collection: Collection) -> None:
    collection.add([Document("a", "one"), Document("b", "two")])
    before = state(collection)
    seen = Seen("b")
    with pytest.raises(ConflictError, match="not b"):
        collection.add([Document("new", "x"), Document("a", "changed"), Document("b", "changed")], guard=seen)
    assert seen.shown == [("new", None, None), ("a", "one", 1), ("b", "two", 2)]
    assert state(collection) == before
    assert found(collection, "changed") == []
    with pytest.raises(ConflictError):
        collection.put(Document("b", "changed"), guard=Seen("b"))
    with pytest.raises(ConflictError):
        collection.put(Document("b", "two"), guard=Seen("b"))  # unchanged, and asked all the same
    assert state(collection) == before
    assert collection.put(Document("b", "changed"), guard=Seen("a")) == ("updated", 3)
    assert found(collection, "changed") == ["b"]


def test_what_was_refused_is_not_encoded_again_and_no_version_is_lost(collection: Collection) -> None:
    with pytest.raises(ConflictError):
        collection.put(Document("a", "text"), guard=Seen("a"))
    report = collection.add([Document("a", "text")])
    assert report.added == 1
    assert state(collection)["a"][2] == 1


def test_an_unacceptable_document_is_refused_before_a_guard_is_asked(collection: Collection) -> None:
    seen = Seen()
    with pytest.raises(CorpusError):
        collection.put(Document("a", " "), guard=seen)
    with pytest.raises(CorpusError):
        collection.add([Document("b", "x"), Document("\ud800", "x")], guard=seen)
    assert seen.shown == []
    assert state(collection) == {}


def test_of_one_id_given_twice_the_guard_sees_the_first_before_the_second(collection: Collection) -> None:
    seen = Seen()
    collection.add([Document("a", "one"), Document("b", "x"), Document("a", "two")], guard=seen)
    assert seen.shown == [("a", None, None), ("b", None, None), ("a", "one", 1)]
    assert state(collection)["a"][0] == "two"


# -- patch ----------------------------------------------------------------------------------------------------------


def test_a_patch_merges_removes_and_returns_the_document(collection: Collection) -> None:
    collection.put(Document("a", "text", "title", {"keep": 1, "drop": 2, "deep": {"x": 1}}))
    patched = collection.patch("a", {"drop": None, "new": [1], "deep": {"y": 2}})
    assert patched.version == 2
    assert patched.document.metadata == {"keep": 1, "new": [1], "deep": {"y": 2}}
    assert (patched.document.text, patched.document.title) == ("text", "title")
    (stored,) = collection.stored(["a"])
    assert stored == patched
    assert collection.patch("a", {"keep": 1, "gone": None}).version == 2, "nothing changed"
    assert collection.patch("a", {}).version == 2


def test_a_patch_that_is_refused_changes_nothing(collection: Collection) -> None:
    collection.put(Document("a", "text", metadata={"k": 1}))
    seen = Seen("a", "none")
    with pytest.raises(ConflictError):
        collection.patch("a", {"k": 2}, guard=seen)
    with pytest.raises(ConflictError):
        collection.patch("none", {"k": 2}, guard=seen)
    assert seen.shown == [("a", "text", 1), ("none", None, None)]
    with pytest.raises(NotFoundError):
        collection.patch("none", {"k": 2}, guard=Seen())
    with pytest.raises(CorpusError):
        collection.patch("a", {"k": float("nan")})
    with pytest.raises(CorpusError):
        collection.patch("a", {"k": "\ud800"})
    assert state(collection) == {"a": ("text", {"k": 1}, 1)}
    assert collection.put(Document("b", "x")).version == 2


# -- delete ---------------------------------------------------------------------------------------------------------


def test_a_guard_sees_each_document_named_by_id_before_anything_is_deleted(collection: Collection) -> None:
    collection.add([Document(name, "text", metadata={"n": n}) for n, name in enumerate("abc")])
    seen = Seen("b")
    with pytest.raises(ConflictError):
        collection.delete(["a", "none", "b", "c"], guard=seen)
    assert seen.shown == [("a", "text", 1), ("none", None, None), ("b", "text", 2)]
    assert len(collection) == 3
    condition = {"type": "gte", "key": "n", "value": 1}
    with pytest.raises(ConflictError):
        collection.delete("b", filter=condition, guard=Seen("b"))
    assert len(collection) == 3
    assert collection.delete(["a", "a", "none"], filter=condition, guard=Seen("c")) == 3, "a filter names no ids"
    assert len(collection) == 0


def test_a_filter_on_a_field_that_nobody_has_is_refused_or_matches_nothing(collection: Collection) -> None:
    collection.add([Document("a", "text", metadata={"n": 1})])
    is_x = {"type": "eq", "key": "x", "value": 1}
    not_x = {"type": "ne", "key": "x", "value": 1}
    for call in (
        lambda condition: collection.delete(filter=condition),
        lambda condition: collection.page(filter=condition),
        collection.count,
        lambda condition: collection.search("text", filter=condition),
    ):
        with pytest.raises(RequestError, match="known fields: n"):
            call(is_x)
    assert collection.page(filter=is_x, strict_filter=False) == []
    assert (collection.count(is_x, strict_filter=False), collection.count(not_x, strict_filter=False)) == (0, 1)
    assert [each.document.id for each in collection.page(filter=not_x, strict_filter=False)] == ["a"]
    assert collection.search("text", filter=is_x, strict_filter=False).hits == ()
    assert [hit.doc_id for hit in collection.search("text", filter=not_x, strict_filter=False).hits] == ["a"]
    with pytest.raises(RequestError, match="known fields: n"):
        collection.search("text", filter=is_x)  # whatever was remembered of the filter before
    collection.compact()
    assert [each.document.id for each in collection.page(filter=not_x, strict_filter=False)] == ["a"]
    assert collection.delete(filter=is_x, strict_filter=False) == 0
    assert collection.delete(filter=not_x, strict_filter=False) == 1


# -- stored and page ------------------------------------------------------------------------------------------------


def test_stored_gives_documents_in_order_with_version_and_spans(
    tmp_path: Path, hashing_config: Callable[..., CollectionConfig]
) -> None:
    config = hashing_config(chunking=ChunkingConfig(kind="tokens", max_tokens=32, overlap=0))
    text = " ".join(f"word{n}." for n in range(100))
    with Collection.create(tmp_path / "c", config) as collection:
        collection.add([Document("long", text, "title"), Document("short", "one")])
        long, nothing, short, again = collection.stored(["long", "none", "short", "long"])
        assert nothing is None
        assert long == again
        assert long is not None
        assert short is not None
        assert (long.version, short.version) == (1, 2)
        assert len(long.spans) > 1
        assert "".join(text[start:end] for start, end in long.spans).replace(" ", "") == text.replace(" ", "")
        assert short.spans == ((0, 3),)
        assert collection.stored([]) == []
        assert collection.stored(["\ud800", ""]) == [None, None]


def test_documents_are_counted_not_their_passages(
    tmp_path: Path, hashing_config: Callable[..., CollectionConfig]
) -> None:
    config = hashing_config(chunking=ChunkingConfig(kind="tokens", max_tokens=32, overlap=0))
    long = " ".join(f"word{n}." for n in range(100))
    with Collection.create(tmp_path / "c", config) as collection:
        assert collection.count() == 0
        collection.add([Document("a", long, metadata={"n": 1}), Document("b", "one", metadata={"n": 2})])
        for _ in range(2):
            assert collection.count() == 2
            assert collection.count({"type": "gte", "key": "n", "value": 1}) == 2
            assert collection.count({"type": "eq", "key": "n", "value": 1}) == 1
            collection.compact()
        with pytest.raises(RequestError):
            collection.count({"type": "near", "key": "n"})


def test_pages_are_by_id_and_by_code_point(collection: Collection) -> None:
    ids = ["a", "B", "\u00e9", "a/b", "\U0001f9a6", "\ufffd", "10", "9", " x"]
    collection.add([Document(doc_id, "text", metadata={"even": n % 2 == 0}) for n, doc_id in enumerate(ids)])
    ordered = sorted(ids)
    assert [each.document.id for each in collection.page(limit=100)] == ordered
    seen: list[str] = []
    while page := collection.page(seen[-1] if seen else "", 2):
        seen += [each.document.id for each in page]
    assert seen == ordered
    is_even = {"type": "eq", "key": "even", "value": True}
    even = sorted(ids[::2])
    assert [each.document.id for each in collection.page(limit=100, filter=is_even)] == even
    assert [each.document.id for each in collection.page(even[1], 2, is_even)] == even[2:4]
    collection.compact()
    collection.delete(even[0])
    collection.patch(even[1], {"even": False})
    assert [each.document.id for each in collection.page(limit=100, filter=is_even)] == even[2:]
    assert (collection.count(), collection.count(is_even)) == (len(ids) - 1, len(even) - 2)
    assert collection.page("\U0010ffff") == []
    with pytest.raises(RequestError):
        collection.page("\ud800")


def test_client_vectors_come_back_with_the_document(tmp_path: Path) -> None:
    config = CollectionConfig(fields={"v": DenseField(EncoderConfig(kind="external", dim=2))})
    with Collection.create(tmp_path / "c", config) as collection:
        shown: list[StoredDocument | None] = []
        vector = np.array([1.5, -2.0], np.float32)
        collection.put(Document("a", vectors={"v": vector}, text=""), guard=lambda _, stored: shown.append(stored))
        same = collection.put(Document("a", vectors={"v": vector.copy()}, text=""))
        assert same.result == "unchanged"
        changed = Document("a", vectors={"v": np.array([1.5, 2.0], np.float32)}, text="")
        assert collection.put(changed, guard=lambda _, stored: shown.append(stored)).result == "updated"
        assert shown[0] is None
        assert shown[1] is not None
        np.testing.assert_array_equal(shown[1].document.vectors["v"], vector)


# -- at once --------------------------------------------------------------------------------------------------------


def test_writers_that_depend_on_a_version_never_lose_an_update(collection: Collection) -> None:
    collection.put(Document("counter", "counter", metadata={"n": 0}))
    rounds, threads = 12, 4

    def unchanged_since(version: int) -> Guard:
        def guard(_: str, stored: StoredDocument | None) -> None:
            if stored is None or stored.version != version:
                raise ConflictError("somebody was faster")

        return guard

    def count() -> None:
        for _ in range(rounds):
            while True:
                (stored,) = collection.stored(["counter"])
                assert stored is not None
                number = stored.document.metadata["n"]
                assert isinstance(number, int)
                try:
                    collection.patch("counter", {"n": number + 1}, guard=unchanged_since(stored.version))
                    break
                except ConflictError:
                    continue

    workers = [threading.Thread(target=count) for _ in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    (stored,) = collection.stored(["counter"])
    assert stored is not None
    assert stored.document.metadata["n"] == rounds * threads
    assert stored.version == 1 + rounds * threads


def test_of_writers_that_want_an_absent_id_one_wins(collection: Collection) -> None:
    def absent(_: str, stored: StoredDocument | None) -> None:
        if stored is not None:
            raise ConflictError("taken")

    won: list[int] = []

    def take(number: int) -> None:
        try:
            collection.put(Document("seat", f"taken by {number}"), guard=absent)
            won.append(number)
        except ConflictError:
            pass

    workers = [threading.Thread(target=take, args=(number,)) for number in range(6)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(won) == 1
    assert collection.stored(["seat"])[0].document.text == f"taken by {won[0]}"  # type: ignore[union-attr]
