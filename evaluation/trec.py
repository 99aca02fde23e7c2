"""Runs, queries and judgements as files: TREC's run and qrels formats, BEIR's queries.jsonl and qrels TSV.

TREC files separate columns by white space, so ids are written with white space, control characters and `%` as percent
escapes (`Geneva Durben` becomes `Geneva%20Durben`) and read back the same way; other characters stay as they are.
The score column is -rank: sorted by it, whatever the tool's rule for ties and its float width, a run keeps our order.
"""

import math
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote, unquote

from evaluation.measures import Qrels, Run
from index.durable import replaced
from index.errors import CorpusError, RequestError
from retrieval.sources.jsonl import parse_object
from retrieval.sources.lines import Line, file_lines, kind_suffix
from retrieval.types import Query, Ranking

_ESCAPED = re.compile(r"[\s%\x00-\x1f\x7f-\x9f]")
_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)(e[+-]?\d+)?|[+-]?inf(inity)?|[+-]?nan", re.ASCII | re.IGNORECASE)
_INTEGER = re.compile(r"[+-]?\d{1,18}", re.ASCII)
"""Narrower than Python's own reading, which takes 1_0 for 10 and digits of every script."""

_BEIR_HEADER = ("query-id", "corpus-id", "score")


class RunSize(NamedTuple):
    """What a run file holds: queries answered with at least one hit, queries without any, lines."""

    answered: int
    unanswered: int
    hits: int


def escape_id(text: str) -> str:
    """Return an id as one TREC column; `unescape_id` gives it back."""
    return _ESCAPED.sub(lambda match: quote(match[0], safe=""), text)


def unescape_id(column: str) -> str:
    """Return the id that a TREC column stands for; a column whose escapes are not UTF-8 stands for itself."""
    try:
        return unquote(column, errors="strict")
    except UnicodeDecodeError:
        return column


def write_run(path: str | Path, rankings: Iterable[Ranking], tag: str) -> RunSize:
    """Write rankings as a TREC run, `qid Q0 docid rank score tag` with score = -rank; streams, and replaces atomically.

    A document that appears more than once in a ranking (passage grouping) keeps its best rank, as the format allows
    each document once. A query without hits has no line. Raises RequestError on a tag that is empty or holds white
    space, StorageError when the file system refuses; the old file is intact then.
    """
    path = Path(path)
    if not tag or _ESCAPED.search(tag):
        raise RequestError(f"run tag {tag!r}: expected one word without white space or '%'")
    answered = unanswered = hits = 0
    with replaced(path, point="run") as file:
        for ranking in rankings:
            lines = list(_run_lines(ranking, tag))
            file.write("".join(lines).encode())
            hits += len(lines)
            answered += bool(lines)
            unanswered += not lines
    return RunSize(answered, unanswered, hits)


def _run_lines(ranking: Ranking, tag: str) -> Iterator[str]:
    query_id = escape_id(ranking.query_id)
    for rank, doc_id in enumerate(dict.fromkeys(hit.doc_id for hit in ranking.hits), start=1):
        yield f"{query_id} Q0 {escape_id(doc_id)} {rank} {-rank} {tag}\n"


def read_run(path: str | Path) -> Run:
    """Read a TREC run of ours or another tool: query id -> document ids, best first.

    Order is trec_eval's: by score, equal scores by document id, both descending; scores are float64, where trec_eval
    rounds them to float32 and so may see ties. The rank column orders nothing, but one rank given twice means that
    the file is two runs, or broken. Raises CorpusError naming the line, StorageError.
    """
    path = Path(path)
    scores: dict[str, dict[str, float]] = {}
    ranks: dict[str, dict[str, str]] = {}
    for place, columns in _columns(path, 6, "qid Q0 docid rank score tag"):
        query_id, doc_id = unescape_id(columns[0]), unescape_id(columns[2])
        of_query = scores.setdefault(query_id, {})
        if doc_id in of_query:
            raise CorpusError(f"{place}: document {doc_id!r} is ranked twice for query {query_id!r}")
        holder = ranks.setdefault(query_id, {}).setdefault(columns[3], doc_id)
        if holder != doc_id:
            raise CorpusError(
                f"{place}: rank {columns[3]} of query {query_id!r} is given to {holder!r} and to {doc_id!r}: "
                "number the documents of a query 1, 2, 3, ..."
            )
        of_query[doc_id] = _number(columns[4], place)
    return {
        query_id: sorted(of_query, key=lambda doc_id: (of_query[doc_id], doc_id), reverse=True)
        for query_id, of_query in scores.items()
    }


def read_queries(path: str | Path) -> list[Query]:
    """Read queries: JSON Lines with `_id` and `text` (BEIR; .jsonl or .ndjson), otherwise TSV lines `id<TAB>text`.

    Either may end in .gz or .zst. Raises CorpusError naming the line on anything broken, empty or used twice, and when
    there is no query at all; StorageError.
    """
    path = Path(path)
    parse = _json_query if kind_suffix(path) in {".jsonl", ".ndjson"} else _tsv_query
    queries: dict[str, Query] = {}
    for place, line in _lines(path):
        query = parse(line.text, place)
        try:
            f"{query.id}{query.text}".encode()
        except UnicodeEncodeError as error:
            raise CorpusError(f"{place}: the query holds a lone surrogate, half of a character: repair it") from error
        if not query.id.strip() or not query.text.strip():
            raise CorpusError(f"{place}: the query's {'text' if query.id.strip() else 'id'} is empty")
        if query.id in queries:
            raise CorpusError(f"{place}: query id {query.id!r} is used twice")
        queries[query.id] = query
    if not queries:
        raise CorpusError(f"{path} holds no queries")
    return list(queries.values())


def _json_query(text: str, place: str) -> Query:
    value = parse_object(text, place)
    identity, words = value.get("_id", value.get("id")), value.get("text")
    if isinstance(identity, bool) or not isinstance(identity, str | int) or not isinstance(words, str):
        raise CorpusError(f"{place}: expected '_id' (a string) and 'text' (a string), found keys {sorted(value)[:10]}")
    return Query(str(identity), words)


def _tsv_query(text: str, place: str) -> Query:
    identity, tab, words = text.partition("\t")
    if not tab:
        raise CorpusError(f"{place}: no tab; expected id<TAB>text, or a file named .jsonl")
    return Query(identity, words)


def read_qrels(path: str | Path) -> Qrels:
    """Read judgements: BEIR TSV `query-id corpus-id score` (tabs, header or not) or TREC `qid iter docid grade`.

    Raises CorpusError naming the line on anything broken, on a pair judged twice with different grades, and when there
    is nothing; StorageError.
    """
    path = Path(path)
    qrels: dict[str, dict[str, int]] = {}
    for place, line in _lines(path):
        judged = _judgement(line, place)
        if judged is None:
            continue
        query_id, doc_id, grade = judged
        if not query_id.strip() or not doc_id.strip():
            raise CorpusError(f"{place}: the {'document' if query_id.strip() else 'query'}'s id is empty")
        known = qrels.setdefault(query_id, {}).setdefault(doc_id, grade)
        if known != grade:
            raise CorpusError(f"{place}: {doc_id!r} is judged {known} and {grade} for query {query_id!r}: keep one")
    if not qrels:
        raise CorpusError(f"{path} holds no judgements")
    return qrels


def _judgement(line: Line, place: str) -> tuple[str, str, int] | None:
    tabbed = line.text.split("\t")
    if len(tabbed) == 3:
        if line.number == 1 and tuple(tabbed) == _BEIR_HEADER:
            return None
        return tabbed[0], tabbed[1], _grade(tabbed[2], place)
    columns = line.text.split()
    if len(columns) != 4:
        raise CorpusError(
            f"{place}: expected 3 columns separated by tabs (query-id, corpus-id, score) or 4 by white space "
            f"(qid iter docid grade), found {len(columns)}"
        )
    return unescape_id(columns[0]), unescape_id(columns[2]), _grade(columns[3], place)


def _lines(path: Path) -> Iterator[tuple[str, Line]]:
    for line in file_lines(path, path.name):
        if line.text.strip():
            yield f"{path.name} line {line.number}", line


def _columns(path: Path, count: int, expected: str) -> Iterator[tuple[str, list[str]]]:
    for place, line in _lines(path):
        columns = line.text.split()
        if len(columns) != count:
            raise CorpusError(f"{place}: found {len(columns)} columns, expected {count}: {expected}")
        yield place, columns


def _number(text: str, place: str) -> float:
    if _NUMBER.fullmatch(text) is None:
        raise CorpusError(f"{place}: score {text!r} is not a number")
    value = float(text)
    if value != value:  # noqa: PLR0124  NaN: it has no place in an order
        raise CorpusError(f"{place}: score is NaN, which has no place in an order")
    if math.isinf(value) and "inf" not in text.lower():
        raise CorpusError(f"{place}: score {text!r} is more than a float64 holds: it would tie with others of its kind")
    return value


def _grade(text: str, place: str) -> int:
    if _INTEGER.fullmatch(text.strip()) is None:
        raise CorpusError(f"{place}: grade {text!r} is not an integer")
    return int(text)
