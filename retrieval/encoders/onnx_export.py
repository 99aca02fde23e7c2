"""Our own ONNX export of a whole sentence-transformers model, in float32 and with int8 weights.

One graph: transformer, pooling, projections and scaling; batch and sequence are dynamic.
"""

import contextlib
import logging
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from retrieval.encoders.model_inputs import is_plain, model_window, token_format
from retrieval.encoders.onnx_model import OUTPUT, onnx_errors, session
from retrieval.encoders.token_inputs import TokenFormat

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

Array = npt.NDArray[np.int64]

_OPSETS = (23, 20)
"""Tried in this order. 23 has attention as one operator, 10 to 20 % faster; its rotary embedding wants position tables
for the whole batch, which models with rotary positions do not give (onnxruntime 1.31), and then 20 spells both out.
"""

_AGREEMENT = 1e-3
"""Largest difference from torch that a fresh export may show, relative to the largest number in the vectors."""


@dataclass(frozen=True, slots=True)
class Exported:
    """What goes with a graph. tokenizer: serialised, as transformers set it up. The rest: see `ExportedModel`."""

    tokenizer: str
    form: TokenFormat
    window: int
    positions: int | None
    dim: int


def export(model: "SentenceTransformer", path: Path) -> Exported:
    """Write a model in float32 on the CPU as ONNX, and check it against torch on several shapes.

    Raises ValueError saying why this model cannot be exported. Cost: 7 s and 1 GB of memory for 90 MB of weights.
    """
    model.truncate_dim = None  # whoever uses the export truncates
    window, dim = model_window(model), model.get_embedding_dimension()
    reason = _obstacle(model)
    if reason is not None or window is None or dim is None:
        raise ValueError(reason or "it declares no window, or no dimension")
    form = token_format(model)
    # The exporter and the architectures it meets raise nearly anything; what matters is which model, and why.
    expected: tuple[type[Exception], ...] = (RuntimeError, ValueError, TypeError, AttributeError, LookupError)
    expected += onnx_errors()
    failures = []
    for opset in _OPSETS:
        try:
            _write(model, form.names, path, opset)
            _check(model, form.names, window, path)
            break
        except expected as error:
            failures.append(f"opset {opset}: {type(error).__name__}: {str(error)[:300]}")
    else:
        raise ValueError("; ".join(failures))
    tokenizer: Any = model.tokenizer
    positions = getattr(model.config, "max_position_embeddings", None)
    return Exported(tokenizer.backend_tokenizer.to_str(), form, window, positions, dim)


def quantise(graph: Path, path: Path) -> None:
    """Write an exported graph with int8 weights, one scale per output channel; activations are scaled at run time.

    One scale for a whole weight matrix instead costs far more: mean cosine .955 in place of .993 on MiniLM.
    """
    import onnx  # noqa: PLC0415  heavy imports wait until a model is exported

    with _quiet():
        from onnxruntime.quantization import QuantType, quantize_dynamic  # noqa: PLC0415

        model = onnx.load(graph)
        # The exporter has simplified the graph and inferred its shapes: without this note the quantiser logs advice.
        model.metadata_props.add(key="onnx.quant.pre_process", value="onnxruntime.quant")
        # Attention is left out by naming the others: the quantiser takes it for an older operator of that name.
        quantize_dynamic(
            model,
            path,
            weight_type=QuantType.QInt8,
            per_channel=True,
            op_types_to_quantize=["MatMul", "Gemm", "Gather"],
        )


def _obstacle(model: "SentenceTransformer") -> str | None:
    """Return why one graph over token ids cannot be this model; None where it can."""
    if not is_plain(model):
        return "its inputs are more than padded token ids"
    if any(getattr(module, "include_prompt", True) is False for module in model.modules()):
        return "its pooling leaves the prompt out"
    return None


def _write(model: "SentenceTransformer", names: Sequence[str], path: Path, opset: int) -> None:
    import torch  # noqa: PLC0415  already imported with the model

    class Whole(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, *tensors: torch.Tensor) -> torch.Tensor:
            vectors: torch.Tensor = self.model(dict(zip(names, tensors, strict=True)))["sentence_embedding"]
            return vectors

    sample = _sample(model, names, batch=2, width=9)
    dynamic = {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC}
    with _quiet(), torch.inference_mode(mode=False), torch.no_grad():
        program = torch.onnx.export(
            Whole(),
            tuple(map(torch.from_numpy, sample.values())),
            dynamo=True,
            dynamic_shapes=(tuple(dynamic for _ in names),),
            input_names=list(names),
            output_names=[OUTPUT],
            opset_version=opset,
            verbose=False,
        )
        assert program is not None, "with dynamo the exporter returns its program"
        program.save(path)


def _check(model: "SentenceTransformer", names: Sequence[str], window: int, path: Path) -> None:
    """Raise ValueError where the export does not do what the model does, whatever the shape."""
    import torch  # noqa: PLC0415  already imported with the model

    run = session(path, None)
    for batch, width in ((1, 1), (1, 5), (3, 17), (2, window)):
        sample = _sample(model, names, batch, width)
        with torch.inference_mode():
            tensors: Any = {name: torch.from_numpy(array) for name, array in sample.items()}
            expected = model(tensors)["sentence_embedding"].numpy()
        difference = np.abs(run.run([OUTPUT], sample)[0] - expected).max() / np.abs(expected).max()
        if not difference <= _AGREEMENT:
            raise ValueError(
                f"the export differs from the model by {difference:.1e} for {batch} texts of {width} tokens"
            )


def _sample(model: "SentenceTransformer", names: Sequence[str], batch: int, width: int) -> dict[str, Array]:
    """Return token ids, random but for their padding: the first text is complete, later ones are ever shorter."""
    tokenizer: Any = model.tokenizer
    ids = np.random.default_rng(width).integers(0, tokenizer.vocab_size, (batch, width))
    kept = np.arange(width) < np.maximum(1, width - 2 * np.arange(batch))[:, None]
    if tokenizer.padding_side == "left":
        kept = kept[:, ::-1]
    ids[~kept] = tokenizer.pad_token_id
    arrays = {"input_ids": ids, "attention_mask": kept.astype(np.int64), "token_type_ids": np.zeros_like(ids)}
    return {name: np.ascontiguousarray(arrays[name]) for name in names}


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporters' own advice from users: they can do nothing about it."""
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)
