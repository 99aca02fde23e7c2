# ruff: noqa: PLC0415  torch takes seconds to import: only when these tests run
"""Every backend on the packaged MiniLM and real text, against plain `SentenceTransformer.encode` in float32.

The export is kept in the machine's own cache (GRAPNEL_CACHE): it takes 10 s and is the same for every run.
"""

import importlib
import inspect
from importlib.util import find_spec

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from index.errors import GrapnelError
from retrieval.encoders import EncoderConfig, open_encoder
from retrieval.encoders.backends import check_backend
from retrieval.encoders.exported_model import exported, exported_inputs
from retrieval.encoders.model_files import find_model
from retrieval.types import Query

pytestmark = pytest.mark.model
MODULES = (
    "argparse",
    "collections",
    "csv",
    "datetime",
    "email.message",
    "http.client",
    "pathlib",
    "re",
    "unittest.case",
)
MIXED = [
    "",
    " ",
    "A short sentence.",
    "The quick brown fox jumps over the lazy dog. " * 60,
    "漢字と emoji 😀 and ünïcode",
    "x" * 5000,
    "word " * 20_000,
    "line one\nline two\r\n\ttabbed\x00 and a null",
    "[CLS] [SEP] [MASK] as text",
]


def _docstrings() -> list[str]:
    """Docstrings of public classes and their methods, 60 to 2,000 characters: texts that the self-check never sees."""
    found: dict[str, None] = {}
    for module in map(importlib.import_module, MODULES):
        for _, member in inspect.getmembers(module, inspect.isclass):
            for _, inner in [("", member), *inspect.getmembers(member, inspect.isroutine)]:
                text = inspect.getdoc(inner) or ""
                if 60 <= len(text) <= 2000:
                    found[text] = None
    return sorted(found)


@pytest.fixture(scope="module")
def texts() -> list[str]:
    found = _docstrings()
    return found[:: max(1, len(found) // 120)]


@pytest.fixture(scope="module")
def reference(texts):
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(find_model(EncoderConfig()).folder), device="cpu", local_files_only=True)
    return model, model.encode(texts), model.encode(_first_lines(texts))


def _first_lines(texts: list[str]) -> list[str]:
    return [text.splitlines()[0] for text in texts[::3]]


def test_auto_says_what_it_chose():
    # First, for the others below then find in its record how near they are.
    encoder = open_encoder(EncoderConfig(device="cpu"))
    assert encoder.choice.backend == encoder.backend
    assert encoder.choice.summary.startswith(f"{encoder.backend}: ")
    assert encoder.encode_queries([Query("q", "what is a list comprehension?")]).shape == (1, 384)


@pytest.mark.parametrize(
    ("backend", "cosine", "least", "overlap"),
    [
        ("onnx", 0.999999, 0.99999, 0.99),
        ("openvino", 0.999999, 0.99999, 0.99),
        ("torch-bf16", 0.9998, 0.999, 0.95),
        ("openvino-bf16", 0.9998, 0.999, 0.95),
        ("onnx-int8", 0.985, 0.95, 0.85),
    ],
)
def test_a_backend_finds_what_float32_finds(texts, reference, backend, cosine, least, overlap):
    if find_spec("onnxscript") is None:
        pytest.skip("the onnx extra is not installed")
    try:
        check_backend(backend, "cpu")
    except GrapnelError as error:
        pytest.skip(str(error))
    _, passages, queries = reference
    encoder = open_encoder(EncoderConfig(backend=backend, device="cpu"))
    found = encoder.encode_texts(texts).vectors
    asked = encoder.encode_queries([Query("q", text) for text in _first_lines(texts)])
    cosines = np.concatenate([(found * passages).sum(axis=1), (asked * queries).sum(axis=1)])
    assert cosines.mean() >= cosine
    assert cosines.min() >= least
    nearest = np.argsort(-asked @ found.T, axis=1)[:, :10]
    expected = np.argsort(-queries @ passages.T, axis=1)[:, :10]
    shared = [len(np.intersect1d(*pair)) / 10 for pair in zip(nearest, expected, strict=True)]
    assert np.mean(shared) >= overlap
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-4)


@pytest.fixture(scope="module")
def inputs():
    pytest.importorskip("onnxscript", reason="the onnx extra is not installed")
    config = EncoderConfig()
    return exported_inputs(exported(config, find_model(config), int8=False), config)


def _check_features(inputs, model, texts: list[str], prompt: str) -> None:
    found = inputs.prepare(texts, prompt, "document").features(np.arange(len(texts)))
    expected = model.preprocess(texts, prompt=prompt)
    assert set(found) == {"input_ids", "attention_mask", "token_type_ids"}
    for name, array in found.items():
        np.testing.assert_array_equal(array, expected[name].numpy(), err_msg=name)


@pytest.mark.parametrize("prompt", ["", "query: ", "Represent this: "])
def test_token_ids_are_those_of_transformers(inputs, reference, texts, prompt):
    _check_features(inputs, reference[0], MIXED + texts, prompt)
    whole = reference[0].tokenizer(MIXED, truncation=False, padding=False, verbose=False)["input_ids"]
    assert inputs.count(MIXED) == [len(ids) for ids in whole]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=60), min_size=1, max_size=4))
def test_token_ids_of_any_text_are_those_of_transformers(inputs, reference, texts):
    _check_features(inputs, reference[0], texts, "")
