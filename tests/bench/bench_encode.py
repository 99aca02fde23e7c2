"""Our encoder backends beside SentenceTransformer.encode with its defaults: bulk, single queries, quality.

    python tests/bench/bench_encode.py [backend ...] [--parts=bulk,single,scifact,cranfield,medquad] [--texts=3000]
        [--queries=300]

    default: every backend that is installed, and auto; two hours on two cores. Each part is saved when it is done.
    --texts, --queries   fewer make a trial, whose results are not saved

bulk, single: the same texts (two thirds wikispeedia passages, one third medquad answers), the same queries one by one;
five rounds, the encoders taking turns, each in its own process. Quality, a part for each dataset: nDCG@10 of exact
search over whole documents with each backend's vectors, against those of SentenceTransformer.encode in float32; the
loss with a 95 % paired bootstrap interval over queries. Vectors stay in .bench/cache while encoders' sources and
libraries are the same.
"""

import gzip
import hashlib
import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import numpy as np
from judged_sets import SEED, judged
from report import DATA, ROOT, WORK, machine, save
from speed_encoder import PEER
from speed_rounds import ROUNDS, say, summary, table, versions

from evaluation.measures import mean, per_query
from index.errors import ConfigError, MissingDependencyError
from retrieval.encoders import EncoderConfig
from retrieval.encoders.backends import check_backend
from retrieval.encoders.config import Backend
from retrieval.encoders.model_files import find_model

TEXTS = 3_000
QUERIES = 300
SETS = ("scifact", "cranfield", "medquad")
MEASURE = "nDCG@10"
RESAMPLES = 10_000
LOSS = 0.005
WARM = 64
CACHE = WORK / "cache"


class Encoder:
    """A rival's process. Raises RuntimeError where it ends instead of answering."""

    def __init__(self, who: str) -> None:
        self.who = who
        paths = os.pathsep.join([str(ROOT), str(ROOT / "tests/bench")])
        command = [sys.executable, "tests/bench/speed_encoder.py", who]
        self._child = subprocess.Popen(
            command,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": paths, "TOKENIZERS_PARALLELISM": "false"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.about = self._answer()

    def ask(self, **task: Any) -> dict[str, Any]:
        assert self._child.stdin is not None
        self._child.stdin.write(json.dumps(task) + "\n")
        self._child.stdin.flush()
        return self._answer()

    def close(self) -> None:
        assert self._child.stdin is not None
        self._child.stdin.close()
        self._child.wait()

    def _answer(self) -> dict[str, Any]:
        assert self._child.stdout is not None
        for line in self._child.stdout:
            if line.startswith("{"):
                return dict(json.loads(line))
        raise RuntimeError(f"the process of {self.who} ended with status {self._child.wait()}")


def available() -> list[str]:
    names = []
    for name in get_args(Backend):
        try:
            check_backend(name, "cpu")
        except (ConfigError, MissingDependencyError) as error:
            say(f"{name} left out: {error}")
            continue
        names.append(name)
    return [*names, "auto"]


def corpus(name: str) -> tuple[list[str], list[str]]:
    """Ids and texts of a data set's documents, title first."""
    ids, texts = [], []
    with (DATA / name / "corpus.jsonl").open(encoding="utf-8") as file:
        for line in file:
            value = json.loads(line)
            ids.append(value["_id"])
            texts.append(f"{value['title']} {value['text']}" if value.get("title") else value["text"])
    return ids, texts


def speed_texts(count: int) -> list[str]:
    """Two thirds wikispeedia passages, one third medquad answers, in random order."""
    with gzip.open(DATA / "wikispeedia/passages.jsonl.gz", "rt", encoding="utf-8") as file:
        passages = [value["text"] for value in map(json.loads, file)]
    rng = random.Random(SEED)
    third = count // 3
    chosen = rng.sample(passages, count - third) + rng.sample(corpus("medquad")[1], third)
    rng.shuffle(chosen)
    return chosen


def speed_queries(count: int) -> list[str]:
    texts = [query.text for name in SETS for query in judged(name).queries]
    return random.Random(SEED).sample(texts, count)


def written(name: str, texts: list[str]) -> Path:
    CACHE.mkdir(parents=True, exist_ok=True)
    path = CACHE / f"speed-{name}.json"
    path.write_text(json.dumps(texts), encoding="utf-8")
    return path


def token_count(texts: list[str], window: int) -> int:
    """Tokens that the model sees: special ones included, cut at its window."""
    from tokenizers import Tokenizer  # noqa: PLC0415

    files = find_model(EncoderConfig())
    tokenizer = Tokenizer.from_file(str(files.folder / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(window)
    return sum(len(encoding.ids) for encoding in tokenizer.encode_batch(texts))


def bulk(encoders: list[Encoder], count: int) -> dict[str, Any]:
    texts = speed_texts(count)
    tokens = token_count(texts, encoders[0].about["window"])
    path, warm = written("texts", texts), written("warm-texts", texts[:WARM])
    spent: dict[str, list[float]] = {encoder.who: [] for encoder in encoders}
    peaks = {}
    for encoder in encoders:
        encoder.ask(do="bulk", texts=str(warm))
    for turn in range(ROUNDS):
        for encoder in _turn(encoders, turn):
            answer = encoder.ask(do="bulk", texts=str(path))
            spent[encoder.who].append(1000 * answer["seconds"])
            peaks[encoder.who] = answer["peak_rss_bytes"]
            say(f"round {turn + 1}: {encoder.who} {len(texts) / answer['seconds']:.1f} texts/s")
    result: dict[str, Any] = {}
    for encoder in encoders:
        figures = summary(np.array(spent[encoder.who])[:, None])
        rates = {"texts_per_s": 1000 * count / figures["p50"], "tokens_per_s": 1000 * tokens / figures["p50"]}
        faster = [theirs / mine for theirs, mine in zip(spent[PEER], spent[encoder.who], strict=True)]
        result[encoder.who] = {
            **encoder.about,
            "peak_rss_bytes": peaks[encoder.who],
            "ms": figures,
            **rates,
            "faster": median_range(faster),
        }
    return {"texts": count, "tokens": tokens, "encoders": result}


def single(encoders: list[Encoder], count: int) -> dict[str, Any]:
    queries = speed_queries(count)
    path, warm = written("queries", queries), written("warm-queries", queries[:20])
    spent: dict[str, list[list[float]]] = {encoder.who: [] for encoder in encoders}
    for encoder in encoders:
        encoder.ask(do="single", texts=str(warm))
    for turn in range(ROUNDS):
        for encoder in _turn(encoders, turn):
            spent[encoder.who].append(encoder.ask(do="single", texts=str(path))["ms"])
    result: dict[str, Any] = {}
    for encoder in encoders:
        medians = [float(np.median(mine)) for mine in spent[encoder.who]]
        faster = [float(np.median(theirs)) / mine for theirs, mine in zip(spent[PEER], medians, strict=True)]
        result[encoder.who] = {
            **encoder.about,
            "ms": summary(np.array(spent[encoder.who])),
            "faster": median_range(faster),
        }
    return {"queries": count, "encoders": result}


def _turn(encoders: list[Encoder], turn: int) -> list[Encoder]:
    first = turn % len(encoders)
    return encoders[first:] + encoders[:first]


def median_range(values: list[float]) -> list[float]:
    return [float(np.median(values)), min(values), max(values)]


def vectors_of(encoder: Encoder, name: str, what: str, texts: list[str]) -> np.ndarray:
    """Vectors of these texts by this encoder, kept under everything that decides them."""
    digest = hashlib.sha256(json.dumps([encoder.about["backend"], versions(), machine()["torch"], texts]).encode())
    if encoder.who != PEER:
        for source in sorted((ROOT / "retrieval/encoders").glob("*.py")):
            digest.update(source.read_bytes())
    path = CACHE / f"{name}.{what}.{encoder.who}.{digest.hexdigest()[:12]}.npy"
    if not path.exists():
        say(f"{encoder.who} encodes {len(texts)} {what} of {name}")
        part = path.with_suffix(".part.npy")
        encoder.ask(do="bulk", texts=str(written(what, texts)), out=str(part))
        part.replace(path)
    return np.load(path)


def quality(encoders: list[Encoder], name: str) -> dict[str, Any]:
    """nDCG@10 of each, and its loss against the peer's float32 vectors with a paired bootstrap interval."""
    data = judged(name)
    ids, texts = corpus(name)
    values: dict[str, np.ndarray] = {}
    result: dict[str, Any] = {}
    for encoder in encoders:
        documents = vectors_of(encoder, name, "documents", texts)
        queries = vectors_of(encoder, name, "queries", [query.text for query in data.queries])
        run = {}
        for number, query in enumerate(data.queries):
            order = np.argsort(-(documents @ queries[number]), kind="stable")[:10]
            run[query.id] = [ids[place] for place in order]
        scored = per_query(MEASURE, run, data.qrels)
        values[encoder.who] = np.array([scored[query] for query in sorted(scored)])
        result[encoder.who] = {"ndcg": mean(scored), "backend": encoder.about["backend"]}
    rng = np.random.default_rng(SEED)
    samples = rng.integers(0, len(data.queries), (RESAMPLES, len(data.queries)), dtype=np.int32)
    for encoder in encoders:
        loss = values[PEER] - values[encoder.who]
        low, high = np.percentile(loss[samples].mean(axis=1), [2.5, 97.5])
        result[encoder.who] |= {"loss": float(loss.mean()), "low": float(low), "high": float(high)}
    return {"queries": len(data.queries), "documents": len(ids), "encoders": result}


def show_bulk(result: dict[str, Any]) -> str:
    rows = [
        (
            name,
            f"{value['texts_per_s']:.1f}",
            f"{value['tokens_per_s']:.0f}",
            f"{value['faster'][0]:.2f} [{value['faster'][1]:.2f}, {value['faster'][2]:.2f}]",
            f"{value['ms']['p25'] / 1000:.1f} to {value['ms']['p75'] / 1000:.1f}",
            f"{value['load_s']:.1f}",
            f"{value['peak_rss_bytes'] / 2**30:.2f}",
        )
        for name, value in _named(result)
    ]
    header = ("encoder", "texts/s", "tokens/s", "times faster [rounds]", "s, quartiles", "load s", "peak GiB")
    return f"{result['texts']} texts, {result['tokens']} tokens\n\n{table(header, rows)}"


def show_single(result: dict[str, Any]) -> str:
    rows = [
        (
            name,
            f"{value['ms']['p50']:.2f} [{value['ms']['p25']:.2f}, {value['ms']['p75']:.2f}]",
            f"{value['ms']['p99']:.2f}",
            f"{value['faster'][0]:.2f} [{value['faster'][1]:.2f}, {value['faster'][2]:.2f}]",
        )
        for name, value in _named(result)
    ]
    header = ("encoder", "one query p50 ms [quartiles]", "p99 ms", "times faster [rounds]")
    return f"{result['queries']} queries\n\n{table(header, rows)}"


def _named(result: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    return [
        (name if name in {value["backend"], PEER} else f"{name} ({value['backend']})", value)
        for name, value in result["encoders"].items()
    ]


def show_quality(name: str, result: dict[str, Any]) -> str:
    rows = [
        (
            who,
            f"{value['ndcg']:.4f}",
            f"{value['loss']:+.4f} [{value['low']:+.4f}, {value['high']:+.4f}]",
            "yes" if value["loss"] <= LOSS else "no",
        )
        for who, value in result["encoders"].items()
    ]
    header = (f"{name}, {result['queries']} queries", MEASURE, "loss [95 %]", f"loss <= {LOSS}")
    return table(header, rows)


def main() -> None:
    options = {part.partition("=")[0]: part.partition("=")[2] for part in sys.argv[1:] if part.startswith("--")}
    given = [part for part in sys.argv[1:] if not part.startswith("--")]
    count, asked = int(options.get("--texts", TEXTS)), int(options.get("--queries", QUERIES))
    parts = options.get("--parts", ",".join(("bulk", "single", *SETS))).split(",")
    if unknown := (set(parts) - {"bulk", "single", *SETS}) | (options.keys() - {"--parts", "--texts", "--queries"}):
        raise SystemExit(f"unknown {sorted(unknown)}")
    encoders: list[Encoder] = []
    try:
        for who in (PEER, *(given or available())):
            encoders.append(Encoder(who))
            say(f"opened {who}: {encoders[-1].about}")
        for part in parts:
            if part == "bulk":
                result = bulk(encoders, count)
                shown, full = show_bulk(result), count >= TEXTS
            elif part == "single":
                result = single(encoders, asked)
                shown, full = show_single(result), asked >= QUERIES
            else:
                result = quality([encoder for encoder in encoders if encoder.who != "auto"], part)
                shown, full = show_quality(part, result), True
            if full:
                save("speed", f"encode-{part}", {"rounds": ROUNDS, "seed": SEED, "versions": versions(), **result})
            print(f"{shown}\n", flush=True)
    finally:
        for encoder in encoders:
            encoder.close()
    print(machine() | versions())


if __name__ == "__main__":
    main()
