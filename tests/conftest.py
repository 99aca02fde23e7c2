"""What every test gets: no network, the real data where it is there, a configuration without a model."""

import ipaddress
import os
import shutil
import socket
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from index.metric import Metric
from retrieval.collection_config import CollectionConfig, DenseField
from retrieval.encoders import EncoderConfig
from retrieval.lexical import LexicalConfig

DATA = Path(os.environ.get("GRAPNEL_DATA", Path(__file__).parents[1].parent / "shared" / "data"))


class NetworkRefusedError(ConnectionRefusedError):
    """A test reached for the network; an OSError, so that code sees what it would see on a machine without one."""


def _is_local(host: object) -> bool:
    if host in (None, "", b"", "localhost", b"localhost"):
        return True
    try:
        return ipaddress.ip_address(host.decode() if isinstance(host, bytes) else str(host)).is_loopback
    except ValueError:
        return False


def _check(address: object) -> None:
    # AF_UNIX addresses are strings or bytes; internet addresses are tuples that begin with the host.
    if isinstance(address, tuple) and not _is_local(address[0]):
        raise NetworkRefusedError(f"tests may not reach {address[0]!r}: only loopback and Unix sockets are open")


@pytest.fixture(scope="session", autouse=True)
def _loopback_only() -> Iterator[None]:
    """Refuse every connection, datagram and name look-up that would leave this machine."""
    plain = {name: getattr(socket.socket, name) for name in ("connect", "connect_ex", "sendto", "sendmsg")}
    look_up = socket.getaddrinfo

    def connect(self: socket.socket, address: Any) -> None:
        _check(address)
        plain["connect"](self, address)

    def connect_ex(self: socket.socket, address: Any) -> int:
        _check(address)
        return int(plain["connect_ex"](self, address))

    def sendto(self: socket.socket, content: Any, *flags_and_address: Any) -> int:
        _check(flags_and_address[-1])
        return int(plain["sendto"](self, content, *flags_and_address))

    def sendmsg(self: socket.socket, *arguments: Any) -> int:
        _check(arguments[3] if len(arguments) > 3 else None)
        return int(plain["sendmsg"](self, *arguments))

    def getaddrinfo(host: Any, *arguments: Any, **options: Any) -> Any:
        _check((host,))
        return look_up(host, *arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        for guard in (connect, connect_ex, sendto, sendmsg):
            patch.setattr(socket.socket, guard.__name__, guard)
        patch.setattr(socket, "getaddrinfo", getaddrinfo)
        yield


@pytest.fixture
def in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep temporary folders in memory where there is room: for tests whose thousands of fsyncs are not the point."""
    memory = Path("/dev/shm")  # noqa: S108  only the tempfile module writes there
    if memory.is_dir() and os.access(memory, os.W_OK) and shutil.disk_usage(memory).free > 1 << 29:
        monkeypatch.setattr(tempfile, "tempdir", str(memory))


@pytest.fixture(scope="session")
def dataset() -> Callable[[str], Path]:
    """Return the folder of a real dataset by name; skips the test where it is absent."""

    def find(name: str) -> Path:
        folder = DATA / name
        if not folder.is_dir():
            pytest.skip(f"no dataset {name} in {DATA}: set GRAPNEL_DATA to the folder of the real data")
        return folder

    return find


@pytest.fixture(scope="session")
def hashing_config() -> Callable[..., CollectionConfig]:
    """Make a configuration with a dense field (hashing encoder, no model) and a lexical one.

    dim, metric: of the dense field. The other options are those of CollectionConfig.
    """

    def make(*, dim: int = 64, metric: Metric = "cosine", **options: Any) -> CollectionConfig:
        dense = DenseField(EncoderConfig(kind="hashing", dim=dim), metric=metric)
        return CollectionConfig(fields={"dense": dense, "lexical": LexicalConfig()}, **options)

    return make
