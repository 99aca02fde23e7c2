"""Whatever the bench may name, the report has words for."""

from typing import get_args

import numpy as np

from evaluation.bench_probes import PROBES as MEASURED
from evaluation.features import features
from evaluation.ledger import RERANK, VECTOR_STAGES
from evaluation.regret import IndexFamily
from evaluation.report_words import INDEX_FAMILIES, METRICS, PROBES, STAGES, feature_meaning
from evaluation.spaces import ARMS


def test_everything_that_is_measured_has_words() -> None:
    assert set(METRICS) == set(ARMS)
    assert set(PROBES) == set(MEASURED)
    assert set(INDEX_FAMILIES) == set(get_args(IndexFamily))
    assert list(STAGES) == ["ceiling", *VECTOR_STAGES, RERANK, "final"]


def test_every_feature_has_a_meaning() -> None:
    rng = np.random.default_rng(0)
    documents = rng.normal(size=(220, 8)).astype(np.float32)
    labels = rng.integers(3, size=220)
    found = features(documents, queries=documents[:5], labels=labels)
    assert {"rc_100", "lid", "query_shift", "purity10_ip"} <= found.keys()
    assert [name for name in found if not feature_meaning(name)] == []
    assert feature_meaning("s10_centred_cosine").endswith("; cosine of vectors less the documents' mean")
    assert feature_meaning("another") == ""
