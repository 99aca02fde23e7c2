"""Searches of one collection that share batches."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

from index.errors import ConfigError, IndexFormatError, OverloadedError, RequestError
from retrieval.batch_queue import too_late
from retrieval.batching import Batcher, BatcherStatistics, Lane, Limits
from retrieval.collection import Collection
from retrieval.pipeline_config import FusionConfig, PipelineConfig
from retrieval.types import Ranking, SearchRequest

BATCH = 64
"""Searches answered together, fewer where some ask for much: a small one should not wait for many large ones."""

_COST_ROWS = 400
"""Candidates that cost about as much as the rest of a search."""

_RETRY_AFTER_S = 1.0


@dataclass(frozen=True, slots=True)
class Item:
    """One search. config: another pipeline than the collection's own, checked; None = its own."""

    request: SearchRequest
    mode: str
    config: PipelineConfig | None = None


class Searches:
    """A collection's searches: those that arrive while it is busy form the next batch (see retrieval.batching).

    Each keeps its own filter, k and options; those of one mode that meet in a batch are answered from one consistent
    state (ADR 0006). queue: searches that may wait in each lane. Used from one event loop.
    """

    def __init__(self, collection: Collection, queue: int) -> None:
        self._queue = queue
        self._refused = self._expired = 0
        limits = Limits(batch_items=BATCH, batch_cost=BATCH * 4, queue_items=queue)
        self._batcher: Batcher[Item, Ranking | RequestError] = Batcher(
            partial(_answers, collection), cost=_cost, limits=limits
        )

    def admit(self) -> None:
        """Raise OverloadedError, and count it, where one more search would be refused: before more is done for it."""
        if self._batcher.statistics().queued["query"] >= self._queue:
            self._refused += 1
            raise OverloadedError("too many searches of this collection are waiting: try again", _RETRY_AFTER_S)

    async def answer(self, items: Sequence[Item], lane: Lane, deadline: float) -> list[Ranking | RequestError]:
        """Return the answers, in order; a search that cannot be answered as asked gets its error as its answer.

        deadline: a `time.monotonic()` reading. What no batch has taken until then raises DeadlineError there and then,
        however long the batch before it still takes; what has begun is waited for. Cancelled, it is never computed.
        Raises OverloadedError, and IndexFormatError where the collection's own configuration does not work.
        """
        future = self._batcher.submit(items, lane=lane, deadline=deadline)
        waiting = asyncio.wrap_future(future)
        try:
            await asyncio.wait((waiting,), timeout=max(0.0, deadline - time.monotonic()))
            if not waiting.done() and future.cancel():
                self._expired += 1
                raise too_late()
            return await waiting
        except ConfigError as error:  # a model that went missing, say: the server's fault and not the client's
            raise IndexFormatError(f"a collection cannot be searched as it is configured: {error}") from error
        finally:
            waiting.cancel()  # for a client that left; an answered future does not mind

    def statistics(self) -> BatcherStatistics:
        """Return what has been done so far and what waits."""
        found = self._batcher.statistics()
        return replace(found, rejected=found.rejected + self._refused, expired=found.expired + self._expired)

    def close(self, timeout_s: float) -> None:
        """Refuse new searches and answer those that wait; see `Batcher.close`."""
        self._batcher.close(timeout_s)


def _cost(item: Item) -> int:
    request = item.request
    rows = max(request.depth or 0, request.offset + request.k)
    return 1 + rows // _COST_ROWS


def _answers(collection: Collection, items: Sequence[Item]) -> list[Ranking | RequestError]:
    groups: dict[tuple[str, FusionConfig | None], list[int]] = {}
    for place, item in enumerate(items):
        fusion = None if item.config is None else item.config.fusion.get(item.mode)
        groups.setdefault((item.mode, fusion), []).append(place)
    answers: dict[int, Ranking | RequestError] = {}
    for (mode, _), places in groups.items():
        requests = [items[place].request for place in places]
        answers.update(
            zip(places, collection.answers(requests, mode=mode, config=items[places[0]].config), strict=True)
        )
    return [answers[place] for place in range(len(items))]
