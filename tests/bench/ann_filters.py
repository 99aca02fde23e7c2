"""Filtered search of one index in a process of its own: a task as JSON in, a result as JSON out.

    python tests/bench/ann_filters.py '{"folder": ..., "truth": ..., "kind": "hnsw"}'

Rivals: ours with its default effort; faiss with the same effort and an IDSelectorBitmap made beforehand, on the same
open files; and exact search over the allowed rows.
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from ann_rivals import Faiss, default_effort, open_ours
from ann_truth import Truth, recalls
from speed_rounds import ROUNDS, fitting, interleaved, say
from speed_vectors import BLOCK, SEED

from index.bitmap import pack
from index.flat import FlatIndex
from index.types import Bitmap, Rows
from index.vector_file import VectorFile

SHARES = (0.5, 0.1, 0.01, 0.001)
RELATIONS = ("random", "near", "far")
QUERIES = 100
K = 10

Scores = npt.NDArray[np.float32]


class Filters:
    """Which rows each of the queries may see, and the exact answers.

    random: independent of everything. near, far: the rows highest, lowest by score against the query plus noise as wide
    as the scores' own spread: a filter that goes with the query ("articles of this field"), and one against it.
    """

    def __init__(self, truth: Truth) -> None:
        self.truth = truth
        self.queries = truth.queries[:QUERIES]
        parts = [truth.base[start : start + BLOCK] @ self.queries.T for start in range(0, truth.count, BLOCK)]
        self._scores: Scores = np.ascontiguousarray(np.concatenate(parts).T)

    def make(self, relation: str, share: float) -> tuple[list[Bitmap], Rows, Scores]:
        """Packed rows of each query, and the K best of them: rows and scores (Q, K), -1 where there are fewer."""
        size = max(1, round(share * self.truth.count))
        bitmaps = []
        rows = np.full((len(self.queries), K), -1, dtype=np.int64)
        scores = np.full((len(self.queries), K), -np.inf, dtype=np.float32)
        for query, mine in enumerate(self._scores):
            rng = np.random.default_rng([SEED, query])
            noise = rng.standard_normal(len(mine), dtype=np.float32)
            order = {"random": noise, "near": -mine / mine.std() + noise, "far": mine / mine.std() + noise}[relation]
            mask = np.zeros(len(mine), dtype=np.bool_)
            mask[np.argpartition(order, size - 1)[:size]] = True
            bitmaps.append(pack(mask))
            allowed = np.flatnonzero(mask)
            best = allowed[np.lexsort((allowed, -mine[allowed]))][:K]
            rows[query, : len(best)], scores[query, : len(best)] = best, mine[best]
        return bitmaps, rows, scores


def measure(task: dict[str, Any]) -> dict[str, Any]:
    import faiss  # noqa: PLC0415  the process's threads are set before

    truth = Truth(Path(task["truth"]))
    filters = Filters(truth)
    ours = open_ours(Path(task["folder"]))
    bare = Faiss.bare(ours)
    exact = FlatIndex(VectorFile.open(Path(task["folder"])), "cosine")
    effort = default_effort(ours.about, K)
    queries = [filters.queries[number : number + 1] for number in range(len(filters.queries))]
    result = []
    for relation in RELATIONS:
        for share in SHARES:
            bitmaps, rows, scores = filters.make(relation, share)
            there = [ours._exchange.bitmap(bitmap) for bitmap in bitmaps]
            selectors = [faiss.IDSelectorBitmap(truth.count, faiss.swig_ptr(bitmap)) for bitmap in there]
            parameters = [bare.parameters(K, effort, selector) for selector in selectors]
            calls = {
                "ours": lambda number, allowed=bitmaps: ours.search(queries[number], K, allowed=allowed[number]).rows,
                "faiss": lambda number, params=parameters: bare.search_with(queries[number], K, params[number]),
                # In the order in which the file holds them, as ours: positions.
                "exact": lambda number, allowed=there: exact.search(queries[number], K, allowed=allowed[number]).rows,
            }
            row: dict[str, Any] = {"relation": relation, "share": share}
            for name, call in calls.items():
                found = np.concatenate([call(number) for number in range(len(queries))])
                found = found if name == "ours" else ours._exchange.apply(found)
                _, tied = recalls(truth, found, rows, scores, K)
                row[name] = {"recall": float(tied.mean()), "returned": float((found >= 0).sum(axis=1).mean())}
            count = fitting(calls["exact"], len(queries), task["round_s"])
            row["ms"] = interleaved(calls, count, ROUNDS)
            result.append(row)
            recall, p50 = row["ours"]["recall"], row["ms"]["ours"]["p50"]
            say(f"{task['kind']} {relation} {share:.1%}: {recall:.3f}, {p50:.3f} ms")
    return {"effort": effort, "rows": result, "queries": len(queries)}


if __name__ == "__main__":
    print(json.dumps(measure(json.loads(sys.argv[1]))))
