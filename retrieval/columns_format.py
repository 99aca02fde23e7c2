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
import struct
from typing import Final, NamedTuple, TypeAlias

FORMAT: Final = 1
NULL, FALSE, TRUE, INCOMPARABLE, LIST, FIRST_VALUE = range(1, 7)
BITS: Final = (8, 16, 32)

Number: TypeAlias = int | float


class Key(NamedTuple):
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
        return FIRST_VALUE + self.numbers + self.strings


def encode_text(text: str) -> bytes:
    """Return the stored form of a string."""
    # UTF-8 sorts as code points do; surrogatepass keeps that true for text that is no valid Unicode.
    return text.encode("utf-8", "surrogatepass")


def encode_value(value: Number | str) -> bytes:
    """Return the stored form of a dictionary entry."""
    if isinstance(value, str):
        return b"s" + encode_text(value)
    if isinstance(value, float):
        return b"f" + struct.pack("<d", value)
    return b"i" + value.to_bytes(value.bit_length() // 8 + 1, "big", signed=True)


def decode_value(entry: bytes) -> Number | bytes:
    """Back to a number; a string stays encoded, because its bytes compare as it does."""
    match entry[:1]:
        case b"f":
            return float(struct.unpack("<d", entry[1:])[0])
        case b"i":
            return int.from_bytes(entry[1:], "big", signed=True)
        case _:
            return entry


def hash_id(encoded: bytes) -> int:
    """Return the 32-bit hash by which an id is looked up."""
    return int.from_bytes(hashlib.blake2b(encoded, digest_size=4).digest(), "little")
