"""From requests to rankings: candidates, fusion, grouping, diversity, text."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from index.errors import RequestError
from index.metric import prepare
from retrieval.collection_config import CollectionConfig
from retrieval.diversity import select_diverse
from retrieval.filters import parse_filter
from retrieval.pipeline_config import MAX_DEPTH, PipelineConfig
from retrieval.retrievers.dense import DenseStage
from retrieval.retrievers.fusion import Pool, fuse, single_pool
from retrieval.retrievers.lexical import LexicalStage
from retrieval.retrievers.stage import Ask, Context, Stage
from retrieval.store import StoreSnapshot
from retrieval.types import Hit, Query, Ranking, SearchRequest
from retrieval.view import View

MAX_K = 100_000


@dataclass(frozen=True, slots=True)
class _Ranked:
    """A pool in order: places into the pool's rows, best first, one per document when grouped."""

    pool: Pool
    order: npt.NDArray[np.int64]


class Pipeline:
    """Answers requests in one mode. Stateless: everything of a search lives in its Context."""

    def __init__(self, collection: CollectionConfig, config: PipelineConfig, mode: str) -> None:
        self.mode = mode
        self._config = config
        self._fusion = config.fusion.get(mode)
        names = self._fusion.parts if self._fusion else (mode,)
        dense = collection.dense_fields()
        self._stages: list[Stage] = [
            DenseStage(name, dense[name].metric) if name in dense else LexicalStage(name) for name in names
        ]
        self._external = {name for name, field in dense.items() if field.encoder.kind == "external"}
        self._similarity = next((DenseStage(name, field.metric) for name, field in dense.items()), None)

    @property
    def dense_names(self) -> list[str]:
        """Names of the dense fields this mode searches."""
        return [stage.name for stage in self._stages if isinstance(stage, DenseStage)]

    def answers(
        self, context: Context, snapshot: StoreSnapshot, requests: Sequence[SearchRequest]
    ) -> list[Ranking | RequestError]:
        """Answer each request, in order; one that cannot be answered as asked gets its error and delays no other."""
        asks = [self._try_ask(context, snapshot, request) for request in requests]
        good = [(request, ask) for request, ask in zip(requests, asks, strict=True) if isinstance(ask, Ask)]
        ranked = self._ranked(context, [ask for _, ask in good], [request for request, _ in good])
        rankings = (
            self._ranking(context, snapshot, request, ask, result)
            for (request, ask), result in zip(good, ranked, strict=True)
        )
        return [next(rankings) if isinstance(ask, Ask) else ask for ask in asks]

    def pools(self, context: Context, snapshot: StoreSnapshot, requests: Sequence[SearchRequest]) -> list[Pool]:
        """Return the unranked candidates of each request at its own depth: what tuning looks at.

        Raises RequestError when a request cannot be answered as asked.
        """
        return self._pools(context, [self._ask(context, snapshot, request) for request in requests])

    def _check_vectors(self, view: View, request: SearchRequest) -> None:
        """Raise RequestError unless the query has what every dense stage needs."""
        query = request.query
        for name, vector in query.vectors.items():
            index = view.base.dense.get(name)
            if index is None:
                known = ", ".join(view.base.dense) or "none"
                raise RequestError(f"query {query.id!r} brings a vector for {name!r}; dense fields: {known}")
            if np.shape(vector) != (index.dim,) or not np.isfinite(vector).all():
                raise RequestError(
                    f"query {query.id!r} brings a vector of shape {np.shape(vector)} for field {name!r}, expected "
                    f"{index.dim} finite numbers"
                )
        if request.like is not None:
            return
        for name in self.dense_names:
            if name in query.vectors:
                continue
            if name in self._external:
                raise RequestError(
                    f"query {query.id!r} brings no vector for field {name!r}, whose vectors clients bring: give one, "
                    "or choose a mode without this field"
                )
            if not query.text.strip():
                raise RequestError(f"query {query.id!r} has no text, and no vector for field {name!r}")

    def _try_ask(self, context: Context, snapshot: StoreSnapshot, request: SearchRequest) -> Ask | RequestError:
        try:
            return self._ask(context, snapshot, request)
        except RequestError as error:
            return error

    def _ask(self, context: Context, snapshot: StoreSnapshot, request: SearchRequest) -> Ask:
        check_request(request)
        self._check_vectors(context.view, request)
        if request.diversity and self._similarity is None:
            raise RequestError("diversity needs a dense field to compare passages with; this collection has none")
        view = context.view
        with context.timed("filter"):
            condition = None if request.filter is None else parse_filter(request.filter)
            allowed = view.allowed(condition, strict=request.strict_filter)
            excluded = frozenset(request.exclude) | ({request.like} if request.like is not None else frozenset())
            if excluded:
                allowed = allowed.without(snapshot.rows_of(excluded))
        query, like = request.query, None
        if request.like is not None:
            query, like = self._like(context, snapshot, request)
        wanted = self._config.depth if request.depth is None else request.depth
        depth = max(wanted, request.offset + request.k)
        return Ask(query, allowed, depth, request.effort, like)

    def _like(self, context: Context, snapshot: StoreSnapshot, request: SearchRequest) -> tuple[Query, str]:
        assert request.like is not None, "the caller checked"
        stored = snapshot.get(request.like)
        if stored is None:
            raise RequestError(f"no document {request.like!r} to start from: give the id of a stored document")
        rows = np.arange(stored.first_row, stored.first_row + len(stored.spans))
        vectors = {
            stage.name: stage.vectors(context, rows).mean(axis=0)
            for stage in self._stages
            if isinstance(stage, DenseStage)
        }
        document = stored.document
        text = f"{document.title}\n{document.text}" if document.title else document.text
        return Query(request.query.id, request.query.text, request.query.task, vectors), text

    def _ranked(self, context: Context, asks: list[Ask], requests: Sequence[SearchRequest]) -> list[_Ranked]:
        """Rank every ask; where grouping leaves too few documents, look deeper until there are enough or no more."""
        results: list[_Ranked | None] = [None] * len(asks)
        pending = list(range(len(asks)))
        while pending:
            pools = self._pools(context, [asks[place] for place in pending])
            again = []
            for place, pool in zip(pending, pools, strict=True):
                request, ask = requests[place], asks[place]
                with context.timed("rank"):
                    order = rank_pool(context.view, pool, pool.fused, request.group)
                results[place] = _Ranked(pool, order)
                if len(order) < request.offset + request.k and not pool.exhausted and ask.depth < MAX_DEPTH:
                    ask.depth *= 2
                    again.append(place)
            pending = again
        for ask, request in zip(asks, requests, strict=True):
            wanted = self._config.depth if request.depth is None else request.depth
            if ask.depth > wanted:
                ask.note(f"depth_raised={ask.depth}: offset + k needed more candidates than depth {wanted}")
        return [result for result in results if result is not None]

    def _pools(self, context: Context, asks: Sequence[Ask]) -> list[Pool]:
        found = [stage.candidates(context, asks) for stage in self._stages]
        if self._fusion is not None:
            return fuse(context, asks, self._stages, found, self._fusion)
        return [single_pool(self._stages[0], ask, candidates) for ask, candidates in zip(asks, found[0], strict=True)]

    def _ranking(
        self, context: Context, snapshot: StoreSnapshot, request: SearchRequest, ask: Ask, ranked: _Ranked
    ) -> Ranking:
        pool, order = ranked.pool, ranked.order
        if request.min_score is not None:
            order = order[pool.fused[order] >= request.min_score]
        if request.diversity:
            order = self._diverse(context, request, pool, order)
        order = order[request.offset : request.offset + request.k]
        with context.timed("text"):
            rows = pool.rows[order]
            passages = snapshot.passages([int(row) for row in rows])
        hits = []
        for place, row in zip(order, rows, strict=True):
            passage, metadata = passages[int(row)]
            score = float(pool.fused[place])
            hits.append(Hit(passage.doc_id, passage, score, self.mode, pool.evidence(int(place)), metadata))
        return Ranking(request.query.id, tuple(hits), tuple(ask.notes), context.timings_s)

    def _diverse(
        self, context: Context, request: SearchRequest, pool: Pool, order: npt.NDArray[np.int64]
    ) -> npt.NDArray[np.int64]:
        assert self._similarity is not None, "_ask checked"
        with context.timed("diversity"):
            vectors = prepare(self._similarity.vectors(context, pool.rows[order]), "cosine")
            chosen = select_diverse(pool.fused[order], vectors, request.offset + request.k, request.diversity or 0.0)
        return order[chosen]


def rank_pool(view: View, pool: Pool, fused: npt.NDArray[np.float64], group: str) -> npt.NDArray[np.int64]:
    """Return the places of a pool by (-fused, document id, row); when grouping, each document's best passage only."""
    numbers = view.documents(pool.rows)
    _, level, size = np.unique(-fused, return_inverse=True, return_counts=True)
    tied = np.flatnonzero(size[level] > 1)
    by_id = np.zeros(len(numbers), np.int64)
    if len(tied):  # ids are strings and slow to fetch: only ties need them
        unique, place = np.unique(numbers[tied], return_inverse=True)
        rank = np.empty(len(unique), np.int64)
        rank[np.argsort(np.array(view.doc_ids(unique), dtype=object), kind="stable")] = np.arange(len(unique))
        by_id[tied] = rank[place]
    order = np.lexsort((pool.rows, by_id, level))
    if group == "document":
        _, first = np.unique(numbers[order], return_index=True)
        order = order[np.sort(first)]
    return order


def check_request(request: SearchRequest) -> None:
    """Raise RequestError when an option is out of range or options contradict each other."""
    limits: Mapping[str, tuple[float | None, float, float]] = {
        "k": (request.k, 1, MAX_K),
        "offset": (request.offset, 0, MAX_K),
        "depth": (request.depth, 1, MAX_DEPTH),
        "diversity": (request.diversity, 0, 1),
    }
    for name, (value, low, high) in limits.items():
        whole = name == "diversity" or isinstance(value, int)
        if value is not None and not (whole and low <= value <= high):
            raise RequestError(f"{name} is {value}, expected {low} to {high}")
    if request.group not in {"document", "passage"}:
        raise RequestError(f"group is {request.group!r}, expected 'document' or 'passage'")
    if request.min_score is not None and math.isnan(request.min_score):
        raise RequestError("min_score is not a number")
    if request.like is None and not request.query.text.strip() and not request.query.vectors:
        raise RequestError("the query is empty: give a text, vectors, or a document to find similar ones to")
    try:
        request.query.text.encode()
    except UnicodeEncodeError as error:
        raise RequestError(
            f"the query holds a lone surrogate at character {error.start}: decode the input as UTF-8"
        ) from error
