"""The command line as its users meet it: real processes, real folders, a hashing encoder so that no model loads."""

import json
import os
import pty
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from command_line import COMMAND, ROOT, answer, environment, error_line, grapnel, refusal

from api.cli import main
from api.cli_commands import COMMANDS
from evaluation.trec import read_run
from index.errors import LockedError
from retrieval.collection import Collection
from retrieval.lock import WriterLock
from retrieval.types import Document

CONFIG = '[encoder]\nkind = "hashing"\ndim = 256\n'

DOCUMENTS = [
    Document("open", "Open a file and return a stream. Files are read line by line.", "builtins.open", {"kind": "f"}),
    Document(
        "Geneva Durben", "Geneva Durben likes quokkas, river otters and tapirs.", "", {"kind": "person", "age": 41}
    ),
    Document("50% off", "Prices of otters in rivers fell by half in spring.", "Sale", {"kind": "news"}),
    Document("sort", "Sort the list in place. Sorting is stable and takes a key function.", "list.sort", {"kind": "m"}),
    Document("naïve/é", "Ein kurzer Text über Füchse und naïve Leute.", "Füchse", {"kind": "news"}),
    Document("esc", "A text with an escape \x1b[31m sequence about terminals.", "", {}),
]


def as_lines(documents: list[Document]) -> str:
    return "".join(
        json.dumps({"_id": document.id, "title": document.title, "text": document.text, "metadata": document.metadata})
        + "\n"
        for document in documents
    )


def hit_ids(value: Any, ranking: int = 0) -> list[str]:
    return [hit["doc_id"] for hit in value["rankings"][ranking]["hits"]]


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sources")
    (folder / "docs.jsonl").write_text(as_lines(DOCUMENTS), encoding="utf-8")
    (folder / "collection.toml").write_text(CONFIG, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def built(sources: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A built collection that no test changes."""
    folder = tmp_path_factory.mktemp("built") / "c"
    config = sources / "collection.toml"
    value = answer("build", sources / "docs.jsonl", "--out", folder, "--config", config)
    assert value["documents"] == {"added": 6, "updated": 0, "unchanged": 0}
    assert value["encoded"] == {"dense": {"encoded": 6, "reused": 0, "truncated": 0, "runs_on": ""}}
    assert (value["passages"], value["skipped"]) == (6, [])
    assert value["size_bytes"] > 0
    assert {"read", "encode dense", "index lexical"} <= value["seconds"].keys()
    return folder


@pytest.fixture
def copy(built: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(built, tmp_path / "copy"))


# -- build ------------------------------------------------------------------------------------------------------------


def test_a_build_says_what_it_did_and_what_comes_next(sources: Path, tmp_path: Path) -> None:
    source = tmp_path / "docs.jsonl"
    source.write_text(as_lines(DOCUMENTS) + '{"_id": "blank", "text": "  "}\n', encoding="utf-8")
    settings = ["--set", "encoder.kind=hashing", "--set", "encoder.dim=64", "--set", "chunking.kind=tokens"]
    done = grapnel("build", source, "--out", tmp_path / "my c", *settings)
    assert done.returncode == 0
    assert "6 added" in done.stdout
    assert "6 encoded, 0 reused" in done.stdout
    assert f"grapnel search '{tmp_path}/my c'" in done.stdout
    assert "1 skipped" in done.stderr
    assert answer("info", tmp_path / "my c")["fields"]["dense"]["dim"] == 64
    del sources


def test_a_killed_build_is_refused_until_it_is_resumed(sources: Path, tmp_path: Path) -> None:
    folder = tmp_path / "c"
    build = ["build", str(sources / "docs.jsonl"), "--out", str(folder)]
    killed = grapnel(*build, "--config", sources / "collection.toml", GRAPNEL_FAILPOINT="compact.before_publish")
    assert killed.returncode == -signal.SIGKILL
    assert "--resume" in refusal(1, "search", folder, "otters")
    assert "--resume" in refusal(2, *build)
    assert "another configuration" in refusal(2, *build, "--resume", "--set", "chunking.overlap=1")
    value = answer(*build, "--resume")
    assert value["encoded"] == {"dense": {"encoded": 0, "reused": 6, "truncated": 0, "runs_on": ""}}
    assert value["documents"] == {"added": 0, "updated": 0, "unchanged": 6}
    assert hit_ids(answer("search", folder, "tapirs", "-k", "1")) == ["Geneva Durben"]
    assert "already built" in refusal(2, *build, "--resume")


def test_broken_input_is_named_and_a_repaired_source_resumes(sources: Path, tmp_path: Path) -> None:
    source, folder = tmp_path / "docs.jsonl", tmp_path / "c"
    source.write_text(as_lines(DOCUMENTS[:2]) + '{"_id": \n', encoding="utf-8")
    broken = grapnel("build", source, "--out", folder, "--config", sources / "collection.toml")
    assert broken.returncode == 1
    hint, error = broken.stderr.splitlines()
    assert "--resume" in hint
    assert error.startswith("error: docs.jsonl line 3: broken JSON")
    source.write_text(as_lines(DOCUMENTS), encoding="utf-8")
    assert answer("build", source, "--out", folder, "--resume")["passages"] == 6


def test_builds_that_cannot_work_change_nothing(sources: Path, built: Path, tmp_path: Path) -> None:
    source, out = sources / "docs.jsonl", tmp_path / "out"
    assert "not empty" in refusal(2, "build", source, "--out", built)
    assert "nowhere.jsonl" in refusal(1, "build", tmp_path / "nowhere.jsonl", "--out", out)
    assert "unknown key 'dimm'" in refusal(2, "build", source, "--out", out, "--set", "encoder.dimm=1")
    assert "nowhere.toml does not exist" in refusal(
        2, "build", source, "--out", out, "--config", tmp_path / "nowhere.toml"
    )
    assert not out.exists()


# -- search -----------------------------------------------------------------------------------------------------------


def test_search_as_json_is_what_the_library_answers(built: Path) -> None:
    value = answer("search", built, "how to read files?", "-k", "4")
    with Collection.open(built) as collection:
        expected = collection.search("how to read files?", k=4)
    assert value["mode"] == "hybrid"
    (ranking,) = value["rankings"]
    assert ranking.keys() == {"query_id", "query", "like", "hits", "notes", "timings_ms"}
    assert (ranking["query_id"], ranking["query"]) == ("q1", "how to read files?")
    assert [(hit["rank"], hit["doc_id"], hit["score"]) for hit in ranking["hits"]] == [
        (rank, hit.doc_id, pytest.approx(hit.score)) for rank, hit in enumerate(expected.hits, start=1)
    ]
    first = ranking["hits"][0]
    passage, snippet = first["passage"], first["snippet"]
    assert (first["title"], first["metadata"]) == ("builtins.open", {"kind": "f"})
    assert passage["text"] == DOCUMENTS[0].text[passage["start"] : passage["end"]]
    assert [passage["text"][a:b] for a, b in snippet["highlights"]] == ["file", "Files", "read"]
    assert [part["stage"] for part in first["evidence"]] == ["dense", "lexical"]
    assert {"encode", "lexical", "fusion"} <= ranking["timings_ms"].keys()


def test_search_for_people(built: Path) -> None:
    done = grapnel("search", built, "otters in rivers", "escape sequence", "--explain")
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0] == "otters in rivers"
    assert lines[1].split()[::2] == ["1", "50%", "Sale"]
    assert lines[2].strip() == DOCUMENTS[2].text
    assert lines[3].strip() == "kind: news"
    assert "escape sequence" in lines
    assert "\x1b" not in done.stdout
    header = next(line for line in lines if "dense (rank)" in line)
    assert header.split()[:3] == ["rank", "document", "hybrid"]
    assert any(line.split()[:1] == ["total"] for line in lines)


def test_search_options(built: Path, tmp_path: Path) -> None:
    three = hit_ids(answer("search", built, "otters", "-k", "3"))
    assert hit_ids(answer("search", built, "otters", "-k", "2", "--offset", "1")) == three[1:]
    paged = answer("search", built, "otters", "zebra", "-k", "1", "--offset", "2", "--group", "passage")
    assert [ranking["query_id"] for ranking in paged["rankings"]] == ["q1", "q2"]
    assert paged["rankings"][0]["hits"][0]["rank"] == 3
    condition = '{"type": "eq", "key": "kind", "value": "news"}'
    news = answer("search", built, "otters", "--filter", condition, "--mode", "dense", "--diversity", "0.5")
    assert sorted(hit_ids(news)) == ["50% off", "naïve/é"]
    assert len(hit_ids(answer("search", built, "otters", "--mode", "lexical", "--min-score", "0.1"))) == 2
    like = answer("search", built, "--like", "Geneva Durben", "-k", "6")
    assert like["rankings"][0]["like"] == "Geneva Durben"
    assert sorted(hit_ids(like)) == sorted(document.id for document in DOCUMENTS if document.id != "Geneva Durben")
    pipeline = tmp_path / "pipeline.toml"
    pipeline.write_text('default = "both"\n[fusion.both]\nparts = ["dense", "lexical"]\nweights = [1, 0]\n')
    by_file = answer("search", built, "otters", "--pipeline", pipeline)
    assert by_file["mode"] == "both"
    assert hit_ids(by_file) == hit_ids(answer("search", built, "otters", "--mode", "dense"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give a question, or --like ID"),
        (["otters", "--like", "open"], "give a question, or --like ID"),
        (["otters", "--mode", "magic"], "mode 'magic' is unknown; modes: hybrid, dense, lexical"),
        (["otters", "--filter", '{"type'], "--filter is not JSON: Unterminated string"),
        (["otters", "--filter", "[1]"], "--filter is a JSON list, expected an object"),
        (["otters", "--filter", '{"type": "eq", "key": "k", "value": NaN}'], "--filter holds NaN"),
        (["otters", "--filter", '{"type": "like"}'], "filter.type is 'like'"),
        (["otters", "-k", "0"], "k is 0"),
        (["otters", "-k", "many"], "invalid int value: 'many'; see `grapnel search --help`"),
        (["otters", "--unknown"], "unrecognized arguments: --unknown"),
    ],
)
def test_searches_that_cannot_be_answered(
    built: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["search", str(built), *arguments]) == 2  # without a process each: there are many
    assert message in error_line(*capsys.readouterr())


def test_errors_for_programs(built: Path, tmp_path: Path) -> None:
    done = grapnel("search", built, "otters", "--mode", "magic", "--json")
    assert (done.returncode, done.stdout) == (2, "")
    assert json.loads(done.stderr)["error"]["type"] == "RequestError"
    done = grapnel("search", "--json")
    assert json.loads(done.stderr)["error"]["message"].startswith("the following arguments are required: DIR")
    done = grapnel("info", tmp_path, "--json")
    assert (done.returncode, json.loads(done.stderr)["error"]["type"]) == (1, "NotFoundError")
    assert "COMMAND" in refusal(2)


# -- run --------------------------------------------------------------------------------------------------------------


def test_a_run_holds_what_search_answers_in_its_order(built: Path, tmp_path: Path) -> None:
    questions = {"q 1": "otters", "q2": "sorting a list", "q3": "Füchse"}
    tsv, jsonl = tmp_path / "queries.tsv", tmp_path / "queries.jsonl"
    tsv.write_text("".join(f"{query_id}\t{text}\n" for query_id, text in questions.items()), encoding="utf-8")
    jsonl.write_text("".join(json.dumps({"_id": name, "text": text}) + "\n" for name, text in questions.items()))
    value = answer("run", built, "--queries", tsv, "--output", tmp_path / "a.trec", "-k", "5", "--batch", "2")
    assert (value["queries"], value["hits"], value["unanswered"], value["mode"]) == (3, 15, 0, "hybrid")
    done = grapnel("run", built, "--queries", jsonl, "--output", tmp_path / "b.trec", "-k", "5")
    assert "3 queries, 15 hits" in done.stdout
    assert (tmp_path / "a.trec").read_bytes() == (tmp_path / "b.trec").read_bytes()
    expected = answer("search", built, *questions.values(), "-k", "5")
    assert read_run(tmp_path / "a.trec") == {
        query_id: hit_ids(expected, number) for number, query_id in enumerate(questions)
    }
    first = (tmp_path / "a.trec").read_text(encoding="utf-8").splitlines()[0]
    assert first.split() == ["q%201", "Q0", *first.split()[2:3], "1", "-1", "grapnel-hybrid"]
    assert "Geneva%20Durben" in (tmp_path / "a.trec").read_text(encoding="utf-8")


def test_a_run_says_which_queries_have_no_hits(built: Path, tmp_path: Path) -> None:
    (tmp_path / "queries.tsv").write_text("q1\totters\nq2\tzebra\n")
    run = ["run", built, "--queries", tmp_path / "queries.tsv", "--output", tmp_path / "run.trec", "--mode", "lexical"]
    done = grapnel(*run)
    assert done.returncode == 0
    assert "1 queries have no hits" in done.stderr
    assert read_run(tmp_path / "run.trec").keys() == {"q1"}
    assert "expected at least 1" in refusal(2, *run, "--batch", "0")
    (tmp_path / "queries.tsv").write_text("q1 otters\n")
    assert "queries.tsv line 1: no tab" in refusal(1, *run)


# -- documents --------------------------------------------------------------------------------------------------------


def test_documents_come_and_go(copy: Path) -> None:
    new = [Document("new one", "Zebras graze at dusk.", "Zebra", {"kind": "animal", "tags": ["stripes"]})]
    report = answer("add", copy, "-", given=as_lines([*new, DOCUMENTS[0]]))
    assert (report["added"], report["unchanged"], report["encoded"]) == (1, 1, 1)
    assert hit_ids(answer("search", copy, "zebra", "-k", "1")) == ["new one"]
    assert answer("get", copy, "new one") == {
        "id": "new one",
        "title": "Zebra",
        "text": "Zebras graze at dusk.",
        "metadata": {"kind": "animal", "tags": ["stripes"]},
    }
    shown = grapnel("get", copy, "new one").stdout
    assert shown.splitlines() == [
        "new one",
        "Zebra",
        'kind: "animal"',
        'tags: ["stripes"]',
        "",
        "Zebras graze at dusk.",
    ]
    assert answer("delete", copy, "new one", "never there") == {"deleted": 1}
    assert answer("delete", copy, "--filter", '{"type": "eq", "key": "kind", "value": "news"}') == {"deleted": 2}
    assert "1 deleted of 1 asked for" in grapnel("delete", copy, "sort").stdout
    assert "no document 'sort'" in refusal(1, "get", copy, "sort")
    assert "nothing to delete" in refusal(2, "delete", copy)
    assert answer("info", copy)["documents"] == 3


def test_what_was_added_before_a_broken_line_is_kept_and_counted(copy: Path) -> None:
    lines = "".join(f'{{"_id": "d{number}", "text": "number {number}"}}\n' for number in range(1_100))
    done = grapnel("add", copy, "-", given=lines + "broken\n")
    assert done.returncode == 1
    hint, error = done.stderr.splitlines()
    assert "the first 1,000 documents are stored" in hint
    assert "standard input line 1101" in error
    assert answer("info", copy)["documents"] == 1006


# -- upkeep -----------------------------------------------------------------------------------------------------------


def test_compaction_folds_fresh_documents_in(copy: Path) -> None:
    answer("add", copy, "-", given=as_lines([Document("new", "Zebras graze.")]))
    before = answer("info", copy)
    value = answer("compact", copy)
    assert (value["passages"], value["generation"]) == (7, before["generation"] + 1)
    assert answer("info", copy)["fresh_passages"] == 0
    assert "7" in grapnel("compact", copy).stdout


def test_info_for_people_names_fields_and_sizes(built: Path) -> None:
    done = grapnel("info", built)
    assert done.returncode == 0
    rows = {line.split()[0]: line.split()[1:] for line in done.stdout.splitlines() if line.strip()}
    assert rows["documents"] == ["6"]
    assert rows["default_mode"] == ["hybrid"]
    assert "hashing," in rows["dense"]
    assert "tantivy," in rows["lexical"]


def test_verify_finds_a_flipped_bit_and_compaction_repairs_it(copy: Path) -> None:
    assert answer("verify", copy) == {"clean": True, "problems": []}
    victim = max((copy / "shards" / "0000" / "components").rglob("*.npy"), key=lambda path: path.stat().st_size)
    content = bytearray(victim.read_bytes())
    content[-1] ^= 1
    victim.write_bytes(content)
    damaged = grapnel("verify", copy, "--json")
    assert (damaged.returncode, damaged.stderr) == (1, "")
    value = json.loads(damaged.stdout)
    assert not value["clean"]
    assert victim.name in value["problems"][0]
    assert victim.name in grapnel("verify", copy).stdout
    repaired = grapnel("compact", copy)
    assert repaired.returncode == 0
    assert "warning: rebuilding" in repaired.stderr
    assert grapnel("verify", copy).stdout == "no problems found\n"


def test_an_export_becomes_the_same_collection_again(built: Path, tmp_path: Path) -> None:
    assert answer("export", built, tmp_path / "c.tar")["documents"] == 6
    assert answer("import", tmp_path / "c.tar", "--out", tmp_path / "c")["documents"] == 6
    with Collection.open(built) as one, Collection.open(tmp_path / "c") as other:
        assert list(one.documents()) == list(other.documents())
    assert "not empty" in refusal(2, "import", tmp_path / "c.tar", "--out", tmp_path / "c")
    assert "does not exist" in refusal(1, "import", tmp_path / "none.tar", "--out", tmp_path / "d")


# -- process ----------------------------------------------------------------------------------------------------------


def test_a_second_writer_is_told_who_the_first_is(copy: Path) -> None:
    lock = WriterLock(copy / "shards" / "0000")
    try:
        assert str(os.getpid()) in refusal(3, "add", copy, "-", given=as_lines(DOCUMENTS[:1]))
        done = grapnel("compact", copy, "--json")
        assert (done.returncode, json.loads(done.stderr)["error"]["type"]) == (3, LockedError.__name__)
        assert hit_ids(answer("search", copy, "otters"))
    finally:
        lock.release()


def test_a_reader_that_goes_away_leaves_no_trace(built: Path) -> None:
    buffered = environment(PYTHONUNBUFFERED="")
    for arguments in (["search", str(built), "otters"], ["search", str(built), "otters", "--json"], ["--help"]):
        with subprocess.Popen(
            [*COMMAND, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT, env=buffered
        ) as process:
            assert process.stdout is not None
            assert process.stderr is not None
            process.stdout.close()
            assert process.stderr.read() == b""
            assert process.wait(timeout=60) == 128 + signal.SIGPIPE


@pytest.mark.usefixtures("interruptible")
def test_an_interrupt_ends_quietly_and_lets_go_of_the_lock(copy: Path, until: Callable[..., None]) -> None:
    with subprocess.Popen(
        [*COMMAND, "add", str(copy), "-"],
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=ROOT,
        env=environment(),
    ) as process:
        lock = copy / "shards" / "0000" / "lock"
        until(lambda: str(process.pid) in lock.read_text() or process.poll() is not None, "a lock that is held")
        assert process.poll() is None
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=60) == 130
        assert process.stderr is not None
        assert process.stderr.read().decode().splitlines()[-1] == "error: interrupted"
    assert answer("delete", copy, "sort") == {"deleted": 1}


def test_a_terminal_shows_bars_while_stdout_stays_json(sources: Path, tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    build = [
        "build",
        sources / "docs.jsonl",
        "--out",
        tmp_path / "c",
        "--config",
        sources / "collection.toml",
        "--json",
    ]
    with subprocess.Popen(
        [*COMMAND, *map(str, build)],
        stdout=subprocess.PIPE,
        stderr=theirs,
        cwd=ROOT,
        env=environment(TERM="xterm"),
    ) as process:
        os.close(theirs)
        assert process.stdout is not None
        shown = _read_terminal(ours)
        assert json.loads(process.stdout.read())["passages"] == 6
        assert process.wait(timeout=60) == 0
    os.close(ours)
    assert "encode dense" in shown
    assert "6/6" in shown


def _read_terminal(descriptor: int) -> str:
    content = b""
    try:
        while block := os.read(descriptor, 4096):
            content += block
    except OSError:  # Linux reports the other side's end as an I/O error
        pass
    return content.decode()


def test_a_colour_terminal_gets_marks_but_no_sequences_of_documents(built: Path) -> None:
    done = grapnel("search", built, "escape sequence", "-k", "1", FORCE_COLOR="1", TERM="xterm-256color")
    assert "\x1b[1;33mescape\x1b[0m" in done.stdout
    assert "\x1b[31m sequence" not in done.stdout


@pytest.mark.parametrize("locale", ["C.UTF-8", "C"])
def test_json_is_utf_8_in_any_locale(built: Path, locale: str) -> None:
    done = subprocess.run(
        [*COMMAND, "get", str(built), "naïve/é", "--json"],
        capture_output=True,
        env=environment(LC_ALL=locale, PYTHONIOENCODING="ascii" if locale == "C" else "utf-8"),
        cwd=ROOT,
        check=True,
        timeout=60,
    )
    assert json.loads(done.stdout.decode("utf-8"))["title"] == "Füchse"


HEAVY = "torch transformers sentence_transformers semantic_text_splitter tokenizers pyarrow scipy ir_measures zstandard"


@pytest.mark.model
def test_light_commands_load_nothing_heavy(sources: Path, tmp_path: Path) -> None:
    with Collection.create(tmp_path / "c") as collection:  # the default configuration: a real model, not loaded yet
        assert collection.config.dense_fields()["dense"].encoder.kind == "sentence-transformers"
    commands = [["info"], ["search", "otters", "--mode", "lexical"], ["get", "nothing"]]
    code = (
        "import sys; from api.cli import main\n"
        "for arguments in eval(sys.argv[1]): main(arguments)\n"
        f"sys.exit(','.join(sorted(set('{HEAVY}'.split()) & sys.modules.keys())) or 0)"
    )
    arguments = [[name, str(tmp_path / "c"), *rest] for name, *rest in commands]
    done = subprocess.run(
        [sys.executable, "-c", code, repr(arguments)], capture_output=True, text=True, env=environment(), check=False
    )
    assert done.returncode == 0, done.stderr
    code = "import sys; from api.cli import main\ntry: main(['--help'])\nexcept SystemExit: pass\n"
    code += "sys.exit('numpy' in sys.modules or 'rich' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, env=environment(), check=False)
    assert done.returncode == 0
    del sources


def test_the_help_lists_every_command() -> None:
    shown = grapnel("--help").stdout
    first_words = {line.split()[0] for line in shown.splitlines() if line.startswith("    ") and line.strip()}
    assert set(COMMANDS) <= first_words
    assert grapnel("--version").stdout.startswith("grapnel 0.")
