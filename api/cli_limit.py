"""`grapnel limit`: generate LIMIT datasets, run retrievers on them, and try what free vectors could do."""

import tempfile
from argparse import Namespace
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from api.cli_output import Output, facts, visible
from index.errors import RequestError
from retrieval.collection import Collection
from retrieval.collection_config import read_collection_config
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
        found = _measured(args, stages)
    rounded = {name: {**values, "seconds": round(values["seconds"], 3)} for name, values in found.items()}
    table = Table("retriever", *next(iter(found.values())), box=None, pad_edge=False)
    for name, values in found.items():
        table.add_row(visible(name), *(f"{value:.3f}" for value in values.values()))
    output.answer({"dataset": str(args.dataset), "retrievers": rounded}, table)
    return 0


def _measured(args: Namespace, progress: Progress) -> dict[str, dict[str, float]]:
    """Return by name of a retriever or mode its measures, and the seconds of its searches."""
    from evaluation.limit_run import RETRIEVERS, compare, compare_modes, opened  # noqa: PLC0415  as above

    if args.collection is not None:
        with Collection.open(args.collection) as collection:
            found = compare_modes(args.dataset, collection, progress=progress)
    else:
        with nullcontext(args.work) if args.work else tempfile.TemporaryDirectory(prefix="grapnel-limit-") as work:
            if args.config is None:
                names = args.retrievers.split(",") if args.retrievers else list(RETRIEVERS)
                found = compare(args.dataset, names, Path(work), progress=progress)
            else:
                config = read_collection_config(Path(args.config))
                with opened(args.dataset, config, Path(work) / "configured", progress=progress) as collection:
                    found = compare_modes(args.dataset, collection, progress=progress)
    return {name: {**standing.values, "seconds": standing.seconds} for name, standing in found.items()}


def _free_embeddings(args: Namespace, output: Output) -> int:
    from evaluation.limit_free import PUBLISHED, critical_n  # noqa: PLC0415  as above

    seeds = range(args.seed, args.seed + args.starts)
    rows: list[dict[str, Any]] = []
    table = Table("dim", "documents solved", "published", "published fit", "seconds", box=None, pad_edge=False)
    with output.progress() as stages:
        for dim in _whole_numbers("--dims", args.dims):
            found = critical_n(dim, k=args.k, seeds=seeds, progress=stages)
            published = PUBLISHED.get(dim) if args.k == 2 else None
            fit = "-" if found.fit is None else f"{found.fit:.1f}"
            table.add_row(str(dim), str(found.documents), str(published or "-"), fit, f"{found.seconds:.1f}")
            tried = [{"documents": number, **asdict(attempt)} for number, attempt in found.tried.items()]
            rows.append(
                {
                    "dim": dim,
                    "documents": found.documents,
                    "published": published,
                    "published_fit": found.fit,
                    "seconds": round(found.seconds, 3),
                    "tried": tried,
                }
            )
    summary = Text(f"The largest number of documents whose every set of {args.k} is ranked first by some query vector.")
    output.answer({"k": args.k, "seeds": list(seeds), "dims": rows}, table, summary)
    return 0


def _whole_numbers(option: str, text: str) -> list[int]:
    parts = text.split(",")
    if not all(part.strip().isdecimal() and int(part) for part in parts):
        raise RequestError(f"{option} is {text!r}, expected whole numbers from 1 with commas between, such as 4,6,8")
    return [int(part) for part in parts]
