"""LIMIT of any size: documents that list what a person likes, queries that ask who likes one thing.

The dataset is easy for words and hard for a single vector, because many different sets of documents must each be the
answer to some query. Source: Weller, Boratko, Naim & Lee, "On the Theoretical Limitations of Embedding-Based
Retrieval", arXiv 2508.21038 (construction, section 5); words and names are our own (evaluation.limit_words).
"""

import json
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import combinations, islice
from pathlib import Path
from random import Random
from typing import Literal, NamedTuple, TypeAlias, TypeVar, get_args

from evaluation.limit_words import NAMES, attributes, name, synonyms
from evaluation.measures import Qrels
from index.durable import make_folders, storage_errors
from index.errors import RequestError
from retrieval.types import Document, Query

Pattern: TypeAlias = Literal["dense", "random", "cycle", "disjoint"]
"""Which sets of documents are relevant together; see `relevant_sets`."""

SPLIT = "test"

_MOST_DOCUMENTS = NAMES // 2
"""Names are drawn until a new one comes: up to half of all, that is seldom more than two draws."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class LimitConfig:
    """What to generate. The defaults are those of LIMIT-small; with documents=50_000 those of LIMIT.

    queries: how many, each about an attribute of its own. documents: in all, those that no query wants included; None =
    as few as the pattern takes. k: relevant documents of a query. attributes: how many a document lists.
    synonyms: queries use another name of the attribute than documents do (there are fewer such attributes); documents,
    judgements and order are those of the same configuration without it. seed: decides names, words and order.
    Raises RequestError on a value that cannot work.
    """

    queries: int = 1_000
    documents: int | None = None
    pattern: Pattern = "dense"
    k: int = 2
    attributes: int = 45
    synonyms: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        if self.pattern not in get_args(Pattern):
            raise RequestError(f"pattern is {self.pattern!r}; allowed: {', '.join(get_args(Pattern))}")
        for field in ("queries", "documents", "k", "attributes"):
            value = getattr(self, field)
            if value is not None and value < 1:
                raise RequestError(f"{field} is {value}, expected at least 1")
        most = min(len(synonyms() if self.synonyms else attributes()), len(attributes()) - self.attributes)
        if self.queries > most:
            raise RequestError(
                f"queries is {self.queries:,}, expected at most {most:,}: there are {len(attributes()):,} attributes, "
                f"{len(synonyms())} of them with a synonym, and {self.attributes} are kept to fill documents with"
            )
        if self.pattern == "cycle" and self.queries <= self.k:
            raise RequestError(
                f"queries is {self.queries}, a cycle needs more than k = {self.k}: its sets would repeat"
            )
        if self.pattern == "random" and math.comb(self.document_count, self.k) < self.queries:
            raise RequestError(
                f"documents is {self.document_count}: it has fewer than {self.queries:,} different sets of {self.k}"
            )
        if not self.relevant_count <= self.document_count <= _MOST_DOCUMENTS:
            raise RequestError(
                f"documents is {self.document_count:,}, expected {self.relevant_count:,} (what the pattern "
                f"{self.pattern!r} takes) to {_MOST_DOCUMENTS:,} (as many names are there)"
            )

    @property
    def document_count(self) -> int:
        """How many documents there are in all."""
        return self.relevant_count if self.documents is None else self.documents

    @property
    def relevant_count(self) -> int:
        """How many documents the pattern may make relevant."""
        match self.pattern:
            case "dense":
                return next(n for n in range(self.k, self.k + self.queries) if math.comb(n, self.k) >= self.queries)
            case "random":
                return self.queries if self.documents is None else self.documents
            case "cycle":
                return self.queries
            case "disjoint":
                return self.k * self.queries


class LimitDataset(NamedTuple):
    """documents: in random order; ids are names. queries: `query_0` ... in the order of their sets. qrels: grade 1."""

    documents: tuple[Document, ...]
    queries: tuple[Query, ...]
    qrels: Qrels


def relevant_sets(config: LimitConfig) -> list[tuple[int, ...]]:
    """Return for each query the numbers of its k relevant documents, ascending.

    dense: the first sets in lexicographic order over the fewest documents that have enough of them, so that nearly
    every set of k is somebody's answer. The controls ask the same of far less crowded documents. random: different
    sets drawn from all documents. cycle: query i wants documents i ... i + k - 1, counted round. disjoint: its own k.
    """
    count, k = config.relevant_count, config.k
    match config.pattern:
        case "dense":
            return list(islice(combinations(range(count), k), config.queries))
        case "random":
            return _random_sets(_random(config, "sets"), count, k, config.queries)
        case "cycle":
            return [tuple(sorted((query + place) % count for place in range(k))) for query in range(config.queries)]
        case "disjoint":
            return [tuple(range(k * query, k * query + k)) for query in range(config.queries)]


def generate(config: LimitConfig) -> LimitDataset:
    """Return the dataset of a configuration, the same bytes on every machine.

    Relevant documents hold the attributes they are asked for and are filled up with attributes that no query asks for;
    the other documents hold only those. The relevant documents, queries and judgements of a pattern other than "random"
    do not depend on `documents`: a small set is part of the large one.
    Raises RequestError when a document is relevant to more queries than it has attributes.
    Cost: about 20 microseconds and 1 KB a document.
    """
    wanted, filler = _split_attributes(config)
    liked = _liked(config)
    names = _distinct(_random(config, "names"), NAMES)
    words = _random(config, "words")
    ids: list[str] = []
    documents: list[Document] = []
    for asked in liked:
        ids.append(name(next(names)))
        listed = [wanted[query] for query in asked] + _draw(words, filler, config.attributes - len(asked))
        documents.append(Document(ids[-1], _sentence(ids[-1], _draw(words, listed, len(listed)))))
    other = synonyms() if config.synonyms else {}
    return LimitDataset(
        documents=tuple(_draw(_random(config, "order"), documents, len(documents))),
        queries=tuple(
            Query(f"query_{number}", f"Who likes {other.get(attribute, attribute)}?")
            for number, attribute in enumerate(wanted)
        ),
        qrels={
            f"query_{number}": {ids[document]: 1 for document in chosen}
            for number, chosen in enumerate(relevant_sets(config))
        },
    )


def write(folder: str | Path, dataset: LimitDataset) -> None:
    """Write corpus.jsonl, queries.jsonl and qrels/test.tsv (BEIR) into a new or empty folder.

    Raises RequestError when something is in it, StorageError when the file system refuses.
    """
    folder = Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise RequestError(f"{folder} is not an empty folder: choose a new one")
    make_folders(folder / "qrels")
    corpus = ({"_id": document.id, "title": "", "text": document.text} for document in dataset.documents)
    _write_lines(folder / "corpus.jsonl", map(_json, corpus))
    _write_lines(folder / "queries.jsonl", (_json({"_id": query.id, "text": query.text}) for query in dataset.queries))
    judged = (f"{query}\t{document}\t{grade}" for query, of in dataset.qrels.items() for document, grade in of.items())
    _write_lines(folder / "qrels" / f"{SPLIT}.tsv", ("query-id\tcorpus-id\tscore", *judged))


def _random(config: LimitConfig, purpose: str) -> Random:
    """Return a generator for one purpose, so that more documents change nothing about the first ones.

    Only Random.random() and seeding by text are promised to give the same numbers in every version of Python.
    """
    return Random(f"limit {config.seed} {purpose}")  # noqa: S311  a dataset is no secret


def _split_attributes(config: LimitConfig) -> tuple[list[str], list[str]]:
    """Return the attribute of each query, those with another name first, and the attributes that no query asks for."""
    random = _random(config, "attributes")
    named, every = list(synonyms()), attributes()
    shuffled = _draw(random, named, len(named)) + _draw(random, list(every[len(named) :]), len(every) - len(named))
    return shuffled[: config.queries], shuffled[config.queries :]


def _liked(config: LimitConfig) -> list[list[int]]:
    """Return for each document the queries it is relevant to."""
    liked: list[list[int]] = [[] for _ in range(config.document_count)]
    for query, chosen in enumerate(relevant_sets(config)):
        for document in chosen:
            liked[document].append(query)
    most = max(map(len, liked))
    if most > config.attributes:
        raise RequestError(
            f"attributes is {config.attributes}, but with {config.queries:,} queries a document is relevant to {most}: "
            f"expected at least {most}, or fewer queries"
        )
    return liked


def _random_sets(random: Random, count: int, k: int, wanted: int) -> list[tuple[int, ...]]:
    found: dict[tuple[int, ...], None] = {}
    while len(found) < wanted:
        found[tuple(sorted(islice(_distinct(random, count), k)))] = None
    return list(found)


def _distinct(random: Random, below: int) -> Iterator[int]:
    """Yield different numbers in [0, below), each drawn from those that are left."""
    seen: set[int] = set()
    while len(seen) < below:
        number = int(random.random() * below)
        if number not in seen:
            seen.add(number)
            yield number


def _draw(random: Random, items: list[T], count: int) -> list[T]:
    """Return `count` of `items` without repetition in random order (Fisher & Yates); reorders `items`."""
    for place in range(count):
        other = place + int(random.random() * (len(items) - place))
        items[place], items[other] = items[other], items[place]
    return items[:count]


def _sentence(who: str, likes: list[str]) -> str:
    if len(likes) == 1:
        return f"{who} likes {likes[0]}."
    return f"{who} likes {', '.join(likes[:-1])} and {likes[-1]}."


def _json(value: dict[str, str]) -> str:
    return json.dumps(value, ensure_ascii=False)


def _write_lines(path: Path, lines: Iterable[str]) -> None:
    with storage_errors("write", path), path.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(f"{line}\n" for line in lines)
