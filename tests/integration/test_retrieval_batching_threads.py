"""Many threads, processes and the real model on one batcher."""

import os
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from hashlib import blake2b
from typing import Any

import numpy as np
import pytest

from index.errors import DeadlineError, OverloadedError
from retrieval.batching import Batcher, Lane, Limits
from retrieval.encoders import EncoderConfig, open_encoder
from retrieval.encoders.batched import BatchedEncoder, WindowedEncoder
from retrieval.field_vectors import Encoders
from retrieval.types import Query

PATIENCE_S = 60.0
"""Only a hanging test waits this long."""


def secret(item: tuple[str, int]) -> str:
    return blake2b(repr(item).encode(), digest_size=8).hexdigest()


def test_two_tenants_never_see_each_others_answers() -> None:
    """32 threads of 200 calls: some of one item, some of several, some refused by the model, in both lanes."""

    def model(items: Sequence[tuple[str, int]]) -> list[str]:
        if any(number % 50 == 49 for _, number in items):
            raise ValueError("forty-nine")
        return [secret(item) for item in items]

    batcher = Batcher(model, cost=lambda item: 1 + item[1] % 5, limits=Limits(batch_items=24, batch_cost=40))

    def hammer(place: int) -> tuple[int, int]:
        tenant = f"tenant {place % 2}"
        lane: Lane = "query" if place // 2 % 2 else "bulk"
        wrong = refused = 0
        for call in range(200):
            items = [(tenant, 1000 * place + call + n) for n in range(1 + call % 4)]
            try:
                wrong += batcher.run(items, lane=lane) != [secret(item) for item in items]
            except ValueError:
                refused += 1
                wrong += all(number % 50 != 49 for _, number in items)
            else:
                wrong += any(number % 50 == 49 for _, number in items)
        return wrong, refused

    with ThreadPoolExecutor(32) as pool:
        counts = list(pool.map(hammer, range(32)))
    assert sum(wrong for wrong, _ in counts) == 0
    expected = sum(any((call + n) % 50 == 49 for n in range(1 + call % 4)) for call in range(200))
    assert [refused for _, refused in counts] == [expected] * 32
    statistics = batcher.statistics()
    assert statistics.queued == statistics.queued_cost == {"query": 0, "bulk": 0}


Submitted = list[tuple[list[int], "Future[list[int]]"]]


def submit_at_random(batcher: Batcher[int, int], seed: int, submitted: Submitted) -> None:
    """Submit 400 requests; cancel some, let some be too late; put down those that were taken."""
    random = np.random.default_rng(seed)
    for _ in range(400):
        items = random.integers(0, 1000, random.integers(1, 8)).tolist()
        lane: Lane = "query" if random.random() < 0.5 else "bulk"
        deadline = time.monotonic() if random.random() < 0.1 else None
        try:
            future = batcher.submit(items, lane=lane, deadline=deadline)
        except OverloadedError:
            continue
        submitted.append((items, future))
        if random.random() < 0.2:
            future.cancel()


def test_no_future_is_lost_whatever_happens_at_once(until: Callable[..., None]) -> None:
    """Threads submit, cancel and set deadlines while the model refuses items and the batcher is closed."""

    def model(items: Sequence[int]) -> list[int]:
        if any(item % 13 == 5 for item in items):
            raise ValueError("five")
        return [item + 1 for item in items]

    batcher = Batcher(model, limits=Limits(batch_items=5, queue_items=200))
    submitted: list[Submitted] = [[] for _ in range(8)]
    with ThreadPoolExecutor(8) as pool:
        done = [pool.submit(submit_at_random, batcher, seed, submitted[seed]) for seed in range(8)]
        until(lambda: batcher.statistics().batches >= 50, "fifty batches")
        batcher.close(timeout_s=0.001)
    assert [future.exception() for future in done] == [None] * 8
    answered = 0
    for items, future in (pair for pairs in submitted for pair in pairs if not pair[1].cancelled()):
        error = future.exception(PATIENCE_S)
        if error is None:
            assert future.result() == [item + 1 for item in items]
            answered += 1
        elif isinstance(error, ValueError):
            assert any(item % 13 == 5 for item in items)
        else:
            assert isinstance(error, OverloadedError | DeadlineError)
    assert answered


def in_child(check: Callable[[], bool]) -> None:
    """Run a check in a forked child; fail where it is not true, raises or hangs."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            status = 0 if check() else 2
        finally:
            os._exit(status)
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            assert status == 0
            return
        time.sleep(0.005)
    os.kill(child, 9)
    os.waitpid(child, 0)
    pytest.fail("the child hangs")


def test_a_forked_child_gets_a_worker_of_its_own() -> None:
    gate, busy = threading.Event(), threading.Event()
    home = os.getpid()

    def model(items: Sequence[int]) -> list[tuple[int, int]]:
        if os.getpid() == home:
            busy.set()
            assert gate.wait(PATIENCE_S)
        return [(item, os.getpid()) for item in items]

    batcher = Batcher(model)
    running = batcher.submit([1])
    assert busy.wait(PATIENCE_S)
    waiting = batcher.submit([2])

    def check() -> bool:
        for inherited in (running, waiting):
            error = inherited.exception(PATIENCE_S)
            if not isinstance(error, RuntimeError) or "forked" not in str(error):
                return False
        fresh = batcher.statistics()
        if fresh.batches or any(fresh.queued.values()):
            return False
        return batcher.run([3, 4]) == [(3, os.getpid()), (4, os.getpid())]

    in_child(check)
    gate.set()
    assert running.result(PATIENCE_S) == [(1, home)]
    assert waiting.result(PATIENCE_S) == [(2, home)], "the parent does not mind"
    in_child(lambda: running.result(0) == [(1, home)] and batcher.run([5]) == [(5, os.getpid())])
    batcher.close()
    in_child(lambda: batcher.statistics().batches == 0)


def test_children_forked_in_the_middle_of_everything_do_not_hang() -> None:
    batcher: Batcher[int, int] = Batcher(lambda items: [item + 1 for item in items])
    stop = threading.Event()

    def hammer() -> None:
        while not stop.is_set():
            assert batcher.run([1]) == [2]

    threads = [threading.Thread(target=hammer) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(10):
            in_child(lambda: batcher.run([7], lane="bulk") == [8])
    finally:
        stop.set()
        for thread in threads:
            thread.join(PATIENCE_S)


EXIT = """
import sys, threading
from retrieval.batching import Batcher

def model(items):
    busy.set()
    failed.wait(60)
    print("computed", items, flush=True)
    return items

busy, failed = threading.Event(), threading.Event()
batcher = Batcher(model)
futures = [batcher.submit([0])]
busy.wait()
futures.append(batcher.submit([1]))
futures[0].add_done_callback(lambda future: print("told", future.result(), flush=True))
futures[1].add_done_callback(lambda future: print("failed", type(future.exception()).__name__, flush=True))
futures[1].add_done_callback(lambda future: failed.set())
ENDING
"""


@pytest.mark.parametrize("ending", ["sys.exit(3)", "del batcher; sys.exit(3)"])
def test_an_ending_interpreter_tells_every_future(ending: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(EXIT).replace("ENDING", ending)],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert (done.returncode, done.stderr) == (3, "")
    assert done.stdout.splitlines() == ["failed OverloadedError", "computed [0]", "told [0]"]


FREED = """
import time
from retrieval.batching import Batcher

class Model:
    def __call__(self, items):
        return items

    def __del__(self):
        time.sleep(0.5)
        print("freed", flush=True)

batcher = Batcher(Model())
batcher.run([0])
del batcher
time.sleep(0.1)
"""


def test_an_ending_interpreter_lets_a_worker_free_its_model() -> None:
    """Native code that wants the lock of an ending interpreter aborts the process: OpenVINO did, every other time."""
    done = subprocess.run(
        [sys.executable, "-c", FREED],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "freed\n", "")


@pytest.fixture(scope="module")
def minilm() -> WindowedEncoder:
    encoder = open_encoder(EncoderConfig(device="cpu", backend="torch"))
    assert isinstance(encoder, WindowedEncoder)
    return encoder


@pytest.mark.model
def test_the_real_model_gives_every_thread_its_own_vectors(minilm: WindowedEncoder) -> None:
    batched = BatchedEncoder(minilm, Limits(batch_cost=256))
    words = ["river", "stone", "glass", "window", "paper", "green", "orbit", "winter"]
    texts = [" ".join(words[n % 8 :] * (1 + n % 3)) + f" {n}" for n in range(24)] + ["word " * 400]
    queries = [Query(str(n), f"{words[n % 8]} {words[n // 8]}") for n in range(24)]
    expected = minilm.encode_texts(texts)
    asked = minilm.encode_queries(queries)
    got = np.empty_like(asked)
    bulk: list[Any] = []

    def ask(place: int) -> None:
        for row in range(place, 24, 6):
            got[row] = batched.encode_queries([queries[row]])[0]

    threads = [threading.Thread(target=ask, args=(place,)) for place in range(6)]
    threads += [threading.Thread(target=lambda: bulk.append(batched.encode_texts(texts))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
    np.testing.assert_allclose(got, asked, atol=1e-5)
    np.testing.assert_allclose(batched.encode_queries(queries), asked, atol=1e-5)
    for batch in bulk:
        np.testing.assert_allclose(batch.vectors, expected.vectors, atol=1e-5)
        assert batch.truncated == expected.truncated == 1
    assert len(bulk) == 2
    assert batched.statistics().failed == 0


@pytest.mark.model
def test_the_encoders_of_a_process_share_the_model() -> None:
    encoder = Encoders().get(EncoderConfig(device="cpu", backend="torch", batch_tokens=512))
    assert isinstance(encoder, BatchedEncoder)
    assert encoder.encode_queries([Query("q", "river")]).shape == (1, encoder.dim)
