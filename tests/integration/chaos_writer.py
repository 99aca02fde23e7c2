"""Child of test_collection_kill.py: works on a collection until it is done or killed, and says so on stdout.

    chaos_writer.py SCENARIO FOLDER [--seed N] [--dim N] [--endless] [--trace]

Before an operation starts, {"begin": operation} is printed; after it returned, {"done": true}. A parent that kills
this process at any moment therefore knows what was acknowledged and which one operation was under way.
"""

import argparse
import json
import random
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import index.durable

WORDS = [f"w{number}" for number in range(40)]
EVERYWHERE = "anchor"
"""A word in every document, so that one query finds them all."""

KEEPER = "keeper"
"""A document that is never changed and has every metadata field, so that every filter is always allowed."""

Operation = dict[str, Any]


def say(**message: Any) -> None:
    print(json.dumps(message), flush=True)


def trace_failpoints() -> list[str]:
    """Record the names of all failpoints passed from now on. Must run before anything else of grapnel is imported."""
    passed: list[str] = []
    index.durable.failpoint = passed.append
    return passed


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


def random_operation(rng: random.Random, known: list[str], fresh: Iterator[str]) -> Operation:
    """One seeded operation; ids it names may be gone already, which must not matter."""

    def some_id() -> str:
        return rng.choice(known) if known and rng.random() < 0.6 else next(fresh)

    kind = rng.choices(["one", "batch", "delete", "delete matching", "patch"], [4, 4, 2, 1, 3])[0]
    match kind:
        case "one":
            return {"op": "add", "documents": [random_document(rng, some_id())]}
        case "batch":  # ids may repeat, which parts the batch into several transactions
            return {"op": "add", "documents": [random_document(rng, some_id()) for _ in range(rng.randint(2, 25))]}
        case "delete":
            return {"op": "delete", "ids": [some_id() for _ in range(rng.randint(1, 6))]}
        case "delete matching":
            return {"op": "delete matching", "group": rng.randrange(5), "among": [some_id() for _ in range(12)]}
        case _:
            changes = {"group": rng.randrange(5), "level": rng.choice([None, 0.25, 0.75])}
            return {"op": "patch", "id": rng.choice(known) if known else KEEPER, "changes": changes}


@contextmanager
def announced(operation: Operation) -> Iterator[None]:
    say(begin=operation)
    yield
    say(done=True)


class Writer:
    """Applies announced operations to an open collection."""

    def __init__(self, collection: Any, rng: random.Random) -> None:
        self.collection = collection
        self._rng = rng
        self._known = [doc_id for doc_id in (document.id for document in collection.documents()) if doc_id != KEEPER]
        self._fresh = (f"n{rng.getrandbits(40):010x}" for _ in iter(int, 1))

    def step(self) -> None:
        operation = random_operation(self._rng, self._known, self._fresh)
        with announced(operation):
            self._apply(operation)

    def _apply(self, operation: Operation) -> None:
        from index.errors import NotFoundError
        from retrieval.types import Document

        match operation["op"]:
            case "add":
                self.collection.add(Document(**value) for value in operation["documents"])
                self._known += [value["id"] for value in operation["documents"]]
            case "delete":
                self.collection.delete(operation["ids"])
            case "delete matching":
                chosen = {"type": "in", "key": "_id", "value": operation["among"]}
                group = {"type": "eq", "key": "group", "value": operation["group"]}
                self.collection.delete(filter={"type": "and", "filters": [chosen, group]})
            case "patch":
                try:
                    self.collection.patch(operation["id"], operation["changes"])
                except NotFoundError:
                    self._known.remove(operation["id"])

    def compact(self) -> None:
        with announced({"op": "compact"}):
            self.collection.compact()


def config_of(dim: int) -> Any:
    """Hashing encoder and tantivy: a real collection without a model."""
    from retrieval.collection_config import CollectionConfig, DenseField
    from retrieval.encoders import EncoderConfig
    from retrieval.lexical import LexicalConfig

    encoder = EncoderConfig(kind="hashing", dim=dim)
    return CollectionConfig(fields={"dense": DenseField(encoder), "lexical": LexicalConfig()})


def create(folder: Path, args: argparse.Namespace) -> None:
    """Create an empty collection, then write a little."""
    from retrieval.collection import Collection

    with announced({"op": "create"}):
        collection = Collection.create(folder, config_of(args.dim))
    with collection:
        writer = Writer(collection, random.Random(args.seed))
        for _ in range(2):
            writer.step()


def build(folder: Path, args: argparse.Namespace) -> None:
    """Build a collection for the first time."""
    from retrieval.collection import build as build_collection
    from retrieval.types import Document

    documents = first_documents(args.seed, args.count)
    with announced({"op": "build"}):
        build_collection(folder, (Document(**value) for value in documents), config_of(args.dim))


def write(folder: Path, args: argparse.Namespace) -> None:
    """Write to a collection that exists, compacting now and then; --endless: until killed, compacting in between."""
    import threading

    from retrieval.collection import Collection

    rng = random.Random(args.seed)
    with Collection.open(folder, writable=True) as collection:
        writer = Writer(collection, rng)
        say(ready=True)
        if args.endless:
            # A second thread compacts while this one writes. It announces nothing: compaction changes no document.
            threading.Thread(target=_compact_for_ever, args=(collection, rng.getrandbits(32)), daemon=True).start()
        steps = 0
        while args.endless or steps < 6:
            writer.step()
            steps += 1
            if not args.endless and steps % 3 == 0:
                writer.compact()


def _compact_for_ever(collection: Any, seed: int) -> None:
    import time

    rng = random.Random(seed)
    while True:
        time.sleep(rng.random() / 5)
        collection.compact()


def repair(folder: Path, args: argparse.Namespace) -> None:
    """Compact a collection whose files are damaged, then merge the shards of its vector store."""
    from retrieval.collection import Collection
    from retrieval.field_vectors import keys_array

    with Collection.open(folder, writable=True) as collection:
        with announced({"op": "compact"}):
            collection.compact()
        with announced({"op": "merge vectors"}):
            with collection.shard.store.snapshot() as snapshot:
                _, keys = snapshot.all_rows()
            assert len(keys) > 1
            store = collection.shard.vectors.store("dense", args.dim)
            half = len(keys) // 2
            store.append(keys_array([key.tobytes() for key in keys[:half]]), store.get(keys[:half])[1])
            store.compact(keys)


SCENARIOS: dict[str, Callable[[Path, argparse.Namespace], None]] = {
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
    parser.add_argument("--endless", action="store_true")
    parser.add_argument("--trace", action="store_true")
    args = parser.parse_args()
    passed = trace_failpoints() if args.trace else []
    SCENARIOS[args.scenario](args.folder, args)
    assert "torch" not in sys.modules, "a collection with the hashing encoder loaded torch"
    say(passed=passed)


if __name__ == "__main__":
    main()
