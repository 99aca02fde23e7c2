"""What mteb evaluates: a whole pipeline as its SearchProtocol, an encoder as its EncoderProtocol.

>>> import mteb
>>> from evaluation.mteb_models import EncoderModel, PipelineSearch
>>> from evaluation.mteb_tasks import as_mteb_task
>>> from evaluation.task import read_task
>>> from retrieval.collection_config import CollectionConfig
>>> from retrieval.encoders import EncoderConfig, open_encoder
>>> task = as_mteb_task(read_task("cranfield"))
>>> with PipelineSearch("hybrid", CollectionConfig()) as model:
...     print(mteb.evaluate(model, task).task_results[0].main_score)
>>> print(mteb.evaluate(EncoderModel("minilm", open_encoder(EncoderConfig())), task).task_results[0].main_score)
"""

from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self

import numpy as np
import numpy.typing as npt

from evaluation.measures import run_of
from evaluation.mteb_tasks import documents_in, mteb_library, queries_in
from index.errors import RequestError
from index.metric import Metric, paired_scores, prepare, scores
from index.types import Vectors
from retrieval.collection import Collection
from retrieval.collection_config import CollectionConfig, collection_table
from retrieval.config import digest_of, to_table
from retrieval.encoders import fingerprint
from retrieval.field_vectors import Encoders
from retrieval.pipeline_config import PipelineConfig, check_pipeline, default_pipeline, resolve_mode
from retrieval.protocols import Encoder
from retrieval.sources.validate import is_empty
from retrieval.types import Passage, Query, Ranking, SearchRequest

if TYPE_CHECKING:
    from datasets import Dataset
    from mteb.abstasks.task_metadata import TaskMetadata
    from mteb.models import ModelMeta

_BATCH: Final = 64

_SIMILARITIES: Final[Mapping[Metric, str]] = {"cosine": "COSINE", "ip": "DOT_PRODUCT", "l2": "EUCLIDEAN"}
"""Our metric -> mteb's name of it."""


class PipelineSearch:
    """A mode of a pipeline over collections of one configuration, as mteb's SearchProtocol; close it when done.

    Each corpus that mteb indexes becomes a collection in a temporary folder under `work` until the next or `close`.
    name: mteb files the results under "grapnel/<name>", with a digest of the configurations as revision.
    mode: None = the pipeline's default. Scores are -rank, so that mteb's ties, which it breaks by document id, cannot
    reorder results, and a query without any is answered with none, which mteb counts as 0: both runners agree. mteb's
    nAUC measures, which take scores for confidence, mean nothing then.
    mteb asks for its largest cutoff, usually 1,000 results, and a fused mode fuses at that depth: to compare, ask our
    runner for as many. Blank documents, which no collection takes, are never found.
    Raises ConfigError, RequestError on an unknown mode.
    """

    def __init__(
        self,
        name: str,
        collection: CollectionConfig,
        *,
        pipeline: PipelineConfig | None = None,
        mode: str | None = None,
        work: Path | None = None,
    ) -> None:
        self._name = name
        self._config = collection
        self._pipeline = check_pipeline(pipeline or default_pipeline(collection), collection, "pipeline")
        self._mode = resolve_mode(self._pipeline, collection, mode)
        self._work = work
        self._encoders = Encoders()
        self._open = ExitStack()
        self._indexed: Collection | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close and remove the collection of the last corpus."""
        self._indexed = None
        self._open.close()

    def index(self, corpus: "Dataset", *, task_metadata: "TaskMetadata", **_options: Any) -> None:
        """Build a collection of a corpus. Raises CorpusError on a document that is not acceptable, StorageError."""
        self.close()
        folder = Path(self._open.enter_context(TemporaryDirectory(prefix="grapnel-mteb-", dir=self._work)))
        begun = Collection.begin(folder / "collection", self._config, encoders=self._encoders)
        collection = self._open.enter_context(begun)
        documents = documents_in(corpus, task_metadata.name)
        collection.load(document for document in documents if not is_empty(document))
        collection.compact()
        self._indexed = collection

    def search(
        self,
        queries: "Dataset",
        *,
        task_metadata: "TaskMetadata",
        top_k: int,
        top_ranked: Mapping[str, list[str]] | None = None,
        **_options: Any,
    ) -> dict[str, dict[str, float]]:
        """Return query id -> document id -> -rank, every query in it, with up to `top_k` documents each.

        Raises RequestError before `index`, on candidates to choose from, and on a query that cannot be answered.
        """
        if self._indexed is None:
            raise RequestError("there is no corpus to search: mteb calls index before search")
        if top_ranked is not None:
            raise RequestError(
                f"task {task_metadata.name} gives candidates to rank, a pipeline finds its own: use EncoderModel"
            )
        asked = queries_in(queries, task_metadata.name)
        rankings: list[Ranking] = []
        for start in range(0, len(asked), _BATCH):
            requests = [SearchRequest(query, k=top_k) for query in asked[start : start + _BATCH]]
            rankings += self._indexed.search_many(requests, mode=self._mode, config=self._pipeline)
        return {
            query: {doc_id: -float(rank) for rank, doc_id in enumerate(doc_ids, start=1)}
            for query, doc_ids in run_of(rankings).items()
        }

    @property
    def mteb_model_meta(self) -> "ModelMeta":
        """What mteb records of the model. What a configuration does not say (licence, training data) is None."""
        dense = self._config.dense_fields()
        fused = self._pipeline.fusion.get(self._mode)
        parts = fused.parts if fused else (self._mode,)
        kinds = {"dense" if part in dense else "sparse" for part in parts}
        facts = [
            version("grapnel"),
            self._mode,
            to_table(self._pipeline),
            collection_table(self._config),
            {name: fingerprint(field.encoder) for name, field in dense.items()},
        ]
        return _meta(self._name, digest_of(facts), model_type=[kinds.pop() if len(kinds) == 1 else "hybrid"])


class EncoderModel:
    """An encoder as mteb's EncoderProtocol: mteb then searches exactly, and clusters, classifies and compares texts.

    name: as in PipelineSearch; the revision is the encoder's fingerprint. metric: compares the vectors.
    Rankings are mteb's own, of float scores: equal ones by document id descending.
    """

    def __init__(self, name: str, encoder: Encoder, *, metric: Metric = "cosine") -> None:
        self._name = name
        self._encoder = encoder
        self._metric = metric

    def encode(
        self,
        inputs: Iterable[Mapping[str, list[str]]],
        *,
        prompt_type: str | None = None,
        precision: str = "float32",
        **_options: Any,
    ) -> Vectors:
        """Return float32 (N, D), the vectors of all texts in some batches of mteb's.

        prompt_type: "query", "document", or None: texts that are neither are encoded as documents without a title.
        Raises RequestError on another precision: mteb would file the results under it.
        """
        if precision != "float32":
            raise RequestError(f"precision is {precision!r}, an encoder of grapnel gives float32: leave it out")
        if prompt_type == "query":
            return self._encoder.encode_queries([Query("", text) for batch in inputs for text in batch["text"]])
        return self._encoder.encode_passages([passage for batch in inputs for passage in _passages(batch)])

    def similarity(self, embeddings1: npt.ArrayLike, embeddings2: npt.ArrayLike) -> npt.NDArray[np.float32]:
        """Return float32 (Q, N), higher is better; "l2" is the negated square."""
        return scores(self._prepared(embeddings1), self._prepared(embeddings2), self._metric)

    def similarity_pairwise(self, embeddings1: npt.ArrayLike, embeddings2: npt.ArrayLike) -> npt.NDArray[np.float32]:
        """Return float32 (N,): vector i of the one compared with vector i of the other."""
        return paired_scores(self._prepared(embeddings1), self._prepared(embeddings2)[:, None], self._metric)[:, 0]

    def _prepared(self, vectors: npt.ArrayLike) -> Vectors:
        return prepare(np.atleast_2d(np.asarray(vectors, dtype=np.float32)), self._metric)

    @property
    def mteb_model_meta(self) -> "ModelMeta":
        """What mteb records of the model. What an encoder does not say (licence, training data) is None."""
        similarity = mteb_library().models.model_meta.ScoringFunction[_SIMILARITIES[self._metric]]
        return _meta(self._name, self._encoder.fingerprint, embed_dim=self._encoder.dim, similarity_fn_name=similarity)


def _passages(batch: Mapping[str, list[str]]) -> list[Passage]:
    """Return the passages of a batch; titles apart where mteb knows them, for encoders have their own way with them."""
    texts = batch.get("body", batch["text"])
    titles = batch.get("title", [""] * len(texts))
    return [Passage("", 0, 0, len(text), text, title) for text, title in zip(texts, titles, strict=True)]


def _meta(name: str, revision: str, **known: Any) -> "ModelMeta":
    meta: ModelMeta = mteb_library().models.ModelMeta.create_empty(
        overwrites={"name": f"grapnel/{name}", "revision": revision, **known}
    )
    return meta
