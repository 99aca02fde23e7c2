"""What schemathesis needs to know of the server beyond its OpenAPI document; loaded by its own process."""

import json
import os
import urllib.request
from typing import Any

import schemathesis

NAME = "python-docs"
"""The collection of the document's examples: requests that name it reach beyond `not found`."""

FIELDS = {
    "dense": {"kind": "dense", "encoder": "default"},
    "lexical": {"kind": "lexical"},
    "phrases": {"kind": "substring"},
}
DOCUMENTS = [
    {"id": f"json.dumps{n or ''}", "text": f"Serialize obj to JSON, part {n}.", "metadata": {"kind": "function"}}
    for n in range(12)
]


@schemathesis.serializer("application/x-ndjson")
def lines(_: Any, value: Any) -> bytes:
    """Send a generated text as the stream that it is."""
    return value.encode("utf-8", "surrogatepass") if isinstance(value, str) else json.dumps(value).encode()


def ask(path: str, body: dict[str, Any]) -> None:
    headers = {"Authorization": f"Bearer {os.environ['GRAPNEL_KEY']}", "Content-Type": "application/json"}
    url = os.environ["GRAPNEL_URL"] + path
    with urllib.request.urlopen(urllib.request.Request(url, json.dumps(body).encode(), headers), timeout=30):  # noqa: S310  loopback
        pass


@schemathesis.hook
def after_call(_context: Any, case: Any, response: Any) -> None:
    """Make the collection again where a test deleted it, so that the others still find it."""
    if (
        case.method == "DELETE"
        and response.status_code == 204
        and response.request.url.endswith(f"/collections/{NAME}")
    ):
        ask("/v1/collections", {"name": NAME, "fields": FIELDS})
        ask(f"/v1/collections/{NAME}/documents", {"documents": DOCUMENTS})
