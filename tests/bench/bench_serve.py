"""The service under load, beside its parts: throughput, latency, overload.

    make bench-serve, or python tests/bench/bench_serve.py [--seconds=5] [--rounds=5] [--arms=throughput,pressure]

Needs the demo collection (`make demo`). Servers, searches in process and the load run in processes of their own on the
same cores; in every round the arms take turns. Queries: 2,000 titles of Python questions (conala), k = 10, hybrid.
Arms, 64 clients each: "ours torch" (torch float32) and "forward" (the same model, one request, one forward pass, a
thread pool); "ours" (the fastest backend), "canned" (the same application with one ranking for every answer) and "in
process" (batches of 64). Then one client beside the call in process, and arrivals at random at half and at four times
the capacity.
"""

import json
import os
import subprocess
import sys
from typing import Any

from report import ROOT, machine, save
from serve_server import CLIENTS, PATH, bodies, check_data, child, load, median, options, ours, ratios, root_of
from speed_rounds import say, table


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


class Bench:
    def __init__(self, seconds: float, rounds: int) -> None:
        self.seconds, self.rounds = seconds, rounds
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
            single, call = [], []
            for _ in range(self.rounds):
                single.append(load(servers[1], self.seconds, clients=1)["ms"]["p50"])
                call.append(inside.ask("single 300")["p50"])
        finally:
            for server in servers:
                server.stop()
            inside.process.kill()
        pairs = zip(per_s["canned"], per_s["in process"], strict=True)
        bound = [1 / (1 / app + 1 / search) for app, search in pairs]
        against = {
            "ours torch / forward": ratios(per_s["ours torch"], per_s["forward"]),
            "ours / bound": ratios(per_s["ours"], bound),
        }
        self.results["throughput"] = {"per_s": per_s, "ratios": against, "bound": bound}
        self.results["one client"] = {"served_ms": single, "in_process_ms": call}
        print(
            table(
                ("64 clients", "searches/s, median [range]"), [(name, median(values)) for name, values in per_s.items()]
            )
        )
        print(f"\nbound 1/(1/F + 1/P): {median(bound)}; " + "; ".join(f"{k}: {median(v)}" for k, v in against.items()))
        added = [served - inside for served, inside in zip(single, call, strict=True)]
        print(f"\none client: {median(single)} ms served, {median(call)} ms in process (p50), {median(added)} ms added")

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


def main() -> None:
    given = options("seconds", "rounds", "arms")
    check_data()
    bench = Bench(float(given.get("seconds", 5)), int(given.get("rounds", 5)))
    for arm in given.get("arms", "throughput,pressure").split(","):
        getattr(bench, arm)()
        save("serve", arm, bench.results)
    print(f"\n{machine()}")


if __name__ == "__main__":
    main()
