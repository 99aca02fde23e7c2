"""Metadata columns, memory-mapped, and filters evaluated over all documents at once; see retrieval.columns_format."""

import json
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final, Self, TypeAlias

import numpy as np
import numpy.typing as npt

from index.durable import storage_errors
from index.errors import IndexFormatError
from index.types import Mask, Rows
from retrieval.columns_format import (
    BITS,
    FALSE,
    FIRST_VALUE,
    FORMAT,
    NULL,
    TRUE,
    Key,
    Number,
    decode_value,
    encode_text,
    encode_value,
    hash_id,
)
from retrieval.filters import ID, Comparison, Compound, Filter, Not, Scalar

_FEW_RANGES: Final = 4  # up to here comparing beats a lookup table

_Codes: TypeAlias = npt.NDArray[np.uint8] | npt.NDArray[np.uint16] | npt.NDArray[np.uint32]


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

    def __init__(self, folder: Path, documents: int, keys: Iterable[Key]) -> None:
        def load(name: str) -> npt.NDArray[Any]:
            mapped = np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False)
            return np.asarray(mapped)  # the plain view: slicing a memmap object is slow

        self._documents = documents
        self._keys = {key.name: key for key in keys}
        self._codes: dict[int, _Codes] = {bits: load(f"codes{bits}") for bits in BITS}
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
            return cls(folder, layout["documents"], (Key(**key) for key in layout["keys"]))

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
        wanted = [encode_text(str(operand.value)) for operand in comparison.operands]
        hashes = np.array([hash_id(encoded) for encoded in wanted], np.uint32)
        starts, stops = (np.searchsorted(self._id_hashes, hashes, side).tolist() for side in ("left", "right"))
        for encoded, start, stop in zip(wanted, starts, stops, strict=True):
            for row in self._id_order[start:stop].tolist():
                mask[row] |= self._ids[row] == encoded
        return mask

    def _compare(self, key: Key, comparison: Comparison) -> Mask:
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

    def _element_rows(self, key: Key, wanted: Sequence[range]) -> npt.NDArray[np.int32]:
        """Row of every list element whose code is wanted."""
        codes_start = key.codes + key.entries
        rows_start = key.rows + (key.entries if key.entries < self._documents else 0)
        codes = self._codes[key.bits][codes_start : codes_start + key.elements]
        rows = self._rows[rows_start : rows_start + key.elements]
        return rows[_among(codes, wanted, key.code_count)]

    def _wanted(self, key: Key, comparison: Comparison) -> list[range]:
        """Ranges of codes that pass, none empty; contains_all: one per operand, or [] if one exists nowhere."""
        op, operands = comparison.op, comparison.operands
        if op == "exists" or (op == "contains_all" and not operands):
            return [range(NULL, key.code_count)]
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

    def _place(self, key: Key, operand: Scalar) -> tuple[range, range]:
        """Codes of all values of the operand's kind, and of those equal to it: one, or none at its place in order."""
        strings = FIRST_VALUE + key.numbers
        value: Number | bytes
        match operand:
            case Scalar("null"):
                return range(NULL, NULL + 1), range(NULL, NULL + 1)
            case Scalar("boolean"):
                code = TRUE if operand.value else FALSE
                return range(FALSE, TRUE + 1), range(code, code + 1)
            case Scalar(_, str() as text):
                section, value = range(strings, key.code_count), encode_value(text)
            case Scalar(_, int() | float() as number):
                section, value = range(FIRST_VALUE, strings), number

        def value_of(code: int) -> Any:
            return decode_value(self._values[key.values + code - FIRST_VALUE])

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
