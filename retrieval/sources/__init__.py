"""Readers of documents, one module a format: `open_source` turns what a user types into a stream of documents.

    FOLDER                     with corpus.jsonl (.gz, .zst): a BEIR folder; otherwise a folder of files
    .jsonl .ndjson             JSON Lines            (jsonl)
    .csv .tsv                  tables with a header  (delimited)
    .parquet                   Parquet               (parquet)
    .trec .trectext .sgml      TREC collection       (trec)
    .txt .md .html .htm .pdf .docx    one document   (files)
    python-docs                the standard library's docstrings; python-docs:all adds the installed packages
    -                          JSON Lines from standard input
    FORMAT:PATH                that format whatever the name: beir, jsonl, csv, tsv, msmarco, parquet, trec, files

Upper or lower case of a suffix does not matter; text formats may end in .gz or .zst besides. `trec:FOLDER` reads all
files below a folder. A path that itself begins like a prefix is written `./trec:...`.
"""

from pathlib import Path

from index.errors import CorpusError
from retrieval.sources.delimited import csv_source, msmarco_source, tsv_source
from retrieval.sources.files import FILE_KINDS, files_source
from retrieval.sources.jsonl import STDIN, beir_corpus, beir_source, jsonl_source, stdin_source
from retrieval.sources.lines import COMPRESSIONS, kind_suffix
from retrieval.sources.parquet import parquet_source
from retrieval.sources.python_docs import python_docs_source
from retrieval.sources.source import Source
from retrieval.sources.trec import trec_source

__all__ = ["FORMATS", "PYTHON_DOCS", "Source", "open_source"]

PYTHON_DOCS = {"python-docs": False, "python-docs:all": True}
"""Name -> whether the installed packages are in it."""

FORMATS = {
    "beir": beir_source,
    "jsonl": jsonl_source,
    "csv": csv_source,
    "tsv": tsv_source,
    "msmarco": msmarco_source,
    "parquet": parquet_source,
    "trec": trec_source,
    "files": files_source,
}
"""Format -> opener; each is also a prefix."""

_TEXT_SUFFIXES = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".csv": "csv",
    ".tsv": "tsv",
    ".trec": "trec",
    ".trectext": "trec",
    ".sgml": "trec",
}
_WHOLE_SUFFIXES = {".parquet": "parquet"} | dict.fromkeys(FILE_KINDS, "files")
_FOLDER_FORMATS = frozenset({"beir", "trec", "files"})


def open_source(source: str) -> Source:
    """Return the stream of documents that `source` names; nothing but headers and samples is read yet.

    Raises CorpusError if there is nothing at that path or its format is not clear, StorageError if it may not be read.
    """
    if source == STDIN:
        return stdin_source()
    if source in PYTHON_DOCS:
        return python_docs_source(installed=PYTHON_DOCS[source])
    prefix, colon, rest = source.partition(":")
    name = prefix if colon and prefix in FORMATS else None
    path = Path(rest if name else source)
    if not path.exists():
        raise CorpusError(f"source {source!r}: there is no file or folder {str(path)!r}; {_allowed()}")
    if name is None:
        name = _format(path)
    if path.is_dir() and name not in _FOLDER_FORMATS:
        raise CorpusError(f"source {source!r}: {path} is a folder, {name} needs a file")
    return FORMATS[name](path)


def _format(path: Path) -> str:
    if path.is_dir():
        return "files" if beir_corpus(path) is None else "beir"
    name = _TEXT_SUFFIXES.get(kind_suffix(path)) or _WHOLE_SUFFIXES.get(path.suffix.lower())
    if name is None:
        raise CorpusError(f"source {path}: its name does not tell the format; {_allowed()}")
    return name


def _allowed() -> str:
    suffixes = " ".join([*_TEXT_SUFFIXES, *_WHOLE_SUFFIXES])
    return (
        f"expected a folder, a file ending in {suffixes} (text formats also with {' or '.join(COMPRESSIONS)}), "
        f"FORMAT:PATH with FORMAT one of {', '.join(FORMATS)}, {', '.join(PYTHON_DOCS)}, or {STDIN}"
    )
