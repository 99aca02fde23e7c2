"""Pieces of the report's HTML: every text that comes in is escaped."""

import re
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any, Final, NamedTuple, TypeAlias

Results: TypeAlias = Mapping[str, Any]
"""What a benchmark found, see evaluation.bench."""

Row: TypeAlias = Sequence[str | float | int | None]

_NUMERIC: Final = re.compile("[-+\u2212\u2013\\de.,\\[\\]\\s]*")
"""What a column of numbers holds."""


_WORDS: Final = 30
"""Letters of what need not break."""


class Part(NamedTuple):
    """A part of the page: what its link and heading say, and the HTML below; no HTML = nothing to show."""

    name: str
    title: str
    body: str


def figure(caption: str, svg: str) -> str:
    """Return a plot with its caption. svg: as evaluation.plots makes it."""
    return f"<figure><figcaption>{escape(caption)}</figcaption>{_scrolled(caption, svg)}</figure>"


def table(caption: str, heads: Sequence[str], rows: Iterable[Row]) -> str:
    """Return a table whose first column names its rows; columns that hold numbers are aligned at their ends."""
    made = [list(row) for row in rows]
    css = ["", *(f' class="{_kind([_cell(row[place]) for row in made])}"' for place in range(1, len(heads)))]
    head = "".join(f'<th scope="col"{kind}>{escape(name)}</th>' for name, kind in zip(heads, css, strict=True))
    body = ""
    for first, *others in made:
        cells = "".join(f"<td{kind}>{_cell(value)}</td>" for value, kind in zip(others, css[1:], strict=True))
        body += f'<tr><th scope="row">{_cell(first)}</th>{cells}</tr>'
    content = f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody>"
    return _scrolled(caption, f"<table><caption>{escape(caption)}</caption>{content}</table>")


def _scrolled(name: str, body: str) -> str:
    """Return HTML that keys can scroll where it is wider than the window."""
    return f'<div class="scroll" tabindex="0" role="group" aria-label="{escape(name)}">{body}</div>'


def _kind(cells: Sequence[str]) -> str:
    """Return the class of a column: numbers, words that stay on a line, or text that may break."""
    if all(map(_NUMERIC.fullmatch, cells)):
        return "number"
    return "words" if all(len(cell) <= _WORDS for cell in cells) else "text"


def _cell(value: str | float | None) -> str:
    if value is None:
        return "\u2013"
    if isinstance(value, str):
        return escape(value)
    return f"{value:,}" if isinstance(value, int) else f"{round(value, 4) + 0.0:.4f}"  # no -0.0000


def foldable(summary: str, body: str) -> str:
    """Return HTML that is folded away until a reader opens it; on paper it is open. body: HTML."""
    return f"<details><summary>{escape(summary)}</summary>{body}</details>"


def paragraph(text: str, css: str = "") -> str:
    """Return a paragraph. css: its class, ours."""
    return f'<p class="{css}">{escape(text)}</p>' if css else f"<p>{escape(text)}</p>"


def spread(number: Mapping[str, float | None]) -> str:
    """Return a number with its interval, where it has one: "0.3952 [0.3579, 0.4324]"."""
    # A narrow cell breaks before the bracket, not inside it.
    bounds = "" if number["low"] is None else f" [{_cell(number['low'])},\u00a0{_cell(number['high'])}]"
    return f"{_cell(number['mean'])}{bounds}"
