"""Operations on one collection as a whole, by its name or an alias; see api/client/exchange.py for their form."""

from api.client.exchange import Operation, Request, call, collection_path, nothing, segment
from api.client.reading import read_list
from api.client.results import CollectionSummary, Job, Snapshot
from api.client.server_operations import read_job, read_summary
from api.client.server_operations import wait as wait_for
from retrieval.types import Json


def describe(collection: str) -> Operation[CollectionSummary]:
    """Return what the collection holds and how it stands. Raises NotFoundError."""
    return call(Request("GET", collection_path(collection)), read_summary)


def compact(collection: str, *, wait: bool = True) -> Operation[Job]:
    """Fold fresh documents and deletes into new indexes; searches and writes go on meanwhile.

    wait: return when it is done (Raises JobError when it fails), else with the job just begun.
    """
    return _job(f"{collection_path(collection)}/compact", None, wait=wait)


def reembed(collection: str, into: str, encoder: str, *, alias: str | None = None, wait: bool = True) -> Operation[Job]:
    """Make the collection `into` of the same documents with another encoder; then let `alias` name it.

    encoder: one that the server offers. wait: as for `compact`.
    """
    return _job(f"{collection_path(collection)}/reembed", {"into": into, "encoder": encoder, "alias": alias}, wait=wait)


def create_snapshot(collection: str, *, wait: bool = True) -> Operation[Job]:
    """Keep a copy of the collection as it is now. wait: as for `compact`."""
    return _job(f"{collection_path(collection)}/snapshots", None, wait=wait)


def snapshots(collection: str) -> Operation[list[Snapshot]]:
    """Return the copies that the server keeps of the collection."""
    return call(Request("GET", f"{collection_path(collection)}/snapshots"), read_list(Snapshot, "snapshots"))


def restore_snapshot(collection: str, snapshot: str, into: str, *, wait: bool = True) -> Operation[Job]:
    """Make the new collection `into` of a copy. wait: as for `compact`."""
    return _job(f"{_snapshot_path(collection, snapshot)}/restore", {"into": into}, wait=wait)


def delete_snapshot(collection: str, snapshot: str) -> Operation[None]:
    """Delete a copy. Raises NotFoundError. Sent once."""
    return call(Request("DELETE", _snapshot_path(collection, snapshot), repeatable=False), nothing)


def _snapshot_path(collection: str, snapshot: str) -> str:
    return f"{collection_path(collection)}/snapshots/{segment(snapshot)}"


def _job(path: str, body: Json, *, wait: bool) -> Operation[Job]:
    begun = yield from call(Request("POST", path, json=body, repeatable=False), read_job)
    return (yield from wait_for(begun)) if wait else begun
