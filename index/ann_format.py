"""index.json: what an index was asked to be, what it became, and how well it finds what exact search finds."""

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from index.errors import IndexFormatError
from index.metric import Metric
from index.spec import IndexParams, Kind
from index.types import Effort

FORMAT = 1
FILE = "index.json"

_SETTINGS = ("nprobe", "ef", "refine")
_MOST_EFFORT = 1 << 16


@dataclass(frozen=True, slots=True)
class Recall:
    """Measured recall@k against exact search, ties counted as found.

    measured: mean over `queries` held-out vectors; low: its 95 % lower confidence bound; target: what was asked for.
    remote: the same bound over the quarter of them that lie farthest from their neighbours, as real queries do.
    """

    k: int
    target: float
    measured: float
    low: float
    remote: float
    queries: int

    @property
    def reached(self) -> bool:
        """Whether both lower bounds meet the target."""
        return min(self.low, self.remote) >= self.target


@dataclass(frozen=True, slots=True)
class Calibrated:
    """The least effort found that reaches the target at one k, and the recall measured with it."""

    effort: Effort
    recall: Recall


@dataclass(frozen=True, slots=True)
class About:
    """What an index folder holds. kind: never "auto". reason: why this kind, where it was not the one asked for.

    calibrated: at two values of k, ascending; empty for exact search. held_out, seed: see index.held_out.
    faiss, faiss_bytes: version that wrote ann.faiss, and the size of that file.
    """

    kind: Kind
    metric: Metric
    asked: Kind
    reason: str
    params: IndexParams
    calibrated: tuple[Calibrated, ...]
    held_out: int
    seed: int
    faiss: str | None
    faiss_bytes: int

    def effort(self, k: float) -> Effort:
        """Return the effort for the k nearest: geometric interpolation between the calibrated ones, and beyond."""
        low, high = self.calibrated
        ratio = max(0.0, math.log(k / low.recall.k) / math.log(high.recall.k / low.recall.k))

        def between(first: int | None, second: int | None) -> int | None:
            if first is None or second is None:
                return None
            # Deeper never costs less, however the two measurements fell out.
            raised: float = first * max(1.0, second / first) ** ratio
            return min(math.ceil(raised), _MOST_EFFORT)

        return Effort(*(between(getattr(low.effort, name), getattr(high.effort, name)) for name in _SETTINGS))


def write_about(folder: Path, about: About) -> None:
    """Write index.json."""
    text = json.dumps({"format": FORMAT, **asdict(about)}, indent=1, sort_keys=True, allow_nan=False)
    (folder / FILE).write_text(text + "\n", encoding="utf-8")


def read_about(folder: Path) -> About | None:
    """Read index.json; None where there is none: exact search over plain vectors, the first format of "flat".

    Raises IndexFormatError where it is damaged or of another version.
    """
    path = folder / FILE
    try:
        value: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        found = value.pop("format")
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise IndexFormatError(f"{path} is damaged: rebuild the index") from error
    if found != FORMAT:
        raise IndexFormatError(f"{path} has format {found!r}, this grapnel reads {FORMAT}: rebuild the index")
    try:
        value["params"] = IndexParams(**value["params"])
        value["calibrated"] = tuple(
            Calibrated(Effort(**each["effort"]), Recall(**each["recall"])) for each in value["calibrated"]
        )
        return About(**value)
    except (KeyError, TypeError, ValueError) as error:
        raise IndexFormatError(f"{path} is damaged ({error}): rebuild the index") from error
