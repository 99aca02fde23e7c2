"""Files that are replaced whole or not at all, and folders whose every byte is accounted for."""

import errno
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from index.component import MANIFEST, Component, open_component, sha256_file, write_component
from index.durable import publish_folder, replaced, storage_errors, write_atomic, write_json_atomic
from index.errors import IndexFormatError, StorageError


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


class HalfwayError(Exception):
    """Stands for anything that may go wrong half way."""


# -- one file ---------------------------------------------------------------------------------------------------------


def test_a_file_is_created_and_replaced(tmp_path: Path) -> None:
    path = tmp_path / "f"
    write_atomic(path, b"one", point="test")
    assert path.read_bytes() == b"one"
    write_atomic(path, b"", point="test")
    assert path.read_bytes() == b""
    assert names(tmp_path) == {"f"}


def test_a_reader_that_has_the_old_file_open_keeps_it(tmp_path: Path) -> None:
    path = tmp_path / "f"
    write_atomic(path, b"old", point="test")
    with path.open("rb") as reader:
        write_atomic(path, b"new and longer", point="test")
        assert reader.read() == b"old"
    assert path.read_bytes() == b"new and longer"


@pytest.mark.parametrize("call", ["fsync", "replace"])
@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "full"), OSError(errno.EIO, "bad disk"), KeyboardInterrupt()])
def test_what_fails_half_way_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, error: BaseException
) -> None:
    path = tmp_path / "f"
    write_atomic(path, b"old", point="test")

    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(os, call, fail)
    expected = StorageError if isinstance(error, OSError) else KeyboardInterrupt
    with pytest.raises(expected):
        write_atomic(path, b"new", point="test")
    monkeypatch.undo()
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == {"f"}


def test_a_file_that_is_written_piece_by_piece_is_seen_once_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"old")
    with replaced(path, point="test") as file:
        for piece in (b"one ", b"two"):
            file.write(piece)
            file.flush()
            assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"one two"

    def fail(error: BaseException) -> None:
        with replaced(path, point="test") as file:
            file.write(b"three")
            raise error

    failures = [(HalfwayError(), HalfwayError), (KeyboardInterrupt(), KeyboardInterrupt)]
    for error, seen in [*failures, (OSError(errno.EIO, "of another file"), StorageError)]:
        with pytest.raises(seen):
            fail(error)
    assert path.read_bytes() == b"one two"
    assert names(tmp_path) == {"f"}


def test_a_folder_that_is_missing_or_a_file_is_a_storage_error(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="nowhere"):
        write_atomic(tmp_path / "nowhere" / "f", b"x", point="test")
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="file"):
        write_atomic(tmp_path / "file" / "f", b"x", point="test")
    (tmp_path / "folder").mkdir()
    with pytest.raises(StorageError, match="folder"):
        write_atomic(tmp_path / "folder", b"x", point="test")
    assert names(tmp_path) == {"file", "folder"}


@pytest.mark.parametrize(
    ("number", "remedy"),
    [
        (errno.ENOSPC, "free disk space"),
        (errno.EDQUOT, "quota"),
        (errno.EROFS, "read-only"),
        (errno.EACCES, "permissions"),
        (errno.EIO, "grapnel verify"),
        (errno.ENAMETOOLONG, "check the path"),
    ],
)
def test_storage_errors_say_what_was_done_where_and_what_to_do(number: int, remedy: str) -> None:
    expected = pytest.raises(StorageError, match=rf"^cannot write .*place: .*{remedy}")
    with expected as caught, storage_errors("write", Path("some/place")):
        raise OSError(number, os.strerror(number))
    assert isinstance(caught.value.__cause__, OSError)


def test_other_errors_pass_unchanged() -> None:
    with pytest.raises(HalfwayError), storage_errors("write", Path("x")):
        raise HalfwayError


def test_json_is_canonical_and_readable(tmp_path: Path) -> None:
    path = tmp_path / "f.json"
    write_json_atomic(path, {"b": [1, None], "a": "é"}, point="test")
    first = path.read_bytes()
    assert json.loads(first) == {"a": "é", "b": [1, None]}
    assert "é".encode() in first
    assert first.endswith(b"\n")
    write_json_atomic(path, {"a": "é", "b": [1, None]}, point="test")
    assert path.read_bytes() == first
    with pytest.raises(ValueError, match="JSON"):
        write_json_atomic(path, {"a": float("nan")}, point="test")
    assert path.read_bytes() == first


# -- one folder -------------------------------------------------------------------------------------------------------


def fill(folder: Path) -> None:
    (folder / "inner").mkdir()
    (folder / "inner" / "f").write_bytes(b"x")


def test_a_folder_appears_whole(tmp_path: Path) -> None:
    seen: list[set[str]] = []

    def watched(folder: Path) -> None:
        fill(folder)
        seen.append({name for name in names(tmp_path) if not name.startswith(".")})

    publish_folder(tmp_path / "final", watched, point="test")
    assert seen == [set()]
    assert (tmp_path / "final" / "inner" / "f").read_bytes() == b"x"
    assert names(tmp_path) == {"final"}


@pytest.mark.parametrize("error", [HalfwayError(), KeyboardInterrupt(), SystemExit(1)])
def test_a_folder_that_cannot_be_filled_does_not_appear(tmp_path: Path, error: BaseException) -> None:
    def broken(folder: Path) -> None:
        fill(folder)
        raise error

    with pytest.raises(type(error)):
        publish_folder(tmp_path / "final", broken, point="test")
    assert names(tmp_path) == set()


def test_a_disk_that_fills_up_is_a_storage_error(tmp_path: Path) -> None:
    def broken(_: Path) -> None:
        raise OSError(errno.ENOSPC, "full")

    with pytest.raises(StorageError, match=r"final.*free disk space"):
        publish_folder(tmp_path / "final", broken, point="test")
    assert names(tmp_path) == set()


def test_a_folder_that_is_there_is_not_replaced(tmp_path: Path) -> None:
    publish_folder(tmp_path / "final", fill, point="test")
    with pytest.raises(StorageError, match="final"):
        publish_folder(tmp_path / "final", lambda folder: (folder / "other").touch(), point="test")
    assert names(tmp_path) == {"final"}
    assert names(tmp_path / "final") == {"inner"}


@pytest.mark.parametrize(
    ("point", "left"),
    [
        ("t.written", {"f": b"old"}),
        ("t.replaced", {"f": b"new"}),
        ("t.replaced:2", {"f": b"newer"}),
        ("t.replaced:3", {"f": b"newer", "done": b""}),
        ("other", {"f": b"newer", "done": b""}),
    ],
)
def test_a_failpoint_kills_the_process_at_its_name_and_count(
    tmp_path: Path, point: str, left: Mapping[str, bytes]
) -> None:
    (tmp_path / "f").write_bytes(b"old")
    code = (
        "import sys; from pathlib import Path; from index.durable import write_atomic as w; p = Path(sys.argv[1])\n"
        "w(p / 'f', b'new', point='t'); w(p / 'f', b'newer', point='t'); (p / 'done').touch()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], env={**os.environ, "GRAPNEL_FAILPOINT": point}, check=False
    )
    assert done.returncode == (0 if "done" in left else -9)
    visible = {path.name: path.read_bytes() for path in tmp_path.iterdir() if not path.name.startswith(".")}
    assert visible == left


# -- components -------------------------------------------------------------------------------------------------------

CONFIG = {"metric": "cosine", "é": [1, 2.5, None]}


def content(folder: Path) -> Mapping[str, int]:
    (folder / "a.bin").write_bytes(b"first file")
    (folder / "deep" / "er").mkdir(parents=True)
    (folder / "deep" / "er" / "b.bin").write_bytes(b"")
    return {"rows": 3}


@pytest.fixture
def component(tmp_path: Path) -> Component:
    return write_component(tmp_path / "c", "dense", CONFIG, content)


def test_a_component_knows_its_files(component: Component) -> None:
    manifest = json.loads((component.folder / MANIFEST).read_bytes())
    assert manifest == {
        "format": 1,
        "kind": "dense",
        "config": CONFIG,
        "counts": {"rows": 3},
        "files": {
            "a.bin": {"size_bytes": 10, "sha256": hashlib.sha256(b"first file").hexdigest()},
            "deep/er/b.bin": {"size_bytes": 0, "sha256": hashlib.sha256(b"").hexdigest()},
        },
    }
    assert component.sha256 == sha256_file(component.folder / MANIFEST)
    assert component.size_bytes == 10 + (component.folder / MANIFEST).stat().st_size
    assert (component.kind, component.config, component.counts) == ("dense", CONFIG, {"rows": 3})
    assert open_component(component.folder, sha256=component.sha256, kind="dense") == component
    assert open_component(component.folder, verify=False) == component


def test_equal_content_has_an_equal_sum(component: Component, tmp_path: Path) -> None:
    again = write_component(tmp_path / "again", "dense", dict(reversed(CONFIG.items())), content)
    assert again.sha256 == component.sha256
    other = write_component(tmp_path / "other", "dense", {**CONFIG, "metric": "ip"}, content)
    assert other.sha256 != component.sha256


def test_large_files_are_summed_whole(tmp_path: Path) -> None:
    raw = os.urandom((1 << 20) * 2 + 7)
    (tmp_path / "f").write_bytes(raw)
    assert sha256_file(tmp_path / "f") == hashlib.sha256(raw).hexdigest()


def flip(path: Path, place: int = 0) -> None:
    raw = bytearray(path.read_bytes())
    raw[place] ^= 1
    path.write_bytes(raw)


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "a flipped bit": (lambda c: flip(c / "a.bin", 4), r"a\.bin has SHA-256"),
    "a file cut short": (lambda c: (c / "a.bin").write_bytes(b"first fil"), r"a\.bin has 9 bytes, expected 10"),
    "a longer file": (lambda c: (c / "deep" / "er" / "b.bin").write_bytes(b"x"), r"b\.bin has 1 bytes, expected 0"),
    "a missing file": (lambda c: (c / "deep" / "er" / "b.bin").unlink(), r"b\.bin is missing"),
    "a folder for a file": (lambda c: ((c / "a.bin").unlink(), (c / "a.bin").mkdir()), r"a\.bin is missing"),
    "an extra file": (lambda c: (c / "deep" / "extra").touch(), r"does not list: \['deep/extra'\]"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_files_are_named(component: Component, damage: str) -> None:
    apply, message = DAMAGES[damage]
    apply(component.folder)
    with pytest.raises(IndexFormatError, match=message):
        open_component(component.folder)
    assert open_component(component.folder, verify=False) == component


MANIFEST_DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "no manifest": (lambda path: path.unlink(), "missing or incomplete"),
    "an empty one": (lambda path: path.write_bytes(b""), "not JSON"),
    "half of one": (lambda path: path.write_bytes(path.read_bytes()[:40]), "not JSON"),
    "not UTF-8": (lambda path: path.write_bytes(b"\xff" + path.read_bytes()), "not JSON"),
    "another JSON": (lambda path: path.write_text("[1]"), "not a component manifest"),
    "a key less": (lambda path: path.write_text('{"format": 1, "kind": "dense"}'), "not a component manifest"),
    "another version": (
        lambda path: path.write_text(path.read_text().replace('"format": 1', '"format": 2')),
        "component format 2, this grapnel reads 1",
    ),
}


@pytest.mark.parametrize("damage", MANIFEST_DAMAGES)
def test_damaged_manifests_are_refused(component: Component, damage: str) -> None:
    apply, message = MANIFEST_DAMAGES[damage]
    apply(component.folder / MANIFEST)
    with pytest.raises(IndexFormatError, match=message):
        open_component(component.folder, verify=False)


def test_a_manifest_must_be_the_one_that_was_referred_to(component: Component) -> None:
    path = component.folder / MANIFEST
    path.write_text(path.read_text().replace('"rows": 3', '"rows": 4'))
    assert open_component(component.folder).counts == {"rows": 4}
    with pytest.raises(IndexFormatError, match=rf"its generation expects {component.sha256}"):
        open_component(component.folder, sha256=component.sha256)


def test_a_component_must_be_of_the_kind_that_was_asked_for(component: Component) -> None:
    with pytest.raises(IndexFormatError, match="of kind 'dense', expected 'lexical'"):
        open_component(component.folder, kind="lexical")


def test_a_component_that_cannot_be_filled_leaves_nothing(tmp_path: Path) -> None:
    def broken(folder: Path) -> Mapping[str, int]:
        content(folder)
        raise HalfwayError

    with pytest.raises(HalfwayError):
        write_component(tmp_path / "c", "dense", CONFIG, broken)
    assert names(tmp_path) == set()
    with pytest.raises(IndexFormatError, match="missing or incomplete"):
        open_component(tmp_path / "c")


def test_a_configuration_that_is_no_json_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        write_component(tmp_path / "c", "dense", {"x": float("nan")}, content)
    assert names(tmp_path) == set()
