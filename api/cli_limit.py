"""`grapnel limit`: generate LIMIT datasets, run retrievers on them, and try what free vectors could do."""

import tempfile
from argparse import Namespace
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from api.cli_output import Output, facts, visible
from index.errors import RequestError
from retrieval.collection import Collection
from retrieval.collection_config import read_collection_config

if TYPE_CHECKING:
    from evaluation.limit_free import Critical
    from evaluation.limit_run import Standing
    from retrieval.progress import Progress


def limit(args: Namespace, output: Output) -> int:
    """Do what `args.action` names."""
    return {"generate": _generate, "run": _run, "free-embeddings": _free_embeddings}[args.action](args, output)


def _generate(args: Namespace, output: Output) -> int:
    from evaluation.limit import LimitConfig, generate, write  # noqa: PLC0415  evaluation is reached lazily

    config = LimitConfig(
        queries=args.queries,
        documents=args.documents,
        pattern=args.pattern,
        k=args.k,
        attributes=args.attributes,
        synonyms=args.synonyms,
        seed=args.seed,
    )
    dataset = generate(config)
    write(args.out, dataset)
    relevant = {doc_id for grades in dataset.qrels.values() for doc_id in grades}
    value = {
        "folder": str(args.out),
        **asdict(config),
        "documents": len(dataset.documents),
        "relevant_documents": len(relevant),
        "judgements": sum(map(len, dataset.qrels.values())),
    }
    rows = {
        "documents": f"{len(dataset.documents):,}, {len(relevant):,} of them relevant to some query",
        "queries": f"{config.queries:,}, {config.k} relevant documents each ({config.pattern})",
        "written": f"corpus.jsonl, queries.jsonl, qrels/test.tsv in {args.out}",
    }
    output.answer(value, facts(rows))
    return 0


def _run(args: Namespace, output: Output) -> int:
    with output.progress() as stages:
        standings = _standings(args, stages)
    value = {
        "dataset": str(args.dataset),
        "retrievers": {name: {**found.values, "seconds": round(found.seconds, 3)} for name, found in standings.items()},
    }
    output.answer(value, _standings_table(standings))
    return 0


def _standings(args: Namespace, progress: "Progress") -> "dict[str, Standing]":
    from evaluation.limit_run import RETRIEVERS, compare, compare_modes, opened  # noqa: PLC0415  as above

    if args.collection is not None:
        with Collection.open(args.collection) as collection:
            return compare_modes(args.dataset, collection, progress=progress)
    with nullcontext(args.work) if args.work else tempfile.TemporaryDirectory(prefix="grapnel-limit-") as work:
        if args.config is None:
            names = args.retrievers.split(",") if args.retrievers else list(RETRIEVERS)
            return compare(args.dataset, names, Path(work), progress=progress)
        config = read_collection_config(Path(args.config))
        with opened(args.dataset, config, Path(work) / "configured", progress=progress) as collection:
            return compare_modes(args.dataset, collection, progress=progress)


def _standings_table(standings: "Mapping[str, Standing]") -> Table:
    measures = next(iter(standings.values())).values
    table = Table("retriever", *measures, "seconds", box=None, pad_edge=False)
    for name, found in standings.items():
        table.add_row(visible(name), *(f"{value:.3f}" for value in found.values.values()), f"{found.seconds:.1f}")
    return table


def _free_embeddings(args: Namespace, output: Output) -> int:
    from evaluation.limit_free import critical_n  # noqa: PLC0415  as above

    dims, seeds = _whole_numbers("--dims", args.dims), range(args.seed, args.seed + args.starts)
    with output.progress() as stages:
        found = [critical_n(dim, k=args.k, seeds=seeds, progress=stages) for dim in dims]
    value = {"k": args.k, "seeds": list(seeds), "dims": [_free_value(critical) for critical in found]}
    table = Table("dim", "documents solved", "published", "published fit", "seconds", box=None, pad_edge=False)
    for critical, row in zip(found, value["dims"], strict=True):
        published, fit = row["published"] or "-", "-" if critical.fit is None else f"{critical.fit:.1f}"
        table.add_row(str(critical.dim), str(critical.documents), str(published), fit, f"{critical.seconds:.1f}")
    output.answer(value, table, Text("The largest number of documents whose every set of k can be ranked first."))
    return 0


def _free_value(critical: "Critical") -> dict[str, Any]:
    from evaluation.limit_free import PUBLISHED  # noqa: PLC0415  as above

    return {
        "dim": critical.dim,
        "documents": critical.documents,
        "published": PUBLISHED.get(critical.dim) if critical.k == 2 else None,
        "published_fit": critical.fit,
        "seconds": round(critical.seconds, 3),
        "tried": [{"documents": number, **asdict(attempt)} for number, attempt in critical.tried.items()],
    }


def _whole_numbers(option: str, text: str) -> list[int]:
    parts = text.split(",")
    if not all(part.strip().isdecimal() and int(part) for part in parts):
        raise RequestError(f"{option} is {text!r}, expected whole numbers from 1 with commas between, such as 4,6,8")
    return [int(part) for part in parts]
