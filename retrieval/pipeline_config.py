"""pipeline.toml: what decides a search. It may change per request; nothing on disk depends on it."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, TypeAlias

from index.errors import ConfigError, RequestError
from retrieval.collection_config import CollectionConfig
from retrieval.config import parse, read_toml

FILE = "pipeline.toml"
HYBRID = "hybrid"

DENSE_WEIGHT = 0.4
"""Share of the dense part in the default fusion: the best fixed value over thirteen datasets (docs/log.md)."""

DEPTH = 200
MAX_DEPTH = 1_000_000

FusionMethod: TypeAlias = Literal["scores", "rrf"]


@dataclass(frozen=True, slots=True)
class FusionConfig:
    """How several retrievers become one ranking.

    parts: names of fields. weights: one each, not negative; scaled to sum 1 for "scores". method "scores" adds
    normalised scores; "rrf" adds weight / (rrf_k + rank), ranks from 1 (Cormack, Clarke & Buettcher, SIGIR 2009).
    """

    parts: tuple[str, ...]
    weights: tuple[float, ...]
    method: FusionMethod = "scores"
    rrf_k: float = 60.0


@dataclass(frozen=True, slots=True)
class PipelineConfig:
    """A whole pipeline.toml. default: the mode used when none is asked for. depth: candidates each part contributes.

    fusion: by mode name. Every field of the collection but substring ones is a mode of its own as well.
    """

    default: str
    depth: int = DEPTH
    fusion: Mapping[str, FusionConfig] = field(default_factory=dict)


def default_pipeline(collection: CollectionConfig) -> PipelineConfig:
    """Return the pipeline of a collection without a pipeline.toml: hybrid over its searched fields, when several."""
    fields = collection.searched_fields()
    if len(fields) == 1:
        return PipelineConfig(default=fields[0])
    return PipelineConfig(default=HYBRID, fusion={HYBRID: FusionConfig(fields, default_weights(collection, fields))})


def default_weights(collection: CollectionConfig, parts: tuple[str, ...]) -> tuple[float, ...]:
    """Share 0.4 among dense parts and 0.6 among lexical ones; equally where there is only one kind."""
    dense = [name in collection.dense_fields() for name in parts]
    if all(dense) or not any(dense):
        return tuple(1 / len(parts) for _ in parts)
    return tuple(
        DENSE_WEIGHT / sum(dense) if is_dense else (1 - DENSE_WEIGHT) / (len(parts) - sum(dense)) for is_dense in dense
    )


def read_pipeline(path: Path, collection: CollectionConfig) -> PipelineConfig:
    """Read and check a pipeline.toml against the collection it will search; what it leaves out is as by default.

    Raises ConfigError.
    """
    usual = default_pipeline(collection)
    config = parse(PipelineConfig, {"default": usual.default, **read_toml(path)}, path.name)
    return check_pipeline(replace(config, fusion={**usual.fusion, **config.fusion}), collection, path.name)


def check_pipeline(config: PipelineConfig, collection: CollectionConfig, where: str) -> PipelineConfig:
    """Return `config` if every name and number in it makes sense for `collection`; raise ConfigError otherwise."""
    if not 1 <= config.depth <= MAX_DEPTH:
        raise ConfigError(f"{where}.depth is {config.depth}, expected 1 to {MAX_DEPTH}")
    searched = collection.searched_fields()
    for name, fusion in config.fusion.items():
        place = f"{where} [fusion.{name}]"
        unknown = [part for part in fusion.parts if part not in searched]
        if unknown or not fusion.parts or len(set(fusion.parts)) != len(fusion.parts):
            raise ConfigError(f"{place}.parts is {list(fusion.parts)}, expected distinct fields of {list(searched)}")
        if len(fusion.weights) != len(fusion.parts) or not _are_weights(fusion.weights):
            raise ConfigError(
                f"{place}.weights is {list(fusion.weights)}, expected one weight >= 0 per part, not all 0"
            )
        if not (math.isfinite(fusion.rrf_k) and fusion.rrf_k >= 0):
            raise ConfigError(f"{place}.rrf_k is {fusion.rrf_k}, expected at least 0")
        if name in collection.fields:
            raise ConfigError(f"{place}: {name!r} is already the name of a field")
    if config.default not in modes(config, collection):
        raise ConfigError(f"{where}.default is {config.default!r}; modes: {', '.join(modes(config, collection))}")
    return config


def _are_weights(weights: tuple[float, ...]) -> bool:
    return all(math.isfinite(weight) and weight >= 0 for weight in weights) and sum(weights) > 0


def modes(config: PipelineConfig, collection: CollectionConfig) -> list[str]:
    """Return every mode a search may ask for."""
    return [*config.fusion, *collection.searched_fields()]


def resolve_mode(config: PipelineConfig, collection: CollectionConfig, mode: str | None) -> str:
    """Return the mode to use. Raises RequestError on an unknown one."""
    if mode is None:
        return config.default
    if mode not in modes(config, collection):
        raise RequestError(f"mode {mode!r} is unknown; modes: {', '.join(modes(config, collection))}")
    return mode


def with_weights(config: PipelineConfig, mode: str, weights: tuple[float, ...], depth: int) -> PipelineConfig:
    """Return `config` with other weights and depth for one fused mode."""
    fused = replace(config.fusion[mode], weights=weights, method="scores")
    return replace(config, depth=depth, fusion={**config.fusion, mode: fused})
