import json
from typing import Any

import pytest

from index.errors import RequestError
from retrieval.filters import canonical, flatten, keys, matches, parse_filter

# One document with a field of every kind; `gone` is in none.
DOCUMENT: dict[str, Any] = {
    "null": None,
    "yes": True,
    "no": False,
    "one": 1,
    "half": 0.5,
    "two": 2.0,
    "big": 2**53 + 1,
    "huge": 10**400,
    "below": -(2**63) - 1,
    "nan": float("nan"),
    "infinite": float("inf"),
    "text": "m",
    "digit": "1",
    "empty": "",
    "date": "2024-02-29",
    "emoji": "\U0001f600",
    "tags": ["a", 1, None, True, ["deep"], {"x": 1}],
    "none": [],
    "author": {"name": "Ada", "born": {"year": 1815}},
    "dotted.key": "outer",
    "dotted": {"key": "inner", "other": 1},
}


def passes(type_: str, key: str, *value: Any) -> bool:
    return matches(parse_filter({"type": type_, "key": key, **({"value": value[0]} if value else {})}), DOCUMENT, "d1")


EQUAL = [
    ("null", None),
    ("yes", True),
    ("no", False),
    ("one", 1),
    ("one", 1.0),
    ("two", 2),
    ("half", 0.5),
    ("big", 2**53 + 1),
    ("huge", 10**400),
    ("below", -(2**63) - 1),
    ("text", "m"),
    ("empty", ""),
    ("author.name", "Ada"),
    ("author.born.year", 1815),
    ("dotted.key", "outer"),
    ("dotted.other", 1),
]
UNEQUAL = [
    ("gone", None),
    ("gone", "m"),
    ("null", False),
    ("null", 0),
    ("null", ""),
    ("yes", 1),
    ("yes", "true"),
    ("no", 0),
    ("no", None),
    ("one", True),
    ("one", "1"),
    ("digit", 1),
    ("big", 2.0**53),
    ("huge", 1e308),
    ("below", -(2.0**63)),
    ("nan", 0),
    ("infinite", 10**400),
    ("text", "M"),
    ("tags", "a"),
    ("tags", None),
    ("none", None),
    ("author", "Ada"),
    ("author", None),
    ("author.name.first", "Ada"),
    ("tags.x", 1),
    ("dotted.key", "inner"),
]


@pytest.mark.parametrize(("key", "value"), EQUAL)
def test_equal(key: str, value: Any) -> None:
    assert passes("eq", key, value)
    assert passes("in", key, ["other", value])
    assert not passes("ne", key, value)
    assert not passes("nin", key, ["other", value])


@pytest.mark.parametrize(("key", "value"), UNEQUAL)
def test_unequal_and_so_ne_and_nin_match_missing_fields_too(key: str, value: Any) -> None:
    assert not passes("eq", key, value)
    assert not passes("in", key, ["other", value])
    assert passes("ne", key, value)
    assert passes("nin", key, ["other", value])


@pytest.mark.parametrize(
    ("key", "value", "order"),
    [
        ("one", 0, 1),
        ("one", 0.5, 1),
        ("one", 1.0, 0),
        ("one", 2, -1),
        ("big", 2.0**53, 1),
        ("big", 2**53 + 1, 0),
        ("big", 2**53 + 2, -1),
        ("below", -(2**63), -1),
        ("below", -(2.0**63), -1),
        ("huge", 1.7e308, 1),
        ("infinite", 10**400, 1),
        ("text", "a", 1),
        ("text", "mm", -1),
        ("text", "Z", 1),
        ("empty", "", 0),
        ("date", "2024-03-01", -1),
        ("date", "2024-02-28T23:59", 1),
        ("emoji", "\uffff", 1),  # by code point; UTF-16 units would say the opposite
    ],
)
def test_order(key: str, value: Any, order: int) -> None:
    assert passes("gt", key, value) is (order > 0)
    assert passes("gte", key, value) is (order >= 0)
    assert passes("lt", key, value) is (order < 0)
    assert passes("lte", key, value) is (order <= 0)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("gone", 0),
        ("gone", ""),
        ("null", 0),
        ("yes", 0),
        ("yes", 1),
        ("digit", 1),
        ("one", "1"),
        ("nan", 0),
        ("tags", "a"),
        ("tags", 1),
        ("author", ""),
    ],
)
@pytest.mark.parametrize("type_", ["gt", "gte", "lt", "lte"])
def test_no_order_between_types(type_: str, key: str, value: Any) -> None:
    assert not passes(type_, key, value)


@pytest.mark.parametrize(
    ("key", "values", "some", "every"),
    [
        ("tags", ["a"], True, True),
        ("tags", ["b"], False, False),
        ("tags", ["a", "b"], True, False),
        ("tags", ["a", 1.0, None, True], True, True),
        ("tags", ["a", "a"], True, True),
        ("tags", [False], False, False),
        ("tags", ["deep"], False, False),
        ("tags", [], False, True),
        ("none", ["a"], False, False),
        ("none", [], False, True),
        ("text", ["m", "n"], True, False),
        ("text", ["m"], True, True),
        ("yes", [1], False, False),
        ("one", [1], True, True),
        ("null", [None], True, True),
        ("author", ["Ada"], False, False),
        ("author", [], False, True),
        ("gone", [None], False, False),
        ("gone", [], False, False),
    ],
)
def test_contains(key: str, values: list[Any], some: bool, every: bool) -> None:
    assert passes("contains_any", key, values) is some
    assert passes("contains_all", key, values) is every


@pytest.mark.parametrize("key", [name for name in DOCUMENT if name != "gone"])
def test_every_present_field_exists_even_null_and_empty(key: str) -> None:
    assert passes("exists", key)
    assert passes("exists", key, True)
    assert not passes("exists", key, False)


@pytest.mark.parametrize("key", ["gone", "author.gone", "text.gone", "", ".", "author.", "_"])
def test_absent_fields_do_not_exist(key: str) -> None:
    assert not passes("exists", key)
    assert passes("exists", key, False)


def test_in_nothing_matches_nothing() -> None:
    assert not passes("in", "one", [])
    assert passes("nin", "one", [])


def test_id_means_the_document_id_and_shadows_a_field_of_that_name() -> None:
    document = {"_id": "field"}
    for filter_, expected in [
        ({"type": "eq", "key": "_id", "value": "d1"}, True),
        ({"type": "eq", "key": "_id", "value": "field"}, False),
        ({"type": "ne", "key": "_id", "value": "d1"}, False),
        ({"type": "in", "key": "_id", "value": ["d0", "d1"]}, True),
        ({"type": "nin", "key": "_id", "value": ["d0", "d1"]}, False),
    ]:
        assert matches(parse_filter(filter_), document, "d1") is expected


def test_the_longest_field_name_wins_and_a_dead_end_falls_back() -> None:
    metadata = {"a.b": {"x": 1}, "a": {"b.c": 2, "b": {"c": 3, "d": 4}}}
    assert flatten(metadata) == {
        "a.b": {"x": 1},
        "a.b.x": 1,
        "a": metadata["a"],
        "a.b.c": 2,
        "a.b.d": 4,
    }
    for key, value in [("a.b.x", 1), ("a.b.c", 2), ("a.b.d", 4)]:
        assert matches(parse_filter({"type": "eq", "key": key, "value": value}), metadata, "")


def test_objects_are_reached_down_to_sixteen_levels() -> None:
    metadata: dict[str, Any] = {"k": 1}
    for _ in range(16):
        metadata = {"k": metadata}
    reached = [".".join("k" * levels) for levels in range(1, 17)]
    assert list(flatten(metadata)) == reached
    assert matches(parse_filter({"type": "exists", "key": reached[-1]}), metadata, "")
    assert not matches(parse_filter({"type": "exists", "key": reached[-1] + ".k"}), metadata, "")


def test_compounds() -> None:
    true, false = {"type": "eq", "key": "one", "value": 1}, {"type": "eq", "key": "one", "value": 2}
    for type_, parts, expected in [
        ("and", [true], True),
        ("and", [true, true], True),
        ("and", [true, false], False),
        ("or", [false], False),
        ("or", [false, true], True),
        ("or", [false, false], False),
    ]:
        filter_ = {"type": type_, "filters": parts}
        assert matches(parse_filter(filter_), DOCUMENT, "") is expected
        assert matches(parse_filter({"type": "not", "filter": filter_}), DOCUMENT, "") is not expected


def test_keys_are_those_read_without_the_id() -> None:
    filter_ = parse_filter(
        {
            "type": "and",
            "filters": [
                {"type": "not", "filter": {"type": "eq", "key": "a", "value": 1}},
                {"type": "or", "filters": [{"type": "exists", "key": "b.c"}, {"type": "ne", "key": "a", "value": 2}]},
                {"type": "eq", "key": "_id", "value": "x"},
            ],
        }
    )
    assert keys(filter_) == {"a", "b.c"}


def comparison(value: Any, type_: str = "eq") -> dict[str, Any]:
    return {"type": type_, "key": "k", "value": value}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (comparison(1), comparison(1.0)),
        (comparison(2**60), comparison(2.0**60)),
        (comparison([1, 2, 2], "in"), comparison([2, 1], "in")),
        (comparison("x", "ne"), {"type": "not", "filter": comparison("x")}),
        (
            {"type": "or", "filters": [comparison(1), comparison(2)]},
            {"type": "or", "filters": [comparison(2), comparison(1), comparison(2)]},
        ),
    ],
)
def test_filters_of_one_meaning_share_a_cache_key(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert canonical(parse_filter(one)) == canonical(parse_filter(other))


def test_filters_of_different_meaning_differ_in_cache_key_and_equality() -> None:
    different = [
        *map(comparison, [1, -1, True, "1", None, "None", 0, False, "", "a", "A", "1.5", 1.5, 2**53, 2**53 + 1, 255]),
        *map(comparison, ["ff", "number ff", 'a", "b', 10**5000, 10**5000 + 1, "\U0001f600", "\\ud83d\\ude00"]),
        comparison(["a", "b"], "in"),
        comparison(["a", "b"], "contains_any"),
        comparison(["a", "b"], "contains_all"),
        comparison(["a b"], "in"),
        comparison([], "in"),
        *(comparison(1, type_) for type_ in ("gt", "gte", "lt", "lte", "ne")),
        {"type": "exists", "key": "k"},
        {"type": "exists", "key": "k", "value": False},
        {"type": "eq", "key": "other", "value": 1},
        {"type": "and", "filters": [comparison(1), comparison(2)]},
        {"type": "or", "filters": [comparison(1), comparison(2)]},
    ]
    parsed = [parse_filter(filter_) for filter_ in different]
    assert len({canonical(filter_) for filter_ in parsed}) == len(different)
    assert len(set(parsed)) == len(different)
    for filter_ in parsed:
        canonical(filter_).encode()


def nested(levels: int) -> dict[str, Any]:
    filter_ = comparison(1)
    for _ in range(levels - 1):
        filter_ = {"type": "not", "filter": filter_}
    return filter_


def test_the_limits_themselves_are_allowed() -> None:
    parse_filter(nested(8))
    parse_filter(comparison(list(range(1024)), "in"))
    parse_filter({"type": "and", "filters": [comparison(i) for i in range(255)]})
    parse_filter({"type": "exists", "key": "k" * 1024})


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (None, r"filter is null, expected an object such as"),
        ([], r"filter is list, expected an object"),
        ("lang = 'en'", r"filter is str \"lang = 'en'\", expected an object"),
        ({}, r"filter.type is None, expected one of eq, ne, gt, gte, lt, lte, in, nin, contains_any, .* not"),
        ({"type": "regex", "key": "k", "value": ".*"}, r"filter.type is 'regex', expected one of"),
        ({"type": ["eq"], "key": "k", "value": 1}, r"filter.type is \['eq'\], expected one of"),
        ({"type": "eq", "value": 1}, r"filter has no 'key': eq needs key and value"),
        ({"type": "eq", "key": "k"}, r"filter has no 'value'"),
        ({"type": "eq", "key": "k", "value": 1, "boost": 2}, r"unknown member 'boost': eq takes type, key, value"),
        ({"type": "and", "filters": [], "key": "k"}, r"unknown member 'key': and takes type, filters"),
        ({"type": "eq", "key": 5, "value": 1}, r"filter.key is int, expected a string of at most 1024"),
        ({"type": "eq", "key": "k" * 1025, "value": 1}, r"filter.key is str 'kkk.*, expected a string of at most 1024"),
        ({"type": "eq", "key": "\ud800", "value": 1}, r"filter.key holds a lone surrogate at character 0"),
        (comparison("ab\udfff"), r"filter.value holds a lone surrogate at character 2"),
        (comparison([1]), r"filter.value is list, expected null, true, false, a finite number or a string"),
        (comparison({}), r"filter.value is dict, expected null"),
        (comparison(float("nan")), r"filter.value is float nan, expected .* a finite number"),
        (comparison(float("-inf")), r"filter.value is float -inf, expected .* a finite number"),
        (comparison(b"x"), r"filter.value is bytes, expected null"),
        (comparison(None, "gt"), r"filter.value is null, expected a number or a string, because gt compares by order"),
        (comparison(True, "lte"), r"filter.value is bool, expected a number or a string"),
        (comparison("x", "in"), r"filter.value is str 'x', expected a list, because in takes a list"),
        (comparison([1, [2]], "nin"), r"filter.value\[1\] is list, expected null"),
        (comparison(list(range(1025)), "in"), r"filter.value holds 1025 values, at most 1024 are allowed"),
        (comparison("yes", "exists"), r"filter.value is str 'yes', expected true or false"),
        ({"type": "and", "filters": []}, r"filter.filters is list, expected a list of at least one filter"),
        ({"type": "or"}, r"filter has no 'filters': or needs filters"),
        ({"type": "not", "filter": [comparison(1)]}, r"filter.filter is list, expected an object"),
        ({"type": "and", "filters": [comparison(1), {"type": "x"}]}, r"filter.filters\[1\].type is 'x'"),
        ({"type": "gt", "key": "_id", "value": "a"}, r"filter applies gt to _id, which takes eq, ne, in, nin"),
        ({"type": "exists", "key": "_id"}, r"filter applies exists to _id"),
        ({"type": "in", "key": "_id", "value": ["a", 1]}, r"document ids are strings"),
        (nested(9), r"filter(.filter){8} is nested deeper than 8 levels"),
        (nested(5000), r"nested deeper than 8 levels"),
        ({"type": "and", "filters": [comparison(i) for i in range(256)]}, r"more than 256 nodes"),
    ],
)
def test_bad_filters_are_refused_with_place_finding_and_expectation(value: Any, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        parse_filter(value)


def test_a_filter_read_from_json_text() -> None:
    text = """{"type": "and", "filters": [
        {"type": "gte", "key": "date", "value": "2024-01-01"}, {"type": "in", "key": "one", "value": [1]}]}"""
    assert matches(parse_filter(json.loads(text)), DOCUMENT, "d1")
