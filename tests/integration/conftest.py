"""Places for tests that write a lot, real server processes, and what the tests of the frameworks' adapters share."""

import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import command_line
import httpx
import pytest
import tomli_w

from api.client import Grapnel
from api.frameworks.models import Embedder, LocalEmbedder, ServerEmbedder
from api.frameworks.store import Store, open_folder, open_server
from api.keys import make_key
from retrieval.collection import Collection
from retrieval.collection_config import CollectionConfig
from retrieval.encoders import EncoderConfig

MEMORY = Path("/dev/shm")  # noqa: S108  Linux's shared memory: only a faster place, used where it is there

STARTED_WITHIN_S = 60.0
ENDED_WITHIN_S = 40.0
HASHING = {"kind": "hashing", "dim": 64}
_NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""Knows no certificates: reading those of the world takes a client longer than a dozen requests."""
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


@pytest.fixture(scope="module")
def module_memory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Keep temporary files of a module's tests, and of the servers they start, in memory; a folder there.

    For a module whose tests are not about the disk: `pytestmark = pytest.mark.usefixtures("module_memory")`, which
    comes before the servers that its tests ask for.
    """
    tmp_path_factory.getbasetemp()  # made at first use, and to outlast this module
    place = MEMORY if os.access(MEMORY, os.W_OK) else None
    with (
        tempfile.TemporaryDirectory(dir=place, prefix="grapnel-test-") as folder,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setattr(tempfile, "tempdir", folder)
        patch.setenv("TMPDIR", folder)  # for the server
        yield Path(folder)


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Let SIGINT reach the processes that a test starts.

    A suite that a shell runs in the background inherits the signal as ignored, and would pass that on.
    """
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


class ServerProcess:
    """`grapnel serve` in a process of its own, with a hashing encoder `default` (64 dimensions) in place of a model.

    tables: more of server.toml. keys: name -> the other members of its [[keys]] table; their secrets are in `secrets`.
    data: where the collections are, in place of a folder of its own; may exist, and hold some.
    command: what takes the place of `grapnel`.
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
        command: Sequence[str | Path] = command_line.COMMAND,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._command = command
        self.environment = command_line.environment(PYTHONFAULTHANDLER="1", **(environment or {}))
        self.data = data or folder / "data"
        self.data.mkdir(parents=True, exist_ok=True)
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

    def start(self, port: int = 0) -> None:
        """Start a process and wait until it is ready. port: that of the process before, where its URL is to stay."""
        begin = self.log.stat().st_size if self.log.exists() else 0
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*self._command, "serve", "--data", self.data, "--config", self.config, "--port", str(port)],
                cwd=command_line.ROOT,
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
            return httpx.get(f"{url}/health/ready", verify=_NO_TLS).status_code == 200
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
        return self.wait()

    def wait(self) -> int:
        """Wait for the end of a process that was told to end; return its exit status."""
        try:
            return self.process.wait(ENDED_WITHIN_S)
        except subprocess.TimeoutExpired:
            self.kill()
            raise

    def client(self, key: str | None = None, **options: Any) -> httpx.Client:
        """Return a client that sends a key. options: of httpx.Client."""
        headers = {} if key is None else {"Authorization": f"Bearer {self.secrets[key]}"}
        return httpx.Client(base_url=self.url, headers=headers, timeout=30.0, verify=_NO_TLS, **options)

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
    running = [server for server in servers if server.process.poll() is None]
    for server in running:  # all at once: a second each
        server.process.send_signal(signal.SIGTERM)
    statuses: Sequence[int] = [server.wait() for server in running]
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


# -- the frameworks' adapters -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=["folder", "server"])
def places(
    request: pytest.FixtureRequest, module_memory: Path, hashing_config: Callable[..., CollectionConfig]
) -> Callable[[int | None], dict[str, str]]:
    """Where a store is, as keywords: {"folder"} or {"url", "collection"}; each of a module's tests runs with both.

    dim: of the vectors that clients bring; None = a hashing encoder makes them, and a folder's collection is there.
    """

    @cache
    def place(dim: int | None) -> dict[str, str]:
        name = f"dim-{dim}".lower()
        if request.param == "server":
            return {"url": request.getfixturevalue("server").url, "collection": name}
        if dim is None:
            Collection.create(module_memory / name, hashing_config()).close()
        return {"folder": str(module_memory / name)}

    return place


@pytest.fixture(scope="module")
def stores(places: Callable[[int | None], dict[str, str]]) -> Callable[[int | None], Store]:
    """Open each store once for the module: creating one is the slow part of most tests. dim: as for `places`."""

    @cache
    def store(dim: int | None) -> Store:
        place = places(dim)
        if "url" in place:
            return open_server(place["url"], place["collection"], dim=dim)
        return open_folder(place["folder"], dim)

    return store


@pytest.fixture(params=["here", "server"])
def embedder(request: pytest.FixtureRequest) -> Iterator[Embedder]:
    """The same hashing encoder, in this process and on a server."""
    if request.param == "here":
        yield LocalEmbedder(EncoderConfig(kind="hashing", dim=64))
        return
    with Grapnel(request.getfixturevalue("server").url) as client:
        yield ServerEmbedder(client)
