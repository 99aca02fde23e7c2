"""Next tokens with counts, and counts, beside two libraries with suffix arrays of tokens: tokengrams and infini-gram.

python tests/bench/bench_substring_peers.py [CORPUS ...]      Zipf tokens (a number of them) or wikispeedia

Without arguments: 5000000 and wikispeedia. Wants the extra `substring-peers`. 300 n-grams of 1 to 6 tokens that occur
about so often are asked for from their first token on, as both libraries want it; their answers must be ours. One
process, the systems in turn, microseconds an n-gram. tokengrams (Rust, all cores in a batch) answers with a list as
long as the vocabulary, infini-gram (C++, made for indexes on disk) with a dictionary; what that costs is in their
times. Results: docs/results/substring_peers.json.
"""

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from infini_gram import indexing
from infini_gram.engine import InfiniGramEngine
from report import WORK, save
from substring_corpora import Corpus, corpus
from tokengrams import MemmapIndex

from index.component import open_component
from index.kernels import usable_threads
from index.substring import load_substring, save_substring
from index.substring_spec import MODES, SubstringSpec
from index.types import State, SubstringIndex

GRAMS = 300
LONGEST = 6
WIDTHS = (10, 1_000, 100_000)
ROUNDS = 5
INFINI_GRAMS = 10
INFINI_DISTINCT = 1_000
"""infini-gram is asked for the next tokens of so few n-grams, and not where more tokens follow: it takes seconds."""
INFINI_SEPARATOR = 65_535
"""It wants its separator to be the greatest number of 16 bits."""

Next: TypeAlias = list[dict[int, int]]


def separated(whole: Corpus, separator: int) -> npt.NDArray[np.uint16]:
    """Return all tokens with a separator before every document, as both libraries want them."""
    return np.insert(whole.tokens, whole.starts[:-1], separator)


def build_ours(folder: Path, whole: Corpus, mode: Any) -> float:
    save_substring(folder, whole.documents(), SubstringSpec(whole.vocab_size, mode=mode))
    return open_component(folder, verify=False).size_bytes


def build_tokengrams(folder: Path, whole: Corpus) -> float:
    folder.mkdir()
    separated(whole, whole.vocab_size).tofile(folder / "tokens")
    MemmapIndex.build(str(folder / "tokens"), str(folder / "table"), vocab=whole.vocab_size + 1)
    return _size(folder)


def build_infini(folder: Path, whole: Corpus) -> float:
    folder.mkdir()
    separated(whole, INFINI_SEPARATOR).tofile(folder / "tokenized.0")
    begins = 2 * (whole.starts[:-1] + np.arange(len(whole.starts) - 1))
    begins.astype(np.uint64).tofile(folder / "offset.0")
    # Its first step, which makes the two files above, is left out where they exist.
    command = [sys.executable, "-m", indexing.__name__, "--data_dir", str(folder), "--save_dir", str(folder)]
    command += ["--token_dtype", "u16", "--cpus", str(usable_threads()), "--mem", "8", "--ulimit", "1024"]
    subprocess.run(command, capture_output=True, check=True)
    return _size(folder)


def _size(folder: Path) -> float:
    return sum(path.stat().st_size for path in folder.iterdir())


def grams(index: SubstringIndex, tokens: npt.NDArray[np.uint16], width: int) -> list[list[int]]:
    """Return GRAMS n-grams of the text that occur about `width` times within documents."""
    rng = np.random.default_rng(width)
    found: list[list[int]] = []
    while len(found) < GRAMS:
        places = rng.integers(0, len(tokens) - LONGEST, 1_000).tolist()
        some = [tokens[place : place + length].tolist() for place in places for length in range(1, LONGEST + 1)]
        counts = index.count(matched(index, some))
        found += [some[number] for number in np.flatnonzero((counts > 0.7 * width) & (counts < 1.5 * width)).tolist()]
    return [found[number] for number in rng.permutation(len(found))[:GRAMS].tolist()]


def matched(index: SubstringIndex, asked: list[list[int]]) -> State:
    state = index.root(len(asked))
    for length in range(max(map(len, asked))):
        longer = np.array([number for number, gram in enumerate(asked) if len(gram) > length])
        state[longer] = index.extend(state[longer], np.array([asked[number][length] for number in longer.tolist()]))
    return state


def dictionaries(index: SubstringIndex, asked: list[list[int]]) -> Next:
    answer = index.continuations(matched(index, asked))
    return [
        dict(zip(answer.tokens[first:last].tolist(), answer.counts[first:last].tolist(), strict=True))
        for first, last in zip(answer.offsets[:-1].tolist(), answer.offsets[1:].tolist(), strict=True)
    ]


def in_turn(calls: dict[str, Callable[[], int]]) -> dict[str, dict[str, float]]:
    """Return the median, least and most microseconds an n-gram of ROUNDS calls of each system, which take turns.

    A call returns how many n-grams it asked for.
    """
    spent: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(ROUNDS + 1):
        for name, call in calls.items():
            start = time.perf_counter()
            asked = call()
            spent[name].append(1e6 * (time.perf_counter() - start) / asked)
    return {
        name: {"median": float(np.median(times[1:])), "least": min(times[1:]), "most": max(times[1:])}
        for name, times in spent.items()
    }


class Systems:
    """All systems over one corpus, built and opened."""

    def __init__(self, name: str) -> None:
        self.whole = corpus(name)
        self.builds: dict[str, dict[str, float]] = {}
        kept = WORK / f"substring-peers-{name}"
        folders = {system: kept / system for system in (*MODES, "tokengrams", "infini-gram")}
        shutil.rmtree(kept, ignore_errors=True)
        kept.mkdir(parents=True)
        for system, folder in folders.items():
            start = time.perf_counter()
            size = self._build(system, folder)
            wall = time.perf_counter() - start
            self.builds[system] = {"wall_s": wall, "bytes_per_token": size / len(self.whole.tokens)}
        self.ours = {
            f"{mode}, {threads} threads": load_substring(folders[mode], threads=threads, verify=False)
            for mode in MODES
            for threads in sorted({1, usable_threads()})
        }
        self.reference = next(iter(self.ours.values()))
        rust = folders["tokengrams"]
        self.rust = MemmapIndex(str(rust / "tokens"), str(rust / "table"), self.whole.vocab_size + 1)
        self.engine = InfiniGramEngine(str(folders["infini-gram"]), eos_token_id=INFINI_SEPARATOR - 1)  # 16 bits

    def _build(self, system: str, folder: Path) -> float:
        if system == "tokengrams":
            return build_tokengrams(folder, self.whole)
        if system == "infini-gram":
            return build_infini(folder, self.whole)
        return build_ours(folder, self.whole, system)

    def next_tokens(self, asked: list[list[int]]) -> dict[str, dict[str, float]]:
        """Return the time of next tokens with counts, after a look whether all give the same."""
        few = asked[:INFINI_GRAMS]
        expected = dictionaries(self.reference, asked)
        calls = {name: self._ours(index.continuations, index, asked) for name, index in self.ours.items()}
        for gram, known in zip(asked, expected, strict=True):
            counts = np.array(self.rust.count_next(gram)[: self.whole.vocab_size])
            assert {int(token): int(counts[token]) for token in np.flatnonzero(counts)} == known
        calls["tokengrams, all threads"] = lambda: len(self.rust.batch_count_next(asked))
        if sum(map(len, expected)) / len(asked) < INFINI_DISTINCT:
            assert self._infini(few) == expected[: len(few)]
            calls["infini-gram"] = lambda: len(self._infini(few))
        return in_turn(calls)

    def counts(self, asked: list[list[int]]) -> dict[str, dict[str, float]]:
        """Return the time of counts, after a look whether all give the same."""
        expected = self.reference.count(matched(self.reference, asked)).tolist()
        assert [self.rust.count(gram) for gram in asked] == expected
        assert [self.engine.count(gram)["count"] for gram in asked] == expected
        calls = {name: self._ours(index.count, index, asked) for name, index in self.ours.items()}
        calls["tokengrams"] = lambda: len([self.rust.count(gram) for gram in asked])
        calls["infini-gram"] = lambda: len([self.engine.count(gram) for gram in asked])
        return in_turn(calls)

    @staticmethod
    def _ours(ask: Callable[[State], object], index: SubstringIndex, asked: list[list[int]]) -> Callable[[], int]:
        def call() -> int:
            ask(matched(index, asked))
            return len(asked)

        return call

    def _infini(self, asked: list[list[int]]) -> Next:
        # Without a limit it counts exactly; ends of documents are not our tokens.
        found = [self.engine.ntd(gram, max_support=1 << 40)["result_by_token_id"] for gram in asked]
        size = self.whole.vocab_size
        return [{token: value["cont_cnt"] for token, value in each.items() if token < size} for each in found]


def main() -> None:
    for name in sys.argv[1:] or ["5000000", "wikispeedia"]:
        systems = Systems(name)
        result: dict[str, Any] = {"build": systems.builds}
        for width in WIDTHS:
            asked = grams(systems.reference, systems.whole.tokens, width)
            result[f"next tokens, {width} rows"] = systems.next_tokens(asked)
            result[f"counts, {width} rows"] = systems.counts(asked)
        save("substring_peers", name, result)
        print(json.dumps({name: result}, indent=1), flush=True)


if __name__ == "__main__":
    main()
