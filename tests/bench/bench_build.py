"""Build wikispeedia: peak memory, texts per second, the share outside encoding, and a kill -9 on the way.

python tests/bench/bench_build.py [passages]     default 30,000; 125140 is everything
"""

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from report import DATA, ROOT, WORK, save

KILL_AT = 0.3


def run(folder: Path, limit: int, *, kill_after: int | None = None) -> tuple[int, dict[str, Any] | None]:
    """Run a build, killed once `kill_after` texts are encoded; return how many were reported, and the report."""
    source = DATA / "wikispeedia/passages.jsonl.gz"
    command = [sys.executable, "tests/bench/build_child.py", str(source), str(folder), str(limit)]
    encoded, report = 0, None
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        for line in child.stdout:
            value = json.loads(line)
            if "report" in value:
                report = value["report"]
            elif value["stage"].startswith("encode"):
                encoded = value["done"]
                if kill_after is not None and encoded >= kill_after:
                    child.send_signal(signal.SIGKILL)
                    break
    return encoded, report


def main() -> None:
    limit = int(sys.argv[1]) if len(sys.argv) > 1 else 30_000
    folder = WORK / f"wikispeedia-{limit}"
    shutil.rmtree(folder, ignore_errors=True)
    before, _ = run(folder, limit, kill_after=int(KILL_AT * limit))
    _, report = run(folder, limit)
    assert report is not None, "the resumed build did not finish"
    encoding = sum(seconds for stage, seconds in report["seconds"].items() if stage.startswith("encode"))
    outside = report["wall_s"] - encoding
    distinct = report["encoded"] + report["reused"]
    result = {
        "passages": limit,
        "distinct_texts": distinct,
        "finished_before_kill": before,
        "encoded_after_resume": report["encoded"],
        "encoded_again": before + report["encoded"] - distinct,
        "texts_per_s": report["encoded"] / encoding,
        "outside_encoding_s": outside,
        # The resumed run reads and indexes all but encodes only a part: set against encoding all.
        "outside_share": outside / (outside + encoding * distinct / report["encoded"]),
        "peak_rss_bytes": report["peak_rss_bytes"],
        "truncated": report["truncated"],
        "seconds": report["seconds"],
        "backend": report["backend"],
    }
    save("speed", f"build-{limit}", result)
    print(
        f"{limit}: {result['texts_per_s']:.1f} texts/s, outside encoding {100 * result['outside_share']:.1f} %,"
        f" peak {result['peak_rss_bytes'] / 2**30:.2f} GiB; killed after {before}, then encoded {report['encoded']}:"
        f" {result['encoded_again']} texts encoded twice; encoder {result['backend']}"
    )


if __name__ == "__main__":
    main()
