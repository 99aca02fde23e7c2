"""Building an index from a stream of vectors: stored, sampled, trained, added, measured, written."""

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from index.ann import FAISS_FILE, Finder, signs
from index.ann_format import About, Calibrated, write_about
from index.calibrate import calibrate
from index.choose import resolve
from index.errors import StorageError
from index.faiss_kinds import FAMILY, make
from index.faiss_library import load_faiss
from index.held_out import Exchange, exchange_rows
from index.spec import IndexParams, IndexSpec, Kind
from index.types import Vectors
from index.vector_file import VectorFile, write_vectors

_log = logging.getLogger(__name__)

_HELD_OUT = 1_000
_HELD_OUT_SHARE = 0.1
_BLOCK_VALUES = 1 << 24
"""Values added at a time: 64 MiB of float32."""

_TRAIN_ROWS = 65_536
_TRAIN_ROWS_PER_LIST = 64


def write_index(
    folder: Path, blocks: Iterable[Vectors], dim: int, count: int, spec: IndexSpec, device: str = "cpu"
) -> About:
    """Write an index of `count` prepared vectors into an empty folder and return what it became.

    blocks: float32 (n, dim), streamed to disk first. Random choices depend on spec.seed only; graphs also on the
    order in which threads link nodes. device: where inverted lists are trained and filled, "cpu" or "cuda:0" ...; what
    is written is the same kind of index, and the CPU takes over, with a warning, where the device fails.
    Raises ShapeError where the blocks are not `count` x `dim`, ConfigError on a spec that cannot work,
    MissingDependencyError without faiss. Memory: the finished index, and about 300 MB.
    """
    write_vectors(folder, blocks, dim, count, spec.storage)
    definite, reason = resolve(spec, count, dim)
    if definite.kind == "flat":
        about = About(
            "flat", spec.metric, spec.kind, reason, IndexParams(), (), held_out=0, seed=0, faiss=None, faiss_bytes=0
        )
    else:
        about = _write_approximate(folder, definite, (spec.kind, reason), device)
    if spec.kind != "flat" or spec.storage != "float32":
        write_about(folder, about)  # plain exact search is told by its absence, as before there were other kinds
    return about


def _write_approximate(folder: Path, spec: IndexSpec, why: tuple[Kind, str], device: str) -> About:
    faiss = load_faiss()
    vectors = VectorFile.open(folder)
    held_out = min(_HELD_OUT, int(_HELD_OUT_SHARE * len(vectors)))
    exchange_rows(vectors, Exchange.sample(len(vectors), held_out, spec.seed))
    index = make(spec.kind, vectors.dim, spec.params, vectors.storage, l2=spec.metric == "l2")
    finder = Finder(spec.kind, spec.metric, vectors, index)
    built = len(vectors) - held_out
    growth = _Growth(finder, device)
    if FAMILY[spec.kind] != "signs" and not index.is_trained:
        growth.train(_sample(vectors, built, spec))
    growth.add(0, built)
    calibrated = calibrate(finder, vectors.block(built, len(vectors)), spec.recall)
    growth.add(built, len(vectors))
    _write_faiss(index, spec.kind, folder / FAISS_FILE)
    _report(spec.kind, calibrated)
    return About(
        spec.kind,
        spec.metric,
        *why,
        spec.params,
        calibrated,
        held_out=held_out,
        seed=spec.seed,
        faiss=faiss.__version__,
        faiss_bytes=(folder / FAISS_FILE).stat().st_size,
    )


def _sample(vectors: VectorFile, built: int, spec: IndexSpec) -> Vectors:
    lists = (spec.params.lists or 1) if FAMILY[spec.kind] == "lists" else 1
    size = min(built, max(_TRAIN_ROWS, _TRAIN_ROWS_PER_LIST * lists))
    chosen = np.random.default_rng(spec.seed).choice(built, size, replace=False)
    return vectors.rows(np.sort(chosen))


def _write_faiss(index: Any, kind: Kind, path: Path) -> None:
    faiss = load_faiss()
    write = faiss.write_index_binary if FAMILY[kind] == "signs" else faiss.write_index
    flags = (faiss.IO_FLAG_SKIP_STORAGE,) if kind == "hnsw" else ()
    try:
        write(index, str(path), *flags)
    except RuntimeError as error:
        raise StorageError(
            f"cannot write {path}: {error}; free space or check permissions, then run it again"
        ) from error


class _Growth:
    """Trains and fills an index, inverted lists on a device where one is given and works."""

    def __init__(self, finder: Finder, device: str) -> None:
        self._finder = finder
        self._device = device if finder.family == "lists" else "cpu"

    def train(self, sample: Vectors) -> None:
        if self._device != "cpu":
            from index.faiss_gpu import train_lists  # noqa: PLC0415  imports torch

            try:
                return train_lists(self._finder.index, sample, self._device)
            except RuntimeError as error:
                self._give_up(error)
        self._finder.index.train(sample)
        return None

    def add(self, start: int, stop: int) -> None:
        step = max(1, _BLOCK_VALUES // self._finder.vectors.dim)
        for first in range(start, stop, step):
            self._add_block(self._finder.vectors.block(first, min(first + step, stop)))

    def _add_block(self, block: Vectors) -> None:
        if self._device != "cpu":
            from index.faiss_gpu import add_to_lists  # noqa: PLC0415  imports torch

            try:
                return add_to_lists(self._finder.index, block, self._device)
            except RuntimeError as error:
                self._give_up(error)
        self._finder.index.add(signs(block) if self._finder.family == "signs" else block)
        return None

    def _give_up(self, error: RuntimeError) -> None:
        _log.warning("%s failed (%s): the index is built on the CPU instead", self._device, error)
        self._device = "cpu"


def _report(kind: Kind, calibrated: tuple[Calibrated, ...]) -> None:
    for recall in (each.recall for each in calibrated):
        level = logging.INFO if recall.reached else logging.WARNING
        missed = "" if recall.reached else ": not reached at the highest effort; use another kind or more bits per code"
        _log.log(
            level,
            "index %s: recall@%d is %.4f (at least %.4f, remotely %.4f) on %d held-out vectors, target %.2f%s",
            *(kind, recall.k, recall.measured, recall.low, recall.remote, recall.queries, recall.target, missed),
        )
