"""What an index may be asked to be."""

from dataclasses import FrozenInstanceError
from typing import Any

import pytest

from index.errors import ConfigError
from index.spec import KINDS, IndexParams, IndexSpec


def test_the_default_is_auto_over_full_precision() -> None:
    spec = IndexSpec()
    assert (spec.kind, spec.metric, spec.storage, spec.recall, spec.memory_gb) == (
        "auto",
        "cosine",
        "float32",
        0.95,
        None,
    )
    assert spec.params == IndexParams(None, None, None, None, None)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_can_be_asked_for(kind: Any) -> None:
    assert IndexSpec(kind).kind == kind


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "lsh"}, "kind is 'lsh'; allowed: 'auto', 'flat'"),
        ({"kind": ""}, "kind is ''"),
        ({"metric": "dot"}, "metric is 'dot'; allowed: 'cosine', 'ip', 'l2'"),
        ({"storage": "int4"}, "storage is 'int4'; allowed: 'float32', 'float16', 'int8'"),
        ({"recall": 0.0}, "recall is 0.0"),
        ({"recall": 1.0}, "kind 'flat'"),
        ({"recall": -0.5}, "recall is -0.5"),
        ({"recall": float("nan")}, "recall is nan"),
        ({"memory_gb": 0.0}, "memory_gb is 0.0"),
        ({"memory_gb": -1.0}, "memory_gb is -1.0"),
        ({"memory_gb": float("nan")}, "memory_gb is nan"),
        ({"kind": "hnsw", "storage": "int8"}, "hnsw-sq8"),
        ({"kind": "binary", "metric": "l2"}, "expected metric 'cosine', got 'l2'"),
        ({"kind": "binary", "metric": "ip"}, "expected metric 'cosine', got 'ip'"),
    ],
)
def test_what_cannot_work_is_refused_with_what_is_allowed(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        IndexSpec(**options)


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [
        ("links", 4, 128),
        ("ef_construction", 8, 4_096),
        ("lists", 1, 1 << 20),
        ("code_bytes", 1, 1 << 14),
        ("code_bits", 1, 9),
    ],
)
def test_parameters_have_ranges(name: str, low: int, high: int) -> None:
    for value in (low, high, None):
        assert getattr(IndexParams(**{name: value}), name) == value
    for value in (low - 1, high + 1, -1):
        with pytest.raises(ConfigError, match=f"{name} is {value}, expected {low} to {high}"):
            IndexParams(**{name: value})


def test_a_spec_does_not_change() -> None:
    with pytest.raises(FrozenInstanceError):
        IndexSpec().kind = "flat"  # type: ignore[misc]
