"""What routes share: the service, who asks, what every route may answer."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Annotated, Any, Final, TypeAlias, TypeVar

from fastapi import Depends, Path, Request
from starlette.responses import Response

from api.http.answers import JsonResponse
from api.http.metrics import Metrics
from api.http.problems import MEDIA_TYPE
from api.http.schemas import ProblemOut
from api.keys import COLLECTION, Principal, Scope
from api.service import Service

T = TypeVar("T")

_LOOK_S = 0.1
"""How often a waiting request looks whether its client is still there."""


class ClientGoneError(ConnectionError):
    """The client left before its answer was ready: nobody reads what is sent now."""


def service_of(request: Request) -> Service:
    """Return the service of the application."""
    return request.app.state.service  # type: ignore[no-any-return]


def metrics_of(request: Request) -> Metrics:
    """Return the metrics of the application."""
    return request.app.state.metrics  # type: ignore[no-any-return]


def needs(scope: Scope) -> Callable[[Request], Awaitable[Principal]]:
    """Return a dependency that gives who asks, and refuses who lacks `scope` altogether.

    Whether the scope holds for a route's collection is for the service to say.
    """

    async def principal(request: Request) -> Principal:
        who: Principal = request.scope["grapnel.principal"]  # set by the middleware, or the path is public
        service_of(request).check(who, scope)
        return who

    principal.scope = scope  # type: ignore[attr-defined]  # tests look at which route needs what
    return principal


Reader: TypeAlias = Annotated[Principal, Depends(needs("read"))]
Writer: TypeAlias = Annotated[Principal, Depends(needs("write"))]
Admin: TypeAlias = Annotated[Principal, Depends(needs("admin"))]
Scraper: TypeAlias = Annotated[Principal, Depends(needs("metrics"))]

Collection: TypeAlias = Annotated[
    str, Path(pattern=f"^{COLLECTION}$", description="A collection's name, or an alias.", examples=["python-docs"])
]


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return the documentation of a route's problems: those every route may have, and `statuses`."""
    usual = (400, 401, 403, 404, 408, 413, 415, 422, 429, 431, 500, 503, 504, 507)
    schema = {"$ref": f"#/components/schemas/{ProblemOut.__name__}"}  # `model` would put it under application/json
    return {
        status: {"content": {MEDIA_TYPE: {"schema": schema}}, "description": "Problem (RFC 9457)"}
        for status in (*usual, *statuses)
    }


COMMON: Final = problems()


def seconds_of(milliseconds: int | None) -> float | None:
    """Return a time as the service takes it; None is what the server allows."""
    return None if milliseconds is None else milliseconds / 1000


async def while_connected(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """Return what `work` returns; cancel it when the client leaves, so that nobody computes what nobody reads."""
    task = asyncio.ensure_future(work)
    try:
        while not (await asyncio.wait((task,), timeout=_LOOK_S))[0]:
            if await request.is_disconnected():
                raise ClientGoneError("the client left")
        return task.result()
    finally:
        task.cancel()


async def written(request: Request, characters: int, make: Callable[[], Any]) -> Response:
    """Return what `make` makes of `characters` of text, as JSON; see `Service.made`."""
    return await service_of(request).made(characters, lambda: JsonResponse(make()))
