"""Documents into passages: character spans that fit an encoder's window."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Literal

from index.errors import ConfigError
from retrieval.encoders.config import EncoderConfig
from retrieval.types import Document

if TYPE_CHECKING:
    from semantic_text_splitter import MarkdownSplitter, TextSplitter
    from tokenizers import Tokenizer

    Splitter = TextSplitter | MarkdownSplitter

_CHARACTERS_PER_TOKEN = 4
"""What an encoder without a tokenizer counts as one token: the usual length of an English one."""

_LEAST_TOKENS = 32
"""Tokens left for text beside a very long title; the encoder then counts the passage as truncated."""

_STEP = 16
"""Capacities shrunk by a title are rounded down to multiples of this, so that few splitters are needed."""

_SEGMENT_CHARACTERS = 16_384
"""Text is split a segment at a time: the splitter is quadratic on long runs of Chinese or Japanese."""


@dataclass(frozen=True, slots=True)
class ChunkingConfig:
    """A `[chunking]` table.

    kind: "none" makes one passage of a document, "tokens" cuts it at headings, paragraphs, sentences or words.
    max_tokens: of one passage's text, by the encoder's tokenizer; less where title, prompt and special tokens would
    otherwise push the passage out of the encoder's window. overlap: tokens repeated from the passage before.
    markdown: headings, lists and code blocks are boundaries too.
    Raises ConfigError on a value that cannot work.
    """

    kind: Literal["none", "tokens"] = "none"
    max_tokens: int = 256
    overlap: int = 32
    markdown: bool = False

    def __post_init__(self) -> None:
        if self.kind not in {"none", "tokens"}:
            raise ConfigError(f"chunking.kind is {self.kind!r}; allowed: 'none', 'tokens'")
        if self.max_tokens < _LEAST_TOKENS:
            raise ConfigError(f"chunking.max_tokens is {self.max_tokens}, expected at least {_LEAST_TOKENS}")
        if not 0 <= self.overlap <= self.max_tokens // 2:
            raise ConfigError(
                f"chunking.overlap is {self.overlap}, expected 0 to {self.max_tokens // 2} (half a passage)"
            )


class Chunker:
    """Cuts documents as configured, by the tokenizer of an encoder. Needs no torch and loads no model weights.

    encoder: None, "hashing" and "external" have no tokenizer; four characters count as one token then.
    Raises ConfigError where the encoder's model cannot be found, or has no tokenizer.json to count with.
    """

    def __init__(self, config: ChunkingConfig, encoder: EncoderConfig | None = None) -> None:
        self._config = config
        self._tokenizer: Tokenizer | None = None
        self._window: int | None = None
        self._prompt = ""
        if config.kind == "tokens" and encoder is not None and encoder.kind == "sentence-transformers":
            self._read_model(encoder)
        # A splitter holds its own copy of the vocabulary, so only a few are kept.
        self._splitter: Callable[[int], Splitter] = lru_cache(maxsize=4)(self._make_splitter)

    def spans(self, document: Document) -> list[tuple[int, int]]:
        """Return the character spans [start, end) of a document's passages, in order.

        Starts increase strictly; spans cover every character that is not white space; there is at least one, (0, 0)
        for an empty text. Kind "none": the whole text.
        Cost: linear, about 0.5 MB of English text a second (Chinese, Japanese: 0.05).
        """
        text = document.text
        if self._config.kind == "none":
            return [(0, len(text))]
        capacity = self._capacity(document.title)
        if self._fits(text, capacity):
            return [(0, len(text))]
        return self._split(text, self._splitter(capacity)) or [(0, len(text))]

    def _read_model(self, encoder: EncoderConfig) -> None:
        from retrieval.encoders.model_files import find_model  # noqa: PLC0415  only token chunking by a model needs it

        files = find_model(encoder)
        self._tokenizer = files.tokenizer()
        if self._tokenizer is None:
            raise ConfigError(
                f"chunking.kind is 'tokens', but model {encoder.path!r} has no tokenizer.json: "
                "save the model with its fast tokenizer, or set chunking.kind = 'none'"
            )
        self._window = files.window
        self._prompt = files.prompt(encoder.document_prompt, "document")

    def _capacity(self, title: str) -> int:
        """Return the tokens that a passage's text may have beside its title, the prompt and special tokens."""
        if self._tokenizer is None or self._window is None:
            return self._config.max_tokens
        before = self._prompt + (f"{title} " if title else "")
        free = self._window - len(self._tokenizer.encode(before).ids)
        if free >= self._config.max_tokens:
            return self._config.max_tokens
        return max(_LEAST_TOKENS, free // _STEP * _STEP)

    def _fits(self, text: str, capacity: int) -> bool:
        if len(text) > capacity * _CHARACTERS_PER_TOKEN * 4:
            return False  # a text this long hardly ever fits: not worth counting
        if self._tokenizer is None:
            return len(text) <= capacity * _CHARACTERS_PER_TOKEN
        return len(self._tokenizer.encode(text, add_special_tokens=False).ids) <= capacity

    def _make_splitter(self, capacity: int) -> "Splitter":
        from semantic_text_splitter import MarkdownSplitter, TextSplitter  # noqa: PLC0415  only token chunking needs it

        kind = MarkdownSplitter if self._config.markdown else TextSplitter
        overlap = min(self._config.overlap, capacity // 2)
        if self._tokenizer is None:
            return kind(capacity * _CHARACTERS_PER_TOKEN, overlap * _CHARACTERS_PER_TOKEN)
        return kind.from_huggingface_tokenizer(self._tokenizer, capacity, overlap)

    def _split(self, text: str, splitter: "Splitter") -> list[tuple[int, int]]:
        """Split a segment at a time; the last passage of a segment was cut by its end, so the next one redoes it."""
        spans: list[tuple[int, int]] = []
        segment = max(_SEGMENT_CHARACTERS, self._config.max_tokens * 16)
        start, size = 0, segment
        while start < len(text):
            end = start + size
            found = [(start + at, start + at + len(chunk)) for at, chunk in splitter.chunk_indices(text[start:end])]
            if end >= len(text):
                return spans + found
            if len(found) > 1:
                spans.extend(found[:-1])
                start, size = found[-1][0], segment
            elif found:
                start, size = found[0][0], size * 2  # one passage fills the segment: look further
            else:
                start, size = end, segment  # nothing but white space
        return spans
