"""PDF files with a text layer (extra `files`: pypdf)."""

import io
import zlib

from retrieval.sources.plain import Parsed, missing

PAGE_BREAK = "\n\f"
"""Between the pages: a newline and a form feed."""


def parse_pdf(raw: bytes) -> Parsed:
    """Text of each page, joined by PAGE_BREAK; title: the document information; metadata: `pages`.

    NUL characters are dropped and halves of broken characters replaced (U+FFFD), as fonts without a proper character
    map produce them. Raises MissingDependencyError without pypdf, ValueError on a damaged or locked file.
    """
    try:
        import pypdf  # noqa: PLC0415  optional
        from pypdf.errors import DependencyError, FileNotDecryptedError, PyPdfError  # noqa: PLC0415  optional
    except ImportError as error:
        raise missing("pypdf", error) from error
    page = 0
    try:
        reader = pypdf.PdfReader(io.BytesIO(raw))
        title = (reader.metadata and reader.metadata.title) or ""
        texts = []
        for page in range(1, len(reader.pages) + 1):
            texts.append(_whole_characters(reader.pages[page - 1].extract_text()))
    except FileNotDecryptedError as error:
        raise ValueError("the PDF is locked: remove its password") from error
    except DependencyError as error:
        raise ValueError(f"the PDF is encrypted ({error}): remove the encryption") from error
    # pypdf parses what it is given with few checks, so damage surfaces as whatever its code meets first.
    except (PyPdfError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError, zlib.error) as error:
        where = f"page {page}" if page else "the file"
        raise ValueError(f"{where} is not readable PDF ({type(error).__name__}: {error})") from error
    except RecursionError as error:
        raise ValueError("the PDF is nested too deeply") from error
    text = PAGE_BREAK.join(texts)
    return Parsed(text if text.strip() else "", _whole_characters(str(title)).strip(), {"pages": len(texts)})


def _whole_characters(text: str) -> str:
    """Join surrogate pairs, replace lone halves, drop NUL."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace").replace("\0", "")
