import pytest

from index.errors import ConfigError
from retrieval.config import parse
from retrieval.lexical import LUCENE_LANGUAGES, TANTIVY_LANGUAGES, LexicalConfig


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (LexicalConfig(), (1.2, 0.75)),
        (LexicalConfig(engine="lucene"), (0.9, 0.4)),
        (LexicalConfig(engine="lucene", k1=1.5), (1.5, 0.4)),
        (LexicalConfig(engine="lucene", b=0.0), (0.9, 0.0)),
        (LexicalConfig(k1=1.2, b=0.75), (1.2, 0.75)),
    ],
)
def test_defaults_are_the_engines_own(config: LexicalConfig, expected: tuple[float, float]) -> None:
    config.validate()
    assert config.bm25 == expected


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (LexicalConfig(engine="solr"), "engine = 'solr'"),  # type: ignore[arg-type]  # what a file may say
        (LexicalConfig(language="klingon"), "language = 'klingon'.*english"),
        (LexicalConfig(language="polish"), "language = 'polish'"),
        (LexicalConfig(engine="lucene", language="tamil"), "language = 'tamil'"),
        (LexicalConfig(k1=0.9), "set engine = 'lucene'"),
        (LexicalConfig(b=0.4), "set engine = 'lucene'"),
        (LexicalConfig(language="cjk"), "stemming = false"),
        (LexicalConfig(language="arabic"), "stop_words = false"),
        (LexicalConfig(title_boost=-1.0), "title_boost"),
        (LexicalConfig(title_boost=float("nan")), "title_boost"),
        (LexicalConfig(title_boost=float("inf")), "title_boost"),
        (LexicalConfig(engine="lucene", k1=-0.1), "k1"),
        (LexicalConfig(engine="lucene", k1=float("nan")), "k1"),
        (LexicalConfig(engine="lucene", b=1.1), "between 0 and 1"),
        (LexicalConfig(engine="lucene", language="german", stemming=False), "German|german"),
    ],
)
def test_what_an_engine_cannot_do_is_refused(config: LexicalConfig, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        config.validate("collection.toml: fields.lexical")


def test_messages_name_the_place() -> None:
    with pytest.raises(ConfigError, match=r"^collection.toml: fields.words"):
        LexicalConfig(language="klingon").validate("collection.toml: fields.words")


def test_every_listed_language_has_a_valid_setting() -> None:
    for language in TANTIVY_LANGUAGES:
        LexicalConfig(language=language, stemming=False, stop_words=False).validate()
    for language in LUCENE_LANGUAGES:
        LexicalConfig(engine="lucene", language=language).validate()


def test_reads_from_a_table_of_a_file() -> None:
    table = {"engine": "lucene", "k1": 1, "title_boost": 2.5, "stop_words": False}
    config = parse(LexicalConfig, table, "collection.toml: fields.words")
    assert config == LexicalConfig(engine="lucene", k1=1.0, title_boost=2.5, stop_words=False)
    config.validate()
