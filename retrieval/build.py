"""What kinds there are, and how each is built and opened: plain dictionaries, heavy imports inside the functions.

A new kind is one module and one line here.
"""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TypeAlias

from index.ann_format import read_about
from index.flat import FlatIndex
from index.metric import Metric
from index.spec import KINDS, Kind
from index.types import VectorIndex
from retrieval.collection_config import DenseField
from retrieval.encoders.config import EncoderConfig
from retrieval.lexical import LexicalConfig, LexicalIndex
from retrieval.lexical.live import TantivyLive
from retrieval.protocols import Encoder, Reranker
from retrieval.rerankers.config import RerankerConfig

Texts: TypeAlias = Iterator[tuple[int, str, str]]
"""(row, title, text) of every passage, in row order."""

EncoderOf: TypeAlias = Callable[[EncoderConfig], Encoder]
"""How an encoder is had: `Encoders.get` shares those that are loaded, `open_encoder` loads one."""


def _open_ann(folder: Path, metric: Metric) -> VectorIndex:
    from index.ann import AnnIndex  # noqa: PLC0415  faiss loads when used

    return AnnIndex.open(folder, metric)


INDEXES: Mapping[Kind, Callable[[Path, Metric], VectorIndex]] = {
    kind: FlatIndex.open if kind == "flat" else _open_ann for kind in KINDS if kind != "auto"
}
"""Index kind -> open(folder, metric). All are written by index.ann_build.write_index."""


def open_dense(field: DenseField, folder: Path) -> VectorIndex:
    """Open the index of a dense field, of the kind that its folder says it became, on the field's device.

    Where the device cannot be used the CPU answers, and the index says why (`degraded`).
    """
    about = read_about(folder)
    index = INDEXES["flat" if about is None else about.kind](folder, field.metric)
    if field.device == "cpu":
        return index
    from index.gpu import open_on  # noqa: PLC0415  torch loads when used

    return open_on(field.device, index, folder, field.metric)


def _write_tantivy(folder: Path, config: LexicalConfig, texts: Texts) -> Mapping[str, int]:
    from retrieval.lexical.tantivy import build_tantivy  # noqa: PLC0415  the engine loads when used

    return build_tantivy(folder, config, texts)


def _open_tantivy(folder: Path, config: LexicalConfig) -> LexicalIndex:
    from retrieval.lexical.tantivy import open_tantivy  # noqa: PLC0415  as above

    return open_tantivy(folder, config)


def _write_lucene(folder: Path, config: LexicalConfig, texts: Texts) -> Mapping[str, int]:
    from retrieval.lexical.lucene import build_lucene  # noqa: PLC0415  as above

    return build_lucene(folder, config, texts)


def _open_lucene(folder: Path, config: LexicalConfig) -> LexicalIndex:
    from retrieval.lexical.lucene import open_lucene  # noqa: PLC0415  as above

    return open_lucene(folder, config)


LEXICAL_WRITERS: Mapping[str, Callable[[Path, LexicalConfig, Texts], Mapping[str, int]]] = {
    "tantivy": _write_tantivy,
    "lucene": _write_lucene,
}
"""Engine -> write(folder, config, texts) -> counts."""

LEXICAL: Mapping[str, Callable[[Path, LexicalConfig], LexicalIndex]] = {
    "tantivy": _open_tantivy,
    "lucene": _open_lucene,
}
"""Engine -> open(folder, config)."""

LIVE: Mapping[str, Callable[[LexicalConfig, Path, Path], TantivyLive]] = {"tantivy": TantivyLive}
"""Engine -> open a writable copy(config, base folder, scratch folder); engines without one see new text after
compaction."""


def _open_similarity(config: RerankerConfig, encoder_of: EncoderOf) -> Reranker:
    from retrieval.rerankers.similarity import SimilarityReranker  # noqa: PLC0415  as above

    return SimilarityReranker(config, encoder_of(config.encoder))


def _open_cross_encoder(config: RerankerConfig, _encoder_of: EncoderOf) -> Reranker:
    from retrieval.rerankers.cross_encoder import CrossEncoderReranker  # noqa: PLC0415  as above

    return CrossEncoderReranker(config)


RERANKERS: Mapping[str, Callable[[RerankerConfig, EncoderOf], Reranker]] = {
    "similarity": _open_similarity,
    "cross-encoder": _open_cross_encoder,
}
"""Kind -> open(config, how to get an encoder), the model loaded and ready."""
