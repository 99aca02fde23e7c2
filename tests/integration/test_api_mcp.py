"""The MCP server, spoken to by the official client: over HTTP to a real server process, and over stdio."""

import json
import socket
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import command_line
import httpx2
import mcp_types
import pytest
from command_line import COMMAND, ROOT, grapnel
from mcp import Client, MCPError, StdioServerParameters
from mcp.client.streamable_http import streamable_http_client

MODES = ["auto", "legacy", "2026-07-28"]

TALES: list[dict[str, Any]] = [
    {
        "id": "a/fox",
        "title": "The Fox",
        "text": "A red fox ran into the dark wood. " * 40,
        "metadata": {"tenant": "a", "url": "https://tales.example/fox"},
    },
    {"id": "hen", "text": "A hen sat on a wall.", "metadata": {"tenant": "b", "url": "javascript:alert(1)"}},
]
SONGS: list[dict[str, Any]] = [
    {"id": "owl ü?", "title": "Owl", "text": "An owl sang of a red fox.", "metadata": {"tenant": "a", "n": 1}}
]


@pytest.fixture(scope="module")
def served(start_server: Callable[..., Any]) -> Any:
    keys = {
        "root": {"scopes": ["admin"]},
        "reader": {"scopes": ["read"]},
        "singer": {"scopes": ["read"], "collections": ["song*"]},
        "tenant": {"scopes": ["read"], "filter": {"type": "eq", "key": "tenant", "value": "a"}},
        "writer": {"scopes": ["write"]},
        "waiting": {"scopes": ["read"], "collections": ["none-yet"]},
    }
    server = start_server({"limits": {"text_chars": 500}}, keys)
    with server.client("root") as http:
        for name, documents in (("tales", TALES), ("songs", SONGS)):
            fields = {"dense": {"kind": "dense", "encoder": "default"}, "lexical": {"kind": "lexical"}}
            if name == "tales":
                fields["phrases"] = {"kind": "substring"}
            http.post("/v1/collections", json={"name": name, "fields": fields}).raise_for_status()
            http.post(f"/v1/collections/{name}/documents", json={"documents": documents}).raise_for_status()
        server.ended(http, http.post("/v1/collections/tales/compact"))
    return server


@asynccontextmanager
async def connected(served: Any, key: str = "reader", mode: str = "auto") -> AsyncIterator[Client]:
    headers = {"Authorization": f"Bearer {served.secrets.get(key, key)}"}
    async with (
        httpx2.AsyncClient(headers=headers) as http,
        Client(streamable_http_client(f"{served.url}/mcp", http_client=http), mode=mode) as client,
    ):
        yield client


def read(result: mcp_types.CallToolResult) -> dict[str, Any]:
    """Return what a tool gave: one text item of JSON, and the same as structured content."""
    assert not result.is_error, result
    (item,) = result.content
    assert isinstance(item, mcp_types.TextContent)
    value: dict[str, Any] = json.loads(item.text)
    assert result.structured_content == value
    return value


def refusal(result: mcp_types.CallToolResult) -> str:
    assert result.is_error
    (item,) = result.content
    assert isinstance(item, mcp_types.TextContent)
    return item.text


@pytest.mark.parametrize("mode", MODES)
async def test_tools_are_offered_that_only_read(served: Any, mode: str) -> None:
    async with connected(served, mode=mode) as client:
        tools = {tool.name: tool for tool in (await client.list_tools()).tools}
    assert set(tools) == {"search", "fetch", "grep", "ngrams"}
    assert {name: tool.input_schema["required"] for name, tool in tools.items()} == {
        "search": ["query"],
        "fetch": ["id"],
        "grep": ["phrase"],
        "ngrams": ["ngram"],
    }
    for tool in tools.values():
        assert tool.annotations is not None
        assert tool.annotations.read_only_hint is True
        assert tool.description
        assert tool.output_schema is not None


@pytest.mark.parametrize("mode", MODES)
async def test_what_is_found_can_be_fetched(served: Any, mode: str) -> None:
    async with connected(served, mode=mode) as client:
        found = read(await client.call_tool("search", {"query": "red fox"}))
        assert {each["id"] for each in found["results"]} == {"tales/a/fox", "tales/hen", "songs/owl ü?"}
        assert found["notes"] == []
        shown = {each["id"]: each for each in found["results"]}
        assert shown["tales/a/fox"]["title"] == "The Fox"
        assert shown["tales/a/fox"]["url"] == "https://tales.example/fox"
        assert shown["tales/hen"]["title"] == "hen"
        assert shown["tales/hen"]["url"] == "grapnel://tales/hen"  # no scheme that a browser would run
        assert shown["songs/owl ü?"]["url"] == "grapnel://songs/owl%20%C3%BC%3F"
        for each in found["results"]:
            assert 0 < len(each["text"]) <= 300
        for tale in TALES:
            got = read(await client.call_tool("fetch", {"id": f"tales/{tale['id']}"}))
            assert got["text"] == tale["text"]
            assert got["metadata"] == tale["metadata"]
            assert (got["start"], got["total_chars"]) == (0, len(tale["text"]))
            assert got["title"] == tale.get("title", tale["id"])
        assert read(await client.call_tool("fetch", {"id": "songs/owl ü?"}))["text"] == SONGS[0]["text"]


async def test_the_first_of_every_collection_come_before_the_second(served: Any) -> None:
    async with connected(served) as client:
        best = read(await client.call_tool("search", {"query": "red fox", "limit": 2}))["results"]
        assert {each["id"] for each in best} == {"tales/a/fox", "songs/owl ü?"}
        (one,) = read(await client.call_tool("search", {"query": "red fox", "limit": 1}))["results"]
        assert one["id"] in {"tales/a/fox", "songs/owl ü?"}


async def test_a_search_can_be_narrowed(served: Any) -> None:
    async with connected(served) as client:

        async def ids(**options: Any) -> set[str]:
            results = read(await client.call_tool("search", {"query": "red fox", **options}))["results"]
            return {each["id"] for each in results}

        assert await ids(collection="songs") == {"songs/owl ü?"}
        assert await ids(filter={"type": "eq", "key": "tenant", "value": "b"}) == {"tales/hen"}
        # Where the field of a filter is known to one collection alone, the other is left out, and that is said.
        narrowed = read(
            await client.call_tool("search", {"query": "fox", "filter": {"type": "eq", "key": "n", "value": 1}})
        )
        assert {each["id"] for each in narrowed["results"]} == {"songs/owl ü?"}
        (note,) = narrowed["notes"]
        assert "'tales'" in note
        assert "'n'" in note


async def test_a_long_document_is_fetched_in_parts(served: Any) -> None:
    text = TALES[0]["text"]
    async with connected(served) as client:
        parts = []
        for start in range(0, len(text), 500):
            got = read(await client.call_tool("fetch", {"id": "tales/a/fox", "start": start, "max_chars": 500}))
            assert (got["start"], got["total_chars"]) == (start, len(text))
            parts.append(got["text"])
        assert "".join(parts) == text
        assert read(await client.call_tool("fetch", {"id": "tales/a/fox", "start": 10**9}))["text"] == ""


@pytest.mark.parametrize("mode", MODES)
async def test_exact_words_are_found_and_counted(served: Any, mode: str) -> None:
    async with connected(served, mode=mode) as client:
        found = read(await client.call_tool("grep", {"phrase": "A RED fox", "collection": "tales", "limit": 2}))
        assert (found["count"], found["documents"], found["notes"]) == (40, 1, [])
        first, second = found["places"]
        assert (first["id"], first["title"], first["part"]) == ("tales/a/fox", "The Fox", "text")
        assert [(each["start"], each["end"]) for each in (first, second)] == [(0, 9), (34, 43)]
        assert first["text"].startswith("A red fox ran into")
        assert read(await client.call_tool("fetch", {"id": first["id"]}))["text"][34:43] == "A red fox"
        counted = read(await client.call_tool("ngrams", {"ngram": "a", "collection": "tales"}))
        (red, *others) = counted["continuations"]
        assert red == {"token": "red", "text": "a red", "count": 40, "probability": 40 / 42}
        assert sorted(each["token"] for each in others) == ["hen", "wall"]
        assert (counted["count"], counted["used"], counted["used_count"], counted["ends"]) == (42, ["a"], 42, 0)
        hens = {"collection": "tales", "filter": {"type": "eq", "key": "tenant", "value": "b"}}
        assert read(await client.call_tool("grep", {"phrase": "a", **hens}))["count"] == 2
        nowhere = read(await client.call_tool("ngrams", {"ngram": "zebra", "collection": "tales"}))
        assert (nowhere["count"], nowhere["used"], nowhere["continuations"]) == (0, [], [])
        assert "occurs nowhere" in nowhere["notes"][0]


async def test_a_key_reaches_its_own_documents_only(served: Any) -> None:
    async with connected(served, "tenant") as client:
        found = read(await client.call_tool("search", {"query": "hen wall red fox"}))
        assert {each["id"] for each in found["results"]} == {"tales/a/fox", "songs/owl ü?"}
        others = {"type": "eq", "key": "tenant", "value": "b"}
        assert read(await client.call_tool("search", {"query": "hen", "filter": others}))["results"] == []
        hidden = refusal(await client.call_tool("fetch", {"id": "tales/hen"}))
        assert hidden == refusal(await client.call_tool("fetch", {"id": "tales/nothing"})).replace("nothing", "hen")
        assert read(await client.call_tool("fetch", {"id": "tales/a/fox"}))["metadata"]["tenant"] == "a"
        assert read(await client.call_tool("grep", {"phrase": "hen", "collection": "tales"}))["count"] == 0
        assert read(await client.call_tool("ngrams", {"ngram": "a", "collection": "tales"}))["distinct"] == 1
    async with connected(served, "waiting") as client:
        assert "there is no collection" in refusal(await client.call_tool("grep", {"phrase": "fox"}))
    async with connected(served, "singer") as client:
        assert 'no field of kind "substring"' in refusal(await client.call_tool("grep", {"phrase": "fox"})), (
            "of the one"
        )
        found = read(await client.call_tool("search", {"query": "hen wall red fox"}))
        assert {each["id"] for each in found["results"]} == {"songs/owl ü?"}
        hidden = refusal(await client.call_tool("search", {"query": "hen", "collection": "tales"}))
        unknown = refusal(await client.call_tool("search", {"query": "hen", "collection": "nothing"}))
        assert hidden == unknown.replace("nothing", "tales")
        refusal(await client.call_tool("fetch", {"id": "tales/hen"}))


@pytest.mark.parametrize("mode", MODES)
async def test_what_cannot_be_answered_is_told_to_the_model(served: Any, mode: str) -> None:
    async with connected(served, mode=mode) as client:
        for tool, arguments, what in (
            ("search", {}, "query"),
            ("search", {"query": ""}, "query"),
            ("search", {"query": "a", "limit": 51}, "limit"),
            ("search", {"query": "a", "limits": 5}, "limits"),
            ("search", {"query": "a", "filter": {"type": "like", "key": "n", "value": 1}}, "filter.type"),
            ("search", {"query": "a" * 501}, "501"),
            ("search", {"query": "a", "collection": "nothing"}, "no collection"),
            ("search", {"query": "a", "collection": "../tales"}, "collection"),
            ("grep", {"phrase": ""}, "phrase"),
            ("grep", {"phrase": "fox", "limit": 51}, "limit"),
            ("grep", {"phrase": "fox"}, "there are 2 collections: name one, such as songs, tales"),
            ("grep", {"phrase": "fox", "collection": "songs"}, 'no field of kind "substring"'),
            ("grep", {"phrase": "fox", "collection": "nothing"}, "no collection"),
            ("grep", {"phrase": "\u2603", "collection": "tales"}, "no token"),
            ("ngrams", {"ngram": "fox"}, "there are 2 collections"),
            ("ngrams", {"ngram": "fox", "collection": "tales", "filter": {"type": "like"}}, "filter.type"),
            ("fetch", {"id": "tales"}, "no document"),
            ("fetch", {"id": "tales/"}, "no document"),
            ("fetch", {"id": "tales/nothing"}, "no document"),
            ("fetch", {"id": "/etc/passwd"}, "collection"),
            ("fetch", {"id": "tales/hen", "start": -1}, "start"),
        ):
            assert what in refusal(await client.call_tool(tool, arguments)), (tool, arguments)
        with pytest.raises(MCPError) as caught:
            await client.call_tool("delete", {"id": "tales/hen"})
        assert "search, fetch, grep, ngrams" in caught.value.message
        assert read(await client.call_tool("search", {"query": "fox"}))["results"]


def test_keys_are_checked_and_only_posts_of_json_are_taken(served: Any) -> None:
    call = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
    accept = {"Accept": "application/json"}
    with served.client() as http:
        assert http.post("/mcp", json=call, headers=accept).status_code == 401
    with served.client("writer") as http:
        assert http.post("/mcp", json=call, headers=accept).status_code == 403
    with served.client("reader") as http:
        assert http.post("/mcp", json=call, headers=accept).json()["result"]["tools"]
        for method in ("GET", "DELETE", "PUT"):
            assert http.request(method, "/mcp", headers=accept).status_code == 405
        assert http.post("/mcp", content=b"a=b", headers={**accept, "Content-Type": "text/plain"}).status_code == 415
        for body in (b"{", b"[]", b"3", b"{}", b"\xff", b'{"jsonrpc": "2.0", "id": 1}', b"[" * 10_000):
            answer = http.post("/mcp", content=body, headers={**accept, "Content-Type": "application/json"})
            assert answer.status_code == 400, body[:50]
        foreign = {**accept, "Origin": "https://elsewhere.example"}
        assert http.post("/mcp", json=call, headers=foreign).status_code == 403


def test_without_its_package_the_server_runs_and_says_what_is_missing(start_server: Callable[..., Any]) -> None:
    program = "import sys; sys.modules['mcp'] = None; from api.cli import main; sys.exit(main())"
    server = start_server(command=(sys.executable, "-c", program))
    with server.client() as http:
        answer = http.post("/mcp", json={"jsonrpc": "2.0", "id": 1, "method": "tools/list"})
        assert http.get("/v1/collections").status_code == 200
    assert answer.status_code == 501
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["type"] == "grapnel:not-installed"


# -- stdio -----------------------------------------------------------------------------------------------------------


def program(*arguments: str | Path, **variables: str) -> StdioServerParameters:
    return StdioServerParameters(
        command=COMMAND[0],
        args=[*COMMAND[1:], "mcp", *map(str, arguments)],
        env={"OMP_NUM_THREADS": "1", **variables},
        cwd=ROOT,
    )


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_a_program_asks_a_server(served: Any, mode: str) -> None:
    parameters = program("--url", served.url, GRAPNEL_KEY=served.secrets["tenant"])
    async with Client(parameters, mode=mode) as client:
        found = read(await client.call_tool("search", {"query": "hen wall red fox"}))
        assert {each["id"] for each in found["results"]} == {"tales/a/fox", "songs/owl ü?"}
        async with connected(served, "tenant") as beside:
            assert read(await beside.call_tool("search", {"query": "hen wall red fox"})) == found
        assert read(await client.call_tool("fetch", {"id": "songs/owl ü?"}))["text"] == SONGS[0]["text"]
        assert read(await client.call_tool("grep", {"phrase": "red fox", "collection": "tales"}))["count"] == 40
        following = read(await client.call_tool("ngrams", {"ngram": "red", "collection": "tales"}))["continuations"]
        assert [each["token"] for each in following] == ["fox"]
        assert "no document" in refusal(await client.call_tool("fetch", {"id": "tales/hen"}))
        assert "nothing" in refusal(await client.call_tool("search", {"query": "a", "collection": "nothing"}))


async def test_a_program_reads_a_folder(start_server: Callable[..., Any]) -> None:
    server = start_server()
    with server.client() as http:
        http.post("/v1/collections", json={"name": "tales"}).raise_for_status()
        http.post("/v1/collections/tales/documents", json={"documents": TALES}).raise_for_status()
    arguments = ("--data", server.data, "--config", server.config)
    taken = grapnel("mcp", *arguments)
    assert taken.returncode == 3  # another process serves the folder
    assert taken.stdout == ""
    assert server.stop() == 0
    async with Client(program(*arguments)) as client:
        (found, _) = read(await client.call_tool("search", {"query": "red fox"}))["results"]
        assert found["id"] == "tales/a/fox"
        assert read(await client.call_tool("fetch", {"id": found["id"]}))["text"] == TALES[0]["text"]


@pytest.mark.parametrize("arguments", [[], ["--data", "x", "--url", "http://127.0.0.1:1"], ["--data", "/nowhere"]])
def test_a_program_that_cannot_start_says_so_in_a_line(arguments: list[str]) -> None:
    command_line.refusal(2, "mcp", *arguments)


async def test_a_server_that_is_not_there_is_told_to_the_model(unused_port: int) -> None:
    async with Client(program("--url", f"http://127.0.0.1:{unused_port}")) as client:
        assert str(unused_port) in refusal(await client.call_tool("search", {"query": "fox"}))


@pytest.fixture
def unused_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as chosen:
        port: int = chosen.getsockname()[1]
        return port
