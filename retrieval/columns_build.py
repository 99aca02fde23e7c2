"""Writing metadata columns; the format is in retrieval.columns_format."""

import heapq
import json
from array import array
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self, TypeAlias

import numpy as np
import numpy.typing as npt

from index.errors import CorpusError
from retrieval.columns_format import (
    BITS,
    FALSE,
    FIRST_VALUE,
    FORMAT,
    INCOMPARABLE,
    LIST,
    NULL,
    TRUE,
    Key,
    Number,
    decode_value,
    encode_text,
    encode_value,
    hash_id,
)
from retrieval.filters import ID, Scalar, flatten, scalar
from retrieval.types import Json, Metadata

_MAX_DOCUMENTS: Final = 2**31 - 1
_DENSE_SHARE: Final = 8  # 1/8: where N codes of one byte cost about as much as pairs of row and code
_RUN_VALUES: Final = 65_536  # distinct values of one key held as Python objects, about 10 MB; the rest as bytes

_Entry: TypeAlias = tuple[bool, Any, int]
"""(is a string, number or encoded string, provisional code): sorts numbers first, each kind in its own order."""


class _NpyWriter:
    """A one-dimensional .npy file written in pieces: plain writes, as a full disk kills who writes to a mapping."""

    def __init__(self, path: Path, dtype: str) -> None:
        self.size = 0
        self._dtype = np.dtype(dtype)
        self._file = path.open("wb")
        self._write_header()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._file:
            self._file.seek(0)
            self._write_header()  # numpy pads headers, so the final length fits where 0 stood

    def write(self, values: npt.ArrayLike) -> None:
        piece = np.ascontiguousarray(values, self._dtype)
        self._file.write(piece.data)
        self.size += len(piece)

    def _write_header(self) -> None:
        header = {"descr": self._dtype.str, "fortran_order": False, "shape": (self.size,)}
        np.lib.format.write_array_header_1_0(self._file, header)


class _Values:
    """The distinct scalars of one key while building: the newest in a dict, older ones in sorted runs of bytes."""

    __slots__ = ("_codes", "_count", "_runs")

    def __init__(self) -> None:
        self._codes: dict[Number | str, int] = {}  # 1 and 1.0 are one entry, and strings never equal numbers
        self._runs: list[tuple[bytes, array[int], array[int]]] = []
        self._count = 0

    def code(self, value: Number | str) -> int:
        """Provisional code of a value; one that comes back after its run was closed gets another."""
        code = self._codes.get(value)
        if code is None:
            if len(self._codes) >= _RUN_VALUES:
                self._close_run()
            code = self._codes[value] = FIRST_VALUE + self._count
            self._count += 1
        return code

    def finish(self, values: _NpyWriter, offsets: _NpyWriter) -> tuple[npt.NDArray[np.int32], int, int]:
        """Append the sorted dictionary to the files; return provisional -> final codes, and the numbers and strings."""
        final = np.arange(FIRST_VALUE + self._count, dtype=np.int32)
        counts = [0, 0]
        last: tuple[bool, Any] | None = None
        piece: list[bytes] = []
        for is_string, value, code in heapq.merge(self._newest(), *(self._entries(run) for run in self._runs)):
            if (is_string, value) != last:
                last = (is_string, value)
                counts[is_string] += 1
                piece.append(value if is_string else encode_value(value))
                if len(piece) == _RUN_VALUES:
                    _write_strings(piece, values, offsets)
                    piece = []
            final[code] = FIRST_VALUE - 1 + sum(counts)
        _write_strings(piece, values, offsets)
        return final, counts[0], counts[1]

    def _newest(self) -> list[_Entry]:
        return sorted(
            (True, encode_value(value), code) if isinstance(value, str) else (False, value, code)
            for value, code in self._codes.items()
        )

    def _close_run(self) -> None:
        entries = self._newest()
        encoded = [value if is_string else encode_value(value) for is_string, value, _ in entries]
        lengths = array("i", map(len, encoded))
        self._runs.append((b"".join(encoded), lengths, array("i", (code for *_, code in entries))))
        self._codes = {}

    @staticmethod
    def _entries(run: tuple[bytes, "array[int]", "array[int]"]) -> Iterator[_Entry]:
        joined, lengths, codes = run
        start = 0
        for length, code in zip(lengths, codes, strict=True):
            value = decode_value(joined[start : start + length])
            yield isinstance(value, bytes), value, code
            start += length


def _write_strings(piece: Sequence[bytes], blob: _NpyWriter, offsets: _NpyWriter) -> None:
    ends = blob.size + np.cumsum([len(entry) for entry in piece], dtype=np.int64)
    blob.write(np.frombuffer(b"".join(piece), np.uint8))
    offsets.write(ends)


class _KeyBuilder:
    """Entries and list elements of one key, 8 bytes each, in row order."""

    __slots__ = ("_codes", "_element_rows", "_elements", "_rows", "_values")

    def __init__(self) -> None:
        self._values = _Values()
        self._rows, self._codes = array("i"), array("i")
        self._element_rows, self._elements = array("i"), array("i")

    def add(self, row: int, value: Json) -> None:
        self._rows.append(row)
        if not isinstance(value, list | tuple):
            self._codes.append(self._code(scalar(value)))
            return
        self._codes.append(LIST)
        for element in dict.fromkeys(map(scalar, value)):
            if element is not None:
                self._element_rows.append(row)
                self._elements.append(self._code(element))

    def write(self, name: str, documents: int, files: "_Files") -> Key:
        start = files.offsets.size - 1
        final, numbers, strings = self._values.finish(files.values, files.offsets)
        bits = next(bits for bits in BITS if FIRST_VALUE + numbers + strings <= 1 << bits)
        codes, rows = files.codes[bits], files.rows
        key = Key(name, bits, codes.size, rows.size, len(self._rows), len(self._elements), start, numbers, strings)
        entries = final[np.asarray(self._codes)]
        if len(self._rows) * _DENSE_SHARE >= documents:
            key = key._replace(entries=documents)
            dense = np.zeros(documents, np.int32)
            dense[np.asarray(self._rows)] = entries
            codes.write(dense)
        else:
            codes.write(entries)
            rows.write(self._rows)
        codes.write(final[np.asarray(self._elements)])
        rows.write(self._element_rows)
        return key

    def _code(self, tagged: Scalar | None) -> int:
        if tagged is None:
            return INCOMPARABLE
        value = tagged.value
        if value is None:
            return NULL
        if isinstance(value, bool):
            return TRUE if value else FALSE
        return self._values.code(value)


class _Files:
    """The arrays that all keys share, open for appending."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        def writer(name: str, dtype: str) -> _NpyWriter:
            return stack.enter_context(_NpyWriter(folder / f"{name}.npy", dtype))

        self.codes = {bits: writer(f"codes{bits}", f"<u{bits // 8}") for bits in BITS}
        self.rows = writer("rows", "<i4")
        self.values, self.offsets = writer("values", "|u1"), writer("value_offsets", "<i8")
        self.offsets.write([0])


class ColumnsBuilder:
    """Gathers documents one at a time; rows are positions in the order of `add`.

    Memory: 8 bytes a present field and list element, the distinct values once as bytes (the newest 65,536 of each key
    as Python objects), 20 bytes and the id a document.
    """

    def __init__(self) -> None:
        self._keys: dict[str, _KeyBuilder] = {}
        self._ids = bytearray()
        self._id_ends = array("q", [0])
        self._id_hashes = array("I")

    def __len__(self) -> int:
        return len(self._id_hashes)

    def add(self, doc_id: str, metadata: Metadata) -> None:
        """Append one document; ids are the caller's to keep unique.

        Raises CorpusError beyond 2**31 - 1 documents. Cost: about 1 to 2 microseconds a field or list element.
        """
        row = len(self)
        if row == _MAX_DOCUMENTS:
            raise CorpusError(f"columns hold at most {_MAX_DOCUMENTS:,} documents: spread the collection over shards")
        encoded = encode_text(doc_id)
        self._ids += encoded
        self._id_ends.append(len(self._ids))
        self._id_hashes.append(hash_id(encoded))
        for key, value in flatten(metadata).items():
            if key == ID:
                continue  # this key always means the document id, so a field of that name cannot be asked for
            column = self._keys.get(key)
            if column is None:
                column = self._keys[key] = _KeyBuilder()
            column.add(row, value)

    def write(self, folder: Path) -> dict[str, int]:
        """Write the files into an existing folder and return counts: documents, keys, distinct values.

        Call it once, last: it frees each key when written. Equal input gives equal bytes.
        Raises OSError, which the component format around turns into StorageError.
        """
        with ExitStack() as stack:
            files = _Files(folder, stack)
            keys = [self._keys.pop(name).write(name, len(self), files) for name in sorted(self._keys)]
            values = files.offsets.size - 1
        hashes = np.asarray(self._id_hashes)
        order = np.argsort(hashes, kind="stable").astype("<i4")
        arrays: dict[str, npt.NDArray[Any]] = {
            "ids": np.frombuffer(bytes(self._ids), np.uint8),
            "id_offsets": np.asarray(self._id_ends).astype("<i8"),
            "id_hashes": hashes[order].astype("<u4"),
            "id_order": order,
        }
        for name, content in arrays.items():
            np.save(folder / f"{name}.npy", content, allow_pickle=False)
        layout = {"format": FORMAT, "documents": len(self), "keys": [key._asdict() for key in keys]}
        text = json.dumps(layout, ensure_ascii=False, separators=(",", ":"))
        (folder / "columns.json").write_bytes(encode_text(text))
        return {"documents": len(self), "keys": len(keys), "values": values}
