"""What the report calls things, and how it explains them to somebody who has not read the code."""

from collections.abc import Mapping
from typing import Final

STAGES: Final[Mapping[str, str]] = {
    "ceiling": "perfect ranking",
    "embedding": "embedding loss",
    "metric": "metric loss",
    "ann": "ANN loss",
    "quantisation": "quantisation loss",
    "rerank": "fusion, rerank gain",
    "final": "what is found",
}
"""Terms of a ledger."""

METRICS: Final[Mapping[str, str]] = {
    "ip": "inner product",
    "l2": "Euclidean distance",
    "cosine": "cosine",
    "centred-cosine": "cosine of vectors less the documents' mean",
    "whitened": "cosine after making all directions vary alike",
    "csls": "cosine less the density around the document: hubs count less",
    "learned": "distance after a linear map that was fitted to the train split",
}

CHOOSERS: Final[Mapping[str, str]] = {
    "tree": "the tree",
    "iceberg": "Iceberg's rule",
    "measured": "measured here",
}
"""Who recommends."""

INDEX_FAMILIES: Final[Mapping[str, str]] = {"graph": "a graph", "lists": "inverted lists", "exact": "exact search"}

PROBES: Final[Mapping[str, str]] = {
    "hubness": "Other metrics, and how unevenly documents are near others under each (skew, Gini).",
    "dimension truncation": "Only the first so many dimensions are kept; energy is the share of squared length left.",
    "filters": "Each query may only find the share of the documents that its filter leaves: any, near or far ones.",
    "near-duplicates": "A fifth of the documents get so many near-copies, which count as their original or not at all.",
    "imbalance": "Topics are resampled so that their sizes follow Zipf's law with this exponent.",
    "out-of-distribution": "Queries are pulled by this share toward documents that they do not ask for.",
    "popularity": "Queries by how many others want the same documents; weighted: each counts as often as it is wanted.",
    "runbook": "A living collection after each step; ghosts are results that were deleted or never there.",
}

_OF_GEOMETRY: Final[Mapping[str, str]] = {
    "s10_": "hubs: skewness of how often a document is among the 10 nearest of others",
    "gini10_": "hubs: Gini coefficient of how often a document is among the 10 nearest of others",
    "purity10_": "share of the 10 nearest labelled documents that have the same label",
}

_FEATURES: Final[Mapping[str, str]] = {
    "n": "documents",
    "d": "dimensions",
    "norm_cv": "variation of the vectors' lengths: standard deviation over mean",
    "mean_ratio": "length of the mean vector over the mean length: 0 = around the origin, 1 = all the same",
    "ra_mean_deg": "mean angle to the mean vector, degrees: small = a narrow cone",
    "ra_pair_deg": "mean angle of two vectors, degrees",
    "dbi_euclidean": "Davies-Bouldin index of clusters of the vectors: small = well separated",
    "dbi_cosine": "the same of the vectors scaled to length 1",
    "rc_1": "contrast: mean distance over mean distance to the nearest vector; near 1 = all equally far",
    "rc_10": "the same for the 10th nearest",
    "rc_100": "the same for the 100th nearest",
    "lid": "local intrinsic dimension around a vector",
    "effective_rank": "dimensions that the vectors really use",
    "query_shift": "how far queries lie from the documents: about 1 = as another document would",
}


def feature_meaning(name: str) -> str:
    """Return what a meta-feature of evaluation.features means; "" for one that is not known."""
    for prefix, meaning in _OF_GEOMETRY.items():
        if name.startswith(prefix):
            geometry = name.removeprefix(prefix).replace("_", "-")
            return f"{meaning}; {METRICS.get(geometry, geometry)}"
    return _FEATURES.get(name, "")
