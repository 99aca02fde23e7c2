"""`grapnel recommend`: which metric, index and effort suit a collection's vectors, measured on themselves.

The metric: evaluation.choose_metric. Index and effort: evaluation.choose_index. What is asked and said:
evaluation.advice.
"""

from collections.abc import Sequence

import numpy as np

from evaluation.advice import Advice, Asked, Wishes
from evaluation.choose_index import MOST_QUERIES, choose_index
from evaluation.choose_metric import choose_metric
from evaluation.collection_sample import FieldSample, query_vectors, sample_field
from evaluation.halving import LEAST_QUERIES
from evaluation.measures import Qrels
from evaluation.task import Task
from evaluation.utility import from_qrels
from index.errors import CorpusError, RequestError
from retrieval.collection import Collection
from retrieval.progress import Progress, silent
from retrieval.types import Query

_LEAST = 2 * LEAST_QUERIES
"""Passages from which on some can be held out to be queries."""


def recommend(
    collection: Collection,
    name: str,
    wishes: Wishes,
    queries: Sequence[Query] = (),
    qrels: Qrels | None = None,
    progress: Progress = silent,
) -> Advice:
    """Return advice for a dense field of a collection.

    queries, qrels: the user's own; without judgements recall counts, without queries that of held-out passages.
    Raises CorpusError on judgements of unknown documents or fewer than 20 queries, ConfigError on another field,
    RequestError on fewer than 40 passages.
    Cost: the features (a few seconds), a build of each kind over the sample, some hundred searches of each effort.
    """
    used = _usable(queries, qrels)
    keep = {doc_id for query in used for doc_id in (qrels or {}).get(query.id, {})}
    sample = sample_field(collection, name, most=wishes.sample, keep=keep, seed=wishes.seed)
    progress("read vectors", len(sample.vectors), len(sample.vectors))
    unknown = sorted(keep - set(sample.doc_ids))
    if unknown:
        raise CorpusError(
            f"{len(unknown):,} judged documents are not in {collection.folder}, {unknown[0]!r} first: add them, or "
            "remove their judgements (what has no text is never indexed)"
        )
    if len(sample.vectors) < _LEAST:
        raise RequestError(f"{len(sample.vectors)} passages, expected at least {_LEAST}: so few are searched exactly")
    asked = None
    if used:
        order = np.random.default_rng(wishes.seed).permutation(len(used))[:MOST_QUERIES]
        used = [used[place] for place in np.sort(order).tolist()]
        utility = None if qrels is None else from_qrels(wishes.measure, _task(sample, used, qrels))
        asked = Asked(query_vectors(collection, name, used), utility)
    config = collection.config.dense_fields()[name]
    metric = choose_metric(sample, asked, config.metric, wishes)
    progress("choose a metric", 1, 1)
    return choose_index(sample, asked, metric, config.spec(), wishes, progress)


def _usable(queries: Sequence[Query], qrels: Qrels | None) -> list[Query]:
    """Return the queries to measure with: those with a relevant document where there are judgements."""
    if qrels is None:
        used, kind = list(queries), "given"
    elif not queries:
        raise RequestError("judgements need the queries that they judge: give both, or queries alone")
    else:
        used = [query for query in queries if any(grade > 0 for grade in qrels.get(query.id, {}).values())]
        kind = "with a relevant document"
        if not used:
            raise CorpusError(
                f"none of {len(queries):,} queries has a relevant document: are the ids those of the qrels?"
            )
    if queries and len(used) < LEAST_QUERIES:
        raise CorpusError(f"{len(used)} queries {kind}, expected at least {LEAST_QUERIES}")
    return used


def _task(sample: FieldSample, queries: Sequence[Query], qrels: Qrels) -> Task:
    nothing = ("",) * len(sample.doc_ids)
    mine = {query.id: qrels[query.id] for query in queries}
    return Task("the collection", "", sample.doc_ids, nothing, nothing, queries=tuple(queries), qrels=mine)
