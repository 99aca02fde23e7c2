"""The ANN arm with real indexes, in real processes: fact 10, and every library that is installed."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from evaluation import ann_rivals
from evaluation.ann_arm import ArmTask, Protocol, run_arm
from evaluation.ann_child import rounds
from evaluation.ann_configurations import Configuration, configurations, rivals
from evaluation.ann_results import ArmReport, utility_knee
from evaluation.ann_rivals import RIVALS, installed, open_rival
from evaluation.ground_truth import exact_truth
from evaluation.task import read_task
from evaluation.utility import from_qrels
from index.errors import ConfigError, GrapnelError, MissingDependencyError, RequestError, ShapeError
from index.metric import Metric, prepare
from index.spec import IndexParams
from index.types import Rows
from retrieval.encoders import EncoderConfig, fingerprint
from retrieval.encoders.hashing import HashingEncoder

COUNT, DIM, QUERIES, K = 1_500, 24, 40, 10
FAST = Protocol(timed=5, build_threads=1)


class Overlap:
    """Share of the query's class among the results."""

    name = "label precision"
    depth = None

    def __init__(self, labels: npt.NDArray[np.int64], query_labels: npt.NDArray[np.int64]) -> None:
        self._labels, self._query_labels = labels, query_labels

    @property
    def ceiling(self) -> npt.NDArray[np.float64]:
        return np.ones(len(self._query_labels))

    def gains(self, rows: Rows) -> npt.NDArray[np.float64]:
        same = self._labels[np.maximum(rows, 0)] == self._query_labels[:, None]
        return (same & (rows >= 0)).astype(np.float64)

    def __call__(self, rows: Rows) -> npt.NDArray[np.float64]:
        return self.gains(rows).mean(axis=1)


def task(metric: Metric = "cosine", k: int = K) -> ArmTask:
    rng = np.random.default_rng(0)
    labels, query_labels = rng.integers(0, 20, COUNT), rng.integers(0, 20, QUERIES)
    centres = rng.normal(size=(20, DIM))
    documents = centres[labels] + 0.8 * rng.normal(size=(COUNT, DIM))
    queries = centres[query_labels] + 0.8 * rng.normal(size=(QUERIES, DIM))
    vectors = documents.astype(np.float32), queries.astype(np.float32)
    return ArmTask(*vectors, metric, Overlap(labels, query_labels), k)


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> ArmReport:
    folder = tmp_path_factory.mktemp("arm")
    chosen = [
        Configuration("flat", kind="flat"),
        Configuration("graph", kind="hnsw", settings=({"ef": 10.0}, {"ef": float(COUNT)})),
        Configuration("lists", kind="ivf-sq8", settings=({}, {"nprobe": 1.0, "refine": 10.0})),
    ]
    made = run_arm(task(), chosen, folder, FAST)
    with pytest.raises(RequestError, match="is there already"):
        run_arm(task(), chosen, folder, FAST)
    return made


def test_exact_search_loses_nothing_and_full_effort_next_to_nothing(report: ArmReport) -> None:
    flat, little, full, *_ = report.points
    assert flat.configuration == "flat"
    assert (flat.utility == report.exact).all()
    assert flat.recall.tolist() == flat.tied_recall.tolist() == [1.0] * QUERIES
    assert flat.distances == COUNT
    assert abs((report.exact - full.utility).mean()) < 0.001
    assert full.recall.mean() > 0.999
    assert little.distances is not None
    assert full.distances is not None
    assert little.distances < full.distances <= 2 * COUNT


def test_rows_and_recalls_are_those_of_the_settings(report: ArmReport) -> None:
    truth = exact_truth(task().documents, task().queries, "cosine", K)
    for point in report.points:
        assert point.rows.shape == (QUERIES, K)
        assert (point.utility == task().utility(point.rows)).all()
        mine = [
            len(set(found) & set(best)) / K
            for found, best in zip(point.rows.tolist(), truth.rows.tolist(), strict=True)
        ]
        assert point.recall == pytest.approx(np.array(mine), abs=1e-9)
        assert (point.tied_recall >= point.recall - 1e-12).all()
        assert point.inverse_ratio is not None
        assert (point.inverse_ratio[point.recall == 1] > 1 - 1e-9).all()
    fast = report.points[-1]
    assert fast.name == "lists nprobe=1 refine=10"
    assert fast.recall.mean() < 1
    assert fast.distances is not None
    assert 0 < fast.distances < COUNT


def test_figures_of_builds_and_times_are_there(report: ArmReport) -> None:
    assert {name: build.kind for name, build in report.builds.items()} == {
        "flat": "flat",
        "graph": "hnsw",
        "lists": "ivf-sq8",
    }
    for build in report.builds.values():
        assert build.size_bytes >= 4 * COUNT * DIM
        assert build.peak_bytes >= build.before_bytes > 0
        assert build.seconds > 0
        assert build.threads == 1
    for point in report.points:
        timing = point.timing
        assert timing.calls == 5
        assert len(timing.medians_s) == 7
        assert 0 < timing.p50_s.low <= timing.p50_s.median <= timing.p99_s.median <= timing.p999_s.median
        assert timing.qps.median > 0 < timing.all_cores.median
    assert {"cpu", "cores", "python", "numpy"} <= report.machine.keys()
    assert json.loads(json.dumps(report.to_json(), allow_nan=False))["k"] == K
    knee = utility_knee(report)
    assert knee is not None
    assert knee.test.holds


@pytest.mark.parametrize("name", RIVALS)
@pytest.mark.parametrize("metric", ["cosine", "l2"])
def test_rivals_find_the_neighbours(name: str, metric: Metric, tmp_path: Path) -> None:
    if name not in installed():
        pytest.skip(f"the package {name} is not installed")
    data = task(metric)
    documents, queries = prepare(data.documents, metric), prepare(data.queries, metric)
    truth = exact_truth(data.documents, data.queries, metric, K)
    rival = open_rival(name)
    rival.build(documents, metric, IndexParams(links=16, ef_construction=100, lists=20), 1)
    rival.save(tmp_path)
    opened = open_rival(name)
    opened.open(tmp_path, metric, documents.shape, 1)
    effort = {"ef": 300.0, "nprobe": 20.0, "refine": 200.0, "epsilon": 0.5}
    settings = {each: effort[each] for each in opened.settings}
    found = opened.search(queries, K, settings)
    assert found.shape == (QUERIES, K)
    assert found.dtype == np.int64
    overlap = (found[:, :, None] == truth.rows[:, None, :]).any(axis=1).mean()
    assert overlap > 0.95
    one = opened.search(queries[:1], K, settings)
    assert len(np.intersect1d(one[0], found[0])) >= K - 1


@pytest.mark.parametrize("name", RIVALS)
def test_rivals_pad_where_fewer_exist(name: str, tmp_path: Path) -> None:
    if name not in installed() or name == "scann":
        pytest.skip(f"{name} is not installed, or does not index so few vectors")
    documents = prepare(task().documents[:6], "cosine")
    rival = open_rival(name)
    rival.build(documents, "cosine", IndexParams(links=16, ef_construction=100, lists=1), 1)
    rival.save(tmp_path)
    opened = open_rival(name)
    opened.open(tmp_path, "cosine", documents.shape, 1)
    found = opened.search(documents[:2], K, {"ef": 20.0, "epsilon": 0.5})
    assert np.sort(found, axis=1).tolist() == [[-1] * 4 + list(range(6))] * 2
    assert opened.search(documents[:1], K, {"ef": 20.0, "epsilon": 0.5})[0, 6:].tolist() == [-1] * 4


def test_an_arm_of_an_installed_rival(tmp_path: Path) -> None:
    names = [name for name in installed() if name in {"hnswlib", "usearch"}]
    if not names:
        pytest.skip("neither hnswlib nor usearch is installed")
    (configuration,) = rivals(names[:1], K)
    made = run_arm(task(), [configuration], tmp_path, FAST)
    assert made.builds[names[0]].kind == names[0]
    assert made.points[-1].recall.mean() > 0.99
    assert made.points[-1].distances is None


def test_a_library_that_is_absent_is_named_before_anything_is_built(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ann_rivals, "installed", list)
    for name in RIVALS:
        with pytest.raises(MissingDependencyError, match=f"pip install {name}"):
            run_arm(task(), rivals([name], K), tmp_path / "new", FAST)
    assert not (tmp_path / "new").exists()


def test_what_a_process_says_last_is_passed_on(tmp_path: Path) -> None:
    wrong = Configuration("a", kind="hnsw", settings=({"ef": 10.0, "speed": 3.0},))
    with pytest.raises(GrapnelError, match="speed"):
        run_arm(task(), [wrong], tmp_path, FAST)


def test_inner_products_on_cranfield(dataset: Callable[[str], Path], tmp_path: Path) -> None:
    real = read_task(dataset("cranfield"))
    encoder = HashingEncoder(config := EncoderConfig(kind="hashing", dim=256), fingerprint(config))
    documents = encoder.encode_texts([f"{title} {text}" for title, text in zip(real.titles, real.texts, strict=True)])
    queries = encoder.encode_queries(real.queries)
    judged = ArmTask(documents.vectors, queries, "ip", from_qrels("nDCG@10", real))
    graph = Configuration("graph", kind="hnsw", settings=({"ef": 16.0}, {"ef": float(len(real.doc_ids))}))
    made = run_arm(judged, [Configuration("flat", kind="flat"), graph], tmp_path, FAST)
    flat, little, full = made.points
    assert (flat.utility == made.exact).all()
    assert abs((made.exact - full.utility).mean()) < 0.001
    assert 0.1 < made.exact.mean() < 0.4
    assert little.recall.mean() < full.recall.mean()
    assert little.inverse_ratio is None
    knee = utility_knee(made)
    assert knee is not None


def test_rounds_take_turns_after_one_that_does_not_count() -> None:
    seen: list[str] = []

    def call(name: str) -> Callable[[], list[float]]:
        def record() -> list[float]:
            seen.append(name)
            return [float(len(seen))]

        return record

    values = rounds([call("a"), call("b"), call("c")], 3)
    assert "".join(seen) == "abc" + "abc" + "bca" + "cab"
    assert values[:, :, 0].tolist() == [[4, 9, 11], [5, 7, 12], [6, 8, 10]]


def test_sweeps_suit_the_kind_and_the_number_of_vectors() -> None:
    found = {each.name: each.settings for each in configurations(5_000, 10)}
    assert list(found) == ["flat", "sq8", "binary", "hnsw", "hnsw-sq8", "ivf-flat", "ivf-sq8", "ivf-pq", "ivf-rabitq"]
    assert found["flat"] == ({},)
    assert found["sq8"] == ({}, {"refine": 10.0}, {"refine": 40.0}, {"refine": 160.0})
    assert found["hnsw"][0] == {}
    assert found["hnsw"][1] == {"ef": 16.0}
    assert found["ivf-flat"][-1] == {"nprobe": 141.0}  # 2 sqrt(5,000)
    assert {"nprobe": 4.0, "refine": 40.0} in found["ivf-pq"]
    assert "binary" not in {each.name for each in configurations(5_000, 10, "l2")}
    assert [each.name for each in configurations(500, 10)] == ["flat"]
    assert [settings["ef"] for settings in rivals(["hnswlib"], 100)[0].settings] == [100, 128, 256, 512]


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (lambda: Configuration("../a"), ConfigError),
        (lambda: Configuration("single"), ConfigError),
        (lambda: Configuration("a", library="faiss"), ConfigError),
        (lambda: Configuration("a", kind="auto"), ConfigError),
        (lambda: Configuration("a", settings=()), ConfigError),
        (lambda: Configuration("a", library="hnswlib"), ConfigError),
        (lambda: Protocol(repeats=5), RequestError),
        (lambda: Protocol(timed=0), RequestError),
        (lambda: task(k=0), RequestError),
        (lambda: task("dot"), ConfigError),  # type: ignore[arg-type]
        (lambda: ArmTask(task().documents, task().queries[:3], "l2", task().utility), ShapeError),
        (lambda: open_rival("faiss"), ConfigError),
        (lambda: run_arm(task(), [], Path("never")), RequestError),
        (lambda: run_arm(task(), [Configuration("a"), Configuration("a")], Path("never")), RequestError),
    ],
)
def test_what_makes_no_sense(make: Callable[[], object], error: type[GrapnelError]) -> None:
    with pytest.raises(error):
        make()
