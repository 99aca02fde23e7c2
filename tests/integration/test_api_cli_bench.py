"""`grapnel bench` as its users meet it: a labelled folder in, a page and its numbers out, and no work done twice."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
from functools import partial
from html import escape
from pathlib import Path
from typing import Any

import pytest
from command_line import error_line, grapnel

from api.cli import main
from evaluation.report import page
from retrieval.lock import WriterLock

BROWSER = Path(os.environ.get("GRAPNEL_PLAYWRIGHT", f"{sys.prefix}/browser"))
"""Where playwright-core is installed, see `make browser`."""

DOCUMENTS, QUERIES, TOPICS = 120, 24, 12
FUNNELS = {f"funnel/{kind}/cosine" for kind in ("flat", "hnsw", "ivf-pq", "ivf-rabitq")}
ALWAYS = {"vectors", "metrics", "ann", "features", "recommendation", "pipelines/default", "comparison"}

bench = partial(grapnel, "bench", timeout_s=300, GRAPNEL_THREADS="1")


def write_dataset(folder: Path) -> Path:
    """Documents of a topic share words, queries ask for the documents of one topic; titles and ids need escaping."""
    rng = random.Random(5)
    words = [[f"word{topic}x{number}" for number in range(12)] for topic in range(TOPICS)]
    common = [f"common{number}" for number in range(40)]
    folder.mkdir()
    (folder / "qrels").mkdir()
    with (folder / "corpus.jsonl").open("w", encoding="utf-8") as file:
        for row in range(DOCUMENTS):
            text = " ".join(rng.choices(words[row % TOPICS], k=6) + rng.choices(common, k=6))
            document = {"_id": f"<b>{row}</b>", "title": "</script><script>alert(1)</script>", "text": text}
            file.write(json.dumps(document) + "\n")
    with (folder / "queries.jsonl").open("w", encoding="utf-8") as file:
        for number in range(QUERIES):
            text = " ".join(rng.choices(words[number % TOPICS], k=3) + rng.choices(common, k=2))
            file.write(json.dumps({"_id": f"q{number}", "text": text}) + "\n")
    judged = [f"q{q}\t<b>{row}</b>\t1" for q in range(QUERIES) for row in range(q % TOPICS, DOCUMENTS, TOPICS)]
    (folder / "qrels" / "test.tsv").write_text("\n".join(["query-id\tcorpus-id\tscore", *judged]) + "\n")
    return folder


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Any]:
    """A dataset, the folder of its report, and what the command said; the first run was killed after three."""
    root = tmp_path_factory.mktemp("bench")
    dataset, out = write_dataset(root / "<i>set"), root / "report"
    (root / "rrf.toml").write_text(
        '[fusion.hybrid]\nparts = ["dense", "lexical"]\nweights = [0.5, 0.5]\nmethod = "rrf"\n', encoding="utf-8"
    )
    arguments: list[str | Path] = [dataset, "--out", out, "--encoder", "hashing", "--set", "dim=64"]
    arguments += ["--pipeline", root / "rrf.toml", "--json"]
    killed = bench(*arguments, GRAPNEL_FAILPOINT="bench.section.replaced:3")
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    first = {path.name: path.stat().st_mtime_ns for path in (out / "sections").glob("*.json")}
    assert len(first) == 3
    assert not (out / "results.json").exists()
    done = bench(*arguments)
    assert done.returncode == 0, done.stderr
    after = {path.name: path.stat().st_mtime_ns for path in (out / "sections").glob("*.json")}
    assert after.items() >= first.items()
    again = bench(*arguments)
    assert {path.name: path.stat().st_mtime_ns for path in (out / "sections").glob("*.json")} == after
    assert again.stdout == done.stdout
    return dataset, out, json.loads(done.stdout)


def test_results_are_complete_and_the_page_is_made_of_them(made: tuple[Path, Path, Any]) -> None:
    _, out, said = made
    results = json.loads((out / "results.json").read_text("utf-8"))
    assert results["format"] == 1
    assert (results["dataset"]["documents"], results["dataset"]["queries"]) == (DOCUMENTS, QUERIES)
    assert results["sections"].keys() >= ALWAYS | FUNNELS | {"pipelines/rrf"}
    assert said["measured"] == [name for name, section in results["sections"].items() if "result" in section]
    assert said["left_out"] == {
        name: section["left_out"] for name, section in results["sections"].items() if "left_out" in section
    }
    text = (out / "index.html").read_text("utf-8")
    assert text == page(results)
    assert len(said["findings"]) > 4
    assert all(f"<li>{escape(sentence)}</li>" in text for sentence in said["findings"])
    assert "<script" not in text
    assert "<i>set" not in text
    assert "&lt;i&gt;set" in text
    assert not (out / "work").exists()


def test_terms_add_up_and_sections_agree_with_each_other(made: tuple[Path, Path, Any]) -> None:
    _, out, _ = made
    sections = json.loads((out / "results.json").read_text("utf-8"))["sections"]
    ledgers = [sections[name]["result"] for name in FUNNELS]
    ledgers += [sections[name]["result"]["ledger"] for name in ("pipelines/default", "pipelines/rrf")]
    for ledger in ledgers:
        terms = {term["name"]: term["mean"] for term in ledger["terms"]}
        losses = sum(terms[name] for name in ("embedding", "metric", "ann", "quantisation"))
        assert terms["ceiling"] - losses + terms.get("rerank", 0) == pytest.approx(terms["final"], abs=1e-9)
        assert all(term["low"] <= term["mean"] <= term["high"] for term in ledger["terms"])
    default = sections["pipelines/default"]["result"]
    assert default["modes"]["dense"]["nDCG@10"]["mean"] == pytest.approx(
        sections["metrics"]["result"]["arms"]["cosine"]["mean"], abs=1e-9
    )
    assert sum(default["values"]["hybrid"]) / QUERIES == pytest.approx(default["modes"]["hybrid"]["nDCG@10"]["mean"])
    flat = sections["ann"]["result"]
    assert flat["points"][0]["utility"]["mean"] == pytest.approx(flat["exact"]["mean"], abs=1e-12)
    compared = sections["comparison"]["result"]
    assert [(each["pipeline"], each["mode"]) for each in compared] == [
        ("default", "dense"), ("default", "lexical"), ("rrf", "hybrid"), ("rrf", "dense"), ("rrf", "lexical")
    ]  # fmt: skip


def test_the_page_reads_well_in_a_browser(made: tuple[Path, Path, Any]) -> None:
    """No request but for itself, nothing that overlaps or runs out of a window, and Tab reaches all there is."""
    chromium = shutil.which("chromium")
    if chromium is None or shutil.which("node") is None or not (BROWSER / "node_modules" / "playwright-core").is_dir():
        pytest.skip("no chromium, node or playwright-core: apt-get install chromium, make browser")
    settings = {"modules": str(BROWSER), "chromium": chromium, "page": str(made[1] / "index.html")}
    run = subprocess.run(
        ["node", str(Path(__file__).with_name("report_check.mjs")), json.dumps(settings)],
        capture_output=True,
        encoding="utf-8",
        timeout=120,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert json.loads(run.stdout) == {
        f"{width} {scheme}": [] for width in ("wide", "narrow") for scheme in ("light", "dark")
    }


def test_another_input_is_measured_anew_beside_what_is_kept(made: tuple[Path, Path, Any]) -> None:
    dataset, out, _ = made
    before = {path.name for path in (out / "sections").iterdir()}
    done = bench(dataset, "--out", out, "--encoder", "hashing", "--set", "dim=32", "--measures", "RR@10")
    assert done.returncode == 0, done.stderr
    assert "index.html" in done.stdout
    results = json.loads((out / "results.json").read_text("utf-8"))
    assert results["settings"]["measure"] == "RR@10"
    assert results["sections"]["vectors"]["result"]["dim"] == 32
    assert before < {path.name for path in (out / "sections").iterdir()}


@pytest.mark.parametrize(
    ("options", "status", "message"),
    [
        (["--measures", "Quality"], 2, "measure 'Quality' is unknown"),
        (["--measures", "infAP"], 2, "measure 'infAP' is unknown"),
        (["--measures", ""], 2, "0 measures"),
        (["--seed", "-1"], 2, "seed -1"),
        (["--encoder", "words"], 2, "kind is 'words'"),
        (["--encoder", "external", "--set", "dim=8"], 2, "a dataset brings no vectors"),
        (["--pipeline", "nowhere.toml"], 2, "nowhere.toml"),
        (["--split", "dev"], 1, "qrels/dev.tsv"),
        (["--tier", "huge"], 2, "--tier"),
    ],
)
def test_bad_input_is_one_line(
    made: tuple[Path, Path, Any],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    status: int,
    message: str,
) -> None:
    hashing = [] if "--encoder" in options else ["--encoder", "hashing", "--set", "dim=32"]
    assert main(["bench", str(made[0]), "--out", str(tmp_path / "out"), *hashing, *options]) == status
    assert message in error_line(*capsys.readouterr())


HEADER = "query-id\tcorpus-id\tscore\n"
BLANK = "".join(json.dumps({"_id": f"<b>{row}</b>", "text": ""}) + "\n" for row in range(DOCUMENTS))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("qrels/test.tsv", f"{HEADER}q0\tz\t1\n", "name 1 documents that its corpus does not hold: 'z'"),
        ("qrels/test.tsv", f"{HEADER}q0\t<b>0</b>\t1\nz\t<b>0</b>\t1\n", "judges 1 queries that have no text: 'z'"),
        ("qrels/test.tsv", f"{HEADER}q0\t<b>0</b>\t0\nq1\t<b>0</b>\t-1\n", "none of its 2 queries has a relevant doc"),
        ("qrels/test.tsv", f"{HEADER}q0\t<b>0</b>\tgood\n", "test.tsv line 2: grade 'good' is not an integer"),
        ("qrels/test.tsv", f"{HEADER}q0\t<b>0</b>\t9999999\n", "for query 'q0' is 9,999,999"),
        ("qrels/test.tsv", HEADER, "holds no judgements"),
        ("qrels/test.tsv", bytes(range(128, 256)), "is not UTF-8"),
        ("queries.jsonl", "", "holds no queries"),
        ("queries.jsonl", '{"_id": "q0", "text": ""}\n', "line 1: the query's text is empty"),
        ("queries.jsonl", None, "it has no queries.jsonl"),
        ("corpus.jsonl", "", "holds no documents"),
        ("corpus.jsonl", "{\n", "corpus.jsonl line 1: broken JSON"),
        ("corpus.jsonl", '{"_id": "a", "text": "b"}\n' * 2, "line 2: document id 'a' is used twice"),
        ("corpus.jsonl", None, "it has no corpus.jsonl"),
        ("corpus.jsonl", BLANK, "all 120 documents have the same vector"),
    ],
)
def test_a_broken_dataset_is_one_line_and_nothing_is_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, content: str | bytes | None, message: str
) -> None:
    path = write_dataset(tmp_path / "set") / name
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    out = tmp_path / "out"
    options = ["--encoder", "hashing", "--set", "dim=32"]
    assert main(["bench", str(tmp_path / "set"), "--out", str(out), *options]) == 1
    assert message in error_line(*capsys.readouterr())
    assert not (out / "results.json").exists()
    assert not (out / "index.html").exists()


def test_a_folder_that_is_in_use_is_refused(made: tuple[Path, Path, Any], capsys: pytest.CaptureFixture[str]) -> None:
    dataset, out, _ = made
    lock = WriterLock(out)
    try:
        assert main(["bench", str(dataset), "--out", str(out), "--encoder", "hashing", "--set", "dim=32"]) == 3
    finally:
        lock.release()
    assert capsys.readouterr().out == ""
