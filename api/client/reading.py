"""JSON into the values of api/client/results.py: strict about what is needed, deaf to what a newer server adds."""

import base64
import types
import typing
from collections.abc import Callable, Hashable, Mapping
from functools import cache
from typing import Any, TypeVar, cast

import numpy as np

from api.client.results import Embeddings, Page, Reranked, Reranking, Result, SearchResult, Written
from retrieval.types import Document, Json, StoredDocument

T = TypeVar("T")


class UnreadableError(ValueError):
    """JSON that is not of the form the client knows; never leaves the client, see exchange.call."""


def read(cls: type[T], value: Json) -> T:
    """Build the dataclass or named tuple `cls` from a JSON object; null is absent, keys it does not know are ignored.

    Raises UnreadableError on a missing key or a value of another type.
    """
    hints = _hints(cast("Hashable", cls))  # mypy takes type[T] for unhashable
    given = {
        name: None if value is None else _value(hints[name], value, f"{cls.__name__}.{name}")
        for name, value in _object(value, cls.__name__).items()
        if name in hints and (value is not None or _may_be_none(hints[name]))
    }
    try:
        return cls(**given)
    except TypeError as error:
        raise UnreadableError(f"{cls.__name__}: {error}") from error


@cache
def _hints(cls: Hashable) -> dict[str, Any]:
    return typing.get_type_hints(cls)


def _may_be_none(hint: Any) -> bool:
    return hint is Any or types.NoneType in typing.get_args(hint)


def _value(hint: Any, value: Json, place: str) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is types.UnionType:
        (inner,) = (option for option in arguments if option is not types.NoneType)
        return _value(inner, value, place)
    if origin is tuple:
        return tuple(_value(arguments[0], item, place) for item in _checked(list, value, place))
    if hint is Any or origin is typing.Literal:  # a newer server may know more states than this client
        return value
    if origin is not None:
        return _checked(origin, value, place)
    if hasattr(hint, "__dataclass_fields__") or hasattr(hint, "_fields"):
        return read(hint, value)
    return float(_checked(int, value, place)) if hint is float and type(value) is int else _checked(hint, value, place)


def _checked(kind: type[T], value: Json, place: str) -> T:
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise UnreadableError(f"{place} is {value!r:.80}, expected {kind.__name__}")
    return value


def read_document(value: Json) -> StoredDocument:
    """Build a stored document; its vectors become float32 arrays, its version a number.

    Its metadata must be there, if only as null: an answer that tells less of a document is not one with empty members.
    """
    document = _object(value, "a document")
    _member(document, "metadata")
    vectors = _checked(dict, document.get("vectors") or {}, "vectors")
    try:
        arrays = {name: np.asarray(vector, dtype=np.float32) for name, vector in vectors.items()}
    except (TypeError, ValueError) as error:
        raise UnreadableError(f"vectors: {error}") from error
    return StoredDocument(read(Document, {**document, "vectors": arrays}), read_version(document))


def read_version(value: Json) -> int:
    """Read a document's version: a number, also where it is spelled as the text of an ETag."""
    version = _member(value, "version")
    if isinstance(version, str) and version.isdecimal():
        return int(version)
    return _checked(int, version, "version")


def read_written(value: Json) -> Written:
    """Build what a write did."""
    return read(Written, {**_object(value, "the answer"), "version": read_version(value)})


def read_patched(value: Json) -> StoredDocument | Written:
    """Build the answer to a patch: the document, or what was done to it, for a key that may not read."""
    if "metadata" in _object(value, "the answer"):
        return read_document(value)
    return Written(_checked(str, _member(value, "id"), "id"), read_version(value), "patched")


def read_result(value: Json) -> Result:
    """Read what the write of a single document did, from the counts of a batch of one."""
    counts = _object(value, "the answer")
    for result in typing.get_args(Result):
        if counts.get(result):
            return cast("Result", result)
    raise UnreadableError("nothing is counted")


def read_count(key: str) -> Callable[[Json], int]:
    """Return what reads the number under `key`."""
    return lambda value: _checked(int, _member(value, key), key)


def read_documents(value: Json) -> list[StoredDocument | None]:
    """Build the answer to documents/get: None where an id is not there."""
    return [None if document is None else read_document(document) for document in items(value, "documents")]


def read_page(value: Json) -> Page:
    """Build a page of documents."""
    return Page(tuple(map(read_document, items(value, "documents"))), _object(value, "a page").get("next"))


def read_search(value: Json) -> SearchResult:
    """Build the answer to a search; the passage of a hit takes over the hit's id and title."""
    hits = [_whole_hit(_object(hit, "a hit")) for hit in items(value, "hits")]
    return read(SearchResult, {**value, "hits": hits})


def _whole_hit(hit: Mapping[str, Json]) -> dict[str, Json]:
    passage = _object(_member(hit, "passage"), "a passage")
    about = {"doc_id": _member(hit, "id"), "title": hit.get("title"), "text": passage.get("text") or ""}
    return {**hit, "passage": {**passage, **about}}


def read_list(cls: type[T], key: str) -> Callable[[Json], list[T]]:
    """Return what reads the list of `cls` under `key`."""
    return lambda value: [read(cls, item) for item in items(value, key)]


def read_embeddings(value: Json) -> Embeddings:
    """Build the answer to /v1/embeddings, whose vectors are base64 of little-endian float32."""
    rows = sorted((_object(row, "an embedding") for row in items(value, "data")), key=lambda row: row.get("index", 0))
    try:
        vectors = [np.frombuffer(base64.b64decode(_member(row, "embedding")), dtype="<f4") for row in rows]
        matrix = np.stack(vectors).astype(np.float32, copy=False)
    except (TypeError, ValueError) as error:
        raise UnreadableError(f"embeddings: {error}") from error
    tokens = _checked(int, _member(_object(_member(value, "usage"), "usage"), "total_tokens"), "tokens")
    truncated = _checked(int, _object(value, "the answer").get("truncated", 0), "truncated")
    return Embeddings(matrix, str(_member(value, "model")), tokens, truncated)


def read_reranking(value: Json) -> Reranking:
    """Build the answer to /v1/rerank, best first; its warnings are our notes."""
    results = [_object(item, "a result") for item in items(value, "results")]
    places = tuple(read(Reranked, {**item, "score": _member(item, "relevance_score")}) for item in results)
    warnings = _object(_object(value, "the answer").get("meta") or {}, "meta").get("warnings") or []
    return Reranking(places, tuple(map(str, _checked(list, warnings, "warnings"))))


def read_aliases(value: Json) -> dict[str, str]:
    """Build alias -> collection."""
    return {str(alias): str(name) for alias, name in _object(_member(value, "aliases"), "aliases").items()}


def _object(value: Json, what: str) -> Mapping[str, Json]:
    if not isinstance(value, Mapping):
        raise UnreadableError(f"{what} is {value!r:.80}, expected an object")
    return value


def _member(value: Json, key: str) -> Json:
    try:
        return _object(value, "the answer")[key]
    except KeyError:
        raise UnreadableError(f"{key!r} is missing") from None


def items(value: Json, key: str) -> list[Json]:
    """Return the list under `key`."""
    return _checked(list, _member(value, key), key)
