"""An exchange of rows is an involution, and a bitmap follows it."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from index.bitmap import pack, unpack
from index.held_out import Exchange


@st.composite
def sizes(draw: st.DrawFn) -> tuple[int, int]:
    count = draw(st.integers(0, 200))
    return count, draw(st.integers(0, count))


SEEDS = st.integers(0, 2**32 - 1)


@given(sizes(), SEEDS)
def test_it_is_a_permutation_and_its_own_inverse(counts: tuple[int, int], seed: int) -> None:
    count, size = counts
    exchange = Exchange.sample(count, size, seed)
    rows = np.arange(count, dtype=np.int64)
    positions = exchange.apply(rows)
    assert sorted(positions.tolist()) == rows.tolist()
    assert exchange.apply(positions).tolist() == rows.tolist()
    moved = positions != rows
    assert int(moved.sum()) == 2 * len(exchange.low) == 2 * len(exchange.high)
    assert len(exchange.low) <= min(size, count - size)


@given(sizes(), SEEDS)
def test_the_sample_ends_up_last(counts: tuple[int, int], seed: int) -> None:
    count, size = counts
    exchange = Exchange.sample(count, size, seed)
    chosen = exchange.apply(np.arange(count - size, count, dtype=np.int64))  # the rows that stand at the end
    drawn = np.random.default_rng(seed).choice(count, size, replace=False)
    assert sorted(chosen.tolist()) == sorted(drawn.tolist())
    assert (exchange.low < count - size).all()
    assert (exchange.high >= count - size).all()


@given(sizes(), SEEDS)
def test_the_seed_decides(counts: tuple[int, int], seed: int) -> None:
    first, second = (Exchange.sample(*counts, seed) for _ in range(2))
    assert first.low.tolist() == second.low.tolist()
    assert first.high.tolist() == second.high.tolist()


@given(sizes(), SEEDS, st.randoms(use_true_random=False), st.floats(0, 1))
def test_a_bitmap_is_permuted_like_its_rows(
    counts: tuple[int, int], seed: int, random: "st.Random", share: float
) -> None:
    count, size = counts
    exchange = Exchange.sample(count, size, seed)
    mask = np.array([random.random() < share for _ in range(count)], np.bool_)
    bitmap = pack(mask)
    kept = bitmap.copy()
    moved = exchange.bitmap(bitmap)
    assert unpack(moved, count).tolist() == mask[exchange.apply(np.arange(count))].tolist()
    assert exchange.bitmap(moved).tolist() == bitmap.tolist()
    assert bitmap.tolist() == kept.tolist()
    assert moved.dtype == np.uint8


@given(sizes(), SEEDS, st.data())
def test_values_of_any_order_and_no_result(counts: tuple[int, int], seed: int, data: st.DataObject) -> None:
    count, size = counts
    exchange = Exchange.sample(count, size, seed)
    values = np.array(data.draw(st.lists(st.integers(-1, count - 1), max_size=30)), np.int64)
    expected = exchange.apply(np.arange(count))
    assert exchange.apply(values).tolist() == [-1 if value < 0 else int(expected[value]) for value in values]
