"""The Python client against a real server process: everything native, blocking and with asyncio."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest

from api.client import ApiError, AsyncGrapnel, CollectionClient, Document, Grapnel, SearchResult, UnreachableError
from index import errors

HASHING = {"kind": "hashing", "dim": 128}
TABLES = {
    "encoders": {"default": HASHING, "other": {"kind": "hashing", "dim": 64}},
    "rerankers": {"similarity": {"encoder": HASHING}},
    "limits": {"documents": 50, "ids": 50, "k": 40, "body_bytes": 1 << 20, "line_bytes": 1 << 18},
}
KEYS = {
    "admin": {"scopes": ["read", "write", "admin"]},
    "reader": {"scopes": ["read"], "collections": ["winds*"]},
    "tenant": {"scopes": ["read", "write"], "filter": {"type": "eq", "key": "tenant", "value": "a"}},
    "writer": {"scopes": ["write"]},
}

WINDS = [
    Document("bora", "A cold and gusty wind that falls from the mountains to the Adriatic Sea.", "Bora", {"sea": True}),
    Document("foehn", "A warm and dry wind on the lee side of a mountain range.", "Foehn", {"sea": False}),
    Document("mistral", "A strong and cold wind that blows to the Gulf of Lion.", "Mistral", {"sea": True}),
    Document("sirocco", "A hot wind that carries dust of the Sahara over the sea.", "Sirocco", {"sea": True}),
]


def connect(server: Any, key: str = "admin") -> Grapnel:
    return Grapnel(server.url, server.secrets[key])


@pytest.fixture(scope="module")
def server(start_server: Callable[..., Any]) -> Any:
    return start_server(TABLES, KEYS)


@pytest.fixture
def client(server: Any) -> Iterator[Grapnel]:
    with connect(server) as client:
        yield client


@pytest.fixture
def fresh(client: Grapnel, request: pytest.FixtureRequest) -> Iterator[CollectionClient]:
    """An empty collection, named after the test."""
    name = request.node.name.split("[")[0].removeprefix("test_")[:60].strip("_")
    client.create_collection(name)
    yield client.collection(name)
    client.delete_collection(name)


@pytest.fixture(scope="module")
def winds(server: Any) -> Iterator[CollectionClient]:
    """A collection for tests that leave it as it is."""
    with connect(server) as client:
        client.create_collection("winds")
        assert client.collection("winds").upsert(WINDS).added == len(WINDS)
        yield client.collection("winds")


def number_of(document: Any) -> int:
    return int(document.document.id)


# -- collections -----------------------------------------------------------------------------------------------------


def test_a_collection_is_made_described_and_deleted(client: Grapnel) -> None:
    made = client.create_collection(
        "made", {"words": {"kind": "lexical", "language": "german"}}, {"kind": "tokens", "max_tokens": 32, "overlap": 4}
    )
    assert (made.name, made.state, made.documents, made.modes) == ("made", "ready", 0, ("words",))
    assert made.fields["words"]["language"] == "german"
    assert client.collection("made").describe().name == "made"
    assert "made" in [each.name for each in client.collections()]
    with pytest.raises(errors.ConflictError):
        client.create_collection("made")
    client.delete_collection("made")
    with pytest.raises(errors.NotFoundError) as caught:
        client.collection("made").describe()
    assert isinstance(caught.value, ApiError)
    assert caught.value.status == 404
    assert caught.value.request_id


def test_a_bad_field_is_refused_with_its_place(client: Grapnel) -> None:
    with pytest.raises(errors.RequestError) as caught:
        client.create_collection("bad", {"d": {"kind": "dense", "dim": 0}})
    assert isinstance(caught.value, ApiError)
    assert caught.value.status == 422
    assert any("dim" in flaw.place for flaw in caught.value.errors)


def test_an_alias_stands_for_its_collection(client: Grapnel, winds: CollectionClient) -> None:
    client.set_alias("air", "winds")
    assert client.aliases()["air"] == "winds"
    assert client.collection("air").get("bora").document == WINDS[0]
    assert "air" in winds.describe().aliases
    client.delete_alias("air")
    assert "air" not in client.aliases()
    with pytest.raises(errors.NotFoundError):
        client.delete_alias("air")


def test_a_job_is_waited_for(client: Grapnel, fresh: CollectionClient) -> None:
    fresh.upsert(WINDS)
    assert fresh.describe().fresh_passages == len(WINDS)
    job = fresh.compact()
    assert (job.kind, job.collection, job.state) == ("compact", fresh.name, "done")
    assert fresh.describe().fresh_passages == 0
    assert job in client.jobs()
    assert client.job(job.id) == job
    begun = fresh.create_snapshot(wait=False)
    assert client.wait(begun).state == "done"


def test_a_collection_is_embedded_again_and_the_alias_moves(client: Grapnel, winds: CollectionClient) -> None:
    client.set_alias("current", "winds")
    assert winds.reembed("winds-other", "other", alias="current").state == "done"
    assert client.aliases()["current"] == "winds-other"
    current = client.collection("current")
    assert current.count() == len(WINDS)
    assert current.search("cold wind").hits
    assert current.describe().fields["dense"]["fingerprint"] != winds.describe().fields["dense"]["fingerprint"]


def test_a_snapshot_is_made_listed_restored_and_deleted(client: Grapnel, fresh: CollectionClient) -> None:
    fresh.upsert(WINDS)
    assert fresh.create_snapshot().state == "done"
    (snapshot,) = fresh.snapshots()
    assert snapshot.documents == len(WINDS)
    assert len(snapshot.sha256) == 64
    assert fresh.delete_many(["bora", "foehn"]) == 2
    assert fresh.restore_snapshot(snapshot.name, "restored").state == "done"
    assert [each.document for each in client.collection("restored").documents()] == WINDS
    fresh.delete_snapshot(snapshot.name)
    assert fresh.snapshots() == []
    with pytest.raises(errors.NotFoundError):
        fresh.delete_snapshot(snapshot.name)


# -- documents -------------------------------------------------------------------------------------------------------


def test_a_document_is_put_got_patched_and_deleted(fresh: CollectionClient) -> None:
    document = Document("a", "first", "Title", {"n": 1, "deep": {"x": [1, None, "é"]}})
    written = fresh.put(document)
    assert (written.id, written.result) == ("a", "added")
    assert fresh.put(document).result == "unchanged"
    stored = fresh.get("a")
    assert (stored.document, stored.version) == (document, written.version)
    patched = fresh.patch("a", {"n": 2, "deep": None})
    assert patched.document.metadata == {"n": 2}
    assert patched.version > written.version
    assert fresh.count() == 1
    assert fresh.delete("a")
    assert not fresh.delete("a")
    with pytest.raises(errors.NotFoundError):
        fresh.get("a")
    with pytest.raises(errors.NotFoundError):
        fresh.patch("a", {})
    assert fresh.get_many(["a", "b"]) == [None, None]


def test_a_write_can_depend_on_the_version(fresh: CollectionClient) -> None:
    first = fresh.put(Document("a", "one"), if_none_match=True)
    with pytest.raises(errors.PreconditionError) as caught:
        fresh.put(Document("a", "two"), if_none_match=True)
    assert isinstance(caught.value, ApiError)
    assert caught.value.status == 412
    second = fresh.put(Document("a", "two"), if_match=first.version)
    for act in (
        lambda: fresh.put(Document("a", "three"), if_match=first.version),
        lambda: fresh.patch("a", {"x": 1}, if_match=first.version),
        lambda: fresh.delete("a", if_match=first.version),
        lambda: fresh.put(Document("b", "new"), if_match=1),
    ):
        with pytest.raises(errors.PreconditionError):
            act()
    assert fresh.get("a").document.text == "two"
    third = fresh.patch("a", {"x": 1}, if_match=second.version)
    assert fresh.delete("a", if_match=third.version)
    with pytest.raises(errors.PreconditionError):
        fresh.delete("a", if_match=third.version)


ODD_IDS = [
    *(".", "..", "...", "a/b", "/", "//", "a/../..", "./a", "%2e%2e", "%2F", "%", "a b", " a", "a ", "a?b=c#d", "a+b"),
    *("\\", '"', "'", "é", "e\u0301", "😀", "get", "delete", "list", "a\u2028b"),
    *("x" * 512, "http://h/a?b=c&d=%20#e", "null", "0", "<b>", "{doc_id}"),
]


def test_every_id_goes_all_the_way_and_names_no_other_document(fresh: CollectionClient) -> None:
    fresh.put(Document("a", "a bystander"))
    for place, doc_id in enumerate(ODD_IDS):
        written = fresh.put(Document(doc_id, f"text {place}"))
        assert (written.id, written.result) == (doc_id, "added")
    assert [each.document.id for each in fresh.documents()] == sorted(["a", *ODD_IDS])
    for place, doc_id in enumerate(ODD_IDS):
        stored = fresh.get(doc_id)
        assert (stored.document.id, stored.document.text) == (doc_id, f"text {place}")
        if doc_id in {".", ".."}:
            assert fresh.delete(doc_id), doc_id
        else:
            patched = fresh.patch(doc_id, {"seen": place})
            assert patched.document.id == doc_id
            assert fresh.delete(doc_id, if_match=patched.version), doc_id
    assert [each.document for each in fresh.documents()] == [Document("a", "a bystander")]


def test_an_id_that_no_document_can_have_is_refused(fresh: CollectionClient) -> None:
    fresh.put(Document("a", "a bystander"))
    for doc_id in ("", " ", "x" * 513, "nul\0", "\ud800", "a\n", "a\nb"):
        with pytest.raises(errors.RequestError):
            fresh.put(Document(doc_id, "x"))
        with pytest.raises(errors.GrapnelError):
            fresh.patch(doc_id, {"x": 1})
    assert [each.document for each in fresh.documents()] == [Document("a", "a bystander")]


def test_a_stream_stores_what_is_acceptable_and_names_the_rest(fresh: CollectionClient) -> None:
    texts = [Document(f"{number:05}", f"text number {number}") for number in range(1200)]
    documents = [*texts[:700], Document("", "no id"), *texts[700:], Document("empty", "")]
    report = fresh.upsert(iter(documents))
    assert (report.lines, report.added, report.failed) == (1202, 1200, 2)
    assert [error.line for error in report.errors] == [701, 1202]
    assert all(error.message for error in report.errors)
    assert fresh.count() == 1200
    again = fresh.upsert(iter(texts))
    assert (again.unchanged, again.added, again.encoded, again.failed) == (1200, 0, 0, 0)
    assert [number_of(each) for each in fresh.documents(page_size=33)] == list(range(1200))
    assert [number_of(each) for each in fresh.documents()] == list(range(1200)), "as many at once as this server gives"
    assert len(fresh.page().documents) == 40


def test_documents_are_listed_counted_and_deleted_by_filter(fresh: CollectionClient) -> None:
    fresh.upsert(WINDS)
    at_sea = {"type": "eq", "key": "sea", "value": True}
    assert fresh.count() == 4
    assert fresh.count(filter=at_sea) == 3
    listed = list(fresh.documents(filter=at_sea, page_size=2))
    assert [each.document.id for each in listed] == ["bora", "mistral", "sirocco"]
    assert [each.document.text for each in fresh.documents(include=())] == [""] * 4
    assert fresh.page(limit=1, after="bora").documents[0].document == WINDS[1]
    assert fresh.delete_many(["foehn", "nothing"], filter=at_sea) == 4
    assert fresh.count() == 0


def test_vectors_that_clients_bring_go_both_ways(client: Grapnel) -> None:
    client.create_collection("brought", {"v": {"kind": "dense", "dim": 3}})
    brought = client.collection("brought")
    axes = np.eye(3, dtype=np.float32)
    report = brought.upsert(Document(f"{number}", vectors={"v": axes[number]}) for number in range(3))
    assert report.added == 3
    assert brought.get("1").document.vectors["v"].tolist() == [0.0, 1.0, 0.0]
    assert [hit.id for hit in brought.search(vectors={"v": [0.1, 0.2, 0.9]}).hits] == ["2", "1", "0"]
    assert [hit.id for hit in brought.search(vectors={"v": axes[0]}, k=1).hits] == ["0"]
    client.delete_collection("brought")


# -- search ----------------------------------------------------------------------------------------------------------


def test_a_search_answers_with_passages_snippets_and_evidence(winds: CollectionClient) -> None:
    result = winds.search("dust of the Sahara", k=2, explain=True)
    first = result.hits[0]
    assert (first.id, first.rank, first.title, first.metadata) == ("sirocco", 1, "Sirocco", {"sea": True})
    assert first.passage.text == WINDS[3].text
    assert first.snippet is not None
    marked = {first.passage.text[start:end] for start, end in first.snippet.highlights}
    assert {"dust", "Sahara"} <= marked
    assert {each.stage for each in first.evidence} >= {"dense", "lexical"}
    assert result.timings_ms
    assert len(result.hits) == 2
    bare = winds.search("dust of the Sahara", include=[], snippet_chars=0, mode="lexical", k=1).hits[0]
    assert (bare.passage.text, bare.metadata, bare.snippet, bare.evidence) == ("", {}, None, ())


def test_every_option_of_a_search_reaches_the_server(winds: CollectionClient) -> None:
    everything = winds.search("cold wind", k=10, mode="hybrid")
    ids = [hit.id for hit in everything.hits]
    assert [hit.id for hit in winds.search("cold wind", offset=1, mode="hybrid").hits] == ids[1:]
    inland = winds.search("cold wind", filter={"type": "eq", "key": "sea", "value": False})
    assert [hit.id for hit in inland.hits] == ["foehn"]
    assert "bora" not in [hit.id for hit in winds.search("cold wind", exclude={"bora"}).hits]
    assert "bora" not in [hit.id for hit in winds.search(like="bora").hits]
    fused = winds.search("cold wind", fusion={"parts": ["dense", "lexical"], "weights": [1, 1], "method": "rrf"})
    assert {hit.id for hit in fused.hits} >= {"bora", "mistral"}
    options: dict[str, Any] = {"depth": 50, "effort": {"ef": 10}, "group": "passage", "diversity": 0.5}
    assert winds.search("cold wind", min_score=-1e9, timeout_ms=5000, **options).hits
    ranked = winds.search("cold wind", rerank={"model": "similarity", "depth": 4}, explain=True)
    assert ranked.hits
    assert winds.search("cold wind", mode="lexical", min_score=1e9).hits == ()


def test_a_search_that_makes_no_sense_says_why(winds: CollectionClient) -> None:
    with pytest.raises(errors.RequestError, match="nonsense"):
        winds.search("x", mode="nonsense")
    with pytest.raises(errors.RequestError):
        winds.search("x", k=0)
    with pytest.raises(errors.RequestError):
        winds.search("x", filter={"type": "like", "key": "a", "value": "b"})


@pytest.fixture(scope="module")
def phrased(server: Any) -> Iterator[CollectionClient]:
    """WINDS in a collection with a substring field."""
    with connect(server) as client:
        client.create_collection("phrased", {"words": {"kind": "lexical"}, "phrases": {"kind": "substring"}})
        phrased = client.collection("phrased")
        phrased.upsert(WINDS)
        phrased.compact()
        yield phrased


def test_a_phrase_is_found_with_its_characters(phrased: CollectionClient) -> None:
    found = phrased.grep("Cold", limit=1)
    assert (found.phrase, found.field, found.tokens, found.notes) == ("Cold", "phrases", ("cold",), ())
    assert (found.count, found.documents, len(found.matches)) == (2, 2, 1)
    first = found.matches[0]
    assert (first.doc_id, first.title, first.part, first.start, first.end) == ("bora", "Bora", "text", 2, 6)
    assert WINDS[0].text[first.snippet.start :].startswith(first.snippet.text)
    inland = {"type": "eq", "key": "sea", "value": False}
    assert [each.doc_id for each in phrased.grep("wind", field="phrases", filter=inland).matches] == ["foehn"]
    assert phrased.grep("wind", filter={"type": "exists", "key": "of nobody"}, strict_filter=False).count == 0
    for bad in ({"limit": -1}, {"field": "words"}, {"filter": {"type": "near"}}, {"timeout_ms": 0}):
        with pytest.raises(errors.RequestError):
            phrased.grep("wind", **bad)  # type: ignore[arg-type]


def test_an_n_gram_is_counted_with_what_follows(server: Any, phrased: CollectionClient) -> None:
    counted = phrased.ngrams("warm wind that")
    assert (counted.ngram, counted.count, counted.used.tokens, counted.used.count) == (
        "warm wind that",
        0,
        ("wind", "that"),
        3,
    )
    assert (counted.used.ends, counted.distinct, counted.notes[0].partition("=")[0]) == (0, 3, "backed_off")
    assert {(each.token, each.count) for each in counted.continuations} == {("falls", 1), ("blows", 1), ("carries", 1)}
    assert all(each.probability == 1 / 3 and each.text.startswith("wind that ") for each in counted.continuations)

    async def act() -> None:
        async with AsyncGrapnel(server.url, server.secrets["admin"]) as client:
            waiting = client.collection("phrased")
            assert await waiting.ngrams("warm wind that") == counted
            assert await waiting.grep("wind", limit=0) == phrased.grep("wind", limit=0)

    asyncio.run(act())


def test_several_searches_are_answered_each_on_its_own(client: Grapnel, winds: CollectionClient) -> None:
    first, second, third = winds.search_many(
        [{"query": "Sahara", "k": 1}, {"query": "x", "mode": "no"}, {"like": "bora"}]
    )
    assert isinstance(first, SearchResult)
    assert [hit.id for hit in first.hits] == ["sirocco"]
    assert isinstance(second, ApiError)
    assert isinstance(second, errors.RequestError)
    assert isinstance(third, SearchResult)
    found, missing = client.search_many(
        [{"collection": "winds", "query": "dry"}, {"collection": "none", "query": "dry"}]
    )
    assert isinstance(found, SearchResult)
    assert isinstance(missing, errors.NotFoundError)


def test_context_keeps_to_its_budget(winds: CollectionClient) -> None:
    context = winds.context("cold wind", budget_tokens=60, k=4)
    assert context.blocks
    assert context.tokens <= context.budget_tokens == 60
    texts = {document.id: document.text for document in WINDS}
    for block in context.blocks:
        assert texts[block.id][block.start : block.end] == block.text
        assert block.text in context.context
        assert block.citation.startswith(f"{block.id}#")


# -- models ----------------------------------------------------------------------------------------------------------


def test_the_models_of_the_server_are_listed(client: Grapnel) -> None:
    kinds = {model.id: model.kind for model in client.models()}
    assert kinds == {"default": "encoder", "other": "encoder", "similarity": "reranker"}


def test_texts_are_embedded(client: Grapnel) -> None:
    made = client.embeddings(["cold wind", "warm sea", "cold wind"])
    assert made.vectors.shape == (3, 128)
    assert made.vectors.dtype == np.float32
    assert np.linalg.norm(made.vectors, axis=1) == pytest.approx([1, 1, 1], abs=1e-5)
    assert made.vectors[0].tolist() == made.vectors[2].tolist() != made.vectors[1].tolist()
    assert made.tokens > 0
    assert client.embeddings(["cold wind"], input_type="query").vectors.shape == (1, 128)
    assert client.embeddings(["x"], model="other").vectors.shape == (1, 64)
    with pytest.raises(errors.NotFoundError):
        client.embeddings(["x"], model="none")


def test_texts_are_reranked(client: Grapnel) -> None:
    found = client.rerank("cold wind", ["warm sea", "a cold wind", "stones"], "similarity", top_n=2)
    best, second = found.results
    assert found.notes == ()
    assert best.index == 1
    assert best.score >= second.score


# -- keys, limits, failures ------------------------------------------------------------------------------------------


def test_health_needs_no_key(server: Any) -> None:
    with Grapnel(server.url) as client:
        assert client.health().ready


@pytest.mark.parametrize("key", [None, "gk_wrong"])
def test_without_a_key_that_counts_nothing_is_answered(server: Any, winds: CollectionClient, key: str | None) -> None:
    with Grapnel(server.url, key) as client, pytest.raises(errors.ForbiddenError) as caught:
        client.collection(winds.name).search("x")
    assert isinstance(caught.value, ApiError)
    assert caught.value.status == 401


def test_a_stream_that_is_refused_at_its_start_ends_with_the_reason(server: Any, winds: CollectionClient) -> None:
    big = (Document(f"{number}", "x" * 10_000) for number in range(3000))
    with connect(server, "reader") as client, pytest.raises((errors.ForbiddenError, UnreachableError)) as caught:
        client.collection(winds.name).upsert(big)
    assert isinstance(caught.value, ApiError), "the answer was lost with the connection"
    assert caught.value.status == 403


def test_a_key_may_do_what_its_scopes_say(server: Any, winds: CollectionClient) -> None:
    with connect(server, "reader") as client:
        assert client.collection(winds.name).search("wind").hits
        for act in (
            lambda: client.collection("winds").put(Document("a", "x")),
            lambda: client.delete_collection("winds"),
            lambda: client.collection("secret").describe(),
        ):
            with pytest.raises((errors.ForbiddenError, errors.NotFoundError)):
                act()


def test_a_key_bound_to_a_filter_sees_its_documents_only(server: Any, fresh: CollectionClient) -> None:
    fresh.upsert(Document(f"{number}", f"text {number}", metadata={"tenant": "ab"[number % 2]}) for number in range(10))
    with connect(server, "tenant") as client:
        own = client.collection(fresh.name)
        assert own.count() == 5
        assert [number_of(each) for each in own.documents(page_size=2)] == [0, 2, 4, 6, 8]
        assert own.get_many(["0", "1"])[1] is None
        assert {int(hit.id) % 2 for hit in own.search("text").hits} == {0}
        with pytest.raises(errors.GrapnelError):
            own.put(Document("new", "x", metadata={"tenant": "b"}))


def test_a_key_that_only_writes_is_told_what_it_did_and_no_document(server: Any, fresh: CollectionClient) -> None:
    first = fresh.put(Document("a", "text", "title", {"n": 1}))
    with connect(server, "writer") as client:
        own = client.collection(fresh.name)
        told = own.patch("a", {"n": 2})
        assert (told.id, told.version > first.version) == ("a", True)
        assert not hasattr(told, "document")
        with pytest.raises(errors.ForbiddenError):
            own.put(Document("..", "would be written, and then not read"))
        assert own.delete_many(filter={"type": "exists", "key": "nowhere"}, strict_filter=False) == 0
    assert fresh.get("a").document == Document("a", "text", "title", {"n": 2})
    assert fresh.count() == 1


def test_what_exceeds_a_limit_is_refused_and_the_connection_stays_well(winds: CollectionClient) -> None:
    with pytest.raises(errors.RequestError) as caught:
        winds.put(Document("big", "x" * 2_000_000))
    assert isinstance(caught.value, ApiError)
    assert caught.value.status == 413
    with pytest.raises(errors.RequestError):
        winds.get_many([f"{number}" for number in range(51)])
    assert winds.count() == len(WINDS)


def test_two_writers_of_one_document_lose_nothing(server: Any, fresh: CollectionClient) -> None:
    """Optimistic locking, as `if_match` is meant: each adds to a counter, and goes back to reading when it lost."""
    fresh.put(Document("counter", "x", metadata={"n": 0}))

    async def add(client: AsyncGrapnel, times: int) -> None:
        counter = client.collection(fresh.name)
        for _ in range(times):
            while True:
                now = await counter.get("counter")
                try:
                    await counter.patch("counter", {"n": now.document.metadata["n"] + 1}, if_match=now.version)
                except errors.PreconditionError:
                    continue
                break

    async def act() -> None:
        async with AsyncGrapnel(server.url, server.secrets["admin"]) as client:
            await asyncio.gather(*(add(client, 5) for _ in range(4)))

    asyncio.run(act())
    assert fresh.get("counter").document.metadata["n"] == 20


# -- asyncio ---------------------------------------------------------------------------------------------------------


def test_the_asynchronous_client_does_it_all_too(server: Any) -> None:
    async def stream(count: int) -> AsyncIterator[Document]:
        for number in range(count):
            await asyncio.sleep(0)
            yield Document(f"{number:04}", f"text number {number}", metadata={"n": number})

    async def act(client: AsyncGrapnel) -> None:
        assert (await client.health()).ready
        assert (await client.create_collection("asynchronous")).documents == 0
        notes = client.collection("asynchronous")
        assert (await notes.upsert(stream(800))).added == 800
        assert (await notes.upsert(WINDS)).added == len(WINDS)
        assert (await notes.compact()).state == "done"
        results = await asyncio.gather(*(notes.search(f"number {n}", k=1, mode="lexical") for n in range(40)))
        assert [int(result.hits[0].id) for result in results] == list(range(40))
        assert [each.document.id async for each in notes.documents(page_size=30)][:2] == ["0000", "0001"]
        assert (await notes.get("bora")).document == WINDS[0]
        assert (await notes.patch("bora", {"sea": None})).document.metadata == {}
        assert await notes.delete_many(filter={"type": "lt", "key": "n", "value": 400}) == 400
        assert await notes.count() == 404
        with pytest.raises(errors.NotFoundError):
            await notes.get("0000")
        await client.delete_collection("asynchronous")

    async def main() -> None:
        async with AsyncGrapnel(server.url, server.secrets["admin"]) as client:
            await act(client)

    asyncio.run(main())


def test_a_cancelled_task_leaves_the_client_well(server: Any, winds: CollectionClient) -> None:
    rng = random.Random(1)

    async def act() -> None:
        async with AsyncGrapnel(server.url, server.secrets["admin"]) as client:
            notes = client.collection(winds.name)
            cancelled = 0
            # From before the first byte is sent to after the answer: a search of four documents takes milliseconds.
            for turn in range(60):
                task = asyncio.create_task(notes.search("wind"))
                await asyncio.sleep(rng.random() * 0.0002 * turn)
                task.cancel()
                (result,) = await asyncio.gather(task, return_exceptions=True)
                cancelled += isinstance(result, asyncio.CancelledError)
                assert isinstance(result, SearchResult | asyncio.CancelledError), result
            assert cancelled
            assert len((await notes.search("wind", k=4)).hits) == 4

    asyncio.run(act())


# -- a server that comes and goes ------------------------------------------------------------------------------------


def test_the_client_says_that_the_server_is_gone_and_works_with_the_next_one(start_server: Callable[..., Any]) -> None:
    server = start_server(TABLES, KEYS)
    with connect(server) as client:
        client.create_collection("kept")
        client.collection("kept").put(Document("a", "kept"))
        assert server.stop() == 0
        with pytest.raises(UnreachableError):
            client.collection("kept").count()
        server.start(urlsplit(server.url).port)
        assert client.collection("kept").get("a").document.text == "kept"
