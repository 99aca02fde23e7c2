"""Ground truth is exact, and kept under everything it depends on."""

from pathlib import Path

import numpy as np
import pytest

from evaluation.ground_truth import exact_truth, kept_truth, truth_key
from index.bitmap import pack
from index.errors import ShapeError

RNG = np.random.default_rng(0)
VECTORS = RNG.normal(size=(40, 5)).astype(np.float32)
QUERIES = RNG.normal(size=(7, 5)).astype(np.float32)
ALLOWED = pack(np.arange(40) % 20 == 3)


def test_each_part_changes_the_key() -> None:
    keys = [
        truth_key(VECTORS, QUERIES, "l2", 3),
        truth_key(VECTORS * 2, QUERIES, "l2", 3),
        truth_key(VECTORS, QUERIES[:-1], "l2", 3),
        truth_key(VECTORS.reshape(20, 10), QUERIES, "l2", 3),
        truth_key(VECTORS, QUERIES, "ip", 3),
        truth_key(VECTORS, QUERIES, "l2", 4),
        truth_key(VECTORS, QUERIES, "l2", 3, ALLOWED),
        truth_key(VECTORS, QUERIES, "l2", 3, ~ALLOWED),
    ]
    assert len(set(keys)) == len(keys)
    assert truth_key(VECTORS.copy(), QUERIES, "l2", 3) == keys[0]


def test_a_filter_that_leaves_few_rows_pads() -> None:
    truth = exact_truth(VECTORS, QUERIES, "l2", 3, ALLOWED)
    assert (np.sort(truth.rows[:, :2], axis=1) == [3, 23]).all()
    assert (truth.rows[:, 2] == -1).all()
    assert (truth.scores[:, 2] == -np.inf).all()


def test_kept_truth_is_read_again_and_damage_computed_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    first = kept_truth(tmp_path / "new", VECTORS, QUERIES, "cosine", 3)
    (path,) = (tmp_path / "new").iterdir()
    written = path.stat().st_mtime_ns
    again = kept_truth(tmp_path / "new", VECTORS, QUERIES, "cosine", 3)
    assert path.stat().st_mtime_ns == written
    for one, other in zip(first, again, strict=True):
        assert (one == other).all()
    path.write_bytes(path.read_bytes()[:100])
    repaired = kept_truth(tmp_path / "new", VECTORS, QUERIES, "cosine", 3)
    assert (repaired.rows == first.rows).all()
    assert "computed again" in caplog.text


def test_k_below_one_is_refused() -> None:
    with pytest.raises(ShapeError, match="k is 0"):
        exact_truth(VECTORS, QUERIES, "l2", 0)
