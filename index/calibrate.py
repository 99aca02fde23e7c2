"""The least effort that reaches a recall target, measured on held-out vectors against exact search."""

import time

import numpy as np
import numpy.typing as npt

from index.ann import Finder
from index.ann_format import Calibrated, Recall
from index.exact import exact
from index.faiss_kinds import EXACT_SCORES, effort_range, with_main
from index.types import Effort, Neighbors, Vectors

_DEPTHS = ((10, 1_000), (100, 300))
"""(k, queries): recall at a greater k varies less from query to query, and costs more to measure."""

_Z = 1.645
"""One-sided 95 %."""

_REMOTE_SHARE = 0.25
"""The held-out vectors farthest from their neighbours: questions lie farther from passages than passages from each
other. On a million vectors and 2,000 real queries an effort that gave .958 on all held-out vectors gave .912 on this
quarter and .868 on the queries; those with .936 and .951 on the quarter gave .946 and .958 (docs/log.md)."""

_REFINES = (4, 8, 16, 32, 64)
"""Candidates scored exactly, as multiples of k, for kinds whose own scores are approximate. Twice k was enough for
held-out vectors with one bit a dimension (.96) and not for real queries (.87, four times k .95), for .02 ms less."""

_TIMED = 100
_SAME_SCORE = 1e-5
"""Scores of equal vectors computed in two ways differ by less, as a share of squared lengths or of the score."""


def calibrate(finder: Finder, queries: Vectors, target: float) -> tuple[Calibrated, ...]:
    """Return the fastest effort that reaches `target` at k = 10 and k = 100, or the best there is, with its recall.

    queries: prepared, float32 (Q, D), not in the index. An effort reaches the target when the lower confidence bound
    of its recall does, over all queries and over the quarter that lies farthest from its neighbours.
    Cost: one exact search of all queries, and tens of approximate ones at each k.
    """
    count = int(finder.index.ntotal)
    deepest = min(count, max(k for k, _ in _DEPTHS))
    truth = exact(finder.vectors, finder.metric, queries, np.arange(count, dtype=np.int64), deepest).scores
    return tuple(_Trials(finder, queries[:most], truth[:most], k, target).best() for k, most in _DEPTHS)


class _Trials:
    """Searches for the k nearest of the same queries with different efforts. truth: scores of exact search."""

    def __init__(self, finder: Finder, queries: Vectors, truth: npt.NDArray[np.float32], k: int, target: float) -> None:
        self._finder = finder
        self._queries = queries
        self._k = min(k, truth.shape[1])
        last = truth[:, self._k - 1 : self._k]
        # Whatever ties with the k-th best counts as found.
        lengths = np.einsum("qd,qd->q", queries, queries)[:, None]  # rounding grows with them, and so do scores
        self._enough = last - _SAME_SCORE * np.maximum(lengths, np.abs(last))
        self._remote = np.argsort(last[:, 0], kind="stable")[: max(1, round(_REMOTE_SHARE * len(queries)))]
        self._target = target

    def best(self) -> Calibrated:
        """Return the fastest effort that reaches the target; with none, the one with the highest recall."""
        fastest, missed = None, None
        least_s = float("inf")
        for refine in self._refines():
            trial = self._least(Effort(refine=refine))
            if not trial.recall.reached:
                missed = trial if missed is None or trial.recall.measured > missed.recall.measured else missed
                continue
            seconds = self._seconds(trial.effort)
            if seconds >= least_s:
                break  # more candidates to score, and no less to visit
            fastest, least_s = trial, seconds
        result = fastest or missed
        assert result is not None, "there is at least one effort to try"
        return result

    def _refines(self) -> list[int | None]:
        return [None] if self._finder.kind in EXACT_SCORES else [self._k * factor for factor in _REFINES]

    def _least(self, effort: Effort) -> Calibrated:
        """Double the main setting until the target is reached, then bisect down to the least that reaches it."""
        family = self._finder.family
        limits = effort_range(family, int(getattr(self._finder.index, "nlist", 0)), self._k)
        if limits is None:
            return self._try(effort)
        failed, value = limits.low - 1, limits.low
        trial = self._try(with_main(family, effort, value))
        while not trial.recall.reached:
            if value == limits.high:
                return trial
            failed, value = value, min(limits.high, 2 * value)
            trial = self._try(with_main(family, effort, value))
        while value - failed > max(1, failed // 32):
            middle = (value + failed) // 2
            lower = self._try(with_main(family, effort, middle))
            if lower.recall.reached:
                value, trial = middle, lower
            else:
                failed = middle
        return trial

    def _try(self, effort: Effort) -> Calibrated:
        found: Neighbors = self._finder.near(self._queries, self._k, effort)
        recalls = (found.scores >= self._enough).sum(axis=1) / self._k
        bounds = _lower_bound(recalls), _lower_bound(recalls[self._remote])
        return Calibrated(effort, Recall(self._k, self._target, float(recalls.mean()), *bounds, len(recalls)))

    def _seconds(self, effort: Effort) -> float:
        spent = []
        for query in self._queries[:_TIMED]:
            start = time.perf_counter()
            self._finder.near(query[None, :], self._k, effort)
            spent.append(time.perf_counter() - start)
        return float(np.median(spent))


def _lower_bound(recalls: npt.NDArray[np.float64]) -> float:
    return float(recalls.mean()) - _Z * float(recalls.std()) / float(np.sqrt(len(recalls)))
