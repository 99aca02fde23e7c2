"""Opening an index folder on a device.

| kind | on a CUDA device |
|---|---|
| flat | torch, exact; vectors that do not fit are sent for every search |
| ivf-flat, ivf-sq8, ivf-pq | faiss's GPU lists; torch where the installed faiss has none |
| hnsw, hnsw-sq8, ivf-rabitq, sq8, binary | torch, exact, if all vectors fit; else the CPU, degraded |

Exact search instead of an approximate kind finds at least as much: a card reads its memory so fast that no graph is
needed until the vectors outgrow it.
"""

from pathlib import Path

from index.ann_format import read_about
from index.device import absence
from index.device_index import DeviceIndex
from index.held_out import Exchange
from index.metric import Metric
from index.torch_exact import TorchExact
from index.types import VectorIndex
from index.vector_file import VectorFile


def open_on(device: str, cpu: VectorIndex, folder: Path, metric: Metric) -> DeviceIndex:
    """Return the index of a folder searched on a device, with `cpu`, the same index, behind it.

    device: "cuda", "cuda:N"; "cpu" for tests. Raises ConfigError on another name. Cost: the vectors are read and sent.
    """
    return DeviceIndex(cpu, lambda: _opened(device, cpu, folder, metric), absence=absence(device))


def _opened(device: str, cpu: VectorIndex, folder: Path, metric: Metric) -> VectorIndex:
    about = read_about(folder)
    vectors = VectorFile.open(folder)
    if about is None or about.kind == "flat":
        return TorchExact(vectors, metric, device)
    from index.ann import AnnIndex  # noqa: PLC0415  faiss loads when used
    from index.faiss_gpu import GPU_KINDS, has_gpu, open_lists  # noqa: PLC0415  as above

    if about.kind in GPU_KINDS and has_gpu() and isinstance(cpu, AnnIndex):
        return cpu.moved(lambda finder: open_lists(finder, device))
    exact = TorchExact(vectors, metric, device, Exchange.sample(len(vectors), about.held_out, about.seed))
    if exact.resident < len(exact):
        raise MemoryError(
            f"{about.kind} has no GPU form here, and {exact.resident:,} of {len(exact):,} vectors fit on {device}"
        )
    return exact
