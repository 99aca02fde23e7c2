"""HDF5 files of ann-benchmarks and VIBE: vectors, queries, exact neighbours, and the distance they were made with.

    train (n, d)   test (q, d)   neighbors (q, k) int   distances (q, k) float   attribute distance
    (VIBE also)    learn, learn_neighbors, avg_distances

The package h5py reads them; it is an extra.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from evaluation.vector_files import BLOCK_ROWS, Array, GroundTruth
from index.durable import storage_errors
from index.errors import CorpusError, MissingDependencyError, RequestError
from index.metric import Metric

METRICS: Mapping[str, Metric] = {
    "angular": "cosine",
    "cosine": "cosine",
    "euclidean": "l2",
    "normalized": "cosine",
    "ip": "ip",
}
"""ann-benchmarks' and VIBE's names of distances that are metrics of ours."""


@dataclass(frozen=True, slots=True)
class Benchmark:
    """What a file holds. train: (n, d) or None when left on disk. test: (q, d). metric: in our words."""

    train: Array | None
    test: Array
    truth: GroundTruth
    metric: Metric


def read_hdf5(path: str | Path, *, with_train: bool = True) -> Benchmark:
    """Read a benchmark file. with_train: False leaves the vectors to `hdf5_blocks`.

    Raises MissingDependencyError without h5py, CorpusError on what is missing, cut, of another shape or a distance that
    is no metric of ours, StorageError.
    """
    path = Path(path)
    with _opened(path) as file:
        name = _text(file.attrs.get("distance", ""))
        if name not in METRICS:
            raise CorpusError(f"{path} was made with distance {name!r}; known: {', '.join(sorted(METRICS))}")
        train, test = _dataset(file, "train", path), _dataset(file, "test", path)
        neighbors, distances = _dataset(file, "neighbors", path), _dataset(file, "distances", path)
        if train.shape[1] != test.shape[1]:
            raise CorpusError(f"{path}: train has dimension {train.shape[1]}, test {test.shape[1]}, expected the same")
        if neighbors.shape != distances.shape or len(neighbors) != len(test):
            raise CorpusError(
                f"{path}: neighbors {neighbors.shape}, distances {distances.shape}, expected ({len(test)}, k) both"
            )
        rows: npt.NDArray[np.int64] = neighbors[()].astype(np.int64)
        if rows.size and (rows.max() >= len(train) or rows.min() < -1):
            raise CorpusError(f"{path}: neighbors name rows {rows.min()} to {rows.max()}, train has {len(train)}")
        truth = GroundTruth(rows, distances[()].astype(np.float32))
        return Benchmark(train[()] if with_train else None, test[()], truth, METRICS[name])


def hdf5_blocks(path: str | Path, name: str = "train", rows: int = BLOCK_ROWS) -> Iterator[Array]:
    """Yield a dataset's rows in order, at most `rows` at a time. Raises as `read_hdf5`; RequestError on rows < 1."""
    if rows < 1:
        raise RequestError(f"rows is {rows}, expected at least 1 a block")
    with _opened(Path(path)) as file:
        dataset = _dataset(file, name, Path(path))
        for start in range(0, len(dataset), rows):
            yield dataset[start : start + rows]


def write_hdf5(path: str | Path, benchmark: Benchmark, extra: Mapping[str, Array] | None = None) -> None:
    """Write a benchmark file, atomically. extra: VIBE's further datasets, by name.

    Raises MissingDependencyError, RequestError without vectors, StorageError.
    """
    path = Path(path)
    if benchmark.train is None:
        raise RequestError("the benchmark has no train vectors: read it with_train=True")
    distance = {"cosine": "angular", "l2": "euclidean", "ip": "ip"}[benchmark.metric]
    h5py = _h5py()
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with storage_errors("write", path):
        try:
            with h5py.File(temporary, "w") as file:
                file.attrs["distance"] = distance
                file["train"], file["test"] = benchmark.train, benchmark.test
                file["neighbors"] = benchmark.truth.rows.astype(np.int32)
                file["distances"] = benchmark.truth.distances
                for name, values in (extra or {}).items():
                    file[name] = values
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


def _h5py() -> Any:
    try:
        return import_module("h5py")  # heavy, and an extra
    except ImportError as error:
        raise MissingDependencyError(
            "HDF5 files need the package h5py, which is not installed: pip install h5py, or convert the file to .fbin"
        ) from error


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    h5py = _h5py()
    with storage_errors("read", path):
        path.stat()
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise CorpusError(f"{path} is no whole HDF5 file: {error}; fetch it again") from error
    with file:
        yield file


def _dataset(file: Any, name: str, path: Path) -> Any:
    found = file.get(name)
    shape = getattr(found, "shape", None)
    if shape is None:
        raise CorpusError(f"{path} holds no dataset {name!r}; there are: {', '.join(sorted(file))}")
    if len(shape) != 2 or 0 in shape or found.dtype.kind not in "fiu":
        raise CorpusError(f"{path}: {name} is {found.dtype} {shape}, expected numbers (n, d); sets are not supported")
    return found


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
