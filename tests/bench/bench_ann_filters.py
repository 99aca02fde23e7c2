"""Filtered search at 50, 10, 1 and .1 % of the rows: recall@10 and time beside plain faiss and exact search.

    python tests/bench/bench_ann_filters.py [count] [kind ...] [--round-s=1.0]

    default: 1,000,000 vectors, hnsw, ivf-flat and ivf-rabitq; indexes are those of bench_ann.py, built where missing

100 held-out real queries, each with a bitmap of its own: rows at random, rows near the query, rows far from it (see
ann_filters.py). One thread, one query at a time, five interleaved rounds. "returned": hits of the ten asked for.
"""

import sys
from typing import Any

from bench_ann import RECALL, Bench, child, text
from report import machine, save
from speed_rounds import ROUNDS, say, table, versions
from speed_vectors import SAVED_FROM, SEED, make

KINDS = ("hnsw", "ivf-flat", "ivf-rabitq")


def show(results: dict[str, Any], count: int) -> str:
    rows = [
        (
            kind,
            row["relation"],
            f"{100 * row['share']:g} %",
            f"{row['ours']['recall']:.3f}",
            f"{row['faiss']['recall']:.3f}",
            f"{row['ours']['returned']:.1f}",
            f"{row['faiss']['returned']:.1f}",
            *(
                f"{(times := row['ms'][name])['p50']:.3f} [{times['p25']:.3f}, {times['p75']:.3f}]"
                for name in ("ours", "faiss", "exact")
            ),
            f"{row['ms']['ours']['p99']:.2f}",
        )
        for kind, value in results.items()
        for row in value["rows"]
    ]
    efforts = "; ".join(f"{kind}: {text(value['effort'])}" for kind, value in results.items())
    header = ("kind", "filter", "rows", "recall@10", "of faiss", "returned", "by faiss", "ms", "faiss ms", "exact ms")
    return (
        f"{count} vectors, default efforts ({efforts}), seed {SEED}, {ROUNDS} rounds, p50 [quartiles]."
        f" {machine() | versions()}\n\n" + table((*header, "p99 ms"), rows)
    )


def main() -> None:
    options = {part.partition("=")[0]: part.partition("=")[2] for part in sys.argv[1:] if part.startswith("--")}
    given = [part for part in sys.argv[1:] if not part.startswith("--")]
    count = int(given.pop(0).replace("_", "")) if given and given[0].replace("_", "").isdigit() else 1_000_000
    folder = make(count)
    round_s = float(options.get("--round-s", 1.0))
    bench = Bench(count, rebuild=False, round_s=round_s)
    results = {}
    for kind in given or KINDS:
        place = str(folder / "ann" / kind)
        bench.build(kind, {"who": "ours", "kind": kind, "folder": place, "recall": RECALL})
        say(f"filters of {kind}")
        task = {"folder": place, "truth": str(folder), "kind": kind, "round_s": round_s}
        results[kind] = child(task, 1, "ann_filters.py")
    if count >= SAVED_FROM:
        value = {"seed": SEED, "rounds": ROUNDS, "versions": versions(), "results": results}
        save("speed", f"ann-filters-{count}", value)
    print(show(results, count))


if __name__ == "__main__":
    main()
