"""The page and its sentences, from results written by hand."""

import copy
import re
from html.parser import HTMLParser
from typing import Any

import pytest

from evaluation.findings import findings
from evaluation.report import page
from index.errors import CorpusError

VOID = {"meta", "br"}
SVG_VOID = {"path", "rect", "circle"}
HOSTILE = '"><script>alert(1)</script><img src=x onerror=alert(1)>'


def number(mean: float, low: float | None = None, high: float | None = None) -> dict[str, float]:
    return {"mean": mean, "low": mean - 0.01 if low is None else low, "high": mean + 0.01 if high is None else high}


def terms(**values: dict[str, float]) -> list[dict[str, Any]]:
    return [{"name": name, **value} for name, value in values.items()]


def ledger(kind: str, deployed: str = "cosine", **changed: dict[str, float]) -> dict[str, Any]:
    zero = number(0, 0, 0)
    own = {
        "ceiling": number(0.9876),
        "embedding": number(0.5432),
        "metric": zero,
        "ann": zero,
        "quantisation": zero,
        **changed,
        "final": number(0.4444),
    }
    return {
        "kind": kind,
        "deployed": deployed,
        "best": "whitened",
        "measure": "nDCG@10",
        "k": 10,
        "queries": 70,
        "terms": terms(**own),
        "shapley": terms(metric=number(0.0123), ann=number(0.0234), quantisation=number(0.0345)),
        "coverage": number(0.9321),
        "reorder_ceiling": number(0.6789),
        "notes": [],
    }


def row(setting: dict[str, Any], mean: float, change: dict[str, float] | None, **measures: float) -> dict[str, Any]:
    return {
        "setting": setting,
        "queries": 100,
        **number(mean),
        "measures": measures,
        "reference": 0.4,
        "change": change,
    }


def point(name: str, utility: float, recall: float, qps: float) -> dict[str, Any]:
    return {
        "configuration": name.split(maxsplit=1)[0],
        "name": name,
        "settings": {},
        "utility": number(utility),
        "recall": recall,
        "tied_recall": recall,
        "inverse_ratio": 0.9991,
        "qps": {"median": qps, "low": qps, "high": qps},
        "all_cores_qps": {"median": 2 * qps, "low": qps, "high": qps},
        "p50_ms": 0.5,
        "p95_ms": 0.6,
        "p99_ms": 0.7,
        "distances": 321.0,
        "pareto": True,
    }


def hub(skew: float) -> dict[str, Any]:
    return {"documents": [3, 50, 40, 7], "skew": skew, "gini": 0.5, "anti_hubs": 0.03}


def pipeline(**changes: Any) -> dict[str, Any]:
    return {
        "default": "hybrid",
        "fields": {"dense": "dense, hashing, auto, cosine", "lexical": "lexical"},
        "modes": {mode: {"nDCG@10": number(mean), "R@100": number(mean + 0.3)} for mode, mean in MODES.items()},
        "values": {},
        "measure": "nDCG@10",
        "ledger": ledger("flat", rerank=number(0.0777)),
        "no_ledger": None,
        "notes": ["2 documents are blank"],
        **changes,
    }


def choice(metric: str | None, family: str | None, why: str, **setting: Any) -> dict[str, Any]:
    exact = None if metric is None else number(0.4321)
    return {"metric": metric, "family": family, "why": why, "exact": exact, "setting": setting or None}


KNEE = {"name": "hnsw ef=16", "difference": -0.0011, "low": -0.003, "margin": 0.005, "p50_ms": 0.5}
MODES = {"hybrid": 0.4567, "dense": 0.4111}


def made(**changes: Any) -> dict[str, Any]:
    """Results with every section; changes: sections to put in or, None, to take out, "/" as "__"."""
    sections: dict[str, Any] = {
        "vectors": {
            "dim": 64, "unit": True, "norms": {"least": 1, "mean": 1, "most": 1}, "truncated": 3, "train_queries": 0
        },
        "metrics": {
            "deployed": "cosine",
            "ceiling": number(0.9876),
            "arms": {"ip": number(0.4001), "cosine": number(0.4444), "whitened": number(0.4666)},
            "against": {
                "ip": {**number(-0.0443, -0.08, 0.01), "p": 0.2},
                "whitened": {**number(0.0222, 0.01, 0.03), "p": 0.0123},
            },
            "left_out": {"learned": "0 train queries"},
        },
        "funnel/flat/cosine": ledger("flat"),
        "funnel/ivf-pq/cosine": ledger("ivf-pq", quantisation=number(0.0567, 0.04, 0.07)),
        "ann": {
            "measure": "nDCG@10",
            "metric": "cosine",
            "k": 10,
            "exact": number(0.4444),
            "repeats": 7,
            "timed": 100,
            "points": [point("flat", 0.4444, 1.0, 100), point("hnsw ef=16", 0.4433, 0.9555, 900)],
            "builds": {"hnsw": {"kind": "hnsw", "seconds": 1.5, "threads": 2, "size_bytes": 123_456, "build_bytes": 7}},
            "knee": KNEE,
            "knees": {"flat": None, "hnsw": KNEE},
        },
        "probes/hubness": {
            "unchanged": "cosine",
            "rows": [row({"metric": "cosine"}, 0.4, None)],
            "histogram": {
                "k": 10, "searched": 100, "from": [0, 1, 2, 5], "metrics": {"ip": hub(70.5), "cosine": hub(1.25)}
            },
        },
        "probes/dimension truncation": {
            "unchanged": "all dimensions",
            "rows": [
                row({"dim": 64.0}, 0.4, None, energy=1.0),
                row({"dim": 32.0}, 0.35, number(-0.05, -0.06, -0.04), energy=0.5),
                row({"dim": 16.0}, 0.1, number(-0.3, -0.4, -0.2), energy=0.25),
            ],
        },
        "probes/filters": {
            "unchanged": "exact search under the same filter",
            "rows": [
                row({"selectivity": 0.01, "correlation": "random"}, 0.4, None, recall=0.98, loss=0.002, wrong=0.0)
            ],
        },
        "features": {
            "features": {"n": 100.0, "ra_mean_deg": 43.21},
            "iceberg": {"metric": "l2", "family": "graph", "methods": ["HNSW", "NSG"]},
        },
        "recommendation": {
            "choices": {
                "tree": choice(None, None, "abstained: d is 64"),
                "iceberg": choice("l2", "lists", "its thresholds are hand-set"),
                "measured": choice("cosine", "graph", "it finds the most", **KNEE),
            },
            "path": [],
            "tree": "n <= 20,000\n  flat",
        },
        "pipelines/default": pipeline(),
        "comparison": [{"pipeline": "default", "mode": "dense", **number(-0.0456, -0.06, -0.03), "p": 0.0002}],
    }  # fmt: skip
    for name, section in changes.items():
        sections[name.replace("__", "/")] = section
    return {
        "format": 1,
        "dataset": {
            "name": "set", "family": "set", "split": "test", "documents": 1_234, "queries": 100, "judgements": 5,
            "digest": "d1", "notes": ["a seeded sample"],
        },
        "encoder": {"table": {"kind": "hashing", "dim": 64}, "fingerprint": "f1"},
        "settings": {"tier": "small", "seed": 0, "measures": ["nDCG@10", "R@100"], "measure": "nDCG@10", "k": 10},
        "machine": {"cpu": "a processor", "cores": "2"},
        "sections": {
            name: section if "left_out" in section and len(section) == 1 else {"seconds": 1.25, "result": section}
            for name, section in sections.items()
            if section is not None
        },
    }  # fmt: skip


class Reader(HTMLParser):
    """Checks that tags nest, and keeps text, tags and attributes."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in SVG_VOID
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def read(text: str) -> Reader:
    reader = Reader()
    reader.feed(text)
    reader.close()
    assert reader.open == []
    return reader


def headings(reader: Reader) -> list[str | None]:
    return [attributes["id"] for tag, attributes in reader.tags if tag == "section"]


ALL = ["findings", "funnel", "pipelines", "metrics", "ann", "hubs", "probes", "features", "recommendation", "method"]


def test_the_page_is_html_that_needs_nothing_else() -> None:
    text = page(made())
    reader = read(text)
    assert text.startswith("<!doctype html>")
    assert headings(reader) == ALL
    assert not {tag for tag, _ in reader.tags} & {"script", "link", "img", "iframe", "object", "embed"}
    assert not re.search(r"https?:|//[a-z]|url\(|@import", text)
    for tag, attributes in reader.tags:
        assert not {"src", "srcset", "onload", "onclick", "xlink:href"} & attributes.keys(), tag
        assert attributes.get("href", "#") is not None
        assert str(attributes.get("href", "#")).startswith("#")
    targets = {f"#{attributes['id']}" for _, attributes in reader.tags if "id" in attributes}
    assert {attributes["href"] for tag, attributes in reader.tags if tag == "a"} <= targets


def test_every_plot_has_a_name_and_every_table_says_what_its_cells_are() -> None:
    reader = read(page(made()))
    plots = [attributes for tag, attributes in reader.tags if tag == "svg"]
    assert len(plots) == 9  # three waterfalls, pipelines, metrics, two scatter plots, hubs, probes
    assert all(plot["role"] == "img" and plot["aria-label"] for plot in plots)
    tables = sum(tag == "table" for tag, _ in reader.tags)
    assert tables == sum(tag == "caption" for tag, _ in reader.tags) > 8
    assert all(attributes.get("scope") in {"row", "col"} for tag, attributes in reader.tags if tag == "th")
    assert ("html", {"lang": "en"}) in reader.tags


def test_numbers_of_the_page_are_those_of_the_results() -> None:
    text = " ".join(read(page(made())).text).replace("\u00a0", " ")
    for value in (
        "0.5432 [0.5332, 0.5532]",  # embedding loss
        "0.0567 [0.0400, 0.0700]",  # quantisation loss
        "0.0777 [0.0677, 0.0877]",  # gain of the pipeline
        "0.0345 [0.0245, 0.0445]",  # a Shapley charge
        "0.6789 [0.6689, 0.6889]",  # in perfect order
        "0.4567 [0.4467, 0.4667]",  # hybrid
        "0.7567 [0.7467, 0.7667]",  # its R@100
        "-0.0456 [-0.0600, -0.0300]",  # against dense
        "0.0222 [0.0100, 0.0300]",  # whitened against cosine
        "0.0123",  # its p
        "0.4433 [0.4333, 0.4533]",  # hnsw
        "0.9555",  # its recall
        "123,456",  # bytes
        "70.5000",  # skewness
        "-0.3000 [-0.4000, -0.2000]",  # a probe's change
        "43.21",  # a feature
        "1,234 documents",
    ):
        assert value in text, value


def test_what_comes_from_outside_is_never_markup() -> None:
    results = made()
    results["dataset"] |= {"name": HOSTILE, "split": HOSTILE, "notes": [HOSTILE], "digest": HOSTILE}
    results["encoder"] = {"table": {"kind": HOSTILE, HOSTILE: HOSTILE}, "fingerprint": HOSTILE}
    results["machine"] = {HOSTILE: HOSTILE}
    sections = results["sections"]
    sections[f"pipelines/{HOSTILE}"] = {"seconds": 1.0, "result": pipeline(default=HOSTILE, notes=[HOSTILE])}
    sections[f"pipelines/{HOSTILE}"]["result"]["modes"] = {HOSTILE: {"nDCG@10": number(0.5), "R@100": number(0.6)}}
    sections["comparison"]["result"][0] |= {"pipeline": HOSTILE, "mode": HOSTILE}
    sections[f"funnel/{HOSTILE}/x"] = {"seconds": 1.0, "result": ledger(HOSTILE, HOSTILE) | {"notes": [HOSTILE]}}
    sections[f"probes/{HOSTILE}"] = {"left_out": HOSTILE}
    sections["ann"]["result"]["points"][0] |= {"name": HOSTILE, "configuration": HOSTILE}
    sections["features"]["result"]["features"][HOSTILE] = 1.0
    sections["probes/filters"]["result"]["rows"][0]["setting"] = {HOSTILE: HOSTILE}
    sections["recommendation"]["result"] = {
        "choices": {name: choice(HOSTILE, "graph", HOSTILE) for name in ("tree", "iceberg", "measured")},
        "path": [HOSTILE],
        "tree": HOSTILE,
    }
    text = page(results)
    reader = read(text)
    assert "<script" not in text
    assert "<img" not in text
    assert not any("onerror" in attributes for _, attributes in reader.tags)
    assert " ".join(reader.text).count(HOSTILE) > 12


@pytest.mark.parametrize(
    ("gone", "part"),
    [
        (("ann",), "ann"),
        (("metrics",), "metrics"),
        (("features",), "features"),
        (("probes__hubness",), "hubs"),
        (("pipelines__default", "comparison"), "pipelines"),
        (("probes__hubness", "probes__filters", "probes__dimension truncation"), "probes"),
    ],
)
def test_a_part_without_results_is_left_out_and_the_reason_given(gone: tuple[str, ...], part: str) -> None:
    reader = read(page(made(**{name: {"left_out": f"because of {name}"} for name in gone})))
    shown = headings(reader)
    assert part not in shown
    assert "left-out" in shown
    text = " ".join(reader.text)
    assert all(f"because of {name}" in text for name in gone)
    assert "left-out" not in headings(read(page(made())))
    absent = read(page(made(**dict.fromkeys(gone))))
    assert not {part, "left-out"} & set(headings(absent))


def test_a_recommendation_stands_beside_what_was_measured() -> None:
    results = made()
    text = read(page(results)).text
    assert {"abstains", "abstained: d is 64", "inverted lists", "hnsw ef=16", "n <= 20,000\n  flat"} <= set(text)
    assert (
        "Without judgements the tree abstains and Iceberg's rule chooses l2 and inverted lists; with them it is cosine "
        "and a graph."
    ) in findings(results)
    found = results["sections"]["recommendation"]["result"]
    found["choices"]["tree"] = choice("ip", "graph", "5 runs of digits")
    found["choices"]["measured"] = choice("cosine", None, "nothing is shown to be good enough")
    found |= {"path": ["d = 64 > 32"], "tree": None}
    reader = read(page(results))
    assert "the tree chooses ip and a graph and" in " ".join(reader.text)
    assert "with them it is cosine and no index." in " ".join(reader.text)
    assert "The tree's way to its leaf: d = 64 > 32." in reader.text
    assert "pre" not in {tag for tag, _ in reader.tags}


def test_a_pipeline_without_a_ledger_says_why() -> None:
    text = " ".join(read(page(made(pipelines__default=pipeline(ledger=None, no_ledger="2 dense fields")))).text)
    assert "2 dense fields" in text


def test_one_query_has_no_interval_and_is_shown_without() -> None:
    modes = {"hybrid": {"nDCG@10": {"mean": 0.5, "low": None, "high": None}}}
    text = " ".join(read(page(made(pipelines__default=pipeline(modes=modes), comparison=None))).text)
    assert "0.5000" in text
    assert "(hybrid) is worth nDCG@10 0.500." in text


def test_findings_claim_what_the_intervals_show() -> None:
    said = findings(made())
    text = "\n".join(said)
    assert said[0].startswith(
        "Of the 70 queries that losses are counted on, a perfect ranking would be worth nDCG@10 0.988; exact search "
        "under cosine reaches 0.444"
    )
    assert "Quantisation costs nDCG@10 0.057 [0.040, 0.070] in ivf-pq/cosine." in said
    assert "Approximate search costs" not in text
    assert "The pipeline default (dense) is worth 0.046 less than that [-0.060, -0.030], p = 0.0002 (Holm)." in said
    assert "Exact search under whitened finds +0.022 [+0.010, +0.030] more than under cosine" in text
    assert "is hnsw ef=16: 0.50 ms a query (0.50 ms for exact search), recall 0.956." in text
    assert "Under ip a few documents are near everything (10-occurrence skew 70.5)" in text
    assert "Under cosine a few" not in text
    assert (
        "Dimension truncation: against all dimensions, the mildest setting shown to cost anything is dim 32 with 0.050 "
        "[0.040, 0.060]; the worst is dim 16 with 0.300 [0.200, 0.400]."
    ) in said
    assert "at most 0.002 is lost; recall is at least 0.980." in text


def test_findings_claim_no_more_than_that() -> None:
    results = made()
    sections = results["sections"]
    sections["metrics"]["result"]["against"]["whitened"]["p"] = 0.06
    sections["comparison"]["result"][0]["p"] = 0.05
    sections["ann"]["result"]["knee"] = None
    sections["funnel/ivf-pq/cosine"]["result"] = ledger("ivf-pq", quantisation=number(0.004, -0.001, 0.009))
    text = "\n".join(findings(results))
    assert "No metric is shown to find more than cosine" in text
    assert "No difference to it was shown for default (dense)." in text
    assert "No setting is shown to be as good as exact search within 0.005" in text
    assert "Quantisation costs" not in text
    assert "Neither approximate search nor quantisation" not in text  # .009 may be lost
    sections["funnel/ivf-pq/cosine"]["result"] = ledger("ivf-pq", quantisation=number(0.001, -0.001, 0.003))
    assert "costs as much as 0.005 (upper ends of the intervals) in ivf-pq/cosine." in "\n".join(findings(results))
    sections["funnel/ivf-pq/cosine"]["result"]["notes"] = ["cosine: ivf-pq became flat"]
    text = "\n".join(findings(results))
    assert "Neither approximate search nor quantisation" not in text
    assert "searched exactly whatever is asked for: ivf-pq/cosine lose nothing" in text


def test_a_metric_loss_and_results_that_must_not_be_there_are_said() -> None:
    costly = {f"funnel__{kind}__ip": ledger(kind, "ip", metric=number(0.2, 0.1, 0.3)) for kind in ("flat", "hnsw")}
    results = made(**costly)
    results["sections"]["probes/filters"]["result"]["rows"][0]["measures"]["wrong"] = 0.1
    text = "\n".join(findings(results))
    assert text.count("Under ip the metric costs nDCG@10 0.200 [0.100, 0.300]: whitened finds more") == 1
    assert "Filters: results that must not be there were returned in 1 settings." in text


def test_results_of_another_format_are_refused() -> None:
    other = copy.deepcopy(made()) | {"format": 2}
    with pytest.raises(CorpusError, match="format 2, this grapnel reads 1"):
        page(other)
