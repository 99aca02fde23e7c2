"""Live writes to a copy of the demo collection: time to acknowledgement, visibility, compaction while searching.

python tests/bench/bench_live.py
"""

import shutil
import threading
import time

import numpy as np
from report import ROOT, WORK, save, times_ms

from retrieval.collection import Collection
from retrieval.types import Document

BATCH = 1_000
ROUNDS = 5


def document(number: int, round_: int = 0) -> Document:
    return Document(
        f"live-{number}",
        f"Note {number} of round {round_}: the quick marker{number} jumps over a sleeping process and returns a value.",
        metadata={"round": round_},
    )


def main() -> None:
    folder = WORK / "live"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(ROOT / "demo" / "python-docs", folder)
    with Collection.open(folder, writable=True) as collection:
        collection.search("warm up")

        def upsert_and_find(number: int) -> None:
            collection.add([document(number)])
            found = collection.search(f"marker{number}", mode="lexical", k=1)
            assert found.hits[0].doc_id == f"live-{number}", "an acknowledged upsert must be visible to the next search"

        single = times_ms(lambda number: collection.add([document(number + 10_000)]), 100)
        visible = times_ms(upsert_and_find, 100)
        batches = []
        for round_ in range(ROUNDS):
            start = time.perf_counter()
            collection.add(document(number, round_ + 1) for number in range(BATCH))
            batches.append(time.perf_counter() - start)
        expected = {hit.doc_id for hit in collection.search("sleeping process marker", k=50, mode="dense").hits}
        wrong, searches, spent = 0, 0, []
        compaction = threading.Thread(target=collection.compact)
        compaction.start()
        while compaction.is_alive():
            start = time.perf_counter()
            found = {hit.doc_id for hit in collection.search("sleeping process marker", k=50, mode="dense").hits}
            spent.append(1000 * (time.perf_counter() - start))
            searches += 1
            wrong += found != expected
        compaction.join()
    result = {
        "single_upsert_ms": single,
        "upsert_and_search_ms": visible,
        "batch_documents": BATCH,
        "batch_s": {"p50": float(np.median(batches)), "min": min(batches), "max": max(batches), "runs": ROUNDS},
        "searches_during_compaction": searches,
        "wrong_answers_during_compaction": wrong,
        "search_during_compaction_ms": {"p50": float(np.median(spent)), "max": max(spent)},
    }
    save("foundation", "live", result)
    print(
        f"single upsert p50 {single['p50']:.1f} ms; upsert then search {visible['p50']:.1f} ms;"
        f" {BATCH}-document batch p50 {np.median(batches):.1f} s; {searches} searches during compaction, {wrong} wrong,"
        f" p50 {np.median(spent):.1f} ms, slowest {max(spent):.1f} ms"
    )


if __name__ == "__main__":
    main()
