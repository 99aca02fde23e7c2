"""A build in a process of its own: prints one JSON line per stage change and a last one with the reports."""

import json
import resource
import sys
import time
from itertools import islice
from pathlib import Path

from retrieval.collection import build
from retrieval.encoders import EncoderConfig, open_encoder
from retrieval.sources import open_source


def main() -> None:
    source, folder, limit = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    seconds: dict[str, float] = {}
    stage, since = "start", time.perf_counter()

    def progress(name: str, done: int, total: int | None) -> None:
        nonlocal stage, since
        now = time.perf_counter()
        seconds[stage] = seconds.get(stage, 0.0) + now - since
        stage, since = name, now
        print(json.dumps({"stage": name, "done": done, "total": total}), flush=True)

    begun = time.perf_counter()
    documents = islice(open_source(source).documents(), limit)
    added, compaction = build(folder, documents, resume=True, progress=progress, total=limit)
    seconds[stage] = seconds.get(stage, 0.0) + time.perf_counter() - since
    report = {
        "added": added.added,
        "unchanged": added.unchanged,
        "encoded": sum(part.encoded for part in compaction.encoded.values()),
        "reused": sum(part.reused for part in compaction.encoded.values()),
        "truncated": sum(part.truncated for part in compaction.encoded.values()),
        "seconds": seconds,
        "wall_s": time.perf_counter() - begun,
        "peak_rss_bytes": 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
    }
    encoder = open_encoder(EncoderConfig())  # as measured for this machine; after the peak was read
    report["backend"] = encoder.choice.summary if encoder.choice else "torch"
    print(json.dumps({"report": report}), flush=True)


if __name__ == "__main__":
    main()
