"""Exact phrases and n-grams of a collection's substring fields."""

from fastapi import APIRouter, Request
from starlette.responses import Response

from api.http.answers import StrictRoute
from api.http.deps import COMMON, Collection, Reader, seconds_of, service_of, while_connected, written
from api.http.phrase_schemas import GrepIn, GrepOut, NgramsIn, NgramsOut
from api.phrases import PhraseSpec, counted_value, found_value
from retrieval.phrases.covered import PhraseOptions

router = APIRouter(route_class=StrictRoute, tags=["search"])


@router.post("/v1/collections/{collection}/grep", response_model=GrepOut, responses=COMMON)
async def grep(request: Request, collection: Collection, body: GrepIn, principal: Reader) -> Response:
    """Find every place of an exact phrase, in a collection with a field of kind "substring"."""
    phrases = service_of(request).phrases
    found = await while_connected(request, phrases.grep(principal, collection, _spec_of(body.phrase, body)))
    characters = sum(len(match.title) + len(match.snippet) for match in found.matches)
    return await written(request, characters, lambda: found_value(body.phrase, found))


@router.post("/v1/collections/{collection}/ngrams", response_model=NgramsOut, responses=COMMON)
async def ngrams(request: Request, collection: Collection, body: NgramsIn, principal: Reader) -> Response:
    """Count an n-gram of tokens and what follows it, in a collection with a field of kind "substring"."""
    phrases = service_of(request).phrases
    counted = await while_connected(request, phrases.ngrams(principal, collection, _spec_of(body.ngram, body)))
    characters = sum(len(each.text) for each in counted.continuations)
    return await written(request, characters, lambda: counted_value(body.ngram, counted))


def _spec_of(text: str, body: GrepIn | NgramsIn) -> PhraseSpec:
    """Return what a body asks for."""
    options = PhraseOptions(field=body.field, filter=body.filter, strict_filter=body.strict_filter)
    return PhraseSpec(text, body.limit, options, seconds_of(body.timeout_ms))
