"""A collection whose dense field asks for a device: found where there is one, noted where there is none."""

import logging
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from index.errors import ConfigError
from index.gpu import open_on
from retrieval.collection import Collection
from retrieval.collection_config import FILE, CollectionConfig, DenseField, collection_table, parse_collection
from retrieval.config import to_toml
from retrieval.encoders import EncoderConfig
from retrieval.types import Document, Ranking

Make = Callable[..., CollectionConfig]

WORDS = ["harbour", "anchor", "rope", "sail", "mast", "keel", "tide", "buoy", "deck", "hull"]


@pytest.fixture
def folder(in_memory: None) -> Iterator[Path]:  # noqa: ARG001  a fixture that acts
    with tempfile.TemporaryDirectory() as root:
        yield Path(root) / "c"


def on(config: CollectionConfig, device: str, **changes: str) -> CollectionConfig:
    dense = config.fields["dense"]
    assert isinstance(dense, DenseField)
    return replace(config, fields={**config.fields, "dense": replace(dense, device=device, **changes)})


def documents() -> list[Document]:
    rng = np.random.default_rng(0)
    return [Document(f"d{number}", " ".join(rng.choice(WORDS, 6))) for number in range(60)]


def answers(collection: Collection) -> list[Ranking]:
    asked = [(mode, text) for mode in ("dense", "hybrid") for text in ("anchor rope", "tide buoy keel")]
    return [collection.search(text, k=7, mode=mode) for mode, text in asked] + [
        collection.search("sail", k=3, mode="dense", filter={"type": "exists", "key": "none"}),
        collection.search("", k=3, mode="dense", like="d7"),
    ]


def hits(rankings: list[Ranking]) -> list[list[tuple[str, float | None]]]:
    return [[(hit.doc_id, hit.score) for hit in ranking.hits] for ranking in rankings]


def reopened(folder: Path, config: CollectionConfig) -> Collection:
    (folder / FILE).write_text(to_toml(collection_table(config)), encoding="utf-8")
    return Collection.open(folder, writable=True)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
@pytest.mark.parametrize("index", ["flat", "auto"])
def test_without_a_card_the_cpu_answers_and_every_answer_says_so(
    folder: Path, hashing_config: Make, index: str, caplog: pytest.LogCaptureFixture
) -> None:
    config = on(hashing_config(), "cpu", index=index)
    with Collection.create(folder, config) as collection:
        collection.add(documents())
        collection.compact()
        expected = answers(collection)
        generation = collection.shard.generation()
    assert not any(note.startswith("degraded") for ranking in expected for note in ranking.notes)
    caplog.clear()
    with reopened(folder, on(config, "cuda:0")) as collection:
        found = answers(collection)
        after = collection.search("hull", mode="lexical")
        assert collection.shard.generation() == generation  # the device decides nothing on disk
    assert hits(found) == hits(expected)
    for ranking in found:
        (note,) = (note for note in ranking.notes if note.startswith("degraded="))
        assert note.startswith("degraded=cuda:0 is absent: torch ")
        assert note.endswith(": field 'dense' was searched on the CPU")
    assert not any("degraded" in note for note in after.notes)
    told = [
        record for record in caplog.records if record.levelno == logging.WARNING and "cuda:0" in record.getMessage()
    ]
    assert len(told) == 1


def test_a_device_that_works_answers_like_the_cpu_and_says_nothing(
    folder: Path, hashing_config: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not torch.cuda.is_available():  # torch's CPU in place of a card, by the path a card takes
        monkeypatch.setattr("index.gpu.open_on", lambda _, *rest: open_on("cpu", *rest))
    config = hashing_config()
    with Collection.create(folder, config) as collection:
        collection.add(documents())
        collection.compact()
        expected = answers(collection)
    with reopened(folder, on(config, "cuda")) as collection:
        found = answers(collection)
        collection.add([Document("new", "anchor rope anchor rope")])
        assert collection.search("anchor rope", k=1, mode="dense").hits[0].doc_id == "new"
    assert [[doc_id for doc_id, _ in each] for each in hits(found)] == [
        [doc_id for doc_id, _ in each] for each in hits(expected)
    ]
    assert not any("degraded" in note for ranking in found for note in ranking.notes)


def test_device_names_are_checked_where_they_are_written() -> None:
    with pytest.raises(ConfigError, match=r"device is 'gpu'; allowed: 'cpu', 'cuda', 'cuda:N'"):
        DenseField(EncoderConfig(kind="hashing", dim=8), device="gpu")
    table = {"fields": {"dense": {"kind": "dense", "device": "cuda:x"}}}
    with pytest.raises(ConfigError, match=r"collection\.toml .*device is 'cuda:x'"):
        parse_collection(table, "collection.toml")
