"""What the speed benchmarks share: interleaved rounds of rivals, a process's memory, markdown tables."""

import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

ROUNDS = 5
_PACKAGES = ("faiss-cpu", "faiss-gpu", "hnswlib", "usearch", "onnxruntime", "openvino", "transformers")


def versions() -> dict[str, str]:
    """Versions of the packages that only the speed benchmarks need, of those that are installed."""
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def interleaved(
    calls: Mapping[str, Callable[[int], object]], count: int, rounds: int = ROUNDS, warm: int = 5
) -> dict[str, dict[str, float]]:
    """Time `call(0..count-1)` of every rival, one call at a time, in `rounds` rounds; milliseconds.

    Within a round the rivals take turns, and each round begins with another one, so that drift of a shared machine hits
    all alike. p50: median over the rounds of a round's median, p25 and p75: their quartiles over the rounds.
    p99: over all calls of all rounds. mean: total time by calls. worst: the slowest round's median.
    """
    names = list(calls)
    for name in names:
        for number in range(min(warm, count)):
            calls[name](number)
    spent = {name: np.empty((rounds, count)) for name in names}
    for turn in range(rounds):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            call, row = calls[name], spent[name][turn]
            for number in range(count):
                start = time.perf_counter()
                call(number)
                row[number] = 1000 * (time.perf_counter() - start)
    return {name: summary(values) for name, values in spent.items()}


def summary(values_ms: np.ndarray) -> dict[str, float]:
    """Figures of (rounds, calls) milliseconds, see `interleaved`."""
    medians = np.median(values_ms, axis=1)
    low, middle, high = np.percentile(medians, [25, 50, 75])
    return {
        "p25": float(low),
        "p50": float(middle),
        "p75": float(high),
        "p99": float(np.percentile(values_ms, 99)),
        "mean": float(values_ms.mean()),
        "worst": float(medians.max()),
        "runs": len(values_ms),
        "calls": values_ms.shape[1],
    }


def fitting(call: Callable[[int], object], limit: int, round_s: float, least: int = 10) -> int:
    """How many calls, at most `limit`, fill a round of `round_s` seconds; measured on three calls after a warm-up."""
    call(0)
    start = time.perf_counter()
    for number in range(3):
        call(number)
    one = max((time.perf_counter() - start) / 3, 1e-7)
    return int(max(min(least, limit), min(limit, round_s / one)))


def ratio(ours: Mapping[str, float], theirs: Mapping[str, float]) -> float:
    """Ratio of the medians: 1.03 = ours takes 3 % longer."""
    return ours["p50"] / theirs["p50"]


def memory() -> dict[str, int]:
    """Bytes of this process: resident now, its peak, and what of now is anonymous (not pages of mapped files)."""
    kilobytes = {}
    for line in Path("/proc/self/status").read_text().splitlines():
        name, _, value = line.partition(":")
        if name in {"VmRSS", "VmHWM", "RssAnon"}:
            kilobytes[name] = int(value.split()[0])
    return {
        "rss_bytes": 1024 * kilobytes["VmRSS"],
        "peak_rss_bytes": 1024 * kilobytes["VmHWM"],
        "anonymous_bytes": 1024 * kilobytes["RssAnon"],
    }


def table(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A markdown table: numbers to the right, text to the left."""
    cells = [[str(cell) for cell in row] for row in rows]
    numeric = [
        bool(cells) and all(row[place][:1].isdigit() or row[place][:1] in {"", "-", "+", "."} for row in cells)
        for place in range(len(header))
    ]
    lines = [header, ["--:" if right else ":--" for right in numeric], *cells]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def say(text: str) -> None:
    """Progress, apart from the tables on standard output."""
    print(f"[{time.strftime('%H:%M:%S')}] {text}", file=sys.stderr, flush=True)
