"""Blocking calls off the event loop, on a bounded number of threads, with a bounded queue."""

import asyncio
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import TypeVar

from index.errors import OverloadedError, UnavailableError

T = TypeVar("T")

_RETRY_AFTER_S = 1.0


class Workers:
    """Runs calls on `threads` threads; `waiting` more may queue. what: named in messages, plural.

    Used from one event loop.
    """

    def __init__(self, what: str, threads: int, waiting: int) -> None:
        self._what = what
        self._most = threads + waiting
        self._pending = 0
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix=f"grapnel-{what}")

    @property
    def pending(self) -> int:
        """Calls that run or wait."""
        return self._pending

    async def run(self, call: Callable[[], T]) -> T:
        """Return what `call` returns. A cancelled caller's call is not begun; one that runs is left to end.

        Raises OverloadedError when the queue is full, UnavailableError once closed.
        """
        if self._pending >= self._most:
            raise OverloadedError(f"{self._pending} {self._what} are running or waiting: try again", _RETRY_AFTER_S)
        loop = asyncio.get_running_loop()
        try:
            future = self._executor.submit(call)
        except RuntimeError as error:
            raise UnavailableError("the server is stopping") from error
        self._pending += 1
        future.add_done_callback(lambda ended: self._ended(loop, ended))
        return await asyncio.wrap_future(future)

    def _ended(self, loop: asyncio.AbstractEventLoop, _: "Future[T]") -> None:
        with suppress(RuntimeError):  # the loop was closed meanwhile
            loop.call_soon_threadsafe(self._forget)

    def _forget(self) -> None:
        self._pending -= 1

    def close(self) -> None:
        """Let what runs end; what waits is cancelled."""
        self._executor.shutdown(wait=False, cancel_futures=True)
