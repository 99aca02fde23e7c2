"""Rerankers' configuration, the pieces that deadlines cut at, and a search's ranking after a reranker."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, get_args, get_type_hints

import pytest
from hypothesis import given
from hypothesis import strategies as st

from index.errors import ConfigError, OverloadedError, RerankerError
from retrieval.build import RERANKERS
from retrieval.config import parse
from retrieval.encoders import EncoderConfig
from retrieval.protocols import Candidate, RerankResult
from retrieval.rerankers import pieces
from retrieval.rerankers.config import RerankerConfig
from retrieval.reranking import rerank_hits
from retrieval.types import Evidence, Hit, Passage, Query, Ranking, SearchRequest


class Recorded:
    """A reranker that answers as it is told and keeps what it was asked."""

    def __init__(self, answer: RerankResult | Exception) -> None:
        self.answer = answer
        self.asked: list[tuple[str, Sequence[Candidate], int, float | None]] = []

    def rerank(
        self, query: str, candidates: Sequence[Candidate], *, top_k: int, deadline: float | None
    ) -> RerankResult:
        self.asked.append((query, candidates, top_k, deadline))
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def a_hit(name: str, score: float | None, *evidence: Evidence, stage: str = "hybrid") -> Hit:
    return Hit(name, Passage(name, 0, 0, 1, f"text {name}", f"title {name}"), score, stage, evidence, {"id": name})


HITS = tuple(a_hit(name, 5.0 - place, Evidence("dense", 9, 0.5)) for place, name in enumerate("abcde"))
RANKING = Ranking("q", HITS, ("searched",), {"dense": 0.25})


def request(k: int, offset: int = 0, text: str = "ask") -> SearchRequest:
    return SearchRequest(Query("q", text), k=k, offset=offset)


def ids(ranking: Ranking) -> str:
    return "".join(hit.doc_id for hit in ranking.hits)


def test_hits_take_the_rerankers_order_score_and_stage_and_keep_their_past() -> None:
    reranker = Recorded(RerankResult(order=(2, 0), scores=(0.9, 0.4), notes=("slow",)))
    ranking = rerank_hits(reranker, "deep", request(2), RANKING, depth=3, deadline=7.5)
    assert reranker.asked == [("ask", [Candidate(f"text {name}", f"title {name}") for name in "abc"], 2, 7.5)]
    first, second = ranking.hits
    past = Evidence("dense", 9, 0.5)
    assert first == replace(
        HITS[2], stage="deep", score=0.9, evidence=(past, Evidence("hybrid", 3, 3.0), Evidence("deep", 1, 0.9))
    )
    assert second == replace(
        HITS[0], stage="deep", score=0.4, evidence=(past, Evidence("hybrid", 1, 5.0), Evidence("deep", 2, 0.4))
    )
    assert ranking.notes == ("searched", "slow")
    assert ranking.timings_s.keys() == {"dense", "rerank"}
    assert ranking.timings_s["dense"] == 0.25
    assert ranking.timings_s["rerank"] >= 0
    assert RANKING.timings_s == {"dense": 0.25}


def test_a_stage_that_is_evidence_already_is_not_added_again() -> None:
    hit = a_hit("a", 0.5, Evidence("dense", 4, 0.5), stage="dense")
    ranking = rerank_hits(
        Recorded(RerankResult(order=(0,), scores=(1.0,))),
        "deep",
        request(1),
        Ranking("q", (hit,)),
        depth=5,
        deadline=None,
    )
    assert ranking.hits[0].evidence == (Evidence("dense", 4, 0.5), Evidence("deep", 1, 1.0))


@pytest.mark.parametrize(
    ("k", "offset", "found", "noted"),
    [
        (3, 0, "cba", False),
        (2, 1, "ba", False),
        (5, 0, "cbade", True),
        (9, 2, "ade", True),
        (2, 4, "e", True),
        (2, 5, "", True),
    ],
)
def test_pages_are_cut_after_reranking_and_later_hits_follow(k: int, offset: int, found: str, noted: bool) -> None:
    reranker = Recorded(RerankResult(order=(2, 1, 0), scores=(3.0, 2.0, 1.0)))
    ranking = rerank_hits(reranker, "deep", request(k, offset), RANKING, depth=3, deadline=None)
    assert ids(ranking) == found
    assert reranker.asked[0][2] == 3
    assert [hit.stage for hit in ranking.hits] == ["deep" if name in "abc" else "hybrid" for name in found]
    assert ("rerank_depth=3: later hits are in the order of the search" in ranking.notes) == noted


def test_what_the_deadline_left_stays_as_it_was() -> None:
    answer = RerankResult(order=(1, 0, 2, 3), scores=(2.0, 1.0, None, None), unreached=2, notes=("late",))
    ranking = rerank_hits(Recorded(answer), "deep", request(4), RANKING, depth=4, deadline=1.0)
    assert ids(ranking) == "bacd"
    assert ranking.hits[2:] == HITS[2:4]
    assert ranking.notes == ("searched", "late")


def test_an_order_without_scores_is_an_order() -> None:
    answer = RerankResult(order=(1, 0), scores=(None, None))
    ranking = rerank_hits(Recorded(answer), "list", request(2), RANKING, depth=2, deadline=None)
    assert [(hit.doc_id, hit.stage, hit.score) for hit in ranking.hits] == [("b", "list", None), ("a", "list", None)]
    past = Evidence("dense", 9, 0.5)
    assert ranking.hits[0].evidence == (past, Evidence("hybrid", 2, 4.0), Evidence("list", 1, None))
    again = Recorded(RerankResult(order=(1, 0), scores=(0.5, 0.25)))
    twice = rerank_hits(again, "deep", request(2), ranking, depth=2, deadline=None)
    assert ids(twice) == "ab"
    assert twice.hits[0].evidence[-2:] == (Evidence("list", 2, None), Evidence("deep", 1, 0.5))


WRONG = [
    {"order": (0, 0), "scores": (1.0, 0.5)},
    {"order": (0,), "scores": (1.0,)},
    {"order": (0, 1, 2), "scores": (1.0, 0.5, 0.2)},
    {"order": (0, 3), "scores": (1.0, 0.5)},
    {"order": (-1, 0), "scores": (1.0, 0.5)},
    {"order": (0, 1), "scores": (1.0,)},
    {"order": (), "scores": ()},
]


@pytest.mark.parametrize("wrong", WRONG)
def test_no_permutation_leaves_the_search_as_it_was_with_a_note(wrong: dict[str, Any]) -> None:
    ranking = rerank_hits(Recorded(RerankResult(**wrong)), "deep", request(2), RANKING, depth=3, deadline=None)
    assert ranking.hits == HITS[:2]
    assert ranking.notes[0] == "searched"
    assert ranking.notes[1].startswith("rerank_failed: 'deep' answered")
    assert "rerank" in ranking.timings_s


def test_a_failing_reranker_leaves_the_search_as_it_was_with_its_reason() -> None:
    failing = Recorded(RerankerError("no answer from the model"))
    ranking = rerank_hits(failing, "deep", request(2, 1), RANKING, depth=3, deadline=None)
    assert ranking.hits == HITS[1:3]
    assert ranking.notes[1] == "rerank_failed: no answer from the model; the hits are in the order of the search"


def test_other_errors_are_the_callers() -> None:
    with pytest.raises(OverloadedError):
        rerank_hits(Recorded(OverloadedError("full", 1.0)), "deep", request(2), RANKING, depth=3, deadline=None)


def test_nothing_to_compare_with_and_nothing_to_compare() -> None:
    reranker = Recorded(RuntimeError("never asked"))
    ranking = rerank_hits(reranker, "deep", request(2, text=" "), RANKING, depth=3, deadline=None)
    assert ranking.hits == HITS[:2]
    assert ranking.notes[1] == "rerank_skipped: the query has no text that 'deep' could compare with"
    assert rerank_hits(reranker, "deep", request(2), Ranking("q", ()), depth=3, deadline=None).hits == ()


def test_pieces_by_hand() -> None:
    assert list(pieces([], 100)) == []
    assert list(pieces([500], 100)) == [slice(0, 1)]
    assert list(pieces([50, 50, 50], 100)) == [slice(0, 2), slice(2, 3)]
    # 10 and 200 together: 400 padded tokens; apart: 10 + 200 and another pass
    assert list(pieces([10, 200, 200], 1000)) == [slice(0, 1), slice(1, 3)]
    assert list(pieces([10, 70, 70], 1000)) == [slice(0, 3)]


@given(st.lists(st.integers(1, 300), max_size=40), st.integers(1, 900))
def test_pieces_cover_everything_in_order_within_the_budget(lengths: list[int], budget: int) -> None:
    found = list(pieces(lengths, budget))
    assert [place for piece in found for place in range(piece.start, piece.stop)] == list(range(len(lengths)))
    for piece in found:
        held = lengths[piece]
        assert len(held) == 1 or max(held) * len(held) <= budget


def test_every_kind_can_be_built() -> None:
    assert set(get_args(get_type_hints(RerankerConfig)["kind"])) == RERANKERS.keys()


def test_a_table_of_a_server_configuration() -> None:
    config = parse(RerankerConfig, {"encoder": {"kind": "hashing", "dim": 64}, "batch_tokens": 512}, "server.toml [x]")
    assert config == RerankerConfig(encoder=EncoderConfig(kind="hashing", dim=64), batch_tokens=512)
    assert RerankerConfig() == RerankerConfig(kind="similarity", encoder=EncoderConfig())


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"kind": "bm25"}, "kind is 'bm25'"),
    ({"kind": "cross-encoder"}, "path is required"),
    ({"kind": "cross-encoder", "path": "m", "encoder": {"kind": "hashing"}}, "encoder has no meaning"),
    ({"kind": "cross-encoder", "path": "m", "max_tokens": 7}, "max_tokens is 7, expected at least 8"),
    ({"kind": "cross-encoder", "path": "m", "threads": 0}, "threads is 0"),
    ({"batch_tokens": 0}, "batch_tokens is 0"),
    ({"path": "m"}, "path has no meaning"),
    ({"device": "cpu"}, "device has no meaning"),
    ({"encoder": {"kind": "external", "dim": 3}}, "encodes no text"),
    ({"encoder": {"dim": 0}}, "encoder.dim is 0"),
    ({"revision": "main"}, "unknown key 'revision'"),
]


@pytest.mark.parametrize(("table", "message"), REFUSED)
def test_what_cannot_work_is_refused_with_its_place(table: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=r"^server.toml \[rerankers.x\]") as caught:
        parse(RerankerConfig, table, "server.toml [rerankers.x]")
    assert message in str(caught.value)
