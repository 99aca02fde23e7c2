"""Generations: which components make up a shard's searchable base, published atomically.

    gen-000042.json   operation it covers, counts, versions, components by field: {id, sha256, kind, inputs}
    CURRENT           "gen-000042.json <sha256 of that file>"

Publishing order: components (fsynced), gen-N.json (fsynced), CURRENT (replaced, folder fsynced). A reader holds a
shared lock on its generation's file; what no kept or locked generation names is removed.
"""

import fcntl
import hashlib
import json
import os
import platform
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from index.component import Component, open_component
from index.durable import failpoint, fsync_folder, write_atomic, write_json_atomic
from index.errors import IndexFormatError

FORMAT = 1
CURRENT = "CURRENT"
COMPONENTS = "components"
KEEP = 2
"""Generations kept: the current one, and the one before it for readers and for a step back."""


@dataclass(frozen=True, slots=True)
class ComponentRef:
    """How a generation names a component. inputs: digest of everything that decided its bytes."""

    id: str
    kind: str
    sha256: str
    inputs: str


@dataclass(frozen=True, slots=True)
class Generation:
    """What a gen-N.json says. op: last operation its components cover."""

    number: int
    op: int
    documents: int
    passages: int
    components: Mapping[str, ComponentRef]

    @property
    def name(self) -> str:
        """File name of this generation."""
        return generation_name(self.number)


def generation_name(number: int) -> str:
    """Return the file name of generation `number`."""
    return f"gen-{number:06d}.json"


def generation_numbers(folder: Path) -> list[int]:
    """Return the numbers of the generation files in a shard folder, ascending."""
    return sorted(int(path.stem[4:]) for path in folder.glob("gen-*.json") if path.stem[4:].isdigit())


def read_current(folder: Path) -> tuple[str, str] | None:
    """Return (file name, sha256) from CURRENT, or None when nothing was published yet."""
    path = folder / CURRENT
    try:
        words = path.read_text(encoding="utf-8").split()
    except FileNotFoundError:
        return None
    except UnicodeDecodeError as error:
        raise _damaged(path, "is not text") from error
    if len(words) != 2:
        raise _damaged(path, f"says {' '.join(words)[:80]!r}, expected a file name and its SHA-256")
    return words[0], words[1]


def _damaged(path: Path, what: str) -> IndexFormatError:
    return IndexFormatError(f"{path} {what}: damaged; run `grapnel compact`, which rebuilds it from the documents")


def read_generation(folder: Path, name: str, sha256: str) -> Generation:
    """Read and check a generation file.

    Raises IndexFormatError when it is missing, is not what CURRENT expects, or has another format version.
    """
    path = folder / name
    try:
        raw = path.read_bytes()
    except (FileNotFoundError, ValueError, IsADirectoryError) as error:
        raise _damaged(folder / CURRENT, f"names {name!r}, which does not exist") from error
    found = hashlib.sha256(raw).hexdigest()
    if found != sha256:
        raise _damaged(path, f"has SHA-256 {found}, CURRENT expects {sha256}")
    value = json.loads(raw)
    if value["format"] != FORMAT:
        raise IndexFormatError(
            f"{path} has generation format {value['format']}, this grapnel reads {FORMAT}: "
            "open it with the release that wrote it, or rebuild it with `grapnel compact`"
        )
    return _parse(raw)


def publish(folder: Path, generation: Generation) -> None:
    """Make `generation` the current one, durably."""
    value: dict[str, Any] = {
        "format": FORMAT,
        "generation": generation.number,
        "op": generation.op,
        "documents": generation.documents,
        "passages": generation.passages,
        "components": {field: asdict(ref) for field, ref in generation.components.items()},
        "versions": _versions(),
    }
    path = folder / generation.name
    write_json_atomic(path, value, point="generation")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    write_atomic(folder / CURRENT, f"{generation.name} {digest}\n".encode(), point="current")


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for package in ("grapnel", "numpy", "sentence-transformers", "tantivy", "torch"):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return versions


def open_ref(folder: Path, field: str, ref: ComponentRef, *, verify: bool = True) -> Component:
    """Open the component that a generation names for `field`, checked. Raises IndexFormatError."""
    try:
        return open_component(folder / COMPONENTS / ref.id, sha256=ref.sha256, kind=ref.kind, verify=verify)
    except IndexFormatError as error:
        raise IndexFormatError(
            f"field {field!r}: {error}; `grapnel compact` rebuilds damaged components from the documents"
        ) from error


def hold(folder: Path, generation: Generation) -> int:
    """Take a shared lock on a generation's file and return the descriptor; closing it lets go."""
    descriptor = os.open(folder / generation.name, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_SH)
    return descriptor


def collect_garbage(folder: Path) -> list[Generation]:
    """Remove old generations that nobody holds and components that no generation names; return those kept.

    A damaged old generation can serve nobody and goes too. Only the writer calls this, and never while a component is
    being written.
    """
    numbers = generation_numbers(folder)
    kept = [generation for number in numbers if (generation := _keepable(folder, number, numbers[-KEEP:])) is not None]
    failpoint("garbage.generations")
    named = {ref.id for generation in kept for ref in generation.components.values()}
    for component in (folder / COMPONENTS).iterdir():
        if component.name not in named:
            shutil.rmtree(component)
            failpoint("garbage.component")
    for leftover in folder.glob(".*.tmp"):  # of a writer that was killed inside write_atomic; this one writes none now
        leftover.unlink()
    fsync_folder(folder)
    return kept


def _keepable(folder: Path, number: int, newest: list[int]) -> Generation | None:
    """Return an old generation that must stay; remove its file and return None otherwise."""
    path = folder / generation_name(number)
    try:
        generation = _parse(path.read_bytes())
    except (ValueError, KeyError, TypeError, AttributeError):
        path.unlink()
        return None
    if number in newest:
        return generation
    descriptor = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        path.unlink()
    except BlockingIOError:
        return generation
    finally:
        os.close(descriptor)
    return None


def _parse(raw: bytes) -> Generation:
    value = json.loads(raw)
    components = {field: ComponentRef(**ref) for field, ref in value["components"].items()}
    return Generation(value["generation"], value["op"], value["documents"], value["passages"], components)
