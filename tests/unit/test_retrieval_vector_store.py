import errno
import logging
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from index.errors import ShapeError, StorageError
from retrieval import vector_store
from retrieval.vector_shard import find_keys, sort_keys
from retrieval.vector_store import VectorStore

DIM = 6


def _keys(*numbers: int) -> np.ndarray:
    """Keys whose order is not that of the numbers; key 2n and 2n + 1 share their first 8 bytes."""
    return np.array([[(number // 2) * 0x9E3779B97F4A7C15 % 2**64, number] for number in numbers], np.uint64).reshape(
        -1, 2
    )


def _vectors(*numbers: int) -> np.ndarray:
    return np.array([[number + place / 8 for place in range(DIM)] for number in numbers], np.float32).reshape(-1, DIM)


def _store(folder: Path, *batches: range) -> VectorStore:
    store = VectorStore(folder, DIM)
    for batch in batches:
        store.append(_keys(*batch), _vectors(*batch))
    return store


def _holds(store: VectorStore, numbers, total: int = 100) -> bool:
    """Whether the store holds exactly the vectors of these numbers out of range(total)."""
    mask, vectors = store.get(_keys(*range(total)))
    return (np.flatnonzero(mask) == sorted(numbers)).all() and (vectors == _vectors(*sorted(numbers))).all()


def _names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_what_was_appended_is_found_in_the_order_asked(tmp_path):
    store = _store(tmp_path / "a" / "b", range(10), range(20, 30))
    for opened in (store, VectorStore(tmp_path / "a" / "b", DIM)):
        mask, vectors = opened.get(_keys(25, 3, 50, 25, 9, 8))
        assert mask.tolist() == [True, True, False, True, True, True]
        assert (vectors == _vectors(25, 3, 25, 9, 8)).all()
        assert vectors.dtype == np.float32
        assert (opened.contains(_keys(25, 3, 50)) == [True, True, False]).all()
        assert len(opened) == 20


def test_a_store_that_does_not_exist_is_empty_and_is_not_created(tmp_path):
    store = VectorStore(tmp_path / "none", DIM)
    assert store.get(_keys(1))[1].shape == (0, DIM)
    assert store.contains(_keys()).shape == (0,)
    store.append(_keys(), _vectors())
    store.clean()
    assert store.verify() == []
    assert not (tmp_path / "none").exists()


def test_keys_that_share_eight_bytes_are_told_apart():
    keys = np.array([[5, 9], [5, 1], [5, 4], [0, 0], [2**64 - 1, 2**64 - 1], [5, 1]], np.uint64)
    order = sort_keys(keys)
    ordered = keys[order]
    assert ordered.tolist() == [[0, 0], [5, 1], [5, 4], [5, 9], [2**64 - 1, 2**64 - 1]]
    wanted = np.array([[5, 9], [5, 1], [5, 5], [5, 0], [2**64 - 1, 2**64 - 1], [2**64 - 1, 0], [7, 7]], np.uint64)
    assert find_keys(ordered, wanted).tolist() == [3, 1, -1, -1, 4, -1, -1]


def test_of_equal_keys_the_first_counts(tmp_path):
    store = VectorStore(tmp_path, DIM)
    store.append(_keys(4, 4, 2), _vectors(4, 7, 2))
    assert _holds(store, [2, 4])
    assert len(store) == 2


@pytest.mark.parametrize(
    ("keys", "vectors"),
    [
        (_keys(1, 2), _vectors(1)),
        (_keys(1), _vectors(1).astype(np.float64)),
        (_keys(1), _vectors(1)[:, :-1]),
        (_keys(1).astype(np.int64), _vectors(1)),
        (_keys(1)[0], _vectors(1)),
        (_keys(1), np.full((1, DIM), np.nan, np.float32)),
    ],
)
def test_wrong_shapes_and_values_are_refused_and_nothing_is_stored(tmp_path, keys, vectors):
    store = VectorStore(tmp_path, DIM)
    with pytest.raises(ShapeError):
        store.append(keys, vectors)
    assert _names(tmp_path) == set()


def test_readers_see_new_shards_after_refresh(tmp_path):
    writer, reader = _store(tmp_path, range(4)), VectorStore(tmp_path, DIM)
    writer.append(_keys(8), _vectors(8))
    assert _holds(reader, range(4))
    reader.refresh()
    assert _holds(reader, [0, 1, 2, 3, 8])


def test_a_reader_keeps_what_another_process_removed(tmp_path):
    _store(tmp_path, range(10))
    reader = VectorStore(tmp_path, DIM)
    code = (
        "import sys, pathlib\n"
        "from retrieval.vector_store import VectorStore\n"
        f"VectorStore(pathlib.Path(sys.argv[1]), {DIM}).drop('000000')\n"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True)
    assert _names(tmp_path) == set()
    assert _holds(reader, range(10))
    reader.refresh()
    assert _holds(reader, [])


def test_a_shard_that_takes_the_name_of_a_removed_one_is_seen(tmp_path):
    writer, reader = _store(tmp_path, range(3)), VectorStore(tmp_path, DIM)
    writer.drop("000000")
    writer.append(_keys(7), _vectors(7))
    assert "000000.json" in _names(tmp_path)
    reader.refresh()
    assert _holds(reader, [7])


@pytest.mark.parametrize("name", ["000000.json", "000000.keys.npy", "000000.vectors.npy"])
@pytest.mark.parametrize("damage", ["flip first", "flip middle", "flip last", "truncate", "remove"])
def test_a_damaged_shard_is_reported_ignored_and_cleaned(tmp_path, caplog, name, damage):
    _store(tmp_path, range(10), range(20, 25))
    path = tmp_path / name
    content = bytearray(path.read_bytes())
    if damage == "remove":
        path.unlink()
    elif damage == "truncate":
        path.write_bytes(content[:-1])
    else:
        place = {"first": 0, "middle": len(content) // 2, "last": -2}[damage.split()[1]]
        content[place] ^= 4
        path.write_bytes(content)
    if (name, damage) == ("000000.json", "remove"):
        reported = []
    elif (name, damage) == ("000000.json", "truncate"):
        return  # only the final line break is gone: still the same manifest
    else:
        reported = ["000000"]
    with caplog.at_level(logging.WARNING):
        store = VectorStore(tmp_path, DIM)
    assert list(store.damaged) == reported
    assert store.verify() == reported
    assert len([r for r in caplog.records if "000000" in r.getMessage()]) == len(reported)
    assert _holds(store, range(20, 25))
    store.clean()
    assert {name.split(".")[0] for name in _names(tmp_path)} == {"000001"}
    store.append(_keys(*range(10)), _vectors(*range(10)))
    assert _holds(store, [*range(10), *range(20, 25)])
    assert VectorStore(tmp_path, DIM).damaged == {}


def test_damage_after_opening_is_found_by_verify_and_never_copied_by_compaction(tmp_path):
    _store(tmp_path, range(10), range(20, 25))
    path = tmp_path / "000000.vectors.npy"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    store = VectorStore(tmp_path, DIM, verify=False)
    assert store.damaged == {}
    store.compact(_keys(*range(30)))
    assert list(store.damaged) == ["000000"]
    assert _holds(store, range(20, 25))


def test_a_store_of_another_dimension_is_ignored(tmp_path):
    _store(tmp_path, range(3))
    store = VectorStore(tmp_path, DIM + 1)
    assert "says dim 6, expected 7" in store.damaged["000000"]


def test_a_shard_of_a_later_release_is_ignored_and_never_removed(tmp_path):
    _store(tmp_path, range(3))
    path = tmp_path / "000000.json"
    path.write_text(path.read_text().replace('"format": 1', '"format": 2'))
    store = VectorStore(tmp_path, DIM)
    assert "update grapnel" in store.damaged["000000"]
    store.clean()
    assert len(_names(tmp_path)) == 3


def test_foreign_files_are_left_alone(tmp_path):
    store = _store(tmp_path, range(3))
    (tmp_path / "notes.json").write_text("{}")
    (tmp_path / "000009.txt").write_text("")
    store.clean()
    assert {"notes.json", "000009.txt"} <= _names(tmp_path)
    assert VectorStore(tmp_path, DIM).damaged == {}


def test_compaction_merges_small_shards_and_drops_what_is_unused(tmp_path):
    store = _store(tmp_path, range(10), range(5, 15), range(20, 30))
    reader = VectorStore(tmp_path, DIM)
    result = store.compact(_keys(*range(3, 25), 77))
    assert result == (30 - 17, 3, 1)
    assert _holds(store, [*range(3, 15), *range(20, 25)])
    assert _holds(reader, [*range(15), *range(20, 30)])
    reader.refresh()
    assert _holds(reader, [*range(3, 15), *range(20, 25)])
    assert store.compact(_keys(*range(3, 25))) == (0, 0, 0)
    assert len(_names(tmp_path)) == 3


def test_compaction_leaves_large_shards_that_are_mostly_used(tmp_path, monkeypatch):
    monkeypatch.setattr(vector_store, "_SMALL_ROWS", 4)
    store = _store(tmp_path, range(10), range(10, 20))
    assert store.compact(_keys(*range(5), *range(10, 14))) == (6, 1, 1)
    assert _holds(store, [*range(10), *range(10, 14)])
    assert store.compact(_keys()) == (14, 2, 0)
    assert _names(tmp_path) == set()


def test_compaction_writes_shards_of_bounded_size(tmp_path, monkeypatch):
    monkeypatch.setattr(vector_store, "_SHARD_ROWS", 7)
    monkeypatch.setattr(vector_store, "_BLOCK_ROWS", 3)
    store = _store(tmp_path, range(10), range(10, 20), range(50, 51))
    assert store.compact(_keys(*range(100))) == (0, 3, 3)
    assert _holds(store, [*range(20), 50])


def _counts(folder: Path) -> list[int]:
    """Rows of each shard, by name."""
    return [len(np.load(path)) for path in sorted(folder.glob("*.keys.npy"))]


def test_small_shards_are_merged_as_they_are_appended(tmp_path, monkeypatch):
    monkeypatch.setattr(vector_store, "_SMALL_ROWS", 20)
    store, reader = _store(tmp_path, range(7), range(7, 14)), VectorStore(tmp_path, DIM)
    store.append(_keys(*range(14, 21)), _vectors(*range(14, 21)))
    assert _counts(tmp_path) == [7, 7, 7]
    store.append(_keys(30), _vectors(30))
    assert _counts(tmp_path) == [21, 1]
    for start in range(40, 95, 5):
        store.append(_keys(*range(start, start + 5)), _vectors(*range(start, start + 5)))
    assert _counts(tmp_path) == [21, 21, 20, 5, 5, 5]
    stored = [*range(21), 30, *range(40, 95)]
    assert _holds(store, stored)
    assert _holds(reader, range(14))
    reader.refresh()
    assert _holds(reader, stored)
    assert _holds(VectorStore(tmp_path, DIM), stored)


def test_merging_drops_what_is_stored_twice(tmp_path, monkeypatch):
    monkeypatch.setattr(vector_store, "_SMALL_ROWS", 20)
    store = _store(tmp_path, range(10), range(5, 15), range(50, 51))
    assert _counts(tmp_path) == [15, 1]
    assert _holds(store, [*range(15), 50])


def test_many_small_shards_are_merged_in_groups(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(vector_store, "_SMALL_ROWS", 1)  # no merging
        _store(tmp_path, *(range(start, start + 4) for start in range(0, 48, 4)))
    monkeypatch.setattr(vector_store, "_SMALL_ROWS", 10)
    store = VectorStore(tmp_path, DIM)
    store.append(_keys(60), _vectors(60))
    assert _counts(tmp_path) == [12, 12, 12, 12, 1]
    assert _holds(store, [*range(48), 60])


def test_an_unverified_store_merges_nothing(tmp_path, monkeypatch):
    _store(tmp_path, range(10), range(10, 20))
    monkeypatch.setattr(vector_store, "_SMALL_ROWS", 20)
    VectorStore(tmp_path, DIM, verify=False).append(_keys(60), _vectors(60))
    assert _counts(tmp_path) == [10, 10, 1]


CHILD = """
import sys, pathlib, numpy as np
sys.path.insert(0, sys.argv[2])
from test_retrieval_vector_store import DIM, _keys, _vectors
from retrieval import vector_store
from retrieval.vector_store import VectorStore
store = VectorStore(pathlib.Path(sys.argv[1]), DIM)
if sys.argv[3] == "merge":
    vector_store._SMALL_ROWS = 20
if sys.argv[3] in ("append", "merge"):
    store.append(_keys(*range(20, 40)), _vectors(*range(20, 40)))
else:
    store.compact(_keys(*range(5, 20)))
"""


def _killed(folder: Path, action: str, point: str) -> None:
    child = subprocess.run(
        [sys.executable, "-c", CHILD, str(folder), str(Path(__file__).parent), action],
        env={**os.environ, "GRAPNEL_FAILPOINT": point},
        check=False,
    )
    assert child.returncode == -signal.SIGKILL


@pytest.mark.parametrize("point", ["keys", "arrays", "written", "replaced"])
def test_a_kill_while_appending_loses_nothing_that_was_stored(tmp_path, point):
    _store(tmp_path, range(10))
    _killed(tmp_path, "append", f"vectors.append.{point}")
    stored = [*range(10), *(range(20, 40) if point == "replaced" else [])]
    assert _holds(VectorStore(tmp_path, DIM), stored)
    store = VectorStore(tmp_path, DIM)
    assert store.damaged == {}
    store.clean()
    assert len(_names(tmp_path)) == (6 if point == "replaced" else 3)
    store.append(_keys(*range(20, 40)), _vectors(*range(20, 40)))
    assert _holds(VectorStore(tmp_path, DIM), [*range(10), *range(20, 40)])


@pytest.mark.parametrize(
    "point",
    [
        "vectors.append.arrays",
        "vectors.append.replaced",
        "vectors.compact.published",
        "vectors.remove.unlisted",
        "vectors.remove.unlisted:2",
    ],
)
def test_a_kill_while_compacting_loses_nothing_in_use(tmp_path, point):
    _store(tmp_path, range(10), range(8, 20))
    _killed(tmp_path, "compact", point)
    store = VectorStore(tmp_path, DIM)
    assert store.damaged == {}
    assert store.contains(_keys(*range(5, 20))).all()
    store.clean()
    store.compact(_keys(*range(5, 20)))
    assert _holds(store, range(5, 20))
    assert len(store) == 15
    assert len(_names(tmp_path)) == 3


@pytest.mark.parametrize(
    "point",
    [
        "vectors.append.keys",
        "vectors.append.replaced",
        "vectors.compact.published",
        "vectors.remove.unlisted",
        "vectors.remove.unlisted:2",
        "vectors.append.replaced:2",
    ],
)
def test_a_kill_while_merging_loses_nothing_that_was_stored(tmp_path, point):
    _store(tmp_path, range(10), range(8, 20))
    _killed(tmp_path, "merge", point)
    store = VectorStore(tmp_path, DIM)
    assert store.damaged == {}
    assert _holds(store, range(40 if point.endswith("replaced:2") else 20))
    store.clean()
    store.append(_keys(*range(20, 40)), _vectors(*range(20, 40)))
    assert _holds(VectorStore(tmp_path, DIM), range(40))


def test_a_full_disk_leaves_nothing_behind(tmp_path, monkeypatch):
    store = _store(tmp_path, range(10))
    real, calls = os.fsync, []

    def full(descriptor: int) -> None:
        calls.append(descriptor)
        if len(calls) == 2:
            raise OSError(errno.ENOSPC, "full")
        real(descriptor)

    before = _names(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(StorageError, match="free disk space"):
            store.append(_keys(50), _vectors(50))
    assert _names(tmp_path) == before
    assert _holds(store, range(10))
    store.append(_keys(50), _vectors(50))
    assert _holds(VectorStore(tmp_path, DIM), [*range(10), 50])
