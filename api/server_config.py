"""server.toml: what decides a server. Where it listens, its models, its limits, its log, and who may use it."""

import dataclasses
import ipaddress
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from api.keys import NAME, NAME_RULE, KeyConfig, Keys
from index.errors import ConfigError
from retrieval.config import check_table, override, parse, read_toml
from retrieval.encoders import EncoderConfig
from retrieval.pipeline_config import MAX_DEPTH
from retrieval.rerankers.config import RerankerConfig

_HOST = re.compile(r"\w([\w.-]*\w)?", re.ASCII)
_LOOPBACK_HOSTS = ("localhost", "127.0.0.1", "[::1]")


@dataclass(frozen=True, slots=True)
class ListenConfig:
    """A `[server]` table. host: an address or name of this machine; "0.0.0.0" and "::" are all its addresses.

    port: 0 takes a free one. allowed_hosts: see ServerConfig.trusted_hosts.
    Raises ConfigError on a value that cannot work.
    """

    host: str = "127.0.0.1"
    port: int = 8080
    allowed_hosts: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if _address(self.host) is None and not _HOST.fullmatch(self.host):
            raise ConfigError(f"host is {self.host!r}, expected an address or a host name, without brackets or port")
        if not 0 <= self.port <= 65_535:
            raise ConfigError(f"port is {self.port}, expected 0 to 65535")
        for pattern in self.allowed_hosts:
            name = pattern.removeprefix("*.")
            if pattern != "*" and not _HOST.fullmatch(name) and not _is_bracketed(name):
                raise ConfigError(
                    f"allowed_hosts holds {pattern!r}, expected a host name or address without port (IPv6 in "
                    'brackets), "*.example.com", or "*" for any'
                )

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can connect: a loopback address or "localhost"; other names are not looked up."""
        address = _address(self.host)
        return self.host.lower() == "localhost" if address is None else address.is_loopback


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def _is_bracketed(host: str) -> bool:
    return host.startswith("[") and host.endswith("]") and isinstance(_address(host[1:-1]), ipaddress.IPv6Address)


@dataclass(frozen=True, slots=True)
class Limits:
    """A `[limits]` table: what one request may ask for, and how much may wait. Sizes in bytes, times in seconds.

    k: results of a search. depth: candidates of one part, and offset + k. searches: searches in one request.
    documents: documents in one request (a bulk stream has no such limit). ids: ids in one request. texts, text_chars:
    texts to embed or rerank in one request; characters of each, of a query and of a phrase. places: of a phrase that
    are looked at, some 40 bytes of memory each while they are.
    body_bytes: of a request, bulk streams aside. line_bytes: of one line of a bulk stream. header_bytes: of the request
    line and all headers.
    queue, writes: searches and write requests that may wait, per collection; more are answered with 429.
    timeout_s: a search that names no time, of phrases too, and the most one may name; texts to embed or rerank.
    body_idle_s: longest pause in a request's body.
    drain_s: how long requests may go on when the server is asked to stop.
    Raises ConfigError on a value that cannot work.
    """

    k: int = 1_000
    depth: int = 10_000
    searches: int = 64
    documents: int = 1_000
    ids: int = 1_000
    texts: int = 256
    text_chars: int = 200_000
    places: int = 5_000_000
    body_bytes: int = 32 << 20
    line_bytes: int = 16 << 20
    header_bytes: int = 32 << 10
    queue: int = 256
    writes: int = 64
    timeout_s: float = 30.0
    body_idle_s: float = 15.0
    drain_s: float = 20.0

    def __post_init__(self) -> None:
        for item in dataclasses.fields(self):
            value = getattr(self, item.name)
            if item.type is int and value < 1:
                raise ConfigError(f"{item.name} is {value}, expected at least 1")
            if not (math.isfinite(value) and value > 0):
                raise ConfigError(f"{item.name} is {value}, expected a finite number of seconds above 0")
        if not self.k <= self.depth <= MAX_DEPTH:
            raise ConfigError(f"depth is {self.depth}, expected k ({self.k}) to {MAX_DEPTH}")


@dataclass(frozen=True, slots=True)
class LogConfig:
    """A `[log]` table. slow_ms: requests that take longer get a line of their own, 0 = all. format: of every line.

    Raises ConfigError on a value that cannot work.
    """

    slow_ms: float = 500.0
    format: Literal["json", "text"] = "json"

    def __post_init__(self) -> None:
        if not (math.isfinite(self.slow_ms) and self.slow_ms >= 0):
            raise ConfigError(f"slow_ms is {self.slow_ms}, expected a finite number of milliseconds, at least 0")


@dataclass(frozen=True, slots=True)
class TraceConfig:
    """A `[traces]` table. exporter: where OpenTelemetry spans go; "otlp" as the OTEL_EXPORTER_OTLP_* variables say."""

    exporter: Literal["none", "console", "otlp"] = "none"


@dataclass(frozen=True, slots=True)
class ServerConfig:
    """A whole server.toml.

    encoders, rerankers: all the models there are, by the name a request gives; clients can ask for no other. Tables in
    the file take the place of the default ones. keys: none means that whoever connects may do everything, which is
    refused unless `server.host` is loopback.
    Raises ConfigError on a value that cannot work.
    """

    server: ListenConfig = field(default_factory=ListenConfig)
    encoders: Mapping[str, EncoderConfig] = field(default_factory=lambda: {"default": EncoderConfig()})
    rerankers: Mapping[str, RerankerConfig] = field(default_factory=lambda: {"similarity": RerankerConfig()})
    limits: Limits = field(default_factory=Limits)
    log: LogConfig = field(default_factory=LogConfig)
    traces: TraceConfig = field(default_factory=TraceConfig)
    keys: tuple[KeyConfig, ...] = ()

    def __post_init__(self) -> None:
        for table, names in (("encoders", self.encoders), ("rerankers", self.rerankers)):
            for name in names:
                if not NAME.fullmatch(name):
                    raise ConfigError(f"[{table}] holds {name!r}: {NAME_RULE}")
        for name, encoder in self.encoders.items():
            if encoder.kind == "external":
                raise ConfigError(
                    f"[encoders.{name}].kind is 'external', which encodes nothing: remove the table; a field whose "
                    "clients bring vectors is created with `dim` and no encoder"
                )
        Keys(self.keys)  # made here to be checked
        if not self.keys and not self.server.is_loopback:
            raise ConfigError(
                f"[server].host is {self.server.host!r}, which other machines can reach, and there is no key: make one "
                'with `grapnel key NAME` and put its [[keys]] table here, or set host = "127.0.0.1"'
            )

    @classmethod
    def read(cls, path: Path | None = None, settings: Sequence[str] = ()) -> "ServerConfig":
        """Read a server.toml (None: all defaults) with `table.key=value` overrides. Raises ConfigError.

        An override cannot name a table with a dot in its name, nor reach into [[keys]].
        """
        table = {} if path is None else read_toml(path)
        return parse_server(override(table, settings), "--set" if path is None else path.name)

    def trusted_hosts(self) -> tuple[str, ...]:
        """Return what a request's Host header may name: `allowed_hosts` where given; with keys, anything.

        Without either, only names of this machine: a web page elsewhere could otherwise make its own name point here
        and use the server through its visitor's browser (DNS rebinding). With keys it could not: it has none.
        IPv6 addresses stand in brackets.
        """
        if self.server.allowed_hosts:
            return self.server.allowed_hosts
        if self.keys:
            return ("*",)
        host = f"[{self.server.host}]" if ":" in self.server.host else self.server.host
        return tuple(dict.fromkeys((*_LOOPBACK_HOSTS, host)))


def parse_server(table: Mapping[str, Any], where: str) -> ServerConfig:
    """Build a ServerConfig from the tables of a server.toml, which are its fields.

    where: file, for messages. Raises ConfigError with file, table, key and what is allowed.
    """
    allowed = [item.name for item in dataclasses.fields(ServerConfig)]
    unknown = sorted(table.keys() - set(allowed))
    if unknown:
        raise ConfigError(f"{where}: unknown key {unknown[0]!r}; allowed: {', '.join(sorted(allowed))}")
    given: dict[str, Any] = {"keys": _parse_keys(table.get("keys", []), where)}
    for name, cls in (("server", ListenConfig), ("limits", Limits), ("log", LogConfig), ("traces", TraceConfig)):
        if name in table:
            given[name] = parse(cls, table[name], f"{where} [{name}]")
    for name, each in (("encoders", EncoderConfig), ("rerankers", RerankerConfig)):
        if name in table:
            check_table(table[name], f"{where} [{name}]")
            given[name] = {key: parse(each, item, f"{where} [{name}.{key}]") for key, item in table[name].items()}
    try:
        return ServerConfig(**given)
    except ConfigError as error:
        raise ConfigError(f"{where} {error}") from error


def _parse_keys(tables: object, where: str) -> tuple[KeyConfig, ...]:
    if not isinstance(tables, list):
        raise ConfigError(f"{where}: keys is {type(tables).__name__}, expected tables, each under a line [[keys]]")
    return tuple(parse_key(table, f"{where} [[keys]] number {number}") for number, table in enumerate(tables, start=1))


def parse_key(table: Mapping[str, Any], where: str) -> KeyConfig:
    """Build a KeyConfig from one `[[keys]]` table. Raises ConfigError."""
    check_table(table, where)
    # A filter is JSON of any shape, so `parse` cannot know its types; the grammar checks it.
    key = parse(KeyConfig, {name: value for name, value in table.items() if name != "filter"}, where)
    if "filter" not in table:
        return key
    check_table(table["filter"], f"{where}.filter")
    try:
        return dataclasses.replace(key, filter=table["filter"])
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from error
