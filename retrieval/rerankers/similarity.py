"""Reranking by the similarity of vectors: query and candidates encoded apart."""

from collections.abc import Sequence
from dataclasses import replace

from index.metric import prepare, scores
from index.types import Vectors
from retrieval.encoders.batched import WindowedEncoder
from retrieval.protocols import Candidate, Encoder, RerankResult
from retrieval.rerankers import Scored, checked_texts, head, pieces, rerank_pointwise, truncated_note
from retrieval.rerankers.config import RerankerConfig
from retrieval.types import Query

_BATCH_TOKENS = 4_096
_BYTES_PER_TOKEN = 4
"""Of UTF-8: about what tokenizers give for European and for Chinese or Japanese text."""


class SimilarityReranker:
    """Scores a candidate by the cosine of its vector and the query's, in [-1, 1]; a zero vector has cosine 0.

    The query is encoded as queries are, candidates as passages are: with their prompts, title before text. An encoder
    that collections use already (`Encoders.get`) shares its batches with their searches and writes.
    Cost: encoding the candidates. What a candidate has beyond the encoder's window is not read; a note counts these.
    """

    def __init__(self, config: RerankerConfig, encoder: Encoder) -> None:
        self._encoder = encoder
        self._model = encoder if isinstance(encoder, WindowedEncoder) else None
        self._window = None if self._model is None else self._model.window
        self._batch_tokens = config.batch_tokens or _BATCH_TOKENS

    def rerank(
        self, query: str, candidates: Sequence[Candidate], *, top_k: int, deadline: float | None
    ) -> RerankResult:
        """See Reranker. The encoder gets about `batch_tokens` tokens of candidates at a time, by an estimate."""
        texts = checked_texts(query, candidates, top_k)
        against: Vectors | None = None
        truncated = 0

        def score(piece: slice) -> Scored:
            nonlocal against, truncated
            block = read = texts.distinct[piece]
            calls = 1
            if against is None:  # the first piece
                against = prepare(self._encoder.encode_queries([Query("rerank", query)]), "cosine")
                read, calls = [query, *block], 2
            batch = self._encoder.encode_texts(block)
            truncated += batch.truncated
            found = scores(against, prepare(batch.vectors, "cosine"), "cosine")[0]
            return Scored(found, 0 if self._model is None else calls, self._tokens(read))

        work = pieces([self._estimate(text) for text in texts.distinct], self._batch_tokens)
        result = rerank_pointwise(work, score, texts, top_k=top_k, deadline=deadline)
        return replace(result, notes=result.notes + truncated_note(truncated, self._window))

    def _estimate(self, text: str) -> int:
        tokens = len(text.encode()) // _BYTES_PER_TOKEN + 2
        return tokens if self._window is None else min(tokens, self._window)

    def _tokens(self, texts: Sequence[str]) -> int:
        """Return how many tokens a model reads of texts, 0 where there is none."""
        if self._model is None:
            return 0
        counts = self._model.token_count([head(text, self._window) for text in texts])
        return sum(counts) if self._window is None else sum(min(count, self._window) for count in counts)
