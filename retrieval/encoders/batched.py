"""An encoder that many threads share: their calls form the model's batches, and queries overtake bulk work."""

import functools
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from typing import NamedTuple, Protocol, TypeAlias, runtime_checkable

import numpy as np
import numpy.typing as npt

from index.types import Vectors
from retrieval.batching import Batcher, BatcherStatistics, Lane, Limits, wait_for
from retrieval.encoders import check_queries, passage_text
from retrieval.encoders.config import EncodedBatch
from retrieval.encoders.model_encoder import batches
from retrieval.protocols import Encoder
from retrieval.types import Passage, Query, Vector

_TEXTS = 1_024
"""Texts counted and sorted together: as many as an encoder does itself."""

_AHEAD = 2
"""Pieces that one call has queued: one in the model, one that keeps the model busy while the caller wakes."""

_BYTES_PER_TOKEN = 4
"""Of UTF-8: about what tokenizers give for European and for Chinese or Japanese text."""


@runtime_checkable
class WindowedEncoder(Encoder, Protocol):
    """An encoder that runs a model on token windows."""

    @property
    def window(self) -> int | None:
        """Tokens of one input, special tokens and prompt included; None = unlimited."""
        ...

    def token_count(self, texts: Sequence[str]) -> list[int]:
        """Return the tokens of each text as encoded for passages, uncut."""
        ...


class _Piece(NamedTuple):
    """Texts that one model call encodes. tokens: their estimated cost, padding included."""

    texts: tuple[str, ...]
    tokens: int


_Item: TypeAlias = Query | _Piece
_Result: TypeAlias = Vector | EncodedBatch
_Rows: TypeAlias = npt.NDArray[np.int64]


class BatchedEncoder:
    """An Encoder around a model's: same vectors as in any other batching, same truncation counts.

    Queries go to the query lane of a `Batcher`, texts and passages to its bulk lane. Large calls are cut into pieces of
    about `limits.batch_cost` padded tokens, so that a query waits for one piece at most, and has two pieces queued at a
    time, so that callers take turns. Texts are sorted by token count first, as the encoder itself would; counting
    costs a second tokenisation (0.3 % of encoding with MiniLM in float32), which calls of a single piece save.
    Errors are the encoder's, raised to the caller whose texts caused them; OverloadedError when a lane is full.
    The worker thread ends when this object is garbage collected, or by `close`.
    """

    def __init__(self, encoder: WindowedEncoder, limits: Limits | None = None) -> None:
        self.encoder = encoder
        self._limits = limits or Limits()
        self._batcher: Batcher[_Item, _Result] = Batcher(
            functools.partial(_encode, encoder), cost=functools.partial(_cost, encoder.window), limits=self._limits
        )

    @property
    def dim(self) -> int:
        """Vector dimension D."""
        return self.encoder.dim

    @property
    def fingerprint(self) -> str:
        """Hex digest that names the vectors this encoder makes."""
        return self.encoder.fingerprint

    @property
    def window(self) -> int | None:
        """Tokens of one input, special tokens and prompt included; None = unlimited."""
        return self.encoder.window

    def token_count(self, texts: Sequence[str]) -> list[int]:
        """Return the tokens of each text as encoded for passages, uncut."""
        return self.encoder.token_count(texts)

    def encode_queries(self, queries: Sequence[Query], deadline: float | None = None) -> Vectors:
        """Return float32 (len(queries), D).

        deadline: a `time.monotonic()` reading; DeadlineError when the model did not take all queries until then.
        """
        texts = [query.text for query in queries]
        check_queries(texts)  # here, where it costs nobody else a retry
        vectors = np.empty((len(queries), self.dim), dtype=np.float32)
        work = ((rows, [queries[row] for row in rows]) for rows, _ in self._pieces(texts))
        for rows, results in self._results(work, "query", deadline):
            vectors[rows] = results
        return vectors

    def encode_passages(self, passages: Sequence[Passage]) -> Vectors:
        """Return float32 (len(passages), D), in the order given."""
        return self.encode_texts([passage_text(passage) for passage in passages]).vectors

    def encode_texts(self, texts: Sequence[str]) -> EncodedBatch:
        """Return float32 (len(texts), D) in the order given, and how many texts were longer than the window."""
        vectors = np.empty((len(texts), self.dim), dtype=np.float32)
        truncated = 0
        work = ((rows, [_Piece(tuple(texts[row] for row in rows), tokens)]) for rows, tokens in self._pieces(texts))
        for rows, (result,) in self._results(work, "bulk", None):
            assert isinstance(result, EncodedBatch), "a piece of texts is answered by a batch"
            vectors[rows] = result.vectors
            truncated += result.truncated
        return EncodedBatch(vectors, truncated)

    def statistics(self) -> BatcherStatistics:
        """Return what the batcher has done; items of the bulk lane are pieces."""
        return self._batcher.statistics()

    def close(self, timeout_s: float = 30.0) -> None:
        """Refuse new calls and answer those that wait; see `Batcher.close`."""
        self._batcher.close(timeout_s)

    def _pieces(self, texts: Sequence[str]) -> Iterator[tuple[_Rows, int]]:
        """Yield rows that fit one model batch together, and their padded tokens."""
        budget = self._limits.batch_cost
        for start in range(0, len(texts), _TEXTS):
            block = texts[start : start + _TEXTS]
            estimate = sum(_tokens(text, self.window) for text in block)
            if estimate <= budget or len(block) == 1:
                yield np.arange(start, start + len(block)), estimate
                continue
            lengths = np.array(self.token_count(block), dtype=np.int64)
            if self.window is not None:
                lengths = np.minimum(lengths, self.window)
            for rows in batches(lengths, budget):
                yield start + rows, max(1, int(lengths[rows[0]])) * len(rows)

    def _results(
        self, work: Iterator[tuple[_Rows, Sequence[_Item]]], lane: Lane, deadline: float | None
    ) -> Iterator[tuple[_Rows, list[_Result]]]:
        waiting: deque[tuple[_Rows, Future[list[_Result]]]] = deque()
        try:
            for rows, items in work:
                if len(waiting) == _AHEAD:
                    yield waiting[0][0], wait_for(waiting.popleft()[1], deadline)
                waiting.append((rows, self._batcher.submit(items, lane=lane, deadline=deadline)))
            while waiting:
                yield waiting[0][0], wait_for(waiting.popleft()[1], deadline)
        finally:
            for _, future in waiting:
                future.cancel()


def _tokens(text: str, window: int | None) -> int:
    """Estimate the tokens of a text without a tokenizer, special tokens included."""
    size = len(text) if text.isascii() else len(text.encode(errors="surrogatepass"))
    tokens = size // _BYTES_PER_TOKEN + 2
    return tokens if window is None else min(tokens, window)


def _cost(window: int | None, item: _Item) -> int:
    return _tokens(item.text, window) if isinstance(item, Query) else item.tokens


def _encode(encoder: WindowedEncoder, items: Sequence[_Item]) -> Sequence[_Result]:
    """Answer a batch of the batcher: all queries, or all pieces, for lanes do not mix."""
    queries = [item for item in items if isinstance(item, Query)]
    return list(encoder.encode_queries(queries)) if queries else _encode_pieces(encoder, items)


def _encode_pieces(encoder: WindowedEncoder, items: Sequence[_Item]) -> list[_Result]:
    pieces = [item for item in items if isinstance(item, _Piece)]
    batch = encoder.encode_texts([text for piece in pieces for text in piece.texts])
    if len(pieces) == 1:
        return [batch]
    results: list[_Result] = []
    stop = 0
    for piece in pieces:
        start, stop = stop, stop + len(piece.texts)
        # The encoder says how many texts of the batch were cut, not whose: rarely any, so counting again is cheap.
        truncated = _truncated(encoder, piece.texts) if batch.truncated else 0
        results.append(EncodedBatch(batch.vectors[start:stop], truncated))
    return results


def _truncated(encoder: WindowedEncoder, texts: Sequence[str]) -> int:
    window = encoder.window
    return 0 if window is None else sum(count > window for count in encoder.token_count(texts))
