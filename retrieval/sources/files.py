"""A folder of documents, one a file: .txt .md .html .pdf .docx.

    id         the path below the folder, with slashes
    title      the document's own, where it has one (each parser says from where)
    metadata   path, format (text, markdown, html, pdf, docx), size_bytes, modified (ISO 8601, UTC), `pages` of a PDF

Hidden files and folders, other kinds of files and files without any text are skipped and reported. A file of these
kinds that cannot be read stops the source with CorpusError: move it away, or repair it.
"""

import os
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from index.durable import storage_errors
from index.errors import CorpusError
from retrieval.sources.pdf import parse_pdf
from retrieval.sources.plain import Parsed, parse_markdown, parse_text
from retrieval.sources.source import Placed, Skipped, Source
from retrieval.sources.webpage import parse_html
from retrieval.sources.word import parse_docx
from retrieval.types import Document

FILE_BYTES = 256 << 20
"""Largest file read; it is parsed in memory."""


class _Kind(NamedTuple):
    name: str
    parse: Callable[[bytes], Parsed]


FILE_KINDS = {
    ".txt": _Kind("text", parse_text),
    ".md": _Kind("markdown", parse_markdown),
    ".html": _Kind("html", parse_html),
    ".htm": _Kind("html", parse_html),
    ".pdf": _Kind("pdf", parse_pdf),
    ".docx": _Kind("docx", parse_docx),
}


def files_source(path: Path) -> Source:
    """Source of a folder of files, in the order of its sorted folders and names, or of one such file.

    Symbolic links to files are followed, to folders they are skipped and reported.
    """
    if path.is_file():
        return Source(f"file {path}", 1, lambda skipped: _read([path], path.parent, skipped))
    return Source(
        f"folder of files {path}", _count(path), lambda skipped: _read(_walk(path, path, skipped), path, skipped)
    )


def _count(folder: Path) -> int:
    return sum(file.suffix.lower() in FILE_KINDS for file in _walk(folder, folder, Skipped()))


def _walk(folder: Path, root: Path, skipped: Skipped) -> Iterator[Path]:
    """Yield the files below `folder`, one folder's listing in memory at a time."""
    with storage_errors("read", folder):
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    for entry in entries:
        path = folder / entry.name
        if entry.name.startswith("."):
            skipped.add("hidden", _shown(path, root))
        elif entry.is_dir(follow_symlinks=False):
            yield from _walk(path, root, skipped)
        elif entry.is_file():
            yield path
        else:
            skipped.add("not a plain file (links to folders are not followed)", _shown(path, root))


def _shown(path: Path, root: Path) -> str:
    """Return the path below the root in a form that any terminal and file can take."""
    return os.fsencode(path.relative_to(root).as_posix()).decode("utf-8", "backslashreplace")


def _read(paths: Iterator[Path] | list[Path], root: Path, skipped: Skipped) -> Iterator[Placed]:
    for path in paths:
        place = _shown(path, root)
        kind = FILE_KINDS.get(path.suffix.lower())
        if kind is None:
            suffix = f"of kind {path.suffix}" if path.suffix else "without a suffix"
            skipped.add(f"{suffix} (read are {' '.join(FILE_KINDS)})", place)
            continue
        document = _document(path, root, kind, place)
        if document.text.strip():
            yield Placed(place, document)
        else:
            skipped.add("no text in it (an empty file, or a scan that needs OCR)", place)


def _document(path: Path, root: Path, kind: _Kind, place: str) -> Document:
    with storage_errors("read", path):
        facts = path.stat()
        if facts.st_size > FILE_BYTES:
            raise CorpusError(f"{place} has {facts.st_size:,} bytes, at most {FILE_BYTES:,} are read: split it")
        raw = path.read_bytes()
    try:
        parsed = kind.parse(raw)
    except ValueError as error:
        raise CorpusError(f"{place}: {error}; repair the file or move it out of the folder") from error
    document_id = path.relative_to(root).as_posix()
    metadata = {
        "path": document_id,
        "format": kind.name,
        "size_bytes": facts.st_size,
        "modified": datetime.fromtimestamp(facts.st_mtime, UTC).isoformat(timespec="seconds"),
        **parsed.metadata,
    }
    return Document(document_id, parsed.text, parsed.title, metadata)
