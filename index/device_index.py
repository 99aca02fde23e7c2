"""An index searched on a device, with the CPU's index behind it: the same answers whatever happens to the device."""

import logging
import threading
import time
from collections.abc import Callable

import numpy as np

from index.types import Bitmap, Effort, Neighbors, Rows, VectorIndex, Vectors

_log = logging.getLogger(__name__)

_FIRST_PAUSE_S = 1.0
_LONGEST_PAUSE_S = 300.0
"""How long the device rests after a failed search: doubled with every further failure, up to the longest."""

_SAMPLE = 64
"""Stored vectors that are searched on both when the index is opened."""

_AGREE = 0.95
"""Share of them whose best row must be as good on the device: an approximate index may miss one by rounding."""

_SAME_SCORE = 1e-5


class DeviceIndex:
    """Searches `open_on_device()` where it opens, passes a self-test and works, else `cpu`.

    cpu: the index as opened on the CPU. open_on_device: opens the same vectors on the device; RuntimeError and
    MemoryError (what torch and faiss raise about a device) mean that it cannot. absence: why it need not be tried.
    Not opened, or failed in the self-test: the CPU answers until the index is opened again. Failed in a search, out of
    memory say: the CPU answers that search and those of the next second; then one search tries the device again, with
    the pause doubling up to 5 minutes as long as it fails. Any number of threads may search.
    """

    def __init__(
        self, cpu: VectorIndex, open_on_device: Callable[[], VectorIndex], *, absence: str | None = None
    ) -> None:
        self._cpu = cpu
        self._device: VectorIndex | None = None
        self._degraded: str | None = None
        self._lock = threading.Lock()
        self._pause_s = _FIRST_PAUSE_S
        self._resume_at = 0.0
        try:
            if absence is None:
                opened = open_on_device()
                absence = _disagreement(cpu, opened)
                self._device = None if absence else opened
        except (RuntimeError, MemoryError) as error:
            absence = _reason("opening the index", error)
        if absence is not None:
            self._degraded = absence
            _log.warning("index is searched on the CPU: %s", absence)

    @property
    def dim(self) -> int:
        """Vector dimension D."""
        return self._cpu.dim

    @property
    def degraded(self) -> str | None:
        """See VectorIndex. After a failed search it stays until a later one has succeeded on the device."""
        return self._degraded

    def __len__(self) -> int:
        return len(self._cpu)

    def vectors(self, rows: Rows) -> Vectors:
        """Return the stored (prepared) vectors of `rows`, float32 (len(rows), D), read by the CPU."""
        return self._cpu.vectors(rows)

    def search(
        self, queries: Vectors, k: int, allowed: Bitmap | None = None, effort: Effort | None = None
    ) -> Neighbors:
        """Return the k best allowed rows per query; see the CPU's index. Raises only what that raises."""
        device = self._device
        if device is not None and self._may_try():
            tries_again = self._degraded is not None
            try:
                found = device.search(queries, k, allowed, effort)
            except (RuntimeError, MemoryError) as error:
                self._failed(_reason("a search", error), again=tries_again)
            else:
                if tries_again:
                    self._recovered()
                return found
        return self._cpu.search(queries, k, allowed, effort)

    def _may_try(self) -> bool:
        if self._degraded is None:
            return True
        with self._lock:
            now = time.monotonic()
            if now < self._resume_at:
                return False
            self._resume_at = now + self._pause_s  # one search tries, the others do not wait for how it goes
            return True

    def _failed(self, reason: str, *, again: bool) -> None:
        with self._lock:
            if self._degraded is None:
                _log.warning("index is searched on the CPU for now: %s", reason)
            self._pause_s = min(2 * self._pause_s, _LONGEST_PAUSE_S) if again else _FIRST_PAUSE_S
            self._degraded = reason
            self._resume_at = time.monotonic() + self._pause_s

    def _recovered(self) -> None:
        # Only by a search that began after the pause: one that ran beside the failed one would take back a reason
        # that the failed one's caller is about to read.
        with self._lock:
            if self._degraded is not None:
                _log.info("index is searched on its device again")
            self._degraded = None


def _reason(what: str, error: Exception) -> str:
    lines = str(error).splitlines() or [type(error).__name__]
    return f"{what} failed ({lines[0][:200]})"


def _disagreement(cpu: VectorIndex, device: VectorIndex) -> str | None:
    """Return what is wrong with the device's answers to a sample of stored vectors, None where nothing is."""
    if not len(cpu):
        return None
    rows = np.unique(np.linspace(0, len(cpu) - 1, _SAMPLE).astype(np.int64))
    queries = cpu.vectors(rows)
    expected, found = cpu.search(queries, 1), device.search(queries, 1)
    # By score, which is of the row returned and computed by the CPU for both: of equal vectors either will do.
    least = expected.scores - _SAME_SCORE * np.maximum(1, np.abs(expected.scores))
    same = (found.rows == expected.rows) | ((found.rows >= 0) & (found.scores >= least))
    if same.mean() >= _AGREE:
        return None
    return f"self-test failed: the device misses the best row of {int((~same).sum())} of {len(rows)} stored vectors"
