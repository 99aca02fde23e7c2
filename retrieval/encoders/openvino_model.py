"""A model exported to ONNX, run by OpenVINO on a CPU."""

from index.threads import threads
from index.types import Vectors
from retrieval.encoders.config import Backend, EncoderConfig
from retrieval.encoders.exported_model import exported, exported_inputs
from retrieval.encoders.model_files import ModelFiles
from retrieval.encoders.token_inputs import Prepared, Rows

_BATCH_TOKENS = 2_048
"""Measured on two cores: 1,024 to 4,096 are equal, 16,384 is 20 % slower; a query waits for one pass of bulk work."""

_KERNELS = 256
"""Kernels kept for shapes that come again. With OpenVINO's own 5,000, a process that meets batches of all sizes went
from .2 to .6 GiB and on; with this many it stays at .34, and is as fast (docs/log.md)."""


class OpenVinoModel:
    """A compiled OpenVINO model; see `retrieval.encoders.model_encoder.TextModel`. No torch once the export is cached.

    Raises ConfigError where the model cannot be exported or has fewer positions than max_tokens.
    """

    batch_tokens = _BATCH_TOKENS

    def __init__(self, config: EncoderConfig, files: ModelFiles, backend: Backend) -> None:
        from openvino import Core  # noqa: PLC0415  heavy imports wait until a model is opened

        export = exported(config, files, int8=False)
        self.inputs = exported_inputs(export, config)
        self.dim = export.dim
        options: dict[str, object] = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": "bf16" if backend == "openvino-bf16" else "f32",
            "CPU_RUNTIME_CACHE_CAPACITY": _KERNELS,
        }
        wanted = config.threads or threads()
        if wanted is not None:
            options["INFERENCE_NUM_THREADS"] = wanted
        core = Core()
        self._request = core.compile_model(core.read_model(export.graph), "CPU", options).create_infer_request()

    def forward(self, prepared: Prepared, rows: Rows, task: str) -> Vectors:
        """See TextModel."""
        del task  # a plain model has one tower
        self._request.infer(prepared.features(rows), share_inputs=True)
        vectors: Vectors = self._request.get_output_tensor(0).data.copy()  # the next pass reuses the memory
        return vectors
