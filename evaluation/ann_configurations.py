"""Which indexes the ANN arm builds, and with which efforts it searches them."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from evaluation.ann_child import OURS
from evaluation.ann_rivals import RIVALS, Settings
from index.choose import resolve
from index.errors import ConfigError
from index.faiss_kinds import EXACT_SCORES, FAMILY
from index.metric import Metric
from index.spec import KINDS, IndexParams, IndexSpec, Kind
from index.vector_file import Storage

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_RESERVED = ("single", "all-cores")

_GRAPH_EFFORTS = (16, 32, 64, 128, 256, 512)
_LIST_EFFORTS = (1, 4, 16, 64)
_REFINES = (1, 4, 16)
"""Candidates scored exactly, as multiples of k."""

_EPSILONS = (0.0, 0.05, 0.1, 0.2, 0.4)

OUR_KINDS: tuple[Kind, ...] = tuple(kind for kind in KINDS if kind != "auto")


@dataclass(frozen=True, slots=True)
class Configuration:
    """One index to build, and the settings to search it with.

    library: "grapnel" or one of evaluation.ann_rivals.RIVALS. kind, storage, recall: of ours (see IndexSpec).
    params: what is None is chosen as for ours. settings: per search ef, nprobe, refine, epsilon; an empty one is our
    index's own calibrated effort. Raises ConfigError on what cannot work.
    """

    name: str
    library: str = OURS
    kind: Kind = "hnsw"
    storage: Storage = "float32"
    recall: float = 0.95
    params: IndexParams = field(default_factory=IndexParams)
    settings: tuple[Settings, ...] = ({},)

    def __post_init__(self) -> None:
        """Raise ConfigError on what cannot work."""
        if not _NAME.fullmatch(self.name) or self.name in _RESERVED:
            raise ConfigError(
                f"configuration {self.name!r}: expected a folder's name of letters, digits, '.', '_' and '-'"
            )
        if self.library != OURS and self.library not in RIVALS:
            raise ConfigError(f"{self.name}: library {self.library!r} is unknown; known: {OURS}, {', '.join(RIVALS)}")
        if self.library == OURS and self.kind == "auto":
            raise ConfigError(f"{self.name}: kind 'auto' is a choice, not an index: name the kind")
        if not self.settings or (self.library != OURS and not all(self.settings)):
            raise ConfigError(f"{self.name}: no settings to search with; an empty one means something for {OURS} only")


def configurations(
    count: int, k: int, metric: Metric = "cosine", kinds: Sequence[Kind] = OUR_KINDS
) -> list[Configuration]:
    """Return our kinds with sweeps of effort that suit `count` vectors; where these are too few, exact search only.

    Kinds that score codes are swept over candidates scored exactly as well.
    """
    found = []
    for kind in kinds:
        if kind == "binary" and metric != "cosine":
            continue
        definite, _ = resolve(IndexSpec(kind, metric), count, 1)
        if definite.kind == "flat" != kind:
            continue
        sweep = [] if kind == "flat" else _sweep(kind, k, definite.params.lists or 1)
        found.append(Configuration(kind, kind=kind, settings=({}, *sweep)))
    return found


def rivals(names: Iterable[str], k: int) -> list[Configuration]:
    """Return other libraries' indexes with sweeps of effort."""
    graph = tuple({"ef": ef} for ef in _graph_efforts(k))
    sweeps: dict[str, tuple[Settings, ...]] = {
        "scann": tuple({"nprobe": float(n), "refine": float(16 * k)} for n in _LIST_EFFORTS),
        "ngt": tuple({"epsilon": epsilon} for epsilon in _EPSILONS),
    }
    return [Configuration(name, library=name, settings=sweeps.get(name, graph)) for name in names]


def _graph_efforts(k: int) -> list[float]:
    return sorted({float(max(k, ef)) for ef in _GRAPH_EFFORTS})


def _sweep(kind: Kind, k: int, lists: int) -> list[Settings]:
    family = FAMILY[kind]
    mains: list[dict[str, float]] = [{}]
    if family == "graph":
        mains = [{"ef": ef} for ef in _graph_efforts(k)]
    elif family == "lists":
        mains = [{"nprobe": float(n)} for n in sorted({min(lists, n) for n in (*_LIST_EFFORTS, lists)})]
    if kind in EXACT_SCORES:
        return list(mains)
    # A graph search keeps as many candidates as are scored exactly, so these are an effort by themselves.
    factors = _REFINES[1:2] if family == "graph" else _REFINES
    return [{**main, "refine": float(factor * k)} for main in mains for factor in factors]
