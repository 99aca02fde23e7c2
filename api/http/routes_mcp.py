"""MCP over streamable HTTP, stateless: every request is complete in itself, whoever sends it."""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from fastapi import APIRouter, Request
from pydantic import BaseModel
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from api.http.answers import JSON, check_media_type
from api.http.deps import Reader, problems
from api.http.dialects import said
from api.http.problems import request_id_of, value_of
from api.keys import Principal
from api.mcp import make_server
from api.mcp_libraries import ServiceLibrary
from api.service import Service
from index.errors import GrapnelError, MissingDependencyError

if TYPE_CHECKING:
    from mcp.server.context import ServerRequestContext
    from mcp.server.streamable_http_manager import StreamableHTTPSessionManager

router = APIRouter(tags=["MCP"])

_EXAMPLE: Final = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "tools/call",
    "params": {"name": "search", "arguments": {"query": "read a file line by line"}},
}


class RpcOut(BaseModel):
    """An answer of JSON-RPC: a result or an error."""

    jsonrpc: str
    id: int | str | None
    result: dict[str, Any] | None = None
    error: dict[str, Any] | None = None


def _answers() -> dict[int | str, dict[str, Any]]:
    """Return the documentation of what is answered: problems, and what the package `mcp` itself refuses."""
    answers = problems(501)
    for status in (400, 404):
        answers[status] = answers[status] | {"model": RpcOut, "description": "Problem (RFC 9457), or a JSON-RPC error"}
    answers[202] = {"description": "A notification was taken"}
    answers[406] = {"description": "The client must accept application/json"}
    return answers


class McpEndpoint:
    """The MCP server of a service, while it runs; without the package `mcp` there is none."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._manager: StreamableHTTPSessionManager | None = None

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Answer requests inside this context."""
        try:
            server = make_server(self._library)
        except MissingDependencyError:
            yield
            return
        from mcp.server.streamable_http_manager import StreamableHTTPSessionManager  # noqa: PLC0415  an extra

        logging.getLogger("mcp").setLevel(logging.WARNING)  # it has lines for every request
        manager = StreamableHTTPSessionManager(
            server, json_response=True, stateless=True, max_request_body_size=self._service.limits.body_bytes
        )
        async with manager.run():
            self._manager = manager
            try:
                yield
            finally:
                self._manager = None

    def _library(self, context: "ServerRequestContext[Any, Any]") -> ServiceLibrary:
        request = context.request
        assert isinstance(request, Request), "over HTTP, the package gives the request it answers"
        principal: Principal = request.scope["grapnel.principal"]
        return ServiceLibrary(self._service, principal, partial(_explain, request_id_of(request)))

    def answer(self) -> Response:
        """Return what answers a request once it is sent. Raises MissingDependencyError."""
        if self._manager is None:
            raise MissingDependencyError("the package mcp is not installed: pip install -e '.[mcp]'")
        return _Exchange(self._manager)


class _Exchange(Response):
    """A response that the package `mcp` makes of the whole request."""

    def __init__(self, manager: "StreamableHTTPSessionManager") -> None:
        super().__init__()
        self._manager = manager

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._manager.handle_request(scope, receive, send)


def _explain(request_id: str, error: GrapnelError) -> str:
    problem = value_of(error, request_id)
    again = f"; try again in {problem['retry_after_s']:g} s" if "retry_after_s" in problem else ""
    return said(problem) + again


@router.post(
    "/mcp",
    response_model=RpcOut,
    responses=_answers(),
    openapi_extra={
        "requestBody": {
            "required": True,
            "description": "A JSON-RPC message of the Model Context Protocol; use one of its clients.",
            "content": {"application/json": {"schema": {"type": "object"}, "example": _EXAMPLE}},
        }
    },
)
async def mcp(request: Request, principal: Reader) -> Response:  # noqa: ARG001  the key is what is checked
    """Answer a message of the Model Context Protocol: tools over the key's collections, as `tools/list` names them."""
    check_media_type(request, lambda given: given == JSON, JSON)
    endpoint: McpEndpoint = request.app.state.mcp
    return endpoint.answer()
