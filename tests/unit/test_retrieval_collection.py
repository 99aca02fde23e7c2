"""Collections as their users meet them: life, writes, refusals, configuration that changes."""

import os
import tempfile
import time
import types
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import retrieval.ingest
import retrieval.shard
from index.errors import (
    ConfigError,
    CorpusError,
    GrapnelError,
    IndexFormatError,
    LockedError,
    NotFoundError,
    RequestError,
    StorageError,
)
from retrieval.archive import export_collection, import_collection
from retrieval.collection import Collection, build
from retrieval.collection_config import CollectionConfig, DenseField, collection_table
from retrieval.config import to_toml
from retrieval.encoders import EncoderConfig
from retrieval.ingest import AddReport, batches
from retrieval.lexical import LexicalConfig
from retrieval.pipeline_config import with_weights
from retrieval.types import Document, Query, Ranking
from retrieval.verify import verify

Make = Callable[..., CollectionConfig]


@pytest.fixture
def folder(in_memory: None) -> Iterator[Path]:  # noqa: ARG001  a fixture that acts
    with tempfile.TemporaryDirectory() as root:
        yield Path(root) / "c"


@pytest.fixture
def collection(folder: Path, hashing_config: Make) -> Iterator[Collection]:
    with Collection.create(folder, hashing_config()) as collection:
        yield collection


def ids(ranking: Ranking) -> list[str]:
    return [hit.doc_id for hit in ranking.hits]


def documents(*names: str, text: str = "common words") -> list[Document]:
    return [Document(name, f"{text} {name}", metadata={"name": name}) for name in names]


# -- life -------------------------------------------------------------------------------------------------------------


def test_an_empty_collection_answers(collection: Collection) -> None:
    assert len(collection) == 0
    assert list(collection.documents()) == []
    assert collection.get("a") is None
    for mode in ("hybrid", "dense", "lexical"):
        assert ids(collection.search("anything", mode=mode)) == []
        assert ids(collection.search("anything", mode=mode, filter={"type": "exists", "key": "x"})) == []
    collection.compact()
    assert ids(collection.search("anything")) == []


def test_a_collection_can_be_emptied_and_filled_again(collection: Collection) -> None:
    collection.add(documents("a", "b"))
    collection.compact()
    assert collection.delete(["a", "b"]) == 2
    assert ids(collection.search("common")) == []
    collection.compact()
    assert ids(collection.search("common")) == []
    collection.add(documents("a"))
    assert ids(collection.search("common")) == ["a"]


def test_a_closed_collection_refuses_everything(folder: Path, hashing_config: Make) -> None:
    collection = Collection.create(folder, hashing_config())
    collection.add(documents("a"))
    collection.search("common")
    collection.close()
    collection.close()
    with Collection.open(folder, writable=True) as other:
        uses: list[Callable[[], object]] = [
            lambda: collection.search("common"),
            lambda: collection.add(documents("b")),
            lambda: collection.patch("a", {"x": 1}),
            lambda: collection.delete("a"),
            lambda: collection.delete(filter={"type": "exists", "key": "name"}),
            lambda: collection.get("a"),
            lambda: len(collection),
            lambda: list(collection.documents()),
            collection.compact,
        ]
        for use in uses:
            with pytest.raises(StorageError, match="closed"):
                use()
        assert ids(other.search("common")) == ["a"]
        assert len(other) == 1


def test_a_collection_opened_for_reading_refuses_to_write(collection: Collection, folder: Path) -> None:
    collection.add(documents("a"))
    with Collection.open(folder) as reader:
        uses: list[Callable[[], object]] = [
            lambda: reader.add(documents("b")),
            lambda: reader.load(documents("b")),
            lambda: reader.patch("a", {"x": 1}),
            lambda: reader.delete("a"),
            reader.compact,
        ]
        for use in uses:
            with pytest.raises(ConfigError, match="writable"):
                use()
        assert ids(reader.search("common")) == ["a"]


def test_there_is_one_writer_and_it_is_named(collection: Collection, folder: Path) -> None:
    with pytest.raises(LockedError, match=str(os.getpid())):
        Collection.open(folder, writable=True)
    collection.close()
    with Collection.open(folder, writable=True) as second:
        assert second.add(documents("a")).added == 1


def test_a_folder_in_use_is_not_taken(tmp_path: Path, hashing_config: Make) -> None:
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "file").touch()
    (tmp_path / "file").touch()
    for place in ("used", "file"):
        with pytest.raises(ConfigError, match=place):
            Collection.create(tmp_path / place, hashing_config())
    (tmp_path / "empty").mkdir()
    Collection.create(tmp_path / "empty", hashing_config()).close()
    with pytest.raises(ConfigError, match="not empty"):
        Collection.create(tmp_path / "empty", hashing_config())


@pytest.mark.parametrize("writable", [False, True])
def test_what_is_no_collection_is_not_opened_nor_changed(tmp_path: Path, writable: bool) -> None:
    for place in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(NotFoundError, match=str(place)):
            Collection.open(place, writable=writable)
    assert list(tmp_path.iterdir()) == []


def test_documents_stream_as_of_one_moment(collection: Collection) -> None:
    collection.add(documents("a", "b", "c"))
    stream = collection.documents()
    assert next(stream).id == "a"
    collection.delete(["b", "c"])
    collection.add(documents("d"))
    assert [document.id for document in stream] == ["b", "c"]
    assert sorted(document.id for document in collection.documents()) == ["a", "d"]


# -- adding -----------------------------------------------------------------------------------------------------------


def test_adding_nothing_is_no_write(collection: Collection) -> None:
    assert collection.add([]) == AddReport()
    assert collection.add(iter(())) == AddReport()


def test_the_last_of_equal_ids_stays(collection: Collection) -> None:
    report = collection.add([Document("a", "first"), Document("b", "other"), Document("a", "second")])
    assert (report.added, report.updated) == (2, 1)
    assert ids(collection.search("second first", mode="lexical")) == ["a"]
    assert ids(collection.search("first", mode="lexical")) == []


def test_batches_are_bounded_and_hold_an_id_once() -> None:
    many = [Document(f"d{number}", "x") for number in range(2500)]
    assert [len(batch) for batch in batches(many)] == [1000, 1000, 500]
    large = [Document(f"d{number}", "x" * (3 << 20)) for number in range(7)]
    assert [len(batch) for batch in batches(large)] == [3, 3, 1]
    again = [Document(name, "x") for name in "abacab"]
    assert [[document.id for document in batch] for batch in batches(again)] == [["a", "b"], ["a", "c"], ["a", "b"]]
    assert list(batches([])) == []


def test_a_bad_document_leaves_the_batches_before_it(collection: Collection) -> None:
    good = [Document(f"d{number}", f"text {number}") for number in range(1500)]
    with pytest.raises(CorpusError, match="'bad'"):
        collection.add([*good, Document("bad", "  ")])
    assert len(collection) == 1000
    assert collection.add(good) == AddReport(added=500, unchanged=1000, encoded=500)


def test_a_source_that_fails_leaves_the_batches_before_it(collection: Collection) -> None:
    def source() -> Iterator[Document]:
        yield from documents(*(f"d{number}" for number in range(1001)))
        raise CorpusError("line 1002 is broken")

    with pytest.raises(CorpusError, match="line 1002"):
        collection.add(source())
    assert len(collection) == 1000


def test_texts_that_are_known_are_not_encoded_again(collection: Collection) -> None:
    assert collection.add([Document("a", "same"), Document("b", "same")]).encoded == 1
    assert collection.add([Document("c", "same"), Document("d", "new", "same")]).encoded == 1
    collection.compact()
    assert collection.add([Document("e", "same"), Document("a", "same same")]).encoded == 1
    collection.delete(["a"])
    assert collection.add([Document("a", "same")]).encoded == 0
    assert len(ids(collection.search("same", mode="dense"))) == 5


def test_a_vector_that_a_compaction_drops_meanwhile_is_made_again(
    collection: Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    collection.add([Document("a", "same"), Document("b", "other"), Document("d", "third")])
    collection.compact()
    # A vector store rewrites a shard of which more than half is unused.
    meanwhile: list[Callable[[], object]] = [lambda: collection.delete(["a", "b"]), collection.compact]

    def between(point: str) -> None:
        """Runs after the text was found to have a vector, before the document that needs it is written."""
        if point == "add.encoded":
            while meanwhile:
                meanwhile.pop(0)()

    monkeypatch.setattr(retrieval.ingest, "failpoint", between)
    assert collection.add([Document("c", "same")]).encoded == 1
    assert meanwhile == []
    assert collection.search("same", mode="dense", k=1).hits[0].doc_id == "c"


def test_metadata_alone_is_a_patch(collection: Collection) -> None:
    collection.add([Document("a", "x", metadata={"n": 1})])
    assert collection.add([Document("a", "x", metadata={"n": 2})]) == AddReport(patched=1)
    assert collection.add([Document("a", "x", metadata=types.MappingProxyType({"n": 2}))]) == AddReport(unchanged=1)
    assert collection.search("x").hits[0].metadata == {"n": 2}


def test_reports_add_up() -> None:
    assert AddReport(1, 2, 3, 4, 5, 6) + AddReport(10, 20, 30, 40, 50, 60) == AddReport(11, 22, 33, 44, 55, 66)


def test_progress_tells_what_was_acknowledged(collection: Collection) -> None:
    calls: list[tuple[str, int, int | None]] = []

    def watch(stage: str, done: int, total: int | None) -> None:
        calls.append((stage, done, total))
        if stage == "add":
            assert len(collection) == done

    collection.add([Document(f"d{number}", f"t {number}") for number in range(2100)], watch)
    assert calls == [("add", 1000, None), ("add", 2000, None), ("add", 2100, None)]
    calls.clear()
    collection.compact(watch)
    for stage in {stage for stage, _, _ in calls}:
        steps = [(done, total) for name, done, total in calls if name == stage]
        assert steps == sorted(steps)
        assert steps[-1][0] == steps[-1][1]


# -- deleting and patching --------------------------------------------------------------------------------------------


def test_one_id_is_one_id_even_as_a_string(collection: Collection) -> None:
    collection.add(documents("doc", "d", "o", "c"))
    assert collection.delete("doc") == 1
    assert collection.delete("doc") == 0
    assert len(collection) == 3


def test_ids_and_filter_together_delete_each_document_once(collection: Collection) -> None:
    collection.add(documents("a", "b", "c", "d"))
    condition = {"type": "in", "key": "name", "value": ["a", "b"]}
    assert collection.delete(["a", "d", "d", "nobody"], filter=condition) == 3
    assert ids(collection.search("common")) == ["c"]
    assert collection.delete() == 0
    for bad in ({"type": "eq", "key": "nothing", "value": 1}, {"type": "what"}):
        with pytest.raises(RequestError, match="filter"):
            collection.delete(["c"], filter=bad)
    assert len(collection) == 1


def test_a_patch_merges_and_null_removes_only_what_it_names(collection: Collection) -> None:
    collection.add([Document("a", "text", "title", {"keep": None, "drop": 1, "change": [1]})])
    found = collection.patch("a", {"drop": None, "change": {"x": None}, "new": False, "absent": None})
    assert found.document == Document("a", "text", "title", {"keep": None, "change": {"x": None}, "new": False})
    assert collection.stored(["a"]) == [found]
    assert collection.search("text").hits[0].metadata == found.document.metadata
    assert ids(collection.search("text", filter={"type": "eq", "key": "keep", "value": None})) == ["a"]
    assert ids(collection.search("text", filter={"type": "not", "filter": {"type": "exists", "key": "new"}})) == []


def test_a_patch_that_changes_nothing_is_no_write(collection: Collection) -> None:
    collection.add([Document("a", "text", metadata={"n": 1})])
    with collection.shard.store.snapshot() as snapshot:
        before = snapshot.last_op()
    collection.patch("a", {"n": 1, "absent": None})
    with collection.shard.store.snapshot() as snapshot:
        assert snapshot.last_op() == before


@pytest.mark.parametrize("changes", [{"x": float("nan")}, {"x": object()}, {"x": "\ud800"}, {"x": 1 << 64}, {1: 2}])
def test_a_patch_that_is_not_acceptable_changes_nothing(collection: Collection, changes: Any) -> None:
    collection.add([Document("a", "text", metadata={"n": 1})])
    with pytest.raises(CorpusError, match="metadata"):
        collection.patch("a", changes)
    assert collection.get("a") == Document("a", "text", metadata={"n": 1})


@pytest.mark.parametrize("doc_id", ["nobody", "\ud800", "a\0"])
def test_what_is_not_there_cannot_be_patched_deleted_or_started_from(collection: Collection, doc_id: str) -> None:
    collection.add(documents("a"))
    with pytest.raises(NotFoundError):
        collection.patch(doc_id, {"n": 1})
    with pytest.raises(RequestError):
        collection.search(like=doc_id)
    assert collection.delete(doc_id) == 0
    assert collection.get(doc_id) is None
    assert ids(collection.search("common", exclude=frozenset({doc_id}))) == ["a"]


# -- vectors that clients bring ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "vectors",
    [
        {},
        {"other": np.ones(2, np.float32)},
        {"mine": np.ones(2, np.float32), "other": np.ones(2, np.float32)},
        {"mine": np.ones(3, np.float32)},
        {"mine": np.ones((1, 2), np.float32)},
        {"mine": np.ones(2, np.float64)},
        {"mine": np.full(2, np.inf, np.float32)},
        {"mine": [1.0, 2.0]},
    ],
    ids=str,
)
def test_documents_bring_the_vectors_that_external_fields_need(folder: Path, vectors: Any) -> None:
    config = CollectionConfig(fields={"mine": DenseField(EncoderConfig(kind="external", dim=2))})
    with Collection.create(folder, config) as collection:
        with pytest.raises(CorpusError, match="'a'"):
            collection.add([Document("a", "text", vectors=vectors)])
        assert collection.add([Document("a", vectors={"mine": np.ones(2, np.float32)})]).added == 1
        assert ids(collection.search(Query("q", "", vectors={"mine": np.ones(2, np.float32)}))) == ["a"]
        assert collection.add([Document("a", vectors={"mine": np.zeros(2, np.float32)})]).updated == 1
        assert collection.search(Query("q", "", vectors={"mine": np.ones(2, np.float32)})).hits[0].score == 0


def test_documents_of_other_collections_bring_none(collection: Collection) -> None:
    with pytest.raises(CorpusError, match="dense"):
        collection.add([Document("a", "text", vectors={"dense": np.ones(64, np.float32)})])


# -- building ---------------------------------------------------------------------------------------------------------


def test_a_build_is_searchable_only_when_done_and_goes_on_where_it_stopped(folder: Path, hashing_config: Make) -> None:
    everything = documents("a", "b", "c")
    with Collection.begin(folder, hashing_config()) as begun:
        assert begun.load(everything[:2]) == AddReport(added=2)
        with pytest.raises(NotFoundError, match="resume"):
            begun.search("common")
    with Collection.open(folder) as reader:
        assert len(reader) == 2
        with pytest.raises(NotFoundError, match="resume"):
            reader.search("common")
        added, report = build(folder, everything, hashing_config(), resume=True)
        assert (added.added, added.unchanged) == (1, 2)
        assert report.generation.documents == 3
        assert sorted(ids(reader.search("common"))) == ["a", "b", "c"]
    with pytest.raises(ConfigError, match="already built"):
        build(folder, everything, hashing_config(), resume=True)


def test_a_build_goes_on_only_with_its_own_configuration(folder: Path, hashing_config: Make) -> None:
    Collection.begin(folder, hashing_config()).close()
    with pytest.raises(ConfigError, match="another configuration"):
        build(folder, documents("a"), hashing_config(dim=128), resume=True)
    with pytest.raises(ConfigError, match="not empty"):
        build(folder, documents("a"), hashing_config())
    build(folder, documents("a"), hashing_config(), resume=True)
    assert verify(folder) == []


def test_a_source_without_documents_is_no_collection_but_may_be_repeated(folder: Path, hashing_config: Make) -> None:
    with pytest.raises(CorpusError, match="no documents"):
        build(folder, [], hashing_config())
    build(folder, documents("a"), hashing_config(), resume=True)
    with Collection.open(folder) as collection:
        assert len(collection) == 1


def test_loading_is_for_builds_only(collection: Collection) -> None:
    collection.add([Document("a", "old text")])
    with pytest.raises(ConfigError, match="already built"):
        collection.load([Document("a", "new text")])
    assert collection.search("text").hits[0].passage.text == "old text"


# -- compaction -------------------------------------------------------------------------------------------------------


def generation_number(collection: Collection) -> int:
    generation = collection.shard.generation()
    assert generation is not None
    return generation.number


def test_compaction_makes_only_what_changed(collection: Collection) -> None:
    collection.add(documents("a", "b"))
    first = collection.compact()
    assert set(first.built) == {"dense", "lexical", "columns"}
    assert first.reused == ()
    second = collection.compact()
    assert second.built == ()
    assert set(second.reused) == {"dense", "lexical", "columns"}
    collection.patch("a", {"n": 1})
    third = collection.compact()
    assert third.built == ("columns",)
    assert set(third.reused) == {"dense", "lexical"}
    assert [r.generation.number for r in (first, second, third)] == [2, 3, 4]
    assert ids(collection.search("common", filter={"type": "eq", "key": "n", "value": 1})) == ["a"]


def test_much_that_is_fresh_is_compacted_by_itself(collection: Collection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retrieval.shard, "COMPACT_FRESH", 20)
    collection.add([Document(f"d{number}", f"word{number}") for number in range(10)])
    assert generation_number(collection) == 1
    collection.add([Document(f"e{number}", f"word{number}") for number in range(15)])
    collection.close()  # waits for it
    with Collection.open(collection.folder) as reader:
        assert generation_number(reader) == 2
        assert len(reader.search("word", mode="dense", k=100).hits) == 25
    assert verify(collection.folder) == []


def test_much_that_is_dead_is_compacted_by_itself(collection: Collection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retrieval.shard, "COMPACT_DEAD", 5)
    names = [f"d{number}" for number in range(50)]
    collection.add(documents(*names))
    collection.compact()
    collection.delete(names[:10])
    assert generation_number(collection) == 2
    collection.delete(names[10:12])
    collection.close()
    with Collection.open(collection.folder) as reader:
        assert generation_number(reader) == 3
        assert len(reader.search("common", k=100).hits) == 38


def test_of_writers_that_meet_a_failed_compaction_one_raises_it(
    folder: Path, hashing_config: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Slow(Collection):
        """Gives other threads the time to come between the look at the failure and its removal."""

        @property
        def _compaction_error(self) -> Exception | None:  # type: ignore[override]
            found: Exception | None = self.__dict__.get("failure")
            time.sleep(0.05)
            return found

        @_compaction_error.setter
        def _compaction_error(self, error: Exception | None) -> None:
            self.__dict__["failure"] = error

    def fail() -> None:
        raise StorageError("the disk is full")

    with Slow.create(folder, hashing_config()) as collection:
        monkeypatch.setattr(collection.shard, "compact", fail)
        collection._compact_quietly()

        def write(number: int) -> str | None:
            try:
                collection.put(Document(f"d{number}", "text"))
            except StorageError as error:
                return str(error)
            return None

        with ThreadPoolExecutor(3) as pool:
            said = list(pool.map(write, range(3)))
        assert sorted(said, key=str) == [None, None, "the disk is full"]
        assert len(collection) == 2


# -- a configuration that changes -------------------------------------------------------------------------------------

CHANGES: dict[str, Callable[[CollectionConfig], CollectionConfig]] = {
    "metric": lambda config: replace(config, fields={**config.fields, "dense": replace(dense(config), metric="ip")}),
    "encoder": lambda config: replace(
        config, fields={**config.fields, "dense": DenseField(EncoderConfig(kind="hashing", dim=128))}
    ),
    "stemming": lambda config: replace(config, fields={**config.fields, "lexical": LexicalConfig(stemming=False)}),
    "title_boost": lambda config: replace(config, fields={**config.fields, "lexical": LexicalConfig(title_boost=2.0)}),
    "new": lambda config: replace(config, fields={**config.fields, "again": LexicalConfig(stop_words=False)}),
}


def dense(config: CollectionConfig) -> DenseField:
    return config.dense_fields()["dense"]


@pytest.mark.parametrize("change", CHANGES)
def test_an_edited_field_is_refused_until_compaction_rebuilds_it(
    folder: Path, hashing_config: Make, tmp_path: Path, change: str
) -> None:
    texts = [Document("a", "running dogs", "cats"), Document("b", "run cats"), Document("c", "the birds sing")]
    build(folder, texts, hashing_config())
    edited = CHANGES[change](hashing_config())
    (folder / "collection.toml").write_text(to_toml(collection_table(edited)))
    with Collection.open(folder) as reader:
        with pytest.raises(IndexFormatError, match=rf"{change}.*grapnel compact"):
            reader.search("run")
        with Collection.open(folder, writable=True) as writer:
            report = writer.compact()
        assert report.built == ({"new": "again", "encoder": "dense", "metric": "dense"}.get(change, "lexical"),)
        build(tmp_path / "fresh", texts, edited)
        with Collection.open(tmp_path / "fresh") as fresh:
            for mode in ("hybrid", *edited.fields):
                for query in ("run", "the cats", "sing"):
                    found, expected = reader.search(query, mode=mode), fresh.search(query, mode=mode)
                    assert ids(found) == ids(expected)
                    assert [h.score for h in found.hits] == pytest.approx([h.score for h in expected.hits], abs=1e-6)
    assert verify(folder) == []


def test_a_field_that_is_taken_away_is_no_mode_any_more(folder: Path, hashing_config: Make) -> None:
    build(folder, documents("a"), hashing_config())
    only = CollectionConfig(fields={"lexical": LexicalConfig()})
    (folder / "collection.toml").write_text(to_toml(collection_table(only)))
    with Collection.open(folder, writable=True) as collection:
        assert ids(collection.search("common")) == ["a"]
        with pytest.raises(RequestError, match="modes: lexical"):
            collection.search("common", mode="dense")
        collection.add(documents("b"))
        collection.compact()
        assert sorted(ids(collection.search("common"))) == ["a", "b"]


def test_what_only_changes_speed_is_not_refused(folder: Path, hashing_config: Make) -> None:
    build(folder, documents("a"), hashing_config())
    text = (folder / "collection.toml").read_text()
    (folder / "collection.toml").write_text(text.replace("dim = 64", 'dim = 64\ndevice = "cpu"\nbatch_tokens = 99'))
    with Collection.open(folder) as collection:
        assert ids(collection.search("common")) == ["a"]


@pytest.mark.parametrize("text", ["", "format = 1\n", "[encoder]\nkind = 'hashing'\n", "format = 2\n", "not toml"])
def test_a_damaged_configuration_does_not_become_the_default(folder: Path, hashing_config: Make, text: str) -> None:
    build(folder, documents("a"), hashing_config())
    (folder / "collection.toml").write_text(text)
    with pytest.raises(GrapnelError, match=r"collection\.toml"):
        Collection.open(folder)


def test_a_pipeline_file_decides_the_search(folder: Path, hashing_config: Make, tmp_path: Path) -> None:
    build(folder, documents("a", "b"), hashing_config())
    (folder / "pipeline.toml").write_text('default = "lexical"\ndepth = 7')
    (tmp_path / "other.toml").write_text('default = "dense"')
    with Collection.open(folder) as usual, Collection.open(folder, pipeline=tmp_path / "other.toml") as other:
        assert usual.search("common").hits[0].stage == "lexical"
        assert usual.pipeline.depth == 7
        assert usual.search("common", k=8).notes != ()
        assert other.search("common").hits[0].stage == "dense"
        assert other.retriever().mode == "dense"  # type: ignore[attr-defined]  # of this retriever
    for path in (tmp_path / "none.toml", folder):
        with pytest.raises(ConfigError, match=path.name):
            Collection.open(folder, pipeline=path)


def test_a_new_pipeline_is_used_and_kept(folder: Path, hashing_config: Make) -> None:
    build(folder, documents("a", "b"), hashing_config())
    with Collection.open(folder) as collection, Collection.open(folder, writable=True):
        before = collection.pipeline
        wanted = with_weights(replace(before, default="hybrid"), "hybrid", (0.25, 0.75), 90)
        collection.set_pipeline(wanted)
        assert collection.pipeline == wanted
        with pytest.raises(ConfigError, match="nobody"):
            collection.set_pipeline(replace(before, default="nobody"))
        assert collection.pipeline == wanted
    with Collection.open(folder) as again:
        assert again.pipeline == wanted
        assert again.search("common", k=91).notes[0].startswith("depth_raised=91")


# -- searching --------------------------------------------------------------------------------------------------------


def test_a_query_may_be_text_or_a_query(collection: Collection) -> None:
    collection.add(documents("a", "b"))
    assert collection.search("common b").query_id == "q"
    assert collection.search(Query("mine", "common b")).query_id == "mine"
    assert ids(collection.search("common b")) == ids(collection.search(Query("x", "common b"))) == ["b", "a"]


@pytest.mark.parametrize("k", [2.5, "3", None])
def test_numbers_that_are_none_are_refused(collection: Collection, k: Any) -> None:
    collection.add(documents("a"))
    with pytest.raises((RequestError, TypeError)):
        collection.search("common", k=k)


def test_an_empty_collection_survives_export_and_import(collection: Collection, tmp_path: Path) -> None:
    assert export_collection(collection, tmp_path / "c.tar") == 0
    assert import_collection(tmp_path / "c.tar", tmp_path / "again") == 0
    with Collection.open(tmp_path / "again", writable=True) as again:
        again.add(documents("a"))
        assert ids(again.search("common")) == ["a"]
