"""The probes of `grapnel bench`: what becomes of a task's utility when one thing about it changes.

Every probe returns {"unchanged": what rows are compared with, "rows": [row]}, a row being
{"setting", "queries", "mean", "low", "high", "measures", "reference", "change"}: utility with its interval, the mean of
what is unchanged, and the paired difference to it, a number with its interval, or null where other queries are judged.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any, Final, TypeAlias

import numpy as np

from evaluation.bench_sections import Json, Setting, number
from evaluation.clusters import k_means
from evaluation.features import neighbours
from evaluation.hubness import anti_hub_share, gini, k_occurrence_skew, k_occurrences
from evaluation.probes import IndexSearch, ProbeRow, Search, TaskVectors, exact_search
from evaluation.probes_corpus import dimension_truncation, hubness, imbalance, near_duplicates
from evaluation.probes_filters import filters
from evaluation.probes_queries import out_of_distribution, popularity_deciles
from evaluation.runbook import RunbookTask, Step, StepResult, churn, run_runbook
from evaluation.spaces import Arm
from evaluation.statistics import Values
from evaluation.utility import Gains, Utility, from_qrels
from index.errors import RequestError
from index.spec import IndexSpec
from index.types import Bitmap, Rows, Vectors
from retrieval.collection_config import CollectionConfig, DenseField
from retrieval.encoders import EncoderConfig
from retrieval.types import Document, Query

Probe: TypeAlias = Callable[[Setting], Json]

HUB_BINS: Final = (0, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
"""Lower ends of the classes of a hub histogram."""

HUB_ARMS: Final[tuple[Arm, ...]] = ("ip", "l2", "cosine", "centred-cosine", "csls")

_HUB_SAMPLE: Final = 5_000
_HUB_K: Final = 10
_CLASSES: Final = 20
_FIELD: Final = "dense"
_RUNBOOK_DOCUMENTS: Final = 4_000


def hubs(setting: Setting) -> Json:
    """Measure hubs under every metric that was fitted, against the deployed cosine; with a histogram."""
    embedded = setting.vectors
    spaces = {arm: embedded.spaces[arm] for arm in HUB_ARMS if arm in embedded.spaces}

    def search_of(arm: Arm) -> Search:
        def search(documents: Vectors, queries: Vectors, k: int, allowed: Bitmap | None = None) -> Rows:
            # Every space is fitted to these documents, and the probe filters nothing.
            assert documents is embedded.documents
            assert allowed is None
            return spaces[arm].search(queries, k).rows

        return search

    rows = hubness(_data(setting), setting.utility, {arm: search_of(arm) for arm in spaces}, seed=setting.seed)
    unchanged = next(row for row in rows if row.setting["metric"] == "cosine")
    result = _result("cosine", rows, lambda _: unchanged, setting)
    return {**result, "histogram": _histogram(setting)}


def _histogram(setting: Setting) -> Json:
    """Return how many documents are how often among the 10 nearest of (at most 5,000) other documents."""
    documents = setting.vectors.documents
    rng = np.random.default_rng(setting.seed)
    probes = np.sort(rng.choice(len(documents), min(len(documents), _HUB_SAMPLE), replace=False)).astype(np.int64)
    metrics: Json = {}
    for arm in HUB_ARMS[:4]:
        found = neighbours(documents, arm, _HUB_K, probes)
        counts = k_occurrences(found, len(documents))
        edges = [*HUB_BINS, np.iinfo(np.int64).max]
        metrics[arm] = {
            "documents": np.histogram(counts, edges)[0].tolist(),
            "skew": k_occurrence_skew(found, len(documents)),
            "gini": gini(counts),
            "anti_hubs": anti_hub_share(found, len(documents)),
        }
    return {"k": _HUB_K, "searched": len(probes), "from": list(HUB_BINS), "metrics": metrics}


def truncation(setting: Setting) -> Json:
    """Keep the first dimensions only, searched exactly."""
    rows = dimension_truncation(_data(setting), setting.utility, exact_search("cosine"), seed=setting.seed)
    return _result("all dimensions", rows, lambda _: rows[0], setting)


def filtered(setting: Setting) -> Json:
    """Filter a graph index, each query by its own filter; compared with exact search under the same filter."""
    with IndexSearch(_graph(setting)) as search:
        count = 50 if setting.small else 200
        rows = filters(_data(setting), setting.utility, search, seed=setting.seed, queries=count)
    plain = [{**_row(row, setting), "reference": row.measures["exact"]} for row in rows]
    return {"unchanged": "exact search under the same filter", "rows": plain}


def duplicates(setting: Setting) -> Json:
    """Add near-copies of a fifth of the documents, searched exactly."""
    rows = near_duplicates(_data(setting), setting.utility, exact_search("cosine"), seed=setting.seed)
    return _result("no copies", rows, lambda _: rows[0], setting)


def imbalanced(setting: Setting) -> Json:
    """Resample topics (k-means clusters of the documents) so that their sizes follow Zipf's law.

    Judged are the queries that still have something to find, as a share of what a perfect ranking of it is worth.
    """
    data, task = _data(setting), setting.vectors.data.task
    labels = k_means(data.documents, min(_CLASSES, len(data.documents) // 4), seed=setting.seed)

    def utility_of(kept: Rows) -> Utility:
        doc_ids = tuple(task.doc_ids[row] for row in kept)
        there = set(doc_ids)
        qrels = {
            query: {doc_id: grade for doc_id, grade in grades.items() if doc_id in there}
            for query, grades in task.qrels.items()
        }
        return _Findable(from_qrels(setting.utility.name, _Part(doc_ids, task.queries, qrels)))

    rows = imbalance(data, utility_of, exact_search("cosine"), labels=labels, seed=setting.seed)
    plain = [{**_row(row, setting), "reference": rows[0].mean} for row in rows]
    return {"unchanged": "topics of equal size", "rows": plain}


class _Part:
    """Some documents of a task, as judgements know them."""

    def __init__(
        self, doc_ids: tuple[str, ...], queries: tuple[Query, ...], qrels: Mapping[str, Mapping[str, int]]
    ) -> None:
        self.doc_ids, self.queries, self.qrels = doc_ids, queries, qrels


class _Findable:
    """A utility as a share of its ceiling, of the queries alone whose ceiling is above 0."""

    def __init__(self, utility: Utility) -> None:
        self._utility = utility
        self._kept = utility.ceiling > 0
        self.name, self.depth = utility.name, utility.depth
        self.ceiling: Values = np.ones(int(self._kept.sum()))

    def gains(self, rows: Rows) -> Gains:
        return self._utility.gains(rows)

    def __call__(self, rows: Rows) -> Values:
        values: Values = self._utility(rows)[self._kept] / self._utility.ceiling[self._kept]
        return values


def foreign(setting: Setting) -> Json:
    """Pull queries out of the documents' distribution, before a graph index."""
    with IndexSearch(_graph(setting)) as search:
        rows = out_of_distribution(_data(setting), setting.utility, search, seed=setting.seed)
    return _result("queries as they are", rows, lambda _: rows[0], setting)


def popularity(setting: Setting) -> Json:
    """Split queries by how many others want the same documents.

    Raises RequestError where every document is wanted by one query only.
    """
    task = setting.vectors.data.task
    positives = [[doc_id for doc_id, grade in task.qrels[query.id].items() if grade > 0] for query in task.queries]
    times: dict[str, int] = {}
    for doc_ids in positives:
        for doc_id in doc_ids:
            times[doc_id] = times.get(doc_id, 0) + 1
    wanted = np.array([np.mean([times[doc_id] for doc_id in doc_ids]) for doc_ids in positives])
    if wanted.max() == wanted.min():
        raise RequestError(f"every relevant document is wanted by {wanted.max():g} queries: none is more popular")
    search = exact_search("cosine")
    rows = popularity_deciles(_data(setting), setting.utility, search, wanted, seed=setting.seed)
    mean = float(setting.utility(search(setting.vectors.documents, setting.vectors.queries, setting.k)).mean())
    return {"unchanged": "all queries", "rows": [{**_row(row, setting), "reference": mean} for row in rows]}


def living(setting: Setting) -> Json:
    """Let a collection live through inserts, deletions and replacements; compared with one built anew each time."""
    task, embedded = setting.vectors.data.task, setting.vectors
    rng = np.random.default_rng(setting.seed)
    pool = rng.permutation(len(task.doc_ids))[:_RUNBOOK_DOCUMENTS]
    part = _Part(tuple(task.doc_ids[row] for row in pool), task.queries, {})
    there = set(part.doc_ids)
    part.qrels = {
        query: {doc_id: grade for doc_id, grade in grades.items() if doc_id in there}
        for query, grades in task.qrels.items()
    }
    documents = [
        Document(doc_id, vectors={_FIELD: embedded.documents[row]})
        for doc_id, row in zip(part.doc_ids, pool, strict=True)
    ]
    queries = [
        replace(query, vectors={_FIELD: vector}) for query, vector in zip(task.queries, embedded.queries, strict=True)
    ]
    dense = DenseField(EncoderConfig(kind="external", dim=embedded.documents.shape[1]), index="hnsw")
    life = RunbookTask(
        documents=documents,
        queries=queries,
        utility=from_qrels(setting.utility.name, part),
        config=CollectionConfig(fields={_FIELD: dense}),
        k=setting.k,
    )
    steps = churn(len(documents), 1 if setting.small else 4, setting.seed)
    rows = [
        _step(number_, step, setting)
        for number_, step in enumerate(run_runbook(life, steps, seed=setting.seed), start=1)
    ]
    return {"unchanged": "a collection built anew", "rows": rows}


def _step(place: int, result: StepResult, setting: Setting) -> Json:
    return {
        "setting": {"step": _step_name(place, result.step)},
        "queries": len(result.utility),
        **number(result.utility, setting.seed),
        "measures": {
            "documents": float(result.documents),
            "recall": float(result.recall.mean()),
            "ghosts": float(len(result.ghosts)),
        },
        "reference": float(result.rebuilt.mean()),
        "change": {"mean": result.difference, "low": result.interval.low, "high": result.interval.high},
    }


def _step_name(place: int, step: Step) -> str:
    size = step.stop - step.start
    return f"{place} {step.operation}" + (f" {size:,}" if size else "")


PROBES: Final[Mapping[str, Probe]] = {
    "hubness": hubs,
    "dimension truncation": truncation,
    "filters": filtered,
    "near-duplicates": duplicates,
    "imbalance": imbalanced,
    "out-of-distribution": foreign,
    "popularity": popularity,
    "runbook": living,
}


def _data(setting: Setting) -> TaskVectors:
    return TaskVectors(setting.vectors.documents, setting.vectors.queries, "cosine", setting.k)


def _graph(setting: Setting) -> IndexSpec:
    return IndexSpec("hnsw", "cosine", seed=setting.seed)


def _result(
    unchanged: str, rows: Iterable[ProbeRow], reference: Callable[[ProbeRow], ProbeRow], setting: Setting
) -> Json:
    """Return a probe whose rows judge the same queries as what they are compared with."""
    plain: list[Any] = []
    for row in rows:
        base = reference(row)
        change = None if row is base else number(row.values - base.values, setting.seed)
        plain.append({**_row(row, setting), "reference": base.mean, "change": change})
    return {"unchanged": unchanged, "rows": plain}


def _row(row: ProbeRow, setting: Setting) -> Json:
    return {
        "setting": dict(row.setting),
        "queries": len(row.values),
        **number(row.values, setting.seed),
        "measures": dict(row.measures),
        "reference": None,
        "change": None,
    }
