"""The forms on a device give the answers of the compiled loops: torch on the CPU, and on a GPU where there is one."""

from pathlib import Path

import numpy as np
import pytest

from index.device import absence
from index.substring import load_substring, save_substring
from index.substring_spec import MODES, Mode, SubstringSpec
from index.torch_substring import on_torch
from index.types import State, SubstringIndex

VOCAB = 70_000

DEVICES = ["cpu", pytest.param("cuda:0", marks=pytest.mark.gpu)]


@pytest.fixture(scope="module", params=[(mode, most) for mode in MODES for most in (1 << 20, 9_000)], ids=str)
def index(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> SubstringIndex:
    mode: Mode
    mode, most = request.param
    rng = np.random.default_rng(1)
    tokens = np.minimum(rng.zipf(1.3, 30_000), VOCAB) - 1
    documents = np.split(tokens, np.sort(rng.integers(0, len(tokens), 500)))
    folder = tmp_path_factory.mktemp("index") / "it"
    save_substring(folder, documents, SubstringSpec(VOCAB, mode=mode, shard_tokens=most))
    return load_substring(folder)


def states(index: SubstringIndex) -> State:
    rng = np.random.default_rng(2)
    state = np.concatenate([index.root(200), index.starts(50)])
    for _ in range(4):
        longer = np.flatnonzero(rng.random(len(state)) < 0.5)
        state[longer] = index.extend(state[longer], np.minimum(rng.zipf(1.5, len(longer)), VOCAB) - 1)
    return state


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("most", [None, 60])
def test_answers_are_the_same(
    index: SubstringIndex, device: str, most: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if reason := absence(device):
        pytest.skip(reason)
    if most:  # so few rows at a time that there are many batches, and beams too large for one
        monkeypatch.setattr("index.torch_substring._ROWS", most)
    there = on_torch(index, device)
    state = states(index)
    tokens = np.minimum(np.random.default_rng(3).zipf(1.4, len(state)), VOCAB) - 1
    assert (there.extend(state, tokens) == index.extend(state, tokens)).all()
    for found, expected in zip(there.continuations(state), index.continuations(state), strict=True):
        assert found.dtype == expected.dtype
        assert (found == expected).all()
    for found, expected in zip(there.locate(state[-50:], 9), index.locate(state[-50:], 9), strict=True):
        assert (found == expected).all()
    assert there.root(1).tolist() == index.root(1).tolist()
    assert (there.tokens, there.documents) == (index.tokens, index.documents)
    assert there.continuations(index.root(0)).offsets.tolist() == [0]


def test_codes_of_16_bits_are_unsigned(tmp_path: Path) -> None:
    rising = np.arange(40_000)
    for mode in MODES:
        save_substring(tmp_path / mode, [rising, rising[::-1]], SubstringSpec(40_000, mode=mode))
        there = on_torch(load_substring(tmp_path / mode), "cpu")
        begun = there.extend(there.root(3), np.array([32_765, 32_766, 32_767]))
        state = there.extend(begun, np.array([32_766, 32_767, 32_768]))  # codes: these and one more
        assert there.count(state).tolist() == [1, 1, 1]
        offsets, tokens, _ = there.continuations(state)
        assert (offsets.tolist(), tokens.tolist()) == ([0, 1, 2, 3], [32_767, 32_768, 32_769])


def test_documents_of_nothing(tmp_path: Path) -> None:
    for mode in MODES:
        save_substring(tmp_path / mode, [np.array([], np.int64)] * 3, SubstringSpec(5, mode=mode))
        there = on_torch(load_substring(tmp_path / mode), "cpu")
        state = there.extend(there.root(2), np.array([1, 2]))
        assert there.count(state).tolist() == [0, 0]
        assert there.continuations(np.concatenate([state, there.starts(1), there.root(1)])).offsets.tolist() == [0] * 5


def test_what_cannot_be_moved() -> None:
    with pytest.raises(TypeError, match="index is a list"):
        on_torch([], "cpu")  # type: ignore[arg-type]
