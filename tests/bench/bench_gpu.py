"""What a card gives: encoding beside its matmul rate, exact search beside its memory bandwidth, faiss's lists.

    PYTHONPATH=. python tests/bench/bench_gpu.py [--device=cuda] [--rows=2000000] [--dim=384] [--texts=20000]
                                                [--shapes=minilm,base,large] [--lists=4096] [--seconds=540]

Needs torch and sentence-transformers; faiss's part is left out, and says so, where no faiss is installed. Writes
gpu.json into $OUT, or else into .bench, after every part; parts that would begin after --seconds are left out.
A trial on a CPU: --device=cpu --rows=20000 --texts=64 --shapes=tiny --lists=64
Every time is the median of repeated calls after a warm-up, with quartiles. Search times are those a caller sees,
results in host memory, scored again by the CPU; "device" is the part on the device's thread.
"""

import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gpu_model import WINDOW, flops, texts, write_model
from report import WORK

from index.device import on_device
from index.device_index import DeviceIndex
from index.errors import ConfigError, MissingDependencyError
from index.exact import exact
from index.flat import FlatIndex
from index.metric import prepare
from index.spec import IndexParams
from index.torch_exact import TorchExact
from index.types import Effort, Neighbors
from index.vector_file import STORAGES, Storage, VectorFile, write_vectors

DEFAULTS = {
    "device": "cuda",
    "rows": "2000000",
    "dim": "384",
    "texts": "20000",
    "shapes": "minilm,base,large",
    "lists": "4096",
    "seconds": "540",
}
BATCHES = (1, 1_024)
K = 10
CHECKED = 128
BLOCK = 100_000
Result = dict[str, Any]


def timed(call: Callable[[], object], repeats: int, warm: int = 3) -> Result:
    """Milliseconds of one call: median and quartiles."""
    for _ in range(warm):
        call()
    spent = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        spent.append(1000 * (time.perf_counter() - start))
    low, middle, high = np.percentile(spent, [25, 50, 75])
    return {"ms": float(middle), "p25": float(low), "p75": float(high), "runs": repeats}


def repeats_of(device: str, usual: int) -> int:
    return usual if device != "cpu" else 1


def finished(device: str) -> None:
    if device != "cpu":
        torch.cuda.synchronize(device)


def rates(device: str) -> Result:
    """The card's own limits: bytes a large copy reads and writes per second, operations of a large matrix product."""
    large = device != "cpu"
    source = torch.randint(256, (2**31 if large else 2**24,), dtype=torch.uint8, device=device)
    target = torch.empty_like(source)

    def copy() -> None:
        target.copy_(source)
        finished(device)

    moved = timed(copy, 20)
    result: Result = {"copy_gb_s": 2 * source.numel() / moved["ms"] / 1e6, "copy": moved}
    size = 8_192 if large else 512
    for name in ("float32", "float16", "bfloat16"):
        a, b = (torch.randn(size, size, device=device).to(getattr(torch, name)) for _ in range(2))

        def multiply(a: torch.Tensor = a, b: torch.Tensor = b) -> None:
            a @ b
            finished(device)

        spent = timed(multiply, 20)
        result[f"matmul_{name}_tflops"] = 2 * size**3 / spent["ms"] / 1e9
    return result


def encode(device: str, shape: str, count: int, limits: Result) -> Result:
    """Tokens per second of whole encode_texts calls, and vectors beside float32 on the CPU."""
    from retrieval.encoders import EncoderConfig, open_encoder  # noqa: PLC0415

    passages = texts(count)
    lengths = np.array([min(WINDOW, 2 + text.count(" ") + 1) for text in passages])
    result: Result = {"texts": count, "tokens": int(lengths.sum())}
    with tempfile.TemporaryDirectory() as folder:
        write_model(Path(folder), shape)
        plain = open_encoder(EncoderConfig(path=folder, backend="torch", device="cpu"))
        checked = plain.encode_texts(passages[:CHECKED]).vectors
        for backend, precision in (("torch", "float32"), ("torch-bf16", "bfloat16"), ("torch-fp16", "float16")):
            try:
                encoder = open_encoder(EncoderConfig(path=folder, backend=backend, device=device))  # type: ignore[arg-type]
            except (ConfigError, MissingDependencyError) as error:
                result[backend] = {"left_out": str(error)}
                continue
            spent = timed(lambda encoder=encoder: encoder.encode_texts(passages), 3, warm=1)
            tflops = flops(shape, lengths) / spent["ms"] / 1e9
            found = encoder.encode_texts(passages[:CHECKED]).vectors
            result[backend] = {
                **spent,
                "tokens_per_s": 1000 * int(lengths.sum()) / spent["ms"],
                "tflops": tflops,
                "of_matmul_rate": tflops / limits[f"matmul_{precision}_tflops"],
                "least_cosine_to_cpu": float((prepare(found, "cosine") * prepare(checked, "cosine")).sum(axis=1).min()),
                "used": getattr(encoder, "backend", backend),
            }
    return result


def blocks(rows: int, dim: int) -> Iterator[np.ndarray]:
    """Unit vectors in 1,000 clusters."""
    centres = np.random.default_rng(0).standard_normal((1_000, dim), dtype=np.float32)
    for number, start in enumerate(range(0, rows, BLOCK)):
        rng = np.random.default_rng([1, number])
        size = min(BLOCK, rows - start)
        made = rng.standard_normal((size, dim), dtype=np.float32)
        made += centres[rng.integers(0, len(centres), size)]
        yield prepare(made, "cosine")


def questions(dim: int) -> np.ndarray:
    return np.concatenate(list(blocks(BLOCK + max(BATCHES), dim)))[BLOCK:]


def agreement(found: Neighbors, expected: Neighbors) -> Result:
    """Rows in the same places, and the largest difference of scores in the same places."""
    count = len(expected.rows)
    return {
        "same_rows": float((found.rows[:count] == expected.rows).mean()),
        "score_difference": float(np.abs(found.scores[:count] - expected.scores).max()),
    }


def flat(device: str, file: VectorFile, limits: Result) -> Result:
    """Exact search by torch: time, bytes of vectors read per second beside the copy's, results beside the CPU's."""
    queries, cpu = questions(file.dim), FlatIndex(file, "cosine")
    start = time.perf_counter()
    index = TorchExact(file, "cosine", device)
    result: Result = {"open_s": time.perf_counter() - start, "resident": index.resident, "rows": len(file)}
    allowed = np.packbits(np.random.default_rng(0).random(len(file)) < 0.01, bitorder="little")
    width = 4 if file.storage == "float32" else 2
    few, half = queries[:CHECKED], file.storage != "float32"
    result["agreement"] = agreement(index.search(few, K), cpu.search(few, K))
    result["agreement_filtered"] = agreement(index.search(few, K, allowed), cpu.search(few, K, allowed))
    result["cpu"] = {
        str(size): timed(lambda size=size: cpu.search(queries[:size], K), 3, warm=1) for size in (1, CHECKED)
    }
    for size in BATCHES:
        asked, repeats = queries[:size], repeats_of(device, 50 if size == 1 else 10)
        spent = timed(lambda asked=asked: index.search(asked, K), repeats)
        inner = timed(
            lambda asked=asked: on_device(device, lambda: index._there.best(asked, min(K + 64, len(file)), None)),
            repeats,
        )
        seconds = inner["ms"] / 1000
        tflops = 2 * size * len(file) * file.dim * (2 if half else 1) / seconds / 1e12
        result[str(size)] = {
            **spent,
            "device_ms": inner["ms"],
            "filtered_ms": timed(lambda asked=asked: index.search(asked, K, allowed), repeats)["ms"],
            "gb_s": len(file) * file.dim * width / seconds / 1e9,
            "of_copy_rate": len(file) * file.dim * width / seconds / 1e9 / limits["copy_gb_s"],
            "tflops": tflops,
            "of_matmul_rate": tflops / limits["matmul_float16_tflops" if half else "matmul_float32_tflops"],
        }
    checked = DeviceIndex(cpu, lambda: index)
    result["self_test"] = checked.degraded or "passed"
    return result


def lists(device: str, kind: str, file: VectorFile, count: int) -> Result:
    """faiss's lists: built for the CPU with the device's help, then searched on the device and on the CPU."""
    from index.ann import Finder  # noqa: PLC0415  faiss, where it is installed
    from index.faiss_gpu import add_to_lists, has_gpu, open_lists, train_lists  # noqa: PLC0415
    from index.faiss_kinds import make  # noqa: PLC0415

    if device != "cpu" and not has_gpu():
        return {"left_out": "the installed faiss has no GPU classes: install faiss-gpu"}
    queries = questions(file.dim)
    index = make(kind, file.dim, IndexParams(lists=count, code_bytes=file.dim // 8), "float32", l2=False)  # type: ignore[arg-type]
    chosen = np.random.default_rng(0).choice(len(file), min(len(file), 64 * count), replace=False)
    start = time.perf_counter()
    train_lists(index, file.rows(np.sort(chosen)), device)
    trained = time.perf_counter()
    for block in file.blocks(BLOCK):
        add_to_lists(index, block, device)
    added = time.perf_counter()
    on_cpu = Finder(kind, "cosine", file, index)  # type: ignore[arg-type]
    there = open_lists(on_cpu, device)
    result: Result = {"train_s": trained - start, "add_s": added - trained, "open_s": time.perf_counter() - added}
    truth = exact(file, "cosine", queries[:CHECKED], None, K).scores[:, -1:] - 1e-5
    effort = Effort(nprobe=max(8, count // 64), refine=100)
    for name, finder in (("device", there), ("cpu", on_cpu)):
        recall = float((finder.near(queries[:CHECKED], K, effort).scores >= truth).mean())
        result[name] = {"recall": recall} | {
            str(size): timed(
                lambda finder=finder, size=size: finder.near(queries[:size], K, effort), repeats_of(device, 20), warm=1
            )
            for size in BATCHES
        }
    return result


def installed() -> Result:
    found: Result = {"python": platform.python_version(), "cores": os.cpu_count()}
    for name in ("torch", "numpy", "faiss-cpu", "faiss-gpu", "sentence-transformers", "transformers"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    return found


def show(result: Result) -> str:
    """The results as markdown."""
    lines = [
        f"{result['device']}; {result['machine']}",
        "",
        ", ".join(
            [f"copy {result['rates']['copy_gb_s']:,.0f} GB/s"]
            + [
                f"matmul {name} {result['rates'][f'matmul_{name}_tflops']:.1f} TFLOP/s"
                for name in ("float32", "float16", "bfloat16")
            ]
        ),
        "",
        "| model | backend | tokens/s | TFLOP/s | of matmul rate | least cosine to CPU |",
        "|---|---|---|---|---|---|",
    ]
    for shape, each in result.get("encode", {}).items():
        for backend in ("torch", "torch-bf16", "torch-fp16"):
            value = each.get(backend, {"left_out": "?"})
            lines.append(
                f"| {shape} | {backend} | left out: {value['left_out']} | | | |"
                if "left_out" in value
                else f"| {shape} | {backend} ({value['used']}) | {value['tokens_per_s']:,.0f} | {value['tflops']:.2f} |"
                f" {value['of_matmul_rate']:.0%} | {value['least_cosine_to_cpu']:.5f} |"
            )
    lines += ["", "| exact, stored as | batch | ms [quartiles] | on device ms | filtered 1 % ms | GB/s | of copy |"]
    lines[-1] += " TFLOP/s | of matmul | same rows as CPU | CPU, one query ms |"
    lines.append("|---" * 11 + "|")
    for storage, each in result.get("flat", {}).items():
        for size in BATCHES:
            value = each[str(size)]
            lines.append(
                f"| {storage} | {size} | {value['ms']:.3f} [{value['p25']:.3f}, {value['p75']:.3f}] |"
                f" {value['device_ms']:.3f} | {value['filtered_ms']:.3f} | {value['gb_s']:,.0f} |"
                f" {value['of_copy_rate']:.0%} | {value['tflops']:.1f} | {value['of_matmul_rate']:.0%} |"
                f" {each['agreement']['same_rows']:.4f} | {each['cpu']['1']['ms']:.1f} |"
            )
    lines += ["", "| lists | where | recall@10 | batch 1 ms | batch 1,024 ms | train s | add s | open s |"]
    lines.append("|---" * 8 + "|")
    for kind, each in result.get("lists", {}).items():
        if "left_out" in each:
            lines.append(f"| {kind} | left out: {each['left_out']} | | | | | | |")
            continue
        for where in ("device", "cpu"):
            value = each[where]
            lines.append(
                f"| {kind} | {where} | {value['recall']:.3f} | {value['1']['ms']:.3f} | {value['1024']['ms']:.2f} |"
                f" {each['train_s']:.1f} | {each['add_s']:.1f} | {each['open_s']:.1f} |"
            )
    lines += [f"\nleft out for lack of time: {name}" for name in result["left_out"]]
    return "\n".join(lines)


def main() -> None:
    options = DEFAULTS | {part[2:].partition("=")[0]: part.partition("=")[2] for part in sys.argv[1:]}
    if unknown := options.keys() - DEFAULTS.keys():
        raise SystemExit(f"unknown options {sorted(unknown)}; allowed: {', '.join(f'--{name}' for name in DEFAULTS)}")
    device, rows, dim = options["device"], int(options["rows"]), int(options["dim"])
    out, started = Path(os.environ.get("OUT", WORK)), time.perf_counter()
    out.mkdir(parents=True, exist_ok=True)
    result: Result = {"device": device, "machine": installed(), "options": options, "left_out": []}
    result["device"] = torch.cuda.get_device_name(device) if device != "cpu" else "CPU (a trial)"
    result["rates"] = rates(device)

    def part(section: str, name: str, call: Callable[[], Result]) -> None:
        if time.perf_counter() - started > float(options["seconds"]):
            result["left_out"].append(f"{section} {name}")
            return
        print(f"{time.perf_counter() - started:6.1f} s  {section} {name}", file=sys.stderr, flush=True)
        result.setdefault(section, {})[name] = call()
        (out / "gpu.json").write_text(json.dumps(result, indent=1))

    with tempfile.TemporaryDirectory() as root:
        for storage in STORAGES:
            part(
                "flat",
                storage,
                lambda storage=storage: flat(device, written(Path(root), rows, dim, storage), result["rates"]),
            )
        for shape in options["shapes"].split(","):
            part("encode", shape, lambda shape=shape: encode(device, shape, int(options["texts"]), result["rates"]))
        for kind in ("ivf-flat", "ivf-sq8", "ivf-pq"):
            part(
                "lists",
                kind,
                lambda kind=kind: (
                    missing() or lists(device, kind, written(Path(root), rows, dim, "float32"), int(options["lists"]))
                ),
            )
    (out / "gpu.json").write_text(json.dumps(result, indent=1))
    print(show(result))


def missing() -> Result:
    """Why faiss's part is left out; empty where it is not."""
    from index.faiss_library import faiss_distribution  # noqa: PLC0415

    try:
        faiss_distribution()
    except MissingDependencyError as error:
        return {"left_out": str(error)}
    return {}


def written(root: Path, rows: int, dim: int, storage: Storage) -> VectorFile:
    folder = root / storage
    if not folder.exists():
        folder.mkdir()
        write_vectors(folder, blocks(rows, dim), dim, rows, storage)
    return VectorFile.open(folder)


if __name__ == "__main__":
    main()
