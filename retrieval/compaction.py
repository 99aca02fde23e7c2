"""Compaction: from the truth in SQLite to a new generation of components.

The same steps build a collection for the first time, resume a killed build, fold fresh writes into the base, and
replace damaged components: only what is missing, changed or damaged is made; the rest is carried over.
"""

import hashlib
import logging
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from index.ann_build import write_index
from index.ann_format import About, read_about
from index.component import Component, write_component
from index.device import absence
from index.durable import failpoint
from index.errors import IndexFormatError
from index.metric import prepare
from index.types import Rows, Vectors
from retrieval.base import COLUMNS, write_columns
from retrieval.build import LEXICAL_WRITERS
from retrieval.collection_config import CollectionConfig, DenseField, component_config
from retrieval.config import digest_of
from retrieval.encoding import EncodeReport, client_blocks, encode_missing, stored_blocks
from retrieval.field_vectors import FieldVectors, Keys
from retrieval.generation import (
    COMPONENTS,
    ComponentRef,
    Generation,
    generation_numbers,
    open_ref,
    publish,
)
from retrieval.lexical import LexicalConfig
from retrieval.phrases.config import SubstringField
from retrieval.phrases.sequences import write_phrases
from retrieval.progress import Progress, counted
from retrieval.store import StoreSnapshot

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class CompactionReport:
    """What a compaction did. built, reused: component names; encoded, indexes: per dense field.

    indexes: what each became, None for plain exact search.
    """

    generation: Generation
    built: tuple[str, ...] = ()
    reused: tuple[str, ...] = ()
    encoded: Mapping[str, EncodeReport] = field(default_factory=dict)
    indexes: Mapping[str, About | None] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Compaction:
    """One run over one snapshot of the store.

    previous: the generation to carry unchanged components over from, None for a first build or after damage.
    """

    folder: Path
    config: CollectionConfig
    snapshot: StoreSnapshot
    vectors: FieldVectors
    previous: Generation | None
    progress: Progress

    def run(self) -> CompactionReport:
        """Write what changed, publish the new generation, and report.

        Raises StorageError when the file system refuses; the previous generation then stays current.
        """
        rows, keys = self.snapshot.all_rows()
        documents = self.snapshot.document_count()
        (self.folder / COMPONENTS).mkdir(exist_ok=True)
        rows_digest = digest_of([_runs(rows), hashlib.blake2b(keys.tobytes(), digest_size=16).hexdigest()])
        op = self.snapshot.last_op()
        refs: dict[str, ComponentRef] = {}
        reports: dict[str, EncodeReport] = {}
        built: list[str] = []

        def component(name: str, kind: str, config: dict[str, Any], fill: Callable[[Path], Mapping[str, int]]) -> None:
            inputs = digest_of([kind, config, rows_digest])
            reused = self._reusable(name, kind, inputs)
            if reused is None:
                built.append(name)
                failpoint(f"compact.{kind}")
                reused = self._write(name, kind, config, inputs, fill)
            refs[name] = reused

        for name, dense in self.config.dense_fields().items():  # first: encoding is what a killed build keeps
            config = component_config(dense, self.vectors.fingerprint(name))
            component(name, "dense", config, self._dense_filler(name, dense, rows, keys, reports))
        for name, lexical in self.config.lexical_fields().items():
            component(name, "lexical", component_config(lexical), self._lexical_filler(name, lexical, len(rows)))
        for name, substring in self.config.substring_fields().items():
            filler = self._substring_filler(name, substring, documents)
            component(name, "substring", component_config(substring), filler)
        component(
            COLUMNS,
            "columns",
            {"op": op},
            lambda folder: write_columns(
                folder, rows, counted(self.snapshot.documents(), "columns", documents, self.progress)
            ),
        )
        generation = Generation(self._next_number(), op, documents, len(rows), refs)
        failpoint("compact.before_publish")
        publish(self.folder, generation)
        failpoint("compact.published")
        indexes = {name: read_about(self.folder / COMPONENTS / refs[name].id) for name in self.config.dense_fields()}
        return CompactionReport(generation, tuple(built), tuple(refs.keys() - set(built)), reports, indexes)

    def _next_number(self) -> int:
        return max(generation_numbers(self.folder), default=0) + 1

    def _reusable(self, name: str, kind: str, inputs: str) -> ComponentRef | None:
        ref = self.previous.components.get(name) if self.previous else None
        if ref is None or ref.kind != kind or ref.inputs != inputs:
            return None
        try:
            open_ref(self.folder, name, ref)
        except IndexFormatError as error:
            log.warning("rebuilding field %s: %s", name, error)
            return None
        return ref

    def _write(
        self, name: str, kind: str, config: dict[str, Any], inputs: str, fill: Callable[[Path], Mapping[str, int]]
    ) -> ComponentRef:
        identity = f"{kind}-{name}-{uuid.uuid4().hex[:12]}"
        written: Component = write_component(self.folder / COMPONENTS / identity, kind, config, fill)
        return ComponentRef(identity, kind, written.sha256, inputs)

    def _lexical_filler(self, name: str, config: LexicalConfig, count: int) -> Callable[[Path], Mapping[str, int]]:
        def texts() -> Iterator[tuple[int, str, str]]:
            for stored in self.snapshot.documents():
                for row, passage, _ in stored.passages():
                    yield row, passage.title, passage.text

        return lambda folder: LEXICAL_WRITERS[config.engine](
            folder, config, counted(texts(), f"index {name}", count, self.progress)
        )

    def _substring_filler(self, name: str, config: SubstringField, count: int) -> Callable[[Path], Mapping[str, int]]:
        def fill(folder: Path) -> Mapping[str, int]:
            stored = counted(self.snapshot.documents(), f"index {name}", count, self.progress)
            return write_phrases(folder, config, name, (each.document for each in stored), self.progress)

        return fill

    def _dense_filler(
        self, name: str, field: DenseField, rows: Rows, keys: Keys, reports: dict[str, EncodeReport]
    ) -> Callable[[Path], Mapping[str, int]]:
        def fill(folder: Path) -> Mapping[str, int]:
            dim = self.vectors.dim(name)
            if field.encoder.kind == "external":
                blocks = client_blocks(self.snapshot, name)
            else:
                reports[name] = encode_missing(self.snapshot, keys, name, self.vectors, self.progress)
                blocks = stored_blocks(keys, self.vectors.store(name, dim))
            absent = absence(field.device)
            if absent:
                log.warning("field %s is indexed on the CPU: %s", name, absent)
            device = "cpu" if absent else field.device
            write_index(folder, self._prepared(blocks, name, field, len(rows)), dim, len(rows), field.spec(), device)
            return {"rows": len(rows), "dim": dim}

        return fill

    def _prepared(self, blocks: Iterator[Vectors], name: str, field: DenseField, total: int) -> Iterator[Vectors]:
        done = 0
        for block in blocks:
            yield prepare(block, field.metric)
            done += len(block)
            self.progress(f"index {name}", done, total)


def _runs(rows: Rows) -> list[list[int]]:
    """Return ascending rows as [first, count] runs: a fresh build is one, however many rows it has."""
    breaks = np.flatnonzero(np.diff(rows) != 1) + 1
    edges = [0, *breaks.tolist(), len(rows)] if len(rows) else []
    return [[int(rows[start]), stop - start] for start, stop in pairwise(edges)]
