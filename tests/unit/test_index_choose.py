"""Which kind "auto" takes, with which parameters, and why."""

import math

import pytest

from index.choose import FLAT_ROWS, machine_memory_gb, memory_bytes, resolve
from index.spec import KINDS, IndexParams, IndexSpec, Kind
from index.vector_file import Storage

GIB = 2**30
DEFINITE = [kind for kind in KINDS if kind != "auto"]


@pytest.mark.parametrize(("count", "kind"), [(0, "flat"), (1, "flat"), (FLAT_ROWS, "flat"), (FLAT_ROWS + 1, "hnsw")])
def test_auto_is_exact_search_up_to_a_number_of_rows(count: int, kind: Kind) -> None:
    spec, reason = resolve(IndexSpec(memory_gb=1), count, 384)
    assert spec.kind == kind
    assert reason


@pytest.mark.parametrize("kind", [kind for kind in DEFINITE if kind != "flat"])
def test_a_kind_that_was_asked_for_is_built_from_the_first_count_it_can_be_trained_on(kind: Kind) -> None:
    few, reason = resolve(IndexSpec(kind), 1_000, 16)
    assert few.kind == "flat"
    assert "1,000 vectors" in reason
    enough, reason = resolve(IndexSpec(kind), 1_001, 16)
    assert (enough.kind, reason) == (kind, "")


def test_flat_stays_flat_and_gives_no_reason() -> None:
    spec = IndexSpec("flat", storage="int8")
    assert resolve(spec, 10**9, 384) == (spec, "")


def test_the_memory_budget_decides() -> None:
    """By hand, a million vectors of 384 dimensions: 32 links a node take 2 * 32 + 2 integers of 4 bytes."""
    count, dim = 1_000_000, 384
    vectors = count * 4 * 384
    graph = vectors + count * 264
    lists = vectors + count * (384 / 8 + 16) + 2_000 * 384 * 4
    for budget, kind, disk in (
        (graph + 1, "hnsw", False),
        (graph - 1, "ivf-rabitq", False),
        (lists + 1, "ivf-rabitq", False),
        (lists - 1, "ivf-rabitq", True),
    ):
        spec, reason = resolve(IndexSpec(memory_gb=budget / GIB), count, dim)
        assert spec.kind == kind
        assert ("disk" in reason) == disk
        assert f"{budget / GIB:.2f} GiB" in reason


@pytest.mark.parametrize("storage", ["float32", "float16", "int8"])
def test_auto_never_chooses_what_a_spec_refuses(storage: Storage) -> None:
    for budget in (1e-6, 0.3, 1.0, 1e6):
        for metric in ("cosine", "ip", "l2"):
            spec, _ = resolve(IndexSpec("auto", metric, storage, memory_gb=budget), 500_000, 384)
            assert spec.kind in DEFINITE
            assert (spec.metric, spec.storage) == (metric, storage)


def test_half_precision_halves_the_vectors_in_lists() -> None:
    full, half = (
        memory_bytes(resolve(IndexSpec("ivf-flat", storage=storage), 2_000, 384)[0], 2_000, 384)
        for storage in ("float32", "float16")
    )
    assert full - half == 2_000 * 384 * 2


def test_without_a_budget_it_is_half_the_memory_of_the_machine() -> None:
    _, reason = resolve(IndexSpec(), 100_000, 384)
    assert f"{machine_memory_gb() / 2:.2f} GiB" in reason
    assert 0.1 < machine_memory_gb() < 1e5


@pytest.mark.parametrize("count", [1_001, 5_000, 10**6, 10**9])
@pytest.mark.parametrize("asked", [None, 1, 1 << 20])
def test_there_are_never_more_lists_than_vectors_to_train_on(count: int, asked: int | None) -> None:
    spec, _ = resolve(IndexSpec("ivf-pq", params=IndexParams(lists=asked)), count, 16)
    assert spec.params.lists is not None
    assert 1 <= spec.params.lists <= count - min(1_000, count // 10)
    if asked == 1:
        assert spec.params.lists == 1
    if asked is None:
        assert spec.params.lists == pytest.approx(2 * math.sqrt(count), abs=1)


@pytest.mark.parametrize("dim", [1, 7, 384, 4_096])
def test_every_parameter_is_definite_and_what_was_given_stays(dim: int) -> None:
    spec, _ = resolve(IndexSpec("ivf-rabitq"), 50_000, dim)
    values = spec.params
    assert None not in (values.links, values.ef_construction, values.lists, values.code_bytes, values.code_bits)
    given = IndexParams(links=16, ef_construction=40, lists=100, code_bytes=4, code_bits=3)
    assert resolve(IndexSpec("ivf-rabitq", params=given), 50_000, dim)[0].params == given


def test_memory_grows_with_the_bits() -> None:
    one, four = (
        memory_bytes(resolve(IndexSpec("ivf-rabitq", params=IndexParams(code_bits=bits)), 2_000, 128)[0], 2_000, 128)
        for bits in (1, 4)
    )
    assert four - one == 2_000 * 128 * 3 / 8
