"""KILT: retrieval of evidence that may take several pages, judged against whole provenance SETS, not single pages.

A line of a KILT file is one question: `id`, `input`, and `output`, a list of answers, each with a `provenance` list of
evidence, which names its page by `wikipedia_id`. The evidence of one answer is one set: all its pages are needed, and
any one set is enough. A file of predictions has the same form; the provenance of its one output is the ranking.

Definitions, per question (Petroni et al., NAACL 2021; the official script's):

    r_precision   for a set of R pages: how many of them are in the first R of the ranking / R; the best over the sets
    recall@k      each set is one item of the ranking, where its last page stands; complete sets in the first k / sets
    success@k     1 if a complete set is in the first k, otherwise 0

Beyond the script: the ranking's length is not required to suffice for k, a question that is not answered counts 0, and
answers without provenance are no sets (the script would count one that no ranking can find).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evaluation.measures import Run
from index.errors import CorpusError, RequestError
from retrieval.sources.jsonl import parse_object
from retrieval.sources.lines import file_lines
from retrieval.types import Query

PAGE_KEY = "wikipedia_id"


@dataclass(frozen=True, slots=True)
class Question:
    """A question and its gold provenance sets: page ids, no set empty, none twice, at least one."""

    query: Query
    sets: tuple[frozenset[str], ...]


def read_kilt(path: str | Path) -> list[Question]:
    """Read a gold file. Questions without any provenance (KILT has them) cannot be judged and are left out.

    Raises CorpusError naming the line on anything broken, on an id used twice, and where no question can be judged;
    StorageError.
    """
    path = Path(path)
    questions: dict[str, Question | None] = {}
    for place, identity, record in _records(path):
        if identity in questions:
            raise CorpusError(f"{place}: question id {identity!r} is used twice")
        text = record.get("input")
        if not isinstance(text, str) or not text.strip():
            raise CorpusError(f"{place}: expected 'input', the question's text; found {text!r}")
        sets = dict.fromkeys(frozenset(_pages(output, place)) for output in _outputs(record, place))
        sets.pop(frozenset(), None)
        questions[identity] = Question(Query(identity, text), tuple(sets)) if sets else None
    judged = [question for question in questions.values() if question is not None]
    if not judged:
        raise CorpusError(f"{path}: none of its {len(questions):,} questions has provenance with a {PAGE_KEY!r}")
    return judged


def read_kilt_run(path: str | Path) -> Run:
    """Read a file of predictions: question id -> page ids, best first, each where it comes first.

    Raises CorpusError naming the line on anything broken, on an id used twice, on more or less than one ranking.
    """
    path = Path(path)
    run: dict[str, list[str]] = {}
    for place, identity, record in _records(path):
        if identity in run:
            raise CorpusError(f"{place}: question id {identity!r} is used twice")
        rankings = [output for output in _outputs(record, place) if "provenance" in output]
        if len(rankings) != 1:
            raise CorpusError(f"{place}: {len(rankings)} outputs have provenance, expected one: the ranking")
        run[identity] = list(dict.fromkeys(_pages(rankings[0], place)))
    if not run:
        raise CorpusError(f"{path} holds no predictions")
    return run


def _records(path: Path) -> Iterable[tuple[str, str, dict[str, Any]]]:
    for line in file_lines(path, path.name):
        if not line.text.strip():
            continue
        place = f"{path.name} line {line.number}"
        record = parse_object(line.text, place)
        identity = record.get("id")
        if isinstance(identity, bool) or not isinstance(identity, str | int) or not str(identity).strip():
            raise CorpusError(f"{place}: expected 'id', a string; found {identity!r}")
        yield place, str(identity), record


def _outputs(record: Mapping[str, Any], place: str) -> list[Mapping[str, Any]]:
    outputs = record.get("output")
    if not isinstance(outputs, list) or not all(isinstance(output, dict) for output in outputs):
        raise CorpusError(f"{place}: expected 'output', a list of objects")
    return outputs


def _pages(output: Mapping[str, Any], place: str) -> list[str]:
    """Return the pages of one output's provenance; other evidence (without a page id) is not about pages."""
    provenance = output.get("provenance") or []
    if not isinstance(provenance, list) or not all(isinstance(evidence, dict) for evidence in provenance):
        raise CorpusError(f"{place}: 'provenance' is no list of objects")
    return [str(evidence[PAGE_KEY]).strip() for evidence in provenance if evidence.get(PAGE_KEY) is not None]


def r_precision(ranking: Sequence[str], sets: Iterable[frozenset[str]]) -> float:
    """Return the best share, over the sets, of a set's R pages among the first R different pages of the ranking."""
    pages = list(dict.fromkeys(ranking))
    return max(len(wanted.intersection(pages[: len(wanted)])) / len(wanted) for wanted in _given(sets))


def recall(ranking: Sequence[str], sets: Iterable[frozenset[str]], k: int) -> float:
    """Return the share of the sets that are complete within the first k items. Raises RequestError on k < 1."""
    wanted = _given(sets)
    return _completed(ranking, wanted, k) / len(wanted)


def success(ranking: Sequence[str], sets: Iterable[frozenset[str]], k: int) -> float:
    """Return 1.0 if any set is complete within the first k items, otherwise 0.0. Raises RequestError on k < 1."""
    return float(_completed(ranking, _given(sets), k) > 0)


def per_question(
    questions: Iterable[Question], run: Run, ks: Sequence[int] = (1, 5, 20)
) -> dict[str, dict[str, float]]:
    """Return measure ("Rprec", "recall@5", "success@5", ...) -> question id -> value, 0 for questions without ranking.

    Raises RequestError on k < 1.
    """
    values: dict[str, dict[str, float]] = {"Rprec": {}}
    for question in questions:
        identity, ranking = question.query.id, run.get(question.query.id, ())
        values["Rprec"][identity] = r_precision(ranking, question.sets)
        for k in ks:
            values.setdefault(f"recall@{k}", {})[identity] = recall(ranking, question.sets, k)
            values.setdefault(f"success@{k}", {})[identity] = success(ranking, question.sets, k)
    return values


def _given(sets: Iterable[frozenset[str]]) -> list[frozenset[str]]:
    wanted = list(dict.fromkeys(sets))
    if not wanted or not all(wanted):
        raise RequestError("a question needs at least one provenance set, and none that is empty, to be judged")
    return wanted


def _completed(ranking: Sequence[str], wanted: Sequence[frozenset[str]], k: int) -> int:
    """Return how many sets are complete within the first k items of the ranking with every set made one item.

    A page of several sets is an item of each; a set that is begun holds one place, that of its latest page.
    """
    if k < 1:
        raise RequestError(f"k is {k}, expected at least 1")
    missing = [set(pages) for pages in wanted]
    items: list[int | None] = []  # number of a set, or None: a page of no set
    for page in dict.fromkeys(ranking):
        touched = [number for number, pages in enumerate(missing) if page in pages]
        for number in touched:
            if number in items:
                items.remove(number)
            missing[number].remove(page)
            items.append(number)
        if not touched:
            items.append(None)
    return sum(number is not None and not missing[number] for number in items[:k])
