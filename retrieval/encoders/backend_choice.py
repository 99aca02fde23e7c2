"""`backend = "auto"`: every backend that can run here is measured once, and the fastest that is near enough is kept.

Near enough is judged against torch in float32 on real text, see `retrieval.encoders.self_check`. The outcome is kept in
the cache as JSON under the machine and the model, so that later openings read one small file.
"""

import dataclasses
import json
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

from index.durable import write_json_atomic
from index.errors import ConfigError, GrapnelError
from retrieval.config import digest_of
from retrieval.encoders.backends import BACKENDS, check_backend, default_device, open_model
from retrieval.encoders.cache import cache_folder, exclusive, writable_cache
from retrieval.encoders.config import Backend, EncoderConfig
from retrieval.encoders.exported_model import model_digest
from retrieval.encoders.machine import machine_facts
from retrieval.encoders.model_files import ModelFiles

if TYPE_CHECKING:
    from retrieval.encoders.model_encoder import ModelEncoder
    from retrieval.encoders.self_check import Outcome

_log = logging.getLogger(__name__)

FORMAT = 2
"""Raised when backends, sample, thresholds or timing change, so that machines measure again."""

LEAST_MEAN_COSINE = 0.99
LEAST_OVERLAP = 0.95
"""What a backend must reach on the sample, against torch in float32, to be chosen. onnx-int8 of MiniLM has an overlap
of .90 to .93 and lost .0038 nDCG@10 on cranfield [-.0031, .0108]; bfloat16 has .99 and lost nothing (docs/log.md)."""

_TIE = 0.9
"""Backends this near to the fastest on bulk text are equal there, and the shorter time of a single query decides."""

_MOST_EXPORTED_BYTES = 1 << 30
"""Larger models are exported only when asked for by name: it takes minutes and their size again on disk."""


@dataclass(frozen=True, slots=True)
class Measured:
    """One backend on the sample.

    texts_per_s: passages in bulk. query_ms: median time of one query. The rest compares with torch in float32: cosines
    over all texts, and the mean share of equal top-10 passages.
    """

    texts_per_s: float
    query_ms: float
    mean_cosine: float
    least_cosine: float
    overlap: float

    @property
    def passes(self) -> bool:
        """Whether the vectors are near enough."""
        return self.mean_cosine >= LEAST_MEAN_COSINE and self.overlap >= LEAST_OVERLAP


@dataclass(frozen=True, slots=True)
class BackendChoice:
    """What runs a model here, and what was measured to say so.

    device: where it was measured. measured: always holds "torch", the reference. excluded: why others were not tried.
    """

    backend: Backend
    device: str
    measured: Mapping[str, Measured]
    excluded: Mapping[str, str]

    @property
    def summary(self) -> str:
        """One line for people, such as "onnx-int8: 3.2x torch, 8.1x for one query, cosine .9991, ..."."""
        one, torch = self.measured[self.backend], self.measured["torch"]
        bulk, query = one.texts_per_s / torch.texts_per_s, torch.query_ms / one.query_ms
        return (
            f"{self.backend}: {bulk:.1f}x torch, {query:.1f}x for one query, cosine {one.mean_cosine:.4f} "
            f"(least {one.least_cosine:.4f}), top-10 overlap {one.overlap:.2f}"
        )


def choose(config: EncoderConfig, files: ModelFiles) -> BackendChoice:
    """Return the backend to run a model with, and for a lossy one asked for by name how near it is to float32.

    Raises ConfigError where the model cannot be loaded at all, and where the backend asked for cannot run it.
    Cost: the first time on a machine about 30 s for a small model, its export included; then a small file is read.
    """
    choice = _recorded(cache_folder(), config, files)
    if choice is None:
        folder = writable_cache(cache_folder())
        facts = _facts(config, files, config.backend)
        with exclusive(folder, _name(facts)):
            choice = _recorded(folder, config, files)  # another process may have measured meanwhile
            if choice is None:
                choice = _measure(config, files)
                record = {"facts": facts, "choice": dataclasses.asdict(choice)}
                write_json_atomic(folder / _name(facts), record, point="choice")
    _log.info("encoder %s runs on %s", config.path, choice.summary)
    if not choice.measured[choice.backend].passes:
        _log.warning(
            "encoder.backend %r is far from float32 on this model (mean cosine %.4f, top-10 overlap %.2f; expected at "
            "least %.2f and %.2f): 'auto' would take another",
            choice.backend,
            choice.measured[choice.backend].mean_cosine,
            choice.measured[choice.backend].overlap,
            LEAST_MEAN_COSINE,
            LEAST_OVERLAP,
        )
    return choice


def _recorded(folder: Path, config: EncoderConfig, files: ModelFiles) -> BackendChoice | None:
    """Return what was measured for this backend, or for it among all others by "auto"."""
    for asked in dict.fromkeys((config.backend, "auto")):
        facts = _facts(config, files, asked)
        choice = _read(folder / _name(facts), facts)
        if choice is not None and config.backend == "auto":
            return choice
        if choice is not None and config.backend in choice.measured:
            return dataclasses.replace(choice, backend=cast("Backend", config.backend))
    return None


def _facts(config: EncoderConfig, files: ModelFiles, asked: str) -> dict[str, object]:
    """Return what a record depends on, as JSON values."""
    return {
        "format": FORMAT,
        "machine": machine_facts(config),
        "model": model_digest(files),
        "asked": asked,
        "settings": [config.dim, config.max_tokens, config.batch_tokens],
    }


def _name(facts: dict[str, object]) -> str:
    return f"choice-{digest_of(facts)}.json"


def _read(path: Path, facts: Mapping[str, object]) -> BackendChoice | None:
    """Return a recorded choice; None where there is none, or it is damaged or about something else."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        choice = record["choice"]
        measured = {name: Measured(**values) for name, values in choice["measured"].items()}
        found = BackendChoice(choice["backend"], choice["device"], measured, choice["excluded"])
        if record["facts"] == facts and {found.backend, "torch"} <= measured.keys() <= set(BACKENDS):
            return found
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        _log.warning("%s is unreadable (%s): measuring again", path, error)
    return None


def _measure(config: EncoderConfig, files: ModelFiles) -> BackendChoice:
    from retrieval.encoders import self_check  # noqa: PLC0415  only measuring needs it

    started = time.monotonic()
    _log.info("measuring what runs encoder %s fastest: once for this machine and model, about 30 s", config.path)
    device = config.device or default_device(config.backend)
    config = dataclasses.replace(config, device=device)
    encoder = _opened(config, files, "torch")
    texts = self_check.fitted(self_check.sample(), encoder)
    reference = self_check.run(encoder, texts)
    del encoder  # its memory is the next one's
    measured = {"torch": _compared(reference, reference)}
    excluded: dict[str, str] = {}
    for backend in BACKENDS:
        if backend == "torch" or config.backend not in {"auto", backend}:
            continue
        try:
            check_backend(backend, device)
            if config.backend == "auto":
                _check_size(backend, files)
            outcome = self_check.run(_opened(config, files, backend), texts)
        except (GrapnelError, RuntimeError) as error:  # the runtimes' own errors, out of memory among them
            if config.backend != "auto":
                raise
            excluded[backend] = str(error)
            _log.info("backend %s is left out: %s", backend, error)
        else:
            measured[backend] = _compared(outcome, reference)
            _log.info("measured %s", BackendChoice(backend, device, measured, {}).summary)
    chosen = fastest(measured) if config.backend == "auto" else config.backend
    _log.info("measured %d backends in %.0f s", len(measured), time.monotonic() - started)
    return BackendChoice(chosen, device, measured, excluded)


def fastest(measured: Mapping[str, Measured]) -> Backend:
    """Return the fastest backend on bulk text that passes; among those within 10 % of it, the fastest on one query."""
    passing = {name: one for name, one in measured.items() if one.passes or name == "torch"}
    least = _TIE * max(one.texts_per_s for one in passing.values())
    near = {name: one for name, one in passing.items() if one.texts_per_s >= least}
    return cast("Backend", min(near, key=lambda name: near[name].query_ms))


def _opened(config: EncoderConfig, files: ModelFiles, backend: Backend) -> "ModelEncoder":
    from retrieval.encoders.model_encoder import ModelEncoder  # noqa: PLC0415  it imports this module

    return ModelEncoder(config, files, "", open_model(config, files, backend), backend)


def _check_size(backend: Backend, files: ModelFiles) -> None:
    size = files.weights_bytes()
    if not backend.startswith("torch") and size > _MOST_EXPORTED_BYTES:
        raise ConfigError(
            f"the model has {size / 1e9:.1f} GB of weights, more than 'auto' exports: set encoder.backend = {backend!r}"
        )


def _compared(outcome: "Outcome", reference: "Outcome") -> Measured:
    from retrieval.encoders.self_check import agreement  # noqa: PLC0415  only measuring needs it

    near = agreement(outcome, reference)
    return Measured(outcome.texts_per_s, outcome.query_ms, near.mean_cosine, near.least_cosine, near.overlap)
