import dataclasses
import re
from pathlib import Path

import pytest

from retrieval.chunking import ChunkingConfig
from retrieval.collection_config import CollectionConfig, DenseField, read_collection_config
from retrieval.encoders import EncoderConfig
from retrieval.lexical import LexicalConfig
from retrieval.phrases import SubstringField
from retrieval.pipeline_config import FusionConfig, PipelineConfig, default_pipeline, read_pipeline

CONFIGS = Path(__file__).parents[2] / "configs"
COLLECTION, PIPELINE = CONFIGS / "collection.toml", CONFIGS / "pipeline.toml"
EXAMPLE = re.compile(r"^# (?=\w+ = )", re.MULTILINE)
"""The mark before a key that has no default and is therefore commented out."""


def test_the_collection_example_says_the_defaults() -> None:
    assert read_collection_config(COLLECTION) == CollectionConfig()


def test_the_pipeline_example_says_the_defaults() -> None:
    assert read_pipeline(PIPELINE, CollectionConfig()) == default_pipeline(CollectionConfig())


@pytest.mark.parametrize(
    ("path", "table", "config"),
    [
        (COLLECTION, "chunking", ChunkingConfig),
        (COLLECTION, "encoder", EncoderConfig),
        (COLLECTION, "fields.dense", DenseField),
        (COLLECTION, "fields.lexical", LexicalConfig),
        (PIPELINE, "fusion.hybrid", FusionConfig),
        (PIPELINE, "", PipelineConfig),
    ],
)
def test_every_key_is_in_the_example(path: Path, table: str, config: type) -> None:
    tables = re.split(r"^\[([^\]]+)\].*$", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    body = dict(zip(["", *tables[1::2]], tables[::2], strict=True))[table]
    keys = set(re.findall(r"^(?:# )?(\w+) = ", body, re.MULTILINE)) - {"kind"}
    nested = {"encoder", "fusion", "params"}  # tables of their own
    assert keys == {field.name for field in dataclasses.fields(config)} - nested - {"kind"}


def test_the_substring_field_that_is_commented_out_says_the_defaults(tmp_path: Path) -> None:
    before, head, body = COLLECTION.read_text(encoding="utf-8").partition("# [fields.phrases]\n")
    changed = tmp_path / "collection.toml"
    changed.write_text(before + head[2:] + re.sub("^#   ", "", body, flags=re.MULTILINE), encoding="utf-8")
    assert read_collection_config(changed).fields == {**CollectionConfig().fields, "phrases": SubstringField()}
    keys = set(re.findall(r"^#   (\w+) = ", body, re.MULTILINE))
    assert keys == {"kind", *(field.name for field in dataclasses.fields(SubstringField))}


@pytest.mark.parametrize("number", range(len(EXAMPLE.findall(COLLECTION.read_text(encoding="utf-8")))))
def test_every_example_line_is_valid_and_has_an_effect(tmp_path: Path, number: int) -> None:
    text = COLLECTION.read_text(encoding="utf-8")
    mark = list(EXAMPLE.finditer(text))[number]
    changed = tmp_path / "collection.toml"
    changed.write_text(text[: mark.start()] + text[mark.end() :], encoding="utf-8")
    assert read_collection_config(changed) != CollectionConfig()
