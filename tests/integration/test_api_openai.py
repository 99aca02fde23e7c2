"""The OpenAI dialect, spoken by OpenAI's own client to a real server process."""

import base64
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import openai
import pytest

from index.types import Vectors
from retrieval.encoders import EncoderConfig, open_encoder

ROOT = {"scopes": ["admin"]}
READER = {"scopes": ["read"], "collections": ["tales"]}
TENANT = {"scopes": ["read"], "filter": {"type": "eq", "key": "tenant", "value": "a"}}
METRICS = {"scopes": ["metrics"]}
TEXTS = ["The fox ran into the wood.", "A hen sat on a wall", "", "Füchse im Wald 狐"]
TALES: list[dict[str, Any]] = [
    {"id": "fox", "title": "The Fox", "text": "A red fox ran into the dark wood.", "metadata": {"tenant": "a", "n": 1}},
    {"id": "hen", "text": "A hen sat on a wall and looked at a fox.", "metadata": {"tenant": "b", "n": 2}},
    {"id": "owl", "title": "The Owl", "text": "An owl slept in the dark wood.", "metadata": {"tenant": "a", "n": 3}},
    {"id": "cat", "text": "A cat drank milk.", "metadata": {"tenant": "b", "n": 4, "deep": {"tags": ["x", "y"]}}},
]


@pytest.fixture(scope="module")
def served(start_server: Callable[..., Any]) -> Any:
    """A server with limits of its own and the collection `tales`."""
    tables = {
        "encoders": {"default": {"kind": "hashing", "dim": 64}, "wide": {"kind": "hashing", "dim": 128}},
        "limits": {"texts": 6, "text_chars": 500, "searches": 3},
    }
    keys = {"root": ROOT, "reader": READER, "tenant": TENANT, "metrics": METRICS}
    server = start_server(tables, keys)
    with server.client("root") as http:
        http.post("/v1/collections", json={"name": "tales"}).raise_for_status()
        http.post("/v1/collections/tales/documents", json={"documents": TALES}).raise_for_status()
        http.put("/v1/aliases/stories", json={"collection": "tales"}).raise_for_status()
    return server


@pytest.fixture(scope="module")
def client_of(served: Any) -> Iterator[Callable[[str], openai.OpenAI]]:
    made: list[openai.OpenAI] = []

    def make(key: str) -> openai.OpenAI:
        made.append(openai.OpenAI(base_url=f"{served.url}/v1", api_key=served.secrets[key], max_retries=0))
        return made[-1]

    yield make
    for client in made:
        client.close()


@pytest.fixture(scope="module")
def client(client_of: Callable[[str], openai.OpenAI]) -> openai.OpenAI:
    return client_of("reader")


def vectors_of(texts: list[str], dim: int = 64) -> Vectors:
    return open_encoder(EncoderConfig(kind="hashing", dim=dim)).encode_texts(texts).vectors


def said(caught: pytest.ExceptionInfo[openai.APIStatusError]) -> dict[str, Any]:
    """Return the error in the shape OpenAI documents; the client has taken it out of its `error`."""
    body = caught.value.body
    assert isinstance(body, dict)
    assert set(body) == {"message", "type", "param", "code"}
    assert caught.value.request_id
    return body


# -- embeddings ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ["float", "base64", None])
def test_texts_become_the_vectors_of_the_encoder_in_order(client: openai.OpenAI, encoding: Any) -> None:
    given = {} if encoding is None else {"encoding_format": encoding}
    made = client.embeddings.create(model="default", input=TEXTS, **given)
    assert [each.index for each in made.data] == list(range(len(TEXTS)))
    assert {each.object for each in made.data} == {"embedding"}
    rows: list[npt.NDArray[np.float32]] = []
    for each in made.data:
        # Only a caller that asks for base64 itself gets the text; else the client decodes it.
        raw: Any = each.embedding
        rows.append(
            np.frombuffer(base64.b64decode(raw), "<f4") if isinstance(raw, str) else np.asarray(raw, np.float32)
        )
    np.testing.assert_array_equal(np.stack(rows), vectors_of(TEXTS))
    assert made.object == "list"
    assert made.model == "default"
    assert made.usage.prompt_tokens == made.usage.total_tokens == 7 + 5 + 0 + 4  # a quarter of the characters, each


def test_one_text_is_one_row_and_the_model_is_the_one_named(client: openai.OpenAI) -> None:
    made = client.embeddings.create(model="wide", input=TEXTS[0], dimensions=128, user="somebody")
    np.testing.assert_array_equal(np.array([made.data[0].embedding], np.float32), vectors_of(TEXTS[:1], 128))
    assert made.model_extra == {"truncated": 0}


def test_members_that_mean_nothing_here_are_ignored(client: openai.OpenAI) -> None:
    body = {"input_type": "query", "future_member": {"x": 1}}
    made = client.embeddings.create(model="default", input=TEXTS[0], extra_body=body)
    np.testing.assert_array_equal(np.array([made.data[0].embedding], np.float32), vectors_of(TEXTS[:1]))


@pytest.mark.parametrize("ids", [[1, 2, 3], [[1, 2], [3]]])
def test_token_ids_are_refused_with_the_reason(client: openai.OpenAI, ids: Any) -> None:
    with pytest.raises(openai.UnprocessableEntityError) as caught:
        client.embeddings.create(model="default", input=ids)
    error = said(caught)
    assert "token ids" in error["message"]
    assert (error["param"], error["type"], error["code"]) == ("input", "invalid_request_error", "invalid")


@pytest.mark.parametrize(
    ("body", "what"),
    [
        ({"input": []}, "input"),
        ({"input": ["a"] * 7}, "7 texts"),
        ({"input": ["b" * 501]}, "501 characters"),
        ({"input": "a", "dimensions": 32}, "Matryoshka"),
        ({"input": "a", "dimensions": 65}, "dimensions is 65"),
        ({"input": "a", "dimensions": 0}, "dimensions"),
        ({"input": "a", "encoding_format": "hex"}, "encoding_format"),
        ({"input": ["a", None]}, "input"),
        ({"input": ["a", 1]}, "input"),
        ({"input": "a", "extra_body": {"input_type": "title"}}, "input_type"),
    ],
)
def test_what_cannot_be_answered_is_refused(client: openai.OpenAI, body: dict[str, Any], what: str) -> None:
    with pytest.raises(openai.UnprocessableEntityError) as caught:
        client.embeddings.create(model="default", **body)
    assert what in said(caught)["message"]


def test_a_lone_surrogate_is_refused(served: Any) -> None:
    with served.client("reader") as http:
        answer = http.post(
            "/v1/embeddings",
            content=rb'{"model": "default", "input": "a \ud800 b"}',
            headers={"content-type": "application/json"},
        )
    assert answer.status_code == 422
    assert "surrogate" in answer.json()["error"]["message"]


def test_only_models_of_the_server_are_known(client: openai.OpenAI) -> None:
    assert {model.id for model in client.models.list()} == {"default", "wide", "similarity"}
    for model in ("text-embedding-3-small", "similarity", "/etc/passwd", "all-MiniLM-L6-v2"):
        with pytest.raises(openai.NotFoundError) as caught:
            client.embeddings.create(model=model, input="a")
        assert said(caught)["code"] == "not_found"


def test_keys_are_checked_and_errors_have_their_shape(served: Any, client_of: Callable[[str], openai.OpenAI]) -> None:
    with openai.OpenAI(base_url=f"{served.url}/v1", api_key="gk_wrong", max_retries=0) as nobody:
        with pytest.raises(openai.AuthenticationError) as caught:
            nobody.embeddings.create(model="default", input="a")
        assert said(caught)["type"] == "authentication_error"
        with pytest.raises(openai.AuthenticationError):
            nobody.vector_stores.search("tales", query="fox")
    with pytest.raises(openai.PermissionDeniedError) as refused:
        client_of("metrics").embeddings.create(model="default", input="a")
    assert said(refused)["type"] == "permission_error"


# -- vector stores ---------------------------------------------------------------------------------------------------


def native(served: Any, query: str, **options: Any) -> list[dict[str, Any]]:
    with served.client("reader") as http:
        body = {"query": query, "group": "passage", **options}
        hits: list[dict[str, Any]] = (
            http.post("/v1/collections/tales/search", json=body).raise_for_status().json()["hits"]
        )
        return hits


def test_a_search_gives_the_passages_of_a_native_search(served: Any, client: openai.OpenAI) -> None:
    page = client.vector_stores.search("tales", query="dark wood", rewrite_query=True)
    assert page.object == "vector_store.search_results.page"
    assert page.model_extra == {"search_query": ["dark wood"], "has_more": False, "next_page": None}
    expected = native(served, "dark wood")
    assert len(expected) > 1
    stored = {tale["id"]: tale for tale in TALES}
    assert [(each.file_id, each.score) for each in page.data] == [(hit["id"], hit["score"]) for hit in expected]
    for each in page.data:
        tale = stored[each.file_id]
        assert each.filename == tale.get("title", each.file_id)
        assert each.attributes == tale["metadata"]
        assert [(content.type, content.text) for content in each.content] == [("text", tale["text"])]
    assert [each.file_id for each in client.vector_stores.search("stories", query="dark wood")] == [
        each.file_id for each in page.data
    ]


def test_filters_are_those_of_openai_and_ours(client: openai.OpenAI) -> None:
    def found(filters: Any) -> set[str]:
        return {each.file_id for each in client.vector_stores.search("tales", query="fox wood cat", filters=filters)}

    assert found({"type": "eq", "key": "tenant", "value": "b"}) == {"hen", "cat"}
    compound = {
        "type": "and",
        "filters": [{"type": "gte", "key": "n", "value": 2}, {"type": "nin", "key": "n", "value": [4]}],
    }
    assert found(compound) == {"hen", "owl"}
    assert found({"type": "exists", "key": "deep"}) == {"cat"}
    for wrong in ({"type": "like", "key": "n", "value": "a"}, {"type": "eq", "key": "n"}):
        with pytest.raises(openai.UnprocessableEntityError) as caught:
            client.vector_stores.search("tales", query="fox", filters=wrong)  # type: ignore[arg-type]
        assert "filter" in said(caught)["message"]


def test_results_are_bounded_by_number_and_by_score(client: openai.OpenAI) -> None:
    everything = client.vector_stores.search("tales", query="fox wood").data
    first, second = everything[:2]
    assert first.score > second.score
    assert client.vector_stores.search("tales", query="fox wood", max_num_results=1).data == [first]
    for threshold, expected in ((first.score, [first]), (second.score, everything[:2]), (1e9, [])):
        options = {"score_threshold": threshold}
        found = client.vector_stores.search("tales", query="fox wood", ranking_options=options)  # type: ignore[arg-type]
        assert found.data[: len(expected)] == expected
        assert all(each.score >= threshold for each in found.data)
    for number in (0, 51):
        with pytest.raises(openai.UnprocessableEntityError) as caught:
            client.vector_stores.search("tales", query="fox", max_num_results=number)
        assert said(caught)["param"] == "max_num_results"


def test_of_several_queries_each_passage_counts_with_its_best_score(served: Any, client: openai.OpenAI) -> None:
    queries = ["red fox", "cat milk", "owl"]
    page = client.vector_stores.search("tales", query=queries, max_num_results=3)
    best: dict[str, float] = {}
    for query in queries:
        for hit in native(served, query, k=3):
            best[hit["id"]] = max(hit["score"], best.get(hit["id"], float("-inf")))
    expected = sorted(best.values(), reverse=True)[:3]
    assert [each.score for each in page.data] == expected
    assert all(best[each.file_id] == each.score for each in page.data)
    assert (page.model_extra or {})["search_query"] == queries
    with pytest.raises(openai.UnprocessableEntityError) as caught:
        client.vector_stores.search("tales", query=["a"] * 4)
    assert "4 queries" in said(caught)["message"]


def test_a_reranker_of_the_server_can_be_the_ranker(client: openai.OpenAI) -> None:
    options: Any = {"ranker": "similarity"}
    page = client.vector_stores.search("tales", query="a fox in the wood", ranking_options=options)
    stored = {tale["id"]: " ".join(filter(None, (tale.get("title"), tale["text"]))) for tale in TALES}
    query, *rows = vectors_of(["a fox in the wood", *(stored[each.file_id] for each in page.data)])
    np.testing.assert_allclose([each.score for each in page.data], [float(row @ query) for row in rows], atol=1e-6)
    assert [each.score for each in page.data] == sorted((each.score for each in page.data), reverse=True)
    cut: Any = {"ranker": "similarity", "score_threshold": page.data[0].score}
    (best,) = client.vector_stores.search("tales", query="a fox in the wood", ranking_options=cut).data
    assert best.file_id == page.data[0].file_id
    plain = client.vector_stores.search("tales", query="fox").data
    for ranker in ("auto", "none", "default-2024-11-15"):
        same: Any = {"ranker": ranker}
        assert client.vector_stores.search("tales", query="fox", ranking_options=same).data == plain
    with pytest.raises(openai.UnprocessableEntityError) as caught:
        client.vector_stores.search("tales", query="fox", ranking_options={"ranker": "nobody"})  # type: ignore[arg-type]
    assert "similarity" in said(caught)["message"]


def test_a_tenant_finds_its_own_documents_only(client_of: Callable[[str], openai.OpenAI]) -> None:
    tenant = client_of("tenant")
    mine = {each.file_id for each in tenant.vector_stores.search("tales", query="fox hen cat wall milk")}
    assert mine == {"fox", "owl"}
    others: Any = {"type": "eq", "key": "tenant", "value": "b"}
    assert tenant.vector_stores.search("tales", query="hen", filters=others).data == []
    reranked = tenant.vector_stores.search("tales", query=["hen", "cat"], ranking_options={"ranker": "similarity"})  # type: ignore[arg-type]
    assert {each.file_id for each in reranked} <= {"fox", "owl"}


def test_what_is_not_there_is_not_found(client: openai.OpenAI) -> None:
    for name in ("nothing", "vs_abc123"):
        with pytest.raises(openai.NotFoundError) as caught:
            client.vector_stores.search(name, query="fox")
        assert said(caught)["code"] == "not_found"
    with pytest.raises(openai.UnprocessableEntityError):
        client.vector_stores.search("No Name!", query="fox")
    with pytest.raises(openai.UnprocessableEntityError):
        client.vector_stores.search("tales", query="")


async def test_the_asynchronous_client_works_too(served: Any) -> None:
    async with openai.AsyncOpenAI(base_url=f"{served.url}/v1", api_key=served.secrets["reader"]) as client:
        made = await client.embeddings.create(model="default", input=TEXTS[:1])
        np.testing.assert_array_equal(np.array([made.data[0].embedding], np.float32), vectors_of(TEXTS[:1]))
        found = [each.file_id async for each in client.vector_stores.search("tales", query="red fox")]
    assert found[0] == "fox"
