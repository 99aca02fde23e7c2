"""What every test gets: no network, the real data where it is there, a configuration without a model."""

import ipaddress
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
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


def _loopback_only(event: str, arguments: tuple[Any, ...]) -> None:
    """Refuse every connection, datagram and name look-up that would leave this machine."""
    if event in {"socket.connect", "socket.sendto", "socket.sendmsg"}:
        # AF_UNIX addresses are strings or bytes; internet addresses are tuples that begin with the host.
        host = arguments[1][0] if isinstance(arguments[1], tuple) else None
    elif event in {"socket.getaddrinfo", "socket.gethostbyname"}:
        host = arguments[0]
    else:
        return
    if not _is_local(host):
        raise NetworkRefusedError(f"tests may not reach {host!r}: only loopback and Unix sockets are open")


# An audit hook, because nothing can take it off again: a pytest plugin that comes with one of the frameworks' suites
# puts the socket methods back as they were after each test.
sys.addaudithook(_loopback_only)


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
