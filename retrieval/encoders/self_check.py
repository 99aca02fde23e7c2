"""How fast a backend is here, and how near its vectors are to those of torch in float32, on real text.

The text is the Python language reference that every Python carries (`pydoc_data.topics`): a few hundred paragraphs of
one subject, so their neighbours are close together and top-10 overlap is a strict measure.
"""

import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from index.types import Vectors
from retrieval.types import Query

if TYPE_CHECKING:
    from retrieval.encoders.model_encoder import ModelEncoder

PASSAGES = 192
QUERIES = 64
_LEAST_PASSAGES = 32
_SHORTEST, _LONGEST = 80, 1_200
"""Characters of a passage, 20 to 250 tokens."""

_PASS_S = 3.0
"""Aim for one pass of the slowest backend over the passages; large models get fewer of them."""

_TIMED_QUERIES = 16
_NEIGHBOURS = 10


@dataclass(frozen=True, slots=True)
class Sample:
    """Real text: passages of 80 to 1,200 characters, and the first sentences of others as queries."""

    passages: Sequence[str]
    queries: Sequence[str]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What an encoder did with a sample.

    passages, queries: its vectors, float32 (n, D). texts_per_s: passages, the better of two passes. query_ms: median
    of queries sent one at a time.
    """

    passages: Vectors
    queries: Vectors
    texts_per_s: float
    query_ms: float


@dataclass(frozen=True, slots=True)
class Agreement:
    """How near vectors are to the reference: cosines over all texts, and the share of equal top-10 passages."""

    mean_cosine: float
    least_cosine: float
    overlap: float


def sample() -> Sample:
    """Return the texts, the same for every backend and machine with this version of Python."""
    from pydoc_data.topics import topics  # noqa: PLC0415  500 KB of text

    found = (
        " ".join(paragraph.split()) for topic in sorted(topics) for paragraph in re.split(r"\n\s*\n", topics[topic])
    )
    paragraphs = list(dict.fromkeys(text for text in found if len(text) >= _SHORTEST))
    step = len(paragraphs) // (PASSAGES + QUERIES)
    spread = paragraphs[: step * (PASSAGES + QUERIES) : step]
    queries = [re.split(r"(?<=[.:;])\s", text)[0][:160] for text in spread[::4]]
    passages = [text[:_LONGEST] for place, text in enumerate(spread) if place % 4]
    return Sample(passages, queries)


def fitted(texts: Sample, encoder: "ModelEncoder") -> Sample:
    """Return as many of the passages as an encoder gets through in some seconds; all of them for a small model."""
    few = texts.passages[:8]
    encoder.encode_texts(few)  # the first pass allocates
    started = time.perf_counter()
    encoder.encode_texts(few)
    seconds = (time.perf_counter() - started) / len(few)
    return Sample(texts.passages[: max(_LEAST_PASSAGES, int(_PASS_S / seconds))], texts.queries)


def run(encoder: "ModelEncoder", texts: Sample) -> Outcome:
    """Encode a sample and take the time. Queries are encoded one at a time, as a search does it."""
    queries = [Query(str(place), text) for place, text in enumerate(texts.queries)]
    query_vectors = np.concatenate([encoder.encode_queries([query]) for query in queries])
    alone = [_seconds(lambda: encoder.encode_queries([query])) for query in queries[:_TIMED_QUERIES]]  # noqa: B023
    started = time.perf_counter()
    passages = encoder.encode_texts(texts.passages).vectors
    first = time.perf_counter() - started
    bulk = min(first, _seconds(lambda: encoder.encode_texts(texts.passages)))
    return Outcome(passages, query_vectors, len(texts.passages) / bulk, 1000 * float(np.median(alone)))


def agreement(outcome: Outcome, reference: Outcome) -> Agreement:
    """Compare vectors with those of the reference: each query among the passages, both encoded the same way."""
    cosines = np.concatenate(
        [_cosines(outcome.queries, reference.queries), _cosines(outcome.passages, reference.passages)]
    )
    shared = [
        len(np.intersect1d(found, expected)) / len(expected)
        for found, expected in zip(_nearest(outcome), _nearest(reference), strict=True)
    ]
    return Agreement(float(cosines.mean()), float(cosines.min()), float(np.mean(shared)))


def _seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def _unit(vectors: Vectors) -> Vectors:
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit: Vectors = vectors / np.maximum(norms, np.finfo(np.float32).tiny)
    return unit


def _cosines(left: Vectors, right: Vectors) -> Vectors:
    cosines: Vectors = np.einsum("nd,nd->n", _unit(left), _unit(right))
    return np.nan_to_num(cosines, nan=-1.0)  # vectors that are no numbers are as far away as can be


def _nearest(outcome: Outcome) -> npt.NDArray[np.int64]:
    scores = _unit(outcome.queries) @ _unit(outcome.passages).T
    return np.argsort(-scores, axis=1, kind="stable")[:, :_NEIGHBOURS]
