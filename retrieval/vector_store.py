"""Vectors keyed by the hash of the encoded text, for one encoder: only changed text is ever encoded again.

A folder of immutable shards (see retrieval.vector_shard), of which few are small: a build appends ten thousand pieces,
and looking up a key costs a search in every shard. So small shards are merged as soon as together they make a large
one, in the order in which they were written: texts that follow one another stay close on disk, and reading a corpus in
its own order walks through the shards one by one. One process writes; any number read, see what it publishes
after `refresh`, and never block it. Everything here can be made again by encoding, so a damaged shard is reported,
ignored and removed by the writer; its texts then count as missing.
"""

import logging
import re
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from index.durable import failpoint, make_folders, storage_errors
from index.errors import IndexFormatError, ShapeError
from index.types import Mask, Rows, Vectors
from retrieval.vector_shard import (
    Keys,
    NewerFormatError,
    Shard,
    find_keys,
    identity,
    open_shard,
    remove_shard,
    sort_keys,
    write_shard,
)

_log = logging.getLogger(__name__)

_SMALL_ROWS = 65_536
"""Shards with fewer rows are small."""

_SHARD_ROWS = 1 << 20
"""Merged shards have at most this many rows."""

_BLOCK_ROWS = 4_096
"""Rows copied at a time."""

_OURS = re.compile(r"(\d{6,})\.(keys\.npy|vectors\.npy|json)|\.(\d{6,})\.json\.\d+\.tmp")


class Compaction(NamedTuple):
    """What `VectorStore.compact` did. rows_dropped: unused or duplicate; shards_removed, shards_written: counts."""

    rows_dropped: int
    shards_removed: int
    shards_written: int


class VectorStore:
    """The vectors of one encoder in `folder` (which need not exist yet). dim: length of each vector.

    verify: compare checksums of every shard when it is opened, about 1 GB/s; sizes are always compared.
    Threads may read, refresh and append at the same time. `append`, `clean`, `drop` and `compact` are for the one
    writer of the collection.
    """

    def __init__(self, folder: Path, dim: int, *, verify: bool = True) -> None:
        self.folder = folder
        self.dim = dim
        self._verify = verify
        self._shards: Mapping[str, Shard] = {}
        self._damaged: Mapping[str, IndexFormatError] = {}
        self._lock = threading.RLock()
        self.refresh()

    def __len__(self) -> int:
        """Return the stored rows, a key that several shards hold counted in each."""
        return sum(len(shard.keys) for shard in self._shards.values())

    @property
    def damaged(self) -> Mapping[str, str]:
        """Shards found damaged and ignored, with the reason."""
        return {name: str(error) for name, error in self._damaged.items()}

    def contains(self, keys: Keys) -> Mask:
        """Return which keys have a vector, bool (N,). keys: uint64 (N, 2).

        Cost: N binary searches a shard, fastest in sorted keys; 50 bytes of memory a key: ask for a block at a time.
        """
        mask = np.zeros(len(_checked(keys)), dtype=np.bool_)
        for _, places, _ in self._locate(keys):
            mask[places] = True
        return mask

    def get(self, keys: Keys) -> tuple[Mask, Vectors]:
        """Return which keys have a vector, bool (N,), and those vectors, float32 (found, D), in the order of the keys.

        keys: uint64 (N, 2), duplicates allowed. The vectors are a copy: ask for a block of keys at a time.
        """
        located = list(self._locate(_checked(keys)))
        mask = np.zeros(len(keys), dtype=np.bool_)
        for _, places, _ in located:
            mask[places] = True
        slots = np.cumsum(mask) - 1
        vectors = np.empty((int(mask.sum()), self.dim), dtype=np.float32)
        for shard, places, rows in located:
            vectors[slots[places]] = shard.vectors[rows]
        return mask, vectors

    def append(self, keys: Keys, vectors: Vectors) -> None:
        """Store vectors durably as one new shard; of equal keys the first counts. Nothing to store writes nothing.

        keys: uint64 (N, 2); vectors: float32 (N, D), finite.
        Cost: small shards that together make a large one are merged first, so each row is written twice at most.
        Raises ShapeError on shape, dtype or a value that is not finite, StorageError when the file system refuses.
        """
        if vectors.shape != (len(_checked(keys)), self.dim) or vectors.dtype != np.float32:
            raise ShapeError(
                f"vectors are {vectors.dtype} {vectors.shape}, expected float32 {(len(keys), self.dim)} for these keys"
            )
        if not np.isfinite(vectors).all():
            raise ShapeError("vectors hold NaN or infinity: the encoder failed on some text; nothing was stored")
        order = sort_keys(keys)
        if len(order):
            with self._lock:
                if self._verify:  # damage must not be copied under a new checksum
                    self._merge_small()
                self._write(keys[order], (vectors[block] for block in _blocks(order)))

    def refresh(self) -> None:
        """See the shards as they are on disk now: what the writer published, without what it removed."""
        with self._lock:
            shards, damaged = dict(self._shards), dict(self._damaged)
            again = True
            while again:
                again = False
                listed = {name: identity(self.folder, name) for name in self._listed()}
                shards = {name: shard for name, shard in shards.items() if listed.get(name) == shard.identity}
                damaged = {name: error for name, error in damaged.items() if name in listed}
                for name in sorted(listed.keys() - shards.keys() - damaged.keys()):
                    try:
                        shards[name] = open_shard(self.folder, name, self.dim, verify=self._verify)
                    except IndexFormatError as error:
                        if identity(self.folder, name) is None:
                            again = True  # removed by the writer meanwhile, what replaces it is already there
                        else:
                            damaged[name] = self._report(error)
            self._shards, self._damaged = shards, damaged

    def verify(self) -> list[str]:
        """Compare every byte of every shard with its checksum; return the damaged ones, ignored from now on."""
        with self._lock:
            self.refresh()
            shards, damaged = dict(self._shards), dict(self._damaged)
            for name in list(shards):
                try:
                    open_shard(self.folder, name, self.dim, verify=True)
                except IndexFormatError as error:
                    del shards[name]
                    if identity(self.folder, name) is not None:
                        damaged[name] = self._report(error)
            self._shards, self._damaged = shards, damaged
            return sorted(damaged)

    def clean(self) -> None:
        """Remove what killed writers left behind, and damaged shards (not those of a later release)."""
        with self._lock:
            self.refresh()
            for name, error in self._damaged.items():
                if not isinstance(error, NewerFormatError):
                    self.drop(name)
            kept = self._listed()
            with storage_errors("clean", self.folder):
                for path, name in self._files():
                    if name not in kept or path.suffix == ".tmp":
                        path.unlink()
                        _log.info("removed %s, left behind by a writer that was killed", path)

    def drop(self, shard: str) -> None:
        """Remove one shard; its texts count as missing from now on."""
        with self._lock:
            remove_shard(self.folder, shard)
            self.refresh()

    def compact(self, keep: Keys) -> Compaction:
        """Merge small shards, and rewrite those of whose rows more than half are unused, without the unused rows.

        keep: uint64 (N, 2), every key still in use. New shards are published before old ones are removed, so a
        crash leaves duplicates at worst, which count as unused the next time.
        Cost: 16 bytes of memory a key, and a copy of the rows that move.
        """
        with self._lock:
            if self._verify:
                self.refresh()
            else:
                self.verify()  # damage must not be copied under a new checksum
            live = self._live_rows(self._shards.values(), keep)
            small = {name for name, rows in live.items() if len(rows) < _SMALL_ROWS}
            old = {
                name: rows
                for name, rows in live.items()
                if 2 * len(rows) < len(self._shards[name].keys) or (len(small) > 1 and name in small)
            }
            return self._replace(old)

    def _merge_small(self) -> None:
        """Merge small shards, oldest first, for as long as there are enough of them to make a large one."""
        group: list[Shard] = []
        for shard in list(self._shards.values()):
            if len(shard.keys) >= _SMALL_ROWS:
                continue
            group.append(shard)
            if sum(len(small.keys) for small in group) >= _SMALL_ROWS:
                self._replace(self._live_rows(group, np.concatenate([small.keys for small in group])))
                group = []

    def _replace(self, live: Mapping[str, Rows]) -> Compaction:
        """Write these rows of these shards as new shards, then remove the old ones."""
        dropped = sum(len(self._shards[name].keys) - len(rows) for name, rows in live.items())
        written = self._merge([(self._shards[name], rows) for name, rows in live.items()])
        failpoint("vectors.compact.published")
        for name in live:
            remove_shard(self.folder, name)
        self.refresh()
        return Compaction(dropped, len(live), written)

    def _live_rows(self, shards: Iterable[Shard], keep: Keys) -> dict[str, Rows]:
        """Return the rows of each of these shards that are in use and in none before it."""
        wanted = np.asfortranarray(_checked(keep)[sort_keys(keep)])
        taken = np.zeros(len(wanted), dtype=np.bool_)
        live = {}
        for shard in shards:
            places = find_keys(wanted, shard.keys)
            rows = np.flatnonzero(places >= 0)
            rows = rows[~taken[places[rows]]]
            taken[places[rows]] = True
            live[shard.name] = rows
        return live

    def _merge(self, parts: Sequence[tuple[Shard, Rows]]) -> int:
        """Write the given rows of shards as new ones of at most _SHARD_ROWS rows; return how many."""
        if not sum(len(rows) for _, rows in parts):
            return 0
        keys = np.concatenate([shard.keys[rows] for shard, rows in parts])
        sources = np.repeat(np.arange(len(parts)), [len(rows) for _, rows in parts])
        rows = np.concatenate([rows for _, rows in parts])
        order = sort_keys(keys)
        for start in range(0, len(order), _SHARD_ROWS):
            piece = order[start : start + _SHARD_ROWS]
            blocks = (
                _gather([shard for shard, _ in parts], sources[block], rows[block], self.dim)
                for block in _blocks(piece)
            )
            self._write(keys[piece], blocks)
        return -(-len(order) // _SHARD_ROWS)

    def _write(self, keys: Keys, blocks: Iterator[Vectors]) -> None:
        make_folders(self.folder)
        name = f"{max((int(used) for _, used in self._files()), default=-1) + 1:06d}"
        write_shard(self.folder, name, keys, blocks, self.dim)
        # What was just written and hashed needs no second reading.
        self._shards = {**self._shards, name: open_shard(self.folder, name, self.dim, verify=False)}

    def _locate(self, keys: Keys) -> Iterator[tuple[Shard, Rows, Rows]]:
        """Yield (shard, places in `keys`, rows in the shard), each key found once."""
        # In sorted order, so that searches and copies walk through memory-mapped files in one direction.
        pending = np.lexsort((keys[:, 1], keys[:, 0]))
        for shard in self._shards.values():
            rows = shard.find(keys[pending])
            found = rows >= 0
            if found.any():
                yield shard, pending[found], rows[found]
                pending = pending[~found]
            if not len(pending):
                return

    def _files(self) -> list[tuple[Path, str]]:
        """Return every file of ours with the name of its shard."""
        with storage_errors("list", self.folder):
            entries = list(self.folder.iterdir()) if self.folder.is_dir() else []
        matches = ((path, _OURS.fullmatch(path.name)) for path in entries)
        return [(path, match[1] or match[3]) for path, match in matches if match]

    def _listed(self) -> set[str]:
        return {name for path, name in self._files() if path.suffix == ".json"}

    def _report(self, error: IndexFormatError) -> IndexFormatError:
        _log.warning("vector shard ignored, its texts will be encoded again: %s", error)
        return error


def _checked(keys: Keys) -> Keys:
    if keys.ndim != 2 or keys.shape[1] != 2 or keys.dtype != np.uint64:
        raise ShapeError(f"keys are {keys.dtype} {keys.shape}, expected uint64 (N, 2)")
    return keys


def _blocks(positions: Rows) -> Iterator[Rows]:
    return (positions[start : start + _BLOCK_ROWS] for start in range(0, len(positions), _BLOCK_ROWS))


def _gather(shards: Sequence[Shard], sources: Rows, rows: Rows, dim: int) -> Vectors:
    """Return row rows[i] of shard sources[i] for each i, float32 (n, D)."""
    vectors = np.empty((len(rows), dim), dtype=np.float32)
    for source in np.unique(sources):
        here = sources == source
        vectors[here] = shards[source].vectors[rows[here]]
    return vectors
