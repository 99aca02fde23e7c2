"""Search, multi-search and context."""

import asyncio
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from api.http.answers import JsonResponse, StrictRoute
from api.http.deps import COMMON, Collection, Reader, problems, seconds_of, service_of, while_connected, written
from api.http.problems import request_id_of, value_of
from api.http.schemas import ContextIn, ContextOut, Fusion, Rerank, SearchesIn, SearchesOut, SearchIn, SearchOut
from api.http.vectors import client_vectors
from api.keys import Principal
from api.service import Answer, ContextSpec, RerankSpec, SearchSpec, Service, characters_of
from index.errors import GrapnelError, RequestError
from index.types import Effort
from retrieval.pipeline_config import FusionConfig
from retrieval.snippets import query_forms, snippet
from retrieval.types import Hit, Query, SearchRequest

router = APIRouter(route_class=StrictRoute, tags=["search"])

_RERANKED = problems(501, 502)

_CONTEXT_K = 20


@router.post("/v1/collections/{collection}/search", response_model=SearchOut, responses=_RERANKED)
async def search(request: Request, collection: Collection, body: SearchIn, principal: Reader) -> Response:
    """Answer one search."""
    answer = await while_connected(request, service_of(request).search_one(principal, collection, spec_of(body)))
    return await written(request, characters_of(answer), lambda: answer_value(body, answer))


@router.post("/v1/search", response_model=SearchesOut, responses=COMMON)
async def search_many(request: Request, body: SearchesIn, principal: Reader) -> Response:
    """Answer several searches, of one collection or many; each has its own answer or problem."""
    service = service_of(request)
    if len(body.searches) > service.limits.searches:
        raise RequestError(f"{len(body.searches)} searches, this server takes {service.limits.searches} in one request")
    answers = await while_connected(request, _search_many(service, principal, body))

    def results() -> dict[str, Any]:
        return {
            "results": [
                answer_value(search, answer)
                if isinstance(answer, Answer)
                else {"problem": value_of(answer, request_id_of(request))}
                for search, answer in zip(body.searches, answers, strict=True)
            ]
        }

    return await written(request, sum(map(characters_of, answers)), results)


async def _search_many(service: Service, principal: Principal, body: SearchesIn) -> list[Answer | GrapnelError]:
    """Ask all collections at once; what is asked of one together has one deadline."""
    places: dict[tuple[str, int | None], list[int]] = {}
    for place, search in enumerate(body.searches):
        places.setdefault((search.collection, search.timeout_ms), []).append(place)
    answers: dict[int, Answer | GrapnelError] = {}

    async def ask(name: str, mine: list[int]) -> None:
        try:
            found = await service.search(principal, name, [spec_of(body.searches[place]) for place in mine])
        except GrapnelError as error:
            answers.update(dict.fromkeys(mine, error))
        else:
            answers.update(zip(mine, found, strict=True))

    await asyncio.gather(*(ask(name, mine) for (name, _), mine in places.items()))
    return [answers[place] for place in range(len(body.searches))]


@router.post("/v1/collections/{collection}/context", response_model=ContextOut, responses=_RERANKED)
async def context(request: Request, collection: Collection, body: ContextIn, principal: Reader) -> Response:
    """Return passages for a language model, within a budget of tokens, with citations."""
    k = min(_CONTEXT_K, service_of(request).limits.k) if body.k is None else body.k
    search = SearchSpec(
        SearchRequest(Query("q", body.query), k=k, filter=body.filter, group="passage", min_score=body.min_score),
        mode=body.mode,
        rerank=_rerank(body.rerank),
        timeout_s=seconds_of(body.timeout_ms),
    )
    spec = ContextSpec(search, body.budget_tokens, body.neighbours)
    packed, tokenizer = await while_connected(request, service_of(request).context(principal, collection, spec))
    blocks = [
        {
            "citation": block.citation,
            "number": block.number,
            "id": block.doc_id,
            "title": block.title,
            "start": block.start,
            "end": block.end,
            "text": block.text,
            "tokens": block.tokens,
            "score": block.score,
        }
        for block in packed.blocks
    ]
    return JsonResponse(
        {
            "context": packed.context,
            "blocks": blocks,
            "tokens": packed.tokens,
            "budget_tokens": body.budget_tokens,
            "tokenizer": tokenizer,
            "left_out": packed.left_out,
            "notes": list(packed.notes),
        }
    )


def _rerank(rerank: Rerank | None) -> RerankSpec | None:
    return None if rerank is None else RerankSpec(rerank.model, rerank.depth, seconds_of(rerank.timeout_ms))


def _fusion(fusion: Fusion | None) -> FusionConfig | None:
    if fusion is None:
        return None
    return FusionConfig(tuple(fusion.parts), tuple(fusion.weights), fusion.method, fusion.rrf_k)


def spec_of(body: SearchIn) -> SearchSpec:
    """Return the search that a body asks for. Raises RequestError."""
    effort = Effort() if body.effort is None else Effort(**body.effort.model_dump(exclude_none=True))
    request = SearchRequest(
        Query("q", body.query, vectors=client_vectors(body.vectors)),
        k=body.k,
        offset=body.offset,
        filter=body.filter,
        depth=body.depth,
        effort=effort,
        group=body.group,
        min_score=body.min_score,
        diversity=body.diversity,
        exclude=frozenset(body.exclude),
        like=body.like,
        strict_filter=body.strict_filter,
    )
    return SearchSpec(request, body.mode, _fusion(body.fusion), _rerank(body.rerank), seconds_of(body.timeout_ms))


def answer_value(body: SearchIn, answer: Answer) -> dict[str, Any]:
    """Return an answer as JSON values."""
    forms = query_forms(body.query) if body.snippet_chars else frozenset()
    ranking = answer.ranking
    value: dict[str, Any] = {
        "mode": answer.mode,
        "hits": [hit_value(body, rank, hit, forms) for rank, hit in enumerate(ranking.hits, start=body.offset + 1)],
        "notes": list(ranking.notes),
        "total_ms": round(1000 * answer.total_s, 3),
    }
    if body.explain:
        value["timings_ms"] = {stage: round(1000 * seconds, 3) for stage, seconds in ranking.timings_s.items()}
    return value


def hit_value(body: SearchIn, rank: int, hit: Hit, forms: frozenset[str]) -> dict[str, Any]:
    """Return a hit as JSON values. forms: of the query's words, to be highlighted."""
    passage = hit.passage
    place: dict[str, Any] = {"ordinal": passage.ordinal, "start": passage.start, "end": passage.end}
    if "text" in body.include:
        place["text"] = passage.text
    value: dict[str, Any] = {
        "rank": rank,
        "id": hit.doc_id,
        "score": hit.score,
        "stage": hit.stage,
        "title": passage.title,
        "passage": place,
    }
    if "metadata" in body.include:
        value["metadata"] = hit.metadata
    if body.snippet_chars:
        shown = snippet(passage.text, forms, body.snippet_chars)
        value["snippet"] = {"start": shown.start, "end": shown.end, "highlights": shown.highlights}
    if body.explain:
        value["evidence"] = [{"stage": part.stage, "rank": part.rank, "score": part.score} for part in hit.evidence]
    return value
