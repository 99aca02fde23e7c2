"""Utilities over row arrays equal the measures of evaluation.measures, which are ir-measures'."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluation.measures import per_query
from evaluation.utility import from_labels, from_qrels, reordered
from retrieval.types import Query

DOCUMENTS = 12
CUTS = (1, 3, 10, 20)
MEASURES = [f"{name}@{cut}" for name in ("nDCG", "AP", "RR", "R", "P", "Success") for cut in CUTS]
MEASURES += ["nDCG", "AP", "RR", "Rprec", "RP@1", "RP@3", "RP@20"]


class Judged:
    def __init__(self, qrels: dict[str, dict[str, int]]) -> None:
        self.doc_ids = tuple(f"d{row}" for row in range(DOCUMENTS))
        self.queries = tuple(Query(query, query) for query in qrels)
        self.qrels = qrels


@st.composite
def cases(draw: st.DrawFn) -> tuple[Judged, list[list[int]]]:
    queries = draw(st.integers(1, 4))
    grades = st.dictionaries(st.integers(0, DOCUMENTS - 1), st.integers(0, 3), max_size=DOCUMENTS)
    qrels = {f"q{number}": {f"d{row}": grade for row, grade in draw(grades).items()} for number in range(queries)}
    qrels["q0"]["d3"] = 2  # at least one positive
    order = st.permutations(range(DOCUMENTS))
    found = [draw(order)[: draw(st.integers(0, DOCUMENTS))] for _ in range(queries)]
    return Judged(qrels), found


def padded(found: list[list[int]]) -> np.ndarray:
    result = np.full((len(found), max(DOCUMENTS, *map(len, found))), -1, dtype=np.int64)
    for line, rows in zip(result, found, strict=True):
        line[: len(rows)] = rows
    return result


@pytest.mark.parametrize("measure", MEASURES)
@settings(max_examples=15, deadline=None)
@given(case=cases())
def test_values_are_those_of_the_measures(measure: str, case: tuple[Judged, list[list[int]]]) -> None:
    task, found = case
    run = {query.id: [f"d{row}" for row in rows] for query, rows in zip(task.queries, found, strict=True)}
    expected = per_query(measure, run, task.qrels)
    values = from_qrels(measure, task)(padded(found))
    assert values == pytest.approx([expected[query.id] for query in task.queries], abs=1e-12)


@pytest.mark.parametrize("measure", ["nDCG@3", "AP@10", "RP@3", "P@1"])
@settings(max_examples=30, deadline=None)
@given(case=cases(), holes=st.lists(st.tuples(st.integers(0, 20), st.booleans()), max_size=5))
def test_holes_and_repetitions_take_no_place(
    measure: str, case: tuple[Judged, list[list[int]]], holes: list[tuple[int, bool]]
) -> None:
    task, found = case
    utility = from_qrels(measure, task)
    torn = [list(rows) for rows in found]
    for rows in torn:
        for place, repeat in holes:
            rows.insert(place, rows[0] if repeat and rows and place else -1)
    assert utility(padded(torn)).tolist() == utility(padded(found)).tolist()


@pytest.mark.parametrize("measure", [*MEASURES, "Hit@3"])
@settings(max_examples=15, deadline=None)
@given(case=cases())
def test_the_ceiling_is_the_value_of_a_perfect_order_and_nothing_is_above(
    measure: str, case: tuple[Judged, list[list[int]]]
) -> None:
    task, found = case
    utility = from_qrels(measure, task)
    everything = np.tile(np.arange(DOCUMENTS), (len(found), 1))
    assert utility(reordered(utility, everything)) == pytest.approx(utility.ceiling, abs=1e-12)
    assert (utility(padded(found)) <= utility.ceiling + 1e-12).all()
    assert (utility(padded(found)) <= utility(reordered(utility, padded(found))) + 1e-12).all()


@settings(max_examples=50, deadline=None)
@given(st.data())
def test_votes_are_counted(data: st.DataObject) -> None:
    labels = np.array(data.draw(st.lists(st.integers(0, 3), min_size=1, max_size=15)), dtype=np.int64)
    wanted = data.draw(st.lists(st.sampled_from(sorted(set(labels.tolist()))), min_size=1, max_size=4))
    k = data.draw(st.integers(1, 20))
    found = [data.draw(st.permutations(range(len(labels)))) for _ in wanted]
    values = from_labels("knn-accuracy", labels, np.array(wanted, np.int64), k)(np.array(found, np.int64))
    for value, want, rows in zip(values, wanted, found, strict=True):
        ranked = [int(labels[row]) for row in rows[:k]]
        winner = max(ranked, key=lambda label: (ranked.count(label), -ranked.index(label)))
        assert value == float(winner == want)
