"""What is said to the server, as plain data, and how often it is said again. No byte is sent here.

An operation is a generator. It yields steps, a Request or a Pause, is sent what came of each, and returns its result.
Whoever drives it performs the steps, blocking (api/client/sync.py) or not (api/client/asynchronous.py); everything
else (paths, parsing, retries, waiting for jobs) is written once, in operations.
"""

import itertools
import json
import random
from collections.abc import AsyncIterable, Callable, Generator, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, TypeAlias, TypeVar
from urllib.parse import quote

import httpx
import numpy as np

from api.client.errors import PROBLEMS, AnswerTimeoutError, ApiError, Flaw, UnreachableError
from api.client.reading import UnreadableError
from index.errors import GrapnelError, RequestError
from retrieval.types import Json

T = TypeVar("T")

JSON_TYPE = "application/json"

MAX_PAUSE_S = 30.0
"""A server that asks for a longer pause than this is not asked again: the error says when to come back."""

_FIRST_PAUSE_S = 0.1
_MAX_SEGMENT = 4096
"""Characters of a path segment; far above any id that a collection takes."""

_LASTING = frozenset({"grapnel:read-only", "grapnel:damaged"})
"""Problems of status 503 that the next second does not heal."""


@dataclass(frozen=True, slots=True)
class Request:
    """One HTTP request. body: JSON, or a stream of bytes.

    repeatable: whether sending it twice leaves things as sending it once does, and tells the same; only then is it
    ever repeated. patience_s: how long to wait for the server at any one moment; None = the client's timeout.
    """

    method: str
    path: str
    json: Json = None
    stream: Iterable[bytes] | AsyncIterable[bytes] | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    repeatable: bool = True
    patience_s: float | None = None

    def arguments(self) -> dict[str, Any]:
        """Return the arguments for `request` of an httpx client. Raises RequestError on values JSON cannot hold."""
        content = self.stream if self.json is None else to_json(self.json)
        typed = {} if self.json is None else {"Content-Type": JSON_TYPE}
        patience = {} if self.patience_s is None else {"timeout": timeout(self.patience_s)}
        headers = {**typed, **self.headers}
        return {"method": self.method, "url": self.path, "content": content, "headers": headers, **patience}


@dataclass(frozen=True, slots=True)
class Pause:
    """A time to wait."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Answer:
    """What the server answered, whole."""

    status: int
    headers: Mapping[str, str]
    content: bytes


Step: TypeAlias = Request | Pause
Outcome: TypeAlias = Answer | UnreachableError | AnswerTimeoutError | None
"""What came of a step; None of a pause. Failures are values here: whether one ends the operation, it decides."""

Operation: TypeAlias = Generator[Step, Outcome, T]


def call(request: Request, parse: Callable[[Json], T]) -> Operation[T]:
    """Send `request` and return what `parse` makes of the JSON answered (None where the body is empty).

    Raises ApiError, UnreachableError, AnswerTimeoutError.
    """
    outcome = yield request
    if not isinstance(outcome, Answer) or outcome.status >= 300:
        raise failure_of(outcome)
    try:
        return parse(json.loads(outcome.content) if outcome.content else None)
    except (UnreadableError, json.JSONDecodeError, UnicodeDecodeError) as error:
        raise _foreign(
            outcome, f"the answer cannot be read ({error}): is this a grapnel server of a like version?"
        ) from error


def failure_of(outcome: Outcome) -> GrapnelError:
    """Return the error that an outcome other than success is, or tells of."""
    assert outcome is not None, "a request has an outcome"
    return error_of(outcome) if isinstance(outcome, Answer) else outcome


def nothing(_: Json) -> None:
    """Parse an answer that says nothing beyond its status."""


def retrying(operation: Operation[T], retries: int) -> Operation[T]:
    """Perform an operation with each of its repeatable requests sent up to 1 + `retries` times.

    Repeated: a request that found no connection or lost it before the answer, and one refused with status 429 or 503
    for now. Pauses are those the server asks for, else 0.1 s and doubling, with jitter.
    """
    outcome: Outcome = None
    while True:
        try:
            step = operation.send(outcome)
        except StopIteration as end:
            result: T = end.value
            return result
        for attempt in itertools.count():
            outcome = yield step
            pause_s = _pause_s(step, outcome, attempt) if attempt < retries else None
            if pause_s is None:
                break
            yield Pause(pause_s)


def _pause_s(step: Step, outcome: Outcome, attempt: int) -> float | None:
    """Return how long to wait before the step is performed again, None if it is not."""
    if isinstance(step, Pause) or not step.repeatable:
        return None
    usual_s: float = _FIRST_PAUSE_S * 2**attempt * random.uniform(0.5, 1.0)  # noqa: S311  to part clients, not to hide
    if isinstance(outcome, UnreachableError):
        return usual_s
    if not isinstance(outcome, Answer) or outcome.status not in {429, 503}:
        return None
    error = error_of(outcome)
    if error.type in _LASTING or error.retry_after_s > MAX_PAUSE_S:
        return None
    return error.retry_after_s or usual_s


def error_of(answer: Answer) -> ApiError:
    """Return the error that an answer tells of, whoever gave it."""
    try:
        problem = json.loads(answer.content)
    except ValueError:
        problem = None
    if not isinstance(problem, Mapping) or not str(problem.get("type")).startswith("grapnel:"):
        return _foreign(answer, answer.content.decode("utf-8", "replace").strip()[:200])
    headers = {
        "request_id": _request_id(answer),
        "retry_after_s": _retry_after_s(answer),
    }
    return error_from({**headers, **problem, "status": answer.status})


def error_from(problem: Mapping[str, Json]) -> ApiError:
    """Return the error that a problem (RFC 9457) describes."""
    kind = str(problem.get("type"))
    flaws = tuple(
        Flaw(str(each.get("place", "")), str(each.get("message", ""))) for each in problem.get("errors") or ()
    )
    return PROBLEMS.get(kind, ApiError)(
        int(problem.get("status") or 500),
        kind,
        str(problem.get("title") or ""),
        str(problem.get("detail") or ""),
        problem.get("request_id"),
        flaws,
        float(problem.get("retry_after_s") or 0.0),
    )


def _foreign(answer: Answer, detail: str) -> ApiError:
    """Return the error of an answer in no form of ours."""
    title = httpx.codes.get_reason_phrase(answer.status)
    return ApiError(answer.status, "about:blank", title, detail, _request_id(answer), (), _retry_after_s(answer))


def _request_id(answer: Answer) -> str | None:
    return answer.headers.get("x-request-id")


def _retry_after_s(answer: Answer) -> float:
    """Return the seconds that a Retry-After header (a number or a date) asks for; 0 where there is none."""
    value = answer.headers.get("retry-after", "")
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, (parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds())
    except (TypeError, ValueError):
        return 0.0


def no_answer(error: httpx.RequestError, request: Request, url: str) -> UnreachableError | AnswerTimeoutError:
    """Return our error for a request that httpx got no answer to."""
    waited = isinstance(error, httpx.TimeoutException) and not isinstance(error, httpx.ConnectTimeout)
    where = f"{request.method} {url}{request.path}"
    ours = (
        AnswerTimeoutError(f"{where}: no answer in time; raise timeout_s, or ask for less at once")
        if waited
        else UnreachableError(f"{where}: {error or type(error).__name__}; is the server running there?")
    )
    ours.__cause__ = error
    return ours


def segment(value: str) -> str:
    """Return a name or id as a path segment, percent-encoded.

    Raises RequestError where no path can carry it: "", "." and ".." mean other places (httpx and proxies resolve them).
    """
    try:
        quoted = quote(value, safe="")
    except UnicodeEncodeError:
        quoted = ""
    if not can_be_segment(value) or not quoted or len(quoted) > _MAX_SEGMENT:
        raise RequestError(f"{value!r:.80} cannot stand in the path of a request")
    return quoted


def collection_path(collection: str) -> str:
    """Return the path of a collection. Raises RequestError on a name that no path carries."""
    return f"/v1/collections/{segment(collection)}"


def can_be_segment(value: str) -> bool:
    """Return whether a path carries `value` to the server unchanged."""
    return value not in {"", ".", ".."}


def listed(values: Iterable[str], what: str) -> list[str]:
    """Return texts or ids as a list. Raises RequestError on a single one, which Python takes for its characters."""
    if isinstance(values, str):
        raise RequestError(f"{what} is the text {values!r:.80}, expected a list of texts")
    return list(values)


def to_json(value: Json) -> bytes:
    """Return `value` as UTF-8 JSON; arrays become lists, sets of ids too. Raises RequestError."""
    try:
        written = json.dumps(value, ensure_ascii=False, allow_nan=False, default=_plain, separators=(",", ":")).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise RequestError(
            f"cannot be sent as JSON: {error}; expected finite numbers, text, lists and objects"
        ) from error
    _check_names(value)  # after `dumps`, which ends where a value holds itself
    return written


def _check_names(value: Json) -> None:
    """Raise RequestError on a member whose name is no text: `dumps` makes text of it, perhaps that of another one."""
    pending = [value]
    while pending:
        item = pending.pop()
        if isinstance(item, Mapping):
            for name in item:
                if not isinstance(name, str):
                    raise RequestError(f"cannot be sent as JSON: the name {name!r:.80} is no text; expected a string")
            pending += item.values()
        elif isinstance(item, list | tuple):
            pending += item


def _plain(value: object) -> Json:
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    if isinstance(value, set | frozenset):
        return sorted(value)
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{type(value).__name__} is no JSON value")


def timeout(seconds: float) -> httpx.Timeout:
    """Return the limit for every single wait on the server; waiting for a free connection is not such a wait."""
    return httpx.Timeout(seconds, pool=None)
