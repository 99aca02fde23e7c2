"""kill -9 of a server under mixed load: what it acknowledged is there when it starts again, and nothing half-done.

Clients write through HTTP from several threads, each to documents of its own, and know at any moment what may be
stored; meanwhile the collection is compacted, searched, and others are made and removed. GRAPNEL_CHAOS_ROUNDS sets the
number of random rounds (5; `make chaos`: 200).
"""

import importlib.util
import itertools
import os
import random
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from api.cli_remote import Remote
from api.client import CollectionClient, Grapnel, UnreachableError
from index.errors import ConflictError, NotFoundError, PreconditionError
from retrieval.types import Document, Ranking, SearchRequest

HERE = Path(__file__).parent
ROUNDS = int(os.environ.get("GRAPNEL_CHAOS_ROUNDS", "5"))
DIM = 64
NAME = "chaos"
FIELDS: dict[str, Any] = {
    "dense": {"kind": "dense", "encoder": "default"},
    "lexical": {"kind": "lexical"},
    "phrases": {"kind": "substring"},
}


def _load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, HERE / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


kill = _load("test_collection_kill")  # its oracle: what brute force answers
chaos = kill.chaos

State = dict[str, Document]


# -- clients that keep account ------------------------------------------------------------------------------------


class Writer:
    """Changes documents whose ids begin with `name`, and knows what of them may be stored.

    states: what the operation under way, or the last one, passes through; the last is where it ends.
    versions: of documents whose last write was acknowledged and told one.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.states: list[State] = [{}]
        self.versions: dict[str, int] = {}
        self.acknowledged = 0

    @property
    def state(self) -> State:
        return self.states[-1]

    def run(self, url: str, seed: int) -> None:
        """Write until the server is gone."""
        rng = random.Random(f"{self.name} {seed}")
        with Grapnel(url, retries=0) as client, suppress(UnreachableError):
            while True:
                self._step(client.collection(NAME), rng)

    def _step(self, collection: CollectionClient, rng: random.Random) -> None:
        kinds = {self._put: 4, self._add: 3, self._bulk: 2, self._patch: 3, self._delete: 3, self._delete_matching: 1}
        kinds |= {self._look: 3, self._refused: 1}
        (step,) = rng.choices(list(kinds), list(kinds.values()))
        step(collection, rng)

    def _begin(self, states: Sequence[State], touched: set[str]) -> None:
        self.states = list(states)
        for doc_id in touched:
            self.versions.pop(doc_id, None)

    def _acknowledge(self, **versions: int) -> None:
        self.states = [self.state]
        self.versions |= versions
        self.acknowledged += 1

    def _document(self, rng: random.Random) -> Document:
        return Document(**chaos.random_document(rng, f"{self.name}{rng.randrange(60)}"))

    def _put(self, collection: CollectionClient, rng: random.Random) -> None:
        """One document, sometimes only over the version that is there, or where none is."""
        document = self._document(rng)
        condition: dict[str, Any] = {}
        if document.id not in self.state:
            condition = rng.choice([{}, {"if_none_match": True}])
        elif document.id in self.versions:
            condition = rng.choice([{}, {"if_match": self.versions[document.id]}])
        self._begin([self.state, {**self.state, document.id: document}], {document.id})
        written = collection.put(document, **condition)
        self._acknowledge(**{document.id: written.version})

    def _add(self, collection: CollectionClient, rng: random.Random) -> None:
        """A batch, all or none."""
        documents = {document.id: document for document in (self._document(rng) for _ in range(rng.randint(2, 30)))}
        self._begin([self.state, {**self.state, **documents}], set(documents))
        body = {"documents": [asdict(document) for document in documents.values()]}
        self._post(collection, "documents", body)
        self._acknowledge()

    def _post(self, collection: CollectionClient, what: str, body: Mapping[str, Any]) -> Any:
        from api.client.exchange import Request, call  # noqa: PLC0415  what the client has no method for

        request = Request("POST", f"/v1/collections/{collection.name}/{what}", json=body)
        return collection.client.perform(call(request, lambda value: value))

    def _bulk(self, collection: CollectionClient, rng: random.Random) -> None:
        """A stream in which ids come again and again, so that it is stored in many transactions."""
        documents = [self._document(rng) for _ in range(rng.choice([10, 40, 120]))]
        operation = {"op": "add", "documents": [asdict(document) for document in documents]}
        self._begin(kill.outcomes(self.state, operation), {document.id for document in documents})
        report = collection.upsert(documents)
        assert (report.lines, report.failed) == (len(documents), 0)
        self._acknowledge()

    def _patch(self, collection: CollectionClient, rng: random.Random) -> None:
        if not self.state:
            return
        old = self.state[rng.choice(sorted(self.state))]
        changes = {"group": rng.randrange(5), "level": rng.choice([None, 0.25, 0.75])}
        merged = {key: value for key, value in {**old.metadata, **changes}.items() if value is not None}
        self._begin([self.state, {**self.state, old.id: replace(old, metadata=merged)}], {old.id})
        stored = collection.patch(old.id, changes)
        self._acknowledge(**{old.id: stored.version})

    def _delete(self, collection: CollectionClient, rng: random.Random) -> None:
        doc_ids = [f"{self.name}{rng.randrange(60)}" for _ in range(rng.randint(1, 6))]
        left = {doc_id: document for doc_id, document in self.state.items() if doc_id not in doc_ids}
        self._begin([self.state, left], set(doc_ids))
        gone = len(self.states[0]) - len(left)
        assert collection.delete_many(doc_ids) == gone
        self._acknowledge()

    def _delete_matching(self, collection: CollectionClient, rng: random.Random) -> None:
        group = rng.randrange(5)
        left = {doc_id: document for doc_id, document in self.state.items() if document.metadata["group"] != group}
        self._begin([self.state, left], self.state.keys() - left.keys())
        own = {"type": "in", "key": "_id", "value": [f"{self.name}{number}" for number in range(60)]}
        gone = len(self.states[0]) - len(left)
        of_group = {"type": "eq", "key": "group", "value": group}
        assert collection.delete_many(filter={"type": "and", "filters": [own, of_group]}) == gone
        self._acknowledge()

    def _look(self, collection: CollectionClient, rng: random.Random) -> None:
        """What this writer was told is stored is what it finds, in every mode, whatever others do."""
        own = {"type": "in", "key": "_id", "value": [f"{self.name}{number}" for number in range(60)]}
        condition, matches = rng.choice([(condition, matches) for condition, matches in kill.FILTERS if condition])
        found = collection.search(
            chaos.EVERYWHERE,
            mode=rng.choice(["dense", "lexical", "hybrid"]),
            k=100,
            filter={"type": "and", "filters": [own, condition]},
        )
        wanted = {doc_id for doc_id, document in self.state.items() if matches(document)}
        assert {hit.id for hit in found.hits} == wanted
        assert all(hit.metadata == self.state[hit.id].metadata for hit in found.hits)

    def _refused(self, collection: CollectionClient, rng: random.Random) -> None:
        """What is refused changes nothing."""
        document = self._document(rng)
        if document.id in self.state:
            with pytest.raises(PreconditionError):
                collection.put(document, if_none_match=True)
        else:
            with pytest.raises(NotFoundError):
                collection.patch(document.id, {"group": 1})


@dataclass
class Founder:
    """Makes and removes collections and aliases; states: (collections, aliases) as in Writer."""

    states: list[tuple[frozenset[str], frozenset[tuple[str, str]]]] = field(
        default_factory=lambda: [(frozenset(), frozenset())]
    )

    def run(self, url: str, seed: int) -> None:
        """Found until the server is gone."""
        rng = random.Random(f"founder {seed}")
        with Grapnel(url, retries=0) as client, suppress(UnreachableError):
            while True:
                self._step(client, rng)
                time.sleep(rng.random() / 20)

    def _step(self, client: Grapnel, rng: random.Random) -> None:
        names, aliases = now = self.states[-1]
        name, alias = f"side{rng.randrange(3)}", f"other{rng.randrange(2)}"
        of_name = frozenset(pair for pair in aliases if pair[1] == name)
        of_alias = frozenset(pair for pair in aliases if pair[0] == alias)
        if name not in names:
            self.states = [now, (names | {name}, aliases)]
            client.create_collection(name, FIELDS)
        elif rng.random() < 0.5:
            self.states = [now, (names, aliases - of_alias | {(alias, name)})]
            client.set_alias(alias, name)
        elif of_alias and rng.random() < 0.5:
            self.states = [now, (names, aliases - of_alias)]
            client.delete_alias(alias)
        else:  # its aliases go first
            self.states = [now, (names, aliases - of_name), (names - {name}, aliases - of_name)]
            client.delete_collection(name)
        self.states = [self.states[-1]]

    def settle(self, client: Grapnel) -> None:
        """Check that what there is may be there."""
        summaries = client.collections()
        assert all(summary.state == "ready" for summary in summaries)
        names = frozenset(summary.name for summary in summaries) - {NAME}
        found = (names, frozenset(client.aliases().items()))
        assert found in self.states
        self.states = [found]


def search_on(url: str, seed: int) -> None:
    """Search until the server is gone; every answer must be one that some moment could have given."""
    rng = random.Random(f"reader {seed}")
    with Grapnel(url, retries=0) as client, suppress(UnreachableError):
        while True:
            condition, matches = rng.choice(kill.FILTERS)
            mode = rng.choice(["dense", "lexical", "hybrid"])
            found = client.collection(NAME).search(chaos.EVERYWHERE, mode=mode, k=1000, filter=condition)
            ids = [hit.id for hit in found.hits]
            assert len(set(ids)) == len(ids), "a document came twice"
            keeper = Document(**keeper_value())
            assert (chaos.KEEPER in ids) == matches(keeper)
            assert all(matches(Document(hit.id, hit.passage.text, hit.title, hit.metadata)) for hit in found.hits)


def compact_on(url: str, seed: int) -> None:
    """Compact, and make snapshots, until the server is gone."""
    rng = random.Random(f"compactor {seed}")
    with Grapnel(url, retries=0) as client, suppress(UnreachableError):
        collection = client.collection(NAME)
        while True:
            with suppress(ConflictError):
                job = (collection.create_snapshot if rng.random() < 0.2 else collection.compact)(wait=False)
                while job.state == "running":
                    time.sleep(0.01)
                    job = client.job(job.id)
                assert job.state == "done", job
            time.sleep(rng.random() / 10)


def keeper_value() -> dict[str, Any]:
    value: dict[str, Any] = chaos.first_documents(0, 2)[0]
    assert value["id"] == chaos.KEEPER
    return value


# -- what must hold when it is back -------------------------------------------------------------------------------


class Searched:
    """A collection behind HTTP, as `kill.assert_searches` asks collections."""

    def __init__(self, collection: CollectionClient) -> None:
        self._remote = Remote(collection)

    def search(self, query: str, *, mode: str, k: int) -> Ranking:
        return self.search_many([SearchRequest(kill.Query("q", query), k=k)], mode=mode)[0]

    def search_many(self, requests: Sequence[SearchRequest], *, mode: str) -> list[Ranking]:
        return self._remote.search(requests, mode)[1]


def settle(client: Grapnel, writers: Sequence[Writer]) -> State:
    """Return what is stored: it must be what each writer may have left, with the versions it was told."""
    stored = {each.document.id: each for each in client.collection(NAME).documents(page_size=200)}
    documents = {doc_id: each.document for doc_id, each in stored.items()}
    assert documents.pop(chaos.KEEPER) == Document(**keeper_value())
    for writer in writers:
        own = {doc_id: document for doc_id, document in documents.items() if doc_id.startswith(writer.name)}
        assert own in writer.states, f"{writer.name}: {len(own)} documents of {sorted(map(len, writer.states))}"
        for doc_id, version in writer.versions.items():
            assert stored[doc_id].version == version
        writer.states = [own]
    assert len(documents) == sum(len(writer.state) for writer in writers), "a document of nobody is stored"
    return {chaos.KEEPER: Document(**keeper_value()), **documents}


def check(client: Grapnel, writers: Sequence[Writer], founder: Founder, data: Path) -> None:
    """Check everything that clients see after a restart."""
    founder.settle(client)
    state = settle(client, writers)
    kill.assert_searches(Searched(client.collection(NAME)), list(state.values()), dim=DIM, compacted=False)
    assert list((data / ".grapnel" / "scratch").iterdir()) == []
    assert_snapshots(client, data)


def assert_snapshots(client: Grapnel, data: Path) -> None:
    """Every snapshot that is listed is whole, and nothing else lies there; then remove them."""
    collection = client.collection(NAME)
    folder = data / ".grapnel" / "snapshots" / NAME
    listed = collection.snapshots()
    names = {f"{snapshot.name}{suffix}" for snapshot in listed for suffix in (".tar", ".json")}
    assert {path.name for path in folder.glob("*")} == names
    for number, snapshot in enumerate(listed):
        if number == len(listed) - 1:
            collection.restore_snapshot(snapshot.name, "restored")
            assert client.collection("restored").count() == snapshot.documents
            client.delete_collection("restored")
        collection.delete_snapshot(snapshot.name)


def make_collection(server: Any) -> None:
    """Make the collection, empty but for the keeper."""
    with Grapnel(server.url) as client:
        client.create_collection(NAME, FIELDS)
        client.collection(NAME).put(Document(**keeper_value()))


def test_kills_at_random_times_under_mixed_load(start_server: Callable[..., Any], memory_path: Path) -> None:
    """One root lives through all rounds, so damage done in one would show in the next."""
    server, rng = start_server(data=memory_path / "data"), random.Random(7)
    make_collection(server)
    writers, founder = [Writer("a"), Writer("b")], Founder()
    for number in range(ROUNDS):
        clients = [*(writer.run for writer in writers), founder.run, search_on, compact_on]
        with ThreadPoolExecutor(len(clients)) as pool:
            running: list[Future[None]] = [pool.submit(client, server.url, number) for client in clients]
            time.sleep(rng.uniform(0.1, 1.5))
            server.process.send_signal(signal.SIGKILL)
        for each in running:
            each.result()
        assert server.process.wait() == -signal.SIGKILL
        server.start()
        with Grapnel(server.url) as client:
            check(client, writers, founder, server.data)
    assert all(writer.acknowledged for writer in writers), "the server was always killed before it did anything"
    with Grapnel(server.url) as client:
        state = settle(client, writers)
        client.collection(NAME).compact()
        kill.assert_searches(Searched(client.collection(NAME)), list(state.values()), dim=DIM, compacted=True)
    assert server.stop() == 0
    kill.check(server.data / NAME, [state])


SERVER_POINTS = sorted(point for point in kill.failpoints() if point.startswith(("aliases.", "snapshot.")))


def test_kills_at_the_points_of_the_servers_own(start_server: Callable[..., Any]) -> None:
    """What a server keeps beside its collections is as before or as after, and what was half-done is removed."""
    server = start_server(environment={"GRAPNEL_FAILPOINT": SERVER_POINTS[0]})
    make_collection(server)
    aliases: dict[str, str] = {}
    for point, following in itertools.pairwise([*SERVER_POINTS, "none"]):
        with Grapnel(server.url, retries=0) as client, suppress(UnreachableError):
            client.set_alias(point.replace(".", "-"), NAME)
            client.collection(NAME).create_snapshot()
        assert server.process.wait() == -signal.SIGKILL
        server.environment["GRAPNEL_FAILPOINT"] = following
        server.start()
        if point != "aliases.written":
            aliases[point.replace(".", "-")] = NAME
        with Grapnel(server.url) as client:
            assert client.aliases() == aliases
            assert len(client.collection(NAME).snapshots()) == (point == "snapshot.named")
            assert_snapshots(client, server.data)
            assert not list(server.data.rglob(".*.tmp"))
