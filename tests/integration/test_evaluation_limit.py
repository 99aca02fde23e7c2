"""Retrievers on LIMIT: words find everything, and the commands that say so."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from command_line import answer, error_line, grapnel

from api.cli import main
from evaluation.limit import LimitConfig, generate, write
from evaluation.limit_run import MEASURES, RETRIEVERS, compare, compare_modes, opened, read_judged, standing
from index.errors import CorpusError, RequestError
from retrieval.collection_config import CollectionConfig

limit = partial(answer, "limit", timeout_s=120)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("limit") / "small"
    write(folder, generate(LimitConfig()))
    return folder


def test_words_find_what_is_asked_for(small: Path, tmp_path: Path) -> None:
    found = compare(small, ["bm25"], tmp_path)
    assert found["bm25"].values["R@2"] >= 0.97
    assert found["bm25"].values["R@10"] == 1


def test_words_and_hashed_words_on_the_real_small_set(dataset: Callable[[str], Path], tmp_path: Path) -> None:
    found = compare(dataset("limit-small"), ["hash-4096", "bm25"], tmp_path)
    assert list(found) == ["hash-4096", "bm25"]
    assert found["bm25"].values["R@2"] >= 0.97
    assert found["bm25"].values["R@10"] == 1
    assert 0.85 <= found["hash-4096"].values["R@2"] <= 1  # one vector, 4,096 dimensions: .888 was measured elsewhere
    assert found["hash-4096"].values["R@20"] >= 0.99


def test_words_do_not_find_synonyms(tmp_path: Path) -> None:
    write(tmp_path / "data", generate(LimitConfig(queries=250, synonyms=True)))
    found = compare(tmp_path / "data", ["bm25"], tmp_path / "work")
    # Every document holds "likes", so all 23 come back, in an order that knows nothing: 2 of 23 in the first two.
    assert found["bm25"].values["R@2"] < 0.2
    assert found["bm25"].values["R@100"] == 1


def test_collections_are_used_again_but_not_others(
    tmp_path: Path, hashing_config: Callable[..., CollectionConfig]
) -> None:
    small = tmp_path / "set"
    write(small, generate(LimitConfig(queries=50)))
    config = hashing_config(dim=64)
    with opened(small, config, tmp_path / "c") as collection:
        first = compare_modes(small, collection)
    assert list(first) == ["hybrid", "dense", "lexical"]
    assert all(tuple(found.values) == MEASURES for found in first.values())
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "c" / "shards").rglob("gen-*.json")}
    with opened(small, config, tmp_path / "c") as collection:
        again = standing(collection, "dense", read_judged(small))
    assert again.values == first["dense"].values
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "c" / "shards").rglob("gen-*.json")}
    with (
        pytest.raises(RequestError, match="another configuration"),
        opened(small, hashing_config(dim=32), tmp_path / "c"),
    ):
        pass


def test_unknown_retrievers_and_folders_are_refused(small: Path, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=f"'bm26' is unknown; allowed: {', '.join(RETRIEVERS)}"):
        compare(small, ["bm25", "bm26"], tmp_path)
    with pytest.raises(RequestError, match="none is unknown"):
        compare(small, [], tmp_path)
    with pytest.raises(CorpusError, match="not a BEIR folder"):
        compare(tmp_path, ["bm25"], tmp_path / "work")


HEADER = "query-id\tcorpus-id\tscore\n"


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("qrels/test.tsv", f"{HEADER}q\ta\t1\nq\tz\t1\n", "name 1 documents that its corpus does not hold: 'z'"),
        ("qrels/test.tsv", f"{HEADER}q\ta\t1\nr\ta\t1\n", "judges 1 queries that have no text: 'r'"),
        ("qrels/test.tsv", f"{HEADER}q\ta\t0\n", "none of its 1 queries has a relevant document"),
        ("qrels/test.tsv", f"{HEADER}q\ta\tgood\n", "line 2: grade 'good' is not an integer"),
        ("qrels/test.tsv", f"{HEADER}q\ta\t9999999\n", "the grade of document 'a' for query 'q' is 9,999,999"),
        ("qrels/test.tsv", "", "holds no judgements"),
        ("queries.jsonl", "", "holds no queries"),
        ("corpus.jsonl", "", "holds no documents"),
    ],
)
def test_a_broken_dataset_is_one_line_and_no_number(
    name: str, text: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "qrels").mkdir()
    (tmp_path / "qrels" / "test.tsv").write_text(f"{HEADER}q\ta\t1\n", encoding="utf-8")
    (tmp_path / "queries.jsonl").write_text('{"_id": "q", "text": "Who likes tea?"}\n', encoding="utf-8")
    (tmp_path / "corpus.jsonl").write_text('{"_id": "a", "text": "A likes tea."}\n', encoding="utf-8")
    (tmp_path / name).write_text(text, encoding="utf-8")
    assert main(["limit", "run", str(tmp_path), "--retrievers", "bm25"]) == 1
    assert message in error_line(*capsys.readouterr())


def test_a_collection_of_other_documents_is_refused(
    tmp_path: Path, hashing_config: Callable[..., CollectionConfig]
) -> None:
    for seed in (0, 1):
        write(tmp_path / str(seed), generate(LimitConfig(queries=10, seed=seed)))
    with opened(tmp_path / "0", hashing_config(dim=16), tmp_path / "c"):
        pass
    with (
        opened(tmp_path / "1", hashing_config(dim=16), tmp_path / "c") as collection,
        pytest.raises(RequestError, match="is it a collection of this dataset"),
    ):
        compare_modes(tmp_path / "1", collection)


def test_commands_generate_and_run(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    made = limit("generate", "--out", folder, "--queries", "100", "--pattern", "cycle", "--documents", "150")
    assert (made["documents"], made["relevant_documents"], made["judgements"]) == (150, 100, 200)
    assert (made["pattern"], made["queries"], made["k"], made["seed"]) == ("cycle", 100, 2, 0)
    found = limit("run", folder, "--retrievers", "bm25", "--work", tmp_path / "work")
    assert found["retrievers"].keys() == {"bm25"}
    assert found["retrievers"]["bm25"]["R@2"] >= 0.97
    table = grapnel("limit", "run", folder, "--collection", tmp_path / "work" / "words", timeout_s=120)
    assert table.returncode == 0, table.stderr
    assert "lexical" in table.stdout
    assert "R@100" in table.stdout


def test_a_configuration_of_ones_own_is_run_in_every_mode(tmp_path: Path) -> None:
    write(tmp_path / "set", generate(LimitConfig(queries=30)))
    config = tmp_path / "collection.toml"
    config.write_text('[encoder]\nkind = "hashing"\ndim = 64\n', encoding="utf-8")
    found = limit("run", tmp_path / "set", "--config", config)
    assert found["retrievers"].keys() == {"hybrid", "dense", "lexical"}


def test_the_command_tries_free_vectors() -> None:
    found = limit("free-embeddings", "--dims", "2")
    assert [(of["dim"], of["documents"], of["published"]) for of in found["dims"]] == [(2, 3, None)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["generate", "--out", "x", "--queries", "0"], "queries is 0"),
        (["generate", "--out", "x", "--pattern", "star"], "invalid choice: 'star'"),
        (["free-embeddings", "--dims", "4,x"], "--dims is '4,x'"),
        (["free-embeddings", "--dims", "0"], "--dims is '0'"),
        (["free-embeddings", "--starts", "0"], "with 0 seeds"),
        (["run", "x", "--config", "a", "--retrievers", "b"], "not allowed with"),
        ([], "ACTION"),
    ],
)
def test_bad_arguments_are_one_clear_line(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["limit", *arguments]) == 2
    assert message in error_line(*capsys.readouterr())
