"""Haystack's filters in the grammar of retrieval/filters.py.

    ==  !=          eq, ne; None also means a missing field; dates are compared as they are written
    >  >=  <  <=    gt, gte, lt, lte; with numbers, or with ISO 8601 dates, which compare by code point: write them all
                    in one form (same precision, same time zone). None matches nothing.
    in  not in      in, nin; the value is a list, and None in it also means a missing field
    AND  OR  NOT    and, or, not of and

Fields are `id` (compared for equality) and `meta.NAME`, nested ones as `meta.A.B`; a bare NAME means meta.NAME. A
boolean is no number, and values of different types never compare. Everything else raises Haystack's FilterError: other
attributes of a document (content, embedding ...), lists to compare with, strings that are no dates to order by.
"""

import re
from dataclasses import fields
from datetime import date, datetime
from typing import Any, Final

from haystack.dataclasses import Document
from haystack.errors import FilterError

from api.frameworks.conditions import EVERYTHING, NOTHING, Condition
from index.errors import RequestError
from retrieval.filters import ID, parse_filter

_META = "meta."
_ATTRIBUTES: Final = frozenset(field.name for field in fields(Document))
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}($|[Tt ])")
_ORDER: Final = {">": "gt", ">=": "gte", "<": "lt", "<=": "lte"}


def condition_of(filters: dict[str, Any] | None) -> Condition | None:
    """Return the filter that `filters` mean; None where they are empty. Raises FilterError."""
    if not filters:
        return None
    condition = _node(filters)
    try:
        parse_filter(condition)
    except RequestError as error:
        raise FilterError(f"{filters!r:.200}: {error}") from error
    return condition


def _node(value: Any) -> Condition:
    if not isinstance(value, dict):
        raise FilterError(f"{value!r:.200} is no filter: expected a dictionary")
    return _comparison(value) if "field" in value else _logic(value)


def _logic(value: dict[str, Any]) -> Condition:
    _need(value, "operator", "conditions")
    if not isinstance(value["conditions"], list):
        raise FilterError(f"conditions is {value['conditions']!r:.80}, expected a list of filters")
    parts = [_node(part) for part in value["conditions"]]
    both: Condition = {"type": "and", "filters": parts} if parts else EVERYTHING
    match value["operator"]:
        case "AND":
            return both
        case "OR":
            return {"type": "or", "filters": parts} if parts else NOTHING
        case "NOT":
            return {"type": "not", "filter": both}
        case operator:
            raise FilterError(f"logical operator {operator!r} is unknown, expected AND, OR or NOT")


def _comparison(value: dict[str, Any]) -> Condition:
    _need(value, "operator", "value")
    key, operator = _key(value["field"]), value["operator"]
    operand = _operand(value["value"])
    if operator in ("==", "!="):
        return _equality(key, "eq" if operator == "==" else "ne", operand)
    if operator in ("in", "not in"):
        return _membership(key, "in" if operator == "in" else "nin", operand)
    if operator not in _ORDER:
        raise FilterError(f"operator {operator!r} is unknown, expected ==, !=, >, >=, <, <=, in or not in")
    if operand is None:
        return NOTHING
    if isinstance(operand, str) and not _is_date(operand):
        raise FilterError(f"{operator} {operand!r:.80}: strings are ordered only if they are dates in ISO 8601")
    if isinstance(operand, list):
        raise FilterError(f"{operator} takes a number or a date, not a list")
    return {"type": _ORDER[operator], "key": key, "value": operand}


def _operand(value: Any) -> Any:
    """Return a value, or a list of them, with dates as they are stored."""
    if isinstance(value, list):
        return [_operand(item) for item in value]
    return value.isoformat() if isinstance(value, date) else value


def _equality(key: str, kind: str, operand: Any) -> Condition:
    if isinstance(operand, list | dict):
        raise FilterError(f"{key!r} is compared with {operand!r:.80}, expected a single value")
    if operand is None:
        return _absence(key, kind == "ne", [None])
    return {"type": kind, "key": key, "value": operand}


def _membership(key: str, kind: str, operand: Any) -> Condition:
    if not isinstance(operand, list):
        raise FilterError(f"in and not in take a list, not {type(operand).__name__}")
    if None in operand:
        return _absence(key, kind == "nin", operand)
    return {"type": kind, "key": key, "value": operand}


def _absence(key: str, negated: bool, values: list[Any]) -> Condition:
    """Return a filter for one of `values`, or a missing field; or its opposite."""
    if key == ID:  # no document lacks an id
        return {
            "type": "nin" if negated else "in",
            "key": ID,
            "value": [value for value in values if value is not None],
        }
    absent: Condition = {"type": "exists", "key": key, "value": False}
    found: Condition = {"type": "or", "filters": [absent, {"type": "in", "key": key, "value": values}]}
    return {"type": "not", "filter": found} if negated else found


def _key(field: Any) -> str:
    if not isinstance(field, str):
        raise FilterError(f"field {field!r:.80} is no string")
    if field == "id":
        return ID
    if field.startswith(_META):
        return field.removeprefix(_META)
    if field.split(".")[0] in _ATTRIBUTES:
        raise FilterError(f"field {field!r} cannot be filtered by: expected id or meta.NAME")
    return field


def _is_date(text: str) -> bool:
    try:
        datetime.fromisoformat(text)
    except ValueError:
        return False
    return _DATE.match(text) is not None


def _need(value: dict[str, Any], *names: str) -> None:
    for name in names:
        if name not in value:
            raise FilterError(f"{name!r} is missing in {value!r:.200}")
