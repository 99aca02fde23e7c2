"""A build of the substring index in a process of its own: prints one JSON line.

python tests/bench/substring_build.py FOLDER MODE TOKENS SYMBOLS
"""

import json
import resource
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from index.component import open_component
from index.substring import save_substring
from index.substring_spec import MODES, SubstringSpec

DOCUMENT_TOKENS = 131


def zipf_tokens(count: int, symbols: int) -> npt.NDArray[np.uint16]:
    """Return independent tokens, the r-th most frequent with probability proportional to 1 / r; seed 0."""
    rng = np.random.default_rng(0)
    cumulated = np.cumsum(1 / np.arange(1, symbols + 1))
    drawn = np.empty(count, np.uint16)
    for first in range(0, count, 1 << 18):
        part = drawn[first : first + (1 << 18)]
        part[:] = np.searchsorted(cumulated / cumulated[-1], rng.random(len(part)))
    return drawn


def documents(tokens: npt.NDArray[np.uint16]) -> Iterator[npt.NDArray[np.uint16]]:
    for first in range(0, len(tokens), DOCUMENT_TOKENS):
        yield tokens[first : first + DOCUMENT_TOKENS]


def main() -> None:
    folder, tokens, symbols = Path(sys.argv[1]), int(sys.argv[3]), int(sys.argv[4])
    mode = next(each for each in MODES if each == sys.argv[2])
    # Compiled, or read from where it is kept, before the clock starts.
    save_substring(folder.with_name("warm"), documents(zipf_tokens(10_000, symbols)), SubstringSpec(symbols, mode=mode))
    shutil.rmtree(folder.with_name("warm"))
    drawn = zipf_tokens(tokens, symbols)
    before = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    wall, cpu = time.perf_counter(), time.process_time()
    save_substring(folder, documents(drawn), SubstringSpec(symbols, mode=mode))
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    growth = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    size = open_component(folder, verify=False).size_bytes
    print(
        json.dumps(
            {
                "wall_s": wall,
                "cpu_s": cpu,
                "peak_growth_bytes_per_token": growth / tokens,
                "bytes_per_token": size / tokens,
                "bytes_per_code": size / (tokens + -(-tokens // DOCUMENT_TOKENS)),
            }
        )
    )


if __name__ == "__main__":
    main()
