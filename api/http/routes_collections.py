"""Collections, aliases, jobs, snapshots, models: what administrators do, and what all may look at."""

from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import APIRouter, Path, Request
from starlette.responses import Response

from api.http.answers import JsonResponse, StrictRoute
from api.http.deps import COMMON, Admin, Collection, Reader, problems, service_of
from api.http.problems import kind_of
from api.http.schemas import (
    AliasesOut,
    AliasIn,
    CollectionIn,
    CollectionOut,
    CollectionsOut,
    DenseIn,
    JobOut,
    JobsOut,
    LexicalIn,
    ModelsOut,
    ReembedIn,
    RestoreIn,
    SnapshotsOut,
    SubstringIn,
)
from api.jobs import Job
from api.service import Service
from index.errors import RequestError
from retrieval.collection_config import CollectionConfig, parse_collection
from retrieval.config import to_table

router = APIRouter(route_class=StrictRoute)

Part = Annotated[str, Path(pattern="^[A-Za-z0-9-]{1,80}$")]
"""The name of a job or a snapshot."""

_CHANGES = problems(409)
_STARTED: Mapping[int | str, dict[str, Any]] = {**_CHANGES, 202: {"model": JobOut, "description": "Started"}}


@router.get("/v1/collections", response_model=CollectionsOut, responses=COMMON, tags=["collections"])
async def list_collections(request: Request, principal: Reader) -> Response:
    """Describe every collection that the key may read."""
    return JsonResponse({"collections": await service_of(request).upkeep.describe_all(principal)})


@router.post("/v1/collections", status_code=201, response_model=CollectionOut, responses=_CHANGES, tags=["collections"])
async def create_collection(request: Request, body: CollectionIn, principal: Admin) -> Response:
    """Create an empty collection; it can be searched and written to at once."""
    service = service_of(request)
    config = collection_config(service, body)
    return JsonResponse(await service.upkeep.create(principal, body.name, config), 201)


@router.get("/v1/collections/{collection}", response_model=CollectionOut, responses=COMMON, tags=["collections"])
async def describe_collection(request: Request, collection: Collection, principal: Reader) -> Response:
    """Describe a collection."""
    return JsonResponse(await service_of(request).upkeep.describe(principal, collection))


@router.delete(
    "/v1/collections/{collection}",
    status_code=204,
    response_class=Response,
    responses=_CHANGES,
    tags=["collections"],
)
async def delete_collection(request: Request, collection: Collection, principal: Admin) -> Response:
    """Delete a collection and the aliases that mean it; its snapshots stay."""
    await service_of(request).upkeep.delete(principal, collection)
    return Response(status_code=204)


@router.post(
    "/v1/collections/{collection}/compact",
    status_code=202,
    response_model=JobOut,
    responses=_CHANGES,
    tags=["collections"],
)
async def compact(request: Request, collection: Collection, principal: Admin) -> Response:
    """Start to fold everything written into a new generation; searches and writes go on."""
    return JsonResponse(job_value(service_of(request).upkeep.compact(principal, collection)), 202)


@router.post(
    "/v1/collections/{collection}/reembed",
    status_code=202,
    response_model=JobOut,
    responses=_CHANGES,
    tags=["collections"],
)
async def reembed(request: Request, collection: Collection, body: ReembedIn, principal: Admin) -> Response:
    """Start to copy a collection into a new one with another encoder, and let an alias mean it in the end."""
    job = service_of(request).upkeep.reembed(principal, collection, body.into, body.encoder, body.alias)
    return JsonResponse(job_value(job), 202)


@router.get("/v1/aliases", response_model=AliasesOut, responses=COMMON, tags=["collections"])
async def list_aliases(request: Request, principal: Reader) -> Response:
    """Return what each alias means."""
    return JsonResponse({"aliases": service_of(request).upkeep.aliases(principal)})


@router.put("/v1/aliases/{collection}", response_model=AliasesOut, responses=_CHANGES, tags=["collections"])
async def put_alias(request: Request, collection: Collection, body: AliasIn, principal: Admin) -> Response:
    """Let an alias mean a collection from now on; searches under way end with the old one."""
    service = service_of(request)
    await service.upkeep.set_alias(principal, collection, body.collection)
    return JsonResponse({"aliases": service.upkeep.aliases(principal)})


@router.delete(
    "/v1/aliases/{collection}", status_code=204, response_class=Response, responses=_CHANGES, tags=["collections"]
)
async def delete_alias(request: Request, collection: Collection, principal: Admin) -> Response:
    """Forget an alias."""
    await service_of(request).upkeep.delete_alias(principal, collection)
    return Response(status_code=204)


@router.get("/v1/jobs", response_model=JobsOut, responses=COMMON, tags=["jobs"])
async def list_jobs(request: Request, principal: Admin) -> Response:
    """Return the jobs of this server since its start."""
    return JsonResponse({"jobs": [job_value(job) for job in service_of(request).upkeep.jobs(principal)]})


@router.get("/v1/jobs/{job}", response_model=JobOut, responses=COMMON, tags=["jobs"])
async def get_job(request: Request, principal: Admin, job: Part) -> Response:
    """Return how far a job has come."""
    return JsonResponse(job_value(service_of(request).upkeep.job(principal, job)))


@router.get("/v1/collections/{collection}/snapshots", response_model=SnapshotsOut, responses=COMMON, tags=["snapshots"])
async def list_snapshots(request: Request, collection: Collection, principal: Admin) -> Response:
    """Return the snapshots of a collection, oldest first."""
    return JsonResponse({"snapshots": await service_of(request).upkeep.snapshots(principal, collection)})


@router.post(
    "/v1/collections/{collection}/snapshots",
    status_code=202,
    response_model=JobOut,
    responses=_CHANGES,
    tags=["snapshots"],
)
async def create_snapshot(request: Request, collection: Collection, principal: Admin) -> Response:
    """Start to write everything a collection holds at this moment to one file of the server."""
    return JsonResponse(job_value(service_of(request).upkeep.snapshot(principal, collection)), 202)


@router.delete(
    "/v1/collections/{collection}/snapshots/{snapshot}",
    status_code=204,
    response_class=Response,
    responses=_CHANGES,
    tags=["snapshots"],
)
async def delete_snapshot(request: Request, collection: Collection, principal: Admin, snapshot: Part) -> Response:
    """Delete a snapshot."""
    await service_of(request).upkeep.delete_snapshot(principal, collection, snapshot)
    return Response(status_code=204)


@router.post(
    "/v1/collections/{collection}/snapshots/{snapshot}/restore",
    status_code=202,
    response_model=JobOut,
    responses=_CHANGES,
    tags=["snapshots"],
)
async def restore_snapshot(
    request: Request, collection: Collection, body: RestoreIn, principal: Admin, snapshot: Part
) -> Response:
    """Start to make a new collection of a snapshot, after its checksum is found right."""
    job = service_of(request).upkeep.restore(principal, collection, snapshot, body.into)
    return JsonResponse(job_value(job), 202)


@router.get("/v1/models", response_model=ModelsOut, responses=COMMON, tags=["models"])
async def list_models(request: Request, principal: Reader) -> Response:  # noqa: ARG001  the key is what is checked
    """Return the encoders and rerankers of this server."""
    models = service_of(request).models
    named = [(name, "encoder") for name in models.encoder_names] + [
        (name, "reranker") for name in models.reranker_names
    ]
    data = [{"id": name, "object": "model", "owned_by": "grapnel", "kind": kind} for name, kind in named]
    return JsonResponse({"object": "list", "data": data})


def job_value(job: Job) -> dict[str, Any]:
    """Return a job as JSON values."""
    return {
        "id": job.id,
        "kind": job.kind,
        "collection": job.collection,
        "state": job.state,
        "stage": job.stage,
        "done": job.done,
        "total": job.total,
        "seconds": round(job.seconds, 3),
        "result": None if job.result is None else dict(job.result),
        "error": _error_of(job),
    }


def _error_of(job: Job) -> str | None:
    kind = None if job.cause is None else kind_of(job.cause)
    return f"{kind.title}; the server's log has the details" if kind is not None and kind.private else job.error


def collection_config(service: Service, body: CollectionIn) -> CollectionConfig:
    """Return the configuration that a body asks for, with encoders of the server's list only.

    Raises NotFoundError on an encoder that is not in it, ConfigError on a value that cannot work.
    """
    fields = body.fields
    if fields is None:
        fields = {"dense": DenseIn(kind="dense", encoder="default", dim=None), "lexical": LexicalIn(kind="lexical")}
    table: dict[str, Any] = {
        "format": 1,
        "fields": {name: _field_table(service, name, field) for name, field in fields.items()},
    }
    if body.chunking is not None:
        table["chunking"] = body.chunking.model_dump(exclude_none=True)
    return parse_collection(table, "collection")


def _field_table(service: Service, name: str, field: DenseIn | LexicalIn | SubstringIn) -> dict[str, Any]:
    if isinstance(field, LexicalIn | SubstringIn):
        return field.model_dump(exclude_none=True)
    if (field.encoder is None) == (field.dim is None):
        raise RequestError(f"fields.{name}: give an encoder of this server, or dim alone: then clients bring vectors")
    table = field.model_dump(include={"kind", "index", "metric", "storage", "recall"})
    if field.encoder is None:
        table["encoder"] = {"kind": "external", "dim": field.dim}
    else:
        table["encoder"] = to_table(service.models.encoder_config(field.encoder))
    return table
