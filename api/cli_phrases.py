"""`grapnel grep` and `grapnel ngrams`: exact phrases and n-grams of tokens."""

from argparse import Namespace
from collections.abc import Sequence
from typing import Any

from rich.console import RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from api.cli_output import Output, one_line
from retrieval.collection import Collection
from retrieval.phrases.grep import Match, grep
from retrieval.phrases.ngrams import Counted, ngrams

_INDENT = 5


def grep_phrase(args: Namespace, output: Output) -> int:
    """Find every place of a phrase; exit status 0 where there is none, too."""
    with Collection.open(args.dir) as collection:
        found = grep(collection, args.phrase, field=args.field, limit=args.limit)
    value = {
        "phrase": args.phrase,
        "field": found.field,
        "tokens": list(found.tokens),
        "count": found.count,
        "documents": found.documents,
        "matches": [_match_value(match) for match in found.matches],
        "notes": list(found.notes),
    }
    head = f"{found.count:,} times in {found.documents:,} documents, as tokens {_spelled(found.tokens)}\n"
    lines = [line for match in found.matches for line in _match_lines(match)]
    more = [Text(f"{hidden:,} more: --limit shows them")] if (hidden := found.count - len(found.matches)) else []
    output.answer(value, Text(head, style="bold"), *lines, *more, *_notes(found.notes))
    return 0


def _match_value(match: Match) -> dict[str, Any]:
    return {
        "doc_id": match.doc_id,
        "title": match.title,
        "part": match.part,
        "start": match.start,
        "end": match.end,
        "snippet": {"text": match.snippet, "start": match.snippet_start},
    }


def _match_lines(match: Match) -> list[RenderableType]:
    head = Text.assemble((one_line(match.doc_id), "bold"), f"  {match.part} {match.start:,}-{match.end:,}")
    shown = Text(one_line(match.snippet))
    shown.stylize("bold yellow", match.start - match.snippet_start, match.end - match.snippet_start)
    return [head, Padding.indent(shown, _INDENT), Text()]


def ngrams_after(args: Namespace, output: Output) -> int:
    """Count an n-gram and its continuations; exit status 0 where it does not occur, too."""
    with Collection.open(args.dir) as collection:
        counted = ngrams(collection, args.ngram, field=args.field, limit=args.limit)
    value = {
        "ngram": args.ngram,
        "field": counted.field,
        "tokens": list(counted.tokens),
        "count": counted.count,
        "used": {"tokens": list(counted.used), "count": counted.used_count, "ends": counted.ends},
        "distinct": counted.distinct,
        "continuations": [
            {
                "token": each.token,
                "id": each.id,
                "count": each.count,
                "probability": each.probability,
                "text": each.text,
            }
            for each in counted.continuations
        ],
        "notes": list(counted.notes),
    }
    head = Text(f"{counted.count:,} times, as tokens {_spelled(counted.tokens)}\n", style="bold")
    output.answer(value, head, *_notes(counted.notes), _continuations(counted))
    return 0


def _continuations(counted: Counted) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("count", justify="right")
    table.add_column("probability", justify="right")
    table.add_column("token")
    table.add_column("text", overflow="fold")
    for each in counted.continuations:
        table.add_row(f"{each.count:,}", f"{each.probability:.4f}", one_line(each.token), one_line(each.text))
    if counted.ends:
        table.add_row(f"{counted.ends:,}", f"{counted.ends / counted.used_count:.4f}", "", "(a title or text ends)")
    return table


def _spelled(tokens: Sequence[str]) -> str:
    return one_line(" | ".join(tokens))


def _notes(notes: Sequence[str]) -> list[Text]:
    return [Text(f"note: {one_line(note)}", style="yellow") for note in notes]
