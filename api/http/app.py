"""The application: routes, problems, middleware, the page."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.responses import FileResponse, Response

from api.http import (
    cohere,
    openai,
    problems,
    routes_collections,
    routes_documents,
    routes_health,
    routes_mcp,
    routes_phrases,
    routes_search,
    tei,
)
from api.http.description import describe_access
from api.http.dialects import Dialects
from api.http.metrics import Metrics
from api.http.middleware import Access, Admission, Bodies, Requests, note_search
from api.http.traces import Traces, make_tracer, record_stages
from api.service import Answer, SearchSpec, Service

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

Errors are problems of RFC 9457. Where the server has keys, send one as `Authorization: Bearer KEY`.

Some addresses are those of other servers (OpenAI, Cohere, TEI), so that their clients work here: errors there have the
shape that these clients read (problems for who accepts `application/problem+json`), and members of a body that mean
nothing here are ignored."""

_DIALECTS = (openai.DIALECT, cohere.DIALECT, cohere.SHARED, tei.DIALECT)


def create_app(service: Service) -> FastAPI:
    """Return the application over a service; it starts the service when it starts, and leaves closing to its owner."""
    metrics = Metrics(service)
    tracer = make_tracer(service.config.traces)
    mcp = routes_mcp.McpEndpoint(service)

    def observe(collection: str, spec: SearchSpec, answer: Answer) -> None:
        metrics.search(answer.ranking)
        note_search(collection, spec, answer)
        if tracer is not None:
            record_stages(tracer, answer.ranking.timings_s)

    service.observe = observe

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        service.start()
        async with mcp.running():
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
            Middleware(Dialects, dialects=_DIALECTS),
            Middleware(Requests, metrics=metrics, slow_ms=service.config.log.slow_ms),
            *([] if tracer is None else [Middleware(Traces, tracer=tracer)]),
            Middleware(Access, keys=service.keys, trusted_hosts=service.config.trusted_hosts()),
            Middleware(Admission, admit=service.admit),
            Middleware(Bodies, limits=service.limits),
        ],
    )
    app.state.service = service
    app.state.metrics = metrics
    app.state.mcp = mcp
    problems.install(app)
    for routes in (routes_collections, routes_documents, routes_search, routes_phrases, routes_health, routes_mcp):
        app.include_router(routes.router)
    for dialect in _DIALECTS:
        app.include_router(dialect.router)
    _add_page(app)
    describe_access(app, has_keys=len(service.keys) > 0)
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
