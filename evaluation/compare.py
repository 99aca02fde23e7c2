"""A run against judgements, and against another run: means, their intervals, and what the differences are worth.

The means are over the judged queries that have a relevant document: one that the run does not answer counts 0 in every
measure; one without any relevant document has no defined recall or nDCG, so it is counted and left out.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from evaluation.measures import Qrels, Run, check_measures, per_query_many
from evaluation.statistics import Comparison, Interval, Values, bootstrap_interval, holm, paired
from index.durable import write_atomic
from index.errors import CorpusError, RequestError

DEFAULT_MEASURES = ("nDCG@10", "R@100", "RR@10", "AP", "Rprec")

FEW = 10
"""Queries below which an interval is narrower than it says."""


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
    Cost: dominated by 9,999 resamples of the queries per measure; about a second for 10,000 queries.
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
    values = per_query_many(names, run, usable)
    notes = _notes("run", run, usable, coverage)
    if baseline is None:
        results = [_alone(name, values[name], seed) for name in names]
        return Evaluation(coverage, None, tuple(results), notes)
    baseline_coverage = _coverage("baseline", baseline, usable, qrels)
    notes += tuple(note for note in _notes("baseline", baseline, usable, baseline_coverage) if note not in notes)
    other = per_query_many(names, baseline, usable)
    results = _against(names, values, other, seed)
    return Evaluation(coverage, baseline_coverage, tuple(results), notes)


def _alone(name: str, values: Mapping[str, float], seed: int) -> MeasureResult:
    numbers = _array(values)
    return MeasureResult(name, float(numbers.mean()), _interval(numbers, seed), values)


def _against(
    names: Iterable[str],
    values: Mapping[str, Mapping[str, float]],
    other: Mapping[str, Mapping[str, float]],
    seed: int,
) -> list[MeasureResult]:
    rows = []
    for name in names:
        mine, theirs = _array(values[name]), _array(other[name])
        rows.append((name, mine, theirs, paired(mine, theirs, seed=seed) if len(mine) > 1 else None))
    adjusted = holm(np.array([row[3].p_permutation for row in rows if row[3] is not None]))
    return [
        MeasureResult(
            measure=name,
            mean=float(mine.mean()),
            interval=_interval(mine, seed),
            values=values[name],
            baseline_mean=float(theirs.mean()),
            baseline_interval=_interval(theirs, seed),
            baseline_values=other[name],
            comparison=comparison,
            p_holm=None if comparison is None else float(adjusted[place]),
        )
        for place, (name, mine, theirs, comparison) in enumerate(rows)
    ]


def _array(values: Mapping[str, float]) -> Values:
    return np.array(list(values.values()), dtype=np.float64)


def _interval(values: Values, seed: int) -> Interval | None:
    return bootstrap_interval(values, seed=seed) if len(values) > 1 else None


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
    if coverage.judged < FEW:
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
