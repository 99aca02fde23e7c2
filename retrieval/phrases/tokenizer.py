"""The tokenizer of a substring field: text to tokens, and tokens back to characters."""

import hashlib
import json
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from index.durable import storage_errors
from index.errors import ConfigError
from retrieval.config import digest_of
from retrieval.encoders.config import EncoderConfig
from retrieval.encoders.model_files import find_model
from retrieval.phrases.config import Case, SubstringField

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_FILE = "tokenizer.json"

FORMAT = 1
"""Raised when the same tokenizer.json and settings give other tokens than before."""

Tokens = npt.NDArray[np.int32]
"""int32 (n,): the token ids of one text."""


class Tokenized(NamedTuple):
    """A text's tokens, and the characters [start, end) of the text that each stands for: (n, 2)."""

    tokens: Tokens
    spans: Sequence[tuple[int, int]]


class PhraseTokenizer:
    """Tokenizes documents and phrases alike, without special tokens. Any thread may use it.

    White space is the tokenizer's business: WordPiece ignores it between words, byte-level BPE and SentencePiece put
    it into the token that follows. fingerprint: of its tokens, see `tokenizer_fingerprint`.
    Raises ConfigError where `file` is no tokenizer.json.
    """

    def __init__(self, file: Path, case: Case) -> None:
        with storage_errors("read", file):
            content = file.read_bytes()
        # Of what was read: the file may be another one by the time it is read again.
        self.fingerprint = _fingerprint(content, case)
        self._tokenizer, model = _parsed(file, content)
        if case == "lower":
            _lower(self._tokenizer)
        vocabulary = self._tokenizer.get_vocab(with_added_tokens=True)
        self.vocab_size = max(vocabulary.values(), default=0) + 1
        name, number = model.get("unk_token"), model.get("unk_id")
        self._unknown: int | None = vocabulary.get(name) if isinstance(name, str) else number

    def encode(self, texts: Sequence[str]) -> list[Tokens]:
        """Return the tokens of each text. Cost: WordPiece takes 3 MB of English text a second; every core is used."""
        found = self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        return [np.array(each.ids, np.int32) for each in found]

    def tokenized(self, text: str) -> Tokenized:
        """Return the tokens of a text with their characters."""
        found = self._tokenizer.encode(text, add_special_tokens=False)
        return Tokenized(np.array(found.ids, np.int32), found.offsets)

    def unknown(self, text: str) -> list[str]:
        """Return the parts of a text that the vocabulary has no token for: all of them share one."""
        tokens, spans = self.tokenized(text)
        return [
            text[slice(*span)] for token, span in zip(tokens.tolist(), spans, strict=True) if token == self._unknown
        ]

    def names(self, tokens: Sequence[int]) -> list[str]:
        """Return tokens as the vocabulary spells them: "##ing", say."""
        return [self._tokenizer.id_to_token(token) or f"<{token}>" for token in tokens]

    def text(self, tokens: Sequence[int]) -> str:
        """Return tokens as text, for people: white space and what the tokenizer drops are guesses."""
        decoded: str = self._tokenizer.decode(list(tokens), skip_special_tokens=False)
        return decoded


def _parsed(file: Path, content: bytes) -> tuple["Tokenizer", dict[str, Any]]:
    from tokenizers import Tokenizer  # noqa: PLC0415  only collections with a substring field need it

    try:
        model = json.loads(content)["model"]
        tokenizer = Tokenizer.from_str(content.decode())
    except Exception as error:  # tokenizers raises nothing narrower
        raise ConfigError(
            f"{file} is no tokenizer of the tokenizers library ({error}): copy the model again"
        ) from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer, model


def _lower(tokenizer: "Tokenizer") -> None:
    """Lower text before anything else; the library keeps count of the characters it came from."""
    from tokenizers import normalizers  # noqa: PLC0415  see _parsed

    own = tokenizer.normalizer
    tokenizer.normalizer = normalizers.Sequence([normalizers.Lowercase(), *([] if own is None else [own])])


def _file_of(field: SubstringField) -> Path:
    direct = Path(field.tokenizer).expanduser() / _FILE
    if direct.is_file():
        return direct.resolve()
    try:
        file = find_model(EncoderConfig(path=field.tokenizer)).tokenizer_file()
    except ConfigError as error:
        raise ConfigError(f"tokenizer {field.tokenizer!r} of a substring field: {error}") from error
    if file is None:
        raise ConfigError(
            f"model {field.tokenizer!r} has no {_FILE}, which a substring field needs: save the model with its fast "
            "tokenizer, or name another tokenizer"
        )
    return file


def tokenizer_fingerprint(field: SubstringField) -> str:
    """Return the name of a field's tokens, 32 hex digits: over tokenizer.json and the choice of case.

    Raises ConfigError where there is no such tokenizer. Cost: reads the file, milliseconds.
    """
    file = _file_of(field)
    with storage_errors("read", file):
        return _fingerprint(file.read_bytes(), field.case)


def _fingerprint(content: bytes, case: Case) -> str:
    return digest_of({"format": FORMAT, "file": hashlib.sha256(content).hexdigest(), "case": case})


def open_tokenizer(field: SubstringField) -> PhraseTokenizer:
    """Return the tokenizer of a field; the last few stay open. Raises ConfigError where there is none."""
    file = _file_of(field)
    with storage_errors("read", file):
        status = file.stat()
    return _open(file, (status.st_ino, status.st_size, status.st_mtime_ns), field.case)


@lru_cache(maxsize=4)
def _open(file: Path, _state: tuple[int, ...], case: Case) -> PhraseTokenizer:
    return PhraseTokenizer(file, case)
