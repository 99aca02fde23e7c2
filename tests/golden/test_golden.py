"""A small corpus must rank exactly as committed, and a committed version-1 collection must always open."""

import importlib.util
import tarfile
from pathlib import Path
from types import ModuleType

import pytest

from evaluation.trec import read_run
from retrieval.collection import Collection
from retrieval.verify import verify

HERE = Path(__file__).parent


def golden() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_golden", HERE / "make_golden.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def runs_of_a_new_collection(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("golden")
    golden().make(folder / "collection")
    with Collection.open(folder / "collection") as collection:
        golden().write_runs(collection, folder)
    return folder


@pytest.mark.parametrize("mode", ["dense", "lexical", "hybrid"])
def test_rankings_are_as_committed(mode: str, runs_of_a_new_collection: Path) -> None:
    assert read_run(runs_of_a_new_collection / f"{mode}.run") == read_run(HERE / f"{mode}.run")


def extracted(tmp_path: Path) -> Path:
    with tarfile.open(HERE / "collection-v1.tar.gz") as archive:
        archive.extractall(tmp_path, filter="data")
    return tmp_path / "collection"


def test_a_version_1_collection_opens_and_answers_as_it_did(tmp_path: Path) -> None:
    folder = extracted(tmp_path)
    assert verify(folder) == []
    with Collection.open(folder) as collection:
        assert len(collection) == 24
        assert collection.get("chain") is None
        golden().write_runs(collection, tmp_path)
        changed = {"type": "eq", "key": "ratio", "value": 7}
        assert [hit.doc_id for hit in collection.search("depth of water", filter=changed).hits] == ["scope"]
    for mode in golden().MODES:
        assert read_run(tmp_path / f"{mode}.run") == read_run(HERE / f"{mode}.run")


def test_a_version_1_collection_can_be_written_to(tmp_path: Path) -> None:
    folder = extracted(tmp_path)
    with Collection.open(folder, writable=True) as collection:
        collection.delete(["tide"])
        collection.compact()
        assert [hit.doc_id for hit in collection.search("farm plough", k=1).hits] == ["anchor-plough"]
    assert verify(folder) == []
