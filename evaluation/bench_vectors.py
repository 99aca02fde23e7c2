"""The vectors of a benchmark's task by every encoder that is asked for, each text encoded once.

Documents, queries and train queries are kept each in a file, under the encoder's fingerprint and a digest of the texts:
other queries of the same documents encode nothing but themselves. Collections of whole pipelines get the same vectors.
"""

import json
import logging
import os
import zipfile
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from hashlib import blake2b
from pathlib import Path
from typing import Final, TypeVar

import numpy as np

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

_T = TypeVar("_T")

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
        self._folder = folder
        self._seed = seed
        self._progress = progress

    @property
    def documents(self) -> Vectors:
        """float32 (N, D), as they were encoded."""
        return self._documents.vectors

    @property
    def truncated(self) -> int:
        """How many documents were longer than the encoder's window."""
        return self._documents.truncated

    @cached_property
    def queries(self) -> Vectors:
        """float32 (Q, D)."""
        return self._queries(self.data.task.queries)

    @cached_property
    def train(self) -> Vectors:
        """float32 (T, D), of the train queries."""
        return self._queries(self.data.train)

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
        training = Training(self.train, self.data.pairs) if self.data.train else None
        spaces: dict[Arm, Space] = {}
        refused: dict[Arm, str] = {}
        for arm in ARMS:
            try:
                spaces[arm] = fit(arm, self.documents, training, seed=self._seed)
            except CorpusError as error:
                refused[arm] = str(error)
        return spaces, refused

    @cached_property
    def encoder(self) -> Encoder:
        """The encoder itself, its model loaded when first asked for."""
        return open_encoder(self.config)

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

    @cached_property
    def _documents(self) -> EncodedBatch:
        texts = self.texts()
        return self._kept("documents", texts, texts, lambda encoder, some: encoder.encode_texts(some))

    def _queries(self, queries: Sequence[Query]) -> Vectors:
        if not queries:
            return np.empty((0, self.documents.shape[1]), dtype=np.float32)
        asked = [[query.text, query.task] for query in queries]
        return self._kept(
            "queries", asked, queries, lambda encoder, some: EncodedBatch(encoder.encode_queries(some), 0)
        ).vectors

    def _kept(
        self, what: str, key: object, given: Sequence[_T], encode: Callable[[Encoder, Sequence[_T]], EncodedBatch]
    ) -> EncodedBatch:
        """Return the vectors of what is given, encoded where no file has them. key: what they depend on, as JSON."""
        digest = blake2b(json.dumps(key).encode(), digest_size=16).hexdigest()
        path = self._folder / f"{self.fingerprint}-{what}-{digest}.npz"
        found = _read(path, len(given))
        if found is None:
            found = self._encoded(what, given, encode)
            _write(path, found)
        return found

    def _encoded(
        self, what: str, given: Sequence[_T], encode: Callable[[Encoder, Sequence[_T]], EncodedBatch]
    ) -> EncodedBatch:
        parts = []
        for start in range(0, len(given), _AT_ONCE):
            parts.append(encode(self.encoder, given[start : start + _AT_ONCE]))
            self._progress(f"encode {what}", min(len(given), start + _AT_ONCE), len(given))
        return EncodedBatch(np.concatenate([part.vectors for part in parts]), sum(part.truncated for part in parts))


def _read(path: Path, count: int) -> EncodedBatch | None:
    if not path.is_file():
        return None
    try:
        with (
            storage_errors("read", path),
            path.open("rb") as raw,  # np.load leaves a damaged file of its own open
            np.load(raw, allow_pickle=False) as file,
        ):
            found = EncodedBatch(file["vectors"], int(file["truncated"]))
    except (ValueError, KeyError, EOFError, zipfile.BadZipFile):
        found = None
    if found is None or len(found.vectors) != count:
        _log.warning("%s is damaged: the texts are encoded again", path)
        return None
    return found


def _write(path: Path, batch: EncodedBatch) -> None:
    make_folders(path.parent)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with storage_errors("write", path):
        try:
            with temporary.open("wb") as file:
                np.savez(file, allow_pickle=False, vectors=batch.vectors, truncated=batch.truncated)
            temporary.replace(path)
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

    def encode_queries(self, queries: Sequence[Query]) -> Vectors:
        """See Encoder."""
        places = [self._places.get((query.text, query.task), -1) for query in queries]
        if -1 in places:
            return self._vectors.encoder.encode_queries(queries)
        return self._vectors.queries[places]

    def encode_passages(self, passages: Sequence[Passage]) -> Vectors:
        """See Encoder."""
        return self.encode_texts([passage_text(passage) for passage in passages]).vectors

    def encode_texts(self, texts: Sequence[str]) -> EncodedBatch:
        """See Encoder."""
        rows = [self._rows.get(text, -1) for text in texts]
        if -1 in rows:
            return self._vectors.encoder.encode_texts(texts)
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
