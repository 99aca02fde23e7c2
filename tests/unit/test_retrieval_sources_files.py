"""A folder of files, each written here: by python-docx, by hand (PDF), as bytes."""

import os
import subprocess
import sys
import zipfile
from io import BytesIO
from pathlib import Path

import pypdf
import pytest
from docx import Document as WordDocument
from docx.oxml import OxmlElement

from index.errors import CorpusError
from retrieval.sources import open_source
from retrieval.types import Document

NOON = 1_714_564_800  # 2024-05-01 12:00:00 UTC


def pdf(*pages: str, title: str = "") -> bytes:
    """Write a PDF by hand: catalog, pages, one font, a content stream a page, a cross-reference table."""
    kids = " ".join(f"{5 + 2 * number} 0 R" for number in range(len(pages)))
    objects = [
        "<< /Type /Catalog /Pages 2 0 R >>",
        f"<< /Type /Pages /Kids [{kids}] /Count {len(pages)} >>",
        "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica /Encoding /WinAnsiEncoding >>",
        f"<< /Title ({title}) >>",
    ]
    for number, text in enumerate(pages):
        shown = " T* ".join(f"({line}) Tj" for line in text.split("\n"))
        stream = f"BT /F1 12 Tf 14 TL 72 720 Td {shown} ET" if text else ""
        objects.append(
            f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents {6 + 2 * number} 0 R"
            " /Resources << /Font << /F1 3 0 R >> >> >>"
        )
        objects.append(f"<< /Length {len(stream)} >>\nstream\n{stream}\nendstream")
    out = b"%PDF-1.4\n"
    offsets = []
    for number, content in enumerate(objects, start=1):
        offsets.append(len(out))
        out += f"{number} 0 obj\n{content}\nendobj\n".encode("latin1")
    table = "".join(f"{offset:010d} 00000 n \n" for offset in offsets)
    size = len(objects) + 1
    out += f"xref\n0 {size}\n0000000000 65535 f \n{table}".encode()
    return (
        out + f"trailer\n<< /Size {size} /Root 1 0 R /Info 4 0 R >>\nstartxref\n{out.index(b'xref')}\n%%EOF\n".encode()
    )


def word() -> bytes:
    document = WordDocument()
    document.add_heading("The Guide", level=0)
    document.add_heading("First steps", level=1)
    document.add_paragraph("Open the ").add_run("box").bold = True
    paragraph = document.add_paragraph("Kept.")
    inserted = OxmlElement("w:ins")
    inserted.append(document.add_paragraph().add_run(" Inserted.")._r)
    deleted = OxmlElement("w:moveFrom")
    deleted.append(document.add_paragraph().add_run(" Moved away.")._r)
    paragraph._p.extend([inserted, deleted])
    table = document.add_table(rows=2, cols=2)
    for cell, text in zip([*table.rows[0].cells, *table.rows[1].cells], ["name", "size", "bolt", "M6"], strict=True):
        cell.text = text
    document.add_paragraph("After\tthe table")
    buffer = BytesIO()
    document.save(buffer)
    return buffer.getvalue()


def read(path: Path) -> dict[str, Document]:
    return {document.id: document for document in open_source(str(path)).documents()}


def refused(path: Path) -> str:
    with pytest.raises(CorpusError) as caught:
        read(path)
    return str(caught.value)


def test_every_kind_of_file(tmp_path: Path) -> None:
    files = {
        "b/notes.txt": b"\xef\xbb\xbfline one\r\nline two",
        "b/windows.TXT": "Grüße".encode("utf-16"),
        "a.md": b"```\n# not this\n```\n# A *title* #\n\nbody",
        "b/front.md": b"---\nauthor: me\ntitle: 'From the front'\n---\n# Heading\n",
        "b/no title.md": b"## only a second level\n",
        "c.htm": b"<h1>Head<br>line</h1><p>text</p>",
        "d.pdf": pdf("First page\nits second line", "Second \\(page\\)", title="Hand made"),
        "e.docx": word(),
    }
    for name, content in files.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
        os.utime(path, (NOON, NOON))
    source = open_source(str(tmp_path))
    assert (source.estimate, source.name) == (8, f"folder of files {tmp_path}")
    found = {document.id: document for document in source.documents()}
    assert list(found) == [
        "a.md",
        "b/front.md",
        "b/no title.md",
        "b/notes.txt",
        "b/windows.TXT",
        "c.htm",
        "d.pdf",
        "e.docx",
    ]
    assert source.skipped == []
    assert {name: document.title for name, document in found.items()} == {
        "a.md": "A *title*",
        "b/front.md": "From the front",
        "b/no title.md": "",
        "b/notes.txt": "",
        "b/windows.TXT": "",
        "c.htm": "Head line",
        "d.pdf": "Hand made",
        "e.docx": "The Guide",
    }
    assert found["a.md"].text == files["a.md"].decode()
    assert found["b/notes.txt"].text == "line one\nline two"
    assert found["b/windows.TXT"].text == "Grüße"
    assert found["c.htm"].text == "Head\nline\n\ntext"
    assert found["d.pdf"].text == "First page\nits second line\n\fSecond (page)"
    assert found["e.docx"].text.split("\n\n") == [
        "# The Guide",
        "# First steps",
        "Open the box",
        "Kept. Inserted.",
        "name\tsize",
        "bolt\tM6",
        "After\tthe table",
    ]
    assert found["d.pdf"].metadata == {
        "path": "d.pdf",
        "format": "pdf",
        "size_bytes": len(files["d.pdf"]),
        "modified": "2024-05-01T12:00:00+00:00",
        "pages": 2,
    }
    assert [document.metadata["format"] for document in found.values()] == (
        ["markdown"] * 3 + ["text"] * 2 + ["html", "pdf", "docx"]
    )


PAGE = """<!DOCTYPE html><html><head><meta charset="iso-8859-15"><title> The
 page\u20ac </title><style>p {color: red}</style></head>
<body><nav><a href="/">Home</a></nav><!-- hidden -->
<h1>Head&nbsp;line</h1>
<p>One <b>bold</b>word,
wrapped   line.<br> Next</p><div><div> Inner</div></div>
<script>var x = "<p>no</p>";</script><noscript>no</noscript><template><p>no</p></template>
<ul><li>first</li><li>second</li></ul>
<table><tr><th>name</th><th>size</th></tr><tr><td>bolt</td><td>M6</td></tr></table>
<pre>def f():
    return  1
</pre>
</body></html>"""


def test_html_keeps_blocks_and_drops_what_is_not_text(tmp_path: Path) -> None:
    (tmp_path / "page.html").write_bytes(PAGE.encode("iso-8859-15"))
    document = read(tmp_path)["page.html"]
    assert document.title == "The page\u20ac"
    assert document.text.split("\n\n") == [
        "Head line",
        "One boldword, wrapped line.\nNext",
        "Inner",
        "first",
        "second",
        "name\tsize",
        "bolt\tM6",
        "def f():\n    return  1",
    ]


def test_html_deeper_than_python_recurses_and_html_that_looks_like_an_address(tmp_path: Path) -> None:
    (tmp_path / "deep.html").write_text("<div>" * 3000 + "bottom")
    (tmp_path / "link.html").write_text("https://example.org/page")
    found = read(tmp_path)
    assert found["deep.html"].text == "bottom"
    assert found["link.html"].text == "https://example.org/page"


def test_what_is_not_read_is_reported(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("text")
    (tmp_path / "blank.txt").write_text(" \n")
    (tmp_path / "scan.pdf").write_bytes(pdf("", ""))
    for number in range(7):
        (tmp_path / f"{number}.png").write_bytes(b"\x89PNG")
    (tmp_path / "Makefile").write_text("all:")
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "x.txt").write_text("hidden")
    (tmp_path / "loop").symlink_to(tmp_path)
    (tmp_path / "gone.txt").symlink_to(tmp_path / "nowhere")
    (tmp_path / "linked.txt").symlink_to(tmp_path / "a.txt")
    source = open_source(str(tmp_path))
    assert [document.id for document in source.documents()] == ["a.txt", "linked.txt"]
    kinds = "(read are .txt .md .html .htm .pdf .docx)"
    assert sorted(source.skipped) == [
        "1 skipped, hidden: .git",
        f"1 skipped, without a suffix {kinds}: Makefile",
        "2 skipped, no text in it (an empty file, or a scan that needs OCR): blank.txt, scan.pdf",
        "2 skipped, not a plain file (links to folders are not followed): gone.txt, loop",
        f"7 skipped, of kind .png {kinds}: 0.png, 1.png, 2.png, 3.png, 4.png, ...",
    ]


def test_a_folder_without_documents_says_what_it_holds(tmp_path: Path) -> None:
    (tmp_path / "data.xlsx").write_bytes(b"x")
    assert "holds no documents; 1 skipped, of kind .xlsx" in refused(tmp_path)


def test_one_file(tmp_path: Path) -> None:
    path = tmp_path / "report.pdf"
    path.write_bytes(pdf("Hello"))
    source = open_source(str(path))
    assert [(document.id, document.text) for document in source.documents()] == [("report.pdf", "Hello")]


def locked_pdf() -> bytes:
    writer = pypdf.PdfWriter(BytesIO(pdf("secret")))
    writer.encrypt("password", algorithm="RC4-128")
    buffer = BytesIO()
    writer.write(buffer)
    return buffer.getvalue()


def zipped(name: str, content: bytes) -> bytes:
    buffer = BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(name, content)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.txt", b"fine\ncaf\xe9", "x.txt: line 2: byte 0xe9 is not UTF-8"),
        ("x.md", b"caf\xe9", "x.md: line 1: byte 0xe9"),
        ("x.txt", b"\xff\xfea\x00b", "is not UTF-16"),
        ("x.pdf", b"", "x.pdf: the file is not readable PDF"),
        ("x.pdf", b"%PDF-1.4 and then nothing", "x.pdf: the file is not readable PDF"),
        ("x.pdf", b"plain words", "x.pdf: the file is not readable PDF"),
        ("x.pdf", locked_pdf(), "x.pdf: the PDF is locked: remove its password"),
        ("x.docx", b"", "x.docx: not a readable Word file"),
        ("x.docx", word()[:-2000], "x.docx: not a readable Word file"),
        ("x.docx", zipped("a.txt", b"not Word"), "x.docx: not a readable Word file"),
        ("x.docx", zipped("a.bin", bytes(1 << 20)), "x.docx: not a readable Word file"),
    ],
)
def test_an_unreadable_file_stops_the_source_by_name(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / "a.txt").write_text("fine")
    (tmp_path / name).write_bytes(content)
    assert message in refused(tmp_path)


def test_a_damaged_pdf_never_escapes_as_another_error(tmp_path: Path) -> None:
    """Cut and altered at many places, a PDF is read in part or refused, nothing else."""
    sound = pdf("First page", "Second page", title="t")
    for place in range(0, len(sound), 13):
        (tmp_path / "x.pdf").write_bytes(sound[:place] + b"\xff(<" + sound[place + 3 :])
        try:
            read(tmp_path)
        except CorpusError as error:
            assert "x.pdf" in str(error)  # noqa: PT017  either outcome is right


def test_a_file_name_that_is_not_utf8_is_refused_printably(tmp_path: Path) -> None:
    Path(os.fsdecode(bytes(tmp_path) + b"/caf\xe9.txt")).write_text("text")
    message = refused(tmp_path)
    assert "caf\\xe9.txt" in message
    assert "lone surrogate" in message
    message.encode()


@pytest.mark.parametrize(
    ("module", "name"), [("bs4", "x.html"), ("lxml", "x.html"), ("docx", "x.docx"), ("pypdf", "x.pdf")]
)
def test_without_the_extra_the_error_names_it(tmp_path: Path, module: str, name: str) -> None:
    """In a process where the package cannot be imported, as if it were not installed."""
    (tmp_path / name).write_bytes({"x.pdf": pdf("x"), "x.docx": word()}.get(name, b"<p>x"))
    script = (
        f"import sys; sys.modules[{module!r}] = None\n"
        "from index.errors import MissingDependencyError\n"
        "from retrieval.sources import open_source\n"
        "try:\n    list(open_source(sys.argv[1]).documents())\n"
        "except MissingDependencyError as error:\n    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, check=True)
    assert "pip install -e '.[files]'" in done.stdout
