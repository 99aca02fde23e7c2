"""Whole pipelines in `grapnel bench`: through a real collection, in every mode, with a ledger of the default one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from evaluation.bench_sections import Json, Setting, funnel_json
from evaluation.bench_vectors import Embedded, Embeddings
from evaluation.funnel import Cells, funnel, validation_part
from evaluation.measures import Run, deepest, per_query_many, run_of
from evaluation.statistics import bootstrap_intervals, holm, paired
from index.choose import resolve
from index.durable import make_folders
from index.errors import ConfigError, RequestError
from index.types import Rows
from retrieval.collection import Collection
from retrieval.collection_config import CollectionConfig, DenseField
from retrieval.field_vectors import Encoders
from retrieval.pipeline_config import PipelineConfig, check_pipeline, modes
from retrieval.progress import Progress
from retrieval.types import Ranking, SearchRequest

_DEPTH: Final = 100
"""Results a pipeline is asked for, more where a measure reads more."""

_BATCH: Final = 64


@dataclass(frozen=True, slots=True)
class Named:
    """A whole pipeline: its name in the report, the collection it searches, and its own configuration."""

    name: str
    collection: CollectionConfig
    pipeline: PipelineConfig


def whole_pipeline(
    setting: Setting, named: Named, measures: Sequence[str], embeddings: Embeddings, progress: Progress
) -> Json:
    """Build a collection of the task, answer every query in every mode, and draw up the ledger of the default mode."""
    data = setting.vectors.data
    dense = named.collection.dense_fields()
    encoders = [field.encoder for field in dense.values()]
    whole = named.collection.chunking.kind == "none" and len(encoders) == 1
    kept = embeddings.of(encoders[0]).encoders() if whole else Encoders()
    home = setting.folder / "collection"
    collection = Collection.begin(home, named.collection, encoders=kept)
    with collection:
        documents = data.documents()
        collection.load(documents, progress, len(documents))
        collection.compact(progress)
        pipeline = check_pipeline(named.pipeline, collection.config, named.name)
        depth = max(_DEPTH, setting.k, deepest(measures))
        asked = [SearchRequest(query, k=depth) for query in data.task.queries]
        runs = {mode: _run(collection, pipeline, mode, asked, progress) for mode in modes(pipeline, collection.config)}
    queries, qrels = len(data.task.queries), data.task.qrels
    rows = data.task.rows_of(runs[pipeline.default])
    ledger, reason = _ledger_or_reason(setting, named, rows, embeddings)
    notes = [
        f"{mode}: {queries - answered:,} queries have no results, and count 0"
        for mode, run in runs.items()
        if (answered := sum(map(bool, run.values()))) < queries
    ]
    blank = len(data.task.doc_ids) - len(documents)
    if blank:
        notes.append(f"{blank:,} documents are blank, which no collection takes: they cannot be found")
    return {
        "default": pipeline.default,
        "fields": {name: _field_name(named.collection, name) for name in named.collection.searched_fields()},
        "modes": {mode: _values(per_query_many(measures, run, qrels), setting.seed) for mode, run in runs.items()},
        "values": {mode: setting.utility(data.task.rows_of(run)).tolist() for mode, run in runs.items()},
        "measure": setting.utility.name,
        "ledger": ledger,
        "no_ledger": reason,
        "notes": notes,
    }


def _values(values: Mapping[str, Mapping[str, float]], seed: int) -> Json:
    """Return measure -> number, without an interval where there is one query only."""
    columns = np.array([list(of_query.values()) for of_query in values.values()], dtype=np.float64).T
    bounds: Sequence[tuple[float | None, float | None]] = [(None, None)] * len(values)
    if len(columns) > 1:
        bounds = bootstrap_intervals(columns, seed=seed)
    return {
        measure: {"mean": float(columns[:, place].mean()), "low": low, "high": high}
        for place, (measure, (low, high)) in enumerate(zip(values, bounds, strict=True))
    }


def _field_name(config: CollectionConfig, name: str) -> str:
    field = config.dense_fields().get(name)
    return "lexical" if field is None else f"dense, {field.encoder.kind}, {field.index}, {field.metric}"


def _run(
    collection: Collection, pipeline: PipelineConfig, mode: str, asked: Sequence[SearchRequest], progress: Progress
) -> Run:
    rankings: list[Ranking] = []
    for start in range(0, len(asked), _BATCH):
        rankings += collection.search_many(asked[start : start + _BATCH], mode=mode, config=pipeline)
        progress(f"search {mode}", len(rankings), len(asked))
    return run_of(rankings)


def _ledger_or_reason(
    setting: Setting, named: Named, rows: Rows, embeddings: Embeddings
) -> tuple[Json | None, str | None]:
    """Return the ledger of a pipeline, or why there is none."""
    dense = list(named.collection.dense_fields().values())
    if len(dense) != 1:
        return None, f"{len(dense)} dense fields: the loss of vectors is counted for exactly one"
    if named.collection.chunking.kind != "none":
        return None, "documents are cut into passages: the loss of vectors is counted for whole documents"
    try:
        return _ledger(setting, dense[0], rows, embeddings.of(dense[0].encoder)), None
    except (ConfigError, RequestError) as error:  # too few queries, a kind that cannot have the best metric
        return None, str(error)


def _ledger(setting: Setting, field: DenseField, rows: Rows, vectors: Embedded) -> Json:
    """Return the funnel of a dense field with the whole pipeline's rows as its last stage."""
    count, dim = vectors.documents.shape
    definite, _ = resolve(replace(field.spec(), seed=setting.seed), count, dim)
    folder = setting.folder / "cells"
    make_folders(folder)
    found = funnel(
        list(vectors.spaces.values()),
        field.metric,
        vectors.queries,
        setting.utility,
        Cells(folder, definite, setting.k),
        rerank=lambda _: rows[:, : setting.k],
        validation=validation_part(len(vectors.queries), seed=setting.seed),
    )
    return {"kind": definite.kind, **funnel_json(found, setting)}


def comparisons(setting: Setting, pipelines: Mapping[str, Json]) -> list[Json]:
    """Compare every mode of every pipeline with the default mode of the first, query by query (Holm over all).

    pipelines: by name, results of `whole_pipeline`. Raises RequestError where there are not two to compare.
    """
    if not pipelines:
        raise RequestError("no pipeline could be measured")
    first_name, first = next(iter(pipelines.items()))
    baseline = np.array(first["values"][first["default"]])
    others = [
        (name, mode, np.array(values))
        for name, result in pipelines.items()
        for mode, values in result["values"].items()
        if (name, mode) != (first_name, first["default"])
    ]
    if not others:
        raise RequestError("one pipeline with one mode: there is nothing to compare it with")
    found = [paired(values, baseline, seed=setting.seed) for _, _, values in others]
    adjusted = holm(np.array([each.p_permutation for each in found]))
    return [
        {"pipeline": name, "mode": mode, "mean": each.difference, "low": each.low, "high": each.high, "p": float(p)}
        for (name, mode, _), each, p in zip(others, found, adjusted, strict=True)
    ]
