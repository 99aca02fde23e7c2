"""The application in this process, so that a test can hold up a part of it: what is in trouble keeps nobody else.

Encoders are hashing ones. What stands still does so behind a Gate, as a slow disk or model would make it.
"""

import asyncio
import errno
import json
import logging
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

import api.http.routes_search
import api.phrases
import api.upkeep
from api.http.app import create_app
from api.keys import make_key
from api.mcp_libraries import Found, FoundIn, Outcome, Wanted
from api.mcp_tools import SearchArguments, search
from api.server_config import ServerConfig, parse_server
from api.service import Service
from api.workers import Workers
from index.errors import GrapnelError, RequestError, RerankerError
from retrieval.collection import Collection
from retrieval.collection_config import CollectionConfig, DenseField
from retrieval.encoders import EncoderConfig
from retrieval.encoders.hashing import HashingEncoder
from retrieval.field_vectors import Encoders
from retrieval.protocols import Candidate, RerankResult
from retrieval.types import Document

HASHING = {"kind": "hashing", "dim": 64}
NDJSON = {"Content-Type": "application/x-ndjson"}
AT_MOST_S = 20.0


def config_of(keys: Sequence[Mapping[str, Any]] = (), **tables: Any) -> ServerConfig:
    table = {"encoders": {"default": HASHING}, "rerankers": {"similarity": {"encoder": HASHING}}, **tables}
    return parse_server({**table, "keys": list(keys)}, "test")


@asynccontextmanager
async def running(folder: Path, config: ServerConfig | None = None) -> AsyncIterator[tuple[Service, httpx.AsyncClient]]:
    """A service that is ready, with a collection `c` of three documents where its folder is empty, and a client."""
    if not any(folder.iterdir()):
        fields = {"dense": DenseField(EncoderConfig(kind="hashing", dim=64))}
        with Collection.create(folder / "c", CollectionConfig(fields=fields)) as collection:
            collection.add([Document(name, f"an anchor {name}") for name in ("a", "b", "d")])
    service = Service(folder, config or config_of())
    app = create_app(service)
    async with app.router.lifespan_context(app):
        while not service.ready and service.failure is None:
            await asyncio.sleep(0.01)
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            yield service, client
    assert service.close(AT_MOST_S)


class Gate:
    """Where calls wait until it is opened."""

    def __init__(self) -> None:
        self._open = threading.Event()
        self.waiting = 0

    def wait(self) -> None:
        self.waiting += 1
        assert self._open.wait(AT_MOST_S)

    def open(self) -> None:
        self._open.set()


@pytest.fixture
def gate() -> Iterator[Gate]:
    gate = Gate()
    yield gate
    gate.open()


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(AT_MOST_S):
        while not condition():
            await asyncio.sleep(0.005)


def hold_searches(service: Service, name: str, gate: Gate) -> None:
    """Let every batch of a collection's searches wait."""
    with service.registry.get(name).using() as collection:
        answers = collection.answers

        def held(*arguments: Any, **options: Any) -> Any:
            gate.wait()
            return answers(*arguments, **options)

        collection.answers = held  # type: ignore[method-assign]


async def fill(workers: Workers, gate: Gate) -> list["asyncio.Future[None]"]:
    """Give workers all they can take."""
    calls: list[asyncio.Future[None]] = []
    while True:
        calls.append(asyncio.ensure_future(workers.run(gate.wait)))
        await asyncio.sleep(0)
        if calls[-1].done():
            calls.pop().exception()
            return calls


async def metric(client: httpx.AsyncClient, sample: str) -> float:
    """Return a metric by its name and labels, as they are written."""
    text = (await client.get("/metrics")).raise_for_status().text
    return sum(float(line.rpartition(" ")[2]) for line in text.splitlines() if line.startswith(sample + " "))


def searching(client: httpx.AsyncClient, name: str = "c", **more: Any) -> "asyncio.Future[httpx.Response]":
    return asyncio.ensure_future(client.post(f"/v1/collections/{name}/search", json={"query": "anchor", **more}))


def lines(count: int) -> bytes:
    return b"".join(json.dumps({"id": f"n{number}", "text": f"w{number}"}).encode() + b"\n" for number in range(count))


# -- streams ---------------------------------------------------------------------------------------------------------


async def test_a_stream_waits_where_one_request_is_refused(tmp_path: Path, gate: Gate) -> None:
    async with running(tmp_path, config_of(limits={"writes": 1})) as (service, client):
        calls = await fill(service.registry.get("c").writes, gate)
        put = await client.put("/v1/collections/c/documents/x", json={"text": "y"})
        assert (put.status_code, int(put.headers["retry-after"])) == (429, 1)
        stream = asyncio.ensure_future(client.post("/v1/collections/c/bulk", content=lines(1_200), headers=NDJSON))
        await asyncio.sleep(0.1)
        assert not stream.done()
        gate.open()
        report = (await stream).raise_for_status().json()
        assert (report["lines"], report["added"], report["failed"]) == (1_200, 1_200, 0)
        await asyncio.gather(*calls)


async def test_a_stream_that_is_ended_says_how_far_it_came(tmp_path: Path, gate: Gate) -> None:
    config = config_of(limits={"writes": 1, "line_bytes": 100, "timeout_s": 0.5})
    async with running(tmp_path, config) as (service, client):
        bad = lines(600) + b'{"id": 3}\n' + b"x" * 101 + b"\n" + lines(700)
        cut = await client.post("/v1/collections/c/bulk", content=bad, headers=NDJSON)
        assert (cut.status_code, cut.headers["connection"]) == (413, "close")
        report = cut.json()["report"]
        assert (report["lines"], report["added"], report["failed"]) == (600, 600, 1)
        assert report["errors"][0]["line"] == 601
        calls = await fill(service.registry.get("c").writes, gate)
        late = await client.post("/v1/collections/c/bulk", content=lines(3), headers=NDJSON)
        assert (late.status_code, late.json()["report"]["lines"]) == (429, 0)
        gate.open()
        await asyncio.gather(*calls)


# -- reranking -------------------------------------------------------------------------------------------------------


class Reranker:
    """Does what a test says, and keeps the order."""

    def __init__(self, do: Callable[[str], object]) -> None:
        self._do = do
        self.deadlines: list[float | None] = []

    def rerank(
        self, query: str, candidates: Sequence[Candidate], *, top_k: int, deadline: float | None
    ) -> RerankResult:
        self.deadlines.append(deadline)
        self._do(query)
        places = tuple(range(min(top_k, len(candidates))))
        return RerankResult(order=places, scores=tuple(-float(place) for place in places))


@pytest.fixture
def reranked_by(monkeypatch: pytest.MonkeyPatch) -> Callable[[Service, Callable[[str], object]], Reranker]:
    def use(service: Service, do: Callable[[str], object]) -> Reranker:
        reranker = Reranker(do)
        monkeypatch.setattr(service.models, "reranker", lambda _: reranker)
        return reranker

    return use


RERANK = {"rerank": {"model": "similarity"}}
RerankedBy = Callable[[Service, Callable[[str], object]], Reranker]


async def test_a_reranker_that_fails_costs_its_own_search_alone(tmp_path: Path, reranked_by: RerankedBy) -> None:
    def do(query: str) -> None:
        if query == "bad":
            raise RequestError("no such words")

    async with running(tmp_path) as (service, client):
        reranked_by(service, do)
        searches = [
            {"collection": "c", "query": "anchor"},
            {"collection": "c", "query": "bad", **RERANK},
            {"collection": "c", "query": "anchor", **RERANK},
        ]
        plain, bad, good = (await client.post("/v1/search", json={"searches": searches})).json()["results"]
        assert bad["problem"]["detail"] == "no such words"
        assert len(plain["hits"]) == len(good["hits"]) == 3
        assert good["hits"][0]["stage"] == "similarity"


async def test_searches_of_one_request_are_reranked_side_by_side(tmp_path: Path, reranked_by: RerankedBy) -> None:
    meeting = threading.Barrier(3, timeout=AT_MOST_S)
    async with running(tmp_path) as (service, client):
        reranked_by(service, lambda _: meeting.wait())
        searches = [{"collection": "c", "query": "anchor", **RERANK}] * 3
        results = (await client.post("/v1/search", json={"searches": searches})).json()["results"]
        assert [len(result["hits"]) for result in results] == [3, 3, 3]


async def test_a_reranker_has_what_is_left_of_the_search_s_time(tmp_path: Path, reranked_by: RerankedBy) -> None:
    async with running(tmp_path, config_of(limits={"timeout_s": 10.0})) as (service, client):
        reranker = reranked_by(service, lambda _: None)
        begin = asyncio.get_running_loop().time()
        for more in ({"timeout_ms": 5_000}, {"timeout_ms": 5_000, "rerank_ms": 9_000}, {"rerank_ms": 4_000}, {}):
            rerank = {"model": "similarity"} | ({"timeout_ms": more["rerank_ms"]} if "rerank_ms" in more else {})
            time = {key: value for key, value in more.items() if key == "timeout_ms"}
            (await searching(client, rerank=rerank, **time)).raise_for_status()
        spent = asyncio.get_running_loop().time() - begin
        for deadline, most in zip(reranker.deadlines, (5.0, 5.0, 4.0, 10.0), strict=True):
            assert deadline is not None
            assert begin + most <= deadline <= begin + spent + most
        over = await searching(client, rerank={"model": "similarity", "timeout_ms": 10_001})
        assert (over.status_code, "rerank.timeout" in over.json()["detail"]) == (422, True)


async def test_what_was_degraded_is_counted_and_told_in_every_dialect(tmp_path: Path, reranked_by: RerankedBy) -> None:
    def do(_: str) -> None:
        raise RerankerError("the file /a/secret is gone")

    async with running(tmp_path) as (service, client):
        reranked_by(service, do)
        answer = (await searching(client, **RERANK)).raise_for_status().json()
        assert answer["notes"][0].startswith("rerank_failed")
        assert await metric(client, 'grapnel_search_notes_total{note="rerank_failed"}') == 1
        body = {"query": "anchor", "ranking_options": {"ranker": "similarity"}}
        refused = await client.post("/v1/vector_stores/c/search", json=body)
        assert refused.status_code == 502, "scores of two scales would look like one"
        assert "secret" not in refused.text


# -- threads ---------------------------------------------------------------------------------------------------------


async def test_models_that_are_slow_keep_nobody_from_a_document(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gate: Gate
) -> None:
    async with running(tmp_path) as (service, client):
        monkeypatch.setattr(service.models, "embed", lambda *_: gate.wait())
        body = {"model": "default", "input": "a"}
        embeds = [asyncio.ensure_future(client.post("/v1/embeddings", json=body)) for _ in range(20)]
        await until(lambda: gate.waiting == 20)
        assert (await client.get("/v1/collections/c/documents/a")).status_code == 200
        assert await metric(client, 'grapnel_pending_calls{kind="model"}') == 20
        gate.open()
        await asyncio.gather(*embeds)


async def test_texts_are_encoded_in_time_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gate: Gate
) -> None:
    async with running(tmp_path, config_of(limits={"timeout_s": 0.05})) as (service, client):
        monkeypatch.setattr(service.models, "embed", lambda *_: gate.wait())
        late = await client.post("/v1/embeddings", json={"model": "default", "input": "a"})
        assert (late.status_code, late.json()["error"]["code"]) == (504, "deadline")


async def test_writes_to_one_collection_keep_nobody_from_another(tmp_path: Path, gate: Gate) -> None:
    async with running(tmp_path, config_of(limits={"writes": 1})) as (service, client):
        (await client.post("/v1/collections", json={"name": "other"})).raise_for_status()
        calls = await fill(service.registry.get("c").writes, gate)
        assert (await client.put("/v1/collections/c/documents/x", json={"text": "y"})).status_code == 429
        assert (await client.put("/v1/collections/other/documents/x", json={"text": "y"})).status_code == 201
        assert await metric(client, 'grapnel_pending_calls{kind="write"}') == len(calls)
        gate.open()
        await asyncio.gather(*calls)


async def test_large_answers_are_made_off_the_event_loop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with running(tmp_path) as (_, client):
        made: list[bool] = []
        snippet = api.http.routes_search.snippet

        def seen(*arguments: Any) -> Any:
            made.append(threading.current_thread() is threading.main_thread())
            return snippet(*arguments)

        monkeypatch.setattr(api.http.routes_search, "snippet", seen)
        await searching(client)
        assert made == [True] * 3
        long = {"text": "anchor " * 10_000}
        (await client.put("/v1/collections/c/documents/long", json=long)).raise_for_status()
        made.clear()
        answer = (await searching(client)).raise_for_status().json()
        assert made == [False] * 4
        many = await client.post("/v1/search", json={"searches": [{"collection": "c", "query": "anchor"}]})
        assert made == [False] * 8
        assert many.json()["results"][0]["hits"] == answer["hits"]


# -- queues and time -------------------------------------------------------------------------------------------------


async def test_a_deadline_is_told_when_it_passes(tmp_path: Path, gate: Gate) -> None:
    async with running(tmp_path) as (service, client):
        hold_searches(service, "c", gate)
        first = searching(client)
        await until(lambda: gate.waiting == 1)
        late = await searching(client, timeout_ms=50)
        assert (late.status_code, late.json()["type"]) == (504, "grapnel:deadline")
        assert not first.done(), "the batch before it still runs"
        assert await metric(client, 'grapnel_expired_searches_total{collection="c"}') == 1
        gate.open()
        assert (await first).status_code == 200
        assert await metric(client, 'grapnel_searches_total{collection="c"}') == 1, "nothing was computed for it"


async def test_a_refusal_under_overload_tells_nothing_to_strangers(tmp_path: Path, gate: Gate) -> None:
    secrets = {name: make_key() for name in ("owner", "other", "writer", "root")}
    rights: dict[str, dict[str, Any]] = {
        "owner": {"scopes": ["read"], "collections": ["c"]},
        "other": {"scopes": ["read"], "collections": ["mine"]},
        "writer": {"scopes": ["write"], "collections": ["c"]},
        "root": {"scopes": ["admin"]},
    }
    keys = [{"name": name, "sha256": secrets[name][1], **right} for name, right in rights.items()]
    async with running(tmp_path, config_of(keys, limits={"queue": 1})) as (service, client):

        def post(key: str, path: str, content: bytes = b'{"query": "anchor"}') -> "asyncio.Future[httpx.Response]":
            headers = {"Authorization": f"Bearer {secrets[key][0]}", "Content-Type": "application/json"}
            return asyncio.ensure_future(client.post(path, content=content, headers=headers))

        path = "/v1/collections/c/search"
        hold_searches(service, "c", gate)
        answered = [post("owner", path)]
        await until(lambda: gate.waiting == 1)
        answered.append(post("owner", path))
        searches = service.registry.get("c").searches
        assert searches is not None
        await until(lambda: searches.statistics().queued["query"] == 1)
        for address in (path, "/v1/collections/c/context", "/v1/vector_stores/c/search"):
            statuses = [(await post(key, address)).status_code for key in ("owner", "other", "writer")]
            assert statuses == [429, 404, 403], address
            assert (await post("owner", address, b"{")).status_code == 429, "its body was read"
        client.headers["Authorization"] = f"Bearer {secrets['root'][0]}"
        assert await metric(client, 'grapnel_rejected_searches_total{collection="c"}') == 6
        route = 'grapnel_requests_total{method="POST",route="/v1/collections/{collection}/search",status="429"}'
        assert await metric(client, route) == 2
        gate.open()
        assert [(await each).status_code for each in answered] == [200, 200]


async def test_collections_are_asked_at_once(tmp_path: Path, gate: Gate) -> None:
    async with running(tmp_path) as (service, client):
        (await client.post("/v1/collections", json={"name": "other"})).raise_for_status()
        hold_searches(service, "c", gate)
        searches = [{"collection": name, "query": "anchor"} for name in ("c", "other")]
        both = asyncio.ensure_future(client.post("/v1/search", json={"searches": searches}))
        other = service.registry.get("other").searches
        assert other is not None
        await until(lambda: other.statistics().items == 1)
        assert not both.done()
        gate.open()
        assert [len(result["hits"]) for result in (await both).json()["results"]] == [3, 0]


# -- what is watched -------------------------------------------------------------------------------------------------


async def test_every_way_to_search_is_measured(tmp_path: Path) -> None:
    count = 'grapnel_search_stage_seconds_count{stage="dense"}'
    calls: list[tuple[str, dict[str, Any]]] = [
        ("/v1/collections/c/search", {"query": "anchor"}),
        ("/v1/search", {"searches": [{"collection": "c", "query": "anchor"}]}),
        ("/v1/collections/c/context", {"query": "anchor"}),
        ("/v1/vector_stores/c/search", {"query": "anchor"}),
    ]
    async with running(tmp_path) as (_, client):
        for number, (path, body) in enumerate(calls, start=1):
            (await client.post(path, json=body)).raise_for_status()
            assert await metric(client, count) == number, path


async def test_slow_searches_say_what_they_were(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with running(tmp_path, config_of(log={"slow_ms": 0.0})) as (_, client):
        searches = [{"collection": "c", "query": "anchor", "k": 2}]
        (await client.post("/v1/search", json={"searches": searches})).raise_for_status()
        await client.get("/v1/models")
    slow = {record.path: record for record in caplog.records if record.message == "slow request"}  # type: ignore[attr-defined]
    about = vars(slow["/v1/search"])
    assert (about["search"], about["mode"], about["k"]) == ("c", "dense", 2)
    assert {"encode", "dense"} <= set(about["stages_ms"])
    assert "mode" not in vars(slow["/v1/models"])


# -- phrases ---------------------------------------------------------------------------------------------------------


async def with_phrases(client: httpx.AsyncClient) -> str:
    """Make a collection with a substring field; return its path."""
    fields = {"lexical": {"kind": "lexical"}, "phrases": {"kind": "substring"}}
    (await client.post("/v1/collections", json={"name": "p", "fields": fields})).raise_for_status()
    return "/v1/collections/p"


@pytest.mark.parametrize("body", [{"timeout_ms": 50}, {}])
async def test_a_phrase_that_is_not_found_in_time_is_given_up(tmp_path: Path, gate: Gate, body: dict[str, Any]) -> None:
    async with running(tmp_path, config_of(limits={"timeout_s": 20.0 if body else 0.2})) as (service, client):
        path = await with_phrases(client)
        asked: list[str] = []

        def held(_collection: Collection, phrase: str, **_: Any) -> Any:
            asked.append(phrase)
            gate.wait()

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(api.phrases, "grep", held)
            begun = [client.post(f"{path}/grep", json={"phrase": f"an anchor {n}", **body}) for n in range(6)]
            answers = await asyncio.gather(*begun)
            assert [answer.status_code for answer in answers] == [504] * 6
            assert answers[0].json()["type"] == "grapnel:deadline"
            assert len(asked) == gate.waiting == 4, "the others were never begun"
            gate.open()
            await until(lambda: service.phrase_calls.pending == 0)
            assert len(asked) == 4
        assert (await client.post(f"{path}/grep", json={"phrase": "anchor"})).json()["count"] == 0


async def test_phrases_that_wait_keep_nobody_from_a_document(tmp_path: Path, gate: Gate) -> None:
    async with running(tmp_path, config_of(limits={"queue": 2})) as (service, client):
        path = await with_phrases(client)
        calls = await fill(service.phrase_calls, gate)
        assert await metric(client, 'grapnel_pending_calls{kind="phrase"}') == len(calls) == 6
        for route, name in (("grep", "phrase"), ("ngrams", "ngram")):
            refused = await client.post(f"{path}/{route}", json={name: "anchor"})
            assert (refused.status_code, int(refused.headers["retry-after"])) == (429, 1)
        assert (await client.get("/v1/collections/c/documents/a")).status_code == 200
        assert (await searching(client)).status_code == 200
        gate.open()
        await asyncio.gather(*calls)
        assert (await client.post(f"{path}/ngrams", json={"ngram": "anchor"})).status_code == 200
        route = 'grapnel_requests_total{method="POST",route="/v1/collections/{collection}/grep",status="429"}'
        assert await metric(client, route) == 1


async def test_a_phrase_whose_client_left_is_never_looked_for(tmp_path: Path, gate: Gate) -> None:
    async with running(tmp_path) as (service, client):
        path = await with_phrases(client)
        calls = [asyncio.ensure_future(service.phrase_calls.run(gate.wait)) for _ in range(4)]
        await until(lambda: gate.waiting == 4)
        with pytest.MonkeyPatch.context() as patch:
            asked: list[str] = []
            patch.setattr(api.phrases, "grep", lambda _, phrase, **__: asked.append(phrase))
            left = asyncio.ensure_future(client.post(f"{path}/grep", json={"phrase": "an anchor"}))
            await until(lambda: service.phrase_calls.pending == 5)
            left.cancel()
            await until(lambda: service.phrase_calls.pending == 4)
            gate.open()
            await asyncio.gather(*calls)
            assert asked == []


# -- the log ---------------------------------------------------------------------------------------------------------


async def test_changes_leave_a_line_whatever_their_address_ends_like(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with running(tmp_path) as (_, client):
        (await client.post("/v1/collections", json={"name": "search"})).raise_for_status()
        await client.put("/v1/aliases/context", json={"collection": "c"})
        await client.put("/v1/collections/c/documents/wiki/list", json={"text": "a"})
        await client.delete("/v1/collections/c/documents/wiki/list")
        await client.delete("/v1/collections/search")
        for path, body in (("search", {"query": "a"}), ("documents/list", {}), ("documents/get", {"ids": []})):
            (await client.post(f"/v1/collections/c/{path}", json=body)).raise_for_status()
        for path, body in (("grep", {"phrase": "a"}), ("ngrams", {"ngram": "a"})):
            assert (await client.post(f"/v1/collections/c/{path}", json=body)).status_code == 422
    logged = [(record.method, record.path) for record in caplog.records if record.name == "api.requests"]  # type: ignore[attr-defined]
    assert logged == [
        ("POST", "/v1/collections"),
        ("PUT", "/v1/aliases/context"),
        ("PUT", "/v1/collections/c/documents/wiki/list"),
        ("DELETE", "/v1/collections/c/documents/wiki/list"),
        ("DELETE", "/v1/collections/search"),
    ]


async def test_jobs_and_compactions_are_measured(tmp_path: Path) -> None:
    async with running(tmp_path) as (service, client):
        assert (await client.post("/v1/collections/c/compact")).status_code == 202
        await until(lambda: service.jobs.running("c") is None)
        assert await metric(client, 'grapnel_ended_jobs_total{kind="compact",state="done"}') == 1
        assert await metric(client, 'grapnel_collections{state="ready"}') == 1
        assert await metric(client, 'grapnel_compacting{collection="c"}') == 0


class OneNote:
    """A Library whose one collection degrades its answers."""

    searches = 1

    def explain(self, error: GrapnelError) -> str:
        raise NotImplementedError

    async def names(self) -> list[str]:
        return ["c"]

    async def search(self, names: Sequence[str], wanted: Wanted) -> list[Outcome]:
        return [FoundIn([Found("a", "A", {}, wanted.query)], ["field_skipped: x"]) for _ in names]

    async def document(self, name: str, doc_id: str) -> Document:
        raise NotImplementedError


async def test_tools_tell_what_was_degraded() -> None:
    found = await search(OneNote(), SearchArguments(query="anchor"))
    assert [each.id for each in found.results] == ["c/a"]
    assert found.notes == ["collection 'c': field_skipped: x"]


# -- starting --------------------------------------------------------------------------------------------------------


async def test_a_server_that_could_not_start_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    config = config_of(encoders={"default": {"path": str(tmp_path / "missing")}})
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "file").touch()
    async with running(tmp_path / "root", config) as (_, client):
        for path in ("/v1/collections", "/info", "/health"):
            answer = await client.get(path, headers={"Accept": "application/problem+json"})
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
            assert "could not start" in answer.json()["detail"]
        assert (await client.get("/health")).json()["error_type"] == "unhealthy"
        assert (await client.get("/health/ready")).json()["status"] == "failed"
    (record,) = (record for record in caplog.records if record.levelno == logging.CRITICAL)
    assert record.exc_info


async def test_models_of_collections_are_there_before_the_server_is_ready(tmp_path: Path) -> None:
    fields = {"dense": DenseField(EncoderConfig(kind="hashing", dim=32))}
    Collection.create(tmp_path / "own", CollectionConfig(fields=fields)).close()
    async with running(tmp_path) as (service, _):
        with service.registry.get("own").using() as collection:
            assert not collection.shard.vectors.load("dense"), "it was loaded before"


async def test_the_server_s_settings_count_for_collections_that_were_made_with_others(tmp_path: Path) -> None:
    fields = {"dense": DenseField(EncoderConfig(kind="hashing", dim=64, threads=2))}
    Collection.create(tmp_path / "older", CollectionConfig(fields=fields)).close()
    async with running(tmp_path, config_of(encoders={"default": {**HASHING, "threads": 1}})) as (service, _):
        with service.registry.get("older").using() as collection:
            assert collection.shard.vectors.encoder("dense") is service.models.encoder("default")
            assert collection.config.dense_fields()["dense"].encoder.threads == 2


def test_without_a_preference_each_field_has_its_own_encoder() -> None:
    encoders, one, two = Encoders(), *(EncoderConfig(kind="hashing", dim=64, threads=count) for count in (1, 2))
    assert encoders.of_field(two, "f") == two
    assert encoders.get(one) is not encoders.get(two)


# -- collections -----------------------------------------------------------------------------------------------------


async def test_a_damaged_collection_is_listed_beside_the_others(tmp_path: Path) -> None:
    async with running(tmp_path) as (_, client):
        (await client.post("/v1/collections", json={"name": "bad"})).raise_for_status()
        for path in (tmp_path / "bad" / "shards" / "0000").glob("gen-*.json"):
            path.write_bytes(b"{")
        listed = (await client.get("/v1/collections")).raise_for_status().json()["collections"]
        assert [(each["name"], each["state"]) for each in listed] == [("bad", "failed"), ("c", "ready")]
        assert (await client.get("/v1/collections/bad")).status_code == 503


async def test_a_collection_that_is_compacted_is_not_deleted(tmp_path: Path, gate: Gate) -> None:
    async with running(tmp_path) as (service, client):
        with service.registry.get("c").using() as collection:
            build = collection.shard.vectors.clean

            def held() -> None:
                gate.wait()
                build()

            collection.shard.vectors.clean = held  # type: ignore[method-assign]
            compacting = threading.Thread(target=collection.compact)  # by itself: no job
            compacting.start()
            await until(lambda: gate.waiting == 1)
            refused = await client.delete("/v1/collections/c")
            assert (refused.status_code, "compacted" in refused.json()["detail"]) == (409, True)
            assert await metric(client, 'grapnel_compacting{collection="c"}') == 1
            gate.open()
            compacting.join()
        assert (await client.delete("/v1/collections/c")).status_code == 204


async def test_pages_are_bounded_in_bytes(tmp_path: Path) -> None:
    async with running(tmp_path, config_of(limits={"body_bytes": 10_000})) as (_, client):
        for name in "uvwxyz":
            (await client.put(f"/v1/collections/c/documents/{name}", json={"text": "x" * 4_000})).raise_for_status()
        pages: list[list[str]] = []
        after: str | None = ""
        while after is not None:
            body = {"after": after, "limit": 9, "filter": {"type": "exists", "key": "none"}, "strict_filter": False}
            listed = (await client.get("/v1/collections/c/documents", params={"limit": 9, "after": after})).json()
            body["filter"] = {"type": "or", "filters": [body["filter"], {"type": "ne", "key": "none", "value": 1}]}
            filtered = (await client.post("/v1/collections/c/documents/list", json=body)).json()
            assert listed == filtered
            pages.append([each["id"] for each in listed["documents"]])
            after = listed["next"]
    assert pages == [["a", "b", "d", "u", "v", "w"], ["x", "y", "z"], []]


async def test_what_is_refused_is_not_encoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secret, digest = make_key()
    tenant = {"name": "t", "sha256": digest, "scopes": ["read", "write"]}
    tenant |= {"filter": {"type": "eq", "key": "tenant", "value": "t"}}
    async with running(tmp_path, config_of([tenant])) as (_, client):
        client.headers["Authorization"] = f"Bearer {secret}"
        encoded: list[str] = []
        encode = HashingEncoder.encode_texts

        def seen(self: HashingEncoder, texts: Sequence[str]) -> Any:
            encoded.extend(texts)
            return encode(self, texts)

        monkeypatch.setattr(HashingEncoder, "encode_texts", seen)
        own = {"metadata": {"tenant": "t"}}
        values = [{"id": name, "text": f"new {name}", **own} for name in ("1", "a", "2", "3", "b")]  # a, b: others' own
        content = b"".join(json.dumps(value).encode() + b"\n" for value in values)
        report = (await client.post("/v1/collections/c/bulk", content=content, headers=NDJSON)).json()
        assert (report["added"], [each["id"] for each in report["errors"]]) == (3, ["a", "b"])
        assert sorted(encoded) == ["new 1", "new 2", "new 3"]
        stale = {"If-Match": '"999"'}
        refused = await client.put("/v1/collections/c/documents/1", json={"text": "newer", **own}, headers=stale)
        assert refused.status_code == 412
        assert len(encoded) == 3


# -- snapshots -------------------------------------------------------------------------------------------------------


async def test_a_snapshot_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / ".grapnel" / "snapshots" / "c"

    def full(_: Path) -> str:
        raise OSError(errno.ENOSPC, "full")

    async with running(tmp_path) as (service, client):
        with monkeypatch.context() as patched:
            patched.setattr(api.upkeep, "sha256_file", full)
            job = (await client.post("/v1/collections/c/snapshots")).json()["id"]
            await until(lambda: service.jobs.running("c") is None)
            assert (await client.get(f"/v1/jobs/{job}")).json()["error"].startswith("The disk refused")
        assert list(folder.iterdir()) == []
        assert (await client.post("/v1/collections/c/snapshots")).status_code == 202
        await until(lambda: service.jobs.running("c") is None)
        (folder / "20200101T000000Z.tar").touch()  # an operator's own: left alone, and not offered
        (folder / "20200102T000000Z.json").touch()  # what a killed server left
        listed = (await client.get("/v1/collections/c/snapshots")).raise_for_status().json()["snapshots"]
        (name,) = (each["name"] for each in listed)
    async with running(tmp_path) as (_, client):
        kept = {f"{name}.tar", f"{name}.json", "20200101T000000Z.tar"}
        assert {path.name for path in folder.iterdir()} == kept
        restored = await client.post(f"/v1/collections/c/snapshots/{name}/restore", json={"into": "again"})
        assert restored.status_code == 202


def test_snapshots_of_one_second_are_in_the_order_they_were_made() -> None:
    names = ["20200101T000000Z", "20200101T000000Z-2", "20200101T000000Z-10", "20200102T000000Z"]
    assert [path.stem for path in sorted(map(Path, reversed(names)), key=api.upkeep._age)] == names
