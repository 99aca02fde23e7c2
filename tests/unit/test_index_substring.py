"""Building and opening: what is refused, what survives, what is reported."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from index.alphabet import Alphabet
from index.component import MANIFEST, open_component
from index.errors import ConfigError, CorpusError, IndexFormatError, RequestError, ShapeError
from index.substring import load_substring, open_shards, open_substring, save_substring, write_substring
from index.substring_ranges import Ranges
from index.substring_shard import begins
from index.substring_shards import ShardedSubstring
from index.substring_spec import FILE, MODES, Mode, SubstringSpec
from index.suffix_array import Sorted, packed_bytes, write_packed
from index.suffix_array_kernels import unpack
from index.types import Check, Continuations, Locations, State, SubstringIndex, go_on

DOCUMENTS = [np.array([3, 1, 4, 1, 5]), np.array([9, 2, 6]), np.array([], np.int64), np.array([1, 4])]
SPEC = SubstringSpec(10, tokenizer="digits")


@pytest.fixture(params=MODES)
def saved(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    mode: Mode = request.param
    save_substring(tmp_path / "index", DOCUMENTS, SubstringSpec(10, tokenizer="digits", mode=mode))
    return tmp_path / "index"


def test_a_component_says_what_it_holds(saved: Path) -> None:
    component = open_component(saved, kind="substring")
    assert component.counts == {"tokens": 10, "documents": 4, "shards": 1}
    assert component.config["tokenizer"] == "digits"
    about, shards = open_shards(saved)
    assert (about.tokens, about.documents, len(shards)) == (10, 4, 1)
    assert about.spec.mode == component.config["mode"]


def test_hand_computed_answers(saved: Path) -> None:
    index = load_substring(saved, tokenizer="digits", threads=1)
    state = index.extend(index.root(3), np.array([1, 9, 7]))
    assert index.count(state).tolist() == [3, 1, 0]
    offsets, tokens, counts = index.continuations(state)
    assert (offsets.tolist(), tokens.tolist(), counts.tolist()) == ([0, 2, 3, 3], [4, 5, 2], [2, 1, 1])
    offsets, documents, places = index.locate(state)
    assert (offsets.tolist(), documents.tolist(), places.tolist()) == ([0, 3, 4, 4], [0, 0, 3, 1], [1, 3, 0, 0])
    one_four = index.extend(state, np.array([4, 2, 7], np.uint8))
    assert index.count(one_four).tolist() == [2, 1, 0]
    assert index.count(index.extend(one_four, np.array([9, 9, 9]))).tolist() == [0, 0, 0], "no match across documents"
    assert [index.text(number).tolist() for number in range(4)] == [[3, 1, 4, 1, 5], [9, 2, 6], [], [1, 4]]


def test_an_answer_may_need_more_room_than_the_one_before(tmp_path: Path) -> None:
    save_substring(tmp_path / "index", [np.array([1, 1, 2, 1, 3, 1, 3])], SubstringSpec(4))
    index = load_substring(tmp_path / "index")
    for token, expected in ((3, ([1], [1])), (1, ([1, 2, 3], [1, 1, 2]))):
        _, tokens, counts = index.continuations(index.extend(index.root(1), np.array([token])))
        assert (tokens.tolist(), counts.tolist()) == expected


def test_no_beams_are_answered(saved: Path) -> None:
    index = load_substring(saved)
    state = index.extend(index.root(0), np.array([], np.int64))
    assert index.count(state).tolist() == []
    assert index.continuations(state).offsets.tolist() == [0]
    assert index.locate(state).offsets.tolist() == [0]


def test_equal_documents_make_equal_files(tmp_path: Path, saved: Path) -> None:
    mode = open_shards(saved)[0].spec.mode
    save_substring(tmp_path / "again", DOCUMENTS, SubstringSpec(10, tokenizer="digits", mode=mode))
    assert open_component(tmp_path / "again").sha256 == open_component(saved).sha256


@pytest.mark.parametrize("mode", MODES)
def test_blocks_change_nothing(tmp_path: Path, mode: Mode, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is done for 2^20 codes or 2^14 places at a time is done for 7 at a time, the last block not full."""
    rng = np.random.default_rng(0)
    documents = [rng.integers(0, 10, length) for length in (120, 0, 97, 180)]
    save_substring(tmp_path / "whole", documents, SubstringSpec(10, mode=mode))
    whole = load_substring(tmp_path / "whole")
    state = np.concatenate([whole.extend(whole.root(10), np.arange(10)), whole.root(1), whole.starts(1)])
    expected = whole.locate(state)
    monkeypatch.setattr("index.substring_text._BLOCK", 7)
    monkeypatch.setattr("index.fm_index._BLOCK", 7)
    monkeypatch.setattr("index.substring_shard._BLOCK", 7)
    save_substring(tmp_path / "blocks", documents, SubstringSpec(10, mode=mode))
    assert open_component(tmp_path / "blocks").sha256 == open_component(tmp_path / "whole").sha256
    for found, known in zip(load_substring(tmp_path / "blocks").locate(state), expected, strict=True):
        assert found.tolist() == known.tolist()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("shard_tokens", [100, 30])
def test_a_look_at_places_can_be_ended_between_blocks(
    tmp_path: Path, mode: Mode, shard_tokens: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Token 5 is in 20 places, token 6 in 20: 40 rows in blocks of 7, in one shard or 20 rows in each of two."""
    monkeypatch.setattr("index.substring_shard._BLOCK", 7)
    spec = SubstringSpec(10, mode=mode, shard_tokens=shard_tokens)
    save_substring(tmp_path / "index", [np.array([5, 6] * 10)] * 2, spec)
    index = load_substring(tmp_path / "index")
    state = index.extend(index.root(3), np.array([5, 9, 6]))
    looked: list[int] = []
    assert index.locate(state, check=lambda: looked.append(0)).offsets.tolist() == [0, 20, 20, 40]
    assert len(looked) == 6, "rows are 40 = 5 * 7 + 5, or twice 20 = 2 * 7 + 6"

    def ends_the_third() -> None:
        looked.append(0)
        if len(looked) == 3:
            raise TimeoutError

    looked.clear()
    with pytest.raises(TimeoutError):
        index.locate(state, 1, ends_the_third)
    assert len(looked) == 3


# -- bad input --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("document", "message"),
    [
        (np.array([1, 10]), r"document 1 holds token 10, expected 0 to 9"),
        (np.array([-1, 1]), r"document 1 holds token -1"),
        (np.array([[1]]), r"document 1 is int64 \(1, 1\), expected integers"),
        (np.array([1.0]), r"document 1 is float64"),
    ],
)
def test_documents_that_cannot_be_indexed(tmp_path: Path, document: npt.NDArray[np.int64], message: str) -> None:
    with pytest.raises(CorpusError, match=message):
        save_substring(tmp_path / "index", [DOCUMENTS[0], document], SPEC)
    assert not (tmp_path / "index").exists()


def test_a_document_larger_than_a_shard(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match=r"document 1 has 8 tokens, a shard holds 7: split it, or raise shard_tokens"):
        write_substring(tmp_path, [np.arange(3), np.arange(8)], SubstringSpec(10, shard_tokens=8))


@pytest.mark.parametrize(
    ("spec", "shards"),
    [
        (SubstringSpec(255), 1),  # codes 0 to 255: 1 byte, 600 codes
        (SubstringSpec(256), 2),  # 2 bytes: 300 codes
        (SubstringSpec(65_535), 2),
        (SubstringSpec(65_536), 3),  # 3 bytes: 200 codes
        (SubstringSpec(65_536, shard_tokens=1_000), 2),  # 1,000 codes are not above 1,000
    ],
)
def test_shards_end_where_their_bytes_can_be_sorted(
    tmp_path: Path, spec: SubstringSpec, shards: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("index.substring.MOST_BYTES", 600)
    assert write_substring(tmp_path, [np.arange(9)] * 60, spec)["shards"] == shards


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"vocab_size": 0}, "vocab_size is 0"),
        ({"vocab_size": (1 << 31) + 1}, "vocab_size is 2147483649, expected 1 to 2147483648"),
        ({"mode": "quick"}, "mode is 'quick'; allowed: 'fast', 'compact'"),
        ({"shard_tokens": 0}, "shard_tokens is 0"),
    ],
)
def test_specs_that_cannot_work(keys: dict[str, int], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        SubstringSpec(**{"vocab_size": 10, **keys})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("ask", "error", "message"),
    [
        (lambda index: index.root(-1), RequestError, "beams is -1"),
        (lambda index: index.extend(index.root(1), np.array([10])), RequestError, "token 10 is outside the vocabulary"),
        (lambda index: index.extend(index.root(1), np.array([-1])), RequestError, "token -1 is outside"),
        (lambda index: index.extend(index.root(1), np.array([1, 2])), ShapeError, r"tokens are int64 \(2,\)"),
        (lambda index: index.extend(index.root(1), np.array([1.0])), ShapeError, "tokens are float64"),
        (lambda index: index.count(np.zeros((1, 3), np.int64)), ShapeError, r"state is int64 \(1, 3\)"),
        (lambda index: index.count(np.zeros((1, 2, 3), np.int64)), ShapeError, r"expected int64 \(B, 1, 3\)"),
        (lambda index: index.count(np.zeros((1, 1, 3), np.int32)), ShapeError, "state is int32"),
        (lambda index: index.count(np.zeros((1, 1, 3), np.int64)), RequestError, "state belongs to another index"),
        (lambda index: index.locate(index.root(1), -1), RequestError, "limit is -1"),
        (lambda index: index.text(4), RequestError, "document 4 does not exist, expected 0 to 3"),
        (lambda index: index.text(-1), RequestError, "document -1 does not exist"),
    ],
)
def test_requests_that_cannot_be_answered(
    saved: Path, ask: Callable[[SubstringIndex], object], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        ask(load_substring(saved))


def test_states_of_another_index_are_refused(tmp_path: Path, saved: Path) -> None:
    index = load_substring(saved)
    save_substring(tmp_path / "other", [np.array([3, 1, 4, 1, 5, 9, 2, 6, 1, 4])], SPEC)
    other = load_substring(tmp_path / "other")
    mode = next(each for each in MODES if each != open_shards(saved)[0].spec.mode)
    save_substring(tmp_path / "form", DOCUMENTS, SubstringSpec(10, mode=mode))
    form = load_substring(tmp_path / "form")
    for stranger in (other, form):
        with pytest.raises(RequestError, match="state belongs to another index"):
            index.extend(stranger.root(1), np.array([1]))
    grown = index.root(1)
    grown[:, :, 1] += 100
    with pytest.raises(RequestError, match="state belongs to another index"):
        index.continuations(grown)


@pytest.mark.parametrize("mode", MODES)
def test_states_of_equal_codes_are_refused(tmp_path: Path, mode: Mode) -> None:
    """Codes are ranks: these texts differ in their symbols alone."""
    for name, document in (("low", [1, 2]), ("high", [3, 4])):
        save_substring(tmp_path / name, [np.array(document)], SubstringSpec(10, mode=mode))
    low, high = (load_substring(tmp_path / name) for name in ("low", "high"))
    for index, stranger in ((low, high), (high, low)):
        with pytest.raises(RequestError, match="state belongs to another index"):
            index.count(stranger.root(1))


@pytest.mark.parametrize("rows", [(3, 2), (-1, 2), (-2, -1), (0, 15)])
def test_states_of_rows_that_cannot_be_are_refused(saved: Path, rows: tuple[int, int]) -> None:
    index = load_substring(saved)
    state = index.root(2)
    assert state[1, 0, :2].tolist() == [0, 14]
    state[1, 0, :2] = rows
    for ask in (index.count, index.continuations, index.locate, lambda it: index.extend(it, np.array([1, 1]))):
        with pytest.raises(RequestError, match="state belongs to another index"):
            ask(state)


def test_no_state_reads_behind_the_text(tmp_path: Path) -> None:
    save_substring(tmp_path / "index", DOCUMENTS, SPEC)
    index = load_substring(tmp_path / "index")
    state = index.root(1)
    state[:, :, 2] += 1 << 31  # a match longer than any text: gigabytes behind its end
    assert index.continuations(state).offsets.tolist() == [0, 0]
    assert index.count(index.extend(state, np.array([1]))).tolist() == [0]


@pytest.mark.parametrize("bits", [1, 7, 8, 9, 23, 30, 31])
def test_places_are_packed_without_loss(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bits: int) -> None:
    monkeypatch.setattr("index.suffix_array._BLOCK", 16)
    for count in (0, 1, 15, 16, 40):
        places = np.random.default_rng(count).integers(0, 1 << bits, count).astype(np.uint32)
        places[-2:] = (1 << bits) - 1
        write_packed(tmp_path / "places.npy", places, bits)
        packed = np.load(tmp_path / "places.npy")
        assert np.unpackbits(packed, bitorder="little")[: count * bits].tolist() == [
            place >> bit & 1 for place in places.tolist() for bit in range(bits)
        ]
        assert len(packed) == packed_bytes(count, bits) == (count * bits + 7) // 8 + 8
        lows = np.arange(count)
        rows = Ranges(lows, np.full(count, count), np.ones(count, np.int64))
        found = np.zeros(count * (count + 1) // 2, np.uint32)
        unpack(Sorted(np.zeros(1, np.uint16), packed, bits), rows, begins(count - lows), found)
        assert found.tolist() == [place for low in range(count) for place in places.tolist()[low:]]


def test_states_made_by_hand_write_nowhere_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A state may be any rows at any depth. What follows is then no answer, but fits the room of its beam."""
    monkeypatch.setattr("index.suffix_array._WIDE_ROWS", 1)  # tables of successors, for all rows of a code
    tokens = np.minimum(np.random.default_rng(0).zipf(1.3, 60_000), 3_000) - 1
    for mode in MODES:
        save_substring(tmp_path / mode, np.split(tokens, 50), SubstringSpec(3_000, mode=mode))
        index = load_substring(tmp_path / mode)
        sorted_otherwise = index.root(3)
        sorted_otherwise[:, :, 2] += [[1], [2], [7]]
        parts_of_codes = index.extend(index.root(3_000), np.arange(3_000))
        parts_of_codes[:, :, 0] = np.maximum(parts_of_codes[:, :, 1] - 3, parts_of_codes[:, :, 0])
        for state in (sorted_otherwise, parts_of_codes):
            offsets, _, counts = index.continuations(state)
            assert (np.diff(offsets) <= np.minimum(index.count(state), 3_001)).all()
            assert (counts > 0).all()
        assert (np.add.reduceat(np.append(counts, 0), offsets[:-1]) <= 3).all()


def test_another_tokenizer_is_refused(saved: Path) -> None:
    with pytest.raises(IndexFormatError, match="built with tokenizer 'digits', expected 'letters'"):
        load_substring(saved, tokenizer="letters")


def test_threads_are_at_least_one(saved: Path) -> None:
    with pytest.raises(ValueError, match="threads is 0"):
        load_substring(saved, threads=0)


# -- damage -----------------------------------------------------------------------------------------------------------


def test_a_flipped_bit_in_any_file_is_refused(saved: Path) -> None:
    rng = np.random.default_rng(0)
    sha256 = open_component(saved).sha256
    for path in sorted(each for each in saved.rglob("*") if each.is_file()):
        content = path.read_bytes()
        damaged = bytearray(content)
        damaged[rng.integers(len(content))] ^= 1 << int(rng.integers(8))
        path.write_bytes(damaged)
        with pytest.raises(IndexFormatError, match=path.name):
            open_component(saved, sha256=sha256)  # as a generation does, which knows the manifest's sum
        if path.name != MANIFEST:
            with pytest.raises(IndexFormatError, match=path.name):
                load_substring(saved)
        path.write_bytes(content)
    load_substring(saved)


def test_cut_and_missing_files_are_refused_without_checksums(saved: Path) -> None:
    for path in sorted(saved.rglob("*.npy")):
        content = path.read_bytes()
        path.write_bytes(content[:-1])
        with pytest.raises(IndexFormatError, match=path.name):
            open_substring(saved)
        path.unlink()
        with pytest.raises(IndexFormatError, match=f"{path.name} is missing"):
            open_substring(saved)
        path.write_bytes(content)
    open_substring(saved)


def test_numbers_of_another_type_are_refused(saved: Path) -> None:
    """Of equal size, but signed, as loops would read them."""
    for path in sorted(saved.rglob("*.npy")):
        content = path.read_bytes()
        values = np.load(path)
        np.save(path, values.view(f"{'u' if values.dtype.kind == 'i' else 'i'}{values.itemsize}"))
        with pytest.raises(IndexFormatError, match="do not fit together"):
            open_substring(saved)
        path.write_bytes(content)
    open_substring(saved)


def test_files_of_two_indexes_do_not_mix(tmp_path: Path, saved: Path) -> None:
    mode = open_shards(saved)[0].spec.mode
    longer = [*DOCUMENTS, np.array([7, 8])]
    save_substring(tmp_path / "longer", longer, SubstringSpec(10, tokenizer="digits", mode=mode))
    name = {"fast": "text.npy", "compact": "entries.npy"}[mode]
    for strange in (name, "starts.npy"):
        shutil.copytree(saved, tmp_path / strange)
        shutil.copy(tmp_path / "longer" / "0000" / strange, tmp_path / strange / "0000" / strange)
        with pytest.raises(IndexFormatError, match="do not fit together"):
            open_substring(tmp_path / strange)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda about: about.update(format=1), "has format 1, this grapnel reads 2"),
        (lambda about: about.pop("shards"), "is damaged"),
        (lambda about: about["spec"].update(mode="quick"), "is damaged"),
        (lambda about: about.update(shards=[], tokens=0, documents=0), "is damaged .there are no shards"),
        (lambda about: about["shards"][0].update(identity="7"), "is damaged .*'7'"),
        (lambda about: about["shards"][0].update(primary=-1), "is damaged .*-1"),
        (lambda about: about.update(tokens=11), "its shards do not hold 11 tokens"),
    ],
)
def test_what_the_description_must_say(
    saved: Path, change: Callable[[dict[str, object]], object], message: str
) -> None:
    about = json.loads((saved / FILE).read_text())
    change(about)
    (saved / FILE).write_text(json.dumps(about))
    with pytest.raises(IndexFormatError, match=message):
        open_substring(saved)
    (saved / FILE).unlink()
    with pytest.raises(IndexFormatError, match="is missing"):
        open_substring(saved)


# -- beyond 2^31 ------------------------------------------------------------------------------------------------------


class Shifted:
    """A shard as it would be behind 2^31 + 5 other documents of its own: numbers shifted, answers its own."""

    SHIFT = (1 << 31) + 5

    def __init__(self, index: SubstringIndex) -> None:
        self._index = index
        self.vocab_size = index.vocab_size
        self.tokens = index.tokens * self.SHIFT
        self.documents = index.documents + self.SHIFT

    def root(self, beams: int) -> State:
        return self._index.root(beams)

    def starts(self, beams: int) -> State:
        return self._index.starts(beams)

    def extend(self, state: State, tokens: npt.NDArray[np.integer]) -> State:
        return self._index.extend(state, tokens)

    def count(self, state: State) -> npt.NDArray[np.int64]:
        return self._index.count(state) * self.SHIFT

    def continuations(self, state: State) -> Continuations:
        offsets, tokens, counts = self._index.continuations(state)
        return Continuations(offsets, tokens, counts * self.SHIFT)

    def locate(self, state: State, limit: int | None = None, check: Check = go_on) -> Locations:
        offsets, documents, places = self._index.locate(state, limit, check)
        return Locations(offsets, documents + self.SHIFT, places)

    def text(self, document: int) -> npt.NDArray[np.int32]:
        return self._index.text(document - self.SHIFT)


def test_more_than_two_billion_documents_and_tokens(saved: Path) -> None:
    index = load_substring(saved)
    shift = Shifted.SHIFT
    large = ShardedSubstring([Shifted(index), index])
    assert large.documents == 8 + shift
    assert large.tokens == 10 * shift + 10
    state = large.extend(large.root(1), np.array([9]))
    assert large.count(state).tolist() == [shift + 1]
    assert large.continuations(state).counts.tolist() == [shift + 1]
    assert large.locate(state).documents.tolist() == [1 + shift, 5 + shift]
    assert large.text(shift + 1).tolist() == large.text(shift + 5).tolist() == [9, 2, 6]


def test_the_largest_vocabulary(tmp_path: Path) -> None:
    last = (1 << 31) - 1
    documents = [np.array([last, 0, last]), np.array([5, last, 0])]
    for mode in MODES:
        save_substring(tmp_path / mode, documents, SubstringSpec(1 << 31, mode=mode))
        index = load_substring(tmp_path / mode)
        state = index.extend(index.root(3), np.array([last, 6, 0]))
        assert index.count(state).tolist() == [3, 0, 2]
        assert index.continuations(state).tokens.tolist() == [0, last]
        assert index.text(0).tolist() == [last, 0, last]
        empty = index.extend(index.root(1), np.array([7]))
        assert index.count(index.extend(empty, np.array([0]))).tolist() == [0]


def test_more_symbols_than_16_bits(tmp_path: Path) -> None:
    documents = [np.arange(70_000), np.arange(69_999, -1, -1)]
    for mode in MODES:
        save_substring(tmp_path / mode, documents, SubstringSpec(1 << 21, mode=mode))
        index = load_substring(tmp_path / mode)
        wanted = np.array([0, 65_534, 65_535, 65_536, 69_999])
        state = index.extend(index.root(5), wanted)
        assert index.count(state).tolist() == [2] * 5
        assert index.continuations(state).tokens.tolist() == [1, 65533, 65535, 65534, 65536, 65535, 65537, 69998]
        assert index.locate(state).places.tolist() == [
            0,
            69_999,
            65_534,
            4_465,
            65_535,
            4_464,
            65_536,
            4_463,
            69_999,
            0,
        ]
        assert (index.text(1) == documents[1]).all()


@pytest.mark.parametrize("symbols", [65_535, 65_536, 65_537])
@pytest.mark.parametrize("mode", MODES)
def test_the_limits_of_16_bits(tmp_path: Path, mode: Mode, symbols: int) -> None:
    """Codes are 1 to `symbols`, tokens 0 to `symbols` - 1: the largest of either needs a 17th bit one symbol later."""
    last = symbols - 1
    assert Alphabet(np.arange(symbols, dtype=np.uint32), symbols).dtype == (np.uint16 if last < 65_535 else np.uint32)
    documents = [np.arange(symbols), np.array([last, 0, last])]
    save_substring(tmp_path / "index", documents, SubstringSpec(symbols, mode=mode))
    index = load_substring(tmp_path / "index")
    for number, document in enumerate(documents):
        assert (index.text(number) == document).all()
    state = index.extend(index.root(3), np.array([last, 0, last - 1]))
    assert index.count(state).tolist() == [3, 2, 1]
    offsets, tokens, counts = index.continuations(state)
    assert (offsets.tolist(), tokens.tolist(), counts.tolist()) == ([0, 1, 3, 4], [0, 1, last, last], [1] * 4)
    offsets, numbers, places = index.locate(state)
    assert (offsets.tolist(), numbers.tolist()) == ([0, 3, 5, 6], [0, 1, 1, 0, 1, 0])
    assert places.tolist() == [last, 0, 2, 0, 1, last - 1]
