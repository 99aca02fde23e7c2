"""One stream of documents, checked, with what was left out on purpose."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

from index.errors import CorpusError
from retrieval.sources.validate import DuplicateIds, check_document, is_empty
from retrieval.types import Document

_PLACES_SHOWN = 5


class Placed(NamedTuple):
    """A document with the place it was read from, for messages: `corpus.jsonl line 17`."""

    place: str
    document: Document


class Skipped:
    """What a source left out on purpose, counted by reason; a few places of each are kept, so memory is bounded."""

    def __init__(self) -> None:
        self._places: dict[str, list[str]] = {}
        self._counts: dict[str, int] = {}

    def add(self, reason: str, place: str) -> None:
        """Count `place` under `reason`."""
        places = self._places.setdefault(reason, [])
        if len(places) < _PLACES_SHOWN:
            places.append(place)
        self._counts[reason] = self._counts.get(reason, 0) + 1

    def clear(self) -> None:
        """Forget everything."""
        self._places.clear()
        self._counts.clear()

    def lines(self) -> list[str]:
        """Return one line a reason: its count, the reason, and the first places."""
        return [
            f"{count} skipped, {reason}: {', '.join(self._places[reason])}{', ...' if count > _PLACES_SHOWN else ''}"
            for reason, count in self._counts.items()
        ]


class Source:
    """Documents to read: `name` (kind and path, for people) and `estimate` (how many, None where that is not cheap).

    An estimate is for progress bars: what a reader skips and multi-line records make it differ from the true count.
    """

    def __init__(
        self, name: str, estimate: int | None, read: Callable[[Skipped], Iterator[Placed]], *, once: bool = False
    ) -> None:
        """Wrap a reader.

        read: starts one pass, reporting what it leaves out. once: the stream cannot be read twice (standard input).
        """
        self.name = name
        self.estimate = estimate
        self._read = read
        self._once = once
        self._started = False
        self._skipped = Skipped()

    @property
    def skipped(self) -> list[str]:
        """What the latest pass has left out so far and why, one line a reason; empty records, other kinds of files."""
        return self._skipped.lines()

    def documents(self) -> Iterator[Document]:
        """Yield the documents, each passing `check_document`, ids unique, in a stable order, in bounded memory.

        A record whose title and text are there but blank is skipped and reported, as real corpora hold a few.
        Raises CorpusError naming the place on anything that cannot be read or accepted, and if nothing is there at all.
        """
        if self._once and self._started:
            raise CorpusError(f"{self.name} was read already and cannot be read twice: save it to a file first")
        self._started = True
        self._skipped.clear()
        found = False
        with DuplicateIds() as ids:
            for place, document in self._read(self._skipped):
                ids.add(document.id, place)
                if is_empty(document):
                    self._skipped.add("nothing in it to search (no title, no text)", place)
                    continue
                try:
                    check_document(document)
                except CorpusError as error:
                    raise CorpusError(f"{place}: {error}") from error
                found = True
                yield document
        if not found:
            raise CorpusError(f"{self.name} holds no documents" + "".join(f"; {line}" for line in self.skipped))
