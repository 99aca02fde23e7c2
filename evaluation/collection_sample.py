"""A sample of a collection's dense field as the encoder made it, whatever the field's metric makes of vectors."""

from collections.abc import Collection as Names
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from index.errors import ConfigError, RequestError
from index.types import Rows, Vectors
from retrieval.collection import Collection
from retrieval.types import Query

_BLOCK = 1_024
_DEEPER = 10


@dataclass(frozen=True, slots=True, eq=False)
class FieldSample:
    """Passages of one field. vectors: float32 (S, D), not prepared. document_of: int64 (S,), positions in doc_ids.

    total: passages alive in the whole collection.
    """

    name: str
    vectors: Vectors = field(repr=False)
    document_of: Rows = field(repr=False)
    doc_ids: tuple[str, ...] = field(repr=False)
    total: int

    def depth(self, k: int) -> int:
        """Return how many passages to look at for k documents: k times the most that a document has, at most 10 k."""
        return k * min(_DEEPER, int(np.bincount(self.document_of).max(initial=1)))

    def documents(self, rows: Rows) -> Rows:
        """Return the documents of passages, positions in doc_ids; -1 stays."""
        return np.where(rows >= 0, self.document_of[rows], -1)


def sample_field(collection: Collection, name: str, *, most: int, keep: Names[str] = (), seed: int = 0) -> FieldSample:
    """Return at most `most` passages of a field, a seeded sample; all passages of documents in `keep` stay.

    Raises ConfigError where the collection has no such dense field, RequestError where it holds nothing,
    IndexFormatError where vectors are missing. Cost: reads the sample's vectors; 16 bytes a passage besides.
    """
    if name not in collection.config.dense_fields():
        known = ", ".join(collection.config.dense_fields()) or "none"
        raise ConfigError(f"{collection.folder} has no dense field {name!r}; dense fields: {known}")
    shard = collection.shard
    with shard.reading() as reading:
        view = reading.view
        rows = view.allowed(None).rows()
        if not len(rows):
            raise RequestError(f"{collection.folder} holds no passages: add documents first")
        doc_ids = np.array(view.doc_ids(view.documents(rows)), dtype=np.str_)
        chosen = _chosen(doc_ids, most, keep, seed)
        names = doc_ids[chosen].tolist()
        dim = shard.vectors.dim(name)
        blocks = [
            shard.vectors.fresh(
                reading.snapshot,
                name,
                dim,
                rows[chosen[start : start + _BLOCK]].tolist(),
                names[start : start + _BLOCK],
            )
            for start in range(0, len(chosen), _BLOCK)
        ]
    known_ids, document_of = np.unique(doc_ids[chosen], return_inverse=True)
    vectors = np.ascontiguousarray(np.concatenate(blocks), dtype=np.float32)
    return FieldSample(name, vectors, document_of.astype(np.int64), tuple(known_ids.tolist()), len(rows))


def _chosen(doc_ids: npt.NDArray[np.str_], most: int, keep: Names[str], seed: int) -> Rows:
    order = np.random.default_rng(seed).permutation(len(doc_ids))
    kept = np.isin(doc_ids[order], np.array(sorted(keep), dtype=np.str_)) if keep else np.zeros(len(order), np.bool_)
    first = np.concatenate([order[kept], order[~kept]])
    return np.sort(first[: max(most, int(kept.sum()))]).astype(np.int64)


def query_vectors(collection: Collection, name: str, queries: Sequence[Query]) -> Vectors:
    """Return queries as the field's encoder sees them, float32 (Q, D). Raises ConfigError for an external encoder."""
    field_config = collection.config.dense_fields()[name]
    if field_config.encoder.kind == "external":
        raise ConfigError(f"field {name!r} gets its vectors from clients: its queries have no vectors in a file")
    return collection.shard.vectors.encoder(name).encode_queries(queries)
