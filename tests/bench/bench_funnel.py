"""Loss funnels on real data, by MiniLM as it is and by MiniLM without its last module, which divides by the length.

    python tests/bench/bench_funnel.py [dataset ...]   -> docs/results/funnel.json, and tables in Markdown
    python tests/bench/bench_funnel.py --tables        the tables again, from what is there

Of vectors of length 1 inner product, Euclidean distance and cosine are the same search, so there the deployed metric is
cosine; of the others it is inner product, and Euclidean distance. Both are one encoding: the packaged vectors are the
others divided by their length. At most 20,000 documents and 1,000 queries of a dataset, seeded samples.
"""

import json
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from bench_recommend import HOME, unnormalised
from report import DATA, ROOT, save

from evaluation.bench_data import BenchTask, Limits, read_bench_task
from evaluation.bench_sections import CELLS, Setting, emptied, loss_funnel
from evaluation.bench_vectors import Embedded, Embeddings
from evaluation.report_words import STAGES
from evaluation.spaces import Arm
from evaluation.utility import from_qrels
from index.metric import prepare
from retrieval.encoders import EncoderConfig

DATASETS = ("scifact", "medquad", "tldr-pages", "squad-dev", "esco-jobtitle", "cranfield")
LIMITS = Limits(queries=1_000, documents=20_000, train_queries=1_000)
MEASURE, K, SEED = "nDCG@10", 10, 0
VECTORS = HOME / "vectors"
RESULTS = ROOT / "docs" / "results" / "funnel.json"

DEPLOYED: Mapping[str, tuple[Arm, ...]] = {"MiniLM": ("cosine",), "MiniLM, not normalised": ("ip", "l2")}


def embedded(data: BenchTask) -> Mapping[str, Embedded]:
    """Return the vectors by both encoders, encoded once."""
    found = Embeddings(data, VECTORS, SEED, show)
    unit, raw = found.of(EncoderConfig()), found.of(EncoderConfig(path=str(unnormalised())))
    for each in (raw.documents, raw.queries, raw.train):
        assert np.isfinite(each).all()
    for path in VECTORS.glob(f"{raw.fingerprint}-*.npz"):
        other = path.with_name(path.name.replace(raw.fingerprint, unit.fingerprint))
        if not other.exists():
            with np.load(path) as file:
                np.savez(other, vectors=prepare(file["vectors"], "cosine"), truncated=file["truncated"])
    return dict(zip(DEPLOYED, (unit, raw), strict=True))


def show(stage: str, done: int, total: int | None) -> None:
    if done % 2048 == 0:
        print(f"  {stage} {done}/{total}", file=sys.stderr, flush=True)


def measure(name: str) -> dict[str, Any]:
    data = read_bench_task(DATA / name, None, LIMITS, SEED)
    utility = from_qrels(MEASURE, data.task)
    funnels = []
    with tempfile.TemporaryDirectory(prefix="grapnel-funnel-") as folder:
        for encoder, vectors in embedded(data).items():
            for deployed in DEPLOYED[encoder]:
                for kind in CELLS:
                    setting = Setting(vectors, utility, K, SEED, emptied(Path(folder) / "work"), small=False)
                    funnels.append({"encoder": encoder, **loss_funnel(setting, kind, deployed)})
                    print(f"  {name}: {encoder}, {deployed}, {kind}", file=sys.stderr, flush=True)
    return {
        "documents": len(data.task.doc_ids),
        "queries": len(data.task.queries),
        "train_queries": len(data.train),
        "split": data.split,
        "measure": MEASURE,
        "seed": SEED,
        "notes": list(data.notes),
        "funnels": funnels,
    }


def table(name: str, result: Mapping[str, Any]) -> Iterator[str]:
    """Yield a Markdown table of the funnels of one dataset."""
    counted = result["funnels"][0]["queries"]
    yield f"{name}: {result['documents']:,} documents, {counted:,} queries counted, {result['measure']}"
    yield ""
    stages = [stage for stage in STAGES if stage != "rerank"]
    yield f"| encoder | deployed | index | {' | '.join(STAGES[stage] for stage in stages)} | best metric |"
    yield "|---" * (len(stages) + 4) + "|"
    for each in result["funnels"]:
        terms = {term["name"]: term for term in each["terms"]}
        cells = [spread(terms[stage]) for stage in stages]
        kind = f"{each['kind']}{' (became flat)' if each['notes'] else ''}"
        yield f"| {each['encoder']} | {each['deployed']} | {kind} | {' | '.join(cells)} | {each['best']} |"
    yield ""


def spread(term: Mapping[str, float]) -> str:
    mean, low, high = (f"{round(term[name], 3) + 0.0:.3f}" for name in ("mean", "low", "high"))
    return mean if low == high else f"{mean} [{low}, {high}]"


def main() -> None:
    names = sys.argv[1:]
    if names == ["--tables"]:
        found = json.loads(RESULTS.read_text(encoding="utf-8"))
        for name in DATASETS:
            print("\n".join(table(name, found[name])))
        return
    for name in names or DATASETS:
        result = measure(name)
        save("funnel", name, result)
        print("\n".join(table(name, result)), flush=True)


if __name__ == "__main__":
    main()
