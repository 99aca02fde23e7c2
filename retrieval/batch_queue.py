"""The queue and the worker thread behind retrieval.batching: who waits, what is run next, and who is told."""

import atexit
import os
import sys
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any, Generic, Literal, TypeAlias, TypeVar

from index.errors import ConfigError, DeadlineError, GrapnelError, OverloadedError

T = TypeVar("T")
R = TypeVar("R")

Lane: TypeAlias = Literal["query", "bulk"]
"""Who waits: "query" = someone, now; "bulk" = a build or an import. Bulk work runs only while no query waits."""

_LANES: tuple[Lane, ...] = ("query", "bulk")

_ISOLATED = (ArithmeticError, GrapnelError, LookupError, MemoryError, RuntimeError, TypeError, ValueError)
"""What one bad item, or a batch too large for the memory left, makes a model raise (torch's out-of-memory is a
RuntimeError). Anything else ends the worker thread, shows its traceback through `threading.excepthook`, and a new
worker goes on: either way the items of the batch are tried alone and only the bad one fails."""

_WORKER = "grapnel-batcher"
"""The name of every worker's thread."""

_EXIT_S = 5.0
"""How long an ending interpreter waits for the batch in the model: ending inside native code aborts the process."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of a batcher, each at least 1; ConfigError otherwise.

    batch_items, batch_cost: of one model call; an item that alone costs more still runs, alone.
    queue_items, queue_cost: what may wait in each lane; a request that is larger by itself enters an empty lane.
    The default queue only guards memory; a server that must answer in time sets one that it can work off in time.
    """

    batch_items: int = 1_024
    batch_cost: int = 4_096
    queue_items: int = 1 << 15
    queue_cost: int = 1 << 22

    def __post_init__(self) -> None:
        for name in ("batch_items", "batch_cost", "queue_items", "queue_cost"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}, expected at least 1")


@dataclass(frozen=True, slots=True)
class BatcherStatistics:
    """What a batcher has done since it was made (or since the fork that made this process), and what waits now.

    queued: items per lane; queued_cost: their cost. batches, items: model calls that succeeded and the items in them.
    failed: model calls that raised. busy_s: seconds inside the model. rejected: requests refused because the queue was
    full. expired: requests whose deadline passed first.
    """

    queued: Mapping[Lane, int]
    queued_cost: Mapping[Lane, int]
    batches: int
    items: int
    failed: int
    busy_s: float
    rejected: int
    expired: int

    @property
    def mean_batch_items(self) -> float:
        """Items per successful model call; 0 before the first."""
        return self.items / self.batches if self.batches else 0.0


def too_late() -> DeadlineError:
    """Return the error of a request whose deadline passed."""
    return DeadlineError("the deadline passed while the request waited for the model: allow more time, or send less")


def _closed() -> OverloadedError:
    return OverloadedError("the batcher is closed, it takes requests while its owner is open: send it again later", 1.0)


class Answer(Future[R]):
    """The future of a request."""

    def abandon(self) -> None:
        """Fail in a forked child. Whatever thread held the lock during the fork is not there to release it."""
        self._condition = threading.Condition()
        if not self.done():
            self.set_exception(
                RuntimeError("this process was forked while the request waited: only its parent gets the answer")
            )


class Request(Generic[R]):
    """Items that are answered together. All but `future` belongs to the core's lock."""

    __slots__ = ("answers", "begun", "deadline", "future", "lane", "missing", "open")

    def __init__(self, count: int, lane: Lane, deadline: float | None) -> None:
        self.future: Answer[list[R]] = Answer()
        self.answers: list[Any] = [None] * count
        self.missing = count
        self.lane = lane
        self.deadline = deadline
        self.begun = False
        self.open = True  # no outcome yet; turns False exactly once, so each future is told exactly once

    def begin(self) -> bool:
        """Return whether the request is still wanted; it cannot be cancelled from then on."""
        if self.open and not self.begun:
            self.begun = True
            self.open = self.future.set_running_or_notify_cancel()
        return self.open


class Entry(Generic[T, R]):
    """One item of a request. alone: it was in a batch that failed, and is tried by itself."""

    __slots__ = ("alone", "cost", "item", "place", "request")

    def __init__(self, request: Request[R], place: int, item: T, cost: int) -> None:
        self.request = request
        self.place = place
        self.item = item
        self.cost = cost
        self.alone = False


class Core(Generic[T, R]):
    """What the worker thread holds: the model and the queue, but not the batcher, whose end is the worker's end.

    Outcomes are decided under the lock and put into `_settled`; futures are told outside it, for their callbacks may
    do anything. A sleeping worker is woken through `_wake`, which never loses a token.
    """

    def __init__(self, run: Callable[[Sequence[T]], Sequence[R]], limits: Limits) -> None:
        self._run = run
        self._limits = limits
        self._closed = False
        self._start_afresh()
        _cores.add(self)

    def _start_afresh(self) -> None:
        self._lock = threading.Lock()
        self._wake: SimpleQueue[None] = SimpleQueue()
        self._asleep = False
        self._worker: threading.Thread | None = None
        self._lanes: dict[Lane, deque[Entry[T, R]]] = {lane: deque() for lane in _LANES}
        self._costs: dict[Lane, int] = dict.fromkeys(_LANES, 0)
        self._running: list[Entry[T, R]] = []
        self._settled: deque[tuple[Request[R], BaseException | None]] = deque()
        self._batches = self._items = self._failed = self._rejected = self._expired = 0
        self._busy_s = 0.0
        self._recent_s = self._recent_cost = 0.0  # decaying sums over about ten model calls

    # -- what callers do ----------------------------------------------------------------------------------------------

    def enqueue(self, entries: list[Entry[T, R]], lane: Lane) -> None:
        """Put the entries of one request into a lane. Raises OverloadedError."""
        cost = sum(entry.cost for entry in entries)
        with self._lock:
            if self._closed:
                raise _closed()
            self._check_room(len(entries), cost, lane)
            self._ensure_worker()
            self._lanes[lane].extend(entries)
            self._costs[lane] += cost
            if self._asleep:
                self._asleep = False
                self._wake.put(None)

    def _check_room(self, count: int, cost: int, lane: Lane) -> None:
        waiting = len(self._lanes[lane])
        fits = waiting + count <= self._limits.queue_items and self._costs[lane] + cost <= self._limits.queue_cost
        if waiting and not fits:
            self._rejected += 1
            retry_after_s = self._backlog_s(lane)
            raise OverloadedError(
                f"{waiting:,} items of cost {self._costs[lane]:,} wait for the model in lane {lane!r} and {count:,} of "
                f"cost {cost:,} came, at most {self._limits.queue_items:,} of cost {self._limits.queue_cost:,} may "
                f"wait: try again in {retry_after_s:.1f} s",
                retry_after_s,
            )

    def _backlog_s(self, lane: Lane) -> float:
        """Estimate the seconds until a lane is worked off, from the speed of recent model calls; 1 before the first."""
        ahead = self._costs["query"] + (self._costs["bulk"] if lane == "bulk" else 0)
        return max(0.1, ahead * self._recent_s / self._recent_cost) if self._recent_cost else 1.0

    def _ensure_worker(self) -> None:
        if self._worker is None:
            worker = threading.Thread(target=_work, args=(self,), name=_WORKER, daemon=True)
            self._asleep = False
            worker.start()
            self._worker = worker

    def retire(self) -> None:
        """Take nothing more; the worker ends when the lanes are empty. Takes no lock: garbage collection calls it."""
        self._closed = True
        self._wake.put(None)

    def join(self, end: float) -> None:
        """Wait for the worker to end, at most until `end` by time.monotonic()."""
        while (worker := self._worker) not in {None, threading.current_thread()}:
            assert worker is not None
            worker.join(max(0.0, end - time.monotonic()))
            if worker.is_alive():
                return

    def fail_queued(self) -> None:
        """Fail every request that has items waiting."""
        with self._lock:
            for lane in _LANES:
                for entry in self._lanes[lane]:
                    if entry.request.begin():
                        self._settle(entry.request, _closed())
                self._lanes[lane].clear()
                self._costs[lane] = 0
        self.tell()

    def statistics(self) -> BatcherStatistics:
        """See Batcher."""
        with self._lock:
            return BatcherStatistics(
                queued={lane: len(queue) for lane, queue in self._lanes.items()},
                queued_cost=dict(self._costs),
                batches=self._batches,
                items=self._items,
                failed=self._failed,
                busy_s=self._busy_s,
                rejected=self._rejected,
                expired=self._expired,
            )

    def after_fork(self) -> None:
        """Become usable in a forked child, where only the forking thread is left."""
        entries = [*self._running, *(entry for queue in self._lanes.values() for entry in queue)]
        requests = [entry.request for entry in entries] + [request for request, _ in self._settled]
        self._start_afresh()
        for request in requests:
            request.future.abandon()

    # -- what the worker does -----------------------------------------------------------------------------------------

    def step(self) -> bool:
        """Answer one batch, or sleep until something changes; return False when there will be no more."""
        with self._lock:
            self._running = self._take("query") or self._take("bulk")
            idle = not self._running and not self._settled
            if idle and self._closed:
                self._worker = None
                return False
            self._asleep = idle
        if idle:
            self._wake.get()
            return True
        self.tell()  # those that came too late
        if self._running:
            self._answer()
            self.tell()
        return True

    def _take(self, lane: Lane) -> list[Entry[T, R]]:
        """Remove a batch from the front of a lane, and with it what is cancelled, failed or too late."""
        queue = self._lanes[lane]
        batch: list[Entry[T, R]] = []
        cost = 0
        now = time.monotonic()
        while queue:
            entry = queue[0]
            full = len(batch) == self._limits.batch_items or cost + entry.cost > self._limits.batch_cost
            if batch and (full or entry.alone or batch[0].alone):
                break
            queue.popleft()
            self._costs[lane] -= entry.cost
            if self._wanted(entry.request, now):
                batch.append(entry)
                cost += entry.cost
        return batch

    def _wanted(self, request: Request[R], now: float) -> bool:
        if request.begin() and request.deadline is not None and request.deadline <= now:
            self._expired += 1
            self._settle(request, too_late())
        return request.open

    def _settle(self, request: Request[R], error: BaseException | None = None) -> None:
        request.open = False
        self._settled.append((request, error))

    def tell(self) -> None:
        """Tell the futures of settled requests."""
        while self._settled:
            try:
                request, error = self._settled.popleft()
            except IndexError:
                return  # another thread told the last one
            if error is None:
                request.future.set_result(request.answers)
            else:
                request.future.set_exception(error)
            del request, error  # an error's traceback knows this frame: no cycle through it

    def _answer(self) -> None:
        start = time.perf_counter()
        try:
            answers = self._run([entry.item for entry in self._running])
            _check_count(answers, self._running)
        except _ISOLATED as error:
            self.failed(error, time.perf_counter() - start)
        else:
            self._succeeded(answers, time.perf_counter() - start)

    def _succeeded(self, answers: Sequence[R], seconds: float) -> None:
        with self._lock:
            batch, self._running = self._running, []
            self._batches += 1
            self._items += len(batch)
            self._busy_s += seconds
            self._recent_s = 0.9 * self._recent_s + seconds
            self._recent_cost = 0.9 * self._recent_cost + sum(entry.cost for entry in batch)
            for entry, answer in zip(batch, answers, strict=True):
                request = entry.request
                request.answers[entry.place] = answer
                request.missing -= 1
                if request.open and not request.missing:
                    self._settle(request)

    def failed(self, error: BaseException, seconds: float = 0.0) -> None:
        """Fail the request of a batch's only item; put the items of a larger batch back, to be tried alone."""
        with self._lock:
            batch, self._running = self._running, []
            self._failed += 1
            self._busy_s += seconds
            if len(batch) == 1 and batch[0].request.open:
                self._settle(batch[0].request, error)
            if len(batch) > 1:
                for entry in reversed(batch):
                    entry.alone = True
                    self._lanes[entry.request.lane].appendleft(entry)
                    self._costs[entry.request.lane] += entry.cost
            batch.clear()  # see tell

    def worker_died(self, error: BaseException) -> None:
        """Blame the batch it was running, and let a new worker go on."""
        if self._running:
            self.failed(error if isinstance(error, Exception) else _ended_by(error))
        try:
            with self._lock:
                self._worker = None
                self._ensure_worker()
        except RuntimeError:  # no thread to be had
            self.fail_queued()


def _check_count(answers: Sequence[Any], items: Sequence[Any]) -> None:
    if len(answers) != len(items):
        raise ValueError(f"the model gave {len(answers)} answers, expected one for each of {len(items)} items")


def _ended_by(error: BaseException) -> RuntimeError:
    """Return what callers get in place of an exception that would end their own thread or process."""
    wrapped = RuntimeError(f"the model call was ended by {type(error).__name__}: see the cause")
    wrapped.__cause__ = error
    return wrapped


def _work(core: Core[Any, Any]) -> None:
    try:
        while core.step():
            pass
    finally:
        error = sys.exception()
        if error is not None:
            core.worker_died(error)


def _after_fork() -> None:
    for core in list(_cores):
        core.after_fork()


def _at_exit() -> None:
    end = time.monotonic() + _EXIT_S
    for core in list(_cores):
        core.retire()
        core.fail_queued()
    # The threads, not the cores: a worker whose batcher is gone frees the model as the last thing it does.
    for thread in threading.enumerate():
        if thread.name == _WORKER:
            thread.join(max(0.0, end - time.monotonic()))


_cores: "weakref.WeakSet[Core[Any, Any]]" = weakref.WeakSet()
os.register_at_fork(after_in_child=_after_fork)
atexit.register(_at_exit)
