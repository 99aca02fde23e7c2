"""Probes of documents: hubs, imbalance, fewer dimensions, near-duplicates, vectors of two encoders."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from evaluation.hubness import anti_hub_share, gini, k_occurrence_skew, k_occurrences
from evaluation.probes import ProbeRow, Search, TaskVectors, probe_row
from evaluation.recall import first_of_each
from evaluation.utility import Utility
from index.errors import RequestError, ShapeError
from index.types import Rows, Vectors

_HUB_SAMPLE = 5_000
"""Documents that are searched for the neighbours of documents."""


def hubness(
    data: TaskVectors, utility: Utility, searches: Mapping[str, Search], *, seed: int = 0
) -> tuple[ProbeRow, ...]:
    """Measure hubs per metric. searches: by the metric's name; every one searches the same vectors.

    measures: `skew`, `gini`, `anti_hubs` of how often documents are among the k nearest of other documents (of 5,000
    at most, without themselves), and with `_queries` appended, among those of the queries.
    Raises RequestError on k >= N or no metric.
    """
    count = len(data.documents)
    if not searches or data.k >= count:
        raise RequestError(
            f"{len(searches)} metrics, k = {data.k}: expected at least one, and k < {count}, the documents"
        )
    rng = np.random.default_rng(seed)
    chosen = np.sort(rng.choice(count, min(count, _HUB_SAMPLE), replace=False))
    rows = []
    for name, search in searches.items():
        found = search(data.documents, data.queries, data.k)
        among = without_self(search(data.documents, data.documents[chosen], data.k + 1), chosen)
        measures = _hub_measures(among, count) | {
            f"{measure}_queries": value for measure, value in _hub_measures(found, count).items()
        }
        rows.append(probe_row("hubness", {"metric": name}, utility(found), seed, measures))
    return tuple(rows)


def _hub_measures(rows: Rows, count: int) -> dict[str, float]:
    return {
        "skew": k_occurrence_skew(rows, count),
        "gini": gini(k_occurrences(rows, count)),
        "anti_hubs": anti_hub_share(rows, count),
    }


def without_self(rows: Rows, own: Rows) -> Rows:
    """Return (Q, k) of rows (Q, k + 1): each query's own row left out, or its last where it did not find itself."""
    mine = rows == own[:, None]
    mine[~mine.any(axis=1), -1] = True
    first = mine & (np.cumsum(mine, axis=1) == 1)
    rest: Rows = rows[~first].reshape(len(rows), -1)
    return rest


def imbalance(
    data: TaskVectors,
    utility_of: Callable[[Rows], Utility],
    search: Search,
    *,
    labels: npt.NDArray[np.int64],
    seed: int = 0,
    exponents: Sequence[float] = (0.0, 0.5, 1.0, 1.5),
) -> tuple[ProbeRow, ...]:
    """Resample the documents so that class sizes follow Zipf's law, size of the r-th class ~ r^-s; s = 0: all equal.

    labels: int64 (N,), class of each document; the greatest class stays the greatest. Every setting keeps about as many
    documents as every other, so that only balance differs. utility_of: from the rows kept, ascending, the utility of
    rankings of these alone (their class sizes are others, so its ceiling is).
    measures: documents, least and most: sizes of classes.
    Raises ShapeError on labels of another length, RequestError on fewer than 2 classes or negative exponents.
    """
    if labels.shape != (len(data.documents),):
        raise ShapeError(f"labels have shape {labels.shape}, expected one for each of {len(data.documents)} documents")
    classes, sizes = np.unique(labels, return_counts=True)
    if len(classes) < 2 or not exponents or min(exponents) < 0:
        raise RequestError(f"{len(classes)} classes, exponents {tuple(exponents)}: expected 2 classes, none negative")
    order = np.argsort(-sizes, kind="stable")
    wanted = zipf_sizes(sizes[order], exponents)
    rows = []
    for exponent, counts in zip(exponents, wanted, strict=True):
        rng = np.random.default_rng(seed)
        parts = [
            rng.permutation(np.flatnonzero(labels == classes[place]))[:size]
            for place, size in zip(order, counts, strict=True)
        ]
        kept = np.sort(np.concatenate(parts)).astype(np.int64)
        values = utility_of(kept)(search(data.documents[kept], data.queries, data.k))
        measures = {"documents": float(len(kept)), "least": float(counts.min()), "most": float(counts.max())}
        rows.append(probe_row("imbalance", {"exponent": exponent}, values, seed, measures))
    return tuple(rows)


def zipf_sizes(sizes: npt.NDArray[np.int64], exponents: Sequence[float]) -> list[npt.NDArray[np.int64]]:
    """Return class sizes for each exponent, at least 1 and at most those there are, all of about the same sum.

    sizes: int64 (c,), falling. The sum is the greatest that every exponent can have.
    """
    ranks = np.arange(1, len(sizes) + 1, dtype=np.float64)
    weights = [ranks**-exponent / (ranks**-exponent).sum() for exponent in exponents]
    total = min(float((sizes / weight).min()) for weight in weights)
    return [np.clip(np.floor(total * weight + 1e-9).astype(np.int64), 1, sizes) for weight in weights]


def dimension_truncation(
    data: TaskVectors, utility: Utility, search: Search, *, dims: Sequence[int] | None = None, seed: int = 0
) -> tuple[ProbeRow, ...]:
    """Keep the first dimensions only, as Matryoshka embeddings allow. dims: None = D, D/2, D/4 ... down to 8.

    measures: `energy`, the share of the documents' squared length that is kept.
    Raises RequestError on dimensions outside 1..D.
    """
    full = data.documents.shape[1]
    chosen = (
        [full >> shift for shift in range(full.bit_length()) if full >> shift >= min(8, full)] if dims is None else dims
    )
    if not chosen or not all(1 <= dim <= full for dim in chosen):
        raise RequestError(f"dimensions {tuple(chosen)}: expected some from 1 to {full}")
    energy = np.cumsum(np.square(data.documents, dtype=np.float64).sum(axis=0))
    rows = []
    for dim in chosen:
        documents, queries = (np.ascontiguousarray(part[:, :dim]) for part in (data.documents, data.queries))
        measures = {"energy": float(energy[dim - 1] / energy[-1])} if energy[-1] > 0 else {}
        values = utility(search(documents, queries, data.k))
        rows.append(probe_row("dimension truncation", {"dim": float(dim)}, values, seed, measures))
    return tuple(rows)


def near_duplicates(
    data: TaskVectors,
    utility: Utility,
    search: Search,
    *,
    copies: Sequence[int] = (0, 1, 4),
    share: float = 0.2,
    noise: float = 1e-3,
    seed: int = 0,
) -> tuple[ProbeRow, ...]:
    """Add near-copies of a share of the documents, chosen at random; copies: how many of each.

    noise: their distance to the original, in lengths of it. Two rows a setting: credit "none", a copy is worth nothing
    and crowds others out; credit "original", a copy stands for its document, and repetitions are taken out after the
    search (so fewer than k documents may be left).
    measures: `crowded`, share of the k places that go to what is there already.
    Raises RequestError on a share outside (0, 1], negative copies or noise.
    """
    if not 0 < share <= 1 or noise < 0 or not copies or min(copies) < 0:
        raise RequestError(f"copies {tuple(copies)} of {share}, noise {noise}: expected 0 < share <= 1, none negative")
    rng = np.random.default_rng(seed)
    count = len(data.documents)
    chosen = np.sort(rng.choice(count, max(1, round(share * count)), replace=False)).astype(np.int64)
    rows = []
    for number in copies:
        origin = np.concatenate([np.arange(count), np.tile(chosen, number)])
        documents = np.concatenate([data.documents, _shaken(data.documents[np.tile(chosen, number)], noise, rng)])
        found = search(documents, data.queries, data.k)
        originals = np.where(found >= 0, origin[found], -1)
        fresh = first_of_each(originals)
        crowded = float((~fresh & (originals >= 0)).mean())
        for credit, judged in (
            ("none", np.where(found < count, found, -1)),
            ("original", np.where(fresh, originals, -1)),
        ):
            setting: dict[str, str | float] = {"copies": float(number), "credit": credit}
            values = utility(_left_aligned(judged) if credit == "original" else judged)
            rows.append(probe_row("near-duplicates", setting, values, seed, {"crowded": crowded}))
    return tuple(rows)


def _shaken(vectors: Vectors, noise: float, rng: np.random.Generator) -> Vectors:
    directions = rng.normal(size=vectors.shape)
    norms = np.maximum(np.linalg.norm(directions, axis=1, keepdims=True), np.finfo(np.float64).tiny)
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors + noise * lengths * directions / norms, dtype=np.float32)


def _left_aligned(rows: Rows) -> Rows:
    return np.take_along_axis(rows, np.argsort(rows < 0, axis=1, kind="stable"), axis=1)


def mixed_encoders(
    data: TaskVectors,
    utility: Utility,
    search: Search,
    *,
    new: TaskVectors,
    seed: int = 0,
    shares: Sequence[float] = (0.0, 0.25, 0.5, 0.75, 1.0),
) -> tuple[ProbeRow, ...]:
    """Replace a random share of the documents' vectors by another encoder's, in one index, as careless upgrades do.

    data: the old encoder's vectors; new: the same documents and queries by the new one. Two rows a setting: queries
    "old" and "new". A document of one encoder is never comparable with a query of the other, so utility falls in
    between; two fields side by side, each asked by its own encoder, do not have this.
    Raises ShapeError where the two differ in shape, RequestError on shares outside [0, 1].
    """
    if new.documents.shape != data.documents.shape or new.queries.shape != data.queries.shape:
        raise ShapeError(
            f"new vectors are {new.documents.shape} and {new.queries.shape}, old ones {data.documents.shape} and "
            f"{data.queries.shape}: only vectors of one dimension can be mixed in an index"
        )
    if not shares or not all(0 <= share <= 1 for share in shares):
        raise RequestError(f"shares are {tuple(shares)}, expected numbers from 0 to 1, at least one")
    order = np.random.default_rng(seed).permutation(len(data.documents))
    rows = []
    for share in shares:
        documents = data.documents.copy()
        replaced = order[: round(share * len(order))]
        documents[replaced] = new.documents[replaced]
        for asked, queries in (("old", data.queries), ("new", new.queries)):
            setting: dict[str, str | float] = {"share": share, "queries": asked}
            rows.append(probe_row("mixed encoders", setting, utility(search(documents, queries, data.k)), seed))
    return tuple(rows)
