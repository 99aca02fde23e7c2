"""Encoders and stored vectors of a shard's dense fields."""

import json
import logging
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from index.durable import make_folders, write_json_atomic
from index.errors import CorpusError, IndexFormatError
from index.metric import check_vectors
from index.types import Vectors
from retrieval.batching import Limits
from retrieval.collection_config import CollectionConfig
from retrieval.config import digest_of, to_table
from retrieval.encoders import EncoderConfig, fingerprint, open_encoder
from retrieval.encoders.batched import BatchedEncoder
from retrieval.encoders.model_encoder import ModelEncoder
from retrieval.protocols import Encoder
from retrieval.store import StoreSnapshot
from retrieval.vector_store import VectorStore

log = logging.getLogger(__name__)

Keys = npt.NDArray[np.uint64]
"""uint64 (N, 2): text keys (16 bytes) as two little-endian integers."""


def keys_array(keys: Sequence[bytes]) -> Keys:
    """Return 16-byte keys as uint64 (N, 2)."""
    return np.frombuffer(b"".join(keys), dtype="<u8").reshape(-1, 2).astype(np.uint64, copy=False)


class Encoders:
    """The encoders of a process, each loaded at first use and shared by all fields and threads that name it."""

    def __init__(self) -> None:
        self._encoders: dict[EncoderConfig, Encoder] = {}
        self._preferred: dict[str, EncoderConfig] = {}
        self._lock = threading.Lock()

    def prefer(self, config: EncoderConfig) -> None:
        """Let fields whose vectors `config` makes use its encoder: its backend and device count then, not theirs.

        Of several that make the same vectors, the first. Raises ConfigError.
        """
        self._preferred.setdefault(fingerprint(config), config)

    def of_field(self, config: EncoderConfig, vectors: str) -> EncoderConfig:
        """Return the configuration by which a field is encoded. config: its own. vectors: the fingerprint of that."""
        return self._preferred.get(vectors, config)

    def get(self, config: EncoderConfig) -> Encoder:
        """Return the encoder of a configuration, loading it when new. Raises ConfigError."""
        self.load(config)
        return self._encoders[config]

    def load(self, config: EncoderConfig) -> bool:
        """Load the encoder of a configuration; return whether it is new."""
        if config in self._encoders:
            return False
        with self._lock:
            if config in self._encoders:
                return False
            encoder = open_encoder(config)
            if isinstance(encoder, ModelEncoder):  # calls of a model gain from sharing batches
                encoder = BatchedEncoder(encoder, Limits(batch_cost=encoder.batch_tokens))
            self._encoders[config] = encoder
            return True


class FieldVectors:
    """Finds and keeps the vectors of a shard's dense fields: client vectors, fresh ones, and the vector stores."""

    def __init__(self, folder: Path, config: CollectionConfig, encoders: Encoders) -> None:
        self._folder = folder / "vectors"
        self._encoders = encoders
        self._fingerprints = {name: fingerprint(field.encoder) for name, field in config.dense_fields().items()}
        self._fields = config.dense_fields()
        self._configs = {
            name: encoders.of_field(field.encoder, self._fingerprints[name]) for name, field in self._fields.items()
        }
        for name, used in self._configs.items():
            if used != self._fields[name].encoder:
                log.info("field %s of %s is encoded by the preferred settings, %s, not its own", name, folder, used)
        self._stores: dict[str, VectorStore] = {}
        self._lock = threading.Lock()

    def encoder(self, name: str) -> Encoder:
        """Return the encoder of a field."""
        return self._encoders.get(self._configs[name])

    def runs_on(self, name: str) -> str:
        """Return what runs the model of a field's encoder and how it compares, "" where there is no model."""
        encoder = self.encoder(name)
        if not (isinstance(encoder, BatchedEncoder) and isinstance(encoder.encoder, ModelEncoder)):
            return ""
        model = encoder.encoder
        return model.choice.summary if model.choice else model.backend

    def load(self, name: str) -> bool:
        """Load the encoder of a field; return whether it was not loaded before."""
        return self._encoders.load(self._configs[name])

    @property
    def fingerprints(self) -> Mapping[str, str]:
        """Fingerprint of each dense field's encoder."""
        return self._fingerprints

    def fingerprint(self, name: str) -> str:
        """Return the fingerprint of a field's encoder without loading it."""
        return self._fingerprints[name]

    def dim(self, name: str) -> int:
        """Return the dimension of a field's vectors; its model is loaded only where no store remembers it."""
        config = self._fields[name].encoder
        if config.kind == "external":
            return config.dim or 0
        return self._remembered(name) or self.encoder(name).dim

    def _about(self, name: str) -> Path:
        return self._folder / self._fingerprints[name] / "encoder.json"

    def _remembered(self, name: str) -> int | None:
        """Return the noted dimension; None where there is no note, or a damaged one."""
        try:
            value = json.loads(self._about(name).read_bytes())
            checksum = value.pop("checksum")
        except (FileNotFoundError, ValueError, KeyError, AttributeError):
            return None
        return int(value["dim"]) if checksum == digest_of(value) else None

    def remember(self, name: str) -> None:
        """Note beside a field's vector store what made its vectors: for people, and for `dim`."""
        if self._remembered(name) is not None:
            return
        about = self._about(name)
        make_folders(about.parent)
        value = {"dim": self.encoder(name).dim, **to_table(self._fields[name].encoder)}
        write_json_atomic(about, {**value, "checksum": digest_of(value)}, point="encoder")

    def store(self, name: str, dim: int) -> VectorStore:
        """Return the vector store of a field's encoder."""
        key = self._fingerprints[name]
        with self._lock:
            if key not in self._stores:
                self._stores[key] = VectorStore(self._folder / key, dim)
            return self._stores[key]

    def unknown(self, snapshot: StoreSnapshot, name: str, keys: Sequence[bytes]) -> list[bytes]:
        """Return the distinct keys that neither SQLite nor the vector store has a vector for, in order."""
        distinct = list(dict.fromkeys(keys))
        fresh = snapshot.fresh_known(self._fingerprints[name], distinct)
        rest = [key for key in distinct if key not in fresh]
        if not rest:
            return []
        stored = self.store(name, self.dim(name)).contains(keys_array(rest))
        return [key for key, known in zip(rest, stored, strict=True) if not known]

    def clean(self) -> None:
        """Remove what killed writers left behind in the vector stores, and renew damaged notes about encoders."""
        for name in self._encoded():
            self.remember(name)
        for store in self._used_stores():
            store.clean()
            for leftover in store.folder.glob(".encoder.json.*.tmp"):
                leftover.unlink()

    def compact(self, keep: Keys) -> None:
        """Merge small shards of the vector stores and drop vectors of texts that are gone. keep: keys still in use."""
        for store in self._used_stores():
            store.compact(keep)

    def _encoded(self) -> list[str]:
        return [name for name, field in self._fields.items() if field.encoder.kind != "external"]

    def _used_stores(self) -> list[VectorStore]:
        stores = [self.store(name, self.dim(name)) for name in self._encoded()]
        return list({store.folder: store for store in stores}.values())

    def problems(self, name: str) -> list[str]:
        """Return one line per damaged shard of a field's vector store."""
        store = self.store(name, self.dim(name))
        note = self._about(name)
        damaged = [f"{note} is damaged; `grapnel compact` writes it again"] if note.exists() else []
        return (damaged if self._remembered(name) is None else []) + [
            f"vector store of field {name!r}: shard {shard} is damaged; `grapnel compact` encodes its texts again"
            for shard in store.verify()
        ]

    def fresh(
        self, snapshot: StoreSnapshot, name: str, dim: int, rows: Sequence[int], doc_ids: Sequence[str]
    ) -> Vectors:
        """Return the raw vectors of fresh passages, float32 (len(rows), D), in order.

        Raises IndexFormatError where one is missing.
        """
        if self._fields[name].encoder.kind == "external":
            return client_vectors(snapshot, name, doc_ids)
        by_row = snapshot.keys_of(rows)
        keys = [by_row[row] for row in rows]
        found = snapshot.fresh_vectors(self._fingerprints[name], keys, dim)
        missing = [key for key in dict.fromkeys(keys) if key not in found]
        if missing:
            found |= self._stored(name, dim, missing)
        return np.stack([found[key] for key in keys])

    def _stored(self, name: str, dim: int, keys: list[bytes]) -> dict[bytes, npt.NDArray[np.float32]]:
        store = self.store(name, dim)
        wanted = keys_array(keys)
        mask, vectors = store.get(wanted)
        if not mask.all():
            store.refresh()  # another process may have moved them here meanwhile
            mask, vectors = store.get(wanted)
        if not mask.all():
            raise IndexFormatError(
                f"field {name!r} lacks the vectors of {int((~mask).sum())} texts: `grapnel compact` encodes them again"
            )
        return dict(zip(keys, vectors, strict=True))


def client_vectors(snapshot: StoreSnapshot, name: str, doc_ids: Sequence[str]) -> Vectors:
    """Return the client vectors of documents for an external field, float32 (n, D), in order."""
    found: Mapping[str, npt.NDArray[np.float32]] = snapshot.client_vectors(name, set(doc_ids))
    return np.stack([found[doc_id] for doc_id in doc_ids])


def check_client_vectors(config: CollectionConfig, doc_id: str, vectors: Mapping[str, npt.NDArray[np.float32]]) -> None:
    """Check that a document brings exactly the vectors that external fields need. Raises CorpusError."""
    external = {
        name: field.encoder.dim for name, field in config.dense_fields().items() if field.encoder.kind == "external"
    }
    if vectors.keys() != external.keys():
        raise CorpusError(
            f"document {doc_id!r} brings vectors for {sorted(vectors)}, the external fields are {sorted(external)}"
        )
    for name, vector in vectors.items():
        try:
            check_vectors(np.asarray(vector)[None, :], external[name])
        except ValueError as error:
            raise CorpusError(f"document {doc_id!r}, field {name!r}: {error}") from error


__all__ = ["Encoders", "FieldVectors", "Keys", "check_client_vectors", "client_vectors", "keys_array"]
