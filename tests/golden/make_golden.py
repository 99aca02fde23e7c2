"""Writes the golden files anew: run it only when a change of rankings or of the disk format is meant.

    python tests/golden/make_golden.py runs          after a meant change of ranking
    python tests/golden/make_golden.py collection    for a new format version: a new file, the old ones stay for ever

The collection is closed with operations that no generation covers yet, so that opening it replays a log.
"""

import sys
import tarfile
import tempfile
from pathlib import Path

from evaluation.trec import read_queries, write_run
from retrieval.collection import Collection, build
from retrieval.collection_config import CollectionConfig, parse_collection
from retrieval.sources import open_source
from retrieval.types import Document, SearchRequest

HERE = Path(__file__).parent
MODES = ("dense", "lexical", "hybrid")
VERSION = 1


def config() -> CollectionConfig:
    """A small model-free collection: its answers are the same on every machine."""
    return parse_collection({"encoder": {"kind": "hashing", "dim": 512}}, "golden")


def make(folder: Path) -> None:
    """Build the golden collection: a base, then an update, an addition, a deletion and a metadata patch on top."""
    documents = list(open_source(str(HERE / "corpus.jsonl")).documents())
    build(folder, documents, config())
    with Collection.open(folder, writable=True) as collection:
        collection.add([Document("knot-reef", "Never use it to join two ropes. It binds a bundle.", "Reef knot")])
        collection.add([Document("tide", "Boats at anchor swing with the tide.", "Tide", {"kind": "practice"})])
        collection.delete(["chain"])
        collection.patch("scope", {"ratio": 7})


def write_runs(collection: Collection, folder: Path) -> None:
    """Write the ten best of every golden query, one run per mode."""
    requests = [SearchRequest(query, k=10) for query in read_queries(HERE / "queries.jsonl")]
    for mode in MODES:
        write_run(folder / f"{mode}.run", collection.search_many(requests, mode=mode), "golden")


def main() -> None:
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "collection"
        make(folder)
        if sys.argv[1:] == ["runs"]:
            with Collection.open(folder) as collection:
                write_runs(collection, HERE)
        elif sys.argv[1:] == ["collection"]:
            with tarfile.open(HERE / f"collection-v{VERSION}.tar.gz", "x:gz") as archive:
                archive.add(folder, "collection")
        else:
            sys.exit("usage: make_golden.py runs|collection")


if __name__ == "__main__":
    main()
