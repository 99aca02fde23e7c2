import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from retrieval.lexical import Accept, LexicalConfig
from retrieval.lexical.live import TantivyLive
from retrieval.lexical.tantivy import build_tantivy, open_tantivy

WORDS = ["ant", "bee", "cow", "dog", "eel", "fox", "gnu", "hen"]
texts = st.lists(st.lists(st.sampled_from(WORDS), max_size=6).map(" ".join), max_size=12)


def numbered(batch: Sequence[str], first: int) -> list[tuple[int, str, str]]:
    return [(first + place, "", text) for place, text in enumerate(batch)]


@settings(max_examples=12, deadline=None)
@given(
    texts,
    st.lists(texts, max_size=4),
    st.lists(st.sampled_from(WORDS), min_size=1, max_size=4).map(" ".join),
    st.data(),
)
def test_a_grown_copy_answers_as_an_index_built_at_once(
    accept: Callable[[object], Accept], base: list[str], batches: list[list[str]], query: str, data: st.DataObject
) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "base").mkdir()
        (folder / "whole").mkdir()
        build_tantivy(folder / "base", LexicalConfig(), numbered(base, 0))
        live = TantivyLive(LexicalConfig(), folder / "base", folder / "scratch")
        everything = list(base)
        for batch in batches:
            live.apply(numbered(batch, len(everything)))
            live.commit()
            everything += batch
        build_tantivy(folder / "whole", LexicalConfig(), numbered(everything, 0))
        grown, whole = live.reader(), open_tantivy(folder / "whole", LexicalConfig())
        limit = data.draw(st.integers(1, 20))
        chosen = data.draw(st.none() | st.lists(st.integers(0, 60), unique=True).map(accept))
        found, expected = grown.search(query, limit, chosen), whole.search(query, 1000)
        keep = chosen.mask(expected.rows) if chosen else np.ones(len(expected.rows), np.bool_)
        np.testing.assert_array_equal(found.rows, expected.rows[keep][:limit])
        np.testing.assert_array_equal(found.scores, expected.scores[keep][:limit])
        live.close()


@settings(max_examples=12, deadline=None)
@given(texts, st.lists(st.tuples(texts, st.lists(st.integers(0, 40), max_size=8)), max_size=5))
def test_exactly_the_rows_that_were_not_deleted_are_found(
    base: list[str], steps: list[tuple[list[str], list[int]]]
) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "base").mkdir()
        build_tantivy(folder / "base", LexicalConfig(), numbered(base, 0))
        live = TantivyLive(LexicalConfig(), folder / "base", folder / "scratch")
        alive = dict(enumerate(base))
        following = len(base)
        for batch, deleted in steps:
            live.apply(numbered(batch, following), deleted)
            live.commit()
            for row in deleted:
                alive.pop(row, None)
            alive.update(enumerate(batch, following))
            following += len(batch)
            reader = live.reader()
            assert len(reader) == len(alive)
            assert set(reader.search(" ".join(WORDS), 1000).rows.tolist()) == {
                row for row, text in alive.items() if text
            }
        live.close()
