"""Loading faiss: exactly one distribution, torch first where CUDA is involved, the process's thread setting."""

from importlib.metadata import PackageNotFoundError, version
from typing import Any

from index.errors import ConfigError, MissingDependencyError
from index.threads import threads

_DISTRIBUTIONS = ("faiss-cpu", "faiss-gpu", "faiss-gpu-cuvs", "faiss-gpu-cu12", "faiss-gpu-cu11")
"""All of them install the same package `faiss`; with two, files of both are mixed and calls crash."""


def faiss_distribution() -> str:
    """Return the name of the installed distribution of faiss.

    Raises MissingDependencyError where there is none, ConfigError where there are several.
    """
    found = [name for name in _DISTRIBUTIONS if _installed(name)]
    if not found:
        raise MissingDependencyError("faiss is not installed: install grapnel[cpu], or grapnel[gpu] on a CUDA machine")
    if len(found) > 1:
        raise ConfigError(
            f"{' and '.join(found)} both provide the package faiss: uninstall all of them, then install one again"
        )
    return found[0]


def _installed(name: str) -> bool:
    try:
        version(name)
    except PackageNotFoundError:
        return False
    return True


_loaded: list[Any] = []


def load_faiss() -> Any:
    """Import faiss, limit this thread's calls to GRAPNEL_THREADS, and return the module.

    OpenMP keeps the limit per calling thread, so every search comes here first.
    Raises MissingDependencyError, ConfigError. Cost: 0.1 s once, then a microsecond.
    """
    if not _loaded:
        if faiss_distribution() != "faiss-cpu":
            import torch  # noqa: F401, PLC0415  faiss's CUDA libraries loaded before torch's have crashed processes
        import faiss  # noqa: PLC0415  heavy, and an extra

        _loaded.append(faiss)
    limit = threads()
    if limit is not None:
        _loaded[0].omp_set_num_threads(limit)
    return _loaded[0]
