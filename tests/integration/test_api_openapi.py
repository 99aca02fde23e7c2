"""The OpenAPI document: what it promises stays, is complete, and is what the server does (schemathesis).

An address that is meant to be new or to change: `python tests/integration/test_api_openapi.py` writes the golden.
"""

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from api.http.app import create_app
from api.server_config import ServerConfig
from api.service import Service
from retrieval.encoders import EncoderConfig

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
GOLDEN = ROOT / "tests" / "golden" / "openapi.txt"

PROBLEM = "application/problem+json"
NATIVE = ("/v1/collections", "/v1/aliases", "/v1/jobs", "/v1/search", "/v1/models")

SCHEMATHESIS = """
[checks]
enabled = true

[checks.not_a_server_error]
# 504 is what a search gets that asks for an answer in `timeout_ms` and cannot have it: asked for, and documented.
expected-statuses = ["2xx", "3xx", "4xx", 504]

[checks.positive_data_acceptance]
# 412 and 422 besides the usual: what cannot be said in a schema is refused by them, as documented. A document needs a
# text, a title or a vector; a filter has a grammar with limits on its depth; vectors have their field's dimension; a
# mode, a model, a document to start from must exist; and every server has its own [limits].
expected-statuses = ["2xx", "3xx", 401, 403, 404, 409, 412, 413, 422, 429, "5xx"]

[[operations]]
include-path = "/mcp"
# A call of JSON-RPC that is none is answered by the package `mcp`, with its own 400.
checks.positive_data_acceptance.expected-statuses = ["2xx", 400, 401, 403, 406, 413, 422, 501]

[[operations]]
include-path-regex = "/documents/(get|list|count|delete)$"
# Documents may have these words as ids, so the address has more methods than this operation's: rightly allowed.
checks.allow_header_conformance.enabled = false

[[operations]]
include-path-regex = "/bulk$"
# What is wrong with a line of a stream is said in its answer, 200: the other lines are stored.
checks.negative_data_rejection.enabled = false
"""


# -- the document ----------------------------------------------------------------------------------------------------


def document(root: Path) -> dict[str, Any]:
    """Return the OpenAPI document of a server without keys."""
    service = Service(root, ServerConfig(encoders={"default": EncoderConfig(kind="hashing", dim=8)}, rerankers={}))
    try:
        value: dict[str, Any] = create_app(service).openapi()
        return value
    finally:
        service.close(1.0)


@pytest.fixture(scope="module")
def described(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return document(tmp_path_factory.mktemp("root"))


def operations(described: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, methods in described["paths"].items():
        for method, operation in methods.items():
            yield method.upper(), path, operation


def _type_of(content: dict[str, Any]) -> str:
    """Return the schema of a body in one word: the name of a model, or what it is made of."""
    names = []
    for media, value in content.items():
        schema = value.get("schema", {})
        refs = [each["$ref"].rpartition("/")[2] for each in schema.get("anyOf", [schema]) if "$ref" in each]
        name = "|".join(refs) or str(schema.get("type", "any"))
        names.append(name if media == "application/json" else f"{name} as {media}")
    return ", ".join(sorted(names)) or "nothing"


def summary(described: dict[str, Any]) -> str:
    """Return what clients depend on: a line for each operation, and one for each member of each model."""
    lines = []
    for method, path, operation in operations(described):
        parameters = sorted(
            f"{each['name']}{'' if each.get('required') else '?'} in {each['in']}"
            for each in operation.get("parameters", [])
        )
        body = _type_of(operation.get("requestBody", {}).get("content", {}))
        statuses = operation["responses"]
        good = [f"{status} {_type_of(statuses[status].get('content', {}))}" for status in statuses if status < "400"]
        bad = " ".join(sorted(status for status in statuses if status >= "400"))
        lines.append(f"{method} {path} ({', '.join(parameters)}) {body} -> {'; '.join(good)}; {bad}")
    lines.sort(key=lambda line: line.split()[1::-1])
    for name, schema in sorted(described["components"]["schemas"].items()):
        required = set(schema.get("required", ()))
        members = (f"{each}{'' if each in required else '?'}" for each in schema.get("properties", {}))
        lines.append(f"{name}: {' '.join(members)}")
    return "\n".join([*lines, ""])


def test_addresses_and_models_are_those_that_clients_know(described: dict[str, Any]) -> None:
    assert summary(described).splitlines() == GOLDEN.read_text("utf-8").splitlines()


def test_every_operation_says_what_it_does_and_how_it_fails(described: dict[str, Any]) -> None:
    names = [operation["operationId"] for *_, operation in operations(described)]
    assert len(set(names)) == len(names)
    for method, path, operation in operations(described):
        where = f"{method} {path}"
        assert operation.get("description"), where
        assert operation.get("tags"), where
        assert any(status < "400" for status in operation["responses"]), where
        if not path.startswith(NATIVE):
            continue
        for status in ("400", "401", "403", "422", "429", "500", "503"):
            answer = operation["responses"][status]
            assert answer["content"] == {PROBLEM: {"schema": {"$ref": "#/components/schemas/ProblemOut"}}}, where
        if method == "POST" and "requestBody" in operation:
            assert "415" in operation["responses"], where


def test_every_reference_leads_somewhere(described: dict[str, Any]) -> None:
    def references(value: Any) -> Iterator[str]:
        if isinstance(value, dict):
            if isinstance(value.get("$ref"), str):
                yield value["$ref"]
            for each in value.values():
                yield from references(each)
        elif isinstance(value, list):
            for each in value:
                yield from references(each)

    for reference in set(references(described)):
        found: Any = described
        for part in reference.removeprefix("#/").split("/"):
            found = found[part]
        assert found, reference


# -- the server ------------------------------------------------------------------------------------------------------


def schemathesis(server: Any, folder: Path, *options: str) -> int:
    """Let schemathesis look for what the server answers otherwise than documented; return how many requests it sent."""
    config = folder / "schemathesis.toml"
    config.write_text(SCHEMATHESIS, encoding="utf-8")
    key = server.secrets["admin"]
    command = [sys.executable, "-m", "schemathesis.cli", "--config-file", config, "--no-color", "run"]
    told = ["-H", f"Authorization: Bearer {key}", "--continue-on-failure", "--warnings", "off"]
    ended = subprocess.run(
        [*command, f"{server.url}/openapi.json", *told, "--suppress-health-check", "all", *options],
        cwd=folder,
        env={
            **os.environ,
            "GRAPNEL_URL": server.url,
            "GRAPNEL_KEY": key,
            "SCHEMATHESIS_HOOKS": "schemathesis_hooks",
            "PYTHONPATH": str(HERE),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout[-20_000:] + ended.stderr[-5_000:]
    sent = re.search(r"([0-9]+) generated", ended.stdout)
    assert sent, ended.stdout
    return int(sent[1])


@pytest.fixture(scope="module")
def server(start_server: Callable[..., Any]) -> Any:
    """A server with the collection that the document's examples name, and with the fields that they name."""
    server = start_server(keys={"admin": {"scopes": ["admin"]}})
    with server.client("admin") as client:
        fields = {
            "dense": {"kind": "dense", "encoder": "default"},
            "lexical": {"kind": "lexical"},
            "phrases": {"kind": "substring"},
        }
        client.post("/v1/collections", json={"name": "python-docs", "fields": fields}).raise_for_status()
    return server


def test_the_server_does_what_the_document_says(server: Any, tmp_path: Path) -> None:
    few = ("--phases", "examples,fuzzing,stateful", "--max-examples", "10", "--seed", "4")
    assert schemathesis(server, tmp_path, *few) >= 500


@pytest.mark.slow
def test_the_server_does_what_the_document_says_at_length(server: Any, tmp_path: Path) -> None:
    assert schemathesis(server, tmp_path, "--max-examples", "100") >= 5_000


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        GOLDEN.write_text(summary(document(Path(folder))), encoding="utf-8")


if __name__ == "__main__":
    main()
