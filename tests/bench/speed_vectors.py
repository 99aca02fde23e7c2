"""A million vectors that are as hard to search as real ones, with held-out real queries and their exact neighbours.

    python tests/bench/speed_vectors.py [count]      default 1,000,000; about five minutes, cached in .bench/speed-COUNT

Each vector is (1 - w) a + w b + noise, normalised: a is a random real wikispeedia vector, b one of a's 100 nearest real
ones, w uniform in [0, high], the noise normal with expected length `noise`. Queries are real vectors kept out of it.

Which local intrinsic dimension (LID) to compare. The estimate (Levina & Bickel, NIPS 2004, k = 100, averaged as MacKay
and Ghahramani, 2005) depends on the scale it looks at, and k neighbours reach as far as density says: the real set's
own estimate falls by a third from 3,500 to 28,000 points. So there are two fair questions, and the parameters must
answer both within 20 %:
  same density   the made set thinned to the size of the real one, against the real one: is it the same cloud?
  full           the whole made set with all its points, against the real one: do the neighbours that an index meets
                 lie in as many directions, or do the many children of one parent lie on a line or fill a ball?
Mixing random pairs fails the second (stars around the parents), no noise fails it too; near pairs with noise pass both.
Queries are judged likewise, the held-out ones among the made set against them among the real set, and only reported.
"""

import json
import shutil
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from report import WORK, save
from speed_rounds import memory, say, table, versions

from retrieval.vector_shard import open_shard

FORMAT = 1
SEED = 0
QUERIES = 2_000
NEIGHBOURS = 100
"""Of a query in truth.npy, of a point for its LID, and of a parent as mates."""

TOLERANCE = 0.2
HIGHS = (0.3, 0.5)
NOISES = (0.2, 0.25, 0.3, 0.35, 0.4)
GRID_SAMPLE = 300
SAMPLE = 2_000
BLOCK = 8_192
SAVED_FROM = 100_000
"""Counts below are trials of the programs, not results."""

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Mix:
    """high: largest weight of the mate. noise: expected length of the noise vector."""

    high: float
    noise: float


@dataclass(frozen=True, slots=True)
class Parents:
    """Real vectors float32 (N, D), and the mates of each, int32 (N, 100)."""

    vectors: Floats
    mates: npt.NDArray[np.int32]

    def blocks(self, mix: Mix, count: int) -> Iterator[Floats]:
        """The first `count` made vectors, block by block; a block depends only on its number."""
        for number, start in enumerate(range(0, count, BLOCK)):
            rng = np.random.default_rng([SEED, number])
            size = min(BLOCK, count - start)
            first = rng.integers(0, len(self.vectors), BLOCK)
            second = self.mates[first, rng.integers(0, self.mates.shape[1], BLOCK)]
            weight = rng.uniform(0, mix.high, (BLOCK, 1)).astype(np.float32)
            made = rng.standard_normal((BLOCK, self.vectors.shape[1]), dtype=np.float32)
            made *= mix.noise / np.sqrt(self.vectors.shape[1], dtype=np.float32)
            made += (1 - weight) * self.vectors[first]
            made += weight * self.vectors[second]
            made /= np.linalg.norm(made, axis=1, keepdims=True)
            yield made[:size]


def real_vectors() -> tuple[str, Floats]:
    """Name of the largest wikispeedia collection there is, and its distinct vectors, shuffled."""
    folders = [folder for folder in WORK.glob("wikispeedia-*") if (folder / "shards/0000/CURRENT").exists()]
    if not folders:
        raise SystemExit("no wikispeedia collection in .bench: run tests/bench/bench_build.py first")
    found = max(folders, key=lambda folder: int(folder.name.rpartition("-")[2]))
    stores = [
        (json.loads(manifest.read_text()), manifest) for manifest in found.glob("shards/0000/vectors/*/[0-9]*.json")
    ]
    # One folder per encoder: the one with most vectors.
    totals: dict[Path, int] = {}
    for content, manifest in stores:
        totals[manifest.parent] = totals.get(manifest.parent, 0) + content["count"]
    best = max(totals, key=lambda folder: totals[folder])
    shards = [
        open_shard(best, manifest.stem, content["dim"], verify=False)
        for content, manifest in sorted(stores, key=lambda item: item[1].name)
        if manifest.parent == best
    ]
    keys = np.concatenate([shard.keys for shard in shards])
    vectors = np.concatenate([shard.vectors for shard in shards])
    _, distinct = np.unique(keys, axis=0, return_index=True)
    return found.name, vectors[np.random.default_rng(SEED).permutation(distinct)]


def nearest(queries: Floats, blocks: Iterator[Floats], k: int) -> tuple[Floats, npt.NDArray[np.int64]]:
    """Exact k best by inner product over all blocks: scores float32 (Q, k), rows int64 (Q, k), ties by row."""
    scores = np.full((len(queries), k), -np.inf, dtype=np.float32)
    rows = np.full((len(queries), k), -1, dtype=np.int64)
    start = 0
    for block in blocks:
        found = queries @ block.T
        # Only what beats the worst kept so far is looked at: after the first blocks that is next to nothing.
        query, column = np.nonzero(found > scores[:, -1:])
        bounds = np.searchsorted(query, np.arange(len(queries) + 1))
        for place in np.unique(query):
            mine = column[bounds[place] : bounds[place + 1]]
            both = np.concatenate([scores[place], found[place, mine]])
            ids = np.concatenate([rows[place], start + mine])
            order = np.lexsort((ids, -both))[:k]
            scores[place], rows[place] = both[order], ids[order]
        start += len(block)
    return scores, rows


def lid(points: Floats, blocks: Iterator[Floats], *, inside: bool) -> float:
    """Maximum-likelihood LID of the points over their 100 neighbours; `inside`: the points are in the blocks."""
    scores, _ = nearest(points, blocks, NEIGHBOURS + inside)
    distances = np.sqrt(np.maximum(2 - 2 * scores[:, inside:].astype(np.float64), 1e-6))
    inverse = np.log(distances[:, -1:] / distances[:, :-1]).sum(axis=1) / (NEIGHBOURS - 1)
    return float(1 / inverse.mean())


def cut(vectors: Floats) -> Iterator[Floats]:
    return (vectors[start : start + BLOCK] for start in range(0, len(vectors), BLOCK))


def mates_of(vectors: Floats) -> npt.NDArray[np.int32]:
    """The 100 nearest of each vector, itself left out."""
    result = np.empty((len(vectors), NEIGHBOURS), dtype=np.int32)
    for start in range(0, len(vectors), 512):
        found = vectors[start : start + 512] @ vectors.T
        found[np.arange(len(found)), start + np.arange(len(found))] = -np.inf
        result[start : start + 512] = np.argpartition(found, -NEIGHBOURS, axis=1)[:, -NEIGHBOURS:]
    return result


def compare(parents: Parents, queries: Floats, mix: Mix, count: int, sample: int) -> dict[str, float]:
    """LIDs of the made set: thinned to the size of the real one and in full, at its own points and at the queries."""
    some = next(parents.blocks(mix, min(count, BLOCK)))[:sample]
    asked = queries[:sample]
    same = min(count, len(parents.vectors))
    return {
        "same_density": lid(some, parents.blocks(mix, same), inside=True),
        "full": lid(some, parents.blocks(mix, count), inside=True),
        "queries_same_density": lid(asked, parents.blocks(mix, same), inside=False),
        "queries_full": lid(asked, parents.blocks(mix, count), inside=False),
    }


def original(parents: Parents, queries: Floats, sample: int) -> dict[str, float]:
    vectors = parents.vectors
    points = {"points": lid(vectors[:sample], cut(vectors), inside=True)}
    return points | {"queries": lid(queries[:sample], cut(vectors), inside=False)}


def deviation(made: dict[str, float], real: dict[str, float]) -> float:
    """The larger of the two deviations that must stay within the tolerance."""
    return max(abs(made[name] / real["points"] - 1) for name in ("same_density", "full"))


def choose(parents: Parents, queries: Floats, count: int) -> tuple[Mix, list[dict[str, float]]]:
    """Measure the grid; return the mix that deviates least, and all of it."""
    real = original(parents, queries, GRID_SAMPLE)
    measured = []
    for mix in (Mix(high, noise) for high in HIGHS for noise in NOISES):
        made = compare(parents, queries, mix, count, GRID_SAMPLE)
        measured.append(asdict(mix) | made | {"deviation": deviation(made, real)})
        say(f"LID at high {mix.high}, noise {mix.noise}: {made['same_density']:.1f}, full {made['full']:.1f}")
    best = min(measured, key=lambda row: row["deviation"])
    return Mix(best["high"], best["noise"]), measured


def folder_of(count: int) -> Path:
    return WORK / f"speed-{count}"


def read_blocks(path: Path, size: int = BLOCK) -> Iterator[Floats]:
    """Rows of a float32 .npy file through read(): a mapped file's pages would count as this process's memory."""
    with path.open("rb") as file:
        np.lib.format.read_magic(file)
        (count, dim), _, dtype = np.lib.format.read_array_header_1_0(file)
        for start in range(0, count, size):
            yield np.fromfile(file, dtype, min(size, count - start) * dim).reshape(-1, dim)


def make(count: int) -> Path:
    """Return the folder with base.npy, queries.npy, truth.npy and truth_scores.npy, made where it is not there yet."""
    folder = folder_of(count)
    described = folder / "vectors.json"
    name, vectors = real_vectors()
    wanted: dict[str, Any] = {"format": FORMAT, "source": name, "real": len(vectors), "seed": SEED, "count": count}
    if described.exists():
        there = json.loads(described.read_text())
        if all(there[key] == value for key, value in wanted.items()):
            return folder
    say(f"{count} vectors from the {len(vectors)} of {name}")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    held = min(QUERIES, len(vectors) // 10)
    queries, rest = vectors[:held].copy(), vectors[held:].copy()
    del vectors
    seconds = {}
    start = time.perf_counter()
    parents = Parents(rest, mates_of(rest))
    seconds["mates"] = time.perf_counter() - start
    start = time.perf_counter()
    mix, grid = choose(parents, queries, count)
    seconds["grid"] = time.perf_counter() - start
    start = time.perf_counter()
    with (folder / "base.npy").open("wb") as file:
        shape = (count, queries.shape[1])
        np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": shape})
        for block in parents.blocks(mix, count):
            file.write(np.ascontiguousarray(block).data)
    seconds["write"] = time.perf_counter() - start
    np.save(folder / "queries.npy", queries)
    start = time.perf_counter()
    scores, rows = nearest(queries, read_blocks(folder / "base.npy"), NEIGHBOURS)
    seconds["truth"] = time.perf_counter() - start
    np.save(folder / "truth.npy", rows)
    np.save(folder / "truth_scores.npy", scores)
    real, made = original(parents, queries, SAMPLE), compare(parents, queries, mix, count, SAMPLE)
    result = {
        **wanted,
        "queries": len(queries),
        "mix": asdict(mix),
        "lid_real": real,
        "lid_made": made,
        "deviation": deviation(made, real),
        "within": deviation(made, real) <= TOLERANCE,
        "grid": grid,
        "seconds": seconds,
        "peak_rss_bytes": memory()["peak_rss_bytes"],
        "versions": versions(),
    }
    described.write_text(json.dumps(result, indent=1))
    if count >= SAVED_FROM:
        save("speed", f"vectors-{count}", result)
    return folder


def show(folder: Path) -> str:
    value = json.loads((folder / "vectors.json").read_text())
    real = value["lid_real"]["points"]
    grid = [
        (row["high"], row["noise"], *(f"{row[key]:.1f}" for key in ("same_density", "full")), f"{row['deviation']:.2f}")
        for row in value["grid"]
    ]
    made, asked = value["lid_made"], value["lid_real"]["queries"]
    lines = [
        (
            "points, same density",
            f"{real:.2f}",
            f"{made['same_density']:.2f}",
            f"{made['same_density'] / real - 1:+.3f}",
        ),
        ("points, full", f"{real:.2f}", f"{made['full']:.2f}", f"{made['full'] / real - 1:+.3f}"),
        *(
            (name, f"{asked:.2f}", f"{made[key]:.2f}", f"{made[key] / asked - 1:+.3f}")
            for name, key in (
                ("held-out queries, same density", "queries_same_density"),
                ("held-out queries, full", "queries_full"),
            )
        ),
    ]
    about = (
        f"{value['count']} vectors from {value['real']} of {value['source']}, {value['queries']} real queries held"
        f" out, mix {value['mix']}, seed {value['seed']}; exact neighbours in {value['seconds']['truth']:.1f} s,"
        f" peak {value['peak_rss_bytes'] / 2**30:.2f} GiB"
    )
    return "\n\n".join(
        [
            about,
            table(("LID, k = 100", "real", "made", "difference"), lines),
            table(("high", "noise", "same density", "full", "deviation"), grid),
        ]
    )


def main() -> None:
    count = int(sys.argv[1].replace("_", "")) if len(sys.argv) > 1 else 1_000_000
    print(show(make(count)))


if __name__ == "__main__":
    main()
