"""Export and import: a whole collection as one portable file, encoded vectors included.

A plain tar, so that it can be opened by anything:

    manifest.json          {"format": 1, "documents": n, "files": {name: sha256}} -- last, so a cut file is noticed
    collection.toml        pipeline.toml (if there is one)
    documents.jsonl.zst    one document a line: id, title, text, metadata, vectors (of external fields)
    vectors/<encoder fingerprint>/...   the vector store's shards, so that importing encodes nothing again
"""

import io
import json
import logging
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from index.component import sha256_file
from index.durable import fsync_folder, replaced, storage_errors
from index.errors import ConfigError, IndexFormatError, NotFoundError
from retrieval.collection import SHARD, Collection
from retrieval.collection_config import FILE as COLLECTION_FILE
from retrieval.collection_config import read_collection_config
from retrieval.pipeline_config import FILE as PIPELINE_FILE
from retrieval.progress import Progress, counted, silent
from retrieval.types import Document

log = logging.getLogger(__name__)

FORMAT = 1
_MANIFEST = "manifest.json"
_DOCUMENTS = "documents.jsonl.zst"


def export_collection(collection: Collection, path: str | Path, progress: Progress = silent) -> int:
    """Write everything stored at this moment to `path`, atomically; return the number of documents.

    Raises StorageError when the disk refuses, IndexFormatError when a stored document is damaged.
    """
    path = Path(path)
    with storage_errors("write", path), tempfile.TemporaryDirectory(dir=path.parent) as scratch:
        documents = Path(scratch) / _DOCUMENTS
        count = _write_documents(documents, collection, progress)
        sources = {COLLECTION_FILE: collection.folder / COLLECTION_FILE, _DOCUMENTS: documents}
        if (collection.folder / PIPELINE_FILE).exists():
            sources[PIPELINE_FILE] = collection.folder / PIPELINE_FILE
        vectors = collection.folder / SHARD / "vectors"
        for file in sorted(vectors.rglob("*")):
            if file.is_file() and not file.name.startswith("."):
                sources[f"vectors/{file.relative_to(vectors).as_posix()}"] = file
        with (
            replaced(path, point="export") as raw,
            tarfile.open(fileobj=raw, mode="w", format=tarfile.PAX_FORMAT) as archive,
        ):
            manifest: dict[str, Any] = {"format": FORMAT, "documents": count, "files": {}}
            for name, file in sources.items():
                try:
                    archive.add(file, name, recursive=False)
                    manifest["files"][name] = sha256_file(file)
                except FileNotFoundError:
                    if not name.startswith("vectors/"):
                        raise
                    # A compaction merged this shard away; importing encodes its texts again.
                    log.warning("left %s out: a compaction removed it meanwhile", name)
            content = json.dumps(manifest, indent=1).encode()
            entry = tarfile.TarInfo(_MANIFEST)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return count


def _write_documents(path: Path, collection: Collection, progress: Progress) -> int:
    import zstandard  # noqa: PLC0415  only archives need it

    count = 0
    with path.open("wb") as raw, zstandard.ZstdCompressor(level=3).stream_writer(raw) as file:
        for document in counted(collection.documents(), "export", len(collection), progress):
            value = {
                "id": document.id,
                "title": document.title,
                "text": document.text,
                "metadata": dict(document.metadata),
                "vectors": {name: np.asarray(vector).tolist() for name, vector in document.vectors.items()},
            }
            file.write(json.dumps(value, ensure_ascii=False).encode() + b"\n")
            count += 1
    return count


def import_collection(path: str | Path, folder: str | Path, progress: Progress = silent) -> int:
    """Build the collection that `path` holds in a new `folder`; return the number of documents.

    Raises NotFoundError, IndexFormatError when the file is damaged, cut or of another format, ConfigError when the
    folder is in use.
    """
    path, folder = Path(path), Path(folder)
    if not path.is_file():
        raise NotFoundError(f"{path} does not exist: give a file that `grapnel export` wrote")
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise ConfigError(f"{folder} is a file or not empty: choose a new folder")
    with storage_errors("write", folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".grapnel-import-") as scratch:
            content = Path(scratch)
            manifest = _unpack(path, content)
            config = read_collection_config(content / COLLECTION_FILE)
            made = content / "collection"
            with Collection.begin(made, config):
                pass
            if (content / "vectors").exists():
                (content / "vectors").rename(made / SHARD / "vectors")
            documents = _read_documents(content / _DOCUMENTS)
            with Collection.open(made, writable=True) as collection:
                collection.load(documents, progress, manifest["documents"])
                collection.compact(progress)
            if (content / PIPELINE_FILE).exists():
                (content / PIPELINE_FILE).rename(made / PIPELINE_FILE)
            made.replace(folder)  # whole or not at all
            fsync_folder(folder.parent)
    return int(manifest["documents"])


def _unpack(path: Path, folder: Path) -> dict[str, Any]:
    try:
        with tarfile.open(path) as archive:
            archive.extractall(folder, filter="data")  # refuses links, devices and paths that leave the folder
    except (tarfile.TarError, EOFError) as error:
        raise IndexFormatError(f"{path} is no complete export: give a file that `grapnel export` wrote") from error
    try:
        manifest: dict[str, Any] = json.loads((folder / _MANIFEST).read_bytes())
    except FileNotFoundError as error:
        raise IndexFormatError(f"{path} holds no {_MANIFEST}: it was cut off, or is no export") from error
    except ValueError as error:
        raise IndexFormatError(f"{path}: {_MANIFEST} is damaged: export again") from error
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise IndexFormatError(f"{path} has another export format than {FORMAT}, which this grapnel reads")
    unlisted = {str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file()} - {_MANIFEST}
    unlisted -= manifest["files"].keys()
    if unlisted:
        raise IndexFormatError(f"{path} holds files its manifest does not list: {sorted(unlisted)[:5]}")
    for name, expected in manifest["files"].items():
        file = folder / PurePosixPath(name)
        found = sha256_file(file) if file.is_file() else "nothing"
        if found != expected:
            raise IndexFormatError(f"{path}: {name} has SHA-256 {found}, expected {expected}: the file is damaged")
    return manifest


def _read_documents(path: Path) -> Iterator[Document]:
    import zstandard  # noqa: PLC0415  only archives need it

    with path.open("rb") as raw, zstandard.ZstdDecompressor().stream_reader(raw) as stream:
        for line in io.TextIOWrapper(stream, encoding="utf-8"):
            value = json.loads(line)
            vectors = {name: np.array(vector, np.float32) for name, vector in value["vectors"].items()}
            yield Document(value["id"], value["text"], value["title"], value["metadata"], vectors)
