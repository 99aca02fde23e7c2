"""What plots are made of: scales, axes, symbols, text, as SVG."""

import math
from collections.abc import Callable, Sequence
from html import escape
from typing import Final

SERIES: Final = 6
"""Series that can be told apart."""

WIDTH: Final = 560
"""Of a plot, in pixels of its own; it is shown as wide as there is room."""

BROAD: Final = 900
"""Of a plot that needs all the page."""

_SYMBOLS: Final = ("circle", "square", "diamond", "triangle", "cross", "ring")
_LETTER: Final = 6.6
"""Width of an average letter of the labels, in pixels."""


class Scale:
    """Values from low to high to pixels from start to stop; log: by their logarithms, low is above 0."""

    def __init__(self, low: float, high: float, start: float, stop: float, *, log: bool = False) -> None:
        self._of: Callable[[float], float] = math.log10 if log else float
        self.low, self.high, self.log = low, high, log
        self._start, self._stop = start, stop

    def __call__(self, value: float) -> float:
        """Return where a value stands."""
        low, high = self._of(self.low), self._of(self.high)
        return self._start + (self._of(value) - low) / (high - low) * (self._stop - self._start)

    def ticks(self) -> list[float]:
        """Return round values from low to high, some 3 to 7 of them."""
        if not self.log:
            return _round_values(self.low, self.high)
        steps = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
        for factors in ((1,), (1, 3), (1, 2, 5)):
            found = [factor * 10.0**power for power in steps for factor in factors]
            found = [value for value in found if self.low <= value <= self.high]
            if len(found) > 2:
                return found
        return found or _round_values(self.low, self.high)


def _round_values(low: float, high: float) -> list[float]:
    rough = (high - low) / 5
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough)
    first = math.ceil(low / step - 1e-9)
    return [round(number * step, 12) for number in range(first, math.floor(high / step + 1e-9) + 1)]


def padded(low: float, high: float, *, log: bool = False) -> tuple[float, float]:
    """Return a little more room on either side, and some where there is none."""
    if log:
        factor = max(1.15, (high / low) ** 0.05)
        return low / factor, high * factor
    room = 0.05 * (high - low) or max(0.05 * abs(high), 0.01)
    return low - room, high + room


def cut(text: str, width: float) -> str:
    """Return a small label without its last words, or letters, that do not fit; the cell's title has all of it."""
    fits = int(width / 6)
    while len(text) > fits and text.count(" ") > 1:
        text = text.rpartition(" ")[0]
    return text if len(text) <= fits else f"{text[: fits - 1]}\u2026"


def label_width(labels: Sequence[str]) -> float:
    """Return the room that labels at the left need, in pixels."""
    return 18 + _LETTER * max(map(len, labels))


def grid(scale: Scale, top: float, bottom: float, label: str) -> str:
    """Return a horizontal axis below `bottom` with lines up to `top`."""
    parts = []
    for value in scale.ticks():
        at = scale(value)
        parts.append(f'<path class="grid" d="M{at:.1f} {top}V{bottom}"/>')
        parts.append(text(at, bottom + 16, f"{value:,.6g}", "middle", css="soft"))
    middle = (scale(scale.low) + scale(scale.high)) / 2
    return "".join([*parts, text(middle, bottom + 31, label, "middle", css="soft")])


def grid_y(scale: Scale, left: float, right: float, label: str) -> str:
    """Return a vertical axis at the left with lines across."""
    parts = []
    for value in scale.ticks():
        at = scale(value)
        parts.append(f'<path class="grid" d="M{left} {at:.1f}H{right}"/>')
        parts.append(text(left - 7, at + 4, f"{value:,.6g}", "end", css="soft"))
    middle = (scale(scale.low) + scale(scale.high)) / 2
    turned = f'x="14" y="{middle:.1f}" text-anchor="middle" transform="rotate(-90 14 {middle:.1f})"'
    return "".join([*parts, f'<text class="soft" {turned}>{escape(label)}</text>'])


def level_x(at: float, top: float, bottom: float, label: str) -> str:
    """Return a dashed vertical line with its name above."""
    return f'<path class="level" d="M{at:.1f} {top - 4}V{bottom}"/>' + text(at, top - 9, label, "middle", css="soft")


def legend(names: Sequence[str], left: float) -> str:
    """Return symbols and names of series in a line at the top."""
    parts, x = [], left
    for number, name in enumerate(names):
        parts.append(symbol(number, x + 6, 14, name))
        parts.append(text(x + 17, 19, name))
        x += 34 + _LETTER * len(name)
    return "".join(parts)


def level_legend(name: str, right: float) -> str:
    """Return a dashed line and what it is, at the right end of the line at the top."""
    dash = right - 12 - _LETTER * len(name)
    return f'<path class="level" d="M{dash - 22:.1f} 15h22"/>' + text(right, 19, name, "end", css="soft")


def whisker(scale: Scale, low: float, high: float, y: float) -> str:
    """Return a horizontal interval."""
    start, stop = scale(low), scale(high)
    return f'<path class="whisker" d="M{start:.1f} {y - 4}v8m0 -4H{stop:.1f}m0 -4v8"/>'


def symbol(series: int, x: float, y: float, said: str) -> str:
    """Return the symbol of a series at a place. said: shown where a pointer rests on it."""
    name = _SYMBOLS[series % SERIES]
    shapes = {
        "circle": f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5"/>',
        "square": f'<rect x="{x - 4.5:.1f}" y="{y - 4.5:.1f}" width="9" height="9"/>',
        "diamond": f'<path d="M{x:.1f} {y - 6.5:.1f}l6.5 6.5l-6.5 6.5l-6.5 -6.5z"/>',
        "triangle": f'<path d="M{x:.1f} {y - 6:.1f}l6 10.5h-12z"/>',
        "cross": f'<path d="M{x - 5:.1f} {y - 5:.1f}l10 10m0 -10l-10 10" class="stroked"/>',
        "ring": f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4.5" class="stroked"/>',
    }
    return f'<g class="mark s{series % SERIES}">{shapes[name]}<title>{escape(said)}</title></g>'


def text(x: float, y: float, said: str, anchor: str = "start", *, css: str = "") -> str:
    """Return a line of text. anchor: what of it stands at x: start, middle or end. css: its class, ours."""
    kind = f' class="{css}"' if css else ""
    return f'<text{kind} x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(said)}</text>'


def svg(title: str, description: str, height: float, parts: Sequence[str], *, broad: bool = False) -> str:
    """Return a whole plot. parts: SVG. broad: BROAD wide, as wide as the page."""
    kind, width = (' class="broad"', BROAD) if broad else ("", WIDTH)
    return (
        f'<svg role="img"{kind} viewBox="0 0 {width:g} {height:g}" aria-label="{escape(f"{title}: {description}")}">'
        f"<title>{escape(title)}</title><desc>{escape(description)}</desc>{''.join(parts)}</svg>"
    )
