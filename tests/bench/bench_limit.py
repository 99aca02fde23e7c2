"""LIMIT: words, hashed words in one vector, MiniLM, and the default pipeline, on the real small set and on ours.

    python tests/bench/bench_limit.py [section ...]

Sections: those of SECTIONS (default: all). Data and collections are made once, under .bench/limit/, and used again.
"""

import sys
from dataclasses import asdict
from pathlib import Path

from report import DATA, WORK, save

from evaluation.limit import LimitConfig, generate, write
from evaluation.limit_free import PUBLISHED, critical_n
from evaluation.limit_run import MEASURES, RETRIEVERS, compare

SETS: dict[str, LimitConfig | None] = {
    "limit-small": None,  # the original
    "small": LimitConfig(),
    "5k": LimitConfig(documents=5_000),
    "5k-random": LimitConfig(documents=5_000, pattern="random"),
    "5k-cycle": LimitConfig(documents=5_000, pattern="cycle"),
    "5k-disjoint": LimitConfig(documents=5_000, pattern="disjoint"),
    "5k-same-words": LimitConfig(documents=5_000, queries=250),
    "5k-synonyms": LimitConfig(documents=5_000, queries=250, synonyms=True),
    "50k": LimitConfig(documents=50_000),
}
SECTIONS = (*SETS, "free-embeddings")
DIMS = (4, 6, 8)
HOME = WORK / "limit"


def folder_of(name: str, config: LimitConfig | None) -> Path:
    if config is None:
        return DATA / name
    folder = HOME / "data" / name
    if not folder.exists():
        write(folder, generate(config))
    return folder


def show(stage: str, done: int, total: int | None) -> None:
    if stage.startswith("encode") and done % 4096 == 0:
        print(f"  {stage} {done}/{total}", file=sys.stderr, flush=True)


def measure(name: str) -> None:
    config = SETS[name]
    found = compare(folder_of(name, config), list(RETRIEVERS), HOME / "collections" / name, progress=show)
    values = {retriever: dict(standing.values) for retriever, standing in found.items()}
    save("limit", name, {"config": None if config is None else asdict(config), "values": values})
    print(f"\n{name:20} " + " ".join(f"{measure:>7}" for measure in MEASURES))
    for retriever, measured in values.items():
        print(f"  {retriever:18} " + " ".join(f"{value:7.3f}" for value in measured.values()), flush=True)


def measure_free_embeddings() -> None:
    found = [critical_n(dim) for dim in DIMS]
    values = {
        str(of.dim): {
            "documents": of.documents,
            "published": PUBLISHED[of.dim],
            "published_fit": of.fit,
            "seconds": round(of.seconds, 1),
        }
        for of in found
    }
    save("limit", "free-embeddings", {"k": 2, "starts": 2, "values": values})
    for dim, value in values.items():
        print(f"dim {dim}: {value}", flush=True)


def main() -> None:
    for name in sys.argv[1:] or SECTIONS:
        if name == "free-embeddings":
            measure_free_embeddings()
        else:
            measure(name)


if __name__ == "__main__":
    main()
