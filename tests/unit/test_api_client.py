"""The client by itself: what it sends, what it makes of answers, when it asks again. The server is in integration/."""

import asyncio
import inspect
import json
import pickle
import socket
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import httpx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.client import (
    AnswerTimeoutError,
    ApiError,
    AsyncCollectionClient,
    AsyncGrapnel,
    CollectionClient,
    Document,
    Grapnel,
    Job,
    JobError,
    LineError,
    Reranked,
    Reranking,
    SearchResult,
    StoredDocument,
    UnreachableError,
    UpsertReport,
    Written,
)
from api.client.errors import PROBLEMS, Flaw
from api.client.exchange import Answer, Operation, Outcome, Pause, Request, Step, error_of, retrying
from api.client.server_operations import collections, create_collection, wait
from index import errors

ROOT = Path(__file__).parents[2]
EMPTY_SEARCH = {"mode": "hybrid", "hits": [], "notes": [], "total_ms": 1.5}

Respond = Callable[[httpx.Request], httpx.Response]


class Both:
    """The two clients over one function that answers, asked in turn; what they send must be the same."""

    def __init__(self, respond: Respond, **options: Any) -> None:
        self.seen: list[httpx.Request] = []
        self._respond, self._options = respond, options

    def _answer(self, request: httpx.Request) -> httpx.Response:
        self.seen.append(request)
        return self._respond(request)

    def __call__(self, act: Callable[[Any], Any]) -> Any:
        """Return what `act` comes to with the blocking client, which is what it comes to with the other one."""
        self.seen = []
        with Grapnel(transport=httpx.MockTransport(self._answer), **self._options) as client:
            blocking = _outcome(lambda: act(client))
        sent, self.seen = self.seen, []

        async def awaited() -> Any:
            async with AsyncGrapnel(transport=httpx.MockTransport(self._answer), **self._options) as client:
                return await act(client)

        waiting = _outcome(lambda: asyncio.run(awaited()))
        assert [(each.method, each.url.raw_path, each.headers, each.content) for each in sent] == [
            (each.method, each.url.raw_path, each.headers, each.content) for each in self.seen
        ]
        assert repr(blocking) == repr(waiting)
        if isinstance(blocking, BaseException):
            raise blocking
        return blocking

    def sent(self) -> Any:
        """Return the JSON body of the last request."""
        return json.loads(self.seen[-1].content)


def _outcome(act: Callable[[], Any]) -> Any:
    try:
        return act()
    except errors.GrapnelError as error:
        return error


def answering(value: Any, status: int = 200, **headers: str) -> Respond:
    return lambda _: httpx.Response(status, json=value, headers={k.replace("_", "-"): v for k, v in headers.items()})


def problem(kind: str, status: int, **more: Any) -> dict[str, Any]:
    return {"type": kind, "title": "Title", "status": status, "detail": "what happened", "request_id": "r-1", **more}


# -- what it is ------------------------------------------------------------------------------------------------------


def test_importing_it_loads_neither_models_nor_indexes_nor_databases() -> None:
    code = "import sys, api.client; print(' '.join(sys.modules))"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60)
    loaded = {name.split(".")[0] for name in run.stdout.split()}
    assert "httpx" in loaded
    heavy = {"torch", "faiss", "sqlite3", "_sqlite3", "tantivy", "transformers", "sentence_transformers", "pyarrow"}
    assert not loaded & (heavy | {"fastapi", "starlette", "uvicorn", "pydantic", "numba", "onnxruntime", "openvino"})


@pytest.mark.parametrize(("plain", "waiting"), [(Grapnel, AsyncGrapnel), (CollectionClient, AsyncCollectionClient)])
def test_both_clients_offer_the_same(plain: type, waiting: type) -> None:
    def public(cls: type) -> dict[str, Any]:
        return {name: member for name, member in vars(cls).items() if not name.startswith("_")}

    assert public(plain).keys() == public(waiting).keys()
    for name, method in public(plain).items():
        other = public(waiting)[name]
        assert list(inspect.signature(method).parameters)[1:] == list(inspect.signature(other).parameters)[1:], name
        if name not in {"collection", "documents"}:  # nothing to wait for, and an iterator
            assert inspect.iscoroutinefunction(other), name
        assert method.__doc__


def test_a_method_shows_the_parameters_and_the_result_of_what_it_does() -> None:
    signature = inspect.signature(Grapnel().collection("c").put)
    assert list(signature.parameters) == ["document", "if_match", "if_none_match"]
    assert signature.return_annotation is Written
    assert CollectionClient.put.__name__ == "put"


def test_methods_of_a_server_show_all_their_parameters() -> None:
    for client in (Grapnel(), AsyncGrapnel()):
        assert list(inspect.signature(client.create_collection).parameters) == ["name", "fields", "chunking"]
        assert list(inspect.signature(client.collections).parameters) == []
        assert list(inspect.signature(client.embeddings).parameters) == ["texts", "model", "input_type"]
    assert list(inspect.signature(Grapnel.delete_alias).parameters) == ["self", "alias"]
    assert list(inspect.signature(CollectionClient.get).parameters) == ["self", "doc_id"]


@pytest.mark.parametrize(
    "url", ["", "localhost:8080", "ftp://h", "http://", "http://h/?a=1", "http://h:port", "http://u:secret@h"]
)
def test_a_url_that_is_none_is_refused_at_once(url: str) -> None:
    for make in (Grapnel, AsyncGrapnel):
        with pytest.raises(errors.ConfigError) as caught:
            make(url)
        assert "secret" not in str(caught.value)


@pytest.mark.parametrize("key", ["", " gk_a", "gk_a\r\nX: y", "gk_ü"])
def test_a_key_that_no_header_can_hold_is_refused_and_not_repeated(key: str) -> None:
    with pytest.raises(errors.ConfigError) as caught:
        Grapnel(api_key=key)
    assert not key or key not in str(caught.value)


# -- what it sends ---------------------------------------------------------------------------------------------------


def test_the_key_and_the_path_of_a_proxy_go_with_every_request() -> None:
    both = Both(answering({"collections": []}), url="https://search.example/grapnel/", api_key="gk_secret")
    assert both(lambda client: client.collections()) == []
    assert str(both.seen[0].url) == "https://search.example/grapnel/v1/collections"
    assert both.seen[0].headers["authorization"] == "Bearer gk_secret"
    without = Both(answering({"collections": []}))
    without(lambda client: client.collections())
    assert "authorization" not in without.seen[0].headers


IDS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40).filter(lambda text: text.strip("."))
ODD_IDS = ["a/b", "../x", "a/../..", "%2e%2e", "...", "a?b#c", "\n", "…", "😀", "http://h/x?y=1", " "]


@given(doc_id=IDS | st.sampled_from(ODD_IDS))
def test_an_id_reaches_the_server_as_one_segment_unchanged(doc_id: str) -> None:
    seen: list[bytes] = []

    def respond(request: httpx.Request) -> httpx.Response:
        seen.append(request.url.raw_path)
        return httpx.Response(200, json={"id": doc_id, "version": 1, "result": "added"})

    with Grapnel(transport=httpx.MockTransport(respond)) as client:
        assert client.collection("c").put(Document(id=doc_id, text="x")) == Written(doc_id, 1, "added")
    segments = seen[0].decode().split("/")
    assert segments[:-1] == ["", "v1", "collections", "c", "documents"]
    assert unquote(segments[-1]) == doc_id


class Store:
    """A server of one collection in a dictionary, as far as ids in bodies go."""

    def __init__(self) -> None:
        self.documents: dict[str, dict[str, Any]] = {}

    def __call__(self, request: httpx.Request) -> httpx.Response:
        assert request.method == "POST"
        body = json.loads(request.content)
        match request.url.path.removeprefix("/v1/collections/c/documents"):
            case "":
                (document,) = body["documents"]
                known = self.documents.get(document["id"], {"version": 0})
                self.documents[document["id"]] = {"metadata": {}, **document, "version": known["version"] + 1}
                return httpx.Response(
                    200, json={"added": int(not known["version"]), "updated": int(known["version"] > 0)}
                )
            case "/get":
                return httpx.Response(200, json={"documents": [self.documents.get(each) for each in body["ids"]]})
            case "/delete":
                return httpx.Response(
                    200, json={"deleted": sum(self.documents.pop(i, None) is not None for i in body["ids"])}
                )
        return httpx.Response(404)


@pytest.mark.parametrize("doc_id", [".", ".."])
def test_ids_that_no_path_carries_go_into_bodies(doc_id: str) -> None:
    with Grapnel(transport=httpx.MockTransport(Store())) as client:
        notes = client.collection("c")
        assert notes.put(Document(id=doc_id, text="first")) == Written(doc_id, 1, "added")
        assert notes.put(Document(id=doc_id, text="second")) == Written(doc_id, 2, "updated")
        assert notes.get(doc_id) == StoredDocument(Document(id=doc_id, text="second"), 2)
        assert notes.delete(doc_id) is True
        assert notes.delete(doc_id) is False
        with pytest.raises(errors.NotFoundError, match=r"no document '\.+' in 'c'"):
            notes.get(doc_id)


@pytest.mark.parametrize("doc_id", [".", "..", "", "\ud800", "x" * 5000])
def test_what_only_a_path_can_say_is_refused_for_ids_no_path_carries(doc_id: str) -> None:
    both = Both(answering({}))
    for act in (
        lambda client: client.collection("c").patch(doc_id, {}),
        lambda client: client.collection("c").delete(doc_id, if_match=1),
        lambda client: client.collection("c").put(Document(id=doc_id, text="x"), if_match=1),
        lambda client: client.collection("c").put(Document(id=doc_id, text="x"), if_none_match=True),
    ):
        with pytest.raises(errors.RequestError, match="cannot stand in the path"):
            both(act)
    assert not both.seen


@pytest.mark.parametrize("name", ["", ".", ".."])
def test_no_name_leads_to_another_place(name: str) -> None:
    both = Both(answering(None, 204))
    for act in (
        lambda client: client.delete_collection(name),
        lambda client: client.delete_alias(name),
        lambda client: client.collection("c").delete_snapshot(name),
        lambda client: client.collection(name).delete_many(["a"]),
    ):
        with pytest.raises(errors.RequestError):
            both(act)
    assert not both.seen


def test_conditions_are_headers() -> None:
    both = Both(answering({"id": "a", "version": "8", "result": "updated"}))
    put = {"if_match": 7}
    assert both(lambda client: client.collection("c").put(Document(id="a", text="x"), **put)) == Written(
        "a", 8, "updated"
    )
    assert both.seen[0].headers["if-match"] == '"7"'
    both(lambda client: client.collection("c").put(Document(id="a", text="x"), if_none_match=True))
    assert both.seen[-1].headers["if-none-match"] == "*"
    both(lambda client: client.collection("c").put(Document(id="a", text="x")))
    assert not {"if-match", "if-none-match"} & both.seen[-1].headers.keys()


def test_a_document_is_sent_whole_and_read_back_whole() -> None:
    stored = {"id": "a", "text": "t", "title": None, "metadata": {"n": 1}, "vectors": {"v": [1, 0.5]}, "version": 3}
    both = Both(answering({"documents": [stored, None], "new": True}))
    first, second = both(lambda client: client.collection("c").get_many(["a", "b"]))
    assert second is None
    assert (first.version, first.document.title, first.document.metadata) == (3, "", {"n": 1})
    assert first.document.vectors["v"].dtype == np.float32
    assert first.document.vectors["v"].tolist() == [1.0, 0.5]

    both = Both(answering({"id": "a", "version": 1, "result": "added"}))
    both(lambda client: client.collection("c").put(first.document))
    assert both.sent() == {"text": "t", "metadata": {"n": 1}, "vectors": {"v": [1.0, 0.5]}}
    assert both.seen[-1].headers["content-type"] == "application/json"


def test_a_search_sends_what_was_given_and_nothing_else() -> None:
    both = Both(answering(EMPTY_SEARCH))
    both(lambda client: client.collection("c").search("wind", k=3, exclude={"b", "a"}, filter=None))
    assert both.sent() == {"query": "wind", "k": 3, "exclude": ["a", "b"], "filter": None}
    both(lambda client: client.collection("c").search(vectors={"v": np.array([1, 0], np.float32)}))
    assert both.sent() == {"query": "", "vectors": {"v": [1.0, 0.0]}}


@pytest.mark.parametrize("value", [float("nan"), float("inf"), object(), b"x", "\ud800"])
def test_what_json_cannot_hold_is_refused_before_anything_is_sent(value: Any) -> None:
    both = Both(answering({}))
    with pytest.raises(errors.RequestError, match="cannot be sent as JSON"):
        both(lambda client: client.collection("c").patch("a", {"x": value}))
    assert not both.seen


@pytest.mark.parametrize(
    "metadata", [{2024: "x"}, {None: 1}, {True: 1}, {1: "a", "1": "b"}, {"deep": [{"er": ({1.5: 0},)}]}]
)
def test_a_name_that_is_no_text_is_refused_and_not_made_one(metadata: Any) -> None:
    both = Both(answering({"id": "a", "version": 1, "result": "added"}))
    for act in (
        lambda client: client.collection("c").patch("a", metadata),
        lambda client: client.collection("c").put(Document("a", "x", metadata=metadata)),
        lambda client: client.collection("c").search("x", filter=metadata),
    ):
        with pytest.raises(errors.RequestError, match="is no text"):
            both(act)
    assert not both.seen
    with pytest.raises(errors.CorpusError, match=r"document 'a' .*is no text"):
        both(lambda client: client.collection("c").upsert([Document("a", "x", metadata=metadata)]))


def test_what_is_nested_too_deeply_or_holds_itself_is_refused() -> None:
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    circle: dict[str, Any] = {}
    circle["self"] = circle
    for value in (deep, circle):
        with pytest.raises(errors.RequestError, match="cannot be sent as JSON"):
            Both(answering({}))(lambda client: client.collection("c").patch("a", {"x": value}))  # noqa: B023  used at once


def test_one_id_is_not_taken_for_its_characters() -> None:
    both = Both(answering({"deleted": 3}))
    for act in (
        lambda client: client.collection("c").delete_many("abc"),
        lambda client: client.collection("c").get_many("abc"),
        lambda client: client.embeddings("abc"),
    ):
        with pytest.raises(errors.RequestError, match="expected a list"):
            both(act)
    assert not both.seen


def test_deleting_nothing_in_particular_is_refused() -> None:
    both = Both(answering({"deleted": 3}))
    with pytest.raises(errors.RequestError, match="nothing to delete"):
        both(lambda client: client.collection("c").delete_many())
    assert both(lambda client: client.collection("c").delete_many(filter={"year": 1999})) == 3
    assert both.sent() == {"ids": [], "filter": {"year": 1999}}


def test_many_ids_are_sent_a_thousand_at_a_time_and_a_filter_before_the_rest() -> None:
    bodies: list[dict[str, Any]] = []

    def respond(request: httpx.Request) -> httpx.Response:
        bodies.append(json.loads(request.content))
        ids = bodies[-1]["ids"]
        stored = [{"id": each, "metadata": {}, "version": 1} for each in ids]
        return httpx.Response(200, json={"deleted": len(ids), "documents": stored})

    ids = [f"{number:04}" for number in range(2_500)]
    with Grapnel(transport=httpx.MockTransport(respond)) as client:
        notes = client.collection("c")
        found = notes.get_many(ids)
        assert [each.document.id for each in found if each is not None] == ids
        assert notes.get_many([]) == []
        assert [len(body["ids"]) for body in bodies] == [1000, 1000, 500]
        bodies.clear()
        assert notes.delete_many(ids, filter={"year": 1999}) == 2_500
    assert [len(body["ids"]) for body in bodies] == [1000, 1000, 500]
    assert [body.get("filter") for body in bodies] == [{"year": 1999}, None, None], "a bad one is refused at once"


def test_lenient_filters_are_asked_for_and_strict_ones_are_not_mentioned() -> None:
    condition = {"type": "eq", "key": "x", "value": 1}
    both = Both(answering({"deleted": 0, "documents": 0}))
    for act in (
        lambda client, **options: client.collection("c").delete_many(filter=condition, **options),
        lambda client, **options: client.collection("c").count(filter=condition, **options),
    ):
        both(act)
        assert both.sent()["filter"] == condition
        assert "strict_filter" not in both.sent()
        both(lambda client: act(client, strict_filter=False))  # noqa: B023  used at once
        assert both.sent()["strict_filter"] is False
    pages = Both(answering({"documents": [], "next": None}))
    pages(lambda client: client.collection("c").page())
    assert pages.sent() == {"include": ["text", "vectors"]}, "the server knows how many it gives"
    pages(lambda client: client.collection("c").page(limit=3, filter=condition, strict_filter=False, include=()))
    assert pages.sent() == {"limit": 3, "include": [], "filter": condition, "strict_filter": False}
    found = Both(answering(EMPTY_SEARCH))
    found(lambda client: client.collection("c").search("x", filter=condition, strict_filter=False))
    assert found.sent() == {"query": "x", "filter": condition, "strict_filter": False}


def test_a_delete_by_filter_is_waited_for_as_long_as_a_stream_is() -> None:
    def waits(act: Callable[[Any], Any]) -> Any:
        both = Both(answering({"deleted": 1}), timeout_s=5.0)
        both(act)
        return both.seen[0].extensions["timeout"]["read"]

    assert waits(lambda client: client.collection("c").delete_many(["a"])) == 5.0
    assert waits(lambda client: client.collection("c").delete_many(filter={"year": 1999})) == 600.0


# -- answers to keys that may do some things only -------------------------------------------------------------------


def test_a_key_that_may_not_read_is_told_the_version_of_what_it_patched() -> None:
    both = Both(answering({"id": "a", "version": 8}))
    assert both(lambda client: client.collection("c").patch("a", {"n": 2})) == Written("a", 8, "patched")
    whole = {"id": "a", "version": 8, "title": "", "text": "t", "metadata": {"n": 2}}
    assert Both(answering(whole))(lambda client: client.collection("c").patch("a", {"n": 2})) == StoredDocument(
        Document("a", "t", metadata={"n": 2}), 8
    )


def test_what_tells_less_than_a_document_is_not_taken_for_one() -> None:
    short = Both(answering({"documents": [{"id": "a", "version": 8}]}))
    with pytest.raises(ApiError, match="'metadata' is missing"):
        short(lambda client: client.collection("c").get("a"))


def test_a_write_that_takes_reading_is_refused_before_anything_is_written() -> None:
    def respond(request: httpx.Request) -> httpx.Response:
        reads = request.url.path.endswith("/get")
        value = problem("grapnel:forbidden", 403) if reads else {"added": 1}
        return httpx.Response(403 if reads else 200, json=value)

    both = Both(respond)
    with pytest.raises(errors.ForbiddenError):
        both(lambda client: client.collection("c").put(Document("..", "x")))
    assert [each.url.path.rpartition("/")[2] for each in both.seen] == ["get"]


# -- what it makes of answers ----------------------------------------------------------------------------------------


def test_a_search_result_is_typed_and_deaf_to_what_is_new() -> None:
    hit = {
        "rank": 1,
        "id": "d",
        "score": 2,
        "stage": "hybrid",
        "title": "Title",
        "passage": {"ordinal": 1, "start": 10, "end": 14, "text": "wind", "new": 1},
        "metadata": {"year": 1999},
        "snippet": {"start": 0, "end": 4, "highlights": [[0, 4]]},
        "evidence": [{"stage": "lexical", "rank": None, "score": 0.5}],
        "new": {},
    }
    both = Both(answering({**EMPTY_SEARCH, "hits": [hit], "notes": ["n"], "timings_ms": {"encode": 1}, "new": 1}))
    result = both(lambda client: client.collection("c").search("wind"))
    assert isinstance(result, SearchResult)
    assert (result.mode, result.notes, result.timings_ms, result.total_ms) == ("hybrid", ("n",), {"encode": 1}, 1.5)
    (found,) = result.hits
    assert (found.passage.doc_id, found.passage.title, found.passage.text) == ("d", "Title", "wind")
    assert found.snippet is not None
    assert found.snippet.highlights == ((0, 4),)
    assert [tuple(each) for each in found.evidence] == [("lexical", None, 0.5)]
    assert isinstance(found.score, float)


def test_a_hit_without_text_metadata_and_snippet_is_read_too() -> None:
    hit = {"rank": 1, "id": "d", "score": None, "stage": "s", "title": None, "metadata": None, "snippet": None}
    both = Both(answering({**EMPTY_SEARCH, "hits": [{**hit, "passage": {"ordinal": 0, "start": 0, "end": 4}}]}))
    (found,) = both(lambda client: client.collection("c").search("wind")).hits
    assert (found.score, found.title, found.metadata, found.snippet, found.passage.text) == (None, "", {}, None, "")


def test_a_phrase_is_sent_as_given_and_its_answer_is_typed() -> None:
    match = {
        "doc_id": "d",
        "title": "",
        "part": "text",
        "start": 2,
        "end": 6,
        "snippet": {"text": "a wind", "start": 0},
    }
    found = {
        "phrase": "wind",
        "field": "f",
        "tokens": ["wind"],
        "count": 3,
        "documents": 2,
        "matches": [match],
        "new": 1,
    }
    both = Both(answering({**found, "notes": []}))
    result = both(lambda client: client.collection("c").grep("wind", limit=1, filter=None))
    assert both.seen[-1].url.path == "/v1/collections/c/grep"
    assert both.sent() == {"phrase": "wind", "limit": 1, "filter": None}
    assert (result.count, result.tokens, result.matches[0].snippet.text) == (3, ("wind",), "a wind")
    follows = {"token": "blows", "id": 7, "count": 1, "probability": 1, "text": "wind blows"}
    counted = {"ngram": "wind", "field": "f", "tokens": ["wind"], "count": 1, "distinct": 1, "continuations": [follows]}
    both = Both(answering({**counted, "used": {"tokens": ["wind"], "count": 1, "ends": 0}, "notes": ["n"]}))
    result = both(lambda client: client.collection("c").ngrams("wind"))
    assert both.seen[-1].url.path == "/v1/collections/c/ngrams"
    assert (result.used.tokens, result.continuations[0].probability, result.notes) == (("wind",), 1.0, ("n",))


def test_null_is_absent_and_a_collection_that_cannot_be_opened_is_described_too() -> None:
    failed = {"name": "c", "state": "failed", "aliases": ["a"], "documents": None, "modes": None, "fields": None}
    (summary,) = Both(answering({"collections": [failed]}))(lambda client: client.collections())
    assert (summary.name, summary.state, summary.aliases) == ("c", "failed", ("a",))
    assert (summary.documents, summary.modes, summary.fields, summary.job) == (None, (), {}, None)


@pytest.mark.parametrize(
    "answer",
    [
        {"mode": "m"},
        {**EMPTY_SEARCH, "hits": {}},
        {**EMPTY_SEARCH, "hits": ["x"]},
        {**EMPTY_SEARCH, "hits": [{"id": "x"}]},
        {**EMPTY_SEARCH, "mode": 3},
        {**EMPTY_SEARCH, "notes": [1]},
        [],
        None,
    ],
)
def test_an_answer_of_another_form_is_an_error_of_ours(answer: Any) -> None:
    with pytest.raises(ApiError, match="cannot be read") as caught:
        Both(answering(answer, X_Request_Id="r-9"))(lambda client: client.collection("c").search("wind"))
    assert (caught.value.status, caught.value.type, caught.value.request_id) == (200, "about:blank", "r-9")


@pytest.mark.parametrize("content", [b"<html>hello", b"\xff\xfe", b""])
def test_a_page_in_place_of_json_is_an_error_of_ours(content: bytes) -> None:
    with pytest.raises(ApiError, match="cannot be read"):
        Both(lambda _: httpx.Response(200, content=content))(lambda client: client.collections())


@pytest.mark.parametrize(
    ("kind", "status", "meaning"),
    [
        ("not-found", 404, errors.NotFoundError),
        ("bad-request", 400, errors.RequestError),
        ("invalid", 422, errors.RequestError),
        ("too-large", 413, errors.RequestError),
        ("unsupported-media-type", 415, errors.RequestError),
        ("unauthenticated", 401, errors.ForbiddenError),
        ("forbidden", 403, errors.ForbiddenError),
        ("conflict", 409, errors.ConflictError),
        ("precondition-failed", 412, errors.PreconditionError),
        ("overloaded", 429, errors.OverloadedError),
        ("unavailable", 503, errors.OverloadedError),
        ("read-only", 503, errors.LockedError),
        ("damaged", 503, errors.IndexFormatError),
        ("deadline", 504, errors.DeadlineError),
        ("storage", 507, errors.StorageError),
        ("not-installed", 501, errors.MissingDependencyError),
        ("reranker", 502, errors.RerankerError),
        ("internal", 500, ApiError),
        ("of-a-later-version", 418, ApiError),
    ],
)
def test_a_problem_is_an_error_with_the_meaning_it_has_in_process(kind: str, status: int, meaning: type) -> None:
    flaws = [{"place": "body.k", "message": "too large"}]
    body = problem(f"grapnel:{kind}", status, errors=flaws, retry_after_s=2.5)
    with pytest.raises(meaning) as caught:
        Both(answering(body, status), retries=0)(lambda client: client.collections())
    error = caught.value
    assert isinstance(error, ApiError)
    assert (error.status, error.type, error.title, error.detail) == (
        status,
        f"grapnel:{kind}",
        "Title",
        "what happened",
    )
    assert (error.request_id, error.errors, error.retry_after_s) == ("r-1", (Flaw("body.k", "too large"),), 2.5)
    assert str(error) == f"what happened; body.k: too large ({status} grapnel:{kind}, request r-1)"
    again = pickle.loads(pickle.dumps(error))  # noqa: S301  our own bytes
    assert type(again) is type(error)
    assert repr(again) == repr(error)
    assert str(again) == str(error)


def test_every_type_of_problem_in_the_table_is_tested_above() -> None:
    (mark,) = test_a_problem_is_an_error_with_the_meaning_it_has_in_process.pytestmark  # type: ignore[attr-defined]
    assert {f"grapnel:{row[0]}" for row in mark.args[1]} >= PROBLEMS.keys()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"<h1>Bad Gateway</h1>", "<h1>Bad Gateway</h1>"),
        (b"\xff", "\ufffd"),
        (b"[1]", "[1]"),
        (b'{"type": "https://gateway.example/x", "errors": ["a"]}', "https://gateway.example/x"),
        (b"", "Bad Gateway"),
    ],
)
def test_what_a_proxy_says_is_an_error_too(content: bytes, said: str) -> None:
    with pytest.raises(ApiError) as caught:
        Both(lambda _: httpx.Response(502, content=content))(lambda client: client.collections())
    assert type(caught.value) is ApiError
    assert (caught.value.status, caught.value.type, caught.value.title) == (502, "about:blank", "Bad Gateway")
    assert said in str(caught.value)


def test_a_redirect_is_not_followed_because_the_key_would_travel_with_it() -> None:
    both = Both(lambda _: httpx.Response(307, headers={"Location": "http://elsewhere.example/"}), api_key="gk_a")
    with pytest.raises(ApiError) as caught:
        both(lambda client: client.collections())
    assert caught.value.status == 307
    assert len(both.seen) == 1


def test_of_several_searches_each_has_its_answer_or_its_error() -> None:
    body = {"results": [EMPTY_SEARCH, {"problem": problem("grapnel:not-found", 404)}]}
    both = Both(answering(body))
    first, second = both(lambda client: client.collection("c").search_many([{"query": "a"}, {"query": "b", "k": 1}]))
    assert isinstance(first, SearchResult)
    assert isinstance(second, errors.NotFoundError)
    assert both.sent() == {"searches": [{"collection": "c", "query": "a"}, {"collection": "c", "query": "b", "k": 1}]}


def test_embeddings_keep_the_order_of_the_texts() -> None:
    rows = [{"index": 1, "embedding": "AABAQAAAgEA="}, {"index": 0, "embedding": "AACAPwAAAEA="}]  # [3, 4] and [1, 2]
    both = Both(answering({"data": rows, "model": "default", "usage": {"prompt_tokens": 5, "total_tokens": 5}}))
    with Grapnel(transport=httpx.MockTransport(both._respond)) as client:
        made = client.embeddings(["a", "b"])
    assert made.vectors.dtype == np.float32
    assert made.vectors.tolist() == [[1.0, 2.0], [3.0, 4.0]]
    assert (made.model, made.tokens, made.truncated) == ("default", 5, 0)


def test_embeddings_are_of_questions_where_asked_and_what_is_cut_is_told() -> None:
    rows = [{"index": 0, "embedding": "AACAPwAAAEA="}]
    both = Both(answering({"data": rows, "model": "m", "usage": {"total_tokens": 5}, "truncated": 1}))
    assert both(lambda client: client.embeddings(["a"], "m", input_type="query")).truncated == 1
    assert both.sent()["input_type"] == "query"


def test_a_reranking_says_what_was_degraded() -> None:
    results = [{"index": 1, "relevance_score": 2}, {"index": 0, "relevance_score": 0.5}]
    places = (Reranked(1, 2.0), Reranked(0, 0.5))
    plain = Both(answering({"results": results, "meta": {"tokens": {}}}))
    assert plain(lambda client: client.rerank("q", ["a", "b"], "m")) == Reranking(places)
    noted = Both(answering({"results": results, "meta": {"warnings": ["rerank_truncated=1"]}}))
    assert noted(lambda client: client.rerank("q", ["a", "b"], "m")).notes == ("rerank_truncated=1",)


@pytest.mark.parametrize(("status", "ready"), [(200, True), (503, False)])
def test_a_server_that_is_not_ready_is_an_answer(status: int, ready: bool) -> None:
    both = Both(answering({"status": "starting"}, status))
    health = both(lambda client: client.health())
    assert (health.ready, health.report) == (ready, {"status": "starting"})
    assert len(both.seen) == 1


# -- when it asks again ----------------------------------------------------------------------------------------------


def played(operation: Operation[Any], outcomes: Sequence[Outcome]) -> tuple[list[Step], Any]:
    """Return the steps that an operation takes when requests come out as listed, and its result or error."""
    left = iter(outcomes)
    steps: list[Step] = []
    outcome: Outcome = None
    while True:
        try:
            step = operation.send(outcome)
        except StopIteration as end:
            assert next(left, None) is None, "outcomes are left over"
            return steps, end.value
        except errors.GrapnelError as error:
            return steps, error
        steps.append(step)
        outcome = None if isinstance(step, Pause) else next(left)


def pauses(steps: Sequence[Step]) -> list[float]:
    return [step.seconds for step in steps if isinstance(step, Pause)]


def refusal(kind: str, status: int, **headers: str) -> Answer:
    return Answer(status, headers, json.dumps(problem(kind, status)).encode())


LOST = UnreachableError("lost")
NO_COLLECTIONS = Answer(200, {}, b'{"collections": []}')
BUSY = refusal("grapnel:overloaded", 429)
BUSY_2_S = refusal("grapnel:overloaded", 429, **{"retry-after": "2"})


@pytest.mark.parametrize("failure", [LOST, BUSY, refusal("grapnel:unavailable", 503), Answer(503, {}, b"<html>")])
def test_what_may_pass_is_asked_again(failure: Outcome) -> None:
    steps, result = played(retrying(collections(), 2), [failure, failure, NO_COLLECTIONS])
    assert result == []
    assert len(steps) == 5
    first, second = pauses(steps)
    assert 0.05 <= first <= 0.1
    assert 0.1 <= second <= 0.2


@pytest.mark.parametrize("failure", [LOST, BUSY])
def test_it_gives_up_after_the_retries_and_reports_the_last_failure(failure: Outcome) -> None:
    steps, result = played(retrying(collections(), 2), [failure] * 3)
    assert len(pauses(steps)) == 2
    assert isinstance(result, errors.GrapnelError)
    assert str(result) == (str(failure) if isinstance(failure, UnreachableError) else str(error_of(BUSY)))
    steps, _ = played(retrying(collections(), 0), [failure])
    assert len(steps) == 1


@pytest.mark.parametrize(
    "failure",
    [
        AnswerTimeoutError("late"),  # asking again would add to what makes it slow
        refusal("grapnel:internal", 500),
        refusal("grapnel:invalid", 422),
        refusal("grapnel:deadline", 504),
        refusal("grapnel:read-only", 503),
        refusal("grapnel:damaged", 503),
        refusal("grapnel:overloaded", 429, **{"retry-after": "31"}),
        Answer(502, {}, b""),
    ],
)
def test_what_will_not_pass_is_not_asked_again(failure: Outcome) -> None:
    steps, result = played(retrying(collections(), 5), [failure])
    assert len(steps) == 1
    assert isinstance(result, errors.GrapnelError)


def test_a_request_that_must_not_be_made_twice_is_made_once() -> None:
    for failure in (LOST, BUSY_2_S):
        steps, result = played(retrying(create_collection("c"), 5), [failure])
        assert len(steps) == 1
        assert isinstance(result, errors.GrapnelError)


def test_the_pause_is_what_the_server_asks_for() -> None:
    steps, _ = played(retrying(collections(), 1), [BUSY_2_S, NO_COLLECTIONS])
    assert pauses(steps) == [2.0]
    soon = format_datetime(datetime.now(UTC) + timedelta(seconds=20), usegmt=True)
    steps, _ = played(retrying(collections(), 1), [Answer(503, {"retry-after": soon}, b""), NO_COLLECTIONS])
    (pause,) = pauses(steps)
    assert 10 < pause <= 20
    exact = json.dumps(problem("grapnel:overloaded", 429, retry_after_s=0.3)).encode()
    in_body = Answer(429, {"retry-after": "1"}, exact)
    steps, _ = played(retrying(collections(), 1), [in_body, NO_COLLECTIONS])
    assert pauses(steps) == [0.3]


@pytest.mark.parametrize("value", ["soon", "-5", "", "nan", "Thu, 01 Jan 1970 00:00:00 GMT", "Thu, 99 Foo"])
def test_a_pause_that_says_nothing_is_the_usual_one(value: str) -> None:
    steps, _ = played(retrying(collections(), 1), [Answer(429, {"retry-after": value}, b""), NO_COLLECTIONS])
    (pause,) = pauses(steps)
    assert 0.05 <= pause <= 0.1


@pytest.mark.parametrize(
    ("act", "times"),
    [
        (lambda notes: notes.search("x"), 3),
        (lambda notes: notes.put(Document(id="a", text="x")), 3),
        (lambda notes: notes.patch("a", {}), 3),
        (lambda notes: notes.delete("a"), 3),
        (lambda notes: notes.describe(), 3),
        (lambda notes: notes.put(Document(id="a", text="x"), if_match=1), 1),  # the first may have been done: 412 then
        (lambda notes: notes.patch("a", {}, if_match=1), 1),
        (lambda notes: notes.delete("a", if_match=1), 1),
        (lambda notes: notes.compact(), 1),
        (lambda notes: notes.create_snapshot(), 1),
        (lambda notes: notes.upsert([Document(id="a", text="x")]), 1),
        (lambda notes: notes.client.delete_collection("c"), 1),  # 404 then, or another one that has the name by now
        (lambda notes: notes.client.delete_alias("c"), 1),
        (lambda notes: notes.delete_snapshot("s"), 1),
    ],
)
def test_which_requests_are_repeated_when_the_server_is_busy(act: Callable[[Any], Any], times: int) -> None:
    seen: list[httpx.Request] = []

    def respond(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(429, json=problem("grapnel:overloaded", 429, retry_after_s=0.001))

    with Grapnel(transport=httpx.MockTransport(respond)) as client, pytest.raises(errors.OverloadedError) as caught:
        act(client.collection("c"))
    assert caught.value.retry_after_s == 0.001
    assert len(seen) == times
    assert len({each.content for each in seen}) == 1


def job(state: str, **more: Any) -> Answer:
    value = {"id": "compact-1", "kind": "compact", "collection": "c", "state": state, "stage": "", "done": 0, **more}
    return Answer(200, {}, json.dumps(value).encode())


def test_a_job_is_looked_at_more_and_more_seldom_until_it_is_done() -> None:
    running = Job(id="compact-1", kind="compact", collection="c", state="running")
    steps, result = played(wait(running), [*[job("running")] * 7, job("done", result={"generation": 2})])
    assert isinstance(result, Job)
    assert (result.state, result.result) == ("done", {"generation": 2})
    assert pauses(steps) == [0.1, 0.2, 0.4, 0.8, 1.6, 2.0, 2.0, 2.0]
    assert {step.path for step in steps if isinstance(step, Request)} == {"/v1/jobs/compact-1"}


def test_a_job_that_fails_is_an_error_with_the_job() -> None:
    running = Job(id="compact-1", kind="compact", collection="c", state="running")
    _, error = played(wait(running), [job("failed", error="no space left")])
    assert isinstance(error, JobError)
    assert str(error) == "job compact-1 (compact of 'c') failed: no space left"
    assert pickle.loads(pickle.dumps(error)).job == error.job  # noqa: S301  our own bytes


@pytest.mark.parametrize("wait", [True, False])
def test_compact_waits_for_its_job_if_asked_to(wait: bool) -> None:
    def respond(request: httpx.Request) -> httpx.Response:
        made = job("running") if request.method == "POST" else job("done")
        return httpx.Response(202, content=made.content)

    state = Both(respond)(lambda client: client.collection("c").compact(wait=wait)).state
    assert state == ("done" if wait else "running")


# -- a real socket ---------------------------------------------------------------------------------------------------


@contextmanager
def listening(serve: Callable[[socket.socket, int], None]) -> Generator[tuple[str, list[int]]]:
    """Yield a URL whose connections `serve` gets with their number from 1, and the list of those numbers."""
    numbers: list[int] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def accept() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                numbers.append(len(numbers) + 1)
                with connection:
                    serve(connection, numbers[-1])

        thread = threading.Thread(target=accept)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.getsockname()[1]}", numbers
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join(10)


def _answers_the_third(connection: socket.socket, number: int) -> None:
    connection.recv(65536)
    if number == 2:
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf of it")
    if number == 3:
        connection.sendall(
            b"HTTP/1.1 200 OK\r\nContent-Length: 19\r\nConnection: close\r\n\r\n" + NO_COLLECTIONS.content
        )


def test_a_connection_that_breaks_before_the_answer_is_made_again() -> None:
    with listening(_answers_the_third) as (url, numbers), Grapnel(url) as client:
        assert client.collections() == []
        assert numbers == [1, 2, 3]
    with listening(_answers_the_third) as (url, numbers), Grapnel(url) as client:
        with pytest.raises(UnreachableError, match=r"POST http://127\.0\.0\.1:"):
            client.create_collection("c")
        assert numbers == [1]


def test_the_asynchronous_client_does_the_same() -> None:
    async def act(url: str) -> list[Any]:
        async with AsyncGrapnel(url) as client:
            return await client.collections()

    with listening(_answers_the_third) as (url, numbers):
        assert asyncio.run(act(url)) == []
        assert numbers == [1, 2, 3]


def test_a_server_that_says_nothing_is_given_up_after_the_timeout_and_not_asked_twice() -> None:
    done = threading.Event()
    with listening(lambda connection, _: (connection.recv(65536), done.wait(20), None)[-1]) as (url, numbers):
        with Grapnel(url, timeout_s=0.2) as client, pytest.raises(AnswerTimeoutError, match="raise timeout_s"):
            client.collections()
        done.set()
    assert numbers == [1]


def test_nobody_listening_is_an_error_that_says_where() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with (
        Grapnel(f"http://127.0.0.1:{port}", retries=1) as client,
        pytest.raises(UnreachableError, match=f":{port}/v1/"),
    ):
        client.collections()


# -- streams ---------------------------------------------------------------------------------------------------------

REPORT = {"added": 0, "updated": 0, "patched": 0, "unchanged": 0, "encoded": 0, "truncated": 0, "failed": 0}


class Counting(httpx.BaseTransport, httpx.AsyncBaseTransport):
    """Takes a stream piece by piece; notes how many documents had been drawn when each piece came."""

    def __init__(self, drawn: list[int]) -> None:
        self.drawn, self.received, self.ahead = drawn, bytearray(), 0

    def _take(self, piece: bytes) -> None:
        before = self.received.count(b"\n")
        self.ahead = max(self.ahead, self.drawn[0] - before)
        self.received += piece

    def _answer(self) -> httpx.Response:
        return httpx.Response(200, json={**REPORT, "lines": self.received.count(b"\n"), "errors": []})

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        assert isinstance(request.stream, httpx.SyncByteStream)
        for piece in request.stream:
            self._take(piece)
        return self._answer()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        assert isinstance(request.stream, httpx.AsyncByteStream)
        async for piece in request.stream:
            self._take(piece)
        return self._answer()


def drawing(drawn: list[int], count: int) -> Iterator[Document]:
    for number in range(count):
        drawn[0] = number + 1
        yield Document(id=f"{number:06}", text="x" * 1000, metadata={"n": number})


async def drawing_async(drawn: list[int], count: int) -> AsyncIterator[Document]:
    for document in drawing(drawn, count):
        yield document


@pytest.mark.parametrize("way", ["blocking", "async of a list", "async of a stream"])
def test_documents_are_streamed_a_few_at_a_time(way: str) -> None:
    drawn, count = [0], 3000
    transport = Counting(drawn)
    if way == "blocking":
        with Grapnel(transport=transport) as client:
            report = client.collection("c").upsert(drawing(drawn, count))
    else:

        async def act() -> Any:
            async with AsyncGrapnel(transport=transport) as client:
                source = drawing(drawn, count) if way.endswith("list") else drawing_async(drawn, count)
                return await client.collection("c").upsert(source)

        report = asyncio.run(act())
    assert report.lines == count
    assert transport.ahead <= 66  # 64 KiB of documents of about 1,040 bytes, where 3,000 are given
    sent = [json.loads(line) for line in transport.received.splitlines()]
    assert [each["id"] for each in sent] == [f"{number:06}" for number in range(count)]
    assert sent[7] == {"id": "000007", "text": "x" * 1000, "metadata": {"n": 7}}


def test_a_stream_says_what_it_is() -> None:
    both = Both(answering({**REPORT, "lines": 1, "failed": 1, "errors": [{"line": 1, "id": None, "message": "no id"}]}))
    report = both(lambda client: client.collection("c").upsert([Document(id="a", text="é\n")]))
    assert (both.seen[0].url.path, both.seen[0].headers["content-type"]) == (
        "/v1/collections/c/bulk",
        "application/x-ndjson",
    )
    assert both.seen[0].content == '{"id":"a","text":"é\\n"}\n'.encode()
    assert (report.failed, report.errors[0].line, report.errors[0].message) == (1, 1, "no id")


def test_a_document_that_json_cannot_hold_ends_the_stream_with_its_id() -> None:
    both = Both(answering({**REPORT, "lines": 1}))
    with pytest.raises(errors.CorpusError, match="document 'b' cannot be sent as JSON"):
        both(
            lambda client: client.collection("c").upsert([Document(id="a"), Document(id="b", metadata={"x": object()})])
        )


def test_an_error_of_the_source_comes_out_unchanged() -> None:
    def source() -> Iterator[Document]:
        yield Document(id="a", text="x")
        raise ZeroDivisionError

    with Grapnel(transport=httpx.MockTransport(answering(REPORT))) as client, pytest.raises(ZeroDivisionError):
        client.collection("c").upsert(source())


def paging(request: httpx.Request) -> httpx.Response:
    """Serve ids 00 to 24, those that match a filter: the even ones."""
    body = json.loads(request.content)
    ids = [f"{number:02}" for number in range(25) if number % 2 == 0 or "filter" not in body]
    rest = [each for each in ids if each > body.get("after", "")]
    page = [{"id": each, "version": 1, "text": None, "metadata": {}} for each in rest[: body.get("limit", 4)]]
    return httpx.Response(200, json={"documents": page, "next": page[-1]["id"] if len(rest) > len(page) else None})


def test_documents_goes_over_all_pages() -> None:
    with Grapnel(transport=httpx.MockTransport(paging)) as client:
        notes = client.collection("c")
        assert [each.document.id for each in notes.documents(page_size=10)] == [f"{number:02}" for number in range(25)]
        assert len(list(notes.documents(page_size=5, filter={"even": True}))) == 13
        assert len(list(notes.documents())) == 25, "pages as large as the server makes them"

    async def act() -> list[str]:
        async with AsyncGrapnel(transport=httpx.MockTransport(paging)) as client:
            return [each.document.id async for each in client.collection("c").documents(page_size=10)]

    assert asyncio.run(act()) == [f"{number:02}" for number in range(25)]


def test_counting_takes_one_request() -> None:
    both = Both(answering({"documents": 25}))
    assert both(lambda client: client.collection("c").count()) == 25
    assert both.sent() == {}
    assert both(lambda client: client.collection("c").count(filter={"even": True})) == 25
    assert both.sent() == {"filter": {"even": True}}
    assert [each.url.path for each in both.seen] == ["/v1/collections/c/documents/count"]


def test_a_report_says_what_was_refused() -> None:
    def report(failed: int, *errors: LineError) -> UpsertReport:
        return UpsertReport(5, 5 - failed, 0, 0, 0, 0, 0, failed, errors)

    assert report(0).refusal is None
    assert report(2, LineError(3, "a", "no text"), LineError(4, "b", "x")).refusal == (
        "the server refused 2 of 5 documents; 'a': no text"
    )
    assert report(1, LineError(3, None, "no JSON")).refusal == "the server refused 1 of 5 documents; line 3: no JSON"
