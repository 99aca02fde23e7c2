"""Bodies in and out: strict JSON from clients, fast JSON to them."""

import json
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

import orjson
from fastapi import Request
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.responses import Response

JSON = "application/json"


class JsonResponse(Response):
    """A JSON body. Floats are written shortest, NaN (which nothing here should hold) as null."""

    def __init__(
        self,
        content: Any,
        status_code: int = 200,
        headers: Mapping[str, str] | None = None,
        media_type: str = JSON,
    ) -> None:
        super().__init__(content, status_code, headers, media_type)

    def render(self, content: Any) -> bytes:
        """Return the bytes of a body."""
        try:
            return orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY)
        except orjson.JSONEncodeError:  # a message repeats a lone surrogate that the client sent
            return json.dumps(content, ensure_ascii=False).encode("utf-8", "replace")


def _refuse(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON: use a finite number or null")


def read_json(body: bytes) -> Any:
    """Parse JSON. Raises JSONDecodeError on anything else: other encodings, NaN, extreme numbers or depth.

    By the standard library, not orjson, which turns integers beyond 64 bits into floats without a word.
    """
    try:
        return json.loads(body.decode(), parse_constant=_refuse)
    except json.JSONDecodeError:
        raise
    except RecursionError as error:
        raise json.JSONDecodeError("nested too deeply", "", 0) from error
    except ValueError as error:
        raise json.JSONDecodeError(str(error)[:200], "", 0) from error


class _Request(Request):
    async def json(self) -> Any:
        if not hasattr(self, "_json"):
            self._json = read_json(await self.body())
        return self._json


def check_media_type(request: Request, accepted: Callable[[str], bool], wanted: str) -> None:
    """Raise HTTPException 415 unless `accepted` takes the type of a body. wanted: what to send, for the message."""
    given = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if not accepted(given):
        raise HTTPException(415, f"the body is {given[:80]!r}: send it with Content-Type {wanted}")


def _is_json(media_type: str) -> bool:
    return media_type == JSON or (media_type.startswith("application/") and media_type.endswith("+json"))


class StrictRoute(APIRoute):
    """A route that takes bodies as JSON alone and reads them with `read_json`."""

    def get_route_handler(self) -> Callable[[Request], Any]:
        """Return the handler that gets requests of our class."""
        handler = super().get_route_handler()

        async def strict(request: Request) -> Response:
            if self.body_field is not None:
                check_media_type(request, _is_json, JSON)
            return await handler(_Request(request.scope, request.receive))

        return strict
