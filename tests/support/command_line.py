"""The command line in a process of its own, as its users meet it, and what it must say there."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
COMMAND = (sys.executable, "-m", "api.cli")
"""What `grapnel` runs, installed or not, in ROOT."""

_STAGE = re.compile(r"[\w -]+: [\d,]+( of [\d,]+)? in \d+ s")


def environment(**variables: str) -> dict[str, str]:
    """Return the environment of a command that computes on one thread. variables: what else is in it."""
    return {**os.environ, "OMP_NUM_THREADS": "1", **variables}


def grapnel(
    *arguments: str | Path, given: str = "", timeout_s: float = 60.0, **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end. given: its standard input. variables: what else is in its environment."""
    return subprocess.run(
        [*COMMAND, *map(str, arguments)],
        input=given,
        capture_output=True,
        encoding="utf-8",
        env=environment(**variables),
        cwd=ROOT,
        timeout=timeout_s,
        check=False,
    )


def answer(*arguments: str | Path, **options: Any) -> Any:
    """Return the JSON document of a command that must succeed and say nothing else. options: of `grapnel`.

    The lines of stages do not count: what takes more than a second, as anything may under load, has one.
    """
    done = grapnel(*arguments, "--json", **options)
    assert done.returncode == 0, done.stderr
    assert [line for line in done.stderr.splitlines() if not _STAGE.fullmatch(line)] == []
    return json.loads(done.stdout)


def refusal(status: int, *arguments: str | Path, **options: Any) -> str:
    """Return the one line that a command must say as it ends with `status`. options: of `grapnel`."""
    done = grapnel(*arguments, **options)
    assert done.returncode == status, done.stderr
    return error_line(done.stdout, done.stderr)


def error_line(out: str, err: str) -> str:
    """Return the one line of an error, without its `error: `, which must be all that was said."""
    assert out == "", err
    assert err.startswith("error: "), err
    assert err.count("\n") == 1, err
    return err.removeprefix("error: ")
