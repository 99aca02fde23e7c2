"""Fusion: several stages' candidates into one ranking."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from index.types import Rows
from retrieval.pipeline_config import FusionConfig
from retrieval.retrievers.stage import Ask, Context, Stage
from retrieval.types import Candidates, Evidence


@dataclass(frozen=True, slots=True)
class Pool:
    """The candidates of one query before ranking, n rows from P parts.

    rows: int64 (n,). parts: names. scores: float32 (P, n), raw; ranks: int64 (P, n), 1-based, 0 = outside the depth.
    terms: float64 (P, n), what each part contributes per unit of weight. fused: float64 (n,), weights @ terms.
    exhausted: no part has anything beyond these.
    """

    rows: Rows
    parts: tuple[str, ...]
    scores: npt.NDArray[np.float32]
    ranks: npt.NDArray[np.int64]
    terms: npt.NDArray[np.float64]
    fused: npt.NDArray[np.float64]
    exhausted: bool

    def evidence(self, place: int) -> tuple[Evidence, ...]:
        """Return the parts' ranks and scores of one row."""
        return tuple(
            Evidence(part, int(rank) or None, float(score))
            for part, rank, score in zip(self.parts, self.ranks[:, place], self.scores[:, place], strict=True)
        )


def single_pool(stage: Stage, ask: Ask, found: Candidates) -> Pool:
    """Return the pool of one stage on its own."""
    fused = found.scores.astype(np.float64)
    return Pool(
        rows=found.rows,
        parts=(stage.name,),
        scores=found.scores[None, :],
        ranks=np.arange(1, len(found.rows) + 1)[None, :],
        terms=fused[None, :],
        fused=fused,
        exhausted=len(found.rows) < ask.depth,
    )


def fuse(
    context: Context,
    asks: Sequence[Ask],
    stages: Sequence[Stage],
    found: Sequence[Sequence[Candidates]],
    config: FusionConfig,
) -> list[Pool]:
    """Combine the candidates of all stages, per ask. found: one list of candidates per stage.

    Scores a part can compute for rows outside its own depth (dense) are computed; lexical ones count 0.
    """
    with context.timed("fusion"):
        return [
            _fuse_one(context, ask, stages, [results[place] for results in found], config)
            for place, ask in enumerate(asks)
        ]


def _fuse_one(
    context: Context, ask: Ask, stages: Sequence[Stage], found: Sequence[Candidates], config: FusionConfig
) -> Pool:
    rows = np.unique(np.concatenate([candidates.rows for candidates in found]))
    scores = np.zeros((len(stages), len(rows)), np.float32)
    ranks = np.zeros((len(stages), len(rows)), np.int64)
    terms = np.zeros((len(stages), len(rows)), np.float64)
    for part, (stage, candidates) in enumerate(zip(stages, found, strict=True)):
        places = np.searchsorted(rows, candidates.rows)
        ranks[part, places] = np.arange(1, len(places) + 1)
        scores[part, places] = candidates.scores
        outside = np.flatnonzero(ranks[part] == 0)
        if len(outside):
            scores[part, outside] = stage.scores(context, ask, rows[outside])
        if config.method == "rrf":
            terms[part, places] = 1 / (config.rrf_k + ranks[part, places])
        else:
            terms[part] = stage.normalised(scores[part], candidates.scores)
    weights = np.asarray(config.weights) / (1.0 if config.method == "rrf" else sum(config.weights))
    exhausted = all(len(candidates.rows) < ask.depth for candidates in found)
    return Pool(rows, tuple(stage.name for stage in stages), scores, ranks, terms, weights @ terms, exhausted)
