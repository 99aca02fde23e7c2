"""The five generic package names belong to grapnel alone in this environment (ADR 0001)."""

import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

ROOT = Path(__file__).parents[2]
NAMES = ("api", "evaluation", "index", "retrieval", "training")


def test_no_other_distribution_owns_one_of_our_names() -> None:
    owners = packages_distributions()
    for name in NAMES:
        assert set(owners.get(name, ["grapnel"])) == {"grapnel"}, f"{name} is also provided by {owners[name]}"


def test_every_package_folder_is_listed_for_installation() -> None:
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    found = {
        ".".join(path.parent.relative_to(ROOT).parts) for name in NAMES for path in (ROOT / name).rglob("__init__.py")
    }
    assert sorted(listed) == sorted(found)
