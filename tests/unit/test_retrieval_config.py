"""collection.toml and pipeline.toml: nothing is guessed, and what is refused is named by file, table and key."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import pytest

from index.errors import ConfigError, RequestError
from retrieval.chunking import ChunkingConfig
from retrieval.collection_config import (
    CollectionConfig,
    DenseField,
    collection_table,
    component_config,
    parse_collection,
    read_collection_config,
)
from retrieval.config import digest_of, override, parse, read_toml, to_table, to_toml
from retrieval.encoders import EncoderConfig
from retrieval.lexical import LexicalConfig
from retrieval.pipeline_config import (
    FusionConfig,
    PipelineConfig,
    check_pipeline,
    default_pipeline,
    modes,
    read_pipeline,
    resolve_mode,
    with_weights,
)


@dataclass(frozen=True)
class Inner:
    share: float
    names: tuple[str, ...] = ()


@dataclass(frozen=True)
class Outer:
    count: int
    inner: Inner = field(default_factory=lambda: Inner(0.5))
    word: Literal["yes", "no"] = "no"
    flag: bool = False
    perhaps: int | None = None
    tables: Mapping[str, Inner] = field(default_factory=dict)


TWO_FIELDS = CollectionConfig(
    fields={"dense": DenseField(EncoderConfig(kind="hashing", dim=64)), "lexical": LexicalConfig()}
)


# -- tables to dataclasses --------------------------------------------------------------------------------------------


def test_a_table_becomes_a_dataclass_with_nested_tables() -> None:
    table = {
        "count": 3,
        "inner": {"share": 1, "names": ["a", "b"]},
        "word": "yes",
        "flag": True,
        "perhaps": 4,
        "tables": {"x": {"share": 0.25}},
    }
    parsed = parse(Outer, table, "f")
    assert parsed == Outer(3, Inner(1.0, ("a", "b")), "yes", flag=True, perhaps=4, tables={"x": Inner(0.25)})
    assert type(parsed.inner.share) is float
    assert parse(Outer, to_table(parsed), "f") == parsed


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({}, r"f: key 'count' is required"),
        ({"count": 1, "counts": 2}, r"f: unknown key 'counts'; allowed: count, flag, inner, perhaps, tables, word"),
        ({"count": "1"}, r"f\.count is '1' \(str\), expected int"),
        ({"count": 1.0}, r"f\.count is 1\.0 \(float\), expected int"),
        ({"count": True}, r"f\.count is True \(bool\), expected int"),
        ({"count": 1, "flag": 1}, r"f\.flag is 1 \(int\), expected bool"),
        ({"count": 1, "word": "maybe"}, r"f\.word is 'maybe'; allowed: 'yes', 'no'"),
        ({"count": 1, "perhaps": "x"}, r"f\.perhaps is 'x' \(str\), expected int"),
        ({"count": 1, "inner": 5}, r"f\.inner is 5 \(int\)"),
        ({"count": 1, "inner": {}}, r"f\.inner: key 'share' is required"),
        ({"count": 1, "inner": {"share": True}}, r"f\.inner\.share is True \(bool\), expected float"),
        ({"count": 1, "inner": {"share": 1, "names": "ab"}}, r"f\.inner\.names is 'ab' \(str\), expected tuple"),
        ({"count": 1, "inner": {"share": 1, "names": ["a", 2]}}, r"f\.inner\.names\[1\] is 2 \(int\), expected str"),
        ({"count": 1, "tables": {"x": {"shar": 1}}}, r"f\.tables\.x: unknown key 'shar'; allowed: names, share"),
        ({"count": 1, "tables": []}, r"f\.tables is \[\] \(list\)"),
        ({"count": {"x": 1}}, r"f\.count is \{'x': 1\} \(dict\), expected int"),
    ],
)
def test_what_is_not_understood_is_named(table: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=rf"^{message}"):
        parse(Outer, table, "f")


@pytest.mark.parametrize("table", [5, "x", [], None])
def test_a_value_in_place_of_a_table_is_refused(table: Any) -> None:
    with pytest.raises(ConfigError, match="expected a table"):
        parse(Outer, table, "f")


def test_a_file_that_is_no_toml_is_named_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "c.toml"
    path.write_text("a = 1\nb = = 2\n")
    with pytest.raises(ConfigError, match=r"c\.toml: .*line 2"):
        read_toml(path)
    path.write_bytes(b"a = '\xff'\n")
    with pytest.raises(ConfigError, match=r"c\.toml: .*utf-8"):
        read_toml(path)
    path.write_text("a = 1\na = 2\n")
    with pytest.raises(ConfigError, match=r"c\.toml: .*line 2"):
        read_toml(path)
    with pytest.raises(ConfigError, match="does not exist"):
        read_toml(tmp_path / "none.toml")
    with pytest.raises(ConfigError, match=str(tmp_path)):
        read_toml(tmp_path)


# -- --set ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("a.b=2", {"a": {"b": 2, "keep": 1}, "c": 0}),
        ("a.b = 2.5", {"a": {"b": 2.5, "keep": 1}, "c": 0}),
        ("c=true", {"a": {"keep": 1}, "c": True}),
        ("c=word", {"a": {"keep": 1}, "c": "word"}),
        ('c="two words"', {"a": {"keep": 1}, "c": "two words"}),
        ("c=two words", {"a": {"keep": 1}, "c": "two words"}),
        ("c=", {"a": {"keep": 1}, "c": ""}),
        ("c=x=y", {"a": {"keep": 1}, "c": "x=y"}),
        ("c=[1, 2]", {"a": {"keep": 1}, "c": [1, 2]}),
        ("new.deep.key=1", {"a": {"keep": 1}, "c": 0, "new": {"deep": {"key": 1}}}),
    ],
)
def test_settings_override_one_key(setting: str, expected: dict[str, Any]) -> None:
    assert override({"a": {"keep": 1}, "c": 0}, [setting]) == expected


def test_later_settings_win_and_the_table_stays_as_it_was() -> None:
    table = {"a": {"b": 1}}
    assert override(table, ["a.b=2", "a.b=3", "a.c=4"]) == {"a": {"b": 3, "c": 4}}
    assert table == {"a": {"b": 1}}


@pytest.mark.parametrize("setting", ["a.b", "=1", "a..b=1", ".a=1", "c.d=1", ""])
def test_settings_that_name_no_key_are_refused(setting: str) -> None:
    with pytest.raises(ConfigError, match="--set"):
        override({"a": {}, "c": 0}, [setting])


# -- collection.toml --------------------------------------------------------------------------------------------------


def test_nothing_given_is_the_default() -> None:
    assert parse_collection({}, "c") == CollectionConfig()


CONFIGS = [
    CollectionConfig(),
    TWO_FIELDS,
    CollectionConfig(
        chunking=ChunkingConfig(kind="tokens", max_tokens=100, overlap=10, markdown=True),
        fields={
            "zeta": LexicalConfig(language="german", title_boost=2.0),
            "alpha": DenseField(EncoderConfig(kind="external", dim=3), metric="ip"),
            "m-1_x": DenseField(EncoderConfig(path="some/model", query_prompt="", dim=128, normalize=False), "flat"),
            "lucene": LexicalConfig(engine="lucene", k1=1.5, b=0.0),
        },
    ),
]


@pytest.mark.parametrize("config", CONFIGS)
def test_a_resolved_configuration_reads_back_as_itself(config: CollectionConfig, tmp_path: Path) -> None:
    path = tmp_path / "collection.toml"
    path.write_text(to_toml(collection_table(config)))
    found = read_collection_config(path)
    assert found == config
    assert list(found.fields) == list(config.fields)
    assert collection_table(found) == collection_table(config)


def test_the_collections_encoder_is_that_of_dense_fields_without_one() -> None:
    config = parse_collection(
        {
            "encoder": {"kind": "hashing", "dim": 64},
            "fields": {
                "one": {"kind": "dense"},
                "two": {"kind": "dense", "encoder": {"kind": "external", "dim": 2}},
                "words": {"kind": "lexical"},
            },
        },
        "c",
    )
    assert config.dense_fields() == {
        "one": DenseField(EncoderConfig(kind="hashing", dim=64)),
        "two": DenseField(EncoderConfig(kind="external", dim=2)),
    }
    assert config.lexical_fields() == {"words": LexicalConfig()}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("colour = 1", r"collection\.toml: unknown key 'colour'; allowed: chunking, encoder, fields, format"),
        ("format = 2", r"collection\.toml\.format is 2, this grapnel reads 1"),
        ("[chunking]\nsize = 1", r"collection\.toml \[chunking\]: unknown key 'size'; allowed: kind, markdown, "),
        ("[chunking]\nmax_tokens = 1", r"collection\.toml \[chunking\].*max_tokens is 1"),
        ("[encoder]\nmodel = 'x'", r"collection\.toml \[encoder\]: unknown key 'model'; allowed: .*path"),
        ("[encoder]\ndim = 0", r"collection\.toml \[encoder\].*dim is 0"),
        ("encoder = 5", r"collection\.toml \[encoder\] is 5, expected a table"),
        ("fields = 5", r"collection\.toml \[fields\] is 5, expected a table"),
        ("chunking = 'none'", r"collection\.toml \[chunking\] is 'none', expected a table"),
        ("[fields]", r"collection\.toml \[fields\] is empty"),
        ("[fields]\nx = 1", r"collection\.toml \[fields\.x\] is 1, expected a table"),
        ("[fields.x]", r"collection\.toml \[fields\.x\]\.kind is None; allowed: 'dense', 'lexical'"),
        ("[fields.x]\nkind = 'sparse'", r"collection\.toml \[fields\.x\]\.kind is 'sparse'; allowed: 'dense', "),
        ("[fields.x]\nkind = 'dense'\nmetrics = 'ip'", r"collection\.toml \[fields\.x\]: unknown key 'metrics'; "),
        ("[fields.x]\nkind = 'dense'\nmetric = 'dot'", r"collection\.toml \[fields\.x\]\.metric is 'dot'; .*'ip'"),
        (
            "[fields.x]\nkind = 'dense'\nencoder.kin = 'h'",
            r"collection\.toml \[fields\.x\]\.encoder: unknown key 'kin'",
        ),
        ("[fields.x]\nkind = 'lexical'\nk1 = 'high'", r"collection\.toml \[fields\.x\]\.k1 is 'high' \(str\)"),
        ("[fields.x]\nkind = 'lexical'\nlanguage = 'latin'", r"collection\.toml \[fields\.x\].*'latin'.*english"),
        ("[fields.X]\nkind = 'lexical'", r"collection\.toml \[fields\.X\].*a-z, 0-9, _ and -"),
        ("[fields.'a/b']\nkind = 'lexical'", r"collection\.toml \[fields\.a/b\].*a-z, 0-9, _ and -"),
        ("[fields.columns]\nkind = 'lexical'", r"collection\.toml \[fields\.columns\].*reserved"),
        ("[fields.hybrid]\nkind = 'lexical'", r"collection\.toml \[fields\.hybrid\].*reserved"),
    ],
)
def test_a_bad_collection_file_is_refused_by_table_and_key(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "collection.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=rf"^{message}"):
        read_collection_config(path)


@pytest.mark.parametrize("name", ["", "X", "a b", "columns", "hybrid", "é", "x" * 65])
def test_field_names_are_checked_without_a_file_too(name: str) -> None:
    with pytest.raises(ConfigError, match="fields"):
        CollectionConfig(fields={name: LexicalConfig()})


def test_settings_reach_the_collection(tmp_path: Path) -> None:
    path = tmp_path / "collection.toml"
    path.write_text("")
    settings = ["encoder.kind=hashing", "encoder.dim=64", "fields.words.kind=lexical", "fields.d.kind=dense"]
    assert read_collection_config(path, settings).fields == {
        "words": LexicalConfig(),
        "d": DenseField(EncoderConfig(kind="hashing", dim=64)),
    }
    with pytest.raises(ConfigError, match=r"collection\.toml \[encoder\]: unknown key 'kid'"):
        read_collection_config(path, ["encoder.kid=hashing"])


# -- digests: a change would rebuild every collection there is --------------------------------------------------------


def test_digests_depend_on_content_alone() -> None:
    # printf '{"a": [1, 2.5, "é"], "b": {"c": true}}' | b2sum -l 128
    expected = "12c192a2f5c2356a1e75cf3d32135a2a"
    assert digest_of({"a": [1, 2.5, "é"], "b": {"c": True}}) == expected
    assert digest_of({"b": {"c": True}, "a": [1, 2.5, "é"]}) == expected
    assert digest_of({"a": [1, 2.5, "e"], "b": {"c": True}}) != expected


def test_what_only_changes_speed_changes_no_component() -> None:
    slow = DenseField(EncoderConfig(kind="hashing", dim=64))
    fast = DenseField(EncoderConfig(kind="hashing", dim=64, device="cpu", batch_tokens=9))
    assert component_config(slow, "f") == component_config(fast, "f")
    assert component_config(slow, "f") != component_config(slow, "g")
    assert component_config(slow, "f") != component_config(replace(slow, metric="l2"), "f")
    assert component_config(LexicalConfig(), None) != component_config(LexicalConfig(stemming=False), None)


# -- pipeline.toml ----------------------------------------------------------------------------------------------------


def pipeline(tmp_path: Path, text: str, collection: CollectionConfig = TWO_FIELDS) -> PipelineConfig:
    path = tmp_path / "pipeline.toml"
    path.write_text(text)
    return read_pipeline(path, collection)


def test_the_default_pipeline_fuses_all_fields() -> None:
    assert default_pipeline(TWO_FIELDS) == PipelineConfig(
        "hybrid", 200, {"hybrid": FusionConfig(("dense", "lexical"), (0.4, 0.6), "scores", 60.0)}
    )
    assert modes(default_pipeline(TWO_FIELDS), TWO_FIELDS) == ["hybrid", "dense", "lexical"]


def test_one_field_needs_no_fusion() -> None:
    alone = CollectionConfig(fields={"words": LexicalConfig()})
    assert default_pipeline(alone) == PipelineConfig("words")
    assert modes(default_pipeline(alone), alone) == ["words"]


def test_default_weights_are_shared_among_fields_of_a_kind() -> None:
    dense, lexical = DenseField(EncoderConfig()), LexicalConfig()

    def weights(**fields: DenseField | LexicalConfig) -> list[float]:
        return list(default_pipeline(CollectionConfig(fields=fields)).fusion["hybrid"].weights)

    assert weights(a=dense, b=lexical, c=dense) == pytest.approx([0.2, 0.6, 0.2])
    assert weights(a=lexical, b=lexical, c=dense) == pytest.approx([0.3, 0.3, 0.4])
    assert weights(a=dense, b=dense) == weights(a=lexical, b=lexical) == pytest.approx([0.5, 0.5])


def test_an_empty_pipeline_file_is_the_default(tmp_path: Path) -> None:
    assert pipeline(tmp_path, "") == default_pipeline(TWO_FIELDS)


def test_a_pipeline_file_may_set_the_depth_alone(tmp_path: Path) -> None:
    assert pipeline(tmp_path, "depth = 400") == replace(default_pipeline(TWO_FIELDS), depth=400)


def test_a_pipeline_file_may_add_a_fusion(tmp_path: Path) -> None:
    found = pipeline(
        tmp_path,
        "default = 'mine'\n[fusion.mine]\nparts = ['lexical', 'dense']\nweights = [1, 3]\nmethod = 'rrf'\nrrf_k = 1",
    )
    assert found.default == "mine"
    assert found.fusion["mine"] == FusionConfig(("lexical", "dense"), (1.0, 3.0), "rrf", 1.0)
    assert modes(found, TWO_FIELDS) == ["hybrid", "mine", "dense", "lexical"]


@pytest.mark.parametrize("config", [default_pipeline(TWO_FIELDS), replace(default_pipeline(TWO_FIELDS), depth=7)])
def test_a_pipeline_reads_back_as_itself(tmp_path: Path, config: PipelineConfig) -> None:
    assert pipeline(tmp_path, to_toml(config)) == config


FUSION = "[fusion.f]\nparts = ['dense', 'lexical']\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("mode = 'dense'", r"pipeline\.toml: unknown key 'mode'; allowed: default, depth, fusion"),
        ("default = 'sparse'", r"pipeline\.toml\.default is 'sparse'; modes: hybrid, dense, lexical"),
        ("depth = 0", r"pipeline\.toml\.depth is 0"),
        ("depth = 10_000_000", r"pipeline\.toml\.depth is 10000000"),
        ("depth = 2.5", r"pipeline\.toml\.depth is 2\.5 \(float\), expected int"),
        ("fusion = 3", r"pipeline\.toml\.fusion is 3 \(int\)"),
        ("[fusion]\nf = 3", r"pipeline\.toml\.fusion\.f is 3 \(int\)"),
        (FUSION, r"pipeline\.toml\.fusion\.f: key 'weights' is required"),
        (FUSION + "weights = [1]", r"pipeline\.toml \[fusion\.f\]\.weights is \[1\.0\]"),
        (FUSION + "weights = [1, -1]", r"pipeline\.toml \[fusion\.f\]\.weights is \[1\.0, -1\.0\]"),
        (FUSION + "weights = [0, 0]", r"pipeline\.toml \[fusion\.f\]\.weights is \[0\.0, 0\.0\]"),
        (FUSION + "weights = [nan, 1]", r"pipeline\.toml \[fusion\.f\]\.weights is \[nan, 1\.0\]"),
        (FUSION + "weights = [1, inf]", r"pipeline\.toml \[fusion\.f\]\.weights is \[1\.0, inf\]"),
        (FUSION + "weights = [1, '2']", r"pipeline\.toml\.fusion\.f\.weights\[1\] is '2' \(str\), expected float"),
        (FUSION + "weights = [1, 1]\nrrf_k = -1", r"pipeline\.toml \[fusion\.f\]\.rrf_k is -1"),
        (FUSION + "weights = [1, 1]\nrrf_k = nan", r"pipeline\.toml \[fusion\.f\]\.rrf_k is nan"),
        (FUSION + "weights = [1, 1]\nmethod = 'sum'", r"pipeline\.toml\.fusion\.f\.method is 'sum'; allowed: 'scores'"),
        ("[fusion.f]\nparts = []\nweights = []", r"pipeline\.toml \[fusion\.f\]\.parts is \[\]"),
        ("[fusion.f]\nparts = ['dense', 'dense']\nweights = [1, 1]", r"pipeline\.toml \[fusion\.f\]\.parts"),
        ("[fusion.f]\nparts = ['dense', 'sparse']\nweights = [1, 1]", r".*parts.*fields of \['dense', 'lexical'\]"),
        ("[fusion.dense]\nparts = ['dense', 'lexical']\nweights = [1, 1]", r".*\[fusion\.dense\].*name of a field"),
    ],
)
def test_a_bad_pipeline_file_is_refused_by_table_and_key(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=rf"^{message}"):
        pipeline(tmp_path, text)


def test_a_pipeline_made_in_code_is_checked_alike() -> None:
    good = default_pipeline(TWO_FIELDS)
    assert check_pipeline(good, TWO_FIELDS, "here") is good
    with pytest.raises(ConfigError, match=r"here\.depth"):
        check_pipeline(replace(good, depth=0), TWO_FIELDS, "here")


def test_modes_are_resolved() -> None:
    default = default_pipeline(TWO_FIELDS)
    assert resolve_mode(default, TWO_FIELDS, None) == "hybrid"
    assert resolve_mode(default, TWO_FIELDS, "dense") == "dense"
    for mode in ("sparse", "", "Dense"):
        with pytest.raises(RequestError, match="modes: hybrid, dense, lexical"):
            resolve_mode(default, TWO_FIELDS, mode)


def test_new_weights_change_one_mode_only() -> None:
    other = FusionConfig(("lexical", "dense"), (1.0, 1.0), "rrf")
    before = replace(default_pipeline(TWO_FIELDS), fusion={**default_pipeline(TWO_FIELDS).fusion, "other": other})
    after = with_weights(before, "hybrid", (0.2, 0.8), 300)
    assert after.fusion == {"hybrid": FusionConfig(("dense", "lexical"), (0.2, 0.8)), "other": other}
    assert (after.depth, after.default) == (300, "hybrid")
    assert before.fusion["hybrid"].weights == (0.4, 0.6)
