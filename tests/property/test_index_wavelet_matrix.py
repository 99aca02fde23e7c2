"""Levels of a wavelet matrix give back the codes they were made of."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from index.wavelet_matrix import read_levels, write_levels


@settings(deadline=None)  # the first example compiles the loops
@given(st.lists(st.integers(0, 9), max_size=1_000), st.sampled_from([np.uint16, np.uint32]))
def test_codes_come_back(codes: list[int], dtype: type[np.uint16 | np.uint32]) -> None:
    words, zeros = write_levels(np.array(codes, dtype), 4)
    below = np.searchsorted(np.sort(codes), np.arange(11)).astype(np.uint32)
    back = read_levels(words, zeros, below, np.dtype(dtype))
    assert back.dtype == dtype
    assert back.tolist() == codes
