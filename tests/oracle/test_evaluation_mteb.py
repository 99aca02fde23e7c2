"""The bridge to mteb: both runners agree on the same data, and mteb's traps shown beside how we avoid them.

Facts 2, 4 and 12 of the acceptance list. Everything is offline: the Hugging Face libraries are told so, and conftest
refuses every connection.
"""

import json
import random
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from evaluation.ground_truth import exact_truth
from evaluation.measures import mean, per_query_many, run_of
from evaluation.mteb_models import EncoderModel, PipelineSearch
from evaluation.mteb_tasks import as_mteb_task, mteb_library, redirected, task_from_mteb
from evaluation.task import Task, read_task
from index.errors import CorpusError, MissingDependencyError, RequestError
from index.metric import Metric
from index.types import Vectors
from retrieval.collection import Collection, build
from retrieval.encoders import EncodedBatch, EncoderConfig, open_encoder
from retrieval.sources import open_source
from retrieval.types import Document, Passage, Query, SearchRequest

MTEB = {
    "nDCG@1": "ndcg_at_1",
    "nDCG@10": "ndcg_at_10",
    "R@5": "recall_at_5",
    "R@100": "recall_at_100",
    "P@5": "precision_at_5",
    "AP@10": "map_at_10",
    "AP@1000": "map_at_1000",
    "RR@10": "mrr_at_10",
    "Success@3": "hit_rate_at_3",
}
"""Our name of a measure -> mteb's."""

ROUNDED = 5e-6 + 1e-12
"""mteb gives five decimals."""

Grades = dict[str, dict[str, int]]


@pytest.fixture(scope="module")
def mteb(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Import mteb, as it is without a network; some 10 s."""
    if find_spec("mteb") is None:
        pytest.skip("the mteb extra is not installed: pip install grapnel[mteb]")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE"):
            patch.setenv(name, "1")
        for name in ("HF_DATASETS_CACHE", "MTEB_CACHE"):
            patch.setenv(name, str(tmp_path_factory.mktemp(name.lower())))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            library = mteb_library()
            import huggingface_hub  # noqa: PLC0415  mteb's, and slow

            # Other tests may have imported it before, with the environment as it was.
            patch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
        yield library


def made(seed: int = 0) -> Task:
    """60 queries with grades 0 to 3 over 40 documents, some of them with titles; ids hold spaces."""
    rng = random.Random(seed)
    words = [f"word{number}" for number in range(90)]
    doc_ids = tuple(f"document {place:02}" for place in range(40))
    qrels: Grades = {}
    for number in range(60):
        grades = {doc_id: rng.choice([0, 0, 1, 2, 3]) for doc_id in rng.sample(doc_ids, rng.randrange(1, 25))}
        grades[rng.choice(doc_ids)] = 1
        qrels[f"q {number:02}"] = grades
    return Task(
        name="made",
        family="made",
        doc_ids=doc_ids,
        texts=tuple(" ".join(rng.choices(words, k=rng.randrange(8, 40))) for _ in doc_ids),
        titles=tuple(rng.choice(["", "a title", "another title"]) for _ in doc_ids),
        queries=tuple(Query(query, " ".join(rng.choices(words, k=3))) for query in qrels),
        qrels=qrels,
    )


class Ranked:
    """An mteb model that gives a known run."""

    def __init__(self, mteb: Any, run: Mapping[str, Sequence[str]], *, omit_empty: bool = False) -> None:
        self.mteb_model_meta = mteb.models.ModelMeta.create_empty()
        self._run = {query: doc_ids for query, doc_ids in run.items() if doc_ids or not omit_empty}

    def index(self, **_options: Any) -> None:
        pass

    def search(self, **_options: Any) -> dict[str, dict[str, float]]:
        return {
            query: {doc_id: -float(rank) for rank, doc_id in enumerate(doc_ids)} for query, doc_ids in self._run.items()
        }


def evaluated(mteb: Any, model: Any, task: Any, **options: Any) -> dict[str, float]:
    """The scores of mteb's runner on one split."""
    result = mteb.evaluate(model, task, **{"cache": None, "show_progress_bar": False, **options})
    (split,) = result.task_results[0].scores.values()
    return dict(split[0])


def ours(run: Mapping[str, Sequence[str]], task: Task) -> dict[str, float]:
    return {name: mean(values) for name, values in per_query_many(list(MTEB), run, task.qrels).items()}


def same(found: Mapping[str, float], expected: Mapping[str, float]) -> bool:
    return all(abs(found[theirs] - expected[name]) <= ROUNDED for name, theirs in MTEB.items())


def test_nothing_of_mteb_is_imported_with_the_bridge() -> None:
    code = "import sys, evaluation.mteb_models; sys.exit(bool({'mteb', 'datasets', 'polars'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_without_the_extra_one_line_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mteb", None)
    with pytest.raises(MissingDependencyError, match=r"grapnel\[mteb\]"):
        as_mteb_task(made())


@pytest.mark.parametrize("seed", range(3))
def test_measures_are_mtebs(mteb: Any, seed: int) -> None:
    task = made(seed)
    rng = random.Random(seed)
    run = {query.id: rng.sample(task.doc_ids, rng.randrange(0, 40)) for query in task.queries}
    run[task.queries[0].id] = []
    found = evaluated(mteb, Ranked(mteb, run), as_mteb_task(task))
    assert same(found, ours(run, task))
    assert found["main_score"] == found["ndcg_at_10"]


def test_half_the_answers_are_half_the_score_only_if_empty_ones_are_there(mteb: Any) -> None:
    task = replace(made(), qrels={query.id: {made().doc_ids[0]: 1} for query in made().queries})
    run = {query.id: [task.doc_ids[0]] * (number % 2) for number, query in enumerate(task.queries)}
    assert ours(run, task)["nDCG@10"] == 0.5
    assert evaluated(mteb, Ranked(mteb, run), as_mteb_task(task))["ndcg_at_10"] == 0.5
    # What mteb makes of a run that leaves queries out: the reason why PipelineSearch answers every one.
    assert evaluated(mteb, Ranked(mteb, run, omit_empty=True), as_mteb_task(task))["ndcg_at_10"] == 1


def test_a_pipeline_answers_every_query_best_first_without_ties(mteb: Any, hashing_config: Any, tmp_path: Path) -> None:
    task = replace(made(), texts=(" ", *made().texts[1:]), titles=("", *made().titles[1:]))
    queries = (Query("nowhere", "xylophone"), *task.queries)
    task = replace(task, queries=queries, qrels={**task.qrels, "nowhere": {task.doc_ids[0]: 1}})
    with PipelineSearch("words", hashing_config(), mode="lexical", work=tmp_path) as model:
        assert isinstance(model, mteb.SearchProtocol)
        assert not isinstance(model, mteb.EncoderProtocol)
        source = as_mteb_task(task)
        source.load_data()
        data = source.dataset["default"]["test"]
        with pytest.raises(RequestError, match="index"):
            model.search(data["queries"], task_metadata=source.metadata, top_k=5)
        model.index(data["corpus"], task_metadata=source.metadata)
        found = model.search(data["queries"], task_metadata=source.metadata, top_k=5)
        with pytest.raises(RequestError, match="candidates"):
            model.search(data["queries"], task_metadata=source.metadata, top_k=5, top_ranked={})
    assert list(found) == [query.id for query in queries]
    assert found["nowhere"] == {}
    assert max(map(len, found.values())) == 5
    assert all(list(scored.values()) == [-1.0, -2.0, -3.0, -4.0, -5.0][: len(scored)] for scored in found.values())
    assert not list(tmp_path.iterdir())


def test_a_pipeline_is_worth_the_same_to_mteb_and_to_us(
    mteb: Any, dataset: Callable[[str], Path], hashing_config: Any, tmp_path: Path
) -> None:
    folder = dataset("limit-small")
    task, config = read_task(folder), hashing_config(dim=1024)
    with PipelineSearch("default", config, work=tmp_path) as model:
        source = redirected(mteb.get_task("LIMITSmallRetrieval"), task)
        found = evaluated(mteb, model, source)
        assert model.mteb_model_meta.model_type == ["hybrid"]
    build(tmp_path / "ours", open_source(str(folder)).documents(), config)
    with Collection.open(tmp_path / "ours") as collection:
        requests = [SearchRequest(query, k=1000) for query in task.queries]
        run = run_of(collection.search_many(requests))
    assert same(found, ours(run, task))
    assert source.metadata.name == "LIMITSmallRetrieval"
    assert found["main_score"] == found["recall_at_2"]  # the shipped task's own main score
    assert 0.5 < found["main_score"] <= 1


def test_results_are_filed_under_what_they_are_of(mteb: Any, hashing_config: Any, tmp_path: Path) -> None:
    cache = mteb.ResultCache(tmp_path / "cache")
    with PipelineSearch("kept", hashing_config(), mode="lexical") as model:
        first = evaluated(mteb, model, as_mteb_task(made()), cache=cache)
        assert model.mteb_model_meta.model_type == ["sparse"]
    # Only the cache can answer: a file that `to_disk` rounded.
    again = evaluated(mteb, model, as_mteb_task(made()), cache=cache, overwrite_strategy="only-cache")
    assert again["main_score"] == first["main_score"]
    assert as_mteb_task(made()).metadata.revision == as_mteb_task(made()).metadata.revision
    other = replace(made(), texts=("changed", *made().texts[1:]))
    assert as_mteb_task(made()).metadata.revision != as_mteb_task(other).metadata.revision
    revisions = {
        PipelineSearch("kept", config, mode=mode).mteb_model_meta.revision
        for config, mode in [(hashing_config(), "lexical"), (hashing_config(), None), (hashing_config(dim=128), None)]
    }
    assert len(revisions) == 3
    (kept,) = (tmp_path / "cache").rglob("model_meta.json")
    recorded = json.loads(kept.read_text())
    assert recorded["name"] == "grapnel/kept"
    assert recorded["license"] is recorded["training_datasets"] is recorded["n_parameters"] is None


def test_an_encoder_is_searched_exactly_by_mteb_as_by_us(mteb: Any, tmp_path: Path) -> None:
    task = made()
    # Few dimensions: words collide everywhere, so no two documents tie.
    encoder = open_encoder(EncoderConfig(kind="hashing", dim=64))
    model = EncoderModel("hashed", encoder)
    assert isinstance(model, mteb.EncoderProtocol)
    assert not isinstance(model, mteb.SearchProtocol)
    assert (model.mteb_model_meta.embed_dim, model.mteb_model_meta.similarity_fn_name) == (64, "cosine")
    found = evaluated(mteb, model, as_mteb_task(task), prediction_folder=tmp_path)
    passages = [Passage("", 0, 0, len(text), text, title) for text, title in zip(task.texts, task.titles, strict=True)]
    documents, queries = encoder.encode_passages(passages), encoder.encode_queries(task.queries)
    exact = exact_truth(documents, queries, "cosine", len(task.doc_ids))
    (path,) = tmp_path.glob("*.json")
    predicted = json.loads(path.read_text())["default"]["test"]
    for query, rows, expected in zip(task.queries, exact.rows, exact.scores, strict=True):
        ranked = sorted(predicted[query.id], key=predicted[query.id].__getitem__, reverse=True)
        assert ranked == [task.doc_ids[row] for row in rows]
        assert [predicted[query.id][doc_id] for doc_id in ranked] == pytest.approx(expected, abs=1e-6)
    assert same(found, ours(task.run_of(exact.rows), task))


@pytest.mark.parametrize("metric", ["cosine", "ip", "l2"])
def test_vectors_are_compared_by_the_metric(metric: Metric) -> None:
    rng = np.random.default_rng(0)
    first, second = (rng.normal(size=(5, 7)).astype(np.float32) for _ in range(2))
    formulas = {
        "cosine": lambda one, other: one @ other / np.linalg.norm(one) / np.linalg.norm(other),
        "ip": lambda one, other: one @ other,
        "l2": lambda one, other: -((one - other) ** 2).sum(),
    }
    expected = np.array([[formulas[metric](one, other) for other in second] for one in first])
    model = EncoderModel("any", open_encoder(EncoderConfig(kind="hashing", dim=8)), metric=metric)
    np.testing.assert_allclose(model.similarity(first, torch.from_numpy(second)), expected, atol=1e-5)
    np.testing.assert_allclose(model.similarity(first[0], second), expected[:1], atol=1e-5)
    np.testing.assert_allclose(model.similarity_pairwise(first, second), expected.diagonal(), atol=1e-5)


def test_an_encoder_has_one_precision() -> None:
    model = EncoderModel("any", open_encoder(EncoderConfig(kind="hashing", dim=8)))
    with pytest.raises(RequestError, match="int8"):
        model.encode([{"text": ["a"]}], precision="int8")
    assert model.encode([{"text": ["a", "b"]}, {"text": ["a"]}]).shape == (3, 8)


class Recorder:
    """An encoder that keeps what it was given."""

    dim = 1
    fingerprint = "none"

    def __init__(self) -> None:
        self.seen: list[tuple[str, str]] = []

    def encode_queries(self, queries: Sequence[Query]) -> Vectors:
        self.seen += [("query", query.text) for query in queries]
        return np.zeros((len(queries), 1), dtype=np.float32)

    def encode_passages(self, passages: Sequence[Passage]) -> Vectors:
        self.seen += [(passage.title, passage.text) for passage in passages]
        return np.zeros((len(passages), 1), dtype=np.float32)

    def encode_texts(self, texts: Sequence[str]) -> EncodedBatch:
        raise NotImplementedError


def test_an_encoder_gets_titles_apart_and_queries_as_queries() -> None:
    recorder = Recorder()
    model = EncoderModel("recorder", recorder)
    model.encode([{"text": ["a title a text"], "body": ["a text"], "title": ["a title"]}], prompt_type="document")
    model.encode([{"text": ["untitled"], "body": ["untitled"]}], prompt_type="document")
    model.encode([{"text": ["asked, shortly"], "query": ["asked"]}], prompt_type="query")
    model.encode([{"text": ["neither"]}])
    assert recorder.seen == [("a title", "a text"), ("", "untitled"), ("query", "asked, shortly"), ("", "neither")]


@pytest.mark.usefixtures("mteb")
def test_a_task_comes_back_from_mteb_as_it_went() -> None:
    task = made()
    assert task_from_mteb(as_mteb_task(task, split="dev")) == task


def test_a_task_of_mteb_is_read_from_files_and_measured_by_us(mteb: Any, hashing_config: Any, tmp_path: Path) -> None:
    task = made()
    write_hub_folder(task, tmp_path / "hub")

    class OnDisk(mteb.abstasks.AbsTaskRetrieval):
        metadata = as_mteb_task(task).metadata.model_copy(
            update={"name": "OnDisk", "dataset": {"path": str(tmp_path / "hub"), "revision": "1"}}
        )

    source = OnDisk()
    read = task_from_mteb(source)
    assert read == replace(task, name="OnDisk", family="OnDisk")
    with PipelineSearch("words", hashing_config()) as model:
        found = evaluated(mteb, model, source)
    documents = map(Document, read.doc_ids, read.texts, read.titles)
    build(tmp_path / "ours", documents, hashing_config())
    with Collection.open(tmp_path / "ours") as collection:
        run = run_of(collection.search_many([SearchRequest(query, k=1000) for query in read.queries]))
    assert same(found, ours(run, read))


def write_hub_folder(task: Task, folder: Path) -> None:
    """Write a task as mteb's own repositories have them."""
    folder.mkdir()
    parts = {
        "corpus": zip_rows(("_id", "title", "text"), task.doc_ids, task.titles, task.texts),
        "queries": [{"_id": query.id, "text": query.text} for query in task.queries],
        "qrels": [
            {"query-id": query, "corpus-id": doc_id, "score": grade}
            for query, grades in task.qrels.items()
            for doc_id, grade in grades.items()
        ],
    }
    configs = []
    for part, rows in parts.items():
        (folder / f"{part}.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
        name = "default" if part == "qrels" else part
        configs.append(f"- config_name: {name}\n  data_files:\n  - split: test\n    path: {part}.jsonl\n")
    (folder / "README.md").write_text(f"---\nconfigs:\n{''.join(configs)}---\n")


def zip_rows(names: Sequence[str], *columns: Sequence[str]) -> list[dict[str, str]]:
    return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]


@pytest.mark.usefixtures("mteb")
def test_the_old_layout_of_tasks_is_read() -> None:
    task = made()
    source = as_mteb_task(task)
    source.queries = {"test": {query.id: query.text for query in task.queries}}
    columns = zip(task.doc_ids, task.titles, task.texts, strict=True)
    source.corpus = {"test": {doc_id: {"title": title, "text": text} for doc_id, title, text in columns}}
    source.relevant_docs = {"test": dict(task.qrels)}
    source.data_loaded = True
    assert task_from_mteb(source) == task


@pytest.mark.usefixtures("mteb")
def test_queries_that_nothing_answers_are_left_out_aloud(caplog: pytest.LogCaptureFixture) -> None:
    task = made()
    source = as_mteb_task(task)
    source.load_data()
    judged = source.dataset["default"]["test"]["relevant_docs"]
    barren = task.queries[3].id
    judged[barren] = dict.fromkeys(judged[barren], 0)
    judged["of another split"] = {task.doc_ids[0]: 1}
    read = task_from_mteb(source)
    assert [query.id for query in read.queries] == [query.id for query in task.queries if query.id != barren]
    assert read.qrels.keys() == {query.id for query in read.queries}
    assert "1 queries" in caplog.text


@pytest.mark.usefixtures("mteb")
def test_instructions_follow_their_query() -> None:
    source = as_mteb_task(made())
    source.load_data()
    data = source.dataset["default"]["test"]
    data["queries"] = data["queries"].add_column("instruction", ["in short"] * len(data["queries"]))
    assert [query.text for query in task_from_mteb(source).queries] == [
        f"{query.text} in short" for query in made().queries
    ]


def test_what_our_runner_would_measure_otherwise_is_refused(mteb: Any) -> None:
    def changed(**attributes: Any) -> Any:
        source = as_mteb_task(made())
        source.load_data()
        for name, value in attributes.items():
            setattr(source, name, value)
        return source

    with pytest.raises(RequestError, match="first result"):
        task_from_mteb(changed(skip_first_result=True))
    assert task_from_mteb(changed(ignore_identical_ids=True)) == made()  # no query has a document's id
    source = changed(ignore_identical_ids=True)
    data = source.dataset["default"]["test"]
    data["corpus"] = data["corpus"].add_item({"id": made().queries[0].id, "title": "", "text": "same id"})
    with pytest.raises(RequestError, match=r"query's id \(1 do\)"):
        task_from_mteb(source)
    source = changed()
    source.dataset["default"]["test"]["top_ranked"] = {"q 00": ["document 01"]}
    with pytest.raises(RequestError, match="candidates"):
        task_from_mteb(source)
    source = changed()
    source.dataset["default"]["test"]["relevant_docs"]["q 00"]["elsewhere"] = 1
    with pytest.raises(CorpusError, match="'elsewhere'"):
        task_from_mteb(source)
    data = source.dataset["default"]["test"]
    data["corpus"] = data["corpus"].remove_columns("text")
    with pytest.raises(CorpusError, match="text"):
        task_from_mteb(source)
    with pytest.raises(RequestError, match="is of type STS: expected a retrieval task"):
        task_from_mteb(mteb.get_task("STS12"))
    with pytest.raises(RequestError, match="split is 'train', expected one of test"):
        task_from_mteb(as_mteb_task(made()), split="train")


def test_only_tasks_of_one_subset_and_split_are_redirected(mteb: Any) -> None:
    with pytest.raises(RequestError, match="subset"):
        redirected(mteb.get_task("BelebeleRetrieval"), made())
    several = mteb.get_task("LIMITSmallRetrieval").filter_eval_splits(["dev", "test"])
    with pytest.raises(RequestError, match="split is None, expected one of dev, test"):
        redirected(several, made())
    source = redirected(mteb.get_task("LIMITSmallRetrieval"), made())
    source.load_data()
    source.unload_data()
    assert task_from_mteb(source) == replace(made(), name="LIMITSmallRetrieval", family="LIMITSmallRetrieval")
