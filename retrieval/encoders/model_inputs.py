"""Texts to model features: tokenised once, cut to the window, padded batch by batch.

`SentenceTransformer.encode` sorts by characters and tokenises inside each batch. Knowing the token counts first gives
batches of a fixed cost and shows what is cut; keeping the token ids saves the second tokenisation. Models whose
features are not plain padded token ids (routers, static embeddings, several modalities) go through their own
`preprocess` instead.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

_CHARACTERS_PER_TOKEN = 16
"""A text is first tokenised up to this many characters for each token of the window: few tokens are longer."""

_NO_LIMIT = 10**9
"""Tokenizers that know no window declare a huge number instead."""

Rows = npt.NDArray[np.int64]


class Prepared(Protocol):
    """Texts ready for the model. lengths: tokens of each after cutting, int64 (n,). truncated: how many were cut."""

    lengths: npt.NDArray[np.int64]
    truncated: int

    def features(self, rows: Rows) -> dict[str, Any]:
        """Return the model's features of some of the texts, on its device."""
        ...


class Inputs(Protocol):
    """How texts become features of one model."""

    @property
    def window(self) -> int | None:
        """Tokens of one input, special tokens included; None = unlimited."""
        ...

    def count(self, texts: Sequence[str]) -> list[int]:
        """Return the tokens of each text, special tokens included, uncut."""
        ...

    def prepare(self, texts: Sequence[str], prompt: str, task: str) -> Prepared:
        """Tokenise prompt + text of each."""
        ...


def model_inputs(model: "SentenceTransformer") -> Inputs:
    """Return the fastest way to feed a model that gives what its own `preprocess` gives."""
    window = model.max_seq_length
    window = None if window is None or window >= _NO_LIMIT else int(window)
    if window is not None and _is_plain(model):
        return _TokenInputs(model, window)
    return _OwnInputs(model, window)


def _is_plain(model: "SentenceTransformer") -> bool:
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
        and set(first.processor.model_input_names) <= {"input_ids", "attention_mask", "token_type_ids"}
        and not first.can_flatten_inputs
        and not first.processing_kwargs
        and first.query_expansion is first.query_length is first.document_length is None
    )


class _TokenInputs:
    """Features assembled from token ids."""

    def __init__(self, model: "SentenceTransformer", window: int) -> None:
        self.window = window
        self._model = model
        self._tokenizer: Any = model.tokenizer
        self._prompt_lengths: dict[str, Mapping[str, int]] = {}

    def count(self, texts: Sequence[str]) -> list[int]:
        """See Inputs."""
        return [len(ids) for ids in self._tokenizer(list(texts), truncation=False, verbose=False)["input_ids"]]

    def prepare(self, texts: Sequence[str], prompt: str, task: str) -> "_TokenBatch":
        """See Inputs. Cost: bounded by the window, not by the longest text."""
        del task  # a plain model has one tower
        encoded = self._tokenize([prompt + text for text in texts])
        arrays = {name: [np.array(ids, dtype=np.int32) for ids in encoded[name]] for name in encoded}
        truncated = sum(bool(encoding.overflowing) for encoding in encoded.encodings)
        return _TokenBatch(self._tokenizer, self._model.device, arrays, truncated, self._prompt_length(prompt))

    def _tokenize(self, texts: list[str]) -> Any:
        limit = _CHARACTERS_PER_TOKEN * self.window
        heads = [_head(text, limit) for text in texts]
        while True:
            encoded = self._tokenizer(heads, truncation="longest_first", max_length=self.window)
            short = [
                place
                for place, (head, text) in enumerate(zip(heads, texts, strict=True))
                if len(head) < len(text) and not encoded.encodings[place].overflowing
            ]
            if not short:
                return encoded
            limit *= 8
            for place in short:
                heads[place] = _head(texts[place], limit)

    def _prompt_length(self, prompt: str) -> Mapping[str, int]:
        """Return the feature by which some poolings leave the prompt out."""
        if prompt not in self._prompt_lengths:
            features: dict[str, Any] = self._model.preprocess(["a"], prompt=prompt) if prompt else {}
            self._prompt_lengths[prompt] = {key: features[key] for key in ("prompt_length",) if key in features}
        return self._prompt_lengths[prompt]


def _head(text: str, characters: int) -> str:
    """Return the beginning of a text, cut before white space where there is some near the end."""
    if len(text) <= characters:
        return text
    place = characters
    while place > characters // 2 and not text[place].isspace():
        place -= 1
    return text[: place if place > characters // 2 else characters]


class _TokenBatch:
    """Token ids of texts, padded when a batch is drawn."""

    def __init__(
        self,
        tokenizer: Any,
        device: Any,
        arrays: dict[str, list[npt.NDArray[np.int32]]],
        truncated: int,
        extra: Mapping[str, int],
    ) -> None:
        self.truncated = truncated
        self.lengths = np.array([len(ids) for ids in arrays["input_ids"]], dtype=np.int64)
        self._arrays = arrays
        self._device = device
        self._left = tokenizer.padding_side == "left"
        self._padding = {"input_ids": tokenizer.pad_token_id, "token_type_ids": tokenizer.pad_token_type_id}
        self._extra = extra

    def features(self, rows: Rows) -> dict[str, Any]:
        """See Prepared."""
        import torch  # noqa: PLC0415  already imported with the model

        width = int(self.lengths[rows].max())
        features: dict[str, Any] = {"modality": "text", **self._extra}
        for name, arrays in self._arrays.items():
            padded = np.full((len(rows), width), self._padding.get(name, 0), dtype=np.int64)
            for place, row in enumerate(rows):
                ids = arrays[row]
                padded[place, width - len(ids) if self._left else 0 :][: len(ids)] = ids
            features[name] = torch.from_numpy(padded).to(self._device)
        return features


class _OwnInputs:
    """Features made by the model's own `preprocess`, tokenised a second time."""

    def __init__(self, model: "SentenceTransformer", window: int | None) -> None:
        self.window = window
        self._model = model

    def count(self, texts: Sequence[str]) -> list[int]:
        """See Inputs."""
        from tokenizers import Tokenizer  # noqa: PLC0415  already imported with the model

        tokenizer: Any = self._model.tokenizer
        if isinstance(tokenizer, Tokenizer):
            return [len(encoding.ids) for encoding in tokenizer.encode_batch(list(texts))]
        if callable(tokenizer):
            return [len(ids) for ids in tokenizer(list(texts), truncation=False, verbose=False)["input_ids"]]
        return [len(tokenizer.tokenize(text)) for text in texts]

    def prepare(self, texts: Sequence[str], prompt: str, task: str) -> "_OwnBatch":
        """See Inputs."""
        return _OwnBatch(self, self._model, texts, prompt, task)


class _OwnBatch:
    def __init__(
        self, inputs: _OwnInputs, model: "SentenceTransformer", texts: Sequence[str], prompt: str, task: str
    ) -> None:
        lengths = np.array(inputs.count([prompt + text for text in texts]), dtype=np.int64)
        self.truncated = 0 if inputs.window is None else int((lengths > inputs.window).sum())
        self.lengths = lengths if inputs.window is None else np.minimum(lengths, inputs.window)
        self._model, self._texts, self._prompt, self._task = model, texts, prompt, task

    def features(self, rows: Rows) -> dict[str, Any]:
        """See Prepared."""
        from sentence_transformers.util import batch_to_device  # noqa: PLC0415  already imported with the model

        features = self._model.preprocess(
            [self._texts[row] for row in rows], prompt=self._prompt or None, task=self._task
        )
        return batch_to_device(features, self._model.device)
