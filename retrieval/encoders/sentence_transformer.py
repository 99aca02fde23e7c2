"""Any sentence-transformers model, run by torch."""

import logging
from collections.abc import Mapping
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np

from index.errors import ConfigError
from index.threads import threads
from index.types import Vectors
from retrieval.encoders.config import Backend, EncoderConfig
from retrieval.encoders.model_files import ModelFiles, check_positions
from retrieval.encoders.model_inputs import model_inputs
from retrieval.encoders.token_inputs import Prepared, Rows

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

_log = logging.getLogger(__name__)

_CPU_BATCH_TOKENS = 4_096
_BATCH_TOKENS = 16_384

_HALF: Mapping[Backend, str] = {"torch-bf16": "bfloat16", "torch-fp16": "float16"}


class TorchModel:
    """A loaded sentence-transformers model; see `retrieval.encoders.model_encoder.TextModel`.

    Only safetensors weights are read, and no code of the model's own is run. Weights are float32 whatever they were
    saved as, or the half precision that the backend names; what follows the transformer (pooling, projection,
    scaling) is always float32. `threads` sets torch's threads for the whole process.
    Raises ConfigError where the model cannot be loaded or has fewer positions than max_tokens.
    """

    def __init__(self, config: EncoderConfig, files: ModelFiles, backend: Backend) -> None:
        import torch  # noqa: PLC0415  heavy imports wait until a model is opened

        wanted = config.threads or threads()
        if wanted is not None:
            torch.set_num_threads(wanted)
        self._model = load(config, files, _HALF.get(backend, "float32"))
        self._inference = torch.inference_mode
        self._tensor = torch.from_numpy
        self.inputs = model_inputs(self._model)
        self.batch_tokens = _CPU_BATCH_TOKENS if self._model.device.type == "cpu" else _BATCH_TOKENS
        self.dim = model_dim(self._model, config)

    def forward(self, prepared: Prepared, rows: Rows, task: str) -> Vectors:
        """See TextModel."""
        features = {"modality": "text"} | {
            name: self._tensor(value).to(self._model.device) if isinstance(value, np.ndarray) else value
            for name, value in prepared.features(rows).items()
        }
        with self._inference():
            output: Any = self._model(features, task=task)["sentence_embedding"]
            vectors: Vectors = output.float().cpu().numpy()
        return vectors


def load(config: EncoderConfig, files: ModelFiles, dtype: str) -> "SentenceTransformer":
    """Return the model with its transformer in `dtype`, in evaluation mode. Raises ConfigError."""
    import torch  # noqa: PLC0415  heavy imports wait until a model is opened

    kwargs: dict[str, Any] = {"use_safetensors": True, "dtype": getattr(torch, dtype)}
    half = dtype != "float32"
    if half and find_spec("flash_attn") is not None and torch.cuda.is_available() and config.device != "cpu":
        # With it sentence-transformers leaves the padding out. Not every architecture has it.
        try:
            model = _load(config, files, kwargs | {"attn_implementation": "flash_attention_2"})
        except ConfigError as error:
            _log.info("no flash attention: %s", error)
            model = _load(config, files, kwargs)
    else:
        model = _load(config, files, kwargs)
    if half:
        _widen(model)
    model.eval()
    if config.max_tokens is not None:
        positions = getattr(model.config, "max_position_embeddings", None)
        check_positions(config.max_tokens, positions)
        model.max_seq_length = config.max_tokens
    _log.info("loaded encoder %s on %s, window %s tokens", config.path, model.device, model.max_seq_length)
    return model


def model_dim(model: "SentenceTransformer", config: EncoderConfig) -> int:
    """Return the whole length of a model's vectors, any truncation of its own left out. Raises ConfigError."""
    model.truncate_dim = None
    dim = model.get_embedding_dimension()
    if dim is None:
        raise ConfigError(f"model {config.path!r} does not say its dimension: add a pooling module")
    return dim


def _load(config: EncoderConfig, files: ModelFiles, kwargs: dict[str, Any]) -> "SentenceTransformer":
    from safetensors import SafetensorError  # noqa: PLC0415  heavy imports wait until a model is opened
    from sentence_transformers import SentenceTransformer  # noqa: PLC0415
    from transformers.utils import logging as progress  # noqa: PLC0415

    shown = progress.is_progress_bar_enabled()
    progress.disable_progress_bar()  # type: ignore[no-untyped-call]  # transformers leaves it untyped
    try:
        return SentenceTransformer(
            str(files.folder),
            device=config.device,
            trust_remote_code=False,
            local_files_only=True,
            model_kwargs=kwargs,
        )
    except (OSError, ValueError, RuntimeError, ImportError, AssertionError, SafetensorError) as error:
        raise ConfigError(
            f"encoder.path {config.path!r}: the model in {files.folder} cannot be loaded ({error}): "
            "give a complete sentence-transformers model without code of its own"
        ) from error
    finally:
        if shown:
            progress.enable_progress_bar()  # type: ignore[no-untyped-call]  # transformers leaves it untyped


def _widen(model: "SentenceTransformer") -> None:
    """Let everything after a half-precision transformer compute in float32: it costs nothing and keeps unit length."""
    from sentence_transformers.base.modules import Transformer  # noqa: PLC0415  already imported with the model

    def widen(_module: object, _arguments: object, features: dict[str, Any]) -> dict[str, Any]:
        return features | {"token_embeddings": features["token_embeddings"].float()}

    first = model[0]
    if isinstance(first, Transformer):
        first.register_forward_hook(widen)
    for module in list(model)[1:]:
        module.float()
