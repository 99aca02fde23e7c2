"""Metadata filters: the JSON grammar, the one syntax tree it parses to, and the evaluator for a single document.

Grammar (a superset of the OpenAI vector-store filters):

    {"type": "eq" | "ne",                                "key": "lang", "value": scalar}
    {"type": "gt" | "gte" | "lt" | "lte",                "key": "year", "value": number or string}
    {"type": "in" | "nin" | "contains_any" | "contains_all", "key": "tags", "value": [scalar, ...]}   at most 1,024
    {"type": "exists",                                   "key": "year", "value": true | false}         default true
    {"type": "and" | "or", "filters": [filter, ...]}     {"type": "not", "filter": filter}

A scalar is null, true, false, a finite number or a string. Depth is at most 8 (a lone comparison has depth 1), nodes at
most 256. The key `_id` means the document id and takes eq, ne, in, nin with strings.

What matches (v a scalar; "same type" means both numbers, both strings, both booleans or both null):

    field is        eq v, in [v]       gt gte lt lte v     contains_any [v ...]   contains_all [v ...]   exists
    missing         no                 no                  no                     no                     no
    null            v is null          no                  as the list [null]     as the list [null]     yes
    boolean         same boolean       no                  as a list of one       as a list of one       yes
    number          same number        v number, by value  as a list of one       as a list of one       yes
    string          same string        v string, by code   as a list of one       as a list of one       yes
                                       point
    list            no                 no                  some element equals    every v equals some    yes
                                                           some v                 element
    object          no                 no                  no                     no, unless [] is asked yes

`ne`, `nin` and `exists: false` are the exact opposites of eq, in and exists, so they match a missing field too; `not`
is the opposite of its filter. Numbers compare by value as Python compares them: 1 equals 1.0, integers of any size are
exact (2**53 + 1 does not equal float 2**53), NaN equals nothing; a boolean is never a number. Strings compare by code
point, so ISO dates order correctly. `in []` and `contains_any []` match nothing; `contains_all []` matches where the
field is present. Elements that are lists or objects equal nothing.

A key names a top-level field, or a path through nested objects: `author.name`. Field names may hold dots themselves;
then the longest field name wins at each level: with {"a.b": 1, "a": {"b": 2}} the key `a.b` means 1. Objects inside
lists, and objects nested deeper than 16 levels, are not reached.
"""

import json
import math
import operator
import reprlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple, TypeAlias

from index.errors import RequestError
from retrieval.types import Json, Metadata

MAX_DEPTH: Final = 8
MAX_NODES: Final = 256
MAX_VALUES: Final = 1024
MAX_KEY_CHARS: Final = 1024
MAX_OBJECT_LEVELS: Final = 16
ID: Final = "_id"

Kind: TypeAlias = Literal["null", "boolean", "number", "string"]
CompareOp: TypeAlias = Literal["in", "gt", "gte", "lt", "lte", "contains_any", "contains_all", "exists"]


class Scalar(NamedTuple):
    """A comparable value tagged with its kind, so that Python's True == 1 does not leak into filters."""

    kind: Kind
    value: bool | int | float | str | None


@dataclass(frozen=True, slots=True)
class Comparison:
    """One field against its operands. eq is `in` with one operand; `exists` has none."""

    op: CompareOp
    key: str
    operands: frozenset[Scalar]


@dataclass(frozen=True, slots=True)
class Compound:
    """All ("and") or at least one ("or") of `filters`, which holds one or more."""

    op: Literal["and", "or"]
    filters: "tuple[Filter, ...]"


@dataclass(frozen=True, slots=True)
class Not:
    """The opposite of `filter`; ne, nin and `exists: false` are written with it."""

    filter: "Filter"


Filter: TypeAlias = Comparison | Compound | Not

ORDER: Final[Mapping[str, Callable[[Any, Any], bool]]] = {
    "gt": operator.gt,
    "gte": operator.ge,
    "lt": operator.lt,
    "lte": operator.le,
}
_EQUAL: Final = ("eq", "ne")
_LIST: Final[Mapping[str, CompareOp]] = {
    "in": "in",
    "nin": "in",
    "contains_any": "contains_any",
    "contains_all": "contains_all",
}
_TYPES: Final = (*_EQUAL, *ORDER, *_LIST, "exists", "and", "or", "not")
_NEGATED: Final = ("ne", "nin")
_MISSING: Final = object()


def scalar(value: Json) -> Scalar | None:
    """Tag a JSON value for comparison; None for what equals nothing: lists, objects, NaN."""
    if isinstance(value, str):
        return Scalar("string", value)
    if value is None:
        return Scalar("null", None)
    if isinstance(value, bool):
        return Scalar("boolean", value)
    if isinstance(value, int | float) and value == value:  # noqa: PLR0124  false for NaN alone, at any integer size
        return Scalar("number", value)
    return None


def parse_filter(value: Mapping[str, Json]) -> Filter:
    """Check a filter in the JSON grammar above and return its syntax tree.

    Raises RequestError that names the place in the filter, what was found and what is allowed.
    """
    return _Parser().node(value, "filter", 1)


def keys(filter: Filter) -> frozenset[str]:  # noqa: A002  the domain's word, in a module without the builtin
    """Return the metadata keys a filter reads; `_id` is always known, so it is left out."""
    return frozenset(comparison.key for comparison in _comparisons(filter)) - {ID}


def canonical(filter: Filter) -> str:  # noqa: A002
    """Return a string for cache keys: equal strings mean equal answers.

    Order and repetition of operands and of and/or parts do not matter, nor does 1 against 1.0. Encodable as UTF-8.
    """
    match filter:
        case Not():
            return f"not({canonical(filter.filter)})"
        case Compound():
            parts = sorted({canonical(part) for part in filter.filters})
            return f"{filter.op}({','.join(parts)})"
        case Comparison():
            operands = sorted(_token(operand) for operand in filter.operands)
            return filter.op + json.dumps([filter.key, *operands], ensure_ascii=False)


def matches(filter: Filter, metadata: Metadata, doc_id: str) -> bool:  # noqa: A002
    """Say whether one document passes; `retrieval.columns` gives the same answers for many at once.

    Cost: a few microseconds a comparison, whatever the number of operands.
    """
    match filter:
        case Not():
            return not matches(filter.filter, metadata, doc_id)
        case Compound():
            verdicts = (matches(part, metadata, doc_id) for part in filter.filters)
            return all(verdicts) if filter.op == "and" else any(verdicts)
        case Comparison():
            value = doc_id if filter.key == ID else _lookup(metadata, filter.key)
            return value is not _MISSING and _compare(filter, value)


def flatten(metadata: Metadata, levels: int = MAX_OBJECT_LEVELS) -> dict[str, Json]:
    """Every key a filter can read in one document, with its value; objects are listed beside what they hold."""
    found: dict[str, Json] = {}
    # Longest name first and the first entry stays: the precedence that _lookup follows.
    for name in sorted(metadata, key=len, reverse=True):
        value = metadata[name]
        found.setdefault(name, value)
        if levels > 1 and isinstance(value, Mapping):
            for rest, nested in flatten(value, levels - 1).items():
                found.setdefault(f"{name}.{rest}", nested)
    return found


def _lookup(metadata: Metadata, key: str, levels: int = MAX_OBJECT_LEVELS) -> Json:
    if key in metadata:
        return metadata[key]
    dot = key.rfind(".") if levels > 1 else -1
    while dot >= 0:
        inner = metadata.get(key[:dot])
        if isinstance(inner, Mapping):
            value = _lookup(inner, key[dot + 1 :], levels - 1)
            if value is not _MISSING:
                return value
        dot = key.rfind(".", 0, dot)
    return _MISSING


def _compare(comparison: Comparison, value: Json) -> bool:
    operands = comparison.operands
    match comparison.op:
        case "exists":
            return True
        case "in":
            return scalar(value) in operands
        case "contains_any" | "contains_all":
            elements = {scalar(element) for element in (value if isinstance(value, list | tuple) else (value,))}
            return operands <= elements if comparison.op == "contains_all" else not operands.isdisjoint(elements)
        case _:
            (bound,) = operands
            found = scalar(value)
            return found is not None and found.kind == bound.kind and ORDER[comparison.op](found.value, bound.value)


def _comparisons(filter: Filter) -> Iterator[Comparison]:  # noqa: A002
    match filter:
        case Not():
            yield from _comparisons(filter.filter)
        case Compound():
            for part in filter.filters:
                yield from _comparisons(part)
        case Comparison():
            yield filter


def _token(operand: Scalar) -> str:
    value = operand.value
    if isinstance(value, float):
        value = int(value) if value.is_integer() else value.hex()
    if isinstance(value, int) and not isinstance(value, bool):
        value = f"{value:x}"  # hexadecimal, because Python limits the digits of decimal conversion
    return f"{operand.kind} {value}"


class _Parser:
    """One parse: counts nodes over the whole filter; `where` is the path of the node at hand."""

    def __init__(self) -> None:
        self._nodes = 0

    def node(self, value: Json, where: str, depth: int) -> Filter:
        self._nodes += 1
        if self._nodes > MAX_NODES:
            raise RequestError(f"filter has more than {MAX_NODES} nodes: use `in` for alternatives of one key")
        if depth > MAX_DEPTH:
            raise RequestError(f"{where} is nested deeper than {MAX_DEPTH} levels: flatten the filter")
        if not isinstance(value, Mapping):
            raise _refusal(where, value, 'an object such as {"type": "eq", "key": "lang", "value": "en"}')
        kind = value.get("type")
        if not isinstance(kind, str) or kind not in _TYPES:
            raise RequestError(f"{where}.type is {reprlib.repr(kind)}, expected one of {', '.join(_TYPES)}")
        if kind in ("and", "or"):
            _members(value, where, kind, ("filters",))
            parts = value["filters"]
            if not isinstance(parts, list | tuple) or not parts:
                raise _refusal(f"{where}.filters", parts, "a list of at least one filter")
            return Compound(
                "and" if kind == "and" else "or",
                tuple(self.node(part, f"{where}.filters[{i}]", depth + 1) for i, part in enumerate(parts)),
            )
        if kind == "not":
            _members(value, where, kind, ("filter",))
            return Not(self.node(value["filter"], f"{where}.filter", depth + 1))
        return _parse_comparison(value, where, kind)


def _parse_comparison(value: Mapping[str, Json], where: str, kind: str) -> Filter:
    _members(value, where, kind, ("key", "value"), optional="value" if kind == "exists" else None)
    key = value["key"]
    if not isinstance(key, str) or len(key) > MAX_KEY_CHARS:
        raise _refusal(f"{where}.key", key, f"a string of at most {MAX_KEY_CHARS} characters")
    _check_text(key, f"{where}.key")
    if key == ID and kind not in (*_EQUAL, "in", "nin"):
        raise RequestError(f"{where} applies {kind} to {ID}, which takes eq, ne, in, nin")
    if kind == "exists":
        wanted = value.get("value", True)
        if not isinstance(wanted, bool):
            raise _refusal(f"{where}.value", wanted, "true or false")
        present = Comparison("exists", key, frozenset())
        return present if wanted else Not(present)
    op, operands = _parse_operands(value["value"], f"{where}.value", kind)
    if key == ID and any(operand.kind != "string" for operand in operands):
        raise RequestError(f"{where}.value holds something else than strings: document ids are strings")
    comparison = Comparison(op, key, operands)
    return Not(comparison) if kind in _NEGATED else comparison


def _parse_operands(value: Json, where: str, kind: str) -> tuple[CompareOp, frozenset[Scalar]]:
    if kind in _LIST:
        if not isinstance(value, list | tuple):
            raise _refusal(where, value, f"a list, because {kind} takes a list")
        if len(value) > MAX_VALUES:
            raise RequestError(f"{where} holds {len(value)} values, at most {MAX_VALUES} are allowed: split the filter")
        return _LIST[kind], frozenset(_operand(item, f"{where}[{i}]") for i, item in enumerate(value))
    operand = _operand(value, where)
    match kind:
        case "gt" | "gte" | "lt" | "lte":
            if operand.kind not in ("number", "string"):
                raise _refusal(where, value, f"a number or a string, because {kind} compares by order")
            return kind, frozenset((operand,))
        case _:
            return "in", frozenset((operand,))


def _operand(value: Json, where: str) -> Scalar:
    operand = scalar(value)
    if operand is None or (isinstance(value, float) and not math.isfinite(value)):
        raise _refusal(
            where,
            value,
            "null, true, false, a finite number or a string (contains_any and contains_all look into lists)",
        )
    if isinstance(value, str):
        _check_text(value, where)
    return operand


def _members(
    value: Mapping[str, Json], where: str, kind: str, needed: tuple[str, ...], optional: str | None = None
) -> None:
    missing = [name for name in needed if name not in value and name != optional]
    if missing:
        raise RequestError(f"{where} has no {missing[0]!r}: {kind} needs {' and '.join(needed)}")
    unknown = [name for name in value if name not in needed and name != "type"]
    if unknown:
        raise RequestError(
            f"{where} has an unknown member {reprlib.repr(unknown[0])}: {kind} takes type, {', '.join(needed)}"
        )


def _check_text(text: str, where: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise RequestError(f"{where} holds a lone surrogate at character {error.start}: send valid Unicode") from error


def _refusal(where: str, value: Json, expected: str) -> RequestError:
    found = "null" if value is None else type(value).__name__
    if isinstance(value, float | str):
        found += f" {reprlib.repr(value)}"
    return RequestError(f"{where} is {found}, expected {expected}")
