"""The report of a benchmark: results (see evaluation.bench) to one HTML page that needs nothing but itself.

No script, no external file, plots as inline SVG, each with its numbers in a table; every text that comes from the
results is escaped. A section without results is named with the reason at the end, not drawn.
"""

from html import escape
from pathlib import Path

from evaluation.findings import findings, result_of
from evaluation.report_html import Results
from evaluation.report_parts import PARTS
from evaluation.report_style import STYLE
from index.durable import write_atomic

_LEAD = (
    "What searching these documents is worth, where quality is lost between a perfect ranking and what is found, and "
    "which index is good enough. Measures go from 0, nothing relevant found, to 1."
)


def write_page(path: Path, results: Results) -> None:
    """Write the page of some results, whole or not at all. Raises CorpusError on another format, StorageError."""
    write_atomic(path, page(results).encode(), point="bench.page")


def page(results: Results) -> str:
    """Return the whole page. Raises CorpusError on results of another format."""
    said = findings(results)
    dataset = results["dataset"]
    parts = [part for part in (make(results) for make in PARTS) if part.body]
    links = "".join(f'<li><a href="#{part.name}">{escape(part.title)}</a></li>' for part in parts)
    sections = "".join(
        f'<section id="{part.name}" aria-labelledby="{part.name}-title"><h2 id="{part.name}-title">'
        f"{escape(part.title)}</h2>{part.body}</section>"
        for part in parts
    )
    found = "".join(f"<li>{escape(sentence)}</li>" for sentence in said)
    what = (
        f"{dataset['documents']:,} documents, {dataset['queries']:,} queries of the {dataset['split']} split, "
        f"{dataset['judgements']:,} judgements. " + " ".join(f"{note}." for note in dataset["notes"])
    )
    name = escape(str(dataset["name"]))
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{name}: what is lost where</title><style>{STYLE}</style></head><body><header>"
        f"<h1>{name}: what is lost where</h1><p>{_LEAD}</p><p>{escape(what)}</p>"
        f'<p class="fine">{escape(_encoder(results))}</p>'
        f'<nav aria-label="Parts"><ul>{links}</ul></nav></header><main>'
        f'<section id="findings" aria-labelledby="findings-title"><h2 id="findings-title">In short</h2>'
        f'<ul class="findings">{found}</ul><p class="fine">Numbers in brackets are 95 % bootstrap intervals over '
        f"queries; p-values are of paired sign-flip tests, adjusted for all claims of a table.</p></section>{sections}"
        "</main></body></html>\n"
    )


def _encoder(results: Results) -> str:
    table = results["encoder"]["table"]
    said = ", ".join(f"{key} {value}" for key, value in table.items() if key != "kind")
    about = result_of(results, "vectors")
    length = (
        ""
        if about is None
        else f"; {about['dim']} dimensions, "
        + (
            "of length 1"
            if about["unit"]
            else f"of length {about['norms']['least']:.3g} to {about['norms']['most']:.3g}"
        )
    )
    cut = f"; {about['truncated']:,} documents longer than its window" if about and about["truncated"] else ""
    return f"Vectors: {table['kind']}{f' ({said})' if said else ''}{length}{cut}."
