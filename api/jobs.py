"""Long work that a request starts and others watch: compactions, re-embedding, snapshots."""

import itertools
import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from index.errors import ConflictError, GrapnelError, NotFoundError
from retrieval.progress import Progress

log = logging.getLogger(__name__)

Kind: TypeAlias = Literal["compact", "reembed", "snapshot", "restore"]
State: TypeAlias = Literal["running", "done", "failed"]

KEPT = 100
"""Ended jobs that are remembered; nothing of a job outlives the process but its work."""


@dataclass(slots=True)
class Job:
    """One piece of work. done, total: of `stage`, total None while unknown.

    error: why it failed; where a GrapnelError did it, that is `cause`, and its text may name files of this machine.
    """

    id: str
    kind: Kind
    collection: str
    state: State = "running"
    stage: str = ""
    done: int = 0
    total: int | None = None
    result: Mapping[str, Any] | None = None
    error: str | None = None
    cause: GrapnelError | None = None
    _begin: float = field(default_factory=time.monotonic)
    _seconds: float | None = None

    @property
    def seconds(self) -> float:
        """How long it runs, or ran."""
        return time.monotonic() - self._begin if self._seconds is None else self._seconds

    def report(self, stage: str, done: int, total: int | None) -> None:
        """Take the progress of the work; see retrieval.progress."""
        self.stage, self.done, self.total = stage, done, total

    def succeed(self, result: Mapping[str, Any]) -> None:
        """Say that it ended, and with what."""
        self._seconds = self.seconds
        self.result, self.state = result, "done"  # the state last: who sees it sees all

    def fail(self, error: str, cause: GrapnelError | None = None) -> None:
        """Say that it failed."""
        self._seconds = self.seconds
        self.error, self.cause, self.state = error, cause, "failed"


class Jobs:
    """The jobs of a server, each on a thread of its own, at most one at a time for a collection. Thread-safe."""

    def __init__(self) -> None:
        self._jobs: dict[str, Job] = {}
        self._threads: dict[str, threading.Thread] = {}
        self._held: set[str] = set()
        self._ended: Counter[tuple[Kind, State]] = Counter()
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()

    def start(self, kind: Kind, collection: str, work: Callable[[Progress], Mapping[str, Any]]) -> Job:
        """Begin `work` and return its job. work: takes a Progress, returns the job's result.

        Raises ConflictError while another job of the collection runs, or while it is held.
        """
        with self._lock:
            self._check_idle(collection)
            job = Job(f"{kind}-{next(self._numbers)}", kind, collection)
            thread = threading.Thread(target=self._run, args=(job, work), name=f"grapnel-{job.id}", daemon=True)
            thread.start()  # before it is listed: where no thread is to be had, there is no job
            self._jobs[job.id], self._threads[job.id] = job, thread
            self._forget()
        return job

    @contextmanager
    def holding(self, collection: str) -> Iterator[None]:
        """Let no job of a collection begin inside the block. Raises ConflictError while one runs."""
        with self._lock:
            self._check_idle(collection)
            self._held.add(collection)
        try:
            yield
        finally:
            with self._lock:
                self._held.discard(collection)

    def _check_idle(self, collection: str) -> None:
        busy = self._running(collection)
        if busy is not None:
            raise ConflictError(f"{busy.kind} job {busy.id} of {collection!r} is running: wait until it has ended")
        if collection in self._held:
            raise ConflictError(f"{collection!r} is being deleted")

    def _run(self, job: Job, work: Callable[[Progress], Mapping[str, Any]]) -> None:
        try:
            job.succeed(work(job.report))
        except GrapnelError as error:
            log.warning("job %s of %s failed: %s", job.id, job.collection, error)
            job.fail(str(error), error)
        except BaseException:
            # A defect: its traceback belongs into the log and not into an answer.
            job.fail("internal error; the server's log has the traceback")
            raise
        finally:
            with self._lock:
                self._ended[job.kind, job.state] += 1
                del self._threads[job.id]

    def _forget(self) -> None:
        ended = [job.id for job in self._jobs.values() if job.state != "running"]
        for identity in ended[: max(0, len(ended) - KEPT)]:
            del self._jobs[identity]

    def _running(self, collection: str) -> Job | None:
        jobs = (job for job in self._jobs.values() if job.collection == collection and job.state == "running")
        return next(jobs, None)

    def running(self, collection: str) -> Job | None:
        """Return the job that a collection has now."""
        with self._lock:
            return self._running(collection)

    def get(self, identity: str) -> Job:
        """Return a job. Raises NotFoundError."""
        with self._lock:
            job = self._jobs.get(identity)
        if job is None:
            raise NotFoundError(f"no job {identity[:80]!r}: it never was, or ended long ago")
        return job

    def all(self) -> list[Job]:
        """Return all that are remembered, oldest first."""
        with self._lock:
            return list(self._jobs.values())

    def ended(self) -> Mapping[tuple[Kind, State], int]:
        """Return how many have ended since the start, by kind and state."""
        with self._lock:
            return dict(self._ended)

    def join(self, deadline: float) -> bool:
        """Wait for all to end, until `deadline` (a `time.monotonic()` reading); return whether they did."""
        with self._lock:
            threads = list(self._threads.values())
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        return not any(thread.is_alive() for thread in threads)
