"""Fitting the fusion weight: it goes to the part that is right, and is kept only where it helps."""

import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from evaluation.measures import mean, per_query, run_of
from evaluation.tune import DEPTHS, WEIGHTS, TuneReport, tune
from index.errors import ConfigError, RequestError
from retrieval.collection import Collection, build
from retrieval.collection_config import CollectionConfig, DenseField
from retrieval.config import to_toml
from retrieval.encoders import EncoderConfig
from retrieval.lexical import LexicalConfig
from retrieval.pipeline_config import FusionConfig, PipelineConfig, check_pipeline
from retrieval.types import Document, Query, SearchRequest

COUNT, DIM = 60, 8
OTHER = 7
"""How far the part that is wrong points beside the right document."""

VECTORS = np.random.default_rng(0).normal(size=(COUNT, DIM)).astype(np.float32)
VECTORS /= np.linalg.norm(VECTORS, axis=1, keepdims=True)
QRELS = {f"q{number}": {f"d{number}": 1, f"d{(number + OTHER) % COUNT}": 0} for number in range(COUNT)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Document i says the word of i, and of nobody else, and has a vector of its own."""
    folder = tmp_path_factory.mktemp("tune") / "c"
    documents = [
        Document(f"d{number}", f"word{number} filler", vectors={"mine": VECTORS[number]}) for number in range(COUNT)
    ]
    config = CollectionConfig(
        fields={"mine": DenseField(EncoderConfig(kind="external", dim=DIM)), "words": LexicalConfig()}
    )
    build(folder, documents, config)
    return folder


@pytest.fixture
def collection(folder: Path) -> Iterator[Collection]:
    with Collection.open(folder) as collection:
        yield collection


def queries(*, dense_is_right: bool, count: int = 30) -> list[Query]:
    """One part of each query points at the right document, the other at another one."""
    found = []
    for number in range(count):
        wrong = (number + OTHER) % COUNT
        by_vector, by_word = (number, wrong) if dense_is_right else (wrong, number)
        found.append(Query(f"q{number}", f"word{by_word}", vectors={"mine": VECTORS[by_vector]}))
    return found


def quality(collection: Collection, asked: list[Query], mode: str = "hybrid") -> float:
    rankings = collection.search_many([SearchRequest(query) for query in asked], mode=mode)
    return mean(per_query("nDCG@10", run_of(rankings), {query.id: QRELS[query.id] for query in asked}))


def check(report: TuneReport) -> None:
    assert report.mode == "hybrid"
    assert report.parts == ("mine", "words")
    assert sum(report.weights) == pytest.approx(1)
    assert report.table.keys() == {(depth, weight) for depth in DEPTHS for weight in WEIGHTS}
    assert report.fitted == report.table[report.depth, report.weights[0]]
    assert report.gain_error >= 0
    assert report.adopted == (report.gain > 0)


def test_the_weight_goes_to_the_dense_part_when_it_is_right(collection: Collection) -> None:
    asked = queries(dense_is_right=True)
    report = tune(collection, asked, QRELS)
    check(report)
    # By default the wrong document, first by words, gets .6 and more, and the right one .4.
    assert report.default == pytest.approx(1 / np.log2(3))
    assert report.weights[0] > 0.5
    assert report.fitted == 1.0
    assert report.gain == pytest.approx(report.fitted - report.default)
    assert report.adopted
    assert report.queries == 30
    assert report.pipeline.fusion["hybrid"].weights == report.weights
    assert report.pipeline.depth == report.depth


def test_the_weight_goes_to_the_lexical_part_when_it_is_right(collection: Collection) -> None:
    present = FusionConfig(("mine", "words"), (0.9, 0.1))
    collection.pipeline = replace(collection.pipeline, fusion={"hybrid": present})
    report = tune(collection, queries(dense_is_right=False), QRELS)
    check(report)
    assert report.weights[0] < 0.5
    assert report.fitted == 1.0
    assert report.default < 0.5
    assert report.gain == pytest.approx(report.fitted - report.default)
    assert report.adopted


def test_a_pipeline_that_cannot_be_bettered_stays(collection: Collection) -> None:
    before = collection.pipeline
    report = tune(collection, queries(dense_is_right=False), QRELS)
    check(report)
    assert report.default == report.fitted == 1.0
    assert report.gain == 0
    assert not report.adopted
    assert report.pipeline is before


def test_where_no_weight_is_right_for_all_the_gain_is_that_of_queries_not_seen(collection: Collection) -> None:
    # Three of ten queries are right by vector, seven by word: the default, right for the seven, is best. A choice made
    # without a fold is the same, so nothing is gained and nothing is changed.
    right = queries(dense_is_right=True, count=COUNT)
    asked = [
        query if place % 10 < 3 else other
        for place, (query, other) in enumerate(zip(right, queries(dense_is_right=False, count=COUNT), strict=True))
    ]
    report = tune(collection, asked, QRELS)
    check(report)
    assert report.default == pytest.approx(0.7 + 0.3 / np.log2(3))
    assert report.fitted <= report.default + 1e-9
    assert report.gain <= 0
    assert not report.adopted


def test_a_lucky_fit_that_queries_not_seen_do_not_share_is_not_adopted(collection: Collection) -> None:
    # Ten queries that are right by a part drawn at random: some weight fits them better, and others worse.
    rng = random.Random(7)
    pairs = zip(queries(dense_is_right=True, count=10), queries(dense_is_right=False, count=10), strict=True)
    report = tune(collection, [rng.choice(pair) for pair in pairs], QRELS)
    check(report)
    assert report.fitted > report.default + 0.05
    assert report.gain < 0
    assert not report.adopted
    assert report.pipeline is collection.pipeline


@pytest.mark.parametrize("method", ["scores", "rrf"])
def test_what_is_adopted_is_what_was_measured(
    collection: Collection, folder: Path, tmp_path: Path, method: str
) -> None:
    present = FusionConfig(("mine", "words"), (0.2, 0.8), "rrf" if method == "rrf" else "scores")
    collection.pipeline = replace(collection.pipeline, fusion={"hybrid": present})
    asked = queries(dense_is_right=True)
    report = tune(collection, asked, QRELS)
    check(report)
    assert report.default == pytest.approx(quality(collection, asked))
    assert report.adopted
    check_pipeline(report.pipeline, collection.config, "tuned")
    (tmp_path / "pipeline.toml").write_text(to_toml(report.pipeline))
    with Collection.open(folder, pipeline=tmp_path / "pipeline.toml") as tuned:
        assert quality(tuned, asked) == pytest.approx(report.fitted)


@pytest.mark.parametrize("method", ["scores", "rrf"])
def test_every_choice_of_the_table_is_what_searching_with_it_gives(collection: Collection, method: str) -> None:
    usual = FusionConfig(("mine", "words"), (0.4, 0.6))
    collection.pipeline = PipelineConfig(
        "hybrid", 200, {"hybrid": replace(usual, method="rrf" if method == "rrf" else "scores")}
    )
    asked = queries(dense_is_right=True, count=12)
    report = tune(collection, asked, QRELS)
    if method == "scores":
        assert report.default == report.table[200, 0.4]
    found = {}
    for depth, weight in [(100, 0.0), (200, 0.25), (400, 0.5), (100, 0.55), (200, 0.6), (200, 0.65), (400, 1.0)]:
        fusion = replace(usual, weights=(weight, 1 - weight))
        collection.pipeline = PipelineConfig("hybrid", depth, {"hybrid": fusion})
        found[depth, weight] = quality(collection, asked)
        assert found[depth, weight] == pytest.approx(report.table[depth, weight])
    assert len({round(value, 6) for value in found.values()}) >= 4, "the choices must differ to be told apart"


def test_tuning_is_repeatable_and_writes_nothing(collection: Collection, folder: Path) -> None:
    before = sorted(path for path in folder.rglob("*") if "documents.db-" not in path.name)
    asked = queries(dense_is_right=True, count=20)
    assert tune(collection, asked, QRELS) == tune(collection, asked, QRELS)
    assert tune(collection, asked, QRELS, seed=1).weights == tune(collection, asked, QRELS).weights
    assert sorted(path for path in folder.rglob("*") if "documents.db-" not in path.name) == before


def test_a_few_queries_are_too_few(collection: Collection) -> None:
    asked = queries(dense_is_right=True)
    nine = {query.id: QRELS[query.id] for query in asked[:9]}
    irrelevant = {query.id: {"d0": 0} for query in asked[9:20]}
    with pytest.raises(RequestError, match=r"9 queries.*10"):
        tune(collection, asked, {**nine, **irrelevant})
    with pytest.raises(RequestError, match="0 queries"):
        tune(collection, [], QRELS)
    ten = {query.id: QRELS[query.id] for query in asked[:10]}
    assert tune(collection, asked, {**irrelevant, **ten}).queries == 10


@pytest.mark.parametrize("mode", ["words", "mine", "nobody", "alone"])
def test_only_a_fusion_of_two_has_a_weight(collection: Collection, mode: str) -> None:
    alone = FusionConfig(("mine",), (1.0,))
    collection.pipeline = replace(collection.pipeline, fusion={**collection.pipeline.fusion, "alone": alone})
    with pytest.raises(ConfigError, match=repr(mode)):
        tune(collection, queries(dense_is_right=True), QRELS, mode=mode)


def test_progress_ends_at_its_total(collection: Collection) -> None:
    calls: list[tuple[str, int, int | None]] = []
    tune(collection, queries(dense_is_right=True), QRELS, progress=lambda *call: calls.append(call))
    assert {name for name, _, _ in calls} >= {"tune"}
    for name in {name for name, _, _ in calls}:
        steps = [(done, total) for stage, done, total in calls if stage == name]
        assert [done for done, _ in steps] == sorted(done for done, _ in steps)
        assert steps[-1][0] == steps[-1][1]
