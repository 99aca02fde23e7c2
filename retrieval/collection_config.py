"""collection.toml: what decides the bytes of a collection on disk; changing it means rebuilding what it touches."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from index.ann_format import FORMAT as DENSE_FORMAT
from index.device import canonical
from index.errors import ConfigError
from index.metric import Metric
from index.spec import IndexParams, IndexSpec, Kind
from index.substring_spec import FORMAT as SUBSTRING_FORMAT
from index.vector_file import Storage
from retrieval.chunking import ChunkingConfig
from retrieval.config import check_table, override, parse, read_toml, to_table
from retrieval.encoders import EncoderConfig, fingerprint
from retrieval.lexical import LexicalConfig
from retrieval.phrases.config import SubstringField
from retrieval.phrases.tokenizer import tokenizer_fingerprint

FORMAT = 1
FILE = "collection.toml"
_FIELD_NAME = re.compile(r"[a-z0-9_-]{1,64}")
_RESERVED = ("columns", "hybrid")
"""Names of the metadata component and of the default fusion."""

COMPONENT_FORMATS = {"dense": DENSE_FORMAT, "tantivy": 1, "lucene": 1, "substring": SUBSTRING_FORMAT}
"""Raised with every change of a writer, an analyzer or an engine's files: opening then asks for a compaction, and a
compaction rebuilds instead of carrying over."""

_FIELD_KINDS = ("dense", "lexical", "substring")
_DEFAULT_FIELDS = {"dense": {"kind": "dense"}, "lexical": {"kind": "lexical"}}


@dataclass(frozen=True, slots=True)
class DenseField:
    """A field searched by vectors. encoder: its own table, or the collection's `[encoder]` when absent.

    index, metric, storage, recall, memory_gb, params: see IndexSpec. device: where the index is searched, "cpu" or
    "cuda:0" ...; no part of what is on disk.
    Raises ConfigError on a value that cannot work.
    """

    encoder: EncoderConfig
    index: Kind = "auto"
    metric: Metric = "cosine"
    storage: Storage = "float32"
    recall: float = 0.95
    memory_gb: float | None = None
    params: IndexParams = field(default_factory=IndexParams)
    device: str = "cpu"

    def __post_init__(self) -> None:
        """Check the index as it will be built, and the name of the device."""
        self.spec()
        canonical(self.device)

    def spec(self) -> IndexSpec:
        """Return what the index is asked to be."""
        return IndexSpec(self.index, self.metric, self.storage, self.recall, self.memory_gb, self.params)


Field: TypeAlias = DenseField | LexicalConfig | SubstringField
"""A field of any kind."""


@dataclass(frozen=True, slots=True)
class CollectionConfig:
    """A whole collection.toml. fields: by name, in the order searches list them; at least one can be searched."""

    format: int = FORMAT
    chunking: ChunkingConfig = field(default_factory=ChunkingConfig)
    fields: Mapping[str, Field] = field(
        default_factory=lambda: {"dense": DenseField(EncoderConfig()), "lexical": LexicalConfig()}
    )

    def __post_init__(self) -> None:
        """Raise ConfigError on a field name that cannot be used."""
        if not self.fields:
            raise ConfigError("[fields] is empty: a collection needs at least one field")
        for name in self.fields:
            if not _FIELD_NAME.fullmatch(name) or name in _RESERVED:
                reserved = " and ".join(_RESERVED)
                raise ConfigError(f"[fields.{name}]: a name has 1 to 64 of a-z, 0-9, _ and -; {reserved} are reserved")
        if not self.searched_fields():
            raise ConfigError(
                "[fields] has fields of kind 'substring' only, which are no way to search: add a field of kind "
                "'lexical' or 'dense'"
            )

    def dense_fields(self) -> dict[str, DenseField]:
        """Return the dense fields by name."""
        return {name: value for name, value in self.fields.items() if isinstance(value, DenseField)}

    def lexical_fields(self) -> dict[str, LexicalConfig]:
        """Return the lexical fields by name."""
        return {name: value for name, value in self.fields.items() if isinstance(value, LexicalConfig)}

    def substring_fields(self) -> dict[str, SubstringField]:
        """Return the substring fields by name."""
        return {name: value for name, value in self.fields.items() if isinstance(value, SubstringField)}

    def searched_fields(self) -> tuple[str, ...]:
        """Return the names of the fields that are ways to search."""
        return tuple(name for name, value in self.fields.items() if not isinstance(value, SubstringField))


def parse_collection(table: Mapping[str, Any], where: str) -> CollectionConfig:
    """Build a CollectionConfig from TOML tables.

        format = 1
        [chunking]           kind, max_tokens, overlap, markdown
        [encoder]            for dense fields without an encoder table of their own
        [fields.NAME]        kind = "dense" | "lexical" | "substring", then that kind's keys

    Raises ConfigError with file, table, key and what is allowed.
    """
    unknown = sorted(table.keys() - {"format", "chunking", "encoder", "fields"})
    if unknown:
        raise ConfigError(f"{where}: unknown key {unknown[0]!r}; allowed: chunking, encoder, fields, format")
    version = table.get("format", FORMAT)
    if version != FORMAT:
        raise ConfigError(f"{where}.format is {version!r}, this grapnel reads {FORMAT}")
    encoder = table.get("encoder", {})
    parse(EncoderConfig, encoder, f"{where} [encoder]")  # so that a mistake is reported where it was made
    fields = table.get("fields", _DEFAULT_FIELDS)
    check_table(fields, f"{where} [fields]")
    try:
        return CollectionConfig(
            format=FORMAT,
            chunking=parse(ChunkingConfig, table.get("chunking", {}), f"{where} [chunking]"),
            fields=_parse_fields(fields, encoder, where),
        )
    except ConfigError as error:
        if str(error).startswith(where):
            raise
        raise ConfigError(f"{where} {error}") from error


def _parse_fields(tables: Mapping[str, Any], encoder: Mapping[str, Any], where: str) -> dict[str, Field]:
    fields: dict[str, Field] = {}
    for name, table in tables.items():
        place = f"{where} [fields.{name}]"
        check_table(table, place)
        rest = {key: value for key, value in table.items() if key != "kind"}
        match table.get("kind"):
            case "dense":
                fields[name] = parse(DenseField, {"encoder": dict(encoder), **rest}, place)
            case "lexical":
                lexical = parse(LexicalConfig, rest, place)
                lexical.validate(place)
                fields[name] = lexical
            case "substring":
                fields[name] = parse(SubstringField, rest, place)
            case kind:
                raise ConfigError(f"{place}.kind is {kind!r}; allowed: {', '.join(map(repr, _FIELD_KINDS))}")
    return fields


def read_collection_config(path: Path, settings: Sequence[str] = ()) -> CollectionConfig:
    """Read a collection.toml with `table.key=value` overrides. Raises ConfigError."""
    return parse_collection(override(read_toml(path), settings), path.name)


def collection_table(config: CollectionConfig) -> dict[str, Any]:
    """Return the resolved configuration as TOML tables that `parse_collection` reads back."""
    fields = {name: {"kind": field_kind(value), **to_table(value)} for name, value in config.fields.items()}
    return {"format": config.format, "chunking": to_table(config.chunking), "fields": fields}


def field_kind(field: Field) -> str:
    """Return the kind of a field, as collection.toml calls it."""
    if isinstance(field, DenseField):
        return "dense"
    return "lexical" if isinstance(field, LexicalConfig) else "substring"


def component_config(field: Field, encoder: str | None = None) -> dict[str, Any]:
    """Return what decides the bytes of a field's component, as JSON values. encoder: fingerprint of a dense field's.

    Raises ConfigError where the tokenizer of a substring field cannot be found.
    """
    if isinstance(field, DenseField):
        facts: dict[str, Any] = {
            "index": field.index,
            "metric": field.metric,
            "encoder": encoder,
            "format": COMPONENT_FORMATS["dense"],
        }
        if field.storage != "float32":
            facts["storage"] = field.storage
        if field.index != "flat":  # exact search has nothing more to decide
            facts |= {"recall": field.recall, "memory_gb": field.memory_gb, "params": to_table(field.params)}
        return facts
    if isinstance(field, SubstringField):
        tokenizer = tokenizer_fingerprint(field)  # says the case, too
        return {"mode": field.mode, "tokenizer": tokenizer, "format": COMPONENT_FORMATS["substring"]}
    return {**to_table(field), "format": COMPONENT_FORMATS[field.engine]}


def chunking_facts(config: CollectionConfig) -> str:
    """Return what decides how documents are cut, as JSON: the settings, and whose tokenizer counts."""
    facts: dict[str, Any] = {"kind": config.chunking.kind}
    if config.chunking.kind != "none":
        facts = to_table(config.chunking)
        first = next(iter(config.dense_fields().values()), None)
        facts["tokenizer"] = fingerprint(first.encoder) if first else None
    return json.dumps(facts, sort_keys=True)
