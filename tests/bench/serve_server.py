"""What the service's benchmarks share: servers in processes of their own, the load on them, the questions asked."""

import atexit
import json
import os
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

from report import DATA, ROOT, WORK

COLLECTION = "python-docs"
CLIENTS = 64
K = 10
PATH = f"/v1/collections/{COLLECTION}/search"
FOLDER = WORK / "serve"
START_S = 900
"""A rival indexes its texts when it starts for the first time."""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Server:
    """A server process, ready when its address answers anything."""

    def __init__(self, name: str, command: list[str], port: int, ready: str, **environment: str) -> None:
        self.name, self.port = name, port
        paths = os.pathsep.join([str(ROOT), str(ROOT / "tests/bench")])
        self._log = (FOLDER / f"{name.replace(' ', '-')}.log").open("wb")
        self.process = subprocess.Popen(
            command,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": paths, "TOKENIZERS_PARALLELISM": "false", **environment},
            stdout=self._log,
            stderr=self._log,
        )
        atexit.register(self.process.kill)
        end = time.monotonic() + START_S
        while True:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}{ready}", timeout=5) as answer:
                    if answer.status == 200:
                        return
            except OSError:
                if time.monotonic() > end or self.process.poll() is not None:
                    raise SystemExit(f"{name} did not start: see {self._log.name}") from None
                time.sleep(0.2)

    def memory_bytes(self) -> int:
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS"):
                return 1024 * int(line.split()[1])
        return 0

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)


def root_of(name: str, backend: str) -> Path:
    """A copy of the demo collection whose encoder has this backend; each server holds a root of its own."""
    root = FOLDER / name.replace(" ", "-")
    if not root.exists():
        shutil.copytree(ROOT / "demo" / COLLECTION, root / COLLECTION)
        path = root / COLLECTION / "collection.toml"
        text = re.sub(r"^backend = .*\n", "", path.read_text(), flags=re.MULTILINE)
        path.write_text(text.replace("[fields.dense.encoder]\n", f'[fields.dense.encoder]\nbackend = "{backend}"\n'))
    return root


def ours(name: str, backend: str) -> Server:
    port = free_port()
    root = root_of(name, backend)
    command = [sys.executable, "-m", "api.cli", "serve", "--data", str(root), "--port", str(port)]
    command += ["--set", f"encoders.default.backend={backend}"]
    return Server(name, command, port, "/health/ready")


def child(name: str, ready: str) -> Server:
    port = free_port()
    command = [sys.executable, "tests/bench/serve_child.py", name, str(root_of(name, "auto")), str(port)]
    return Server(name, command, port, ready)


def queries() -> list[str]:
    lines = (DATA / "conala" / "queries.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line)["text"] for line in lines][:2_000]


def bodies(mode: str) -> Path:
    """A file of request bodies, one a line."""
    path = FOLDER / f"{mode}.jsonl"
    path.write_text("".join(json.dumps({"query": query, "k": K, "mode": mode}) + "\n" for query in queries()))
    return path


def load(server: Server, seconds: float, path: str = PATH, **task: Any) -> dict[str, Any]:
    task = {"port": server.port, "path": path, "bodies": str(bodies("hybrid")), "seconds": seconds, **task}
    done = subprocess.run(
        [sys.executable, "tests/bench/serve_load.py", json.dumps(task)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        check=True,
        text=True,
    )
    return dict(json.loads(done.stdout.splitlines()[-1]))


def median(values: list[float]) -> str:
    return f"{statistics.median(values):.1f} [{min(values):.1f}, {max(values):.1f}]"


def ratios(ours: list[float], theirs: list[float]) -> list[float]:
    return [mine / other for mine, other in zip(ours, theirs, strict=True)]


def check_data() -> None:
    """End unless there is what the service's benchmarks need; make their folder."""
    if not (ROOT / "demo" / COLLECTION / "collection.toml").exists() or not DATA.is_dir():
        raise SystemExit("needs the demo collection (make demo) and the real data (GRAPNEL_DATA)")
    FOLDER.mkdir(parents=True, exist_ok=True)


def options(*known: str) -> dict[str, str]:
    """What stands on the command line as --name=value."""
    given = {part.partition("=")[0].lstrip("-"): part.partition("=")[2] for part in sys.argv[1:]}
    if unknown := given.keys() - set(known):
        raise SystemExit(f"unknown options {sorted(unknown)}, expected some of {known}")
    return given
