"""The recommendation of `grapnel bench`: guesses beside measurements, and abstentions that say so."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from evaluation.bench_data import BenchTask
from evaluation.bench_recommendation import recommendation
from evaluation.bench_sections import Setting
from evaluation.bench_vectors import Embeddings
from evaluation.regret import Arm
from evaluation.task import Task
from evaluation.tree import FEATURES, Leaf, Split, Support, Tree
from evaluation.utility import from_qrels
from index.errors import RequestError
from retrieval.encoders import EncoderConfig
from retrieval.types import Query

DOCUMENTS = 60
ZERO = np.zeros(len(FEATURES))
EVERYWHERE = Support(("a run",), ZERO[None], ZERO, ZERO + 1, ZERO - 100, ZERO + 100, reach=1e9)
LISTS = Leaf(Arm("ip", "lists"), 5, 0.01, ("digits",))
GRAPH = Leaf(Arm("l2", "graph"), 6, 0.02, ("cones",))
TREE = Tree(Split("d", 40.0, GRAPH, LISTS), EVERYWHERE, {"digits": "images/histograms"}, 11)
ICEBERG = {"metric": "ip", "family": "partition", "methods": ["ScaNN", "Fargo"]}


@pytest.fixture(scope="module")
def setting(tmp_path_factory: pytest.TempPathFactory) -> Setting:
    rng = np.random.default_rng(2)
    texts = tuple(" ".join(f"w{word}" for word in rng.integers(50, size=12)) for _ in range(DOCUMENTS))
    doc_ids = tuple(f"d{row}" for row in range(DOCUMENTS))
    queries = tuple(Query(f"q{row}", texts[row]) for row in range(4))
    task = Task("words", "words", doc_ids, texts, ("",) * DOCUMENTS, queries, {f"q{n}": {f"d{n}": 1} for n in range(4)})
    data = BenchTask(task, "test", (), np.empty((0, 2), dtype=np.int64))
    folder = tmp_path_factory.mktemp("recommendation")
    embedded = Embeddings(data, folder, 0).of(EncoderConfig(kind="hashing", dim=64))
    return Setting(embedded, from_qrels("nDCG@10", task), 10, 0, folder, small=True)


def number(mean: float) -> dict[str, float]:
    return {"mean": mean, "low": mean - 0.1, "high": mean + 0.1}


def metrics(ip: tuple[float, float] = (0.1, 0.9), l2: tuple[float, float] = (-0.1, 0.9)) -> dict[str, Any]:
    """ip, l2: by how much they are better than cosine, and p."""
    return {
        "deployed": "cosine",
        "arms": {"ip": number(0.4 + ip[0]), "l2": number(0.4 + l2[0]), "cosine": number(0.4), "csls": number(0.9)},
        "against": {
            "ip": {**number(ip[0]), "p": ip[1]},
            "l2": {**number(l2[0]), "p": l2[1]},
            "csls": {**number(0.5), "p": 0.001},
        },
    }


def ann(**ms: float | None) -> dict[str, Any]:
    """ms: by kind with "_" for "-", how long its knee takes; None = it has none."""
    times = {name.replace("_", "-"): value for name, value in ms.items()}
    return {
        "builds": {name: {"kind": name} for name in times},
        "knees": {
            name: None if value is None else {"name": f"{name} best", "p50_ms": value} for name, value in times.items()
        },
    }


def test_guesses_stand_beside_what_was_measured(setting: Setting) -> None:
    found = recommendation(setting, TREE, metrics(), ann(flat=3.0, hnsw=2.0, ivf_pq=1.5, ivf_rabitq=1.0), ICEBERG)
    tree, iceberg, measured = (found["choices"][name] for name in ("tree", "iceberg", "measured"))
    assert (tree["metric"], tree["family"], tree["exact"]["mean"]) == ("ip", "lists", 0.5)
    assert tree["setting"]["name"] == "ivf-rabitq best"  # the faster of the two lists
    assert tree["why"] == "5 runs of 1 datasets with such vectors, mean regret 0.0100"
    seen = recommendation(setting, replace(TREE, datasets={"words": "abstracts"}), metrics(), None, None)
    assert seen["choices"]["tree"]["why"] == f"{tree['why']}; it was fitted to this dataset, too"
    assert found["path"] == ["dimension (d) 64 > 40"]
    assert found["tree"] == TREE.text()
    assert (iceberg["metric"], iceberg["family"], iceberg["setting"]) == ("ip", "lists", tree["setting"])
    assert iceberg["why"].endswith("ScaNN, Fargo")
    assert (measured["metric"], measured["family"], measured["exact"]["mean"]) == ("cosine", "lists", 0.4)
    assert "no metric of an index is shown to find more than cosine" in measured["why"]


def test_a_setting_is_of_the_metric_that_was_timed(setting: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(setting.vectors), "unit", False)
    found = recommendation(setting, TREE, metrics(), ann(flat=3.0, hnsw=2.0, ivf_pq=1.0), ICEBERG)["choices"]
    assert (found["tree"]["metric"], found["tree"]["setting"]) == ("ip", None)
    assert found["measured"]["setting"]["name"] == "ivf-pq best"


@pytest.mark.parametrize(
    ("ip", "l2", "expected"),
    [
        ((0.1, 0.04), (-0.1, 0.01), "ip"),
        ((0.1, 0.04), (0.2, 0.03), "l2"),
        ((0.1, 0.06), (-0.2, 0.001), "cosine"),  # csls is better still, but no index has it
    ],
)
def test_another_metric_is_measured_better_only_beyond_chance(
    setting: Setting, ip: tuple[float, float], l2: tuple[float, float], expected: str
) -> None:
    found = recommendation(setting, None, metrics(ip, l2), ann(flat=1.0), None)
    assert found["choices"]["measured"]["metric"] == expected


def test_what_cannot_guess_abstains_and_says_why(setting: Setting) -> None:
    found = recommendation(setting, None, metrics(), ann(flat=1.0, hnsw=None), None)
    assert found["choices"]["tree"] == {
        "metric": None, "family": None, "why": "no tree comes with this installation", "exact": None, "setting": None
    }  # fmt: skip
    assert found["choices"]["iceberg"]["metric"] is None
    assert found["choices"]["measured"]["family"] == "exact"
    assert (found["tree"], found["path"]) == (None, [])
    narrow = replace(EVERYWHERE, reach=1e-9)
    strange = recommendation(setting, replace(TREE, support=narrow), metrics(), ann(flat=1.0), None)
    assert strange["choices"]["tree"]["metric"] is None
    assert strange["choices"]["tree"]["why"].startswith("abstained: ")
    assert strange["tree"] == TREE.text()


def test_without_measurements_there_is_less_to_say(setting: Setting) -> None:
    found = recommendation(setting, TREE, metrics(), None, None)
    assert found["choices"]["tree"]["setting"] is None
    assert found["choices"]["measured"]["family"] is None
    with pytest.raises(RequestError, match="no metric could be measured"):
        recommendation(setting, TREE, None, None, None)
