"""Texts to padded token ids, with the `tokenizers` library alone: no torch and no transformers.

`SentenceTransformer.encode` sorts by characters and tokenises inside each batch. Knowing the token counts first gives
batches of a fixed cost and shows what is cut; keeping the token ids saves the second tokenisation.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from tokenizers import Encoding, Tokenizer

_CHARACTERS_PER_TOKEN = 16
"""A text is first tokenised up to this many characters for each token of the window: few tokens are longer."""

Rows = npt.NDArray[np.int64]


class Prepared(Protocol):
    """Texts ready for the model. lengths: tokens of each after cutting, int64 (n,). truncated: how many were cut."""

    lengths: npt.NDArray[np.int64]
    truncated: int

    def features(self, rows: Rows) -> dict[str, Any]:
        """Return the model's features of some of the texts."""
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


@dataclass(frozen=True, slots=True)
class TokenFormat:
    """How a model wants its token ids.

    names: features in the model's order, of input_ids, attention_mask, token_type_ids. pad_id, pad_type_id: what fills
    a row up; left: filled up on the left.
    """

    names: tuple[str, ...]
    pad_id: int
    pad_type_id: int
    left: bool


class TokenInputs:
    """Features assembled from token ids. Safe to call from several threads.

    tokenizer: serialised, as `Tokenizer.to_str` gives it; its own truncation and padding are replaced.
    extra: features that depend on the prompt alone.
    """

    def __init__(
        self,
        tokenizer: str,
        form: TokenFormat,
        window: int,
        extra: Callable[[str], Mapping[str, int]] | None = None,
    ) -> None:
        self.window = window
        self._serialised = tokenizer
        self._form = form
        self._extra = extra
        self._tokenizer = _tokenizer(tokenizer)
        self._tokenizer.enable_truncation(window, strategy="longest_first")

    @cached_property
    def _counter(self) -> "Tokenizer":
        """A tokenizer that does not cut: the setting belongs to the object, and other threads use the other one."""
        return _tokenizer(self._serialised)

    def count(self, texts: Sequence[str]) -> list[int]:
        """See Inputs."""
        return [len(encoding) for encoding in self._counter.encode_batch_fast(list(texts))]

    def prepare(self, texts: Sequence[str], prompt: str, task: str) -> "TokenBatch":
        """See Inputs. Cost: bounded by the window, not by the longest text."""
        del task  # a plain model has one tower
        encodings = self._tokenize([prompt + text for text in texts])
        return TokenBatch(encodings, self._form, {} if self._extra is None else self._extra(prompt))

    def _tokenize(self, texts: list[str]) -> "list[Encoding]":
        limit = _CHARACTERS_PER_TOKEN * self.window
        heads = [_head(text, limit) for text in texts]
        encodings = self._tokenizer.encode_batch_fast(heads)
        while True:
            short = [
                place
                for place, (head, text) in enumerate(zip(heads, texts, strict=True))
                if len(head) < len(text) and not encodings[place].overflowing
            ]
            if not short:
                return encodings
            limit *= 8
            for place in short:
                heads[place] = _head(texts[place], limit)
            again = self._tokenizer.encode_batch_fast([heads[place] for place in short])
            for place, encoding in zip(short, again, strict=True):
                encodings[place] = encoding


def _tokenizer(serialised: str) -> "Tokenizer":
    from tokenizers import Tokenizer  # noqa: PLC0415  heavy imports wait until a model is opened

    tokenizer = Tokenizer.from_str(serialised)
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _head(text: str, characters: int) -> str:
    """Return the beginning of a text, cut before white space where there is some near the end."""
    if len(text) <= characters:
        return text
    place = characters
    while place > characters // 2 and not text[place].isspace():
        place -= 1
    return text[: place if place > characters // 2 else characters]


class TokenBatch:
    """Token ids of texts, padded when a batch is drawn."""

    def __init__(self, encodings: "list[Encoding]", form: TokenFormat, extra: Mapping[str, int]) -> None:
        self.lengths = np.array([len(encoding) for encoding in encodings], dtype=np.int64)
        self.truncated = sum(bool(encoding.overflowing) for encoding in encodings)
        self._ids = [np.array(encoding.ids, dtype=np.int32) for encoding in encodings]
        self._types = None
        if "token_type_ids" in form.names:
            self._types = [encoding.type_ids for encoding in encodings]
            if not any(map(any, self._types)):
                self._types = None  # one segment only, as in nearly every model
        self._form = form
        self._extra = extra

    def features(self, rows: Rows) -> dict[str, Any]:
        """Return int64 (len(rows), longest) per feature, and the extra features."""
        form, width = self._form, int(self.lengths[rows].max())
        features: dict[str, Any] = {
            name: np.full((len(rows), width), filler, dtype=np.int64)
            for name, filler in (("input_ids", form.pad_id), ("attention_mask", 0))
        }
        if "token_type_ids" in form.names:
            features["token_type_ids"] = np.zeros((len(rows), width), dtype=np.int64)
        for place, row in enumerate(rows):
            ids = self._ids[row]
            inside = slice(width - len(ids), width) if form.left else slice(len(ids))
            outside = slice(width - len(ids)) if form.left else slice(len(ids), width)
            features["input_ids"][place, inside] = ids
            features["attention_mask"][place, inside] = 1
            if "token_type_ids" in form.names:
                features["token_type_ids"][place, outside] = form.pad_type_id
                if self._types is not None:
                    features["token_type_ids"][place, inside] = self._types[row]
        return {name: features[name] for name in form.names} | dict(self._extra)
