"""Small plots as inline SVG: no script, no file, colours from the page's custom properties, a title and description.

Whoever cannot see a plot finds its numbers in a table beside it. All text is escaped here. Custom properties that a
page must define: --ink, --soft, --line, --paper, --loss, --gain, --total, --s0 ... --s5.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Literal, NamedTuple

from evaluation.plots_svg import (
    BROAD,
    SERIES,
    WIDTH,
    Scale,
    cut,
    grid,
    grid_y,
    label_width,
    legend,
    level_legend,
    level_x,
    padded,
    svg,
    symbol,
    text,
    whisker,
)
from index.errors import RequestError


class Bar(NamedTuple):
    """One bar of a waterfall. A loss lowers what is left by `mean`, a gain raises it, a total starts from 0."""

    label: str
    kind: Literal["total", "loss", "gain"]
    mean: float
    low: float
    high: float


class Span(NamedTuple):
    """A mean with its interval, in a list of such. series: 0 to 5, its colour and symbol."""

    label: str
    mean: float
    low: float
    high: float
    series: int = 0


@dataclass(frozen=True, slots=True)
class Mark:
    """A point of a scatter plot. low, high: interval of y. joined: part of the line that joins such points."""

    series: str
    label: str
    x: float
    y: float
    low: float
    high: float
    joined: bool = False


@dataclass(frozen=True, slots=True)
class Axis:
    """What an axis shows. log: base 10, all values above 0. level: where a line goes across, and what it is called."""

    label: str
    log: bool = False
    level: tuple[float, str] | None = None


@dataclass(frozen=True, slots=True)
class Cell:
    """A cell of a heat map. label: its setting. ratio: what is left of what it is compared with; None = undefined.

    sure: whether the difference is more than chance.
    """

    label: str
    text: str
    ratio: float | None
    sure: bool


def waterfall(title: str, bars: Sequence[Bar], measure: str) -> str:
    """Return a waterfall: one bar below the other, each from what was left to what is left.

    Beside a bar stands what it changes, with its interval: a loss as a negative number. Raises RequestError on none.
    """
    if not bars:
        raise RequestError("a waterfall needs at least one bar")
    left, right, step, top = label_width([bar.label for bar in bars]), 175, 30, 8
    reached, starts = 0.0, []
    for bar in bars:
        starts.append((0.0, bar.mean) if bar.kind == "total" else (reached, reached + _signed(bar)))
        reached = starts[-1][1]
    ends = [value for pair in starts for value in pair] + [bar.high for bar in bars if bar.kind == "total"]
    scale = Scale(min(0.0, *ends), max(*ends, 1e-9), left, WIDTH - right)
    height = top + step * len(bars) + 34
    parts = [grid(scale, top, top + step * len(bars), measure)]
    for place, (bar, (start, end)) in enumerate(zip(bars, starts, strict=True)):
        y = top + place * step
        x, width = min(scale(start), scale(end)), abs(scale(end) - scale(start))
        low, high = (bar.low, bar.high) if bar.kind == "total" else _reach(start, bar)
        parts.append(text(left - 10, y + 19, bar.label, "end"))
        parts.append(
            f'<rect class="{bar.kind}" x="{x:.1f}" y="{y + 6}" width="{max(width, 1):.1f}" height="16" rx="2">'
            f"<title>{escape(f'{bar.label} {bar.mean:.4f}, {bar.low:.4f} to {bar.high:.4f}')}</title></rect>"
        )
        parts.append(whisker(scale, low, high, y + 14))
        if place + 1 < len(bars) and bars[place + 1].kind != "total":
            parts.append(f'<path class="join" d="M{scale(end):.1f} {y + 22}v{step - 16}"/>')
        sign = "" if bar.kind == "total" else "+"
        shown = (-bar.mean, -bar.high, -bar.low) if bar.kind == "loss" else (bar.mean, bar.low, bar.high)
        mean, least, most = (_shown(value, sign) for value in shown)
        parts.append(text(WIDTH - right + 12, y + 19, mean, css="value"))
        parts.append(text(WIDTH - right + 70, y + 19, f"[{least}, {most}]", css="soft"))
    return svg(title, f"{len(bars)} steps from the ceiling to what is found", height, parts)


def _signed(bar: Bar) -> float:
    return bar.mean if bar.kind == "gain" else -bar.mean


def _shown(value: float, sign: str = "") -> str:
    """Return a number with three digits and a true minus; sign "+": with the sign of what is more than 0."""
    text = f"{value:{sign}.3f}"
    return f"{0:.3f}" if float(text) == 0 else text.replace("-", "\u2212")


def _reach(start: float, bar: Bar) -> tuple[float, float]:
    return (start + bar.low, start + bar.high) if bar.kind == "gain" else (start - bar.high, start - bar.low)


def spans(title: str, rows: Sequence[Span], measure: str, level: tuple[float, str] | None = None) -> str:
    """Return means with intervals, one a line, on one axis. level: a line across them all, and its name."""
    if not rows:
        raise RequestError("no rows to draw")
    left, right, step, top = label_width([row.label for row in rows]), 175, 26, 8 if level is None else 24
    values = [value for row in rows for value in (row.low, row.high)] + ([] if level is None else [level[0]])
    scale = Scale(*padded(min(values), max(values)), left, WIDTH - right)
    bottom = top + step * len(rows)
    parts = [grid(scale, top, bottom, measure)]
    if level is not None:
        parts.append(level_x(scale(level[0]), top, bottom, level[1]))
    for place, row in enumerate(rows):
        y = top + place * step + 13
        said = f"{row.label} {row.mean:.4f}, {row.low:.4f} to {row.high:.4f}"
        parts.append(text(left - 10, y + 5, row.label, "end"))
        parts.append(whisker(scale, row.low, row.high, y))
        parts.append(symbol(row.series, scale(row.mean), y, said))
        parts.append(text(WIDTH - right + 12, y + 5, f"{row.mean:.3f}", css="value"))
        parts.append(text(WIDTH - right + 70, y + 5, f"[{row.low:.3f}, {row.high:.3f}]", css="soft"))
    return svg(title, f"{len(rows)} means with 95 % intervals", bottom + 34, parts)


def scatter(title: str, marks: Sequence[Mark], x: Axis, y: Axis) -> str:
    """Return points with vertical intervals; those that are `joined` are joined from left to right."""
    if not marks:
        raise RequestError("no points to draw")
    names = list(dict.fromkeys(mark.series for mark in marks))
    if len(names) > SERIES:
        raise RequestError(f"{len(names)} series, at most {SERIES} can be told apart")
    left, right, top, bottom = 62, 18, 40, 330
    across = [mark.x for mark in marks] + ([] if x.level is None else [x.level[0]])
    up = [value for mark in marks for value in (mark.low, mark.high)] + ([] if y.level is None else [y.level[0]])
    if x.log and min(across) <= 0:
        raise RequestError(f"{x.label}: {min(across)} has no place on a logarithmic axis")
    place_x = Scale(*padded(min(across), max(across), log=x.log), left, WIDTH - right, log=x.log)
    place_y = Scale(*padded(min(up), max(up)), bottom, top)
    parts = [legend(names, left), grid(place_x, top, bottom, x.label)]
    parts.append(grid_y(place_y, left, WIDTH - right, y.label))
    if y.level is not None:
        at = place_y(y.level[0])
        parts.append(f'<path class="level" d="M{left} {at:.1f}H{WIDTH - right}"/>')
        parts.append(level_legend(y.level[1], WIDTH - right))
    line = sorted(((mark.x, mark.y) for mark in marks if mark.joined), key=lambda point: point[0])
    if len(line) > 1:
        path = "L".join(f"{place_x(at):.1f} {place_y(value):.1f}" for at, value in line)
        parts.append(f'<path class="front" d="M{path}"/>')
    for mark in marks:
        at = place_x(mark.x)
        said = f"{mark.label}: {x.label} {mark.x:.4g}, {y.label} {mark.y:.4f}, {mark.low:.4f} to {mark.high:.4f}"
        parts.append(f'<path class="whisker faint" d="M{at:.1f} {place_y(mark.low):.1f}V{place_y(mark.high):.1f}"/>')
        parts.append(symbol(names.index(mark.series), at, place_y(mark.y), said))
    return svg(title, f"{len(marks)} points of {', '.join(names)}", bottom + 40, parts)


def histogram(title: str, labels: Sequence[str], series: Mapping[str, Sequence[float]], x: str, y: str) -> str:
    """Return grouped bars: for each label one bar of each series. Raises RequestError on unlike lengths."""
    if not labels or not series or any(len(values) != len(labels) for values in series.values()):
        lengths = [len(values) for values in series.values()]
        raise RequestError(f"{len(labels)} labels, {lengths} values: expected as many, and at least one")
    if len(series) > SERIES:
        raise RequestError(f"{len(series)} series, at most {SERIES} can be told apart")
    left, right, top, bottom = 62, 18, 40, 270
    most = max(max(values) for values in series.values()) or 1
    place_y = Scale(0, most, bottom, top)
    slot = (BROAD - left - right) / len(labels)
    width = slot * 0.8 / len(series)
    parts = [legend(list(series), left), grid_y(place_y, left, BROAD - right, y)]
    for place, label in enumerate(labels):
        start = left + place * slot + slot * 0.1
        for number, (name, values) in enumerate(series.items()):
            at = place_y(values[place])
            parts.append(
                f'<rect class="s{number}" x="{start + number * width:.1f}" y="{at:.1f}" width="{width * 0.9:.1f}" '
                f'height="{bottom - at:.1f}"><title>{escape(f"{name}, {label}: {values[place]:g}")}</title></rect>'
            )
        parts.append(text(start + slot * 0.4, bottom + 16, label, "middle", css="soft"))
    parts.append(text((left + BROAD - right) / 2, bottom + 34, x, "middle", css="soft"))
    return svg(title, f"{len(labels)} classes of {', '.join(series)}", bottom + 42, parts, broad=True)


def heat_map(title: str, rows: Mapping[str, Sequence[Cell]]) -> str:
    """Return a row of cells for each name, coloured by what is lost (ratio below 1) or gained, bold where sure."""
    if not rows or not all(rows.values()):
        raise RequestError("a heat map needs rows, and cells in each")
    left, step, top = label_width(list(rows)), 42, 4
    width = (BROAD - left) / max(len(cells) for cells in rows.values())
    parts = []
    for place, (name, cells) in enumerate(rows.items()):
        y = top + place * step
        parts.append(text(left - 10, y + 24, name, "end"))
        for number, cell in enumerate(cells):
            x = left + number * width
            change = 0.0 if cell.ratio is None else cell.ratio - 1
            css, share = ("loss", -change) if change < 0 else ("gain", change)
            style = f"fill:color-mix(in oklab,var(--{css}) {min(60, round(120 * min(share, 0.5)))}%,var(--paper))"
            parts.append(
                f'<rect class="cell" style="{style}" x="{x:.1f}" y="{y}" width="{width - 3:.1f}" height="{step - 4}" '
                f'rx="3"><title>{escape(f"{name}, {cell.label}: {cell.text}")}</title></rect>'
            )
            parts.append(text(x + (width - 3) / 2, y + 14, cut(cell.label, width), "middle", css="small"))
            parts.append(text(x + (width - 3) / 2, y + 31, cell.text, "middle", css="value" if cell.sure else ""))
    said = f"{len(rows)} rows, each cell a setting and what it changes"
    return svg(title, said, top + step * len(rows), parts, broad=True)
