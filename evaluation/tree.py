"""The decision tree that guesses an arm from meta-features: fitted by scikit-learn, kept as JSON, read by this module.

Using it takes neither scikit-learn nor a pickle. A leaf says which runs it rests on; away from what was measured the
tree abstains.
"""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt

from evaluation.regret import ARMS, Arm, regrets
from evaluation.runs import Record, datasets, is_number
from index.choose import FLAT_ROWS
from index.durable import storage_errors, write_json_atomic
from index.errors import CorpusError, IndexFormatError
from index.types import Rows

FORMAT: Final = 1

SHIPPED: Final = Path(__file__).parent / "data" / "tree.json"
RUNS: Final = Path(__file__).parent / "data" / "runs.jsonl"

MAX_DEPTH: Final = 4
LEAST_RECORDS: Final = 5
"""Records in a leaf at least."""

WORDS: Final[Mapping[str, str]] = {
    "size": "documents",
    "d": "dimension",
    "norm_cv": "spread of lengths",
    "mean_ratio": "share of the common mean",
    "ra_pair_deg": "degrees between random pairs",
    "effective_rank": "effective rank",
    "lid": "local dimension",
    "rc_10": "contrast of neighbours",
    "s10_ip": "hubs under ip",
    "s10_l2": "hubs under l2",
    "s10_cosine": "hubs under cosine",
}
"""What the tree may look at (see evaluation.features), for people. "size": documents, at most 20,000: beyond, exact
search is no choice anyway. Davies-Bouldin indexes are left out: on a narrow cone they hang on the clustering's seed."""

FEATURES: Final = tuple(WORDS)

FEATURE_SAMPLE: Final = 2_000
"""Vectors that features are measured on, in the runs as in use: hubs grow with the sample."""

_NOVELTY: Final = 0.95
_SLACK: Final = 0.1
"""Share of a feature's range that a value may lie outside of it."""

_EVIDENCE: Final = 1e-6
"""A record on which all arms are alike still counts, if for nothing else, as evidence."""

Values: TypeAlias = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Leaf:
    """An answer. records, datasets: the evidence; regret: the arm's mean regret on these records."""

    arm: Arm
    records: int
    regret: float
    datasets: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Split:
    """A question: is the feature, as float32, at most the threshold? Then `below`, otherwise `above`."""

    feature: str
    threshold: float
    below: "Split | Leaf"
    above: "Split | Leaf"


@dataclass(frozen=True, slots=True, eq=False)
class Support:
    """Where runs were measured: features of every record, by arcsinh (linear near 0, logarithmic far out).

    names: of the records. rows: float64 (R, F), less `centre`, over `scale`. centre, scale, low, high: float64 (F,).
    reach: as far as 95 % of the records are from the nearest record of another dataset.
    """

    names: tuple[str, ...]
    rows: Values = field(repr=False)
    centre: Values = field(repr=False)
    scale: Values = field(repr=False)
    low: Values = field(repr=False)
    high: Values = field(repr=False)
    reach: float

    def stranger(self, values: Values) -> str | None:
        """Return why features (F,) are unlike all that was measured, None where they are not."""
        grown = np.arcsinh(values)
        slack = _SLACK * (self.high - self.low)
        outside = np.flatnonzero((grown < self.low - slack) | (grown > self.high + slack))
        if len(outside):
            first = int(outside[0])
            low, high = np.sinh([self.low[first], self.high[first]])
            return f"{FEATURES[first]} is {values[first]:.4g}, the runs have {low:.4g} to {high:.4g}"
        distances = np.sqrt((((grown - self.centre) / self.scale - self.rows) ** 2).sum(axis=1))
        nearest = int(distances.argmin())
        if distances[nearest] <= self.reach:
            return None
        return (
            f"the nearest run, {self.names[nearest]}, is {distances[nearest]:.2f} standard deviations away, "
            f"datasets are {self.reach:.2f} from each other"
        )


@dataclass(frozen=True, slots=True)
class Guess:
    """What the tree says. arm: None = it abstains. path: the conditions that led there; why: for people."""

    arm: Arm | None
    path: tuple[str, ...]
    why: str


@dataclass(frozen=True, slots=True, eq=False)
class Tree:
    """A fitted tree with its support. datasets: dataset -> family, what it was fitted to; records: how many."""

    root: Split | Leaf
    support: Support = field(repr=False)
    datasets: Mapping[str, str]
    records: int

    def arm(self, values: Values) -> Arm:
        """Return the arm of features float64 (F,) in the order of FEATURES, wherever they lie."""
        return self._walk(values)[1].arm

    def guess(self, features: Mapping[str, float]) -> Guess:
        """Return the arm for the features of evaluation.features, or an abstention. Raises nothing: it abstains."""
        described = described_by(features)
        missing = [name for name in FEATURES if name not in described]
        if missing:
            return Guess(None, (), f"the vectors have no {', '.join(missing)}: abstained")
        values = np.array([described[name] for name in FEATURES])
        strange = self.support.stranger(values)
        if strange is not None:
            return Guess(None, (), f"abstained: {strange}")
        path, leaf = self._walk(values)
        evidence = f"{leaf.records} runs of {len(leaf.datasets)} datasets with such vectors"
        return Guess(leaf.arm, path, f"{evidence}, mean regret {leaf.regret:.4f}")

    def _walk(self, values: Values) -> tuple[tuple[str, ...], Leaf]:
        node, path = self.root, []
        given = dict(zip(FEATURES, values, strict=True))
        while isinstance(node, Split):
            below = float(np.float32(given[node.feature])) <= node.threshold  # as scikit-learn compares
            sign = "<=" if below else ">"
            path.append(f"{WORDS[node.feature]} ({node.feature}) {given[node.feature]:.3g} {sign} {node.threshold:.3g}")
            node = node.below if below else node.above
        return tuple(path), node

    def text(self) -> str:
        """Return the tree as indented lines, each leaf with its evidence."""
        heading = f"fitted to {self.records} runs of {len(self.datasets)} datasets"
        return "\n".join([heading, *_lines(self.root, "")])

    def to_json(self) -> dict[str, Any]:
        """Return what `from_json` reads."""
        support = self.support
        return {
            "format": FORMAT,
            "features": list(FEATURES),
            "records": self.records,
            "datasets": dict(self.datasets),
            "tree": _node_json(self.root),
            "support": {
                "reach": support.reach,
                **{name: getattr(support, name).tolist() for name in ("centre", "scale", "low", "high")},
                "rows": {name: row.tolist() for name, row in zip(support.names, support.rows, strict=True)},
            },
        }


def _lines(node: Split | Leaf, indent: str) -> Iterator[str]:
    if isinstance(node, Leaf):
        evidence = f"{node.records} runs, regret {node.regret:.4f}: {', '.join(node.datasets)}"
        yield f"{indent}{node.arm}  ({evidence})"
        return
    for sign, child in (("<=", node.below), (">", node.above)):
        yield f"{indent}{node.feature} {sign} {node.threshold:.4g}"
        yield from _lines(child, indent + "    ")


def _node_json(node: Split | Leaf) -> dict[str, Any]:
    if isinstance(node, Leaf):
        datasets = list(node.datasets)
        return {"arm": list(node.arm), "records": node.records, "regret": node.regret, "datasets": datasets}
    below, above = _node_json(node.below), _node_json(node.above)
    return {"feature": node.feature, "threshold": node.threshold, "below": below, "above": above}


def described_by(features: Mapping[str, float]) -> dict[str, float]:
    """Return the tree's features from those of evaluation.features."""
    known = {name: features[name] for name in FEATURES if name in features}
    return {**known, "size": min(features["n"], float(FLAT_ROWS))} if "n" in features else known


def values_of(record: Record) -> Values:
    """Return a record's features, float64 (F,). Raises CorpusError where one is missing."""
    described = described_by({**record.features, "n": float(record.n), "d": float(record.d)})
    missing = [name for name in FEATURES if name not in described]
    if missing:
        raise CorpusError(f"{record.name} lacks the features {', '.join(missing)}: collect it again, or leave it out")
    return np.array([described[name] for name in FEATURES])


def fit_tree(records: Sequence[Record], *, depth: int = MAX_DEPTH, least: int = LEAST_RECORDS, seed: int = 0) -> Tree:
    """Fit a tree that minimises the total regret of its leaves; each dataset counts the same.

    Splits whose two leaves say the same are leaves.

    Raises CorpusError on runs of fewer than two datasets. Needs scikit-learn. Cost: milliseconds.
    """
    fitted = fit_classifier(records, depth=depth, least=least, seed=seed)
    values = np.stack([values_of(record) for record in records])
    costs = np.stack([regrets(record) for record in records])
    leaves = fitted.apply(values.astype(np.float32))
    raw = fitted.tree_

    def leaf(arm: Arm, inside: Rows) -> Leaf:
        found = tuple(dict.fromkeys(records[place].dataset for place in inside.tolist()))
        return Leaf(arm, len(inside), float(costs[inside, ARMS.index(arm)].mean()), found)

    def node(number: int) -> tuple[Split | Leaf, Rows]:
        if raw.children_left[number] < 0:
            inside = np.flatnonzero(leaves == number)
            return leaf(ARMS[int(raw.value[number][0].argmax())], inside), inside
        (below, lower), (above, upper) = node(int(raw.children_left[number])), node(int(raw.children_right[number]))
        inside = np.sort(np.concatenate([lower, upper]))
        if isinstance(below, Leaf) and isinstance(above, Leaf) and below.arm == above.arm:
            return leaf(below.arm, inside), inside  # the question changes nothing
        return Split(FEATURES[raw.feature[number]], float(raw.threshold[number]), below, above), inside

    return Tree(node(0)[0], _support(records, values), datasets(records), len(records))


def fit_classifier(records: Sequence[Record], *, depth: int, least: int, seed: int) -> Any:
    """Return scikit-learn's DecisionTreeClassifier over FEATURES, fitted; its classes are places in ARMS.

    Every record enters once for each arm, weighted by the regret that this arm saves over the worst: so the class with
    the greatest weight in a leaf is the arm with the least mean regret, near ties decide nothing, and what fails badly
    decides most. Raises as `fit_tree`.
    """
    from sklearn.tree import DecisionTreeClassifier  # type: ignore[import-untyped]  # noqa: PLC0415  heavy

    if len(datasets(records)) < 2:
        raise CorpusError(f"{len(records)} runs of {len(datasets(records))} datasets, expected at least two datasets")
    values = np.stack([values_of(record) for record in records])
    costs = np.stack([regrets(record) for record in records])
    counts = Counter(record.dataset for record in records)
    shares = np.array([1 / counts[record.dataset] for record in records])
    weights = (costs.max(axis=1, keepdims=True) - costs + _EVIDENCE) * shares[:, None]
    arms = len(ARMS)
    fitted = DecisionTreeClassifier(max_depth=depth, min_samples_leaf=least * arms, random_state=seed)
    classes = np.tile(np.arange(arms), len(records))
    return fitted.fit(np.repeat(values, arms, axis=0), classes, sample_weight=weights.ravel())


def _support(records: Sequence[Record], values: Values) -> Support:
    grown = np.arcsinh(values)
    centre, scale = grown.mean(axis=0), grown.std(axis=0)
    scale[scale == 0] = 1.0
    rows = (grown - centre) / scale
    names = np.array([record.dataset for record in records])
    apart = np.sqrt(((rows[:, None, :] - rows[None, :, :]) ** 2).sum(axis=2))
    apart[names[:, None] == names[None, :]] = np.inf
    reach = float(np.quantile(apart.min(axis=1), _NOVELTY))
    places = tuple(record.name for record in records)
    return Support(places, rows, centre, scale, grown.min(axis=0), grown.max(axis=0), reach)


def write_tree(path: str | Path, tree: Tree) -> None:
    """Write a tree as JSON, atomically. Raises StorageError."""
    write_json_atomic(Path(path), tree.to_json(), point="evaluation.tree")


def read_tree(path: str | Path = SHIPPED) -> Tree:
    """Read a tree, by default the one that ships. Raises IndexFormatError on damage or another format, StorageError."""
    path = Path(path)
    with storage_errors("read", path):
        content = path.read_bytes()
    try:
        return from_json(json.loads(content))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise IndexFormatError(f"{path} is no tree of this grapnel ({error}): fit it again") from error


def from_json(value: Mapping[str, Any]) -> Tree:
    """Return the tree that `to_json` gave. Raises ValueError, KeyError or TypeError on anything else."""
    if value["format"] != FORMAT or value["features"] != list(FEATURES):
        raise ValueError(f"format {value['format']!r} with features {value['features']}")
    support = value["support"]
    columns = {name: np.array(support[name], dtype=np.float64) for name in ("centre", "scale", "low", "high")}
    rows = np.array(list(support["rows"].values()), dtype=np.float64)
    if rows.ndim != 2 or any(column.shape != (len(FEATURES),) for column in [*columns.values(), *rows]):
        raise ValueError(f"support of shape {rows.shape}")
    named = tuple(support["rows"])
    return Tree(
        _node(value["tree"]),
        Support(named, rows, reach=float(support["reach"]), **columns),
        dict(value["datasets"]),
        int(value["records"]),
    )


def _node(value: Mapping[str, Any]) -> Split | Leaf:
    if "arm" in value:
        arm = Arm(*value["arm"])
        if arm not in ARMS:
            raise ValueError(f"arm {value['arm']}")
        return Leaf(arm, int(value["records"]), float(value["regret"]), tuple(value["datasets"]))
    if value["feature"] not in FEATURES or not is_number(value["threshold"]):
        raise ValueError(f"split on {value['feature']!r} at {value['threshold']!r}")
    return Split(value["feature"], float(value["threshold"]), _node(value["below"]), _node(value["above"]))


def tree_policy(known: Sequence[Record], asked: Sequence[Record]) -> list[Arm | None]:
    """Fit a tree to what is known and guess for what is asked about; a Policy of evaluation.regret."""
    tree = fit_tree(known)
    return [tree.guess({**each.features, "n": float(each.n), "d": float(each.d)}).arm for each in asked]
