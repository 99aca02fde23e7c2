"""Everything the README's tables show, one program after the other: about an hour on two cores, less when repeated.

make bench-foundation
"""

import subprocess
import sys

from report import ROOT

PROGRAMS = (
    ("-m", "api.demo"),
    ("tests/bench/bench_quality.py",),
    ("tests/bench/bench_lucene.py",),
    ("tests/bench/bench_latency.py",),
    ("tests/bench/bench_build.py",),
    ("tests/bench/bench_filters.py",),
    ("tests/bench/bench_live.py",),
)


def main() -> None:
    for program in PROGRAMS:
        print(f"\n== {' '.join(program)}", flush=True)
        subprocess.run([sys.executable, *program], cwd=ROOT, check=True)


if __name__ == "__main__":
    main()
