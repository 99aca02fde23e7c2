from functools import cache
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retrieval import chunking
from retrieval.chunking import Chunker, ChunkingConfig
from retrieval.encoders import EncoderConfig
from retrieval.types import Document

_WORDS = ["word ", "a", "é", "漢字", "😀", "👨\u200d👩\u200d👧", "supercalifragilistic", "\u0301", "\u200b"]
_SPACES = ["\n", "\n\n", "\r\n", "\t", " ", "\u2028", "\u0085", "\x1c"]
_MARKS = [". ", "?!", "# H\n", "```\n", "- item\n", ">", "| c ", "*", "[", "<b>"]
PIECES = st.sampled_from(_WORDS + _SPACES + _MARKS)
TEXTS = st.lists(PIECES, max_size=100).flatmap(
    lambda pieces: st.integers(1, 12).map("".join(pieces).__mul__)
) | st.text(st.characters(codec="utf-8"), max_size=300)


@cache
def _chunker(max_tokens: int, overlap: int, markdown: bool, model: bool) -> Chunker:
    config = ChunkingConfig("tokens", max_tokens, overlap, markdown)
    return Chunker(config, EncoderConfig() if model else None)


@pytest.fixture(autouse=True, scope="module")
def small_segments():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(chunking, "_SEGMENT_CHARACTERS", 600)
        yield


@settings(max_examples=150, deadline=None)
@given(
    text=TEXTS,
    sizes=st.sampled_from([(32, 0), (32, 16), (40, 5)]),
    markdown=st.booleans(),
    model=st.booleans(),
)
def test_spans_ascend_and_cover_everything_but_white_space(text, sizes, markdown, model):
    spans = _chunker(*sizes, markdown, model).spans(Document("d", text))
    assert spans
    assert all(0 <= start <= end <= len(text) for start, end in spans)
    assert all(one[0] < other[0] for one, other in pairwise(spans))
    covered = set().union(*(range(start, end) for start, end in spans))
    assert all(place in covered for place, character in enumerate(text) if not character.isspace())
