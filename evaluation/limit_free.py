"""Free embeddings: how many documents d dimensions can hold when nothing but the judgements decides the vectors.

Every query wants another set of k documents, and queries and documents are optimised on the very judgements they are
measured by. What fails here no encoder of that dimension can do by gradient descent; what succeeds, a trained encoder
may still miss. Protocol (section 4 of arXiv 2508.21038): unit vectors, Adam, full-batch InfoNCE whose target is
uniform over the relevant documents, vectors scaled back to unit length after every step.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING

from index.errors import RequestError
from retrieval.progress import Progress, silent

if TYPE_CHECKING:
    import torch

LEARNING_RATE = 0.01
TEMPERATURE = 0.1
MAX_STEPS = 100_000
PATIENCE = 1_000
"""Steps without a gain of MIN_GAIN in the loss after which a start is given up."""

MIN_GAIN = 1e-5
_EVERY = 10
"""Steps between two looks at rankings and loss: as costly as a third of a step."""

SWEEP = range(-4, 6)
"""Numbers of documents tried around the bisected one, because success is not quite monotone."""

PUBLISHED = {4: 10, 6: 19, 8: 28, 10: 36, 12: 47, 16: 79, 20: 120, 24: 170, 32: 296, 40: 460, 45: 626}
"""Dimensions -> critical number of documents for k = 2, the paper's table."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """One optimisation. solved: some start ranked all relevant documents of every query first. steps: taken."""

    solved: bool
    steps: int


@dataclass(frozen=True, slots=True)
class Critical:
    """dim dimensions solve every set of k among `documents` documents, and among no more that was tried.

    tried: documents -> attempt, ascending. fit: `published_fit(dim)`, for k = 2 only.
    """

    dim: int
    k: int
    documents: int
    tried: Mapping[int, Attempt]
    seconds: float
    fit: float | None


def published_fit(dim: int) -> float:
    """Return the paper's polynomial for the critical number of documents at k = 2; poor at 12 dimensions and below."""
    return -10.5322 + 4.0309 * dim + 0.0520 * dim**2 + 0.0037 * dim**3


def solve(documents: int, dim: int, *, k: int = 2, seeds: Sequence[int] = (0, 1)) -> Attempt:
    """Optimise all C(documents, k) queries and the documents in `dim` dimensions, one start per seed, side by side.

    Ends when one start has every ranking right (looked at every 10 steps), or each took PATIENCE steps without gain.
    Raises RequestError when there are no queries, dimensions or seeds. Cost, two seeds on one core: 0.3 ms a step for
    30 documents, growing with documents * queries; success takes some thousand steps, failure about 5,000.
    """
    if not 1 <= k < documents:
        raise RequestError(f"k is {k}, expected 1 to {documents - 1}, fewer than the {documents} documents")
    if dim < 1 or not seeds:
        raise RequestError(f"dim is {dim} with {len(seeds)} seeds, expected at least 1 of each")
    import torch  # noqa: PLC0415  heavy

    relevant = torch.tensor(list(combinations(range(documents), k)))
    with torch.inference_mode():
        points = torch.stack([_start(len(relevant) + documents, dim, seed) for seed in seeds])
        return _optimise(points, relevant.expand(len(seeds), -1, -1))


def _start(count: int, dim: int, seed: int) -> "torch.Tensor":
    import torch  # noqa: PLC0415  heavy

    points = torch.randn(count, dim, generator=torch.Generator().manual_seed(seed))
    return points.div_(points.norm(dim=-1, keepdim=True))


def _optimise(points: "torch.Tensor", relevant: "torch.Tensor") -> Attempt:
    """Move points, (starts, queries + documents, dim), in place. relevant: (starts, queries, k) document numbers."""
    import torch  # noqa: PLC0415  heavy

    starts, queries, k = relevant.shape
    target = torch.zeros(starts, queries, points.shape[1] - queries).scatter_(2, relevant, 1 / k)
    others = target == 0
    adam = _Adam(points)
    gradient = torch.empty_like(points)
    best, waited = torch.full((starts,), math.inf), torch.zeros(starts)
    for step in range(MAX_STEPS):
        asked, held = points[:, :queries], points[:, queries:]
        scores = asked @ held.mT
        share = torch.softmax(scores / TEMPERATURE, dim=2)
        if step % _EVERY == 0:
            active = waited < PATIENCE
            worst = scores.gather(2, relevant).amin(2)
            right = (worst > scores.where(others, -math.inf).amax(2)).all(1)
            if bool((right & active).any()):
                return Attempt(True, step)
            loss = -share.gather(2, relevant).log().mean((1, 2))
            gained = loss < best - MIN_GAIN
            best = loss.where(gained, best)
            waited = torch.where(active, (waited + _EVERY).where(~gained, 0), waited)
            if bool((waited >= PATIENCE).all()):
                return Attempt(False, step)
        slope = (share - target) / (TEMPERATURE * queries)
        torch.matmul(slope, held, out=gradient[:, :queries])
        torch.matmul(slope.mT, asked, out=gradient[:, queries:])
        adam.step(gradient)
        points /= points.norm(dim=2, keepdim=True)
    return Attempt(False, MAX_STEPS)


class _Adam:
    """Adam (Kingma & Ba, ICLR 2015), its usual constants but the rate; without what torch's costs for small tensors."""

    def __init__(self, points: "torch.Tensor", first: float = 0.9, second: float = 0.999) -> None:
        self._points, self._rates = points, (first, second)
        self._mean, self._square = points.new_zeros(points.shape), points.new_zeros(points.shape)
        self._steps = 0

    def step(self, gradient: "torch.Tensor") -> None:
        first, second = self._rates
        self._steps += 1
        self._mean.lerp_(gradient, 1 - first)
        self._square.mul_(second).addcmul_(gradient, gradient, value=1 - second)
        scale = math.sqrt(1 - second**self._steps)
        root = self._square.sqrt().add_(1e-8 * scale)
        self._points.addcdiv_(self._mean, root, value=-LEARNING_RATE * scale / (1 - first**self._steps))


def critical_n(dim: int, *, k: int = 2, seeds: Sequence[int] = (0, 1), progress: Progress = silent) -> Critical:
    """Return the largest number of documents whose every set of k `dim` dimensions can rank first.

    Doubles until an attempt fails, bisects, then tries the neighbours in SWEEP: the largest that was solved counts.
    progress: called after each attempt with how many there were.
    Raises RequestError as `solve`. Cost, two seeds on one core: 3 s for 4 dimensions, 6 s for 6, 13 s for 8.
    """
    begin = time.perf_counter()
    tried: dict[int, Attempt] = {}

    def solved(documents: int) -> bool:
        if documents not in tried:
            tried[documents] = solve(documents, dim, k=k, seeds=seeds)
            progress(f"{dim} dimensions", len(tried), None)
        return tried[documents].solved

    middle = _boundary(solved, k + 1)
    for offset in SWEEP:
        if middle + offset > k:
            solved(middle + offset)
    return Critical(
        dim=dim,
        k=k,
        documents=max((documents for documents, attempt in tried.items() if attempt.solved), default=k),
        tried=dict(sorted(tried.items())),
        seconds=time.perf_counter() - begin,
        fit=published_fit(dim) if k == 2 else None,
    )


def _boundary(solved: Callable[[int], bool], least: int) -> int:
    """Return a number that is solved while the next is not; least - 1 where `least` is not solved."""
    low, high = least - 1, least
    while solved(high):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if solved(middle) else (low, middle)
    return low
