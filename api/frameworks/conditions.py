"""Filters as the adapters put them together, and what they mean where fields are missing."""

from collections.abc import Callable, Mapping, Sequence
from typing import Final, TypeAlias, TypeVar

from index.errors import RequestError
from retrieval.filters import ID, keys, parse_filter
from retrieval.types import Json

T = TypeVar("T")

Condition: TypeAlias = Mapping[str, Json]
"""A filter in the grammar of retrieval/filters.py."""

NOTHING: Final[Condition] = {"type": "in", "key": ID, "value": []}
EVERYTHING: Final[Condition] = {"type": "nin", "key": ID, "value": []}
"""Filters that no document, and every document, passes."""

_VALUES = 1_000
"""Ids in one comparison, which takes 1,024."""


def all_of(*conditions: Condition | None) -> Condition | None:
    """Return a filter that asks for all of `conditions`, None being no condition."""
    given = [condition for condition in conditions if condition is not None]
    if len(given) <= 1:
        return given[0] if given else None
    return {"type": "and", "filters": given}


def one_of_ids(doc_ids: Sequence[str], key: str = ID) -> Condition:
    """Return a filter that passes documents whose id, or string under `key`, is one of `doc_ids`, up to 255,000."""
    parts = [doc_ids[start : start + _VALUES] for start in range(0, len(doc_ids), _VALUES)]
    comparisons = [{"type": "in", "key": key, "value": list(part)} for part in parts]
    if not comparisons:
        return NOTHING
    return comparisons[0] if len(comparisons) == 1 else {"type": "or", "filters": comparisons}


def leniently(condition: Condition | None, call: Callable[[Condition | None], T], knows: Callable[[str], bool]) -> T:
    """Call with a filter; where it names fields that no document has, with what it means then."""
    if condition is None:
        return call(None)
    try:
        return call(condition)
    except RequestError:
        unknown = {key for key in keys(parse_filter(condition)) if not knows(key)}
        if not unknown:
            raise
        return call(_with_missing(condition, unknown))


def _with_missing(condition: Condition, unknown: set[str]) -> Condition:
    """Return a valid filter with its comparisons of fields that are missing everywhere decided."""
    match condition["type"]:
        case "and" | "or":
            return {**condition, "filters": [_with_missing(part, unknown) for part in condition["filters"]]}
        case "not":
            return {**condition, "filter": _with_missing(condition["filter"], unknown)}
        case kind if condition["key"] in unknown:
            absence = kind in ("ne", "nin") or (kind == "exists" and condition.get("value") is False)
            return EVERYTHING if absence else NOTHING
        case _:
            return condition
