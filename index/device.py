"""The device that an index is searched on: its name, whether it is there, and the one thread that drives it.

faiss's GPU resources must not be used by two threads at once, and a busy card answers no sooner when several ask: all
work on a device is done by one thread, callers wait for their turn.
"""

import os
import re
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from queue import SimpleQueue
from typing import TypeVar

from index.errors import ConfigError

_DEVICE = re.compile(r"cpu|cuda(?::(0|[1-9]\d{0,2}))?")

_Result = TypeVar("_Result")


def canonical(device: str) -> str:
    """Return "cpu" or "cuda:N"; "cuda" is the first card. Raises ConfigError on anything else."""
    match = _DEVICE.fullmatch(device)
    if match is None:
        raise ConfigError(f"device is {device!r}; allowed: 'cpu', 'cuda', 'cuda:N' with N from 0")
    return "cuda:0" if device == "cuda" else device


def ordinal(device: str) -> int:
    """Return N of the CUDA device "cuda:N"."""
    return int(canonical(device).removeprefix("cuda:"))


def absence(device: str) -> str | None:
    """Return why a device cannot be used, None where it can. Cost: imports torch for CUDA devices."""
    if canonical(device) == "cpu":
        return None
    import torch  # noqa: PLC0415  heavy

    if not torch.cuda.is_available():
        return f"{device} is absent: torch {torch.__version__} finds no CUDA device"
    if ordinal(device) >= torch.cuda.device_count():
        return f"{device} is absent: torch finds {torch.cuda.device_count()} CUDA device(s)"
    return None


def free_bytes(device: str) -> int:
    """Return the unused memory of a device in bytes: of a card, as its driver and torch's allocator see it."""
    if canonical(device) == "cpu":
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES")
    import torch  # noqa: PLC0415  heavy

    cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return int(torch.cuda.mem_get_info(device)[0] + cached)


def on_device(device: str, call: Callable[[], _Result]) -> _Result:
    """Run `call` on the device's own thread and return what it returns, or raise what it raises.

    Calls take turns in the order they came. `call` must not itself use `on_device`: it would wait for itself.
    """
    worker = _worker(device)
    return worker.pool.submit(_turn, worker.leftovers, call).result()


def before_next_turn(device: str, call: Callable[[], object]) -> None:
    """Have `call`, which raises nothing, run on the device's own thread before the next call of `on_device`.

    For finalizers: safe wherever the garbage collector may run, for it takes no lock that interrupted code may hold.
    """
    _worker(device).leftovers.put(call)


@dataclass(frozen=True, slots=True)
class _Worker:
    pool: ThreadPoolExecutor
    leftovers: "SimpleQueue[Callable[[], object]]"


_workers: dict[str, _Worker] = {}
_workers_lock = threading.RLock()  # not Lock: the garbage collector may run while its thread holds it


def _worker(device: str) -> _Worker:
    name = canonical(device)
    with _workers_lock:
        if name not in _workers:
            pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix=f"grapnel-{name}")
            _workers[name] = _Worker(pool, SimpleQueue())
        return _workers[name]


def _turn(leftovers: "SimpleQueue[Callable[[], object]]", call: Callable[[], _Result]) -> _Result:
    while not leftovers.empty():
        leftovers.get()()
    return call()
