# ruff: noqa: PLC0415  torch takes seconds to import: only when these tests run
"""Backends on a tiny model: the same vectors as torch, exports that are reused, choices that are remembered."""

import json
import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from index.errors import ConfigError
from retrieval.encoders import EncoderConfig, open_encoder, self_check
from retrieval.encoders.backend_choice import BackendChoice
from retrieval.encoders.cache import cache_folder
from retrieval.encoders.machine import has_bfloat16
from retrieval.encoders.model_encoder import ModelEncoder
from retrieval.types import Query

pytest.importorskip("onnxruntime", reason="the onnx extra is not installed")
pytest.importorskip("onnxscript", reason="the onnx extra is not installed")

WORDS = [f"word{number}" for number in range(40)] + ["ask", "read", ":", "."]
TEXTS = [
    "",
    "word1",
    "word2 word3 word4 .",
    "nothing known here",
    " ".join(WORDS[3:] * 3),
    "word5 . " * 4,
    "word6 word7 " * 400,
    "   " * 999 + "word8",
]
PROMPTS = {"query": "ask : ", "document": "read : ", "sts": "word9 "}


@pytest.fixture(scope="session")
def save(tiny_transformer):
    """Save a tiny random encoder of a kind in a folder; returns where."""

    def saved(folder: Path, kind: str) -> Path:
        from sentence_transformers import SentenceTransformer
        from sentence_transformers.base.modules import Normalize, Transformer
        from sentence_transformers.sentence_transformer.modules import Dense, Pooling, StaticEmbedding

        tokenizer = tiny_transformer(folder / "base", WORDS, "llama" if kind == "decoder" else "bert")
        first = Transformer(str(folder / "base"))
        modules = {
            "plain": lambda: [first, Pooling(32), Normalize()],
            "decoder": lambda: [first, Pooling(32, "lasttoken"), Dense(32, 16), Normalize()],
            "prompt outside the mean": lambda: [first, Pooling(32, include_prompt=False)],
            "static": lambda: [StaticEmbedding(tokenizer, embedding_dim=32)],
        }[kind]()
        model = SentenceTransformer(modules=modules, device="cpu", prompts=PROMPTS)
        model.save(str(folder / "model"), create_model_card=False)
        return folder / "model"

    return saved


@pytest.fixture(scope="module")
def cache(tmp_path_factory) -> Path:
    """A cache that the tests of this file share: an export takes seconds."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def _use_cache(monkeypatch, cache):
    monkeypatch.setenv("GRAPNEL_CACHE", str(cache))
    # Fewer texts to measure with: what is chosen among two-layer models means nothing here anyway.
    monkeypatch.setattr(self_check, "PASSAGES", 36)
    monkeypatch.setattr(self_check, "QUERIES", 12)


@pytest.fixture(scope="module")
def plain(save, tmp_path_factory) -> Path:
    return save(tmp_path_factory.mktemp("plain"), "plain")


@pytest.fixture(scope="module")
def decoder(save, tmp_path_factory) -> Path:
    return save(tmp_path_factory.mktemp("decoder"), "decoder")


def _open(folder: Path, backend: str, **keys: object) -> ModelEncoder:
    encoder = open_encoder(EncoderConfig(path=str(folder), device="cpu", backend=backend, **keys))  # type: ignore[arg-type]  # keys vary by test
    assert isinstance(encoder, ModelEncoder)
    return encoder


def _queries(texts: list[str], task: str = "search") -> list[Query]:
    return [Query(str(place), text, task) for place, text in enumerate(texts)]


def _exact() -> list[str]:
    from importlib.util import find_spec

    return ["onnx", *(["openvino"] if find_spec("openvino") else [])]


@pytest.mark.parametrize("model", ["plain", "decoder"])
@pytest.mark.parametrize("backend", _exact())
def test_float32_backends_are_torch_to_within_rounding(request, model, backend):
    folder = request.getfixturevalue(model)
    for keys in ({}, {"batch_tokens": 1}, {"max_tokens": 9, "dim": 8}):
        encoder, reference = _open(folder, backend, **keys), _open(folder, "torch", **keys)
        assert (encoder.backend, encoder.dim, encoder.window) == (backend, reference.dim, reference.window)
        found, expected = encoder.encode_texts(TEXTS), reference.encode_texts(TEXTS)
        assert found.vectors.dtype == np.float32
        assert found.truncated == expected.truncated == (3 if "max_tokens" in keys else 2)
        np.testing.assert_allclose(found.vectors, expected.vectors, atol=1e-4)
        for task in ("search", "sts"):
            queries = _queries(TEXTS, task)
            np.testing.assert_allclose(encoder.encode_queries(queries), reference.encode_queries(queries), atol=1e-4)
        assert encoder.token_count(TEXTS) == reference.token_count(TEXTS)
        assert encoder.encode_texts([]).vectors.shape == (0, encoder.dim)


@pytest.mark.parametrize("backend", ["onnx-int8", "torch-bf16"])
def test_lossy_backends_come_near_and_say_how_near(plain, backend):
    if backend == "torch-bf16" and not has_bfloat16():
        pytest.skip("this CPU has no bfloat16")
    encoder = _open(plain, backend)
    cosines = np.sum(encoder.encode_texts(TEXTS).vectors * _open(plain, "torch").encode_texts(TEXTS).vectors, axis=1)
    assert cosines.min() > 0.98
    np.testing.assert_allclose(np.linalg.norm(encoder.encode_texts(TEXTS).vectors, axis=1), 1, atol=1e-5)
    assert encoder.choice is not None
    assert encoder.choice.measured.keys() == {"torch", backend}
    assert encoder.choice.measured[backend].mean_cosine > 0.98
    assert encoder.choice.summary.startswith(f"{backend}: ")


def test_a_window_beyond_the_positions_is_refused(plain):
    with pytest.raises(ConfigError, match="40 positions"):
        _open(plain, "onnx", max_tokens=41)


def test_an_exported_model_needs_no_torch(plain):
    _open(plain, "onnx")
    code = (
        "import sys\n"
        "from retrieval.encoders import EncoderConfig, open_encoder\n"
        "from retrieval.types import Query\n"
        "encoder = open_encoder(EncoderConfig(path=sys.argv[1], backend='onnx', threads=1))\n"
        "print(encoder.encode_queries([Query('q', 'word1')]).shape)\n"
        "print(encoder.token_count(['word1']))\n"
        "print([name for name in ('torch', 'transformers', 'sentence_transformers', 'onnx') if name in sys.modules])\n"
    )
    out = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, str(plain)], capture_output=True, text=True, check=True
    )
    assert out.stdout == "(1, 32)\n[5]\n[]\n"
    assert out.stderr == ""


@pytest.fixture
def few(monkeypatch, cache, tmp_path) -> Path:
    """A cache of its own that holds the exports already made."""
    own = tmp_path / "cache"
    shutil.copytree(cache, own, ignore=shutil.ignore_patterns("choice-*", ".*"))
    monkeypatch.setenv("GRAPNEL_CACHE", str(own))
    return own


def test_a_damaged_export_is_made_again(plain, few, caplog):
    expected = _open(plain, "onnx").encode_texts(TEXTS).vectors
    for graph in few.glob("onnx-*/model.onnx"):
        content = bytearray(graph.read_bytes())
        content[len(content) // 2] ^= 1
        graph.write_bytes(content)
    with caplog.at_level(logging.WARNING):
        np.testing.assert_array_equal(_open(plain, "onnx").encode_texts(TEXTS).vectors, expected)
    assert "made again" in caplog.text


def test_another_models_weights_are_another_export(plain, cache, tmp_path):
    _open(plain, "onnx")
    before = set(cache.glob("onnx-*"))
    other = tmp_path / "other"
    shutil.copytree(plain, other)
    (other / "README.md").write_text("no part of the model")
    _open(other, "onnx")
    assert set(cache.glob("onnx-*")) == before
    with (other / "config.json").open("a") as file:
        file.write("\n")
    _open(other, "onnx")
    assert len(set(cache.glob("onnx-*")) - before) == 1


def test_two_processes_export_at_once(plain, tmp_path):
    code = (
        "import sys, logging\n"
        "logging.basicConfig(level=logging.INFO, format='%(message)s')\n"
        "from retrieval.encoders import EncoderConfig, open_encoder\n"
        "encoder = open_encoder(EncoderConfig(path=sys.argv[1], backend='onnx', threads=1))\n"
        "print(encoder.encode_texts(['word1 word2']).vectors.tolist())\n"
    )
    environment = {**os.environ, "GRAPNEL_CACHE": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"}
    children = [
        subprocess.Popen(
            [sys.executable, "-W", "error", "-c", code, str(plain)],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    outputs = [child.communicate(timeout=120) for child in children]
    assert [child.returncode for child in children] == [0, 0], outputs
    assert outputs[0][0] == outputs[1][0] != ""
    assert sum("exported encoder" in errors for _, errors in outputs) == 1
    assert len(list((tmp_path / "cache").glob("onnx-*"))) == 1
    assert not list((tmp_path / "cache").glob(".*.tmp"))


@pytest.mark.parametrize("kind", ["static", "prompt outside the mean"])
def test_a_model_that_cannot_be_exported_keeps_torch_and_says_why(kind, save, tmp_path):
    folder = save(tmp_path, kind)
    with pytest.raises(ConfigError, match="cannot be exported to ONNX"):
        _open(folder, "onnx")
    encoder = _open(folder, "auto")
    assert encoder.backend.startswith("torch")
    assert encoder.choice is not None
    assert "cannot be exported" in encoder.choice.excluded["onnx"]
    assert "cuda" in encoder.choice.excluded["torch-fp16"]


def _choices() -> list[Path]:
    return sorted(cache_folder().glob("choice-*.json"))


def test_auto_measures_once_and_remembers(plain, few, caplog):
    with caplog.at_level(logging.INFO):
        first = _open(plain, "auto")
    assert "measuring what runs" in caplog.text
    assert first.choice is not None
    assert f"runs on {first.choice.summary}" in caplog.text
    assert {"torch", "onnx", "onnx-int8"} <= first.choice.measured.keys()
    assert first.choice.measured["onnx"].mean_cosine == pytest.approx(1, abs=1e-5)
    assert first.choice.measured["onnx"].overlap > 0.97
    assert first.choice.measured[first.backend].passes
    caplog.clear()
    with caplog.at_level(logging.INFO):
        second = _open(plain, "auto")
    assert second.choice == first.choice
    assert second.backend == first.backend == first.choice.backend
    # What "auto" measured also answers for a lossy backend asked for by name.
    named = _open(plain, "onnx-int8")
    assert named.choice is not None
    assert named.choice.measured == first.choice.measured
    assert named.choice.summary.startswith("onnx-int8: ")
    assert "measur" not in caplog.text
    (record,) = _choices()
    assert record.is_relative_to(few)
    assert BackendChoice(**json.loads(record.read_text())["choice"]).backend == first.backend

    # A record that cannot be read, or is about another machine, is measured again.
    for damage in ("{", '{"facts": {}, "choice": {}}', record.read_text().replace('"cores"', '"hearts"')):
        record.write_text(damage)
        assert _open(plain, "auto").choice is not None
        assert json.loads(record.read_text())["choice"]["measured"].keys() >= {"torch", "onnx"}
    assert _choices() == [record]


def test_another_machine_measures_again(plain, few, monkeypatch):
    del few
    _open(plain, "onnx-int8")
    from retrieval.encoders import machine

    monkeypatch.setattr(machine, "cpu_model", lambda: "another processor")
    _open(plain, "onnx-int8")
    assert len(_choices()) == 2


def test_a_lossy_backend_asked_for_by_name_is_checked_and_warned_about(plain, few, monkeypatch, caplog):
    del few
    from retrieval.encoders import backend_choice

    monkeypatch.setattr(backend_choice, "LEAST_MEAN_COSINE", 1.1)
    with caplog.at_level(logging.WARNING):
        assert _open(plain, "onnx-int8").backend == "onnx-int8"
    assert "far from float32" in caplog.text


def test_token_ids_are_those_of_transformers(plain, decoder):
    _same_ids(plain, TEXTS)
    _same_ids(decoder, TEXTS)


def _same_ids(folder: Path, texts: list[str]) -> None:
    """Compare every feature of a padded batch with what the model's own `preprocess` gives."""
    from sentence_transformers import SentenceTransformer

    from retrieval.encoders.exported_model import exported, exported_inputs
    from retrieval.encoders.model_files import find_model

    config = EncoderConfig(path=str(folder), device="cpu")
    files = find_model(config)
    inputs = exported_inputs(exported(config, files, int8=False), config)
    model = SentenceTransformer(str(files.folder), device="cpu", local_files_only=True)
    for prompt in ("", *files.prompts.values(), "ask : "):
        found = inputs.prepare(texts, prompt, "query").features(np.arange(len(texts)))
        expected = model.preprocess(texts, prompt=prompt)
        for name, array in found.items():
            np.testing.assert_array_equal(array, expected[name].numpy(), err_msg=name)
    whole = model.tokenizer(texts, truncation=False, padding=False, verbose=False)["input_ids"]
    assert inputs.count(texts) == [len(ids) for ids in whole]
