"""The parts of the report, each from the results of its sections; one without results has no body and is not shown."""

from collections.abc import Callable, Mapping
from html import escape
from typing import Any, Final

from evaluation.findings import ALPHA, below, result_of, setting_text
from evaluation.plots import Axis, Cell, Mark, heat_map, histogram, scatter
from evaluation.report_html import Part, Results, Row, figure, foldable, paragraph, spread, table
from evaluation.report_words import CHOOSERS, INDEX_FAMILIES, PROBES, feature_meaning
from evaluation.report_worth import funnel, metrics, pipelines


def _ann(results: Results) -> Part:
    found = result_of(results, "ann")
    if found is None:
        return Part("ann", "Approximate search", "")
    measure, points = found["measure"], found["points"]
    fast = [_mark(point, point["qps"]["median"], joined=point["pareto"]) for point in points]
    recalled = [_mark(point, point["recall"]) for point in points]
    exact = Axis(measure, level=(found["exact"]["mean"], "exact search"))
    one = f"queries per second, one thread ({found['timed']} queries, median of {found['repeats']} rounds)"
    body = paragraph(
        f"Utility ({measure}) and speed of each index and effort under {found['metric']}. The line joins the settings "
        "that none beats in both. Where utility stays level while recall falls, recall asks for more than the task "
        "needs. Vertical bars are 95 % intervals over queries; as all settings answer the same queries, differences "
        "are surer than these look."
    )
    knee = found["knee"]
    if knee is not None:
        body += paragraph(
            f"The cheapest setting not worse than exact search by {knee['margin']}: {knee['name']} (difference "
            f"{knee['difference']:+.4f}, at least {knee['low']:+.4f})."
        )
    body += paragraph(
        "Recall is the share of what exact search finds; tied recall counts equal scores as found; 1/ratio is the "
        "distance to what exact search finds over the distance to what was found. p50, p95, p99: so many per cent of "
        "single queries took no longer.",
        "fine",
    )
    body += '<div class="plots">'
    body += figure("Utility against speed", scatter("Utility against speed", fast, Axis(one, log=True), exact))
    across = Axis(f"recall@{found['k']} against exact search")
    name = "Task utility against synthetic recall"
    body += figure(name, scatter(name, recalled, across, exact))
    body += "</div>"
    recalls, times_of = ("recall", "tied recall", "1/ratio"), ("QPS", "QPS, all cores", "p50 ms", "p95 ms", "p99 ms")
    heads = ("setting", measure, *recalls, *times_of, "vectors compared a query")
    rows: list[Row] = []
    for point in points:
        compared = None if point["distances"] is None else round(point["distances"])
        times = [round(point["qps"]["median"]), round(point["all_cores_qps"]["median"])]
        percentiles = [point["p50_ms"], point["p95_ms"], point["p99_ms"]]
        shares = [point["recall"], point["tied_recall"], point["inverse_ratio"]]
        rows.append([point["name"], spread(point["utility"]), *shares, *times, *percentiles, compared])
    body += foldable("All settings", table("Settings; the first of an index is its calibrated effort", heads, rows))
    facts = ("index", "became", "build seconds", "threads", "bytes on disk", "bytes to build")
    builds = [
        [name, build["kind"], build["seconds"], build["threads"], build["size_bytes"], build["build_bytes"]]
        for name, build in found["builds"].items()
    ]
    return Part("ann", "Approximate search", body + table("Indexes", facts, builds))


def _mark(point: Mapping[str, Any], x: float, *, joined: bool = False) -> Mark:
    worth = point["utility"]
    return Mark(point["configuration"], point["name"], x, worth["mean"], worth["low"], worth["high"], joined)


def _hubs(results: Results) -> Part:
    found = result_of(results, "probes/hubness")
    if found is None:
        return Part("hubs", "Hubs", "")
    drawn, metrics = found["histogram"], found["histogram"]["metrics"]
    starts = drawn["from"]
    labels = [
        str(low) if high == low + 1 else f"{low}\u2013{high - 1}"
        for low, high in zip(starts, [*starts[1:], starts[-1] + 1], strict=True)
    ]
    labels[-1] = f"{starts[-1]}+"
    counts = {arm: each["documents"] for arm, each in metrics.items()}
    used = max(place for values in counts.values() for place, value in enumerate(values) if value) + 1
    labels, counts = labels[:used], {arm: values[:used] for arm, values in counts.items()}
    body = paragraph(
        f"How often each document is among the {drawn['k']} nearest of {drawn['searched']:,} others. A skewness of 0 "
        "to 2 is usual; with tens, a few documents crowd out the rest."
    )
    x = f"times among the {drawn['k']} nearest"
    body += figure("Documents by how often they are near others", histogram("Hubs", labels, counts, x, "documents"))
    rows = [
        [arm, *values, metrics[arm]["skew"], metrics[arm]["gini"], metrics[arm]["anti_hubs"]]
        for arm, values in counts.items()
    ]
    heads = ("metric", *labels, "skewness", "Gini", "in no list")
    return Part("hubs", "Hubs", body + table("Documents by how often they are near others", heads, rows))


def _probes(results: Results) -> Part:
    found = below(results, "probes/")
    if not found:
        return Part("probes", "Probes", "")
    lines: dict[str, list[Cell]] = {}
    tables = ""
    for name, probe in found.items():
        rows: list[Row] = []
        for row in probe["rows"]:
            line, label = _place(name, row["setting"])
            lines.setdefault(line, []).append(_heat(label, row))
            change = None if row["change"] is None else spread(row["change"])
            said = ", ".join(f"{key} {value:.4g}" for key, value in row["measures"].items())
            rows.append([setting_text(row["setting"]), spread(row), row["reference"], change, row["queries"], said])
        measure = results["settings"]["measure"]
        heads = ("setting", measure, probe["unchanged"], "change", "queries", "measured beside it")
        explained = paragraph(PROBES[name], "fine") if name in PROBES else ""
        tables += foldable(
            f"{name}: all numbers", explained + table(f"{name}: {measure} against {probe['unchanged']}", heads, rows)
        )
    body = paragraph(
        "What becomes of the utility when one thing changes. A cell says by how much it differs from what it is "
        "compared with (see the tables), in per cent of that; red is lost, green is gained, and a dash means that "
        "there was nothing to find. Bold is more than chance at 95 %, which only probes that compare the same queries "
        "one by one can tell."
    )
    title = f"Change of {results['settings']['measure']} by probe and setting"
    return Part("probes", "Probes", body + figure(title, heat_map(title, lines)) + tables)


def _place(probe: str, setting: Mapping[str, Any]) -> tuple[str, str]:
    """Return the line of the heat map that a setting belongs to, and its cell's label: its number, if it has one."""
    labels = [name for name, value in setting.items() if isinstance(value, float)] or list(setting)
    aside = "".join(f", {name} {value}" for name, value in setting.items() if name != labels[0])
    value = setting[labels[0]]
    line = f"{probe} by {labels[0]}{aside}"
    return line, f"{value:g}" if isinstance(value, float) else str(value)


def _heat(label: str, row: Mapping[str, Any]) -> Cell:
    reference, change = row["reference"], row["change"]
    if not reference:
        return Cell(label, "\u2013", None, sure=False)
    sure = change is not None and (change["low"] > 0 or change["high"] < 0)
    ratio = row["mean"] / reference
    percent = round(100 * (ratio - 1))
    return Cell(label, "0 %" if percent == 0 else f"{percent:+d} %".replace("-", "\u2212"), ratio, sure)


def _features(results: Results) -> Part:
    found = result_of(results, "features")
    if found is None:
        return Part("features", "What the vectors look like", "")
    rows = [[name, f"{value:,.4g}", feature_meaning(name)] for name, value in found["features"].items()]
    body = table("Meta-features, from which a recommendation is made", ("feature", "value", "what it is"), rows)
    return Part("features", "What the vectors look like", body)


def _recommendation(results: Results) -> Part:
    found = result_of(results, "recommendation")
    if found is None:
        return Part("recommendation", "Recommendation", "")
    measure = results["settings"]["measure"]
    body = paragraph(
        "The metric and the family of index that a fitted decision tree and Iceberg's published rule choose by the "
        "look of the vectors alone, beside what the judgements say. The setting is the family's fastest that is shown "
        "to be no worse than exact search; a dash: none was, or none was measured under this metric."
    )
    rows = [[CHOOSERS[name], *_choice(each)] for name, each in found["choices"].items()]
    heads = ("who chooses", "metric", "family", f"exact {measure} under it", "setting", "p50 ms", "why")
    body += table("Choices of metric and index", heads, rows)
    if found["path"]:
        body += paragraph(f"The tree's way to its leaf: {'; '.join(found['path'])}.", "fine")
    if found["tree"] is not None:
        said = "The tree, each leaf with its evidence"
        body += f'<figure><figcaption>{said}</figcaption><pre tabindex="0" role="group" aria-label="{said}">'
        body += f"{escape(found['tree'])}</pre></figure>"
    return Part("recommendation", "Recommendation", body)


def _choice(each: Mapping[str, Any]) -> list[str | float | None]:
    if each["metric"] is None:
        return ["abstains", None, None, None, None, each["why"]]
    setting = each["setting"]
    shown = (None, None) if setting is None else (setting["name"], setting["p50_ms"])
    family = None if each["family"] is None else INDEX_FAMILIES[each["family"]]
    return [each["metric"], family, spread(each["exact"]), *shown, each["why"]]


def _left_out(results: Results) -> Part:
    missing = {name: each["left_out"] for name, each in results["sections"].items() if "left_out" in each}
    missing |= {
        f"funnel of pipeline {name}": result["no_ledger"]
        for name, result in below(results, "pipelines/").items()
        if result["no_ledger"]
    }
    if not missing:
        return Part("left-out", "Left out", "")
    return Part("left-out", "Left out", table("What this dataset cannot say", ("section", "why"), missing.items()))


def _method(results: Results) -> Part:
    settings = results["settings"]
    said = {
        "tier": settings["tier"],
        "losses are counted in": f"{settings['measure']}, the first {settings['k']} results",
        "measures of pipelines": " ".join(settings["measures"]),
        "seed": str(settings["seed"]),
        "claims": f"p below {ALPHA} after correction",
        "encoder fingerprint": results["encoder"]["fingerprint"],
        "dataset digest": results["dataset"]["digest"],
        **results["machine"],
    }
    seconds = {name: each["seconds"] for name, each in results["sections"].items() if "seconds" in each}
    times = [[name, f"{each:.1f}"] for name, each in (*seconds.items(), ("all", sum(seconds.values())))]
    body = table("Settings and machine", ("what", "value"), said.items())
    spent = table("Seconds that each section took; the first one encodes", ("section", "seconds"), times)
    return Part("method", "How it was measured", body + foldable("Time", spent))


PARTS: Final[tuple[Callable[[Results], Part], ...]] = (
    funnel,
    pipelines,
    metrics,
    _ann,
    _hubs,
    _probes,
    _features,
    _recommendation,
    _left_out,
    _method,
)
