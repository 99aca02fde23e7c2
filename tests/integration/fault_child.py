"""Children of test_collection_faults.py: processes that hold, follow, write or break a collection.

fault_child.py hold FOLDER              open it for writing and wait
fault_child.py serve FOLDER             do what the lines of JSON on stdin ask for, acknowledging each
fault_child.py follow FOLDER            search without end until stdin closes; say what was seen
fault_child.py unprivileged FOLDER ...  use read-only collections as another user
fault_child.py disk FOLDER SHIM         work while the library SHIM makes the disk fail
"""

import ctypes
import json
import os
import random
import shutil
import sys
import tempfile
import threading
from collections.abc import Callable
from contextlib import closing
from itertools import pairwise
from pathlib import Path
from typing import Any

from index.errors import GrapnelError, StorageError
from retrieval.archive import export_collection, import_collection
from retrieval.collection import SHARD, Collection, build
from retrieval.collection_config import read_collection_config
from retrieval.phrases.grep import grep
from retrieval.store import DocumentStore
from retrieval.types import Document
from retrieval.verify import verify

NOBODY = 65534


def say(**message: Any) -> None:
    print(json.dumps(message), flush=True)


def hold(folder: Path) -> None:
    with Collection.open(folder, writable=True):
        say(pid=os.getpid())
        sys.stdin.read()


def serve(folder: Path) -> None:
    with Collection.open(folder, writable=True) as collection:
        for line in sys.stdin:
            request = json.loads(line)
            match request["op"]:
                case "add":
                    collection.add(Document(**value) for value in request["documents"])
                case "delete":
                    collection.delete(request["ids"])
                case "patch":
                    collection.patch(request["id"], request["changes"])
                case "compact":
                    collection.compact()
            say(done=request["op"])


def follow(folder: Path) -> None:
    """Each search must show every lasting document once, and no version older than one seen before."""
    stop = threading.Event()

    def wait_for_the_end() -> None:
        sys.stdin.read()
        stop.set()

    threading.Thread(target=wait_for_the_end, daemon=True).start()
    searches = 0
    newest: dict[str, int] = {}
    with Collection.open(folder) as collection:
        while not stop.is_set():
            mode = ("dense", "lexical", "hybrid")[searches % 3]
            seen = {}
            for hit in collection.search("anchor", k=1000, mode=mode).hits:
                assert hit.doc_id not in seen, f"{hit.doc_id} came twice in mode {mode}"
                assert hit.passage.text.split()[-1] == f"v{hit.metadata['version']}", "text and metadata disagree"
                seen[hit.doc_id] = int(hit.metadata["version"])
            missing = {f"lasting{number}" for number in range(20)} - seen.keys()
            assert not missing, f"{sorted(missing)} missing in mode {mode}"
            for doc_id, version in seen.items():
                assert version >= newest.get(doc_id, 0), f"{doc_id} went back from {newest[doc_id]} to {version}"
            newest |= seen
            searches += 1
            if searches == 1:
                say(ready=True)
    say(searches=searches, newest=max(newest.values()))


def phrases(collection: Collection) -> list[int]:
    """Return per substring field how many documents have a phrase that is in all of them, fresh ones included."""
    counts = []
    for name in collection.config.substring_fields():
        found = grep(collection, "anchor", field=name, limit=1000)
        assert len({match.doc_id for match in found.matches}) == len(found.matches) == found.documents
        fresh = [int(note.split("=")[1].split(":")[0]) for note in found.notes if note.startswith("fresh_not_covered")]
        counts.append(found.documents + sum(fresh))
    return counts


def unprivileged(*folders: Path) -> None:
    """Say per folder: what searches find, whether it verifies clean, and how writing fails."""
    with Collection.open(folders[0]) as collection:
        phrases(collection)
        collection.search("anchor")  # everything that is imported when first used, while it can still be read
    verify(folders[0])
    if os.getuid() == 0:
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)
    for folder in folders:
        with Collection.open(folder) as collection:
            found = {
                mode: sorted(hit.doc_id for hit in collection.search("anchor", k=1000, mode=mode).hits)
                for mode in ("dense", "lexical", "hybrid")
            }
            covered = phrases(collection)
        try:
            Collection.open(folder, writable=True).close()
            refused = None
        except GrapnelError as error:
            refused = [type(error).__name__, str(error)]
        say(found=found, phrases=covered, problems=verify(folder), refused=refused)


# -- a failing disk -----------------------------------------------------------------------------------------------


class Disk:
    """The preloaded library. Kinds: "full" after n bytes, "short" writes of n bytes at most, "sync" fails after n."""

    KINDS = ("off", "full", "short", "sync")

    def __init__(self, library: Path) -> None:
        self._library = ctypes.CDLL(str(library))
        self._library.fault_spent.restype = ctypes.c_long

    def arm(self, folder: Path, kind: str, count: int) -> None:
        self._library.fault_arm(str(folder).encode(), self.KINDS.index(kind), ctypes.c_long(count))

    def disarm(self) -> int:
        """Stop failing; return how much was used: bytes written, or calls of fsync."""
        self._library.fault_arm(b"/", 0, ctypes.c_long(0))
        return int(self._library.fault_spent())


def documents_of(folder: Path) -> dict[str, Document]:
    with Collection.open(folder) as collection:
        return {document.id: document for document in collection.documents()}


def extra_documents(count: int = 60) -> list[Document]:
    rng = random.Random(9)
    texts = (" ".join(["anchor", *(f"w{rng.randrange(40)}" for _ in range(12))]) for _ in range(count))
    return [Document(f"x{number}", text, metadata={"group": number % 5}) for number, text in enumerate(texts)]


def searchable(folder: Path, wanted: set[str]) -> None:
    with Collection.open(folder) as collection:
        for mode in ("dense", "lexical"):
            found = [hit.doc_id for hit in collection.search("anchor", k=1000, mode=mode).hits]
            assert sorted(found) == sorted(wanted), f"mode {mode} finds {len(found)} of {len(wanted)}"
        assert set(phrases(collection)) == {len(wanted)}
    assert verify(folder) == [], verify(folder)


class Attempt:
    """One operation on a copy of a collection while the disk fails, and everything that must hold afterwards."""

    def __init__(self, disk: Disk, folder: Path) -> None:
        self._disk = disk
        self._template = folder
        self._parent = folder.parent / "attempts"
        self._parent.mkdir(exist_ok=True)
        self._number = 0

    def __call__(self, operation: str, kind: str, count: int) -> tuple[str | None, int]:
        """Return the error message, None when the disk held out, and how much of the disk was used."""
        self._number += 1
        folder = self._parent / str(self._number)
        shutil.copytree(self._template, folder)
        before = documents_of(folder)
        error, spent = getattr(self, operation)(folder, before, kind, count)
        shutil.rmtree(folder)
        return error, spent

    def _failing(self, folder: Path, kind: str, count: int, action: Callable[[], object]) -> tuple[str | None, int]:
        error = None
        self._disk.arm(folder, kind, count)
        try:
            action()
        except StorageError as caught:
            error = str(caught)
        finally:
            spent = self._disk.disarm()
        return error, spent

    def add(self, folder: Path, before: dict[str, Document], kind: str, count: int) -> tuple[str | None, int]:
        """Refused or not, the batch is there as a whole or not at all, and works when repeated."""
        new = extra_documents()
        after = before | {document.id: document for document in new}
        with Collection.open(folder, writable=True) as collection:
            error, spent = self._failing(folder, kind, count, lambda: collection.add(new))
            stored = {document.id: document for document in collection.documents()}
            assert stored in ([before, after] if error else [after]), "a batch was written in part"
            collection.add(new)
            assert {document.id: document for document in collection.documents()} == after
            found = collection.search("anchor", k=1000, mode="lexical").hits
            assert sorted(hit.doc_id for hit in found) == sorted(after)
        searchable(folder, set(after))
        return error, spent

    def compact(self, folder: Path, before: dict[str, Document], kind: str, count: int) -> tuple[str | None, int]:
        """Searches go on while compaction fails; it works when repeated and leaves nothing behind."""
        with Collection.open(folder, writable=True) as collection:
            error, spent = self._failing(folder, kind, count, collection.compact)
            searchable(folder, set(before))
            found = collection.search("anchor", k=1000, mode="hybrid").hits
            assert sorted(hit.doc_id for hit in found) == sorted(before)
            collection.compact()
        assert documents_of(folder) == before
        searchable(folder, set(before))
        assert not list(folder.rglob(".*")), "temporary files were left behind"
        return error, spent

    def rebuild(self, folder: Path, before: dict[str, Document], kind: str, count: int) -> tuple[str | None, int]:
        """As `compact`, where the fields of phrases are all there is to do: whatever fails, fails there."""
        with Collection.open(folder, writable=True) as collection:
            collection.compact()
            for file in folder.glob(f"{SHARD}/components/substring-*/0000/firsts.npy"):
                file.unlink()
            error, spent = self._failing(folder, kind, count, collection.compact)
            damaged = bool(verify(folder))
            assert error or not damaged
            report = collection.compact()
            assert set(report.built) == (set(collection.config.substring_fields()) if damaged else set())
        searchable(folder, set(before))
        assert not list(folder.rglob(".*")), "temporary files were left behind"
        return error, spent

    def export(self, folder: Path, before: dict[str, Document], kind: str, count: int) -> tuple[str | None, int]:
        """A file that could not be written whole is not there at all."""
        target = folder / "out.tar"
        with Collection.open(folder) as collection:
            error, spent = self._failing(folder, kind, count, lambda: export_collection(collection, target))
            assert target.exists() or error is not None
            if target.exists() and error is not None:  # it came after the rename, from making that durable
                assert import_collection(target, folder / "again") == len(before)
                shutil.rmtree(folder / "again")
            target.unlink(missing_ok=True)
            assert export_collection(collection, target) == len(before)
        assert not list(folder.rglob(".out.tar*")), "a temporary file was left behind"
        return error, spent

    def build(self, folder: Path, before: dict[str, Document], kind: str, count: int) -> tuple[str | None, int]:
        """A build that failed is resumed."""
        config = read_collection_config(folder / "collection.toml")
        shutil.rmtree(folder)
        folder.mkdir()
        error, spent = self._failing(folder, kind, count, lambda: build(folder, before.values(), config))
        if error is not None:
            assert not (folder / SHARD / "CURRENT").exists(), "a build that failed was published"
            build(folder, before.values(), config, resume=True)
        assert documents_of(folder) == before
        searchable(folder, set(before))
        return error, spent

    def create(self, folder: Path, before: dict[str, Document], kind: str, count: int) -> tuple[str | None, int]:
        """What could not be created is created when that is repeated."""
        del before
        path = folder / "new.db"
        error, spent = self._failing(folder, kind, count, lambda: DocumentStore(path, writable=True).close())
        assert error or path.exists()
        with closing(DocumentStore(path, writable=True)) as store, store.snapshot() as snapshot:
            assert (snapshot.integrity(), snapshot.document_count()) == ("ok", 0)
        return error, spent

    def open(self, folder: Path, before: dict[str, Document], kind: str, count: int) -> tuple[str | None, int]:
        """Opening for writing may be refused; reading works all the same."""
        opened = []
        error, spent = self._failing(folder, kind, count, lambda: opened.append(Collection.open(folder, writable=True)))
        for collection in opened:
            collection.close()
        searchable(folder, set(before))
        Collection.open(folder, writable=True).close()
        return error, spent

    def search(self, folder: Path, before: dict[str, Document], kind: str, count: int) -> tuple[str | None, int]:
        """What a search writes goes to the temporary folder: without room there it is refused, later answered."""
        scratch = Path(tempfile.gettempdir())
        with Collection.open(folder) as collection:
            error, spent = self._failing(scratch, kind, count, lambda: collection.search("anchor"))
            found = collection.search("anchor", k=1000, mode="lexical").hits
            assert sorted(hit.doc_id for hit in found) == sorted(before)
        return error, spent


def disk(folder: Path, library: Path) -> None:
    """Say, per operation and kind of failure, which errors were seen."""
    attempt = Attempt(Disk(library), folder)
    rng = random.Random(1)
    for operation in ("add", "compact", "rebuild", "export", "create", "build", "open", "search"):
        for kind, trials in (("full", 20 if operation == "create" else 6), ("sync", 4)):
            error, whole = attempt(operation, kind, 1 << 40)
            assert error is None, f"{operation} failed on a disk with room: {error}"
            # One in each equal part: the last writes move SQLite's log into its file, and may fail without harm.
            parts = pairwise(whole * part // (trials - 1) for part in range(trials))
            counts = sorted({0, *(rng.randrange(*part) for part in parts if part[0] < part[1])}) if whole else []
            errors = [attempt(operation, kind, count)[0] for count in counts]
            say(operation=operation, kind=kind, whole=whole, counts=counts, errors=errors)
        error, _ = attempt(operation, "short", 700)
        say(operation=operation, kind="short", errors=[error])


def main() -> None:
    command, *folders = sys.argv[1:]
    commands: dict[str, Callable[..., None]] = {
        "hold": hold,
        "serve": serve,
        "follow": follow,
        "unprivileged": unprivileged,
        "disk": disk,
    }
    commands[command](*map(Path, folders))


if __name__ == "__main__":
    main()
