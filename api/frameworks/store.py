"""What the adapters stand on: the documents of one collection, in a folder of this machine or on a server."""

import logging
import threading
import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from api.client import CollectionClient, Grapnel
from api.client.options import DenseField, LexicalField, SearchOptions
from api.frameworks.conditions import Condition
from index.errors import ConfigError, ConflictError, CorpusError, IndexFormatError, NotFoundError, RequestError
from retrieval.types import Document, Hit, Json, SearchRequest

if TYPE_CHECKING:
    from retrieval.collection import Collection

log = logging.getLogger(__name__)

_CLIENTS = "external-"
"""How the fingerprint of a field begins whose vectors clients bring; their dimension follows."""

_PAGE = 1_000


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

        Raises CorpusError on one that is not acceptable. Those before it are stored, and on a server those after it,
        too; one that cannot be sent at all (its metadata is no JSON, it is larger than the server takes: RequestError)
        ends a stream, of which any part may be stored then. Adding all again is harmless.
        """
        ...

    def merge(self, doc_id: str, changes: Mapping[str, Json]) -> bool:
        """Merge `changes` into a document's metadata, whatever else it holds now; return whether it is there.

        None removes a key. Nothing is encoded again. Raises CorpusError or RequestError on what is not acceptable, and
        RequestError on the ids "." and ".." of a server, which no path carries.
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

    def merge(self, doc_id: str, changes: Mapping[str, Json]) -> bool:
        """See Store."""
        try:
            self.collection.patch(doc_id, changes)
        except NotFoundError:
            return False
        return True

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
        return self.collection.count(filter, strict_filter=False)

    def search(
        self, request: SearchRequest, *, mode: str | None = None, weights: Mapping[str, float] | None = None
    ) -> list[Hit]:
        """See Store."""
        config = None
        if weights is not None:
            from retrieval.pipeline_config import HYBRID, FusionConfig, check_pipeline  # noqa: PLC0415  only here

            fusion = FusionConfig(tuple(weights), tuple(weights.values()))
            config = replace(self.collection.pipeline, default=HYBRID, fusion={HYBRID: fusion})
            try:
                check_pipeline(config, self.collection.config, "weights")
            except ConfigError as error:  # it is the request that names fields and weights, no file
                raise RequestError(str(error)) from error
        lenient = replace(request, strict_filter=False)
        (ranking,) = self.collection.search_many([lenient], mode=mode, config=config)
        _log_notes(ranking.notes)
        return list(ranking.hits)


class ServerStore:
    """A collection of a server."""

    def __init__(self, collection: CollectionClient) -> None:
        self.collection = collection
        self._layout: Layout | None = None

    def layout(self) -> Layout:
        """See Store. Raises IndexFormatError where the server cannot open the collection."""
        if self._layout is None:
            summary = self.collection.describe()
            if summary.state == "failed":
                raise IndexFormatError(
                    f"the server could not open collection {summary.name!r}: its log says why, and what to do"
                )
            self._layout = _layout_of(summary.fields)
        return self._layout

    def add(self, documents: Iterable[Document]) -> None:
        """See Store."""
        refusal = self.collection.upsert(documents).refusal
        if refusal is not None:
            raise CorpusError(refusal)

    def merge(self, doc_id: str, changes: Mapping[str, Json]) -> bool:
        """See Store. Cost: one request."""
        try:
            self.collection.patch(doc_id, changes)
        except NotFoundError:
            return False
        return True

    def get(self, doc_ids: Sequence[str]) -> list[Document | None]:
        """See Store. Cost: one request for every 1,000 ids."""
        return [None if stored is None else stored.document for stored in self.collection.get_many(doc_ids)]

    def delete(self, doc_ids: Sequence[str] = (), *, filter: Condition | None = None) -> int:  # noqa: A002  field's word
        """See Store. Cost: one request for every 1,000 ids."""
        if not doc_ids and filter is None:
            return 0
        return self.collection.delete_many(doc_ids, filter=filter, strict_filter=False)

    def documents(self, filter: Condition | None = None) -> Iterator[Document]:  # noqa: A002  as above
        """See Store. Cost: one request for every 50 documents, with a filter each looks at all matching ids."""
        for stored in self.collection.documents(filter=filter, strict_filter=False):
            yield stored.document

    def count(self, filter: Condition | None = None) -> int:  # noqa: A002  as above
        """See Store. Cost: one request."""
        return self.collection.count(filter=filter, strict_filter=False)

    def search(
        self, request: SearchRequest, *, mode: str | None = None, weights: Mapping[str, float] | None = None
    ) -> list[Hit]:
        """See Store. Raises RequestError on a task of the query other than search: a server knows no other."""
        options = _options(request)
        options["mode"] = mode
        if weights is not None:
            options["fusion"] = {"parts": list(weights), "weights": list(weights.values())}
        result = self.collection.search(request.query.text, **options)
        _log_notes(result.notes)
        return [Hit(hit.id, hit.passage, hit.score, hit.stage, hit.evidence, dict(hit.metadata)) for hit in result.hits]


def refuse(options: Iterable[str]) -> None:
    """Raise RequestError on arguments that mean something to other stores only."""
    for name in options:
        raise RequestError(f"{name!r} means nothing here: leave it out")


def _layout_of(fields: Mapping[str, Json]) -> Layout:
    dense = {name: about for name, about in fields.items() if about["kind"] == "dense"}
    prints = {name: str(about["fingerprint"]) for name, about in dense.items()}
    external = {name: int(each.removeprefix(_CLIENTS)) for name, each in prints.items() if each.startswith(_CLIENTS)}
    lexical = tuple(name for name, about in fields.items() if about["kind"] == "lexical")
    return Layout({name: about["metric"] for name, about in dense.items()}, external, lexical)


def _options(request: SearchRequest) -> SearchOptions:
    """Return what a request asks for beyond its text, in the client's words; filters are lenient."""
    if request.query.task != "search":
        raise RequestError(f"the query's task is {request.query.task!r}: a server encodes for 'search' alone")
    options: SearchOptions = {
        "k": request.k,
        "offset": request.offset,
        "filter": request.filter,
        "strict_filter": False,
        "group": request.group,
        "snippet_chars": 0,
    }
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


def _log_notes(notes: Sequence[str]) -> None:
    """Log what the frameworks have no place for."""
    for note in notes:
        log.info("search: %s", note)


# -- opening ----------------------------------------------------------------------------------------------------------

_opened: "weakref.WeakValueDictionary[Path, FolderStore]" = weakref.WeakValueDictionary()
_closed: dict[Path, threading.Event] = {}
"""Folder -> set once the last store of it has let go of its files, which is later than nobody having it any more."""
_opening = threading.Lock()


def open_folder(folder: str | Path, dim: int | None = None) -> FolderStore:
    """Open the collection in a folder for reading and writing; make it where there is none.

    dim: of the vectors that clients bring to a new one; None = it encodes with the packaged model. All of this process
    that open one folder share the store; it is closed when nobody has it any more, and who opens the folder again
    meanwhile waits for that. Raises LockedError while another process writes to it: use a server then.
    """
    from retrieval.collection import Collection  # noqa: PLC0415  those of a server need none of it
    from retrieval.collection_config import FILE  # noqa: PLC0415

    path = Path(folder).resolve()
    while True:
        with _opening:
            store = _opened.get(path)
            if store is not None:
                return store
            before = _closed.get(path)
            if before is None or before.is_set():
                exists = (path / FILE).is_file()
                collection = Collection.open(path, writable=True) if exists else Collection.create(path, _config(dim))
                store = FolderStore(collection)
                _closed[path] = threading.Event()
                weakref.finalize(store, _close, collection, _closed[path])
                _opened[path] = store
                return store
        before.wait()  # on another thread; other folders can be opened meanwhile


def _close(collection: "Collection", closed: threading.Event) -> None:
    """Close what nobody has any more, on whatever thread that turns out."""
    from retrieval.collection import COMPACTION_THREAD  # noqa: PLC0415  as above

    if threading.current_thread().name == COMPACTION_THREAD:  # it would wait for itself
        threading.Thread(target=_close, args=(collection, closed)).start()
        return
    try:
        collection.close()
    finally:
        closed.set()


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
