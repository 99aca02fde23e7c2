"""A trie of token sequences, titles or ids say, as arrays: their text, and their beginnings in sorted order.

    trie.json      {"format", "vocab_size", "tokenizer", "identity"}
    symbols.npy firsts.npy starts.npy      see index.substring_text: each sequence is a document of its own
    text.npy suffixes.npy wide_*.npy       see index.suffix_array, but only the N suffixes that begin a sequence

Sequences that share a prefix are neighbours, so a node is a range of them and its children are the runs of the next
token: 2 bytes a token and up to 6 a sequence with 16-bit codes, whatever the number of nodes.
"""

import json
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from index.alphabet import MOST_TOKENS
from index.errors import ConfigError, IndexFormatError
from index.substring_ranges import Int64
from index.substring_spec import ShardAbout
from index.substring_text import Collector, Tables
from index.suffix_array import SuffixArray, write_suffix_array
from index.suffix_sort import MOST_BYTES, code_bytes
from index.types import Continuations, State

FORMAT: Final = 2
FILE: Final = "trie.json"

_WIDE_BYTES: Final = 8
"""Bytes per sequence that the children of the root may take: it has too many rows to be looked through every time."""


class Sequences(NamedTuple):
    """Some sequences of each of B matches: beam b has entries offsets[b] to offsets[b + 1], ascending.

    offsets: int64 (B + 1,). sequences: int64 (M,), in the order of the build from 0.
    """

    offsets: Int64
    sequences: Int64


class TokenTrie:
    """An immutable trie of N token sequences; equal ones count as often as they were given. Any thread may ask it."""

    def __init__(self, index: SuffixArray) -> None:
        self._index = index

    @property
    def vocab_size(self) -> int:
        """Tokens are at least 0 and below it."""
        return self._index.vocab_size

    def __len__(self) -> int:
        return self._index.documents

    def root(self, beams: int) -> State:
        """Return `beams` empty prefixes; states are opaque int64 (B, 1, 3)."""
        return self._index.starts(beams)

    def extend(self, state: State, tokens: npt.NDArray[np.integer]) -> State:
        """Append one token to each prefix. tokens: integers (B,). A prefix of no sequence stays so.

        Raises ShapeError on shape or dtype, RequestError on a token outside the vocabulary or a state of another trie.
        """
        return self._index.extend(state, tokens)

    def count(self, state: State) -> Int64:
        """Return how many sequences begin with each prefix, int64 (B,)."""
        return self._index.count(state)

    def children(self, state: State) -> Continuations:
        """Return which tokens may follow each prefix, and in how many sequences. Cost: see SuffixArray."""
        return self._index.continuations(state)

    def complete(self, state: State) -> Sequences:
        """Return the sequences that are whole with each prefix; several where equal ones were given."""
        offsets, sequences, _ = self._index.locate(self._index.ended(state))
        return Sequences(offsets, sequences)

    def beginning(self, state: State, limit: int | None = None) -> Sequences:
        """Return the sequences that begin with each prefix, at most the first `limit` of each."""
        offsets, sequences, _ = self._index.locate(state, limit)
        return Sequences(offsets, sequences)

    def text(self, sequence: int) -> npt.NDArray[np.int32]:
        """Return the tokens of a sequence, int32. Raises RequestError on one that does not exist."""
        return self._index.text(sequence)


def write_trie(
    folder: Path, sequences: Iterable[npt.NDArray[Any]], vocab_size: int, tokenizer: str = ""
) -> Mapping[str, int]:
    """Write a trie into an empty folder and return its counts: the `fill` of a component.

    sequences: integers (n,) each, in [0, vocab_size). tokenizer: fingerprint of what made them.
    Raises ConfigError on a vocabulary that cannot be, CorpusError on a sequence that cannot be taken, or on more tokens
    and sequences than 2^30 with 16-bit codes. Memory: about 12 bytes a token and a sequence, 20 with larger codes.
    """
    if not 1 <= vocab_size <= MOST_TOKENS:
        raise ConfigError(f"vocab_size is {vocab_size}, expected 1 to {MOST_TOKENS}")
    collector = Collector(vocab_size, MOST_BYTES // code_bytes(vocab_size))
    count = 0
    for count, sequence in enumerate(sequences, start=1):
        collector.add(sequence, count - 1)
    tokens = collector.codes - count
    text, tables = collector.finish()
    tables.write(folder)
    # Beginnings sort before everything else.
    write_suffix_array(folder, text, tables, count, _WIDE_BYTES * count)
    identity = zlib.crc32(text.data, zlib.crc32(tables.alphabet.tokens.data, 2)) & 0x7FFFFFFF
    about = {"format": FORMAT, "vocab_size": vocab_size, "tokenizer": tokenizer, "identity": identity}
    (folder / FILE).write_text(json.dumps(about, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    return {"sequences": count, "tokens": tokens}


def open_trie(folder: Path, *, tokenizer: str | None = None, threads: int | None = None) -> TokenTrie:
    """Map what `write_trie` wrote.

    tokenizer: fingerprint that it must have been built with; None = whatever it says. threads: see `usable_threads`.
    Raises IndexFormatError where files are missing, cut, damaged or do not fit together, or on another tokenizer.
    """
    path = folder / FILE
    try:
        about = json.loads(path.read_text(encoding="utf-8"))
        found, vocab_size, built = (about[name] for name in ("format", "vocab_size", "tokenizer"))
        shard = ShardAbout(about["identity"], 0)
    except FileNotFoundError as error:
        raise IndexFormatError(f"{path} is missing: rebuild the trie") from error
    except (ValueError, KeyError, TypeError) as error:
        raise IndexFormatError(f"{path} is damaged: rebuild the trie") from error
    if found != FORMAT:
        raise IndexFormatError(f"{path} has format {found!r}, this grapnel reads {FORMAT}: rebuild the trie")
    if tokenizer is not None and tokenizer != built:
        raise IndexFormatError(f"trie {folder} was built with tokenizer {built!r}, expected {tokenizer!r}: rebuild it")
    tables = Tables.open(folder, vocab_size)
    return TokenTrie(SuffixArray.open(folder, tables, shard, threads, rows=tables.documents))
