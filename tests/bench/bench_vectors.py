"""Ten million vectors on a small machine: stored as a build stores them, indexed from there, searched; memory.

    python tests/bench/bench_vectors.py [--count=10000000] [--dim=96] [--memory-gb=2] [--storage=int8]

Vectors: the real wikispeedia ones, turned to their first `dim` principal axes and normalised, mixed as in
speed_vectors.py with the weights and noise chosen there for a million; 1,000 real ones held out as queries. Keys come
in pieces of 10,000, as a build writes them. Index: kind "auto" within the memory budget, recall target .95.
Memory is this process's anonymous memory, which pages of mapped files do not count for, sampled 20 times a second.
"""

import json
import shutil
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import numpy as np
from ann_child import watching
from ann_rivals import open_ours
from report import WORK, machine, save, times_ms
from speed_rounds import memory, say, table, versions
from speed_vectors import Floats, Mix, Parents, mates_of, nearest, real_vectors

from index.ann_build import write_index
from index.spec import IndexSpec
from retrieval.vector_store import VectorStore

PIECE = 10_000
QUERIES = 1_000
JUDGED = 200
RANDOM_KEYS = 10_000
SAVED_FROM = 1_000_000


def material(dim: int) -> tuple[Parents, Mix, Floats]:
    _, vectors = real_vectors()
    centred = vectors - vectors.mean(axis=0)
    _, axes = np.linalg.eigh(centred.T @ centred)
    turned = vectors @ axes[:, ::-1][:, :dim]
    turned /= np.linalg.norm(turned, axis=1, keepdims=True)
    chosen = json.loads((WORK / "speed-1000000" / "vectors.json").read_text())["mix"]
    rest = np.ascontiguousarray(turned[QUERIES:])
    return Parents(rest, mates_of(rest)), Mix(**chosen), np.ascontiguousarray(turned[:QUERIES])


def keys_of(count: int) -> np.ndarray:
    """Keys as hashes are: random 128 bits, here of a seed."""
    return np.random.default_rng(0).integers(0, 2**63, (count, 2), dtype=np.uint64)


def pieces(blocks: Iterator[Floats]) -> Iterator[Floats]:
    left: list[Floats] = []
    for block in blocks:
        left.append(block)
        while sum(map(len, left)) >= PIECE:
            whole = np.concatenate(left)
            yield whole[:PIECE]
            left = [whole[PIECE:]]
    whole = np.concatenate(left)
    if len(whole):
        yield whole


class Bench:
    def __init__(self, count: int, dim: int, spec: IndexSpec) -> None:
        self.count, self.dim, self.spec = count, dim, spec
        self.folder = WORK / "vectors"
        shutil.rmtree(self.folder, ignore_errors=True)
        (self.folder / "index").mkdir(parents=True)
        say("mates of the real vectors")
        self.parents, self.mix, self.queries = material(dim)
        self.keys = keys_of(count)
        self.store = VectorStore(self.folder / "store", dim)

    def stored(self) -> list[dict[str, Any]]:
        """Append piece by piece; a row for every power of ten and the end."""
        rows, done, start = [], 0, time.perf_counter()
        with watching() as seen:
            for piece in pieces(self.parents.blocks(self.mix, self.count)):
                self.store.append(self.keys[done : done + len(piece)], piece)
                done += len(piece)
                if str(done).strip("0") == "1" or done == self.count:
                    row = {"rows": done, "seconds": time.perf_counter() - start, **seen}
                    rows.append(row | {"files": len(list((self.folder / "store").glob("*.vectors.npy")))})
                    say(f"stored: {rows[-1]}")
        return rows

    def random_get_us(self) -> float:
        some = self.keys[np.random.default_rng(1).permutation(self.count)[:RANDOM_KEYS]]
        start = time.perf_counter()
        there, _ = self.store.get(some)
        assert there.all()
        return 1e6 * (time.perf_counter() - start) / RANDOM_KEYS

    def built(self) -> dict[str, Any]:
        blocks = (self.store.get(self.keys[begin : begin + PIECE])[1] for begin in range(0, self.count, PIECE))
        start = time.perf_counter()
        with watching() as seen:
            about = write_index(self.folder / "index", blocks, self.dim, self.count, self.spec)
        files = {path.name: path.stat().st_size for path in sorted((self.folder / "index").iterdir())}
        return {"seconds": time.perf_counter() - start, **seen, "files": files, "about": asdict(about)}

    def searched(self) -> dict[str, Any]:
        say(f"the exact neighbours of {JUDGED} queries")
        _, truth = nearest(self.queries[:JUDGED], self.parents.blocks(self.mix, self.count), 10)
        before, index = memory(), open_ours(self.folder / "index")
        found = index.search(self.queries[:JUDGED], 10).rows
        shared = [len(set(mine) & set(best)) for mine, best in zip(found.tolist(), truth.tolist(), strict=True)]
        spent = times_ms(lambda number: index.search(self.queries[number : number + 1], 10), QUERIES)
        return {"recall@10": float(np.mean(shared)) / 10, "ms": spent, "before": before, "after": memory()}


def main() -> None:
    options = {part.partition("=")[0]: part.partition("=")[2] for part in sys.argv[1:]}
    if unknown := options.keys() - {"--count", "--dim", "--memory-gb", "--storage"}:
        raise SystemExit(f"unknown options {sorted(unknown)}")
    storage: Any = options.get("--storage", "int8")
    spec = IndexSpec(memory_gb=float(options.get("--memory-gb", 2)), storage=storage)
    bench = Bench(int(options.get("--count", 10_000_000)), int(options.get("--dim", 96)), spec)
    result: dict[str, Any] = {"count": bench.count, "dim": bench.dim, "spec": asdict(spec), "before": memory()}
    result["stored"] = bench.stored()
    result["random_get_us"] = bench.random_get_us()
    result["index"] = bench.built()
    result["search"] = bench.searched()
    if bench.count >= SAVED_FROM:
        save("speed", f"large-{bench.count}", result | {"versions": versions()})
    shown = [
        (f"{row['rows']:,}", f"{row['seconds']:.0f}", f"{row['anonymous_bytes'] / 2**20:.0f}", row["files"])
        for row in result["stored"]
    ]
    print(table(("vectors stored", "s", "peak anonymous MiB", "files"), shown))
    print(json.dumps({key: result[key] for key in ("before", "random_get_us", "index", "search")}, indent=1))
    print(machine())
    shutil.rmtree(bench.folder)


if __name__ == "__main__":
    main()
