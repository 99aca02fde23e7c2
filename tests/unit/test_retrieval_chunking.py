import json
from itertools import pairwise

import pytest

from index.errors import ConfigError
from retrieval import chunking
from retrieval.chunking import Chunker, ChunkingConfig
from retrieval.encoders import EncoderConfig, passage_text
from retrieval.encoders.model_files import find_model
from retrieval.types import Document, Passage

MINILM = EncoderConfig()


def _texts(chunker: Chunker, text: str, title: str = "") -> list[str]:
    return [text[start:end] for start, end in chunker.spans(Document("d", text, title))]


@pytest.mark.parametrize(
    "keys", [{"kind": "words"}, {"max_tokens": 8}, {"overlap": -1}, {"max_tokens": 64, "overlap": 33}]
)
def test_a_value_that_cannot_work_is_refused(keys):
    with pytest.raises(ConfigError, match=r"^chunking\."):
        ChunkingConfig(**keys)


@pytest.mark.parametrize("text", ["", "   ", "one", "word " * 5000])
def test_none_makes_one_passage(text):
    assert Chunker(ChunkingConfig(), MINILM).spans(Document("d", text)) == [(0, len(text))]


@pytest.mark.parametrize("encoder", [None, MINILM, EncoderConfig(kind="hashing")])
def test_a_text_that_fits_is_not_cut_and_an_empty_one_has_a_span(encoder):
    chunker = Chunker(ChunkingConfig("tokens", 32, 8), encoder)
    assert chunker.spans(Document("d", "  fits as it is \n")) == [(0, 17)]
    assert chunker.spans(Document("d", "")) == [(0, 0)]
    assert chunker.spans(Document("d", " " * 50_000)) == [(0, 50_000)]


def test_paragraphs_are_kept_whole_where_they_fit():
    paragraphs = [f"Paragraph {n} " + "has a few words in it. " * 3 for n in range(6)]
    chunker = Chunker(ChunkingConfig("tokens", 32, 0), MINILM)
    assert _texts(chunker, "\n\n".join(paragraphs)) == [paragraph.strip() for paragraph in paragraphs]


def test_markdown_headings_begin_passages():
    sections = [f"# Heading {n}\n\n" + "Words of the section.\n" * 7 for n in range(4)]
    chunker = Chunker(ChunkingConfig("tokens", 64, 0, markdown=True), MINILM)
    assert [text.split("\n")[0] for text in _texts(chunker, "\n".join(sections))] == [
        f"# Heading {n}" for n in range(4)
    ]


def test_overlap_repeats_the_end_of_the_passage_before():
    text = " ".join(f"word{n}" for n in range(400))
    spans = Chunker(ChunkingConfig("tokens", 64, 16), MINILM).spans(Document("d", text))
    assert len(spans) > 5
    assert all(start < end for (_, end), (start, _) in pairwise(spans))


def test_without_a_tokenizer_four_characters_are_a_token():
    chunker = Chunker(ChunkingConfig("tokens", 32, 0), EncoderConfig(kind="external", dim=3))
    lengths = [len(text) for text in _texts(chunker, "four " * 200)]
    assert max(lengths) <= 128
    assert min(lengths[:-1]) > 100


@pytest.mark.parametrize("title", ["", "Short title", "A much longer title that says many things " * 4])
@pytest.mark.parametrize("prompt", ["", "represent this passage for retrieval: "])
def test_passages_fit_the_window_with_title_prompt_and_special_tokens(title, prompt):
    encoder = EncoderConfig(document_prompt=prompt, max_tokens=128)
    tokenizer = find_model(MINILM).tokenizer()
    assert tokenizer is not None
    text = "Unbelievably long-winded sentences, punctuation; and Donaudampfschiffe! " * 200
    document = Document("d", text, title)
    for start, end in Chunker(ChunkingConfig("tokens", 128, 16), encoder).spans(document):
        passage = Passage("d", 0, start, end, text[start:end], title)
        assert len(tokenizer.encode(prompt + passage_text(passage)).ids) <= 128


def test_passages_are_filled():
    tokenizer = find_model(MINILM).tokenizer()
    assert tokenizer is not None
    texts = _texts(Chunker(ChunkingConfig("tokens", 100, 0), MINILM), "some plain words " * 1000)
    sizes = [len(tokenizer.encode(text, add_special_tokens=False).ids) for text in texts]
    assert max(sizes) <= 100
    assert min(sizes[:-1]) >= 95


def test_a_title_longer_than_the_window_still_leaves_passages():
    spans = Chunker(ChunkingConfig("tokens"), MINILM).spans(Document("d", "text " * 500, "title " * 5000))
    assert spans[-1][1] == 2499
    assert len(spans) > 10


def test_long_runs_are_cut_the_same_wherever_segments_end(monkeypatch):
    words = [f"{n % 97}x{n}" + (". " if n % 11 == 0 else " ") + ("\n\n" if n % 60 == 0 else "") for n in range(9000)]
    document = Document("d", "".join(words))
    config = ChunkingConfig("tokens", 64, 8)
    segmented = Chunker(config, MINILM).spans(document)
    monkeypatch.setattr(chunking, "_SEGMENT_CHARACTERS", 1 << 30)
    assert Chunker(config, MINILM).spans(document) == segmented


def test_work_grows_with_the_text_not_with_its_square(monkeypatch):
    chunker = Chunker(ChunkingConfig("tokens", 64, 8), None)
    given = []

    class Counting:
        def __init__(self, splitter):
            self._splitter = splitter

        def chunk_indices(self, text):
            given.append(len(text))
            return self._splitter.chunk_indices(text)

    make = chunker._make_splitter
    monkeypatch.setattr(chunker, "_splitter", lambda capacity: Counting(make(capacity)))
    text = "漢字文書検索" * 50_000
    chunker.spans(Document("d", text))
    assert sum(given) < 1.2 * len(text)
    assert max(given) <= 16_384


def test_a_model_without_tokenizer_json_is_refused(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"")
    (tmp_path / "config.json").write_text(json.dumps({}))
    with pytest.raises(ConfigError, match=r"tokenizer\.json"):
        Chunker(ChunkingConfig("tokens"), EncoderConfig(path=str(tmp_path)))
    Chunker(ChunkingConfig(), EncoderConfig(path=str(tmp_path)))
