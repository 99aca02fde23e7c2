"""A build of the substring index in a process of its own: prints one JSON line.

python tests/bench/substring_build.py FOLDER MODE CORPUS
"""

import json
import shutil
import sys
import time
from pathlib import Path

from substring_corpora import corpus

from index.component import open_component
from index.substring import save_substring
from index.substring_spec import MODES, SubstringSpec


def peak_bytes() -> int:
    # Not getrusage: that of a child begins at its parent's.
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return 1024 * next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))


def main() -> None:
    folder = Path(sys.argv[1])
    spec_of = {mode: lambda size, mode=mode: SubstringSpec(size, mode=mode) for mode in MODES}[sys.argv[2]]
    whole = corpus(sys.argv[3])
    spec = spec_of(whole.vocab_size)
    # Compiled, or read from where it is kept, before the clock starts.
    save_substring(folder.with_name("warm"), whole.head(100).documents(), spec)
    shutil.rmtree(folder.with_name("warm"))
    before, wall, cpu = peak_bytes(), time.perf_counter(), time.process_time()
    save_substring(folder, whole.documents(), spec)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    tokens, codes = len(whole.tokens), len(whole.tokens) + len(whole.starts) - 1
    size = open_component(folder, verify=False).size_bytes
    print(
        json.dumps(
            {
                "tokens": tokens,
                "documents": codes - tokens,
                "wall_s": wall,
                "cpu_s": cpu,
                "peak_growth_bytes_per_code": (peak_bytes() - before) / codes,
                "bytes_per_token": size / tokens,
                "bytes_per_code": size / codes,
            }
        )
    )


if __name__ == "__main__":
    main()
