"""Other libraries' indexes behind one shape, each optional and imported when it is asked for.

    rival = open_rival("hnswlib")
    rival.build(vectors, metric, params, threads); rival.save(folder)
    rival.open(folder, metric, dim, threads);      rival.search(queries, k, {"ef": 64}) -> rows int64 (Q, k)

Vectors and queries are prepared (index.metric.prepare), so "cosine" is each library's inner product. `links` is M above
the lowest layer and 2 M in it, in all graphs named HNSW. Settings of a search that a library does not know are refused.
"""

import json
import shutil
from collections.abc import Callable, Mapping
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final, Protocol, TypeAlias

import numpy as np

from index.errors import ConfigError, MissingDependencyError
from index.metric import Metric
from index.spec import IndexParams
from index.types import Rows, Vectors

Settings: TypeAlias = Mapping[str, float]
"""Effort of a search by name: ef, nprobe, refine or epsilon; empty = the index's own choice where it has one."""

_FILE = "index.bin"


class Rival(Protocol):
    """An index of another library."""

    @property
    def settings(self) -> tuple[str, ...]:
        """What a search may be given."""
        ...

    def build(self, vectors: Vectors, metric: Metric, params: IndexParams, threads: int) -> None:
        """Build over prepared vectors (N, D). params: links, ef_construction and lists are given."""
        ...

    def save(self, folder: Path) -> None:
        """Write the index into an empty folder."""
        ...

    def open(self, folder: Path, metric: Metric, shape: tuple[int, int], threads: int) -> None:
        """Read what `save` wrote. shape: of the vectors, (N, D)."""
        ...

    def search(self, queries: Vectors, k: int, settings: Settings) -> Rows:
        """Return the k near rows of each prepared query, int64 (Q, k), padded with -1."""
        ...


class Hnswlib:
    """hnswlib (Malkov & Yashunin's own). Settings: ef."""

    settings = ("ef",)

    def __init__(self) -> None:
        self._library = _imported("hnswlib")

    def build(self, vectors: Vectors, metric: Metric, params: IndexParams, threads: int) -> None:
        """See Rival."""
        self._index = self._library.Index(space=_space(metric, "ip", "l2"), dim=vectors.shape[1])
        self._index.init_index(
            max_elements=len(vectors), M=params.links, ef_construction=params.ef_construction, random_seed=0
        )
        self._index.set_num_threads(threads)
        self._index.add_items(vectors)

    def save(self, folder: Path) -> None:
        """See Rival."""
        self._index.save_index(str(folder / _FILE))

    def open(self, folder: Path, metric: Metric, shape: tuple[int, int], threads: int) -> None:
        """See Rival."""
        self._index = self._library.Index(space=_space(metric, "ip", "l2"), dim=shape[1])
        self._index.load_index(str(folder / _FILE))
        self._index.set_num_threads(threads)
        self._count = shape[0]

    def search(self, queries: Vectors, k: int, settings: Settings) -> Rows:
        """See Rival."""
        wanted = min(k, self._count)
        # Kept in the index, not in the call; fewer than k would be an error.
        self._index.set_ef(max(wanted, int(settings["ef"])))
        return _padded(self._index.knn_query(queries, wanted)[0], k)


class Usearch:
    """usearch. Settings: ef."""

    settings = ("ef",)

    def __init__(self) -> None:
        self._library = _imported("usearch")

    def build(self, vectors: Vectors, metric: Metric, params: IndexParams, threads: int) -> None:
        """See Rival."""
        self._index = self._library.Index(
            ndim=vectors.shape[1],
            metric=_space(metric, "ip", "l2sq"),
            dtype="f32",
            connectivity=params.links,
            expansion_add=params.ef_construction,
        )
        self._index.add(np.arange(len(vectors)), np.asarray(vectors), threads=threads)

    def save(self, folder: Path) -> None:
        """See Rival."""
        self._index.save(str(folder / _FILE))

    def open(self, folder: Path, metric: Metric, shape: tuple[int, int], threads: int) -> None:  # noqa: ARG002
        """See Rival."""
        self._index = self._library.Index.restore(str(folder / _FILE))
        self._threads, self._count = threads, shape[0]

    def search(self, queries: Vectors, k: int, settings: Settings) -> Rows:
        """See Rival."""
        self._index.expansion_search = int(settings["ef"])
        found = self._index.search(queries, min(k, self._count), threads=self._threads)
        rows = np.asarray(found.keys).reshape(len(queries), -1).astype(np.int64)
        if len(queries) > 1:  # one query's answer has no count, and is as long as what was found
            rows[np.arange(rows.shape[1]) >= np.asarray(found.counts)[:, None]] = -1
        return _padded(rows, k)


class Scann:
    """scann: a partition with anisotropic quantisation and exact reordering. Settings: nprobe (leaves), refine.

    Parameters as in the project's own guidance: 2 dimensions a code, threshold .2.
    """

    settings = ("nprobe", "refine")

    def __init__(self) -> None:
        self._library = _imported("scann")

    def build(self, vectors: Vectors, metric: Metric, params: IndexParams, threads: int) -> None:
        """See Rival."""
        lists = params.lists or 1
        builder = self._library.scann_ops_pybind.builder(
            np.asarray(vectors), 10, _space(metric, "dot_product", "squared_l2")
        )
        builder = builder.set_n_training_threads(threads).tree(
            num_leaves=lists, num_leaves_to_search=max(1, lists // 20), training_sample_size=len(vectors)
        )
        self._index = builder.score_ah(2, anisotropic_quantization_threshold=0.2).reorder(100).build()

    def save(self, folder: Path) -> None:
        """See Rival."""
        self._index.serialize(str(folder))

    def open(self, folder: Path, metric: Metric, shape: tuple[int, int], threads: int) -> None:  # noqa: ARG002
        """See Rival."""
        self._index = self._library.scann_ops_pybind.load_searcher(str(folder))
        self._index.set_num_threads(threads)
        self._threads, self._count = threads, shape[0]

    def search(self, queries: Vectors, k: int, settings: Settings) -> Rows:
        """See Rival."""
        search = self._index.search_batched if self._threads == 1 else self._index.search_batched_parallel
        wanted = min(k, self._count)
        rows, distances = search(
            queries,
            final_num_neighbors=wanted,
            pre_reorder_num_neighbors=max(wanted, int(settings.get("refine", wanted))),
            leaves_to_search=int(settings["nprobe"]),
        )
        found = rows.astype(np.int64)
        found[~np.isfinite(distances)] = -1
        return _padded(found, k)


class Voyager:
    """voyager. Settings: ef."""

    settings = ("ef",)

    def __init__(self) -> None:
        self._library = _imported("voyager")

    def build(self, vectors: Vectors, metric: Metric, params: IndexParams, threads: int) -> None:
        """See Rival."""
        space = self._library.Space
        self._index = self._library.Index(
            _space(metric, space.InnerProduct, space.Euclidean),
            num_dimensions=vectors.shape[1],
            M=params.links,
            ef_construction=params.ef_construction,
            random_seed=0,
            max_elements=len(vectors),
        )
        self._index.add_items(np.asarray(vectors), num_threads=threads)

    def save(self, folder: Path) -> None:
        """See Rival."""
        self._index.save(str(folder / _FILE))

    def open(self, folder: Path, metric: Metric, shape: tuple[int, int], threads: int) -> None:  # noqa: ARG002
        """See Rival."""
        self._index = self._library.Index.load(str(folder / _FILE))
        self._threads, self._count = threads, shape[0]

    def search(self, queries: Vectors, k: int, settings: Settings) -> Rows:
        """See Rival."""
        wanted = min(k, self._count)
        found = self._index.query(queries, wanted, num_threads=self._threads, query_ef=max(wanted, int(settings["ef"])))
        return _padded(found[0], k)


class Pyvsag:
    """pyvsag's HNSW. Settings: ef. One query a call: its Python interface has no batch, so threads do not help."""

    settings = ("ef",)

    def __init__(self) -> None:
        self._library = _imported("pyvsag")

    def _made(self, dim: int, metric: Metric, params: IndexParams) -> Any:
        about = {
            "dtype": "float32",
            "metric_type": _space(metric, "ip", "l2"),
            "dim": dim,
            "hnsw": {"max_degree": 2 * (params.links or 0), "ef_construction": params.ef_construction},
        }
        return self._library.Index("hnsw", json.dumps(about))

    def build(self, vectors: Vectors, metric: Metric, params: IndexParams, threads: int) -> None:  # noqa: ARG002
        """See Rival."""
        self._params = params
        self._index = self._made(vectors.shape[1], metric, params)
        self._index.build(
            vectors=np.asarray(vectors), ids=np.arange(len(vectors)), num_elements=len(vectors), dim=vectors.shape[1]
        )

    def save(self, folder: Path) -> None:
        """See Rival."""
        self._index.save(str(folder / _FILE))
        links = {"links": self._params.links, "ef_construction": self._params.ef_construction}
        (folder / "params.json").write_text(json.dumps(links), encoding="utf-8")

    def open(self, folder: Path, metric: Metric, shape: tuple[int, int], threads: int) -> None:  # noqa: ARG002
        """See Rival."""
        params = IndexParams(**json.loads((folder / "params.json").read_text(encoding="utf-8")))
        self._index = self._made(shape[1], metric, params)
        self._index.load(str(folder / _FILE))
        self._count = shape[0]

    def search(self, queries: Vectors, k: int, settings: Settings) -> Rows:
        """See Rival."""
        wanted = min(k, self._count)
        effort = json.dumps({"hnsw": {"ef_search": max(wanted, int(settings["ef"]))}})
        found = np.full((len(queries), k), -1, np.int64)
        for place, query in enumerate(queries):
            ids = self._index.knn_search(vector=query, k=wanted, parameters=effort)[0]
            found[place, : len(ids)] = ids
        return found


class Ngt:
    """NGT's ANNG. Settings: epsilon, by which share the explored radius exceeds the k-th distance. One query a call."""

    settings = ("epsilon",)

    def __init__(self) -> None:
        self._library = _imported("ngt")

    def build(self, vectors: Vectors, metric: Metric, params: IndexParams, threads: int) -> None:
        """See Rival. links: edges of a node."""
        import tempfile  # noqa: PLC0415  NGT builds in a folder of its own

        self._folder = tempfile.TemporaryDirectory()
        path = str(Path(self._folder.name) / "ngt")
        self._library.create(
            path,
            vectors.shape[1],
            edge_size_for_creation=params.links,
            distance_type=_space(metric, "Inner Product", "L2"),
        )
        self._index = self._library.Index(path)
        self._index.batch_insert(np.asarray(vectors), threads)
        self._index.save()

    def save(self, folder: Path) -> None:
        """See Rival."""
        shutil.copytree(Path(self._folder.name) / "ngt", folder / "ngt")
        self._index.close()
        self._folder.cleanup()

    def open(self, folder: Path, metric: Metric, shape: tuple[int, int], threads: int) -> None:  # noqa: ARG002
        """See Rival."""
        self._index = self._library.Index(str(folder / "ngt"), read_only=True)
        self._count = shape[0]

    def search(self, queries: Vectors, k: int, settings: Settings) -> Rows:
        """See Rival."""
        found = np.full((len(queries), k), -1, np.int64)
        for place, query in enumerate(queries):
            ids = [each[0] for each in self._index.search(query, min(k, self._count), float(settings["epsilon"]))]
            found[place, : len(ids)] = ids
        return found


RIVALS: Final[dict[str, Callable[[], Rival]]] = {
    "hnswlib": Hnswlib,
    "usearch": Usearch,
    "scann": Scann,
    "voyager": Voyager,
    "pyvsag": Pyvsag,
    "ngt": Ngt,
}


_MODULES: Final = {"usearch": "usearch.index", "ngt": "ngtpy"}
"""What is imported, where it is not called as the package is."""


def open_rival(name: str) -> Rival:
    """Return a library's adapter. Raises ConfigError on an unknown one, MissingDependencyError naming the package."""
    require(name)
    return RIVALS[name]()


def require(name: str) -> None:
    """Raise ConfigError where no adapter has this name, MissingDependencyError where its package is not installed.

    Cost: no import.
    """
    if name not in RIVALS:
        raise ConfigError(f"library {name!r} is unknown; known: grapnel, {', '.join(RIVALS)}")
    if name not in installed():
        raise MissingDependencyError(
            f"the package {name} is not installed: pip install {name}, or leave its configurations out"
        )


def installed() -> list[str]:
    """Return the names of the rivals that are installed. Cost: no import."""
    return [name for name in RIVALS if find_spec(_MODULES.get(name, name).partition(".")[0]) is not None]


def _imported(name: str) -> Any:
    return import_module(_MODULES.get(name, name))


def _space(metric: Metric, product: Any, distance: Any) -> Any:
    return distance if metric == "l2" else product


def _padded(rows: Any, k: int) -> Rows:
    found = np.asarray(rows)
    # Unsigned ids may stand for "none" by their greatest value, which becomes -1.
    found = found.astype(np.int64) if found.dtype != np.uint32 else found.view(np.int32).astype(np.int64)
    short = k - found.shape[1]
    return np.pad(found, ((0, 0), (0, short)), constant_values=-1) if short > 0 else found
