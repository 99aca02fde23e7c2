"""JSONL, BEIR, CSV, TSV, MS MARCO and TREC: real files, plain and compressed, sound and broken."""

import gzip
import io
import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import zstandard

from index.errors import CorpusError, StorageError
from retrieval.sources import lines, open_source
from retrieval.sources.jsonl import stdin_source
from retrieval.types import Document

Write = Callable[[str, str | bytes], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write_file(name: str, content: str | bytes) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return write_file


def read(source: Path | str) -> list[Document]:
    return list(open_source(str(source)).documents())


def brief(documents: list[Document]) -> list[tuple[str, str, str]]:
    return [(document.id, document.title, document.text) for document in documents]


def refused(source: Path | str) -> str:
    with pytest.raises(CorpusError) as caught:
        read(source)
    return str(caught.value)


def test_fields_of_a_json_line(write: Write) -> None:
    line = {
        "_id": 7,
        "id": "kept",
        "title": None,
        "contents": "body",
        "year": 1999,
        "metadata": {"tags": ["a"]},
        "vectors": {"mini": [0.1, -2]},
        "vector": [1, 2.5],
    }
    (document,) = read(write("a.jsonl", json.dumps(line)))
    assert brief([document]) == [("7", "", "body")]
    assert document.metadata == {"id": "kept", "year": 1999, "tags": ["a"]}
    assert {name: vector.dtype for name, vector in document.vectors.items()} == {
        "mini": np.float32,
        "dense": np.float32,
    }
    assert document.vectors["mini"].tolist() == np.array([0.1, -2], np.float32).tolist()
    assert document.vectors["dense"].tolist() == [1, 2.5]


def test_bom_crlf_and_blank_lines(write: Write) -> None:
    path = write("a.ndjson", b'\xef\xbb\xbf{"id": "1", "text": "a"}\r\n\r\n   \n{"id": "2", "text": "b\xe2\x80\xa8c"}')
    assert brief(read(path)) == [("1", "", "a"), ("2", "", "b\u2028c")]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "broken JSON at column 2"),
        ('{"id": "2", "text": "x"} trailing', "broken JSON at column 26: Extra data"),
        ("[1]", "found a JSON list, expected one object a line"),
        ('{"id": "2", "text": "x", "n": NaN}', "NaN is not a JSON number"),
        ('{"id": "2", "text": "x", "text": "y"}', "key 'text' is given twice"),
        ('{"id": "2", "text": "x", "n": ' + "9" * 5000 + "}", "broken JSON"),
        ('{"id": "2", "text": "x", "n": ' + "[" * 100_000, "nested too deeply"),
        ('{"id": "2", "text": "x", "n": 1e999}', "metadata 'n' is inf"),
        ('{"id": "2", "text": "\\ud800"}', "lone surrogate U+D800"),
        ('{"text": "x"}', "no id: give each document a unique '_id' or 'id'"),
        ('{"id": null, "text": "x"}', "no id"),
        ('{"id": " ", "text": " "}', "no id"),
        ('{"id": true, "text": "x"}', "'id' is of type bool"),
        ('{"id": 1.5, "text": "x"}', "'id' is of type float"),
        ('{"id": "2", "body": "x"}', "no key 'text', 'contents', 'title' or 'vectors'; found: 'id', 'body'"),
        ('{"id": "2", "text": ["x"]}', "'text' is of type list"),
        ('{"id": "2", "text": "x", "title": 3}', "'title' is of type int"),
        ('{"id": "2", "text": "x", "metadata": "m"}', "'metadata' is of type str"),
        ('{"id": "2", "text": "x", "a": 1, "metadata": {"a": 1}}', "'a' is given twice"),
        ('{"id": "2", "text": "x", "vectors": [1]}', "'vectors' is of type list"),
        ('{"id": "2", "text": "x", "vectors": {"v": 1}}', "vector 'v' is of type int"),
        ('{"id": "2", "text": "x", "vectors": {"v": [1, "2"]}}', "vector 'v' holds a str"),
        ('{"id": "2", "text": "x", "vectors": {"v": [1, true]}}', "vector 'v' holds a bool"),
        ('{"id": "2", "text": "x", "vectors": {"v": [[1]]}}', "vector 'v' holds a list"),
        ('{"id": "2", "text": "x", "vectors": {"v": [1e39]}}', "vector 'v' holds NaN or infinity"),
        ('{"id": "2", "text": "x", "vectors": {"v": [1' + "0" * 400 + "]}}", "beyond float32"),
        ('{"id": "2", "text": "x", "vectors": {"dense": [1]}, "vector": [1]}', "both give 'dense'"),
        ('{"id": "1", "text": "x"}', "id '1' was used before, at a.jsonl line 1"),
    ],
)
def test_a_bad_json_line_is_refused_by_its_number(write: Write, line: str, message: str) -> None:
    text = refused(write("a.jsonl", '{"id": "1", "text": "fine"}\n\n' + line + "\n"))
    assert text.startswith("a.jsonl line 3: ")
    assert message in text


def test_wrong_encodings_are_named(write: Write) -> None:
    latin = '{"id": "1", "text": "a"}\n{"id": "2", "text": "caf\xe9"}\n'.encode("latin1")
    assert "a.jsonl line 2: byte 0xe9 at position 24 is not UTF-8" in refused(write("a.jsonl", latin))
    assert "b.jsonl is UTF-16" in refused(write("b.jsonl", '{"id": "1", "text": "a"}'.encode("utf-16")))


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.csv", "a.tsv", "a.trec"])
def test_an_empty_file_holds_no_documents(write: Write, name: str) -> None:
    content = gzip.compress(b"") if name.endswith(".gz") else b""
    assert f"{name} holds no documents" in refused(write(name, content))


def test_blank_records_are_skipped_and_reported(write: Write) -> None:
    rows = [json.dumps({"id": n, "title": "", "text": "" if n % 2 else "x"}) for n in range(1, 15)]
    source = open_source(str(write("a.jsonl", "\n".join(rows))))
    assert [document.id for document in source.documents()] == ["2", "4", "6", "8", "10", "12", "14"]
    places = ", ".join(f"a.jsonl line {n}" for n in (1, 3, 5, 7, 9))
    assert source.skipped == [f"7 skipped, nothing in it to search (no title, no text): {places}, ..."]
    list(source.documents())
    assert source.skipped[0].startswith("7 skipped"), "a second pass counts afresh"
    only_blank = write("b.jsonl", '{"id": "1", "text": " "}')
    assert "holds no documents; 1 skipped, nothing in it" in refused(only_blank)


ROWS = b"".join(b'{"id": "%d", "text": "some text %d"}\n' % (n, n * n) for n in range(5000))


def zstd(raw: bytes) -> bytes:
    """As the zstd command does, with the checksum that makes a flipped bit visible."""
    return zstandard.ZstdCompressor(write_checksum=True).compress(raw)


@pytest.mark.parametrize(
    ("suffix", "compress"),
    [
        (".gz", gzip.compress),
        (".GZ", lambda raw: gzip.compress(raw[:7777]) + gzip.compress(raw[7777:])),
        (".zst", zstd),
        (".zst", lambda raw: zstd(raw[:7777]) + zstd(raw[7777:])),
    ],
    ids=["gzip", "gzip of two members", "zstd", "zstd of two frames"],
)
def test_compressed_files_read_whole_and_damage_is_refused(
    write: Write, suffix: str, compress: Callable[[bytes], bytes]
) -> None:
    packed = compress(ROWS)
    name = f"a.jsonl{suffix}"
    assert [document.id for document in read(write(name, packed))] == [str(n) for n in range(5000)]
    for cut in (1, 5, len(packed) // 2, len(packed) - 30):
        assert "is damaged or cut off after line" in refused(write(name, packed[:-cut])), cut
    middle = len(packed) // 2
    flipped = packed[:middle] + bytes([packed[middle] ^ 0x10]) + packed[middle + 1 :]
    assert refused(write(name, flipped)).startswith(name)
    assert "is damaged" in refused(write(name, b"this was never compressed"))


def test_estimates(write: Write) -> None:
    assert open_source(str(write("a.jsonl", ROWS))).estimate == 5000
    assert open_source(str(write("b.jsonl", ROWS[:-1]))).estimate == 5000
    assert open_source(str(write("c.jsonl.gz", gzip.compress(ROWS)))).estimate is None
    assert open_source(str(write("a.tsv", "id\ttext\n1\ta\n2\tb\n"))).estimate == 2
    assert open_source(str(write("d.jsonl", ""))).estimate == 0


def test_reading_takes_memory_for_a_document_not_for_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    with path.open("w") as file:
        file.writelines(json.dumps({"id": n, "text": "word " * 400}) + "\n" for n in range(10_000))
    assert path.stat().st_size > 20_000_000
    source = open_source(str(path))
    tracemalloc.start()
    try:
        assert sum(1 for _ in source.documents()) == 10_000
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 4_000_000


def test_a_document_of_50_mb(write: Write) -> None:
    text = "fifty MB of text " * 3_000_000
    (document,) = read(write("a.jsonl", json.dumps({"id": "1", "text": text})))
    assert document.text == text


def test_a_line_beyond_the_limit_is_refused_unread(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "LINE_BYTES", 100)
    exact = '{"id": "1", "text": "%s"}\n'
    fits = write("a.jsonl", exact.replace("%s", "x" * (100 - len(exact) + 2)))
    assert fits.stat().st_size == 100
    assert len(read(fits)) == 1
    longer = write("b.jsonl", '{"id": "1", "text": "y"}\n' + "x" * 1000)
    assert "b.jsonl line 2 is longer than 100 bytes" in refused(longer)


def test_a_beir_folder_is_its_corpus(write: Write) -> None:
    write("set/queries.jsonl", '{"_id": "q", "text": "a query"}')
    write("set/notes.txt", "not a document of the corpus")
    folder = write("set/corpus.jsonl.gz", gzip.compress(b'{"_id": "Tom Smith%20", "title": "t", "text": "x"}')).parent
    source = open_source(str(folder))
    assert brief(list(source.documents())) == [("Tom Smith%20", "t", "x")]
    assert source.name == f"BEIR folder {folder}"
    assert brief(read(f"beir:{folder}")) == [("Tom Smith%20", "t", "x")]
    assert [document.id for document in read(f"files:{folder}")] == ["notes.txt"]


def test_standard_input_is_read_once() -> None:
    source = stdin_source(io.BytesIO(b'{"id": "1", "text": "a"}\n{"id": "1", "text": "b"}\n'))
    with pytest.raises(CorpusError, match="standard input line 2: id '1' was used before, at standard input line 1"):
        list(source.documents())
    with pytest.raises(CorpusError, match="cannot be read twice"):
        list(source.documents())


def test_csv_with_quotes_newlines_and_metadata(write: Write) -> None:
    rows = [
        "\ufeffid,title,text,year,metadata",
        '1,"A ""title""","two\r\nlines, one cell",1999,"{""n"": [1.5]}"',
        "",
        "2,,b,,",
    ]
    path = write("a.csv", "\r\n".join(rows))
    one, two = read(path)
    assert brief([one, two]) == [("1", 'A "title"', "two\nlines, one cell"), ("2", "", "b")]
    assert one.metadata == {"year": "1999", "n": [1.5]}
    assert two.metadata == {}


def test_a_csv_cell_far_beyond_the_standard_limit(write: Write) -> None:
    (document,) = read(write("a.csv", "id,text\n1," + "x" * 1_000_000 + "\n"))
    assert len(document.text) == 1_000_000


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("1,first text\n2,second\n", "a.csv line 1: no column '_id' or 'id' in the header"),
        ("id,body\n1,x\n", "line 1: no column 'text', 'contents' or 'title'"),
        ("id,text,text\n1,x,y\n", "column 'text' is there twice"),
        ("id,text,\n1,x,y\n", "column '' has no name"),
        ('id,text\n1,"a\nb"\n2,x,y\n', "a.csv line 4: found 3 cells, expected 2"),
        ('id,text\n1,x\n2,"never closed\n3,y\n', "a.csv line 3: broken CSV"),
        ('id,text\n1,"closed" early\n', "a.csv line 2: broken CSV"),
        ("id,text\n,x\n", "a.csv line 2: no id"),
        ("id,text,metadata\n1,x,{\n", "a.csv line 2: column 'metadata': broken JSON"),
        ('id,text\n1,"a\nb"\n1,x\n', "a.csv line 4: id '1' was used before, at a.csv line 2"),
    ],
)
def test_bad_csv_is_refused_by_the_line_its_record_starts_at(write: Write, content: str, message: str) -> None:
    assert message in refused(write("a.csv", content))


def test_tsv_has_no_quoting(write: Write) -> None:
    path = write("a.tsv", '_id\ttext\tlang\n1\t"quoted" said he\ten\n2\t"\t\n')
    one, two = read(path)
    assert brief([one, two]) == [("1", "", '"quoted" said he'), ("2", "", '"')]
    assert (one.metadata, two.metadata) == ({"lang": "en"}, {})


def test_a_tsv_without_header_is_read_only_on_request(write: Write) -> None:
    path = write("collection.tsv", '0\tThe "first" passage\n1\tTitle\tsecond\n')
    assert "write msmarco:collection.tsv" in refused(path)
    assert brief(read(f"msmarco:{path}")) == [("0", "", 'The "first" passage'), ("1", "Title", "second")]
    assert "line 2: found 1 columns" in refused(f"msmarco:{write('b.tsv', '0' + chr(9) + 'x' + chr(10) + 'no tab')}")


NEWSWIRE = """<?xml version="1.0"?>
<ROOT> <!-- generated -->
<DOC>
<DOCNO> WSJ-1 </DOCNO>
<HL>   Profits &amp; losses
</HL>
<AUTHOR> A. Writer </AUTHOR>
<IN>STEEL</IN><IN>OIL</IN>
<LP> The leading paragraph. </LP>
stray words
<TEXT>
<P>First <B>bold</B> &lt;tag&gt;.</P>
<!-- a comment -->
Second, with an unclosed <p> tag.
</TEXT>
last words
</DOC><doc id="x"><docno>2</docno><text>one line</text></doc>
</ROOT>
"""


def test_trec_newswire(write: Write) -> None:
    one, two = read(write("a.sgml", NEWSWIRE))
    assert (one.id, one.title) == ("WSJ-1", "Profits & losses")
    assert one.text.split("\n\n") == [
        "The leading paragraph.",
        "stray words",
        "First bold <tag>.",
        "Second, with an unclosed  tag.",
        "last words",
    ]
    assert one.metadata == {"author": "A. Writer", "in": ["STEEL", "OIL"]}
    assert brief([two]) == [("2", "", "one line")]


def test_trec_crawled_page(write: Write) -> None:
    page = (
        "<DOC><DOCNO>G-1</DOCNO><DOCOLDNO>B-1</DOCOLDNO>\n<DOCHDR>\nhttp://example.org/\nHTTP/1.1 200 OK\n</DOCHDR>\n"
        "<html><head><title>A page</title></head><body><script>no()</script><p>Body.</p></body></html></DOC>"
    )
    (document,) = read(write("web.trec", page))
    assert brief([document]) == [("G-1", "A page", "Body.")]
    assert document.metadata == {"docoldno": "B-1", "dochdr": "http://example.org/\nHTTP/1.1 200 OK"}


def test_trec_folder_on_request(write: Write) -> None:
    doc = "<DOC>\n<DOCNO>{0}</DOCNO>\n<TEXT>text {0}</TEXT>\n</DOC>\n"
    write("disk/b/ft911_1", doc.format("b1") + doc.format("b2"))
    write("disk/a.gz", gzip.compress(doc.format("a").encode()))
    write("disk/.hidden", "not TREC")
    folder = write("disk/c.zst", zstandard.compress(doc.format("c").encode())).parent
    assert [document.id for document in read(f"trec:{folder}")] == ["a", "b1", "b2", "c"]
    write("disk/d", doc.format("b2"))
    assert "d line 1: id 'b2' was used before, at b/ft911_1 line 5" in refused(f"trec:{folder}")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("<DOC>\n<DOCNO>1</DOCNO>\n<TEXT>x</TEXT>\n", "a.trec line 1: <DOC> without </DOC>"),
        ("<DOC>\n<TEXT>x</TEXT>\n</DOC>", "a.trec line 1: <DOC> has 0 <DOCNO>"),
        ("<DOC><DOCNO>1</DOCNO><DOCNO>2</DOCNO></DOC>", "has 2 <DOCNO>"),
        ("<DOC><DOCNO> </DOCNO>x</DOC>", "expected one that is not blank"),
        ("id text\n", "a.trec line 1: text outside <DOC>"),
        ("<DOC><DOCNO>1</DOCNO>x</DOC>\nlost words <DOC>", "a.trec line 2: text outside <DOC>...</DOC>: 'lost words'"),
    ],
)
def test_bad_trec_is_refused(write: Write, content: str, message: str) -> None:
    assert message in refused(write("a.trec", content))


def test_what_is_no_source_is_refused_with_what_is(write: Write, tmp_path: Path) -> None:
    for source, message in [
        (str(tmp_path / "none.jsonl"), "there is no file or folder"),
        (f"trec:{tmp_path / 'none'}", "there is no file or folder"),
        ("python-docs:some", "there is no file or folder 'python-docs:some'"),
        (
            str(write("table.xlsx", "x")),
            "its name does not tell the format; expected a folder, a file ending in .jsonl",
        ),
        (str(write("x.parquet.gz", "x")), "its name does not tell the format"),
        (str(write("jsonl", "x")), "its name does not tell the format"),
        (f"jsonl:{tmp_path}", "is a folder, jsonl needs a file"),
        (f"beir:{tmp_path}", "it has no corpus.jsonl"),
    ]:
        assert message in refused(source)


def test_a_prefix_forces_the_format(write: Write) -> None:
    path = write("export.dat", '{"id": "1", "text": "a"}')
    assert brief(read(f"jsonl:{path}")) == [("1", "", "a")]
    assert brief(read(write("A.JSONL", '{"id": "1", "text": "a"}'))) == [("1", "", "a")]


def test_a_path_that_is_called_like_a_format(write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write("trec/a.txt", "text")
    write("csv:x.jsonl", '{"id": "1", "text": "a"}')
    assert [document.id for document in read("trec")] == ["a.txt"]
    assert [document.id for document in read("./csv:x.jsonl")] == ["1"]


def test_a_file_lost_between_opening_and_reading_is_a_storage_error(write: Write) -> None:
    path = write("a.jsonl", '{"id": "1", "text": "a"}')
    source = open_source(str(path))
    path.unlink()
    with pytest.raises(StorageError, match="cannot read"):
        list(source.documents())
