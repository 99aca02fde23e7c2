"""Texts to the features of a loaded torch model: as token ids where that is all it takes, else by its own means.

Models whose features are not plain padded token ids (routers, static embeddings, several modalities, padding-free
attention) go through their own `preprocess`.
"""

import threading
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from retrieval.encoders.token_inputs import Inputs, Rows, TokenFormat, TokenInputs

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

_NO_LIMIT = 10**9
"""Tokenizers that know no window declare a huge number instead."""

_FEATURES = ("input_ids", "attention_mask", "token_type_ids")


def model_inputs(model: "SentenceTransformer") -> Inputs:
    """Return the fastest way to feed a model that gives what its own `preprocess` gives."""
    window = model_window(model)
    if window is None or not is_plain(model):
        return _OwnInputs(model, window)
    return TokenInputs(model.tokenizer.backend_tokenizer.to_str(), token_format(model), window, _PromptLength(model))


def model_window(model: "SentenceTransformer") -> int | None:
    """Return the tokens of one input, None = unlimited."""
    window = model.max_seq_length
    return None if window is None or window >= _NO_LIMIT else int(window)


def token_format(model: "SentenceTransformer") -> TokenFormat:
    """Return how a plain model wants its token ids."""
    tokenizer: Any = model.tokenizer
    names = tuple(name for name in _FEATURES if name in tokenizer.model_input_names)
    return TokenFormat(names, tokenizer.pad_token_id, tokenizer.pad_token_type_id, tokenizer.padding_side == "left")


def is_plain(model: "SentenceTransformer") -> bool:
    """Whether features are padded token ids and nothing else, for queries and documents alike."""
    from sentence_transformers.base.modules import Transformer  # noqa: PLC0415  already imported with the model
    from transformers import PreTrainedTokenizerBase  # noqa: PLC0415

    first = model[0]
    return (
        isinstance(first, Transformer)
        and set(first.modality_config) == {"text"}
        and isinstance(first.processor, PreTrainedTokenizerBase)
        and bool(first.processor.is_fast)
        and first.processor.pad_token_id is not None
        and first.processor.truncation_side == "right"
        and {"input_ids", "attention_mask"} <= set(first.processor.model_input_names) <= set(_FEATURES)
        and not first.can_flatten_inputs
        and not first.processing_kwargs
        and first.query_expansion is first.query_length is first.document_length is None
    )


class _PromptLength:
    """The feature by which some poolings leave the prompt out."""

    def __init__(self, model: "SentenceTransformer") -> None:
        self._model = model
        self._known: dict[str, Mapping[str, int]] = {"": {}}
        self._lock = threading.Lock()

    def __call__(self, prompt: str) -> Mapping[str, int]:
        if prompt not in self._known:
            with self._lock:
                features: dict[str, Any] = self._model.preprocess(["a"], prompt=prompt)
            self._known[prompt] = {key: features[key] for key in ("prompt_length",) if key in features}
        return self._known[prompt]


class _OwnInputs:
    """Features made by the model's own `preprocess`, tokenised a second time.

    One call at a time: transformers sets truncation and padding on the shared tokenizer.
    """

    def __init__(self, model: "SentenceTransformer", window: int | None) -> None:
        self.window = window
        self._model = model
        self._lock = threading.Lock()

    def count(self, texts: Sequence[str]) -> list[int]:
        """See Inputs."""
        with self._lock:
            return self._count(texts)

    def prepare(self, texts: Sequence[str], prompt: str, task: str) -> "_OwnBatch":
        """See Inputs."""
        return _OwnBatch(self, texts, prompt, task)

    def features(self, texts: Sequence[str], prompt: str, task: str) -> dict[str, Any]:
        """Return the model's features of prompt + text of each, on its device."""
        from sentence_transformers.util import batch_to_device  # noqa: PLC0415  already imported with the model

        with self._lock:
            features = self._model.preprocess(list(texts), prompt=prompt or None, task=task)
        return batch_to_device(features, self._model.device)

    def _count(self, texts: Sequence[str]) -> list[int]:
        from tokenizers import Tokenizer  # noqa: PLC0415  already imported with the model

        tokenizer: Any = self._model.tokenizer
        if isinstance(tokenizer, Tokenizer):
            return [len(encoding.ids) for encoding in tokenizer.encode_batch(list(texts))]
        if callable(tokenizer):
            return [len(ids) for ids in tokenizer(list(texts), truncation=False, verbose=False)["input_ids"]]
        return [len(tokenizer.tokenize(text)) for text in texts]


class _OwnBatch:
    def __init__(self, inputs: _OwnInputs, texts: Sequence[str], prompt: str, task: str) -> None:
        lengths = np.array(inputs.count([prompt + text for text in texts]), dtype=np.int64)
        self.truncated = 0 if inputs.window is None else int((lengths > inputs.window).sum())
        self.lengths = lengths if inputs.window is None else np.minimum(lengths, inputs.window)
        self._inputs, self._texts, self._prompt, self._task = inputs, texts, prompt, task

    def features(self, rows: Rows) -> dict[str, Any]:
        """See Prepared."""
        return self._inputs.features([self._texts[row] for row in rows], self._prompt, self._task)
