"""What the dialects share: the shape of their errors wherever these come from, overload, models, their description."""

import asyncio
import json
import re
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from fastapi.routing import APIRoute

from api.http import cohere, openai, tei
from api.http.app import create_app
from api.server_config import ServerConfig
from api.service import Service
from index.types import Vectors
from retrieval.encoders import EncoderConfig, open_encoder
from retrieval.types import Query

OPENAI, COHERE, TEI = {"error"}, {"id", "message"}, {"error", "error_type"}
SHAPES = {
    **dict.fromkeys([route.path for route in openai.router.routes if isinstance(route, APIRoute)], OPENAI),
    **dict.fromkeys([route.path for route in cohere.router.routes if isinstance(route, APIRoute)], COHERE),
    **dict.fromkeys([route.path for route in cohere.shared.routes if isinstance(route, APIRoute)], COHERE | TEI),
    **dict.fromkeys([route.path for route in tei.router.routes if isinstance(route, APIRoute)], TEI),
}
POSTED = sorted(SHAPES.keys() - {"/info", "/health"})
BODIES: dict[str, list[dict[str, Any]]] = {
    "/v1/embeddings": [{"model": "default", "input": "a"}],
    "/embed": [{"inputs": "a"}],
    "/similarity": [{"inputs": {"source_sentence": "a", "sentences": ["b"]}}],
    "/v1/rerank": [{"query": "a", "documents": ["b"]}],
    "/v2/rerank": [{"query": "a", "documents": ["b"]}],
    "/rerank": [{"query": "a", "documents": ["b"]}, {"query": "a", "texts": ["b"]}],
    "/v1/vector_stores/{collection}/search": [{"query": ["a", "b", "c"]}],
}
SETTINGS = [
    'encoders.default.kind="hashing"',
    "encoders.default.dim=64",
    'rerankers.similarity.encoder.kind="hashing"',
    "rerankers.similarity.encoder.dim=64",
    "limits.queue=2",
]


def test_every_route_of_a_dialect_is_known_here() -> None:
    assert set(BODIES) == set(POSTED)
    assert set(SHAPES) - set(POSTED) == {"/info", "/health"}


@pytest.fixture(scope="module")
def served(start_server: Callable[..., Any]) -> Any:
    return start_server(
        {"limits": {"body_bytes": 10_000}}, {"reader": {"scopes": ["read"]}, "writer": {"scopes": ["write"]}}
    )


@pytest.mark.parametrize("path", POSTED)
def test_every_error_has_the_shape_of_the_dialect(served: Any, path: str) -> None:
    address = path.replace("{collection}", "nothing")
    body = BODIES[path][0]
    json_type = {"Content-Type": "application/json"}
    with served.client("reader") as http, served.client() as stranger, served.client("writer") as writer:
        answers = {
            401: stranger.post(address, json=body),
            403: writer.post(address, json=body),
            405: http.put(address, json=body),
            400: http.post(address, content=b"{", headers=json_type),
            413: http.post(address, json={**body, "more": "x" * 10_000}),
            415: http.post(address, content=json.dumps(body), headers={"Content-Type": "text/plain"}),
            422: http.post(address, json={}),
        }
        unknown = http.post(address, json={**body, "model": "nothing"})
        hostile = http.post(address, json=body, headers={"Host": "x" * 300, "Origin": "https://elsewhere.example"})
    for status, answer in answers.items():
        assert answer.status_code == status, answer.text
        check_shape(answer, SHAPES[path])
    assert unknown.status_code == (200 if path in {"/embed", "/similarity"} else 404)
    assert hostile.status_code == 403
    check_shape(hostile, SHAPES[path])


def check_shape(answer: httpx.Response, shape: set[str]) -> None:
    value = answer.json()
    assert answer.headers["content-type"] == "application/json"
    assert int(answer.headers["content-length"]) == len(answer.content)
    assert answer.headers["x-request-id"]
    assert set(value) == shape
    if shape == OPENAI:
        assert set(value["error"]) == {"message", "type", "param", "code"}
        assert value["error"]["message"]
    if "message" in shape:
        assert value["message"]
        assert value["id"] == answer.headers["x-request-id"]
    if "error_type" in shape:
        assert value["error"]
        assert value["error_type"] in {"validation", "overloaded", "unhealthy", "backend"}


def test_a_client_that_accepts_problems_gets_them(served: Any) -> None:
    with served.client(
        "reader",
    ) as http:
        http.headers["Accept"] = "application/json, application/problem+json"
        for path in POSTED:
            answer = http.post(path.replace("{collection}", "nothing"), json={})
            assert answer.headers["content-type"] == "application/problem+json"
            assert answer.json()["type"] == "grapnel:invalid"


def test_bodies_with_lone_surrogates_and_extreme_values_are_refused_or_answered(served: Any) -> None:
    odd = [b'"\\ud800"', b"1e999", b"NaN", b"null", b"[[[[]]]]", b'{"a": {}}', b"1" * 400, b'"\\u0000"']
    with served.client("reader") as http:
        for path in POSTED:
            for body in BODIES[path]:
                for member in [*body, "top_n", "dimensions", "filters", "ranking_options"]:
                    for value in odd:
                        others = {key: each for key, each in body.items() if key != member}
                        content = json.dumps(others)[:-1].encode() + b', "' + member.encode() + b'": ' + value + b"}"
                        content = content.replace(b"{,", b"{")
                        answer = http.post(
                            path.replace("{collection}", "nothing"),
                            content=content,
                            headers={"Content-Type": "application/json"},
                        )
                        assert answer.status_code in {200, 400, 404, 422}, (path, content, answer.text)


# -- overload --------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def running(folder: Path) -> AsyncIterator[tuple[Service, httpx.AsyncClient]]:
    """An application in this process, ready, whose workers a test can keep busy."""
    service = Service(folder, ServerConfig.read(None, SETTINGS))
    app = create_app(service)
    async with app.router.lifespan_context(app):
        async with asyncio.timeout(60.0):
            while not service.ready:
                assert service.failure is None
                await asyncio.sleep(0.01)
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            yield service, client
    assert service.close(10)


@asynccontextmanager
async def all_busy(service: Service) -> AsyncIterator[None]:
    """Fill the threads for reading and for models, and the queues before them."""
    until, calls = threading.Event(), []
    try:
        for workers in (service.reads, service.model_calls):
            while True:
                calls.append(asyncio.ensure_future(workers.run(until.wait)))
                await asyncio.sleep(0)
                if calls[-1].done():
                    calls.pop().exception()
                    break
        yield
    finally:
        until.set()
        await asyncio.gather(*calls)


async def test_overload_is_429_with_the_time_to_come_back(tmp_path: Path) -> None:
    async with running(tmp_path) as (service, client):
        (await client.post("/v1/collections", json={"name": "c"})).raise_for_status()
        document = {"id": "a", "text": "b", "metadata": {}}
        (await client.post("/v1/collections/c/documents", json={"documents": [document]})).raise_for_status()
        async with all_busy(service):
            for path, bodies in BODIES.items():
                for body in bodies:
                    if path.startswith("/v1/vector_stores"):
                        continue  # searches wait in another queue, which is looked at below
                    answer = await client.post(path, json=body)
                    assert answer.status_code == 429, path
                    assert int(answer.headers["retry-after"]) >= 1
                    check_shape(answer, SHAPES[path])
            call = {"jsonrpc": "2.0", "id": 1, "method": "tools/call"}
            fetch = {**call, "params": {"name": "fetch", "arguments": {"id": "c/a"}}}
            told = (await client.post("/mcp", json=fetch, headers={"Accept": "application/json"})).json()["result"]
            assert told["isError"]
            assert re.search(r"try again in \d", told["content"][0]["text"])
        for path, bodies in BODIES.items():
            for body in bodies:
                answer = await client.post(path.replace("{collection}", "c"), json=body)
                assert answer.status_code == 200, (path, answer.text)
        searches = (client.post("/v1/vector_stores/c/search", json={"query": ["b", "c"]}) for _ in range(40))
        answers = await asyncio.gather(*searches)
    refused = [answer for answer in answers if answer.status_code == 429]
    assert refused
    assert {answer.status_code for answer in answers} == {200, 429}
    for answer in refused:
        assert answer.headers["retry-after"]
        assert answer.json()["error"]["type"] == "rate_limit_error"
        check_shape(answer, OPENAI)


async def test_a_defect_has_the_shape_of_the_dialect_and_tells_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(tmp_path) as (service, client):

        def broken(*_: object) -> None:
            raise ZeroDivisionError("a secret")

        monkeypatch.setattr(service.models, "embed", broken)
        monkeypatch.setattr(service.models, "rerank", broken)
        monkeypatch.setattr(service, "readable", broken)
        for path, bodies in BODIES.items():
            if not path.startswith("/v1/vector_stores"):
                for body in bodies:
                    answer = await client.post(path, json=body)
                    assert answer.status_code == 500
                    assert "secret" not in answer.text
                    check_shape(answer, SHAPES[path])
        call = {"jsonrpc": "2.0", "id": 1, "method": "tools/call"}
        search = {**call, "params": {"name": "search", "arguments": {"query": "a"}}}
        answer = await client.post("/mcp", json=search, headers={"Accept": "application/json"})
        assert answer.json()["result"]["isError"]
        assert "secret" not in answer.text


# -- description -----------------------------------------------------------------------------------------------------


def test_every_route_is_described_with_an_example_and_its_errors(served: Any) -> None:
    with served.client() as http:
        document = http.get("/openapi.json").raise_for_status().json()
    schemas = document["components"]["schemas"]

    def has_example(value: Any) -> bool:
        if isinstance(value, list):
            return any(map(has_example, value))
        if not isinstance(value, dict):
            return False
        if "example" in value or "examples" in value:
            return True
        reference = value.get("$ref", "").removeprefix("#/components/schemas/")
        return (reference and has_example(schemas[reference])) or any(map(has_example, value.values()))

    for path in [*SHAPES, "/mcp"]:
        for operation in document["paths"][path].values():
            assert operation["description"]
            assert path in {"/info", "/health"} or has_example(operation["requestBody"])
            assert path == "/health" or {"401", "422", "429", "503"} <= operation["responses"].keys()


# -- with a model ----------------------------------------------------------------------------------------------------

MODEL = {"kind": "sentence-transformers", "backend": "torch", "max_tokens": 32}
LONG = "the fox ran into the wood " * 20


@pytest.fixture(scope="module")
def modelled(start_server: Callable[..., Any]) -> Iterator[httpx.Client]:
    """MiniLM, cut to 32 tokens; `default` is declared a Matryoshka model, `asking` has a prompt for queries."""
    encoders = {"default": {**MODEL, "dim": 384}, "asking": {**MODEL, "query_prompt": "query: "}}
    server = start_server({"encoders": encoders, "rerankers": {"similarity": {"encoder": MODEL}}})
    with server.client() as client:
        yield client


def made(client: httpx.Client, path: str = "/v1/embeddings", **body: Any) -> Any:
    return client.post(path, json=body).raise_for_status().json()


def rows(answer: Any) -> Vectors:
    return np.array([each["embedding"] for each in answer["data"]], dtype=np.float32)


@pytest.mark.model
def test_a_model_is_asked_by_side_cut_to_length_and_told_what_was_truncated(modelled: httpx.Client) -> None:
    texts = ["a fox in the wood", "hens"]
    encoder = open_encoder(EncoderConfig(backend="torch", max_tokens=32, query_prompt="query: "))
    passages, queries = (
        encoder.encode_texts(texts).vectors,
        encoder.encode_queries([Query("q", text) for text in texts]),
    )
    assert np.abs(passages - queries).max() > 0.01
    np.testing.assert_allclose(rows(made(modelled, input=texts, model="asking")), passages, atol=2e-5)
    asked = made(modelled, input=texts, model="asking", input_type="query")
    np.testing.assert_allclose(rows(asked), queries, atol=2e-5)
    np.testing.assert_allclose(made(modelled, "/embed", inputs=texts), passages, atol=2e-5)

    short = passages[:, :100] / np.linalg.norm(passages[:, :100], axis=1, keepdims=True)
    np.testing.assert_allclose(rows(made(modelled, input=texts, model="default", dimensions=100)), short, atol=2e-5)
    np.testing.assert_allclose(made(modelled, "/embed", inputs=texts, dimensions=100), short, atol=2e-5)
    refused = modelled.post("/v1/embeddings", json={"input": texts, "model": "asking", "dimensions": 100})
    assert refused.status_code == 422

    usage = made(modelled, input=[*texts, LONG], model="default")
    assert usage["truncated"] == 1
    assert usage["usage"]["total_tokens"] == (5 + 2) + (1 + 2 + 1) + (6 * 20 + 2)  # `hens` is two pieces


@pytest.mark.model
def test_what_is_longer_than_the_window_is_refused_unless_it_may_be_cut(modelled: httpx.Client) -> None:
    for path, body in (("/embed", {"inputs": ["a", LONG]}), ("/rerank", {"query": "a", "texts": ["a", LONG]})):
        answer = modelled.post(path, json=body)
        assert answer.status_code == 413
        assert answer.json()["error_type"] == "validation"
        assert "window" in answer.json()["error"]
        assert len(made(modelled, path, **body, truncate=True)) == 2
    assert modelled.get("/info").json()["max_input_length"] == 32
    (warning,) = made(modelled, "/v2/rerank", query="a", documents=["a", LONG])["meta"]["warnings"]
    assert warning.startswith("rerank_truncated=1")
