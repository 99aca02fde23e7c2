import csv
import html
import io
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from index.errors import CorpusError
from retrieval.sources import open_source
from retrieval.sources.jsonl import stdin_source
from retrieval.sources.lines import read_lines
from retrieval.sources.validate import DuplicateIds, check_document
from retrieval.types import Document

CHARACTERS = st.characters(codec="utf-8")
TEXT = st.text(CHARACTERS, max_size=40)
IDS = st.text(st.characters(codec="utf-8", exclude_categories=["Cc"]), min_size=1, max_size=30).filter(str.strip)
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)
RESERVED = {"_id", "id", "title", "text", "contents", "metadata", "vector", "vectors"}
METADATA = st.dictionaries(TEXT.filter(lambda key: key not in RESERVED), JSON, max_size=4)
FLOATS = st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1, max_size=4)


@st.composite
def corpora(draw: st.DrawFn) -> list[Document]:
    ids = draw(st.lists(IDS, unique=True, min_size=1, max_size=5))
    return [
        Document(
            document_id,
            draw(TEXT.filter(str.strip)),
            draw(TEXT),
            draw(METADATA),
            {
                name: np.array(values, np.float32)
                for name, values in draw(st.dictionaries(IDS, FLOATS, max_size=2)).items()
            },
        )
        for document_id in ids
    ]


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


@given(corpora(), st.booleans(), st.booleans())
def test_json_lines_give_back_what_was_written(corpus: list[Document], ascii_only: bool, flat: bool) -> None:
    records = []
    for document in corpus:
        record = {"_id": document.id, "title": document.title, "text": document.text}
        record |= document.metadata if flat else {"metadata": document.metadata}
        vectors = {name: vector.tolist() for name, vector in document.vectors.items()}
        records.append(json.dumps({**record, "vectors": vectors}, ensure_ascii=ascii_only))
    stream = io.BytesIO("\r\n\n".join(records).encode())
    read = list(stdin_source(stream).documents())
    assert [(d.id, d.title, d.text, d.metadata) for d in read] == [(d.id, d.title, d.text, d.metadata) for d in corpus]
    for mine, theirs in zip(read, corpus, strict=True):
        assert mine.vectors.keys() == theirs.vectors.keys()
        assert all(np.array_equal(mine.vectors[name], theirs.vectors[name]) for name in theirs.vectors)


NO_LINE_ENDS = st.text(st.characters(codec="utf-8", exclude_characters="\r"), max_size=30)


@given(
    rows=st.lists(
        st.tuples(IDS, NO_LINE_ENDS, NO_LINE_ENDS.filter(str.strip)),
        min_size=1,
        max_size=5,
        unique_by=lambda row: row[0],
    )
)
@settings(deadline=None)
def test_csv_gives_back_what_the_standard_writer_wrote(folder: Path, rows: list[tuple[str, str, str]]) -> None:
    path = folder / "rows.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("id", "note", "text"), *rows])
    read = [(d.id, d.metadata.get("note", ""), d.text) for d in open_source(str(path)).documents()]
    assert read == rows


WORDS = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Zs", "Zl", "Zp"]), min_size=1, max_size=12)


@given(
    rows=st.lists(
        st.tuples(WORDS, WORDS, st.lists(WORDS, min_size=1, max_size=3)),
        min_size=1,
        max_size=4,
        unique_by=lambda row: row[0],
    )
)
@settings(deadline=None)
def test_trec_gives_back_escaped_text(folder: Path, rows: list[tuple[str, str, list[str]]]) -> None:
    def escaped(text: str) -> str:
        return html.escape(text)

    path = folder / "rows.trec"
    path.write_text(
        "".join(
            f"<DOC><DOCNO> {escaped(number)} </DOCNO>\n<Title>{escaped(title)}</Title>\n"
            + "".join(f"<text>\n<p>{escaped(text)}</p></text>" for text in texts)
            + "\n</DOC>\n"
            for number, title, texts in rows
        ),
        encoding="utf-8",
    )
    read = [(d.id, d.title, d.text.split("\n\n")) for d in open_source(str(path)).documents()]
    assert read == rows


@given(st.lists(TEXT.filter(lambda text: "\n" not in text and not text.endswith("\r")), max_size=6), st.booleans())
def test_lines_are_those_that_lf_separates(texts: list[str], windows: bool) -> None:
    end = b"\r\n" if windows else b"\n"
    raw = b"".join(text.encode() + end for text in texts)
    bom = b"\xef\xbb\xbf" if not (texts and texts[0].startswith("\ufeff")) and raw else b""
    read = list(read_lines(io.BytesIO(bom + raw), "x"))
    expected = [text.removeprefix("\ufeff") if not number else text for number, text in enumerate(texts)]
    assert [line.text for line in read] == expected
    assert [line.number for line in read] == list(range(1, len(texts) + 1))


@given(st.lists(st.text(st.characters(), max_size=3), max_size=30))
def test_duplicates_are_exactly_those_of_a_set(ids: list[str]) -> None:
    seen: dict[str, int] = {}
    with DuplicateIds() as duplicates:
        for place, document_id in enumerate(ids):
            if document_id in seen:
                with pytest.raises(CorpusError, match=f"{place}: .* at {seen[document_id]}:"):
                    duplicates.add(document_id, str(place))
            else:
                duplicates.add(document_id, str(place))
                seen[document_id] = place


@given(
    st.text(st.characters(), max_size=8),
    st.text(st.characters(), max_size=8),
    st.dictionaries(st.text(max_size=3), JSON, max_size=3),
)
def test_what_passes_the_check_survives_utf8_and_json(document_id: str, text: str, metadata: dict[str, object]) -> None:
    document = Document(document_id, text, metadata=metadata)
    try:
        check_document(document)
    except CorpusError:
        return
    assert document_id.encode().decode() == document_id
    assert text.encode().decode() == text
    assert json.loads(json.dumps(metadata, allow_nan=False, ensure_ascii=False).encode()) == metadata
