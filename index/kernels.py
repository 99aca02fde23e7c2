"""Compiled loops: how they are made, how many threads run them, and two instructions that numba does not offer."""

import itertools
import logging
import os
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, wait
from contextlib import suppress
from pickle import UnpicklingError
from typing import Any, TypeVar, cast

import numba
import numpy as np
import numpy.typing as npt
from numba.core import caching, types
from numba.extending import intrinsic

from index.threads import helpers
from index.threads import threads as threads_setting

log = logging.getLogger(__name__)

_FunctionCache: Any = caching.FunctionCache  # numba leaves it untyped
_Function = TypeVar("_Function", bound=Callable[..., Any])

_SPANS_PER_THREAD = 4
"""So that a thread whose beams were cheap takes over from one whose were not."""

_WORTH_A_THREAD = 200_000
"""Nanoseconds of work below which waking another thread costs more than it saves."""


def kernel(function: _Function) -> _Function:
    """Compile a loop over arrays at its first call, for the types of that call; it runs without the GIL.

    The machine code is kept beside the module, or where numba finds a place (NUMBA_CACHE_DIR names one); where there is
    none, each process compiles anew. A kernel may call kernels of its own module, `popcount` and `word_at` only: numba
    looks at no other file when it decides whether the code it kept is current.
    """
    compiled: Any = numba.njit(nogil=True, error_model="numpy")(function)
    try:
        compiled._cache = _KeptCode(function)
    except RuntimeError as error:  # numba's word for no folder that it may write to
        log.debug("%s", error)
    return cast(_Function, compiled)


class _KeptCode(_FunctionCache):  # type: ignore[misc]  # as above
    """Files of machine code that cannot be read or written cost a compilation, not the answer."""

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        try:
            kept = super().load_overload(sig, target_context)
            if kept is None or kept.signature.args == sig:
                return kept
            damage = f"{kept.signature} found for {sig}"  # two processes chose one name at the same time
        except (OSError, EOFError, UnpicklingError) as error:  # cut by a power loss: numba writes them without fsync
            damage = str(error)
        log.warning("compiling anew, %s is damaged: %s", self.cache_path, damage)
        with suppress(OSError):
            self.flush()
        return None

    def save_overload(self, sig: Any, data: Any) -> None:
        try:
            super().save_overload(sig, data)
        except OSError as error:
            log.warning("compiled code is not kept in %s: %s", self.cache_path, error)


def _popcount(_context: Any, word: Any) -> Any:
    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.ctpop(arguments[0])

    return types.uint64(word), generate


popcount: Any = intrinsic(_popcount)
"""Within kernels: the number of ones of a uint64, as uint64."""


def _word_at(_context: Any, octets: Any, _place: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        begin = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        word = builder.gep(begin, [arguments[1]])
        pointer = context.get_value_type(types.uint64).as_pointer()
        return builder.load(builder.bitcast(word, pointer), align=1)

    return types.uint64(octets, types.uint64), generate


word_at: Any = intrinsic(_word_at)
"""Within kernels: the 8 bytes of a uint8 array from a place on, which need not be aligned, as uint64; not checked."""


def usable_threads(asked: int | None = None) -> int:
    """Return how many threads a call may use: what is asked, else GRAPNEL_THREADS, else the cores of this process.

    Raises ValueError on less than 1.
    """
    if asked is not None and asked < 1:
        raise ValueError(f"threads is {asked}, expected at least 1")
    return asked or threads_setting() or len(os.sched_getaffinity(0))


def over_beams(work: Callable[[int, int], None], nanoseconds: npt.NDArray[np.int64], threads: int) -> None:
    """Call `work(first, last)` for spans that together cover all beams, in up to `threads` threads at a time.

    nanoseconds: int64 (B,), what each beam costs about; spans cost about the same. Each beam must write to places of
    its own: then the result does not depend on the threads. Cost: some 50 microseconds where more than one runs.
    """
    beams = len(nanoseconds)
    ends = np.cumsum(nanoseconds + 1)
    total = int(ends[-1]) if beams else 0
    threads = min(threads, 1 + total // _WORTH_A_THREAD, beams)
    if threads <= 1:
        work(0, beams)
        return
    shares = total * np.arange(1, threads * _SPANS_PER_THREAD) // (threads * _SPANS_PER_THREAD)
    cuts = np.unique([0, *np.searchsorted(ends, shares, side="right"), beams]).tolist()
    left = deque(itertools.pairwise(cuts))

    def take() -> None:
        while left:
            try:
                span = left.popleft()
            except IndexError:  # another took the last
                return
            work(*span)

    others: list[Future[None]] = []
    try:
        # The caller is one of the threads: it begins at once, and goes on alone where the others are busy, or where no
        # more can be started, as when the interpreter ends.
        with suppress(RuntimeError):
            others += (helpers().submit(take) for _ in range(threads - 1))
        take()
    finally:
        left.clear()  # what has not begun has nothing left to do
        others = [other for other in others if not other.cancel()]
        wait(others)
    for other in others:
        other.result()
