"""Indexes on a device against the CPU's. Without a card the same code runs with the CPU of torch and faiss for it."""

import gc
import threading
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from index import gpu as gpu_module
from index.ann import AnnIndex
from index.ann_build import write_index
from index.bitmap import pack
from index.device import on_device
from index.device_index import DeviceIndex
from index.exact import exact
from index.faiss_gpu import GPU_KINDS, GpuLists, add_to_lists, empty_ivf_pq, has_gpu, open_lists, train_lists
from index.faiss_kinds import FAMILY, make
from index.faiss_library import load_faiss
from index.flat import FlatIndex
from index.gpu import open_on
from index.metric import METRICS, Metric, prepare
from index.spec import KINDS, IndexParams, IndexSpec, Kind
from index.torch_exact import TorchExact
from index.types import Effort, VectorIndex
from index.vector_file import STORAGES, Storage, VectorFile, write_vectors

Array = npt.NDArray[np.float32]

DEFINITE = [kind for kind in KINDS if kind != "auto"]
PARAMS = IndexParams(lists=24, code_bytes=8)
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


@pytest.fixture
def _card() -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")


def clustered(rng: np.random.Generator, count: int, dim: int = 32) -> Array:
    """Vectors in 40 clusters, of unequal lengths."""
    centres = np.random.default_rng(0).normal(size=(40, dim))
    spread = centres[rng.integers(0, 40, count)] + 0.5 * rng.normal(size=(count, dim))
    return (spread * rng.lognormal(sigma=0.1, size=(count, 1))).astype(np.float32)


def written(folder: Path, kind: Kind, metric: Metric, storage: Storage = "float32", count: int = 3_000) -> VectorIndex:
    """Write an index and open it on the CPU."""
    folder.mkdir(exist_ok=True)
    vectors = prepare(clustered(np.random.default_rng(1), count), metric)
    write_index(folder, iter([vectors]), 32, count, IndexSpec(kind, metric, storage, params=PARAMS))
    return FlatIndex.open(folder, metric) if kind == "flat" else AnnIndex.open(folder, metric)


def exactly(folder: Path, queries: Array, k: int, metric: Metric) -> Array:
    """The k best scores there are, float32 (Q, k)."""
    return exact(VectorFile.open(folder), metric, prepare(queries, metric), None, k).scores


def close(found: Array, expected: Array) -> None:
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-4)


# -- whole indexes ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("kind", DEFINITE)
def test_every_kind_opens_and_finds_no_less_than_on_the_cpu(tmp_path: Path, kind: Kind, device: str) -> None:
    if device != "cpu" and not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    cpu = written(tmp_path, kind, "cosine")
    index = open_on(device, cpu, tmp_path, "cosine")
    assert index.degraded is None
    queries = clustered(np.random.default_rng(2), 50)
    best = exactly(tmp_path, queries, 10, "cosine")
    found, on_cpu = index.search(queries, 10), cpu.search(queries, 10)
    recall, usual = ((each.scores >= best[:, 9:] - 1e-5).mean() for each in (found, on_cpu))
    assert recall >= usual - 0.02
    stored = cpu.vectors(found.rows.ravel()).reshape(50, 10, 32)
    close(found.scores, np.einsum("qd,qkd->qk", prepare(queries, "cosine"), stored))
    allowed = np.arange(len(cpu)) % 3 == 0
    under = index.search(queries, 10, pack(allowed))
    assert allowed[under.rows].all()
    assert (index.search(queries[:2], 4_000).rows >= 0).sum() == 2 * len(cpu)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("storage", STORAGES)
def test_flat_on_a_device_is_flat(tmp_path: Path, metric: Metric, storage: Storage, device: str) -> None:
    if device != "cpu" and not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    cpu = written(tmp_path, "flat", metric, storage)
    queries = clustered(np.random.default_rng(2), 1_100)
    for memory_bytes in (None, 50_000, 0):
        index = TorchExact(VectorFile.open(tmp_path), metric, device, memory_bytes=memory_bytes)
        for allowed in (None, pack(np.random.default_rng(3).random(3_000) < 0.2)):
            found, expected = index.search(queries, 10, allowed), cpu.search(queries, 10, allowed)
            close(found.scores, expected.scores)
            assert (found.rows == expected.rows).mean() > 0.999  # neighbours that differ in their last bits may swap
    assert open_on(device, cpu, tmp_path, metric).degraded is None


def test_a_kind_without_gpu_form_that_does_not_fit_stays_on_the_cpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cpu = written(tmp_path, "hnsw", "cosine")
    monkeypatch.setattr(
        "index.torch_scores.free_bytes", lambda _: (12 * 2**26 + 200_000) / 0.9
    )  # scratch, and 1,470 vectors
    index = open_on("cpu", cpu, tmp_path, "cosine")
    assert (index.degraded or "").startswith("opening the index failed (hnsw has no GPU form here, and ")
    queries = clustered(np.random.default_rng(2), 5)
    np.testing.assert_array_equal(index.search(queries, 5).rows, cpu.search(queries, 5).rows)
    flat = written(tmp_path / "flat", "flat", "cosine")
    assert open_on("cpu", flat, tmp_path / "flat", "cosine").degraded is None  # streams the rest


# -- faiss's lists ----------------------------------------------------------------------------------------------------


def moved(cpu: VectorIndex, device: str) -> AnnIndex:
    assert isinstance(cpu, AnnIndex)
    return cpu.moved(lambda finder: open_lists(finder, device))


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("kind", sorted(GPU_KINDS))
@pytest.mark.parametrize("storage", ["float32", "float16"])
def test_moved_lists_find_what_the_cpus_lists_find(
    tmp_path: Path, kind: Kind, metric: Metric, storage: Storage
) -> None:
    cpu = written(tmp_path, kind, metric, storage)
    index, queries = moved(cpu, "cpu"), clustered(np.random.default_rng(2), 40)
    found, expected = index.search(queries, 10), cpu.search(queries, 10)
    if kind == "ivf-pq":  # other codes
        best = exactly(tmp_path, queries, 10, metric)
        assert (found.scores >= best[:, 9:] - 1e-4).mean() >= (expected.scores >= best[:, 9:] - 1e-4).mean() - 0.02
    else:
        np.testing.assert_array_equal(found.rows, expected.rows)
        close(found.scores, expected.scores)


@pytest.mark.parametrize("kind", sorted(GPU_KINDS))
def test_what_gpu_lists_cannot_answer_goes_to_the_cpu(tmp_path: Path, kind: Kind) -> None:
    cpu = written(tmp_path, kind, "ip")
    assert isinstance(cpu, AnnIndex)
    lists = cpu._finder.index
    other = Counting(load_faiss().clone_index(lists))
    wrapped, queries = GpuLists(lists, other, "cpu"), clustered(np.random.default_rng(2), 4)
    faiss = load_faiss()
    few = np.zeros(3_000, np.bool_)
    few[::5] = True
    bitmap = pack(few)
    selector = faiss.IDSelectorBitmap(3_000, faiss.swig_ptr(bitmap))
    for k, params in (
        (5, faiss.SearchParametersIVF(nprobe=24, sel=selector)),
        (2_049, faiss.SearchParametersIVF(nprobe=24)),
    ):
        found, expected = wrapped.search(queries, k, params=params), lists.search(queries, k, params=params)
        np.testing.assert_array_equal(found[1], expected[1])
    assert other.asked == []
    wrapped.search(queries, 2_048, params=faiss.SearchParametersIVF(nprobe=65_536))
    assert other.asked == [(2_048, 24)]  # never more lists than there are: the GPU refuses beyond 2,048
    assert wrapped.ntotal == 3_000


class Counting:
    """A faiss index that notes what it is asked."""

    def __init__(self, index: Any) -> None:
        self.index = index
        self.asked: list[tuple[int, int]] = []
        self.freed_on: list[str] = []

    def search(self, queries: Array, k: int, *, params: Any) -> Any:
        self.asked.append((k, params.nprobe))
        return self.index.search(queries, k, params=params)

    def __del__(self) -> None:
        self.freed_on.append(threading.current_thread().name)


def test_a_copy_is_freed_on_its_devices_thread(tmp_path: Path) -> None:
    cpu = written(tmp_path, "ivf-flat", "ip")
    assert isinstance(cpu, AnnIndex)
    copy = Counting(cpu._finder.index)
    freed_on, wrapped = copy.freed_on, GpuLists(cpu._finder.index, copy, "cpu")
    del copy, wrapped
    gc.collect()
    on_device("cpu", lambda: None)  # after what was asked for before
    assert [name.startswith("grapnel-cpu") for name in freed_on] == [True]


def test_codes_of_ivf_pq_on_a_gpu_have_sizes_that_it_knows(tmp_path: Path) -> None:
    faiss = load_faiss()
    for dim, code_bytes, size in ((384, 48, 48), (1_024, 128, 64), (30, 4, 3), (7, 7, 1), (48, 48, 24)):
        lists = make("ivf-pq", dim, IndexParams(lists=4, code_bytes=code_bytes), "float32", l2=False)
        (tmp_path / f"{dim}").mkdir()
        vectors = np.random.default_rng(0).normal(size=(300, dim)).astype(np.float32)
        write_vectors(tmp_path / f"{dim}", iter([vectors]), dim, 300)
        lists.train(vectors)
        empty = empty_ivf_pq(lists, VectorFile.open(tmp_path / f"{dim}"))
        assert (empty.pq.M, empty.pq.nbits, empty.by_residual, empty.ntotal) == (size, 8, True, 0)
        assert size <= max(1, lists.pq.M // 2)
        assert faiss.downcast_index(empty.quantizer).ntotal == 4


# -- building on a device ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("metric", ["ip", "l2"])
@pytest.mark.parametrize("kind", [kind for kind in DEFINITE if FAMILY.get(kind) == "lists"])
def test_lists_built_on_a_device_are_the_cpus(kind: Kind, metric: Metric, device: str) -> None:
    if device != "cpu" and not (torch.cuda.is_available() and has_gpu()):
        pytest.skip("no CUDA device, or faiss without one")
    vectors = prepare(clustered(np.random.default_rng(1), 3_000), "cosine")
    queries = prepare(clustered(np.random.default_rng(2), 40), "cosine")
    params = IndexParams(lists=24, code_bytes=8, code_bits=4)
    plain, built = (make(kind, 32, params, "float32", l2=metric == "l2") for _ in range(2))
    plain.train(vectors)
    train_lists(built, vectors, device)
    assert built.is_trained
    assert built.clustering_index is None
    for start in range(0, 3_000, 1_000):
        plain.add(vectors[start : start + 1_000])
        add_to_lists(built, vectors[start : start + 1_000], device)
    assert built.ntotal == 3_000
    some = load_faiss().SearchParametersIVF(nprobe=8)
    expected, found = plain.search(queries, 10, params=some)[1], built.search(queries, 10, params=some)[1]
    if device == "cpu":
        np.testing.assert_array_equal(found, expected)
    best = np.argsort(-(queries @ vectors.T), axis=1)[:, :10]
    recalls = [
        np.mean([len(set(a) & set(b)) / 10 for a, b in zip(each, best, strict=True)]) for each in (found, expected)
    ]
    assert recalls[0] >= recalls[1] - 0.05


# -- on a card --------------------------------------------------------------------------------------------------------


@pytest.mark.gpu
@pytest.mark.usefixtures("_card")
def test_out_of_memory_on_a_card_falls_back(tmp_path: Path) -> None:
    cpu = written(tmp_path, "flat", "cosine")
    index = open_on("cuda", cpu, tmp_path, "cosine")
    assert index.degraded is None
    queries = clustered(np.random.default_rng(2), 8)
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction(1e6 / total)
    try:
        torch.cuda.empty_cache()
        full = open_on("cuda", cpu, tmp_path, "cosine")
        np.testing.assert_array_equal(full.search(queries, 5).rows, cpu.search(queries, 5).rows)
        np.testing.assert_array_equal(index.search(queries, 5).rows, cpu.search(queries, 5).rows)
        assert "out of memory" in (index.degraded or "")
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


@pytest.mark.gpu
@pytest.mark.usefixtures("_card")
@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("kind", sorted(GPU_KINDS))
def test_lists_on_a_card(tmp_path: Path, kind: Kind, metric: Metric) -> None:
    if not has_gpu():
        pytest.skip("the installed faiss has no GPU classes: install grapnel[gpu]")
    cpu = written(tmp_path, kind, metric)
    index, queries = moved(cpu, "cuda"), clustered(np.random.default_rng(2), 200)
    best = exactly(tmp_path, queries, 10, metric)
    found, expected = index.search(queries, 10), cpu.search(queries, 10)
    assert (found.scores >= best[:, 9:] - 1e-4).mean() >= (expected.scores >= best[:, 9:] - 1e-4).mean() - 0.02
    effort = Effort(nprobe=24, refine=400)
    close(index.search(queries, 10, effort=effort).scores, best)


@pytest.mark.gpu
@pytest.mark.usefixtures("_card")
def test_a_card_that_is_not_there(tmp_path: Path) -> None:
    cpu = written(tmp_path, "flat", "cosine")
    name = f"cuda:{torch.cuda.device_count()}"
    assert (open_on(name, cpu, tmp_path, "cosine").degraded or "").startswith(f"{name} is absent")


def test_a_machine_without_a_card_serves_from_the_cpu(tmp_path: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device")
    cpu = written(tmp_path, "flat", "cosine")
    index = gpu_module.open_on("cuda", cpu, tmp_path, "cosine")
    assert isinstance(index, DeviceIndex)
    assert (index.degraded or "").startswith("cuda is absent: torch")
    queries = clustered(np.random.default_rng(2), 3)
    np.testing.assert_array_equal(index.search(queries, 5).rows, cpu.search(queries, 5).rows)
