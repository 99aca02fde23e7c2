"""The collection API against dictionaries: any sequence of requests, answered by the application in this process."""

import json
import shutil
import tempfile
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)
from starlette.testclient import TestClient

from api.http.app import create_app
from api.server_config import ServerConfig
from api.service import Service
from retrieval.encoders import EncoderConfig
from retrieval.rerankers.config import RerankerConfig

Body = dict[str, Any]
Until = Callable[[Callable[[], object], str], None]

HASHING = EncoderConfig(kind="hashing", dim=64)
NAMES = ("one", "two")
ALIASES = ("now", "then")
# fmt: off
IDS = ("a", "A", "a b", "a/b", "..", "get", "delete", "100%", "é", "🦦", "?q=1", "#", "x" * 512)
# fmt: on
WORDS = ("otter", "heron", "salmon", "river")

documents = st.fixed_dictionaries(
    {"text": st.lists(st.sampled_from(WORDS), min_size=1, max_size=3).map(" ".join)},
    optional={
        "title": st.sampled_from(WORDS),
        "metadata": st.fixed_dictionaries(
            {}, optional={"n": st.integers(0, 3), "tag": st.sampled_from(["x", "y", None]), "deep": st.just({"k": 1})}
        ),
    },
)
changes = st.dictionaries(st.sampled_from(["n", "tag"]), st.none() | st.integers(0, 3) | st.just("x"), max_size=2)
names = st.sampled_from(("one", "one", "one", "one", "now", "two", "then", "nothing"))
ids = st.sampled_from(IDS)


@dataclass(frozen=True)
class Condition:
    """A filter, and the same in Python. key: the field it reads."""

    key: str
    json: Body
    holds: Callable[[Mapping[str, Any]], bool]


def _number(metadata: Mapping[str, Any]) -> float:
    value = metadata.get("n")
    return value if isinstance(value, int) else float("-inf")


CONDITIONS = (
    Condition("n", {"type": "gte", "key": "n", "value": 2}, lambda metadata: _number(metadata) >= 2),
    Condition("n", {"type": "exists", "key": "n", "value": False}, lambda metadata: "n" not in metadata),
    Condition("tag", {"type": "eq", "key": "tag", "value": "x"}, lambda metadata: metadata.get("tag") == "x"),
    Condition("tag", {"type": "ne", "key": "tag", "value": "x"}, lambda metadata: metadata.get("tag") != "x"),
    Condition(
        "deep.k",
        {"type": "not", "filter": {"type": "in", "key": "deep.k", "value": [1, 2]}},
        lambda metadata: metadata.get("deep") != {"k": 1},
    ),
)
conditions = st.sampled_from(CONDITIONS)


@dataclass
class Stored:
    """A document as it should be. content: what a change of makes a new text, not only new metadata."""

    title: str
    text: str
    metadata: Body
    version: int

    def value(self, doc_id: str) -> Body:
        """Return it as the API shows it."""
        shown = {"title": self.title, "text": self.text, "metadata": self.metadata, "version": self.version}
        return {"id": doc_id, **shown}


@dataclass
class Model:
    """A collection as it should be. operations: how many changes there were; each is the version of what it wrote."""

    documents: dict[str, Stored] = field(default_factory=dict)
    operations: int = 0

    def write(self, doc_id: str, body: Body) -> str:
        """Add or replace a document; return what that is called."""
        old = self.documents.get(doc_id)
        new = Stored(body.get("title", ""), body["text"], body.get("metadata", {}), self.operations + 1)
        if old is None:
            result = "added"
        elif (old.title, old.text) != (new.title, new.text):
            result = "updated"
        elif json.dumps(old.metadata) != json.dumps(new.metadata):
            result = "patched"
        else:
            return "unchanged"
        self.documents[doc_id] = new
        self.operations += 1
        return result

    def patch(self, doc_id: str, changed: Body) -> None:
        """Merge into a document's metadata."""
        stored = self.documents[doc_id]
        merged = {key: value for key, value in stored.metadata.items() if key not in changed}
        merged |= {key: value for key, value in changed.items() if value is not None}
        if merged != stored.metadata:
            self.operations += 1
            stored.metadata, stored.version = merged, self.operations

    def remove(self, doc_id: str) -> bool:
        """Delete a document; return whether it was there."""
        self.operations += doc_id in self.documents
        return self.documents.pop(doc_id, None) is not None

    def matching(self, condition: Condition | None) -> list[str]:
        """Return the ids of the documents for which a condition holds."""
        return sorted(
            doc_id for doc_id, each in self.documents.items() if condition is None or condition.holds(each.metadata)
        )

    def knows(self, condition: Condition) -> bool:
        """Say whether a document has the field that a condition reads now; of others the API may have forgotten."""
        return any(condition.key.partition(".")[0] in each.metadata for each in self.documents.values())


class CollectionApi(RuleBasedStateMachine):
    """Requests to the application, and the same done to dictionaries."""

    def __init__(self, until: Until) -> None:
        super().__init__()
        self.until = until
        self.models: dict[str, Model] = {}
        self.aliases: dict[str, str] = {}
        self.stack = ExitStack()

    @initialize()
    def start(self) -> None:
        folder = Path(tempfile.mkdtemp())
        self.stack.callback(shutil.rmtree, folder)
        config = ServerConfig(encoders={"default": HASHING}, rerankers={"similarity": RerankerConfig(encoder=HASHING)})
        service = Service(folder, config)
        self.stack.callback(service.close, 10.0)
        self.client = self.stack.enter_context(TestClient(create_app(service), base_url="http://localhost"))
        self.until(lambda: self.client.get("/health/ready").status_code == 200, "a service that is ready")
        self.create("one")
        self.add("one", {doc_id: {"text": word} for doc_id, word in zip(IDS, WORDS, strict=False)}, spoiled=False)

    def teardown(self) -> None:
        self.stack.close()

    # -- helpers

    def model(self, name: str) -> Model | None:
        return self.models.get(self.aliases.get(name, name))

    def ask(self, method: str, name: str, rest: str = "", **options: Any) -> Any:
        return self.client.request(method, f"/v1/collections/{name}{rest}", **options)

    def document(self, method: str, name: str, doc_id: str, **options: Any) -> Any:
        return self.ask(method, name, f"/documents/{quote(doc_id, safe='').replace('.', '%2E')}", **options)

    def accepted(self, answer: Any, model: Model | None, condition: Condition | None) -> bool:
        """Return whether a request with a filter was answered; check that it was not refused without a reason."""
        if model is None:
            assert answer.status_code == 404
            return False
        if answer.status_code == 422:
            assert condition is not None
            assert not model.knows(condition), answer.text
            return False
        assert answer.status_code == 200, answer.text
        return True

    # -- collections

    @rule(name=st.sampled_from(NAMES))
    def create(self, name: str) -> None:
        answer = self.client.post("/v1/collections", json={"name": name})
        assert answer.status_code == (409 if name in self.models else 201), answer.text
        self.models.setdefault(name, Model())

    @rule(name=st.sampled_from((*NAMES, *ALIASES)))
    def delete_collection(self, name: str) -> None:
        expected = 409 if name in self.aliases else 204 if name in self.models else 404
        assert self.ask("DELETE", name).status_code == expected
        if expected == 204:
            del self.models[name]
            self.aliases = {alias: target for alias, target in self.aliases.items() if target != name}

    @rule(alias=st.sampled_from((*ALIASES, "one")), name=st.sampled_from((*NAMES, "now")))
    def set_alias(self, alias: str, name: str) -> None:
        expected = 409 if alias in self.models else 200 if name in self.models else 404
        assert self.client.put(f"/v1/aliases/{alias}", json={"collection": name}).status_code == expected
        if expected == 200:
            self.aliases[alias] = name
            if alias in NAMES:  # an alias keeps a collection from getting its name: give it back
                self.delete_alias(alias)

    @rule(alias=st.sampled_from(ALIASES))
    def delete_alias(self, alias: str) -> None:
        answer = self.client.delete(f"/v1/aliases/{alias}")
        assert answer.status_code == (204 if self.aliases.pop(alias, None) else 404)

    @rule(name=names)
    def compact(self, name: str) -> None:
        answer = self.ask("POST", name, "/compact")
        if self.model(name) is None:
            assert answer.status_code == 404
            return
        path = f"/v1/jobs/{answer.json()['id']}"
        self.until(lambda: self.client.get(path).json()["state"] != "running", "a job's end")
        job = self.client.get(path).json()
        assert job["state"] == "done", job

    # -- writes

    @rule(
        name=names, doc_id=ids, body=documents, condition=st.sampled_from(["none", "absent", "present", "same", "old"])
    )
    def put(self, name: str, doc_id: str, body: Body, condition: str) -> None:
        model = self.model(name)
        old = None if model is None else model.documents.get(doc_id)
        version = old.version if old else 1
        headers = {
            "none": {},
            "absent": {"If-None-Match": "*"},
            "present": {"If-Match": "*"},
            "same": {"If-Match": f'"{version}"'},
            "old": {"If-Match": f'"{version + 1}"'},
        }[condition]
        answer = self.document("PUT", name, doc_id, json=body, headers=headers)
        if model is None:
            assert answer.status_code == 404
        elif (condition == "absent" and old) or (condition in {"present", "same"} and not old) or condition == "old":
            assert answer.status_code == 412, answer.text
        else:
            result = model.write(doc_id, body)
            version = model.documents[doc_id].version
            assert answer.status_code == (201 if result == "added" else 200)
            assert answer.json() == {"id": doc_id, "version": version, "result": result}
            assert answer.headers["etag"] == f'"{version}"'

    @rule(name=names, doc_id=ids, changed=changes, matching=st.sampled_from(["any", "same", "old"]))
    def patch(self, name: str, doc_id: str, changed: Body, matching: str) -> None:
        model = self.model(name)
        old = None if model is None else model.documents.get(doc_id)
        version = (old.version if old else 1) + (matching == "old")
        headers = {} if matching == "any" else {"If-Match": f'"{version}"'}
        answer = self.document("PATCH", name, doc_id, json={"metadata": changed}, headers=headers)
        if model is None or old is None:
            assert answer.status_code == 404
        elif matching == "old":
            assert answer.status_code == 412
        else:
            model.patch(doc_id, changed)
            assert answer.json() == model.documents[doc_id].value(doc_id)

    @rule(name=names, doc_id=ids)
    def delete(self, name: str, doc_id: str) -> None:
        model = self.model(name)
        there = model is not None and model.remove(doc_id)
        assert self.document("DELETE", name, doc_id).status_code == (204 if there else 404)

    @rule(name=names, batch=st.dictionaries(ids, documents, max_size=4), spoiled=st.booleans())
    def add(self, name: str, batch: dict[str, Body], spoiled: bool) -> None:
        sent = [{"id": doc_id, **body} for doc_id, body in batch.items()]
        if spoiled:
            sent.append({"id": "bad", "text": " "})
        answer = self.ask("POST", name, "/documents", json={"documents": sent})
        model = self.model(name)
        if model is None:
            assert answer.status_code == 404
        elif spoiled:
            assert answer.status_code == 422, "all or none"
        else:
            self.check_counts(answer.json(), [model.write(doc_id, body) for doc_id, body in batch.items()])

    @rule(
        name=names, lines=st.lists(st.tuples(ids, documents) | st.sampled_from(["", "{", '{"id": "bad"}']), max_size=6)
    )
    def bulk(self, name: str, lines: list[tuple[str, Body] | str]) -> None:
        sent = [line if isinstance(line, str) else json.dumps({"id": line[0], **line[1]}) for line in lines]
        headers = {"content-type": "application/x-ndjson"}
        answer = self.ask("POST", name, "/bulk", content="\n".join(sent), headers=headers)
        model = self.model(name)
        if model is None:
            assert answer.status_code == 404
            return
        report = answer.json()
        results = [model.write(*line) for line in lines if not isinstance(line, str)]
        bad = [number for number, line in enumerate(lines, start=1) if isinstance(line, str) and line]
        self.check_counts(report, results)
        assert report["failed"] == len(bad)
        assert sorted(error["line"] for error in report["errors"]) == bad

    @staticmethod
    def check_counts(report: Body, results: list[str]) -> None:
        counted = {key: report[key] for key in ("added", "updated", "patched", "unchanged")}
        assert counted == {key: results.count(key) for key in counted}

    @rule(name=names, chosen=st.lists(ids, max_size=3), condition=st.none() | conditions)
    def delete_many(self, name: str, chosen: list[str], condition: Condition | None) -> None:
        body = {"ids": chosen, "filter": None if condition is None else condition.json}
        answer = self.ask("POST", name, "/documents/delete", json=body)
        model = self.model(name)
        if not chosen and condition is None:
            assert answer.status_code == 422
        elif self.accepted(answer, model, condition):
            assert model is not None
            gone = dict.fromkeys([*chosen, *(model.matching(condition) if condition else ())])
            assert answer.json() == {"deleted": sum([model.remove(doc_id) for doc_id in gone])}

    # -- reads

    @rule(name=names, chosen=st.lists(ids, max_size=4))
    def get_many(self, name: str, chosen: list[str]) -> None:
        answer = self.ask("POST", name, "/documents/get", json={"ids": chosen})
        model = self.model(name)
        if model is None:
            assert answer.status_code == 404
            return
        expected = [model.documents[doc_id].value(doc_id) if doc_id in model.documents else None for doc_id in chosen]
        assert answer.json() == {"documents": expected}

    @rule(name=names, limit=st.integers(1, 5), condition=st.none() | conditions)
    def pages(self, name: str, limit: int, condition: Condition | None) -> None:
        model = self.model(name)
        seen: list[str] = []
        after: str | None = ""
        while after is not None:
            if condition is None:
                answer = self.ask("GET", name, "/documents", params={"limit": limit, "after": after})
            else:
                body = {"limit": limit, "after": after, "filter": condition.json}
                answer = self.ask("POST", name, "/documents/list", json=body)
            if not self.accepted(answer, model, condition):
                return
            page = answer.json()
            seen += [each["id"] for each in page["documents"]]
            after = page["next"]
        assert model is not None
        assert seen == model.matching(condition)

    @rule(name=names, word=st.sampled_from(WORDS), condition=st.none() | conditions)
    def search(self, name: str, word: str, condition: Condition | None) -> None:
        model = self.model(name)
        searches = [
            {"collection": name, "query": word, "mode": mode, "k": 50, "filter": condition and condition.json}
            for mode in ("dense", "lexical")
        ]
        single = self.ask("POST", name, "/search", json={k: v for k, v in searches[0].items() if k != "collection"})
        results = self.client.post("/v1/search", json={"searches": searches}).json()["results"]
        if not self.accepted(single, model, condition):
            assert all("problem" in result for result in results)
            return
        assert model is not None
        dense, lexical = ([hit["id"] for hit in result["hits"]] for result in results)
        assert [hit["id"] for hit in single.json()["hits"]] == dense
        allowed = model.matching(condition)
        assert sorted(dense) == allowed
        having = [
            doc_id for doc_id in allowed if word in f"{model.documents[doc_id].title} {model.documents[doc_id].text}"
        ]
        assert sorted(lexical) == having
        for result in results:
            for hit in result["hits"]:
                stored = model.documents[hit["id"]]
                shown = (hit["title"], hit["passage"]["text"], hit["metadata"])
                assert shown == (stored.title, stored.text, stored.metadata)

    # -- always

    @invariant()
    @precondition(lambda self: hasattr(self, "client"))
    def collections_are_those_there_should_be(self) -> None:
        listed = self.client.get("/v1/collections").json()["collections"]
        assert {each["name"]: each["documents"] for each in listed} == {
            name: len(model.documents) for name, model in self.models.items()
        }
        assert {each["name"]: each["operation"] for each in listed} == {
            name: model.operations for name, model in self.models.items()
        }
        assert self.client.get("/v1/aliases").json() == {"aliases": dict(sorted(self.aliases.items()))}


@pytest.mark.usefixtures("in_memory")
def test_any_sequence_of_requests_is_answered_as_by_dictionaries(
    run_machine: Callable[..., None], until: Until
) -> None:
    run_machine(lambda: CollectionApi(until), examples=12, steps=30)


@pytest.mark.slow
@pytest.mark.usefixtures("in_memory")
def test_any_sequence_of_requests_at_length(run_machine: Callable[..., None], until: Until) -> None:
    run_machine(lambda: CollectionApi(until), examples=300, steps=60)
