"""The sections of `grapnel bench` but the probes: each a function from a task's vectors to plain JSON.

A number over queries is {"mean", "low", "high"}: the mean and its 95 % bootstrap interval (see `number`). What the
results of each section hold is written in evaluation.bench.
"""

import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, TypeAlias

import numpy as np

from evaluation.ann_arm import ArmTask, Protocol, run_arm
from evaluation.ann_configurations import Configuration, configurations
from evaluation.ann_results import Knee, pareto, utility_knee
from evaluation.bench_vectors import Embedded
from evaluation.features import features
from evaluation.funnel import Cells, Funnel, funnel, validation_part
from evaluation.iceberg_rule import Measured, choose
from evaluation.ledger import Term, term
from evaluation.spaces import Arm
from evaluation.statistics import Values, benjamini_hochberg, bootstrap_interval, paired
from evaluation.utility import Utility
from index.durable import make_folders
from index.errors import CorpusError
from index.spec import IndexSpec, Kind

Json: TypeAlias = dict[str, Any]

CELLS: Final[tuple[Kind, ...]] = ("flat", "hnsw", "ivf-pq", "ivf-rabitq")
"""Kinds of index whose funnel is drawn."""


@dataclass(frozen=True, slots=True)
class Setting:
    """What every section is given. utility: the measure that losses are counted in. k: results of a search.

    folder: an empty folder for what need not be kept. small: whether sweeps are thinned out.
    """

    vectors: Embedded
    utility: Utility
    k: int
    seed: int
    folder: Path
    small: bool


def number(values: Values, seed: int) -> Json:
    """Return {"mean", "low", "high"} of values per query. Raises RequestError on fewer than 2."""
    low, high = bootstrap_interval(values, seed=seed)
    return {"mean": float(values.mean()), "low": low, "high": high}


def vectors(setting: Setting) -> Json:
    """Say what the vectors are. Raises CorpusError where all are the same: the order of the rows would be measured."""
    embedded = setting.vectors
    if (embedded.documents == embedded.documents[0]).all():
        raise CorpusError(f"all {len(embedded.documents):,} documents have the same vector: check texts and encoder")
    norms = np.linalg.norm(embedded.documents, axis=1)
    return {
        "dim": embedded.documents.shape[1],
        "unit": embedded.unit,
        "norms": {"least": float(norms.min()), "mean": float(norms.mean()), "most": float(norms.max())},
        "truncated": embedded.truncated,
        "train_queries": len(embedded.data.train),
    }


def metrics(setting: Setting, deployed: Arm) -> Json:
    """Search every metric arm exactly and compare each with the deployed one (Benjamini-Hochberg over arms)."""
    embedded, seed = setting.vectors, setting.seed
    worth = {
        name: setting.utility(space.search(embedded.queries, setting.k).rows) for name, space in embedded.spaces.items()
    }
    compared = {name: paired(values, worth[deployed], seed=seed) for name, values in worth.items() if name != deployed}
    adjusted = benjamini_hochberg(np.array([each.p_permutation for each in compared.values()]))
    return {
        "deployed": deployed,
        "ceiling": number(setting.utility.ceiling, seed),
        "arms": {name: number(values, seed) for name, values in worth.items()},
        "against": {
            name: {"mean": each.difference, "low": each.low, "high": each.high, "p": float(p)}
            for (name, each), p in zip(compared.items(), adjusted, strict=True)
        },
        "left_out": dict(embedded.unfitted),
    }


def loss_funnel(setting: Setting, kind: Kind, deployed: Arm) -> Json:
    """Draw up the loss funnel of one kind of index under one deployed metric."""
    embedded = setting.vectors
    cells = Cells(setting.folder, IndexSpec(kind, seed=setting.seed), setting.k)
    found = funnel(
        list(embedded.spaces.values()),
        deployed,
        embedded.queries,
        setting.utility,
        cells,
        validation=validation_part(len(embedded.queries), seed=setting.seed),
    )
    return {"kind": kind, **funnel_json(found, setting)}


def funnel_json(found: Funnel, setting: Setting) -> Json:
    """Return a funnel as its section holds it, but for the kind of index."""
    seed = setting.seed
    charged = [term(name, values, seed=seed) for name, values in found.charged.items()]
    return {
        "deployed": found.deployed,
        "best": found.best,
        "measure": found.ledger.utility,
        "k": setting.k,
        "queries": len(found.queries),
        "terms": [_term_json(each) for each in found.ledger.terms(seed=seed)],
        "shapley": [_term_json(each) for each in charged],
        "coverage": number(found.coverage, seed),
        "reorder_ceiling": number(found.reorder_ceiling, seed),
        "notes": list(found.notes),
    }


def _term_json(each: Term) -> Json:
    return {"name": each.name, "mean": each.mean, "low": each.low, "high": each.high}


def ann(setting: Setting) -> Json:
    """Measure utility, recall and speed of approximate search under cosine."""
    embedded = setting.vectors
    task = ArmTask(embedded.documents, embedded.queries, "cosine", setting.utility, setting.k)
    chosen = configurations(len(embedded.documents), setting.k, kinds=CELLS)
    if setting.small:
        chosen = [_thinned(each) for each in chosen]
    protocol = Protocol(timed=100 if setting.small else 1_000)
    report = run_arm(task, chosen, setting.folder, protocol)
    front, knee = {point.name for point in pareto(report.points)}, utility_knee(report)
    of_each = {name: utility_knee(replace(report, builds={name: build})) for name, build in report.builds.items()}
    points = []
    for point in report.points:
        timing = point.timing
        points.append(
            {
                "configuration": point.configuration,
                "name": point.name,
                "settings": dict(point.settings),
                "utility": number(point.utility, setting.seed),
                "recall": float(point.recall.mean()),
                "tied_recall": float(point.tied_recall.mean()),
                "inverse_ratio": None if point.inverse_ratio is None else float(point.inverse_ratio.mean()),
                "qps": timing.qps._asdict(),
                "all_cores_qps": timing.all_cores._asdict(),
                "p50_ms": 1000 * timing.p50_s.median,
                "p95_ms": 1000 * timing.p95_s.median,
                "p99_ms": 1000 * timing.p99_s.median,
                "distances": point.distances,
                "pareto": point.name in front,
            }
        )
    return {
        "measure": report.measure,
        "metric": report.metric,
        "k": report.k,
        "exact": number(report.exact, setting.seed),
        "repeats": protocol.repeats,
        "timed": min(protocol.timed, len(embedded.queries)),
        "points": points,
        "builds": {
            name: {
                "kind": build.kind,
                "seconds": build.seconds,
                "threads": build.threads,
                "size_bytes": build.size_bytes,
                "build_bytes": build.peak_bytes - build.before_bytes,
            }
            for name, build in report.builds.items()
        },
        "knee": _knee_json(knee),
        "knees": {name: _knee_json(each) for name, each in of_each.items()},
    }


def _knee_json(knee: Knee | None) -> Json | None:
    if knee is None:
        return None
    return {
        "name": knee.point.name,
        "difference": knee.test.difference,
        "low": knee.test.low,
        "margin": knee.test.margin,
        "p50_ms": 1000 * knee.point.timing.p50_s.median,
    }


def _thinned(configuration: Configuration) -> Configuration:
    """Return a configuration with its calibrated effort and every second of the others."""
    first, *others = configuration.settings
    return replace(configuration, settings=(first, *others[::2]))


def meta_features(setting: Setting) -> Json:
    """Measure what the vectors look like, and what the published rule makes of it."""
    found = features(setting.vectors.documents, queries=setting.vectors.queries, seed=setting.seed)
    leaf = choose(Measured.of(found)) if "rc_1" in found else None
    iceberg = None if leaf is None else {"metric": leaf.metric, "family": leaf.family, "methods": list(leaf.methods)}
    return {"features": found, "iceberg": iceberg}


def emptied(folder: Path) -> Path:
    """Return a folder with nothing in it: what a run that was killed left is removed."""
    shutil.rmtree(folder, ignore_errors=True)
    make_folders(folder)
    return folder
