"""The recommendation in `grapnel bench`: what a tree and a published rule guess without labels, beside what labels say.

    {"choices": {"tree": choice, "iceberg": choice, "measured": choice}, "path": [condition], "tree": text or null}

A choice is {"metric", "family", "why", "exact", "setting"}: metric and family of indexes, null where it abstains;
exact: what exact search under that metric is worth, a number; setting: the family's cheapest setting that is shown to
be no worse than exact search, as in the section "ann", null where none is, or this metric was not measured there.
"""

from collections.abc import Mapping
from typing import Final

from evaluation.bench_sections import Json, Setting
from evaluation.features import features
from evaluation.findings import ALPHA
from evaluation.regret import IndexFamily, family_of
from evaluation.tree import FEATURE_SAMPLE, Tree
from index.errors import RequestError
from index.metric import METRICS

_LISTS_OR_GRAPH: Final[Mapping[str, IndexFamily]] = {"partition": "lists", "graph": "graph"}
"""The published rule's families as ours."""


def recommendation(
    setting: Setting, tree: Tree | None, metrics: Json | None, ann: Json | None, iceberg: Json | None
) -> Json:
    """Put the guesses beside what was measured.

    tree: None = none is there. metrics, ann, iceberg: results of these sections (iceberg: of the meta-features'), None
    where they were left out. Raises RequestError without metrics, and as `features` does.
    Cost: features of 2,000 documents, seconds.
    """
    if metrics is None:
        raise RequestError("no metric could be measured: there is nothing to compare a guess with")
    arms, deployed, settings = metrics["arms"], metrics["deployed"], _settings(ann)
    found = features(setting.vectors.documents, sample=FEATURE_SAMPLE, seed=setting.seed)

    def choice(metric: str | None, family: str | None, why: str) -> Json:
        timed = metric == deployed or setting.vectors.unit  # of unit vectors all metrics are one
        return {
            "metric": metric,
            "family": family,
            "why": why,
            "exact": None if metric is None else arms[metric],
            "setting": settings.get(family) if family and timed else None,
        }

    guess = None if tree is None else tree.guess(found)
    if guess is None:
        guessed = choice(None, None, "no tree comes with this installation")
    elif guess.arm is None:
        guessed = choice(None, None, guess.why)
    else:
        seen = tree is not None and setting.vectors.data.task.name in tree.datasets
        why = f"{guess.why}; it was fitted to this dataset, too" if seen else guess.why
        guessed = choice(guess.arm.metric, guess.arm.family, why)
    if iceberg is None:
        ruled = choice(None, None, "the features that it looks at are undefined for these vectors")
    else:
        why = f"its thresholds are hand-set; methods it names: {', '.join(iceberg['methods'])}"
        ruled = choice(iceberg["metric"], _LISTS_OR_GRAPH[iceberg["family"]], why)
    return {
        "choices": {"tree": guessed, "iceberg": ruled, "measured": choice(*_measured(metrics, settings))},
        "path": [] if guess is None else list(guess.path),
        "tree": None if tree is None else tree.text(),
    }


def _settings(ann: Json | None) -> dict[str, Json]:
    """Return each family's cheapest setting that is good enough, where one is."""
    if ann is None:
        return {}
    result: dict[str, Json] = {}
    for name, knee in ann["knees"].items():
        family = family_of(ann["builds"][name]["kind"])
        if knee is not None and (family not in result or knee["p50_ms"] < result[family]["p50_ms"]):
            result[family] = knee
    return result


def _measured(metrics: Json, settings: Mapping[str, Json]) -> tuple[str, str | None, str]:
    """Return metric, family and why: the deployed metric unless an index's other one is better beyond chance."""
    deployed: str = metrics["deployed"]
    against = {name: metrics["against"][name] for name in METRICS if name in metrics["against"]}
    better = [name for name, each in against.items() if each["p"] < ALPHA and each["mean"] > 0]
    metric = max(better, key=lambda name: metrics["arms"][name]["mean"], default=deployed)
    family = min(settings, key=lambda name: settings[name]["p50_ms"], default=None)
    told = f"no metric of an index is shown to find more than {deployed}" if metric == deployed else "it finds the most"
    if family is None:
        return metric, None, f"{told}; no setting is shown to be no worse than exact search"
    return metric, family, f"{told}; of what is no worse than exact search, this is the fastest"
