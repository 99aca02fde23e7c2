"""The trie of titles: children and whole sequences against a search through all of them."""

from collections import Counter
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest

from index.component import open_component, write_component
from index.errors import ConfigError, CorpusError, IndexFormatError, RequestError
from index.token_trie import FILE, TokenTrie, open_trie, write_trie
from index.types import State

VOCAB = 50


def titles(seed: int, count: int, symbols: int = 5) -> list[list[int]]:
    rng = np.random.default_rng(seed)
    return [rng.integers(0, symbols, rng.integers(0, 6)).tolist() for _ in range(count)]


CORPORA = {
    "random": titles(0, 300),
    "many at the root": titles(1, 6_000, VOCAB),
    "none": [],
    "an empty one": [[]],
    "equal": [[1, 2]] * 5,
    "nested": [[1], [1, 2], [1, 2, 3], [1, 2, 3, 4], []],
}


@pytest.fixture(params=CORPORA)
def sequences(request: pytest.FixtureRequest) -> list[list[int]]:
    return CORPORA[request.param]


@pytest.fixture
def trie(tmp_path: Path, sequences: list[list[int]]) -> TokenTrie:
    made = [np.array(sequence, np.int64) for sequence in sequences]
    write_component(tmp_path / "trie", "titles", {}, lambda folder: write_trie(folder, made, VOCAB, "words"))
    return open_trie(tmp_path / "trie", tokenizer="words")


def reached(trie: TokenTrie, prefixes: list[tuple[int, ...]]) -> State:
    state = trie.root(len(prefixes))
    for place in range(max(map(len, prefixes), default=0)):
        longer = np.array([beam for beam, prefix in enumerate(prefixes) if len(prefix) > place])
        state[longer] = trie.extend(state[longer], np.array([prefixes[beam][place] for beam in longer.tolist()]))
    return state


def test_every_prefix(trie: TokenTrie, sequences: list[list[int]]) -> None:
    known = {tuple(sequence[:end]) for sequence in sequences for end in range(len(sequence) + 1)}
    prefixes = [(), *sorted(known)[:: 1 + len(known) // 200], (0, 7, 7), (49,)]
    state = reached(trie, prefixes)
    offsets, tokens, counts = trie.children(state)
    whole_offsets, whole = trie.complete(state)
    below_offsets, below = trie.beginning(state)
    first_offsets, firsts = trie.beginning(state, 2)
    for beam, prefix in enumerate(prefixes):
        matching = [number for number, each in enumerate(sequences) if tuple(each[: len(prefix)]) == prefix]
        rests = [sequences[number][len(prefix) :] for number in matching]
        following = Counter(rest[0] for rest in rests if rest)
        span = slice(offsets[beam], offsets[beam + 1])
        assert list(zip(tokens[span].tolist(), counts[span].tolist(), strict=True)) == sorted(following.items())
        assert trie.count(state)[beam] == len(matching)
        assert below[below_offsets[beam] : below_offsets[beam + 1]].tolist() == matching
        assert firsts[first_offsets[beam] : first_offsets[beam + 1]].tolist() == matching[:2]
        ended = [number for number, rest in zip(matching, rests, strict=True) if not rest]
        assert whole[whole_offsets[beam] : whole_offsets[beam + 1]].tolist() == ended
    assert len(trie) == len(sequences)
    assert [trie.text(number).tolist() for number in range(len(trie))] == sequences


def test_walking_down_at_random_ends_in_whole_titles_only(trie: TokenTrie, sequences: list[list[int]]) -> None:
    rng = np.random.default_rng(2)
    for _ in range(50):
        state, walked = trie.root(1), []
        while len(tokens := trie.children(state).tokens):
            if len(trie.complete(state).sequences) and rng.random() < 0.3:
                break
            walked.append(int(rng.choice(tokens)))
            state = trie.extend(state, np.array(walked[-1:]))
        assert walked in sequences or not sequences
        assert all(sequences[number] == walked for number in trie.complete(state).sequences)


def test_a_component_counts(trie: TokenTrie, sequences: list[list[int]], tmp_path: Path) -> None:
    counts = open_component(tmp_path / "trie", kind="titles").counts
    assert counts == {"sequences": len(trie), "tokens": sum(map(len, sequences))}


def test_prefixes_of_another_trie_are_refused(tmp_path: Path) -> None:
    """Of other titles, and of titles whose codes are equal, because codes are ranks."""
    tries = []
    for name, sequences in (("one", [[1, 2]]), ("longer", [[1, 2, 1]]), ("equal codes", [[3, 4]])):
        (tmp_path / name).mkdir()
        write_trie(tmp_path / name, [np.array(sequence) for sequence in sequences], VOCAB)
        tries.append(open_trie(tmp_path / name))
    for trie, stranger in permutations(tries, 2):
        with pytest.raises(RequestError, match="state belongs to another index"):
            trie.count(stranger.root(1))


def test_what_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "trie"
    folder.mkdir()
    with pytest.raises(ConfigError, match="vocab_size is 0"):
        write_trie(folder, [], 0)
    with pytest.raises(CorpusError, match="document 1 holds token 50"):
        write_trie(folder, [np.array([1]), np.array([50])], VOCAB)
    write_trie(folder, [np.array([1])], VOCAB, "words")
    with pytest.raises(IndexFormatError, match="built with tokenizer 'words', expected 'pieces'"):
        open_trie(folder, tokenizer="pieces")
    trie = open_trie(folder)
    with pytest.raises(RequestError, match="outside the vocabulary"):
        trie.extend(trie.root(1), np.array([VOCAB]))
    content = (folder / FILE).read_text()
    for damaged, message in (
        (content.replace('"format": 2', '"format": 1'), "format 1"),
        (content.replace("vocab_size", "size"), "is damaged"),
        (content[:-5], "is damaged"),
    ):
        (folder / FILE).write_text(damaged)
        with pytest.raises(IndexFormatError, match=message):
            open_trie(folder)
    (folder / FILE).unlink()
    with pytest.raises(IndexFormatError, match="is missing"):
        open_trie(folder)
