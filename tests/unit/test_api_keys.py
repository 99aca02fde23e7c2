"""Keys: only a secret that was made finds its principal, and a principal stays in its collections and its filter."""

import base64
import hashlib
import hmac
import json
import re
import string
import tomllib
from argparse import Namespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api import keys as keys_module
from api.cli_key import key as key_command
from api.cli_output import Output
from api.keys import LOCAL, SCOPES, KeyConfig, Keys, Principal, Scope, make_key
from api.server_config import parse_key, parse_server
from index.errors import ConfigError, ForbiddenError, RequestError
from retrieval.filters import matches, parse_filter
from retrieval.types import Document, Json

HASH = "0123456789abcdef" * 4
ACME: dict[str, Json] = {"type": "eq", "key": "tenant", "value": "acme"}
LATE: dict[str, Json] = {"type": "gte", "key": "year", "value": 2020}


def principal(
    *scopes: Scope, collections: tuple[str, ...] = ("*",), own: dict[str, Json] | None = None, name: str = "app"
) -> Principal:
    return KeyConfig(name, HASH, scopes or ("read",), collections, own).principal()


def nested(levels: int, kind: str = "or") -> dict[str, Json]:
    found: dict[str, Json] = LATE
    for _ in range(levels - 1):
        found = {"type": kind, "filters": [found]}
    return found


# -- secrets ----------------------------------------------------------------------------------------------------------


def test_a_secret_is_32_random_bytes_and_its_hash_is_sha256() -> None:
    made = [make_key() for _ in range(100)]
    for secret, sha256 in made:
        assert re.fullmatch(r"gk_[A-Za-z0-9_-]{43}", secret)
        assert len(base64.urlsafe_b64decode(secret[3:] + "=")) == 32
        assert sha256 == hashlib.sha256(secret.encode()).hexdigest()
    assert len({secret for secret, _ in made}) == 100
    assert {letter for secret, _ in made for letter in secret[3:]} == {*string.ascii_letters, *string.digits, "-", "_"}


def test_each_secret_finds_its_own_principal_and_nothing_else_finds_any() -> None:
    made = [make_key() for _ in range(5)]
    keys = Keys(KeyConfig(f"key-{number}", sha256, ("read",)) for number, (_, sha256) in enumerate(made))
    assert len(keys) == 5
    for number, (secret, _) in enumerate(made):
        found = keys.find(secret)
        assert found == Principal(f"key-{number}", frozenset({"read"}), frozenset({"*"}))
    secret, sha256 = made[2]
    other = "A" if secret[-1] != "A" else "B"
    near = [secret[:-1] + other, secret[:-1], secret + "A", secret + "\n", " " + secret, secret.swapcase(), secret[3:]]
    for presented in [
        *near,
        "",
        "gk_",
        sha256,
        make_key()[0],
        "gk_" + "é" * 43,
        "gk_" + "\ud800" * 43,
        "x" * 1_000_000,
    ]:
        assert keys.find(presented) is None


def test_a_password_is_no_key_even_when_its_hash_is_listed() -> None:
    for password in ("hunter2", "gk_hunter2", "gk_" + "a" * 42):
        keys = Keys([KeyConfig("weak", hashlib.sha256(password.encode()).hexdigest(), ("read",))])
        assert keys.find(password) is None


def test_a_server_without_keys_finds_nobody() -> None:
    keys = Keys([])
    assert len(keys) == 0
    assert keys.find(make_key()[0]) is None


@pytest.mark.parametrize("place", [0, 3, 6, None])
def test_every_stored_hash_is_compared_wherever_the_key_stands(
    place: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = [make_key() for _ in range(7)]
    keys = Keys(KeyConfig(f"key-{number}", sha256, ("read",)) for number, (_, sha256) in enumerate(made))
    compared: list[Any] = []

    def compare(a: str, b: str) -> bool:
        compared.append(a)
        return hmac.compare_digest(a, b)

    class Spy:
        compare_digest = staticmethod(compare)

    monkeypatch.setattr(keys_module, "hmac", Spy)
    found = keys.find(make_key()[0] if place is None else made[place][0])
    assert (found.name if found else None) == (None if place is None else f"key-{place}")
    assert compared == [sha256 for _, sha256 in made]


# -- tables -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": ""}, "name is '': a name has 1 to 128"),
        ({"name": "a b"}, "name is 'a b'"),
        ({"name": "é"}, "name is 'é'"),
        ({"name": "app\n"}, r"name is 'app\\n'"),
        ({"name": "(local)"}, "name is"),
        ({"name": "x" * 129}, "name is"),
        ({"sha256": ""}, "sha256 of key 'app' is not 64 lower-case hex digits"),
        ({"sha256": HASH.upper()}, "is not 64 lower-case hex digits"),
        ({"sha256": HASH[1:]}, "is not 64 lower-case hex digits"),
        ({"sha256": HASH + "\n"}, "is not 64 lower-case hex digits"),
        ({"scopes": ()}, r"scopes is \[\], expected at least one of read, write, admin, metrics"),
        ({"scopes": ("read", "root")}, r"scopes is \['read', 'root'\]"),
        ({"collections": ("",)}, "collections holds ''"),
        ({"collections": ("docs", "Docs")}, "collections holds 'Docs'"),
        ({"collections": ("*-docs",)}, r"collections holds '\*-docs'"),
        ({"collections": ("**",)}, "collections holds"),
        ({"collections": ("x" * 65,)}, "collections holds"),
        ({"filter": {}}, r"filter\.type is None, expected one of"),
        ({"filter": {"type": "eq", "key": "tenant"}}, "filter has no 'value'"),
        ({"filter": nested(9)}, "nested deeper than 8 levels"),
        ({"filter": nested(8)}, "leaves no room for a request's own filter"),
        ({"filter": {"type": "or", "filters": [ACME] * 255}}, "leaves no room"),
        ({"filter": ACME, "scopes": ("read", "admin")}, "'app' has a filter and the admin scope"),
    ],
)
def test_a_bad_key_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        KeyConfig(**{"name": "app", "sha256": HASH, "scopes": ("read",), **changes})


@pytest.mark.parametrize("name", ["a", "7", "search-app", "team/app:blue_2.0", "x" * 128])
def test_key_names(name: str) -> None:
    assert principal(name=name).name == name


def test_two_secrets_of_one_name_are_a_rotation() -> None:
    (old, old_hash), (new, new_hash) = make_key(), make_key()
    first = KeyConfig("app", old_hash, ("read", "write"), ("a", "b"), ACME)
    second = KeyConfig("app", new_hash, ("write", "read", "read"), ("b", "a"), dict(ACME))
    keys = Keys([first, second])
    assert keys.find(old) == keys.find(new) == first.principal()


@pytest.mark.parametrize("changes", [{"scopes": ("read", "write")}, {"collections": ("a",)}, {"filter": ACME}])
def test_one_name_means_the_same_rights(changes: dict[str, Any]) -> None:
    first = KeyConfig("app", HASH, ("read",))
    second = KeyConfig(**{"name": "app", "sha256": HASH[::-1], "scopes": ("read",), **changes})
    with pytest.raises(ConfigError, match="'app' differ in scopes, collections or filter"):
        Keys([first, second])


def test_one_secret_is_one_key() -> None:
    with pytest.raises(ConfigError, match="'other' has the sha256 of another key"):
        Keys([KeyConfig("app", HASH, ("read",)), KeyConfig("other", HASH, ("admin",))])


# -- scopes and collections -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("granted", "allowed"),
    [
        (("read",), {"read"}),
        (("write",), {"write"}),
        (("metrics",), {"metrics"}),
        (("read", "write"), {"read", "write"}),
        (("admin",), {"read", "write", "admin", "metrics"}),
    ],
)
def test_what_a_scope_implies(granted: tuple[Scope, ...], allowed: set[Scope]) -> None:
    who = principal(*granted)
    assert {scope for scope in SCOPES if who.may(scope)} == allowed
    assert {scope for scope in SCOPES if who.may(scope, "docs")} == allowed


@pytest.mark.parametrize(
    ("patterns", "inside", "outside"),
    [
        (("*",), ["docs", "a", "-"], []),
        (("docs",), ["docs"], ["doc", "docs2", "docs-2", "Docs", "docs*", "*", ""]),
        (("wiki-*",), ["wiki-", "wiki-de"], ["wiki", "wik", "my-wiki-de", "*", ""]),
        (("a", "b*"), ["a", "b", "bc"], ["ab", "c", ""]),
        ((), [], ["docs", "*", ""]),
    ],
)
def test_collections_a_key_covers(patterns: tuple[str, ...], inside: list[str], outside: list[str]) -> None:
    for scope in ("read", "admin"):
        who = principal(scope, collections=patterns)
        assert all(who.may("read", name) for name in inside)
        assert not any(who.may("read", name) for name in outside)
        assert who.may("read")


def test_without_keys_everybody_may_everything() -> None:
    assert all(LOCAL.may(scope, "docs") for scope in SCOPES)
    assert LOCAL.restricted(None) is None
    assert LOCAL.restricted(LATE) == LATE
    assert LOCAL.owns(Document("1", metadata={}))
    LOCAL.check_write({}, "1")


def test_principals_can_be_told_apart_and_kept_in_sets() -> None:
    one, same, other = principal(own=ACME), principal(own=dict(ACME)), principal(own=LATE)
    assert one == same != other
    assert len({one, same, other}) == 2
    assert "_tree" not in repr(one)


# -- filters: a tenant's wall -----------------------------------------------------------------------------------------

SCALARS = st.sampled_from(["acme", "globex", "", 2019, 2020, 2021.5, True, None])
FIELDS = st.sampled_from(["tenant", "year", "tags", "a.b"])
COMPARISONS = st.one_of(
    st.builds(lambda key, value: {"type": "eq", "key": key, "value": value}, FIELDS, SCALARS),
    st.builds(lambda key, value: {"type": "ne", "key": key, "value": value}, FIELDS, SCALARS),
    st.builds(lambda key, value: {"type": "gte", "key": key, "value": value}, FIELDS, st.sampled_from(["b", 2020])),
    st.builds(lambda key, values: {"type": "in", "key": key, "value": values}, FIELDS, st.lists(SCALARS, max_size=3)),
    st.builds(lambda id_: {"type": "eq", "key": "_id", "value": id_}, st.sampled_from(["1", "2"])),
)
FILTERS = st.recursive(
    COMPARISONS,
    lambda inner: st.one_of(
        st.builds(
            lambda kind, parts: {"type": kind, "filters": parts},
            st.sampled_from(["and", "or"]),
            st.lists(inner, min_size=1, max_size=3),
        ),
        st.builds(lambda part: {"type": "not", "filter": part}, inner),
    ),
    max_leaves=6,
)
METADATA = st.dictionaries(st.sampled_from(["tenant", "year", "tags"]), SCALARS | st.lists(SCALARS, max_size=2))


def fits(value: dict[str, Json]) -> bool:
    """Room for one level around it, whatever the other filter is."""

    def depth(part: dict[str, Json]) -> int:
        inner = part.get("filters", [part["filter"]] if "filter" in part else [])
        return 1 + max(map(depth, inner), default=0)

    return depth(value) <= 7


@given(FILTERS.filter(fits), FILTERS.filter(fits), METADATA, st.sampled_from(["1", "2"]))
def test_restricted_means_both(
    own: dict[str, Json], asked: dict[str, Json], metadata: dict[str, Json], doc_id: str
) -> None:
    who = principal("read", "write", own=own)
    both = who.restricted(asked)
    assert both is not None
    mine = matches(parse_filter(own), metadata, doc_id)
    assert matches(parse_filter(both), metadata, doc_id) == (mine and matches(parse_filter(asked), metadata, doc_id))
    assert who.owns(Document(doc_id, metadata=metadata)) == mine
    if mine:
        who.check_write(metadata, doc_id)
    else:
        with pytest.raises(ForbiddenError, match="filter of key 'app'"):
            who.check_write(metadata, doc_id)


def test_one_of_two_filters_stands_alone() -> None:
    assert principal(own=ACME).restricted(None) == ACME
    assert principal().restricted(LATE) == LATE
    assert principal().restricted(None) is None


def test_two_ands_become_one() -> None:
    both = principal(own={"type": "and", "filters": [ACME, LATE]}).restricted({"type": "and", "filters": [LATE, ACME]})
    assert both == {"type": "and", "filters": [ACME, LATE, LATE, ACME]}
    assert principal(own=ACME).restricted(LATE) == {"type": "and", "filters": [ACME, LATE]}


def test_a_request_cannot_talk_its_way_out() -> None:
    who = principal(own=ACME)
    foreign, mine = Document("1", metadata={"tenant": "globex"}), Document("2", metadata={"tenant": "acme"})
    everything: list[dict[str, Json]] = [
        {"type": "exists", "key": "tenant"},
        {"type": "or", "filters": [ACME, {"type": "not", "filter": ACME}]},
        {"type": "not", "filter": ACME},
        {"type": "eq", "key": "_id", "value": "1"},
        {"type": "ne", "key": "tenant", "value": "acme"},
    ]
    for asked in everything:
        both = who.restricted(asked)
        assert both is not None
        assert not matches(parse_filter(both), foreign.metadata, foreign.id)
    assert not who.owns(foreign)
    assert who.owns(mine)


@pytest.mark.parametrize(
    "asked",
    [
        {"type": "and", "filters": "acme"},
        {"type": "and", "filters": []},
        {"type": "and", "filters": [LATE], "extra": 1},
        {"type": "and"},
        {"type": "and", "filters": [LATE, {"type": "eq", "key": "x"}]},
        {},
        nested(9, "and"),
    ],
)
def test_a_bad_request_filter_is_told_as_it_is_without_a_key(asked: dict[str, Json]) -> None:
    with pytest.raises(RequestError) as plain:
        parse_filter(asked)
    with pytest.raises(RequestError) as restricted:
        principal(own=ACME).restricted(asked)
    assert str(restricted.value) == str(plain.value)


def test_the_limits_hold_for_both_filters_together() -> None:
    who = principal(own=ACME)
    assert who.restricted(nested(7)) == {"type": "and", "filters": [ACME, nested(7)]}
    with pytest.raises(RequestError, match=r"leaves no room .* 8 levels and 256 nodes: flatten") as refusal:
        who.restricted(nested(8))
    assert "acme" not in str(refusal.value)
    assert "tenant" not in str(refusal.value)
    deep = nested(8, "and")
    assert who.restricted(deep) == {"type": "and", "filters": [ACME, nested(7, "and")]}
    assert who.restricted({"type": "and", "filters": [LATE] * 254}) is not None
    with pytest.raises(RequestError, match="leaves no room"):
        who.restricted({"type": "and", "filters": [LATE] * 255})


@pytest.mark.parametrize("own", [nested(7), nested(8, "and"), {"type": "or", "filters": [ACME] * 253}])
def test_every_key_leaves_room_for_a_comparison(own: dict[str, Json]) -> None:
    assert principal(own=own).restricted(ACME) is not None


def test_a_write_outside_is_refused_with_the_fields_to_set() -> None:
    who = principal("write", own={"type": "and", "filters": [ACME, LATE]})
    who.check_write({"tenant": "acme", "year": 2020}, "1")
    with pytest.raises(ForbiddenError, match=r"document '1' does not match the filter of key 'app', .*tenant, year"):
        who.check_write({"tenant": "acme"}, "1")
    with pytest.raises(ForbiddenError, match="which reads _id"):
        principal("write", own={"type": "in", "key": "_id", "value": ["1"]}).check_write({}, "2")
    with pytest.raises(ForbiddenError) as refusal:
        who.check_write({}, "x" * 100_000)
    assert len(str(refusal.value)) < 300


# -- grapnel key ------------------------------------------------------------------------------------------------------


def run_key(
    capsys: pytest.CaptureFixture[str], *, as_json: bool = False, name: str = "app", **options: str
) -> tuple[str, str]:
    args = Namespace(**{"name": name, "scopes": "read", "collections": "*", "filter": None, **options})
    assert key_command(args, Output(as_json=as_json)) == 0
    said = capsys.readouterr()
    return said.out, said.err


def test_the_command_prints_a_secret_and_the_table_that_knows_it(capsys: pytest.CaptureFixture[str]) -> None:
    said, noted = run_key(capsys, scopes="read, write", collections="docs,wiki-*", filter=json.dumps(ACME))
    (secret,) = re.findall(r"gk_[A-Za-z0-9_-]{43}", noted)
    assert secret not in said  # so that it never lands in the file the table goes to
    config = parse_server(tomllib.loads(said), "here")
    found = Keys(config.keys).find(secret)
    assert found == Principal("app", frozenset({"read", "write"}), frozenset({"docs", "wiki-*"}), ACME)


def test_tables_can_be_collected_in_one_file(capsys: pytest.CaptureFixture[str]) -> None:
    first, second = run_key(capsys, filter=json.dumps(nested(3)))[0], run_key(capsys, name="b", collections="")[0]
    config = parse_server(tomllib.loads("[server]\nport = 1" + first + second + "[log]\nslow_ms = 1"), "here")
    assert [(key.name, key.collections) for key in config.keys] == [("app", ("*",)), ("b", ())]


def test_as_json_everything_is_in_the_answer(capsys: pytest.CaptureFixture[str]) -> None:
    said, noted = run_key(capsys, as_json=True)
    answer = json.loads(said)
    assert noted == ""
    assert answer["sha256"] == hashlib.sha256(answer["secret"].encode()).hexdigest()
    expected = KeyConfig("app", answer["sha256"], ("read",))
    assert parse_key(tomllib.loads(answer["toml"])["keys"][0], "here") == expected


@pytest.mark.parametrize(
    "value", ["a\tb", 'q"\\', "line\nbreak\r", "\x1b[31m\x7f", "é 漢 😀 \u2028", "x " * 300, 2**70, 0.5, True]
)
def test_a_filter_survives_the_way_into_the_file(capsys: pytest.CaptureFixture[str], value: Json) -> None:
    parts = [{"type": "eq", "key": "k", "value": value}, {"type": "in", "key": "k", "value": [value, "b"]}]
    own = {"type": "or", "filters": parts}
    said, _ = run_key(capsys, filter=json.dumps(own))
    (key,) = parse_server(tomllib.loads(said), "here").keys
    assert key.filter == own


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"name": "a b"}, ConfigError, "key: name is 'a b'"),
        ({"scopes": "reed"}, ConfigError, r"key\.scopes\[0\] is 'reed'; allowed: 'read'"),
        ({"scopes": ","}, ConfigError, r"key: scopes is \[\]"),
        ({"collections": "Docs"}, ConfigError, "key: collections holds 'Docs'"),
        ({"filter": "{"}, RequestError, "--filter is not JSON"),
        ({"filter": "{}"}, ConfigError, r"key: filter\.type is None"),
        ({"filter": '{"type": "eq", "key": "a", "value": null}'}, RequestError, "--filter holds null"),
        ({"filter": '{"type": "in", "key": "a", "value": [1, null]}'}, RequestError, "--filter holds null"),
        ({"filter": json.dumps(ACME), "scopes": "admin"}, ConfigError, "filter and the admin scope"),
    ],
)
def test_the_command_refuses_what_the_server_would(
    capsys: pytest.CaptureFixture[str], options: dict[str, str], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        run_key(capsys, **options)
    assert capsys.readouterr() == ("", "")
