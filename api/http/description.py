"""The OpenAPI document: how to send a key, and which addresses need none."""

from typing import Any, Final

from fastapi import FastAPI

from api.http.middleware import is_public

_SCHEMES: Final = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "A key of this server."},
    "header": {"type": "apiKey", "in": "header", "name": "X-API-Key", "description": "The same key."},
}
_EITHER: Final[list[dict[str, list[str]]]] = [{name: []} for name in _SCHEMES]


def describe_access(app: FastAPI, *, has_keys: bool) -> None:
    """Let an application's OpenAPI document say what its middleware checks. has_keys: whether the server has any."""
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            value = generate()
            value.setdefault("components", {})["securitySchemes"] = _SCHEMES
            value["security"] = _EITHER if has_keys else [*_EITHER, {}]
            for path, operations in value["paths"].items():
                if is_public(path):
                    for operation in operations.values():
                        operation["security"] = []
        assert app.openapi_schema is not None, "generate keeps what it made"
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's way to change the document
