from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import given, settings
from hypothesis import strategies as st

from evaluation.trec import escape_id, read_run, unescape_id, write_run
from retrieval.types import Hit, Passage, Ranking

IDS = st.text(st.one_of(st.characters(exclude_categories=["Cs"]), st.sampled_from(" %\t\n20")), min_size=1, max_size=12)


@given(IDS)
def test_an_id_becomes_one_column_and_comes_back(identity: str) -> None:
    column = escape_id(identity)
    assert column.split() == [column]
    assert unescape_id(column) == identity


@settings(deadline=None)  # each example is an fsync
@given(st.dictionaries(IDS, st.lists(IDS, min_size=1, max_size=8, unique=True), max_size=4))
def test_what_is_written_is_read_back_in_order(run: dict[str, list[str]]) -> None:
    rankings = [
        Ranking(query_id, tuple(Hit(doc_id, Passage(doc_id, 0, 0, 1, "x"), None, "s") for doc_id in doc_ids))
        for query_id, doc_ids in run.items()
    ]
    with TemporaryDirectory() as folder:
        path = Path(folder) / "run.trec"
        write_run(path, rankings, "tag")
        assert read_run(path) == run
