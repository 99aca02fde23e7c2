import tempfile
from pathlib import Path
from unittest import mock

import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from retrieval import vector_store
from retrieval.vector_store import VectorStore

DIM = 3
NUMBERS = st.lists(st.integers(0, 40), max_size=12)


def _keys(numbers: list[int]) -> np.ndarray:
    return np.array([[number % 5, number] for number in numbers], np.uint64).reshape(-1, 2)


def _vectors(numbers: list[int]) -> np.ndarray:
    return np.array([[number, -number, 0.5] for number in numbers], np.float32).reshape(-1, DIM)


class StoreLikeADict(RuleBasedStateMachine):
    """A writer and a reader that refreshes now and then, against a set of numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.merging = mock.patch.object(vector_store, "_SMALL_ROWS", 12)  # so that a few appends merge
        self.merging.start()
        self.folder = tempfile.TemporaryDirectory()
        self.writer = VectorStore(Path(self.folder.name), DIM)
        self.reader = VectorStore(Path(self.folder.name), DIM)
        self.stored: set[int] = set()
        self.in_use: set[int] = set()
        self.seen: set[int] = set()

    @rule(numbers=NUMBERS)
    def append(self, numbers):
        self.writer.append(_keys(numbers), _vectors(numbers))
        self.stored |= set(numbers)
        self.in_use |= set(numbers)

    @rule(numbers=NUMBERS)
    def compact(self, numbers):
        self.in_use = set(numbers)
        before = len(self.writer)
        result = self.writer.compact(_keys(numbers))
        assert len(self.writer) == before - result.rows_dropped
        # Unused rows may stay where most of a shard is in use; nothing in use may go.
        mask = self.writer.contains(_keys(sorted(self.stored)))
        self.stored = {number for number, kept in zip(sorted(self.stored), mask, strict=True) if kept} | (
            self.stored & self.in_use
        )

    @rule()
    def reopen(self):
        self.writer = VectorStore(Path(self.folder.name), DIM)
        self.writer.clean()

    @rule()
    def refresh(self):
        self.reader.refresh()
        self.seen = set(self.stored)

    @invariant()
    def both_answer_like_sets(self):
        asked = [*range(40, -1, -1), 7, 7]
        for store, numbers in ((self.writer, self.stored), (self.reader, self.seen)):
            mask, vectors = store.get(_keys(asked))
            assert mask.tolist() == [number in numbers for number in asked]
            assert (vectors == _vectors([number for number in asked if number in numbers])).all()

    def teardown(self):
        self.merging.stop()
        self.folder.cleanup()


TestStoreLikeADict = StoreLikeADict.TestCase
TestStoreLikeADict.settings = settings(
    max_examples=25, stateful_step_count=15, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
