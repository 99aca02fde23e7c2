"""Who may do what: keys and scopes on every route, host names, web pages of others, tenants of one collection."""

import itertools
import json
import random
import re
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest

from api.http.app import create_app
from api.keys import KeyConfig, Scope, make_key
from api.server_config import ServerConfig
from api.service import Service
from retrieval.collection import Collection
from retrieval.encoders import EncoderConfig

ROOT = Path(__file__).parents[2]
JSON = {"content-type": "application/json"}
NDJSON = {"content-type": "application/x-ndjson"}

PUBLIC = {"/", "/web/{name}", "/health", "/health/live", "/health/ready", "/openapi.json"}
"""All that is answered without a key. A new address does not belong here unless it tells nothing of any document."""

DOCUMENTS = "/v1/collections/{collection}/documents"
NEEDED: dict[tuple[str, str], Scope] = {
    ("GET", "/metrics"): "metrics",
    ("POST", "/v1/collections"): "admin",
    ("DELETE", "/v1/collections/{collection}"): "admin",
    ("POST", "/v1/collections/{collection}/compact"): "admin",
    ("POST", "/v1/collections/{collection}/reembed"): "admin",
    ("GET", "/v1/collections/{collection}/snapshots"): "admin",
    ("POST", "/v1/collections/{collection}/snapshots"): "admin",
    ("DELETE", "/v1/collections/{collection}/snapshots/{snapshot}"): "admin",
    ("POST", "/v1/collections/{collection}/snapshots/{snapshot}/restore"): "admin",
    ("PUT", "/v1/aliases/{collection}"): "admin",
    ("DELETE", "/v1/aliases/{collection}"): "admin",
    ("GET", "/v1/jobs"): "admin",
    ("GET", "/v1/jobs/{job}"): "admin",
    ("POST", DOCUMENTS): "write",
    ("POST", f"{DOCUMENTS}/delete"): "write",
    ("POST", "/v1/collections/{collection}/bulk"): "write",
    ("PUT", f"{DOCUMENTS}/{{doc_id:path}}"): "write",
    ("PATCH", f"{DOCUMENTS}/{{doc_id:path}}"): "write",
    ("DELETE", f"{DOCUMENTS}/{{doc_id:path}}"): "write",
}
"""Every other address that is not public needs `read`."""


# -- every route ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Any, dict[str, str]]]:
    """The application with a key for each scope, and their secrets; not started, so that no route does anything."""
    made: dict[Scope, tuple[str, str]] = {
        scope: make_key()
        for scope in ("read", "write", "admin", "metrics")  # type: ignore[misc]
    }
    keys = tuple(KeyConfig(scope, digest, (scope,)) for scope, (_, digest) in made.items())
    config = ServerConfig(encoders={"default": EncoderConfig(kind="hashing", dim=8)}, rerankers={}, keys=keys)
    service = Service(tmp_path_factory.mktemp("root"), config)
    yield create_app(service), {scope: secret for scope, (secret, _) in made.items()}
    service.close(5.0)


def addresses(routes: Sequence[Any]) -> Iterator[tuple[str, str]]:
    """Yield (method, path) of all routes, those of included routers and mounted applications, too."""
    for route in routes:
        inner = getattr(route, "original_router", None) or getattr(route, "app", None)
        if getattr(route, "methods", None):
            for method in route.methods:
                yield method, route.path
        elif inner is not None and hasattr(inner, "routes"):
            yield from addresses(inner.routes)
        else:
            raise AssertionError(f"{route!r} is a kind of route that this test does not know: teach it")


def concrete(path: str) -> str:
    return re.sub(r"\{[^}]+\}", "x", path)


async def ask(app: Any, method: str, path: str, **headers: str) -> httpx.Response:
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        body = b"{}" if method not in {"GET", "HEAD"} else b""
        return await client.request(method, concrete(path), content=body, headers={**JSON, **headers})


async def test_every_route_that_is_not_public_needs_a_key(guarded: tuple[Any, dict[str, str]]) -> None:
    app, _ = guarded
    known = set(addresses(app.routes))
    assert len(known) > 40
    assert {path for _, path in NEEDED} <= {path for _, path in known}
    for method, path in sorted(known):
        for headers in (
            {},
            {"Authorization": "Bearer"},
            {"Authorization": "Bearer gk_" + "A" * 43},
            {"Authorization": "Basic Z2s6Z2s="},
            {"X-API-Key": "gk_" + "A" * 43},
            {"X-API-Key": "\u00e9"},
            {"X-Forwarded-User": "admin", "X-Real-IP": "127.0.0.1", "Forwarded": "for=127.0.0.1;host=localhost"},
        ):
            encoded: Any = {name: value.encode("latin-1") for name, value in headers.items()}
            answer = await ask(app, method, path, **encoded)
            if path in PUBLIC:
                assert answer.status_code not in {401, 403}, (method, path)
            else:
                assert answer.status_code == 401, (method, path, headers, answer.text)
                assert answer.headers["www-authenticate"].startswith("Bearer")


async def test_addresses_that_no_route_has_need_a_key_too(guarded: tuple[Any, dict[str, str]]) -> None:
    app, secrets = guarded
    for path in (
        "/nothing",
        "/v1",
        "/docs",
        "/redoc",
        "/web",
        "/web/a/b",
        "/health/live/x",
        "/metrics/",
        "/mcp/x",
    ):
        assert (await ask(app, "GET", path)).status_code == 401, path
        assert (await ask(app, "GET", path, Authorization=f"Bearer {secrets['read']}")).status_code == 404, path
    for method in ("OPTIONS", "TRACE", "HEAD", "PUT", "PATCH"):
        assert (await ask(app, method, "/v1/collections")).status_code == 401, method


async def test_every_route_needs_its_scope(guarded: tuple[Any, dict[str, str]]) -> None:
    app, secrets = guarded
    for method, path in sorted(set(addresses(app.routes))):
        if path in PUBLIC:
            continue
        needed = NEEDED.get((method, path), "read")
        for scope, secret in secrets.items():
            answer = await ask(app, method, path, Authorization=f"Bearer {secret}")
            if scope in {needed, "admin"}:
                assert answer.status_code not in {401, 403}, (method, path, scope, answer.text)
            else:
                assert answer.status_code == 403, (method, path, scope, answer.text)
            if method == "GET" and scope == needed:
                other = await ask(app, method, path, **{"X-API-Key": secret})
                assert other.status_code == answer.status_code, "either header will do"


async def test_the_description_says_what_needs_a_key(guarded: tuple[Any, dict[str, str]]) -> None:
    app, _ = guarded
    described = (await ask(app, "GET", "/openapi.json")).json()
    assert described["security"] == [{"bearer": []}, {"header": []}]
    assert set(described["components"]["securitySchemes"]) == {"bearer", "header"}
    for path, operations in described["paths"].items():
        for operation in operations.values():
            assert (operation.get("security") == []) == (path in PUBLIC), path


# -- a running server ------------------------------------------------------------------------------------------------

KEYS: dict[str, dict[str, Any]] = {
    "admin": {"scopes": ["admin"]},
    "reader": {"scopes": ["read"], "collections": ["winds-*", "exact"]},
    "writer": {"scopes": ["write"]},
    "metrics": {"scopes": ["metrics"], "collections": []},
    "prefix": {"scopes": ["admin"], "collections": ["p-*"]},
    "a": {"scopes": ["read", "write"], "filter": {"type": "eq", "key": "tenant", "value": "a"}},
    "b": {"scopes": ["read", "write"], "filter": {"type": "eq", "key": "tenant", "value": "b"}},
}


@pytest.fixture(scope="module")
def server(start_server: Callable[..., Any]) -> Iterator[Any]:
    server = start_server({"log": {"slow_ms": 0.0}}, KEYS)  # every request is logged
    yield server
    log = server.log_text()
    assert len(log.splitlines()) > 100
    for name, secret in server.secrets.items():
        assert secret not in log, f"the secret of {name}"
        assert secret[3:] not in log, f"the secret of {name}"
    assert WRONG not in log, "a wrong key may be one of another server"


NUMBERS = itertools.count()
WRONG = "gk_" + "w" * 43


@pytest.fixture(scope="module")
def clients(server: Any) -> Iterator[dict[str, httpx.Client]]:
    opened = {name: server.client(name) for name in KEYS}
    yield opened
    for client in opened.values():
        client.close()


def make(client: httpx.Client, name: str) -> str:
    assert client.post("/v1/collections", json={"name": name}).status_code == 201
    return f"/v1/collections/{name}"


def test_a_wrong_key_is_refused_and_not_repeated(server: Any) -> None:
    with server.client() as client:
        for headers in ({"Authorization": f"Bearer {WRONG}"}, {"X-API-Key": WRONG}):
            answer = client.get("/v1/collections", headers=headers)
            assert answer.status_code == 401
            assert WRONG not in answer.text
        assert client.get(f"/v1/collections?key={WRONG}").status_code == 401, "no key is read from an address"


def test_keys_know_only_the_collections_of_their_patterns(clients: dict[str, httpx.Client]) -> None:
    admin, reader = clients["admin"], clients["reader"]
    for name in ("winds-1", "winds", "exact", "exactly", "other"):
        make(admin, name)
        admin.put(f"/v1/collections/{name}/documents/d", json={"text": f"in {name}"})
    admin.put("/v1/aliases/seen", json={"collection": "winds-1"})
    admin.put("/v1/aliases/winds-alias", json={"collection": "other"})
    visible = {each["name"] for each in reader.get("/v1/collections").json()["collections"]}
    assert visible == {"winds-1", "exact"}
    assert reader.get("/v1/aliases").json() == {"aliases": {"seen": "winds-1"}}
    for name in ("winds-1", "exact", "seen"):
        assert reader.get(f"/v1/collections/{name}/documents/d").status_code == 200, name
    for name in ("winds", "exactly", "other", "winds-alias", "nothing"):
        for answer in (
            reader.get(f"/v1/collections/{name}"),
            reader.get(f"/v1/collections/{name}/documents/d"),
            reader.post(f"/v1/collections/{name}/search", json={"query": "in"}),
            reader.post(f"/v1/collections/{name}/context", json={"query": "in"}),
            reader.post(f"/v1/vector_stores/{name}/search", json={"query": "in"}),
        ):
            assert answer.status_code == 404, "as if it were not there"
            expected = reader.get("/v1/collections/nothing").json()["title"]
            assert expected in answer.text or "no collection" in answer.text
    searches = [{"collection": name, "query": "in"} for name in ("exact", "other", "nothing")]
    results = reader.post("/v1/search", json={"searches": searches}).json()["results"]
    assert results[0]["hits"]
    assert results[1]["problem"]["type"] == results[2]["problem"]["type"] == "grapnel:not-found"
    assert reader.put("/v1/collections/exact/documents/e", json={"text": "x"}).status_code == 403
    assert reader.delete("/v1/collections/exact/documents/d").status_code == 403


def test_an_administrator_of_some_names_cannot_touch_others(clients: dict[str, httpx.Client]) -> None:
    admin, prefix = clients["admin"], clients["prefix"]
    make(admin, "theirs")
    admin.put("/v1/aliases/their-alias", json={"collection": "theirs"})
    job = admin.post("/v1/collections/theirs/compact").json()["id"]
    own = make(prefix, "p-one")
    assert prefix.put("/v1/aliases/p-alias", json={"collection": "p-one"}).status_code == 200
    for answer in (
        prefix.post("/v1/collections", json={"name": "q-one"}),
        prefix.delete("/v1/collections/theirs"),
        prefix.put("/v1/aliases/p-alias", json={"collection": "theirs"}),
        prefix.put("/v1/aliases/q-alias", json={"collection": "p-one"}),
        prefix.delete("/v1/aliases/their-alias"),
        prefix.post(f"{own}/reembed", json={"into": "q-two", "encoder": "default"}),
        prefix.get("/v1/collections/theirs/snapshots"),
    ):
        assert answer.status_code == 403, answer.text
    for answer in (
        prefix.post("/v1/collections/theirs/compact"),
        prefix.post("/v1/collections/theirs/snapshots"),
        prefix.post("/v1/collections/theirs/reembed", json={"into": "p-two", "encoder": "default"}),
        prefix.get(f"/v1/jobs/{job}"),
    ):
        assert answer.status_code == 404, answer.text
    assert prefix.get("/v1/jobs").json() == {"jobs": []}
    assert [each["name"] for each in prefix.get("/v1/collections").json()["collections"]] == ["p-one"]
    assert admin.get("/v1/aliases").json()["aliases"]["their-alias"] == "theirs"


def test_a_key_that_only_writes_reads_nothing(clients: dict[str, httpx.Client]) -> None:
    path = make(clients["admin"], "drop-box")
    clients["admin"].put(f"{path}/documents/d", json={"text": "SECRET", "title": "SECRET", "metadata": {"k": "SECRET"}})
    writer = clients["writer"]
    answers = [
        writer.patch(f"{path}/documents/d", json={"metadata": {"new": 1}}),
        writer.put(f"{path}/documents/d", json={"text": "y"}, headers={"If-None-Match": "*"}),
        writer.post(f"{path}/documents", json={"documents": [{"id": "e", "text": "mine"}]}),
        writer.post(f"{path}/bulk", content=b'{"id": "f", "text": "mine"}', headers=NDJSON),
        writer.post(
            f"{path}/documents/delete", json={"filter": {"type": "exists", "key": "x"}, "strict_filter": False}
        ),
        writer.get(f"{path}/documents/d"),
        writer.post(f"{path}/documents/count", json={}),
        writer.get(path),
    ]
    assert [answer.status_code for answer in answers] == [200, 412, 200, 200, 200, 403, 403, 403]
    assert answers[0].json().keys() == {"id", "version"}
    assert all("SECRET" not in answer.text for answer in answers)
    assert clients["admin"].get(f"{path}/documents/d").json()["metadata"] == {"k": "SECRET", "new": 1}


def test_metrics_are_for_their_scope_alone(clients: dict[str, httpx.Client]) -> None:
    assert "grapnel_requests_total" in clients["metrics"].get("/metrics").text
    assert clients["reader"].get("/metrics").status_code == 403
    assert clients["metrics"].get("/v1/collections").status_code == 403
    assert clients["metrics"].get("/v1/models").status_code == 403


# -- tenants ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def shared(clients: dict[str, httpx.Client]) -> str:
    """The path of a collection with a document of each tenant; that of a has a field that nobody else has."""
    path = make(clients["admin"], f"shared-{next(NUMBERS)}")
    document = {"text": "SECRET of a", "title": "SECRET", "metadata": {"tenant": "a", "secret-field": "SECRET"}}
    assert clients["a"].put(f"{path}/documents/of-a", json=document).status_code == 201
    document = {"text": "harmless", "metadata": {"tenant": "b", "own-field": 1}}
    assert clients["b"].put(f"{path}/documents/of-b", json=document).status_code == 201
    clients["admin"].put(f"{path}/documents/of-nobody", json={"text": "SECRET of nobody"})
    return path


@pytest.mark.parametrize("compacted", [False, True])
def test_a_tenant_never_sees_what_is_not_theirs(
    server: Any, clients: dict[str, httpx.Client], shared: str, compacted: bool
) -> None:
    b, admin = clients["b"], clients["admin"]
    if compacted:
        server.ended(admin, admin.post(f"{shared}/compact"))
    name = shared.rpartition("/")[2]
    everything = {"type": "exists", "key": "_none", "value": False}
    searches = [
        {"query": "secret", **options}
        for options in (
            {},
            {"mode": "dense"},
            {"mode": "lexical"},
            {"group": "passage", "explain": True},
            {"k": 1_000, "depth": 10_000},
            {"filter": everything},
            {"filter": {"type": "or", "filters": [everything, {"type": "eq", "key": "tenant", "value": "a"}]}},
            {"filter": {"type": "not", "filter": {"type": "eq", "key": "tenant", "value": "b"}}},
            {"filter": {"type": "eq", "key": "_id", "value": "of-a"}},
            {"filter": {"type": "exists", "key": "secret-field"}},
            {"like": "of-a", "query": ""},
            {"exclude": ["of-b"]},
            {"rerank": {"model": "similarity"}},
            {"diversity": 0.9},
            {"fusion": {"parts": ["lexical", "dense"], "weights": [1, 1], "method": "rrf"}},
        )
    ]
    answers = [b.post(f"{shared}/search", json=search) for search in searches]
    answers += [
        b.post("/v1/search", json={"searches": [{"collection": name, **search} for search in searches]}),
        b.post(f"{shared}/context", json={"query": "secret", "neighbours": 5}),
        b.post(f"/v1/vector_stores/{name}/search", json={"query": "secret"}),
        b.get(f"{shared}/documents"),
        b.get(f"{shared}/documents", params={"after": "of"}),
        b.get(f"{shared}/documents/of-a"),
        b.post(f"{shared}/documents/get", json={"ids": ["of-a", "of-b", "of-nobody"]}),
        b.post(f"{shared}/documents/list", json={"filter": everything}),
        b.get(shared),
        b.get("/v1/collections"),
        b.patch(f"{shared}/documents/of-a", json={"metadata": {"tenant": "b"}}),
        b.put(f"{shared}/documents/of-a", json={"text": "x", "metadata": {"tenant": "b"}}),
    ]
    for answer in answers:
        assert "SECRET" not in answer.text, answer.text
        assert "secret-field" not in answer.text
        assert '"of-a"' not in answer.text or answer.status_code >= 400 or "taken" in answer.text, answer.text
        assert answer.status_code < 500
    assert [each and each["id"] for each in answers[-6].json()["documents"]] == [None, "of-b", None]
    about = answers[-4].json()
    assert not about.keys() & {"documents", "passages", "operation", "size_bytes"}
    told = {name: sorted(facts) for name, facts in about["fields"].items()}
    assert told == {"dense": ["fingerprint", "kind", "metric"], "lexical": ["kind"]}
    assert b.post(f"{shared}/documents/count", json={}).json() == {"documents": 1}
    for strict in (True, False):
        body = {"filter": everything, "strict_filter": strict}
        assert b.post(f"{shared}/documents/count", json=body).json() == {"documents": 1}
    document = admin.get(f"{shared}/documents/of-a").json()
    assert (document["text"], document["metadata"]["tenant"]) == ("SECRET of a", "a")


def test_a_tenant_changes_nothing_that_is_not_theirs(clients: dict[str, httpx.Client], shared: str) -> None:
    b, admin = clients["b"], clients["admin"]
    mine = {"tenant": "b"}
    path = f"{shared}/documents"
    before = admin.get(path).json()
    for doc_id in ("of-a", "of-nobody"):
        assert b.put(f"{path}/{doc_id}", json={"text": "x", "metadata": mine}).status_code == 409
        assert (
            b.put(f"{path}/{doc_id}", json={"text": "x", "metadata": mine}, headers={"If-Match": '"1"'}).status_code
            == 409
        )
        assert b.patch(f"{path}/{doc_id}", json={"metadata": {"x": 1}}).status_code == 404
        assert b.delete(f"{path}/{doc_id}").status_code == 404
        assert b.delete(f"{path}/{doc_id}", headers={"If-Match": '"1"'}).status_code == 412
    several = [{"id": "new", "text": "x", "metadata": mine}, {"id": "of-a", "text": "x", "metadata": mine}]
    assert b.post(path, json={"documents": several}).status_code == 409
    assert b.post(f"{path}/delete", json={"ids": ["of-a", "of-nobody"]}).json() == {"deleted": 0}
    for condition in (
        {"type": "eq", "key": "tenant", "value": "a"},
        {"type": "ne", "key": "tenant", "value": "b"},
        {"type": "exists", "key": "secret-field"},
        {"type": "or", "filters": [{"type": "exists", "key": "tenant"}, {"type": "eq", "key": "_id", "value": "of-a"}]},
    ):
        b.post(
            f"{path}/delete",
            json={"filter": {"type": "and", "filters": [condition, {"type": "ne", "key": "own-field", "value": 1}]}},
        )
    assert admin.get(path).json() == before

    for metadata in ({}, {"tenant": "a"}, {"tenant": ["b"]}, {"tenant": "B"}, {"tenant": {"b": "b"}}):
        assert b.put(f"{path}/mine", json={"text": "x", "metadata": metadata}).status_code == 403, metadata
    assert b.patch(f"{path}/of-b", json={"metadata": {"tenant": "a"}}).status_code == 403
    assert b.patch(f"{path}/of-b", json={"metadata": {"tenant": None}}).status_code == 403
    lines = [
        {"id": "of-a", "text": "x", "metadata": mine},
        {"id": "n", "text": "x"},
        {"id": "ok", "text": "x", "metadata": mine},
    ]
    report = b.post(f"{shared}/bulk", content="\n".join(map(json.dumps, lines)), headers=NDJSON).json()
    assert (report["added"], report["failed"]) == (1, 2)
    assert sorted(error["line"] for error in report["errors"]) == [1, 2]
    assert [each["id"] for each in admin.get(path).json()["documents"]] == ["of-a", "of-b", "of-nobody", "ok"]


def test_a_tenant_cannot_tell_a_field_of_others_from_one_that_nobody_has(
    clients: dict[str, httpx.Client], shared: str
) -> None:
    b = clients["b"]

    def answers(key: str) -> list[str]:
        conditions: list[dict[str, Any]] = [
            {"type": "eq", "key": key, "value": "SECRET"},
            {"type": "ne", "key": key, "value": 1},
            {"type": "exists", "key": key},
            {"type": "exists", "key": key, "value": False},
            {"type": "not", "filter": {"type": "gt", "key": key, "value": ""}},
        ]
        bodies = [b.post(f"{shared}/documents/list", json={"filter": each}) for each in conditions]
        bodies += [b.post(f"{shared}/search", json={"query": "harmless", "filter": each}) for each in conditions]
        bodies += [b.post(f"{shared}/context", json={"query": "harmless", "filter": each}) for each in conditions[:2]]
        bodies += [b.post(f"{shared}/documents/count", json={"filter": each}) for each in conditions]
        bodies += [b.post(f"{shared}/documents/delete", json={"filter": conditions[0]})]
        assert all(each.status_code == 200 for each in bodies), [each.text for each in bodies]
        return [re.sub(r'"total_ms":[\d.]+', "", each.text) for each in bodies]

    assert answers("secret-field") == answers("field-of-nobody")
    assert "of-b" in answers("secret-field")[1], "who lacks a field is not excluded by `ne`"


def test_documents_of_others_and_documents_that_are_not_there_look_the_same(
    clients: dict[str, httpx.Client], shared: str
) -> None:
    b = clients["b"]

    def answers(doc_id: str) -> list[tuple[int, str]]:
        path = f"{shared}/documents/{doc_id}"
        sent = [
            b.get(path),
            b.patch(path, json={"metadata": {"x": 1}}),
            b.delete(path),
            b.delete(path, headers={"If-Match": '"1"'}),
            b.post(f"{shared}/documents/get", json={"ids": [doc_id]}),
            b.post(f"{shared}/documents/delete", json={"ids": [doc_id]}),
            b.post(f"{shared}/search", json={"like": doc_id}),
        ]
        cleaned = [re.sub(r'"request_id":"\w+"', "", each.text.replace(doc_id, "ID")) for each in sent]
        return [(each.status_code, text) for each, text in zip(sent, cleaned, strict=True)]

    assert answers("of-a") == answers("nothing-here")


def test_a_filter_leaves_room_for_that_of_the_key(clients: dict[str, httpx.Client], shared: str) -> None:
    condition: dict[str, Any] = {"type": "eq", "key": "tenant", "value": "b"}
    for _ in range(7):
        condition = {"type": "not", "filter": condition}
    answer = clients["b"].post(f"{shared}/search", json={"query": "x", "filter": condition})
    assert answer.status_code == 422
    assert "leaves no room" in answer.json()["detail"]
    assert clients["admin"].post(f"{shared}/search", json={"query": "x", "filter": condition}).status_code == 200


class Hammer(threading.Thread):
    """One tenant's client, which writes, lists and searches at random; `seen` tells what it should not have seen."""

    ROUNDS = 25

    def __init__(self, server: Any, path: str, tenant: str, seed: int) -> None:
        super().__init__()
        self.seen: list[str] = []
        self._server, self._path, self._tenant = server, path, tenant
        self._chosen = random.Random(seed)

    def run(self) -> None:
        try:
            with self._server.client(self._tenant) as client:
                for number in range(self.ROUNDS):
                    self._write(client, number)
                    self._read(client)
        except Exception as error:  # noqa: BLE001  whatever it is, the test must hear of it
            self.seen.append(repr(error))

    def _write(self, client: httpx.Client, number: int) -> None:
        tenant = self._tenant
        doc_id = f"{tenant}-{self._chosen.randrange(20)}"
        metadata = {"tenant": tenant, f"{tenant}-only": number}
        match self._chosen.randrange(4):
            case 0:
                client.delete(f"{self._path}/documents/{doc_id}")
            case 1:
                batch = [{"id": f"{tenant}-{n}", "text": f"gull {n}", "metadata": metadata} for n in range(5)]
                client.post(f"{self._path}/documents", json={"documents": batch}).raise_for_status()
            case _:
                document = {"text": f"gull {number}", "metadata": metadata}
                client.put(f"{self._path}/documents/{doc_id}", json=document).raise_for_status()

    def _read(self, client: httpx.Client) -> None:
        other = "b" if self._tenant == "a" else "a"
        searches: list[dict[str, Any]] = [
            {"collection": self._path.rpartition("/")[2], "query": "gull", "k": 50, "mode": mode}
            for mode in ("hybrid", "dense", "lexical")
        ]
        searches[0]["filter"] = {"type": "exists", "key": f"{other}-only"}
        results = client.post("/v1/search", json={"searches": searches}).json()["results"]
        if results[0]["hits"]:
            self.seen.append("hits with a field of the other")
        for result in results:
            self._check(result["hits"])
        self._check(client.post(f"{self._path}/search", json={"query": "gull", "k": 50}).json()["hits"])
        self._check(client.get(f"{self._path}/documents").json()["documents"])

    def _check(self, documents: Sequence[dict[str, Any]]) -> None:
        self.seen += [each["id"] for each in documents if each["metadata"]["tenant"] != self._tenant]


def test_tenants_that_hammer_one_server_never_see_each_others_documents(
    server: Any, clients: dict[str, httpx.Client]
) -> None:
    path = make(clients["admin"], "hammered")
    hammers = [Hammer(server, path, tenant, seed) for seed, tenant in enumerate("abab")]
    for hammer in hammers:
        hammer.start()
    for _ in range(3):
        server.ended(clients["admin"], clients["admin"].post(f"{path}/compact"))
    for hammer in hammers:
        hammer.join()
    assert [hammer.seen for hammer in hammers] == [[], [], [], []]
    left = clients["admin"].get(f"{path}/documents", params={"limit": 100}).json()["documents"]
    assert {each["metadata"]["tenant"] for each in left} == {"a", "b"}


# -- without keys ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def local(start_server: Callable[..., Any]) -> Any:
    return start_server()


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:{port}", 200),
        ("localhost:{port}", 200),
        ("LOCALHOST", 200),
        ("[::1]:80", 200),
        ("[0:0:0:0:0:0:0:1]", 200),
        ("evil.example", 403),
        ("evil.example:{port}", 403),
        ("localhost.evil.example", 403),
        ("127.0.0.1.evil.example", 403),
        ("127.0.0.2", 403),
        ("localhost@evil.example", 403),
        ("", 403),
        ("localhost,evil.example", 403),
    ],
)
def test_a_server_without_keys_answers_to_names_of_this_machine_alone(local: Any, host: str, status: int) -> None:
    named = host.replace("{port}", local.url.rpartition(":")[2])
    with local.client() as client:
        for path in ("/v1/collections", "/", "/health/live", "/openapi.json"):
            assert client.get(path, headers={"Host": named}).status_code == status


@pytest.mark.parametrize(
    ("host", "origin", "status"),
    [
        ("localhost:8080", "http://localhost:8080", 200),
        ("localhost:8080", "https://LOCALHOST:8080", 200),
        ("localhost", "http://localhost", 200),
        ("localhost", "https://localhost:8443", 200),  # a proxy left the port out
        ("localhost:8080", "http://localhost:3000", 403),  # another program of this machine
        ("localhost:8080", "http://localhost", 403),
        ("localhost:8080", "http://127.0.0.1:8080", 403),
        ("localhost:8080", "http://evil.example:8080", 403),
        ("localhost:8080", "https://evil.example", 403),
        ("localhost:8080", "null", 403),
        ("localhost:8080", "", 403),
        ("localhost:8080", "localhost:8080", 403),
        ("localhost:8080", "http://localhost:8080.evil.example", 403),
        ("localhost:8080", "http://evil.example#http://localhost:8080", 403),
    ],
)
def test_pages_of_others_are_not_answered(local: Any, host: str, origin: str, status: int) -> None:
    with local.client() as client:
        assert client.get("/v1/collections", headers={"Host": host, "Origin": origin}).status_code == status
        answer = client.post("/v1/collections", json={}, headers={"Host": host, "Origin": origin})
        assert answer.status_code == (422 if status == 200 else status)
        assert "access-control-allow-origin" not in answer.headers


def test_a_form_of_a_foreign_page_does_nothing(local: Any) -> None:
    with local.client() as client:
        for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", ""):
            headers = {"content-type": kind} if kind else {}
            answer = client.post("/v1/collections", content=b'{"name": "forged"}', headers=headers)
            assert answer.status_code == 415, kind
            assert answer.json()["type"] == "grapnel:unsupported-media-type"
        assert client.get("/v1/collections").json() == {"collections": []}
        assert client.options("/v1/collections", headers={"Access-Control-Request-Method": "DELETE"}).status_code == 405


def test_allowed_hosts_are_those_of_the_configuration(start_server: Callable[..., Any]) -> None:
    server = start_server(
        {"server": {"allowed_hosts": ["*.example.com", "search", "127.0.0.1"]}}, {"k": {"scopes": ["read"]}}
    )
    with server.client("k") as client:
        found = {
            host: client.get("/v1/collections", headers={"Host": host}).status_code
            for host in (
                "search",
                "search:80",
                "a.example.com",
                "A.EXAMPLE.COM:1",
                "example.com",
                "evil",
                "example.com.evil",
                "localhost",
            )
        }
    assert [host for host, status in found.items() if status == 200] == [
        "search",
        "search:80",
        "a.example.com",
        "A.EXAMPLE.COM:1",
    ]


def test_nothing_of_the_machine_is_in_an_answer(start_server: Callable[..., Any]) -> None:
    """Nor in a refusal: of a damaged collection, of one that another process writes, of a damaged snapshot."""
    server = start_server()
    with server.client() as client:
        for name in ("whole", "broken", "taken"):
            client.put(f"{make(client, name)}/documents/d", json={"text": "otter"}).raise_for_status()
        snapshot = server.ended(client, client.post("/v1/collections/whole/snapshots"))["result"]["name"]
    assert server.stop() == 0
    (server.data / "broken" / "shards" / "0000" / "documents.db").write_bytes(b"not a database" * 100)
    archive = server.data / ".grapnel" / "snapshots" / "whole" / f"{snapshot}.tar"
    archive.write_bytes(archive.read_bytes()[:-2000])
    with Collection.open(server.data / "taken", writable=True):
        server.start()
        with server.client() as client:
            failing = [
                client.request(method, f"/v1/collections/{name}{path}", json=body)
                for name in ("broken", "taken", "nothing")
                for method, path, body in (
                    ("PUT", "/documents/d", {"text": "x"}),
                    ("DELETE", "/documents/d", None),
                    ("POST", "/documents", {"documents": [{"id": "d", "text": "x"}]}),
                    ("POST", "/compact", {}),
                )
            ]
            failing += [
                client.request(method, f"/v1/collections/broken{path}", json=body)
                for method, path, body in (
                    ("GET", "/documents/d", None),
                    ("GET", "/documents", None),
                    ("POST", "/search", {"query": "otter"}),
                    ("POST", "/context", {"query": "otter"}),
                    ("POST", "/grep", {"phrase": "otter"}),
                    ("POST", "/ngrams", {"ngram": "otter"}),
                )
            ]
            failing += [
                client.post("/v1/collections/whole/snapshots/none/restore", json={"into": "copy"}),
                client.post(f"/v1/collections/whole/snapshots/{snapshot}/restore", json={"into": "../copy"}),
                client.post("/v1/collections", json={"name": "whole"}),
                client.post("/v1/collections", json={"name": "n", "fields": {"d": {"kind": "dense", "encoder": "no"}}}),
                client.post("/v1/embeddings", json={"input": "x", "model": str(server.data.parent.name)}),
                client.get("/web/../../pyproject.toml"),
                client.get("/nothing"),
            ]
            assert [each.request.url for each in failing if not each.is_error] == []
            jobs = [
                client.post("/v1/collections/broken/snapshots"),
                client.post(f"/v1/collections/whole/snapshots/{snapshot}/restore", json={"into": "copy"}),
            ]
            assert [server.ended(client, job)["state"] for job in jobs] == ["failed", "failed"]
            public = ("/health/ready", "/metrics", "/openapi.json", "/v1/models")
            told = [client.get(path) for path in (*public, "/v1/collections", "/v1/jobs", "/v1/collections/taken")]
            assert all(each.is_success for each in told)
    assert str(server.data) in server.log_text(), "the operator is told where"
    for answer in (*failing, *told):
        for place in (str(server.data), f"{Path.home()}/", sys.prefix, str(ROOT)):
            assert place not in answer.text, answer.request.url
