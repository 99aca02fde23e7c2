"""`grep` and `ngrams` over HTTP, against a real server process: answers, filters, tenants, and what is refused."""

import json
import random
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import httpx
import pytest

C = "/v1/collections/tales"
FIELDS = {
    "lexical": {"kind": "lexical"},
    "phrases": {"kind": "substring"},
    "kept": {"kind": "substring", "case": "keep"},
}
LIMITS = {"k": 20, "depth": 100, "text_chars": 60, "places": 8, "timeout_s": 20.0}
DOCUMENTS = [
    {"id": "1", "title": "Fox", "text": "The quick fox saw the quick hen.", "metadata": {"tenant": "a", "n": 1}},
    {"id": "2", "text": "A hen, the quick one, saw nothing.", "metadata": {"tenant": "b", "n": 2, "secret": "x"}},
    {"id": "3", "title": "the quick owl", "text": "An owl slept.", "metadata": {"tenant": "a", "n": 3}},
    {"id": "4", "text": "A zebra and the zebra and the zebra.", "metadata": {"tenant": "b", "n": 4}},
    {"id": "5", "text": "hen " * 9, "metadata": {"tenant": "b"}},
]
LATER = {"type": "gt", "key": "n", "value": 1}
KEYS: dict[str, dict[str, Any]] = {
    "admin": {"scopes": ["admin"]},
    "reader": {"scopes": ["read"], "collections": ["tales", "plain"]},
    "stranger": {"scopes": ["read"], "collections": ["other"]},
    "writer": {"scopes": ["write"]},
    "a": {"scopes": ["read", "write"], "filter": {"type": "eq", "key": "tenant", "value": "a"}},
    "b": {"scopes": ["read", "write"], "filter": {"type": "eq", "key": "tenant", "value": "b"}},
}


@pytest.fixture(scope="module")
def clients(start_server: Callable[..., Any]) -> Iterator[dict[str, httpx.Client]]:
    server = start_server({"limits": LIMITS}, KEYS)
    opened = {name: server.client(name) for name in KEYS}
    admin = opened["admin"]
    for name, fields in (("tales", FIELDS), ("plain", {"lexical": {"kind": "lexical"}}), ("fresh", FIELDS)):
        admin.post("/v1/collections", json={"name": name, "fields": fields}).raise_for_status()
        admin.post(f"/v1/collections/{name}/documents", json={"documents": DOCUMENTS}).raise_for_status()
        if name != "fresh":
            assert server.ended(admin, admin.post(f"/v1/collections/{name}/compact"))["state"] == "done"
    yield opened
    for client in opened.values():
        client.close()


@pytest.fixture
def client(clients: dict[str, httpx.Client]) -> httpx.Client:
    return clients["reader"]


def ok(answer: httpx.Response) -> dict[str, Any]:
    assert answer.status_code == 200, answer.text
    value: dict[str, Any] = answer.json()
    return value


def grep(client: httpx.Client, phrase: str, path: str = C, **options: Any) -> dict[str, Any]:
    return ok(client.post(f"{path}/grep", json={"phrase": phrase, **options}))


def ngrams(client: httpx.Client, ngram: str, path: str = C, **options: Any) -> dict[str, Any]:
    return ok(client.post(f"{path}/ngrams", json={"ngram": ngram, **options}))


def test_a_phrase_is_found_with_its_characters(client: httpx.Client) -> None:
    found = grep(client, "The quick", limit=3)
    assert {key: found[key] for key in ("phrase", "field", "tokens", "count", "documents", "notes")} == {
        "phrase": "The quick",
        "field": "phrases",
        "tokens": ["the", "quick"],
        "count": 4,
        "documents": 3,
        "notes": [],
    }
    shown = [(each["doc_id"], each["title"], each["part"], each["start"], each["end"]) for each in found["matches"]]
    assert shown == [("1", "Fox", "text", 0, 9), ("1", "Fox", "text", 18, 27), ("2", "", "text", 7, 16)]
    assert found["matches"][0]["snippet"] == {"text": DOCUMENTS[0]["text"], "start": 0}
    assert grep(client, "The quick", field="kept")["count"] == 4, "this tokenizer lowers by itself"
    assert grep(client, "quick the")["count"] == 0


def test_an_n_gram_is_counted_with_what_follows(client: httpx.Client) -> None:
    counted = ngrams(client, "the quick", limit=2)
    assert (counted["ngram"], counted["tokens"], counted["count"]) == ("the quick", ["the", "quick"], 4)
    assert counted["used"] == {"tokens": ["the", "quick"], "count": 4, "ends": 0}
    assert counted["distinct"] == 4
    assert len(counted["continuations"]) == 2
    assert all((each["count"], each["probability"]) == (1, 0.25) for each in counted["continuations"])
    backed = ngrams(client, "zebra quick fox")
    assert (backed["count"], backed["used"]["tokens"]) == (0, ["quick", "fox"])
    assert backed["notes"][0].startswith("backed_off=1:")


def test_a_filter_counts_documents_that_match_alone(client: httpx.Client) -> None:
    assert [each["doc_id"] for each in grep(client, "the quick", filter=LATER)["matches"]] == ["2", "3"]
    counted = ngrams(client, "quick", filter=LATER)
    assert (counted["count"], sorted(each["token"] for each in counted["continuations"])) == (2, ["one", "owl"])
    unknown = {"type": "exists", "key": "nobody"}
    assert grep(client, "the quick", filter=unknown, strict_filter=False)["count"] == 0


def test_what_is_not_covered_is_said_of_the_documents_that_match(clients: dict[str, httpx.Client]) -> None:
    fresh = "/v1/collections/fresh"
    note = "fresh_not_covered={}: field 'phrases' sees new text after compaction"
    assert note.format(5) in grep(clients["admin"], "the quick", fresh)["notes"]
    assert note.format(3) in grep(clients["admin"], "the quick", fresh, filter=LATER)["notes"]
    assert note.format(2) in ngrams(clients["a"], "the quick", fresh)["notes"]


def test_a_tenant_sees_and_counts_their_own_documents_alone(clients: dict[str, httpx.Client]) -> None:
    a, b = clients["a"], clients["b"]
    assert [each["doc_id"] for each in grep(a, "the quick")["matches"]] == ["1", "1", "3"]
    assert [each["doc_id"] for each in grep(b, "the quick")["matches"]] == ["2"]
    everything = {
        "type": "or",
        "filters": [{"type": "exists", "key": "n"}, {"type": "eq", "key": "tenant", "value": "b"}],
    }
    assert grep(a, "the quick", filter=everything)["count"] == 3
    assert grep(a, "the quick", filter={"type": "eq", "key": "tenant", "value": "b"})["count"] == 0
    following = [each["token"] for each in ngrams(a, "the quick")["continuations"]]
    assert sorted(following) == ["fox", "hen", "owl"]
    assert ngrams(a, "saw")["used"] == {"tokens": ["saw"], "count": 1, "ends": 0}

    def said(word: str) -> str:
        """Return everything that tenant a is told of a word."""
        answers = [json.dumps(ask(a, f"{first}{word}")) for ask in (grep, ngrams) for first in ("", "the ")]
        return " ".join(answers).replace(word, "WORD")

    assert said("zebra") == said("banana"), "a word of another tenant, and of nobody"
    for key in ("secret", "nobody"):
        assert grep(a, "the quick", filter={"type": "exists", "key": key})["count"] == 0
    # hen stands in more places than may be looked at, most of them of another tenant: how many is not said.
    refused = a.post(f"{C}/grep", json={"phrase": "hen"})
    assert refused.status_code == 422
    assert "11" not in refused.json()["detail"]


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({}, "required"),
        ({"text": ""}, "at least 1 character"),
        ({"text": "  "}, "has no token"),
        ({"text": "\u2603"}, "no token for '\u2603'"),
        ({"text": "the \udc80"}, "unicode string"),
        ({"text": 7}, "string"),
        ({"text": "x" * 61}, "phrase characters: 61 asked for, this server allows 60"),
        ({"text": "the", "limit": -1}, "limit"),
        ({"text": "the", "limit": 21}, "limit: 21 asked for, this server allows 20"),
        ({"text": "the", "limit": 10**10}, "limit"),
        ({"text": "the", "limit": "3"}, "limit"),
        ({"text": "the", "field": "lexical"}, "'lexical' is no substring field; substring fields: phrases, kept"),
        ({"text": "the", "field": "nowhere"}, "'nowhere' is no substring field"),
        ({"text": "the", "filter": {"type": "near"}}, "filter.type is 'near'"),
        ({"text": "the", "filter": []}, "filter"),
        (
            {"text": "the", "filter": {"type": "exists", "key": "m"}},
            "'m' is in no document's metadata; known fields: n,",
        ),
        ({"text": "the", "timeout_ms": 20_001}, "timeout is 20.001 s, expected more than 0 and at most 20"),
        ({"text": "the", "timeout_ms": 0}, "timeout_ms"),
        ({"text": "the", "mode": "fast"}, "mode"),
    ],
)
@pytest.mark.parametrize(("route", "name"), [("grep", "phrase"), ("ngrams", "ngram")])
def test_what_cannot_be_answered_is_refused(
    client: httpx.Client, route: str, name: str, body: dict[str, Any], said: str
) -> None:
    sent = json.dumps({name if key == "text" else key: value for key, value in body.items()})
    refused = client.post(f"{C}/{route}", content=sent, headers={"Content-Type": "application/json"})
    assert refused.status_code == 422, refused.text
    assert refused.json()["type"] == "grapnel:invalid"
    assert said in refused.json()["detail"]


def test_many_at_once_are_answered_each_as_alone(clients: dict[str, httpx.Client]) -> None:
    asked = [
        (clients[key], ask, words, options)
        for key in ("reader", "a", "b")
        for ask in (grep, ngrams)
        for words in ("the quick", "zebra", "an owl", "hen saw the quick")
        for options in ({}, {"filter": LATER}, {"field": "kept"})
    ]
    alone = [ask(client, words, **options) for client, ask, words, options in asked]
    with ThreadPoolExecutor(16) as pool:
        together = [pool.submit(ask, client, words, **options) for client, ask, words, options in asked * 3]
        assert [each.result() for each in together] == alone * 3


def test_no_more_places_are_looked_at_than_the_server_allows(client: httpx.Client) -> None:
    for route, body in (
        ("grep", {"phrase": "hen"}),
        ("grep", {"phrase": "hen", "limit": 0}),
        ("ngrams", {"ngram": "hen", "filter": LATER}),
    ):
        refused = client.post(f"{C}/{route}", json=body)
        assert refused.status_code == 422
        assert "more than the 8 places" in refused.json()["detail"]
    assert ngrams(client, "hen")["count"] == 11, "nothing is looked at"
    assert grep(client, "hen hen")["count"] == 8


def test_a_collection_without_such_a_field_says_so(client: httpx.Client) -> None:
    for route, name in (("grep", "phrase"), ("ngrams", "ngram")):
        refused = client.post(f"/v1/collections/plain/{route}", json={name: "the"})
        assert refused.status_code == 422
        assert 'no field of kind "substring"' in refused.json()["detail"]


def test_only_who_may_read_a_collection_is_answered(clients: dict[str, httpx.Client]) -> None:
    for route, name in (("grep", "phrase"), ("ngrams", "ngram")):
        body = {name: "the quick"}
        assert clients["writer"].post(f"{C}/{route}", json=body).status_code == 403
        hidden = clients["stranger"].post(f"{C}/{route}", json=body)
        unknown = clients["stranger"].post(f"/v1/collections/nothing/{route}", json=body)
        assert (hidden.status_code, unknown.status_code) == (404, 404)
        assert hidden.json()["detail"] == unknown.json()["detail"].replace("nothing", "tales")
        assert clients["reader"].get(f"{C}/{route}").status_code == 405


@pytest.fixture(scope="module")
def busy(start_server: Callable[..., Any]) -> Iterator[tuple[Any, httpx.Client]]:
    """A server with a word in so many places that four calls at a time look for many seconds; and a client."""
    server = start_server()
    fields = {"lexical": {"kind": "lexical"}, "phrases": {"kind": "substring", "mode": "compact"}}
    rng = random.Random(7)
    words = [*"abcdefghijklmnopqrstuvwxyz", *["hen"] * 60]
    texts = [" ".join(rng.choices(words, k=60_000)) for _ in range(20)]
    with server.client() as client:
        client.post("/v1/collections", json={"name": "tales", "fields": fields}).raise_for_status()
        documents = [{"id": str(n), "text": text, "metadata": {"n": n}} for n, text in enumerate(texts)]
        client.post(f"{C}/documents", json={"documents": documents}).raise_for_status()
        assert server.ended(client, client.post(f"{C}/compact"))["state"] == "done"
        yield server, client


LONG = {"ngram": "hen", "filter": LATER}
SHORT_MS = 3_000
"""Enough for a word that is nowhere, and not for what every place of the others takes."""


def test_a_look_at_places_ends_with_its_time(busy: tuple[Any, httpx.Client]) -> None:
    _, client = busy
    with ThreadPoolExecutor(4) as pool:
        late = list(pool.map(lambda _: client.post(f"{C}/ngrams", json={**LONG, "timeout_ms": 300}), range(4)))
    assert [each.status_code for each in late] == [504] * 4
    assert late[0].json()["type"] == "grapnel:deadline"
    # These had all threads to themselves, for as long as they looked.
    assert grep(client, "zebra", timeout_ms=SHORT_MS)["count"] == 0


def test_a_look_at_places_ends_when_its_client_leaves(
    busy: tuple[Any, httpx.Client], until: Callable[[Callable[[], object], str], None]
) -> None:
    server, client = busy
    body = json.dumps(LONG)
    head = f"POST {C}/ngrams HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
    sent = f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode()
    pending = 'grapnel_pending_calls{kind="phrase"} '
    with ExitStack() as leaving:
        for _ in range(4):
            leaving.enter_context(server.connect()).sendall(sent)
        until(lambda: f"{pending}4" in client.get("/metrics").text, "four calls that look")
    assert grep(client, "zebra", timeout_ms=SHORT_MS)["count"] == 0


def test_a_server_that_looked_at_places_ends_as_soon_as_it_is_told_to(busy: tuple[Any, httpx.Client]) -> None:
    server, client = busy
    assert grep(client, "hen hen")["count"] > 100_000, "enough for threads that help"
    assert server.stop() == 0
    assert "ended while work was under way" not in server.log_text()


def test_a_field_is_made_over_http_as_it_is_asked_for(clients: dict[str, httpx.Client]) -> None:
    about = ok(clients["admin"].get(C))["fields"]
    assert {name: (about[name]["mode"], about[name]["case"]) for name in ("phrases", "kept")} == {
        "phrases": ("fast", "lower"),
        "kept": ("fast", "keep"),
    }
    for field in ({"kind": "substring", "tokenizer": "/etc"}, {"kind": "substring", "mode": "small"}):
        body = {"name": "bad", "fields": {"lexical": {"kind": "lexical"}, "phrases": field}}
        assert clients["admin"].post("/v1/collections", json=body).status_code == 422
