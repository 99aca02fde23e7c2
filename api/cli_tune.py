"""`grapnel tune`: fit the fusion of a collection to judged queries."""

from argparse import Namespace
from dataclasses import asdict

from api.cli_output import Output, facts
from retrieval.collection import Collection
from retrieval.pipeline_config import FILE


def tune_collection(args: Namespace, output: Output) -> int:
    """Measure, and write pipeline.toml when the cross-validated gain is positive."""
    from evaluation.trec import read_qrels, read_queries  # noqa: PLC0415  evaluation is reached lazily
    from evaluation.tune import MEASURE, tune  # noqa: PLC0415  as above

    queries, qrels = read_queries(args.queries), read_qrels(args.qrels)
    with Collection.open(args.dir) as collection, output.progress() as stages:
        report = tune(collection, queries, qrels, mode=args.mode, seed=args.seed, progress=stages)
        written = report.adopted and not args.dry_run
        if written:
            collection.set_pipeline(report.pipeline, report.comment)
        path = collection.folder / FILE
    weights = dict(zip(report.parts, report.weights, strict=True))
    value = {
        **{key: item for key, item in asdict(report).items() if key not in {"pipeline", "table"}},
        "weights": weights,
        "measure": MEASURE,
        "seed": args.seed,
        "written": str(path) if written else None,
    }
    outcome = (
        f"written to {path}" if written else "not written (--dry-run)" if report.adopted else "not adopted: no gain"
    )
    rows = {
        "judged queries": f"{report.queries:,}",
        "chosen": ", ".join(f"{name} {weight:.2f}" for name, weight in weights.items()) + f", depth {report.depth}",
        f"{MEASURE} now": f"{report.default:.4f}",
        f"{MEASURE} chosen": f"{report.fitted:.4f} on the queries it was chosen by",
        "gain": f"{report.gain:+.4f} +- {report.gain_error:.4f} on held-out queries (5-fold cross-validation)",
        "pipeline.toml": outcome,
    }
    output.answer(value, facts(rows))
    return 0
