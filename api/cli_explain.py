"""`grapnel search --explain`: why each hit is where it is, and where the time went."""

from collections.abc import Mapping

from rich.table import Table

from api.cli_hits import score_text
from api.cli_output import one_line
from retrieval.types import Evidence, Ranking


def stage_table(ranking: Ranking, mode: str, offset: int) -> Table:
    """Return rank and score of every hit in every stage; (-) = outside that stage's depth."""
    stages = list(dict.fromkeys(part.stage for hit in ranking.hits for part in hit.evidence))
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("rank", justify="right")
    table.add_column("document", overflow="fold")
    table.add_column(mode, justify="right")
    for stage in stages:
        table.add_column(f"{stage} (rank)", justify="right")
    for rank, hit in enumerate(ranking.hits, start=offset + 1):
        parts = {part.stage: part for part in hit.evidence}
        cells = (_cell(parts.get(stage)) for stage in stages)
        table.add_row(str(rank), one_line(hit.doc_id), score_text(hit.score), *cells)
    return table


def _cell(part: Evidence | None) -> str:
    if part is None:
        return "-"
    place = "-" if part.rank is None else str(part.rank)
    return f"{score_text(part.score)} {f'({place})':>6}"


def timing_table(timings_s: Mapping[str, float]) -> Table:
    """Return milliseconds per stage, of all questions together."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("stage")
    table.add_column("ms", justify="right")
    for stage, seconds in timings_s.items():
        table.add_row(stage, f"{seconds * 1000:.2f}")
    table.add_row("total", f"{sum(timings_s.values()) * 1000:.2f}")
    return table
