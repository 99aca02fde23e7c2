"""Collections over approximate indexes: what is found, written, rebuilt and said."""

import json
import math
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from index.ann import FAISS_FILE
from index.ann_format import FILE, About, read_about
from index.errors import ConfigError, IndexFormatError
from index.spec import IndexParams, Kind
from retrieval.collection import SHARD, Collection, build
from retrieval.collection_config import CollectionConfig, DenseField, collection_table, parse_collection
from retrieval.config import to_toml
from retrieval.encoders import EncoderConfig
from retrieval.status import describe
from retrieval.types import Document, Ranking, SearchRequest
from retrieval.types import Query as Question
from retrieval.verify import verify

COUNT = 1_600
TOPICS = 40
TARGET = 0.9
QUERIES = 100
KINDS: tuple[Kind, ...] = ("hnsw", "ivf-rabitq")


def corpus() -> list[Document]:
    """Documents of words that mostly belong to one of 40 topics, so that their vectors form clusters."""
    rng = np.random.default_rng(11)
    documents = []
    for number in range(COUNT):
        topic = int(rng.integers(TOPICS))
        words = [f"topic{topic}word{word}" for word in rng.integers(0, 30, 20)] + [
            f"any{word}" for word in rng.integers(0, 2_000, 12)
        ]
        metadata = {"number": number, "topic": topic, "half": number % 2 == 0}
        documents.append(Document(f"d{number:04}", " ".join(words), metadata=metadata))
    return documents


def questions(count: int = QUERIES) -> list[str]:
    rng = np.random.default_rng(12)
    return [
        " ".join(
            [f"topic{topic}word{word}" for word in rng.integers(0, 30, 12)]
            + [f"any{word}" for word in rng.integers(0, 2_000, 6)]
        )
        for topic in rng.integers(0, TOPICS, count).tolist()
    ]


def configured(index: Kind, **options: object) -> CollectionConfig:
    field = DenseField(EncoderConfig(kind="hashing", dim=64), index=index, recall=TARGET)
    return CollectionConfig(fields={"dense": replace(field, **options)})  # type: ignore[arg-type]


@dataclass(frozen=True)
class Pair:
    """The same documents behind an approximate index and behind exact search."""

    near: Path
    exact: Path


@pytest.fixture(scope="module")
def pairs() -> Iterator[Callable[[Kind], Pair]]:
    with tempfile.TemporaryDirectory() as root, pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRAPNEL_THREADS", "1")
        patch.setattr("index.calibrate._TIMED", 10)  # how fast is not the point here

        def get(kind: Kind) -> Path:
            folder = Path(root) / kind
            if not folder.exists():
                build(folder, corpus(), configured(kind))
            return folder

        yield lambda kind: Pair(get(kind), get("flat"))


@pytest.fixture
def copied(pairs: Callable[[Kind], Pair], tmp_path: Path) -> Callable[[Kind], Pair]:
    def copy(kind: Kind) -> Pair:
        pair = pairs(kind)
        result = Pair(tmp_path / "near", tmp_path / "exact")
        shutil.copytree(pair.near, result.near)
        shutil.copytree(pair.exact, result.exact)
        return result

    return copy


def component(folder: Path) -> Path:
    (found,) = (folder / SHARD / "components").glob("dense-dense-*")
    return found


def about_of(folder: Path) -> About:
    about = read_about(component(folder))
    assert about is not None
    return about


def scores(ranking: Ranking) -> list[float]:
    return [float(hit.score) for hit in ranking.hits if hit.score is not None]


def recall(near: Collection, exact: Collection, requests: list[SearchRequest]) -> float:
    """Share of exact search's results that are found; whatever scores like its last one counts."""
    shares = []
    for found, expected in zip(near.search_many(requests), exact.search_many(requests), strict=True):
        assert len(found.hits) == len(expected.hits)
        assert len({hit.doc_id for hit in found.hits}) == len(found.hits)
        if expected.hits:
            shares.append(np.mean(np.array(scores(found)) >= scores(expected)[-1] - 1e-5))
    return float(np.mean(shares)) if shares else 1.0


def asked(**options: object) -> list[SearchRequest]:
    return [
        SearchRequest(Question(str(number), text), **options)  # type: ignore[arg-type]
        for number, text in enumerate(questions())
    ]


# -- what is found ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_a_search_finds_what_was_promised(kind: Kind, pairs: Callable[[Kind], Pair]) -> None:
    pair = pairs(kind)
    about = about_of(pair.near)
    assert about.kind == kind
    with Collection.open(pair.near) as near, Collection.open(pair.exact) as exact:
        for k, claim in ((10, about.calibrated[0].recall), (100, about.calibrated[1].recall)):
            assert claim.reached
            slack = 3 * math.sqrt(TARGET * (1 - TARGET) / QUERIES)
            assert recall(near, exact, asked(k=k, depth=k)) >= claim.low - slack
        by_id = {hit.doc_id: hit.score for hit in exact.search(questions()[0], k=COUNT).hits}
        for hit in near.search(questions()[0], k=50).hits:
            assert hit.score == pytest.approx(by_id[hit.doc_id], abs=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_filters_leave_exactly_what_they_allow(kind: Kind, pairs: Callable[[Kind], Pair]) -> None:
    pair = pairs(kind)
    conditions = [
        {"type": "eq", "key": "half", "value": True},
        {"type": "lt", "key": "number", "value": 160},
        {"type": "eq", "key": "topic", "value": 3},
        {"type": "eq", "key": "number", "value": 5},
        {"type": "eq", "key": "number", "value": -1},
    ]
    with Collection.open(pair.near) as near, Collection.open(pair.exact) as exact:
        for condition in conditions:
            assert recall(near, exact, asked(filter=condition)) == 1
            for hit in near.search(questions()[0], filter=condition, k=50).hits:
                assert hit.doc_id in {other.doc_id for other in exact.search("any1", filter=condition, k=COUNT).hits}


@pytest.mark.parametrize("kind", KINDS)
def test_every_document_is_returned_when_all_are_asked_for(kind: Kind, pairs: Callable[[Kind], Pair]) -> None:
    with Collection.open(pairs(kind).near) as near:
        assert sorted(hit.doc_id for hit in near.search("any7", k=COUNT + 5).hits) == [f"d{n:04}" for n in range(COUNT)]


@pytest.mark.parametrize("kind", KINDS)
def test_a_document_is_like_its_own_vectors(kind: Kind, pairs: Callable[[Kind], Pair]) -> None:
    """Rows stand in another order inside: similarity and diversity must not see that."""
    pair = pairs(kind)
    with Collection.open(pair.near) as near, Collection.open(pair.exact) as exact:
        for number in range(0, COUNT, 53):
            found, expected = (c.search(like=f"d{number:04}", k=5) for c in (near, exact))
            assert scores(found)[0] == pytest.approx(scores(expected)[0], abs=1e-5)
        first, second = (c.search(questions()[1], k=5, depth=COUNT, diversity=0.5) for c in (near, exact))
        assert [hit.doc_id for hit in first.hits] == [hit.doc_id for hit in second.hits]


# -- writes on top ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_fresh_changed_and_deleted_documents_are_seen_at_once_and_after_compaction(
    kind: Kind, copied: Callable[[Kind], Pair]
) -> None:
    pair = copied(kind)
    question = questions()[0]
    with (
        Collection.open(pair.near, writable=True) as near,
        Collection.open(pair.exact, writable=True) as exact,
    ):
        gone = [hit.doc_id for hit in exact.search(question, k=12).hits]
        changed = [hit.doc_id for hit in exact.search(questions()[1], k=3).hits if hit.doc_id not in gone]
        for collection in (near, exact):
            collection.add([Document("new", question, metadata={"number": COUNT})])
            collection.add([Document(doc_id, "nothing in common") for doc_id in changed])
            assert collection.delete(gone) == len(gone)

        def check() -> None:
            top = near.search(question, k=10)
            assert top.hits[0].doc_id == "new"
            assert scores(top)[0] == pytest.approx(1, abs=1e-5)
            assert not {hit.doc_id for hit in near.search(question, k=COUNT).hits} & set(gone)
            assert {hit.doc_id for hit in near.search("nothing in common", k=len(changed)).hits} == set(changed)
            assert len(near.search(question, k=2 * COUNT).hits) == COUNT + 1 - len(gone)
            assert recall(near, exact, asked()) >= TARGET - 3 * math.sqrt(TARGET * (1 - TARGET) / QUERIES)
            assert recall(near, exact, asked(filter={"type": "gt", "key": "number", "value": COUNT - 100})) == 1

        check()
        assert near.compact().built[0] == "dense"
        exact.compact()
        check()
        assert about_of_current(near).kind == kind
    assert verify(pair.near) == []


def about_of_current(collection: Collection) -> About:
    generation = collection.shard.generation()
    assert generation is not None
    about = read_about(collection.shard.folder / "components" / generation.components["dense"].id)
    assert about is not None
    return about


def test_a_compaction_without_changes_carries_the_index_over(copied: Callable[[Kind], Pair]) -> None:
    folder = copied("hnsw").near
    before = component(folder)
    with Collection.open(folder, writable=True) as collection:
        collection.patch("d0001", {"half": None})  # metadata only
        report = collection.compact()
    assert "dense" in report.reused
    assert component(folder) == before


# -- what is said -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_info_names_the_kind_and_its_recall(kind: Kind, pairs: Callable[[Kind], Pair]) -> None:
    folder = pairs(kind).near
    with Collection.open(folder) as collection:
        said = describe(collection)["fields"]["dense"]
    assert (said["index"], said["built_as"], said["metric"], said["storage"]) == (kind, kind, "cosine", "float32")
    for calibrated in about_of(folder).calibrated:
        measured = calibrated.recall
        text = said[f"recall@{measured.k}"]
        assert f"{measured.measured:.3f}" in text
        assert f"{measured.remote:.3f}" in text
        assert f"target {TARGET}" in text
        assert "NOT REACHED" not in text
    assert "because" not in said
    json.dumps(said)


def test_info_of_exact_search_claims_nothing(pairs: Callable[[Kind], Pair]) -> None:
    with Collection.open(pairs("flat").exact) as collection:
        said = describe(collection)["fields"]["dense"]
    assert said["index"] == "flat"
    assert not any(key.startswith("recall@") for key in said)


def test_auto_is_exact_search_for_few_and_says_why(tmp_path: Path) -> None:
    build(tmp_path / "c", corpus()[:50], configured("auto"))
    assert not (component(tmp_path / "c") / FAISS_FILE).exists()
    with Collection.open(tmp_path / "c") as collection:
        said = describe(collection)["fields"]["dense"]
        assert (said["index"], said["built_as"]) == ("auto", "flat")
        assert "50 vectors" in said["because"]
        assert len(collection.search(questions()[0]).hits) == 10


def test_auto_says_where_the_vectors_exceed_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("index.choose.FLAT_ROWS", 1_000)  # as if these were many
    found: dict[float, tuple[str, str]] = {}
    for memory_gb in (1.0, 1e-5):
        folder = tmp_path / str(memory_gb)
        build(folder, corpus(), configured("auto", memory_gb=memory_gb))
        with Collection.open(folder) as collection:
            said = describe(collection)["fields"]["dense"]
            assert len(collection.search(questions()[0]).hits) == 10
        found[memory_gb] = (said["built_as"], said["because"])
        assert about_of(folder).asked == "auto"
    assert (found[1.0][0], found[1e-5][0]) == ("hnsw", "ivf-rabitq")
    assert "disk" not in found[1.0][1]
    assert "disk" in found[1e-5][1]
    assert all(because.startswith("auto: ") for _, because in found.values())


def test_a_new_field_is_auto_and_a_kind_can_be_set_with_its_parameters() -> None:
    table = {
        "encoder": {"kind": "hashing", "dim": 64},
        "fields": {
            "plain": {"kind": "dense"},
            "set": {
                "kind": "dense",
                "index": "ivf-pq",
                "metric": "ip",
                "storage": "int8",
                "recall": 0.9,
                "memory_gb": 2.5,
                "params": {"lists": 7, "code_bytes": 8},
            },
        },
    }
    config = parse_collection(table, "collection.toml")
    assert config.dense_fields()["plain"].index == "auto"
    spec = config.dense_fields()["set"].spec()
    assert (spec.kind, spec.metric, spec.storage, spec.recall, spec.memory_gb) == ("ivf-pq", "ip", "int8", 0.9, 2.5)
    assert spec.params == IndexParams(lists=7, code_bytes=8)
    assert parse_collection(collection_table(config), "collection.toml") == config


@pytest.mark.parametrize(
    ("field", "message"),
    [
        ({"index": "annoy"}, r"collection.toml \[fields.dense\].*annoy.*ivf-rabitq"),
        ({"storage": "int4"}, r"collection.toml \[fields.dense\].*int4.*float16"),
        ({"recall": 2.0}, r"collection.toml \[fields.dense\].*recall is 2.0"),
        ({"recall": "high"}, r"collection.toml \[fields.dense\].*recall"),
        ({"index": "hnsw", "storage": "int8"}, r"collection.toml \[fields.dense\].*hnsw-sq8"),
        ({"index": "binary", "metric": "l2"}, r"collection.toml \[fields.dense\].*binary.*cosine"),
        ({"params": {"links": 1}}, r"collection.toml \[fields.dense.*links is 1"),
        ({"params": {"nlist": 1}}, r"collection.toml \[fields.dense.*nlist"),
        ({"memory_gb": 0.0}, r"collection.toml \[fields.dense\].*memory_gb is 0"),
    ],
)
def test_a_mistake_is_named_with_its_place(field: dict[str, object], message: str) -> None:
    table = {"fields": {"dense": {"kind": "dense", "encoder": {"kind": "hashing", "dim": 64}, **field}}}
    with pytest.raises(ConfigError, match=message):
        parse_collection(table, "collection.toml")


# -- another kind, and damage -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "edited"),
    [
        ("index", configured("ivf-flat")),
        ("recall", configured("hnsw", recall=0.8)),
        ("storage", configured("hnsw", storage="float16")),
        ("params", configured("hnsw", params=IndexParams(links=8))),
        ("index", configured("flat")),
    ],
    ids=["kind", "recall", "storage", "params", "flat"],
)
def test_another_index_asks_for_a_compaction_which_encodes_nothing(
    change: str, edited: CollectionConfig, copied: Callable[[Kind], Pair]
) -> None:
    pair = copied("hnsw")
    (pair.near / "collection.toml").write_text(to_toml(collection_table(edited)))
    with Collection.open(pair.near) as reader, pytest.raises(IndexFormatError, match=rf"{change}.*grapnel compact"):
        reader.search("any1")
    with Collection.open(pair.near, writable=True) as writer, Collection.open(pair.exact) as exact:
        report = writer.compact()
        assert report.built == ("dense",)
        assert report.encoded["dense"].encoded == 0
        assert recall(writer, exact, asked()) >= 0.8 - 3 * math.sqrt(0.8 * 0.2 / QUERIES)
        said = describe(writer)["fields"]["dense"]
        assert said.get("built_as", "flat") == edited.dense_fields()["dense"].index
        assert said["storage"] == edited.dense_fields()["dense"].storage


def test_the_device_is_no_part_of_what_is_on_disk(copied: Callable[[Kind], Pair]) -> None:
    folder = copied("hnsw").near
    text = (folder / "collection.toml").read_text()
    shorter = text.replace('device = "cpu"\n', "")
    assert shorter != text
    (folder / "collection.toml").write_text(shorter)
    with Collection.open(folder) as collection:
        assert len(collection.search("any1").hits) == 10


@pytest.mark.parametrize("name", [FAISS_FILE, FILE, "vectors.npy"])
def test_a_flipped_bit_is_refused_found_and_repaired(name: str, copied: Callable[[Kind], Pair]) -> None:
    folder = copied("ivf-rabitq").near
    path = component(folder) / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)
    with Collection.open(folder) as collection, pytest.raises(IndexFormatError, match=f"{name}.*SHA-256"):
        collection.search("any1")
    assert any(name in problem for problem in verify(folder))
    with Collection.open(folder, writable=True) as collection:
        assert "dense" in collection.compact().built
        assert len(collection.search("any1").hits) == 10
    assert verify(folder) == []
