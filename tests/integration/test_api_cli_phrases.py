"""`grapnel grep` and `grapnel ngrams` as their users meet them: real processes over the packaged tokenizer."""

import json
from pathlib import Path

import pytest
from command_line import answer, error_line, grapnel, refusal

from api.cli import EXIT_USAGE, main

CONFIG = """
[fields.lexical]
kind = "lexical"

[fields.phrases]
kind = "substring"
"""
TEXTS = {
    "1": ("Knots", "The quick brown fox makes a fixed loop."),
    "2": ("", "A fixed  loop neither slips nor jams: a FIXED loop holds.\n\nLoops fix much. \x1b[31m"),
    "3": ("fixed loop", "Nothing of this."),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("phrases")
    (root / "collection.toml").write_text(CONFIG, encoding="utf-8")
    (root / "docs.jsonl").write_text(
        "".join(json.dumps({"_id": key, "title": title, "text": text}) + "\n" for key, (title, text) in TEXTS.items())
    )
    answer("build", root / "docs.jsonl", "--out", root / "c", "--config", root / "collection.toml")
    return root / "c"


def test_a_phrase_is_found_with_its_characters(folder: Path) -> None:
    value = answer("grep", folder, "Fixed loop")
    assert {key: value[key] for key in ("phrase", "field", "tokens", "count", "documents", "notes")} == {
        "phrase": "Fixed loop",
        "field": "phrases",
        "tokens": ["fixed", "loop"],
        "count": 4,
        "documents": 3,
        "notes": [],
    }
    found = [(each["doc_id"], each["part"], each["start"], each["end"]) for each in value["matches"]]
    assert found == [("1", "text", 28, 38), ("2", "text", 2, 13), ("2", "text", 40, 50), ("3", "title", 0, 10)]
    for each in value["matches"]:
        title, text = TEXTS[each["doc_id"]]
        whole, snippet = title if each["part"] == "title" else text, each["snippet"]
        assert whole[snippet["start"] :].startswith(snippet["text"])
        assert each["title"] == title


def test_an_n_gram_is_counted_with_what_follows(folder: Path) -> None:
    value = answer("ngrams", folder, "a fixed loop")
    assert (value["count"], value["used"]) == (3, {"tokens": ["a", "fixed", "loop"], "count": 3, "ends": 0})
    shown = [(each["token"], each["count"], each["probability"]) for each in value["continuations"]]
    assert sorted(shown) == [(".", 1, 1 / 3), ("holds", 1, 1 / 3), ("neither", 1, 1 / 3)]
    value = answer("ngrams", folder, "purple fixed loop", "--limit", "1", "--field", "phrases")
    assert (value["count"], value["used"]) == (0, {"tokens": ["fixed", "loop"], "count": 4, "ends": 1})
    assert (value["distinct"], len(value["continuations"])) == (3, 1)
    assert value["notes"][0].startswith("backed_off=1: ")


def test_people_read_them_too(folder: Path) -> None:
    done = grapnel("grep", folder, "fixed loop", "--limit", "2")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("places: 4, documents: 3, tokens: fixed | loop\n")
    assert "2  text 2-13\n" in done.stdout
    assert "2 more: --limit shows them" in done.stdout
    assert "\x1b" not in done.stdout, "documents do not steer the terminal"
    done = grapnel("ngrams", folder, "fixed loop")
    assert done.stdout.startswith("places: 4, tokens: fixed | loop\n")
    assert "(a title or text ends)" in done.stdout
    done = grapnel("grep", folder, "zebra")
    assert (done.returncode, done.stderr) == (0, "")
    assert "note: nothing can match: token 'zebra' of the phrase occurs nowhere" in done.stdout


def test_what_it_holds_is_shown(folder: Path) -> None:
    about = answer("info", folder)["fields"]["phrases"]
    assert (about["kind"], about["mode"], about["tokenizer"]) == ("substring", "fast", "all-MiniLM-L6-v2")
    assert about["tokens"] > 20
    assert about["bytes_per_token"] > 0
    shown = grapnel("info", folder).stdout
    for words in ("mode fast", "bytes_per_token", "tokens ", "tokenizer all-MiniLM-L6-v2"):
        assert words in shown
    assert answer("verify", folder)["clean"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["  "], "has no token"),
        (["\u2603"], "has no token for"),
        (["loop", "--field", "lexical"], "is no substring field; substring fields: phrases"),
        (["loop", "--limit", "-1"], "limit is -1, expected 0 to 100000"),
        (["loop", "--limit", "many"], "--limit"),
        ([], "required"),
    ],
)
@pytest.mark.parametrize("command", ["grep", "ngrams"])
def test_a_question_that_cannot_be_answered_is_one_line(
    folder: Path, command: str, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([command, str(folder), *arguments]) == EXIT_USAGE
    assert message in error_line(*capsys.readouterr())


def test_new_documents_are_said_not_to_be_covered_until_compaction(folder: Path, tmp_path: Path) -> None:
    answer("export", folder, tmp_path / "file")
    answer("import", tmp_path / "file", "--out", tmp_path / "copy")
    assert answer("grep", tmp_path / "copy", "fixed loop")["count"] == 4
    new = json.dumps({"_id": "4", "text": "One more fixed loop."}) + "\n"
    answer("add", tmp_path / "copy", "-", given=new)
    answer("delete", tmp_path / "copy", "3")
    value = answer("grep", tmp_path / "copy", "fixed loop")
    assert (value["count"], value["notes"]) == (
        3,
        ["fresh_not_covered=1: field 'phrases' sees new text after compaction"],
    )
    assert "phrases" in answer("compact", tmp_path / "copy")["built"]
    value = answer("grep", tmp_path / "copy", "fixed loop")
    assert ([each["doc_id"] for each in value["matches"]], value["notes"]) == (["1", "2", "2", "4"], [])


def test_a_collection_without_such_a_field_says_how_to_get_one(folder: Path, tmp_path: Path) -> None:
    config = tmp_path / "words.toml"
    config.write_text('[fields.lexical]\nkind = "lexical"\n')
    answer("build", folder.parent / "docs.jsonl", "--out", tmp_path / "words", "--config", config)
    assert "add [fields.NAME] with kind" in refusal(2, "grep", tmp_path / "words", "fixed loop")
    assert "nowhere" in refusal(1, "grep", tmp_path / "nowhere", "fixed loop")
