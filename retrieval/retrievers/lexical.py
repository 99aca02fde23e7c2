"""Lexical retrieval: BM25 over base and fresh passages."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from index.types import Rows
from retrieval.retrievers.stage import Ask, Context
from retrieval.types import Candidates


class LexicalStage:
    """Searches one lexical field."""

    def __init__(self, name: str) -> None:
        self.name = name

    def candidates(self, context: Context, asks: Sequence[Ask]) -> list[Candidates]:
        """See Stage."""
        uncovered = context.view.uncovered.get(self.name, 0)
        with context.timed(self.name):
            results = []
            for ask in asks:
                if uncovered:
                    ask.note(f"fresh_not_covered={uncovered}: field {self.name!r} sees new text after compaction")
                results.append(self._search(context, ask))
        return results

    def _search(self, context: Context, ask: Ask) -> Candidates:
        index = context.view.lexical[self.name]
        accept = None if ask.allowed.everything else ask.allowed
        if ask.like is not None:
            found = index.like(ask.like, ask.depth, accept)
        else:
            found = index.search(ask.query.text, ask.depth, accept)
        for note in found.notes:
            ask.note(note)
        return Candidates(found.rows, found.scores)

    def scores(self, context: Context, ask: Ask, rows: Rows) -> npt.NDArray[np.float32]:  # noqa: ARG002  see Stage
        """Score 0: a row outside the depth has no lexical evidence worth a second search."""
        return np.zeros(len(rows), np.float32)

    def normalised(
        self, scores: npt.NDArray[np.float32], reference: npt.NDArray[np.float32]
    ) -> npt.NDArray[np.float64]:
        """Divide by the best score: BM25 has a natural zero."""
        best = float(reference[0]) if len(reference) else 0.0
        return scores.astype(np.float64) / best if best > 0 else np.zeros(len(scores))
