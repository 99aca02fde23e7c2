"""What a choice of metric and index family costs a task, and who chooses how well: regret, on families not seen.

An arm is a metric and a family of indexes (exact search, a graph, inverted lists), run at the fastest effort that finds
95 % of what exact search finds. Its value is the task's utility there, less 0.005 for every doubling of a query's
latency beyond a millisecond; regret is by how much the chosen arm's value is below the best arm's.
Datasets of a family are left out together, and with them whatever was made from the same datasets.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal, NamedTuple, TypeAlias

import numpy as np

from evaluation.iceberg_rule import Measured, choose
from evaluation.runs import FAMILIES, Record, Setting
from evaluation.statistics import MARGIN, Comparison, Interval, Values, bootstrap_intervals, paired_columns
from index.errors import RequestError
from index.faiss_kinds import FAMILY
from index.metric import Metric
from index.spec import Kind

IndexFamily: TypeAlias = Literal["graph", "exact", "lists"]


class Arm(NamedTuple):
    """What a recommendation chooses among."""

    metric: Metric
    family: IndexFamily

    def __str__(self) -> str:
        return f"{self.metric} {self.family}"


ARMS: Final = tuple(Arm(metric, family) for metric in ("cosine", "l2", "ip") for family in ("exact", "graph", "lists"))
"""Of arms that are worth the same the first is meant: cosine before others, as it does not depend on lengths, and exact
search before what may miss."""

ALWAYS_HNSW: Final = Arm("cosine", "graph")

PRICE: Final = MARGIN
"""Utility that a query may lose for taking half the time: the difference that does not matter to users."""

NOTICED_MS: Final = 1.0
"""Latency below which no time is saved that matters: encoding the query takes several times as long."""

TARGET: Final = 0.95
"""Recall of the effort at which an arm counts, the one that builds calibrate to by default. One effort, named
beforehand: the best of many by utility would be the luckiest. An arm that nowhere finds so much has its deepest one."""

_ICEBERG: Final[Mapping[str, IndexFamily]] = {"partition": "lists", "graph": "graph"}

Policy: TypeAlias = Callable[[Sequence[Record], Sequence[Record]], list[Arm | None]]
"""(what is known, what is asked about) -> an arm for each that is asked about; None = it abstains."""


def family_of(kind: Kind) -> IndexFamily:
    """Return the family of an index kind; codes that are all looked at count as exact search."""
    if kind == "flat" or FAMILY[kind] in {"scan", "signs"}:
        return "exact"
    return "graph" if FAMILY[kind] == "graph" else "lists"


def arm_values(record: Record) -> Values:
    """Return the value of every arm on a record, float64 (A,), in the order of ARMS.

    A family without a setting is worth what exact search is: that is what few vectors get, whatever was asked for.
    Raises RequestError where exact search was not measured under a metric.
    """
    grouped: dict[Arm, list[Setting]] = {}
    for setting in record.settings:
        for metric in ("cosine", "l2", "ip") if record.one_length else (setting.metric,):
            grouped.setdefault(Arm(metric, family_of(setting.kind)), []).append(setting)
    best = {arm: _value(settings) for arm, settings in grouped.items()}
    missing = [arm.metric for arm in ARMS if arm.family == "exact" and arm not in best]
    if missing:
        raise RequestError(f"{record.name}: exact search is not measured under {', '.join(missing)}: collect it again")
    return np.array([best.get(arm, best[Arm(arm.metric, "exact")]) for arm in ARMS])


def _value(settings: Sequence[Setting]) -> float:
    enough = min(TARGET, max(setting.recall for setting in settings))
    used = min((setting for setting in settings if setting.recall >= enough), key=lambda setting: setting.p50_ms)
    return used.utility - PRICE * math.log2(max(NOTICED_MS, used.p50_ms))


def regrets(record: Record) -> Values:
    """Return the regret of every arm on a record, float64 (A,), at least 0 and once 0."""
    values = arm_values(record)
    return np.asarray(values.max() - values)


def best_single(known: Sequence[Record]) -> Arm:
    """Return the arm with the least mean regret over datasets. Raises RequestError without any record."""
    return ARMS[int(_per_dataset(known, np.stack([regrets(record) for record in known])).mean(axis=0).argmin())]


def held_out(records: Sequence[Record], family: str) -> tuple[list[Record], list[Record]]:
    """Return (known, held): the records of a family, and those that have neither it nor any of its datasets."""
    held = [record for record in records if record.family == family]
    seen = {record.dataset for record in held}
    return [record for record in records if record.family != family and record.dataset not in seen], held


@dataclass(frozen=True, slots=True, eq=False)
class Standing:
    """How well a policy chooses. mean: regret over datasets, with its 95 % interval by resampling datasets.

    families: mean regret by family. abstained: share of the records on which it does; the best single arm of what is
    known is taken there. versus_tree: its regret minus the tree's, paired by dataset; None for the tree itself.
    """

    mean: float
    interval: Interval
    families: Mapping[str, float]
    abstained: float = 0.0
    versus_tree: Comparison | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Scores:
    """Standings by policy: "tree", "always-hnsw", "iceberg", "best-single", "oracle". datasets, records: how many.

    left_out: families whose datasets are all that there is, so that nothing is known without them.
    """

    standings: Mapping[str, Standing]
    datasets: int
    records: int
    left_out: tuple[str, ...] = field(default=())

    def sentences(self) -> list[str]:
        """Return what there is to say, plainly also where the tree is not the better choice."""
        tree = self.standings["tree"]
        heading = f"On {self.datasets} datasets of {len(tree.families)} families, each family left out of the fit: "
        heading += f"regret of the tree {_with(tree.mean, tree.interval)}; "
        said = [f"{heading}it abstains on {100 * tree.abstained:.0f} % of the records."]
        for name, other in self.standings.items():
            found = other.versus_tree
            if found is None or name == "oracle":
                continue
            if found.low > 0:
                verdict = "the tree's is lower"
            elif found.high < 0:
                verdict = "the tree's is HIGHER"
            else:
                verdict = "no difference is shown: the tree is NOT below it beyond chance"
            above = _with(found.difference, Interval(found.low, found.high))
            said.append(f"{name}: {_with(other.mean, other.interval)}, {above} above the tree: {verdict}.")
        return said


def _with(mean: float, interval: Interval) -> str:
    return f"{mean:.4f} [{interval.low:.4f}, {interval.high:.4f}]"


def always_hnsw(known: Sequence[Record], asked: Sequence[Record]) -> list[Arm | None]:  # noqa: ARG001  one shape
    """Choose a graph under cosine, whatever the data; a Policy."""
    return [ALWAYS_HNSW for _ in asked]


def iceberg(known: Sequence[Record], asked: Sequence[Record]) -> list[Arm | None]:  # noqa: ARG001  one shape
    """Choose by the published rule (evaluation.iceberg_rule); a Policy."""
    choices = [choose(Measured.of(dict(record.features))) for record in asked]
    return [Arm(choice.metric, _ICEBERG[choice.family]) for choice in choices]


def single(known: Sequence[Record], asked: Sequence[Record]) -> list[Arm | None]:
    """Choose the arm that is best on what is known; a Policy."""
    return [best_single(known)] * len(asked)


def oracle(known: Sequence[Record], asked: Sequence[Record]) -> list[Arm | None]:  # noqa: ARG001  one shape
    """Choose the best, having seen the answers: regret 0 by definition; a Policy."""
    return [ARMS[int(regrets(record).argmin())] for record in asked]


def leave_family_out(records: Sequence[Record], tree: Policy, *, seed: int = 0) -> Scores:
    """Return what each policy's choices cost on families that it did not see.

    tree: fits itself to what is known. A policy that abstains gets the best single arm of what is known.
    Raises RequestError on fewer than two families or datasets. Cost: one fit of each policy a family.
    """
    present = [family for family in FAMILIES if any(record.family == family for record in records)]
    splits = {family: held_out(records, family) for family in present}
    lonely = tuple(family for family, (known, _) in splits.items() if not known)
    splits = {family: split for family, split in splits.items() if split[0]}
    if len(splits) < 2:
        raise RequestError(f"runs of {present}: expected those of at least two families, or none can be left out")
    policies: dict[str, Policy] = {
        "tree": tree,
        "always-hnsw": always_hnsw,
        "iceberg": iceberg,
        "best-single": single,
        "oracle": oracle,
    }
    asked = [record for _, held in splits.values() for record in held]
    costs, silent = np.empty((len(asked), len(policies))), np.zeros((len(asked), len(policies)))
    for column, policy in enumerate(policies.values()):
        place = 0
        for known, held in splits.values():
            for record, arm in zip(held, policy(known, held), strict=True):
                costs[place, column] = regrets(record)[ARMS.index(arm or best_single(known))]
                silent[place, column] = arm is None
                place += 1
    per_dataset = _per_dataset(asked, costs)
    groups = list(_groups(asked))
    intervals = bootstrap_intervals(per_dataset, seed=seed)
    compared = paired_columns(per_dataset[:, 1:], np.repeat(per_dataset[:, :1], len(policies) - 1, axis=1), seed=seed)
    standings = {}
    for column, name in enumerate(policies):
        mine = {
            family: float(np.mean([per_dataset[row, column] for row, group in enumerate(groups) if group[0] == family]))
            for family in splits
        }
        standings[name] = Standing(
            float(per_dataset[:, column].mean()),
            intervals[column],
            mine,
            float(silent[:, column].mean()),
            None if column == 0 else compared[column - 1],
        )
    return Scores(standings, len(groups), len(asked), lonely)


def _groups(records: Sequence[Record]) -> dict[tuple[str, str], list[int]]:
    """Return places of the records of each dataset in each family."""
    found: dict[tuple[str, str], list[int]] = {}
    for place, record in enumerate(records):
        found.setdefault((record.family, record.dataset), []).append(place)
    return found


def _per_dataset(records: Sequence[Record], values: Values) -> Values:
    """Return the means of values (R, C) over each dataset's records, float64 (D, C)."""
    return np.stack([values[places].mean(axis=0) for places in _groups(records).values()])
