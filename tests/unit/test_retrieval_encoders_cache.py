"""The cache folder: made once, verified, made again when damaged, private where it cannot be written."""

import logging
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from index.component import MANIFEST
from retrieval.encoders.cache import cache_folder, cached_component, writable_cache

KIND = "thing"


class Filler:
    """Fills a component and counts how often."""

    def __init__(self, content: bytes = b"content") -> None:
        self.content = content
        self.calls = 0

    def __call__(self, folder: Path) -> dict[str, int]:
        self.calls += 1
        (folder / "file").write_bytes(self.content)
        return {"bytes": len(self.content)}


@pytest.fixture
def cache(monkeypatch, tmp_path) -> Path:
    monkeypatch.setenv("GRAPNEL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_the_folder_follows_the_environment(monkeypatch):
    monkeypatch.setenv("HOME", "/somewhere")
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    monkeypatch.setenv("GRAPNEL_CACHE", "/own")
    assert cache_folder() == Path("/own")
    monkeypatch.setenv("GRAPNEL_CACHE", "")
    assert cache_folder() == Path("/xdg/grapnel")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == Path("/somewhere/.cache/grapnel")


def test_a_component_is_made_once(cache):
    fill = Filler()
    made = cached_component("name", KIND, {"a": 1}, fill)
    again = cached_component("name", KIND, {"a": 1}, fill)
    assert fill.calls == 1
    assert made.folder == again.folder == cache / "name"
    assert made.sha256 == again.sha256


def _flip(folder: Path) -> None:
    (folder / "file").write_bytes(b"Content")


def _cut(folder: Path) -> None:
    os.truncate(folder / "file", 3)


def _lose(folder: Path) -> None:
    (folder / MANIFEST).unlink()


def _break(folder: Path) -> None:
    (folder / MANIFEST).write_text("{")


@pytest.mark.parametrize("damage", [_flip, _cut, _lose, _break])
def test_a_damaged_component_is_made_again(cache, caplog, damage):
    fill = Filler()
    cached_component("name", KIND, {}, fill)
    damage(cache / "name")
    with caplog.at_level(logging.WARNING):
        assert (cached_component("name", KIND, {}, fill).folder / "file").read_bytes() == b"content"
    assert fill.calls == 2
    assert "made again" in caplog.text


def test_a_component_made_from_something_else_is_made_again(cache):
    cached_component("name", KIND, {"version": "1"}, Filler(b"old"))
    assert (cached_component("name", KIND, {"version": "2"}, Filler(b"new")).folder / "file").read_bytes() == b"new"
    assert (cache / "name" / "file").read_bytes() == b"new"


def test_what_a_killed_process_left_is_removed(cache):
    leftover = cache / ".name.4194305.tmp"
    leftover.mkdir(parents=True)
    (leftover / "file").write_bytes(b"half")
    cached_component("name", KIND, {}, Filler())
    assert not leftover.exists()


def test_a_failure_leaves_nothing_and_the_next_try_works(cache):
    def fail(folder: Path) -> dict[str, int]:
        (folder / "file").write_bytes(b"half")
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        cached_component("name", KIND, {}, fail)
    assert [path.name for path in cache.iterdir()] == [".name.lock"]
    cached_component("name", KIND, {}, Filler())


def test_a_folder_that_cannot_be_written_gives_a_private_one_and_a_warning(monkeypatch, tmp_path, caplog):
    (tmp_path / "file").write_text("no folder can be below a file")
    monkeypatch.setenv("GRAPNEL_CACHE", str(tmp_path / "file" / "cache"))
    fill = Filler()
    with caplog.at_level(logging.WARNING):
        made = cached_component("name", KIND, {}, fill)
    assert made.folder.is_relative_to(writable_cache(cache_folder()))
    assert not made.folder.is_relative_to(tmp_path / "file")
    assert "set GRAPNEL_CACHE" in caplog.text
    cached_component("name", KIND, {}, fill)
    assert fill.calls == 1  # within the process it is kept
    private = made.folder.parent
    assert oct(private.stat().st_mode & 0o777) == "0o700"


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes to read-only folders")
def test_a_read_only_folder_still_serves_what_it_holds(cache):
    fill = Filler()
    cached_component("name", KIND, {}, fill)
    cache.chmod(0o555)
    try:
        assert cached_component("name", KIND, {}, fill).folder == cache / "name"
        assert fill.calls == 1
        assert cached_component("other", KIND, {}, fill).folder.parent != cache
    finally:
        cache.chmod(0o755)


def test_threads_make_it_once(cache):
    del cache
    fill, found = Filler(), []
    threads = [
        threading.Thread(target=lambda: found.append(cached_component("name", KIND, {}, fill).sha256)) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert fill.calls == 1
    assert len(found) == 4


def test_processes_make_it_once(cache, tmp_path):
    code = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from retrieval.encoders.cache import cached_component\n"
        "def fill(folder):\n"
        "    with open(sys.argv[1], 'a') as log: log.write('made\\n')\n"
        "    time.sleep(0.3)\n"
        "    (folder / 'file').write_bytes(b'content')\n"
        "    return {}\n"
        "print(cached_component('name', 'thing', {}, fill).sha256)\n"
    )
    log = tmp_path / "log"
    children = [
        subprocess.Popen([sys.executable, "-c", code, str(log)], stdout=subprocess.PIPE, text=True) for _ in range(3)
    ]
    answers = {child.communicate(timeout=60)[0] for child in children}
    assert [child.returncode for child in children] == [0, 0, 0]
    assert len(answers) == 1
    assert log.read_text() == "made\n"
    assert (cache / "name" / "file").read_bytes() == b"content"


def test_a_folder_that_refuses_files_is_left_for_one_private_folder(monkeypatch, tmp_path):
    def refuse(**_keys: object) -> None:
        raise PermissionError(13, "Permission denied", str(tmp_path / "changing-name"))

    monkeypatch.setattr("retrieval.encoders.cache.tempfile.TemporaryFile", refuse)
    first, second = writable_cache(tmp_path), writable_cache(tmp_path)
    assert first == second != tmp_path
    assert first.is_dir()
