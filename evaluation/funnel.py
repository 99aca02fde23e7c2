"""The loss funnel of a vector pipeline: embedding, metric, approximate search, quantisation, reranking; per query.

U* (oracle with labels) -> U(best metric, exact) -> U(deployed metric, exact) -> U(its approximate index over full
vectors) -> U(the same over codes) -> U(reranked). The best metric is chosen on a validation part of the queries, and
the ledger is of the others only, so that the choice does not flatter itself.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Final

import numpy as np

from evaluation.ledger import RERANK, VECTOR_STAGES, Ledger, shapley
from evaluation.spaces import Arm, Space
from evaluation.statistics import Values
from evaluation.utility import Utility, reordered
from index.ann import AnnIndex
from index.ann_build import write_index
from index.ann_format import About
from index.errors import RequestError
from index.faiss_kinds import EXACT_SCORES, FAMILY
from index.flat import FlatIndex
from index.spec import IndexSpec, Kind
from index.types import Effort, Rows, Vectors

PLAYERS: Final = ("metric", "ann", "quantisation")

_WITHOUT_CODES: Final[Mapping[Kind, Kind]] = {
    "sq8": "flat",
    "binary": "flat",
    "hnsw-sq8": "hnsw",
    "ivf-sq8": "ivf-flat",
    "ivf-pq": "ivf-flat",
    "ivf-rabitq": "ivf-flat",
}
"""The kind that finds rows the same way among full vectors."""

_WITHOUT_ANN: Final[Mapping[Kind, Kind]] = {
    "hnsw": "flat",
    "hnsw-sq8": "sq8",
    "ivf-flat": "flat",
}
"""The kind that looks at every vector, stored the same way; of other inverted lists, all of them are looked at."""

_QUERIES_AT_ONCE: Final = 256


class Cells:
    """What is found with and without approximate search and quantisation, in any space: indexes built when asked for.

    folder: an empty folder for the indexes. spec: the deployed index; its metric is each space's own. depth: rows per
    query. effort: of the search, None = as calibrated for the deployed index. Quantised: codes in the index, and a
    storage below float32. Fewer documents than an approximate index is made for are searched exactly (see `notes`).
    """

    def __init__(self, folder: Path, spec: IndexSpec, depth: int, effort: Effort | None = None) -> None:
        if depth < 1:
            raise RequestError(f"depth is {depth}, expected at least 1")
        if spec.kind == "auto":
            raise RequestError("kind 'auto' is no fixed pipeline: name the kind that was deployed")
        self.depth = depth
        self.notes: list[str] = []
        self._folder = folder
        self._spec = spec
        self._effort = effort
        self._opened: dict[tuple[Arm, IndexSpec], tuple[FlatIndex | AnnIndex, About]] = {}

    def rows(self, space: Space, queries: Vectors, *, ann: bool, quantised: bool) -> Rows:
        """Return int64 (Q, depth). queries: float32 (Q, D), as they were encoded.

        Raises ConfigError where the kind cannot have the space's metric ("binary" compares cosines only).
        Cost: a build for each new space and cell, then one search a query.
        """
        spec = self._cell(space, ann=ann, quantised=quantised)
        if spec.kind == "flat" and spec.storage == "float32":
            return space.search(queries, self.depth).rows
        index, about = self._open(space, spec)
        effort = None if about.kind == "flat" else self._effort_of(space, about, every=not ann)
        prepared = space.queries(queries)
        parts = [
            index.search(prepared[start : start + _QUERIES_AT_ONCE], self.depth, effort=effort).rows
            for start in range(0, max(1, len(prepared)), _QUERIES_AT_ONCE)
        ]
        return np.concatenate(parts)

    def _cell(self, space: Space, *, ann: bool, quantised: bool) -> IndexSpec:
        kind, storage = self._spec.kind, self._spec.storage
        if not quantised:
            kind, storage = _WITHOUT_CODES.get(kind, kind), "float32"
        if not ann:
            kind = _WITHOUT_ANN.get(kind, kind)
        return replace(self._spec, kind=kind, storage=storage, metric=space.metric)

    def _effort_of(self, space: Space, about: About, *, every: bool) -> Effort:
        """Return what of the deployed effort a kind understands; every: all inverted lists are looked at."""
        effort = self._effort
        if effort is None:
            effort = self._open(space, self._cell(space, ann=True, quantised=True))[1].effort(self.depth)
        family = FAMILY[about.kind]
        # A graph asked for more candidates than ef looks at as many: so must the one that needs no refining.
        ef = max(effort.ef or 0, effort.refine or 0) or None
        return Effort(
            nprobe=(about.params.lists if every else effort.nprobe) if family == "lists" else None,
            ef=ef if family == "graph" else None,
            refine=None if about.kind in EXACT_SCORES else effort.refine,
        )

    def _open(self, space: Space, spec: IndexSpec) -> tuple[FlatIndex | AnnIndex, About]:
        known = self._opened.get((space.name, spec))
        if known is not None:
            return known
        folder = self._folder / f"{len(self._opened):02}-{space.name}-{spec.kind}-{spec.storage}"
        folder.mkdir(parents=True)
        count, dim = space.documents.shape
        about = write_index(folder, iter([space.documents]), dim, count, spec)
        if about.kind != spec.kind:
            self.notes.append(f"{space.name}: {spec.kind} became {about.kind} ({about.reason})")
        flat = about.kind == "flat"
        index = FlatIndex.open(folder, space.metric) if flat else AnnIndex.open(folder, space.metric)
        return self._opened.setdefault((space.name, spec), (index, about))


@dataclass(frozen=True, slots=True)
class Funnel:
    """A ledger with what explains it; all per-query values are of the queries that did not choose the metric.

    queries: int64 (H,), their positions. best, deployed: names of spaces. arms: utility of exact search in each space.
    charged: Shapley charges over metric, ann and quantisation. coverage: share of the best metric's exact top that is
    among the rows before reranking. reorder_ceiling: utility of those rows in perfect order. notes: what is degraded.
    """

    ledger: Ledger
    queries: Rows = field(repr=False)
    best: Arm
    deployed: Arm
    arms: Mapping[Arm, Values] = field(repr=False)
    charged: Mapping[str, Values] = field(repr=False)
    coverage: Values = field(repr=False)
    reorder_ceiling: Values = field(repr=False)
    notes: tuple[str, ...] = ()


def funnel(
    spaces: Sequence[Space],
    deployed: Arm,
    queries: Vectors,
    utility: Utility,
    cells: Cells,
    *,
    rerank: Callable[[Rows], Rows] | None = None,
    validation: Rows,
) -> Funnel:
    """Return the loss funnel of the pipeline that searches the space `deployed` as `cells` says, then reranks.

    spaces: the metric arms, each once, the deployed one among them. queries: float32 (Q, D), in the utility's order.
    rerank: rows (Q, depth) -> rows, -1 padded. validation: int64, positions of the queries that choose the best
    metric by mean utility (see `validation_part`); of equal ones the deployed is the best.
    Raises RequestError on other spaces, a depth that the utility does not read, no query on either side.
    Cost: exact search in every space; at most three indexes in two spaces.
    """
    by_name = {space.name: space for space in spaces}
    if deployed not in by_name or len(by_name) != len(spaces):
        raise RequestError(
            f"spaces are {[space.name for space in spaces]}: expected each once, {deployed!r} among them"
        )
    if utility.depth is not None and cells.depth < utility.depth:
        raise RequestError(f"{utility.name} reads {utility.depth} places, the depth is {cells.depth}: search deeper")
    held = np.setdiff1d(np.arange(len(queries)), validation)
    if not len(validation) or not len(held):
        raise RequestError(f"{len(validation)} of {len(queries)} queries validate: expected some, and others to report")
    exact = {name: space.search(queries, cells.depth).rows for name, space in by_name.items()}
    worth = {name: utility(rows) for name, rows in exact.items()}
    best = max(by_name, key=lambda name: (worth[name][validation].mean(), name == deployed))

    @cache
    def value(players: frozenset[str]) -> Values:
        space = by_name[deployed if "metric" in players else best]
        found = cells.rows(space, queries, ann="ann" in players, quantised="quantisation" in players)
        return utility(found)[held]

    shortlist = cells.rows(by_name[deployed], queries, ann=True, quantised=True)
    stages = [(stage, value(frozenset(PLAYERS[:number]))) for number, stage in enumerate(VECTOR_STAGES)]
    if rerank is not None:
        stages.append((RERANK, utility(rerank(shortlist))[held]))
    top = exact[best][:, : utility.depth]
    return Funnel(
        ledger=Ledger(utility.name, utility.ceiling[held], tuple(stages)),
        queries=held,
        best=best,
        deployed=deployed,
        arms={name: values[held] for name, values in worth.items()},
        charged=shapley(PLAYERS, value),
        coverage=covered(top, shortlist)[held],
        reorder_ceiling=utility(reordered(utility, shortlist))[held],
        notes=tuple(cells.notes),
    )


def validation_part(queries: int, *, share: float = 0.3, seed: int = 0) -> Rows:
    """Return the positions of a seeded part of the queries, ascending int64, at least one and not all.

    Raises RequestError on fewer than 4 queries or a share outside (0, 1).
    """
    if queries < 4 or not 0 < share < 1:
        raise RequestError(f"{queries} queries, share {share}: expected at least 4 and a share between 0 and 1")
    size = min(queries - 2, max(1, round(share * queries)))
    return np.sort(np.random.default_rng(seed).permutation(queries)[:size]).astype(np.int64)


def covered(wanted: Rows, found: Rows) -> Values:
    """Return the share of each query's wanted rows that were found, float64 (Q,); 1 where none is wanted.

    wanted: int64 (Q, k), found: int64 (Q, c), -1 = none on either side.
    """
    result = np.ones(len(wanted))
    for query, line in enumerate(wanted):
        real = line[line >= 0]
        if len(real):
            result[query] = np.isin(real, found[query]).mean()
    return result
