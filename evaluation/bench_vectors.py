"""The vectors of a benchmark's task by every encoder that is asked for, each text encoded once.

They are kept in the report's folder under the encoder's fingerprint and a digest of the texts, and the collections of
whole pipelines get the same ones.
"""

import logging
import os
import zipfile
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt

from evaluation.bench_data import BenchTask
from evaluation.spaces import ARMS, Arm, Space, Training, fit
from index.durable import make_folders, storage_errors
from index.errors import CorpusError
from index.types import Vectors
from retrieval.encoders import EncodedBatch, EncoderConfig, fingerprint, open_encoder
from retrieval.field_vectors import Encoders
from retrieval.progress import Progress, silent
from retrieval.protocols import Encoder
from retrieval.store.records import passage_text
from retrieval.types import Passage, Query

_log = logging.getLogger(__name__)

Arrays: TypeAlias = Mapping[str, npt.NDArray[Any]]

UNIT: Final = 1e-3
"""Norms that differ from 1 by no more are of an encoder that normalises."""

_AT_ONCE: Final = 256
"""Texts between two reports of progress."""


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
            with (
                storage_errors("read", self._path),
                self._path.open("rb") as raw,  # np.load leaves a damaged file of its own open
                np.load(raw, allow_pickle=False) as file,
            ):
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
