"""`grapnel evaluate` as its users meet it: real processes, real files, one clear line where there is no number."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from command_line import answer, error_line, grapnel, refusal

from api.cli import main

QUERIES = [f"q {number:02}" for number in range(24)]


def trec(rankings: dict[str, list[str]]) -> str:
    return "".join(
        f"{query.replace(' ', '%20')} Q0 {doc_id} {rank} {-rank} t\n"
        for query, doc_ids in rankings.items()
        for rank, doc_id in enumerate(doc_ids, start=1)
    )


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A good run (relevant document first, in 20 of 24 queries), a worse one, and their judgements."""
    folder = tmp_path_factory.mktemp("evaluate")
    good = {query: ["a", "b", "c"] if number < 20 else ["b", "c", "a"] for number, query in enumerate(QUERIES)}
    worse = {query: ["b", "a"] for query in QUERIES[:-2]} | {"unjudged": ["a"]}
    (folder / "good.trec").write_text(trec(good), encoding="utf-8")
    (folder / "worse.trec").write_text(trec(worse), encoding="utf-8")
    judged = "".join(f"{query}\ta\t1\n{query}\tb\t0\n" for query in QUERIES)
    (folder / "qrels.tsv").write_text(f"query-id\tcorpus-id\tscore\n{judged}barren\ta\t0\n", encoding="utf-8")
    return folder


def test_a_run_is_measured(files: Path) -> None:
    value = answer("evaluate", files / "good.trec", "--qrels", files / "qrels.tsv", "--measures", "RR@10 P@1 RP@5")
    counts = {"judged": 24, "answered": 24, "unanswered": 0, "without_relevant": 1, "unjudged": 0}
    assert value["queries"] == counts
    assert value["baseline"] is value["baseline_queries"] is value["per_query"] is None
    assert value["notes"] == ["1 judged queries have no relevant document: they are left out"]
    assert list(value["measures"]) == ["RR@10", "P@1", "RP@5"]
    rr = value["measures"]["RR@10"]
    assert rr.keys() == {"mean", "interval"}
    assert rr["mean"] == pytest.approx((20 + 4 / 3) / 24)
    assert rr["interval"][0] < rr["mean"] < rr["interval"][1]
    assert value["measures"]["RP@5"] == {"mean": 1.0, "interval": [1.0, 1.0]}


def test_two_runs_are_compared_and_every_query_is_written(files: Path, tmp_path: Path) -> None:
    values = tmp_path / "values.jsonl"
    arguments = ["evaluate", files / "good.trec", "--qrels", files / "qrels.tsv", "--baseline", files / "worse.trec"]
    value = answer(*arguments, "--per-query", values, "--seed", "3")
    assert list(value["measures"]) == ["nDCG@10", "R@100", "RR@10", "AP", "Rprec"]
    assert value["baseline_queries"] == {
        "judged": 24, "answered": 22, "unanswered": 2, "without_relevant": 1, "unjudged": 1
    }  # fmt: skip
    rr = value["measures"]["RR@10"]
    assert rr["baseline"]["mean"] == pytest.approx(22 / 2 / 24)
    assert rr["difference"] == pytest.approx((20 + 4 / 3 - 11) / 24)
    assert rr["difference_interval"][0] < rr["difference"] < rr["difference_interval"][1]
    assert (rr["p_permutation"], rr["p_holm"]) == pytest.approx((1 / 10_000, 5 / 10_000))
    assert 0 < rr["p_t"] < 1e-6
    # Two queries without results are two of recall 0; 2 of 4 sign patterns are as extreme.
    recall = value["measures"]["R@100"]
    assert (recall["difference"], recall["p_permutation"], recall["p_holm"]) == (pytest.approx(2 / 24), 0.5, 0.5)
    written = [json.loads(line) for line in values.read_text("utf-8").splitlines()]
    assert [line["query"] for line in written] == QUERIES
    assert np.mean([line["baseline"]["RR@10"] for line in written]) == pytest.approx(rr["baseline"]["mean"])
    assert answer(*arguments, "--per-query", values, "--seed", "3") == value


def test_people_get_a_table_and_what_it_rests_on(files: Path) -> None:
    arguments = ["--qrels", files / "qrels.tsv", "--baseline", files / "worse.trec", "--measures", "RR@10"]
    done = grapnel("evaluate", files / "good.trec", *arguments)
    assert done.returncode == 0
    assert "24 with a relevant document, 1 without" in done.stdout
    assert "22 answered, 2 unanswered; 1 more that nobody judged" in done.stdout
    row = next(line for line in done.stdout.splitlines() if line.startswith("RR@10"))
    assert row.split()[1] == "0.8889"
    assert "+0.4306" in row
    assert "p (Holm)" in done.stdout
    assert "2 judged queries are not in the baseline: they count 0 in every measure" in done.stderr
    alone = grapnel("evaluate", files / "good.trec", "--qrels", files / "qrels.tsv", "--measures", "RR@10").stdout
    assert "p (Holm)" not in alone
    assert "0.8889" in alone


def test_a_single_query_has_no_interval_and_no_p_value(tmp_path: Path) -> None:
    run, qrels = tmp_path / "run.trec", tmp_path / "qrels.tsv"
    run.write_text(trec({"q": ["b", "a"]}), encoding="utf-8")
    qrels.write_text("q\ta\t1\n", encoding="utf-8")
    arguments = ["evaluate", run, "--qrels", qrels, "--baseline", run, "--measures", "RR"]
    found = answer(*arguments)["measures"]["RR"]
    assert (found["mean"], found["difference"]) == (0.5, 0.0)
    names = ("interval", "difference_interval", "p_t", "p_permutation", "p_holm")
    assert [found[name] for name in names] == [None] * 5
    row = next(line for line in grapnel(*arguments).stdout.splitlines() if line.startswith("RR"))
    assert row.split() == ["RR", "0.5000", "-", "0.5000", "+0.0000", "-", "-", "-", "-"]


@pytest.mark.parametrize(
    ("run", "qrels", "options", "status", "message"),
    [
        ("", None, [], 1, "the run is empty: no query has a result"),
        ("q Q0 a 1 nan t\n", None, [], 1, "line 1: score is NaN"),
        ("q Q0 a 1 high t\n", None, [], 1, "line 1: score 'high' is not a number"),
        ("q Q0 a 1 2 t\nq Q0 b 1 1 t\n", None, [], 1, "line 2: rank 1 of query 'q' is given to 'a' and to 'b'"),
        ("q Q0 a 1 2 t\nq Q0 a 2 1 t\n", None, [], 1, "line 2: document 'a' is ranked twice for query 'q'"),
        ("q Q0 a\n", None, [], 1, "line 1: found 3 columns, expected 6"),
        ("other Q0 a 1 1 t\n", None, [], 1, "do the ids match?"),
        ("q Q0 a 1 1e999 t\n", None, [], 1, "line 1: score '1e999' is more than a float64 holds"),
        (None, "q\ta\t1\n\tb\t1\n", [], 1, "line 2: the query's id is empty"),
        ("q Q0 a%00 1 1 t\n", None, [], 1, "holds a NUL character"),
        (None, "q\ta\tgood\n", [], 1, "line 1: grade 'good' is not an integer"),
        (None, "q\ta\t1.5\n", [], 1, "line 1: grade '1.5' is not an integer"),
        (None, "q\ta\t0\nr\tb\t-1\n", [], 1, "none of the 2 judged queries has a relevant document"),
        (None, "q\ta\t1000000000\n", [], 1, "the grade of document 'a' for query 'q' is 1,000,000,000"),
        (None, "q\ta\t1\nq\ta\t2\n", [], 1, "line 2: 'a' is judged 1 and 2"),
        (None, "", [], 1, "holds no judgements"),
        (None, None, ["--measures", "nDCG@10 Quality"], 2, "measure 'Quality' is unknown"),
        (None, None, ["--measures", "nDCG@0"], 2, "measure 'nDCG@0' is unknown"),
        (None, None, ["--measures", " "], 2, "no measure is given"),
        (None, None, ["--seed", "-1"], 2, "seed is -1"),
        (None, None, ["--seed", "x"], 2, "argument --seed"),
        (None, None, ["--baseline", "nowhere.trec"], 1, "cannot read nowhere.trec"),
        (None, None, ["--per-query", "nowhere/values"], 1, "cannot write nowhere/values"),
    ],
)
def test_bad_input_is_one_line_and_no_number(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    run: str | None,
    qrels: str | None,
    options: list[str],
    status: int,
    message: str,
) -> None:
    run_file, qrels_file = tmp_path / "run.trec", tmp_path / "qrels.tsv"
    run_file.write_text("q Q0 a 1 1 t\nr Q0 b 1 1 t\n" if run is None else run, encoding="utf-8")
    qrels_file.write_text("q\ta\t1\nr\tb\t1\n" if qrels is None else qrels, encoding="utf-8")
    # Without a process each: there are many.
    assert main(["evaluate", str(run_file), "--qrels", str(qrels_file), *options]) == status
    assert message in error_line(*capsys.readouterr())


def as_text(path: Path) -> Path:
    path.write_bytes("\ufeffq Q0 a 1 1 t\r\n\r\nr Q0 b 1 1 t\r\n".encode())
    return path


def zipped(path: Path) -> Path:
    path = path.with_suffix(".trec.gz")
    path.write_bytes(gzip.compress(b"q Q0 a 1 1 t\nr Q0 b 1 1 t\n"))
    return path


@pytest.mark.parametrize("made", [as_text, zipped])
def test_other_line_ends_a_byte_order_mark_and_compression_change_no_number(
    made: Callable[[Path], Path], tmp_path: Path
) -> None:
    qrels = tmp_path / "qrels.tsv"
    qrels.write_bytes("\ufeffquery-id\tcorpus-id\tscore\r\nq\ta\t1\r\nr\ta\t1\r\n".encode())
    value = answer("evaluate", made(tmp_path / "run.trec"), "--qrels", qrels, "--measures", "RR")
    assert (value["queries"]["judged"], value["measures"]["RR"]["mean"]) == (2, 0.5)


def test_files_that_are_no_text_are_one_line(tmp_path: Path) -> None:
    good, qrels = as_text(tmp_path / "run.trec"), tmp_path / "qrels.tsv"
    qrels.write_text("q\ta\t1\nr\tb\t1\n", encoding="utf-8")
    cut = tmp_path / "cut.gz"
    cut.write_bytes(gzip.compress(good.read_bytes())[:-9])
    (tmp_path / "binary").write_bytes(bytes(range(128, 256)))
    (tmp_path / "utf16").write_bytes(good.read_text("utf-8-sig").encode("utf-16"))
    said = {"cut.gz": "damaged or cut off", "binary": "is not UTF-8", "utf16": "UTF-16", ".": "cannot read"}
    for name, message in said.items():
        assert message in refusal(1, "evaluate", tmp_path / name, "--qrels", qrels), name


def test_errors_for_programs_are_json(tmp_path: Path) -> None:
    run, qrels = tmp_path / "run.trec", tmp_path / "qrels.tsv"
    run.write_text("", encoding="utf-8")
    qrels.write_text("q\ta\t1\n", encoding="utf-8")
    done = grapnel("evaluate", run, "--qrels", qrels, "--json")
    assert (done.returncode, done.stdout) == (1, "")
    assert json.loads(done.stderr)["error"]["type"] == "CorpusError"
