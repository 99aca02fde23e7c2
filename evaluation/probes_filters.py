"""The probe of filters: how many documents they leave, and whether these lie near the query or far from it."""

from collections.abc import Sequence
from typing import Literal, TypeAlias, get_args

import numpy as np
import numpy.typing as npt

from evaluation.ground_truth import exact_index
from evaluation.probes import ProbeRow, Search, TaskVectors, Values, probe_row
from evaluation.recall import Truth, exact_scores, id_recall, slack, tied_recall
from evaluation.utility import Utility
from index.bitmap import pack
from index.errors import RequestError
from index.metric import prepare
from index.types import Bitmap, Rows

Correlation: TypeAlias = Literal["random", "positive", "negative"]

CORRELATIONS: tuple[Correlation, ...] = get_args(Correlation)

SELECTIVITIES = (0.5, 0.1, 0.01, 0.001, 0.0001)


def filters(
    data: TaskVectors,
    utility: Utility,
    search: Search,
    *,
    seed: int = 0,
    selectivities: Sequence[float] = SELECTIVITIES,
    correlations: Sequence[Correlation] = CORRELATIONS,
    queries: int = 100,
) -> tuple[ProbeRow, ...]:
    """Search some queries, each under a filter of its own that leaves a share of the documents, at least one.

    correlations: "random" leaves any documents; "positive" and "negative" draw them from the nearest and the farthest
    share sqrt(selectivity) of all, so that at 1 % every tenth of the nearest (farthest) tenth is left.
    queries: how many, the same in all settings, drawn at random. What is left of the utility is compared with exact
    search under the same filter: a row's values are those of the search; measures `exact` (its mean utility), `loss`
    (exact - values), `recall`, `tied_recall` (means, of min(k, left) neighbours), `padding` (share of places that stay
    empty) and `wrong` (share that break the filter: must be 0).
    Raises RequestError on selectivities outside (0, 1], other correlations, fewer than 2 queries.
    Cost: per query and setting two searches, and once all its scores.
    """
    if not selectivities or not all(0 < share <= 1 for share in selectivities):
        raise RequestError(f"selectivities are {tuple(selectivities)}, expected shares more than 0 and up to 1")
    if not correlations or not set(correlations) <= {*CORRELATIONS}:
        raise RequestError(f"correlations are {tuple(correlations)}; allowed: {', '.join(CORRELATIONS)}")
    if min(queries, len(data.queries)) < 2:
        raise RequestError(f"{min(queries, len(data.queries))} queries, expected at least 2")
    rng = np.random.default_rng(seed)
    chosen = np.sort(rng.choice(len(data.queries), min(queries, len(data.queries)), replace=False))
    arm = _Arm(data, search, chosen)
    rows = []
    for share in selectivities:
        for correlation in correlations:
            arm.run([_allowed(order, share, correlation, rng) for order in arm.orders])
            values, exact = arm.judged(utility, arm.found), arm.judged(utility, arm.truth.rows)
            setting: dict[str, str | float] = {"selectivity": share, "correlation": correlation}
            measures = {"exact": float(exact.mean()), "loss": float((exact - values).mean()), **arm.measures()}
            rows.append(probe_row("filters", setting, values, seed, measures))
    return tuple(rows)


def _allowed(
    order: npt.NDArray[np.int64], share: float, correlation: Correlation, rng: np.random.Generator
) -> npt.NDArray[np.bool_]:
    """Return bool (N,): which rows a filter leaves. order: all rows, nearest first."""
    count = len(order)
    left = max(1, round(share * count))
    pool = order
    if correlation != "random":
        reach = max(left, round(np.sqrt(share) * count))
        pool = order[:reach] if correlation == "positive" else order[count - reach :]
    mask = np.zeros(count, dtype=np.bool_)
    mask[rng.choice(pool, left, replace=False)] = True
    return mask


class _Arm:
    """The chosen queries, searched exactly and by the search under test. orders: int64 (q, N), all rows, best first."""

    def __init__(self, data: TaskVectors, search: Search, chosen: npt.NDArray[np.int64]) -> None:
        self._data, self._search, self._chosen = data, search, chosen
        self._exact = exact_index(data.documents, data.metric)
        self._documents = prepare(data.documents, data.metric)
        self._queries = prepare(data.queries[chosen], data.metric)
        self.orders: Rows = self._exact.search(data.queries[chosen], len(data.documents)).rows

    def run(self, masks: Sequence[npt.NDArray[np.bool_]]) -> None:
        """Search every query under its own filter."""
        k, asked = self._data.k, self._data.queries[self._chosen]
        bitmaps: list[Bitmap] = [pack(mask) for mask in masks]
        each = [asked[number : number + 1] for number in range(len(asked))]
        pairs = list(zip(each, bitmaps, strict=True))
        self.found: Rows = np.concatenate([self._search(self._data.documents, query, k, bits) for query, bits in pairs])
        rows = np.concatenate([self._exact.search(query, k, bits).rows for query, bits in pairs])
        scores = exact_scores(self._documents, self._queries, rows, self._data.metric)
        self.truth = Truth(rows, scores, slack(self._queries, scores))
        self._masks = np.stack(masks)

    def judged(self, utility: Utility, rows: Rows) -> Values:
        """Return the utility of the chosen queries only, float64 (q,)."""
        everyone = np.full((len(self._data.queries), rows.shape[1]), -1, dtype=np.int64)
        everyone[self._chosen] = rows
        return utility(everyone)[self._chosen]

    def measures(self) -> dict[str, float]:
        """Return how well the filtered neighbours were found."""
        k, found = self._data.k, self.found
        scores = exact_scores(self._documents, self._queries, found, self._data.metric)
        inside = np.take_along_axis(self._masks, np.maximum(found, 0), axis=1)
        return {
            "recall": float(id_recall(found, self.truth, k).mean()),
            "tied_recall": float(tied_recall(found, scores, self.truth, k).mean()),
            "padding": float((found < 0).mean()),
            "wrong": float(((found >= 0) & ~inside).mean()),
        }
