"""What decides the bytes of a substring field."""

from dataclasses import dataclass
from typing import Literal, TypeAlias

from index.errors import ConfigError
from index.substring_spec import Mode
from retrieval.encoders.config import DEFAULT_MODEL

Case: TypeAlias = Literal["lower", "keep"]
"""What becomes of capital letters."""


@dataclass(frozen=True, slots=True)
class SubstringField:
    """A field in which phrases are found exactly: every sequence of tokens of titles and texts. Not a search mode.

    tokenizer: a model folder, "all-MiniLM-L6-v2" (packaged) or a model hub name; only its tokenizer.json is read, so a
        folder with that file alone will do. An encoder's path gives the tokens that the encoder reads.
    mode: "fast", at most 6 bytes a token with up to 65,535 different ones, or "compact", about 2.4, for slower answers.
    case: "lower" lowers all text before it is tokenized; "keep" leaves that to the tokenizer, some of which lower, too.
    Raises ConfigError on an empty tokenizer.
    """

    tokenizer: str = DEFAULT_MODEL
    mode: Mode = "fast"
    case: Case = "lower"

    def __post_init__(self) -> None:
        if not self.tokenizer:
            raise ConfigError("tokenizer is empty, expected a model folder or name")
