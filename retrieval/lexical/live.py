"""A writable copy of an immutable tantivy index: linked base, new segments beside it."""

from collections.abc import Iterable
from pathlib import Path

from index.errors import StorageError
from retrieval.lexical import LexicalConfig
from retrieval.lexical.tantivy import (
    TantivyIndex,
    create_index,
    deleted_rows,
    engine_errors,
    link_base,
    make_document,
    open_index,
    remove_folder,
)

_HEAP_BYTES = 15_000_000
"""The least that tantivy accepts for one thread."""


class TantivyLive:
    """A disposable index that starts as its base and follows a log of changes.

    One thread at a time may call `apply`, `commit` and `close`; `reader` may be called from any. The base's files are
    linked, never written: deletions and merged segments become new files in the scratch folder. Nothing here is
    the truth: after a crash or a StorageError throw the folder away and replay the log into a new copy.
    """

    def __init__(self, config: LexicalConfig, base: Path | None, scratch: Path) -> None:
        """Open a copy of `base` (None: an empty index) in `scratch`, a folder that is empty or does not exist.

        Raises IndexFormatError when the base cannot be read, StorageError when the scratch folder cannot be used.
        Cost: about a millisecond, whatever the base's size.
        """
        config.validate()
        scratch.mkdir(parents=True, exist_ok=True)
        if any(scratch.iterdir()):
            raise StorageError(f"scratch folder {scratch} is not empty: remove what a dead process left there")
        self._config = config
        self._scratch = scratch
        if base is None:
            self._index = create_index(scratch, config)
        else:
            link_base(base, scratch)
            self._index = open_index(scratch, config, origin=base)
        with engine_errors("write", scratch):
            self._writer = self._index.writer(_HEAP_BYTES, 1)
        self._schema = self._index.schema
        self._reader = self._snapshot()

    def apply(self, add: Iterable[tuple[int, str, str]], delete_rows: Iterable[int] = ()) -> None:
        """Remove rows, then add passages (row, title, text); both become visible at the next `commit`.

        A row that is added must not be in the index, unless it is also deleted: rows are not checked for being unique.
        Raises CorpusError on lone surrogates, StorageError.
        """
        rows = list(delete_rows)
        documents = [make_document(self._config, row, title, text) for row, title, text in add]
        with engine_errors("write", self._scratch):
            if rows:
                self._writer.delete_documents_by_query(deleted_rows(self._schema, rows))
            for document in documents:
                self._writer.add_document(document)

    def commit(self) -> None:
        """Make everything applied so far visible to readers taken from now on.

        Raises StorageError; the copy is then of no further use. Cost: about 6 ms, mostly fsync, so group changes.
        """
        with engine_errors("write", self._scratch):
            self._writer.commit()
            self._index.reload()
        self._reader = self._snapshot()

    def reader(self) -> TantivyIndex:
        """Return the index as of the last commit; it keeps answering from that snapshot, even after `close`."""
        return self._reader

    def close(self) -> None:
        """Wait for running merges and remove the scratch folder; what was not committed is dropped."""
        with engine_errors("close", self._scratch):
            self._writer.wait_merging_threads()
        remove_folder(self._scratch)

    def _snapshot(self) -> TantivyIndex:
        return TantivyIndex(self._index.searcher(), self._schema, self._config)
