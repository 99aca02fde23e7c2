import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from index.errors import CorpusError
from retrieval.sources import open_source
from retrieval.types import Document


def write(folder: Path, columns: dict[str, Any], **options: Any) -> Path:
    path = folder / "a.parquet"
    pq.write_table(pa.table(columns), path, **options)
    return path


def read(path: Path) -> list[Document]:
    return list(open_source(str(path)).documents())


def refused(path: Path) -> str:
    with pytest.raises(CorpusError) as caught:
        read(path)
    return str(caught.value)


def test_typed_columns_become_json(tmp_path: Path) -> None:
    noon = datetime.datetime(2024, 5, 1, 12, 0, 0, 250_000)
    plus2 = datetime.timezone(datetime.timedelta(hours=2))
    path = write(
        tmp_path,
        {
            "id": pa.array([1, 2], pa.int64()),
            "title": ["one", None],
            "text": pa.array(["a", "b"], pa.large_string()),
            "year": pa.array([1999, None], pa.int16()),
            "score": pa.array([0.5, 1.5], pa.float32()),
            "open": [True, False],
            "tags": [["x", "y"], []],
            "kind": pa.array(["k", "k"]).dictionary_encode(),
            "price": pa.array([Decimal("12.30"), Decimal("-0.05")], pa.decimal128(9, 2)),
            "seen": pa.array([noon, None], pa.timestamp("us")),
            "utc": pa.array([noon.replace(tzinfo=plus2)] * 2, pa.timestamp("ms", "Europe/Berlin")),
            "nano": pa.array([1_700_000_000_123_456_789, 0], pa.timestamp("ns")),
            "day": pa.array([noon.date()] * 2, pa.date32()),
            "took": pa.array([datetime.timedelta(seconds=90)] * 2, pa.duration("ms")),
            "place": pa.array([{"lat": 1.5, "at": noon.date()}] * 2),
            "names": pa.array([[("de", "eins")], [("de", "zwei")]], pa.map_(pa.string(), pa.string())),
            "metadata": pa.array([{"lang": "en", "n": None}, None], pa.struct({"lang": pa.string(), "n": pa.int8()})),
        },
    )
    source = open_source(str(path))
    assert source.estimate == 2
    one, two = source.documents()
    assert [(d.id, d.title, d.text) for d in (one, two)] == [("1", "one", "a"), ("2", "", "b")]
    shared = {
        "open": False,
        "kind": "k",
        "utc": "2024-05-01T10:00:00.250000+00:00",
        "day": "2024-05-01",
        "took": 90.0,
        "place": {"lat": 1.5, "at": "2024-05-01"},
    }
    assert one.metadata == shared | {
        "open": True,
        "year": 1999,
        "score": 0.5,
        "tags": ["x", "y"],
        "price": 12.3,
        "seen": "2024-05-01T12:00:00.250000",
        "nano": "2023-11-14T22:13:20.123456",
        "names": {"de": "eins"},
        "lang": "en",
    }
    assert two.metadata == shared | {
        "score": 1.5,
        "tags": [],
        "price": -0.05,
        "nano": "1970-01-01T00:00:00",
        "names": {"de": "zwei"},
    }


def test_vector_columns(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        {
            "_id": ["a", "b"],
            "vectors.mini": pa.array([[0.1, 2.0], None], pa.list_(pa.float64())),
            "vector": pa.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]], pa.list_(pa.float32(), 3)),
            "vectors": pa.array([{"old": [1, 2]}, {"old": None}]),
        },
    )
    one, two = read(path)
    assert {name: (vector.dtype, vector.tolist()) for name, vector in one.vectors.items()} == {
        "mini": (np.float32, np.array([0.1, 2.0], np.float32).tolist()),
        "dense": (np.float32, [1, 2, 3]),
        "old": (np.float32, [1, 2]),
    }
    assert {name: vector.tolist() for name, vector in two.vectors.items()} == {"dense": [4, 5, 6]}
    assert (one.text, one.metadata) == ("", {})


def test_batches_keep_the_order(tmp_path: Path) -> None:
    count = 3000
    path = write(
        tmp_path,
        {"id": [str(n) for n in range(count)], "text": ["x" * (n % 7 + 1) for n in range(count)]},
        row_group_size=700,
    )
    assert [(document.id, len(document.text)) for document in read(path)] == [(str(n), n % 7 + 1) for n in range(count)]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"key": ["1"], "text": ["a"]}, "a.parquet: no column '_id' or 'id'; found: 'key', 'text'"),
        ({"id": ["1"], "body": ["a"]}, "no column 'text', 'title' or 'vectors.NAME'"),
        ({"id": ["1"], "text": ["a"], "image": [b"\x00"]}, "column 'image' is of type binary"),
        (
            {"id": ["1"], "text": ["a"], "image": [{"bytes": b"\x00"}]},
            "column 'image' is of type struct<bytes: binary>",
        ),
        ({"id": ["1", None], "text": ["a", "b"]}, "a.parquet row 2: no id"),
        ({"id": ["1", "1"], "text": ["a", "b"]}, "a.parquet row 2: id '1' was used before, at a.parquet row 1"),
        ({"id": [1.5], "text": ["a"]}, "a.parquet row 1: 'id' is of type float"),
        ({"id": ["1"], "text": [3]}, "'text' is of type int"),
        ({"id": ["1"], "text": ["a"], "x": [float("nan")]}, "metadata 'x' is nan"),
        ({"id": ["1"], "text": ["a"], "x": [Decimal("1234567890123456789.01")]}, "more digits than a double holds"),
        ({"id": ["1"], "text": ["a"], "metadata": ["no json"]}, "column 'metadata': broken JSON"),
        ({"id": ["1"], "text": ["a"], "metadata": [["list"]]}, "'metadata' is of type list"),
        ({"id": ["1"], "text": ["a"], "vectors": [["list"]]}, "'vectors' is of type list"),
        ({"id": ["1"], "text": ["a"], "vectors.v": [["1"]]}, "vector 'v' holds a str"),
        ({"id": ["1"], "text": ["a"], "vectors.v": [[1.0, None]]}, "vector 'v' holds NaN"),
        ({"id": ["1"], "text": ["a"], "t": pa.array([2**60], pa.timestamp("ms"))}, "column 't' of type timestamp[ms]"),
    ],
)
def test_what_cannot_be_a_document_is_refused(tmp_path: Path, columns: dict[str, Any], message: str) -> None:
    assert message in refused(write(tmp_path, columns))


def test_metadata_as_json_text(tmp_path: Path) -> None:
    path = write(tmp_path, {"id": ["1", "2"], "text": ["a", "b"], "metadata": ['{"n": 1}', ""]})
    assert [document.metadata for document in read(path)] == [{"n": 1}, {}]


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        {"id": [str(n) for n in range(500)], "text": [f"text {n * n}" for n in range(500)]},
        compression="zstd",
        use_dictionary=False,
    )
    sound = path.read_bytes()
    path.write_bytes(sound[: len(sound) // 2])
    assert "a.parquet is not a readable Parquet file" in refused(path)
    path.write_bytes(b"")
    assert "is not a readable Parquet file" in refused(path)
    start = sound.index(b"\x28\xb5\x2f\xfd")  # a zstd frame within the file
    path.write_bytes(sound[:start] + bytes(12) + sound[start + 12 :])
    assert "a.parquet is damaged after row 0" in refused(path)
