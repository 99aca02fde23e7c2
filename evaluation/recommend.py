"""`grapnel recommend`: which metric, index and effort suit a collection's vectors, measured on themselves.

The metric: measured where there are labels; else as the fitted tree guesses from meta-features, unless it abstains.
Index and effort: the cheapest of the user's own sample that meets the target (evaluation.halving), by utility with
labels, else by recall on the user's queries, else by recall on documents that are held out of the index.
"""

import math
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, TypeAlias

import numpy as np

from evaluation.collect_runs import KINDS, Candidate, candidates, latencies_ms, one_length
from evaluation.collection_sample import FieldSample, query_vectors, sample_field
from evaluation.features import features
from evaluation.halving import LEAST_QUERIES, Chosen, cheapest
from evaluation.measures import Qrels
from evaluation.recall import Truth, exact_scores, slack, tied_recall
from evaluation.regret import family_of
from evaluation.spaces import exact_search, fit
from evaluation.statistics import Interval, Values, bootstrap_interval, paired
from evaluation.task import Task
from evaluation.tree import FEATURE_SAMPLE, Tree, read_tree
from evaluation.utility import Utility, from_qrels
from index.choose import memory_bytes, resolve
from index.errors import CorpusError, RequestError
from index.metric import METRICS, Metric, prepare
from index.spec import IndexSpec, Kind
from index.types import Rows, Vectors
from retrieval.collection import Collection
from retrieval.progress import Progress, silent
from retrieval.types import Query

SAMPLE: Final = 20_000
"""Passages that indexes are built over; a larger collection is sampled."""

_GIB: Final = 1 << 30
_QUERIES: Final = 1_000
_HELD_OUT_SHARE: Final = 0.1
_DEEPER: Final = 10
"""Passages looked at for k documents, as a multiple of k at most."""

_LEAST: Final = 20
"""Passages from which on there is anything to measure."""

_VALUE_BYTES: Final[Mapping[str, int]] = {"float32": 4, "float16": 2, "int8": 1}


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the user wants. recall: share of what exact search is worth, of recall or of utility.

    memory_gb, latency_ms: budgets of the opened index and of a query's median, None = none. k: results.
    measure: the utility where there are labels. sample: passages at most. Raises RequestError.
    """

    recall: float = 0.95
    memory_gb: float | None = None
    latency_ms: float | None = None
    k: int = 10
    measure: str = "nDCG@10"
    sample: int = SAMPLE
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.recall < 1:
            raise RequestError(f"recall is {self.recall}, expected more than 0 and less than 1, such as 0.95")
        for name in ("memory_gb", "latency_ms"):
            value: float | None = getattr(self, name)
            if value is not None and not (value > 0 and math.isfinite(value)):
                raise RequestError(f"{name} is {value}, expected a number above 0")
        if self.k < 1 or self.sample < 1:
            raise RequestError(f"k is {self.k}, sample {self.sample}, expected at least 1")


@dataclass(frozen=True, slots=True)
class MetricAdvice:
    """The metric, and what speaks for it. measured: utility of exact search under each, mean and interval.

    path: conditions of the tree that led there. abstained: the tree did not know such vectors.
    """

    metric: Metric
    why: str
    path: tuple[str, ...] = ()
    measured: Mapping[str, tuple[float, Interval]] = field(default_factory=dict)
    abstained: bool = False
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Advice:
    """Advice for one dense field.

    effort: what was measured; empty = as `grapnel build` calibrates it. measured: "nDCG@10" or "recall@10", of which
    worth is the mean with its interval, exact that of exact search. met: target and budgets. recall: what to ask of
    the build. size_bytes, memory_bytes, p50_ms: of the whole collection; `passages` in it, `sample` measured on.
    """

    field: str
    metric: MetricAdvice
    kind: Kind
    effort: Mapping[str, float]
    measured: str
    worth: float
    interval: Interval
    exact: float
    met: bool
    recall: float
    size_bytes: int
    memory_bytes: int
    p50_ms: float
    passages: int
    sample: int
    queries: int
    tried: int
    notes: tuple[str, ...] = ()

    @property
    def toml(self) -> str:
        """The lines for collection.toml; the effort is calibrated to `recall` when the index is built."""
        lines = [f"[fields.{self.field}]", f'metric = "{self.metric.metric}"', f'index = "{self.kind}"']
        return "\n".join(lines if self.kind == "flat" else [*lines, f"recall = {self.recall:g}"])


@dataclass(frozen=True, slots=True, eq=False)
class Asked:
    """Queries of a sample. vectors: float32 (Q, D). utility: of documents, None = judged by recall."""

    vectors: Vectors = field(repr=False)
    utility: Utility | None = field(repr=False, default=None)


def recommend(
    collection: Collection,
    name: str,
    wishes: Wishes,
    queries: Sequence[Query] = (),
    qrels: Qrels | None = None,
    progress: Progress = silent,
) -> Advice:
    """Return advice for a dense field of a collection.

    queries, qrels: the user's own; without judgements recall counts, without queries that of held-out documents.
    Raises CorpusError on judgements of unknown documents or fewer than 20 queries, ConfigError on another field,
    RequestError on an empty collection.
    Cost: the features (a few seconds), a build of each kind over the sample, some hundred searches of each effort.
    """
    judged = _judged(queries, qrels)
    keep = {doc_id for query in judged for doc_id in (qrels or {})[query.id]}
    progress("read vectors", 0, None)
    sample = sample_field(collection, name, most=wishes.sample, keep=keep, seed=wishes.seed)
    if len(sample.vectors) < _LEAST:
        raise RequestError(f"{len(sample.vectors)} passages, expected at least {_LEAST}: so few are searched exactly")
    asked = None
    if queries:
        used = judged if qrels is not None else queries
        if len(used) < LEAST_QUERIES:
            raise CorpusError(
                f"{len(used)} queries {'judged' if judged else 'given'}, expected at least {LEAST_QUERIES}"
            )
        used = [used[place] for place in _some(len(used), _QUERIES, wishes.seed)]
        utility = None if qrels is None else from_qrels(wishes.measure, _task(sample, used, qrels))
        asked = Asked(query_vectors(collection, name, used), utility)
    config = collection.config.dense_fields()[name]
    chosen = choose_metric(sample, asked, config.metric, wishes)
    return choose_index(sample, asked, chosen, config.spec(), wishes, progress)


def _judged(queries: Sequence[Query], qrels: Qrels | None) -> list[Query]:
    if qrels is None:
        return []
    if not queries:
        raise RequestError("judgements need the queries that they judge: give both, or queries alone")
    judged = [query for query in queries if any(grade > 0 for grade in qrels.get(query.id, {}).values())]
    if not judged:
        raise CorpusError(f"none of {len(queries):,} queries has a relevant document: are the ids those of the qrels?")
    return judged


def _some(count: int, most: int, seed: int) -> list[int]:
    chosen: list[int] = np.sort(np.random.default_rng(seed).permutation(count)[:most]).tolist()
    return chosen


def _task(sample: FieldSample, queries: Sequence[Query], qrels: Qrels) -> Task:
    nothing = ("",) * len(sample.doc_ids)
    mine = {query.id: qrels[query.id] for query in queries}
    return Task("the collection", "", sample.doc_ids, nothing, nothing, queries=tuple(queries), qrels=mine)


def choose_metric(
    sample: FieldSample, asked: Asked | None, present: Metric, wishes: Wishes, tree: Tree | None = None
) -> MetricAdvice:
    """Return the metric: any where vectors have one length, by measurement with labels, else by the tree.

    present: the field's metric, kept unless another is better beyond doubt, or the tree knows such vectors and says
    otherwise. tree: None = the one that ships.
    """
    if one_length(sample.vectors):
        return MetricAdvice(present, "all vectors have the same length: cosine, inner product and l2 rank them alike")
    if asked is not None and asked.utility is not None:
        return _measured_metric(sample, asked.vectors, asked.utility, present, wishes)
    try:
        found = features(sample.vectors, sample=FEATURE_SAMPLE, seed=wishes.seed)
    except (RequestError, CorpusError) as error:
        return MetricAdvice(present, f"kept: the vectors' features are undefined ({error})", abstained=True)
    guess = (tree or read_tree()).guess({**found, "n": float(sample.total)})
    if guess.arm is None:
        why = f"kept: the tree {guess.why}; with --queries and --qrels the metric is measured"
        return MetricAdvice(present, why, abstained=True)
    return MetricAdvice(guess.arm.metric, f"the tree's guess is {guess.arm}: {guess.why}", guess.path)


def _measured_metric(
    sample: FieldSample, queries: Vectors, utility: Utility, present: Metric, wishes: Wishes
) -> MetricAdvice:
    depth = _depth(sample, wishes.k)

    def worth(prepared: Vectors, metric: Metric, vectors: Vectors) -> Values:
        return utility(_documents(sample.document_of, exact_search(prepared, metric, vectors, depth).rows))

    values = {metric: worth(prepare(sample.vectors, metric), metric, prepare(queries, metric)) for metric in METRICS}
    best = max(METRICS, key=lambda metric: (values[metric].mean(), metric == present))
    measured = {
        metric: (float(each.mean()), bootstrap_interval(each, seed=wishes.seed)) for metric, each in values.items()
    }
    compared = paired(values[best], values[present], seed=wishes.seed)
    told = f"{utility.name} of {best} less that of {present}: {compared.difference:+.4f}"
    told += f" [{compared.low:+.4f}, {compared.high:+.4f}]"
    chosen = best if compared.low > 0 else present
    why = "measured: the present metric is the best" if best == present else f"measured: {told}"
    why += "" if chosen == best else ", so the present one stays"
    return MetricAdvice(chosen, why, measured=measured, notes=_centring(values[chosen], worth, sample, queries, wishes))


_ExactWorth: TypeAlias = Callable[[Vectors, Metric, Vectors], Values]
"""(prepared documents, metric, prepared queries) -> worth of exact search per query."""


def _centring(
    chosen: Values, worth: _ExactWorth, sample: FieldSample, queries: Vectors, wishes: Wishes
) -> tuple[str, ...]:
    space = fit("centred-cosine", sample.vectors)
    compared = paired(worth(space.documents, space.metric, space.queries(queries)), chosen, seed=wishes.seed)
    if compared.low <= 0:
        return ()
    gained = f"{compared.difference:+.4f} [{compared.low:+.4f}, {compared.high:+.4f}]"
    told = (
        f"cosine of vectors less their mean would be worth {gained} more: no metric of a collection, but clients that "
    )
    return (f"{told}bring vectors can subtract it",)


def _depth(sample: FieldSample, k: int) -> int:
    return k * min(_DEEPER, sample.passages_each)


def _documents(document_of: Rows, rows: Rows) -> Rows:
    return np.where(rows >= 0, document_of[rows], -1)


def choose_index(
    sample: FieldSample,
    asked: Asked | None,
    metric: MetricAdvice,
    spec: IndexSpec,
    wishes: Wishes,
    progress: Progress = silent,
) -> Advice:
    """Build every kind that fits the memory budget over the sample, and choose among all efforts."""
    dim = sample.vectors.shape[1]
    spec = replace(spec, kind="flat", metric=metric.metric, recall=wishes.recall, seed=wishes.seed)
    kinds, notes = _fitting(spec, sample.total, dim, wishes)
    documents, document_of, vectors = sample.vectors, sample.document_of, None if asked is None else asked.vectors
    if vectors is None:
        held = _some(len(documents), min(_QUERIES, round(_HELD_OUT_SHARE * len(documents))), wishes.seed)
        vectors = documents[held]
        documents, document_of = np.delete(documents, held, axis=0), np.delete(document_of, held)
    utility = None if asked is None else asked.utility
    depth = wishes.k if utility is None else _depth(sample, wishes.k)
    with tempfile.TemporaryDirectory(prefix="grapnel-recommend-") as folder:
        progress("build indexes", 0, None)
        tried = candidates(Path(folder), documents, spec, kinds, depth)
        if "flat" not in kinds and len(tried) > 1:
            tried, exact_one = tried[1:], tried[0]
        else:
            exact_one = tried[0]
        judge = _Judge(tried, exact_one, documents, document_of, vectors, utility, depth)
        progress("measure", 0, None)
        return _chosen(sample, metric, spec, wishes, judge, notes)


class _Judge:
    """What candidates are worth on the queries: utility of documents, or recall of passages."""

    def __init__(
        self,
        tried: Sequence[Candidate],
        exact_one: Candidate,
        documents: Vectors,
        document_of: Rows,
        queries: Vectors,
        utility: Utility | None,
        depth: int,
    ) -> None:
        self.tried = tried
        self.queries = queries
        self.depth = depth
        self.utility = utility
        self.indexed = len(documents)
        self._document_of = document_of
        metric = exact_one.metric
        self._prepared, self._asked = prepare(documents, metric), prepare(queries, metric)
        rows = exact_one.rows(queries, depth)
        scores = exact_scores(self._prepared, self._asked, rows, metric)
        self._truth = Truth(rows, scores, slack(self._asked, scores))
        everything = np.arange(len(queries))
        self.exact = np.ones(len(queries)) if utility is None else self._useful(everything, rows)

    def worth(self, candidate: int, numbers: Rows) -> Values:
        """Return the worth of a candidate on some queries, float64 (q,)."""
        found = self.tried[candidate].rows(self.queries[numbers], self.depth)
        return self.recall(numbers, found) if self.utility is None else self._useful(numbers, found)

    def recall(self, numbers: Rows, found: Rows) -> Values:
        """Return recall at the depth, float64 (q,)."""
        scores = exact_scores(self._prepared, self._asked[numbers], found, self.tried[0].metric)
        truth = Truth(*(each[numbers] for each in self._truth))
        return tied_recall(found, scores, truth, min(self.depth, truth.rows.shape[1]))

    def _useful(self, numbers: Rows, found: Rows) -> Values:
        assert self.utility is not None, "only asked with labels"
        rows = np.full((len(self.queries), found.shape[1]), -1, dtype=np.int64)
        rows[numbers] = _documents(self._document_of, found)
        return self.utility(rows)[numbers]


def _chosen(
    sample: FieldSample,
    metric: MetricAdvice,
    spec: IndexSpec,
    wishes: Wishes,
    judge: _Judge,
    notes: list[str],
) -> Advice:
    dim = sample.vectors.shape[1]
    times = latencies_ms(judge.tried, judge.queries, judge.depth)
    times = times * np.array([_growth(each.kind, judge.indexed, sample.total) for each in judge.tried])
    quick = [place for place, ms in enumerate(times) if wishes.latency_ms is None or ms <= wishes.latency_ms]
    if not quick:
        quick = [int(times.argmin())]
        notes.append(f"nothing answers within {wishes.latency_ms:g} ms: the fastest takes {times.min():.3g} ms")
    exact_places = [number for number, place in enumerate(quick) if judge.tried[place].kind == "flat"]
    if judge.tried[quick[0]].kind == "flat" and len(quick) == 1:
        found = _exact_only(judge, wishes.seed)
    else:
        found = cheapest(
            lambda number, numbers: judge.worth(quick[number], numbers),
            judge.exact,
            times[quick],
            wishes.recall,
            certain=exact_places[0] if exact_places else None,
            seed=wishes.seed,
        )
    place = quick[found.candidate]
    best = judge.tried[place]
    measured = f"recall@{wishes.k}" if judge.utility is None else judge.utility.name
    if not found.met:
        notes.append(f"nothing that fits the budgets has {wishes.recall:g} of what exact search has, beyond chance")
    if sample.total > judge.indexed:
        notes.append(
            f"measured on {judge.indexed:,} of {sample.total:,} passages: latency and memory are scaled from there, "
            f"{measured} falls somewhat as collections grow; `grapnel build` calibrates again"
        )
    needed = round(_memory(replace(spec, kind=best.kind), sample.total, dim))
    return Advice(
        field=sample.name,
        metric=metric,
        kind=best.kind,
        effort=dict(best.settings),
        measured=measured,
        worth=found.worth,
        interval=found.interval,
        exact=found.exact,
        met=found.met,
        recall=_asked_of_build(judge, place, wishes),
        size_bytes=best.size_bytes if sample.total == judge.indexed else needed,
        memory_bytes=needed,
        p50_ms=float(times[place]),
        passages=sample.total,
        sample=judge.indexed,
        queries=found.queries,
        tried=len(judge.tried),
        notes=(*metric.notes, *notes),
    )


def _exact_only(judge: _Judge, seed: int) -> Chosen:
    """Return exact search as the only choice: it needs no test."""
    mean = float(judge.exact.mean())
    return Chosen(0, mean, bootstrap_interval(judge.exact, seed=seed), mean, met=True, queries=len(judge.exact))


def _asked_of_build(judge: _Judge, place: int, wishes: Wishes) -> float:
    """Return the recall to calibrate to: the wish, or with labels the recall that sufficed, to whole hundredths."""
    if judge.utility is None or judge.tried[place].kind == "flat":
        return wishes.recall
    everything = np.arange(len(judge.queries))
    enough = judge.recall(everything, judge.tried[place].rows(judge.queries, judge.depth)).mean()
    return min(0.99, max(0.5, math.ceil(100 * float(enough)) / 100))


def _fitting(spec: IndexSpec, total: int, dim: int, wishes: Wishes) -> tuple[tuple[Kind, ...], list[str]]:
    """Return the kinds that fit the memory budget at the collection's full size; the smallest where none does."""
    walks = KINDS if spec.storage != "int8" else tuple(kind for kind in KINDS if kind != "hnsw")
    needed = {kind: _memory(replace(spec, kind=kind), total, dim) for kind in walks}
    limit = math.inf if wishes.memory_gb is None else wishes.memory_gb * _GIB
    fit_in = tuple(kind for kind in walks if needed[kind] <= limit)
    if fit_in:
        return fit_in, []
    smallest = min(walks, key=lambda kind: needed[kind])
    told = f"nothing fits into {wishes.memory_gb:g} GiB: {smallest} takes {needed[smallest] / _GIB:.2f} GiB with its "
    told += "vectors; a smaller storage (float16, int8) halves or quarters them, or expect reads from disk"
    return (smallest,), [told]


def _memory(spec: IndexSpec, total: int, dim: int) -> float:
    definite, _ = resolve(spec, total, dim)
    codes = 0.0 if definite.kind == "flat" else memory_bytes(definite, total, dim)
    return codes + total * dim * _VALUE_BYTES[spec.storage]


def _growth(kind: Kind, measured: int, total: int) -> float:
    """Return the factor by which a search takes longer among `total` vectors than among those measured.

    Scans grow with the number, lists with its root (as their number and length do), graphs with its logarithm.
    """
    ratio = max(1.0, total / measured)
    family = family_of(kind)
    if family == "graph":
        return 1 + math.log(ratio) / math.log(max(3, measured))
    return ratio if family == "exact" else math.sqrt(ratio)
