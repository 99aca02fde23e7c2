import math
from typing import Any

import numpy as np
import pytest

from index.errors import CorpusError
from retrieval.sources.validate import (
    ID_BYTES,
    METADATA_BYTES,
    METADATA_LEVELS,
    TEXT_BYTES,
    TITLE_BYTES,
    DuplicateIds,
    check_document,
    is_empty,
)
from retrieval.types import Document

LONE = "half \ud83d of a character"


def nested(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = {"in": value}
    return value


@pytest.mark.parametrize(
    "document",
    [
        Document("a", "text"),
        Document("a", title="only a title"),
        Document("a", vectors={"dense": np.ones(3, np.float32)}),
        Document("é" * (ID_BYTES // 2), "id at its limit"),
        Document("with space/and%20percent", "text"),
        Document("a", "NUL \0 is legal in a text", "and in a \0 title", {"m": "\0"}),
        Document("a", "x", "t" * TITLE_BYTES),
        Document("a", "x", metadata=nested(METADATA_LEVELS)),
        Document("a", "x", metadata={"low": -(2**63), "high": 2**63 - 1, "list": [1, 2.5, None, True, "s"], "t": (1,)}),
        Document("a", "x", metadata={"m": "v" * (METADATA_BYTES - len('{"m":""}'))}),
    ],
)
def test_legal_documents_pass(document: Document) -> None:
    check_document(document)


def test_a_text_of_50_mb_passes_and_one_byte_beyond_the_limit_does_not() -> None:
    check_document(Document("a", "x" * 50_000_000))
    check_document(Document("a", "é" * (TEXT_BYTES // 2)))
    with pytest.raises(CorpusError, match=r"'a': text has 67,108,865 bytes, at most 67,108,864 .* split it"):
        check_document(Document("a", "é" * (TEXT_BYTES // 2) + "x"))


@pytest.mark.parametrize(
    ("document", "message"),
    [
        (Document("", "x"), "id '' is empty"),
        (Document(" \t ", "x"), "is empty"),
        (Document("é" * (ID_BYTES // 2) + "x", "x"), "513 bytes, at most 512"),
        (Document("a\nb", "x"), r"'a\\nb' holds a control character"),
        (Document("a\0", "x"), "control character"),
        (Document("a\x85", "x"), "control character"),
        (Document(LONE, "x"), r"U\+D83D at character 5"),
        (Document(7, "x"), "id 7 is of type int"),  # type: ignore[arg-type]  # what an untyped caller passes
        (Document("a", LONE), "text has a lone surrogate"),
        (Document("a", "x", LONE), "title has a lone surrogate"),
        (Document("a", "x", "t" * (TITLE_BYTES + 1)), "title has 65,537 bytes"),
        (Document("a", b"x"), "text is of type bytes"),  # type: ignore[arg-type]
        (Document("a"), "empty: it needs a text, a title or a vector"),
        (Document("a", " \n", "\t"), "is empty"),
        (Document("a", "x", metadata={"m": LONE}), "metadata 'm' has a lone surrogate"),
        (Document("a", "x", metadata={LONE: 1}), "lone surrogate"),
        (Document("a", "x", metadata={"m": math.nan}), "metadata 'm' is nan"),
        (Document("a", "x", metadata={"m": [1, -math.inf]}), "is -inf"),
        (Document("a", "x", metadata={1: "m"}), "key 1 of type int"),  # type: ignore[dict-item]
        (Document("a", "x", metadata={"m": {2: "m"}}), "'m' has the key 2"),
        (Document("a", "x", metadata={"m": 2**63}), "beyond 64 bits"),
        (Document("a", "x", metadata={"m": np.int64(3)}), "of type numpy.int64"),
        (Document("a", "x", metadata={"m": {1, 2}}), "of type builtins.set"),
        (Document("a", "x", metadata=nested(METADATA_LEVELS + 1)), "deeper than 16 levels"),
        (Document("a", "x", metadata={"m": "v" * METADATA_BYTES}), "1,048,584 bytes as JSON, at most 1,048,576"),
        (Document("a", "x", metadata=[]), "metadata is of type list"),  # type: ignore[arg-type]
        (Document("a", "x", vectors={"v": np.ones(3)}), r"vector 'v' is float64 \(3,\), expected a float32"),
        (Document("a", "x", vectors={"v": np.ones((1, 3), np.float32)}), r"float32 \(1, 3\)"),
        (Document("a", "x", vectors={"v": np.ones(0, np.float32)}), r"float32 \(0,\)"),
        (Document("a", "x", vectors={"v": [1.0]}), "of type list"),  # type: ignore[dict-item]
        (Document("a", "x", vectors={"v": np.array([1, np.nan], np.float32)}), "NaN or infinity"),
        (Document("a", "x", vectors={"": np.ones(3, np.float32)}), "has no name"),
    ],
)
def test_each_fault_is_refused_with_its_own_message(document: Document, message: str) -> None:
    with pytest.raises(CorpusError, match=message) as caught:
        check_document(document)
    str(caught.value).encode()  # printable on any terminal, whatever the document held


def test_deep_nesting_is_refused_before_python_runs_out_of_stack() -> None:
    with pytest.raises(CorpusError, match="levels"):
        check_document(Document("a", "x", metadata=nested(100_000)))


def test_emptiness() -> None:
    assert is_empty(Document("a", " \n\t\u2003"))
    assert not is_empty(Document("a", title="t"))
    assert not is_empty(Document("a", vectors={"v": np.zeros(1, np.float32)}))


def test_a_duplicate_names_both_places() -> None:
    with DuplicateIds() as ids:
        ids.add("x", "corpus.jsonl line 3")
        ids.add("y", "corpus.jsonl line 4")
        with pytest.raises(CorpusError, match=r"corpus.jsonl line 9: id 'x' was used before, at corpus.jsonl line 3"):
            ids.add("x", "corpus.jsonl line 9")
        ids.add("X", "corpus.jsonl line 10")
        ids.add("x ", "corpus.jsonl line 11")
        ids.add(LONE, "corpus.jsonl line 12")
