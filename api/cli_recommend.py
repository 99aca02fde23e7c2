"""`grapnel recommend`: which metric, index and effort suit a collection, measured on its own vectors."""

from argparse import Namespace
from collections.abc import Mapping
from typing import Any

from rich.text import Text

from api.cli_output import Output, facts, visible
from api.cli_sizes import size
from index.errors import ConfigError, RequestError
from retrieval.collection import Collection
from retrieval.collection_config import FILE


def recommend(args: Namespace, output: Output) -> int:
    """Measure every dense field that is asked about, and say what to put into collection.toml."""
    from evaluation.advice import Wishes  # noqa: PLC0415  evaluation is reached lazily
    from evaluation.recommend import recommend as advise  # noqa: PLC0415  as above
    from evaluation.trec import read_qrels, read_queries  # noqa: PLC0415  as above

    if args.qrels is not None and args.queries is None:
        raise RequestError("--qrels judges queries: give --queries, too")
    wishes = Wishes(args.recall, args.memory_gb, args.latency_ms, args.k, args.measure, args.sample, args.seed)
    queries = [] if args.queries is None else read_queries(args.queries)
    qrels = None if args.qrels is None else read_qrels(args.qrels)
    with Collection.open(args.dir) as collection, output.progress() as stages:
        names = list(collection.config.dense_fields()) if args.field is None else [args.field]
        if not names:
            raise ConfigError(f"{args.dir} has no dense field: there is no vector index to choose")
        found = [_value(advise(collection, name, wishes, queries, qrels, stages)) for name in names]
    value = {"collection": args.dir, "recall": args.recall, "seed": args.seed, "fields": found}
    shown = [
        part
        for each in found
        for part in (facts(_rows(each, args.recall)), Text(), Text(visible(each["toml"])), Text())
    ]
    told = Text(f"Set this in {FILE} and build again; other keys of the table stay as they are.")
    output.answer(value, *shown, told)
    if not output.as_json:
        for each in found:
            for note in each["notes"]:
                output.note(f"{each['field']}: {note}")
    return 0


def _value(advice: Any) -> dict[str, Any]:
    """Return the JSON value of an evaluation.recommend.Advice."""
    metric = advice.metric
    names = ("field", "kind", "measured", "worth", "exact", "exact_ms", "met", "memory_bytes", "p50_ms", "passages")
    return {
        **{name: getattr(advice, name) for name in (*names, "sample", "queries", "tried", "toml")},
        "metric": metric.metric,
        "why": metric.why,
        "path": list(metric.path),
        "abstained": metric.abstained,
        "metrics": {
            name: {"mean": mean, "interval": list(interval)} for name, (mean, interval) in metric.measured.items()
        },
        "effort": {name: int(value) for name, value in advice.effort.items()},
        "interval": list(advice.interval),
        "build_recall": advice.recall,
        "notes": list(advice.notes),
    }


def _rows(value: Mapping[str, Any], target: float) -> dict[str, str]:
    effort = ", ".join(f"{name} {number}" for name, number in value["effort"].items())
    low, high = value["interval"]
    rows = {
        "field": f"{value['field']}: {value['passages']:,} passages, {value['sample']:,} of them indexed to measure",
        "metric": value["metric"],
        "because": value["why"],
    }
    if value["path"]:
        rows["by way of"] = "; ".join(value["path"])
    for name, found in value["metrics"].items():
        rows[f"{value['measured']} by {name}"] = (
            f"{found['mean']:.4f} [{found['interval'][0]:.4f}, {found['interval'][1]:.4f}], exact search"
        )
    exact = value["kind"] == "flat"
    beside = "" if exact else f"; exact search {value['exact']:.4f} in {value['exact_ms']:.2g} ms"
    return rows | {
        "index": value["kind"],
        "effort": effort or ("every vector" if exact else "as calibrated by the build"),
        value[
            "measured"
        ]: f"{value['worth']:.4f} [{low:.4f}, {high:.4f}] on {value['queries']:,} queries that had no part "
        "in the choice",
        "target": f"{target:g} of what exact search has: {'met' if value['met'] else 'NOT met, or not beyond chance'}",
        "latency": f"{value['p50_ms']:.2g} ms, the median of single searches by one thread{beside}",
        "memory": f"{size(value['memory_bytes'])}, the vectors among it",
        "tried": f"{value['tried']} settings",
    }
