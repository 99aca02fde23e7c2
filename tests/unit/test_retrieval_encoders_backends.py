"""Which backends there are, what decides between them, and the sample that judges them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from index.errors import ConfigError
from retrieval.encoders import EncoderConfig, fingerprint, open_encoder
from retrieval.encoders import backends as module
from retrieval.encoders.backend_choice import BackendChoice, Measured, fastest
from retrieval.encoders.backends import BACKENDS, check_backend, lossy
from retrieval.encoders.machine import machine_facts
from retrieval.encoders.model_encoder import batches
from retrieval.encoders.self_check import Outcome, agreement, sample


def _measured(texts_per_s: float, query_ms: float, cosine: float = 1.0, overlap: float = 1.0) -> Measured:
    return Measured(texts_per_s, query_ms, cosine, cosine, overlap)


def _outcome(passages: list[list[float]], queries: list[list[float]]) -> Outcome:
    return Outcome(np.array(passages, dtype=np.float32), np.array(queries, dtype=np.float32), 1.0, 1.0)


@pytest.mark.parametrize(
    "keys",
    [
        {"backend": "tensorrt"},
        {"backend": ""},
        {"threads": 0},
        {"kind": "hashing", "backend": "onnx"},
        {"kind": "external", "dim": 3, "backend": "torch"},
    ],
)
def test_a_value_that_cannot_work_is_refused(keys):
    with pytest.raises(ConfigError, match=r"^encoder\."):
        EncoderConfig(**keys)


def test_a_backend_is_no_part_of_the_fingerprint():
    expected = fingerprint(EncoderConfig())
    assert {fingerprint(EncoderConfig(backend=name, threads=1)) for name in BACKENDS} == {expected}


@pytest.mark.parametrize(
    ("backend", "device"),
    [("onnx", "cuda:0"), ("onnx-int8", "cuda"), ("openvino", "cuda"), ("torch-fp16", "cpu"), ("torch-bf16", "mps")],
)
def test_a_backend_refuses_a_device_it_does_not_run_on(backend, device):
    with pytest.raises(ConfigError, match="does not run on"):
        check_backend(backend, device)


def test_bfloat16_needs_a_processor_that_has_it(monkeypatch):
    monkeypatch.setattr(module, "has_bfloat16", lambda: False)
    with pytest.raises(ConfigError, match="bfloat16"):
        check_backend("torch-bf16", "cpu")
    monkeypatch.setattr(module, "has_bfloat16", lambda: True)
    check_backend("torch-bf16", "cpu")


def test_a_backend_that_is_not_installed_names_its_extra(monkeypatch):
    monkeypatch.setattr(module, "find_spec", lambda _name: None)
    with pytest.raises(ImportError, match=r"grapnel\[openvino\]"):
        check_backend("openvino", None)
    with pytest.raises(ImportError, match=r"grapnel\[onnx\]"):
        open_encoder(EncoderConfig(backend="onnx-int8"))


def test_three_backends_are_exact():
    assert {name for name in BACKENDS if not lossy(name)} == {"torch", "onnx", "openvino"}


@given(st.lists(st.integers(0, 300), max_size=80), st.integers(1, 2000))
def test_batches_hold_every_text_once_within_the_budget(lengths, budget):
    array = np.array(lengths, dtype=np.int64)
    found = list(batches(array, budget))
    assert sorted(row for rows in found for row in rows) == list(range(len(lengths)))
    for rows in found:
        assert len(rows) == 1 or len(rows) * array[rows].max() <= budget
    longest = [int(array[rows].max()) for rows in found]
    assert longest == sorted(longest, reverse=True)


@pytest.mark.parametrize(
    ("lengths", "sizes"),
    [
        ([100, 10, 10], [1, 2]),  # two short texts padded to 100 would cost 180 tokens more
        ([60, 50, 30], [3]),  # cutting saves 30 or 40 tokens: less than a pass costs
        ([8] * 20, [12, 8]),  # the budget of 100
        ([500, 1], [1, 1]),
    ],
)
def test_batches_end_where_padding_costs_more_than_a_pass(lengths, sizes):
    assert [len(rows) for rows in batches(np.array(lengths, dtype=np.int64), 100 if lengths[0] == 8 else 1000)] == sizes


def test_the_fastest_that_is_near_enough_is_chosen():
    measured = {
        "torch": _measured(10, 5),
        "onnx": _measured(17, 2),
        "torch-bf16": _measured(30, 3),
        "onnx-int8": _measured(50, 1, cosine=0.98),
        "openvino-bf16": _measured(60, 1, overlap=0.89),
    }
    assert fastest(measured) == "torch-bf16"


def test_within_ten_percent_a_single_query_decides():
    near = {"torch": _measured(10, 5), "torch-bf16": _measured(30, 3), "onnx-int8": _measured(27.1, 0.8)}
    assert fastest(near) == "onnx-int8"
    far = near | {"onnx-int8": _measured(26.9, 0.8)}
    assert fastest(far) == "torch-bf16"


def test_torch_always_remains():
    assert fastest({"torch": _measured(10, 5), "onnx": _measured(99, 1, cosine=0.5)}) == "torch"


def test_a_choice_says_what_it_is_in_one_line():
    measured = {"torch": _measured(10, 5), "onnx-int8": Measured(32, 0.5, 0.9991, 0.98, 0.97)}
    choice = BackendChoice("onnx-int8", "cpu", measured, {"openvino": "not installed"})
    assert choice.summary == (
        "onnx-int8: 3.2x torch, 10.0x for one query, cosine 0.9991 (least 0.9800), top-10 overlap 0.97"
    )


def test_agreement_of_equal_vectors_is_complete_whatever_their_length():
    rng = np.random.default_rng(0)
    passages, queries = rng.normal(size=(30, 8)), rng.normal(size=(5, 8))
    left = _outcome(passages.tolist(), queries.tolist())
    right = _outcome((3 * passages).tolist(), (0.1 * queries).tolist())
    found = agreement(left, right)
    assert found.mean_cosine == pytest.approx(1)
    assert found.least_cosine == pytest.approx(1)
    assert found.overlap == 1


def test_agreement_by_hand():
    # Eleven passages on a line through the angles; the query lies at the first. Turning the query to the other end
    # takes the first passage out of its ten nearest and the last one in: 9 of 10 are shared.
    angles = np.linspace(0, 1, 11)
    passages = np.stack([np.cos(angles), np.sin(angles)], axis=1).tolist()
    reference = _outcome(passages, [[1.0, 0.0]])
    turned = _outcome(passages, [[float(np.cos(1)), float(np.sin(1))]])
    found = agreement(turned, reference)
    assert found.overlap == pytest.approx(0.9)
    assert found.least_cosine == pytest.approx(np.cos(1), abs=1e-6)
    assert found.mean_cosine == pytest.approx((11 + np.cos(1)) / 12, abs=1e-6)


def test_a_zero_vector_agrees_with_nothing():
    found = agreement(_outcome([[0.0, 0.0]], [[1.0, 0.0]]), _outcome([[1.0, 0.0]], [[1.0, 0.0]]))
    assert found.least_cosine == 0


def test_vectors_that_are_no_numbers_are_far_away():
    found = agreement(_outcome([[float("nan"), 0.0]], [[1.0, 0.0]]), _outcome([[1.0, 0.0]], [[1.0, 0.0]]))
    assert found.least_cosine == -1
    assert not Measured(9, 9, found.mean_cosine, found.least_cosine, found.overlap).passes


def test_the_sample_is_real_text_and_the_same_each_time():
    texts = sample()
    assert (len(texts.passages), len(texts.queries)) == (192, 64)
    assert texts == sample()
    assert len(set(texts.passages)) == 192
    assert all(80 <= len(text) <= 1200 for text in texts.passages)
    assert max(map(len, texts.queries)) <= 160
    assert not set(texts.queries) & set(texts.passages)


@pytest.mark.parametrize("keys", [{"threads": 3}, {"device": "cuda:1"}])
def test_settings_that_change_speed_make_another_machine(keys):
    assert machine_facts(EncoderConfig(**keys)) != machine_facts(EncoderConfig())


def test_the_environments_threads_make_another_machine(monkeypatch):
    monkeypatch.setenv("GRAPNEL_THREADS", "1")
    one = machine_facts(EncoderConfig())
    monkeypatch.setenv("GRAPNEL_THREADS", "7")
    assert machine_facts(EncoderConfig()) != one
