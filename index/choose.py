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

_LINK_BYTES = 4
_BYTES: dict[str, float] = {"float32": 4.0, "float16": 2.0, "int8": 1.0}


def resolve(spec: IndexSpec, count: int, dim: int) -> tuple[IndexSpec, str]:
    """Return the spec with a definite kind and all parameters, and why it is this kind ("" = as asked).

    count: vectors. dim: their dimension.
    """
    if spec.kind == "flat":
        return spec, ""
    least = FLAT_ROWS if spec.kind == "auto" else _LEAST_ROWS
    if count <= least:
        return replace(spec, kind="flat"), f"{count:,} vectors: exact search up to {least:,}"
    if spec.kind != "auto":
        return _with_params(spec, spec.kind, count, dim), ""
    budget = (spec.memory_gb or machine_memory_gb() / 2) * _GIB
    kinds: tuple[Kind, ...] = (
        ("hnsw", "hnsw-sq8", "ivf-rabitq") if spec.storage != "int8" else ("hnsw-sq8", "ivf-rabitq")
    )
    for kind in kinds:
        needed = memory_bytes(kind, count, dim, spec)
        if needed <= budget or kind == kinds[-1]:
            fits = f"{needed / _GIB:.2f} of {budget / _GIB:.2f} GiB"
            return _with_params(spec, kind, count, dim), f"auto: fastest kind within the memory budget, {fits}"
    raise AssertionError("the last kind always returns")


def memory_bytes(kind: Kind, count: int, dim: int, spec: IndexSpec) -> float:
    """Return the memory in which an opened index answers without reading from disk, in bytes."""
    params = _with_params(spec, kind, count, dim).params
    links = (2 * (params.links or 0) + 2) * _LINK_BYTES
    exact = _BYTES[spec.storage] * dim
    each = {
        "hnsw": exact + links,
        "hnsw-sq8": dim + links,
        "ivf-rabitq": dim * (params.code_bits or 1) / 8 + 24,
    }.get(kind, exact)
    return count * each


def machine_memory_gb() -> float:
    """Return this machine's memory in GiB."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / _GIB


def _with_params(spec: IndexSpec, kind: Kind, count: int, dim: int) -> IndexSpec:
    given = spec.params
    # Lists of a few hundred vectors: fewer leave long scans, more leave many centroids to compare with. k-means needs
    # a vector a list, and a tenth is held out.
    lists = min(given.lists or max(1, round(4 * math.sqrt(count))), max(1, count * 9 // 10))
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
