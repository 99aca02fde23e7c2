"""Loading faiss: which distribution, beside torch in either order, with how many threads."""

import importlib.metadata
import os
import subprocess
import sys
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError

import pytest

from index import faiss_library
from index.errors import ConfigError, MissingDependencyError
from index.faiss_library import faiss_distribution, load_faiss


def installed(monkeypatch: pytest.MonkeyPatch, names: Iterable[str]) -> None:
    """Make an environment in which these distributions are installed."""

    def version(name: str) -> str:
        if name in names:
            return "1.0"
        raise PackageNotFoundError(name)

    monkeypatch.setattr(faiss_library, "version", version)


def test_the_one_installed_here_is_found() -> None:
    assert importlib.metadata.version(faiss_distribution())
    assert load_faiss() is load_faiss()


@pytest.mark.parametrize("name", ["faiss-cpu", "faiss-gpu", "faiss-gpu-cuvs", "faiss-gpu-cu12", "faiss-gpu-cu11"])
def test_any_one_will_do(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    installed(monkeypatch, [name])
    assert faiss_distribution() == name


def test_none_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    installed(monkeypatch, [])
    monkeypatch.setattr(faiss_library, "_loaded", [])
    for use in (faiss_distribution, load_faiss):
        with pytest.raises(MissingDependencyError, match=r"grapnel\[cpu\].*grapnel\[gpu\]"):
            use()


def test_two_are_named_and_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    installed(monkeypatch, ["faiss-gpu", "faiss-cpu"])
    monkeypatch.setattr(faiss_library, "_loaded", [])
    for use in (faiss_distribution, load_faiss):
        with pytest.raises(ConfigError, match=r"faiss-cpu and faiss-gpu both provide .*uninstall"):
            use()


def run(code: str, **variables: str) -> str:
    environment = {key: value for key, value in os.environ.items() if key not in {"GRAPNEL_THREADS", "OMP_NUM_THREADS"}}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment | variables, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout.strip()


USE_BOTH = """
import numpy
assert (torch.ones(64, 64) @ torch.ones(64, 64))[0, 0].item() == 64
index = faiss.IndexHNSWFlat(16, 8)
index.add(numpy.random.default_rng(0).normal(size=(500, 16)).astype(numpy.float32))
print(index.search(numpy.zeros((1, 16), numpy.float32), 3)[1].shape)
"""


@pytest.mark.parametrize(
    "imports",
    [
        "import torch\nfrom index.faiss_library import load_faiss\nfaiss = load_faiss()",
        "from index.faiss_library import load_faiss\nfaiss = load_faiss()\nimport torch",
    ],
    ids=["torch first", "faiss first"],
)
def test_faiss_and_torch_work_in_one_process(imports: str) -> None:
    assert run(imports + USE_BOTH) == "(1, 3)"


THREADS = """
import threading
from index.faiss_library import load_faiss
counts = [load_faiss().omp_get_max_threads()]
thread = threading.Thread(target=lambda: counts.append(load_faiss().omp_get_max_threads()))
thread.start()
thread.join()
print(*counts)
"""


@pytest.mark.parametrize("wanted", ["1", "3"])
def test_the_thread_setting_holds_in_every_thread(wanted: str) -> None:
    """OpenMP keeps its setting per thread: set in one, it is unknown to the workers of a server."""
    assert run(THREADS, GRAPNEL_THREADS=wanted) == f"{wanted} {wanted}"


SEARCHES = """
import tempfile, threading
from pathlib import Path
import numpy
from index.ann import AnnIndex
from index.ann_build import write_index
from index.faiss_library import load_faiss
from index.spec import IndexSpec
vectors = numpy.random.default_rng(0).normal(size=(1500, 8)).astype(numpy.float32)
with tempfile.TemporaryDirectory() as folder:
    write_index(Path(folder), [vectors], 8, 1500, IndexSpec("hnsw", "ip", recall=0.5))
    index = AnnIndex.open(Path(folder), "ip")
    index.search(vectors[:1], 10)
    import faiss
    def work():
        index.search(vectors[:1], 10)
        print(faiss.omp_get_max_threads())
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
"""


def test_a_search_limits_the_threads_of_whoever_calls_it() -> None:
    """What one search remembers for the next must not spare another thread its setting."""
    assert run(SEARCHES, GRAPNEL_THREADS="1") == "1"


def test_a_bad_thread_setting_is_refused() -> None:
    code = "from index.errors import ConfigError\nfrom index.faiss_library import load_faiss\n"
    code += "try:\n    load_faiss()\nexcept ConfigError as error:\n    print(error)"
    assert "GRAPNEL_THREADS is 'many'" in run(code, GRAPNEL_THREADS="many")


def test_nothing_heavy_is_imported_before_it_is_used() -> None:
    code = "import sys, index.spec, index.choose, index.ann_format, index.threads, index.faiss_library\n"
    code += "print([name for name in ('faiss', 'torch') if name in sys.modules])"
    assert run(code) == "[]"
