"""Reranking by a cross-encoder: a model that reads the query and one candidate together and gives one number."""

import contextlib
import logging
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from index.errors import ConfigError, DeadlineError, RerankerError
from index.threads import threads
from retrieval.encoders.config import EncoderConfig
from retrieval.encoders.model_files import find_model
from retrieval.protocols import Candidate, RerankResult
from retrieval.rerankers import (
    Scored,
    check_deadline,
    checked_texts,
    head,
    pieces,
    rerank_pointwise,
    truncated_note,
)
from retrieval.rerankers.config import RerankerConfig

if TYPE_CHECKING:
    from sentence_transformers import CrossEncoder

_log = logging.getLogger(__name__)

_CPU_BATCH_TOKENS = 1_024
_BATCH_TOKENS = 16_384

_TEXTS = 128
"""Texts tokenised at a time: a deadline is looked at in between."""

_NO_LIMIT = 10**9
"""Tokenizers that know no window declare a huge number instead."""


class CrossEncoderReranker:
    """A sentence-transformers CrossEncoder run by torch in float32.

    Scores are those of `CrossEncoder.predict` to within 1e-5, whatever the batch: the model's own activation of its
    logit, a sigmoid unless it declares another, computed in float64 so that confident scores do not all become 1.
    What a pair has beyond the window is not read; a note counts these.
    Safe to call from several threads: forward passes take turns, and a call whose turn does not come until its
    deadline leaves the rest as it was. `threads` sets torch's threads for the whole process.
    Only safetensors weights of a folder on this machine are read, and no code of the model's own is run.
    Raises ConfigError where the folder is no such model, has no scoring head of its own or gives several numbers.
    Cost: the model's work on each pair.
    """

    def __init__(self, config: RerankerConfig) -> None:
        import torch  # noqa: PLC0415  heavy imports wait until a model is opened

        wanted = config.threads or threads()
        if wanted is not None:
            torch.set_num_threads(wanted)
        self._model = _load(config)
        self._logits = torch.nn.Identity()
        self._tensor = torch.from_numpy
        window = self._model.max_seq_length
        self._window = None if window is None or window >= _NO_LIMIT else int(window)
        on_cpu = self._model.device.type == "cpu"
        self._batch_tokens = config.batch_tokens or (_CPU_BATCH_TOKENS if on_cpu else _BATCH_TOKENS)
        self._lock = threading.Lock()

    def rerank(
        self, query: str, candidates: Sequence[Candidate], *, top_k: int, deadline: float | None
    ) -> RerankResult:
        """See Reranker. A pass reads up to `batch_tokens` tokens, padding included."""
        texts = checked_texts(query, candidates, top_k)
        lengths: list[int] = []
        truncated = 0

        def work() -> Iterator[slice]:
            for start in range(0, len(texts.distinct), _TEXTS):
                uncut = self._lengths(query, texts.distinct[start : start + _TEXTS], deadline)
                lengths.extend(uncut)
                for piece in pieces([self._read(length) for length in uncut], self._batch_tokens):
                    yield slice(start + piece.start, start + piece.stop)

        def score(piece: slice) -> Scored:
            nonlocal truncated
            scores = self._scores(query, texts.distinct[piece], deadline)
            read = [self._read(length) for length in lengths[piece]]
            truncated += sum(length > tokens for length, tokens in zip(lengths[piece], read, strict=True))
            return Scored(scores, 1, sum(read))

        result = rerank_pointwise(work(), score, texts, top_k=top_k, deadline=deadline)
        return replace(result, notes=result.notes + truncated_note(truncated, self._window))

    def _read(self, length: int) -> int:
        """Return how many tokens of a pair the model reads."""
        return length if self._window is None else min(length, self._window)

    def _lengths(self, query: str, texts: Sequence[str], deadline: float | None) -> list[int]:
        """Return the tokens of each pair; more than the window where the pair does not fit it."""
        heads = [head(text, self._window) for text in texts]
        asked = head(query, self._window)
        tokenizer: Any = self._model.tokenizer
        with self._turn(deadline):  # transformers sets truncation on the tokenizer that all calls share
            tokens = tokenizer([asked] * len(heads), heads, truncation=False, padding=False, verbose=False)["input_ids"]
        lengths = [len(ids) for ids in tokens]
        if self._window is not None:
            for place, text in enumerate(texts):
                if len(heads[place]) < len(text) or len(asked) < len(query):
                    lengths[place] = max(lengths[place], self._window + 1)
        return lengths

    def _scores(self, query: str, texts: Sequence[str], deadline: float | None) -> npt.NDArray[np.float64]:
        """Return the model's score of each pair, float64 (n,), from one forward pass."""
        asked = head(query, self._window)
        pairs = [(asked, head(text, self._window)) for text in texts]
        with self._turn(deadline):
            try:
                logits = self._model.predict(
                    pairs, batch_size=len(pairs), show_progress_bar=False, activation_fn=self._logits
                )
            except (RuntimeError, IndexError) as error:  # out of memory, a device that is gone; ids beyond the model's
                _log.warning("the cross-encoder failed on %d pairs: %s", len(pairs), error)
                raise RerankerError(
                    f"the cross-encoder failed on {len(pairs)} pairs ({type(error).__name__}): "
                    "the log says why; a smaller reranker.batch_tokens needs less memory"
                ) from error
        activation: Any = self._model.activation_fn
        scores: npt.NDArray[np.float64] = activation(self._tensor(logits.astype(np.float64))).numpy()
        return scores

    @contextlib.contextmanager
    def _turn(self, deadline: float | None) -> Iterator[None]:
        """Have the model to oneself. Raises DeadlineError when one's turn has not come until the deadline."""
        check_deadline(deadline)
        wait_s = -1.0  # for ever
        if deadline is not None:
            wait_s = min(max(0.0, deadline - time.monotonic()), threading.TIMEOUT_MAX)
        if not self._lock.acquire(timeout=wait_s):
            raise DeadlineError("other calls kept the reranker busy until the deadline: allow more time")
        try:
            yield
        finally:
            self._lock.release()


def _load(config: RerankerConfig) -> "CrossEncoder":
    import torch  # noqa: PLC0415  heavy imports wait until a model is opened
    from safetensors import SafetensorError  # noqa: PLC0415
    from sentence_transformers import CrossEncoder  # noqa: PLC0415
    from transformers.utils import logging as progress  # noqa: PLC0415

    folder = _folder(config)
    shown = progress.is_progress_bar_enabled()
    progress.disable_progress_bar()  # type: ignore[no-untyped-call]  # transformers leaves it untyped
    try:
        model: CrossEncoder = CrossEncoder(
            str(folder),
            device=config.device,
            trust_remote_code=False,
            local_files_only=True,
            model_kwargs={"use_safetensors": True, "dtype": torch.float32},
        )
    except (OSError, ValueError, RuntimeError, ImportError, AssertionError, SafetensorError) as error:
        raise ConfigError(
            f"reranker.path {config.path!r}: the model in {folder} cannot be loaded ({error}): "
            "give a complete cross-encoder without code of its own"
        ) from error
    finally:
        if shown:
            progress.enable_progress_bar()  # type: ignore[no-untyped-call]  # transformers leaves it untyped
    _check_head(config, model)
    if config.max_tokens is not None:
        _set_window(config.max_tokens, model)
    model.eval()
    _log.info("loaded reranker %s on %s, window %s tokens", config.path, model.device, model.max_seq_length)
    return model


def _folder(config: RerankerConfig) -> Path:
    """Return the model's folder, its weights checked. Raises ConfigError."""
    folder = Path(config.path or "").expanduser()
    if not folder.is_dir():
        raise ConfigError(
            f"reranker.path {config.path!r} is no folder: give the folder of a cross-encoder (none is downloaded)"
        )
    return find_model(EncoderConfig(path=str(folder.resolve()))).folder


def _check_head(config: RerankerConfig, model: "CrossEncoder") -> None:
    """Raise ConfigError on a model without a head: sentence-transformers would give it a random one, with no error."""
    transformer: Any = model[0]
    saved: list[str] = getattr(model.config, "architectures", None) or []
    if getattr(transformer, "transformer_task", None) == "sequence-classification" and not any(
        name.endswith("ForSequenceClassification") for name in saved
    ):
        raise ConfigError(
            f"reranker.path {config.path!r} holds {', '.join(saved) or 'an unnamed architecture'}, which has no "
            "scoring head: give a cross-encoder; for an encoder set reranker.kind = 'similarity' and reranker.encoder"
        )
    if model.num_labels != 1:
        raise ConfigError(
            f"reranker.path {config.path!r} gives {model.num_labels} numbers for a pair, expected one: "
            "give a cross-encoder trained to rank"
        )


def _set_window(max_tokens: int, model: "CrossEncoder") -> None:
    positions = getattr(model.config, "max_position_embeddings", None)
    if positions and positions < max_tokens:
        raise ConfigError(f"reranker.max_tokens is {max_tokens}, the model has {positions} positions: lower it")
    model.max_seq_length = max_tokens
