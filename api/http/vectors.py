"""What bodies hold, as the types of `retrieval`."""

from collections.abc import Mapping, Sequence

import numpy as np

from api.http.schemas import DocumentContent
from index.errors import RequestError
from retrieval.types import Document, Vector


def client_vectors(vectors: Mapping[str, Sequence[float]]) -> dict[str, Vector]:
    """Return vectors as float32 (D,). Raises RequestError on a number that float32 cannot hold."""
    result = {}
    for name, values in vectors.items():
        with np.errstate(over="ignore"):
            vector = np.asarray(values, dtype=np.float32)
        if not np.isfinite(vector).all():
            raise RequestError(f"the vector for {name[:80]!r} holds a number that float32 cannot: expected finite ones")
        result[name] = vector
    return result


def document_of(doc_id: str, body: DocumentContent) -> Document:
    """Return the document that a body holds; whether it may be stored is for the collection to say."""
    return Document(doc_id, body.text, body.title, body.metadata, client_vectors(body.vectors))
