"""The batcher's rules, each shown with a model that waits until the test lets it go."""

import asyncio
import gc
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, Future
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from index.errors import ConfigError, DeadlineError, OverloadedError, RequestError
from retrieval.batching import Batcher, Limits, wait_for
from retrieval.encoders.batched import BatchedEncoder, WindowedEncoder
from retrieval.encoders.config import EncodedBatch, EncoderConfig
from retrieval.field_vectors import Encoders
from retrieval.types import Passage, Query

PATIENCE_S = 60.0
"""Only a hanging test waits this long."""


class Gated:
    """A model that doubles, writes down its batches, and computes only while its gate is open."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.busy = threading.Event()
        self.batches: list[list[Any]] = []

    def __call__(self, items: Sequence[Any]) -> list[Any]:
        self.batches.append(list(items))
        self.busy.set()
        assert self.gate.wait(PATIENCE_S)
        return [item * 2 for item in items]

    def occupy(self, batcher: Batcher[Any, Any]) -> "Future[list[Any]]":
        """Let the worker take one item, so that whatever is submitted next has to wait."""
        first = batcher.submit([0])
        assert self.busy.wait(PATIENCE_S)
        return first


def answer(future: "Future[Any]") -> Any:
    return future.result(PATIENCE_S)


def workers() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name == "grapnel-batcher"}


def check_ended(threads: set[threading.Thread]) -> None:
    assert threads
    for thread in threads:
        thread.join(PATIENCE_S)
        assert not thread.is_alive()


def test_answers_come_in_order_and_whole() -> None:
    batcher: Batcher[int, int] = Batcher(lambda items: [item * 2 for item in items], limits=Limits(batch_items=3))
    assert batcher.run(list(range(10))) == [2 * n for n in range(10)]
    assert batcher.run([]) == []
    statistics = batcher.statistics()
    assert (statistics.batches, statistics.items, statistics.mean_batch_items) == (4, 10, 2.5)
    assert statistics.queued == {"query": 0, "bulk": 0}


def test_no_thread_before_the_first_request() -> None:
    before = workers()
    batcher: Batcher[int, int] = Batcher(list)
    assert batcher.statistics().mean_batch_items == 0
    assert workers() <= before
    batcher.run([1])
    (worker,) = workers() - before
    assert worker.daemon
    batcher.close()
    check_ended({worker})


def test_what_waits_for_a_busy_model_becomes_one_batch() -> None:
    model = Gated()
    batcher = Batcher(model)
    first = model.occupy(batcher)
    rest = [batcher.submit([n, -n]) for n in range(1, 5)]
    assert batcher.statistics().queued == {"query": 8, "bulk": 0}
    model.gate.set()
    assert answer(first) == [0]
    assert [answer(future) for future in rest] == [[2 * n, -2 * n] for n in range(1, 5)]
    assert model.batches == [[0], [1, -1, 2, -2, 3, -3, 4, -4]]


def test_a_batch_stays_within_its_cost_and_a_larger_item_runs_alone() -> None:
    model = Gated()
    batcher = Batcher(model, cost=lambda item: max(1, item), limits=Limits(batch_cost=10))
    model.occupy(batcher)
    futures = [batcher.submit([4, 4]), batcher.submit([4, 25, 3, 3]), batcher.submit([4, 1])]
    assert batcher.statistics().queued_cost == {"query": 48, "bulk": 0}
    model.gate.set()
    assert [answer(future) for future in futures] == [[8, 8], [8, 50, 6, 6], [8, 2]]
    assert model.batches == [[0], [4, 4], [4], [25], [3, 3, 4], [1]]
    assert batcher.statistics().queued_cost == {"query": 0, "bulk": 0}


def test_queries_overtake_bulk_work_and_bulk_work_goes_on_after_them() -> None:
    model = Gated()
    batcher = Batcher(model, limits=Limits(batch_items=2))
    model.occupy(batcher)
    bulk = batcher.submit([10, 11, 12, 13], lane="bulk")
    late = [batcher.submit([n]) for n in (1, 2, 3)]
    model.gate.set()
    assert answer(bulk) == [20, 22, 24, 26]
    assert [answer(future) for future in late] == [[2], [4], [6]]
    assert model.batches == [[0], [1, 2], [3], [10, 11], [12, 13]], "lanes never mix"


def test_a_query_that_comes_between_two_pieces_of_bulk_work_is_next() -> None:
    batches: list[list[int]] = []
    futures: list[Future[list[int]]] = []

    def model(items: Sequence[int]) -> list[int]:
        batches.append(list(items))
        if items[0] == 10:
            futures.append(batcher.submit([1]))
        return list(items)

    batcher = Batcher(model, limits=Limits(batch_items=1))
    assert batcher.run([10, 11, 12], lane="bulk") == [10, 11, 12]
    assert answer(futures[0]) == [1]
    assert batches == [[10], [1], [11], [12]]


def test_a_full_lane_refuses_and_says_when_to_come_back() -> None:
    model = Gated()
    batcher = Batcher(model, cost=lambda item: max(1, item), limits=Limits(queue_items=3, queue_cost=100))
    first = model.occupy(batcher)
    waiting = [batcher.submit([1, 1])]
    with pytest.raises(
        OverloadedError, match=r"2 items of cost 2 wait .* 2 of cost 2 came, at most 3 .* try again"
    ) as hit:
        batcher.submit([1, 1])
    assert hit.value.retry_after_s == 1, "nothing is known yet about the model's speed"
    with pytest.raises(OverloadedError):
        batcher.submit([99])
    waiting += [batcher.submit([98]), batcher.submit([5, 6], lane="bulk")]
    model.gate.set()
    assert answer(first) == [0]
    assert [answer(future) for future in waiting] == [[2, 2], [196], [10, 12]]
    assert batcher.statistics().rejected == 2
    model.gate.clear()
    model.busy.clear()
    model.occupy(batcher)
    huge = batcher.submit([1] * 50)  # an empty lane takes what would never fit otherwise
    with pytest.raises(OverloadedError) as again:
        batcher.submit([1])
    assert 0 < again.value.retry_after_s < PATIENCE_S
    model.gate.set()
    assert answer(huge) == [2] * 50


def test_limits_are_checked() -> None:
    with pytest.raises(ConfigError, match="queue_cost is 0"):
        Limits(queue_cost=0)


def test_what_is_too_late_fails_without_running() -> None:
    model = Gated()
    batcher = Batcher(model)
    model.occupy(batcher)
    passed = time.monotonic()
    late = batcher.submit([1, 2], deadline=passed)
    fine = batcher.submit([3], deadline=passed + PATIENCE_S)
    with pytest.raises(DeadlineError, match="deadline passed"):
        batcher.run([4], deadline=passed)  # at once: the model is still busy
    model.gate.set()
    with pytest.raises(DeadlineError):
        answer(late)
    assert answer(fine) == [6]
    assert model.batches == [[0], [3]]
    assert batcher.statistics().expired == 1


def test_work_that_began_is_waited_for() -> None:
    model = Gated()
    batcher = Batcher(model)
    future = model.occupy(batcher)
    threading.Timer(0.05, model.gate.set).start()
    assert wait_for(future, time.monotonic()) == [0]


def test_cancelled_requests_are_never_run() -> None:
    model = Gated()
    batcher = Batcher(model)
    first = model.occupy(batcher)
    gone, stays = batcher.submit([1, 2]), batcher.submit([3])
    assert gone.cancel()
    assert not first.cancel(), "the model has it"
    model.gate.set()
    assert answer(stays) == [6]
    assert answer(first) == [0]
    with pytest.raises(CancelledError):
        answer(gone)
    assert model.batches == [[0], [3]]


def test_an_asyncio_task_waits_and_can_be_cancelled() -> None:
    model = Gated()
    batcher = Batcher(model)
    model.occupy(batcher)

    async def ask() -> None:
        gone = asyncio.wrap_future(batcher.submit([1]))
        stays = asyncio.wrap_future(batcher.submit([2]))
        gone.cancel()
        await asyncio.sleep(0)
        model.gate.set()
        assert await stays == [4]

    asyncio.run(ask())
    assert model.batches == [[0], [2]]


class OddError(ArithmeticError):
    """What a model may raise for one item."""


def picky(items: Sequence[int]) -> list[int]:
    for item in items:
        if item % 7 == 3:
            raise OddError(item)
    return [item * 2 for item in items]


@pytest.mark.parametrize(
    "error", [OddError, ValueError, RuntimeError, RequestError, TypeError, IndexError, MemoryError]
)
def test_only_the_bad_item_fails(error: type[Exception]) -> None:
    gate, busy, batches = threading.Event(), threading.Event(), list[list[int]]()

    def model(items: Sequence[int]) -> list[int]:
        batches.append(list(items))
        busy.set()
        assert gate.wait(PATIENCE_S)
        if 13 in items:
            raise error("item 13")
        return [item * 2 for item in items]

    batcher = Batcher(model)
    first = batcher.submit([0])
    assert busy.wait(PATIENCE_S)
    good, bad, also_good = batcher.submit([1, 2]), batcher.submit([12, 13, 14]), batcher.submit([4])
    gate.set()
    assert [answer(future) for future in (first, good, also_good)] == [[0], [2, 4], [8]]
    with pytest.raises(error, match="item 13"):
        answer(bad)
    assert batches == [[0], [1, 2, 12, 13, 14, 4], [1], [2], [12], [13], [4]], "14 belongs to a request that failed"
    statistics = batcher.statistics()
    assert (statistics.batches, statistics.failed) == (5, 2)


def test_queries_overtake_the_second_attempts_of_bulk_work() -> None:
    batches: list[list[int]] = []
    futures: list[Future[list[int]]] = []

    def model(items: Sequence[int]) -> list[int]:
        batches.append(list(items))
        if len(items) == 3:
            futures.append(batcher.submit([1]))
        if 11 in items:
            raise ValueError("eleven")
        return list(items)

    batcher = Batcher(model)
    with pytest.raises(ValueError, match="eleven"):
        batcher.run([10, 11, 12], lane="bulk")
    assert answer(futures[0]) == [1]
    assert batches == [[10, 11, 12], [1], [10], [11]]


def test_a_model_that_forgets_answers_is_found_out() -> None:
    batcher: Batcher[int, int] = Batcher(lambda items: items[1:])
    with pytest.raises(ValueError, match="0 answers, expected one for each of 1 items"):
        batcher.run([1])


class FatalError(BaseException):
    """Nothing that a batcher expects."""


@pytest.mark.parametrize(
    ("fatal", "seen"), [(FatalError, RuntimeError), (SystemExit, RuntimeError), (OSError, OSError)]
)
def test_the_worker_is_replaced_when_a_model_ends_it(
    fatal: type[BaseException], seen: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    reported: list[type[BaseException]] = []
    monkeypatch.setattr(threading, "excepthook", lambda arguments: reported.append(arguments.exc_type))
    gate, busy, threads = threading.Event(), threading.Event(), set[threading.Thread]()

    def model(items: Sequence[int]) -> list[int]:
        threads.add(threading.current_thread())
        busy.set()
        assert gate.wait(PATIENCE_S)
        if 13 in items:
            raise fatal("ended")
        return list(items)

    batcher = Batcher(model)
    first = batcher.submit([0])
    assert busy.wait(PATIENCE_S)
    futures = [batcher.submit([n]) for n in (12, 13, 14)]
    gate.set()
    with pytest.raises(seen, match=r"ended"):
        answer(futures[1])
    assert [answer(future) for future in (first, futures[0], futures[2])] == [[0], [12], [14]]
    assert batcher.run([5]) == [5]
    batcher.close()
    check_ended(threads)
    assert len(threads) == 3
    assert reported == [fatal, fatal], "for the batch, and for its bad item alone"


def test_a_callback_that_ends_the_worker_loses_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threading, "excepthook", lambda _: None)
    model = Gated()
    batcher = Batcher(model)
    model.occupy(batcher)

    def fatal(_: "Future[list[int]]") -> None:
        raise FatalError

    futures = [batcher.submit([n]) for n in range(5)]
    futures[1].add_done_callback(fatal)
    model.gate.set()
    assert [answer(future) for future in futures] == [[2 * n] for n in range(5)]
    assert batcher.run([7]) == [14]


def test_closing_answers_what_waits_and_refuses_the_rest() -> None:
    model = Gated()
    batcher = Batcher(model, limits=Limits(batch_items=1))
    futures = [model.occupy(batcher), *(batcher.submit([n]) for n in range(1, 4))]
    closing = threading.Thread(target=batcher.close)
    closing.start()

    def submit_for_ever() -> None:
        while True:
            futures.append(batcher.submit([9]))

    with pytest.raises(OverloadedError, match="closed"):
        submit_for_ever()
    model.gate.set()
    closing.join(PATIENCE_S)
    assert not closing.is_alive()
    assert all(future.done() for future in futures)
    assert [answer(future) for future in futures[:4]] == [[0], [2], [4], [6]]
    batcher.close()
    with pytest.raises(OverloadedError, match="closed"):
        batcher.run([1])


def test_closing_in_a_hurry_fails_what_waits() -> None:
    model = Gated()
    batcher = Batcher(model, limits=Limits(batch_items=2))
    first, split = model.occupy(batcher), batcher.submit([1, 2, 3])
    batcher.close(timeout_s=0)
    with pytest.raises(OverloadedError, match="closed"):
        answer(split)
    model.gate.set()
    assert answer(first) == [0], "a model call under way answers"
    batcher.close()
    assert model.batches == [[0]]


def test_closing_before_use_and_from_a_callback() -> None:
    Batcher(list).close()
    closed = threading.Event()

    def close(_: "Future[list[int]]") -> None:
        batcher.close()
        closed.set()

    model = Gated()
    batcher = Batcher(model)
    future = model.occupy(batcher)
    future.add_done_callback(close)
    model.gate.set()
    assert closed.wait(PATIENCE_S)


def wait_until_gone(reference: "weakref.ref[Any]") -> None:
    end = time.monotonic() + PATIENCE_S
    while reference() is not None and time.monotonic() < end:
        time.sleep(0.001)
    assert reference() is None


def test_the_worker_goes_when_nobody_holds_the_batcher() -> None:
    gc.disable()  # nothing here needs the cycle collector
    try:
        model = Gated()
        gone = weakref.ref(model)
        before = workers()
        batcher = Batcher(model)
        first, waiting = model.occupy(batcher), batcher.submit([1])
        new = workers() - before
        gate = model.gate
        del batcher, model
        gate.set()
        assert (answer(first), answer(waiting)) == ([0], [2]), "what is queued is still answered"
        check_ended(new)
        wait_until_gone(gone)
    finally:
        gc.enable()


class Item:
    """Something that weak references can watch."""


def test_requests_leave_nothing_behind() -> None:
    def refuse(items: Sequence[Item]) -> list[Item]:
        raise ValueError(f"{len(items)}")

    gc.disable()
    try:
        for model in (list, refuse):
            batcher: Batcher[Item, Item] = Batcher(model)
            item = Item()
            gone = weakref.ref(item)
            try:
                batcher.run([item])
            except ValueError:
                assert model is refuse
            del item
            wait_until_gone(gone)
    finally:
        gc.enable()


@settings(deadline=None, max_examples=40)
@given(
    requests=st.lists(
        st.tuples(st.lists(st.integers(0, 99), max_size=6), st.sampled_from(["query", "bulk"])), min_size=1, max_size=12
    ),
    batch_items=st.integers(1, 8),
    batch_cost=st.integers(1, 120),
)
def test_answers_equal_direct_calls(requests: list[Any], batch_items: int, batch_cost: int) -> None:
    batcher = Batcher(picky, cost=lambda item: item + 1, limits=Limits(batch_items=batch_items, batch_cost=batch_cost))
    futures = [batcher.submit(items, lane=lane) for items, lane in requests]
    for (items, _), future in zip(requests, futures, strict=True):
        if any(item % 7 == 3 for item in items):
            with pytest.raises(OddError):
                answer(future)
        else:
            assert answer(future) == [item * 2 for item in items]
    assert batcher.statistics().queued_cost == {"query": 0, "bulk": 0}
    batcher.close()


# -- the encoder around it --------------------------------------------------------------------------------------------


class CountingEncoder:
    """A word is a token; a text's vector tells its words, its length and its lane. Text "bad" cannot be encoded."""

    dim = 3
    fingerprint = "counting"

    def __init__(self, window: int | None = 8) -> None:
        self.window = window
        self.calls: list[list[str]] = []
        self.gate = threading.Event()
        self.gate.set()
        self.busy = threading.Event()

    def _encode(self, texts: list[str], lane: int) -> EncodedBatch:
        self.calls.append(texts)
        self.busy.set()
        assert self.gate.wait(PATIENCE_S)
        if "bad" in texts:
            raise ValueError("bad text")
        vectors = [[len(text.split()), len(text), lane] for text in texts]
        counts = self.token_count(texts)
        cut = 0 if self.window is None else sum(count > self.window for count in counts)
        return EncodedBatch(np.array(vectors, dtype=np.float32).reshape(-1, 3), cut)

    def encode_queries(self, queries: Sequence[Query]) -> np.ndarray:
        return self._encode([query.text for query in queries], 0).vectors

    def encode_passages(self, passages: Sequence[Passage]) -> np.ndarray:
        raise AssertionError(f"{len(passages)} passages go through encode_texts, which counts")

    def encode_texts(self, texts: Sequence[str]) -> EncodedBatch:
        return self._encode(list(texts), 1)

    def token_count(self, texts: Sequence[str]) -> list[int]:
        return [len(text.split()) for text in texts]


WORDS = st.lists(st.sampled_from(["a", "bb", "長い", "dddddddddddd"]), max_size=12).map(" ".join)


@settings(deadline=None, max_examples=60)
@given(st.lists(WORDS, max_size=40), st.integers(1, 60), st.sampled_from([None, 4, 8]))
def test_an_encoder_in_pieces_encodes_the_same(texts: list[str], budget: int, window: int | None) -> None:
    plain = CountingEncoder(window)
    batched = BatchedEncoder(CountingEncoder(window), Limits(batch_cost=budget))
    expected, got = plain.encode_texts(texts), batched.encode_texts(texts)
    np.testing.assert_array_equal(got.vectors, expected.vectors)
    assert got.truncated == expected.truncated
    passages = [Passage("d", 0, 0, len(text), text) for text in texts]
    np.testing.assert_array_equal(batched.encode_passages(passages), expected.vectors)
    queries = [Query("q", text) for text in texts]
    vectors = batched.encode_queries(queries)
    np.testing.assert_array_equal(vectors, plain.encode_queries(queries))
    assert vectors.dtype == np.float32
    batched.close()


def test_pieces_are_cut_by_tokens_longest_first() -> None:
    encoder = CountingEncoder(window=10)
    batched = BatchedEncoder(encoder, Limits(batch_cost=20))
    lengths = [3, 9, 30, 1, 10, 2, 5, 4, 6, 7]
    batch = batched.encode_texts(["word " * length for length in lengths])
    assert batch.truncated == 1
    assert [[len(text.split()) for text in call] for call in encoder.calls] == [[30, 10], [9, 7], [6, 5, 4], [3, 2, 1]]
    assert batch.vectors[:, 0].tolist() == lengths


def test_a_query_waits_for_one_piece_of_a_long_call() -> None:
    encoder = CountingEncoder(window=None)
    batched = BatchedEncoder(encoder, Limits(batch_cost=10))
    encoder.gate.clear()
    bulk = threading.Thread(target=batched.encode_texts, args=[["word " * 10] * 6])
    bulk.start()
    assert encoder.busy.wait(PATIENCE_S)
    asked = threading.Thread(target=batched.encode_queries, args=[[Query("q", "now")]])
    asked.start()
    while batched.statistics().queued != {"query": 1, "bulk": 1}:  # of the other pieces, one waits: callers take turns
        time.sleep(0.001)
    encoder.gate.set()
    for thread in (bulk, asked):
        thread.join(PATIENCE_S)
    assert encoder.calls.index(["now"]) == 1
    assert len(encoder.calls) == 7


def test_small_calls_share_a_batch_and_know_their_own_truncation(until: Callable[..., None]) -> None:
    encoder = CountingEncoder(window=4)
    batched = BatchedEncoder(encoder)
    encoder.gate.clear()
    texts = [["a b c"], ["a b c d e", "a"], ["b"], ["a b c d e f", "a b c d e"], ["bad"]]
    got: dict[int, Any] = {}

    def ask(place: int) -> None:
        try:
            got[place] = batched.encode_texts(texts[place])
        except ValueError as error:
            got[place] = error

    first = threading.Thread(target=batched.encode_texts, args=[["busy"]])
    first.start()
    assert encoder.busy.wait(PATIENCE_S)
    threads = [threading.Thread(target=ask, args=(place,)) for place in range(4)]
    for thread in threads:
        thread.start()
    until(lambda: batched.statistics().queued["bulk"] == 4, "four texts that wait")
    encoder.gate.set()
    for thread in [first, *threads]:
        thread.join(PATIENCE_S)
    assert len(encoder.calls) == 2
    assert [got[place].truncated for place in range(4)] == [0, 1, 0, 2]
    for place in range(4):
        np.testing.assert_array_equal(got[place].vectors, CountingEncoder().encode_texts(texts[place]).vectors)


def test_errors_reach_the_caller_of_the_bad_text_and_the_rest_is_not_encoded() -> None:
    encoder = CountingEncoder(window=None)
    batched = BatchedEncoder(encoder, Limits(batch_cost=1))
    with pytest.raises(ValueError, match="bad text"):
        batched.encode_texts(["bad", *["word"] * 20])
    batched.close()
    assert len(encoder.calls) <= 3
    with pytest.raises(OverloadedError, match="closed"):
        batched.encode_texts(["word"])


def test_a_query_that_is_no_text_never_reaches_the_model() -> None:
    encoder = CountingEncoder()
    with pytest.raises(RequestError, match="surrogate"):
        BatchedEncoder(encoder).encode_queries([Query("q", "\udcff")])
    assert encoder.calls == []
    assert BatchedEncoder(encoder).encode_texts(["\udcff"]).vectors.shape == (1, 3), "documents are the store's affair"


def test_a_deadline_passes_through() -> None:
    with pytest.raises(DeadlineError):
        BatchedEncoder(CountingEncoder()).encode_queries([Query("q", "late")], deadline=time.monotonic())


def test_the_wrapped_encoder_shows_through() -> None:
    encoder = CountingEncoder()
    assert isinstance(encoder, WindowedEncoder)
    batched = BatchedEncoder(encoder)
    assert (batched.dim, batched.fingerprint, batched.window) == (3, "counting", 8)
    assert batched.token_count(["a b"]) == [2]
    assert batched.encoder is encoder


def test_a_batched_encoder_goes_with_its_last_reference() -> None:
    gc.disable()
    try:
        batched = BatchedEncoder(CountingEncoder())
        batched.encode_texts(["a"])
        gone = weakref.ref(batched.encoder)
        del batched
        wait_until_gone(gone)
    finally:
        gc.enable()


def test_encoders_without_a_model_are_not_wrapped() -> None:
    encoders = Encoders()
    for kind in ("hashing", "external"):
        assert not isinstance(encoders.get(EncoderConfig(kind=kind, dim=8)), BatchedEncoder)
