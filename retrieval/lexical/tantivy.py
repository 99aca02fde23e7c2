"""BM25 with tantivy: embedded, no server, no Java; k1 = 1.2 and b = 0.75 fixed in the engine.

A passage's text is brought to Unicode form NFC, split into runs of letters and digits (for "cjk" and "tamil" a
pattern that keeps combining marks and takes Han and Hiragana characters one by one), cut to tokens below 255 bytes
(longer ones, such as base64 blobs, cannot be searched), lowercased, freed of stop words, stemmed, and last stripped of
accents, so that stop lists and stemmers see real words and "cafe" still finds "café". Lengths are stored in one byte:
exact up to 40 words, then in steps of at most an eighth.
"""

import os
import shutil
import tempfile
import time
import unicodedata
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from index.component import MANIFEST
from index.durable import storage_errors
from index.errors import CorpusError, IndexFormatError, StorageError
from index.types import Rows
from retrieval.lexical import Accept, LexicalConfig, Matches
from retrieval.lexical.ranking import Scores, best_accepted
from retrieval.lexical.terms import Terms, checked, informative, weighted

if TYPE_CHECKING:
    from tantivy import Document, Index, Query, Schema, Searcher, TextAnalyzer

_ROW, _CONTENTS, _TITLE = "row", "contents", "title"
_ANALYZER = "grapnel"
_META = "meta.json"
_TOKEN_BYTES = 255
_BUILD_HEAP_BYTES = 50_000_000
_FREQUENCIES = "freq"

_MARKED_LANGUAGES = frozenset({"cjk", "tamil"})
"""Languages that runs of letters and digits do not serve: words hold combining marks, or no spaces part them."""

_MARKED_WORDS = r"[\p{Han}\p{Hiragana}]|[\p{L}\p{N}\p{M}&&[^\p{Han}\p{Hiragana}]]+"


def build_tantivy(
    folder: Path,
    config: LexicalConfig,
    passages: Iterable[tuple[int, str, str]],
    *,
    heap_bytes: int = _BUILD_HEAP_BYTES,
) -> dict[str, int]:
    """Write an index of (row, title, text) into an empty folder; return {"passages": how many}.

    heap_bytes: memory for passages not yet flushed (tantivy takes no less than 15 MB).
    Raises ConfigError, CorpusError naming the row of a text with lone surrogates, StorageError.
    Cost: about 30,000 passages of 110 words a second on one core.
    """
    config.validate()
    # The engine's watcher thread takes a lock file where the index is at its own moment, even after the end: so the
    # index is written in a folder that goes away, and what is finished moves out of it.
    scratch = folder / ".building"
    with storage_errors("create", scratch):
        scratch.mkdir()
    index = create_index(scratch, config)
    with engine_errors("write", folder):
        writer = index.writer(heap_bytes, 1)
    count = 0
    for row, title, text in passages:
        document = make_document(config, row, title, text)
        with engine_errors("write", folder):
            writer.add_document(document)
        count += 1
    with engine_errors("write", folder):
        writer.commit()
        writer.wait_merging_threads()
    with storage_errors("move", folder):
        for path in scratch.iterdir():
            if not path.name.startswith("."):  # not locks, nor the list of files tantivy may delete: it may not
                path.rename(folder / path.name)
    remove_folder(scratch)
    return {"passages": count}


def open_tantivy(folder: Path, config: LexicalConfig) -> "TantivyIndex":
    """Open what `build_tantivy` wrote, memory-mapped; nothing is written into the folder, which may be read-only.

    Raises IndexFormatError when tantivy cannot read it. Cost: about a millisecond.
    """
    config.validate()
    # tantivy takes a lock file where it opens an index, so it opens a throw-away folder of links. Once the index is
    # open its files are mapped, and the links are no longer needed.
    with storage_errors("create", Path(tempfile.gettempdir())):
        view = Path(tempfile.mkdtemp(prefix="grapnel-lexical-"))
    try:
        link_base(folder, view)
        index = open_index(view, config, origin=folder)
        return TantivyIndex(index.searcher(), index.schema, config)
    finally:
        remove_folder(view)


def remove_folder(folder: Path) -> None:
    """Remove a folder that tantivy has open: its watcher thread takes a lock file there once, at its own moment."""
    for _ in range(100):
        shutil.rmtree(folder, ignore_errors=True)
        if not folder.exists():
            return
        time.sleep(0.001)


class TantivyIndex:
    """A LexicalIndex over one snapshot of a tantivy index."""

    def __init__(self, searcher: "Searcher", schema: "Schema", config: LexicalConfig) -> None:
        self._searcher = searcher
        self._schema = schema
        self._config = config
        self._analyzer = make_analyzer(config)

    def __len__(self) -> int:
        return self._searcher.num_docs

    def search(self, query_text: str, limit: int, accept: Accept | None = None) -> Matches:
        """See LexicalIndex.search."""
        tokens = self.explain_terms(checked(query_text, limit))
        terms, notes = weighted(tokens, self._document_frequency)
        return self._ranked(terms, limit, accept)._replace(notes=notes)

    def like(self, text: str, limit: int, accept: Accept | None = None) -> Matches:
        """See LexicalIndex.like."""
        tokens = self.explain_terms(checked(text, limit))
        return self._ranked(informative(tokens, self._document_frequency, len(self)), limit, accept)

    def explain_terms(self, query_text: str) -> list[str]:
        """See LexicalIndex.explain_terms."""
        return self._analyzer.analyze(unicodedata.normalize("NFC", query_text))

    def _document_frequency(self, token: str) -> int:
        return self._searcher.doc_freq(_CONTENTS, token)

    def _ranked(self, terms: Terms, limit: int, accept: Accept | None) -> Matches:
        query = self._query(terms)

        def fetch(size: int, among: Rows | None) -> tuple[Rows, Scores]:
            hits = self._searcher.search(query if among is None else self._among(query, among), size, count=False).hits
            rows = self._searcher.fast_field_values(_ROW, [address for _, address in hits])
            return np.array(rows, np.int64), np.array([score for score, _ in hits], np.float32)

        return best_accepted(fetch, limit, accept, len(self))

    def _query(self, terms: Terms) -> "Query":
        from tantivy import Occur, Query  # noqa: PLC0415  heavy imports stay inside functions

        def term(field: str, token: str, weight: float) -> Query:
            query = Query.term_query(self._schema, field, token, index_option=_FREQUENCIES)
            return query if weight == 1 else Query.boost_query(query, weight)

        clauses = [(Occur.Should, term(_CONTENTS, token, float(weight))) for token, weight in terms]
        if boost := self._config.title_boost:
            clauses += [(Occur.Should, term(_TITLE, token, weight * boost)) for token, weight in terms]
        return Query.boolean_query(clauses)

    def _among(self, query: "Query", rows: Rows) -> "Query":
        from tantivy import Occur, Query  # noqa: PLC0415  heavy imports stay inside functions

        # Weight 0: which rows are allowed must not move any score.
        allowed = Query.boost_query(Query.term_set_query(self._schema, _ROW, rows.tolist()), 0.0)
        return Query.boolean_query([(Occur.Must, allowed), (Occur.Must, query)])


def make_analyzer(config: LexicalConfig) -> "TextAnalyzer":
    """Return the chain that the module describes; passages and queries go through the same one."""
    from tantivy import Filter, TextAnalyzerBuilder, Tokenizer  # noqa: PLC0415  heavy imports stay inside functions

    marked = config.language in _MARKED_LANGUAGES
    builder = TextAnalyzerBuilder(Tokenizer.regex(_MARKED_WORDS) if marked else Tokenizer.simple())
    builder = builder.filter(Filter.remove_long(_TOKEN_BYTES)).filter(Filter.lowercase())
    if config.stop_words:
        builder = builder.filter(Filter.stopword(config.language))
    if config.stemming:
        builder = builder.filter(Filter.stemmer(config.language))
    return builder.filter(Filter.ascii_fold()).build()


def make_document(config: LexicalConfig, row: int, title: str, text: str) -> "Document":
    """Return the tantivy document of one passage. Raises CorpusError on lone surrogates."""
    from tantivy import Document  # noqa: PLC0415  heavy imports stay inside functions

    document = Document()
    document.add_unsigned(_ROW, row)
    try:
        document.add_text(_CONTENTS, unicodedata.normalize("NFC", f"{title}\n{text}" if title else text))
        if config.title_boost:
            document.add_text(_TITLE, unicodedata.normalize("NFC", title))
    except UnicodeEncodeError as error:
        raise CorpusError(f"passage of row {row} has a lone surrogate, which no text encoding can hold") from error
    return document


def deleted_rows(schema: "Schema", rows: Iterable[int]) -> "Query":
    """Return the query that matches the given rows, for deletion.

    tantivy-py's delete_documents_by_term takes a Python int for a signed term, which matches nothing in the unsigned
    row field and says nothing.
    """
    from tantivy import Query  # noqa: PLC0415  heavy imports stay inside functions

    return Query.term_set_query(schema, _ROW, list(rows))


def create_index(folder: Path, config: LexicalConfig) -> "Index":
    """Create an empty index in an empty folder."""
    from tantivy import Index, SchemaBuilder  # noqa: PLC0415  heavy imports stay inside functions

    builder = SchemaBuilder().add_unsigned_field(_ROW, indexed=True, fast=True)
    for field in (_CONTENTS, _TITLE) if config.title_boost else (_CONTENTS,):
        builder = builder.add_text_field(field, tokenizer_name=_ANALYZER, index_option=_FREQUENCIES)
    with engine_errors("write", folder):
        index = Index(builder.build(), path=str(folder), reuse=False)
    return _configured(index, config)


def open_index(folder: Path, config: LexicalConfig, *, origin: Path) -> "Index":
    """Open the index whose files are linked into `folder`. Raises IndexFormatError naming `origin`."""
    from tantivy import Index  # noqa: PLC0415  heavy imports stay inside functions

    try:
        index = _configured(Index.open(str(folder)), config)
        for field in (_CONTENTS, _TITLE) if config.title_boost else (_CONTENTS,):
            index.searcher().doc_freq(field, "")
    except (OSError, ValueError) as error:
        raise IndexFormatError(
            f"tantivy cannot read {origin} ({error}): damaged or of other fields; rebuild it"
        ) from error
    return index


def _configured(index: "Index", config: LexicalConfig) -> "Index":
    index.register_tokenizer(_ANALYZER, make_analyzer(config))
    # Snapshots change only when they are asked to. (The thread in which tantivy polls for changes, one an index, was
    # already started by opening it; it ends when the index goes.)
    index.config_reader("manual")
    return index


def link_base(base: Path, folder: Path) -> None:
    """Make `folder` look like the index in `base` to tantivy: links to its data, a copy of what it rewrites."""
    with storage_errors("link", base):
        for path in base.resolve().iterdir():
            if path.name == _META:
                shutil.copyfile(path, folder / _META)
            elif path.name != MANIFEST and not path.name.startswith("."):
                os.symlink(path, folder / path.name)  # noqa: PTH211  reads as what it does, target first


@contextmanager
def engine_errors(action: str, folder: Path) -> Iterator[None]:
    """Turn tantivy's errors, which all arrive as ValueError, into StorageError."""
    try:
        yield
    except (OSError, ValueError) as error:
        raise StorageError(
            f"tantivy cannot {action} {folder}: {error}; check free space and permissions, then repeat"
        ) from error
