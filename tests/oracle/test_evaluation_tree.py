"""The interpreter against scikit-learn, leaves against brute force, leave-one-family-out against its promise."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluation.iceberg_rule import Measured, choose
from evaluation.regret import (
    ALWAYS_HNSW,
    ARMS,
    Arm,
    arm_values,
    best_single,
    family_of,
    held_out,
    leave_family_out,
    regrets,
)
from evaluation.runs import FAMILIES, Record, Setting, append_run, read_runs
from evaluation.tree import (
    FEATURES,
    Leaf,
    Split,
    described_by,
    fit_classifier,
    fit_tree,
    from_json,
    read_tree,
    tree_policy,
    values_of,
    write_tree,
)
from index.errors import CorpusError, IndexFormatError, RequestError

FAMILY_KIND = {"graph": "hnsw", "exact": "flat", "lists": "ivf-rabitq"}
OTHER = {"dbi_euclidean": 2.0, "dbi_cosine": 2.0, "ra_mean_deg": 80.0, "rc_1": 2.0}


def made(dataset: str, family: str, values: Sequence[float], worth: Sequence[float], seed: int = 0) -> Record:
    """A record with these features and these arm values: every search takes a millisecond, which costs nothing."""
    found = dict(zip(FEATURES, values, strict=True))
    points = tuple(
        Setting(arm.metric, FAMILY_KIND[arm.family], {}, each, each, each, 1.0, None, 1, 1.0)  # type: ignore[arg-type]
        for arm, each in zip(ARMS, worth, strict=True)
    )
    rest = {name: value for name, value in found.items() if name not in {"size", "d"}}
    return Record(
        dataset, family, "s", seed, round(found["size"]), round(found["d"]), 10, "P@10", 10, False, OTHER | rest, points
    )


def random_records(seed: int, count: int = 60) -> list[Record]:
    rng = np.random.default_rng(seed)
    records = []
    for number in range(count):
        values = rng.lognormal(size=len(FEATURES))
        values[:2] = rng.integers(1_000, 20_000), rng.integers(8, 512)
        worth = 0.5 + 0.1 * rng.normal(size=len(ARMS)) + 0.3 * (values[2] > 1) * (np.arange(len(ARMS)) == 4)
        family = FAMILIES[number % len(FAMILIES)]
        records.append(made(f"{family}-{number % 3}", family, values.tolist(), worth.tolist(), number))
    return records


@pytest.mark.parametrize("seed", range(3))
def test_the_interpreter_says_what_scikit_learn_predicts(seed: int, tmp_path: Path) -> None:
    records = random_records(seed)
    fitted = fit_classifier(records, depth=4, least=5, seed=0)
    tree = fit_tree(records)
    write_tree(tmp_path / "tree.json", tree)
    again = read_tree(tmp_path / "tree.json")
    rng = np.random.default_rng(seed + 100)
    rows = rng.lognormal(sigma=2, size=(2_000, len(FEATURES)))
    used = fitted.tree_.feature >= 0
    assert used.sum() > 3
    for place, (feature, threshold) in enumerate(
        zip(fitted.tree_.feature[used], fitted.tree_.threshold[used], strict=True)
    ):  # on, just below and just above every threshold
        for step, value in enumerate((threshold, np.nextafter(threshold, 0), np.nextafter(threshold, np.inf))):
            rows[3 * place + step, feature] = value
    rows = np.concatenate([rows, np.stack([values_of(record) for record in records])])
    expected = [ARMS[place] for place in fitted.predict(rows)]
    assert [tree.arm(row) for row in rows] == expected
    assert [again.arm(row) for row in rows] == expected
    assert json.loads((tmp_path / "tree.json").read_text()) == tree.to_json() == again.to_json()


def leaves(node: Split | Leaf) -> list[Leaf]:
    return [node] if isinstance(node, Leaf) else leaves(node.below) + leaves(node.above)


def splits(node: Split | Leaf) -> list[Split]:
    return [] if isinstance(node, Leaf) else [node, *splits(node.below), *splits(node.above)]


def test_every_leaf_takes_the_arm_of_least_regret_and_says_on_what_evidence() -> None:
    records = random_records(7)
    tree = fit_tree(records)
    inside: dict[int, list[Record]] = {}
    for record in records:
        node = tree.root
        while isinstance(node, Split):
            value = dict(zip(FEATURES, values_of(record), strict=True))[node.feature]
            node = node.below if value <= node.threshold else node.above
        inside.setdefault(id(node), []).append(record)
    assert all(len({leaf.arm for leaf in leaves(node)}) > 1 for node in splits(tree.root))
    counts = {record.dataset: sum(other.dataset == record.dataset for other in records) for record in records}
    assert len(inside) == len(leaves(tree.root)) > 2
    for leaf in leaves(tree.root):
        mine = inside[id(leaf)]
        weighted = sum(regrets(record) / counts[record.dataset] for record in mine)
        assert ARMS[int(np.argmin(weighted))] == leaf.arm
        assert len(mine) == leaf.records >= 5
        assert {record.dataset for record in mine} == set(leaf.datasets)
        assert leaf.regret == pytest.approx(np.mean([regrets(record)[ARMS.index(leaf.arm)] for record in mine]))


def test_ties_go_to_cosine() -> None:
    records = [made(f"d{number % 4}", FAMILIES[number % 2], [2_000, *[1.0] * 10], [0.5] * 9) for number in range(12)]
    tree = fit_tree([Record(**{**fields(record), "seed": number}) for number, record in enumerate(records)])
    assert {leaf.arm.metric for leaf in leaves(tree.root)} == {"cosine"}


def fields(record: Record) -> dict[str, object]:
    return {name: getattr(record, name) for name in Record.__slots__}


def test_it_abstains_outside_the_range_and_far_from_every_run_and_says_why() -> None:
    tree = fit_tree(random_records(1))
    inside = dict(OTHER) | dict.fromkeys(FEATURES, 1.0) | {"n": 5_000.0, "d": 100.0}
    inside.pop("size")
    assert tree.guess(inside).arm is not None
    assert tree.guess(inside).path
    outside = tree.guess({**inside, "norm_cv": 1e4})
    assert outside.arm is None
    assert "norm_cv is 1e+04, the runs have" in outside.why
    corner = tree.guess(
        {name: float(value) for name, value in zip(FEATURES, np.sinh(tree.support.high), strict=True)} | {"n": 19_000.0}
    )
    assert corner.arm is None
    assert "standard deviations away" in corner.why
    incomplete = tree.guess({name: value for name, value in inside.items() if name != "lid"})
    assert (incomplete.arm, incomplete.why) == (None, "the vectors have no lid: abstained")


def test_large_collections_are_within_the_support_of_small_runs() -> None:
    assert described_by({"n": 5e6})["size"] == 20_000


def test_what_was_fitted_is_within_its_own_support() -> None:
    records = random_records(2)
    tree = fit_tree(records)
    found = [tree.guess({**record.features, "n": record.n, "d": record.d}) for record in records]
    assert sum(guess.arm is None for guess in found) == 0


@pytest.mark.parametrize("damage", ["", "[]", "{}", '{"format": 9, "features": []}'])
def test_a_damaged_tree_is_refused(tmp_path: Path, damage: str) -> None:
    (tmp_path / "tree.json").write_text(damage)
    with pytest.raises(IndexFormatError, match=r"tree.json is no tree of this grapnel .*: fit it again"):
        read_tree(tmp_path / "tree.json")


def test_a_tree_of_unknown_arms_or_features_is_refused() -> None:
    value = fit_tree(random_records(1)).to_json()
    with pytest.raises(ValueError, match="arm"):
        from_json({**value, "tree": {"arm": ["dot", "graph"], "records": 1, "regret": 0, "datasets": []}})
    with pytest.raises(ValueError, match="split on 'colour'"):
        from_json({**value, "tree": {"feature": "colour", "threshold": 1, "below": {}, "above": {}}})


def test_the_value_of_an_arm_is_that_of_its_fastest_effort_that_finds_enough_less_the_price_of_time() -> None:
    base = random_records(1)[0]
    settings_ = (
        Setting("cosine", "flat", {}, 0.50, 0, 1, 1.0, None, 1, 4.0),
        Setting("cosine", "sq8", {}, 0.496, 0, 1, 0.95, None, 1, 2.0),  # codes, all looked at: .496 - .005 * log2(2)
        Setting("cosine", "hnsw", {"ef": 16}, 0.60, 0, 1, 0.949, None, 1, 0.25),  # misses too much to count
        Setting("cosine", "hnsw", {"ef": 64}, 0.495, 0, 1, 0.95, None, 1, 0.5),  # below 1 ms: .495
        Setting("cosine", "hnsw", {"ef": 128}, 0.60, 0, 1, 0.99, None, 1, 0.6),  # worth more by luck: not asked for
        Setting("cosine", "ivf-pq", {"nprobe": 1}, 0.45, 0, 1, 0.5, None, 1, 0.1),
        Setting("cosine", "ivf-pq", {"nprobe": 8}, 0.48, 0, 1, 0.8, None, 1, 1.0),  # the deepest lists there are
    )
    record = Record(**{**fields(base), "one_length": True, "settings": settings_})  # type: ignore[arg-type]
    values = dict(zip(ARMS, arm_values(record).tolist(), strict=True))
    for metric in ("cosine", "l2", "ip"):  # all alike where vectors have one length
        assert values[Arm(metric, "exact")] == pytest.approx(0.491)
        assert values[Arm(metric, "graph")] == pytest.approx(0.495)
        assert values[Arm(metric, "lists")] == pytest.approx(0.48)
    few = Record(**{**fields(base), "one_length": True, "settings": settings_[:1]})  # type: ignore[arg-type]
    assert (arm_values(few) == 0.49).all()  # few vectors are searched exactly, whatever is asked for
    with pytest.raises(RequestError, match="exact search is not measured under l2, ip"):
        arm_values(Record(**{**fields(record), "one_length": False}))  # type: ignore[arg-type]
    assert family_of("ivf-pq") == "lists"


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from(FAMILIES))
def test_what_is_known_shares_neither_family_nor_dataset_with_what_is_held_out(seed: int, family: str) -> None:
    rng = np.random.default_rng(seed)
    base = random_records(1, 1)[0]
    records = [
        Record(
            **{
                **fields(base),
                "family": str(rng.choice(FAMILIES)),
                "dataset": str(rng.choice(list("abcdefgh"))),
                "seed": n,
            }
        )  # type: ignore[arg-type]
        for n in range(25)
    ]
    known, held = held_out(records, family)
    assert all(record.family == family for record in held)
    assert len(held) == sum(record.family == family for record in records)
    assert not {record.family for record in known} & {record.family for record in held}
    assert not {record.dataset for record in known} & {record.dataset for record in held}


def test_no_policy_is_fitted_to_what_it_is_asked_about() -> None:
    records = random_records(3)
    asked_about: list[str] = []

    def spy(known: Sequence[Record], asked: Sequence[Record]) -> list[Arm | None]:
        assert known
        assert not {record.dataset for record in known} & {record.dataset for record in asked}
        families = {record.family for record in asked}
        assert len(families) == 1
        assert not families & {record.family for record in known}
        asked_about.extend(record.name for record in asked)
        return tree_policy(known, asked)

    scores = leave_family_out(records, spy)
    assert sorted(asked_about) == sorted(record.name for record in records)
    assert scores.records == len(records)


def test_standings_are_means_over_datasets_of_what_the_choices_cost() -> None:
    records = random_records(5)
    scores = leave_family_out(records, lambda _, asked: [None for _ in asked])
    assert scores.standings["oracle"].mean == 0
    assert scores.standings["tree"].abstained == 1
    # Who always abstains gets the best single arm of what is known.
    assert scores.standings["tree"].mean == scores.standings["best-single"].mean
    by_dataset: dict[str, list[float]] = {}
    iceberg: dict[str, list[float]] = {}
    for record in records:
        by_dataset.setdefault(record.dataset, []).append(float(regrets(record)[ARMS.index(ALWAYS_HNSW)]))
        rule = choose(Measured.of(dict(record.features)))
        arm = Arm(rule.metric, "lists" if rule.family == "partition" else "graph")
        iceberg.setdefault(record.dataset, []).append(float(regrets(record)[ARMS.index(arm)]))
    for name, expected in (("always-hnsw", by_dataset), ("iceberg", iceberg)):
        standing = scores.standings[name]
        assert standing.mean == pytest.approx(np.mean([np.mean(values) for values in expected.values()]))
        assert standing.interval.low <= standing.mean <= standing.interval.high
    assert scores.datasets == len(by_dataset)
    said = " ".join(scores.sentences())
    assert "it abstains on 100 % of the records" in said
    assert "best-single" in said
    assert "the tree is NOT below it beyond chance" in said


def test_a_tree_that_knows_beats_what_does_not_look() -> None:
    """Where a feature tells which arm is best, in every family, the tree finds it on families that it did not see."""
    rng = np.random.default_rng(0)
    records = []
    for number in range(84):
        family = FAMILIES[number % 7]
        values = [float(rng.integers(2_000, 9_000)), 64.0, *rng.uniform(0, 1, len(FEATURES) - 2).tolist()]
        good = 1 if values[2] > 0.5 else 5
        worth = [0.9 if place == good else 0.4 for place in range(len(ARMS))]
        records.append(made(f"{family}-{number % 4}", family, values, worth, number))
    scores = leave_family_out(records, tree_policy)
    assert scores.standings["tree"].mean < 0.1
    assert scores.standings["always-hnsw"].mean > 0.2
    assert any("always-hnsw" in line and "the tree's is lower" in line for line in scores.sentences())


def test_too_little_to_learn_from() -> None:
    one = [record for record in random_records(1) if record.dataset == "abstracts-0"]
    with pytest.raises(CorpusError, match="expected at least two datasets"):
        fit_tree(one)
    with pytest.raises(RequestError, match="expected those of at least two families"):
        leave_family_out(one, tree_policy)
    rest = {name: value for name, value in one[0].features.items() if name != "lid"}
    with pytest.raises(CorpusError, match="lacks the features lid"):
        values_of(Record(**{**fields(one[0]), "features": rest}))  # type: ignore[arg-type]
    assert best_single(one) in ARMS


def test_runs_of_the_tests_can_be_written_and_read(tmp_path: Path) -> None:
    for record in random_records(1, 5):
        append_run(tmp_path / "runs.jsonl", record)
    assert [record.to_json() for record in read_runs(tmp_path / "runs.jsonl")] == [
        record.to_json() for record in random_records(1, 5)
    ]
