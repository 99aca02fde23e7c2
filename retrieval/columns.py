"""Metadata of N documents as typed columns on disk, and filters evaluated over all of them at once.

Every key has its own sorted dictionary of distinct scalars, numbers (by value) before strings (by code point), so that
each document needs one small integer a key and every comparison becomes a range of integers:

    code  0 missing  1 null  2 false  3 true  4 incomparable (object, NaN)  5 list  6 + position in the dictionary

A key present in at least 1/8 of the documents keeps N codes, others (row, code) pairs; the elements of lists are (row,
code) pairs, distinct within a list. Codes take 1, 2 or 4 bytes, whatever the key's dictionary needs. The files are the
same few for any number of keys; the .npy arrays are one-dimensional and hold the keys one after another:

    columns.json              {"format", "documents", "keys": [{"name", "bits", ...}]}: where each key's parts begin
    codes8 codes16 codes32    per key: codes of its entries, then of its list elements
    rows int32                per key: rows of its entries (absent when there are N), then of its list elements
    values, value_offsets     dictionary entries as bytes, int64 boundaries. First byte: i (big-endian two's complement,
                              any size), f (little-endian float64) or s (UTF-8), so integers stay exact
    ids, id_offsets           document ids as UTF-8, int64 boundaries
    id_hashes, id_order       ascending uint32 BLAKE2b of the ids, and the rows int32 in that order

The component format around the folder (index.component) brings checksums, fsync and StorageError.
"""

import hashlib
import heapq
import json
import struct
from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Final, NamedTuple, Self, TypeAlias

import numpy as np
import numpy.typing as npt

from index.durable import storage_errors
from index.errors import CorpusError, IndexFormatError
from index.types import Mask, Rows
from retrieval.filters import ID, Comparison, Compound, Filter, Not, Scalar, flatten, scalar
from retrieval.types import Json, Metadata

FORMAT: Final = 1
_MAX_DOCUMENTS: Final = 2**31 - 1
_NULL, _FALSE, _TRUE, _INCOMPARABLE, _LIST, _FIRST_VALUE = range(1, 7)
_BITS: Final = (8, 16, 32)
_DENSE_SHARE: Final = 8  # 1/8: where N codes of one byte cost about as much as pairs of row and code
_RUN_VALUES: Final = 65_536  # distinct values of one key held as Python objects, about 10 MB; the rest as bytes
_FEW_RANGES: Final = 4  # up to here comparing beats a lookup table

_Codes: TypeAlias = npt.NDArray[np.uint8] | npt.NDArray[np.uint16] | npt.NDArray[np.uint32]
_Number: TypeAlias = int | float
_Entry: TypeAlias = tuple[bool, Any, int]
"""(is a string, number or encoded string, provisional code): sorts numbers first, each kind in its own order."""


class _Key(NamedTuple):
    """One key's line in columns.json; all but name and bits count array elements."""

    name: str
    bits: int
    codes: int  # start of the entries' codes, and of the elements' codes right behind
    rows: int  # start of the entries' rows (none when entries == documents), then the elements' rows
    entries: int
    elements: int
    values: int  # start of the key's dictionary: `numbers` numbers, then `strings` strings
    numbers: int
    strings: int

    @property
    def code_count(self) -> int:
        """All codes of the key lie below."""
        return _FIRST_VALUE + self.numbers + self.strings


def _encode_text(text: str) -> bytes:
    # UTF-8 sorts as code points do; surrogatepass keeps that true for text that is no valid Unicode.
    return text.encode("utf-8", "surrogatepass")


def _encode(value: _Number | str) -> bytes:
    if isinstance(value, str):
        return b"s" + _encode_text(value)
    if isinstance(value, float):
        return b"f" + struct.pack("<d", value)
    return b"i" + value.to_bytes(value.bit_length() // 8 + 1, "big", signed=True)


def _decode(entry: bytes) -> _Number | bytes:
    """Back to a number; a string stays encoded, because its bytes compare as it does."""
    match entry[:1]:
        case b"f":
            return float(struct.unpack("<d", entry[1:])[0])
        case b"i":
            return int.from_bytes(entry[1:], "big", signed=True)
        case _:
            return entry


def _hash_id(encoded: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(encoded, digest_size=4).digest(), "little")


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
        self._codes: dict[_Number | str, int] = {}  # 1 and 1.0 are one entry, and strings never equal numbers
        self._runs: list[tuple[bytes, array[int], array[int]]] = []
        self._count = 0

    def code(self, value: _Number | str) -> int:
        """Provisional code of a value; one that comes back after its run was closed gets another."""
        code = self._codes.get(value)
        if code is None:
            if len(self._codes) >= _RUN_VALUES:
                self._close_run()
            code = self._codes[value] = _FIRST_VALUE + self._count
            self._count += 1
        return code

    def finish(self, values: _NpyWriter, offsets: _NpyWriter) -> tuple[npt.NDArray[np.int32], int, int]:
        """Append the sorted dictionary to the files; return provisional -> final codes, and the numbers and strings."""
        final = np.arange(_FIRST_VALUE + self._count, dtype=np.int32)
        counts = [0, 0]
        last: tuple[bool, Any] | None = None
        piece: list[bytes] = []
        for is_string, value, code in heapq.merge(self._newest(), *(self._entries(run) for run in self._runs)):
            if (is_string, value) != last:
                last = (is_string, value)
                counts[is_string] += 1
                piece.append(value if is_string else _encode(value))
                if len(piece) == _RUN_VALUES:
                    _write_strings(piece, values, offsets)
                    piece = []
            final[code] = _FIRST_VALUE - 1 + sum(counts)
        _write_strings(piece, values, offsets)
        return final, counts[0], counts[1]

    def _newest(self) -> list[_Entry]:
        return sorted(
            (True, _encode(value), code) if isinstance(value, str) else (False, value, code)
            for value, code in self._codes.items()
        )

    def _close_run(self) -> None:
        entries = self._newest()
        encoded = [value if is_string else _encode(value) for is_string, value, _ in entries]
        lengths = array("i", map(len, encoded))
        self._runs.append((b"".join(encoded), lengths, array("i", (code for *_, code in entries))))
        self._codes = {}

    @staticmethod
    def _entries(run: tuple[bytes, "array[int]", "array[int]"]) -> Iterator[_Entry]:
        joined, lengths, codes = run
        start = 0
        for length, code in zip(lengths, codes, strict=True):
            value = _decode(joined[start : start + length])
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
        self._codes.append(_LIST)
        for element in dict.fromkeys(map(scalar, value)):
            if element is not None:
                self._element_rows.append(row)
                self._elements.append(self._code(element))

    def write(self, name: str, documents: int, files: "_Files") -> _Key:
        start = files.offsets.size - 1
        final, numbers, strings = self._values.finish(files.values, files.offsets)
        bits = next(bits for bits in _BITS if _FIRST_VALUE + numbers + strings <= 1 << bits)
        codes, rows = files.codes[bits], files.rows
        key = _Key(name, bits, codes.size, rows.size, len(self._rows), len(self._elements), start, numbers, strings)
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
            return _INCOMPARABLE
        value = tagged.value
        if value is None:
            return _NULL
        if isinstance(value, bool):
            return _TRUE if value else _FALSE
        return self._values.code(value)


class _Files:
    """The arrays that all keys share, open for appending."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        def writer(name: str, dtype: str) -> _NpyWriter:
            return stack.enter_context(_NpyWriter(folder / f"{name}.npy", dtype))

        self.codes = {bits: writer(f"codes{bits}", f"<u{bits // 8}") for bits in _BITS}
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
        encoded = _encode_text(doc_id)
        self._ids += encoded
        self._id_ends.append(len(self._ids))
        self._id_hashes.append(_hash_id(encoded))
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
        (folder / "columns.json").write_bytes(_encode_text(text))
        return {"documents": len(self), "keys": len(keys), "values": values}


class _Strings:
    """Byte strings one after another in memory-mapped arrays."""

    def __init__(self, content: npt.NDArray[np.uint8], offsets: npt.NDArray[np.int64]) -> None:
        # Plain memory views: element access is several times faster than through an array.
        self._content, self._offsets = content.data, offsets.data

    def __getitem__(self, i: int) -> bytes:
        return bytes(self._content[self._offsets[i] : self._offsets[i + 1]])


class Columns:
    """Read-only columns of N documents; safe to use from several threads.

    keys: every name a filter can use here (without `_id`, which always works).
    """

    def __init__(self, folder: Path, documents: int, keys: Iterable[_Key]) -> None:
        def load(name: str) -> npt.NDArray[Any]:
            mapped = np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False)
            return np.asarray(mapped)  # the plain view: slicing a memmap object is slow

        self._documents = documents
        self._keys = {key.name: key for key in keys}
        self._codes: dict[int, _Codes] = {bits: load(f"codes{bits}") for bits in _BITS}
        self._rows: npt.NDArray[np.int32] = load("rows")
        self._values = _Strings(load("values"), load("value_offsets"))
        self._ids = _Strings(load("ids"), load("id_offsets"))
        self._id_hashes: npt.NDArray[np.uint32] = load("id_hashes")
        self._id_order: npt.NDArray[np.int32] = load("id_order")
        self.keys = frozenset(self._keys)

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Open what `ColumnsBuilder.write` wrote, memory-mapped; the component format has verified the bytes.

        Raises IndexFormatError on another format version, StorageError when a file cannot be read.
        """
        path = folder / "columns.json"
        with storage_errors("read", folder):
            layout = json.loads(path.read_bytes().decode("utf-8", "surrogatepass"))
            if layout["format"] != FORMAT:
                raise IndexFormatError(
                    f"{path} has columns format {layout['format']}, this grapnel reads {FORMAT}: rebuild the component"
                )
            return cls(folder, layout["documents"], (_Key(**key) for key in layout["keys"]))

    def __len__(self) -> int:
        return self._documents

    def doc_id(self, i: int) -> str:
        """Id of the document at row `i`. Raises IndexError outside 0..N-1."""
        return self.doc_ids(np.array([i], np.int64))[0]

    def doc_ids(self, rows: Rows) -> list[str]:
        """Ids of several rows, in their order. Raises IndexError outside 0..N-1. Cost: about 2 microseconds a row."""
        outside = rows[(rows < 0) | (rows >= self._documents)]
        if len(outside):
            raise IndexError(f"row {outside[0]} is outside the {self._documents} documents")
        return [self._ids[i].decode("utf-8", "surrogatepass") for i in rows.tolist()]

    def evaluate(self, filter: Filter) -> Mask:  # noqa: A002  the domain's word, in a module without the builtin
        """Say for every document whether it passes: a new bool (N,), equal to `matches` of each.

        A key that no document has counts as missing everywhere; refusing it is the caller's, who knows all shards.
        Cost: 0.1 to 2 ms a comparison and million documents, by code width; contains_any and contains_all 1 to 2 ms
        more a million list elements; up to 15 microseconds an operand, to find it among a million distinct values.
        """
        match filter:
            case Not():
                mask = self.evaluate(filter.filter)
                return np.logical_not(mask, out=mask)
            case Compound():
                combine = np.logical_and if filter.op == "and" else np.logical_or
                mask = self.evaluate(filter.filters[0])
                for part in filter.filters[1:]:
                    combine(mask, self.evaluate(part), out=mask)
                return mask
            case Comparison():
                if filter.key == ID:
                    return self._with_ids(filter)
                key = self._keys.get(filter.key)
                return np.zeros(self._documents, np.bool_) if key is None else self._compare(key, filter)

    def _with_ids(self, comparison: Comparison) -> Mask:
        mask = np.zeros(self._documents, np.bool_)
        wanted = [_encode_text(str(operand.value)) for operand in comparison.operands]
        hashes = np.array([_hash_id(encoded) for encoded in wanted], np.uint32)
        starts, stops = (np.searchsorted(self._id_hashes, hashes, side).tolist() for side in ("left", "right"))
        for encoded, start, stop in zip(wanted, starts, stops, strict=True):
            for row in self._id_order[start:stop].tolist():
                mask[row] |= self._ids[row] == encoded
        return mask

    def _compare(self, key: _Key, comparison: Comparison) -> Mask:
        wanted = self._wanted(key, comparison)
        if not wanted:
            return np.zeros(self._documents, np.bool_)
        in_lists = comparison.op in ("contains_any", "contains_all") and bool(comparison.operands)
        if comparison.op == "contains_all" and len(wanted) > 1:
            # Elements are distinct within a list, so a list that has all wanted values has as many hits.
            hits = np.bincount(self._element_rows(key, wanted), minlength=self._documents)
            return np.equal(hits, len(wanted))
        codes = self._codes[key.bits][key.codes : key.codes + key.entries]
        passing = _among(codes, wanted, key.code_count)
        if key.entries < self._documents:
            rows = self._rows[key.rows : key.rows + key.entries][passing]
            passing = np.zeros(self._documents, np.bool_)
            passing[rows] = True
        if in_lists:
            passing[self._element_rows(key, wanted)] = True
        return passing

    def _element_rows(self, key: _Key, wanted: Sequence[range]) -> npt.NDArray[np.int32]:
        """Row of every list element whose code is wanted."""
        codes_start = key.codes + key.entries
        rows_start = key.rows + (key.entries if key.entries < self._documents else 0)
        codes = self._codes[key.bits][codes_start : codes_start + key.elements]
        rows = self._rows[rows_start : rows_start + key.elements]
        return rows[_among(codes, wanted, key.code_count)]

    def _wanted(self, key: _Key, comparison: Comparison) -> list[range]:
        """Ranges of codes that pass, none empty; contains_all: one per operand, or [] if one exists nowhere."""
        op, operands = comparison.op, comparison.operands
        if op == "exists" or (op == "contains_all" and not operands):
            return [range(_NULL, key.code_count)]
        if op in ("in", "contains_any", "contains_all"):
            found = [codes for operand in operands if (codes := self._place(key, operand)[1])]
            return [] if op == "contains_all" and len(found) < len(operands) else found
        (bound,) = operands
        section, equal = self._place(key, bound)
        passing = {
            "gt": range(equal.stop, section.stop),
            "gte": range(equal.start, section.stop),
            "lt": range(section.start, equal.start),
            "lte": range(section.start, equal.stop),
        }[op]
        return [passing] if passing else []

    def _place(self, key: _Key, operand: Scalar) -> tuple[range, range]:
        """Codes of all values of the operand's kind, and of those equal to it: one, or none at its place in order."""
        strings = _FIRST_VALUE + key.numbers
        value: _Number | bytes
        match operand:
            case Scalar("null"):
                return range(_NULL, _NULL + 1), range(_NULL, _NULL + 1)
            case Scalar("boolean"):
                code = _TRUE if operand.value else _FALSE
                return range(_FALSE, _TRUE + 1), range(code, code + 1)
            case Scalar(_, str() as text):
                section, value = range(strings, key.code_count), _encode(text)
            case Scalar(_, int() | float() as number):
                section, value = range(_FIRST_VALUE, strings), number

        def value_of(code: int) -> Any:
            return _decode(self._values[key.values + code - _FIRST_VALUE])

        code = section.start + bisect_left(section, value, key=value_of)
        return section, range(code, code + int(code in section and value_of(code) == value))


def _among(codes: _Codes, wanted: Sequence[range], code_count: int) -> Mask:
    """Say which codes lie in one of the ranges, all below `code_count`: a new bool array as long as `codes`."""
    if len(wanted) > _FEW_RANGES:
        table = np.zeros(code_count, np.bool_)
        for passing in wanted:
            table[passing.start : passing.stop] = True
        return table[codes]
    mask = np.zeros(len(codes), np.bool_)
    for passing in wanted:
        if len(passing) == 1:
            mask |= codes == passing.start
        else:
            mask |= (codes >= passing.start) & (codes <= passing[-1])
    return mask
