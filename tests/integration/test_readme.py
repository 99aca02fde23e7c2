"""The README's example runs as printed, and every path in its tree exists."""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_python_example_runs(tmp_path: Path) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", example], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("grapnel 1.0 "), "the one anchor is the best answer, with the best possible score"


def test_the_tree_names_what_is_there() -> None:
    tree = README.partition("## Tree")[2].partition("## Limits")[0]
    package = Path()
    for line in tree.splitlines():
        if top := re.match(r"([a-z]+)/ ", line):
            package = ROOT / top[1]
            assert package.is_dir(), line
        elif line.startswith("  "):
            for name in re.findall(r"\b[a-z_]+(?:\.py|/)", line.partition("   ")[0] + line):
                assert (package / name).exists(), f"{package.name}/{name}"
