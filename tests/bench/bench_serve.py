"""The service under load, beside its parts and its peers: throughput, latency, overload.

    make bench-serve, or python tests/bench/bench_serve.py [--seconds=5] [--rounds=5] [--txtai=PYTHON] [--arms=a,b,c]

Needs the demo collection (`make demo`). Servers, searches in process and the load run in processes of their own on the
same cores; in every round the arms take turns. Queries: 2,000 titles of Python questions (conala), k = 10, hybrid.
Arms, 64 clients each: "ours torch" (torch float32) and "forward" (the same model, one request, one forward pass, a
thread pool); "ours" (the fastest backend), "canned" (the same application with one ranking for every answer) and "in
process" (batches of 64). Then one client beside the call in process, and arrivals at random at half and at four times
the capacity. --txtai: the interpreter of an environment with txtai[api], for its server with the same texts and model,
both dense.
"""

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
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

from report import DATA, ROOT, WORK, machine, save
from speed_rounds import say, table

from retrieval.collection import Collection
from retrieval.encoders import EncoderConfig
from retrieval.encoders.model_files import find_model
from retrieval.types import Query, SearchRequest

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
    return Server(name, command, port, "/health/ready")


def child(name: str, ready: str) -> Server:
    port = free_port()
    command = [sys.executable, "tests/bench/serve_child.py", name, str(root_of(name, "auto")), str(port)]
    return Server(name, command, port, ready)


class InProcess:
    def __init__(self) -> None:
        command = [
            sys.executable,
            "tests/bench/serve_child.py",
            "inprocess",
            str(root_of("in process", "auto")),
            str(bodies("hybrid")),
        ]
        self.process = subprocess.Popen(
            command,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self._read()

    def _read(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith(b"{"):
                return dict(json.loads(line))
        raise SystemExit("searching in process ended early")

    def ask(self, command: str) -> dict[str, Any]:
        assert self.process.stdin is not None
        self.process.stdin.write(command.encode() + b"\n")
        self.process.stdin.flush()
        return self._read()


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


class Bench:
    def __init__(self, seconds: float, rounds: int, txtai: str | None) -> None:
        self.seconds, self.rounds, self.txtai = seconds, rounds, txtai
        self.results: dict[str, Any] = {"seconds": seconds, "rounds": rounds}

    def throughput(self) -> None:
        servers = [ours("ours torch", "torch"), ours("ours", "auto"), child("forward", "/openapi.json")]
        servers.append(child("canned", "/health/ready"))
        inside = InProcess()
        paths = {"forward": "/search"}
        per_s: dict[str, list[float]] = {}
        try:
            for server in servers:  # warm
                load(server, 1.0, paths.get(server.name, PATH), clients=CLIENTS)
            for turn in range(self.rounds):
                say(f"throughput, round {turn + 1}")
                for server in servers[turn % len(servers) :] + servers[: turn % len(servers)]:
                    result = load(server, self.seconds, paths.get(server.name, PATH), clients=CLIENTS)
                    assert set(result["statuses"]) == {"200"}, result
                    per_s.setdefault(server.name, []).append(result["per_s"])
                per_s.setdefault("in process", []).append(inside.ask(f"batch {self.seconds} 64")["per_s"])
            single = [load(servers[1], self.seconds, clients=1)["ms"]["p50"] for _ in range(self.rounds)]
            call = [inside.ask("single 300")["p50"] for _ in range(self.rounds)]
        finally:
            for server in servers:
                server.stop()
            inside.process.kill()
        pairs = zip(per_s["canned"], per_s["in process"], strict=True)
        bound = [1 / (1 / app + 1 / search) for app, search in pairs]
        ratios = {
            "ours torch / forward": _ratio(per_s["ours torch"], per_s["forward"]),
            "ours / bound": _ratio(per_s["ours"], bound),
        }
        self.results["throughput"] = {"per_s": per_s, "ratios": ratios, "bound": bound}
        self.results["one client"] = {"served_ms": single, "in_process_ms": call}
        print(
            table(
                ("64 clients", "searches/s, median [range]"), [(name, median(values)) for name, values in per_s.items()]
            )
        )
        print(f"\nbound 1/(1/F + 1/P): {median(bound)}; " + "; ".join(f"{k}: {median(v)}" for k, v in ratios.items()))
        print(f"\none client: {median(single)} ms served, {median(call)} ms in process (p50)")

    def pressure(self) -> None:
        """Half the capacity, four times the capacity, and what is left afterwards."""
        server = ours("ours", "auto")
        try:
            load(server, 1.0, clients=CLIENTS)
            rows = []
            for turn in range(self.rounds):
                say(f"pressure, round {turn + 1}")
                capacity = load(server, self.seconds, clients=CLIENTS)
                half = load(server, self.seconds, clients=512, rate=capacity["per_s"] / 2)
                over = load(server, self.seconds, clients=2048, rate=4 * capacity["per_s"])
                after = load(server, self.seconds, clients=CLIENTS)
                rows.append({"capacity": capacity, "half": half, "over": over, "after": after})
            self.results["pressure"] = rows
            self.results["memory_bytes"] = server.memory_bytes()
        finally:
            status = server.stop()
            assert status == 0, f"the server ended with status {status}"
        shown = [
            (
                f"{row['capacity']['per_s']:.0f}",
                f"{row['half']['ms']['p50']:.1f}",
                f"{row['half']['ms']['p99']:.1f}",
                f"{row['half']['ms']['p99'] / row['half']['ms']['p50']:.1f}",
                f"{row['over']['per_s']:.0f}",
                f"{row['over']['per_s'] / row['capacity']['per_s']:.2f}",
                json.dumps(row["over"]["statuses"]),
                f"{row['over']['ms']['p99']:.0f}",
                f"{row['after']['per_s']:.0f}",
            )
            for row in rows
        ]
        header = (
            "capacity/s",
            "half p50 ms",
            "p99",
            "p99/p50",
            "4x: goodput/s",
            "of capacity",
            "statuses",
            "p99",
            "after/s",
        )
        print("\n" + table(header, shown))

    def rival(self) -> None:
        """txtai's server with the same texts and model: dense, recall against exact search of the same vectors."""
        if self.txtai is None:
            return
        folder = FOLDER / "txtai"
        folder.mkdir(exist_ok=True)
        with Collection.open(root_of("ours", "auto") / COLLECTION) as collection:
            asked = queries()[:200]
            exact = collection.search_many([SearchRequest(Query("q", query), k=K) for query in asked], mode="dense")
            texts = {
                each.id: f"{each.title} {each.text}" if each.title else each.text for each in collection.documents()
            }
        (folder / "texts.json").write_text(json.dumps(texts))
        port = free_port()
        server = Server(
            "txtai",
            [self.txtai, str(ROOT / "tests/bench/serve_txtai.py"), str(folder), str(port)],
            port,
            f"/search?query=warm&limit={K}",
            PYTHONPATH="",
            TXTAI_MODEL=str(find_model(EncoderConfig()).folder),
        )
        mine = ours("ours", "auto")
        lines = "".join(f"{urllib.parse.urlencode({'query': query, 'limit': K})}\n" for query in queries())
        (folder / "queries.txt").write_text(lines)
        per_s: dict[str, list[float]] = {"ours dense": [], "txtai": []}
        try:
            for turn in range(self.rounds):
                say(f"txtai, round {turn + 1}")
                per_s["ours dense"].append(
                    load(mine, self.seconds, bodies=str(bodies("dense")), clients=CLIENTS)["per_s"]
                )
                task = {"path": "/search", "bodies": str(folder / "queries.txt"), "method": "GET"}
                per_s["txtai"].append(load(server, self.seconds, clients=CLIENTS, **task)["per_s"])
            found = {
                "ours dense": [_ids(mine, {"query": query, "k": K, "mode": "dense"}) for query in asked],
                "txtai": [_txtai_ids(server, query) for query in asked],
            }
        finally:
            mine.stop()
            server.stop()
        truth = [{hit.doc_id for hit in ranking.hits} for ranking in exact]
        recall = {
            name: statistics.mean(len(set(ids) & wanted) / K for ids, wanted in zip(all_ids, truth, strict=True))
            for name, all_ids in found.items()
        }
        self.results["txtai"] = {
            "per_s": per_s,
            "recall@10": recall,
            "ratio": _ratio(per_s["ours dense"], per_s["txtai"]),
        }
        rows = [(name, median(values), f"{recall[name]:.3f}") for name, values in per_s.items()]
        print("\n" + table(("dense, 64 clients", "searches/s", "recall@10"), rows))


def _ratio(ours: list[float], theirs: list[float]) -> list[float]:
    return [mine / other for mine, other in zip(ours, theirs, strict=True)]


def _ids(server: Server, body: dict[str, Any]) -> list[str]:
    request = urllib.request.Request(
        f"http://127.0.0.1:{server.port}{PATH}", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request) as answer:  # noqa: S310  our own address
        return [hit["id"] for hit in json.load(answer)["hits"]]


def _txtai_ids(server: Server, query: str) -> list[str]:
    parameters = urllib.parse.urlencode({"query": query, "limit": K})
    with urllib.request.urlopen(f"http://127.0.0.1:{server.port}/search?{parameters}") as answer:
        return [hit["id"] for hit in json.load(answer)]


def main() -> None:
    options = {part.partition("=")[0]: part.partition("=")[2] for part in sys.argv[1:]}
    if unknown := options.keys() - {"--seconds", "--rounds", "--txtai", "--arms"}:
        raise SystemExit(f"unknown options {sorted(unknown)}")
    if not (ROOT / "demo" / COLLECTION / "collection.toml").exists() or not DATA.is_dir():
        raise SystemExit("needs the demo collection (make demo) and the real data (GRAPNEL_DATA)")
    FOLDER.mkdir(parents=True, exist_ok=True)
    bench = Bench(float(options.get("--seconds", 5)), int(options.get("--rounds", 5)), options.get("--txtai"))
    arms = options.get("--arms", "throughput,pressure,rival").split(",")
    for arm in arms:
        getattr(bench, arm)()
        save("serve", arm, bench.results)
    print(f"\n{machine()}")


if __name__ == "__main__":
    main()
