"""Exact neighbours to measure recall against, kept under a hash of everything they depend on.

Stale ground truth gives recalls that look valid: content, metric, filter and depth are all part of the name.
"""

import hashlib
import logging
import os
import zipfile
from pathlib import Path

import numpy as np

from evaluation.recall import Truth, exact_scores, slack
from index.durable import make_folders, storage_errors
from index.errors import ShapeError
from index.flat import FlatIndex
from index.metric import Metric, check_vectors, prepare
from index.types import Bitmap, Vectors
from index.vector_file import VectorFile

_log = logging.getLogger(__name__)

_FORMAT = b"grapnel ground truth 1"


def truth_key(vectors: Vectors, queries: Vectors, metric: Metric, k: int, allowed: Bitmap | None = None) -> str:
    """Return 64 hex digits that differ whenever vectors, queries, metric, depth or filter do. Cost: 1 s a GB."""
    digest = hashlib.sha256(_FORMAT)
    for part in (vectors, queries, allowed):
        if part is None:
            digest.update(b"|none")
            continue
        digest.update(f"|{part.dtype.str}{part.shape}|".encode())
        digest.update(np.ascontiguousarray(part).data)
    digest.update(f"|{metric}|{k}".encode())
    return digest.hexdigest()


def exact_index(vectors: Vectors, metric: Metric) -> FlatIndex:
    """Return exact search over vectors in memory, (N, D), not yet prepared. Raises ShapeError."""
    return FlatIndex(_in_memory(prepare(check_vectors(vectors), metric)), metric)


def _in_memory(prepared: Vectors) -> VectorFile:
    return VectorFile(Path("memory"), "float32", prepared)


def exact_truth(vectors: Vectors, queries: Vectors, metric: Metric, k: int, allowed: Bitmap | None = None) -> Truth:
    """Return the k exact neighbours of each query, among the allowed rows; ties by ascending row.

    vectors float32 (N, D), queries float32 (Q, D): not yet prepared. Raises ShapeError, also on k < 1.
    Cost: Q x N x D multiplications.
    """
    if k < 1:
        raise ShapeError(f"k is {k}, expected at least 1")
    prepared, asked = prepare(check_vectors(vectors), metric), prepare(check_vectors(queries), metric)
    rows = FlatIndex(_in_memory(prepared), metric).search(queries, k, allowed).rows
    scores = exact_scores(prepared, asked, rows, metric)
    return Truth(rows, scores, slack(asked, scores))


def kept_truth(
    folder: Path, vectors: Vectors, queries: Vectors, metric: Metric, k: int, allowed: Bitmap | None = None
) -> Truth:
    """Return `exact_truth`, from `folder` where it is there already; written there otherwise, atomically.

    A file that is damaged is computed again. Raises ShapeError, StorageError.
    """
    key = truth_key(vectors, queries, metric, k, allowed)
    path = folder / f"truth-{key}.npz"
    known = _read(path, len(queries), k)
    if known is not None:
        return known
    truth = exact_truth(vectors, queries, metric, k, allowed)
    make_folders(folder)
    temporary = folder / f".{path.name}.{os.getpid()}.tmp"
    with storage_errors("write", path):
        try:
            with temporary.open("wb") as file:
                np.savez(file, rows=truth.rows, scores=truth.scores, slack=truth.slack)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    return truth


def _read(path: Path, count: int, k: int) -> Truth | None:
    if not path.is_file():
        return None
    try:
        with storage_errors("read", path), path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
            truth = Truth(file["rows"], file["scores"], file["slack"])
    except (ValueError, KeyError, EOFError, zipfile.BadZipFile):
        _log.warning("%s is damaged: the exact neighbours are computed again", path)
        return None
    return truth if truth.rows.shape == (count, k) else None
