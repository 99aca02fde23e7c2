"""The metric of a field: measured where there are labels, else as the fitted tree guesses, unless it abstains."""

from collections.abc import Callable
from typing import TypeAlias

from evaluation.advice import Asked, MetricAdvice, Wishes
from evaluation.collect_runs import one_length
from evaluation.collection_sample import FieldSample
from evaluation.features import features
from evaluation.spaces import exact_search, fit
from evaluation.statistics import Interval, Values, bootstrap_interval, paired
from evaluation.tree import FEATURE_SAMPLE, Tree, read_tree
from evaluation.utility import Utility
from index.errors import CorpusError, RequestError
from index.metric import METRICS, Metric, prepare
from index.types import Vectors

_ExactWorth: TypeAlias = Callable[[Vectors, Metric, Vectors], Values]
"""(prepared documents, metric, prepared queries) -> worth of exact search per query."""


def choose_metric(
    sample: FieldSample, asked: Asked | None, present: Metric, wishes: Wishes, tree: Tree | None = None
) -> MetricAdvice:
    """Return the metric: the present one where vectors have one length, by measurement with labels, else the tree's.

    present: the field's metric, kept unless another is better beyond doubt, or the tree knows such vectors and says
    otherwise. tree: None = the one that ships. Cost: three exact searches with labels, else the features.
    """
    if one_length(sample.vectors):
        return MetricAdvice(present, "all vectors have the same length: cosine, inner product and l2 rank them alike")
    if asked is not None and asked.utility is not None:
        return _measured(sample, asked.vectors, asked.utility, present, wishes)
    try:
        found = features(sample.vectors, sample=FEATURE_SAMPLE, seed=wishes.seed)
    except (RequestError, CorpusError) as error:
        return MetricAdvice(present, f"kept: the vectors' features are undefined ({error})", abstained=True)
    guess = (tree or read_tree()).guess({**found, "n": float(sample.total)})
    if guess.arm is None:
        why = f"kept: the tree {guess.why}; with --queries and --qrels the metric is measured"
        return MetricAdvice(present, why, abstained=True)
    return MetricAdvice(guess.arm.metric, f"the tree guesses it from {guess.why}", guess.path)


def _measured(sample: FieldSample, queries: Vectors, utility: Utility, present: Metric, wishes: Wishes) -> MetricAdvice:
    depth = sample.depth(wishes.k)

    def worth(prepared: Vectors, metric: Metric, vectors: Vectors) -> Values:
        return utility(sample.documents(exact_search(prepared, metric, vectors, depth).rows))

    values = {metric: worth(prepare(sample.vectors, metric), metric, prepare(queries, metric)) for metric in METRICS}
    best = max(METRICS, key=lambda metric: (values[metric].mean(), metric == present))
    measured: dict[str, tuple[float, Interval]] = {
        metric: (float(each.mean()), bootstrap_interval(each, seed=wishes.seed)) for metric, each in values.items()
    }
    compared = paired(values[best], values[present], seed=wishes.seed)
    chosen = best if compared.low > 0 else present
    gain = f"{utility.name} {compared.difference:+.4f} [{compared.low:+.4f}, {compared.high:+.4f}]"
    if best == present:
        why = "measured: the present metric is the best"
    elif chosen == best:
        why = f"measured: {gain} over {present}, the present metric"
    else:
        why = f"measured: {best} has {gain} over {present}: not beyond chance, so the present metric stays"
    return MetricAdvice(chosen, why, measured=measured, notes=_centring(values[chosen], worth, sample, queries, wishes))


def _centring(
    chosen: Values, worth: _ExactWorth, sample: FieldSample, queries: Vectors, wishes: Wishes
) -> tuple[str, ...]:
    space = fit("centred-cosine", sample.vectors)
    compared = paired(worth(space.documents, space.metric, space.queries(queries)), chosen, seed=wishes.seed)
    if compared.low <= 0:
        return ()
    gained = f"{compared.difference:+.4f} [{compared.low:+.4f}, {compared.high:+.4f}]"
    told = f"cosine of vectors less their mean would be worth {gained} more: no metric of a collection, but clients "
    return (f"{told}that bring vectors can subtract it",)
