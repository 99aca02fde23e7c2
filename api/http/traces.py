"""OpenTelemetry traces: a span for each request, with one for each stage of a search inside. Extra `otel`."""

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.server_config import TraceConfig
from index.errors import MissingDependencyError

if TYPE_CHECKING:
    from opentelemetry.trace import Tracer

_NS = 1_000_000_000


def make_tracer(config: TraceConfig) -> "Tracer | None":
    """Return what makes spans, None where the configuration wants none.

    "otlp" sends to where the variables OTEL_EXPORTER_OTLP_* say. Raises MissingDependencyError without the extra.
    """
    if config.exporter == "none":
        return None
    try:
        from opentelemetry.sdk.resources import Resource  # noqa: PLC0415  an extra
        from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
        from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter, SpanExporter  # noqa: PLC0415

        if config.exporter == "otlp":
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415

            exporter: SpanExporter = OTLPSpanExporter()
        else:
            exporter = ConsoleSpanExporter()
    except ImportError as error:
        raise MissingDependencyError(
            f"[traces].exporter is {config.exporter!r}, which needs the extra `otel`: pip install -e '.[otel]'"
        ) from error
    provider = TracerProvider(resource=Resource.create({"service.name": "grapnel"}))
    provider.add_span_processor(BatchSpanProcessor(exporter))
    return provider.get_tracer("grapnel")


class Traces:
    """Puts a span around every request, under the caller's own where it sends a `traceparent`."""

    def __init__(self, app: ASGIApp, tracer: "Tracer") -> None:
        self._app = app
        self._tracer = tracer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        from opentelemetry.propagate import extract  # noqa: PLC0415  an extra
        from opentelemetry.trace import SpanKind, StatusCode  # noqa: PLC0415

        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        with self._tracer.start_as_current_span(
            scope["method"], context=extract(headers), kind=SpanKind.SERVER
        ) as span:
            span.set_attribute("http.request.method", scope["method"])
            span.set_attribute("grapnel.request_id", scope["grapnel.request_id"])

            async def sending(message: Message) -> None:
                if message["type"] == "http.response.start":
                    route = getattr(scope.get("route"), "path", "(none)")
                    span.update_name(f"{scope['method']} {route}")
                    span.set_attribute("http.route", route)
                    span.set_attribute("http.response.status_code", message["status"])
                    if message["status"] >= 500:
                        span.set_status(StatusCode.ERROR)
                await send(message)

            await self._app(scope, receive, sending)


def record_stages(tracer: "Tracer", timings_s: Mapping[str, float]) -> None:
    """Add the stages of a search that has just been answered to the current span, one after the other."""
    start = time.time_ns() - round(sum(timings_s.values()) * _NS)
    for stage, seconds in timings_s.items():
        end = start + round(seconds * _NS)
        tracer.start_span(f"search {stage}", start_time=start).end(end)
        start = end
