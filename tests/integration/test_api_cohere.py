"""The Cohere dialect, spoken by Cohere's own clients to a real server process, and by Jina's and vLLM's habits."""

from collections.abc import Callable, Iterator
from typing import Any

import cohere
import numpy as np
import pytest

from retrieval.encoders import EncoderConfig, open_encoder

TEXTS = ["A hen sat on a wall.", "The red fox ran into the wood.", "A fox", "Milk", "A fox"]
QUERY = "a red fox"


def scores_of(texts: list[str], dim: int = 64) -> list[float]:
    """Return what the similarity reranker must score: inner products with the query's vector."""
    encoder = open_encoder(EncoderConfig(kind="hashing", dim=dim))
    rows = encoder.encode_texts([QUERY, *texts]).vectors
    return [round(float(row @ rows[0]), 6) for row in rows[1:]]  # equal texts tie, however they were multiplied


def order_of(scores: list[float]) -> list[int]:
    return sorted(range(len(scores)), key=lambda place: (-scores[place], place))


@pytest.fixture(scope="module")
def served(start_server: Callable[..., Any]) -> Any:
    tables = {
        "rerankers": {
            "similarity": {"encoder": {"kind": "hashing", "dim": 64}},
            "org/other": {"encoder": {"kind": "hashing", "dim": 512}},
        },
        "limits": {"texts": 8, "text_chars": 200},
    }
    keys = {"reader": {"scopes": ["read"], "collections": []}, "metrics": {"scopes": ["metrics"]}}
    return start_server(tables, keys)


@pytest.fixture(scope="module")
def first(served: Any) -> Iterator[cohere.Client]:
    with cohere.Client(served.secrets["reader"], base_url=served.url, max_retries=0) as client:
        yield client


@pytest.fixture(scope="module")
def second(served: Any) -> Iterator[cohere.ClientV2]:
    with cohere.ClientV2(served.secrets["reader"], base_url=served.url, max_retries=0) as client:
        yield client


def test_documents_come_in_the_order_of_their_scores(second: cohere.ClientV2) -> None:
    expected = scores_of(TEXTS)
    answer = second.rerank(model="similarity", query=QUERY, documents=TEXTS)
    assert [each.index for each in answer.results] == order_of(expected)
    np.testing.assert_allclose(
        [each.relevance_score for each in answer.results], sorted(expected, reverse=True), atol=1e-6
    )
    assert answer.id
    assert answer.meta is not None
    assert answer.meta.api_version is not None
    assert answer.meta.api_version.version == "2"
    assert answer.meta.warnings is None


def test_top_n_gives_the_best_ones(second: cohere.ClientV2) -> None:
    for top_n in (1, 3, 5, 100):
        answer = second.rerank(model="similarity", query=QUERY, documents=TEXTS, top_n=top_n, max_tokens_per_doc=10)
        assert [each.index for each in answer.results] == order_of(scores_of(TEXTS))[:top_n]


def test_the_model_is_the_one_named_or_else_the_first(first: cohere.Client, second: cohere.ClientV2) -> None:
    answer = second.rerank(model="org/other", query=QUERY, documents=TEXTS)
    np.testing.assert_allclose(
        [each.relevance_score for each in answer.results], sorted(scores_of(TEXTS, 512), reverse=True), atol=1e-6
    )
    unnamed = first.rerank(query=QUERY, documents=TEXTS)
    assert [each.relevance_score for each in unnamed.results] == [
        each.relevance_score for each in second.rerank(model="similarity", query=QUERY, documents=TEXTS).results
    ]
    for model in ("rerank-v3.5", "default", "../similarity"):
        with pytest.raises(cohere.NotFoundError) as caught:
            second.rerank(model=model, query=QUERY, documents=TEXTS)
        assert "similarity" in caught.value.body["message"]


def test_version_one_takes_objects_and_gives_them_back(first: cohere.Client) -> None:
    documents: list[Any] = [{"text": "Milk", "kept": [1, {"x": None}]}, "The red fox", {"text": "A fox"}]
    answer = first.rerank(query=QUERY, documents=documents, return_documents=True, max_chunks_per_doc=10)
    assert [each.index for each in answer.results] == order_of(scores_of(["Milk", "The red fox", "A fox"])) == [1, 2, 0]
    returned = [each.document for each in answer.results]
    assert [document and document.text for document in returned] == ["The red fox", "A fox", "Milk"]
    assert returned[2] is not None
    assert (returned[2].model_extra or {})["kept"] == [1, {"x": None}]
    assert all(each.document is None for each in first.rerank(query=QUERY, documents=documents).results)
    assert answer.meta is not None
    assert answer.meta.api_version is not None
    assert answer.meta.api_version.version == "1"


def test_rank_fields_say_what_is_read_of_an_object(first: cohere.Client) -> None:
    documents: list[Any] = [
        {"name": "fox", "note": "red"},
        {"name": "hen", "year": 7},
        {"note": "a red fox", "text": "no"},
    ]
    answer = first.rerank(query=QUERY, documents=documents, rank_fields=["note", "name", "year"])
    expected = scores_of(["red\nfox", "hen\n7", "a red fox"])
    assert [each.index for each in answer.results] == order_of(expected)
    np.testing.assert_allclose(
        [each.relevance_score for each in answer.results], sorted(expected, reverse=True), atol=1e-6
    )
    for wrong in ({"text": "a"}, {"name": ["a"]}, {"name": None}, {}):
        with pytest.raises(cohere.UnprocessableEntityError) as caught:
            first.rerank(query=QUERY, documents=["a", wrong], rank_fields=["name"])  # type: ignore[list-item]
        assert "documents.1" in caught.value.body["message"]


@pytest.mark.parametrize(
    ("given", "what"),
    [
        ({"documents": []}, "documents"),
        ({"documents": ["a"] * 8}, "9 texts"),  # the query is one, too
        ({"documents": ["a" * 201]}, "201 characters"),
        ({"query": "a" * 201}, "201 characters"),
        ({"query": ""}, "query"),
        ({"top_n": 0}, "top_n"),
        ({"documents": [3]}, "documents"),
        ({"documents": "abc"}, "documents"),
    ],
)
def test_what_cannot_be_answered_is_refused(second: cohere.ClientV2, given: dict[str, Any], what: str) -> None:
    with pytest.raises(cohere.UnprocessableEntityError) as caught:
        second.rerank(**{"model": "similarity", "query": QUERY, "documents": TEXTS, **given})
    assert set(caught.value.body) == {"id", "message"}
    assert what in caught.value.body["message"]


def test_keys_are_checked(served: Any) -> None:
    for key, error in (("gk_wrong", cohere.UnauthorizedError), (served.secrets["metrics"], cohere.ForbiddenError)):
        with cohere.ClientV2(key, base_url=served.url, max_retries=0) as client, pytest.raises(error) as caught:
            client.rerank(model="similarity", query=QUERY, documents=TEXTS)
        assert set(caught.value.body) == {"id", "message"}


@pytest.mark.parametrize("path", ["/rerank", "/v1/rerank", "/v2/rerank"])
def test_all_three_paths_answer_alike(served: Any, path: str) -> None:
    body = {"model": "similarity", "query": QUERY, "documents": TEXTS, "top_n": 2, "unknown": True}
    with served.client("reader") as http:
        answer = http.post(path, json=body).raise_for_status()
    value = answer.json()
    assert [each["index"] for each in value["results"]] == order_of(scores_of(TEXTS))[:2]
    assert all(set(each) == {"index", "relevance_score"} for each in value["results"])
    assert value["model"] == "similarity"  # as Jina and vLLM say it
    assert value["usage"] == {"total_tokens": value["meta"]["tokens"]["input_tokens"]}
    assert value["id"] == answer.headers["x-request-id"]


async def test_the_asynchronous_client_works_too(served: Any) -> None:
    async with cohere.AsyncClientV2(served.secrets["reader"], base_url=served.url) as client:
        answer = await client.rerank(model="similarity", query=QUERY, documents=TEXTS, top_n=1)
    assert [each.index for each in answer.results] == order_of(scores_of(TEXTS))[:1]
