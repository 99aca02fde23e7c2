"""Collections as a whole: making, describing, compacting, re-embedding and removing them, and their snapshots."""

import json
import logging
import re
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from api.jobs import Job
from api.keys import Principal
from api.registry import Served, check_name
from index.component import sha256_file
from index.durable import failpoint, fsync_folder, make_folders, storage_errors, write_json_atomic
from index.errors import (
    ConfigError,
    ConflictError,
    ForbiddenError,
    IndexFormatError,
    NotFoundError,
    StorageError,
)
from retrieval.archive import export_collection, import_collection
from retrieval.collection import Collection
from retrieval.collection_config import CollectionConfig, DenseField
from retrieval.copying import copy_documents, last_operation
from retrieval.pipeline_config import FILE as PIPELINE_FILE
from retrieval.pipeline_config import modes
from retrieval.progress import Progress
from retrieval.status import describe, field_facts

if TYPE_CHECKING:
    from api.service import Service

log = logging.getLogger(__name__)

_SNAPSHOT = re.compile(r"[0-9]{8}T[0-9]{6}Z(-[0-9]{1,4})?")


class Upkeep:
    """What administrators do. All raise NotFoundError on an unknown collection and ForbiddenError without the scope."""

    def __init__(self, service: "Service") -> None:
        self._service = service

    # -- collections --------------------------------------------------------------------------------------------

    def _may_name(self, principal: Principal, name: str) -> None:
        """Raise unless the principal may administer a collection of this name, which need not exist."""
        self._service.check_ready()
        check_name(name)
        if not principal.may("admin", name):
            raise ForbiddenError(f"this key has no 'admin' scope for a collection named {name!r}")

    async def describe(self, principal: Principal, name: str) -> dict[str, Any]:
        """Return what a collection holds and how it fares, as JSON values."""
        served = self._service.allowed(principal, "read", name)
        if principal.filter is not None:  # counts would tell of others' documents
            return _what_all_may_know(served)
        return await self._service.reads.run(lambda: self._summary(served))

    async def describe_all(self, principal: Principal) -> list[dict[str, Any]]:
        """Describe every collection that the principal may read; one that is damaged keeps no other from it."""
        described = []
        for name in self._service.readable(principal):
            try:
                described.append(await self.describe(principal, name))
            except NotFoundError:
                continue  # deleted meanwhile
            except (IndexFormatError, StorageError) as error:
                log.error("collection %s cannot be described: %s", name, error)  # noqa: TRY400  the message says it all
                described.append({"name": name, "state": "failed"})
        return described

    def _summary(self, served: Served) -> dict[str, Any]:
        aliases = [alias for alias, name in self._service.registry.aliases().items() if name == served.name]
        job = self._service.jobs.running(served.name)
        about: dict[str, Any] = {"name": served.name, "state": served.state, "aliases": aliases}
        about["job"] = None if job is None else job.id
        if served.state == "failed":
            return about
        with served.using() as collection:
            described = describe(collection)
        del described["folder"]  # a path of this machine
        return about | described

    async def create(self, principal: Principal, name: str, config: CollectionConfig) -> dict[str, Any]:
        """Create an empty collection and describe it. Raises ConflictError where the name is taken."""
        self._may_name(principal, name)
        registry = self._service.registry

        def work() -> dict[str, Any]:
            with registry.making(name) as folder:
                Collection.create(folder, config, encoders=registry.encoders).close()
            return self._summary(registry.get(name))

        return await self._service.changes.run(work)

    async def delete(self, principal: Principal, name: str) -> None:
        """Remove a collection; its snapshots stay. Raises ConflictError while a job or a compaction of it runs."""
        self._may_name(principal, name)
        registry = self._service.registry

        def work() -> None:
            with self._service.jobs.holding(name):
                if any(served.name == name and served.compacting for served in registry.all()):
                    raise ConflictError(f"{name!r} is being compacted: wait until that has ended")
                registry.delete(name)

        await self._service.changes.run(work)

    async def set_alias(self, principal: Principal, alias: str, name: str) -> None:
        """Let an alias mean a collection."""
        self._may_name(principal, alias)
        self._may_name(principal, name)
        await self._service.changes.run(lambda: self._service.registry.set_alias(alias, name))

    async def delete_alias(self, principal: Principal, alias: str) -> None:
        """Forget an alias."""
        self._may_name(principal, alias)
        await self._service.changes.run(lambda: self._service.registry.delete_alias(alias))

    def aliases(self, principal: Principal) -> dict[str, str]:
        """Return alias -> collection, of those collections that the principal may read."""
        readable = set(self._service.readable(principal))
        return {alias: name for alias, name in self._service.registry.aliases().items() if name in readable}

    # -- jobs ---------------------------------------------------------------------------------------------------

    def jobs(self, principal: Principal) -> list[Job]:
        """Return the jobs of collections that the principal may administer."""
        return [job for job in self._service.jobs.all() if principal.may("admin", job.collection)]

    def job(self, principal: Principal, identity: str) -> Job:
        """Return one of them. Raises NotFoundError."""
        job = self._service.jobs.get(identity)
        if not principal.may("admin", job.collection):
            raise NotFoundError(f"no job {identity[:80]!r}")
        return job

    def compact(self, principal: Principal, name: str) -> Job:
        """Start to fold everything written into a new generation."""
        served = self._writable(principal, name)

        def work(progress: Progress) -> Mapping[str, Any]:
            with served.using() as collection:
                report = collection.compact(progress)
            generation = report.generation
            return {
                "generation": generation.number,
                "passages": generation.passages,
                "built": list(report.built),
                "reused": sorted(report.reused),
            }

        return self._service.jobs.start("compact", served.name, work)

    def _writable(self, principal: Principal, name: str) -> Served:
        served = self._service.allowed(principal, "admin", name)
        served.check_writable()
        return served

    def reembed(self, principal: Principal, name: str, into: str, encoder: str, alias: str | None) -> Job:
        """Start to copy a collection into a new one with another encoder in its dense fields.

        alias: then made to mean the new one. What is written to the old one meanwhile is copied, too; only what comes
        between the end of that and the new alias is not, and counted in the job's result.
        Raises ConfigError where no dense field of the collection encodes text.
        """
        served = self._service.allowed(principal, "admin", name)
        self._may_name(principal, into)
        if alias is not None:
            self._may_name(principal, alias)
        chosen = self._service.models.encoder_config(encoder)
        registry = self._service.registry
        registry.check_free(into, alias)
        with served.using() as collection:
            config = collection.config
        fields = {
            field: replace(value, encoder=chosen)
            if isinstance(value, DenseField) and value.encoder.kind != "external"
            else value
            for field, value in config.fields.items()
        }
        if fields == dict(config.fields):
            raise ConfigError(f"no dense field of {served.name!r} would change: it has no encoder, or has this one")
        changed = replace(config, fields=fields)

        def work(progress: Progress) -> Mapping[str, Any]:
            with served.using() as source, registry.making(into) as folder:
                with Collection.begin(folder, changed, encoders=registry.encoders) as target:
                    reached = copy_documents(source, target, progress)
                    documents = len(target)
                pipeline = source.folder / PIPELINE_FILE
                if pipeline.exists():
                    with storage_errors("copy", pipeline):
                        (folder / PIPELINE_FILE).write_bytes(pipeline.read_bytes())
            if alias is not None:
                registry.set_alias(alias, into)
            with served.using() as source:
                missed = last_operation(source) - reached
            return {"into": into, "alias": alias, "documents": documents, "not_copied": missed}

        return self._service.jobs.start("reembed", served.name, work)

    # -- snapshots ----------------------------------------------------------------------------------------------

    def snapshot(self, principal: Principal, name: str) -> Job:
        """Start to write a snapshot: one file with the whole collection, its encoded vectors included."""
        served = self._service.allowed(principal, "admin", name)
        folder = self._service.registry.snapshots(served.name)

        def work(progress: Progress) -> Mapping[str, Any]:
            make_folders(folder)
            path = _new_snapshot(folder)
            # An archive has its name once its description is there: until then nobody lists, restores or keeps it.
            unfinished = folder / f".{path.name}.tmp"
            try:
                with served.using() as collection:
                    documents = export_collection(collection, unfinished, progress)
                with storage_errors("read", unfinished):
                    about = {
                        "name": path.stem,
                        "documents": documents,
                        "size_bytes": unfinished.stat().st_size,
                        "sha256": sha256_file(unfinished),
                        "created": datetime.now(UTC).isoformat(timespec="seconds"),
                    }
                write_json_atomic(path.with_suffix(".json"), about, point="snapshot")
                with storage_errors("move", unfinished):
                    unfinished.rename(path)
                    failpoint("snapshot.named")
                    fsync_folder(folder)
            finally:
                unfinished.unlink(missing_ok=True)
            return about

        return self._service.jobs.start("snapshot", served.name, work)

    async def snapshots(self, principal: Principal, name: str) -> list[dict[str, Any]]:
        """Return what snapshots of a collection there are, oldest first; the collection itself may be gone.

        One without a readable description is left out, with a line in the log.
        """
        folder = self._snapshots_of(principal, name)

        def work() -> list[dict[str, Any]]:
            found = []
            for path in sorted(folder.glob("*.tar"), key=_age):
                try:
                    found.append(_about(path))
                except IndexFormatError as error:
                    log.warning("%s: %s", path, error)
            return found

        return await self._service.reads.run(work)

    def _snapshots_of(self, principal: Principal, name: str) -> Path:
        name = self._service.registry.aliases().get(name, name)
        self._may_name(principal, name)
        return self._service.registry.snapshots(name)

    def _snapshot_path(self, principal: Principal, name: str, snapshot: str) -> Path:
        path = self._snapshots_of(principal, name) / f"{snapshot}.tar"
        if not _SNAPSHOT.fullmatch(snapshot) or not path.is_file():
            raise NotFoundError(f"no snapshot {snapshot[:80]!r} of {name!r}")
        return path

    async def delete_snapshot(self, principal: Principal, name: str, snapshot: str) -> None:
        """Remove a snapshot. Raises NotFoundError."""
        path = self._snapshot_path(principal, name, snapshot)

        def work() -> None:
            with storage_errors("remove", path):
                path.unlink(missing_ok=True)
                path.with_suffix(".json").unlink(missing_ok=True)

        await self._service.changes.run(work)

    def restore(self, principal: Principal, name: str, snapshot: str, into: str) -> Job:
        """Start to make a new collection of a snapshot, whose bytes are compared with their checksum first."""
        path = self._snapshot_path(principal, name, snapshot)
        self._may_name(principal, into)
        registry = self._service.registry
        registry.check_free(into)

        def work(progress: Progress) -> Mapping[str, Any]:
            expected = _about(path)["sha256"]
            if sha256_file(path) != expected:
                raise IndexFormatError(f"snapshot {snapshot} of {name!r} does not match its checksum: it is damaged")
            with registry.making(into) as folder:
                documents = import_collection(path, folder, progress)
            return {"into": into, "documents": documents}

        return self._service.jobs.start("restore", into, work)


def _what_all_may_know(served: Served) -> dict[str, Any]:
    about: dict[str, Any] = {"name": served.name, "state": served.state}
    if served.state != "failed":
        with served.using() as collection:
            about["default_mode"] = collection.pipeline.default
            about["modes"] = modes(collection.pipeline, collection.config)
            about["fields"] = field_facts(collection)
    return about


def _new_snapshot(folder: Path) -> Path:
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    names = [stamp, *(f"{stamp}-{number}" for number in range(1, 10_000))]
    return next(path for name in names if not (path := folder / f"{name}.tar").exists())


def _age(path: Path) -> tuple[str, int]:
    """Return what sorts snapshots by age: those of one second are numbered."""
    stamp, _, number = path.stem.partition("-")
    return stamp, int(number) if number.isdecimal() else 0


def _about(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.with_suffix(".json").read_bytes())
    except (OSError, ValueError) as error:
        raise IndexFormatError(f"snapshot {path.stem} has no readable description: make a new one") from error
    if not isinstance(value, dict):
        raise IndexFormatError(f"snapshot {path.stem} has no readable description: make a new one")
    return value
