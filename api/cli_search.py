"""`grapnel search`: questions to rankings, for people or as JSON."""

from argparse import Namespace
from typing import Any

from rich.console import RenderableType
from rich.text import Text

from api.cli_explain import stage_table, timing_table
from api.cli_filter import filter_argument
from api.cli_hits import hit_lines, ranking_value
from api.cli_output import Output, one_line
from api.cli_target import open_target
from index.errors import RequestError
from retrieval.snippets import query_forms
from retrieval.types import Query, SearchRequest


def search(args: Namespace, output: Output) -> int:
    """Answer one or more questions, or find what is similar to a document."""
    if bool(args.questions) == (args.like is not None):
        raise RequestError("give a question, or --like ID in place of one")
    requests = [_request(args, number, text) for number, text in enumerate(args.questions or [""], start=1)]
    with open_target(args) as target:
        mode, rankings = target.search(requests, args.mode)
    people: list[RenderableType] = []
    values: list[dict[str, Any]] = []
    for request, ranking in zip(requests, rankings, strict=True):
        forms = query_forms(request.query.text)
        values.append(ranking_value(request, ranking, forms))
        if len(requests) > 1:
            people.append(Text(one_line(request.query.text), style="bold underline"))
        people += [line for hit in enumerate(ranking.hits, start=request.offset + 1) for line in hit_lines(*hit, forms)]
        people += [Text("nothing found\n")] if not ranking.hits else []
        if args.explain and ranking.hits:
            people += [stage_table(ranking, mode, request.offset), Text()]
        people += [Text(f"note: {one_line(note)}", style="yellow") for note in ranking.notes]
    if args.explain:
        people.append(timing_table(rankings[0].timings_s))
    output.answer({"mode": mode, "rankings": values}, *people)
    return 0


def _request(args: Namespace, number: int, text: str) -> SearchRequest:
    return SearchRequest(
        Query(f"q{number}", text),
        k=args.k,
        offset=args.offset,
        filter=filter_argument(args.filter),
        group=args.group,
        min_score=args.min_score,
        diversity=args.diversity,
        like=args.like,
    )
