"""Hits: as text for people, as JSON values for programs."""

import json
from collections.abc import Mapping, Set
from typing import Any

from rich.console import RenderableType
from rich.padding import Padding
from rich.text import Text

from api.cli_output import one_line
from retrieval.snippets import Snippet, snippet
from retrieval.types import Hit, Ranking, SearchRequest

_INDENT = 5
_METADATA_CHARACTERS = 160


def score_text(score: float | None) -> str:
    """Return a score for people."""
    return "-" if score is None else f"{score:.4f}"


def hit_lines(rank: int, hit: Hit, forms: Set[str]) -> list[RenderableType]:
    """Return a hit for people: rank, score, id and title; the snippet with the matched words marked; the metadata."""
    head = Text.assemble((f"{rank:>3}  ", "dim"), (score_text(hit.score), "cyan"), "  ", (one_line(hit.doc_id), "bold"))
    if hit.passage.title and hit.passage.title != hit.doc_id:
        head.append(f"  {one_line(hit.passage.title)}")
    lines: list[RenderableType] = [head]
    shown = snippet(hit.passage.text, forms)
    if shown.end > shown.start:
        lines.append(Padding.indent(_snippet_text(hit.passage.text, shown), _INDENT))
    if hit.metadata:
        lines.append(Padding.indent(Text(_metadata(hit.metadata), style="dim"), _INDENT))
    return [*lines, Text()]


def _snippet_text(text: str, shown: Snippet) -> Text:
    result = Text("… " if shown.start else "")
    offset = len(result) - shown.start
    result.append(one_line(text[shown.start : shown.end]))
    for start, end in shown.highlights:
        result.stylize("bold yellow", start + offset, end + offset)
    result.append(" …" if shown.end < len(text.rstrip()) else "")
    return result


def _metadata(metadata: Mapping[str, Any]) -> str:
    pairs = (
        f"{key}: {value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)}"
        for key, value in metadata.items()
    )
    line = one_line("  ".join(pairs))
    return line if len(line) <= _METADATA_CHARACTERS else f"{line[:_METADATA_CHARACTERS]}…"


def ranking_value(request: SearchRequest, ranking: Ranking, forms: Set[str]) -> dict[str, Any]:
    """Return a ranking as JSON values. snippet: characters [start, end) of the passage's text, highlights within it.

    timings_ms: of the whole batch that the query was answered in.
    """
    return {
        "query_id": ranking.query_id,
        "query": request.query.text if request.like is None else None,
        "like": request.like,
        "hits": [_hit_value(rank, hit, forms) for rank, hit in enumerate(ranking.hits, start=request.offset + 1)],
        "notes": list(ranking.notes),
        "timings_ms": {stage: round(seconds * 1000, 3) for stage, seconds in ranking.timings_s.items()},
    }


def _hit_value(rank: int, hit: Hit, forms: Set[str]) -> dict[str, Any]:
    passage = hit.passage
    shown = snippet(passage.text, forms)
    return {
        "rank": rank,
        "doc_id": hit.doc_id,
        "title": passage.title,
        "score": hit.score,
        "stage": hit.stage,
        "passage": {"ordinal": passage.ordinal, "start": passage.start, "end": passage.end, "text": passage.text},
        "snippet": {"start": shown.start, "end": shown.end, "highlights": [list(span) for span in shown.highlights]},
        "metadata": dict(hit.metadata),
        "evidence": [{"stage": part.stage, "rank": part.rank, "score": part.score} for part in hit.evidence],
    }
