"""What a substring index is asked to be, and the substring.json that says what it became."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias, get_args

from index.alphabet import MOST_TOKENS
from index.errors import ConfigError, IndexFormatError

FORMAT: Final = 2
FILE: Final = "substring.json"

Mode: TypeAlias = Literal["fast", "compact"]
"""fast: suffix array, at most 6 bytes a token with 16-bit codes. compact: FM-index, about 2.4."""

MODES: tuple[Mode, ...] = get_args(Mode)


@dataclass(frozen=True, slots=True)
class SubstringSpec:
    """A substring index as asked for.

    vocab_size: tokens are below it. tokenizer: fingerprint of what made them; opening asks for the same.
    shard_tokens: tokens, with one separator a document, that one shard takes at most; building needs 12 to 14 bytes for
    each of them (16-bit codes), and every shard is asked at every step, so few and large ones answer sooner.
    """

    vocab_size: int
    tokenizer: str = ""
    mode: Mode = "fast"
    shard_tokens: int = 1 << 28

    def __post_init__(self) -> None:
        """Raise ConfigError on a value that cannot work."""
        if not 1 <= self.vocab_size <= MOST_TOKENS:
            raise ConfigError(f"vocab_size is {self.vocab_size}, expected 1 to {MOST_TOKENS}")
        if self.mode not in MODES:
            raise ConfigError(f"mode is {self.mode!r}; allowed: {', '.join(map(repr, MODES))}")
        if self.shard_tokens < 1:
            raise ConfigError(f"shard_tokens is {self.shard_tokens}, expected at least 1")


@dataclass(frozen=True, slots=True)
class ShardAbout:
    """What a shard's files do not say. identity: 31 bits that tell it from others. primary: see index.fm_index."""

    identity: int
    primary: int

    def __post_init__(self) -> None:
        """Raise ValueError on what no build writes."""
        for value in (self.identity, self.primary):
            if not isinstance(value, int) or not 0 <= value < 1 << 31:
                raise ValueError(f"a shard's identity and primary are {self.identity!r}, {self.primary!r}")


@dataclass(frozen=True, slots=True)
class SubstringAbout:
    """What an index folder holds. tokens, documents: of all shards, which lie in the folders 0000, 0001 ..."""

    spec: SubstringSpec
    tokens: int
    documents: int
    shards: tuple[ShardAbout, ...]

    def __post_init__(self) -> None:
        """Raise ValueError on an index without shards, which no build writes: nothing is one empty shard."""
        if not self.shards:
            raise ValueError("there are no shards")


def write_about(folder: Path, about: SubstringAbout) -> None:
    """Write substring.json."""
    text = json.dumps({"format": FORMAT, **asdict(about)}, indent=1, sort_keys=True, allow_nan=False)
    (folder / FILE).write_text(text + "\n", encoding="utf-8")


def read_about(folder: Path) -> SubstringAbout:
    """Read substring.json. Raises IndexFormatError where it is missing, damaged or of another version."""
    path = folder / FILE
    try:
        value: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        found = value.pop("format")
        if found == FORMAT:
            value["spec"] = SubstringSpec(**value["spec"])
            value["shards"] = tuple(ShardAbout(**each) for each in value["shards"])
            return SubstringAbout(**value)
    except FileNotFoundError as error:
        raise IndexFormatError(f"{path} is missing: rebuild the index") from error
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise IndexFormatError(f"{path} is damaged ({error}): rebuild the index") from error
    raise IndexFormatError(f"{path} has format {found!r}, this grapnel reads {FORMAT}: rebuild the index")
