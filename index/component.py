"""Immutable, checksummed folders: the unit of everything derived that lives on disk.

    <folder>/component.json     {"format", "kind", "config", "counts", "files": {name: {"size_bytes", "sha256"}}}
    <folder>/...                the files it lists, nothing else

The manifest's own SHA-256 is recorded by whoever refers to the component (a generation), so a flipped bit anywhere is
found. See docs/index-format.md.
"""

import hashlib
import json
import stat
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from index.durable import publish_folder, storage_errors
from index.errors import IndexFormatError

FORMAT = 1
MANIFEST = "component.json"
_READ_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Component:
    """A published component: where it is and what its manifest says.

    config: what decided its bytes. counts: sizes for people (rows, dim, tokens ...). sha256: of the manifest.
    """

    folder: Path
    kind: str
    config: Mapping[str, Any]
    counts: Mapping[str, int]
    size_bytes: int
    sha256: str


def sha256_file(path: Path) -> str:
    """Hex SHA-256 of a file's content."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_READ_BYTES):
            digest.update(block)
    return digest.hexdigest()


def _files_below(folder: Path) -> list[str]:
    return sorted(
        str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file() and path.name != MANIFEST
    )


def write_component(
    folder: Path, kind: str, config: Mapping[str, Any], fill: Callable[[Path], Mapping[str, int]]
) -> Component:
    """Create a component: `fill(temporary folder)` writes its files and returns counts; publish it atomically.

    Raises StorageError when the file system refuses; nothing is left behind then.
    Cost: one extra read of all files for the checksums.
    """

    def fill_and_seal(temporary: Path) -> None:
        counts = fill(temporary)
        files = {
            name: {"size_bytes": (temporary / name).stat().st_size, "sha256": sha256_file(temporary / name)}
            for name in _files_below(temporary)
        }
        manifest = {"format": FORMAT, "kind": kind, "config": dict(config), "counts": dict(counts), "files": files}
        text = json.dumps(manifest, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False)
        (temporary / MANIFEST).write_text(text + "\n", encoding="utf-8")
        # What the umask says: some engines make files for their own user alone, and others must be able to search.
        mode = stat.S_IMODE((temporary / MANIFEST).stat().st_mode)
        for name in files:
            (temporary / name).chmod(mode)

    publish_folder(folder, fill_and_seal, point=f"component.{kind}")
    return open_component(folder, verify=False)


def open_component(
    folder: Path, *, sha256: str | None = None, kind: str | None = None, verify: bool = True
) -> Component:
    """Read and check a component's manifest; with `verify`, every byte of every file.

    sha256, kind: what the manifest must be, where the caller knows.
    Raises IndexFormatError naming the file, what was found and what was expected.
    Cost: reads all files when verifying, about 1 GB/s a thread.
    """
    path = folder / MANIFEST
    with storage_errors("read", path):
        if not path.is_file():
            raise IndexFormatError(f"component {folder} has no {MANIFEST}: it is missing or incomplete; rebuild it")
        raw = path.read_bytes()
    found = hashlib.sha256(raw).hexdigest()
    if sha256 is not None and found != sha256:
        raise IndexFormatError(f"{path} has SHA-256 {found}, its generation expects {sha256}: damaged; rebuild it")
    manifest = _parse_manifest(path, raw)
    if kind is not None and manifest["kind"] != kind:
        raise IndexFormatError(f"{path} is of kind {manifest['kind']!r}, expected {kind!r}")
    files: dict[str, dict[str, Any]] = manifest["files"]
    if verify:
        _verify_files(folder, files)
    size_bytes = len(raw) + sum(entry["size_bytes"] for entry in files.values())
    return Component(folder, manifest["kind"], manifest["config"], manifest["counts"], size_bytes, found)


def _parse_manifest(path: Path, raw: bytes) -> dict[str, Any]:
    try:
        manifest = json.loads(raw)
    except ValueError as error:
        raise IndexFormatError(f"{path} is not JSON ({error}): damaged; rebuild it") from error
    if not isinstance(manifest, dict) or not {"format", "kind", "config", "counts", "files"} <= manifest.keys():
        raise IndexFormatError(f"{path} is not a component manifest: damaged; rebuild it")
    if manifest["format"] != FORMAT:
        raise IndexFormatError(
            f"{path} has component format {manifest['format']}, this grapnel reads {FORMAT}: "
            "rebuild the collection, or open it with the release that wrote it"
        )
    return manifest


def _verify_files(folder: Path, files: Mapping[str, Mapping[str, Any]]) -> None:
    extra = set(_files_below(folder)) - files.keys()
    if extra:
        raise IndexFormatError(
            f"component {folder} holds files its manifest does not list: {sorted(extra)}; rebuild it"
        )

    def check(name: str) -> None:
        path, entry = folder / name, files[name]
        with storage_errors("read", path):
            if not path.is_file():
                raise IndexFormatError(f"{path} is missing: rebuild the component")
            size_bytes = path.stat().st_size
            if size_bytes != entry["size_bytes"]:
                raise IndexFormatError(
                    f"{path} has {size_bytes} bytes, expected {entry['size_bytes']}: damaged; rebuild it"
                )
            found = sha256_file(path)
        if found != entry["sha256"]:
            raise IndexFormatError(f"{path} has SHA-256 {found}, expected {entry['sha256']}: damaged; rebuild it")

    with ThreadPoolExecutor(max_workers=2) as pool:
        list(pool.map(check, sorted(files)))
