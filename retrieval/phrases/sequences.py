"""What a substring field indexes: two sequences of tokens for every document, its title and then its text.

A phrase never reaches from a title into a text, nor from a document into the next, and characters are counted in the
part they stand in. Texts are taken whole: chunking, whose passages overlap, would count what it repeats twice.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final, Literal, TypeAlias

from index.substring_spec import SubstringSpec
from index.types import SubstringIndex
from retrieval.phrases.config import SubstringField
from retrieval.phrases.tokenizer import PhraseTokenizer, Tokens, open_tokenizer
from retrieval.progress import Progress
from retrieval.types import Document

Part: TypeAlias = Literal["title", "text"]

PARTS: Final[tuple[Part, Part]] = ("title", "text")
"""Document number n has the sequences 2n, its title, and 2n + 1, its text; either may be empty."""

_BLOCK_CHARACTERS = 1 << 20
"""Text tokenized at once: enough for every core, little to hold."""


def part_text(document: Document, part: Part) -> str:
    """Return the text of one part of a document."""
    return document.title if part == "title" else document.text


def write_phrases(
    folder: Path, field: SubstringField, name: str, documents: Iterator[Document], progress: Progress
) -> Mapping[str, int]:
    """Write the index of a substring field and return its counts: the `fill` of its component.

    documents: in the order of their numbers. name: of the field, for `progress`.
    Raises ConfigError where the tokenizer is gone, CorpusError on a text too long for a shard.
    Memory and cost: those of write_substring, and of tokenizing; the longest text is tokenized at once.
    """
    from index.substring import write_substring  # noqa: PLC0415  compiled loops load when used

    tokenizer = open_tokenizer(field)
    spec = SubstringSpec(tokenizer.vocab_size, tokenizer.fingerprint, field.mode)

    def sorting(stage: str, done: int, total: int | None) -> None:
        if stage == "shards":
            progress(f"sort {name}", done, total)

    counts = write_substring(folder, _sequences(tokenizer, documents), spec, sorting)
    return {**counts, "documents": counts["documents"] // len(PARTS)}


def open_phrases(folder: Path, tokenizer: str) -> SubstringIndex:
    """Open what `write_phrases` wrote. tokenizer: the fingerprint that it must have been written with.

    Raises IndexFormatError on damage, or where it is of another tokenizer.
    """
    from index.substring import open_substring  # noqa: PLC0415  as above

    return open_substring(folder, tokenizer=tokenizer)


def _sequences(tokenizer: PhraseTokenizer, documents: Iterator[Document]) -> Iterator[Tokens]:
    block: list[str] = []
    characters = 0
    for document in documents:
        block += [part_text(document, part) for part in PARTS]
        characters += len(document.title) + len(document.text)
        if characters >= _BLOCK_CHARACTERS:
            yield from tokenizer.encode(block)
            block, characters = [], 0
    yield from tokenizer.encode(block)
