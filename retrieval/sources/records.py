"""One record with named fields (a JSON object, a table row) to a Document.

    _id or id        the id: a string, or an integer, which becomes its decimal string
    title            a string, may be missing or null
    text or contents a string, may be missing or null if there is a title or a vector
    metadata         an object
    vectors          an object: field name -> list of numbers
    vector           a list of numbers: short for {"vectors": {"dense": [...]}}
    any other key    goes to the metadata under its own name

Where both names of a field are there (`_id` and `id`), the first is the field and the second is metadata.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from index.errors import CorpusError
from retrieval.types import Document, Vector

DEFAULT_VECTOR_FIELD = "dense"
"""The field that a lone `vector` belongs to."""

ID_KEYS = ("_id", "id")
TEXT_KEYS = ("text", "contents")
TITLE_KEY = "title"
CONTENT_KEYS = frozenset({*TEXT_KEYS, TITLE_KEY, "vector", "vectors"})
"""A record has at least one of them."""


def document_from(record: Mapping[str, Any], place: str) -> Document:
    """Return the document of a record; values in lists and objects are taken as they are.

    A vector may be a list of numbers or a numpy array. Raises CorpusError naming `place`.
    """
    if not CONTENT_KEYS & record.keys():
        found = ", ".join(map(repr, list(record)[:10])) or "none"
        raise CorpusError(f"{place}: no key 'text', 'contents', 'title' or 'vectors'; found: {found}")
    rest = dict(record)
    document_id = _id(rest, place)
    title = _string(rest, (TITLE_KEY,), place)
    text = _string(rest, TEXT_KEYS, place)
    vectors = _vectors(rest, place)
    metadata = rest.pop("metadata", None)
    if metadata is None:
        metadata = {}
    if not isinstance(metadata, Mapping):
        raise CorpusError(f"{place}: 'metadata' is of type {type(metadata).__name__}, expected an object")
    both = sorted(metadata.keys() & rest.keys())
    if both:
        raise CorpusError(f"{place}: {both[0]!r} is given twice, in 'metadata' and beside it: keep one")
    return Document(document_id, text, title, {**rest, **metadata}, vectors)


def _id(rest: dict[str, Any], place: str) -> str:
    key = next((key for key in ID_KEYS if key in rest), None)
    value = None if key is None else rest.pop(key)
    if value is None or (isinstance(value, str) and not value.strip()):
        raise CorpusError(f"{place}: no id: give each document a unique '_id' or 'id'")
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise CorpusError(f"{place}: {key!r} is of type {type(value).__name__}, expected a string or an integer")
    return str(value)


def _string(rest: dict[str, Any], keys: tuple[str, ...], place: str) -> str:
    key = next((key for key in keys if key in rest), None)
    value = None if key is None else rest.pop(key)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise CorpusError(f"{place}: {key!r} is of type {type(value).__name__}, expected a string")
    return value


def _vectors(rest: dict[str, Any], place: str) -> dict[str, Vector]:
    values = rest.pop("vectors", None)
    if values is None:
        values = {}
    if not isinstance(values, Mapping):
        raise CorpusError(f"{place}: 'vectors' is of type {type(values).__name__}, expected name -> list of numbers")
    values = dict(values)
    single = rest.pop("vector", None)
    if single is not None:
        if DEFAULT_VECTOR_FIELD in values:
            raise CorpusError(f"{place}: 'vector' and 'vectors' both give {DEFAULT_VECTOR_FIELD!r}: keep one")
        values[DEFAULT_VECTOR_FIELD] = single
    return {name: _vector(value, name, place) for name, value in values.items() if value is not None}


def _vector(value: object, name: str, place: str) -> Vector:
    if isinstance(value, list) and not all(type(number) in {int, float} for number in value):
        wrong = next(type(number).__name__ for number in value if type(number) not in {int, float})
        raise CorpusError(f"{place}: vector {name!r} holds a {wrong}, expected numbers")
    if not isinstance(value, list | np.ndarray):
        raise CorpusError(f"{place}: vector {name!r} is of type {type(value).__name__}, expected a list of numbers")
    try:
        # A number beyond float32 becomes infinite here, which check_document refuses by name.
        with np.errstate(over="ignore"):
            return np.asarray(value, dtype=np.float32)
    except OverflowError as error:
        raise CorpusError(f"{place}: vector {name!r} holds a number beyond float32: scale it") from error
