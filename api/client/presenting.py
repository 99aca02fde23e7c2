"""What both clients share beside operations: how methods show in help(), and how a client presents itself."""

import inspect
from collections.abc import Callable
from functools import update_wrapper
from typing import Any, TypeVar, get_args

import httpx

from index.errors import ConfigError

F = TypeVar("F", bound=Callable[..., Any])


def presented(method: F, make: Callable[..., Any], *, given: int) -> F:
    """Give `method` name and docstring of the operation it performs, the result's type, and its parameters.

    given: how many of these, the first ones, the method has from `self`.
    """
    update_wrapper(method, make)
    signature = inspect.signature(make)
    _, _, result = get_args(signature.return_annotation)
    own = inspect.Parameter("self", inspect.Parameter.POSITIONAL_ONLY)
    shown = signature.replace(parameters=[own, *list(signature.parameters.values())[given:]], return_annotation=result)
    method.__signature__ = shown  # type: ignore[attr-defined]  # inspect's hook
    return method


def server_url(url: str) -> str:
    """Return `url` without a slash at its end. Raises ConfigError where it is none of a server."""
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise ConfigError(f"url is {url!r}: {error}; expected http://HOST:PORT or https://HOST") from error
    if parsed.userinfo:
        raise ConfigError("url holds a user or password: the service knows keys only, give one as api_key")
    if parsed.scheme not in {"http", "https"} or not parsed.host or parsed.query or parsed.fragment:
        raise ConfigError(f"url is {url!r}, expected http://HOST:PORT or https://HOST, with a path at most")
    return url.rstrip("/")


def client_headers(api_key: str | None) -> dict[str, str]:
    """Return the headers of every request. Raises ConfigError on a key that no header can hold."""
    headers = {"User-Agent": "grapnel-python", "Accept": "application/json, application/problem+json"}
    if api_key is None:
        return headers
    if not (api_key.isascii() and api_key.isprintable() and api_key.strip() == api_key != ""):
        raise ConfigError(
            "api_key holds spaces around it or characters that no key has; expected gk_... as it was made"
        )
    return headers | {"Authorization": f"Bearer {api_key}"}
