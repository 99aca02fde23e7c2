"""Every rival behind one call: ours, faiss bare on the same open files, plain faiss in memory, hnswlib, usearch.

    search(queries float32 (Q, D), k, effort) -> ids int64 (Q, k);  rows(ids) -> row numbers, for measuring recall

effort: {"ef" | "nprobe" | "refine": int}; an empty one means the rival's default.

The graph parameters mean the same in all four: M links above the lowest layer and 2 M in it (faiss: nb_neighbors(0) =
64 for HNSW32; hnswlib: maxM0 = 2 M; usearch: connectivity_base = 2 connectivity), so M is handed on as it is.
"""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from speed_vectors import read_blocks

from index.ann import FAISS_FILE, AnnIndex
from index.ann_format import About, read_about
from index.faiss_kinds import EXACT_SCORES, FAMILY, make
from index.flat import FlatIndex
from index.spec import IndexParams, Kind
from index.types import Effort, Rows, Vectors
from index.vector_file import VectorFile

METRIC = "cosine"
EffortOf = Mapping[str, int]


class Rival(Protocol):
    def search(self, queries: Vectors, k: int, effort: EffortOf) -> npt.NDArray[Any]: ...

    def rows(self, ids: npt.NDArray[Any]) -> Rows: ...


def open_ours(folder: Path) -> Any:
    """Open what write_index wrote, as retrieval.build.open_dense does."""
    about = read_about(folder)
    return FlatIndex.open(folder, METRIC) if about is None or about.kind == "flat" else AnnIndex.open(folder, METRIC)


def default_effort(about: About, k: int) -> dict[str, int]:
    """What a search for k takes unless told otherwise."""
    effort = about.effort(k)
    named = {"nprobe": effort.nprobe, "ef": effort.ef, "refine": effort.refine}
    return {name: value for name, value in named.items() if value is not None}


class Ours:
    def __init__(self, folder: Path) -> None:
        self.index = open_ours(folder)

    def search(self, queries: Vectors, k: int, effort: EffortOf) -> npt.NDArray[Any]:
        return self.index.search(queries, k, effort=Effort(**effort) if effort else None).rows

    def rows(self, ids: npt.NDArray[Any]) -> Rows:
        return ids


class Faiss:
    """faiss as its users call it: an index, exact refining over `flat` where the kind needs it, parameters made once.

    Parameters of an effort are made on its first call and kept, as a careful user would. flat: the exact vectors, kept
    as long as faiss reads from them.
    """

    def __init__(self, kind: Kind, index: Any, flat: Any, refining: Any, exchange: Any) -> None:
        import faiss  # noqa: PLC0415  heavy; and the process's threads are set before

        self._faiss = faiss
        self.kind, self.index, self.flat, self.exchange = kind, index, flat, exchange
        self._refining = refining
        self._made: dict[tuple[int, tuple[tuple[str, int], ...]], Any] = {}

    @classmethod
    def bare(cls, ours: AnnIndex) -> "Faiss":
        """The very objects that our index has open: what is left is the wrapper."""
        import faiss  # noqa: PLC0415

        finder = ours._finder
        kind = ours.about.kind
        if kind in EXACT_SCORES or FAMILY[kind] == "signs":
            return cls(kind, finder.index, finder.vectors, None, ours._exchange)
        from index.faiss_view import FaissView  # noqa: PLC0415

        view = FaissView(finder.vectors, l2=False)
        refining = faiss.IndexRefine(finder.index, view.index)
        return cls(kind, finder.index, view, refining, ours._exchange)

    @classmethod
    def in_memory(cls, folder: Path, kind: Kind, exchange: Any) -> "Faiss":
        """The same index read the plain way: codes or graph and the exact vectors in this process's own memory."""
        import faiss  # noqa: PLC0415

        file = VectorFile.open(folder)
        signs = FAMILY.get(kind) == "signs"
        if kind == "flat":
            index = faiss.IndexFlatIP(file.dim)
        elif signs:
            index = faiss.read_index_binary(str(folder / FAISS_FILE))
        else:
            index = faiss.read_index(str(folder / FAISS_FILE))
        if kind in {"ivf-flat", "binary"}:
            return cls(kind, index, file, None, exchange)
        flat = index if kind == "flat" else faiss.IndexFlatIP(file.dim)
        for block in read_blocks(file.path):
            flat.add(block)
        if kind == "flat":
            return cls(kind, index, file, None, exchange)
        if kind == "hnsw":
            index.storage, index.own_fields = flat, False
            return cls(kind, index, flat, None, exchange)
        return cls(kind, index, flat, faiss.IndexRefine(index, flat), exchange)

    def search(self, queries: Vectors, k: int, effort: EffortOf) -> npt.NDArray[Any]:
        if FAMILY.get(self.kind) == "signs":
            return self._by_signs(queries, k, effort)
        key = (k, tuple(sorted(effort.items())))
        if key not in self._made:
            self._made[key] = self.parameters(k, effort)
        return self.search_with(queries, k, self._made[key])

    def search_with(self, queries: Vectors, k: int, params: Any) -> npt.NDArray[Any]:
        return (self._refining or self.index).search(queries, k, params=params)[1]

    def _by_signs(self, queries: Vectors, k: int, effort: EffortOf) -> npt.NDArray[Any]:
        """faiss has no exact refining over binary codes: the shortest numpy that does it."""
        candidates = max(k, effort.get("refine", 0))
        _, ids = self.index.search(np.packbits(queries > 0, axis=1), candidates)
        result = np.empty((len(queries), k), dtype=np.int64)
        for place, (query, mine) in enumerate(zip(queries, ids, strict=True)):
            scores = self.flat.raw[mine] @ query
            result[place] = mine[np.argsort(-scores)[:k]]
        return result

    def parameters(self, k: int, effort: EffortOf, selector: Any = None) -> Any:
        """faiss's parameters of a search; with a selector, of the positions it lets through."""
        faiss, family = self._faiss, FAMILY.get(self.kind)
        candidates = k if self.kind in EXACT_SCORES else max(k, effort.get("refine", 0))
        inner = None
        if family == "graph":
            inner = faiss.SearchParametersHNSW(efSearch=max(effort.get("ef", 16), candidates), sel=selector)
        elif family == "lists":
            inner = faiss.SearchParametersIVF(nprobe=effort.get("nprobe", 1), sel=selector)
        if self._refining is None:
            return inner
        # A quarter more than the quotient's rounding error: faiss takes int(k * k_factor) candidates.
        factor = (candidates + 0.25) / k
        return faiss.IndexRefineSearchParameters(k_factor=factor, base_index_params=inner)

    def rows(self, ids: npt.NDArray[Any]) -> Rows:
        return self.exchange.apply(ids) if self.exchange is not None else ids


class Hnswlib:
    def __init__(self, path: Path, dim: int, threads: int) -> None:
        import hnswlib  # noqa: PLC0415

        self.index = hnswlib.Index(space="ip", dim=dim)
        self.index.load_index(str(path))
        self.index.set_num_threads(threads)
        self._ef = 0

    def search(self, queries: Vectors, k: int, effort: EffortOf) -> npt.NDArray[Any]:
        if effort["ef"] != self._ef:
            self._ef = effort["ef"]
            self.index.set_ef(self._ef)
        return self.index.knn_query(queries, k)[0]

    def rows(self, ids: npt.NDArray[Any]) -> Rows:
        return ids.astype(np.int64)


class Usearch:
    def __init__(self, path: Path, threads: int) -> None:
        from usearch.index import Index  # noqa: PLC0415

        self.index = Index.restore(str(path))
        self._threads = threads

    def search(self, queries: Vectors, k: int, effort: EffortOf) -> npt.NDArray[Any]:
        if effort["ef"] != self.index.expansion_search:
            self.index.expansion_search = effort["ef"]
        keys = self.index.search(queries, k, threads=self._threads).keys
        return keys.reshape(len(queries), -1)

    def rows(self, ids: npt.NDArray[Any]) -> Rows:
        return ids.astype(np.int64)


def build_faiss(base: Path, kind: Kind, params: IndexParams, count: int, dim: int, target: Path) -> float:
    """The same index built by plain faiss calls, streamed from the same file; seconds. Its search is not measured."""
    import faiss  # noqa: PLC0415

    start = time.perf_counter()
    signs = FAMILY.get(kind) == "signs"
    index = faiss.IndexFlatIP(dim) if kind == "flat" else make(kind, dim, params, "float32", l2=False)
    if not signs and not index.is_trained:
        size = min(count, max(65_536, 64 * (params.lists or 1)))
        chosen = np.random.default_rng(0).choice(count, size, replace=False)
        index.train(np.load(base, mmap_mode="r")[np.sort(chosen)])
    for block in read_blocks(base, 1 << 15):
        index.add(np.packbits(block > 0, axis=1) if signs else block)
    (faiss.write_index_binary if signs else faiss.write_index)(index, str(target))
    return time.perf_counter() - start


def build_hnswlib(base: Path, params: IndexParams, count: int, dim: int, target: Path) -> float:
    import hnswlib  # noqa: PLC0415

    start = time.perf_counter()
    index = hnswlib.Index(space="ip", dim=dim)
    index.init_index(max_elements=count, M=params.links, ef_construction=params.ef_construction, random_seed=0)
    index.set_num_threads(2)
    for block in read_blocks(base, 1 << 15):
        index.add_items(block)
    index.save_index(str(target))
    return time.perf_counter() - start


def build_usearch(base: Path, params: IndexParams, dim: int, target: Path) -> float:
    from usearch.index import Index  # noqa: PLC0415

    start = time.perf_counter()
    index = Index(ndim=dim, metric="ip", dtype="f32", connectivity=params.links, expansion_add=params.ef_construction)
    first = 0
    for block in read_blocks(base, 1 << 15):
        index.add(np.arange(first, first + len(block)), block, threads=2)
        first += len(block)
    index.save(str(target))
    return time.perf_counter() - start
