import hashlib
import random
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from index.component import open_component, write_component
from index.errors import ConfigError, CorpusError, IndexFormatError, StorageError
from retrieval.lexical import LexicalConfig
from retrieval.lexical.live import TantivyLive
from retrieval.lexical.tantivy import TantivyIndex, build_tantivy

CONFIG = LexicalConfig()


def texts(first: int, last: int) -> list[tuple[int, str, str]]:
    rng = random.Random(first)
    return [
        (row, "", f"shared unique{row} " + " ".join(f"w{rng.randrange(200)}" for _ in range(20)))
        for row in range(first, last)
    ]


def digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def found(index: TantivyIndex, query: str = "shared") -> set[int]:
    return set(index.search(query, 10_000).rows.tolist())


@pytest.fixture
def base(tmp_path: Path) -> Path:
    folder = tmp_path / "base"
    write_component(folder, "lexical", {}, lambda temporary: build_tantivy(temporary, CONFIG, texts(0, 500)))
    return folder


def test_starts_as_its_base(base: Path, tmp_path: Path) -> None:
    live = TantivyLive(CONFIG, base, tmp_path / "scratch")
    assert found(live.reader()) == set(range(500))
    live.close()


def test_changes_show_at_the_commit_and_only_to_readers_taken_later(base: Path, tmp_path: Path) -> None:
    live = TantivyLive(CONFIG, base, tmp_path / "scratch")
    before = live.reader()
    live.apply(texts(500, 510), [3, 4, 9_999])
    assert live.reader() is before
    live.commit()
    after = live.reader()
    assert found(after) == set(range(510)) - {3, 4}
    assert len(after) == 508
    assert found(before) == set(range(500))
    live.close()
    assert found(before) == set(range(500))
    assert found(after, "unique505") == {505}


def test_the_base_stays_byte_identical_through_deletions_and_merges(base: Path, tmp_path: Path) -> None:
    before = digests(base)
    scratch = tmp_path / "scratch"
    live = TantivyLive(CONFIG, base, scratch)
    alive = set(range(500))
    commits = 16
    for step in range(commits):
        fresh = texts(500 + 5 * step, 505 + 5 * step)
        gone = [10 * step, 10 * step + 1]
        live.apply(fresh, gone)
        live.commit()
        alive = (alive | {row for row, _, _ in fresh}) - set(gone)
    live.apply([], range(490))
    live.commit()
    alive -= set(range(490))
    assert found(live.reader()) == alive
    assert len(list(scratch.glob("*.term"))) < commits / 2  # segments were merged on the way
    assert digests(base) == before
    live.close()
    assert not scratch.exists()
    assert digests(base) == before
    open_component(base)


def test_grows_from_nothing(tmp_path: Path) -> None:
    live = TantivyLive(LexicalConfig(title_boost=2.0), None, tmp_path / "scratch")
    assert found(live.reader()) == set()
    live.apply([(0, "title", "body"), (1, "", "title")])
    live.commit()
    assert live.reader().search("title", 5).rows.tolist() == [0, 1]
    live.close()


def test_a_row_may_be_replaced_in_one_step(base: Path, tmp_path: Path) -> None:
    live = TantivyLive(CONFIG, base, tmp_path / "scratch")
    live.apply([(7, "", "entirely other")], [7])
    live.commit()
    assert found(live.reader(), "unique7") == set()
    assert found(live.reader(), "entirely") == {7}
    assert len(live.reader()) == 500
    live.close()


def test_deleted_passages_count_in_the_statistics_until_a_merge(base: Path, tmp_path: Path) -> None:
    live = TantivyLive(CONFIG, base, tmp_path / "scratch")
    query = "w3 w7 unique20"
    before = live.reader().search(query, 500)
    live.apply([], [int(before.rows[5])])
    live.commit()
    after = live.reader().search(query, 500)
    keep = before.rows != before.rows[5]
    np.testing.assert_array_equal(after.rows, before.rows[keep])
    np.testing.assert_array_equal(after.scores, before.scores[keep])
    live.close()


def test_a_bad_passage_changes_nothing(base: Path, tmp_path: Path) -> None:
    live = TantivyLive(CONFIG, base, tmp_path / "scratch")
    with pytest.raises(CorpusError, match="row 501 "):
        live.apply([(500, "", "fine"), (501, "", "\udc00")], [1])
    live.commit()
    assert found(live.reader()) == set(range(500))
    live.close()


def test_what_a_dead_process_left_is_not_built_upon(base: Path, tmp_path: Path) -> None:
    (tmp_path / "scratch").mkdir()
    (tmp_path / "scratch" / "meta.json").touch()
    with pytest.raises(StorageError, match="not empty"):
        TantivyLive(CONFIG, base, tmp_path / "scratch")


def test_bad_base_and_bad_setting_are_refused(base: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        TantivyLive(LexicalConfig(k1=3.0), base, tmp_path / "scratch")
    (base / "meta.json").write_text("nonsense")
    with pytest.raises(IndexFormatError, match="base"):
        TantivyLive(CONFIG, base, tmp_path / "scratch")


def test_searches_go_on_while_changes_are_committed(base: Path, tmp_path: Path) -> None:
    live = TantivyLive(CONFIG, base, tmp_path / "scratch")
    stop = threading.Event()
    wrong: list[object] = []
    seen: set[int] = set()

    def search() -> None:
        while not stop.is_set():
            reader = live.reader()
            count, rows = len(reader), found(reader)
            seen.add(count)
            # Every commit adds ten rows and removes the first five that are left.
            step = (count - 500) // 5
            if rows != set(range(5 * step, 500 + 10 * step)):
                wrong.append((count, len(rows)))

    threads = [threading.Thread(target=search) for _ in range(2)]
    for thread in threads:
        thread.start()
    for step in range(12):
        live.apply(texts(500 + 10 * step, 510 + 10 * step), range(5 * step, 5 * step + 5))
        live.commit()
    stop.set()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert len(seen) > 1
    live.close()


def test_a_full_disk_at_a_commit_is_a_storage_error_and_the_base_is_whole(base: Path, tmp_path: Path) -> None:
    before = digests(base)
    code = """
import resource, sys
from pathlib import Path
from index.errors import StorageError
from retrieval.lexical import LexicalConfig
from retrieval.lexical.live import TantivyLive
live = TantivyLive(LexicalConfig(), Path(sys.argv[1]), Path(sys.argv[2]))
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))  # writes beyond fail, as on a full disk
reader = live.reader()
try:
    live.apply((10_000 + row, "", f"w{row} v{row} " * 9) for row in range(9_000))
    live.commit()
except StorageError:
    assert len(live.reader().search("shared", 1000).rows) == 500
    sys.exit(7)
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(base), str(tmp_path / "scratch")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 7, done.stderr
    assert digests(base) == before
