"""`grapnel build`: from a source to a searchable collection."""

import shlex
from argparse import Namespace
from pathlib import Path
from typing import Any

from rich.text import Text

from api.cli_output import Output, facts
from api.cli_progress import Stages
from api.cli_sizes import size
from index.errors import ConfigError, GrapnelError, LockedError
from retrieval.collection import SHARD, build
from retrieval.collection_config import FILE, CollectionConfig, parse_collection, read_collection_config
from retrieval.compaction import CompactionReport
from retrieval.config import override
from retrieval.generation import CURRENT
from retrieval.ingest import AddReport
from retrieval.sources import open_source
from retrieval.status import folder_bytes, index_facts


def build_collection(args: Namespace, output: Output) -> int:
    """Build the collection; say what was done, how long each stage took, and what to type next."""
    folder = Path(args.out)
    config = _config(args, folder)
    source = open_source(args.source)
    try:
        with output.progress() as stages:
            added, compacted = build(
                folder, source.documents(), config, resume=args.resume, progress=stages, total=source.estimate
            )
    except (ConfigError, LockedError):
        raise
    except (GrapnelError, KeyboardInterrupt):
        if (folder / FILE).exists() and not (folder / SHARD / CURRENT).exists():
            output.note("what was done is kept: run the same command with --resume to go on")
        raise
    value = {
        "folder": str(folder),
        "documents": _documents(added),
        "skipped": source.skipped,
        **compaction_value(compacted),
        "size_bytes": folder_bytes(folder),
        "seconds": {stage: round(seconds, 3) for stage, seconds in stages.seconds.items()},
    }
    output.answer(value, facts(_rows(value, stages)), _next(folder))
    if not output.as_json:
        for line in source.skipped:
            output.note(line)
    return 0


def _config(args: Namespace, folder: Path) -> CollectionConfig:
    if args.config is not None:
        return read_collection_config(Path(args.config), args.set)
    if args.set:
        return parse_collection(override({}, args.set), "--set")
    if args.resume and (folder / FILE).exists():  # a resumed build need not repeat how it was begun
        return read_collection_config(folder / FILE)
    return CollectionConfig()


def _documents(report: AddReport) -> dict[str, int]:
    return {"added": report.added, "updated": report.updated + report.patched, "unchanged": report.unchanged}


def compaction_value(report: CompactionReport) -> dict[str, Any]:
    """Return a compaction's report as JSON values."""
    return {
        "generation": report.generation.number,
        "passages": report.generation.passages,
        "built": list(report.built),
        "reused": sorted(report.reused),
        "encoded": {
            name: {
                "encoded": field.encoded,
                "reused": field.reused,
                "truncated": field.truncated,
                "runs_on": field.runs_on,
            }
            for name, field in report.encoded.items()
        },
        "indexes": {name: index_facts(about) for name, about in report.indexes.items()},
    }


def encoded_rows(value: dict[str, Any]) -> dict[str, str]:
    """Return one row per encoded field for people. value: of `compaction_value`; a server tells less, so no rows."""
    encoded: dict[str, dict[str, Any]] = value.get("encoded", {})
    return {
        f"texts of {name}": f"{counts['encoded']:,} encoded, {counts['reused']:,} reused"
        + (f", {counts['truncated']:,} longer than the window and cut" if counts["truncated"] else "")
        for name, counts in encoded.items()
    } | {f"encoder of {name}": counts["runs_on"] for name, counts in encoded.items() if counts["runs_on"]}


def index_rows(value: dict[str, Any]) -> dict[str, str]:
    """Return one row per approximate index for people. value: as for `encoded_rows`."""
    return {
        f"index of {name}": ", ".join(
            fact if key in {"built_as", "because"} else f"{key} {fact}" for key, fact in facts_.items()
        )
        for name, facts_ in value.get("indexes", {}).items()
        if facts_
    }


def _rows(value: dict[str, Any], stages: Stages) -> dict[str, str]:
    counts = {name: count for name, count in value["documents"].items() if count or name == "added"}
    return {
        "documents": ", ".join(f"{count:,} {name}" for name, count in counts.items()),
        "passages": f"{value['passages']:,}",
        **encoded_rows(value),
        **index_rows(value),
        "size": size(value["size_bytes"]),
        **{stage: f"{seconds:.1f} s" for stage, seconds in stages.seconds.items()},
        "total": f"{sum(stages.seconds.values()):.1f} s",
    }


def _next(folder: Path) -> Text:
    name = shlex.quote(str(folder))
    return Text(f'\nNext:\n  grapnel search {name} "a question"\n  grapnel info {name}\n  grapnel add {name} SOURCE')
