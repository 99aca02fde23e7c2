"""Suffixes in order, with and without pydivsufsort; codes of any width."""

import importlib.util
from importlib.machinery import ModuleSpec

import numpy as np
import numpy.typing as npt
import pytest

from index.suffix_sort import MOST_BYTES, code_bytes, doubled, suffix_order
from index.wavelet_matrix import backwards

TEXTS = {
    "empty": [],
    "one": [5],
    "equal": [2] * 50,
    "periodic": [1, 2, 3] * 20,
    "random": np.random.default_rng(0).integers(0, 4, 200).tolist(),
    "sorted": list(range(60)),
    "falling": list(range(60, 0, -1)),
}


def expected(text: list[int]) -> list[int]:
    return sorted(range(len(text)), key=lambda place: text[place:])


@pytest.mark.parametrize("name", TEXTS)
@pytest.mark.parametrize("largest", [200, 60_000, 70_000, 1 << 24])
def test_suffixes_are_sorted(name: str, largest: int) -> None:
    factor = largest // 64  # so that every byte of a code matters
    text = [code * factor for code in TEXTS[name]]
    codes = np.array(text, np.uint16 if largest < 1 << 16 else np.uint32)
    order = suffix_order(codes, largest)
    assert order.dtype == np.uint32
    assert order.tolist() == expected(text)


@pytest.mark.parametrize("name", TEXTS)
def test_numpy_alone_gives_the_same(name: str) -> None:
    assert doubled(np.array(TEXTS[name], np.uint16)).tolist() == expected(TEXTS[name])


def test_numpy_takes_over_where_pydivsufsort_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> ModuleSpec | None:
        assert name == "pydivsufsort"
        return None

    monkeypatch.setattr(importlib.util, "find_spec", absent)
    assert suffix_order(np.array(TEXTS["random"], np.uint16), 4).tolist() == expected(TEXTS["random"])


@pytest.mark.parametrize(("largest", "width"), [(0, 1), (255, 1), (256, 2), (65_535, 2), (65_536, 3), (1 << 24, 4)])
def test_bytes_of_a_code(largest: int, width: int) -> None:
    assert code_bytes(largest) == width
    assert code_bytes(largest) * (MOST_BYTES // width) < 1 << 31


@pytest.mark.parametrize("levels", [1, 3, 16, 17, 31])
def test_bits_are_read_backwards(levels: int) -> None:
    codes: npt.NDArray[np.uint32] = np.unique(np.random.default_rng(1).integers(0, 1 << levels, 100)).astype(np.uint32)
    turned = backwards(codes, levels)
    assert turned.tolist() == [int(f"{code:0{levels}b}"[::-1], 2) for code in codes.tolist()]
    assert (backwards(turned, levels) == codes).all()
