"""HTML to readable text (extra `files`: beautifulsoup4, lxml)."""

import re
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from retrieval.sources.plain import Parsed, missing

if TYPE_CHECKING:
    from bs4 import Tag

_DROPPED = frozenset({"head", "script", "style", "nav", "noscript", "template"})
_BLOCKS = frozenset(
    {"address", "article", "aside", "blockquote", "body", "caption", "dd", "details", "div", "dl", "dt", "fieldset"}
    | {"figcaption", "figure", "footer", "form", "h1", "h2", "h3", "h4", "h5", "h6", "header", "hr", "html", "li"}
    | {"main", "ol", "p", "section", "summary", "table", "tbody", "tfoot", "thead", "tr", "ul"}
)
_CELLS = frozenset({"td", "th"})


def parse_html(page: bytes | str) -> Parsed:
    """Visible text of a page, without scripts, styles and navigation; title: <title>, or the first <h1>.

    Bytes are decoded as their byte order mark or their own declaration says, otherwise as UTF-8, then windows-1252.
    Blocks are apart by blank lines, table cells by tabs; <pre> keeps its lines.
    Raises MissingDependencyError without beautifulsoup4 and lxml, ValueError if the parser gives up.
    """
    try:
        import bs4  # noqa: PLC0415  optional
    except ImportError as error:
        raise missing("beautifulsoup4", error) from error
    with warnings.catch_warnings():
        # XHTML and pages that look like a single address are read as the HTML they are said to be.
        warnings.simplefilter("ignore", bs4.XMLParsedAsHTMLWarning)
        warnings.simplefilter("ignore", bs4.MarkupResemblesLocatorWarning)
        try:
            soup = bs4.BeautifulSoup(page, "lxml")
        except bs4.FeatureNotFound as error:
            raise missing("lxml", error) from error
        except bs4.ParserRejectedMarkup as error:
            raise ValueError(f"not HTML: {error}") from error
    text = re.sub(r"[ \t]+\n", "\n", "".join(_visible(soup)))
    heading = soup.title or soup.h1
    title = "".join(_visible(heading)) if heading else ""
    return Parsed(re.sub(r"\n{3,}", "\n\n", text).strip(), " ".join(title.split()))


def _visible(root: "Tag") -> Iterator[str]:
    """Yield text and breaks in document order, with an explicit stack: pages nest deeper than Python recurses."""
    from bs4.element import NavigableString, PreformattedString, Tag  # noqa: PLC0415  optional

    pending: list[Any] = [root]
    line_start = True
    while pending:
        node = pending.pop()
        if isinstance(node, PreformattedString):  # comments, declarations
            continue
        if isinstance(node, Tag):
            if node.name in _DROPPED:
                continue
            if node.name == "pre":
                pending += ["\n\n", f"\n\n{node.get_text()}"]
                continue
            around = "\n\n" if node.name in _BLOCKS else ""
            after = "\t" if node.name in _CELLS else "\n" if node.name == "br" else around
            pending += [after, *reversed(node.contents), around]
            continue
        text = re.sub(r"\s+", " ", node) if isinstance(node, NavigableString) else node
        if text.startswith(" ") and line_start:
            text = text[1:]
        if text:
            line_start = text.endswith(("\n", "\t", " "))
            yield text
