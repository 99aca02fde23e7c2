"""The live tier: everything written since the base, kept in memory by following the operation log.

Writers and readers follow the log in the same way, each process for itself, so an acknowledged write is visible to
the next search wherever it runs. The tier is disposable: it is replayed from SQLite whenever a base is opened.
"""

import shutil
import tempfile
import weakref
from collections.abc import Iterable
from pathlib import Path
from types import MappingProxyType

import numpy as np

from index.metric import prepare
from retrieval.base import Base, positions
from retrieval.build import LIVE
from retrieval.collection_config import CollectionConfig
from retrieval.field_vectors import FieldVectors
from retrieval.filters import flatten
from retrieval.growing import Growing
from retrieval.lexical import LexicalIndex
from retrieval.lexical.live import TantivyLive
from retrieval.store import Operation, StoreSnapshot
from retrieval.types import Metadata, Passage
from retrieval.view import Fresh, View

_BATCH = 1_000
"""Passages replayed at once: bounds memory and statement size."""


class Live:
    """Follows the log on top of one base. Not thread-safe: the shard calls it under its refresh lock."""

    def __init__(self, base: Base, config: CollectionConfig, vectors: FieldVectors) -> None:
        self.base = base
        self.op = base.generation.op
        self._config = config
        self._source = vectors
        self._base_dead = np.zeros(len(base.rows), dtype=np.bool_)
        self._fresh_dead = np.zeros(0, dtype=np.bool_)
        self._rows = Growing((), np.int64)
        self._doc_of = Growing((), np.int64)
        self._doc_ids: list[str] = []
        self._metadata: list[Metadata] = []
        self._vectors = {name: Growing((index.dim,), np.float32) for name, index in base.dense.items()}
        self._patched: dict[int, Metadata] = {}
        self._keys = set(base.columns.keys)
        self._lexical: dict[str, TantivyLive] = {}
        self._scratch: Path | None = None
        self._view = self._make_view()

    def follow(self, snapshot: StoreSnapshot) -> View:
        """Apply what the log holds beyond the last call and return the view of exactly this snapshot."""
        operations = snapshot.operations(self.op)
        if not operations:
            return self._view
        self._base_dead = self._base_dead.copy()
        self._fresh_dead = self._fresh_dead.copy()
        self._metadata = list(self._metadata)
        self._patched = dict(self._patched)
        born: list[int] = []
        patched: list[int] = []
        for operation in operations:
            if operation.kind == "patch":
                patched.append(operation.old_first)
            else:
                self._bury(operation)
                born.extend(range(operation.new_first, operation.new_first + operation.new_count))
        for start in range(0, len(born), _BATCH):
            self._add(snapshot, born[start : start + _BATCH])
        self._patch(snapshot, patched)
        for live in self._lexical.values():
            live.commit()
        self.op = operations[-1].op
        self._view = self._make_view()
        return self._view

    def _bury(self, operation: Operation) -> None:
        low, high = np.searchsorted(self.base.rows, [operation.old_first, operation.old_first + operation.old_count])
        self._base_dead[low:high] = True
        rows = self._rows.view()
        low, high = np.searchsorted(rows, [operation.old_first, operation.old_first + operation.old_count])
        self._fresh_dead[low:high] = True

    def _add(self, snapshot: StoreSnapshot, born: list[int]) -> None:
        found = snapshot.passages(born)  # rows that a later operation already removed are not there
        rows = sorted(found)
        if not rows:
            return
        passages = [found[row][0] for row in rows]
        for row in rows:
            passage, metadata = found[row]
            if not self._doc_ids or passage.ordinal == 0:
                self._doc_ids.append(passage.doc_id)
                self._metadata.append(metadata)
                self._keys |= flatten(metadata).keys()
            self._doc_of.extend(np.array([len(self._doc_ids) - 1]))
        self._rows.extend(np.array(rows, np.int64))
        self._fresh_dead = np.concatenate([self._fresh_dead, np.zeros(len(rows), dtype=np.bool_)])
        doc_ids = [passage.doc_id for passage in passages]
        for name, field in self._config.dense_fields().items():
            vectors = self._source.fresh(snapshot, name, self.base.dense[name].dim, rows, doc_ids)
            self._vectors[name].extend(prepare(vectors, field.metric))
        for live in self._lexical_live():
            live.apply(_texts(rows, passages))

    def _lexical_live(self) -> Iterable[TantivyLive]:
        if not self._lexical:
            for name, field in self._config.lexical_fields().items():
                scratch = self._scratch_folder() / name
                if field.engine in LIVE:
                    self._lexical[name] = LIVE[field.engine](field, self.base.components[name].folder, scratch)
        return self._lexical.values()

    def _scratch_folder(self) -> Path:
        if self._scratch is None:
            self._scratch = Path(tempfile.mkdtemp(prefix="grapnel-live-"))
            weakref.finalize(self, shutil.rmtree, self._scratch, ignore_errors=True)  # for who exits without closing
        return self._scratch

    def _patch(self, snapshot: StoreSnapshot, first_rows: list[int]) -> None:
        for first, (_, metadata) in snapshot.passages(sorted(set(first_rows))).items():
            self._keys |= flatten(metadata).keys()
            place = positions(self.base.rows, np.array([first]))[0]
            if place >= 0:
                self._patched[int(self.base.doc_of[place])] = metadata
            else:
                place = positions(self._rows.view(), np.array([first]))[0]
                self._metadata[int(self._doc_of.view()[place])] = metadata

    def _make_view(self) -> View:
        count = len(self._rows)
        fresh = Fresh(
            rows=self._rows.view(),
            doc_of=self._doc_of.view(),
            dead=self._fresh_dead,
            doc_ids=tuple(self._doc_ids),
            metadata=tuple(self._metadata),
            vectors=MappingProxyType({name: vectors.view() for name, vectors in self._vectors.items()}),
        )
        lexical: dict[str, LexicalIndex] = dict(self.base.lexical)
        lexical.update({name: live.reader() for name, live in self._lexical.items()})
        alive = count - int(self._fresh_dead.sum())
        uncovered = {name: alive for name in lexical if name not in self._lexical and alive}
        return View(
            base=self.base,
            op=self.op,
            base_dead=self._base_dead,
            fresh=fresh,
            patched=self._patched,
            lexical=lexical,
            uncovered=uncovered,
            known_keys=frozenset(self._keys),
        )

    def close(self) -> None:
        """Stop the engines and remove their scratch files; readers already handed out go on."""
        for live in self._lexical.values():
            live.close()
        if self._scratch is not None:
            shutil.rmtree(self._scratch, ignore_errors=True)


def _texts(rows: list[int], passages: list[Passage]) -> list[tuple[int, str, str]]:
    return [(row, passage.title, passage.text) for row, passage in zip(rows, passages, strict=True)]
