"""Ranks of a level against a sum over its bits."""

import numpy as np

from index.substring_ranges import Ranges
from index.wavelet_kernels import narrow
from index.wavelet_matrix import write_levels


def test_ranks_of_every_range_of_rows() -> None:
    """Ranges within a word, up to its end, across words and across blocks; the last row ends no block."""
    bits = np.random.default_rng(0).integers(0, 2, 1_100).astype(np.uint16)
    before = np.concatenate([[0], np.cumsum(bits, dtype=np.int64)])
    lows, highs = (rows.astype(np.int64) for rows in np.triu_indices(len(bits) + 1))
    words, zeros = write_levels(bits.copy(), 1)
    for array in (words, zeros):
        array.flags.writeable = False  # as memory maps are: so the loop is compiled once
    assert zeros.tolist() == [len(bits) - before[-1]]
    found = (np.empty_like(lows), np.empty_like(highs))
    ones = np.ones_like(lows)
    narrow((words, zeros), Ranges(lows, highs, ones), ones, found, 0, len(lows))
    for rows, arrived in zip((lows, highs), found, strict=True):
        assert (arrived == zeros[0] + before[rows]).all()
