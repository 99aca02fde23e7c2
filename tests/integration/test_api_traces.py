"""Traces: a span for each request, its stages inside, under the caller's own span."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from api.http.app import create_app
from api.server_config import ServerConfig, parse_server
from api.service import Service
from retrieval.collection import Collection
from retrieval.collection_config import CollectionConfig
from retrieval.types import Document

pytest.importorskip("opentelemetry.sdk", reason="needs the extra otel")

TRACE = "0af7651916cd43dd8448eb211c80319c"


def test_a_search_leaves_spans_for_its_stages(
    tmp_path: Path, hashing_config: Callable[..., CollectionConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415  an extra
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor  # noqa: PLC0415
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter  # noqa: PLC0415

    with Collection.create(tmp_path / "c", hashing_config()) as collection:
        collection.add([Document("a", "an anchor")])
    spans = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(spans))
    monkeypatch.setattr("api.http.app.make_tracer", lambda _: provider.get_tracer("test"))
    service = Service(tmp_path, ServerConfig(encoders={}, rerankers={}))
    app = create_app(service)

    async def ask() -> httpx.Response:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            parent = {"traceparent": f"00-{TRACE}-b7ad6b7169203331-01"}
            return await client.post("/v1/collections/c/search", json={"query": "anchor"}, headers=parent)

    service.start().join()
    try:
        assert asyncio.run(ask()).status_code == 200
    finally:
        service.close(5)
    found = {span.name: span for span in spans.get_finished_spans()}
    request = found["POST /v1/collections/{collection}/search"]
    assert f"{request.context.trace_id:032x}" == TRACE
    assert request.attributes is not None
    assert request.attributes["http.response.status_code"] == 200
    stages = [span for name, span in found.items() if name.startswith("search ")]
    assert {"search encode", "search dense", "search lexical"} <= {span.name for span in stages}
    for span in stages:
        assert span.parent is not None
        assert span.parent.span_id == request.context.span_id


def test_console_and_none_are_what_a_configuration_may_ask_for() -> None:
    assert parse_server({"traces": {"exporter": "console"}}, "test").traces.exporter == "console"
    assert ServerConfig().traces.exporter == "none"
