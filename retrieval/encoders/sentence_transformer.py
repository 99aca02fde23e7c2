"""Any sentence-transformers model as an encoder: token-budgeted, length-sorted batches, and truncation counted."""

import logging
import threading
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from index.errors import ConfigError, RequestError
from index.types import Vectors
from retrieval.encoders import check_queries, passage_text
from retrieval.encoders.config import EncodedBatch, EncoderConfig
from retrieval.encoders.model_files import ModelFiles, find_model
from retrieval.encoders.model_inputs import model_inputs
from retrieval.types import Passage, Query

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

_log = logging.getLogger(__name__)

_TEXTS = 1_024
"""Texts tokenised and sorted together: bounds the memory of token ids."""

_CPU_BATCH_TOKENS = 4_096
_BATCH_TOKENS = 16_384
_SEARCH = "search"
"""The default task; it takes the query prompt."""


class SentenceTransformerEncoder:
    """A loaded sentence-transformers model.

    Vectors equal `SentenceTransformer.encode` with the same prompt to within 1e-5, whatever the batch.
    Safe to call from several threads: calls take turns, for a model keeps the device busy anyway.
    Only safetensors weights are read, and no code of the model's own is run.
    """

    def __init__(self, config: EncoderConfig, fingerprint: str) -> None:
        files = find_model(config)
        self.fingerprint = fingerprint
        self._model = _load(config, files)
        self._query_prompt = files.prompt(config.query_prompt, "query")
        self._document_prompt = files.prompt(config.document_prompt, "document")
        self._task_prompts = files.prompts
        self._scale = bool(config.normalize) or (files.normalizes and config.dim is not None)
        self._batch_tokens = config.batch_tokens or (
            _CPU_BATCH_TOKENS if self._model.device.type == "cpu" else _BATCH_TOKENS
        )
        self._inputs = model_inputs(self._model)
        self._lock = threading.Lock()
        self.dim = _dimension(config, self._model)

    @property
    def window(self) -> int | None:
        """Tokens of one input, special tokens and prompt included; None = unlimited."""
        return self._inputs.window

    def encode_queries(self, queries: Sequence[Query]) -> Vectors:
        """Return float32 (len(queries), D); each query is encoded with the prompt of its own task.

        Task "search" takes the query prompt, any other task the prompt that the model declares under its name.
        Raises RequestError on a task the model does not know and on text that is not valid Unicode.
        """
        texts = [query.text for query in queries]
        check_queries(texts)
        vectors = np.empty((len(texts), self.dim), dtype=np.float32)
        rows_of: dict[str, list[int]] = {}
        for row, query in enumerate(queries):
            rows_of.setdefault(self._prompt_of(query), []).append(row)
        for prompt, rows in rows_of.items():
            vectors[rows] = self._encode([texts[row] for row in rows], prompt, "query").vectors
        return vectors

    def encode_passages(self, passages: Sequence[Passage]) -> Vectors:
        """Return float32 (len(passages), D), in the order given."""
        return self.encode_texts([passage_text(passage) for passage in passages]).vectors

    def encode_texts(self, texts: Sequence[str]) -> EncodedBatch:
        """Encode the texts of passages (see `passage_text`) with the document prompt.

        Returns float32 (len(texts), D), and how many texts were longer than the window and so only begun.
        """
        return self._encode(texts, self._document_prompt, "document")

    def token_count(self, texts: Sequence[str]) -> list[int]:
        """Return the tokens of each text as encoded for passages (prompt and special tokens included), uncut."""
        with self._lock:
            return self._inputs.count([self._document_prompt + text for text in texts])

    def _prompt_of(self, query: Query) -> str:
        if query.task == _SEARCH:
            return self._query_prompt
        prompt = self._task_prompts.get(query.task)
        if prompt is None:
            known = ", ".join(map(repr, sorted({_SEARCH, *self._task_prompts})))
            raise RequestError(f"query {query.id!r} has task {query.task!r}; this encoder knows {known}")
        return prompt

    def _encode(self, texts: Sequence[str], prompt: str, task: str) -> EncodedBatch:
        vectors = np.empty((len(texts), self.dim), dtype=np.float32)
        truncated = 0
        for start in range(0, len(texts), _TEXTS):
            truncated += self._encode_block(texts[start : start + _TEXTS], prompt, task, vectors[start:])
        if self._scale:
            norms = np.sqrt(np.einsum("nd,nd->n", vectors, vectors))
            vectors /= np.maximum(norms, np.finfo(np.float32).tiny)[:, None]
        return EncodedBatch(vectors, truncated)

    def _encode_block(self, texts: Sequence[str], prompt: str, task: str, out: Vectors) -> int:
        """Encode one block into the first rows of `out`; return how many texts were truncated."""
        from torch import inference_mode  # noqa: PLC0415  already imported with the model

        with self._lock, inference_mode():
            prepared = self._inputs.prepare(texts, prompt, task)
            for rows in _batches(prepared.lengths, self._batch_tokens):
                features = prepared.features(rows)
                output: Any = self._model(features, task=task)["sentence_embedding"]
                out[rows] = output[:, : self.dim].float().cpu().numpy()
        return prepared.truncated


def _batches(lengths: npt.NDArray[np.int64], budget: int) -> Iterator[npt.NDArray[np.int64]]:
    """Yield rows, longest texts first, so that (longest in batch) * (texts in batch) stays within the budget."""
    order = np.argsort(-lengths, kind="stable")
    start = 0
    while start < len(order):
        size = max(1, budget // max(1, int(lengths[order[start]])))
        yield order[start : start + size]
        start += size


def _load(config: EncoderConfig, files: ModelFiles) -> "SentenceTransformer":
    from safetensors import SafetensorError  # noqa: PLC0415  heavy imports wait until a model is opened
    from sentence_transformers import SentenceTransformer  # noqa: PLC0415
    from transformers.utils import logging as progress  # noqa: PLC0415

    shown = progress.is_progress_bar_enabled()
    progress.disable_progress_bar()  # type: ignore[no-untyped-call]  # transformers leaves it untyped
    try:
        model = SentenceTransformer(
            str(files.folder),
            device=config.device,
            trust_remote_code=False,
            local_files_only=True,
            model_kwargs={"use_safetensors": True},
        )
    except (OSError, ValueError, RuntimeError, ImportError, AssertionError, SafetensorError) as error:
        raise ConfigError(
            f"encoder.path {config.path!r}: the model in {files.folder} cannot be loaded ({error}): "
            "give a complete sentence-transformers model without code of its own"
        ) from error
    finally:
        if shown:
            progress.enable_progress_bar()  # type: ignore[no-untyped-call]  # transformers leaves it untyped
    model.eval()
    if config.max_tokens is not None:
        _set_window(model, config.max_tokens)
    _log.info("loaded encoder %s on %s, window %s tokens", config.path, model.device, model.max_seq_length)
    return model


def _set_window(model: "SentenceTransformer", max_tokens: int) -> None:
    positions = getattr(model.config, "max_position_embeddings", None)
    if positions is not None and 0 < positions < max_tokens:
        raise ConfigError(f"encoder.max_tokens is {max_tokens}, the model has {positions} positions: lower it")
    model.max_seq_length = max_tokens


def _dimension(config: EncoderConfig, model: "SentenceTransformer") -> int:
    if config.dim is not None:
        model.truncate_dim = None  # what the model asks for itself gives way
    own = model.get_embedding_dimension()
    if own is None:
        raise ConfigError(f"model {config.path!r} does not say its dimension: add a pooling module")
    if config.dim is not None and config.dim > own:
        raise ConfigError(f"encoder.dim is {config.dim}, model {config.path!r} gives {own}: lower encoder.dim")
    return config.dim or own
