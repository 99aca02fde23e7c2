"""The approximate kinds in faiss's terms: how each is made, and which settings of a search it understands."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal, TypeAlias

from index.faiss_library import load_faiss
from index.spec import IndexParams, Kind
from index.types import Effort
from index.vector_file import Storage

Family: TypeAlias = Literal["graph", "lists", "scan", "signs"]

FAMILY: dict[Kind, Family] = {
    "hnsw": "graph",
    "hnsw-sq8": "graph",
    "ivf-flat": "lists",
    "ivf-sq8": "lists",
    "ivf-pq": "lists",
    "ivf-rabitq": "lists",
    "sq8": "scan",
    "binary": "signs",
}

EXACT_SCORES = frozenset({"hnsw", "ivf-flat"})
"""Kinds that compute the scores of the stored vectors; the others find candidates, which are then scored exactly."""


def make(kind: Kind, dim: int, params: IndexParams, storage: Storage, *, l2: bool) -> Any:
    """Return an empty faiss index. params: what the kind needs is given (see index.choose)."""
    faiss = load_faiss()
    if kind == "binary":
        return faiss.IndexBinaryFlat(-(-dim // 8) * 8)
    flat = "SQfp16" if storage == "float16" else "Flat"
    parts = _sub_quantizers(dim, params)
    factory = {
        "sq8": "SQ8",
        "hnsw": f"HNSW{params.links},{flat}",
        "hnsw-sq8": f"HNSW{params.links},SQ8",
        "ivf-flat": f"IVF{params.lists},{flat}",
        "ivf-sq8": f"IVF{params.lists},SQ8",
        "ivf-pq": f"IVF{params.lists},PQ{parts}x4{_fast(parts)}",
        "ivf-rabitq": f"IVF{params.lists},RaBitQ{_fast(dim // 4)}"
        + (f"{params.code_bits}" if params.code_bits != 1 else ""),
    }[kind]
    index = faiss.index_factory(dim, factory, faiss.METRIC_L2 if l2 else faiss.METRIC_INNER_PRODUCT)
    if FAMILY[kind] == "graph":
        index.hnsw.efConstruction = params.ef_construction
    elif FAMILY[kind] == "lists":
        if kind == "ivf-flat" and storage == "float16":
            index.by_residual = False  # so that codes are the stored vectors
        if kind == "ivf-pq" and not _fast(parts):
            index.do_polysemous_training = False  # minutes, for a search by Hamming distance that nobody does
        index.cp.min_points_per_centroid = 1  # how many are enough is decided here, not by a line on standard error
    return index


def _fast(terms: int) -> str:
    """Return the suffix of FastScan where it can be used: it sums up bytes in 16 bits, which wrap around after 257."""
    return "fs" if terms <= 256 else ""


def _sub_quantizers(dim: int, params: IndexParams) -> int:
    """Return the largest divisor of the dimension that keeps a code within the bytes asked for, at 4 bits each."""
    most = min(dim, 2 * (params.code_bytes or 1))
    return next(parts for parts in range(most, 0, -1) if dim % parts == 0)


def parameters(family: Family, effort: Effort, wanted: int, selector: Any | None) -> Any:
    """Return faiss's search parameters. wanted: candidates asked for; a graph search keeps at least as many."""
    return _plain(family, effort, wanted) if selector is None else _made(family, effort, wanted, selector)


@lru_cache(256)
def _plain(family: Family, effort: Effort, wanted: int) -> Any:
    # faiss only reads them, so searches share them.
    return _made(family, effort, wanted, None)


def _made(family: Family, effort: Effort, wanted: int, selector: Any | None) -> Any:
    faiss = load_faiss()
    if family == "graph":
        return faiss.SearchParametersHNSW(efSearch=max(effort.ef or 1, wanted), sel=selector)
    if family == "lists":
        return faiss.SearchParametersIVF(nprobe=effort.nprobe or 1, sel=selector)
    return faiss.SearchParameters(sel=selector) if selector is not None else None


@dataclass(frozen=True, slots=True)
class Range:
    """What one setting of an Effort may be, as calibration searches it."""

    low: int
    high: int


def effort_range(family: Family, lists: int, k: int) -> Range | None:
    """Return the range of the family's main setting: ef of graphs, at least k; nprobe of lists; scans have none."""
    if family == "graph":
        return Range(k, 4_096)
    return Range(1, lists) if family == "lists" else None


def with_main(family: Family, effort: Effort, value: int) -> Effort:
    """Return `effort` with its family's main setting replaced."""
    if family == "graph":
        return Effort(effort.nprobe, value, effort.refine)
    return Effort(value, effort.ef, effort.refine)
