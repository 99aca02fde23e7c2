"""What `grapnel bench` measures on: one task, cut to a tier's size, with the train split beside it."""

import json
from dataclasses import dataclass, field, replace
from functools import cached_property
from hashlib import blake2b
from pathlib import Path

import numpy as np

from evaluation.task import SPLITS, Task, read_task
from index.types import Rows
from retrieval.sources.validate import is_empty
from retrieval.types import Document, Query


@dataclass(frozen=True, slots=True)
class Limits:
    """The most that is measured on; a seeded sample of more. Documents that are judged always stay."""

    queries: int
    documents: int
    train_queries: int


@dataclass(frozen=True)
class BenchTask:
    """A task and what of its dataset it is. train: queries of the train split, with pairs int64 (P, 2) as in Training.

    notes: how the task differs from the whole dataset, for people.
    """

    task: Task
    split: str
    train: tuple[Query, ...] = field(repr=False)
    pairs: Rows = field(repr=False)
    notes: tuple[str, ...] = ()

    @cached_property
    def digest(self) -> str:
        """32 hex digits over everything that is measured on."""
        digest = blake2b(digest_size=16)
        parts = (
            *(list(each) for each in (self.task.doc_ids, self.task.titles, self.task.texts)),
            *([(query.id, query.text) for query in queries] for queries in (self.task.queries, self.train)),
            sorted((query, sorted(grades.items())) for query, grades in self.task.qrels.items()),
            self.pairs.tolist(),
        )
        for part in parts:
            digest.update(json.dumps(part, ensure_ascii=True).encode())
        return digest.hexdigest()

    def documents(self) -> list[Document]:
        """Return the documents as collections take them: blank ones, which these refuse, are left out."""
        task = self.task
        made = (Document(*each) for each in zip(task.doc_ids, task.texts, task.titles, strict=True))
        return [document for document in made if not is_empty(document)]


def read_bench_task(folder: Path, split: str | None, limits: Limits, seed: int) -> BenchTask:
    """Read a BEIR folder, and its train split where it has one that is not measured on. Raises as `read_task`."""
    there = sorted(path.stem for path in (folder / "qrels").glob("*.tsv"))
    chosen = split or next((name for name in (*SPLITS, *there) if name in there), None)
    whole = read_task(folder, chosen)
    rng = np.random.default_rng(seed)
    task, notes = _cut(whole, limits, rng)
    train: tuple[Query, ...] = ()
    pairs = np.empty((0, 2), dtype=np.int64)
    if chosen != "train" and "train" in there:
        train, pairs = _training(read_task(folder, "train"), task, limits.train_queries, rng)
    return BenchTask(task, chosen or "", train, pairs, notes)


def _cut(task: Task, limits: Limits, rng: np.random.Generator) -> tuple[Task, tuple[str, ...]]:
    notes = []
    queries, qrels = task.queries, task.qrels
    if len(queries) > limits.queries:
        notes.append(f"{limits.queries:,} of {len(queries):,} queries, a seeded sample")
        chosen = np.sort(rng.choice(len(queries), limits.queries, replace=False))
        queries = tuple(queries[place] for place in chosen)
        qrels = {query.id: qrels[query.id] for query in queries}
    rows = np.arange(len(task.doc_ids))
    if len(rows) > limits.documents:
        judged = {task.row_of[doc_id] for grades in qrels.values() for doc_id in grades}
        order = [*sorted(judged), *(row for row in rng.permutation(len(rows)).tolist() if row not in judged)]
        rows = np.sort(np.array(order[: max(limits.documents, len(judged))]))
        notes.append(f"{len(rows):,} of {len(task.doc_ids):,} documents, all that are judged among them")
    doc_ids, texts, titles = (
        tuple(column[row] for row in rows.tolist()) for column in (task.doc_ids, task.texts, task.titles)
    )
    cut = replace(task, doc_ids=doc_ids, texts=texts, titles=titles, queries=queries, qrels=qrels)
    return cut, tuple(notes)


def _training(train: Task, task: Task, most: int, rng: np.random.Generator) -> tuple[tuple[Query, ...], Rows]:
    """Return at most so many train queries that have a relevant document in the task, and their pairs."""
    order = rng.permutation(len(train.queries))[:most]
    relevant = {
        int(place): [
            task.row_of[doc_id]
            for doc_id, grade in train.qrels[train.queries[place].id].items()
            if grade > 0 and doc_id in task.row_of
        ]
        for place in np.sort(order)
    }
    places = [place for place, rows in relevant.items() if rows]
    pairs = [(number, row) for number, place in enumerate(places) for row in relevant[place]]
    return tuple(train.queries[place] for place in places), np.array(pairs, dtype=np.int64).reshape(-1, 2)
