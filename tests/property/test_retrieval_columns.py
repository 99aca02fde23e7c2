"""Columns.evaluate = matches of each document = a brute-force oracle that reads the JSON filter itself."""

import math
import tempfile
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from index.bitmap import count, pack, unpack
from retrieval.columns import Columns
from retrieval.columns_build import ColumnsBuilder
from retrieval.filters import canonical, matches, parse_filter

NAMES = ["a", "b", "a.b", "b.a", "b.", "", "é", "_id"]
KEYS = [*NAMES[:-1], "a.a", "a.b.a", "a.b.b", "b..a", ".a", "a.", "é.a", "nowhere"]
NUMBERS = [0, -0.0, 1, 1.0, -1, 0.1, 2**53, 2**53 + 1, 2.0**53, 2**63 - 1, 2**63, 2.0**63, -(2**63) - 1, 10**400, 1e308]
TEXTS = ["", "a", "ab", "b", "é", "z", "\uffff", "\U0001f600", "1", "true", "null", "2024-02-29"]

finite = st.floats(allow_nan=False, allow_infinity=False)
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.sampled_from(NUMBERS),
    st.integers(),
    finite,
    st.sampled_from(TEXTS),
    st.text(max_size=3),
)
stored = st.one_of(scalars, st.sampled_from([float("nan"), float("inf"), float("-inf"), "\ud800", "\udfffx"]))
values = st.recursive(
    stored,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=3),
    max_leaves=6,
)
documents = st.dictionaries(st.sampled_from(NAMES), values, max_size=4)

scalar_lists = st.lists(scalars, max_size=6)
keys = st.sampled_from(KEYS)
ids = st.sampled_from([f"doc {i}" for i in range(4)] + ["é", "nobody"])
comparisons = st.one_of(
    st.fixed_dictionaries({"type": st.sampled_from(["eq", "ne"]), "key": keys, "value": scalars}),
    st.fixed_dictionaries(
        {
            "type": st.sampled_from(["gt", "gte", "lt", "lte"]),
            "key": keys,
            "value": st.one_of(st.sampled_from(NUMBERS), st.integers(), finite, st.sampled_from(TEXTS)),
        }
    ),
    st.fixed_dictionaries(
        {
            "type": st.sampled_from(["in", "nin", "contains_any", "contains_all"]),
            "key": keys,
            "value": scalar_lists,
        }
    ),
    st.fixed_dictionaries({"type": st.just("exists"), "key": keys}, optional={"value": st.booleans()}),
    st.fixed_dictionaries({"type": st.sampled_from(["eq", "ne"]), "key": st.just("_id"), "value": ids}),
    st.fixed_dictionaries(
        {"type": st.sampled_from(["in", "nin"]), "key": st.just("_id"), "value": st.lists(ids, max_size=3)}
    ),
)
filters = st.recursive(
    comparisons,
    lambda inner: (
        st.fixed_dictionaries(
            {"type": st.sampled_from(["and", "or"]), "filters": st.lists(inner, min_size=1, max_size=3)}
        )
        | st.fixed_dictionaries({"type": st.just("not"), "filter": inner})
    ),
    max_leaves=4,
)


def paths(value: Any, walked: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    if walked:
        yield walked, value
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from paths(inner, (*walked, name))


def fields(document: dict[str, Any], key: str) -> list[Any]:
    """The value a key names, in a list; [] if missing. Of all paths that spell it, the longest names first."""
    spelled = [(tuple(map(len, path)), value) for path, value in paths(document) if ".".join(path) == key]
    return [max(spelled, key=lambda pair: pair[0])[1]] if spelled else []


def order(left: Any, right: Any) -> int | None:
    """-1, 0 or 1; None where no order exists. Exact, by fractions and by lists of code points."""
    if type(left) in (int, float) and type(right) in (int, float):
        if type(left) is float and math.isnan(left):
            return None
        if left in (float("inf"), float("-inf")):
            return 1 if left > 0 else -1
        difference = Fraction(left) - Fraction(right)
        return (difference > 0) - (difference < 0)
    if type(left) is str and type(right) is str:
        points, others = list(map(ord, left)), list(map(ord, right))
        return (points > others) - (points < others)
    return None


def equal(left: Any, right: Any) -> bool:
    if left is None or type(left) is bool or right is None or type(right) is bool:
        return left is right
    return order(left, right) == 0


def oracle(filter_: dict[str, Any], document: dict[str, Any], doc_id: str) -> bool:  # noqa: PLR0911  one return a case
    type_ = filter_["type"]
    if type_ == "not":
        return not oracle(filter_["filter"], document, doc_id)
    if type_ in ("and", "or"):
        passed = sum(oracle(part, document, doc_id) for part in filter_["filters"])
        return passed == len(filter_["filters"]) if type_ == "and" else passed > 0
    found = [doc_id] if filter_["key"] == "_id" else fields(document, filter_["key"])
    if type_ == "exists":
        return bool(found) is filter_.get("value", True)
    wanted = filter_["value"]
    if type_ in ("ne", "nin"):
        return not any(equal(value, one) for value in found for one in (wanted if type_ == "nin" else [wanted]))
    if not found:
        return False
    (value,) = found
    elements = value if isinstance(value, list) else [value]
    match type_:
        case "eq":
            return equal(value, wanted)
        case "in":
            return any(equal(value, one) for one in wanted)
        case "contains_any":
            return any(equal(element, one) for element in elements for one in wanted)
        case "contains_all":
            return all(any(equal(element, one) for element in elements) for one in wanted)
    position = order(value, wanted)
    return position is not None and position in {"gt": [1], "gte": [0, 1], "lt": [-1], "lte": [-1, 0]}[type_]


@settings(max_examples=250, deadline=None)
@given(
    st.lists(documents, max_size=8),
    st.lists(filters, min_size=1, max_size=5),
    st.sampled_from([0, 0, 70]),  # many documents without metadata make every key sparse
)
def test_columns_equal_matches_equal_oracle(docs: list[dict[str, Any]], asked: list[dict[str, Any]], bare: int) -> None:
    collection = [(f"doc {i}" if i else "é", document) for i, document in enumerate(docs + [{}] * bare)]
    builder = ColumnsBuilder()
    for doc_id, document in collection:
        builder.add(doc_id, document)
    with tempfile.TemporaryDirectory() as name:
        counts = builder.write(Path(name))
        columns = Columns.open(Path(name))
        assert len(columns) == counts["documents"] == len(collection)
        reached = {".".join(path) for _, document in collection for path, _ in paths(document)} - {"_id"}
        assert columns.keys == reached
        answers: dict[str, list[bool]] = {}
        for filter_ in asked:
            parsed = parse_filter(filter_)
            mask = columns.evaluate(parsed)
            expected = [oracle(filter_, document, doc_id) for doc_id, document in collection]
            assert mask.tolist() == expected
            assert [matches(parsed, document, doc_id) for doc_id, document in collection] == expected
            assert unpack(pack(mask), len(mask)).tolist() == expected
            assert count(pack(mask)) == sum(expected)
            assert answers.setdefault(canonical(parsed), expected) == expected


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text(min_size=1, max_size=8), unique=True, max_size=20), st.data())
def test_ids_come_back_and_are_found(doc_ids: list[str], data: st.DataObject) -> None:
    builder = ColumnsBuilder()
    for doc_id in doc_ids:
        builder.add(doc_id, {})
    chosen = data.draw(st.lists(st.sampled_from(doc_ids), max_size=5)) if doc_ids else ["nobody"]
    with tempfile.TemporaryDirectory() as name:
        builder.write(Path(name))
        columns = Columns.open(Path(name))
        assert [columns.doc_id(i) for i in range(len(columns))] == doc_ids
        mask = columns.evaluate(parse_filter({"type": "in", "key": "_id", "value": chosen}))
        assert columns.doc_ids(mask.nonzero()[0]) == [doc_id for doc_id in doc_ids if doc_id in chosen]
