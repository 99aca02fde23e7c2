"""Phrases while documents are written, deleted and compacted, by threads and processes; a build that is interrupted.

As a program, `test_collection_phrases.py FOLDER` answers the questions on stdin about a collection, a line each.
"""

import json
import random
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from retrieval.collection import SHARD, Collection
from retrieval.collection_config import CollectionConfig
from retrieval.phrases import SubstringField
from retrieval.phrases.covered import MOST_SHOWN
from retrieval.phrases.grep import grep
from retrieval.phrases.ngrams import ngrams
from retrieval.types import Document
from retrieval.verify import verify

COMPACTIONS = 15
VERSIONS = 20_000
FIELDS = ("phrases", "packed")


class Question(NamedTuple):
    field: str
    asked: str


QUESTIONS = [Question(field, asked) for field in FIELDS for asked in ("grep", "ngrams")]


class Answer(NamedTuple):
    """Which versions of documents were found, and how many others the answer says it does not cover."""

    versions: frozenset[int]
    uncovered: int


def answered(collection: Collection, question: Question) -> Answer:
    """Every document is "anchor v<version>", and no version is given twice."""
    field, asked = question
    if asked == "grep":
        found = grep(collection, "anchor", field=field, limit=MOST_SHOWN)
        texts, notes = [match.snippet for match in found.matches], found.notes
        assert found.count == found.documents == len(texts)
        assert all(match.doc_id == doc_id_of(int(match.snippet[8:])) for match in found.matches)
    else:
        counted = ngrams(collection, "anchor", field=field, limit=MOST_SHOWN)
        texts, notes = [each.text for each in counted.continuations], counted.notes
        assert counted.count == len(texts)
        assert all(each.count == 1 for each in counted.continuations)
    versions = frozenset(int(text.removeprefix("anchor v")) for text in texts)
    assert len(versions) == len(texts)
    said = [int(number) for note in notes for number in re.findall(r"^fresh_not_covered=(\d+):", note)]
    return Answer(versions, sum(said))


def doc_id_of(version: int) -> str:
    return f"d{version % 15}"


class History:
    """What one writer made of an empty collection: the versions that are stored after each of its transactions."""

    def __init__(self, collection: Collection) -> None:
        self._collection = collection
        self._rng = random.Random(5)
        self._version = 0
        self.states = [frozenset[int]()]
        self.acknowledged = 0

    def write(self) -> None:
        """Replace or delete some documents in one transaction."""
        stored = {doc_id_of(version): version for version in self.states[-1]}
        if stored and self._rng.random() < 0.3:
            gone = self._rng.sample(sorted(stored), min(len(stored), 3))
            self._begin({doc_id: version for doc_id, version in stored.items() if doc_id not in gone})
            self._collection.delete(gone)
        else:
            first = self._version + 1
            self._version += self._rng.randint(1, 5)
            new = range(first, self._version + 1)
            self._begin(stored | {doc_id_of(version): version for version in new})
            self._collection.add([Document(doc_id_of(version), f"anchor v{version}") for version in new])
        self.acknowledged = len(self.states) - 1

    def _begin(self, stored: dict[str, int]) -> None:
        self.states.append(frozenset(stored.values()))

    def check(self, ask: Callable[[], Answer]) -> None:
        """An answer is of one moment while it was asked for: what the base of then had, less what was gone."""
        earliest = self.acknowledged
        answer = ask()
        for moment in range(earliest, len(self.states)):
            now = self.states[moment]
            if any(answer == Answer(base & now, len(now - base)) for base in reversed(self.states[: moment + 1])):
                return
        known = self.states[earliest:]
        pytest.fail(f"{sorted(answer.versions)} with {answer.uncovered} uncovered; possible were parts of {known}")


class Process:
    """This file as a program."""

    def __init__(self, folder: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def ask(self, question: Question) -> Answer:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(question) + "\n")
        self._process.stdin.flush()
        versions, uncovered = json.loads(self._process.stdout.readline())
        return Answer(frozenset(versions), uncovered)

    def __enter__(self) -> "Process":
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()
        assert self._process.returncode == 0


@pytest.fixture
def config(tmp_path: Path, hashing_config: Callable[..., CollectionConfig]) -> CollectionConfig:
    """Fields of phrases of both forms, whose tokens are words, beside dense and lexical ones."""
    words = ["[UNK]", "anchor", *(f"v{version}" for version in range(VERSIONS))]
    tokenizer = Tokenizer(models.WordLevel({word: place for place, word in enumerate(words)}, "[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    (tmp_path / "tokenizer").mkdir()
    tokenizer.save(str(tmp_path / "tokenizer" / "tokenizer.json"))
    path = str(tmp_path / "tokenizer")
    plain = hashing_config()
    fields = {"phrases": SubstringField(path), "packed": SubstringField(path, "compact")}
    return replace(plain, fields={**plain.fields, **fields})


def test_every_answer_is_of_one_moment_while_others_write_and_compact(
    memory_path: Path, config: CollectionConfig
) -> None:
    """Readers: two threads that share the writer's collection, two that share another, and two processes."""
    folder = memory_path / "collection"
    stop = threading.Event()
    with ExitStack() as stack:
        collection = stack.enter_context(Collection.create(folder, config))
        history = History(collection)
        other = stack.enter_context(Collection.open(folder))
        processes = [stack.enter_context(Process(folder)) for _ in range(2)]

        def write() -> None:
            while not stop.wait(0.003):  # so that others have their turn
                history.write()

        def read(ask: Callable[[Question], Answer]) -> int:
            asked = 0
            while not stop.is_set() or asked < len(QUESTIONS):
                question = QUESTIONS[asked % len(QUESTIONS)]
                history.check(lambda question=question: ask(question))  # type: ignore[misc]
                asked += 1
            return asked

        def here(opened: Collection) -> Callable[[Question], Answer]:
            return lambda question: answered(opened, question)

        pool = stack.enter_context(ThreadPoolExecutor(7))
        asks = [here(collection), here(collection), here(other), here(other), *(each.ask for each in processes)]
        try:
            readers = [pool.submit(read, ask) for ask in asks]
            writer = pool.submit(write)
            for _ in range(COMPACTIONS):
                collection.compact()
        finally:
            stop.set()
        writer.result()
        assert all(reader.result() >= len(QUESTIONS) for reader in readers)
        assert len(history.states) > COMPACTIONS
        collection.compact()
        for question in QUESTIONS:
            for ask in asks:
                assert ask(question) == Answer(history.states[-1], 0)
    assert verify(folder) == []


@pytest.mark.usefixtures("interruptible")
def test_a_compaction_that_is_interrupted_leaves_everything_as_it_was(tmp_path: Path, config: CollectionConfig) -> None:
    """Ctrl-C while the tokens are taken in or sorted."""
    folder = tmp_path / "collection"
    fields = {name: field for name, field in config.fields.items() if name != "dense"}
    rng = random.Random(6)
    more = [
        Document(f"more{number}", " ".join(["anchor", *(f"v{rng.randrange(VERSIONS)}" for _ in range(1_000))]))
        for number in range(1_000)
    ]
    with Collection.create(folder, replace(config, fields=fields)) as collection:
        collection.add([Document("d1", "anchor v1")])
        collection.compact()
        collection.add(more)
    components = folder / SHARD / "components"
    process = subprocess.Popen(
        [sys.executable, "-m", "api.cli", "compact", str(folder)],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    while not any(components.glob(".substring-packed-*.tmp")):
        assert process.poll() is None, process.communicate()
        time.sleep(0.001)
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=60)
    assert (process.returncode, stdout) == (130, "")
    assert stderr.splitlines()[-1] == "error: interrupted"
    assert "Traceback" not in stderr
    assert not list(folder.rglob(".*")), "a half-written component was left behind"
    assert verify(folder) == []
    with Collection.open(folder) as collection:
        for question in QUESTIONS:
            assert answered(collection, question) == Answer(frozenset([1]), len(more))
    with Collection.open(folder, writable=True) as collection:
        assert set(FIELDS) <= set(collection.compact().built)
        assert grep(collection, "anchor", field="packed", limit=0).documents == 1 + len(more)
    assert verify(folder) == []


def main() -> None:
    with Collection.open(sys.argv[1]) as collection:
        for line in sys.stdin:
            versions, uncovered = answered(collection, Question(*json.loads(line)))
            print(json.dumps([sorted(versions), uncovered]), flush=True)


if __name__ == "__main__":
    main()
