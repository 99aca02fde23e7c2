"""Where records of the run database come from: real datasets in several spaces, images, and synthetic cones.

Everything is offline. What is known already is not made again, so collecting goes on where it was stopped.
"""

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

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

MEASURE: Final = "nDCG@10"
QUERIES: Final = 300
"""Queries of a record at most."""

BYTES: Final = "bytes"
"""The space of byte histograms, which belongs to a family of its own."""

HISTOGRAMS: Final = "images/histograms"
CONES: Final = "synthetic cones"

_K: Final = 10
_DIGIT_QUERIES: Final = 300

ANGLES_DEG: Final = (None, 3.4, 15.0)
JITTERS: Final = (0.0, 0.1, 0.4)
SHAPES: Final = ((2_000, 32, 40), (4_000, 128, 100), (4_000, 64, 400))
"""(documents, dimension, classes) of the synthetic sets."""


@dataclass(frozen=True, slots=True)
class TextSpace:
    """An encoder and what is done to its vectors. longer: each times the root of its text's length in words."""

    encoder: EncoderConfig
    longer: bool = False


HASHING: Final[Mapping[str, TextSpace]] = {
    "hashing-256": TextSpace(EncoderConfig(kind="hashing", dim=256)),
    "hashing-256-long": TextSpace(EncoderConfig(kind="hashing", dim=256), longer=True),
}


class TextSource:
    """The records of one BEIR folder. work: keeps encoded vectors. spaces: by name; BYTES comes without a model."""

    def __init__(self, folder: Path, work: Path, spaces: Mapping[str, TextSpace], progress: Progress = silent) -> None:
        everything = Limits(queries=QUERIES, documents=1 << 40, train_queries=0)
        self._data = read_bench_task(folder, None, everything, seed=0)
        self._work = work
        self._spaces = spaces
        self._progress = progress

    def givens(self, sizes: Collection[int], known: Collection[Key], *, seed: int = 0) -> Iterator[Given]:
        """Yield what is not known yet: every space at every size, the largest as large as the dataset is."""
        task = self._data.task
        makers: dict[str, Callable[[], tuple[Vectors, Vectors]]] = {
            name: lambda space=space: self._encoded(space)  # type: ignore[misc]  # bound now, not when called
            for name, space in self._spaces.items()
        }
        makers[BYTES] = lambda: (byte_histograms(task.texts), byte_histograms([query.text for query in task.queries]))
        cuts = {len(rows): rows for rows in (part(task, size, seed) for size in sorted(sizes))}
        for space, make in makers.items():
            missing = {n: rows for n, rows in cuts.items() if Key(task.name, space, n, seed) not in known}
            if not missing:
                continue
            documents, queries = make()
            for n, rows in missing.items():
                family = HISTOGRAMS if space == BYTES else task.family
                utility = from_qrels(MEASURE, _cut(task, rows))
                yield Given(Key(task.name, space, n, seed), family, documents[rows], queries, utility)

    def _encoded(self, space: TextSpace) -> tuple[Vectors, Vectors]:
        vectors = Embedded(self._data, space.encoder, self._work, 0, self._progress)
        if not space.longer:
            return vectors.documents, vectors.queries
        texts = vectors.texts(), [query.text for query in self._data.task.queries]
        first, second = (
            each * np.sqrt([[max(1, len(text.split()))] for text in of]).astype(np.float32)
            for each, of in zip((vectors.documents, vectors.queries), texts, strict=True)
        )
        return first, second


def part(task: Task, size: int, seed: int) -> Rows:
    """Return at most so many rows of a task, ascending: all that are judged, the rest a seeded sample."""
    judged = sorted({task.row_of[doc_id] for grades in task.qrels.values() for doc_id in grades})
    others = np.setdiff1d(np.random.default_rng(seed).permutation(len(task.doc_ids)), judged, assume_unique=True)
    rest = np.random.default_rng(seed).permutation(others)[: max(0, size - len(judged))]
    return np.sort(np.concatenate([np.array(judged, dtype=np.int64), rest.astype(np.int64)]))


def _cut(task: Task, rows: Rows) -> Task:
    def kept(column: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(column[row] for row in rows.tolist())

    documents = kept(task.doc_ids), kept(task.texts), kept(task.titles)
    return Task(task.name, task.family, *documents, queries=task.queries, qrels=task.qrels)


def byte_histograms(texts: Collection[str]) -> Vectors:
    """Return how often each byte of UTF-8 occurs in each text, float32 (len(texts), 256)."""
    counts = [np.bincount(np.frombuffer(text.encode(), dtype=np.uint8), minlength=256) for text in texts]
    return np.stack(counts).astype(np.float32)


def digits(known: Collection[Key], *, seed: int = 0) -> Iterator[Given]:
    """Yield handwritten digits (UCI, bundled with scikit-learn) as pixels and as histograms of pixels."""
    from sklearn.datasets import load_digits  # type: ignore[import-untyped]  # noqa: PLC0415  heavy

    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(seed).permutation(len(images))
    images, labels = images[order].astype(np.float32), labels[order].astype(np.int64)
    n = len(images) - _DIGIT_QUERIES
    spaces = {"pixels": images, "pixels-unit": prepare(images, "cosine"), "quadrants": quadrant_histograms(images)}
    for space, vectors in spaces.items():
        key = Key("digits", space, n, seed)
        if key not in known:
            utility = from_labels("label-precision", labels[:n], labels[n:], _K)
            yield Given(key, HISTOGRAMS, vectors[:n], vectors[n:], utility)


def quadrant_histograms(images: npt.NDArray[np.float32]) -> Vectors:
    """Return how often each of the 17 grey levels occurs in each quarter of 8 x 8 images, float32 (N, 68)."""
    parts = images.reshape(-1, 2, 4, 2, 4).swapaxes(2, 3).reshape(len(images), 4, 16).astype(np.int64)
    counts = (parts[..., None] == np.arange(17)).sum(axis=2)
    return counts.reshape(len(images), -1).astype(np.float32)


def cones(known: Collection[Key], *, seed: int = 0) -> Iterator[Given]:
    """Yield labelled synthetic sets over all angles to a common mean, jitters of the length and shapes."""
    for angle in ANGLES_DEG:
        for jitter in JITTERS:
            for count, dim, classes in SHAPES:
                name = f"cone-{'none' if angle is None else f'{angle:g}'}-{jitter:g}"
                key = Key(name, f"gaussian-{dim}-{classes}", count, seed)
                if key in known:
                    continue
                data = varied(labelled("isotropic", count=count, dim=dim, classes=classes, seed=seed), angle, jitter)
                utility = from_labels("label-precision", data.labels, data.query_labels, _K)
                yield Given(key, CONES, data.documents, data.queries, utility)


def varied(data: Labelled, angle_deg: float | None, jitter: float, *, seed: int = 0) -> Labelled:
    """Return an isotropic set moved away from the origin and with lengths that vary, as evaluation.cone makes its own.

    angle_deg: mean angle to the common mean, None = no mean. jitter: coefficient of variation of each vector's factor.
    """
    rng = np.random.default_rng(seed)
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
