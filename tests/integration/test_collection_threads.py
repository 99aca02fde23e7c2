"""Threads that write, search and compact one collection at once, and another process's view of it beside them."""

import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from index.errors import GrapnelError, RequestError
from retrieval.collection import Collection
from retrieval.collection_config import CollectionConfig
from retrieval.types import Document, Hit, Query, SearchRequest
from retrieval.verify import verify

STEPS = 12


@pytest.fixture
def folder(in_memory: None, hashing_config: Callable[..., CollectionConfig]) -> Iterator[Path]:  # noqa: ARG001  a fixture that acts
    with tempfile.TemporaryDirectory() as root:
        folder = Path(root) / "c"
        with Collection.create(folder, hashing_config()) as collection:
            collection.add([Document(f"base{number}", f"common base{number}") for number in range(200)])
            collection.compact()
        yield folder
        assert verify(folder) == []


class Crew:
    """Threads whose first error is raised again when they are joined."""

    def __init__(self) -> None:
        self._threads: list[threading.Thread] = []
        self._errors: list[BaseException] = []
        self.stop = threading.Event()

    def start(self, work: Callable[..., None], *arguments: Any) -> threading.Thread:
        def guarded() -> None:
            try:
                work(*arguments)
            except BaseException as error:  # noqa: BLE001  raised again by join
                self._errors.append(error)
                self.stop.set()

        thread = threading.Thread(target=guarded, name=work.__name__)
        self._threads.append(thread)
        thread.start()
        return thread

    def join(self) -> None:
        for thread in self._threads:
            thread.join(timeout=120)
            assert not thread.is_alive(), f"{thread.name} hangs"
        if self._errors:
            raise self._errors[0]


def found(collection: Collection, text: str, mode: str, **options: Any) -> dict[str, Hit]:
    hits = collection.search(text, mode=mode, k=2000, **options).hits
    assert len({hit.doc_id for hit in hits}) == len(hits)
    return {hit.doc_id: hit for hit in hits}


def add_and_check(writer: Collection, readers: list[Collection], doc_id: str, word: str) -> None:
    writer.add([Document(doc_id, f"common {word}")])
    for collection in readers:
        assert found(collection, word, "lexical").keys() == {doc_id}
        assert collection.search(f"common {word}", mode="dense", k=1).hits[0].doc_id == doc_id
        assert found(collection, word, "hybrid")[doc_id].passage.text == f"common {word}"


def patch_and_check(writer: Collection, readers: list[Collection], doc_id: str, step: int) -> None:
    writer.patch(doc_id, {"step": step})
    for collection in readers:
        assert doc_id in found(collection, "common", "dense", filter={"type": "eq", "key": "step", "value": step})


def delete_and_check(writer: Collection, readers: list[Collection], doc_id: str) -> None:
    assert writer.delete([doc_id]) == 1
    for collection in readers:
        assert collection.get(doc_id) is None
        assert doc_id not in found(collection, "common", "dense")


def test_what_a_thread_wrote_its_next_search_sees(folder: Path) -> None:
    crew = Crew()
    with Collection.open(folder, writable=True) as writer, Collection.open(folder) as reader:

        def write(name: str, readers: list[Collection]) -> None:
            for step in range(STEPS):
                doc_id, word = f"{name}-{step}", f"{name}word{step}"
                add_and_check(writer, readers, doc_id, word)
                patch_and_check(writer, readers, doc_id, step)
                if step % 3 == 2:
                    add_and_check(writer, readers, doc_id, f"changed{word}")
                    assert all(found(collection, word, "lexical") == {} for collection in readers)
                if step % 4 == 3:
                    delete_and_check(writer, readers, doc_id)

        def compact() -> None:
            while not crew.stop.wait(0.05):
                writer.compact()

        orders = [[writer, reader], [reader, writer], [reader]]
        writers = [crew.start(write, f"thread{number}", order) for number, order in enumerate(orders)]
        crew.start(compact)
        for thread in writers:
            thread.join(timeout=120)
        crew.stop.set()
        crew.join()
        expected = {f"base{number}" for number in range(200)} | {
            f"thread{number}-{step}" for number in range(len(orders)) for step in range(STEPS) if step % 4 != 3
        }
        for collection in (writer, reader):
            assert {document.id for document in collection.documents()} == expected
            for mode in ("dense", "lexical", "hybrid"):
                assert found(collection, "common", mode).keys() == expected


def test_every_search_sees_one_state(folder: Path) -> None:
    """Each write replaces a group of documents by another at once: any other mixture would be half an update."""
    crew = Crew()
    size = 5

    def group(version: int) -> list[Document]:
        return [Document(f"group{place}", f"common version{version}", metadata={"v": version}) for place in range(size)]

    with Collection.open(folder, writable=True) as writer, Collection.open(folder) as reader:
        writer.add(group(0))

        def search(collection: Collection) -> None:
            last = 0
            while not crew.stop.is_set():
                requests = [SearchRequest(Query(mode, "common version"), k=500) for mode in ("a", "b")]
                answers = [collection.search_many(requests, mode=mode) for mode in ("dense", "lexical", "hybrid")]
                for rankings in answers:
                    versions = {
                        (hit.metadata["v"], hit.passage.text)
                        for ranking in rankings
                        for hit in ranking.hits
                        if hit.doc_id.startswith("group")
                    }
                    assert len(versions) == 1, versions
                    ((version, text),) = versions
                    assert text == f"common version{version}"
                    assert version >= last
                    last = version
                    assert all(len(ranking.hits) == 200 + size for ranking in rankings)

        def compact() -> None:
            while not crew.stop.wait(0.1):
                writer.compact()

        for collection in (writer, reader, reader):
            crew.start(search, collection)
        crew.start(compact)
        for version in range(1, 25):
            writer.add(group(version))
            time.sleep(0.01)  # let the searches in
        crew.stop.set()
        crew.join()


def test_closing_under_searches_ends_them_with_an_error_of_ours(folder: Path) -> None:
    crew = Crew()
    collection = Collection.open(folder)
    answered = threading.Semaphore(0)

    def search() -> None:
        try:
            while True:
                assert len(found(collection, "common", "hybrid")) == 200
                answered.release()
        except GrapnelError:
            pass

    for _ in range(3):
        crew.start(search)
    for _ in range(6):
        assert answered.acquire(timeout=60)
    collection.close()
    crew.join()


def test_a_batch_fails_alone(folder: Path) -> None:
    """Searches that are refused in one thread leave those of others alone."""
    crew = Crew()
    with Collection.open(folder) as collection:
        expected = collection.search("common base7", mode="hybrid", k=20).hits

        def good() -> None:
            for _ in range(40):
                hits = collection.search("common base7", mode="hybrid", k=20).hits
                assert [hit.doc_id for hit in hits] == [hit.doc_id for hit in expected]
                np.testing.assert_allclose([h.score for h in hits], [h.score for h in expected], atol=1e-6)

        def bad() -> None:
            for _ in range(40):
                with pytest.raises(RequestError):
                    collection.search("common", k=0)
                with pytest.raises(RequestError):
                    collection.search("common", filter={"type": "eq"})

        for work in (good, bad, good, bad):
            crew.start(work)
        crew.join()
