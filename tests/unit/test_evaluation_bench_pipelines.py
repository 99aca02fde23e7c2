"""Whole pipelines in `grapnel bench`: what they are worth is what the collection really finds."""

from pathlib import Path

import numpy as np
import pytest

from evaluation.bench_data import BenchTask
from evaluation.bench_pipelines import Named, whole_pipeline
from evaluation.bench_sections import Setting
from evaluation.bench_vectors import Embeddings
from evaluation.task import Task
from evaluation.utility import from_qrels
from retrieval.collection_config import CollectionConfig, DenseField
from retrieval.encoders import EncoderConfig
from retrieval.pipeline_config import default_pipeline
from retrieval.progress import silent
from retrieval.types import Query

DOCUMENTS, DEEP = 160, 150
HASHING = EncoderConfig(kind="hashing", dim=32)


@pytest.mark.usefixtures("in_memory")
@pytest.mark.parametrize("measures", [("R@10", f"R@{DEEP}"), (f"R@{DEEP}", "RR")])
def test_a_measure_reads_as_many_results_as_it_says(measures: tuple[str, ...], tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    doc_ids = tuple(f"d{row}" for row in range(DOCUMENTS))
    texts = tuple(" ".join(f"word{word}" for word in rng.integers(50, size=6)) for _ in doc_ids)
    queries = tuple(Query(f"q{number}", f"word{number} word{number + 1}") for number in range(12))
    qrels = {query.id: {str(doc_id): 1 for doc_id in rng.choice(doc_ids, 40, replace=False)} for query in queries}
    task = Task("deep", "deep", doc_ids, texts, ("",) * DOCUMENTS, queries, qrels)
    data = BenchTask(task, "test", (), np.empty((0, 2), dtype=np.int64))
    embeddings = Embeddings(data, tmp_path / "vectors", 0)
    utility = from_qrels(measures[0], task)
    assert utility.depth is not None
    setting = Setting(embeddings.of(HASHING), utility, utility.depth, 0, tmp_path, small=True)
    config = CollectionConfig(fields={"dense": DenseField(HASHING, index="flat")})
    named = Named("dense", config, default_pipeline(config))
    found = whole_pipeline(setting, named, measures, embeddings, silent)
    rows = setting.vectors.spaces["cosine"].search(setting.vectors.queries, DEEP).rows
    expected = from_qrels(f"R@{DEEP}", task)(rows)
    assert found["modes"]["dense"][f"R@{DEEP}"]["mean"] == pytest.approx(expected.mean(), abs=1e-12)
    assert expected.mean() > from_qrels("R@100", task)(rows).mean()
    assert found["values"]["dense"] == pytest.approx(utility(rows).tolist(), abs=1e-12)
    final = next(term for term in found["ledger"]["terms"] if term["name"] == "final")
    assert found["ledger"]["queries"] == 8
    assert final["mean"] <= max(found["values"]["dense"])
