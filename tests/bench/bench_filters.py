"""Filters over a million rows: cold and cached bitmaps, and every mode against brute force at four selectivities.

python tests/bench/bench_filters.py [rows]
"""

import shutil
import sys
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
from report import WORK, save

from retrieval.collection import Collection, build
from retrieval.collection_config import parse_collection
from retrieval.filters import parse_filter
from retrieval.types import Document, Query, SearchRequest

WORDS = 5_000
QUERIES = 10
K = 100


def documents(count: int) -> Iterator[Document]:
    rng = np.random.default_rng(0)
    for number in range(count):
        words = rng.zipf(1.3, 12) % WORDS
        metadata = {
            "year": int(1900 + rng.integers(0, 120)),
            "lang": ("en", "de", "fr", "es")[int(rng.integers(0, 4))],
            "price": float(rng.random() * 100),
            "tags": [f"t{tag}" for tag in rng.integers(0, 50, 2)],
            "share": int(rng.integers(0, 1000)),
        }
        yield Document(f"d{number}", " ".join(f"w{word}" for word in words), metadata=metadata)


FILTERS: dict[str, dict[str, Any]] = {
    "eq string": {"type": "eq", "key": "lang", "value": "en"},
    "range": {"type": "gte", "key": "price", "value": 42.5},
    "eq and range": {
        "type": "and",
        "filters": [{"type": "eq", "key": "lang", "value": "de"}, {"type": "lt", "key": "year", "value": 1950}],
    },
    "in": {"type": "in", "key": "year", "value": list(range(1950, 1980))},
    "contains_any": {"type": "contains_any", "key": "tags", "value": ["t1", "t2"]},
    "not or": {
        "type": "not",
        "filter": {
            "type": "or",
            "filters": [{"type": "eq", "key": "lang", "value": "en"}, {"type": "gt", "key": "price", "value": 90}],
        },
    },
}


def bitmap_times(collection: Collection) -> dict[str, dict[str, float]]:
    result = {}
    for name, condition in FILTERS.items():
        cold, cached = [], []
        for _ in range(5):
            with Collection.open(collection.folder) as fresh, fresh.shard.reading() as reading:
                parsed = parse_filter(condition)
                for spent in (cold, cached):
                    start = time.perf_counter()
                    reading.view.allowed(parsed).bitmap  # noqa: B018  making it is what is timed
                    spent.append(1000 * (time.perf_counter() - start))
        result[name] = {"cold_ms": float(np.median(cold)), "cached_ms": float(np.median(cached))}
    return result


def agreement(collection: Collection, count: int) -> dict[str, dict[str, float]]:
    """Share of filtered answers that are exactly the unfiltered full ranking, filtered; and the median time."""
    rng = np.random.default_rng(1)
    queries = [" ".join(f"w{word}" for word in rng.integers(20, WORDS, 4)) for _ in range(QUERIES)]
    equal: dict[str, int] = {}
    spent: dict[str, list[float]] = {}
    for mode in ("dense", "lexical"):
        for text in queries:
            everything = full_ranking(collection, text, mode, count)
            for permille in (500, 100, 10, 1):
                name = f"{mode} {permille / 10:g} %"
                condition = {"type": "lt", "key": "share", "value": permille}
                expected = [doc_id for doc_id, share in everything if share < permille][:K]
                start = time.perf_counter()
                found = collection.search_many([SearchRequest(Query("q", text), k=K, filter=condition)], mode=mode)[0]
                spent.setdefault(name, []).append(1000 * (time.perf_counter() - start))
                equal[name] = equal.get(name, 0) + ([hit.doc_id for hit in found.hits] == expected)
    return {
        name: {"equal": equal[name] / len(queries), "p50_ms": float(np.median(times))} for name, times in spent.items()
    }


def full_ranking(collection: Collection, text: str, mode: str, count: int) -> list[tuple[str, int]]:
    """Every row's (id, share) by score, without a filter."""
    with collection.pools([SearchRequest(Query("q", text), k=K, depth=count)], mode=mode) as (view, (pool,)):
        order = np.lexsort((pool.rows, -pool.fused))
        ids = view.doc_ids(view.documents(pool.rows[order]))
        scores = pool.fused[order].tolist()
    ranked = sorted(zip(scores, ids, strict=True), key=lambda item: (-item[0], item[1]))
    return [(doc_id, SHARES[int(doc_id[1:])]) for _, doc_id in ranked]


SHARES: list[int] = []


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    folder = WORK / f"filters-{count}"
    if not (folder / "shards/0000/CURRENT").exists():
        shutil.rmtree(folder, ignore_errors=True)
        config = parse_collection({"encoder": {"kind": "hashing", "dim": 64}}, "bench")
        build(folder, documents(count), config)
    with Collection.open(folder) as collection:
        SHARES.extend(int(document.metadata["share"]) for document in collection.documents())
        times = bitmap_times(collection)
        equal = agreement(collection, count)
    save("foundation", f"filters-{count}", {"bitmaps": times, "modes": equal})
    for name, value in times.items():
        print(f"{name:14} cold {value['cold_ms']:.2f} ms, cached {value['cached_ms']:.3f} ms")
    for name, value in equal.items():
        print(f"{name:14} equal to brute force {100 * value['equal']:.0f} %, p50 {value['p50_ms']:.1f} ms")


if __name__ == "__main__":
    main()
