"""Both forms of the substring index against a search through the documents, and against each other."""

from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from index.component import open_component
from index.substring import load_substring, open_shards, save_substring, write_substring
from index.substring_shards import ShardedSubstring
from index.substring_spec import MODES, Mode, ShardAbout, SubstringSpec
from index.substring_text import Collector
from index.suffix_array import SuffixArray, write_suffix_array
from index.types import Continuations, Locations, State, SubstringIndex

Documents = Sequence[npt.NDArray[np.int64]]
Gram = tuple[int, ...]

VOCAB = 40
LONGEST = 12


def random_documents(seed: int, symbols: int = 6) -> Documents:
    rng = np.random.default_rng(seed)
    return [rng.integers(1, 1 + symbols, rng.integers(0, 40)) for _ in range(25)]


CORPORA: dict[str, Callable[[], Documents]] = {
    "random": lambda: random_documents(1),
    "large alphabet": lambda: random_documents(2, symbols=VOCAB - 1),
    "repetitive": lambda: [np.tile([3, 4, 3], length) for length in (1, 7, 20, 7)],
    "equal documents": lambda: [np.array([5, 6, 5])] * 9,
    "single document": lambda: random_documents(3)[1:2],
    "with empty documents": lambda: [np.array([], np.int64), *random_documents(4)[:5], np.array([], np.int64)] * 2,
    "only empty documents": lambda: [np.array([], np.int64)] * 3,
    "one token": lambda: [np.array([0])],
    "whole blocks of a level": lambda: [np.random.default_rng(5).integers(1, 4, each) for each in (700, 0, 257)],
    "one token again and again": lambda: [np.full(length, VOCAB - 1) for length in (600, 1, 0, 50)],
    "no document": list,
}


class Brute:
    """Every n-gram of some documents, up to LONGEST + 1 tokens, by looking."""

    def __init__(self, documents: Documents) -> None:
        self.places: dict[Gram, list[tuple[int, int]]] = {}
        self.next: dict[Gram, Counter[int]] = {}
        for number, document in enumerate(documents):
            tokens = document.tolist()
            for place in range(len(tokens)):
                for end in range(place + 1, min(place + LONGEST, len(tokens)) + 1):
                    gram = tuple(tokens[place:end])
                    self.places.setdefault(gram, []).append((number, place))
                    if end < len(tokens):
                        self.next.setdefault(gram, Counter())[tokens[end]] += 1

    def grams(self, seed: int, count: int) -> list[Gram]:
        """Return n-grams of length 1 to 12, most of which occur, half of these with one token changed."""
        rng = np.random.default_rng(seed)
        known = sorted(self.places)
        picked: list[Gram] = [known[index] for index in rng.integers(len(known), size=count // 2)] if known else []
        for gram in picked[::2]:
            changed = list(gram)
            changed[rng.integers(len(gram))] = int(rng.integers(VOCAB))
            picked.append(tuple(changed))
        while len(picked) < count:
            picked.append(tuple(rng.integers(VOCAB, size=rng.integers(1, LONGEST + 1)).tolist()))
        return picked


def matches(index: SubstringIndex, grams: Sequence[Gram], begin: State | None = None) -> State:
    """Return the state of n-grams of any length: those that are longer go on without the others."""
    state = index.root(len(grams)) if begin is None else begin.copy()
    lengths = np.array([len(gram) for gram in grams])
    for place in range(int(lengths.max(initial=0))):
        longer = np.flatnonzero(lengths > place)
        state[longer] = index.extend(state[longer], np.array([grams[each][place] for each in longer]))
    return state


def listed(answer: Continuations | Locations) -> list[list[tuple[int, int]]]:
    offsets, first, second = answer
    assert offsets[0] == 0
    assert offsets[-1] == len(first) == len(second)
    pairs = list(zip(first.tolist(), second.tolist(), strict=True))
    return [pairs[begin:end] for begin, end in pairwise(offsets.tolist())]


@pytest.fixture(params=MODES)
def mode(request: pytest.FixtureRequest) -> Mode:
    return request.param  # type: ignore[no-any-return]


@pytest.fixture(params=CORPORA)
def corpus(request: pytest.FixtureRequest) -> Documents:
    return CORPORA[request.param]()


@pytest.fixture
def index(tmp_path: Path, corpus: Documents, mode: Mode) -> SubstringIndex:
    save_substring(tmp_path / "index", corpus, SubstringSpec(VOCAB, mode=mode))
    return load_substring(tmp_path / "index")


def test_counts_and_places_of_every_ngram_and_of_absent_ones(index: SubstringIndex, corpus: Documents) -> None:
    brute = Brute(corpus)
    grams = [(), *sorted(brute.places), *brute.grams(5, 1_000)]
    state = matches(index, grams)
    expected = [brute.places.get(gram, []) for gram in grams]
    everything = [(number, place) for number, document in enumerate(corpus) for place in range(len(document))]
    expected[0] = everything
    assert index.count(state).tolist() == [len(each) for each in expected]
    assert listed(index.locate(state)) == expected, "in document order"
    assert listed(index.locate(state, 3)) == [each[:3] for each in expected]


def check_next_tokens(index: SubstringIndex, corpus: Documents) -> None:
    brute = Brute(corpus)
    grams = sorted(brute.places)
    state = matches(index, grams)
    found = listed(index.continuations(state))
    assert found == [sorted(brute.next.get(gram, Counter()).items()) for gram in grams]
    ends = [sum(place + len(gram) == len(corpus[number]) for number, place in brute.places[gram]) for gram in grams]
    sums = np.array([sum(count for _, count in each) for each in found], np.int64)
    assert (sums == index.count(state) - np.array(ends, np.int64)).all()


def test_next_tokens_of_every_ngram_that_occurs(index: SubstringIndex, corpus: Documents) -> None:
    check_next_tokens(index, corpus)


def test_next_tokens_that_were_counted_when_it_was_built(
    tmp_path: Path, corpus: Documents, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("index.suffix_array._WIDE_ROWS", 1)
    collector = Collector(VOCAB, 1 << 20)
    for number, document in enumerate(corpus):
        collector.add(document, number)
    text, tables = collector.finish()
    write_suffix_array(tmp_path, text, tables, wide_bytes=1 << 20)
    index = SuffixArray.open(tmp_path, tables, ShardAbout(1, 0))
    assert index.wide.codes.tolist() == np.flatnonzero(np.diff(tables.firsts)).tolist(), "of all that occurs"
    check_next_tokens(index, corpus)


def test_next_tokens_of_nothing_and_of_a_beginning(index: SubstringIndex, corpus: Documents) -> None:
    tokens = Counter(token for document in corpus for token in document.tolist())
    begun = Counter(document.tolist()[0] for document in corpus if len(document))
    assert listed(index.continuations(index.root(2))) == [sorted(tokens.items())] * 2
    assert listed(index.continuations(index.starts(1))) == [sorted(begun.items())]
    assert index.count(index.root(1)).tolist() == [index.tokens]
    assert index.tokens == sum(map(len, corpus))
    assert index.count(index.starts(1)).tolist() == [index.documents]
    assert index.documents == len(corpus)
    mixed = np.concatenate([index.starts(1), index.root(1), matches(index, [(1, 2), (3,)])])
    alone = [listed(index.continuations(mixed[beam : beam + 1]))[0] for beam in range(4)]
    assert listed(index.continuations(mixed)) == alone


def test_every_document_is_reached_from_its_beginning(index: SubstringIndex, corpus: Documents) -> None:
    grams = [tuple(document.tolist()) for document in corpus]
    state = matches(index, grams, index.starts(len(grams)))
    assert listed(index.locate(state)) == [
        [(number, 0) for number, other in enumerate(grams) if other[: len(gram)] == gram] for gram in grams
    ]


def test_documents_come_back(index: SubstringIndex, corpus: Documents) -> None:
    for number, document in enumerate(corpus):
        found = index.text(number)
        assert found.dtype == np.int32
        assert found.tolist() == document.tolist()


@pytest.mark.parametrize("mode", MODES)
def test_shards_answer_as_a_whole(tmp_path: Path, mode: Mode) -> None:
    corpus = random_documents(7) + random_documents(8, symbols=30)
    spec = SubstringSpec(VOCAB, mode=mode)
    save_substring(tmp_path / "whole", corpus, spec)
    save_substring(tmp_path / "parts", corpus, SubstringSpec(VOCAB, mode=mode, shard_tokens=120))
    whole, parts = load_substring(tmp_path / "whole"), load_substring(tmp_path / "parts")
    grams = Brute(corpus).grams(9, 300)
    one, many = matches(whole, grams), matches(parts, grams)
    assert many.shape[1] > 5
    assert (whole.count(one) == parts.count(many)).all()
    assert listed(whole.continuations(one)) == listed(parts.continuations(many))
    for limit in (None, 0, 1, 4):
        assert listed(whole.locate(one, limit)) == listed(parts.locate(many, limit))
    assert listed(whole.continuations(whole.root(1))) == listed(parts.continuations(parts.root(1)))
    assert listed(whole.continuations(whole.starts(1))) == listed(parts.continuations(parts.starts(1)))
    assert [parts.text(number).tolist() for number in range(len(corpus))] == [each.tolist() for each in corpus]


def test_many_shards_unite_what_follows(tmp_path: Path) -> None:
    rng = np.random.default_rng(13)
    equal = [rng.permutation(1_000) for _ in range(4)]
    disjoint = [first + rng.permutation(1_000) for first in (1_000, 2_000, 3_000)]
    overlapping = [rng.integers(500, 1_500, 1_000) for _ in range(3)]
    documents = [*equal, *disjoint, np.array([], np.int64), *overlapping]
    # No shard has room for two documents.
    spec = SubstringSpec(4_100, shard_tokens=1_001)
    write_substring(tmp_path, documents, spec)
    following: dict[Gram, Counter[int]] = {}
    for document in documents:
        for token, after in pairwise(document.tolist()):
            following.setdefault((token,), Counter())[after] += 1
    following[()] = Counter(token for document in documents for token in document.tolist())
    begun = Counter(document.tolist()[0] for document in documents if len(document))
    # Tokens from 4,000 on occur nowhere. So many empty matches are work for several threads.
    grams = [(int(token),) for token in rng.permutation(4_100)] + [()] * 100
    grams = [grams[place] for place in rng.permutation(len(grams))]
    expected = [sorted(each.items()) for each in [*(following.get(gram, Counter()) for gram in grams), begun]]
    for threads in (1, 2, 7):
        _, shards = open_shards(tmp_path, threads=1)
        assert len(shards) == len(documents)
        index = ShardedSubstring(shards, threads)
        answer = index.continuations(np.concatenate([matches(index, grams), index.starts(1)]))
        assert [each.dtype for each in answer] == [np.int64, np.int32, np.int64]
        assert listed(answer) == expected
        assert listed(index.continuations(index.root(0))) == []


@pytest.fixture(scope="module")
def zipf(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Documents]:
    """Return 200,000 Zipf tokens: large enough for blocks, known wide matches, and several threads."""
    rng = np.random.default_rng(11)
    tokens = np.minimum(rng.zipf(1.3, 200_000), 70_000) - 1
    documents = np.split(tokens, np.sort(rng.integers(0, len(tokens), 2_000)))
    folder = tmp_path_factory.mktemp("zipf")
    for name in MODES:
        save_substring(folder / name, documents, SubstringSpec(70_000, mode=name))
    return folder, documents


def test_bytes_of_five_million_tokens(tmp_path: Path) -> None:
    shares = np.cumsum(1 / np.arange(1, 50_001))
    tokens = np.searchsorted(shares / shares[-1], np.random.default_rng(0).random(5_000_000))
    documents = np.split(tokens, np.arange(131, len(tokens), 131))
    size = {}
    for name in MODES:
        save_substring(tmp_path / name, documents, SubstringSpec(50_000, mode=name))
        size[name] = open_component(tmp_path / name).size_bytes
    assert size["fast"] / len(tokens) <= 6.1
    assert size["compact"] / len(tokens) <= 2.4
    index = load_substring(tmp_path / "fast")
    assert isinstance(index, SuffixArray)
    assert (index.wide.codes == np.flatnonzero(np.diff(index.tables.firsts) >= 4_096)).all(), "there is room for all"


def test_successors_are_counted_beforehand_as_far_as_there_is_room(tmp_path: Path) -> None:
    """The most frequent first, 8 bytes a code and 6 a successor.

    Separators have 3 successors; then come codes 1 with 1, 4 with none, 2 with 3,000 and 3 with 1,500.
    """
    rng = np.random.default_rng(5)
    pairs = [
        (1, 4 + np.zeros(9_010, np.int64)),
        (2, 5 + rng.permutation(9_005) % 3_000),
        (3, 5 + np.arange(9_000) % 1_500),
    ]
    documents = [np.array([code, other]) for code, others in pairs for other in others.tolist()]
    chosen = {7: [], 8: [4], 13: [4], 14: [1], 22: [1, 4], 26: [0], 48: [0, 1, 4]}
    chosen |= {48 + 9_007: [0, 1, 4], 48 + 9_008: [0, 1, 3, 4], 48 + 18_008: [0, 1, 2, 4], 48 + 27_016: [0, 1, 2, 3, 4]}
    for room, codes in chosen.items():
        folder = tmp_path / str(room)
        folder.mkdir()
        collector = Collector(4_000, 1 << 20)
        for number, document in enumerate(documents):
            collector.add(document, number)
        text, tables = collector.finish()
        tables.write(folder)
        write_suffix_array(folder, text, tables, wide_bytes=room)
        index = SuffixArray.open(folder, tables, ShardAbout(1, 0))
        assert index.wide.codes.tolist() == codes
        assert sum(each.nbytes for each in index.wide) <= room + 4


def test_forms_threads_and_batches_agree_where_matches_are_wide(zipf: tuple[Path, Documents]) -> None:
    folder, documents = zipf
    flat = np.concatenate(documents)
    following = flat[np.flatnonzero(flat[:-1] == 0) + 1]
    fast, compact = (load_substring(folder / name, threads=1) for name in MODES)
    parallel = [load_substring(folder / name, threads=3) for name in MODES]
    rng = np.random.default_rng(12)
    grams = [*((token,) for token in range(60)), *((0, token) for token in range(60))]
    grams += [tuple(flat[place : place + 3].tolist()) for place in rng.integers(0, len(flat) - 3, 300)]
    answers = []
    for index in (fast, compact, *parallel):
        state = np.concatenate([matches(index, grams), index.starts(1), index.root(1)])
        answers.append((index.count(state), *index.continuations(state), *index.locate(state, 200)))
    for other in answers[1:]:
        for found, expected in zip(other, answers[0], strict=True):
            assert found.dtype == expected.dtype
            assert (found == expected).all()
    state = matches(fast, [(0,)])
    after_zero = dict(listed(fast.continuations(state))[0])
    assert after_zero.keys() <= set(following.tolist())
    assert listed(fast.continuations(state))[0] == listed(compact.continuations(matches(compact, [(0,)])))[0]


@pytest.mark.parametrize("mode", MODES)
def test_any_number_of_threads_may_ask(zipf: tuple[Path, Documents], mode: Mode) -> None:
    folder, documents = zipf
    index = load_substring(folder / mode, threads=2)
    flat = np.concatenate(documents)

    def ask(seed: int) -> list[bytes]:
        places = np.random.default_rng(seed).integers(0, len(flat) - 3, 100)
        state = index.extend(index.root(100), flat[places])
        rare = state[index.count(state) < 100]
        answers = [*index.continuations(state), *index.locate(rare, 5)]
        return [answer.tobytes() for answer in answers]

    alone = [ask(seed) for seed in range(8)]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(ask, range(8))) == alone
