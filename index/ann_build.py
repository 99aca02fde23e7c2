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


def write_index(folder: Path, blocks: Iterable[Vectors], dim: int, count: int, spec: IndexSpec) -> About:
    """Write an index of `count` prepared vectors into an empty folder and return what it became.

    blocks: float32 (n, dim), streamed to disk first. Random choices depend on spec.seed only; graphs also on the
    order in which threads link nodes.
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
        about = _write_approximate(folder, definite, spec.kind, reason)
    if spec.kind != "flat" or spec.storage != "float32":
        write_about(folder, about)  # plain exact search is told by its absence, as before there were other kinds
    return about


def _write_approximate(folder: Path, spec: IndexSpec, asked: Kind, reason: str) -> About:
    faiss = load_faiss()
    vectors = VectorFile.open(folder)
    held_out = min(_HELD_OUT, int(_HELD_OUT_SHARE * len(vectors)))
    exchange_rows(vectors, Exchange.sample(len(vectors), held_out, spec.seed))
    index = make(spec.kind, vectors.dim, spec.params, vectors.storage, l2=spec.metric == "l2")
    finder = Finder(spec.kind, spec.metric, vectors, index)
    built = len(vectors) - held_out
    if FAMILY[spec.kind] != "signs" and not index.is_trained:
        index.train(_sample(vectors, built, spec))
    _add(finder, 0, built)
    calibrated = calibrate(finder, vectors.block(built, len(vectors)), spec.recall)
    _add(finder, built, len(vectors))
    write = faiss.write_index_binary if FAMILY[spec.kind] == "signs" else faiss.write_index
    flags = (faiss.IO_FLAG_SKIP_STORAGE,) if spec.kind == "hnsw" else ()
    write(index, str(folder / FAISS_FILE), *flags)
    _report(spec.kind, calibrated)
    return About(
        spec.kind,
        spec.metric,
        asked,
        reason,
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


def _add(finder: Finder, start: int, stop: int) -> None:
    step = max(1, _BLOCK_VALUES // finder.vectors.dim)
    for first in range(start, stop, step):
        block: Any = finder.vectors.block(first, min(first + step, stop))
        finder.index.add(signs(block) if finder.family == "signs" else block)


def _report(kind: Kind, calibrated: tuple[Calibrated, ...]) -> None:
    for recall in (each.recall for each in calibrated):
        level = logging.INFO if recall.reached else logging.WARNING
        missed = "" if recall.reached else ": not reached at the highest effort; use another kind or more bits per code"
        _log.log(
            level,
            "index %s: recall@%d is %.4f (at least %.4f) on %d held-out vectors, target %.2f%s",
            *(kind, recall.k, recall.measured, recall.low, recall.queries, recall.target, missed),
        )
