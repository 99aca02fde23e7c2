"""`make demo`: a real collection from this machine's Python documentation, and five questions to it.

`python -m api.demo build`, of `make serve`, makes the collection alone.
"""

import sys
from pathlib import Path

from api.cli import main

FOLDER = Path("demo/python-docs")

QUESTIONS = (
    "how do I read a file line by line without loading all of it?",
    "run a shell command and capture its output",
    "make a dictionary that creates missing values by itself",
    "parse a date written as text",
    "wait for several threads to finish",
)


def build() -> int:
    """Build the demo collection unless it is there, going on with a build that was interrupted; return exit status."""
    if (FOLDER / "shards/0000/CURRENT").exists():
        return 0
    resume = ["--resume"] if (FOLDER / "collection.toml").exists() else []
    return main(["build", "python-docs", "--out", str(FOLDER), *resume])


def demo() -> int:
    """Build the demo collection, ask the questions, say what to type next; return exit status."""
    status = build()
    if status:
        return status
    status = main(["search", str(FOLDER), *QUESTIONS, "-k", "3"])
    print(  # noqa: T201  the demo is a command
        "\nNow ask your own:\n"
        f'  .venv/bin/grapnel search {FOLDER} "how do I sort a list of objects by an attribute?" --explain\n'
        f'  .venv/bin/grapnel search {FOLDER} "open a socket" --filter '
        '\'{"type": "eq", "key": "kind", "value": "function"}\'\n'
        f"  .venv/bin/grapnel info {FOLDER}\n"
        "or build a collection from your own files:\n"
        "  .venv/bin/grapnel build ~/notes --out notes"
    )
    return status


if __name__ == "__main__":
    sys.exit(build() if sys.argv[1:] == ["build"] else demo())
