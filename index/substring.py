"""Building and opening substring indexes: a folder with substring.json and a folder for each shard.

substring.json                       what was asked for, and what the shards' files do not say
0000/symbols.npy firsts.npy starts.npy   of either form: index.substring_text
0000/...                             of the form: index.suffix_array, index.fm_index
"""

import zlib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import numpy.typing as npt

from index.component import open_component, write_component
from index.errors import IndexFormatError
from index.fm_index import FMIndex, write_fm_index
from index.substring_shard import SubstringShard
from index.substring_shards import ShardedSubstring
from index.substring_spec import ShardAbout, SubstringAbout, SubstringSpec, read_about, write_about
from index.substring_text import Collector, Tables
from index.suffix_array import SuffixArray, write_suffix_array
from index.suffix_sort import MOST_BYTES, code_bytes
from index.types import SubstringIndex

KIND = "substring"
"""Kind of the component."""

Progress: TypeAlias = Callable[[str, int, int | None], None]
"""Called with (stage, done so far, total or None when unknown)."""

_EVERY = 1 << 20


def _silent(_stage: str, _done: int, _total: int | None) -> None:
    """Report nothing."""


def write_substring(
    folder: Path, documents: Iterable[npt.NDArray[Any]], spec: SubstringSpec, progress: Progress = _silent
) -> Mapping[str, int]:
    """Write an index of `documents` into an empty folder and return its counts: the `fill` of a component.

    documents: integers (n,) each, in [0, spec.vocab_size), in the order that numbers them; empty ones count.
    progress: tokens taken in ("tokens") and shards written ("shards").
    Raises CorpusError on a document that cannot be indexed, OSError when the disk refuses.
    Memory: 15 MB, and for each code of the largest shard some 12 bytes, 14 of the compact form; with more than 16 bits
    20 and 24; 40 without the extra `substring`.
    Cost: see suffix_order.
    """
    writer = _Writer(folder, spec, progress)
    for tokens in documents:
        writer.add(tokens)
    return writer.finish()


class _Writer:
    """Writes shards as they fill."""

    def __init__(self, folder: Path, spec: SubstringSpec, progress: Progress) -> None:
        self._folder = folder
        self._spec = spec
        self._progress = progress
        self._shards: list[ShardAbout] = []
        self._tokens = 0
        self._documents = 0
        self._reported = 0
        # Codes are ranks of what occurs, so a shard's largest is at most its vocabulary's.
        sortable = MOST_BYTES // code_bytes(min(spec.vocab_size, spec.shard_tokens))
        self._most = min(spec.shard_tokens, sortable)
        self._collector = Collector(spec.vocab_size, self._most)

    def add(self, tokens: npt.NDArray[Any]) -> None:
        if len(self._collector) and not self._collector.fits(tokens):
            self._write()
        self._collector.add(tokens, self._documents)
        self._documents += 1
        self._tokens += len(tokens)
        if self._tokens - self._reported >= _EVERY:
            self._reported = self._tokens
            self._progress("tokens", self._tokens, None)

    def finish(self) -> Mapping[str, int]:
        self._progress("tokens", self._tokens, self._tokens)
        if len(self._collector) or not self._shards:
            self._write()
        write_about(self._folder, SubstringAbout(self._spec, self._tokens, self._documents, tuple(self._shards)))
        return {"tokens": self._tokens, "documents": self._documents, "shards": len(self._shards)}

    def _write(self) -> None:
        self._progress("shards", len(self._shards), None)
        folder = self._folder / shard_name(len(self._shards))
        folder.mkdir()
        text, tables = self._collector.finish()
        self._collector = Collector(self._spec.vocab_size, self._most)
        tables.write(folder)
        compact = self._spec.mode == "compact"
        primary = 0
        if compact:
            primary = write_fm_index(folder, text, tables)
        else:
            write_suffix_array(folder, text, tables)
        # The mode, too: states of one form mean nothing to the other.
        identity = zlib.crc32(text.data, zlib.crc32(tables.alphabet.tokens.data, compact)) & 0x7FFFFFFF
        self._shards.append(ShardAbout(identity, primary))
        self._progress("shards", len(self._shards), None)


def shard_name(number: int) -> str:
    """Return the name of a shard's folder."""
    return f"{number:04}"


def open_shards(
    folder: Path, *, tokenizer: str | None = None, threads: int | None = None
) -> tuple[SubstringAbout, list[SubstringShard]]:
    """Map the shards that `write_substring` wrote.

    tokenizer: fingerprint that the index must have been built with; None = whatever it says.
    threads: how many a call may use; None = GRAPNEL_THREADS, else every core.
    Raises IndexFormatError where files are missing, cut or do not fit together, or on another tokenizer.
    Cost: milliseconds; the values are read when they are needed, and not compared with their checksums.
    """
    about = read_about(folder)
    if tokenizer is not None and tokenizer != about.spec.tokenizer:
        raise IndexFormatError(
            f"index {folder} was built with tokenizer {about.spec.tokenizer!r}, expected {tokenizer!r}: "
            "rebuild it, or use the tokenizer it was built with"
        )
    shards: list[SubstringShard] = []
    for number, shard in enumerate(about.shards):
        place = folder / shard_name(number)
        tables = Tables.open(place, about.spec.vocab_size)
        kind = FMIndex if about.spec.mode == "compact" else SuffixArray
        shards.append(kind.open(place, tables, shard, threads))
    if (sum(shard.tokens for shard in shards), sum(shard.documents for shard in shards)) != (
        about.tokens,
        about.documents,
    ):
        raise IndexFormatError(f"index {folder}: its shards do not hold {about.tokens} tokens: rebuild it")
    return about, shards


def open_substring(folder: Path, *, tokenizer: str | None = None, threads: int | None = None) -> SubstringIndex:
    """Open the index of a folder: see open_shards."""
    _, shards = open_shards(folder, tokenizer=tokenizer, threads=threads)
    return shards[0] if len(shards) == 1 else ShardedSubstring(shards, threads)


def save_substring(
    folder: Path, documents: Iterable[npt.NDArray[Any]], spec: SubstringSpec, progress: Progress = _silent
) -> None:
    """Write an index as a component that stands by itself, all at once or not at all. See write_substring."""
    config = {"vocab_size": spec.vocab_size, "tokenizer": spec.tokenizer, "mode": spec.mode}
    write_component(folder, KIND, config, lambda temporary: write_substring(temporary, documents, spec, progress))


def load_substring(
    folder: Path, *, tokenizer: str | None = None, threads: int | None = None, verify: bool = True
) -> SubstringIndex:
    """Open what `save_substring` wrote. verify: compare every byte with its checksum, about 1 GB/s a thread.

    Raises IndexFormatError on damage, and as open_shards does.
    """
    open_component(folder, kind=KIND, verify=verify)
    return open_substring(folder, tokenizer=tokenizer, threads=threads)
