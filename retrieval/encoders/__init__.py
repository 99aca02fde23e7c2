"""Text to vectors: sentence-transformers models, signed feature hashing, and vectors that clients bring.

Nothing here imports torch until a model is opened, so a collection can be opened and searched lexically without it.
"""

import hashlib
import json
from dataclasses import replace

from index.errors import RequestError
from retrieval.encoders.config import DEFAULT_MODEL, EncodedBatch, EncoderConfig
from retrieval.protocols import Encoder
from retrieval.store.records import passage_text

FORMAT = 1
"""Raised when the same weights and settings give other vectors than before: old ones are then not mixed with new."""

_TEXT_TEMPLATE = "{title} {text}"
"""What `passage_text` does, as it enters the fingerprint."""


def fingerprint(config: EncoderConfig) -> str:
    """Return the name of the vectors an encoder makes: 32 hex digits, or external-<dim>. No torch, no model loaded.

    Over weights, tokenizer and model configuration (SHA-256 of each file), prompts, dimension, window, normalisation
    and text template. Raises ConfigError where the model cannot be found or is refused.
    Cost: reads the weights once, about 0.1 s for 90 MB; a hub name may download.
    """
    if config.kind == "external":
        return f"external-{config.dim}"
    facts: dict[str, object] = {"format": FORMAT, "kind": config.kind, "template": _TEXT_TEMPLATE}
    if config.kind == "hashing":
        from retrieval.encoders.hashing import DEFAULT_DIM  # noqa: PLC0415  each kind is imported only when used

        facts["dim"] = config.dim or DEFAULT_DIM
    else:
        from retrieval.encoders.model_files import find_model  # noqa: PLC0415  each kind is imported only when used

        facts |= find_model(config).facts(config)
    canonical = json.dumps(facts, sort_keys=True, ensure_ascii=True)
    return hashlib.blake2b(canonical.encode(), digest_size=16).hexdigest()


def open_encoder(config: EncoderConfig) -> Encoder:
    """Return the encoder of a configuration, its model loaded and ready.

    Raises ConfigError where the model cannot be found, is refused (pickle weights, code of its own) or does not fit
    the settings, MissingDependencyError where its backend is not installed. Cost: a model on a machine for the first
    time is exported and measured (about 30 s, see `backend_choice`); then .5 s, or with backend "torch" its import.
    """
    # Each kind is imported only when used: two of the three never need torch.
    if config.kind == "external":
        from retrieval.encoders.external import ExternalEncoder  # noqa: PLC0415

        return ExternalEncoder(config, fingerprint(config))
    if config.kind == "hashing":
        from retrieval.encoders.hashing import HashingEncoder  # noqa: PLC0415

        return HashingEncoder(config, fingerprint(config))
    return _open_model(config)


def _open_model(config: EncoderConfig) -> Encoder:
    from retrieval.encoders.backend_choice import choose  # noqa: PLC0415  each kind is imported only when used
    from retrieval.encoders.backends import check_backend, lossy, open_model  # noqa: PLC0415
    from retrieval.encoders.model_encoder import ModelEncoder  # noqa: PLC0415
    from retrieval.encoders.model_files import find_model  # noqa: PLC0415

    files = find_model(config)
    backend, choice = config.backend, None
    if backend != "auto":
        check_backend(backend, config.device)
    if backend == "auto" or lossy(backend):
        choice = choose(config, files)
        backend, config = choice.backend, replace(config, device=choice.device)
    return ModelEncoder(config, files, fingerprint(config), open_model(config, files, backend), backend, choice)


def check_queries(texts: list[str]) -> None:
    """Raise RequestError where a query's text is no valid Unicode (lone surrogates)."""
    for text in texts:
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise RequestError(
                f"query holds a lone surrogate, U+{ord(text[error.start]):04X} at character {error.start}: "
                "send valid UTF-8 text"
            ) from error


__all__ = [
    "DEFAULT_MODEL",
    "EncodedBatch",
    "Encoder",
    "EncoderConfig",
    "check_queries",
    "fingerprint",
    "open_encoder",
    "passage_text",
]
