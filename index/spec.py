"""What an index is asked to be: its kind, precision, recall target and memory budget."""

from dataclasses import dataclass, field
from typing import Literal, TypeAlias, get_args

from index.errors import ConfigError
from index.metric import METRICS, Metric
from index.vector_file import Storage

Kind: TypeAlias = Literal[
    "auto",
    "flat",
    "sq8",
    "binary",
    "hnsw",
    "hnsw-sq8",
    "ivf-flat",
    "ivf-sq8",
    "ivf-pq",
    "ivf-rabitq",
]

KINDS: tuple[Kind, ...] = get_args(Kind)


@dataclass(frozen=True, slots=True)
class IndexParams:
    """Parameters of a build; None = as `index.choose` derives them from count and dimension.

    links: HNSW, neighbours of a node above the lowest layer, twice as many in it (M of Malkov & Yashunin, 2018).
    ef_construction: HNSW, candidates looked at when a node is linked.
    lists: IVF, number of inverted lists. code_bytes: IVF-PQ, bytes of one code (4 bits per sub-quantizer).
    code_bits: IVF-RaBitQ, bits per dimension, 1 to 9.
    """

    links: int | None = None
    ef_construction: int | None = None
    lists: int | None = None
    code_bytes: int | None = None
    code_bits: int | None = None

    def __post_init__(self) -> None:
        """Raise ConfigError on a value that cannot work."""
        for name, low, high in (
            ("links", 4, 128),
            ("ef_construction", 8, 4_096),
            ("lists", 1, 1 << 20),
            ("code_bytes", 1, 1 << 14),
            ("code_bits", 1, 9),
        ):
            value: int | None = getattr(self, name)
            if value is not None and not low <= value <= high:
                raise ConfigError(f"{name} is {value}, expected {low} to {high}")


@dataclass(frozen=True, slots=True)
class IndexSpec:
    """A vector index as asked for.

    storage: precision of the exact vectors, which every kind keeps for refining, filters and similarity.
    recall: target of recall@10 against exact search, measured on held-out vectors when the index is built.
    memory_gb: what "auto" may occupy once opened; None = half of this machine's memory. seed: of every random choice.
    """

    kind: Kind = "auto"
    metric: Metric = "cosine"
    storage: Storage = "float32"
    recall: float = 0.95
    memory_gb: float | None = None
    params: IndexParams = field(default_factory=IndexParams)
    seed: int = 0

    def __post_init__(self) -> None:
        """Raise ConfigError on a value that cannot work."""
        for name, allowed in (("kind", KINDS), ("metric", METRICS), ("storage", get_args(Storage))):
            value: str = getattr(self, name)
            if value not in allowed:
                raise ConfigError(f"{name} is {value!r}; allowed: {', '.join(map(repr, allowed))}")
        if not 0 < self.recall < 1:
            raise ConfigError(f"recall is {self.recall}, expected more than 0 and less than 1 (1 = kind 'flat')")
        if self.memory_gb is not None and not self.memory_gb > 0:
            raise ConfigError(f"memory_gb is {self.memory_gb}, expected more than 0")
        if self.kind == "hnsw" and self.storage == "int8":
            raise ConfigError(
                "kind 'hnsw' walks the stored vectors, expected storage float32 or float16; or 'hnsw-sq8'"
            )
        if self.kind == "binary" and self.metric != "cosine":
            raise ConfigError(f"kind 'binary' compares signs, expected metric 'cosine', got {self.metric!r}")
