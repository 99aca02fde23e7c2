"""What every benchmark shares: where results go, what machine they ran on, medians with their spread."""

import json
import os
import platform
import subprocess
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parents[2]
DATA = Path(os.environ.get("GRAPNEL_DATA", ROOT.parent / "shared" / "data"))
WORK = ROOT / ".bench"


def machine() -> dict[str, str]:
    model = next(
        (line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line),
        platform.processor(),
    )
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
    ).stdout.strip()
    packages = {name: version(name) for name in ("numpy", "torch", "sentence-transformers", "tantivy")}
    return {
        "cpu": model,
        "cores": str(os.cpu_count()),
        "python": platform.python_version(),
        "commit": commit,
        **packages,
    }


def save(name: str, section: str, value: dict[str, Any]) -> None:
    """Merge one section into docs/results/<name>.json."""
    path = ROOT / "docs" / "results" / f"{name}.json"
    content = json.loads(path.read_text()) if path.exists() else {}
    content[section] = {"machine": machine(), "measured": time.strftime("%Y-%m-%d"), **value}
    path.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n")


def times_ms(call: Callable[[int], object], count: int, warm: int = 5) -> dict[str, float]:
    """Call `call(0..count-1)` one at a time; return p50, p25, p75 and p95 in milliseconds."""
    for number in range(warm):
        call(number)
    spent = []
    for number in range(count):
        start = time.perf_counter()
        call(number)
        spent.append(1000 * (time.perf_counter() - start))
    low, middle, high, tail = np.percentile(spent, [25, 50, 75, 95])
    return {"p25": float(low), "p50": float(middle), "p75": float(high), "p95": float(tail), "runs": count}
