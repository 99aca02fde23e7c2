"""The parts of the report about worth: whole pipelines, where they lose it, and what another metric would find."""

from collections.abc import Mapping
from typing import Any

from evaluation.findings import below, result_of
from evaluation.plots import Bar, Span, spans, waterfall
from evaluation.plots_svg import SERIES
from evaluation.report_html import Part, Results, Row, figure, paragraph, spread, table
from evaluation.report_words import METRICS, STAGES


def pipelines(results: Results) -> Part:
    """Show what every mode of every pipeline is worth, and how it compares with the first."""
    found = below(results, "pipelines/")
    rows: list[Row] = []
    drawn = []
    for place, (name, result) in enumerate(found.items()):
        for mode, measured in result["modes"].items():
            label = f"{name}: {mode}" + (" *" if mode == result["default"] else "")
            values = measured[result["measure"]]
            if values["low"] is not None:
                drawn.append(Span(label, values["mean"], values["low"], values["high"], place % SERIES))
        rows += [[name, mode, *map(spread, measured.values())] for mode, measured in result["modes"].items()]
    if not rows:
        return Part("pipelines", "Whole pipelines", "")
    body = paragraph("Every mode of every pipeline, through a real collection; * is the mode used unless one is asked.")
    measure = next(iter(found.values()))["measure"]
    if drawn:
        body += figure(f"{measure} of whole pipelines", spans(f"{measure} of whole pipelines", drawn, measure))
    names = next(iter(next(iter(found.values()))["modes"].values()))
    body += table("Whole pipelines, with 95 % intervals", ("pipeline", "mode", *names), rows)
    compared = result_of(results, "comparison") or []
    if compared:
        first, result = next(iter(found.items()))
        caption = f"{measure} against {first} ({result['default']}), paired; p adjusted by Holm"
        lines = [[each["pipeline"], each["mode"], spread(each), each["p"]] for each in compared]
        body += table(caption, ("pipeline", "mode", "difference", "p"), lines)
    body += "".join(paragraph(f"{name}: {note}.", "fine") for name, result in found.items() for note in result["notes"])
    return Part("pipelines", "Whole pipelines", body)


def _ledgers(results: Results) -> dict[str, Mapping[str, Any]]:
    """Return funnels and ledgers of pipelines by what they are called."""
    found: dict[str, Mapping[str, Any]] = {}
    for name, result in below(results, "pipelines/").items():
        if result["ledger"] is not None:
            found[f"pipeline {name} ({result['default']})"] = result["ledger"]
    for result in below(results, "funnel/").values():
        found[f"{result['kind']} under {result['deployed']}"] = result
    return found


def funnel(results: Results) -> Part:
    """Show the ledgers: where each pipeline loses what a perfect ranking would be worth."""
    ledgers = _ledgers(results)
    if not ledgers:
        return Part("funnel", "Loss funnel", "")
    first = next(iter(ledgers.values()))
    plots = ""
    terms: list[Row] = []
    others: list[Row] = []
    notes = []
    for name, result in ledgers.items():
        plots += figure(name, waterfall(name, [_bar(each) for each in result["terms"]], result["measure"]))
        of_name = {each["name"]: spread(each) for each in result["terms"]}
        terms.append([name, *(of_name.get(stage) for stage in STAGES), result["best"]])
        charges = [spread(each) for each in result["shapley"]]
        others.append([name, *charges, spread(result["coverage"]), spread(result["reorder_ceiling"])])
        notes += [f"{name}: {note}" for note in result["notes"]]
    body = paragraph(
        f"From a perfect ranking down to what is found, {first['measure']} per query; the terms add up exactly. The "
        f"best metric is chosen on other queries than the {first['queries']:,} that are counted; what the deployed "
        "one finds less than that is the metric's loss, which may be negative."
    )
    body += paragraph(
        "Embedding loss: what exact search under the best metric misses of a perfect ranking. Metric loss: what the "
        "deployed metric misses of that. ANN loss: what is missed because not every vector is looked at. Quantisation "
        "loss: because codes are compared instead of vectors. Gain: by fusion with other fields, and reranking.",
        "fine",
    )
    heads = ("pipeline", *STAGES.values(), "best metric")
    body += f'<div class="plots">{plots}</div>' + table("Terms of the funnel", heads, terms)
    heads = ("pipeline", *(f"{STAGES[each['name']]}, all orders" for each in first["shapley"]))
    heads = (*heads, f"best metric's top {first['k']} found", "found, in perfect order")
    caption = (
        "Losses averaged over all orders of the stages (Shapley), coverage, and what a perfect reranker would make"
    )
    body += table(caption, heads, others)
    body += "".join(paragraph(note, "fine") for note in dict.fromkeys(notes))
    return Part("funnel", "Loss funnel", body)


def _bar(each: Mapping[str, Any]) -> Bar:
    kind = "total" if each["name"] in {"ceiling", "final"} else "gain" if each["name"] == "rerank" else "loss"
    return Bar(STAGES[each["name"]], kind, each["mean"], each["low"], each["high"])  # type: ignore[arg-type]


def metrics(results: Results) -> Part:
    """Show exact search under every metric."""
    found = result_of(results, "metrics")
    if found is None:
        return Part("metrics", "Metrics", "")
    measure = results["settings"]["measure"]
    drawn = [
        Span(arm, each["mean"], each["low"], each["high"], 0 if arm == found["deployed"] else 1)
        for arm, each in found["arms"].items()
    ]
    level = (found["arms"][found["deployed"]]["mean"], found["deployed"])
    body = paragraph("The same vectors, searched exactly under every metric.")
    body += figure(f"{measure} of exact search", spans("Exact search under each metric", drawn, measure, level))
    rows: list[Row] = []
    for arm, each in found["arms"].items():
        other = found["against"].get(arm)
        compared = (None, None) if other is None else (spread(other), other["p"])
        rows.append([arm, spread(each), *compared, METRICS.get(arm, "")])
    heads = ("metric", measure, f"less {found['deployed']}", "p", "what it is")
    body += table(f"{measure} of exact search; p adjusted by Benjamini-Hochberg", heads, rows)
    body += "".join(paragraph(f"{arm}: {why}", "fine") for arm, why in found["left_out"].items())
    return Part("metrics", "Metrics", body)
