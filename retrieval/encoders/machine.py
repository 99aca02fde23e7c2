"""What decides how fast a backend is, and whether it runs: the key under which a choice is kept."""

import functools
import hashlib
import os
import platform
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from index.threads import threads
from retrieval.encoders.config import EncoderConfig

_PACKAGES = ("torch", "transformers", "sentence-transformers", "onnxruntime", "openvino")


def machine_facts(config: EncoderConfig) -> dict[str, object]:
    """Return this machine as JSON values, without importing torch: processor, cores, threads, packages, device."""
    return {
        "cpu": cpu_model(),
        "flags": hashlib.blake2b(" ".join(sorted(cpu_flags())).encode(), digest_size=8).hexdigest(),
        "cores": len(os.sched_getaffinity(0)),
        "threads": config.threads or threads() or os.environ.get("OMP_NUM_THREADS", ""),
        "python": platform.python_version(),
        "packages": versions(_PACKAGES),
        "device": config.device or "",
        "gpus": sorted(path.name for path in Path("/dev").glob("nvidia[0-9]*")),
        "visible_gpus": os.environ.get("CUDA_VISIBLE_DEVICES", ""),
    }


def versions(packages: Sequence[str]) -> dict[str, str]:
    """Return the versions of installed packages, "" for those that are not, importing none of them."""
    found = {}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = ""
    return found


def has_bfloat16() -> bool:
    """Whether the CPU computes in bfloat16 by itself; without that it is slower than float32."""
    return bool({"avx512_bf16", "amx_bf16", "bf16"} & cpu_flags())


def cpu_flags() -> frozenset[str]:
    """Return what the CPU can do, as Linux names it; empty elsewhere."""
    return frozenset(_cpu_line("flags", "Features").split())


def cpu_model() -> str:
    """Return the CPU's name, as Linux knows it."""
    return _cpu_line("model name") or platform.machine()


@functools.cache
def _cpu_line(*names: str) -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else []
    pairs = (line.partition(":") for line in lines)
    return next((value.strip() for name, _, value in pairs if name.strip() in names), "")
