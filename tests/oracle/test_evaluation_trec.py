"""Other tools must see our order: ir-measures reads the file and agrees with positions counted by hand."""

from pathlib import Path

import ir_measures
import numpy as np
import pytest

from evaluation.trec import read_qrels, write_run
from retrieval.types import Hit, Passage, Ranking


def test_trec_eval_sees_our_order(tmp_path: Path) -> None:
    rng = np.random.default_rng(7)
    rankings, relevant = [], {}
    for query in range(20):
        doc_ids = [f"d{number}" for number in rng.permutation(150)]
        # Equal scores everywhere: a tool that sorted by them would show its own order, by id.
        hits = tuple(Hit(doc_id, Passage(doc_id, 0, 0, 1, "x"), 1.0, "s") for doc_id in doc_ids)
        rankings.append(Ranking(f"q{query}", hits))
        relevant[f"q{query}"] = doc_ids[int(rng.integers(150))]
    run, qrels = tmp_path / "run.trec", tmp_path / "qrels"
    write_run(run, rankings, "tag")
    qrels.write_text("".join(f"{query} 0 {doc_id} 1\n" for query, doc_id in relevant.items()), encoding="utf-8")
    expected = {
        ranking.query_id: 1 / (1 + [hit.doc_id for hit in ranking.hits].index(relevant[ranking.query_id]))
        for ranking in rankings
    }
    found = ir_measures.iter_calc([ir_measures.RR], read_qrels(qrels), ir_measures.read_trec_run(str(run)))
    assert {metric.query_id: metric.value for metric in found} == pytest.approx(expected, abs=1e-12)
