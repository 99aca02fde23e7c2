"""Devices by name, their one thread, and an index that falls back to the CPU's: real indexes, some of which fail."""

import gc
import logging
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from index import device_index
from index.device import absence, before_next_turn, canonical, free_bytes, on_device, ordinal
from index.device_index import DeviceIndex
from index.errors import ConfigError, ShapeError
from index.flat import FlatIndex
from index.metric import Metric
from index.types import Bitmap, Effort, Neighbors, Vectors
from index.vector_file import VectorFile, write_vectors

OUT_OF_MEMORY = "CUDA out of memory. Tried to allocate 2.00 GiB.\nGPU 0 has a total capacity of 1 GiB."


class Failing(FlatIndex):
    """A real index whose device fails when told to."""

    error: Exception | None = None
    searches = 0

    def search(
        self, queries: Vectors, k: int, allowed: Bitmap | None = None, effort: Effort | None = None
    ) -> Neighbors:
        self.searches += 1
        if self.error is not None:
            raise self.error
        return super().search(queries, k, allowed, effort)


@pytest.fixture
def vectors(tmp_path: Path) -> VectorFile:
    values = np.random.default_rng(0).normal(size=(300, 8)).astype(np.float32)
    write_vectors(tmp_path, iter([values]), 8, 300)
    return VectorFile.open(tmp_path)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """The time that DeviceIndex sees, in seconds: clock.now."""
    clock = SimpleNamespace(now=1_000.0)
    clock.monotonic = lambda: clock.now
    monkeypatch.setattr(device_index, "time", clock)
    return clock


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


# -- names and threads ------------------------------------------------------------------------------------------------


def test_names_of_devices() -> None:
    assert [canonical(name) for name in ("cpu", "cuda", "cuda:0", "cuda:12")] == ["cpu", "cuda:0", "cuda:0", "cuda:12"]
    assert (ordinal("cuda"), ordinal("cuda:3")) == (0, 3)
    for name in ("", "gpu", "cpu:0", "cuda:", "cuda:-1", "cuda:01", "CUDA", "cuda:1 ", "mps"):
        with pytest.raises(ConfigError, match=r"allowed: 'cpu', 'cuda', 'cuda:N'"):
            canonical(name)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_machine_without_a_card_says_so() -> None:
    assert absence("cpu") is None
    assert (absence("cuda:1") or "").startswith("cuda:1 is absent: torch")
    assert free_bytes("cpu") > 0


def test_calls_of_a_device_take_turns_on_one_thread() -> None:
    names, inside, most = set(), 0, 0

    def call(number: int) -> int:
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        names.add(threading.current_thread().name)
        inside -= 1
        return number * number

    with ThreadPoolExecutor(8) as pool:
        squares = list(pool.map(lambda number: on_device("cpu", lambda: call(number)), range(200)))
    assert squares == [number * number for number in range(200)]
    assert most == 1
    assert len(names) == 1
    assert names.pop().startswith("grapnel-cpu")


def test_an_error_reaches_its_caller_and_the_thread_lives_on() -> None:
    def fail() -> None:
        raise ValueError("mine")

    with pytest.raises(ValueError, match="mine"):
        on_device("cpu", fail)
    assert on_device("cpu", lambda: 1) == 1


def test_leftovers_go_before_the_next_turn_and_wait_for_nobody() -> None:
    order: list[str] = []
    on_device("cpu", lambda: before_next_turn("cpu", lambda: order.append(threading.current_thread().name[:11])))
    assert order == []
    on_device("cpu", lambda: order.append("turn"))
    assert order == ["grapnel-cpu", "turn"]


def test_finalizers_that_run_while_a_turn_is_asked_for_do_not_block_it() -> None:
    class Cycle:
        def __init__(self) -> None:
            self.itself = self
            weakref.finalize(self, before_next_turn, "cpu", lambda: None)

    usual = gc.get_threshold()
    gc.set_threshold(1)
    try:
        for number in range(300):
            Cycle()
            assert on_device("cpu", lambda: number) == number  # noqa: B023  called at once
    finally:
        gc.set_threshold(*usual)


# -- falling back -----------------------------------------------------------------------------------------------------


def expect_the_cpus(index: DeviceIndex, cpu: FlatIndex) -> None:
    queries = np.random.default_rng(1).normal(size=(5, 8)).astype(np.float32)
    for k in (1, 7):
        found, expected = index.search(queries, k), cpu.search(queries, k)
        np.testing.assert_array_equal(found.rows, expected.rows)
        np.testing.assert_array_equal(found.scores, expected.scores)


@pytest.mark.parametrize("metric", ["cosine", "ip", "l2"])
def test_a_device_that_works_is_used(vectors: VectorFile, metric: Metric, caplog: pytest.LogCaptureFixture) -> None:
    cpu, device = FlatIndex(vectors, metric), Failing(vectors, metric)
    index = DeviceIndex(cpu, lambda: device)
    assert (index.degraded, index.dim, len(index)) == (None, 8, 300)
    tested = device.searches
    assert tested > 0
    expect_the_cpus(index, cpu)
    assert device.searches == tested + 2
    np.testing.assert_array_equal(index.vectors(np.array([5])), vectors.rows(np.array([5])))
    assert not warnings(caplog)


def test_an_absent_device_is_not_tried(vectors: VectorFile, caplog: pytest.LogCaptureFixture) -> None:
    def never() -> FlatIndex:
        raise AssertionError("opened")

    cpu = FlatIndex(vectors, "ip")
    index = DeviceIndex(cpu, never, absence="cuda:0 is absent: none here")
    expect_the_cpus(index, cpu)
    assert index.degraded == "cuda:0 is absent: none here"
    assert warnings(caplog) == ["index is searched on the CPU: cuda:0 is absent: none here"]


@pytest.mark.parametrize("error", [torch.OutOfMemoryError(OUT_OF_MEMORY), MemoryError(), RuntimeError("driver\nx")])
def test_a_device_that_does_not_open(vectors: VectorFile, error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    def fail() -> FlatIndex:
        raise error

    cpu = FlatIndex(vectors, "ip")
    index = DeviceIndex(cpu, fail)
    for _ in range(3):
        expect_the_cpus(index, cpu)
    first = {torch.OutOfMemoryError: OUT_OF_MEMORY.splitlines()[0], MemoryError: "MemoryError", RuntimeError: "driver"}
    assert index.degraded == f"opening the index failed ({first[type(error)]})"
    assert len(warnings(caplog)) == 1


class Backwards(FlatIndex):
    """Finds the worst rows."""

    def search(
        self, queries: Vectors, k: int, allowed: Bitmap | None = None, effort: Effort | None = None
    ) -> Neighbors:
        found = super().search(-queries, k, allowed, effort)
        return Neighbors(-found.scores, found.rows)


def test_a_device_that_answers_wrong_fails_its_self_test(vectors: VectorFile) -> None:
    cpu = FlatIndex(vectors, "cosine")
    index = DeviceIndex(cpu, lambda: Backwards(vectors, "cosine"))
    assert index.degraded == "self-test failed: the device misses the best row of 64 of 64 stored vectors"
    expect_the_cpus(index, cpu)


def test_duplicates_pass_the_self_test(tmp_path: Path) -> None:
    (tmp_path / "same").mkdir()
    write_vectors(tmp_path / "same", iter([np.ones((20, 4), np.float32)]), 4, 20)
    same = FlatIndex(VectorFile.open(tmp_path / "same"), "l2")
    assert DeviceIndex(same, lambda: LastOfEqual(same)).degraded is None


class LastOfEqual(FlatIndex):
    """Answers with another of equally good rows."""

    def __init__(self, other: FlatIndex) -> None:
        super().__init__(other._vectors, "l2")

    def search(
        self, queries: Vectors, k: int, allowed: Bitmap | None = None, effort: Effort | None = None
    ) -> Neighbors:
        found = super().search(queries, k, allowed, effort)
        return Neighbors(found.scores, np.full_like(found.rows, 19))


def test_an_index_without_vectors_opens(tmp_path: Path) -> None:
    write_vectors(tmp_path, iter([]), 4, 0)
    empty = FlatIndex(VectorFile.open(tmp_path), "ip")
    assert DeviceIndex(empty, lambda: empty).degraded is None


@pytest.mark.parametrize("error", [torch.OutOfMemoryError(OUT_OF_MEMORY), MemoryError("no room")])
def test_a_failed_search_is_answered_by_the_cpu_and_the_device_tried_again(
    vectors: VectorFile, error: Exception, clock: SimpleNamespace, caplog: pytest.LogCaptureFixture
) -> None:
    cpu, device = FlatIndex(vectors, "ip"), Failing(vectors, "ip")
    index = DeviceIndex(cpu, lambda: device)
    device.error = error
    tried = device.searches
    pauses_s = (1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300)
    for pause_s in pauses_s:
        expect_the_cpus(index, cpu)  # two searches: the first tries the device
        tried += 1
        assert device.searches == tried
        assert (index.degraded or "").startswith("a search failed (")
        clock.now += pause_s - 0.01
        expect_the_cpus(index, cpu)
        assert device.searches == tried
        clock.now += 0.01
    device.error = None
    expect_the_cpus(index, cpu)
    assert device.searches == tried + 2
    assert index.degraded is None
    assert len(warnings(caplog)) == 1
    device.error = error
    expect_the_cpus(index, cpu)
    assert len(warnings(caplog)) == 2  # another incident, and its pause begins anew
    clock.now += 1
    device.error = None
    expect_the_cpus(index, cpu)
    assert index.degraded is None


def test_a_search_beside_the_failed_one_does_not_take_its_reason_back(vectors: VectorFile) -> None:
    cpu, device = FlatIndex(vectors, "ip"), Slow(vectors, "ip")
    index = DeviceIndex(cpu, lambda: device)
    queries = np.ones((1, 8), np.float32)
    with ThreadPoolExecutor(1) as pool:
        device.hold = threading.Event()
        beside = pool.submit(index.search, queries, 3)
        device.entered.wait()
        held, device.hold = device.hold, None
        device.error = RuntimeError("lost")
        index.search(queries, 3)
        assert index.degraded == "a search failed (lost)"
        held.set()
        np.testing.assert_array_equal(beside.result().rows, cpu.search(queries, 3).rows)
    assert index.degraded == "a search failed (lost)"


class Slow(Failing):
    """An index whose search waits, when told to, before it succeeds."""

    hold: threading.Event | None = None

    def __init__(self, vectors: VectorFile, metric: Metric) -> None:
        super().__init__(vectors, metric)
        self.entered = threading.Event()

    def search(
        self, queries: Vectors, k: int, allowed: Bitmap | None = None, effort: Effort | None = None
    ) -> Neighbors:
        found = super().search(queries, k, allowed, effort)
        if self.hold is not None:
            self.entered.set()
            self.hold.wait()
        return found


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda index: index.search(np.ones((1, 8), np.float32), 0), ValueError),
        (lambda index: index.search(np.ones((1, 9), np.float32), 1), ShapeError),
    ],
)
def test_a_callers_mistake_is_not_the_devices(
    vectors: VectorFile, call: Callable[[DeviceIndex], object], error: type[Exception]
) -> None:
    index = DeviceIndex(FlatIndex(vectors, "ip"), lambda: FlatIndex(vectors, "ip"))
    with pytest.raises(error):
        call(index)
    assert index.degraded is None


def test_a_device_index_that_failed_its_test_is_let_go(vectors: VectorFile) -> None:
    kept: list[weakref.ref[FlatIndex]] = []

    def wrong() -> FlatIndex:
        index = Backwards(vectors, "cosine")
        kept.append(weakref.ref(index))
        return index

    index = DeviceIndex(FlatIndex(vectors, "cosine"), wrong)
    gc.collect()
    assert index.degraded is not None
    assert kept[0]() is None
