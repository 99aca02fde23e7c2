"""A model exported to ONNX, run by onnxruntime on a CPU."""

from pathlib import Path
from typing import TYPE_CHECKING

from index.errors import ConfigError
from index.threads import threads
from index.types import Vectors
from retrieval.encoders.config import Backend, EncoderConfig
from retrieval.encoders.exported_model import exported, exported_inputs
from retrieval.encoders.model_files import ModelFiles
from retrieval.encoders.token_inputs import Prepared, Rows

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

OUTPUT = "vectors"
"""Name of the graph's output."""

_BATCH_TOKENS = 2_048
"""Measured on two cores: 1,024 to 4,096 are equal, 16,384 is 20 % slower; a query waits for one pass of bulk work."""


class OnnxModel:
    """An onnxruntime session; see `retrieval.encoders.model_encoder.TextModel`. No torch once the export is cached.

    Raises ConfigError where the model cannot be exported or run, or has fewer positions than max_tokens.
    """

    batch_tokens = _BATCH_TOKENS

    def __init__(self, config: EncoderConfig, files: ModelFiles, backend: Backend) -> None:
        export = exported(config, files, int8=backend == "onnx-int8")
        self.inputs = exported_inputs(export, config)
        self.dim = export.dim
        try:
            self._session = session(export.graph, config.threads or threads())
        except onnx_errors() as error:
            raise ConfigError(f"onnxruntime cannot run model {config.path!r} ({error}): set another backend") from error

    def forward(self, prepared: Prepared, rows: Rows, task: str) -> Vectors:
        """See TextModel."""
        del task  # a plain model has one tower
        try:
            (vectors,) = self._session.run([OUTPUT], prepared.features(rows))
        except onnx_errors() as error:
            raise RuntimeError(f"onnxruntime failed on {len(rows)} texts: {error}") from error
        return vectors  # type: ignore[no-any-return]  # onnxruntime leaves it untyped


def session(graph: Path, intra_op_threads: int | None) -> "InferenceSession":
    """Open an ONNX file for the CPU. intra_op_threads: None = one for each core. Raises one of `onnx_errors`."""
    from onnxruntime import InferenceSession, SessionOptions  # noqa: PLC0415  heavy imports wait for a model

    options = SessionOptions()
    options.intra_op_num_threads = intra_op_threads or 0
    options.inter_op_num_threads = 1
    options.log_severity_level = 4  # it writes to stderr by itself what it raises anyway
    return InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])


def onnx_errors() -> tuple[type[Exception], ...]:
    """Return what onnxruntime raises on a graph it cannot run: its errors have no common class of their own."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state  # noqa: PLC0415  heavy imports wait for a model

    return (state.Fail, state.InvalidGraph, state.InvalidArgument, state.NotImplemented, state.RuntimeException)
