"""Where records of the run database come from: texts in several spaces, histograms, and synthetic cones.

Everything is offline. What is known already is not made again, so collecting goes on where it was stopped.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Final, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from evaluation.bench_data import Limits, read_bench_task
from evaluation.bench_vectors import Embedded
from evaluation.collect_runs import Given
from evaluation.cone import Labelled, labelled
from evaluation.runs import Key
from evaluation.task import Task
from evaluation.utility import from_labels, from_qrels
from index.metric import prepare
from index.types import Rows, Vectors
from retrieval.encoders import EncoderConfig
from retrieval.progress import Progress, silent
from retrieval.sources.jsonl import parse_object
from retrieval.sources.lines import file_lines

MEASURE: Final = "nDCG@10"
QUERIES: Final = 300
"""Queries of a record at most."""

HISTOGRAMS: Final = "images/histograms"
CONES: Final = "synthetic cones"

_K: Final = 10

Cone: TypeAlias = tuple[float | None, float, tuple[int, int, int]]
"""Mean angle to a common mean in degrees (None = no mean), spread of lengths, (documents, dimension, classes)."""

GRID: Final[tuple[Cone, ...]] = (
    *product((None, 3.4, 15.0), (0.0, 0.1, 0.4), ((2_000, 32, 40), (4_000, 128, 100))),
    (None, 0.0, (20_000, 64, 400)),
    (3.4, 0.1, (20_000, 64, 400)),
    (15.0, 0.4, (20_000, 64, 400)),
    (3.4, 0.1, (50_000, 64, 500)),
)


@dataclass(frozen=True, slots=True)
class TextSpace:
    """An encoder and the lengths of its vectors: its own, 1, or the root of the number of words."""

    encoder: EncoderConfig
    lengths: Literal["own", "unit", "words"] = "own"


HASHING: Final[Mapping[str, TextSpace]] = {
    "hashing-256": TextSpace(EncoderConfig(kind="hashing", dim=256)),
    "hashing-256-words": TextSpace(EncoderConfig(kind="hashing", dim=256), lengths="words"),
}


def texts(
    folder: Path,
    work: Path,
    spaces: Mapping[str, TextSpace],
    sizes: Collection[int],
    known: Collection[Key],
    *,
    progress: Progress = silent,
) -> Iterator[Given]:
    """Yield what is not known yet of a BEIR folder: every space at every size, the largest as large as the dataset is.

    work: keeps encoded vectors. Raises as `read_task`.
    """
    data = read_bench_task(folder, None, Limits(queries=QUERIES, documents=max(sizes), train_queries=0), seed=0)
    task = data.task
    cuts = {len(rows): rows for rows in (part(task, size) for size in sorted(sizes))}
    words = [np.array([[len(text.split())] for text in each]) for each in (task.texts, [q.text for q in task.queries])]
    for name, space in spaces.items():
        missing = {n: rows for n, rows in cuts.items() if Key(task.name, name, n, 0) not in known}
        if not missing:
            continue
        vectors = Embedded(data, space.encoder, work, 0, progress)
        documents, queries = (
            _lengthened(each, space.lengths, count)
            for each, count in zip((vectors.documents, vectors.queries), words, strict=True)
        )
        for n, rows in missing.items():
            utility = from_qrels(MEASURE, _cut(task, rows))
            yield Given(Key(task.name, name, n, 0), task.family, documents[rows], queries, utility)


def _lengthened(vectors: Vectors, lengths: str, words: npt.NDArray[np.int64]) -> Vectors:
    if lengths == "own":
        return vectors
    unit = prepare(vectors, "cosine")
    roots: Vectors = np.sqrt(np.maximum(words, 1)).astype(np.float32)
    return unit if lengths == "unit" else unit * roots


def part(task: Task, size: int) -> Rows:
    """Return at most so many rows of a task, ascending: all that are judged, the rest a seeded sample."""
    judged = sorted({task.row_of[doc_id] for grades in task.qrels.values() for doc_id in grades})
    others = np.setdiff1d(np.arange(len(task.doc_ids)), judged)
    rest = np.random.default_rng(0).permutation(others)[: max(0, size - len(judged))]
    return np.sort(np.concatenate([np.array(judged, dtype=np.int64), rest]))


def _cut(task: Task, rows: Rows) -> Task:
    def kept(column: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(column[row] for row in rows.tolist())

    documents = kept(task.doc_ids), kept(task.texts), kept(task.titles)
    return Task(task.name, task.family, *documents, queries=task.queries, qrels=task.qrels)


def passages(file: Path, sizes: Collection[int], known: Collection[Key]) -> Iterator[Given]:
    """Yield histograms of the bytes of passages, whole articles at a time; a passage's label is its article.

    file: lines of {"_id": "article#number", "text"}, such as wikispeedia's. Raises CorpusError, StorageError.
    """
    missing = [size for size in sorted(sizes) if Key(file.parent.name, "bytes", size, 0) not in known]
    if not missing:
        return
    articles: dict[str, list[str]] = {}
    for line in file_lines(file, file.name):
        record = parse_object(line.text, f"{file.name} line {line.number}")
        articles.setdefault(record["_id"].rpartition("#")[0], []).append(record["text"])
    names = list(articles)
    order = np.random.default_rng(0).permutation(len(names)).tolist()
    read = [(text, place) for place in order for text in articles[names[place]]]
    for size in missing:
        split = np.random.default_rng(0).permutation(size + QUERIES)
        labels = np.array([read[place][1] for place in split])
        vectors = byte_histograms([read[place][0] for place in split])
        asked = size + np.flatnonzero(np.isin(labels[size:], labels[:size]))
        utility = from_labels("label-precision", labels[:size], labels[asked], _K)
        key = Key(file.parent.name, "bytes", size, 0)
        yield Given(key, HISTOGRAMS, vectors[:size], vectors[asked], utility)


def byte_histograms(each: Sequence[str]) -> Vectors:
    """Return how often each byte of UTF-8 occurs in each text, float32 (len(each), 256)."""
    counts = [np.bincount(np.frombuffer(text.encode(), dtype=np.uint8), minlength=256) for text in each]
    return np.stack(counts).astype(np.float32)


def digits(known: Collection[Key]) -> Iterator[Given]:
    """Yield handwritten digits (UCI, bundled with scikit-learn) as pixels and as histograms of pixels."""
    from sklearn.datasets import load_digits  # type: ignore[import-untyped]  # noqa: PLC0415  heavy

    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(images))
    images, labels = images[order].astype(np.float32), labels[order].astype(np.int64)
    n = len(images) - QUERIES
    spaces = {"pixels": images, "pixels-unit": prepare(images, "cosine"), "quadrants": quadrant_histograms(images)}
    for space, vectors in spaces.items():
        key = Key("digits", space, n, 0)
        if key not in known:
            utility = from_labels("label-precision", labels[:n], labels[n:], _K)
            yield Given(key, HISTOGRAMS, vectors[:n], vectors[n:], utility)


def quadrant_histograms(images: npt.NDArray[np.float32]) -> Vectors:
    """Return how often each of the 17 grey levels occurs in each quarter of 8 x 8 images, float32 (N, 68)."""
    parts = images.reshape(-1, 2, 4, 2, 4).swapaxes(2, 3).reshape(len(images), 4, 16).astype(np.int64)
    counts: npt.NDArray[np.int64] = (parts[..., None] == np.arange(17)).sum(axis=2)
    return counts.reshape(len(images), 4 * 17).astype(np.float32)


def cones(known: Collection[Key], grid: Sequence[Cone] = GRID) -> Iterator[Given]:
    """Yield labelled synthetic sets; those of one angle are one dataset, as they differ little."""
    for angle, jitter, (count, dim, classes) in grid:
        name = "isotropic" if angle is None else f"cone-{angle:g}"
        key = Key(name, f"gaussian-{dim}-{classes}-jitter-{jitter:g}", count, 0)
        if key not in known:
            data = varied(labelled("isotropic", count=count, dim=dim, classes=classes, queries=QUERIES), angle, jitter)
            utility = from_labels("label-precision", data.labels, data.query_labels, _K)
            yield Given(key, CONES, data.documents, data.queries, utility)


def varied(data: Labelled, angle_deg: float | None, jitter: float, *, seed: int = 0) -> Labelled:
    """Return an isotropic set moved away from the origin and with lengths that vary, as evaluation.cone makes its own.

    angle_deg: mean angle to the common mean, None = no mean. jitter: coefficient of variation of each vector's factor.
    """
    rng = np.random.default_rng([seed, 1])  # not the stream that the classes' centres were drawn from
    dim = data.documents.shape[1]
    length = float(np.sqrt((data.documents.astype(np.float64) ** 2).sum(axis=1).mean()))
    direction = rng.normal(size=dim)
    direction *= 0.0 if angle_deg is None else length / np.tan(np.radians(angle_deg)) / np.linalg.norm(direction)
    sigma = np.sqrt(np.log1p(jitter**2))
    documents, queries = (
        ((each + direction) * rng.lognormal(sigma=sigma, size=(len(each), 1))).astype(np.float32)
        for each in (data.documents, data.queries)
    )
    return Labelled(documents, data.labels, queries, data.query_labels)
