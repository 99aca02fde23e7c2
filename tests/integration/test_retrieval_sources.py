"""The readers on real corpora, and on a real pipe."""

import json
import subprocess
import sys
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import pytest

from retrieval.sources import open_source

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(("name", "count"), [("scifact", 5183), ("limit-small", 46), ("tldr-pages", 7424)])
def test_a_beir_folder_reads_as_plain_json_does(dataset: Callable[[str], Path], name: str, count: int) -> None:
    source = open_source(str(dataset(name)))
    with (dataset(name) / "corpus.jsonl").open(encoding="utf-8", newline="\n") as file:
        expected = [json.loads(line) for line in file]
    assert [
        {"_id": document.id, "title": document.title, "text": document.text} for document in source.documents()
    ] == expected
    assert len(expected) == count
    assert source.skipped == []


def test_the_two_blank_documents_of_cranfield_are_reported(dataset: Callable[[str], Path]) -> None:
    source = open_source(str(dataset("cranfield")))
    ids = {document.id for document in source.documents()}
    assert {str(number) for number in range(1, 1401)} - ids == {"471", "995"}
    assert source.skipped == [
        "2 skipped, nothing in it to search (no title, no text): corpus.jsonl line 471, corpus.jsonl line 995"
    ]


def test_a_compressed_corpus_keeps_percent_signs_in_ids(dataset: Callable[[str], Path]) -> None:
    documents = islice(open_source(str(dataset("wikispeedia") / "passages.jsonl.gz")).documents(), 1000)
    first = next(documents)
    assert (first.id, first.title) == ("%C3%81ed%C3%A1n_mac_Gabr%C3%A1in#0", "Áedán mac Gabráin")
    assert sum(1 for _ in documents) == 999


def test_a_csv_table_with_its_own_prefix_and_header(dataset: Callable[[str], Path], tmp_path: Path) -> None:
    """The STS pairs have no id column: refused as they are, read once they have one."""
    lines = (dataset("stsb") / "stsb-en-dev.csv").read_text(encoding="utf-8").splitlines()
    path = tmp_path / "pairs.csv"
    path.write_text(
        "id,text,other,score\n" + "".join(f"{n},{line}\n" for n, line in enumerate(lines)), encoding="utf-8"
    )
    documents = list(open_source(str(path)).documents())
    assert len(documents) == 1500
    assert all(0 <= float(document.metadata["score"]) <= 5 for document in documents)


def test_standard_input_of_a_real_process() -> None:
    script = "from retrieval.sources import open_source\nfor d in open_source('-').documents(): print(d.id, d.text)\n"
    lines = "".join(json.dumps({"id": n, "text": f"t{n}"}) + "\n" for n in range(3))
    done = subprocess.run(
        [sys.executable, "-c", script], input=lines.encode(), capture_output=True, check=True, cwd=ROOT
    )
    assert done.stdout.decode().splitlines() == ["0 t0", "1 t1", "2 t2"]
