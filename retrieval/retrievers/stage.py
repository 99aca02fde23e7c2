"""What the stages of one search share: the view, the requests as resolved, query vectors and timings."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt

from index.types import Effort, Rows, Vectors
from retrieval.types import Candidates, Query
from retrieval.view import Allowed, View


@dataclass(slots=True)
class Ask:
    """One request, resolved against a view. depth: candidates wanted from each part.

    like: text of the document that "more like this" starts from. notes: what was degraded on the way.
    """

    query: Query
    allowed: Allowed
    depth: int
    effort: Effort
    like: str | None = None
    notes: list[str] = field(default_factory=list)

    def note(self, text: str) -> None:
        """Add a note once."""
        if text not in self.notes:
            self.notes.append(text)


class Stage(Protocol):
    """One way from asks to candidates."""

    name: str

    def candidates(self, context: "Context", asks: Sequence[Ask]) -> list[Candidates]:
        """Return up to `ask.depth` allowed candidates per ask: best first, ties by row."""
        ...

    def scores(self, context: "Context", ask: Ask, rows: Rows) -> npt.NDArray[np.float32]:
        """Return this stage's score of each row, float32 (n,): what `candidates` would give it at full depth."""
        ...

    def normalised(
        self, scores: npt.NDArray[np.float32], reference: npt.NDArray[np.float32]
    ) -> npt.NDArray[np.float64]:
        """Return scores on a scale comparable across stages, given the scores of the stage's own candidates."""
        ...


@dataclass(slots=True)
class Context:
    """One batch on its way through the pipeline. encode: (field, queries) -> float32 (Q, D)."""

    view: View
    encode: Callable[[str, Sequence[Query]], Vectors]
    timings_s: dict[str, float] = field(default_factory=dict)
    _vectors: dict[tuple[str, int], npt.NDArray[np.float32]] = field(default_factory=dict)

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Add the time spent inside to the stage's total, in seconds."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.timings_s[stage] = self.timings_s.get(stage, 0.0) + time.perf_counter() - start

    def query_vectors(self, name: str, asks: Sequence[Ask]) -> Vectors:
        """Return the query vectors of a dense field, float32 (len(asks), D), each encoded once per batch."""
        missing = [ask for ask in asks if (name, id(ask)) not in self._vectors]
        if missing:
            with self.timed("encode"):
                vectors = self.encode(name, [ask.query for ask in missing])
            for ask, vector in zip(missing, vectors, strict=True):
                self._vectors[name, id(ask)] = vector
        return np.stack([self._vectors[name, id(ask)] for ask in asks])
