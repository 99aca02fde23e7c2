"""The collection that a command works on: a folder of this machine, or with --url one of a server."""

from argparse import Namespace
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any, Protocol

from api.cli_build import compaction_value
from api.phrases import PhraseSpec, counted_value, found_value
from index.errors import RequestError
from retrieval.collection import Collection
from retrieval.phrases.grep import grep
from retrieval.phrases.ngrams import ngrams
from retrieval.pipeline_config import resolve_mode
from retrieval.progress import Progress
from retrieval.status import describe
from retrieval.types import Document, Json, Ranking, SearchRequest


class Target(Protocol):
    """What commands ask of a collection, wherever it is. Errors are those of index/errors.py either way."""

    def search(self, requests: Sequence[SearchRequest], mode: str | None) -> tuple[str, list[Ranking]]:
        """Answer searches; return the mode they were answered in, and a ranking each."""

    def grep(self, spec: PhraseSpec) -> dict[str, Any]:
        """Return where a phrase occurs, as JSON values."""

    def ngrams(self, spec: PhraseSpec) -> dict[str, Any]:
        """Return how often an n-gram occurs and what follows it, as JSON values."""

    def add(self, documents: Iterable[Document], progress: Progress) -> dict[str, int]:
        """Add or replace documents and return counts; what `progress` was told of is stored whatever comes then."""

    def delete(self, doc_ids: Sequence[str], condition: Mapping[str, Json] | None) -> int:
        """Delete by id and by filter; return how many documents there were."""

    def get(self, doc_id: str) -> Document | None:
        """Return a document, None where there is none."""

    def compact(self, progress: Progress) -> dict[str, Any]:
        """Fold everything written into a new generation; return what was done, as JSON values."""

    def describe(self) -> dict[str, Any]:
        """Return what the collection holds, as JSON values."""


@contextmanager
def open_target(args: Namespace, *, writable: bool = False) -> Iterator[Target]:
    """Open what a command's DIR, --url and --key mean."""
    pipeline = getattr(args, "pipeline", None)
    if args.url is None:
        if args.key is not None:
            raise RequestError("--key is for a server: give --url, too")
        with Collection.open(args.dir, writable=writable, pipeline=pipeline) as collection:
            yield _Folder(collection)
        return
    if pipeline is not None:
        raise RequestError("--pipeline names a file of this machine, which a server does not read: leave it out")
    from api.cli_remote import open_remote  # noqa: PLC0415  httpx is only needed here

    with open_remote(args.url, args.dir, args.key) as remote:
        yield remote


class _Folder:
    """A collection opened here."""

    def __init__(self, collection: Collection) -> None:
        self._collection = collection

    def search(self, requests: Sequence[SearchRequest], mode: str | None) -> tuple[str, list[Ranking]]:
        chosen = resolve_mode(self._collection.pipeline, self._collection.config, mode)
        return chosen, self._collection.search_many(requests, mode=chosen)

    def grep(self, spec: PhraseSpec) -> dict[str, Any]:
        return found_value(spec.text, grep(self._collection, spec.text, limit=spec.limit, **spec.options))

    def ngrams(self, spec: PhraseSpec) -> dict[str, Any]:
        return counted_value(spec.text, ngrams(self._collection, spec.text, limit=spec.limit, **spec.options))

    def add(self, documents: Iterable[Document], progress: Progress) -> dict[str, int]:
        return asdict(self._collection.add(documents, progress))

    def delete(self, doc_ids: Sequence[str], condition: Mapping[str, Json] | None) -> int:
        return self._collection.delete(doc_ids, filter=condition)

    def get(self, doc_id: str) -> Document | None:
        return self._collection.get(doc_id)

    def compact(self, progress: Progress) -> dict[str, Any]:
        return compaction_value(self._collection.compact(progress))

    def describe(self) -> dict[str, Any]:
        return describe(self._collection)
