"""What a measurement was made on and with: processor, cores, memory, versions, the state of the code."""

import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from index.choose import machine_memory_gb

_PACKAGES = ("numpy", "faiss-cpu", "faiss-gpu", "hnswlib", "usearch", "scann", "voyager", "pyvsag", "ngt", "torch")

_FLAGS = ("avx2", "fma", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "asimd", "sve")
"""Instruction sets that change how fast distances are computed."""


def describe_machine() -> dict[str, str]:
    """Return names and values, all text; what cannot be found out is left out. Cost: milliseconds."""
    cpu = _cpu()
    about = {
        "cpu": cpu.get("model name", platform.processor() or platform.machine()),
        "cores": str(len(os.sched_getaffinity(0))),
        "memory_gb": f"{machine_memory_gb():.1f}",
        "flags": " ".join(flag for flag in _FLAGS if flag in cpu.get("flags", cpu.get("Features", "")).split()),
        "system": platform.platform(),
        "python": platform.python_version(),
        "commit": _commit(),
    }
    for package in _PACKAGES:
        try:
            about[package] = version(package)
        except PackageNotFoundError:
            continue
    return {name: value for name, value in about.items() if value}


def _cpu() -> dict[str, str]:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return {}
    pairs = (line.partition(":") for line in lines)
    return {name.strip(): value.strip() for name, colon, value in pairs if colon}


def _commit() -> str:
    """Return the commit this code is of, with "+" where files differ from it; "" outside a repository."""
    folder = Path(__file__).parents[1]
    try:
        found = subprocess.run(
            ["git", "describe", "--always", "--dirty=+", "--abbrev=12", "--exclude=*"],  # noqa: S607  the user's git
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=10,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return found.stdout.strip() if found.returncode == 0 else ""
