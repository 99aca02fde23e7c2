"""Measures of runs against judgements, through ir-measures where it has them; a query without results counts 0.

nDCG@k R@k P@k RR@k AP Rprec Success@k ...    ir-measures' names and definitions; Success@k is what others call hit@k
RP@k                                          ours: relevant documents in the first k / min(k, all relevant)
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias

from index.errors import ConfigError, CorpusError
from retrieval.types import Ranking

Qrels: TypeAlias = Mapping[str, Mapping[str, int]]
"""Query id -> document id -> grade; 0 = judged not relevant."""

Run: TypeAlias = Mapping[str, Sequence[str]]
"""Query id -> document ids, best first."""

LARGEST_CUTOFF = 1_000_000
LARGEST_GRADE = 1_000_000
"""trec_eval counts the documents of every grade up to the largest one: at 10^9 its nDCG is silently 0."""

_RP = re.compile(r"RP@([1-9]\d{0,6})")


def run_of(rankings: Iterable[Ranking]) -> Run:
    """Return the run of some rankings."""
    return {ranking.query_id: [hit.doc_id for hit in ranking.hits] for ranking in rankings}


def per_query(measure: str, run: Run, qrels: Qrels) -> dict[str, float]:
    """Return a measure such as "nDCG@10" for every judged query, in order of id. See `per_query_many`."""
    return per_query_many([measure], run, qrels)[measure]


def per_query_many(measures: Sequence[str], run: Run, qrels: Qrels) -> dict[str, dict[str, float]]:
    """Return measure -> query id -> value, for every judged query in order of id; the run is read once for all.

    Our order is the ranking: the scores handed on are -rank, so that ties and float formatting cannot reorder it. A
    document that comes twice (passage grouping) counts where it comes first.
    Raises ConfigError on an unknown measure, CorpusError on a grade beyond 1,000,000, on a NUL character in an id, and
    on a measure such as R(rel=2)@10 where no grade at all is so high.
    """
    names = list(dict.fromkeys(measures))
    ours = {name: _capped_cutoff(name) for name in names if _RP.fullmatch(name)}
    parsed = {name: _parsed(name) for name in names if name not in ours}
    check_grades(qrels)
    ranked = {query: list(dict.fromkeys(doc_ids)) for query, doc_ids in run.items() if query in qrels and doc_ids}
    values = {name: dict.fromkeys(sorted(qrels), 0.0) for name in names}
    for name, cutoff in ours.items():
        for query, doc_ids in ranked.items():
            values[name][query] = _capped_r_precision(doc_ids, qrels[query], cutoff)
    if parsed:
        _check_ids(ranked, qrels)
        _check_levels(parsed, qrels)
        judged = {query: dict(grades) for query, grades in qrels.items()}
        scored = {
            query: {doc_id: -float(rank) for rank, doc_id in enumerate(doc_ids, start=1)}
            for query, doc_ids in ranked.items()
        }
        by_measure: dict[Any, dict[str, float]] = {}
        for metric in _providers().iter_calc(list(parsed.values()), judged, scored):
            by_measure.setdefault(metric.measure, {})[metric.query_id] = float(metric.value)
        for name, measure in parsed.items():
            values[name].update(by_measure.get(measure, {}))
    return values


def mean(values: Mapping[str, float]) -> float:
    """Return the mean over all judged queries; 0 where there are none."""
    return sum(values.values()) / len(values) if values else 0.0


def check_measures(measures: Iterable[str]) -> None:
    """Raise ConfigError on the first measure that is unknown, before anything is read."""
    for name in measures:
        if _RP.fullmatch(name):
            _capped_cutoff(name)
        else:
            _parsed(name)


def deepest(measures: Iterable[str]) -> int:
    """Return the largest cutoff of some measures, 0 where none has one. Raises ConfigError on an unknown measure."""
    return max(
        (_capped_cutoff(name) if _RP.fullmatch(name) else _parsed(name).params.get("cutoff", 0) for name in measures),
        default=0,
    )


def _providers() -> Any:
    """Return the engines that need no other program or package, in order of preference."""
    import ir_measures  # noqa: PLC0415  heavy

    engines: Any = ir_measures.providers  # typed in part
    return engines.FallbackProvider([ir_measures.pytrec_eval, ir_measures.judged, ir_measures.msmarco])


def _parsed(name: str) -> Any:
    """Return ir-measures' measure of that name.

    Its cutoff, least relevant grade and gains are checked here: at nDCG@0 trec_eval ends the process.
    """
    import ir_measures  # noqa: PLC0415  heavy

    try:
        measure = ir_measures.parse_measure(name)
        supported = _providers().supports(measure)
    except (ValueError, NameError, SyntaxError, TypeError, KeyError, AssertionError) as error:
        raise _unknown(name) from error
    bounds = {"cutoff": LARGEST_CUTOFF, "rel": LARGEST_GRADE}
    sound = all(
        type(value) is int and 1 <= value <= bounds[key] for key, value in measure.params.items() if key in bounds
    )
    if not supported or not sound or not _sound_gains(measure.params.get("gains", {})):
        raise _unknown(name)
    return measure


def _sound_gains(gains: object) -> bool:
    """Return whether the gains of grades, as in nDCG(gains={1:1,2:3})@10, are numbers that trec_eval can take."""
    return isinstance(gains, dict) and all(
        type(number) is int and abs(number) <= LARGEST_GRADE for pair in gains.items() for number in pair
    )


def _capped_cutoff(name: str) -> int:
    cutoff = int(name.removeprefix("RP@"))
    if cutoff > LARGEST_CUTOFF:
        raise _unknown(name)
    return cutoff


def _unknown(name: str) -> ConfigError:
    return ConfigError(
        f"measure {name!r} is unknown: use ir-measures names such as nDCG@10 R@100 P@10 RR@10 AP Rprec Success@5, or "
        f"RP@10; a cutoff is an integer from 1 to {LARGEST_CUTOFF:,}"
    )


def check_grades(qrels: Qrels) -> None:
    """Raise CorpusError on a grade beyond 1,000,000."""
    for query, grades in qrels.items():
        for doc_id, grade in grades.items():
            if abs(grade) > LARGEST_GRADE:
                raise CorpusError(
                    f"the grade of document {doc_id!r} for query {query!r} is {grade:,}: expected at most "
                    f"{LARGEST_GRADE:,}, and small integers where nDCG is to say anything"
                )


def _check_ids(run: Run, qrels: Qrels) -> None:
    """Raise CorpusError on an id with a NUL character: trec_eval would end it there, and take it for another."""
    for of_query in (run, qrels):
        for query, doc_ids in of_query.items():
            broken = next((name for name in (query, *doc_ids) if "\0" in name), None)
            if broken is not None:
                raise CorpusError(f"id {broken!r} of query {query!r} holds a NUL character: name it otherwise")


def _check_levels(measures: Mapping[str, Any], qrels: Qrels) -> None:
    highest = max((grade for grades in qrels.values() for grade in grades.values()), default=0)
    for name, measure in measures.items():
        level = measure.params.get("rel", 0)
        if qrels and level > highest:
            raise CorpusError(f"measure {name!r}: no document is judged {level} or higher, the highest is {highest}")


def _capped_r_precision(doc_ids: Sequence[str], grades: Mapping[str, int], cutoff: int) -> float:
    relevant = sum(grade > 0 for grade in grades.values())
    found = sum(grades.get(doc_id, 0) > 0 for doc_id in doc_ids[:cutoff])
    return found / min(cutoff, relevant) if relevant else 0.0
