"""`grapnel recommend` as its users meet it, and the advice behind it on the synthetic cone."""

import json
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import answer, grapnel, refusal

from evaluation.advice import Asked, Wishes
from evaluation.choose_index import choose_index
from evaluation.choose_metric import choose_metric
from evaluation.collection_sample import FieldSample, sample_field
from evaluation.cone import Labelled, Shape, labelled
from evaluation.features import features
from evaluation.iceberg_rule import Measured, choose
from evaluation.recommend import recommend
from evaluation.runs import read_runs
from evaluation.tree import FEATURE_SAMPLE, RUNS, SHIPPED, fit_tree, read_tree
from evaluation.utility import from_labels
from index.errors import ConfigError, CorpusError, RequestError
from index.spec import IndexSpec
from retrieval.collection import Collection, build
from retrieval.collection_config import CollectionConfig, DenseField, parse_collection
from retrieval.encoders import EncoderConfig
from retrieval.types import Document, Query

WORDS = [f"word{number}" for number in range(400)]
DOCUMENTS = 1_300
QUERIES = 60


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A collection of hashed words, queries made of documents' words, and judgements that name those documents."""
    folder = tmp_path_factory.mktemp("recommend")
    rng = np.random.default_rng(0)
    texts = [" ".join(rng.choice(WORDS, 12)) for _ in range(DOCUMENTS)]
    config = CollectionConfig(fields={"dense": DenseField(EncoderConfig(kind="hashing", dim=64))})
    build(folder / "collection", (Document(f"d{number}", text) for number, text in enumerate(texts)), config)
    queries = [{"_id": f"q{n}", "text": " ".join(texts[n].split()[:6])} for n in range(QUERIES)]
    (folder / "queries.jsonl").write_text("".join(json.dumps(query) + "\n" for query in queries))
    judged = "".join(f"q{number}\td{number}\t1\n" for number in range(QUERIES))
    (folder / "qrels.tsv").write_text("query-id\tcorpus-id\tscore\n" + judged)
    return folder


def advice(files: Path, *arguments: str | Path) -> Any:
    return answer("recommend", files / "collection", *arguments, timeout_s=120)


def test_without_queries_recall_is_measured_on_held_out_documents(files: Path) -> None:
    [field] = advice(files, "--recall", "0.9")["fields"]
    assert (field["field"], field["measured"], field["metric"]) == ("dense", "recall@10", "cosine")
    assert "same length" in field["why"]
    assert field["met"]
    assert field["interval"][0] <= field["worth"] <= field["interval"][1]
    assert (field["passages"], field["sample"], field["queries"]) == (DOCUMENTS, DOCUMENTS - 130, 65)
    assert field["worth"] >= 0.9


def test_with_judgements_utility_counts_and_people_can_read_it(files: Path) -> None:
    judged = ("--queries", files / "queries.jsonl", "--qrels", files / "qrels.tsv")
    [field] = advice(files, *judged)["fields"]
    assert field["measured"] == "nDCG@10"
    assert field["worth"] >= 0.9 * field["exact"]
    done = grapnel("recommend", files / "collection", *judged, timeout_s=120)
    assert done.returncode == 0
    for told in ("nDCG@10", "latency", "[fields.dense]", "Set this in collection.toml"):
        assert told in done.stdout


def test_budgets_that_nothing_meets_are_told_and_the_next_best_can_be_built(files: Path, tmp_path: Path) -> None:
    [field] = advice(files, "--latency-ms", "0.000001", "--memory-gb", "0.0000001")["fields"]
    assert any("nothing answers within" in note for note in field["notes"])
    assert any("nothing fits into" in note for note in field["notes"])
    assert field["kind"] == "ivf-rabitq"
    encoder = '\n[encoder]\nkind = "hashing"\ndim = 64\n'
    config = parse_collection(tomllib.loads(field["toml"] + encoder), "collection.toml")
    documents = (Document(f"d{number}", " ".join(WORDS[number % 300 :][:12])) for number in range(DOCUMENTS))
    build(tmp_path / "again", documents, config)
    with Collection.open(tmp_path / "again") as collection:
        assert collection.config.dense_fields()["dense"].spec().kind == "ivf-rabitq"
        assert collection.config.dense_fields()["dense"].recall == field["build_recall"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--qrels", "q.tsv"), "give --queries, too"),
        (("--recall", "1.5"), "recall is 1.5, expected more than 0 and less than 1"),
        (("--memory-gb", "0"), "memory_gb is 0.0, expected a number above 0"),
        (("--field", "title"), "has no dense field 'title'; dense fields: dense"),
    ],
)
def test_mistakes_get_one_line(files: Path, arguments: tuple[str, ...], message: str) -> None:
    assert message in refusal(2, "recommend", files / "collection", *arguments)


def test_queries_and_judgements_that_do_not_fit(files: Path) -> None:
    queries = [Query(f"q{number}", "word1") for number in range(30)]
    with Collection.open(files / "collection") as collection:
        with pytest.raises(CorpusError, match=r"1 judged documents are not in .*, 'nobody' first"):
            recommend(collection, "dense", Wishes(), queries, {f"q{n}": {"nobody": 1} for n in range(30)})
        with pytest.raises(CorpusError, match="none of 30 queries has a relevant document"):
            recommend(collection, "dense", Wishes(), queries, {"other": {"d1": 1}})
        with pytest.raises(CorpusError, match="5 queries given, expected at least 20"):
            recommend(collection, "dense", Wishes(), queries[:5])
        with pytest.raises(RequestError, match="need the queries that they judge"):
            recommend(collection, "dense", Wishes(), (), {"q1": {"d1": 1}})
        with pytest.raises(ConfigError, match="no dense field"):
            sample_field(collection, "lexical", most=5)


def test_a_sample_holds_vectors_as_encoded_and_what_is_to_stay(files: Path) -> None:
    with Collection.open(files / "collection") as collection:
        sample = sample_field(collection, "dense", most=100, keep={"d3", "d1299"})
        encoder = collection.shard.vectors.encoder("dense")
        texts = [collection.get(doc_id) for doc_id in sample.doc_ids]
    assert (len(sample.vectors), sample.total, sample.depth(10)) == (100, DOCUMENTS, 10)
    assert {"d3", "d1299"} <= set(sample.doc_ids)
    expected = encoder.encode_queries([Query("", text.text) for text in texts if text is not None])
    assert (sample.vectors == expected[sample.document_of]).all()


# -- the cone (acceptance fact 8) -----------------------------------------------------------------------------------


def sample_of(data: Labelled) -> FieldSample:
    count = len(data.documents)
    return FieldSample("dense", data.documents, np.arange(count), tuple(map(str, range(count))), count)


def test_inner_product_is_never_recommended_on_the_cone_over_15_seeds_where_the_published_rule_flips() -> None:
    tree, guessed, measured, rule = read_tree(), [], [], []
    for seed in range(15):
        data = labelled("cone", count=2_000, classes=100, queries=50, seed=seed)
        found = features(data.documents, sample=FEATURE_SAMPLE, seed=seed)  # once: seconds, and both rules look at them
        guessed.append(tree.guess(found).arm)
        rule.append(choose(Measured.of(found)).metric)
        asked = Asked(data.queries, from_labels("label-precision", data.labels, data.query_labels, 10))
        measured.append(choose_metric(sample_of(data), asked, "ip", Wishes(seed=seed), tree).metric)
    assert "ip" not in measured
    assert all(arm is not None and arm.metric != "ip" for arm in guessed)  # it knows such vectors, and does not abstain
    assert {"ip", "l2"} == set(rule)


def test_without_labels_the_metric_is_the_trees_and_says_why() -> None:
    data = labelled("cone", count=2_000, classes=100, queries=50)
    found = choose_metric(sample_of(data), None, "ip", Wishes())
    assert (found.metric != "ip", found.abstained) == (True, False)
    assert "the tree guesses it from" in found.why
    assert found.path


@pytest.mark.parametrize("shape", ["jitter", "cone-jitter"])
def test_inner_product_is_not_guessed_where_lengths_mean_nothing(shape: Shape) -> None:
    data = labelled(shape, count=1_500, classes=100, queries=50)
    found = choose_metric(sample_of(data), None, "cosine", Wishes())
    assert found.metric != "ip"
    assert found.abstained or found.path


def test_with_labels_the_metric_is_measured_and_a_bad_one_replaced() -> None:
    data = labelled("cone", count=1_500, dim=48, classes=150, queries=60)  # so crowded that centring helps
    utility = from_labels("label-precision", data.labels, data.query_labels, 10)
    asked = Asked(data.queries, utility)
    found = choose_metric(sample_of(data), asked, "ip", Wishes())
    assert found.metric in {"cosine", "l2"}
    assert found.measured["ip"][0] < 0.2 < found.measured[found.metric][0]
    assert any("cosine of vectors less their mean" in note for note in found.notes)
    # What is as good as the best stays.
    kept = choose_metric(sample_of(data), asked, "cosine", Wishes())
    assert kept.metric == "cosine"


def test_away_from_all_runs_the_metric_stays_and_is_said_to() -> None:
    data = labelled("isotropic", count=600, dim=16, classes=20, queries=30)
    wild = replace(data, documents=(data.documents**9).astype(np.float32))
    found = choose_metric(sample_of(wild), None, "l2", Wishes())
    assert (found.metric, found.abstained) == ("l2", True)
    assert "with --queries and --qrels the metric is measured" in found.why


def test_a_collection_that_is_larger_than_its_sample_is_scaled_and_says_so() -> None:
    data = labelled("isotropic", count=2_000, dim=32, classes=40, queries=40)
    sample = replace(sample_of(data), total=200_000)
    metric = choose_metric(sample, None, "cosine", Wishes())
    found = choose_index(sample, None, metric, IndexSpec(), Wishes(recall=0.8))
    assert found.memory_bytes >= 200_000 * 32 * 4
    assert any("scaled from there" in note for note in found.notes)
    assert found.met


def test_the_shipped_tree_is_that_of_the_shipped_runs() -> None:
    assert fit_tree(read_runs(RUNS)).to_json() == json.loads(SHIPPED.read_text())
