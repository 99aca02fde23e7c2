"""The exact best accepted rows, from an engine that can only say which rows are best."""

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from index.types import Rows
from retrieval.lexical import Accept, Matches

Scores: TypeAlias = npt.NDArray[np.float32]

Fetch: TypeAlias = Callable[[int, Rows | None], tuple[Rows, Scores]]
"""One query, bound to an engine: (limit, among) -> the `limit` best rows with their scores, best first, among the
given rows or all. Equal scores may come in any order, but a row's score depends on neither argument. Fewer than
`limit` means that no other row matches."""

_SLACK = 16
"""Rows fetched beyond those needed, so that short runs of equal scores end inside the first fetch."""

_MARGIN = 1.3
"""How much more than the expected number is fetched under a filter."""

_GROWTH = 4

_LISTED_COST = 10
"""Cost of naming one row to the engine, in fetched rows: with tantivy, over a million rows, where 5,000 named ones take
as long as 50,000 fetched ones (25 ms); lucene's ratio is lower at 125,000 rows (9 and 2.8 microseconds)."""


def best_accepted(fetch: Fetch, limit: int, accept: Accept | None, total: int) -> Matches:
    """Return the `limit` best accepted rows, ties by ascending row.

    total: rows in the index. The fetch widens until the last accepted score that is returned lies strictly above the
    last one fetched, or nothing is left, so the rows at the cut do not depend on the engine's order among equals.
    Cost: a fetch of about limit / (share of rows accepted), or one among the accepted rows where that is cheaper.
    """
    share = 1.0 if accept is None else min(accept.count / max(total, 1), 1.0)
    if share == 0:
        return Matches(np.empty(0, np.int64), np.empty(0, np.float32))
    size = int((1 if accept is None else _MARGIN) * limit / share) + _SLACK
    while True:
        size = min(size, total + 1)
        if accept is not None and _LISTED_COST * accept.count <= size:
            return best_accepted(_among(fetch, accept.rows()), limit, None, accept.count)
        rows, scores = fetch(size, None)
        exhausted, last = len(rows) < size, float(scores[-1]) if len(scores) else 0.0
        if accept is not None:
            keep = accept.mask(rows)
            rows, scores = rows[keep], scores[keep]
        if exhausted or (len(rows) >= limit and scores[limit - 1] > last):
            order = np.lexsort((rows, -scores))[:limit]
            return Matches(rows[order], scores[order])
        size = int(size * max(_GROWTH, _MARGIN * limit / max(len(rows), 1)))


def _among(fetch: Fetch, rows: Rows) -> Fetch:
    return lambda limit, _: fetch(limit, rows)
