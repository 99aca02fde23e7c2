"""A labelled dataset in memory: documents, the queries that can be judged, their judgements; rows and runs of it.

The layout on disk is BEIR's: `corpus.jsonl` (`_id`, `title`, `text`), `queries.jsonl` (`_id`, `text`) and
`qrels/<split>.tsv` (`query-id`, `corpus-id`, `score`); the first two may end in .gz or .zst.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from evaluation.measures import Qrels, Run, check_grades
from evaluation.trec import read_qrels, read_queries
from index.errors import CorpusError, ShapeError
from index.types import Rows
from retrieval.sources.jsonl import beir_corpus, parse_object
from retrieval.sources.lines import COMPRESSIONS, file_lines
from retrieval.sources.records import document_from
from retrieval.types import Query

SPLITS = ("test", "dev", "validation", "train")
"""Splits in the order of preference where none is named."""

FAMILIES: Mapping[str, str] = {
    "squad-dev": "Wikipedia questions",
    "strategyqa-facts": "Wikipedia questions",
    "climate-fever": "Wikipedia questions",
    "scifact": "biomedical",
    "medquad": "biomedical",
    "pubmedqa": "biomedical",
    "esco-jobtitle": "work titles",
    "esco-skill": "work titles",
    "onet-title": "work titles",
    "tldr-pages": "commands and code",
    "conala": "commands and code",
    "cranfield": "abstracts",
    "scitldr": "abstracts",
}
"""Dataset -> family: what is left out together when something fitted is tested on data it did not see."""

_NAMED = 3


@dataclass(frozen=True)
class Task:
    """Documents, queries and judgements of one dataset; row i is the document doc_ids[i], query i is queries[i].

    Every query has a document of grade above 0 in qrels, qrels have no other queries, and name documents of the task
    only; so every measure is defined for every query. family: datasets of one kind. texts may be empty.
    """

    name: str
    family: str
    doc_ids: tuple[str, ...] = field(repr=False)
    texts: tuple[str, ...] = field(repr=False)
    titles: tuple[str, ...] = field(repr=False)
    queries: tuple[Query, ...] = field(repr=False)
    qrels: Qrels = field(repr=False)

    def __post_init__(self) -> None:
        """Check what the class promises. Raises CorpusError naming what breaks it."""
        if not len(self.doc_ids) == len(self.texts) == len(self.titles) == len(self.row_of):
            raise CorpusError(
                f"task {self.name!r} has {len(self.doc_ids):,} document ids ({len(self.row_of):,} different), "
                f"{len(self.texts):,} texts, {len(self.titles):,} titles: expected the same number of each"
            )
        unknown = sorted({doc_id for grades in self.qrels.values() for doc_id in grades} - self.row_of.keys())
        if unknown:
            raise CorpusError(
                f"the judgements of task {self.name!r} name {len(unknown):,} documents that its corpus does not hold: "
                f"{_some(unknown)}; are judgements and corpus of the same release?"
            )
        check_grades(self.qrels)
        ids = [query.id for query in self.queries]
        barren = [query for query in ids if not any(grade > 0 for grade in self.qrels.get(query, {}).values())]
        if not ids or barren or len(set(ids)) != len(ids) or self.qrels.keys() - set(ids):
            raise CorpusError(
                f"task {self.name!r} has {len(ids):,} queries, {len(barren):,} of them without a relevant document, "
                f"and judgements of {len(self.qrels):,}: expected at least one, each once and with a relevant document"
            )

    @cached_property
    def row_of(self) -> Mapping[str, int]:
        """Document id -> row."""
        return {doc_id: row for row, doc_id in enumerate(self.doc_ids)}

    def rows_of(self, run: Run) -> Rows:
        """Return a run as rows, int64 (Q, k), best first, k the longest ranking, shorter ones padded with -1.

        A query that the run does not have is a row of -1; queries of the run that the task does not have are left out.
        Raises CorpusError on a document that is not the task's, or that comes twice for one query.
        """
        rankings = [run.get(query.id, ()) for query in self.queries]
        rows = np.full((len(rankings), max(map(len, rankings))), -1, dtype=np.int64)
        for number, doc_ids in enumerate(rankings):
            if len(set(doc_ids)) != len(doc_ids):
                twice = next(doc_id for place, doc_id in enumerate(doc_ids) if doc_id in doc_ids[:place])
                raise CorpusError(
                    f"document {twice!r} comes twice for query {self.queries[number].id!r}: keep the best"
                )
            unknown = [doc_id for doc_id in doc_ids if doc_id not in self.row_of]
            if unknown:
                raise CorpusError(f"the run names documents that task {self.name!r} does not hold: {_some(unknown)}")
            rows[number, : len(doc_ids)] = [self.row_of[doc_id] for doc_id in doc_ids]
        return rows

    def run_of(self, rows: Rows) -> Run:
        """Return rows, int64 (Q, k), best first, as a run; -1 is skipped wherever it stands.

        Raises ShapeError on another shape or dtype, or on a row that is not one of the task's.
        """
        if rows.ndim != 2 or len(rows) != len(self.queries) or rows.dtype != np.int64:
            raise ShapeError(
                f"rows have shape {rows.shape} and dtype {rows.dtype}, expected int64 ({len(self.queries)}, k)"
            )
        if rows.size and not -1 <= rows.min() <= rows.max() < len(self.doc_ids):
            raise ShapeError(
                f"rows run from {rows.min()} to {rows.max()}, expected 0 to {len(self.doc_ids) - 1}, or -1 for nothing"
            )
        return {
            query.id: [self.doc_ids[row] for row in ranking if row >= 0]
            for query, ranking in zip(self.queries, rows.tolist(), strict=True)
        }


def _some(names: list[str]) -> str:
    return ", ".join(map(repr, names[:_NAMED])) + (", ..." if len(names) > _NAMED else "")


def read_task(folder: str | Path, split: str | None = None) -> Task:
    """Read a BEIR folder; its queries are those with a relevant document in the split, in the order of their file.

    split: name of a file in `qrels`; None takes the first there is of test, dev, validation, train. Blank documents
    stay: they are part of the corpus. Judgements of queries without any relevant document are left out.
    Raises CorpusError on anything broken or missing, on judgements that name documents or queries which are not there,
    and where no query has a relevant document; StorageError.
    """
    folder = Path(folder)
    corpus = beir_corpus(folder)
    if corpus is None:
        raise CorpusError(f"{folder} is not a BEIR folder: it has no corpus.jsonl")
    path = _qrels_path(folder, split)
    qrels = read_qrels(path)
    queries = {query.id: query for query in read_queries(_queries_path(folder))}
    unasked = sorted(qrels.keys() - queries.keys())
    if unasked:
        raise CorpusError(f"{path} judges {len(unasked):,} queries that have no text: {_some(unasked)}")
    judged = {query: grades for query, grades in qrels.items() if any(grade > 0 for grade in grades.values())}
    if not judged:
        raise CorpusError(f"{path}: none of its {len(qrels):,} queries has a relevant document (a grade above 0)")
    doc_ids, texts, titles = _documents(corpus)
    name = folder.resolve().name
    return Task(
        name=name,
        family=FAMILIES.get(name, name),
        doc_ids=doc_ids,
        texts=texts,
        titles=titles,
        queries=tuple(query for query in queries.values() if query.id in judged),
        qrels=judged,
    )


def _qrels_path(folder: Path, split: str | None) -> Path:
    there = sorted(path.stem for path in (folder / "qrels").glob("*.tsv"))
    chosen = split if split is not None else next((name for name in (*SPLITS, *there) if name in there), None)
    if chosen not in there:
        raise CorpusError(
            f"{folder} has no judgements qrels/{chosen or '<split>'}.tsv; splits there: {', '.join(there) or 'none'}"
        )
    return folder / "qrels" / f"{chosen}.tsv"


def _queries_path(folder: Path) -> Path:
    names = [f"queries.jsonl{suffix}" for suffix in ("", *COMPRESSIONS)]
    path = next((path for name in names if (path := folder / name).is_file()), None)
    if path is None:
        raise CorpusError(f"{folder} is not a BEIR folder: it has no queries.jsonl")
    return path


def _documents(path: Path) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    found: dict[str, tuple[str, str]] = {}
    for line in file_lines(path, path.name):
        if not line.text.strip():
            continue
        place = f"{path.name} line {line.number}"
        document = document_from(parse_object(line.text, place), place)
        if document.id in found:
            raise CorpusError(f"{place}: document id {document.id!r} is used twice")
        found[document.id] = (document.text, document.title)
    if not found:
        raise CorpusError(f"{path} holds no documents")
    return tuple(found), tuple(text for text, _ in found.values()), tuple(title for _, title in found.values())
