"""Arrays that readers may keep while they grow, and the cache that threads share."""

import threading

import numpy as np
import pytest

from retrieval.growing import Growing
from retrieval.recent import Recent


def test_rows_come_back_in_order() -> None:
    growing = Growing((2,), np.float32)
    assert growing.view().shape == (0, 2)
    expected = np.empty((0, 2), np.float32)
    for size in (1, 0, 63, 1, 500, 3):
        rows = np.arange(2 * size, dtype=np.float32).reshape(size, 2) + len(expected)
        growing.extend(rows)
        expected = np.concatenate([expected, rows])
        np.testing.assert_array_equal(growing.view(), expected)
        assert len(growing) == len(expected)
    assert growing.view().dtype == np.float32


def test_what_was_handed_out_never_changes() -> None:
    growing = Growing((), np.int64)
    views = []
    for number in range(1000):
        growing.extend(np.array([number]))
        views.append(growing.view())
    for number, view in enumerate(views):
        assert view.tolist() == list(range(number + 1))


def test_growth_copies_each_row_a_few_times_at_most() -> None:
    growing = Growing((), np.int64)
    buffers = set()
    for _ in range(100_000 // 100):
        growing.extend(np.zeros(100, np.int64))
        buffers.add(growing.view().__array_interface__["data"][0])
    assert len(buffers) < 20


def test_readers_see_whole_rows_while_one_thread_appends() -> None:
    growing = Growing((8,), np.int64)
    stop = threading.Event()
    wrong: list[object] = []

    def read() -> None:
        while not stop.is_set():
            view = growing.view()
            if len(view) and not (view == np.arange(len(view))[:, None]).all():
                wrong.append(view)

    threads = [threading.Thread(target=read) for _ in range(2)]
    for thread in threads:
        thread.start()
    for number in range(3000):
        growing.extend(np.full((1, 8), number))
    stop.set()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_the_values_used_last_stay() -> None:
    cache: Recent[str, int] = Recent(2)
    cache.put("a", 1)
    cache.put("b", 2)
    assert cache.get("a") == 1  # used now, so b is the one unused for longest
    cache.put("c", 3)
    assert (cache.get("a"), cache.get("b"), cache.get("c")) == (1, None, 3)
    cache.put("a", 4)
    cache.put("d", 5)
    assert (cache.get("a"), cache.get("c"), cache.get("d")) == (4, None, 5)


@pytest.mark.parametrize("capacity", [1, 3])
def test_no_more_is_kept_than_fits(capacity: int) -> None:
    cache: Recent[int, int] = Recent(capacity)
    for number in range(10):
        cache.put(number, number)
    kept = [number for number in range(10) if cache.get(number) is not None]
    assert kept == list(range(10 - capacity, 10))


def test_threads_share_the_cache() -> None:
    cache: Recent[int, int] = Recent(8)
    wrong: list[object] = []

    def work(seed: int) -> None:
        for number in np.random.default_rng(seed).integers(0, 20, 3000).tolist():
            found = cache.get(number)
            if found not in (None, number):
                wrong.append(found)
            cache.put(number, number)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert sum(cache.get(number) is not None for number in range(20)) == 8
