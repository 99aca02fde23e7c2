"""Retrievers on a LIMIT dataset: words, a bag of hashed words in one vector, a neural vector, and their fusion.

The hash baseline belongs beside every neural result: a single vector without any training, which shows how much of a
low score is the encoder's and not the dimension's.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from evaluation.limit import SPLIT
from evaluation.measures import Qrels, mean, per_query, run_of
from evaluation.task import read_task
from index.errors import RequestError
from retrieval.collection import SHARD, Collection, build
from retrieval.collection_config import FILE, CollectionConfig, DenseField, collection_table, read_collection_config
from retrieval.encoders import EncoderConfig
from retrieval.generation import CURRENT
from retrieval.lexical import LexicalConfig
from retrieval.pipeline_config import modes
from retrieval.progress import Progress, silent
from retrieval.sources import open_source
from retrieval.types import Query, SearchRequest

MEASURES = ("R@2", "R@10", "R@20", "R@100")
"""The first is LIMIT's main measure."""

_DEPTH = 100
_BATCH = 64


class Retriever(NamedTuple):
    """A kind of collection and how it is searched. config: its name in `CONFIGS`."""

    config: str
    mode: str


CONFIGS: Mapping[str, CollectionConfig] = {
    "words": CollectionConfig(fields={"lexical": LexicalConfig()}),
    "default": CollectionConfig(),
    "hash": CollectionConfig(fields={"dense": DenseField(EncoderConfig(kind="hashing", dim=4096), index="flat")}),
}

RETRIEVERS: Mapping[str, Retriever] = {
    "bm25": Retriever("words", "lexical"),
    "hash-4096": Retriever("hash", "dense"),
    "minilm": Retriever("default", "dense"),
    "hybrid": Retriever("default", "hybrid"),
}
"""What `grapnel limit run` compares unless told otherwise; "hybrid" is the default pipeline as it is."""


@dataclass(frozen=True, slots=True)
class Standing:
    """How a retriever does. values: by measure, mean over all queries. seconds: of all searches, encoding included."""

    values: Mapping[str, float]
    seconds: float


class Judged(NamedTuple):
    """A LIMIT folder's queries that have a relevant document, and their judgements."""

    queries: list[Query]
    qrels: Qrels


def read_judged(folder: str | Path) -> Judged:
    """Read the test split. Raises as `read_task`: its judgements name documents and queries that are there."""
    task = read_task(folder, SPLIT)
    return Judged(list(task.queries), task.qrels)


def compare(
    folder: str | Path, names: Sequence[str], work: Path, *, progress: Progress = silent
) -> dict[str, Standing]:
    """Return the standing of each of `names` in RETRIEVERS on the dataset in `folder`, in the order asked.

    work: folder for the collections that this needs; those that are there already are used again.
    Raises RequestError on an unknown name, CorpusError, StorageError, and as `opened`.
    Cost: encodes the corpus once for each encoder: for 50,000 documents about 15 minutes of a core for MiniLM.
    """
    unknown = [name for name in names if name not in RETRIEVERS]
    if unknown or not names:
        given = repr(unknown[0]) if unknown else "none"
        raise RequestError(f"retriever {given} is unknown; allowed: {', '.join(RETRIEVERS)}")
    judged = read_judged(folder)
    found: dict[str, Standing] = {}
    for config in dict.fromkeys(RETRIEVERS[name].config for name in names):
        with opened(folder, CONFIGS[config], work / config, progress=progress) as collection:
            for name in names:
                if RETRIEVERS[name].config == config:
                    found[name] = standing(collection, RETRIEVERS[name].mode, judged, progress=progress)
    return {name: found[name] for name in names}


def compare_modes(folder: str | Path, collection: Collection, *, progress: Progress = silent) -> dict[str, Standing]:
    """Return the standing of every mode of a collection that holds the dataset in `folder`. Raises as `compare`."""
    judged = read_judged(folder)
    names = modes(collection.pipeline, collection.config)
    return {mode: standing(collection, mode, judged, progress=progress) for mode in names}


@contextmanager
def opened(
    folder: str | Path, config: CollectionConfig, home: Path, *, progress: Progress = silent
) -> Iterator[Collection]:
    """Yield a collection of the dataset in `folder`, built at `home` unless it is there.

    Raises RequestError when `home` holds a collection of another configuration; whether it holds what is judged,
    `standing` looks. Errors of building as `retrieval.collection.build`.
    """
    if (home / SHARD / CURRENT).exists():
        if collection_table(read_collection_config(home / FILE)) != collection_table(config):
            raise RequestError(f"{home} holds a collection of another configuration: choose another folder")
    else:
        source = open_source(str(folder))
        build(home, source.documents(), config, resume=home.exists(), progress=progress, total=source.estimate)
    with Collection.open(home) as collection:
        yield collection


def standing(collection: Collection, mode: str, judged: Judged, *, progress: Progress = silent) -> Standing:
    """Search every query to depth 100 and return MEASURES.

    Raises RequestError on an unknown mode, and where the collection does not hold what is judged.
    """
    wanted = list(dict.fromkeys(doc_id for grades in judged.qrels.values() for doc_id in grades))
    missing = [doc_id for doc_id, found in zip(wanted, collection.stored(wanted), strict=True) if found is None]
    if missing:
        raise RequestError(
            f"{collection.folder} lacks {len(missing):,} of {len(wanted):,} judged documents, such as {missing[0]!r}: "
            "is it a collection of this dataset?"
        )
    begin = time.perf_counter()
    rankings = []
    for start in range(0, len(judged.queries), _BATCH):
        batch = [SearchRequest(query, k=_DEPTH) for query in judged.queries[start : start + _BATCH]]
        rankings += collection.search_many(batch, mode=mode)
        progress(f"search {mode}", len(rankings), len(judged.queries))
    seconds = time.perf_counter() - begin
    run = run_of(rankings)
    return Standing({name: mean(per_query(name, run, judged.qrels)) for name in MEASURES}, seconds)
