"""How compiled loops are run: every beam once, whatever the threads; ones are counted."""

import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from index.errors import ConfigError
from index.kernels import kernel, over_beams, popcount, usable_threads
from index.threads import end_helpers

TESTS = Path(__file__).parents[1]


@kernel
def ones(words: Any, counts: Any) -> None:
    for place in range(len(words)):
        counts[place] = popcount(words[place])


def test_ones_are_counted() -> None:
    words = np.array([0, 1, 3, 1 << 63, (1 << 64) - 1, 0x5555555555555555], np.uint64)
    counts = np.empty(6, np.int64)
    ones(words, counts)
    assert counts.tolist() == [0, 1, 2, 1, 64, 32]


@pytest.mark.parametrize("threads", [1, 2, 5, 100])
@pytest.mark.parametrize(
    "rows", [[], [7], [0, 0, 0], [10**6] * 9, [0, 10**9, 1, 2, 3], [10**6, 0, 0, 0, 0, 0, 10**6], list(range(50_000))]
)
def test_every_beam_is_worked_on_once(threads: int, rows: list[int]) -> None:
    seen = np.zeros(len(rows), np.int64)

    def work(first: int, last: int) -> None:
        seen[first:last] += 1

    over_beams(work, np.array(rows, np.int64), threads)
    assert (seen == 1).all()


def test_large_work_is_shared_and_small_is_not() -> None:
    names: set[int] = set()
    both = threading.Barrier(2)

    def together(_first: int, _last: int) -> None:
        both.wait(60)

    def alone(_first: int, _last: int) -> None:
        names.add(threading.get_ident())

    over_beams(together, np.full(8, 10**6), threads=2)  # eight spans: all end only if two threads meet
    over_beams(alone, np.full(8, 10), threads=2)
    assert names == {threading.get_ident()}


def test_what_fails_in_a_thread_is_raised() -> None:
    def fail(first: int, _last: int) -> None:
        if first:
            raise ValueError("half way")

    with pytest.raises(ValueError, match="half way"):
        over_beams(fail, np.full(8, 10**6), threads=2)


def test_what_fails_in_another_thread_alone_is_raised() -> None:
    caller, helped = threading.get_ident(), threading.Event()

    def fail(_first: int, _last: int) -> None:
        if threading.get_ident() != caller:
            helped.set()
            raise ValueError("not in the caller")
        assert helped.wait(60)

    with pytest.raises(ValueError, match="not in the caller"):
        over_beams(fail, np.full(8, 10**6), threads=2)


def test_after_a_failure_nothing_runs_any_more() -> None:
    caller, helped = threading.get_ident(), threading.Event()
    begun, ended = [], []

    def fail(first: int, _last: int) -> None:
        if threading.get_ident() == caller:
            assert helped.wait(60)
            raise ValueError("half way")
        begun.append(first)
        helped.set()
        time.sleep(0.2)  # long after the caller has failed
        ended.append(first)

    with pytest.raises(ValueError, match="half way"):
        over_beams(fail, np.full(8, 10**6), threads=2)
    assert ended == begun, "what writes to arrays of the call has ended"
    assert len(begun) < 7, "what has not begun does not begin"


def test_a_forked_child_has_threads_of_its_own() -> None:
    code = """
import os, sys, threading, warnings
import numpy as np
from index.kernels import over_beams

def meet():
    both = threading.Barrier(2)
    over_beams(lambda first, last: both.wait(30), np.full(8, 10**6), threads=2)

meet()
warnings.simplefilter("ignore")  # of forking beside threads, which is what is tried
child = os.fork()
if child == 0:
    meet()
    os._exit(0)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr


def test_helpers_that_were_let_go_end_and_others_come() -> None:
    def meet() -> None:
        both = threading.Barrier(2)

        def work(_first: int, _last: int) -> None:
            both.wait(30)

        over_beams(work, np.full(2, 10**6), threads=2)

    meet()
    first = [thread for thread in threading.enumerate() if thread.name.startswith("grapnel-kernels")]
    assert first
    end_helpers()
    for thread in first:
        thread.join(30)
        assert not thread.is_alive()
    meet()


def test_no_loop_leaves_its_arrays(tmp_path: Path) -> None:
    """Tests of the loops again, compiled so that a place out of bounds raises IndexError.

    And for any processor of this kind: some give what is meant where a shift by 64 bits is undefined, some do not.
    """
    names = ("oracle/test_index_substring", "oracle/test_index_best_extensions", "unit/test_index_wavelet_matrix")
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "--basetemp", tmp_path / "tests"]
    done = subprocess.run(
        [*command, "-k", "not five_million and not threads", *(TESTS / f"{name}.py" for name in names)],
        env={
            **os.environ,
            "NUMBA_BOUNDSCHECK": "1",
            "NUMBA_CPU_NAME": "generic",
            "NUMBA_CACHE_DIR": str(tmp_path / "loops"),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert list((tmp_path / "loops").rglob("*.nbc")), "they were compiled for this"


def test_work_goes_on_alone_where_no_thread_can_be_started() -> None:
    code = (
        "import atexit, numpy as np\n"
        "from index.kernels import over_beams\n"
        "seen = []\n"
        "def ask():\n"
        "    over_beams(lambda first, last: seen.extend(range(first, last)), np.full(9, 10**6), 2)\n"
        "    print(sorted(seen))\n"
        "atexit.register(ask)\n"  # when threads can no longer be started
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout.strip(), done.stderr) == (str(list(range(9))), "")


def test_usable_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GRAPNEL_THREADS", raising=False)
    assert usable_threads() == len(os.sched_getaffinity(0))
    assert usable_threads(3) == 3
    monkeypatch.setenv("GRAPNEL_THREADS", "2")
    assert usable_threads() == 2
    assert usable_threads(3) == 3
    monkeypatch.setenv("GRAPNEL_THREADS", "none")
    with pytest.raises(ConfigError):
        usable_threads()


CHILD = """
import resource, sys
import numpy as np
if sys.argv[1] == "full":
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
from index.suffix_sort import _keep_multiples
order = np.array([4, 3, 2, 6], sys.argv[2])
_keep_multiples(order, 2)
print(order[:3].tolist())
"""

LOCATOR = "UserProvidedCacheLocator"
"""numba's name for NUMBA_CACHE_DIR and no other place."""


def kept_by_a_child(cache: Path, disk: str = "", dtype: str = "int32") -> str:
    """Let another process use a compiled loop that is kept in `cache`; return what it says of that."""
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(cache), "NUMBA_CACHE_LOCATOR_CLASSES": LOCATOR}
    done = subprocess.run(
        [sys.executable, "-c", CHILD, disk, dtype], env=environment, capture_output=True, text=True, check=False
    )
    assert done.stdout == "[2, 1, 3]\n", done.stderr
    return done.stderr


def test_machine_code_that_cannot_be_kept_or_read_costs_a_compilation(tmp_path: Path) -> None:
    assert "is not kept" in kept_by_a_child(tmp_path, "full")
    assert kept_by_a_child(tmp_path) == ""
    kept = [path for path in tmp_path.rglob("*") if path.suffix in {".nbi", ".nbc"}]
    assert {path.suffix for path in kept} == {".nbi", ".nbc"}
    for path in kept:
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        assert "is damaged" in kept_by_a_child(tmp_path)
    kept_by_a_child(tmp_path, dtype="int64")
    first, second = sorted(tmp_path.rglob("*.nbc"))
    second.replace(first)
    assert "is damaged" in kept_by_a_child(tmp_path), "the code is for other types"
    assert kept_by_a_child(tmp_path) == "", "it was not written again"
    assert kept_by_a_child(Path("/proc/nowhere")) == ""
