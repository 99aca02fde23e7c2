"""Copies of a collection that is written to meanwhile: nothing acknowledged is missing, nothing deleted comes back."""

from collections.abc import Callable
from pathlib import Path

from retrieval.collection import Collection
from retrieval.collection_config import CollectionConfig
from retrieval.copying import copy_documents, last_operation
from retrieval.types import Document

Config = Callable[..., CollectionConfig]


def texts(collection: Collection) -> dict[str, tuple[str, int]]:
    return {each.id: (each.text, each.metadata["n"]) for each in collection.documents()}


def write(collection: Collection, *documents: tuple[str, str, int]) -> None:
    collection.add([Document(doc_id, text, metadata={"n": n}) for doc_id, text, n in documents])


def test_what_is_written_during_a_copy_is_in_it(tmp_path: Path, hashing_config: Config) -> None:
    with (
        Collection.create(tmp_path / "source", hashing_config()) as source,
        Collection.begin(tmp_path / "target", hashing_config(dim=32)) as target,
    ):
        write(source, *((f"d{n:04}", f"text {n}", n) for n in range(2_500)))
        during = iter(
            [
                lambda: write(source, ("new", "came late", 1), ("d0001", "changed", 1)),
                lambda: source.delete(["d0000", "d2499"]),
                lambda: source.patch("d0002", {"n": -2}),
                source.compact,  # what the log of writes held is gone with it
                lambda: (write(source, ("short", "lived", 1)), source.delete(["new"])),
                lambda: source.delete(["short"]),
            ]
        )

        def progress(_stage: str, _done: int, _total: int | None) -> None:
            next(during, lambda: None)()

        reached = copy_documents(source, target, progress)
        assert next(during, None) is None, "everything was written while the copy was made"
        assert texts(target) == texts(source)
        assert len(target) == 2_498
        assert reached == last_operation(source)
        assert target.search("changed", mode="dense", k=1).hits[0].doc_id == "d0001"
        assert target.search("late lived", mode="lexical").hits == ()


def test_a_source_that_is_always_ahead_ends_the_copy_and_is_reported(tmp_path: Path, hashing_config: Config) -> None:
    with (
        Collection.create(tmp_path / "source", hashing_config()) as source,
        Collection.begin(tmp_path / "target", hashing_config()) as target,
    ):
        write(source, ("a", "first", 0))
        count = 0

        def progress(_stage: str, _done: int, _total: int | None) -> None:
            nonlocal count
            count += 1
            write(source, ("b", f"again {count}", count))

        reached = copy_documents(source, target, progress)
        assert 0 < reached < last_operation(source)
        assert set(texts(target)) == {"a", "b"}
