"""Pieces of the report's HTML: every text that comes in is escaped."""

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Final, NamedTuple, TypeAlias

Row: TypeAlias = Sequence[str | float | int | None]

INTERVAL: Final = ("mean", "low", "high")
"""Heads of what `triple` returns."""


class Part(NamedTuple):
    """A part of the page: what its link and heading say, and the HTML below; no HTML = nothing to show."""

    name: str
    title: str
    body: str


def figure(caption: str, svg: str) -> str:
    """Return a plot with its caption. svg: as evaluation.plots makes it."""
    return f"<figure><figcaption>{escape(caption)}</figcaption>{svg}</figure>"


def table(caption: str, heads: Sequence[str], rows: Iterable[Row]) -> str:
    """Return a table whose first column names its rows; columns that hold numbers are aligned at their ends."""
    made = [list(row) for row in rows]
    is_text = [any(isinstance(row[place], str) for row in made) for place in range(len(heads))]
    css = ["" if place == 0 or text else ' class="number"' for place, text in enumerate(is_text)]
    head = "".join(f'<th scope="col"{kind}>{escape(name)}</th>' for name, kind in zip(heads, css, strict=True))
    body = ""
    for first, *others in made:
        cells = "".join(f"<td{kind}>{_cell(value)}</td>" for value, kind in zip(others, css[1:], strict=True))
        body += f'<tr><th scope="row">{_cell(first)}</th>{cells}</tr>'
    return (
        f'<div class="scroll"><table><caption>{escape(caption)}</caption><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def _cell(value: str | float | None) -> str:
    if value is None:
        return "\u2013"
    if isinstance(value, str):
        return escape(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:.4f}"


def foldable(summary: str, body: str) -> str:
    """Return HTML that a reader may fold away. body: HTML."""
    return f"<details open><summary>{escape(summary)}</summary>{body}</details>"


def paragraph(text: str, css: str = "") -> str:
    """Return a paragraph. css: its class, ours."""
    return f'<p class="{css}">{escape(text)}</p>' if css else f"<p>{escape(text)}</p>"


def triple(number: Mapping[str, float]) -> list[float]:
    """Return mean, low and high of a number with its interval."""
    return [number["mean"], number["low"], number["high"]]
