import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import api.registry
from api.registry import Registry, Waiting, check_name
from index.errors import ConflictError, IndexFormatError, LockedError, NotFoundError, RequestError, StorageError
from retrieval.collection import Collection
from retrieval.collection_config import CollectionConfig
from retrieval.field_vectors import Encoders
from retrieval.lexical import LexicalConfig
from retrieval.types import Document

CONFIG = CollectionConfig(fields={"lexical": LexicalConfig()})


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    registry = Registry(tmp_path, Encoders(), Waiting(4, 4))
    yield registry
    registry.close(5.0)


def make(registry: Registry, name: str) -> None:
    with registry.making(name) as folder:
        Collection.create(folder, CONFIG).close()


def names(registry: Registry) -> list[str]:
    return [served.name for served in registry.all()]


def test_names_are_those_that_are_safe_as_folders() -> None:
    for good in ("a", "a-b_c", "0", "-", "_", "x" * 64):
        assert check_name(good) == good
    for bad in ("", "A", "a b", "a/b", "..", ".", ".grapnel", "a\n", "a\0", "\u00e9", "x" * 65, "\ud800", "a."):
        with pytest.raises(RequestError, match="not allowed"):
            check_name(bad)


# -- making ---------------------------------------------------------------------------------------------------------


def test_a_made_collection_is_served_under_its_name(registry: Registry, tmp_path: Path) -> None:
    make(registry, "new")
    assert names(registry) == ["new"]
    with registry.get("new").using() as collection:
        collection.add([Document("a", "hello")])
        assert collection.folder == tmp_path / "new"
    assert list((tmp_path / ".grapnel" / "scratch").iterdir()) == []


def test_what_fails_to_be_made_leaves_nothing(registry: Registry, tmp_path: Path) -> None:
    def fail() -> None:
        with registry.making("new") as folder:
            Collection.create(folder, CONFIG).close()
            raise KeyError("midway")

    with pytest.raises(KeyError, match="midway"):
        fail()
    assert names(registry) == []
    assert not (tmp_path / "new").exists()
    assert list((tmp_path / ".grapnel" / "scratch").iterdir()) == []
    make(registry, "new")


def test_a_name_is_taken_by_a_collection_an_alias_a_folder_and_what_is_being_made(
    registry: Registry, tmp_path: Path
) -> None:
    make(registry, "served")
    registry.set_alias("alias", "served")
    (tmp_path / "folder").mkdir()
    with registry.making("begun") as folder:
        Collection.create(folder, CONFIG).close()
        for taken in ("served", "alias", "folder", "begun"):
            with pytest.raises(ConflictError, match="taken"):
                make(registry, taken)
            with pytest.raises(ConflictError, match="taken"):
                registry.check_free(taken)
        for alias in ("served", "begun"):
            with pytest.raises(ConflictError, match="own name"):
                registry.set_alias(alias, "served")
            with pytest.raises(ConflictError, match="own name"):
                registry.check_free("free", alias)
        with pytest.raises(ConflictError, match="both"):
            registry.check_free("free", "free")
        registry.check_free("free", "alias")
    assert names(registry) == ["begun", "served"]


def test_a_name_that_something_else_took_meanwhile_is_left_alone(registry: Registry, tmp_path: Path) -> None:
    def work() -> None:
        with registry.making("new") as folder:
            Collection.create(folder, CONFIG).close()
            (tmp_path / "new").mkdir()
            (tmp_path / "new" / "file").touch()

    with pytest.raises(StorageError):
        work()
    assert names(registry) == []
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["file"]


# -- one server for a root ------------------------------------------------------------------------------------------


def test_one_server_serves_a_root_at_a_time(registry: Registry, tmp_path: Path) -> None:
    make(registry, "kept")
    with pytest.raises(LockedError):
        Registry(tmp_path, Encoders(), Waiting(4, 4))
    registry.close(5.0)
    registry.close(5.0)
    again = Registry(tmp_path, Encoders(), Waiting(4, 4))
    again.open_all()
    assert names(again) == ["kept"]
    again.close(5.0)


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b'{"format": 2, "aliases": {}}', b'{"format": 1, "aliases": []}', b"\xff"]
)
def test_damaged_aliases_are_refused_and_the_root_let_go(tmp_path: Path, content: bytes) -> None:
    (tmp_path / ".grapnel").mkdir()
    path = tmp_path / ".grapnel" / "aliases.json"
    path.write_bytes(content)
    with pytest.raises(IndexFormatError, match="repair or remove"):
        Registry(tmp_path, Encoders(), Waiting(4, 4))
    path.unlink()
    Registry(tmp_path, Encoders(), Waiting(4, 4)).close(5.0)


def test_what_a_killed_server_left_is_cleaned_away(tmp_path: Path) -> None:
    left = tmp_path / ".grapnel" / "scratch" / "half-made"
    left.mkdir(parents=True)
    (left / "file").touch()
    Registry(tmp_path, Encoders(), Waiting(4, 4)).close(5.0)
    assert list(left.parent.iterdir()) == []


def test_one_collection_that_cannot_be_opened_keeps_no_other_from_it(registry: Registry, tmp_path: Path) -> None:
    for name in ("bad", "good", "locked"):
        make(registry, name)
    registry.close(5.0)
    (tmp_path / "bad" / "collection.toml").write_text("format = 99\n[fields]\n", encoding="utf-8")
    (tmp_path / "file").touch()
    (tmp_path / "empty").mkdir()
    (tmp_path / "Bad Name").mkdir()
    (tmp_path / "Bad Name" / "collection.toml").touch()
    with Collection.open(tmp_path / "locked", writable=True):
        again = Registry(tmp_path, Encoders(), Waiting(4, 4))
        again.open_all()
        assert {served.name: served.state for served in again.all()} == {
            "bad": "failed",
            "good": "ready",
            "locked": "read-only",
        }
        for use in (lambda: again.get("bad").using().__enter__(), again.get("bad").check_writable):
            with pytest.raises(IndexFormatError, match="could not be opened"):
                use()
        with pytest.raises(LockedError, match="only be searched"):
            again.get("locked").check_writable()
        again.get("good").check_writable()
        with again.get("locked").using() as collection:
            assert len(collection) == 0
        again.delete("bad")
        assert not (tmp_path / "bad").exists()
        again.close(5.0)


# -- aliases --------------------------------------------------------------------------------------------------------


def test_aliases_mean_collections_and_outlive_the_process(registry: Registry, tmp_path: Path) -> None:
    make(registry, "one")
    make(registry, "two")
    registry.set_alias("now", "one")
    assert registry.get("now").name == "one"
    registry.set_alias("now", "two")
    assert registry.get("now").name == "two"
    for alias, name in (("one", "two"), ("Bad", "two"), ("now", "nothing"), ("later", "now")):
        with pytest.raises((ConflictError, RequestError, NotFoundError)):
            registry.set_alias(alias, name)
    with pytest.raises(NotFoundError):
        registry.delete_alias("nothing")
    registry.set_alias("then", "one")
    registry.delete("one")
    assert registry.aliases() == {"now": "two"}
    with pytest.raises(NotFoundError):
        registry.get("then")
    with pytest.raises(ConflictError, match="alias"):
        registry.delete("now")
    registry.close(5.0)
    assert json.loads((tmp_path / ".grapnel" / "aliases.json").read_bytes()) == {"format": 1, "aliases": {"now": "two"}}
    again = Registry(tmp_path, Encoders(), Waiting(4, 4))
    again.open_all()
    assert again.get("now").name == "two"
    again.close(5.0)


# -- deleting -------------------------------------------------------------------------------------------------------


def test_deleting_waits_for_who_uses_the_collection(
    registry: Registry, tmp_path: Path, until: Callable[..., None]
) -> None:
    make(registry, "used")
    served = registry.get("used")
    with served.using() as collection:
        deleting = threading.Thread(target=registry.delete, args=("used",))
        deleting.start()
        until(lambda: "used" not in names(registry), "a collection that is no longer listed")
        collection.add([Document("a", "still open")])
        assert collection.get("a") is not None
        with pytest.raises(NotFoundError):
            registry.get("used")
        with pytest.raises(ConflictError):
            make(registry, "used")
    deleting.join(10.0)
    assert not deleting.is_alive()
    assert not (tmp_path / "used").exists()
    with pytest.raises(NotFoundError, match="deleted or replaced"), served.using():
        pass
    make(registry, "used")
    with registry.get("used").using() as collection:
        assert len(collection) == 0


def test_a_deletion_that_the_disk_refuses_changes_nothing(registry: Registry, tmp_path: Path) -> None:
    make(registry, "kept")
    with registry.get("kept").using() as collection:
        collection.add([Document("a", "hello")])
    scratch = tmp_path / ".grapnel" / "scratch"
    scratch.rmdir()
    scratch.touch()  # nothing can be moved there now
    with pytest.raises(StorageError):
        registry.delete("kept")
    with registry.get("kept").using() as collection:
        assert collection.get("a") is not None
        collection.add([Document("b", "and it can be written to")])
    scratch.unlink()
    scratch.mkdir()
    registry.delete("kept")
    assert names(registry) == []


def test_a_deletion_that_cannot_forget_an_alias_changes_nothing(registry: Registry, tmp_path: Path) -> None:
    make(registry, "kept")
    registry.set_alias("alias", "kept")
    path = tmp_path / ".grapnel" / "aliases.json"
    path.unlink()
    (path / "in the way").mkdir(parents=True)
    with pytest.raises(StorageError):
        registry.delete("kept")
    assert registry.get("alias").name == "kept"
    with registry.get("kept").using() as collection:
        assert len(collection) == 0


def test_names_that_are_none_are_not_found(registry: Registry) -> None:
    with pytest.raises(NotFoundError):
        registry.delete("nothing")
    for name in ("nothing", "..", "", ".grapnel", "\ud800"):
        with pytest.raises(NotFoundError):
            registry.get(name)


def test_aliases_outlive_a_deletion_that_the_disk_refuses(registry: Registry, tmp_path: Path) -> None:
    make(registry, "kept")
    make(registry, "other")
    registry.set_alias("alias", "kept")
    scratch = tmp_path / ".grapnel" / "scratch"
    scratch.rmdir()
    scratch.touch()  # nothing can be moved there now
    with pytest.raises(StorageError):
        registry.delete("kept")
    assert registry.get("alias").name == "kept"
    assert json.loads((tmp_path / ".grapnel" / "aliases.json").read_bytes())["aliases"] == {"alias": "kept"}


def test_what_is_made_but_cannot_be_opened_is_no_success(registry: Registry) -> None:
    def make_badly() -> None:
        with registry.making("new") as folder:
            Collection.create(folder, CONFIG).close()
            (folder / "collection.toml").write_text("format = 99\n[fields]\n", encoding="utf-8")

    with pytest.raises(IndexFormatError, match="could not be opened"):
        make_badly()
    assert registry.get("new").state == "failed"
    make(registry, "newer")


def test_nobody_waits_for_the_disk_to_look_up_a_name(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    make(registry, "one")
    make(registry, "two")
    registry.set_alias("now", "one")
    begun, slow = threading.Event(), threading.Event()
    write = api.registry.write_json_atomic

    def stuck(*arguments: Any, **options: Any) -> None:
        begun.set()
        assert slow.wait(20.0)
        write(*arguments, **options)

    monkeypatch.setattr(api.registry, "write_json_atomic", stuck)
    changing = threading.Thread(target=registry.set_alias, args=("now", "two"))
    changing.start()
    assert begun.wait(20.0)
    seen: list[object] = []

    def look() -> None:
        seen.extend([registry.get("now").name, names(registry), registry.aliases()])
        with pytest.raises(ConflictError):
            registry.check_free("now")

    looking = threading.Thread(target=look)
    looking.start()
    looking.join(20.0)
    slow.set()
    changing.join()
    assert seen == ["one", ["one", "two"], {"now": "one"}]
    assert registry.get("now").name == "two"


def test_a_registry_that_is_closed_opens_nothing_more(registry: Registry) -> None:
    make(registry, "one")
    registry.close(5.0)
    registry.open_all()
    with pytest.raises(NotFoundError, match="deleted or replaced"), registry.get("one").using():
        pass
    with Collection.open(registry.root / "one", writable=True):
        pass
