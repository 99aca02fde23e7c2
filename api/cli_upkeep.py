"""`grapnel compact`, `info`, `verify`, `export` and `import`: a collection as a whole."""

from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from api.cli_build import encoded_rows, index_rows
from api.cli_output import Output, facts, visible
from api.cli_sizes import size
from api.cli_target import open_target
from retrieval.archive import export_collection, import_collection
from retrieval.collection import Collection
from retrieval.verify import verify


def compact(args: Namespace, output: Output) -> int:
    """Fold everything written into a new generation."""
    with open_target(args, writable=True) as target, output.progress() as stages:
        value = target.compact(stages)
    rows = {
        "generation": f"{value['generation']:,}",
        "passages": f"{value['passages']:,}",
        "built": ", ".join(value["built"]) or "nothing",
        "carried over": ", ".join(value["reused"]) or "nothing",
        **encoded_rows(value),
        **index_rows(value),
    }
    output.answer(value, facts(rows))
    return 0


def info(args: Namespace, output: Output) -> int:
    """Say what a collection holds."""
    with open_target(args) as target:
        value = target.describe()
    fields = value["fields"]
    rows = {name: _shown(name, item) for name, item in value.items() if name != "fields"}
    output.answer(value, facts(rows), Text(), _fields(fields))
    return 0


def _shown(name: str, value: Any) -> str:
    if name == "size_bytes":
        return size(value)
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_shown(key, item)}" for key, item in value.items())
    if isinstance(value, list):
        return ", ".join(str(item) for item in value)
    return f"{value:,}" if isinstance(value, int) else "none yet" if value is None else str(value)


def _fields(fields: Mapping[str, Mapping[str, Any]]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("field")
    table.add_column("kind")
    table.add_column("about", overflow="fold")
    for name, about in fields.items():
        rest = ", ".join(f"{key} {_shown(key, value)}" for key, value in about.items() if key != "kind")
        table.add_row(name, str(about["kind"]), visible(rest))
    return table


def verify_files(args: Namespace, output: Output) -> int:
    """Read every byte of a collection; exit status 1 when anything is damaged."""
    with output.progress() as stages:
        problems = verify(args.dir, stages)
    lines = [Text(visible(problem), style="red") for problem in problems] or [Text("no problems found")]
    output.answer({"clean": not problems, "problems": problems}, *lines)
    return 1 if problems else 0


def export_file(args: Namespace, output: Output) -> int:
    """Write a collection to one file."""
    path = Path(args.file)
    with Collection.open(args.dir) as collection, output.progress() as stages:
        documents = export_collection(collection, path, stages)
    size_bytes = path.stat().st_size
    value = {"file": str(path), "documents": documents, "size_bytes": size_bytes}
    output.answer(value, Text(f"{documents:,} documents, {size(size_bytes)}, written to {visible(str(path))}"))
    return 0


def import_file(args: Namespace, output: Output) -> int:
    """Make a collection from an exported file."""
    with output.progress() as stages:
        documents = import_collection(args.file, args.out, stages)
    value = {"folder": str(args.out), "documents": documents}
    output.answer(value, Text(f"{documents:,} documents imported into {visible(args.out)}"))
    return 0
