"""The README's examples run as printed, and its tree is what is there."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def block(language: str, holds: str) -> str:
    """Return the README's one example in a language that holds a text."""
    (found,) = [each for each in re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL) if holds in each]
    return str(found)


def output(*command: str, folder: Path) -> str:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "NO_PROXY": "*", "no_proxy": "*"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_python_example_runs(tmp_path: Path) -> None:
    shown = output(sys.executable, "-W", "error", "-c", block("python", "Collection.create("), folder=tmp_path)
    assert shown.startswith("grapnel 1.0 "), "the one anchor is the best answer, with the best possible score"


def values(text: str) -> Iterator[Any]:
    """Yield JSON values that follow each other."""
    while text := text.lstrip():
        value, end = json.JSONDecoder().raw_decode(text)
        yield value
        text = text[end:]


@pytest.mark.skipif(shutil.which("curl") is None, reason="the README asks the server with curl")
def test_the_examples_with_a_server_run(start_server: Callable[..., Any], tmp_path: Path) -> None:
    place = urlsplit(start_server().url).netloc

    def here(example: str) -> str:
        return re.sub(r"\b(localhost|127\.0\.0\.1):8080", place, example)

    shown = output("bash", "-euc", here(block("sh", "localhost:8080")), folder=tmp_path)
    created, put, searched, packed = values(shown)
    assert (created["name"], put["id"]) == ("notes", "1")
    assert [hit["id"] for hit in searched["hits"]] == ["1"]
    assert "anchors" in packed["context"]
    shown = output(sys.executable, "-W", "error", "-c", here(block("python", "api.client")), folder=tmp_path)
    assert re.fullmatch(r"2 [\d.e-]+ A kedge is a light anchor\.\n", shown)


def test_the_tree_is_what_is_there() -> None:
    """Every name exists; of index/ and retrieval/, every module and package is named."""
    tree = README.partition("\n## Tree\n")[2].partition("\n## ")[0]
    named: dict[str, set[str]] = {}
    for line in tree.splitlines():
        if top := re.match(r"([a-z]+)/ ", line):
            package = top[1]
            named[package] = set()
        elif line.startswith("  "):
            named[package] |= set(re.findall(r"\b[a-z_]+(?:\.py|/)", line))
    assert [package for package in named if not (ROOT / package).is_dir()] == []
    assert [
        f"{package}/{name}" for package in named for name in named[package] if not (ROOT / package / name).exists()
    ] == []
    for package in ("index", "retrieval"):
        modules = {path.name for path in (ROOT / package).glob("*.py")} - {"__init__.py"}
        packages = {f"{path.parent.name}/" for path in (ROOT / package).glob("*/__init__.py")}
        assert (modules | packages) - named[package] == set(), f"of {package}/, the README's tree leaves them out"
