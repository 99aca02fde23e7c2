"""Lazy verification against masking every token that does not occur."""

import numpy as np
import numpy.typing as npt
import pytest

from index.best_extensions import best_extensions
from index.errors import RequestError, ShapeError
from index.substring import load_substring, save_substring
from index.substring_spec import MODES, SubstringSpec
from index.types import Continuations, State, SubstringIndex

VOCAB = 600


@pytest.fixture(autouse=True, params=[5, 256])
def rare(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make more matches frequent than are in a corpus of so few tokens."""
    monkeypatch.setattr("index.best_extensions._RARE", request.param)


@pytest.fixture(scope="module", params=MODES)
def index(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> SubstringIndex:
    rng = np.random.default_rng(3)
    tokens = rng.zipf(1.4, 30_000) % VOCAB
    # Token 7 occurs often, and only before 8: its beams have few continuations among many occurrences.
    tokens[1:][tokens[:-1] == 7] = 8
    folder = tmp_path_factory.mktemp("index") / request.param
    save_substring(folder, np.array_split(tokens, 200), SubstringSpec(VOCAB, mode=request.param))
    return load_substring(folder)


def masked(
    index: SubstringIndex, state: State, scores: npt.NDArray[np.float32], beams: int, keep: int
) -> tuple[list[list[int]], list[list[int]], list[list[float]]]:
    """Return the same as `best_extensions`, from every continuation of every beam."""
    offsets, tokens, _ = index.continuations(state)
    dense = np.full(scores.shape, -np.inf, np.float32)
    for beam in range(len(state)):
        follow = tokens[offsets[beam] : offsets[beam + 1]]
        follow = follow[follow < scores.shape[1]]
        dense[beam, follow] = scores[beam, follow]
    flat = dense.reshape(-1, beams * scores.shape[1])
    order = np.argsort(-flat, axis=1, kind="stable")[:, :keep]
    best = np.take_along_axis(flat, order, axis=1)
    rows = np.arange(len(flat))[:, None] * beams + order // scores.shape[1]
    none = best == -np.inf
    short = keep - order.shape[1]
    padded = [
        np.pad(part, ((0, 0), (0, short)), constant_values=filler)
        for part, filler in (
            (np.where(none, -1, rows), -1),
            (np.where(none, -1, order % scores.shape[1]), -1),
            (best, -np.inf),
        )
    ]
    return padded[0].tolist(), padded[1].tolist(), padded[2].tolist()


def some_state(index: SubstringIndex, rng: np.random.Generator, beams: int) -> State:
    """Return matches of 0 to 3 tokens, absent ones among them."""
    state = np.concatenate([index.root(beams - 1), index.starts(1)])
    for _ in range(3):
        longer = np.flatnonzero(rng.random(beams) < 0.6)
        state[longer] = index.extend(state[longer], rng.zipf(1.5, len(longer)) % VOCAB)
    state[0] = index.extend(index.root(1), np.array([7]))[0]
    return state


@pytest.mark.parametrize("keep", [1, 6, 7, 30, 40, 5_000])
@pytest.mark.parametrize("levels", [3, 50, None])
@pytest.mark.parametrize("threads", [1, 3])
def test_the_best_are_those_of_the_masked_scores(
    index: SubstringIndex, keep: int, levels: int | None, threads: int
) -> None:
    rng = np.random.default_rng(keep)
    for beams, queries in ((1, 5), (4, 3), (12, 1)):
        state = some_state(index, rng, beams * queries)
        scores = rng.normal(size=(beams * queries, VOCAB)).astype(np.float32)
        if levels:  # many equal scores
            scores = np.round(scores * levels / 4).astype(np.float32)
        scores[rng.random(scores.shape) < 0.05] = -np.inf
        found = best_extensions(index, state, scores, beams=beams, keep=keep, threads=threads)
        assert (found.beams.dtype, found.tokens.dtype, found.scores.dtype) == (np.int64, np.int32, np.float32)
        expected = masked(index, state, scores, beams, keep)
        assert (found.beams.tolist(), found.tokens.tolist(), found.scores.tolist()) == expected


def test_tokens_that_never_follow_push_nobody_out(index: SubstringIndex) -> None:
    state = index.extend(index.root(1), np.array([7]))
    assert index.count(state)[0] > 256
    scores = np.linspace(1, 2, VOCAB, dtype=np.float32)[None]
    scores[0, 8] = -5
    found = best_extensions(index, state, scores, beams=1, keep=4)
    assert found.tokens.tolist() == [[8, -1, -1, -1]]
    assert found.scores.tolist() == [[-5, -np.inf, -np.inf, -np.inf]]


def seven_and_rare(index: SubstringIndex) -> tuple[State, list[int]]:
    """Return matches of token 7, whose tokens are tried, and of a rare one; and what follows this, several tokens."""
    ones = index.extend(index.root(VOCAB), np.arange(VOCAB))
    counts, (offsets, tokens, _) = index.count(ones), index.continuations(ones)
    rare = int(np.flatnonzero((counts <= 5) & (np.diff(offsets) > 1))[0])
    return ones[[7, rare]], tokens[offsets[rare] : offsets[rare + 1]].tolist()


@pytest.mark.parametrize("keep", [1, 2, 3, 7])
def test_of_equal_scores_the_first_is_the_best(index: SubstringIndex, keep: int) -> None:
    """The rare match fills the best at once, and of the other's tokens none occurs among those tried first."""
    state, _ = seven_and_rare(index)
    scores = np.zeros((2, VOCAB), np.float32)
    scores[:, ::2] = -0.0
    found = best_extensions(index, state, scores, beams=2, keep=keep)
    assert (found.beams[0, 0], found.tokens[0, 0]) == (0, 8)
    assert (found.beams.tolist(), found.tokens.tolist(), found.scores.tolist()) == masked(index, state, scores, 2, keep)


def test_tokens_without_a_score(index: SubstringIndex) -> None:
    """The score behind the last of a beam is the first of the next."""
    state, follow = seven_and_rare(index)
    rare = state[[1, 1]]
    for width in follow[1:]:
        scores = np.zeros((2, width), np.float32)
        found = best_extensions(index, rare, scores, beams=2, keep=20)
        assert (found.beams.tolist(), found.tokens.tolist(), found.scores.tolist()) == masked(
            index, rare, scores, 2, 20
        )


def test_fewer_scores_than_tokens(index: SubstringIndex) -> None:
    rng = np.random.default_rng(5)
    state = some_state(index, rng, 6)
    scores = rng.normal(size=(6, 20)).astype(np.float32)
    found = best_extensions(index, state, scores, beams=3, keep=10)
    assert (found.beams.tolist(), found.tokens.tolist(), found.scores.tolist()) == masked(index, state, scores, 3, 10)


class Watched:
    """An index that counts how often it is asked for tokens, and for all continuations."""

    def __init__(self, index: SubstringIndex) -> None:
        self._index = index
        self.vocab_size = index.vocab_size
        self.tokens = index.tokens
        self.documents = index.documents
        self.root, self.starts, self.count = index.root, index.starts, index.count
        self.locate, self.text = index.locate, index.text
        self.tried = 0
        self.listed = 0

    def extend(self, state: State, tokens: npt.NDArray[np.integer]) -> State:
        self.tried += len(tokens)
        return self._index.extend(state, tokens)

    def continuations(self, state: State) -> Continuations:
        self.listed += len(state)
        return self._index.continuations(state)


def test_only_what_is_needed_is_tried(index: SubstringIndex) -> None:
    watched = Watched(index)
    scores = np.random.default_rng(6).normal(size=(8, VOCAB)).astype(np.float32)
    best_extensions(watched, index.root(8), scores, beams=4, keep=8)
    assert (watched.tried, watched.listed) == (2 * 16, 0), "every token occurs: the first round is enough"


@pytest.mark.parametrize(
    ("scores", "beams", "keep", "error", "message"),
    [
        (np.zeros((4, 5), np.float32), 2, 0, RequestError, "keep is 0"),
        (np.zeros((4, 5), np.float32), 0, 1, RequestError, "beams is 0"),
        (np.zeros((4, 5), np.float32), 3, 1, ShapeError, "state has 4 matches, expected a multiple of 3"),
        (np.zeros((4, 5)), 2, 1, ShapeError, "scores are float64"),
        (np.zeros((3, 5), np.float32), 2, 1, ShapeError, r"expected float32 \(4, V\)"),
        (np.zeros((4, VOCAB + 1), np.float32), 2, 1, ShapeError, "scores have 601 columns, expected 1 to the 600"),
    ],
)
def test_scores_that_cannot_be_used(
    index: SubstringIndex,
    scores: npt.NDArray[np.float32],
    beams: int,
    keep: int,
    error: type[Exception],
    message: str,
) -> None:
    with pytest.raises(error, match=message):
        best_extensions(index, index.root(4), scores, beams=beams, keep=keep)


def test_scores_that_are_no_numbers(index: SubstringIndex) -> None:
    scores = np.zeros((4, VOCAB), np.float32)
    scores[2, 8] = np.nan
    rare = index.extend(index.root(4), np.full(4, 7))
    for state in (index.root(4), np.concatenate([rare[:2], index.starts(2)]), rare):
        with pytest.raises(RequestError, match="scores hold NaN"):
            best_extensions(index, state, scores, beams=2, keep=1)


def test_a_score_that_is_no_number_among_worse_ones(index: SubstringIndex) -> None:
    scores = np.zeros((1, VOCAB), np.float32)
    scores[0, :5] = 1  # as many as are tried, and more
    scores[0, 300] = np.nan
    with pytest.raises(RequestError, match="scores hold NaN"):
        best_extensions(index, index.root(1), scores, beams=1, keep=1)


def test_no_query(index: SubstringIndex) -> None:
    found = best_extensions(index, index.root(0), np.zeros((0, 5), np.float32), beams=2, keep=3)
    assert found.beams.shape == (0, 3)
