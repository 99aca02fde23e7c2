"""What the adapters stand on: the documents of one collection, in a folder of this machine or on a server."""

import logging
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, runtime_checkable

from api.client import CollectionClient, Grapnel, Page, SearchResult
from api.client.options import DenseField, LexicalField, SearchOptions
from api.frameworks.conditions import Condition, leniently
from index.errors import ConfigError, ConflictError, CorpusError, ForbiddenError, NotFoundError, RequestError
from retrieval.filters import parse_filter
from retrieval.types import Document, Hit, Json, SearchRequest

if TYPE_CHECKING:
    from retrieval.collection import Collection

log = logging.getLogger(__name__)

T = TypeVar("T")

_CLIENTS = "external-"
"""How the fingerprint of a field begins whose vectors clients bring; their dimension follows."""

_PAGE = 1_000
_IDS = 500
"""Ids in one request to a server, which takes 1,000 unless it is configured otherwise."""


@dataclass(frozen=True, slots=True)
class Layout:
    """The fields of a collection. dense: name -> metric. external: dimension of those whose vectors clients bring."""

    dense: Mapping[str, str]
    external: Mapping[str, int]
    lexical: tuple[str, ...]

    @property
    def client_field(self) -> str | None:
        """The field whose vectors the adapter brings; None where grapnel encodes everything itself.

        Raises ConfigError where there are several: the frameworks know one vector of a document.
        """
        if len(self.external) > 1:
            raise ConfigError(
                f"the fields {', '.join(self.external)} all take vectors of clients: the frameworks bring one vector "
                "for a document, so use a collection with one such field"
            )
        return next(iter(self.external), None)

    def field_for(self, model: object | None) -> str | None:
        """Return the field that the framework's embedding model makes the vectors of; None where grapnel encodes.

        Raises ConfigError where there is a model and nothing for it to do, or the other way round.
        """
        field = self.client_field
        if field is None and model is not None:
            raise ConfigError(
                f"an embedding model ({type(model).__name__}) is given, but this collection encodes by itself: leave "
                "it out, or make a collection that takes vectors of clients (`dim`)"
            )
        if field is not None and model is None:
            raise ConfigError(f"the vectors of field {field!r} come from clients: give the embedding model they are of")
        return field

    @property
    def vector_field(self) -> str:
        """The field that is searched by a vector: that of the clients, or else the first. Raises ConfigError."""
        field = self.client_field or next(iter(self.dense), None)
        if field is None:
            raise ConfigError("the collection has no dense field, so no vector can search it: choose a lexical mode")
        return field

    @property
    def word_field(self) -> str:
        """The first field that is searched by words. Raises ConfigError."""
        if not self.lexical:
            raise ConfigError("the collection has no lexical field, so words cannot search it: choose another mode")
        return self.lexical[0]


@runtime_checkable
class Store(Protocol):
    """One collection, as the adapters use it. Safe to call from several threads.

    Filters are those of retrieval/filters.py, but a field that no document has is only missing from all of them, as
    the frameworks see it; it is no error. Everything raises the errors of index/errors.py.
    """

    def layout(self) -> Layout:
        """Return which fields there are."""
        ...

    def add(self, documents: Iterable[Document]) -> None:
        """Add or replace documents by id; of several with one id the last stays. They can be found when this returns.

        Raises CorpusError on one that is not acceptable; those before it, and on a server those after it, are stored.
        """
        ...

    def get(self, doc_ids: Sequence[str]) -> list[Document | None]:
        """Return documents in the order of the ids; None where there is none."""
        ...

    def delete(self, doc_ids: Sequence[str] = (), *, filter: Condition | None = None) -> int:  # noqa: A002  field's word
        """Delete documents by id, and all that match a filter; return how many there were."""
        ...

    def documents(self, filter: Condition | None = None) -> Iterator[Document]:  # noqa: A002  as above
        """Yield all documents, or those that match, by id; each page as of the moment it is needed."""
        ...

    def count(self, filter: Condition | None = None) -> int:  # noqa: A002  as above
        """Return how many documents there are, or match."""
        ...

    def search(
        self, request: SearchRequest, *, mode: str | None = None, weights: Mapping[str, float] | None = None
    ) -> list[Hit]:
        """Answer one search, best first. weights: fields to fuse, with their shares, in place of a mode."""
        ...


class FolderStore:
    """A collection of this machine, open in this process; whoever opened it closes it."""

    def __init__(self, collection: "Collection") -> None:
        self.collection = collection

    def layout(self) -> Layout:
        """See Store."""
        config = self.collection.config
        dense = config.dense_fields()
        external = {name: field.encoder.dim or 0 for name, field in dense.items() if field.encoder.kind == "external"}
        return Layout({name: field.metric for name, field in dense.items()}, external, tuple(config.lexical_fields()))

    def add(self, documents: Iterable[Document]) -> None:
        """See Store."""
        self.collection.add(documents)

    def get(self, doc_ids: Sequence[str]) -> list[Document | None]:
        """See Store."""
        return [None if stored is None else stored.document for stored in self.collection.stored(doc_ids)]

    def delete(self, doc_ids: Sequence[str] = (), *, filter: Condition | None = None) -> int:  # noqa: A002  field's word
        """See Store."""
        return self.collection.delete(doc_ids, filter=filter, strict_filter=False)

    def documents(self, filter: Condition | None = None) -> Iterator[Document]:  # noqa: A002  as above
        """See Store. Cost: with a filter, all matching ids for every 1,000 documents."""
        after = ""
        while True:
            page = self.collection.page(after, _PAGE, filter, strict_filter=False)
            yield from (stored.document for stored in page)
            if len(page) < _PAGE:
                return
            after = page[-1].document.id

    def count(self, filter: Condition | None = None) -> int:  # noqa: A002  as above
        """See Store. Cost: no document is read."""
        if filter is None:
            return len(self.collection)
        with self.collection.shard.reading() as reading:
            allowed = reading.view.allowed(parse_filter(filter), strict=False)
            return len(set(reading.view.documents(allowed.rows()).tolist()))

    def search(
        self, request: SearchRequest, *, mode: str | None = None, weights: Mapping[str, float] | None = None
    ) -> list[Hit]:
        """See Store."""
        config = None
        if weights is not None:
            from retrieval.pipeline_config import HYBRID, FusionConfig, check_pipeline  # noqa: PLC0415  only here

            fusion = FusionConfig(tuple(weights), tuple(weights.values()))
            config = replace(self.collection.pipeline, default=HYBRID, fusion={HYBRID: fusion})
            check_pipeline(config, self.collection.config, "weights")
        lenient = replace(request, strict_filter=False)
        (ranking,) = self.collection.search_many([lenient], mode=mode, config=config)
        _log_notes(ranking.notes)
        return list(ranking.hits)


class ServerStore:
    """A collection of a server. layout: needed where the key may see only some documents: they are not told it."""

    def __init__(self, collection: CollectionClient, layout: Layout | None = None) -> None:
        self.collection = collection
        self._layout = layout

    def layout(self) -> Layout:
        """See Store. Raises ForbiddenError where the server does not tell."""
        if self._layout is None:
            fields = self.collection.describe().fields
            if not fields:
                raise ForbiddenError("the server does not tell this key the collection's fields: give `layout`")
            self._layout = _layout_of(fields)
        return self._layout

    def add(self, documents: Iterable[Document]) -> None:
        """See Store."""
        report = self.collection.upsert(documents)
        if report.failed:
            first = report.errors[0]
            raise CorpusError(f"{report.failed} of {report.lines} documents are refused, first {first.message}")

    def get(self, doc_ids: Sequence[str]) -> list[Document | None]:
        """See Store. Cost: one request for every 500 ids."""
        found = [each for part in _parts(doc_ids) for each in self.collection.get_many(part)]
        return [None if stored is None else stored.document for stored in found]

    def delete(self, doc_ids: Sequence[str] = (), *, filter: Condition | None = None) -> int:  # noqa: A002  field's word
        """See Store. Cost: one request for every 500 ids, and one for the filter."""
        count = sum(self.collection.delete_many(part) for part in _parts(doc_ids))
        if filter is not None:
            count += self._leniently(filter, lambda condition: self.collection.delete_many(filter=condition))
        return count

    def documents(self, filter: Condition | None = None) -> Iterator[Document]:  # noqa: A002  as above
        """See Store. Cost: one request for every 100 documents."""
        after = None
        while True:
            page = self._leniently(filter, partial(self._page, after))
            yield from (stored.document for stored in page.documents)
            after = page.next
            if after is None:
                return

    def _page(self, after: str | None, condition: Condition | None) -> Page:
        return self.collection.page(after=after, limit=100, filter=condition)

    def count(self, filter: Condition | None = None) -> int:  # noqa: A002  as above
        """See Store. Cost: with a filter, one request for every 1,000 documents that match."""
        return self._leniently(filter, lambda condition: self.collection.count(filter=condition))

    def search(
        self, request: SearchRequest, *, mode: str | None = None, weights: Mapping[str, float] | None = None
    ) -> list[Hit]:
        """See Store."""
        options = _options(request)
        options["mode"] = mode
        if weights is not None:
            options["fusion"] = {"parts": list(weights), "weights": list(weights.values())}

        def call(condition: Condition | None) -> SearchResult:
            options["filter"] = condition
            return self.collection.search(request.query.text, **options)

        result = self._leniently(request.filter, call)
        _log_notes(result.notes)
        return [Hit(hit.id, hit.passage, hit.score, hit.stage, hit.evidence, dict(hit.metadata)) for hit in result.hits]

    def _leniently(self, condition: Condition | None, call: Callable[[Condition | None], T]) -> T:
        return leniently(condition, call, self._knows)

    def _knows(self, key: str) -> bool:
        try:
            self.collection.page(limit=1, filter={"type": "exists", "key": key}, include=())
        except RequestError:
            return False
        return True


def refuse(options: Iterable[str]) -> None:
    """Raise RequestError on arguments that mean something to other stores only."""
    for name in options:
        raise RequestError(f"{name!r} means nothing here: leave it out")


def _layout_of(fields: Mapping[str, Json]) -> Layout:
    dense = {name: about for name, about in fields.items() if about["kind"] == "dense"}
    prints = {name: str(about["fingerprint"]) for name, about in dense.items()}
    external = {name: int(each.removeprefix(_CLIENTS)) for name, each in prints.items() if each.startswith(_CLIENTS)}
    lexical = tuple(name for name in fields if name not in dense)
    return Layout({name: about["metric"] for name, about in dense.items()}, external, lexical)


def _options(request: SearchRequest) -> SearchOptions:
    """Return what a request asks for beyond its text and filter, in the client's words."""
    options: SearchOptions = {"k": request.k, "offset": request.offset, "group": request.group, "snippet_chars": 0}
    if request.query.vectors:
        options["vectors"] = request.query.vectors
    if request.depth is not None:
        options["depth"] = request.depth
    if request.min_score is not None:
        options["min_score"] = request.min_score
    if request.diversity:
        options["diversity"] = request.diversity
    if request.exclude:
        options["exclude"] = request.exclude
    if request.like is not None:
        options["like"] = request.like
    effort: Any = {name: value for name, value in asdict(request.effort).items() if value is not None}
    if effort:
        options["effort"] = effort
    return options


def _parts(doc_ids: Sequence[str]) -> Iterator[Sequence[str]]:
    return (doc_ids[start : start + _IDS] for start in range(0, len(doc_ids), _IDS))


def _log_notes(notes: Sequence[str]) -> None:
    """Log what the frameworks have no place for."""
    for note in notes:
        log.info("search: %s", note)


# -- opening ----------------------------------------------------------------------------------------------------------

_opened: "weakref.WeakValueDictionary[Path, FolderStore]" = weakref.WeakValueDictionary()
_opening = threading.Lock()


def open_folder(folder: str | Path, dim: int | None = None) -> FolderStore:
    """Open the collection in a folder for reading and writing; make it where there is none.

    dim: of the vectors that clients bring to a new one; None = it encodes with the packaged model. All of this process
    that open one folder share the store; it is closed when nobody has it any more.
    Raises LockedError while another process writes to it: use a server then.
    """
    from retrieval.collection import Collection  # noqa: PLC0415  those of a server need none of it
    from retrieval.collection_config import FILE  # noqa: PLC0415

    path = Path(folder).resolve()
    with _opening:
        store = _opened.get(path)
        if store is None:
            exists = (path / FILE).is_file()
            collection = Collection.open(path, writable=True) if exists else Collection.create(path, _config(dim))
            store = FolderStore(collection)
            weakref.finalize(store, collection.close)
            _opened[path] = store
        return store


def _config(dim: int | None) -> Any:
    from retrieval.collection_config import CollectionConfig  # noqa: PLC0415  as above
    from retrieval.collection_config import DenseField as Dense  # noqa: PLC0415
    from retrieval.encoders import EncoderConfig  # noqa: PLC0415
    from retrieval.lexical import LexicalConfig  # noqa: PLC0415

    if dim is None:
        return CollectionConfig()
    return CollectionConfig(
        fields={"dense": Dense(EncoderConfig(kind="external", dim=dim)), "lexical": LexicalConfig()}
    )


def open_server(url: str, collection: str, api_key: str | None = None, dim: int | None = None) -> ServerStore:
    """Open a collection of a server; make it where there is none, which takes a key with the admin scope.

    dim: as for `open_folder`. The connections are closed when nobody has the store any more.
    """
    client = Grapnel(url, api_key)
    store = ServerStore(client.collection(collection))
    weakref.finalize(store, client.close)
    try:
        store.collection.describe()
    except NotFoundError:
        dense: DenseField = {"kind": "dense", "dim": dim}
        lexical: LexicalField = {"kind": "lexical"}
        with suppress(ConflictError):  # another process was faster
            client.create_collection(collection, None if dim is None else {"dense": dense, "lexical": lexical})
    return store
