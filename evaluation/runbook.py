"""Runbooks: a collection that lives through inserts, deletes and replacements, measured after every step.

Each step's answers are compared with those of a collection built anew from what is there: with the same configuration
(what did living cost?) and with exact search (synthetic recall, computed afresh after every step: big-ann's harness
once kept the first step's). Operations as in big-ann-benchmarks' streaming track, and "compact".
"""

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from evaluation.statistics import Interval, bootstrap_interval
from evaluation.utility import Utility
from index.errors import RequestError
from index.types import Rows
from retrieval.collection import Collection, build
from retrieval.collection_config import CollectionConfig
from retrieval.pipeline_config import PipelineConfig
from retrieval.types import Document, Query, SearchRequest

Values = npt.NDArray[np.float64]

Operation: TypeAlias = Literal["insert", "delete", "replace", "search", "compact"]

_BATCH = 256


@dataclass(frozen=True, slots=True)
class Step:
    """One operation on rows [start, stop) of the pool of documents.

    source: "replace" gives the documents of [start, stop) the content of rows source, source + 1, ... and keeps their
    ids. "search" and "compact" take no rows. Raises RequestError on what makes no sense by itself.
    """

    operation: Operation
    start: int = 0
    stop: int = 0
    source: int | None = None

    def __post_init__(self) -> None:
        """Raise RequestError on what makes no sense by itself."""
        bare = self.operation in {"search", "compact"}
        if not (self.start == self.stop == 0 if bare else 0 <= self.start < self.stop):
            raise RequestError(f"step {self}: expected rows 0 <= start < stop, and none to search or compact")
        if (self.source is None) == (self.operation == "replace") or (self.source or 0) < 0:
            raise RequestError(f"step {self}: source, the first row of the new content, belongs to replace only")


@dataclass(frozen=True, slots=True, eq=False)
class StepResult:
    """What one step left. documents: how many are there.

    utility, rebuilt: per query, of the living collection and of one built anew; by the judgements of the whole pool, so
    that both fall while what is relevant is away. difference: mean of utility - rebuilt, with its interval.
    recall: per query, share of what exact search returns that the living collection returned.
    ghosts: ids returned that were deleted or never there; must be empty.
    """

    step: Step
    documents: int
    utility: Values = field(repr=False)
    rebuilt: Values = field(repr=False)
    recall: Values = field(repr=False)
    difference: float
    interval: Interval
    ghosts: tuple[str, ...]


@dataclass(frozen=True, slots=True, eq=False)
class RunbookTask:
    """What lives. documents: the pool; row = place. queries: as many as the utility judges, in its order.

    config: of the collections; pipeline: of all searches, None = the default. mode: of all searches.
    """

    documents: Sequence[Document]
    queries: Sequence[Query]
    utility: Utility
    config: CollectionConfig
    k: int = 10
    mode: str | None = None
    pipeline: PipelineConfig | None = None

    def __post_init__(self) -> None:
        """Raise RequestError where ids repeat or the queries are not those that are judged."""
        if len({document.id for document in self.documents}) < len(self.documents):
            raise RequestError(f"{len(self.documents)} documents share ids: expected each id once")
        if len(self.queries) != len(self.utility.ceiling) or self.k < 1:
            raise RequestError(
                f"{len(self.queries)} queries, k = {self.k}: expected {len(self.utility.ceiling)} as judged, and k >= 1"
            )


def churn(count: int, rounds: int, seed: int) -> list[Step]:
    """Return a runbook over a pool of `count` documents: half of it inserted, rounds of change, a search at the end.

    Each round deletes a run of what is there, inserts one of what never was, and replaces one by content that is not
    there; every second round compacts. Which runs is drawn with `seed`. Raises RequestError on fewer than 8 documents a
    round.
    """
    size = count // (4 * rounds + 4) if rounds > 0 else 0
    if size < 1:
        raise RequestError(f"{count} documents, {rounds} rounds: expected at least 1 round and 8 documents for each")
    rng = np.random.default_rng(seed)
    half = count // 2
    steps = [Step("insert", 0, half)]
    # Runs of the first half are deleted or replaced, each once; runs of the second are inserted or give content.
    old = iter((rng.permutation(half // size) * size).tolist())
    new = iter((half + rng.permutation((count - half) // size) * size).tolist())
    for number in range(rounds):
        gone, changed, come, content = next(old), next(old), next(new), next(new)
        steps += [
            Step("delete", gone, gone + size),
            Step("insert", come, come + size),
            Step("replace", changed, changed + size, content),
        ]
        if number % 2:
            steps.append(Step("compact"))
    return [*steps, Step("search")]


def run_runbook(task: RunbookTask, steps: Sequence[Step], *, seed: int) -> Iterator[StepResult]:
    """Carry out each step on a collection in a temporary folder and yield what it left.

    Raises RequestError on rows outside the pool, on inserting what is there, deleting or replacing what is not, and on
    replacing by content that is there (a document would count twice).
    Cost: a step searches three collections, two of them built anew: encoding dominates unless documents bring vectors.
    """
    with tempfile.TemporaryDirectory() as root, Collection.create(Path(root) / "living", task.config) as living:
        state = _State(task, living)
        for number, step in enumerate(steps):
            state.carry_out(step)
            yield _measured(state, step, Path(root) / f"step-{number}", seed + number)


class _State:
    """The living collection, and which row's content stands under which row's id: id row -> content row."""

    def __init__(self, task: RunbookTask, collection: Collection) -> None:
        self.task = task
        self.collection = collection
        self.content: dict[int, int] = {}

    def carry_out(self, step: Step) -> None:
        rows = range(step.start, step.stop)
        if step.stop > len(self.task.documents) or (step.source or 0) + len(rows) > len(self.task.documents):
            raise RequestError(f"{step}: the pool has {len(self.task.documents)} documents")
        if step.operation == "insert":
            self._insert(rows, step)
        elif step.operation == "delete":
            self._present(rows, step)
            self.collection.delete([self.task.documents[row].id for row in rows])
            for row in rows:
                del self.content[row]
        elif step.operation == "replace":
            self._replace(rows, step)
        elif step.operation == "compact":
            self.collection.compact()

    def _insert(self, rows: range, step: Step) -> None:
        contents = set(self.content.values())
        twice = [row for row in rows if row in self.content or row in contents]
        if twice:
            raise RequestError(f"{step}: row {twice[0]} is there already")
        self.collection.add(self.task.documents[row] for row in rows)
        self.content.update((row, row) for row in rows)

    def _replace(self, rows: range, step: Step) -> None:
        self._present(rows, step)
        assert step.source is not None, "Step requires a source"
        sources = range(step.source, step.source + len(rows))
        stays = {content for row, content in self.content.items() if row not in rows}
        twice = [source for source in sources if source in stays]
        if twice:
            raise RequestError(f"{step}: the content of row {twice[0]} is there already")
        self.content.update(zip(rows, sources, strict=True))
        self.collection.add(self.document(row) for row in rows)

    def _present(self, rows: range, step: Step) -> None:
        absent = [row for row in rows if row not in self.content]
        if absent:
            raise RequestError(f"{step}: row {absent[0]} is not there")

    def document(self, row: int) -> Document:
        return replace(self.task.documents[self.content[row]], id=self.task.documents[row].id)


def _measured(state: _State, step: Step, folder: Path, seed: int) -> StepResult:
    task = state.task
    contents = {task.documents[row].id: content for row, content in state.content.items()}
    lived, ghosts = _rows(state.collection, task, contents)
    rebuilt = _rebuilt(state, task.config, folder / "same", contents)
    exact_config = _exact(task.config)
    exact = rebuilt if exact_config == task.config else _rebuilt(state, exact_config, folder / "exact", contents)
    utility, reference = task.utility(lived), task.utility(rebuilt)
    return StepResult(
        step=step,
        documents=len(contents),
        utility=utility,
        rebuilt=reference,
        recall=_overlap(lived, exact),
        difference=float((utility - reference).mean()),
        interval=bootstrap_interval(utility - reference, seed=seed),
        ghosts=ghosts,
    )


def _exact(config: CollectionConfig) -> CollectionConfig:
    fields = dict(config.fields)
    fields.update((name, replace(dense, index="flat")) for name, dense in config.dense_fields().items())
    return replace(config, fields=fields)


def _rebuilt(state: _State, config: CollectionConfig, folder: Path, contents: dict[str, int]) -> Rows:
    if not contents:
        return np.full((len(state.task.queries), state.task.k), -1, dtype=np.int64)
    folder.parent.mkdir(exist_ok=True)
    build(folder, (state.document(row) for row in state.content), config)
    with Collection.open(folder) as collection:
        return _rows(collection, state.task, contents)[0]


def _rows(collection: Collection, task: RunbookTask, contents: dict[str, int]) -> tuple[Rows, tuple[str, ...]]:
    """Return the content rows of every query's answer, int64 (Q, k), and ids that must not have been in it."""
    rows = np.full((len(task.queries), task.k), -1, dtype=np.int64)
    ghosts: set[str] = set()
    for start in range(0, len(task.queries), _BATCH):
        requests = [SearchRequest(query, k=task.k) for query in task.queries[start : start + _BATCH]]
        rankings = collection.search_many(requests, mode=task.mode, config=task.pipeline)
        for place, ranking in enumerate(rankings, start):
            found = [hit.doc_id for hit in ranking.hits]
            ghosts.update(doc_id for doc_id in found if doc_id not in contents)
            rows[place, : len(found)] = [contents.get(doc_id, -1) for doc_id in found]
    return rows, tuple(sorted(ghosts))


def _overlap(found: Rows, exact: Rows) -> Values:
    """Return per query the share of the exact rows that were found; 1 where exact search finds nothing either."""
    there = exact >= 0
    hits = ((exact[:, :, None] == found[:, None, :]).any(axis=2) & there).sum(axis=1)
    return np.asarray(np.where(there.any(axis=1), hits / np.maximum(there.sum(axis=1), 1), 1.0), dtype=np.float64)
