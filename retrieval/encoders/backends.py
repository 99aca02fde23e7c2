"""What can run a model here, by name."""

import importlib
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Literal

from index.errors import ConfigError, MissingDependencyError
from retrieval.encoders.config import Backend, EncoderConfig
from retrieval.encoders.machine import has_bfloat16
from retrieval.encoders.model_files import ModelFiles

if TYPE_CHECKING:
    from retrieval.encoders.model_encoder import TextModel


@dataclass(frozen=True, slots=True)
class _Way:
    """place: module and class of its TextModel. package: what it needs beside torch, with the extra of that name.

    precision: "float32", or one of the lossy ones. devices: kinds it runs on.
    """

    place: tuple[str, str]
    package: tuple[str, str] | None
    precision: str
    devices: tuple[str, ...]


_TORCH = ("retrieval.encoders.sentence_transformer", "TorchModel")
_ONNX = ("retrieval.encoders.onnx_model", "OnnxModel")
_OPENVINO = ("retrieval.encoders.openvino_model", "OpenVinoModel")

_WAYS: dict[Backend, _Way] = {
    "torch": _Way(_TORCH, None, "float32", ("cpu", "cuda", "other")),
    "torch-bf16": _Way(_TORCH, None, "bfloat16", ("cpu", "cuda")),
    "torch-fp16": _Way(_TORCH, None, "float16", ("cuda",)),
    "onnx": _Way(_ONNX, ("onnxruntime", "onnx"), "float32", ("cpu",)),
    "onnx-int8": _Way(_ONNX, ("onnxruntime", "onnx"), "int8", ("cpu",)),
    "openvino": _Way(_OPENVINO, ("openvino", "openvino"), "float32", ("cpu",)),
    "openvino-bf16": _Way(_OPENVINO, ("openvino", "openvino"), "bfloat16", ("cpu",)),
}

BACKENDS = tuple(_WAYS)


def lossy(backend: Backend) -> bool:
    """Whether a backend computes in less than float32."""
    return _WAYS[backend].precision != "float32"


def check_backend(backend: Backend, device: str | None) -> None:
    """Raise ConfigError or MissingDependencyError where a backend cannot run here.

    device: "cpu", "cuda:0" ...; None = the best one, which is known only to torch: a CPU for all other backends.
    """
    way = _WAYS[backend]
    device = device or default_device(backend)
    kind = device.split(":")[0]
    if (kind if kind in {"cpu", "cuda"} else "other") not in way.devices:
        raise ConfigError(f"encoder.backend {backend!r} does not run on {device!r}, only on {', '.join(way.devices)}")
    if way.package is not None and find_spec(way.package[0]) is None:
        raise MissingDependencyError(
            f"encoder.backend {backend!r} needs {way.package[0]}: install grapnel[{way.package[1]}], or set 'torch'"
        )
    if way.precision == "bfloat16" and kind == "cpu" and not has_bfloat16():
        raise ConfigError(f"encoder.backend {backend!r}: this CPU has no bfloat16 arithmetic; set 'auto' or 'torch'")


def default_device(backend: Literal["auto", Backend]) -> str:
    """Return "cuda" where the backend is torch, or open, and torch can use a GPU, else "cpu". Cost: imports torch."""
    if backend != "auto" and _WAYS[backend].place != _TORCH:
        return "cpu"
    from torch import cuda  # noqa: PLC0415  heavy imports wait until a model is opened

    return "cuda" if cuda.is_available() else "cpu"


def open_model(config: EncoderConfig, files: ModelFiles, backend: Backend) -> "TextModel":
    """Load a model. Raises ConfigError where it, or its settings, do not fit the backend."""
    module, name = _WAYS[backend].place
    model: TextModel = getattr(importlib.import_module(module), name)(config, files, backend)
    return model
