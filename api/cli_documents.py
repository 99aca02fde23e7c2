"""`grapnel add`, `delete` and `get`: single documents of a collection."""

import json
from argparse import Namespace
from typing import Any

from rich.text import Text

from api.cli_filter import filter_argument
from api.cli_output import Output, facts, visible
from api.cli_target import open_target
from index.errors import CorpusError, NotFoundError, RequestError
from retrieval.sources import open_source
from retrieval.types import Document


def add(args: Namespace, output: Output) -> int:
    """Add or replace the documents of a source; each batch is durable as soon as it is through."""
    with open_target(args, writable=True) as target:
        source = open_source(args.source)
        try:
            with output.progress() as stages:
                counts = target.add(source.documents(), stages)
        except (CorpusError, KeyboardInterrupt):
            output.note(f"the first {stages.done:,} documents are stored; adding them again changes nothing")
            raise
    value = {**counts, "skipped": source.skipped}
    rows = {name: f"{count:,}" for name, count in counts.items() if count}
    output.answer(value, facts(rows or {"unchanged": "0"}))
    if not output.as_json:
        for line in source.skipped:
            output.note(line)
    return 0


def delete(args: Namespace, output: Output) -> int:
    """Delete documents by id and by filter; ids that are not there are only counted out."""
    if not args.ids and args.filter is None:
        raise RequestError("nothing to delete: give ids, or --filter JSON")
    condition = filter_argument(args.filter)
    with open_target(args, writable=True) as target:
        count = target.delete(args.ids, condition)
    asked = f" of {len(set(args.ids)):,} asked for" if condition is None else ""
    output.answer({"deleted": count}, Text(f"{count:,} deleted{asked}"))
    return 0


def get(args: Namespace, output: Output) -> int:
    """Print one document as it was given."""
    with open_target(args) as target:
        document = target.get(args.id)
    if document is None:
        raise NotFoundError(f"no document {args.id!r} in {args.dir}")
    output.answer(_value(document), *_for_people(document))
    return 0


def _value(document: Document) -> dict[str, Any]:
    value = {
        "id": document.id,
        "title": document.title,
        "text": document.text,
        "metadata": dict(document.metadata),
    }
    if document.vectors:
        value["vectors"] = {name: vector.tolist() for name, vector in document.vectors.items()}
    return value


def _for_people(document: Document) -> list[Text]:
    parts = [Text(visible(document.id), style="bold")]
    if document.title:
        parts.append(Text(visible(document.title)))
    parts += [
        Text(visible(f"{key}: {json.dumps(value, ensure_ascii=False)}"), style="dim")
        for key, value in document.metadata.items()
    ]
    parts += [
        Text(visible(f"vector {name}: {len(vector)} numbers"), style="dim") for name, vector in document.vectors.items()
    ]
    return [*parts, Text(visible(f"\n{document.text}"))] if document.text else parts
