"""Every index kind on a million vectors: build, bytes, recall and times, beside plain faiss, hnswlib and usearch.

    python tests/bench/bench_ann.py [count] [kind ...] [--rebuild] [--round-s=1.0] [--report]

    default: 1,000,000 vectors, every kind; hours on two cores, the graphs' builds most of it
    --rebuild   build again what .bench/speed-COUNT already holds (a kept build keeps its own figures and commit)
    --report    measure nothing, print the tables of what .bench/speed-COUNT holds

Builds and searches run in processes of their own. Searches: one query at a time on one thread (k = 10), then 1,000
queries a call on two threads; five rounds with the rivals taking turns. "wrapper" is our call against faiss's own on
the same open files, "faiss" against faiss with the same index and exact vectors in its own memory.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from report import ROOT, machine, save
from speed_rounds import ROUNDS, say, table, versions
from speed_vectors import SAVED_FROM, SEED, folder_of, make

KINDS = ("flat", "sq8", "binary", "ivf-flat", "ivf-sq8", "ivf-pq", "ivf-rabitq", "hnsw", "hnsw-sq8", "auto")
GRAPHS = ("hnsw", "hnsw-sq8")
PEERS = ("hnswlib", "usearch")
TARGETS = (0.90, 0.95, 0.99)
RECALL = 0.95
LEAST = 0.85
"""Recall@10 below which an effort is not timed: nobody would use it."""

EFS = (16, 32, 64, 96, 128, 192, 256)
NPROBES = (4, 8, 16, 32, 64)
REFINES = {
    "hnsw-sq8": (20,),
    "ivf-sq8": (20,),
    "ivf-pq": (40, 80, 160, 320),
    "ivf-rabitq": (40, 80, 160, 320),
    "sq8": (20,),
    "binary": (80, 160, 320, 640, 1280, 2560),
}


def efforts_of(kind: str, default: dict[str, int]) -> list[dict[str, int]]:
    """The default effort first, then the sweep."""
    refines: Iterable[int | None] = REFINES.get(kind, (None,))
    if kind in (*GRAPHS, *PEERS):
        mains = [{"ef": value} for value in EFS]
    elif kind.startswith("ivf"):
        mains = [{"nprobe": value} for value in NPROBES]
    else:
        mains = [{}]
    swept = [main | ({"refine": refine} if refine else {}) for refine in refines for main in mains]
    return [default, *(effort for effort in swept if effort != default)]


def child(task: dict[str, Any], threads: int, program: str = "ann_child.py") -> dict[str, Any]:
    """Run one task with so many threads everywhere; its last line of output is the result."""
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "GRAPNEL_THREADS")
    paths = [str(ROOT), str(ROOT / "tests/bench")]
    environment = {**os.environ, **dict.fromkeys(names, str(threads)), "PYTHONPATH": os.pathsep.join(paths)}
    command = [sys.executable, f"tests/bench/{program}", json.dumps(task)]
    done = subprocess.run(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return dict(json.loads(done.stdout.splitlines()[-1]))


class Bench:
    """What has been measured, kept in .bench/speed-COUNT/ann.json after every step so that a run can go on."""

    def __init__(self, count: int, *, rebuild: bool, round_s: float) -> None:
        self.count, self.rebuild, self.round_s = count, rebuild, round_s
        self.folder = folder_of(count)
        self.path = self.folder / "ann.json"
        self.results: dict[str, Any] = json.loads(self.path.read_text()) if self.path.exists() else {}

    def keep(self, name: str, section: str, value: dict[str, Any]) -> None:
        stamp = {"commit": machine()["commit"], "measured": time.strftime("%Y-%m-%d %H:%M")}
        self.results.setdefault(name, {})[section] = value | stamp
        self.path.write_text(json.dumps(self.results, indent=1))

    def build(self, name: str, task: dict[str, Any], section: str = "build") -> dict[str, Any]:
        there = self.results.get(name, {}).get(section)
        place = Path(task.get("target", task["folder"]))
        if self.rebuild or there is None or not (place.exists() or section != "build"):
            say(f"{section} {name}")
            self.keep(name, section, child({"task": "build", "base": str(self.folder / "base.npy"), **task}, 2))
        return dict(self.results[name][section])

    def kind(self, name: str) -> None:
        folder = str(self.folder / "ann" / name)
        built = self.build(name, {"who": "ours", "kind": name, "folder": folder, "recall": RECALL})
        about = built.get("about", {})
        really = about.get("kind", "flat")
        if name not in {"auto", really}:
            say(f"{name} became {really}: {about.get('reason')}")
        if name != "auto":
            target = self.folder / f"plain-{name}.faiss"
            task = {"who": "faiss", "kind": really, "target": str(target), "params": about.get("params", {})}
            self.build(name, {"folder": folder, **task}, "faiss_build")
            target.unlink(missing_ok=True)  # its search is that of our file, opened the plain way
        default = about.get("default", {}).get("10", {})
        efforts = [default] if name == "auto" else efforts_of(really, default)
        deep = about.get("default", {}).get("100")
        self.search(name, {"who": "ours", "kind": really, "folder": folder, "deep": deep}, efforts)

    def peer(self, name: str) -> None:
        graph = next((self.results[kind]["build"] for kind in ("hnsw", "auto") if kind in self.results), None)
        params = (graph or {}).get("about", {}).get("params") or {"links": 32, "ef_construction": 128}
        target = str(self.folder / f"{name}.index")
        task = {"who": name, "folder": target, "target": target, "params": params, "dim": self.dim}
        self.build(name, task)
        self.search(name, task, efforts_of(name, {"ef": 64}))

    @property
    def dim(self) -> int:
        import numpy as np  # noqa: PLC0415  the parent's memory and threads are not measured, its start is

        return int(np.load(self.folder / "base.npy", mmap_mode="r").shape[1])

    def search(self, name: str, task: dict[str, Any], efforts: list[dict[str, int]]) -> None:
        say(f"search {name}")
        common = {"task": "sweep", "truth": str(self.folder), "round_s": self.round_s, "least": LEAST, **task}
        one = child({**common, "threads": 1, "efforts": efforts}, 1)
        self.keep(name, "search", one)
        useful = pareto(one["rows"])
        if useful:
            two = child({**common, "threads": 2, "efforts": [row["effort"] for row in useful]}, 2)
            self.keep(name, "batch", two)

    def duel(self) -> None:
        """auto beside the fastest configuration of each system that reaches the target."""
        entries = []
        for name in (*KINDS, *PEERS):
            if name not in self.results or "search" not in self.results[name]:
                continue
            rows = self.results[name]["search"]["rows"]
            row = rows[0] if name == "auto" else fastest(rows, RECALL)
            if row is None or "ms" not in row:
                continue
            place = str(self.folder / f"{name}.index") if name in PEERS else str(self.folder / "ann" / name)
            who = name if name in PEERS else "ours"
            entry = {"name": name, "who": who, "folder": place, "target": place, "dim": self.dim}
            entries.append((p50(row), {**entry, "effort": row["effort"]}))
        # The three fastest of ours and all peers: enough to see whether auto chose well.
        ours = sorted((pair for pair in entries if pair[1]["name"] not in (*PEERS, "auto")), key=lambda pair: pair[0])
        chosen = [pair[1] for pair in ours[:3]] + [e for _, e in entries if e["name"] in (*PEERS, "auto")]
        if any(entry["name"] == "auto" for entry in chosen):
            say("duel")
            task = {"task": "duel", "truth": str(self.folder), "round_s": self.round_s, "entries": chosen}
            self.keep("duel", "single", child(task, 1) | {"entries": chosen})


def first_of(row: dict[str, Any]) -> str:
    return next(iter(row["recall"])).partition("@")[0]


def recall_of(row: dict[str, Any], k: int = 10) -> float:
    return float(row["recall"][f"{first_of(row)}@{k}"]["recall"])


def p50(row: dict[str, Any]) -> float:
    return float(row["ms"][first_of(row)]["p50"])


def pareto(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The default effort, and every timed effort that no other beats in both recall and time."""
    timed = [row for row in rows if "ms" in row]
    better = [
        row for row in timed if not any(p50(other) < p50(row) and recall_of(other) >= recall_of(row) for other in timed)
    ]
    return [row for row in timed if row in better or row is rows[0]]


def fastest(rows: list[dict[str, Any]], target: float) -> dict[str, Any] | None:
    reaching = [row for row in rows if "ms" in row and recall_of(row) >= target]
    return min(reaching, key=p50, default=None)


def text(effort: dict[str, int]) -> str:
    return ", ".join(f"{name} {value}" for name, value in sorted(effort.items())) or "-"


def against(row: dict[str, Any], rival: str) -> str:
    """How much longer ours takes than the rival, as a ratio and per call."""
    if rival not in row["ratio"]:
        return ""
    times = row["ms"]
    return f"{row['ratio'][rival]:.3f} ({1000 * (times['ours']['p50'] - times[rival]['p50']):+.0f} µs)"


def gib(size_bytes: float) -> str:
    return f"{size_bytes / 2**30:.2f}"


def build_table(results: dict[str, Any]) -> str:
    rows = []
    for name, value in results.items():
        if "build" not in value:
            continue
        built, plain = value["build"], value.get("faiss_build", {})
        allowed = 1.5 * built["bytes"] + 1e9
        rows.append(
            (
                name,
                f"{built['seconds']:.0f}",
                f"{plain['seconds']:.0f}" if plain else "",
                gib(built["peak_rss_bytes"]),
                gib(built["peak_anonymous_bytes"]),
                gib(allowed),
                "yes" if built["peak_rss_bytes"] <= allowed else "no",
                gib(built["bytes"]),
                gib(built["bytes"] - built["files"].get("vectors.npy", 0)),
                gib(value["search"]["open_rss_bytes"]) if "search" in value else "",
                gib(value["search"]["searched_rss_bytes"]) if "search" in value else "",
            )
        )
    header = ("kind", "build s", "faiss s", "peak GiB", "of it anonymous", "allowed GiB", "kept", "files GiB")
    return table((*header, "without vectors", "opened GiB", "after 100 queries"), rows)


def search_table(results: dict[str, Any]) -> str:
    rows = []
    for name, value in results.items():
        batches = {text(row["effort"]): row for row in value.get("batch", {}).get("rows", [])}
        every = value.get("search", {}).get("rows", [])
        for row in pareto(every):
            batch, times = batches.get(text(row["effort"])), row["ms"][first_of(row)]
            ratios = [against(row, "bare"), against(row, "plain")]
            ratios += [against(batch, "bare"), against(batch, "plain")] if batch else ["", ""]
            rows.append(
                (
                    name,
                    text(row["effort"]) + (" (default)" if row is every[0] and name not in PEERS else ""),
                    f"{recall_of(row):.3f}",
                    f"{recall_of(row, 100):.3f}",
                    f"{times['p50']:.3f} [{times['p25']:.3f}, {times['p75']:.3f}]",
                    f"{times['p99']:.2f}",
                    f"{batch['per_s'][first_of(row)]:.0f}" if batch else "",
                    *ratios,
                )
            )
    header = ("kind", "effort", "recall@10", "@100", "p50 ms [quartiles]", "p99 ms", "queries/s, 2 threads")
    return table((*header, "wrapper", "faiss", "wrapper, batch", "faiss, batch"), rows)


def best_table(results: dict[str, Any]) -> str:
    rows = []
    for name, value in results.items():
        every = value.get("search", {}).get("rows", [])
        if not every or name == "auto":  # of which only the default effort is measured
            continue
        cells = []
        for target in TARGETS:
            row = fastest(every, target)
            cells.append(f"{p50(row):.3f} ({text(row['effort'])}: {recall_of(row):.3f})" if row else "not reached")
        rows.append((name, *cells))
    return table(("kind", *(f"p50 ms at recall@10 >= {target}" for target in TARGETS)), rows)


def auto_table(results: dict[str, Any]) -> str:
    value = results.get("auto", {})
    if "search" not in value or "single" not in results.get("duel", {}):
        return "auto was not measured"
    about, duel = value["build"].get("about", {}), results["duel"]["single"]
    auto = duel["ms"]["auto"]["p50"]
    rows = [
        (
            entry["name"],
            text(entry["effort"]),
            f"{next(iter(duel['recall'][entry['name']].values()))['recall']:.3f}",
            f"{(times := duel['ms'][entry['name']])['p50']:.3f} [{times['p25']:.3f}, {times['p75']:.3f}]",
            f"{times['p99']:.2f}",
            f"{auto / times['p50']:.3f}",
        )
        for entry in sorted(duel["entries"], key=lambda entry: duel["ms"][entry["name"]]["p50"])
    ]
    promised = next((each["recall"] for each in about.get("calibrated", ())), {})
    effort = text(about.get("default", {}).get("10", {}))
    chose = f"auto chose {about.get('kind', 'flat')} ({about.get('reason')}), effort {effort}"
    held = f"; on its held-out vectors {promised.get('measured', 1):.3f}, at least {promised.get('low', 1):.3f}"
    return f"{chose}{held}.\n\n" + table(
        ("interleaved", "effort", "recall@10", "p50 ms [quartiles]", "p99 ms", "auto's time / this"), rows
    )


def show(results: dict[str, Any], count: int) -> str:
    measured = {name: value for name, value in results.items() if name != "duel"}
    about = (
        f"{count} vectors, seed {SEED}, {ROUNDS} interleaved rounds, medians of rounds; times of one thread, one query"
        f" at a time, k = 10. {machine() | versions()}"
    )
    heads = ("Builds, two threads", "Searches", f"Fastest by target of {TARGETS}", "What auto chose")
    bodies = (build_table(measured), search_table(measured), best_table(measured), auto_table(results))
    return "\n\n".join([about, *(f"**{head}**\n\n{body}" for head, body in zip(heads, bodies, strict=True))])


def main() -> None:
    options = {part.partition("=")[0]: part.partition("=")[2] for part in sys.argv[1:] if part.startswith("--")}
    given = [part for part in sys.argv[1:] if not part.startswith("--")]
    count = int(given.pop(0).replace("_", "")) if given and given[0].replace("_", "").isdigit() else 1_000_000
    if unknown := set(given) - {*KINDS, *PEERS, "duel"}:
        raise SystemExit(f"unknown kinds {unknown}; allowed: {(*KINDS, *PEERS, 'duel')}")
    names = given or [*KINDS, *PEERS, "duel"]
    if "--report" not in options:
        make(count)
        bench = Bench(count, rebuild="--rebuild" in options, round_s=float(options.get("--round-s", 1.0)))
        for name in names:
            if name == "duel":
                bench.duel()
            else:
                (bench.peer if name in PEERS else bench.kind)(name)
    results = json.loads((folder_of(count) / "ann.json").read_text())
    if count >= SAVED_FROM and "--report" not in options:
        save("speed", f"ann-{count}", {"seed": SEED, "rounds": ROUNDS, "versions": versions(), "results": results})
    print(show(results, count))


if __name__ == "__main__":
    main()
