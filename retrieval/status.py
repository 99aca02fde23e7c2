"""`grapnel info`: what a collection holds, as plain values."""

import stat
from contextlib import suppress
from pathlib import Path
from typing import Any

from index.ann_format import About, read_about
from retrieval.collection import Collection
from retrieval.collection_config import DenseField, field_kind
from retrieval.generation import ComponentRef, open_ref
from retrieval.phrases.config import SubstringField
from retrieval.pipeline_config import modes


def describe(collection: Collection) -> dict[str, Any]:
    """Return counts, generation, fields and sizes of a collection as JSON values.

    Raises IndexFormatError where what describes a component is damaged; its other files are not looked at.
    """
    shard = collection.shard
    generation = shard.generation()
    with shard.store.snapshot() as snapshot:
        documents, op = snapshot.document_count(), snapshot.last_op()
        fresh, dead = snapshot.written_since(generation.op) if generation else (0, 0)
    fields = field_facts(collection)
    for name, field in collection.config.fields.items():
        about = fields[name]
        if isinstance(field, DenseField):
            about |= {
                "encoder": field.encoder.path if field.encoder.kind == "sentence-transformers" else field.encoder.kind,
                "index": field.index,
                "storage": field.storage,
                "device": field.device,
            }
        elif isinstance(field, SubstringField):
            about |= {"tokenizer": field.tokenizer, "mode": field.mode, "case": field.case}
        else:
            about |= {"engine": field.engine, "language": field.language}
        if generation and name in generation.components:
            about |= _component(shard.folder, name, generation.components[name])
        if isinstance(field, SubstringField) and about.get("tokens"):
            about["bytes_per_token"] = round(about["size_bytes"] / about["tokens"], 2)
    return {
        "folder": str(collection.folder),
        "documents": documents,
        "passages": generation.passages if generation else 0,
        "operation": op,
        "generation": generation.number if generation else None,
        "fresh_passages": fresh,
        "replaced_passages": dead,
        "chunking": collection.config.chunking.kind,
        "fields": fields,
        "default_mode": collection.pipeline.default,
        "modes": modes(collection.pipeline, collection.config),
        "size_bytes": folder_bytes(collection.folder),
    }


def field_facts(collection: Collection) -> dict[str, dict[str, Any]]:
    """Return of each field what its searches take and give, as JSON values; nothing that depends on documents."""
    fingerprints = collection.shard.vectors.fingerprints
    return {
        name: {"kind": "dense", "fingerprint": fingerprints[name], "metric": field.metric}
        if isinstance(field, DenseField)
        else {"kind": field_kind(field)}
        for name, field in collection.config.fields.items()
    }


def folder_bytes(folder: Path) -> int:
    """Return the bytes of all files below a folder; files that a writer removes meanwhile count nothing."""
    total = 0
    for path in folder.rglob("*"):
        with suppress(FileNotFoundError):
            status = path.stat()
            total += status.st_size if stat.S_ISREG(status.st_mode) else 0
    return total


def _component(shard: Path, name: str, ref: ComponentRef) -> dict[str, Any]:
    component = open_ref(shard, name, ref, verify=False)
    return {"size_bytes": component.size_bytes, **component.counts, **index_facts(read_about(component.folder))}


def index_facts(about: About | None) -> dict[str, Any]:
    """Return what an index became and its measured recall, as JSON values; nothing for plain exact search."""
    if about is None:
        return {}
    facts: dict[str, Any] = {"built_as": about.kind}
    if about.reason:
        facts["because"] = about.reason
    for each in about.calibrated:
        recall = each.recall
        target = f"target {recall.target:g}" + ("" if recall.reached else " NOT REACHED")
        facts[f"recall@{recall.k}"] = f"{recall.measured:.3f} (remote queries at least {recall.remote:.3f}, {target})"
    return facts
