import asyncio
import threading
from collections.abc import Callable, Iterator

import pytest

from api.workers import Workers
from index.errors import NotFoundError, OverloadedError, UnavailableError


@pytest.fixture
def workers() -> Iterator[Workers]:
    workers = Workers("reads", 2, 3)
    yield workers
    workers.close()


async def until_pending(workers: Workers, pending: int) -> None:
    async with asyncio.timeout(10.0):
        while workers.pending != pending:
            await asyncio.sleep(0.001)


async def test_calls_run_on_threads_and_answer_or_raise(workers: Workers) -> None:
    def fail() -> None:
        raise NotFoundError("none")

    name = await workers.run(lambda: threading.current_thread().name)
    assert name.startswith("grapnel-reads")
    with pytest.raises(NotFoundError, match="none"):
        await workers.run(fail)
    await until_pending(workers, 0)


async def test_more_than_threads_and_queue_hold_is_refused_and_room_comes_back(workers: Workers) -> None:
    gate = threading.Event()
    calls = [asyncio.ensure_future(workers.run(gate.wait)) for _ in range(5)]
    await until_pending(workers, 5)
    with pytest.raises(OverloadedError, match="5 reads") as refused:
        await workers.run(gate.wait)
    assert refused.value.retry_after_s > 0
    gate.set()
    assert await asyncio.gather(*calls) == [True] * 5
    await until_pending(workers, 0)
    assert await workers.run(lambda: 7) == 7


async def test_a_call_whose_caller_left_is_not_begun_and_frees_its_place(workers: Workers) -> None:
    gate, begun = threading.Event(), []
    busy = [asyncio.ensure_future(workers.run(gate.wait)) for _ in range(2)]
    await until_pending(workers, 2)
    waiting = asyncio.ensure_future(workers.run(lambda: begun.append(1)))
    await until_pending(workers, 3)
    waiting.cancel()
    await until_pending(workers, 2)
    running = busy.pop()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert workers.pending == 2, "what runs takes its place until it ends, whoever waits for it"
    gate.set()
    await until_pending(workers, 0)
    assert await busy[0] is True
    assert begun == []


async def test_after_closing_nothing_is_taken_and_nothing_is_counted(workers: Workers) -> None:
    gate = threading.Event()
    running = asyncio.ensure_future(workers.run(lambda: gate.wait(10.0)))
    await until_pending(workers, 1)
    workers.close()
    for _ in range(10):
        with pytest.raises(UnavailableError):
            await workers.run(lambda: 1)
    gate.set()
    assert await running is True, "what runs is left to end"
    await until_pending(workers, 0)


def test_a_call_may_end_after_its_event_loop(until: Callable[..., None]) -> None:
    workers, gate = Workers("writes", 1, 1), threading.Event()

    async def leave() -> None:
        call = asyncio.ensure_future(workers.run(lambda: gate.wait(10.0)))
        await until_pending(workers, 1)
        call.cancel()

    asyncio.run(leave())
    gate.set()
    workers.close()
    until(
        lambda: not any(thread.name.startswith("grapnel-writes") for thread in threading.enumerate()),
        "the end of every thread",
    )
