"""Concurrent model calls share batches: one worker thread owns a model, callers from any thread queue items for it.

There is no timer. While the model is busy, items queue; as soon as it is free, it takes the next batch. A lone caller
never waits for company, and the busier the model, the larger the batches.
"""

import time
import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Generic, TypeVar

from retrieval.batch_queue import BatcherStatistics, Core, Entry, Lane, Limits, Request, too_late

__all__ = ["Batcher", "BatcherStatistics", "Lane", "Limits", "wait_for"]

T = TypeVar("T")
R = TypeVar("R")


class Batcher(Generic[T, R]):
    """Answers items by batched calls of `run` on one worker thread.

    run: takes 1 or more items of one lane and returns one answer each, in order. It is called by one thread at a time,
    and must hold no reference to the batcher: then the worker ends when the batcher is garbage collected.
    cost: what an item adds to a batch, such as its estimated tokens, at least 1. Called in the submitting thread.

    Each lane is first in, first out; items of a request may spread over batches, the request is answered whole. When a
    batch raises, its items are tried again one by one, so that only the bad ones fail their requests. A request fails
    with what `run` raised for its item alone, or RuntimeError from an exception that is no Exception.
    Every future is answered in the end: with its answers, an error, or cancelled. The worker is a daemon thread,
    started by the first request. A forked child starts with an empty queue and a worker of its own; futures it
    inherits unanswered fail there with RuntimeError (locks inside the model are the model's affair).
    Cost: about 0.02 ms per request beside the model call, two thread switches included.
    """

    def __init__(
        self,
        run: Callable[[Sequence[T]], Sequence[R]],
        *,
        cost: Callable[[T], int] = lambda _: 1,
        limits: Limits | None = None,
    ) -> None:
        self._cost = cost
        self._core: Core[T, R] = Core(run, limits or Limits())
        weakref.finalize(self, self._core.retire).atexit = False  # what is queued is still answered; _at_exit stops

    def submit(self, items: Sequence[T], *, lane: Lane = "query", deadline: float | None = None) -> "Future[list[R]]":
        """Queue items; return the future of their answers, in order.

        deadline: a `time.monotonic()` reading; items that no model call took until then fail with DeadlineError.
        The future can be cancelled until a model call takes the first of the items; cancelled items are never run.
        Its callbacks run in the worker thread: they should be short (asyncio's `wrap_future` is).
        Raises OverloadedError when the lane is full or the batcher closed.
        """
        request: Request[R] = Request(len(items), lane, deadline)
        if items:
            self._core.enqueue([Entry(request, n, item, self._cost(item)) for n, item in enumerate(items)], lane)
        else:
            request.future.set_result([])
        return request.future

    def run(self, items: Sequence[T], *, lane: Lane = "query", deadline: float | None = None) -> list[R]:
        """Queue items and wait for their answers; see `submit`. Called by a model call, it would wait for itself."""
        return wait_for(self.submit(items, lane=lane, deadline=deadline), deadline)

    def statistics(self) -> BatcherStatistics:
        """Return counts since the start and what is queued now, as of one moment."""
        return self._core.statistics()

    def close(self, timeout_s: float = 30.0) -> None:
        """Refuse new requests, answer those that wait, and return once the worker has ended.

        After `timeout_s` seconds, those that still wait fail with OverloadedError; a model call that is under way is
        left to end and answers its own. Closing again is harmless.
        """
        self._core.retire()
        self._core.join(time.monotonic() + timeout_s)
        self._core.fail_queued()


def wait_for(future: "Future[R]", deadline: float | None) -> R:
    """Return the result of a future of `Batcher.submit` (give the same deadline), cancelling it when interrupted.

    Raises DeadlineError at the deadline, while the model is still busy with others. Work that began is waited for.
    """
    try:
        return future.result(None if deadline is None else max(0.0, deadline - time.monotonic()))
    except TimeoutError:
        if future.cancel():
            raise too_late() from None
        return future.result()
    finally:
        future.cancel()  # for who leaves by KeyboardInterrupt; an answered future does not mind
        del future  # the error raised knows this frame: no cycle through it
