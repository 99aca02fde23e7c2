"""Our tasks in mteb's runner, and mteb's retrieval tasks in ours; no hub is asked for anything that is here.

>>> import mteb
>>> from evaluation.mteb_models import PipelineSearch
>>> from evaluation.mteb_tasks import as_mteb_task, redirected, task_from_mteb
>>> from evaluation.task import read_task
>>> from retrieval.collection_config import CollectionConfig
>>> with PipelineSearch("hybrid", CollectionConfig()) as model:
...     ours = mteb.evaluate(model, as_mteb_task(read_task("cranfield")))
...     shipped = redirected(mteb.get_task("LIMITSmallRetrieval"), read_task("limit-small"))
...     theirs = mteb.evaluate(model, shipped, cache=None)
>>> task = task_from_mteb(mteb.get_task("SciFact"))  # loads as mteb does; then a Task like any other

Both runners agree to the 5 decimals that mteb rounds to: nDCG@k = ndcg_at_k, R@k = recall_at_k, P@k = precision_at_k,
AP@k = map_at_k, RR@k = mrr_at_k, Success@k = hit_rate_at_k. What they would not agree on is refused.
"""

import logging
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from evaluation.task import Task
from index.errors import CorpusError, MissingDependencyError, RequestError
from retrieval.config import digest_of
from retrieval.types import Document, Query

if TYPE_CHECKING:
    from datasets import Dataset
    from mteb import AbsTask, TaskMetadata
    from mteb.abstasks import AbsTaskRetrieval

_log = logging.getLogger(__name__)

SUBSET = "default"
"""What mteb calls the data of a task in one language."""


def mteb_library() -> Any:
    """Return the package `mteb`. Raises MissingDependencyError. Cost: its first import takes about 10 s."""
    try:
        import mteb  # noqa: PLC0415  an extra, and slow
    except ImportError as error:
        raise MissingDependencyError(f"mteb cannot be imported ({error}): install grapnel[mteb]") from error
    return mteb


def as_mteb_task(task: Task, *, split: str = "test", languages: Sequence[str] = ("eng-Latn",)) -> "AbsTaskRetrieval":
    """Return a task of ours as a retrieval task of mteb; its main score is nDCG@10.

    split: what mteb files the results under. languages: of the texts, ISO 639-3 and script. Its revision is a digest
    of everything in it, so that mteb's cache never takes results of other data for its own.
    Raises MissingDependencyError.
    """
    mteb = mteb_library()
    metadata = mteb.TaskMetadata(
        name=task.name,
        description=f"Task {task.name} ({task.family}) of grapnel, given to mteb by its user.",
        dataset=_source(task),
        type="Retrieval",
        category="t2t",
        eval_splits=[split],
        eval_langs=list(languages),
        main_score="ndcg_at_10",
    )
    return _offline(task, mteb.abstasks.AbsTaskRetrieval, metadata)


def redirected(shipped: "AbsTaskRetrieval", task: Task) -> "AbsTaskRetrieval":
    """Return a task that mteb ships, with its name, cutoffs and rules, on the data of `task` and not the hub's.

    Whether that is the same data is the caller's to know: the revision in results is that of `task`.
    Raises RequestError unless the shipped one is a retrieval task of one subset and one split
    (`mteb.get_task(..., eval_splits=["test"])`), MissingDependencyError.
    """
    _check_retrieval(shipped)
    split = _only("split", shipped, shipped.eval_splits, None)
    if shipped.metadata.is_multilingual:
        raise RequestError(
            f"task {shipped.metadata.name} has a subset for each language: only tasks of one can be given"
        )
    metadata = shipped.metadata.model_copy(update={"dataset": _source(task), "eval_splits": [split]})
    return _offline(task, type(shipped), metadata)


def _source(task: Task) -> dict[str, str]:
    """Return what mteb records of where data is from."""
    parts = [task.doc_ids, task.titles, task.texts, [(each.id, each.text) for each in task.queries], task.qrels]
    return {"path": task.name, "revision": digest_of(parts)}


def _offline(task: Task, base: type, metadata: "TaskMetadata") -> "AbsTaskRetrieval":
    """Return an instance of `base` that has its data from `task` whenever mteb loads it, again after unloading too."""

    def load_data(self: Any, **_options: Any) -> None:
        self.dataset = {SUBSET: {metadata.eval_splits[0]: _split_data(task)}}
        self.data_loaded = True

    made: Any = type(f"Offline{base.__name__}", (base,), {"metadata": metadata, "load_data": load_data})
    found: AbsTaskRetrieval = made()
    return found


def _split_data(task: Task) -> dict[str, Any]:
    from datasets import Dataset  # noqa: PLC0415  comes with mteb

    queries = {"id": [query.id for query in task.queries], "text": [query.text for query in task.queries]}
    corpus = {"id": list(task.doc_ids), "title": list(task.titles), "text": list(task.texts)}
    return {
        "corpus": Dataset.from_dict(corpus),
        "queries": Dataset.from_dict(queries),
        "relevant_docs": {query: dict(grades) for query, grades in task.qrels.items()},
        "top_ranked": None,
    }


def task_from_mteb(source: "AbsTask", *, subset: str | None = None, split: str | None = None) -> Task:
    """Return one subset and split of a retrieval task of mteb; loads its data unless that is there already.

    subset, split: None where there is only one. Judged queries without a relevant document are left out with a
    warning, for mteb counts 0 for them; queries never judged and judgements of queries never asked are, as by mteb.
    Raises RequestError where our runner would not measure what mteb's does: no retrieval task, candidates given
    beforehand, a first result or a query's own document that is to be skipped; CorpusError on data that is no text or
    not consistent, MissingDependencyError, and what mteb raises when it cannot load.
    """
    _check_retrieval(source)
    name = source.metadata.name
    subset = _only("subset", source, source.hf_subsets, subset)
    split = _only("split", source, source.eval_splits, split)
    if not source.data_loaded:
        source.load_data()
    source.convert_v1_dataset_format_to_v2(num_proc=None)
    data = source.dataset[subset][split]
    documents = list(documents_in(data["corpus"], name))
    asked = queries_in(data["queries"], name)
    _check_rules(source, data, {document.id for document in documents} & {query.id for query in asked})
    qrels = {
        query: grades for query, grades in data["relevant_docs"].items() if any(grade > 0 for grade in grades.values())
    }
    queries = tuple(query for query in asked if query.id in qrels)
    barren = sum(query.id in data["relevant_docs"] for query in asked) - len(queries)
    if barren:
        _log.warning("%s: %d queries without a relevant document are left out; mteb counts 0 for them", name, barren)
    return Task(
        name=name if subset == SUBSET else f"{name} {subset}",
        family=name,
        doc_ids=tuple(document.id for document in documents),
        texts=tuple(document.text for document in documents),
        titles=tuple(document.title for document in documents),
        queries=queries,
        qrels={query.id: {doc_id: int(grade) for doc_id, grade in qrels[query.id].items()} for query in queries},
    )


def documents_in(corpus: "Dataset", name: str) -> Iterator[Document]:
    """Yield the documents of a corpus as mteb holds it. name: the task's. Raises CorpusError where it has no texts."""
    _check_texts(corpus, name)
    for row in corpus:
        yield Document(str(row["id"]), row["text"] or "", row.get("title") or "")


def queries_in(queries: "Dataset", name: str) -> list[Query]:
    """Return queries as mteb holds them, an instruction put behind its query as mteb does it. Raises CorpusError."""
    _check_texts(queries, name)
    return [
        Query(str(row["id"]), f"{row['text']} {row['instruction']}" if row.get("instruction") else row["text"])
        for row in queries
    ]


def _check_texts(rows: "Dataset", name: str) -> None:
    kind = rows.features["text"] if "text" in rows.column_names else None
    if getattr(kind, "dtype", None) not in {"string", "large_string"}:
        columns = ", ".join(rows.column_names)
        raise CorpusError(f"task {name} has columns {columns}, text of type {kind}: expected a column text of strings")


def _check_retrieval(source: "AbsTask") -> None:
    if not isinstance(source, mteb_library().abstasks.AbsTaskRetrieval):
        raise RequestError(f"task {source.metadata.name} is of type {source.metadata.type}: expected a retrieval task")


def _check_rules(source: Any, data: Any, common_ids: set[str]) -> None:
    """Raise RequestError where mteb changes rankings before it measures them."""
    rules = {
        "ranks candidates that it gives": data["top_ranked"],
        "skips the first result": source.skip_first_result,
        f"skips documents that have a query's id ({len(common_ids):,} do)": source.ignore_identical_ids and common_ids,
    }
    for rule, applies in rules.items():
        if applies:
            raise RequestError(f"task {source.metadata.name} {rule}, which our runner does not: evaluate it with mteb")


def _only(what: str, source: "AbsTask", there: Sequence[str], chosen: str | None) -> str:
    """Return the chosen subset or split, or the only one. Raises RequestError."""
    if chosen is None and len(there) == 1:
        return there[0]
    if chosen is None or chosen not in there:
        known = ", ".join(there)
        raise RequestError(f"task {source.metadata.name}: {what} is {chosen!r}, expected one of {known}")
    return chosen
