import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from index.errors import ConfigError, RequestError
from retrieval.encoders import EncoderConfig, fingerprint, open_encoder, passage_text
from retrieval.encoders.model_files import find_model
from retrieval.types import Passage, Query


def _passage(text: str, title: str = "") -> Passage:
    return Passage("d", 0, 0, len(text), text, title)


@pytest.fixture
def model_folder(tmp_path: Path) -> Path:
    """A folder that looks like a model to everything that does not load weights."""
    folder = tmp_path / "model"
    (folder / "1_Pooling").mkdir(parents=True)
    modules = [
        {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
        {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
        {"idx": 2, "name": "2", "path": "2_Normalize", "type": "sentence_transformers.models.Normalize"},
    ]
    files = {
        "modules.json": modules,
        "config.json": {"max_position_embeddings": 512},
        "tokenizer_config.json": {"model_max_length": 384},
        "config_sentence_transformers.json": {"prompts": {"query": "ask: ", "document": "read: ", "sts": "same? "}},
        "1_Pooling/config.json": {"pooling_mode": "mean"},
    }
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content))
    (folder / "model.safetensors").write_bytes(b"weights")
    return folder


def _config(folder: Path, **keys: object) -> EncoderConfig:
    return EncoderConfig(path=str(folder), **keys)  # type: ignore[arg-type]  # keys vary by test


@pytest.mark.parametrize(
    "keys",
    [
        {"kind": "glove"},
        {"kind": "external"},
        {"kind": "external", "dim": 0},
        {"kind": "hashing", "query_prompt": "q"},
        {"kind": "hashing", "max_tokens": 64},
        {"kind": "external", "dim": 3, "normalize": False},
        {"path": ""},
        {"max_tokens": 2},
        {"batch_tokens": 0},
    ],
)
def test_a_value_that_cannot_work_is_refused(keys):
    with pytest.raises(ConfigError, match=r"^encoder\."):
        EncoderConfig(**keys)


@pytest.mark.parametrize("path", ["./nowhere", "/nowhere/at/all", "~/nowhere", "a/b/c"])
def test_a_missing_folder_is_named(path):
    with pytest.raises(ConfigError, match="no folder"):
        fingerprint(EncoderConfig(path=path))


def test_a_hub_name_that_cannot_be_downloaded_is_a_config_error(monkeypatch, tmp_path):
    code = (
        "from retrieval.encoders import EncoderConfig, fingerprint\n"
        "from index.errors import ConfigError\n"
        "try: fingerprint(EncoderConfig(path='nobody/no-such-model'))\n"
        "except ConfigError as error: print(error)\n"
    )
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "'nobody/no-such-model'" in out
    assert "give its folder" in out


def test_a_model_declares_its_prompts_window_and_normalisation(model_folder):
    files = find_model(_config(model_folder))
    assert files.prompt(None, "query") == "ask: "
    assert files.prompt("", "query") == ""
    assert files.prompt(None, "document") == "read: "
    assert files.window == 384
    assert files.normalizes


def test_the_windows_order_of_precedence(model_folder):
    (model_folder / "config.json").write_text('{"max_position_embeddings": 300}')
    assert find_model(_config(model_folder)).window == 300
    (model_folder / "sentence_bert_config.json").write_text('{"max_seq_length": 128}')
    assert find_model(_config(model_folder)).window == 128
    assert find_model(_config(model_folder, max_tokens=64)).window == 64


def test_a_tokenizer_without_limit_leaves_the_window_unknown(model_folder):
    (model_folder / "config.json").write_text("{}")
    (model_folder / "tokenizer_config.json").write_text('{"model_max_length": 1000000000000000019884624838656}')
    assert find_model(_config(model_folder)).window is None


@pytest.mark.parametrize("place", [".", "2_Dense"])
def test_pickled_weights_without_safetensors_are_refused(model_folder, place):
    (model_folder / place).mkdir(exist_ok=True)
    (model_folder / place / "pytorch_model.bin").write_bytes(b"pickle")
    if place == ".":
        find_model(_config(model_folder))  # safetensors beside it: the pickle is never read
        (model_folder / "model.safetensors").unlink()
    with pytest.raises(ConfigError, match="pickled"):
        find_model(_config(model_folder))


def test_what_a_trainer_leaves_in_a_checkpoint_is_no_weight(model_folder):
    for name in ("training_args.bin", "optimizer.pt", "rng_state.pth"):
        (model_folder / name).write_bytes(b"pickle")
    find_model(_config(model_folder))


def test_normalisation_of_the_model_cannot_be_switched_off(model_folder):
    with pytest.raises(ConfigError, match="normalize"):
        find_model(_config(model_folder, normalize=False))


def test_broken_model_json_is_named(model_folder):
    (model_folder / "modules.json").write_text("{")
    with pytest.raises(ConfigError, match=r"modules\.json"):
        fingerprint(_config(model_folder))


@pytest.mark.parametrize(
    "keys",
    [{"dim": 64}, {"max_tokens": 100}, {"query_prompt": "q"}, {"document_prompt": ""}],
)
def test_settings_that_change_vectors_change_the_fingerprint(model_folder, keys):
    assert fingerprint(_config(model_folder, **keys)) != fingerprint(_config(model_folder))


def test_a_truncation_that_the_model_declares_changes_the_fingerprint(model_folder):
    before = fingerprint(_config(model_folder))
    declared = model_folder / "config_sentence_transformers.json"
    declared.write_text(json.dumps({"truncate_dim": 16, **json.loads(declared.read_text())}))
    assert fingerprint(_config(model_folder)) != before


@pytest.mark.parametrize(
    "name", ["model.safetensors", "tokenizer_config.json", "config.json", "1_Pooling/config.json", "vocab.txt"]
)
def test_files_that_change_vectors_change_the_fingerprint(model_folder, name):
    before = fingerprint(_config(model_folder))
    with (model_folder / name).open("a") as file:
        file.write(" ")
    assert fingerprint(_config(model_folder)) != before


def test_what_does_not_change_vectors_keeps_the_fingerprint(model_folder, tmp_path):
    before = fingerprint(_config(model_folder))
    assert len(before) == 32
    for name in ("README.md", "data_config.json", "trainer_state.json", "report.json", "onnx/model.onnx"):
        (model_folder / name).parent.mkdir(exist_ok=True)
        (model_folder / name).write_text("anything")
    assert fingerprint(_config(model_folder)) == before
    assert fingerprint(_config(model_folder, device="cpu", batch_tokens=99)) == before
    declared = model_folder / "config_sentence_transformers.json"
    declared.write_text(json.dumps({"__version__": {"torch": "9"}, **json.loads(declared.read_text())}))
    assert fingerprint(_config(model_folder)) == before
    # what the model declares, given explicitly; and another place
    moved = model_folder.rename(tmp_path / "moved")
    assert fingerprint(_config(moved, query_prompt="ask: ", document_prompt="read: ", normalize=True)) == before


def test_kinds_and_dimensions_have_different_fingerprints():
    configs = [
        EncoderConfig(kind="hashing"),
        EncoderConfig(kind="hashing", dim=512),
        EncoderConfig(kind="external", dim=512),
    ]
    assert len({fingerprint(config) for config in configs}) == 3
    assert fingerprint(EncoderConfig(kind="hashing", dim=4096)) == fingerprint(EncoderConfig(kind="hashing"))
    assert fingerprint(EncoderConfig(kind="external", dim=512)) == "external-512"


def test_an_external_encoder_refuses_to_encode_and_says_what_to_give():
    encoder = open_encoder(EncoderConfig(kind="external", dim=7))
    assert encoder.dim == 7
    with pytest.raises(RequestError, match=r"Query\.vectors"):
        encoder.encode_queries([Query("q", "text")])
    with pytest.raises(RequestError, match=r"Document\.vectors"):
        encoder.encode_passages([_passage("text")])


def test_passage_text_is_title_space_text():
    assert passage_text(_passage("body", "Title")) == "Title body"
    assert passage_text(_passage("body")) == "body"


def test_nothing_but_a_model_imports_torch():
    code = (
        "import sys\n"
        "from retrieval.encoders import EncoderConfig, fingerprint, open_encoder\n"
        "from retrieval.chunking import Chunker, ChunkingConfig\n"
        "from retrieval.types import Document, Query\n"
        "from retrieval.vector_store import VectorStore\n"
        "open_encoder(EncoderConfig(kind='hashing')).encode_queries([Query('q', 'some words')])\n"
        "open_encoder(EncoderConfig(kind='external', dim=4))\n"
        "fingerprint(EncoderConfig())\n"
        "Chunker(ChunkingConfig('tokens'), EncoderConfig()).spans(Document('d', 'word ' * 999))\n"
        "print('torch' in sys.modules, 'transformers' in sys.modules)\n"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout == "False False\n"


def test_the_packaged_model_is_found_by_both_names():
    names = ("all-MiniLM-L6-v2", "sentence-transformers/all-MiniLM-L6-v2")
    short, long = (find_model(EncoderConfig(path=name)) for name in names)
    assert short.folder == long.folder
    assert (short.folder / "model.safetensors").stat().st_size > 80_000_000
    assert short.window == 256


def test_vectors_have_the_documented_form():
    encoder = open_encoder(EncoderConfig(kind="hashing", dim=64))
    vectors = encoder.encode_passages([_passage("some words"), _passage("")])
    assert vectors.shape == (2, 64)
    assert vectors.dtype == np.float32
    assert vectors.flags.c_contiguous
    assert encoder.encode_passages([]).shape == (0, 64)
