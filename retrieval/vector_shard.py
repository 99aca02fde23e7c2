"""One shard of the vector store on disk: immutable, checksummed, published by its manifest.

    NNNNNN.keys.npy      uint64 (n, 2), Fortran order: 16-byte keys as two little-endian integers, sorted, unique
    NNNNNN.vectors.npy   float32 (n, D), in the order of the keys
    NNNNNN.json          {"format", "count", "dim", "files": {"keys" | "vectors": {"size_bytes", "sha256"}}}

The manifest is written last: without it a shard does not exist, with it sizes and checksums are known.
"""

import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from index.component import sha256_file
from index.durable import failpoint, fsync_folder, storage_errors, write_json_atomic
from index.errors import IndexFormatError
from index.types import Rows, Vectors

FORMAT = 1

Keys = npt.NDArray[np.uint64]
"""uint64 (N, 2): 16-byte text keys as two little-endian integers."""

Identity = tuple[int, int]
"""Inode and modification time of a manifest: a name that was removed and written again is another shard."""


class NewerFormatError(IndexFormatError):
    """The shard was written by a later release: unreadable here, and not ours to remove."""


@dataclass(frozen=True, slots=True)
class Shard:
    """An open shard. Its arrays are memory-mapped and stay readable after the files are removed."""

    name: str
    identity: Identity
    keys: Keys
    vectors: Vectors

    def find(self, wanted: Keys) -> Rows:
        """Return the row of each wanted key, -1 where absent; see `find_keys`."""
        return find_keys(self.keys, wanted)


def sort_keys(keys: Keys) -> npt.NDArray[np.int64]:
    """Return the positions that sort keys uint64 (N, 2) by both columns, the first of equal ones only."""
    order = np.lexsort((keys[:, 1], keys[:, 0]))
    ordered = keys[order]
    first = np.ones(len(order), dtype=np.bool_)
    first[1:] = (ordered[1:] != ordered[:-1]).any(axis=1)
    return order[first]


def find_keys(keys: Keys, wanted: Keys) -> Rows:
    """Return where each wanted key stands in sorted unique keys, int64 (len(wanted),), -1 where it does not.

    Cost: one binary search each; fastest when the columns of `keys` are contiguous and `wanted` is sorted.
    """
    rows = np.searchsorted(keys[:, 0], wanted[:, 0]).astype(np.int64)
    found = np.full(len(wanted), -1, dtype=np.int64)
    pending = np.arange(len(wanted))
    while True:  # once, unless two keys share their first 8 bytes
        pending = pending[rows[pending] < len(keys)]
        pending = pending[keys[rows[pending], 0] == wanted[pending, 0]]
        if not len(pending):
            return found
        same = keys[rows[pending], 1] == wanted[pending, 1]
        found[pending[same]] = rows[pending[same]]
        pending = pending[~same]
        rows[pending] += 1


def paths(folder: Path, name: str) -> dict[str, Path]:
    """Return the paths of a shard's files: manifest, keys, vectors."""
    return {
        "manifest": folder / f"{name}.json",
        "keys": folder / f"{name}.keys.npy",
        "vectors": folder / f"{name}.vectors.npy",
    }


def identity(folder: Path, name: str) -> Identity | None:
    """Return the identity of a published shard, None where there is none."""
    try:
        status = paths(folder, name)["manifest"].stat()
    except FileNotFoundError:
        return None
    return status.st_ino, status.st_mtime_ns


def write_shard(folder: Path, name: str, keys: Keys, blocks: Iterable[Vectors], dim: int) -> None:
    """Write and publish a shard, durably. keys: sorted and unique. blocks: their vectors, float32 (any, D).

    Passes the failpoints vectors.append.keys, .arrays, .written and .replaced.
    Raises StorageError when the file system refuses; nothing is left behind then.
    """
    files = paths(folder, name)
    with storage_errors("write", files["manifest"]):
        try:
            _write_array(files["keys"], "<u8", keys.shape, (keys[:, 0], keys[:, 1]), fortran_order=True)
            failpoint("vectors.append.keys")
            _write_array(files["vectors"], "<f4", (len(keys), dim), blocks, fortran_order=False)
            fsync_folder(folder)
            failpoint("vectors.append.arrays")
            manifest = {
                "format": FORMAT,
                "count": len(keys),
                "dim": dim,
                "files": {kind: _seal(files[kind]) for kind in ("keys", "vectors")},
            }
            write_json_atomic(files["manifest"], manifest, point="vectors.append")
        except BaseException:
            remove_shard(folder, name)
            raise


def _write_array(
    path: Path, dtype: str, shape: tuple[int, ...], blocks: Iterable[npt.NDArray[Any]], *, fortran_order: bool
) -> None:
    # Through write(), not a memory map: a full disk is then an error, not a SIGBUS.
    with path.open("wb") as file:
        header = {"descr": dtype, "fortran_order": fortran_order, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        for block in blocks:
            file.write(block.astype(dtype, copy=False).tobytes())
        file.flush()
        os.fsync(file.fileno())


def _seal(path: Path) -> dict[str, Any]:
    return {"size_bytes": path.stat().st_size, "sha256": sha256_file(path)}


def remove_shard(folder: Path, name: str) -> None:
    """Remove a shard: manifest first, so that a crash leaves orphans and never a shard with missing files."""
    files = paths(folder, name)
    with storage_errors("remove", files["manifest"]):
        if files["manifest"].exists():
            files["manifest"].unlink()
            fsync_folder(folder)
            failpoint("vectors.remove.unlisted")
        files["keys"].unlink(missing_ok=True)
        files["vectors"].unlink(missing_ok=True)


def open_shard(folder: Path, name: str, dim: int, *, verify: bool) -> Shard:
    """Open a published shard, memory-mapped; with `verify`, compare the SHA-256 of every byte.

    Raises IndexFormatError naming the file, what was found and what was expected.
    Cost: about 1 GB/s when verifying.
    """
    files = paths(folder, name)
    found = identity(folder, name)
    manifest = _read_manifest(files["manifest"])
    if found is None or manifest["dim"] != dim:
        raise IndexFormatError(f"{files['manifest']} says dim {manifest['dim']}, expected {dim}: damaged")
    for kind in ("keys", "vectors"):
        _check_file(files[kind], manifest["files"][kind], verify=verify)
    keys = _map(files["keys"], (manifest["count"], 2), np.dtype("<u8"))
    vectors = _map(files["vectors"], (manifest["count"], dim), np.dtype("<f4"))
    return Shard(name, found, keys, vectors)


def _read_manifest(path: Path) -> dict[str, Any]:
    try:
        with storage_errors("read", path):
            raw = path.read_bytes() if path.exists() else b""
        manifest = json.loads(raw)
        seals = [manifest["files"][kind] for kind in ("keys", "vectors")]
        numbers = [manifest["format"], manifest["count"], manifest["dim"], *(seal["size_bytes"] for seal in seals)]
        whole = all(type(number) is int for number in numbers) and all(isinstance(s["sha256"], str) for s in seals)
    except (ValueError, KeyError, TypeError) as error:
        raise IndexFormatError(f"{path} is no manifest of a vector shard ({error}): damaged") from error
    if not whole:
        raise IndexFormatError(f"{path} is no manifest of a vector shard: damaged")
    if manifest["format"] != FORMAT:
        raise NewerFormatError(f"{path} has format {manifest['format']}, this grapnel reads {FORMAT}: update grapnel")
    return dict(manifest)


def _check_file(path: Path, seal: dict[str, Any], *, verify: bool) -> None:
    with storage_errors("read", path):
        if not path.is_file():
            raise IndexFormatError(f"{path} is missing: damaged")
        size_bytes = path.stat().st_size
        if size_bytes != seal["size_bytes"]:
            raise IndexFormatError(f"{path} has {size_bytes} bytes, expected {seal['size_bytes']}: damaged")
        if verify and (found := sha256_file(path)) != seal["sha256"]:
            raise IndexFormatError(f"{path} has SHA-256 {found}, expected {seal['sha256']}: damaged")


def _map(path: Path, shape: tuple[int, int], dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    try:
        with storage_errors("read", path):
            array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, SyntaxError) as error:
        raise IndexFormatError(f"{path} is no array file ({error}): damaged") from error
    if array.shape != shape or array.dtype != dtype:
        raise IndexFormatError(f"{path} holds {array.dtype} {array.shape}, expected {dtype} {shape}: damaged")
    return np.asarray(array)
