"""What `grapnel bench` measures on: one task, cut to a tier's size, and its vectors by every encoder that is asked for.

Texts are encoded once: vectors are kept in the report's folder under a digest of the texts and the encoder's
fingerprint, and collections of whole pipelines get the same vectors.
"""

import json
import logging
import os
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from hashlib import blake2b
from pathlib import Path
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt

from evaluation.spaces import ARMS, Arm, Space, Training, fit
from evaluation.task import SPLITS, Task, read_task
from index.durable import make_folders, storage_errors
from index.errors import CorpusError
from index.types import Rows, Vectors
from retrieval.encoders import EncodedBatch, EncoderConfig, fingerprint, open_encoder
from retrieval.field_vectors import Encoders
from retrieval.progress import Progress, silent
from retrieval.protocols import Encoder
from retrieval.sources.validate import is_empty
from retrieval.store.records import passage_text
from retrieval.types import Document, Passage, Query

_log = logging.getLogger(__name__)

Arrays: TypeAlias = Mapping[str, npt.NDArray[Any]]

UNIT: Final = 1e-3
"""Norms that differ from 1 by no more are of an encoder that normalises."""

_AT_ONCE: Final = 256
"""Texts between two reports of progress."""


@dataclass(frozen=True, slots=True)
class Limits:
    """The most that is measured on; a seeded sample of more. Documents that are judged always stay."""

    queries: int
    documents: int
    train_queries: int


@dataclass(frozen=True)
class BenchTask:
    """A task and what of its dataset it is. train: queries of the train split, with pairs int64 (P, 2) as in Training.

    notes: how the task differs from the whole dataset, for people.
    """

    task: Task
    split: str
    train: tuple[Query, ...] = field(repr=False)
    pairs: Rows = field(repr=False)
    notes: tuple[str, ...] = ()

    @cached_property
    def digest(self) -> str:
        """32 hex digits over everything that is measured on."""
        digest = blake2b(digest_size=16)
        parts = (
            *(list(each) for each in (self.task.doc_ids, self.task.titles, self.task.texts)),
            *([(query.id, query.text) for query in queries] for queries in (self.task.queries, self.train)),
            sorted((query, sorted(grades.items())) for query, grades in self.task.qrels.items()),
            self.pairs.tolist(),
        )
        for part in parts:
            digest.update(json.dumps(part, ensure_ascii=True).encode())
        return digest.hexdigest()

    def documents(self) -> list[Document]:
        """Return the documents as collections take them: blank ones, which these refuse, are left out."""
        task = self.task
        made = (Document(*each) for each in zip(task.doc_ids, task.texts, task.titles, strict=True))
        return [document for document in made if not is_empty(document)]


def read_bench_task(folder: Path, split: str | None, limits: Limits, seed: int) -> BenchTask:
    """Read a BEIR folder, and its train split where it has one that is not measured on. Raises as `read_task`."""
    there = sorted(path.stem for path in (folder / "qrels").glob("*.tsv"))
    chosen = split or next((name for name in (*SPLITS, *there) if name in there), None)
    whole = read_task(folder, chosen)
    rng = np.random.default_rng(seed)
    task, notes = _cut(whole, limits, rng)
    train: tuple[Query, ...] = ()
    pairs = np.empty((0, 2), dtype=np.int64)
    if chosen != "train" and "train" in there:
        train, pairs = _training(read_task(folder, "train"), task, limits.train_queries, rng)
    return BenchTask(task, chosen or "", train, pairs, notes)


def _cut(task: Task, limits: Limits, rng: np.random.Generator) -> tuple[Task, tuple[str, ...]]:
    notes = []
    queries, qrels = task.queries, task.qrels
    if len(queries) > limits.queries:
        notes.append(f"{limits.queries:,} of {len(queries):,} queries, a seeded sample")
        chosen = np.sort(rng.choice(len(queries), limits.queries, replace=False))
        queries = tuple(queries[place] for place in chosen)
        qrels = {query.id: qrels[query.id] for query in queries}
    rows = np.arange(len(task.doc_ids))
    if len(rows) > limits.documents:
        judged = {task.row_of[doc_id] for grades in qrels.values() for doc_id in grades}
        order = [*sorted(judged), *(row for row in rng.permutation(len(rows)).tolist() if row not in judged)]
        rows = np.sort(np.array(order[: max(limits.documents, len(judged))]))
        notes.append(f"{len(rows):,} of {len(task.doc_ids):,} documents, all that are judged among them")
    doc_ids, texts, titles = (
        tuple(column[row] for row in rows.tolist()) for column in (task.doc_ids, task.texts, task.titles)
    )
    cut = replace(task, doc_ids=doc_ids, texts=texts, titles=titles, queries=queries, qrels=qrels)
    return cut, tuple(notes)


def _training(train: Task, task: Task, most: int, rng: np.random.Generator) -> tuple[tuple[Query, ...], Rows]:
    """Return at most so many train queries that have a relevant document in the task, and their pairs."""
    order = rng.permutation(len(train.queries))[:most]
    relevant = {
        int(place): [
            task.row_of[doc_id]
            for doc_id, grade in train.qrels[train.queries[place].id].items()
            if grade > 0 and doc_id in task.row_of
        ]
        for place in np.sort(order)
    }
    places = [place for place, rows in relevant.items() if rows]
    pairs = [(number, row) for number, place in enumerate(places) for row in relevant[place]]
    return tuple(train.queries[place] for place in places), np.array(pairs, dtype=np.int64).reshape(-1, 2)


class Embedded:
    """The vectors of a task by one encoder, read from `folder` or encoded when first asked for, and kept there."""

    def __init__(self, data: BenchTask, config: EncoderConfig, folder: Path, seed: int, progress: Progress) -> None:
        self.config = config
        self.fingerprint = fingerprint(config)
        self.data = data
        self._seed = seed
        self._progress = progress
        self._path = folder / f"{self.fingerprint}-{data.digest}.npz"

    @cached_property
    def _arrays(self) -> Arrays:
        found = self._read()
        if found is None:
            found = self._encoded()
            self._write(found)
        return found

    @property
    def documents(self) -> Vectors:
        """float32 (N, D), as they were encoded."""
        return self._arrays["documents"]

    @property
    def queries(self) -> Vectors:
        """float32 (Q, D)."""
        return self._arrays["queries"]

    @property
    def truncated(self) -> int:
        """How many documents were longer than the encoder's window."""
        return int(self._arrays["truncated"])

    @property
    def unit(self) -> bool:
        """Whether all vectors that are not 0 have length 1."""
        both = (np.linalg.norm(each, axis=1) for each in (self.documents, self.queries))
        return all(bool((np.abs(norms[norms > 0] - 1) <= UNIT).all()) for norms in both)

    @cached_property
    def spaces(self) -> Mapping[Arm, Space]:
        """Every metric arm that can be fitted."""
        return self._fitted[0]

    @cached_property
    def unfitted(self) -> Mapping[Arm, str]:
        """Why the others cannot."""
        return self._fitted[1]

    @cached_property
    def _fitted(self) -> tuple[dict[Arm, Space], dict[Arm, str]]:
        training = Training(self._arrays["train"], self.data.pairs) if len(self.data.train) else None
        spaces: dict[Arm, Space] = {}
        refused: dict[Arm, str] = {}
        for arm in ARMS:
            try:
                spaces[arm] = fit(arm, self.documents, training, seed=self._seed)
            except CorpusError as error:
                refused[arm] = str(error)
        return spaces, refused

    def encoders(self) -> Encoders:
        """Return encoders for collections that give this task's texts the vectors there are."""
        return _KeptEncoders(self.config, _KeptEncoder(self))

    def texts(self) -> list[str]:
        """Return the documents as the encoder sees them."""
        task = self.data.task
        return [
            passage_text(Passage(doc_id, 0, 0, len(text), text, title))
            for doc_id, text, title in zip(task.doc_ids, task.texts, task.titles, strict=True)
        ]

    def _encoded(self) -> Arrays:
        encoder = open_encoder(self.config)
        texts, truncated, parts = self.texts(), 0, []
        for start in range(0, len(texts), _AT_ONCE):
            batch = encoder.encode_texts(texts[start : start + _AT_ONCE])
            truncated += batch.truncated
            parts.append(batch.vectors)
            self._progress("encode documents", min(len(texts), start + _AT_ONCE), len(texts))
        queries = self._queries(encoder, self.data.task.queries, "encode queries")
        train = self._queries(encoder, self.data.train, "encode train queries")
        return {
            "documents": np.concatenate(parts),
            "queries": queries,
            "train": train,
            "truncated": np.array(truncated),
        }

    def _queries(self, encoder: Encoder, queries: Sequence[Query], stage: str) -> Vectors:
        parts = [np.empty((0, encoder.dim), dtype=np.float32)]
        for start in range(0, len(queries), _AT_ONCE):
            parts.append(encoder.encode_queries(queries[start : start + _AT_ONCE]))
            self._progress(stage, min(len(queries), start + _AT_ONCE), len(queries))
        return np.concatenate(parts)

    def _read(self) -> Arrays | None:
        if not self._path.is_file():
            return None
        try:
            with storage_errors("read", self._path), np.load(self._path, allow_pickle=False) as file:
                found = {name: file[name] for name in ("documents", "queries", "train", "truncated")}
        except (ValueError, KeyError, EOFError, zipfile.BadZipFile):
            _log.warning("%s is damaged: the texts are encoded again", self._path)
            return None
        counts = (len(self.data.task.doc_ids), len(self.data.task.queries), len(self.data.train))
        return found if tuple(len(found[name]) for name in ("documents", "queries", "train")) == counts else None

    def _write(self, arrays: Arrays) -> None:
        make_folders(self._path.parent)
        temporary = self._path.with_name(f".{self._path.name}.{os.getpid()}.tmp")
        with storage_errors("write", self._path):
            try:
                with temporary.open("wb") as file:
                    np.savez(file, allow_pickle=False, **arrays)
                temporary.replace(self._path)
            finally:
                temporary.unlink(missing_ok=True)


class _KeptEncoder:
    """An encoder that looks its texts up, and loads the model for what it does not know."""

    def __init__(self, vectors: Embedded) -> None:
        self.dim = vectors.documents.shape[1]
        self.fingerprint = vectors.fingerprint
        self._vectors = vectors
        self._rows = {text: row for row, text in enumerate(vectors.texts())}
        self._places = {(query.text, query.task): row for row, query in enumerate(vectors.data.task.queries)}

    @cached_property
    def _model(self) -> Encoder:
        return open_encoder(self._vectors.config)

    def encode_queries(self, queries: Sequence[Query]) -> Vectors:
        """See Encoder."""
        places = [self._places.get((query.text, query.task), -1) for query in queries]
        if -1 in places:
            return self._model.encode_queries(queries)
        return self._vectors.queries[places]

    def encode_passages(self, passages: Sequence[Passage]) -> Vectors:
        """See Encoder."""
        return self.encode_texts([passage_text(passage) for passage in passages]).vectors

    def encode_texts(self, texts: Sequence[str]) -> EncodedBatch:
        """See Encoder."""
        rows = [self._rows.get(text, -1) for text in texts]
        if -1 in rows:
            return self._model.encode_texts(texts)
        return EncodedBatch(self._vectors.documents[rows], 0)


class _KeptEncoders(Encoders):
    def __init__(self, config: EncoderConfig, encoder: Encoder) -> None:
        super().__init__()
        self._encoders[config] = encoder


class Embeddings:
    """The vectors of a task by any encoder, each made once."""

    def __init__(self, data: BenchTask, folder: Path, seed: int, progress: Progress = silent) -> None:
        self.data = data
        self._folder = folder
        self._seed = seed
        self._progress = progress
        self._known: dict[EncoderConfig, Embedded] = {}

    def of(self, config: EncoderConfig) -> Embedded:
        """Return the vectors by an encoder. Raises ConfigError where its model cannot be found."""
        if config not in self._known:
            self._known[config] = Embedded(self.data, config, self._folder, self._seed, self._progress)
        return self._known[config]
