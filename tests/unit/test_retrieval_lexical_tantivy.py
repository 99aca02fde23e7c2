import subprocess
import sys
import threading
import unicodedata
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from index.component import open_component, write_component
from index.errors import ConfigError, CorpusError, IndexFormatError, StorageError
from retrieval.lexical import TANTIVY_LANGUAGES, TANTIVY_STEMMERS, TANTIVY_STOP_WORDS, LexicalConfig
from retrieval.lexical.tantivy import TantivyIndex, build_tantivy, open_tantivy
from retrieval.lexical.terms import MAX_TERMS

PLAIN = LexicalConfig(stemming=False, stop_words=False)


def built(folder: Path, passages: list[tuple[int, str, str]], config: LexicalConfig | None = None) -> TantivyIndex:
    folder.mkdir(exist_ok=True)
    config = config or LexicalConfig()
    assert build_tantivy(folder, config, passages) == {"passages": len(passages)}
    return open_tantivy(folder, config)


def rows(index: TantivyIndex, query: str, limit: int = 100) -> list[int]:
    return index.search(query, limit).rows.tolist()


@pytest.mark.parametrize(
    ("text", "terms"),
    [
        ("The Cats were RUNNING", ["cat", "were", "run"]),
        ("don't snake_case os.path 3.14 C++", ["don", "t", "snake", "case", "os", "path", "3", "14", "c"]),
        ("Café CAFÉ cafe naïve Straße", ["cafe", "cafe", "cafe", "naiv", "strasse"]),
        ("a" * 254 + " " + "b" * 255, ["a" * 254]),
        ("nul\0byte", ["nul", "byte"]),
        ("", []),
    ],
)
def test_english_analysis(tmp_path: Path, text: str, terms: list[str]) -> None:
    assert built(tmp_path, []).explain_terms(text) == terms


def test_composed_and_decomposed_accents_are_one_word(tmp_path: Path) -> None:
    decomposed = unicodedata.normalize("NFD", "Áedán über café")
    index = built(tmp_path, [(0, "", decomposed), (1, decomposed, "")])
    assert index.explain_terms(decomposed) == ["aedan", "uber", "cafe"]
    for query in ("aedan", "Áedán", unicodedata.normalize("NFD", "Áedán")):
        assert sorted(rows(index, query)) == [0, 1]


@pytest.mark.parametrize(
    ("language", "text", "terms"),
    [
        ("cjk", "日本語のテキスト Café 한국어", ["日", "本", "語", "の", "テキスト", "cafe", "한국어"]),
        ("german", "schöne Häuser", ["schone", "hauser"]),
        ("russian", "Книги", ["книги"]),
    ],
)
def test_scripts_without_stemming(tmp_path: Path, language: str, text: str, terms: list[str]) -> None:
    config = LexicalConfig(language=language, stemming=False, stop_words=False)
    assert built(tmp_path, [], config).explain_terms(text) == terms


def test_tamil_words_keep_their_marks(tmp_path: Path) -> None:
    config = LexicalConfig(language="tamil", stemming=False, stop_words=False)
    assert built(tmp_path, [], config).explain_terms("தமிழ் மொழி") == ["தமிழ்", "மொழி"]


@pytest.mark.parametrize("language", sorted(TANTIVY_LANGUAGES))
def test_every_language_builds_and_searches(tmp_path: Path, language: str) -> None:
    config = LexicalConfig(
        language=language, stemming=language in TANTIVY_STEMMERS, stop_words=language in TANTIVY_STOP_WORDS
    )
    assert rows(built(tmp_path, [(4, "", "zebra 2024")], config), "2024") == [4]


def test_title_and_text_are_one_text(tmp_path: Path) -> None:
    index = built(tmp_path, [(0, "red fox", "jumps"), (1, "", "red fox\njumps"), (2, "red", "")])
    found = index.search("fox", 5)
    assert found.rows.tolist() == [0, 1]
    assert found.scores[0] == found.scores[1]


def test_a_title_boost_lifts_matches_in_the_title(tmp_path: Path) -> None:
    passages = [(0, "", "fox fox and hounds"), (1, "fox", "runs from hounds far"), (2, "x", "y")]
    assert rows(built(tmp_path / "flat", passages), "fox") == [0, 1]
    assert rows(built(tmp_path / "boosted", passages, LexicalConfig(title_boost=3.0)), "fox") == [1, 0]


def test_opening_leaves_a_published_component_as_it_was(tmp_path: Path) -> None:
    component = write_component(
        tmp_path / "component", "lexical", {}, lambda folder: build_tantivy(folder, PLAIN, [(7, "t", "alpha beta")])
    )
    for _ in range(3):
        assert rows(open_tantivy(component.folder, PLAIN), "alpha") == [7]
    assert open_component(component.folder, sha256=component.sha256).counts == {"passages": 1}


def test_threads_end_with_their_index(tmp_path: Path, until: Callable[..., None]) -> None:
    def threads() -> int:
        return len(list(Path("/proc/self/task").iterdir()))

    built(tmp_path, [(0, "", "alpha")])
    before = threads()
    for _ in range(20):
        open_tantivy(tmp_path, LexicalConfig())
    # Each thread looks twice a second whether it is still wanted.
    until(lambda: threads() <= before + 2, "the end of threads that nobody wants")


def test_an_empty_index_answers(tmp_path: Path) -> None:
    index = built(tmp_path, [])
    assert len(index) == 0
    assert rows(index, "anything") == []
    assert index.like("anything at all", 5).rows.tolist() == []


def test_rows_may_be_large_and_unordered(tmp_path: Path) -> None:
    index = built(tmp_path, [(2**40, "", "ant"), (3, "", "ant"), (2**62, "", "ant bee")])
    assert rows(index, "ant") == [3, 2**40, 2**62]


def test_a_huge_passage_and_a_huge_token_do_no_harm(tmp_path: Path) -> None:
    huge = " ".join(f"word{number % 5000}" for number in range(600_000))
    index = built(tmp_path, [(0, "", huge), (1, "", "x" * 70_000 + " needle"), (2, "", "word42")])
    assert rows(index, "needle") == [1]
    assert rows(index, "x" * 70_000) == []
    assert sorted(rows(index, "word42")) == [0, 2]


def test_a_long_query_is_cut_to_its_rarest_words_with_a_note(tmp_path: Path) -> None:
    words = [f"w{number}" for number in range(MAX_TERMS + 10)]
    index = built(tmp_path, [(0, "", " ".join(words)), (1, "", " ".join(words[:10])), (2, "", "w5000")], PLAIN)
    found = index.search(" ".join(words), 5)
    # The ten words of row 1 are in two passages, so they are the ones left out.
    assert found.rows.tolist() == [0]
    assert len(found.notes) == 1
    assert str(MAX_TERMS + 10) in found.notes[0]


def test_lone_surrogates_in_a_passage_name_its_row(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="row 12 "):
        build_tantivy(tmp_path, PLAIN, [(0, "", "fine"), (12, "", "bad \ud800")])


def test_a_failing_source_keeps_its_own_error(tmp_path: Path) -> None:
    def broken():  # type: ignore[no-untyped-def]  # an iterator that fails half-way
        yield 0, "", "fine"
        raise CorpusError("line 2 is broken")

    with pytest.raises(CorpusError, match="line 2 is broken"):
        build_tantivy(tmp_path, PLAIN, broken())


@pytest.mark.parametrize("damage", ["empty", "meta", "missing", "other_fields"])
def test_damage_is_an_index_format_error(tmp_path: Path, damage: str) -> None:
    config = PLAIN
    if damage != "empty":
        built(tmp_path, [(0, "", "alpha")], PLAIN)
    if damage == "meta":
        (tmp_path / "meta.json").write_text("{")
    elif damage == "missing":
        next(tmp_path.glob("*.term")).unlink()
    elif damage == "other_fields":
        config = LexicalConfig(stemming=False, stop_words=False, title_boost=1.0)
    with pytest.raises(IndexFormatError, match="rebuild"):
        open_tantivy(tmp_path, config)


def test_a_folder_that_is_not_there_is_a_storage_error(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="nowhere"):
        open_tantivy(tmp_path / "nowhere", PLAIN)


def test_a_bad_setting_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        build_tantivy(tmp_path, LexicalConfig(k1=2.0), [])
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_a_storage_error(tmp_path: Path) -> None:
    code = """
import resource, sys
from collections.abc import Callable
from pathlib import Path
from index.errors import StorageError
from retrieval.lexical import LexicalConfig
from retrieval.lexical.tantivy import build_tantivy
resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))  # writes beyond fail, as on a full disk
try:
    build_tantivy(Path(sys.argv[1]), LexicalConfig(), ((row, "", f"w{row} " * 50) for row in range(20_000)))
except StorageError as error:
    assert "free space" in str(error), error
    sys.exit(7)
"""
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == 7, done.stderr


def test_searches_in_threads_do_not_disturb_each_other(tmp_path: Path) -> None:
    index = built(tmp_path, [(row, "", f"word{row} shared") for row in range(300)])
    wrong: list[int] = []

    def work(seed: int) -> None:
        asked = np.random.default_rng(seed).integers(0, 300, 200).tolist()
        wrong.extend(row for row in asked if rows(index, f"word{row}") != [row])

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
