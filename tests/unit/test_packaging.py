"""pyproject.toml and the Makefile say what the code needs."""

import ast
import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from itertools import chain
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = ("api", "evaluation", "index", "retrieval", "training")
COMPANIONS = {
    "pydantic_core": "pydantic",  # each pydantic names the one release of it that it works with
    "opentelemetry": "opentelemetry-sdk",  # a namespace of many distributions, which the SDK brings
    "mcp_types": "mcp",
}


def imported(path: Path) -> set[str]:
    """Return the top-level names that a file imports, wherever it does."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add((node.module or "").partition(".")[0])
    return names


def normal(distribution: str) -> str:
    return re.sub(r"[-_.]+", "-", distribution).lower()


def test_what_is_imported_is_declared() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    entries = [*project["dependencies"], *chain(*project["optional-dependencies"].values())]
    declared = {normal(match[0]) for entry in entries if (match := re.match(r"[\w.-]+", entry))}
    owners = packages_distributions()
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            for name in imported(path) - {*PACKAGES, *sys.stdlib_module_names}:
                # What is not installed here is an extra that is checked where it is.
                possible = [COMPANIONS[name]] if name in COMPANIONS else owners.get(name, [])
                assert not possible or {normal(each) for each in possible} & declared, f"{path}: {name}"


def test_every_goal_that_help_lists_is_phony() -> None:
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    phony = {word for line in re.findall(r"^\.PHONY: (.*)$", text, re.MULTILINE) for word in line.split()}
    assert set(re.findall(r"^([a-z-]+):.* ##", text, re.MULTILINE)) <= phony, "a file of that name would hide it"
