"""Exact phrases and n-grams of a collection, as one principal may see its documents, and the answers as JSON values."""

import asyncio
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from api.keys import Principal
from index.errors import DeadlineError
from retrieval.collection import Collection
from retrieval.phrases.covered import PhraseOptions
from retrieval.phrases.grep import Found, grep
from retrieval.phrases.ngrams import Counted, ngrams

if TYPE_CHECKING:
    from api.client.options import PhraseOptions as SentOptions  # httpx comes with it
    from api.service import Service

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class PhraseSpec:
    """What is looked for. text: a phrase or an n-gram. limit: matches or continuations shown.

    timeout_s: give up when it is not answered by then.
    """

    text: str
    limit: int = 10
    options: PhraseOptions = field(default_factory=PhraseOptions)
    timeout_s: float | None = None


def sent_options(spec: PhraseSpec) -> "SentOptions":
    """Return what a client sends of a spec beside its text."""
    return {"field": spec.options.get("field"), "filter": spec.options.get("filter"), "limit": spec.limit}


class Phrases:
    """Looks for phrases on threads of their own: one that occurs in millions of places keeps nobody from a document.

    A thread looks at no more places once its call's time is over, or whoever asked has left.
    Every call raises NotFoundError on an unknown collection, ForbiddenError without the scope, RequestError on what
    cannot be answered as asked or goes beyond the limits, OverloadedError, and DeadlineError.
    """

    def __init__(self, service: "Service") -> None:
        self._service = service

    async def grep(self, principal: Principal, name: str, spec: PhraseSpec) -> Found:
        """Find a phrase in this principal's documents; see `retrieval.phrases.grep`."""
        return await self._answer(
            principal, name, spec, lambda collection, own: grep(collection, spec.text, limit=spec.limit, **own)
        )

    async def ngrams(self, principal: Principal, name: str, spec: PhraseSpec) -> Counted:
        """Count an n-gram and what follows it in this principal's documents; see `retrieval.phrases.ngrams`."""
        return await self._answer(
            principal, name, spec, lambda collection, own: ngrams(collection, spec.text, limit=spec.limit, **own)
        )

    async def _answer(
        self, principal: Principal, name: str, spec: PhraseSpec, ask: Callable[[Collection, PhraseOptions], T]
    ) -> T:
        service, limits = self._service, self._service.limits
        service.check_most({"limit": (spec.limit, limits.k), "phrase characters": (len(spec.text), limits.text_chars)})
        service.check_times({"timeout": spec.timeout_s})
        given_up = threading.Event()

        def check() -> None:
            if given_up.is_set():
                raise DeadlineError("nobody waits for the answer any more")

        own = spec.options | PhraseOptions(
            filter=principal.restricted(spec.options.get("filter")),
            # What fields there are tells of documents: a key that sees only some is not told which.
            strict_filter=spec.options.get("strict_filter", True) and principal.filter is None,
            most_places=limits.places,
            check=check,
        )
        try:
            async with asyncio.timeout(spec.timeout_s or limits.timeout_s):
                return await service.reading(principal, name, lambda it: ask(it, own), service.phrase_calls)
        except TimeoutError as error:
            raise DeadlineError("the time was over before every place was looked at: give more words") from error
        finally:
            given_up.set()  # the client may have left, too: then this is cancelled


def found_value(phrase: str, found: Found) -> dict[str, Any]:
    """Return where a phrase occurs as JSON values."""
    return {
        "phrase": phrase,
        "field": found.field,
        "tokens": list(found.tokens),
        "count": found.count,
        "documents": found.documents,
        "matches": [
            {
                "doc_id": match.doc_id,
                "title": match.title,
                "part": match.part,
                "start": match.start,
                "end": match.end,
                "snippet": {"text": match.snippet, "start": match.snippet_start},
            }
            for match in found.matches
        ],
        "notes": list(found.notes),
    }


def counted_value(ngram: str, counted: Counted) -> dict[str, Any]:
    """Return how often an n-gram occurs and what follows it as JSON values."""
    return {
        "ngram": ngram,
        "field": counted.field,
        "tokens": list(counted.tokens),
        "count": counted.count,
        "used": {"tokens": list(counted.used), "count": counted.used_count, "ends": counted.ends},
        "distinct": counted.distinct,
        "continuations": [
            {
                "token": each.token,
                "id": each.id,
                "count": each.count,
                "probability": each.probability,
                "text": each.text,
            }
            for each in counted.continuations
        ],
        "notes": list(counted.notes),
    }
