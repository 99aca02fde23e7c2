"""Vectors that clients bring: nothing is encoded here."""

from collections.abc import Sequence
from typing import NoReturn

from index.errors import RequestError
from retrieval.encoders.config import EncodedBatch, EncoderConfig
from retrieval.types import Passage, Query


class ExternalEncoder:
    """Stands where an encoder is expected and refuses to encode; knows only the dimension."""

    def __init__(self, config: EncoderConfig, fingerprint: str) -> None:
        assert config.dim is not None, "EncoderConfig requires dim for external"
        self.dim = config.dim
        self.fingerprint = fingerprint

    def encode_queries(self, queries: Sequence[Query]) -> NoReturn:
        """Raise RequestError: a query must bring its vector."""
        raise RequestError(
            f"query {queries[0].id if queries else ''!r} brings no vector and this field's encoder is external: "
            f"give Query.vectors[field], float32 ({self.dim},)"
        )

    def encode_passages(self, passages: Sequence[Passage]) -> NoReturn:
        """Raise RequestError: a document must bring its vector."""
        raise RequestError(
            f"document {passages[0].doc_id if passages else ''!r} brings no vector and this field's encoder is "
            f"external: give Document.vectors[field], float32 ({self.dim},)"
        )

    def encode_texts(self, texts: Sequence[str]) -> EncodedBatch:
        """Raise RequestError: text has no vector here."""
        raise RequestError(
            f"{len(texts)} texts have no vectors and this field's encoder is external: "
            f"give Document.vectors[field], float32 ({self.dim},)"
        )
