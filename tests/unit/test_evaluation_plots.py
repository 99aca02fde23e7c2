import math
import re
from collections.abc import Callable
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluation.plots import (
    Axis,
    Bar,
    Cell,
    Mark,
    Span,
    heat_map,
    histogram,
    scatter,
    spans,
    waterfall,
)
from evaluation.plots_svg import SERIES, Scale
from index.errors import RequestError

BARS = [
    Bar("ceiling", "total", 1.0, 1.0, 1.0),
    Bar("embedding", "loss", 0.5, 0.4, 0.6),
    Bar("metric", "loss", -0.1, -0.2, 0.0),
    Bar("rerank", "gain", 0.2, 0.1, 0.3),
    Bar("final", "total", 0.8, 0.7, 0.9),
]
HOSTILE = '<b onload="x">&"\'</b>'


def parsed(svg: str) -> ElementTree.Element:
    """SVG as XML; each plot has a role, a title and a description."""
    root = ElementTree.fromstring(svg)  # noqa: S314  ours
    assert root.get("role") == "img"
    assert root.get("aria-label")
    assert [child.tag for child in root[:2]] == ["title", "desc"]
    return root


def rects(root: ElementTree.Element, css: str) -> list[tuple[float, float]]:
    found = [each for each in root.iter("rect") if each.get("class") == css]
    return [(float(each.get("x", "")), float(each.get("width", ""))) for each in found]


def texts(root: ElementTree.Element) -> list[str]:
    return [each.text or "" for each in root.iter("text")]


def test_a_waterfall_is_to_scale_and_each_bar_begins_where_the_last_one_ended() -> None:
    root = parsed(waterfall("funnel", BARS, "nDCG@10"))
    (zero, whole), (also_zero, final) = rects(root, "total")
    (embedding, metric), (gain,) = rects(root, "loss"), rects(root, "gain")
    assert zero == also_zero
    assert embedding[1] == pytest.approx(0.5 * whole, abs=0.2)
    assert embedding[0] + embedding[1] == pytest.approx(zero + whole, abs=0.2)
    assert metric[0] == pytest.approx(embedding[0], abs=0.2)  # a negative loss goes to the right
    assert metric[1] == pytest.approx(0.1 * whole, abs=0.2)
    assert gain[0] == pytest.approx(metric[0] + metric[1], abs=0.2)
    assert gain[0] + gain[1] == pytest.approx(zero + final, abs=0.2)


def test_a_waterfall_says_what_each_bar_changes() -> None:
    said = texts(parsed(waterfall("funnel", BARS, "nDCG@10")))
    for text in ("\u22120.500", "[\u22120.600, \u22120.400]", "+0.100", "[0.000, +0.200]", "+0.200", "0.800"):
        assert text in said


def test_intervals_lie_where_they_should() -> None:
    root = parsed(spans("means", [Span("a", 0.5, 0.25, 0.75), Span("b", 1.0, 1.0, 1.0, 1)], "R@10", (0.5, "exact")))
    whisker = next(each.get("d", "") for each in root.iter("path") if each.get("class") == "whisker")
    start, stop = float(re.findall(r"M([\d.]+)", whisker)[0]), float(re.findall(r"H([\d.]+)", whisker)[0])
    middle = float(next(root.iter("circle")).get("cx", ""))
    assert middle == pytest.approx((start + stop) / 2, abs=0.2)
    level = next(each.get("d", "") for each in root.iter("path") if each.get("class") == "level")
    assert f"M{middle:.1f} " in level
    assert "exact" in texts(root)


def test_a_logarithmic_axis_makes_ratios_distances() -> None:
    marks = [Mark("a", f"p{x}", x, 0.5, 0.4, 0.6, joined=x > 1) for x in (1.0, 10.0, 100.0)]
    root = parsed(scatter("speed", marks, Axis("QPS", log=True), Axis("nDCG")))
    first, second, third = [float(each.get("cx", "")) for each in root.iter("circle")][-3:]
    assert second - first == pytest.approx(third - second, abs=0.2)
    front = next(each.get("d", "") for each in root.iter("path") if each.get("class") == "front")
    assert front.count("L") == 1
    assert any("p10.0: QPS 10, nDCG 0.5000, 0.4000 to 0.6000" in (each.text or "") for each in root.iter("title"))


def test_a_histogram_is_to_scale() -> None:
    root = parsed(histogram("hubs", ["0", "1"], {"ip": [10, 40], "l2": [20, 0]}, "times", "documents"))
    heights = {
        css: [float(r.get("height", "")) for r in root.iter("rect") if r.get("class") == css] for css in ("s0", "s1")
    }
    assert heights["s0"][1] == pytest.approx(4 * heights["s0"][0], abs=0.5)
    assert heights["s1"] == [pytest.approx(2 * heights["s0"][0], abs=0.5), 0]


def test_a_heat_map_colours_losses_and_gains_by_their_size() -> None:
    cells = [
        Cell("0", "0 %", 1.0, sure=False),
        Cell("1", "-25 %", 0.75, sure=True),
        Cell("2", "+10 %", 1.1, sure=True),
        Cell("3", "all lost", 0.0, sure=True),
        Cell("4", "-", None, sure=False),
    ]
    root = parsed(heat_map("probes", {"truncation": cells, "filters": cells[:1]}))
    styles = [each.get("style", "") for each in root.iter("rect")]
    assert len(styles) == 6
    mixed = [re.findall(r"--(loss|gain)\) (\d+)%", style)[0] for style in styles]
    assert mixed[:5] == [("gain", "0"), ("loss", "30"), ("gain", "12"), ("loss", "60"), ("gain", "0")]
    bold = [each.text for each in root.iter("text") if each.get("class") == "value"]
    assert bold == ["-25 %", "+10 %", "all lost"]


@pytest.mark.parametrize(
    "svg",
    [
        waterfall(HOSTILE, [Bar(HOSTILE, "total", 1.0, 1.0, 1.0)], HOSTILE),
        spans(HOSTILE, [Span(HOSTILE, 1.0, 1.0, 1.0)], HOSTILE, (1.0, HOSTILE)),
        scatter(HOSTILE, [Mark(HOSTILE, HOSTILE, 1, 1, 1, 1)], Axis(HOSTILE), Axis(HOSTILE, level=(1, HOSTILE))),
        histogram(HOSTILE, [HOSTILE], {HOSTILE: [1]}, HOSTILE, HOSTILE),
        heat_map(HOSTILE, {HOSTILE: [Cell(HOSTILE, HOSTILE, 0.5, sure=True)]}),
    ],
)
def test_text_is_never_markup(svg: str) -> None:
    root = parsed(svg)
    assert next(root.iter("title")).text == HOSTILE
    assert HOSTILE in texts(root)
    assert "<b" not in svg
    assert not any("onload" in each.attrib for each in root.iter())


@given(st.floats(-1e6, 1e6), st.floats(1e-6, 1e6))
def test_ticks_are_few_and_inside(low: float, width: float) -> None:
    high = low + width
    if (high - low) < 1e-9 * max(abs(low), abs(high)):
        return
    ticks = Scale(low, high, 0, 100).ticks()
    slack = 1e-6 * width
    assert all(low - slack <= tick <= high + slack for tick in ticks)
    assert ticks == sorted(ticks)
    assert 2 <= len(ticks) <= 7


@given(st.floats(1e-6, 1e6), st.floats(1.3, 1e6))
def test_ticks_of_a_logarithmic_axis_are_inside_and_there(low: float, ratio: float) -> None:
    ticks = Scale(low, low * ratio, 0, 100, log=True).ticks()
    assert ticks
    assert all(low * (1 - 1e-6) <= tick <= low * ratio * (1 + 1e-6) for tick in ticks)
    assert math.isfinite(sum(ticks))


@pytest.mark.parametrize(
    "draw",
    [
        lambda: waterfall("t", [], "m"),
        lambda: spans("t", [], "m"),
        lambda: scatter("t", [], Axis("x"), Axis("y")),
        lambda: scatter("t", [Mark("a", "a", 0, 1, 1, 1)], Axis("x", log=True), Axis("y")),
        lambda: scatter("t", [Mark(str(n), "a", 1, 1, 1, 1) for n in range(SERIES + 1)], Axis("x"), Axis("y")),
        lambda: histogram("t", [], {"a": []}, "x", "y"),
        lambda: histogram("t", ["0"], {"a": [1, 2]}, "x", "y"),
        lambda: histogram("t", ["0"], {str(n): [1] for n in range(SERIES + 1)}, "x", "y"),
        lambda: heat_map("t", {}),
        lambda: heat_map("t", {"a": []}),
    ],
)
def test_what_cannot_be_drawn(draw: Callable[[], str]) -> None:
    with pytest.raises(RequestError):
        draw()
