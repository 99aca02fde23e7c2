"""A substring field as one search sees it: the index of the base, less what was replaced or deleted since."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from index.errors import IndexFormatError, RequestError
from index.types import State, SubstringIndex
from retrieval.collection_config import CollectionConfig
from retrieval.encoders import check_queries
from retrieval.phrases.config import SubstringField
from retrieval.phrases.sequences import PARTS
from retrieval.phrases.tokenizer import PhraseTokenizer, Tokens, open_tokenizer
from retrieval.shard import Reading

Int64 = npt.NDArray[np.int64]


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


class Covered:
    """Counts and places in the documents that are still as the index has them.

    Raises IndexFormatError where the index is of other documents or another tokenizer.
    Cost: a match is located and its dead places are taken off only where some documents are dead; see SubstringIndex.
    """

    def __init__(self, reading: Reading, name: str, field: SubstringField) -> None:
        view = reading.view
        self.name = name
        self.field = field
        self.tokenizer: PhraseTokenizer = open_tokenizer(field)
        built = view.base.components[name].config["tokenizer"]
        if self.tokenizer.fingerprint != built:
            raise IndexFormatError(
                f"field {name!r} was built with tokenizer {built!r}, {field.tokenizer!r} is "
                f"{self.tokenizer.fingerprint!r} now: run `grapnel compact`, or put the tokenizer back"
            )
        self.index: SubstringIndex = view.base.substring(name)
        documents = len(view.base.columns)
        if self.index.documents != len(PARTS) * documents:
            raise IndexFormatError(
                f"field {name!r} indexes {self.index.documents} titles and texts, expected those of {documents} "
                "documents: run `grapnel compact`"
            )
        self._dead = np.zeros(documents, np.bool_)
        self._dead[view.base.doc_of[view.base_dead]] = True
        self._any_dead = bool(self._dead.any())
        self.uncovered = view.uncovered.get(name, 0)

    def notes(self) -> list[str]:
        """Return what every answer must say: which passages are not covered."""
        if not self.uncovered:
            return []
        return [f"fresh_not_covered={self.uncovered}: field {self.name!r} sees new text after compaction"]

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
        return state

    def places(self, state: State) -> Places:
        """Return where one match occurs in living documents, by document, part and place."""
        found = self.index.locate(state)
        if not self._any_dead:
            return Places(found.documents, found.places)
        living = ~self._dead[found.documents // len(PARTS)]
        return Places(found.documents[living], found.places[living])

    def count(self, state: State) -> int:
        """Return how often one match occurs in living documents."""
        return len(self.places(state).places) if self._any_dead else int(self.index.count(state)[0])

    def following(self, state: State, length: int) -> Following:
        """Return what follows one match of `length` tokens in living documents."""
        _, tokens, counts = self.index.continuations(state)
        if self._any_dead:
            gone, times = np.unique(self._dead_followers(state, length), return_counts=True)
            counts = counts.copy()
            counts[np.searchsorted(tokens, gone)] -= times
        alive = counts > 0
        return Following(tokens[alive].astype(np.int64), counts[alive])

    def _dead_followers(self, state: State, length: int) -> Int64:
        """Return the token behind each match in a dead document that does not end with it."""
        found = self.index.locate(state)
        dead = self._dead[found.documents // len(PARTS)]
        sequences, firsts = np.unique(found.documents[dead], return_index=True)
        followers = [np.zeros(0, np.int64)]
        for sequence, behind in zip(sequences.tolist(), np.split(found.places[dead] + length, firsts)[1:], strict=True):
            text = self.index.text(sequence)
            followers.append(text[behind[behind < len(text)]].astype(np.int64))
        return np.concatenate(followers)
