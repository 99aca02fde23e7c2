"""`--url`: the command line over a server says what it says over the same collection in a folder."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from command_line import answer, error_line

from api.cli import main
from api.client import Grapnel

CONFIG = """
[encoder]
kind = "hashing"
dim = 64
[fields.dense]
kind = "dense"
[fields.lexical]
kind = "lexical"
[fields.phrases]
kind = "substring"
"""
FIELDS: Mapping[str, Any] = {
    "dense": {"kind": "dense", "encoder": "default"},
    "lexical": {"kind": "lexical"},
    "phrases": {"kind": "substring"},
}
DOCUMENTS = [
    {"_id": "fox", "title": "Fox", "text": "A fox hunts mice at night.", "metadata": {"legs": 4, "wild": True}},
    {"_id": "hen", "title": "", "text": "A hen lays eggs in the morning.", "metadata": {"legs": 2, "wild": False}},
    {"_id": "cat", "title": "Cat", "text": "A cat hunts mice, too, and sleeps.", "metadata": {"legs": 4}},
    {"_id": "of the/sea", "title": "Eel", "text": "An eel swims in the night.", "metadata": {"wild": True}},
]
WILD = '{"type": "eq", "key": "wild", "value": true}'


class Said:
    """What a command said, and its exit status."""

    def __init__(self, status: int, captured: "pytest.CaptureResult[str]") -> None:
        self.status, self.out, self.err = status, captured.out, captured.err

    @property
    def answer(self) -> str:
        """What a command that succeeded, without a word beside it, answered."""
        assert (self.status, self.err) == (0, "")
        return self.out

    def refusal(self, status: int) -> str:
        """The one line that a command said as it ended with `status`."""
        assert self.status == status, self.err
        return error_line(self.out, self.err)


Run = Callable[..., Said]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command in this process."""

    def run(*arguments: str | Path) -> Said:
        status = main([str(argument) for argument in arguments])
        return Said(status, capsys.readouterr())

    return run


@pytest.fixture(scope="module")
def server(start_server: Callable[..., Any]) -> Any:
    """A server with keys that may do everything, read, and write what is of tenant a."""
    return start_server(
        keys={
            "admin": {"scopes": ["admin"]},
            "reader": {"scopes": ["read"]},
            "tenant": {"scopes": ["read", "write"], "filter": {"type": "eq", "key": "tenant", "value": "a"}},
        }
    )


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("source") / "docs.jsonl"
    path.write_text("".join(json.dumps(document) + "\n" for document in DOCUMENTS), encoding="utf-8")
    return path


class Twins:
    """A collection in a folder, and one on a server that was made and filled alike."""

    def __init__(self, run: Run, folder: Path, remote: tuple[str, ...]) -> None:
        self._run = run
        self.folder = folder
        self.remote = remote

    def both(self, command: str, *arguments: str | Path) -> tuple[Any, Any]:
        """Return what each says as JSON."""
        here, there = (
            json.loads(self._run(command, *place, *arguments, "--json").answer)
            for place in ([self.folder], self.remote)
        )
        return here, there

    def one(self, command: str, *arguments: str | Path) -> Any:
        """Return what both say as JSON, times aside, and what they say to people."""
        here, there = map(timeless, self.both(command, *arguments))
        assert there == here
        local, remote = (self._run(command, *place, *arguments).answer for place in ([self.folder], self.remote))
        if "--explain" not in arguments:
            assert remote == local
        return here

    def refusals(self, status: int, command: str, *arguments: str | Path) -> str:
        """Return what the server's side says; both end with `status`."""
        self._run(command, self.folder, *arguments).refusal(status)
        return self._run(command, *self.remote, *arguments).refusal(status)


def timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: timeless(item) for key, item in value.items() if key != "timings_ms"}
    return [timeless(item) for item in value] if isinstance(value, list) else value


@pytest.fixture
def twins(
    run: Run, server: Any, source: Path, tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Twins:
    config = tmp_path / "collection.toml"
    config.write_text(CONFIG, encoding="utf-8")
    assert run("build", source, "--out", tmp_path / "here", "--config", config).status == 0
    name = request.node.name.removeprefix("test_")[:60]
    with Grapnel(server.url, server.secrets["admin"]) as client:
        client.create_collection(name, FIELDS)
    monkeypatch.setenv("GRAPNEL_KEY", server.secrets["admin"])
    remote = (name, "--url", server.url)
    added = json.loads(run("add", *remote, source, "--json").answer)
    assert (added["added"], added["encoded"], added["skipped"]) == (4, 4, [])
    run("compact", *remote)
    return Twins(run, tmp_path / "here", remote)


def test_searches(twins: Twins) -> None:
    found = twins.one("search", "who hunts mice")
    assert {hit["doc_id"] for hit in found["rankings"][0]["hits"][:2]} == {"fox", "cat"}
    several = twins.one("search", "who hunts mice", "what swims", "-k", "2", "--mode", "lexical")
    assert [ranking["hits"][0]["doc_id"] for ranking in several["rankings"]][1] == "of the/sea"
    wild = twins.one("search", "night", "--filter", WILD, "--mode", "dense")
    assert {hit["doc_id"] for hit in wild["rankings"][0]["hits"]} == {"fox", "of the/sea"}
    like = twins.one("search", "--like", "fox")
    assert "fox" not in {hit["doc_id"] for hit in like["rankings"][0]["hits"]}
    twins.one("search", "mice at night", "--offset", "1", "-k", "2", "--diversity", "0.5", "--group", "passage")
    assert twins.one("search", "mice", "--min-score", "99")["rankings"][0]["hits"] == []
    explained = twins.one("search", "mice", "--explain")
    assert {part["stage"] for hit in explained["rankings"][0]["hits"] for part in hit["evidence"]} == {
        "dense",
        "lexical",
    }


def test_phrases(twins: Twins) -> None:
    found = twins.one("grep", "hunts  MICE", "--limit", "1")
    assert (found["count"], found["documents"], len(found["matches"])) == (2, 2, 1)
    assert twins.one("grep", "night", "--filter", WILD, "--field", "phrases")["count"] == 2
    counted = twins.one("ngrams", "hunts mice")
    assert sorted(each["token"] for each in counted["continuations"]) == [",", "at"]
    assert twins.one("ngrams", "hunts", "--filter", '{"type": "exists", "key": "wild"}')["count"] == 1
    assert twins.one("grep", "mice hunts zebra")["notes"]
    assert twins.one("ngrams", "zebra")["used"]["tokens"] == []
    for command in ("grep", "ngrams"):
        assert "is no substring field" in twins.refusals(2, command, "mice", "--field", "lexical")
        assert "limit" in twins.refusals(2, command, "mice", "--limit", "-1")
        assert "type" in twins.refusals(2, command, "mice", "--filter", '{"type": "near"}')
        assert "not JSON" in twins.refusals(2, command, "mice", "--filter", "{")
        assert "has no token" in twins.refusals(2, command, "\u2603")


def test_documents(twins: Twins, tmp_path: Path) -> None:
    assert twins.one("get", "of the/sea")["title"] == "Eel"
    more = tmp_path / "more.jsonl"
    more.write_text(
        '{"_id": "fox", "title": "Fox", "text": "A fox sleeps."}\n{"_id": "owl", "text": "An owl hoots."}\n',
        encoding="utf-8",
    )
    here, there = twins.both("add", more)
    assert here == there
    assert (here["added"], here["updated"]) == (1, 1)
    assert twins.one("add", more)["unchanged"] == 2
    assert twins.one("get", "fox")["text"] == "A fox sleeps."
    here, there = twins.both("delete", "owl", "nobody")
    assert here == there == {"deleted": 1}
    here, there = twins.both("delete", "--filter", WILD)
    assert here == there == {"deleted": 1}
    assert "no document 'owl'" in twins.refusals(1, "get", "owl")
    assert {hit["doc_id"] for hit in twins.one("search", "a")["rankings"][0]["hits"]} == {"fox", "hen", "cat"}


def test_upkeep(twins: Twins, run: Run) -> None:
    run("delete", twins.folder, "hen")
    run("delete", *twins.remote, "hen")
    here, there = twins.both("compact")
    assert (there["passages"], there["generation"]) == (3, 3)
    assert {name: there[name] for name in ("built", "reused")} == {name: here[name] for name in ("built", "reused")}
    here, there = twins.both("info")
    assert there["state"] == "ready"
    for fact in ("documents", "passages", "fresh_passages", "replaced_passages", "default_mode", "modes"):
        assert there[fact] == here[fact], fact
    assert there["fields"]["dense"]["fingerprint"] == here["fields"]["dense"]["fingerprint"]
    text = run("info", *twins.remote).answer
    assert "documents" in text
    assert "lexical" in text


def test_more_than_a_server_takes_at_once(twins: Twins) -> None:
    found = twins.one("search", *(f"mice {number}" for number in range(65)), "-k", "1", "--mode", "lexical")
    assert {ranking["hits"][0]["doc_id"] for ranking in found["rankings"]} <= {"fox", "cat"}
    assert len(found["rankings"]) == 65
    here, there = twins.both("delete", *(f"nobody-{number}" for number in range(1_001)), "hen")
    assert here == there == {"deleted": 1}


def test_refusals(twins: Twins) -> None:
    assert "type" in twins.refusals(2, "search", "x", "--filter", '{"type": "near"}')
    assert "mode" in twins.refusals(2, "search", "x", "--mode", "nope")
    assert "k" in twins.refusals(2, "search", "x", "-k", "0")
    assert "question" in twins.refusals(2, "search")
    assert "nothing to delete" in twins.refusals(2, "delete")
    assert "nobody" in twins.refusals(2, "search", "--like", "nobody")


def test_where_it_is_and_who_asks(run: Run, server: Any, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GRAPNEL_KEY", raising=False)
    remote = ("mine", "--url", server.url)
    with Grapnel(server.url, server.secrets["admin"]) as client:
        client.create_collection("mine")
    assert "unauthenticated" in run("info", *remote).refusal(1)
    assert "unauthenticated" in run("info", *remote, "--key", "gk_wrong").refusal(1)
    assert run("info", *remote, "--key", server.secrets["reader"]).answer
    assert "forbidden" in run("add", *remote, source, "--key", server.secrets["reader"]).err
    monkeypatch.setenv("GRAPNEL_KEY", server.secrets["tenant"])
    refused = run("add", *remote, source)
    assert refused.status == 1
    assert "refused 4 of 4 documents" in refused.err
    assert run("add", *remote, source, "--key", server.secrets["admin"]).status == 0
    assert "no collection 'other'" in run("info", "other", "--url", server.url).refusal(1)
    assert "name of a collection" in run("info", "demo/mine", "--url", server.url).refusal(2)
    assert "expected http://" in run("info", "mine", "--url", "mine:8080").refusal(2)
    assert "is the server running there?" in run("info", "mine", "--url", "http://127.0.0.1:9").refusal(1)
    assert "give --url" in run("info", "mine", "--key", "gk_x").refusal(2)
    assert "--pipeline" in run("search", *remote, "x", "--pipeline", "pipeline.toml").refusal(2)


def test_a_process_of_its_own(twins: Twins) -> None:
    assert answer("search", *twins.remote, "mice")["mode"] == "hybrid"
