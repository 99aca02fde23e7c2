"""Commands over HTTP: the collection of a server as a Target (see api/cli_target.py)."""

import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

from api.client import ApiError, CollectionClient, Grapnel, JobError, SearchHit, SearchResult
from api.client.options import Search
from api.phrases import PhraseSpec, sent_options
from index.errors import CorpusError, RequestError
from index.types import Effort
from retrieval.ingest import AddReport, batches
from retrieval.progress import Progress
from retrieval.types import Document, Hit, Json, Ranking, SearchRequest

KEY_VARIABLE = "GRAPNEL_KEY"

_LOOK_S = 0.2
"""How often a running job is looked at."""

_SEARCHES_AT_ONCE = 64
"""What a server takes in one request unless it is configured otherwise."""


@contextmanager
def open_remote(url: str, name: str, key: str | None) -> Iterator["Remote"]:
    """Yield the collection `name` of the server at `url`. key: None = what GRAPNEL_KEY holds, if anything.

    Raises ConfigError on a bad url or key, RequestError on what is no name.
    """
    if "/" in name or name in {"", ".", ".."}:
        raise RequestError(f"with --url, DIR is the name of a collection on that server; {name!r} is none")
    with Grapnel(url, key or os.environ.get(KEY_VARIABLE) or None) as client:
        yield Remote(client.collection(name))


class Remote:
    """A collection of a server."""

    def __init__(self, collection: CollectionClient) -> None:
        self._collection = collection

    def search(self, requests: Sequence[SearchRequest], mode: str | None) -> tuple[str, list[Ranking]]:
        """Answer searches, with evidence and timings."""
        asked = [_search(request, mode) for request in requests]
        if len(asked) == 1:  # goes before other clients' batches; several are a batch themselves
            results = [self._collection.search(**asked[0])]
        else:
            parts = (asked[start : start + _SEARCHES_AT_ONCE] for start in range(0, len(asked), _SEARCHES_AT_ONCE))
            answers = (answer for part in parts for answer in self._collection.search_many(part))
            results = [_unless_error(answer) for answer in answers]
        rankings = [_ranking(request, result) for request, result in zip(requests, results, strict=True)]
        return results[0].mode, rankings

    def grep(self, spec: PhraseSpec) -> dict[str, Any]:
        """Return where a phrase occurs, as JSON values."""
        return asdict(self._collection.grep(spec.text, **sent_options(spec)))

    def ngrams(self, spec: PhraseSpec) -> dict[str, Any]:
        """Return how often an n-gram occurs and what follows it, as JSON values."""
        return asdict(self._collection.ngrams(spec.text, **sent_options(spec)))

    def add(self, documents: Iterable[Document], progress: Progress) -> dict[str, int]:
        """Send documents in streams of up to 1,000; each is acknowledged before the next begins.

        Raises CorpusError on one that the server refuses; the others of its stream are stored.
        """
        total, done = AddReport(), 0
        for batch in batches(documents):
            report = self._collection.upsert(batch)
            total += AddReport(**{name: getattr(report, name) for name in asdict(total)})
            if report.refusal is not None:
                raise CorpusError(report.refusal)
            done += len(batch)
            progress("add", done, None)
        return asdict(total)

    def delete(self, doc_ids: Sequence[str], condition: Mapping[str, Json] | None) -> int:
        """Delete by id and by filter; return how many documents there were."""
        return self._collection.delete_many(doc_ids, filter=condition)

    def get(self, doc_id: str) -> Document | None:
        """Return a document, None where there is none."""
        (stored,) = self._collection.get_many([doc_id])
        return None if stored is None else stored.document

    def compact(self, progress: Progress) -> dict[str, Any]:
        """Let the server compact, and wait for it. Raises JobError."""
        job = self._collection.compact(wait=False)
        while job.state == "running":
            time.sleep(_LOOK_S)
            job = self._collection.client.job(job.id)
            if job.stage:
                progress(job.stage, job.done, job.total)
        if job.state == "failed":
            raise JobError(job)
        return dict(job.result or {})

    def describe(self) -> dict[str, Any]:
        """Return what the server says of the collection."""
        summary = asdict(self._collection.describe())
        return {name: list(value) if isinstance(value, tuple) else value for name, value in summary.items()}


def _search(request: SearchRequest, mode: str | None) -> Search:
    """Return a request as the client takes it. What a command line cannot ask for must be as it is by default."""
    assert not request.query.vectors
    assert request.effort == Effort()
    search: Search = {
        "query": request.query.text,
        "mode": mode,
        "k": request.k,
        "offset": request.offset,
        "filter": request.filter,
        "depth": request.depth,
        "group": request.group,
        "min_score": request.min_score,
        "diversity": request.diversity,
        "exclude": sorted(request.exclude),
        "explain": True,
        "snippet_chars": 0,  # made here, of the passage's text
    }
    if request.like is not None:
        search["like"] = request.like
    return search


def _unless_error(answer: SearchResult | ApiError) -> SearchResult:
    if isinstance(answer, ApiError):
        raise answer
    return answer


def _ranking(request: SearchRequest, result: SearchResult) -> Ranking:
    timings_s = {stage: milliseconds / 1000 for stage, milliseconds in result.timings_ms.items()}
    return Ranking(request.query.id, tuple(map(_hit, result.hits)), result.notes, timings_s)


def _hit(hit: SearchHit) -> Hit:
    return Hit(hit.id, hit.passage, hit.score, hit.stage, hit.evidence, hit.metadata)
