"""A collection against a dictionary: any sequence of writes, compactions and reopenings, seen by a writer and a reader.

The reader has the same folder open for reading all the time and must agree after every step.
"""

import json
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from hypothesis import assume
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    precondition,
    rule,
)

from index.errors import CorpusError, NotFoundError, RequestError
from retrieval.chunking import Chunker, ChunkingConfig
from retrieval.collection import Collection, build
from retrieval.collection_config import CollectionConfig, DenseField
from retrieval.encoders import EncoderConfig, open_encoder, passage_text
from retrieval.filters import flatten, keys, matches, parse_filter
from retrieval.ingest import AddReport
from retrieval.lexical import LexicalConfig
from retrieval.types import Document, Passage, Query, Ranking
from retrieval.verify import verify

HASHING = EncoderConfig(kind="hashing", dim=64)
MODES = ("dense", "lexical", "hybrid", "mine")

# fmt: off
IDS = (
    "a", "A", "a b", " a", "a/b", "../a", "a%2Fb", "é", "e\u0301", "日本語", "🎉", "a'b\"c\\", "_id", "null", "1",
    "1.0", "\u00a0\u200b", "\ufeffa", "x" * 512, "é" * 256,
)
# fmt: on
WORDS = ("alpha", "beta", "gamma", "delta", "omega")
SEPARATORS = (" ", "  ", ", ", "\n\n", "\0", " \u2028", " 🎉 ", " — ")

texts = st.lists(st.tuples(st.sampled_from((*WORDS, "ALPHA", "?")), st.sampled_from(SEPARATORS)), max_size=6).map(
    lambda pieces: "".join(word + separator for word, separator in pieces)
)
long_texts = st.lists(texts.filter(bool), min_size=0, max_size=40).map("".join)

scalars = st.none() | st.booleans() | st.integers(-2, 3) | st.sampled_from(["x", "y", "", "\0", "é", 1.5, -0.0, 2**62])
metadata = st.fixed_dictionaries(
    {},
    optional={
        "n": st.integers(0, 4),
        "value": scalars,
        "tags": st.lists(scalars, max_size=3),
        "author": st.fixed_dictionaries({"name": scalars}, optional={"born": st.integers(1990, 1992)}),
        "author.name": scalars,
        "_id": scalars,
        "": scalars,
    },
)
changes = st.dictionaries(st.sampled_from(["n", "value", "tags", "author", "later"]), scalars, max_size=3)

FILTERS: tuple[dict[str, Any], ...] = (
    {"type": "eq", "key": "n", "value": 1},
    {"type": "gte", "key": "n", "value": 2},
    {"type": "ne", "key": "value", "value": "x"},
    {"type": "eq", "key": "value", "value": None},
    {"type": "contains_any", "key": "tags", "value": ["x", 1, True]},
    {"type": "exists", "key": "author.born"},
    {"type": "in", "key": "author.name", "value": ["x", 1, None]},
    {"type": "nin", "key": "", "value": [True, "\0"]},
    {"type": "eq", "key": "later", "value": 2},
    {"type": "in", "key": "_id", "value": ["a", "A", "é", "🎉", "1", "x" * 512]},
    {
        "type": "or",
        "filters": [
            {"type": "and", "filters": [{"type": "lt", "key": "n", "value": 3}, {"type": "exists", "key": "tags"}]},
            {"type": "not", "filter": {"type": "exists", "key": "value"}},
        ],
    },
)

QUERIES = ("alpha", "beta gamma", "omega delta omega alpha", "unheard")


def vector(seed: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.array([seed, 1, -seed, 0.5], np.float32)


def documents_of(texts: st.SearchStrategy[str]) -> st.SearchStrategy[Document]:
    return st.builds(
        Document,
        id=st.sampled_from(IDS),
        text=texts,
        title=st.sampled_from(["", "", "gamma", "Omega — delta", "\0"]),
        metadata=metadata,
        vectors=st.integers(-3, 3).map(lambda seed: {"mine": vector(seed)}),
    )


def plain(document: Document) -> tuple[Any, ...]:
    """What must come back of a document, comparable; JSON tells 1 from 1.0 and true."""
    stored = json.dumps(dict(document.metadata), sort_keys=True)
    return document.id, document.text, document.title, stored, document.vectors["mine"].tolist()


def content(document: Document) -> tuple[Any, ...]:
    return document.id, document.text, document.title, document.vectors["mine"].tolist()


class CollectionMachine(RuleBasedStateMachine):
    """Writes to a collection and to a dictionary alike."""

    chunking: ClassVar[ChunkingConfig] = ChunkingConfig()
    stored = Bundle("stored")

    def __init__(self) -> None:
        super().__init__()
        self._root = tempfile.TemporaryDirectory()
        self.folder = Path(self._root.name) / "c"
        self.config = CollectionConfig(
            chunking=self.chunking,
            fields={
                "dense": DenseField(HASHING),
                "lexical": LexicalConfig(),
                "mine": DenseField(EncoderConfig(kind="external", dim=4), metric="ip"),
            },
        )
        self.encoder = open_encoder(HASHING)
        self.chunker = Chunker(self.chunking)
        self.model: dict[str, Document] = {}
        self.writer = Collection.create(self.folder, self.config)
        self.reader = Collection.open(self.folder)

    def teardown(self) -> None:
        self.writer.close()
        self.reader.close()
        assert verify(self.folder) == []
        self._root.cleanup()

    # -- writes -------------------------------------------------------------------------------------------------------

    def _add(self, batch: Sequence[Document]) -> None:
        counts: Counter[str] = Counter()
        for document in batch:
            old = self.model.get(document.id)
            if old is None:
                counts["added"] += 1
            elif content(old) != content(document):
                counts["updated"] += 1
            elif plain(old) != plain(document):
                counts["patched"] += 1
            else:
                counts["unchanged"] += 1
            self.model[document.id] = document
        report = self.writer.add(iter(batch))
        assert (report.added, report.updated, report.patched, report.unchanged) == tuple(
            counts[name] for name in ("added", "updated", "patched", "unchanged")
        )
        assert report.truncated == 0
        assert report.encoded <= len({key for document in batch for key in self._passages(document)})

    @rule(target=stored, batch=st.lists(documents_of(texts), min_size=1, max_size=4))
    def add(self, batch: list[Document]) -> Any:
        batch = [document for document in batch if document.text.strip() or document.title.strip() or document.vectors]
        self._add(batch)
        return multiple(*(document.id for document in batch))

    @rule(doc_id=stored)
    def add_unchanged(self, doc_id: str) -> None:
        assume(doc_id in self.model)
        assert self.writer.add([self.model[doc_id]]) == AddReport(unchanged=1)

    @rule(doc_id=stored, title=st.sampled_from(["", "beta"]))
    def update_title(self, doc_id: str, title: str) -> None:
        assume(doc_id in self.model)
        old = self.model[doc_id]
        self._add([Document(old.id, old.text, title, old.metadata, old.vectors)])

    @rule(doc_id=stored, wanted=changes)
    def patch(self, doc_id: str, wanted: dict[str, Any]) -> None:
        if doc_id not in self.model:
            with pytest.raises(NotFoundError):
                self.writer.patch(doc_id, wanted)
            return
        old = self.model[doc_id]
        merged = {key: value for key, value in old.metadata.items() if key not in wanted}
        merged |= {key: value for key, value in wanted.items() if value is not None}
        self.model[doc_id] = Document(old.id, old.text, old.title, merged, old.vectors)
        assert plain(self.writer.patch(doc_id, wanted).document) == plain(self.model[doc_id])

    @rule(doc_ids=st.lists(st.sampled_from([*IDS, "nobody", "\ud800"]), max_size=4))
    def delete(self, doc_ids: list[str]) -> None:
        gone = {doc_id for doc_id in doc_ids if self.model.pop(doc_id, None)}
        assert self.writer.delete(doc_ids) == len(gone)

    @rule(doc_id=consumes(stored))
    def delete_one(self, doc_id: str) -> None:
        assert self.writer.delete(doc_id) == (self.model.pop(doc_id, None) is not None)

    @rule(condition=st.sampled_from(FILTERS[:4]))
    def delete_matching(self, condition: dict[str, Any]) -> None:
        gone = self._matching(condition)
        try:
            assert self.writer.delete(filter=condition) == len(gone)
        except RequestError:
            assert not self._known(condition)
            return
        for doc_id in gone:
            del self.model[doc_id]

    @rule(good=documents_of(texts), bad=st.sampled_from(["", "  ", "x" * 513, "tab\t", "\ud800"]))
    def a_bad_document_stops_its_batch(self, good: Document, bad: str) -> None:
        before = self.writer.get(good.id)
        with pytest.raises(CorpusError):
            self.writer.add([good, Document(bad, "text", vectors=good.vectors)])
        after = self.writer.get(good.id)
        assert (before and plain(before)) == (after and plain(after))

    # -- upkeep -------------------------------------------------------------------------------------------------------

    @rule()
    def compact(self) -> None:
        self.writer.compact()

    @rule()
    def reopen_the_writer(self) -> None:
        self.writer.close()
        self.writer = Collection.open(self.folder, writable=True)

    @rule()
    def reopen_the_reader(self) -> None:
        self.reader.close()
        self.reader = Collection.open(self.folder)

    @precondition(lambda self: self.model)
    @rule()
    def a_compacted_collection_ranks_as_a_new_one(self) -> None:
        self.writer.compact()
        with tempfile.TemporaryDirectory() as other:
            build(Path(other) / "c", sorted(self.model.values(), key=lambda document: document.id), self.config)
            with Collection.open(Path(other) / "c") as fresh:
                for mode in MODES:
                    for query in QUERIES:
                        expected = search(fresh, query, mode)
                        same_ranking(search(self.writer, query, mode), expected)
                        same_ranking(search(self.reader, query, mode), expected)

    # -- reads --------------------------------------------------------------------------------------------------------

    @invariant()
    def the_number_of_documents_is_right(self) -> None:
        for collection in (self.writer, self.reader):
            assert len(collection) == len(self.model)

    @rule(collection=st.sampled_from(["writer", "reader"]))
    def the_documents_are_those_written(self, collection: str) -> None:
        open_collection: Collection = getattr(self, collection)
        assert sorted(map(plain, open_collection.documents())) == sorted(map(plain, self.model.values()))
        for doc_id in (*IDS, "nobody"):
            found, wanted = open_collection.get(doc_id), self.model.get(doc_id)
            assert (found and plain(found)) == (wanted and plain(wanted))

    @rule(query=st.sampled_from(QUERIES), first=st.sampled_from(["writer", "reader"]))
    def searches_see_everything_and_nothing_else(self, query: str, first: str) -> None:
        """Whoever asks first opens or follows what was written, so both take turns."""
        for collection in (self.writer, self.reader)[:: 1 if first == "writer" else -1]:
            for mode in MODES:
                self._check(search(collection, query, mode), query, mode, set(self.model))

    @rule(query=st.sampled_from(QUERIES), condition=st.sampled_from(FILTERS))
    def filtered_searches_see_what_matches(self, query: str, condition: dict[str, Any]) -> None:
        for collection in (self.reader, self.writer):
            for mode in MODES:
                try:
                    found = search(collection, query, mode, filter=condition)
                except RequestError:
                    assert not self._known(condition)
                    continue
                self._check(found, query, mode, self._matching(condition))

    def _check(self, found: Ranking, query: str, mode: str, allowed: set[str]) -> None:
        if mode == "lexical":
            wanted = set(query.split())
            allowed = {i for i in allowed if any(word in lexical_text(self.model[i]) for word in wanted)}
        assert {hit.doc_id for hit in found.hits} == allowed
        order = [(-(hit.score or 0.0), hit.doc_id) for hit in found.hits]
        assert order == sorted(order)
        for hit in found.hits:
            document = self.model[hit.doc_id]
            assert plain(Document(document.id, document.text, document.title, hit.metadata, document.vectors)) == plain(
                document
            )
            assert hit.passage.title == document.title
            assert hit.passage.text == document.text[hit.passage.start : hit.passage.end]
            if mode == "dense":
                assert hit.score == pytest.approx(self._dense_score(document, query), abs=1e-5)
            if mode == "mine":
                assert hit.score == pytest.approx(float(document.vectors["mine"] @ vector(2)), abs=1e-5)

    def _passages(self, document: Document) -> list[str]:
        return [
            passage_text(Passage(document.id, 0, start, end, document.text[start:end], document.title))
            for start, end in self.chunker.spans(document)
        ]

    def _dense_score(self, document: Document, query: str) -> float:
        question = self.encoder.encode_queries([Query("q", query)])[0]
        return float((self.encoder.encode_texts(self._passages(document)).vectors @ question).max())

    def _matching(self, condition: Mapping[str, Any]) -> set[str]:
        parsed = parse_filter(condition)
        return {doc_id for doc_id, document in self.model.items() if matches(parsed, document.metadata, doc_id)}

    def _known(self, condition: Mapping[str, Any]) -> bool:
        """Whether documents have every key of a filter: then it must be answered.

        A key that none has any more is refused only after compaction, so both answers are right there.
        """
        present = {key for document in self.model.values() for key in flatten(document.metadata)}
        return keys(parse_filter(condition)) <= present


def lexical_text(document: Document) -> str:
    return f"{document.title} {document.text}".lower()


def search(collection: Collection, text: str, mode: str, **options: Any) -> Ranking:
    query = Query("q", text, vectors={"mine": vector(2)})
    return collection.search(query, mode=mode, k=len(IDS) + 1, depth=1000, **options)


def same_ranking(found: Ranking, expected: Ranking) -> None:
    """Equal up to swaps of scores that rounding may swap."""
    scores = {hit.doc_id: hit.score for hit in expected.hits}
    assert {hit.doc_id for hit in found.hits} == scores.keys()
    for hit, other in zip(found.hits, expected.hits, strict=True):
        assert hit.score == pytest.approx(other.score, abs=1e-5)
        assert hit.score == pytest.approx(scores[hit.doc_id], abs=1e-5)


class ChunkedCollectionMachine(CollectionMachine):
    """The same with long documents cut into passages of about 128 characters."""

    chunking = ChunkingConfig(kind="tokens", max_tokens=32, overlap=8)

    @rule(document=documents_of(long_texts))
    def add_a_long_document(self, document: Document) -> None:
        self._add([document])

    @initialize(doc_id=st.sampled_from(IDS), words=st.integers(100, 300))
    def begin_with_a_long_document(self, doc_id: str, words: int) -> None:
        document = Document(doc_id, "alpha beta " * words, vectors={"mine": vector(1)})
        assert len(self._passages(document)) > 5
        self._add([document])

    @rule(doc_id=st.sampled_from(IDS))
    def a_long_document_becomes_short(self, doc_id: str) -> None:
        assume(doc_id in self.model)
        old = self.model[doc_id]
        self._add([Document(doc_id, "delta", old.title, old.metadata, old.vectors)])
        found = self.reader.search("delta", mode="lexical", k=50, group="passage")
        assert [hit.passage.ordinal for hit in found.hits if hit.doc_id == doc_id] == [0]


MACHINES: Iterable[Callable[[], RuleBasedStateMachine]] = (CollectionMachine, ChunkedCollectionMachine)


@pytest.mark.usefixtures("in_memory")
@pytest.mark.parametrize("machine", MACHINES)
def test_a_collection_is_a_dictionary_that_can_be_searched(
    run_machine: Callable[..., None], machine: Callable[[], RuleBasedStateMachine]
) -> None:
    run_machine(machine, examples=15, steps=20)


@pytest.mark.slow
@pytest.mark.usefixtures("in_memory")
@pytest.mark.parametrize("machine", MACHINES)
def test_a_collection_is_a_dictionary_at_length(
    run_machine: Callable[..., None], machine: Callable[[], RuleBasedStateMachine]
) -> None:
    run_machine(machine, examples=200, steps=50)
