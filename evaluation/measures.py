"""Measures of runs against judgements, through ir-measures; a query without results counts 0."""

from collections.abc import Iterable, Mapping, Sequence
from typing import TypeAlias

from index.errors import ConfigError
from retrieval.types import Ranking

Qrels: TypeAlias = Mapping[str, Mapping[str, int]]
"""Query id -> document id -> grade; 0 = judged not relevant."""

Run: TypeAlias = Mapping[str, Sequence[str]]
"""Query id -> document ids, best first."""


def run_of(rankings: Iterable[Ranking]) -> Run:
    """Return the run of some rankings."""
    return {ranking.query_id: [hit.doc_id for hit in ranking.hits] for ranking in rankings}


def per_query(measure: str, run: Run, qrels: Qrels) -> dict[str, float]:
    """Return a measure such as "nDCG@10" for every judged query, in order of id.

    Our order is the ranking: the scores handed on are -rank, so that ties and float formatting cannot reorder it.
    Raises ConfigError on an unknown measure.
    """
    import ir_measures  # noqa: PLC0415  heavy

    try:
        parsed = ir_measures.parse_measure(measure)
    except (ValueError, NameError, SyntaxError) as error:
        raise ConfigError(f"measure {measure!r} is unknown: use ir-measures names such as nDCG@10, R@100") from error
    scored = {
        query: {doc_id: -float(rank) for rank, doc_id in enumerate(doc_ids, start=1)}
        for query, doc_ids in run.items()
        if doc_ids
    }
    values = dict.fromkeys(sorted(qrels), 0.0)
    judged = {query: dict(grades) for query, grades in qrels.items()}
    values.update({metric.query_id: metric.value for metric in ir_measures.iter_calc([parsed], judged, scored)})
    return values


def mean(values: Mapping[str, float]) -> float:
    """Return the mean over all judged queries; 0 where there are none."""
    return sum(values.values()) / len(values) if values else 0.0
