"""One hybrid query at a time on the demo collection, beside its raw parts called directly in the same loop.

    python tests/bench/bench_latency.py [queries]

Raw parts: the encoder, exact search over the same vectors with plain numpy, tantivy's own searcher with the same terms.
"""

import random
import sys
import time

import numpy as np
from report import ROOT, save

from retrieval.collection import Collection
from retrieval.types import Query, SearchRequest

DEPTH = 200
REPEATS = 5


def questions(collection: Collection, count: int) -> list[str]:
    """First lines of docstrings, cut to twelve words: as long as people's questions."""
    lines = sorted({document.text.partition("\n\n")[2].partition("\n")[0] for document in collection.documents()})
    usable = [" ".join(line.split()[:12]) for line in lines if len(line.split()) >= 4]
    return random.Random(0).sample(usable, count)


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    ratios, hybrid_p50, parts_p50, split = [], [], [], []
    with Collection.open(ROOT / "demo" / "python-docs") as collection:
        texts = questions(collection, count)
        with collection.shard.reading() as reading:
            base = reading.view.base
        vectors = np.ascontiguousarray(base.dense["dense"].vectors(np.arange(len(base.rows))))
        encoder = collection.shard.vectors.encoder("dense")
        engine = base.lexical["lexical"]
        searcher = engine._searcher
        for text in texts[:20]:
            collection.search(text)
        for _ in range(REPEATS):
            hybrid, parts = [], []
            for text in texts:
                start = time.perf_counter()
                collection.search_many([SearchRequest(Query("q", text), k=10)])
                hybrid.append(time.perf_counter() - start)
                query = engine._query([(term, 1) for term in dict.fromkeys(engine.explain_terms(text))])
                first = time.perf_counter()
                vector = encoder.encode_queries([Query("q", text)])
                second = time.perf_counter()
                scores = (vector @ vectors.T)[0]
                best = np.argpartition(-scores, DEPTH)[:DEPTH]
                best[np.argsort(-scores[best])]
                third = time.perf_counter()
                searcher.search(query, DEPTH, count=False)
                fourth = time.perf_counter()
                parts.append((second - first, third - second, fourth - third))
            sums = [sum(part) for part in parts]
            hybrid_p50.append(1000 * float(np.median(hybrid)))
            parts_p50.append(1000 * float(np.median(sums)))
            split.append([1000 * float(np.median([part[place] for part in parts])) for place in range(3)])
            ratios.append(hybrid_p50[-1] / parts_p50[-1])
        rows = len(base.rows)
    middle = np.median(split, axis=0)
    result = {
        "queries": count,
        "repeats": REPEATS,
        "rows": rows,
        "hybrid_p50_ms": float(np.median(hybrid_p50)),
        "parts_p50_ms": float(np.median(parts_p50)),
        "encode_p50_ms": float(middle[0]),
        "exact_p50_ms": float(middle[1]),
        "tantivy_p50_ms": float(middle[2]),
        "ratio": float(np.median(ratios)),
        "ratio_min": min(ratios),
        "ratio_max": max(ratios),
    }
    save("foundation", "latency", result)
    print(
        f"hybrid p50 {result['hybrid_p50_ms']:.2f} ms; parts {result['parts_p50_ms']:.2f} ms (encode {middle[0]:.2f},"
        f" exact {middle[1]:.2f}, tantivy {middle[2]:.2f}); ratio {result['ratio']:.2f}"
        f" [{min(ratios):.2f}, {max(ratios):.2f}] over {rows} passages"
    )


if __name__ == "__main__":
    main()
