"""`grapnel verify`: reads every byte of a collection and says what is wrong."""

from pathlib import Path

from index.errors import GrapnelError, IndexFormatError
from retrieval.collection import SHARD, Collection
from retrieval.progress import Progress, counted, silent
from retrieval.store import StoreSnapshot


def verify(folder: str | Path, progress: Progress = silent) -> list[str]:
    """Return one line per problem of a collection; an empty list means that every checksum holds.

    Checked: SQLite's structure, every document, passage and fresh vector against its checksum, every file of the
    current generation and of the vector stores, and that the searchable rows are exactly the stored ones.
    Raises NotFoundError or ConfigError where there is no readable collection.
    Cost: reads everything once; memory is one document at a time.
    """
    with Collection.open(folder) as collection:
        shard = collection.shard
        problems = list(shard.damaged_components())
        try:
            with shard.store.snapshot() as snapshot:
                problems += _truth_problems(snapshot, progress)
                problems += [problem for name in shard.encoded_fields() for problem in shard.vectors.problems(name)]
        except GrapnelError as error:
            problems.append(str(error))
        if problems:
            return problems
        with shard.reading() as reading:
            searchable = reading.view.allowed(None).rows()
            stored, _ = reading.snapshot.all_rows()
            if searchable.tolist() != stored.tolist():
                problems.append(
                    f"{Path(folder) / SHARD}: {len(searchable)} passages are searchable, {len(stored)} are stored: "
                    "run `grapnel compact`"
                )
        return problems


def _truth_problems(snapshot: StoreSnapshot, progress: Progress) -> list[str]:
    structure = snapshot.integrity()
    if structure != "ok":
        return [f"documents.db: {structure}: restore it from an export"]
    problems = []
    try:
        for _ in counted(snapshot.documents(), "verify", snapshot.document_count(), progress):
            pass
    except IndexFormatError as error:  # nothing behind it can be trusted to line up: the first one is enough
        problems.append(str(error))
    return problems + snapshot.damaged_vectors()
