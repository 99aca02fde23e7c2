"""The dialect of Text Embeddings Inference, spoken by huggingface_hub's client and over plain HTTP."""

from collections.abc import Callable, Iterator
from typing import Any

import httpx
import numpy as np
import pytest
from huggingface_hub import InferenceClient
from huggingface_hub.errors import HfHubHTTPError

from index.types import Vectors
from retrieval.encoders import EncoderConfig, fingerprint, open_encoder

CONFIG = EncoderConfig(kind="hashing", dim=64)
TEXTS = ["The fox ran into the wood.", "", "Füchse im Wald 狐"]


def vectors_of(texts: list[str]) -> Vectors:
    return open_encoder(CONFIG).encode_texts(texts).vectors


@pytest.fixture(scope="module")
def served(start_server: Callable[..., Any]) -> Any:
    keys = {"reader": {"scopes": ["read"], "collections": []}, "metrics": {"scopes": ["metrics"]}}
    return start_server({"limits": {"texts": 4, "text_chars": 200}}, keys)


@pytest.fixture(scope="module")
def http(served: Any) -> Iterator[httpx.Client]:
    with served.client("reader") as client:
        yield client


def test_the_hubs_client_gets_vectors(served: Any) -> None:
    client = InferenceClient(model=f"{served.url}/embed", token=served.secrets["reader"])
    np.testing.assert_allclose(client.feature_extraction(TEXTS[0]), vectors_of(TEXTS[:1]), atol=1e-7)
    np.testing.assert_allclose(client.feature_extraction(TEXTS), vectors_of(TEXTS), atol=1e-7)
    made = client.feature_extraction(TEXTS[0], normalize=False, prompt_name="query", truncate=True)
    np.testing.assert_array_equal(made, vectors_of(TEXTS[:1]))
    stranger = InferenceClient(model=f"{served.url}/embed", token="gk_wrong")  # noqa: S106  nobody's
    with pytest.raises(HfHubHTTPError) as caught:
        stranger.feature_extraction("a")
    assert caught.value.response.status_code == 401


def test_texts_become_a_bare_list_of_vectors(http: httpx.Client) -> None:
    for inputs in (TEXTS, TEXTS[0]):
        answer = http.post("/embed", json={"inputs": inputs, "dimensions": 64, "unknown": 1}).raise_for_status()
        expected = vectors_of(TEXTS if isinstance(inputs, list) else TEXTS[:1])
        np.testing.assert_allclose(np.float32(answer.json()), expected, atol=1e-7)


@pytest.mark.parametrize(
    ("body", "what"),
    [
        ({"inputs": []}, "inputs"),
        ({}, "inputs"),
        ({"inputs": [["a"]]}, "inputs"),
        ({"inputs": ["a"] * 5}, "5 texts"),
        ({"inputs": "a" * 201}, "201 characters"),
        ({"inputs": "a", "prompt_name": "title"}, "prompt_name"),
        ({"inputs": "a", "truncation_direction": "Left"}, "truncation_direction"),
        ({"inputs": "a", "dimensions": 8}, "Matryoshka"),
    ],
)
def test_what_cannot_be_embedded_is_refused(http: httpx.Client, body: dict[str, Any], what: str) -> None:
    answer = http.post("/embed", json=body)
    assert answer.status_code == 422
    assert answer.json()["error_type"] == "validation"
    assert what in answer.json()["error"]


def test_texts_come_in_the_order_of_their_scores(http: httpx.Client) -> None:
    texts = ["hen", "the red fox", "a fox"]
    rows = vectors_of(["a red fox", *texts])
    scores = [float(row @ rows[0]) for row in rows[1:]]
    answer = http.post("/rerank", json={"query": "a red fox", "texts": texts, "return_text": True}).raise_for_status()
    assert [each["index"] for each in answer.json()] == [1, 2, 0]
    assert [each["text"] for each in answer.json()] == [texts[each["index"]] for each in answer.json()]
    np.testing.assert_allclose([each["score"] for each in answer.json()], sorted(scores, reverse=True), atol=1e-6)
    for options in ({}, {"raw_scores": True}, {"truncate": True, "truncation_direction": "Right"}):
        plain = http.post("/rerank", json={"query": "a red fox", "texts": texts, **options}).json()
        assert plain == [{"index": each["index"], "score": each["score"]} for each in answer.json()]


@pytest.mark.parametrize(
    "body",
    [
        {"query": "a", "texts": []},
        {"query": "", "texts": ["a"]},
        {"texts": ["a"]},
        {"query": "a", "texts": ["a"] * 4},
        {"query": "a", "texts": [1]},
        {"query": "a", "texts": "abc"},
        {"query": "a", "texts": None, "documents": ["a"]},
        {"query": "a"},
        [],
        "texts",
        3,
    ],
)
def test_what_cannot_be_reranked_is_refused_in_the_shape_of_both_dialects(http: httpx.Client, body: Any) -> None:
    answer = http.post("/rerank", json=body)
    assert answer.status_code == 422
    value = answer.json()
    assert set(value) == {"id", "message", "error", "error_type"}
    assert value["message"] == value["error"]
    assert value["error_type"] == "validation"


def test_texts_are_compared_by_the_cosine_of_their_vectors(served: Any, http: httpx.Client) -> None:
    sentences = ["the red fox", "hen", ""]
    client = InferenceClient(model=f"{served.url}/similarity", token=served.secrets["reader"])
    found = client.sentence_similarity("a red fox", sentences)
    query, *rows = vectors_of(["a red fox", *sentences])
    np.testing.assert_allclose(found, [float(row @ query) for row in rows], atol=1e-6)
    inputs = {"source_sentence": "a red fox", "sentences": sentences}
    for parameters in ({"prompt_name": "query", "truncate": True, "unknown": 1}, {}, None):
        answer = http.post("/similarity", json={"inputs": inputs, "parameters": parameters})
        assert answer.raise_for_status().json() == found
    for wrong in ({**inputs, "sentences": []}, {**inputs, "sentences": "abc"}, {"sentences": ["a"]}, "abc"):
        assert http.post("/similarity", json={"inputs": wrong}).json()["error_type"] == "validation"
    assert http.post("/similarity", json={"inputs": {**inputs, "sentences": ["a"] * 4}}).status_code == 422


def test_info_describes_the_encoder_without_its_path(http: httpx.Client) -> None:
    info = http.get("/info").raise_for_status().json()
    assert info["model_id"] == "default"
    assert info["model_sha"] == fingerprint(CONFIG)
    assert info["max_client_batch_size"] == 4
    assert info["max_input_length"] is None  # hashing reads everything
    assert info["model_type"] == {"embedding": {}}


def test_health_needs_no_key_and_the_rest_does(served: Any) -> None:
    with served.client() as http:
        assert (http.get("/health").status_code, http.get("/health").content) == (200, b"")
        for answer in (
            http.get("/info"),
            http.post("/embed", json={"inputs": "a"}),
            http.post("/rerank", json={"query": "a", "texts": ["a"]}),
        ):
            assert answer.status_code == 401
            assert answer.json()["error_type"] == "validation"
    with served.client("metrics") as http:
        assert http.post("/embed", json={"inputs": "a"}).status_code == 403


def test_what_is_not_offered_is_not_found(http: httpx.Client) -> None:
    for path in ("/embed_all", "/embed_sparse", "/tokenize", "/predict"):
        assert http.post(path, json={"inputs": "a"}).status_code == 404
