"""What one search sees of a shard: the base, what was written since, and which rows are alive."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from index.bitmap import pack
from index.errors import RequestError
from index.types import Bitmap, Mask, Rows, Vectors
from retrieval.base import Base, positions
from retrieval.filters import ID, Filter, keys, matches
from retrieval.lexical import LexicalIndex
from retrieval.recent import Recent
from retrieval.types import Metadata

_CACHED_FILTERS = 64


@dataclass(frozen=True, slots=True)
class Fresh:
    """Passages written since the base, F of them, in row order.

    rows: int64 (F,). doc_of: int64 (F,), position -> number in doc_ids and metadata. dead: bool (F,), replaced since.
    vectors: float32 (F, D) per dense field, prepared for the field's metric.
    """

    rows: Rows
    doc_of: npt.NDArray[np.int64]
    dead: Mask
    doc_ids: Sequence[str]
    metadata: Sequence[Metadata]
    vectors: Mapping[str, Vectors]


@dataclass(frozen=True, slots=True)
class Allowed:
    """The passages a request may return. base: bool (N,); fresh: bool (F,); bitmap: `base`, packed.

    Holds the rows it speaks of, not the View, whose cache holds this object: replaced bases are freed at once.
    """

    base_rows: Rows
    fresh_rows: Rows
    base: Mask
    fresh: Mask
    count: int
    _bitmap: list[Bitmap] = field(default_factory=list)

    @property
    def bitmap(self) -> Bitmap:
        """`base` as packed bits, made once."""
        if not self._bitmap:
            self._bitmap.append(pack(self.base))
        return self._bitmap[0]

    @property
    def everything(self) -> bool:
        """Whether nothing of the base is masked."""
        return self.count == len(self.base) + len(self.fresh)

    def mask(self, rows: Rows) -> Mask:
        """Return which of `rows` may be returned; rows unknown to the view may not."""
        result = np.zeros(len(rows), dtype=np.bool_)
        base = positions(self.base_rows, rows)
        known = base >= 0
        result[known] = self.base[base[known]]
        fresh = positions(self.fresh_rows, rows)
        known = fresh >= 0
        result[known] = self.fresh[fresh[known]]
        return result

    def without(self, rows: Rows) -> "Allowed":
        """Return the same, less `rows`."""
        base, fresh = self.base.copy(), self.fresh.copy()
        for mask, places in (
            (base, positions(self.base_rows, rows)),
            (fresh, positions(self.fresh_rows, rows)),
        ):
            mask[places[places >= 0]] = False
        return Allowed(self.base_rows, self.fresh_rows, base, fresh, int(base.sum()) + int(fresh.sum()))

    def rows(self) -> Rows:
        """Return all allowed rows, ascending."""
        return np.concatenate([self.base_rows[self.base], self.fresh_rows[self.fresh]])


@dataclass(frozen=True, slots=True)
class View:
    """A consistent, immutable state of a shard as of operation `op`.

    base_dead: bool (N,), rows of the base that were replaced or deleted since. patched: document number in the base
    -> metadata that replaces its columns. lexical: per field, what searches base and fresh rows together.
    uncovered: per lexical field, how many fresh rows it cannot see. known_keys: metadata keys that the base or any
    write followed since has; a filter on another one is refused.
    """

    base: Base
    op: int
    base_dead: Mask
    fresh: Fresh
    patched: Mapping[int, Metadata]
    lexical: Mapping[str, LexicalIndex]
    uncovered: Mapping[str, int]
    known_keys: frozenset[str]
    _allowed: Recent[Filter | None, Allowed] = field(default_factory=lambda: Recent(_CACHED_FILTERS))

    def allowed(self, condition: Filter | None, *, strict: bool = True) -> Allowed:
        """Return what a request with this filter may see.

        strict: raise RequestError when the filter names a field that no document has.
        Cost: a column scan for a new filter, nothing for a cached one.
        """
        if strict and condition is not None:
            self._check_keys(condition)
        cached = self._allowed.get(condition)
        if cached is None:
            base, fresh = ~self.base_dead, ~self.fresh.dead
            if condition is not None:
                base &= self._base_matching(condition)
                fresh &= self._fresh_matching(condition)
            cached = Allowed(self.base.rows, self.fresh.rows, base, fresh, int(base.sum()) + int(fresh.sum()))
            self._allowed.put(condition, cached)
        return cached

    def _check_keys(self, condition: Filter) -> None:
        unknown = sorted(keys(condition) - self.known_keys - {ID})
        if unknown and self.known_keys:
            known = ", ".join(sorted(self.known_keys)[:20])
            raise RequestError(f"filter field {unknown[0]!r} is in no document's metadata; known fields: {known}")

    def _base_matching(self, condition: Filter) -> Mask:
        mask = self.base.matching(condition)
        if not self.patched:
            return mask
        mask = mask.copy()
        for number, metadata in self.patched.items():
            low, high = np.searchsorted(self.base.doc_of, [number, number + 1])
            mask[low:high] = matches(condition, metadata, self.base.columns.doc_id(number))
        return mask

    def _fresh_matching(self, condition: Filter) -> Mask:
        numbers = np.unique(self.fresh.doc_of[~self.fresh.dead])
        mask = np.zeros(len(self.fresh.doc_ids), dtype=np.bool_)
        for number in numbers:
            mask[number] = matches(condition, self.fresh.metadata[number], self.fresh.doc_ids[number])
        return mask[self.fresh.doc_of]

    def documents(self, rows: Rows) -> npt.NDArray[np.int64]:
        """Return a number per row that is equal for passages of one document: base number, or M + fresh number."""
        result = np.empty(len(rows), np.int64)
        base = self.base.positions(rows)
        known = base >= 0
        result[known] = self.base.doc_of[base[known]]
        fresh = positions(self.fresh.rows, rows[~known])
        result[~known] = len(self.base.columns) + self.fresh.doc_of[fresh]
        return result

    def doc_ids(self, numbers: npt.NDArray[np.int64]) -> list[str]:
        """Return the ids of documents numbered as `documents` does."""
        count = len(self.base.columns)
        stored = iter(self.base.columns.doc_ids(numbers[numbers < count]))
        return [next(stored) if number < count else self.fresh.doc_ids[number - count] for number in numbers.tolist()]
