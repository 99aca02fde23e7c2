"""Places for tests that write a lot, and real server processes."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest
import tomli_w

from api.keys import make_key

MEMORY = Path("/dev/shm")  # noqa: S108  Linux's shared memory: only a faster place, used where it is there

ROOT = Path(__file__).parents[2]
STARTED_WITHIN_S = 60.0
ENDED_WITHIN_S = 40.0
HASHING = {"kind": "hashing", "dim": 64}
_URL = re.compile(rb"grapnel serves .* on (http://\S+:\d+)")


@pytest.fixture
def memory_path(tmp_path: Path) -> Iterator[Path]:
    """A temporary folder in memory, where hundreds of fsyncs cost nothing; `tmp_path` where there is no such place.

    For faults that do not depend on the disk: a process that is killed loses nothing that was only written.
    """
    if not os.access(MEMORY, os.W_OK):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir=MEMORY, prefix="grapnel-test-") as folder:
        yield Path(folder)


class ServerProcess:
    """`grapnel serve` in a process of its own, with a hashing encoder `default` (64 dimensions) in place of a model.

    tables: more of server.toml. keys: name -> the other members of its [[keys]] table; their secrets are in `secrets`.
    data: where the collections are, in place of a folder of its own. command: what takes the place of `grapnel`.
    environment: more variables.
    It can be stopped and started again on the same data, in another `environment` too; its log is one file.
    """

    def __init__(
        self,
        folder: Path,
        tables: Mapping[str, Any] | None = None,
        keys: Mapping[str, Mapping[str, Any]] | None = None,
        *,
        data: Path | None = None,
        command: Sequence[str | Path] = (sys.executable, "-m", "api.cli"),
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._command = command
        self.environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONFAULTHANDLER": "1", **(environment or {})}
        self.data = data or folder / "data"
        self.data.mkdir(parents=True)
        self.log = folder / "log"
        self.config = folder / "server.toml"
        self.secrets: dict[str, str] = {}
        listed = []
        for name, rights in (keys or {}).items():
            self.secrets[name], digest = make_key()
            listed.append({"name": name, "sha256": digest, **rights})
        rerankers = {"similarity": {"encoder": HASHING}}
        value = {"encoders": {"default": HASHING}, "rerankers": rerankers, **(tables or {}), "keys": listed}
        self.config.write_text(tomli_w.dumps(value), encoding="utf-8")
        self.url = ""
        self.start()

    def start(self) -> None:
        """Start a process and wait until it is ready."""
        begin = self.log.stat().st_size if self.log.exists() else 0
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*self._command, "serve", "--data", self.data, "--config", self.config, "--port", "0"],
                cwd=ROOT,
                stdout=log,
                stderr=log,
                env=self.environment,
            )
        until = time.monotonic() + STARTED_WITHIN_S
        while time.monotonic() < until and self.process.poll() is None:
            found = _URL.search(self.log.read_bytes()[begin:])
            if found is not None and self._is_ready(found[1].decode()):
                self.url = found[1].decode()
                return
            time.sleep(0.02)
        self.process.send_signal(signal.SIGABRT)  # it then says where each of its threads is
        self.process.wait()
        raise AssertionError(f"the server did not start: {self.log_text()[-4000:]}")

    @staticmethod
    def _is_ready(url: str) -> bool:
        try:
            return httpx.get(f"{url}/health/ready").status_code == 200
        except httpx.TransportError:
            return False

    def kill(self) -> None:
        """End the process at once, as a crash does."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        """End the process as an operator does; return its exit status."""
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(ENDED_WITHIN_S)
        except subprocess.TimeoutExpired:
            self.kill()
            raise

    def client(self, key: str | None = None, **options: Any) -> httpx.Client:
        """Return a client that sends a key. options: of httpx.Client."""
        headers = {} if key is None else {"Authorization": f"Bearer {self.secrets[key]}"}
        return httpx.Client(base_url=self.url, headers=headers, timeout=30.0, **options)

    def connect(self) -> socket.socket:
        """Return a connection, for what no well-behaved client sends."""
        url = httpx.URL(self.url)
        return socket.create_connection((url.host, url.port or 80), timeout=20.0)

    def ended(self, client: httpx.Client, started: httpx.Response, *, within_s: float = 60.0) -> dict[str, Any]:
        """Return a job once it has ended. started: the answer to what began it."""
        assert started.status_code == 202, started.text
        until = time.monotonic() + within_s
        while time.monotonic() < until:
            found: dict[str, Any] = client.get(f"/v1/jobs/{started.json()['id']}").raise_for_status().json()
            if found["state"] != "running":
                return found
            time.sleep(0.01)
        raise AssertionError(f"it did not end in {within_s:g} s: {found}")

    def log_text(self) -> str:
        """Return everything the process has said."""
        return self.log.read_text("utf-8", errors="replace")

    def defects(self) -> list[str]:
        """Return the log lines that tell of a defect: whatever nothing was written to catch."""
        return [line for line in self.log_text().splitlines() if "Traceback" in line or "internal error" in line]


@pytest.fixture(scope="module")
def start_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., ServerProcess]]:
    """Start servers; at the end each must end cleanly, and have met no defect.

    Takes what ServerProcess takes after its folder.
    """
    servers: list[ServerProcess] = []

    def start(*arguments: Any, **options: Any) -> ServerProcess:
        servers.append(ServerProcess(tmp_path_factory.mktemp("server"), *arguments, **options))
        return servers[-1]

    yield start
    statuses: Sequence[int] = [server.stop() for server in servers if server.process.poll() is None]
    assert not any(statuses), [server.log_text()[-2000:] for server in servers]
    assert not [line for server in servers for line in server.defects()]


@pytest.fixture(scope="module")
def server(start_server: Callable[..., ServerProcess]) -> ServerProcess:
    """A server without keys and collections; other tests of the module use it, too."""
    return start_server()


@pytest.fixture(scope="session")
def failing_disk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Compile the library that, preloaded, makes writes and fsyncs below a folder fail."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler to build failing_disk.c with")
    library = tmp_path_factory.mktemp("library") / "failing_disk.so"
    source = Path(__file__).with_name("failing_disk.c")
    done = subprocess.run(
        [compiler, "-shared", "-fPIC", "-O1", "-o", library, source, "-ldl"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return library
