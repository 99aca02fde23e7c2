"""A collection's documents copied into another one, while the first goes on being written to."""

from collections.abc import Iterator

from retrieval.collection import Collection
from retrieval.progress import Progress, silent
from retrieval.types import Document

_ROUNDS = 10
"""Each copies what was written during the one before: with fewer writes than it can encode they get short soon."""

_IDS = 1_000


def copy_documents(source: Collection, target: Collection, progress: Progress = silent) -> int:
    """Copy all documents, then what is written meanwhile, until nothing is new; compact the target in between.

    target: begun, with nothing in it yet. Returns the operation of `source` up to which the target holds everything;
    later ones are in it or not. Raises what `Collection.load`, `compact`, `add` and `delete` raise.
    Cost: all is encoded once; a round reads all documents of the source.
    """
    reached = last_operation(source)
    target.load(source.documents(), progress, len(source))
    target.compact(progress)
    for _ in range(_ROUNDS):
        now = last_operation(source)
        if now == reached:
            break
        target.add(_written_since(source, reached), progress)
        gone = list(_gone(source, target))
        if gone:
            target.delete(gone)
        reached = now
    return reached


def last_operation(collection: Collection) -> int:
    """Return the number of a collection's last write; 0 if there was none."""
    with collection.shard.store.snapshot() as snapshot:
        return snapshot.last_op()


def _written_since(source: Collection, operation: int) -> Iterator[Document]:
    with source.shard.store.snapshot() as snapshot:
        for stored in snapshot.documents():
            if stored.version > operation:
                yield stored.document


def _gone(source: Collection, target: Collection) -> Iterator[str]:
    with source.shard.store.snapshot() as present, target.shard.store.snapshot() as copied:
        after = ""
        while ids := copied.ids(after, _IDS):
            known = present.sums(ids)
            yield from (doc_id for doc_id in ids if doc_id not in known)
            after = ids[-1]
