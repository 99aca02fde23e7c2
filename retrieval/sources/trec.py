"""TREC collections: files of <DOC> elements in SGML, one file or a folder of them, each plain, .gz or .zst.

    <DOCNO>                                  the id
    <TITLE> <HEADLINE> <HEAD> <HL> <TTL>     the title (the first that is not blank; further ones join the text)
    <TEXT> <LP> <LEADPARA> <BODY> <ABSTRACT> the text, in order
    any other element directly in <DOC>      metadata under its lower-case name, a list where it repeats
    text directly in <DOC>                   joins the text, in order
    <DOCHDR>                                 a crawled page: what follows it is HTML (needs the extra `files`)

Tags and comments within those elements are dropped and entities resolved. Tag names may be in either case.
"""

import html
import re
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from index.errors import CorpusError
from retrieval.sources.lines import LINE_BYTES, Line, file_lines
from retrieval.sources.source import Placed, Skipped, Source
from retrieval.types import Document, Json

_OPEN = re.compile(r"<doc(?:\s[^<>]*)?>", re.IGNORECASE)
_CLOSE = re.compile(r"</doc\s*>", re.IGNORECASE)
_TAG = re.compile(r"<(/?)([A-Za-z][\w.:-]*)(?:\s[^<>]*)?/?>")
_MARKUP = re.compile(r"<[!?/]?[A-Za-z-][^<>]*>")
_COMMENT = re.compile(r"<![^<>]*>")
_TITLES = frozenset({"title", "headline", "head", "hl", "ttl"})
_TEXTS = frozenset({"text", "lp", "leadpara", "body", "abstract"})


def trec_source(path: Path) -> Source:
    """Source of a TREC collection: a file, or a folder, read below in the order of relative paths, hidden files apart.

    Such files carry no count, so there is no estimate.
    """

    def read(_: Skipped) -> Iterator[Placed]:
        if path.is_file():
            yield from _documents(file_lines(path, path.name), path.name)
            return
        for file in sorted(path.rglob("*")):
            relative = file.relative_to(path)
            if file.is_file() and not any(part.startswith(".") for part in relative.parts):
                yield from _documents(file_lines(file, relative.as_posix()), relative.as_posix())

    return Source(f"TREC collection {path}", None, read)


def _documents(lines: Iterable[Line], name: str) -> Iterator[Placed]:
    for number, body in _bodies(lines, name):
        place = f"{name} line {number}"
        yield Placed(place, _document(body, place))


def _bodies(lines: Iterable[Line], name: str) -> Iterator[Line]:
    """Yield what stands between each <DOC> and </DOC>, with the line of the <DOC>."""
    body: list[str] | None = None
    start = size = 0
    for line in lines:
        rest = line.text
        while True:
            if body is None:
                opening = _OPEN.search(rest)
                _refuse_stray(rest if opening is None else rest[: opening.start()], f"{name} line {line.number}")
                if opening is None:
                    break
                body, start, size = [], line.number, 0
                rest = rest[opening.end() :]
            closing = _CLOSE.search(rest)
            piece = rest if closing is None else rest[: closing.start()]
            body.append(piece)
            size += len(piece) + 1
            if size > LINE_BYTES:
                raise CorpusError(f"{name} line {start}: <DOC> is longer than {LINE_BYTES:,} characters: split it")
            if closing is None:
                break
            yield Line(start, "\n".join(body))
            body, rest = None, rest[closing.end() :]
    if body is not None:
        raise CorpusError(f"{name} line {start}: <DOC> without </DOC>: the file is cut off, or the tag is missing")


def _refuse_stray(text: str, place: str) -> None:
    """Markup around documents (a root element, comments) is fine; text there would be lost."""
    if text.strip() and _MARKUP.sub("", text).strip():
        raise CorpusError(f"{place}: text outside <DOC>...</DOC>: {text.strip()[:60]!r}; is this a TREC collection?")


class _Element(NamedTuple):
    """An element directly in <DOC>: its lower-case name, its content, and where all of it lies."""

    name: str
    content: str
    start: int
    stop: int


def _elements(body: str) -> Iterator[_Element]:
    """Yield the elements directly in `body`; a tag that is never closed is not one. Cost: linear (times log)."""
    tags = list(_TAG.finditer(body))
    closings: defaultdict[str, list[re.Match[str]]] = defaultdict(list)
    for tag in tags:
        if tag[1]:
            closings[tag[2].lower()].append(tag)
    position = 0
    for tag in tags:
        if tag[1] or tag.start() < position:
            continue
        same = closings[tag[2].lower()]
        index = bisect_left(same, tag.end(), key=lambda closing: closing.start())
        if index < len(same):
            position = same[index].end()
            yield _Element(tag[2].lower(), body[tag.end() : same[index].start()], tag.start(), position)


def _plain(markup: str) -> str:
    return html.unescape(_TAG.sub("", _COMMENT.sub("", markup))).strip()


def _document(body: str, place: str) -> Document:
    elements = list(_elements(body))
    numbers = [_plain(element.content) for element in elements if element.name == "docno"]
    if len(numbers) != 1 or not numbers[0]:
        raise CorpusError(f"{place}: <DOC> has {len(numbers)} <DOCNO>, expected one that is not blank")
    if any(element.name == "dochdr" for element in elements):
        return _web_document(numbers[0], body, elements)
    title = ""
    texts: list[str] = []
    metadata: dict[str, Json] = {}
    position = 0
    for element in elements:
        texts.append(_plain(body[position : element.start]))
        position = element.stop
        content = _plain(element.content)
        if element.name in _TITLES and not title:
            title = content
        elif element.name in _TEXTS or element.name in _TITLES:
            texts.append(content)
        elif element.name != "docno" and content:
            _add(metadata, element.name, content)
    texts.append(_plain(body[position:]))
    return Document(numbers[0], "\n\n".join(filter(None, texts)), title, metadata)


def _add(metadata: dict[str, Json], name: str, content: str) -> None:
    """Keep every value of a repeated element."""
    if name not in metadata:
        metadata[name] = content
    elif isinstance(metadata[name], list):
        metadata[name].append(content)
    else:
        metadata[name] = [metadata[name], content]


def _web_document(document_id: str, body: str, elements: list[_Element]) -> Document:
    from retrieval.sources.webpage import parse_html  # noqa: PLC0415  needs the extra `files`

    start = max(element.stop for element in elements if element.name == "dochdr")
    metadata: dict[str, Json] = {}
    for element in elements:
        if element.stop <= start and element.name != "docno":
            _add(metadata, element.name, _plain(element.content))
    parsed = parse_html(body[start:])
    return Document(document_id, parsed.text, parsed.title, metadata)
