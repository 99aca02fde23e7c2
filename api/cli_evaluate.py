"""`grapnel evaluate`: a run and judgements to numbers that say how sure they are."""

from argparse import Namespace
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from rich.table import Table

from api.cli_output import Output, facts, one_line


def evaluate_run(args: Namespace, output: Output) -> int:
    """Measure a run, compare it with a baseline if there is one, and say what the numbers rest on."""
    from evaluation.compare import evaluate, write_values  # noqa: PLC0415  evaluation is reached lazily
    from evaluation.measures import check_measures  # noqa: PLC0415  as above
    from evaluation.trec import read_qrels, read_run  # noqa: PLC0415  as above

    measures = args.measures.split()
    check_measures(measures)  # before long files are read
    qrels, run = read_qrels(args.qrels), read_run(args.run)
    baseline = None if args.baseline is None else read_run(args.baseline)
    evaluation = evaluate(run, qrels, measures, baseline=baseline, seed=args.seed)
    if args.per_query is not None:
        write_values(args.per_query, evaluation)
    other = evaluation.baseline_coverage
    value = {
        "run": args.run,
        "qrels": args.qrels,
        "baseline": args.baseline,
        "seed": args.seed,
        "queries": asdict(evaluation.coverage),
        "baseline_queries": None if other is None else asdict(other),
        "measures": {result.measure: _measure_value(result) for result in evaluation.measures},
        "per_query": args.per_query,
        "notes": list(evaluation.notes),
    }
    output.answer(value, facts(_counts(value)), "", _table(value))
    if not output.as_json:
        for note in evaluation.notes:
            output.note(note)
    return 0


def _measure_value(result: Any) -> dict[str, Any]:
    """Return the JSON value of an evaluation.compare.MeasureResult."""
    value: dict[str, Any] = {"mean": result.mean, "interval": result.interval}
    if result.baseline_mean is not None:
        compared = result.comparison
        value |= {
            "baseline": {"mean": result.baseline_mean, "interval": result.baseline_interval},
            "difference": result.mean - result.baseline_mean,
            "difference_interval": None if compared is None else [compared.low, compared.high],
            "p_t": None if compared is None else compared.p_t,
            "p_permutation": None if compared is None else compared.p_permutation,
            "p_holm": result.p_holm,
        }
    return value


def _counts(value: Mapping[str, Any]) -> dict[str, str]:
    mine, other = value["queries"], value["baseline_queries"]
    rows = {
        "judged queries": f"{mine['judged']:,} with a relevant document, {mine['without_relevant']:,} without",
        "run": _answered(mine),
    }
    return rows if other is None else {**rows, "baseline": _answered(other)}


def _answered(coverage: Mapping[str, int]) -> str:
    return (
        f"{coverage['answered']:,} answered, {coverage['unanswered']:,} unanswered; "
        f"{coverage['unjudged']:,} more that nobody judged"
    )


def _table(value: Mapping[str, Any]) -> Table:
    compared = value["baseline"] is not None
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("measure")
    names = ["mean", "95 % interval"]
    if compared:
        names += ["baseline", "difference", "95 % interval", "p (t)", "p (permutation)", "p (Holm)"]
    for name in names:
        table.add_column(name, justify="right")
    for measure, found in value["measures"].items():
        cells = [one_line(measure), f"{found['mean']:.4f}", _bounds(found["interval"])]
        if compared:
            cells += [f"{found['baseline']['mean']:.4f}", f"{found['difference']:+.4f}"]
            cells += [_bounds(found["difference_interval"], "+")]
            cells += [_p(found[name]) for name in ("p_t", "p_permutation", "p_holm")]
        table.add_row(*cells)
    return table


def _bounds(interval: tuple[float, float] | None, sign: str = "") -> str:
    return "-" if interval is None else f"{interval[0]:{sign}.4f} .. {interval[1]:{sign}.4f}"


def _p(value: float | None) -> str:
    if value is None:
        return "-"
    return "< .0001" if value < 0.0001 else f"{value:.4f}"
