"""A reranker on a search's ranking: the first hits in a new order, with their old places as evidence."""

import time
from dataclasses import replace

from index.errors import RerankerError
from retrieval.protocols import Candidate, Reranker, RerankResult
from retrieval.types import Evidence, Hit, Ranking, SearchRequest


def rerank_hits(
    reranker: Reranker, name: str, request: SearchRequest, ranking: Ranking, *, depth: int, deadline: float | None
) -> Ranking:
    """Return hits [offset, offset + k) of a request after reranking the first `depth` hits of its ranking.

    ranking: the answer to the request with offset 0 and at least max(depth, offset + k) hits, as far as there are any.
    depth: how many hits the reranker gets, at least 1. deadline: a `time.monotonic()` reading.
    A reranked hit has stage `name` and the reranker's score (None where it gives none); its evidence gains its rank and
    score in the stage before, unless it held that already, and in this one. Hits that the
    deadline left and hits beyond the depth follow unchanged, in their old order.
    timings_s gains "rerank". Notes say whatever kept the reranker from doing all this; where it fails (RerankerError),
    or the request has no text to compare with, all hits are as they were. Other errors are raised.
    """
    start = time.perf_counter()
    hits, notes = ranking.hits, list(ranking.notes)
    first, stop = request.offset, request.offset + request.k
    top_k = min(depth, stop)
    if not request.query.text.strip():
        notes.append(f"rerank_skipped: the query has no text that {name!r} could compare with")
    elif hits:
        try:
            result = _checked(name, reranker, request.query.text, hits[:depth], top_k, deadline)
        except RerankerError as error:
            notes.append(f"rerank_failed: {error}; the hits are in the order of the search")
        else:
            notes += result.notes
            if stop > depth and len(hits) > depth:
                notes.append(f"rerank_depth={depth}: later hits are in the order of the search")
            hits = (*_reordered(name, hits, result), *hits[depth:])
    timings_s = {**ranking.timings_s, "rerank": time.perf_counter() - start}
    return replace(ranking, hits=hits[first:stop], notes=tuple(notes), timings_s=timings_s)


def _checked(
    name: str, reranker: Reranker, query: str, hits: tuple[Hit, ...], top_k: int, deadline: float | None
) -> RerankResult:
    """Ask a reranker. Raises RerankerError, also on an answer that is no order of these hits."""
    candidates = [Candidate(hit.passage.text, hit.passage.title) for hit in hits]
    result = reranker.rerank(query, candidates, top_k=top_k, deadline=deadline)
    wanted = min(top_k, len(hits))
    if not (
        len(result.order) == len(set(result.order)) == len(result.scores) == wanted
        and all(0 <= place < len(hits) for place in result.order)
    ):
        raise RerankerError(
            f"{name!r} answered {len(set(result.order))} distinct places and {len(result.scores)} scores for "
            f"{wanted} of {len(hits)} candidates, expected one of each for every place"
        )
    return result


def _reordered(name: str, hits: tuple[Hit, ...], result: RerankResult) -> list[Hit]:
    reached = len(result.order) - result.unreached
    reordered = []
    for place, (old, score) in enumerate(zip(result.order, result.scores, strict=True)):
        hit = hits[old]
        if place < reached:
            evidence = hit.evidence
            if all(known.stage != hit.stage for known in evidence):
                evidence += (Evidence(hit.stage, old + 1, hit.score),)
            hit = replace(hit, stage=name, score=score, evidence=(*evidence, Evidence(name, place + 1, score)))
        reordered.append(hit)
    return reordered
