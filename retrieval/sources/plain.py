"""Plain text and Markdown files, and what every parser of one file returns.

A parser takes the bytes of a file and raises ValueError on what it cannot read; the folder reader adds the name.
"""

import re
from dataclasses import dataclass, field

from index.errors import MissingDependencyError
from retrieval.types import Json

_H1 = re.compile(r"#[ \t]+(.+?)[ \t]*#*[ \t]*$")
_FENCE = re.compile(r" {0,3}(```|~~~)")
_FRONT_TITLE = re.compile(r"title[ \t]*:[ \t]*(.+?)[ \t]*$")


@dataclass(frozen=True, slots=True)
class Parsed:
    """What a file says; title is empty where the document has none of its own."""

    text: str
    title: str = ""
    metadata: dict[str, Json] = field(default_factory=dict)


def missing(package: str, error: Exception) -> MissingDependencyError:
    """Return the error for a parser that is not installed."""
    return MissingDependencyError(
        f"{package} is not installed: `pip install -e '.[files]'` in grapnel's checkout to read such files ({error})"
    )


def decode_text(raw: bytes) -> str:
    """Return the text of a file in UTF-8, or in UTF-16 where its byte order mark says so; line ends become LF.

    Raises ValueError naming the line of the first byte that does not fit.
    """
    encoding = "utf-16" if raw.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8-sig"
    try:
        text = raw.decode(encoding)
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise ValueError(
            f"line {line}: byte 0x{raw[error.start]:02x} is not {encoding.removesuffix('-sig').upper()}: "
            "convert the file, for example with `iconv -f latin1 -t utf-8`"
        ) from error
    return text.replace("\r\n", "\n").replace("\r", "\n")


def parse_text(raw: bytes) -> Parsed:
    """Plain text, whole; it has no title of its own."""
    return Parsed(decode_text(raw))


def parse_markdown(raw: bytes) -> Parsed:
    """Markdown source, whole; title: `title:` of the leading --- block, or the first `# heading` outside code."""
    text = decode_text(raw)
    return Parsed(text, _markdown_title(text.split("\n")))


def _markdown_title(lines: list[str]) -> str:
    start = 0
    if lines[0].rstrip() == "---" and "---" in (rest := [line.rstrip() for line in lines[1:]]):
        start = rest.index("---") + 2
        for line in lines[1 : start - 1]:
            if found := _FRONT_TITLE.match(line):
                return found[1].strip("'\"")
    fence = ""
    for line in lines[start:]:
        if mark := _FENCE.match(line):
            fence = "" if mark[1] == fence else fence or mark[1]
        elif not fence and (found := _H1.match(line)):
            return found[1]
    return ""
