"""LlamaIndex's metadata filters in the grammar of retrieval/filters.py.

    operator                    here                                  where they differ
    == != > >= < <= in nin      eq ne gt gte lt lte in nin            a boolean is no number; other types never compare
    any all contains            contains_any contains_all             whole elements, never a part of a string
                                contains_any of one
    is_empty                    missing, null, "", or []              [] in nodes that this adapter has stored
    text_match                  RequestError: metadata is compared
    text_match_insensitive      whole; search for words instead

As with LlamaIndex's own store, a missing field matches != and nin. Conditions: and, or, not (none of them), nested.
"""

from typing import Final

from llama_index.core.vector_stores.types import FilterCondition, FilterOperator, MetadataFilter, MetadataFilters

from api.frameworks.conditions import EVERYTHING, NOTHING, Condition
from index.errors import RequestError

EMPTY_LISTS: Final = "_empty_lists"
"""Metadata key under which the adapter notes which others hold []: no filter can tell [] from another list."""

_COMPARISONS: Final = {
    FilterOperator.EQ: "eq",
    FilterOperator.NE: "ne",
    FilterOperator.GT: "gt",
    FilterOperator.GTE: "gte",
    FilterOperator.LT: "lt",
    FilterOperator.LTE: "lte",
}
_LISTS: Final = {
    FilterOperator.IN: "in",
    FilterOperator.NIN: "nin",
    FilterOperator.ANY: "contains_any",
    FilterOperator.ALL: "contains_all",
}


def condition_of(filters: MetadataFilters | None) -> Condition | None:
    """Return the filter that `filters` mean; None where they ask for nothing. Raises RequestError."""
    return None if filters is None or not filters.filters else _compound(filters)


def _compound(filters: MetadataFilters) -> Condition:
    parts = [_compound(part) if isinstance(part, MetadataFilters) else _comparison(part) for part in filters.filters]
    match filters.condition:
        case FilterCondition.AND | None:
            return {"type": "and", "filters": parts} if parts else EVERYTHING
        case FilterCondition.OR:
            return {"type": "or", "filters": parts} if parts else NOTHING
        case FilterCondition.NOT:
            return {"type": "not", "filter": {"type": "or", "filters": parts}} if parts else EVERYTHING


def _comparison(comparison: MetadataFilter) -> Condition:
    key, operator, value = comparison.key, comparison.operator, comparison.value
    if operator is FilterOperator.IS_EMPTY:
        absent = {"type": "exists", "key": key, "value": False}
        blank = {"type": "in", "key": key, "value": [None, ""]}
        return {"type": "or", "filters": [absent, blank, {"type": "contains_any", "key": EMPTY_LISTS, "value": [key]}]}
    if operator in (FilterOperator.TEXT_MATCH, FilterOperator.TEXT_MATCH_INSENSITIVE):
        raise RequestError(
            f"filter operator {operator.value!r} on {key!r}: filters compare metadata whole; search for the words with "
            "mode SPARSE, or keep them as a list and filter with `contains`"
        )
    if value is None:
        raise RequestError(f"filter {operator.value!r} on {key!r} has no value: use `is_empty` to find missing values")
    if operator in _LISTS:
        if not isinstance(value, list):
            raise RequestError(f"filter {operator.value!r} on {key!r} has the value {value!r:.80}, expected a list")
        return {"type": _LISTS[operator], "key": key, "value": value}
    if isinstance(value, list):
        raise RequestError(f"filter {operator.value!r} on {key!r} has a list, expected a single value")
    if operator is FilterOperator.CONTAINS:
        return {"type": "contains_any", "key": key, "value": [value]}
    return {"type": _COMPARISONS[operator], "key": key, "value": value}
