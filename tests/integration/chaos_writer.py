"""Child of test_collection_kill.py: works on a collection until it is done or killed, and says so on stdout.

    chaos_writer.py SCENARIO FOLDER [--seed N] [--dim N] [--count N] [--resume] [--endless]

Before an operation starts, {"begin": operation} is printed; after it returned, {"done": true}. A parent that kills
this process at any moment therefore knows what was acknowledged and which one operation was under way.
"""

import argparse
import json
import random
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from index.errors import NotFoundError
from retrieval.collection import Collection
from retrieval.collection import build as build_collection
from retrieval.collection_config import CollectionConfig, DenseField
from retrieval.encoders import EncoderConfig
from retrieval.lexical import LexicalConfig
from retrieval.phrases import SubstringField
from retrieval.types import Document

WORDS = [f"w{number}" for number in range(40)]
EVERYWHERE = "anchor"
"""A word in every document, so that one query finds them all."""

KEEPER = "keeper"
"""A document that is never changed and has every metadata field, so that no filter names an unknown one."""

POOL = 120
"""Ids that writers choose new documents from: few, so that a collection that lives through many kills stays small."""

Operation = dict[str, Any]


def config_of(dim: int) -> CollectionConfig:
    """Hashing encoder, tantivy and phrases: a real collection without a model."""
    encoder = EncoderConfig(kind="hashing", dim=dim)
    return CollectionConfig(
        fields={"dense": DenseField(encoder), "lexical": LexicalConfig(), "phrases": SubstringField()}
    )


def random_document(rng: random.Random, doc_id: str) -> Operation:
    """At most 40 words, so that BM25's one-byte lengths are exact."""
    metadata: dict[str, Any] = {"group": rng.randrange(5), "tags": rng.sample(["red", "green", "blue"], 2)}
    if rng.random() < 0.5:
        metadata["level"] = round(rng.random(), 3)
    text = " ".join([EVERYWHERE, *rng.choices(WORDS, k=rng.randint(3, 30))])
    return {"id": doc_id, "title": rng.choice(["", rng.choice(WORDS)]), "text": text, "metadata": metadata}


def first_documents(seed: int, count: int) -> list[Operation]:
    """A corpus to build, in which one document comes twice: the later version counts."""
    rng = random.Random(seed)
    keeper = {"id": KEEPER, "title": "", "text": EVERYWHERE, "metadata": {"group": 0, "tags": ["red"], "level": 0.5}}
    return [keeper, *(random_document(rng, f"d{number % (count - 1)}") for number in range(count))]


def say(**message: Any) -> None:
    print(json.dumps(message), flush=True)


@contextmanager
def announced(operation: Operation) -> Iterator[None]:
    say(begin=operation)
    yield
    say(done=True)


class Writer:
    """Applies seeded, announced operations to an open collection."""

    def __init__(self, collection: Collection, seed: int) -> None:
        self.collection = collection
        self._rng = random.Random(seed)
        self._used = [document.id for document in collection.documents() if document.id != KEEPER]

    def step(self) -> None:
        operation = self._choose()
        with announced(operation):
            self._apply(operation)

    def compact(self) -> None:
        with announced({"op": "compact"}):
            self.collection.compact()

    def add(self, documents: list[Operation]) -> None:
        with announced({"op": "add", "documents": documents}):
            self._apply({"op": "add", "documents": documents})

    def _some_id(self) -> str:
        """Mostly one that was used before; it may be deleted by now, which must not matter."""
        if self._used and self._rng.random() < 0.6:
            return self._rng.choice(self._used)
        return f"n{self._rng.randrange(POOL)}"

    def _choose(self) -> Operation:
        rng = self._rng
        match rng.choices(["one", "batch", "delete", "delete matching", "patch"], [4, 4, 2, 1, 3])[0]:
            case "delete":
                return {"op": "delete", "ids": [self._some_id() for _ in range(rng.randint(1, 6))]}
            case "delete matching":
                among = [self._some_id() for _ in range(12)]
                return {"op": "delete matching", "group": rng.randrange(5), "among": among}
            case "patch" if self._used:
                changes = {"group": rng.randrange(5), "level": rng.choice([None, 0.25, 0.75])}
                return {"op": "patch", "id": rng.choice(self._used), "changes": changes}
            case "batch":  # ids may repeat, which parts the batch into several transactions
                count = rng.randint(2, 25)
            case _:
                count = 1
        return {"op": "add", "documents": [random_document(rng, self._some_id()) for _ in range(count)]}

    def _apply(self, operation: Operation) -> None:
        match operation["op"]:
            case "add":
                self.collection.add(Document(**value) for value in operation["documents"])
                self._used += [value["id"] for value in operation["documents"]]
            case "delete":
                self.collection.delete(operation["ids"])
            case "delete matching":
                among = {"type": "in", "key": "_id", "value": operation["among"]}
                group = {"type": "eq", "key": "group", "value": operation["group"]}
                self.collection.delete(filter={"type": "and", "filters": [among, group]})
            case "patch":
                try:
                    self.collection.patch(operation["id"], operation["changes"])
                except NotFoundError:
                    self._used = [doc_id for doc_id in self._used if doc_id != operation["id"]]


def create(args: argparse.Namespace) -> None:
    """Create an empty collection, then write a little."""
    with announced({"op": "create"}):
        collection = Collection.create(args.folder, config_of(args.dim))
    with collection:
        Writer(collection, args.seed).add(first_documents(args.seed, args.count))


def build(args: argparse.Namespace) -> None:
    """Build a collection, or go on with its build."""
    documents = [Document(**value) for value in first_documents(args.seed, args.count)]
    with announced({"op": "build"}):
        say(ready=True)
        build_collection(args.folder, documents, config_of(args.dim), resume=args.resume)


def write(args: argparse.Namespace) -> None:
    """Write to a collection that exists and compact now and then; --endless: at the same time, until killed."""
    with Collection.open(args.folder, writable=True) as collection:
        collection.set_pipeline(collection.pipeline)
        writer = Writer(collection, args.seed)
        if args.endless:
            threading.Thread(target=compact_for_ever, args=(collection, args.seed), daemon=True).start()
            say(ready=True)
        steps = 0
        while args.endless or steps < 6:
            writer.step()
            steps += 1
            if not args.endless and steps % 3 == 0:
                writer.compact()


def compact_for_ever(collection: Collection, seed: int) -> None:
    """Announces nothing: compaction changes no document."""
    rng = random.Random(seed)
    while True:
        time.sleep(rng.random() / 5)
        collection.compact()


def repair(args: argparse.Namespace) -> None:
    """Compact a collection whose files are damaged, then merge the shards of its vector store."""
    with Collection.open(args.folder, writable=True) as collection:
        with announced({"op": "compact"}):
            collection.compact()
        with collection.shard.store.snapshot() as snapshot:
            _, keys = snapshot.all_rows()
        store = collection.shard.vectors.store("dense", args.dim)
        half = keys[: len(keys) // 2]
        with announced({"op": "merge vectors"}):
            store.append(half, store.get(half)[1])
            store.compact(keys)


SCENARIOS: dict[str, Callable[[argparse.Namespace], None]] = {
    "create": create,
    "build": build,
    "write": write,
    "repair": repair,
}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("scenario", choices=SCENARIOS)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--dim", type=int, default=64)
    parser.add_argument("--count", type=int, default=30)
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--endless", action="store_true")
    args = parser.parse_args()
    SCENARIOS[args.scenario](args)
    assert "torch" not in sys.modules, "a collection with the hashing encoder loaded torch"


if __name__ == "__main__":
    main()
