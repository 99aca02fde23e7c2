"""The substring index: build, next tokens at four widths, extension, places, documents, lazy verification; both forms.

python tests/bench/bench_substring.py [CORPUS ...]      Zipf tokens (a number of them), wikispeedia, or titles (a trie)

Without arguments: 5000000, 50000000, wikispeedia and titles. A code is a token or a document's separator: what the
reference (SEAL's FM-index, measured once and not run here) counts as a token. With one thread also what the reads of a
call take by themselves, in the same run (substring_floors.py). Where torch has a GPU, also the next tokens of 300 and
2,400 beams on it. Results: docs/results/substring.json.
"""

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from report import ROOT, WORK, save
from substring_corpora import Corpus, corpus
from substring_floors import line_ns, nodes, rows_ms

from index.best_extensions import best_extensions
from index.fm_index import FMIndex
from index.kernels import usable_threads
from index.substring import load_substring
from index.substring_spec import MODES
from index.suffix_array import SuffixArray
from index.token_trie import open_trie, write_trie
from index.torch_substring import on_torch
from index.types import State, SubstringIndex

BEAMS = 300
QUERY_BEAMS = 15
WIDTHS = (10, 1_000, 100_000)
RUNS = 21
BUILDS = 3
TITLES = 5_000_000
DEVICE = "cuda:0"
DEVICE_BEAMS = (300, 2_400)


def median_ms(call: Callable[[], object]) -> dict[str, float]:
    """Return the median, least and most milliseconds of RUNS calls after two for warmth."""
    spent = []
    for _ in range(RUNS + 2):
        start = time.perf_counter()
        call()
        spent.append(1_000 * (time.perf_counter() - start))
    counted = spent[2:]
    return {"median": float(np.median(counted)), "least": min(counted), "most": max(counted), "runs": RUNS}


def matches(
    index: SubstringIndex, tokens: npt.NDArray[np.uint16], width: int, beams: int = BEAMS
) -> tuple[State, npt.NDArray[np.int64]]:
    """Return some matches of 1 to 8 tokens that occur about `width` times, and the token behind one of each."""
    rng = np.random.default_rng(width)
    found: list[State] = []
    behind: list[npt.NDArray[np.int64]] = []
    while sum(map(len, found)) < beams:
        places = rng.integers(0, len(tokens) - 10, 20_000)
        state = index.root(len(places))
        for length in range(8):
            state = index.extend(state, tokens[places + length].astype(np.int64))
            counts = index.count(state)
            # Wide matches are few: two frequent tokens, or one.
            fits = np.flatnonzero((counts > 0.7 * width) & (counts < 1.5 * width))
            found.append(state[fits])
            behind.append(tokens[places[fits] + length + 1].astype(np.int64))
            state, places = state[counts > width], places[counts > width]
            if not len(places):
                break
    pick = rng.permutation(sum(map(len, found)))[:beams]
    return np.concatenate(found)[pick], np.concatenate(behind)[pick]


def measure(folder: Path, whole: Corpus, threads: int) -> dict[str, Any]:
    index = load_substring(folder, threads=threads, verify=False)
    result: dict[str, Any] = {"threads": threads}
    for width in WIDTHS:
        state, behind = matches(index, whole.tokens, width)
        answer = index.continuations(state)
        result[f"continuations of {BEAMS} x {width}"] = {
            "ms": median_ms(lambda state=state: index.continuations(state)),  # type: ignore[misc]
            "rows": float(index.count(state).mean()),
            "distinct": len(answer.tokens) / BEAMS,
        }
        if threads == 1:
            result[f"continuations of {BEAMS} x {width}"] |= floor(index, state)
        result[f"extend {BEAMS} x {width}"] = {
            "ms": median_ms(lambda state=state, behind=behind: index.extend(state, behind))  # type: ignore[misc]
        }
        scores = np.random.default_rng(width).normal(size=(BEAMS, whole.vocab_size)).astype(np.float32)
        if threads == 1:
            result["the greatest score of each beam"] = {"ms": median_ms(partial(scores.max, axis=1))}
        result[f"best {2 * QUERY_BEAMS} of {QUERY_BEAMS} beams of {BEAMS // QUERY_BEAMS} queries x {width}"] = {
            "ms": median_ms(
                lambda state=state, scores=scores: best_extensions(  # type: ignore[misc]
                    index, state, scores, beams=QUERY_BEAMS, keep=2 * QUERY_BEAMS, threads=threads
                )
            )
        }
    result["continuations of the root"] = {"ms": median_ms(lambda: index.continuations(index.root(1)))}
    state, _ = matches(index, whole.tokens, 1_000)
    some = state[:20] if folder.name.endswith("compact") else state
    rows = int(index.count(some).sum())
    located = median_ms(lambda: index.locate(some))
    result["locate"] = {"rows": rows, "ms": located, "microseconds a row": 1_000 * located["median"] / rows}
    numbers = np.random.default_rng(1).integers(0, index.documents, 100).tolist()
    result["100 documents"] = {"ms": median_ms(lambda: [index.text(number) for number in numbers])}
    if threads == 1 and isinstance(index, FMIndex):
        result["a line of the levels, ns"] = line_ns(index.matrix[0])
    return result


def floor(index: SubstringIndex, state: State) -> dict[str, float]:
    """Return what bounds the next tokens of some matches: the reads of all rows, or the nodes that are looked at."""
    if isinstance(index, SuffixArray):
        return {"reads alone, ms": rows_ms(index, state)}
    assert isinstance(index, FMIndex)
    return {"nodes": nodes(index, index.continuations(state))}


def measure_device(folder: Path, whole: Corpus) -> dict[str, Any]:
    index = load_substring(folder, verify=False)
    moved = on_torch(index, DEVICE)
    result: dict[str, Any] = {}
    for beams in DEVICE_BEAMS:
        for width in WIDTHS:
            state, _ = matches(index, whole.tokens, width, beams)
            ours, theirs = moved.continuations(state), index.continuations(state)
            assert all((one == other).all() for one, other in zip(ours, theirs, strict=True))
            result[f"continuations of {beams} x {width}"] = {
                "ms": median_ms(lambda state=state: moved.continuations(state))  # type: ignore[misc]
            }
    return result


def measure_titles(count: int) -> dict[str, Any]:
    """Return what a trie of `count` titles of 1 to 8 Zipf tokens takes, on one thread."""
    rng = np.random.default_rng(0)
    sizes = rng.integers(1, 9, count)
    whole = corpus(str(int(sizes.sum())))
    titles = np.split(whole.tokens, np.cumsum(sizes)[:-1])
    folder = WORK / "substring-titles"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    start = time.perf_counter()
    write_trie(folder, titles, whole.vocab_size)
    wall = time.perf_counter() - start
    trie = open_trie(folder, threads=1)
    result: dict[str, Any] = {"titles": count, "tokens": len(whole.tokens), "build_s": wall}
    result["bytes a title"] = sum(path.stat().st_size for path in folder.iterdir()) / count
    some = rng.permutation(np.flatnonzero(sizes > 2))[:BEAMS]
    state = trie.root(BEAMS)
    for length in range(3):
        result[f"children of {BEAMS} prefixes of {length} tokens"] = {
            "ms": median_ms(lambda state=state: trie.children(state))  # type: ignore[misc]
        }
        state = trie.extend(state, np.array([titles[number][length] for number in some.tolist()], np.int64))
    result[f"whole titles of {BEAMS} prefixes of 3 tokens"] = {"ms": median_ms(lambda: trie.complete(state))}
    return result


def built(folder: Path, mode: str, name: str) -> dict[str, Any]:
    runs = []
    for _ in range(BUILDS):
        shutil.rmtree(folder, ignore_errors=True)
        command = [sys.executable, str(Path(__file__).with_name("substring_build.py")), str(folder), mode, name]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
        runs.append(json.loads(done.stdout))
    return {key: float(np.median([run[key] for run in runs])) for key in runs[0]} | {"runs": BUILDS}


def main() -> None:
    WORK.mkdir(exist_ok=True)
    for name in sys.argv[1:] or ["5000000", "50000000", "wikispeedia", "titles"]:
        if name == "titles":
            titles = measure_titles(TITLES)
            save("substring", name, titles)
            print(json.dumps({name: titles}, indent=1), flush=True)
            continue
        whole = corpus(name)
        for mode in MODES:
            folder = WORK / f"substring-{name}-{mode}"
            result: dict[str, Any] = {"build": built(folder, mode, name)}
            index = load_substring(folder, verify=False)
            for number, document in enumerate(whole.head(1_000).documents()):
                assert (index.text(number) == document).all()
            for threads in sorted({1, usable_threads()}):
                result[f"{threads} threads"] = measure(folder, whole, threads)
            if torch.cuda.is_available():
                result[torch.cuda.get_device_name(0)] = measure_device(folder, whole)
            save("substring", f"{name} {mode}", result)
            print(json.dumps({f"{name} {mode}": result}, indent=1), flush=True)


if __name__ == "__main__":
    main()
