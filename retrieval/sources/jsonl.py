"""JSON Lines, BEIR folders, and JSON Lines from standard input: one object a line, fields as in `records`."""

import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, NoReturn, cast

from index.errors import CorpusError
from retrieval.sources.lines import COMPRESSIONS, Line, estimate_lines, file_lines, read_lines
from retrieval.sources.records import document_from
from retrieval.sources.source import Placed, Skipped, Source

STDIN = "-"
BEIR_NAMES = tuple(f"corpus.jsonl{suffix}" for suffix in ("", *COMPRESSIONS))


def jsonl_source(path: Path) -> Source:
    """Source of a .jsonl or .ndjson file, plain, .gz or .zst."""

    def read(_: Skipped) -> Iterator[Placed]:
        return _documents(file_lines(path, path.name), path.name)

    return Source(f"JSONL file {path}", estimate_lines(path), read)


def beir_corpus(folder: Path) -> Path | None:
    """Return the corpus file of a BEIR folder, None if `folder` is not one."""
    return next((path for name in BEIR_NAMES if (path := folder / name).is_file()), None)


def beir_source(folder: Path) -> Source:
    """Source of a BEIR folder: its corpus.jsonl (or .gz, .zst); queries and judgements beside it are not documents."""
    path = beir_corpus(folder)
    if path is None:
        raise CorpusError(f"{folder} is not a BEIR folder: it has no {BEIR_NAMES[0]}")
    source = jsonl_source(path)
    source.name = f"BEIR folder {folder}"
    return source


def stdin_source(stream: BinaryIO | None = None) -> Source:
    """Source of JSON Lines from `stream`, standard input by default; it can be read once."""
    file = stream if stream is not None else cast("BinaryIO", sys.stdin.buffer)

    def read(_: Skipped) -> Iterator[Placed]:
        return _documents(read_lines(file, "standard input"), "standard input")

    return Source("JSONL from standard input", None, read, once=True)


def _documents(lines: Iterable[Line], name: str) -> Iterator[Placed]:
    for line in lines:
        if line.text.strip():
            place = f"{name} line {line.number}"
            yield Placed(place, document_from(parse_object(line.text, place), place))


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number: use null or leave it out")


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"key {twice!r} is given twice in one object: keep one")
    return value


_DECODER = json.JSONDecoder(parse_constant=_refuse_constant, object_pairs_hook=_unique_keys)


def parse_object(text: str, place: str) -> dict[str, Any]:
    """Return the JSON object in `text`. Raises CorpusError naming `place` on anything else.

    NaN, Infinity and a key given twice in one object count as broken.
    """
    try:
        value = _DECODER.decode(text)
    except json.JSONDecodeError as error:
        raise CorpusError(f"{place}: broken JSON at column {error.colno}: {error.msg}") from error
    except ValueError as error:
        raise CorpusError(f"{place}: broken JSON: {error}") from error
    except RecursionError as error:
        raise CorpusError(f"{place}: JSON is nested too deeply: flatten it") from error
    if not isinstance(value, dict):
        raise CorpusError(f"{place}: found a JSON {type(value).__name__}, expected one object a line")
    return value
