# ruff: noqa: PLC0415  torch takes seconds to import: only when these tests run
"""Encoders against plain `SentenceTransformer.encode`: tiny random models of every shape, and the packaged MiniLM."""

import json
import os
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest

from index.errors import ConfigError, RequestError
from retrieval.encoders import EncoderConfig, fingerprint, open_encoder
from retrieval.encoders.model_files import find_model
from retrieval.types import Passage, Query

WORDS = ["ask", "read", ":", "alpha", "beta", "gamma", "delta", "river", "stone", "cloud", "engine", "paper", "."]
TEXTS = [
    "",
    "alpha",
    "river stone cloud",
    "unknown words only",
    " ".join(WORDS[3:] * 30),
    "paper . " * 4,
    "alpha beta gamma delta " * 3,
]


def _save(folder: Path, modules: list, prompts: dict[str, str] | None = None) -> Path:
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(modules=modules, device="cpu", prompts=prompts)
    model.save(str(folder / "model"), create_model_card=False)
    return folder / "model"


@pytest.fixture(scope="session")
def transformer(tiny_transformer):
    """Save a tiny random transformer in a folder; returns it as the first module of an encoder."""

    def saved(folder: Path, kind: str = "bert"):
        from sentence_transformers.base.modules import Transformer

        tiny_transformer(folder / "base", WORDS, kind)
        return Transformer(str(folder / "base"))

    return saved


@pytest.fixture(scope="module", params=["plain", "decoder", "prompt outside the mean", "router", "static"])
def model_folder(request, transformer, tiny_transformer, tmp_path_factory) -> Path:
    from sentence_transformers.base.modules import Normalize, Router
    from sentence_transformers.sentence_transformer.modules import Pooling, StaticEmbedding

    folder = tmp_path_factory.mktemp("model")
    prompts = {"query": "ask : ", "document": "read : ", "sts": "cloud "}
    match request.param:
        case "plain":
            return _save(folder, [transformer(folder), Pooling(32), Normalize()])
        case "decoder":  # padded on the left, the last token speaks for the text
            return _save(folder, [transformer(folder, "llama"), Pooling(32, "lasttoken"), Normalize()], prompts)
        case "router":
            router = Router.for_query_document(
                [transformer(folder / "q"), Pooling(32)], [transformer(folder / "d"), Pooling(32, "cls")]
            )
            return _save(folder, [router], prompts)
        case "static":
            return _save(folder, [StaticEmbedding(tiny_transformer(folder, WORDS), embedding_dim=32)])
        case _:
            pooling = Pooling(32, include_prompt=False)
            return _save(folder, [transformer(folder), pooling, Normalize()], prompts)


@pytest.fixture(scope="module")
def plain_folder(transformer, tmp_path_factory) -> Path:
    from sentence_transformers.base.modules import Normalize
    from sentence_transformers.sentence_transformer.modules import Pooling

    folder = tmp_path_factory.mktemp("plain")
    return _save(folder, [transformer(folder), Pooling(32), Normalize()], {"query": "ask : ", "sts": "cloud "})


def _queries(texts: list[str], task: str = "search") -> list[Query]:
    return [Query(str(place), text, task) for place, text in enumerate(texts)]


def _reference(folder: Path):
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(str(folder), device="cpu", local_files_only=True)


def _config(folder: Path, **keys: object) -> EncoderConfig:
    return EncoderConfig(path=str(folder), device="cpu", **{"backend": "torch", **keys})  # type: ignore[arg-type]  # keys vary by test


@pytest.mark.parametrize("batch_tokens", [1, 60, None])
def test_vectors_equal_those_of_sentence_transformers(model_folder, batch_tokens):
    encoder = open_encoder(_config(model_folder, batch_tokens=batch_tokens))
    reference = _reference(model_folder)
    batch = encoder.encode_texts(TEXTS)
    assert batch.vectors.dtype == np.float32
    assert batch.vectors.flags.c_contiguous
    assert encoder.dim == 32
    np.testing.assert_allclose(batch.vectors, reference.encode_document(TEXTS), atol=1e-5)
    np.testing.assert_allclose(encoder.encode_queries(_queries(TEXTS)), reference.encode_query(TEXTS), atol=1e-5)


def test_the_window_without_torch_is_the_window_of_the_model(model_folder):
    encoder = open_encoder(_config(model_folder))
    assert find_model(_config(model_folder)).window in (encoder.window, None)


def test_truncated_texts_are_counted(plain_folder):
    encoder = open_encoder(_config(plain_folder))
    exact = " ".join(["alpha"] * 22)  # and two special tokens: the window of 24
    batch = encoder.encode_texts([exact, exact + " beta", "alpha " * 500, "beta", "   " * 999 + "beta"])
    assert batch.truncated == 2
    np.testing.assert_allclose(batch.vectors[0], batch.vectors[2], atol=1e-5)
    np.testing.assert_allclose(batch.vectors[3], batch.vectors[4], atol=1e-5)
    assert encoder.token_count([exact, "", "beta " * 100]) == [24, 2, 102]


def test_a_window_of_ones_own(plain_folder):
    encoder = open_encoder(_config(plain_folder, max_tokens=8))
    batch = encoder.encode_texts(["alpha " * 6, "alpha " * 7, "alpha " * 40])
    assert batch.truncated == 2
    np.testing.assert_allclose(batch.vectors[0], batch.vectors[2], atol=1e-5)
    with pytest.raises(ConfigError, match="40 positions"):
        open_encoder(_config(plain_folder, max_tokens=41))


def test_matryoshka_truncation_scales_to_unit_length_again(plain_folder):
    encoder = open_encoder(_config(plain_folder, dim=8))
    cut = _reference(plain_folder).encode(TEXTS)[:, :8]
    expected = cut / np.linalg.norm(cut, axis=1, keepdims=True)
    np.testing.assert_allclose(encoder.encode_texts(TEXTS).vectors, expected, atol=1e-5)
    with pytest.raises(ConfigError, match="gives 32"):
        open_encoder(_config(plain_folder, dim=33))


def test_a_truncation_declared_by_the_model_holds_unless_configured(plain_folder, tmp_path):
    folder = tmp_path / "truncating"
    shutil.copytree(plain_folder, folder)
    declared = folder / "config_sentence_transformers.json"
    declared.write_text(json.dumps({**json.loads(declared.read_text()), "truncate_dim": 4}))
    vectors = open_encoder(_config(folder)).encode_texts(TEXTS).vectors
    assert vectors.shape == (len(TEXTS), 4)
    np.testing.assert_allclose(vectors, _reference(folder).encode(TEXTS), atol=1e-5)
    assert open_encoder(_config(folder, dim=8)).dim == 8


def test_normalize_scales_a_model_that_does_not(transformer, tmp_path):
    from sentence_transformers.sentence_transformer.modules import Pooling

    folder = _save(tmp_path, [transformer(tmp_path), Pooling(32)])
    raw = open_encoder(_config(folder)).encode_texts(TEXTS).vectors
    unit = open_encoder(_config(folder, normalize=True)).encode_texts(TEXTS).vectors
    assert np.abs(np.linalg.norm(raw, axis=1) - 1).max() > 0.1
    np.testing.assert_allclose(unit, raw / np.linalg.norm(raw, axis=1, keepdims=True), atol=1e-5)
    assert fingerprint(_config(folder)) != fingerprint(_config(folder, normalize=True))


def test_each_query_of_a_batch_takes_the_prompt_of_its_task(plain_folder):
    encoder = open_encoder(_config(plain_folder))
    reference = _reference(plain_folder)
    mixed = [Query("0", "river"), Query("1", "river", "sts"), Query("2", "stone")]
    expected = [reference.encode(prompt + text) for prompt, text in (("ask : ", "river"), ("cloud ", "river"))]
    vectors = encoder.encode_queries(mixed)
    np.testing.assert_allclose(vectors[:2], expected, atol=1e-5)
    np.testing.assert_allclose(vectors[2], reference.encode("ask : stone"), atol=1e-5)
    with pytest.raises(RequestError, match="'query', 'search', 'sts'"):
        encoder.encode_queries([Query("3", "river", "clustering")])


def test_configured_prompts_replace_declared_ones(plain_folder):
    encoder = open_encoder(_config(plain_folder, query_prompt="gamma ", document_prompt="delta "))
    reference = _reference(plain_folder)
    np.testing.assert_allclose(
        encoder.encode_queries(_queries(["river"]))[0], reference.encode("gamma river"), atol=1e-5
    )
    passage = Passage("d", 0, 0, 5, "river", "stone")
    np.testing.assert_allclose(encoder.encode_passages([passage])[0], reference.encode("delta stone river"), atol=1e-5)


def test_no_texts_give_no_vectors(plain_folder):
    encoder = open_encoder(_config(plain_folder))
    assert encoder.encode_queries([]).shape == (0, 32)
    assert encoder.encode_texts([]).vectors.shape == (0, 32)


def test_a_lone_surrogate_in_a_query_is_refused(plain_folder):
    with pytest.raises(RequestError, match="surrogate"):
        open_encoder(_config(plain_folder)).encode_queries([Query("q", "\udcff")])


def test_threads_get_what_they_asked_for(plain_folder):
    encoder = open_encoder(_config(plain_folder))
    texts = [f"{' '.join(WORDS[3 : 3 + n % 9])} alpha" for n in range(40)]
    expected = encoder.encode_texts(texts).vectors
    got: dict[int, np.ndarray] = {}

    def work(start: int) -> None:
        for place in range(start, 40, 4):
            got[place] = encoder.encode_queries([Query("q", texts[place], "document" if place % 2 else "sts")])[0]
            got[place] = encoder.encode_texts([texts[place]]).vectors[0]

    threads = [threading.Thread(target=work, args=(start,)) for start in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    np.testing.assert_allclose(np.stack([got[place] for place in range(40)]), expected, atol=1e-5)


def test_a_model_that_names_foreign_code_is_refused(plain_folder, tmp_path):
    folder = tmp_path / "evil"
    shutil.copytree(plain_folder, folder)
    modules = json.loads((folder / "modules.json").read_text())
    modules[1]["type"] = "evil.Pooling"
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "evil.py").write_text("raise SystemExit('executed')")
    with pytest.raises(ConfigError, match="cannot be loaded"):
        open_encoder(_config(folder))


def test_damaged_weights_are_refused(plain_folder, tmp_path):
    folder = tmp_path / "damaged"
    shutil.copytree(plain_folder, folder)
    weights = folder / "model.safetensors"
    os.truncate(weights, weights.stat().st_size // 2)
    with pytest.raises(ConfigError, match="cannot be loaded"):
        open_encoder(_config(folder))


@pytest.mark.model
def test_minilm_is_the_model():
    folder = find_model(EncoderConfig()).folder
    encoder = open_encoder(EncoderConfig(device="cpu", backend="torch"))
    reference = _reference(folder)
    texts = [
        "",
        "A short sentence.",
        "The quick brown fox jumps over the lazy dog. " * 60,
        "漢字と emoji 😀 and ünïcode",
        "x" * 5000,
        "word " * 20_000,
        "line one\nline two\r\n\ttabbed",
    ]
    batch = encoder.encode_texts(texts)
    np.testing.assert_allclose(batch.vectors, reference.encode(texts), atol=1e-5)
    assert batch.truncated == 2
    assert encoder.window == reference.max_seq_length == find_model(EncoderConfig()).window
    tokenizer = find_model(EncoderConfig()).tokenizer()
    assert tokenizer is not None
    assert encoder.token_count(texts) == [len(tokenizer.encode(text).ids) for text in texts]
    np.testing.assert_allclose(np.linalg.norm(batch.vectors, axis=1), 1, atol=1e-5)
