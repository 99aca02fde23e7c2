"""Whatever the documents and however they are cut into shards, both forms say what looking through them says."""

import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from index.substring import open_substring, write_substring
from index.substring_spec import MODES, Mode, SubstringSpec
from index.types import SubstringIndex

VOCAB = 300

tokens = st.one_of(st.integers(0, 2), st.integers(0, VOCAB - 1))
corpora = st.lists(st.lists(tokens, max_size=25), max_size=12)


def looked_up(documents: list[list[int]], gram: list[int], *, begun: bool) -> list[tuple[int, int]]:
    return [
        (number, place)
        for number, document in enumerate(documents)
        for place in range(len(document) - len(gram) + 1)
        if document[place : place + len(gram)] == gram and (place == 0 or not begun)
        if gram or place < len(document) or begun
    ]


def check(index: SubstringIndex, documents: list[list[int]], gram: list[int], *, begun: bool) -> None:
    state = index.starts(2) if begun else index.root(2)
    for token in gram:
        state = index.extend(state, np.array([token, (token + 1) % VOCAB]))
    expected = looked_up(documents, gram, begun=begun)
    assert index.count(state)[0] == len(expected)
    offsets, found_documents, places = index.locate(state[:1])
    assert list(zip(found_documents.tolist(), places.tolist(), strict=True)) == expected
    following = Counter(
        documents[number][place + len(gram)] for number, place in expected if place + len(gram) < len(documents[number])
    )
    offsets, next_tokens, counts = index.continuations(state)
    assert dict(zip(next_tokens[: offsets[1]].tolist(), counts[: offsets[1]].tolist(), strict=True)) == following
    assert next_tokens[: offsets[1]].tolist() == sorted(following)
    alone = index.continuations(state[1:])
    assert (alone.tokens == next_tokens[offsets[1] :]).all(), "a batch answers as its beams do one by one"
    assert (alone.counts == counts[offsets[1] :]).all()


@settings(max_examples=60, deadline=None)
@given(corpora, st.sampled_from(MODES), st.sampled_from([1_000, 40]), st.data())
def test_every_answer_is_what_looking_says(
    documents: list[list[int]], mode: Mode, most: int, data: st.DataObject
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        spec = SubstringSpec(VOCAB, mode=mode, shard_tokens=most)
        write_substring(Path(folder), [np.array(document, np.int64) for document in documents], spec)
        index = open_substring(Path(folder))
        assert (index.tokens, index.documents) == (sum(map(len, documents)), len(documents))
        assert [index.text(number).tolist() for number in range(len(documents))] == documents
        known = [document[place : place + 6] for document in documents for place in range(len(document))]
        grams = st.one_of(st.sampled_from(known or [[]]), st.lists(tokens, max_size=4))
        for _ in range(5):
            check(index, documents, data.draw(grams), begun=data.draw(st.booleans()))
