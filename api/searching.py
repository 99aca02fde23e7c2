"""Searches of one collection that share batches."""

from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial

from index.errors import RequestError
from retrieval.batching import Batcher, BatcherStatistics, Lane, Limits
from retrieval.collection import Collection
from retrieval.pipeline_config import PipelineConfig
from retrieval.types import Ranking, SearchRequest

BATCH = 64
"""Searches answered together, fewer where some ask for much: a small one should not wait for many large ones."""

_COST_ROWS = 400
"""Candidates that cost about as much as the rest of a search."""


@dataclass(frozen=True, slots=True)
class Item:
    """One search. config: another pipeline than the collection's own, checked; None = its own."""

    request: SearchRequest
    mode: str
    config: PipelineConfig | None = None


class Searches:
    """A collection's searches: those that arrive while it is busy form the next batch (see retrieval.batching).

    Each keeps its own filter, k and options, and answers from the same consistent state as its batch (ADR 0006).
    queue: searches that may wait in each lane.
    """

    def __init__(self, collection: Collection, queue: int) -> None:
        self._queue = queue
        limits = Limits(batch_items=BATCH, batch_cost=BATCH * 4, queue_items=queue)
        self._batcher: Batcher[Item, Ranking | RequestError] = Batcher(
            partial(_answers, collection), cost=_cost, limits=limits
        )

    def submit(
        self, items: Sequence[Item], lane: Lane, deadline: float | None
    ) -> "Future[list[Ranking | RequestError]]":
        """Queue searches; see `Batcher.submit`. One that cannot be answered as asked gets its error as its answer."""
        return self._batcher.submit(items, lane=lane, deadline=deadline)

    @property
    def full(self) -> bool:
        """Whether one more search would be refused."""
        return self._batcher.statistics().queued["query"] >= self._queue

    def statistics(self) -> BatcherStatistics:
        """Return what has been done so far and what waits."""
        return self._batcher.statistics()

    def close(self, timeout_s: float) -> None:
        """Refuse new searches and answer those that wait; see `Batcher.close`."""
        self._batcher.close(timeout_s)


def _cost(item: Item) -> int:
    request = item.request
    rows = max(request.depth or 0, request.offset + request.k)
    return 1 + rows // _COST_ROWS


def _answers(collection: Collection, items: Sequence[Item]) -> list[Ranking | RequestError]:
    groups: dict[tuple[str, int], list[int]] = {}
    for place, item in enumerate(items):
        groups.setdefault((item.mode, id(item.config)), []).append(place)
    answers: dict[int, Ranking | RequestError] = {}
    for (mode, _), places in groups.items():
        requests = [items[place].request for place in places]
        answers.update(
            zip(places, collection.answers(requests, mode=mode, config=items[places[0]].config), strict=True)
        )
    return [answers[place] for place in range(len(items))]
