"""`grapnel tune`: fit a collection's fusion weight and depth to judged queries, and say what that is worth.

Two numbers and no more: per-query weights did not beat a fixed weight per collection (docs/log.md).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from evaluation.measures import Qrels, per_query
from index.errors import ConfigError, RequestError
from retrieval.collection import Collection
from retrieval.pipeline import rank_pool
from retrieval.pipeline_config import PipelineConfig, with_weights
from retrieval.progress import Progress, silent
from retrieval.types import Query, SearchRequest

MEASURE = "nDCG@10"
DEPTHS = (100, 200, 400)
WEIGHTS = tuple(round(0.05 * step, 2) for step in range(21))
"""Shares of the first part (dense, in the default pipeline) that are tried."""

FOLDS = 5
MIN_QUERIES = 10
_CUT = 10
_BATCH = 64


@dataclass(frozen=True, slots=True)
class TuneReport:
    """What tuning found. weights: one per part. fitted, default: mean nDCG@10 over the queries.

    gain: cross-validated difference to the present pipeline, on queries that the choice did not see; gain_error: its
    standard error. adopted: whether `pipeline` holds the new choice (the gain was positive) or the present one.
    table: per depth and dense weight, mean nDCG@10.
    """

    mode: str
    queries: int
    parts: tuple[str, ...]
    weights: tuple[float, ...]
    depth: int
    fitted: float
    default: float
    gain: float
    gain_error: float
    adopted: bool
    pipeline: PipelineConfig
    table: Mapping[tuple[int, float], float] = field(default_factory=dict)

    @property
    def comment(self) -> str:
        """What a pipeline.toml says of itself: TOML comment lines."""
        weights = ", ".join(f"{name} {weight:.2f}" for name, weight in zip(self.parts, self.weights, strict=True))
        return (
            f"# Tuned on {self.queries} judged queries: {weights}, depth {self.depth}.\n"
            f"# {MEASURE} {self.gain:+.4f} +- {self.gain_error:.4f} on held-out queries (5-fold cross-validation).\n"
        )


def tune(
    collection: Collection,
    queries: Sequence[Query],
    qrels: Qrels,
    *,
    mode: str = "hybrid",
    seed: int = 0,
    progress: Progress = silent,
) -> TuneReport:
    """Choose the weight and depth of a two-part fused mode by mean nDCG@10 over the judged queries.

    The choice is the centre of the best three neighbouring weights, so that one lucky value does not win; its gain is
    measured by 5-fold cross-validation. Nothing is written: the caller saves `pipeline`.
    Raises RequestError with fewer than 10 judged queries, ConfigError when `mode` does not fuse two fields.
    Cost: one search per query and depth.
    """
    fusion = collection.pipeline.fusion.get(mode)
    if fusion is None or len(fusion.parts) != 2:
        raise ConfigError(f"mode {mode!r} does not fuse two fields: there is no weight to tune")
    judged = [query for query in queries if any(grade > 0 for grade in qrels.get(query.id, {}).values())]
    if len(judged) < MIN_QUERIES:
        raise RequestError(f"{len(judged)} queries have relevant documents, at least {MIN_QUERIES} are needed to tune")
    values = _values(collection, mode, judged, qrels, progress)
    present = _present(collection, mode, judged, qrels, progress)
    choices = list(values)
    matrix = np.stack([values[choice] for choice in choices])
    chosen = choices[_choose(choices, matrix)]
    gains = _held_out_gains(choices, matrix, present, seed)
    gain = float(gains.mean())
    weights = (chosen[1], round(1 - chosen[1], 2))
    adopted = gain > 0
    return TuneReport(
        mode=mode,
        queries=len(judged),
        parts=fusion.parts,
        weights=weights,
        depth=chosen[0],
        fitted=float(values[chosen].mean()),
        default=float(present.mean()),
        gain=gain,
        gain_error=float(gains.std(ddof=1) / np.sqrt(len(gains))),
        adopted=adopted,
        pipeline=with_weights(collection.pipeline, mode, weights, chosen[0]) if adopted else collection.pipeline,
        table={choice: float(values[choice].mean()) for choice in choices},
    )


Choice = tuple[int, float]
"""(depth, weight of the first part)."""


def _values(
    collection: Collection, mode: str, queries: Sequence[Query], qrels: Qrels, progress: Progress
) -> dict[Choice, npt.NDArray[np.float64]]:
    """Return nDCG@10 per query, float64 (Q,), of every choice."""
    runs: dict[Choice, dict[str, list[str]]] = {(depth, weight): {} for depth in DEPTHS for weight in WEIGHTS}
    scored = with_weights(collection.pipeline, mode, (0.5, 0.5), DEPTHS[0])  # "scores", whatever the present method
    done = 0
    for depth in DEPTHS:
        for start in range(0, len(queries), _BATCH):
            batch = queries[start : start + _BATCH]
            requests = [SearchRequest(query, k=_CUT, depth=depth) for query in batch]
            with collection.pools(requests, mode=mode, config=scored) as (view, pools):
                for query, pool in zip(batch, pools, strict=True):
                    numbers = view.documents(pool.rows)
                    for weight in WEIGHTS:
                        fused = np.array([weight, 1 - weight]) @ pool.terms
                        order = rank_pool(view, pool, fused, "document")[:_CUT]
                        runs[depth, weight][query.id] = view.doc_ids(numbers[order])
            done += len(batch)
            progress("tune", done, len(DEPTHS) * len(queries))
    judged = {query.id: qrels[query.id] for query in queries}
    return {choice: _in_order(per_query(MEASURE, run, judged), queries) for choice, run in runs.items()}


def _present(
    collection: Collection, mode: str, queries: Sequence[Query], qrels: Qrels, progress: Progress
) -> npt.NDArray[np.float64]:
    run: dict[str, list[str]] = {}
    for start in range(0, len(queries), _BATCH):
        requests = [SearchRequest(query, k=_CUT) for query in queries[start : start + _BATCH]]
        for ranking in collection.search_many(requests, mode=mode):
            run[ranking.query_id] = [hit.doc_id for hit in ranking.hits]
        progress("tune: present pipeline", len(run), len(queries))
    return _in_order(per_query(MEASURE, run, {query.id: qrels[query.id] for query in queries}), queries)


def _in_order(values: Mapping[str, float], queries: Sequence[Query]) -> npt.NDArray[np.float64]:
    return np.array([values[query.id] for query in queries])


def _choose(choices: Sequence[Choice], matrix: npt.NDArray[np.float64]) -> int:
    """Return the choice whose mean, averaged with its two neighbouring weights, is best."""
    means = dict(zip(choices, matrix.mean(axis=1), strict=True))

    def smoothed(choice: Choice) -> float:
        place = WEIGHTS.index(choice[1])
        near = WEIGHTS[max(0, place - 1) : place + 2]
        return float(np.mean([means[choice[0], weight] for weight in near]))

    return max(range(len(choices)), key=lambda number: smoothed(choices[number]))


def _held_out_gains(
    choices: Sequence[Choice], matrix: npt.NDArray[np.float64], present: npt.NDArray[np.float64], seed: int
) -> npt.NDArray[np.float64]:
    """Return per query the difference to the present pipeline of the choice made without that query's fold."""
    folds = np.random.default_rng(seed).permutation(len(present)) % FOLDS
    gains = np.empty(len(present))
    for fold in range(FOLDS):
        held = folds == fold
        gains[held] = matrix[_choose(choices, matrix[:, ~held])][held] - present[held]
    return gains
