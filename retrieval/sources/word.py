"""Word documents, .docx (extra `files`: python-docx)."""

import io
import zipfile
import zlib
from collections.abc import Iterator
from typing import Any

from retrieval.sources.plain import Parsed, missing

_UNPACKED_BYTES = 512 << 20
_HEADINGS = {"Title": 1} | {f"Heading {level}": level for level in range(1, 7)}
_RUNS = (
    ".//w:r/w:t[not(ancestor::*[local-name()='Fallback' or local-name()='moveFrom'])]"
    " | .//w:r/w:tab | .//w:r/w:br | .//w:r/w:cr | .//w:r/w:noBreakHyphen"
)
_MARKS = {"tab": "\t", "br": "\n", "cr": "\n", "noBreakHyphen": "-"}
_CONTAINERS = frozenset({"tbl", "sdt", "sdtContent", "ins", "customXml", "smartTag"})


def parse_docx(raw: bytes) -> Parsed:
    """Paragraphs and tables of the main text; headings as Markdown headings, a table row a line, cells apart by tabs.

    Deleted (tracked) text, headers, footers and footnotes are not part of it. Title: the paragraph of style "Title",
    or the document properties. Raises MissingDependencyError without python-docx, ValueError on a damaged file.
    """
    try:
        import docx  # noqa: PLC0415  optional
        from docx.opc.constants import RELATIONSHIP_TYPE  # noqa: PLC0415  optional
    except ImportError as error:
        raise missing("python-docx", error) from error
    try:
        with zipfile.ZipFile(io.BytesIO(raw)) as archive:
            size_bytes = sum(entry.file_size for entry in archive.infolist())
        if size_bytes > _UNPACKED_BYTES:
            raise ValueError(f"it unpacks to {size_bytes:,} bytes, at most {_UNPACKED_BYTES:,} are read")
        document = docx.Document(io.BytesIO(raw))
        blocks = list(_blocks(document.element.body, document))
        titles = [text for style, text in blocks if style == "Title"]
        # Asked for only where present: python-docx would otherwise make up a default title.
        own = any(
            relation.reltype == RELATIONSHIP_TYPE.CORE_PROPERTIES for relation in document.part.package.rels.values()
        )
        title = titles[0] if titles else document.core_properties.title if own else ""
    # lxml's syntax errors are Python's; a locked archive is a RuntimeError, an unknown compression not implemented.
    except (KeyError, SyntaxError, NotImplementedError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"not a readable Word file ({error})") from error
    return Parsed("\n\n".join(_heading(style, text) for style, text in blocks), title.strip())


def _heading(style: str, text: str) -> str:
    return f"{'#' * _HEADINGS[style]} {text}" if style in _HEADINGS else text


def _blocks(parent: Any, document: Any) -> Iterator[tuple[str, str]]:
    """Yield (style name, text) of each paragraph and each table row that is not blank, in order."""
    from docx.text.paragraph import Paragraph  # noqa: PLC0415  optional

    for element in parent:
        tag = element.tag.rpartition("}")[2] if isinstance(element.tag, str) else ""
        if tag == "p":
            text = _text(element)
            if text:
                style = Paragraph(element, document._body).style
                yield (style and style.name) or "", text
        elif tag == "tr":
            cells = element.xpath("./w:tc | ./w:sdt/w:sdtContent/w:tc")
            row = "\t".join(" ".join(text for _, text in _blocks(cell, document)) for cell in cells)
            if row.strip():
                yield "", row.rstrip()
        elif tag in _CONTAINERS:
            yield from _blocks(element, document)


def _text(paragraph: Any) -> str:
    pieces = (
        _MARKS.get(element.tag.rpartition("}")[2], "") or element.text or "" for element in paragraph.xpath(_RUNS)
    )
    return "".join(pieces).strip()
