"""A substring field as one search sees it: the index of the base, of the documents that its answer includes.

Included is what is still as the index has it, neither replaced nor deleted since, and that passes the filter.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple, TypedDict

import numpy as np
import numpy.typing as npt

from index.errors import IndexFormatError, RequestError
from index.types import Check, Locations, State, SubstringIndex, go_on
from retrieval.collection import Collection
from retrieval.collection_config import CollectionConfig
from retrieval.encoders import check_queries
from retrieval.filters import Filter, parse_filter
from retrieval.phrases.config import SubstringField
from retrieval.phrases.sequences import PARTS
from retrieval.phrases.tokenizer import PhraseTokenizer, Tokens, open_tokenizer
from retrieval.shard import Reading
from retrieval.types import Json

Int64 = npt.NDArray[np.int64]

MOST_SHOWN = 100_000
"""Matches or continuations that an answer may show."""


class Places(NamedTuple):
    """Where a match begins: sequences int64 (n,), see `sequences.PARTS`; places int64 (n,), tokens before it there."""

    sequences: Int64
    places: Int64


class Following(NamedTuple):
    """What follows a match: tokens int64 (n,), ascending; counts int64 (n,), at least 1."""

    tokens: Int64
    counts: Int64


def substring_field(config: CollectionConfig, name: str | None) -> tuple[str, SubstringField]:
    """Return a substring field of a collection, its first where no name is given. Raises RequestError on none."""
    fields = config.substring_fields()
    if not fields:
        raise RequestError(
            'the collection has no field of kind "substring": add [fields.NAME] with kind = "substring" to its '
            "collection.toml and run `grapnel compact`"
        )
    if name is None:
        return next(iter(fields.items()))
    if name not in fields:
        raise RequestError(f"field {name!r} is no substring field; substring fields: {', '.join(fields)}")
    return name, fields[name]


class PhraseOptions(TypedDict, total=False):
    """How phrases and n-grams are looked for.

    field: a substring field; None = the first. filter: only documents that match are included, see retrieval.filters.
    strict_filter: see SearchRequest. most_places: of one match that may be looked at; None = all.
    check: called before every block of places that is looked at, and before each document that is shown.
    """

    field: str | None
    filter: Mapping[str, Json] | None
    strict_filter: bool
    most_places: int | None
    check: Check


def check_limit(limit: int) -> None:
    """Raise RequestError unless so many matches or continuations can be shown."""
    if not 0 <= limit <= MOST_SHOWN:
        raise RequestError(f"limit is {limit}, expected 0 to {MOST_SHOWN}")


@contextmanager
def covering(
    collection: Collection,
    *,
    field: str | None = None,
    filter: Mapping[str, Json] | None = None,  # noqa: A002  the field's word
    strict_filter: bool = True,
    most_places: int | None = None,
    check: Check = go_on,
) -> Iterator[tuple[Reading, "Covered"]]:
    """Yield one consistent state of a collection, and its substring field in it. For the options see PhraseOptions.

    Raises RequestError on a bad filter, or where there is no such field.
    """
    name, config = substring_field(collection.config, field)
    condition = None if filter is None else parse_filter(filter)
    with collection.shard.reading() as reading:
        yield reading, Covered(reading, name, config, condition, strict=strict_filter, most=most_places, check=check)


class Covered:
    """Counts and places in the documents that are included.

    condition, strict: see View.allowed. most: places of one match that may be looked at; None = all. check: called
    before every block of them.
    Raises IndexFormatError where the index is of other documents or another tokenizer, RequestError as View.allowed.
    Cost: where every document is included, that of SubstringIndex; otherwise a look at every place of what is counted.
    """

    def __init__(
        self,
        reading: Reading,
        name: str,
        field: SubstringField,
        condition: Filter | None,
        *,
        strict: bool = True,
        most: int | None = None,
        check: Check = go_on,
    ) -> None:
        view = reading.view
        self.name = name
        self.tokenizer: PhraseTokenizer = open_tokenizer(field)
        built = view.base.components[name].config["tokenizer"]
        if self.tokenizer.fingerprint != built:
            raise IndexFormatError(
                f"field {name!r} was built with tokenizer {built!r}, {field.tokenizer!r} is "
                f"{self.tokenizer.fingerprint!r} now: run `grapnel compact`, or put the tokenizer back"
            )
        self.index: SubstringIndex = view.base.substring(name)
        self.nowhere = "nowhere" if condition is None else "in no document that matches"
        documents = len(view.base.columns)
        if self.index.documents != len(PARTS) * documents:
            raise IndexFormatError(
                f"field {name!r} indexes {self.index.documents} titles and texts, expected those of {documents} "
                "documents: run `grapnel compact`"
            )
        allowed = view.allowed(condition, strict=strict)
        self._all_included = bool(allowed.base.all())
        self._included = np.full(documents, self._all_included)
        if not self._all_included:
            self._included[view.base.doc_of[allowed.base]] = True
        self._most = most
        self.check = check
        self._uncovered = int(allowed.fresh.sum())

    def notes(self) -> list[str]:
        """Return what every answer must say: how many passages would be included and are not covered."""
        if not self._uncovered:
            return []
        return [f"fresh_not_covered={self._uncovered}: field {self.name!r} sees new text after compaction"]

    def phrase(self, text: str, what: str) -> Tokens:
        """Return the tokens of a phrase. what: its name in errors.

        Raises RequestError where it has none, is no Unicode text, or holds what the tokenizer has no token for.
        """
        check_queries([text])
        tokens = self.tokenizer.encode([text])[0]
        if not len(tokens):
            raise RequestError(f"the {what} {text!r} has no token: give at least one word or sign")
        unknown = self.tokenizer.unknown(text)
        if unknown:
            raise RequestError(
                f"the tokenizer of field {self.name!r} has no token for {unknown[0]!r}, which it cannot tell from "
                f"anything else unknown: leave it out of the {what}"
            )
        return tokens

    def match(self, tokens: Tokens) -> State:
        """Return the state of one match."""
        state = self.index.root(1)
        for token in tokens:
            state = self.index.extend(state, np.array([token]))
            if not self.index.count(state)[0]:
                break  # what does not occur stays so
        return state

    def places(self, state: State) -> Places:
        """Return where one match occurs, by document, part and place. Raises RequestError on too many."""
        found = self._located(state)
        if self._all_included:
            return Places(found.documents, found.places)
        included = self._included_at(found)
        return Places(found.documents[included], found.places[included])

    def occurs(self, state: State) -> bool:
        """Return whether one match occurs; taken for granted where it would look at too many places."""
        return not self.can_count(state) or self.count(state) > 0

    def can_count(self, state: State) -> bool:
        """Return whether `count` answers: always, unless it would look at too many places."""
        return self._all_included or self._may_locate(state)

    def count(self, state: State) -> int:
        """Return how often one match occurs. Raises RequestError on too many places to look at."""
        return int(self._counts(state)[0])

    def following(self, state: State) -> Following:
        """Return what follows one match. Raises RequestError on too many places to look at."""
        _, tokens, counts = self.index.continuations(state)
        if not self._all_included:
            counts = self._counts(self.index.extend(np.repeat(state, len(tokens), axis=0), tokens))
        occurring = counts > 0
        return Following(tokens[occurring].astype(np.int64), counts[occurring])

    def _counts(self, state: State) -> Int64:
        """Return how often each match occurs."""
        if self._all_included:
            return self.index.count(state)
        found = self._located(state)
        before = np.concatenate([[0], np.cumsum(self._included_at(found))])
        return np.diff(before[found.offsets])

    def _included_at(self, found: Locations) -> npt.NDArray[np.bool_]:
        """Return which places are in included documents."""
        return self._included[found.documents // len(PARTS)]

    def _may_locate(self, state: State) -> bool:
        return self._most is None or int(self.index.count(state).sum()) <= self._most

    def _located(self, state: State) -> Locations:
        if not self._may_locate(state):
            # How many there are is not said: they may be in documents that the one who asks must not know of.
            raise RequestError(
                f"what is counted has more than the {self._most:,} places that may be looked at: give more words"
            )
        return self.index.locate(state, check=self.check)
