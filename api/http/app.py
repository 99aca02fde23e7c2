"""The application: routes, problems, middleware, the page."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.responses import FileResponse, Response

from api.http import problems, routes_collections, routes_documents, routes_health, routes_search
from api.http.metrics import Metrics
from api.http.middleware import Access, Bodies, Requests
from api.http.traces import Traces, make_tracer
from api.service import Service

VERSION = "1"

_WEB = Path(__file__).parents[1] / "web"
_TYPES = {".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
_PAGE_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; object-src 'none'; "
        "require-trusted-types-for 'script'"
    ),
    "Cache-Control": "no-cache",
}
_DESCRIPTION = """Collections of documents that are searched while they are written to: dense, lexical and fused.

Errors are problems of RFC 9457. Where the server has keys, send one as `Authorization: Bearer KEY`."""


def create_app(service: Service) -> FastAPI:
    """Return the application over a service; it starts the service when it starts, and leaves closing to its owner."""
    metrics = Metrics(service)
    tracer = make_tracer(service.config.traces)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        service.start()
        yield

    app = FastAPI(
        title="grapnel",
        version=VERSION,
        description=_DESCRIPTION,
        lifespan=lifespan,
        docs_url=None,  # its scripts come from elsewhere
        redoc_url=None,
        redirect_slashes=False,
        middleware=[
            Middleware(Requests, metrics=metrics, slow_ms=service.config.log.slow_ms),
            *([] if tracer is None else [Middleware(Traces, tracer=tracer)]),
            Middleware(Access, keys=service.keys, trusted_hosts=service.config.trusted_hosts()),
            Middleware(Bodies, limits=service.limits),
        ],
    )
    app.state.service = service
    app.state.metrics = metrics
    problems.install(app)
    for routes in (routes_collections, routes_documents, routes_search, routes_health):
        app.include_router(routes.router)
    _add_page(app)
    return app


def _add_page(app: FastAPI) -> None:
    files = {path.name: path for path in _WEB.iterdir() if path.suffix in _TYPES}

    def file(name: str) -> Response:
        if name not in files:
            raise HTTPException(404)
        path = files[name]
        return FileResponse(path, media_type=_TYPES[path.suffix], headers=_PAGE_HEADERS)

    @app.get("/", include_in_schema=False)
    async def page() -> Any:
        return file("index.html")

    @app.get("/web/{name}", include_in_schema=False)
    async def part(name: str) -> Any:
        return file(name)
