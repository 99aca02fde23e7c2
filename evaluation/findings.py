"""What a benchmark's numbers say, in plain sentences: what is lost where, and what may be changed without harm.

A sentence claims a difference only where its interval, or its adjusted p-value, leaves none other; otherwise it says
that nothing was shown.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from evaluation.report_words import CHOOSERS, INDEX_FAMILIES
from evaluation.statistics import MARGIN
from index.errors import CorpusError

ALPHA: Final = 0.05

_HUBBY: Final = 5.0
"""Skewness of 10-occurrences from which on hubs are worth a sentence; 0 to 2 is usual."""


def findings(results: Mapping[str, Any]) -> list[str]:
    """Return sentences on the results of a benchmark (see evaluation.bench), the most important first.

    Raises CorpusError where they are of another format.
    """
    if results.get("format") != 1:
        raise CorpusError(f"results have format {results.get('format')!r}, this grapnel reads 1: measure again")
    said: list[str] = []
    for part in (_funnel, _pipelines, _metrics, _ann, _recommendation, _hubs, _probes):
        said += part(results)
    return said


def below(results: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """Return the results of the sections below a prefix that have any, by the rest of their names."""
    return {
        name.removeprefix(prefix): section["result"]
        for name, section in results["sections"].items()
        if name.startswith(prefix) and "result" in section
    }


def result_of(results: Mapping[str, Any], name: str) -> Any | None:
    """Return the result of one section, None where there is none."""
    return results["sections"].get(name, {}).get("result")


def with_interval(number: Mapping[str, float], sign: str = "") -> str:
    """Return a number for people, ".395 [.350, .441]"."""
    return f"{number['mean']:{sign}.3f} [{number['low']:{sign}.3f}, {number['high']:{sign}.3f}]"


def _funnel(results: Mapping[str, Any]) -> Iterator[str]:
    found = below(results, "funnel/")
    if not found:
        return
    exact = found.get("flat/cosine", next(iter(found.values())))
    terms = _terms(exact)
    measure = exact["measure"]
    yield (
        f"Of the {exact['queries']:,} queries that losses are counted on, a perfect ranking would be worth {measure} "
        f"{terms['ceiling']['mean']:.3f}; exact search under {exact['deployed']} reaches "
        f"{with_interval(terms['final'])}. The embedding alone costs {with_interval(terms['embedding'])}."
    )
    exactly = [name for name, result in found.items() if result["notes"] and result["kind"] != "flat"]
    if exactly:
        yield f"So few documents are searched exactly whatever is asked for: {', '.join(exactly)} lose nothing."
    costly = {result["deployed"]: result for result in found.values() if _terms(result)["metric"]["low"] > 0}
    for deployed, result in costly.items():  # the same for every kind of index
        yield (
            f"Under {deployed} the metric costs {measure} {with_interval(_terms(result)['metric'])}: {result['best']} "
            "finds more with the same vectors."
        )
    for name, result in found.items():
        terms = _terms(result)
        for stage, said in (("ann", "Approximate search"), ("quantisation", "Quantisation")):
            if terms[stage]["low"] > 0:
                yield f"{said} costs {measure} {with_interval(terms[stage])} in {name}."
    harmless = [
        name
        for name, result in found.items()
        if all(each["high"] < MARGIN for each in result["terms"] if each["name"] in {"ann", "quantisation"})
        and result["kind"] != "flat"
        and name not in exactly
    ]
    if harmless:
        yield (
            f"Neither approximate search nor quantisation costs as much as {MARGIN} (upper ends of the intervals) in "
            f"{', '.join(harmless)}."
        )


def _terms(ledger: Mapping[str, Any]) -> dict[str, Any]:
    return {each["name"]: each for each in ledger["terms"]}


def _pipelines(results: Mapping[str, Any]) -> Iterator[str]:
    compared = result_of(results, "comparison") or []
    found = below(results, "pipelines/")
    if not found:
        return
    first_name, first = next(iter(found.items()))
    measure = first["measure"]
    best = first["modes"][first["default"]][measure]
    interval = f" [{best['low']:.3f}, {best['high']:.3f}]" if best["low"] is not None else ""
    name = f"{first_name} ({first['default']})"
    yield f"Of all queries, the pipeline {name} is worth {measure} {best['mean']:.3f}{interval}."
    for each in compared:
        if each["p"] < ALPHA:
            worse = "less" if each["mean"] < 0 else "more"
            yield (
                f"The pipeline {each['pipeline']} ({each['mode']}) is worth {abs(each['mean']):.3f} {worse} than that "
                f"[{each['low']:+.3f}, {each['high']:+.3f}], p = {each['p']:.4f} (Holm)."
            )
    same = [f"{each['pipeline']} ({each['mode']})" for each in compared if each["p"] >= ALPHA]
    if same:
        yield f"No difference to it was shown for {', '.join(same)}."


def _metrics(results: Mapping[str, Any]) -> Iterator[str]:
    found = result_of(results, "metrics")
    if not found:
        return
    better = {arm: each for arm, each in found["against"].items() if each["p"] < ALPHA and each["mean"] > 0}
    if not better:
        yield f"No metric is shown to find more than {found['deployed']} with these vectors."
    for arm, each in better.items():
        yield (
            f"Exact search under {arm} finds {with_interval(each, '+')} more than under {found['deployed']} "
            f"(p = {each['p']:.4f}, Benjamini-Hochberg)."
        )


def _ann(results: Mapping[str, Any]) -> Iterator[str]:
    found = result_of(results, "ann")
    if not found:
        return
    points = {point["name"]: point for point in found["points"]}
    knee = found["knee"]
    if knee is None:
        yield f"No setting is shown to be as good as exact search within {MARGIN}: more queries would tell."
        return
    best = points[knee["name"]]
    flat = next((point for point in found["points"] if point["configuration"] == "flat"), None)
    beside = "" if flat is None or flat is best else f" ({flat['p50_ms']:.2f} ms for exact search)"
    yield (
        f"The cheapest setting that is not worse than exact search by {knee['margin']} is {knee['name']}: "
        f"{best['p50_ms']:.2f} ms a query{beside}, recall {best['recall']:.3f}."
    )


def _recommendation(results: Mapping[str, Any]) -> Iterator[str]:
    found = result_of(results, "recommendation")
    if not found:
        return
    choices = found["choices"]
    guesses = [
        f"{CHOOSERS[name]} abstains" if each["metric"] is None else f"{CHOOSERS[name]} chooses {_choice(each)}"
        for name, each in choices.items()
        if name != "measured"
    ]
    yield f"Without judgements {' and '.join(guesses)}; with them it is {_choice(choices['measured'])}."


def _choice(each: Mapping[str, Any]) -> str:
    return f"{each['metric']} and {'no index' if each['family'] is None else INDEX_FAMILIES[each['family']]}"


def _hubs(results: Mapping[str, Any]) -> Iterator[str]:
    found = result_of(results, "probes/hubness")
    if not found:
        return
    for arm, each in found["histogram"]["metrics"].items():
        if each["skew"] >= _HUBBY:
            yield (
                f"Under {arm} a few documents are near everything (10-occurrence skew {each['skew']:.1f}); "
                f"{each['anti_hubs']:.0%} of the documents are among the 10 nearest of no other."
            )


def _probes(results: Mapping[str, Any]) -> Iterator[str]:
    for name, probe in below(results, "probes/").items():
        shown = [row for row in probe["rows"] if row["change"] is not None and row["change"]["high"] < 0]
        if shown and name != "hubness":
            mildest = max(shown, key=lambda row: row["change"]["mean"])
            worst = min(shown, key=lambda row: row["change"]["mean"])
            also = f"; the worst is {setting_text(worst['setting'])} with {_cost(worst)}"
            yield (
                f"{name.capitalize()}: against {probe['unchanged']}, the mildest setting shown to cost anything is "
                f"{setting_text(mildest['setting'])} with {_cost(mildest)}{'' if worst is mildest else also}."
            )
        wrong = [row for row in probe["rows"] if row["measures"].get("wrong", 0) or row["measures"].get("ghosts", 0)]
        if wrong:
            yield f"{name.capitalize()}: results that must not be there were returned in {len(wrong)} settings."
        if name == "filters":
            worst = max(probe["rows"], key=lambda row: row["measures"]["loss"])
            loss = worst["measures"]["loss"]
            yield (
                f"Filters: against {probe['unchanged']}, {f'at most {loss:.3f}' if loss > 0 else 'nothing'} is lost; "
                f"recall is at least {min(row['measures']['recall'] for row in probe['rows']):.3f}."
            )
        if name == "runbook" and not shown and not wrong:
            widest = min(row["change"]["low"] for row in probe["rows"])
            yield (
                f"Runbook: no step of {len(probe['rows'])} is shown to cost anything against {probe['unchanged']} "
                f"(at most {max(0.0, -widest):.3f}), and nothing that was deleted came back."
            )


def _cost(row: Mapping[str, Any]) -> str:
    change = row["change"]
    return f"{-change['mean']:.3f} [{-change['high']:.3f}, {-change['low']:.3f}]"


def setting_text(setting: Mapping[str, Any]) -> str:
    """Return a probe's setting in a few words."""
    shown = {name: f"{value:g}" if isinstance(value, float) else str(value) for name, value in setting.items()}
    return ", ".join(f"{name} {value}" for name, value in shown.items())
