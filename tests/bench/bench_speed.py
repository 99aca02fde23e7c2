"""Everything the README's speed tables show, one program after the other: most of a day on two cores.

    make bench-speed, or python tests/bench/bench_speed.py [--count=1000000] [--from=PROGRAM]

The build comes before the vectors, which are made from what it encoded. Each program also runs alone and prints its
table; --from goes on with the program of that name after an interruption. With another count than a million the
vectors, indexes and filters are a trial.
"""

import subprocess
import sys

from report import DATA, ROOT

PASSAGES = 125_140


def programs(count: str) -> list[tuple[str, ...]]:
    return [
        ("tests/bench/bench_encode.py",),
        ("tests/bench/bench_build.py", str(PASSAGES)),
        ("tests/bench/speed_vectors.py", count),
        ("tests/bench/bench_ann.py", count),
        ("tests/bench/bench_ann_filters.py", count),
    ]


def main() -> None:
    options = {part.partition("=")[0]: part.partition("=")[2] for part in sys.argv[1:]}
    if unknown := options.keys() - {"--count", "--from"}:
        raise SystemExit(f"unknown options {sorted(unknown)}; allowed: --count=N, --from=PROGRAM")
    if not DATA.is_dir():
        raise SystemExit(f"no data in {DATA}: set GRAPNEL_DATA")
    left = programs(options.get("--count", "1000000"))
    if "--from" in options:
        names = [program[0].rpartition("/")[2].removesuffix(".py") for program in left]
        if options["--from"] not in names:
            raise SystemExit(f"unknown program {options['--from']!r}; allowed: {', '.join(names)}")
        left = left[names.index(options["--from"]) :]
    for program in left:
        print(f"\n### `python {' '.join(program)}`\n", flush=True)
        subprocess.run([sys.executable, *program], cwd=ROOT, check=True)


if __name__ == "__main__":
    main()
