# ruff: noqa: PLC0415  torch takes seconds to import: only when these tests run
"""One suite over every reranker; then a cross-encoder against `CrossEncoder.predict`, and the models it refuses."""

import itertools
import random
import shutil
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from index.errors import ConfigError, RequestError, RerankerError
from index.metric import prepare
from retrieval.build import RERANKERS
from retrieval.encoders import EncoderConfig, open_encoder
from retrieval.field_vectors import Encoders
from retrieval.protocols import Candidate, Reranker
from retrieval.rerankers.config import RerankerConfig
from retrieval.types import Query

WORDS = ["alpha", "beta", "gamma", "delta", "river", "stone", "cloud", "engine", "paper", ".", "é"]
WINDOW = 24
QUERY = "river stone"
HASHING = EncoderConfig(kind="hashing", dim=256)
MINILM = EncoderConfig(backend="torch", device="cpu", max_tokens=WINDOW)


@pytest.fixture(scope="module")
def save_model(tiny_transformer: Callable[..., object]) -> Callable[..., Path]:
    """Save a random BERT that classifies pairs: small, but with scores that differ well from text to text."""

    def save(folder: Path, **config: int) -> Path:
        tiny_transformer(folder, WORDS, "pairs", **{"num_labels": 1, "initializer_range": 0.5, **config})
        return folder

    return save


@pytest.fixture(scope="module")
def model_folder(save_model: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("cross-encoder"))


Open = Callable[..., Reranker]
KINDS = ["hashing", pytest.param("minilm", marks=pytest.mark.model), "cross-encoder"]


@pytest.fixture(scope="module", params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def open_one(kind: str, model_folder: Path) -> Open:
    """Open a reranker of the kind; batch_tokens decides how many candidates one model call takes."""
    encoders = Encoders()

    def make(batch_tokens: int | None = None) -> Reranker:
        if kind == "cross-encoder":
            config = RerankerConfig(
                kind="cross-encoder", path=str(model_folder), device="cpu", batch_tokens=batch_tokens
            )
        else:
            config = RerankerConfig(encoder=HASHING if kind == "hashing" else MINILM, batch_tokens=batch_tokens)
        return RERANKERS[config.kind](config, encoders.get)

    return make


@pytest.fixture(scope="module")
def reranker(open_one: Open) -> Reranker:
    return open_one()


def some_candidates(count: int, seed: int = 0) -> list[Candidate]:
    rng = random.Random(seed)
    texts: set[tuple[str, str]] = set()
    while len(texts) < count:
        text = " ".join(rng.choices(WORDS, k=rng.randrange(1, 16)))
        texts.add((text, " ".join(rng.choices(WORDS, k=2)) if rng.random() < 0.3 else ""))
    return [Candidate(*text) for text in sorted(texts, key=lambda _: rng.random())]


def test_the_order_is_a_permutation_by_falling_score(reranker: Reranker) -> None:
    candidates = some_candidates(40)
    before = list(candidates)
    result = reranker.rerank(QUERY, candidates, top_k=40, deadline=None)
    assert candidates == before
    assert sorted(result.order) == list(range(40))
    assert all(isinstance(place, int) for place in result.order)
    scores = [score for score in result.scores if score is not None]
    assert len(scores) == 40
    assert scores == sorted(scores, reverse=True)
    assert len(set(scores)) > 20, "the candidates are told apart"
    assert (result.unreached, result.notes) == (0, ())


@pytest.mark.parametrize("top_k", [1, 7, 20, 100])
def test_a_shorter_answer_is_the_beginning_of_the_longest(reranker: Reranker, top_k: int) -> None:
    candidates = some_candidates(20)
    whole = reranker.rerank(QUERY, candidates, top_k=20, deadline=None)
    result = reranker.rerank(QUERY, candidates, top_k=top_k, deadline=None)
    assert result.order == whole.order[:top_k]
    np.testing.assert_allclose(result.scores, whole.scores[:top_k], atol=1e-6)


def test_scores_depend_on_neither_order_nor_company(reranker: Reranker, open_one: Open) -> None:
    candidates = some_candidates(30)
    whole = reranker.rerank(QUERY, candidates, top_k=30, deadline=None)
    score_of = {candidates[place]: score for place, score in zip(whole.order, whole.scores, strict=True)}
    shuffled = random.Random(1).sample(candidates, 30)
    for one, given in ((reranker, shuffled), (reranker, shuffled[:1]), (open_one(batch_tokens=30), shuffled)):
        result = one.rerank(QUERY, given, top_k=30, deadline=None)
        expected = [score_of[given[place]] for place in result.order]
        np.testing.assert_allclose(result.scores, expected, atol=1e-5)


def test_equal_candidates_stay_as_they_came(reranker: Reranker, open_one: Open) -> None:
    one, other = Candidate("river cloud"), Candidate("engine . paper beta")
    candidates = [one, other] * 9
    for each in (reranker, open_one(batch_tokens=30)):
        result = each.rerank(QUERY, candidates, top_k=18, deadline=None)
        halves = [*range(0, 18, 2)], [*range(1, 18, 2)]
        assert list(result.order) in ([*halves[0], *halves[1]], [*halves[1], *halves[0]])


def test_titles_are_read_before_texts(reranker: Reranker) -> None:
    result = reranker.rerank(
        QUERY,
        [Candidate("river", "stone"), Candidate("stone river"), Candidate("", "stone river")],
        top_k=3,
        deadline=None,
    )
    assert len(set(result.scores)) <= 2
    np.testing.assert_allclose(result.scores[0], result.scores[1], atol=1e-6)


def test_nothing_and_little(reranker: Reranker) -> None:
    nothing = reranker.rerank(QUERY, [], top_k=5, deadline=None)
    assert (nothing.order, nothing.scores, nothing.notes, nothing.calls) == ((), (), (), 0)
    blank = reranker.rerank("", [Candidate(""), Candidate("river"), Candidate(" \n")], top_k=5, deadline=None)
    assert sorted(blank.order) == [0, 1, 2]
    assert np.isfinite([score for score in blank.scores if score is not None]).all()


def test_any_script_and_control_characters(reranker: Reranker) -> None:
    texts = ["检索系统", "👩‍🚒\u200d", "\x00\x1b[31m", "e\u0301" * 50, "\ufeff", "[SEP] [CLS] river", "\u202eright"]
    result = reranker.rerank("检索 \x00", [Candidate(text, text) for text in texts], top_k=7, deadline=None)
    assert sorted(result.order) == list(range(7))


def test_what_cannot_be_read_is_refused(reranker: Reranker) -> None:
    with pytest.raises(RequestError, match="query holds a lone surrogate"):
        reranker.rerank("\ud800", [Candidate("a")], top_k=1, deadline=None)
    with pytest.raises(RequestError, match="candidate 1 holds a lone surrogate"):
        reranker.rerank("a", [Candidate("a"), Candidate("a", "\udfff")], top_k=1, deadline=None)
    with pytest.raises(RequestError, match="top_k is 0"):
        reranker.rerank("a", [Candidate("a")], top_k=0, deadline=None)


def test_what_is_beyond_the_window_is_noted(reranker: Reranker, kind: str) -> None:
    candidates = [Candidate("river " * 500_000), Candidate("stone"), Candidate("river " * (WINDOW + 20))]
    result = reranker.rerank(QUERY, candidates, top_k=3, deadline=None)
    if kind == "hashing":  # has no window
        assert result.notes == ()
        return
    assert len(result.notes) == 1
    assert result.notes[0].startswith(f"rerank_truncated=2: the reranker's window of {WINDOW} tokens")
    by_place = dict(zip(result.order, result.scores, strict=True))
    assert by_place[0] == pytest.approx(by_place[2], abs=1e-5)


def test_after_the_deadline_nothing_is_done(reranker: Reranker) -> None:
    result = reranker.rerank(QUERY, some_candidates(9), top_k=5, deadline=0.0)
    assert result.order == (0, 1, 2, 3, 4)
    assert result.scores == (None,) * 5
    assert (result.unreached, result.calls, result.tokens) == (5, 0, 0)
    assert result.notes == ("rerank_unreached=9 of 9: the deadline passed; these keep their order",)


def test_a_deadline_far_away_changes_nothing(reranker: Reranker) -> None:
    candidates = some_candidates(20)
    unhurried = reranker.rerank(QUERY, candidates, top_k=20, deadline=None)
    assert reranker.rerank(QUERY, candidates, top_k=20, deadline=sys.float_info.max) == unhurried


def test_a_deadline_on_the_way_leaves_the_last_ones_as_they_came(
    open_one: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = open_one(batch_tokens=30)
    candidates = some_candidates(20)
    whole = one.rerank(QUERY, candidates, top_k=20, deadline=None)
    score_of = dict(zip(whole.order, whole.scores, strict=True))
    reached_by = []
    for patience in (1, 2, 5, 10, 17, 60):  # a clock that ticks whenever it is read
        monkeypatch.setattr("retrieval.rerankers.time", SimpleNamespace(monotonic=itertools.count().__next__))
        result = one.rerank(QUERY, candidates, top_k=20, deadline=float(patience))
        reached = 20 - result.unreached
        reached_by.append(reached)
        scored, rest = result.order[:reached], result.order[reached:]
        assert rest == tuple(range(reached, 20))
        assert list(scored) == sorted(range(reached), key=lambda place: (-round(score_of[place] or 0, 5), place))
        np.testing.assert_allclose(result.scores[:reached], [score_of[place] for place in scored], atol=1e-5)
        assert result.scores[reached:] == (None,) * len(rest)
        late = f"rerank_unreached={20 - reached} of 20: the deadline passed; these keep their order"
        assert result.notes == ((late,) if rest else ())
    assert reached_by == sorted(reached_by)
    assert len(set(reached_by)) > 3
    assert reached_by[-1] == 20


def test_threads_do_not_disturb_each_other(reranker: Reranker) -> None:
    lists = [some_candidates(12, seed) for seed in range(6)]
    queries = [" ".join(WORDS[seed : seed + 2]) for seed in range(6)]
    alone = [
        reranker.rerank(query, given, top_k=12, deadline=None) for query, given in zip(queries, lists, strict=True)
    ]
    with ThreadPoolExecutor(6) as pool:
        together = list(
            pool.map(lambda query, given: reranker.rerank(query, given, top_k=12, deadline=None), queries, lists)
        )
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_allclose(one.scores, other.scores, atol=1e-5)


def test_cost_counts_model_calls_and_the_tokens_read(reranker: Reranker, kind: str) -> None:
    candidates = [Candidate("river"), Candidate("stone cloud"), Candidate("river")]
    result = reranker.rerank("stone", candidates, top_k=3, deadline=None)
    # The pair: three special tokens and the words; alone: two and the words. Equal candidates are read once.
    expected = {"hashing": (0, 0), "minilm": (2, 3 + 3 + 4), "cross-encoder": (1, 5 + 6)}
    assert (result.calls, result.tokens) == expected[kind]


@pytest.mark.parametrize("config", [HASHING, pytest.param(MINILM, marks=pytest.mark.model)])
def test_similarity_is_the_cosine_of_the_encoders_vectors(config: EncoderConfig) -> None:
    encoder = open_encoder(config)
    candidates = some_candidates(15)
    texts = [f"{title} {text}" if title else text for text, title in candidates]
    query = prepare(encoder.encode_queries([Query("q", QUERY)]), "cosine")[0]
    expected = prepare(encoder.encode_texts(texts).vectors, "cosine") @ query
    result = RERANKERS["similarity"](RerankerConfig(encoder=config), open_encoder).rerank(
        QUERY, candidates, top_k=15, deadline=None
    )
    np.testing.assert_allclose(result.scores, expected[list(result.order)], atol=1e-5)
    assert result.scores[0] == pytest.approx(expected.max(), abs=1e-5)


# The cross-encoder alone.


def cross_encoder(folder: Path, **keys: int) -> Reranker:
    config = RerankerConfig(kind="cross-encoder", path=str(folder), device="cpu", **keys)  # type: ignore[arg-type]  # all keys used here are ints
    return RERANKERS["cross-encoder"](config, open_encoder)


def predicted(folder: Path, candidates: Sequence[Candidate], **keys: int) -> list[float]:
    from sentence_transformers import CrossEncoder

    model = CrossEncoder(str(folder), device="cpu", local_files_only=True, **keys)  # type: ignore[arg-type]  # as above
    pairs = [(QUERY, f"{title} {text}" if title else text) for text, title in candidates]
    return [float(score) for score in model.predict(pairs)]


@pytest.fixture(scope="module", params=["transformers", "sentence-transformers", "raw logits"])
def any_folder(request: pytest.FixtureRequest, model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same model as either library saves it, and with an activation of its own."""
    from sentence_transformers import CrossEncoder
    from torch import nn

    if request.param == "transformers":
        return model_folder
    folder = tmp_path_factory.mktemp("saved")
    model = CrossEncoder(str(model_folder), device="cpu", local_files_only=True)
    if request.param == "raw logits":
        model.activation_fn = nn.Identity()
    model.save(str(folder), create_model_card=False)
    return folder


@pytest.mark.parametrize("batch_tokens", [1, 60, 10_000])
def test_scores_are_those_of_sentence_transformers(any_folder: Path, batch_tokens: int) -> None:
    candidates = [*some_candidates(20), Candidate(""), Candidate("alpha " * 90), Candidate("nothing known")]
    result = cross_encoder(any_folder, batch_tokens=batch_tokens).rerank(QUERY, candidates, top_k=99, deadline=None)
    expected = predicted(any_folder, candidates)
    np.testing.assert_allclose(result.scores, [expected[place] for place in result.order], atol=1e-5)
    assert np.ptp(expected) > 0.1


def test_a_window_of_ones_own(model_folder: Path) -> None:
    candidates = [Candidate(" ".join(WORDS[:n])) for n in range(1, 10)]
    result = cross_encoder(model_folder, max_tokens=8).rerank(QUERY, candidates, top_k=9, deadline=None)
    expected = predicted(model_folder, candidates, max_length=8)
    np.testing.assert_allclose(result.scores, [expected[place] for place in result.order], atol=1e-5)
    assert result.notes[0].startswith("rerank_truncated=6: the reranker's window of 8 tokens")
    with pytest.raises(ConfigError, match="max_tokens is 41, the model has 40 positions"):
        cross_encoder(model_folder, max_tokens=41)


def test_a_text_that_is_only_looked_into_is_noted_however_few_tokens_it_has(model_folder: Path) -> None:
    candidates = [Candidate("x" * 16 * WINDOW), Candidate("x" * (16 * WINDOW + 1))]
    result = cross_encoder(model_folder).rerank(QUERY, candidates, top_k=2, deadline=None)
    assert result.notes[0].startswith("rerank_truncated=1:")


def test_who_waits_behind_another_call_gives_up_at_the_deadline(
    model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = cross_encoder(model_folder)
    lock = one._lock  # type: ignore[attr-defined]  # what a long call of another thread holds
    monkeypatch.setattr("retrieval.rerankers.time", SimpleNamespace(monotonic=lambda: -1.0))
    with lock:
        result = one.rerank(QUERY, [Candidate("river")], top_k=1, deadline=0.0)
    assert (result.order, result.scores, result.unreached) == ((0,), (None,), 1)
    assert one.rerank(QUERY, [Candidate("river")], top_k=1, deadline=None).unreached == 0


def test_a_folder_that_is_none_is_never_looked_for_elsewhere() -> None:
    for path in ("/nowhere/at/all", "cross-encoder/ms-marco-MiniLM-L6-v2", "all-MiniLM-L6-v2"):
        with pytest.raises(ConfigError, match="is no folder"):
            cross_encoder(Path(path))


def test_pickled_weights_are_refused(model_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "pickled"
    shutil.copytree(model_folder, folder)
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(ConfigError, match="safetensors"):
        cross_encoder(folder)


def test_code_of_a_models_own_is_not_run(model_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "coded"
    shutil.copytree(model_folder, folder)
    config = folder / "config.json"
    mapped = '{"auto_map": {"AutoConfig": "own.Config", "AutoModelForSequenceClassification": "own.Model"},'
    config.write_text(config.read_text().replace("{", mapped, 1).replace('"model_type": "bert"', '"model_type": "own"'))
    (folder / "own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    with pytest.raises(ConfigError, match="cannot be loaded"):
        cross_encoder(folder)
    assert not (tmp_path / "ran").exists()


def test_an_encoder_is_no_cross_encoder(model_folder: Path, tmp_path: Path) -> None:
    from transformers import BertModel

    folder = tmp_path / "encoder"
    shutil.copytree(model_folder, folder)
    BertModel.from_pretrained(model_folder).save_pretrained(folder)
    with pytest.raises(ConfigError, match="BertModel, which has no scoring head"):
        cross_encoder(folder)


def test_a_model_of_several_labels_is_refused(save_model: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="gives 3 numbers for a pair, expected one"):
        cross_encoder(save_model(tmp_path / "labels", num_labels=3))


def test_a_damaged_model_is_refused(model_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "damaged"
    shutil.copytree(model_folder, folder)
    (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:1000])
    with pytest.raises(ConfigError, match="cannot be loaded"):
        cross_encoder(folder)


def test_a_model_that_fails_or_scores_nonsense_is_a_rerankers_error(
    save_model: Callable[..., Path], tmp_path: Path
) -> None:
    from safetensors.torch import load_file, save_file

    small = cross_encoder(save_model(tmp_path / "small", vocab_size=6))  # its tokenizer knows more tokens
    with pytest.raises(RerankerError, match=r"failed on 1 pairs \(IndexError\)"):
        small.rerank(QUERY, [Candidate("river")], top_k=1, deadline=None)
    folder = save_model(tmp_path / "nan")
    weights = load_file(folder / "model.safetensors")
    save_file(
        {**weights, "classifier.bias": weights["classifier.bias"] * np.nan},
        folder / "model.safetensors",
        {"format": "pt"},
    )
    with pytest.raises(RerankerError, match="no finite number"):
        cross_encoder(folder).rerank(QUERY, [Candidate("river")], top_k=1, deadline=None)
