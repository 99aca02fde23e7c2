"""What decides a reranker."""

from dataclasses import dataclass, field
from typing import Any, Literal

from index.errors import ConfigError
from retrieval.encoders.config import EncoderConfig

_CROSS_ENCODER_ONLY = ("path", "max_tokens", "device", "threads")
"""Keys that mean something only for a cross-encoder; each is None unless given."""


@dataclass(frozen=True, slots=True)
class RerankerConfig:
    """A `[rerankers.NAME]` table.

    kind: "similarity" compares the vectors of query and candidate, needs no model of its own and is the least costly;
    "cross-encoder" reads both together, a pair at a time.
    encoder: of "similarity": an EncoderConfig table, by default the packaged MiniLM.
    path: of "cross-encoder": the folder of a sentence-transformers CrossEncoder, or of a transformers model for
    sequence classification, with safetensors weights. It is never downloaded.
    max_tokens: window of one pair, special tokens included; None = the model's own.
    batch_tokens: padded tokens in one forward pass, which is also how finely a deadline cuts. None = what suits it.
    device, threads: of "cross-encoder": as in EncoderConfig.
    Raises ConfigError on a value that cannot work.
    """

    kind: Literal["similarity", "cross-encoder"] = "similarity"
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    path: str | None = None
    max_tokens: int | None = None
    batch_tokens: int | None = None
    device: str | None = None
    threads: int | None = None

    def __post_init__(self) -> None:
        if self.kind not in {"similarity", "cross-encoder"}:
            raise ConfigError(f"reranker.kind is {self.kind!r}; allowed: 'similarity', 'cross-encoder'")
        for name, least in (("max_tokens", 8), ("batch_tokens", 1), ("threads", 1)):
            value: Any = getattr(self, name)
            if value is not None and value < least:
                raise ConfigError(f"reranker.{name} is {value}, expected at least {least}")
        if self.kind == "cross-encoder":
            if not self.path:
                raise ConfigError("reranker.path is required for reranker.kind = 'cross-encoder': the model's folder")
            if self.encoder != EncoderConfig():
                raise ConfigError("reranker.encoder has no meaning for reranker.kind = 'cross-encoder': remove it")
            return
        given = [name for name in _CROSS_ENCODER_ONLY if getattr(self, name) is not None]
        if given:
            raise ConfigError(
                f"reranker.{given[0]} has no meaning for reranker.kind = 'similarity': "
                "remove it, or set the key of that name under reranker.encoder"
            )
        if self.encoder.kind == "external":
            raise ConfigError("reranker.encoder.kind is 'external', which encodes no text: give a model, or 'hashing'")
