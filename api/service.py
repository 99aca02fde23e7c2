"""What every way in asks: HTTP routes, the dialects of other servers, MCP. Who asks comes first and is checked here.

Everything is asynchronous; blocking work runs on bounded threads, searches in shared batches (api.searching).
"""

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias, TypeVar

from api.documents import Documents
from api.jobs import Jobs
from api.keys import Keys, Principal, Scope
from api.models import Embedded, Models, Side, token_counts, tokenizer_of
from api.phrases import Phrases
from api.registry import Registry, Served, Waiting
from api.searching import Item
from api.server_config import ServerConfig
from api.upkeep import Upkeep
from api.workers import Workers
from index.errors import (
    ConfigError,
    DeadlineError,
    ForbiddenError,
    GrapnelError,
    NotFoundError,
    RequestError,
    UnavailableError,
)
from retrieval.batching import Lane
from retrieval.collection import Collection
from retrieval.context import Context, pack
from retrieval.field_vectors import Encoders
from retrieval.filters import parse_filter
from retrieval.pipeline import check_request
from retrieval.pipeline_config import FusionConfig, PipelineConfig, check_pipeline, resolve_mode
from retrieval.protocols import Candidate, Encoder, RerankResult
from retrieval.reranking import rerank_hits
from retrieval.types import Ranking, SearchRequest

log = logging.getLogger(__name__)

T = TypeVar("T")

FUSION = "fusion"
"""The mode of a search that says by itself how to fuse."""

_RERANK_DEPTH = 50
_OF_ALL = "fresh_not_covered"
"""The note that counts what an index does not cover, of all documents of a collection."""

_READ_THREADS = 8
_CHANGE_THREADS = 4
_MODEL_THREADS = 32
"""They wait for models, and the more of them wait, the larger the batches. On threads of their own: a slow model keeps
nobody from a document."""

_PHRASE_THREADS = 4
"""Each may hold every place of a phrase that the limits allow."""

_ON_LOOP_CHARACTERS = 50_000
"""Text of an answer that may be looked through on the event loop: that takes a few milliseconds."""


@dataclass(frozen=True, slots=True)
class RerankSpec:
    """Rerank the first `depth` hits by the reranker `model`; None = 50, or as many as the limits allow.

    timeout_s: after which the rest stays as it is, at the latest when the search's own time is over.
    """

    model: str
    depth: int | None = None
    timeout_s: float | None = None


@dataclass(frozen=True, slots=True)
class SearchSpec:
    """One search. fusion: how to fuse, in place of a mode.

    timeout_s: give up when it has not begun by then, and rerank no longer than that.
    """

    request: SearchRequest
    mode: str | None = None
    fusion: FusionConfig | None = None
    rerank: RerankSpec | None = None
    timeout_s: float | None = None


@dataclass(frozen=True, slots=True)
class ContextSpec:
    """Passages for generation. search: with group "passage". neighbours: taken along before and after each."""

    search: SearchSpec
    budget_tokens: int
    neighbours: int


@dataclass(frozen=True, slots=True)
class Answer:
    """What a search found, in which mode, and how long it took from asking to answer."""

    mode: str
    ranking: Ranking
    total_s: float


Observer: TypeAlias = Callable[[str, SearchSpec, Answer], None]
"""Sees each search that was answered, with its collection: for metrics, traces and logs."""


def _observe_nothing(_collection: str, _spec: SearchSpec, _answer: Answer) -> None:
    """Be an Observer that does nothing."""


def characters_of(answer: Answer | GrapnelError) -> int:
    """Return how much text an answer holds."""
    return 0 if isinstance(answer, GrapnelError) else sum(len(hit.passage.text) for hit in answer.ranking.hits)


class Service:
    """The collections under `root`, the models of `config`, and everything that can be asked of them.

    `start` opens and loads in the background; until `ready`, what needs a collection raises UnavailableError.
    observe: sees every search that is answered, on the event loop.
    """

    def __init__(self, root: Path, config: ServerConfig) -> None:
        self.config = config
        self.limits = config.limits
        self.keys = Keys(config.keys)
        self.encoders = Encoders()
        self.models = Models(config, self.encoders)
        self.jobs = Jobs()
        self.registry = Registry(root, self.encoders, Waiting(config.limits.queue, config.limits.writes))
        self.reads = Workers("reads", _READ_THREADS, config.limits.queue)
        self.changes = Workers("changes of collections", _CHANGE_THREADS, config.limits.writes)
        self.model_calls = Workers("model calls", _MODEL_THREADS, config.limits.queue)
        self.phrase_calls = Workers("phrase searches", _PHRASE_THREADS, config.limits.queue)
        self.observe: Observer = _observe_nothing
        self.documents = Documents(self)
        self.phrases = Phrases(self)
        self.upkeep = Upkeep(self)
        self._ready = threading.Event()
        self._failure: BaseException | None = None

    # -- life ---------------------------------------------------------------------------------------------------

    def start(self) -> threading.Thread:
        """Load models and open collections on a thread of their own; return it."""
        thread = threading.Thread(target=self._load, name="grapnel-start", daemon=True)
        thread.start()
        return thread

    def _load(self) -> None:
        try:
            self.models.load()
            self.registry.open_all()
        except BaseException as error:
            log.critical("the server cannot start", exc_info=error)
            self._failure = error
        else:
            self._ready.set()

    @property
    def ready(self) -> bool:
        """Whether models are loaded and collections open."""
        return self._ready.is_set()

    @property
    def failure(self) -> BaseException | None:
        """Why it will never be ready."""
        return self._failure

    def close(self, timeout_s: float) -> bool:
        """Answer what waits, close everything; return whether all work had ended by then."""
        deadline = time.monotonic() + timeout_s
        ended = self.jobs.join(deadline)
        for workers in (self.reads, self.changes, self.model_calls, self.phrase_calls):
            workers.close()
        self.registry.close(max(0.0, deadline - time.monotonic()))
        return ended

    # -- who and what -------------------------------------------------------------------------------------------

    def allowed(self, principal: Principal, scope: Scope, name: str) -> Served:
        """Return a collection for someone who may do `scope` with it.

        Raises NotFoundError where there is none, or none that this principal may know of, ForbiddenError.
        """
        self.check_ready()
        served = self.registry.get(name)
        if not any(principal.may(each, served.name) for each in ("read", "write", "metrics")):
            raise NotFoundError(f"no collection {name[:80]!r}")  # as if it were not there: names tell something, too
        if not principal.may(scope, served.name):
            raise ForbiddenError(f"this key has no {scope!r} scope for collection {served.name!r}")
        return served

    def check_ready(self) -> None:
        """Raise UnavailableError until models are loaded and collections open."""
        if self._failure is not None:
            raise UnavailableError("this server could not start; its log says why")
        if not self.ready:
            raise UnavailableError("models are being loaded and collections opened: try again")

    def check(self, principal: Principal, scope: Scope) -> None:
        """Raise ForbiddenError unless the principal has a scope at all."""
        if not principal.may(scope):
            raise ForbiddenError(f"this key has no {scope!r} scope")

    async def reading(
        self, principal: Principal, name: str, work: Callable[[Collection], T], workers: Workers | None = None
    ) -> T:
        """Run `work` on a collection that the principal may read, on a thread of `workers`, by default of `reads`."""
        served = self.allowed(principal, "read", name)
        return await (workers or self.reads).run(lambda: _with(served, work))

    async def writing(self, principal: Principal, name: str, work: Callable[[Collection], T]) -> T:
        """Run `work` on a collection that the principal may write to, on a worker thread."""
        served = self.allowed(principal, "write", name)
        served.check_writable()
        return await served.writes.run(lambda: _with(served, work))

    def admit(self, principal: Principal, name: str) -> None:
        """Raise OverloadedError where one more search of a collection would be refused.

        Who may not search it, or names none, is told so by the search: before that, this tells nothing.
        """
        try:
            searches = self.allowed(principal, "read", name).searches
        except (ForbiddenError, NotFoundError, UnavailableError):
            return
        if searches is not None:
            searches.admit()

    def readable(self, principal: Principal) -> list[str]:
        """Return the collections that a principal may read."""
        self.check_ready()
        return [served.name for served in self.registry.all() if principal.may("read", served.name)]

    async def made(self, characters: int, make: Callable[[], T]) -> T:
        """Return what `make` makes of `characters` of text: on a thread if they are many, or nobody would be served.

        Raises OverloadedError.
        """
        return make() if characters <= _ON_LOOP_CHARACTERS else await self.reads.run(make)

    # -- search -------------------------------------------------------------------------------------------------

    async def search(self, principal: Principal, name: str, specs: Sequence[SearchSpec]) -> list[Answer | GrapnelError]:
        """Answer searches of one collection; one that cannot be answered as asked, or not reranked, gets its error.

        They have the shortest of their times in common. Raises what concerns them all: NotFoundError, ForbiddenError,
        OverloadedError, DeadlineError.
        """
        begin = time.monotonic()
        served = self.allowed(principal, "read", name)
        with served.using() as collection:
            prepared = [await self._prepared(principal, collection, served, spec) for spec in specs]
            items = [item for item in prepared if isinstance(item, Item)]
            assert served.searches is not None, "what can be used can be searched"
            deadline = begin + min((spec.timeout_s or self.limits.timeout_s for spec in specs), default=0.0)
            lane: Lane = "query" if len(specs) == 1 else "bulk"
            found = iter(await served.searches.answer(items, lane, deadline))
        rankings = [next(found) if isinstance(item, Item) else item for item in prepared]

        async def finished(
            spec: SearchSpec, item: Item | RequestError, ranking: Ranking | RequestError
        ) -> Answer | GrapnelError:
            if isinstance(item, RequestError):
                return item
            if isinstance(ranking, RequestError):
                return ranking
            if spec.rerank is not None:
                until = begin + (spec.timeout_s or self.limits.timeout_s)
                try:
                    ranking = await self._reranked(spec.rerank, spec.request, ranking, until)
                except GrapnelError as error:  # of this one alone: its neighbours have their answers
                    return error
            answer = Answer(item.mode, _told(principal, ranking), time.monotonic() - begin)
            self.observe(served.name, spec, answer)
            return answer

        if len(specs) == 1:
            return [await finished(specs[0], prepared[0], rankings[0])]
        return list(await asyncio.gather(*map(finished, specs, prepared, rankings)))

    async def search_one(self, principal: Principal, name: str, spec: SearchSpec) -> Answer:
        """Answer one search; see `search`. Raises RequestError where it cannot be answered as asked."""
        (answer,) = await self.search(principal, name, [spec])
        if isinstance(answer, GrapnelError):
            raise answer
        return answer

    async def context(self, principal: Principal, name: str, spec: ContextSpec) -> tuple[Context, str]:
        """Search and pack what is found; return the context and what its tokens are counted by.

        Raises as `search_one`.
        """
        answer = await self.search_one(principal, name, spec.search)

        def work(collection: Collection) -> tuple[Context, str]:
            ids = list(dict.fromkeys(hit.doc_id for hit in answer.ranking.hits))
            stored = zip(ids, collection.stored(ids), strict=True)
            # Looked at again: a document may have become another tenant's since it was found.
            found = {key: each for key, each in stored if each is not None and principal.owns(each.document)}
            encoder = self._counting(collection)
            packed = pack(
                answer.ranking,
                found,
                count=lambda texts: token_counts(encoder, texts),
                budget_tokens=spec.budget_tokens,
                neighbours=spec.neighbours,
            )
            return packed, tokenizer_of(encoder)

        return await self.reading(principal, name, work)

    def _counting(self, collection: Collection) -> Encoder | None:
        """Return the encoder whose tokenizer counts a collection's tokens."""
        fields = collection.config.dense_fields().items()
        name = next((name for name, field in fields if field.encoder.kind == "sentence-transformers"), None)
        return None if name is None else collection.shard.vectors.encoder(name)

    async def _prepared(
        self, principal: Principal, collection: Collection, served: Served, spec: SearchSpec
    ) -> Item | RequestError:
        try:
            self._check_search(spec)
            request = spec.request
            condition = principal.restricted(request.filter)
            if condition is not None:
                parse_filter(condition)
            # What fields there are tells of documents: a key that sees only some is not told which.
            strict = request.strict_filter and principal.filter is None
            request = replace(request, filter=condition, strict_filter=strict)
            if request.like is not None and principal.filter is not None:
                await self._check_like(principal, served.name, request.like)
            if spec.rerank is not None:
                self.models.check_reranker(spec.rerank.model)
                request = replace(request, k=max(self._depth(spec.rerank), request.offset + request.k), offset=0)
            mode, config = _mode(collection, spec)
            return Item(request, mode, config)
        except (ConfigError, NotFoundError) as error:
            return RequestError(str(error))
        except RequestError as error:
            return error

    async def _check_like(self, principal: Principal, name: str, like: str) -> None:
        (stored,) = await self.reading(principal, name, lambda collection: collection.stored([like]))
        if stored is None or not principal.owns(stored.document):
            raise RequestError(f"no document {like!r} to start from: give the id of a stored document")

    def _check_search(self, spec: SearchSpec) -> None:
        request, limits = spec.request, self.limits
        check_request(request)
        rerank_depth = 0 if spec.rerank is None else self._depth(spec.rerank)
        most = {
            "k": (request.k, limits.k),
            "offset + k": (request.offset + request.k, limits.depth),
            "depth": (request.depth or 0, limits.depth),
            "rerank.depth": (rerank_depth, limits.k),
            "query characters": (len(request.query.text), limits.text_chars),
            "excluded ids": (len(request.exclude), limits.ids),
        }
        self.check_most(most)
        rerank_s = None if spec.rerank is None else spec.rerank.timeout_s
        self.check_times({"timeout": spec.timeout_s, "rerank.timeout": rerank_s})

    def check_most(self, asked: Mapping[str, tuple[int, int]]) -> None:
        """Raise RequestError on a number above what the server allows. asked: by name, the number and the most."""
        for what, (value, most) in asked.items():
            if value > most:
                raise RequestError(f"{what}: {value:,} asked for, this server allows {most:,}")

    def check_times(self, times: Mapping[str, float | None]) -> None:
        """Raise RequestError on a time that the server does not allow. times: seconds, by name."""
        for what, seconds in times.items():
            if seconds is not None and not 0 < seconds <= self.limits.timeout_s:
                allowed = f"more than 0 and at most {self.limits.timeout_s:g}"
                raise RequestError(f"{what} is {seconds:g} s, expected {allowed}")

    async def _reranked(self, spec: RerankSpec, request: SearchRequest, ranking: Ranking, until: float) -> Ranking:
        """Return a ranking in a better order. until: when the search must be answered, by `time.monotonic()`."""
        deadline = until if spec.timeout_s is None else min(until, time.monotonic() + spec.timeout_s)
        depth = self._depth(spec)
        return await self.model_calls.run(
            lambda: rerank_hits(
                self.models.reranker(spec.model), spec.model, request, ranking, depth=depth, deadline=deadline
            )
        )

    def _depth(self, spec: RerankSpec) -> int:
        return min(_RERANK_DEPTH, self.limits.k) if spec.depth is None else spec.depth

    # -- models -------------------------------------------------------------------------------------------------

    def check_texts(self, texts: Sequence[str]) -> None:
        """Raise RequestError on more or longer texts than the limits allow."""
        if len(texts) > self.limits.texts:
            raise RequestError(f"{len(texts):,} texts, this server takes {self.limits.texts:,} in one request")
        for place, text in enumerate(texts):
            if len(text) > self.limits.text_chars:
                raise RequestError(
                    f"text {place} has {len(text):,} characters, this server takes {self.limits.text_chars:,}"
                )
            try:
                text.encode()
            except UnicodeEncodeError as error:
                raise RequestError(f"text {place} holds a lone surrogate: send valid UTF-8 text") from error

    async def embed(self, principal: Principal, encoder: str, texts: Sequence[str], side: Side) -> Embedded:
        """Encode texts.

        Raises NotFoundError on an unknown encoder, RequestError beyond the limits, OverloadedError, DeadlineError.
        """
        self.check(principal, "read")
        self.check_ready()
        self.models.encoder_config(encoder)
        self.check_texts(texts)
        try:
            async with asyncio.timeout(self.limits.timeout_s):
                return await self.model_calls.run(lambda: self.models.embed(encoder, texts, side))
        except TimeoutError as error:
            raise DeadlineError("the time was over before all texts were encoded: send fewer, or come back") from error

    async def rerank(
        self, principal: Principal, reranker: str, query: str, candidates: Sequence[Candidate], top_k: int
    ) -> RerankResult:
        """Order candidates for a query. Raises NotFoundError on an unknown reranker, RequestError beyond the limits."""
        self.check(principal, "read")
        self.check_ready()
        self.models.check_reranker(reranker)
        self.check_texts([query, *(f"{title}{text}" for text, title in candidates)])
        deadline = time.monotonic() + self.limits.timeout_s
        return await self.model_calls.run(lambda: self.models.rerank(reranker, query, candidates, top_k, deadline))


def _with(served: Served, work: Callable[[Collection], T]) -> T:
    with served.using() as collection:
        return work(collection)


def _told(principal: Principal, ranking: Ranking) -> Ranking:
    """Return what a principal may know of a ranking: where it sees only some documents, no counts of all of them."""
    if principal.filter is None or not any(note.startswith(_OF_ALL) for note in ranking.notes):
        return ranking
    return replace(ranking, notes=tuple(_OF_ALL if note.startswith(_OF_ALL) else note for note in ranking.notes))


def _mode(collection: Collection, spec: SearchSpec) -> tuple[str, PipelineConfig | None]:
    if spec.fusion is None:
        return resolve_mode(collection.pipeline, collection.config, spec.mode), None
    if spec.mode is not None:
        raise RequestError("mode and fusion are both given: fusion takes the place of a mode")
    config = replace(collection.pipeline, fusion={FUSION: spec.fusion}, default=FUSION)
    return FUSION, check_pipeline(config, collection.config, "fusion")
