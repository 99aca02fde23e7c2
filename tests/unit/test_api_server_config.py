"""server.toml: nothing is guessed, an open server stays on loopback, and the example says what there is."""

import dataclasses
import re
import tomllib
from pathlib import Path

import pytest

from api.keys import KeyConfig, make_key
from api.server_config import Limits, ListenConfig, LogConfig, ServerConfig, parse_key, parse_server
from index.errors import ConfigError
from retrieval.encoders import EncoderConfig
from retrieval.rerankers.config import RerankerConfig

EXAMPLE = Path(__file__).parents[2] / "configs" / "server.toml"
HASH = "0123456789abcdef" * 4
KEY = f"[[keys]]\nname = 'app'\nsha256 = '{HASH}'\nscopes = ['read']\n"


def server(tmp_path: Path, text: str, *settings: str) -> ServerConfig:
    path = tmp_path / "server.toml"
    path.write_text(text, encoding="utf-8")
    return ServerConfig.read(path, settings)


def test_without_a_file_everything_is_as_by_default() -> None:
    config = ServerConfig.read()
    assert config == ServerConfig()
    assert config.server == ListenConfig("127.0.0.1", 8080, ())
    assert config.encoders == {"default": EncoderConfig()}
    assert config.rerankers == {"similarity": RerankerConfig()}
    assert config.keys == ()


def test_every_table_reaches_the_configuration(tmp_path: Path) -> None:
    config = server(
        tmp_path,
        f"""
        [server]
        host = "0.0.0.0"
        port = 0
        allowed_hosts = ["search.example.com", "*.example.org", "[::1]"]
        [encoders.small]
        kind = "hashing"
        dim = 64
        [encoders."BAAI/bge-m3"]
        path = "models/bge"
        [rerankers.cross]
        kind = "cross-encoder"
        path = "models/cross"
        [rerankers.near.encoder]
        kind = "hashing"
        [limits]
        k = 7
        timeout_s = 2
        [log]
        slow_ms = 0
        format = "text"
        [[keys]]
        name = "app"
        sha256 = "{HASH}"
        scopes = ["read", "write"]
        collections = ["docs", "wiki-*"]
        [keys.filter]
        type = "and"
        filters = [{{ type = "eq", key = "tenant", value = "acme" }}]
        [[keys]]
        name = "scraper"
        sha256 = "{HASH[::-1]}"
        scopes = ["metrics"]
        """,
    )
    assert config == ServerConfig(
        server=ListenConfig("0.0.0.0", 0, ("search.example.com", "*.example.org", "[::1]")),  # noqa: S104  not bound
        encoders={"small": EncoderConfig(kind="hashing", dim=64), "BAAI/bge-m3": EncoderConfig(path="models/bge")},
        rerankers={
            "cross": RerankerConfig(kind="cross-encoder", path="models/cross"),
            "near": RerankerConfig(encoder=EncoderConfig(kind="hashing")),
        },
        limits=Limits(k=7, timeout_s=2.0),
        log=LogConfig(0.0, "text"),
        keys=(
            KeyConfig(
                "app",
                HASH,
                ("read", "write"),
                ("docs", "wiki-*"),
                {"type": "and", "filters": [{"type": "eq", "key": "tenant", "value": "acme"}]},
            ),
            KeyConfig("scraper", HASH[::-1], ("metrics",), ("*",), None),
        ),
    )
    assert list(config.encoders) == ["small", "BAAI/bge-m3"]
    assert type(config.limits.timeout_s) is float


def test_a_server_may_have_no_model_of_its_own(tmp_path: Path) -> None:
    config = server(tmp_path, "[encoders]\n[rerankers]")
    assert config.encoders == config.rerankers == {}


def test_settings_override_the_file(tmp_path: Path) -> None:
    text = "[server]\nport = 1\n[limits]\nk = 5"
    config = server(tmp_path, text, "server.port=9000", "encoders.default.kind=hashing", "log.format=text")
    assert (config.server.port, config.limits.k, config.log.format) == (9000, 5, "text")
    assert config.encoders == {"default": EncoderConfig(kind="hashing")}
    assert ServerConfig.read(None, ["server.host=::1"]).server.host == "::1"
    with pytest.raises(ConfigError, match=r"^--set \[server\]\.port is 'x' \(str\), expected int"):
        ServerConfig.read(None, ["server.port=x"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("colour = 1", r": unknown key 'colour'; allowed: encoders, keys, limits, log, rerankers, server"),
        ("server = 5", r" \[server\] is 5, expected a table"),
        ("[server]\nbind = 1", r" \[server\]: unknown key 'bind'; allowed: allowed_hosts, host, port"),
        ("[server]\nport = 65536", r" \[server\]: port is 65536, expected 0 to 65535"),
        ("[server]\nport = -1", r" \[server\]: port is -1"),
        ("[server]\nport = true", r" \[server\]\.port is True \(bool\), expected int"),
        ("[server]\nhost = ''", r" \[server\]: host is ''"),
        ("[server]\nhost = 'a b'", r" \[server\]: host is 'a b'"),
        ("[server]\nhost = '[::1]'", r" \[server\]: host is '\[::1\]'.*without brackets"),
        ("[server]\nhost = '127.0.0.1:80'", r" \[server\]: host is '127\.0\.0\.1:80'.*without .*port"),
        ("[server]\nhost = 'localhost\\n'", r" \[server\]: host is 'localhost\\\\n'"),
        ("[server]\nallowed_hosts = ['']", r" \[server\]: allowed_hosts holds ''"),
        ("[server]\nallowed_hosts = ['a:80']", r" \[server\]: allowed_hosts holds 'a:80', .*without port"),
        ("[server]\nallowed_hosts = ['a.*']", r" \[server\]: allowed_hosts holds 'a\.\*'"),
        ("[server]\nallowed_hosts = ['*.*']", r" \[server\]: allowed_hosts holds '\*\.\*'"),
        ("[server]\nallowed_hosts = ['::1']", r" \[server\]: allowed_hosts holds '::1'.*brackets"),
        ("[server]\nallowed_hosts = ['[127.0.0.1]']", r" \[server\]: allowed_hosts holds '\[127"),
        ("[server]\nallowed_hosts = 'a'", r" \[server\]\.allowed_hosts is 'a' \(str\)"),
        ("encoders = 5", r" \[encoders\] is 5, expected a table"),
        ("encoders = []", r" \[encoders\] is \[\], expected a table"),
        ("[encoders]\nx = 'y'", r" \[encoders\.x\] is 'y', expected a table"),
        ("[encoders.x]\nmodel = 'y'", r" \[encoders\.x\]: unknown key 'model'"),
        ("[encoders.x]\ndim = 0", r" \[encoders\.x\]: encoder\.dim is 0"),
        ("[encoders.'a b']", r" \[encoders\] holds 'a b': a name has 1 to 128 of"),
        ("[encoders.'']", r" \[encoders\] holds ''"),
        ("[encoders.'../x']", r" \[encoders\] holds '\.\./x': .*begins with a letter or digit"),
        ("[encoders.x]\nkind = 'external'\ndim = 3", r" \[encoders\.x\]\.kind is 'external'.*`dim` and no encoder"),
        ("rerankers = 5", r" \[rerankers\] is 5, expected a table"),
        ("[rerankers.x]\nkind = 'llm'", r" \[rerankers\.x\]\.kind is 'llm'; allowed: 'similarity', 'cross-encoder'"),
        ("[rerankers.x]\nkind = 'cross-encoder'", r" \[rerankers\.x\]: .*path is required"),
        ("[rerankers.'é']", r" \[rerankers\] holds 'é'"),
        ("[limits]\nfoo = 1", r" \[limits\]: unknown key 'foo'"),
        ("[limits]\nk = 0", r" \[limits\]: k is 0, expected at least 1"),
        ("[limits]\nk = 1.0", r" \[limits\]\.k is 1\.0 \(float\), expected int"),
        ("[limits]\nqueue = -1", r" \[limits\]: queue is -1, expected at least 1"),
        ("[limits]\nk = 20\ndepth = 19", r" \[limits\]: depth is 19, expected k \(20\) to 1000000"),
        ("[limits]\ndepth = 1_000_001", r" \[limits\]: depth is 1000001"),
        ("[limits]\ntimeout_s = 0", r" \[limits\]: timeout_s is 0\.0, expected a finite number of seconds above 0"),
        ("[limits]\ndrain_s = inf", r" \[limits\]: drain_s is inf"),
        ("[limits]\nbody_idle_s = nan", r" \[limits\]: body_idle_s is nan"),
        ("[log]\nslow_ms = -1", r" \[log\]: slow_ms is -1\.0"),
        ("[log]\nslow_ms = inf", r" \[log\]: slow_ms is inf"),
        ("[log]\nformat = 'xml'", r" \[log\]\.format is 'xml'; allowed: 'json', 'text'"),
        ("[keys]\nname = 'app'", r": keys is dict, expected tables, each under a line \[\[keys\]\]"),
        ("keys = ['gk_x']", r" \[\[keys\]\] number 1 is 'gk_x', expected a table"),
        (KEY + "[[keys]]", r" \[\[keys\]\] number 2: key 'name' is required"),
        (
            KEY + "key = 'x'",
            r" \[\[keys\]\] number 1: unknown key 'key'; allowed: collections, filter, name, scopes, sh",
        ),
        (KEY.replace("read", "reed"), r" \[\[keys\]\] number 1\.scopes\[0\] is 'reed'; allowed: 'read', 'write', "),
        (KEY.replace("['read']", "'read'"), r" \[\[keys\]\] number 1\.scopes is 'read' \(str\)"),
        (KEY + "filter = 'x'", r" \[\[keys\]\] number 1\.filter is 'x', expected a table"),
        (KEY + "filter = {}", r" \[\[keys\]\] number 1: filter\.type is None.*without a filter, leave it out"),
        (
            KEY + "filter = { type = 'eq', key = 'day', value = 2020-01-01 }",
            r" \[\[keys\]\] number 1: filter\.value is date",
        ),
        (KEY + KEY, r" key 'app' has the sha256 of another key"),
    ],
)
def test_a_bad_file_is_refused_by_table_and_key(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=rf"^server\.toml{message}"):
        server(tmp_path, text)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.toml does not exist"):
        ServerConfig.read(tmp_path / "none.toml")
    with pytest.raises(ConfigError, match=r"server\.toml: .*line 2"):
        server(tmp_path, "[server]\nport\n")


def test_a_secret_put_where_its_hash_belongs_is_not_repeated(tmp_path: Path) -> None:
    secret, _ = make_key()
    with pytest.raises(ConfigError, match=r"sha256 of key 'app' is not 64 .*make a new key") as refusal:
        server(tmp_path, KEY.replace(HASH, secret))
    told: BaseException | None = refusal.value
    while told is not None:
        assert secret not in str(told)
        told = told.__cause__


# -- who can connect --------------------------------------------------------------------------------------------------

LOOPBACK = ["127.0.0.1", "127.8.9.10", "::1", "0:0:0:0:0:0:0:1", "localhost", "LocalHost"]
REACHABLE = ["0.0.0.0", "::", "192.168.1.4", "10.0.0.1", "8.8.8.8", "fe80::1", "example.com", "localhost.example.com"]  # noqa: S104


@pytest.mark.parametrize("host", LOOPBACK)
def test_loopback_needs_no_key(tmp_path: Path, host: str) -> None:
    config = server(tmp_path, f"[server]\nhost = '{host}'")
    assert config.server.is_loopback
    assert not config.keys


# Names and numbers that the resolver may take for 127.0.0.1 count as reachable: nothing is looked up.
@pytest.mark.parametrize("host", [*REACHABLE, "127.1", "2130706433", "0x7f000001", "ip6-localhost"])
def test_an_open_server_stays_on_this_machine(tmp_path: Path, host: str) -> None:
    text = f"[server]\nhost = '{host}'\n"
    with pytest.raises(ConfigError, match=r"^server\.toml \[server\]\.host is .* no key: make one with `grapnel key"):
        server(tmp_path, text)
    with pytest.raises(ConfigError, match="no key"):
        ServerConfig(server=ListenConfig(host))
    with pytest.raises(ConfigError, match="no key"):
        ServerConfig.read(None, [f'server.host="{host}"'])
    assert server(tmp_path, text + KEY).server.host == host


def test_which_names_a_request_may_use(tmp_path: Path) -> None:
    here = ("localhost", "127.0.0.1", "[::1]")
    assert ServerConfig().trusted_hosts() == here
    assert server(tmp_path, "[server]\nhost = '::1'").trusted_hosts() == here
    assert server(tmp_path, "[server]\nhost = '127.0.0.9'").trusted_hosts() == (*here, "127.0.0.9")
    assert server(tmp_path, KEY).trusted_hosts() == ("*",)
    named = "[server]\nallowed_hosts = ['a.example.com']\n"
    assert server(tmp_path, named).trusted_hosts() == ("a.example.com",)
    assert server(tmp_path, named + KEY).trusted_hosts() == ("a.example.com",)


# -- the example ------------------------------------------------------------------------------------------------------

TEXT = EXAMPLE.read_text(encoding="utf-8")
BLOCKS = list(re.finditer(r"^# \[.*\n(?:# \w+ = .*\n)+", TEXT, re.MULTILINE))
"""Tables that have no default and are therefore commented out as a whole."""
LINES = [
    found
    for found in re.finditer(r"^# \w+ = .*\n", TEXT, re.MULTILINE)
    if not any(block.start() <= found.start() < block.end() for block in BLOCKS)
]


def uncommented(found: re.Match[str]) -> str:
    return re.sub("^# ", "", found.group(), flags=re.MULTILINE)


def test_the_example_says_the_defaults() -> None:
    assert ServerConfig.read(EXAMPLE) == ServerConfig()


def test_the_example_spells_out_every_default_there_is() -> None:
    said = tomllib.loads(TEXT)
    assert said["server"] == {"host": "127.0.0.1", "port": 8080, "allowed_hosts": []}
    assert said["limits"] == dataclasses.asdict(Limits())
    assert said["log"] == dataclasses.asdict(LogConfig())


@pytest.mark.parametrize(
    ("heads", "config"),
    [
        (["server"], ListenConfig),
        (["encoders.default"], EncoderConfig),
        (["rerankers.similarity", "rerankers.similarity.encoder", "rerankers.cross"], RerankerConfig),
        (["limits"], Limits),
        (["log"], LogConfig),
        (["[keys]"], KeyConfig),
    ],
)
def test_every_key_is_in_the_example(heads: list[str], config: type) -> None:
    parts = re.split(r"^(?:# )?\[(\S+)\](?: .*)?$", TEXT, flags=re.MULTILINE)
    bodies = dict(zip(parts[1::2], parts[2::2], strict=True))
    keys = {key for head in heads for key in re.findall(r"^(?:# )?(\w+) = ", bodies[head], re.MULTILINE)}
    keys |= {"encoder"} & {field.name for field in dataclasses.fields(config)}  # a table of its own
    assert keys == {field.name for field in dataclasses.fields(config)}


@pytest.mark.parametrize("found", [*LINES, *BLOCKS], ids=lambda found: found.group().split()[1])
def test_every_example_line_is_valid_and_has_an_effect(tmp_path: Path, found: re.Match[str]) -> None:
    changed = TEXT[: found.start()] + uncommented(found) + TEXT[found.end() :]
    assert server(tmp_path, changed) != ServerConfig()


def test_the_example_key_is_what_its_comments_say(tmp_path: Path) -> None:
    (block,) = (block for block in BLOCKS if "[[keys]]" in block.group())
    (key,) = server(tmp_path, TEXT + uncommented(block)).keys
    tenant = {"type": "eq", "key": "tenant", "value": "acme"}
    assert key == KeyConfig("search-app", "0" * 64, ("read", "write"), ("docs", "wiki-*"), tenant)
    assert parse_key(tomllib.loads(uncommented(block))["keys"][0], "here") == key


def test_an_empty_table_is_a_configuration() -> None:
    assert parse_server({}, "here") == ServerConfig()
