"""`grapnel grep` and `grapnel ngrams`: exact phrases and n-grams of tokens."""

from argparse import Namespace
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from api.cli_filter import filter_argument
from api.cli_output import Output, one_line
from api.cli_target import open_target
from api.phrases import PhraseSpec

_INDENT = 5


def grep_phrase(args: Namespace, output: Output) -> int:
    """Find every place of a phrase; exit status 0 where there is none, too."""
    with open_target(args) as target:
        found = target.grep(_spec(args, args.phrase))
    head = f"places: {found['count']:,}, documents: {found['documents']:,}, tokens: {_spelled(found['tokens'])}\n"
    lines = [line for match in found["matches"] for line in _match_lines(match)]
    more = [Text(f"{hidden:,} more: --limit shows them")] if (hidden := found["count"] - len(found["matches"])) else []
    output.answer(found, Text(head, style="bold"), *lines, *more, *_notes(found["notes"]))
    return 0


def _spec(args: Namespace, text: str) -> PhraseSpec:
    return PhraseSpec(text, args.limit, {"field": args.field, "filter": filter_argument(args.filter)})


def _match_lines(match: Mapping[str, Any]) -> list[RenderableType]:
    start, end, snippet = match["start"], match["end"], match["snippet"]
    head = Text.assemble((one_line(match["doc_id"]), "bold"), f"  {match['part']} {start:,}-{end:,}")
    shown = Text(one_line(snippet["text"]))
    shown.stylize("bold yellow", start - snippet["start"], end - snippet["start"])
    return [head, Padding.indent(shown, _INDENT), Text()]


def ngrams_after(args: Namespace, output: Output) -> int:
    """Count an n-gram and its continuations; exit status 0 where it does not occur, too."""
    with open_target(args) as target:
        counted = target.ngrams(_spec(args, args.ngram))
    head = Text(f"places: {counted['count']:,}, tokens: {_spelled(counted['tokens'])}\n", style="bold")
    output.answer(counted, head, *_notes(counted["notes"]), _continuations(counted))
    return 0


def _continuations(counted: Mapping[str, Any]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("count", justify="right")
    table.add_column("probability", justify="right")
    table.add_column("token")
    table.add_column("text", overflow="fold")
    for each in counted["continuations"]:
        shown = one_line(each["token"]), one_line(each["text"])
        table.add_row(f"{each['count']:,}", f"{each['probability']:.4f}", *shown)
    used = counted["used"]
    if used["ends"]:
        table.add_row(f"{used['ends']:,}", f"{used['ends'] / used['count']:.4f}", "", "(a title or text ends)")
    return table


def _spelled(tokens: Sequence[str]) -> str:
    return one_line(" | ".join(tokens))


def _notes(notes: Sequence[str]) -> list[Text]:
    return [Text(f"note: {one_line(note)}", style="yellow") for note in notes]
