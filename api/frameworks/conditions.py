"""Filters as the adapters put them together."""

from collections.abc import Mapping, Sequence
from typing import Final, TypeAlias

from retrieval.filters import ID
from retrieval.types import Json

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
