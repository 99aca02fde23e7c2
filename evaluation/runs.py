"""The run database: what indexes under each metric were worth to a task, and what they cost.

A recommendation is learned from it. JSON Lines, append-only, one record a line: a dataset's vectors in one encoder's
space, at one size.

    {"format": 1, "dataset", "family", "space", "seed", "n", "d", "queries", "measure", "k", "one_length",
     "features": {name: number}, "machine": {...},
     "settings": [[metric, kind, {"ef": 64}, utility, low, high, recall, distances or null, bytes, milliseconds], ...]}
"""

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple

from index.durable import make_folders, storage_errors
from index.errors import CorpusError
from index.metric import METRICS, Metric
from index.spec import KINDS, Kind

FORMAT: Final = 1

FAMILIES: Final = (
    "Wikipedia questions",
    "biomedical",
    "work titles",
    "commands and code",
    "abstracts",
    "images/histograms",
    "synthetic cones",
)
"""Of datasets; named before anything was fitted. What is fitted is tested on a family that it did not see."""

_EFFORTS: Final = frozenset({"nprobe", "ef", "refine"})


class Key(NamedTuple):
    """What a record is of; each is measured once."""

    dataset: str
    space: str
    n: int
    seed: int


@dataclass(frozen=True, slots=True)
class Setting:
    """One index, searched with one effort. effort: empty = as the index was calibrated when it was built.

    utility: mean over queries, with its 95 % interval. recall: mean recall@k against exact search, ties counted as
    found. distances: vectors compared per query where faiss counts them. size_bytes: of the index's files.
    p50_ms: median latency of single queries by one thread. Raises CorpusError on what cannot be.
    """

    metric: Metric
    kind: Kind
    effort: Mapping[str, float]
    utility: float
    low: float
    high: float
    recall: float
    distances: float | None
    size_bytes: int
    p50_ms: float

    def __post_init__(self) -> None:
        if self.metric not in METRICS or self.kind not in KINDS or self.kind == "auto":
            raise CorpusError(f"setting {self.metric!r} {self.kind!r}: expected a metric and a definite kind of index")
        if self.effort.keys() - _EFFORTS:
            raise CorpusError(f"{self.name}: efforts are {', '.join(sorted(_EFFORTS))}")
        numbers = [self.utility, self.low, self.high, self.recall, self.size_bytes, self.p50_ms, *self.effort.values()]
        if not all(map(is_number, [*numbers, 0 if self.distances is None else self.distances])):
            raise CorpusError(f"{self.name}: {numbers}, {self.distances} distances: expected finite numbers")
        if not self.low <= self.utility <= self.high or not 0 <= self.recall <= 1:
            raise CorpusError(
                f"{self.name}: utility {self.utility} in [{self.low}, {self.high}], recall {self.recall}: "
                "expected the utility in its interval and a recall from 0 to 1"
            )
        if self.size_bytes < 1 or self.p50_ms <= 0 or (self.distances or 0) < 0:
            raise CorpusError(
                f"{self.name}: {self.size_bytes} bytes, {self.p50_ms} ms, {self.distances} distances: "
                "expected more than 0 bytes and milliseconds, no less than 0 distances"
            )

    @property
    def name(self) -> str:
        """Metric, kind and effort, "cosine hnsw ef=64" say."""
        return " ".join([self.metric, self.kind, *(f"{key}={value}" for key, value in sorted(self.effort.items()))])


@dataclass(frozen=True, slots=True)
class Record:
    """One dataset in one space at one size, and every setting measured there.

    space: the encoder and what was done to its vectors. n, d: documents and dimension. seed: of the sample and of every
    random choice. features: see evaluation.features, without n and d. one_length: all documents' vectors have the same
    length, so inner product, Euclidean distance and cosine order them alike, and only "cosine" was measured.
    machine: what the times are of. Raises CorpusError on what cannot be.
    """

    dataset: str
    family: str
    space: str
    seed: int
    n: int
    d: int
    queries: int
    measure: str
    k: int
    one_length: bool
    features: Mapping[str, float] = field(repr=False)
    settings: tuple[Setting, ...] = field(repr=False)
    machine: Mapping[str, str] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        if self.family not in FAMILIES:
            raise CorpusError(f"{self.name}: family {self.family!r} is none of {', '.join(FAMILIES)}")
        counts = (self.n, self.d, self.queries, self.k)
        if not all(isinstance(value, int) and value > 0 for value in counts) or not self.dataset or not self.space:
            raise CorpusError(
                f"{self.name}: n, d, queries and k are {counts}, expected whole numbers above 0 and names"
            )
        wrong = [name for name, value in self.features.items() if not is_number(value)]
        if wrong or not self.features:
            raise CorpusError(f"{self.name}: features {wrong or 'absent'}: expected a finite number for each")
        names = [setting.name for setting in self.settings]
        if not names or len(set(names)) < len(names):
            raise CorpusError(f"{self.name}: {len(names)} settings, {len(set(names))} different: expected each once")

    @property
    def key(self) -> Key:
        """What tells this record from others."""
        return Key(self.dataset, self.space, self.n, self.seed)

    @property
    def name(self) -> str:
        """The key for people."""
        return f"{self.dataset} / {self.space} / {self.n:,} documents / seed {self.seed}"

    def to_json(self) -> dict[str, Any]:
        """Return the record as one line holds it."""
        return {
            "format": FORMAT,
            **{name: getattr(self, name) for name in self.__slots__ if name not in {"settings", "features", "machine"}},
            "features": dict(self.features),
            "machine": dict(self.machine),
            "settings": [
                [
                    dict(value) if name == "effort" else value
                    for name, value in zip(_COLUMNS, _values(each), strict=True)
                ]
                for each in self.settings
            ],
        }


_COLUMNS: Final = tuple(Setting.__slots__)


def _values(setting: Setting) -> list[Any]:
    return [getattr(setting, name) for name in _COLUMNS]


def is_number(value: object) -> bool:
    """Return whether a value of JSON is a finite number, and not true or false."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def read_runs(path: str | Path) -> list[Record]:
    """Read a run database, in the order it was written.

    Raises CorpusError naming the line on anything broken, of another format or measured twice; StorageError.
    """
    path = Path(path)
    with storage_errors("read", path):
        lines = path.read_text(encoding="utf-8").splitlines()
    records: dict[Key, Record] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        record = _parsed(line, f"{path.name} line {number}")
        if record.key in records:
            raise CorpusError(f"{path.name} line {number}: {record.name} is measured twice: keep one of them")
        records[record.key] = record
    return list(records.values())


def append_run(path: str | Path, record: Record) -> None:
    """Add a record as the last line, in one durable write. Raises CorpusError where it is there already, StorageError.

    One process writes at a time.
    """
    path = Path(path)
    if path.exists() and record.key in {known.key for known in read_runs(path)}:
        raise CorpusError(f"{path} has {record.name} already: it is measured once; choose another seed")
    make_folders(path.parent)
    line = json.dumps(record.to_json(), separators=(",", ":"), allow_nan=False) + "\n"
    with storage_errors("write", path), path.open("ab") as file:
        file.write(line.encode())


def datasets(records: Iterable[Record]) -> dict[str, str]:
    """Return dataset -> family, in order of appearance; one that is in several families has its first."""
    found: dict[str, str] = {}
    for record in records:
        found.setdefault(record.dataset, record.family)
    return found


def _parsed(line: str, place: str) -> Record:
    try:
        value = json.loads(line)
        _check_format(value.pop("format"))
        settings = tuple(Setting(**dict(zip(_COLUMNS, each, strict=True))) for each in value.pop("settings"))
        return Record(**value, settings=settings)
    except CorpusError as error:
        raise CorpusError(f"{place}: {error}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CorpusError(f"{place} is no record of a run: {error!r}; remove the line") from error


def _check_format(found: object) -> None:
    if found != FORMAT:
        raise CorpusError(f"format {found!r}, this grapnel reads {FORMAT}: collect the runs again")
