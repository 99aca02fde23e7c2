"""Dense retrieval: the base's vector index and the fresh tier's vectors, merged."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from index.metric import Metric, prepare
from index.metric import scores as metric_scores
from index.topk import merge, top_k
from index.types import Effort, Rows, Vectors
from retrieval.base import positions
from retrieval.retrievers.stage import Ask, Context
from retrieval.types import Candidates
from retrieval.view import Allowed


class DenseStage:
    """Searches one dense field."""

    def __init__(self, name: str, metric: Metric) -> None:
        self.name = name
        self._metric = metric

    def candidates(self, context: Context, asks: Sequence[Ask]) -> list[Candidates]:
        """See Stage. Asks that share filter, depth and effort are searched as one batch."""
        vectors = context.query_vectors(self.name, asks)
        results: list[Candidates | None] = [None] * len(asks)
        groups: dict[tuple[int, int, Effort], list[int]] = {}
        for place, ask in enumerate(asks):
            groups.setdefault((id(ask.allowed), ask.depth, ask.effort), []).append(place)
        with context.timed(self.name):
            for (_, depth, effort), places in groups.items():
                found = self._search(context, vectors[places], depth, asks[places[0]].allowed, effort)
                degraded = context.view.base.dense[self.name].degraded
                for place, candidates in zip(places, found, strict=True):
                    results[place] = candidates
                    if degraded is not None:
                        asks[place].note(f"degraded={degraded}: field {self.name!r} was searched on the CPU")
        return [result for result in results if result is not None]

    def _search(
        self, context: Context, vectors: Vectors, depth: int, allowed: Allowed, effort: Effort
    ) -> list[Candidates]:
        view = context.view
        bitmap = None if allowed.everything else allowed.bitmap
        near = view.base.dense[self.name].search(vectors, min(depth, max(1, len(view.base.rows))), bitmap, effort)
        rows = np.where(near.rows >= 0, view.base.rows[near.rows], -1) if len(view.base.rows) else near.rows
        fresh = self._fresh_scores(context, vectors, allowed)
        found = []
        for query in range(len(vectors)):
            parts = [(near.scores[query], rows[query])]
            if fresh is not None:
                parts.append(top_k(fresh[query], view.fresh.rows, depth))
            best_scores, best_rows = merge(parts, depth)
            found.append(Candidates(best_rows, best_scores))
        return found

    def _fresh_scores(self, context: Context, vectors: Vectors, allowed: Allowed) -> npt.NDArray[np.float32] | None:
        if not allowed.fresh.any():
            return None
        scores = metric_scores(prepare(vectors, self._metric), context.view.fresh.vectors[self.name], self._metric)
        scores[:, ~allowed.fresh] = -np.inf
        return scores

    def scores(self, context: Context, ask: Ask, rows: Rows) -> npt.NDArray[np.float32]:
        """See Stage: exact, whatever the index. Cost: reads the rows' vectors."""
        query = prepare(context.query_vectors(self.name, [ask]), self._metric)
        return metric_scores(query, self.vectors(context, rows), self._metric).reshape(-1)

    def vectors(self, context: Context, rows: Rows) -> Vectors:
        """Return the prepared vectors of rows of the view, float32 (n, D)."""
        view = context.view
        index = view.base.dense[self.name]
        result = np.empty((len(rows), index.dim), np.float32)
        base = view.base.positions(rows)
        known = base >= 0
        result[known] = index.vectors(base[known])
        result[~known] = view.fresh.vectors[self.name][positions(view.fresh.rows, rows[~known])]
        return result

    def normalised(
        self, scores: npt.NDArray[np.float32], reference: npt.NDArray[np.float32]
    ) -> npt.NDArray[np.float64]:
        """Min-max over the stage's own candidates; a score below all of them comes out negative.

        Where all candidates tie, they count 1 and everything below them 0.
        """
        if not len(reference):
            return np.zeros(len(scores))
        low, high = float(reference[-1]), float(reference[0])
        if high == low:
            # Rows outside the depth are scored by another product: equal vectors may differ in the last bits.
            return (scores >= low - 1e-6 * max(1.0, abs(low))).astype(np.float64)
        return (scores.astype(np.float64) - low) / (high - low)
