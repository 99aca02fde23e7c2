"""Damaged, missing and unwritable files, a full disk, other processes: refused with a clear error, nothing lost.

Files of a collection are broken one at a time. What reads it may then refuse with a GrapnelError or answer exactly as
before, nothing else; what is derived is rebuilt by compaction.
"""

import contextlib
import json
import os
import random
import re
import runpy
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from command_line import refusal

from index.errors import GrapnelError, IndexFormatError, LockedError, NotFoundError, StorageError
from retrieval.archive import export_collection
from retrieval.collection import SHARD, Collection, build
from retrieval.collection_config import CollectionConfig
from retrieval.encoding import PIECE
from retrieval.generation import read_current
from retrieval.phrases import SubstringField
from retrieval.phrases.grep import grep
from retrieval.phrases.ngrams import ngrams
from retrieval.types import Document
from retrieval.vector_store import VectorStore
from retrieval.verify import verify

HERE = Path(__file__).parent
CHILD = HERE / "fault_child.py"
WRITER = HERE / "chaos_writer.py"
DATABASE = f"{SHARD}/documents.db"
MODES = ("dense", "lexical", "hybrid")
WORDS = [f"w{number}" for number in range(40)]

Answers = dict[str, Any]


# -- a collection and what it answers -----------------------------------------------------------------------------


def documents_of(seed: int, count: int) -> list[Document]:
    rng = random.Random(seed)
    return [
        Document(
            f"d{number}",
            " ".join(["anchor", *rng.choices(WORDS, k=rng.randint(3, 30))]),
            rng.choice(["", rng.choice(WORDS)]),
            {"group": rng.randrange(4), "tags": rng.sample(["red", "green", "blue"], 2), "level": rng.random()},
        )
        for number in range(count)
    ]


def make_collection(folder: Path, config: CollectionConfig, seed: int = 0) -> Path:
    """A collection with two generations, and writes of every kind on top of the newer one."""
    first, second, third = documents_of(seed, 30), documents_of(seed + 1, 34)[26:], documents_of(seed + 2, 38)[32:]
    build(folder, first, config)
    with Collection.open(folder, writable=True) as collection:
        collection.add(second)
        collection.patch("d3", {"group": 1})
        collection.compact()
        collection.add(third)
        collection.delete(["d4", "d33"])
        collection.patch("d5", {"group": 2, "level": None})
    return folder


def ask(folder: Path) -> Answers:
    """Everything that can be read: documents, single look-ups, every mode with and without filters, phrases."""
    filters = [None, {"type": "eq", "key": "group", "value": 1}, {"type": "in", "key": "_id", "value": ["d1", "d35"]}]
    with Collection.open(folder) as collection:
        answers: Answers = {
            "documents": sorted(map(_plain, collection.documents())),
            "count": len(collection),
            "look-ups": [_plain(collection.get(f"d{number}")) for number in range(40)],
            "like": [(hit.doc_id, hit.score) for hit in collection.search(like="d7", k=100).hits],
        }
        for mode in MODES:
            answers[mode] = [
                [(hit.doc_id, hit.score, hit.passage.text, dict(hit.metadata)) for hit in ranking.hits]
                for condition in filters
                for ranking in [collection.search("anchor w3 w5", k=100, mode=mode, filter=condition)]
            ]
        for name in collection.config.substring_fields():
            answers[name] = [
                answer(collection, phrase, field=name, limit=1000)
                for phrase in ("anchor", "anchor w3", "w3 w5", "w7")
                for answer in (grep, ngrams)
            ]
    return answers


def _plain(document: Document | None) -> tuple[str, ...]:
    return () if document is None else (document.id, document.title, document.text, json.dumps(document.metadata))


def compact(folder: Path) -> None:
    with Collection.open(folder, writable=True) as collection:
        collection.compact()


def problems_of(folder: Path) -> list[str]:
    """What verify reports, a refusal to open included."""
    try:
        return verify(folder)
    except GrapnelError as error:
        return [str(error)]


class Whole(NamedTuple):
    """An undamaged collection. before, after: its answers before and after a compaction. neighbour: another one."""

    folder: Path
    before: Answers
    after: Answers
    neighbour: Path

    def copy(self, parent: Path) -> Path:
        return Path(shutil.copytree(self.folder, parent / "collection"))

    def of_generation(self) -> list[Path]:
        """Return the files of the current generation's components, below the collection's folder."""
        name, _ = read_current(self.folder / SHARD) or ("", "")
        refs = json.loads((self.folder / SHARD / name).read_text())["components"].values()
        folders = [self.folder / SHARD / "components" / ref["id"] for ref in refs]
        return sorted(
            file.relative_to(self.folder) for folder in folders for file in folder.rglob("*") if file.is_file()
        )


@pytest.fixture(scope="module")
def config(hashing_config: Callable[..., CollectionConfig]) -> CollectionConfig:
    """A field of every kind that is built here, and of both forms of phrases."""
    fields = {"phrases": SubstringField(), "packed": SubstringField(mode="compact")}
    plain = hashing_config()
    return replace(plain, fields={**plain.fields, **fields})


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, config: CollectionConfig) -> Iterator[Whole]:
    parent = tmp_path_factory.mktemp("whole")
    folder = make_collection(parent / "collection", config)
    neighbour = make_collection(parent / "neighbour", config, seed=10)
    compacted = Path(shutil.copytree(folder, parent / "compacted"))
    compact(compacted)
    unharmed = ask(neighbour)
    yield Whole(folder, ask(folder), ask(compacted), neighbour)
    assert ask(neighbour) == unharmed


# -- damaged files ------------------------------------------------------------------------------------------------


def flip(file: Path, bit: int) -> None:
    raw = bytearray(file.read_bytes())
    raw[bit // 8] ^= 1 << bit % 8
    file.write_bytes(raw)


def flip_some_bit(file: Path, rng: random.Random) -> None:
    flip(file, rng.randrange(8 * file.stat().st_size))


def cut(file: Path, rng: random.Random) -> None:
    os.truncate(file, rng.randrange(file.stat().st_size))


def delete(file: Path, _: random.Random) -> None:
    file.unlink()


DAMAGES = {"flipped": flip_some_bit, "cut": cut, "deleted": delete}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_derived_files_are_refused_and_rebuilt(memory_path: Path, whole: Whole, damage: str) -> None:
    """Every file of the current components, of the vector store, and those that say which generation it is."""
    shard = whole.folder / SHARD
    current, _ = read_current(shard) or ("", "")
    files = [
        *whole.of_generation(),
        *(file.relative_to(whole.folder) for file in sorted(shard.rglob("vectors/*/*"))),
        Path(SHARD, current),
        Path(SHARD, "CURRENT"),
    ]
    assert len(files) > 45

    def break_and_repair(name: Path) -> None:
        folder = whole.copy(memory_path / f"{name.parent.name}-{name.name}")
        DAMAGES[damage](folder / name, random.Random(f"{damage} {name.name}"))
        with contextlib.suppress(GrapnelError):
            assert ask(folder) == whole.before, f"{name}: another answer"
        # A vector store shard without its manifest does not exist: its texts are encoded again, nothing is wrong.
        unlisted = damage == "deleted" and "vectors" in name.parts and name.suffix == ".json"
        assert bool(problems_of(folder)) != unlisted, f"{name}: verify does not report it"
        compact(folder)
        assert verify(folder) == [], f"{name}: not repaired"
        assert ask(folder) == whole.after, f"{name}: repaired to something else"
        shutil.rmtree(folder)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(break_and_repair, files))


def test_what_describes_a_component_is_not_told_when_it_is_damaged(tmp_path: Path, whole: Whole) -> None:
    """A name in it has another letter: a file of JSON all the same, whose checksum tells."""
    folder = whole.copy(tmp_path)
    (manifest,) = [name for name in whole.of_generation() if name.name == "component.json" and "packed" in str(name)]
    text = (folder / manifest).read_text(encoding="utf-8")
    (folder / manifest).write_text(text.replace("size_bytes", "size_cytes"), encoding="utf-8")
    said = refusal(1, "info", folder)
    assert said.startswith("field 'packed': ")
    assert "grapnel compact" in said


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_to_what_is_not_used_any_more_harms_nobody(tmp_path: Path, whole: Whole, damage: str) -> None:
    """The generation before the current one, its components, the lock file, SQLite's shared memory."""
    folder = whole.copy(tmp_path)
    used = {folder / name for name in whole.of_generation()}
    components = [file for file in (folder / SHARD).rglob("components/*/**/*") if file.is_file()]
    idle = [*(set(components) - used), folder / SHARD / "gen-000001.json", folder / SHARD / "lock"]
    for file in sorted(idle):
        if damage == "deleted" or file.stat().st_size:
            DAMAGES[damage](file, random.Random(file.name))
    assert len(idle) > 20
    assert ask(folder) == whole.before
    assert verify(folder) == []
    compact(folder)
    assert ask(folder) == whole.after
    compact(folder)
    assert verify(folder) == []


def test_a_damaged_collection_toml_is_refused_until_it_is_restored(tmp_path: Path, whole: Whole) -> None:
    """A flipped bit or a lost end is refused, or concerns a setting without effect here."""
    folder = whole.copy(tmp_path)
    file = folder / "collection.toml"
    raw = file.read_bytes()
    rng = random.Random(3)
    variants = [raw[: rng.randrange(len(raw))] for _ in range(25)]
    variants += [
        raw[: bit // 8] + bytes([raw[bit // 8] ^ 1 << bit % 8]) + raw[bit // 8 + 1 :]
        for bit in rng.sample(range(8 * len(raw)), 200)
    ]
    refused = 0
    for variant in variants:
        file.write_bytes(variant)
        try:
            assert ask(folder) == whole.before, variant
        except GrapnelError:
            refused += 1
            assert problems_of(folder) != [], variant
    assert refused > 150
    file.unlink()
    with pytest.raises(NotFoundError):
        Collection.open(folder)
    file.write_bytes(raw)
    assert ask(folder) == whole.before


def test_an_emptied_collection_toml_does_not_become_the_default_configuration(tmp_path: Path, whole: Whole) -> None:
    folder = whole.copy(tmp_path)
    (folder / "collection.toml").write_bytes(b"")
    with pytest.raises(GrapnelError):
        compact(folder)
    shutil.copy(whole.folder / "collection.toml", folder)
    assert ask(folder) == whole.before


# -- the truth ----------------------------------------------------------------------------------------------------


def index_pages(database: Path) -> set[int]:
    """Return the numbers of the pages that SQLite's own index over document ids occupies."""
    connection = sqlite3.connect(database)
    try:
        return {
            page
            for (page,) in connection.execute("SELECT pageno FROM dbstat WHERE name = 'sqlite_autoindex_documents_1'")
        }
    except sqlite3.OperationalError:
        pytest.skip("this SQLite has no dbstat table, which tells what a page is used for")
    finally:
        connection.close()


def settled_copy(whole: Whole, parent: Path) -> Path:
    """A copy whose documents.db holds everything, without a write-ahead log."""
    folder = whole.copy(parent)
    Collection.open(folder, writable=True).close()
    return folder


def test_flipped_bits_in_the_documents_are_refused_or_without_effect(memory_path: Path, whole: Whole) -> None:
    folder = settled_copy(whole, memory_path)
    database = folder / DATABASE
    raw = database.read_bytes()
    page_bytes = 4096
    pages = index_pages(database)
    rng = random.Random(4)
    texts = [match.start() for match in re.finditer(b"anchor", raw)]
    places = [(offset + rng.randrange(20), rng.randrange(8)) for offset in rng.sample(texts, 25)]
    places += [(rng.randrange(len(raw)), rng.randrange(8)) for _ in range(75)]
    refused = 0
    for offset, bit in places:
        flip(database, 8 * offset + bit)
        reported = bool(problems_of(folder))
        try:
            answers = ask(folder)
        except GrapnelError:
            refused += 1
            assert reported, f"byte {offset}, bit {bit}: refused, but verify finds nothing"
        else:
            if 1 + offset // page_bytes in pages:
                # No row is damaged, so searches are right; the index may miss an id, which verify tells.
                assert answers.pop("look-ups") == whole.before["look-ups"] or reported
                assert answers == {name: value for name, value in whole.before.items() if name != "look-ups"}
            else:
                assert answers == whole.before, f"byte {offset}, bit {bit}: another answer"
        for leftover in database.parent.glob("documents.db-*"):
            leftover.unlink()
        database.write_bytes(raw)
    assert refused > 30
    assert ask(folder) == whole.before


@pytest.mark.parametrize("offset_from_text", [0, 7, 15])
def test_a_damaged_text_stops_compaction_and_keeps_the_generation(
    tmp_path: Path, whole: Whole, offset_from_text: int
) -> None:
    """Compaction must not spread damage into new components; other documents can still be searched."""
    folder = settled_copy(whole, tmp_path)
    database = folder / DATABASE
    victim = next(document for document in documents_of(0, 30) if document.id == "d7")
    flip(database, 8 * (database.read_bytes().index(victim.text.encode()) + offset_from_text))
    generation = read_current(folder / SHARD)
    with pytest.raises(IndexFormatError, match="damaged"):
        compact(folder)
    assert read_current(folder / SHARD) == generation
    assert any("d7" in problem for problem in verify(folder))
    with Collection.open(folder) as collection:
        assert collection.get("d8") is not None
        with pytest.raises(IndexFormatError):
            collection.get("d7")
        others = collection.search("anchor", k=100, exclude=frozenset({"d7"})).hits
        assert len(others) == whole.before["count"] - 1
    with Collection.open(folder, writable=True) as collection:  # the remedy
        collection.delete(["d7"])
        collection.add([victim])
        collection.compact()
    assert verify(folder) == []


@pytest.mark.parametrize("size", [0, 100, 20_000])
def test_cut_documents_are_refused(tmp_path: Path, whole: Whole, size: int) -> None:
    folder = settled_copy(whole, tmp_path)
    os.truncate(folder / DATABASE, size)
    with pytest.raises(IndexFormatError):
        ask(folder)
    assert problems_of(folder) != []
    components = sorted(path.name for path in (folder / SHARD / "components").iterdir())
    with pytest.raises(IndexFormatError):
        compact(folder)
    assert sorted(path.name for path in (folder / SHARD / "components").iterdir()) == components


def test_missing_documents_are_not_taken_for_an_empty_collection(tmp_path: Path, whole: Whole) -> None:
    folder = settled_copy(whole, tmp_path)
    (folder / DATABASE).unlink()
    with pytest.raises(NotFoundError):
        ask(folder)
    with pytest.raises(GrapnelError):
        compact(folder)
    shutil.copy(settled_copy(whole, tmp_path / "restored") / DATABASE, folder / DATABASE)
    assert ask(folder) == whole.before


def test_documents_older_than_the_index_are_never_answered_wrongly(
    tmp_path: Path, whole: Whole, hashing_config: Callable[..., CollectionConfig]
) -> None:
    """documents.db was restored from a copy; the index has seen more. New rows must not meet old vectors."""
    folder = settled_copy(whole, tmp_path)
    older = (folder / DATABASE).read_bytes()
    with Collection.open(folder, writable=True) as collection:
        collection.add([Document(f"lost{number}", f"anchor w{number}") for number in range(5)])
        collection.compact()
    (folder / DATABASE).write_bytes(older)
    with pytest.raises(GrapnelError):
        ask(folder)
    new = [Document(f"new{number}", f"anchor zebra{number} v{number}", "", {"group": 1}) for number in range(5)]
    with Collection.open(folder, writable=True) as collection:
        with contextlib.suppress(GrapnelError):  # it may want to be compacted first
            collection.add(new)
        collection.compact()
        collection.add(new)
    compact(folder)
    fresh = tmp_path / "fresh"
    with Collection.open(folder) as restored:
        assert {f"new{number}" for number in range(5)} <= {document.id for document in restored.documents()}
        build(fresh, restored.documents(), hashing_config())
        with Collection.open(fresh) as expected:
            for mode in MODES:
                found = restored.search("anchor zebra3 v3", mode=mode, k=100).hits
                wanted = expected.search("anchor zebra3 v3", mode=mode, k=100).hits
                scores = {hit.doc_id: hit.score for hit in wanted}
                assert {hit.doc_id: hit.score for hit in found} == pytest.approx(scores, abs=1e-5), mode
    assert verify(folder) == []


def test_a_damaged_write_ahead_log_loses_no_more_than_its_tail(tmp_path: Path, whole: Whole) -> None:
    """A killed writer leaves one. SQLite drops what follows a damaged frame; what is left must be a whole state."""
    folder = settled_copy(whole, tmp_path)
    script = (
        "import os, sys\n"
        "from retrieval.collection import Collection\n"
        "from retrieval.types import Document\n"
        "collection = Collection.open(sys.argv[1], writable=True)\n"
        "for number in range(6):\n"
        "    collection.add([Document(f'late{number}', f'anchor w{number}', metadata={'group': 1})])\n"
        "os.kill(os.getpid(), 9)\n"
    )
    subprocess.run([sys.executable, "-c", script, str(folder)], check=False, timeout=60)
    log = folder / SHARD / "documents.db-wal"
    raw = {file: file.read_bytes() for file in (folder / SHARD).glob("documents.db*")}
    rng = random.Random(5)
    for _ in range(25):
        flip_some_bit(log, rng)
        (folder / SHARD / "documents.db-shm").unlink(missing_ok=True)
        try:
            answers = ask(folder)
        except GrapnelError:
            assert problems_of(folder) != []
        else:
            late = sorted(document[0] for document in answers["documents"] if document[0].startswith("late"))
            assert late == [f"late{number}" for number in range(len(late))]
            assert sorted(hit[0] for hit in answers["dense"][0]) == [document[0] for document in answers["documents"]]
        for file, content in raw.items():
            file.write_bytes(content)
    assert ask(folder)["count"] == whole.before["count"] + 6


# -- a failing disk -----------------------------------------------------------------------------------------------


def test_full_short_and_failing_writes_lose_nothing(memory_path: Path, whole: Whole, failing_disk: Path) -> None:
    """Each operation, with room for only so many bytes, with short writes, with fsync failing the n-th time.

    The child checks what must hold after each failure (fault_child.py, `Attempt`); here: that the failures happened.
    """
    scratch = memory_path / "scratch"
    scratch.mkdir()
    folder = whole.copy(memory_path)
    done = subprocess.run(
        [sys.executable, str(CHILD), "disk", str(folder), str(failing_disk)],
        env={**os.environ, "LD_PRELOAD": str(failing_disk), "TMPDIR": str(scratch), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    reports = [json.loads(line) for line in done.stdout.splitlines()]
    failed = {
        (report["operation"], report["kind"]): [error for error in report["errors"] if error] for report in reports
    }
    operations = ("add", "compact", "rebuild", "export", "create", "build", "open", "search")
    assert failed.keys() == {(operation, kind) for operation in operations for kind in ("full", "short", "sync")}
    for operation in operations:
        assert failed[operation, "short"] == [], "a short write is no error: the rest is written next"
        assert len(failed[operation, "full"]) >= (1 if operation == "open" else 4)
        assert all(re.search("space|full", error) for error in failed[operation, "full"])
        if operation != "open":
            assert failed[operation, "sync"]
            assert all(re.search("I/O error|Input/output", error) for error in failed[operation, "sync"])
    assert list(scratch.iterdir()) == [], "temporary files were left behind"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 3 MB, where this user may mount one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(folder)], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"may not mount a file system: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(disk: Path, left_bytes: int) -> Path:
    filler = disk / "filler"
    status = os.statvfs(disk)
    filler.write_bytes(bytes(max(0, status.f_bavail * status.f_frsize - left_bytes)))
    return filler


@pytest.mark.parametrize("left_bytes", [0, 30_000, 50_000])
def test_a_disk_that_is_really_full(small_disk: Path, whole: Whole, config: CollectionConfig, left_bytes: int) -> None:
    folder = whole.copy(small_disk)
    more = documents_of(20, 400)
    operations: dict[str, Callable[[Collection], object]] = {
        "add": lambda collection: collection.add(more),
        "compact": lambda collection: collection.compact(),
        "export": lambda collection: export_collection(collection, small_disk / "out.tar"),
        "build": lambda _: build(small_disk / "other", more, config),
    }
    with Collection.open(folder, writable=True) as collection:
        stored = {document.id for document in collection.documents()}
        for name, operation in operations.items():
            filler = fill(small_disk, left_bytes if name != "export" else min(left_bytes, 10_000))
            with pytest.raises(StorageError, match=r"space|full"):
                operation(collection)
            assert {document.id for document in collection.documents()} == stored, name
            assert {hit.doc_id for hit in collection.search("anchor", k=1000).hits} == stored, name
            filler.unlink()
        filler = fill(small_disk, 0)
        assert "No space left on device; free disk space" in refusal(1, "export", folder, small_disk / "out.tar")
        filler.unlink()
        collection.add(more)
        collection.compact()
        assert export_collection(collection, small_disk / "out.tar") == len(collection) == 400
        (small_disk / "out.tar").unlink()
    build(small_disk / "other", more, config, resume=(small_disk / "other").exists())
    assert verify(folder) == verify(small_disk / "other") == []


# -- read-only folders --------------------------------------------------------------------------------------------


@pytest.fixture
def open_place() -> Iterator[Path]:
    """A folder that other users can reach, unlike pytest's own."""
    with tempfile.TemporaryDirectory() as place:
        Path(place).chmod(0o755)
        yield Path(place)


def killed_while_writing(folder: Path, seed: int = 0) -> list[str]:
    """Leave an unfinished write-ahead log behind; return the ids that are stored."""
    environment = {**os.environ, "GRAPNEL_FAILPOINT": "store.after_commit:3"}
    done = subprocess.run(
        [sys.executable, str(WRITER), "write", str(folder), "--seed", str(seed)],
        env=environment,
        capture_output=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert (folder / SHARD / "documents.db-wal").stat().st_size > 0
    stored = Path(shutil.copytree(folder, folder.with_name(f"{folder.name}-copy")))
    with Collection.open(stored) as collection:
        return sorted(document.id for document in collection.documents())


def test_a_read_only_folder_is_searched_and_not_written(open_place: Path, whole: Whole) -> None:
    """By permissions, as a user without rights: with everything folded into documents.db, and after a kill."""
    settled = open_place / "settled"
    shutil.copytree(whole.folder, settled)
    Collection.open(settled, writable=True).close()
    killed = open_place / "killed"
    shutil.copytree(whole.folder, killed)
    expected = {settled: [row[0] for row in whole.before["documents"]], killed: killed_while_writing(killed)}
    for folder in expected:
        for path in [folder, *folder.rglob("*")]:
            path.chmod(path.stat().st_mode & ~0o222)
    scratch = open_place / "scratch"
    scratch.mkdir()
    scratch.chmod(0o777)
    done = subprocess.run(
        [sys.executable, str(CHILD), "unprivileged", *map(str, expected)],
        env={**os.environ, "TMPDIR": str(scratch)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    for line, ids in zip(done.stdout.splitlines(), expected.values(), strict=True):
        report = json.loads(line)
        assert report["found"] == dict.fromkeys(MODES, ids)
        assert report["phrases"] == [len(ids), len(ids)]
        assert report["problems"] == []
        kind, message = report["refused"]
        assert kind == "StorageError"
        assert "permissions" in message
    for folder in expected:
        for path in [folder, *folder.rglob("*")]:
            path.chmod(0o755)


def test_a_read_only_file_system_is_searched_and_not_written(tmp_path: Path, whole: Whole) -> None:
    folder = settled_copy(whole, tmp_path)
    for options in (["--bind", str(folder), str(folder)], ["-o", "remount,ro,bind", str(folder)]):
        mounted = subprocess.run(["mount", *options], capture_output=True, text=True, check=False)
        if mounted.returncode:
            subprocess.run(["umount", str(folder)], capture_output=True, check=False)
            pytest.skip(f"may not mount a file system: {mounted.stderr.strip()}")
    try:
        assert ask(folder) == whole.before
        assert verify(folder) == []
        with pytest.raises(StorageError, match="read-only"):
            Collection.open(folder, writable=True)
        with Collection.open(folder) as collection, pytest.raises(StorageError, match="read-only"):
            export_collection(collection, folder / "out.tar")
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


# -- other processes ----------------------------------------------------------------------------------------------


class Process:
    """A fault_child.py that talks in lines of JSON."""

    def __init__(self, *arguments: str | Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(CHILD), *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def read(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            _, stderr = self.process.communicate()
            pytest.fail(f"the child ended: {stderr}")
        return dict(json.loads(line))

    def ask(self, **request: Any) -> dict[str, Any]:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        return self.read()

    def __enter__(self) -> "Process":
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()


def test_a_second_writer_is_told_who_holds_the_collection(tmp_path: Path, whole: Whole) -> None:
    folder = whole.copy(tmp_path)
    with Process("hold", folder) as holder:
        pid = holder.read()["pid"]
        assert pid == holder.process.pid
        with pytest.raises(LockedError, match=rf'"pid": {pid}\b'):
            Collection.open(folder, writable=True)
        assert ask(folder) == whole.before
        assert str(pid) in refusal(3, "compact", folder)
        holder.process.send_signal(signal.SIGKILL)
        holder.process.wait()
        compact(folder)
    assert ask(folder) == whole.after


def test_a_reader_sees_each_acknowledged_write_of_another_process(memory_path: Path, whole: Whole) -> None:
    folder = whole.copy(memory_path)
    rng = random.Random(6)
    with Process("serve", folder) as writer, Collection.open(folder) as reader:
        stored = {document.id: document for document in reader.documents()}
        recent: list[str] = []
        for step in range(60):
            match rng.choice(["add", "add", "delete", "patch", "compact"]) if step else "compact":
                case "add":
                    documents = [
                        Document(f"d{rng.randrange(60)}", f"anchor w{rng.randrange(40)} step{step}", "", {"group": 9})
                        for _ in range(rng.randint(1, 4))
                    ]
                    values = [{"id": d.id, "text": d.text, "metadata": d.metadata} for d in documents]
                    writer.ask(op="add", documents=values)
                    stored |= {document.id: document for document in documents}
                    recent = [document.id for document in documents]
                case "delete":
                    doc_id = rng.choice(sorted(stored))
                    writer.ask(op="delete", ids=[doc_id])
                    del stored[doc_id]
                    recent = []
                case "patch":
                    old = stored[rng.choice(recent if recent and step % 2 else sorted(stored))]
                    writer.ask(op="patch", id=old.id, changes={"group": 8})
                    stored[old.id] = Document(old.id, old.text, old.title, {**old.metadata, "group": 8})
                case _:
                    writer.ask(op="compact")
            for mode in ("dense", "lexical"):
                hits = reader.search("anchor", k=1000, mode=mode).hits
                assert len(hits) == len(stored), f"step {step}, mode {mode}"
                assert {hit.doc_id: (hit.passage.text, hit.metadata) for hit in hits} == {
                    document.id: (document.text, document.metadata) for document in stored.values()
                }
            for group in {document.metadata["group"] for document in stored.values()} & {8, 9}:
                hits = reader.search("anchor", k=1000, filter={"type": "eq", "key": "group", "value": group}).hits
                wanted = {document.id for document in stored.values() if document.metadata["group"] == group}
                assert {hit.doc_id for hit in hits} == wanted, f"step {step}, group {group}"


class Versions:
    """Documents that writer threads change: version n of an id is written, or deleted where n is a multiple of 5."""

    def __init__(self, collection: Collection) -> None:
        self._collection = collection
        self.started: dict[str, int] = {}
        self.acknowledged: dict[str, int] = {}

    @staticmethod
    def document(doc_id: str, version: int) -> Document:
        words = f"anchor w{version % 40} w{version % 7}"
        return Document(doc_id, f"{words} v{version}", "", {"version": version})

    @staticmethod
    def absent(version: int) -> bool:
        return version % 5 == 0

    def write(self, doc_id: str, stop: threading.Event) -> None:
        version = 0
        while not stop.is_set():
            version += 1
            self.started[doc_id] = version
            if self.absent(version):
                self._collection.delete([doc_id])
            else:
                self._collection.add([self.document(doc_id, version)])
            self.acknowledged[doc_id] = version

    def read(self, reader: Collection, stop: threading.Event) -> int:
        searches = 0
        while not stop.is_set() or searches < 3:
            mode = MODES[searches % 3]
            before = dict(self.acknowledged)
            hits = reader.search("anchor", k=1000, mode=mode).hits
            after = dict(self.started)
            found = {hit.doc_id: int(hit.metadata["version"]) for hit in hits}
            assert len(found) == len(hits), "a document came twice"
            assert {f"lasting{number}" for number in range(20)} <= found.keys(), f"mode {mode} misses a document"
            assert all(hit.passage.text.endswith(f"v{found[hit.doc_id]}") for hit in hits)
            for doc_id, newest in after.items():
                possible = range(before.get(doc_id, 0), newest + 1)
                if doc_id in found:
                    assert found[doc_id] in possible, f"{doc_id} has version {found[doc_id]}, may have {possible}"
                else:
                    assert any(map(self.absent, possible)), f"{doc_id} is missing, may have {possible}"
            searches += 1
        return searches


def test_searches_are_right_while_twenty_compactions_and_writers_run(
    memory_path: Path, hashing_config: Callable[..., CollectionConfig]
) -> None:
    """Two writing threads, a compacting one, readers in this process, and one in another process."""
    folder = memory_path / "collection"
    lasting = [Versions.document(f"lasting{number}", 1) for number in range(20)]
    build(folder, lasting, hashing_config())
    stop = threading.Event()
    with (
        Collection.open(folder, writable=True) as collection,
        Collection.open(folder) as separate,
        Process("follow", folder) as follower,
        ThreadPoolExecutor(4) as pool,
    ):
        versions = Versions(collection)
        assert follower.read() == {"ready": True}
        try:
            writers = [pool.submit(versions.write, doc_id, stop) for doc_id in ("changing0", "changing1")]
            readers = [pool.submit(versions.read, reader, stop) for reader in (collection, separate)]
            for _ in range(20):
                collection.compact()
        finally:
            stop.set()
        for writer in writers:
            writer.result()
        for reader in readers:
            assert reader.result() >= 3
        stdout, stderr = follower.process.communicate(timeout=60)
        assert follower.process.returncode == 0, stderr
        report = json.loads(stdout)
        assert report["searches"] >= 3
        assert report["newest"] > 1
        assert min(versions.acknowledged.values()) > 5
    assert verify(folder) == []


# -- resuming -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("point", "finished"), [("vectors.append.replaced:3", 3), ("vectors.append.arrays:3", 2)])
def test_a_resumed_build_encodes_nothing_that_was_finished(tmp_path: Path, point: str, finished: int) -> None:
    """5,000 texts in pieces: the pieces that were stored before the kill are not encoded again."""
    folder = tmp_path / "collection"
    killed = subprocess.run(
        [sys.executable, str(WRITER), "build", str(folder), "--seed", "8", "--count", "5000"],
        env={**os.environ, "GRAPNEL_FAILPOINT": point},
        capture_output=True,
        check=False,
        timeout=60,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    child = runpy.run_path(str(WRITER))
    documents = [Document(**value) for value in child["first_documents"](8, 5000)]
    texts = {f"{document.title} {document.text}" for document in {d.id: d for d in documents}.values()}
    (store,) = (folder / SHARD / "vectors").iterdir()
    stored = len(VectorStore(store, 64))
    assert stored == finished * PIECE
    _, report = build(folder, documents, child["config_of"](64), resume=True)
    assert report.encoded["dense"].encoded == len(texts) - stored
    assert report.encoded["dense"].reused == stored
    assert verify(folder) == []
