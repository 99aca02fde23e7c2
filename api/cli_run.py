"""`grapnel run`: a file of queries to a TREC run."""

import time
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path

from rich.text import Text

from api.cli_filter import filter_argument
from api.cli_output import Output, visible
from index.errors import RequestError
from retrieval.collection import Collection
from retrieval.pipeline_config import resolve_mode
from retrieval.progress import Progress
from retrieval.types import Ranking, SearchRequest


def run(args: Namespace, output: Output) -> int:
    """Answer every query and write the run; the file appears whole or not at all."""
    from evaluation.trec import escape_id, read_queries, write_run  # noqa: PLC0415  evaluation is reached lazily

    if args.batch < 1:
        raise RequestError(f"--batch is {args.batch}, expected at least 1")
    queries = read_queries(args.queries)
    condition = filter_argument(args.filter)
    requests = [SearchRequest(query, k=args.k, filter=condition) for query in queries]
    with Collection.open(args.dir, pipeline=args.pipeline) as collection, output.progress() as stages:
        mode = resolve_mode(collection.pipeline, collection.config, args.mode)
        begin = time.perf_counter()
        rankings = _answers(collection, requests, mode, args.batch, stages)
        written = write_run(Path(args.output), rankings, f"grapnel-{escape_id(mode).replace('%', '_')}")
        seconds = time.perf_counter() - begin
    value = {
        "output": str(args.output),
        "mode": mode,
        "queries": len(queries),
        "unanswered": written.unanswered,
        "hits": written.hits,
        "seconds": round(seconds, 3),
    }
    summary = f"{len(queries):,} queries, {written.hits:,} hits in {seconds:.1f} s ({mode}), written to {args.output}"
    output.answer(value, Text(visible(summary)))
    if written.unanswered and not output.as_json:
        output.note(f"{written.unanswered:,} queries have no hits and so no lines in the run")
    return 0


def _answers(
    collection: Collection, requests: list[SearchRequest], mode: str, batch: int, progress: Progress
) -> Iterator[Ranking]:
    for start in range(0, len(requests), batch):
        yield from collection.search_many(requests[start : start + batch], mode=mode)
        progress("queries", min(start + batch, len(requests)), len(requests))
