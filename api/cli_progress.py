"""How long work shows itself: a bar per stage on a terminal; elsewhere a line now and then, so that logs stay short."""

import time

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

LINE_EVERY_S = 5.0
_WORTH_A_LINE_S = 1.0
"""A stage that ends sooner leaves no line in a log."""

FINISH = "finish"
"""Name of the time between the last report and the end: checksums, fsync, publishing."""


class Stages:
    """A retrieval.progress.Progress that shows where the work is and keeps the seconds of each stage.

    Time between two reports belongs to the stage of the later one, so the stages add up to the whole.
    """

    def __init__(self, console: Console) -> None:
        self.seconds: dict[str, float] = {}
        self.done = 0
        self._last = time.perf_counter()
        self._stage = ""
        self._view: _Bars | _Lines = _Bars(console) if console.is_terminal else _Lines(console)

    def __call__(self, stage: str, done: int, total: int | None) -> None:
        """Show that `done` of `total` (None: nobody knows) are through `stage`."""
        self._spend(stage)
        if stage != self._stage:
            self._view.end()
            self._stage = stage
        self.done = done
        self._view.show(stage, done, total, self.seconds[stage])

    def close(self, *, done: bool = True) -> None:
        """Account for the rest and leave the screen as it is. done: False where the present stage has failed."""
        if self.seconds:
            self._spend(FINISH)
        self._view.close(done=done)

    def _spend(self, stage: str) -> None:
        now = time.perf_counter()
        self.seconds[stage] = self.seconds.get(stage, 0.0) + now - self._last
        self._last = now


class _Bars:
    """Progress bars of rich, one task a stage."""

    def __init__(self, console: Console) -> None:
        self._progress = Progress(
            TextColumn("{task.description:<16}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=console,
        )
        self._tasks: dict[str, TaskID] = {}
        self._current: tuple[TaskID, int] | None = None

    def show(self, stage: str, done: int, total: int | None, _seconds: float) -> None:
        if not self._tasks:
            self._progress.start()
        if stage not in self._tasks:
            self._tasks[stage] = self._progress.add_task(stage, total=total)
        task = self._tasks[stage]
        self._progress.update(task, completed=done, total=None if total is None else max(total, done))
        self._current = (task, done)

    def end(self) -> None:
        """Complete the bar of the present stage: totals are estimates."""
        if self._current is not None:
            task, done = self._current
            self._progress.update(task, completed=done, total=done)

    def close(self, *, done: bool) -> None:
        if done:
            self.end()
        self._progress.stop()


class _Lines:
    """Lines for logs: the state at most every few seconds, and the end of what took a while."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._shown = time.perf_counter()
        self._latest: tuple[str, int, int | None, float] | None = None

    def show(self, stage: str, done: int, total: int | None, seconds: float) -> None:
        self._latest = (stage, done, total, seconds)
        if time.perf_counter() - self._shown >= LINE_EVERY_S:
            self._print()

    def end(self) -> None:
        if self._latest is not None and self._latest[3] >= _WORTH_A_LINE_S:
            self._print()
        self._latest = None

    def _print(self) -> None:
        assert self._latest is not None, "both callers have just looked"
        stage, done, total, seconds = self._latest
        of_total = f" of {total:,}" if total is not None and total > done else ""
        self._console.print(Text(f"{stage}: {done:,}{of_total} in {seconds:.0f} s"), soft_wrap=True)
        self._shown = time.perf_counter()

    def close(self, *, done: bool) -> None:  # noqa: ARG002  a line says how far it came, and claims no end
        self.end()
