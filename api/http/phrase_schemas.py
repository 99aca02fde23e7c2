"""What the routes of phrases and n-grams take and give, as pydantic models; see api/http/schemas.py."""

from typing import Literal

from pydantic import BaseModel, Field

from api.http.schemas import MOST, Filter, Strict, StrictFilter


class PhraseIn(Strict):
    """What grep and ngrams take beside their text."""

    field: str | None = Field(None, description='A field of kind "substring"; null = the first.', examples=["phrases"])
    filter: Filter | None = None
    strict_filter: StrictFilter = True
    timeout_ms: int | None = Field(
        None, ge=1, le=MOST, description="By then it must be answered (504 otherwise); null = what this server allows."
    )


class GrepIn(PhraseIn):
    """An exact phrase to find, as the tokens that the field makes of it."""

    phrase: str = Field(min_length=1, examples=["line by line"])
    limit: int = Field(10, ge=0, le=MOST, description="Matches shown; all are counted.")


class PhraseSnippetOut(BaseModel):
    """The text around a match; it begins at character `start` of the same part."""

    text: str
    start: int


class MatchOut(BaseModel):
    """One place of a phrase: characters [start, end) of one part of a document."""

    doc_id: str
    title: str
    part: Literal["title", "text"]
    start: int
    end: int
    snippet: PhraseSnippetOut


class GrepOut(BaseModel):
    """Where a phrase occurs. count: all places; documents: how many have one. matches: the first, in order of writing.

    notes: what is not covered until the next compaction, and what could be asked instead.
    """

    phrase: str
    field: str
    tokens: list[str]
    count: int
    documents: int
    matches: list[MatchOut]
    notes: list[str]


class NgramsIn(PhraseIn):
    """An n-gram to count, with what follows it."""

    ngram: str = Field(min_length=1, examples=["line by"])
    limit: int = Field(10, ge=0, le=MOST, description="Continuations shown, the most frequent first.")


class SuffixOut(BaseModel):
    """The longest suffix that occurs. ends: how often a title or a text ends with it."""

    tokens: list[str]
    count: int
    ends: int


class ContinuationOut(BaseModel):
    """A token that follows. count: of n-gram and token together. text: both as text, for people."""

    token: str
    id: int
    count: int
    probability: float
    text: str


class NgramsOut(BaseModel):
    """How often an n-gram occurs. used: what the continuations follow. distinct: how many there are in all."""

    ngram: str
    field: str
    tokens: list[str]
    count: int
    used: SuffixOut
    distinct: int
    continuations: list[ContinuationOut]
    notes: list[str]
