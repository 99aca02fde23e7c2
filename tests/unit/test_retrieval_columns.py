import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from index.component import open_component, write_component
from index.errors import IndexFormatError, StorageError
from retrieval.columns import Columns
from retrieval.columns_build import ColumnsBuilder
from retrieval.filters import parse_filter


def built(documents: Iterable[Mapping[str, Any]]) -> ColumnsBuilder:
    builder = ColumnsBuilder()
    for i, metadata in enumerate(documents):
        builder.add(f"d{i}", metadata)
    return builder


def passing(columns: Columns, type_: str, key: str, value: Any) -> list[int]:
    mask = columns.evaluate(parse_filter({"type": type_, "key": key, "value": value}))
    assert mask.dtype == np.bool_
    assert mask.shape == (len(columns),)
    return [int(row) for row in mask.nonzero()[0]]


def test_an_empty_collection(tmp_path: Path) -> None:
    assert ColumnsBuilder().write(tmp_path) == {"documents": 0, "keys": 0, "values": 0}
    columns = Columns.open(tmp_path)
    assert len(columns) == 0
    assert columns.keys == frozenset()
    assert columns.doc_ids(np.zeros(0, np.int64)) == []
    assert passing(columns, "ne", "k", 1) == []
    assert passing(columns, "eq", "_id", "x") == []


def test_a_single_document(tmp_path: Path) -> None:
    counts = built([{"n": 1, "s": ["x", "x", 1.0], "o": {"p": None}}]).write(tmp_path)
    assert counts == {"documents": 1, "keys": 4, "values": 3}
    columns = Columns.open(tmp_path)
    assert columns.keys == {"n", "s", "o", "o.p"}
    assert passing(columns, "eq", "n", 1.0) == [0]
    assert passing(columns, "contains_all", "s", [1, "x"]) == [0]
    assert passing(columns, "eq", "o.p", None) == [0]
    assert passing(columns, "eq", "nowhere", None) == []
    assert passing(columns, "ne", "nowhere", None) == [0]
    assert columns.doc_id(0) == "d0"


@pytest.mark.parametrize("row", [-1, 2, 2**40])
def test_a_row_outside_is_refused(tmp_path: Path, row: int) -> None:
    built([{}, {}]).write(tmp_path)
    columns = Columns.open(tmp_path)
    with pytest.raises(IndexError, match=f"row {row} is outside the 2 documents"):
        columns.doc_ids(np.array([0, row]))
    with pytest.raises(IndexError, match=f"row {row} is outside"):
        columns.doc_id(row)


def test_a_mask_is_the_callers_to_change(tmp_path: Path) -> None:
    built([{"k": 1}, {"k": 2}]).write(tmp_path)
    columns = Columns.open(tmp_path)
    equal = parse_filter({"type": "eq", "key": "k", "value": 1})
    columns.evaluate(equal)[:] = True
    assert columns.evaluate(equal).tolist() == [True, False]


@pytest.mark.parametrize("distinct", [249, 250, 251, 65_529, 65_530, 65_531])
def test_codes_of_every_width_at_their_limits(tmp_path: Path, distinct: int) -> None:
    # Six codes are taken by missing, null, false, true, incomparable and list.
    built({"n": distinct - i} for i in range(distinct)).write(tmp_path)
    columns = Columns.open(tmp_path)
    assert passing(columns, "eq", "n", distinct) == [0]
    assert passing(columns, "eq", "n", 1) == [distinct - 1]
    assert passing(columns, "gte", "n", distinct - 1) == [0, 1]
    assert passing(columns, "lt", "n", 3) == [distinct - 2, distinct - 1]
    assert passing(columns, "in", "n", [1, 2, 3, 4, 5, 6, -1]) == list(range(distinct - 6, distinct))
    assert len(passing(columns, "exists", "n", True)) == distinct


def test_more_distinct_values_than_the_builder_keeps_as_objects(tmp_path: Path) -> None:
    first, again = 66_000, 3_000  # over 65,536 values close a run; what comes back afterwards must meet its first code

    def documents() -> Iterable[Mapping[str, Any]]:
        for i in range(first):
            yield {"n": i, "tags": [f"tag {i:05}", "common"]}
        for i in range(again):
            yield {"n": float(i), "tags": [f"tag {i:05}", "common"]}

    counts = built(documents()).write(tmp_path)
    assert counts == {"documents": first + again, "keys": 2, "values": first + first + 1}
    columns = Columns.open(tmp_path)
    for i in (0, 1, again - 1):
        assert passing(columns, "eq", "n", i) == [i, first + i]
        assert passing(columns, "contains_all", "tags", ["common", f"tag {i:05}"]) == [i, first + i]
    assert passing(columns, "eq", "n", first - 1) == [first - 1]
    assert passing(columns, "lt", "n", 2) == [0, 1, first, first + 1]
    assert len(passing(columns, "contains_any", "tags", ["common"])) == first + again
    assert passing(columns, "contains_all", "tags", ["common", "uncommon"]) == []


def test_ten_thousand_sparse_keys_cost_by_value_not_by_document(tmp_path: Path) -> None:
    number = 10_000
    built({f"key {i}": i, "nested": {f"flag {i % 7}": True}} for i in range(number)).write(tmp_path)
    columns = Columns.open(tmp_path)
    assert len(columns.keys) == number + 8
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) < 4_000_000  # N x keys codes would be 100 MB
    assert len(list(tmp_path.iterdir())) < 20
    assert passing(columns, "eq", "key 77", 77) == [77]
    assert passing(columns, "exists", "nested.flag 3", True) == list(range(3, number, 7))


def test_lists_of_a_sparse_key(tmp_path: Path) -> None:
    documents: list[dict[str, Any]] = [{} for _ in range(100)]
    documents[7] = {"tags": ["a", "b"]}
    documents[20] = {"tags": "b"}
    documents[50] = {"tags": ["c", "a", "a"]}
    documents[99] = {"tags": ["b", "a", None]}
    built(documents).write(tmp_path)
    columns = Columns.open(tmp_path)
    assert passing(columns, "contains_any", "tags", ["a"]) == [7, 50, 99]
    assert passing(columns, "contains_any", "tags", ["b", "c"]) == [7, 20, 50, 99]
    assert passing(columns, "contains_all", "tags", ["b"]) == [7, 20, 99]
    assert passing(columns, "contains_all", "tags", ["a", "b"]) == [7, 99]
    assert passing(columns, "contains_all", "tags", ["a", None]) == [99]
    assert passing(columns, "contains_all", "tags", []) == [7, 20, 50, 99]


def test_nan_equals_nothing_and_leaves_the_order_of_numbers_intact(tmp_path: Path) -> None:
    numbers = [float("nan") if i % 2 else 50 - i for i in range(100)]
    built({"n": number} for number in numbers).write(tmp_path)
    columns = Columns.open(tmp_path)
    for i in range(0, 100, 2):
        assert passing(columns, "eq", "n", 50 - i) == [i]
        assert passing(columns, "gt", "n", 50 - i) == list(range(0, i, 2))
    assert len(passing(columns, "exists", "n", True)) == 100


def test_ids_of_one_hash_are_told_apart(tmp_path: Path) -> None:
    twins = ["document 14036", "document 19862"]
    assert len({hashlib.blake2b(twin.encode(), digest_size=4).digest() for twin in twins}) == 1
    builder = ColumnsBuilder()
    for twin in twins:
        builder.add(twin, {})
    builder.write(tmp_path)
    columns = Columns.open(tmp_path)
    assert [passing(columns, "eq", "_id", twin) for twin in twins] == [[0], [1]]
    assert passing(columns, "nin", "_id", twins) == []


def test_equal_input_gives_equal_bytes_and_a_component_that_verifies(tmp_path: Path) -> None:
    documents = [{"tags": ["b", "a", "c"], "k": i / 3, "l": "é" * i} for i in range(50)]
    one = write_component(tmp_path / "one", "columns", {}, built(documents).write)
    other = write_component(tmp_path / "other", "columns", {}, built(documents).write)
    assert one.sha256 == other.sha256
    assert one.counts == {"documents": 50, "keys": 3, "values": 103}
    columns = Columns.open(open_component(one.folder, kind="columns").folder)
    assert columns.doc_ids(np.array([49, 0])) == ["d49", "d0"]


def test_opening_says_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="cannot read"):
        Columns.open(tmp_path)
    built([{"k": 1}]).write(tmp_path)
    path = tmp_path / "columns.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format": 99}))
    with pytest.raises(IndexFormatError, match="columns format 99, this grapnel reads 1: rebuild"):
        Columns.open(tmp_path)
