"""Choosing a kind and its parameters from count, dimension, memory budget and recall target."""

import math
import os
from dataclasses import replace

from index.spec import IndexParams, IndexSpec, Kind

FLAT_ROWS = 20_000
"""Up to so many vectors exact search answers in a millisecond or two: nothing approximate is worth its misses."""

_LEAST_ROWS = 1_000
"""Below so many vectors there is nothing to train on or to measure with: every kind is exact search."""

_GIB = 1 << 30

_BYTES: dict[str, float] = {"float32": 4.0, "float16": 2.0, "int8": 1.0}


def resolve(spec: IndexSpec, count: int, dim: int) -> tuple[IndexSpec, str]:
    """Return the spec with a definite kind and all parameters, and why it is this kind ("" = as asked).

    count: vectors. dim: their dimension. "auto" is exact search for few vectors, a graph where it and the vectors fit
    into the memory budget, else inverted lists of RaBitQ codes. On a million vectors the graph took two thirds of the
    time of the lists at equal recall; the lists were built in a fifth of the time and take a twentieth of the memory
    (docs/log.md). A graph walks the stored vectors, so int8 storage means lists.
    """
    if spec.kind == "flat":
        return spec, ""
    least = FLAT_ROWS if spec.kind == "auto" else _LEAST_ROWS
    if count <= least:
        return replace(spec, kind="flat"), f"{count:,} vectors: exact search up to {least:,}"
    if spec.kind != "auto":
        return _with_params(spec, spec.kind, count, dim), ""
    budget = (spec.memory_gb or machine_memory_gb() / 2) * _GIB
    vectors = count * dim * _BYTES[spec.storage]
    if spec.storage != "int8":
        graph = _with_params(spec, "hnsw", count, dim)
        needed = memory_bytes(graph, count, dim) + vectors
        if needed <= budget:
            return graph, f"auto: a graph, {_gib(needed)} with its vectors, within {_gib(budget)}"
    lists = _with_params(spec, "ivf-rabitq", count, dim)
    codes = memory_bytes(lists, count, dim)
    reason = f"auto: {_gib(codes)} of codes, {_gib(vectors)} of vectors"
    if codes + vectors <= budget:
        return lists, f"{reason}, within {_gib(budget)}"
    # The vectors are mapped: those that are scored exactly are read from disk, tens to hundreds a query.
    return lists, f"{reason}, more than {_gib(budget)}: expect reads from disk, or choose a smaller storage"


def _gib(size_bytes: float) -> str:
    return f"{size_bytes / _GIB:.2f} GiB"


def memory_bytes(spec: IndexSpec, count: int, dim: int) -> float:
    """Return the memory that an opened approximate index takes beside its memory-mapped vectors, in bytes.

    spec: as `resolve` returned it.
    """
    params = spec.params
    links = (2 * (params.links or 0) + 2) * 4
    centroids = (params.lists or 0) * dim * 4
    each, fixed = {
        "sq8": (dim, 0),
        "binary": (math.ceil(dim / 8), 0),
        "hnsw": (links, 0),
        "hnsw-sq8": (dim + links, 0),
        "ivf-flat": (dim * (2 if spec.storage == "float16" else 4) + 8, centroids),
        "ivf-sq8": (dim + 8, centroids),
        "ivf-pq": ((params.code_bytes or 0) + 8, centroids),
        "ivf-rabitq": (dim * (params.code_bits or 1) / 8 + 16, centroids),
    }[spec.kind]
    return count * each + fixed


def machine_memory_gb() -> float:
    """Return this machine's memory in GiB."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / _GIB


def _with_params(spec: IndexSpec, kind: Kind, count: int, dim: int) -> IndexSpec:
    given = spec.params
    # Lists of a few hundred vectors: fewer leave long scans, more leave many centroids to compare with. k-means needs
    # a vector a list, and a tenth is held out.
    lists = min(given.lists or max(1, round(2 * math.sqrt(count))), max(1, count * 9 // 10))
    return replace(
        spec,
        kind=kind,
        params=IndexParams(
            links=given.links or 32,
            ef_construction=given.ef_construction or 128,
            lists=lists,
            code_bytes=given.code_bytes or max(1, dim // 8),
            code_bits=given.code_bits or 1,
        ),
    )
