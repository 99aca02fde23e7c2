"""tantivy's scores against BM25 written out: idf = ln(1 + (N - n + .5) / (n + .5)), k1 = 1.2, b = .75."""

import math
import random
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from retrieval.lexical import LexicalConfig
from retrieval.lexical.live import TantivyLive
from retrieval.lexical.tantivy import build_tantivy, open_tantivy

K1, B = 1.2, 0.75


def bm25(documents: list[list[str]], query: list[str]) -> list[float]:
    count, average = len(documents), sum(map(len, documents)) / len(documents)
    scores = []
    for document in documents:
        frequency, score = Counter(document), 0.0
        for word in query:
            holders = sum(word in other for other in documents)
            tf = frequency[word]
            norm = K1 * (1 - B + B * len(document) / average)
            score += math.log(1 + (count - holders + 0.5) / (holders + 0.5)) * tf * (K1 + 1) / (tf + norm)
        scores.append(score)
    return scores


def corpus(seed: int) -> list[tuple[str, str]]:
    """(title, text) of at most 40 words together: lengths that one byte stores exactly."""
    rng = random.Random(seed)
    words = [f"w{number}" for number in range(30)]
    lengths = [rng.randrange(5) for _ in range(40)]
    return [
        (" ".join(rng.choices(words, k=length)), " ".join(rng.choices(words, k=rng.randrange(41 - length))))
        for length in lengths
    ]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("title_boost", [0.0, 0.7])
@pytest.mark.parametrize("live", [False, True])
def test_scores_are_bm25(tmp_path: Path, seed: int, title_boost: float, live: bool) -> None:
    config = LexicalConfig(stemming=False, stop_words=False, title_boost=title_boost)
    documents = corpus(seed)
    passages = [(row, title, text) for row, (title, text) in enumerate(documents)]
    if live:
        writable = TantivyLive(config, None, tmp_path / "scratch")
        for start in range(0, len(passages), 15):
            writable.apply(passages[start : start + 15])
            writable.commit()
        index = writable.reader()
    else:
        build_tantivy(tmp_path, config, passages)
        index = open_tantivy(tmp_path, config)
    for query in (["w1"], ["w1", "w2", "w3"], ["w4", "w4", "w9"], ["w5", "unknown"]):
        expected = np.array(bm25([f"{title} {text}".split() for title, text in documents], query))
        if title_boost:
            expected += title_boost * np.array(bm25([title.split() for title, _ in documents], query))
        found = index.search(" ".join(query), 100)
        assert set(found.rows.tolist()) == set(np.flatnonzero(expected).tolist())
        np.testing.assert_allclose(found.scores, expected[found.rows], rtol=2e-6)
        assert (np.diff(expected[found.rows]) < 1e-5).all()
