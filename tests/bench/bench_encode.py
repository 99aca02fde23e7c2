"""Our encoder backends beside SentenceTransformer.encode with its defaults: bulk, single queries, quality.

    python tests/bench/bench_encode.py [backend ...] [--texts=3000] [--queries=300] [--sets=scifact,cranfield,medquad]

    default: every backend that is installed, and auto; an hour on two cores, a second run much less
    --texts, --queries   fewer make a trial, whose results are not saved
    --sets               of the quality comparison; --sets= skips it

Speed: the same texts (two thirds wikispeedia passages, one third medquad answers), five rounds in which the encoders
take turns, each in its own process. Quality: nDCG@10 of exact search over whole documents with each backend's vectors,
against those of SentenceTransformer.encode in float32; the loss with a 95 % paired bootstrap interval over queries.
Vectors are kept in .bench/cache while the encoders' sources and libraries are the same.
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
from datasets import SEED, judged
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
FASTER = 2.5
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


def speed(encoders: list[Encoder], texts: list[str], queries: list[str]) -> tuple[int, dict[str, Any]]:
    files = {"bulk": written("texts", texts), "single": written("queries", queries)}
    warm = {"bulk": written("warm-texts", texts[:WARM]), "single": written("warm-queries", queries[:20])}
    tokens = token_count(texts, encoders[0].about["window"])
    spent: dict[str, dict[str, list[Any]]] = {e.who: {"bulk": [], "single": []} for e in encoders}
    peaks = {}
    for encoder in encoders:
        for do, path in warm.items():
            encoder.ask(do=do, texts=str(path))
    for turn in range(ROUNDS):
        for do, path in files.items():
            for encoder in encoders[turn % len(encoders) :] + encoders[: turn % len(encoders)]:
                result = encoder.ask(do=do, texts=str(path))
                spent[encoder.who][do].append([1000 * result["seconds"]] if do == "bulk" else result["ms"])
                peaks[encoder.who] = result.get("peak_rss_bytes", peaks.get(encoder.who))
                if do == "bulk":
                    say(f"round {turn + 1}: {encoder.who} {len(texts) / result['seconds']:.1f} texts/s")
    result: dict[str, Any] = {}
    for encoder in encoders:
        bulk, single = (summary(np.array(spent[encoder.who][do])) for do in ("bulk", "single"))
        result[encoder.who] = {
            **encoder.about,
            "peak_rss_bytes": peaks[encoder.who],
            "bulk_ms": bulk,
            "single_ms": single,
            "texts_per_s": 1000 * len(texts) / bulk["p50"],
            "tokens_per_s": 1000 * tokens / bulk["p50"],
        }
    for value in result.values():
        value["faster"] = result[PEER]["bulk_ms"]["p50"] / value["bulk_ms"]["p50"]
        value["faster_single"] = result[PEER]["single_ms"]["p50"] / value["single_ms"]["p50"]
    return tokens, result


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
    result: dict[str, Any] = {"queries": len(data.queries), "documents": len(ids)}
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
    return result


def show(result: dict[str, Any]) -> str:
    rows = [
        (
            name if name == value["backend"] or name == PEER else f"{name} ({value['backend']})",
            f"{value['texts_per_s']:.1f}",
            f"{value['tokens_per_s']:.0f}",
            f"{value['faster']:.2f}",
            f"{value['bulk_ms']['p25'] / 1000:.1f} to {value['bulk_ms']['p75'] / 1000:.1f}",
            f"{(single := value['single_ms'])['p50']:.2f} [{single['p25']:.2f}, {single['p75']:.2f}]",
            f"{single['p99']:.2f}",
            f"{value['faster_single']:.2f}",
            f"{value['load_s']:.1f}",
            f"{value['peak_rss_bytes'] / 2**30:.2f}",
        )
        for name, value in result["speed"].items()
    ]
    header = ("encoder", "texts/s", "tokens/s", "x faster", "s, quartiles", "one query p50 ms [quartiles]", "p99 ms")
    parts = [
        (
            f"{result['texts']} texts ({result['tokens']} tokens), {result['queries']} queries, seed {SEED}, {ROUNDS}"
            f" rounds, medians. {machine() | versions()}"
        ),
        table((*header, "x faster", "load s", "peak GiB"), rows),
    ]
    chosen = result["speed"].get("auto", {}).get("choice")
    if chosen:
        parts.append(f"auto: {chosen}")
    if result["quality"]:
        names = [name for name in next(iter(result["quality"].values())) if name not in {"queries", "documents"}]
        cells = [
            (
                name,
                *(
                    f"{(value := data[name])['ndcg']:.4f}, loss {value['loss']:+.4f}"
                    f" [{value['low']:+.4f}, {value['high']:+.4f}]"
                    for data in result["quality"].values()
                ),
                "yes" if all(data[name]["loss"] <= LOSS for data in result["quality"].values()) else "no",
            )
            for name in names
        ]
        sets = (f"{name} ({data['queries']})" for name, data in result["quality"].items())
        parts.append(table(("nDCG@10", *sets, f"loss <= {LOSS} everywhere"), cells))
    return "\n\n".join(parts)


def main() -> None:
    options = {part.partition("=")[0]: part.partition("=")[2] for part in sys.argv[1:] if part.startswith("--")}
    given = [part for part in sys.argv[1:] if not part.startswith("--")]
    count, asked = int(options.get("--texts", TEXTS)), int(options.get("--queries", QUERIES))
    sets = [name for name in options.get("--sets", ",".join(SETS)).split(",") if name]
    encoders = []
    try:
        for who in (PEER, *(given or available())):
            encoders.append(Encoder(who))
            say(f"opened {who}: {encoders[-1].about}")
        texts, queries = speed_texts(count), speed_queries(asked)
        result: dict[str, Any] = {"texts": count, "queries": asked, "seed": SEED}
        result["tokens"], result["speed"] = speed(encoders, texts, queries)
        result["quality"] = {name: quality([e for e in encoders if e.who != "auto"], name) for name in sets}
    finally:
        for encoder in encoders:
            encoder.close()
    if count >= TEXTS and asked >= QUERIES:
        save("speed", "encode", {"rounds": ROUNDS, "versions": versions(), **result})
    print(show(result))


if __name__ == "__main__":
    main()
