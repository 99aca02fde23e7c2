"""CSV and TSV files, and MS MARCO's headerless TSV.

    .csv     RFC 4180: comma, fields with commas, quotes or newlines in double quotes, a quote inside doubled
    .tsv     tab; no quoting at all, so a quote is a quote and a field holds neither tab nor newline
    msmarco  `id<TAB>text` or `id<TAB>title<TAB>text` a line, no header, no quoting; only on request: `msmarco:PATH`

CSV and TSV need a header row with a column `_id` or `id` and a column `text`, `contents` or `title`. A column
`metadata` holds JSON objects; any other column is metadata under its own name. Every such value is a string (use
JSONL or Parquet for numbers to compare); an empty cell is left out.
"""

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from index.errors import CorpusError
from retrieval.sources.jsonl import parse_object
from retrieval.sources.lines import estimate_lines, file_lines
from retrieval.sources.records import ID_KEYS, TEXT_KEYS, TITLE_KEY, document_from
from retrieval.sources.source import Placed, Skipped, Source
from retrieval.sources.validate import TEXT_BYTES


def csv_source(path: Path) -> Source:
    """Source of a .csv file, plain, .gz or .zst; it has no estimate, as quoted fields may span lines."""

    def read(_: Skipped) -> Iterator[Placed]:
        return _records(_csv_rows(path), path.name)

    return Source(f"CSV file {path}", None, read)


def tsv_source(path: Path) -> Source:
    """Source of a .tsv file with a header row, plain, .gz or .zst."""

    def read(_: Skipped) -> Iterator[Placed]:
        return _records(_tsv_rows(path), path.name)

    lines = estimate_lines(path)
    return Source(f"TSV file {path}", None if lines is None else max(lines - 1, 0), read)


def msmarco_source(path: Path) -> Source:
    """Source of a headerless TSV file of two or three columns, plain, .gz or .zst."""

    def read(_: Skipped) -> Iterator[Placed]:
        for number, row in _tsv_rows(path):
            place = f"{path.name} line {number}"
            if len(row) not in {2, 3}:
                raise CorpusError(f"{place}: found {len(row)} columns, expected id, text or id, title, text")
            columns = ("_id", "title", "text") if len(row) == 3 else ("_id", "text")
            yield Placed(place, document_from(dict(zip(columns, row, strict=True)), place))

    return Source(f"MS MARCO collection {path}", estimate_lines(path), read)


Row = tuple[int, list[str]]
"""The line a row starts at, and its cells."""


def _csv_rows(path: Path) -> Iterator[Row]:
    # The limit is the process's; only ever raised, so that other users of the module lose nothing.
    csv.field_size_limit(max(csv.field_size_limit(), TEXT_BYTES))
    reader = csv.reader((line.text + "\n" for line in file_lines(path, path.name)), strict=True)
    start = 1
    try:
        for row in reader:
            if row:
                yield start, row
            start = reader.line_num + 1
    except csv.Error as error:
        raise CorpusError(f"{path.name} line {start}: broken CSV: {error}; see RFC 4180 on quoting") from error


def _tsv_rows(path: Path) -> Iterator[Row]:
    for line in file_lines(path, path.name):
        if line.text.strip():
            yield line.number, line.text.split("\t")


def _records(rows: Iterator[Row], name: str) -> Iterator[Placed]:
    first = next(rows, None)
    if first is None:
        return
    header = [column.strip() for column in first[1]]
    _check_header(header, name)
    for number, cells in rows:
        place = f"{name} line {number}"
        if len(cells) != len(header):
            raise CorpusError(f"{place}: found {len(cells)} cells, expected {len(header)} as in the header")
        yield Placed(place, document_from(_record(header, cells, place), place))


def _check_header(header: list[str], name: str) -> None:
    found = ", ".join(map(repr, header[:10]))
    if not {*ID_KEYS} & {*header}:
        raise CorpusError(
            f"{name} line 1: no column '_id' or 'id' in the header (found {found}): add a header row; "
            f"for lines `id<TAB>text` without one, write msmarco:{name}"
        )
    if not {*TEXT_KEYS, TITLE_KEY} & {*header}:
        raise CorpusError(f"{name} line 1: no column 'text', 'contents' or 'title' in the header (found {found})")
    for column in header:
        if not column or header.count(column) > 1:
            problem = "is there twice" if column else "has no name"
            raise CorpusError(f"{name} line 1: column {column!r} {problem}: give each column its own name")


def _record(header: list[str], cells: list[str], place: str) -> dict[str, Any]:
    record: dict[str, Any] = {}
    for column, cell in zip(header, cells, strict=True):
        if column == "metadata":
            record[column] = parse_object(cell, f"{place}: column 'metadata'") if cell.strip() else None
        elif cell or column in {*ID_KEYS, *TEXT_KEYS, TITLE_KEY}:
            record[column] = cell
    return record
