"""Where a pipeline loses what it could have been worth: one ledger per query, additive by construction.

    final = ceiling - loss - loss - ... + gain

Each stage has the utility of what the pipeline finds once this stage is as deployed, so a term is the difference of
two neighbours and nothing is left over. Order decides how much a stage is charged; `shapley` averages over all orders.

    vectors      ceiling, embedding loss, metric loss, ann loss, quantisation loss, rerank gain
    generative   ceiling, model loss (every identifier scored), beam loss, identifier loss (collisions), rerank gain
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Final

import numpy as np

from evaluation.resampling import bootstrap_intervals
from evaluation.statistics import LEVEL, Values
from index.errors import RequestError

VECTOR_STAGES: Final = ("embedding", "metric", "ann", "quantisation")
GENERATIVE_STAGES: Final = ("model", "beam", "identifier")

RERANK: Final = "rerank"
"""The stage whose term is a gain: what it adds is counted as positive."""


@dataclass(frozen=True, slots=True)
class Term:
    """One entry of a ledger: its mean over queries with a paired bootstrap interval, and each query's value.

    A loss is positive where the stage costs utility (and negative where it helps), a gain where it adds.
    """

    name: str
    mean: float
    low: float
    high: float
    values: Values = field(repr=False)


@dataclass(frozen=True, slots=True)
class Ledger:
    """The way from the ceiling to what users get. utility: its name. ceiling: float64 (Q,), oracle with labels.

    stages: in order, (name, utility of each query after it, float64 (Q,)).
    """

    utility: str
    ceiling: Values
    stages: tuple[tuple[str, Values], ...]

    def __post_init__(self) -> None:
        """Raise RequestError on no stage, a name used twice, other queries, or values that are not finite."""
        names = [name for name, _ in self.stages]
        if not names or len(set(names)) != len(names):
            raise RequestError(f"ledger stages are {names}, expected at least one, each once")
        for name, values in (("ceiling", self.ceiling), *self.stages):
            if values.shape != self.ceiling.shape or values.ndim != 1 or not np.isfinite(values).all():
                raise RequestError(
                    f"ledger of {self.utility}: {name} has values of {values.shape}, expected a finite number for each "
                    f"of {self.ceiling.shape} queries"
                )

    @property
    def final(self) -> Values:
        """What the whole pipeline is worth, float64 (Q,)."""
        return self.stages[-1][1]

    def changes(self) -> dict[str, Values]:
        """Return each stage's term per query: a loss, or of the rerank stage a gain."""
        before = self.ceiling
        result = {}
        for name, after in self.stages:
            result[name] = after - before if name == RERANK else before - after
            before = after
        return result

    def residual(self) -> float:
        """Return by how much ceiling - losses + gain misses what is final, at most: rounding, below 1e-12."""
        total = self.ceiling.copy()
        for name, values in self.changes().items():
            total += values if name == RERANK else -values
        return float(np.abs(total - self.final).max(initial=0))

    def terms(self, *, seed: int, level: float = LEVEL) -> tuple[Term, ...]:
        """Return ceiling, the stages' terms and "final", each with its interval over queries.

        Raises RequestError on fewer than 2 queries. Cost: one bootstrap for all.
        """
        everything = {"ceiling": self.ceiling, **self.changes(), "final": self.final}
        return terms_of(everything, seed=seed, level=level)


def terms_of(values: Mapping[str, Values], *, seed: int, level: float = LEVEL) -> tuple[Term, ...]:
    """Return each mean of per-query values with its interval, of the same resamples of the queries for all."""
    intervals = bootstrap_intervals(np.stack(list(values.values()), axis=1), seed=seed, level=level)
    return tuple(
        Term(name, float(each.mean()), *interval, each)
        for (name, each), interval in zip(values.items(), intervals, strict=True)
    )


def term(name: str, values: Values, *, seed: int, level: float = LEVEL) -> Term:
    """Return the mean of per-query values with its interval."""
    return terms_of({name: values}, seed=seed, level=level)[0]


def shapley(players: Sequence[str], worth: Callable[[frozenset[str]], Values]) -> Mapping[str, Values]:
    """Return how much of a total loss each player is charged, averaged over all orders; float64 (Q,) each.

    worth: utility per query with exactly these players as deployed, the others ideal; called once for each of the
    2^n sets. The charges sum to worth(none) - worth(all). Source: Shapley, A value for n-person games, 1953.
    """
    cells = {
        frozenset(chosen): worth(frozenset(chosen))
        for size in range(len(players) + 1)
        for chosen in combinations(players, size)
    }
    result = {}
    for player in players:
        others = [each for each in players if each != player]
        charge = np.zeros_like(cells[frozenset()])
        for size in range(len(players)):
            orders = math.factorial(size) * math.factorial(len(others) - size) / math.factorial(len(players))
            for chosen in combinations(others, size):
                without = frozenset(chosen)
                charge += orders * (cells[without] - cells[without | {player}])
        result[player] = charge
    return result
