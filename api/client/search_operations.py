"""Searching; see api/client/exchange.py for the form of operations."""

from collections.abc import Iterable, Mapping
from functools import partial
from typing import Unpack

from api.client.errors import ApiError
from api.client.exchange import Operation, Request, call, collection_path, error_from
from api.client.options import CollectionSearch, ContextOptions, PhraseOptions, Search, SearchOptions
from api.client.reading import items, read, read_search
from api.client.results import Context, NgramResult, PhraseResult, SearchResult
from retrieval.types import Json


def search(collection: str, query: str = "", **options: Unpack[SearchOptions]) -> Operation[SearchResult]:
    """Return the best documents for a query text, for `vectors`, or those `like` a document.

    Raises RequestError on an option or filter that makes no sense, OverloadedError, DeadlineError.
    """
    return call(Request("POST", f"{collection_path(collection)}/search", json={"query": query, **options}), read_search)


def search_many(collection: str, searches: Iterable[Search]) -> Operation[list[SearchResult | ApiError]]:
    """Answer several searches at once, in order; see `search_collections`."""
    return search_collections([{"collection": collection, **search} for search in searches])


def search_collections(searches: Iterable[CollectionSearch]) -> Operation[list[SearchResult | ApiError]]:
    """Answer several searches of any collections at once, in order; one that fails is answered by its error."""
    body = {"searches": list(searches)}
    return call(
        Request("POST", "/v1/search", json=body), lambda value: [_answer(one) for one in items(value, "results")]
    )


def _answer(value: Json) -> SearchResult | ApiError:
    if isinstance(value, Mapping) and isinstance(value.get("problem"), Mapping):
        return error_from(value["problem"])
    return read_search(value)


def context(collection: str, query: str, **options: Unpack[ContextOptions]) -> Operation[Context]:
    """Return the best passages for a query with what stands around them, packed into a budget of tokens."""
    return call(
        Request("POST", f"{collection_path(collection)}/context", json={"query": query, **options}),
        partial(read, Context),
    )


def grep(collection: str, phrase: str, **options: Unpack[PhraseOptions]) -> Operation[PhraseResult]:
    """Return where an exact phrase occurs, in a collection with a field of kind "substring".

    Raises RequestError on a phrase, option or filter that makes no sense, OverloadedError, DeadlineError.
    """
    request = Request("POST", f"{collection_path(collection)}/grep", json={"phrase": phrase, **options})
    return call(request, partial(read, PhraseResult))


def ngrams(collection: str, ngram: str, **options: Unpack[PhraseOptions]) -> Operation[NgramResult]:
    """Return how often an n-gram of tokens occurs and what follows it; otherwise as `grep`."""
    request = Request("POST", f"{collection_path(collection)}/ngrams", json={"ngram": ngram, **options})
    return call(request, partial(read, NgramResult))
