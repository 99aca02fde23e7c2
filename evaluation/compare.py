"""A run against judgements, and against another run: means, their intervals, and what the differences are worth.

The means are over the judged queries that have a relevant document: one that the run does not answer counts 0 in every
measure; one without any relevant document has no defined recall or nDCG, so it is counted and left out.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from evaluation.measures import Qrels, Run, check_measures, per_query_many
from evaluation.statistics import Columns, Comparison, Interval, bootstrap_intervals, holm, paired_columns
from index.durable import write_atomic
from index.errors import CorpusError, RequestError

DEFAULT_MEASURES = ("nDCG@10", "R@100", "RR@10", "AP", "Rprec")

FEW = 10
"""Queries below which an interval is narrower than it says."""


PerQuery: TypeAlias = Mapping[str, Mapping[str, float]]
"""Measure -> query id -> value, queries in one order for all."""


@dataclass(frozen=True, slots=True)
class Coverage:
    """Queries of one run. judged: with a relevant document; answered + unanswered = judged.

    without_relevant: judged, but nothing is relevant: left out. unjudged: of the run, which nobody judged: left out.
    """

    judged: int
    answered: int
    unanswered: int
    without_relevant: int
    unjudged: int


@dataclass(frozen=True, slots=True)
class MeasureResult:
    """One measure. interval: of the mean at 95 %, None for a single query. values: query id -> value.

    The others are those of the baseline, None without one; comparison: run - baseline, None for a single query, too.
    p_holm: the permutation test's p-value, adjusted for all measures of the evaluation.
    """

    measure: str
    mean: float
    interval: Interval | None
    values: Mapping[str, float]
    baseline_mean: float | None = None
    baseline_interval: Interval | None = None
    baseline_values: Mapping[str, float] | None = None
    comparison: Comparison | None = None
    p_holm: float | None = None


@dataclass(frozen=True, slots=True)
class Evaluation:
    """A run, measured. notes: what its reader should know, one line each."""

    coverage: Coverage
    baseline_coverage: Coverage | None
    measures: tuple[MeasureResult, ...]
    notes: tuple[str, ...]


def evaluate(
    run: Run,
    qrels: Qrels,
    measures: Sequence[str] = DEFAULT_MEASURES,
    *,
    baseline: Run | None = None,
    seed: int = 0,
) -> Evaluation:
    """Measure a run, and compare it with a baseline query by query.

    seed: of bootstrap and permutation test; the same seed gives the same numbers.
    Raises ConfigError on an unknown measure, RequestError on no measure or a negative seed, CorpusError where there is
    nothing to measure: no relevant document in the judgements, an empty run, a run of other queries.
    Cost: dominated by 9,999 resamples of the queries, drawn once for all measures; seconds for 10,000 queries.
    """
    names = tuple(dict.fromkeys(measures))
    if not names:
        raise RequestError("no measure is given: name at least one, such as nDCG@10")
    if seed < 0:
        raise RequestError(f"seed is {seed}, expected 0 or more")
    check_measures(names)
    usable = {query: grades for query, grades in qrels.items() if any(grade > 0 for grade in grades.values())}
    if not usable:
        raise CorpusError(f"none of the {len(qrels):,} judged queries has a relevant document (a grade above 0)")
    coverage = _coverage("run", run, usable, qrels)
    notes = _notes("run", run, usable, coverage)
    values = per_query_many(names, run, usable)
    if baseline is None:
        return Evaluation(coverage, None, tuple(_alone(values, seed)), notes)
    baseline_coverage = _coverage("baseline", baseline, usable, qrels)
    notes += tuple(note for note in _notes("baseline", baseline, usable, baseline_coverage) if note not in notes)
    results = _against(values, per_query_many(names, baseline, usable), seed)
    return Evaluation(coverage, baseline_coverage, tuple(results), notes)


def _alone(values: PerQuery, seed: int) -> list[MeasureResult]:
    columns = _columns(values)
    intervals = _intervals(columns, seed)
    return [
        MeasureResult(name, float(columns[:, place].mean()), intervals[place], values[name])
        for place, name in enumerate(values)
    ]


def _against(values: PerQuery, other: PerQuery, seed: int) -> list[MeasureResult]:
    mine, theirs = _columns(values), _columns(other)
    intervals = _intervals(np.hstack([mine, theirs]), seed)
    comparisons = paired_columns(mine, theirs, seed=seed) if len(mine) > 1 else []
    adjusted = holm(np.array([comparison.p_permutation for comparison in comparisons]))
    return [
        MeasureResult(
            measure=name,
            mean=float(mine[:, place].mean()),
            interval=intervals[place],
            values=values[name],
            baseline_mean=float(theirs[:, place].mean()),
            baseline_interval=intervals[len(values) + place],
            baseline_values=other[name],
            comparison=comparisons[place] if comparisons else None,
            p_holm=float(adjusted[place]) if comparisons else None,
        )
        for place, name in enumerate(values)
    ]


def _columns(values: PerQuery) -> Columns:
    return np.array([list(of_query.values()) for of_query in values.values()], dtype=np.float64).T


def _intervals(columns: Columns, seed: int) -> Sequence[Interval | None]:
    return bootstrap_intervals(columns, seed=seed) if len(columns) > 1 else [None] * columns.shape[1]


def _coverage(name: str, run: Run, usable: Qrels, qrels: Qrels) -> Coverage:
    answered = {query for query, doc_ids in run.items() if doc_ids}
    if not answered:
        raise CorpusError(f"the {name} is empty: no query has a result")
    known = answered & usable.keys()
    if not known:
        raise CorpusError(
            f"no query of the {name} has a relevant document in the judgements: the {name} holds queries such as "
            f"{min(answered)!r}, the judgements such as {min(usable)!r}; do the ids match?"
        )
    return Coverage(
        judged=len(usable),
        answered=len(known),
        unanswered=len(usable) - len(known),
        without_relevant=len(qrels) - len(usable),
        unjudged=len(answered - qrels.keys()),
    )


def _notes(name: str, run: Run, usable: Qrels, coverage: Coverage) -> tuple[str, ...]:
    notes = []
    if coverage.unanswered:
        notes.append(f"{coverage.unanswered:,} judged queries are not in the {name}: they count 0 in every measure")
    if coverage.without_relevant:
        notes.append(f"{coverage.without_relevant:,} judged queries have no relevant document: they are left out")
    if coverage.unjudged:
        notes.append(f"{coverage.unjudged:,} queries of the {name} were judged by nobody: they are left out")
    if not any(usable[query].get(doc_id, 0) > 0 for query in usable for doc_id in run.get(query, ())):
        notes.append(f"the {name} holds no relevant document at all: are its document ids those of the judgements?")
    if coverage.judged == 1:
        notes.append("one query says nothing of others: there is no interval")
    elif coverage.judged < FEW:
        notes.append(f"{coverage.judged} queries are few: the intervals are narrower than they should be")
    return tuple(notes)


def write_values(path: str | Path, evaluation: Evaluation) -> None:
    """Write one JSON line per query: its id, the values of the run and, if there is one, of the baseline, by measure.

    The file appears whole or not at all. Raises StorageError.
    """
    lines = []
    for query in evaluation.measures[0].values:
        line: dict[str, Any] = {
            "query": query,
            "run": {result.measure: result.values[query] for result in evaluation.measures},
        }
        if evaluation.baseline_coverage is not None:
            line["baseline"] = {
                result.measure: result.baseline_values[query]
                for result in evaluation.measures
                if result.baseline_values is not None
            }
        lines.append(json.dumps(line, ensure_ascii=False))
    write_atomic(Path(path), "".join(f"{line}\n" for line in lines).encode(), point="evaluate.values")
