"""Lines of a text file, plain or compressed, with the number of each; damage becomes CorpusError with its place."""

import gzip
import io
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, NamedTuple, cast

from index.durable import storage_errors
from index.errors import CorpusError

COMPRESSIONS = (".gz", ".zst")
LINE_BYTES = 256 << 20
"""Longest line read: a text at its limit of 64 MiB, every character beyond ASCII escaped as \\uXXXX, fits."""
_BUFFER_BYTES = 1 << 20
_SAMPLE_BYTES = 1 << 20
_SAMPLES = 64
_BOM = b"\xef\xbb\xbf"
_UTF16_BOMS = (b"\xff\xfe", b"\xfe\xff")


class Line(NamedTuple):
    """number: 1-based. text: without its line end."""

    number: int
    text: str


def kind_suffix(path: Path) -> str:
    """Return the lower-case suffix that names the format, a compression suffix set aside: `.jsonl` of `a.JSONL.gz`."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] in COMPRESSIONS:
        suffixes.pop()
    return suffixes[-1] if suffixes else ""


@contextmanager
def open_bytes(path: Path) -> Iterator[BinaryIO]:
    """Open `path` for reading, decompressed according to its suffix (.gz, .zst).

    Raises StorageError if the operating system refuses.
    """
    with storage_errors("read", path), path.open("rb") as raw:
        suffix = path.suffix.lower()
        if suffix == ".gz":
            with gzip.open(raw) as unzipped:
                yield cast("BinaryIO", unzipped)
        elif suffix == ".zst":
            import pyarrow as pa  # noqa: PLC0415  only compressed sources need it

            # Not zstandard's stream_reader: at a truncated frame it reports a normal end of file, and the rest is lost.
            with pa.CompressedInputStream(pa.PythonFile(raw, mode="r"), "zstd") as unzipped:
                yield cast("BinaryIO", io.BufferedReader(unzipped, _BUFFER_BYTES))
        else:
            yield cast("BinaryIO", io.BufferedReader(cast("io.RawIOBase", raw), _BUFFER_BYTES))


def read_lines(file: BinaryIO, name: str) -> Iterator[Line]:
    """Yield the lines of a UTF-8 stream; LF and CRLF end a line, a byte order mark at the start is dropped.

    name: for messages. Memory: the longest line.
    Raises CorpusError with the line number on bytes that are not UTF-8, on a line beyond 256 MiB, and on a compressed
    stream that is damaged or ends early.
    """
    number = 0
    while raw := _next_line(file, name, number):
        number += 1
        if number == 1:
            if raw.startswith(_UTF16_BOMS):
                raise CorpusError(f"{name} is UTF-16, expected UTF-8: convert it with `iconv -f utf-16 -t utf-8`")
            raw = raw.removeprefix(_BOM)
        if len(raw) > LINE_BYTES:
            raise CorpusError(f"{name} line {number} is longer than {LINE_BYTES:,} bytes: split the document")
        raw = raw[:-2] if raw.endswith(b"\r\n") else raw.removesuffix(b"\n")
        yield Line(number, decode(raw, f"{name} line {number}"))


def decode(raw: bytes, place: str) -> str:
    """Return UTF-8 bytes as text. Raises CorpusError naming the place, the first wrong byte and the remedy."""
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        raise CorpusError(
            f"{place}: byte 0x{raw[error.start]:02x} at position {error.start} is not UTF-8: "
            "convert the file, for example with `iconv -f latin1 -t utf-8`"
        ) from error


def _next_line(file: BinaryIO, name: str, after: int) -> bytes:
    try:
        return file.readline(LINE_BYTES + 1)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise _damaged(name, after, error) from error
    except OSError as error:
        if error.errno is not None:  # the operating system's own; the decompressor's carry no number
            raise
        raise _damaged(name, after, error) from error


def _damaged(name: str, after: int, error: Exception) -> CorpusError:
    return CorpusError(f"{name}: compressed data is damaged or cut off after line {after} ({error}): copy it again")


def file_lines(path: Path, name: str) -> Iterator[Line]:
    """`read_lines` of a file, decompressed according to its suffix."""
    with open_bytes(path) as file:
        yield from read_lines(file, name)


def estimate_lines(path: Path) -> int | None:
    """Return about how many lines a plain file has; None for a compressed one.

    Exact up to 64 MiB, otherwise from 64 samples of 1 MiB spread evenly. Cost: reading those 64 MiB.
    """
    if path.suffix.lower() in COMPRESSIONS:
        return None
    with storage_errors("read", path), path.open("rb") as file:
        size_bytes = os.fstat(file.fileno()).st_size
        step = max(size_bytes // _SAMPLES, _SAMPLE_BYTES)
        newlines = read_bytes = 0
        last = b""
        for start in range(0, size_bytes, step):
            file.seek(start)
            last = file.read(_SAMPLE_BYTES)
            newlines += last.count(b"\n")
            read_bytes += len(last)
    if read_bytes == size_bytes:
        return newlines + (not last.endswith(b"\n") and bool(last))
    return max(1, round(size_bytes * newlines / read_bytes))
