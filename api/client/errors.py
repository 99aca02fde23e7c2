"""What a client of the service may raise: the errors of index/errors.py, and three of its own.

GrapnelError
├── ApiError              the server answered with a problem (RFC 9457); what it means is its second base class:
│       NotFoundError, ConflictError, PreconditionError, ForbiddenError, RequestError, StorageError, LockedError,
│       OverloadedError, DeadlineError, IndexFormatError, MissingDependencyError, RerankerError; else ApiError itself
├── UnreachableError      no connection, or it broke before the answer was there
├── AnswerTimeoutError    the connection stands, but no answer came in time
└── JobError              a job that was waited for has failed

`except NotFoundError` therefore works alike over a collection in this process and over a remote one, and
`except ApiError` catches everything that a server said, with status and request id.
"""

from dataclasses import dataclass, fields
from typing import NamedTuple

from api.client.results import Job
from index import errors
from index.errors import GrapnelError


class Flaw(NamedTuple):
    """One thing wrong with a request. place: where, as the server names it ("body.k")."""

    place: str
    message: str


@dataclass(eq=False)
class ApiError(GrapnelError):
    """The server answered with an error.

    type: the stable name of the problem ("grapnel:not-found"), "about:blank" where the answer came from something
    else, a proxy for instance. request_id: what the server's log calls this request. errors: the flaws of an invalid
    request, place by place. retry_after_s: when the server asks to come back; 0 where it does not say.
    """

    status: int
    type: str
    title: str
    detail: str
    request_id: str | None = None
    errors: tuple[Flaw, ...] = ()
    retry_after_s: float = 0.0

    def __post_init__(self) -> None:
        """Fill `args`, of which pickle rebuilds an exception: it must survive the way out of a worker process."""
        self.args = tuple(getattr(self, field.name) for field in fields(self))

    def __str__(self) -> str:
        said = self.detail or self.title
        flaws = "".join(f"; {place}: {message}" for place, message in self.errors)
        request = f", request {self.request_id}" if self.request_id else ""
        return f"{said}{flaws} ({self.status} {self.type}{request})"


class UnreachableError(GrapnelError, ConnectionError):
    """No connection to the server, or it broke before the whole answer was there; the cause is chained."""


class AnswerTimeoutError(GrapnelError, TimeoutError):
    """No answer in time; whether the server acted on the request is unknown. The cause is chained."""


class JobError(GrapnelError):
    """A job that was waited for has failed. job: as the server last described it."""

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        self.job = job

    def __str__(self) -> str:
        return f"job {self.job.id} ({self.job.kind} of {self.job.collection!r}) failed: {self.job.error}"


# One class per meaning, of the same name as what it means: `except` with the names of index.errors catches them.


class RequestError(ApiError, errors.RequestError):
    """The request cannot be answered as asked."""


class ForbiddenError(ApiError, errors.ForbiddenError):
    """The key is missing or unknown (status 401), or may not do this (403)."""


class NotFoundError(ApiError, errors.NotFoundError):
    """A collection, document, field or job that does not exist."""


class ConflictError(ApiError, errors.ConflictError):
    """What is there already, or has changed meanwhile, forbids the write."""


class PreconditionError(ConflictError, errors.PreconditionError):
    """The document is not what `if_match` or `if_none_match` asked for."""


class OverloadedError(ApiError, errors.OverloadedError):
    """More work is queued than may wait, or the server starts or stops."""


class DeadlineError(ApiError, errors.DeadlineError):
    """The request's time was over before its work began."""


class StorageError(ApiError, errors.StorageError):
    """The server's disk refused the write."""


class LockedError(ApiError, errors.LockedError):
    """The collection can only be read now: its folder, or another process, forbids writing."""


class IndexFormatError(ApiError, errors.IndexFormatError):
    """A file of the collection is damaged."""


class MissingDependencyError(ApiError, errors.MissingDependencyError):
    """The server lacks an optional package."""


class RerankerError(ApiError, errors.RerankerError):
    """The reranker failed."""


PROBLEMS: dict[str, type[ApiError]] = {
    "grapnel:bad-request": RequestError,
    "grapnel:invalid": RequestError,
    "grapnel:too-large": RequestError,
    "grapnel:unsupported-media-type": RequestError,
    "grapnel:unauthenticated": ForbiddenError,
    "grapnel:forbidden": ForbiddenError,
    "grapnel:not-found": NotFoundError,
    "grapnel:conflict": ConflictError,
    "grapnel:precondition-failed": PreconditionError,
    "grapnel:overloaded": OverloadedError,
    "grapnel:unavailable": OverloadedError,
    "grapnel:deadline": DeadlineError,
    "grapnel:storage": StorageError,
    "grapnel:read-only": LockedError,
    "grapnel:damaged": IndexFormatError,
    "grapnel:not-installed": MissingDependencyError,
    "grapnel:reranker": RerankerError,
}
"""Type of a problem -> class of the error; ApiError itself for every other type ("grapnel:internal")."""
