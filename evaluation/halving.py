"""The cheapest index and effort that is good enough on a user's own queries: successive halving, then a confirmation.

Half of the queries choose, the other half says what the choice is worth, so that the number is not the luckiest of
many. "Good enough": per query, worth less `target` times what exact search is worth; the mean's lower bound is not
below 0. For recall exact search is worth 1, and this is recall >= target.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, TypeAlias

import numpy as np

from evaluation.statistics import Interval, Values, bootstrap_interval
from index.errors import RequestError
from index.types import Rows

LEAST_QUERIES: Final = 20
ALPHA: Final = 0.05
"""Chance that a choice is called good enough and is not."""

_FIRST: Final = 32
"""Queries of the first round."""

_CONFIRMATIONS: Final = 3
"""How many of the cheapest are put to the other half's test at most; ALPHA is shared among them."""

Worth: TypeAlias = Callable[[int, Rows], Values]
"""(candidate, query numbers int64 (q,)) -> worth per query, float64 (q,)."""


@dataclass(frozen=True, slots=True, eq=False)
class Chosen:
    """The choice. candidate: its number. worth: mean on the queries that did not choose, with its 95 % interval.

    exact: mean worth of exact search on the same queries. met: the target, beyond chance. queries: how many confirmed;
    searches: queries searched while choosing, all candidates together.
    """

    candidate: int
    worth: float
    interval: Interval
    exact: float
    met: bool
    queries: int
    searches: int = field(default=0)


def cheapest(
    worth: Worth, exact: Values, costs: Values, target: float, *, certain: int | None = None, seed: int = 0
) -> Chosen:
    """Return the cheapest candidate that meets the target, or else the one with the greatest worth, `met` False.

    exact: float64 (Q,), worth of exact search per query. costs: float64 (C,), of each candidate, any unit. certain: the
    candidate that is exact search, which meets any target: chosen where nothing else is confirmed.
    Each round doubles the queries and keeps the better half: first the cheapest of those that meet the target beyond
    chance, then those that come closest to it. Raises RequestError on fewer than 20 queries, no candidate, a target
    outside (0, 1]. Cost: about C x 32 x log2 C searches, and three candidates on half of the queries.
    Source: successive halving, Jamieson and Talwalkar, AISTATS 2016.
    """
    if len(exact) < LEAST_QUERIES or not len(costs):
        raise RequestError(f"{len(exact)} queries, {len(costs)} candidates: expected at least {LEAST_QUERIES} and 1")
    if not 0 < target <= 1:
        raise RequestError(f"target is {target}, expected more than 0 and at most 1, such as 0.95")
    order = np.random.default_rng(seed).permutation(len(exact))
    choosing, confirming = order[: len(order) // 2], order[len(order) // 2 :]
    ranked, searches = _halved(worth, exact, costs, target, choosing)
    passing = ranked[:_CONFIRMATIONS]
    found = {each: worth(each, confirming) for each in passing}
    alpha = ALPHA / len(passing)
    met = [each for each in passing if lower_bound(found[each] - target * exact[confirming], alpha) >= 0]
    if not met and certain is not None:
        found[certain], met = exact[confirming], [certain]
    chosen = met[0] if met else max(passing, key=lambda each: float(found[each].mean()))
    return Chosen(
        chosen,
        float(found[chosen].mean()),
        bootstrap_interval(found[chosen], seed=seed),
        float(exact[confirming].mean()),
        bool(met),
        len(confirming),
        searches + len(passing) * len(confirming),
    )


def _halved(worth: Worth, exact: Values, costs: Values, target: float, choosing: Rows) -> tuple[list[int], int]:
    """Return the last candidates standing, in the order in which they are to be confirmed, and the searches spent."""
    alive = list(range(len(costs)))
    known: dict[int, Values] = {each: np.empty(0) for each in alive}
    size, searches = 0, 0
    while True:
        more = choosing[size : max(_FIRST, 2 * size)]
        for each in alive:
            known[each] = np.concatenate([known[each], worth(each, more)])
        searches += len(alive) * len(more)
        size += len(more)
        bounds = {each: lower_bound(known[each] - target * exact[choosing[:size]], ALPHA) for each in alive}
        alive.sort(key=lambda each: (bounds[each] < 0, costs[each] if bounds[each] >= 0 else -bounds[each]))
        if size == len(choosing):
            return alive, searches
        alive = alive[: max(_CONFIRMATIONS, (len(alive) + 1) // 2)]


def lower_bound(values: Values, alpha: float) -> float:
    """Return the one-sided lower confidence bound of the mean by Student's t. values: float64 (q,), q at least 2."""
    from scipy import special  # noqa: PLC0415  heavy

    reach = float(special.stdtrit(len(values) - 1, 1 - alpha)) / np.sqrt(len(values))
    return float(values.mean() - reach * values.std(ddof=1))
