"""Exported models in the cache: one graph from token ids to the vector, with its tokenizer beside it.

Nothing but onnxruntime or OpenVINO and the `tokenizers` library is needed to use one, so a process that searches starts
without torch.
"""

import dataclasses
import json
import logging
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path

from index.component import Component
from index.errors import ConfigError, MissingDependencyError
from retrieval.config import digest_of
from retrieval.encoders.cache import cached_component
from retrieval.encoders.config import EncoderConfig
from retrieval.encoders.machine import versions
from retrieval.encoders.model_files import ModelFiles, check_positions
from retrieval.encoders.token_inputs import TokenFormat, TokenInputs

_log = logging.getLogger(__name__)

FORMAT = 1
"""Raised when the same model gives another export than before."""

_GRAPH = "model.onnx"
_TOKENIZER = "tokenizer.json"
_ABOUT = "about.json"
_EXPORTERS = ("torch", "transformers", "sentence-transformers", "onnx", "onnxscript")


@dataclass(frozen=True, slots=True)
class ExportedModel:
    """An export on disk. window: of the model itself, tokens. positions: most that it can take, None = unknown."""

    folder: Path
    form: TokenFormat
    window: int
    positions: int | None
    dim: int

    @property
    def graph(self) -> Path:
        """The ONNX file."""
        return self.folder / _GRAPH

    def tokenizer(self) -> str:
        """Return the tokenizer as `tokenizers.Tokenizer.from_str` reads it."""
        return (self.folder / _TOKENIZER).read_text(encoding="utf-8")


def exported(config: EncoderConfig, files: ModelFiles, *, int8: bool) -> ExportedModel:
    """Return the model's export from the cache, made first where it is not there.

    Raises ConfigError where the model cannot be exported (the message says why), MissingDependencyError without the
    `onnx` extra. Cost: the export of a 90 MB model takes 10 s and 1 GB of memory, once; then 0.05 s to verify it.
    """
    facts = {"model": model_digest(files), "format": FORMAT, "exporters": versions(_EXPORTERS)}
    if int8:
        facts |= {"weights": "int8", "quantiser": versions(["onnxruntime"])}
        component = _cached("onnx-int8", facts, partial(_fill_int8, config, files))
    else:
        component = _cached("onnx", facts, partial(_fill, config, files))
    return _open(component.folder)


def exported_inputs(export: ExportedModel, config: EncoderConfig) -> TokenInputs:
    """Return how texts reach an exported model. Raises ConfigError where it has fewer positions than max_tokens."""
    if config.max_tokens is not None:
        check_positions(config.max_tokens, export.positions)
    return TokenInputs(export.tokenizer(), export.form, config.max_tokens or export.window)


def model_digest(files: ModelFiles) -> str:
    """Return the name of a model's content: hex, over every file that can change a vector."""
    return digest_of(files.digests())


def _cached(kind: str, facts: dict[str, object], fill: Callable[[Path], Mapping[str, int]]) -> Component:
    return cached_component(f"{kind}-{digest_of(facts)}", kind, facts, fill)


def _open(folder: Path) -> ExportedModel:
    about = json.loads((folder / _ABOUT).read_text(encoding="utf-8"))
    form = about.pop("form")
    return ExportedModel(folder, form=TokenFormat(**form | {"names": tuple(form["names"])}), **about)


def _fill(config: EncoderConfig, files: ModelFiles, folder: Path) -> dict[str, int]:
    """Export in float32."""
    _need("onnx", "onnxscript", "onnxruntime")
    started = time.monotonic()
    _log.info("exporting encoder %s to ONNX: once per model, some seconds", config.path)
    from retrieval.encoders import onnx_export, sentence_transformer  # noqa: PLC0415  torch only when exporting

    model = sentence_transformer.load(dataclasses.replace(config, max_tokens=None, device="cpu"), files, "float32")
    try:
        facts = onnx_export.export(model, folder / _GRAPH)
    except ValueError as error:
        raise ConfigError(
            f"encoder.path {config.path!r}: this model cannot be exported to ONNX ({error}): "
            "set encoder.backend = 'torch', or 'auto'"
        ) from error
    about = dataclasses.asdict(facts)
    (folder / _TOKENIZER).write_text(about.pop("tokenizer"), encoding="utf-8")
    (folder / _ABOUT).write_text(json.dumps(about, indent=1), encoding="utf-8")
    _log.info("exported encoder %s in %.1f s", config.path, time.monotonic() - started)
    return {"dim": facts.dim, "window": facts.window}


def _fill_int8(config: EncoderConfig, files: ModelFiles, folder: Path) -> dict[str, int]:
    """Quantise the float32 export."""
    _need("onnx", "onnxruntime")
    full = exported(config, files, int8=False)
    started = time.monotonic()
    from retrieval.encoders.onnx_export import quantise  # noqa: PLC0415  only when exporting

    quantise(full.graph, folder / _GRAPH)
    for name in (_ABOUT, _TOKENIZER):
        shutil.copyfile(full.folder / name, folder / name)
    _log.info("quantised encoder %s to int8 in %.1f s", config.path, time.monotonic() - started)
    return {"dim": full.dim, "window": full.window}


def _need(*packages: str) -> None:
    missing = [package for package in packages if find_spec(package) is None]
    if missing:
        raise MissingDependencyError(f"exporting a model needs {missing[0]}: install grapnel[onnx]")
