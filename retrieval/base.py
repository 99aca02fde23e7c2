"""The opened base of a shard: the components of one generation, checked and memory-mapped."""

import os
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from index.component import Component
from index.errors import IndexFormatError
from index.types import Mask, Rows, SubstringIndex, VectorIndex
from retrieval.build import LEXICAL, open_dense
from retrieval.collection_config import CollectionConfig, component_config
from retrieval.columns import Columns
from retrieval.columns_build import ColumnsBuilder
from retrieval.filters import Filter, canonical
from retrieval.generation import Generation, hold, open_ref
from retrieval.lexical import LexicalIndex
from retrieval.phrases.sequences import open_phrases
from retrieval.recent import Recent
from retrieval.store import DocumentRows

COLUMNS = "columns"
"""Name and kind of the component that maps rows to documents and holds metadata columns."""

_METADATA = "metadata"
_CACHED_FILTERS = 64


class Base:
    """Immutable part of what a shard searches: N passages of M documents, by position 0..N-1.

    rows: int64 (N,), ascending. doc_of: int64 (N,), position -> document number 0..M-1.
    dense, lexical: the index of each field. The generation stays on disk until `close`: once for whoever opened it,
    and once for each `retain`. fingerprints: of the encoder of each dense field.
    Raises IndexFormatError on damage, or where a field was built with other settings than the configuration's.
    """

    def __init__(
        self, folder: Path, generation: Generation, config: CollectionConfig, fingerprints: Mapping[str, str]
    ) -> None:
        self.generation = generation
        self._users = 1
        self._counting = threading.Lock()
        self._lock_descriptor = hold(folder, generation)
        try:
            opened = {name: open_ref(folder, name, ref) for name, ref in generation.components.items()}
            for name, field in config.fields.items():
                _check_built(name, component_config(field, fingerprints.get(name)), opened.get(name))
            columns = opened[COLUMNS].folder
            self.rows: Rows = _mapped(columns / "rows.npy")
            self.doc_of: npt.NDArray[np.int64] = _mapped(columns / "doc_of.npy")
            self.columns = Columns.open(columns / _METADATA)
            self.dense: Mapping[str, VectorIndex] = {
                name: open_dense(field, opened[name].folder) for name, field in config.dense_fields().items()
            }
            self.lexical: Mapping[str, LexicalIndex] = {
                name: LEXICAL[field.engine](opened[name].folder, field)
                for name, field in config.lexical_fields().items()
            }
            self.components: Mapping[str, Component] = opened
            self._substring: dict[str, SubstringIndex] = {}
        except BaseException:
            self.close()
            raise
        self._masks: Recent[str, Mask] = Recent(_CACHED_FILTERS)

    def retain(self) -> None:
        """Keep the generation for one more user, who opens files of it: each calls `close`."""
        with self._counting:
            assert self._users, "whoever retains a base holds it"
            self._users += 1

    def close(self) -> None:
        """Let go of the generation. Arrays already handed out stay readable."""
        with self._counting:
            self._users -= 1
            if not self._users:
                os.close(self._lock_descriptor)

    def substring(self, name: str) -> SubstringIndex:
        """Return the index of a substring field, opened at first use: most searches never ask it."""
        index = self._substring.get(name)
        if index is None:
            component = self.components[name]
            index = self._substring[name] = open_phrases(component.folder, component.config["tokenizer"])
        return index

    def positions(self, rows: Rows) -> npt.NDArray[np.int64]:
        """Return the position of each row, or -1 where the base does not hold it."""
        return positions(self.rows, rows)

    def matching(self, condition: Filter) -> Mask:
        """Return which positions match a filter, bool (N,), as of this generation. The last 64 filters are cached."""
        key = canonical(condition)
        mask = self._masks.get(key)
        if mask is None:
            documents = self.columns.evaluate(condition)
            mask = documents if len(documents) == len(self.rows) else documents[self.doc_of]
            self._masks.put(key, mask)
        return mask


def _check_built(name: str, wanted: Mapping[str, Any], component: Component | None) -> None:
    found = None if component is None else component.config
    if found == wanted:
        return
    if found is None:
        what = "is new in collection.toml"
    else:
        keys = sorted(key for key in wanted.keys() | found.keys() if wanted.get(key) != found.get(key))
        what = ", ".join(f"was built with {key} = {found.get(key)!r}, expected {wanted.get(key)!r}" for key in keys)
    raise IndexFormatError(f"field {name!r} {what}: run `grapnel compact`, which rebuilds it, or restore the setting")


def _mapped(path: Path) -> npt.NDArray[np.int64]:
    # The plain view: slicing a memmap object is slow.
    return np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))


def positions(sorted_rows: Rows, rows: Rows) -> npt.NDArray[np.int64]:
    """Return where each of `rows` stands in ascending `sorted_rows`, or -1."""
    if not len(sorted_rows):
        return np.full(len(rows), -1, np.int64)
    places = np.searchsorted(sorted_rows, rows)
    places[places == len(sorted_rows)] = 0
    return np.where(sorted_rows[places] == rows, places, -1)


def write_columns(folder: Path, rows: Rows, documents: Iterator[DocumentRows]) -> Mapping[str, int]:
    """Write the columns component: rows, row -> document, ids and typed metadata columns.

    documents: in row order, covering `rows` exactly. Memory: 16 bytes a passage, and the metadata columns.
    """
    builder = ColumnsBuilder()
    doc_of = np.empty(len(rows), np.int64)
    place = 0
    for number, stored in enumerate(documents):
        builder.add(stored.document.id, stored.document.metadata)
        doc_of[place : place + len(stored.spans)] = number
        place += len(stored.spans)
    assert place == len(rows), "documents and rows come from one snapshot"
    np.save(folder / "rows.npy", rows)
    np.save(folder / "doc_of.npy", doc_of)
    (folder / _METADATA).mkdir()
    return {**builder.write(folder / _METADATA), "passages": len(rows)}
