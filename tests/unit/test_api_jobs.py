import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from api.jobs import KEPT, Job, Jobs
from index.errors import ConflictError, IndexFormatError, NotFoundError
from retrieval.progress import Progress


class Gate:
    """Work that reports a stage and then waits to be let through."""

    def __init__(self, result: Mapping[str, Any] | None = None) -> None:
        self._open = threading.Event()
        self.begun = threading.Event()
        self._result = {} if result is None else result

    def __call__(self, progress: Progress) -> Mapping[str, Any]:
        progress("halfway", 1, 2)
        self.begun.set()
        assert self._open.wait(10.0)
        return self._result

    def open(self) -> None:
        self._open.set()


def ended(jobs: Jobs, job: Job) -> Job:
    assert jobs.join(time.monotonic() + 10.0)
    return jobs.get(job.id)


def failing(error: BaseException) -> Callable[[Progress], Mapping[str, Any]]:
    def work(_: Progress) -> Mapping[str, Any]:
        raise error

    return work


def test_a_job_is_watched_and_ends_with_its_result() -> None:
    jobs, gate = Jobs(), Gate({"passages": 7})
    job = jobs.start("compact", "c", gate)
    assert gate.begun.wait(10.0)
    assert (job.state, job.stage, job.done, job.total) == ("running", "halfway", 1, 2)
    assert job.kind == "compact"
    assert jobs.running("c") is job
    assert jobs.running("other") is None
    assert jobs.all() == [job]
    assert not jobs.join(time.monotonic()), "it still runs"
    gate.open()
    assert ended(jobs, job) is job
    assert (job.state, job.result, job.error, job.cause) == ("done", {"passages": 7}, None, None)
    assert jobs.running("c") is None
    assert job.seconds == job.seconds > 0, "its clock stands"


def test_a_collection_has_one_job_at_a_time_and_others_have_theirs() -> None:
    jobs, first, second = Jobs(), Gate(), Gate()
    begun = [jobs.start("compact", "c", first), jobs.start("snapshot", "d", second)]
    for kind in ("compact", "snapshot"):
        with pytest.raises(ConflictError, match=begun[0].id):
            jobs.start(kind, "c", Gate())
    first.open()
    second.open()
    assert jobs.join(time.monotonic() + 10.0)
    again = jobs.start("compact", "c", lambda _: {"again": True})
    assert ended(jobs, again).result == {"again": True}
    assert len({job.id for job in [*begun, again]}) == 3


def test_a_failure_is_told_with_its_cause() -> None:
    jobs, error = Jobs(), IndexFormatError("/some/folder is damaged")
    job = ended(jobs, jobs.start("restore", "c", failing(error)))
    assert (job.state, job.result, job.error, job.cause) == ("failed", None, str(error), error)


def test_a_defect_shows_its_traceback_and_tells_clients_nothing_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    raised: list[BaseException | None] = []
    monkeypatch.setattr(threading, "excepthook", lambda about: raised.append(about.exc_value))
    jobs, error = Jobs(), KeyError("a secret of the code")
    job = ended(jobs, jobs.start("compact", "c", failing(error)))
    assert (job.state, job.cause) == ("failed", None)
    assert job.error is not None
    assert "secret" not in job.error
    assert raised == [error]
    assert ended(jobs, jobs.start("compact", "c", lambda _: {})).state == "done", "the collection is free again"


def test_long_ended_jobs_are_forgotten_and_running_ones_are_not(until: Callable[..., None]) -> None:
    jobs, gate = Jobs(), Gate()
    running = jobs.start("reembed", "slow", gate)
    started = []
    for number in range(KEPT + 5):
        started.append(jobs.start("compact", f"c{number}", lambda _: {}))
        until(lambda name=f"c{number}": jobs.running(name) is None, "a job's end")
    left = jobs.all()
    assert left[0] is running
    assert len(left) <= KEPT + 2
    assert left[-1] is started[-1]
    with pytest.raises(NotFoundError):
        jobs.get(started[0].id)
    with pytest.raises(NotFoundError):
        jobs.get("nothing")
    gate.open()
    assert ended(jobs, running).state == "done"


def test_no_job_begins_while_a_collection_is_held() -> None:
    jobs, gate = Jobs(), Gate()
    with jobs.holding("c"):
        with pytest.raises(ConflictError, match="being deleted"):
            jobs.start("compact", "c", Gate())
        with pytest.raises(ConflictError), jobs.holding("c"):
            pass
        other = jobs.start("compact", "other", lambda _: {})
    job = jobs.start("compact", "c", gate)
    with pytest.raises(ConflictError, match=job.id), jobs.holding("c"):
        pass
    gate.open()
    assert [ended(jobs, each).state for each in (job, other)] == ["done", "done"]
    assert jobs.ended() == {("compact", "done"): 2}


def test_without_a_thread_there_is_no_job(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    jobs = Jobs()
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        with pytest.raises(RuntimeError):
            jobs.start("compact", "c", lambda _: {})
    assert jobs.all() == []
    assert ended(jobs, jobs.start("compact", "c", lambda _: {})).state == "done"
