"""The probes as `grapnel bench` runs them, on a small set whose answers are known."""

from pathlib import Path

import numpy as np
import pytest

from evaluation.bench_data import BenchTask
from evaluation.bench_pipelines import comparisons
from evaluation.bench_probes import (
    HUB_BINS,
    PROBES,
    duplicates,
    filtered,
    hubs,
    imbalanced,
    living,
    popularity,
    truncation,
)
from evaluation.bench_sections import Json, Setting, number
from evaluation.bench_vectors import Embeddings
from evaluation.task import Task
from evaluation.utility import from_qrels
from index.errors import RequestError
from retrieval.encoders import EncoderConfig
from retrieval.types import Query

DOCUMENTS, QUERIES, TOPICS = 90, 30, 10
HASHING = EncoderConfig(kind="hashing", dim=64)


def bench_task(*, popular: bool = True) -> BenchTask:
    """Each topic has words of its own; with `popular`, more queries ask for the first topics than for the last."""
    rng = np.random.default_rng(7)

    def text(topic: int, words: int) -> str:
        return " ".join(f"t{topic}w{word}" for word in rng.integers(6, size=words)) + f" filler{rng.integers(30)}"

    topics = [int(number_) for number_ in np.arange(DOCUMENTS) % TOPICS]
    asked = [number_ % TOPICS if number_ < 20 else 0 for number_ in range(QUERIES)]
    doc_ids = tuple(f"d{row}" for row in range(DOCUMENTS))
    if popular:
        qrels = {
            f"q{number_}": {doc_ids[row]: 1 for row in range(DOCUMENTS) if topics[row] == topic}
            for number_, topic in enumerate(asked)
        }
    else:
        qrels = {f"q{number_}": {doc_ids[number_]: 1} for number_ in range(QUERIES)}
    task = Task(
        "topics",
        "topics",
        doc_ids,
        tuple(text(topic, 8) for topic in topics),
        ("",) * DOCUMENTS,
        tuple(Query(f"q{number_}", text(topic, 4)) for number_, topic in enumerate(asked)),
        qrels,
    )
    return BenchTask(task, "test", (), np.empty((0, 2), dtype=np.int64))


def made(folder: Path, *, popular: bool = True) -> Setting:
    data = bench_task(popular=popular)
    work = folder / "work"
    work.mkdir(exist_ok=True)
    embedded = Embeddings(data, folder / "vectors", 0).of(HASHING)
    return Setting(embedded, from_qrels("nDCG@10", data.task), 10, 0, work, small=True)


@pytest.fixture(scope="module")
def setting(tmp_path_factory: pytest.TempPathFactory) -> Setting:
    return made(tmp_path_factory.mktemp("probes"))


def by_setting(probe: Json, name: str) -> dict[object, Json]:
    return {row["setting"][name]: row for row in probe["rows"]}


def exact_mean(setting: Setting) -> float:
    space = setting.vectors.spaces["cosine"]
    return float(setting.utility(space.search(setting.vectors.queries, setting.k).rows).mean())


def test_what_is_unchanged_is_exact_search_of_the_task(setting: Setting) -> None:
    for probe, name, unchanged in ((truncation, "dim", 64.0), (duplicates, "copies", 0.0), (hubs, "metric", "cosine")):
        found = probe(setting)
        first = next(row for row in found["rows"] if row["setting"][name] == unchanged)
        assert first["mean"] == pytest.approx(exact_mean(setting), abs=1e-12)
        assert first["change"] is None
        for row in found["rows"]:
            assert row["reference"] == first["mean"]
            assert row["low"] <= row["mean"] <= row["high"]
            if row["change"] is not None:
                assert row["change"]["mean"] == pytest.approx(row["mean"] - first["mean"], abs=1e-12)


def test_the_hub_histogram_counts_each_document_once(setting: Setting) -> None:
    histogram = hubs(setting)["histogram"]
    documents = setting.vectors.documents
    scores = documents @ documents.T
    np.fill_diagonal(scores, -np.inf)
    times = np.bincount(np.argsort(-scores, axis=1, kind="stable")[:, :10].ravel(), minlength=DOCUMENTS)
    expected = [
        int(((times >= low) & (times < high)).sum()) for low, high in zip(HUB_BINS, [*HUB_BINS[1:], 10**9], strict=True)
    ]
    assert histogram["metrics"]["ip"]["documents"] == expected
    assert all(sum(each["documents"]) == DOCUMENTS for each in histogram["metrics"].values())
    assert histogram["metrics"]["ip"]["anti_hubs"] == expected[0] / DOCUMENTS


def test_so_few_documents_lose_nothing_to_a_filter(setting: Setting) -> None:
    for row in filtered(setting)["rows"]:
        assert row["reference"] == row["mean"]
        assert (row["measures"]["recall"], row["measures"]["wrong"]) == (1.0, 0.0)


def test_imbalance_judges_what_can_still_be_found(setting: Setting) -> None:
    found = imbalanced(setting)
    rows = by_setting(found, "exponent")
    assert list(rows) == [0.0, 0.5, 1.0, 1.5]
    assert all(0 < row["mean"] <= 1 and 0 < row["queries"] <= QUERIES for row in rows.values())
    assert rows[0.0]["measures"]["most"] == rows[0.0]["measures"]["least"]
    assert rows[1.5]["measures"]["most"] > rows[1.5]["measures"]["least"]


def test_popularity_splits_queries_by_how_many_want_the_same(setting: Setting, tmp_path: Path) -> None:
    rows = by_setting(popularity(setting), "decile")
    assert rows[1.0]["measures"]["most"] < rows[10.0]["measures"]["least"] == 12  # topic 0: 2 of the first 20, and 10
    assert sum(row["queries"] for decile, row in rows.items() if decile != "weighted") == QUERIES
    with pytest.raises(RequestError, match="none is more popular"):
        popularity(made(tmp_path, popular=False))


def test_a_living_collection_is_as_good_as_one_built_anew(setting: Setting) -> None:
    rows = living(setting)["rows"]
    assert [row["setting"]["step"].split()[1] for row in rows] == ["insert", "delete", "insert", "replace", "search"]
    for row in rows:
        assert row["measures"]["ghosts"] == 0
        assert row["measures"]["recall"] == 1
        assert row["mean"] == pytest.approx(row["reference"], abs=1e-12)
        assert row["change"]["mean"] == pytest.approx(0, abs=1e-12)


def test_every_probe_has_rows_with_the_same_members(setting: Setting) -> None:
    members = {"setting", "queries", "mean", "low", "high", "measures", "reference", "change"}
    for name in ("dimension truncation", "out-of-distribution"):
        found = PROBES[name](setting)
        assert found.keys() >= {"unchanged", "rows"}
        assert all(row.keys() == members for row in found["rows"])


def test_modes_are_compared_with_the_first_pipeline(setting: Setting) -> None:
    good, bad = [1.0] * 18 + [0.0] * 2, [0.0] * 20
    pipelines: dict[str, Json] = {
        "default": {"default": "hybrid", "values": {"hybrid": good, "dense": bad}},
        "other": {"default": "hybrid", "values": {"hybrid": good}},
    }
    found = comparisons(setting, pipelines)
    assert [(each["pipeline"], each["mode"], each["mean"]) for each in found] == [
        ("default", "dense", pytest.approx(-0.9)),
        ("other", "hybrid", 0.0),
    ]
    assert found[0]["p"] < 0.001
    assert found[1]["p"] == 1
    with pytest.raises(RequestError, match="nothing to compare"):
        comparisons(setting, {"default": {"default": "dense", "values": {"dense": good}}})
    with pytest.raises(RequestError, match="no pipeline"):
        comparisons(setting, {})


def test_a_number_has_an_interval_around_it() -> None:
    found = number(np.array([0.0, 1.0] * 50), 0)
    assert found["mean"] == 0.5
    assert 0.35 < found["low"] < 0.45
    assert 0.55 < found["high"] < 0.65
