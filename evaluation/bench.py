"""`grapnel bench`: everything the suite can say about one labelled dataset, into a folder, section by section.

    OUT/results.json     what was measured, see below        OUT/index.html   the page made from it (evaluation.report)
    OUT/sections/*.json  finished sections under a key of all they depend on: a run that was killed goes on from there
    OUT/vectors/*.npz    encoded texts                       OUT/lock         one run at a time

results.json (FORMAT 1). A number is {"mean", "low", "high"}: a mean over queries with its 95 % bootstrap interval.

    format, dataset {name, family, split, documents, queries, judgements, digest, notes}, encoder {table, fingerprint},
    settings {tier, seed, measures, measure, k}, machine (evaluation.machine)
    sections             name -> {"seconds", "result"}, or {"left_out": reason} where the data cannot define it
      vectors            {dim, unit, norms, truncated, train_queries}
      metrics            exact search per metric arm: {deployed, ceiling: number, arms: {arm: number}, against: {arm:
                         number + p (Benjamini-Hochberg)}, left_out: {arm: reason}}
      funnel/KIND/METRIC {kind, deployed, best, measure, k, queries, terms: [name + number], shapley: [name + number],
                         coverage: number, reorder_ceiling: number, notes}; METRIC is the deployed one: cosine, and ip
                         and l2 where the encoder does not normalise. terms: ceiling, losses, final
      ann                {measure, metric, k, exact: number, repeats, timed, points: [...], builds, knee, knees: {index:
                         knee}}, a knee being the cheapest setting shown to be no worse than exact search, or null
      probes/NAME        see evaluation.bench_probes; hubness has a "histogram" as well
      features           {features: {name: value}, iceberg: {metric, family, methods} or null}
      pipelines/NAME     {default, fields, modes: {mode: {measure: number}}, values: {mode: [per query]}, measure,
                         ledger: a funnel whose last gain is the whole pipeline, or null with no_ledger: reason, notes}
      comparison         [{pipeline, mode, mean, low, high, p (Holm)}] against the default pipeline
      recommendation     see evaluation.bench_recommendation
"""

import logging
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import version
from json import JSONDecodeError, dumps, loads
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias, get_args

from evaluation.bench_data import BenchTask, Limits, read_bench_task
from evaluation.bench_pipelines import Named, comparisons, whole_pipeline
from evaluation.bench_probes import PROBES
from evaluation.bench_recommendation import recommendation
from evaluation.bench_sections import (
    CELLS,
    Json,
    Setting,
    ann,
    emptied,
    loss_funnel,
    meta_features,
    metrics,
    vectors,
)
from evaluation.bench_vectors import Embeddings
from evaluation.machine import describe_machine
from evaluation.measures import check_measures
from evaluation.report import write_page
from evaluation.tree import SHIPPED, read_tree
from evaluation.utility import from_qrels
from index.durable import make_folders, storage_errors, write_atomic
from index.errors import CorpusError, MissingDependencyError, RequestError
from index.metric import METRICS, Metric
from retrieval.collection_config import CollectionConfig, DenseField, collection_table
from retrieval.config import digest_of, to_table
from retrieval.encoders import EncoderConfig
from retrieval.lexical import LexicalConfig
from retrieval.lock import WriterLock
from retrieval.pipeline_config import default_pipeline
from retrieval.progress import Progress, silent

_log = logging.getLogger(__name__)

FORMAT: Final = 1
"""Of results.json and of the kept sections: raised whenever a section means something else than before."""

RESULTS, PAGE = "results.json", "index.html"

Tier: TypeAlias = Literal["small", "full"]

TIERS: Final[tuple[Tier, ...]] = get_args(Tier)

LIMITS: Final[Mapping[Tier, Limits]] = {
    "small": Limits(queries=500, documents=20_000, train_queries=1_000),
    "full": Limits(queries=20_000, documents=2_000_000, train_queries=10_000),
}

MEASURES: Final = ("nDCG@10", "R@100", "RR@10")

DEFAULT: Final = "default"
"""Name of the pipeline that is measured whatever others are."""

_WORK: Final = "work"
"""Folder of what a section builds and nobody needs afterwards."""

_DEPTH: Final = 100
"""Results of a search where the measure reads all of them."""


@dataclass(frozen=True, slots=True)
class BenchConfig:
    """What to measure. measures: of whole pipelines; losses are counted in the first one.

    encoder: of all sections about vectors, and of the default pipeline. pipelines: beside the default one.
    """

    dataset: Path
    out: Path
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    pipelines: tuple[Named, ...] = ()
    measures: tuple[str, ...] = MEASURES
    tier: Tier = "small"
    split: str | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        """Raise RequestError or ConfigError on what makes no sense, before anything is read."""
        if self.tier not in TIERS:
            raise RequestError(f"tier is {self.tier!r}; allowed: {', '.join(TIERS)}")
        if not self.measures or self.seed < 0:
            raise RequestError(f"{len(self.measures)} measures, seed {self.seed}: expected at least 1, and 0 or more")
        check_measures(self.measures)
        names = [DEFAULT, *(named.name for named in self.pipelines)]
        if len(set(names)) < len(names):
            raise RequestError(f"pipelines are {names}: expected each name once")
        encoders = [self.encoder, *(each.encoder for named in self.pipelines for each in _dense(named.collection))]
        if any(encoder.kind == "external" for encoder in encoders):
            raise RequestError("encoder.kind is 'external': a dataset brings no vectors, name an encoder that has some")


def _dense(config: CollectionConfig) -> list[DenseField]:
    return list(config.dense_fields().values())


def run_bench(config: BenchConfig, progress: Progress = silent) -> Json:
    """Measure whatever is not measured yet, write results.json and the page, and return the results.

    Raises CorpusError on a broken dataset, ConfigError on an unknown measure or a missing model, LockedError while
    another process measures into the same folder, StorageError.
    Cost: "small" is made for minutes on two cores up to some 5,000 documents; encoding dominates for long texts.
    """
    make_folders(config.out)
    with _alone(config.out):
        results = _measured(config, progress)
        write_atomic(config.out / RESULTS, _text(results), point="bench.results")
        write_page(config.out / PAGE, results)
        shutil.rmtree(config.out / _WORK, ignore_errors=True)
    return results


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    lock = WriterLock(folder)
    try:
        yield
    finally:
        lock.release()


def _measured(config: BenchConfig, progress: Progress) -> Json:
    data = read_bench_task(config.dataset, config.split, LIMITS[config.tier], config.seed)
    utility = from_qrels(config.measures[0], data.task)
    k = utility.depth or _DEPTH
    embeddings = Embeddings(data, config.out / "vectors", config.seed, progress)
    embedded = embeddings.of(config.encoder)
    machine = describe_machine()
    small = config.tier == "small"
    settings = {
        "tier": config.tier,
        "seed": config.seed,
        "measures": list(config.measures),
        "measure": utility.name,
        "k": k,
    }
    keeper = _Keeper(
        config.out / "sections",
        {"grapnel": version("grapnel"), "data": data.digest, "encoder": embedded.fingerprint, **settings},
        lambda: Setting(embedded, utility, k, config.seed, emptied(config.out / _WORK), small),
        progress,
    )
    about = keeper.section("vectors", vectors)
    if about is None:
        raise CorpusError(f"{data.task.name} cannot be encoded: {keeper.sections['vectors']['left_out']}")
    deployed: tuple[Metric, ...] = ("cosine",) if about["unit"] else METRICS
    searched = keeper.section("metrics", partial(metrics, deployed="cosine"))
    for metric in deployed:
        for kind in CELLS:
            keeper.section(f"funnel/{kind}/{metric}", partial(loss_funnel, kind=kind, deployed=metric))
    timed = keeper.section("ann", ann, cpu=machine.get("cpu"), cores=machine["cores"])
    for name, probe in PROBES.items():
        keeper.section(f"probes/{name}", probe)
    described = keeper.section("features", meta_features)
    tree = read_tree() if SHIPPED.is_file() else None
    known = {"metrics": searched, "ann": timed, "iceberg": described and described["iceberg"]}
    keeper.section("recommendation", partial(recommendation, tree=tree, **known), tree=tree and tree.to_json(), **known)
    _pipelines(config, keeper, embeddings, progress)
    return {
        "format": FORMAT,
        "dataset": _dataset(data),
        "encoder": {"table": to_table(config.encoder), "fingerprint": embedded.fingerprint},
        "settings": settings,
        "machine": machine,
        "sections": keeper.sections,
    }


def _pipelines(config: BenchConfig, keeper: "_Keeper", embeddings: Embeddings, progress: Progress) -> None:
    tables: dict[str, Json] = {}
    found: dict[str, Json] = {}
    for named in (_default(config), *config.pipelines):
        table = {"collection": collection_table(named.collection), "pipeline": to_table(named.pipeline)}
        make = partial(whole_pipeline, named=named, measures=config.measures, embeddings=embeddings, progress=progress)
        result = keeper.section(f"pipelines/{named.name}", make, **table)
        if result is not None:
            tables[named.name], found[named.name] = table, result
    keeper.section("comparison", partial(comparisons, pipelines=found), pipelines=tables)


def _dataset(data: BenchTask) -> Json:
    task = data.task
    return {
        "name": task.name,
        "family": task.family,
        "split": data.split,
        "documents": len(task.doc_ids),
        "queries": len(task.queries),
        "judgements": sum(map(len, task.qrels.values())),
        "digest": data.digest,
        "notes": list(data.notes),
    }


def _default(config: BenchConfig) -> Named:
    collection = CollectionConfig(fields={"dense": DenseField(config.encoder), "lexical": LexicalConfig()})
    return Named(DEFAULT, collection, default_pipeline(collection))


def _text(value: Json) -> bytes:
    """Return JSON whose members stay in order: of metrics, settings and pipelines it says something."""
    return (dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode()


class _Keeper:
    """Sections, from files where these were made from the same inputs. sections: what results.json holds of them.

    common: inputs of all. setting: makes what a section is given, with an empty folder.
    """

    def __init__(
        self, folder: Path, common: Mapping[str, Any], setting: Callable[[], Setting], progress: Progress
    ) -> None:
        self._folder = folder
        self._common = {"format": FORMAT, **common}
        self._setting = setting
        self._progress = progress
        self.sections: dict[str, Json] = {}
        make_folders(folder)

    def section(self, name: str, make: Callable[[Setting], Any], **inputs: Any) -> Any:
        """Return the result of a section, kept or made now; None where the data cannot define it."""
        key = digest_of({**self._common, "section": name, "inputs": inputs})
        path = self._folder / f"{re.sub(r'[^a-zA-Z0-9-]+', '_', name)}-{key[:8]}.json"
        kept = self._kept(path, key)
        if kept is None:
            self._progress(name, 0, 1)
            kept = {"key": key, **self._made(make)}
            write_atomic(path, _text(kept), point="bench.section")
            self._progress(name, 1, 1)
        self.sections[name] = {part: value for part, value in kept.items() if part != "key"}
        return kept.get("result")

    def _made(self, make: Callable[[Setting], Any]) -> Json:
        start = time.perf_counter()
        try:
            result = make(self._setting())
        except (CorpusError, RequestError, MissingDependencyError) as error:
            return {"left_out": str(error)}
        return {"seconds": round(time.perf_counter() - start, 3), "result": result}

    @staticmethod
    def _kept(path: Path, key: str) -> Json | None:
        if not path.is_file():
            return None
        with storage_errors("read", path):
            text = path.read_text(encoding="utf-8", errors="replace")
        try:
            found = loads(text)
        except JSONDecodeError:
            found = None
        if isinstance(found, dict) and found.get("key") == key and found.keys() & {"result", "left_out"}:
            return found
        _log.warning("%s is damaged: the section is measured again", path)
        return None
