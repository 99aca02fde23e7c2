"""Every native route against a real server process: what it does, and what it refuses, as documented."""

import hashlib
import itertools
import json
import shutil
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from retrieval.collection import Collection

BIRDS = [
    {
        "id": "auk",
        "text": "A short-winged diving bird of cold seas.",
        "title": "Auk",
        "metadata": {"sea": True, "n": 1},
    },
    {"id": "bee-eater", "text": "A colourful bird that eats bees and wasps.", "metadata": {"sea": False, "n": 2}},
    {"id": "crane", "text": "A tall bird with long legs that dances.", "title": "Crane", "metadata": {"n": 3}},
    {"id": "dipper", "text": "A small bird that walks under water in rivers.", "metadata": {"sea": False, "n": 4}},
    {"id": "eider", "text": "A large sea duck with warm down.", "title": "Eider", "metadata": {"sea": True, "n": 5}},
]
NUMBERS = itertools.count()


@pytest.fixture(scope="module")
def server(start_server: Callable[..., Any]) -> Any:
    encoders = {"default": {"kind": "hashing", "dim": 64}, "wide": {"kind": "hashing", "dim": 128}}
    return start_server({"encoders": encoders})


@pytest.fixture(scope="module")
def client(server: Any) -> Iterator[httpx.Client]:
    with server.client() as client:
        yield client


@pytest.fixture
def empty(client: httpx.Client) -> str:
    """The path of a new collection."""
    name = f"c{next(NUMBERS)}"
    assert client.post("/v1/collections", json={"name": name}).status_code == 201
    return f"/v1/collections/{name}"


@pytest.fixture
def birds(client: httpx.Client, empty: str) -> str:
    """The path of a new collection with BIRDS."""
    assert client.post(f"{empty}/documents", json={"documents": BIRDS}).json()["added"] == len(BIRDS)
    return empty


@pytest.fixture(scope="module")
def kept(client: httpx.Client) -> str:
    """The path of a collection with BIRDS that no test changes."""
    assert client.post("/v1/collections", json={"name": "kept"}).status_code == 201
    assert client.post("/v1/collections/kept/documents", json={"documents": BIRDS}).status_code == 200
    return "/v1/collections/kept"


def refused(response: httpx.Response, status: int, kind: str) -> dict[str, Any]:
    """Check that a response is a problem of RFC 9457; return it."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    problem: dict[str, Any] = response.json()
    assert problem["type"] == f"grapnel:{kind}"
    assert problem["status"] == status
    assert problem["title"]
    assert problem["request_id"] == response.headers["x-request-id"]
    return problem


def post(client: httpx.Client, path: str, body: Any) -> httpx.Response:
    """Send JSON as Python escapes it: httpx would refuse to send a lone surrogate."""
    return client.post(path, content=json.dumps(body), headers={"content-type": "application/json"})


def ids(response: httpx.Response) -> list[str]:
    assert response.status_code == 200, response.text
    body = response.json()
    return [each["id"] for each in body.get("hits", body.get("documents"))]


# -- health, page, models -------------------------------------------------------------------------------------------


def test_health(client: httpx.Client) -> None:
    assert client.get("/health/live").json() == {"status": "live"}
    assert client.get("/health/ready").json() == {"status": "ready", "failed_collections": 0}


def test_every_answer_has_an_id_and_says_that_it_is_not_to_be_kept(client: httpx.Client) -> None:
    made = [client.get("/v1/models").headers["x-request-id"] for _ in range(2)]
    assert made[0] != made[1]
    given = client.get("/nothing", headers={"X-Request-Id": "mine-1"})
    assert given.headers["x-request-id"] == refused(given, 404, "not-found")["request_id"] == "mine-1"
    assert client.get("/v1/models", headers={"X-Request-Id": "a b?"}).headers["x-request-id"] != "a b?"
    assert given.headers["cache-control"] == "no-store"
    assert given.headers["x-content-type-options"] == "nosniff"


def test_metrics_count_requests_by_route(client: httpx.Client, kept: str) -> None:
    client.get(f"{kept}/documents/auk")
    answer = client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert 'route="/v1/collections/{collection}/documents/{doc_id:path}",status="200"' in answer.text
    assert "auk" not in answer.text


def test_models_are_those_of_the_configuration(client: httpx.Client) -> None:
    assert client.get("/v1/models").json() == {
        "object": "list",
        "data": [
            {"id": "default", "object": "model", "owned_by": "grapnel", "kind": "encoder"},
            {"id": "wide", "object": "model", "owned_by": "grapnel", "kind": "encoder"},
            {"id": "similarity", "object": "model", "owned_by": "grapnel", "kind": "reranker"},
        ],
    }


def test_the_page_and_the_description_are_there(client: httpx.Client) -> None:
    page = client.get("/")
    assert page.headers["content-type"].startswith("text/html")
    assert "default-src 'self'" in page.headers["content-security-policy"]
    refused(client.get("/web/..%2Fapp.py"), 404, "not-found")
    refused(client.get("/web/nothing.js"), 404, "not-found")
    assert client.get("/openapi.json").json()["info"]["title"] == "grapnel"


def test_unknown_addresses_and_methods(client: httpx.Client) -> None:
    refused(client.get("/v1/nothing"), 404, "not-found")
    refused(client.delete("/v1/collections"), 405, "method-not-allowed")
    refused(client.get("/v1/collections/"), 404, "not-found")


# -- collections ----------------------------------------------------------------------------------------------------


def test_a_new_collection_is_described_listed_and_deleted(client: httpx.Client) -> None:
    made = client.post("/v1/collections", json={"name": "new"})
    assert made.status_code == 201
    about = made.json()
    assert about["name"] == "new"
    assert about["state"] == "ready"
    assert about["documents"] == about["passages"] == 0
    assert about["modes"] == ["hybrid", "dense", "lexical"]
    assert about["default_mode"] == "hybrid"
    assert about["fields"]["dense"]["encoder"] == "hashing"
    assert about["job"] is None
    assert "folder" not in about
    assert client.get("/v1/collections/new").json() == about
    assert about in client.get("/v1/collections").json()["collections"]
    refused(client.post("/v1/collections", json={"name": "new"}), 409, "conflict")
    gone = client.delete("/v1/collections/new")
    assert (gone.status_code, gone.content) == (204, b"")
    refused(client.get("/v1/collections/new"), 404, "not-found")
    refused(client.delete("/v1/collections/new"), 404, "not-found")
    assert client.post("/v1/collections", json={"name": "new"}).status_code == 201, "the name is free again"


@pytest.mark.parametrize(
    ("body", "status", "kind"),
    [
        ({}, 422, "invalid"),
        ({"name": "A"}, 422, "invalid"),
        ({"name": "a/b"}, 422, "invalid"),
        ({"name": ".."}, 422, "invalid"),
        ({"name": "a\n"}, 422, "invalid"),
        ({"name": "x" * 65}, 422, "invalid"),
        ({"name": ""}, 422, "invalid"),
        ({"name": 7}, 422, "invalid"),
        ({"name": "no", "unknown": 1}, 422, "invalid"),
        ({"name": "no", "fields": {}}, 422, "invalid"),
        ({"name": "no", "fields": {"../x": {"kind": "lexical"}}}, 422, "invalid"),
        ({"name": "no", "fields": {"a": {"kind": "telepathy"}}}, 422, "invalid"),
        ({"name": "no", "fields": {"a": {"kind": "dense"}}}, 422, "invalid"),
        ({"name": "no", "fields": {"a": {"kind": "dense", "encoder": "default", "dim": 4}}}, 422, "invalid"),
        ({"name": "no", "fields": {"a": {"kind": "dense", "encoder": "/some/model"}}}, 404, "not-found"),
        ({"name": "no", "fields": {"a": {"kind": "dense", "dim": 4, "index": "magic"}}}, 422, "invalid"),
        ({"name": "no", "fields": {"a": {"kind": "dense", "dim": 4, "metric": "manhattan"}}}, 422, "invalid"),
        ({"name": "no", "fields": {"a": {"kind": "dense", "dim": 4, "recall": 7}}}, 422, "invalid"),
        ({"name": "no", "fields": {"a": {"kind": "dense", "dim": 0}}}, 422, "invalid"),
        ({"name": "no", "fields": {"a": {"kind": "lexical", "language": "klingon"}}}, 422, "invalid"),
        ({"name": "no", "chunking": {"kind": "tokens", "max_tokens": 1, "overlap": 9}}, 422, "invalid"),
    ],
)
def test_a_collection_that_cannot_be_is_refused_and_leaves_nothing(
    client: httpx.Client, body: dict[str, Any], status: int, kind: str
) -> None:
    refused(client.post("/v1/collections", json=body), status, kind)
    assert client.get("/v1/collections/no").status_code == 404


def test_a_collection_of_vectors_that_clients_bring(client: httpx.Client) -> None:
    fields = {"v": {"kind": "dense", "dim": 2, "metric": "l2"}, "words": {"kind": "lexical"}}
    made = client.post("/v1/collections", json={"name": "vectors", "fields": fields})
    assert made.status_code == 201, made.text
    documents = [{"id": f"p{x}", "vectors": {"v": [x, 0]}} for x in range(5)]
    path = "/v1/collections/vectors"
    assert client.post(f"{path}/documents", json={"documents": documents}).json()["added"] == 5
    assert ids(client.post(f"{path}/search", json={"vectors": {"v": [3.2, 0]}, "mode": "v", "k": 3})) == [
        "p3",
        "p4",
        "p2",
    ]
    assert client.get(f"{path}/documents/p1").json()["vectors"] == {"v": [1.0, 0.0]}
    for vectors in ({"v": [1, 2, 3]}, {"other": [1, 2]}, {"v": [1e39, 0]}, {"v": []}, {"v": [10**400, 0]}):
        refused(client.post(f"{path}/search", json={"vectors": vectors, "mode": "v"}), 422, "invalid")
        refused(client.put(f"{path}/documents/bad", json={"vectors": vectors}), 422, "invalid")
    refused(client.post(f"{path}/search", json={"query": "text alone", "mode": "v"}), 422, "invalid")
    refused(client.put(f"{path}/documents/bad", json={"text": "", "vectors": {}}), 422, "invalid")
    refused(client.put(f"{path}/documents/words", json={"text": "words without a vector"}), 422, "invalid")


# -- aliases --------------------------------------------------------------------------------------------------------


def test_an_alias_stands_for_a_collection(client: httpx.Client, birds: str) -> None:
    name = birds.rpartition("/")[2]
    answer = client.put("/v1/aliases/latest", json={"collection": name})
    assert answer.status_code == 200
    assert answer.json()["aliases"]["latest"] == name
    assert client.get("/v1/aliases").json()["aliases"]["latest"] == name
    assert client.get("/v1/collections/latest").json()["aliases"] == ["latest"]
    assert client.get("/v1/collections/latest/documents/auk").status_code == 200
    assert ids(client.post("/v1/collections/latest/search", json={"query": "dances"}))[0] == "crane"
    assert client.put("/v1/collections/latest/documents/new", json={"text": "new"}).status_code == 201
    refused(client.delete("/v1/collections/latest"), 409, "conflict")
    refused(client.post("/v1/collections", json={"name": "latest"}), 409, "conflict")
    refused(client.put(f"/v1/aliases/{name}", json={"collection": name}), 409, "conflict")
    refused(client.put("/v1/aliases/other", json={"collection": "nothing"}), 404, "not-found")
    refused(client.put("/v1/aliases/other", json={"collection": "latest"}), 404, "not-found")
    assert client.delete("/v1/aliases/latest").status_code == 204
    refused(client.delete("/v1/aliases/latest"), 404, "not-found")
    refused(client.get("/v1/collections/latest"), 404, "not-found")


# -- documents ------------------------------------------------------------------------------------------------------


def test_put_get_and_delete_a_document_with_versions(client: httpx.Client, empty: str) -> None:
    path = f"{empty}/documents/a"
    body = {"text": "one", "title": "T", "metadata": {"k": [1, None, "x"], "deep": {"a": {"b": 1.5}}}}
    made = client.put(path, json=body)
    assert (made.status_code, made.json()) == (201, {"id": "a", "version": 1, "result": "added"})
    assert made.headers["etag"] == '"1"'
    got = client.get(path)
    assert got.json() == {"id": "a", "version": 1, **body}
    assert got.headers["etag"] == '"1"'
    assert client.put(path, json=body).json() == {"id": "a", "version": 1, "result": "unchanged"}
    assert client.put(path, json={**body, "metadata": {}}).json() == {"id": "a", "version": 2, "result": "patched"}
    assert client.put(path, json={"text": "two"}).json() == {"id": "a", "version": 3, "result": "updated"}
    gone = client.delete(path)
    assert (gone.status_code, gone.content) == (204, b"")
    refused(client.get(path), 404, "not-found")
    refused(client.delete(path), 404, "not-found")
    assert client.put(path, json={"text": "one"}).json()["version"] == 5, "versions never come again"


def test_a_write_can_depend_on_what_is_stored(client: httpx.Client, empty: str) -> None:
    path = f"{empty}/documents/a"

    def put(text: str, **headers: str) -> httpx.Response:
        return client.put(path, json={"text": text}, headers={k.replace("_", "-"): v for k, v in headers.items()})

    refused(put("x", If_Match='"1"'), 412, "precondition-failed")
    refused(put("x", If_Match="*"), 412, "precondition-failed")
    assert put("x", If_None_Match="*").status_code == 201
    refused(put("y", If_None_Match="*"), 412, "precondition-failed")
    refused(put("y", If_Match='"7"'), 412, "precondition-failed")
    assert client.get(path).json()["text"] == "x"
    assert put("y", If_Match='"1"').json()["version"] == 2
    assert put("z", If_Match="*").json()["version"] == 3
    for bad in ("", "seven", 'W/"3"', '"1", "3"', "-1", "9" * 40):
        refused(put("w", If_Match=bad), 422, "invalid")
    refused(put("w", If_None_Match='"3"'), 422, "invalid")
    refused(put("w", If_None_Match="*", If_Match='"3"'), 422, "invalid")
    refused(client.patch(path, json={"metadata": {"a": 1}}, headers={"If-Match": '"2"'}), 412, "precondition-failed")
    refused(client.delete(path, headers={"If-Match": '"2"'}), 412, "precondition-failed")
    assert client.patch(path, json={"metadata": {"a": 1}}, headers={"If-Match": '"3"'}).headers["etag"] == '"4"'
    assert client.delete(path, headers={"If-Match": '"4"'}).status_code == 204
    for gone in ('"4"', "*"):  # nothing is stored, so not what was expected
        refused(client.delete(path, headers={"If-Match": gone}), 412, "precondition-failed")
    refused(client.delete(path), 404, "not-found")


def test_patch_merges_metadata_and_removes_nulls(client: httpx.Client, birds: str) -> None:
    path = f"{birds}/documents/auk"
    version = client.get(path).json()["version"]
    answer = client.patch(path, json={"metadata": {"n": 10, "sea": None, "new": {"a": 1}}})
    assert answer.status_code == 200
    assert answer.json()["metadata"] == {"n": 10, "new": {"a": 1}}
    assert answer.json()["text"] == BIRDS[0]["text"]
    assert answer.json()["version"] > version
    assert client.get(path).json() == answer.json()
    same = client.patch(path, json={"metadata": {"n": 10, "gone": None}})
    assert same.json() == answer.json(), "what changes nothing makes no version"
    assert ids(client.post(f"{birds}/search", json={"query": "bird", "filter": _eq("n", 10)})) == ["auk"]
    refused(client.patch(f"{birds}/documents/nothing", json={"metadata": {"a": 1}}), 404, "not-found")
    refused(client.patch(path, json={"metadata": [1]}), 422, "invalid")
    refused(client.patch(path, json={"text": "x"}), 422, "invalid")


@pytest.mark.parametrize(
    "doc_id",
    [
        "a/b",
        "a/../b",
        "..",
        "?",
        "#",
        "%",
        "100%25",
        "a b",
        " a ",
        "a+b",
        "\u00e9\U0001f9a6",
        "\ufffd",
        "get",
        "list",
        "x" * 512,
    ],
)
def test_any_id_a_document_may_have_works_in_a_path(client: httpx.Client, empty: str, doc_id: str) -> None:
    escaped = "".join(f"%{byte:02X}" for byte in doc_id.encode())
    path = f"{empty}/documents/{escaped}"
    assert client.put(path, json={"text": "hello"}).json()["id"] == doc_id
    assert client.get(path).json()["id"] == doc_id
    assert client.patch(path, json={"metadata": {"a": 1}}).json()["id"] == doc_id
    assert ids(client.get(f"{empty}/documents")) == [doc_id]
    assert client.delete(path).status_code == 204
    assert ids(client.get(f"{empty}/documents")) == []


@pytest.mark.parametrize("escaped", ["a%0A", "a%0Ab", "%00", "a%7F", "%FF", "a%C3", "%C0%80", "%ED%A0%80"])
def test_a_path_that_is_no_id_means_no_other_document(client: httpx.Client, empty: str, escaped: str) -> None:
    kept = {"documents": [{"id": "a", "text": "kept"}, {"id": "\ufffd", "text": "kept"}]}
    client.post(f"{empty}/documents", json=kept)
    path = f"{empty}/documents/{escaped}"
    for answer in (
        client.put(path, json={"text": "overwritten"}),
        client.get(path),
        client.patch(path, json={"metadata": {"a": 1}}),
        client.delete(path),
    ):
        refused(answer, 400, "bad-request")
    assert client.get(f"{empty}/documents").json()["documents"] == [
        {"id": doc["id"], "text": "kept", "title": "", "metadata": {}, "version": version}
        for version, doc in enumerate(kept["documents"], start=1)
    ]


def test_many_documents_are_stored_all_or_none(client: httpx.Client, empty: str) -> None:
    answer = client.post(f"{empty}/documents", json={"documents": BIRDS}).json()
    assert answer == {"added": 5, "updated": 0, "patched": 0, "unchanged": 0, "encoded": 5, "truncated": 0}
    changed = [{**BIRDS[0], "text": "changed"}, {**BIRDS[1], "metadata": {}}, BIRDS[2]]
    answer = client.post(f"{empty}/documents", json={"documents": changed}).json()
    assert answer == {"added": 0, "updated": 1, "patched": 1, "unchanged": 1, "encoded": 1, "truncated": 0}
    bad = [{"id": "good", "text": "x"}, {"id": "bad"}]
    assert "bad" in refused(client.post(f"{empty}/documents", json={"documents": bad}), 422, "invalid")["detail"]
    twice = [{"id": "twin", "text": "x"}, {"id": "twin", "text": "y"}]
    assert "twin" in refused(client.post(f"{empty}/documents", json={"documents": twice}), 422, "invalid")["detail"]
    found = post(client, f"{empty}/documents/get", {"ids": ["good", "auk", "twin", "auk", "\ud800"]})
    assert [each and each["id"] for each in found.json()["documents"]] == [None, "auk", None, "auk", None]
    assert client.post(f"{empty}/documents", json={"documents": []}).json()["added"] == 0


def test_pages_walk_through_all_documents_by_id(client: httpx.Client, kept: str) -> None:
    seen: list[str] = []
    after: str | None = ""
    while after is not None:
        page = client.get(f"{kept}/documents", params={"limit": 2, "after": after}).raise_for_status().json()
        assert len(page["documents"]) <= 2
        seen += [each["id"] for each in page["documents"]]
        after = page["next"]
    assert seen == [bird["id"] for bird in BIRDS]
    listed = client.post(f"{kept}/documents/list", json={"filter": _eq("sea", True), "limit": 1, "include": []})
    assert listed.json() == {
        "documents": [{"id": "auk", "title": "Auk", "metadata": {"sea": True, "n": 1}, "version": 1}],
        "next": "auk",
    }
    body = {"filter": _eq("sea", True), "limit": 5, "after": "auk"}
    assert ids(client.post(f"{kept}/documents/list", json=body)) == ["eider"]
    refused(client.get(f"{kept}/documents", params={"limit": 0}), 422, "invalid")
    refused(client.get(f"{kept}/documents", params={"limit": "many"}), 422, "invalid")
    refused(client.get(f"{kept}/documents", params={"limit": 1001}), 422, "invalid")
    problem = refused(client.post(f"{kept}/documents/list", json={"filter": _eq("wings", 2)}), 422, "invalid")
    assert "wings" in problem["detail"]
    assert "sea" in problem["detail"], "who may see all documents is told what fields there are"


def test_documents_are_counted(client: httpx.Client, kept: str) -> None:
    path = f"{kept}/documents/count"
    assert client.post(path, json={}).json() == {"documents": len(BIRDS)}
    assert client.post(path, json={"filter": _eq("sea", True)}).json() == {"documents": 2}
    refused(client.post(path, json={"filter": {"type": "near"}}), 422, "invalid")
    refused(client.post(path, json={"limit": 3}), 422, "invalid")


def test_a_field_that_no_document_has_is_an_error_or_missing_everywhere(client: httpx.Client, birds: str) -> None:
    has, lacks = _eq("wings", 2), {"type": "ne", "key": "wings", "value": 2}
    everything = len(BIRDS)
    paths = {"search": {"query": "bird"}, "documents/list": {}, "documents/count": {}, "documents/delete": {}}
    for path, body in paths.items():
        for condition in (has, lacks):
            refused(client.post(f"{birds}/{path}", json={**body, "filter": condition}), 422, "invalid")
        strict = {**body, "filter": has, "strict_filter": True}
        refused(client.post(f"{birds}/{path}", json=strict), 422, "invalid")

    def lenient(path: str, condition: dict[str, Any]) -> Any:
        body = {**paths[path], "filter": condition, "strict_filter": False}
        return client.post(f"{birds}/{path}", json=body).raise_for_status().json()

    assert lenient("search", has)["hits"] == []
    assert len(lenient("search", lacks)["hits"]) == everything
    assert lenient("documents/list", has)["documents"] == []
    assert len(lenient("documents/list", lacks)["documents"]) == everything
    assert [lenient("documents/count", each)["documents"] for each in (has, lacks)] == [0, everything]
    assert [lenient("documents/delete", each)["deleted"] for each in (has, lacks)] == [0, everything]
    refused(client.post(f"{birds}/documents/list", json={"strict_filter": 0}), 422, "invalid")


def test_delete_by_id_and_by_filter(client: httpx.Client, birds: str) -> None:
    path = f"{birds}/documents/delete"
    assert client.post(path, json={"ids": ["auk", "auk", "nothing"]}).json() == {"deleted": 1}
    assert client.post(path, json={"ids": ["crane"], "filter": _eq("sea", False)}).json() == {"deleted": 3}
    assert ids(client.get(f"{birds}/documents")) == ["eider"]
    refused(client.post(path, json={}), 422, "invalid")
    refused(client.post(path, json={"ids": [], "filter": None}), 422, "invalid")
    refused(client.post(path, json={"filter": {"type": "eq"}}), 422, "invalid")
    refused(client.post(path, json={"filter": {}}), 422, "invalid")
    assert ids(client.get(f"{birds}/documents")) == ["eider"]


def test_unknown_collections_are_not_found_wherever_they_stand(client: httpx.Client) -> None:
    path = "/v1/collections/nothing"
    document = {"text": "x"}
    answers = [
        client.get(path),
        client.delete(path),
        client.post(f"{path}/compact"),
        client.post(f"{path}/reembed", json={"into": "b", "encoder": "default"}),
        client.post(f"{path}/snapshots"),
        client.get(f"{path}/documents"),
        client.get(f"{path}/documents/a"),
        client.put(f"{path}/documents/a", json=document),
        client.patch(f"{path}/documents/a", json={"metadata": {}}),
        client.delete(f"{path}/documents/a"),
        client.post(f"{path}/documents", json={"documents": []}),
        client.post(f"{path}/documents/get", json={"ids": []}),
        client.post(f"{path}/documents/list", json={}),
        client.post(f"{path}/documents/count", json={}),
        client.post(f"{path}/documents/delete", json={"ids": ["a"]}),
        client.post(f"{path}/bulk", content=b"", headers={"content-type": "application/x-ndjson"}),
        client.post(f"{path}/search", json={"query": "x"}),
        client.post(f"{path}/context", json={"query": "x"}),
        client.post(f"{path}/grep", json={"phrase": "x"}),
        client.post(f"{path}/ngrams", json={"ngram": "x"}),
    ]
    for answer in answers:
        refused(answer, 404, "not-found")
    assert client.get(f"{path}/snapshots").json() == {"snapshots": []}, "of a deleted collection they stay"


# -- bulk -----------------------------------------------------------------------------------------------------------


def bulk(client: httpx.Client, path: str, content: Any, kind: str = "application/x-ndjson") -> httpx.Response:
    return client.post(f"{path}/bulk", content=content, headers={"content-type": kind})


def test_a_bulk_stream_stores_what_is_good_and_reports_the_rest_by_line(client: httpx.Client, empty: str) -> None:
    lines = [
        b'{"id": "a", "text": "first"}',
        b"",
        b'{"id": "b", "text": "second", "metadata": {"n": 1}}\r',
        b"{broken",
        b'{"id": "c"}',
        b'{"id": "a", "text": "the first again"}',
        b'{"text": "no id"}',
        b'{"id": "d", "text": "x", "unknown": 1}',
        b'{"id": "\\ud800", "text": "x"}',
        b'{"id": "e", "text": "x", "metadata": {"n": ' + b"9" * 5000 + b"}}",
        b'{"id": "f", "text": "\xff"}',
        b"[" * 100_000,
        b'{"id": 7, "text": "x"}',
        b'{"id": "last", "text": "without a line feed"}',
    ]
    answer = bulk(client, empty, b"\n".join(lines))
    assert answer.status_code == 200, answer.text
    report = answer.json()
    errors = report.pop("errors")
    assert report == {
        "lines": 14,
        "added": 3,
        "updated": 1,
        "patched": 0,
        "unchanged": 0,
        "encoded": 4,
        "truncated": 0,
        "failed": 9,
    }
    assert sorted(error["line"] for error in errors) == [4, 5, 7, 8, 9, 10, 11, 12, 13]
    assert all(error["message"] for error in errors)
    assert next(error for error in errors if error["line"] == 5)["id"] == "c"
    assert client.get(f"{empty}/documents/a").json()["text"] == "the first again"
    assert ids(client.get(f"{empty}/documents")) == ["a", "b", "last"]


def test_bulk_counts_are_right_where_ids_come_twice_and_a_document_is_refused(client: httpx.Client, empty: str) -> None:
    lines = [{"id": "a", "text": "1"}, {"id": "a", "text": "2"}, {"id": "bad"}, {"id": "b", "text": "3"}]
    report = bulk(client, empty, "\n".join(map(json.dumps, lines))).json()
    assert {key: report[key] for key in ("added", "updated", "unchanged", "failed")} == {
        "added": 2,
        "updated": 1,
        "unchanged": 0,
        "failed": 1,
    }


def test_a_long_stream_is_stored_in_batches_as_it_comes(client: httpx.Client, empty: str) -> None:
    def lines() -> Iterator[bytes]:
        for number in range(1_200):
            yield json.dumps({"id": f"{number:05}", "text": f"document number {number}"}).encode() + b"\n"
            if number == 1_100:
                seen.append(client_2.get(empty).json()["documents"])

    seen: list[int] = []
    with httpx.Client(base_url=client.base_url) as client_2:
        report = bulk(client, empty, lines()).json()
    assert (report["lines"], report["added"], report["failed"]) == (1_200, 1_200, 0)
    assert seen[0] in {0, 500, 1_000}, "whole batches, whichever had been stored by then"
    assert client.get(empty).json()["documents"] == 1_200


def test_a_stream_that_breaks_off_keeps_what_came_before(client: httpx.Client, empty: str) -> None:
    class BrokenError(Exception):
        pass

    def lines() -> Iterator[bytes]:
        yield b'{"id": "a", "text": "came"}\n{"id": "b", "te'
        raise BrokenError

    with pytest.raises(BrokenError):
        bulk(client, empty, lines())
    with httpx.Client(base_url=client.base_url) as other:
        for _ in range(200):
            if ids(other.get(f"{empty}/documents")) == ["a"]:
                return
    raise AssertionError("the whole line was not stored")


def test_a_bulk_body_of_another_type_is_refused(client: httpx.Client, empty: str) -> None:
    problem = refused(bulk(client, empty, b'{"id": "a", "text": "x"}', "text/plain"), 415, "unsupported-media-type")
    assert "application/x-ndjson" in problem["detail"]
    assert bulk(client, empty, b'{"id": "a", "text": "x"}', "application/jsonl; charset=utf-8").status_code == 200


# -- search ---------------------------------------------------------------------------------------------------------


def _eq(key: str, value: Any) -> dict[str, Any]:
    return {"type": "eq", "key": key, "value": value}


def test_a_search_answers_with_hits_and_explains_them(client: httpx.Client, kept: str) -> None:
    body = {"query": "a bird that walks under water", "k": 3, "explain": True}
    answer = client.post(f"{kept}/search", json=body).json()
    assert answer["mode"] == "hybrid"
    assert [hit["rank"] for hit in answer["hits"]] == [1, 2, 3]
    best = answer["hits"][0]
    assert best["id"] == "dipper"
    assert best["metadata"] == {"sea": False, "n": 4}
    assert best["passage"] == {"ordinal": 0, "start": 0, "end": len(BIRDS[3]["text"]), "text": BIRDS[3]["text"]}
    assert {part["stage"] for part in best["evidence"]} == {"dense", "lexical"}
    snippet = best["snippet"]
    marked = {best["passage"]["text"][slice(*span)].lower() for span in snippet["highlights"]}
    assert {"walks", "under", "water"} & marked
    assert answer["timings_ms"]
    assert answer["total_ms"] > 0
    scores = [hit["score"] for hit in answer["hits"]]
    assert scores == sorted(scores, reverse=True)


def test_the_options_of_a_search(client: httpx.Client, kept: str) -> None:
    def found(**options: Any) -> list[str]:
        return ids(post(client, f"{kept}/search", {"query": "bird", "mode": "dense", "k": 5, **options}))

    everything = found()
    assert sorted(everything) == [bird["id"] for bird in BIRDS]
    assert found(k=2) == everything[:2]
    assert found(k=2, offset=2) == everything[2:4]
    assert client.post(f"{kept}/search", json={"query": "bird", "offset": 2, "k": 1}).json()["hits"][0]["rank"] == 3
    assert found(filter=_eq("sea", True)) == [each for each in everything if each in {"auk", "eider"}]
    assert found(exclude=["auk", "\ud800"]) == [each for each in everything if each != "auk"]
    assert sorted(found(query="", like="auk")) == ["bee-eater", "crane", "dipper", "eider"]
    assert found(min_score=1e9) == []
    assert sorted(found(diversity=0.5)) == sorted(everything)
    assert sorted(found(group="passage")) == sorted(everything)
    assert found(query="dances", mode="lexical") == ["crane"]
    assert found(query="dances", mode=None, fusion={"parts": ["lexical"], "weights": [1]}) == ["crane"]
    assert found(rerank={"model": "similarity", "depth": 5}) == everything, "the same vectors give the same order"
    hit = client.post(f"{kept}/search", json={"query": "bird", "include": [], "snippet_chars": 0}).json()["hits"][0]
    assert set(hit) == {"rank", "id", "score", "stage", "title", "passage"}
    assert "text" not in hit["passage"]


@pytest.mark.parametrize(
    ("options", "status", "kind"),
    [
        ({"query": ""}, 422, "invalid"),
        ({"query": " \n"}, 422, "invalid"),
        ({"query": "\ud800"}, 422, "invalid"),
        ({"k": 0}, 422, "invalid"),
        ({"k": 1001}, 422, "invalid"),
        ({"k": 10.5}, 422, "invalid"),
        ({"k": "10"}, 422, "invalid"),
        ({"k": True}, 422, "invalid"),
        ({"k": None}, 422, "invalid"),
        ({"k": 10**400}, 422, "invalid"),
        ({"offset": -1}, 422, "invalid"),
        ({"offset": 10_000}, 422, "invalid"),
        ({"offset": 10**4299}, 422, "invalid"),
        ({"depth": 10_001}, 422, "invalid"),
        ({"timeout_ms": 0}, 422, "invalid"),
        ({"timeout_ms": 10**400}, 422, "invalid"),
        ({"timeout_ms": 30_001}, 422, "invalid"),
        ({"mode": "psychic"}, 422, "invalid"),
        ({"mode": "\ud800"}, 422, "invalid"),
        ({"mode": "dense", "fusion": {"parts": ["dense"], "weights": [1]}}, 422, "invalid"),
        ({"fusion": {"parts": ["nothing"], "weights": [1]}}, 422, "invalid"),
        ({"fusion": {"parts": ["dense", "lexical"], "weights": [1]}}, 422, "invalid"),
        ({"fusion": {"parts": ["dense", "dense"], "weights": [1, 1]}}, 422, "invalid"),
        ({"fusion": {"parts": ["dense"], "weights": [-1]}}, 422, "invalid"),
        ({"fusion": {"parts": ["dense"], "weights": [1], "method": "rrf", "rrf_k": -61}}, 422, "invalid"),
        ({"like": "nothing"}, 422, "invalid"),
        ({"like": "\ud800"}, 422, "invalid"),
        ({"rerank": {"model": "nothing"}}, 422, "invalid"),
        ({"rerank": {"model": "similarity", "depth": 1_001}}, 422, "invalid"),
        ({"diversity": 2}, 422, "invalid"),
        ({"min_score": 10**400}, 422, "invalid"),
        ({"group": "flock"}, 422, "invalid"),
        ({"snippet_chars": -1}, 422, "invalid"),
        ({"include": ["everything"]}, 422, "invalid"),
        ({"effort": {"ef": 0}}, 422, "invalid"),
        ({"filter": _eq("wings", 2)}, 422, "invalid"),
        ({"filter": {"type": "regex", "key": "n", "value": ".*"}}, 422, "invalid"),
        ({"filter": _eq("n", {"$ne": 1})}, 422, "invalid"),
        ({"filter": _eq("\ud800", 1)}, 422, "invalid"),
        ({"filter": {"type": "and", "filters": []}}, 422, "invalid"),
        ({"filter": {"type": "in", "key": "n", "value": list(range(2_000))}}, 422, "invalid"),
        ({"filter": []}, 422, "invalid"),
        ({"vectors": {"dense": [1, 2]}}, 422, "invalid"),
        ({"vectors": {"lexical": [1, 2]}}, 422, "invalid"),
        ({"unknown": 1}, 422, "invalid"),
    ],
)
def test_a_search_that_cannot_be_answered_is_refused(
    client: httpx.Client, kept: str, options: dict[str, Any], status: int, kind: str
) -> None:
    body = {"query": "bird", **options}
    problem = refused(post(client, f"{kept}/search", body), status, kind)
    assert problem["detail"] or problem["errors"]


def test_a_deep_filter_is_refused(client: httpx.Client, kept: str) -> None:
    condition = _eq("n", 1)
    for _ in range(8):
        condition = {"type": "not", "filter": condition}
    problem = refused(client.post(f"{kept}/search", json={"query": "bird", "filter": condition}), 422, "invalid")
    assert "8" in problem["detail"]


def test_several_searches_have_each_their_own_answer_or_problem(client: httpx.Client, kept: str) -> None:
    name = kept.rpartition("/")[2]
    searches = [
        {"collection": name, "query": "dances", "k": 1},
        {"collection": "nothing", "query": "x"},
        {"collection": name, "query": "x", "mode": "psychic"},
        {"collection": name, "query": "water", "k": 1, "timeout_ms": 30_000},
        {"collection": name, "query": "x", "timeout_ms": 30_001},
    ]
    results = client.post("/v1/search", json={"searches": searches}).raise_for_status().json()["results"]
    assert results[0]["hits"][0]["id"] == "crane"
    assert results[1]["problem"]["type"] == "grapnel:not-found"
    assert results[2]["problem"]["type"] == "grapnel:invalid"
    assert results[3]["hits"][0]["id"] == "dipper"
    assert results[4]["problem"]["type"] == "grapnel:invalid"
    assert client.post("/v1/search", json={"searches": []}).json() == {"results": []}
    many = [{"collection": name, "query": "x"}] * 65
    refused(client.post("/v1/search", json={"searches": many}), 422, "invalid")
    refused(client.post("/v1/search", json={"searches": [{"query": "x"}]}), 422, "invalid")


def test_a_context_is_packed_into_its_budget(client: httpx.Client, kept: str) -> None:
    answer = client.post(f"{kept}/context", json={"query": "bird that dances", "budget_tokens": 30, "k": 5}).json()
    assert answer["tokens"] <= answer["budget_tokens"] == 30
    first = answer["blocks"][0]
    assert first["id"] == "crane"
    assert first["citation"] == f"crane#0-{len(BIRDS[2]['text'])}"
    assert first["text"] == BIRDS[2]["text"]
    assert first["text"] in answer["context"]
    assert answer["left_out"] > 0
    for body in (
        {"query": ""},
        {"query": "x", "budget_tokens": 0},
        {"query": "x", "k": 1_001},
        {"query": "x", "neighbours": 11},
    ):
        refused(client.post(f"{kept}/context", json=body), 422, "invalid")


# -- upkeep ---------------------------------------------------------------------------------------------------------


def test_compaction_folds_what_was_written(server: Any, client: httpx.Client, birds: str) -> None:
    assert client.get(birds).json()["fresh_passages"] == 5
    job = server.ended(client, client.post(f"{birds}/compact"))
    assert (job["kind"], job["state"], job["error"]) == ("compact", "done", None)
    assert job["result"]["passages"] == 5
    assert job in client.get("/v1/jobs").json()["jobs"]
    assert client.get(birds).json()["fresh_passages"] == 0
    assert ids(client.post(f"{birds}/search", json={"query": "dances"}))[0] == "crane"
    refused(client.get("/v1/jobs/nothing-1"), 404, "not-found")


def test_a_snapshot_is_verified_and_becomes_a_new_collection(server: Any, client: httpx.Client, birds: str) -> None:
    name = birds.rpartition("/")[2]
    job = server.ended(client, client.post(f"{birds}/snapshots"))
    assert job["state"] == "done", job
    (snapshot,) = client.get(f"{birds}/snapshots").json()["snapshots"]
    assert snapshot == job["result"]
    assert snapshot["documents"] == 5
    file = server.data / ".grapnel" / "snapshots" / name / f"{snapshot['name']}.tar"
    assert hashlib.sha256(file.read_bytes()).hexdigest() == snapshot["sha256"]
    restore = f"{birds}/snapshots/{snapshot['name']}/restore"

    client.put(f"{birds}/documents/later", json={"text": "after the snapshot"})
    job = server.ended(client, client.post(restore, json={"into": f"{name}-copy"}))
    assert job["state"] == "done", job
    copy = client.get(f"/v1/collections/{name}-copy/documents").json()["documents"]
    assert [each["id"] for each in copy] == [bird["id"] for bird in BIRDS]
    refused(client.post(restore, json={"into": name}), 409, "conflict")
    refused(client.post(restore, json={"into": "../x"}), 422, "invalid")

    damaged = bytearray(file.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    file.write_bytes(damaged)
    job = server.ended(client, client.post(restore, json={"into": f"{name}-bad"}))
    assert job["state"] == "failed"
    assert str(server.data) not in json.dumps(job), "files of the server are named in its log, not to clients"
    refused(client.get(f"/v1/collections/{name}-bad"), 404, "not-found")

    for other in ("nothing", "20000101T000000Z"):
        refused(client.post(f"{birds}/snapshots/{other}/restore", json={"into": "no"}), 404, "not-found")
        refused(client.delete(f"{birds}/snapshots/{other}"), 404, "not-found")
    assert client.delete(birds).status_code == 204
    assert len(client.get(f"{birds}/snapshots").json()["snapshots"]) == 1, "it outlives its collection"
    assert client.delete(f"{birds}/snapshots/{snapshot['name']}").status_code == 204
    assert client.get(f"{birds}/snapshots").json() == {"snapshots": []}
    assert not file.exists()


def test_reembedding_makes_a_new_collection_and_moves_the_alias(server: Any) -> None:
    with server.client() as client:
        client.post("/v1/collections", json={"name": "one"})
        client.post("/v1/collections/one/documents", json={"documents": BIRDS})
        client.put("/v1/aliases/birds", json={"collection": "one"})
        path = "/v1/collections/one/reembed"
        body = {"into": "two", "encoder": "wide", "alias": "birds"}
        job = server.ended(client, client.post(path, json=body))
        assert job["state"] == "done", job
        assert job["result"] == {"into": "two", "alias": "birds", "documents": 5, "not_copied": 0}
        about = client.get("/v1/collections/birds").json()
        assert (about["name"], about["documents"], about["fields"]["dense"]["dim"]) == ("two", 5, 128)
        assert ids(client.post("/v1/collections/birds/search", json={"query": "dances"}))[0] == "crane"
        assert client.get("/v1/collections/one").json()["aliases"] == []

        refused(client.post(path, json={"into": "three", "encoder": "default"}), 422, "invalid")
        refused(client.post(path, json={"into": "three", "encoder": "nothing"}), 404, "not-found")
        refused(client.post(path, json={"into": "two", "encoder": "wide"}), 409, "conflict")
        refused(client.post(path, json={"into": "birds", "encoder": "wide"}), 409, "conflict")
        refused(client.post(path, json={"into": "three", "encoder": "wide", "alias": "two"}), 409, "conflict")
        refused(client.post(path, json={"into": "three", "encoder": "wide", "alias": "three"}), 409, "conflict")
        assert client.get("/v1/collections/three").status_code == 404

        client.post("/v1/collections", json={"name": "empty"})
        job = server.ended(
            client, client.post("/v1/collections/empty/reembed", json={"into": "void", "encoder": "wide"})
        )
        assert job["state"] == "done", job
        assert client.get("/v1/collections/void").json()["documents"] == 0


# -- what a server finds when it starts -----------------------------------------------------------------------------


def test_a_restart_finds_everything_and_what_another_process_writes_can_be_searched(
    start_server: Callable[..., Any],
) -> None:
    server = start_server()
    with server.client() as client:
        for name in ("shared", "broken", "aliased"):
            client.post("/v1/collections", json={"name": name})
            client.post(f"/v1/collections/{name}/documents", json={"documents": BIRDS})
        client.put("/v1/aliases/now", json={"collection": "aliased"})
    assert server.stop() == 0
    (server.data / "broken" / "shards" / "0000" / "documents.db").write_bytes(b"not a database" * 100)
    (server.data / "Not A Name").mkdir()
    shutil.copy(server.data / "shared" / "collection.toml", server.data / "Not A Name")
    with Collection.open(server.data / "shared", writable=True):
        server.start()
        with server.client() as client:
            states = {each["name"]: each["state"] for each in client.get("/v1/collections").json()["collections"]}
            assert states == {"aliased": "ready", "broken": "failed", "shared": "read-only"}
            assert client.get("/health/ready").json()["failed_collections"] == 1

            assert client.get("/v1/collections/now/documents/auk").json()["text"] == BIRDS[0]["text"]
            assert client.delete("/v1/collections/aliased").status_code == 204
            assert client.get("/v1/aliases").json() == {"aliases": {}}

            path = "/v1/collections/shared"
            assert ids(client.post(f"{path}/search", json={"query": "dances"}))[0] == "crane"
            for answer in (
                client.put(f"{path}/documents/a", json={"text": "x"}),
                client.delete(f"{path}/documents/auk"),
                client.post(f"{path}/documents", json={"documents": BIRDS}),
                bulk(client, path, b'{"id": "a", "text": "x"}'),
                client.post(f"{path}/compact"),
            ):
                problem = refused(answer, 503, "read-only")
                assert str(server.data) not in json.dumps(problem)
            refused(client.post("/v1/collections/broken/search", json={"query": "x"}), 503, "damaged")
            refused(client.put("/v1/collections/broken/documents/a", json={"text": "x"}), 503, "damaged")
            refused(client.post("/v1/collections/broken/compact"), 503, "damaged")
            assert client.delete("/v1/collections/broken").status_code == 204, "a broken one can be removed"
