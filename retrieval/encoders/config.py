"""What decides an encoder, and the batch that encoders return."""

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, get_args

from index.errors import ConfigError
from index.types import Vectors

DEFAULT_MODEL = "all-MiniLM-L6-v2"

Backend = Literal["torch", "torch-bf16", "torch-fp16", "onnx", "onnx-int8", "openvino", "openvino-bf16"]
"""What runs a model, and in which precision (none said: float32)."""

_MODEL_ONLY = ("revision", "query_prompt", "document_prompt", "max_tokens", "normalize")
"""Keys that mean something only for a model; each is None unless given."""


@dataclass(frozen=True, slots=True)
class EncoderConfig:
    """An `[encoder]` table.

    kind: "sentence-transformers" loads a model; "hashing" hashes words, no model; "external" = clients bring vectors.
    path: a model folder, "all-MiniLM-L6-v2" (packaged weights), or a model hub name. revision: hub branch, tag, commit.
    query_prompt, document_prompt: put before the text; None = what the model declares, "" = nothing.
    dim: Matryoshka truncation of a model; dimension of the other kinds (hashing: 4096 unless given).
    max_tokens: window of the model, special tokens and prompt included; None = the model's own.
    normalize: True scales vectors to unit length; None = as the model does.
    backend, device, batch_tokens, threads: speed only, no part of the fingerprint (ADR 0003).
    backend: what runs the model; "auto" measures once per machine and model and keeps the fastest that agrees with
    torch in float32. device: "cpu", "cuda:0" ..., None = the best one for the backend.
    batch_tokens: padded tokens in one forward pass; None = what suits the backend.
    threads: threads of one forward pass on a CPU; None = GRAPNEL_THREADS, or else what the backend takes by itself.
    Raises ConfigError on a value that cannot work.
    """

    kind: Literal["sentence-transformers", "hashing", "external"] = "sentence-transformers"
    path: str = DEFAULT_MODEL
    revision: str | None = None
    query_prompt: str | None = None
    document_prompt: str | None = None
    dim: int | None = None
    max_tokens: int | None = None
    normalize: bool | None = None
    backend: Literal["auto", Backend] = "auto"
    device: str | None = None
    batch_tokens: int | None = None
    threads: int | None = None

    def __post_init__(self) -> None:
        if self.kind not in {"sentence-transformers", "hashing", "external"}:
            raise ConfigError(f"encoder.kind is {self.kind!r}; allowed: 'sentence-transformers', 'hashing', 'external'")
        allowed = ("auto", *get_args(Backend))
        if self.backend not in allowed:
            raise ConfigError(f"encoder.backend is {self.backend!r}; allowed: {', '.join(map(repr, allowed))}")
        for name, least in (("dim", 1), ("max_tokens", 8), ("batch_tokens", 1), ("threads", 1)):
            value: Any = getattr(self, name)
            if value is not None and value < least:
                raise ConfigError(f"encoder.{name} is {value}, expected at least {least}")
        if self.kind == "sentence-transformers":
            if not self.path:
                raise ConfigError("encoder.path is empty, expected a model folder or name")
            return
        given = [name for name in _MODEL_ONLY if getattr(self, name) is not None]
        given += ["backend"] * (self.backend != "auto")
        if given:
            raise ConfigError(f"encoder.{given[0]} has no meaning for encoder.kind = {self.kind!r}: remove it")
        if self.kind == "external" and self.dim is None:
            raise ConfigError(
                "encoder.dim is required for encoder.kind = 'external': the length of the clients' vectors"
            )


class EncodedBatch(NamedTuple):
    """vectors: float32 (n, D), in the order given. truncated: how many of the n texts were longer than the window."""

    vectors: Vectors
    truncated: int
