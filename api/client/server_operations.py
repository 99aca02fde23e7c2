"""Operations of a server: each function returns one as api/client/exchange.py explains them."""

import json
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Literal

from api.client.errors import JobError
from api.client.exchange import (
    Answer,
    Operation,
    Pause,
    Request,
    call,
    collection_path,
    failure_of,
    listed,
    nothing,
    segment,
)
from api.client.options import Chunking, DenseField, LexicalField, SubstringField
from api.client.reading import read, read_aliases, read_embeddings, read_list, read_reranking
from api.client.results import CollectionSummary, Embeddings, Health, Job, Model, Reranking
from retrieval.types import Json

_FIRST_LOOK_S = 0.1
_LAST_LOOK_S = 2.0
"""How soon a job is looked at first, and how seldom at last; in between, each pause is twice the one before."""

read_job = partial(read, Job)
read_summary = partial(read, CollectionSummary)


def collections() -> Operation[list[CollectionSummary]]:
    """Return every collection that the key may see, those that cannot be opened too."""
    return call(Request("GET", "/v1/collections"), read_list(CollectionSummary, "collections"))


def create_collection(
    name: str,
    fields: Mapping[str, DenseField | LexicalField | SubstringField] | None = None,
    chunking: Chunking | None = None,
) -> Operation[CollectionSummary]:
    """Make an empty collection. fields, chunking: the server's defaults where they are not given.

    Raises ConflictError when the name is taken, RequestError on a bad name or field.
    """
    options = {"fields": fields, "chunking": chunking}
    body = {"name": name, **{key: value for key, value in options.items() if value is not None}}
    return call(Request("POST", "/v1/collections", json=body, repeatable=False), read_summary)


def delete_collection(name: str) -> Operation[None]:
    """Delete a collection with everything in it; an alias does not name one here. Raises NotFoundError. Sent once."""
    return call(Request("DELETE", collection_path(name), repeatable=False), nothing)


def aliases() -> Operation[dict[str, str]]:
    """Return alias -> collection."""
    return call(Request("GET", "/v1/aliases"), read_aliases)


def set_alias(alias: str, collection: str) -> Operation[None]:
    """Let `alias` name `collection` from now on, whatever it named before."""
    return call(Request("PUT", f"/v1/aliases/{segment(alias)}", json={"collection": collection}), nothing)


def delete_alias(alias: str) -> Operation[None]:
    """Take an alias away; its collection stays. Raises NotFoundError. Sent once."""
    return call(Request("DELETE", f"/v1/aliases/{segment(alias)}", repeatable=False), nothing)


def jobs() -> Operation[list[Job]]:
    """Return the jobs that the server remembers."""
    return call(Request("GET", "/v1/jobs"), read_list(Job, "jobs"))


def job(job_id: str) -> Operation[Job]:
    """Return how a job stands. Raises NotFoundError."""
    return call(Request("GET", f"/v1/jobs/{segment(job_id)}"), read_job)


def wait(running: Job) -> Operation[Job]:
    """Return the job once it is done, however long that takes. Raises JobError when it fails."""
    pause_s = _FIRST_LOOK_S
    while running.state == "running":
        yield Pause(pause_s)
        pause_s = min(2 * pause_s, _LAST_LOOK_S)
        running = yield from job(running.id)
    if running.state == "failed":
        raise JobError(running)
    return running


def embeddings(
    texts: Sequence[str], model: str = "default", *, input_type: Literal["query", "passage"] = "passage"
) -> Operation[Embeddings]:
    """Return one vector for each text.

    model: an encoder that `models` lists. input_type: whether the texts are searched with, or are to be found; many
    encoders have a prompt for each.
    """
    body = {"input": listed(texts, "texts"), "model": model, "encoding_format": "base64", "input_type": input_type}
    return call(Request("POST", "/v1/embeddings", json=body), read_embeddings)


def rerank(query: str, texts: Sequence[str], model: str, top_n: int | None = None) -> Operation[Reranking]:
    """Return the texts by how well they answer the query, best first; the `top_n` best ones. model: see `models`."""
    limit = {} if top_n is None else {"top_n": top_n}
    body = {"query": query, "documents": listed(texts, "texts"), "model": model, **limit}
    return call(Request("POST", "/v1/rerank", json=body), read_reranking)


def models() -> Operation[list[Model]]:
    """Return the encoders and rerankers that requests may name."""
    return call(Request("GET", "/v1/models"), read_list(Model, "data"))


def health() -> Operation[Health]:
    """Ask whether the server takes requests now; one that does not (yet, or any more) is an answer, not an error.

    Raises UnreachableError or AnswerTimeoutError when there is none. Never repeated.
    """
    outcome = yield Request("GET", "/health/ready", repeatable=False)
    if not isinstance(outcome, Answer) or outcome.status not in {200, 503}:
        raise failure_of(outcome)
    return Health(outcome.status == 200, _object(outcome.content))


def _object(content: bytes) -> Mapping[str, Json]:
    try:
        report = json.loads(content)
    except ValueError:
        return {}
    return report if isinstance(report, Mapping) else {}
