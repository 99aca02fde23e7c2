"""Liveness, readiness, metrics."""

from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from api.http.answers import JsonResponse
from api.http.deps import COMMON, Scraper, metrics_of, service_of

router = APIRouter(tags=["health"])

_PROMETHEUS = "text/plain; version=0.0.4; charset=utf-8"


@router.get("/health/live", response_model=dict[str, str])
async def live() -> Response:
    """Answer while the process works at all."""
    return JsonResponse({"status": "live"})


@router.get("/health/ready", response_model=dict[str, Any], responses={503: {"description": "Not yet, or no longer"}})
async def ready(request: Request) -> Response:
    """Answer 200 once models are loaded and collections open, as far as they can be opened."""
    service = service_of(request)
    failed = [served.name for served in service.registry.all() if served.state == "failed"]
    status = "ready" if service.ready else "failed" if service.failure is not None else "starting"
    return JsonResponse({"status": status, "failed_collections": len(failed)}, 200 if service.ready else 503)


@router.get("/metrics", response_class=Response, responses={**COMMON, 200: {"content": {_PROMETHEUS: {}}}})
async def metrics(request: Request, principal: Scraper) -> Response:  # noqa: ARG001  the key is what is checked
    """Return metrics in Prometheus' text format."""
    return Response(metrics_of(request).text(), media_type=_PROMETHEUS)
