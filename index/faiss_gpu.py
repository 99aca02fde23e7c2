"""faiss on a GPU: searching inverted lists there, and building lists there that the CPU serves.

Graphs, RaBitQ and FastScan codes have no GPU class in faiss 1.15 (`index_cpu_to_gpu` raises on them). Lists of FastScan
codes ("ivf-pq" on the CPU: 4 bits) are therefore encoded once more when they are opened on a GPU, at 8 bits and the
same size per vector, into the same lists.
"""

import weakref
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from index.ann import Finder
from index.device import before_next_turn, canonical, on_device, ordinal
from index.exact import rescore
from index.faiss_kinds import EXACT_SCORES
from index.faiss_library import load_faiss
from index.spec import Kind
from index.types import Effort, Neighbors, Rows, Vectors
from index.vector_file import VectorFile

GPU_KINDS: frozenset[Kind] = frozenset({"ivf-flat", "ivf-sq8", "ivf-pq"})
"""Kinds that `open_lists` opens."""

_MOST = 2_048
"""faiss's GPU selection keeps no more results, and visits no more lists."""

_CODE_BYTES = (96, 64, 56, 48, 40, 32, 28, 24, 20, 16, 12, 8, 4, 3, 2, 1)
"""Sizes of a code of 8-bit sub-quantizers that faiss has GPU kernels for."""

_TRAIN_ROWS = 65_536
_BLOCK_VALUES = 1 << 24
"""Values sent at a time: 64 MiB of float32."""

_resources: dict[str, Any] = {}


def has_gpu() -> bool:
    """Whether the installed faiss was built with GPU classes."""
    return hasattr(load_faiss(), "StandardGpuResources")


class GpuLists:
    """Searches a copy on the GPU as a faiss index is searched; what that cannot answer, the CPU's index does.

    cpu: an IndexIVF. gpu: the same vectors under the same numbers on `device`. To the CPU go searches with a selector
    (GPU lists take none) and those for more than 2,048 results or lists.
    """

    def __init__(self, cpu: Any, gpu: Any, device: str) -> None:
        self._cpu = cpu
        self._gpu = [gpu]
        self._device = device
        # Freed where it is used: freeing beside a running search is not safe.
        weakref.finalize(self, before_next_turn, device, self._gpu.clear).atexit = False

    @property
    def ntotal(self) -> int:
        """How many vectors there are."""
        return int(self._cpu.ntotal)

    def search(self, queries: Vectors, k: int, *, params: Any) -> tuple[npt.NDArray[np.float32], Rows]:
        """Return scores and positions as faiss does. params: a faiss.SearchParametersIVF."""
        lists = min(int(params.nprobe), int(self._cpu.nlist))
        found: tuple[npt.NDArray[np.float32], Rows]
        if params.sel is not None or max(k, lists) > _MOST:
            found = self._cpu.search(queries, k, params=params)
            return found
        few = load_faiss().SearchParametersIVF(nprobe=lists)
        found = on_device(self._device, lambda: self._gpu[0].search(queries, k, params=few))
        return found


class GpuFinder(Finder):
    """A Finder whose scores are the CPU's for every kind, whatever the device rounds."""

    def near(self, queries: Vectors, k: int, effort: Effort, selector: Any | None = None) -> Neighbors:
        """See Finder."""
        found = super().near(queries, k, effort, selector)
        if self.kind not in EXACT_SCORES:
            return found
        return rescore(self.vectors, self.metric, queries, found.rows, found.rows.shape[1])


def open_lists(finder: Finder, device: str) -> GpuFinder:
    """Return a finder whose lists are searched on a device. finder: of one of GPU_KINDS, on the CPU.

    Look-up tables of ivf-pq are float16: what they find is scored exactly. For the others the storage decides.
    Raises RuntimeError (faiss) where the device fails. Cost: a copy; for ivf-pq, encoding all vectors on the device.
    """
    lists, vectors = finder.index, finder.vectors
    recoded = finder.kind == "ivf-pq"
    source = empty_ivf_pq(lists, vectors) if recoded else lists
    copied = on_device(device, partial(_on_gpu, source, device))
    if recoded:
        for block in vectors.blocks(max(1, _BLOCK_VALUES // vectors.dim)):
            on_device(device, partial(copied.add, block))
    return GpuFinder(finder.kind, finder.metric, vectors, GpuLists(lists, copied, device))


def empty_ivf_pq(lists: Any, vectors: VectorFile) -> Any:
    """Return a trained IndexIVFPQ of 8 bits without vectors: the lists of `lists`, codes no larger than its 4-bit ones.

    Cost: trains sub-quantizers on 65,536 vectors, seconds.
    """
    faiss = load_faiss()
    most = max(1, lists.pq.M // 2)
    parts = next(size for size in _CODE_BYTES if size <= most and vectors.dim % size == 0)
    quantizer = faiss.clone_index(lists.quantizer)
    index = faiss.IndexIVFPQ(quantizer, vectors.dim, lists.nlist, parts, 8, lists.metric_type)
    index.pq.cp.min_points_per_centroid = 1  # as for all kinds, see index.faiss_kinds
    count = len(vectors)
    chosen = np.random.default_rng(0).choice(count, min(count, _TRAIN_ROWS), replace=False)
    index.train(vectors.rows(np.sort(chosen)))
    return index


def train_lists(index: Any, sample: Vectors, device: str) -> None:
    """Train an IndexIVF for the CPU; k-means, nearly all of the work, runs on a device.

    Raises RuntimeError (faiss) where the device fails; the index is then not trained.
    """

    def train() -> None:
        flat = _flat(index, device)
        index.clustering_index = flat
        try:
            index.train(sample)
        finally:
            index.clustering_index = None
            flat.thisown = True  # the assignment gave it away

    on_device(device, train)


def add_to_lists(index: Any, block: Vectors, device: str) -> None:
    """Add vectors to an IndexIVF of the CPU; their lists are chosen on a device.

    FastScan codes are laid out by a method that chooses lists itself, so these are added by the CPU.
    Raises RuntimeError (faiss) where the device fails.
    """
    faiss = load_faiss()
    if isinstance(index, faiss.IndexIVFFastScan):
        index.add(block)
        return

    def assigned() -> Rows:
        flat = _flat(index, device)
        flat.add(index.quantizer.reconstruct_n(0, index.nlist))
        nearest: Rows = flat.search(block, 1)[1][:, 0]
        return np.ascontiguousarray(nearest)

    lists = on_device(device, assigned)
    index.add_core(len(block), faiss.swig_ptr(block), None, faiss.swig_ptr(lists))


def _flat(index: Any, device: str) -> Any:
    """Return an empty exact index like an IndexIVF's own over its centroids."""
    return _on_gpu(load_faiss().IndexFlat(index.d, index.metric_type), device)


def _on_gpu(index: Any, device: str) -> Any:
    """Return a copy on a device; "cpu" gives a copy too. To be called on the device's thread."""
    faiss = load_faiss()
    if canonical(device) == "cpu":
        return faiss.clone_index(index)
    name = canonical(device)
    if name not in _resources:
        _resources[name] = faiss.StandardGpuResources()
    options = faiss.GpuClonerOptions()
    options.useFloat16 = isinstance(index, faiss.IndexIVFPQ)
    return faiss.index_cpu_to_gpu(_resources[name], ordinal(device), index, options)
